//! Filters: the two halves together answer what the whole answers.

use super::*;
use crate::rules::expression::Filter;

fn filter(text: &str) -> Filter {
    Filter::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn what_a_filter_may_name() {
    for text in ["args.x == 1", "to.user == 'x'", "event.level == 1", "event.name", "1 + 1", "event.data.all(x, true)"]
    {
        assert!(Filter::compile(text).is_err(), "{text}");
    }
    assert!(!filter("event.data.level > 1").needs_viewer());
    assert!(!filter("event.name == 'x' && pipe == 'y'").needs_data());
    assert!(filter("event.data.level > 1 || user.role == 'admin'").needs_viewer());
    assert!(filter("team()").needs_viewer());
    assert!(filter("ip == '::1'").needs_viewer());
    assert!(filter("ctx.x == 1").needs_viewer());
    assert!(filter("params.x == event.data.x").needs_viewer());
    assert_eq!(filter("event.data.x == 1 || true").constant(), Some(true));
    assert_eq!(filter("event.data.x == 1").constant(), None);
    assert_eq!(filter("params.room == 'r'").captures().concat(), "room");
}

#[test]
fn what_is_common_decides_for_all() {
    let world = World::new();
    let only_event = Scope { event: &world.event, pipe: "p", ..Scope::default() };
    for (text, decided) in [
        ("event.data.level >= 2 || user.role == 'admin'", Some(Ok(true))),
        ("user.role == 'admin' || event.data.level >= 2", Some(Ok(true))),
        ("event.data.level >= 3 || user.role == 'admin'", None),
        ("event.data.level >= 3 && user.role == 'admin'", Some(Ok(false))),
        ("user.role == 'admin' && event.data.level >= 3", Some(Ok(false))),
        ("event.data.missing == 1 || user.role == 'admin'", None),
        ("event.data.missing == 1 && user.role == 'admin'", None),
        ("event.data.missing == 1", Some(Err(Fault::Absent("missing".into())))),
        ("(event.data.level == 1 || user.id == 'x') && event.data.level == 7", Some(Ok(false))),
        (
            "event.data.text && (user.id == 'x' || true)",
            Some(Err(Fault::Kind { wanted: "a boolean", found: "a string" })),
        ),
    ] {
        assert_eq!(filter(text).common(&only_event).decided(), decided.as_ref(), "{text}");
    }
}

#[test]
fn both_halves_together_answer_what_the_whole_answers() {
    // F12: every combination of two or three parts that are true, false, a fault or no boolean, common or the viewer's.
    let parts = [
        "event.data.level == 2",
        "event.data.level == 7",
        "event.data.missing == 1",
        "event.data.text",
        "user.id == 'u1'",
        "user.id == 'x'",
        "user.info.missing == 1",
        "user.info.level",
    ];
    let world = World::new();
    let scope = world.scope();
    let event_only = Scope { event: &world.event, pipe: scope.pipe, ..Scope::default() };
    let mut checked = 0;
    for a in parts {
        for b in parts {
            for c in parts {
                for text in [
                    format!("{a} || {b} || {c}"),
                    format!("{a} && {b} && {c}"),
                    format!("{a} || {b} && {c}"),
                    format!("({a} || {b}) && {c}"),
                    format!("{a} && ({b} || !({c}))"),
                ] {
                    let whole = compile(&text).test(&scope);
                    let filter = filter(&text);
                    let halves = filter.viewer(&filter.common(&event_only), &scope);
                    assert_eq!(halves.clone().ok(), whole.clone().ok(), "{text}: {halves:?} {whole:?}");
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 8 * 8 * 8 * 5);
}

#[test]
fn what_is_common_is_not_asked_again() {
    let world = World::new();
    let filter = filter("event.data.level >= 3 || user.role == 'member'");
    let common = filter.common(&Scope { event: &world.event, ..Scope::default() });
    let other = event("message", json(r#"{"level":"no number"}"#).expect("JSON"));
    let viewer = Scope { event: &other, ..world.scope() };
    assert_eq!(filter.viewer(&common, &viewer), Ok(true));
}
