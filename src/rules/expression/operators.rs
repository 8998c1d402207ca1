//! Operators and functions on values, as cel-spec defines them, with one exception: arithmetic too goes across types, as
//! comparisons do. How a client or the application spells a number (`6`, `6.5`, `99999999999999999999`) must not make a
//! rule fail (F21). So integers are calculated with exactly, and a result that 64 bits do not hold, or one with a double
//! in it, is a double. Nothing here panics.

use std::cmp::Ordering;

use super::fault::Fault;
use super::node::{Arithmetic, Comparison, Conversion, TextTest};
use crate::rules::value::{Map, Value};

/// Bytes of a text that a rule builds. More: [`Fault::TooMuch`].
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// A value as the operators see it.
#[derive(Clone, Copy, Debug)]
pub(super) enum View<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(&'v str),
    List(&'v [Value]),
    Map(&'v Map),
    Unreadable,
}

impl<'v> View<'v> {
    pub(super) fn of(value: &'v Value) -> View<'v> {
        match value {
            Value::Null => View::Null,
            Value::Bool(value) => View::Bool(*value),
            Value::Int(value) => View::Int(*value),
            Value::Uint(value) => View::Uint(*value),
            Value::Double(value) => View::Double(*value),
            Value::String(text) => View::String(text),
            Value::List(elements) => View::List(elements),
            Value::Map(map) => View::Map(map),
            Value::Unreadable => View::Unreadable,
        }
    }

    /// For sentences.
    pub(super) fn kind(self) -> &'static str {
        match self {
            View::Null => "null",
            View::Bool(_) => "a boolean",
            View::Int(_) => "an integer",
            View::Uint(_) => "an unsigned integer",
            View::Double(_) => "a double",
            View::String(_) => "a string",
            View::List(_) => "a list",
            View::Map(_) => "a map",
            View::Unreadable => "JSON that cannot be read",
        }
    }
}

/// Takes `steps` from those that are left.
pub(super) fn spend(left: &mut u32, steps: usize) -> Result<(), Fault> {
    let steps = u32::try_from(steps).map_err(|_| Fault::TooMuch)?;
    *left = left.checked_sub(steps).ok_or(Fault::TooMuch)?;
    Ok(())
}

pub(super) fn string(view: View<'_>) -> Result<&str, Fault> {
    match view {
        View::String(text) => Ok(text),
        other => Err(Fault::Kind { wanted: "a string", found: other.kind() }),
    }
}

pub(super) fn compare(how: Comparison, left: View<'_>, right: View<'_>, steps: &mut u32) -> Result<bool, Fault> {
    match how {
        Comparison::Equal => return equal(left, right, steps),
        Comparison::Different => return equal(left, right, steps).map(|same| !same),
        _ => {}
    }
    let order = match (left, right) {
        (View::String(left), View::String(right)) => {
            spend(steps, left.len().min(right.len()) / 64)?;
            Some(left.cmp(right))
        }
        (View::Bool(left), View::Bool(right)) => Some(left.cmp(&right)),
        (left, right) => match numbers(left, right) {
            Some(order) => order,
            None => return Err(Fault::Pair { operator: "<", left: left.kind(), right: right.kind() }),
        },
    };
    Ok(order.is_some_and(|order| match how {
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
        Comparison::Equal | Comparison::Different => false,
    }))
}

/// Values of different kinds are different; what could not be read is neither the same nor different. Recursion is as deep as the shallower of the two.
pub(super) fn equal(left: View<'_>, right: View<'_>, steps: &mut u32) -> Result<bool, Fault> {
    spend(steps, 1)?;
    Ok(match (left, right) {
        (View::Unreadable, _) | (_, View::Unreadable) => {
            return Err(Fault::Kind { wanted: "a value", found: View::Unreadable.kind() });
        }
        (View::Null, View::Null) => true,
        (View::Bool(left), View::Bool(right)) => left == right,
        (View::String(left), View::String(right)) => {
            let same_len = left.len() == right.len();
            spend(steps, if same_len { left.len() / 64 } else { 0 })?;
            left == right
        }
        (View::List(left), View::List(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (left, right) in left.iter().zip(right) {
                if !equal(View::of(left), View::of(right), steps)? {
                    return Ok(false);
                }
            }
            true
        }
        (View::Map(left), View::Map(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for ((left_name, left), (right_name, right)) in left.iter().zip(right.iter()) {
                if left_name != right_name || !equal(View::of(left), View::of(right), steps)? {
                    return Ok(false);
                }
            }
            true
        }
        (left, right) => numbers(left, right).flatten() == Some(Ordering::Equal),
    })
}

/// Whether a list holds a value, or a map a key.
pub(super) fn contains(many: View<'_>, one: View<'_>, steps: &mut u32) -> Result<bool, Fault> {
    match (many, one) {
        (View::List(list), one) => {
            for element in list {
                if equal(View::of(element), one, steps)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (View::Map(map), View::String(name)) => Ok(map.get(name).is_some()),
        (View::Map(_), one) if !matches!(one, View::Unreadable) => Ok(false),
        (many, one) => Err(Fault::Pair { operator: "in", left: one.kind(), right: many.kind() }),
    }
}

/// None: not two numbers. Some(None): one of them is NaN.
fn numbers(left: View<'_>, right: View<'_>) -> Option<Option<Ordering>> {
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        return Some(Some(left.cmp(&right)));
    }
    match (left, right) {
        (View::Double(left), View::Double(right)) => Some(left.partial_cmp(&right)),
        (View::Double(left), right) => Some(integer_to_double(integer(right)?, left).map(Ordering::reverse)),
        (left, View::Double(right)) => Some(integer_to_double(integer(left)?, right)),
        _ => None,
    }
}

fn integer(view: View<'_>) -> Option<i128> {
    match view {
        View::Int(value) => Some(value.into()),
        View::Uint(value) => Some(value.into()),
        _ => None,
    }
}

/// Exact, where converting the integer would round it. None: NaN.
fn integer_to_double(integer: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Saturates, and every 64-bit integer is far inside of 128 bits.
    let whole = double.trunc() as i128;
    Some(integer.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)))
}

pub(super) fn negate(view: View<'_>) -> Result<Value, Fault> {
    match view {
        View::Double(value) => Ok(Value::Double(-value)),
        other => match integer(other) {
            Some(value) => Ok(whole(-value)),
            None => Err(Fault::Kind { wanted: "a number", found: other.kind() }),
        },
    }
}

/// An integer as the narrowest type that holds it: JSON has one kind of them.
fn whole(value: i128) -> Value {
    if let Ok(value) = i64::try_from(value) {
        return Value::Int(value);
    }
    u64::try_from(value).map_or(Value::Double(value as f64), Value::Uint)
}

/// Where in a list; one that no list has is the last of all.
pub(super) fn place(view: View<'_>) -> Result<usize, Fault> {
    let at = match view {
        // `1.0` is another spelling of 1.
        View::Double(at) if at.fract() == 0.0 => Some(at as i128),
        other => integer(other),
    };
    let at = at.ok_or(Fault::Pair { operator: "[]", left: "a list", right: view.kind() })?;
    Ok(usize::try_from(at).unwrap_or(usize::MAX))
}

fn double(view: View<'_>) -> Option<f64> {
    match view {
        View::Double(value) => Some(value),
        other => integer(other).map(|value| value as f64),
    }
}

pub(super) fn arithmetic(how: Arithmetic, left: View<'_>, right: View<'_>, steps: &mut u32) -> Result<Value, Fault> {
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        return integers(how, left, right);
    }
    if let (Some(left), Some(right)) = (double(left), double(right))
        && how != Arithmetic::Remainder
    {
        return Ok(Value::Double(doubles(how, left, right)));
    }
    match (left, right) {
        (View::String(left), View::String(right)) if how == Arithmetic::Add => {
            let len = left.len() + right.len();
            spend(steps, len / 64)?;
            if len > TEXT_BYTES_MAX { Err(Fault::TooMuch) } else { Ok(Value::String([left, right].concat().into())) }
        }
        (View::List(left), View::List(right)) if how == Arithmetic::Add => {
            spend(steps, left.len() + right.len())?;
            Ok(Value::List(left.iter().chain(right).cloned().collect()))
        }
        (left, right) => Err(Fault::Pair { operator: symbol(how), left: left.kind(), right: right.kind() }),
    }
}

fn integers(how: Arithmetic, left: i128, right: i128) -> Result<Value, Fault> {
    let result = match how {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide | Arithmetic::Remainder if right == 0 => return Err(Fault::Zero),
        Arithmetic::Divide => left.checked_div(right),
        Arithmetic::Remainder => left.checked_rem(right),
    };
    // Two integers of 64 bits leave 128 at most by their product.
    Ok(result.map_or_else(|| Value::Double(doubles(how, left as f64, right as f64)), whole))
}

fn doubles(how: Arithmetic, left: f64, right: f64) -> f64 {
    match how {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
    }
}

pub(super) fn symbol(how: Arithmetic) -> &'static str {
    match how {
        Arithmetic::Add => "+",
        Arithmetic::Subtract => "-",
        Arithmetic::Multiply => "*",
        Arithmetic::Divide => "/",
        Arithmetic::Remainder => "%",
    }
}

/// Characters of a string, elements of a list, fields of a map.
pub(super) fn size(view: View<'_>, steps: &mut u32) -> Result<Value, Fault> {
    let many = match view {
        View::String(text) => {
            spend(steps, text.len() / 64)?;
            text.chars().count()
        }
        View::List(list) => list.len(),
        View::Map(map) => map.len(),
        other => return Err(Fault::Kind { wanted: "a string, list or map", found: other.kind() }),
    };
    i64::try_from(many).map(Value::Int).map_err(|_| Fault::Overflow)
}

pub(super) fn text(test: TextTest, text: View<'_>, part: View<'_>, steps: &mut u32) -> Result<bool, Fault> {
    let (text, part) = (string(text)?, string(part)?);
    Ok(match test {
        TextTest::Contains => {
            spend(steps, (text.len() + part.len()) / 64)?;
            text.contains(part)
        }
        TextTest::StartsWith => text.starts_with(part),
        TextTest::EndsWith => text.ends_with(part),
    })
}

pub(super) fn convert(to: Conversion, view: View<'_>) -> Result<Value, Fault> {
    match (to, view) {
        (Conversion::Int, View::Int(value)) => Ok(Value::Int(value)),
        (Conversion::Int, View::Uint(value)) => i64::try_from(value).map(Value::Int).map_err(|_| Fault::Overflow),
        (Conversion::Int, View::Double(value)) => {
            // 2^63 itself is a double and no i64.
            let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
            if fits { Ok(Value::Int(value as i64)) } else { Err(Fault::Overflow) }
        }
        (Conversion::Int, View::String(text)) => text.parse().map(Value::Int).map_err(|_| Fault::NoNumber),
        (Conversion::Double, View::Double(value)) => Ok(Value::Double(value)),
        (Conversion::Double, View::Int(value)) => Ok(Value::Double(value as f64)),
        (Conversion::Double, View::Uint(value)) => Ok(Value::Double(value as f64)),
        (Conversion::Double, View::String(text)) => text.parse().map(Value::Double).map_err(|_| Fault::NoNumber),
        (Conversion::String, View::String(text)) => Ok(Value::String(text.into())),
        (Conversion::String, View::Int(value)) => Ok(Value::String(value.to_string().into())),
        (Conversion::String, View::Uint(value)) => Ok(Value::String(value.to_string().into())),
        (Conversion::String, View::Double(value)) => Ok(Value::String(value.to_string().into())),
        (Conversion::String, View::Bool(value)) => Ok(Value::String(value.to_string().into())),
        (Conversion::Int | Conversion::Double, other) => Err(Fault::Kind { wanted: "a number", found: other.kind() }),
        (Conversion::String, other) => Err(Fault::Kind { wanted: "a string or number", found: other.kind() }),
    }
}
