//! The naive model: connections, subscriptions and rings as plain maps and lists of strings. It is told the same things
//! at the same moments as the shards, and decides for itself what must come of them.
//!
//! Delivery is decided where INVARIANTS 8 says: on the publisher's worker when the publish is taken, elsewhere when
//! that worker takes the event from its ring. A publish is taken when every ring that it needs has room (13). Those
//! that wait try again in the order in which they began to wait.

pub mod control;
pub mod observed;
pub mod refresh;
pub mod requests;
pub mod rights;
pub mod stream;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pipeward::auth::token::Verifier;
use pipeward::bounds::{HANDSHAKE_GRACE_MS, RING_ENTRIES_PER_TURN};
use pipeward::config::WhenSlow;
use pipeward::protocol::codes::Code;
use pipeward::shard::command::{Act, Answer};
use pipeward::shard::connection::Handle;
use pipeward::shard::input::Now;
use pipeward::shard::revocation::Revocation;

use crate::plan::Plan;
use control::{Acknowledged, Table};
use observed::Tallies;
use rights::{Grant, Person, Right};
use wire::{Expect, Ids, Item, Pass, Request, Sent, What, accept_head, frame_bytes, quote};

/// A connection's number in the whole run; never used twice.
pub type Client = usize;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Greeting { began_ms: u64, until_ms: u64 },
    Open,
    Closing { until_ms: u64 },
    Gone,
}

pub struct Connection {
    pub worker: usize,
    pub handle: Handle,
    pub ip: u8,
    pub phase: Phase,
    pub person: Option<Person>,
    pub grants: Vec<Grant>,
    pub ids: Ids,
    /// What the connection knows to be revoked for its user.
    pub revoked: Vec<Arc<Revocation>>,
    /// Unix milliseconds of the welcome.
    pub since_ms: u64,
    pub told_expiring: bool,
    /// Its queue overflowed in this call, and what of the rest is queued depends on an order that is not known.
    pub unsure: bool,
    /// Pipe → the events wanted; none: all.
    pub subscriptions: BTreeMap<String, Vec<String>>,
    pub expires_at_ms: Option<u64>,
    pub ping_at_ms: u64,
    pub awaits_pong: bool,
    /// What the client sent and the shard has not taken, by the place where it ends.
    pub items: VecDeque<Item>,
    /// Bytes of the client's stream that were handed in.
    pub delivered: u64,
    /// Rings that a publish waits for.
    pub waits_for: Option<BTreeSet<usize>>,
    /// What was begun and not finished: where it starts, since when.
    pub unfinished: Option<(u64, u64)>,
    pub leave_at_ms: Option<u64>,
    pub expected: VecDeque<Expect>,
    /// Bytes that are being written.
    pub sending: usize,
    pub close_seen: bool,
    /// Nothing more is awaited of the peer: it closed first, or was refused.
    pub peer_done: bool,
    /// The queue was full since the last write began.
    pub overflowed: bool,
    /// Events left out since all was last told, and what of it was told, by pipe.
    pub missing: BTreeMap<String, u64>,
    pub told: BTreeMap<String, u64>,
    pub tallies: Tallies,
}

/// On its way to a worker.
pub enum Parcel {
    Event(Event),
    /// An event whose deliveries are to be counted, and the number of the call that asks for it.
    Counted(Event, u64),
    /// What else the application wants.
    Command(Act, u64),
}

#[derive(Clone)]
pub struct Event {
    pub pipe: String,
    pub event: String,
    pub text: String,
    pub publisher: Client,
    /// How many had been taken when this one was.
    pub number: u64,
}

/// Publishes what the application publishes.
pub const APPLICATION: Client = Client::MAX;

#[derive(Default)]
pub struct Ring {
    visible: VecDeque<Parcel>,
    staged: VecDeque<Parcel>,
}

pub struct Model {
    pub plan: Plan,
    pub connections: Vec<Connection>,
    /// (from, to).
    rings: BTreeMap<(usize, usize), Ring>,
    /// By worker: who waits for room, in order, and for which rings a relief is awaited.
    waiting: Vec<VecDeque<Client>>,
    awaited: Vec<BTreeSet<usize>>,
    too_slow: Vec<Client>,
    batch: u64,
    /// Deliveries that depend on an order that is not known: (subscriber, pipe).
    volatile: BTreeSet<(Client, String)>,
    /// What was refused for its rate in this call.
    refusals: Vec<(Client, Sent)>,
    /// Rates of a person, with all of their connections, and after them: coming back does not fill a bucket.
    people: BTreeMap<(Option<String>, String), observed::Budget>,
    handshakes: Option<observed::Budget>,
    pub counts: BTreeMap<String, u64>,
    /// Calendar time of the call that is under way.
    pub unix_ms: u64,
    pub table: Table,
    /// Revocations that were acknowledged and are in force, or were and were given back.
    pub acknowledged: Vec<Acknowledged>,
    /// By worker: the ring whose turn it is, and what it had of its turn.
    turns: Vec<(usize, u32)>,
    /// By worker: it took entries and has yet to ring those who wait for their room; it does when it has taken the last,
    /// or sleeps.
    pub unrelieved: Vec<bool>,
    /// By worker: since when it lets everybody go.
    drained_ms: Vec<Option<u64>>,
    pub events_taken: u64,
    /// By worker: calls that wait until it has taken so many more entries of each ring.
    settling: Vec<Vec<(u64, BTreeMap<usize, usize>)>>,
    /// Answers that must be given in this call of a shard: call and worker.
    pub answers: Vec<(u64, usize, Answer)>,
    /// Revocations that later tokens have ended, which the shards must tell.
    pub ended: Vec<(usize, Arc<Revocation>)>,
    /// What the records for the audit stand for, by kind and code.
    pub records: BTreeMap<String, u64>,
    /// What clients were told, for knowing what schedules reach.
    pub told: BTreeMap<&'static str, u64>,
    verifier: Verifier,
}

impl Model {
    pub fn new(plan: &Plan) -> Model {
        let workers = plan.workers;
        // The last participant is the control thread.
        let pairs = (0..=workers).flat_map(|from| (0..workers).map(move |to| (from, to)));
        Model {
            plan: plan.clone(),
            connections: Vec::new(),
            rings: pairs.filter(|(from, to)| from != to).map(|pair| (pair, Ring::default())).collect(),
            waiting: (0..workers).map(|_| VecDeque::new()).collect(),
            awaited: vec![BTreeSet::new(); workers],
            too_slow: Vec::new(),
            batch: 0,
            volatile: BTreeSet::new(),
            refusals: Vec::new(),
            people: BTreeMap::new(),
            handshakes: None,
            counts: BTreeMap::new(),
            unix_ms: 0,
            table: Table::default(),
            acknowledged: Vec::new(),
            turns: vec![(0, 0); workers],
            unrelieved: vec![false; workers],
            drained_ms: vec![None; workers],
            events_taken: 0,
            settling: vec![Vec::new(); workers],
            answers: Vec::new(),
            ended: Vec::new(),
            records: BTreeMap::new(),
            told: BTreeMap::new(),
            verifier: Verifier::new(&Plan::tokens()).expect("the secret is a key"),
        }
    }

    pub fn count(&mut self, what: impl Into<String>, more: u64) {
        *self.counts.entry(what.into()).or_default() += more;
    }

    /// Whether what is taken when is learned from the replies.
    pub fn is_observed(&self) -> bool {
        self.plan.rates.is_some()
    }

    // ---- what happens --------------------------------------------------------------------------------------------

    pub fn accept(&mut self, now: Now, worker: usize, handle: Handle, ip: u8) -> Client {
        self.count("accepted", 1);
        self.connections.push(Connection {
            worker,
            handle,
            ip,
            phase: Phase::Greeting { began_ms: now.ms(), until_ms: now.ms() + self.plan.handshake_s * 1_000 },
            person: None,
            grants: Vec::new(),
            ids: Ids::default(),
            revoked: Vec::new(),
            since_ms: 0,
            told_expiring: false,
            unsure: false,
            subscriptions: BTreeMap::new(),
            expires_at_ms: None,
            ping_at_ms: 0,
            awaits_pong: false,
            items: VecDeque::new(),
            delivered: 0,
            waits_for: None,
            unfinished: None,
            leave_at_ms: None,
            expected: VecDeque::new(),
            sending: 0,
            close_seen: false,
            peer_done: false,
            overflowed: false,
            missing: BTreeMap::new(),
            told: BTreeMap::new(),
            tallies: Tallies::default(),
        });
        self.connections.len() - 1
    }

    /// Bytes of the client's stream were handed in.
    pub fn received(&mut self, now: Now, client: Client, bytes: usize) {
        let connection = &mut self.connections[client];
        connection.delivered += bytes as u64;
        connection.awaits_pong = false;
        if !self.is_observed() && self.connections[client].waits_for.is_none() {
            self.run(now, client);
        }
        self.settle(now);
    }

    /// The peer ended the stream, or a write failed.
    pub fn ended(&mut self, client: Client, failed: bool) {
        match self.connections[client].phase {
            Phase::Greeting { .. } => {
                if !failed {
                    self.count("handshakes_abandoned", 1);
                }
                self.leave(client, Phase::Gone);
            }
            Phase::Open => self.leave(client, Phase::Gone),
            Phase::Closing { .. } if failed => self.leave(client, Phase::Gone),
            Phase::Closing { .. } | Phase::Gone => {}
        }
    }

    pub fn sent(&mut self, client: Client) {
        self.connections[client].sending = 0;
    }

    /// The worker looks into its rings and at those who wait for room.
    pub fn rings(&mut self, now: Now, worker: usize) {
        self.batch += 1;
        self.unrelieved[worker] = true;
        for _ in 0..RING_ENTRIES_PER_TURN {
            let Some((from, parcel)) = self.next_parcel(worker) else {
                self.unrelieved[worker] = false;
                break;
            };
            match parcel {
                Parcel::Event(event) => {
                    self.count("events_from_workers", 1);
                    self.deliver(worker, &event, None);
                }
                Parcel::Counted(event, call) => {
                    let count = self.deliver(worker, &event, None);
                    self.answers.push((call, worker, Answer::Count(count)));
                }
                Parcel::Command(Act::Settle, call) => {
                    self.publish(worker);
                    let others = (0..self.plan.workers).filter(|from| *from != worker);
                    let ahead = others.map(|from| (from, self.depth(from, worker).1)).collect();
                    self.settling[worker].push((call, ahead));
                }
                Parcel::Command(act, call) => {
                    // What came before it goes out before what comes of it, and that before what comes after it.
                    self.batch += 1;
                    let answer = self.command(now, worker, &act);
                    self.answers.push((call, worker, answer));
                    self.batch += 1;
                }
            }
            self.settle(now);
            self.answer_settled(worker, from);
        }
        self.batch += 1;
        if !self.is_observed() {
            self.retry(now, worker);
        }
        self.settle(now);
    }

    /// An entry of this ring was taken: those who waited for what stood there before them are answered.
    fn answer_settled(&mut self, worker: usize, from: usize) {
        for (_, ahead) in &mut self.settling[worker] {
            ahead.entry(from).and_modify(|left| *left = left.saturating_sub(1));
        }
        for (call, _) in self.settling[worker].extract_if(.., |(_, ahead)| ahead.values().all(|left| *left == 0)) {
            self.answers.push((call, worker, Answer::Count(0)));
        }
    }

    /// The worker's deadline has come.
    pub fn time(&mut self, now: Now, worker: usize) {
        for client in self.of_worker(worker) {
            let connection = &self.connections[client];
            match connection.phase {
                _ if self.is_observed() => {}
                // G1: whoever has never spoken is not waited for.
                Phase::Greeting { .. } if self.silent_until_ms(connection).is_some_and(|at_ms| now.ms() >= at_ms) => {
                    self.count("handshakes_abandoned", 1);
                    self.leave(client, Phase::Gone);
                }
                Phase::Greeting { until_ms, .. } if now.ms() >= until_ms => {
                    self.count("handshakes_abandoned", 1);
                    if self.connections[client].delivered == 0 {
                        self.leave(client, Phase::Gone);
                    } else {
                        self.refuse(now, client, Code::Timeout, 408);
                    }
                }
                Phase::Open => self.look_at(now, client),
                _ => {}
            }
        }
        self.settle(now);
    }

    /// The worker was told to let everybody go (G1).
    pub fn drain(&mut self, now: Now, worker: usize) {
        self.drained_ms[worker] = Some(now.ms());
        let drain_ms = self.plan.drain_s * 1_000;
        let mut open = self.of_worker(worker);
        open.retain(|client| self.connections[*client].phase == Phase::Open);
        open.sort_by_key(|client| self.connections[*client].handle.slot);
        let count = open.len() as u64;
        for (place, client) in open.into_iter().enumerate() {
            let (worker, workers) = (worker as u64, self.plan.workers as u64);
            let after_ms = drain_ms * (place as u64 * workers + worker) / (count * workers);
            self.connections[client].leave_at_ms = Some(now.ms() + after_ms);
            let wait_ms = (drain_ms - after_ms).max(1_000);
            self.say(client, format!(r#"{{"type":"system","event":"draining","reconnect_in_ms":{wait_ms}}}"#));
        }
        self.settle(now);
    }

    /// What the worker pushed is visible to the others.
    pub fn publish(&mut self, worker: usize) {
        for (_, ring) in self.rings.iter_mut().filter(|((from, _), _)| *from == worker) {
            ring.visible.append(&mut ring.staged);
        }
    }

    // ---- what can be asked ---------------------------------------------------------------------------------------

    /// Entries in a ring: all, and those that its consumer sees.
    pub fn depth(&self, from: usize, to: usize) -> (usize, usize) {
        let ring = &self.rings[&(from, to)];
        (ring.visible.len() + ring.staged.len(), ring.visible.len())
    }

    /// Whether the worker must not sleep: an entry is there, or room for somebody who waits.
    pub fn has_work(&self, worker: usize) -> bool {
        self.has_work_from(worker, |_| true)
    }

    /// The same, of what it must have been rung for.
    pub fn has_rung_work(&self, worker: usize) -> bool {
        self.has_work_from(worker, |to| !self.unrelieved[to])
    }

    fn has_work_from(&self, worker: usize, rings: impl Fn(usize) -> bool) -> bool {
        let entries = (0..=self.plan.workers).any(|from| from != worker && self.depth(from, worker).1 > 0);
        let waits = |client: &Client| self.connections[*client].waits_for.as_ref();
        entries
            || self.waiting[worker]
                .iter()
                .filter_map(waits)
                .flatten()
                .any(|to| rings(*to) && self.has_room(worker, *to))
    }

    pub fn has_room(&self, from: usize, to: usize) -> bool {
        self.depth(from, to).0 < self.plan.ring_entries
    }

    /// When the worker must be looked at again.
    pub fn deadline_ms(&self, worker: usize, now: Now) -> Option<u64> {
        let of_open = |connection: &Connection| {
            let notice_ms = if connection.told_expiring { 0 } else { 60_000 };
            let expires = connection.expires_at_ms.map(|at| now.ms() + at.saturating_sub(now.unix_ms + notice_ms));
            let unfinished = connection.unfinished.map(|(_, since)| since + 30_000);
            [Some(connection.ping_at_ms), expires, unfinished, connection.leave_at_ms].into_iter().flatten().min()
        };
        let deadline = |connection: &Connection| match connection.phase {
            Phase::Greeting { until_ms, .. } => self.silent_until_ms(connection).into_iter().chain([until_ms]).min(),
            Phase::Closing { until_ms } => Some(until_ms),
            Phase::Open => of_open(connection),
            Phase::Gone => None,
        };
        let own = self.connections.iter().filter(|connection| connection.worker == worker);
        own.filter_map(deadline).min()
    }

    /// When a draining worker lets somebody go who has never spoken.
    fn silent_until_ms(&self, connection: &Connection) -> Option<u64> {
        let Phase::Greeting { began_ms, .. } = connection.phase else { return None };
        let drained_ms = self.drained_ms[connection.worker].filter(|_| connection.delivered == 0)?;
        Some(began_ms.max(drained_ms) + HANDSHAKE_GRACE_MS)
    }

    fn of_worker(&self, worker: usize) -> Vec<Client> {
        let own = |client: &Client| {
            let connection = &self.connections[*client];
            connection.worker == worker && connection.phase != Phase::Gone
        };
        (0..self.connections.len()).filter(own).collect()
    }

    // ---- a connection's turn -------------------------------------------------------------------------------------

    /// Takes what is complete, until something must wait.
    fn run(&mut self, now: Now, client: Client) {
        loop {
            let connection = &mut self.connections[client];
            if !matches!(connection.phase, Phase::Greeting { .. } | Phase::Open) {
                return;
            }
            let Some(item) = connection.items.front() else { break };
            if item.end > connection.delivered {
                break;
            }
            if let Sent::Message { request: Request::Publish { pipe, .. }, .. } = &item.sent {
                let pipe = pipe.clone();
                let full = self.full(client, &pipe);
                if !full.is_empty() {
                    self.count("ring_full", 1);
                    let connection = &mut self.connections[client];
                    connection.unfinished = None;
                    connection.waits_for = Some(full.clone());
                    let worker = connection.worker;
                    self.awaited[worker].extend(full);
                    self.waiting[worker].push_back(client);
                    return;
                }
            }
            let item = self.connections[client].items.pop_front().expect("it was looked at");
            self.take(now, client, item.sent);
        }
        let connection = &mut self.connections[client];
        let begun = connection.items.iter().filter(|item| item.start < connection.delivered);
        connection.unfinished = begun.map(|item| item.start).min().map(|start| match connection.unfinished {
            Some((same, since)) if same == start => (start, since),
            _ => (start, now.ms()),
        });
        if matches!(connection.phase, Phase::Greeting { .. }) {
            connection.unfinished = None;
        }
    }

    /// Those who wait for a ring that has room again try again, oldest first.
    fn retry(&mut self, now: Now, worker: usize) {
        let mut relieved: BTreeSet<usize> =
            self.awaited[worker].iter().copied().filter(|to| self.has_room(worker, *to)).collect();
        self.awaited[worker].retain(|to| !relieved.contains(to));
        for _ in 0..self.waiting[worker].len() {
            if relieved.is_empty() {
                break;
            }
            let Some(client) = self.waiting[worker].pop_front() else { break };
            let connection = &mut self.connections[client];
            let Some(rings) = connection.waits_for.clone() else { continue };
            if rings.is_disjoint(&relieved) {
                self.waiting[worker].push_back(client);
                continue;
            }
            connection.waits_for = None;
            connection.awaits_pong = false;
            self.run(now, client);
            if let Some(rings) = &self.connections[client].waits_for {
                relieved.retain(|to| !rings.contains(to));
            }
        }
    }

    fn look_at(&mut self, now: Now, client: Client) {
        let connection = &mut self.connections[client];
        let unfinished = connection.unfinished.is_some_and(|(_, since)| now.ms() >= since + 30_000);
        if connection.expires_at_ms.is_some_and(|at| now.unix_ms >= at) {
            self.close(now, client, 4401, "expired", false);
        } else if connection.leave_at_ms.is_some_and(|at| now.ms() >= at) {
            let reason = format!("retry_after_ms={}", (self.plan.drain_s * 1_000).max(1_000));
            self.close(now, client, 4503, &reason, false);
        } else if unfinished || (connection.awaits_pong && now.ms() >= connection.ping_at_ms) {
            self.close(now, client, 4408, "no answer to ping", false);
        } else {
            if now.ms() >= connection.ping_at_ms {
                connection.ping_at_ms = now.ms() + self.plan.ping_s * 1_000;
                connection.awaits_pong = connection.waits_for.is_none();
                self.count("pings", 1);
                self.control(client, 9, Vec::new());
            }
            self.tell_expiring(client);
        }
    }

    /// C29
    fn tell_expiring(&mut self, client: Client) {
        let connection = &mut self.connections[client];
        let Some(at_ms) = connection.expires_at_ms else { return };
        let in_ms = at_ms.saturating_sub(self.unix_ms);
        if !connection.told_expiring && in_ms <= 60_000 {
            connection.told_expiring = true;
            *self.told.entry("expiring").or_default() += 1;
            self.say(client, format!(r#"{{"type":"system","event":"expiring","in_s":{}}}"#, in_ms.div_ceil(1_000)));
        }
    }

    // ---- handshake and end ---------------------------------------------------------------------------------------

    /// B1, as far as it is configured here.
    pub fn admission(&self, now: Now, client: Client, pass: Option<&Pass>) -> Result<(), Code> {
        let held = |fits: &dyn Fn(&Connection) -> bool| {
            let open = self.connections.iter().filter(|connection| connection.phase == Phase::Open);
            open.filter(|connection| fits(connection)).count() as u32
        };
        let over = |cap: u32, fits: &dyn Fn(&Connection) -> bool| cap != 0 && held(fits) >= cap;
        let ip = self.connections[client].ip;
        if over(self.plan.connections, &|_| true) || over(self.plan.per_ip, &|other| other.ip == ip) {
            return Err(Code::TooManyConnections);
        }
        let Some(pass) = pass else {
            return if self.plan.anonymous { Ok(()) } else { Err(Code::Unauthenticated) };
        };
        if !pass.genuine || pass.expires_at_ms.is_some_and(|at| at <= now.unix_ms) {
            return Err(Code::Unauthenticated);
        }
        if self.table.covers_token(&pass.person, &pass.ids, now.unix_ms) {
            return Err(Code::Revoked);
        }
        let tenant = &pass.person.tenant;
        let same_tenant = |other: &Connection| other.person.as_ref().is_some_and(|person| person.tenant == *tenant);
        let same_person = |other: &Connection| {
            let same = |person: &Person| person.tenant == *tenant && person.id == pass.person.id;
            other.person.as_ref().is_some_and(same)
        };
        if (tenant.is_some() && over(self.plan.per_tenant, &same_tenant)) || over(self.plan.per_user, &same_person) {
            return Err(Code::TooManyConnections);
        }
        Ok(())
    }

    fn greet(&mut self, now: Now, client: Client, pass: Option<Pass>, subprotocol: bool) {
        if let Err(code) = self.admission(now, client, pass.as_ref()) {
            // D12
            let status = if code == Code::Revoked { 401 } else { code.status() };
            return self.refuse(now, client, code, status);
        }
        self.welcome(now, client, pass, subprotocol);
    }

    pub fn welcome(&mut self, now: Now, client: Client, pass: Option<Pass>, subprotocol: bool) {
        self.count("welcomed", 1);
        let connection = &mut self.connections[client];
        connection.phase = Phase::Open;
        connection.ping_at_ms = now.ms() + self.plan.ping_s * 1_000;
        connection.since_ms = now.unix_ms;
        let mut user = "null".to_owned();
        if let Some(pass) = pass {
            user = format!(r#"{{"id":{},"name":null}}"#, quote(&pass.person.id));
            self.install(client, pass);
        }
        let listed = self.listed(client);
        let connection = &self.connections[client];
        let expires = connection.expires_at_ms.map_or(String::new(), |at| format!(r#","expires_at":{at}"#));
        let text = format!(
            r#"{{"type":"welcome","protocol":1,"connection":"{}","user":{user},"pipes":{{{listed}}}{expires},"ping_s":{},"limits":{{"message_bytes":{},"subscriptions":{},"queue_bytes":{}}}}}"#,
            connection.name(),
            self.plan.ping_s,
            self.plan.message_bytes,
            self.plan.subscriptions,
            self.plan.queue_bytes,
        );
        let head = accept_head(subprotocol);
        let (head_bytes, text_bytes) = (head.len(), frame_bytes(text.len()));
        self.append(client, What::Accept(head), head_bytes);
        self.append(client, What::Text(text), text_bytes);
        self.tell_expiring(client);
    }

    pub fn refuse(&mut self, now: Now, client: Client, code: Code, status: u16) {
        self.count(format!("refused[{}]", code.name()), 1);
        self.connections[client].phase = Phase::Closing { until_ms: now.ms() + 1_000 };
        self.append(client, What::Refusal(status), 0);
    }

    pub fn close(&mut self, now: Now, client: Client, code: u16, reason: &str, at_once: bool) {
        self.count(format!("closed[{code}]"), 1);
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        self.close_with(now, client, payload, at_once);
    }

    fn close_with(&mut self, now: Now, client: Client, payload: Vec<u8>, at_once: bool) {
        self.leave(client, Phase::Closing { until_ms: now.ms() + 1_000 });
        let connection = &mut self.connections[client];
        if at_once {
            // But for the answer to the handshake and the welcome behind it, without which nothing could be read.
            let opening = connection.expected.front().is_some_and(|one| matches!(one.what, What::Accept(_)));
            connection.expected.truncate(if opening { 2 } else { 0 });
            connection.missing.clear();
            connection.told.clear();
        }
        let bytes = frame_bytes(payload.len());
        self.append(client, What::Control(8, payload), bytes);
    }

    /// Everything that the connection held is free from here on.
    pub fn leave(&mut self, client: Client, phase: Phase) {
        let connection = &mut self.connections[client];
        connection.phase = phase;
        connection.subscriptions.clear();
        connection.unfinished = None;
        connection.waits_for = None;
        if phase == Phase::Gone {
            connection.expected.clear();
        }
    }

    /// Those whose queue overflowed are closed.
    fn settle(&mut self, now: Now) {
        for client in std::mem::take(&mut self.too_slow) {
            if self.connections[client].phase == Phase::Open {
                self.close(now, client, 4413, "too slow", true);
            }
        }
    }

    // ---- queues --------------------------------------------------------------------------------------------------

    /// Queues a reply or the like. False: there is no room.
    pub fn say(&mut self, client: Client, text: String) -> bool {
        let bytes = frame_bytes(text.len());
        self.queue(client, What::Text(text), bytes, client, false)
    }

    fn control(&mut self, client: Client, opcode: u8, payload: Vec<u8>) {
        let bytes = frame_bytes(payload.len());
        self.queue(client, What::Control(opcode, payload), bytes, client, false);
    }

    /// False: there is no room. The connection will be closed, or it is an event that is left out.
    fn queue(&mut self, client: Client, what: What, bytes: usize, lane: Client, optional: bool) -> bool {
        let fits = self.fits(client, bytes);
        let drops = self.plan.when_slow == WhenSlow::DropOldest;
        let connection = &mut self.connections[client];
        let all: usize = connection.expected.iter().map(|one| one.bytes).sum();
        if connection.sending + all + bytes > self.plan.queue_bytes {
            connection.overflowed = true;
        }
        if connection.unsure {
            connection.expected.push_back(Expect { what, batch: self.batch, lane, optional: true, bytes });
            return false;
        }
        let may_drop = drops && what.is_event();
        // Once something found no room nothing more is queued: it would follow a gap.
        if (!fits && !may_drop) || self.too_slow.contains(&client) {
            self.too_slow.push(client);
            return false;
        }
        self.connections[client].expected.push_back(Expect { what, batch: self.batch, lane, optional, bytes });
        fits
    }

    /// Whether so many bytes find room, be it that of events that may be left out.
    pub fn fits(&self, client: Client, bytes: usize) -> bool {
        let drops = self.plan.when_slow == WhenSlow::DropOldest;
        let connection = &self.connections[client];
        let kept = connection.expected.iter().filter(|one| !drops || !one.what.is_event()).map(|one| one.bytes);
        connection.sending + kept.sum::<usize>() + bytes <= self.plan.queue_bytes
    }

    /// Queues what goes out whatever the limit.
    fn append(&mut self, client: Client, what: What, bytes: usize) {
        let expect = Expect { what, batch: self.batch, lane: client, optional: false, bytes };
        self.connections[client].expected.push_back(expect);
    }

    // ---- pipes ---------------------------------------------------------------------------------------------------

    pub fn may(&self, client: Client, pipe: &str, right: Right) -> bool {
        self.decide(client, pipe, right).is_ok()
    }

    /// The code of the refusal otherwise.
    fn decide(&self, client: Client, pipe: &str, right: Right) -> Result<(), Code> {
        if self.is_revoked(client, pipe) {
            return Err(Code::Revoked);
        }
        if self.is_granted(client, pipe, right) { Ok(()) } else { Err(Code::Forbidden) }
    }

    fn is_granted(&self, client: Client, pipe: &str, right: Right) -> bool {
        let connection = &self.connections[client];
        rights::may(connection.person.as_ref(), &connection.grants, &self.plan.definitions, pipe, right)
    }

    /// Other workers with subscribers.
    pub fn interested(&self, worker: usize, pipe: &str) -> BTreeSet<usize> {
        let subscribed = self.connections.iter().filter(|one| one.subscriptions.contains_key(pipe));
        subscribed.map(|one| one.worker).filter(|other| *other != worker).collect()
    }

    /// The rings without room that a publish of this connection would need. None where it is refused anyway.
    fn full(&self, client: Client, pipe: &str) -> BTreeSet<usize> {
        if !self.may(client, pipe, Right::Publish) {
            return BTreeSet::new();
        }
        let worker = self.connections[client].worker;
        self.interested(worker, pipe).into_iter().filter(|to| !self.has_room(worker, *to)).collect()
    }

    pub fn push(&mut self, from: usize, to: usize, parcel: Parcel) {
        assert!(self.has_room(from, to), "a publish was taken although the ring {from}→{to} is full");
        self.rings.get_mut(&(from, to)).expect("there is a ring for each pair").staged.push_back(parcel);
    }

    /// The next entry of a worker's rings, in the turns that `Port::pop` takes: sixteen of one, then the next ring.
    fn next_parcel(&mut self, worker: usize) -> Option<(usize, Parcel)> {
        let participants = self.plan.workers + 1;
        for _ in 0..=participants {
            let (from, entries) = &mut self.turns[worker];
            if *entries < 16
                && let Some(ring) = self.rings.get_mut(&(*from, worker))
                && let Some(parcel) = ring.visible.pop_front()
            {
                *entries += 1;
                return Some((*from, parcel));
            }
            (*from, *entries) = ((*from + 1) % participants, 0);
        }
        None
    }

    /// Delivers to everybody on this worker who is subscribed now. Returns how many queues took it.
    fn deliver(&mut self, worker: usize, parcel: &Event, skip: Option<Client>) -> u64 {
        let mut delivered = 0;
        for client in self.of_worker(worker) {
            let connection = &self.connections[client];
            let unsure = self.volatile.contains(&(client, parcel.pipe.clone())) && client != parcel.publisher;
            let wanted = match connection.subscriptions.get(&parcel.pipe) {
                Some(events) => events.is_empty() || events.contains(&parcel.event),
                None => false,
            };
            if skip == Some(client) || !(wanted || unsure) {
                continue;
            }
            assert!(unsure || self.may(client, &parcel.pipe, Right::Subscribe), "the model subscribed without a right");
            if unsure && !self.may(client, &parcel.pipe, Right::Subscribe) {
                continue;
            }
            let bytes = frame_bytes(parcel.text.len());
            let what = What::Event { pipe: parcel.pipe.clone(), text: parcel.text.clone(), number: parcel.number };
            if self.queue(client, what, bytes, parcel.publisher, unsure) {
                self.count("events_out", 1);
                delivered += 1;
            }
        }
        delivered
    }
}
