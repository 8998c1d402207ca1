//! Subscriptions in doubt: what comes for them waits until the application has said whether they go on.
//!
//! After a refresh or a reload nothing is delivered by what was decided before (INVARIANTS 11, SR-6). A subscription that
//! rests on a rule of the application stays in the pipe's list, with a filter that lets nothing through, and its events
//! are kept here instead. A yes sends them, in their order and by what the connection may see then; a no forgets them.
//!
//! Bound: `limits.queue_bytes` for each of them, with the same policy as a connection's queue. A frame is shared with all
//! who keep it.

use std::collections::VecDeque;
use std::rc::Rc;

use ahash::AHashMap;

use super::Shard;
use super::outbox::Frame;
use super::pipes::{PipeId, Wants};
use crate::config::WhenSlow;

/// The suspended subscriptions of a worker, by their pipes.
#[derive(Default)]
pub(super) struct Suspended(AHashMap<PipeId, Vec<Kept>>);

/// What is kept for one of them.
struct Kept {
    slot: u32,
    events: VecDeque<Rc<Frame>>,
    bytes: usize,
    /// Events that went to make room.
    left_out: u32,
}

impl Suspended {
    fn begin(&mut self, pipe: PipeId, slot: u32) {
        let all = self.0.entry(pipe).or_default();
        if !all.iter().any(|one| one.slot == slot) {
            all.push(Kept { slot, events: VecDeque::new(), bytes: 0, left_out: 0 });
        }
    }

    /// It goes on, or has ended.
    fn end(&mut self, pipe: PipeId, slot: u32) -> Option<Kept> {
        let all = self.0.get_mut(&pipe)?;
        let kept = all.iter().position(|one| one.slot == slot).map(|place| all.swap_remove(place));
        if all.is_empty() {
            self.0.remove(&pipe);
        }
        kept
    }

    /// Whether what this connection would be sent of the pipe has to wait.
    pub fn has(&self, pipe: PipeId, slot: u32) -> bool {
        self.0.get(&pipe).is_some_and(|all| all.iter().any(|one| one.slot == slot))
    }

    /// Keeps an event for all suspended subscribers of its pipe but `skip`. Whoever has no room for it is added to
    /// `too_slow`, or loses its oldest.
    pub fn keep(
        &mut self,
        (pipe, frame): (PipeId, &Rc<Frame>),
        skip: Option<u32>,
        (limit_bytes, when_slow): (usize, WhenSlow),
        too_slow: &mut Vec<u32>,
    ) {
        let length = frame.bytes().len();
        for kept in self.0.get_mut(&pipe).into_iter().flatten().filter(|kept| skip != Some(kept.slot)) {
            if limit_bytes != 0 && kept.bytes + length > limit_bytes && when_slow == WhenSlow::Close {
                too_slow.push(kept.slot);
                continue;
            }
            kept.events.push_back(frame.clone());
            kept.bytes += length;
            while limit_bytes != 0
                && kept.bytes > limit_bytes
                && let Some(oldest) = kept.events.pop_front()
            {
                kept.bytes -= oldest.bytes().len();
                kept.left_out += 1;
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
            self.outboxes[slot as usize].note_left_out(serial, name, kept.left_out);
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
    }

    /// The subscription has ended: nothing that was kept for it is sent.
    pub(super) fn forget_kept(&mut self, slot: u32, pipe: PipeId) {
        if !self.suspended.0.is_empty() {
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
