//! The macros `all`, `exists`, `exists_one`, `map` and `filter`.
//!
//! Invariant: none goes over what a client chose the size of, and at most one stands within another; so what they cost
//! is bounded by what the application said about a person, and by `STEPS_MAX` in any case. The parser hands them
//! over expanded to a loop; the loop is read back here, since evaluating it as it stands copies a list at each element.

use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, Expr, LiteralValue};

use super::check::{Checker, Typed, spell};
use super::node::{Fold, FoldKind, Node, Variable};
use super::types::{FROM_CLIENT, Type};

/// Macros around one place. More: refused at load.
const FOLDS_MAX: usize = 2;

/// What the parser wrote down for a macro.
struct Shape<'e> {
    kind: FoldKind,
    test: Option<&'e IdedExpr>,
    element: Option<&'e IdedExpr>,
}

/// A macro over a list.
pub(super) fn fold(checker: &mut Checker<'_>, fold: &ComprehensionExpr) -> Result<Typed, String> {
    let shape = shape(fold).ok_or("this macro is not known here; there are all, exists, exists_one, map and filter")?;
    let piece = spell(&fold.iter_range);
    let (range, kind) = checker.expression(&fold.iter_range)?;
    let local = match kind {
        Type::List(element) => *element,
        Type::Map => Type::String,
        Type::Dynamic | Type::Unboolean => Type::Dynamic,
        other => {
            return Err(
                checker.at(&piece, &format!("`{piece}` is {}; only a list has elements to go through", other.kind()))
            );
        }
    };
    if range.names().intersects(FROM_CLIENT) {
        let sentence = format!(
            "`{piece}` comes from the client, who could make it long; ask with `in`, or limit it with a schema (minItems, \
             maxItems, uniqueItems, items)"
        );
        return Err(checker.at(&piece, &sentence));
    }
    if checker.locals.len() >= FOLDS_MAX {
        return Err("more than one macro within another; let the application answer this in user.info".into());
    }
    if Variable::ALL.iter().any(|(name, _, _)| *name == fold.iter_var)
        || checker.locals.iter().any(|(name, _)| *name == fold.iter_var)
    {
        return Err(format!("`{}` is a name already; call the element something else", fold.iter_var));
    }
    checker.locals.push((fold.iter_var.clone(), local.clone()));
    let test = shape.test.map(|test| checker.boolean(test, "the condition of a macro")).transpose()?;
    let element = shape.element.map(|element| checker.expression(element)).transpose()?;
    checker.locals.pop();
    let (element, of) = element.map_or((None, local), |(node, kind)| (Some(node), kind));
    let result = if shape.kind == FoldKind::Collect { Type::List(Box::new(of)) } else { Type::Bool };
    Ok((Node::Fold(Box::new(Fold { kind: shape.kind, range, test, element })), result))
}

/// Which macro a loop was.
fn shape(fold: &ComprehensionExpr) -> Option<Shape<'_>> {
    if fold.iter_var2.is_some() {
        return None;
    }
    match (&fold.accu_init.expr, &fold.loop_step.expr) {
        (Expr::Literal(LiteralValue::Boolean(start)), Expr::Call(step)) => {
            let (operator, kind) = if *start.inner() { ("_&&_", FoldKind::All) } else { ("_||_", FoldKind::Exists) };
            let [accumulated, test] = step.args.as_slice() else {
                return None;
            };
            let known = step.func_name == operator && is_accumulator(fold, accumulated);
            known.then_some(Shape { kind, test: Some(test), element: None })
        }
        (Expr::Literal(LiteralValue::Int(_)), Expr::Call(step)) if step.func_name == "_?_:_" => {
            let test = step.args.first()?;
            Some(Shape { kind: FoldKind::ExistsOne, test: Some(test), element: None })
        }
        (Expr::List(_), Expr::Call(step)) => {
            let (test, append) = match step.args.as_slice() {
                [test, append, _] if step.func_name == "_?_:_" => (Some(test), append),
                [_, _] => (None, &fold.loop_step),
                _ => return None,
            };
            let Expr::Call(append) = &append.expr else {
                return None;
            };
            let [accumulated, IdedExpr { expr: Expr::List(list), .. }] = append.args.as_slice() else {
                return None;
            };
            let [element] = list.elements.as_slice() else {
                return None;
            };
            let known = append.func_name == "_+_" && is_accumulator(fold, accumulated);
            known.then_some(Shape { kind: FoldKind::Collect, test, element: Some(element) })
        }
        _ => None,
    }
}

fn is_accumulator(fold: &ComprehensionExpr, tree: &IdedExpr) -> bool {
    matches!(&tree.expr, Expr::Ident(name) if *name == fold.accu_var)
}
