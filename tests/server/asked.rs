//! Rules and guards that are the application's to decide: awaited, and until the answer is there nothing is allowed (SR-6,
//! A11); whatever is not a clear yes refuses (RK-6); messages of one pipe keep their order, other pipes go on.

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Application, Client, Heard, NO_RATES, Reply, Request, Server, assert_code, assert_forbidden, assert_ok,
    await_fault, sign, until,
};

fn server(rules: &str) -> Server {
    Server::start(&format!("[edge]\nworkers = 2\n{AUDITED}[limits]\n{NO_RATES}{rules}"))
}

#[track_caller]
fn connect(server: &Server, user: &str) -> Client {
    Client::connect(server.address, &sign(&json!({"sub": user, "role": "member"}).to_string()))
}

/// `{ url = … }` with a time-out that no test reaches, and these further keys.
fn url(application: &Application, further: &str) -> String {
    format!("{{ url = \"{}\", timeout_ms = 60000, {further} }}", application.url("/rule"))
}

/// A pipe `room-{x}` of which all three rights are the application's.
fn asking(application: &Application, further: &str) -> String {
    let url = url(application, further);
    format!("[pipe.\"room-{{x}}\"]\nsubscribe = {url}\npublish = {url}\npresence = {url}\n")
}

fn presence(client: &mut Client, pipe: &str) -> Value {
    client.request(json!({"type": "presence", "pipe": pipe}))
}

// A11, A12, INVARIANTS 31: what the application is told, signed, under a delivery of its own.
#[test]
fn the_application_is_told_who_asks_for_what() {
    let application = Application::start(|call| Reply::allow(call.json()["kind"] != "presence"));
    let server = server(&asking(&application, "secret = \"a secret of the rule\""));
    let claims = json!({"sub": "ann", "name": "Ann", "role": "member", "tenant": "acme", "features": ["chat"], "info": {"a": 1}});
    let mut ann = Client::connect(server.address, &sign(&claims.to_string()));
    assert_ok(&ann.subscribe("room-7"));
    let event = json!({"type": "publish", "pipe": "room-7", "event": "news", "data": {"n": [1, 2]}});
    assert_ok(&ann.request(event));
    assert_forbidden(&presence(&mut ann, "room-7"));
    let calls = application.heard();
    let user = json!({"id": "ann", "name": "Ann", "role": "member", "roles": ["member"], "tenant": "acme", "features": ["chat"],
                      "info": {"a": 1}});
    for (call, kind) in calls.iter().zip(["subscribe", "publish", "presence"]) {
        call.assert_signed("a secret of the rule");
        assert_eq!((&*call.method, &*call.path), ("POST", "/rule"));
        assert_eq!(call.header("content-type"), Some("application/json"));
        let body = call.json();
        assert_eq!(
            (&body["kind"], &body["pipe"], &body["params"]),
            (&json!(kind), &json!("room-7"), &json!({"x": "7"}))
        );
        assert_eq!((&body["user"], &body["ip"], &body["context"]), (&user, &json!("127.0.0.1"), &json!({})), "{body}");
        assert_eq!(body["connection"], ann.name());
        let event = if kind == "publish" { json!({"name": "news", "data": {"n": [1, 2]}}) } else { Value::Null };
        assert_eq!(body.get("event").cloned().unwrap_or_default(), event, "{body}");
        assert!(body.get("guard").is_none() && body.get("args").is_none(), "{body}");
    }
    let mut deliveries: Vec<String> = calls.iter().map(|call| call.json()["delivery"].to_string()).collect();
    deliveries.sort();
    deliveries.dedup();
    assert_eq!((calls.len(), deliveries.len()), (3, 3));
}

// INVARIANTS 26: names and data are passed on as they came, whatever stands in them, inside one JSON object.
#[test]
fn what_a_client_names_stays_a_value() {
    let application = Application::start(|_| Reply::allow(true));
    let server = server(&asking(&application, ""));
    let mut ann = connect(&server, "ann");
    let data = r#"{"n":12345678901234567890123,"e": 1e400 ,"user":{"id":"root"},"\u0000":"\"}"}"#;
    ann.send_text(format!(r#"{{"type":"publish","pipe":"room-\",\\","event":"\"}}","data":{data},"id":1}}"#));
    assert_ok(&ann.reply(&json!(1)));
    let call = application.call(0);
    assert!(call.body.contains(data), "{}", call.body);
    // `1e400` is JSON, though not every reader's.
    let body: Value = serde_json::from_str(&call.body.replace("1e400", "1")).expect("JSON");
    assert_eq!((&body["pipe"], &body["params"]["x"]), (&json!("room-\",\\"), &json!("\",\\")));
    assert_eq!((&body["event"]["name"], &body["user"]["id"]), (&json!("\"}"), &json!("ann")));
}

// B21
#[test]
fn of_an_anonymous_connection_the_user_is_null() {
    let application = Application::start(|call| Reply::allow(call.json()["user"] == Value::Null));
    let server = server(&format!("[auth]\nanonymous = true\n{}", asking(&application, "")));
    let mut nobody = Client::with(server.address, &Request::upgrade());
    assert_ok(&nobody.subscribe("room-1"));
    assert_forbidden(&connect(&server, "ann").subscribe("room-1"));
}

// F3: a grant stands in for the rule, so that nobody is asked; an exact name decides alone.
#[test]
fn a_grant_is_not_asked_about() {
    let application = Application::start(|_| Reply::allow(false));
    let server = server(&asking(&application, ""));
    let granted = json!({"sub": "ann", "pipes": {"room-1": {"subscribe": true}, "room-*": {"publish": true}}});
    let mut ann = Client::connect(server.address, &sign(&granted.to_string()));
    assert_ok(&ann.subscribe("room-1"));
    assert_ok(&ann.publish("room-2", 1));
    assert_eq!(application.heard().len(), 0);
    assert_forbidden(&ann.subscribe("room-2"));
    assert_forbidden(&ann.publish("room-1", 1));
    assert_eq!(application.heard().len(), 2);
}

// SR-6: no data and no right before the answer, and nothing of what was published meanwhile.
#[test]
fn until_it_answers_nothing_is_allowed() {
    let application = Application::holding();
    let server = server(&asking(&application, ""));
    let mut ann = connect(&server, "ann");
    ann.send(json!({"type": "subscribe", "pipe": "room-1", "id": 1}));
    application.call(0);
    let publish = |data: u64| {
        server.api.delivered("publish", json!({"pipe": "room-1", "event": "e", "data": data, "count": true}))
    };
    assert_eq!(publish(1), 0);
    ann.expect_nothing();
    application.answer(0, Reply::allow(true));
    assert_ok(&ann.reply(&json!(1)));
    assert_eq!(publish(2), 1);
    ann.expect_event("room-1", 2);
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// RK-6, F6: anything else than a clear yes refuses; a plain no is no fault, the others are on record with their place.
#[test]
fn only_a_clear_yes_allows() {
    let application = Application::start(|_| Reply::allow(true));
    let rule = format!("{{ url = \"{}\", timeout_ms = 400 }}", application.url("/rule"));
    let server = server(&format!("[pipe.\"room-{{x}}\"]\nsubscribe = {rule}\npublish = {rule}\npresence = {rule}\n"));
    let mut ann = connect(&server, "ann");
    for plain in [json!({"allow": false}), json!({"allow": false, "context": {"a": 1}, "more": 1})] {
        application.script(move |_| Reply::json(plain.clone()));
        assert_forbidden(&ann.subscribe("room-1"));
    }
    assert_eq!(server.counter("answers_failed"), 0);
    let wrong = [
        Reply::json(json!({"allow": "true"})),
        Reply::json(json!({"allow": 1})),
        Reply::json(json!({"allow": null})),
        Reply::json(json!({})),
        Reply::json(json!(true)),
        Reply::json(json!(null)),
        Reply::json(json!([{"allow": true}])),
        Reply::json(json!({"Allow": true})),
        Reply::json(json!({"allow": true, "context": 5})),
        Reply::Status(200, r#"{"allow":true,"allow":false}"#.into()),
        Reply::Status(200, r#"{"allow":true} "#.to_owned() + "x"),
        Reply::Status(200, String::new()),
        Reply::Status(200, format!(r#"{{"allow":true,"x":"{}"}}"#, "y".repeat(1 << 20))),
        Reply::Status(201, r#"{"allow":true}"#.into()),
        Reply::Status(204, String::new()),
        Reply::Status(403, r#"{"allow":true}"#.into()),
        Reply::Status(500, r#"{"allow":true}"#.into()),
        Reply::Bytes(
            b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
        ),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\nConnection: close\r\n\r\n{\"allow\":true}".to_vec()),
        Reply::Bytes(b"no HTTP at all\r\n\r\n".to_vec()),
        Reply::HangUp,
        Reply::Held,
    ];
    for reply in &wrong {
        let scripted = reply.clone();
        application.script(move |call| {
            assert_eq!(call.path, "/rule", "redirects are not followed");
            scripted.clone()
        });
        let replies = [ann.subscribe("room-1"), ann.publish("room-1", 1), presence(&mut ann, "room-1")];
        for refusal in replies {
            assert_eq!(
                (&refusal["code"], &refusal["error"]),
                (&json!("FORBIDDEN"), &json!("Access denied")),
                "{reply:?}"
            );
        }
    }
    drop(application);
    assert_forbidden(&ann.subscribe("room-1"));
    assert_eq!(server.counter("answers_failed"), 3 * wrong.len() as u64 + 1);
    for right in ["subscribe", "publish", "presence"] {
        let record = await_fault(&server, &format!("pipe.\"room-{{x}}\".{right}"));
        assert_eq!((&record["user"], &record["pipe"]), (&json!("ann"), &json!("room-1")), "{record}");
    }
    server.api.done("publish", json!({"pipe": "room-1", "event": "e", "data": 1}));
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// INVARIANTS 7: what is about one pipe keeps its order behind what is awaited; everything else goes on.
#[test]
fn one_pipe_waits_and_the_others_go_on() {
    let application = Application::holding();
    let rules = format!(
        "{}[pipe.\"hall\"]\nsubscribe = true\npublish = true\npublic = true\n[pipe.\"watched\"]\nsubscribe = true\npublish = {}\n",
        asking(&application, ""),
        url(&application, "")
    );
    let server = server(&rules);
    let mut ann = connect(&server, "ann");
    let mut bob = connect(&server, "bob");
    assert_ok(&bob.subscribe("watched"));
    assert_ok(&ann.subscribe("hall"));
    for number in 0..4 {
        let message =
            json!({"type": "publish", "pipe": "watched", "event": "e", "data": number, "id": format!("p{number}")});
        ann.send(message);
    }
    ann.send(json!({"type": "subscribe", "pipe": "watched", "id": "s"}));
    ann.send(json!({"type": "unsubscribe", "pipes": ["watched", "hall"], "id": "u"}));
    application.call(0);
    // `hall` is in the batch behind them; what is about neither goes on, and so do the others.
    assert_forbidden(&ann.subscribe("nosuch"));
    assert_ok(&bob.publish("hall", 1));
    ann.expect_event("hall", 1);
    ann.expect_nothing();
    assert_eq!(application.heard().len(), 1, "one after the other");
    for number in 0..4 {
        // The second is refused.
        application.answer(number, Reply::allow(number != 1));
        let reply = ann.reply(&json!(format!("p{number}")));
        if number == 1 { assert_forbidden(&reply) } else { assert_ok(&reply) }
    }
    assert_ok(&ann.reply(&json!("s")));
    let batch = ann.reply(&json!("u"));
    assert_ok(&batch["results"]["watched"]);
    assert_ok(&batch["results"]["hall"]);
    for number in [0, 2, 3] {
        bob.expect_event("watched", number);
    }
    assert_eq!((bob.settle(), ann.settle()), (vec![], vec![]));
}

// C37: 64 at once for one connection, messages that wait behind them included; others have their own.
#[test]
fn too_much_at_once_is_refused() {
    let application = Application::holding();
    let server = server(&asking(&application, ""));
    let mut ann = connect(&server, "ann");
    for number in 0..70 {
        ann.send(json!({"type": "subscribe", "pipe": format!("room-{number}"), "id": number}));
    }
    for number in 64..70 {
        assert_code(&ann.reply(&json!(number)), "TOO_MANY");
    }
    application.await_calls(64);
    assert_code(&presence(&mut ann, "room-x"), "TOO_MANY");
    assert_eq!(ann.request(json!({"type": "ping"}))["type"], "pong");
    let mut bob = connect(&server, "bob");
    bob.send(json!({"type": "subscribe", "pipe": "room-0", "id": 1}));
    application.call(64);
    application.answer(64, Reply::allow(true));
    assert_ok(&bob.reply(&json!(1)));
    for number in 0..64 {
        application.answer(number, Reply::allow(true));
        let pipe = application.call(number).json()["pipe"].as_str().expect("a name").to_owned();
        let id: u64 = pipe.trim_start_matches("room-").parse().expect("a number");
        assert_ok(&ann.reply(&json!(id)));
    }
    ann.send(json!({"type": "subscribe", "pipe": "room-64", "id": "again"}));
    application.answer(65, Reply::allow(true));
    assert_ok(&ann.reply(&json!("again")));
    // In a batch those that could be asked are answered, the others are too many (C7).
    application.script(|_| Reply::allow(true));
    let pipes: Vec<String> = (100..170).map(|number| format!("room-{number}")).collect();
    let reply = ann.request(json!({"type": "subscribe", "pipes": pipes}));
    let results = reply["results"].as_object().expect("results");
    let with = |code: &str| results.values().filter(|one| one["code"] == code).count();
    assert_eq!((results.len(), with("TOO_MANY")), (70, 6), "{reply}");
    assert_eq!(results.values().filter(|one| one["ok"] == true).count(), 64, "{reply}");
}

// Many on one pipe wait in line, up to a bound.
#[test]
fn the_line_behind_an_awaited_message_is_bounded() {
    let application = Application::holding();
    let server = server(&asking(&application, ""));
    let mut ann = connect(&server, "ann");
    for number in 0..80 {
        ann.send(json!({"type": "publish", "pipe": "room-1", "event": "e", "data": number, "id": number}));
    }
    for number in 64..80 {
        assert_code(&ann.reply(&json!(number)), "TOO_MANY");
    }
    assert_eq!(application.await_calls(1).len(), 1);
    application.script(|_| Reply::allow(true));
    application.answer(0, Reply::allow(true));
    for number in 0..64 {
        assert_ok(&ann.reply(&json!(number)));
    }
    assert_eq!(application.heard().len(), 64);
}

// A11, F10: without `cache_s` an answer to subscribe and presence holds until a refresh, one to a publish for the message.
#[test]
fn how_long_an_answer_holds() {
    let application = Application::start(|call| Reply::allow(call.json()["pipe"] != "room-no"));
    let server = server(&asking(&application, ""));
    let mut ann = connect(&server, "ann");
    let asked = || application.heard().len();
    for _ in 0..3 {
        assert_ok(&ann.subscribe("room-1"));
        assert_ok(&ann.request(json!({"type": "unsubscribe", "pipe": "room-1"})));
    }
    assert_eq!(asked(), 1);
    assert_ok(&ann.subscribe("room-2"));
    assert_eq!(asked(), 2);
    for number in 3..6 {
        assert_ok(&ann.publish("room-1", number));
        assert_eq!(asked(), number);
    }
    // A refusal is never remembered, and nobody else's answer counts.
    for number in 6..9 {
        assert_forbidden(&ann.subscribe("room-no"));
        assert_eq!(asked(), number);
    }
    assert_ok(&connect(&server, "bob").subscribe("room-1"));
    assert_ok(&connect(&server, "ann").subscribe("room-1"));
    assert_eq!(asked(), 10);
}

// `cache_s`: for so long, for this connection and pipe, whatever the message.
#[test]
fn a_stated_time_is_kept() {
    let application = Application::start(|_| Reply::allow(true));
    let server = server(&asking(&application, "cache_s = 2"));
    let mut ann = connect(&server, "ann");
    let asked = || application.heard().len();
    let began = std::time::Instant::now();
    for number in 0..5 {
        assert_ok(&ann.publish("room-1", number));
    }
    let in_time = began.elapsed().as_millis() < 1_900;
    assert!(asked() == 1 || !in_time, "{}", asked());
    assert_ok(&ann.publish("room-2", 1));
    assert_ok(&connect(&server, "ann").publish("room-1", 1));
    assert!(asked() >= 3, "another pipe and another connection");
    application.script(|_| Reply::allow(false));
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    assert_forbidden(&ann.publish("room-1", 1));
    assert_forbidden(&ann.subscribe("room-1"));
}

/// Guards before a pipe: an expression, the application under a name, and a rule that goes by what it has said.
fn guarded(application: &Application) -> String {
    format!(
        "[[guard]]\nset = {{ before = \"user.id\" }}\n[[guard]]\nrequire = \"user.id != 'eve'\"\ncode = \"NOT_EVE\"\n\
         [[guard]]\nname = \"plan\"\nurl = \"{url}\"\ntimeout_ms = 400\ncode = \"NO_PLAN\"\nmessage = \"buy one\"\n\
         [pipe.\"room-{{x}}\"]\nguard = [ {{ require = \"ctx.plan == 'pro'\", code = \"NOT_PRO\" }}, {{ name = \"own\", url = \"{url}\" }} ]\n\
         subscribe = \"ctx.seats > 3 && ctx.before == 'changed'\"\npublish = true\npublic = true\n",
        url = application.url("/guard")
    )
}

fn plan(call: &Heard) -> Reply {
    let body = call.json();
    Reply::json(match (body["guard"].as_str(), body["user"]["id"].as_str()) {
        (Some("plan"), Some("free")) => json!({"allow": false, "context": {"plan": "pro"}}),
        (Some("plan"), Some("basic")) => json!({"allow": true, "context": {"plan": "basic"}}),
        (Some("plan"), _) => json!({"allow": true, "context": {"plan": "pro", "before": "changed"}}),
        (Some("own"), Some("few")) => json!({"allow": true, "context": {"seats": 1}}),
        _ => json!({"allow": true, "context": {"seats": 4}}),
    })
}

// SR-10, A11, F11: in order; what they answer is seen by whatever comes later; after a refusal nobody is asked.
#[test]
fn a_guard_may_ask() {
    let application = Application::start(plan);
    let server = server(&guarded(&application));
    for (user, code, calls) in [
        ("eve", "NOT_EVE", 0),
        ("free", "NO_PLAN", 1),
        ("basic", "NOT_PRO", 1),
        ("few", "FORBIDDEN", 2),
        ("ann", "", 2),
    ] {
        let before = application.heard().len();
        let reply = connect(&server, user).subscribe("room-1");
        if code.is_empty() {
            assert_ok(&reply)
        } else {
            assert_code(&reply, code)
        }
        assert_eq!(reply["error"] == "buy one", code == "NO_PLAN", "{reply}");
        let heard = application.heard();
        assert_eq!(heard.len() - before, calls, "{user}: {heard:?}");
        if calls == 2 {
            let context = |at: usize| heard[before + at].json()["context"].clone();
            assert_eq!(context(0), json!({"before": user}));
            assert_eq!(context(1), json!({"before": "changed", "plan": "pro"}));
            assert_eq!(heard[before].json()["kind"], "subscribe");
        }
    }
    // Its own code is for a no; a guard without an answer is a fault.
    for wrong in [
        Reply::HangUp,
        Reply::Held,
        Reply::Status(500, String::new()),
        Reply::json(json!({"allow": true, "context": []})),
    ] {
        application.script(move |_| wrong.clone());
        assert_forbidden(&connect(&server, "ann").publish("room-1", 1));
    }
    await_fault(&server, "guard");
}

// A11: what a rule's answer brings is seen by the events' rules and filters, as what guards bring is; a no brings nothing.
#[test]
fn a_rules_context_is_seen_by_the_events() {
    let application = Application::start(|call| {
        let context = json!({"log": call.json()["user"]["id"] == "root", "floor": 3});
        Reply::json(json!({"allow": true, "context": context}))
    });
    let rule = url(&application, "");
    let server = server(&format!(
        "[pipe.\"room\"]\nsubscribe = {rule}\n[pipe.\"room\".event.log]\nsubscribe = \"ctx.log\"\n\
         [pipe.\"room\".event.noise]\nfilter = \"event.data == ctx.floor\"\n[pipe.\"room\".event.end]\n"
    ));
    let mut clients = [connect(&server, "root"), connect(&server, "ann")];
    for client in &mut clients {
        assert_ok(&client.subscribe("room"));
    }
    let count = |event: &str, data: u64| {
        server.api.delivered("publish", json!({"pipe": "room", "event": event, "data": data, "count": true}))
    };
    assert_eq!((count("log", 1), count("noise", 3), count("noise", 4), count("end", 5)), (1, 2, 0, 2));
    for (client, expected) in clients.iter_mut().zip([&[1, 3, 5][..], &[3, 5]]) {
        expected.iter().for_each(|number| client.expect_event("room", *number));
    }
}

// The application is slow or gone: whoever does not need it is untouched; the connection itself can go, too.
#[test]
fn whoever_does_not_ask_does_not_wait() {
    let application = Application::holding();
    let server = server(&format!(
        "{}[pipe.\"hall\"]\nsubscribe = true\npublish = true\npublic = true\n",
        asking(&application, "")
    ));
    let mut waiting = connect(&server, "ann");
    for number in 0..10 {
        waiting.send(json!({"type": "subscribe", "pipe": format!("room-{number}"), "id": number}));
    }
    application.await_calls(10);
    let mut bob = connect(&server, "bob");
    assert_ok(&bob.subscribe("hall"));
    for number in 0..100 {
        assert_ok(&bob.publish("hall", number));
        bob.expect_event("hall", number);
    }
    // Gone while it is awaited: the answers find nobody, and nothing is left of it.
    waiting.raw.reset();
    until("it is gone", || server.api.list("/v1/connections")["connections"].as_array().map(Vec::len) == Some(1));
    (0..10).for_each(|number| application.answer(number, Reply::allow(true)));
    until("the answers are dropped", || server.counter("stale") >= 10);
    assert_ok(&bob.publish("hall", 100));
    let stats = server.api.list("/v1/stats");
    assert_eq!(stats["total"]["subscriptions"], 1, "{stats}");
}
