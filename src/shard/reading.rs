//! Bytes of an open connection: frames to messages, and what happens to input that must wait.

use std::cmp::Reverse;

use super::Shard;
use super::auditing::GATHER_MS;
use super::connection::{Held, Stalled, State, Until};
use super::input::Now;
use super::output::Output;
use super::requests::Flow;
use crate::bounds::{EXPIRING_NOTICE_MS, MESSAGE_UNFINISHED_MS_MAX};
use crate::protocol::codes::CloseCode;
use crate::protocol::encode;
use crate::protocol::frame::{self, Item, Reader};

impl Shard {
    /// Bytes came.
    pub(super) fn received(&mut self, now: Now, slot: u32, bytes: &mut [u8]) {
        match &mut self.slots[slot as usize].state {
            State::Vacant => {}
            State::Greeting(_) => self.received_greeting(now, slot, bytes),
            State::Authorizing(_) => self.received_authorizing(now, slot, bytes),
            State::Closing(_) => self.received_closing(slot, bytes),
            State::Open(open) => {
                open.awaits_pong = false;
                match open.burden.as_mut().and_then(|burden| burden.held.as_mut()) {
                    // Receiving was stopped; this came before the stop took effect.
                    Some(held) => {
                        let before = held.bytes();
                        held.rest.extend_from_slice(bytes);
                        self.assembly_bytes = self.assembly_bytes + held.bytes() - before;
                    }
                    None => self.read(now, slot, bytes),
                }
            }
        }
    }

    /// Takes messages off the bytes until they are used up, or one must wait, or the connection ends.
    fn read(&mut self, now: Now, slot: u32, bytes: &mut [u8]) {
        let message_bytes_max = self.settings.config.limits.message_bytes as usize;
        let Some(open) = self.open_mut(slot) else { return };
        let mut reader = open.take_reader();
        let kept_before = reader.kept_bytes();
        let (mut used, mut used_by_items, mut began_here) = (0, 0, false);
        let flow = loop {
            let (taken, item) = reader.next(&mut bytes[used..], message_bytes_max);
            used += taken;
            match item {
                // Its payload is not waited for (C36).
                Ok(None) => {
                    break if reader.is_binary_unfinished() { self.close_binary(now, slot) } else { Flow::Next };
                }
                Ok(Some(item)) => {
                    used_by_items = used;
                    let flow = self.item(now, slot, item);
                    // What is unfinished in the end began after this, but for a message around a control frame.
                    began_here |= !reader.is_unfinished();
                    match flow {
                        Flow::Next => {}
                        other => break other,
                    }
                }
                Err(violation) => {
                    let code = violation.close_code();
                    self.counters.malformed += 1;
                    self.begin_close(now, slot, code, code.reason(), false);
                    break Flow::Closed;
                }
            }
        };
        match flow {
            Flow::Closed => self.closed_while_reading(slot, reader, kept_before, &mut bytes[used..]),
            Flow::Next => {
                let unfinished = reader.is_unfinished();
                self.keep_reader(now, slot, reader, kept_before, began_here);
                if unfinished && let Flow::Wait { until, .. } = self.charge_unfinished(now, slot, used - used_by_items)
                {
                    self.hold(now, slot, None, Vec::new(), until);
                    let handle = self.handle_of(slot);
                    self.outputs.push(Output::Pause(handle));
                }
            }
            Flow::Wait { message, until } => {
                self.keep_reader(now, slot, reader, kept_before, began_here);
                self.hold(now, slot, message, bytes[used..].to_vec(), until);
                let handle = self.handle_of(slot);
                self.outputs.push(Output::Pause(handle));
            }
        }
    }

    fn keep_reader(&mut self, now: Now, slot: u32, reader: Reader, kept_before: usize, began_here: bool) {
        let kept = reader.kept_bytes();
        let Some(open) = self.open_mut(slot) else { return };
        if kept == 0 && open.burden.is_none() {
            // Nothing was kept before either: it lay in the burden.
            return;
        }
        let burden = open.burden_mut();
        let begins = began_here || burden.unfinished_since_ms == 0;
        if begins || !reader.is_unfinished() {
            burden.unfinished_bytes = 0;
            if let Some(throttle) = &mut burden.throttle {
                throttle.read_on_bytes = 0;
            }
        }
        if !reader.is_unfinished() {
            burden.unfinished_since_ms = 0;
        } else if begins {
            burden.unfinished_since_ms = now.ms().max(1);
        }
        burden.reader = reader;
        let unfinished = burden.unfinished_since_ms;
        self.assembly_bytes = self.assembly_bytes + kept - kept_before;
        if unfinished == now.ms().max(1) {
            self.wake_at(slot, unfinished + MESSAGE_UNFINISHED_MS_MAX);
        }
    }

    /// The connection was closed by one of its own messages, while its reader was here. A closing gets it back, for the
    /// peer's answer may already be among the bytes.
    fn closed_while_reading(&mut self, slot: u32, reader: Reader, kept_before: usize, rest: &mut [u8]) {
        self.assembly_bytes -= kept_before;
        if let State::Closing(closing) = &mut self.slots[slot as usize].state
            && let Some(place) = &mut closing.reader
        {
            *place = reader;
            self.received_closing(slot, rest);
        }
    }

    fn item(&mut self, now: Now, slot: u32, item: Item<'_>) -> Flow {
        match item {
            Item::Text(text) => self.message(now, slot, text),
            Item::Pong(payload) => self.pong(now, slot, payload.len()),
            Item::Ping(payload) => {
                let mut bytes = Vec::with_capacity(2 + payload.len());
                frame::append_server_frame(&mut bytes, frame::opcode::PONG, payload);
                self.send(slot, bytes);
                self.control(now, slot, payload.len())
            }
            Item::Binary(_) => self.close_binary(now, slot),
            Item::Close(code, _) => {
                self.answer_close(now, slot, code);
                Flow::Closed
            }
        }
    }

    fn close_binary(&mut self, now: Now, slot: u32) -> Flow {
        self.counters.malformed += 1;
        let code = CloseCode::Unsupported;
        self.begin_close(now, slot, code, code.reason(), false);
        Flow::Closed
    }

    /// Keeps input until it can go on.
    fn hold(&mut self, now: Now, slot: u32, message: Option<String>, rest: Vec<u8>, until: Until) {
        let handle = self.handle_of(slot);
        let Some(open) = self.open_mut(slot) else { return };
        let held = Held { message, rest, until, since_ms: now.ms() };
        let bytes = held.bytes();
        open.burden_mut().held = Some(Box::new(held));
        self.assembly_bytes += bytes;
        match until {
            Until::Room(rings) => self.stalled.push_back(Stalled { handle, rings, set_aside: false }),
            Until::Time(at_ns) => {
                self.pauses.push(Reverse((at_ns.div_ceil(1_000_000), handle.slot, handle.generation)));
            }
            // Listed by `gather_rooms`, with the room.
            Until::Attendance => {}
        }
    }

    /// Goes on with held input. If it must wait again it is held again.
    pub(super) fn resume(&mut self, now: Now, slot: u32) {
        let handle = self.handle_of(slot);
        let Some(open) = self.open_mut(slot) else { return };
        let Some(held) = open.take_held() else { return };
        // Whoever is made to wait cannot show that it is alive (A8).
        open.awaits_pong = false;
        if let Some(burden) = &mut open.burden
            && burden.unfinished_since_ms != 0
        {
            // Nor can it send the rest of its message to somebody who does not read.
            burden.unfinished_since_ms += now.ms() - held.since_ms;
            let until_ms = burden.unfinished_since_ms + MESSAGE_UNFINISHED_MS_MAX;
            self.wake_at(slot, until_ms);
        }
        self.assembly_bytes -= held.bytes();
        let Held { message, mut rest, .. } = *held;
        if let Some(message) = message {
            match self.message(now, slot, &message) {
                Flow::Next => {}
                Flow::Wait { message, until } => return self.hold(now, slot, message, rest, until),
                Flow::Closed => {
                    self.outputs.push(Output::Resume(handle));
                    return self.received_closing(slot, &mut rest);
                }
            }
        }
        self.read(now, slot, &mut rest);
        // A closing listens again too: for the peer's answer.
        if self.open_mut(slot).is_none_or(|open| open.held().is_none()) {
            self.outputs.push(Output::Resume(handle));
        }
    }

    /// An open connection's turn: expiry, held input, the unfinished message, the ping; and when to look again.
    pub(super) fn look_at_open(&mut self, now: Now, slot: u32) {
        if let Some((code, reason)) = self.overdue(now, slot) {
            return self.begin_close(now, slot, code, &reason, false);
        }
        let ms = now.ms();
        let ping_ms = u64::from(self.settings.config.edge.ping_s) * 1_000;
        let Some(open) = self.open_mut(slot) else { return };
        if open.held().is_some_and(|held| matches!(held.until, Until::Time(at_ns) if at_ns <= now.mono_ns)) {
            self.resume(now, slot);
        }
        let Some(open) = self.open_mut(slot) else { return };
        if ms >= open.ping_at_ms {
            open.ping_at_ms = ms + ping_ms;
            open.awaits_pong = open.held().is_none();
            open.owes_pong = true;
            self.counters.pings += 1;
            let mut bytes = Vec::with_capacity(2);
            frame::append_server_frame(&mut bytes, frame::opcode::PING, &[]);
            self.send(slot, bytes);
        }
        let in_ms = self.open_mut(slot).map_or(u64::MAX, |open| open.expires_at_ms.saturating_sub(now.unix_ms));
        self.tell_expiring(slot, in_ms);
        self.tell_denials(now, slot);
        let leave_at_ms = self.leave_at_ms(slot);
        let Some(open) = self.open_mut(slot) else { return };
        open.unburden(now.mono_ns);
        let mut next_ms = open.ping_at_ms.min(leave_at_ms);
        if open.expires_at_ms != u64::MAX {
            let notice_ms = if open.told_expiring { 0 } else { EXPIRING_NOTICE_MS };
            next_ms = next_ms.min(ms + in_ms.saturating_sub(notice_ms));
        }
        next_ms = open.denials().iter().map(|one| one.since_ms + GATHER_MS).fold(next_ms, u64::min);
        let unfinished_since_ms = open.unfinished_since_ms();
        if unfinished_since_ms != 0 && open.held().is_none() {
            next_ms = next_ms.min(unfinished_since_ms + MESSAGE_UNFINISHED_MS_MAX);
        }
        self.wake_at(slot, next_ms);
    }

    /// Says that the end is near (C29).
    fn tell_expiring(&mut self, slot: u32, in_ms: u64) {
        let Some(open) = self.open_mut(slot) else { return };
        if open.expires_at_ms != u64::MAX && !open.told_expiring && in_ms <= EXPIRING_NOTICE_MS {
            open.told_expiring = true;
            self.send(slot, encode::framed(|out| encode::expiring(out, in_ms.div_ceil(1_000))));
        }
    }

    /// Why the connection must end now, if it must.
    fn overdue(&mut self, now: Now, slot: u32) -> Option<(CloseCode, String)> {
        let drain_ms = u64::from(self.settings.config.edge.drain_s) * 1_000;
        let leave_at_ms = self.leave_at_ms(slot);
        let open = self.open_mut(slot)?;
        let ms = now.ms();
        let since_ms = open.unfinished_since_ms();
        let unfinished = since_ms != 0 && open.held().is_none() && ms >= since_ms + MESSAGE_UNFINISHED_MS_MAX;
        if now.unix_ms >= open.expires_at_ms {
            Some((CloseCode::Expired, CloseCode::Expired.reason().into()))
        } else if ms >= leave_at_ms {
            Some((CloseCode::Draining, format!("retry_after_ms={}", super::closing::reconnect_in_ms(drain_ms, 0))))
        } else if unfinished || (open.awaits_pong && ms >= open.ping_at_ms) {
            Some((CloseCode::Silent, CloseCode::Silent.reason().into()))
        } else {
            None
        }
    }

    /// Tells a client that it is being slowed down.
    pub(super) fn tell_throttled(&mut self, slot: u32, retry_after_ms: u64) {
        self.counters.throttled += 1;
        self.send(slot, encode::framed(|out| encode::throttled(out, retry_after_ms)));
    }
}
