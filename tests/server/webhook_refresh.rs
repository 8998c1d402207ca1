//! Refresh by the webhook: asked again for who is connected; grants follow, nobody becomes anybody else, and what was
//! asked before a revocation brings nothing back.

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Application, Client, Launch, Message, Raw, Reply, Request, Server, assert_code, assert_forbidden,
    assert_ok, assert_system, records, rights, sign, token, unix_ms, until,
};

const SIGNED_WITH: &str = "secret-of-the-calls-of-the-tests";

fn configured(application: &Application, webhook: &str, rest: &str) -> Launch {
    let url = application.url("/authorize");
    let webhook = format!("[auth.webhook]\nurl = \"{url}\"\nsecret = \"{SIGNED_WITH}\"\n{webhook}\n");
    let limits = "[limits]\nrefresh = { per_s = 0 }\n";
    Launch::new(&format!("[edge]\nworkers = 2\n{webhook}{AUDITED}{limits}{rest}"))
}

fn server(application: &Application, webhook: &str, rest: &str) -> Server {
    configured(application, webhook, rest).without_token_key().start()
}

fn answer(user: Value, pipes: Value) -> Reply {
    Reply::json(json!({"user": user, "pipes": pipes}))
}

fn ann() -> Value {
    json!({"id": "ann", "tenant": "acme", "org": "left"})
}

fn room() -> Value {
    json!({"room": rights("sub,pub")})
}

fn refresh(client: &mut Client) -> Value {
    client.request(json!({"type": "refresh"}))
}

/// An application that answers with `room` at connect, and a client that is subscribed to it.
fn in_the_room(webhook: &str, rest: &str) -> (Application, Server, Client) {
    let application = Application::start(|_| answer(ann(), room()));
    let server = server(&application, webhook, rest);
    let mut client = Client::with(server.address, &Request::upgrade());
    assert_ok(&client.subscribe("room"));
    (application, server, client)
}

// HP-7, C23, C25, B17, INVARIANTS 31: asked with what the handshake came with; what is not granted any more ends.
#[test]
fn grants_follow_the_answer() {
    let application = Application::start(|_| {
        answer(ann(), json!({"room": rights("sub,pub"), "hall": rights("sub"), "den-*": rights("sub,pub")}))
    });
    let server = server(&application, "", "");
    let request = Request::upgrade().target("/v1/connect?from=here").header("Cookie", "c=1").token("theirs");
    let mut client = Client::with(server.address, &request);
    for pipe in ["room", "hall", "den-1"] {
        assert_ok(&client.subscribe(pipe));
    }
    let expires_at = unix_ms() + 3_600_000;
    application.script(move |_| {
        let user = json!({"id": "ann", "tenant": "acme", "org": "left", "name": "Ann"});
        let pipes = json!({"room": rights("sub"), "new": rights("pub")});
        Reply::json(json!({"user": user, "pipes": pipes, "expires_at": expires_at}))
    });
    client.send(json!({"type": "refresh", "id": "r"}));
    let mut ended: Vec<Value> = (0..2).map(|_| client.receive()).collect();
    ended.sort_by_key(|one| one["pipe"].to_string());
    for (one, pipe) in ended.iter().zip(["den-1", "hall"]) {
        assert_system(one, "unsubscribed");
        assert_eq!((&one["pipe"], &one["reason"]), (&json!(pipe), &json!("refresh")), "{one}");
    }
    let pipes = json!({"room": rights("sub"), "new": rights("pub")});
    let told = client.receive();
    assert_system(&told, "grants_changed");
    assert_eq!(told["pipes"], pipes, "{told}");
    let reply = client.receive();
    assert_eq!((&reply["id"], &reply["ok"]), (&json!("r"), &json!(true)), "{reply}");
    assert_eq!((&reply["pipes"], &reply["expires_at"]), (&pipes, &json!(expires_at)), "{reply}");
    assert_forbidden(&client.publish("room", 1));
    assert_forbidden(&client.subscribe("den-1"));
    assert_ok(&client.publish("new", 1));
    server.api.done("publish", json!({"pipe": "room", "event": "e", "data": 1}));
    client.expect_event("room", 1);
    let calls = application.heard();
    assert_eq!(calls.len(), 2);
    calls[1].assert_signed(SIGNED_WITH);
    let (first, mut asked) = (calls[0].json(), calls[1].json());
    assert_ne!(first["delivery"], asked["delivery"]);
    asked["delivery"] = Value::Null;
    let expected = json!({
        "kind": "refresh", "delivery": null, "connection": client.name(), "ip": "127.0.0.1",
        "user": {"id": "ann", "roles": [], "tenant": "acme", "org": "left"},
        "headers": {"cookie": "c=1", "authorization": "Bearer theirs"}, "query": {"from": "here"}
    });
    assert_eq!(asked, expected);
    // C25: the same once more changes nothing and says so only in the reply.
    let reply = refresh(&mut client);
    assert_eq!((&reply["ok"], &reply["pipes"]), (&json!(true), &pipes), "{reply}");
    assert_eq!(client.settle(), [] as [Value; 0]);
}

// C24, B18: a no ends the connection.
#[test]
fn a_refusal_closes() {
    let past = json!({"user": ann(), "pipes": room(), "expires_at": unix_ms() - 1});
    for (reply, code) in [
        (Reply::Status(200, "null".to_owned()), 4401),
        (Reply::Status(401, "{}".to_owned()), 4401),
        (Reply::Status(403, "{}".to_owned()), 4403),
        (Reply::json(past), 4401),
    ] {
        let (application, server, mut client) = in_the_room("", "");
        application.script(move |_| reply.clone());
        client.send(json!({"type": "refresh", "id": 1}));
        client.expect_close(code);
        let count = json!({"pipe": "room", "event": "e", "data": 1, "count": true});
        assert_eq!(server.api.delivered("publish", count), 0);
    }
}

// C24: trouble on the way to an answer leaves everything as it was, and is on record.
#[test]
fn trouble_leaves_everything_as_it_was() {
    let (application, server, mut client) = in_the_room("timeout_ms = 500", "");
    for reply in [
        Reply::Status(500, String::new()),
        Reply::Status(503, json!({"user": ann(), "pipes": {}}).to_string()),
        Reply::Status(200, "{}".to_owned()),
        Reply::Status(200, String::new()),
        Reply::Status(204, String::new()),
        Reply::Status(302, String::new()),
        Reply::Status(400, String::new()),
        Reply::Status(200, json!({"user": ann(), "pipes": []}).to_string()),
        Reply::Status(200, json!({"user": {"id": 5}}).to_string()),
        Reply::HangUp,
    ] {
        application.script(move |_| reply.clone());
        assert_code(&refresh(&mut client), "UNAVAILABLE");
    }
    application.script(|_| Reply::Held);
    let asked = application.heard().len();
    assert_code(&refresh(&mut client), "TIMEOUT");
    // What comes after that is nobody's.
    application.answer(asked, answer(ann(), json!({})));
    assert_ok(&client.publish("room", 1));
    client.expect_event("room", 1);
    let address = application.address;
    drop(application);
    assert_code(&refresh(&mut client), "UNAVAILABLE");
    let _back = Application::start_at(address, |_| answer(ann(), room()));
    assert_ok(&refresh(&mut client));
    assert_eq!(client.settle(), [] as [Value; 0]);
    until("it is on record", || !records(&server, "internal_error").is_empty());
}

// GD-2, INVARIANTS 30: whoever else the answer is about, it changes nobody: it closes.
#[test]
fn an_answer_about_somebody_else_closes() {
    for other in [
        json!({"id": "root", "tenant": "acme", "org": "left"}),
        json!({"id": "Ann", "tenant": "acme", "org": "left"}),
        json!({"id": "ann", "tenant": "globex", "org": "left"}),
        json!({"id": "ann", "tenant": "acme", "org": "right"}),
        json!({"id": "ann", "org": "left"}),
        json!({"id": "ann", "tenant": "acme"}),
        json!({"id": "ann"}),
    ] {
        let (application, _server, mut client) = in_the_room("", "");
        application.script(move |_| answer(other.clone(), json!({"**": rights("sub,pub")})));
        client.send(json!({"type": "refresh", "id": 1}));
        client.expect_close(4403);
    }
    // What was absent and is present now is another as well.
    let application = Application::start(|_| answer(json!({"id": "ann"}), room()));
    let server = server(&application, "", "");
    for other in [json!({"id": "ann", "tenant": "acme"}), json!({"id": "ann", "org": "left"})] {
        application.script(|_| answer(json!({"id": "ann"}), room()));
        let mut client = Client::with(server.address, &Request::upgrade());
        application.script(move |_| answer(other.clone(), room()));
        client.send(json!({"type": "refresh"}));
        client.expect_close(4403);
    }
}

// C26: roles, team, features and info may change; what a rule had allowed is decided again.
#[test]
fn rules_see_who_they_are_now() {
    let who = |role: &str, team: &str, feature: &str, plan: &str| {
        json!({
            "id": "ann", "role": role, "team": team, "features": [feature], "info": {"plan": plan}
        })
    };
    let first = who("admin", "red", "chat", "pro");
    let application = Application::start(move |_| answer(first.clone(), json!({})));
    let rules = "[pipe.\"role\"]\nsubscribe = \"user.role == 'admin'\"\npublish = \"user.role == 'admin'\"\n\
                 [pipe.\"team-{team}\"]\nsubscribe = \"team()\"\n[pipe.\"chat\"]\nsubscribe = \"'chat' in user.features\"\n\
                 [pipe.\"pro\"]\nsubscribe = \"user.info.plan == 'pro'\"\n[pipe.\"all\"]\nsubscribe = true\npublic = true\n";
    let server = server(&application, "", rules);
    let mut client = Client::with(server.address, &Request::upgrade());
    let pipes = ["role", "team-red", "chat", "pro", "all"];
    for pipe in pipes {
        assert_ok(&client.subscribe(pipe));
    }
    assert_ok(&client.publish("role", 1));
    client.expect_event("role", 1);
    let second = who("member", "blue", "games", "free");
    application.script(move |_| answer(second.clone(), json!({})));
    assert_ok(&refresh(&mut client));
    let mut ended: Vec<String> = client
        .settle()
        .iter()
        .map(|one| {
            assert_system(one, "unsubscribed");
            assert_eq!(one["reason"], "refresh", "{one}");
            one["pipe"].as_str().expect("a pipe").to_owned()
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, ["chat", "pro", "role", "team-red"]);
    assert_forbidden(&client.publish("role", 2));
    assert_ok(&client.subscribe("team-blue"));
    for pipe in pipes {
        server.api.done("publish", json!({"pipe": pipe, "event": "e", "data": pipe}));
    }
    client.expect_event("all", "all");
    assert_eq!(client.settle(), [] as [Value; 0]);
}

// C23, GD-2, B17: who came with a token of ours may be asked about as well, as who that token said; the token in the query
// is not passed on.
#[test]
fn who_came_with_a_token_is_asked_about_too() {
    let application = Application::start(|_| answer(json!({"id": "tess"}), json!({"hall": rights("sub")})));
    let server = configured(&application, "", "").start();
    let target = format!("/v1/connect?a=1&token={}", token("tess", &[("room", "sub")]));
    let mut client = Client::with(server.address, &Request::upgrade().target(&target).header("Cookie", "c=1"));
    assert_ok(&client.subscribe("room"));
    assert!(application.heard().is_empty(), "a token is asked nobody about");
    let reply = refresh(&mut client);
    assert_eq!((&reply["ok"], &reply["pipes"]), (&json!(true), &json!({"hall": rights("sub")})), "{reply}");
    client.expect_system("unsubscribed", "room");
    let asked = application.call(0).json();
    assert_eq!((&asked["kind"], &asked["user"]["id"]), (&json!("refresh"), &json!("tess")));
    assert_eq!((&asked["headers"], &asked["query"]), (&json!({"cookie": "c=1"}), &json!({"a": "1"})));
    // A token is still ours: it is verified here.
    assert_code(&client.request(json!({"type": "refresh", "token": "x"})), "UNAUTHENTICATED");
    assert_eq!(application.heard().len(), 1);
    // GD-2
    application.script(|_| answer(json!({"id": "tess", "tenant": "acme"}), json!({"**": rights("sub")})));
    client.send(json!({"type": "refresh"}));
    client.expect_close(4403);
}

// A3: without token keys a newer token is the application's to judge.
#[test]
fn a_token_that_is_not_ours_is_passed_on() {
    let (application, _server, mut client) = in_the_room("", "");
    assert_ok(&client.request(json!({"type": "refresh", "token": "newer"})));
    assert_eq!(application.call(1).json()["headers"]["authorization"], "Bearer newer");
    let server = server(&application, "", "");
    let mut client = Client::with(server.address, &Request::upgrade().target("/v1/connect?token=older&a=1"));
    assert_ok(&client.request(json!({"type": "refresh", "token": "newer"})));
    let asked = application.call(3).json();
    assert_eq!(asked["headers"], json!({"authorization": "Bearer newer"}), "{asked}");
    assert_eq!(asked["query"], json!({"token": "newer", "a": "1"}), "the older one does not stand beside it");
    // It stays with the connection.
    assert_ok(&refresh(&mut client));
    assert_eq!(application.call(4).json()["headers"], json!({"authorization": "Bearer newer"}));
}

// C2: one at a time; nothing else waits for it.
#[test]
fn a_second_refresh_is_refused_while_one_is_under_way() {
    let (application, _server, mut client) = in_the_room("timeout_ms = 20000", "");
    application.script(|_| Reply::Held);
    client.send(json!({"type": "refresh", "id": "first"}));
    application.await_calls(2);
    for _ in 0..3 {
        assert_code(&refresh(&mut client), "RATE_LIMITED");
    }
    assert_ok(&client.publish("room", 1));
    client.expect_event("room", 1);
    application.answer(1, answer(ann(), json!({"room": rights("sub")})));
    assert_ok(&client.reply(&json!("first")));
    assert_forbidden(&client.publish("room", 2));
    assert_eq!(application.heard().len(), 2);
}

// HP-7: without an `id` nobody is told, but it is done.
#[test]
fn a_refresh_without_an_id_is_done_all_the_same() {
    let (application, _server, mut client) = in_the_room("", "");
    application.script(|_| answer(ann(), json!({})));
    client.send(json!({"type": "refresh"}));
    client.expect_system("unsubscribed", "room");
    assert_system(&client.receive(), "grants_changed");
    assert_eq!(client.settle(), [] as [Value; 0]);
}

// §4, D8, INVARIANTS 7: what was asked before the revocation is asked once more, and the revocation holds in any case.
#[test]
fn an_answer_from_before_a_revocation_brings_nothing_back() {
    let (application, server, mut client) = in_the_room("timeout_ms = 20000", "");
    application.script(|_| Reply::Held);
    client.send(json!({"type": "refresh", "id": "r"}));
    application.await_calls(2);
    assert_eq!(server.api.connections("revoke", json!({"user": "ann", "pipe": "room"})), 1);
    client.expect_system("pipe_revoked", "room");
    application.answer(1, answer(ann(), room()));
    let again = application.call(2).json();
    assert_eq!(again["kind"], "refresh");
    assert_ne!(again["delivery"], application.call(1).json()["delivery"]);
    application.answer(2, answer(ann(), json!({"room": rights("sub"), "hall": rights("sub")})));
    let reply = client.reply(&json!("r"));
    assert_eq!((&reply["ok"], &reply["pipes"]), (&json!(true), &json!({"hall": rights("sub")})), "{reply}");
    assert_code(&client.subscribe("room"), "REVOKED");
    let count = json!({"pipe": "room", "event": "e", "data": 1, "count": true});
    assert_eq!(server.api.delivered("publish", count), 0);
    assert_eq!(application.heard().len(), 3, "once more, not again and again");
}

// INVARIANTS 7: also where it has ended since; then the later answer holds, not the earlier one.
#[test]
fn a_revocation_that_is_over_still_has_it_asked_again() {
    let (application, server, mut client) = in_the_room("timeout_ms = 20000", "");
    application.script(|_| Reply::Held);
    client.send(json!({"type": "refresh", "id": "r"}));
    application.await_calls(2);
    server.api.done("revoke_all", json!({"user": "ann", "tenant": "acme"}));
    server.api.done("restore", json!({"user": "ann", "tenant": "acme"}));
    application.answer(1, answer(ann(), json!({"**": rights("sub")})));
    application.answer(2, answer(ann(), json!({"hall": rights("sub")})));
    let reply = client.reply(&json!("r"));
    assert_eq!(reply["pipes"], json!({"hall": rights("sub")}), "{reply}");
    assert_forbidden(&client.subscribe("room"));
    assert_eq!(application.heard().len(), 3);
}

// GD-6, D8: whose sessions are revoked while the answer is on its way does not come back by it.
#[test]
fn who_is_revoked_while_asked_is_closed() {
    let (application, server, mut client) = in_the_room("timeout_ms = 20000", "");
    application.script(|_| Reply::Held);
    client.send(json!({"type": "refresh", "id": "r"}));
    application.await_calls(2);
    assert_eq!(server.api.connections("revoke_tokens", json!({"user": "ann"})), 1);
    application.answer(1, answer(ann(), room()));
    client.expect_close(4402);
}

// D10, C22: an answer that names a revoked session changes nothing.
#[test]
fn an_answer_of_a_revoked_session_is_not_adopted() {
    let (application, server, mut client) = in_the_room("", "");
    server.api.done("revoke_tokens", json!({"session": "s2"}));
    application.script(|_| Reply::json(json!({"user": ann(), "session": "s2", "pipes": {"**": rights("sub")}})));
    assert_code(&refresh(&mut client), "REVOKED");
    assert_forbidden(&client.subscribe("hall"));
    assert_ok(&client.publish("room", 1));
}

// D4: authorize that is asked after it ends what holds until reauthorized; one that was asked before does not.
#[test]
fn a_later_answer_ends_what_holds_until_reauthorized() {
    let (application, server, mut client) = in_the_room("", "");
    server.api.done("revoke", json!({"user": "ann", "pipe": "room", "until": "reauthorized"}));
    client.expect_system("pipe_revoked", "room");
    assert_code(&client.subscribe("room"), "REVOKED");
    application.script(|_| answer(ann(), json!({})));
    assert_ok(&refresh(&mut client));
    assert_code(&client.subscribe("room"), "REVOKED");
    application.script(|_| answer(ann(), room()));
    let reply = refresh(&mut client);
    assert_eq!(reply["pipes"], room(), "{reply}");
    assert_ok(&client.subscribe("room"));
}

// GD-6, C29: the expiry of the answer holds, to either side.
#[test]
fn the_expiry_of_the_answer_holds() {
    let application = Application::start(|heard| {
        let in_ms = if heard.json()["kind"] == "connect" { 1_500 } else { 3_600_000 };
        Reply::json(json!({"user": {"id": "ann"}, "expires_at": unix_ms() + in_ms, "pipes": {"room": rights("sub")}}))
    });
    let server = server(&application, "", "");
    let mut prolonged = Client::with(server.address, &Request::upgrade());
    let kept = Client::with(server.address, &Request::upgrade());
    assert_ok(&refresh(&mut prolonged));
    kept.expect_close(4401);
    assert_ok(&prolonged.subscribe("room"));
    let end_ms = unix_ms() + 1_000;
    application.script(move |_| Reply::json(json!({"user": {"id": "ann"}, "expires_at": end_ms})));
    assert_ok(&refresh(&mut prolonged));
    prolonged.expect_close(4401);
    assert!(unix_ms() >= end_ms, "early");
}

// Whoever goes while it is asked about is gone; the answer is nobody's, least of all the next one's in that place.
#[test]
fn an_answer_for_who_has_gone_is_dropped() {
    let (application, server, mut client) = in_the_room("timeout_ms = 20000", "");
    application.script(|heard| if heard.json()["kind"] == "refresh" { Reply::Held } else { answer(ann(), room()) });
    client.send(json!({"type": "refresh", "id": 1}));
    application.await_calls(2);
    client.raw.reset();
    until("it is gone", || server.api.list("/v1/connections")["connections"] == json!([]));
    let mut next: Vec<Client> = (0..8).map(|_| Client::with(server.address, &Request::upgrade())).collect();
    application.answer(1, answer(ann(), json!({"**": rights("sub,pub")})));
    for client in &mut next {
        client.expect_nothing();
        assert_forbidden(&client.subscribe("hall"));
    }
}

// GD-3, C27: nobody stays nobody, also where a webhook could tell who it is.
#[test]
fn an_anonymous_connection_is_never_asked_about() {
    let application = Application::start(|_| answer(ann(), json!({"**": rights("sub,pub")})));
    let base = format!("[edge]\nworkers = 2\n[auth]\nanonymous = true\n{AUDITED}");
    let launch = Launch::new(&base);
    let server = launch.start();
    let connect = || Client::with(server.address, &Request::upgrade().header("Cookie", "session=of-ann"));
    let (mut nobody, mut other) = (connect(), connect());
    assert_eq!(nobody.welcome["user"], Value::Null);
    assert_code(&refresh(&mut nobody), "INVALID");
    assert!(
        server
            .reload(&format!("{base}[auth.webhook]\nurl = \"{}\"\nsecret = \"{SIGNED_WITH}\"\n", application.url("/")))
    );
    assert_code(&refresh(&mut nobody), "INVALID");
    assert_forbidden(&nobody.subscribe("room"));
    assert!(application.heard().is_empty(), "{:?}", application.heard());
    for client in [&mut nobody, &mut other] {
        client.send(json!({"type": "refresh", "token": sign(r#"{"sub":"ann","pipes":{}}"#), "id": 1}));
        match client.hear() {
            Message::Close(code, _) => assert_eq!(code, Some(4403)),
            heard => panic!("{heard:?}"),
        }
    }
}

// HP-7, D8: a storm of refreshes, revocations and restorations leaves what was said last.
#[test]
fn refreshes_and_revocations_at_once() {
    let (application, server, mut client) = in_the_room("", "");
    let mut waiting = Raw::connect(server.address);
    waiting.send("GET /v1/connect HTTP/1.1\r\n");
    for round in 0..10 {
        std::thread::scope(|scope| {
            scope.spawn(|| server.api.done("revoke", json!({"user": "ann", "pipe": "room"})));
            for _ in 0..5 {
                client.send(json!({"type": "refresh"}));
                client.send(json!({"type": "subscribe", "pipe": "room"}));
            }
        });
        // The last of them has its answer when no other is refused any more.
        until("no refresh is under way", || refresh(&mut client)["ok"] == true);
        assert_code(&client.subscribe("room"), "REVOKED");
        let count = json!({"pipe": "room", "event": "e", "data": round, "count": true});
        assert_eq!(server.api.delivered("publish", count), 0);
        server.api.done("restore", json!({"user": "ann"}));
        client.settle();
        assert_ok(&client.subscribe("room"));
    }
    assert!(application.heard().len() > 10);
}

// GD-6: nobody leaves a session by a refresh that names none.
#[test]
fn an_answer_without_a_session_leaves_the_one_of_the_handshake() {
    let application =
        Application::start(|_| Reply::json(json!({"user": ann(), "session": "s1", "token_id": "t1", "pipes": room()})));
    let server = server(&application, "", "");
    let mut client = Client::with(server.address, &Request::upgrade());
    application.script(|_| Reply::json(json!({"user": ann(), "token_id": "t2", "pipes": room()})));
    assert_ok(&refresh(&mut client));
    assert_eq!(server.api.done("revoke_tokens", json!({"token": "t1"}))["connections"], 0, "it has a newer one");
    assert_eq!(server.api.done("revoke_tokens", json!({"session": "s1"}))["connections"], 1);
    client.expect_close(4402);
}
