//! The authorize webhook, on connect and on refresh (PROTOCOL §1, GD-1, HP-7).
//!
//! A handshake that needs the application's word holds its seats, what it was asked with, and nothing else. Receiving is
//! stopped by whoever talks on before the answer is there; who does not is seen to go, and gives the seats back. What was decided by then is decided in the step that installs it: revocations are
//! looked up again, and an answer that was asked for before its user was revoked is asked for once more, also where that
//! revocation has ended since (INVARIANTS 7).
//!
//! How many are asked at once, and who waits in which order, is the control thread's (`control/application`).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::Shard;
use super::connection::{Authorizing, State};
use super::greeting::{Admitted, Asking};
use super::input::Now;
use super::output::Output;
use super::rare::{Origin, Refreshing};
use super::refresh::Source;
use crate::auth::decision::Decision;
use crate::bounds::{AUTHORIZE_SLACK_MS, EARLY_BYTES_MAX, HEAD_BYTES_MAX};
use crate::protocol::codes::{CloseCode, Code};
use crate::protocol::encode::asks;
use crate::protocol::frame;
use crate::protocol::handshake::{Head, Refusal, TokenSource, Upgrade};
use crate::protocol::message::Id;
use crate::shard::call::{Ask, Asker, AuthorizeAsk, Call, NotAuthorized};

type Answer = Result<Box<Decision>, NotAuthorized>;

impl Shard {
    /// Asks who somebody is.
    pub(super) fn authorize(&mut self, now: Now, slot: u32, asking: Asking, rest: Vec<u8>) {
        let State::Greeting(greeting) = &self.slots[slot as usize].state else { return };
        let peer = greeting.peer;
        let Asking { response, seats, ip, origin, .. } = asking;
        let timeout_ms = self.settings.config.auth.webhook.as_ref().map_or(0, |one| u64::from(one.endpoint.timeout_ms));
        // Once in the line and once after it, twice where it is asked again.
        let deadline_ms = now.ms() + 4 * timeout_ms + AUTHORIZE_SLACK_MS;
        let state =
            Authorizing { peer, ip, seats, response, origin, asked_ms: now.unix_ms, again: false, deadline_ms, rest };
        let talks_on = !state.rest.is_empty();
        self.slots[slot as usize].state = State::Authorizing(Box::new(state));
        self.greetings -= 1;
        self.authorizing += 1;
        if talks_on {
            self.outputs.push(Output::Pause(self.handle_of(slot)));
        }
        self.wake_at(slot, deadline_ms);
        self.ask_connect(now, slot, 1);
    }

    fn ask_connect(&mut self, now: Now, slot: u32, number: u32) {
        let (worker, connection) = (self.worker, self.handle_of(slot));
        let name = self.connection_name(connection);
        // Calls of the open connection are numbered from 1 as well, without the letter.
        let delivery = format!("{name}-c{number}");
        let State::Authorizing(one) = &mut self.slots[slot as usize].state else { return };
        one.asked_ms = now.unix_ms;
        let asker = Asker { identity: None, connection: &name, ip: one.ip, delivery: &delivery };
        let body = asks::authorize(false, &asker, &one.origin.headers, &one.origin.query).into();
        let ask = Ask::Authorize(Box::new(AuthorizeAsk { body, ip: one.ip, asked_ms: now.unix_ms }));
        self.counters.calls += 1;
        self.outputs.push(Output::Call(Box::new(Call { worker, connection, number, ask })));
    }

    /// The answer to a handshake or to a refresh.
    pub(super) fn authorized(&mut self, now: Now, slot: u32, number: u32, answer: Answer) {
        match &self.slots[slot as usize].state {
            State::Authorizing(_) => self.admit_authorized(now, slot, answer),
            State::Open(_) => self.refresh_authorized(now, slot, number, answer),
            _ => {}
        }
    }

    fn admit_authorized(&mut self, now: Now, slot: u32, answer: Answer) {
        let State::Authorizing(one) = &mut self.slots[slot as usize].state else { return };
        let (peer, asked_ms, again) = (one.peer, one.asked_ms, one.again);
        let decision = match answer {
            Ok(decision) => *decision,
            Err(why) => return self.refuse_authorized(now, slot, peer, why),
        };
        if !again && self.was_revoked_since(&decision, asked_ms) {
            if let State::Authorizing(one) = &mut self.slots[slot as usize].state {
                one.again = true;
            }
            return self.ask_connect(now, slot, 2);
        }
        if self.shared.is_draining() {
            let wait_s = self.jitter_s(now, peer, self.settings.config.edge.drain_s.max(2));
            let refusal = Refusal::new(Code::Draining, Code::Draining.text()).with_retry_after_s(wait_s);
            return self.refuse(now, slot, &refusal);
        }
        if decision.expires_at_ms.is_some_and(|at_ms| at_ms <= now.unix_ms) {
            // B18
            let refusal = Refusal::new(Code::Unauthenticated, "The session has expired");
            return self.refuse(now, slot, &refusal);
        }
        let State::Authorizing(one) = &mut self.slots[slot as usize].state else { return };
        let admitted = Admitted {
            response: std::mem::take(&mut one.response),
            decision: Some(decision),
            seats: std::mem::take(&mut one.seats),
            ip: one.ip,
            origin: Some(std::mem::take(&mut one.origin)),
            consumed: 0,
        };
        let mut rest = std::mem::take(&mut one.rest);
        match self.seat(now, peer, admitted) {
            Err(refusal) => self.refuse(now, slot, &refusal),
            Ok(admitted) => {
                self.welcome(now, slot, admitted);
                let handle = self.handle_of(slot);
                self.outputs.push(Output::Resume(handle));
                if !rest.is_empty() {
                    self.received(now, slot, &mut rest);
                }
            }
        }
    }

    fn refuse_authorized(&mut self, now: Now, slot: u32, peer: SocketAddr, why: NotAuthorized) {
        let overloaded = |shard: &Shard| {
            let wait_s = shard.jitter_s(now, peer, 10);
            Refusal::new(Code::Overloaded, "It could not be found out who you are; try again")
                .with_retry_after_s(wait_s)
        };
        let refusal = match why {
            NotAuthorized::Refused => Refusal::new(Code::Unauthenticated, "The application does not know you"),
            NotAuthorized::Forbidden => Refusal::new(Code::Forbidden, Code::Forbidden.text()),
            NotAuthorized::Overloaded => overloaded(self),
            fault => {
                self.record_authorize_fault(now, slot, told(&fault));
                overloaded(self)
            }
        };
        self.refuse(now, slot, &refusal);
    }

    /// No answer came at all: the control thread is in trouble.
    pub(super) fn authorizing_timed_out(&mut self, now: Now, slot: u32) {
        let State::Authorizing(one) = &self.slots[slot as usize].state else { return };
        let peer = one.peer;
        self.refuse_authorized(now, slot, peer, NotAuthorized::Late);
    }

    /// Bytes of somebody who is not known yet: the first ones stop receiving, further ones came before that took effect.
    /// One whole message may be among them (B26).
    pub(super) fn received_authorizing(&mut self, now: Now, slot: u32, bytes: &[u8]) {
        let most = self.settings.config.limits.message_bytes as usize + frame::HEADER_BYTES_MAX + EARLY_BYTES_MAX;
        let State::Authorizing(one) = &mut self.slots[slot as usize].state else { return };
        if one.rest.len() + bytes.len() > most {
            let refusal = Refusal::new(Code::PayloadTooLarge, "Too much was sent before the answer to the upgrade");
            return self.refuse(now, slot, &refusal);
        }
        let first = one.rest.is_empty() && !bytes.is_empty();
        one.rest.extend_from_slice(bytes);
        if first {
            self.outputs.push(Output::Pause(self.handle_of(slot)));
        }
    }

    // ---- refresh -------------------------------------------------------------------------------------------------

    /// Asks the webhook again for a connection that lives. `token`: one that is the application's, not ours (A3).
    pub(super) fn refresh_by_webhook(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, token: Option<&str>) {
        let Some(open) = self.open_mut(slot) else { return };
        let rare = open.rare_mut();
        if token.is_some_and(|token| token.len() > HEAD_BYTES_MAX) {
            // It could not have come with a handshake either (B16).
            return self.answer_error(now, slot, id, Code::Invalid, "The token is too long");
        }
        if let Some(token) = token {
            let origin = rare.origin.get_or_insert_default();
            let mut headers = std::mem::take(&mut origin.headers).into_vec();
            set_bearer(&mut headers, token);
            origin.headers = headers.into();
            // The older one does not stand beside it.
            let in_query = origin.query.iter_mut().filter(|(name, _)| **name == *"token");
            in_query.for_each(|(_, value)| *value = token.into());
        }
        let id = id.map(|id| id.token().into());
        self.ask_refresh(now, slot, Refreshing { number: 0, id, asked_ms: now.unix_ms, again: false });
    }

    fn ask_refresh(&mut self, now: Now, slot: u32, refreshing: Refreshing) {
        let Some(open) = self.open_mut(slot) else { return };
        let origin = open.rare.as_ref().and_then(|rare| rare.origin.clone()).unwrap_or_default();
        let ip = open.ip;
        let number = self.call(slot, |asker| {
            let body = asks::authorize(true, asker, &origin.headers, &origin.query).into();
            Ask::Authorize(Box::new(AuthorizeAsk { body, ip, asked_ms: now.unix_ms }))
        });
        if let (Some(number), Some(open)) = (number, self.open_mut(slot)) {
            open.rare_mut().refreshing = Some(Refreshing { number, asked_ms: now.unix_ms, ..refreshing });
        }
    }

    fn refresh_authorized(&mut self, now: Now, slot: u32, number: u32, answer: Answer) {
        let Some(rare) = self.open_mut(slot).and_then(|open| open.rare.as_mut()) else { return };
        let Some(refreshing) = rare.refreshing.take_if(|one| one.number == number) else { return };
        let id = refreshing.id.as_deref().and_then(Id::new);
        match answer {
            Ok(decision) => {
                if !refreshing.again && self.was_revoked_since(&decision, refreshing.asked_ms) {
                    return self.ask_refresh(now, slot, Refreshing { again: true, ..refreshing });
                }
                if decision.expires_at_ms.is_some_and(|at_ms| at_ms <= now.unix_ms) {
                    return self.begin_close(now, slot, CloseCode::Expired, CloseCode::Expired.reason(), false);
                }
                self.take_over(now, slot, id, *decision, Source::Webhook);
            }
            // C24
            Err(NotAuthorized::Refused) => {
                self.begin_close(now, slot, CloseCode::Expired, CloseCode::Expired.reason(), false);
            }
            Err(NotAuthorized::Forbidden) => {
                self.begin_close(now, slot, CloseCode::Forbidden, CloseCode::Forbidden.reason(), true);
            }
            Err(NotAuthorized::Overloaded) => {
                self.answer_error(now, slot, id, Code::Unavailable, Code::Unavailable.text());
            }
            Err(fault) => {
                self.record_authorize_fault(now, slot, told(&fault));
                let code = if fault == NotAuthorized::Late { Code::Timeout } else { Code::Unavailable };
                self.answer_error(now, slot, id, code, code.text());
            }
        }
    }

    fn was_revoked_since(&self, decision: &Decision, asked_ms: u64) -> bool {
        let identity = &decision.identity;
        self.shared.revocations.touched_since(identity.tenant(), identity.id(), asked_ms)
    }

    /// What of a handshake the webhook is given: the headers that it is configured to get, the query (B17). None: there is
    /// no webhook.
    pub(super) fn origin(&self, head: &Head<'_>, upgrade: &Upgrade<'_>) -> Option<Box<Origin>> {
        let auth = &self.settings.config.auth;
        let webhook = auth.webhook.as_ref()?;
        let mut headers: Vec<(Box<str>, Box<str>)> = Vec::new();
        for name in &webhook.forward_headers {
            let separator = if **name == *"cookie" { "; " } else { ", " };
            let values: Vec<&str> = head.values(name).collect();
            if !values.is_empty() {
                headers.push((name.clone(), values.join(separator).into()));
            }
        }
        if let (None, TokenSource::Subprotocol, Some(token)) = (&auth.token, upgrade.bearer_from, &upgrade.token) {
            set_bearer(&mut headers, token);
        }
        let ours = auth.token.is_some();
        // The first of a repeated name counts. Thousands of names fit into a head.
        let mut known = BTreeSet::new();
        let mut query: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (name, value) in head.query_pairs() {
            if ours && name == "token" {
                continue;
            }
            let kept = Box::<str>::from(&*name);
            if known.insert(name) {
                query.push((kept, value.into()));
            }
        }
        Some(Box::new(Origin { headers: headers.into(), query: query.into() }))
    }
}

/// A token of the application's own, however it came, is shown to the webhook as this header (A3).
fn set_bearer(headers: &mut Vec<(Box<str>, Box<str>)>, token: &str) {
    headers.retain(|(name, _)| **name != *"authorization");
    headers.push(("authorization".into(), format!("Bearer {token}").into()));
}

/// For the operator: nothing that a client sent.
fn told(fault: &NotAuthorized) -> String {
    match fault {
        NotAuthorized::Malformed(why) => format!("auth.webhook: the answer is malformed: {why}"),
        NotAuthorized::Unavailable(why) => format!("auth.webhook: {why}"),
        _ => "auth.webhook: it took too long".to_owned(),
    }
}
