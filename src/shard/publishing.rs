//! `publish`: rights, rate, payload, then to everybody who is subscribed.
//!
//! A pipe whose definition asks nothing of its events costs one look-up and one bit. Everything else (events with rules,
//! a rate of its own, a rule that looks at the event) is on the long way, which is [`Shard::examine`].

use std::sync::Arc;

use super::Shard;
use super::connection::State;
use super::delivery::Parcel;
use super::input::Now;
use super::pipes::PipeId;
use super::rights::{About, Denied};
use crate::auth::decision::Rights;
use crate::mesh::registry::Pipe;
use crate::protocol::codes::Code;
use crate::protocol::encode::{self, Sender};
use crate::rules::judge::{Refusal, Surface};
use crate::rules::payload::Publisher;

/// Where a publish goes.
pub(super) enum Target {
    /// Nobody is subscribed anywhere.
    Nobody,
    /// To this pipe, and to these other workers.
    Pipe { pipe: PipeId, others: u64 },
}

/// Why a publish was not taken.
pub(super) enum Blocked {
    /// These rings are full: later.
    Full(u64),
    /// Not allowed; after so long, in milliseconds, it may be.
    Refused(Box<Refusal>, Option<u64>),
}

impl From<Code> for Blocked {
    fn from(code: Code) -> Blocked {
        Blocked::Refused(Box::new(Refusal::plain(code)), None)
    }
}

impl From<Denied> for Blocked {
    fn from(denied: Denied) -> Blocked {
        Blocked::Refused(denied.into_refusal(), None)
    }
}

impl Shard {
    /// Where a publish goes, if it may and if every ring that it needs has room (INVARIANTS 13).
    pub(super) fn publish_target(
        &mut self,
        now: Now,
        slot: u32,
        name: &str,
        event: &str,
        data: &str,
    ) -> Result<Target, Blocked> {
        let resolved = self.resolved(slot, name);
        let pipe = match resolved {
            Some((pipe, _)) if self.is_free(pipe) && self.remembers(slot, resolved, Surface::Publish) => Some(pipe),
            _ => self.allowed_target(now, slot, name, resolved.map(|(pipe, _)| pipe), (event, data))?,
        };
        let Some(local) = pipe.and_then(|pipe| self.pipes.get(pipe)) else {
            // Nobody is subscribed, on any worker: there is nothing to deliver and nothing to remember.
            self.examine(now, slot, name, event, data)?;
            return Ok(Target::Nobody);
        };
        let others = local.global.interest() & !(1 << self.worker);
        let full = if others == 0 { 0 } else { self.port.full(others) };
        if full != 0 {
            return Err(Blocked::Full(full));
        }
        if local.ruled.examines {
            self.examine(now, slot, name, event, data)?;
        }
        Ok(pipe.map_or(Target::Nobody, |pipe| Target::Pipe { pipe, others }))
    }

    /// Whether the definition asks nothing of a publish but the right.
    pub(super) fn is_free(&self, pipe: PipeId) -> bool {
        self.pipes.get(pipe).is_some_and(|local| !local.ruled.examines)
    }

    /// Judges a publish and remembers what may be. None: no worker knows the pipe.
    fn allowed_target(
        &mut self,
        now: Now,
        slot: u32,
        name: &str,
        resolved: Option<PipeId>,
        event: (&str, &str),
    ) -> Result<Option<PipeId>, Blocked> {
        let number = self.own_event(name, event.0);
        if let Some(pipe) = resolved
            && self.remembers_publish(slot, name, pipe, event.0, number)
        {
            return Ok(resolved);
        }
        let about = About { event: Some(event), ..About::default() };
        let lasting = self.judge_pipe(now, slot, name, Surface::Publish, about)?;
        let pipe = match resolved {
            Some(pipe) => pipe,
            None if !self.pipes.exists_anywhere(name) => return Ok(None),
            None => self.remember(slot, name)?.0,
        };
        match number {
            Some(number) if lasting => {
                if let Some(open) = self.open_mut(slot) {
                    *open.rare_mut().publishable.entry(pipe).or_default() |= 1 << number;
                }
            }
            Some(_) => {}
            None => self.note_right(slot, pipe, Surface::Publish, lasting),
        }
        Ok(Some(pipe))
    }

    /// Whether this publish was allowed before and still is: by the event's own rule, or the pipe's.
    fn remembers_publish(&self, slot: u32, name: &str, pipe: PipeId, event: &str, number: Option<usize>) -> bool {
        let State::Open(open) = &self.slots[slot as usize].state else { return false };
        if let Some(number) = number {
            let mask = open.rare.as_ref().and_then(|rare| rare.publishable.get(&pipe)).copied().unwrap_or_default();
            return mask >> number & 1 == 1;
        }
        let index = open.grants.index_of(pipe).map(|index| (pipe, index));
        // An event that is not defined in a closed definition needs an explicit grant (A13).
        let defined = self
            .settings
            .config
            .rules
            .pipe(name)
            .is_none_or(|(_, definition, _)| definition.events.is_empty() || definition.event(event).is_some());
        self.remembers(slot, index, Surface::Publish)
            && (defined || open.explicit.rights(name).contains(Rights::PUBLISH))
    }

    /// The number of an event that has a publish rule of its own.
    fn own_event(&self, name: &str, event: &str) -> Option<usize> {
        let (_, definition, _) = self.settings.config.rules.pipe(name)?;
        definition.event(event).filter(|number| definition.events[*number].publish.is_some())
    }

    /// The pipe's own rate, then the event's size, scope references and schema (F8).
    fn examine(&mut self, now: Now, slot: u32, name: &str, event: &str, data: &str) -> Result<(), Blocked> {
        let settings = self.settings.clone();
        let Some((_, definition, _)) = settings.config.rules.pipe(name) else { return Ok(()) };
        let Some(open) = self.open_mut(slot) else { return Err(Code::Internal.into()) };
        if let Some(rate) = definition.rate {
            let taken = open.rare_mut().take(Surface::Publish, name, rate, now.mono_ns);
            let limited = |wait_ns: u64| {
                Blocked::Refused(Box::new(Refusal::plain(Code::RateLimited)), Some(wait_ns.div_ceil(1_000_000)))
            };
            taken.map_err(limited)?;
        }
        let Some(number) = definition.event(event) else { return Ok(()) };
        let payload = &definition.events[number].payload;
        if payload.is_open() {
            return Ok(());
        }
        let publisher = Publisher::Client(open.identity.as_ref());
        payload.check(data, publisher, Code::Schema).map_err(|invalid| {
            let refusal = Refusal { message: invalid.message.into(), ..Refusal::plain(invalid.code) };
            Blocked::Refused(Box::new(refusal), None)
        })
    }

    pub(super) fn publish_event(&mut self, now: Now, slot: u32, target: Target, event: &str, data: &str, echo: bool) {
        self.counters.events_in += 1;
        let Target::Pipe { pipe, others } = target else { return };
        let Some(local) = self.pipes.get(pipe) else { return };
        let here = !local.subscribers.is_empty();
        if !here && others == 0 {
            return;
        }
        let global: Pipe = local.global.clone();
        let sender = match &self.slots[slot as usize].state {
            State::Open(open) => open.identity.as_ref().map(|identity| identity.id()),
            _ => return,
        };
        let sender = sender.map_or(Sender::Anonymous, Sender::User);
        let bytes = encode::event_frame(global.name(), event, data, sender, now.unix_ms);
        let skip = (!echo).then_some(slot);
        if others == 0 {
            self.deliver_local(pipe, bytes.into_boxed_slice(), skip);
            return;
        }
        let bytes: Arc<[u8]> = bytes.into();
        for worker in (0..64).filter(|worker| others >> worker & 1 == 1) {
            // Room was looked for before the publish was taken, and nobody else fills this ring.
            if self.port.push(worker, Parcel::Event { pipe: global.clone(), bytes: bytes.clone() }).is_ok() {
                self.counters.events_to_workers += 1;
            }
        }
        if here {
            self.deliver_shared(pipe, bytes, skip);
        }
    }
}
