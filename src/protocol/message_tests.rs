//! Each ruling about client messages, by name, and the parser against a tree made by `serde_json`.

use super::*;
use proptest::prelude::*;

fn request(text: &str) -> Request<'_> {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}")).request
}

/// The id token that an `INVALID` reply would carry.
fn refused(text: &str) -> Option<&str> {
    let error = parse(text).expect_err(text);
    assert!(!error.error.is_empty());
    error.id.map(Id::token)
}

fn id(token: &str) -> Result<Option<String>, Option<String>> {
    match parse(&format!(r#"{{"type":"ping","id":{token}}}"#)) {
        Ok(envelope) => Ok(envelope.id.map(|id| id.token().to_owned())),
        Err(error) => Err(error.id.map(|id| id.token().to_owned())),
    }
}

#[test]
fn c1_ids_are_safe_integers_or_short_strings() {
    let longest = format!("\"{}\"", "x".repeat(64));
    let escaped = format!("\"{}\"", "\\u0041".repeat(64));
    for token in [
        "0",
        "-0",
        "7",
        "9007199254740991",
        "-9007199254740991",
        "\"\"",
        "\"a b\"",
        r#""\n\ud83d\ude00""#,
        &longest,
        &escaped,
    ] {
        assert_eq!(id(token), Ok(Some(token.to_owned())), "echoed verbatim");
        assert_eq!(Id::new(token).map(Id::token), Some(token));
    }
    let too_long = format!("\"{}é\"", "x".repeat(63));
    let too_long_escaped = format!("\"{}\"", "\\u0041".repeat(65));
    for token in [
        "9007199254740992",
        "-9007199254740992",
        "99999999999999999999999",
        "1.0",
        "1e3",
        "1E400",
        "true",
        "[]",
        "{}",
        &too_long,
        &too_long_escaped,
        "\"\\ud800\"",
    ] {
        assert_eq!(id(token).map_err(|id| id.is_some() && token != "\"\\ud800\""), Err(false), "{token}");
        assert!(Id::new(token).is_none(), "{token}");
    }
    assert!(Id::new(" 7").is_none() && Id::new("7 ").is_none() && Id::new("").is_none());
    assert_eq!(id("null"), Ok(None), "null counts as absent");
    // No effect and no reply, whatever else is wrong or right.
    assert_eq!(refused(r#"{"id":1.5,"type":"nonsense"}"#), None);
    assert_eq!(refused(r#"{"id":1,"id":2,"type":"ping"}"#), None);
}

#[test]
fn c3_what_is_no_json_object_gets_no_reply() {
    for text in [
        "",
        " ",
        "x",
        "7",
        "null",
        "[]",
        "\"id\"",
        "[{\"id\":1}]",
        r#"{"id":1,"type":"ping""#,
        r#"{"id":1,"type":"ping"}x"#,
        r#"{"id":1,"type":"ping",}"#,
        r#"{"id":1,"data":01}"#,
        r#"{"id":1}{"id":2}"#,
        "{\"id\":1,\"data\":\"\n\"}",
    ] {
        assert_eq!(refused(text), None, "{text}");
    }
}

#[test]
fn c4_a_repeated_key_of_the_envelope_is_malformed() {
    for text in [
        r#"{"id":1,"type":"publish","pipe":"a","pipe":"b","event":"e"}"#,
        r#"{"id":1,"type":"publish","pipe":"a","\u0070ipe":"a","event":"e"}"#,
        r#"{"id":1,"type":"ping","type":"ping"}"#,
        r#"{"id":1,"type":"ping","x":1,"y":2,"x":1}"#,
        r#"{"type":"ping","data":null,"data":null,"id":1}"#,
    ] {
        assert_eq!(refused(text), Some("1"), "{text}");
    }
    // Inside data nothing is inspected.
    let text = r#"{"type":"publish","pipe":"a","event":"e","data":{"pipe":"x","pipe":"y","id":1,"id":2}}"#;
    assert!(matches!(request(text), Request::Publish { data: r#"{"pipe":"x","pipe":"y","id":1,"id":2}"#, .. }));
}

#[test]
fn c5_more_than_128_levels_is_invalid() {
    let text = |levels: usize| {
        // The message itself is one level.
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"type":"publish","pipe":"a","event":"e","data":{open}{close},"id":1}}"#)
    };
    assert!(parse(&text(128)).is_ok());
    assert_eq!(refused(&text(129)), Some("1"));
    assert_eq!(refused(&text(20_000)), Some("1"), "an id behind it is still found");
    assert!(matches!(parse(&text(129)), Err(error) if error.error.contains("128")));
    // In a field that means nothing, too; and unbalanced brackets are no JSON at any depth.
    assert_eq!(refused(&text(129).replace("data", "other")), Some("1"));
    assert_eq!(refused(&text(129).replace("]}", "]]}").replace("],", "]],")), None);
}

#[test]
fn c6_one_of_pipe_and_pipes() {
    let many = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("\"p{i}\"")).collect();
        format!(r#"{{"id":1,"type":"subscribe","pipes":[{}]}}"#, names.join(","))
    };
    for kind in ["subscribe", "unsubscribe"] {
        for fields in [
            r#","pipe":"a","pipes":["b"]"#,
            "",
            r#","pipes":[]"#,
            r#","pipes":null"#,
            r#","pipes":"a""#,
            r#","pipes":{"a":1}"#,
            r#","pipes":["a",1]"#,
            r#","pipes":["a","b*"]"#,
            r#","pipe":["a"]"#,
            r#","pipe":"a*""#,
            r#","pipe":"""#,
        ] {
            assert_eq!(refused(&format!(r#"{{"id":1,"type":"{kind}"{fields}}}"#)), Some("1"), "{fields}");
        }
    }
    assert!(
        matches!(request(&many(256)), Request::Subscribe { pipes: Pipes::Many(pipes), presence: false, events: None } if pipes.len() == 256)
    );
    assert_eq!(refused(&many(257)), Some("1"));
    let text = r#"{"type":"unsubscribe","pipe":null,"pipes":["b","a","b","\u0061","c"]}"#;
    let Request::Unsubscribe { pipes } = request(text) else { panic!() };
    assert_eq!(pipes.as_slice(), ["b", "a", "c"], "a repeated name counts once, at its first place");
    assert_eq!(request(r#"{"type":"unsubscribe","pipe":"a"}"#), Request::Unsubscribe { pipes: Pipes::One("a".into()) });
}

#[test]
fn c14_absent_data_is_null_and_names_are_checked() {
    let Request::Publish { data, echo, pipe, event } = request(r#"{"type":"publish","pipe":"a","event":"e"}"#) else {
        panic!()
    };
    assert_eq!((data, echo), ("null", true));
    assert!(matches!((pipe, event), (Cow::Borrowed("a"), Cow::Borrowed("e"))), "names are not copied");
    for (pipe, event) in [
        ("a*", "e"),
        ("**", "e"),
        ("", "e"),
        ("a b", "e"),
        ("{a}", "e"),
        ("é", "e"),
        ("a", ""),
        ("a", "e f"),
        ("a", "é"),
        (&*"p".repeat(201), "e"),
        ("a", &*"e".repeat(101)),
    ] {
        assert_eq!(
            refused(&format!(r#"{{"id":1,"type":"publish","pipe":"{pipe}","event":"{event}"}}"#)),
            Some("1"),
            "{pipe} {event}"
        );
    }
    let escaped = r#"{"type":"publish","pipe":"\u0061\"\\\/","event":"\u002a"}"#;
    assert!(matches!(request(escaped), Request::Publish { pipe, event, .. } if pipe == "a\"\\/" && event == "*"));
}

#[test]
fn c18_push_names_exactly_one_target() {
    let push = |to: &str| format!(r#"{{"id":1,"type":"push","to":{to},"event":"e","data":[1]}}"#);
    let longest = format!(r#"{{"user":"{}"}}"#, "x".repeat(256));
    for to in [
        r#"{"user":"a"}"#,
        r#"{"connection":"a"}"#,
        r#"{"role":"a"}"#,
        r#"{"tenant":"a"}"#,
        r#"{ "org" : "\u0061" }"#,
        &longest,
    ] {
        assert!(matches!(request(&push(to)), Request::Push { data: "[1]", .. }), "{to}");
    }
    assert!(matches!(request(&push(r#"{"role":"a"}"#)), Request::Push { to: Target::Role(role), .. } if role == "a"));
    for to in [
        "{}",
        "null",
        "\"a\"",
        "[]",
        r#"{"user":"a","org":"b"}"#,
        r#"{"user":"a","user":"a"}"#,
        r#"{"user":"a","team":"b"}"#,
        r#"{"team":"a"}"#,
        r#"{"user":1}"#,
        r#"{"user":""}"#,
        r#"{"user":null}"#,
        &longest.replace("xx\"", "xxx\""),
    ] {
        assert_eq!(refused(&push(to)), Some("1"), "{to}");
    }
    assert_eq!(refused(r#"{"id":1,"type":"push","event":"e"}"#), Some("1"));
}

#[test]
fn every_type_is_read() {
    assert_eq!(request(r#"{"type":"ping"}"#), Request::Ping);
    assert_eq!(request(r#"{"type":"presence","pipe":"a"}"#), Request::Presence { pipe: "a".into() });
    assert_eq!(
        request(r#"{"type":"action","name":"f g","args":{"x": 1}}"#),
        Request::Action { name: "f g".into(), args: r#"{"x": 1}"# }
    );
    assert_eq!(request(r#"{"type":"action","name":"f"}"#), Request::Action { name: "f".into(), args: "null" });
    assert_eq!(
        request(r#"{"type":"enqueue","queue":"q","data": 1 }"#),
        Request::Enqueue { queue: "q".into(), data: "1" }
    );
    assert_eq!(request(r#"{"type":"refresh"}"#), Request::Refresh { token: None });
    assert_eq!(request(r#"{"type":"refresh","token":null}"#), Request::Refresh { token: None });
    assert_eq!(request(r#"{"type":"refresh","token":"a.b"}"#), Request::Refresh { token: Some("a.b".into()) });
    assert_eq!(
        request(
            "\t{ \"type\" :\r\n\"subscribe\" , \"events\":[ \"e\" , \"f\" ], \"presence\":true,\"pipe\":\"a\" } \n"
        ),
        Request::Subscribe {
            pipes: Pipes::One("a".into()),
            presence: true,
            events: Some(vec!["e".into(), "f".into()])
        }
    );
    assert!(matches!(
        request(r#"{"type":"subscribe","pipe":"a","events":[]}"#),
        Request::Subscribe { events: None, .. }
    ));
}

#[test]
fn wrong_types_of_fields_are_invalid_and_unknown_fields_are_not() {
    let events = format!(r#"{{"id":1,"type":"subscribe","pipe":"a","events":[{}]}}"#, vec!["\"e\""; 65].join(","));
    for text in [
        r#"{"id":1}"#,
        r#"{"id":1,"type":1}"#,
        r#"{"id":1,"type":"Publish"}"#,
        r#"{"id":1,"type":null}"#,
        r#"{"id":1,"type":"publish","pipe":"a","event":"e","echo":1}"#,
        r#"{"id":1,"type":"publish","pipe":1,"event":"e"}"#,
        r#"{"id":1,"type":"publish","pipe":"a"}"#,
        r#"{"id":1,"type":"publish","event":"e"}"#,
        r#"{"id":1,"type":"subscribe","pipe":"a","presence":"true"}"#,
        r#"{"id":1,"type":"subscribe","pipe":"a","events":"e"}"#,
        r#"{"id":1,"type":"subscribe","pipe":"a","events":[1]}"#,
        r#"{"id":1,"type":"subscribe","pipe":"a","events":["a b"]}"#,
        &events,
        r#"{"id":1,"type":"action"}"#,
        r#"{"id":1,"type":"enqueue","queue":1}"#,
        r#"{"id":1,"type":"refresh","token":1}"#,
        r#"{"id":1,"type":"presence"}"#,
        r#"{"id":1,"type":"ping","x":"\ud800"}"#,
    ] {
        assert_eq!(refused(text), Some("1"), "{text}");
    }
    assert_eq!(request(r#"{"type":"ping","pipe":7,"seq":{},"x":[],"":0,"data":1e400}"#), Request::Ping);
    assert!(parse(&events.replacen("\"e\",", "", 1)).is_ok());
}

#[test]
fn the_table_of_keys_finds_itself() {
    for name in [
        "type", "id", "pipe", "pipes", "presence", "events", "event", "data", "echo", "name", "args", "queue", "to",
        "token",
    ] {
        assert_eq!(Key::of(name).map(Key::name), Some(name));
    }
    assert_eq!((Key::COUNT, Key::of("Type")), (14, None));
}

/// JSON text of any value, with white space, escapes and numbers that fit nothing.
fn json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        prop::collection::vec(
            prop::sample::select(vec!["\\u0061", "\\/", "\\ud83d\\ude00", "x", "é", "\\\\", "\\\""]),
            0..6
        )
        .prop_map(|parts| format!("\"{}\"", parts.concat())),
    ]
    .boxed();
    let number = "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?";
    let leaf =
        prop_oneof![string.clone(), number, Just("null".to_owned()), Just("true".to_owned()), Just("false".to_owned())];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|values| format!("[ {}]", values.join(" ,\n"))),
            prop::collection::vec((string.clone(), inner), 0..5).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}\t: {value}")).collect();
                format!("{{{} }}", members.join(", "))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// INVARIANTS 26: grammar checked, bytes untouched, wherever the fields and the white space are.
    #[test]
    fn generated_publishes_come_back_verbatim(
        data in json(), extra in json(), pipe in "[!-z|~]{1,30}", event in "[!-~]{1,20}", number in -9_007_199_254_740_991..=9_007_199_254_740_991i64,
        echo: bool, space in "[ \t\r\n]{0,3}", order in Just((0..7).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        prop_assume!(!pipe.contains('*'));
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let members = [
            format!("\"type\"{space}:{space}\"publish\""), format!("\"pipe\":{space}{}", quoted(&pipe)), format!("\"event\":{}", quoted(&event)),
            format!("\"data\"{space}:{space}{data}{space}"), format!("\"id\":{number}"), format!("\"echo\":{echo}{space}"), format!("\"extra\":{extra}"),
        ];
        let members: Vec<&str> = order.iter().map(|&i| members[i].as_str()).collect();
        let text = format!("{space}{{{space}{}{space}}}{space}", members.join(&format!("{space},{space}")));
        let id = number.to_string();
        let expected = Envelope {
            id: Id::new(&id),
            request: Request::Publish { pipe: pipe.as_str().into(), event: event.as_str().into(), data: &data, echo },
        };
        prop_assert_eq!(parse(&text), Ok(expected));
        crate::protocol::message_fuzz::fuzz_message(text.as_bytes());
        // Every proper prefix is no JSON, and never a panic.
        let cut = text.trim_end().len() - 1;
        for end in (0..cut).filter(|&end| text.is_char_boundary(end)) {
            let answerable = parse(&text[..end]).map_err(|error| error.id.is_some());
            prop_assert_eq!(answerable, Err(false));
        }
    }

    /// One byte changed anywhere: still the same opinion as `serde_json`.
    #[test]
    fn damaged_publishes_are_judged_like_serde_json(data in json(), at: prop::sample::Index, byte in prop::sample::select(b"{}[]\",:\\ \n\x000eE.-+ntfuxd8".to_vec())) {
        let mut bytes = format!(r#"{{"type":"publish","pipe":"a","id":"x","event":"e","data":{data}}}"#).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        crate::protocol::message_fuzz::fuzz_message(&bytes);
    }
}
