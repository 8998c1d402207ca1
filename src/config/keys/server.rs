//! `[edge]`, `[auth]`, `[control]`, `[store]`, `[audit]`: the process, who may connect, and what is written.

use super::super::call::TIMEOUT_MS_MAX;
use super::super::kind::{Key, Kind};
use super::key;
use crate::bounds::WORKERS_MAX;

pub(super) static SERVER: &[Key] = &[
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
        "edge.origins_any_with_cookies",
        Kind::Flag(|d| &mut d.origins_any_with_cookies),
        "false",
        "Says that `origins = \"*\"` is meant although `[auth.webhook]` gets the cookies of a page's visitors: any page could then connect in their name. Without it that is an error.",
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
        "auth.webhook.url",
        Kind::Url(|d| &mut d.webhook.url),
        "",
        "The application's authorize endpoint. It is asked, by POST, about each connection that brings no token of ours, and at `refresh`; what it answers decides who the connection is and what it may do. It cannot be left out.",
    ),
    key(
        "auth.webhook.timeout_ms",
        Kind::Number(1, TIMEOUT_MS_MAX, |d| &mut d.webhook.timeout_ms),
        "2000",
        "Milliseconds that a connection may stand in line, and then that the answer may take; longer is 503.",
    ),
    key(
        "auth.webhook.forward_headers",
        Kind::Headers(|d| &mut d.webhook.forward_headers),
        "[\"cookie\", \"authorization\"]",
        "Headers of the upgrade request that it is shown. `sec-websocket-protocol` is never forwarded.",
    ),
    key(
        "auth.webhook.secret",
        Kind::Signature(|d| &mut d.webhook.secret),
        "",
        "Signs every call to the application that has no secret of its own: `X-Pipeward-Signature`. Without any secret there is no signature, and a warning.",
    ),
    key(
        "auth.webhook.secret_file",
        Kind::Text(|d| &mut d.webhook.secret_file),
        "",
        "File that holds the secret; white space at its end does not count.",
    ),
    key(
        "auth.webhook.concurrency",
        Kind::Number(1, 4096, |d| &mut d.webhook.concurrency),
        "64",
        "Authorize calls at a time. Further connections wait in line, in order, until `timeout_ms` has passed (503).",
    ),
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
];
