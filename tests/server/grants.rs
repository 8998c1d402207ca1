//! Who may do what: explicit grants by name and pattern, definitions with captures, each right by itself, and that
//! everything else is refused alike and without any effect.

use serde_json::{Value, json};

use crate::support::{Client, NO_RATES, Request, Server, assert_code, assert_forbidden, assert_ok, sign, token};

const WORKERS: &str = "[edge]\nworkers = 2\n";

/// A connection of `claims`.
#[track_caller]
fn connect(server: &Server, claims: Value) -> Client {
    Client::connect(server.address, &sign(&claims.to_string()))
}

// HP-3, F2, SR-8
#[test]
fn a_users_own_pipe_is_closed_to_everybody_else() {
    let server = Server::start(&format!("{WORKERS}[pipe.\"user-{{user.id}}\"]\nsubscribe = true\npublish = true\n"));
    let mut ann = connect(&server, json!({"sub": "ann"}));
    let mut bob = connect(&server, json!({"sub": "bob"}));
    assert_ok(&bob.subscribe("user-bob"));
    assert_forbidden(&ann.subscribe("user-bob"));
    assert_forbidden(&ann.publish("user-bob", "from ann"));
    assert_forbidden(&ann.subscribe("user-bobby"));
    assert_forbidden(&ann.subscribe("user-an"));
    assert_ok(&ann.subscribe("user-ann"));
    assert_ok(&bob.publish("user-bob", "own"));
    bob.expect_event("user-bob", "own");
    // What bob sent before would have come first.
    assert_ok(&ann.publish("user-ann", "mine"));
    ann.expect_event("user-ann", "mine");
    assert!(ann.settle().is_empty() && bob.settle().is_empty());
}

// F2, INVARIANTS 5: a value that cannot stand in a segment owns nothing, whatever the name looks like.
#[test]
fn an_identity_with_a_colon_owns_no_pipe() {
    let server =
        Server::start("[pipe.\"user-{user.id}\"]\nsubscribe = true\n[pipe.\"{user.tenant}:**\"]\nsubscribe = true\n");
    let mut odd = connect(&server, json!({"sub": "a:b", "tenant": "acme:eu"}));
    for pipe in ["user-a:b", "user-a", "user-b", "acme:eu:x", "acme:x", "eu:x"] {
        assert_forbidden(&odd.subscribe(pipe));
    }
    let mut plain = connect(&server, json!({"sub": "a", "tenant": "acme"}));
    assert_ok(&plain.subscribe("user-a"));
    assert_ok(&plain.subscribe("acme:eu:x"));
}

// F2, GD-5, D14: a definition with captures lets a connection in under its own tenant and organisation only.
#[test]
fn another_tenant_is_refused_where_the_definition_names_it() {
    let server = Server::start(&format!(
        "{WORKERS}[pipe.\"{{user.tenant}}:{{user.org}}:room-{{room}}\"]\nsubscribe = true\npublish = true\n"
    ));
    let mut acme = connect(&server, json!({"sub": "ann", "tenant": "acme", "org": "red"}));
    let mut globex = connect(&server, json!({"sub": "ann", "tenant": "globex", "org": "red"}));
    let mut nobodys = connect(&server, json!({"sub": "ann"}));
    let mut half = connect(&server, json!({"sub": "ann", "tenant": "acme"}));
    assert_ok(&acme.subscribe("acme:red:room-1"));
    assert_ok(&globex.subscribe("globex:red:room-1"));
    for pipe in ["globex:red:room-1", "acme:blue:room-1", "acme:red:room-", "acme:red:room-1:2", "acme:red:hall-1"] {
        assert_forbidden(&acme.subscribe(pipe));
        assert_forbidden(&acme.publish(pipe, "across"));
    }
    for other in [&mut globex, &mut nobodys, &mut half] {
        assert_forbidden(&other.subscribe("acme:red:room-1"));
        assert_forbidden(&other.publish("acme:red:room-1", "across"));
    }
    assert_ok(&globex.publish("globex:red:room-1", "inside"));
    globex.expect_event("globex:red:room-1", "inside");
    assert_ok(&acme.publish("acme:red:room-1", "mine"));
    acme.expect_event("acme:red:room-1", "mine");
    assert!(acme.settle().is_empty() && globex.settle().is_empty());
}

// HP-6, RK-5: nothing tells whether a pipe exists.
#[test]
fn an_ungranted_and_an_unknown_pipe_answer_alike() {
    let server = Server::start(WORKERS);
    let mut bob = Client::connect(server.address, &token("bob", &[("secret", "sub,pub")]));
    assert_ok(&bob.subscribe("secret"));
    let mut ann = Client::connect(server.address, &token("ann", &[("lobby", "sub")]));
    for message in [
        json!({"type": "subscribe"}),
        json!({"type": "subscribe", "presence": true}),
        json!({"type": "subscribe", "events": ["e"]}),
        json!({"type": "publish", "event": "e", "data": 1}),
        json!({"type": "presence"}),
        json!({"type": "unsubscribe"}),
    ] {
        let mut ask = |pipe: &str| {
            let mut message = message.clone();
            message["pipe"] = json!(pipe);
            message["id"] = json!("same");
            ann.send(message);
            ann.reply(&json!("same"))
        };
        let (existing, unknown) = (ask("secret"), ask("nosuch"));
        assert_eq!(existing, unknown, "{message}");
        assert_eq!(existing["ok"], false, "{message}");
    }
    ann.send(json!({"type": "subscribe", "id": 1, "pipes": ["secret", "nosuch"]}));
    let results = ann.reply(&json!(1))["results"].clone();
    assert_eq!(results["secret"], results["nosuch"], "{results}");
    assert_forbidden(&results["secret"]);
    assert!(bob.settle().is_empty(), "bob heard of it");
}

// HP-6: without an id nothing is said; it is counted, and the connection is as it was.
#[test]
fn a_refusal_without_an_id_is_silent_and_counted() {
    let server = Server::start("");
    let mut bob = Client::connect(server.address, &token("bob", &[("secret", "sub")]));
    assert_ok(&bob.subscribe("secret"));
    let mut ann = Client::connect(server.address, &token("ann", &[("lobby", "sub,pub")]));
    assert_ok(&ann.subscribe("lobby"));
    for message in [
        json!({"type": "subscribe", "pipe": "secret"}),
        json!({"type": "subscribe", "pipes": ["secret", "other"]}),
        json!({"type": "publish", "pipe": "secret", "event": "e", "data": 1}),
        json!({"type": "presence", "pipe": "secret"}),
        json!({"type": "enqueue", "queue": "q", "data": 1}),
        json!({"type": "push", "to": {"user": "bob"}, "event": "e", "data": 1}),
        json!({"type": "action", "name": "a", "args": {}}),
    ] {
        ann.send(message);
    }
    assert!(ann.settle().is_empty(), "a refusal without an id was answered");
    server.until_counter("denied[FORBIDDEN]", 7);
    assert_eq!(server.counter("denied[UNKNOWN_ACTION]"), 1);
    assert_ok(&ann.publish("lobby", "still here"));
    ann.expect_event("lobby", "still here");
    assert!(bob.settle().is_empty());
}

// HP-2, HP-5, GD-4: no right brings another.
#[test]
fn each_right_stands_by_itself() {
    let server = Server::start(WORKERS);
    let grants = [("in", "sub"), ("out", "pub"), ("seen", "presence"), ("none", ""), ("both", "sub,pub")];
    let mut ann = Client::connect(server.address, &token("ann", &grants));
    let mut application = Client::connect(server.address, &token("app", &[("**", "sub,pub")]));
    for (pipe, rights) in grants {
        let (may_subscribe, may_publish) = (rights.contains("sub"), rights.contains("pub"));
        assert_eq!(ann.subscribe(pipe)["ok"], may_subscribe, "subscribe {pipe}");
        assert_eq!(ann.publish(pipe, "from ann")["ok"], may_publish, "publish {pipe}");
    }
    // Being subscribed grants no publishing, also after the first message has been decided.
    assert_forbidden(&ann.publish("in", "again"));
    assert_forbidden(&ann.subscribe("out"));
    ann.expect_event("both", "from ann");
    for pipe in ["in", "out", "seen", "none", "both"] {
        assert_ok(&application.publish(pipe, "from app"));
    }
    ann.expect_event("in", "from app");
    ann.expect_event("both", "from app");
    assert!(ann.settle().is_empty(), "ann hears of nothing else");
}

// A1: a right that is not the boolean true is not granted, and the rest of the token holds.
#[test]
fn a_right_is_a_boolean_true_and_nothing_else() {
    let server = Server::start("");
    let mut ann = connect(
        &server,
        json!({"sub": "ann", "pipes": {
            "a": {"subscribe": "true", "publish": 1}, "b": {"subscribe": null, "publish": [true]}, "c": {"subscribe": true},
            "d": {},
        }}),
    );
    for pipe in ["a", "b", "d"] {
        assert_forbidden(&ann.subscribe(pipe));
        assert_forbidden(&ann.publish(pipe, "x"));
    }
    assert_ok(&ann.subscribe("c"));
    let nothing = json!({"subscribe": false, "publish": false, "presence": false});
    assert_eq!(ann.welcome["pipes"]["a"], nothing, "B25: the three rights are always written");
    assert_eq!(ann.welcome["pipes"]["d"], nothing);
    assert_eq!(ann.welcome["pipes"]["c"], json!({"subscribe": true, "publish": false, "presence": false}));
}

// §1 Names, F3
#[test]
fn patterns_stay_inside_their_segments_and_an_exact_name_decides_alone() {
    let server = Server::start("");
    let grants = [
        ("room-*", "sub"),
        ("*-log", "pub"),
        ("deep:**", "sub"),
        ("room-secret", ""),
        ("room-open", "pub"),
        ("a:*:z", "sub"),
    ];
    let mut ann = Client::connect(server.address, &token("ann", &grants));
    let rights = [
        ("room-1", true, false),
        ("room-", false, false),
        ("room-1:2", false, false),
        ("room-x-log", true, true),
        ("x-log", false, true),
        ("room-secret", false, false),
        ("room-open", false, true),
        ("deep:a", true, false),
        ("deep:a:b:c", true, false),
        ("deep:", false, false),
        ("a:b:z", true, false),
        ("a:b:c:z", false, false),
        ("xroom-1", false, false),
        ("Room-1", false, false),
    ];
    for (pipe, may_subscribe, may_publish) in rights {
        assert_eq!(ann.subscribe(pipe)["ok"], may_subscribe, "subscribe {pipe}");
        assert_eq!(ann.publish(pipe, "x")["ok"], may_publish, "publish {pipe}");
    }
    assert_eq!(ann.welcome["pipes"].as_object().map(|pipes| pipes.len()), Some(6), "B25: patterns stay patterns");
}

// A denial is never remembered as a right, nor a right given up by turning to many other pipes (INVARIANTS 21).
#[test]
fn rights_hold_after_hundreds_of_other_names() {
    let server = Server::start(&format!("[limits]\n{NO_RATES}"));
    let mut listener = Client::connect(server.address, &token("app", &[("**", "sub")]));
    let mut ann = Client::connect(server.address, &token("ann", &[("p-*", "pub"), ("s-*", "sub"), ("keep", "sub")]));
    assert_ok(&ann.subscribe("keep"));
    for round in 0..2 {
        for number in 0..120 {
            let (own, foreign) = (format!("p-{number}"), format!("s-{number}"));
            if round == 0 {
                assert_ok(&listener.subscribe(&own));
            }
            assert_ok(&ann.publish(&own, "x"));
            assert_forbidden(&ann.subscribe(&own));
            assert_forbidden(&ann.publish(&foreign, "x"));
            assert_forbidden(&ann.publish("keep", "x"));
            listener.expect_event(&own, "x");
        }
    }
    assert!(ann.settle().is_empty());
}

// C8, GD-4: presence is refused, and with it the whole subscribe.
#[test]
fn presence_is_refused_and_nothing_is_half_done() {
    let server = Server::start("");
    let mut ann = Client::connect(server.address, &token("ann", &[("room", "sub,pub"), ("hall", "sub,pub")]));
    assert_forbidden(&ann.request(json!({"type": "subscribe", "pipe": "room", "presence": true})));
    assert_forbidden(&ann.request(json!({"type": "presence", "pipe": "room"})));
    assert_code(&ann.request(json!({"type": "unsubscribe", "pipe": "room"})), "NOT_SUBSCRIBED");
    ann.request(json!({"type": "subscribe", "pipes": ["room", "hall"], "presence": true}));
    assert_ok(&ann.publish("room", "x"));
    assert_ok(&ann.publish("hall", "x"));
    assert!(ann.settle().is_empty(), "subscribed by a refused subscribe");
    assert_ok(&ann.request(json!({"type": "subscribe", "pipe": "room", "presence": false})));
}

// RK-5, GD-10, F15, C18, C23: surfaces that nothing opens.
#[test]
fn actions_queues_and_pushes_are_refused() {
    let server = Server::start("");
    let mut bob = Client::connect(server.address, &token("bob", &[("**", "sub,pub,presence")]));
    let mut ann = Client::connect(server.address, &token("ann", &[("**", "sub,pub,presence")]));
    assert_code(&ann.request(json!({"type": "action", "name": "delete", "args": {}})), "UNKNOWN_ACTION");
    assert_forbidden(&ann.request(json!({"type": "enqueue", "queue": "jobs", "data": 1})));
    let connection = bob.welcome["connection"].clone();
    for to in [json!({"user": "bob"}), json!({"connection": connection}), json!({"role": "admin"})] {
        assert_forbidden(&ann.request(json!({"type": "push", "to": to, "event": "e", "data": 1})));
    }
    for to in [json!({}), json!({"user": "bob", "role": "admin"}), json!("bob"), json!(null), json!({"planet": "x"})] {
        assert_code(&ann.request(json!({"type": "push", "to": to, "event": "e", "data": 1})), "INVALID");
    }
    assert_code(&ann.request(json!({"type": "refresh"})), "INVALID");
    assert!(bob.settle().is_empty());
}

// B21, A6
#[test]
fn an_anonymous_connection_is_nobody() {
    let server = Server::start(
        "[auth]\nanonymous = true\n[pipe.\"user-{user.id}\"]\nsubscribe = true\n[pipe.news]\nsubscribe = true\n[pipe.wall]\nsubscribe = true\npublish = true\n",
    );
    let mut nobody = Client::with(server.address, &Request::upgrade());
    assert_eq!(nobody.welcome["user"], Value::Null);
    assert_eq!(nobody.welcome["pipes"], json!({}));
    for message in [
        json!({"type": "action", "name": "delete", "args": {}}),
        json!({"type": "enqueue", "queue": "jobs", "data": 1}),
        json!({"type": "push", "to": {"user": "ann"}, "event": "e", "data": 1}),
    ] {
        assert_code(&nobody.request(message), "UNAUTHENTICATED");
    }
    assert_forbidden(&nobody.subscribe("user-"));
    assert_forbidden(&nobody.subscribe("user-ann"));
    assert_forbidden(&nobody.request(json!({"type": "presence", "pipe": "news"})));
    assert_ok(&nobody.subscribe("news"));
    assert_forbidden(&nobody.publish("news", "forged"));
    assert_ok(&nobody.subscribe("wall"));
    let mut ann = connect(&server, json!({"sub": "ann"}));
    assert_ok(&ann.subscribe("wall"));
    assert_ok(&nobody.publish("wall", "hello"));
    let heard = ann.receive();
    assert_eq!((&heard["data"], &heard["sender"]), (&json!("hello"), &json!("")), "A6");
}

// F20: the first definition of the file that matches decides.
#[test]
fn the_first_definition_in_the_file_decides() {
    let server = Server::start(
        "[pipe.\"team-closed\"]\npublic = true\n[pipe.\"team-{team}\"]\nsubscribe = true\n[pipe.\"team-late\"]\npublish = true\n",
    );
    let mut ann = Client::connect(server.address, &token("ann", &[("team-closed", "pub")]));
    assert_ok(&ann.subscribe("team-red"));
    // A7: `public` grants nothing.
    assert_forbidden(&ann.subscribe("team-closed"));
    assert_ok(&ann.subscribe("team-late"));
    assert_forbidden(&ann.publish("team-late", "x"));
    // What the token grants holds beside the definition.
    assert_ok(&ann.publish("team-closed", "x"));
}

// B25, §3 welcome
#[test]
fn the_welcome_says_who_one_is_and_what_one_may() {
    let server = Server::start("[edge]\nping_s = 17\n[limits]\nmessage_bytes = 4096\nsubscriptions = 9\n");
    let claims = json!({"sub": "ann", "name": "Ann \"A\" Ärm", "pipes": {"room-*": {"subscribe": true}}});
    let ann = connect(&server, claims);
    let welcome = &ann.welcome;
    assert_eq!(welcome["protocol"], 1);
    assert_eq!(welcome["user"], json!({"id": "ann", "name": "Ann \"A\" Ärm"}));
    assert_eq!(welcome["pipes"], json!({"room-*": {"subscribe": true, "publish": false, "presence": false}}));
    assert_eq!(welcome["ping_s"], 17);
    assert_eq!((&welcome["limits"]["message_bytes"], &welcome["limits"]["subscriptions"]), (&json!(4096), &json!(9)));
    assert!(welcome.get("expires_at").is_none() && welcome.get("pipes_truncated").is_none(), "{welcome}");
    let other = connect(&server, json!({"sub": "ann"}));
    assert_ne!(welcome["connection"], other.welcome["connection"]);
}

// HP-2: every one of some hundred grants of one token, right by right.
#[test]
fn hundreds_of_grants_in_one_token() {
    const GRANTS: usize = 330;
    let server = Server::start(&format!("[limits]\nsubscriptions = 400\n{NO_RATES}"));
    let rights = |number: usize| match number % 4 {
        0 => json!({"subscribe": true}),
        1 => json!({"publish": true}),
        2 => json!({"publish": true, "subscribe": true}),
        _ => json!({}),
    };
    let pipes: serde_json::Map<_, _> = (0..GRANTS).map(|number| (format!("g{number}"), rights(number))).collect();
    let mut ann = connect(&server, json!({"sub": "ann", "pipes": pipes}));
    assert_eq!(ann.welcome["pipes"].as_object().map(|pipes| pipes.len()), Some(GRANTS));
    for batch in [0..200, 200..GRANTS] {
        let names: Vec<String> = batch.clone().map(|number| format!("g{number}")).collect();
        let reply = ann.request(json!({"type": "subscribe", "pipes": names}));
        for number in batch {
            assert_eq!(reply["results"][format!("g{number}")]["ok"], number % 2 == 0, "subscribe g{number}");
        }
    }
    for number in 0..GRANTS {
        let reply = ann.publish(&format!("g{number}"), number.to_string());
        assert_eq!(reply["ok"], matches!(number % 4, 1 | 2), "publish g{number}");
        if number % 4 == 2 {
            ann.expect_event(&format!("g{number}"), number.to_string());
        }
    }
    assert!(ann.settle().is_empty());
}

// B25: the welcome lists a thousand, all of them count.
#[test]
fn over_a_thousand_grants_are_not_all_listed() {
    const GRANTS: usize = 1_050;
    let server = Server::start("");
    let mut pipes: serde_json::Map<_, _> = (0..GRANTS - 1).map(|number| (format!("{number:x}"), json!({}))).collect();
    pipes.insert("z".into(), json!({"subscribe": true}));
    let mut ann = connect(&server, json!({"sub": "a", "pipes": pipes}));
    assert_eq!(ann.welcome["pipes"].as_object().map(|pipes| pipes.len()), Some(1_000));
    assert_eq!(ann.welcome["pipes_truncated"], true);
    assert_ok(&ann.subscribe("z"));
    assert_forbidden(&ann.subscribe("0"));
}

// HP-2: a few thousand resolved grants on one connection, all subscribed through one pattern.
#[test]
fn thousands_of_subscriptions_through_one_pattern() {
    const PIPES: usize = 3_000;
    let server = Server::start(&format!("{WORKERS}[limits]\nsubscriptions = {PIPES}\n{NO_RATES}"));
    let mut ann = Client::connect(server.address, &token("ann", &[("room-*", "sub")]));
    let mut bob = Client::connect(server.address, &token("bob", &[("room-*", "pub")]));
    let names: Vec<String> = (0..PIPES).map(|number| format!("room-{number}")).collect();
    for batch in names.chunks(256) {
        let reply = ann.request(json!({"type": "subscribe", "pipes": batch}));
        let results = reply["results"].as_object().expect("results");
        assert_eq!(results.len(), batch.len());
        assert!(results.values().all(|one| one["ok"] == true), "{reply}");
    }
    assert_code(&ann.subscribe("room-more"), "TOO_MANY");
    for (number, name) in names.iter().enumerate().step_by(7) {
        bob.send(json!({"type": "publish", "pipe": name, "event": "e", "data": number}));
    }
    for (number, name) in names.iter().enumerate().step_by(7) {
        let heard = ann.receive();
        assert_eq!((&heard["pipe"], &heard["data"]), (&json!(name), &json!(number)));
    }
    // Every second one goes; the others keep what they are.
    let left: Vec<&String> = names.iter().skip(1).step_by(2).collect();
    for batch in left.chunks(256) {
        let reply = ann.request(json!({"type": "unsubscribe", "pipes": batch}));
        assert!(reply["results"].as_object().is_some_and(|all| all.values().all(|one| one["ok"] == true)), "{reply}");
    }
    for (number, name) in names.iter().enumerate() {
        bob.send(json!({"type": "publish", "pipe": name, "event": "e", "data": number}));
    }
    for (number, name) in names.iter().enumerate().step_by(2) {
        let heard = ann.receive();
        assert_eq!((&heard["pipe"], &heard["data"]), (&json!(name), &json!(number)));
    }
    assert_ok(&ann.subscribe("room-more"));
    assert!(ann.settle().is_empty());
}
