//! Tests of values: JSON in and out, and the variables of rules.

use proptest::prelude::*;

use super::*;
use crate::auth::identity::Profile;

#[test]
fn numbers_keep_what_they_are() {
    // F21, INVARIANTS 26
    for (text, value) in [
        ("0", Value::Int(0)),
        ("-0", Value::Int(0)),
        ("9223372036854775807", Value::Int(i64::MAX)),
        ("-9223372036854775808", Value::Int(i64::MIN)),
        ("9223372036854775808", Value::Uint(9_223_372_036_854_775_808)),
        ("18446744073709551615", Value::Uint(u64::MAX)),
        ("18446744073709551616", Value::Double(18_446_744_073_709_551_616.0)),
        ("-9223372036854775809", Value::Double(-9_223_372_036_854_775_809.0)),
        ("12345678901234567890123", Value::Double(12_345_678_901_234_567_890_123.0)),
        ("1e400", Value::Double(f64::INFINITY)),
        ("-1e400", Value::Double(f64::NEG_INFINITY)),
        ("1.0", Value::Double(1.0)),
        ("1e3", Value::Double(1000.0)),
        ("1E-2", Value::Double(0.01)),
    ] {
        assert_eq!(json(text), Ok(value), "{text}");
    }
}

#[test]
fn what_is_no_json_has_no_value() {
    for text in [
        "",
        " ",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "tru",
        "nul",
        "True",
        "'a'",
        "\"",
        "\"\u{1}\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{1:1}",
        "1 2",
        "[]]",
        "NaN",
        "Infinity",
        "\"\\u+123\"",
        "\u{feff}1",
    ] {
        assert_eq!(json(text), Err(NotJson::Malformed), "{text}");
    }
}

#[test]
fn a_key_twice_has_no_value() {
    for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"b":2,"\u0061":3}"#, r#"[{"x":{"k":1,"k":2}}]"#] {
        assert_eq!(json(text), Err(NotJson::RepeatedKey), "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(json(&nested(128)).is_ok());
    assert_eq!(json(&nested(129)), Err(NotJson::TooDeep));
    assert_eq!(json(&"[".repeat(1_000_000)), Err(NotJson::TooDeep));
    assert_eq!(json(&"{\"a\":".repeat(1_000_000)), Err(NotJson::TooDeep));
}

#[test]
fn text_survives() {
    let text = r#"{"a":[1,-2,2.5,true,false,null,"x\"\\\n\r\t\u0001ä😀"],"b":{},"c":[]}"#;
    let value = json(text).expect("JSON");
    assert_eq!(to_json(&value), text);
    assert_eq!(json(r#""\ud83d\ude00\/\b\f""#), Ok(Value::string("😀/\u{8}\u{c}")));
    assert_eq!(to_json(&Value::Double(f64::INFINITY)), "null");
}

#[test]
fn absent_stays_absent() {
    // B20, B21
    let bare = Profile { id: "u1", ..Profile::default() };
    assert_eq!(to_json(&user(Some(&Identity::new(&bare)))), r#"{"id":"u1","roles":[]}"#);
    let without = Identity::new(&Profile { features: Some(vec![]), ..bare });
    assert_eq!(to_json(&user(Some(&without))), r#"{"features":[],"id":"u1","roles":[]}"#);
    assert_eq!(to_json(&user(None)), "{}");
    let whole = Identity::new(&Profile {
        id: "u1",
        name: Some("Ada"),
        role: Some("a"),
        roles: vec!["a", "b"],
        team: Some("red"),
        tenant: Some("t"),
        org: Some("o"),
        features: Some(vec!["chat"]),
        info: Some(r#"{"x":1}"#),
    });
    assert_eq!(
        to_json(&user(Some(&whole))),
        r#"{"features":["chat"],"id":"u1","info":{"x":1},"name":"Ada","org":"o","role":"a","roles":["a","b"],"team":"red","tenant":"t"}"#
    );
}

#[test]
fn an_info_that_cannot_be_read_is_not_absent() {
    let odd = Identity::new(&Profile {
        id: "u1",
        info: Some(r#"{"suspended":true,"suspended":true}"#),
        ..Profile::default()
    });
    let Value::Map(fields) = user(Some(&odd)) else {
        panic!("no map");
    };
    assert_eq!(fields.get("info"), Some(&Value::Unreadable));
    assert_eq!(parsed("{"), Value::Unreadable);
    assert_eq!(to_json(&Value::Unreadable), "null");
}

#[test]
fn captures_become_params() {
    let template = Template::parse("{tenant}:room-{room}").expect("template");
    let matched = template.matches("t1:room-x").expect("matches");
    assert_eq!(to_json(&params(&matched, &template)), r#"{"room":"x","tenant":"t1"}"#);
}

#[test]
fn guards_enrich_the_context() {
    let mut ctx = Value::empty();
    set(&mut ctx, "a", Value::Int(1));
    set(&mut ctx, "b", Value::Null);
    set(&mut ctx, "a", Value::Int(2));
    assert_eq!(to_json(&ctx), r#"{"a":2,"b":null}"#);
    merge_json(&mut ctx, r#"{"b":[true],"c":{}}"#).expect("merges");
    assert_eq!(to_json(&ctx), r#"{"a":2,"b":[true],"c":{}}"#);
    for (text, why) in
        [("[]", NotJson::NoObject), ("{", NotJson::Malformed), (r#"{"x":1,"x":2}"#, NotJson::RepeatedKey)]
    {
        assert_eq!(merge_json(&mut ctx, text), Err(why));
        assert_eq!(to_json(&ctx), r#"{"a":2,"b":[true],"c":{}}"#, "as it was");
    }
    assert_eq!(to_json(&to("role", "x")), r#"{"role":"x"}"#);
    assert_eq!(to_json(&event("e", Value::Int(1))), r#"{"data":1,"name":"e"}"#);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,40}|[\\[\\]{}:,\"0-9eE.+\\-tfnulrs\\\\ ]{0,40}") {
        if let Ok(value) = json(&text) {
            let written = to_json(&value);
            prop_assert_eq!(to_json(&json(&written).expect("what is written is JSON")), written);
        }
    }

    #[test]
    fn agrees_with_serde(text in "[\\[\\]{}:,\"0-9eE.+\\-tfnulrs\\\\ ]{0,30}") {
        match (json(&text), serde_json::from_str::<serde_json::Value>(&text)) {
            // serde_json refuses numbers beyond a double and takes a key twice.
            (Ok(_), Ok(_)) | (Err(_), Err(_)) | (Err(NotJson::RepeatedKey), Ok(_)) => {}
            (Ok(_), Err(error)) => prop_assert!(error.to_string().contains("out of range"), "{text}: {error}"),
            (Err(error), Ok(_)) => prop_assert!(false, "{text}: {error}"),
        }
    }
}
