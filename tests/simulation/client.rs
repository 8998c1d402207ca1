//! A simulated client: bytes out, bytes in. What it sends is noted in the model as an item with its place in the stream.

use std::collections::VecDeque;

use pipeward::auth::token;
use pipeward::protocol::frame::{append_client_frame, opcode, server_frame};
use pipeward::protocol::message;

use crate::model::rights::{Grant, Person};
use crate::model::wire::{Ids, Item, Pass, Request, Sent, quote};
use crate::plan::{PATTERNS, PEOPLE, Plan, SECRET, SESSIONS, TEAMS, TOKEN_IDS};
use crate::random::Random;

/// One socket with the client behind it.
pub struct Socket {
    pub worker: usize,
    /// Known to the shard.
    pub accepted: bool,
    pub ip: u8,
    /// Sent by the client and not yet handed in.
    pub outgoing: VecDeque<u8>,
    /// Bytes that the client ever sent.
    pub sent_bytes: u64,
    /// Items not yet told to the model, while it does not know the connection.
    pub items: Vec<Item>,
    /// A write that the kernel has, and whether it is done.
    pub writing: Option<Vec<u8>>,
    pub write_done: bool,
    /// What was received and not yet understood.
    incoming: Vec<u8>,
    upgraded: bool,
    pub paused: bool,
    /// The client ended its side; that was handed in.
    pub ended: bool,
    pub end_seen: bool,
    /// Our side was ended.
    pub finished: bool,
    pub closed: bool,
    /// It sent a close frame, or something after which nothing counts.
    pub done: bool,
    /// Reads next to nothing.
    pub slow: bool,
    /// Does not answer pings and close frames.
    pub mute: bool,
    ids: u64,
    /// Whose tokens it has: the place in `PEOPLE`.
    whose: usize,
}

impl Socket {
    pub fn new(worker: usize, ip: u8, slow: bool, mute: bool) -> Socket {
        Socket {
            worker,
            accepted: false,
            ip,
            outgoing: VecDeque::new(),
            sent_bytes: 0,
            items: Vec::new(),
            writing: None,
            write_done: false,
            incoming: Vec::new(),
            upgraded: false,
            paused: false,
            ended: false,
            end_seen: false,
            finished: false,
            closed: false,
            done: false,
            slow,
            mute,
            ids: 0,
            whose: 0,
        }
    }

    /// May still send.
    pub fn talks(&self) -> bool {
        !self.done && !self.ended && !self.closed
    }

    /// Begins with a handshake.
    pub fn knock(&mut self, random: &mut Random, plan: &Plan, unix_ms: u64) {
        self.whose = random.below(PEOPLE.len());
        let pass = if random.chance(if plan.anonymous { 75 } else { 97 }) {
            Some(draw_pass(random, plan, unix_ms, self.whose))
        } else {
            None
        };
        let subprotocol = random.chance(50);
        let mut head = String::from("GET /v1/connect");
        let place = random.below(3);
        if let (Some(pass), 0) = (&pass, place) {
            head.push_str(&format!("?token={}", pass.text));
        }
        head.push_str(
            " HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        );
        let mut offered = Vec::new();
        if subprotocol {
            offered.push("pipeward.v1".to_owned());
        }
        match (&pass, place) {
            (Some(pass), 1) => head.push_str(&format!("Authorization: Bearer {}\r\n", pass.text)),
            (Some(pass), 2) => offered.push(format!("pipeward.token.{}", pass.text)),
            _ => {}
        }
        if !offered.is_empty() {
            head.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", offered.join(", ")));
        }
        head.push_str("\r\n");
        self.put(head.as_bytes(), false, Sent::Head { pass, subprotocol });
    }

    /// Says something. `unique` makes the data of a publish its own.
    pub fn talk(&mut self, random: &mut Random, plan: &Plan, unix_ms: u64, unique: u64) {
        let observed = plan.rates.is_some();
        match random.below(100) {
            0..=1 => self.half(random),
            2 => self.close(random),
            3 => self.break_protocol(random, plan),
            4..=6 if !observed => {
                let payload = vec![b'p'; random.below(20)];
                let (control, sent) = if random.chance(50) {
                    (opcode::PING, Sent::Ping(payload.clone()))
                } else {
                    (opcode::PONG, Sent::Pong)
                };
                let bytes = frame(random, true, control, &payload);
                self.put(&bytes, false, sent);
            }
            7..=9 => self.malformed(random, observed),
            _ => {
                let id = self.id(random, if observed { 100 } else { 75 });
                let mut request = match random.chance(plan.refresh_percent) {
                    true => self.draw_refresh(random, plan, unix_ms),
                    false => draw_request(random, plan, unique),
                };
                let mut text = encode(random, id.as_deref(), &request);
                if text.len() > plan.message_bytes {
                    request = Request::Ping;
                    text = encode(random, id.as_deref(), &request);
                }
                self.text(random, plan, &text, Sent::Message { id, request });
            }
        }
    }

    /// Wants to go on with another token: mostly its own user's.
    fn draw_refresh(&self, random: &mut Random, plan: &Plan, unix_ms: u64) -> Request {
        if random.chance(5) {
            return Request::Refresh { pass: None };
        }
        let whose = if random.chance(95) { self.whose } else { random.below(PEOPLE.len()) };
        Request::Refresh { pass: Some(Box::new(draw_pass(random, plan, unix_ms, whose))) }
    }

    /// Ends the stream in good order.
    pub fn close(&mut self, random: &mut Random) {
        // A code always, where replies tell what was done: an empty close frame looks like no other.
        let code = if random.chance(70) { Some(*random.pick(&[1000u16, 1001, 3000, 4999])) } else { None };
        let payload = code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
        let bytes = frame(random, true, opcode::CLOSE, &payload);
        self.put(&bytes, false, Sent::Close(code));
        self.done = true;
    }

    /// What the client received: it answers pings and close frames, and hangs up when it is refused.
    pub fn receive(&mut self, random: &mut Random, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        if !self.upgraded {
            if !self.incoming.starts_with(b"HTTP/1.1 101 ") {
                self.ended |= !self.mute;
                return;
            }
            let Some(end) = self.incoming.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            self.incoming.drain(..end + 4);
            self.upgraded = true;
        }
        let mut rest = std::mem::take(&mut self.incoming);
        while let Some(received) = server_frame(&rest) {
            let (opcode, payload, size) = (received.opcode, received.payload.to_vec(), received.size);
            rest.drain(..size);
            if self.mute {
                continue;
            }
            if opcode == opcode::PING && self.talks() {
                let bytes = frame(random, true, opcode::PONG, &payload);
                self.put(&bytes, false, Sent::Pong);
            }
            if opcode == opcode::CLOSE {
                if self.talks() {
                    let bytes = frame(random, true, opcode::CLOSE, &payload);
                    self.put(&bytes, false, Sent::Close(Some(1000)));
                    self.done = true;
                }
                self.ended |= random.chance(50);
            }
        }
        self.incoming = rest;
    }

    fn half(&mut self, random: &mut Random) {
        if random.chance(60) {
            return;
        }
        let text = vec![b'x'; random.between(4, 200)];
        let mut bytes = frame(random, true, opcode::TEXT, &text);
        bytes.truncate(random.between(1, bytes.len() - 1));
        self.put(&bytes, false, Sent::Half);
        if let Some(item) = self.items.last_mut() {
            item.end = u64::MAX;
        }
        self.done = true;
    }

    fn break_protocol(&mut self, random: &mut Random, plan: &Plan) {
        let (code, bytes) = match random.below(5) {
            0 => (1002, vec![0x81, 0x02, b'h', b'i']),
            1 => (1002, frame(random, true, 0x3, b"reserved")),
            2 => (1003, frame(random, true, opcode::BINARY, b"binary")),
            3 => (1007, frame(random, true, opcode::TEXT, b"\xC3\x28")),
            _ => (1009, frame(random, true, opcode::TEXT, &vec![b' '; plan.message_bytes + 1])),
        };
        self.put(&bytes, true, Sent::Broken(code));
        self.done = true;
    }

    fn malformed(&mut self, random: &mut Random, observed: bool) {
        let id = self.id(random, 50);
        let texts: &[&str] = if observed || id.is_some() {
            &[
                r#"{"id":ID,"type":"subscribe"}"#,
                r#"{"id":ID,"type":"subscribe","pipe":"open:*"}"#,
                r#"{"id":ID,"type":"publish","pipe":"open:a","event":"two words"}"#,
                r#"{"id":ID,"type":"teleport"}"#,
                r#"{"id":ID,"type":"unsubscribe","pipes":[]}"#,
                r#"{"type":"subscribe","pipe":"open:a","pipe":"open:b","id":ID}"#,
            ]
        } else {
            &["not json", "[]", r#"{"id":1.5,"type":"subscribe","pipe":"open:a"}"#, r#"{"type":"subscribe","pipe":""}"#]
        };
        let id = id.or_else(|| observed.then(|| "0".to_owned()));
        let text = random.pick(texts).replace("ID", id.as_deref().unwrap_or("null"));
        // The sentence is for people and may change: it is taken from the parser, that it comes is not.
        let error = message::parse(&text).err().map(|malformed| malformed.error.into_owned()).unwrap_or_default();
        let bytes = frame(random, true, opcode::TEXT, text.as_bytes());
        self.put(&bytes, false, Sent::Malformed { id, error });
    }

    /// A text message, maybe in fragments with a ping between.
    fn text(&mut self, random: &mut Random, plan: &Plan, text: &str, sent: Sent) {
        if random.chance(85) || text.len() < 4 {
            let bytes = frame(random, true, opcode::TEXT, text.as_bytes());
            return self.put(&bytes, false, sent);
        }
        let start = self.sent_bytes;
        let (first, second) = text.as_bytes().split_at(random.between(0, text.len()));
        let bytes = frame(random, false, opcode::TEXT, first);
        self.send(&bytes);
        if plan.rates.is_none() && random.chance(50) {
            let bytes = frame(random, true, opcode::PING, b"between");
            self.put(&bytes, false, Sent::Ping(b"between".to_vec()));
        }
        let bytes = frame(random, true, opcode::CONTINUATION, second);
        self.send(&bytes);
        self.items.push(Item { start, end: self.sent_bytes, whole: false, sent });
    }

    fn id(&mut self, random: &mut Random, percent: usize) -> Option<String> {
        self.ids += 1;
        let spellings = [self.ids.to_string(), format!("\"id {}\"", self.ids), format!("\"\\u00e9{}\"", self.ids)];
        random.chance(percent).then(|| random.pick(&spellings).clone())
    }

    fn put(&mut self, bytes: &[u8], whole: bool, sent: Sent) {
        let start = self.sent_bytes;
        self.send(bytes);
        self.items.push(Item { start, end: self.sent_bytes, whole, sent });
    }

    fn send(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
        self.sent_bytes += bytes.len() as u64;
    }
}

fn frame(random: &mut Random, fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_client_frame(&mut bytes, fin, opcode, payload, (random.next() as u32).to_be_bytes());
    bytes
}

fn draw_pass(random: &mut Random, plan: &Plan, unix_ms: u64, whose: usize) -> Pass {
    let (id, tenant, org, role) = PEOPLE[whose];
    let team = if random.chance(70) { TEAMS[whose % TEAMS.len()] } else { *random.pick(&TEAMS) };
    let text = |text: Option<&str>| text.map(str::to_owned);
    let person = Person { id: id.into(), tenant: text(tenant), team: text(team), org: text(org), role: text(role) };
    let unix_s = (unix_ms / 1_000) as i64;
    let ids = Ids {
        token_id: random.chance(60).then(|| format!("t{}", random.below(TOKEN_IDS))),
        session: random.chance(60).then(|| (*random.pick(&SESSIONS)).to_owned()),
        issued_at_s: if random.chance(90) { unix_s + random.below(4) as i64 - 2 } else { 0 },
    };
    let mut grants: Vec<Grant> = Vec::new();
    for _ in 0..random.below(8) {
        let name = (*if random.chance(70) { random.pick(&plan.pipes) } else { random.pick(&PATTERNS) }).to_owned();
        if grants.iter().all(|grant| grant.name != name) {
            grants.push(Grant { name, subscribe: random.chance(75), publish: random.chance(70) });
        }
    }
    let lives = plan.rates.is_none() && random.chance(25);
    let expires_s = if random.chance(4) {
        Some(unix_ms / 1_000 - random.below(3) as u64)
    } else {
        lives.then(|| unix_ms / 1_000 + random.between(1, 150) as u64)
    };
    let listed = grants.iter().map(|grant| {
        // Anything but `true` is not granted.
        let publish = if grant.publish { "true" } else { *random.pick(&["false", "1", "null", "\"true\""]) };
        format!(r#"{}:{{"subscribe":{},"publish":{publish}}}"#, quote(&grant.name), grant.subscribe)
    });
    let listed = listed.collect::<Vec<_>>().join(",");
    let mut claims = format!(r#"{{"sub":{},"pipes":{{{listed}}}"#, quote(&person.id));
    let texts = [
        ("tenant", &person.tenant),
        ("team", &person.team),
        ("org", &person.org),
        ("role", &person.role),
        ("jti", &ids.token_id),
        ("sid", &ids.session),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            claims.push_str(&format!(r#","{name}":{}"#, quote(value)));
        }
    }
    if let Some(at) = expires_s {
        claims.push_str(&format!(r#","exp":{at}"#));
    }
    if ids.issued_at_s != 0 {
        claims.push_str(&format!(r#","iat":{}"#, ids.issued_at_s));
    }
    claims.push('}');
    let genuine = random.chance(96);
    let mut text = token::sign(if genuine { SECRET } else { b"the secret of somebody else" }, &claims);
    if !genuine && random.chance(30) {
        text.truncate(text.len() / 2);
    }
    Pass { text, genuine, person, grants, expires_at_ms: expires_s.map(|at| at * 1_000), ids }
}

fn draw_request(random: &mut Random, plan: &Plan, unique: u64) -> Request {
    let pipes = |random: &mut Random, batch: bool| {
        let count = if batch { random.between(1, 5) } else { 1 };
        (0..count).map(|_| (*random.pick(&plan.pipes)).to_owned()).collect::<Vec<_>>()
    };
    let event = |random: &mut Random| (*random.pick(&["message", "edit", "x\"y"])).to_owned();
    if random.chance(plan.publish_percent) {
        let odd = [
            "12345678901234567890123",
            "1e400",
            "-0.0",
            "\"a\\u00e9\\n\"",
            "[ 1 , {\"b\" : null} ]",
            "{\"k\":1,\"k\":2}",
        ];
        let filler = "f".repeat(if random.chance(70) { random.below(40) } else { random.below(400) });
        let data = match random.below(4) {
            0 => unique.to_string(),
            _ => format!(r#"{{"n":{unique}, "odd":{},"filler":"{filler}"}}"#, random.pick(&odd)),
        };
        let pipe = (*random.pick(&plan.pipes)).to_owned();
        return Request::Publish { pipe, event: event(random), data, echo: random.chance(75) };
    }
    match random.below(20) {
        0 => Request::Ping,
        1 => Request::Presence,
        2 => Request::Action,
        3 => Request::Enqueue,
        4 => Request::Push,
        5..=8 => {
            let batch = random.chance(30);
            Request::Unsubscribe { pipes: pipes(random, batch), batch }
        }
        _ => {
            let batch = random.chance(30);
            let mut events: Vec<String> = Vec::new();
            for _ in 0..if random.chance(25) { random.between(1, 3) } else { 0 } {
                let event = event(random);
                if !events.contains(&event) {
                    events.push(event);
                }
            }
            Request::Subscribe { pipes: pipes(random, batch), batch, presence: random.chance(4), events }
        }
    }
}

/// The request as JSON, its members in any order.
fn encode(random: &mut Random, id: Option<&str>, request: &Request) -> String {
    let names = |pipes: &[String], batch: bool| {
        if batch {
            let pipes: Vec<String> = pipes.iter().map(|pipe| quote(pipe)).collect();
            ("pipes", format!("[{}]", pipes.join(", ")))
        } else {
            ("pipe", quote(&pipes[0]))
        }
    };
    let text = |text: &str| text.to_owned();
    let mut members: Vec<(&str, String)> = match request {
        Request::Subscribe { pipes, batch, presence, events } => {
            let mut members = vec![("type", text("\"subscribe\"")), names(pipes, *batch)];
            if *presence {
                members.push(("presence", text("true")));
            }
            if !events.is_empty() || random.chance(10) {
                let events: Vec<String> = events.iter().map(|event| quote(event)).collect();
                members.push(("events", format!("[{}]", events.join(","))));
            }
            members
        }
        Request::Unsubscribe { pipes, batch } => vec![("type", text("\"unsubscribe\"")), names(pipes, *batch)],
        Request::Publish { pipe, event, data, echo } => {
            let pipe = if random.chance(10) {
                format!("\"\\u{:04x}{}", pipe.as_bytes()[0], &quote(pipe)[2..])
            } else {
                quote(pipe)
            };
            let mut members = vec![
                ("type", text("\"publish\"")),
                ("pipe", pipe),
                ("event", quote(event)),
                ("data", format!(" {data} ")),
            ];
            if !echo || random.chance(20) {
                members.push(("echo", echo.to_string()));
            }
            members
        }
        Request::Ping => vec![("type", text("\"ping\""))],
        Request::Presence => vec![("type", text("\"presence\"")), ("pipe", text("\"open:a\""))],
        Request::Action => vec![("type", text("\"action\"")), ("name", text("\"act\"")), ("args", text("{}"))],
        Request::Enqueue => vec![("type", text("\"enqueue\"")), ("queue", text("\"q\"")), ("data", text("1"))],
        Request::Refresh { pass } => {
            let mut members = vec![("type", text("\"refresh\""))];
            members.extend(pass.iter().map(|pass| ("token", quote(&pass.text))));
            members
        }
        Request::Push => {
            vec![("type", text("\"push\"")), ("to", text("{\"user\":\"ann\"}")), ("event", text("\"e\""))]
        }
    };
    if let Some(id) = id {
        members.push(("id", id.to_owned()));
    }
    let first = random.below(members.len());
    members.rotate_left(first);
    let members: Vec<String> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}
