//! Identities and grants: what is read, and what refuses the whole.

use super::*;

#[test]
fn a_full_token_is_read_whole() {
    let decision = verify(
        r#"{"sub":"ann","name":"Ann \u2603","role":"admin","roles":["member","admin","member"],"team":"red","tenant":"acme","org":"o1",
        "features":["chat","x y"],"info":{"n":12345678901234567890123, "s":"\ud83d\ude00"},"iat":1600000000,"jti":"t-1","sid":"s-1",
        "exp":1700000060,"other":{"deep":[1]},
        "pipes":{"zeta":{"subscribe":true,"publish":true,"presence":true},"a-*":{"publish":true,"more":1},"**":{},
                 "m\u0061n":{"subscribe":"true","publish":1,"presence":null}}}"#,
    )
    .unwrap();
    let identity = &decision.identity;
    assert_eq!(identity.id(), "ann");
    assert_eq!(identity.name(), Some("Ann \u{2603}"));
    assert_eq!(identity.role(), Some("admin")); // B19
    assert_eq!(identity.roles().collect::<Vec<_>>(), ["admin", "member"]);
    assert_eq!((identity.team(), identity.tenant(), identity.org()), (Some("red"), Some("acme"), Some("o1")));
    assert_eq!(identity.features().map(Iterator::collect), Some(vec!["chat", "x y"]));
    assert_eq!(identity.info(), Some(r#"{"n":12345678901234567890123, "s":"\ud83d\ude00"}"#));
    assert_eq!((decision.session.as_deref(), decision.token_id.as_deref()), (Some("s-1"), Some("t-1")));
    assert_eq!((decision.issued_at_ms, decision.expires_at_ms), (Some(1_600_000_000_000), Some(NOW_MS + 60_000)));
    let all = Rights::SUBSCRIBE.union(Rights::PUBLISH).union(Rights::PRESENCE);
    let grants: Vec<(&str, Rights)> = decision.grants.iter().map(|grant| (&*grant.pipe, grant.rights)).collect();
    // In their order; a right that is not `true` is not granted (A1).
    assert_eq!(grants, [("zeta", all), ("a-*", Rights::PUBLISH), ("**", Rights::NONE), ("man", Rights::NONE)]);
    assert_eq!(decision.grants.capacity(), decision.grants.len());
}

#[test]
fn role_is_else_the_first_of_roles() {
    // B19
    let role = |claims: &str| {
        let identity = verify(&format!(r#"{{"sub":"a"{claims}}}"#)).unwrap().identity;
        (identity.role().map(String::from), identity.roles().count())
    };
    assert_eq!(role(""), (None, 0));
    assert_eq!(role(r#","roles":[]"#), (None, 0));
    assert_eq!(role(r#","roles":["x","y"]"#), (Some("x".into()), 2));
    assert_eq!(role(r#","role":"z""#), (Some("z".into()), 1));
    assert_eq!(role(r#","role":"z","roles":["x"]"#), (Some("z".into()), 2));
}

#[test]
fn ids_are_checked() {
    // B8, B9, INVARIANTS 5
    assert_eq!(refusal("{}"), TokenError::Claims(Malformed::Missing("sub")));
    let long = format!(r#""{}""#, "x".repeat(257));
    let wrong = [
        r#""""#,
        "7",
        "null",
        "true",
        "[]",
        r#"["MARK"]"#,
        r#"{"id":"MARK"}"#,
        r#""**""#,
        r#""a*MARK""#,
        r#""{MARK}""#,
        r#""a}""#,
        r#""a MARK""#,
        r#"" ""#,
        r#""a\tb""#,
        r#""a\u0000""#,
        r#""\u007f""#,
        r#""\u0085""#,
        r#""\u00a0""#,
        r#""\u2028""#,
        r#""\ud800""#,
        &long,
    ];
    for name in ["sub", "team", "tenant", "org", "role", "sid", "jti"] {
        for wrong in wrong {
            let user = if name == "sub" { "" } else { r#""sub":"a","# };
            assert_eq!(refusal(&format!(r#"{{{user}"{name}":{wrong}}}"#)), field(name), "{wrong}");
        }
    }
    for wrong in wrong.into_iter().filter(|wrong| *wrong != "[]" && *wrong != r#"["MARK"]"#) {
        assert_eq!(refusal(&format!(r#"{{"sub":"a","roles":{wrong}}}"#)), field("roles"));
        assert_eq!(refusal(&format!(r#"{{"sub":"a","roles":["x",{wrong}]}}"#)), field("roles"));
    }
    let most = "\u{e9}".repeat(128);
    assert_eq!(verify(&format!(r#"{{"sub":"{most}"}}"#)).unwrap().identity.id(), most);
    assert_eq!(verify(r#"{"sub":"a:b/c|d@e.org-\u96ea"}"#).unwrap().identity.id(), "a:b/c|d@e.org-\u{96ea}");
}

#[test]
fn other_fields_are_checked() {
    let long = format!(r#""{}""#, "x".repeat(1_025));
    for wrong in ["7", "null", "[]", &long] {
        assert_eq!(refusal(&format!(r#"{{"sub":"a","name":{wrong}}}"#)), field("name"), "{wrong}");
    }
    // B9 is about ids: a name may be any text.
    for name in ["", "{* }", "Ann\n\u{7}\0", &"x".repeat(1_024)] {
        let claims = serde_json::json!({"sub": "a", "name": name, "features": [name]});
        let identity = verify(&claims.to_string()).unwrap().identity;
        assert_eq!((identity.name(), identity.features().map(Iterator::collect)), (Some(name), Some(vec![name])));
    }
    let many = format!("[{}\"x\"]", "\"x\",".repeat(1000));
    for wrong in ["null", r#""chat""#, "{}", "[7]", r#"["chat",null]"#, r#"[["chat"]]"#, &format!("[{long}]"), &many] {
        assert_eq!(refusal(&format!(r#"{{"sub":"a","features":{wrong}}}"#)), field("features"), "{wrong}");
    }
    for any in
        ["null", "7", "-0.0", "1e400", r#""x""#, "[]", r#"{"a":{"a":1,"a":2}}"#, r#""\\ud800""#, r#""\u00e9\"[[""#]
    {
        assert_eq!(verify(&format!(r#"{{"sub":"a","info":{any}}}"#)).unwrap().identity.info(), Some(any));
    }
    let nested = |depth: usize| format!(r#"{{"sub":"a","info":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(verify(&nested(JSON_DEPTH_MAX)).is_ok());
    assert_eq!(refusal(&nested(JSON_DEPTH_MAX + 1)), field("info"));
    for half in [r#""\ud800""#, r#""\ud83d\u0041""#, r#""\ude00\ud83d""#, r#"{"\udfff":1}"#, r#""\ud83dx\ude00""#] {
        assert_eq!(refusal(&format!(r#"{{"sub":"a","info":{half}}}"#)), field("info"), "{half}");
    }
    // Deep nesting where nobody looks costs nothing.
    assert!(verify(&format!(r#"{{"sub":"a","x":{}{}}}"#, "[".repeat(5000), "]".repeat(5000))).is_ok());
}

#[test]
fn grants_are_checked() {
    // A1
    for wrong in [
        "7",
        "null",
        "[]",
        r#""MARK""#,
        r#"{"a":7}"#,
        r#"{"a":null}"#,
        r#"{"a":true}"#,
        r#"{"a":[]}"#,
        r#"{"a":["subscribe"]}"#,
        r#"{"a":{"subscribe":true,"subscribe":false}}"#,
        r#"{"a":{"subscribe":false,"subscrib\u0065":true}}"#,
    ] {
        assert_eq!(refusal(&format!(r#"{{"sub":"a","pipes":{wrong}}}"#)), field("pipes"), "{wrong}");
    }
    for right in ["false", "null", "1", r#""true""#, "[true]", r#"{"a":true}"#, "1e400"] {
        let claims = format!(r#"{{"sub":"a","pipes":{{"p":{{"subscribe":{right},"publish":true}}}}}}"#);
        assert_eq!(verify(&claims).unwrap().grants[0].rights, Rights::PUBLISH, "{right}");
    }
    for name in ["", "a b", "a{b}", "{MARK", "\\u00e9", "a\\n", &"x".repeat(201)] {
        let error = refusal(&format!(r#"{{"sub":"a","pipes":{{"ok":{{}},"{name}":{{}}}}}}"#));
        assert_eq!(error, TokenError::Claims(Malformed::GrantName), "{name}");
    }
    for repeated in [r#""p":{},"q":{},"p":{}"#, r#""p*":{},"\u0070*":{"publish":true}"#] {
        let error = refusal(&format!(r#"{{"sub":"a","pipes":{{{repeated}}}}}"#));
        assert_eq!(error, TokenError::Claims(Malformed::GrantRepeated));
    }
    assert!(verify(r#"{"sub":"a"}"#).unwrap().grants.is_empty());
    assert!(verify(r#"{"sub":"a","pipes":{}}"#).unwrap().grants.is_empty());
}

#[test]
fn grants_are_bounded() {
    // B15. So many do not fit a token, but they do fit a webhook's answer.
    let pipes = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!(r#""p{n}":{{}}"#)).collect();
        serde_json::value::RawValue::from_string(format!("{{{}}}", names.join(","))).unwrap()
    };
    assert_eq!(crate::auth::claims::grants(&pipes(GRANTS_MAX)).unwrap().len(), GRANTS_MAX);
    assert_eq!(crate::auth::claims::grants(&pipes(GRANTS_MAX + 1)), Err(Malformed::GrantsTooMany));
}

#[test]
fn claims_are_one_object_with_each_name_once() {
    let object = TokenError::Claims(Malformed::Object);
    for wrong in [
        "",
        "null",
        "[]",
        r#""MARK""#,
        r#"{"sub":"a""#,
        r#"{"sub":"a"}x"#,
        r#"{"sub":"a"}{}"#,
        r#"{"sub":"a",}"#,
        r#"{'sub':'a'}"#,
        r#"{"sub":"a","sub":"a"}"#,
        r#"{"sub":"a","\u0073ub":"b"}"#,
        r#"{"sub":"a","exp":1800000000,"exp":1900000000}"#,
        r#"{"sub":"a","team":"x","team":"y"}"#,
        r#"{"sub":"a","pipes":{},"pipes":{}}"#,
        "{\"sub\":\"a\",\"info\":\"\n\"}",
        "\u{feff}{\"sub\":\"a\"}",
    ] {
        assert_eq!(refusal(wrong), object, "{wrong}");
    }
}
