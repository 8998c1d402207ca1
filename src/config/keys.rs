//! The one table of configuration keys.
//!
//! From it come: which keys are known, what each accepts and where its value goes, which key a misspelt one was meant
//! to be, and the reference in `docs/configuration.md`. A path is the key's full name; `*` stands for any name.
//! To make a later key available, replace its `Refused` row by a real one.
//! Defaults stand here as text and in `types` as values; a test holds them equal.

use super::kind::{Key, Kind, MESSAGE_BYTES_MAX, QUEUE_BYTES_MAX};
use crate::bounds::{PIPES_MAX, WORKERS_MAX};

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

const fn refused(path: &'static str, instead: &'static str, doc: &'static str) -> Key {
    Key { path, kind: Kind::Refused(instead), default: "", doc }
}

const USUAL: &str = "{ per_s = 50, burst = 100 }";

/// Every key, in the order of the reference.
pub(super) static KEYS: &[Key] = &[
    key("edge.listen", Kind::Addresses(|d| &mut d.edge.listen), "\"127.0.0.1:8080\"", "Where clients connect."),
    key(
        "edge.workers",
        Kind::Number(1, WORKERS_MAX as u32, |d| &mut d.workers),
        "",
        "Worker threads, one to a core. Default: the cores available (a cgroup's quota counts), one fewer from four up.",
    ),
    key(
        "edge.origins",
        Kind::Origins(|d| &mut d.edge.origins),
        "",
        "Web pages that may connect; others get 403. Default: pages of the same host only. An empty array refuses every page. `\"*\"` lets every page in and must be written out. Clients that are no browsers send no origin and pass.",
    ),
    key(
        "edge.trusted_proxies",
        Kind::Networks(|d| &mut d.edge.trusted_proxies),
        "[]",
        "Peers whose `X-Forwarded-For` (rightmost hop that is not trusted) and PROXY protocol header are believed.",
    ),
    key(
        "edge.ping_s",
        Kind::Number(1, 3600, |d| &mut d.edge.ping_s),
        "25",
        "Seconds between pings. A connection that is silent for as long again after one is closed (4408).",
    ),
    key(
        "edge.drain_s",
        Kind::Number(0, 3600, |d| &mut d.edge.drain_s),
        "30",
        "Seconds over which connections are let go, evenly, when the server stops.",
    ),
    key(
        "edge.handshake_s",
        Kind::Number(1, 300, |d| &mut d.edge.handshake_s),
        "10",
        "Seconds that a client may take for the whole handshake.",
    ),
    key(
        "auth.anonymous",
        Kind::Flag(|d| &mut d.auth.anonymous),
        "false",
        "Whether a client without a token is served, as nobody in particular. A token that is present must be valid all the same.",
    ),
    refused("auth.webhook", "use [auth.token]", "Asking the application at each connection."),
    key(
        "auth.token.hmac_secret",
        Kind::Secret(|d| &mut d.token.hmac_secret),
        "",
        "Key of HS256, HS384 and HS512 tokens, at least 16 bytes, better 32. Exactly one of `hmac_secret`, `public_key_file` and `jwks_url` stands in `[auth.token]`.",
    ),
    key(
        "auth.token.public_key_file",
        Kind::Text(|d| &mut d.token.public_key_file),
        "",
        "PEM file with the public key of RS256 (RSA, at least 2048 bits), ES256 (P-256) or EdDSA (Ed25519) tokens.",
    ),
    key(
        "auth.token.jwks_url",
        Kind::Text(|d| &mut d.token.jwks_url),
        "",
        "Address of a JWKS document (RFC 7517) with the public keys, `https://…`, or `http://…` of this machine. It is fetched at the start, every 5 minutes, and when a token names an unknown key, at most every 10 seconds; keys stay while it cannot be reached.",
    ),
    key("auth.token.issuer", Kind::Text(|d| &mut d.token.issuer), "", "`iss` that a token must carry."),
    key(
        "auth.token.audience",
        Kind::Text(|d| &mut d.token.audience),
        "",
        "`aud` that a token must name. Without it a token that names any audience is refused.",
    ),
    key(
        "auth.token.leeway_s",
        Kind::Number(0, 3600, |d| &mut d.token.leeway_s),
        "0",
        "Seconds of tolerance for the clocks behind `exp` and `nbf`.",
    ),
    key(
        "auth.token.require_exp",
        Kind::Flag(|d| &mut d.token.require_exp),
        "false",
        "Whether a token without `exp` is refused.",
    ),
    key(
        "limits.connections",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.connections),
        "100000",
        "Connections in all; 0 = no limit.",
    ),
    key(
        "limits.connections_per_ip",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.connections_per_ip),
        "0",
        "Connections of one address (IPv6: one /64); 0 = no limit.",
    ),
    key(
        "limits.connections_per_user",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.connections_per_user),
        "0",
        "Connections of one user of one tenant; 0 = no limit.",
    ),
    key(
        "limits.connections_per_tenant",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.connections_per_tenant),
        "0",
        "Connections of one tenant; 0 = no limit.",
    ),
    key(
        "limits.handshakes_per_s",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.handshakes_per_s),
        "0",
        "Handshakes per second of the whole server, with a burst of one second's worth; 0 = no limit.",
    ),
    key(
        "limits.message_bytes",
        Kind::Size(MESSAGE_BYTES_MAX, |d| &mut d.limits.message_bytes),
        "65536",
        "Bytes of one message of a client, after reassembly. A longer one closes 1009.",
    ),
    key(
        "limits.subscriptions",
        Kind::Size(PIPES_MAX as u32, |d| &mut d.limits.subscriptions),
        "256",
        "Pipes that one connection may be subscribed to.",
    ),
    key(
        "limits.queue_bytes",
        Kind::Size(QUEUE_BYTES_MAX, |d| &mut d.limits.queue_bytes),
        "1048576",
        "Bytes that may wait to be sent to one connection.",
    ),
    key(
        "limits.when_slow",
        Kind::WhenSlow(|d| &mut d.limits.when_slow),
        "\"close\"",
        "What a full queue leads to: `\"close\"` (4413), or `\"drop_oldest\"`: the oldest events go and the client is told how many (`lagged`).",
    ),
    key(
        "limits.throttle_s",
        Kind::Number(0, 3600, |d| &mut d.limits.throttle_s),
        "10",
        "Seconds that a connection may stay over a rate before it is closed (4429); 0 closes at the first refusal.",
    ),
    key(
        "limits.message",
        Kind::Rate(|d| &mut d.limits.rates.message),
        "{ per_s = 100, burst = 200 }",
        "Rate of all messages of a connection, whatever their type. In every rate `per_s = 0` switches it off, and `burst` is one second's worth where it is left out.",
    ),
    key("limits.publish", Kind::Rate(|d| &mut d.limits.rates.publish), USUAL, "Rate of `publish`, per connection."),
    key(
        "limits.subscribe",
        Kind::Rate(|d| &mut d.limits.rates.subscribe),
        USUAL,
        "Rate of `subscribe`, per connection.",
    ),
    key("limits.presence", Kind::Rate(|d| &mut d.limits.rates.presence), USUAL, "Rate of `presence`, per connection."),
    key(
        "limits.refresh",
        Kind::Rate(|d| &mut d.limits.rates.refresh),
        "{ per_s = 1, burst = 5 }",
        "Rate of `refresh`, per connection.",
    ),
    key("limits.action", Kind::Rate(|d| &mut d.limits.rates.action), USUAL, "Rate of `action`, per connection."),
    key("limits.enqueue", Kind::Rate(|d| &mut d.limits.rates.enqueue), USUAL, "Rate of `enqueue`, per connection."),
    key("limits.push", Kind::Rate(|d| &mut d.limits.rates.push), USUAL, "Rate of `push`, per connection."),
    key(
        "limits.bytes",
        Kind::Rate(|d| &mut d.limits.rates.bytes),
        "{ per_s = 1048576, burst = 4194304 }",
        "Bytes of messages that a connection may send. `burst` may not be below `limits.message_bytes`.",
    ),
    refused("limits.per_tenant", "use connections_per_tenant, or [limits.per_user]", "Rates summed over a tenant."),
    key(
        "limits.per_user.message",
        Kind::Rate(|d| &mut d.limits.per_user.message),
        "",
        "The same rates, summed over the connections of one user of one tenant. Default: none.",
    ),
    key("limits.per_user.publish", Kind::Rate(|d| &mut d.limits.per_user.publish), "", "Rate of `publish`, per user."),
    key(
        "limits.per_user.subscribe",
        Kind::Rate(|d| &mut d.limits.per_user.subscribe),
        "",
        "Rate of `subscribe`, per user.",
    ),
    key(
        "limits.per_user.presence",
        Kind::Rate(|d| &mut d.limits.per_user.presence),
        "",
        "Rate of `presence`, per user.",
    ),
    key("limits.per_user.refresh", Kind::Rate(|d| &mut d.limits.per_user.refresh), "", "Rate of `refresh`, per user."),
    key("limits.per_user.action", Kind::Rate(|d| &mut d.limits.per_user.action), "", "Rate of `action`, per user."),
    key("limits.per_user.enqueue", Kind::Rate(|d| &mut d.limits.per_user.enqueue), "", "Rate of `enqueue`, per user."),
    key("limits.per_user.push", Kind::Rate(|d| &mut d.limits.per_user.push), "", "Rate of `push`, per user."),
    key(
        "limits.per_user.bytes",
        Kind::Rate(|d| &mut d.limits.per_user.bytes),
        "",
        "Bytes of messages, per user. `burst` may not be below `limits.message_bytes`.",
    ),
    key(
        "pipe.*.subscribe",
        Kind::Right(|d| &mut d.pipe.subscribe),
        "false",
        "Whether every connection may receive the events of pipes with this name.",
    ),
    key(
        "pipe.*.publish",
        Kind::Right(|d| &mut d.pipe.publish),
        "false",
        "Whether every connection may send events to them.",
    ),
    key(
        "pipe.*.presence",
        Kind::Right(|d| &mut d.pipe.presence),
        "false",
        "Whether every connection may see who is there.",
    ),
    key(
        "pipe.*.public",
        Kind::Flag(|d| &mut d.pipe.public),
        "false",
        "Says that rights open to everybody are meant. Grants nothing; silences the warning of `pipeward check`.",
    ),
    refused(
        "pipe.*.module",
        "take it out, and grant this pipe by token",
        "The module whose guards stand before the pipe.",
    ),
    refused(
        "pipe.*.scope",
        "take it out, and use {user.tenant} or {user.org} in the name of the pipe",
        "Captures that must equal the connection's tenant and organisation.",
    ),
    refused("pipe.*.guard", "take it out, and grant this pipe by token", "Rules that stand before the pipe's own."),
    refused("pipe.*.event", "take it out, and grant this pipe by token", "Rules for single events."),
    key(
        "control.listen",
        Kind::Address(|d| &mut d.control.listen),
        "\"127.0.0.1:8081\"",
        "Where the server API listens.",
    ),
    key(
        "control.key",
        Kind::Keys(|d| &mut d.control_keys),
        "",
        "Who may call the server API: any number of `[[control.key]]` with `name` (shown in the audit), `secret` (16 to 1024 bytes without white space) or `secret_file`, and `allow`, an array of names of calls, as in `[\"publish\", \"revoke\"]`, or `[\"*\"]` for all. Without any key every call is refused.",
    ),
    key(
        "store.path",
        Kind::Text(|d| &mut d.store),
        "\"pipeward.redb\"",
        "File in which revocations are kept. Only one server at a time may use it.",
    ),
    key(
        "audit.path",
        Kind::Text(|d| &mut d.audit),
        "\"-\"",
        "Where the audit is written, one JSON object a line: `\"-\"` is stdout, anything else a file, rotated by size.",
    ),
    refused("guard", "take it out, and decide in the tokens that you issue", "Rules for everything."),
    refused("module", "take it out, and decide in the tokens that you issue", "Rules shared by several pipes."),
    refused("action", "take it out", "Functions of the application that clients may call."),
    refused("queue", "take it out", "Queues of the application that clients may write to."),
    refused("push", "take it out; client-initiated pushes are refused anyway", "Pushes from client to client."),
];
