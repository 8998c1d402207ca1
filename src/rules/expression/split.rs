//! An expression cut at its topmost `&&` and `||`, answered part by part, some parts perhaps later.
//!
//! Invariant: with every part answered the whole answers as evaluation does; with some still open it is decided only
//! where it comes out the same whatever those will say.

use super::fault::Fault;
use super::node::Node;

/// What a part, or the whole, comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Yes,
    No,
    Fault(Fault),
    /// Not known yet.
    Open,
}

impl From<Result<bool, Fault>> for Answer {
    fn from(answer: Result<bool, Fault>) -> Answer {
        match answer {
            Ok(true) => Answer::Yes,
            Ok(false) => Answer::No,
            Err(fault) => Answer::Fault(fault),
        }
    }
}

impl Answer {
    /// None: open.
    pub(super) fn decided(self) -> Option<Result<bool, Fault>> {
        match self {
            Answer::Yes => Some(Ok(true)),
            Answer::No => Some(Ok(false)),
            Answer::Fault(fault) => Some(Err(fault)),
            Answer::Open => None,
        }
    }
}

/// See the head of this file.
pub(super) struct Split {
    tree: Tree,
    parts: usize,
}

enum Tree {
    Part { number: usize, node: Node, marked: bool },
    And(Box<[Tree; 2]>),
    Or(Box<[Tree; 2]>),
}

impl Split {
    /// Cuts `node`; each part remembers whether it was marked.
    pub(super) fn new(node: Node, mark: &dyn Fn(&Node) -> bool) -> Split {
        let mut parts = 0;
        let tree = Tree::new(node, mark, &mut parts);
        Split { tree, parts }
    }

    /// How many there are; they are numbered from 0.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// The answer of the whole, given the answers of those parts that are asked for: number, part, marked.
    pub(super) fn answer(&self, part: &mut dyn FnMut(usize, &Node, bool) -> Answer) -> Answer {
        self.tree.answer(part)
    }
}

impl Tree {
    fn new(node: Node, mark: &dyn Fn(&Node) -> bool, parts: &mut usize) -> Tree {
        match node {
            Node::And(pair) => Tree::And(Box::new(pair.map(|one| Tree::new(one, mark, parts)))),
            Node::Or(pair) => Tree::Or(Box::new(pair.map(|one| Tree::new(one, mark, parts)))),
            node => {
                let marked = mark(&node);
                *parts += 1;
                Tree::Part { number: *parts - 1, node, marked }
            }
        }
    }

    fn answer(&self, part: &mut dyn FnMut(usize, &Node, bool) -> Answer) -> Answer {
        match self {
            Tree::Part { number, node, marked } => part(*number, node, *marked),
            Tree::And(pair) => combine(&Answer::No, pair, &mut |one| one.answer(part)),
            Tree::Or(pair) => combine(&Answer::Yes, pair, &mut |one| one.answer(part)),
        }
    }
}

/// The answer of an expression that is not to be kept cut.
pub(super) fn answer(node: &Node, part: &mut dyn FnMut(&Node) -> Answer) -> Answer {
    match node {
        Node::And(pair) => combine(&Answer::No, pair, &mut |one| answer(one, part)),
        Node::Or(pair) => combine(&Answer::Yes, pair, &mut |one| answer(one, part)),
        node => part(node),
    }
}

/// `&&` where `absorbing` is no, `||` where it is yes. What is absorbing decides, also against a fault; else what is open
/// keeps it open, and else a fault is the answer.
fn combine<T>(absorbing: &Answer, pair: &[T; 2], answer: &mut dyn FnMut(&T) -> Answer) -> Answer {
    let left = answer(&pair[0]);
    if left == *absorbing {
        return left;
    }
    match (left, answer(&pair[1])) {
        (_, right) if right == *absorbing => right,
        (Answer::Open, _) | (_, Answer::Open) => Answer::Open,
        (fault @ Answer::Fault(_), _) => fault,
        (_, right) => right,
    }
}
