//! How a connection ends, on every path (INVARIANTS 17).
//!
//! A closing begins by giving everything back: subscriptions, interest, seats, held input. What remains is a socket that
//! has to say goodbye: our close frame leaves after what was queued, the peer's answer is awaited, then our side of
//! the stream ends, then theirs. All of it within one deadline; after that the socket is reset.

use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::connection::{Closing, Open, State};
use super::frames::Frame;
use super::input::Now;
use super::output::Output;
use crate::bounds::CLOSE_WAIT_MS;
use crate::protocol::codes::CloseCode;
use crate::protocol::frame::{self, Item, Reader};

/// What a client is told to wait before it reconnects: the rest of the drain, at least a second.
pub(super) fn reconnect_in_ms(drain_ms: u64, after_ms: u64) -> u64 {
    (drain_ms - after_ms).max(1_000)
}

impl Shard {
    /// Closes an open connection from our side. `at_once`: what waits to be sent is forgotten first.
    pub(super) fn begin_close(&mut self, now: Now, slot: u32, code: CloseCode, reason: &str, at_once: bool) {
        self.begin_close_for(now, slot, code, reason, at_once, code.reason());
    }

    /// The same, where the code alone does not say for the audit why it is closed.
    pub(super) fn begin_close_for(
        &mut self,
        now: Now,
        slot: u32,
        code: CloseCode,
        reason: &str,
        at_once: bool,
        recorded: &'static str,
    ) {
        self.close_with(now, slot, (code, recorded), Some((code.number(), reason)), at_once, false);
    }

    /// Answers the peer's close frame.
    pub(super) fn answer_close(&mut self, now: Now, slot: u32, code: Option<u16>) {
        self.close_with(now, slot, (CloseCode::Normal, ""), code.map(|code| (code, "")), false, true);
    }

    fn close_with(
        &mut self,
        now: Now,
        slot: u32,
        (counted, recorded): (CloseCode, &'static str),
        payload: Option<(u16, &str)>,
        at_once: bool,
        peer_done: bool,
    ) {
        self.tell_denials_at_once(slot);
        if !peer_done {
            self.record_disconnect(now, slot, counted, recorded);
        }
        self.leave_people(slot);
        let State::Open(open) = std::mem::replace(&mut self.slots[slot as usize].state, State::Vacant) else { return };
        self.counters.close(counted);
        let paused = open.held().is_some();
        let reader = self.give_back(slot, *open);
        let outbox = &mut self.outboxes[slot as usize];
        if at_once {
            outbox.clear_messages();
        }
        let payload = payload.map_or_else(Vec::new, |(code, reason)| frame::close_payload(code, reason));
        let mut bytes = Vec::new();
        frame::append_server_frame(&mut bytes, frame::opcode::CLOSE, &payload);
        let last = Frame::other(bytes, &self.gatherer.meter);
        outbox.push_last(last, &mut self.gatherer);
        let deadline_ms = now.ms() + CLOSE_WAIT_MS;
        let closing = Closing { deadline_ms, reader: Some(reader), peer_done, peer_ended: false, finished: false };
        self.slots[slot as usize].state = State::Closing(Box::new(closing));
        self.mark_dirty(slot);
        self.wake_at(slot, deadline_ms);
        if paused {
            let handle = self.handle_of(slot);
            self.outputs.push(Output::Resume(handle));
        }
    }

    /// After a refused handshake: the answer leaves, then the stream ends.
    pub(super) fn close_greeting(&mut self, now: Now, slot: u32, answer: Vec<u8>) {
        match self.slots[slot as usize].state {
            State::Authorizing(_) => {
                self.authorizing -= 1;
                // It listens again: for the end of the peer's side.
                let handle = self.handle_of(slot);
                self.outputs.push(Output::Resume(handle));
            }
            _ => self.greetings -= 1,
        }
        let deadline_ms = now.ms() + CLOSE_WAIT_MS;
        let closing = Closing { deadline_ms, reader: None, peer_done: true, peer_ended: false, finished: false };
        self.slots[slot as usize].state = State::Closing(Box::new(closing));
        let last = Frame::other(answer, &self.gatherer.meter);
        self.outboxes[slot as usize].push_last(last, &mut self.gatherer);
        self.mark_dirty(slot);
        self.wake_at(slot, deadline_ms);
    }

    /// Bytes from a peer that is being closed: only its close frame matters.
    pub(super) fn received_closing(&mut self, slot: u32, mut bytes: &mut [u8]) {
        let message_bytes_max = self.settings.config.limits.message_bytes as usize;
        let State::Closing(closing) = &mut self.slots[slot as usize].state else { return };
        let Some(reader) = &mut closing.reader else { return };
        loop {
            let (used, item) = reader.next(bytes, message_bytes_max);
            match item {
                Ok(Some(Item::Close(..))) | Err(_) => break,
                Ok(Some(_)) => bytes = &mut bytes[used..],
                Ok(None) => return,
            }
        }
        closing.reader = None;
        closing.peer_done = true;
        self.advance_closing(slot);
    }

    /// Takes the next step of a closing whose last bytes have left, or whose peer has answered.
    pub(super) fn advance_closing(&mut self, slot: u32) {
        let handle = self.handle_of(slot);
        let drained = self.outboxes[slot as usize].is_drained();
        let State::Closing(closing) = &mut self.slots[slot as usize].state else { return };
        if !drained || !closing.peer_done {
            return;
        }
        if closing.peer_ended {
            self.drop_connection(slot, false);
        } else if !closing.finished {
            closing.finished = true;
            self.outputs.push(Output::Finish(handle));
        }
    }

    /// The deadline of a closing has come.
    pub(super) fn end_closing(&mut self, slot: u32) {
        let drained = self.outboxes[slot as usize].is_drained();
        self.drop_connection(slot, !drained);
    }

    /// The peer ended its side of the stream.
    pub(super) fn ended(&mut self, slot: u32) {
        match &mut self.slots[slot as usize].state {
            State::Vacant => {}
            State::Greeting(_) | State::Authorizing(_) => {
                self.counters.handshakes_abandoned += 1;
                self.drop_connection(slot, false);
            }
            State::Open(_) => self.drop_connection(slot, false),
            State::Closing(closing) => {
                closing.peer_ended = true;
                closing.peer_done = true;
                self.advance_closing(slot);
            }
        }
    }

    /// Forgets the connection in whatever state, and closes the socket.
    pub(super) fn drop_connection(&mut self, slot: u32, reset: bool) {
        let connection = self.handle_of(slot);
        self.tell_denials_at_once(slot);
        self.leave_people(slot);
        match std::mem::replace(&mut self.slots[slot as usize].state, State::Vacant) {
            State::Vacant => return,
            State::Greeting(_) => self.greetings -= 1,
            State::Open(open) => drop(self.give_back(slot, *open)),
            State::Authorizing(_) => self.authorizing -= 1,
            State::Closing(_) => {}
        }
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.wake = Default::default();
        let outbox = &mut self.outboxes[slot as usize];
        outbox.clear(&mut self.gatherer);
        outbox.sent(&mut self.gatherer);
        if let Some(leave_at_ms) = self.leave_at_ms.get_mut(slot as usize) {
            *leave_at_ms = u64::MAX;
        }
        self.free.push(slot);
        self.shared.loads[self.worker].fetch_sub(1, Relaxed);
        self.outputs.push(Output::Close { connection, reset });
    }

    /// Takes an open connection out of its user's list.
    fn leave_people(&mut self, slot: u32) {
        let registry = &self.shared.registry;
        self.people.leave(&mut self.slots, |user| registry.hash(user), slot);
    }

    /// Gives back all that an open connection held. Its reader is what a closing still needs.
    fn give_back(&mut self, slot: u32, mut open: Open) -> Reader {
        self.open -= 1;
        self.attendance.disclaim(&self.pipes, slot);
        self.assembly_bytes -= open.input_bytes();
        if let Some(rare) = &open.rare {
            self.assembly_bytes -= rare.bytes();
            let again = rare.waiting.iter().filter(|one| one.is_decided_again());
            self.rechecks -= again.map(|one| one.calls.len()).sum::<usize>();
        }
        for (pipe, position) in open.grants.take_all() {
            if let Some(position) = position {
                self.attendance.leave(self.worker, &self.pipes, pipe, slot, open.identity.as_ref());
                self.leave_list(slot, pipe, position);
            }
            self.pipes.release(pipe);
        }
        // The seats go with `open`, here and nowhere else.
        open.take_reader()
    }

    /// Closes those that could not take one more delivery.
    pub(super) fn close_too_slow(&mut self, now: Now) {
        while let Some(slot) = self.too_slow.pop() {
            match self.slots[slot as usize].state {
                State::Open(_) => self.begin_close(now, slot, CloseCode::TooSlow, CloseCode::TooSlow.reason(), true),
                State::Greeting(_) | State::Authorizing(_) => self.drop_connection(slot, true),
                State::Vacant | State::Closing(_) => {}
            }
        }
    }
}
