//! What is known at load about what an expression yields (F7).
//!
//! Invariant: whatever is evaluated is a fault or of its type; only [`Type::Dynamic`] says nothing. So what is refused here
//! could never have been anything but a fault, or an answer that never changes.

use super::Variables;

/// A static type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Known only when it is evaluated: what comes from JSON.
    Dynamic,
    /// Known only when it is evaluated, but never a boolean: what arithmetic yields, whatever it is
    /// of, and one of two kinds that are none.
    Unboolean,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    /// One of the three above: what arithmetic on integers yields may leave 64 bits.
    Number,
    String,
    List(Box<Type>),
    Map,
    /// One of the variables with fields of its own.
    Record(Record),
}

/// The variables whose fields are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    User,
    Params,
    Event,
    To,
}

impl Record {
    pub(super) fn name(self) -> &'static str {
        match self {
            Record::User => "user",
            Record::Params => "params",
            Record::Event => "event",
            Record::To => "to",
        }
    }

    /// Its fields, for sentences. None: whatever the pattern captures.
    pub(super) fn fields(self) -> Option<&'static [&'static str]> {
        match self {
            Record::User => Some(&["id", "name", "role", "roles", "team", "tenant", "org", "features", "info"]),
            Record::Event => Some(&["name", "data"]),
            Record::To => Some(&["user", "connection", "role", "tenant", "org"]),
            Record::Params => None,
        }
    }

    /// The type of a field that it has.
    pub(super) fn field(self, name: &str) -> Type {
        match (self, name) {
            (Record::User, "roles" | "features") => Type::List(Box::new(Type::String)),
            (Record::User, "info") | (Record::Event, "data") => Type::Dynamic,
            _ => Type::String,
        }
    }
}

impl Type {
    /// For sentences.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Type::Dynamic => "a value of any kind",
            Type::Unboolean => "something other than a boolean",
            Type::Null => "null",
            Type::Bool => "a boolean",
            Type::Int => "an integer",
            Type::Uint => "an unsigned integer",
            Type::Double => "a double",
            Type::Number => "a number",
            Type::String => "a string",
            Type::List(_) => "a list",
            Type::Map | Type::Record(_) => "a map",
        }
    }

    /// Whether it is known only when it is evaluated.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Type::Dynamic | Type::Unboolean)
    }

    /// Whether it can be true or false.
    pub(super) fn may_be_boolean(&self) -> bool {
        matches!(self, Type::Dynamic | Type::Bool)
    }

    /// Whether it is certainly a number, of whichever type.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Uint | Type::Double | Type::Number)
    }

    /// Whether a value of the one can equal a value of the other.
    pub(super) fn may_equal(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Unboolean, Type::Bool) | (Type::Bool, Type::Unboolean) => false,
            (one, other) if one.is_open() || other.is_open() => true,
            (Type::List(one), Type::List(other)) => one.may_equal(other),
            (one, other) => (one.is_number() && other.is_number()) || one.kind() == other.kind(),
        }
    }

    /// The type of a value that is of the one or of the other.
    pub(super) fn join(self, other: Type) -> Type {
        match (self, other) {
            (one, other) if one == other => one,
            (one, other) if one.is_number() && other.is_number() => Type::Number,
            (one, other) if !one.may_be_boolean() && !other.may_be_boolean() => Type::Unboolean,
            _ => Type::Dynamic,
        }
    }
}

/// Variables whose content a client chooses, to any size that a message may have.
pub(super) const FROM_CLIENT: Variables = Variables::EVENT.union(Variables::ARGS).union(Variables::TO);
