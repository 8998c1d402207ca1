//! What a client's message does: form → rate → name → right → effect (F8), and at most one reply.

use std::borrow::Cow;
use std::sync::Arc;

use super::Shard;
use super::attendance::Gathered;
use super::connection::{Open, State, Until};
use super::delivery::Parcel;
use super::grants::GrantIndex;
use super::input::Now;
use super::pipes::{EventNames, PipeId};
use super::throttle::{Excess, Kind, Share, Verdict};
use crate::auth::decision::{Identity, Rights};
use crate::mesh::registry::Pipe;
use crate::protocol::codes::{CloseCode, Code};
use crate::protocol::encode::{self, BatchReply, Sender};
use crate::protocol::message::{self, Id, Pipes, Request};

/// How reading goes on after a message.
pub(super) enum Flow {
    /// With the next one.
    Next,
    /// Not before this. `message`: this one again, else the bytes behind it.
    Wait { message: Option<String>, until: Until },
    /// Not at all.
    Closed,
}

type Names<'a> = Option<Vec<Cow<'a, str>>>;

impl Shard {
    /// Takes one text message.
    pub(super) fn message(&mut self, now: Now, slot: u32, text: &str) -> Flow {
        let parsed = message::parse(text);
        let kind = parsed.as_ref().ok().and_then(|envelope| Kind::of(&envelope.request));
        let id = match &parsed {
            Ok(envelope) => envelope.id,
            Err(malformed) => malformed.id,
        };
        let cost_bytes = self.uncharged_bytes(slot, text.len());
        if let Some(excess) = self.excess(now, slot, kind, cost_bytes) {
            return self.over_rate(now, slot, id, Some(text), excess);
        }
        let target = match &parsed {
            Ok(envelope) => match &envelope.request {
                Request::Publish { pipe, .. } => match self.publish_target(now, slot, pipe) {
                    Ok(target) => Some(target),
                    Err(Blocked::Full(rings)) => {
                        self.counters.ring_full += 1;
                        return Flow::Wait { message: Some(text.to_owned()), until: Until::Room(rings) };
                    }
                    Err(Blocked::Refused(code)) => {
                        if let Some(excess) = self.take(now, slot, kind, cost_bytes) {
                            return self.over_rate(now, slot, id, Some(text), excess);
                        }
                        self.answer_denied(now, slot, id, code, pipe);
                        return Flow::Next;
                    }
                },
                _ => None,
            },
            Err(_) => None,
        };
        let rooms = match &parsed {
            Ok(envelope) => match self.gather_rooms(now, slot, &envelope.request) {
                Ok(rooms) => rooms,
                Err(until) => {
                    self.counters.presence_waits += 1;
                    return Flow::Wait { message: Some(text.to_owned()), until };
                }
            },
            Err(_) => Gathered::new(),
        };
        if let Some(excess) = self.take(now, slot, kind, cost_bytes) {
            return self.over_rate(now, slot, id, Some(text), excess);
        }
        match parsed {
            Err(malformed) => {
                self.counters.malformed += 1;
                self.answer_error(now, slot, id, Code::Invalid, &malformed.error);
            }
            Ok(envelope) => return self.perform(now, slot, id, envelope.request, target, rooms),
        }
        Flow::Next
    }

    /// The bytes of a message that were not charged while it was incomplete.
    fn uncharged_bytes(&mut self, slot: u32, bytes: usize) -> usize {
        self.open_mut(slot).map_or(bytes, |open| bytes.saturating_sub(open.charged_bytes))
    }

    /// Counts a control frame, which was served already, against the rates of messages and bytes.
    pub(super) fn control(&mut self, now: Now, slot: u32, bytes: usize) -> Flow {
        match self.excess(now, slot, None, bytes).or_else(|| self.take(now, slot, None, bytes)) {
            None => Flow::Next,
            Some(excess) => {
                self.owe(now, slot, bytes);
                self.over_rate(now, slot, None, None, excess)
            }
        }
    }

    /// Charges what was done already, conforming or not.
    fn owe(&mut self, now: Now, slot: u32, bytes: usize) {
        let settings = self.settings.clone();
        let Some(open) = self.open_mut(slot) else { return };
        for (kind, cost) in costs(None, bytes) {
            if let Some(pace) = settings.paces.of(kind) {
                open.buckets[kind as usize].owe(pace, now.mono_ns, cost);
            }
        }
    }

    /// Charges bytes of a message that is not complete yet, and says how long to wait before more is read, where they
    /// are too many: fragments without end are not free.
    pub(super) fn charge_unfinished(&mut self, now: Now, slot: u32, bytes: usize) -> Option<Until> {
        let pace = self.settings.paces.of(Kind::Bytes)?;
        let open = self.open_mut(slot)?;
        let bucket = &mut open.buckets[Kind::Bytes as usize];
        let wait_ns = bucket.wait_ns(pace, now.mono_ns, bytes as u64);
        bucket.owe(pace, now.mono_ns, bytes as u64);
        open.charged_bytes += bytes;
        (wait_ns > 0).then(|| Until::Time(now.mono_ns + wait_ns.min(1_000_000_000)))
    }

    fn perform(
        &mut self,
        now: Now,
        slot: u32,
        id: Option<Id<'_>>,
        request: Request<'_>,
        target: Option<Target>,
        rooms: Gathered,
    ) -> Flow {
        match request {
            Request::Publish { event, data, echo, .. } => {
                if let Some(target) = target {
                    self.publish_event(now, slot, target, &event, data, echo);
                }
                self.answer_ok(slot, id);
            }
            Request::Subscribe { pipes, presence, events } => {
                let events = event_list(events);
                if presence {
                    self.subscribe_watching(now, slot, id, &pipes, events.as_ref(), rooms);
                } else {
                    let events = events.as_ref();
                    self.each(now, slot, id, &pipes, |shard, pipe| {
                        shard.subscribe_one(now, slot, pipe, false, events).map(drop)
                    });
                }
            }
            Request::Unsubscribe { pipes } => {
                self.each(now, slot, id, &pipes, |shard, pipe| shard.unsubscribe_one(slot, pipe));
            }
            Request::Ping => {
                let pong = encode::framed(|out| encode::pong(out, id));
                self.send(slot, pong);
            }
            Request::Presence { pipe } => self.presence(now, slot, id, &pipe, rooms.into_iter().flatten().next()),
            // No definition of this version opens these, so nothing allows them.
            Request::Action { .. } => self.answer_identified(now, slot, id, Code::UnknownAction),
            Request::Enqueue { .. } | Request::Push { .. } => self.answer_identified(now, slot, id, Code::Forbidden),
            Request::Refresh { token: None } => {
                self.answer_error(now, slot, id, Code::Invalid, "There is no webhook to ask: send a newer token");
            }
            Request::Refresh { token: Some(token) } => return self.refresh(now, slot, id, &token),
        }
        Flow::Next
    }

    // ---- subscribe, unsubscribe ----------------------------------------------------------------------------------

    /// Subscribes to one pipe, or replaces what is wanted of it (C11). `presence`: the right to see who is there is
    /// needed as well, and without it nothing is done (C8).
    pub(super) fn subscribe_one(
        &mut self,
        now: Now,
        slot: u32,
        name: &str,
        presence: bool,
        events: Option<&EventNames>,
    ) -> Result<PipeId, Code> {
        let most = self.settings.config.limits.subscriptions;
        let resolved = self.resolved(slot, name);
        let rights = self.rights_on(now, slot, name)?;
        let needed = Rights::SUBSCRIBE.union(Rights::when(presence, Rights::PRESENCE));
        if !rights.contains(needed) {
            return Err(Code::Forbidden);
        }
        let Some(open) = self.open_mut(slot) else { return Err(Code::Internal) };
        if let Some((pipe, index)) = resolved
            && open.grants.is_subscribed(index)
        {
            let position = open.grants.position(index);
            self.pipes.refilter(pipe, position, events);
            if !presence {
                self.stop_watching(slot, pipe);
            }
            return Ok(pipe);
        }
        if open.grants.subscriptions() >= most {
            return Err(Code::TooMany);
        }
        let (pipe, index) = match resolved {
            Some(resolved) => resolved,
            None => self.remember(slot, name, rights)?,
        };
        let subscribed = self.pipes.subscribe(pipe, slot, events);
        if let Some(open) = self.open_mut(slot) {
            open.grants.subscribe(index, subscribed.position);
        }
        self.entered(now, slot, pipe, subscribed.watched);
        Ok(pipe)
    }

    fn unsubscribe_one(&mut self, slot: u32, name: &str) -> Result<(), Code> {
        let (pipe, index) = self.resolved(slot, name).ok_or(Code::NotSubscribed)?;
        let Some(open) = self.open_mut(slot) else { return Err(Code::Internal) };
        if !open.grants.is_subscribed(index) {
            return Err(Code::NotSubscribed);
        }
        self.end_subscription(slot, pipe);
        if let Some(forgotten) = self.open_mut(slot).and_then(|open| open.grants.forget_surplus()) {
            self.pipes.release(forgotten);
        }
        Ok(())
    }

    /// Ends a subscription, if there is one; the decision about the pipe stays remembered.
    pub(super) fn end_subscription(&mut self, slot: u32, pipe: PipeId) -> bool {
        let Some(open) = self.open_mut(slot) else { return false };
        let Some(index) = open.grants.index_of(pipe).filter(|index| open.grants.is_subscribed(*index)) else {
            return false;
        };
        let position = open.grants.unsubscribe(index);
        self.leave_list(slot, pipe, position);
        if let State::Open(open) = &self.slots[slot as usize].state {
            self.attendance.leave(self.worker, &self.pipes, pipe, slot, open.identity.as_deref());
        }
        true
    }

    /// Takes a connection out of a pipe's list, and tells the one that took its place.
    pub(super) fn leave_list(&mut self, slot: u32, pipe: PipeId, position: u32) {
        if let Some(moved) = self.pipes.unsubscribe(pipe, position)
            && moved != slot
            && let Some(open) = self.open_mut(moved)
        {
            open.grants.moved(pipe, position);
        }
    }

    /// Does something for each pipe of a message and replies once: for one pipe with its outcome, for many with all.
    fn each(
        &mut self,
        now: Now,
        slot: u32,
        id: Option<Id<'_>>,
        pipes: &Pipes<'_>,
        mut act: impl FnMut(&mut Shard, &str) -> Result<(), Code>,
    ) {
        match pipes {
            Pipes::One(pipe) => match act(self, pipe) {
                Ok(()) => self.answer_ok(slot, id),
                Err(code) => self.answer_denied(now, slot, id, code, pipe),
            },
            Pipes::Many(pipes) => {
                let outcomes: Vec<Result<(), Code>> = pipes.iter().map(|pipe| act(self, pipe)).collect();
                for code in outcomes.iter().filter_map(|outcome| outcome.err()) {
                    self.note_denial(now, slot, code, None);
                }
                let Some(id) = id else { return };
                let reply = encode::framed(|out| {
                    let mut batch = BatchReply::begin(out, id);
                    for (pipe, outcome) in pipes.iter().zip(outcomes) {
                        match outcome {
                            Ok(()) => batch.ok(pipe),
                            Err(code) => batch.error(pipe, code, code.text(), None),
                        }
                    }
                    batch.end();
                });
                self.send(slot, reply);
            }
        }
    }

    // ---- publish -------------------------------------------------------------------------------------------------

    /// Where a publish goes, if it may and if every ring that it needs has room (INVARIANTS 13).
    fn publish_target(&mut self, now: Now, slot: u32, name: &str) -> Result<Target, Blocked> {
        let resolved = match self.resolved(slot, name) {
            Some((pipe, index)) => {
                let may = self.open_mut(slot).is_some_and(|open| open.grants.may(index, Rights::PUBLISH));
                if !may {
                    return Err(Blocked::Refused(Code::Forbidden));
                }
                pipe
            }
            None => {
                let rights = self.decide(now, slot, name).map_err(Blocked::Refused)?;
                if !rights.contains(Rights::PUBLISH) {
                    return Err(Blocked::Refused(Code::Forbidden));
                }
                if !self.pipes.exists_anywhere(name) {
                    // Nobody is subscribed, on any worker: there is nothing to do and nothing to remember.
                    return Ok(Target::Nobody);
                }
                self.remember(slot, name, rights).map_err(Blocked::Refused)?.0
            }
        };
        let Some(local) = self.pipes.get(resolved) else { return Err(Blocked::Refused(Code::Internal)) };
        let others = local.global.interest() & !(1 << self.worker);
        let full = if others == 0 { 0 } else { self.port.full(others) };
        if full != 0 {
            return Err(Blocked::Full(full));
        }
        Ok(Target::Pipe { pipe: resolved, others })
    }

    fn publish_event(&mut self, now: Now, slot: u32, target: Target, event: &str, data: &str, echo: bool) {
        self.counters.events_in += 1;
        let Target::Pipe { pipe, others } = target else { return };
        let Some(local) = self.pipes.get(pipe) else { return };
        let here = !local.subscribers.is_empty();
        if !here && others == 0 {
            return;
        }
        let global: Pipe = local.global.clone();
        let sender = match &self.slots[slot as usize].state {
            super::connection::State::Open(open) => open.identity.as_ref().map(|identity| &*identity.id),
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

    // ---- rights --------------------------------------------------------------------------------------------------

    /// The pipe and its index, if the connection has resolved this name.
    fn resolved(&self, slot: u32, name: &str) -> Option<(PipeId, GrantIndex)> {
        let super::connection::State::Open(open) = &self.slots[slot as usize].state else { return None };
        let pipe = self.pipes.find(name)?;
        Some((pipe, open.grants.index_of(pipe)?))
    }

    /// What the connection may do on a pipe, from what is remembered or else decided now.
    ///
    /// # Errors
    /// As [`Shard::decide`].
    pub(super) fn rights_on(&self, now: Now, slot: u32, name: &str) -> Result<Rights, Code> {
        match (self.resolved(slot, name), &self.slots[slot as usize].state) {
            (Some((_, index)), State::Open(open)) => Ok(open.grants.rights(index)),
            _ => self.decide(now, slot, name),
        }
    }

    /// What the connection may do on a pipe: what was granted to it, and what the first matching definition allows, but
    /// for what is revoked. Nothing else allows anything.
    ///
    /// # Errors
    /// `REVOKED`, whatever the grants say (A4).
    pub(super) fn decide(&self, now: Now, slot: u32, name: &str) -> Result<Rights, Code> {
        let super::connection::State::Open(open) = &self.slots[slot as usize].state else { return Ok(Rights::NONE) };
        if open.revocation_of(now.unix_ms, name).is_some() {
            return Err(Code::Revoked);
        }
        Ok(self.granted(open, name))
    }

    fn granted(&self, open: &Open, name: &str) -> Rights {
        let granted = open.explicit.rights(name);
        let definitions = &self.settings.config.pipes;
        let matching = definitions.iter().find_map(|one| one.name.matches(name).map(|matched| (one, matched)));
        let Some((definition, matched)) = matching else { return granted };
        let own = match &open.identity {
            Some(identity) => matched.own(identity),
            None => matched.own(&Identity::default()),
        };
        if !own {
            return granted;
        }
        granted
            .union(Rights::when(definition.subscribe, Rights::SUBSCRIBE))
            .union(Rights::when(definition.publish, Rights::PUBLISH))
            .union(Rights::when(definition.presence, Rights::PRESENCE))
    }

    /// Gives the pipe an index in the connection's table.
    fn remember(&mut self, slot: u32, name: &str, rights: Rights) -> Result<(PipeId, GrantIndex), Code> {
        let pipe = self.pipes.hold(name)?;
        let Some(open) = self.open_mut(slot) else {
            self.pipes.release(pipe);
            return Err(Code::Internal);
        };
        let (index, forgotten) = open.grants.resolve(pipe, rights);
        if let Some(forgotten) = forgotten {
            self.pipes.release(forgotten);
        }
        Ok((pipe, index))
    }

    // ---- rates ---------------------------------------------------------------------------------------------------

    /// The rate that this message is over, if any: the one that it would have to wait longest for. Takes nothing.
    fn excess(&self, now: Now, slot: u32, kind: Option<Kind>, bytes: usize) -> Option<Excess> {
        let super::connection::State::Open(open) = &self.slots[slot as usize].state else { return None };
        let settings = &self.settings;
        let mut worst: Option<Excess> = None;
        let mut consider = |excess: Excess| {
            if excess.wait_ns > worst.map_or(0, |worst| worst.wait_ns) {
                worst = Some(excess);
            }
        };
        for (kind, cost) in costs(kind, bytes) {
            if let Some(pace) = settings.paces.of(kind) {
                let wait_ns = open.buckets[kind as usize].wait_ns(pace, now.mono_ns, cost);
                consider(Excess { wait_ns, interval_ns: pace.interval_ns(), share: None });
            }
            if let (Some(pace), Some(person)) = (settings.summed.of(kind), open.seats.person())
                && let Some(bucket) = person.bucket(kind as usize)
            {
                let wait_ns = bucket.wait_ns(pace, now.mono_ns, cost);
                let share = Some(Share { kind, pace: pace.shared_by(person.connections()), cost });
                consider(Excess { wait_ns, interval_ns: pace.interval_ns(), share });
            }
        }
        worst
    }

    /// Takes what the message costs. Another worker may have emptied a summed bucket since it was looked at.
    fn take(&mut self, now: Now, slot: u32, kind: Option<Kind>, bytes: usize) -> Option<Excess> {
        let settings = &self.settings;
        let super::connection::State::Open(open) = &mut self.slots[slot as usize].state else { return None };
        for (kind, cost) in costs(kind, bytes) {
            if let (Some(pace), Some(person)) = (settings.summed.of(kind), open.seats.person())
                && let Some(bucket) = person.bucket(kind as usize)
                && let Err(wait_ns) = bucket.take(pace, now.mono_ns, cost)
            {
                let share = Some(Share { kind, pace: pace.shared_by(person.connections()), cost });
                return Some(Excess { wait_ns, interval_ns: pace.interval_ns(), share });
            }
        }
        for (kind, cost) in costs(kind, bytes) {
            if let Some(pace) = settings.paces.of(kind) {
                open.buckets[kind as usize].take(pace, now.mono_ns, cost);
            }
            if let (Some(throttle), Some(pace), Some(person)) =
                (&mut open.throttle, settings.summed.of(kind), open.seats.person())
            {
                // What it gets through counts towards its share, like what it is refused.
                throttle.charge(now.mono_ns, Share { kind, pace: pace.shared_by(person.connections()), cost });
            }
        }
        if kind.is_some() {
            open.charged_bytes = 0;
        }
        self.counters.messages_in += 1;
        self.counters.message_bytes_in += bytes as u64;
        None
    }

    #[cold]
    fn over_rate(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, text: Option<&str>, excess: Excess) -> Flow {
        let throttle_s = self.settings.config.limits.throttle_s;
        let Some(open) = self.open_mut(slot) else { return Flow::Closed };
        let verdict = open.throttle.get_or_insert_default().judge(now.mono_ns, excess, throttle_s);
        let retry_after_ms = excess.wait_ns.div_ceil(1_000_000);
        match verdict {
            Verdict::Hold(until_ns) => {
                self.counters.slowed += 1;
                Flow::Wait { message: text.map(str::to_owned), until: Until::Time(until_ns) }
            }
            Verdict::Refuse { resume_ns, tell } => {
                self.note_denial(now, slot, Code::RateLimited, None);
                if let Some(id) = id {
                    let (code, text) = (Code::RateLimited, Code::RateLimited.text());
                    self.send(
                        slot,
                        encode::framed(|out| encode::reply_error(out, id, code, text, Some(retry_after_ms))),
                    );
                }
                if tell {
                    self.tell_throttled(slot, retry_after_ms);
                }
                Flow::Wait { message: None, until: Until::Time(resume_ns) }
            }
            Verdict::Close => {
                self.note_denial(now, slot, Code::RateLimited, None);
                // At least a second: whoever comes back sooner comes back with full buckets.
                let reason = format!("retry_after_ms={}", retry_after_ms.max(1_000));
                self.begin_close(now, slot, CloseCode::OverRate, &reason, false);
                Flow::Closed
            }
        }
    }

    // ---- replies -------------------------------------------------------------------------------------------------

    fn answer_ok(&mut self, slot: u32, id: Option<Id<'_>>) {
        if let Some(id) = id {
            self.send(slot, encode::framed(|out| encode::reply_ok(out, id)));
        }
    }

    /// A refusal: counted, and told if there is an id to tell it under (HP-6).
    pub(super) fn answer_error(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, code: Code, error: &str) {
        self.note_denial(now, slot, code, None);
        self.reply_error(slot, id, code, error);
    }

    fn reply_error(&mut self, slot: u32, id: Option<Id<'_>>, code: Code, error: &str) {
        if let Some(id) = id {
            self.send(slot, encode::framed(|out| encode::reply_error(out, id, code, error, None)));
        }
    }

    /// A refusal about a pipe, which the audit is told.
    fn answer_denied(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, code: Code, pipe: &str) {
        self.note_denial(now, slot, code, Some(pipe));
        self.reply_error(slot, id, code, code.text());
    }

    /// The same where an anonymous connection is told that it is nobody (B21).
    fn answer_identified(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, code: Code) {
        let anonymous = self.open_mut(slot).is_none_or(|open| open.identity.is_none());
        let code = if anonymous { Code::Unauthenticated } else { code };
        self.answer_error(now, slot, id, code, code.text());
    }
}

/// Where a publish goes.
enum Target {
    /// Nobody is subscribed anywhere.
    Nobody,
    /// To this pipe, and to these other workers.
    Pipe { pipe: PipeId, others: u64 },
}

/// Why a publish was not taken.
enum Blocked {
    /// These rings are full: later.
    Full(u64),
    /// Not allowed.
    Refused(Code),
}

/// The names that a subscribe gave, in the form in which they are kept.
fn event_list(names: Names<'_>) -> Option<EventNames> {
    let mut names: Vec<Box<str>> = names?.iter().map(|name| Box::from(&**name)).collect();
    names.sort();
    names.dedup();
    Some(names.into())
}

fn costs(kind: Option<Kind>, bytes: usize) -> impl Iterator<Item = (Kind, u64)> {
    [Some((Kind::Message, 1)), Some((Kind::Bytes, bytes as u64)), kind.map(|kind| (kind, 1))].into_iter().flatten()
}
