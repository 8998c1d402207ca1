//! What a client's message does: form → rate → name → right → effect (F8), and at most one reply.

use std::borrow::Cow;
use std::sync::Arc;

use super::Shard;
use super::connection::Until;
use super::delivery::Parcel;
use super::grants::GrantIndex;
use super::input::Now;
use super::pipes::PipeId;
use super::throttle::{Excess, Kind, Verdict};
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
        if let Some(excess) = self.excess(now, slot, kind, text.len()) {
            return self.over_rate(now, slot, id, Some(text), excess);
        }
        let target = match &parsed {
            Ok(envelope) => match &envelope.request {
                Request::Publish { pipe, .. } => match self.publish_target(slot, pipe) {
                    Ok(target) => Some(target),
                    Err(Blocked::Full(rings)) => {
                        self.counters.ring_full += 1;
                        return Flow::Wait { message: Some(text.to_owned()), until: Until::Room(rings) };
                    }
                    Err(Blocked::Refused(code)) => {
                        if let Some(excess) = self.take(now, slot, kind, text.len()) {
                            return self.over_rate(now, slot, id, Some(text), excess);
                        }
                        self.answer_error(slot, id, code, code.text());
                        return Flow::Next;
                    }
                },
                _ => None,
            },
            Err(_) => None,
        };
        if let Some(excess) = self.take(now, slot, kind, text.len()) {
            return self.over_rate(now, slot, id, Some(text), excess);
        }
        match parsed {
            Err(malformed) => {
                self.counters.malformed += 1;
                self.answer_error(slot, id, Code::Invalid, &malformed.error);
            }
            Ok(envelope) => self.perform(now, slot, id, envelope.request, target),
        }
        Flow::Next
    }

    /// Counts a control frame, which was served already, against the rates of messages and bytes.
    pub(super) fn control(&mut self, now: Now, slot: u32, bytes: usize) -> Flow {
        match self.excess(now, slot, None, bytes).or_else(|| self.take(now, slot, None, bytes)) {
            None => Flow::Next,
            Some(excess) => self.over_rate(now, slot, None, None, excess),
        }
    }

    fn perform(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, request: Request<'_>, target: Option<Target>) {
        match request {
            Request::Publish { event, data, echo, .. } => {
                if let Some(target) = target {
                    self.publish_event(now, slot, target, &event, data, echo);
                }
                self.answer_ok(slot, id);
            }
            Request::Subscribe { pipes, presence, events } => self.subscribe(slot, id, &pipes, presence, events),
            Request::Unsubscribe { pipes } => {
                self.each(slot, id, &pipes, |shard, pipe| shard.unsubscribe_one(slot, pipe));
            }
            Request::Ping => {
                let pong = encode::framed(|out| encode::pong(out, id));
                self.send(slot, pong);
            }
            // No definition of this version opens these, so nothing allows them.
            Request::Presence { .. } => self.answer_error(slot, id, Code::Forbidden, Code::Forbidden.text()),
            Request::Action { .. } => self.answer_identified(slot, id, Code::UnknownAction),
            Request::Enqueue { .. } | Request::Push { .. } => self.answer_identified(slot, id, Code::Forbidden),
            Request::Refresh { token: None } => {
                self.answer_error(slot, id, Code::Invalid, "There is no webhook to ask: send a newer token");
            }
            Request::Refresh { token: Some(_) } => {
                self.answer_error(
                    slot,
                    id,
                    Code::Unavailable,
                    "Refresh is not available: connect again with the token",
                );
            }
        }
    }

    // ---- subscribe, unsubscribe ----------------------------------------------------------------------------------

    fn subscribe(&mut self, slot: u32, id: Option<Id<'_>>, pipes: &Pipes<'_>, presence: bool, events: Names<'_>) {
        let events: Option<Vec<Box<str>>> = events.map(|names| {
            let mut names: Vec<Box<str>> = names.iter().map(|name| Box::from(&**name)).collect();
            names.sort();
            names.dedup();
            names
        });
        self.each(slot, id, pipes, |shard, pipe| shard.subscribe_one(slot, pipe, presence, events.as_deref()));
    }

    fn subscribe_one(
        &mut self,
        slot: u32,
        name: &str,
        presence: bool,
        events: Option<&[Box<str>]>,
    ) -> Result<(), Code> {
        if presence {
            // C8: the right to presence is not given by anything yet, so nothing of the subscribe is done.
            return Err(Code::Forbidden);
        }
        let most = self.shared.settings.config.limits.subscriptions;
        let resolved = self.resolved(slot, name);
        let rights = if resolved.is_none() { self.decide(slot, name) } else { Rights::NONE };
        let Some(open) = self.open_mut(slot) else { return Err(Code::Internal) };
        let may = resolved.map_or(rights.contains(Rights::SUBSCRIBE), |(_, at)| open.grants.may(at, Rights::SUBSCRIBE));
        if !may {
            return Err(Code::Forbidden);
        }
        if let Some((pipe, index)) = resolved
            && open.grants.is_subscribed(index)
        {
            let position = open.grants.position(index);
            self.pipes.refilter(pipe, position, events);
            return Ok(());
        }
        if open.grants.subscriptions() >= most {
            return Err(Code::TooMany);
        }
        let (pipe, index) = match resolved {
            Some(resolved) => resolved,
            None => self.remember(slot, name, rights)?,
        };
        let position = self.pipes.subscribe(pipe, slot, events);
        if let Some(open) = self.open_mut(slot) {
            open.grants.subscribe(index, position);
        }
        Ok(())
    }

    fn unsubscribe_one(&mut self, slot: u32, name: &str) -> Result<(), Code> {
        let (pipe, index) = self.resolved(slot, name).ok_or(Code::NotSubscribed)?;
        let Some(open) = self.open_mut(slot) else { return Err(Code::Internal) };
        if !open.grants.is_subscribed(index) {
            return Err(Code::NotSubscribed);
        }
        let position = open.grants.unsubscribe(index);
        let forgotten = open.grants.forget_surplus();
        self.leave_list(slot, pipe, position);
        if let Some(forgotten) = forgotten {
            self.pipes.release(forgotten);
        }
        Ok(())
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
        slot: u32,
        id: Option<Id<'_>>,
        pipes: &Pipes<'_>,
        mut act: impl FnMut(&mut Shard, &str) -> Result<(), Code>,
    ) {
        match pipes {
            Pipes::One(pipe) => match act(self, pipe) {
                Ok(()) => self.answer_ok(slot, id),
                Err(code) => self.answer_error(slot, id, code, code.text()),
            },
            Pipes::Many(pipes) => {
                let outcomes: Vec<Result<(), Code>> = pipes.iter().map(|pipe| act(self, pipe)).collect();
                for code in outcomes.iter().filter_map(|outcome| outcome.err()) {
                    self.counters.deny(code);
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
    fn publish_target(&mut self, slot: u32, name: &str) -> Result<Target, Blocked> {
        let resolved = match self.resolved(slot, name) {
            Some((pipe, index)) => {
                let may = self.open_mut(slot).is_some_and(|open| open.grants.may(index, Rights::PUBLISH));
                if !may {
                    return Err(Blocked::Refused(Code::Forbidden));
                }
                pipe
            }
            None => {
                let rights = self.decide(slot, name);
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
            return self.deliver_local(pipe, bytes.into_boxed_slice(), skip);
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

    /// What the connection may do on a pipe: what was granted to it, and what the first matching definition allows.
    /// Nothing else allows anything.
    fn decide(&self, slot: u32, name: &str) -> Rights {
        let super::connection::State::Open(open) = &self.slots[slot as usize].state else { return Rights::NONE };
        let granted = open.explicit.rights(name);
        let definitions = &self.shared.settings.config.pipes;
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
        let settings = &self.shared.settings;
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
                let share = Some(pace.shared_by(person.connections()));
                consider(Excess { wait_ns, interval_ns: pace.interval_ns(), share });
            }
        }
        worst
    }

    /// Takes what the message costs. Another worker may have emptied a summed bucket since it was looked at.
    fn take(&mut self, now: Now, slot: u32, kind: Option<Kind>, bytes: usize) -> Option<Excess> {
        let settings = &self.shared.settings;
        let super::connection::State::Open(open) = &mut self.slots[slot as usize].state else { return None };
        for (kind, cost) in costs(kind, bytes) {
            if let (Some(pace), Some(person)) = (settings.summed.of(kind), open.seats.person())
                && let Some(bucket) = person.bucket(kind as usize)
                && let Err(wait_ns) = bucket.take(pace, now.mono_ns, cost)
            {
                let share = Some(pace.shared_by(person.connections()));
                return Some(Excess { wait_ns, interval_ns: pace.interval_ns(), share });
            }
        }
        for (kind, cost) in costs(kind, bytes) {
            if let Some(pace) = settings.paces.of(kind) {
                open.buckets[kind as usize].take(pace, now.mono_ns, cost);
            }
        }
        self.counters.messages_in += 1;
        self.counters.message_bytes_in += bytes as u64;
        None
    }

    #[cold]
    fn over_rate(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, text: Option<&str>, excess: Excess) -> Flow {
        let throttle_s = self.shared.settings.config.limits.throttle_s;
        let Some(open) = self.open_mut(slot) else { return Flow::Closed };
        let verdict = open.throttle.get_or_insert_default().judge(now.mono_ns, excess, throttle_s);
        let retry_after_ms = excess.wait_ns.div_ceil(1_000_000);
        match verdict {
            Verdict::Hold(until_ns) => {
                self.counters.slowed += 1;
                Flow::Wait { message: text.map(str::to_owned), until: Until::Time(until_ns) }
            }
            Verdict::Refuse { resume_ns, tell } => {
                self.counters.deny(Code::RateLimited);
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
                self.counters.deny(Code::RateLimited);
                let reason = format!("retry_after_ms={retry_after_ms}");
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
    fn answer_error(&mut self, slot: u32, id: Option<Id<'_>>, code: Code, error: &str) {
        self.counters.deny(code);
        if let Some(id) = id {
            self.send(slot, encode::framed(|out| encode::reply_error(out, id, code, error, None)));
        }
    }

    /// The same where an anonymous connection is told that it is nobody (B21).
    fn answer_identified(&mut self, slot: u32, id: Option<Id<'_>>, code: Code) {
        let anonymous = self.open_mut(slot).is_none_or(|open| open.identity.is_none());
        let code = if anonymous { Code::Unauthenticated } else { code };
        self.answer_error(slot, id, code, code.text());
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

fn costs(kind: Option<Kind>, bytes: usize) -> impl Iterator<Item = (Kind, u64)> {
    [Some((Kind::Message, 1)), Some((Kind::Bytes, bytes as u64)), kind.map(|kind| (kind, 1))].into_iter().flatten()
}
