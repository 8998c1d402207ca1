//! Our evaluator against that of the crate `cel`, on expressions made at random: they answer alike, or neither does.
//! One exception: an integer result beyond 64 bits is a double here and a fault there (F21).

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::Key;
use proptest::prelude::*;

use super::*;

fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null | Value::Unreadable => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Int(value) => cel::Value::Int(*value),
        Value::Uint(value) => cel::Value::UInt(*value),
        Value::Double(value) => cel::Value::Float(*value),
        Value::String(text) => cel::Value::String(Arc::new(text.to_string())),
        Value::List(list) => cel::Value::List(Arc::new(list.iter().map(to_cel).collect())),
        Value::Map(map) => {
            let fields = map.iter().map(|(name, value)| (Key::String(Arc::new(name.to_owned())), to_cel(value)));
            cel::Value::from(fields.collect::<HashMap<Key, cel::Value>>())
        }
    }
}

fn reference(text: &str, world: &World) -> Option<bool> {
    let program = cel::Program::compile(text).ok()?;
    let mut context = cel::Context::default();
    let scope = world.scope();
    for (name, value) in [("user", scope.user), ("params", scope.params), ("event", scope.event), ("ctx", scope.ctx)] {
        context.add_variable_from_value(name, to_cel(value));
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(answer)) => Some(answer),
        _ => None,
    }
}

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("user.info.level".to_owned()),
        Just("event.data.level".to_owned()),
        Just("event.data.n".to_owned()),
        Just("size(user.roles)".to_owned()),
        (-3i64..4).prop_map(|number| format!("({number})")),
        Just("9223372036854775807".to_owned()),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), proptest::sample::select(vec!["+", "-", "*", "/", "%"]), inner)
            .prop_map(|(left, operator, right)| format!("({left} {operator} {right})"))
    })
}

fn text() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "user.id",
        "user.team",
        "user.org",
        "params.team",
        "params.none",
        "event.name",
        "event.data.text",
        "'red'",
        "'u1'",
        "user.info.text",
        "(user.id + user.team)",
        "string(user.info.level)",
        "user.roles[0]",
        "user.roles[5]",
    ])
    .prop_map(str::to_owned)
}

fn boolean() -> impl Strategy<Value = String> {
    let order = proptest::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let leaf = prop_oneof![
        (number(), order.clone(), number()).prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
        (number(), order.clone()).prop_map(|(left, operator)| format!("{left} {operator} user.info.ratio")),
        (text(), order, text()).prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
        (text(), proptest::sample::select(vec!["user.roles", "event.data.list", "['u1', 'red']"]))
            .prop_map(|(one, many)| format!("{one} in {many}")),
        (text(), proptest::sample::select(vec!["contains", "startsWith", "endsWith"]), text())
            .prop_map(|(one, function, other)| format!("{one}.{function}({other})")),
        proptest::sample::select(vec![
            "true",
            "false",
            "has(user.org)",
            "has(user.info.flag)",
            "user.info.flag",
            "user.info.suspended",
            "user.info.deep == {'x': {'y': 1}}",
            "user.info.tags == ['a', 'b']",
            "user.info.big > user.info.level",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} && {right})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} || {right})")),
            inner.clone().prop_map(|one| format!("!({one})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (proptest::sample::select(vec!["all", "exists", "exists_one"]), inner)
                .prop_map(|(macro_name, one)| format!("user.roles.{macro_name}(r, r == 'editor' || {one})")),
        ]
    })
}

/// Whether an integer may leave 64 bits: by the largest one, or by a product with two of 2^53.
fn may_leave_64_bits(text: &str) -> bool {
    text.contains("9223372036854775807") || text.matches("event.data.n").count() > 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn both_answer_alike(text in boolean()) {
        let world = World::new();
        let Ok(expression) = Expression::compile(&text, Variables::ALL, Wanted::Boolean) else {
            return Ok(());
        };
        let (own, other) = (expression.test(&world.scope()).ok(), reference(&text, &world));
        if other.is_none() && may_leave_64_bits(&text) {
            return Ok(());
        }
        prop_assert_eq!(own, other, "{}", text);
    }

    // F21
    #[test]
    fn an_integer_beside_a_double_is_calculated_with_as_a_double(
        integer in number(),
        operator in proptest::sample::select(vec!["+", "-", "*", "/"]),
        turned in any::<bool>(),
    ) {
        let world = World::new();
        let written = |integer: &str| match turned {
            false => format!("{integer} {operator} user.info.ratio < 2.5"),
            true => format!("user.info.ratio {operator} {integer} < 2.5"),
        };
        let Some(other) = reference(&written(&format!("double({integer})")), &world) else {
            return Ok(());
        };
        prop_assert_eq!(compile(&written(&integer)).test(&world.scope()), Ok(other), "{}", integer);
    }
}
