//! The handshake from outside: what is served, and every way in which it is refused (PROTOCOL §1, B1–B5, B16, B26, B29,
//! B30, G12, G17, INVARIANTS 19, 28, 29).

use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Raw, Request, SECRET, Server, token, until};

/// What is allowed in a head, and no more (`bounds::HEAD_BYTES_MAX`, `HEAD_LINES_MAX`).
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEAD_LINES_MAX: usize = 100;

fn granted() -> Request {
    Request::upgrade().token(&token("ann", &[]))
}

#[test]
fn the_welcome_says_who_and_what() {
    let server = Server::start("[limits]\nmessage_bytes = 1000\nsubscriptions = 7\nqueue_bytes = 70000\n");
    let client = Client::connect(server.address, &token("ann", &[("room-*", "sub,pub"), ("news", "sub")]));
    let welcome = &client.welcome;
    assert_eq!(welcome["protocol"], 1);
    assert_eq!(welcome["user"], json!({"id": "ann", "name": null}));
    // B25
    let rights = |subscribe, publish| json!({"subscribe": subscribe, "publish": publish, "presence": false});
    assert_eq!(welcome["pipes"], json!({"room-*": rights(true, true), "news": rights(true, false)}));
    assert_eq!(welcome["ping_s"], 25);
    assert_eq!(welcome["limits"]["message_bytes"], 1000);
    assert_eq!(welcome.get("expires_at"), None, "B6: it never expires");
    let other = Client::connect(server.address, &token("ann", &[]));
    assert!(welcome["connection"].is_string() && welcome["connection"] != other.welcome["connection"]);
    client.close();
}

// B5, INVARIANTS 28
#[test]
fn what_is_no_valid_upgrade_is_refused() {
    let server = Server::start("");
    let no_key = || granted().without("Sec-WebSocket-Key");
    let cases = [
        (granted().without("Upgrade"), 426),
        (granted().set("Sec-WebSocket-Version", "8"), 426),
        (granted().set("Sec-WebSocket-Version", "13, 8"), 426),
        (granted().without("Sec-WebSocket-Version"), 426),
        (granted().method("POST"), 405),
        (granted().method("HEAD"), 405),
        (granted().method("get"), 405),
        (granted().version("HTTP/1.0"), 400),
        (granted().version("HTTP/2.0"), 400),
        (granted().without("Host"), 400),
        (granted().set("Host", ""), 400),
        (granted().set("Host", "a/b"), 400),
        (granted().header("Host", "edge.example"), 400),
        (granted().header("Upgrade", "websocket"), 400),
        (granted().set("Upgrade", "h2c"), 400),
        (granted().without("Connection"), 400),
        (granted().set("Connection", "keep-alive"), 400),
        (no_key(), 400),
        (no_key().header("Sec-WebSocket-Key", ""), 400),
        (no_key().header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ"), 400),
        (no_key().header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j"), 400),
        (no_key().header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZSE="), 400),
        (no_key().header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=?"), 400),
        (granted().header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), 400),
        (granted().header("Origin", "http://edge.example").header("Origin", "http://edge.example"), 400),
        (granted().token("again"), 400),
        (granted().header("Transfer-Encoding", "chunked"), 400),
        (granted().header("Content-Length", "5"), 400),
        (granted().header("Content-Length", "0").header("Content-Length", "0"), 400),
        (granted().target("/v1/connect HTTP/1.1"), 400),
        (granted().header("Bad Name", "x"), 400),
        (granted().header("X", "a\r\n folded"), 400),
        (granted().header("X", "a\0b"), 400),
        (granted().header("X", "a\nY: b"), 400),
        (granted().header("X", "a\rb"), 400),
        (granted().header("", "x"), 400),
        (granted().target("http://other.example/v1/connect"), 400),
    ];
    let count = cases.len() as u64;
    for (request, status) in cases {
        let response = request.assert_refused(server.address, status, "INVALID");
        match status {
            426 => {
                assert_eq!(response.header("sec-websocket-version"), Some("13"));
                assert_eq!(response.header("upgrade"), Some("websocket"));
            }
            405 => assert_eq!(response.header("allow"), Some("GET")),
            _ => {}
        }
    }
    assert_eq!(server.counter("refused[INVALID]"), count);
}

#[test]
fn unusual_heads_that_are_valid_are_served() {
    let server = Server::start("");
    for request in [
        granted().set("Connection", "keep-alive, upgrade"),
        granted().set("Connection", "keep-alive").header("Connection", "UPGRADE"),
        granted().set("Upgrade", "h2c, WebSocket"),
        granted().header("Content-Length", "0"),
        granted().target("http://edge.example/v1/connect"),
        granted().target("/v1/connect?any=thing&x"),
        granted().set("Host", "127.0.0.1:80"),
        granted().header("X-Anything", "ünïcödé"),
        granted().header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ] {
        let mut raw = Raw::connect(server.address);
        raw.send(request.text());
        let response = raw.response();
        assert_eq!(response.status(), 101, "{response:?} to {:?}", request.text());
        // B30
        assert_eq!(response.header("sec-websocket-extensions"), None);
    }
}

#[test]
fn other_paths_do_not_exist() {
    let server = Server::start("");
    for path in ["/", "/v1/connect/", "/V1/connect", "/v1", "/v1/connect%20", "//v1/connect", "*", "/metrics"] {
        granted().target(path).assert_refused(server.address, 404, "NOT_FOUND");
        Request::get(path).assert_refused(server.address, 404, "NOT_FOUND");
    }
    // B1: the path comes before anything else about the request.
    granted().target("/elsewhere").method("POST").without("Host").assert_refused(server.address, 404, "NOT_FOUND");
    let long = "x".repeat(HEAD_BYTES_MAX);
    granted().target("/elsewhere").header("X", &long).assert_refused(server.address, 404, "NOT_FOUND");
    // Also where its end, or that of its query, is beyond what a head may have.
    for target in [format!("/elsewhere?{long}"), format!("/{long}"), format!("/v1/connect/{long}")] {
        granted().target(&target).assert_refused(server.address, 404, "NOT_FOUND");
    }
    granted().target(&format!("/v1/connect?{long}")).assert_refused(server.address, 431, "INVALID");
}

// B16
#[test]
fn a_head_may_be_as_large_as_its_bounds_and_no_larger() {
    let server = Server::start("");
    let padded = |bytes: usize| {
        let bare = granted().header("X", "").text().len();
        granted().header("X", &"x".repeat(bytes - bare))
    };
    assert_eq!(padded(HEAD_BYTES_MAX).text().len(), HEAD_BYTES_MAX);
    Client::with(server.address, &padded(HEAD_BYTES_MAX)).close();
    padded(HEAD_BYTES_MAX + 1).assert_refused(server.address, 431, "INVALID");
    padded(20 * HEAD_BYTES_MAX).assert_refused(server.address, 431, "INVALID");

    let lined = |lines: usize| {
        let own = granted().text().matches("\r\n").count() - 2;
        (own..lines).fold(granted(), |request, _| request.header("X", "y"))
    };
    Client::with(server.address, &lined(HEAD_LINES_MAX)).close();
    lined(HEAD_LINES_MAX + 1).assert_refused(server.address, 431, "INVALID");
    // Without an end, and without a line's end.
    for endless in ["GET /v1/connect HTTP/1.1\r\n".to_owned() + &"X: y\r\n".repeat(3000), "G".repeat(20_000)] {
        let mut raw = Raw::connect(server.address);
        raw.try_send(endless);
        raw.response().assert_refused(431, "INVALID");
    }
}

// B1
#[test]
fn the_first_check_that_fails_answers() {
    let server = Server::start("[limits]\nconnections = 1\n");
    let wrong_token = || Request::upgrade().token("wrong");
    let wrong_origin = || wrong_token().header("Origin", "http://elsewhere.example");
    wrong_origin().without("Sec-WebSocket-Key").assert_refused(server.address, 400, "INVALID");
    wrong_origin().assert_refused(server.address, 403, "FORBIDDEN");
    wrong_token().assert_refused(server.address, 401, "UNAUTHENTICATED");
    let only = Client::connect(server.address, &token("ann", &[]));
    wrong_origin().assert_refused(server.address, 403, "FORBIDDEN");
    let response = wrong_token().assert_refused(server.address, 429, "TOO_MANY_CONNECTIONS");
    // G13
    let retry_after = response.header("retry-after").and_then(|value| value.parse::<u32>().ok());
    assert!(retry_after.is_some_and(|seconds| seconds >= 1), "{response:?}");
    only.close();
    until("the seat is free again", || Client::try_with(server.address, &granted()).is_ok());
}

// B2
#[test]
fn pages_of_the_same_host_may_connect_and_others_may_not() {
    let server = Server::start("");
    let verdicts = [
        ("edge.example", None, true),
        ("edge.example", Some("http://edge.example"), true),
        ("edge.example", Some("https://edge.example"), true),
        ("edge.example", Some("https://EDGE.example:443"), true),
        ("edge.example:443", Some("https://edge.example"), true),
        ("edge.example:8080", Some("http://edge.example:8080"), true),
        ("[::1]:8080", Some("http://[::1]:8080"), true),
        ("edge.example", Some("http://edge.example:8080"), false),
        ("edge.example:8080", Some("http://edge.example"), false),
        ("edge.example", Some("http://edge.example.evil"), false),
        ("edge.example", Some("http://evil-edge.example"), false),
        ("edge.example", Some("http://edge.example/"), false),
        ("edge.example", Some("http://user@edge.example"), false),
        ("edge.example", Some("edge.example"), false),
        ("edge.example", Some("null"), false),
        ("edge.example", Some(""), false),
    ];
    for (host, origin, allowed) in verdicts {
        let request = granted().set("Host", host);
        let request = origin.iter().fold(request, |request, origin| request.header("Origin", origin));
        let response = request.ask(server.address);
        assert_eq!(response.status(), if allowed { 101 } else { 403 }, "{host} {origin:?}");
    }
    // INVARIANTS 29: only a trusted proxy may say which host was asked for.
    let claimed = granted().header("X-Forwarded-Host", "evil.example").header("Origin", "http://evil.example");
    claimed.assert_refused(server.address, 403, "FORBIDDEN");
}

// B2
#[test]
fn listed_origins_are_compared_exactly() {
    let server = Server::start("[edge]\norigins = [\"https://app.example\", \"http://127.0.0.1:3000\"]\n");
    for (origin, allowed) in [
        ("https://app.example", true),
        ("https://app.example:443", true),
        ("HTTPS://App.Example", true),
        ("http://127.0.0.1:3000", true),
        ("http://app.example", false),
        ("https://app.example:444", false),
        ("https://app.example.evil", false),
        ("https://www.app.example", false),
        ("http://127.0.0.1", false),
        ("http://edge.example", false),
        ("null", false),
    ] {
        let response = granted().header("Origin", origin).ask(server.address);
        assert_eq!(response.status(), if allowed { 101 } else { 403 }, "{origin}");
    }
    let anybody = Server::start("[edge]\norigins = [\"*\"]\n");
    for origin in ["null", "https://anywhere.example", "file://"] {
        assert_eq!(granted().header("Origin", origin).ask(anybody.address).status(), 101, "{origin}");
    }
}

// B3
#[test]
fn the_subprotocol_is_selected_where_it_is_offered() {
    let server = Server::start("");
    let good = token("ann", &[]);
    let with_token = format!("pipeward.v1, pipeward.token.{good}");
    let token_first = format!("pipeward.token.{good},pipeward.v1");
    let token_only = format!("pipeward.token.{good}");
    for (offered, selected) in [
        ("pipeward.v1", Some("pipeward.v1")),
        ("chat, pipeward.v1", Some("pipeward.v1")),
        (&*with_token, Some("pipeward.v1")),
        (&*token_first, Some("pipeward.v1")),
        (&*token_only, None),
        ("chat", None),
        ("pipeward.v2", None),
        ("PIPEWARD.V1", None),
    ] {
        let request = Request::upgrade().header("Sec-WebSocket-Protocol", offered);
        let request = if offered.contains(&good) { request } else { request.token(&good) };
        let response = request.ask(server.address);
        assert_eq!(response.status(), 101, "{offered}");
        assert_eq!(response.header("sec-websocket-protocol"), selected, "{offered}");
    }
    let two_lines = granted().header("Sec-WebSocket-Protocol", "chat").header("Sec-WebSocket-Protocol", "pipeward.v1");
    assert_eq!(two_lines.ask(server.address).header("sec-websocket-protocol"), Some("pipeward.v1"));
}

// G12, G17
#[test]
fn health_and_readiness_are_told_to_anybody() {
    let server = Server::start("");
    until("ready", || Request::get("/readyz").ask(server.address).status() == 200);
    for path in ["/healthz", "/readyz"] {
        let response = Request::get(path).ask(server.address);
        assert_eq!(response.status(), 200, "{path}");
        assert!(!response.body.is_empty());
        assert_eq!(Request::get(&format!("{path}?probe=1")).ask(server.address).status(), 200);
        Request::get(path).method("POST").assert_refused(server.address, 405, "INVALID");
        let mut raw = Raw::connect(server.address);
        raw.send(Request::get(path).method("HEAD").text());
        let head = String::from_utf8(raw.rest()).expect("UTF-8");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "HEAD has no body: {head}");
        // A probe may speak HTTP/1.0 and send no Host.
        assert_eq!(Request::get(path).version("HTTP/1.0").without("Host").ask(server.address).status(), 200);
    }
}

#[test]
fn a_handshake_may_arrive_byte_by_byte() {
    let server = Server::start("");
    let mut raw = Raw::connect(server.address);
    raw.send_one_by_one(granted().text());
    Client::greet(raw).expect("granted").close();
}

// B29
#[test]
fn a_handshake_that_drips_is_answered_408() {
    let server = Server::start("[edge]\nhandshake_s = 1\n");
    let mut raw = Raw::connect(server.address);
    let text = granted().text();
    let mut dripped = 0;
    for byte in text.as_bytes().iter().take(text.len() - 1) {
        dripped += 1;
        if !raw.try_send([*byte]) || raw.wait_for(Duration::from_millis(20)).is_some() {
            break;
        }
    }
    assert!(dripped < text.len() - 1, "the head was dripped whole");
    raw.response().assert_refused(408, "TIMEOUT");
    assert!(raw.rest().is_empty());
}

// B29
#[test]
fn a_silent_socket_is_closed() {
    let server = Server::start("[edge]\nhandshake_s = 1\n");
    let mut silent = Raw::connect(server.address);
    let mut open = Client::connect(server.address, &token("ann", &[]));
    assert!(silent.rest().is_empty());
    open.settle();
    server.until_counter("handshakes_abandoned", 1);
}

// INVARIANTS 19
#[test]
fn one_address_may_hold_only_so_many_silent_sockets() {
    const MOST: usize = 64;
    let server = Server::start("[edge]\nhandshake_s = 60\n");
    let from = "127.0.0.5".parse().expect("an address");
    let elsewhere = "127.0.0.6".parse().expect("an address");
    let mut other = Raw::connect_from(elsewhere, server.address);
    let mut silent: Vec<Raw> = (0..MOST).map(|_| Raw::connect_from(from, server.address)).collect();
    server.until_counter("accepted", MOST as u64 + 1);
    // Each of them has had its second; the next ones push them out, the oldest first.
    std::thread::sleep(Duration::from_millis(1_200));
    let newer: Vec<Raw> = (0..10).map(|_| Raw::connect_from(from, server.address)).collect();
    server.until_counter("handshakes_evicted", 10);
    let ended = |raw: &mut Raw| raw.wait_for(Duration::from_millis(1)) == Some(false);
    until("ten have ended", || silent.iter_mut().filter_map(|raw| ended(raw).then_some(())).count() == 10);
    let mut fresh = Raw::connect_from(from, server.address);
    fresh.send(granted().text());
    Client::greet(fresh).expect("a handshake that speaks is served").close();
    // Another address was not touched.
    other.send(granted().text());
    Client::greet(other).expect("granted").close();
    drop(newer);
}

// INVARIANTS 19: an address comes down to its bound as time passes, whoever else connects.
#[test]
fn a_crowd_of_silent_sockets_comes_down_to_the_bound() {
    const MOST: usize = 64;
    let server = Server::start("[edge]\nworkers = 2\nhandshake_s = 60\n");
    let from = "127.0.0.5".parse().expect("an address");
    // Whoever has begun to speak is let alone.
    let mut begun: Vec<Raw> = (0..20).map(|_| Raw::connect_from(from, server.address)).collect();
    begun.iter_mut().for_each(|raw| raw.send("GET /v1/connect HTTP/1.1\r\n"));
    let silent: Vec<Raw> = (0..200).map(|_| Raw::connect_from(from, server.address)).collect();
    until("there are as many as there may be", || server.counter("connections") <= MOST as u64);
    for mut raw in begun {
        let request = granted().text();
        raw.send(request.split_once("\r\n").expect("a request line").1);
        Client::greet(raw).expect("it was not evicted").close();
    }
    assert!(server.counter("handshakes_evicted") >= 150);
    drop(silent);
}

/// A slow handshake holds one bounded buffer, a silent one none.
#[test]
fn handshakes_under_way_hold_little_memory() {
    const ADDRESSES: u8 = 10;
    const EACH: usize = 50;
    let server = Server::start("[edge]\nhandshake_s = 60\n");
    let sockets = |from: u8| (0..EACH).map(move |_| (from, ()));
    let connect = |(from, ())| Raw::connect_from([127, 0, 1, from].into(), server.address);
    let count = u64::from(ADDRESSES) * EACH as u64;
    Request::get("/healthz").ask(server.address);
    let before = server.resident_bytes();
    let silent: Vec<Raw> = (0..ADDRESSES).flat_map(sockets).map(connect).collect();
    server.until_counter("accepted", 1 + count);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < count * 32 * 1024, "{grown} bytes for {count} silent sockets");
    drop(silent);
    let begun = format!("GET /v1/connect HTTP/1.1\r\nX: {}", "x".repeat(15_000));
    let slow: Vec<Raw> = (100..100 + ADDRESSES)
        .flat_map(sockets)
        .map(|place| {
            let mut raw = connect(place);
            raw.send(&begun);
            raw
        })
        .collect();
    until("they are read", || server.counter("sockets.receives") >= count && server.counter("connections") == count);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < count * 96 * 1024, "{grown} bytes for {count} slow handshakes");
    drop(slow);
}

// A refused request is the last on its connection: what follows it is never read as another (INVARIANTS 28).
#[test]
fn nothing_after_a_refused_head_is_a_request() {
    let server = Server::start("");
    let mut raw = Raw::connect(server.address);
    raw.send(Request::get("/nowhere").text() + &granted().text() + &Request::get("/healthz").text());
    let answers = String::from_utf8(raw.rest()).expect("UTF-8");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    let mut smuggled = Raw::connect(server.address);
    smuggled.send(granted().header("Content-Length", "60").text() + &Request::get("/healthz").text());
    let answers = String::from_utf8(smuggled.rest()).expect("UTF-8");
    assert!(answers.starts_with("HTTP/1.1 400 ") && answers.matches("HTTP/1.1 ").count() == 1, "{answers}");
}

#[test]
fn bytes_that_are_no_http_are_refused_and_disturb_nobody() {
    let server = Server::start("[edge]\nhandshake_s = 2\n");
    let mut bystander = Client::connect(server.address, &token("ann", &[("room", "sub,pub")]));
    let garbage: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"\x00",
        b"\x81\x85\x00\x00\x00\x00hello",
        b"GET\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
        b"GET /v1/connect HTTP/1.1\nHost: a\n\n",
    ];
    for bytes in garbage {
        let mut raw = Raw::connect(server.address);
        raw.send(bytes);
        raw.response().assert_refused(400, "INVALID");
        assert!(raw.rest().is_empty());
    }
    for cut in [&b"GET /v1/conn"[..], b"", b"GET /v1/connect HTTP/1.1\r\nHost: a\r\n"] {
        let mut half = Raw::connect(server.address);
        half.send(cut);
        half.finish();
        half.rest();
        let mut gone = Raw::connect(server.address);
        gone.send(cut);
        gone.reset();
    }
    assert_eq!(server.counter("refused[INVALID]"), garbage.len() as u64);
    assert_eq!(bystander.request(json!({"type": "subscribe", "pipe": "room"}))["ok"], true);
    assert!(bystander.settle().is_empty());
}

// G4
#[test]
fn the_log_holds_no_token() {
    let server = Server::start("");
    let good = token("ann", &[]);
    let bad = good.clone() + "x";
    for token in [&good, &bad] {
        Request::upgrade().token(token).ask(server.address);
        Request::upgrade().target(&format!("/v1/connect?token={token}")).ask(server.address);
        let refused = Request::upgrade().target(&format!("/v1/connect?token={token}")).without("Host");
        let body = refused.ask(server.address).body;
        assert!(!String::from_utf8_lossy(&body).contains(&good));
    }
    server.counters();
    let log = server.log().join("\n");
    assert!(!log.contains(&good) && !log.contains(SECRET), "{log}");
}

/// Many handshakes at once, also when each client comes in pieces.
#[test]
fn a_storm_of_handshakes_is_served() {
    let server = Server::start("");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let address = server.address;
            scope.spawn(move || {
                let request = granted().text();
                let mut sockets: Vec<Raw> = (0..50).map(|_| Raw::connect(address)).collect();
                let cut = 20 + thread * 10;
                sockets.iter_mut().for_each(|raw| raw.send(&request[..cut]));
                sockets.iter_mut().for_each(|raw| raw.send(&request[cut..]));
                let clients: Vec<Client> =
                    sockets.into_iter().map(|raw| Client::greet(raw).expect("granted")).collect();
                clients.into_iter().for_each(Client::close);
            });
        }
    });
    assert_eq!(server.counter("welcomed"), 400);
}
