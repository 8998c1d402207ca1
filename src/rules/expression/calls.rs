//! Operators and functions: which there are, and what they take.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue};
use regex::RegexBuilder;

use super::check::{Checker, Typed, spell};
use super::node::{Arithmetic, Comparison, Conversion, Node, TextTest};
use super::types::{Record, Type};
use super::{Variables, operators};

/// Bytes of a compiled pattern of `matches`. Larger: refused at load.
const PATTERN_BYTES_MAX: usize = 512 * 1024;

const FUNCTIONS: &str = "has, size, contains, startsWith, endsWith, matches, int, double, string, all, exists, exists_one, \
                         map, filter, owner, role, tenant, org, team";

/// An operator or a function with its operands.
pub(super) fn call(checker: &mut Checker<'_>, call: &CallExpr) -> Result<Typed, String> {
    let args = call.args.as_slice();
    match (&*call.func_name, &call.target, args) {
        ("_&&_", None, [left, right]) => Ok((Node::And(booleans(checker, left, right, "`&&`")?), Type::Bool)),
        ("_||_", None, [left, right]) => Ok((Node::Or(booleans(checker, left, right, "`||`")?), Type::Bool)),
        ("!_", None, [one]) => Ok((Node::Not(Box::new(checker.boolean(one, "what follows `!`")?)), Type::Bool)),
        ("_?_:_", None, [condition, then, otherwise]) => {
            let condition = checker.boolean(condition, "what stands before `?`")?;
            let ((then, one), (otherwise, other)) = (checker.expression(then)?, checker.expression(otherwise)?);
            Ok((Node::If(Box::new([condition, then, otherwise])), one.join(other)))
        }
        ("_==_", None, [left, right]) => equality(checker, Comparison::Equal, left, right),
        ("_!=_", None, [left, right]) => equality(checker, Comparison::Different, left, right),
        ("_<_", None, [left, right]) => order(checker, Comparison::Less, left, right),
        ("_<=_", None, [left, right]) => order(checker, Comparison::LessOrEqual, left, right),
        ("_>_", None, [left, right]) => order(checker, Comparison::Greater, left, right),
        ("_>=_", None, [left, right]) => order(checker, Comparison::GreaterOrEqual, left, right),
        ("_+_", None, [left, right]) => arithmetic(checker, Arithmetic::Add, left, right),
        ("_-_", None, [left, right]) => arithmetic(checker, Arithmetic::Subtract, left, right),
        ("_*_", None, [left, right]) => arithmetic(checker, Arithmetic::Multiply, left, right),
        ("_/_", None, [left, right]) => arithmetic(checker, Arithmetic::Divide, left, right),
        ("_%_", None, [left, right]) => arithmetic(checker, Arithmetic::Remainder, left, right),
        ("-_", None, [one]) => match checker.expression(one)? {
            (node, Type::Double) => Ok((Node::Negate(Box::new(node)), Type::Double)),
            (node, kind) if kind.is_number() || kind.is_open() => Ok((Node::Negate(Box::new(node)), Type::Number)),
            (_, kind) => Err(format!("`-` needs a number, not {}", kind.kind())),
        },
        ("@in", None, [one, many]) => membership(checker, one, many),
        ("_[_]", None, [of, at]) => index(checker, of, at),
        ("size", None, [one]) => size(checker, one),
        ("size", Some(one), []) => size(checker, one),
        ("contains", Some(text), [part]) => text_test(checker, TextTest::Contains, &call.func_name, text, part),
        ("startsWith", Some(text), [part]) => text_test(checker, TextTest::StartsWith, &call.func_name, text, part),
        ("endsWith", Some(text), [part]) => text_test(checker, TextTest::EndsWith, &call.func_name, text, part),
        ("matches", Some(text), [pattern]) => matches(checker, text, pattern),
        ("matches", None, [text, pattern]) => matches(checker, text, pattern),
        ("int", None, [one]) => convert(checker, Conversion::Int, one, Type::Int),
        ("double", None, [one]) => convert(checker, Conversion::Double, one, Type::Double),
        ("string", None, [one]) => convert(checker, Conversion::String, one, Type::String),
        ("owner", None, args) => owner(checker, args),
        ("role", None, args) => role(checker, args),
        ("tenant", None, args) => own(checker, "tenant", args),
        ("org", None, args) => own(checker, "org", args),
        ("team", None, args) => own(checker, "team", args),
        (name, _, _) => Err(unknown(checker, name)),
    }
}

fn unknown(checker: &Checker<'_>, name: &str) -> String {
    let sentence = match name {
        "size" | "contains" | "startsWith" | "endsWith" | "matches" => {
            format!("`{name}` is written `text.{name}({})`", if name == "size" { "" } else { "'…'" })
        }
        "has" => "`has` is written `has(user.team)`: a field and what it is of".into(),
        "all" | "exists" | "exists_one" | "map" | "filter" => format!("`{name}` is written `list.{name}(x, …)`"),
        "int" | "double" | "string" => format!("`{name}` takes one value, as in `{name}(x)`"),
        "owner" | "role" | "tenant" | "org" | "team" => format!("`{name}` belongs to nothing; write `{name}(…)` alone"),
        "timestamp" | "duration" | "now" => {
            format!("`{name}` is unknown: rules see no clock; a token's `exp` ends access")
        }
        name if name.contains(['_', '@']) => return "this operator is not known here".into(),
        name => format!("the function `{name}` is unknown; there are {FUNCTIONS}"),
    };
    checker.at(name, &sentence)
}

fn pair(checker: &mut Checker<'_>, left: &IdedExpr, right: &IdedExpr) -> Result<(Box<[Node; 2]>, Type, Type), String> {
    let ((left, one), (right, other)) = (checker.expression(left)?, checker.expression(right)?);
    Ok((Box::new([left, right]), one, other))
}

fn booleans(
    checker: &mut Checker<'_>,
    left: &IdedExpr,
    right: &IdedExpr,
    what: &str,
) -> Result<Box<[Node; 2]>, String> {
    let place = format!("both sides of {what}");
    Ok(Box::new([checker.boolean(left, &place)?, checker.boolean(right, &place)?]))
}

fn equality(checker: &mut Checker<'_>, how: Comparison, left: &IdedExpr, right: &IdedExpr) -> Result<Typed, String> {
    let (nodes, one, other) = pair(checker, left, right)?;
    if one.may_equal(&other) {
        return Ok((Node::Compare(how, nodes), Type::Bool));
    }
    let (left, right) = (spell(left), spell(right));
    let instead = match (&one, &other) {
        (Type::Null, _) => format!("; it is never null: write `has({right})`"),
        (_, Type::Null) => format!("; it is never null: write `has({left})`"),
        (Type::List(_), Type::String) => format!("; write `{right} in {left}`"),
        (Type::String, Type::List(_)) => format!("; write `{left} in {right}`"),
        _ => String::new(),
    };
    let sentence = format!("`{left}` is {}, `{right}` is {}: they are never equal{instead}", one.kind(), other.kind());
    Err(checker.at(&left, &sentence))
}

fn order(checker: &mut Checker<'_>, how: Comparison, left: &IdedExpr, right: &IdedExpr) -> Result<Typed, String> {
    let (nodes, one, other) = pair(checker, left, right)?;
    let orderly = |kind: &Type| kind.is_number() || kind.is_open() || matches!(kind, Type::String | Type::Bool);
    if orderly(&one) && orderly(&other) && one.may_equal(&other) {
        return Ok((Node::Compare(how, nodes), Type::Bool));
    }
    let (left, right) = (spell(left), spell(right));
    let sentence = format!(
        "`{left}` is {} and `{right}` is {}: only two numbers or two strings have an order",
        one.kind(),
        other.kind()
    );
    Err(checker.at(&left, &sentence))
}

fn arithmetic(checker: &mut Checker<'_>, how: Arithmetic, left: &IdedExpr, right: &IdedExpr) -> Result<Typed, String> {
    let (nodes, one, other) = pair(checker, left, right)?;
    match result(how, &one, &other) {
        Some(kind) => Ok((Node::Arithmetic(how, nodes), kind)),
        None => {
            let numbers = one.is_number() && other.is_number();
            let instead = if numbers { "; write int(…) around what is a double" } else { "" };
            Err(format!("`{}` does not take {} and {}{instead}", operators::symbol(how), one.kind(), other.kind()))
        }
    }
}

/// What arithmetic yields. None: it could only fail.
fn result(how: Arithmetic, one: &Type, other: &Type) -> Option<Type> {
    let with_double = [one, other].contains(&&Type::Double);
    match (one, other) {
        (one, other) if how == Arithmetic::Add && one.is_open() && other.is_open() => Some(Type::Unboolean),
        (one, other) if [one, other].iter().all(|kind| kind.is_open() || kind.is_number()) => match how {
            Arithmetic::Remainder if with_double => None,
            _ if with_double => Some(Type::Double),
            _ => Some(Type::Number),
        },
        _ if how != Arithmetic::Add => None,
        (Type::List(one), Type::List(other)) => Some(Type::List(Box::new((**one).clone().join((**other).clone())))),
        (Type::List(_), other) if other.is_open() => Some(Type::List(Box::new(Type::Dynamic))),
        (one, Type::List(_)) if one.is_open() => Some(Type::List(Box::new(Type::Dynamic))),
        (one, other) if [one, other].iter().all(|kind| kind.is_open() || **kind == Type::String) => Some(Type::String),
        _ => None,
    }
}

fn membership(checker: &mut Checker<'_>, one: &IdedExpr, many: &IdedExpr) -> Result<Typed, String> {
    let (nodes, kind, of) = pair(checker, one, many)?;
    let (one, many) = (spell(one), spell(many));
    match &of {
        Type::List(element) if !element.may_equal(&kind) => {
            let sentence = format!("`{many}` holds {}, `{one}` is {}: it is never in it", element.kind(), kind.kind());
            Err(checker.at(&one, &sentence))
        }
        Type::Dynamic | Type::Unboolean | Type::Map | Type::List(_) => Ok((Node::In(nodes), Type::Bool)),
        Type::Record(record) => {
            let sentence = format!("write has({}.…) to ask whether a field is there", record.name());
            Err(checker.at(&many, &sentence))
        }
        other => {
            let instead = match &*many {
                "user.role" => "; write user.roles",
                _ if *other == Type::String => "; write `text.contains('…')` for a part of a text",
                _ => "",
            };
            Err(checker.at(&many, &format!("`in` needs a list, `{many}` is {}{instead}", other.kind())))
        }
    }
}

fn index(checker: &mut Checker<'_>, of: &IdedExpr, at: &IdedExpr) -> Result<Typed, String> {
    let piece = spell(of);
    let (of, kind) = checker.expression(of)?;
    if let Expr::Literal(LiteralValue::String(name)) = &at.expr {
        let name = name.inner();
        let field = checker.field(&kind, name, &piece)?;
        return Ok((Node::Field(Box::new(of), name.into()), field));
    }
    let (at, by) = checker.expression(at)?;
    let element = match (&kind, &by) {
        (Type::Record(record), _) => {
            let sentence =
                format!("a field of `{}` is named in quotes or after a dot, so that it can be checked", record.name());
            return Err(checker.at(&piece, &sentence));
        }
        (Type::List(element), by) if by.is_number() || by.is_open() => (**element).clone(),
        (Type::Map, by) if *by == Type::String || by.is_open() => Type::Dynamic,
        (of, by) if of.is_open() && (by.is_number() || *by == Type::String || by.is_open()) => Type::Dynamic,
        _ => return Err(checker.at(&piece, &format!("`{piece}[…]`: {} is not indexed by {}", kind.kind(), by.kind()))),
    };
    Ok((Node::Index(Box::new([of, at])), element))
}

fn size(checker: &mut Checker<'_>, one: &IdedExpr) -> Result<Typed, String> {
    let piece = spell(one);
    match checker.expression(one)? {
        (node, Type::Dynamic | Type::Unboolean | Type::String | Type::List(_) | Type::Map | Type::Record(_)) => {
            Ok((Node::Size(Box::new(node)), Type::Int))
        }
        (_, kind) => {
            Err(checker.at(&piece, &format!("`size` needs a string, list or map, `{piece}` is {}", kind.kind())))
        }
    }
}

/// A part that must be a string.
fn string(checker: &mut Checker<'_>, tree: &IdedExpr, function: &str) -> Result<Node, String> {
    let piece = spell(tree);
    match checker.expression(tree)? {
        (node, Type::String | Type::Dynamic | Type::Unboolean) => Ok(node),
        (_, Type::List(_)) if function == "contains" => {
            Err(checker.at(&piece, &format!("`{piece}` is a list; write `'…' in {piece}`")))
        }
        (_, kind) => Err(checker.at(&piece, &format!("`{function}` needs strings, `{piece}` is {}", kind.kind()))),
    }
}

fn text_test(
    checker: &mut Checker<'_>,
    test: TextTest,
    function: &str,
    text: &IdedExpr,
    part: &IdedExpr,
) -> Result<Typed, String> {
    let nodes = [string(checker, text, function)?, string(checker, part, function)?];
    Ok((Node::Text(test, Box::new(nodes)), Type::Bool))
}

fn matches(checker: &mut Checker<'_>, text: &IdedExpr, pattern: &IdedExpr) -> Result<Typed, String> {
    let text = string(checker, text, "matches")?;
    let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
        return Err(
            checker.at("matches", "the pattern of `matches` must be written out in quotes, it is compiled at load")
        );
    };
    let compiled = RegexBuilder::new(pattern.inner())
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .nest_limit(16)
        .build()
        .map_err(|error| {
            let why = error.to_string();
            checker.at("matches", &format!("the pattern of `matches` cannot be used: {}", why.replace('\n', " ")))
        })?;
    Ok((Node::Matches(Box::new(text), Box::new(compiled)), Type::Bool))
}

fn convert(checker: &mut Checker<'_>, to: Conversion, one: &IdedExpr, kind: Type) -> Result<Typed, String> {
    let piece = spell(one);
    match checker.expression(one)? {
        (node, found) if found.is_number() || found.is_open() || found == Type::String => {
            Ok((Node::Convert(to, Box::new(node)), kind))
        }
        (node, Type::Bool) if to == Conversion::String => Ok((Node::Convert(to, Box::new(node)), kind)),
        (_, found) => {
            Err(checker.at(&piece, &format!("`{piece}` is {} and does not become {}", found.kind(), kind.kind())))
        }
    }
}

/// Refuses a predicate where what it reads is not there.
fn needs(checker: &Checker<'_>, function: &str, names: Variables) -> Result<(), String> {
    if checker.may_name.contains(names) {
        return Ok(());
    }
    Err(checker.at(function, &format!("`{function}` reads what is not there yet where this is decided")))
}

fn owner(checker: &mut Checker<'_>, args: &[IdedExpr]) -> Result<Typed, String> {
    needs(checker, "owner", Variables::USER)?;
    if !checker.may_name.intersects(Variables::PARAMS.union(Variables::ARGS)) {
        return Err(checker.at("owner", "`owner` needs a capture or an argument; there are none here"));
    }
    match args {
        [IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }] if !name.inner().is_empty() => {
            Ok((Node::Owner(name.inner().into()), Type::Bool))
        }
        _ => {
            Err(checker
                .at("owner", "`owner` takes the name of a capture or an argument in quotes, as in owner('user')"))
        }
    }
}

fn role(checker: &mut Checker<'_>, args: &[IdedExpr]) -> Result<Typed, String> {
    needs(checker, "role", Variables::USER)?;
    let usage = "`role` takes a map from roles to booleans, as in role({'admin': true})";
    let [IdedExpr { expr: Expr::Map(map), .. }] = args else {
        return Err(checker.at("role", usage));
    };
    let mut roles = Vec::new();
    for (name, (node, kind)) in checker.entries(map.entries.iter().map(|entry| &entry.expr))? {
        if !kind.may_be_boolean() {
            return Err(checker.at("role", &format!("{usage}; the value under '{name}' is {}", kind.kind())));
        }
        roles.push((name, node));
    }
    if roles.is_empty() {
        return Err(checker.at("role", &format!("{usage}; an empty map allows nobody: write `false`")));
    }
    Ok((Node::Role(roles), Type::Bool))
}

fn own(checker: &mut Checker<'_>, name: &'static str, args: &[IdedExpr]) -> Result<Typed, String> {
    needs(checker, name, Variables::USER)?;
    if !args.is_empty() {
        return Err(checker.at(name, &format!("`{name}` takes nothing: write `{name}()`, or compare user.{name}")));
    }
    debug_assert!(Record::User.fields().is_some_and(|fields| fields.contains(&name)));
    Ok((Node::Own(name), Type::Bool))
}
