//! Rules and what they answer: those of PROTOCOL §6, the predicates of SR-9, and each operator.

use super::*;

fn answers(table: &[(&str, bool)]) {
    for (text, answer) in table {
        assert_eq!(ask(text), Ok(*answer), "{text}");
    }
}

#[test]
fn the_rules_of_the_sample_configuration() {
    // PROTOCOL §6
    answers(&[
        ("!has(user.info.suspended)", false),
        ("user.role == 'admin'", false),
        ("user.team == params.team", true),
        ("user.team == params.team && 'chat' in user.features", true),
        ("user.team == params.team && 'video' in user.features", false),
        ("event.data.level >= 3 || user.role == 'admin'", false),
        ("event.data.level >= 2 || user.role == 'admin'", true),
        ("user.role in ['member', 'admin']", true),
        ("user.role == 'admin' || to.user == user.id", true),
    ]);
}

#[test]
fn ready_made_predicates() {
    // SR-9, F4, F5
    answers(&[
        ("owner('user')", true),
        ("owner('room')", false),
        ("owner('author')", true),
        ("owner('other')", false),
        // A number that a client sends is nobody's id.
        ("owner('number')", false),
        ("team()", true),
        ("tenant()", true),
        ("org()", false),
        ("role({'admin': true})", false),
        ("role({'editor': true})", true),
        ("role({'editor': false, 'member': true})", true),
        ("role({'editor': false})", false),
        ("role({'editor': user.team == 'red'})", true),
        ("role({'admin': user.info.missing == 1, 'editor': true})", true),
        ("has(user.id)", true),
        ("owner('room') || team()", true),
        ("owner('user') && role({'admin': true})", false),
    ]);
    let mut world = World::new();
    world.params = json(r#"{"team":"blue","tenant":"t2"}"#).expect("JSON");
    assert_eq!(compile("team()").test(&world.scope()), Ok(false), "another's team");
    assert_eq!(compile("tenant()").test(&world.scope()), Ok(false), "another's tenant");
    world.params = Value::empty();
    assert_eq!(compile("team()").test(&world.scope()), Ok(true), "the pattern captures none");
    assert_eq!(compile("org()").test(&world.scope()), Ok(false), "the user has none");
}

#[test]
fn a_capture_goes_before_an_argument_of_the_same_name() {
    let mut world = World::new();
    world.params = json(r#"{"author":"u2"}"#).expect("JSON");
    assert_eq!(compile("owner('author')").test(&world.scope()), Ok(false));
}

#[test]
fn an_anonymous_user_has_nothing() {
    // B21, RK-6
    let mut world = World::new();
    world.user = Value::empty();
    for text in
        ["has(user.id)", "has(user.team)", "has(user.info.x)", "team()", "tenant()", "org()", "role({'member': true})"]
    {
        assert_eq!(compile(text).test(&world.scope()), Ok(false), "{text}");
    }
    for text in [
        "user.id == 'u1'",
        "user.role != 'admin'",
        "!('banned' in user.roles)",
        "user.features.all(f, f != 'x')",
        "owner('user')",
        "!owner('user')",
        "user.team == params.team",
    ] {
        assert!(matches!(compile(text).test(&world.scope()), Err(Fault::Absent(_))), "{text}");
    }
    assert_eq!(compile("!has(user.info.suspended)").test(&world.scope()), Ok(true));
}

#[test]
fn has_asks_for_presence_only() {
    answers(&[
        ("has(user.team)", true),
        ("has(user.org)", false),
        ("has(user.info.nothing)", true),
        ("has(user.info.missing)", false),
        ("has(user.info.missing.further)", false),
        ("has(user.info.deep.x.y)", true),
        ("has(user.info.deep.z.y)", false),
        ("has(event.data.level)", true),
        ("has(to.role)", false),
        ("has(ctx.plan)", true),
    ]);
    // What is no map has no fields to ask for: also the negation is no allow.
    for text in
        ["has(user.info.level.x)", "!has(user.info.level.x)", "!has(user.info.nothing.x)", "!has(event.data.text.x)"]
    {
        assert!(matches!(ask(text), Err(Fault::Kind { .. })), "{text}");
    }
}

#[test]
fn operators_and_functions() {
    answers(&[
        ("1 < 2 && 2 <= 2 && 3 > 2 && 2 >= 2 && 1 != 2", true),
        ("'a' < 'b' && 'b' >= 'a'", true),
        ("false < true", true),
        ("user.info.level == 3 && user.info.level == 3.0 && user.info.level == 3u", true),
        ("user.info.level + 1 == 4", true),
        (
            "user.info.level - 1 == 2 && user.info.level * 2 == 6 && user.info.level / 2 == 1 && user.info.level % 2 == 1",
            true,
        ),
        ("-user.info.level == -3", true),
        ("user.info.ratio * 2.0 == 3.0", true),
        ("1.0 / 0.0 > 9.9", true),
        ("0.0 / 0.0 == 0.0 / 0.0", false),
        ("user.info.big > 9223372036854775807", true),
        ("user.info.big == 18446744073709551615u", true),
        // Neither integer is a double: the one above is exact, the comparison too (F21).
        ("event.data.n == 9007199254740993", true),
        ("event.data.n == 9007199254740992.0", false),
        ("event.data.n > 9007199254740992.0", true),
        ("'t1:' + 'team-' + user.team == pipe", true),
        ("[1] + [2] == [1, 2]", true),
        ("[1, 'a', null] == [1.0, 'a', null]", true),
        ("{'a': 1, 'b': [2]} == {'b': [2], 'a': 1}", true),
        ("{'a': 1} == {'a': 2}", false),
        ("[1] == [1, 2]", false),
        ("user.info.level == 'three'", false),
        ("user.info.level != null", true),
        ("user.info.nothing == null", true),
        ("'a' in user.info.tags", true),
        ("'level' in user.info", true),
        ("'missing' in user.info", false),
        ("user.id in event.data.list", true),
        ("user.info.tags[1] == 'b'", true),
        ("user.info['text'] == 'hello'", true),
        ("user.info[user.info.tags[0] + 'x'] == 1 || true", true),
        ("ctx['permissions'][0] == 'write'", true),
        ("size(user.roles) == 2 && user.roles.size() == 2 && size('äö') == 2 && size(user.info.deep) == 1", true),
        ("pipe.startsWith('t1:') && pipe.endsWith('red') && pipe.contains('team')", true),
        ("pipe.matches('^t[0-9]+:team-') && !pipe.matches('^team')", true),
        ("matches(pipe, 'RED|red') && pipe.matches('(?i)RED$') && !pipe.matches(r'^\\w+@\\w+\\.\\w{2,8}$')", true),
        ("int('5') == 5 && int(2.9) == 2 && double('1.5') == 1.5 && string(5) == '5' && string(true) == 'true'", true),
        ("true ? team() : 1 / 0 == 1", true),
        ("user.roles.exists(r, r == 'editor')", true),
        ("user.roles.all(r, r.size() == 6)", true),
        ("user.roles.exists_one(r, r == 'editor')", true),
        ("user.roles.exists_one(r, true)", false),
        ("[].all(x, x == 1) && ![].exists(x, x == 1)", true),
        ("user.roles.exists(r, ctx.permissions.exists(p, p == 'write' && r == 'editor'))", true),
        ("user.roles.filter(r, r != 'x').size() == 2", true),
        ("ip == '192.0.2.7'", true),
        ("!!team()", true),
        ("r'\\d' == '\\\\d'", true),
    ]);
}

#[test]
fn however_a_number_is_spelt_it_is_calculated_with() {
    // F21
    answers(&[
        ("user.info.level + 0.5 == 3.5 && 0.5 + user.info.level == 3.5", true),
        ("user.info.ratio - 1 == 0.5 && user.info.ratio * 2 == 3 && 3 / user.info.ratio == 2", true),
        ("size(user.roles) * 0.5 == 1", true),
        ("user.info.big * 2 > user.info.big && user.info.big * user.info.big > 0", true),
        ("user.info.big + 1 > user.info.big - 1 && 1u - user.info.big < 0", true),
        // Exact as far as 64 bits go, the nearest double beyond.
        ("9223372036854775807 + user.info.level == 9223372036854775810u", true),
        ("user.info.big + 1u == 18446744073709551616.0", true),
        ("user.info.level * 9223372036854775807 > 27000000000000000000.0", true),
        ("-9223372036854775808 - user.info.level * 1024 < -9223372036854775808", true),
        ("(-9223372036854775808 + user.info.level - 3) / -1 == 9223372036854775808u", true),
        ("(-9223372036854775808 + user.info.level - 3) % -1 == 0", true),
        ("-(-9223372036854775808 + user.info.level - 3) == 9223372036854775808u", true),
        ("-user.info.big < -9223372036854775808", true),
        ("user.info.big - 18446744073709551615u - 1u == -1", true),
        ("user.info.tags[user.info.level - 2.0] == 'b'", true),
    ]);
    let mut world = World::new();
    let rule = compile("event.data.price * 2 > 10");
    for (price, answer) in [("6", true), ("6.5", true), ("6e0", true), ("99999999999999999999", true), ("5.0", false)] {
        world.event = event("order", json(&format!(r#"{{"price":{price}}}"#)).expect("JSON"));
        assert_eq!(rule.test(&world.scope()), Ok(answer), "{price}");
    }
}

#[test]
fn what_decides_absorbs_faults() {
    // F12
    answers(&[
        ("user.info.missing == 1 || true", true),
        ("true || user.info.missing == 1", true),
        ("user.info.missing == 1 && false", false),
        ("false && user.info.missing == 1", false),
        ("user.info.text || user.team == 'red'", true),
        ("user.team == 'red' || user.info.text", true),
        ("user.info.nothing && false", false),
        ("[1, 0].exists(x, 1 / x == 1)", true),
        ("[0, 1].exists(x, 1 / x == 1)", true),
        ("[0, 2].all(x, 1 / x == 1)", false),
    ]);
}
