//! A shard without sockets, for benchmarks and for the test of allocations: bytes go in, writes are taken and reported done
//! at once. One worker, no rates, a key of its own, hashers seeded with a constant, so that the same calls do the same work.

#![allow(dead_code, reason = "each of its users needs a part")]

use std::net::SocketAddr;
use std::sync::Arc;

use pipeward::auth::token::sign;
use pipeward::config::{Config, KeySource, Rates, TokenSettings};
use pipeward::mesh::doorbell::Bell;
use pipeward::mesh::port::mesh;
use pipeward::protocol::frame::{append_client_frame, opcode};
use pipeward::shard::Shard;
use pipeward::shard::connection::Handle;
use pipeward::shard::input::{Input, Now};
use pipeward::shard::shared::{Settings, Shared};

const SECRET: &[u8] = b"only for benchmarks, 32 bytes...";

/// An empty shard, and the time, which stands still unless the caller moves it.
pub fn shard() -> (Shard, Now) {
    let now = Now { mono_ns: 1, unix_ms: 1_700_000_000_000 };
    let mut config = Config::new(1);
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
    while let Some((connection, chunk)) = shard.next_write() {
        bytes += chunk.as_ref().len();
        drop(chunk);
        shard.handle(now, Input::Sent { connection, ok: true });
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
    let (mut shard, now) = shard();
    let publisher = connect(&mut shard, now, 0);
    let subscribe = message(r#"{"type":"subscribe","pipe":"team-chat"}"#);
    for user in 1..=subscribers {
        let connection = connect(&mut shard, now, user);
        shard.handle(now, Input::Received { connection, bytes: &mut subscribe.clone() });
    }
    drain(&mut shard, now);
    (shard, now, publisher)
}
