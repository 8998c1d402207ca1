//! Presence over several workers: real shards and a real mesh, driven by bytes, with workers that sleep until their bell
//! rings. What each client knows is put together from its own frames alone, and must be what is true.
//!
//! GD-4, INVARIANTS 4, 10, 12; rulings A4, B21, C8, C9, C11, C17, D14, D16, E11.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pipeward::auth::token::sign;
use pipeward::bounds::{PRESENCE_GATHER_MS, PRESENCE_LEASE_MS, PRESENCE_LISTED_AGAIN, PRESENCE_LISTED_MAX};
use pipeward::config::{Config, KeySource, Rates, TokenSettings, WhenSlow};
use pipeward::mesh::Bell;
use pipeward::mesh::port::{Port, mesh};
use pipeward::protocol::frame::{append_client_frame, opcode};
use pipeward::protocol::names::Template;
use pipeward::rules::definition::{PipeRules, Right};
use pipeward::shard::command::{Act, Command, Person};
use pipeward::shard::connection::Handle;
use pipeward::shard::input::{Input, Now};
use pipeward::shard::output::Output;
use pipeward::shard::revocation::{FOR_EVER, Revocation, Taken};
use pipeward::shard::shared::{Settings, Shared};
use pipeward::shard::{MeshParcel, Shard};
use proptest::prelude::*;
use serde_json::{Value, json};

const SECRET: &[u8] = b"only for tests of presence, 32 b";
const ALL: &str = r#"{"subscribe":true,"publish":true,"presence":true}"#;

struct Worker {
    shard: Shard,
    bell: Arc<AtomicU64>,
    heard: u64,
    asleep: bool,
    /// It has done its work and is about to sleep; others may act in between.
    done: bool,
    clients: BTreeMap<(u32, u32), usize>,
}

#[derive(Default)]
struct Client {
    worker: usize,
    handle: Option<Handle>,
    raw: Vec<u8>,
    welcomed: bool,
    /// Messages not yet looked at.
    inbox: Vec<Value>,
    /// Writes are not finished while this holds.
    slow: bool,
    writing: bool,
}

struct World {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    control: Port<MeshParcel>,
    clients: Vec<Client>,
    mono_ms: u64,
}

impl World {
    fn new(workers: usize) -> World {
        World::with(workers, 64, |_| {})
    }

    fn with(workers: usize, ring_entries: usize, change: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::new(workers);
        config.limits.rates = Rates::default();
        config.auth.anonymous = true;
        config.edge.ping_s = 3_600;
        config.auth.token = Some(TokenSettings {
            key: KeySource::HmacSecret(SECRET.to_vec()),
            issuer: None,
            audience: None,
            leeway_s: 0,
            require_exp: false,
        });
        Arc::make_mut(&mut config.rules).pipes.push(PipeRules {
            subscribe: Right::Always,
            publish: Right::Always,
            presence: Right::Always,
            ..PipeRules::new(Template::parse("open-{name}").expect("a name"))
        });
        change(&mut config);
        let shared = Shared::new(Settings::new(config).expect("a usable key"), 7);
        let bells: Vec<Arc<AtomicU64>> = (0..=workers).map(|_| Arc::default()).collect();
        let boxed = bells.iter().cloned().map(|bell| {
            Box::new(move || {
                bell.fetch_add(1, Relaxed);
            }) as Box<dyn Bell>
        });
        let mut ports = mesh(boxed.collect(), ring_entries);
        let control = ports.pop().expect("the last one");
        let mut world = World { shared, workers: Vec::new(), control, clients: Vec::new(), mono_ms: 1_000 };
        for (port, bell) in ports.into_iter().zip(bells) {
            let shard = Shard::new(world.shared.clone(), port, world.now());
            world.workers.push(Worker { shard, bell, heard: 0, asleep: false, done: false, clients: BTreeMap::new() });
        }
        world
    }

    fn now(&self) -> Now {
        Now { mono_ns: self.mono_ms * 1_000_000, unix_ms: 1_700_000_000_000 + self.mono_ms }
    }

    /// A user with these grants (a JSON object) on this worker. The user may be `tenant/user`, or empty for nobody.
    fn connect(&mut self, worker: usize, user: &str, pipes: &str) -> usize {
        let token = match user.split_once('/') {
            _ if user.is_empty() => String::new(),
            Some((tenant, user)) => claims(user, &format!(r#""tenant":"{tenant}","#), pipes),
            None => claims(user, "", pipes),
        };
        let authorization = if token.is_empty() { token } else { format!("Authorization: Bearer {token}\r\n") };
        let mut head = format!(
            "GET /v1/connect HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{authorization}\r\n"
        )
        .into_bytes();
        let now = self.now();
        let client = self.clients.len();
        let one = self.awake(worker);
        let handle = one.shard.accept(now, SocketAddr::from(([127, 0, 0, 1], 1000)));
        one.clients.insert((handle.slot, handle.generation), client);
        one.shard.handle(now, Input::Received { connection: handle, bytes: &mut head });
        self.clients.push(Client { worker, handle: Some(handle), ..Client::default() });
        client
    }

    fn send(&mut self, client: usize, message: &Value) {
        let mut frame = Vec::new();
        append_client_frame(&mut frame, true, opcode::TEXT, message.to_string().as_bytes(), [1, 2, 3, 4]);
        let Some(connection) = self.clients[client].handle else { return };
        let (now, worker) = (self.now(), self.clients[client].worker);
        self.awake(worker).shard.handle(now, Input::Received { connection, bytes: &mut frame });
    }

    fn close(&mut self, client: usize) {
        let Some(connection) = self.clients[client].handle else { return };
        let (now, worker) = (self.now(), self.clients[client].worker);
        self.awake(worker).shard.handle(now, Input::Ended { connection });
    }

    fn awake(&mut self, worker: usize) -> &mut Worker {
        let one = &mut self.workers[worker];
        if one.asleep {
            one.shard.port().disarm();
            one.asleep = false;
        }
        one
    }

    /// The first half of a worker's tick, its work, or the second, going to sleep. False: it sleeps on.
    fn turn(&mut self, index: usize) -> bool {
        let now = self.now();
        let worker = &mut self.workers[index];
        if std::mem::take(&mut worker.done) {
            worker.go_to_sleep();
            return true;
        }
        let rung = worker.bell.load(Relaxed);
        let due = worker.shard.deadline_ms().is_some_and(|at_ms| at_ms <= now.ms());
        if worker.asleep && rung == worker.heard && !due {
            return false;
        }
        worker.heard = rung;
        let worker = self.awake(index);
        worker.shard.handle(now, Input::Rings);
        if due {
            worker.shard.handle(now, Input::Time);
        }
        let mut outputs = Vec::new();
        worker.shard.take_outputs(&mut outputs);
        for output in outputs {
            if let Output::Close { connection, .. } = output
                && let Some(client) = self.workers[index].clients.remove(&(connection.slot, connection.generation))
            {
                self.clients[client].handle = None;
            }
        }
        while let Some((connection, chunk)) = self.workers[index].shard.next_write() {
            let Some(client) = self.workers[index].clients.get(&(connection.slot, connection.generation)) else {
                continue;
            };
            let client = &mut self.clients[*client];
            client.take(chunk.as_ref());
            client.writing = client.slow;
            if !client.slow {
                self.workers[index].shard.handle(now, Input::Sent { connection, ok: true });
            }
        }
        self.workers[index].shard.publish();
        self.workers[index].done = true;
        true
    }

    /// Until all workers sleep.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let turns = (0..self.workers.len()).filter(|worker| self.turn(*worker)).count();
            if turns == 0 {
                return;
            }
        }
        panic!("the workers do not come to rest");
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            self.mono_ms += 50;
            self.settle();
        }
    }

    /// The write under way is done; from now on writes end at once.
    fn recover(&mut self, client: usize) {
        let now = self.now();
        let one = &mut self.clients[client];
        one.slow = false;
        if std::mem::take(&mut one.writing)
            && let Some(connection) = one.handle
        {
            let worker = one.worker;
            self.awake(worker).shard.handle(now, Input::Sent { connection, ok: true });
        }
    }

    /// The messages that came since, presence and replies and all.
    fn take(&mut self, client: usize) -> Vec<Value> {
        std::mem::take(&mut self.clients[client].inbox)
    }

    /// Sends and gives the reply; what else came stays.
    fn ask(&mut self, client: usize, mut message: Value) -> Value {
        message["id"] = json!("ask");
        self.send(client, &message);
        self.settle();
        let inbox = &mut self.clients[client].inbox;
        let place = inbox.iter().position(|one| one["id"] == "ask").expect("a reply");
        inbox.remove(place)
    }

    fn presence_frames(&mut self, client: usize) -> Vec<Value> {
        self.take(client).into_iter().filter(|message| message["type"] == "presence").collect()
    }

    fn revoke(&mut self, user: &str, pipe: &str) {
        let person = Person { tenant: None, user: user.into() };
        let taken = Taken::Pipe(pipe.into());
        let revocation = Arc::new(Revocation { person, taken, until_ms: FOR_EVER, until_authorized_after_ms: None });
        self.shared.revocations.insert(revocation.clone());
        for worker in 0..self.workers.len() {
            let command = Command { act: Act::Revoke(revocation.clone()), answer: None };
            assert!(self.control.push(worker, MeshParcel::Command(Box::new(command))).is_ok());
        }
        self.control.publish();
    }
}

impl Worker {
    fn go_to_sleep(&mut self) {
        let shard = &mut self.shard;
        if shard.has_writes() || !shard.port().arm() {
            return;
        }
        if shard.has_news() {
            shard.port().disarm();
        } else {
            self.asleep = true;
        }
    }
}

impl Client {
    /// Reads what was written: the end of the handshake first, then frames.
    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        if !self.welcomed {
            let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            assert!(self.raw.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&self.raw));
            self.raw.drain(..end + 4);
            self.welcomed = true;
        }
        while self.raw.len() >= 2 {
            let (header, length) = match self.raw[1] {
                126 => (4, usize::from(u16::from_be_bytes([self.raw[2], self.raw[3]]))),
                127 => (10, u64::from_be_bytes(self.raw[2..10].try_into().expect("eight")) as usize),
                short => (2, usize::from(short)),
            };
            if self.raw[0] & 15 == opcode::TEXT {
                self.inbox.push(serde_json::from_slice(&self.raw[header..header + length]).expect("JSON"));
            }
            self.raw.drain(..header + length);
        }
    }
}

fn claims(user: &str, more: &str, pipes: &str) -> String {
    sign(SECRET, &format!(r#"{{"sub":"{user}",{more}"pipes":{pipes}}}"#))
}

fn granted(pipe: &str) -> String {
    format!(r#"{{"{pipe}":{ALL}}}"#)
}

fn subscribe(pipe: &str, presence: bool) -> Value {
    json!({"type": "subscribe", "pipe": pipe, "presence": presence})
}

fn users(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(|member| member["user"].as_str()).collect()
}

// C9, C17, B21
#[test]
fn a_user_on_several_workers_is_one_member_and_joins_and_leaves_once() {
    let mut world = World::new(3);
    let first = world.connect(0, "ann", &granted("a"));
    let second = world.connect(1, "ann", &granted("a"));
    let nobody = world.connect(1, "", "{}");
    let open = world.connect(2, "bob", &granted("a"));
    world.ask(first, subscribe("open-x", false));
    world.ask(nobody, subscribe("open-x", false));
    let seen = world.ask(second, json!({"type": "presence", "pipe": "open-x"}));
    assert_eq!(seen["members"], json!([{"user": "ann", "connections": 1}]));
    assert_eq!((&seen["total"], &seen["anonymous"]), (&json!(1), &json!(1)));

    world.ask(first, subscribe("a", false));
    world.ask(second, subscribe("a", false));
    let reply = world.ask(open, subscribe("a", true));
    assert_eq!(
        reply["members"],
        json!([{"user": "ann", "connections": 2}, {"user": "bob", "connections": 1}]),
        "{reply}"
    );
    world.close(first);
    world.pass(1_000);
    assert_eq!(world.presence_frames(open), Vec::<Value>::new(), "one connection is left, and bob knows himself");
    world.close(second);
    world.pass(1_000);
    let frames = world.presence_frames(open);
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(frames[0]["left"], json!([{"user": "ann", "connections": 0}]));
    assert_eq!((&frames[0]["joined"], &frames[0]["total"]), (&json!([]), &json!(1)));
    let back = world.connect(0, "ann", &granted("a"));
    world.ask(back, subscribe("a", false));
    world.pass(PRESENCE_GATHER_MS + 50);
    let frames = world.presence_frames(open);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0]["joined"], json!([{"user": "ann", "connections": 1}]));
}

// D14, INVARIANTS 4
#[test]
fn the_same_id_in_two_tenants_is_two_members() {
    let mut world = World::new(2);
    let one = world.connect(0, "t1/ann", "{}");
    let two = world.connect(1, "t2/ann", "{}");
    world.ask(one, subscribe("open-x", false));
    let reply = world.ask(two, subscribe("open-x", true));
    assert_eq!(users(&reply["members"]), ["ann", "ann"]);
    world.close(one);
    world.pass(500);
    let frames = world.presence_frames(two);
    assert_eq!((frames.len(), users(&frames[0]["left"]), &frames[0]["total"]), (1, vec!["ann"], &json!(1)));
}

// GD-4, C8, A4: each right by itself, and nothing half done
#[test]
fn without_the_right_nothing_is_shown_and_nothing_is_done() {
    let mut world = World::new(2);
    let rights = r#"{"a":{"subscribe":true},"b":{"presence":true},"c":{"subscribe":true,"presence":true}}"#;
    let one = world.connect(0, "ann", rights);
    assert_eq!(world.ask(one, subscribe("a", true))["code"], "FORBIDDEN");
    let reply = world.ask(one, json!({"type": "unsubscribe", "pipe": "a"}));
    assert_eq!(reply["code"], "NOT_SUBSCRIBED", "C8: nothing half done");
    assert_eq!(world.ask(one, subscribe("b", true))["code"], "FORBIDDEN", "presence alone does not subscribe");
    assert_eq!(world.ask(one, json!({"type": "presence", "pipe": "a"}))["code"], "FORBIDDEN");
    assert_eq!(world.ask(one, json!({"type": "presence", "pipe": "nowhere"}))["code"], "FORBIDDEN");
    let other = world.connect(1, "bob", &granted("b"));
    world.ask(other, subscribe("b", false));
    let reply = world.ask(one, json!({"type": "presence", "pipe": "b"}));
    assert_eq!(users(&reply["members"]), ["bob"], "whoever may see need not be subscribed");
    assert!(world.shared.rooms.len() == 1, "what was refused opened nothing");
    let batch = json!({"type": "subscribe", "pipes": ["a", "c"], "presence": true});
    let reply = world.ask(one, batch);
    assert_eq!(reply["results"]["a"]["code"], "FORBIDDEN");
    assert_eq!((&reply["results"]["c"]["ok"], users(&reply["results"]["c"]["members"])), (&json!(true), vec!["ann"]));
    // Somebody who is subscribed without watching is told nothing.
    world.ask(one, subscribe("a", false));
    let third = world.connect(1, "cid", &granted("a"));
    world.ask(third, subscribe("a", true));
    world.pass(1_000);
    assert_eq!(world.presence_frames(one), Vec::<Value>::new());
}

// A4, D16, INVARIANTS 10
#[test]
fn a_revocation_ends_membership_and_watching_at_once() {
    let mut world = World::new(2);
    let ann = world.connect(0, "ann", &granted("a"));
    let again = world.connect(1, "ann", &granted("a"));
    let bob = world.connect(1, "bob", &granted("a"));
    world.ask(ann, subscribe("a", true));
    world.ask(again, subscribe("a", false));
    world.ask(bob, subscribe("a", true));
    world.pass(500);
    world.take(ann);
    world.take(bob);
    // A change that ann has not been told yet, then the revocation.
    let cid = world.connect(1, "cid", &granted("a"));
    world.ask(cid, subscribe("a", false));
    world.revoke("ann", "a");
    world.settle();
    world.pass(1_000);
    let told = world.take(ann);
    assert!(told.iter().any(|message| message["event"] == "pipe_revoked"), "{told:?}");
    assert!(told.iter().all(|message| message["type"] != "presence"), "held-back diffs go with the pipe: {told:?}");
    let frames = world.presence_frames(bob);
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!((users(&frames[0]["left"]), users(&frames[0]["joined"])), (vec!["ann"], vec!["cid"]));
    assert_eq!(world.ask(ann, subscribe("a", true))["code"], "REVOKED");
    assert_eq!(world.ask(ann, json!({"type": "presence", "pipe": "a"}))["code"], "REVOKED");
    assert_eq!(users(&world.ask(bob, json!({"type": "presence", "pipe": "a"}))["members"]), ["bob", "cid"]);
}

#[test]
fn queued_presence_frames_are_purged_with_the_pipe() {
    let mut world = World::new(2);
    let ann = world.connect(0, "ann", &granted("a"));
    world.ask(ann, subscribe("a", true));
    world.clients[ann].slow = true;
    world.send(ann, &json!({"type": "ping"}));
    world.settle();
    let bob = world.connect(1, "bob", &granted("a"));
    world.ask(bob, subscribe("a", false));
    world.pass(1_000);
    let queued: u64 = world.workers.iter().map(|worker| worker.shard.counters().presence_out).sum();
    assert_eq!(queued, 1, "it waits behind the write that is under way");
    world.revoke("ann", "a");
    world.settle();
    world.recover(ann);
    world.settle();
    let told = world.take(ann);
    assert!(told.iter().any(|message| message["event"] == "pipe_revoked"));
    assert!(told.iter().all(|message| message["type"] != "presence"), "{told:?}");
}

// HP-7: the right is lost at a refresh, the subscription stays.
#[test]
fn losing_the_right_at_a_refresh_ends_watching_silently() {
    let mut world = World::new(1);
    let ann = world.connect(0, "ann", &granted("a"));
    let bob = world.connect(0, "bob", &granted("a"));
    world.ask(ann, subscribe("a", true));
    let token = claims("ann", r#""iat":5,"name":"Ann","#, r#"{"a":{"subscribe":true}}"#);
    let reply = world.ask(ann, json!({"type": "refresh", "token": token}));
    assert_eq!(reply["ok"], true, "{reply}");
    let seen = world.ask(bob, subscribe("a", true));
    assert_eq!(seen["members"][0], json!({"user": "ann", "name": "Ann", "connections": 1}), "called by the new name");
    world.ask(bob, json!({"type": "publish", "pipe": "a", "event": "e", "data": 1}));
    world.pass(1_000);
    let told = world.take(ann);
    assert!(told.iter().any(|message| message["type"] == "event"), "still subscribed");
    assert!(told.iter().all(|message| message["type"] != "presence" && message["event"] != "unsubscribed"), "{told:?}");
}

// C11: subscribing again replaces `presence`.
#[test]
fn subscribing_again_without_presence_ends_watching_and_with_it_begins_anew() {
    let mut world = World::new(2);
    let ann = world.connect(0, "ann", &granted("a"));
    world.ask(ann, subscribe("a", true));
    world.ask(ann, subscribe("a", false));
    let bob = world.connect(1, "bob", &granted("a"));
    world.ask(bob, subscribe("a", false));
    world.pass(1_000);
    assert_eq!(world.presence_frames(ann), Vec::<Value>::new());
    assert_eq!(users(&world.ask(ann, subscribe("a", true))["members"]), ["ann", "bob"]);
    world.close(bob);
    world.pass(1_000);
    let frames = world.presence_frames(ann);
    assert_eq!((frames.len(), users(&frames[0]["left"])), (1, vec!["bob"]));
}

/// Changes are gathered, and those that undo each other are not told. INVARIANTS 12
#[test]
fn who_comes_and_goes_within_the_gathering_is_not_told() {
    let mut world = World::new(2);
    let ann = world.connect(0, "ann", &granted("a"));
    world.ask(ann, subscribe("a", true));
    world.pass(500);
    for number in 0..20 {
        let passing = world.connect(1, &format!("passing-{number}"), &granted("a"));
        world.ask(passing, subscribe("a", false));
        world.close(passing);
    }
    let bob = world.connect(1, "bob", &granted("a"));
    world.ask(bob, subscribe("a", false));
    world.pass(500);
    let frames = world.presence_frames(ann);
    assert_eq!((frames.len(), users(&frames[0]["joined"]), users(&frames[0]["left"])), (1, vec!["bob"], vec![]));
}

// E11
#[test]
fn a_crowd_is_counted_and_listed_again_when_it_has_gone() {
    let mut world = World::new(2);
    let ann = world.connect(0, "ann", "{}");
    world.ask(ann, subscribe("open-x", true));
    let crowd: Vec<usize> = (0..PRESENCE_LISTED_MAX + 5)
        .map(|number| {
            let one = world.connect(number % 2, &format!("u{number:05}"), "{}");
            world.send(one, &subscribe("open-x", false));
            one
        })
        .collect();
    world.pass(500);
    let frames = world.presence_frames(ann);
    let last = frames.last().expect("told");
    assert_eq!((&last["total"], last.get("joined")), (&json!(PRESENCE_LISTED_MAX + 6), None), "{last}");
    let late = world.connect(0, "zed", "{}");
    let reply = world.ask(late, subscribe("open-x", true));
    assert_eq!(users(&reply["members"]).len(), PRESENCE_LISTED_MAX);
    assert_eq!(reply["total"], PRESENCE_LISTED_MAX + 7);
    let first = users(&reply["members"]);
    assert!(first.is_sorted());
    // A few go: still numbers. Many go: a new list, and changes build on it.
    crowd[..20].iter().for_each(|one| world.close(*one));
    world.pass(500);
    let frames = world.presence_frames(late);
    assert_eq!((frames.len(), frames[0].get("members"), &frames[0]["total"]), (1, None, &json!(987)));
    crowd[20..200].iter().for_each(|one| world.close(*one));
    world.pass(500);
    for client in [ann, late] {
        let frames = world.presence_frames(client);
        let listed = users(&frames.last().expect("told")["members"]);
        assert!(listed.len() == 807 && listed.len() <= PRESENCE_LISTED_AGAIN && listed.contains(&"zed"));
    }
    world.close(crowd[300]);
    world.pass(500);
    for client in [ann, late] {
        let frames = world.presence_frames(client);
        assert_eq!((frames.len(), users(&frames[0]["left"])), (1, vec!["u00300"]));
    }
}

/// A slow watcher is passed over and later told the net of all; it loses no event for it and is not closed.
#[test]
fn a_slow_watcher_is_told_later() {
    let mut world = World::with(2, 64, |config| {
        config.limits.queue_bytes = 8_192;
        config.limits.when_slow = WhenSlow::Close;
    });
    let ann = world.connect(0, "ann", &granted("a"));
    world.ask(ann, subscribe("a", true));
    world.clients[ann].slow = true;
    let mut list: BTreeSet<String> = BTreeSet::from(["ann".to_owned()]);
    let mut members = Vec::new();
    for round in 0..60 {
        let one = world.connect(1, &format!("user-with-a-long-name-{round}"), &granted("a"));
        world.ask(one, subscribe("a", false));
        members.push(one);
        world.pass(300);
    }
    assert!(world.clients[ann].handle.is_some(), "not closed");
    let queued = world.workers[0].shard.counters().presence_out;
    assert!((10..50).contains(&queued), "passed over when its queue was half full, after {queued}");
    members[..30].iter().for_each(|one| world.close(*one));
    world.pass(300);
    world.recover(ann);
    world.pass(1_000);
    for frame in world.presence_frames(ann) {
        apply(&mut list, &frame);
    }
    let expected: BTreeSet<String> =
        (30..60).map(|round| format!("user-with-a-long-name-{round}")).chain(["ann".to_owned()]).collect();
    assert_eq!(list, expected);
}

/// What nobody watches costs nothing, and what is over is given back.
#[test]
fn rooms_are_there_only_while_somebody_watches_or_has_asked_lately() {
    let mut world = World::new(3);
    let subscribers: Vec<usize> = (0..6).map(|number| world.connect(number % 3, &format!("u{number}"), "{}")).collect();
    for one in &subscribers {
        world.ask(*one, subscribe("open-x", false));
    }
    world.ask(subscribers[0], json!({"type": "publish", "pipe": "open-x", "event": "e", "data": 1}));
    world.pass(1_000);
    assert!(world.shared.rooms.is_empty());
    let counted = |world: &World| -> u64 {
        let of = |worker: &Worker| worker.shard.counters().presence_out + worker.shard.counters().presence_waits;
        world.workers.iter().map(of).sum()
    };
    assert_eq!(counted(&world), 0, "nothing of presence is done for a pipe that nobody watches");
    let seen = world.ask(subscribers[0], json!({"type": "presence", "pipe": "open-x"}));
    assert_eq!((users(&seen["members"]).len(), world.shared.rooms.len()), (6, 1));
    world.close(subscribers[5]);
    let seen = world.ask(subscribers[1], json!({"type": "presence", "pipe": "open-x"}));
    assert_eq!(users(&seen["members"]).len(), 5, "kept up to date while it is kept");
    let pipe = world.shared.registry.find("open-x").expect("in use");
    let room = Arc::downgrade(&world.shared.rooms.find(&pipe).expect("a room"));
    drop(pipe);
    world.pass(PRESENCE_LEASE_MS + 3 * PRESENCE_GATHER_MS);
    assert!(world.shared.rooms.is_empty() && room.upgrade().is_none(), "nobody asked for long");
    world.ask(subscribers[2], subscribe("open-x", true));
    world.pass(PRESENCE_LEASE_MS * 2);
    assert_eq!(world.shared.rooms.len(), 1, "watched");
    world.ask(subscribers[2], json!({"type": "unsubscribe", "pipe": "open-x"}));
    world.pass(3 * PRESENCE_GATHER_MS);
    assert!(world.shared.rooms.is_empty());
    subscribers.iter().for_each(|one| world.close(*one));
    world.settle();
    assert!(world.shared.registry.is_empty(), "no pipe is held for a room that is over");
}

/// A worker that has not yet seen that a room is over counts its next subscriber into the room that came after it.
#[test]
fn a_worker_that_still_attends_a_room_that_is_over_finds_the_next() {
    let mut world = World::new(2);
    let (ann, bob) = (world.connect(0, "ann", "{}"), world.connect(1, "bob", "{}"));
    world.ask(bob, subscribe("open-x", false));
    assert_eq!(users(&world.ask(ann, json!({"type": "presence", "pipe": "open-x"}))["members"]), ["bob"]);
    world.ask(bob, json!({"type": "unsubscribe", "pipe": "open-x"}));
    world.mono_ms += PRESENCE_LEASE_MS + PRESENCE_GATHER_MS;
    while world.turn(0) {}
    assert!(world.shared.rooms.is_empty());
    world.send(ann, &subscribe("open-x", true));
    world.send(bob, &subscribe("open-x", false));
    world.pass(500);
    let frames = world.presence_frames(ann);
    assert_eq!((frames.len(), users(&frames[0]["joined"])), (1, vec!["bob"]));
}

fn apply(list: &mut BTreeSet<String>, frame: &Value) {
    if let Some(members) = frame.get("members") {
        *list = users(members).into_iter().map(str::to_owned).collect();
    } else {
        for gone in users(&frame["left"]) {
            assert!(list.remove(gone), "{gone} leaves who is not there: {frame}");
        }
        for came in users(&frame["joined"]) {
            assert!(list.insert(came.to_owned()), "{came} joins twice: {frame}");
        }
    }
    assert_eq!(frame["total"], list.len(), "{frame}");
}

/// What a client knows of each pipe, from what it was sent. None: it watches nothing there.
#[derive(Default)]
struct Knows(BTreeMap<String, BTreeSet<String>>);

impl Knows {
    fn read(&mut self, messages: Vec<Value>) {
        for message in messages {
            if let Some((asked, pipe)) = message["id"].as_str().and_then(|id| id.split_once(' ')) {
                assert!(message["ok"] == true || asked == "leave", "{message}");
                match asked {
                    "watch" => {
                        let members = users(&message["members"]).into_iter().map(str::to_owned).collect();
                        self.0.insert(pipe.to_owned(), members);
                    }
                    "follow" | "leave" => drop(self.0.remove(pipe)),
                    _ => {}
                }
            } else if message["type"] == "presence" {
                let pipe = message["pipe"].as_str().expect("a name");
                apply(self.0.get_mut(pipe).expect("presence only while it watches"), &message);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked, in whatever order the workers come to it, with rings that are often full: every list is put
    /// together without a double or a gap and ends up true, and nothing is left over.
    #[test]
    fn every_schedule_shows_every_watcher_the_truth(
        workers in 1usize..5,
        ring_log2 in 1u32..4,
        acts in prop::collection::vec((0usize..8, 0usize..3, 0u8..12, 0usize..8), 1..120),
    ) {
        let mut world = World::with(workers, 1 << ring_log2, |_| {});
        let person = |place: usize| if place == 7 { String::new() } else { format!("u{}", place % 4) };
        let mut clients: Vec<(usize, Knows)> =
            (0..8).map(|place| (world.connect(place % workers, &person(place), "{}"), Knows::default())).collect();
        // What was last asked for: (place, pipe) → watching.
        let mut truth: BTreeMap<(usize, usize), bool> = BTreeMap::new();
        for (place, number, act, turns) in acts {
            let (client, pipe) = (clients[place].0, format!("open-{number}"));
            let message = |asked: &str, kind: &str, presence: bool| {
                json!({"id": format!("{asked} {pipe}"), "type": kind, "pipe": pipe, "presence": presence})
            };
            match act {
                0..=3 => {
                    world.send(client, &message("watch", "subscribe", true));
                    truth.insert((place, number), true);
                }
                4..=5 => {
                    world.send(client, &message("follow", "subscribe", false));
                    truth.insert((place, number), false);
                }
                6..=7 => {
                    world.send(client, &message("leave", "unsubscribe", false));
                    truth.remove(&(place, number));
                }
                8 => world.send(client, &message("ask", "presence", false)),
                9 => {
                    world.close(client);
                    truth.retain(|(one, _), _| *one != place);
                    clients[place] = (world.connect((place + turns) % workers, &person(place), "{}"), Knows::default());
                }
                10 => {
                    let publish = json!({"type": "publish", "pipe": pipe, "event": "e", "data": 1});
                    (0..4).for_each(|_| world.send(client, &publish));
                }
                _ => world.mono_ms += 300 * turns as u64 * turns as u64,
            }
            for turn in 0..turns {
                world.turn((turn + place) % workers);
            }
            for (client, knows) in &mut clients {
                knows.read(world.take(*client));
            }
        }
        world.settle();
        world.pass(1_000);
        for (place, (client, knows)) in clients.iter_mut().enumerate() {
            knows.read(world.take(*client));
            let watched: Vec<String> =
                truth.iter().filter(|(at, watches)| at.0 == place && **watches).map(|(at, _)| format!("open-{}", at.1)).collect();
            prop_assert_eq!(knows.0.keys().cloned().collect::<Vec<_>>(), watched);
            for (pipe, list) in &knows.0 {
                let there: BTreeSet<String> = truth
                    .keys()
                    .filter(|(one, number)| *one != 7 && format!("open-{number}") == *pipe)
                    .map(|(one, _)| person(*one))
                    .collect();
                prop_assert_eq!(list, &there);
            }
        }
        for number in 0..3 {
            let reply = world.ask(clients[0].0, json!({"type": "presence", "pipe": format!("open-{number}")}));
            let of = |anonymous: bool| truth.keys().filter(move |(place, pipe)| *pipe == number && (*place == 7) == anonymous);
            prop_assert_eq!(&reply["anonymous"], &json!(of(true).count()));
            let connections: u64 =
                reply["members"].as_array().expect("a list").iter().filter_map(|one| one["connections"].as_u64()).sum();
            prop_assert_eq!(connections as usize, of(false).count());
        }
        clients.iter().for_each(|(client, _)| world.close(*client));
        world.pass(PRESENCE_LEASE_MS + 3 * PRESENCE_GATHER_MS);
        prop_assert!(world.shared.rooms.is_empty() && world.shared.registry.is_empty());
        for Worker { shard, .. } in &world.workers {
            prop_assert_eq!((shard.connections(), shard.pipes().known(), shard.frame_bytes()), (0, 0, 0));
        }
    }
}
