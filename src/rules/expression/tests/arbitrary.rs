//! Whatever is written and whatever it is asked about: no panic, the same answer twice, and filters as their whole.

use proptest::prelude::*;

use super::*;
use crate::rules::expression::Filter;

/// Pieces that make expressions likely to compile.
const PIECES: &[&str] = &[
    "user",
    "user.id",
    "user.roles",
    "user.info",
    "user.info.x",
    "event.data",
    "event.data.x",
    "event.name",
    "params.team",
    "args.list",
    "ctx.x",
    "pipe",
    "ip",
    "to.user",
    "true",
    "false",
    "null",
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "2u",
    "1.5",
    "1e308",
    "'a'",
    "\"b\"",
    "r'\\'",
    "'\\u00e4'",
    "''",
    "[]",
    "{}",
    "{'a':1}",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "?",
    ":",
    "in",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "has(",
    "size(",
    ".size()",
    ".exists(x,",
    ".all(y,",
    ".map(z,",
    ".filter(x,",
    ".exists_one(x,",
    "x",
    "y",
    "owner('x')",
    "team()",
    "role({'a':true})",
    ".matches('a+')",
    ".contains(",
    "int(",
    "double(",
    "string(",
    " ",
    "\n",
    "\u{e4}",
    "\u{1f4a5}",
    "\0",
    "`",
    "@result",
    "//",
];

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("1e400".to_owned()),
        Just("18446744073709551615".to_owned()),
        "[a-z]{0,4}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|many| format!("[{}]", many.join(","))),
            inner.prop_map(|one| format!("{{\"x\":{one},\"a\":1}}")),
        ]
    })
}

fn judged_alike(text: &str, data: &str) {
    let mut world = World::new();
    world.event = event("e", json(data).expect("JSON"));
    world.ctx = Value::map([("x", json(data).expect("JSON"))]);
    world.args = json(data).expect("JSON");
    let scope = world.scope();
    if let Ok(expression) = Expression::compile(text, Variables::ALL, Wanted::Anything) {
        let first = expression.value(&scope);
        // A value that is not a number differs from itself, so what is compared is how it is written.
        assert_eq!(format!("{first:?}"), format!("{:?}", expression.value(&scope)));
        if let Err(fault) = &first {
            assert!(!fault.to_string().is_empty());
        }
    }
    if let Ok(filter) = Filter::compile(text) {
        let whole = compile(text).test(&scope);
        let halves = filter.viewer(&filter.common(&scope), &scope);
        assert_eq!(halves.ok(), whole.ok());
    }
    if let Ok(expression) = Expression::compile(text, Variables::ALL, Wanted::Boolean)
        && let Some(constant) = expression.constant()
    {
        assert_eq!(expression.test(&scope), Ok(constant), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,60}|[ -~]{0,80}", data in any_json()) {
        judged_alike(&text, &data);
    }

    #[test]
    fn arbitrary_pieces_never_panic(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 1..14),
        data in any_json(),
    ) {
        judged_alike(&pieces.concat(), &data);
        judged_alike(&pieces.join(" "), &data);
    }

    #[test]
    fn deep_and_long_text_never_exhausts_the_stack(piece in proptest::sample::select(PIECES), times in 1usize..4_000) {
        judged_alike(&piece.repeat(times), "null");
        judged_alike(&format!("{}true", piece.repeat(times)), "null");
        judged_alike(&format!("true{}", piece.repeat(times)), "null");
    }
}
