//! Caps: exact over all workers, given back however a connection ends; the rate of handshakes; subscriptions.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{
    Client, Raw, Request, Response, Server, assert_code, assert_ok, frame, sign, token, unix_s, until,
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
