//! What a client's message does: form → rates → rights → effect (F8), and at most one reply.
//!
//! A message that needs the application's word, or is about a pipe on which another one waits for it, is set aside
//! (`awaiting`) once its rates are taken, and goes through [`Shard::go_on`] later.

use super::Shard;
use super::attendance::Gathered;
use super::connection::{State, Until};
use super::input::Now;
use super::publishing::{Blocked, Target};
use super::subscribing::event_list;
use super::throttle::Kind;
use crate::protocol::codes::Code;
use crate::protocol::encode;
use crate::protocol::message::{self, Envelope, Id, Malformed, Request};
use crate::rules::judge::Refusal;

/// How reading goes on after a message.
pub(super) enum Flow {
    /// With the next one.
    Next,
    /// Not before this. `message`: this one again, else the bytes behind it.
    Wait { message: Option<String>, until: Until },
    /// Not at all.
    Closed,
}

/// What is still to be taken for a message; none where it was set aside before.
pub(super) struct Due {
    pub kind: Option<Kind>,
    pub bytes: usize,
}

impl Shard {
    /// Takes one text message.
    pub(super) fn message(&mut self, now: Now, slot: u32, text: &str) -> Flow {
        let parsed = message::parse(text);
        let kind = parsed.as_ref().ok().and_then(|envelope| Kind::of(&envelope.request));
        let id = id_of(&parsed);
        let bytes = self.uncharged_bytes(slot, text.len());
        if let Some(excess) = self.excess(now, slot, kind, bytes) {
            return self.over_rate(now, slot, id, Some(text), excess);
        }
        if let Ok(envelope) = &parsed
            && let Some(questions) = self.must_wait(now, slot, &envelope.request)
        {
            if let Some(excess) = self.take(now, slot, kind, bytes) {
                return self.over_rate(now, slot, id, Some(text), excess);
            }
            return self.set_aside(now, slot, envelope, text, questions);
        }
        self.go_on(now, slot, text, parsed, Some(Due { kind, bytes }))
    }

    /// Does what a message asks for, or says what it must wait for.
    pub(super) fn go_on(
        &mut self,
        now: Now,
        slot: u32,
        text: &str,
        parsed: Result<Envelope<'_>, Malformed<'_>>,
        due: Option<Due>,
    ) -> Flow {
        let id = id_of(&parsed);
        let target = match &parsed {
            Ok(Envelope { request: Request::Publish { pipe, event, data, .. }, .. }) => {
                match self.publish_target(now, slot, pipe, event, data) {
                    Ok(target) => Some(target),
                    Err(Blocked::Full(rings)) => {
                        self.counters.ring_full += 1;
                        return Flow::Wait { message: Some(text.to_owned()), until: Until::Room(rings) };
                    }
                    Err(Blocked::Refused(refusal, retry_after_ms)) => {
                        if let Some(excess) = due.and_then(|due| self.take(now, slot, due.kind, due.bytes)) {
                            return self.over_rate(now, slot, id, Some(text), excess);
                        }
                        self.answer_refused(now, slot, id, &refusal, Some(pipe), retry_after_ms);
                        return Flow::Next;
                    }
                }
            }
            _ => None,
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
        if let Some(excess) = due.and_then(|due| self.take(now, slot, due.kind, due.bytes)) {
            return self.over_rate(now, slot, id, Some(text), excess);
        }
        match parsed {
            Err(malformed) => {
                self.counters.malformed += 1;
                self.answer_error(now, slot, id, Code::Invalid, &malformed.error);
                Flow::Next
            }
            Ok(envelope) => self.perform(now, slot, id, envelope.request, target, rooms),
        }
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
            Request::Action { name, args } => self.action(now, slot, id, &name, args),
            Request::Enqueue { queue, data } => self.enqueue(now, slot, id, &queue, data),
            Request::Push { to, event, data } => self.client_push(now, slot, id, &to, (&event, data)),
            Request::Refresh { token } => return self.refresh(now, slot, id, token.as_deref()),
        }
        Flow::Next
    }

    // ---- replies -------------------------------------------------------------------------------------------------

    pub(super) fn answer_ok(&mut self, slot: u32, id: Option<Id<'_>>) {
        if let Some(id) = id {
            self.send(slot, encode::framed(|out| encode::reply_ok(out, id)));
        }
    }

    /// A refusal: counted, and told if there is an id to tell it under (HP-6).
    pub(super) fn answer_error(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, code: Code, error: &str) {
        self.note_denial(now, slot, code, None);
        if let Some(id) = id {
            self.send(slot, encode::framed(|out| encode::reply_error(out, id, code, error, None)));
        }
    }

    /// The same for a refusal by rules, about a pipe or another thing that the audit is told.
    pub(super) fn answer_refused(
        &mut self,
        now: Now,
        slot: u32,
        id: Option<Id<'_>>,
        refusal: &Refusal,
        item: Option<&str>,
        retry_after_ms: Option<u64>,
    ) {
        self.note_refusal(now, slot, refusal, item);
        if let Some(id) = id {
            let Refusal { code, message, .. } = refusal;
            let reply = encode::framed(|out| encode::reply_refused(out, id, code, message, retry_after_ms));
            self.send(slot, reply);
        }
    }

    pub(super) fn is_anonymous(&self, slot: u32) -> bool {
        matches!(&self.slots[slot as usize].state, State::Open(open) if open.is_anonymous())
    }

    /// Whether a verified user sends this; an anonymous one is told that it is nobody (B21).
    pub(super) fn is_identified(&mut self, now: Now, slot: u32, id: Option<Id<'_>>) -> bool {
        let identified = !self.is_anonymous(slot);
        if !identified {
            self.answer_error(now, slot, id, Code::Unauthenticated, Code::Unauthenticated.text());
        }
        identified
    }
}

fn id_of<'a>(parsed: &Result<Envelope<'a>, Malformed<'a>>) -> Option<Id<'a>> {
    match parsed {
        Ok(envelope) => envelope.id,
        Err(malformed) => malformed.id,
    }
}
