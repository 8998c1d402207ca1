//! The io_uring of the load generator: connects, sends and multishot receives into provided buffers (Linux 6.0).
//!
//! Invariant: the kernel writes only into the buffer region, and reads only from sends that are kept until they
//! complete. Both are freed only after every request has been cancelled; otherwise they are leaked.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Receive buffers. None free: the receive ends and is armed again.
const BUFFERS: u16 = 128;
/// Bytes of each.
const BUFFER_BYTES: usize = 16 * 1024;
/// Bytes of the ring of buffers: one page is enough for 128 entries of 16 bytes, and aligned.
const BUFFER_RING_BYTES: usize = 4096;
const GROUP: u16 = 0;
const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 32 * 1024;
/// Room for one block of control data: a head of 16 bytes and a time.
const CONTROL_BYTES: usize = 32;

const _: () = assert!(BUFFERS.is_power_of_two());
const _: () = assert!(BUFFERS as usize * size_of::<BufRingEntry>() <= BUFFER_RING_BYTES);

/// Something that the ring has finished.
pub enum Event {
    /// The TCP connection of a client.
    Connected { client: u32, result: i32 },
    /// A send of a client; its buffer comes back.
    Sent { client: u32, buffer: Vec<u8>, error: Option<i32> },
    /// Bytes arrived in a buffer, to be read with [`Ring::bytes`] and given back with [`Ring::recycle`].
    Received { client: u32, piece: Piece },
    /// A receive has ended: by the peer (0), by an error (negative), or for want of buffers (`-ENOBUFS`).
    Ended { client: u32, result: i32 },
}

/// Where received bytes lie.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The buffer.
    pub buffer: u16,
    start: usize,
    length: usize,
    /// When the kernel took the last of them from the network, Unix nanoseconds; with [`Ring::ask_for_times`] only.
    pub arrived_unix_ns: Option<u64>,
}

struct Send {
    client: u32,
    socket: i32,
    buffer: Vec<u8>,
    done: usize,
}

/// See the module.
pub struct Ring {
    io: IoUring,
    region: *mut u8,
    tail: u16,
    sends: Vec<Option<Send>>,
    free: Vec<u32>,
    completions: Vec<(u64, i32, u32)>,
    /// What receives look like that tell times.
    message: Option<Box<libc::msghdr>>,
}

const CONNECT: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const RECEIVE: u64 = 3 << 32;
const KIND: u64 = 0xFFFF_FFFF << 32;

impl Ring {
    /// Sets the ring up. Fails where io_uring is forbidden or the kernel is older than 6.0.
    pub fn new() -> io::Result<Self> {
        let io = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSIONS)?;
        let bytes = BUFFER_RING_BYTES + usize::from(BUFFERS) * BUFFER_BYTES;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no other memory.
        let region = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if region == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut ring = Self {
            io,
            region: region.cast(),
            tail: 0,
            sends: Vec::new(),
            free: Vec::new(),
            completions: Vec::with_capacity(COMPLETIONS as usize),
            message: None,
        };
        // SAFETY: the first page of the region is aligned, holds all entries, and lives until the requests are gone.
        unsafe { ring.io.submitter().register_buf_ring_with_flags(ring.region as u64, BUFFERS, GROUP, 0)? };
        for buffer in 0..BUFFERS {
            ring.recycle(buffer);
        }
        Ok(ring)
    }

    /// Connects a socket; the address must be `length` bytes at `address` until the next [`Ring::turn`].
    pub fn connect(&mut self, client: u32, socket: i32, address: &libc::sockaddr_in) -> io::Result<()> {
        let pointer: *const libc::sockaddr_in = address;
        let entry = opcode::Connect::new(Fd(socket), pointer.cast(), size_of::<libc::sockaddr_in>() as u32).build();
        self.push(entry.user_data(CONNECT | u64::from(client)))?;
        // The kernel copies the address at submission.
        self.submit()
    }

    /// From now on receives tell when their bytes arrived, if the socket has `SO_TIMESTAMPNS`.
    pub fn ask_for_times(&mut self) {
        // SAFETY: null pointers and zero lengths are a valid msghdr: no address, no vectors, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_controllen = CONTROL_BYTES as _;
        self.message = Some(Box::new(message));
    }

    /// Receives from a socket until it ends.
    pub fn receive(&mut self, client: u32, socket: i32) -> io::Result<()> {
        let entry = match &self.message {
            None => opcode::RecvMulti::new(Fd(socket), GROUP).build(),
            // The kernel copies the message at submission; the box lives as long as the ring.
            Some(message) => opcode::RecvMsgMulti::new(Fd(socket), &raw const **message, GROUP).build(),
        };
        self.push(entry.user_data(RECEIVE | u64::from(client)))
    }

    /// Sends a buffer whole. One at a time for each socket.
    pub fn send(&mut self, client: u32, socket: i32, buffer: Vec<u8>) -> io::Result<()> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sends.push(None);
            self.sends.len() as u32 - 1
        });
        self.sends[slot as usize] = Some(Send { client, socket, buffer, done: 0 });
        self.push_send(slot)
    }

    /// Submits what is waiting.
    pub fn submit(&mut self) -> io::Result<()> {
        self.io.submit().map(|_| ())
    }

    /// Submits what is waiting, and waits up to `wait` for a completion (none: does not enter the kernel if there is
    /// nothing to do).
    pub fn turn(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let result = match wait {
            None => {
                let submissions = self.io.submission();
                if submissions.is_empty() && !submissions.taskrun() && !submissions.cq_overflow() {
                    return Ok(());
                }
                drop(submissions);
                self.io.submit_and_wait(0)
            }
            Some(wait) => {
                let time = Timespec::from(wait);
                self.io.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match result {
            Ok(_) => Ok(()),
            // Waited in vain; interrupted; completions must be taken first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes everything that is finished.
    pub fn finished(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        self.completions.clear();
        let (queue, taken) = (self.io.completion(), &mut self.completions);
        taken.extend(queue.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        for position in 0..self.completions.len() {
            let (data, result, flags) = self.completions[position];
            self.finish(data, result, flags, events)?;
        }
        Ok(())
    }

    /// The bytes of a receive.
    pub fn bytes(&self, piece: Piece) -> &[u8] {
        &self.filled(piece.buffer, piece.start + piece.length)[piece.start..]
    }

    fn filled(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(buffer < BUFFERS && length <= BUFFER_BYTES, "the kernel keeps to the buffers that it was given");
        // SAFETY: inside the region (asserted), and the kernel leaves the buffer alone until it is recycled, which
        // takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.buffer(buffer), length) }
    }

    /// What a receive has put into a buffer; nothing at the end of the stream.
    fn piece(&self, buffer: u16, length: usize) -> Piece {
        let whole = Piece { buffer, start: 0, length, arrived_unix_ns: None };
        let Some(message) = &self.message else { return whole };
        let filled = self.filled(buffer, length);
        let Ok(parts) = RecvMsgOut::parse(filled, message) else { return Piece { length: 0, ..whole } };
        let bytes = parts.payload_data().len();
        Piece { start: length - bytes, length: bytes, arrived_unix_ns: arrival(parts.control_data()), ..whole }
    }

    /// Gives a buffer back to the kernel.
    pub fn recycle(&mut self, buffer: u16) {
        let address = self.buffer(buffer) as u64;
        let entries: *mut BufRingEntry = self.region.cast();
        // SAFETY: the index is masked into the ring, which only this thread writes; the kernel reads an entry only
        // once the tail has passed it. The tail is a u16 within the first entry, aligned and always mapped.
        unsafe {
            let entry = &mut *entries.add(usize::from(self.tail & (BUFFERS - 1)));
            entry.set_addr(address);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    fn buffer(&self, buffer: u16) -> *mut u8 {
        self.region.wrapping_add(BUFFER_RING_BYTES + usize::from(buffer) * BUFFER_BYTES)
    }

    fn finish(&mut self, data: u64, result: i32, flags: u32, events: &mut Vec<Event>) -> io::Result<()> {
        let index = data as u32;
        match data & KIND {
            CONNECT => events.push(Event::Connected { client: index, result }),
            SEND => return self.sent(index, result, events),
            _ => {
                let mut got = false;
                if let Some(buffer) = cqueue::buffer_select(flags) {
                    let piece = self.piece(buffer, result.max(0) as usize);
                    got = piece.length > 0;
                    if got {
                        events.push(Event::Received { client: index, piece });
                    } else {
                        self.recycle(buffer);
                    }
                }
                if !cqueue::more(flags) {
                    // A receive may end together with its last bytes; it is then simply armed again.
                    let result = if got { -libc::ENOBUFS } else { result.min(0) };
                    events.push(Event::Ended { client: index, result });
                }
            }
        }
        Ok(())
    }

    fn sent(&mut self, slot: u32, result: i32, events: &mut Vec<Event>) -> io::Result<()> {
        let Some(mut send) = self.sends[slot as usize].take() else { return Ok(()) };
        let retry = matches!(-result, libc::EINTR | libc::EAGAIN);
        send.done += result.max(0) as usize;
        if retry || (result > 0 && send.done < send.buffer.len()) {
            self.sends[slot as usize] = Some(send);
            return self.push_send(slot);
        }
        self.free.push(slot);
        let error = (result < 0).then_some(-result);
        events.push(Event::Sent { client: send.client, buffer: send.buffer, error });
        Ok(())
    }

    fn push_send(&mut self, slot: u32) -> io::Result<()> {
        let Some(send) = &self.sends[slot as usize] else { return Ok(()) };
        let rest = &send.buffer[send.done..];
        let entry = opcode::Send::new(Fd(send.socket), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry.user_data(SEND | u64::from(slot)))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: what the entry points to lives until its completion: sends in `sends`, buffers in the region; the
        // address of a connect is copied before `connect` returns.
        while unsafe { self.io.submission().push(&entry) }.is_err() {
            self.io.submit()?;
        }
        Ok(())
    }
}

/// The kernel's time of arrival among the control data of a receive, Unix nanoseconds.
fn arrival(control: &[u8]) -> Option<u64> {
    const HEAD_BYTES: usize = size_of::<libc::cmsghdr>();
    let word = |at: usize| control.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let kind = |at: usize| control.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
    // One block is asked for, so one is there: its length, level and type, then seconds and nanoseconds.
    let is_time = kind(8) == Some(libc::SOL_SOCKET) && kind(12) == Some(libc::SO_TIMESTAMPNS);
    is_time.then_some(())?;
    Some(word(HEAD_BYTES)? * 1_000_000_000 + word(HEAD_BYTES + 8)?)
}

impl Drop for Ring {
    fn drop(&mut self) {
        let limit = Timespec::new().sec(2);
        let cancelled = self.io.submitter().register_sync_cancel(Some(limit), CancelBuilder::any());
        match cancelled {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(_) => {
                // Requests are left that may still touch this memory.
                std::mem::forget(std::mem::take(&mut self.sends));
                return;
            }
        }
        // SAFETY: mapped in `new` with this length; no request is left that could write to it.
        unsafe { libc::munmap(self.region.cast(), BUFFER_RING_BYTES + usize::from(BUFFERS) * BUFFER_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn next(ring: &mut Ring) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..100 {
            ring.turn(Some(Duration::from_millis(50))).unwrap();
            ring.finished(&mut events).unwrap();
            if !events.is_empty() {
                break;
            }
        }
        events
    }

    #[test]
    fn more_is_received_than_there_are_buffers() {
        receive_much(false);
    }

    #[test]
    fn the_kernel_says_when_bytes_arrived() {
        receive_much(true);
    }

    fn receive_much(times: bool) {
        let (near, mut far) = pair();
        let mut ring = Ring::new().unwrap();
        if times {
            let on = 1i32;
            let pointer: *const i32 = &on;
            let (socket, option) = (near.as_raw_fd(), libc::SO_TIMESTAMPNS);
            // SAFETY: the option is read from an i32.
            assert_eq!(unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, pointer.cast(), 4) }, 0);
            ring.ask_for_times();
        }
        ring.receive(5, near.as_raw_fd()).unwrap();
        let total = usize::from(BUFFERS) * BUFFER_BYTES * 2;
        let writer = std::thread::spawn(move || {
            for chunk in (0..total).map(|i| i as u8).collect::<Vec<_>>().chunks(4096) {
                far.write_all(chunk).unwrap();
            }
        });
        let (mut received, mut ended) = (0, false);
        while !ended {
            let events = next(&mut ring);
            assert!(!events.is_empty(), "stalled after {received} bytes");
            for event in events {
                match event {
                    Event::Received { client: 5, piece } => {
                        let bytes = ring.bytes(piece);
                        assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == (received + i) as u8));
                        received += bytes.len();
                        assert_eq!(piece.arrived_unix_ns.is_some(), times);
                        ring.recycle(piece.buffer);
                    }
                    Event::Ended { client: 5, result } if result == -libc::ENOBUFS => {
                        ring.receive(5, near.as_raw_fd()).unwrap();
                    }
                    Event::Ended { client: 5, result: 0 } => ended = true,
                    _ => panic!("nothing else happens"),
                }
            }
        }
        writer.join().unwrap();
        assert_eq!(received, total, "everything came before the end");
    }

    #[test]
    fn a_send_larger_than_the_socket_buffer_arrives_whole() {
        let (near, mut far) = pair();
        let mut ring = Ring::new().unwrap();
        let sent: Vec<u8> = (0..8 << 20).map(|i: u32| (i >> 3) as u8).collect();
        ring.send(1, near.as_raw_fd(), sent.clone()).unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; 8 << 20];
            far.read_exact(&mut bytes).unwrap();
            bytes
        });
        let events = next(&mut ring);
        assert!(matches!(events[..], [Event::Sent { client: 1, error: None, .. }]));
        assert!(reader.join().unwrap() == sent);
    }
}
