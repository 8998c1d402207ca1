//! The engine on epoll, edge-triggered: one registration per socket for life, then one system call per receive and send.
//!
//! Invariant: a socket with unread bytes (or an unread end) that the caller wants is in `ready`, once; `ready` is served
//! in turn, one buffer each, and the kernel is asked for newly ready sockets at least once per round, so that a flood
//! delays nobody by more than a round. A send is tried at once; what the kernel does not take goes on when the socket
//! has room again.
//!
//! A receive that fills less than its buffer has emptied the socket: later bytes make a new edge. Only an end that was
//! announced with them makes none, so then it is received from once more. Source: epoll(7).

use super::pool::Pool;
use super::sends::Sends;
use super::slots::{Key, NOT_SENDING, Slots};
use super::{BufferSizes, Counters, Event, StableBytes, socket};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;

/// Sockets reported by one system call. 12 bytes each.
const REPORTS: usize = 256;
/// Receives between two questions to the kernel, at least, while there is work.
const ROUND_MIN: usize = 8;
/// The word of the doorbell's registration: no key, since there is no slot of that number.
const BELL: u64 = u64::MAX;

// State of a slot.
/// The caller wants to receive.
const WANTED: u16 = 1;
/// There may be something to receive.
const READABLE: u16 = 1 << 1;
/// The kernel has announced the end of the stream, or an error.
const HUNG_UP: u16 = 1 << 2;
/// Is in `ready`.
const QUEUED: u16 = 1 << 3;
/// No more will be received.
const ENDED: u16 = 1 << 4;
/// A send was given and its end not yet told. Its buffer is gone before that: then `sending` names none.
const SENDING: u16 = 1 << 5;

pub(super) struct Epoll<B: StableBytes> {
    epoll: OwnedFd,
    pool: Rc<Pool>,
    slots: Slots,
    sends: Sends<B>,
    /// Sockets to receive from, in turn.
    ready: VecDeque<Key>,
    /// Sends completed and not yet told, with their success. At most one for each socket.
    done: VecDeque<(Key, bool)>,
    /// Receives until the kernel is asked again.
    round: usize,
    rung: bool,
    /// A socket was ready and no buffer was free; counted once until one is.
    starved: bool,
    counters: Counters,
}

impl<B: StableBytes> Epoll<B> {
    pub(super) fn new(sizes: BufferSizes) -> io::Result<Epoll<B>> {
        // SAFETY: a system call without memory; a non-negative answer is a new descriptor that nobody else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(socket::check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Epoll {
            epoll,
            pool: Pool::stack(sizes),
            slots: Slots::new(),
            sends: Sends::new(),
            ready: VecDeque::new(),
            done: VecDeque::new(),
            round: 0,
            rung: false,
            starved: false,
            counters: Counters::default(),
        })
    }

    pub(super) fn add(&mut self, fd: OwnedFd, user: u64) -> io::Result<Key> {
        socket::send_at_once(fd.as_fd());
        let raw = fd.as_raw_fd();
        let key = self.slots.insert(fd, user, WANTED)?;
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP;
        if let Err(error) = self.register(raw, interest, pack(key)) {
            self.slots.remove(key);
            return Err(error);
        }
        Ok(key)
    }

    pub(super) fn set_receiving(&mut self, key: Key, receiving: bool) {
        match self.slots.get(key) {
            Some(slot) => {
                slot.set(WANTED, receiving);
                self.enqueue(key);
            }
            None => self.counters.stale += 1,
        }
    }

    pub(super) fn send(&mut self, key: Key, buffer: B) {
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale += 1;
            return;
        };
        debug_assert!(!slot.is(SENDING), "one send at a time for each socket");
        if slot.is(SENDING) {
            return;
        }
        slot.set(SENDING, true);
        slot.sending = self.sends.insert(buffer);
        self.counters.sends += 1;
        if !self.continue_send(key) {
            self.counters.sends_short += 1;
        }
    }

    pub(super) fn finish(&mut self, key: Key) {
        match self.slots.get(key).and_then(|slot| slot.fd.as_ref()) {
            Some(fd) => socket::end_sending(fd.as_fd()),
            None => self.counters.stale += 1,
        }
    }

    pub(super) fn close(&mut self, key: Key, reset: bool) {
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale += 1;
            return;
        };
        self.sends.remove(slot.sending);
        if let Some(fd) = self.slots.remove(key) {
            // SAFETY: system call on two open descriptors; no event is read for a removal. Closing alone would not end
            // the registration if the caller kept a duplicate.
            unsafe {
                libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut())
            };
            socket::shut_down(fd.as_fd(), reset);
        }
    }

    pub(super) fn watch_bell(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.register(eventfd, libc::EPOLLIN, BELL)
    }

    pub(super) fn wait_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        loop {
            if std::mem::take(&mut self.rung) {
                return Some(Event::Bell);
            }
            if let Some((key, ok)) = self.done.pop_front() {
                match self.slots.get(key) {
                    Some(slot) => {
                        slot.set(SENDING, false);
                        return Some(Event::Sent { user: slot.user, ok });
                    }
                    None => continue,
                }
            }
            let exhausted = self.pool.unheld() == 0;
            if (self.round == 0 || exhausted || self.ready.is_empty()) && self.ask() {
                continue;
            }
            if exhausted {
                self.counters.buffers_exhausted += u64::from(!self.starved && !self.ready.is_empty());
                self.starved = !self.ready.is_empty();
                return None;
            }
            self.starved = false;
            let key = self.ready.pop_front()?;
            if let Some(event) = self.receive(key) {
                return Some(event);
            }
        }
    }

    pub(super) fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn before_wait(&mut self) -> io::Result<bool> {
        let news = self.ask();
        let receivable = !self.ready.is_empty() && self.pool.unheld() > 0;
        Ok(news || receivable || self.rung || !self.done.is_empty())
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn occupied(&self) -> usize {
        self.slots.occupied()
    }

    fn register(&self, fd: RawFd, interest: i32, word: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: (interest | libc::EPOLLET) as u32, u64: word };
        // SAFETY: the kernel reads `event` during the call.
        let answer = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        socket::check(answer).map(drop)
    }

    /// Takes what the kernel has to report, one system call; true if that made something to tell before the next turn.
    fn ask(&mut self) -> bool {
        let mut reports = [libc::epoll_event { events: 0, u64: 0 }; REPORTS];
        // SAFETY: the kernel writes at most `REPORTS` events.
        let answer = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), reports.as_mut_ptr(), REPORTS as i32, 0) };
        // Only a signal can interrupt it, and then the next question finds the same.
        let count = usize::try_from(answer).unwrap_or(0);
        for report in &reports[..count] {
            let (word, events) = (report.u64, report.events as i32);
            if word == BELL {
                self.rung = true;
            } else {
                self.reported(unpack(word), events);
            }
        }
        self.round = self.ready.len().max(ROUND_MIN);
        self.rung || !self.done.is_empty()
    }

    fn reported(&mut self, key: Key, events: i32) {
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale += 1;
            return;
        };
        let broken = events & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
        if broken || events & libc::EPOLLRDHUP != 0 {
            slot.set(READABLE | HUNG_UP, true);
        }
        if events & libc::EPOLLIN != 0 {
            slot.set(READABLE, true);
        }
        if slot.sending != NOT_SENDING && (broken || events & libc::EPOLLOUT != 0) {
            self.continue_send(key);
        }
        self.enqueue(key);
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(slot) = self.slots.get(key)
            && slot.is(WANTED)
            && slot.is(READABLE)
            && !slot.is(QUEUED | ENDED)
        {
            slot.set(QUEUED, true);
            self.ready.push_back(key);
        }
    }

    /// One turn of a socket in `ready`.
    fn receive(&mut self, key: Key) -> Option<Event> {
        self.round = self.round.saturating_sub(1);
        // A socket closed while it waited for its turn.
        let slot = self.slots.get(key)?;
        slot.set(QUEUED, false);
        if !slot.is(WANTED) || slot.is(ENDED) {
            return None;
        }
        let (user, hung_up, fd) = (slot.user, slot.is(HUNG_UP), slot.fd.as_ref()?.as_raw_fd());
        let mut chunk = self.pool.take()?;
        let error = match socket::receive(fd, &mut chunk) {
            Ok(0) => None,
            Ok(bytes) => {
                slot.set(READABLE, bytes == chunk.len() || hung_up);
                self.counters.receives += 1;
                chunk.truncate(bytes);
                self.enqueue(key);
                return Some(Event::Received { user, bytes: chunk });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.set(READABLE, false);
                return None;
            }
            Err(error) => Some(error),
        };
        slot.set(ENDED, true);
        Some(Event::Ended { user, error })
    }

    /// Sends what the kernel takes. False: some of it is left.
    fn continue_send(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key) else { return true };
        let Some(fd) = slot.fd.as_ref().map(AsRawFd::as_raw_fd) else { return true };
        let ok = loop {
            let rest = self.sends.rest(slot.sending);
            if rest.is_empty() {
                break true;
            }
            match socket::send(fd, rest) {
                Ok(bytes) => {
                    self.sends.advance(slot.sending, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => break false,
            }
        };
        self.sends.remove(slot.sending);
        slot.sending = NOT_SENDING;
        self.done.push_back((key, ok));
        true
    }
}

fn pack(key: Key) -> u64 {
    u64::from(key.generation) << 32 | u64::from(key.slot)
}

fn unpack(word: u64) -> Key {
    Key { slot: word as u32, generation: (word >> 32) as u32 }
}
