//! Evaluation of a checked expression.
//!
//! Invariant: it ends after at most `STEPS_MAX` steps, allocates at most in proportion to them, and nothing in it
//! panics. A step is one node visited, one element compared, 64 bytes of text looked at, or a quarter of a byte matched
//! against a pattern. What is there already is borrowed: a look-up neither copies nor counts references.
//!
//! Meaning: cel-spec, with one exception. `has(a.b.c)` is false, not an error, where `b` is absent; so that
//! `!has(user.info.suspended)` is an answer for those who have no `info` at all.

use super::fault::Fault;
use super::node::{Fold, FoldKind, Node, Variable};
use super::operators::{self, View};
use crate::rules::value::{Map, Scope, Value};

/// Steps of one evaluation. More: [`Fault::TooMuch`]. 5 to 25 ns each.
const STEPS_MAX: u32 = 10_000;
/// Steps of one byte that is matched against a pattern: that engine visits several states for each.
const MATCH_STEPS: usize = 4;

/// A value on its way.
#[derive(Clone, Debug)]
pub(super) enum Item<'v> {
    Borrowed(&'v Value),
    Owned(Value),
    Text(&'v str),
}

impl<'v> Item<'v> {
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Item::Borrowed(value) => View::of(value),
            Item::Owned(value) => View::of(value),
            Item::Text(text) => View::String(text),
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Item::Borrowed(value) => value.clone(),
            Item::Owned(value) => value,
            Item::Text(text) => Value::String(text.into()),
        }
    }

    /// The field of a map; None where it has no such field.
    fn field(self, name: &str) -> Result<Option<Item<'v>>, Fault> {
        match self {
            Item::Borrowed(Value::Map(map)) => Ok(map.get(name).map(Item::Borrowed)),
            Item::Owned(Value::Map(map)) => Ok(map.get(name).cloned().map(Item::Owned)),
            other => Err(Fault::Kind { wanted: "a map", found: other.view().kind() }),
        }
    }
}

/// The value of an expression.
pub(super) fn value(node: &Node, scope: &Scope<'_>) -> Result<Value, Fault> {
    Machine::new(scope).evaluate(node).map(Item::into_value)
}

/// The answer of an expression, which must be a boolean.
pub(super) fn test(node: &Node, scope: &Scope<'_>) -> Result<bool, Fault> {
    Machine::new(scope).test(node)
}

struct Machine<'v> {
    scope: Scope<'v>,
    steps_left: u32,
    locals: Vec<Item<'v>>,
}

impl<'v> Machine<'v> {
    fn new(scope: &Scope<'v>) -> Machine<'v> {
        Machine { scope: *scope, steps_left: STEPS_MAX, locals: Vec::new() }
    }

    fn test(&mut self, node: &'v Node) -> Result<bool, Fault> {
        match self.evaluate(node)?.view() {
            View::Bool(answer) => Ok(answer),
            other => Err(Fault::Kind { wanted: "a boolean", found: other.kind() }),
        }
    }

    fn evaluate(&mut self, node: &'v Node) -> Result<Item<'v>, Fault> {
        operators::spend(&mut self.steps_left, 1)?;
        let answer = match node {
            Node::Literal(value) => return Ok(Item::Borrowed(value)),
            Node::Variable(variable) => return Ok(self.variable(*variable)),
            Node::Local(number) => return self.locals.get(*number).cloned().ok_or(Fault::Range),
            Node::Field(of, name) => {
                return self.evaluate(of)?.field(name)?.ok_or_else(|| Fault::Absent(name.clone()));
            }
            Node::Index(pair) => return self.index(pair),
            Node::If(three) => {
                let [condition, then, otherwise] = &**three;
                return if self.test(condition)? { self.evaluate(then) } else { self.evaluate(otherwise) };
            }
            Node::Negate(one) => return operators::negate(self.evaluate(one)?.view()).map(Item::Owned),
            Node::Arithmetic(operation, pair) => {
                let (left, right) = (self.evaluate(&pair[0])?, self.evaluate(&pair[1])?);
                let result = operators::arithmetic(*operation, left.view(), right.view(), &mut self.steps_left);
                return result.map(Item::Owned);
            }
            Node::List(many) => {
                let elements: Result<Vec<Value>, Fault> =
                    many.iter().map(|one| self.evaluate(one).map(Item::into_value)).collect();
                return Ok(Item::Owned(Value::List(elements?.into())));
            }
            Node::Map(fields) => {
                let fields: Result<Vec<_>, Fault> =
                    fields.iter().map(|(name, one)| Ok((name.clone(), self.evaluate(one)?.into_value()))).collect();
                return Ok(Item::Owned(Value::map(fields?)));
            }
            Node::Size(one) => {
                return operators::size(self.evaluate(one)?.view(), &mut self.steps_left).map(Item::Owned);
            }
            Node::Convert(to, one) => return operators::convert(*to, self.evaluate(one)?.view()).map(Item::Owned),
            Node::Fold(fold) if fold.kind == FoldKind::Collect => return self.collect(fold),
            Node::Has(of, name) => match self.presence(of)? {
                Some(map) => map.field(name)?.is_some(),
                None => false,
            },
            Node::Not(one) => !self.test(one)?,
            Node::And(pair) => {
                let left = self.test(&pair[0]);
                self.both(left, &pair[1], false)?
            }
            Node::Or(pair) => {
                let left = self.test(&pair[0]);
                self.both(left, &pair[1], true)?
            }
            Node::Compare(comparison, pair) => {
                let (left, right) = (self.evaluate(&pair[0])?, self.evaluate(&pair[1])?);
                operators::compare(*comparison, left.view(), right.view(), &mut self.steps_left)?
            }
            Node::In(pair) => {
                let (one, many) = (self.evaluate(&pair[0])?, self.evaluate(&pair[1])?);
                operators::contains(many.view(), one.view(), &mut self.steps_left)?
            }
            Node::Text(test, pair) => {
                let (text, part) = (self.evaluate(&pair[0])?, self.evaluate(&pair[1])?);
                operators::text(*test, text.view(), part.view(), &mut self.steps_left)?
            }
            Node::Matches(one, pattern) => {
                let text = self.evaluate(one)?;
                let text = operators::string(text.view())?;
                operators::spend(&mut self.steps_left, text.len().saturating_mul(MATCH_STEPS))?;
                pattern.is_match(text)
            }
            Node::Fold(fold) => self.fold(fold)?,
            Node::Owner(name) => self.owner(name)?,
            Node::Role(roles) => self.role(roles)?,
            Node::Own(name) => self.own(name),
        };
        Ok(Item::Owned(Value::Bool(answer)))
    }

    fn variable(&self, variable: Variable) -> Item<'v> {
        Item::Borrowed(match variable {
            Variable::User => self.scope.user,
            Variable::Params => self.scope.params,
            Variable::Event => self.scope.event,
            Variable::Args => self.scope.args,
            Variable::To => self.scope.to,
            Variable::Ctx => self.scope.ctx,
            Variable::Pipe => return Item::Text(self.scope.pipe),
            Variable::Ip => return Item::Text(self.scope.ip),
        })
    }

    /// What `has` looks into; None where a field on the way is absent.
    fn presence(&mut self, node: &'v Node) -> Result<Option<Item<'v>>, Fault> {
        let Node::Field(of, name) = node else {
            return self.evaluate(node).map(Some);
        };
        operators::spend(&mut self.steps_left, 1)?;
        self.presence(of)?.map_or(Ok(None), |map| map.field(name))
    }

    /// `left || right` where `absorbing` is true, `left && right` where it is false: whichever of the two is
    /// `absorbing` decides, whatever the other is, also a fault (cel-spec, F12).
    fn both(&mut self, left: Result<bool, Fault>, right: &'v Node, absorbing: bool) -> Result<bool, Fault> {
        match left {
            Ok(left) if left == absorbing => Ok(absorbing),
            Ok(_) => self.test(right),
            Err(fault) => match self.test(right) {
                Ok(right) if right == absorbing => Ok(absorbing),
                _ => Err(fault),
            },
        }
    }

    fn index(&mut self, pair: &'v [Node; 2]) -> Result<Item<'v>, Fault> {
        let (of, at) = (self.evaluate(&pair[0])?, self.evaluate(&pair[1])?);
        match (of, at.view()) {
            (Item::Borrowed(Value::List(list)), at) => list.get(operators::place(at)?).map(Item::Borrowed),
            (Item::Owned(Value::List(list)), at) => list.get(operators::place(at)?).cloned().map(Item::Owned),
            // The name may be a client's: it does not go into the fault.
            (map, View::String(name)) => return map.field(name)?.ok_or_else(|| Fault::Absent("[…]".into())),
            (of, at) => return Err(Fault::Pair { operator: "[]", left: of.view().kind(), right: at.kind() }),
        }
        .ok_or(Fault::Range)
    }

    /// The elements that a macro goes through.
    fn elements(&mut self, range: &'v Node) -> Result<Vec<Item<'v>>, Fault> {
        let range = self.evaluate(range)?;
        let keys = |map: &Map| map.iter().map(|(name, _)| Item::Owned(Value::String(name.into()))).collect();
        let many = match range.view() {
            View::List(list) => list.len(),
            View::Map(map) => map.len(),
            other => return Err(Fault::Kind { wanted: "a list", found: other.kind() }),
        };
        operators::spend(&mut self.steps_left, many)?;
        Ok(match range {
            Item::Borrowed(Value::List(list)) => list.iter().map(Item::Borrowed).collect(),
            Item::Owned(Value::List(list)) => list.iter().cloned().map(Item::Owned).collect(),
            Item::Borrowed(Value::Map(map)) => keys(map),
            Item::Owned(Value::Map(map)) => keys(&map),
            _ => Vec::new(),
        })
    }

    /// Evaluates `body` with `element` as the innermost local.
    fn with<T>(&mut self, element: Item<'v>, body: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push(element);
        let answer = body(self);
        self.locals.pop();
        answer
    }

    /// `all` is `&&` over the elements, `exists` is `||`; in `exists_one` a fault is not absorbed.
    fn fold(&mut self, fold: &'v Fold) -> Result<bool, Fault> {
        let Some(test) = &fold.test else {
            return Err(Fault::TooMuch);
        };
        let absorbing = fold.kind == FoldKind::Exists;
        let mut answer = Ok(!absorbing);
        let mut passed = 0_usize;
        for element in self.elements(&fold.range)? {
            let one = self.with(element, |machine| machine.test(test));
            match (fold.kind, one) {
                (FoldKind::ExistsOne, one) => passed += usize::from(one?),
                (_, Ok(one)) if one == absorbing => return Ok(absorbing),
                (_, Ok(_)) => {}
                (_, Err(Fault::TooMuch)) => return Err(Fault::TooMuch),
                (_, Err(fault)) => answer = answer.and(Err(fault)),
            }
        }
        if fold.kind == FoldKind::ExistsOne { Ok(passed == 1) } else { answer }
    }

    fn collect(&mut self, fold: &'v Fold) -> Result<Item<'v>, Fault> {
        let mut collected = Vec::new();
        for element in self.elements(&fold.range)? {
            let one = self.with(element.clone(), |machine| {
                let passes = fold.test.as_ref().map_or(Ok(true), |test| machine.test(test))?;
                let becomes = |machine: &mut Self| match &fold.element {
                    Some(node) => machine.evaluate(node),
                    None => Ok(element),
                };
                if passes { becomes(machine).map(Some) } else { Ok(None) }
            })?;
            collected.extend(one.map(Item::into_value));
        }
        Ok(Item::Owned(Value::List(collected.into())))
    }

    /// The capture, or else the argument, of this name is the user's id (F4).
    fn owner(&mut self, name: &std::sync::Arc<str>) -> Result<bool, Fault> {
        let field = |of: &'v Value, name: &str| match of {
            Value::Map(map) => map.get(name),
            _ => None,
        };
        let owner = field(self.scope.params, name).or_else(|| field(self.scope.args, name));
        let owner = owner.ok_or_else(|| Fault::Absent(name.clone()))?;
        let id = field(self.scope.user, "id").ok_or_else(|| Fault::Absent("user.id".into()))?;
        operators::equal(View::of(owner), View::of(id), &mut self.steps_left)
    }

    /// What stands under one of the user's roles is true; the others are not asked (F4).
    fn role(&mut self, roles: &'v [(Box<str>, Node)]) -> Result<bool, Fault> {
        let Value::Map(user) = self.scope.user else {
            return Ok(false);
        };
        let Some(Value::List(own)) = user.get("roles") else {
            return Ok(false);
        };
        let mut answer = Ok(false);
        for (role, node) in roles {
            operators::spend(&mut self.steps_left, own.len())?;
            if own.iter().any(|own| matches!(own, Value::String(own) if **own == **role)) {
                answer = match (answer, self.test(node)) {
                    (_, Ok(true)) => return Ok(true),
                    (Ok(_), next) => next,
                    (fault, _) => fault,
                };
            }
        }
        answer
    }

    /// The user has this field and, where the pattern captures it, it is that one (F4).
    fn own(&self, name: &str) -> bool {
        let (Value::Map(user), Value::Map(params)) = (self.scope.user, self.scope.params) else {
            return false;
        };
        user.get(name).is_some_and(|own| params.get(name).is_none_or(|captured| captured == own))
    }
}
