//! Subscriptions in doubt: what comes for them waits until the application has said whether they go on.
//!
//! After a refresh or a reload nothing is delivered by what was decided before (INVARIANTS 11, SR-6). A subscription that
//! rests on a rule of the application stays in the pipe's list, with a filter that lets nothing through, and its events
//! are kept here instead. A yes sends them, in their order and by what the connection may see then; a no forgets them.
//!
//! Bound: half of `limits.queue_bytes` for all of a connection, so that what is released finds room in its queue. Over it the
//! oldest go, whatever `when_slow` says, and the client is told (`lagged`): it is not the one who is slow. A frame is shared with
//! all who keep it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ahash::AHashMap;

use super::Shard;
use super::frames::Frame;
use super::pipes::{PipeId, Wants};

/// The suspended subscriptions of a worker.
#[derive(Default)]
pub(super) struct Suspended {
    /// By pipe, then by the slot of the connection.
    kept: AHashMap<PipeId, BTreeMap<u32, Kept>>,
    /// Bytes kept for each connection that has any.
    bytes: AHashMap<u32, usize>,
}

/// What is kept for one of them.
#[derive(Default)]
struct Kept {
    events: VecDeque<Rc<Frame>>,
    /// Events that went to make room.
    left_out: u32,
}

impl Suspended {
    fn begin(&mut self, pipe: PipeId, slot: u32) {
        self.kept.entry(pipe).or_default().entry(slot).or_default();
    }

    /// It goes on, or has ended.
    fn end(&mut self, pipe: PipeId, slot: u32) -> Option<Kept> {
        let all = self.kept.get_mut(&pipe)?;
        let kept = all.remove(&slot)?;
        if all.is_empty() {
            self.kept.remove(&pipe);
        }
        let bytes: usize = kept.events.iter().map(|event| event.bytes().len()).sum();
        if let Some(sum) = self.bytes.get_mut(&slot) {
            *sum -= bytes;
            if *sum == 0 {
                self.bytes.remove(&slot);
            }
        }
        Some(kept)
    }

    /// Whether what this connection would be sent of the pipe has to wait.
    pub fn has(&self, pipe: PipeId, slot: u32) -> bool {
        self.kept.get(&pipe).is_some_and(|all| all.contains_key(&slot))
    }

    /// Bytes that are kept for a connection.
    pub fn bytes_of(&self, slot: u32) -> usize {
        self.bytes.get(&slot).copied().unwrap_or_default()
    }

    /// Keeps an event for all suspended subscribers of its pipe but `skip`, `most_bytes` for each connection.
    pub fn keep(&mut self, (pipe, frame): (PipeId, &Rc<Frame>), skip: Option<u32>, most_bytes: usize) {
        for (slot, kept) in self.kept.get_mut(&pipe).into_iter().flatten().filter(|(slot, _)| skip != Some(**slot)) {
            let sum = self.bytes.entry(*slot).or_default();
            kept.events.push_back(frame.clone());
            *sum += frame.bytes().len();
            while *sum > most_bytes
                && let Some(oldest) = kept.events.pop_front()
            {
                *sum -= oldest.bytes().len();
                kept.left_out += 1;
            }
            if *sum == 0 {
                self.bytes.remove(slot);
            }
        }
    }
}

impl Shard {
    /// Nothing of the pipe is sent to this subscriber until it is settled whether the subscription goes on.
    pub(super) fn suspend(&mut self, slot: u32, pipe: PipeId) {
        let Some(position) = self.position_in(slot, pipe) else { return };
        let Some(local) = self.pipes.get(pipe) else { return };
        let names = local.wants(position).names;
        self.pipes.refilter(pipe, position, Wants { names, suspended: true, ..Wants::default() });
        self.suspended.begin(pipe, slot);
    }

    /// The subscription goes on, by what it wants and may see now: what was kept for it is sent.
    pub(super) fn release(&mut self, slot: u32, pipe: PipeId) {
        let Some(kept) = self.suspended.end(pipe, slot) else { return };
        let (Some(position), Some(local)) = (self.position_in(slot, pipe), self.pipes.get(pipe)) else { return };
        let wants = local.wants(position);
        if kept.left_out > 0 {
            let (serial, name) = (local.serial, local.global.name());
            self.outboxes[slot as usize].note_left_out(serial, name, kept.left_out, &mut self.gatherer);
            self.counters.events_dropped += u64::from(kept.left_out);
            self.mark_dirty(slot);
        }
        for event in kept.events {
            let Some(local) = self.pipes.get(pipe) else { return };
            let (passes, faults) =
                self.sieve(local, &event, |lets| lets(Some(&wants).filter(|one| !one.is_everything())));
            self.counters.filter_faults += faults;
            if passes {
                self.counters.events_out += 1;
                self.queue(slot, event);
            }
        }
        self.press(slot);
    }

    /// The subscription has ended: nothing that was kept for it is sent.
    pub(super) fn forget_kept(&mut self, slot: u32, pipe: PipeId) {
        if !self.suspended.kept.is_empty() {
            drop(self.suspended.end(pipe, slot));
        }
    }

    fn position_in(&self, slot: u32, pipe: PipeId) -> Option<u32> {
        let super::connection::State::Open(open) = &self.slots[slot as usize].state else { return None };
        open.grants
            .index_of(pipe)
            .filter(|index| open.grants.is_subscribed(*index))
            .map(|index| open.grants.position(index))
    }
}
