//! Bad input: a 4xx with a sentence, and nothing done. What is only unknown is no bad input.

use pipeward::protocol::encode::{Sender, event_frame};
use pipeward::shard::revocation::FOR_EVER;

use crate::fake::{ADMIN, Api, Asked};

/// Every call, with a body that is right.
const CALLS: [(&str, &str); 9] = [
    ("publish", r#"{"pipe":"p","event":"e","data":1}"#),
    ("push", r#"{"to":{"user":"u"},"event":"e","data":1}"#),
    ("notify", r#"{"to":{"user":"u"},"event":"e","data":1}"#),
    ("revoke", r#"{"user":"u","pipe":"p"}"#),
    ("revoke_all", r#"{"user":"u"}"#),
    ("restore", r#"{"user":"u"}"#),
    ("revoke_tokens", r#"{"user":"u"}"#),
    ("disconnect", r#"{"user":"u"}"#),
    ("unsubscribe", r#"{"user":"u","pipe":"p"}"#),
];

#[test]
fn bodies_that_are_no_object_are_refused_by_every_call() {
    let api = Api::start();
    for (call, _) in CALLS.iter().chain(&[("batch", "")]) {
        for body in ["", " ", "null", "[]", "5", "\"x\"", "{", "{}", "{\"a\":1}{", "{'user':'u'}", "{\"user\":\"u\",}"]
        {
            api.post(&format!("/v1/{call}"), body).refused(400, "INVALID");
        }
        let error = api.post_as(ADMIN, &format!("/v1/{call}"), b"{\"user\":\"\xff\"}").refused(400, "INVALID");
        assert_eq!(error, "The body is not UTF-8");
    }
    assert_eq!(api.fake.asked(), []);
    assert_eq!(api.fake.records(), []);
}

// PROTOCOL: "Unknown fields are ignored".
#[test]
fn unknown_fields_and_parameters_are_ignored_by_every_call() {
    let api = Api::start();
    let mut many = String::from("{");
    (0..100).for_each(|at| many.push_str(&format!(r#""extra{at}":{{"deep":[1,null]}},"#)));
    for (call, body) in CALLS {
        // Also many of them, and repeated ones: they are not looked at.
        for extra in [r#"{"extra":1,"extra":{"a":[]},"#, &many] {
            let extra = body.replacen('{', extra, 1);
            let answer = api.post(&format!("/v1/{call}?cuont=true&user=&x"), &extra);
            assert!(answer.status < 300, "{call}: {answer:?}");
        }
        let command = body.replacen('{', &format!(r#"{{"method":"{call}","extra":1,"#), 1);
        let answer = api.post("/v1/batch?extra=1", &format!(r#"{{"extra":[],"commands":[{command}]}}"#));
        assert_eq!((answer.status, &answer.json()["results"][0]["ok"]), (200, &serde_json::json!(true)), "{call}");
    }
    let answer = api.post("/v1/push", r#"{"to":{"user":"u","team":"t"},"event":"e","data":1}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(api.fake.asked().len(), CALLS.len() * 3 + 1);
    for path in [
        "/v1/connections?x=1",
        "/v1/pipes?x=1&x=2",
        "/v1/pipes/p/presence?x",
        "/v1/stats?x=1",
        "/metrics?x=1",
        "/openapi.json?x=1",
        "/v1/queues?x=1",
        "/v1/queues/a/dead?x=1",
    ] {
        assert_eq!(api.get(path).status, 200, "{path}");
    }
}

#[test]
fn repeated_fields_are_refused_by_every_call() {
    let api = Api::start();
    for (call, body) in CALLS {
        let name = body.split('"').nth(1).unwrap();
        let twice = body.replacen('{', &format!(r#"{{"{name}":"x","#), 1);
        let error = api.post(&format!("/v1/{call}"), &twice).refused(400, "INVALID");
        assert_eq!(error, format!("`{name}` is given twice"), "{call}");
    }
    let many = r#""user":"u","#.repeat(1000);
    api.post("/v1/restore", &format!(r#"{{{many}"user":"u"}}"#)).refused(400, "INVALID");
    assert_eq!(api.fake.asked(), []);
}

#[test]
fn missing_fields_are_named() {
    let api = Api::start();
    for (call, body, field) in [
        ("publish", r#"{"event":"e","data":1}"#, "pipe"),
        ("publish", r#"{"pipe":"p","data":1}"#, "event"),
        ("push", r#"{"event":"e","data":1}"#, "to"),
        ("push", r#"{"to":{"user":"u"},"event":"e"}"#, "data"),
        ("revoke", r#"{"user":"u"}"#, "pipe"),
        ("revoke", r#"{"pipe":"p"}"#, "user"),
        ("restore", r#"{"pipe":"p"}"#, "user"),
    ] {
        let error = api.post(&format!("/v1/{call}"), body).refused(400, "INVALID");
        assert_eq!(error, format!("`{field}` is missing"), "{call} {body}");
    }
    assert_eq!(api.fake.asked(), []);
}

// E15
#[test]
fn names_ids_and_numbers_have_their_range() {
    let api = Api::start();
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let long = |count| "x".repeat(count);
    for pipe in ["", "a b", "a*", "a{b}", "é", "a\n", &long(201)] {
        let body = format!(r#"{{"pipe":{},"event":"e","data":1}}"#, quoted(pipe));
        let error = api.post("/v1/publish", &body).refused(400, "INVALID");
        assert!(error.starts_with("`pipe`: a pipe's name is"), "{error}");
    }
    for event in ["", "a b", "é", &long(101)] {
        let body = format!(r#"{{"pipe":"p","event":{},"data":1}}"#, quoted(event));
        assert!(api.post("/v1/publish", &body).refused(400, "INVALID").starts_with("`event`: "));
    }
    for user in ["", &long(257), &"é".repeat(129)] {
        let body = format!(r#"{{"user":{},"pipe":"p"}}"#, quoted(user));
        assert!(api.post("/v1/revoke", &body).refused(400, "INVALID").starts_with("`user`: "));
    }
    for pattern in ["", "a b", "{a}", &long(201)] {
        let body = format!(r#"{{"user":"u","pipe":{}}}"#, quoted(pattern));
        assert!(api.post("/v1/revoke", &body).refused(400, "INVALID").starts_with("`pipe`: "));
    }
    for ttl in ["0", "-1", "\"5\"", "true", "-1e400", "-0.0", "[]"] {
        let body = format!(r#"{{"user":"u","pipe":"p","ttl_s":{ttl}}}"#);
        assert!(api.post("/v1/revoke", &body).refused(400, "INVALID").starts_with("`ttl_s`: "), "{ttl}");
    }
    let error = api.post("/v1/revoke", r#"{"user":"u","pipe":"p","until":"later"}"#).refused(400, "INVALID");
    assert!(error.starts_with("`until`: "), "{error}");
    let error = api.post("/v1/publish?count=yes", r#"{"pipe":"p","event":"e","data":1}"#).refused(400, "INVALID");
    assert!(error.contains("count"), "{error}");
    assert_eq!(api.fake.asked(), []);
    // At the edges it is taken. A huge time limit is none.
    for huge in ["1e10", "1e18", "1e400", "99999999999999999999999"] {
        let body = format!(r#"{{"user":"u","pipe":"p","ttl_s":{huge}}}"#);
        assert_eq!(api.post("/v1/revoke", &body).status, 200, "{huge}");
        assert!(matches!(&api.fake.asked()[..], [Asked::Revoke(one)] if one.until_ms == FOR_EVER), "{huge}");
    }
    let body = format!(r#"{{"user":"{}","pipe":"{}","ttl_s":1e-9}}"#, long(256), long(200));
    assert_eq!(api.post("/v1/revoke", &body).status, 200);
    let body = format!(r#"{{"pipe":"{}","event":"{}","data":1}}"#, long(200), long(100));
    assert_eq!(api.post("/v1/publish", &body).status, 200);
}

// C5
#[test]
fn depth_and_characters_are_such_that_every_client_can_read_them() {
    let api = Api::start();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let publish = |data: &str| api.post("/v1/publish", &format!(r#"{{"pipe":"p","event":"e","data":{data}}}"#));
    assert_eq!(publish(&nested(127)).status, 200);
    assert!(publish(&nested(128)).refused(400, "INVALID").contains("128 levels"));
    let open = "[".repeat(4 << 20);
    publish(&open).refused(400, "INVALID");
    assert_eq!(publish(r#""\ud83d\ude00 \\ud800 [[[""#).status, 200);
    for half in [r#""\ud83d""#, r#""\ude00\ud83d""#, r#""\ud83dx\ude00""#, r#"{"\udfff":1}"#, r#""\ud83d\n""#] {
        assert!(publish(half).refused(400, "INVALID").contains("surrogate"), "{half}");
    }
    for broken in ["\"\u{1}\"", "01", "1.", "nul", "\"\\x\"", "\"\\u12\"", "1 2", "{\"a\"}"] {
        publish(broken).refused(400, "INVALID");
    }
    assert_eq!(api.fake.asked().len(), 2);
}

// A9, E4
#[test]
fn large_bodies_are_refused_before_they_are_read() {
    let api = Api::start();
    let head = |length: &str| {
        format!("POST /v1/publish HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN}\r\n{length}\r\n\r\n")
    };
    // By its length alone: nothing of the body is sent.
    api.send(head("Content-Length: 8388609").as_bytes()).refused(413, "PAYLOAD_TOO_LARGE");
    api.send(head("Content-Length: 99999999999999").as_bytes()).refused(413, "PAYLOAD_TOO_LARGE");
    // Without a length, once it has become too much.
    let mut chunked = head("Transfer-Encoding: chunked").into_bytes();
    for _ in 0..9 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.resize(chunked.len() + (1 << 20), b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    api.send(&chunked).refused(413, "PAYLOAD_TOO_LARGE");
    // More than a connection's queue holds would close every receiver.
    let data = "x".repeat(1 << 20);
    let body = format!(r#"{{"pipe":"p","event":"e","data":"{data}"}}"#);
    assert!(api.post("/v1/publish", &body).refused(413, "PAYLOAD_TOO_LARGE").contains("queue"));
    assert_eq!(api.fake.asked(), []);
    // To the byte: what is around the data counts as it is, not as it may be.
    let around = event_frame("p", "e", "\"\"", Sender::Application, 1_700_000_000_000).len() + 8; // a longer header
    let of = |count: usize| format!(r#"{{"pipe":"p","event":"e","data":"{}"}}"#, &data[..count]);
    let most = (1 << 20) - around;
    assert_eq!(api.post("/v1/publish", &of(most)).status, 200);
    api.post("/v1/publish", &of(most + 1)).refused(413, "PAYLOAD_TOO_LARGE");
}

#[test]
fn unknown_paths_and_methods_answer_in_json() {
    let api = Api::start();
    api.get("/v2/publish").refused(404, "NOT_FOUND");
    api.get("/v1/presence").refused(404, "NOT_FOUND");
    api.get("/").refused(404, "NOT_FOUND");
    assert!(api.get("/v1/connect").refused(404, "NOT_FOUND").contains("edge listener"));
    for (method, path, allowed) in
        [("GET", "/v1/publish", "POST"), ("POST", "/v1/stats", "GET,HEAD"), ("DELETE", "/v1/batch", "POST")]
    {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN}\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = api.send(request.as_bytes());
        answer.refused(405, "INVALID");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}
