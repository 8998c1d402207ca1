//! Fuzz entries of the message parser and of names: arbitrary bytes in, a panic on any disagreement with a second
//! opinion.
//!
//! The second opinions are `serde_json` (its scanner of ignored values takes exactly the grammar, at any depth and any
//! size of number) and a matcher that reads the definition of patterns word for word. Never called by the server.

use std::collections::{BTreeMap, HashMap};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::auth::identity::Identity;
use crate::protocol::json::Scanner;
use crate::protocol::message::{self, Request};
use crate::protocol::names::{Template, is_event_name, is_pattern, is_pipe_name, pattern_matches};

/// Parses `data` as a client's message, if it is UTF-8.
///
/// # Panics
/// Where the grammar disagrees with `serde_json`'s, where a payload is not verbatim, or where an invalid name passes.
pub fn fuzz_message(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    let mut scanner = Scanner::new(text);
    let accepted = scanner.value().is_ok() && scanner.at_end();
    assert_eq!(accepted, is_json, "grammar: {text}");

    let parsed = message::parse(text);
    let fields = serde_json::from_str::<BTreeMap<String, &RawValue>>(text);
    let Ok(envelope) = parsed else {
        let id = parsed.err().and_then(|malformed| malformed.id);
        assert!(id.is_none() || is_json, "an id was read from what is not JSON: {text}");
        return;
    };
    let fields = fields.unwrap_or_else(|error| panic!("accepted what serde_json refuses, {error}: {text}"));
    let field = |name: &str| fields.get(name).map(|value| value.get());
    assert_eq!(envelope.id.map(|id| id.token()), field("id").filter(|id| *id != "null"), "{text}");
    let string = |name: &str| field(name).and_then(|value| serde_json::from_str::<String>(value).ok());
    let same_data = |data: &str| assert_eq!(data, field("data").unwrap_or("null"), "{text}");
    match envelope.request {
        Request::Publish { pipe, event, data, echo } => {
            assert!(is_pipe_name(&pipe) && is_event_name(&event), "{text}");
            assert_eq!((Some(&*pipe), Some(&*event)), (string("pipe").as_deref(), string("event").as_deref()));
            assert_eq!(echo, field("echo") != Some("false"), "{text}");
            same_data(data);
        }
        Request::Subscribe { pipes, events, .. } => {
            assert!(pipes.as_slice().iter().all(|pipe| is_pipe_name(pipe)), "{text}");
            assert!(events.iter().flatten().all(|event| is_event_name(event)), "{text}");
        }
        Request::Enqueue { data, .. } | Request::Push { data, .. } => same_data(data),
        Request::Action { args, .. } => assert_eq!(args, field("args").unwrap_or("null"), "{text}"),
        Request::Unsubscribe { .. } | Request::Presence { .. } | Request::Refresh { .. } | Request::Ping => {}
    }
}

/// Takes `data` as a pattern or template and, after the first line break, a name.
///
/// # Panics
/// Where matching disagrees with [`naive_matches`], or a capture could not have been there.
pub fn fuzz_names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    let matched = pattern_matches(pattern, name);
    if pattern.len() <= 64 && name.len() <= 64 && pattern.is_ascii() && name.is_ascii() {
        assert_eq!(matched, naive_matches(pattern, name), "{pattern} {name}");
    }
    assert!(!(is_pattern(pattern) && is_pipe_name(pattern)), "{pattern}");
    let Ok(template) = Template::parse(pattern) else {
        return;
    };
    assert_eq!(template.text(), pattern);
    let Some(found) = template.matches(name) else {
        return;
    };
    for capture in template.captures() {
        let value = found.capture(capture).unwrap_or_else(|| panic!("{pattern} lost {capture} in {name}"));
        assert!(!value.is_empty() && !value.contains(':') && name.contains(value), "{pattern} {name}");
    }
    let nobody = Identity::default();
    assert!(!pattern.contains("{user.") || !found.own(&nobody), "{pattern} {name}");
}

/// The definition of patterns, word for word; slow.
pub fn naive_matches(pattern: &str, name: &str) -> bool {
    fn matches(pattern: &[u8], name: &[u8], seen: &mut HashMap<(usize, usize), bool>) -> bool {
        if let Some(&known) = seen.get(&(pattern.len(), name.len())) {
            return known;
        }
        let result = match pattern {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (1..=name.len()).any(|taken| matches(rest, &name[taken..], seen)),
            [b'*', rest @ ..] => (1..=name.len())
                .take_while(|&taken| name[taken - 1] != b':')
                .any(|taken| matches(rest, &name[taken..], seen)),
            [literal, rest @ ..] => name.first() == Some(literal) && matches(rest, &name[1..], seen),
        };
        seen.insert((pattern.len(), name.len()), result);
        result
    }
    matches(pattern.as_bytes(), name.as_bytes(), &mut HashMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Fragments of which most of the interesting messages and near misses can be put together.
    fn fragment() -> impl Strategy<Value = String> {
        const FRAGMENTS: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            " ",
            "\n",
            "\t",
            "\r",
            "null",
            "true",
            "false",
            "0",
            "-",
            "1",
            "12345678901234567890123",
            "1e400",
            "1.5",
            "E+7",
            "\"type\":\"publish\"",
            "\"type\":\"subscribe\"",
            "\"type\":\"ping\"",
            "\"pipe\":\"a\"",
            "\"pipes\":[\"a\",\"b\"]",
            "\"event\":\"e\"",
            "\"data\":",
            "\"id\":7",
            "\"id\":\"x\"",
            "\"i\\u0064\":1",
            "\"\\u0070ipe\":\"b\"",
            "\\u0041",
            "\\ud83d\\ude00",
            "\\ud800",
            "\\udc00",
            "\\n",
            "\\x",
            "\u{0}",
            "\u{1f}",
            "\u{7f}",
            "é",
            "😀",
            "{\"a\":[1,{\"b\":null}]}",
            "\"x\"",
            "\"echo\":false",
            "[[[[[[[[",
            "]]]]]]]]",
            "{\"a\":{\"a\":{\"a\":",
            "}}}",
        ];
        prop_oneof![9 => prop::sample::select(FRAGMENTS).prop_map(str::to_owned), 1 => any::<String>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_message(&data);
            fuzz_names(&data);
        }

        #[test]
        fn any_fragments(parts in prop::collection::vec(fragment(), 0..24)) {
            fuzz_message(parts.concat().as_bytes());
        }

        #[test]
        fn any_members(parts in prop::collection::vec(fragment(), 0..8), middle in fragment()) {
            fuzz_message(format!("{{{}}}", parts.join(",")).as_bytes());
            fuzz_message(format!(r#"{{"type":"publish","data": {} ,"pipe":"p","id":3{middle},"event":"e"}}"#, parts.concat()).as_bytes());
            fuzz_message(format!(r#"{{"type":"publish","data":"{}","pipe":"p{middle}","event":"e"}}"#, parts.concat()).as_bytes());
        }

        #[test]
        fn any_names(text in "[ab:*-]{0,10}(\\{[ab]\\}|\\{user\\.id\\})?[ab:*-]{0,6}(\\{[abc]\\})?\n[ab:-]{0,16}") {
            fuzz_names(text.as_bytes());
        }
    }
}
