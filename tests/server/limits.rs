//! Caps and rates: exact over all workers, given back however a connection ends; slowed first, then refused, then closed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Client, Launch, Message, PATIENCE, Raw, Request, Response, Server, Stop, assert_code, assert_ok, frame, sign,
    token, unix_s, until,
};

const ALL: &[(&str, &str)] = &[("**", "sub,pub")];

fn claims(claims: Value) -> Request {
    Request::upgrade().token(&sign(&claims.to_string()))
}

fn source(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

#[track_caller]
fn try_from(from: IpAddr, to: SocketAddr, request: &Request) -> Result<Client, Response> {
    let mut raw = Raw::connect_from(from, to);
    raw.send(request.text());
    Client::greet(raw)
}

#[track_caller]
fn assert_full(outcome: Result<Client, Response>) {
    let Err(response) = outcome else { panic!("a connection over the cap was let in") };
    response.assert_refused(429, "TOO_MANY_CONNECTIONS");
    assert_retry_after(&response);
}

#[track_caller]
fn assert_retry_after(response: &Response) {
    let wait_s = response.header("retry-after").and_then(|wait_s| wait_s.parse::<u32>().ok());
    assert!(wait_s.is_some_and(|wait_s| wait_s >= 1), "G13: {response:?}");
}

// ---- caps --------------------------------------------------------------------------------------------------------

/// Many threads connect at once; returns those that were let in, after checking that exactly `cap` were.
#[track_caller]
fn storm(tries: u32, cap: usize, connect: impl Fn(u32) -> Result<Client, Response> + Sync) -> Vec<Client> {
    let outcomes: Vec<Result<Client, Response>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..tries)
            .map(|number| {
                scope.spawn({
                    let connect = &connect;
                    move || connect(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let (inside, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(inside.len(), cap, "B22: exact, whatever the workers race for");
    refused.into_iter().for_each(assert_full);
    inside.into_iter().flatten().collect()
}

/// Every cap alone: filled by a storm over four workers, twice, with all of its connections given back between.
#[track_caller]
fn fill_twice(limit: &str, connect: impl Fn(SocketAddr, u32) -> Result<Client, Response> + Sync) -> Server {
    let server = Server::start(&format!("[edge]\nworkers = 4\n[limits]\n{limit} = 7\n"));
    for _ in 0..2 {
        for client in storm(40, 7, |number| connect(server.address, number)) {
            client.close();
        }
        // The seat is given back before the close handshake is answered, so nothing has to be awaited.
    }
    assert_eq!(server.counter("refused[TOO_MANY_CONNECTIONS]"), 66);
    server
}

// GD-8, B22
#[test]
fn the_cap_in_all_is_exact() {
    let server = fill_twice("connections", |to, number| {
        try_from(source(number as u8 + 1), to, &claims(json!({"sub": format!("user-{number}")})))
    });
    // A refusal for another reason takes no seat.
    for _ in 0..10 {
        Request::upgrade().token("nonsense").assert_refused(server.address, 401, "UNAUTHENTICATED");
        Request::upgrade().token(&token("a", ALL)).header("Origin", "https://evil.example").ask(server.address);
        drop(Raw::connect(server.address));
    }
    storm(20, 7, |_| Client::try_with(server.address, &Request::upgrade().token(&token("ann", ALL))));
}

// GD-8, B22
#[test]
fn the_cap_per_address_is_exact() {
    let server = fill_twice("connections_per_ip", |to, number| {
        try_from(source(9), to, &claims(json!({"sub": format!("user-{number}")})))
    });
    let full = storm(10, 7, |_| try_from(source(9), server.address, &claims(json!({"sub": "ann"}))));
    let other = storm(10, 7, |_| try_from(source(10), server.address, &claims(json!({"sub": "ann"}))));
    drop((full, other));
}

// GD-8, B22, D14: a person is tenant and user.
#[test]
fn the_cap_per_user_is_exact_and_a_user_is_one_of_a_tenant() {
    let server = fill_twice("connections_per_user", |to, number| {
        try_from(source(number as u8 + 1), to, &claims(json!({"sub": "ann", "tenant": "acme"})))
    });
    let connect = |claimed: Value| move |_| Client::try_with(server.address, &claims(claimed.clone()));
    let full = storm(10, 7, connect(json!({"sub": "ann", "tenant": "acme"})));
    let elsewhere = storm(10, 7, connect(json!({"sub": "ann", "tenant": "globex"})));
    let nowhere = storm(10, 7, connect(json!({"sub": "ann"})));
    let other = storm(10, 7, connect(json!({"sub": "bob", "tenant": "acme"})));
    drop((full, elsewhere, nowhere, other));
}

// GD-8, B22
#[test]
fn the_cap_per_tenant_is_exact() {
    let server = fill_twice("connections_per_tenant", |to, number| {
        try_from(source(number as u8 + 1), to, &claims(json!({"sub": format!("user-{number}"), "tenant": "acme"})))
    });
    let full = storm(10, 7, |number| {
        Client::try_with(server.address, &claims(json!({"sub": number.to_string(), "tenant": "acme"})))
    });
    let other = storm(10, 7, |_| Client::try_with(server.address, &claims(json!({"sub": "ann", "tenant": "globex"}))));
    let without: Vec<_> = (0..10).map(|_| Client::with(server.address, &claims(json!({"sub": "ann"})))).collect();
    drop((full, other, without));
}

/// A server on which all four caps are one.
fn server_for_one() -> Server {
    Server::start(
        "[edge]\nworkers = 2\n[limits]\nconnections = 1\nconnections_per_ip = 1\nconnections_per_user = 1\nconnections_per_tenant = 1\nthrottle_s = 0\npublish = { per_s = 0.5, burst = 1 }\nqueue_bytes = 20000\nmessage_bytes = 16000\n",
    )
}

fn ann() -> Request {
    claims(json!({"sub": "ann", "tenant": "acme", "pipes": {"**": {"subscribe": true, "publish": true}}}))
}

#[track_caller]
fn assert_seat_is_free(server: &Server) {
    until("the seat is given back", || match Client::try_with(server.address, &ann()) {
        Ok(client) => {
            client.close();
            true
        }
        Err(_) => false,
    });
    assert_eq!(server.counters().get("open"), 0);
}

// INVARIANTS 17: every seat comes back, whichever way the connection ended.
#[test]
fn every_end_gives_the_seats_back() {
    let server = server_for_one();
    let address = server.address;
    let enter = || Client::with(address, &ann());

    let client = enter();
    assert_full(Client::try_with(address, &ann()));
    client.close();
    assert_seat_is_free(&server);

    // Ended without a close frame.
    let mut client = enter();
    client.raw.finish();
    client.expect_end();
    assert_seat_is_free(&server);

    // Reset, in the middle of a message.
    let mut client = enter();
    client.raw.send([0x81, 0xFE, 0x40]);
    client.raw.reset();
    assert_seat_is_free(&server);

    // Broken framing, a message too big, binary, bad UTF-8.
    for (bytes, code) in [
        (vec![0x81, 0x01, b'x'], 1002),
        (frame(0x81, vec![b'x'; 16_001]), 1009),
        (frame(0x82, "x"), 1003),
        (frame(0x81, [0xFF]), 1007),
    ] {
        let mut client = enter();
        client.raw.send(bytes);
        client.expect_close(code);
        assert_seat_is_free(&server);
    }

    // Over its rate.
    let mut client = enter();
    client.tell("room", 1);
    client.tell("room", 2);
    client.expect_close(4429);
    assert_seat_is_free(&server);

    // Its token expires.
    let expiring = json!({"sub": "ann", "tenant": "acme", "exp": unix_s() + 2});
    let client = Client::with(address, &claims(expiring));
    assert_full(Client::try_with(address, &ann()));
    client.expect_close(4401);
    assert_seat_is_free(&server);
    assert_eq!(server.counter("closed[4401]"), 1);
}

// INVARIANTS 17: a peer that neither reads nor answers holds its seat no longer than its connection lasts.
#[test]
fn a_peer_that_is_closed_as_too_slow_gives_its_seat_back() {
    let server = Server::start(
        "[limits]\nconnections_per_user = 1\nqueue_bytes = 20000\nmessage_bytes = 16000\npublish = { per_s = 0 }\nmessage = { per_s = 0 }\nbytes = { per_s = 0 }\n",
    );
    let mut slow = Client::connect(server.address, &token("slow", ALL));
    assert_ok(&slow.subscribe("room"));
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let data = "x".repeat(15_000);
    until("it is closed as too slow", || {
        for _ in 0..100 {
            ann.tell("room", data.as_str());
        }
        assert!(ann.settle().is_empty());
        server.counter("closed[4413]") == 1
    });
    // It has not read a byte yet, and its seat is free.
    let again = Client::connect(server.address, &token("slow", ALL));
    drop((again, slow));
}

// ---- handshake rate ----------------------------------------------------------------------------------------------

// GD-8, B23
#[test]
fn handshakes_over_the_rate_are_refused() {
    let server = Server::start("[edge]\nworkers = 4\n[limits]\nhandshakes_per_s = 10\n");
    let began = Instant::now();
    let mut inside = 0;
    let mut refused = 0;
    while refused < 20 {
        match Client::try_with(server.address, &ann()) {
            Ok(_) => inside += 1,
            Err(response) => {
                response.assert_refused(429, "RATE_LIMITED");
                assert_retry_after(&response);
                refused += 1;
            }
        }
    }
    let most = 10.0 + began.elapsed().as_secs_f64() * 10.0 + 1.0;
    assert!(inside >= 10 && f64::from(inside) <= most, "{inside} of at most {most}");
    // Of the whole server: an invalid upgrade costs nothing, B1.
    for _ in 0..20 {
        Request::upgrade().without("Sec-WebSocket-Key").assert_refused(server.address, 400, "INVALID");
    }
    until("there is room again", || Client::try_with(server.address, &ann()).is_ok());
}

// ---- rates -------------------------------------------------------------------------------------------------------

/// What became of some numbered requests.
#[derive(Default)]
struct Outcomes {
    ok: Vec<u64>,
    refused: Vec<u64>,
    throttled: usize,
    events: Vec<u64>,
    closed: Option<(Option<u16>, String)>,
}

/// Listens until all requests up to `last` are answered or the connection is closed.
#[track_caller]
fn outcomes(client: &mut Client, count: u64) -> Outcomes {
    let mut all = Outcomes::default();
    while ((all.ok.len() + all.refused.len()) as u64) < count {
        let heard = match client.hear() {
            Message::Json(heard) => heard,
            Message::Close(code, reason) => {
                all.closed = Some((code, reason));
                break;
            }
            Message::End => panic!("the stream ended without a close frame"),
        };
        match (heard["type"].as_str(), heard["id"].as_u64()) {
            (Some("pong"), Some(id)) => all.ok.push(id),
            (Some("reply"), Some(id)) if heard["ok"] == true => all.ok.push(id),
            (Some("reply"), Some(id)) => {
                assert_code(&heard, "RATE_LIMITED");
                assert!(heard["retry_after_ms"].as_u64().is_some_and(|wait_ms| wait_ms >= 1), "{heard}");
                all.refused.push(id);
            }
            (Some("event"), _) => all.events.push(heard["data"].as_u64().expect("a number")),
            (Some("system"), _) => {
                assert_eq!(heard["event"], "throttled", "{heard}");
                assert!(heard["retry_after_ms"].as_u64().is_some_and(|wait_ms| wait_ms >= 1), "C28: {heard}");
                all.throttled += 1;
            }
            _ => panic!("{heard}"),
        }
    }
    all
}

fn numbered(number: u64) -> Value {
    json!({"type": "publish", "pipe": "room", "event": "e", "data": number, "id": number})
}

// A8: slow first. A short excess loses nothing, is told nothing, and takes the time that the rate says.
#[test]
fn a_short_excess_is_slowed_and_loses_nothing() {
    let server = Server::start("[limits]\npublish = { per_s = 20, burst = 5 }\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut bob = Client::connect(server.address, &token("bob", ALL));
    assert_ok(&ann.subscribe("room"));
    assert_ok(&bob.subscribe("room"));
    let began = Instant::now();
    for number in 0..17 {
        ann.send(numbered(number));
    }
    // Whoever is not over a rate is not slowed.
    let asked = Instant::now();
    assert!(bob.request(json!({"type": "ping"}))["type"] == "pong");
    let waited = asked.elapsed();
    let all = outcomes(&mut ann, 17);
    let took = began.elapsed();
    assert!(all.closed.is_none() && all.throttled == 0 && all.refused.is_empty(), "a short excess was refused");
    assert_eq!(all.ok, (0..17).collect::<Vec<_>>());
    assert_eq!(all.events, all.ok, "in order");
    assert!(took >= Duration::from_millis(550), "12 over the burst at 20 per second: {took:?}");
    assert!(waited < took, "another connection waited {waited:?}");
    for number in 0..17 {
        bob.expect_event("room", number);
    }
    assert!(server.counter("slowed") > 0);
}

// A8, GD-8: then refused, with no effect, told once; what was accepted is what is heard.
#[test]
fn a_long_excess_is_refused_and_told_once() {
    let server = Server::start("[limits]\npublish = { per_s = 20, burst = 5 }\nthrottle_s = 60\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut bob = Client::connect(server.address, &token("bob", ALL));
    assert_ok(&bob.subscribe("room"));
    let began = Instant::now();
    for number in 0..50 {
        ann.send(numbered(number));
    }
    let all = outcomes(&mut ann, 50);
    let took = began.elapsed();
    assert!(all.closed.is_none());
    assert_eq!(all.throttled, 1, "once per episode");
    assert!(all.refused.len() >= 5, "{} refused", all.refused.len());
    let most = 5.0 + took.as_secs_f64() * 20.0 + 1.0;
    assert!(all.ok.len() as f64 <= most, "{} were accepted in {took:?}", all.ok.len());
    assert!(all.ok.len() >= 20, "the first second is slowed, not refused: {}", all.ok.len());
    for number in &all.ok {
        bob.expect_event("room", *number);
    }
    assert!(bob.settle().is_empty(), "a refused publish had an effect");
    assert_eq!(server.counter("denied[RATE_LIMITED]"), all.refused.len() as u64);
    assert_eq!(server.counter("throttled"), 1);

    // A calm second ends the episode; the next one is told again.
    std::thread::sleep(Duration::from_millis(1_300));
    for number in 0..45 {
        ann.send(numbered(number));
    }
    assert_eq!(outcomes(&mut ann, 45).throttled, 1);
}

// A8, C30: over its rate for throttle_s, it is closed and told for how long.
#[test]
fn an_excess_that_lasts_is_closed() {
    let server = Server::start("[limits]\npublish = { per_s = 20, burst = 5 }\nthrottle_s = 1\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut refused_at = None;
    for number in 0..2_000 {
        ann.send(numbered(number));
    }
    let (code, reason) = loop {
        match ann.hear() {
            Message::Json(heard) if heard["event"] == "throttled" => refused_at = Some(Instant::now()),
            Message::Json(_) => {}
            Message::Close(code, reason) => break (code, reason),
            Message::End => panic!("the stream ended without a close frame"),
        }
    };
    assert_eq!(code, Some(4429));
    let lasted = refused_at.expect("throttled comes first").elapsed();
    assert!(lasted >= Duration::from_millis(900), "closed after {lasted:?}");
    let wait_ms = reason.strip_prefix("retry_after_ms=").and_then(|wait_ms| wait_ms.parse::<u64>().ok());
    assert!(wait_ms.is_some_and(|wait_ms| wait_ms >= 1), "C30: {reason:?}");
    assert_eq!(server.counter("closed[4429]"), 1);
}

// C31
#[test]
fn without_throttle_time_the_first_refusal_closes() {
    let server = Server::start("[limits]\npublish = { per_s = 0.5, burst = 2 }\nthrottle_s = 0\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut bob = Client::connect(server.address, &token("bob", ALL));
    assert_ok(&bob.subscribe("room"));
    for number in 0..5 {
        ann.send(numbered(number));
    }
    let all = outcomes(&mut ann, 5);
    assert_eq!((all.ok.len(), all.refused.len(), all.throttled), (2, 0, 0));
    let (code, reason) = all.closed.expect("a close frame");
    assert_eq!(code, Some(4429));
    let wait_ms = reason.strip_prefix("retry_after_ms=").and_then(|wait_ms| wait_ms.parse::<u64>().ok());
    assert!(wait_ms.is_some_and(|wait_ms| (1_000..=2_000).contains(&wait_ms)), "{reason:?}");
    bob.expect_event("room", 0);
    bob.expect_event("room", 1);
    assert!(bob.settle().is_empty());
}

// C2, C32: each kind has its own bucket, and `message` counts everything.
#[test]
fn every_kind_has_its_own_rate() {
    let server = Server::start(
        "[limits]\nmessage = { per_s = 0.1, burst = 20 }\npublish = { per_s = 0.1, burst = 3 }\nsubscribe = { per_s = 0.1, burst = 2 }\nrefresh = { per_s = 0.1, burst = 1 }\npresence = { per_s = 0.1, burst = 1 }\naction = { per_s = 0.1, burst = 1 }\nenqueue = { per_s = 0.1, burst = 1 }\npush = { per_s = 0.1, burst = 1 }\nthrottle_s = 600\n",
    );
    for (message, burst) in [
        (json!({"type": "publish", "pipe": "room", "event": "e"}), 3),
        (json!({"type": "subscribe", "pipes": ["a", "b", "c"]}), 2),
        (json!({"type": "refresh"}), 1),
        (json!({"type": "presence", "pipe": "room"}), 1),
        (json!({"type": "action", "name": "a"}), 1),
        (json!({"type": "enqueue", "queue": "q"}), 1),
        (json!({"type": "push", "to": {"user": "u"}, "event": "e"}), 1),
    ] {
        let mut client = Client::connect(server.address, &token("ann", ALL));
        for _ in 0..burst {
            assert_ne!(client.request(message.clone())["code"], "RATE_LIMITED", "{message}");
        }
        let reply = client.request(message.clone());
        assert_code(&reply, "RATE_LIMITED");
        assert!(reply["retry_after_ms"].as_u64().is_some_and(|wait_ms| (5_000..=10_000).contains(&wait_ms)), "{reply}");
    }
    // C2: ping, unsubscribe and what cannot be read count as messages.
    let mut client = Client::connect(server.address, &token("ann", ALL));
    for number in 0..5 {
        assert_eq!(client.request(json!({"type": "ping"}))["type"], "pong");
        assert_code(&client.request(json!({"type": "unsubscribe", "pipe": "room"})), "NOT_SUBSCRIBED");
        client.send_text("nonsense");
        client.send_text(format!(r#"{{"type":"nonsense","id":"x{number}"}}"#));
        assert_code(&client.reply(&json!(format!("x{number}"))), "INVALID");
    }
    client.send(json!({"type": "ping", "id": "over"}));
    assert_code(&client.reply(&json!("over")), "RATE_LIMITED");
}

// GD-8: bytes
#[test]
fn bytes_have_a_rate() {
    let server =
        Server::start("[limits]\nmessage_bytes = 10000\nbytes = { per_s = 1000, burst = 30000 }\nthrottle_s = 600\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let data = "x".repeat(9_500);
    for _ in 0..3 {
        assert_ok(&ann.publish("room", data.as_str()));
    }
    let reply = ann.publish("room", data.as_str());
    assert_code(&reply, "RATE_LIMITED");
    // About 38,500 bytes were offered where 30,000 fit: some 8.5 seconds at 1,000 bytes per second.
    assert!(reply["retry_after_ms"].as_u64().is_some_and(|wait_ms| (3_000..=9_000).contains(&wait_ms)), "{reply}");
}

// PROTOCOL §6: per_s = 0 is off.
#[test]
fn a_rate_of_zero_is_off() {
    let server = Server::start("[limits]\npublish = { per_s = 0 }\nmessage = { per_s = 0 }\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    for number in 0..1_000 {
        ann.send(numbered(number));
    }
    let all = outcomes(&mut ann, 1_000);
    assert_eq!((all.ok.len(), all.refused.len(), all.throttled), (1_000, 0, 0));
    assert_eq!(server.counter("slowed"), 0);
}

// GD-8, D14: summed over the connections of one person, on whichever worker, and of nobody else.
#[test]
fn a_users_rate_is_summed_over_its_connections() {
    let server = Server::start(
        "[edge]\nworkers = 2\n[limits]\nthrottle_s = 600\n[limits.per_user]\npublish = { per_s = 1, burst = 20 }\n",
    );
    let connect = |claimed: Value| Client::with(server.address, &claims(claimed));
    let grants = json!({"**": {"publish": true, "subscribe": true}});
    let mut own: Vec<Client> = Vec::new();
    while own.len() < 2 || own.iter().all(|client| client.worker() == own[0].worker()) {
        own.push(connect(json!({"sub": "ann", "tenant": "acme", "pipes": grants})));
        assert!(own.len() < 40, "all on one worker");
    }
    let mut elsewhere = connect(json!({"sub": "ann", "tenant": "globex", "pipes": grants}));
    let mut other = connect(json!({"sub": "bob", "tenant": "acme", "pipes": grants}));
    let began = Instant::now();
    let mut accepted = 0;
    for turn in 0.. {
        let index = if turn % 2 == 0 { 0 } else { own.len() - 1 };
        let reply = own[index].publish("room", turn);
        if reply["ok"] == true {
            accepted += 1;
        } else {
            assert_code(&reply, "RATE_LIMITED");
            break;
        }
    }
    let most = 20.0 + began.elapsed().as_secs_f64() + 1.0;
    assert!(accepted >= 20 && f64::from(accepted) <= most, "{accepted} of at most {most}");
    for client in [&mut elsewhere, &mut other] {
        for number in 0..20 {
            assert_ok(&client.publish("room", number));
        }
    }
}

// A8: for a summed rate only a connection that itself takes more than its share is closed.
#[test]
fn a_quiet_connection_of_a_loud_user_is_not_closed() {
    let server = Server::start(
        "[limits]\nmessage = { per_s = 0 }\npublish = { per_s = 0 }\nthrottle_s = 1\n[limits.per_user]\npublish = { per_s = 10, burst = 10 }\n",
    );
    let address = server.address;
    let mut quiet = Client::connect(address, &token("ann", ALL));
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = Stop(&stopped);
        let loud = scope.spawn(|| {
            let mut closed = 0;
            while !stopped.load(SeqCst) {
                let mut loud = Client::connect(address, &token("ann", ALL));
                for number in 0..200 {
                    loud.raw.try_send(frame(0x81, numbered(number).to_string()));
                }
                assert_eq!(loud.closed().0, Some(4429), "a loud one is closed");
                closed += 1;
            }
            closed
        });
        let (mut refused, began) = (0, Instant::now());
        while refused < 8 || began.elapsed() < Duration::from_secs(3) {
            let reply = quiet.publish("room", 1);
            if reply["ok"] != true {
                assert_code(&reply, "RATE_LIMITED");
                refused += 1;
            }
            std::thread::sleep(Duration::from_millis(350));
            assert!(began.elapsed() < PATIENCE, "the quiet one was refused {refused} times only");
        }
        drop(stop);
        assert!(loud.join().expect("no failure") >= 2);
    });
    until("the quiet one can publish again", || {
        std::thread::sleep(Duration::from_millis(200));
        quiet.publish("room", 2)["ok"] == true
    });
}

// ---- subscriptions -----------------------------------------------------------------------------------------------

// GD-8, C11
#[test]
fn subscriptions_are_capped_per_connection() {
    let server = Server::start("[limits]\nsubscriptions = 2\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut bob = Client::connect(server.address, &token("ann", ALL));
    assert_ok(&ann.subscribe("a"));
    assert_ok(&ann.subscribe("b"));
    assert_ok(&ann.subscribe("a"));
    assert_code(&ann.subscribe("c"), "TOO_MANY");
    assert_ok(&bob.subscribe("c"));
    assert_ok(&bob.publish("c", 1));
    bob.expect_event("c", 1);
    assert!(ann.settle().is_empty(), "a refused subscribe had an effect");
    assert_ok(&ann.request(json!({"type": "unsubscribe", "pipe": "a"})));
    assert_ok(&ann.subscribe("c"));
    assert_code(&ann.subscribe("a"), "TOO_MANY");
}

// ---- descriptors -------------------------------------------------------------------------------------------------

/// Starts the server with this limit of open files.
fn with_open_files(config: &str, most: u64) -> Server {
    let set = move || {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the pointer is to a live value of the right type.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    Launch::new(config).before(set).start()
}

/// What became of one attempt to connect where descriptors are short. None: turned away.
#[track_caller]
fn attempt(to: SocketAddr, request: &Request) -> Option<Client> {
    let mut raw = Raw::connect(to);
    raw.try_send(request.text());
    // An answer, or the end: whoever is still sending while being turned away may see a reset.
    while !raw.received_text().contains("\r\n\r\n") && raw.wait() {}
    let text = raw.received_text();
    match text.split(' ').nth(1) {
        Some("101") => Some(Client::greet(raw).expect("it began with 101")),
        Some("503") => {
            let response = raw.response();
            response.assert_refused(503, "OVERLOADED");
            assert_retry_after(&response);
            None
        }
        None => None,
        Some(_) => panic!("{text}"),
    }
}

/// Time that the process has spent on a core so far.
fn busy(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    // SAFETY: takes no pointers.
    let per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Duration::from_millis(ticks * 1_000 / per_s)
}

// GD-8, B22: out of descriptors is a refusal, not an end, and passes.
#[test]
fn running_out_of_descriptors_is_survived() {
    let server = with_open_files("[edge]\nworkers = 2\n", 96);
    let request = Request::upgrade().token(&token("ann", ALL));
    let mut inside: Vec<Client> = Vec::new();
    let mut turned_away = 0;
    while turned_away < 30 {
        match attempt(server.address, &request) {
            Some(client) => inside.push(client),
            None => turned_away += 1,
        }
        assert!(inside.len() < 96, "there is no limit");
    }
    assert!(inside.len() >= 20, "only {} were let in", inside.len());
    for client in &mut inside {
        assert_ok(&client.subscribe("room"));
    }
    assert_ok(&inside[0].publish("room", 1));
    for client in &mut inside {
        client.expect_event("room", 1);
    }
    let before = busy(&server);
    std::thread::sleep(Duration::from_secs(1));
    let spent = busy(&server) - before;
    assert!(spent < Duration::from_millis(500), "it spins: {spent:?} in a second without work");
    let all = inside.len();
    for client in inside.drain(..all / 2) {
        client.close();
    }
    until("connections are let in again", || {
        while inside.len() < all - 4 {
            match attempt(server.address, &request) {
                Some(client) => inside.push(client),
                None => return false,
            }
        }
        true
    });
    assert_ok(&inside[0].publish("room", 2));
}

// GD-8: everybody gets an answer although all workers fight for the last descriptors.
#[test]
fn nobody_is_left_waiting_for_a_descriptor() {
    let server = with_open_files("[edge]\nworkers = 6\n", 140);
    let request = Request::upgrade().token(&token("ann", ALL));
    let inside: Vec<Client> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| (0..40).filter_map(|_| attempt(server.address, &request)).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("answered")).collect()
    });
    assert!((20..140).contains(&inside.len()), "{} were let in", inside.len());
    for client in inside {
        client.close();
    }
    until("connections are let in again", || attempt(server.address, &request).is_some());
}
