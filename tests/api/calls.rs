//! Each call reaches the service as it was meant, and answers as PROTOCOL.md §4 says.

use std::time::{SystemTime, UNIX_EPOCH};

use pipeward::control::service::Failure;
use pipeward::protocol::codes::Code;
use pipeward::shard::command::{Person, Who};
use pipeward::shard::record::{Kind, Particulars};
use pipeward::shard::revocation::{FOR_EVER, Restoration, Revocation, Taken, TokenRevocation, Tokens};
use serde_json::json;

use crate::fake::{ADMIN, Api, Asked};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn person(tenant: Option<&str>, user: &str) -> Person {
    Person { tenant: tenant.map(Into::into), user: user.into() }
}

/// The same instant, give or take what a test may be slow.
#[track_caller]
fn assert_soon(at_ms: u64, expected_ms: u64) {
    assert!((expected_ms.saturating_sub(20)..expected_ms + 20_000).contains(&at_ms), "{at_ms} for {expected_ms}");
}

#[test]
fn publish_hands_on_the_data_byte_for_byte() {
    let api = Api::start();
    let data = r#"{"n":12345678901234567890123, "e":1e400,"x" : [1.10, "\u00e9\/"] }"#;
    let answer = api.post("/v1/publish", &format!(r#"{{"pipe":"chat","event":"m","data": {data} }}"#));
    assert_eq!((answer.status, answer.json()), (200, json!({"ok": true})));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = |sender: Option<&str>, count| Asked::Publish {
        pipe: "chat".to_owned(),
        event: "m".to_owned(),
        data: data.to_owned(),
        sender: sender.map(str::to_owned),
        count,
    };
    assert_eq!(api.fake.asked(), [expected(None, false)]);
    // A Content-Type is not looked at (E14); null is absent; the parameter and the field are the same.
    let body = format!(r#"{{"sender":"ada","event":"m","data":{data},"pipe":"chat","count":null}}"#);
    let answer = api.post("/v1/publish?count=true", &body);
    assert_eq!(answer.json(), json!({"ok": true, "delivered": 3}));
    let answer = api.post("/v1/publish", &body.replace("null", "true"));
    assert_eq!(answer.json(), json!({"ok": true, "delivered": 3}));
    assert_eq!(api.fake.asked(), [expected(Some("ada"), true), expected(Some("ada"), true)]);
    // G3: not audited.
    assert_eq!(api.fake.records(), []);
}

// C14
#[test]
fn the_data_of_an_event_may_be_null_or_left_out() {
    let api = Api::start();
    for body in [r#"{"pipe":"chat","event":"m","data":null}"#, r#"{"pipe":"chat","event":"m"}"#] {
        assert_eq!(api.post("/v1/publish", body).status, 200, "{body}");
        assert!(matches!(&api.fake.asked()[..], [Asked::Publish { data, .. }] if data == "null"), "{body}");
    }
}

#[test]
fn a_count_is_asked_for_in_any_usual_way() {
    let api = Api::start();
    let body = r#"{"pipe":"chat","event":"m","data":1}"#;
    for (query, counts) in [
        ("count", true),
        ("count=1", true),
        ("count=true", true),
        ("x&count&y=", true),
        ("count=", false),
        ("count=false", false),
        ("count=0", false),
        ("", false),
    ] {
        assert_eq!(api.post(&format!("/v1/publish?{query}"), body).status, 200, "{query}");
        assert!(matches!(api.fake.asked()[..], [Asked::Publish { count, .. }] if count == counts), "{query}");
    }
}

// D14
#[test]
fn a_push_takes_the_tenant_beside_its_target_too() {
    let api = Api::start();
    for (fields, who) in [
        (r#""to":{"user":"ada"},"tenant":"acme""#, Who::User(person(Some("acme"), "ada"))),
        (r#""to":{"user":"ada","tenant":"acme"},"tenant":"acme""#, Who::User(person(Some("acme"), "ada"))),
        (r#""to":{"role":"admin"},"tenant":"acme""#, Who::Role("admin".into(), Some("acme".into()))),
        (r#""to":{"org":"o"},"tenant":"acme""#, Who::Org("o".into(), Some("acme".into()))),
        (r#""to":{"tenant":"acme"},"tenant":"acme""#, Who::Tenant("acme".into())),
        (r#""to":{"user":"ada"},"tenant":null"#, Who::User(person(None, "ada"))),
    ] {
        for call in ["push", "notify"] {
            let answer = api.post(&format!("/v1/{call}"), &format!(r#"{{{fields},"event":"e","data":1}}"#));
            assert!(answer.status < 300, "{fields}: {answer:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
            let expected = Asked::Push { to: who.clone(), event: "e".to_owned(), data: "1".to_owned() };
            assert_eq!(api.fake.asked(), [expected], "{call} {fields}");
        }
    }
    for fields in [
        r#""to":{"user":"ada","tenant":"acme"},"tenant":"other""#,
        r#""to":{"tenant":"acme"},"tenant":"other""#,
        r#""to":{"connection":"0-0-1-1"},"tenant":"acme""#,
        r#""to":{"user":"ada"},"tenant":5"#,
        r#""to":{"user":"ada"},"tenant":"""#,
    ] {
        for call in ["push", "notify"] {
            let body = format!(r#"{{{fields},"event":"e","data":1}}"#);
            let error = api.post(&format!("/v1/{call}"), &body).refused(400, "INVALID");
            assert!(error.contains("tenant"), "{error}");
        }
    }
    assert_eq!(api.fake.asked(), []);
}

// SR-12
#[test]
fn a_push_has_one_target() {
    let api = Api::start();
    for (to, who) in [
        (r#"{"user":"ada"}"#, Who::User(person(None, "ada"))),
        (r#"{"user":"ada","tenant":"acme"}"#, Who::User(person(Some("acme"), "ada"))),
        (r#"{"connection":"0-1-2-3"}"#, Who::Connection("0-1-2-3".into())),
        (r#"{"role":"admin"}"#, Who::Role("admin".into(), None)),
        (r#"{"tenant":"acme","role":"admin"}"#, Who::Role("admin".into(), Some("acme".into()))),
        (r#"{"tenant":"acme"}"#, Who::Tenant("acme".into())),
        (r#"{"org":"o","user":null}"#, Who::Org("o".into(), None)),
        (r#"{"org":"o","tenant":"acme"}"#, Who::Org("o".into(), Some("acme".into()))),
    ] {
        let answer = api.post("/v1/push", &format!(r#"{{"to":{to},"event":"e","data":[1.0]}}"#));
        assert_eq!((answer.status, answer.json()), (200, json!({"ok": true, "delivered": 3})), "{to}");
        assert_eq!(api.fake.asked(), [Asked::Push { to: who, event: "e".to_owned(), data: "[1.0]".to_owned() }]);
    }
    for to in [
        "{}",
        r#"{"user":"a","role":"b"}"#,
        r#"{"connection":"a","tenant":"b"}"#,
        r#"{"team":"a"}"#,
        r#"{"user":""}"#,
        r#"{"user":5}"#,
        r#"{"user":"a","user":"b"}"#,
        "null",
        "[]",
        r#""ada""#,
    ] {
        let error = api.post("/v1/push", &format!(r#"{{"to":{to},"event":"e","data":1}}"#)).refused(400, "INVALID");
        assert!(error.contains("to") || error.contains("target"), "{to}: {error}");
    }
    assert_eq!(api.fake.asked(), []);
}

#[test]
fn a_push_to_nobody_is_not_found_and_a_notification_is_accepted() {
    let api = Api::start();
    api.fake.will_answer(Ok(0));
    let body = r#"{"to":{"user":"ada"},"event":"e","data":1}"#;
    api.post("/v1/push", body).refused(404, "NOT_CONNECTED");
    assert_eq!(api.fake.asked().len(), 1);
    let answer = api.post("/v1/notify", body);
    assert_eq!((answer.status, answer.json()), (202, json!({"ok": true})));
    // It is carried out all the same, a moment later.
    let carried_out = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        matches!(&api.fake.asked()[..], [Asked::Push { .. }])
    });
    assert!(carried_out);
}

// HP-8, D4, D14
#[test]
fn revocations_reach_the_service_as_they_were_meant() {
    let api = Api::start();
    let now = now_ms();
    let answer = api.post("/v1/revoke", r#"{"user":"ada","pipe":"team-*"}"#);
    assert_eq!((answer.status, answer.json()), (200, json!({"ok": true, "connections": 3})));
    let base = Revocation {
        person: person(None, "ada"),
        taken: Taken::Pipe("team-*".into()),
        until_ms: FOR_EVER,
        until_authorized_after_ms: None,
    };
    assert_eq!(api.fake.asked(), [Asked::Revoke(base.clone())]);

    let body = r#"{"user":"ada","tenant":"acme","pipe":"chat","ttl_s":1.5,"until":"reauthorized"}"#;
    assert_eq!(api.post("/v1/revoke", body).status, 200);
    let [Asked::Revoke(timed)] = &api.fake.asked()[..] else { panic!("one revocation") };
    assert_eq!((&timed.person, &timed.taken), (&person(Some("acme"), "ada"), &Taken::Pipe("chat".into())));
    assert_soon(timed.until_ms, now + 1500);
    assert_soon(timed.until_authorized_after_ms.unwrap(), now);

    assert_eq!(api.post("/v1/revoke_all", r#"{"user":"ada"}"#).json(), json!({"ok": true, "connections": 3}));
    assert_eq!(api.fake.asked(), [Asked::Revoke(Revocation { taken: Taken::Everything, ..base })]);

    // D6
    assert_eq!(api.post("/v1/restore", r#"{"user":"ada","pipe":"team-*"}"#).status, 200);
    assert_eq!(api.post("/v1/restore", r#"{"user":"ada","pipe":null}"#).status, 200);
    let one = Restoration { person: person(None, "ada"), taken: Some(Taken::Pipe("team-*".into())) };
    let all = Restoration { person: person(None, "ada"), taken: None };
    assert_eq!(api.fake.asked(), [Asked::Restore(one), Asked::Restore(all)]);
}

// D9, D11
#[test]
fn token_revocations_reach_the_service_as_they_were_meant() {
    let api = Api::start();
    let now_s = i64::try_from(now_ms() / 1000).unwrap();
    assert_eq!(api.post("/v1/revoke_tokens", r#"{"token":"t1"}"#).json(), json!({"ok": true, "connections": 3}));
    assert_eq!(api.post("/v1/revoke_tokens", r#"{"session":"s1"}"#).status, 200);
    let for_ever = |tokens| Asked::RevokeTokens(TokenRevocation { tokens, until_ms: FOR_EVER });
    let expected = [for_ever(Tokens::Token("t1".into())), for_ever(Tokens::Session("s1".into()))];
    assert_eq!(api.fake.asked(), expected);

    let answer = api.post("/v1/revoke_tokens", r#"{"user":"ada"}"#).json();
    let [Asked::RevokeTokens(TokenRevocation { tokens: Tokens::IssuedBefore { issued_before_s, .. }, .. })] =
        api.fake.asked()[..]
    else {
        panic!("a cut-off")
    };
    // The current second is included.
    assert!((now_s + 1..now_s + 20).contains(&issued_before_s));
    assert_eq!(answer, json!({"ok": true, "connections": 3, "issued_before_s": issued_before_s}));

    let body =
        r#"{"user":"ada","tenant":"acme","issued_before_s":7.0,"except_session":"s","except_token":"t","ttl_s":60}"#;
    assert_eq!(api.post("/v1/revoke_tokens", body).json()["issued_before_s"], 7);
    let [Asked::RevokeTokens(revocation)] = &api.fake.asked()[..] else { panic!("a cut-off") };
    let expected = Tokens::IssuedBefore {
        person: person(Some("acme"), "ada"),
        issued_before_s: 7,
        except_session: Some("s".into()),
        except_token: Some("t".into()),
    };
    assert_eq!(revocation.tokens, expected);
    assert_soon(revocation.until_ms, now_ms() + 60_000);

    for body in [
        "{}",
        r#"{"token":"a","session":"b"}"#,
        r#"{"token":"a","user":"b"}"#,
        r#"{"token":"a","issued_before_s":1}"#,
        r#"{"session":"a","except_token":"t"}"#,
        r#"{"user":"a","issued_before_s":-1}"#,
        r#"{"user":"a","issued_before_s":1.5}"#,
        r#"{"user":"a","issued_before_s":1e12}"#,
        r#"{"tenant":"a"}"#,
    ] {
        api.post("/v1/revoke_tokens", body).refused(400, "INVALID");
    }
    assert_eq!(api.fake.asked(), []);
}

// E8, E9
#[test]
fn disconnect_and_unsubscribe_name_exactly_one_target() {
    let api = Api::start();
    for (body, who, reconnect) in [
        (r#"{"user":"ada"}"#, Who::User(person(None, "ada")), false),
        (r#"{"user":"ada","tenant":"acme","reconnect":true}"#, Who::User(person(Some("acme"), "ada")), true),
        (r#"{"connection":"c","reconnect":false}"#, Who::Connection("c".into()), false),
        (r#"{"session":"s"}"#, Who::Session("s".into()), false),
    ] {
        assert_eq!(api.post("/v1/disconnect", body).json(), json!({"ok": true, "connections": 3}), "{body}");
        assert_eq!(api.fake.asked(), [Asked::Disconnect(who, reconnect)]);
    }
    for (body, who) in [
        (r#"{"user":"ada","pipe":"p"}"#, Who::User(person(None, "ada"))),
        (r#"{"connection":"c","pipe":"p"}"#, Who::Connection("c".into())),
    ] {
        assert_eq!(api.post("/v1/unsubscribe", body).json(), json!({"ok": true, "connections": 3}), "{body}");
        assert_eq!(api.fake.asked(), [Asked::Unsubscribe(who, "p".to_owned())]);
    }
    for body in ["{}", r#"{"user":"a","session":"b"}"#, r#"{"session":"b","tenant":"t"}"#, r#"{"reconnect":true}"#] {
        api.post("/v1/disconnect", body).refused(400, "INVALID");
    }
    for body in [r#"{"pipe":"p"}"#, r#"{"user":"a"}"#, r#"{"user":"a","pipe":"p*"}"#, r#"{"session":"b","pipe":"p"}"#] {
        api.post("/v1/unsubscribe", body).refused(400, "INVALID");
    }
    assert_eq!(api.fake.asked(), []);
}

// E1, D15
#[test]
fn what_the_service_cannot_do_has_its_status() {
    let api = Api::start();
    let body = r#"{"user":"ada","pipe":"p"}"#;
    for (failure, status, code) in [
        (Failure::NotDurable("the disk is full".to_owned()), 500, "INTERNAL"),
        (Failure::TooMany("too many".to_owned()), 429, "TOO_MANY"),
        (Failure::Overloaded, 503, "OVERLOADED"),
        (Failure::Draining, 503, "DRAINING"),
        (Failure::Refused(Code::Schema, "`/level` must be a number".to_owned()), 422, "SCHEMA"),
        (Failure::Refused(Code::PayloadTooLarge, "too large".to_owned()), 413, "PAYLOAD_TOO_LARGE"),
    ] {
        api.fake.will_answer(Err(failure));
        let answer = api.post("/v1/revoke", body);
        let error = answer.refused(status, code);
        if status == 500 {
            // INVARIANTS 6
            assert!(error.contains("in force") && error.contains("not durable") && error.contains("the disk is full"));
        }
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
        let records = api.fake.records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].code.map(Code::name), Some(code));
    }
}

// GD-9
#[test]
fn calls_that_change_something_are_audited_with_the_key_and_without_payload() {
    let api = Api::start();
    for (path, body, kind, reason) in [
        ("revoke", r#"{"user":"ada","tenant":"t","pipe":"p*"}"#, Kind::Revoke, "revoke"),
        ("revoke_all", r#"{"user":"ada","tenant":"t"}"#, Kind::Revoke, "revoke_all"),
        ("restore", r#"{"user":"ada","tenant":"t","pipe":"p*"}"#, Kind::Restore, "restore"),
        ("revoke_tokens", r#"{"user":"ada","tenant":"t"}"#, Kind::Revoke, "revoke_tokens"),
        ("disconnect", r#"{"user":"ada","tenant":"t"}"#, Kind::Admin, "disconnect"),
        ("unsubscribe", r#"{"user":"ada","tenant":"t","pipe":"p"}"#, Kind::Admin, "unsubscribe"),
    ] {
        let began = now_ms();
        assert_eq!(api.post(&format!("/v1/{path}"), body).status, 200, "{path}");
        let [record] = &api.fake.records()[..] else { panic!("one record of {path}") };
        assert_eq!((record.kind, record.reason.as_deref()), (kind, Some(reason)));
        assert_eq!((record.key.as_deref(), record.user.as_deref()), (Some("admin"), Some("ada")));
        assert_eq!((record.tenant.as_deref(), record.code), (Some("t"), None));
        assert_eq!(record.ip, Some("127.0.0.1".parse().unwrap()));
        let pipe = ["revoke", "restore", "unsubscribe"].contains(&path);
        assert_eq!(record.pipe.is_some(), pipe, "{path}");
        assert_soon(record.ts_ms, began);
        assert!(!format!("{record:?}").contains(ADMIN));
    }
    api.post("/v1/disconnect", r#"{"connection":"0-1-2-3"}"#);
    assert_eq!(api.fake.records()[0].connection.as_deref(), Some("0-1-2-3"));
}

// GD-9, G3: which token, which session, until when.
#[test]
fn the_audit_names_what_was_revoked_and_closed() {
    let api = Api::start();
    let said = |path: &str, body: &str| {
        assert_eq!(api.post(&format!("/v1/{path}"), body).status, 200, "{path} {body}");
        let mut records = api.fake.records();
        assert_eq!(records.len(), 1, "{path} {body}");
        records.remove(0).particulars.map(|said| *said)
    };
    let none = Particulars::default;
    assert_eq!(said("revoke_tokens", r#"{"token":"t1"}"#), Some(Particulars { token_id: Some("t1".into()), ..none() }));
    let session = Particulars { session: Some("s1".into()), ttl_s: Some(60.0), ..none() };
    assert_eq!(said("revoke_tokens", r#"{"session":"s1","ttl_s":60}"#), Some(session));
    let body = r#"{"user":"ada","issued_before_s":7,"except_session":"s","except_token":"t"}"#;
    let spared = Particulars {
        issued_before_s: Some(7),
        except_session: Some("s".into()),
        except_token: Some("t".into()),
        ..none()
    };
    assert_eq!(said("revoke_tokens", body), Some(spared));
    // Also the cut-off that was not named.
    let cut_off_s = said("revoke_tokens", r#"{"user":"ada"}"#).and_then(|said| said.issued_before_s);
    assert_soon(u64::try_from(cut_off_s.unwrap()).unwrap() * 1000, now_ms());
    let body = r#"{"user":"ada","pipe":"p","ttl_s":1.5,"until":"reauthorized"}"#;
    let lasting = Particulars { ttl_s: Some(1.5), until: Some("reauthorized"), ..none() };
    assert_eq!(said("revoke", body), Some(lasting.clone()));
    assert_eq!(said("revoke_all", &body.replace(r#""pipe":"p","#, "")), Some(lasting));
    assert_eq!(said("revoke", r#"{"user":"ada","pipe":"p"}"#), None);
    let closed = Particulars { session: Some("s".into()), reconnect: Some(true), ..none() };
    assert_eq!(said("disconnect", r#"{"session":"s","reconnect":true}"#), Some(closed));
    assert_eq!(said("disconnect", r#"{"user":"ada"}"#), Some(Particulars { reconnect: Some(false), ..none() }));
}
