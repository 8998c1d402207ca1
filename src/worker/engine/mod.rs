//! The sockets of one worker: receive, send, close. Knows bytes, nothing of WebSocket.
//!
//! Two implementations behind one type, chosen at run time and tested with one suite: `uring` (multishot receive into
//! shared buffers, sends in batches) and `epoll`, for where io_uring is forbidden, as in many containers.
//!
//! Order of calls in a tick:
//! 1. [`Engine::next`] until it gives `None` or the budget is used; while an [`Event`]'s bytes are held, every other
//!    method may be called.
//! 2. [`Engine::send`], [`Engine::set_receiving`], [`Engine::close`] as decided.
//! 3. [`Engine::submit`], which hands what was staged to the kernel and never waits.
//! 4. With nothing more to do: [`Engine::before_wait`], and if it says that there is nothing, await readability of
//!    [`Engine::wait_fd`].
//!
//! Invariants:
//! - An idle socket costs one slot (24 bytes) and no buffer, task or heap box.
//! - At most one send per socket is in flight; the engine owns its buffer until the kernel is done with it.
//! - A socket that takes nothing or sends without end delays no other: nothing here waits for one socket, and each turn
//!   of a socket is bounded by one buffer (epoll) or 32 of them (the kernel's multishot limit).
//! - After [`Engine::close`] no event of that socket appears. Descriptor and slot are freed when the kernel has
//!   completed all that was pending, since closing alone ends no io_uring write (INVARIANTS 17).
//! - Nothing is told about a paused socket except what had been received already: not even its end.
//!
//! The engine belongs to the thread that made it (`!Send`), which the kernel is told too.

mod epoll;
mod operation;
mod pool;
mod sends;
mod slots;
mod socket;
#[cfg(test)]
mod tests;
mod uring;

pub use pool::Chunk;
pub use slots::{Key, SLOTS_MAX};

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

/// Receive buffers of a worker. With io_uring each one holds one receive until the worker has parsed it, so this is how
/// many sockets can be heard in one go: 1,024 × 4 KiB = 4 MiB per worker, whatever the number of sockets. All in use:
/// receiving pauses until some come back ([`Counters::buffers_exhausted`]).
pub const BUFFERS: u16 = 1024;
/// Bytes of a receive buffer: one page, a few dozen small messages.
pub const BUFFER_BYTES: u32 = 4096;

const _: () = assert!(BUFFERS.is_power_of_two() && BUFFERS <= 1 << 15, "the kernel's rule for a buffer ring");

/// How much memory an engine receives into.
#[derive(Clone, Copy, Debug)]
pub struct BufferSizes {
    /// Number of buffers: a power of two, 1 to 32,768.
    pub buffers: u16,
    /// Bytes of each, at least 1.
    pub buffer_bytes: u32,
}

impl Default for BufferSizes {
    fn default() -> BufferSizes {
        BufferSizes { buffers: BUFFERS, buffer_bytes: BUFFER_BYTES }
    }
}

/// Bytes that stay where they are while their owner moves.
///
/// # Safety
/// As long as the value lives and is not given out mutably, `as_ref` returns the same address and length, also after
/// the value was moved, and nobody changes the bytes (the kernel reads them meanwhile).
pub unsafe trait StableBytes: AsRef<[u8]> + 'static {}

// SAFETY: the bytes are on the heap and reached through unique ownership.
unsafe impl StableBytes for Vec<u8> {}
// SAFETY: as above.
unsafe impl StableBytes for Box<[u8]> {}
// SAFETY: on the heap; shared, hence unchanged while any handle lives.
unsafe impl StableBytes for Rc<[u8]> {}
// SAFETY: as above.
unsafe impl StableBytes for Arc<[u8]> {}
// SAFETY: static bytes neither move nor change.
unsafe impl StableBytes for &'static [u8] {}

/// Which system interface an engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A ring of its own (Linux 6.0 or later).
    Uring,
    /// Readiness and one system call per receive and send.
    Epoll,
}

/// What has happened. `user` is the word given to [`Engine::add`].
#[derive(Debug)]
pub enum Event {
    /// Bytes from the peer, in order, at least one.
    Received {
        /// The socket.
        user: u64,
        /// The bytes, to be changed in place as the parser likes.
        bytes: Chunk,
    },
    /// No more will be received: the peer closed its sending side (`error` is `None`) or the connection broke. Once per
    /// socket, after all its bytes. The socket stays until it is closed, and may still send after a mere half-close.
    Ended {
        /// The socket.
        user: u64,
        /// Why it broke.
        error: Option<io::Error>,
    },
    /// The send has left the caller's hands, its buffer is dropped, the next may be given.
    Sent {
        /// The socket.
        user: u64,
        /// The kernel took the whole buffer; false: the connection broke.
        ok: bool,
    },
    /// The doorbell was rung at least once since the last one.
    Bell,
}

/// Totals since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Chunks of bytes received, those of closing sockets included.
    pub receives: u64,
    /// Sends begun.
    pub sends: u64,
    /// Sends that the kernel took in more than one piece, as far as it tells: io_uring continues most by itself.
    pub sends_short: u64,
    /// Times that a socket had bytes and no receive buffer was free. It is received from again when one is.
    pub buffers_exhausted: u64,
    /// Calls with, and completions for, a socket that is gone. Both are ignored.
    pub stale: u64,
}

/// The sockets of one worker. `B` is what the caller sends.
pub struct Engine<B: StableBytes>(Implementation<B>);

enum Implementation<B: StableBytes> {
    Uring(Box<uring::Uring<B>>),
    Epoll(Box<epoll::Epoll<B>>),
}

macro_rules! either {
    ($self:expr, $engine:ident => $call:expr) => {
        match &mut $self.0 {
            Implementation::Uring($engine) => $call,
            Implementation::Epoll($engine) => $call,
        }
    };
}

impl<B: StableBytes> Engine<B> {
    /// The preferred backend, or epoll where io_uring cannot be had; then also the reason.
    ///
    /// # Errors
    /// Epoll failed too: out of descriptors.
    pub fn new(prefer: Backend, sizes: BufferSizes) -> io::Result<(Engine<B>, Option<io::Error>)> {
        match prefer {
            Backend::Epoll => Ok((Engine::epoll(sizes)?, None)),
            Backend::Uring => match Engine::uring(sizes) {
                Ok(engine) => Ok((engine, None)),
                Err(refused) => Ok((Engine::epoll(sizes)?, Some(refused))),
            },
        }
    }

    /// An engine on io_uring.
    ///
    /// # Errors
    /// What the kernel answers: `ENOSYS` or `EPERM` where it is forbidden, `EINVAL` before Linux 6.0, `EMFILE`,
    /// `ENOMEM`.
    pub fn uring(sizes: BufferSizes) -> io::Result<Engine<B>> {
        Ok(Engine(Implementation::Uring(Box::new(uring::Uring::new(sizes)?))))
    }

    /// An engine on epoll.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn epoll(sizes: BufferSizes) -> io::Result<Engine<B>> {
        Ok(Engine(Implementation::Epoll(Box::new(epoll::Epoll::new(sizes)?))))
    }

    /// The backend in use.
    pub fn backend(&self) -> Backend {
        match &self.0 {
            Implementation::Uring(_) => Backend::Uring,
            Implementation::Epoll(_) => Backend::Epoll,
        }
    }

    /// Takes a connected stream socket and begins to receive from it. `user` comes back in its events. Sets
    /// `TCP_NODELAY`, and blocking mode where the backend wants that.
    ///
    /// # Errors
    /// The table or the kernel's is full; the socket is closed then.
    pub fn add(&mut self, fd: OwnedFd, user: u64) -> io::Result<Key> {
        either!(self, engine => engine.add(fd, user))
    }

    /// Pauses or resumes receiving. What was received before is still told. Any order and number of calls is fine.
    pub fn set_receiving(&mut self, key: Key, receiving: bool) {
        either!(self, engine => engine.set_receiving(key, receiving));
    }

    /// Sends `buffer`, all of it; [`Event::Sent`] follows. At most one at a time for each socket: the caller waits for
    /// `Sent`. A second one is a bug of ours, asserted in debug builds and dropped (and so never told) in others.
    pub fn send(&mut self, key: Key, buffer: B) {
        either!(self, engine => engine.send(key, buffer));
    }

    /// Ends our side of the stream: nothing more will be sent. The peer sees the end after what was sent; receiving goes
    /// on. Call it when no send is in flight.
    pub fn finish(&mut self, key: Key) {
        either!(self, engine => engine.finish(key));
    }

    /// Shuts the socket down in both directions and forgets it; `reset` also throws away what the kernel has not yet
    /// delivered to the peer (for the stuck). A send in flight is cut off: await `Sent` first where its end matters.
    pub fn close(&mut self, key: Key, reset: bool) {
        either!(self, engine => engine.close(key, reset));
    }

    /// Watches a doorbell: each ring of the eventfd gives [`Event::Bell`], several may give one. It is watched for
    /// changes and never read, so its count only grows. One doorbell per engine; it must outlive the engine.
    ///
    /// # Errors
    /// The kernel refused the descriptor, or was out of memory.
    pub fn watch_bell(&mut self, eventfd: RawFd) -> io::Result<()> {
        either!(self, engine => engine.watch_bell(eventfd))
    }

    /// Becomes readable when there is an event, if [`Engine::before_wait`] has just answered false. Only to be polled
    /// (level or edge), never read, and owned by the engine.
    pub fn wait_fd(&self) -> RawFd {
        match &self.0 {
            Implementation::Uring(engine) => engine.wait_fd(),
            Implementation::Epoll(engine) => engine.wait_fd(),
        }
    }

    /// The next event that the kernel has reported, or `None`. Never waits. An endless flood gives endless events:
    /// the caller keeps a budget.
    #[allow(clippy::should_implement_trait)] // an engine is not an iterator: it has more after `None`
    pub fn next(&mut self) -> Option<Event> {
        either!(self, engine => engine.next())
    }

    /// Hands staged work to the kernel.
    ///
    /// # Errors
    /// The ring is unusable: a bug of ours or of the kernel. Temporary refusals are not errors; the work stays staged.
    pub fn submit(&mut self) -> io::Result<()> {
        either!(self, engine => engine.submit())
    }

    /// Submits, and looks once more: true when there are events already, so that the caller must not sleep.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn before_wait(&mut self) -> io::Result<bool> {
        either!(self, engine => engine.before_wait())
    }

    /// Totals so far.
    pub fn counters(&self) -> Counters {
        match &self.0 {
            Implementation::Uring(engine) => engine.counters(),
            Implementation::Epoll(engine) => engine.counters(),
        }
    }

    /// Sockets added and not closed.
    pub fn open(&self) -> usize {
        match &self.0 {
            Implementation::Uring(engine) => engine.occupied() - engine.closing(),
            Implementation::Epoll(engine) => engine.occupied(),
        }
    }

    /// Sockets closed by the caller that wait for the kernel's last completions. Always 0 with epoll.
    pub fn closing(&self) -> usize {
        match &self.0 {
            Implementation::Uring(engine) => engine.closing(),
            Implementation::Epoll(_) => 0,
        }
    }
}
