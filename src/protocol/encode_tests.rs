//! Every message that the server sends, read back by `serde_json`.

use super::*;
use crate::protocol::frame::server_frame;
use proptest::prelude::*;
use serde_json::{Value, json};

fn message(build: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    build(&mut out);
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
}

/// The payload of the one unfragmented text frame that `bytes` are.
fn payload(bytes: &[u8]) -> &[u8] {
    let frame = server_frame(bytes).expect("a whole frame");
    let header_len = match frame.payload.len() {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    assert_eq!((bytes[0], bytes.len()), (0x81, header_len + frame.payload.len()));
    &bytes[header_len..]
}

fn id(token: &str) -> Id<'_> {
    Id::new(token).unwrap()
}

#[test]
fn welcome_names_the_user_and_the_full_grants() {
    // B21, B25
    let mut welcome_of = Welcome {
        connection: "0-1-2",
        user: Some(("u\"1", Some("Ünï\n"))),
        expires_at_ms: Some(1_700_000_000_123),
        ping_s: 25,
        message_bytes: 65_536,
        subscriptions: 256,
        queue_bytes: 1_048_576,
    };
    let grants = [("a:*", Rights::SUBSCRIBE), ("b", Rights::PUBLISH.union(Rights::PRESENCE)), ("c\\", Rights::NONE)];
    let limits = json!({"message_bytes": 65536, "subscriptions": 256, "queue_bytes": 1048576});
    assert_eq!(
        message(|out| welcome(out, &welcome_of, grants)),
        json!({
            "type": "welcome", "protocol": 1, "connection": "0-1-2", "user": {"id": "u\"1", "name": "Ünï\n"},
            "pipes": {
                "a:*": {"subscribe": true, "publish": false, "presence": false},
                "b": {"subscribe": false, "publish": true, "presence": true},
                "c\\": {"subscribe": false, "publish": false, "presence": false},
            },
            "expires_at": 1_700_000_000_123u64, "ping_s": 25, "limits": limits,
        })
    );
    (welcome_of.user, welcome_of.expires_at_ms) = (None, None);
    assert_eq!(
        message(|out| welcome(out, &welcome_of, [])),
        json!({"type": "welcome", "protocol": 1, "connection": "0-1-2", "user": null, "pipes": {}, "ping_s": 25, "limits": limits})
    );
    welcome_of.user = Some(("u", None));
    assert_eq!(message(|out| welcome(out, &welcome_of, []))["user"], json!({"id": "u", "name": null}));
}

#[test]
fn more_than_a_thousand_grants_are_cut_and_said_to_be() {
    // B25
    for (count, listed, truncated) in [(1000, 1000, Value::Null), (1001, 1000, json!(true))] {
        let names: Vec<String> = (0..count).map(|i| format!("p{i}")).collect();
        let grants = names.iter().map(|name| (name.as_str(), Rights::SUBSCRIBE));
        let reply = message(|out| reply_refresh(out, id("1"), grants, Some(5)));
        assert_eq!(reply["pipes"].as_object().map(|pipes| pipes.len()), Some(listed));
        assert_eq!(
            (&reply["pipes_truncated"], &reply["expires_at"], &reply["ok"]),
            (&truncated, &json!(5), &json!(true))
        );
    }
}

#[test]
fn replies_and_system_messages_have_their_fields() {
    assert_eq!(message(|out| reply_ok(out, id("7"))), json!({"type": "reply", "id": 7, "ok": true}));
    assert_eq!(
        message(|out| reply_error(out, id("\"a\\n\""), Code::RateLimited, "say \"x\"", Some(0))),
        json!({"type": "reply", "id": "a\n", "ok": false, "code": "RATE_LIMITED", "error": "say \"x\"", "retry_after_ms": 0})
    );
    assert_eq!(
        message(|out| reply_error(out, id("1"), Code::Forbidden, Code::Forbidden.text(), None)),
        json!({"type": "reply", "id": 1, "ok": false, "code": "FORBIDDEN", "error": "Access denied"})
    );
    assert_eq!(
        message(|out| reply_refresh(out, id("1"), [("a", Rights::PUBLISH)], None)),
        json!({"type": "reply", "id": 1, "ok": true, "pipes": {"a": {"subscribe": false, "publish": true, "presence": false}}})
    );
    assert_eq!(
        message(|out| reply_refused(out, id("1"), "OUT_OF_STOCK", "Nothing\nleft", None)),
        json!({"type": "reply", "id": 1, "ok": false, "code": "OUT_OF_STOCK", "error": "Nothing\nleft"})
    );
    assert_eq!(
        message(|out| reply_result(out, id("1"), r#"{"a":[1]}"#)),
        json!({"type": "reply", "id": 1, "ok": true, "result": {"a": [1]}})
    );
    assert_eq!(
        message(|out| reply_delivered(out, id("1"), 3)),
        json!({"type": "reply", "id": 1, "ok": true, "delivered": 3})
    );
    // A10
    assert_eq!(message(|out| pong(out, None)), json!({"type": "pong"}));
    assert_eq!(message(|out| pong(out, Some(id("\"\"")))), json!({"type": "pong", "id": ""}));
    // C28: the fields stand beside `event`.
    assert_eq!(
        message(|out| throttled(out, u64::MAX)),
        json!({"type": "system", "event": "throttled", "retry_after_ms": u64::MAX})
    );
    assert_eq!(
        message(|out| lagged(out, "a\"", 3)),
        json!({"type": "system", "event": "lagged", "pipe": "a\"", "dropped": 3})
    );
    assert_eq!(message(|out| draining(out, 10)), json!({"type": "system", "event": "draining", "reconnect_in_ms": 10}));
    assert_eq!(message(|out| expiring(out, 60)), json!({"type": "system", "event": "expiring", "in_s": 60}));
    assert_eq!(
        message(|out| unsubscribed(out, "a", "refresh")),
        json!({"type": "system", "event": "unsubscribed", "pipe": "a", "reason": "refresh"})
    );
}

#[test]
fn c7_a_batch_is_ok_with_a_result_for_each() {
    let reply = message(|out| {
        let mut batch = BatchReply::begin(out, id("1"));
        batch.ok("a\\");
        batch.error("b", Code::Forbidden.name(), "Access denied", None);
        batch.error("c", "OUT_OF_STOCK", "wait", Some(9));
        batch.end();
    });
    assert_eq!(
        reply,
        json!({"type": "reply", "id": 1, "ok": true, "results": {
            "a\\": {"ok": true},
            "b": {"ok": false, "code": "FORBIDDEN", "error": "Access denied"},
            "c": {"ok": false, "code": "OUT_OF_STOCK", "error": "wait", "retry_after_ms": 9},
        }})
    );
    assert_eq!(message(|out| BatchReply::begin(out, id("1")).end())["results"], json!({}));
}

#[test]
fn a6_senders_can_be_told_apart() {
    for (sender, expected) in
        [(Sender::User("u"), json!("u")), (Sender::Application, Value::Null), (Sender::Anonymous, json!(""))]
    {
        let frame = event_frame("p", "e", "1", sender, 0);
        let event: Value = serde_json::from_slice(payload(&frame)).unwrap();
        assert_eq!(event, json!({"type": "event", "pipe": "p", "event": "e", "data": 1, "sender": expected, "ts": 0}));
    }
}

#[test]
fn data_is_copied_verbatim() {
    // INVARIANTS 26, GD-10
    for data in ["12345678901234567890123", "1e400", "{\"a\" :\t1,\"a\":2 }", r#""\u0061\/é""#] {
        let frame = event_frame("p", "e", data, Sender::Application, 1);
        let text = std::str::from_utf8(payload(&frame)).unwrap();
        assert!(text.contains(&format!(",\"data\":{data},\"sender\":null,")), "{text}");
        assert_eq!(data_of(&frame), data);
    }
}

#[test]
fn the_data_of_a_frame_is_found_whatever_stands_in_and_around_it() {
    for (data, user) in [
        (r#"{"a":1,"sender":null,"ts":1}"#, "u"),
        (r#"",\"sender\":""#, r#"x","sender":"y"#),
        (r#"{"type":"event","pipe":"p","event":"e","data":7,"sender":null,"ts":0}"#, r#","sender":"#),
    ] {
        let frame = event_frame(r#"p","event":"x"#, r#"e","data":"#, data, Sender::User(user), 1);
        assert_eq!(data_of(&frame), data);
    }
    for other in
        [push_frame("e", "1", Sender::Application, 1), framed(|out| reply_ok(out, id("1"))), Vec::new(), vec![0x81]]
    {
        assert_eq!(data_of(&other), "null");
    }
}

proptest! {
    #[test]
    fn any_string_survives(text: String, controls in "[\\x00-\\x22\\\\-^\\x7f\u{e9}\u{2028}]{0,40}") {
        for text in [&text, &controls] {
            let mut out = Vec::new();
            string(&mut out, text);
            prop_assert_eq!(string_len(text), out.len());
            prop_assert_eq!(&serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn any_number_survives(value: u64, shift in 0..64u32) {
        let value = value >> shift;
        let (mut buffer, expected) = ([0; DIGITS_MAX], value.to_string());
        prop_assert_eq!(digits(value, &mut buffer), expected.as_bytes());
    }

    /// One allocation of exactly the right size, whatever the length of the header.
    #[test]
    fn events_are_framed_without_spare_capacity(
        pipe: String, event: String, user: String, ts_ms: u64, len in prop_oneof![0..200usize, 65_300..65_700usize],
    ) {
        let data = format!("\"{}\"", "x".repeat(len));
        let frame = event_frame(&pipe, &event, &data, Sender::User(&user), ts_ms);
        prop_assert_eq!(frame.capacity(), frame.len());
        prop_assert_eq!((pipe_of(&frame), event_name(&frame)), (pipe.clone(), event.clone()));
        let read: Value = serde_json::from_slice(payload(&frame)).unwrap();
        prop_assert_eq!(read, json!({"type": "event", "pipe": pipe, "event": event, "data": "x".repeat(len), "sender": user, "ts": ts_ms}));
    }

    #[test]
    fn whatever_is_built_is_framed(len in prop_oneof![0..300usize, 65_500..65_600usize]) {
        let frame = framed(|out| out.resize(out.len() + len, b'x'));
        prop_assert_eq!(payload(&frame), vec![b'x'; len]);
    }
}
