//! `action`, `enqueue` and client-initiated `push`: what a client asks of the application, or of others.
//!
//! The order of the checks (RK-2): identity → rule → rate → schema; only then anything leaves. Each has exactly one reply,
//! when its call has come to its end; for a connection that is gone meanwhile there is nobody to tell.

use std::sync::Arc;

use super::Shard;
use super::asking::{item_of, named};
use super::command::{Person, Who};
use super::connection::State;
use super::input::Now;
use super::output::Output;
use super::rare::Flight;
use super::rights::{About, Denied};
use crate::protocol::codes::Code;
use crate::protocol::encode::{self, Sender, asks};
use crate::protocol::message::{Id, Request, Target};
use crate::rules::definition::Payload;
use crate::rules::judge::{Refusal, Surface};
use crate::rules::payload::Publisher;
use crate::shard::call::{Ask, Asker, EnqueueAsk, HttpAsk, Outcome, PushAsk, Refused};

impl Shard {
    /// `action`
    pub(super) fn action(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, name: &str, args: &str) {
        if !self.is_identified(now, slot, id) {
            return;
        }
        let rules = self.settings.config.rules.clone();
        let Some(action) = rules.action(name) else {
            return self.answer_error(now, slot, id, Code::UnknownAction, Code::UnknownAction.text());
        };
        let about = About { args: Some(args), ..About::default() };
        let context = match self.judge_item(now, slot, Surface::Action, name, about) {
            Ok(context) => context,
            Err(denied) => {
                return self.answer_refused(now, slot, id, &denied.into_refusal(), Some(name), None);
            }
        };
        if let Some(rate) = action.rate
            && let Some(open) = self.open_mut(slot)
            && let Err(wait_ns) = open.rare_mut().take(Surface::Action, name, rate, now.mono_ns)
        {
            let retry_after_ms = Some(wait_ns.div_ceil(1_000_000));
            let refusal = Refusal::plain(Code::RateLimited);
            return self.answer_refused(now, slot, id, &refusal, Some(name), retry_after_ms);
        }
        if let Err(refusal) = self.fits(slot, &action.payload, args, Code::Invalid) {
            return self.answer_refused(now, slot, id, &refusal, Some(name), None);
        }
        self.depart(now, slot, id, true, |asker| {
            let body = asks::action(name, args, asker, &context).into();
            Ask::Action(HttpAsk { endpoint: action.endpoint.clone(), body })
        });
    }

    /// `enqueue`
    pub(super) fn enqueue(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, name: &str, data: &str) {
        if !self.is_identified(now, slot, id) {
            return;
        }
        let rules = self.settings.config.rules.clone();
        let Some(queue) = rules.queue(name) else {
            // RK-7, F15
            self.outputs.push(Output::UnknownQueue(name.chars().take(100).collect()));
            return self.answer_refused(now, slot, id, &Refusal::plain(Code::Forbidden), None, None);
        };
        let about = About { args: Some(data), ..About::default() };
        if let Err(denied) = self.judge_item(now, slot, Surface::Enqueue, name, about) {
            return self.answer_refused(now, slot, id, &denied.into_refusal(), Some(name), None);
        }
        if let Err(refusal) = self.fits(slot, &queue.payload, data, Code::Schema) {
            return self.answer_refused(now, slot, id, &refusal, Some(name), None);
        }
        self.depart(now, slot, id, false, |asker| {
            Ask::Enqueue(Box::new(EnqueueAsk {
                queue: queue.name.clone(),
                data: data.into(),
                user: asks::user(asker.identity).into(),
                enqueued_at_ms: now.unix_ms,
            }))
        });
    }

    /// `push` by a client: only inside its own tenant (D14, C20).
    pub(super) fn client_push(
        &mut self,
        now: Now,
        slot: u32,
        id: Option<Id<'_>>,
        to: &Target<'_>,
        (event, data): (&str, &str),
    ) {
        if !self.is_identified(now, slot, id) {
            return;
        }
        let (kind, target) = named(to);
        let about = About { event: Some((event, data)), to: Some((kind, target)), ..About::default() };
        if let Err(denied) = self.judge_item(now, slot, Surface::Push, "", about) {
            return self.answer_refused(now, slot, id, &denied.into_refusal(), None, None);
        }
        let State::Open(open) = &self.slots[slot as usize].state else { return };
        let Some(identity) = &open.identity else { return };
        let tenant: Option<Arc<str>> = identity.tenant().map(Into::into);
        let whom: Arc<str> = target.into();
        let to = match kind {
            "user" => Who::User(Person { tenant: tenant.clone(), user: whom }),
            "connection" => Who::Connection(whom),
            "role" => Who::Role(whom, tenant.clone()),
            "tenant" => Who::Tenant(whom),
            _ => Who::Org(whom, tenant.clone()),
        };
        let bytes = encode::push_frame(event, data, Sender::User(identity.id()), now.unix_ms).into();
        self.depart(now, slot, id, false, |_| Ask::Push(Box::new(PushAsk { to, tenant, bytes })));
    }

    pub(super) fn judge_request(&self, now: Now, slot: u32, request: &Request<'_>) -> Result<String, Denied> {
        let (surface, item, about) = item_of(request);
        self.judge_item(now, slot, surface, item, about)
    }

    fn fits(&mut self, slot: u32, payload: &Payload, data: &str, schema_code: Code) -> Result<(), Refusal> {
        if payload.is_open() {
            return Ok(());
        }
        let identity = self.open_mut(slot).and_then(|open| open.identity.as_ref());
        let checked = payload.check(data, Publisher::Client(identity), schema_code);
        checked.map_err(|invalid| Refusal { message: invalid.message.into(), ..Refusal::plain(invalid.code) })
    }

    /// Sends out a call whose outcome is the reply, if one more may be under way (C37).
    fn depart(
        &mut self,
        now: Now,
        slot: u32,
        id: Option<Id<'_>>,
        awaits_application: bool,
        ask: impl FnOnce(&Asker<'_>) -> Ask,
    ) {
        let Some(open) = self.open_mut(slot) else { return };
        let rare = open.rare_mut();
        if !(if awaits_application { rare.free_calls() > 0 } else { rare.may_hand_over() }) {
            return self.answer_error(now, slot, id, Code::TooMany, Code::TooMany.text());
        }
        let Some(number) = self.call(slot, ask) else { return };
        if let Some(open) = self.open_mut(slot) {
            open.rare_mut().flights.push(Flight { number, id: id.map(|id| id.token().into()), awaits_application });
        }
    }

    /// The outcome of a call is there: the reply leaves.
    pub(super) fn landed(&mut self, now: Now, slot: u32, number: u32, outcome: Outcome) {
        let Some(rare) = self.open_mut(slot).and_then(|open| open.rare.as_mut()) else { return };
        let Some(place) = rare.flights.iter().position(|one| one.number == number) else {
            self.counters.stale += 1;
            return;
        };
        let flight = rare.flights.swap_remove(place);
        let id = flight.id.as_deref().and_then(Id::new);
        let sent = match outcome {
            Outcome::Acted(Ok(result)) => id.map(|id| encode::framed(|out| encode::reply_result(out, id, &result))),
            Outcome::Acted(Err(Refused { code, message, fault })) => {
                let refusal = Refusal { code: code.into_string().into(), message: message.into_string().into(), fault };
                return self.answer_refused(now, slot, id, &refusal, None, None);
            }
            Outcome::Enqueued(Ok(())) => id.map(|id| encode::framed(|out| encode::reply_ok(out, id))),
            Outcome::Pushed(Ok(0)) => {
                return self.answer_error(now, slot, id, Code::NotConnected, Code::NotConnected.text());
            }
            Outcome::Pushed(Ok(count)) => id.map(|id| encode::framed(|out| encode::reply_delivered(out, id, count))),
            Outcome::Enqueued(Err(code)) | Outcome::Pushed(Err(code)) => {
                return self.answer_error(now, slot, id, code, code.text());
            }
            Outcome::Authorized(_) | Outcome::Ruled(_) => None,
        };
        sent.into_iter().for_each(|reply| self.send(slot, reply));
    }
}
