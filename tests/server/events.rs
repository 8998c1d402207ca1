//! Rights and filters of single events: who is never sent one although subscribed, who may send one, whom a filter leaves
//! out (RK-4, RK-7, SR-7).

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Client, NO_RATES, Server, assert_forbidden, assert_ok, await_fault, one_on_each, rights, sign, until,
};

fn server(workers: usize, rules: &str) -> Server {
    Server::start(&config(workers, rules))
}

fn config(workers: usize, rules: &str) -> String {
    format!("[edge]\nworkers = {workers}\n{AUDITED}[limits]\n{NO_RATES}{rules}")
}

fn member(user: &str, role: &str) -> String {
    sign(&json!({"sub": user, "role": role}).to_string())
}

#[track_caller]
fn send(client: &mut Client, pipe: &str, event: &str, data: impl Into<Value>) -> Value {
    client.request(json!({"type": "publish", "pipe": pipe, "event": event, "data": data.into()}))
}

/// The names and data of all events that are due.
#[track_caller]
fn heard(client: &mut Client) -> Vec<(String, Value)> {
    let events = client.settle().into_iter().filter(|one| one["type"] == "event");
    events.map(|one| (one["event"].as_str().expect("a name").to_owned(), one["data"].clone())).collect()
}

const ROOM: &str = r#"
[pipe."room-{room}"]
subscribe = "has(user.id)"
publish = "user.role in ['member', 'admin']"
[pipe."room-{room}".event.message]
[pipe."room-{room}".event.moderationLog]
subscribe = "user.role == 'admin'"
publish = false
[pipe."room-{room}".event.report]
subscribe = "user.role == 'admin'"
publish = true
[pipe."room-{room}".event.hidden]
subscribe = false
"#;

// RK-4: whoever may not see an event is never sent it, whoever publishes and on whatever worker they are.
#[test]
fn an_event_is_sent_only_to_those_who_may_see_it() {
    for workers in [1, 2, 4] {
        let server = server(workers, ROOM);
        let mut members = one_on_each(server.address, workers, &member("ann", "member"));
        let mut admins = one_on_each(server.address, workers, &member("root", "admin"));
        for client in members.iter_mut().chain(&mut admins) {
            assert_ok(&client.subscribe("room-1"));
        }
        let publish = |event: &str, data: u64| {
            let body = json!({"pipe": "room-1", "event": event, "data": data, "count": true});
            server.api.delivered("publish", body)
        };
        // E7
        assert_eq!(publish("moderationLog", 1), workers as u64);
        assert_eq!(publish("hidden", 2), 0);
        assert_eq!(publish("message", 3), 2 * workers as u64);
        for (number, member) in members.iter_mut().enumerate() {
            assert_ok(&send(member, "room-1", "report", 10 + number as u64));
            assert_ok(&send(member, "room-1", "message", 20 + number as u64));
        }
        for client in &mut members {
            let events = await_last(client, "message", 20, workers);
            assert!(events.iter().all(|(event, _)| event == "message"), "{events:?}");
            assert_eq!(events.len(), 1 + workers, "{events:?}");
        }
        for client in &mut admins {
            let events = await_last(client, "message", 20, workers);
            let count = |name: &str| events.iter().filter(|(event, _)| event == name).count();
            assert_eq!((count("moderationLog"), count("report"), count("hidden")), (1, workers, 0), "{events:?}");
        }
    }
}

/// Everything up to the last of `count` events of this name with numbers from `first` on.
#[track_caller]
fn await_last(client: &mut Client, name: &str, first: u64, count: usize) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    until("the last event", || {
        all.extend(heard(client));
        (0..count as u64).all(|number| all.contains(&(name.to_owned(), json!(first + number))))
    });
    all
}

// C16, A13: the event's rule to publish stands in for the pipe's, to narrow and to widen; what is not defined is refused.
#[test]
fn an_events_own_right_to_publish_decides() {
    let server = server(2, ROOM);
    let mut root = Client::connect(server.address, &member("root", "admin"));
    assert_ok(&root.subscribe("room-1"));
    let mut guest = Client::connect(server.address, &member("guest", "guest"));
    let mut ann = Client::connect(server.address, &member("ann", "member"));
    for _ in 0..2 {
        assert_ok(&send(&mut guest, "room-1", "report", 1));
        assert_forbidden(&send(&mut guest, "room-1", "message", 2));
        assert_ok(&send(&mut ann, "room-1", "message", 3));
        for client in [&mut ann, &mut root, &mut guest] {
            assert_forbidden(&send(client, "room-1", "moderationLog", 4));
            assert_forbidden(&send(client, "room-1", "undefined", 5));
            assert_forbidden(&send(client, "room-1", "Message", 6));
        }
    }
    let expected = [("report", 1), ("message", 3), ("report", 1), ("message", 3)];
    let expected: Vec<(String, Value)> = expected.iter().map(|(name, data)| ((*name).into(), json!(data))).collect();
    let mut all = Vec::new();
    until("all that was allowed", || {
        all.extend(heard(&mut root));
        all.len() >= expected.len()
    });
    // Between two senders there is no order.
    let of = |all: &[(String, Value)], name: &str| -> Vec<Value> {
        all.iter().filter(|(own, _)| own == name).map(|(_, data)| data.clone()).collect()
    };
    for name in ["report", "message"] {
        assert_eq!(of(&all, name), of(&expected, name));
    }
    assert_eq!(all.len(), expected.len());
    assert_eq!(heard(&mut root), []);
}

// RK-7: the application decides; the log names each event that its definition lacks, once in a while.
#[test]
fn each_undefined_event_of_the_application_is_logged() {
    let server = server(1, "[pipe.\"room-{x}\"]\n[pipe.\"room-{x}\".event.known]\n[pipe.\"open-{x}\"]\n");
    for pipe in ["room-1", "room-2", "open-1"] {
        for event in ["known", "one", "other", "one"] {
            server.api.done("publish", json!({"pipe": pipe, "event": event, "data": "PRIVATE"}));
        }
    }
    server.log_line("\"other\"");
    let lines: Vec<String> = server.log().into_iter().filter(|line| line.contains("is not defined there")).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("room-{x}") && !line.contains("PRIVATE")), "{lines:#?}");
}

// A13: a definition without events leaves their names open; one with events is closed but for explicit grants.
#[test]
fn undefined_events_need_an_open_definition_or_a_grant() {
    let server = server(
        2,
        "[pipe.\"open\"]\nsubscribe = true\npublish = true\npublic = true\n\
                            [pipe.\"closed\"]\nsubscribe = true\npublish = true\npublic = true\n[pipe.\"closed\".event.known]\n",
    );
    let mut ann = Client::connect(server.address, &sign(&json!({"sub": "ann"}).to_string()));
    let granted = |right: &str| sign(&json!({"sub": "ben", "pipes": {"closed": rights(right)}}).to_string());
    let mut ben = Client::connect(server.address, &granted("sub,pub"));
    let mut cat = Client::connect(server.address, &granted("sub"));
    assert_ok(&send(&mut ann, "open", "whatever", 1));
    for client in [&mut ann, &mut ben, &mut cat] {
        assert_ok(&send(client, "closed", "known", 1));
    }
    // Also after the pipe itself was allowed and remembered.
    assert_ok(&ann.subscribe("closed"));
    for _ in 0..2 {
        assert_ok(&send(&mut ann, "closed", "known", 1));
        assert_forbidden(&send(&mut ann, "closed", "whatever", 2));
        assert_forbidden(&send(&mut cat, "closed", "whatever", 3));
        assert_ok(&send(&mut ben, "closed", "whatever", 4));
    }
    // RK-7: the application's is warned about and still published.
    server.api.done("publish", json!({"pipe": "closed", "event": "whatever", "data": 5}));
    until("the application's event", || heard(&mut ann).contains(&("whatever".into(), json!(5))));
    let line = server.log_line("WARN");
    assert!(line.contains("whatever") && line.contains("closed"), "{line}");
}

// A14: an explicit grant stands in for the pipe's rule and for nothing of the event's.
#[test]
fn a_grant_does_not_open_an_event() {
    let server = server(2, ROOM);
    let all = json!({"room-1": rights("sub,pub,presence"), "**": rights("sub,pub,presence")});
    let mut ann =
        Client::connect(server.address, &sign(&json!({"sub": "ann", "role": "guest", "pipes": all}).to_string()));
    assert_ok(&ann.subscribe("room-1"));
    assert_ok(&send(&mut ann, "room-1", "message", 1));
    assert_ok(&send(&mut ann, "room-1", "report", 2));
    for _ in 0..2 {
        assert_forbidden(&send(&mut ann, "room-1", "moderationLog", 3));
    }
    server.api.done("publish", json!({"pipe": "room-1", "event": "moderationLog", "data": 4}));
    server.api.done("publish", json!({"pipe": "room-1", "event": "message", "data": 5}));
    ann.expect_event("room-1", 1);
    ann.expect_event("room-1", 5);
    assert_eq!(heard(&mut ann), []);
}

// C10, C11: naming an event that may not be seen refuses the whole and changes nothing.
#[test]
fn naming_an_unseen_event_is_refused() {
    let server = server(2, ROOM);
    let mut ann = Client::connect(server.address, &member("ann", "member"));
    let subscribe = |events: Value| json!({"type": "subscribe", "pipe": "room-1", "events": events});
    for events in [json!(["moderationLog"]), json!(["message", "hidden"]), json!(["report", "message"])] {
        assert_forbidden(&ann.request(subscribe(events)));
    }
    server.api.done("publish", json!({"pipe": "room-1", "event": "message", "data": 1}));
    assert_eq!(ann.request(json!({"type": "unsubscribe", "pipe": "room-1"}))["code"], "NOT_SUBSCRIBED");
    assert_ok(&ann.request(subscribe(json!(["message", "undefined"]))));
    // The subscription that stands goes on as it was.
    assert_forbidden(&ann.request(subscribe(json!(["moderationLog"]))));
    for event in ["moderationLog", "undefined", "other", "message"] {
        server.api.done("publish", json!({"pipe": "room-1", "event": event, "data": 2}));
    }
    let expected: Vec<(String, Value)> = vec![("undefined".into(), json!(2)), ("message".into(), json!(2))];
    let mut all = Vec::new();
    until("what was named", || {
        all.extend(heard(&mut ann));
        all.len() >= 2
    });
    assert_eq!(all, expected);
}

// RK-6: an event whose rule fails is not sent; the rest of the pipe is.
#[test]
fn an_event_rule_that_fails_denies_the_event() {
    let server = server(
        2,
        "[pipe.\"room\"]\nsubscribe = true\npublish = true\npublic = true\n\
         [pipe.\"room\".event.a]\nsubscribe = \"user.team == 'x'\"\npublish = \"user.info.may\"\n[pipe.\"room\".event.b]\n",
    );
    let mut ann = Client::connect(server.address, &sign(r#"{"sub":"ann","info":{"may":"yes"}}"#));
    assert_ok(&ann.subscribe("room"));
    await_fault(&server, "pipe.\"room\".event.a.subscribe");
    assert_forbidden(&send(&mut ann, "room", "a", 1));
    await_fault(&server, "pipe.\"room\".event.a.publish");
    server.api.done("publish", json!({"pipe": "room", "event": "a", "data": 2}));
    assert_ok(&send(&mut ann, "room", "b", 3));
    ann.expect_event("room", 3);
    assert_eq!(heard(&mut ann), []);
}

// RK-4, C26, G2: who may see an event changes with a refresh and with a reload, and the subscription goes on.
#[test]
fn what_may_be_seen_changes_while_subscribed() {
    let server = server(2, ROOM);
    let mut clients = one_on_each(server.address, 2, &member("ann", "member"));
    let log = |data: u64| {
        let body = json!({"pipe": "room-1", "event": "moderationLog", "data": data, "count": true});
        server.api.delivered("publish", body)
    };
    for client in &mut clients {
        assert_ok(&client.subscribe("room-1"));
    }
    log(1);
    for client in &mut clients {
        assert_ok(&client.request(json!({"type": "refresh", "token": member("ann", "admin")})));
    }
    log(2);
    for client in &mut clients {
        client.expect_event("room-1", 2);
        assert_ok(&client.request(json!({"type": "refresh", "token": member("ann", "member")})));
    }
    log(3);
    assert!(server.reload(&config(2, &ROOM.replace("subscribe = false", "subscribe = true"))));
    let hidden = |data: u64| server.api.done("publish", json!({"pipe": "room-1", "event": "hidden", "data": data}));
    for client in &mut clients {
        until("the reload is in force", || {
            hidden(4);
            let events = heard(client);
            assert!(events.iter().all(|one| *one == ("hidden".into(), json!(4))), "{events:?}");
            !events.is_empty()
        });
    }
    assert!(server.reload(&config(2, ROOM)));
    for client in &mut clients {
        until("the reload is in force", || {
            client.settle();
            hidden(5);
            server.api.done("publish", json!({"pipe": "room-1", "event": "message", "data": 6}));
            let mut events = heard(client);
            until("the message", || {
                events.extend(heard(client));
                events.contains(&("message".into(), json!(6)))
            });
            !events.contains(&("hidden".into(), json!(5)))
        });
    }
}

// A4: an event's own right that is remembered does not outlive the pipe's revocation.
#[test]
fn a_revocation_ends_an_events_own_right() {
    let server = server(2, ROOM);
    let mut clients = one_on_each(server.address, 2, &member("ann", "guest"));
    let mut root = Client::connect(server.address, &member("root", "admin"));
    assert_ok(&root.subscribe("room-1"));
    for client in &mut clients {
        assert_ok(&send(client, "room-1", "report", 1));
        assert_ok(&send(client, "room-1", "report", 2));
    }
    server.api.done("revoke", json!({"user": "ann", "pipe": "room-*"}));
    for client in &mut clients {
        assert_eq!(send(client, "room-1", "report", 3)["code"], "REVOKED");
    }
    server.api.done("restore", json!({"user": "ann"}));
    for client in &mut clients {
        assert_ok(&send(client, "room-1", "report", 4));
    }
    let mut numbers = Vec::new();
    until("all that was allowed", || {
        numbers.extend(heard(&mut root).into_iter().map(|(_, data)| data));
        numbers.len() >= 6
    });
    assert!(!numbers.contains(&json!(3)), "{numbers:?}");
}
