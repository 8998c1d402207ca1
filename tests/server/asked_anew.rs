//! Decisions of the application that a refresh, a reload or a revocation meets, live ones and such that are still being
//! asked for: it is asked again, what it said before counts for nothing (INVARIANTS 7, 11, C26, G2).

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Application, Client, NO_RATES, Reply, Server, assert_code, assert_forbidden, assert_ok, await_fault,
    one_on_each, sign, until,
};

fn config(rules: &str) -> String {
    format!("[edge]\nworkers = 2\n{AUDITED}[limits]\n{NO_RATES}{rules}")
}

fn server(rules: &str) -> Server {
    Server::start(&config(rules))
}

fn member(role: &str) -> String {
    sign(&json!({"sub": "ann", "role": role}).to_string())
}

#[track_caller]
fn refresh(client: &mut Client, token: &str) {
    assert_ok(&client.request(json!({"type": "refresh", "token": token})));
}

#[track_caller]
fn expect_unsubscribed(client: &mut Client, pipe: &str, reason: &str) {
    let told = client.expect_system("unsubscribed", pipe);
    assert_eq!(told["reason"], reason, "{told}");
}

fn publish(server: &Server, pipe: &str, data: u64) -> u64 {
    server.api.delivered("publish", json!({"pipe": pipe, "event": "e", "data": data, "count": true}))
}

/// A pipe whose subscribers the application chooses.
fn asking(application: &Application, timeout_ms: u32) -> String {
    let url = application.url("/rule");
    format!(
        "[pipe.\"room\"]\nsubscribe = {{ url = \"{url}\", timeout_ms = {timeout_ms} }}\npublish = true\npublic = true\n"
    )
}

// C26, SR-6: the application is asked again for what is live; it ends with a no or without an answer.
#[test]
fn a_refresh_asks_again() {
    let application = Application::start(|_| Reply::allow(true));
    let server = server(&asking(&application, 400));
    let mut ann = Client::connect(server.address, &member("admin"));
    assert_ok(&ann.subscribe("room"));
    refresh(&mut ann, &member("member"));
    let asked = application.call(1).json();
    assert_eq!((&asked["kind"], &asked["user"]["role"]), (&json!("subscribe"), &json!("member")), "{asked}");
    assert_eq!(publish(&server, "room", 1), 1);
    ann.expect_event("room", 1);
    application.script(|_| Reply::allow(false));
    refresh(&mut ann, &member("guest"));
    expect_unsubscribed(&mut ann, "room", "refresh");
    assert_eq!(publish(&server, "room", 2), 0);
    assert_forbidden(&ann.subscribe("room"));
    for wrong in [Reply::Held, Reply::HangUp, Reply::Status(503, "{}".into())] {
        application.script(|_| Reply::allow(true));
        assert_ok(&ann.subscribe("room"));
        application.script(move |_| wrong.clone());
        refresh(&mut ann, &member("guest"));
        expect_unsubscribed(&mut ann, "room", "refresh");
        assert_eq!(publish(&server, "room", 3), 0);
    }
    await_fault(&server, "pipe.\"room\".subscribe");
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// G2: the same at a reload, on every worker; one that is allowed again is not disturbed.
#[test]
fn a_reload_asks_again() {
    let application = Application::start(|_| Reply::allow(true));
    let rules = asking(&application, 60_000);
    let server = server(&rules);
    let mut anns = one_on_each(server.address, 2, &member("member"));
    let mut root = Client::connect(server.address, &sign(r#"{"sub":"root","role":"admin"}"#));
    for client in anns.iter_mut().chain([&mut root]) {
        assert_ok(&client.subscribe("room"));
    }
    let before = application.heard().len();
    application.script(|call| Reply::allow(call.json()["user"]["id"] == "root"));
    assert!(server.reload(&config(&format!("{rules}[pipe.\"more\"]\n"))));
    for client in &mut anns {
        expect_unsubscribed(client, "room", "reload");
    }
    application.await_calls(before + 3);
    until("only one is left", || publish(&server, "room", 1) == 1);
    root.expect_event("room", 1);
    assert_eq!(root.settle().iter().filter(|one| one["type"] != "event").count(), 0);
}

// INVARIANTS 7: an answer to what somebody was before the refresh counts for nothing; it is asked again.
#[test]
fn a_refresh_while_it_is_asked() {
    let application = Application::holding();
    let server = server(&asking(&application, 60_000));
    let mut ann = Client::connect(server.address, &member("admin"));
    ann.send(json!({"type": "subscribe", "pipe": "room", "id": "s"}));
    assert_eq!(application.call(0).json()["user"]["role"], "admin");
    refresh(&mut ann, &member("guest"));
    application.answer(0, Reply::allow(true));
    assert_eq!(application.call(1).json()["user"]["role"], "guest");
    assert_eq!(publish(&server, "room", 1), 0);
    application.answer(1, Reply::allow(false));
    assert_forbidden(&ann.reply(&json!("s")));
    // The other way round: what was refused to the one before is the new one's to get.
    ann.send(json!({"type": "subscribe", "pipe": "room", "id": "t"}));
    application.call(2);
    refresh(&mut ann, &member("admin"));
    application.answer(2, Reply::allow(false));
    application.answer(3, Reply::allow(true));
    assert_ok(&ann.reply(&json!("t")));
    assert_eq!(publish(&server, "room", 2), 1);
}

// INVARIANTS 7, A4, D3: revoked while it is asked is revoked, whatever is answered.
#[test]
fn a_revocation_while_it_is_asked() {
    let application = Application::holding();
    let server = server(&asking(&application, 60_000));
    let mut anns = one_on_each(server.address, 2, &member("member"));
    for (number, ann) in anns.iter_mut().enumerate() {
        ann.send(json!({"type": "subscribe", "pipe": "room", "id": "s"}));
        application.call(number);
    }
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    for (number, ann) in anns.iter_mut().enumerate() {
        ann.expect_system("pipe_revoked", "room");
        application.answer(number, Reply::allow(true));
        assert_code(&ann.reply(&json!("s")), "REVOKED");
    }
    assert_eq!(publish(&server, "room", 1), 0);
    assert_eq!(application.heard().len(), 2, "there is nothing to ask about");
    server.api.done("restore", json!({"user": "ann"}));
    application.script(|_| Reply::allow(true));
    for ann in &mut anns {
        ann.settle();
        assert_ok(&ann.subscribe("room"));
    }
}

// G2: the rule that is in force when the answer comes decides.
#[test]
fn a_reload_while_it_is_asked() {
    let application = Application::holding();
    let rules = asking(&application, 60_000);
    let server = server(&rules);
    let mut ann = Client::connect(server.address, &member("member"));
    ann.send(json!({"type": "subscribe", "pipe": "room", "id": "s"}));
    application.call(0);
    assert!(server.reload(&config("[pipe.\"room\"]\nsubscribe = \"user.role == 'admin'\"\n")));
    let mut probe = Client::connect(server.address, &member("admin"));
    until("the reload is in force", || probe.subscribe("room")["ok"] == true);
    application.answer(0, Reply::allow(true));
    assert_forbidden(&ann.reply(&json!("s")));
    assert_eq!(publish(&server, "room", 1), 1);
    assert_eq!(application.heard().len(), 1);
}

// A live subscription that is asked about anew can be ended by its client, and revoked, like any other.
#[test]
fn what_is_asked_about_anew_can_end_otherwise() {
    let application = Application::start(|_| Reply::allow(true));
    let server = server(&asking(&application, 60_000));
    let mut ann = Client::connect(server.address, &member("member"));
    assert_ok(&ann.subscribe("room"));
    application.script(|_| Reply::Held);
    ann.send(json!({"type": "refresh", "token": member("member"), "id": "r"}));
    application.call(1);
    // A second refresh asks anew, about the newest identity; the older answer is nobody's.
    ann.send(json!({"type": "refresh", "token": member("guest"), "id": "s"}));
    assert_eq!(ann.settle(), [] as [Value; 0]);
    application.answer(1, Reply::allow(false));
    assert_eq!(application.call(2).json()["user"]["role"], "guest");
    assert_eq!(ann.settle(), [] as [Value; 0]);
    ann.send(json!({"type": "unsubscribe", "pipe": "room", "id": "u"}));
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    ann.expect_system("pipe_revoked", "room");
    assert_eq!(publish(&server, "room", 1), 0);
    application.answer(2, Reply::allow(true));
    assert_code(&ann.reply(&json!("u")), "NOT_SUBSCRIBED");
    assert_ok(&ann.reply(&json!("r")));
    assert_ok(&ann.reply(&json!("s")));
    assert_eq!(publish(&server, "room", 2), 0);
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

/// A pipe whose subscribers the application chooses, and of whose events one is for admins.
fn asking_with_events(application: &Application, events: &[&str]) -> String {
    let tables = events.iter().map(|event| match *event {
        "log" => "[pipe.\"room\".event.log]\nsubscribe = \"user.role == 'admin'\"\n".to_owned(),
        "own" => "[pipe.\"room\".event.own]\nfilter = \"event.data == user.role\"\n".to_owned(),
        open => format!("[pipe.\"room\".event.{open}]\n"),
    });
    format!("{}{}", asking(application, 60_000), tables.collect::<String>())
}

fn count(server: &Server, event: &str, data: impl Into<Value>) -> u64 {
    let data: Value = data.into();
    server.api.delivered("publish", json!({"pipe": "room", "event": event, "data": data, "count": true}))
}

// RK-4, F10: a remembered yes of the application brings all that it brought the first time.
#[test]
fn who_subscribes_again_sees_what_it_saw() {
    let application = Application::start(|_| Reply::allow(true));
    let server = server(&asking_with_events(&application, &["log", "own", "message"]));
    let mut root = Client::connect(server.address, &member("admin"));
    let subscribe = |events: Value| json!({"type": "subscribe", "pipe": "room", "events": events});
    for round in 0..3 {
        assert_ok(&root.subscribe("room"));
        assert_eq!(
            (count(&server, "log", round), count(&server, "own", "admin"), count(&server, "message", 1)),
            (1, 1, 1)
        );
        assert_ok(&root.request(subscribe(json!(["log"]))));
        assert_eq!((count(&server, "log", round), count(&server, "message", 1)), (1, 0));
        assert_ok(&root.request(json!({"type": "unsubscribe", "pipe": "room"})));
    }
    let mut ann = Client::connect(server.address, &member("member"));
    for _ in 0..2 {
        assert_ok(&ann.subscribe("room"));
        assert_eq!((count(&server, "log", 1), count(&server, "own", "admin"), count(&server, "message", 1)), (0, 0, 1));
        assert_forbidden(&ann.request(subscribe(json!(["log"]))));
    }
}

// RK-4, INVARIANTS 3, 11: until the application has answered, nothing is sent by what somebody was or by older rules.
#[test]
fn events_of_a_subscription_that_is_asked_about_anew() {
    let application = Application::start(|_| Reply::allow(true));
    let server = server(&asking_with_events(&application, &["log", "own", "message"]));
    let mut ann = Client::connect(server.address, &member("admin"));
    assert_ok(&ann.subscribe("room"));
    assert_eq!((count(&server, "log", 1), count(&server, "own", "admin")), (1, 1));
    application.script(|_| Reply::Held);
    ann.send(json!({"type": "refresh", "token": member("member"), "id": "r"}));
    application.call(1);
    assert_eq!((count(&server, "log", 2), count(&server, "own", "admin"), count(&server, "message", 2)), (0, 0, 0));
    application.answer(1, Reply::allow(true));
    assert_ok(&ann.reply(&json!("r")));
    until("it is decided", || count(&server, "own", "member") == 1);
    assert_eq!((count(&server, "log", 3), count(&server, "message", 3)), (0, 1));
    // In another order: the numbers of the events are others now.
    assert!(server.reload(&config(&asking_with_events(&application, &["message", "own", "log"]))));
    application.call(2);
    assert_eq!((count(&server, "log", 4), count(&server, "message", 4)), (0, 0));
    application.answer(2, Reply::allow(true));
    until("it is decided", || count(&server, "own", "member") == 1);
    assert_eq!((count(&server, "log", 5), count(&server, "message", 5)), (0, 1));
    let heard = ann.settle();
    let logs = heard.iter().filter(|one| one["event"] == "log").count();
    let messages: Vec<&Value> = heard.iter().filter(|one| one["event"] == "message").map(|one| &one["data"]).collect();
    assert_eq!(messages, [2, 3, 4, 5], "what came while it was asked is not lost");
    assert_eq!((logs, heard.iter().any(|one| one["type"] == "system")), (1, false), "{heard:?}");
}

// INVARIANTS 7: whoever changes again and again while it is asked is not asked about for ever.
#[test]
fn asking_anew_has_an_end() {
    let application = Application::holding();
    let server = server(&asking(&application, 60_000));
    let mut ann = Client::connect(server.address, &member("member"));
    ann.send(json!({"type": "subscribe", "pipe": "room", "id": "s"}));
    for number in 0..4 {
        application.call(number);
        refresh(&mut ann, &member(&format!("role-{number}")));
        application.answer(number, Reply::allow(true));
    }
    assert_code(&ann.reply(&json!("s")), "UNAVAILABLE");
    assert_eq!((application.heard().len(), publish(&server, "room", 1)), (4, 0));
    ann.send(json!({"type": "subscribe", "pipe": "room", "id": "t"}));
    application.answer(4, Reply::allow(true));
    assert_ok(&ann.reply(&json!("t")));
}

// C37: more subscriptions than may be asked about at once have their turn, each.
#[test]
fn many_subscriptions_are_asked_about_in_turn() {
    let application = Application::start(|_| Reply::allow(true));
    let url = application.url("/rule");
    let server = server(&format!("[pipe.\"room-{{x}}\"]\nsubscribe = {{ url = \"{url}\", timeout_ms = 60000 }}\n"));
    let mut ann = Client::connect(server.address, &member("admin"));
    for number in 0..150 {
        assert_ok(&ann.subscribe(&format!("room-{number}")));
    }
    application
        .script(|call| Reply::allow(call.json()["pipe"].as_str().is_some_and(|pipe| pipe.ends_with(['0', '5']))));
    refresh(&mut ann, &member("member"));
    let mut ended = 0;
    while ended < 120 {
        let told = ann.receive();
        assert_eq!((&told["event"], &told["reason"]), (&json!("unsubscribed"), &json!("refresh")), "{told}");
        ended += 1;
    }
    until("all are decided", || server.api.list("/v1/stats")["total"]["subscriptions"] == 30);
    assert_eq!((application.heard().len(), ann.settle()), (300, vec![]));
    assert_eq!((publish(&server, "room-5", 1), publish(&server, "room-6", 1)), (1, 0));
}

// C26: the right to see who is there is asked about anew as well, by itself.
#[test]
fn a_watcher_is_asked_about_anew() {
    let application = Application::start(|_| Reply::allow(true));
    let url = application.url("/rule");
    let rule = format!("{{ url = \"{url}\", timeout_ms = 60000 }}");
    let server = server(&format!("[pipe.\"room\"]\nsubscribe = {rule}\npresence = {rule}\n"));
    let mut ann = Client::connect(server.address, &member("admin"));
    assert_ok(&ann.request(json!({"type": "subscribe", "pipe": "room", "presence": true})));
    let mut bob = Client::connect(server.address, &sign(r#"{"sub":"bob"}"#));
    assert_ok(&bob.subscribe("room"));
    assert_eq!(ann.receive()["joined"][0]["user"], "bob");
    application.script(|call| Reply::allow(call.json()["kind"] == "subscribe"));
    let before = application.heard().len();
    refresh(&mut ann, &member("member"));
    let asked = application.await_calls(before + 2);
    assert_eq!(
        (asked[before].json()["kind"].clone(), asked[before + 1].json()["kind"].clone()),
        (json!("subscribe"), json!("presence"))
    );
    assert_forbidden(&ann.request(json!({"type": "presence", "pipe": "room"})));
    bob.close();
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(publish(&server, "room", 1), 1);
    ann.expect_event("room", 1);
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// C26, A4: an answer that holds for a time holds no longer than what it was asked about, and never against a revocation.
#[test]
fn a_kept_answer_ends_with_a_refresh() {
    let application = Application::start(|_| Reply::allow(true));
    let url = application.url("/rule");
    let server =
        server(&format!("[pipe.\"room\"]\npublish = {{ url = \"{url}\", timeout_ms = 60000, cache_s = 3600 }}\n"));
    let mut ann = Client::connect(server.address, &member("admin"));
    for _ in 0..3 {
        assert_ok(&ann.publish("room", 1));
    }
    assert_eq!(application.heard().len(), 1);
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    ann.expect_system("pipe_revoked", "room");
    assert_code(&ann.publish("room", 2), "REVOKED");
    server.api.done("restore", json!({"user": "ann"}));
    ann.expect_system("pipe_restored", "room");
    assert_ok(&ann.publish("room", 3));
    application.script(|_| Reply::allow(false));
    refresh(&mut ann, &member("member"));
    assert_forbidden(&ann.publish("room", 4));
}
