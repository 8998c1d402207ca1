//! `[[guard]]` and the lists called `guard`: rules that stand before others (SR-2, SR-3, SR-10).
//!
//! Invariant: a [`Guard`] that leaves this file requires, sets or asks; one that did nothing would look like protection.
//!
//! Source: rulings A11, F10, F11.

use super::call::{self, Calls, ask_of};
use super::finding::Findings;
use super::lookup::join;
use super::rule::rule;
use super::table::{Inner, Table};
use super::tree::{Node, Value};
use crate::protocol::codes::Code;
use crate::rules::definition::{Guard, Rule};
use crate::rules::expression::{Variables, Wanted};

/// Guards in one list, names in one `set`. More: error.
const GUARDS_MAX: usize = 64;
/// Bytes of a guard's name.
const NAME_BYTES_MAX: usize = 100;
/// Bytes of the sentence of a refusal.
const MESSAGE_BYTES_MAX: usize = 500;
/// Bytes of a reply code.
const CODE_BYTES_MAX: usize = 64;

const EXAMPLE: &str = "`guard = [ { require = \"…\" } ]`";

/// What one guard holds.
pub(super) static GUARD: [Inner; 9] = [
    Inner {
        name: "name",
        accepts: "a string of at most 100 bytes",
        default: "",
        doc: "For calls to the application and for `pipeward explain`.",
    },
    Inner {
        name: "require",
        accepts: "an expression in quotes",
        default: "",
        doc: "Must be `true`; anything else refuses. Evaluated before `set` of the same guard.",
    },
    Inner {
        name: "set",
        accepts: "a table of names and expressions in quotes",
        default: "",
        doc: "Names that later rules see as `ctx.name`, in order.",
    },
    Inner {
        name: "url",
        accepts: "a string `http://…` or `https://…`",
        default: "",
        doc: "Instead of `require` and `set`: the application decides, and its `context` is merged into `ctx`.",
    },
    call::TIMEOUT,
    call::CACHE,
    call::SECRET,
    Inner {
        name: "code",
        accepts: "a string of capitals, digits and `_`, beginning with a capital, of at most 64 bytes",
        default: "\"FORBIDDEN\"",
        doc: "Reply code of a refusal.",
    },
    Inner {
        name: "message",
        accepts: "a string of at most 500 bytes",
        default: "\"Access denied\"",
        doc: "Sentence of a refusal.",
    },
];

/// Reads a list of guards.
pub(super) fn guards(node: &Node, key: &str, calls: &mut Calls, findings: &mut Findings) -> Option<Vec<Guard>> {
    let example = if key == "guard" { "`[[guard]]`" } else { EXAMPLE };
    let Value::List(items) = &node.value else {
        findings.error(&node.place, key, format!("{} was found here; write {example}", node.value.kind()));
        return None;
    };
    if items.len() > GUARDS_MAX {
        findings.error(&node.place, key, format!("there are {} guards; write at most {GUARDS_MAX}", items.len()));
        return None;
    }
    // All of them are read, so that all that is wrong is found.
    let guards: Vec<Guard> = items.iter().filter_map(|item| guard(item, key, calls, findings)).collect();
    (guards.len() == items.len()).then_some(guards)
}

fn guard(node: &Node, key: &str, calls: &mut Calls, findings: &mut Findings) -> Option<Guard> {
    let mut table = Table::open(node, key, &GUARD, "`{ require = \"…\" }`", findings)?;
    let name = table.text("name", NAME_BYTES_MAX).map(Box::from);
    let require = table.node("require").map(|node| expression(&mut table, node, "require", Wanted::Boolean));
    let set = table.node("set").map(|node| set(&mut table, node));
    let code = code(&mut table);
    let message = table.text("message", MESSAGE_BYTES_MAX).unwrap_or(Code::Forbidden.text()).into();
    let place = node.place.of(key);
    let asks = table.node("url").map(|url| &url.place);
    let decides = table.node("require").is_some() || table.node("set").is_some();
    match (asks, decides) {
        (Some(url), true) => {
            let message = "the application decides, so `require` and `set` have no place beside it; write two guards";
            table.wrong(url, &join(key, "url"), message.to_owned());
        }
        (None, false) => table.wrong(&node.place, key, "decides nothing; write `require`, `set` or `url`".to_owned()),
        (None, true) => without_url(&mut table),
        (Some(_), false) => {}
    }
    let ask = if asks.is_some() {
        Some(ask_of(table, calls)?)
    } else {
        table.is_right.then_some(())?;
        None
    };
    Some(Guard { name, require: require.flatten(), set: set.flatten().unwrap_or_default(), ask, code, message, place })
}

/// What concerns a call has no meaning where nobody is called.
fn without_url(table: &mut Table<'_, '_>) {
    for name in ["timeout_ms", "cache_s", "secret"] {
        if let Some(node) = table.node(name) {
            let message = "belongs to a guard that asks the application; write `url` instead of `require` and `set`, or take this out";
            table.wrong(&node.place, &join(table.key, name), message.to_owned());
        }
    }
}

fn expression(table: &mut Table<'_, '_>, node: &Node, name: &str, wanted: Wanted) -> Option<Rule> {
    let Value::Text(text) = &node.value else {
        table.wrong_type(name, node);
        return None;
    };
    let rule = rule(text, &node.place, &join(table.key, name), Variables::ALL, wanted, table.findings);
    table.is_right &= rule.is_some();
    rule
}

fn set(table: &mut Table<'_, '_>, node: &Node) -> Option<Vec<(Box<str>, Rule)>> {
    let Value::Table(entries) = &node.value else {
        table.wrong_type("set", node);
        return None;
    };
    let key = join(table.key, "set");
    if !(1..=GUARDS_MAX).contains(&entries.len()) {
        table.wrong(&node.place, &key, format!("holds {} names; write 1 to {GUARDS_MAX}", entries.len()));
        return None;
    }
    let mut set = Vec::with_capacity(entries.len());
    for entry in entries {
        let own = join("set", &super::load::bare_or_quoted(&entry.name));
        if !is_identifier(&entry.name) {
            let message = "a name in `ctx` is letters, digits and `_`, not beginning with a digit";
            table.wrong(&entry.place, &join(table.key, &own), message.to_owned());
            continue;
        }
        let Value::Text(text) = &entry.node.value else {
            let found = entry.node.value.kind();
            let message = format!("{found} was found here; write an expression in quotes, as in \"user.info.plan\"");
            table.wrong(&entry.node.place, &join(table.key, &own), message);
            continue;
        };
        let key = join(table.key, &own);
        match rule(text, &entry.node.place, &key, Variables::ALL, Wanted::Anything, table.findings) {
            Some(rule) => set.push((entry.name.as_str().into(), rule)),
            None => table.is_right = false,
        }
    }
    Some(set)
}

fn code(table: &mut Table<'_, '_>) -> Box<str> {
    let Some(code) = table.text("code", CODE_BYTES_MAX) else { return Code::Forbidden.name().into() };
    let begins = code.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
    let is_code = begins && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if let (false, Some(node)) = (is_code, table.node("code")) {
        let message = format!(
            "`{}` is no code; write capitals, digits and `_`, beginning with a capital, as in \"FORBIDDEN\"",
            code.escape_debug()
        );
        table.wrong(&node.place, &join(table.key, "code"), message);
    }
    code.into()
}

/// What CEL can select with a dot.
fn is_identifier(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}
