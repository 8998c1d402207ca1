//! The parts of the loader that are not visible from outside. What is visible is tested in `tests/config.rs`.

use std::path::Path;

use super::environment;
use super::keys::keys;
use super::load::{parse, workers_default};
use super::lookup::{distance, nearest};

/// A file with one definition of each kind and one token key; with every default of the table written out, where
/// `stated`.
fn file(stated: bool) -> String {
    let mut text = "auth.token.hmac_secret = '0123456789abcdef0123456789abcdef'\nauth.webhook.url = 'http://a'\n\
                    action.x.url = 'http://a'\nqueue.x.url = 'http://a'\n"
        .to_owned();
    for key in keys().filter(|key| stated && !key.default.is_empty()) {
        text += &format!("{} = {}\n", key.path.replace('*', "x"), key.default);
    }
    if stated { text } else { text + "pipe.x = {}\nmodule.x = {}\npush = {}\n" }
}

/// `text` without the numbers of lines.
fn without_lines(text: &str) -> String {
    let mut kept = String::new();
    for (at, part) in text.split("line: ").enumerate() {
        kept += if at == 0 { part } else { part.trim_start_matches(|digit: char| digit.is_ascii_digit()) };
    }
    kept
}

#[test]
fn the_table_states_the_defaults_that_hold() {
    let load = |stated| {
        let (config, _) = parse(&file(stated), Path::new(""), &mut std::iter::empty()).expect("defaults are valid");
        without_lines(&format!("{config:?}"))
    };
    assert_eq!(load(true), load(false));
    assert!(file(true).lines().count() > 50, "the table has defaults to compare");
}

#[test]
fn paths_of_the_table_are_unique_and_documented() {
    for (at, key) in keys().enumerate() {
        assert!(!keys().take(at).any(|earlier| earlier.path == key.path), "{} stands twice", key.path);
        assert!(key.doc.ends_with('.'), "{}", key.path);
        assert!(!keys().any(|other| other.path.starts_with(&format!("{}.", key.path))), "{}", key.path);
        assert!(!key.doc.contains('|') && !key.kind.accepts().contains('|'), "{} would break its table", key.path);
    }
}

#[test]
fn the_reference_has_each_section_once() {
    let page = super::reference();
    let titles: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
    for title in ["`[auth.token]`", "`[[guard]]`", "`[pipe.\"NAME\".event.NAME]`", "`[action.NAME]`", "One guard"] {
        assert!(titles.contains(&format!("## {title}").as_str()), "{title}: {titles:#?}");
    }
    for (at, title) in titles.iter().enumerate() {
        assert!(!titles[..at].contains(title), "{title}");
    }
}

// Every key is reachable from the environment, or is one that cannot be: definitions and arrays of tables (G6).
#[test]
fn every_key_has_its_variable() {
    for key in keys() {
        let name = format!("PIPEWARD_{}", key.path.replace('.', "__").to_ascii_uppercase());
        if !name.contains("__") {
            continue;
        }
        let mut findings = super::finding::Findings::default();
        let mut root = Vec::new();
        let mut variables = [(name.clone(), "1".to_owned())].into_iter();
        environment::lay_over(&mut root, &mut variables, &mut findings);
        let definitions = ["pipe.", "module.", "action.", "queue."];
        let arrays = ["control.key", "push.guard"];
        let cannot = definitions.iter().any(|own| key.path.starts_with(own)) || arrays.contains(&key.path);
        assert_eq!(findings.has_errors(), cannot, "{name}");
        assert_eq!(root.is_empty(), cannot, "{name}");
    }
}

#[test]
fn the_nearest_key_is_the_one_that_was_meant() {
    for (section, written, meant) in [
        ("edge", "listne", "edge.listen"),
        ("edge", "ping", "edge.ping_s"),
        ("edge", "trusted_proxy", "edge.trusted_proxies"),
        ("", "limit", "limits"),
        ("", "pipes", "pipe"),
        ("", "listen", "edge.listen"),
        ("", "workerz", "edge.workers"),
        ("auth", "hmac_secret", "auth.token.hmac_secret"),
        ("limits.per_user", "publsih", "limits.per_user.publish"),
        ("pipe.*", "subscribed", "pipe.*.subscribe"),
        ("pipe.*", "events", "pipe.*.event"),
        ("pipe.*.event.*", "scheme", "pipe.*.event.*.schema"),
        ("action.*", "timeout", "action.*.timeout_ms"),
        ("auth", "webhok", "auth.webhook"),
        ("", "modules", "module"),
    ] {
        assert_eq!(nearest(section, written), meant, "{section} {written}");
    }
    assert!(!nearest("edge", "").is_empty());
    assert!(!nearest("edge", &"é".repeat(1000)).is_empty());
}

#[test]
fn distance_counts_edits() {
    for (from, to, edits) in [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)] {
        assert_eq!(distance(from, to), edits, "{from} {to}");
        assert_eq!(distance(to, from), edits, "{to} {from}");
    }
}

// INVARIANTS 25
#[test]
fn workers_follow_the_cores() {
    for (cores, workers) in [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3), (8, 7), (64, 63), (65, 63), (500, 63)] {
        assert_eq!(workers_default(cores), workers, "{cores} cores");
    }
}
