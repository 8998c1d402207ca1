//! The system calls on a socket that both backends make.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Sets `TCP_NODELAY`. A socket that knows no such option (a Unix one) delays nothing, so refusal is ignored.
pub(super) fn send_at_once(fd: BorrowedFd<'_>) {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32);
}

/// Shuts down both directions; with `reset`, unsent bytes are thrown away when the descriptor closes. Failure means
/// that the connection is gone already.
pub(super) fn shut_down(fd: BorrowedFd<'_>, reset: bool) {
    if reset {
        set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 });
    }
    // SAFETY: a system call on a descriptor that is open; it touches no memory of ours.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Ends the sending side: the peer reads the end of the stream after what was sent.
pub(super) fn end_sending(fd: BorrowedFd<'_>) {
    // SAFETY: a system call on a descriptor that is open; it touches no memory of ours.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// Takes `O_NONBLOCK` off: with it io_uring answers `EAGAIN` where it should wait.
pub(super) fn make_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: system calls on a descriptor that is open; they touch no memory of ours.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_NONBLOCK != 0 {
        // SAFETY: as above.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) })?;
    }
    Ok(())
}

/// Receives what is there, without waiting. 0: the peer has closed its sending side.
pub(super) fn receive(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `into.len()` bytes into `into`.
    retried(|| unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) })
}

/// Sends what the kernel takes, without waiting.
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most `bytes.len()` bytes of `bytes`.
    retried(|| unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// The error of a system call that answered a negative number.
pub(super) fn check(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

fn set_option<T>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) {
    let bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `bytes` bytes of `value`, a plain C value.
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), bytes) };
}
