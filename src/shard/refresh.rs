//! Adopting a newer token without disconnecting (HP-7, C21–C27).
//!
//! The identity stays: another user, tenant or organisation ends the connection (GD-2). What the new token no longer
//! grants is taken away, subscriptions first; what stays granted is not disturbed. Everything is one step.

use super::Shard;
use super::connection::{Open, State, TokenIds};
use super::grants::Explicit;
use super::input::Now;
use super::requests::Flow;
use super::revocation::{Revocation, TokenFacts};
use crate::auth::decision::{Decision, Rights};
use crate::auth::token::TokenError;
use crate::protocol::codes::{CloseCode, Code};
use crate::protocol::encode;
use crate::protocol::message::Id;

impl Shard {
    /// `refresh` with a token.
    pub(super) fn refresh(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, token: &str) -> Flow {
        let State::Open(open) = &self.slots[slot as usize].state else { return Flow::Closed };
        let (Some(identity), Some(verifier)) = (&open.identity, &self.settings.verifier) else {
            // C27: an anonymous connection never becomes an authenticated one.
            self.begin_close(now, slot, CloseCode::Forbidden, "an anonymous connection cannot take a token", true);
            return Flow::Closed;
        };
        let decision = match verifier.verify(token, now.unix_ms) {
            Ok(decision) => decision,
            Err(error) => {
                let code = if error == TokenError::NoKeys { Code::Unavailable } else { Code::Unauthenticated };
                self.answer_error(now, slot, id, code, &error.to_string());
                return Flow::Next;
            }
        };
        let new = &decision.identity;
        if (&new.id, &new.tenant, &new.org) != (&identity.id, &identity.tenant, &identity.org) {
            self.begin_close(now, slot, CloseCode::Forbidden, "the token is somebody else's", true);
            return Flow::Closed;
        }
        if self.shared.revocations.covers(&TokenFacts::of(&decision), now.unix_ms) {
            self.answer_error(now, slot, id, Code::Revoked, "This token was revoked");
            return Flow::Next;
        }
        if decision.issued_at_s.unwrap_or(0) < open.issued_at_s {
            self.answer_error(now, slot, id, Code::Invalid, "The token is older than the one in use: send a newer one");
            return Flow::Next;
        }
        self.adopt(now, slot, id, decision);
        Flow::Next
    }

    fn adopt(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, decision: Decision) {
        let explicit = Explicit::new(&decision.grants);
        let revoked = self.revoked_for(now, &decision, &explicit);
        let Some(open) = self.open_mut(slot) else { return };
        let (added, removed) = difference(&open.explicit, &explicit);
        let renamed = open.identity.as_ref().is_some_and(|identity| identity.name != decision.identity.name);
        open.explicit = explicit;
        open.issued_at_s = decision.issued_at_s.unwrap_or(0);
        open.expires_at_ms = decision.expires_at_ms.unwrap_or(u64::MAX);
        open.told_expiring = false;
        open.token_ids = TokenIds::of(&decision);
        open.identity = Some(Box::new(decision.identity));
        open.revoked = revoked;
        self.decide_again(now, slot, "refresh");
        if renamed {
            self.renamed(slot);
        }
        let State::Open(open) = &self.slots[slot as usize].state else { return };
        let pipes = self.listed(now, open);
        if !added.is_empty() || !removed.is_empty() {
            let told = encode::framed(|out| encode::grants_changed(out, pipes.iter().copied(), &added, &removed));
            let reply = id.map(|id| encode::framed(|out| encode::reply_refresh(out, id, pipes, told_expiry(open))));
            self.send(slot, told);
            reply.into_iter().for_each(|reply| self.send(slot, reply));
        } else if let Some(id) = id {
            let reply = encode::framed(|out| encode::reply_refresh(out, id, pipes, told_expiry(open)));
            self.send(slot, reply);
        }
        // The new expiry may be earlier than what the wheel knows of.
        self.wake_at(slot, now.ms());
    }

    /// Every remembered decision is dropped; subscriptions are decided anew, and end where they are no longer allowed.
    pub(super) fn decide_again(&mut self, now: Now, slot: u32, reason: &str) {
        let State::Open(open) = &self.slots[slot as usize].state else { return };
        let mut lost = Vec::new();
        let mut kept = Vec::new();
        for pipe in open.grants.resolved() {
            let Some(local) = self.pipes.get(pipe) else { continue };
            let rights = self.decide(now, slot, local.global.name()).unwrap_or(Rights::NONE);
            let keeps = open.grants.is_subscribed_to(pipe) && rights.contains(Rights::SUBSCRIBE);
            if keeps { kept.push((pipe, rights)) } else { lost.push(pipe) }
        }
        for (pipe, rights) in kept {
            if let Some(open) = self.open_mut(slot) {
                open.grants.set_rights(pipe, rights);
            }
            if !rights.contains(Rights::PRESENCE) {
                self.stop_watching(slot, pipe);
            }
        }
        for name in self.withdraw(slot, lost) {
            self.send(slot, encode::framed(|out| encode::unsubscribed(out, &name, reason)));
        }
    }

    /// The explicit grants as a client is told of them: without what is revoked (B25).
    pub(super) fn listed<'o>(&self, now: Now, open: &'o Open) -> Vec<(&'o str, Rights)> {
        open.explicit.iter().filter(|(name, _)| !open.hides(now.unix_ms, name)).collect()
    }

    /// What is revoked for the person of a decision, but for what the decision itself has ended (D4).
    #[expect(clippy::box_collection, reason = "as it is kept in a connection")]
    pub(super) fn revoked_for(
        &mut self,
        now: Now,
        decision: &Decision,
        explicit: &Explicit,
    ) -> Option<Box<Vec<std::sync::Arc<Revocation>>>> {
        let identity = &decision.identity;
        let mut entries = self.shared.revocations.of(identity.tenant.as_deref(), &identity.id, now.unix_ms);
        entries.retain(|one| {
            let ended = one.ends_by(decision.issued_at_s.unwrap_or(0), |name| explicit.rights(name));
            // Of a revocation in every tenant this authorization frees its own connection, not the other tenants' (D14).
            if ended && one.person.tenant.as_deref() == identity.tenant.as_deref() {
                self.outputs.push(super::output::Output::Reauthorized(one.clone()));
            }
            !ended
        });
        (!entries.is_empty()).then(|| Box::new(entries))
    }
}

fn told_expiry(open: &Open) -> Option<u64> {
    (open.expires_at_ms != u64::MAX).then_some(open.expires_at_ms)
}

/// Names (with rights) that are new or changed, and names that are gone.
fn difference(old: &Explicit, new: &Explicit) -> (Vec<Box<str>>, Vec<Box<str>>) {
    let map = |explicit: &Explicit| -> ahash::AHashMap<Box<str>, Rights> {
        explicit.iter().map(|(name, rights)| (name.into(), rights)).collect()
    };
    let (before, after) = (map(old), map(new));
    let added = new.iter().filter(|(name, rights)| before.get(*name) != Some(rights));
    let removed = old.iter().filter(|(name, _)| !after.contains_key(*name));
    (added.map(|(name, _)| name.into()).collect(), removed.map(|(name, _)| name.into()).collect())
}
