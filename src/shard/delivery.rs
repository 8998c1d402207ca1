//! From one event to everybody who may see it: here, and on other workers.
//!
//! Delivery is decided once, at the moment at which this worker takes the event from its ring or accepts its own
//! client's publish (INVARIANTS 8): whoever stands in the pipe's list then gets it. The fan-out of one event is not
//! interrupted: it costs a few nanoseconds for each subscriber, the writes that follow are what takes time, and those
//! go in slices.

use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::command::Command;
use super::connection::Stalled;
use super::frames::Frame;
use super::input::Now;
use super::outbox::Pushed;
use super::pipes::{LocalPipe, PipeId, Viewer, Wants};
use super::presence::Room;
use super::turns::MANY;
use crate::bounds::RING_ENTRIES_PER_TURN;
use crate::mesh::registry::Pipe;
use crate::protocol::encode;
use crate::rules::definition::FilterRule;
use crate::rules::value::{self, Scope, Value};

/// What crosses from worker to worker.
pub enum Parcel {
    /// An event that was accepted on another worker.
    Event {
        /// The process-wide pipe.
        pipe: Pipe,
        /// The encoded frame.
        bytes: Arc<[u8]>,
    },
    /// A request of the application.
    Command(Box<Command>),
    /// Count your subscribers of its pipe into this room.
    Attend(Arc<Room>),
}

impl Shard {
    /// Takes entries from the rings, then lets those try again who wait for room.
    pub(super) fn rings(&mut self, now: Now) {
        for _ in 0..RING_ENTRIES_PER_TURN {
            let Some((source, parcel)) = self.port.pop() else { break };
            match parcel {
                Parcel::Event { pipe, bytes } => {
                    self.counters.events_from_workers += 1;
                    if let Some(id) = self.pipes.find_global(&pipe) {
                        self.deliver_shared(id, bytes, None);
                    }
                }
                Parcel::Command(command) => self.command(now, *command),
                Parcel::Attend(room) => self.attend_asked(now, &room),
            }
            if !self.too_slow.is_empty() {
                self.close_too_slow(now);
            }
            if !self.settling.is_empty() {
                self.settled(source);
            }
        }
        self.next_rechecks(now);
        self.retry_stalled(now);
        self.retry_attendance(now);
    }

    /// Those that wait for room in a ring that has some again try again, oldest first, until it is full again.
    fn retry_stalled(&mut self, now: Now) {
        // Asked even when nobody waits any more: awaited room keeps the worker awake.
        let mut relieved = self.port.relieved();
        for _ in 0..self.stalled.len() {
            if relieved == 0 {
                break;
            }
            let Some(one) = self.stalled.pop_front() else { break };
            let Stalled { handle, rings, set_aside } = one;
            if rings & relieved == 0 {
                self.stalled.push_back(one);
                continue;
            }
            let others = self.stalled.len();
            if self.slots[handle.slot as usize].generation == handle.generation {
                if set_aside { self.relieve_waiting(now, handle.slot, rings) } else { self.resume(now, handle.slot) }
            }
            if self.stalled.len() > others
                && let Some(Stalled { rings: full, .. }) = self.stalled.back()
            {
                relieved &= !full;
            }
        }
    }

    /// Whether anybody waits for room in a ring.
    pub fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Delivers an event of this worker's own client. `skip`: the publisher, where it asked to be left out.
    pub(super) fn deliver_local(&mut self, id: PipeId, bytes: Box<[u8]>, skip: Option<u32>) {
        let Some(local) = self.pipes.get(id) else { return };
        let frame = Frame::event(bytes, local.serial, &self.gatherer.meter);
        self.fan_out(id, frame, skip);
    }

    /// Delivers an event that several workers share.
    pub(super) fn deliver_shared(&mut self, id: PipeId, bytes: Arc<[u8]>, skip: Option<u32>) -> u64 {
        let Some(local) = self.pipes.get(id) else { return 0 };
        let frame = Frame::shared_event(bytes, local.serial, &self.gatherer.meter);
        self.fan_out(id, frame, skip)
    }

    /// Queues the frame for every subscriber that wants it; how many took it.
    fn fan_out(&mut self, id: PipeId, frame: Rc<Frame>, skip: Option<u32>) -> u64 {
        let Some(local) = self.pipes.get(id) else { return 0 };
        let limits = &self.settings.config.limits;
        let (limit_bytes, when_slow) = (limits.queue_bytes as usize, limits.when_slow);
        let pressed_bytes = self.pressed_bytes();
        let passing = local.is_selective().then(|| self.passing(local, &frame));
        self.counters.filter_faults += passing.as_ref().map_or(0, |(_, faults)| *faults);
        let passing = passing.map(|(passing, _)| passing);
        let passing = passing.as_deref();
        let Some(local) = self.pipes.get(id) else { return 0 };
        let many = local.subscribers.len() >= MANY;
        let mut delivered = 0u64;
        for subscriber in &local.subscribers {
            if skip == Some(subscriber.slot) {
                continue;
            }
            if let Some(passing) = passing
                && !passing[subscriber.filter as usize]
            {
                continue;
            }
            let outbox = &mut self.outboxes[subscriber.slot as usize];
            match outbox.push(frame.clone(), limit_bytes, when_slow, &mut self.gatherer) {
                Pushed::Queued => delivered += 1,
                Pushed::Dropped(events) => {
                    self.counters.events_dropped += u64::from(events);
                    delivered += 1;
                }
                // The loss itself is to be told.
                Pushed::LeftOut(events) => self.counters.events_dropped += u64::from(events),
                Pushed::TooSlow => {
                    self.too_slow.push(subscriber.slot);
                    continue;
                }
            }
            if outbox.needs_turn(&mut self.gatherer) {
                if many { self.turns.add_to_many(subscriber.slot) } else { self.turns.add(subscriber.slot) }
            }
            self.pressed += usize::from(outbox.presses(pressed_bytes));
        }
        self.suspended.keep((id, &frame), skip, limit_bytes / 2);
        if delivered > 0 {
            self.turn_bytes += frame.bytes().len();
        }
        self.counters.events_out += delivered;
        delivered
    }

    /// Which of the pipe's filters let this event through (RK-4, SR-7), and how many rules failed.
    fn passing(&self, local: &LocalPipe, frame: &Frame) -> (Vec<bool>, u64) {
        self.sieve(local, frame, |lets| {
            let everybody = lets(None);
            local.passing(everybody, |wants| lets(Some(wants)))
        })
    }

    /// Lets `ask` find out whom this event may be sent to (None: who wants everything that its definition lets everybody
    /// have), and says how many rules failed. What a filter asks of the event alone is evaluated once, the rest once for
    /// each viewer.
    pub(super) fn sieve<R>(
        &self,
        local: &LocalPipe,
        frame: &Frame,
        ask: impl FnOnce(&mut dyn FnMut(Option<&Wants>) -> bool) -> R,
    ) -> (R, u64) {
        let event = encode::event_name(frame.bytes());
        let definition =
            local.ruled.definition.and_then(|number| self.settings.config.rules.pipes.get(number as usize));
        let number = definition.and_then(|definition| definition.event(&event));
        let rule = definition.zip(number).and_then(|(definition, number)| definition.events[number].filter.as_ref());
        let named = |wants: &Wants| {
            !wants.suspended
                && wants.names.as_ref().is_none_or(|names| names.iter().any(|name| **name == *event))
                && number.is_none_or(|number| wants.denied >> number & 1 == 0)
        };
        let Some(FilterRule { filter, .. }) = rule.map(|rule| &**rule) else {
            return (ask(&mut |wants| wants.is_none_or(named)), 0);
        };
        let seen = if filter.needs_data() {
            value::event(&event, value::parsed(encode::data_of(frame.bytes())))
        } else {
            Value::map([("name", Value::String((&*event).into()))])
        };
        let scope = Scope { event: &seen, pipe: local.global.name(), ..Scope::default() };
        let common = filter.common(&scope);
        let mut faults = 0;
        let mut judged = |wants: Option<&Wants>| {
            let lets = match (common.decided(), wants.and_then(|wants| wants.viewer.as_deref())) {
                (Some(decided), _) => decided.clone(),
                (None, Some(viewer)) => {
                    let Viewer { user, params, context, ip, .. } = viewer;
                    filter.viewer(&common, &Scope { user, params, ctx: context, ip, ..scope })
                }
                // It stands for nobody whom the filter could be asked about.
                (None, None) => Ok(false),
            };
            // A filter that fails does not deliver (F12).
            faults += u64::from(lets.is_err());
            lets.unwrap_or(false)
        };
        let answer = ask(&mut |wants| wants.is_none_or(named) && judged(wants));
        (answer, faults)
    }
}
