//! What a rule sees: JSON and identities as values of CEL.
//!
//! Invariant: a value is at most `JSON_DEPTH_MAX` levels deep where it comes from JSON, and has no key twice, so a rule
//! and whoever reads the same JSON after it agree on what it says. What is absent stays absent (B20). An integer that fits
//! 64 bits is exact, any other number is the nearest double, however large (F21): a number never makes a rule fail.
//!
//! Why not the values of the crate `cel`: a rule only ever borrows from these (a look-up neither copies nor counts), they
//! are shared between threads, and all that exist are what JSON has.

mod json;
#[cfg(test)]
#[path = "value/tests.rs"]
mod tests;

use std::sync::{Arc, LazyLock};

use crate::auth::identity::Identity;
use crate::protocol::names::{Match, Template};

pub use json::{NotJson, json, to_json};

/// A value of CEL. Equality here is that of structure; rules compare as CEL does, numbers across types.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// Any other number; not finite where JSON had more than a double can hold.
    Double(f64),
    /// A string.
    String(Arc<str>),
    /// A list.
    List(Arc<[Value]>),
    /// A map with string keys.
    Map(Map),
    /// What [`json`] refused. Neither absent nor null: whatever a rule asks of it, also by `!has(…)`, is a fault.
    Unreadable,
}

/// Fields by name: sorted, none twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Arc<[(Box<str>, Value)]>);

impl Map {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        self.0.get(found).map(|(_, value)| value)
    }

    /// The fields, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From fields in any order. None: a name came twice.
    fn unique(mut fields: Vec<(Box<str>, Value)>) -> Option<Map> {
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        let twice = fields.windows(2).any(|pair| pair[0].0 == pair[1].0);
        (!twice).then(|| Map(fields.into()))
    }

    /// From fields in any order; of a name that comes twice the later one counts.
    fn latest(mut fields: Vec<(Box<str>, Value)>) -> Map {
        fields.reverse();
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        fields.dedup_by(|later, kept| later.0 == kept.0);
        Map(fields.into())
    }
}

impl Value {
    /// The map without fields.
    pub fn empty() -> Value {
        EMPTY.clone()
    }

    /// A map; of a name that comes twice the later one counts.
    pub fn map<K: Into<Box<str>>>(fields: impl IntoIterator<Item = (K, Value)>) -> Value {
        Value::Map(Map::latest(fields.into_iter().map(|(name, value)| (name.into(), value)).collect()))
    }

    fn string(text: &str) -> Value {
        Value::String(text.into())
    }

    fn strings<'t>(texts: impl Iterator<Item = &'t str>) -> Value {
        Value::List(texts.map(Value::string).collect())
    }
}

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Map(Map::default()));

/// The variables of one evaluation. What a surface does not have is the empty map, or the empty text.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// [`user`]
    pub user: &'a Value,
    /// [`params`]
    pub params: &'a Value,
    /// [`event`]
    pub event: &'a Value,
    /// Arguments of an action, data of an `enqueue`, [`parsed`].
    pub args: &'a Value,
    /// [`to`]
    pub to: &'a Value,
    /// What guards have set.
    pub ctx: &'a Value,
    /// Name of the pipe.
    pub pipe: &'a str,
    /// Address of the client.
    pub ip: &'a str,
}

impl Default for Scope<'_> {
    fn default() -> Self {
        let none: &'static Value = &EMPTY;
        Scope { user: none, params: none, event: none, args: none, to: none, ctx: none, pipe: "", ip: "" }
    }
}

/// What a client or the application sent, as a value: [`Value::Unreadable`] where [`json`] refuses it.
pub fn parsed(text: &str) -> Value {
    json(text).unwrap_or(Value::Unreadable)
}

/// The variable `user`. None, the anonymous one, is the empty map (B21).
pub fn user(identity: Option<&Identity>) -> Value {
    let Some(one) = identity else {
        return Value::empty();
    };
    let mut fields = vec![("id", Value::string(one.id())), ("roles", Value::strings(one.roles()))];
    fields.extend(one.features().map(|features| ("features", Value::strings(features))));
    let optional = [
        ("name", one.name()),
        ("role", one.role()),
        ("team", one.team()),
        ("tenant", one.tenant()),
        ("org", one.org()),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, text)| Some((name, Value::string(text?)))));
    if let Some(info) = one.info() {
        fields.push(("info", parsed(info)));
    }
    Value::map(fields)
}

/// The variable `params`: what the captures of a definition stand for in a name that matches it.
pub fn params(matched: &Match<'_>, template: &Template) -> Value {
    Value::map(template.captures().filter_map(|name| Some((name, Value::string(matched.capture(name)?)))))
}

/// The variable `event`; `data` is [`parsed`].
pub fn event(name: &str, data: Value) -> Value {
    Value::map([("name", Value::string(name)), ("data", data)])
}

/// The variable `to`: `kind` is user, connection, role, tenant or org.
pub fn to(kind: &str, target: &str) -> Value {
    Value::map([(kind, Value::string(target))])
}

/// Sets one name of `ctx`, which becomes a map if it was none.
pub fn set(ctx: &mut Value, name: &str, value: Value) {
    merge(ctx, vec![(name.into(), value)]);
}

/// Merges the fields of a JSON object into `ctx`; a name that was there is replaced.
///
/// # Errors
/// The text is no JSON object as [`json`] wants it; `ctx` is as it was.
pub fn merge_json(ctx: &mut Value, object: &str) -> Result<(), NotJson> {
    let Value::Map(fields) = json(object)? else {
        return Err(NotJson::NoObject);
    };
    merge(ctx, fields.iter().map(|(name, value)| (name.into(), value.clone())).collect());
    Ok(())
}

fn merge(ctx: &mut Value, further: Vec<(Box<str>, Value)>) {
    let mut fields: Vec<(Box<str>, Value)> = match ctx {
        Value::Map(old) => old.iter().map(|(name, value)| (name.into(), value.clone())).collect(),
        _ => Vec::new(),
    };
    fields.extend(further);
    *ctx = Value::Map(Map::latest(fields));
}
