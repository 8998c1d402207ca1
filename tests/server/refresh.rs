//! A newer token on a connection that stays (HP-7, GD-2, GD-3, C21–C29, B25).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Client, Message, NO_RATES, Request, Server, assert_code, assert_forbidden, assert_ok, assert_system, rights, sign,
    token, token_with, unix_ms, unix_s,
};

fn server(further: &str) -> Server {
    Server::start(&format!("{further}\n[limits]\nrefresh = {{ per_s = 0 }}\n{NO_RATES}"))
}

fn granting(user: &str, grants: &[(&str, &str)]) -> String {
    let grants: serde_json::Map<_, _> = grants.iter().map(|(pipe, own)| ((*pipe).to_owned(), rights(own))).collect();
    sign(&json!({"sub": user, "iat": unix_s(), "pipes": grants}).to_string())
}

#[track_caller]
fn refresh(client: &mut Client, token: &str) -> Value {
    client.request(json!({"type": "refresh", "token": token}))
}

/// Nobody else's events are disturbed: numbered ones go on through `hall` while `act` runs.
#[track_caller]
fn undisturbed(server: &Server, ann: &mut Client, act: impl FnOnce(&mut Client)) {
    let mut ben = Client::connect(server.address, &token("ben", &[("hall", "pub")]));
    (0..50).for_each(|number| ben.tell("hall", number));
    act(ann);
    (50..100).for_each(|number| ben.tell("hall", number));
    let mut next = 0;
    while next < 100 {
        let heard = ann.receive();
        if heard["pipe"] == "hall" {
            assert_eq!(heard["data"], next, "{heard}");
            next += 1;
        }
    }
}

// HP-7, C25, B25
#[test]
fn a_wider_token_adds() {
    let server = server("");
    let mut ann = Client::connect(server.address, &granting("ann", &[("hall", "sub")]));
    assert_ok(&ann.subscribe("hall"));
    assert_forbidden(&ann.subscribe("room"));
    let expires_s = unix_s() + 3_600;
    let pipes = json!({"hall": rights("sub,pub"), "room": rights("sub"), "r:*": rights("presence")});
    let claims = json!({"sub": "ann", "iat": unix_s(), "exp": expires_s, "pipes": pipes});
    let reply = refresh(&mut ann, &sign(&claims.to_string()));
    assert_ok(&reply);
    assert_eq!((&reply["pipes"], &reply["expires_at"]), (&pipes, &json!(expires_s * 1_000)), "{reply}");
    let told = ann.settle();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_system(&told[0], "grants_changed");
    assert_eq!(told[0]["pipes"], pipes);
    let mut added: Vec<&str> = told[0]["added"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    added.sort_unstable();
    assert_eq!(added, ["hall", "r:*", "room"], "new or changed: {told:?}");
    assert_eq!(told[0]["removed"], json!([]));
    assert_ok(&ann.subscribe("room"));
    assert_ok(&ann.publish("hall", 1));
    ann.expect_event("hall", 1);
}

// HP-7, C25
#[test]
fn a_narrower_token_takes_away_and_disturbs_nothing_else() {
    let server = server("[edge]\nworkers = 2\n");
    let mut ann =
        Client::connect(server.address, &granting("ann", &[("hall", "sub"), ("room", "sub"), ("a:*", "sub")]));
    for pipe in ["hall", "room", "a:1"] {
        assert_ok(&ann.subscribe(pipe));
    }
    let narrower = granting("ann", &[("hall", "sub"), ("a:*", "pub")]);
    ann.send(json!({"type": "refresh", "token": narrower, "id": "r"}));
    let mut told: Vec<Value> = (0..4).map(|_| ann.receive()).collect();
    let reply = told.pop().expect("four");
    assert_eq!((&reply["type"], &reply["id"], &reply["ok"]), (&json!("reply"), &json!("r"), &json!(true)), "{told:?}");
    assert_eq!(reply["pipes"], json!({"hall": rights("sub"), "a:*": rights("pub")}));
    let mut ended: Vec<&str> = Vec::new();
    for one in &told {
        if one["event"] == "unsubscribed" {
            assert_eq!(one["reason"], "refresh", "{one}");
            ended.extend(one["pipe"].as_str());
        } else {
            assert_system(one, "grants_changed");
            assert_eq!((&one["removed"], &one["added"]), (&json!(["room"]), &json!(["a:*"])), "{one}");
            assert_eq!(one["pipes"], reply["pipes"]);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, ["a:1", "room"], "{told:?}");
    let mut ben = Client::connect(server.address, &token("ben", &[("**", "pub")]));
    for pipe in ["room", "a:1", "hall"] {
        assert_ok(&ben.publish(pipe, 1));
    }
    ann.expect_event("hall", 1);
    assert_forbidden(&ann.subscribe("room"));
    assert_forbidden(&ann.subscribe("a:1"));
    assert_ok(&ann.publish("a:1", 1));
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// HP-7
#[test]
fn what_stays_granted_goes_on_without_a_gap() {
    let server = server("[edge]\nworkers = 2\n");
    let mut ann = Client::connect(server.address, &granting("ann", &[("hall", "sub"), ("room", "sub")]));
    assert_ok(&ann.subscribe("hall"));
    assert_ok(&ann.subscribe("room"));
    undisturbed(&server, &mut ann, |ann| assert_ok(&refresh(ann, &granting("ann", &[("hall", "sub")]))));
    undisturbed(&server, &mut ann, |ann| assert_ok(&refresh(ann, &granting("ann", &[("h*", "sub"), ("x", "pub")]))));
}

// C25: the same grants again are no change.
#[test]
fn nothing_is_told_where_nothing_changed() {
    let server = server("");
    let mut ann = Client::connect(server.address, &granting("ann", &[("hall", "sub"), ("room", "pub")]));
    assert_ok(&ann.subscribe("hall"));
    let reply = refresh(&mut ann, &granting("ann", &[("room", "pub"), ("hall", "sub")]));
    assert_ok(&reply);
    assert_eq!(reply["pipes"], json!({"hall": rights("sub"), "room": rights("pub")}));
    assert_eq!(reply.get("expires_at"), None, "{reply}");
    assert_eq!(ann.settle(), [] as [Value; 0]);
    // Without an `id` no reply, but it counts.
    ann.send(json!({"type": "refresh", "token": granting("ann", &[("room", "pub")])}));
    let told = ann.settle();
    assert_eq!(told.len(), 2, "{told:?}");
    let told: Vec<&str> = told.iter().filter_map(|one| one["event"].as_str()).collect();
    assert!(told.contains(&"unsubscribed") && told.contains(&"grants_changed"), "{told:?}");
}

// GD-6
#[test]
fn it_prolongs_and_shortens() {
    let server = server("");
    let expiring = |at_s: u64| token_with("ann", json!({"exp": at_s}));
    let end_s = unix_s() + 2;
    let mut prolonged = Client::connect(server.address, &expiring(end_s));
    let mut kept = Client::connect(server.address, &expiring(end_s));
    let mut shortened = Client::connect(server.address, &expiring(end_s + 3_600));
    for client in [&mut prolonged, &mut kept] {
        // C29
        assert_system(&client.receive(), "expiring");
    }
    assert_eq!(shortened.settle(), [] as [Value; 0]);
    let reply = refresh(&mut prolonged, &expiring(end_s + 3_600));
    assert_eq!((&reply["ok"], &reply["expires_at"]), (&json!(true), &json!((end_s + 3_600) * 1_000)), "{reply}");
    assert_ok(&refresh(&mut shortened, &expiring(end_s)));
    assert_eq!(kept.closed().0, Some(4401));
    assert_eq!(shortened.closed().0, Some(4401));
    assert!(unix_ms() >= end_s * 1_000, "early");
    std::thread::sleep(Duration::from_millis(1_100));
    assert_ok(&prolonged.subscribe("room"));
    // Without `exp` there is no end any more.
    let mut freed = Client::connect(server.address, &expiring(unix_s() + 2));
    assert_ok(&refresh(&mut freed, &token_with("ann", json!({}))));
    std::thread::sleep(Duration::from_millis(2_500));
    assert_ok(&freed.subscribe("room"));
}

// C29: told once for each token.
#[test]
fn the_end_is_announced_anew() {
    let server = server("");
    let expiring = |in_s: u64| token_with("ann", json!({"exp": unix_s() + in_s}));
    let mut ann = Client::connect(server.address, &expiring(50));
    assert_system(&ann.receive(), "expiring");
    assert_ok(&refresh(&mut ann, &expiring(3_600)));
    assert_eq!(ann.settle(), [] as [Value; 0]);
    assert_ok(&refresh(&mut ann, &expiring(40)));
    let told = ann.receive();
    assert_system(&told, "expiring");
    assert!(told["in_s"].as_u64().is_some_and(|in_s| (30..=40).contains(&in_s)), "{told}");
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// C21
#[test]
fn an_older_token_changes_nothing() {
    let server = server("");
    let issued = |at_s: Option<u64>, pipes: Value| {
        sign(&json!({"sub": "ann", "iat": at_s, "pipes": pipes}).to_string().replace(r#""iat":null,"#, ""))
    };
    let (narrow, wide) = (json!({"room": rights("sub")}), json!({"**": rights("sub,pub")}));
    let mut ann = Client::connect(server.address, &issued(Some(1_000), narrow.clone()));
    assert_ok(&ann.subscribe("room"));
    for older in [Some(999), Some(1), None] {
        assert_code(&refresh(&mut ann, &issued(older, wide.clone())), "INVALID");
        assert_forbidden(&ann.subscribe("hall"));
    }
    assert_ok(&refresh(&mut ann, &issued(Some(1_000), wide.clone())));
    assert_ok(&ann.subscribe("hall"));
    assert_ok(&refresh(&mut ann, &issued(Some(2_000), narrow)));
    assert_code(&refresh(&mut ann, &issued(Some(1_999), wide)), "INVALID");
    assert_forbidden(&ann.publish("room", 1));
    // A token without `iat` may replace another without.
    let mut silent = Client::connect(server.address, &token("ben", &[]));
    assert_ok(&refresh(&mut silent, &token("ben", &[("room", "sub")])));
    assert_ok(&silent.subscribe("room"));
}

// GD-2, INVARIANTS 30
#[test]
fn another_identity_closes() {
    let server = server("");
    let identity = json!({"tenant": "red", "org": "left"});
    let same = token_with("ann", identity.clone());
    let others = [
        token_with("anna", identity.clone()),
        token_with("ann", json!({"tenant": "blue", "org": "left"})),
        token_with("ann", json!({"tenant": "red", "org": "right"})),
        token_with("ann", json!({"tenant": "red"})),
        token_with("ann", json!({"org": "left"})),
        token_with("ann", json!({})),
    ];
    for other in others {
        let mut ann = Client::connect(server.address, &same);
        assert_ok(&refresh(&mut ann, &same));
        ann.send(json!({"type": "refresh", "token": other, "id": 9}));
        ann.expect_close(4403);
    }
    let mut without = Client::connect(server.address, &token_with("ann", json!({})));
    without.send(json!({"type": "refresh", "token": token_with("ann", json!({"tenant": "red"}))}));
    without.expect_close(4403);
}

// C26: the rest of what is said about a user may change.
#[test]
fn name_and_roles_may_change() {
    let server = server("");
    let mut ann = Client::connect(server.address, &token_with("ann", json!({"name": "Ann", "role": "member"})));
    assert_ok(&refresh(&mut ann, &token_with("ann", json!({"name": "Anna", "roles": ["admin"], "team": "x"}))));
    let push = |role: &str| server.api.call("push", json!({"to": {"role": role}, "event": "e", "data": 1})).status;
    assert_eq!((push("admin"), push("member")), (200, 404));
    assert_eq!(ann.receive()["type"], "push");
}

// GD-3, C27
#[test]
fn an_anonymous_connection_stays_nobody() {
    let server = server("[auth]\nanonymous = true\n");
    let mut nobody = Client::with(server.address, &Request::upgrade());
    assert_eq!(nobody.welcome["user"], Value::Null);
    nobody.send(json!({"type": "refresh", "token": token("ann", &[("room", "sub")]), "id": 1}));
    nobody.expect_close(4403);
}

// C22, C23
#[test]
fn a_bad_token_leaves_everything_as_it_was() {
    let server = server("");
    let mut ann = Client::connect(server.address, &granting("ann", &[("room", "sub,pub")]));
    assert_ok(&ann.subscribe("room"));
    let expired = token_with("ann", json!({"exp": unix_s() - 5, "iat": unix_s()}));
    let not_yet = token_with("ann", json!({"nbf": unix_s() + 100, "iat": unix_s()}));
    let forged = pipeward::auth::token::sign(b"another secret of thirty-two byte", r#"{"sub":"ann","pipes":{}}"#);
    let nobody = sign(r#"{"pipes":{}}"#);
    for bad in ["", "x", "a.b.c", &expired, &not_yet, &forged, &nobody] {
        let reply = refresh(&mut ann, bad);
        assert_eq!(reply["ok"], false, "{bad:?}");
        assert!(bad.is_empty() || reply["code"] == "UNAUTHENTICATED", "{bad:?}: {reply}");
        assert!(bad.len() < 10 || !reply.to_string().contains(bad), "G4: {reply}");
    }
    assert_code(&ann.request(json!({"type": "refresh"})), "INVALID");
    assert_code(&ann.request(json!({"type": "refresh", "token": 5})), "INVALID");
    assert_ok(&ann.publish("room", 1));
    ann.expect_event("room", 1);
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// D8: a revocation stands above whatever token comes.
#[test]
fn a_refresh_does_not_bring_back_what_was_revoked() {
    let server = server("[edge]\nworkers = 2\n");
    let mut ann = Client::connect(server.address, &granting("ann", &[("hall", "sub")]));
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    assert_system(&ann.receive(), "pipe_revoked");
    let reply = refresh(&mut ann, &granting("ann", &[("hall", "sub"), ("room", "sub"), ("ro*", "sub")]));
    assert_ok(&reply);
    assert_eq!(reply["pipes"], json!({"hall": rights("sub"), "ro*": rights("sub")}));
    assert_code(&ann.subscribe("room"), "REVOKED");
    assert_ok(&ann.subscribe("roof"));
    server.api.done("restore", json!({"user": "ann"}));
    ann.settle();
    assert_ok(&ann.subscribe("room"));
}

// D8: however the two meet, in the end nothing of the pipe is left.
#[test]
fn a_refresh_and_a_revocation_at_once() {
    let server = server("[edge]\nworkers = 2\n");
    let wide = granting("ann", &[("room", "sub"), ("hall", "sub")]);
    let mut ann = Client::connect(server.address, &wide);
    for round in 0..20 {
        assert_ok(&ann.subscribe("room"));
        std::thread::scope(|scope| {
            scope.spawn(|| server.api.done("revoke", json!({"user": "ann", "pipe": "room"})));
            for _ in 0..5 {
                ann.send(json!({"type": "refresh", "token": wide}));
                ann.send(json!({"type": "subscribe", "pipe": "room"}));
            }
        });
        ann.settle();
        assert_code(&ann.subscribe("room"), "REVOKED");
        let count = json!({"pipe": "room", "event": "e", "data": round, "count": true});
        assert_eq!(server.api.delivered("publish", count), 0);
        server.api.done("restore", json!({"user": "ann"}));
        ann.settle();
    }
}

// D4: a refresh is an authorization too; what was asked for before the revocation does not count.
#[test]
fn a_refresh_ends_what_holds_until_reauthorized() {
    let server = server("[edge]\nworkers = 2\n");
    let issued =
        |at_s: u64, pipe: &str| sign(&json!({"sub": "ann", "iat": at_s, "pipes": {pipe: rights("sub")}}).to_string());
    let now_s = unix_s();
    let before = issued(now_s, "room");
    let mut ann = Client::connect(server.address, &before);
    let mut beside = Client::connect(server.address, &before);
    server.api.done("revoke", json!({"user": "ann", "pipe": "room", "until": "reauthorized"}));
    for client in [&mut ann, &mut beside] {
        assert_system(&client.receive(), "pipe_revoked");
    }
    let reply = refresh(&mut ann, &before);
    assert_eq!((&reply["ok"], &reply["pipes"]), (&json!(true), &json!({})), "{reply}");
    assert_code(&ann.subscribe("room"), "REVOKED");
    assert_ok(&refresh(&mut ann, &issued(now_s + 10, "hall")));
    assert_code(&ann.subscribe("room"), "REVOKED");
    assert_eq!(beside.settle(), [] as [Value; 0], "that token does not grant it");
    let reply = refresh(&mut ann, &issued(now_s + 20, "room"));
    assert_eq!((&reply["ok"], &reply["pipes"]), (&json!(true), &json!({"room": rights("sub")})), "{reply}");
    assert_ok(&ann.subscribe("room"));
    assert_system(&beside.receive(), "pipe_restored");
    assert_ok(&beside.subscribe("room"));
}

// C2
#[test]
fn too_many_are_refused() {
    let server = Server::start("[limits]\nrefresh = { per_s = 0.1, burst = 2 }\nthrottle_s = 3600\n");
    let mut ann = Client::connect(server.address, &token("ann", &[]));
    for _ in 0..2 {
        assert_ok(&refresh(&mut ann, &token("ann", &[])));
    }
    let reply = refresh(&mut ann, &token("ann", &[("room", "sub")]));
    assert_code(&reply, "RATE_LIMITED");
    assert!(reply["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{reply}");
    match ann.hear() {
        Message::Json(told) => assert_system(&told, "throttled"),
        other => panic!("{other:?}"),
    }
    assert_forbidden(&ann.subscribe("room"));
}

// B25, C25: `grants_changed` is what changed of what the client was told, and revoked grants are not told.
#[test]
fn grants_changed_is_about_the_grants_that_are_told() {
    let server = server("");
    let issued = |ago_s: u64, pipes: &[&str]| {
        let pipes: serde_json::Map<_, _> = pipes.iter().map(|pipe| ((*pipe).to_owned(), rights("sub"))).collect();
        sign(&json!({"sub": "ann", "iat": unix_s() - ago_s, "pipes": pipes}).to_string())
    };
    let mut ann = Client::connect(server.address, &issued(30, &["a", "b"]));
    server.api.done("revoke", json!({"user": "ann", "pipe": "a", "until": "reauthorized"}));
    server.api.done("revoke", json!({"user": "ann", "pipe": "n"}));
    ann.settle();
    // A revoked one goes, another comes: nothing of it is seen.
    let reply = refresh(&mut ann, &issued(20, &["b", "n"]));
    assert_eq!(reply["pipes"], json!({"b": rights("sub")}), "{reply}");
    assert_eq!(ann.settle(), [] as [Value; 0]);
    // One that this refresh gives back is new.
    let now = sign(&json!({"sub": "ann", "iat": unix_s() + 5, "pipes": {"a": rights("sub")}}).to_string());
    assert_ok(&refresh(&mut ann, &now));
    let told = ann.settle();
    let changed = told.iter().find(|one| one["event"] == "grants_changed").expect("a change");
    assert_eq!((&changed["added"], &changed["removed"]), (&json!(["a"]), &json!(["b"])), "{told:?}");
}

// C21, B8: ahead of the clock or not, down to the fraction: an older token brings nothing back.
#[test]
fn issue_times_are_compared_as_they_are() {
    let server = server("");
    let now_s = unix_s() as f64;
    let issued = |ahead_s: f64| sign(&json!({"sub": "ann", "iat": now_s + ahead_s}).to_string());
    let older = |first: f64, second: f64| {
        let mut ann = Client::connect(server.address, &issued(first));
        refresh(&mut ann, &issued(second))
    };
    assert_code(&older(400.0, 5.0), "INVALID");
    assert_code(&older(-9.1, -9.9), "INVALID");
    assert_ok(&older(0.0, 400.0));
    assert_ok(&older(-9.9, -9.1));
}
