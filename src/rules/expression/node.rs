//! A checked expression, ready to be evaluated.
//!
//! Invariant: built by `check` alone, so at most `NODES_MAX` nodes, `DEPTH_MAX` deep, every name known, every pattern
//! compiled. Whoever walks it may recurse.

use std::sync::Arc;

use regex::Regex;

use super::Variables;
use crate::rules::value::Value;

/// One step of an expression.
#[derive(Debug)]
pub(super) enum Node {
    Literal(Value),
    Variable(Variable),
    /// Innermost last: the number of the fold around it, counted from outside.
    Local(usize),
    Field(Box<Node>, Arc<str>),
    /// Whether there is such a field.
    Has(Box<Node>, Arc<str>),
    Index(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    /// Condition, then, else.
    If(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    List(Vec<Node>),
    Map(Vec<(Box<str>, Node)>),
    Size(Box<Node>),
    Text(TextTest, Box<[Node; 2]>),
    Matches(Box<Node>, Box<Regex>),
    Convert(Conversion, Box<Node>),
    Fold(Box<Fold>),
    /// `owner('x')`
    Owner(Arc<str>),
    /// `role({…})`
    Role(Vec<(Box<str>, Node)>),
    /// `team()`, `tenant()`, `org()`: the field of `user` and the capture.
    Own(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    User,
    Params,
    Pipe,
    Event,
    Args,
    To,
    Ctx,
    Ip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    Int,
    Double,
    String,
}

/// A macro over a list, or over the keys of a map.
#[derive(Debug)]
pub(super) struct Fold {
    pub kind: FoldKind,
    pub range: Node,
    /// What is asked of each element; the element is the innermost [`Node::Local`] there.
    pub test: Option<Node>,
    /// What each element becomes, for [`FoldKind::Map`].
    pub element: Option<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    /// `map` and `filter`: those that pass the test, as they become.
    Collect,
}

impl Variable {
    pub(super) const ALL: [(&str, Variable, Variables); 8] = [
        ("user", Variable::User, Variables::USER),
        ("params", Variable::Params, Variables::PARAMS),
        ("pipe", Variable::Pipe, Variables::PIPE),
        ("event", Variable::Event, Variables::EVENT),
        ("args", Variable::Args, Variables::ARGS),
        ("to", Variable::To, Variables::TO),
        ("ctx", Variable::Ctx, Variables::CTX),
        ("ip", Variable::Ip, Variables::IP),
    ];
}

impl Node {
    /// The variables that it reads.
    pub(super) fn names(&self) -> Variables {
        let own = match self {
            Node::Variable(this) => {
                Variable::ALL.iter().find(|(_, one, _)| one == this).map_or(Variables::NONE, |a| a.2)
            }
            Node::Owner(_) => Variables::USER.union(Variables::PARAMS).union(Variables::ARGS),
            Node::Own(_) => Variables::USER.union(Variables::PARAMS),
            Node::Role(_) => Variables::USER,
            _ => Variables::NONE,
        };
        let mut names = own;
        self.each(&mut |child| names = names.union(child.names()));
        names
    }

    /// Whether it reads more of `event` than its name.
    pub(super) fn needs_data(&self) -> bool {
        match self {
            Node::Variable(Variable::Event) => true,
            Node::Field(of, name) | Node::Has(of, name) if matches!(**of, Node::Variable(Variable::Event)) => {
                **name != *"name"
            }
            _ => {
                let mut needs = false;
                self.each(&mut |child| needs |= child.needs_data());
                needs
            }
        }
    }

    /// The captures that it reads as `params.x`.
    pub(super) fn captures(&self, found: &mut Vec<Box<str>>) {
        if let Node::Field(of, name) | Node::Has(of, name) = self
            && matches!(**of, Node::Variable(Variable::Params))
            && !found.iter().any(|one| **one == **name)
        {
            found.push((**name).into());
        }
        self.each(&mut |child| child.captures(found));
    }

    /// Calls `visit` for each direct child.
    fn each<'n>(&'n self, visit: &mut dyn FnMut(&'n Node)) {
        match self {
            Node::Literal(_) | Node::Variable(_) | Node::Local(_) | Node::Owner(_) | Node::Own(_) => {}
            Node::Field(one, _) | Node::Has(one, _) | Node::Not(one) | Node::Negate(one) | Node::Size(one) => {
                visit(one)
            }
            Node::Matches(one, _) | Node::Convert(_, one) => visit(one),
            Node::Index(pair) | Node::And(pair) | Node::Or(pair) | Node::In(pair) => pair.iter().for_each(visit),
            Node::Compare(_, pair) | Node::Arithmetic(_, pair) | Node::Text(_, pair) => pair.iter().for_each(visit),
            Node::If(three) => three.iter().for_each(visit),
            Node::List(many) => many.iter().for_each(visit),
            Node::Map(fields) | Node::Role(fields) => fields.iter().for_each(|(_, field)| visit(field)),
            Node::Fold(fold) => {
                visit(&fold.range);
                fold.test.iter().chain(&fold.element).for_each(visit);
            }
        }
    }
}
