//! Drives one engine as a worker does, and keeps what it tells. Waits only on `wait_fd`: an engine that forgets to
//! become readable fails by timing out.

use super::super::{BufferSizes, Chunk, Engine, Event, Key};
use super::{Buffer, MOMENT, Make, PATIENCE};
use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What one socket has told.
#[derive(Default)]
pub(super) struct Story {
    pub(super) bytes: Vec<u8>,
    pub(super) ended: Option<Option<i32>>,
    pub(super) sent: usize,
    pub(super) failed: usize,
}

pub(super) struct Rig {
    pub(super) engine: Engine<Buffer>,
    pub(super) stories: HashMap<u64, Story>,
    pub(super) bells: usize,
    /// Chunks are kept here while `keeps`.
    pub(super) kept: Vec<Chunk>,
    pub(super) keeps: bool,
    pub(super) events_per_tick: usize,
}

impl Rig {
    pub(super) fn new(make: Make) -> Rig {
        Rig::with(make, BufferSizes::default())
    }

    pub(super) fn with(make: Make, sizes: BufferSizes) -> Rig {
        let engine = make(sizes).expect("an engine");
        Rig { engine, stories: HashMap::new(), bells: 0, kept: Vec::new(), keeps: false, events_per_tick: 256 }
    }

    /// A new connection known as `user`; its client end.
    pub(super) fn connect(&mut self, user: u64) -> (Key, TcpStream) {
        let (server, client) = pair();
        let key = self.engine.add(server, user).expect("added");
        (key, client)
    }

    pub(super) fn story(&mut self, user: u64) -> &mut Story {
        self.stories.entry(user).or_default()
    }

    pub(super) fn received(&self, user: u64) -> usize {
        self.stories.get(&user).map_or(0, |story| story.bytes.len())
    }

    /// One tick; the number of its events.
    pub(super) fn tick(&mut self) -> usize {
        self.engine.submit().expect("submit");
        self.take_events()
    }

    pub(super) fn take_events(&mut self) -> usize {
        for count in 0..self.events_per_tick {
            match self.engine.next() {
                None => return count,
                Some(Event::Bell) => self.bells += 1,
                Some(Event::Sent { user, ok: true }) => self.story(user).sent += 1,
                Some(Event::Sent { user, ok: false }) => self.story(user).failed += 1,
                Some(Event::Ended { user, error }) => {
                    let error = error.map(|error| error.raw_os_error().expect("from the kernel"));
                    assert!(self.story(user).ended.replace(error).is_none(), "an end is told once");
                }
                Some(Event::Received { user, bytes }) => {
                    assert!(!bytes.is_empty());
                    let story = self.story(user);
                    assert!(story.ended.is_none(), "nothing follows an end");
                    story.bytes.extend_from_slice(&bytes);
                    if self.keeps {
                        self.kept.push(bytes);
                    }
                }
            }
        }
        self.events_per_tick
    }

    /// Ticks until `done`, sleeping on `wait_fd` where there is nothing to do.
    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "still not: {what}");
            // A tick without events may still have been the one that ended the last closing.
            if self.tick() == 0 && !done(self) && !self.engine.before_wait().expect("submit") {
                assert!(readable(self.engine.wait_fd(), PATIENCE), "asleep for ever: {what}");
            }
        }
    }

    /// Ticks until nothing has come for a while.
    pub(super) fn until_quiet(&mut self) {
        let deadline = Instant::now() + PATIENCE / 4;
        let mut quiet = 0;
        while quiet < 3 {
            assert!(Instant::now() < deadline, "still not quiet");
            quiet = if self.tick() > 0 { 0 } else { quiet + 1 };
            if quiet > 0 && !self.engine.before_wait().expect("submit") {
                readable(self.engine.wait_fd(), Duration::from_millis(1));
            }
        }
    }

    /// Ticks for a moment, whatever happens.
    pub(super) fn for_a_moment(&mut self) {
        let end = Instant::now() + MOMENT;
        while Instant::now() < end {
            if self.tick() == 0 && !self.engine.before_wait().expect("submit") {
                readable(self.engine.wait_fd(), Duration::from_millis(5));
            }
        }
    }
}

pub(super) fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("timeout");
    client.set_nodelay(true).expect("nodelay");
    (listener.accept().expect("accept").0.into(), client)
}

pub(super) fn readable(fd: RawFd, timeout: Duration) -> bool {
    let mut polled = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which lives through the call.
    unsafe { libc::poll(&raw mut polled, 1, timeout.as_millis() as i32) == 1 }
}

/// Bytes whose order shows.
pub(super) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub(super) fn buffer(bytes: &[u8]) -> Buffer {
    Arc::from(bytes)
}

/// A buffer that stays in flight while the peer does not read.
pub(super) fn more_than_the_kernel_takes() -> Buffer {
    Arc::from(vec![7; 48 << 20])
}

/// Held by tests that use thousands of descriptors, so that the limit is not exceeded together; raises the limit too.
pub(super) fn many_descriptors() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes and then reads one `rlimit`. Refusal shows when descriptors run out.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    guard
}
