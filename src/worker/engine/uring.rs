//! The engine on io_uring: one ring per worker beside the runtime's own.
//!
//! Receiving: one multishot receive per socket, filling buffers that the whole worker shares, so that an idle socket
//! holds nothing. Sending: one entry per buffer, submitted in batches; the kernel waits for room and continues a short
//! send by itself (`MSG_WAITALL`). Waiting: the ring's own descriptor is pollable. An eventfd costs the same per
//! wake-up (measured) and would have to be read, and silenced while the worker is awake.
//!
//! Invariants: a slot lives until no operation of it is in the kernel ([`BUSY`] is clear). A receive is armed only
//! while no cancellation of one is under way, so that a cancellation can never hit a later receive than it was meant
//! for; `reconcile` brings what is armed to what is wanted after every completion, however pauses and resumes raced.
//!
//! Flags: `SINGLE_ISSUER` came with Linux 6.0, as did multishot receive, so a kernel that takes the one has the other
//! and one that refuses is served by epoll. Not `DEFER_TASKRUN`: it hands over at most 20 completions per call.
//! Source: io_uring_setup(2), io_uring_enter(2), io_uring_prep_recv_multishot(3).

use super::operation::{Operation, pack, unpack};
use super::pool::Pool;
use super::sends::Sends;
use super::slots::{Key, NOT_SENDING, Slots};
use super::{BufferSizes, Counters, Event, StableBytes, socket};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Entries staged before the ring submits by itself: two slices of writes. 64 bytes each: 32 KiB.
const SUBMISSIONS: u32 = 512;
/// Completions that fit. More wait inside the kernel, at the cost of an allocation each. Every buffer filled, a slice
/// of writes, and room to spare. 16 bytes each: 64 KiB.
const COMPLETIONS: u32 = 4096;
/// The only group of buffers in the ring.
const BUFFER_GROUP: u16 = 0;
/// How long a dropped engine waits for the kernel to let go of its buffers. After that they are leaked.
const DRAIN_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(COMPLETIONS as usize >= super::BUFFERS as usize + SUBMISSIONS as usize);

// State of a slot.
/// The caller wants to receive.
const WANTED: u16 = 1;
/// A receive is in the kernel, or staged.
const ARMED: u16 = 1 << 1;
/// Its cancellation is in the kernel, or staged.
const CANCEL_SENT: u16 = 1 << 2;
/// The cancellation has found it; its own last completion is still to come.
const CANCEL_HIT: u16 = 1 << 3;
/// A send is in the kernel, or staged.
const SENDING: u16 = 1 << 4;
/// The cancellation of everything is in the kernel, or staged.
const CANCEL_ALL_SENT: u16 = 1 << 5;
/// No more will be received.
const ENDED: u16 = 1 << 6;
/// Waits in `starved` or `served` for a free buffer.
const STARVED: u16 = 1 << 7;
/// The caller has closed it.
const CLOSING: u16 = 1 << 8;
/// Has received something since it was last armed.
const SERVED: u16 = 1 << 9;
/// The kernel will still complete something of this slot.
const BUSY: u16 = ARMED | CANCEL_SENT | SENDING | CANCEL_ALL_SENT;

pub(super) struct Uring<B: StableBytes> {
    ring: IoUring,
    pool: Rc<Pool>,
    slots: Slots,
    sends: Sends<B>,
    /// Entries that neither the queue nor the kernel had room for. At most four for each socket.
    backlog: VecDeque<squeue::Entry>,
    /// Sockets to be armed when a buffer is free: got nothing when they were last armed. The first of them gets
    /// something next time and then moves to `served`, so that nobody starves beside sockets that take all there is.
    starved: VecDeque<Key>,
    /// The same, after those: got something first.
    served: VecDeque<Key>,
    /// Completions taken from the kernel's queue that let ends of sends go first. At most the receive buffers and a few for
    /// each socket.
    arrived: VecDeque<cqueue::Entry>,
    bell: Option<RawFd>,
    closing: usize,
    counters: Counters,
}

impl<B: StableBytes> Uring<B> {
    pub(super) fn new(sizes: BufferSizes) -> io::Result<Uring<B>> {
        let ring: IoUring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_single_issuer()
            .setup_submit_all()
            .build(SUBMISSIONS)?;
        let pool = Pool::ring(sizes);
        // SAFETY: the ring's memory is page-aligned, holds `buffers` entries, and outlives the registration, which ends
        // in `drop` before the pool is released.
        unsafe {
            let submitter = ring.submitter();
            submitter.register_buf_ring_with_flags(pool.ring_address(), sizes.buffers, BUFFER_GROUP, 0)?;
        }
        Ok(Uring {
            ring,
            pool,
            slots: Slots::new(),
            sends: Sends::new(),
            backlog: VecDeque::new(),
            starved: VecDeque::new(),
            served: VecDeque::new(),
            arrived: VecDeque::new(),
            bell: None,
            closing: 0,
            counters: Counters::default(),
        })
    }

    pub(super) fn add(&mut self, fd: OwnedFd, user: u64) -> io::Result<Key> {
        socket::make_blocking(fd.as_fd())?;
        socket::send_at_once(fd.as_fd());
        let key = self.slots.insert(fd, user, WANTED)?;
        self.reconcile(key);
        Ok(key)
    }

    pub(super) fn set_receiving(&mut self, key: Key, receiving: bool) {
        match self.slots.get(key) {
            Some(slot) if !slot.is(CLOSING) => {
                slot.set(WANTED, receiving);
                self.reconcile(key);
            }
            _ => self.counters.stale += 1,
        }
    }

    pub(super) fn send(&mut self, key: Key, buffer: B) {
        match self.slots.get(key) {
            Some(slot) if !slot.is(CLOSING) => {
                debug_assert!(!slot.is(SENDING), "one send at a time for each socket");
                if slot.is(SENDING) {
                    return;
                }
                slot.sending = self.sends.insert(buffer);
                slot.set(SENDING, true);
                self.counters.sends += 1;
                self.stage_send(key);
            }
            _ => self.counters.stale += 1,
        }
    }

    pub(super) fn finish(&mut self, key: Key) {
        match self.slots.get(key).filter(|slot| !slot.is(CLOSING)).and_then(|slot| slot.fd.as_ref()) {
            Some(fd) => socket::end_sending(fd.as_fd()),
            None => self.counters.stale += 1,
        }
    }

    pub(super) fn close(&mut self, key: Key, reset: bool) {
        let Some((slot, fd)) = self.slots.get(key).and_then(|slot| {
            let fd = slot.fd.as_ref()?.as_raw_fd();
            Some((slot, fd)).filter(|(slot, _)| !slot.is(CLOSING))
        }) else {
            self.counters.stale += 1;
            return;
        };
        if let Some(fd) = &slot.fd {
            socket::shut_down(fd.as_fd(), reset);
        }
        slot.set(WANTED, false);
        slot.set(CLOSING, true);
        self.closing += 1;
        if slot.is(BUSY) {
            slot.set(CANCEL_ALL_SENT, true);
            let all = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd)).all()).build();
            self.push(all.user_data(pack(Operation::CancelAll, key)));
        }
        self.retire(key);
    }

    pub(super) fn watch_bell(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.bell = Some(eventfd);
        self.arm_bell();
        self.submit()
    }

    pub(super) fn wait_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        loop {
            let completion = self.next_completion()?;
            if let Some(event) = self.complete(&completion) {
                return Some(event);
            }
        }
    }

    /// Ends of sends come first. A flood of received bytes can stand before them in the kernel's queue, and whoever
    /// waits for its turn to be written to would look slow.
    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        while let Some(completion) = self.reap() {
            if unpack(completion.user_data()).0 == Some(Operation::Send) {
                return Some(completion);
            }
            self.arrived.push_back(completion);
        }
        self.arrived.pop_front()
    }

    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.feed_starved();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            let taken = unsafe { self.ring.submission().push(entry) }.is_ok();
            if taken {
                self.backlog.pop_front();
                continue;
            }
            self.enter()?;
            if self.ring.submission().is_full() {
                return Ok(());
            }
        }
        if self.ring.submission().is_empty() { Ok(()) } else { self.enter() }
    }

    pub(super) fn before_wait(&mut self) -> io::Result<bool> {
        self.submit()?;
        if self.ring.completion().is_empty() && self.kernel_holds_completions() {
            self.enter()?;
        }
        Ok(!self.arrived.is_empty()
            || !self.ring.completion().is_empty()
            || !self.backlog.is_empty()
            || !self.ring.submission().is_empty())
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn occupied(&self) -> usize {
        self.slots.occupied()
    }

    pub(super) fn closing(&self) -> usize {
        self.closing
    }

    fn reap(&mut self) -> Option<cqueue::Entry> {
        if let Some(completion) = self.ring.completion().next() {
            return Some(completion);
        }
        if !self.kernel_holds_completions() {
            return None;
        }
        // A ring that fails here fails in the next `submit` too, which reports it.
        self.enter().ok()?;
        self.ring.completion().next()
    }

    fn kernel_holds_completions(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Submits what the queue holds and lets the kernel post what is complete.
    fn enter(&mut self) -> io::Result<()> {
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Out of memory for requests, or too many completions not yet taken: later.
                    Some(libc::EAGAIN | libc::EBUSY) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: entries of this file point to nothing but sockets, which stay open until the slot is no longer
            // busy, and to send buffers, which `sends` keeps until the completion.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // A failure shows again in the next `submit`; until then the entry waits in the backlog.
            let _ = self.enter();
            // SAFETY: as above.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Brings what is armed to what is wanted, as far as operations under way allow.
    fn reconcile(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        let Some(fd) = slot.fd.as_ref().map(AsRawFd::as_raw_fd) else { return };
        if slot.is(CLOSING | CANCEL_SENT | CANCEL_HIT) {
            return;
        }
        match (slot.is(WANTED), slot.is(ARMED)) {
            (true, false) if !slot.is(ENDED | STARVED) => {
                slot.set(ARMED, true);
                slot.set(SERVED, false);
                let receive = opcode::RecvMulti::new(Fd(fd), BUFFER_GROUP).build();
                self.push(receive.user_data(pack(Operation::Receive, key)));
            }
            (false, true) => {
                slot.set(CANCEL_SENT, true);
                let cancel = opcode::AsyncCancel::new(pack(Operation::Receive, key)).build();
                self.push(cancel.user_data(pack(Operation::Cancel, key)));
            }
            _ => {}
        }
    }

    fn stage_send(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        let Some(fd) = slot.fd.as_ref().map(AsRawFd::as_raw_fd) else { return };
        let rest = self.sends.rest(slot.sending);
        let bytes = rest.len().min(i32::MAX as usize) as u32;
        let send =
            opcode::Send::new(Fd(fd), rest.as_ptr(), bytes).flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build();
        self.push(send.user_data(pack(Operation::Send, key)));
    }

    fn arm_bell(&mut self) {
        if let Some(eventfd) = self.bell {
            let watch = opcode::PollAdd::new(Fd(eventfd), libc::POLLIN as u32).multi(true).build();
            self.push(watch.user_data(pack(Operation::Bell, Key { slot: 0, generation: 0 })));
        }
    }

    /// Arms as many waiting sockets as there are buffers for.
    fn feed_starved(&mut self) {
        if self.starved.is_empty() && self.served.is_empty() {
            return;
        }
        let not_reaped = self.ring.completion().len();
        for _ in 0..self.pool.unheld().saturating_sub(not_reaped) {
            let Some(key) = self.starved.pop_front().or_else(|| self.served.pop_front()) else { return };
            if let Some(slot) = self.slots.get(key) {
                slot.set(STARVED, false);
                self.reconcile(key);
            }
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> Option<Event> {
        let (operation, key) = unpack(completion.user_data());
        match operation? {
            Operation::Receive => self.received(key, completion),
            Operation::Send => self.sent(key, completion.result()),
            Operation::Cancel => {
                self.cancelled(key, completion.result());
                None
            }
            Operation::CancelAll => {
                self.settled(key, CANCEL_ALL_SENT);
                None
            }
            Operation::Bell => {
                if completion.result() < 0 {
                    return None;
                }
                if !cqueue::more(completion.flags()) {
                    self.arm_bell();
                }
                Some(Event::Bell)
            }
        }
    }

    fn received(&mut self, key: Key, completion: &cqueue::Entry) -> Option<Event> {
        let (result, flags) = (completion.result(), completion.flags());
        let bytes = u32::try_from(result).unwrap_or(0);
        // SAFETY: the kernel names a buffer in exactly one completion each time it takes it from the ring.
        let chunk = cqueue::buffer_select(flags).and_then(|buffer| unsafe { self.pool.filled(buffer, bytes) });
        self.counters.receives += u64::from(bytes > 0);
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale += 1;
            return None;
        };
        let user = slot.user;
        slot.set(SERVED, slot.is(SERVED) || bytes > 0);
        let last = !cqueue::more(flags);
        if slot.is(CLOSING) {
            if last {
                self.settled(key, ARMED | CANCEL_HIT);
            }
            return None;
        }
        if last {
            slot.set(ARMED | CANCEL_HIT, false);
            if let Some(ended) = self.stopped(key, user, result) {
                return Some(ended);
            }
        }
        chunk.filter(|chunk| !chunk.is_empty()).map(|bytes| Event::Received { user, bytes })
    }

    /// A receive has ended with `result`: what that means for an open socket.
    fn stopped(&mut self, key: Key, user: u64, result: i32) -> Option<Event> {
        let slot = self.slots.get(key)?;
        match -result {
            ..0 | libc::ECANCELED | libc::EINTR => {}
            libc::ENOBUFS => {
                self.counters.buffers_exhausted += 1;
                slot.set(STARVED, true);
                let queue = if slot.is(SERVED) { &mut self.served } else { &mut self.starved };
                queue.push_back(key);
            }
            error => {
                slot.set(ENDED, true);
                let error = (error != 0).then(|| io::Error::from_raw_os_error(error));
                return Some(Event::Ended { user, error });
            }
        }
        self.reconcile(key);
        None
    }

    fn sent(&mut self, key: Key, result: i32) -> Option<Event> {
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale += 1;
            return None;
        };
        let (user, sending, closing) = (slot.user, slot.sending, slot.is(CLOSING));
        let bytes = usize::try_from(result).unwrap_or(0);
        let ok = self.sends.advance(sending, bytes);
        if !ok && !closing && (bytes > 0 || result == -libc::EINTR) {
            self.counters.sends_short += 1;
            self.stage_send(key);
            return None;
        }
        self.sends.remove(sending);
        slot.sending = NOT_SENDING;
        self.settled(key, SENDING);
        (!closing).then_some(Event::Sent { user, ok })
    }

    fn cancelled(&mut self, key: Key, result: i32) {
        if let Some(slot) = self.slots.get(key) {
            // Not found: the receive was just being handed on inside the kernel and is still armed, or has ended.
            let hit = result == 0 && slot.is(ARMED);
            slot.set(CANCEL_HIT, hit);
        }
        self.settled(key, CANCEL_SENT);
        self.reconcile(key);
    }

    /// The operations `bits` of a slot are complete; frees the slot if it was closed and they were the last.
    fn settled(&mut self, key: Key, bits: u16) {
        match self.slots.get(key) {
            Some(slot) => slot.set(bits, false),
            None => self.counters.stale += 1,
        }
        self.retire(key);
    }

    fn retire(&mut self, key: Key) {
        if self.slots.get(key).is_some_and(|slot| slot.is(CLOSING) && !slot.is(BUSY)) {
            self.slots.remove(key);
            self.closing -= 1;
        }
    }
}

impl<B: StableBytes> Drop for Uring<B> {
    /// Ends all operations before the memory that they use goes. If the kernel does not let go in time, that memory is
    /// leaked: a leak at the end of a process is harmless, a write into freed memory is not.
    fn drop(&mut self) {
        for key in self.slots.keys() {
            if self.slots.get(key).is_some_and(|slot| !slot.is(CLOSING)) {
                self.close(key, false);
            }
        }
        let deadline = Instant::now() + DRAIN_MAX;
        let pause = Timespec::new().nsec(10_000_000);
        while self.slots.occupied() > 0 && Instant::now() < deadline && self.submit().is_ok() {
            let _ = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&pause));
            while let Some(completion) = self.next_completion() {
                self.complete(&completion);
            }
        }
        if self.slots.occupied() > 0 {
            mem::forget(mem::replace(&mut self.sends, Sends::new()));
            mem::forget(Rc::clone(&self.pool));
        } else {
            let _ = self.ring.submitter().unregister_buf_ring(BUFFER_GROUP);
        }
    }
}
