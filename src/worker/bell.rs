//! An eventfd: how a sleeping worker is woken.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::mesh::doorbell::Bell;

/// One eventfd. Ringing adds to its count; it is watched for changes and never read.
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Arc<EventFd>> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just given us this descriptor.
        Ok(Arc::new(EventFd(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// The descriptor, for watching.
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Bell for EventFd {
    fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes, as an eventfd wants them. The count cannot overflow in the life of a process
        // that rings a million times a second.
        unsafe { libc::write(self.raw(), one.as_ptr().cast(), one.len()) };
    }
}
