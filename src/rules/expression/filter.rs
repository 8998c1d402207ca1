//! Filters: one expression for an event and many viewers (SR-7).
//!
//! Invariant: [`Filter::common`] and then [`Filter::viewer`] answer exactly what the whole expression answers, absorbed
//! faults included. The expression is split at its topmost `&&` and `||`; a part that reads none of `user`, `params`, `ctx`
//! and `ip` is evaluated once for an event, the others once for each viewer, and only where they still matter. So what a
//! client's data costs by itself is paid once, however many are subscribed.

use std::fmt;
use std::sync::Arc;

use super::fault::Fault;
use super::node::Node;
use super::split::{Answer, Split};
use super::{Variables, Wanted, check};
use crate::rules::value::Scope;

const OF_VIEWER: Variables = Variables::USER.union(Variables::PARAMS).union(Variables::CTX).union(Variables::IP);

/// The filter of an event, compiled.
#[derive(Clone)]
pub struct Filter(Arc<Compiled>);

struct Compiled {
    source: Box<str>,
    split: Split,
    names: Variables,
    captures: Box<[Box<str>]>,
    needs_data: bool,
    constant: Option<bool>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.source)
    }
}

/// What the parts that are common to all viewers came to, for one event.
#[derive(Clone, Debug)]
pub struct Common {
    known: Vec<Option<Result<bool, Fault>>>,
    decided: Option<Result<bool, Fault>>,
}

impl Common {
    /// The answer for every viewer alike; None: [`Filter::viewer`] must be asked for each.
    pub fn decided(&self) -> Option<&Result<bool, Fault>> {
        self.decided.as_ref()
    }
}

impl Filter {
    /// Compiles a filter, which may name user, params, pipe, event, ctx and ip.
    ///
    /// # Errors
    /// A sentence for the operator, with the column where it is known.
    pub fn compile(text: &str) -> Result<Filter, String> {
        let may_name = OF_VIEWER.union(Variables::PIPE).union(Variables::EVENT);
        let node = check::check(text, may_name, Wanted::Boolean)?;
        let names = node.names().intersection(may_name);
        let constant = super::constant(&node)?;
        let needs_data = node.needs_data();
        let mut captures = Vec::new();
        node.captures(&mut captures);
        let split = Split::new(node, &|part: &Node| part.names().intersects(OF_VIEWER));
        Ok(Filter(Arc::new(Compiled {
            source: text.into(),
            split,
            names,
            captures: captures.into(),
            needs_data,
            constant,
        })))
    }

    /// As it stands in the configuration.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The variables that it reads.
    pub fn names(&self) -> Variables {
        self.0.names
    }

    /// The captures that it reads as `params.x`: the pattern must have them.
    pub fn captures(&self) -> &[Box<str>] {
        &self.0.captures
    }

    /// The answer, where it is always the same.
    pub fn constant(&self) -> Option<bool> {
        self.0.constant
    }

    /// Whether viewers can differ.
    pub fn needs_viewer(&self) -> bool {
        self.0.names.intersects(OF_VIEWER)
    }

    /// Whether it reads `event.data`.
    pub fn needs_data(&self) -> bool {
        self.0.needs_data
    }

    /// Evaluates what is common to all viewers. Of `scope` only `event` and `pipe` are read.
    pub fn common(&self, scope: &Scope<'_>) -> Common {
        let mut known = vec![None; self.0.split.parts()];
        let answer = self.0.split.answer(&mut |number, part, of_viewer| {
            if of_viewer {
                return Answer::Open;
            }
            let answer = super::evaluate::test(part, scope);
            known[number] = Some(answer.clone());
            Answer::from(answer)
        });
        Common { known, decided: answer.decided() }
    }

    /// Evaluates the rest for one viewer; `scope` is that of [`Filter::common`] with the viewer added.
    ///
    /// # Errors
    /// The answer is a [`Fault`]: not delivered, and counted (F12).
    pub fn viewer(&self, common: &Common, scope: &Scope<'_>) -> Result<bool, Fault> {
        if let Some(decided) = &common.decided {
            return decided.clone();
        }
        let answer = self.0.split.answer(&mut |number, part, _| match common.known.get(number) {
            Some(Some(known)) => Answer::from(known.clone()),
            _ => Answer::from(super::evaluate::test(part, scope)),
        });
        answer.decided().unwrap_or(Err(Fault::TooMuch))
    }
}
