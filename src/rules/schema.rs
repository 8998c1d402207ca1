//! JSON Schema 2020-12 for events, actions and queues (GD-7, RK-2).
//!
//! Invariant: compiled once, with the configuration; nothing is fetched, neither then nor later (F19); a check costs
//! time linear in the data for each subschema that applies (patterns run on a linear-time engine, so `(a+)+$` is no
//! weapon) and recurses no deeper than the data does. A violation names a place in the data and what the schema expects
//! there, never what stands there. `format` is not asserted (F19).
//!
//! Why data with a repeated name is refused where a schema stands: two readers take different ones of the two, so what
//! was checked might not be what is read.

mod reading;

use std::fmt;

use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind};
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use reading::Unreadable;

/// The only `$schema` there is.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Bytes that a compiled pattern may take. More: the schema does not compile. Far below the size from which the engine's
/// backtracker has no room left for even an empty text and panics (rust-lang/regex#1344).
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Bytes of a pointer in a sentence. More: it is cut, since its names come from the data.
const POINTER_BYTES_MAX: usize = 200;
/// Bytes of what a schema expects, in a sentence. More: it is cut.
const EXPECTED_BYTES_MAX: usize = 300;

/// A schema, ready to check.
pub struct Schema {
    validator: Validator,
}

/// Says nothing of the schema: a configuration may end in a log, and schemas are long.
impl fmt::Debug for Schema {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Schema(…)")
    }
}

/// What is wrong with data. `Display` is a sentence for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where in the data (RFC 6901); "" is the whole of it. Cut after 200 bytes.
    pub pointer: String,
    /// What is expected there: `must be of type integer`.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.pointer {
            "" => write!(out, "The data {}", self.message),
            pointer => write!(out, "`{pointer}` {}", self.message),
        }
    }
}

impl Schema {
    /// The schema `schema` stands for.
    ///
    /// # Errors
    /// A sentence for the operator: what is wrong, and where in the schema.
    pub fn compile(schema: &Value) -> Result<Schema, String> {
        match schema.get("$schema") {
            None => {}
            Some(Value::String(dialect)) if dialect.trim_end_matches('#') == DIALECT => {}
            Some(other) => {
                return Err(format!(
                    "`$schema` is {}; only JSON Schema 2020-12 (\"{DIALECT}\") is known",
                    cut(&other.to_string())
                ));
            }
        }
        let options = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(false)
            .with_pattern_options(
                PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX),
            )
            .offline();
        match options.build(schema) {
            Ok(validator) => Ok(Schema { validator }),
            Err(error) => Err(uncompiled(&error)),
        }
    }

    /// Whether `data`, a JSON text, is as the schema wants it.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(&self, data: &str) -> Result<(), Violation> {
        self.check_value(&read(data)?)
    }

    /// The same for what [`read`] returned.
    pub(super) fn check_value(&self, value: &Value) -> Result<(), Violation> {
        self.validator.validate(value).map_err(|error| Violation {
            pointer: cut_to(error.instance_path().as_str(), POINTER_BYTES_MAX),
            message: expectation(&error),
        })
    }
}

/// The tree of `data`, a JSON text of at most `bounds::JSON_DEPTH_MAX` levels in which no name is repeated. Numbers beyond
/// 64 bits are doubles in it, those beyond doubles the largest double.
pub(super) fn read(data: &str) -> Result<Value, Violation> {
    reading::tree(data).map_err(|unreadable| Violation {
        pointer: String::new(),
        message: match unreadable {
            Unreadable::NotJson => "must be JSON",
            Unreadable::TooDeep => "must not be nested so deeply",
            Unreadable::Repeated => "must not hold an object with a name twice",
        }
        .to_owned(),
    })
}

/// Why a schema does not compile.
fn uncompiled(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(error) => {
            format!(
                "`$ref`: {}; nothing is fetched, so put it under `$defs` and refer to `#/$defs/…`",
                cut(&error.to_string())
            )
        }
        _ => match error.instance_path().as_str() {
            "" => format!("{error}"),
            place => format!("at `{place}`: {}", cut(&error.to_string())),
        },
    }
}

/// What was expected, in words that hold nothing of the data.
fn expectation(error: &ValidationError<'_>) -> String {
    use ValidationErrorKind as Kind;
    match error.kind() {
        Kind::Type { kind: TypeKind::Single(one) } => format!("must be of type {one}"),
        Kind::Type { kind: TypeKind::Multiple(several) } => {
            let names: Vec<&str> = several.iter().map(|one| one.as_str()).collect();
            format!("must be of type {}", names.join(" or "))
        }
        Kind::Required { property } => format!("must have the member {}", cut(&property.to_string())),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => {
            "must have no members but those that the schema names".to_owned()
        }
        Kind::AdditionalItems { .. } | Kind::UnevaluatedItems { .. } => {
            "must have no items but those that the schema names".to_owned()
        }
        Kind::Constant { expected_value } => format!("must be {}", cut(&expected_value.to_string())),
        Kind::Enum { options } => format!("must be one of {}", cut(&options.to_string())),
        Kind::Pattern { pattern } => format!("must match the pattern `{}`", cut(pattern)),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} members"),
        Kind::MinProperties { limit } => format!("must have at least {limit} members"),
        Kind::UniqueItems => "must have no item twice".to_owned(),
        Kind::Contains => "must have an item of the kind that the schema asks for".to_owned(),
        Kind::PropertyNames { error } => format!("must have other names: each {}", expectation(error)),
        // Reported so for the object instead of its member.
        Kind::FalseSchema if error.schema_path().as_str().ends_with("Properties") => {
            "must have no members but those that the schema names".to_owned()
        }
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::AnyOf { .. } => "must match one of the schemas of `anyOf`".to_owned(),
        Kind::OneOfNotValid { .. } => "must match one of the schemas of `oneOf`".to_owned(),
        Kind::OneOfMultipleValid { .. } => "must match only one of the schemas of `oneOf`".to_owned(),
        Kind::Not { .. } => "must not match the schema of `not`".to_owned(),
        other => format!("must be as `{}` wants it", other.keyword()),
    }
}

fn cut(text: &str) -> String {
    cut_to(text, EXPECTED_BYTES_MAX)
}

/// At most `bytes` bytes of `text`, and `…` where something is missing.
fn cut_to(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes)])
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
