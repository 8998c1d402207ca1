//! What is neither true nor false is a fault, never an allow (RK-6), and its sentence holds no data.

use super::*;

fn faults(table: &[(&str, Fault)]) {
    for (text, fault) in table {
        assert_eq!(ask(text).as_ref(), Err(fault), "{text}");
    }
}

fn absent(name: &str) -> Fault {
    Fault::Absent(name.into())
}

#[test]
fn missing_fields_are_faults() {
    // B20
    faults(&[
        ("user.org == 'x'", absent("org")),
        ("user.info.missing == 1", absent("missing")),
        ("!(user.info.missing == 1)", absent("missing")),
        ("params.none == 'x'", absent("none")),
        ("args.none == 1", absent("none")),
        ("to.role == 'x'", absent("role")),
        ("owner('none')", absent("none")),
        ("user.info[args.author] == 1", absent("[…]")),
        ("user.info.tags[2] == 'x'", Fault::Range),
        ("user.info.tags[-1] == 'x'", Fault::Range),
    ]);
}

#[test]
fn outcomes_that_are_no_booleans_are_faults() {
    let found = |found| Fault::Kind { wanted: "a boolean", found };
    faults(&[
        ("user.info.level", found("an integer")),
        ("user.info.text", found("a string")),
        ("user.info.nothing", found("null")),
        ("user.info.tags", found("a list")),
        ("user.info.deep", found("a map")),
        ("user.info.ratio", found("a double")),
        ("user.info.nothing || false", found("null")),
        ("user.info.nothing || user.info.level", found("null")),
        ("false || user.info.level", found("an integer")),
        ("user.info.level && true", found("an integer")),
        ("true && user.info.level", found("an integer")),
        ("!user.info.level", found("an integer")),
        ("user.info.level ? true : true", found("an integer")),
        ("user.info.tags.exists(t, user.info.level)", found("an integer")),
        ("role({'member': user.info.level})", found("an integer")),
    ]);
    assert_eq!(ask("user.info.flag"), Ok(true));
}

#[test]
fn operators_that_do_not_fit_their_values_are_faults() {
    let pair = |operator, left, right| Fault::Pair { operator, left, right };
    let kind = |wanted, found| Fault::Kind { wanted, found };
    faults(&[
        ("user.info.text > 3", pair("<", "a string", "an integer")),
        ("user.info.nothing < 3", pair("<", "null", "an integer")),
        ("user.info.text - 1 == 1", pair("-", "a string", "an integer")),
        ("user.info.ratio % user.info.ratio == 0.5 || false", pair("%", "a double", "a double")),
        ("-user.info.text == 1", kind("a number", "a string")),
        ("'a' in user.info.level", pair("in", "a string", "an integer")),
        ("user.info.level.x == 1", kind("a map", "an integer")),
        ("user.info.text[0] == 'h'", pair("[]", "a string", "an integer")),
        ("size(user.info.level) == 1", kind("a string, list or map", "an integer")),
        ("user.info.level.startsWith('x')", kind("a string", "an integer")),
        ("user.info.level.matches('x')", kind("a string", "an integer")),
        ("user.info.level.exists(x, true)", kind("a list", "an integer")),
        ("int(user.info.text) == 1", Fault::NoNumber),
        ("double(user.info.text) == 1.0", Fault::NoNumber),
        ("int(user.info.nothing) == 1", kind("a number", "null")),
        ("string(user.info.tags) == 'x'", kind("a string or number", "a list")),
        ("int(user.info.big) == 1", Fault::Overflow),
        ("int(1e300 * user.info.ratio) == 1", Fault::Overflow),
    ]);
}

#[test]
fn numbers_never_panic() {
    faults(&[
        ("user.info.level / 0 == 1", Fault::Zero),
        ("user.info.level % 0 == 1", Fault::Zero),
        ("user.info.big / 0u == 1", Fault::Zero),
        ("user.info.big / 0 == 1", Fault::Zero),
        ("int(user.info.level * 9223372036854775807) == 1", Fault::Overflow),
    ]);
    let mut world = World::new();
    // F21: what no number type holds is still a number.
    world.event = event("x", json("[12345678901234567890123,1e400,-1e400,-0,1e-400]").expect("JSON"));
    for (text, answer) in [
        ("event.data[0] > 18446744073709551615u", true),
        ("event.data[1] > event.data[0]", true),
        ("event.data[2] < 0", true),
        ("event.data[3] == 0 && event.data[4] == 0", true),
        ("event.data[1] == event.data[1]", true),
    ] {
        assert_eq!(compile(text).test(&world.scope()), Ok(answer), "{text}");
    }
    assert_eq!(compile("int(event.data[1]) == 1").test(&world.scope()), Err(Fault::Overflow));
}

#[test]
fn what_takes_too_long_is_given_up() {
    // INVARIANTS 27
    let mut world = World::new();
    let numbers = |many: usize| (0..many).map(|one| one.to_string()).collect::<Vec<_>>().join(",");
    let text = "y".repeat(200_000);
    world.user = json(&format!(r#"{{"id":"u1","info":{{"few":[{}],"many":[{}]}}}}"#, numbers(150), numbers(20_000)))
        .expect("JSON");
    world.event = event(
        "x",
        json(&format!(r#"{{"list":[{}],"text":"{text}","same":"{text}"}}"#, numbers(20_000))).expect("JSON"),
    );
    for text in [
        "-1 in event.data.list",
        "event.data.list == event.data.list",
        "user.info.many.all(x, x >= 0)",
        "user.info.few.all(x, user.info.few.all(y, x + y >= 0))",
        "event.data.text.matches('z$')",
        "event.data.text + event.data.text == ''",
        "user.info.many.map(x, x) == []",
        "user.info.many + user.info.many == []",
        "user.info.few.all(x, event.data.text == event.data.same)",
        "user.info.few.all(x, event.data.text.contains('yyyyz') || true)",
        "user.info.few.all(x, size(event.data.text) > 5)",
    ] {
        assert_eq!(compile(text).test(&world.scope()), Err(Fault::TooMuch), "{text}");
    }
    assert_eq!(compile("5000 in event.data.list").test(&world.scope()), Ok(true));
}

#[test]
fn what_cannot_be_read_allows_nothing() {
    // RK-6: a client that sends a key twice must not look like one that sent nothing.
    let unreadable = parsed(r#"{"to":"u1","to":"u2"}"#);
    let mut world = World::new();
    world.user = Value::map([("id", Value::String("u1".into())), ("info", unreadable.clone())]);
    world.event = event("x", unreadable.clone());
    world.args = unreadable.clone();
    world.ctx = Value::map([("x", unreadable)]);
    for text in [
        "!has(args.to)",
        "has(args.to)",
        "args == null",
        "args != null",
        "!(args == 'x')",
        "owner('to')",
        "!('to' in args)",
        "size(args) == 0",
        "!has(event.data.to)",
        "event.data != 'x'",
        "!(event.data in ['x'])",
        "[event.data] != ['x']",
        "event.data < 1",
        "!has(user.info.suspended)",
        "user.info == null",
        "!('suspended' in user.info)",
        "ctx.x == null",
        "!(ctx.x in {'a': 1})",
        "ctx.x",
        "!ctx.x",
        "ctx.x.all(x, false)",
        "string(ctx.x) != 'x'",
        "string(event.data) == ''",
    ] {
        assert!(compile(text).test(&world.scope()).is_err(), "{text}");
    }
}

#[test]
fn sentences_hold_no_data() {
    let world = World::new();
    for text in [
        "user.info.text > 3",
        "user.info[args.author] == 1",
        "user.info.text",
        "int(user.info.text) == 1",
        "has(event.data.text.x)",
        "event.data.text + 1 == 2",
        "owner('none')",
        "user.info.tags[7] == 'x'",
    ] {
        let fault = compile(text).test(&world.scope()).expect_err(text).to_string();
        assert!(
            !["u1", "hello", "hi", "red"].iter().any(|secret| fault.split([' ', '`']).any(|word| word == *secret)),
            "{fault}"
        );
        assert!(fault.len() > 10, "{fault}");
    }
    assert_eq!(ask("user.info.text > 3").expect_err("fault").to_string(), "`<` takes no string and integer");
    assert_eq!(ask("user.info.nothing").expect_err("fault").to_string(), "a boolean is needed, this is null");
}
