//! CEL for rules and filters: compiled and checked at load, evaluated within a bound.
//!
//! Invariant: an answer is `true`, `false` or a [`Fault`], and a fault is never an allow (RK-6). Nothing that an
//! expression or the values it is given can hold makes this panic, recurse without bound or run for long.
//!
//! What it costs (INVARIANTS 27) is limited twice. At load: at most 4,096 bytes of text, 24 brackets, 256 parts, 48 deep;
//! macros (`all`, `exists`, …) never over `event`, `args` or `to`, and at most one within another; the pattern of
//! `matches` written out, compiled once, at most 512 KiB. So without macros the cost is that of the parts, plus the
//! elements that `in` and `==` look at and the bytes that text functions look at. At evaluation: at most 10,000 steps (a
//! part visited, an element compared, 64 bytes of text compared; a byte matched counts four), about 0.2 ms, and texts
//! built of at most 16 KiB; beyond it the answer is a fault.
//!
//! The grammar is the crate's (`cel`); types, cost and evaluation are ours. Its evaluator has no bound on what it does,
//! lets `1 + 1` be a rule, compiles a pattern at each call, and cannot tell which part of a filter needs the viewer. The
//! tests hold ours against it. What stands beyond cel-spec: `has(a.b.c)` is false where `b` is absent; bytes, messages,
//! times, durations, optionals and `dyn` are left out.

mod calls;
mod check;
mod evaluate;
mod fault;
mod filter;
mod folds;
mod node;
mod operators;
mod split;
mod syntax;
#[cfg(test)]
mod tests;
mod types;

use std::fmt;
use std::sync::Arc;

use self::node::Node;
use self::split::Answer;
use super::value::{Scope, Value};

pub use self::fault::Fault;
pub use self::filter::{Common, Filter};

/// A set of the variables that rules know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variables(u8);

impl Variables {
    /// No variable.
    pub const NONE: Variables = Variables(0);
    /// `user`: who is connected.
    pub const USER: Variables = Variables(1);
    /// `params`: what the captures of the pattern stand for.
    pub const PARAMS: Variables = Variables(1 << 1);
    /// `pipe`: its name.
    pub const PIPE: Variables = Variables(1 << 2);
    /// `event`: `name` and `data`.
    pub const EVENT: Variables = Variables(1 << 3);
    /// `args`: of an action or an `enqueue`.
    pub const ARGS: Variables = Variables(1 << 4);
    /// `to`: of a client's push.
    pub const TO: Variables = Variables(1 << 5);
    /// `ctx`: what guards have set.
    pub const CTX: Variables = Variables(1 << 6);
    /// `ip`: address of the client.
    pub const IP: Variables = Variables(1 << 7);
    /// All of them.
    pub const ALL: Variables = Variables(u8::MAX);

    /// Those of either.
    pub const fn union(self, other: Variables) -> Variables {
        Variables(self.0 | other.0)
    }

    /// Those of both.
    pub const fn intersection(self, other: Variables) -> Variables {
        Variables(self.0 & other.0)
    }

    /// Those of this that are not of `other`.
    pub const fn without(self, other: Variables) -> Variables {
        Variables(self.0 & !other.0)
    }

    /// Whether all of `other` are in it.
    pub const fn contains(self, other: Variables) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether at least one of `other` is in it.
    pub const fn intersects(self, other: Variables) -> bool {
        self.0 & other.0 != 0
    }
}

/// What an expression is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A rule: only what can be true or false compiles (F7).
    Boolean,
    /// A value for `ctx`.
    Anything,
}

/// An expression, compiled and checked. Cheap to clone.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

struct Compiled {
    source: Box<str>,
    node: Node,
    names: Variables,
    captures: Box<[Box<str>]>,
    constant: Option<bool>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.source)
    }
}

impl Expression {
    /// Compiles an expression that may name the variables of `may_name`.
    ///
    /// # Errors
    /// A sentence for the operator that says what to write instead, with the column where it is known.
    pub fn compile(text: &str, may_name: Variables, wanted: Wanted) -> Result<Expression, String> {
        let node = check::check(text, may_name, wanted)?;
        let mut captures = Vec::new();
        node.captures(&mut captures);
        let names = node.names().intersection(may_name);
        let constant = if wanted == Wanted::Boolean { constant(&node)? } else { None };
        Ok(Expression(Arc::new(Compiled { source: text.into(), node, names, captures: captures.into(), constant })))
    }

    /// As it stands in the configuration.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The variables that it reads, those that functions read included.
    pub fn names(&self) -> Variables {
        self.0.names
    }

    /// The captures that it reads as `params.x`: the pattern must have them. `owner('x')` is not among them, its `x`
    /// may be an argument.
    pub fn captures(&self) -> &[Box<str>] {
        &self.0.captures
    }

    /// Whether it reads `event.data`.
    pub fn needs_data(&self) -> bool {
        self.0.node.needs_data()
    }

    /// The answer, where it is the same whatever the variables hold.
    pub fn constant(&self) -> Option<bool> {
        self.0.constant
    }

    /// The answer of a rule.
    ///
    /// # Errors
    /// There is none, or it is no boolean: a refusal, and a fault for the operator.
    pub fn test(&self, scope: &Scope<'_>) -> Result<bool, Fault> {
        evaluate::test(&self.0.node, scope)
    }

    /// The value, for `ctx`.
    ///
    /// # Errors
    /// There is none.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, Fault> {
        evaluate::value(&self.0.node, scope)
    }
}

/// The answer of `node` where it does not depend on any variable.
///
/// # Errors
/// It is a fault whatever the variables hold.
fn constant(node: &Node) -> Result<Option<bool>, String> {
    let answer = split::answer(node, &mut |part| {
        if part.names() == Variables::NONE {
            Answer::from(evaluate::test(part, &Scope::default()))
        } else {
            Answer::Open
        }
    });
    match answer.decided() {
        Some(Ok(answer)) => Ok(Some(answer)),
        Some(Err(fault)) => Err(format!("this can never be decided: {fault}")),
        None => Ok(None),
    }
}
