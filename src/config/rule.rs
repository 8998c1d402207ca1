//! Rights, expressions and filters of the file, compiled.
//!
//! Invariant: what leaves this file compiled, names only what is there where it stands, and asks the application only
//! where that can be awaited (A11, F7, F18).

use super::call::{Calls, ask};
use super::finding::{Findings, Place};
use super::tree::{Node, Value};
use crate::protocol::names::Template;
use crate::rules::definition::{self, FilterRule, PipeRules, Right, Rule};
use crate::rules::expression::{Expression, Filter, Variables, Wanted};

/// Where a right stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// `subscribe` and `presence` of a pipe: before there is any event (F18).
    Pipe,
    /// `publish` of a pipe.
    Publish,
    /// `allow` of an action, `publish` of a queue.
    Item,
    /// `allow` of `[push]`.
    Push,
    /// `subscribe` of an event: decided once for a connection, as a bit of a mask.
    EventSubscribe,
    /// `publish` of an event.
    EventPublish,
}

impl Stand {
    /// What a rule may name here: what is never there could only refuse.
    fn may_name(self) -> Variables {
        let everywhere = Variables::USER.union(Variables::CTX).union(Variables::IP);
        let of_pipes = everywhere.union(Variables::PIPE).union(Variables::PARAMS);
        match self {
            Stand::Pipe | Stand::EventSubscribe => of_pipes,
            Stand::Publish | Stand::EventPublish => of_pipes.union(Variables::EVENT),
            Stand::Item => everywhere.union(Variables::ARGS),
            Stand::Push => everywhere.union(Variables::EVENT).union(Variables::TO),
        }
    }

    /// Whether `{ url = … }` may stand here.
    fn may_ask(self) -> bool {
        matches!(self, Stand::Pipe | Stand::Publish | Stand::Item)
    }

    /// What is accepted here, in words.
    pub fn accepts(self) -> &'static str {
        if self.may_ask() {
            "`true`, `false`, an expression in quotes, or `{ url = … }`"
        } else {
            "`true`, `false`, or an expression in quotes"
        }
    }
}

/// Reads a right.
pub(super) fn right(stand: Stand, node: &Node, key: &str, calls: &mut Calls, findings: &mut Findings) -> Option<Right> {
    match &node.value {
        Value::Flag(false) => Some(Right::Never),
        Value::Flag(true) => Some(Right::Always),
        Value::Text(text) => {
            let rule = rule(text, &node.place, key, stand.may_name(), Wanted::Boolean, findings)?;
            Some(Right::When(Box::new(rule)))
        }
        Value::Table(_) if stand.may_ask() => ask(node, key, calls, findings).map(Right::Ask),
        Value::Table(_) => {
            let message = match stand {
                Stand::Push => "the application cannot be asked here; write an expression, or a guard with `url`",
                _ => {
                    "the application cannot be asked about a single event; write an expression, or `{ url = … }` as \
                     the right of the pipe"
                }
            };
            findings.error(&node.place, key, message);
            None
        }
        other => {
            findings.error(&node.place, key, format!("{} was found here; write {}", other.kind(), stand.accepts()));
            None
        }
    }
}

/// Compiles an expression.
pub(super) fn rule(
    text: &str,
    place: &Place,
    key: &str,
    may_name: Variables,
    wanted: Wanted,
    findings: &mut Findings,
) -> Option<Rule> {
    match Expression::compile(text, may_name, wanted) {
        Ok(expression) => Some(Rule { expression, place: place.of(key) }),
        Err(why) => {
            findings.error(place, key, why);
            None
        }
    }
}

/// Reads a filter.
pub(super) fn filter(node: &Node, key: &str, findings: &mut Findings) -> Option<Box<FilterRule>> {
    let Value::Text(text) = &node.value else {
        let message = format!("{} was found here; write an expression in quotes", node.value.kind());
        findings.error(&node.place, key, message);
        return None;
    };
    match Filter::compile(text) {
        Ok(filter) => Some(Box::new(FilterRule { filter, place: node.place.of(key) })),
        Err(why) => {
            findings.error(&node.place, key, why);
            None
        }
    }
}

/// Asks that the name of a pipe has what its rules read as `params.x`. One that it lacks would refuse everybody.
pub(super) fn check_captures(pipe: &PipeRules, findings: &mut Findings) {
    let mut check = |captures: &[Box<str>], place: &definition::Place| {
        for capture in captures.iter().filter(|capture| pipe.name.captures().all(|own| *own != ***capture)) {
            let message = format!("`params.{capture}` is nothing: {}", instead_of(capture, &pipe.name));
            findings.error(&Place::from(place), &place.key, message);
        }
    };
    let rights = [&pipe.subscribe, &pipe.publish, &pipe.presence].into_iter();
    let events = pipe.events.iter().flat_map(|event| [&event.subscribe, &event.publish]).flatten();
    for right in rights.chain(events) {
        if let Right::When(rule) = right {
            check(rule.expression.captures(), &rule.place);
        }
    }
    for guard in &pipe.guards {
        for rule in guard.require.iter().chain(guard.set.iter().map(|(_, rule)| rule)) {
            check(rule.expression.captures(), &rule.place);
        }
    }
    for filter in pipe.events.iter().filter_map(|event| event.filter.as_ref()) {
        check(filter.filter.captures(), &filter.place);
    }
}

/// What to write where a capture is named that `name` lacks.
pub(super) fn instead_of(capture: &str, name: &Template) -> String {
    let own: Vec<String> = name.captures().map(|own| format!("`{own}`")).collect();
    if own.is_empty() {
        format!("the name of the pipe captures nothing; write `{{{capture}}}` into it, or take this out")
    } else {
        format!("the name of the pipe captures {}; write one of them", own.join(", "))
    }
}
