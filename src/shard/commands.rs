//! What the application asked for, carried out on this worker: push, revoke, restore, disconnect, unsubscribe, and the
//! questions of operators. One step each; nothing of it is done half.

use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::command::{
    Act, Answer, Command, ConnectionFacts, Member, Members, Person, Settling, Stats, Tell, Who, Within,
};
use super::connection::{Open, State};
use super::frames::Frame;
use super::input::Now;
use super::outbox::Pushed;
use super::pipes::PipeId;
use super::revocation::{Restoration, Revocation, Taken, TokenRevocation, Tokens};
use crate::protocol::codes::CloseCode;
use crate::protocol::encode;

impl Shard {
    /// Carries out a command and answers it.
    pub(super) fn command(&mut self, now: Now, command: Command) {
        let answer = match command.act {
            Act::Settle => return self.settle(command.answer),
            Act::Publish { pipe, bytes } => {
                let id = self.pipes.find_global(&pipe);
                Answer::Count(id.map_or(0, |id| self.deliver_shared(id, bytes, None)))
            }
            Act::Push { to, within, bytes } => Answer::Count(self.push_to(&to, &within, bytes)),
            Act::Answered { connection, number, outcome } => {
                self.answered(now, connection, number, *outcome);
                Answer::Count(0)
            }
            Act::Revoke(revocation) => Answer::Count(self.revoke(&revocation)),
            Act::Restore(restoration) => Answer::Count(self.restore(&restoration)),
            Act::RevokeTokens(revocation) => Answer::Count(self.revoke_tokens(now, &revocation)),
            Act::Disconnect { who, reconnect } => Answer::Count(self.disconnect(now, &who, reconnect)),
            Act::Unsubscribe { who, pipe } => Answer::Count(self.unsubscribe_all(&who, &pipe)),
            Act::Connections { person, after_slot, limit } => {
                Answer::Connections(self.list_connections(person.as_ref(), after_slot, limit))
            }
            Act::Pipes { after, limit } => Answer::Pipes(self.pipes.list(after.as_deref(), limit)),
            Act::Members { pipe } => Answer::Members(self.members(&pipe)),
            Act::Stats => Answer::Stats(Box::new(self.stats())),
        };
        if !self.too_slow.is_empty() {
            self.close_too_slow(now);
        }
        if let Some(tell) = command.answer {
            tell(answer);
        }
    }

    fn push_to(&mut self, who: &Who, within: &Within, bytes: Arc<[u8]>) -> u64 {
        let frame = Frame::shared_other(bytes, &self.gatherer.meter);
        let mut slots = self.slots_of_who(who);
        if let Within::Tenant(tenant) = within {
            slots.retain(|slot| match &self.slots[*slot as usize].state {
                State::Open(open) => open.identity.as_ref().is_some_and(|one| one.tenant() == tenant.as_deref()),
                _ => false,
            });
        }
        slots.into_iter().filter(|slot| self.push_frame(*slot, frame.clone())).count() as u64
    }

    fn push_frame(&mut self, slot: u32, frame: Rc<Frame>) -> bool {
        let limits = &self.settings.config.limits;
        let outbox = &mut self.outboxes[slot as usize];
        let taken = match outbox.push(frame, limits.queue_bytes as usize, limits.when_slow, &mut self.gatherer) {
            Pushed::Queued => true,
            Pushed::Dropped(events) => {
                self.counters.events_dropped += u64::from(events);
                true
            }
            // Only events are ever left out; a push is none.
            Pushed::LeftOut(_) => false,
            Pushed::TooSlow => {
                self.too_slow.push(slot);
                false
            }
        };
        self.mark_dirty(slot);
        taken
    }

    /// Events that others have accepted are delivered by what is in force now, those accepted here by what is in force
    /// where they are delivered: whoever asks every worker twice knows that none accepted before is still under way.
    fn settle(&mut self, answer: Option<Tell>) {
        self.port.publish();
        // Not the ring of the control thread: what came that way before this is dealt with.
        let workers = self.shared.loads.len();
        let ahead = (0..workers).map(|source| self.port.inbound_depth(source)).collect();
        self.settling.push(Settling { ahead, answer });
    }

    /// An entry of this ring was dealt with, be it the request to settle: answers those who wait for no more than that.
    pub(super) fn settled(&mut self, source: usize) {
        for one in &mut self.settling {
            if let Some(ahead) = one.ahead.get_mut(source) {
                *ahead = ahead.saturating_sub(1);
            }
        }
        for one in self.settling.extract_if(.., |one| one.ahead.iter().all(|ahead| *ahead == 0)) {
            if let Some(tell) = one.answer {
                tell(Answer::Count(0));
            }
        }
    }

    // ---- revocations ---------------------------------------------------------------------------------------------

    fn revoke(&mut self, revocation: &Arc<Revocation>) -> u64 {
        let slots = self.slots_of_person(&revocation.person);
        for slot in &slots {
            self.revoke_one(*slot, revocation);
        }
        slots.len() as u64
    }

    /// Takes what is revoked from one connection: grants, subscriptions, what waits to be sent; then tells it (D1, D3).
    fn revoke_one(&mut self, slot: u32, revocation: &Arc<Revocation>) {
        let Some(open) = self.open_mut(slot) else { return };
        let entries = &mut open.burden_mut().revoked;
        entries.retain(|one| one.person != revocation.person || one.taken != revocation.taken);
        entries.push(revocation.clone());
        if let Some(rare) = &mut open.rare {
            rare.epoch = rare.epoch.wrapping_add(1);
        }
        let hit = self.resolved_where(slot, |name| revocation.taken.covers(name));
        let ended = self.withdraw(slot, hit);
        // What waits of a subscription that the client has ended itself goes too (INVARIANTS 10).
        self.outboxes[slot as usize].purge_named(|name| revocation.taken.covers(name));
        match &revocation.taken {
            Taken::Everything => self.send(slot, encode::framed(encode::all_pipes_revoked)),
            Taken::Pipe(text) if ended.is_empty() => {
                self.send(slot, encode::framed(|out| encode::pipe_revoked(out, text)));
            }
            Taken::Pipe(_) => {
                for name in &ended {
                    self.send(slot, encode::framed(|out| encode::pipe_revoked(out, name)));
                }
            }
        }
    }

    fn resolved_where(&self, slot: u32, meant: impl Fn(&str) -> bool) -> Vec<PipeId> {
        let State::Open(open) = &self.slots[slot as usize].state else { return Vec::new() };
        let name = |pipe| self.pipes.get(pipe).map_or("", |local| local.global.name());
        open.grants.resolved().filter(|pipe| meant(name(*pipe))).collect()
    }

    /// Forgets these resolved pipes, with their subscriptions and with what waits to be sent of them. Returns the names
    /// of the subscriptions that ended.
    pub(super) fn withdraw(&mut self, slot: u32, pipes: Vec<PipeId>) -> Vec<Box<str>> {
        let mut ended = Vec::new();
        for pipe in pipes {
            let Some(local) = self.pipes.get(pipe) else { continue };
            let name: Box<str> = local.global.name().into();
            if self.end_subscription(slot, pipe) {
                self.outboxes[slot as usize].purge_named(|other| other == &*name);
                ended.push(name);
            }
            if let Some(open) = self.open_mut(slot) {
                open.grants.forget(pipe);
            }
            self.let_go(slot, pipe);
        }
        ended
    }

    fn restore(&mut self, restoration: &Restoration) -> u64 {
        let slots = self.slots_of_person(&restoration.person);
        for slot in &slots {
            let Some(open) = self.open_mut(*slot) else { continue };
            if let Some(rare) = &mut open.rare {
                rare.epoch = rare.epoch.wrapping_add(1);
            }
            let Some(burden) = &mut open.burden else { continue };
            let lifted: Vec<_> = burden.revoked.extract_if(.., |one| restoration.lifts(one)).collect();
            for one in lifted {
                let text = match &one.taken {
                    Taken::Everything => "**",
                    Taken::Pipe(text) => text,
                };
                self.send(*slot, encode::framed(|out| encode::pipe_restored(out, text)));
            }
        }
        slots.len() as u64
    }

    fn revoke_tokens(&mut self, now: Now, revocation: &TokenRevocation) -> u64 {
        let candidates = match &revocation.tokens {
            Tokens::IssuedBefore { person, .. } => self.slots_of_person(person),
            Tokens::Token(_) | Tokens::Session(_) => self.open_slots(),
        };
        let mut closed = 0;
        for slot in candidates {
            let State::Open(open) = &self.slots[slot as usize].state else { continue };
            if open.token_facts().is_some_and(|facts| revocation.tokens.covers(&facts, now.unix_ms)) {
                self.begin_close(now, slot, CloseCode::Revoked, CloseCode::Revoked.reason(), true);
                closed += 1;
            }
        }
        closed
    }

    // ---- disconnect, unsubscribe ---------------------------------------------------------------------------------

    fn disconnect(&mut self, now: Now, who: &Who, reconnect: bool) -> u64 {
        let slots = self.slots_of_who(who);
        // Neither is a drain or a refusal of ours.
        const BY_CALL: &str = "disconnected by the application";
        for slot in &slots {
            if reconnect {
                self.begin_close_for(now, *slot, CloseCode::Draining, "retry_after_ms=1000", false, BY_CALL);
            } else {
                let code = CloseCode::Forbidden;
                self.begin_close_for(now, *slot, code, code.reason(), true, BY_CALL);
            }
        }
        slots.len() as u64
    }

    fn unsubscribe_all(&mut self, who: &Who, name: &str) -> u64 {
        let Some(pipe) = self.pipes.find(name) else { return 0 };
        let mut ended = 0;
        for slot in self.slots_of_who(who) {
            if self.end_subscription(slot, pipe) {
                self.outboxes[slot as usize].purge_named(|other| other == name);
                self.send(slot, encode::framed(|out| encode::unsubscribed(out, name, "server")));
                ended += 1;
            }
        }
        ended
    }

    // ---- who is meant --------------------------------------------------------------------------------------------

    pub(super) fn slots_of_person(&self, person: &Person) -> Vec<u32> {
        let mut slots = self.people.of(&self.slots, |user| self.shared.registry.hash(user), &person.user);
        slots.retain(|slot| match &self.slots[*slot as usize].state {
            State::Open(open) => open.identity.as_ref().is_some_and(|one| person.is(one.tenant(), one.id())),
            _ => false,
        });
        slots
    }

    fn slots_of_who(&self, who: &Who) -> Vec<u32> {
        let of_tenant = |open: &Open, tenant: &Option<Arc<str>>| {
            let own = open.identity.as_ref().and_then(|one| one.tenant());
            tenant.as_deref().is_none_or(|tenant| own == Some(tenant))
        };
        match who {
            Who::User(person) => self.slots_of_person(person),
            Who::Connection(name) => self.slot_of_name(name).into_iter().collect(),
            Who::Session(id) => self.slots_where(|open| open.session() == Some(id)),
            Who::Role(role, tenant) => self.slots_where(|open| {
                let holds = |one: &crate::auth::Identity| one.roles().any(|own| *own == **role);
                open.identity.as_ref().is_some_and(holds) && of_tenant(open, tenant)
            }),
            Who::Tenant(id) => {
                self.slots_where(|open| open.identity.as_ref().is_some_and(|one| one.tenant() == Some(id)))
            }
            Who::Org(id, tenant) => self.slots_where(|open| {
                open.identity.as_ref().is_some_and(|one| one.org() == Some(id)) && of_tenant(open, tenant)
            }),
        }
    }

    fn slots_where(&self, meant: impl Fn(&Open) -> bool) -> Vec<u32> {
        let open = |slot: &u32| match &self.slots[*slot as usize].state {
            State::Open(open) => meant(open),
            _ => false,
        };
        (0..self.slots.len() as u32).filter(open).collect()
    }

    /// The open connection of this public name, if it lives here.
    fn slot_of_name(&self, name: &str) -> Option<u32> {
        let mut parts = name.split('-').skip(2);
        let slot: u32 = parts.next()?.parse().ok()?;
        let known = self.slots.get(slot as usize)?;
        let open = matches!(known.state, State::Open(_));
        (open && self.connection_name(self.handle_of(slot)) == name).then_some(slot)
    }

    // ---- questions -----------------------------------------------------------------------------------------------

    fn list_connections(&self, person: Option<&Person>, after: Option<u32>, limit: usize) -> Vec<ConnectionFacts> {
        let mut slots = match person {
            Some(person) => self.slots_of_person(person),
            None => self.slots_where(|_| true),
        };
        slots.sort_unstable();
        slots.retain(|slot| after.is_none_or(|after| *slot > after));
        slots.truncate(limit);
        slots.into_iter().filter_map(|slot| self.facts(slot)).collect()
    }

    fn facts(&self, slot: u32) -> Option<ConnectionFacts> {
        let State::Open(open) = &self.slots[slot as usize].state else { return None };
        let subscribed = open.grants.subscribed().filter_map(|pipe| self.pipes.get(pipe));
        Some(ConnectionFacts {
            slot,
            connection: self.connection_name(self.handle_of(slot)),
            user: open.identity.as_ref().map(|identity| identity.id().into()),
            tenant: open.identity.as_ref().and_then(|identity| identity.tenant().map(Into::into)),
            ip: open.ip,
            since_ms: open.since_ms,
            pipes: subscribed.map(|local| local.global.name().into()).collect(),
            queue_bytes: self.outboxes[slot as usize].queued_bytes() as u64,
        })
    }

    fn members(&self, name: &str) -> Members {
        let mut members = Members::default();
        let Some(local) = self.pipes.find(name).and_then(|pipe| self.pipes.get(pipe)) else { return members };
        let mut places = ahash::AHashMap::new();
        for subscriber in &local.subscribers {
            let State::Open(open) = &self.slots[subscriber.slot as usize].state else { continue };
            let Some(identity) = &open.identity else {
                members.anonymous += 1;
                continue;
            };
            let place = *places.entry((identity.tenant(), identity.id())).or_insert(members.people.len());
            match members.people.get_mut(place) {
                Some(member) => member.connections += 1,
                None => members.people.push(Member {
                    tenant: identity.tenant().map(Into::into),
                    user: identity.id().into(),
                    name: identity.name().map(Into::into),
                    connections: 1,
                }),
            }
        }
        members
    }

    fn stats(&mut self) -> Stats {
        let workers = self.port.workers();
        let ring_depth = (0..workers).map(|source| self.port.inbound_depth(source) as u64).sum();
        Stats {
            worker: self.worker,
            connections: self.connections() as u64,
            open: self.open as u64,
            subscriptions: self.pipes.subscriptions(),
            pipes: self.pipes.known() as u64,
            queue_bytes: self.frame_bytes() as u64,
            assembly_bytes: self.assembly_bytes as u64,
            stalled: self.stalled.len() as u64,
            ring_depth,
            doorbells_missed: self.port.counters().missed,
            counters: self.counters.clone(),
            ticks: self.ticks.clone(),
        }
    }
}
