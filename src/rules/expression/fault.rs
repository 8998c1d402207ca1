//! Why an evaluation has no answer.
//!
//! Invariant: a fault is never an allow (RK-6), and its sentence holds nothing but what stands in the configuration:
//! names of fields and kinds of values, never a value.

use std::fmt;
use std::sync::Arc;

/// Why a rule has no answer. To the client a refusal, to the operator an internal error of the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such field, capture or argument.
    Absent(Arc<str>),
    /// A value is not of the kind that is needed here.
    Kind {
        /// What was needed, as in "a boolean".
        wanted: &'static str,
        /// What there was, as in "a string".
        found: &'static str,
    },
    /// Two values that do not go together, as in `1 < 'x'`.
    Pair {
        /// The operator.
        operator: &'static str,
        /// Left of it.
        left: &'static str,
        /// Right of it.
        right: &'static str,
    },
    /// A result that 64 bits do not hold.
    Overflow,
    /// Division by zero.
    Zero,
    /// An index outside of the list.
    Range,
    /// A string that stands for no number.
    NoNumber,
    /// More than `STEPS_MAX` steps, or a text longer than `TEXT_BYTES_MAX`.
    TooMuch,
}

/// A sentence for the operator.
impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Absent(name) => write!(out, "`{name}` is not there; ask has(…) first"),
            Fault::Kind { wanted, found } => write!(out, "{wanted} is needed, this is {found}"),
            Fault::Pair { operator, left, right } => {
                write!(out, "`{operator}` takes no {left} and {right}", left = bare(left), right = bare(right))
            }
            Fault::Overflow => out.write_str("a number beyond 64 bits"),
            Fault::Zero => out.write_str("a division by zero"),
            Fault::Range => out.write_str("an index outside of its list"),
            Fault::NoNumber => out.write_str("a text that is no number"),
            Fault::TooMuch => out.write_str("the values are too large for this rule; it was given up"),
        }
    }
}

fn bare(kind: &'static str) -> &'static str {
    kind.trim_start_matches("an ").trim_start_matches("a ")
}

impl std::error::Error for Fault {}
