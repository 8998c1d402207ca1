//! The application speaks: to pipes, and to whoever is connected (HP-4, SR-12, SR-13, SR-15, D14, E5, E7, INVARIANTS 4).

use serde_json::{Value, json};

use crate::support::{Client, NO_RATES, Request, Server, assert_ok, one_on_each, sign, token, token_with, unix_ms};

fn server(workers: usize) -> Server {
    Server::start(&format!("[edge]\nworkers = {workers}\n[auth]\nanonymous = true\n[limits]\n{NO_RATES}"))
}

#[track_caller]
fn push(server: &Server, to: Value) -> u64 {
    server.api.delivered("push", json!({"to": to, "event": "greeting", "data": {"for": to}}))
}

/// The next message of each is this push, and of nobody else.
#[track_caller]
fn assert_reached(clients: &mut [Client], reached: &[usize], to: &Value) {
    for (place, client) in clients.iter_mut().enumerate() {
        let heard = client.settle();
        if !reached.contains(&place) {
            assert!(heard.is_empty(), "{place} heard {heard:?} for {to}");
            continue;
        }
        assert_eq!(heard.len(), 1, "{place} heard {heard:?} for {to}");
        assert_eq!((&heard[0]["type"], &heard[0]["event"]), (&json!("push"), &json!("greeting")), "{heard:?}");
        assert_eq!((&heard[0]["data"], &heard[0]["sender"]), (&json!({"for": to}), &Value::Null), "{heard:?}");
        let ts = heard[0]["ts"].as_u64().expect("a time");
        assert!(unix_ms().abs_diff(ts) < 60_000, "{heard:?}");
    }
}

fn every_shape(workers: usize) {
    let server = server(workers);
    let connect = |user: &str, claims: Value| Client::connect(server.address, &token_with(user, claims));
    let mut clients = vec![
        connect("ann", json!({"tenant": "red", "org": "left", "roles": ["admin", "member"], "sid": "s1"})),
        connect("ann", json!({"tenant": "red", "org": "left", "role": "member"})),
        connect("ann", json!({"tenant": "blue", "org": "left", "role": "admin"})),
        connect("ann", json!({})),
        connect("ben", json!({"tenant": "red", "role": "member"})),
        connect("ben", json!({"tenant": "blue", "org": "right"})),
        Client::with(server.address, &Request::upgrade()),
    ];
    let name = clients[4].name();
    let nobody = clients[6].name();
    let cases: [(Value, &[usize]); 12] = [
        (json!({"user": "ann"}), &[0, 1, 2, 3]),
        (json!({"user": "ann", "tenant": "red"}), &[0, 1]),
        (json!({"user": "ben", "tenant": "blue"}), &[5]),
        (json!({"connection": name}), &[4]),
        (json!({"connection": nobody}), &[6]),
        (json!({"role": "member"}), &[0, 1, 4]),
        (json!({"role": "admin"}), &[0, 2]),
        (json!({"role": "admin", "tenant": "blue"}), &[2]),
        (json!({"tenant": "red"}), &[0, 1, 4]),
        (json!({"tenant": "blue"}), &[2, 5]),
        (json!({"org": "left"}), &[0, 1, 2]),
        (json!({"org": "left", "tenant": "red"}), &[0, 1]),
    ];
    for (to, reached) in cases {
        assert_eq!(push(&server, to.clone()), reached.len() as u64, "{to}");
        assert_reached(&mut clients, reached, &to);
    }
    for to in [
        json!({"user": "nobody"}),
        json!({"user": "ann", "tenant": "green"}),
        json!({"role": "guest"}),
        json!({"tenant": "green"}),
        json!({"org": "middle"}),
        json!({"connection": "0-0-4000-1"}),
        json!({"connection": "nonsense"}),
        json!({"org": "right", "tenant": "red"}),
    ] {
        let call = json!({"to": to, "event": "greeting", "data": 1});
        server.api.call("push", call).assert_refused(404, "NOT_CONNECTED");
        assert_reached(&mut clients, &[], &to);
    }
}

// SR-12, SR-15
#[test]
fn every_shape_one_worker() {
    every_shape(1);
}

// SR-12, SR-15
#[test]
fn every_shape_two_workers() {
    every_shape(2);
}

// SR-12, SR-15
#[test]
fn every_shape_four_workers() {
    every_shape(4);
}

// SR-12
#[test]
fn a_user_is_reached_on_every_worker_and_no_longer_after_leaving() {
    let server = server(4);
    let mut hers = one_on_each(server.address, 4, &token("ann", &[]));
    while !hers.is_empty() {
        assert_eq!(push(&server, json!({"user": "ann"})), hers.len() as u64);
        hers.iter_mut().for_each(|client| assert_eq!(client.receive()["type"], "push"));
        hers.pop().expect("one").close();
        let open = hers.len() as u64;
        server.until_counter("open", open);
    }
    server
        .api
        .call("push", json!({"to": {"user": "ann"}, "event": "e", "data": 1}))
        .assert_refused(404, "NOT_CONNECTED");
}

// SR-12: `notify` does not wait, and says nothing about who was there.
#[test]
fn notify_is_answered_at_once() {
    let server = server(2);
    let mut hers = one_on_each(server.address, 2, &token("ann", &[]));
    for number in 0..20 {
        let answer = server.api.call("notify", json!({"to": {"user": "ann"}, "event": "e", "data": number}));
        assert_eq!((answer.status, &answer.json()["ok"]), (202, &json!(true)), "{answer:?}");
    }
    for client in &mut hers {
        for number in 0..20 {
            let heard = client.receive();
            assert_eq!((&heard["type"], &heard["data"]), (&json!("push"), &json!(number)), "{heard}");
        }
    }
    let answer = server.api.call("notify", json!({"to": {"user": "nobody"}, "event": "e", "data": 1}));
    assert_eq!(answer.status, 202, "{answer:?}");
}

// SR-13: what comes from a client is refused by default.
#[test]
fn a_client_pushes_to_nobody() {
    let server = server(1);
    let mut ann = Client::connect(server.address, &token_with("ann", json!({"role": "admin"})));
    let mut ben = Client::connect(server.address, &token_with("ben", json!({})));
    for to in [json!({"user": "ben"}), json!({"user": "ann"}), json!({"connection": ben.name()}), json!({"role": "x"})]
    {
        let reply = ann.request(json!({"type": "push", "to": to, "event": "e", "data": 1}));
        assert_eq!(reply["ok"], false, "{reply}");
    }
    assert_eq!(ben.settle(), [] as [Value; 0]);
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

/// HP-4, HP-5: the application publishes what no client may.
fn the_application_publishes(workers: usize) {
    let server = server(workers);
    let listener = token("ann", &[("news", "sub")]);
    let mut clients = one_on_each(server.address, workers, &listener);
    let mut choosy = Client::connect(server.address, &listener);
    let mut elsewhere = Client::connect(server.address, &token("ben", &[("old-news", "sub")]));
    clients.iter_mut().for_each(|client| assert_ok(&client.subscribe("news")));
    assert_ok(&choosy.request(json!({"type": "subscribe", "pipe": "news", "events": ["late"]})));
    assert_ok(&elsewhere.subscribe("old-news"));
    let call = |event: &str, further: Value| {
        let mut call = json!({"pipe": "news", "event": event, "data": [1.50, "é", null]});
        call.as_object_mut().expect("an object").extend(further.as_object().expect("an object").clone());
        server.api.done("publish", call)
    };
    let done = call("early", json!({"count": true}));
    assert_eq!(done["delivered"], workers, "E7: whoever does not want it does not count");
    assert_eq!(call("late", json!({"count": true, "sender": "ben"}))["delivered"], workers + 1);
    assert_eq!(call("early", json!({})).get("delivered"), None);
    for client in &mut clients {
        for (event, sender) in [("early", Value::Null), ("late", json!("ben")), ("early", Value::Null)] {
            let heard = client.receive();
            assert_eq!((&heard["type"], &heard["pipe"]), (&json!("event"), &json!("news")), "{heard}");
            assert_eq!((&heard["event"], &heard["sender"]), (&json!(event), &sender), "{heard}");
            assert_eq!(heard["data"], json!([1.50, "é", null]), "{heard}");
        }
    }
    assert_eq!(choosy.receive()["event"], "late");
    assert_eq!(elsewhere.settle(), [] as [Value; 0]);
    assert_eq!(choosy.settle(), [] as [Value; 0]);
    let nobody = json!({"pipe": "unheard-of", "event": "e", "data": 1, "count": true});
    assert_eq!(server.api.delivered("publish", nobody), 0);
}

#[test]
fn the_application_publishes_one_worker() {
    the_application_publishes(1);
}

#[test]
fn the_application_publishes_four_workers() {
    the_application_publishes(4);
}

// PROTOCOL §3: byte for byte.
#[test]
fn what_the_application_sends_arrives_as_it_was_written() {
    let server = server(2);
    let mut ann = Client::connect(server.address, &token("ann", &[("news", "sub")]));
    assert_ok(&ann.subscribe("news"));
    let data = r#"{"b":1.50, "a":12345678901234567890123 ,"e":1e400,"s":"\u00e9"}"#;
    // As a string inside of JSON values numbers would already be changed here: it is put together by hand.
    for (method, head) in [("publish", r#"{"pipe":"news","#), ("push", r#"{"to":{"user":"ann"},"#)] {
        let body = format!(r#"{head}"event":"e","data":{data}}}"#);
        let request = Request::get(&format!("/v1/{method}")).method("POST");
        let request = request.header("Content-Length", &body.len().to_string());
        let answer = server.api.ask(&request, &body).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let frame = ann.frame().expect("a frame");
        let text = String::from_utf8(frame.payload).expect("UTF-8");
        assert!(text.contains(&format!(r#""data":{data}"#)), "{text}");
    }
}

// One order for what one caller has published, whoever receives it.
#[test]
fn events_of_the_application_keep_their_order() {
    let server = server(4);
    let mut clients = one_on_each(server.address, 4, &token("ann", &[("news", "sub")]));
    clients.iter_mut().for_each(|client| assert_ok(&client.subscribe("news")));
    let commands = |first: u64| {
        let publish = |number| json!({"method": "publish", "pipe": "news", "event": "e", "data": number});
        let commands: Vec<Value> = (first..first + 500).map(publish).collect();
        let answer = server.api.call("batch", json!({"commands": commands}));
        assert_eq!(answer.status, 200, "{answer:?}");
        let results = answer.json()["results"].as_array().expect("results").clone();
        assert!(results.len() == 500 && results.iter().all(|one| one["ok"] == true), "{results:?}");
    };
    commands(0);
    commands(500);
    for client in &mut clients {
        (0..1_000).for_each(|number| client.expect_event("news", number));
    }
}

// A pushed frame is neither an event nor bound to a pipe: also who was granted nothing gets it.
#[test]
fn push_needs_no_grant() {
    let server = server(1);
    let mut ann = Client::connect(server.address, &sign(r#"{"sub":"ann"}"#));
    assert_eq!(push(&server, json!({"user": "ann"})), 1);
    assert_eq!(ann.receive()["type"], "push");
}
