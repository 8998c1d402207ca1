//! Low rates: when a message is taken depends on buckets and on whose turn it is, and the policy may change. So here the
//! model learns from the replies what was taken, and checks what is promised: every message gets its one reply, in
//! order; never more is taken than the rate allows, summed rates included; only what is over a rate is refused; and
//! whatever was taken has its full effect.
//!
//! Where several connections had their turn in one call, the order between them is not known: a delivery to one whose
//! subscription changed in that very call may be there or not.

use std::collections::{BTreeMap, BTreeSet};

use pipeward::protocol::codes::Code;
use pipeward::protocol::frame::server_frame;
use pipeward::shard::input::Now;

use super::wire::{Request, Sent, What};
use super::{Client, Model, Phase};
use crate::plan::PIPES;

/// A bucket with tokens, filled by time.
#[derive(Clone, Debug)]
pub struct Budget {
    per_s: f64,
    burst: f64,
    tokens: f64,
    at_ns: u64,
}

/// What rounding may amount to, in tokens.
const SLACK: f64 = 0.001;

impl Budget {
    fn new((per_s, burst): (f64, f64), now: Now) -> Budget {
        Budget { per_s, burst, tokens: burst, at_ns: now.mono_ns }
    }

    fn has(&mut self, now: Now, cost: f64) -> bool {
        let passed_s = (now.mono_ns - self.at_ns) as f64 / 1e9;
        self.tokens = (self.tokens + passed_s * self.per_s).min(self.burst);
        self.at_ns = now.mono_ns;
        self.tokens + SLACK >= cost
    }

    fn spend(&mut self, now: Now, cost: f64) -> bool {
        let has = self.has(now, cost);
        self.tokens -= cost;
        has
    }
}

/// The name of a budget, its rate where there is one, and what is taken from it.
type Cost = (&'static str, Option<(f64, f64)>, f64);

/// One connection's own budgets, and since when it is refused.
#[derive(Debug, Default)]
pub struct Tallies {
    own: BTreeMap<&'static str, Budget>,
    refused_since_ns: Option<u64>,
    told: u64,
}

/// What a connection's frames say that was done in one call.
enum Done {
    Welcomed,
    Taken(Sent),
    Refused(Sent),
    Throttled,
    Closed(u16),
}

impl Model {
    /// One call of a shard is over, and this went out: for each connection all frames.
    pub fn observe(&mut self, now: Now, fresh: BTreeMap<Client, Vec<u8>>) {
        let mut turns: Vec<(Client, Vec<Done>)> = Vec::new();
        for (client, bytes) in &fresh {
            turns.push((*client, self.read(now, *client, bytes)));
        }
        turns.retain(|(_, done)| !done.is_empty());
        self.batch += 1;
        if turns.len() > 1 {
            self.volatile = turns.iter().flat_map(|(client, done)| changed(*client, done)).collect();
        }
        for (client, done) in turns {
            for one in done {
                self.redo(now, client, one);
            }
        }
        self.volatile.clear();
        // Only now: for a summed rate the turns of others in this call count too.
        for (client, sent) in std::mem::take(&mut self.refusals) {
            assert!(self.is_over(now, client, &sent), "refused within every rate: {sent:?}");
        }
        for (client, bytes) in fresh {
            self.written(client, &bytes);
            self.sent(client);
        }
        for connection in &mut self.connections {
            connection.expected.retain(|one| !one.optional);
        }
    }

    /// Reads what was done off the frames, and takes it from what the client sent.
    fn read(&mut self, now: Now, client: Client, bytes: &[u8]) -> Vec<Done> {
        let mut done = Vec::new();
        let mut rest = bytes;
        if let Phase::Greeting { until_ms, .. } = self.connections[client].phase {
            if bytes.starts_with(b"HTTP/1.1 408 ") {
                assert!(now.ms() >= until_ms, "408 too early");
                self.refuse(now, client, Code::Timeout, 408);
                return done;
            }
            let item = self.connections[client].items.pop_front().expect("nothing was sent");
            assert!(item.end <= self.connections[client].delivered, "an answer to half a handshake");
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                self.refused_handshake(now, client, item.sent, bytes);
                return done;
            }
            assert!(self.spend_handshake(now), "more handshakes than the rate allows");
            done.extend([Done::Welcomed, Done::Taken(item.sent)]);
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole response");
            rest = &bytes[end + 4..];
        }
        while let Some(frame) = server_frame(rest) {
            rest = &rest[frame.size..];
            let text = std::str::from_utf8(frame.payload).unwrap_or_default();
            if frame.opcode == 8 {
                let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let front = self.connections[client].items.front();
                match front.map(|item| &item.sent) {
                    Some(Sent::Close(own)) if *own == code => done.push(Done::Taken(self.next_item(client))),
                    Some(Sent::Broken(own)) if Some(*own) == code => done.push(Done::Taken(self.next_item(client))),
                    _ => done.push(Done::Closed(code.unwrap_or_default())),
                }
            } else if text.starts_with(r#"{"type":"reply""#) || text.starts_with(r#"{"type":"pong""#) {
                let sent = self.next_item(client);
                if text.contains(r#""code":"RATE_LIMITED""#) {
                    done.push(Done::Refused(sent));
                } else {
                    done.push(Done::Taken(sent));
                }
            } else if text.starts_with(r#"{"type":"system","event":"throttled""#) {
                done.push(Done::Throttled);
            }
        }
        done
    }

    fn next_item(&mut self, client: Client) -> Sent {
        let connection = &mut self.connections[client];
        let item = connection.items.pop_front().expect("a reply to nothing");
        assert!(item.end <= connection.delivered, "a reply before its message was complete");
        item.sent
    }

    fn redo(&mut self, now: Now, client: Client, done: Done) {
        match done {
            Done::Welcomed => {}
            Done::Taken(Sent::Head { pass, subprotocol }) => {
                assert_eq!(self.admission(now, client, pass.as_ref()), Ok(()), "welcomed");
                self.welcome(now, client, pass, subprotocol);
            }
            Done::Taken(sent) => {
                self.spend(now, client, &sent);
                self.take(now, client, sent);
            }
            Done::Refused(sent) => {
                self.refusals.push((client, sent.clone()));
                let (Sent::Message { id: Some(id), .. } | Sent::Malformed { id: Some(id), .. }) = sent else {
                    panic!("refused for its rate: {sent:?}");
                };
                let text = format!(r#"{{"type":"reply","id":{id},"ok":false,"code":"RATE_LIMITED""#);
                self.append(client, What::TextBegins(text), 0);
                self.connections[client].tallies.refused_since_ns.get_or_insert(now.mono_ns);
            }
            Done::Throttled => {
                let tallies = &mut self.connections[client].tallies;
                tallies.told += 1;
                assert!(tallies.refused_since_ns.is_some(), "throttled without a refusal");
                self.append(client, What::TextBegins(r#"{"type":"system","event":"throttled""#.into()), 0);
            }
            Done::Closed(code) => self.closed(now, client, code),
        }
    }

    fn closed(&mut self, now: Now, client: Client, code: u16) {
        let connection = &self.connections[client];
        let throttle_s = self.plan.rates.as_ref().map_or(0, |rates| rates.throttle_s);
        match code {
            4429 => {
                let since = connection.tallies.refused_since_ns.unwrap_or(now.mono_ns);
                let lasted_ns = now.mono_ns - since;
                assert!(lasted_ns >= throttle_s * 1_000_000_000, "4429 after {lasted_ns} ns");
                assert!(throttle_s == 0 || connection.tallies.told > 0, "4429 without throttled");
            }
            4503 => assert!(connection.leave_at_ms.is_some_and(|at| now.ms() >= at), "4503 too early"),
            4408 => assert!(connection.items.iter().any(|item| item.end == u64::MAX), "4408 for nothing"),
            _ => panic!("closed with {code} for nothing"),
        }
        self.leave(client, Phase::Closing { until_ms: now.ms() + 1_000 });
        self.append(client, What::Close(code), 0);
    }

    fn refused_handshake(&mut self, now: Now, client: Client, sent: Sent, bytes: &[u8]) {
        let Sent::Head { pass, .. } = sent else { panic!("a client begins with its head") };
        let text = String::from_utf8_lossy(bytes);
        if text.contains(r#""code":"RATE_LIMITED""#) {
            assert!(!self.has_handshake(now, 1.0 + 2.0 * SLACK), "a handshake within the rate was refused");
            return self.refuse(now, client, Code::RateLimited, 429);
        }
        assert!(self.spend_handshake(now), "more handshakes than the rate allows");
        match self.admission(now, client, pass.as_ref()) {
            Ok(()) => panic!("refused for nothing: {text}"),
            Err(code) => self.refuse(now, client, code, code.status()),
        }
    }

    // ---- budgets -------------------------------------------------------------------------------------------------

    fn has_handshake(&mut self, now: Now, cost: f64) -> bool {
        let per_s = f64::from(self.plan.rates.as_ref().map_or(0, |rates| rates.handshakes_per_s));
        let budget = self.handshakes.get_or_insert_with(|| Budget::new((per_s, per_s), now));
        per_s == 0.0 || budget.has(now, cost)
    }

    fn spend_handshake(&mut self, now: Now) -> bool {
        let has = self.has_handshake(now, 1.0);
        if let Some(budget) = &mut self.handshakes {
            budget.tokens -= 1.0;
        }
        has
    }

    /// The budgets that something counts against, with its cost.
    fn costs(&self, sent: &Sent) -> Vec<Cost> {
        let Some(rates) = &self.plan.rates else { return Vec::new() };
        if !matches!(sent, Sent::Message { .. } | Sent::Malformed { .. }) {
            return Vec::new();
        }
        let mut costs = vec![("message", rates.message, 1.0)];
        match sent {
            Sent::Message { request: Request::Publish { .. }, .. } => costs.push(("publish", rates.publish, 1.0)),
            Sent::Message { request: Request::Subscribe { .. }, .. } => {
                costs.push(("subscribe", rates.subscribe, 1.0));
            }
            _ => {}
        }
        costs
    }

    fn person_key(&self, client: Client) -> Option<(Option<String>, String)> {
        self.connections[client].person.as_ref().map(|person| (person.tenant.clone(), person.id.clone()))
    }

    /// The summed budget that a publish counts against.
    fn summed(&mut self, now: Now, client: Client, sent: &Sent) -> Option<&mut Budget> {
        let rate = self.plan.rates.as_ref()?.user_publish?;
        let Sent::Message { request: Request::Publish { .. }, .. } = sent else { return None };
        let key = self.person_key(client)?;
        Some(self.people.entry(key).or_insert_with(|| Budget::new(rate, now)))
    }

    fn is_over(&mut self, now: Now, client: Client, sent: &Sent) -> bool {
        let mut over = self.summed(now, client, sent).is_some_and(|budget| !budget.has(now, 1.0 + 2.0 * SLACK));
        for (name, rate, cost) in self.costs(sent) {
            if let Some(rate) = rate {
                let own = &mut self.connections[client].tallies.own;
                let budget = own.entry(name).or_insert_with(|| Budget::new(rate, now));
                over |= !budget.has(now, cost + 2.0 * SLACK);
            }
        }
        over
    }

    fn spend(&mut self, now: Now, client: Client, sent: &Sent) {
        for (name, rate, cost) in self.costs(sent) {
            if let Some(rate) = rate {
                let budget = &mut self.connections[client].tallies.own;
                let budget = budget.entry(name).or_insert_with(|| Budget::new(rate, now));
                assert!(budget.spend(now, cost), "more {name} than its rate {rate:?} allows: {budget:?}");
            }
        }
        if let Some(budget) = self.summed(now, client, sent) {
            assert!(budget.spend(now, 1.0), "more publishes of one person than the summed rate allows: {budget:?}");
        }
    }
}

/// The subscriptions that something changes.
fn changed(client: Client, done: &[Done]) -> BTreeSet<(Client, String)> {
    let mut changed = BTreeSet::new();
    for one in done {
        match one {
            Done::Taken(Sent::Message {
                request: Request::Subscribe { pipes, .. } | Request::Unsubscribe { pipes, .. },
                ..
            }) => changed.extend(pipes.iter().map(|pipe| (client, pipe.clone()))),
            Done::Closed(_) | Done::Taken(Sent::Close(_) | Sent::Broken(_)) => {
                changed.extend(PIPES.iter().map(|pipe| (client, (*pipe).to_owned())));
            }
            _ => {}
        }
    }
    changed
}
