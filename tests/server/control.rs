//! What else the application may do with connections, what is on record of it, and the end of the server (GD-9, E8–E10,
//! E12, G1, G3, G4, G12, G17).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    API_KEY, AUDITED, Client, NO_RATES, Request, Server, Stop, assert_code, assert_forbidden, assert_ok, assert_system,
    await_records, one_on_each, records, sign, token, token_with, until,
};

fn server(workers: usize) -> Server {
    Server::start(&format!("[edge]\nworkers = {workers}\n[limits]\n{NO_RATES}"))
}

// E8
#[test]
fn a_disconnect_names_a_user_a_connection_or_a_session() {
    for workers in [1, 2, 4] {
        let server = server(workers);
        let all = token_with("ann", json!({"sid": "phone", "tenant": "red"}));
        let hers = one_on_each(server.address, workers, &all);
        let mut desk = Client::connect(server.address, &token_with("ann", json!({"sid": "desk", "tenant": "blue"})));
        let mut ben = Client::connect(server.address, &token_with("ben", json!({})));
        let phones = workers as u64;
        let disconnect = |body: Value| server.api.connections("disconnect", body);
        assert_eq!(disconnect(json!({"user": "nobody"})), 0);
        assert_eq!(disconnect(json!({"session": "nobody's"})), 0);
        assert_eq!(disconnect(json!({"connection": "0-0-4000-1"})), 0);
        assert_eq!(disconnect(json!({"session": "phone"})), phones);
        hers.into_iter().for_each(|client| drop(client.expect_close(4403)));
        let hers = one_on_each(server.address, workers, &all);
        assert_eq!(disconnect(json!({"user": "ann", "tenant": "red", "reconnect": true})), phones);
        for client in hers {
            let reason = client.expect_close(4503);
            // C30
            let delay = reason.strip_prefix("retry_after_ms=").and_then(|ms| ms.parse::<u64>().ok());
            assert!(delay.is_some_and(|ms| ms > 0), "{reason:?}");
        }
        assert_ok(&desk.subscribe("room"));
        assert_eq!(disconnect(json!({"connection": desk.name()})), 1);
        desk.expect_close(4403);
        // Nothing of it lasts: whoever comes again is let in.
        let again = Client::connect(server.address, &all);
        assert_eq!(disconnect(json!({"user": "ann"})), 1);
        again.expect_close(4403);
        assert_ok(&ben.subscribe("room"));
    }
}

// INVARIANTS 10: with 4403 whatever was queued goes; and a slot that was used again is another connection.
#[test]
fn nothing_follows_a_disconnect_and_a_name_is_never_used_again() {
    let server = server(1);
    let ann = token_with("ann", json!({}));
    let mut names = std::collections::BTreeSet::new();
    for round in 0..50 {
        let mut client = Client::connect(server.address, &ann);
        assert_ok(&client.subscribe("room"));
        let name = client.name();
        assert!(names.insert(name.clone()), "{name} stands for two");
        let gone = names.iter().find(|one| **one != name);
        if let Some(gone) = gone {
            assert_eq!(server.api.connections("disconnect", json!({"connection": gone})), 0, "{gone}");
        }
        let event = json!({"pipe": "room", "event": "e", "data": round});
        assert_eq!(server.api.connections("disconnect", json!({"connection": name})), 1);
        server.api.done("publish", event);
        client.expect_close(4403);
    }
}

// E9
#[test]
fn an_unsubscribe_leaves_the_grant() {
    for workers in [1, 2, 4] {
        let server = server(workers);
        let mut hers = one_on_each(server.address, workers, &token("ann", &[("room", "sub,pub"), ("hall", "sub")]));
        let mut ben = Client::connect(server.address, &token("ben", &[("**", "sub,pub")]));
        for client in hers.iter_mut().chain([&mut ben]) {
            assert_ok(&client.subscribe("room"));
        }
        assert_ok(&hers[0].subscribe("hall"));
        let unsubscribe = |body: Value| server.api.connections("unsubscribe", body);
        assert_eq!(unsubscribe(json!({"user": "ann", "pipe": "elsewhere"})), 0);
        assert_eq!(unsubscribe(json!({"user": "ann", "tenant": "red", "pipe": "room"})), 0);
        assert_eq!(unsubscribe(json!({"user": "ann", "pipe": "room"})), workers as u64);
        assert_ok(&ben.publish("room", 1));
        ben.expect_event("room", 1);
        for client in &mut hers {
            let told = client.expect_system("unsubscribed", "room");
            assert_eq!(told["reason"], "server", "{told}");
            assert_eq!(client.settle(), [] as [Value; 0]);
            assert_code(&client.request(json!({"type": "unsubscribe", "pipe": "room"})), "NOT_SUBSCRIBED");
            assert_ok(&client.publish("room", 2));
            ben.expect_event("room", 2);
            assert_ok(&client.subscribe("room"));
        }
        assert_eq!(unsubscribe(json!({"user": "ann", "pipe": "hall"})), 1, "only those that were subscribed count");
        assert_eq!(unsubscribe(json!({"connection": hers[0].name(), "pipe": "room"})), 1);
        assert_eq!(unsubscribe(json!({"connection": hers[0].name(), "pipe": "room"})), 0);
    }
}

// E9: after the answer nothing of the pipe comes any more, whoever publishes meanwhile.
#[test]
fn nothing_follows_an_unsubscribe() {
    let server = server(2);
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut hers = one_on_each(server.address, 2, &token("ann", &[("room", "sub")]));
    std::thread::scope(|scope| {
        let _stop = Stop(&over);
        scope.spawn(|| {
            let mut ben = Client::connect(server.address, &token("ben", &[("room", "pub")]));
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                (0..50).for_each(|number| ben.tell("room", number));
                ben.settle();
            }
        });
        for _ in 0..20 {
            for client in &mut hers {
                assert_ok(&client.subscribe("room"));
            }
            hers.iter_mut().for_each(|client| assert_eq!(client.receive()["type"], "event"));
            assert_eq!(server.api.connections("unsubscribe", json!({"user": "ann", "pipe": "room"})), 2);
            std::thread::sleep(Duration::from_millis(5));
            for client in &mut hers {
                let heard = client.settle();
                assert_system(heard.last().expect("at least this"), "unsubscribed");
                assert!(heard[..heard.len() - 1].iter().all(|one| one["type"] == "event"), "{heard:?}");
            }
        }
    });
}

// E10, E12
#[test]
fn connections_are_listed_page_by_page() {
    let server = server(4);
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..23 {
        let mut client = Client::connect(server.address, &token_with(&format!("user-{}", number % 5), json!({})));
        assert_ok(&client.request(json!({"type": "subscribe", "pipes": ["room", format!("own-{number}")]})));
        clients.push(client);
    }
    let mut found = std::collections::BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = server.api.list(&format!("/v1/connections?limit=4{after}"));
        for one in page["connections"].as_array().expect("a list") {
            let name = one["connection"].as_str().expect("a name").to_owned();
            assert!(found.insert(name, one.clone()).is_none(), "twice: {one}");
        }
        assert!(page["connections"].as_array().is_some_and(|list| list.len() <= 4), "{page}");
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(found.len(), 23);
    for (number, client) in clients.iter().enumerate() {
        let one = &found[&client.name()];
        assert_eq!((&one["user"], &one["ip"]), (&json!(format!("user-{}", number % 5)), &json!("127.0.0.1")), "{one}");
        let pipes = one["pipes"].as_array().expect("pipes");
        assert!(pipes.len() == 2 && pipes.contains(&json!(format!("own-{number}"))), "{one}");
    }
    let of_one = server.api.list("/v1/connections?user=user-3");
    assert_eq!(of_one["connections"].as_array().map(Vec::len), Some(4), "{of_one}");
    let stats = server.api.list("/v1/stats");
    assert_eq!((stats["workers"].as_array().map(Vec::len), &stats["total"]["open"]), (Some(4), &json!(23)), "{stats}");
    assert_eq!(stats["total"]["subscriptions"], 46, "{stats}");
}

#[track_caller]
fn assert_fields(record: &Value, fields: Value) {
    for (name, value) in fields.as_object().expect("fields") {
        assert_eq!(record.get(name), Some(value), "{name} in {record}");
    }
    assert!(record["ts"].as_u64().is_some_and(|ts| ts > 1_600_000_000_000), "{record}");
}

fn audited() -> Server {
    Server::start(&format!("[edge]\nworkers = 2\n{AUDITED}"))
}

// GD-9, HP-6, G3, D13, INVARIANTS 33
#[test]
fn what_matters_is_on_record() {
    let server = audited();
    let grants = json!({"sub": "ann", "tenant": "red", "pipes": {"room": {"subscribe": true}}}).to_string();
    let mut ann = Client::connect(server.address, &sign(&grants));
    let name = ann.name();
    let who = json!({"connection": name, "user": "ann", "tenant": "red", "ip": "127.0.0.1"});
    assert_fields(&await_records(&server, "connect", 1)[0], who.clone());
    Request::upgrade().token("wrong").assert_refused(server.address, 401, "UNAUTHENTICATED");
    Request::upgrade().header("Origin", "https://evil.example").assert_refused(server.address, 403, "FORBIDDEN");
    let refused = await_records(&server, "refused", 2);
    let codes: Vec<&Value> = refused.iter().map(|record| &record["code"]).collect();
    assert!(codes.contains(&&json!("UNAUTHENTICATED")) && codes.contains(&&json!("FORBIDDEN")), "{refused:?}");
    refused.iter().for_each(|record| assert_fields(record, json!({"ip": "127.0.0.1"})));
    // Denials of one code are gathered, and none is lost.
    (0..7).for_each(|_| assert_forbidden(&ann.subscribe("secret-pipe")));
    ann.tell("room", 1);
    ann.settle();
    let count = |records: &[Value]| -> u64 { records.iter().map(|one| one["count"].as_u64().unwrap_or(1)).sum() };
    until("eight denials", || count(&records(&server, "denied")) == 8);
    let denied = records(&server, "denied");
    assert!(denied.len() <= 4, "they are gathered: {denied:?}");
    denied.iter().for_each(|record| assert_fields(record, json!({"connection": name, "code": "FORBIDDEN"})));
    // What the application does, with the name of its key.
    server.api.done("revoke", json!({"user": "ann", "pipe": "ro*", "tenant": "red"}));
    server.api.done("revoke_all", json!({"user": "ben"}));
    server.api.done("revoke_tokens", json!({"session": "nobody's"}));
    let revoked = await_records(&server, "revoke", 3);
    assert_fields(
        &revoked[0],
        json!({"user": "ann", "tenant": "red", "pipe": "ro*", "key": "tests", "ip": "127.0.0.1"}),
    );
    assert_fields(&revoked[1], json!({"user": "ben", "key": "tests"}));
    server.api.done("restore", json!({"user": "ann", "pipe": "ro*", "tenant": "red"}));
    assert_fields(&await_records(&server, "restore", 1)[0], json!({"user": "ann", "pipe": "ro*", "key": "tests"}));
    server.api.done("unsubscribe", json!({"user": "ann", "pipe": "room"}));
    server.api.done("disconnect", json!({"user": "ann"}));
    ann.expect_close(4403);
    let admin = await_records(&server, "admin", 2);
    assert_fields(&admin[0], json!({"user": "ann", "pipe": "room", "key": "tests", "reason": "unsubscribe"}));
    assert_fields(&admin[1], json!({"user": "ann", "key": "tests", "reason": "disconnect"}));
    let disconnected = await_records(&server, "disconnect", 1);
    assert_fields(&disconnected[0], who);
    assert_fields(&disconnected[0], json!({"close": 4403}));
    // G3: publishing and push are not.
    server.api.done("publish", json!({"pipe": "room", "event": "e", "data": 1}));
    server.api.call("push", json!({"to": {"user": "ann"}, "event": "e", "data": 1}));
    std::thread::sleep(Duration::from_millis(300));
    await_records(&server, "admin", 2);
}

// GD-9: why we closed is told by code.
#[test]
fn every_close_of_ours_is_on_record() {
    let server = audited();
    let revoked = Client::connect(server.address, &token_with("ann", json!({"jti": "t1"})));
    server.api.done("revoke_tokens", json!({"token": "t1"}));
    revoked.expect_close(4402);
    Request::upgrade().token(&token_with("ann", json!({"jti": "t1"}))).assert_refused(server.address, 401, "REVOKED");
    let mut another = Client::connect(server.address, &token_with("ben", json!({})));
    another.send(json!({"type": "refresh", "token": token_with("eve", json!({}))}));
    another.expect_close(4403);
    let expires = token_with("joe", json!({"exp": crate::support::unix_s() + 1}));
    let mut expired = Client::connect(server.address, &expires);
    assert_eq!(expired.closed().0, Some(4401));
    let mut closes: Vec<(String, u64)> = await_records(&server, "disconnect", 3)
        .iter()
        .map(|record| (record["user"].as_str().expect("a user").to_owned(), record["close"].as_u64().expect("a code")))
        .collect();
    closes.sort_unstable();
    assert_eq!(closes, [("ann".into(), 4402), ("ben".into(), 4403), ("joe".into(), 4401)]);
    assert_fields(&await_records(&server, "refused", 1)[0], json!({"code": "REVOKED"}));
    assert_eq!(records(&server, "internal_error"), [] as [Value; 0]);
}

// GD-9, G4: neither file nor log.
#[test]
fn no_token_secret_or_payload_is_on_record() {
    let server = audited();
    let payload = "a-payload-nobody-may-keep";
    let tokens = [
        token_with("ann", json!({"jti": "t1"})),
        token_with("ben", json!({"jti": "t2"})),
        token_with("ann", json!({"jti": "t3", "iat": 5})),
        "a-wrong-token-nobody-may-keep".to_owned(),
    ];
    let mut ann = Client::connect(server.address, &tokens[0]);
    let by_query = Request::upgrade().target(&format!("/v1/connect?token={}", tokens[1]));
    let ben = Client::with(server.address, &by_query);
    Request::upgrade().target(&format!("/v1/connect?token={}", tokens[3])).ask(server.address);
    Request::upgrade().token(&tokens[3]).ask(server.address);
    Request::upgrade().header("Cookie", "id=a-cookie-nobody-may-keep").token("x").ask(server.address);
    assert_ok(&ann.subscribe("room"));
    assert_ok(&ann.publish("room", payload));
    assert_ok(&ann.request(json!({"type": "refresh", "token": tokens[2]})));
    assert_code(&ann.request(json!({"type": "refresh", "token": tokens[3]})), "UNAUTHENTICATED");
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    assert_code(&ann.publish("room", payload), "REVOKED");
    ann.send_text(format!(r#"{{"type":"{payload}","id":1,"data":"{payload}"}}"#));
    ann.send_text(payload);
    server.api.done("push", json!({"to": {"user": "ann"}, "event": "e", "data": payload}));
    server.api.done("publish", json!({"pipe": "room", "event": "e", "data": payload}));
    server.api.done("revoke_tokens", json!({"token": "t2"}));
    ben.expect_close(4402);
    server.api.done("disconnect", json!({"user": "ann"}));
    await_records(&server, "disconnect", 2);
    until("the denials are told", || records(&server, "denied").len() >= 2);
    let file = std::fs::read_to_string(server.path("audit.log")).expect("a file");
    let log = server.log().join("\n");
    for (what, text) in [("the audit", &file), ("the log", &log)] {
        for token in &tokens {
            let signature = token.rsplit('.').next().expect("a part");
            assert!(!text.contains(signature), "{what} holds a token: {text}");
        }
        for secret in [payload, API_KEY, crate::support::SECRET, "a-cookie-nobody-may-keep"] {
            assert!(!text.contains(secret), "{what} holds {secret}: {text}");
        }
    }
}

// GD-9: the file is complete when the process has ended by itself, and the next one writes behind it.
#[test]
fn the_record_is_whole_after_the_end() {
    let server = audited();
    for number in 0..200 {
        server.api.done("revoke", json!({"user": format!("user-{number}"), "pipe": "room"}));
    }
    let server = server.stop().start();
    server.api.done("revoke", json!({"user": "user-200", "pipe": "room"}));
    let users: Vec<String> =
        await_records(&server, "revoke", 201).iter().map(|one| one["user"].as_str().expect("a user").into()).collect();
    assert_eq!(users, (0..201).map(|number| format!("user-{number}")).collect::<Vec<_>>());
}

fn status(address: std::net::SocketAddr, path: &str) -> u16 {
    Request::get(path).header("Connection", "close").ask(address).status()
}

// G1, G12, G17
#[test]
fn a_drain_is_seen_on_both_listeners() {
    let mut server = Server::start("[edge]\nworkers = 2\ndrain_s = 3\n");
    let (edge, control) = (server.address, server.api.address);
    for address in [edge, control] {
        assert_eq!(status(address, "/healthz"), 200);
        // G17: once every worker accepts.
        until("it is ready", || status(address, "/readyz") == 200);
    }
    let mut hers = one_on_each(server.address, 2, &token("ann", &[("room", "sub")]));
    hers.iter_mut().for_each(|client| assert_ok(&client.subscribe("room")));
    server.signal(libc::SIGTERM);
    for client in &mut hers {
        assert_system(&client.receive(), "draining");
    }
    for address in [edge, control] {
        assert_eq!((status(address, "/healthz"), status(address, "/readyz")), (200, 503), "{address}");
    }
    // Whoever is still there can still lose something, and it is kept.
    let connections = server.api.connections("revoke", json!({"user": "ann", "pipe": "room"}));
    assert!(connections <= 2);
    for mut client in hers {
        let mut revoked = false;
        let code = loop {
            match client.hear() {
                crate::support::Message::Json(told) => revoked |= told["event"] == "pipe_revoked",
                crate::support::Message::Close(code, _) => break code,
                crate::support::Message::End => panic!("no close frame"),
            }
        };
        assert_eq!(code, Some(4503));
        assert!(revoked || connections < 2);
    }
    assert_eq!(server.exit_code(), Some(0));
    let server = server.ended().start();
    assert_eq!(Client::connect(server.address, &token("ann", &[("room", "sub")])).welcome["pipes"], json!({}));
}

// Nothing happens for whoever does not show a key.
#[test]
fn a_call_without_a_key_does_nothing() {
    let server = server(1);
    let mut ann = Client::connect(server.address, &token("ann", &[("room", "sub")]));
    let body = json!({"user": "ann", "pipe": "room"}).to_string();
    for authorization in [None, Some("Bearer the-key-of-the-test"), Some("Bearer "), Some("Basic dGVzdHM6")] {
        let mut request = Request::get("/v1/revoke").method("POST").header("Connection", "close");
        request = request.header("Content-Length", &body.len().to_string());
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        let mut raw = crate::support::Raw::connect(server.api.address);
        raw.send(format!("{}{body}", request.text()));
        let response = raw.response();
        assert_eq!((response.status(), &response.json()["code"]), (401, &json!("UNAUTHENTICATED")), "{response:?}");
    }
    assert_ok(&ann.subscribe("room"));
    assert_eq!(ann.settle(), [] as [Value; 0]);
    // The key of the application is no token of a client, nor the other way round.
    Request::upgrade().token(API_KEY).assert_refused(server.address, 401, "UNAUTHENTICATED");
}

// PROTOCOL §4, E1: only a frame that no queue could ever hold is too large, to the byte.
#[test]
fn small_queues_take_what_fits_them() {
    let server = Server::start(&format!("[limits]\nqueue_bytes = 2000\nmessage_bytes = 1000\n{NO_RATES}"));
    let mut ann = Client::connect(server.address, &token("ann", &[("room", "sub")]));
    assert_ok(&ann.subscribe("room"));
    let publish =
        |data: &Value| server.api.call("publish?count=true", json!({"pipe": "room", "event": "e", "data": data}));
    assert_eq!(publish(&json!(1)).json(), json!({"ok": true, "delivered": 1}));
    assert_eq!(ann.receive()["data"], 1);
    let push = json!({"to": {"user": "ann"}, "event": "e", "data": 1});
    assert_eq!(server.api.delivered("push", push.clone()), 1);
    assert_eq!(ann.receive()["type"], "push");
    assert_eq!(server.api.call("notify", push).status, 202);
    assert_eq!(ann.receive()["type"], "push");
    // The largest that is taken arrives; one byte more is refused before anybody is closed for it.
    let most = (1..2000).rev().find(|count| publish(&json!("x".repeat(*count))).status == 200).expect("one that fits");
    assert!(most > 1900, "{most}");
    assert_eq!(ann.receive()["data"].as_str().map(str::len), Some(most));
    publish(&json!("x".repeat(most + 1))).assert_refused(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(publish(&json!(2)).json(), json!({"ok": true, "delivered": 1}));
    assert_eq!(ann.receive()["data"], 2);
}

// GD-9, G3: whom a call was about, and that it was a call and no drain.
#[test]
fn calls_about_tokens_and_connections_are_on_record_with_their_ids() {
    let server = audited();
    let mut ann = Client::connect(server.address, &token_with("ann", json!({"sid": "phone", "jti": "t-1"})));
    assert_ok(&ann.subscribe("room"));
    assert_eq!(server.api.connections("disconnect", json!({"session": "phone", "reconnect": true})), 1);
    ann.expect_close(4503);
    let [closed] = &await_records(&server, "disconnect", 1)[..] else { panic!("one record") };
    assert_fields(closed, json!({"close": 4503, "reason": "disconnected by the application", "user": "ann"}));
    let [call] = &await_records(&server, "admin", 1)[..] else { panic!("one record") };
    assert_fields(call, json!({"reason": "disconnect", "session": "phone", "reconnect": true, "key": "tests"}));
    server.api.done("revoke_tokens", json!({"token": "t-1", "ttl_s": 60}));
    let cut_off = json!({"user": "ann", "issued_before_s": 7, "except_session": "s", "except_token": "t"});
    server.api.done("revoke_tokens", cut_off);
    let records = await_records(&server, "revoke", 2);
    assert_fields(&records[0], json!({"reason": "revoke_tokens", "token_id": "t-1", "ttl_s": 60.0}));
    let fields = json!({"user": "ann", "issued_before_s": 7, "except_session": "s", "except_token": "t"});
    assert_fields(&records[1], fields);
}

/// How many denials each code has on record.
fn denials_by_code(server: &Server) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for record in records(server, "denied") {
        let code = record["code"].as_str().expect("a code").to_owned();
        *counts.entry(code).or_default() += record["count"].as_u64().unwrap_or(1);
    }
    counts
}

// INVARIANTS 33: one record for each code and second, also where they alternate.
#[test]
fn alternating_denials_are_gathered() {
    let server = Server::start(&format!("{AUDITED}[limits]\n{NO_RATES}"));
    let mut ann = Client::connect(server.address, &token("ann", &[]));
    let began = Instant::now();
    for _ in 0..45 {
        ann.send(json!({"type": "publish", "pipe": "x", "event": "e"}));
        ann.send(json!({"type": "unsubscribe", "pipe": "x"}));
    }
    ann.settle();
    let expected = BTreeMap::from([("FORBIDDEN".to_owned(), 45), ("NOT_SUBSCRIBED".to_owned(), 45)]);
    until("all are on record", || denials_by_code(&server) == expected);
    let most = 2 * (began.elapsed().as_secs() as usize + 1);
    assert!(records(&server, "denied").len() <= most, "{:?}", records(&server, "denied"));
}

// INVARIANTS 33: of however many codes.
#[test]
fn denials_of_many_codes_are_gathered() {
    let server = Server::start(&format!("{AUDITED}[limits]\nsubscriptions = 1\n{NO_RATES}"));
    let mut ann = Client::connect(server.address, &token("ann", &[("a", "sub"), ("b", "sub")]));
    ann.subscribe("a");
    let began = Instant::now();
    for number in 0..20 {
        ann.send(json!({"type": "publish", "pipe": "x", "event": "e"}));
        ann.send(json!({"type": "unsubscribe", "pipe": "x"}));
        ann.send(json!({"type": "nonsense", "id": format!("nonsense-{number}")}));
        ann.send(json!({"type": "action", "name": "nonsense"}));
        ann.send(json!({"type": "subscribe", "pipe": "b"}));
    }
    ann.settle();
    let codes = ["FORBIDDEN", "INVALID", "NOT_SUBSCRIBED", "TOO_MANY", "UNKNOWN_ACTION"];
    let expected = codes.map(|code| (code.to_owned(), 20)).into();
    until("all are on record", || denials_by_code(&server) == expected);
    let denied = records(&server, "denied");
    assert!(denied.len() <= codes.len() * (began.elapsed().as_secs() as usize + 1), "{denied:?}");
}

// INVARIANTS 29
#[test]
fn the_record_of_a_refused_origin_names_both_values() {
    let server = audited();
    let at = |host: &str, origin: &str| Request::upgrade().set("Host", host).header("Origin", origin);
    at("edge.example", "https://evil.example").assert_refused(server.address, 403, "FORBIDDEN");
    let long = format!("https://\u{201c}{}", "\u{e9}".repeat(400));
    at("edge.example:81", &long).assert_refused(server.address, 403, "FORBIDDEN");
    let reasons: Vec<String> = await_records(&server, "refused", 2)
        .iter()
        .map(|record| record["reason"].as_str().expect("a reason").to_owned())
        .collect();
    assert!(reasons[0].contains("\"https://evil.example\"") && reasons[0].contains("\"edge.example\""), "{reasons:?}");
    assert!(reasons[1].contains("edge.example:81") && reasons[1].len() < 350, "{reasons:?}");
    let proxied = Server::start(&format!("[edge]\ntrusted_proxies = [\"127.0.0.1\"]\n{AUDITED}"));
    let request = at("inside.example", "https://evil.example").header("X-Forwarded-Host", "app.example");
    request.assert_refused(proxied.address, 403, "FORBIDDEN");
    let reason = await_records(&proxied, "refused", 1)[0]["reason"].to_string();
    assert!(reason.contains("app.example") && !reason.contains("inside.example"), "{reason}");
}

// GD-9: whatever refuses, the record has the address of the client, not that of its proxy.
#[test]
fn the_record_of_a_refusal_has_the_clients_address() {
    let server = Server::start(&format!("[edge]\ntrusted_proxies = [\"127.0.0.1\"]\n{AUDITED}"));
    let request = || Request::upgrade().header("X-Forwarded-For", "203.0.113.7");
    request().target("/elsewhere").assert_refused(server.address, 404, "NOT_FOUND");
    request().without("Sec-WebSocket-Key").assert_refused(server.address, 400, "INVALID");
    request().header("Origin", "https://evil.example").assert_refused(server.address, 403, "FORBIDDEN");
    request().assert_refused(server.address, 401, "UNAUTHENTICATED");
    request().token("wrong").assert_refused(server.address, 401, "UNAUTHENTICATED");
    for record in await_records(&server, "refused", 5) {
        assert_fields(&record, json!({"ip": "203.0.113.7"}));
    }
}
