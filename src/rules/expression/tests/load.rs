//! Everything that is refused when the configuration is loaded, and what the sentence says.

use super::*;

/// Each expression with what its refusal must name.
fn refused(table: &[(&str, &str)]) {
    for (text, named) in table {
        let sentence = refusal(text);
        assert!(sentence.contains(named), "`{text}` is refused with: {sentence}\nwhich does not hold: {named}");
    }
}

#[test]
fn what_cannot_be_a_boolean_is_refused() {
    // F7, RK-6
    refused(&[
        ("1 + 1", "this yields a number"),
        ("'x'", "this yields a string"),
        ("null", "this yields null"),
        ("1.5", "this yields a double"),
        ("user.id", "this yields a string; compare it, as in `user.id == …`"),
        ("user.roles", "this yields a list"),
        ("user", "this yields a map"),
        ("ctx", "this yields a map"),
        ("pipe", "this yields a string"),
        ("[true]", "this yields a list"),
        ("{'a': true}", "this yields a map"),
        ("size(user.roles)", "this yields an integer"),
        ("user.roles.map(r, r)", "this yields a list"),
        ("true ? 'a' : 'b'", "this yields a string"),
        ("string(user.info.x)", "this yields a string"),
        ("-user.info.x == 1 ? 1 : 2", "this yields an integer"),
        ("user.info.x + 1", "this yields a number; compare it, as in `user.info.x + 1 == …`"),
        ("-user.info.x", "this yields a number"),
        ("ctx.x % 2", "this yields a number"),
        ("user.info.x * 1.5", "this yields a double"),
        ("user.info.a - user.info.b", "this yields a number"),
        ("user.info.a + user.info.b", "this yields something other than a boolean"),
        ("user.info.a + user.info.b + user.info.c", "this yields something other than a boolean"),
        ("user.info.a + 'x'", "this yields a string"),
        ("user.info.a + user.roles", "this yields a list"),
        ("team() ? user.info.a + user.info.b : 'x'", "this yields something other than a boolean"),
        ("team() ? 1 : 'x'", "this yields something other than a boolean"),
    ]);
    for text in [
        "user.info.x + 1 > 2",
        "(user.info.a + user.info.b).startsWith('x')",
        "user.info.tags[user.info.a + user.info.b] == 'x'",
        "(user.info.a + user.info.b)[0]",
        "user.id in user.info.a + user.info.b",
        "(user.info.a + user.info.b).exists(x, x)",
        "-(user.info.a + user.info.b) % 2 == 1",
        "size(user.info.a + user.info.b) == int(user.info.a + user.info.b)",
        "team() ? user.info.x : 1",
    ] {
        compile(text);
    }
}

#[test]
fn operands_that_are_no_booleans_are_refused() {
    refused(&[
        ("null || true", "column 1: both sides of `||` must be true or false, `null` is null"),
        ("true && user.id", "column 9: both sides of `&&` must be true or false, `user.id` is a string"),
        ("!user.id", "column 2: what follows `!` must be true or false"),
        ("user.role ? true : false", "what stands before `?` must be true or false"),
        ("user.roles.exists(r, r)", "the condition of a macro must be true or false, `r` is a string"),
        ("1 || true", "both sides of `||`"),
        ("user.info.x + 1 || true", "both sides of `||` must be true or false, `…` is a number"),
        ("!(user.info.a + user.info.b)", "what follows `!` must be true or false"),
        ("true == user.info.a + user.info.b", "they are never equal"),
        ("true in [user.info.a + user.info.b]", "it is never in it"),
        ("user.roles.exists(r, ctx.x + r)", "the condition of a macro must be true or false"),
        ("role({'admin': user.info.x - 1})", "the value under 'admin' is a number"),
    ]);
}

#[test]
fn unknown_names_are_refused() {
    refused(&[
        ("usr.id == 'x'", "column 1: `usr` is unknown; there are user, params, pipe, event, args, to, ctx, ip"),
        ("user.role == admin", "column 14: `admin` is unknown"),
        ("user.role == admin", "a text stands in quotes"),
        ("user.email == 'x'", "column 1: `user` has no `email`; there are id, name, role"),
        ("user.email == 'x'", "user.info"),
        ("has(user.email)", "`user` has no `email`"),
        ("user['email'] == 'x'", "`user` has no `email`"),
        ("event.level > 1", "`event` has no `level`; there are name, data; what was sent stands in event.data"),
        ("to.group == 'x'", "`to` has no `group`; there are user, connection, role, tenant, org"),
        ("user.id.x == 1", "a string has no fields"),
        ("user.roles.admin", "a list has no field `admin`; write `'…' in list`"),
        ("has(user.roles.admin)", "a list has no field `admin`"),
        (".user.id == 'x'", "unknown"),
        ("user[pipe] == 'x'", "named in quotes or after a dot"),
        ("params[user.id] == 'x'", "named in quotes or after a dot"),
        ("now() > 1", "rules see no clock"),
        ("timestamp('2020-01-01T00:00:00Z') == null", "rules see no clock"),
        ("has(user)", "invalid argument to has()"),
        ("user.id.toUpper() == 'x'", "the function `toUpper` is unknown; there are has, size"),
        ("dyn(user.id) == 1", "the function `dyn` is unknown"),
        ("contains(user.id, 'x')", "`contains` is written `text.contains('…')`"),
        ("exists(user.roles, 'x')", "`exists` is written `list.exists(x, …)`"),
        ("user.owner('x')", "`owner` belongs to nothing"),
        ("__result__", "unknown"),
        ("optional.of(1) == 1", "unknown"),
        ("[1].all(i, x, x == 1)", "all"),
    ]);
}

#[test]
fn what_is_not_there_where_it_is_decided_is_refused() {
    // F18
    let pipe_level = Variables::USER.union(Variables::PARAMS).union(Variables::PIPE).union(Variables::CTX);
    for (text, named) in [
        (
            "event.name == 'x'",
            "column 1: `event` is not there yet where this is decided; there are user, params, pipe, ctx",
        ),
        ("args.x == 1", "`args` is not there"),
        ("has(to.user)", "`to` is not there"),
        ("user.roles.exists(r, r == event.name)", "`event` is not there"),
    ] {
        let sentence = Expression::compile(text, pipe_level, Wanted::Boolean).expect_err(text);
        assert!(sentence.contains(named), "{text}: {sentence}");
    }
    let only_args = Expression::compile("owner('x')", Variables::USER, Wanted::Boolean).expect_err("no captures");
    assert!(only_args.contains("needs a capture or an argument"), "{only_args}");
    assert!(Expression::compile("team()", Variables::PIPE, Wanted::Boolean).is_err());
    assert!(Expression::compile("role({'a': true})", Variables::PIPE, Wanted::Boolean).is_err());
    assert!(Expression::compile("owner('x')", pipe_level, Wanted::Boolean).is_ok());
}

#[test]
fn comparisons_that_never_hold_are_refused() {
    refused(&[
        ("user.role == 1", "`user.role` is a string, `1` is an integer: they are never equal"),
        ("user.team == null", "it is never null: write `has(user.team)`"),
        ("null != user.team", "write `has(user.team)`"),
        ("user.roles == 'admin'", "write `'admin' in user.roles`"),
        ("'admin' == user.roles", "write `'admin' in user.roles`"),
        ("user.id < 3", "only two numbers or two strings have an order"),
        ("user.roles > user.features", "only two numbers or two strings have an order"),
        ("null < 1", "only two numbers or two strings have an order"),
        ("'admin' in user.role", "write user.roles"),
        ("'a' in pipe", "write `text.contains('…')`"),
        ("1 in user.roles", "`user.roles` holds a string, `1` is an integer: it is never in it"),
        ("'team' in user", "write has(user.…)"),
        ("'x' in 5", "`in` needs a list"),
        ("user.id + 1 == 'x'", "`+` does not take a string and an integer"),
        ("user.info.x % 2.0 == 0", "`%` does not take a value of any kind and a double"),
        ("size(user.roles) % 2.0 == 0", "write int(…)"),
        ("-user.info.x == null", "a number, `null` is null: they are never equal"),
        ("'a' - 'b' == 'c'", "`-` does not take a string and a string"),
        ("5.0 % 2.0 == 1.0", "`%` does not take"),
        ("-'a' == 'b'", "`-` needs a number"),
        ("user.roles['x'] == 'x'", "a list has no field"),
        ("user.roles['x' + 'y'] == 'x'", "a list is not indexed by a string"),
        ("size(5) == 1", "`size` needs a string, list or map"),
        ("int(user.roles) == 1", "does not become"),
        ("user.roles.contains('admin')", "write `'…' in user.roles`"),
        ("user.id.startsWith(5)", "`startsWith` needs strings"),
        ("user.id.exists(x, true)", "only a list has elements"),
    ]);
}

#[test]
fn predicates_with_wrong_arguments_are_refused() {
    // F4
    refused(&[
        ("owner()", "takes the name of a capture or an argument in quotes"),
        ("owner('')", "takes the name of a capture"),
        ("owner(5)", "takes the name of a capture"),
        ("owner(params.user)", "takes the name of a capture"),
        ("owner('a', 'b')", "takes the name of a capture"),
        ("role('admin')", "as in role({'admin': true})"),
        ("role({})", "an empty map allows nobody"),
        ("role({'admin': 1})", "the value under 'admin' is an integer"),
        ("role({admin: true})", "the key `admin` of a map must be a string in quotes"),
        ("role({1: true})", "the key `1` of a map"),
        ("role({'admin': true, 'admin': false})", "the key 'admin' stands twice"),
        ("role(user.info.roles)", "as in role({'admin': true})"),
        ("role()", "as in role({'admin': true})"),
        ("team('red')", "write `team()`"),
        ("tenant(user.tenant)", "write `tenant()`"),
        ("org(1)", "write `org()`"),
    ]);
}

#[test]
fn what_would_cost_too_much_is_refused() {
    // INVARIANTS 27
    refused(&[
        ("event.data.list.all(x, x > 0)", "`event.data.list` comes from the client"),
        ("args.list.exists(x, x == 1)", "ask with `in`"),
        ("[event.data.x].exists(x, x == 1)", "comes from the client"),
        ("user.roles.exists(r, args.list.exists(x, x == r))", "comes from the client"),
        ("event.data.list.map(x, x) == []", "comes from the client"),
        ("event.data.list.filter(x, true) == []", "comes from the client"),
        ("event.data.list.exists_one(x, true)", "comes from the client"),
        ("to.user.exists(x, true)", "only a list"),
        (
            "user.roles.exists(a, user.roles.exists(b, user.roles.exists(c, a == b && b == c)))",
            "more than one macro within another",
        ),
        ("user.roles.exists(user, user == 'x')", "`user` is a name already"),
        ("user.roles.exists(a, user.roles.exists(a, a == 'x'))", "`a` is a name already"),
        ("event.data.text.matches(user.info.pattern)", "must be written out in quotes"),
        ("pipe.matches('a' + 'b')", "must be written out in quotes"),
        ("pipe.matches('(')", "cannot be used"),
        ("pipe.matches('(?=x)')", "cannot be used"),
        ("pipe.matches('(((a{1000}){1000}){1000})')", "cannot be used"),
        ("pipe.matches('((((((((((((((((((((a))))))))))))))))))))')", "cannot be used"),
    ]);
    refused(&[
        (&format!("{}true{}", "[".repeat(40), "]".repeat(40)), "nested more than"),
        (&"(".repeat(2_000), "nested more than 24 deep"),
        (&format!("user.info{} == 1", ".a".repeat(100)), "nested more than 48 deep"),
        (&vec!["user.id == 'x'"; 200].join(" || "), "more than 256 parts"),
        (&format!("user.id == '{}'", "x".repeat(5_000)), "longer than 4096 bytes"),
    ]);
}

#[test]
fn what_is_no_cel_is_refused_with_its_column() {
    refused(&[
        ("", "the expression is empty"),
        (" ", "the expression is empty"),
        ("// nothing", "column"),
        ("user.id ==", "column 11: mismatched input '<EOF>' expecting expression"),
        ("user.id = 'x'", "column 9: "),
        ("user.id = 'x'", "write `==`"),
        ("user.id === 'x'", "column"),
        ("has(user.team) and team()", "write `&&`"),
        ("team() or org()", "write `||`"),
        ("'über' x", "column 8"),
        ("true\n&& usr", "line 2, column 4: `usr` is unknown"),
        ("user.id == 'x", "unterminated string"),
        ("user.?id", "column 5: unsupported syntax"),
        ("b'x' == b'x'", "bytes are not known here"),
        ("User{id: 'x'}", "messages are not known here"),
        ("user.info.x == 99999999999999999999", "invalid int literal"),
        ("if", "reserved identifier"),
        ("\u{1f4a5}", "column 1"),
        ("true; false", "column 5"),
        ("\0", "column 1"),
    ]);
}

#[test]
fn what_always_fails_is_refused() {
    refused(&[
        ("1 / 0 == 1", "this can never be decided: a division by zero"),
        ("1 % 0 == 1 || false", "a division by zero"),
        ("int(9223372036854775807 + 1) == 0", "a number beyond 64 bits"),
        ("int('x') == 0", "a text that is no number"),
        ("[1][1] == 1", "an index outside of its list"),
    ]);
}

#[test]
fn what_is_constant_is_known() {
    // SR-11, G9
    for (text, constant) in [
        ("true", Some(true)),
        ("false", Some(false)),
        ("1 == 1", Some(true)),
        ("true || user.id == 'x'", Some(true)),
        ("user.id == 'x' || true", Some(true)),
        ("user.id == 'x' && false", Some(false)),
        ("user.id == 'x' || false", None),
        ("1 / 0 == 1 || user.id == 'x'", None),
        ("'a' in ['a', 'b']", Some(true)),
        ("[1, 2].all(x, x > 0)", Some(true)),
        ("!(2 > 1)", Some(false)),
        ("team()", None),
    ] {
        assert_eq!(compile(text).constant(), constant, "{text}");
    }
}

#[test]
fn what_is_read_is_known() {
    let all = |text: &str| compile(text).names();
    assert_eq!(all("true"), Variables::NONE);
    assert_eq!(all("owner('x')"), Variables::USER.union(Variables::PARAMS).union(Variables::ARGS));
    assert_eq!(all("role({'admin': ip == '::1'})"), Variables::USER.union(Variables::IP));
    for text in ["team()", "tenant()", "org()"] {
        assert_eq!(all(text), Variables::USER.union(Variables::PARAMS), "{text}");
    }
    assert_eq!(all("has(to.user) && pipe == event.name"), Variables::TO.union(Variables::PIPE).union(Variables::EVENT));
    assert_eq!(all("ctx.x.exists(x, x == args.y)"), Variables::CTX.union(Variables::ARGS));
    // Where there are no arguments, `owner` reads none: its answer may be remembered (F10).
    let pipe_level = Variables::USER.union(Variables::PARAMS);
    let owner = Expression::compile("owner('x')", pipe_level, Wanted::Boolean).expect("compiles");
    assert_eq!(owner.names(), pipe_level);
    assert_eq!(compile("params.a == params.b && has(params.c) && params['a'] == 'x'").captures().concat(), "abc");
    assert!(!compile("event.name == 'x'").needs_data());
    assert!(compile("event.data.x == 'x'").needs_data());
    assert!(compile("size(event) == 2").needs_data());
    assert_eq!(format!("{:?}", compile("team()")), "team()");
}

#[test]
fn anything_may_be_a_value() {
    let world = World::new();
    for (text, value) in [
        ("user.info.tags", r#"["a","b"]"#),
        ("{'a': [1, user.id], 'b': null}", r#"{"a":[1,"u1"],"b":null}"#),
        ("user.info.missing == 1 || true ? pipe : ''", r#""t1:team-red""#),
        ("user.roles.map(r, r + '!')", r#"["member!","editor!"]"#),
        ("user.roles.filter(r, r != 'member')", r#"["editor"]"#),
        ("user.roles.map(r, r == 'editor', size(r))", "[6]"),
        ("user.info.deep.map(k, k)", r#"["x"]"#),
        ("1 + 2 * 3", "7"),
    ] {
        let expression = Expression::compile(text, Variables::ALL, Wanted::Anything).expect(text);
        let found = expression.value(&world.scope()).expect(text);
        assert_eq!(crate::rules::value::to_json(&found), value, "{text}");
    }
}
