//! What data may be, and what a pipe is bound to: `schema`, `scope_fields`, `scope`.
//!
//! Invariant: a schema that leaves this file is compiled and whole; nothing of it is fetched from anywhere (F19).

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Number};

use super::finding::{Findings, Place};
use super::lookup::join;
use super::rule::instead_of;
use super::table::{Inner, Table};
use super::tree::{Entry, Node, Value};
use crate::bounds::IDENTITY_BYTES_MAX;
use crate::protocol::names::Template;
use crate::rules::definition::Scope;
use crate::rules::reference::{References, Scoped};
use crate::rules::schema::Schema;

/// Bytes of a schema file. More: error.
const SCHEMA_BYTES_MAX: u64 = 1 << 20;

/// What `scope` holds.
pub(super) static SCOPE: [Inner; 3] = [
    Inner {
        name: "tenant",
        accepts: "the name of a capture",
        default: "",
        doc: "The capture that must equal the connection's tenant.",
    },
    Inner {
        name: "org",
        accepts: "the name of a capture",
        default: "",
        doc: "The capture that must equal the connection's organisation.",
    },
    Inner { name: "feature", accepts: "a string", default: "", doc: "The feature that the connection must have." },
];

/// Reads a schema: the name of a file in `dir`, or an inline table.
pub(super) fn schema(node: &Node, key: &str, dir: &Path, findings: &mut Findings) -> Option<Arc<Schema>> {
    let (document, source) = match &node.value {
        Value::Text(file) if !file.is_empty() => {
            let path = dir.join(file);
            match read_schema(&path) {
                Ok(document) => (document, format!("{}: ", path.display())),
                Err(why) => {
                    findings.error(&node.place, key, format!("{}{why}", path.display()));
                    return None;
                }
            }
        }
        Value::Table(entries) => (object(entries, key, findings)?, String::new()),
        other => {
            let message = format!("{} was found here; write the name of a JSON file, or a table", other.kind());
            findings.error(&node.place, key, message);
            return None;
        }
    };
    match Schema::compile(&document) {
        Ok(schema) => Some(Arc::new(schema)),
        Err(why) => {
            findings.error(&node.place, key, format!("{source}{why}"));
            None
        }
    }
}

/// The JSON of a file. The error is what follows the name of the file in the sentence.
fn read_schema(path: &Path) -> Result<serde_json::Value, String> {
    let cannot = |why: std::io::Error| format!(" cannot be read ({why}); write the path of a JSON Schema");
    if std::fs::metadata(path).map_err(cannot)?.len() > SCHEMA_BYTES_MAX {
        return Err(format!(" is longer than {SCHEMA_BYTES_MAX} bytes; write a shorter schema"));
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    serde_json::from_slice(&bytes)
        .map_err(|why| format!(":{}: this is not JSON ({why}); write a JSON Schema", why.line()))
}

fn object(entries: &[Entry], key: &str, findings: &mut Findings) -> Option<serde_json::Value> {
    let mut object = Map::with_capacity(entries.len());
    for entry in entries {
        object.insert(entry.name.clone(), json(&entry.node, key, findings)?);
    }
    Some(object.into())
}

/// TOML as JSON.
fn json(node: &Node, key: &str, findings: &mut Findings) -> Option<serde_json::Value> {
    let number = match &node.value {
        Value::Text(text) => return Some(text.as_str().into()),
        Value::Flag(flag) => return Some((*flag).into()),
        Value::List(items) => return items.iter().map(|item| json(item, key, findings)).collect(),
        Value::Table(entries) => return object(entries, key, findings),
        Value::Integer(number) => i64::try_from(*number).ok().map(Number::from),
        Value::Float(number) => Number::from_f64(*number),
        Value::Time => None,
    };
    if number.is_none() {
        findings.error(&node.place, key, format!("{} that JSON does not have stands here", node.value.kind()));
    }
    number.map(serde_json::Value::Number)
}

/// Reads `scope_fields`.
pub(super) fn references(node: &Node, key: &str, findings: &mut Findings) -> Option<References> {
    let example = "`{ \"/tenantId\" = \"tenant\" }`";
    let Value::Table(entries) = &node.value else {
        findings.error(&node.place, key, format!("{} was found here; write {example}", node.value.kind()));
        return None;
    };
    let mut fields = Vec::with_capacity(entries.len());
    for entry in entries {
        let scoped = match &entry.node.value {
            Value::Text(text) if text == "tenant" => Scoped::Tenant,
            Value::Text(text) if text == "org" => Scoped::Org,
            _ => {
                let key = join(key, &super::load::quoted(&entry.name));
                findings.error(&entry.node.place, &key, "write \"tenant\" or \"org\": whose the field must be");
                continue;
            }
        };
        fields.push((entry.name.clone(), scoped));
    }
    if fields.len() < entries.len() {
        return None;
    }
    References::new(fields).map_err(|why| findings.error(&node.place, key, why)).ok()
}

/// `scope` of a pipe whose name is not compiled yet.
#[derive(Default)]
pub(super) struct ScopeDraft {
    scope: Scope,
    /// Captures that the name must have.
    captures: Vec<(String, Place, Box<str>)>,
}

/// Reads `scope`.
pub(super) fn scope(node: &Node, key: &str, findings: &mut Findings) -> Option<ScopeDraft> {
    let mut table = Table::open(node, key, &SCOPE, "`{ tenant = \"capture\" }`", findings)?;
    let mut captures = Vec::new();
    let mut text = |table: &mut Table<'_, '_>, name: &'static str| {
        let text: Box<str> = table.text(name, IDENTITY_BYTES_MAX)?.into();
        if let Some(node) = table.node(name).filter(|_| name != "feature") {
            captures.push((join(table.key, name), node.place.clone(), text.clone()));
        }
        Some(text)
    };
    let scope = Scope {
        tenant: text(&mut table, "tenant"),
        org: text(&mut table, "org"),
        feature: text(&mut table, "feature"),
    };
    table.is_right.then_some(ScopeDraft { scope, captures })
}

impl ScopeDraft {
    /// The scope, where the name has what it needs (A2).
    pub fn finish(self, name: &Template, findings: &mut Findings) -> Scope {
        for (key, place, capture) in self.captures {
            if name.captures().any(|own| *own == *capture) {
                continue;
            }
            let instead = instead_of(&capture, name);
            findings.error(&place, &key, format!("there is no capture `{}`: {instead}", capture.escape_debug()));
        }
        self.scope
    }
}
