//! Adopting a newer token without disconnecting (HP-7, C21–C27).
//!
//! The identity stays: another user, tenant or organisation ends the connection (GD-2). What the new token no longer
//! grants is taken away, subscriptions first; what stays granted is not disturbed. Everything is one step.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::Shard;
use super::connection::{Open, State, TokenIds};
use super::grants::Explicit;
use super::input::Now;
use super::pipes::PipeId;
use super::rare::{OwnLimits, Refreshed};
use super::requests::Flow;
use super::revocation::{Revocation, TokenFacts};
use super::rights::{About, Denied};
use crate::auth::decision::{Decision, Rights};
use crate::auth::identity::Identity;
use crate::auth::token::TokenError;
use crate::protocol::codes::{CloseCode, Code};
use crate::protocol::encode;
use crate::protocol::message::Id;
use crate::rules::judge::{Question, Surface};

/// What a second refresh is told to wait, milliseconds: how long the application takes is not known.
const REFRESH_AGAIN_MS: u64 = 1_000;

/// Where a refresh has its decision from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// A token of ours, which must not be older than this, Unix milliseconds.
    Token { least_issued_at_ms: i64 },
    /// The webhook: what it answers is as new as the question.
    Webhook,
}

/// What a live subscription comes to when it is decided again.
pub(super) enum Decided {
    /// The application must be asked for this right first.
    Asks(Surface, Box<Question>),
    /// As [`Shard::judge_pipe`] answers.
    Settled(Result<bool, Denied>),
}

impl Shard {
    /// `refresh`: with a token of ours, or by the webhook.
    pub(super) fn refresh(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, token: Option<&str>) -> Flow {
        let State::Open(open) = &self.slots[slot as usize].state else { return Flow::Closed };
        let webhook = self.settings.config.auth.webhook.is_some();
        let anonymous = open.is_anonymous();
        if open.rare.as_ref().is_some_and(|rare| rare.is_refreshing()) {
            self.refuse_second_refresh(now, slot, id);
            return Flow::Next;
        }
        match (token, &self.settings.verifier) {
            // C27: an anonymous connection never becomes an authenticated one.
            (Some(_), _) if anonymous => {
                self.begin_close(now, slot, CloseCode::Forbidden, "an anonymous connection cannot take a token", true);
                Flow::Closed
            }
            (Some(token), Some(_)) => self.refresh_by_token(now, slot, id, token),
            (token, _) if webhook && !anonymous => {
                self.refresh_by_webhook(now, slot, id, token);
                Flow::Next
            }
            (Some(_), None) => {
                self.begin_close(now, slot, CloseCode::Forbidden, "this server takes no tokens", true);
                Flow::Closed
            }
            (None, _) => {
                let error = if webhook {
                    "An anonymous connection has nothing to refresh: connect with a token"
                } else {
                    "There is no webhook to ask: send a newer token"
                };
                self.answer_error(now, slot, id, Code::Invalid, error);
                Flow::Next
            }
        }
    }

    fn refresh_by_token(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, token: &str) -> Flow {
        let State::Open(open) = &self.slots[slot as usize].state else { return Flow::Closed };
        let least_issued_at_ms = open.issued_at_ms;
        let Some(verifier) = &self.settings.verifier else { return Flow::Next };
        let decision = match verifier.verify(token, now.unix_ms) {
            Ok(decision) => decision,
            Err(error) => {
                let code = if error == TokenError::NoKeys { Code::Unavailable } else { Code::Unauthenticated };
                self.answer_error(now, slot, id, code, &error.to_string());
                return Flow::Next;
            }
        };
        self.take_over(now, slot, id, decision, Source::Token { least_issued_at_ms });
        if self.open_mut(slot).is_some() { Flow::Next } else { Flow::Closed }
    }

    /// Adopts a decision about this connection, unless it is about somebody else (GD-2), revoked, or older than the one in
    /// use (C21).
    pub(super) fn take_over(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, decision: Decision, source: Source) {
        let new = &decision.identity;
        let same = |one: &Identity| (one.id(), one.tenant(), one.org()) == (new.id(), new.tenant(), new.org());
        if !self.open_mut(slot).is_some_and(|open| open.identity.as_ref().is_some_and(same)) {
            let reason = match source {
                Source::Token { .. } => "the token is somebody else's",
                Source::Webhook => "the refresh is somebody else's",
            };
            self.begin_close(now, slot, CloseCode::Forbidden, reason, true);
        } else if self.shared.revocations.covers(&TokenFacts::of(&decision), now.unix_ms) {
            self.answer_error(now, slot, id, Code::Revoked, "This token was revoked");
        } else if let Source::Token { least_issued_at_ms } = source
            && decision.issued_at_ms.unwrap_or(0) < least_issued_at_ms
        {
            self.answer_error(now, slot, id, Code::Invalid, "The token is older than the one in use: send a newer one");
        } else {
            self.adopt(now, slot, id, decision, source);
        }
    }

    fn adopt(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, mut decision: Decision, source: Source) {
        let State::Open(open) = &self.slots[slot as usize].state else { return };
        let before = self.listed(now, open).into_iter().map(|(name, rights)| (name.into(), rights)).collect();
        let explicit = Explicit::new(&decision.grants);
        let revoked = self.revoked_for(now, &decision, &explicit);
        let limits = decision.limits.take().map(|narrowed| OwnLimits::new(&self.settings, narrowed));
        let Some(open) = self.open_mut(slot) else { return };
        let renamed = open.identity.as_ref().is_some_and(|identity| identity.name() != decision.identity.name());
        open.explicit = explicit;
        open.issued_at_ms = decision.issued_at_ms.unwrap_or(0);
        open.expires_at_ms = decision.expires_at_ms.unwrap_or(u64::MAX);
        open.told_expiring = false;
        // A webhook that names no session or token does not take the connection out of those that it came with: they can
        // be revoked still (GD-6).
        let ids = TokenIds::of(&decision);
        open.token_ids = match source {
            Source::Webhook => TokenIds::over(ids, open.token_ids.take()),
            Source::Token { .. } => ids,
        };
        open.identity = Some(decision.identity);
        open.set_revoked(revoked);
        if limits.is_some() || open.rare.is_some() {
            open.rare_mut().limits = limits;
        }
        self.decide_again(now, slot, "refresh");
        if renamed {
            self.renamed(slot);
        }
        // The new expiry may be earlier than what the wheel knows of.
        self.wake_at(slot, now.ms());
        let ids = id.map(|id| id.token().into()).into_iter().collect();
        let mut refreshed = Refreshed { ids, times: 1, before };
        match self.open_mut(slot).and_then(|open| open.rare.as_mut()) {
            Some(rare) if rare.is_in_doubt() => {
                if let Some(earlier) = rare.refreshed.take() {
                    let ids = [earlier.ids, refreshed.ids].concat();
                    refreshed = Refreshed { ids, times: earlier.times + 1, before: earlier.before };
                }
                rare.refreshed = Some(refreshed);
            }
            _ => self.tell_refreshed(now, slot, refreshed),
        }
        self.run_waiting(now, slot, None);
    }

    /// Answers a refresh once all subscriptions are decided: those that end were told of by then (C25).
    pub(super) fn conclude_refresh(&mut self, now: Now, slot: u32) {
        let Some(rare) = self.open_mut(slot).and_then(|open| open.rare.as_mut()) else { return };
        if rare.refreshed.is_some()
            && !rare.is_in_doubt()
            && let Some(refreshed) = rare.refreshed.take()
        {
            self.tell_refreshed(now, slot, refreshed);
        }
    }

    fn tell_refreshed(&mut self, now: Now, slot: u32, Refreshed { ids, before, .. }: Refreshed) {
        let State::Open(open) = &self.slots[slot as usize].state else { return };
        let pipes = self.listed(now, open);
        let (added, removed) = difference(&before, &pipes);
        let changed = !added.is_empty() || !removed.is_empty();
        let told =
            changed.then(|| encode::framed(|out| encode::grants_changed(out, pipes.iter().copied(), &added, &removed)));
        let reply = |id| encode::framed(|out| encode::reply_refresh(out, id, pipes.iter().copied(), told_expiry(open)));
        let replies = ids.iter().filter_map(|id| Id::new(id)).map(reply);
        let frames: Vec<Vec<u8>> = told.into_iter().chain(replies).collect();
        frames.into_iter().for_each(|frame| self.send(slot, frame));
    }

    /// One refresh at a time where the webhook is asked (C2), a few where only rules are.
    fn refuse_second_refresh(&mut self, now: Now, slot: u32, id: Option<Id<'_>>) {
        self.note_denial(now, slot, Code::RateLimited, None);
        if let Some(id) = id {
            let (code, text) = (Code::RateLimited, "A refresh is under way: wait for its reply");
            self.send(slot, encode::framed(|out| encode::reply_error(out, id, code, text, Some(REFRESH_AGAIN_MS))));
        }
    }

    /// Every remembered decision is dropped; subscriptions are decided anew, and end where they are no longer allowed. One
    /// that the application must be asked about is suspended until its answer is there (`awaiting`). To be followed by
    /// [`Shard::run_waiting`].
    pub(super) fn decide_again(&mut self, now: Now, slot: u32, reason: &'static str) {
        let Some(open) = self.open_mut(slot) else { return };
        if let Some(rare) = &mut open.rare {
            rare.forget_decisions();
        }
        let (subscribed, rest): (Vec<_>, Vec<_>) =
            open.grants.resolved().partition(|pipe| open.grants.is_subscribed_to(*pipe));
        self.withdraw(slot, rest);
        // Told when all is decided: what waits of one that ends is gone before anything is said or sent of another.
        let (mut ended, mut lasting) = (Vec::new(), Vec::new());
        for pipe in subscribed {
            let Some(name) = self.pipes.get(pipe).map(|local| Box::<str>::from(local.global.name())) else { continue };
            match self.decide_subscription(now, slot, &name) {
                Decided::Asks(..) => {
                    self.doubt(slot, pipe);
                    self.suspend(slot, pipe);
                    self.recheck(slot, name, reason);
                }
                Decided::Settled(decided) => match self.settle_subscription(now, slot, (pipe, &name), decided) {
                    Some(name) => ended.push(name),
                    None => lasting.push(pipe),
                },
            }
        }
        for pipe in lasting {
            self.release(slot, pipe);
        }
        for name in ended {
            self.tell_unsubscribed(slot, &name, reason);
        }
    }

    /// A subscription ended for this reason.
    pub(super) fn tell_unsubscribed(&mut self, slot: u32, name: &str, reason: &str) {
        self.send(slot, encode::framed(|out| encode::unsubscribed(out, name, reason)));
    }

    /// Decides a live subscription again, or says what the application must be asked before. What is refused without asking
    /// does not go on for the sake of its presence.
    pub(super) fn decide_subscription(&self, now: Now, slot: u32, name: &str) -> Decided {
        let decided = match self.judge_pipe(now, slot, name, Surface::Subscribe, About::default()) {
            Err(Denied::Asks(question)) => return Decided::Asks(Surface::Subscribe, question),
            decided => decided,
        };
        if decided.is_ok()
            && self.pipes.find(name).is_some_and(|pipe| self.is_watching(slot, pipe))
            && let Err(Denied::Asks(question)) = self.judge_pipe(now, slot, name, Surface::Presence, About::default())
        {
            return Decided::Asks(Surface::Presence, question);
        }
        Decided::Settled(decided)
    }

    /// A live subscription was decided again: it goes on with what it may have now, or ends. Returns its name where it ends, for
    /// the client to be told; otherwise what was kept for it is to be released.
    pub(super) fn settle_subscription(
        &mut self,
        now: Now,
        slot: u32,
        (pipe, name): (PipeId, &str),
        decided: Result<bool, Denied>,
    ) -> Option<Box<str>> {
        let lasting = match decided {
            Ok(lasting) => lasting,
            Err(denied) => {
                if let Denied::Refused(refusal) = &denied
                    && refusal.fault.is_some()
                {
                    self.note_refusal(now, slot, refusal, Some(name));
                }
                return self.withdraw(slot, vec![pipe]).pop();
            }
        };
        let open = self.open_mut(slot)?;
        open.grants.set_rights(pipe, Rights::NONE);
        self.note_right(slot, pipe, Surface::Subscribe, lasting);
        self.see_anew(now, slot, (pipe, name));
        if self.is_watching(slot, pipe) {
            match self.judge_pipe(now, slot, name, Surface::Presence, About::default()) {
                Ok(lasting) => self.note_right(slot, pipe, Surface::Presence, lasting),
                Err(_) => self.stop_watching(slot, pipe),
            }
        }
        None
    }

    /// Nothing is believed of what was decided about this pipe; a watcher's right stays as what is told to it goes by, until
    /// it is decided.
    fn doubt(&mut self, slot: u32, pipe: PipeId) {
        let watches = self.is_watching(slot, pipe);
        let Some(open) = self.open_mut(slot) else { return };
        open.grants.set_rights(pipe, Rights::NONE);
        if watches {
            self.note_right(slot, pipe, Surface::Presence, false);
        }
    }

    /// Decides anew what a subscription lets through.
    fn see_anew(&mut self, now: Now, slot: u32, (pipe, name): (PipeId, &str)) {
        let State::Open(open) = &self.slots[slot as usize].state else { return };
        let position = open.grants.index_of(pipe).map(|index| open.grants.position(index));
        let (Some(position), Some(local)) = (position, self.pipes.get(pipe)) else { return };
        let names = local.wants(position).names;
        let (wants, fault) = self.wants(now, slot, name, names);
        self.note_fault(now, slot, name, fault);
        self.pipes.refilter(pipe, position, wants);
    }

    /// The explicit grants as a client is told of them: without what is revoked (B25).
    pub(super) fn listed<'o>(&self, now: Now, open: &'o Open) -> Vec<(&'o str, Rights)> {
        open.explicit.iter().filter(|(name, _)| !open.hides(now.unix_ms, name)).collect()
    }

    /// What is revoked for the person of a decision, but for what the decision itself has ended (D4).
    pub(super) fn revoked_for(&mut self, now: Now, decision: &Decision, explicit: &Explicit) -> Vec<Arc<Revocation>> {
        let identity = &decision.identity;
        let mut entries = self.shared.revocations.of(identity.tenant(), identity.id(), now.unix_ms);
        entries.retain(|one| {
            let ended = one.ends_by(decision.issued_at_ms.unwrap_or(0), |name| explicit.rights(name));
            // Of a revocation in every tenant this authorization frees its own connection, not the other tenants' (D14).
            if ended && one.person.tenant.as_deref() == identity.tenant() {
                self.outputs.push(super::output::Output::Reauthorized(one.clone()));
            }
            !ended
        });
        entries
    }
}

fn told_expiry(open: &Open) -> Option<u64> {
    (open.expires_at_ms != u64::MAX).then_some(open.expires_at_ms)
}

/// Names (with rights) that are new or changed, and names that are gone.
fn difference(old: &[(Box<str>, Rights)], new: &[(&str, Rights)]) -> (Vec<Box<str>>, Vec<Box<str>>) {
    let before: AHashMap<&str, Rights> = old.iter().map(|(name, rights)| (&**name, *rights)).collect();
    let after: AHashSet<&str> = new.iter().map(|(name, _)| *name).collect();
    let added = new.iter().filter(|(name, rights)| before.get(name) != Some(rights));
    let removed = old.iter().filter(|(name, _)| !after.contains(&**name));
    (added.map(|(name, _)| (*name).into()).collect(), removed.map(|(name, _)| name.clone()).collect())
}
