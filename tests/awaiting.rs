//! Messages that wait for the application: real shards and a real mesh, with an application that answers late, out of
//! order, or after everything has changed. What each client may have is worked out from what it was told alone.
//!
//! C6, C10, C13, C25, C26, C37, A11, B21, F10, RK-4, SR-6, SR-7, INVARIANTS 2, 3, 7, 11, 31.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;

use pipeward::auth::token::sign;
use pipeward::bounds::{RECHECKS_MAX, REFRESHES_WAITING_MAX};
use pipeward::config::{Rates, parse};
use pipeward::mesh::Bell;
use pipeward::mesh::port::{Port, mesh};
use pipeward::protocol::encode::{Sender, event_frame};
use pipeward::protocol::frame::{append_client_frame, opcode};
use pipeward::shard::call::{Ask, Call, Outcome, Ruling, Unanswered};
use pipeward::shard::command::{Act, Answer, Command, Person, Stats, Who};
use pipeward::shard::connection::Handle;
use pipeward::shard::input::{Input, Now};
use pipeward::shard::output::Output;
use pipeward::shard::revocation::{FOR_EVER, Restoration, Revocation, Taken};
use pipeward::shard::shared::{Settings, Shared};
use pipeward::shard::{MeshParcel, Shard};
use serde_json::{Value, json};

const SECRET: &str = "only for tests of awaited rules, 32 b";

struct Worker {
    shard: Shard,
    bell: Arc<AtomicU64>,
    heard: u64,
    asleep: bool,
    clients: BTreeMap<(u32, u32), usize>,
}

#[derive(Default)]
struct Client {
    worker: usize,
    handle: Option<Handle>,
    raw: Vec<u8>,
    welcomed: bool,
    inbox: Vec<Value>,
}

/// Workers, clients, and the application: the calls that it has not answered yet.
struct World {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    control: Port<MeshParcel>,
    clients: Vec<Client>,
    calls: Vec<Call>,
    deliveries: BTreeSet<String>,
    mono_ms: u64,
}

fn settings(text: &str) -> Settings {
    let text = format!("{text}\n[auth.token]\nhmac_secret = \"{SECRET}\"\n");
    let loaded = parse(&text, Path::new("."), &mut std::iter::empty());
    let mut config = loaded.unwrap_or_else(|findings| panic!("{findings:#?}\n{text}")).0;
    config.limits.rates = Rates::default();
    config.edge.ping_s = 3_600;
    Settings::new(config).expect("a usable key")
}

impl World {
    fn new(text: &str) -> World {
        World::with(settings(text), 2, 64)
    }

    fn with(settings: Settings, workers: usize, ring_entries: usize) -> World {
        let shared = Shared::new(settings, 7);
        let bells: Vec<Arc<AtomicU64>> = (0..=workers).map(|_| Arc::default()).collect();
        let boxed = bells.iter().cloned().map(|bell| {
            Box::new(move || {
                bell.fetch_add(1, Relaxed);
            }) as Box<dyn Bell>
        });
        let mut ports = mesh(boxed.collect(), ring_entries);
        let control = ports.pop().expect("the last one");
        let mut world = World {
            shared,
            workers: Vec::new(),
            control,
            clients: Vec::new(),
            calls: Vec::new(),
            deliveries: BTreeSet::new(),
            mono_ms: 1_000,
        };
        for (port, bell) in ports.into_iter().zip(bells) {
            let shard = Shard::new(world.shared.clone(), port, world.now());
            world.workers.push(Worker { shard, bell, heard: 0, asleep: false, clients: BTreeMap::new() });
        }
        world
    }

    fn now(&self) -> Now {
        Now { mono_ns: self.mono_ms * 1_000_000, unix_ms: 1_700_000_000_000 + self.mono_ms }
    }

    fn connect(&mut self, worker: usize, token: &str) -> usize {
        let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
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

    /// One tick of a worker. False: it sleeps on.
    fn turn(&mut self, index: usize) -> bool {
        let now = self.now();
        let worker = &mut self.workers[index];
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
            match output {
                Output::Close { connection, .. } => {
                    if let Some(client) = self.workers[index].clients.remove(&(connection.slot, connection.generation))
                    {
                        self.clients[client].handle = None;
                    }
                }
                Output::Call(call) => self.called(*call),
                _ => {}
            }
        }
        while let Some((connection, chunk)) = self.workers[index].shard.next_write() {
            if let Some(client) = self.workers[index].clients.get(&(connection.slot, connection.generation)) {
                self.clients[*client].take(chunk.as_ref());
            }
            self.workers[index].shard.handle(now, Input::Sent { connection, ok: true });
        }
        let shard = &mut self.workers[index].shard;
        shard.publish();
        if !shard.has_writes() && shard.port().arm() {
            if shard.has_news() {
                shard.port().disarm();
            } else {
                self.workers[index].asleep = true;
            }
        }
        true
    }

    /// INVARIANTS 31, C37.
    fn called(&mut self, call: Call) {
        let delivery = match &call.ask {
            Ask::Rule(ask) | Ask::Action(ask) => Some(delivery_of(&ask.body)),
            Ask::Authorize(ask) => Some(delivery_of(&ask.body)),
            Ask::Enqueue(_) | Ask::Push(_) => None,
        };
        if let Some(delivery) = delivery {
            assert!(self.deliveries.insert(delivery.clone()), "{delivery} comes twice");
        }
        self.calls.push(call);
        let own = self.calls.last().expect("just pushed");
        let of_one = |one: &&Call| (one.worker, one.connection) == (own.worker, own.connection);
        assert!(self.calls.iter().filter(of_one).count() <= 64 + 1, "C37: 64 calls and a refresh");
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            if (0..self.workers.len()).filter(|worker| self.turn(*worker)).count() == 0 {
                return;
            }
        }
        panic!("the workers do not come to rest");
    }

    fn take(&mut self, client: usize) -> Vec<Value> {
        self.settle();
        std::mem::take(&mut self.clients[client].inbox)
    }

    /// The call at this place of the list comes to this end.
    fn answer(&mut self, place: usize, outcome: Outcome) {
        let call = self.calls.remove(place);
        let (now, connection, number) = (self.now(), call.connection, call.number);
        let answered = Input::Answered { connection, number, outcome: Box::new(outcome) };
        self.awake(call.worker).shard.handle(now, answered);
    }

    /// Every rule that is asked for, until none is any more.
    fn rule_all(&mut self, mut allows: impl FnMut(&Asked) -> bool) {
        for _ in 0..10_000 {
            self.settle();
            let Some(call) = self.calls.first() else { return };
            let outcome = match &call.ask {
                Ask::Rule(ask) => ruled(allows(&Asked::of(&ask.body))),
                ask => ask.unheard(),
            };
            self.answer(0, outcome);
        }
        panic!("the application is asked for ever");
    }

    fn ask(&mut self, client: usize, mut message: Value) -> Value {
        message["id"] = json!("ask");
        self.send(client, &message);
        self.settle();
        self.reply(client).unwrap_or_else(|| panic!("no reply to {message}"))
    }

    /// The same with an application that allows.
    fn ask_allowing(&mut self, client: usize, mut message: Value) -> Value {
        message["id"] = json!("ask");
        self.send(client, &message);
        self.rule_all(|_| true);
        self.reply(client).unwrap_or_else(|| panic!("no reply to {message}"))
    }

    fn reply(&mut self, client: usize) -> Option<Value> {
        let inbox = &mut self.clients[client].inbox;
        let place = inbox.iter().position(|one| one["id"] == "ask")?;
        Some(inbox.remove(place))
    }

    /// Names of the events that came since.
    fn events(&mut self, client: usize) -> Vec<String> {
        let events = self.take(client).into_iter().filter(|one| one["type"] == "event");
        events.filter_map(|one| Some(one["event"].as_str()?.to_owned())).collect()
    }

    fn command(&mut self, act: Act) {
        for worker in 0..self.workers.len() {
            let command = Command { act: act.clone(), answer: None };
            assert!(self.control.push(worker, MeshParcel::Command(Box::new(command))).is_ok());
        }
        self.control.publish();
        self.settle();
    }

    /// By the application, which no rule binds.
    fn publish(&mut self, pipe: &str, event: &str, data: &str) {
        let now = self.now();
        let Some(global) = self.shared.registry.find(pipe) else { return };
        let bytes = event_frame(pipe, event, data, Sender::Application, now.unix_ms).into();
        self.command(Act::Publish { pipe: global, bytes });
    }

    fn revoke(&mut self, user: &str, pipe: &str) {
        let person = Person { tenant: None, user: user.into() };
        let taken = Taken::Pipe(pipe.into());
        let revocation = Arc::new(Revocation { person, taken, until_ms: FOR_EVER, until_authorized_after_ms: None });
        self.shared.revocations.touch(&revocation.person, self.now().unix_ms);
        self.shared.revocations.insert(revocation.clone());
        self.command(Act::Revoke(revocation));
    }

    fn restore(&mut self, user: &str, pipe: &str) {
        let person = Person { tenant: None, user: user.into() };
        let restoration = Restoration { person, taken: Some(Taken::Pipe(pipe.into())) };
        self.shared.revocations.lift(&restoration);
        self.command(Act::Restore(Arc::new(restoration)));
    }

    fn unsubscribe(&mut self, user: &str, pipe: &str) {
        let who = Who::User(Person { tenant: None, user: user.into() });
        self.command(Act::Unsubscribe { who, pipe: pipe.into() });
    }

    fn reload(&mut self, text: &str) {
        let settings = Arc::new(settings(text));
        for worker in 0..self.workers.len() {
            let now = self.now();
            self.awake(worker).shard.handle(now, Input::Reload(settings.clone()));
        }
    }

    fn stats(&mut self) -> Vec<Stats> {
        let (sender, receiver) = channel();
        for worker in 0..self.workers.len() {
            let sender = sender.clone();
            let answer = Box::new(move |answer: Answer| {
                let _ = sender.send(answer);
            });
            let command = Command { act: Act::Stats, answer: Some(answer) };
            assert!(self.control.push(worker, MeshParcel::Command(Box::new(command))).is_ok());
        }
        self.control.publish();
        self.settle();
        drop(sender);
        let stats = receiver.iter().map(|answer| match answer {
            Answer::Stats(stats) => *stats,
            other => panic!("{other:?}"),
        });
        stats.collect()
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

/// What a rule was asked.
struct Asked {
    body: Value,
}

impl Asked {
    fn of(body: &str) -> Asked {
        Asked { body: serde_json::from_str(body).expect("JSON") }
    }
}

fn delivery_of(body: &str) -> String {
    let body: Value = serde_json::from_str(body).expect("JSON");
    body["delivery"].as_str().expect("each call has one").to_owned()
}

fn ruled(allow: bool) -> Outcome {
    Outcome::Ruled(Ok(Ruling { allow, context: None }))
}

/// A token of a user with this role and these grants.
fn token(user: &str, role: &str, pipes: &Value) -> String {
    sign(SECRET.as_bytes(), &json!({"sub": user, "role": role, "pipes": pipes}).to_string())
}

fn member(user: &str) -> String {
    token(user, "member", &json!({}))
}

fn subscribe(pipe: &str, presence: bool) -> Value {
    json!({"type": "subscribe", "pipe": pipe, "presence": presence})
}

fn publish(pipe: &str, event: &str) -> Value {
    json!({"type": "publish", "pipe": pipe, "event": event, "data": 1})
}

fn refresh(token: &str) -> Value {
    json!({"type": "refresh", "token": token})
}

const ASKING: &str = r#"
[pipe."room-{n}"]
subscribe = { url = "http://127.0.0.1:1/subscribe" }
publish = "user.role == 'member'"
presence = { url = "http://127.0.0.1:1/presence" }
"#;

// C26: what is refused without asking ends at once, whatever else is to be asked.
#[test]
fn a_refused_subscription_does_not_go_on_while_its_presence_is_asked_about() {
    let mut world = World::new(
        r#"
        [pipe."room-{n}"]
        subscribe = "user.role == 'member'"
        presence = { url = "http://127.0.0.1:1/presence" }
        "#,
    );
    let ann = world.connect(0, &member("ann"));
    assert_eq!(world.ask_allowing(ann, subscribe("room-1", true))["ok"], true);
    assert_eq!(world.ask(ann, refresh(&token("ann", "guest", &json!({}))))["ok"], true);
    world.publish("room-1", "news", "1");
    assert_eq!(world.events(ann), Vec::<String>::new());
}

// C26, C37: a client cannot put off by refreshing what its refresh has made doubtful.
#[test]
fn refreshing_again_and_again_does_not_put_the_decision_off() {
    let mut world = World::new(ASKING);
    let ann = world.connect(0, &member("ann"));
    assert_eq!(world.ask_allowing(ann, subscribe("room-1", false))["ok"], true);
    let mut message = refresh(&member("ann"));
    for number in 0..REFRESHES_WAITING_MAX {
        message["id"] = json!(number);
        world.send(ann, &message);
        world.settle();
        assert_eq!(world.calls.len(), 1, "calls for one question");
    }
    let refused = world.ask(ann, refresh(&member("ann")));
    assert_eq!((&refused["code"], refused["retry_after_ms"].is_u64()), (&json!("RATE_LIMITED"), true));
    // The answer is to the first; it is asked about the last.
    world.answer(0, ruled(true));
    world.settle();
    world.rule_all(|_| false);
    let told: Vec<Value> = world.take(ann).into_iter().filter(|one| one["type"] != "welcome").collect();
    assert_eq!(told[0]["event"], "unsubscribed", "{told:?}");
    let replied: Vec<u64> = told.iter().filter(|one| one["ok"] == true).filter_map(|one| one["id"].as_u64()).collect();
    assert_eq!(replied, (0..REFRESHES_WAITING_MAX as u64).collect::<Vec<_>>(), "{told:?}");
    world.publish("room-1", "news", "1");
    assert_eq!(world.events(ann), Vec::<String>::new());
}

// INVARIANTS 7, G2: a reload does overtake answers; not for ever.
#[test]
fn an_answer_that_a_reload_overtakes_each_time_ends_the_subscription_in_the_end() {
    let mut world = World::new(ASKING);
    let ann = world.connect(0, &member("ann"));
    assert_eq!(world.ask_allowing(ann, subscribe("room-1", false))["ok"], true);
    for number in 0..20 {
        world.reload(&format!("{ASKING}[pipe.\"other-{number}\"]\n"));
        world.settle();
        if !world.calls.is_empty() {
            world.answer(0, ruled(false));
        }
    }
    world.publish("room-1", "news", "1");
    assert_eq!(world.events(ann), Vec::<String>::new());
}

// INVARIANTS 7: what was allowed before the refresh is not believed by a message that waited behind another one.
#[test]
fn a_publish_that_waited_is_judged_by_the_refreshed_identity() {
    let mut world = World::new(ASKING);
    let (ann, bob) = (world.connect(0, &member("ann")), world.connect(1, &member("bob")));
    for client in [ann, bob] {
        assert_eq!(world.ask_allowing(client, subscribe("room-1", false))["ok"], true);
    }
    assert_eq!(world.ask(ann, publish("room-1", "before"))["ok"], true);
    world.send(ann, &json!({"type": "presence", "pipe": "room-1", "id": 1}));
    let mut late = publish("room-1", "after");
    late["id"] = json!(2);
    world.send(ann, &late);
    world.send(ann, &refresh(&token("ann", "guest", &json!({}))));
    world.settle();
    world.rule_all(|_| true);
    assert_eq!(world.events(bob), ["before"]);
    let replies = world.take(ann);
    assert!(replies.iter().any(|one| one["id"] == 2 && one["code"] == "FORBIDDEN"), "{replies:?}");
}

// INVARIANTS 7, 12: what it waited for came while it stood behind a subscription in doubt, and does not come again.
#[test]
fn a_presence_whose_room_is_ready_while_its_pipe_is_decided_again_is_answered() {
    let mut world = World::new(ASKING);
    let (ann, bob) = (world.connect(0, &member("ann")), world.connect(1, &member("bob")));
    for client in [ann, bob] {
        assert_eq!(world.ask_allowing(client, subscribe("room-1", false))["ok"], true);
    }
    world.send(ann, &json!({"type": "presence", "pipe": "room-1", "id": "ask"}));
    world.turn(0);
    world.answer(0, ruled(true));
    world.turn(0);
    world.send(ann, &refresh(&member("ann")));
    world.turn(0);
    assert_eq!((world.calls.len(), world.reply(ann)), (1, None), "the other worker has not counted yet");
    world.settle();
    world.rule_all(|_| true);
    assert_eq!(world.reply(ann).expect("a reply")["members"].as_array().map(Vec::len), Some(2));
}

// C26, E9
#[test]
fn a_subscription_that_the_server_ended_while_it_was_decided_again_leaves_no_right_behind() {
    let mut world = World::new(ASKING);
    let ann = world.connect(0, &member("ann"));
    assert_eq!(world.ask_allowing(ann, subscribe("room-1", true))["ok"], true);
    assert_eq!(world.ask(ann, publish("room-1", "before"))["ok"], true);
    world.send(ann, &refresh(&token("ann", "guest", &json!({}))));
    world.settle();
    world.unsubscribe("ann", "room-1");
    world.rule_all(|_| false);
    assert_eq!(world.ask(ann, publish("room-1", "after"))["code"], "FORBIDDEN");
    for message in [subscribe("room-1", false), json!({"type": "presence", "pipe": "room-1"})] {
        let mut message = message;
        message["id"] = json!("ask");
        world.send(ann, &message);
        world.rule_all(|_| false);
        assert_eq!(world.reply(ann).expect("a reply")["code"], "FORBIDDEN", "{message}");
    }
}

const EVENTS: &str = r#"
[pipe."room-{n}"]
subscribe = { url = "http://127.0.0.1:1/subscribe" }
publish = true
[pipe."room-{n}".event.chat]
[pipe."room-{n}".event.secret]
subscribe = "user.role == 'admin'"
[pipe."room-{n}".event.loud]
filter = "event.data > 3 || user.role == 'admin'"
"#;

// C11, RK-4
#[test]
fn subscribing_again_keeps_the_events_that_may_be_seen() {
    let mut world = World::new(EVENTS);
    let ann = world.connect(0, &member("ann"));
    for _ in 0..2 {
        assert_eq!(world.ask_allowing(ann, subscribe("room-1", false))["ok"], true);
        for event in ["chat", "secret", "loud"] {
            world.publish("room-1", event, "5");
        }
        world.publish("room-1", "loud", "1");
        assert_eq!(world.events(ann), ["chat", "loud"]);
    }
}

// INVARIANTS 3, 11: bits of the old definition mean nothing in the new one.
#[test]
fn events_that_may_not_be_seen_are_not_sent_while_a_reloaded_rule_is_asked_about() {
    let mut world = World::new(EVENTS);
    let ann = world.connect(0, &member("ann"));
    assert_eq!(world.ask_allowing(ann, subscribe("room-1", false))["ok"], true);
    world.reload(
        r#"
        [pipe."room-{n}"]
        subscribe = { url = "http://127.0.0.1:1/subscribe" }
        [pipe."room-{n}".event.secret]
        subscribe = "user.role == 'admin'"
        [pipe."room-{n}".event.chat]
        filter = "has(user.id) && user.id == 'bob'"
        [pipe."room-{n}".event.quiet]
        filter = "!has(user.role)"
        [pipe."room-{n}".event.loud]
        "#,
    );
    world.settle();
    assert_eq!(world.calls.len(), 1, "it is asked about");
    for event in ["secret", "chat", "quiet"] {
        world.publish("room-1", event, "5");
    }
    assert_eq!(world.events(ann), Vec::<String>::new());
    world.rule_all(|_| true);
    for event in ["secret", "chat", "quiet", "loud"] {
        world.publish("room-1", event, "5");
    }
    assert_eq!(world.events(ann), ["loud"]);
}

// RK-4, C26
#[test]
fn an_event_that_the_refreshed_identity_may_not_see_is_not_sent_while_its_pipe_is_asked_about() {
    let mut world = World::new(EVENTS);
    let ann = world.connect(0, &token("ann", "admin", &json!({})));
    assert_eq!(world.ask_allowing(ann, subscribe("room-1", false))["ok"], true);
    world.publish("room-1", "secret", "1");
    assert_eq!(world.events(ann), ["secret"]);
    world.send(ann, &refresh(&member("ann")));
    world.settle();
    for (event, data) in [("secret", "1"), ("loud", "1"), ("chat", "1"), ("loud", "5"), ("chat", "2")] {
        world.publish("room-1", event, data);
    }
    assert_eq!(world.events(ann), Vec::<String>::new(), "nothing before the answer");
    world.rule_all(|_| true);
    assert_eq!(world.events(ann), ["chat", "loud", "chat"], "what was kept, in its order, by what she may see now");
    world.publish("room-1", "chat", "3");
    assert_eq!(world.events(ann), ["chat"]);
}

// C33: whoever reads is not closed for what was kept for it, however many pipes it was.
#[test]
fn what_was_kept_of_many_pipes_is_released_to_one_who_reads() {
    let mut world = World::new(&format!("[limits]\nqueue_bytes = 40000\n{ASKING}"));
    let ann = world.connect(0, &member("ann"));
    let rooms: Vec<String> = (0..30).map(|number| format!("room-{number}")).collect();
    assert_eq!(world.ask_allowing(ann, json!({"type": "subscribe", "pipes": rooms}))["ok"], true);
    world.reload(&format!("{ASKING}[limits]\nqueue_bytes = 40000\n[pipe.\"other\"]\n"));
    world.settle();
    let data = format!("\"{}\"", "x".repeat(1_900));
    for room in &rooms {
        world.publish(room, "e", &data);
    }
    world.rule_all(|_| true);
    let told = world.take(ann);
    let events = told.iter().filter(|one| one["type"] == "event").count();
    let lagged = told.iter().filter(|one| one["event"] == "lagged").count();
    assert_eq!((events + lagged, world.workers[0].shard.open_connections()), (30, 1), "{events} events");
    assert!(events >= 9, "{events}");
}

// INVARIANTS 11, SR-6, HP-7: a no forgets what was kept, a yes tells what there was no room for.
#[test]
fn what_is_kept_for_a_subscription_in_doubt_is_bounded_and_goes_with_a_refusal() {
    let policy = |when_slow: &str| format!("[limits]\nqueue_bytes = 20000\nwhen_slow = \"{when_slow}\"\n{ASKING}");
    let data = format!("\"{}\"", "x".repeat(3_000));
    for (when_slow, allows) in [("drop_oldest", true), ("drop_oldest", false), ("close", true)] {
        let mut world = World::new(&policy(when_slow));
        let ann = world.connect(0, &member("ann"));
        assert_eq!(world.ask_allowing(ann, subscribe("room-1", false))["ok"], true);
        world.send(ann, &refresh(&member("ann")));
        world.settle();
        for number in 0..5 {
            world.publish("room-1", &format!("e{number}"), &data);
        }
        world.rule_all(|_| allows);
        let told = world.take(ann);
        let lagged: Vec<&Value> = told.iter().filter(|one| one["event"] == "lagged").collect();
        let events: Vec<&Value> = told.iter().filter(|one| one["type"] == "event").map(|one| &one["event"]).collect();
        if allows {
            assert_eq!((lagged.len(), &lagged[0]["pipe"], &lagged[0]["dropped"]), (1, &json!("room-1"), &json!(2)));
            assert_eq!(events, ["e2", "e3", "e4"]);
        } else {
            assert_eq!((lagged.len(), events.len()), (0, 0));
        }
        assert_eq!(world.workers[0].shard.open_connections(), 1, "{when_slow}: it is not she who is slow");
        world.close(ann);
        world.settle();
        assert_eq!(world.workers[0].shard.frame_bytes(), 0);
    }
}

// G2: whoever waits is judged by the new rules, and so is everybody whom it reaches.
#[test]
fn a_publish_that_a_reload_lets_through_reaches_nobody_by_an_old_decision() {
    const ASKED: &str =
        "[pipe.\"p\"]\nsubscribe = { url = \"http://127.0.0.1:1/s\" }\npublish = \"user.role == 'boss'\"\n";
    let mut world = World::new("[pipe.\"p\"]\nsubscribe = \"has(user.id)\"\n");
    let boss = world.connect(0, &token("boss", "boss", &json!({})));
    let ann = world.connect(0, &member("ann"));
    for client in [boss, ann] {
        assert_eq!(world.ask(client, subscribe("p", false))["ok"], true);
    }
    world.reload(ASKED);
    world.settle();
    world.send(boss, &publish("p", "e"));
    world.settle();
    world.reload(
        "[pipe.\"p\"]\nsubscribe = \"has(user.id)\"\npublish = \"user.role == 'boss'\"\n\
         [pipe.\"p\".event.e]\nsubscribe = \"user.role == 'boss'\"\n",
    );
    world.settle();
    world.rule_all(|_| true);
    assert_eq!((world.events(boss), world.events(ann)), (vec!["e".to_owned()], Vec::new()));
}

// C37: subscriptions that are decided again are no messages of the client.
#[test]
fn a_connection_with_many_subscriptions_in_doubt_may_still_say_something() {
    let mut world = World::new(ASKING);
    let ann = world.connect(0, &member("ann"));
    let rooms: Vec<String> = (0..80).map(|number| format!("room-{number}")).collect();
    for some in rooms.chunks(40) {
        assert_eq!(world.ask_allowing(ann, json!({"type": "subscribe", "pipes": some}))["ok"], true);
    }
    world.reload(&format!("{ASKING}[pipe.\"other\"]\n"));
    world.settle();
    for (number, kind) in [(3, "unsubscribe"), (4, "presence")] {
        world.send(ann, &json!({"type": kind, "pipe": rooms[number], "id": number}));
    }
    world.settle();
    for _ in 0..4 {
        world.rule_all(|_| true);
    }
    let replies = world.take(ann);
    for id in [3, 4] {
        assert!(replies.iter().any(|one| one["id"] == id && one["ok"] == true), "{id}: {replies:?}");
    }
}

// INVARIANTS 11, G2: a reload asks about all subscriptions, but never about all at once; nobody is forgotten, closed ones
// included.
#[test]
fn a_reload_asks_about_a_bounded_number_of_subscriptions_at_a_time() {
    const ASKED: &str = "[pipe.\"room-{n}\"]\nsubscribe = { url = \"http://127.0.0.1:1/subscribe\" }\n";
    let mut world = World::new(ASKED);
    let count = RECHECKS_MAX + 40;
    let clients: Vec<usize> =
        (0..count).map(|number| world.connect(number % 2, &member(&format!("user-{number}")))).collect();
    for client in &clients {
        assert_eq!(world.ask_allowing(*client, subscribe("room-1", false))["ok"], true);
    }
    world.reload(&format!("{ASKED}[pipe.\"other\"]\n"));
    world.settle();
    assert_eq!(world.calls.len(), RECHECKS_MAX);
    // Those under way go away: the others have their turn all the same.
    for client in &clients[..20] {
        world.close(*client);
    }
    world.settle();
    assert!(world.calls.len() <= RECHECKS_MAX + 20, "{}", world.calls.len());
    let mut asked = 0;
    world.rule_all(|_| {
        asked += 1;
        asked % 2 == 0
    });
    let ended = |world: &mut World, client: usize| {
        world.take(client).iter().any(|one| one["event"] == "unsubscribed" && one["reason"] == "reload")
    };
    let live = &clients[20..];
    let ends = live.iter().filter(|client| ended(&mut world, **client)).count();
    assert!((live.len() / 2 - 21..=live.len() / 2 + 21).contains(&ends), "{ends} of {}", live.len());
    world.publish("room-1", "chat", "1");
    let hear = live.iter().filter(|client| world.events(**client) == ["chat"]).count();
    assert_eq!(hear + ends, live.len());
}

// B21: nobody is asked about nobody.
#[test]
fn the_application_is_not_asked_about_an_action_of_an_anonymous_connection() {
    let mut world = World::new(
        r#"
        [auth]
        anonymous = true
        [action.act]
        allow = { url = "http://127.0.0.1:1/allow" }
        url = "http://127.0.0.1:1/act"
        [queue.jobs]
        publish = { url = "http://127.0.0.1:1/allow" }
        url = "http://127.0.0.1:1/jobs"
        "#,
    );
    let nobody = world.connect(0, "");
    world.take(nobody);
    for message in [json!({"type": "action", "name": "act"}), json!({"type": "enqueue", "queue": "jobs"})] {
        assert_eq!(world.ask(nobody, message)["code"], "UNAUTHENTICATED");
    }
}

// A11
#[test]
fn the_context_of_a_rule_of_the_application_goes_with_the_action() {
    let mut world = World::new(
        r#"
        [action.act]
        allow = { url = "http://127.0.0.1:1/allow" }
        url = "http://127.0.0.1:1/act"
        "#,
    );
    let ann = world.connect(0, &member("ann"));
    world.send(ann, &json!({"type": "action", "name": "act"}));
    world.settle();
    let context = Some(r#"{"plan":"pro"}"#.into());
    world.answer(0, Outcome::Ruled(Ok(Ruling { allow: true, context })));
    world.settle();
    let Ask::Action(ask) = &world.calls[0].ask else { panic!("{:?}", world.calls) };
    assert_eq!(Asked::of(&ask.body).body["context"], json!({"plan": "pro"}));
}

// F12: nobody's filter fails where nobody is subscribed who could fail it.
#[test]
fn a_filter_that_asks_for_the_viewer_is_evaluated_for_viewers_only() {
    let mut world = World::new(EVENTS);
    let ann = world.connect(0, &member("ann"));
    assert_eq!(world.ask_allowing(ann, subscribe("room-1", false))["ok"], true);
    world.publish("room-1", "loud", "1");
    let faults: u64 = world.stats().iter().map(|one| one.counters.filter_faults).sum();
    assert_eq!(faults, 0);
}

// C37, INVARIANTS 18: many names that wait behind many cost their number, not its square; the test would take minutes.
#[test]
fn batches_that_wait_behind_each_other_are_each_answered_once() {
    let mut world = World::new(
        r#"
        [pipe."**"]
        subscribe = { url = "http://127.0.0.1:1/subscribe" }
        "#,
    );
    let ann = world.connect(0, &member("ann"));
    for batch in 0..64 {
        let pipes: Vec<String> = (batch * 255..=(batch + 1) * 255).map(|one| format!("pipe-{one}")).collect();
        world.send(ann, &json!({"type": "subscribe", "pipes": pipes, "id": batch}));
    }
    world.settle();
    assert_eq!(world.calls.len(), 64);
    world.rule_all(|_| true);
    let replies = world.take(ann);
    let ids: Vec<u64> = replies.iter().filter_map(|one| one["id"].as_u64()).collect();
    assert_eq!(ids, (0..64).collect::<Vec<_>>());
    let first = replies.iter().find(|one| one["id"] == 0).expect("a reply")["results"].as_object().expect("results");
    assert_eq!(first.values().filter(|one| one["ok"] == true).count(), 64);
    assert!(first.values().all(|one| one["ok"] == true || one["code"] == "TOO_MANY"));
    assert_eq!(world.stats()[0].assembly_bytes, 0);
}

// INVARIANTS 13
#[test]
fn messages_that_wait_for_room_all_go_out_when_there_is_some() {
    let mut world = World::with(
        settings(
            r#"
            [edge]
            workers = 3
            [pipe."open-{n}"]
            subscribe = true
            publish = { url = "http://127.0.0.1:1/publish" }
            "#,
        ),
        3,
        4,
    );
    let (ann, bob, cid) =
        (world.connect(0, &member("ann")), world.connect(1, &member("bob")), world.connect(2, &member("cid")));
    for pipe in 0..60 {
        for one in [bob, cid] {
            world.ask(one, subscribe(&format!("open-{pipe}"), false));
        }
    }
    for pipe in 0..60 {
        world.send(ann, &publish(&format!("open-{pipe}"), "e"));
    }
    world.turn(0);
    while !world.calls.is_empty() {
        world.answer(0, ruled(true));
    }
    for round in 0..200 {
        world.turn(0);
        world.turn(1 + round % 2);
    }
    assert_eq!((world.events(bob).len(), world.events(cid).len()), (60, 60));
    assert!(world.stats().iter().all(|one| (one.stalled, one.assembly_bytes) == (0, 0)));
}

// ---- any order of anything -----------------------------------------------------------------------------------------------

const PIPES: [&str; 6] = ["ask-0", "ask-1", "open-0", "role-0", "guarded-0", "granted-0"];
const ROLES: [&str; 3] = ["admin", "member", "guest"];

/// Two configurations that mean the same of `secret` and `loud`, under other numbers.
fn configuration(second: bool) -> String {
    let events = |pipe: &str| {
        let event = |name: &str, rule: &str| format!("[pipe.\"{pipe}\".event.{name}]\n{rule}\n");
        let secret = event("secret", "subscribe = \"user.role == 'admin'\"");
        let loud = event("loud", "filter = \"event.data.n > 3 || user.role == 'admin'\"");
        let chat = event("chat", "");
        if second { [chat, loud, secret].concat() } else { [secret, chat, loud].concat() }
    };
    let ask = |what: &str| format!("{{ url = \"http://127.0.0.1:1/{what}\" }}");
    let kept = |what: &str| format!("{{ url = \"http://127.0.0.1:1/{what}\", cache_s = 1 }}");
    format!(
        r#"
        [auth]
        anonymous = true
        [module.m]
        guard = [ {{ name = "known", url = "http://127.0.0.1:1/guard" }} ]
        [pipe."ask-{{n}}"]
        subscribe = {}
        publish = {}
        presence = {}
        {}
        [pipe."open-{{n}}"]
        subscribe = true
        publish = true
        presence = {}
        {}
        [pipe."role-{{n}}"]
        subscribe = {}
        publish = "user.role == 'admin'"
        presence = "user.role != 'guest'"
        [pipe."guarded-{{n}}"]
        module = "m"
        subscribe = "user.role != 'guest'"
        publish = "has(user.id) && event.name != 'never'"
        {}
        [action.act]
        allow = {}
        url = "http://127.0.0.1:1/act"
        [queue.jobs]
        publish = {}
        url = "http://127.0.0.1:1/jobs"
        [push]
        allow = true
        guard = [ {{ url = "http://127.0.0.1:1/push" }} ]
        "#,
        ask("subscribe"),
        ask("publish"),
        kept("presence"),
        events("ask-{n}"),
        ask("presence"),
        events("open-{n}"),
        kept("subscribe"),
        events("guarded-{n}"),
        ask("act"),
        ask("jobs"),
    )
}

/// A sequence that the same seed gives again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % most as u64) as usize
    }

    fn of<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.below(among.len())]
    }
}

/// What a client has asked, and what follows from what it was told.
#[derive(Default)]
struct Told {
    name: String,
    anonymous: bool,
    role: String,
    granted: bool,
    asked: BTreeMap<u64, Value>,
    on: BTreeSet<String>,
    /// The last id that was replied to about a pipe.
    replied: BTreeMap<String, u64>,
    /// The last event of a sender on a pipe.
    heard: BTreeMap<(String, u64), u64>,
}

impl Told {
    fn read(&mut self, message: &Value) {
        match message["type"].as_str().expect("a type") {
            "welcome" => self.name = message["connection"].as_str().expect("a name").to_owned(),
            "reply" => self.replied(message),
            "event" => self.event(message),
            "system" if message["event"] == "unsubscribed" || message["event"] == "pipe_revoked" => {
                self.on.remove(message["pipe"].as_str().expect("a pipe"));
            }
            _ => {}
        }
    }

    fn replied(&mut self, message: &Value) {
        let id = message["id"].as_u64().expect("a number");
        let asked = self.asked.remove(&id).unwrap_or_else(|| panic!("a second reply: {message}"));
        let kind = asked["type"].as_str().expect("a type");
        let pipes: Vec<String> = asked["pipes"].as_array().map_or_else(
            || asked["pipe"].as_str().map(str::to_owned).into_iter().collect(),
            |pipes| pipes.iter().map(|pipe| pipe.as_str().expect("a name").to_owned()).collect(),
        );
        for pipe in &pipes {
            let result =
                if asked["pipes"].is_array() && message["ok"] == true { &message["results"][pipe] } else { message };
            if result["code"] == "TOO_MANY" {
                continue;
            }
            let before = self.replied.insert(pipe.clone(), id).unwrap_or_default();
            assert!(before < id, "{pipe}: {id} after {before}");
            if result["ok"] != true {
                continue;
            }
            match kind {
                "subscribe" => drop(self.on.insert(pipe.clone())),
                "unsubscribe" => drop(self.on.remove(pipe)),
                "publish" if pipe == "role-0" => assert!(self.may_be_admin(), "{asked}"),
                "publish" | "presence" if pipe == "granted-0" => assert!(self.may_be_granted(), "{asked}"),
                _ => {}
            }
        }
        match kind {
            "refresh" if message["ok"] == true => {
                self.role = asked["role"].as_str().expect("a role").to_owned();
                self.granted = asked["granted"] == true;
            }
            "action" | "enqueue" | "push" if self.anonymous => assert_eq!(message["code"], "UNAUTHENTICATED"),
            _ => {}
        }
    }

    /// A refresh that is not answered yet may be in force already: it is answered when all that it puts in doubt is
    /// decided.
    fn refreshing(&self) -> impl Iterator<Item = &Value> {
        self.asked.values().filter(|asked| asked["type"] == "refresh")
    }

    fn may_be_admin(&self) -> bool {
        self.role == "admin" || self.refreshing().any(|asked| asked["role"] == "admin")
    }

    fn may_be_granted(&self) -> bool {
        self.granted || self.refreshing().any(|asked| asked["granted"] == true)
    }

    fn event(&mut self, message: &Value) {
        let (pipe, event) = (message["pipe"].as_str().expect("a pipe"), message["event"].as_str().expect("a name"));
        assert!(self.on.contains(pipe), "not subscribed: {message}");
        let ruled = pipe != "role-0" && pipe != "granted-0";
        assert!(!ruled || event != "secret" || self.may_be_admin(), "as {}: {message}", self.role);
        let quiet = message["data"]["n"].as_u64().is_none_or(|n| n <= 3);
        assert!(!ruled || event != "loud" || !quiet || self.may_be_admin(), "as {}: {message}", self.role);
        if let (Some(from), Some(number)) = (message["data"]["from"].as_u64(), message["data"]["number"].as_u64()) {
            let before = self.heard.insert((pipe.to_owned(), from), number).unwrap_or_default();
            assert!(before < number, "{message} after {before}");
        }
    }
}

struct Play {
    world: World,
    dice: Dice,
    told: Vec<Told>,
    /// The clients that are there: their number in the world.
    here: Vec<usize>,
    last_id: u64,
}

impl Play {
    fn join(&mut self, place: usize) -> usize {
        let role = self.dice.of(&ROLES);
        let anonymous = place == 5;
        let granted = self.dice.below(2) == 0;
        let client =
            self.world.connect(place % 2, &if anonymous { String::new() } else { grants(place, role, granted) });
        let role = if anonymous { "" } else { role };
        self.told.push(Told { role: role.into(), granted: granted && !anonymous, anonymous, ..Told::default() });
        client
    }

    fn say(&mut self, client: usize, mut message: Value) {
        self.last_id += 1;
        message["id"] = json!(self.last_id);
        self.told[client].asked.insert(self.last_id, message.clone());
        self.world.send(client, &message);
    }

    fn hear(&mut self) {
        for (client, told) in self.told.iter_mut().enumerate() {
            for message in std::mem::take(&mut self.world.clients[client].inbox) {
                told.read(&message);
            }
        }
    }

    fn step(&mut self) {
        let place = self.dice.below(self.here.len());
        let client = self.here[place];
        let pipe = self.dice.of(&PIPES);
        let several: BTreeSet<&str> = (0..1 + self.dice.below(4)).map(|_| self.dice.of(&PIPES)).collect();
        let events = self.dice.below(8);
        let events = [json!(["chat"]), json!(["secret", "loud"])].get(events).cloned().unwrap_or_default();
        let watches = self.dice.below(3) == 0;
        match self.dice.below(30) {
            0..=4 => {
                self.say(client, json!({"type": "subscribe", "pipe": pipe, "presence": watches, "events": events}))
            }
            5..=6 => self.say(client, json!({"type": "subscribe", "pipes": several, "presence": watches})),
            7..=8 => self.say(client, json!({"type": "unsubscribe", "pipe": pipe})),
            9 => self.say(client, json!({"type": "unsubscribe", "pipes": several})),
            10..=14 => {
                let event = self.dice.of(&["chat", "secret", "loud", "other", "never"]);
                let data = json!({"from": client, "number": self.last_id + 1, "n": self.dice.below(7)});
                self.say(client, json!({"type": "publish", "pipe": pipe, "event": event, "data": data}));
            }
            15 => self.say(client, json!({"type": "presence", "pipe": pipe})),
            16 => self.say(client, json!({"type": "action", "name": "act"})),
            17 => self.say(client, json!({"type": "enqueue", "queue": "jobs"})),
            18 => self.say(client, json!({"type": "push", "to": {"user": "u0"}, "event": "e"})),
            19..=20 if place != 5 => {
                let (role, granted) = (self.dice.of(&ROLES), self.dice.below(2) == 0);
                self.renew(place, role, granted);
                self.everything();
            }
            21 => self.world.revoke(&format!("u{}", place / 2), pipe),
            22 => self.world.restore(&format!("u{}", place / 2), pipe),
            23 => self.world.unsubscribe(&format!("u{}", place / 2), pipe),
            24 if self.dice.below(3) == 0 => {
                let second = self.dice.below(2) == 0;
                self.world.reload(&configuration(second));
                self.everything();
            }
            25 if self.dice.below(3) == 0 => {
                self.world.close(client);
                self.told[client].asked.clear();
                self.here[place] = self.join(place);
            }
            26 => self.world.mono_ms += self.dice.below(700) as u64,
            27 => {
                let event = self.dice.of(&["chat", "secret", "loud", "other"]);
                self.world.publish(pipe, event, r#"{"n":1}"#);
            }
            _ => {}
        }
        for _ in 0..self.dice.below(3) {
            self.answer_some();
        }
        for _ in 0..self.dice.below(4) {
            let worker = self.dice.below(2);
            self.world.turn(worker);
        }
        self.hear();
    }

    /// What nobody may get who may not have it, before anything is answered.
    fn everything(&mut self) {
        for pipe in &PIPES[..2] {
            for event in ["chat", "secret", "loud"] {
                self.world.publish(pipe, event, r#"{"n":1}"#);
            }
        }
    }

    fn renew(&mut self, place: usize, role: &str, granted: bool) {
        let token = grants(place, role, granted);
        self.say(self.here[place], json!({"type": "refresh", "token": token, "role": role, "granted": granted}));
    }

    fn answer_some(&mut self) {
        if self.world.calls.is_empty() {
            return;
        }
        let place = self.dice.below(self.world.calls.len());
        let outcome = match &self.world.calls[place].ask {
            Ask::Rule(_) => match self.dice.below(10) {
                0..=6 => ruled(true),
                7..=8 => ruled(false),
                _ => Outcome::Ruled(Err(Unanswered::Late)),
            },
            Ask::Action(_) => Outcome::Acted(Ok("1".into())),
            Ask::Enqueue(_) => Outcome::Enqueued(Ok(())),
            Ask::Push(_) => Outcome::Pushed(Ok(1)),
            Ask::Authorize(_) => panic!("there is no webhook"),
        };
        self.world.answer(place, outcome);
    }

    /// What the server believes must be what the clients were told.
    fn check(&mut self) {
        let (sender, receiver) = channel();
        for worker in 0..2 {
            let sender = sender.clone();
            let answer = Box::new(move |answer: Answer| drop(sender.send(answer)));
            let act = Act::Connections { person: None, after_slot: None, limit: 100 };
            let command = Command { act, answer: Some(answer) };
            assert!(self.world.control.push(worker, MeshParcel::Command(Box::new(command))).is_ok());
        }
        self.world.control.publish();
        self.world.settle();
        drop(sender);
        let mut checked = 0;
        for answer in receiver {
            let Answer::Connections(connections) = answer else { panic!("{answer:?}") };
            for one in connections {
                let told = self.told.iter().find(|told| told.name == one.connection).expect("welcomed");
                let pipes: BTreeSet<String> = one.pipes.iter().map(|pipe| pipe.to_string()).collect();
                assert_eq!(pipes, told.on, "{}", one.connection);
                checked += 1;
            }
        }
        assert_eq!(checked, self.here.len());
    }
}

fn grants(place: usize, role: &str, granted: bool) -> String {
    let all =
        json!({"granted-0": {"subscribe": true, "publish": true, "presence": true}, "ask-1": {"subscribe": true}});
    token(&format!("u{}", place / 2), role, &if granted { all } else { json!({}) })
}

fn play(seed: u64) {
    let world = World::with(settings(&configuration(false)), 2, 8);
    let mut play = Play { world, dice: Dice(seed), told: Vec::new(), here: Vec::new(), last_id: 0 };
    for place in 0..6 {
        let client = play.join(place);
        play.here.push(client);
    }
    for _ in 0..300 {
        play.step();
    }
    // Every call comes to its end, and so does every message.
    let finish = |play: &mut Play, allows: &dyn Fn(&Asked) -> bool| {
        play.world.rule_all(allows);
        play.world.mono_ms += 2_000;
        play.world.rule_all(allows);
        play.hear();
    };
    finish(&mut play, &|_| true);
    for client in &play.here {
        assert_eq!(play.told[*client].asked, BTreeMap::new(), "without a reply");
    }
    play.check();
    // Nobody is anything any more, and the application refuses.
    for place in 0..5 {
        play.renew(place, "guest", false);
    }
    finish(&mut play, &|asked| asked.body["pipe"] == "open-0" || asked.body["user"].is_null());
    play.check();
    for client in play.here[..5].iter() {
        assert!(play.told[*client].on.iter().all(|pipe| pipe == "open-0"), "{:?}", play.told[*client].on);
    }
    for pipe in PIPES {
        for event in ["chat", "secret", "loud", "other"] {
            play.world.publish(pipe, event, r#"{"n":1}"#);
        }
    }
    play.hear();
    for stats in play.world.stats() {
        assert_eq!((stats.assembly_bytes, stats.stalled, stats.ring_depth), (0, 0, 0));
    }
    let here = play.here.clone();
    here.into_iter().for_each(|client| play.world.close(client));
    for _ in 0..40 {
        play.world.mono_ms += 250;
        play.world.settle();
    }
    for Worker { shard, .. } in &play.world.workers {
        assert_eq!((shard.connections(), shard.pipes().known(), shard.frame_bytes()), (0, 0, 0));
    }
}

// INVARIANTS 2, 3, 7, 11; C13, C26, D3
#[test]
fn whatever_happens_in_between_nobody_gets_what_is_not_theirs() {
    for seed in 0..60 {
        if let Err(why) = std::panic::catch_unwind(|| play(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(why);
        }
    }
}
