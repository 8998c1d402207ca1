//! The definitions of names, patterns and templates, and both matchers against the naive one.

use super::*;
use crate::auth::identity::Profile;
use crate::protocol::message_fuzz::naive_matches;
use proptest::prelude::*;

#[test]
fn names_are_bounded_printable_ascii() {
    // C14, PROTOCOL §1
    for name in ["a", "team:1/x?y=\"z\"\\", "~!", &"x".repeat(200)] {
        assert!(is_pipe_name(name) && !is_pattern(name), "{name}");
    }
    for name in ["", " ", "a b", "a*", "{a}", "a}", "é", "a\n", "a\u{7f}", &"x".repeat(201)] {
        assert!(!is_pipe_name(name), "{name}");
    }
    assert!(is_event_name("a*{}:\"") && is_event_name(&"x".repeat(100)));
    for name in ["", "a b", "é", "\t", &"x".repeat(101)] {
        assert!(!is_event_name(name), "{name}");
    }
    assert!(is_pattern("*") && is_pattern("team:**") && is_pattern(&"*".repeat(200)));
    for pattern in ["", "a", "* ", "{a}*", "é*", &"*".repeat(201)] {
        assert!(!is_pattern(pattern), "{pattern}");
    }
}

#[test]
fn wildcards_stand_for_one_or_more() {
    // PROTOCOL §1, HP-3
    for (pattern, name, expected) in [
        ("room-*", "room-1", true),
        ("room-*", "room-", false),
        ("room-*", "room-1:x", false),
        ("room-**", "room-1:x", true),
        ("room-**", "room-", false),
        ("*", "a:b", false),
        ("**", "a:b", true),
        ("*:chat", "t:chat", true),
        ("*:chat", ":chat", false),
        ("*:*", "a:b:c", false),
        ("**:c", "a:b:c", true),
        ("a**b*c", "a:bxbyc", true),
        ("a**b*c", "a:bxb:c", false),
        ("***", "ab", true),
        ("***", "a", false),
        ("***", "a:", false),
        ("***", ":a", true),
        ("abc", "abc", true),
        ("abc", "abcd", false),
    ] {
        assert_eq!(pattern_matches(pattern, name), expected, "{pattern} {name}");
    }
    let long = "a".repeat(201);
    assert!(!pattern_matches("*", &long) && !pattern_matches(&long, &long));
}

fn values(template: &str, name: &str) -> Option<Vec<String>> {
    let template = Template::parse(template).unwrap();
    let found = template.matches(name)?;
    Some(template.captures().map(|capture| found.capture(capture).unwrap().to_owned()).collect())
}

#[test]
fn captures_take_whole_segments_but_for_literals() {
    // F1
    let some = |values: &[&str]| Some(values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>());
    assert_eq!(values("{tenant}:{org}:team-{team}", "t1:o:team-a-b"), some(&["t1", "o", "a-b"]));
    assert_eq!(values("{tenant}:{org}:team-{team}", "t1:o:team-"), None);
    assert_eq!(values("{tenant}:{org}:team-{team}", "t1:o:x:team-a"), None);
    assert_eq!(values("{a}:**:x{b}y:c", "1:2:3:x4y:c"), some(&["1", "4"]));
    assert_eq!(values("*:{a}", "1:2"), some(&["2"]));
    assert_eq!(values("r{a}", "rr"), some(&["r"]));
    assert_eq!(values("exact", "exact"), some(&[]));
    assert_eq!(values("exact", "exac"), None);
    assert!(Template::parse("{a}").unwrap().matches("x").unwrap().capture("b").is_none());
}

#[test]
fn ambiguous_or_unknown_captures_are_refused() {
    // F1, F2
    for (text, says) in [
        ("{a}-{b}", "two captures"),
        ("x:{a}{b}", "two captures"),
        ("{user.id}-{b}", "two captures"),
        ("{a}*", "a capture and a `*`"),
        ("**-{a}", "a capture and a `*`"),
        ("**:{a}:**", "between two"),
        ("{a}:{a}", "used before"),
        ("{user.name}", "unknown"),
        ("{user.}", "unknown"),
        ("{}", "letters"),
        ("{1a}", "letters"),
        ("{a.b}", "letters"),
        ("{a b}", "letters"),
        ("{a", "without"),
        ("{a:b}", "without"),
        ("a}", "printable"),
        ("{a}}", "printable"),
        ("a b", "printable"),
        ("", "printable"),
        ("é", "printable"),
    ] {
        let refused = Template::parse(text).unwrap_err();
        assert!(refused.contains(says), "{text}: {refused}");
    }
    assert!(Template::parse(&"x".repeat(201)).is_err());
    assert!(Template::parse("{user.id}:{user.id}:{user.org}").is_ok());
}

#[test]
fn own_values_are_compared_with_the_identity() {
    // F2, INVARIANTS 5
    let identity = |id: &str, team: Option<&str>| Identity::new(&Profile { id, team, ..Profile::default() });
    let template = Template::parse("{user.team}:user-{user.id}:{x}").unwrap();
    let found = template.matches("red:user-7:x").unwrap();
    assert!(found.own(&identity("7", Some("red"))));
    assert!(!found.own(&identity("8", Some("red"))));
    assert!(!found.own(&identity("7", Some("blue"))));
    assert!(!found.own(&identity("7", None)));
    assert_eq!(template.captures().collect::<Vec<_>>(), ["x"]);
    assert_eq!(found.capture("user.id"), None);
    let simple = Template::parse("user-{user.id}").unwrap();
    assert!(simple.matches("user-a:b").is_none());
    assert!(!simple.matches("user-a").unwrap().own(&identity("a:b", None)));
    assert!(!simple.matches("user-a").unwrap().own(&identity("", None)));
}

proptest! {
    #[test]
    fn patterns_match_as_a_naive_reading_does(pattern in "[ab:*]{1,12}", name in "[ab:]{1,14}") {
        prop_assert_eq!(pattern_matches(&pattern, &name), naive_matches(&pattern, &name));
    }

    /// Built from a pattern by replacing its wildcards, so that most of them match.
    #[test]
    fn patterns_match_names_built_from_them(parts in prop::collection::vec(("[a:]{0,3}", "\\*{0,2}", "[ab]{1,3}"), 1..8)) {
        let pattern: String = parts.iter().map(|(literal, star, _)| format!("{literal}{star}")).collect();
        let name: String = parts.iter().map(|(literal, star, fill)| format!("{literal}{}", if star.is_empty() { "" } else { fill })).collect();
        prop_assert_eq!(pattern_matches(&pattern, &name), naive_matches(&pattern, &name));
    }

    #[test]
    fn templates_capture_the_only_possible_values(
        segments in prop::collection::vec(("[ab-]{0,2}", 0..4u8, "[ab-]{0,2}", "[ab-]{1,3}"), 1..6),
        other in "[ab:-]{1,20}",
    ) {
        // 0: literal, 1: capture, 2: `*`, 3: `**`
        let (mut text, mut name) = (Vec::new(), Vec::new());
        for (i, (prefix, kind, suffix, fill)) in segments.iter().enumerate() {
            let wildcard = match kind { 0 => String::new(), 1 => format!("{{c{i}}}"), 2 => "*".into(), _ => "**".into() };
            text.push(format!("{prefix}{wildcard}{suffix}"));
            name.push(format!("{prefix}{}{suffix}", match kind { 0 => String::new(), 3 => format!("{fill}:{fill}"), _ => fill.clone() }));
        }
        let (text, name) = (text.join(":"), name.join(":"));
        let shape: String = segments.iter().map(|(prefix, kind, suffix, _)| format!("{prefix}{}{suffix}", ["", "*", "*", "**"][*kind as usize])).collect::<Vec<_>>().join(":");
        if let Ok(template) = Template::parse(&text) {
            let found = template.matches(&name).unwrap();
            for (i, (_, kind, _, fill)) in segments.iter().enumerate() {
                if *kind == 1 {
                    prop_assert_eq!(found.capture(&format!("c{i}")), Some(fill.as_str()));
                }
            }
            prop_assert_eq!(template.matches(&other).is_some(), naive_matches(&shape, &other));
        }
    }
}
