//! What the application may answer, and what each other answer comes to.

use proptest::prelude::*;

use super::*;
use crate::auth::decision::{Narrowed, Rights};
use crate::bounds::GRANTS_MAX;
use crate::config::Rate;

const ASKED_MS: u64 = 1_700_000_000_999;

fn malformed(body: &str) -> Malformed {
    let error = authorize(body, ASKED_MS).expect_err(body);
    assert!(!error.to_string().contains("MARK"), "{error} tells of {body}");
    error
}

fn refused(status: u16, body: &str) -> (String, String, bool) {
    let refused = action(status, body.as_bytes()).expect_err(body);
    let fault = refused.fault.is_some();
    assert!(!refused.fault.unwrap_or_default().contains("MARK"), "the fault of {status} {body} tells of the answer");
    (refused.code.into_string(), refused.message.into_string(), fault)
}

// ---- authorize ---------------------------------------------------------------------------------------------------

#[test]
fn hp1_a_full_answer_is_read_whole() {
    let body = r#" {"user":{"id":"ann","name":"Ann","role":"admin","roles":["member"],"team":"red","tenant":"acme","org":"o1",
        "features":["chat"],"info":{"plan":"pro"},"more":1},
        "pipes":{"room-*":{"subscribe":true,"publish":"yes"}},"expires_at":1700000060000,"session":"s-1","token_id":"t-1",
        "limits":{"publish":{"per_s":5,"burst":7},"bytes":{"per_s":1e400},"subscriptions":10,"none":"x"},"more":null}
        "#;
    let decision = authorize(body, ASKED_MS).unwrap().unwrap();
    let identity = &decision.identity;
    assert_eq!((identity.id(), identity.name(), identity.role()), ("ann", Some("Ann"), Some("admin")));
    assert_eq!(identity.roles().count(), 2); // B19
    assert_eq!((identity.tenant(), identity.org()), (Some("acme"), Some("o1")));
    assert_eq!(identity.info(), Some(r#"{"plan":"pro"}"#));
    assert_eq!((decision.grants.len(), decision.grants[0].rights), (1, Rights::SUBSCRIBE)); // A1
    assert_eq!((decision.issued_at_ms, decision.expires_at_ms), (Some(1_700_000_000_999), Some(1_700_000_060_000))); // D10
    assert_eq!((decision.session.as_deref(), decision.token_id.as_deref()), (Some("s-1"), Some("t-1")));
    let Narrowed { rates, subscriptions } = *decision.limits.unwrap();
    assert_eq!((rates.publish, subscriptions), (Some(Rate { per_s: 5.0, burst: 7.0 }), Some(10)));
    assert_eq!(rates.bytes, Some(Rate { per_s: f64::MAX, burst: f64::MAX }));
    assert_eq!(rates.push, None);
}

#[test]
fn the_short_form_names_the_user_alone() {
    let decision =
        authorize(r#"{"userId":"ann","pipes":{"a":{"publish":true}},"session":"s"}"#, ASKED_MS).unwrap().unwrap();
    assert_eq!((decision.identity.id(), decision.grants.len(), decision.session.as_deref()), ("ann", 1, Some("s")));
    assert_eq!(malformed(r#"{"userId":7}"#), Malformed::Field("userId"));
    assert_eq!(malformed(r#"{"userId":null}"#), Malformed::Field("userId"));
    assert_eq!(malformed(r#"{"userId":"ann","user":{"id":"ann"}}"#), Malformed::Field("userId"));
}

#[test]
fn null_refuses_and_an_answer_without_user_is_malformed() {
    // HP-1, B13, B14
    for body in ["null", " null\n"] {
        assert_eq!(authorize(body, ASKED_MS), Ok(None));
    }
    assert_eq!(malformed("{}"), Malformed::Missing("user"));
    assert_eq!(malformed(r#"{"pipes":{}}"#), Malformed::Missing("user"));
    assert_eq!(malformed(r#"{"user":null}"#), Malformed::Field("user"));
    assert_eq!(malformed(r#"{"user":{}}"#), Malformed::Missing("user.id"));
    for body in [
        "",
        " ",
        "nul",
        "null null",
        "true",
        "[]",
        r#""MARK""#,
        "<html>MARK</html>",
        "{\"user\":{\"id\":\"a\"}",
        "\u{feff}null",
    ] {
        assert_eq!(malformed(body), Malformed::Object, "{body}");
    }
}

#[test]
fn a1_every_other_wrong_type_refuses_the_whole() {
    let user = [
        r#""id":7"#,
        r#""id":"""#,
        r#""id":"MARK*""#,
        r#""id":"a b""#,
        r#""id":"a","id":"a""#,
        r#""id":"a","name":7"#,
        r#""id":"a","role":null"#,
        r#""id":"a","roles":"MARK""#,
        r#""id":"a","roles":[1]"#,
        r#""id":"a","features":{"chat":true}"#,
        r#""id":"a","tenant":7"#,
        r#""id":"a","org":[]"#,
        r#""id":"a","team":"{x}""#,
    ];
    for fields in user {
        malformed(&format!(r#"{{"user":{{{fields}}}}}"#));
    }
    let rest = [
        r#""pipes":[]"#,
        r#""pipes":null"#,
        r#""pipes":{"a":true}"#,
        r#""pipes":{"a b":{}}"#,
        r#""pipes":{"a":{},"a":{}}"#,
        r#""expires_at":"MARK""#,
        r#""expires_at":1.5"#,
        r#""expires_at":1e12"#,
        r#""expires_at":null"#,
        r#""expires_at":true"#,
        r#""session":7"#,
        r#""token_id":null"#,
        r#""session":"""#,
        r#""session":"a","session":"a""#,
        r#""limits":[]"#,
        r#""limits":null"#,
    ];
    for fields in rest {
        malformed(&format!(r#"{{"user":{{"id":"ann"}},{fields}}}"#));
    }
}

#[test]
fn b15_so_many_grants_and_no_more() {
    let with = |count: usize| {
        let grants: Vec<String> = (0..count).map(|i| format!(r#""p{i}":{{"subscribe":true}}"#)).collect();
        format!(r#"{{"userId":"ann","pipes":{{{}}}}}"#, grants.join(","))
    };
    assert_eq!(authorize(&with(GRANTS_MAX), ASKED_MS).unwrap().unwrap().grants.len(), GRANTS_MAX);
    assert_eq!(malformed(&with(GRANTS_MAX + 1)), Malformed::GrantsTooMany);
}

#[test]
fn b18_times_that_are_past_or_far_are_told_as_they_are() {
    let expires = |at: &str| {
        authorize(&format!(r#"{{"userId":"ann","expires_at":{at}}}"#), ASKED_MS).unwrap().unwrap().expires_at_ms
    };
    assert_eq!(expires("0"), Some(0));
    assert_eq!(expires("-5"), Some(0));
    assert_eq!(expires("1"), Some(1));
    assert_eq!(expires("99999999999999999999999999"), Some(EXPIRES_AT_MS_MAX));
}

#[test]
fn limits_of_a_wrong_type_or_range_refuse_the_whole() {
    let limits = |text: &str| authorize(&format!(r#"{{"userId":"ann","limits":{{{text}}}}}"#), ASKED_MS);
    for wrong in [
        r#""publish":5"#,
        r#""publish":null"#,
        r#""publish":{}"#,
        r#""publish":{"burst":5}"#,
        r#""publish":{"per_s":0}"#,
        r#""publish":{"per_s":-1}"#,
        r#""publish":{"per_s":"5"}"#,
        r#""publish":{"per_s":5,"burst":0.5}"#,
        r#""publish":{"per_s":5,"burst":null}"#,
        r#""bytes":[1]"#,
        r#""publish":{"per_s":5,"per_s":5}"#,
        r#""push":{"per_s":1},"push":{"per_s":1}"#,
        r#""subscriptions":0"#,
        r#""subscriptions":-1"#,
        r#""subscriptions":1.0"#,
        r#""subscriptions":"1""#,
        r#""subscriptions":null"#,
        r#""publish":{"per_s":true}"#,
    ] {
        assert_eq!(limits(wrong), Err(Malformed::Field("limits")), "{wrong}");
    }
    let read = |text: &str| *limits(text).unwrap().unwrap().limits.unwrap();
    assert_eq!(read("").rates, crate::config::Rates::default());
    assert_eq!(read(r#""refresh":{"per_s":0.5}"#).rates.refresh, Some(Rate { per_s: 0.5, burst: 1.0 }));
    assert_eq!(read(r#""action":{"per_s":3}"#).rates.action, Some(Rate { per_s: 3.0, burst: 3.0 }));
    assert_eq!(read(r#""subscriptions":99999999999"#).subscriptions, Some(u32::MAX));
    let every = ["message", "publish", "subscribe", "presence", "refresh", "action", "enqueue", "push", "bytes"];
    for name in every {
        assert_ne!(read(&format!(r#""{name}":{{"per_s":3}}"#)), Narrowed::default(), "{name}");
    }
}

// ---- rules -------------------------------------------------------------------------------------------------------

#[test]
fn rk6_only_allow_true_allows() {
    assert_eq!(ruling(r#"{"allow":true}"#), Ok(Ruling { allow: true, context: None }));
    assert_eq!(ruling(r#" {"allow":false,"more":[]} "#), Ok(Ruling { allow: false, context: None }));
    let with = ruling(r#"{"allow":true,"context":{"plan": "pro"}}"#).unwrap();
    assert_eq!(with.context.as_deref(), Some(r#"{"plan": "pro"}"#));
    let deep = format!(r#"{{"allow":true,"context":{{"a":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
    for body in [
        "",
        "null",
        "true",
        "[true]",
        "{}",
        r#"{"allow":"true"}"#,
        r#"{"allow":1}"#,
        r#"{"allow":null}"#,
        r#"{"Allow":true}"#,
        r#"{"allow":true,"allow":true}"#,
        r#"{"allow":false,"allow":true}"#,
        r#"{"allow":true,"context":[]}"#,
        r#"{"allow":true,"context":null}"#,
        r#"{"allow":true,"context":"MARK"}"#,
        r#"{"allow":true,"context":{"a":"\ud800"}}"#,
        r#"{"allow":true} MARK"#,
        &deep,
    ] {
        let sentence = ruling(body).expect_err(body);
        assert!(!sentence.contains("MARK") && !sentence.is_empty(), "{sentence}");
    }
}

// ---- actions -----------------------------------------------------------------------------------------------------

#[test]
fn f14_results_pass_verbatim() {
    for (status, body, expected) in [
        (200, r#"{"n":12345678901234567890123, "s":"\u00e9"}"#, r#"{"n":12345678901234567890123, "s":"\u00e9"}"#),
        (200, " [1, 1e400]\n", "[1, 1e400]"),
        (201, "7", "7"),
        (200, "", "null"),
        (200, " \n", "null"),
        (204, "", "null"),
        (204, "ignored", "null"),
        // Not errors of the agreed form: results.
        (200, r#"{"error":null,"data":1}"#, r#"{"error":null,"data":1}"#),
        (200, r#"{"error":"x"}"#, r#"{"error":"x"}"#),
        (200, r#"[{"error":{"code":"X"}}]"#, r#"[{"error":{"code":"X"}}]"#),
    ] {
        assert_eq!(action(status, body.as_bytes()).as_deref(), Ok(expected), "{body}");
    }
}

#[test]
fn f14_refusals_of_the_application_pass_with_their_code() {
    for status in [200, 400, 401, 403, 404, 409, 418, 422, 429, 499] {
        let body = r#"{"error":{"code":"OUT_OF_STOCK","message":"Nothing \u201cleft\u201d"},"more":1}"#;
        assert_eq!(refused(status, body), ("OUT_OF_STOCK".into(), "Nothing “left”".into(), false), "{status}");
    }
    assert_eq!(
        refused(200, r#"{"error":{"code":"OOPS"}}"#),
        ("OOPS".into(), "The application refused this".into(), false)
    );
    assert_eq!(refused(422, r#"{"error":{"code":"FORBIDDEN"}}"#), ("FORBIDDEN".into(), "Access denied".into(), false));
    let long = "é".repeat(2_000);
    let (_, message, _) = refused(400, &format!(r#"{{"error":{{"code":"A","message":"{long}"}}}}"#));
    assert_eq!((message.len(), message.chars().all(|c| c == 'é')), (1_024, true));
}

#[test]
fn f14_a_4xx_without_a_code_means_what_its_status_means() {
    for body in [
        "",
        "MARK",
        "{}",
        r#"{"error":"MARK"}"#,
        r#"{"error":{"code":"not one"}}"#,
        r#"{"message":"MARK"}"#,
        "\u{0}",
        r#"{"error":{"code":7}}"#,
    ] {
        for (status, code) in [
            (400, "INVALID"),
            (401, "UNAUTHENTICATED"),
            (403, "FORBIDDEN"),
            (404, "NOT_FOUND"),
            (409, "INVALID"),
            (422, "INVALID"),
            (429, "RATE_LIMITED"),
        ] {
            let (told, message, fault) = refused(status, body);
            assert_eq!((&*told, fault), (code, false), "{status} {body}");
            assert!(!message.contains("MARK"));
        }
    }
    assert_eq!(refused(403, r#"{"error":{"message":"Not yours"}}"#), ("FORBIDDEN".into(), "Not yours".into(), false));
    assert_eq!(action(404, b"\xff").unwrap_err().code, "NOT_FOUND".into());
}

#[test]
fn f14_what_is_not_as_agreed_is_a_fault_of_the_application() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    for body in [
        "<html>MARK",
        "{",
        "1 2",
        r#"{"error":{"code":"no"}}"#,
        r#"{"error":{}}"#,
        r#"{"error":1,"error":{}}"#,
        r#""\ud800""#,
        &deep,
    ] {
        assert_eq!(refused(200, body), ("INTERNAL".into(), "Internal error".into(), true), "{body}");
    }
    assert_eq!(action(200, b"\"\xff\"").unwrap_err().code, "INTERNAL".into());
    for status in [500, 502, 503, 599, 301, 302, 304, 100, 0, 600] {
        let body = r#"{"error":{"code":"MARK","message":"MARK"}}"#;
        assert_eq!(refused(status, body).0, "UNAVAILABLE", "{status}");
        assert!(refused(status, body).2);
    }
}

#[test]
fn codes_are_upper_case_words() {
    for good in ["A", "OUT_OF_STOCK", "E404", &"A".repeat(64)] {
        assert!(is_code(good), "{good}");
    }
    for bad in ["", "a", "Aa", "_A", "4A", "A-B", "A B", "É", "A\n", &"A".repeat(65)] {
        assert!(!is_code(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_anything_panic(body in ".{0,60}|[\\[\\]{}:,\"a0-9.e\\\\u-]{0,60}", status in 0_u16..700) {
        let _ = (authorize(&body, ASKED_MS), ruling(&body), action(status, body.as_bytes()));
        let nested = format!(r#"{{"user":{{"id":{body}}},"pipes":{body},"limits":{body},"allow":{body},"error":{body}}}"#);
        let _ = (authorize(&nested, ASKED_MS), ruling(&nested));
        if let Ok(result) = action(status, nested.as_bytes()) {
            prop_assert!(serde_json::from_str::<&RawValue>(&result).is_ok());
        }
    }
}
