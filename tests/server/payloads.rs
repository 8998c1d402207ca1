//! What an event may hold: its size, the fields that must carry the publisher's own tenant or organisation, its schema, in
//! this order (GD-7, F8); an invalid event reaches nobody, also when the application sends it (E5).

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Client, Launch, NO_RATES, Server, assert_code, assert_forbidden, assert_ok, one_on_each, records, rights,
    sign, token_with, until,
};

const SCHEMA: &str = r#"{
    "type": "object", "required": ["level"], "additionalProperties": false,
    "properties": {"level": {"type": "integer", "maximum": 9}, "notes": {"type": "array", "items": {"type": "string"}}}
}"#;

const RULES: &str = r#"
[pipe."room"]
subscribe = true
publish = true
public = true
[pipe."room".event.filed]
schema = "schemas/level.json"
[pipe."room".event.inline]
schema = { type = "object", properties = { "a/b" = { type = "string", pattern = "^x" } } }
[pipe."room".event.small]
max_bytes = 20
[pipe."room".event.scoped]
scope_fields = { "/tenantId" = "tenant", "/deep/org~1Id" = "org" }
[pipe."room".event.strict]
max_bytes = 60
scope_fields = { "/t" = "tenant" }
schema = { properties = { t = true, level = { type = "integer" } } }
[pipe."room".event.never]
publish = false
max_bytes = 1
[pipe."room".event.open]
"#;

fn server(workers: usize) -> Server {
    launch(workers).start()
}

fn launch(workers: usize) -> Launch {
    let launch = Launch::new(&format!("[edge]\nworkers = {workers}\n{AUDITED}[limits]\n{NO_RATES}{RULES}"));
    std::fs::create_dir(launch.path("schemas")).expect("a folder");
    // D13
    launch.file("schemas/level.json", SCHEMA.as_bytes())
}

fn ann() -> String {
    sign(&json!({"sub": "ann", "tenant": "acme", "org": "red"}).to_string())
}

/// Publishes `data`, JSON as it is to be sent; the reply.
#[track_caller]
fn send(client: &mut Client, event: &str, data: &str) -> Value {
    client.send_text(format!(r#"{{"type":"publish","id":"x","pipe":"room","event":"{event}","data":{data}}}"#));
    client.reply(&json!("x"))
}

/// Asserts that subscribers on all workers have got these events and nothing else.
#[track_caller]
fn assert_heard(server: &Server, subscribers: &mut [Client], expected: &[Value]) {
    server.api.done("publish", json!({"pipe": "room", "event": "open", "data": "the end"}));
    for subscriber in subscribers {
        let mut heard = Vec::new();
        // The application's event may overtake those of clients.
        until("the last event", || {
            heard.extend(subscriber.settle().into_iter().map(|one| one["data"].clone()));
            heard.len() > expected.len() && heard.contains(&json!("the end"))
        });
        heard.retain(|data| data != "the end");
        assert_eq!(heard, expected);
    }
}

// GD-7: the place in the data and what is expected there, never what stands there; nobody gets it, on any worker.
#[test]
fn an_event_that_breaks_its_schema_reaches_nobody() {
    for workers in [1, 2] {
        let server = server(workers);
        let mut subscribers = one_on_each(server.address, workers, &ann());
        subscribers.iter_mut().for_each(|one| assert_ok(&one.subscribe("room")));
        let mut ann = Client::connect(server.address, &ann());
        for (event, data, pointer) in [
            ("filed", r#"{"level":"MARK"}"#, "`/level`"),
            ("filed", r#"{"level":10}"#, "`/level`"),
            ("filed", r#"{"level":1.5}"#, "`/level`"),
            ("filed", r#"{"level":12345678901234567890123}"#, "`/level`"),
            ("filed", r#"{"level":1,"notes":["a","b",["MARK"]]}"#, "`/notes/2`"),
            ("filed", r#"{"notes":[]}"#, "The data "),
            ("filed", r#"{"level":1,"MARK":1}"#, "The data "),
            ("filed", r#""MARK""#, "The data "),
            ("filed", "null", "The data "),
            ("filed", r#"{"level":1,"level":2}"#, ""),
            ("inline", r#"{"a/b":"MARK"}"#, "`/a~1b`"),
        ] {
            let reply = send(&mut ann, event, data);
            assert_code(&reply, "SCHEMA");
            let error = reply["error"].as_str().expect("a sentence");
            assert!(error.starts_with(pointer), "{data}: {error}");
            assert!(!error.contains("MARK") || data.contains(r#""MARK":"#), "{error}");
        }
        assert_ok(&send(&mut ann, "filed", r#"{"level": 9.0, "notes": ["a"]}"#));
        assert_ok(&send(&mut ann, "inline", r#"{"a/b":"xyz","more":12345678901234567890123}"#));
        let expected =
            [json!({"level": 9.0, "notes": ["a"]}), json!({"a/b": "xyz", "more": 1.234_567_890_123_456_8e22})];
        assert_heard(&server, &mut subscribers, &expected);
        assert_eq!(server.counter("denied[SCHEMA]"), 11);
        until("it is on record", || records(&server, "denied").iter().any(|one| one["code"] == "SCHEMA"));
        let file = std::fs::read_to_string(server.path("audit.log")).expect("a file");
        assert!(!file.contains("MARK"), "G4");
    }
}

// F17: the bytes of `data` as they came, white space and escapes included; exactly so many are fine.
#[test]
fn an_event_over_its_size_is_refused() {
    let server = server(2);
    let mut subscribers = one_on_each(server.address, 2, &ann());
    subscribers.iter_mut().for_each(|one| assert_ok(&one.subscribe("room")));
    let mut ann = Client::connect(server.address, &ann());
    assert_ok(&send(&mut ann, "small", r#""123456789012345678""#));
    assert_code(&send(&mut ann, "small", r#""1234567890123456789""#), "PAYLOAD_TOO_LARGE");
    assert_ok(&send(
        &mut ann,
        "small",
        r#"[1,                ]"#.replace(",                ]", "                 ]").as_str(),
    ));
    assert_code(&send(&mut ann, "small", r#"[1                  ]"#), "PAYLOAD_TOO_LARGE");
    assert_code(&send(&mut ann, "small", r#""\u0061\u0061\u0061\u0061""#), "PAYLOAD_TOO_LARGE");
    assert_ok(&send(&mut ann, "small", r#""ééééééééé""#));
    assert_code(&send(&mut ann, "small", r#""éééééééééé""#), "PAYLOAD_TOO_LARGE");
    // Nothing of the kind is asked of others.
    assert_ok(&send(&mut ann, "open", r#""12345678901234567890""#));
    let expected = ["123456789012345678", "ééééééééé", "12345678901234567890"].map(|text| json!(text));
    let expected = [&expected[..1], &[json!([1])], &expected[1..]].concat();
    assert_heard(&server, &mut subscribers, &expected);
}

// GD-7, F9: whatever is not exactly the publisher's own is a mismatch.
#[test]
fn scope_fields_must_carry_the_publishers_own() {
    let server = server(2);
    let mut subscribers = one_on_each(server.address, 2, &ann());
    subscribers.iter_mut().for_each(|one| assert_ok(&one.subscribe("room")));
    let mut ann = Client::connect(server.address, &ann());
    for data in [
        r#"{"tenantId":"globex","deep":{"org/Id":"red"}}"#,
        r#"{"tenantId":"acme","deep":{"org/Id":"blue"}}"#,
        r#"{"tenantId":"red","deep":{"org/Id":"acme"}}"#,
        r#"{"tenantId":"ACME","deep":{"org/Id":"red"}}"#,
        r#"{"tenantId":"acme"}"#,
        r#"{"deep":{"org/Id":"red"}}"#,
        r#"{"tenantId":["acme"],"deep":{"org/Id":"red"}}"#,
        r#"{"tenantId":null,"deep":{"org/Id":"red"}}"#,
        r#"{"tenantId":"globex","tenantId":"acme","deep":{"org/Id":"red"}}"#,
        r#"{"tenantId":"acme","tenantId":"acme","deep":{"org/Id":"red"}}"#,
        r#"{"tenantId":"acme","deep":{"org":{"Id":"red"}}}"#,
        r#"[]"#,
        r#""acme""#,
    ] {
        assert_code(&send(&mut ann, "scoped", data), "SCOPE_MISMATCH");
    }
    let right = r#"{"deep":{"org/Id":"red","x":1},"tenantId":"\u0061cme"}"#;
    assert_ok(&send(&mut ann, "scoped", right));
    // Nobody else's right is it, and who has none has no field that fits; nor does a grant help (A14).
    for claims in
        [json!({"tenant": "globex", "org": "red"}), json!({"tenant": "acme"}), json!({"org": "red"}), json!({})]
    {
        let mut other = Client::connect(server.address, &token_with("eve", claims));
        assert_code(&send(&mut other, "scoped", right), "SCOPE_MISMATCH");
        assert_code(&send(&mut other, "scoped", r#"{"tenantId":null,"deep":{"org/Id":null}}"#), "SCOPE_MISMATCH");
        assert_code(&send(&mut other, "scoped", r#"{"tenantId":"","deep":{"org/Id":""}}"#), "SCOPE_MISMATCH");
    }
    assert_heard(&server, &mut subscribers, &[json!({"tenantId": "acme", "deep": {"org/Id": "red", "x": 1}})]);
}

// F8: right on the pipe → right on the event → max_bytes → scope_fields → schema; it is the same where nobody listens.
#[test]
fn the_first_check_that_fails_answers() {
    let server = server(2);
    let mut ann = Client::connect(server.address, &ann());
    let long = "x".repeat(60);
    for subscribed in [false, true] {
        if subscribed {
            assert_ok(&ann.subscribe("room"));
        }
        assert_forbidden(&send(&mut ann, "never", r#""too long""#));
        assert_forbidden(&send(&mut ann, "undefined", "1"));
        let all = format!(r#"{{"t":"globex","level":"{long}"}}"#);
        assert_code(&send(&mut ann, "strict", &all), "PAYLOAD_TOO_LARGE");
        assert_code(&send(&mut ann, "strict", r#"{"t":"globex","level":"x"}"#), "SCOPE_MISMATCH");
        assert_code(&send(&mut ann, "strict", r#"{"t":"acme","level":"x"}"#), "SCHEMA");
        assert_ok(&send(&mut ann, "strict", r#"{"t":"acme","level":1}"#));
        server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
        assert_code(&send(&mut ann, "strict", &all), "REVOKED");
        server.api.done("restore", json!({"user": "ann"}));
        until("it is restored", || ann.settle().iter().any(|one| one["event"] == "pipe_restored"));
    }
    let granted = sign(&json!({"sub": "ben", "pipes": {"room": rights("sub,pub")}}).to_string());
    let mut ben = Client::connect(server.address, &granted);
    assert_code(&send(&mut ben, "filed", "{}"), "SCHEMA");
    assert_ok(&send(&mut ben, "undefined", "{}"));
}

// E5, E6: the application is held to size and schema, not to scope fields and rights.
#[test]
fn the_applications_events_are_checked_too() {
    let server = server(2);
    let mut subscribers = one_on_each(server.address, 2, &ann());
    subscribers.iter_mut().for_each(|one| assert_ok(&one.subscribe("room")));
    let publish =
        |event: &str, data: Value| server.api.call("publish", json!({"pipe": "room", "event": event, "data": data}));
    let refused = publish("filed", json!({"level": "MARK"}));
    refused.assert_refused(422, "SCHEMA");
    let error = refused.json()["error"].as_str().expect("a sentence").to_owned();
    assert!(error.contains("/level") && !error.contains("MARK"), "{error}");
    publish("small", json!("1234567890123456789")).assert_refused(413, "PAYLOAD_TOO_LARGE");
    publish("strict", json!({"t": "globex", "level": "x"})).assert_refused(422, "SCHEMA");
    assert_eq!(publish("strict", json!({"t": "globex", "level": 1})).status, 200);
    assert_eq!(publish("never", json!(1)).status, 200);
    let command = |event: &str, data: Value| json!({"method": "publish", "pipe": "room", "event": event, "data": data});
    let commands =
        json!([command("filed", json!({"level": 1})), command("filed", json!({})), command("open", json!(2))]);
    let answer = server.api.call("batch", json!({"commands": commands}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].clone();
    assert_eq!(
        (&results[0]["ok"], &results[1]["code"], &results[2]["ok"]),
        (&json!(true), &json!("SCHEMA"), &json!(true))
    );
    // RK-7: what the pipe does not define is warned about and published.
    assert_eq!(publish("undefined", json!({"level": "any"})).status, 200);
    let line = server.log_line("WARN");
    assert!(line.contains("undefined") && line.contains("room"), "{line}");
    let expected =
        [json!({"t": "globex", "level": 1}), json!(1), json!({"level": 1}), json!(2), json!({"level": "any"})];
    assert_heard(&server, &mut subscribers, &expected);
}

// F19, D13, RK-6: what is no schema does not serve.
#[test]
fn a_file_with_a_schema_that_is_none_does_not_serve() {
    let with = |schema: &str| format!("[pipe.\"room\"]\n[pipe.\"room\".event.e]\nschema = {schema}\n");
    for wrong in ["\"nosuch.json\"", "{ type = \"objekt\" }", "{ \"$ref\" = \"https://example.com/s.json\" }", "3"] {
        let mut server = Launch::new(&with(wrong)).spawn();
        assert_eq!(server.exit_code(), Some(2), "{wrong}");
        let line = server.log_line("pipeward.toml:");
        assert!(line.contains("schema"), "{wrong}: {line}");
    }
}

// G2: a reload brings new schemas, and with a bad one nothing at all.
#[test]
fn a_reload_brings_new_checks() {
    let server = server(2);
    let mut ann = Client::connect(server.address, &ann());
    assert_ok(&ann.subscribe("room"));
    assert_code(&send(&mut ann, "filed", r#"{"level":10}"#), "SCHEMA");
    let config = |rules: &str| format!("[edge]\nworkers = 2\n{AUDITED}[limits]\n{NO_RATES}{rules}");
    std::fs::write(server.path("schemas/level.json"), "{ not JSON").expect("a file");
    assert!(!server.reload(&config(RULES)));
    assert_code(&send(&mut ann, "filed", r#"{"level":10}"#), "SCHEMA");
    std::fs::write(server.path("schemas/level.json"), SCHEMA.replace("9", "99")).expect("a file");
    assert!(server.reload(&config(RULES)));
    until("the new schema is in force", || send(&mut ann, "filed", r#"{"level":10}"#)["ok"] == true);
    assert_code(&send(&mut ann, "filed", r#"{"level":100}"#), "SCHEMA");
}
