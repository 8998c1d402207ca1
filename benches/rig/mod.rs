//! A shard without sockets, for benchmarks and for the test of allocations: bytes go in, writes are taken and reported done
//! at once. One worker, no rates, a key of its own, hashers seeded with a constant, so that the same calls do the same work.

#![allow(dead_code, reason = "each of its users needs a part")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pipeward::auth::token::sign;
use pipeward::config::{Config, KeySource, Rates, TokenSettings, parse};
use pipeward::mesh::doorbell::Bell;
use pipeward::mesh::port::mesh;
use pipeward::protocol::frame::{append_client_frame, opcode};
use pipeward::shard::Shard;
use pipeward::shard::connection::Handle;
use pipeward::shard::input::{Input, Now};
use pipeward::shard::shared::{Settings, Shared};

const SECRET: &[u8] = b"only for benchmarks, 32 bytes...";

/// Rules, guards of a module, scopes and schemas, none of them on `team-chat`; one rule and its module are the application's.
pub const RULES_ELSEWHERE: &str = r#"
[module.back-office]
guard = [{ require = "user.role == 'admin'" }, { url = "http://127.0.0.1:1/guard" }]
[pipe."back-office-{desk}"]
module = "back-office"
subscribe = { url = "http://127.0.0.1:1/subscribe" }
[pipe."{tenant}:orders"]
scope = { tenant = "tenant" }
subscribe = "'orders' in user.features"
publish = "event.data.amount < 100"
[pipe."{tenant}:orders".event.placed]
schema = { type = "object" }
max_bytes = 1024
filter = "event.data.amount > 10 || user.role == 'admin'"
[action.order]
allow = "user.role == 'member'"
url = "http://127.0.0.1:1/order"
"#;

/// An empty shard, and the time, which stands still unless the caller moves it.
pub fn shard() -> (Shard, Now) {
    shard_with("")
}

/// The same with these rules.
pub fn shard_with(rules: &str) -> (Shard, Now) {
    let now = Now { mono_ns: 1, unix_ms: 1_700_000_000_000 };
    let mut config = Config::new(1);
    let parsed = parse(rules, Path::new("."), &mut std::iter::empty());
    config.rules = parsed.unwrap_or_else(|findings| panic!("{findings:#?}")).0.rules;
    config.limits.rates = Rates::default();
    // Time passes in here without anybody answering pings.
    config.edge.ping_s = u32::MAX;
    config.auth.token = Some(TokenSettings {
        key: KeySource::HmacSecret(SECRET.to_vec()),
        issuer: None,
        audience: None,
        leeway_s: 0,
        require_exp: false,
    });
    let shared: Arc<Shared> = Shared::new(Settings::new(config).expect("a usable key"), 7);
    let bell: Box<dyn Bell> = Box::new(|| {});
    let port = mesh(vec![bell], 64).pop().expect("one port");
    (Shard::new(shared, port, now), now)
}

/// Takes all writes and reports them done. Returns the bytes.
pub fn drain(shard: &mut Shard, now: Now) -> usize {
    let mut bytes = 0;
    while shard.has_writes() {
        while let Some((connection, chunk)) = shard.next_write() {
            bytes += chunk.as_ref().len();
            drop(chunk);
            shard.handle(now, Input::Sent { connection, ok: true });
        }
    }
    bytes
}

/// Admits a user with a verified token and three grants, of which `team-chat` may be published to.
pub fn connect(shard: &mut Shard, now: Now, user: usize) -> Handle {
    let claims = format!(
        r#"{{"sub":"user-{user}","pipes":{{"team-chat":{{"subscribe":true,"publish":true,"presence":true}},"announcements":{{"subscribe":true}},"user-{user}":{{"subscribe":true}}}}}}"#
    );
    let mut head = format!(
        "GET /v1/connect HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {}\r\n\r\n",
        sign(SECRET, &claims)
    )
    .into_bytes();
    let connection = shard.accept(now, SocketAddr::from(([127, 0, 0, 1], 1000)));
    shard.handle(now, Input::Received { connection, bytes: &mut head });
    connection
}

/// A text message as a masked frame.
pub fn message(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    append_client_frame(&mut frame, true, opcode::TEXT, text.as_bytes(), [1, 2, 3, 4]);
    frame
}

/// A publish to `team-chat` whose `data` has 128 bytes, quotes included.
pub fn publish() -> Vec<u8> {
    let data = "x".repeat(126);
    message(&format!(r#"{{"type":"publish","pipe":"team-chat","event":"m","data":"{data}"}}"#))
}

/// A shard with a publisher and so many subscribers of `team-chat`, all of them idle.
pub fn audience(subscribers: usize) -> (Shard, Now, Handle) {
    audience_with("", subscribers)
}

/// The same in a shard with these rules.
pub fn audience_with(rules: &str, subscribers: usize) -> (Shard, Now, Handle) {
    let (mut shard, now) = shard_with(rules);
    let publisher = connect(&mut shard, now, 0);
    let subscribe = message(r#"{"type":"subscribe","pipe":"team-chat"}"#);
    for user in 1..=subscribers {
        let connection = connect(&mut shard, now, user);
        shard.handle(now, Input::Received { connection, bytes: &mut subscribe.clone() });
    }
    drain(&mut shard, now);
    (shard, now, publisher)
}
