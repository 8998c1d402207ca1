//! What the application asks of the workers, decided naively: the table of revocations is two lists, a command looks at
//! every connection.
//!
//! Beside it a second opinion that knows nothing of subscriptions and rings: an event that was taken after a revocation
//! was acknowledged never goes out to a connection of its user while the revocation is in force, nor after it was given back.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeward::config::WhenSlow;
use pipeward::protocol::codes::Code;
use pipeward::protocol::frame::server_frame;
use pipeward::shard::command::{self, Act, Answer, ConnectionFacts, Member, Members, Stats, Who};
use pipeward::shard::input::Now;
use pipeward::shard::record::{Kind, Record};
use pipeward::shard::revocation::{Entry, Restoration, Revocation, Taken, TokenRevocation, Tokens};

use super::rights::{self, Person};
use super::wire::{Ids, What, frame_bytes, quote};
use super::{Client, Connection, Event, Model, Phase};

/// What is revoked, in the order in which it was.
#[derive(Default)]
pub struct Table {
    pub pipes: Vec<Arc<Revocation>>,
    pub tokens: Vec<Arc<TokenRevocation>>,
}

/// A revocation that is in force everywhere, and how many events had been taken when that was said.
pub struct Acknowledged {
    entry: Arc<Revocation>,
    number: u64,
    /// How many had been taken when the application asked for it to be given back; None: it has not.
    lifted: Option<u64>,
}

impl Table {
    pub fn insert(&mut self, revocation: Arc<Revocation>) {
        let same = |one: &Revocation| one.person == revocation.person && one.taken == revocation.taken;
        match self.pipes.iter_mut().find(|one| same(one)) {
            Some(old) => *old = revocation,
            None => self.pipes.push(revocation),
        }
    }

    pub fn insert_tokens(&mut self, revocation: Arc<TokenRevocation>) {
        self.tokens.retain(|one| one.tokens != revocation.tokens);
        self.tokens.push(revocation);
    }

    pub fn lift(&mut self, restoration: &Restoration) {
        self.pipes.retain(|one| !lifts(restoration, one));
    }

    /// Ends what stands in this entry's place, if its time has come. True: revoked pipes are to be given back.
    pub fn expire(&mut self, entry: &Entry, now_ms: u64) -> bool {
        let before = self.pipes.len();
        match entry {
            Entry::Pipes(old) => {
                self.pipes.retain(|one| one.person != old.person || one.taken != old.taken || one.until_ms > now_ms)
            }
            Entry::Tokens(old) => self.tokens.retain(|one| one.tokens != old.tokens || one.until_ms > now_ms),
        }
        self.pipes.len() < before
    }

    /// What is revoked for a person now.
    pub fn of(&self, person: &Person, now_ms: u64) -> Vec<Arc<Revocation>> {
        self.pipes.iter().filter(|one| one.until_ms > now_ms && is(&one.person, Some(person))).cloned().collect()
    }

    pub fn covers_token(&self, person: &Person, ids: &Ids, now_ms: u64) -> bool {
        self.tokens.iter().any(|one| one.until_ms > now_ms && is_token(&one.tokens, person, ids))
    }
}

impl Model {
    // ---- what the control thread does ----------------------------------------------------------------------------

    /// A revocation was acknowledged: it is in force.
    pub fn acknowledge(&mut self, revocation: &Arc<Revocation>) {
        if revocation.until_ms <= self.unix_ms || !self.table.pipes.iter().any(|one| Arc::ptr_eq(one, revocation)) {
            return;
        }
        self.acknowledged.push(Acknowledged { entry: revocation.clone(), number: self.events_taken, lifted: None });
        for (client, connection) in self.connections.iter().enumerate() {
            let exempt = revocation.until_authorized_after_ms.is_some();
            if connection.phase == Phase::Open && is(&revocation.person, connection.person.as_ref()) && !exempt {
                let still = connection.subscriptions.keys().find(|name| covers(&revocation.taken, name));
                assert!(still.is_none(), "{revocation:?} was acknowledged, client {client} is subscribed to {still:?}");
            }
        }
    }

    pub fn acknowledge_tokens(&self, revocation: &TokenRevocation) {
        for (client, connection) in self.connections.iter().enumerate() {
            let open = connection.phase == Phase::Open && revocation.until_ms > self.unix_ms;
            let is_one = |person: &Person| is_token(&revocation.tokens, person, &connection.ids);
            let revoked = open && connection.person.as_ref().is_some_and(is_one);
            assert!(!revoked, "{revocation:?} was acknowledged, and client {client} lives");
        }
    }

    /// The table was changed: what was acknowledged and is not in it any more binds nobody.
    pub fn table_changed(&mut self) {
        let table = &self.table;
        self.acknowledged
            .retain(|one| one.lifted.is_some() || table.pipes.iter().any(|entry| Arc::ptr_eq(entry, &one.entry)));
    }

    /// The application gives something back, for which it asked when so many events had been taken.
    pub fn lift(&mut self, restoration: &Restoration, began: u64) {
        self.table.lift(restoration);
        // One that has ended by itself has let through what came after it.
        let in_force = |one: &Acknowledged| one.lifted.is_none() && one.entry.until_ms > self.unix_ms;
        let lifted = self.acknowledged.iter_mut().filter(|one| in_force(one) && lifts(restoration, &one.entry));
        lifted.for_each(|one| one.lifted = Some(began));
    }

    /// The rule of INVARIANTS 6 by itself: whatever else the model believes.
    pub fn may_reach(&self, client: Client, pipe: &str, number: u64) {
        let person = self.connections[client].person.as_ref();
        let broken = self.acknowledged.iter().find(|one| {
            let entry = &one.entry;
            let in_force = match one.lifted {
                None => entry.until_ms > self.unix_ms,
                Some(began) => number <= began,
            };
            let meant = is(&entry.person, person) && covers(&entry.taken, pipe);
            in_force && number > one.number && entry.until_authorized_after_ms.is_none() && meant
        });
        if let Some(one) = broken {
            panic!("client {client} gets event {number} of {pipe} after {:?} was acknowledged", one.entry);
        }
    }

    pub fn next_event(&mut self, pipe: String, event: String, text: String, publisher: Client) -> Event {
        self.events_taken += 1;
        Event { pipe, event, text, publisher, number: self.events_taken }
    }

    // ---- what a worker does --------------------------------------------------------------------------------------

    pub fn command(&mut self, now: Now, worker: usize, act: &Act) -> Answer {
        match act {
            Act::Publish { .. } => unreachable!("the model has its own for it"),
            Act::Push { to, bytes, .. } => {
                let frame = server_frame(bytes).expect("a whole frame");
                let text = String::from_utf8_lossy(frame.payload).into_owned();
                let meant = self.meant(worker, to);
                Answer::Count(meant.into_iter().filter(|client| self.say(*client, text.clone())).count() as u64)
            }
            Act::Answered { .. } => unreachable!("nothing asks here"),
            Act::Settle => unreachable!("it is answered later"),
            Act::Revoke(revocation) => {
                let meant = self.of_person(worker, &revocation.person);
                meant.iter().for_each(|client| self.revoke(*client, revocation));
                Answer::Count(meant.len() as u64)
            }
            Act::Restore(restoration) => {
                let meant = self.of_person(worker, &restoration.person);
                meant.iter().for_each(|client| self.restore(*client, restoration));
                Answer::Count(meant.len() as u64)
            }
            Act::RevokeTokens(revocation) => {
                let revoked = self.open_where(worker, |one| {
                    one.person.as_ref().is_some_and(|person| is_token(&revocation.tokens, person, &one.ids))
                });
                revoked.iter().for_each(|client| self.close(now, *client, 4402, "revoked", true));
                Answer::Count(revoked.len() as u64)
            }
            Act::Disconnect { who, reconnect } => {
                let meant = self.meant(worker, who);
                for client in &meant {
                    match reconnect {
                        true => self.close(now, *client, 4503, "retry_after_ms=1000", false),
                        false => self.close(now, *client, 4403, "forbidden", true),
                    }
                }
                Answer::Count(meant.len() as u64)
            }
            Act::Unsubscribe { who, pipe } => {
                let mut meant = self.meant(worker, who);
                meant.retain(|client| self.unsubscribe(*client, pipe));
                for client in &meant {
                    self.say(*client, unsubscribed(pipe, "server"));
                }
                Answer::Count(meant.len() as u64)
            }
            Act::Connections { person, after_slot, limit } => {
                let meant = |one: &Connection| {
                    let fits = person.as_ref().is_none_or(|person| is(person, one.person.as_ref()));
                    fits && after_slot.is_none_or(|after| one.handle.slot > after)
                };
                let mut facts: Vec<_> = self.open_where(worker, meant).iter().map(|one| self.facts(*one)).collect();
                facts.sort_by_key(|one| one.slot);
                facts.truncate(*limit);
                Answer::Connections(facts)
            }
            Act::Pipes { after, limit } => {
                let mut pipes: BTreeMap<Box<str>, u64> = BTreeMap::new();
                for client in self.open_where(worker, |_| true) {
                    for pipe in self.connections[client].subscriptions.keys() {
                        *pipes.entry(pipe.as_str().into()).or_default() += 1;
                    }
                }
                let rest = pipes.into_iter().filter(|(name, _)| after.as_ref().is_none_or(|after| **name > **after));
                Answer::Pipes(rest.take(*limit).collect())
            }
            Act::Members { pipe } => Answer::Members(self.members(worker, pipe)),
            Act::Stats => {
                let open = self.open_where(worker, |_| true);
                let subscriptions = open.iter().map(|one| self.connections[*one].subscriptions.len() as u64).sum();
                Answer::Stats(Box::new(Stats { worker, open: open.len() as u64, subscriptions, ..Stats::default() }))
            }
        }
    }

    fn revoke(&mut self, client: Client, revocation: &Arc<Revocation>) {
        let known = &mut self.connections[client].revoked;
        known.retain(|one| one.person != revocation.person || one.taken != revocation.taken);
        known.push(revocation.clone());
        let names: Vec<String> = self.connections[client].subscriptions.keys().cloned().collect();
        let ended: Vec<&String> = names.iter().filter(|name| covers(&revocation.taken, name)).collect();
        for name in &ended {
            self.unsubscribe(client, name);
        }
        let connection = &mut self.connections[client];
        // INVARIANTS 10: also what waits of a subscription that the client has ended itself.
        let gone = |what: &What| matches!(what, What::Event { pipe, .. } if covers(&revocation.taken, pipe));
        connection.expected.retain(|one| !gone(&one.what));
        let revoked = |name: &str| format!(r#"{{"type":"system","event":"pipe_revoked","pipe":{}}}"#, quote(name));
        *self.told.entry("subscriptions revoked").or_default() += ended.len() as u64;
        let told = match &revocation.taken {
            Taken::Everything => vec![r#"{"type":"system","event":"all_pipes_revoked"}"#.to_owned()],
            Taken::Pipe(text) if ended.is_empty() => vec![revoked(text)],
            Taken::Pipe(_) => ended.into_iter().map(|name| revoked(name)).collect(),
        };
        self.say_in_any_order(client, told);
    }

    fn restore(&mut self, client: Client, restoration: &Restoration) {
        let known = std::mem::take(&mut self.connections[client].revoked);
        let (lifted, kept): (Vec<_>, Vec<_>) = known.into_iter().partition(|one| lifts(restoration, one));
        self.connections[client].revoked = kept;
        let text = |taken: &Taken| match taken {
            Taken::Everything => quote("**"),
            Taken::Pipe(text) => quote(text),
        };
        let told = |one: &Arc<Revocation>| {
            format!(r#"{{"type":"system","event":"pipe_restored","pipe":{}}}"#, text(&one.taken))
        };
        self.say_in_any_order(client, lifted.iter().map(told).collect());
    }

    /// Ends a subscription and forgets what waits of it. False: there is none.
    pub(super) fn unsubscribe(&mut self, client: Client, pipe: &str) -> bool {
        let connection = &mut self.connections[client];
        let was = connection.subscriptions.remove(pipe).is_some();
        if was {
            let before = connection.expected.len();
            connection.expected.retain(|one| !matches!(&one.what, What::Event { pipe: of, .. } if of == pipe));
            *self.told.entry("events purged").or_default() += (before - connection.expected.len()) as u64;
        }
        was
    }

    /// After all that came before and before all that comes after.
    pub(super) fn say_in_any_order(&mut self, client: Client, texts: Vec<String>) {
        self.batch += 1;
        let all: usize = texts.iter().map(|text| frame_bytes(text.len())).sum();
        if texts.len() > 1 && !self.fits(client, all) {
            // Which of them find room depends on their order. It ends with this call, in whatever way.
            self.connections[client].unsure = true;
            self.too_slow.push(client);
            *self.told.entry("too much at once").or_default() += 1;
        }
        for (place, text) in texts.into_iter().enumerate() {
            let bytes = frame_bytes(text.len());
            self.queue(client, What::Text(text), bytes, Client::MAX - 1 - place, false);
        }
        self.batch += 1;
    }

    // ---- who is meant --------------------------------------------------------------------------------------------

    fn open_where(&self, worker: usize, meant: impl Fn(&Connection) -> bool) -> Vec<Client> {
        let mut own = self.of_worker(worker);
        own.retain(|client| self.connections[*client].phase == Phase::Open && meant(&self.connections[*client]));
        own
    }

    fn of_person(&self, worker: usize, person: &command::Person) -> Vec<Client> {
        self.open_where(worker, |one| is(person, one.person.as_ref()))
    }

    fn meant(&self, worker: usize, who: &Who) -> Vec<Client> {
        self.open_where(worker, |one| {
            let own = one.person.as_ref();
            let tenant_is = |tenant: &Option<Arc<str>>| {
                tenant.is_none() || own.and_then(|own| own.tenant.as_deref()) == tenant.as_deref()
            };
            match who {
                Who::User(person) => is(person, own),
                Who::Connection(name) => one.name() == **name,
                Who::Session(id) => one.ids.session.as_deref() == Some(id),
                Who::Role(role, tenant) => own.and_then(|own| own.role.as_deref()) == Some(role) && tenant_is(tenant),
                Who::Tenant(id) => own.and_then(|own| own.tenant.as_deref()) == Some(id),
                Who::Org(id, tenant) => own.and_then(|own| own.org.as_deref()) == Some(id) && tenant_is(tenant),
            }
        })
    }

    // ---- questions -----------------------------------------------------------------------------------------------

    fn facts(&self, client: Client) -> ConnectionFacts {
        let one = &self.connections[client];
        let waits: usize = one.expected.iter().map(|one| one.bytes).sum();
        ConnectionFacts {
            slot: one.handle.slot,
            connection: one.name(),
            user: one.person.as_ref().map(|person| person.id.as_str().into()),
            tenant: one.person.as_ref().and_then(|person| person.tenant.as_deref()).map(Into::into),
            ip: [10, 0, 0, one.ip].into(),
            since_ms: one.since_ms,
            pipes: one.subscriptions.keys().map(|name| name.as_str().into()).collect(),
            // Of one that drops its oldest the model does not know what it dropped.
            queue_bytes: if self.plan.when_slow == WhenSlow::Close { (one.sending + waits) as u64 } else { 0 },
        }
    }

    fn members(&self, worker: usize, pipe: &str) -> Members {
        let mut members = Members::default();
        for client in self.open_where(worker, |one| one.subscriptions.contains_key(pipe)) {
            let Some(person) = &self.connections[client].person else {
                members.anonymous += 1;
                continue;
            };
            let tenant: Option<Box<str>> = person.tenant.as_deref().map(Into::into);
            match members.people.iter_mut().find(|one| one.tenant == tenant && *one.user == *person.id) {
                Some(member) => member.connections += 1,
                None => {
                    members.people.push(Member { tenant, user: person.id.as_str().into(), name: None, connections: 1 })
                }
            }
        }
        members
    }

    /// The same answer with what has no order in one, and without what the model does not know.
    pub fn comparable(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Connections(mut all) => {
                for one in &mut all {
                    one.pipes.sort();
                    if self.plan.when_slow != WhenSlow::Close {
                        one.queue_bytes = 0;
                    }
                }
                Answer::Connections(all)
            }
            Answer::Members(mut members) => {
                members.people.sort_by(|one, other| (&one.tenant, &one.user).cmp(&(&other.tenant, &other.user)));
                Answer::Members(members)
            }
            Answer::Stats(stats) => {
                let Stats { worker, open, subscriptions, .. } = *stats;
                Answer::Stats(Box::new(Stats { worker, open, subscriptions, ..Stats::default() }))
            }
            other => other,
        }
    }

    // ---- what workers tell ---------------------------------------------------------------------------------------

    /// D4: a worker says that a later token has ended a revocation.
    pub fn reauthorized(&mut self, worker: usize, revocation: &Arc<Revocation>) {
        let expected = |(own, one): &(usize, Arc<Revocation>)| *own == worker && Arc::ptr_eq(one, revocation);
        let place = self.ended.iter().position(expected);
        self.ended.swap_remove(place.unwrap_or_else(|| panic!("{revocation:?} was not ended by a later token")));
    }

    /// GD-9
    pub fn recorded(&mut self, record: &Record) {
        let code = |code: Option<Code>| code.map_or("none", Code::name);
        let name = match record.kind {
            Kind::Connect => "welcomed".to_owned(),
            Kind::Refused => format!("refused[{}]", code(record.code)),
            Kind::Denied => format!("denied[{}]", code(record.code)),
            Kind::Disconnect => format!("closed[{}]", record.close.map_or(0, |close| close.number())),
            other => panic!("a worker records {other:?}"),
        };
        *self.records.entry(name).or_default() += record.count;
    }
}

impl Connection {
    /// Its public name.
    pub fn name(&self) -> String {
        format!("0-{}-{}-{:x}", self.worker, self.handle.slot, self.handle.generation)
    }
}

pub fn unsubscribed(pipe: &str, reason: &str) -> String {
    format!(r#"{{"type":"system","event":"unsubscribed","pipe":{},"reason":"{reason}"}}"#, quote(pipe))
}

pub fn covers(taken: &Taken, name: &str) -> bool {
    match taken {
        Taken::Everything => true,
        Taken::Pipe(text) => rights::matches(text, name),
    }
}

fn is(person: &command::Person, own: Option<&Person>) -> bool {
    own.is_some_and(|own| {
        *own.id == *person.user && (person.tenant.is_none() || own.tenant.as_deref() == person.tenant.as_deref())
    })
}

/// D6
fn lifts(restoration: &Restoration, revocation: &Revocation) -> bool {
    let this = restoration.taken.as_ref().is_none_or(|taken| *taken == revocation.taken);
    this && restoration.person == revocation.person
}

/// D9
fn is_token(tokens: &Tokens, person: &Person, ids: &Ids) -> bool {
    match tokens {
        Tokens::Token(id) => ids.token_id.as_deref() == Some(id),
        Tokens::Session(id) => ids.session.as_deref() == Some(id),
        Tokens::IssuedBefore { person: whose, issued_before_s, except_session, except_token } => {
            let spared = (ids.session.is_some() && ids.session.as_deref() == except_session.as_deref())
                || (ids.token_id.is_some() && ids.token_id.as_deref() == except_token.as_deref());
            is(whose, Some(person)) && ids.issued_at_s < *issued_before_s && !spared
        }
    }
}
