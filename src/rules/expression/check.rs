//! From the syntax tree to a checked expression: names, types, cost.
//!
//! Invariant: what passes here evaluates without a panic, in a bounded number of steps, and can yield what is wanted.
//! What is not known to be right is refused: every construct, name and function that is allowed is written out.
//!
//! Every sentence names the piece that is wrong and what to write instead.

use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, SelectExpr};

use super::calls;
use super::node::{Node, Variable};
use super::syntax;
use super::types::{Record, Type};
use super::{Variables, Wanted};
use crate::rules::value::Value;

/// Nodes of an expression. More: refused at load.
const NODES_MAX: usize = 256;
/// Depth of an expression. Deeper: refused at load.
const DEPTH_MAX: usize = 48;

/// A checked part and its type.
pub(super) type Typed = (Node, Type);

/// Checks the whole of an expression.
///
/// # Errors
/// A sentence for the operator.
pub(super) fn check(text: &str, may_name: Variables, wanted: Wanted) -> Result<Node, String> {
    let tree = syntax::parse(text)?;
    let mut checker = Checker { text, may_name, nodes: 0, depth: 0, locals: Vec::new() };
    let (node, kind) = checker.expression(&tree)?;
    if wanted == Wanted::Boolean && !kind.may_be_boolean() {
        return Err(format!(
            "a rule yields true or false, this yields {}; compare it, as in `{} == …`",
            kind.kind(),
            short(text)
        ));
    }
    Ok(node)
}

pub(super) struct Checker<'t> {
    text: &'t str,
    pub(super) may_name: Variables,
    nodes: usize,
    depth: usize,
    /// Names bound by the macros around this place, outermost first.
    pub(super) locals: Vec<(String, Type)>,
}

impl Checker<'_> {
    pub(super) fn expression(&mut self, tree: &IdedExpr) -> Result<Typed, String> {
        self.nodes += 1;
        self.depth += 1;
        if self.nodes > NODES_MAX || self.depth > DEPTH_MAX {
            return Err(format!(
                "the expression has more than {NODES_MAX} parts or is nested more than {DEPTH_MAX} deep; \
                 move a part of it into a guard's `set`"
            ));
        }
        let typed = match &tree.expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => calls::call(self, call),
            Expr::Comprehension(fold) => super::folds::fold(self, fold),
            Expr::List(list) if list.optional_indices.is_empty() => self.list(&list.elements),
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| &entry.expr);
                Ok((
                    Node::Map(self.entries(entries)?.into_iter().map(|(name, (one, _))| (name, one)).collect()),
                    Type::Map,
                ))
            }
            Expr::Struct(one) => {
                Err(self.at(&one.type_name, "messages are not known here; write a map, as in {'a': 1}"))
            }
            Expr::List(_) | Expr::Unspecified => Err("this form is not known here".into()),
        }?;
        self.depth -= 1;
        Ok(typed)
    }

    /// A part that must yield a boolean, such as an operand of `&&`.
    pub(super) fn boolean(&mut self, tree: &IdedExpr, place: &str) -> Result<Node, String> {
        let (node, kind) = self.expression(tree)?;
        if kind.may_be_boolean() {
            return Ok(node);
        }
        let piece = spell(tree);
        Err(self.at(
            &piece,
            &format!("{place} must be true or false, `{piece}` is {}; compare it with something", kind.kind()),
        ))
    }

    /// A sentence with the column of `piece`, where that stands in the text exactly once.
    pub(super) fn at(&self, piece: &str, sentence: &str) -> String {
        let mut found = self.text.match_indices(piece).filter(|(start, _)| {
            let word = |character: char| character.is_alphanumeric() || character == '_';
            let before = self.text[..*start].chars().next_back().is_some_and(word);
            let after = self.text[start + piece.len()..].chars().next().is_some_and(word);
            let within_a_word = (before && piece.starts_with(word)) || (after && piece.ends_with(word));
            !piece.is_empty() && !within_a_word
        });
        match (found.next(), found.next()) {
            (Some((start, _)), None) => format!("{}{sentence}", syntax::position(self.text, start)),
            _ => sentence.to_owned(),
        }
    }

    fn literal(&self, literal: &LiteralValue) -> Result<Typed, String> {
        Ok(match literal {
            LiteralValue::Boolean(value) => (Node::Literal(Value::Bool(*value.inner())), Type::Bool),
            LiteralValue::Int(value) => (Node::Literal(Value::Int(*value.inner())), Type::Int),
            LiteralValue::UInt(value) => (Node::Literal(Value::Uint(*value.inner())), Type::Uint),
            LiteralValue::Double(value) => (Node::Literal(Value::Double(*value.inner())), Type::Double),
            LiteralValue::String(text) => (Node::Literal(Value::String(text.inner().into())), Type::String),
            LiteralValue::Null => (Node::Literal(Value::Null), Type::Null),
            LiteralValue::Bytes(_) => return Err("bytes are not known here; write a string, as in 'x'".into()),
        })
    }

    fn name(&self, name: &str) -> Result<Typed, String> {
        if let Some(number) = self.locals.iter().rposition(|(local, _)| local == name) {
            return Ok((Node::Local(number), self.locals[number].1.clone()));
        }
        let known = Variable::ALL.iter().find(|(known, _, _)| *known == name);
        let Some(&(_, variable, _)) = known.filter(|(_, _, this)| self.may_name.contains(*this)) else {
            let there: Vec<&str> = Variable::ALL
                .iter()
                .filter(|(_, _, one)| self.may_name.contains(*one))
                .map(|(name, _, _)| *name)
                .collect();
            let sentence = match known {
                Some(_) => format!("`{name}` is not there yet where this is decided"),
                None => format!("`{name}` is unknown"),
            };
            let quotes = if known.is_none() { "; a text stands in quotes" } else { "" };
            return Err(self.at(name, &format!("{sentence}; there are {}{quotes}", there.join(", "))));
        };
        let kind = match variable {
            Variable::User => Type::Record(Record::User),
            Variable::Params => Type::Record(Record::Params),
            Variable::Event => Type::Record(Record::Event),
            Variable::To => Type::Record(Record::To),
            Variable::Args => Type::Dynamic,
            Variable::Ctx => Type::Map,
            Variable::Pipe | Variable::Ip => Type::String,
        };
        Ok((Node::Variable(variable), kind))
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Typed, String> {
        let (of, kind) = self.expression(&select.operand)?;
        let piece = format!("{}.{}", spell(&select.operand), select.field);
        let field = self.field(&kind, &select.field, &piece)?;
        if select.test {
            return Ok((Node::Has(Box::new(of), (*select.field).into()), Type::Bool));
        }
        Ok((Node::Field(Box::new(of), Arc::from(&*select.field)), field))
    }

    /// The type of a field of something of type `kind`.
    pub(super) fn field(&self, kind: &Type, name: &str, piece: &str) -> Result<Type, String> {
        match kind {
            Type::Dynamic | Type::Unboolean | Type::Map => Ok(Type::Dynamic),
            Type::Record(record) => match record.fields() {
                Some(fields) if !fields.contains(&name) => {
                    let elsewhere = match record {
                        Record::User => "; what is the application's own stands in user.info",
                        Record::Event => "; what was sent stands in event.data",
                        _ => "",
                    };
                    let sentence =
                        format!("`{}` has no `{name}`; there are {}{elsewhere}", record.name(), fields.join(", "));
                    Err(self.at(piece, &sentence))
                }
                _ => Ok(record.field(name)),
            },
            Type::List(_) => {
                Err(self
                    .at(piece, &format!("a list has no field `{name}`; write `'…' in list` or `list.exists(x, …)`")))
            }
            other => Err(self.at(piece, &format!("`{piece}`: {} has no fields", other.kind()))),
        }
    }

    fn list(&mut self, elements: &[IdedExpr]) -> Result<Typed, String> {
        let mut nodes = Vec::with_capacity(elements.len());
        let mut kind: Option<Type> = None;
        for element in elements {
            let (node, next) = self.expression(element)?;
            kind = Some(kind.map_or(next.clone(), |kind| kind.join(next)));
            nodes.push(node);
        }
        let constant: Option<Vec<Value>> =
            nodes.iter().map(|node| if let Node::Literal(value) = node { Some(value.clone()) } else { None }).collect();
        let node = constant.map_or(Node::List(nodes), |values| Node::Literal(Value::List(values.into())));
        Ok((node, Type::List(Box::new(kind.unwrap_or(Type::Dynamic)))))
    }

    /// The entries of a map literal.
    pub(super) fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
    ) -> Result<Vec<(Box<str>, Typed)>, String> {
        let mut checked: Vec<(Box<str>, Typed)> = Vec::new();
        for entry in entries {
            let EntryExpr::MapEntry(entry) = entry else {
                return Err("this form of a map is not known here".into());
            };
            let Expr::Literal(LiteralValue::String(name)) = &entry.key.expr else {
                let piece = spell(&entry.key);
                return Err(self.at(&piece, &format!("the key `{piece}` of a map must be a string in quotes")));
            };
            let name = name.inner();
            if checked.iter().any(|(known, _)| **known == *name) {
                return Err(self.at(name, &format!("the key '{name}' stands twice in one map; leave one out")));
            }
            checked.push((name.into(), self.expression(&entry.value)?));
        }
        Ok(checked)
    }
}

/// A part as it was written, as far as it is names and constants; for sentences.
pub(super) fn spell(tree: &IdedExpr) -> String {
    match &tree.expr {
        Expr::Ident(name) => name.clone(),
        Expr::Select(select) if select.test => format!("has({}.{})", spell(&select.operand), select.field),
        Expr::Select(select) => format!("{}.{}", spell(&select.operand), select.field),
        Expr::Literal(LiteralValue::Int(value)) => value.inner().to_string(),
        Expr::Literal(LiteralValue::Boolean(value)) => value.inner().to_string(),
        Expr::Literal(LiteralValue::String(text)) => format!("'{}'", short(text.inner())),
        Expr::Literal(LiteralValue::Null) => "null".into(),
        _ => "…".into(),
    }
}

fn short(text: &str) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(40).collect();
    if characters.next().is_some() { format!("{start}…") } else { start }
}
