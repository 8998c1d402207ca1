//! Tokens that are taken back: by id, by session, by when they were issued (GD-6, D8–D12, INVARIANTS 6).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Client, Request, Server, assert_code, assert_ok, assert_system, one_on_each, token_with, unix_ms, unix_s,
};

fn server(workers: usize) -> Server {
    Server::start(&format!("[edge]\nworkers = {workers}\n"))
}

fn connect(server: &Server, token: &str) -> Client {
    Client::connect(server.address, token)
}

/// D12
#[track_caller]
fn assert_refused(server: &Server, token: &str) {
    Request::upgrade().token(token).assert_refused(server.address, 401, "REVOKED");
}

fn by_id_and_by_session(workers: usize) {
    let server = server(workers);
    let first = token_with("ann", json!({"jti": "first", "sid": "phone"}));
    let second = token_with("ann", json!({"jti": "second", "sid": "phone"}));
    let third = token_with("ann", json!({"jti": "third", "sid": "desk"}));
    let plain = token_with("ann", json!({}));
    let firsts = one_on_each(server.address, workers, &first);
    let seconds = one_on_each(server.address, workers, &second);
    let (mut on_desk, mut other) = (connect(&server, &third), connect(&server, &plain));
    assert_eq!(server.api.connections("revoke_tokens", json!({"token": "first"})), workers as u64);
    firsts.into_iter().for_each(|client| drop(client.expect_close(4402)));
    assert_refused(&server, &first);
    assert_ok(&connect(&server, &second).subscribe("room"));
    assert_eq!(server.api.connections("revoke_tokens", json!({"session": "phone"})), workers as u64);
    seconds.into_iter().for_each(|client| drop(client.expect_close(4402)));
    assert_refused(&server, &second);
    assert_refused(&server, &first);
    assert_refused(&server, &token_with("ann", json!({"jti": "fourth", "sid": "phone"})));
    for client in [&mut on_desk, &mut other, &mut connect(&server, &third), &mut connect(&server, &plain)] {
        assert_ok(&client.subscribe("room"));
    }
    assert_eq!(server.api.connections("revoke_tokens", json!({"token": "nobody's"})), 0);
}

// GD-6
#[test]
fn by_id_and_by_session_one_worker() {
    by_id_and_by_session(1);
}

// GD-6
#[test]
fn by_id_and_by_session_four_workers() {
    by_id_and_by_session(4);
}

// INVARIANTS 10: with 4402 whatever was queued goes.
#[test]
fn nothing_follows_the_close() {
    let server = server(2);
    let token = token_with("ann", json!({"jti": "first"}));
    for round in 0..10 {
        let mut ann = connect(&server, &token);
        let mut ben = connect(&server, &token_with("ben", json!({})));
        assert_ok(&ann.subscribe("room"));
        (0..50).for_each(|_| ben.tell("room", round));
        server.api.done("revoke_tokens", json!({"token": "first", "ttl_s": 0.2}));
        ben.tell("room", "after the answer");
        assert_eq!(ann.closed().0, Some(4402));
        std::thread::sleep(Duration::from_millis(250));
    }
}

// D9: absolute, exclusive, and a token that does not say counts as old.
#[test]
fn by_when_they_were_issued() {
    let server = server(2);
    let issued = |user: &str, at_s: u64| token_with(user, json!({"iat": at_s}));
    let (old, same) = (issued("ann", 999), issued("ann", 1_000));
    let silent = token_with("ann", json!({}));
    let old_one = connect(&server, &old);
    let silent_one = connect(&server, &silent);
    let mut same_one = connect(&server, &same);
    let mut other_one = connect(&server, &issued("ben", 5));
    let answer = server.api.done("revoke_tokens", json!({"user": "ann", "issued_before_s": 1_000}));
    assert_eq!((&answer["connections"], &answer["issued_before_s"]), (&json!(2), &json!(1_000)));
    old_one.expect_close(4402);
    silent_one.expect_close(4402);
    assert_refused(&server, &old);
    assert_refused(&server, &silent);
    assert_ok(&same_one.subscribe("room"));
    assert_ok(&other_one.subscribe("room"));
    assert_ok(&connect(&server, &same).subscribe("room"));
    assert_ok(&connect(&server, &issued("ben", 5)).subscribe("room"));
}

// D9
#[test]
fn all_but_the_one_that_is_spared() {
    let server = server(2);
    for (name, spared) in [("session", json!({"sid": "this"})), ("token", json!({"jti": "this"}))] {
        let user = format!("by-{name}");
        let this = token_with(&user, spared);
        let others = [json!({"sid": "that"}), json!({"jti": "that"}), json!({})];
        let others = others.map(|claims| token_with(&user, claims));
        let mut kept = connect(&server, &this);
        let gone = others.each_ref().map(|token| connect(&server, token));
        let mut call = json!({"user": user});
        call[format!("except_{name}")] = json!("this");
        assert_eq!(server.api.connections("revoke_tokens", call), 3, "{name}");
        gone.into_iter().for_each(|client| drop(client.expect_close(4402)));
        others.iter().for_each(|token| assert_refused(&server, token));
        assert_ok(&kept.subscribe("room"));
        assert_ok(&connect(&server, &this).subscribe("room"));
    }
}

// D14
#[test]
fn of_a_tenant_alone() {
    let server = server(2);
    let of_tenant = |tenant: &str| token_with("ann", json!({"tenant": tenant}));
    let red = connect(&server, &of_tenant("red"));
    let mut blue = connect(&server, &of_tenant("blue"));
    assert_eq!(server.api.connections("revoke_tokens", json!({"user": "ann", "tenant": "red"})), 1);
    red.expect_close(4402);
    assert_refused(&server, &of_tenant("red"));
    assert_ok(&blue.subscribe("room"));
    assert_eq!(server.api.connections("revoke_tokens", json!({"user": "ann"})), 1);
    blue.expect_close(4402);
    assert_refused(&server, &of_tenant("blue"));
    assert_refused(&server, &token_with("ann", json!({})));
}

// D9: the current second is taken, and what is minted after the answer is good.
#[test]
fn without_a_cut_off_all_until_now() {
    let server = server(2);
    for _ in 0..3 {
        let before = token_with("ann", json!({"iat": unix_s()}));
        let open = connect(&server, &before);
        let answer = server.api.done("revoke_tokens", json!({"user": "ann"}));
        let minted_s = unix_s();
        let after = token_with("ann", json!({"iat": minted_s}));
        assert_eq!(answer["connections"], 1, "{answer}");
        let cut_off_s = answer["issued_before_s"].as_u64().expect("a cut-off");
        assert!(cut_off_s <= minted_s && minted_s <= cut_off_s + 10, "{answer} at {minted_s}");
        open.expect_close(4402);
        assert_refused(&server, &before);
        assert_ok(&connect(&server, &after).subscribe("room"));
        let last = token_with("ann", json!({"iat": cut_off_s - 1}));
        assert_refused(&server, &last);
    }
}

// C22, D8: neither does a revoked token come in by `refresh`, nor does one that was verified before.
#[test]
fn a_refresh_does_not_bring_one_back() {
    let server = server(1);
    let now_s = unix_s();
    let good = token_with("ann", json!({"jti": "good", "iat": now_s}));
    let bad = token_with("ann", json!({"jti": "bad", "iat": now_s}));
    let mut ann = connect(&server, &good);
    assert_ok(&ann.subscribe("room"));
    assert_eq!(server.api.connections("revoke_tokens", json!({"token": "bad"})), 0);
    assert_code(&ann.request(json!({"type": "refresh", "token": bad})), "REVOKED");
    assert_ok(&ann.publish("room", 1));
    ann.expect_event("room", 1);
    // It still lives by the token that it came with.
    assert_eq!(server.api.connections("revoke_tokens", json!({"token": "good"})), 1);
    ann.expect_close(4402);
}

// D10: a connection lives by the token that it took last.
#[test]
fn a_connection_lives_by_its_latest_token() {
    let server = server(1);
    let now_s = unix_s();
    let first = token_with("ann", json!({"jti": "first", "sid": "one", "iat": now_s}));
    let second = token_with("ann", json!({"jti": "second", "sid": "two", "iat": now_s + 5}));
    let mut ann = connect(&server, &first);
    assert_ok(&ann.request(json!({"type": "refresh", "token": second})));
    assert_eq!(server.api.connections("revoke_tokens", json!({"token": "first"})), 0);
    assert_eq!(server.api.connections("revoke_tokens", json!({"session": "one"})), 0);
    let before = json!({"user": "ann", "issued_before_s": now_s + 5});
    assert_eq!(server.api.connections("revoke_tokens", before), 0);
    assert_ok(&ann.subscribe("room"));
    assert_eq!(server.api.connections("revoke_tokens", json!({"session": "two"})), 1);
    ann.expect_close(4402);
}

// D11
#[test]
fn a_time_limit_ends_by_itself() {
    let server = server(1);
    let token = token_with("ann", json!({"jti": "first", "sid": "phone"}));
    let began_ms = unix_ms();
    for what in [json!({"token": "first"}), json!({"session": "phone"}), json!({"user": "ann", "issued_before_s": 1})] {
        let mut call = what;
        call["ttl_s"] = json!(1);
        server.api.done("revoke_tokens", call);
    }
    assert_refused(&server, &token);
    let mut again = loop {
        match Client::try_with(server.address, &Request::upgrade().token(&token)) {
            Ok(client) => break client,
            Err(refused) => refused.assert_refused(401, "REVOKED"),
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(unix_ms() < began_ms + 20_000, "it does not end");
    };
    assert!(unix_ms() >= began_ms + 1_000, "it ended early");
    assert_ok(&again.subscribe("room"));
}

// INVARIANTS 6: either the look-up sees the entry or the command finds the connection.
#[test]
fn no_handshake_slips_between() {
    let server = server(2);
    let address = server.address;
    for round in 0..15 {
        let id = format!("token-{round}");
        let token = token_with("ann", json!({"jti": id}));
        let clients = std::thread::scope(|scope| {
            let connecting: Vec<_> = (0..3)
                .map(|_| {
                    let token = &token;
                    scope.spawn(move || {
                        let mut let_in = Vec::new();
                        let request = Request::upgrade().token(token);
                        while let Ok(client) = Client::try_with(address, &request) {
                            let_in.push(client);
                        }
                        let_in
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(round % 5 * 4));
            server.api.done("revoke_tokens", json!({"token": id}));
            connecting.into_iter().flat_map(|thread| thread.join().expect("a client")).collect::<Vec<Client>>()
        });
        clients.into_iter().for_each(|client| drop(client.expect_close(4402)));
    }
}

// GD-6: a session's end is not the user's.
#[test]
fn pipes_stay_with_whoever_keeps_a_token() {
    let server = server(1);
    let mut desk = connect(&server, &token_with("ann", json!({"sid": "desk"})));
    let phone = connect(&server, &token_with("ann", json!({"sid": "phone"})));
    assert_ok(&desk.subscribe("room"));
    server.api.done("revoke_tokens", json!({"session": "phone"}));
    phone.expect_close(4402);
    assert_eq!(desk.settle(), [] as [Value; 0]);
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    assert_system(&desk.receive(), "pipe_revoked");
}
