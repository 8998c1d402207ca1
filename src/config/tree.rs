//! TOML text → a plain tree in which every key and value knows its place.
//!
//! Invariant: the entries of a table stand in the order of the text, because the order of definitions decides (F20).
//! Every syntax error of the text is reported, repeated keys included, not only the first.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Findings, Place};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    /// Wider than TOML's integers, so that one out of range is reported as such.
    Integer(i128),
    Float(f64),
    Flag(bool),
    Time,
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// One key of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub name: String,
    pub place: Place,
    pub node: Node,
}

impl Value {
    /// The kind of value, with its article, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number with a fraction",
            Value::Flag(_) => "a boolean",
            Value::Time => "a date or time",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

/// Reads a whole file. What can be read of a text with syntax errors is returned as well, so that its other mistakes
/// are reported in the same run.
pub(super) fn read(text: &str, file: &str, findings: &mut Findings) -> Vec<Entry> {
    let reader = Reader { file: Place::new(file), line_starts: line_starts(text) };
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut broken_lines = Vec::new();
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        let place = reader.place(offset);
        if broken_lines.last() == Some(&place.line) {
            continue;
        }
        findings.error(&place, &key_near(text, offset), syntax_message(error.message()));
        broken_lines.push(place.line);
    }
    let mut entries = reader.table(document.get_ref());
    forget_lines(&mut entries, &broken_lines);
    entries
}

/// Reads one value as TOML, else takes it as a string (G6).
pub(super) fn read_value(text: &str, place: &Place) -> Node {
    let reader = Reader { file: place.clone(), line_starts: Vec::new() };
    match DeValue::parse(text.trim()) {
        Ok(value) => reader.node(&value),
        Err(_) => Node { place: place.clone(), value: Value::Text(text.to_owned()) },
    }
}

/// Puts `node` at `path`, instead of what stands there. Refused where the way leads through something that is not a
/// table.
pub(super) fn set(entries: &mut Vec<Entry>, path: &[&str], node: Node) -> Result<(), &'static str> {
    let Some((name, rest)) = path.split_first() else { return Ok(()) };
    let index = match entries.iter().position(|entry| entry.name == *name) {
        Some(index) => index,
        None => {
            let empty = Node { place: node.place.clone(), value: Value::Table(Vec::new()) };
            entries.push(Entry { name: (*name).to_owned(), place: node.place.clone(), node: empty });
            entries.len() - 1
        }
    };
    let entry = &mut entries[index];
    if rest.is_empty() {
        entry.place = node.place.clone();
        entry.node = node;
        return Ok(());
    }
    match &mut entry.node.value {
        Value::Table(inner) => set(inner, rest, node),
        other => Err(other.kind()),
    }
}

/// Whether something stands at `path`.
pub(super) fn has(entries: &[Entry], path: &[&str]) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    match entries.iter().find(|entry| entry.name == *name).map(|entry| &entry.node.value) {
        Some(Value::Table(inner)) => has(inner, rest),
        found => found.is_some() && rest.is_empty(),
    }
}

struct Reader {
    file: Place,
    /// Offset of the first byte of each line. Empty: values have no line.
    line_starts: Vec<usize>,
}

impl Reader {
    fn place(&self, offset: usize) -> Place {
        self.file.at(self.line_starts.partition_point(|start| *start <= offset) as u32)
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let read = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(digits) => integer(digits.as_str(), digits.radix()),
            DeValue::Float(digits) => Value::Float(digits.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Time,
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { place: self.place(value.span().start), value: read }
    }

    fn table(&self, table: &DeTable<'_>) -> Vec<Entry> {
        let mut keys: Vec<_> = table.iter().collect();
        keys.sort_by_key(|(name, _)| name.span().start);
        keys.into_iter()
            .map(|(name, value)| Entry {
                name: name.get_ref().to_string(),
                place: self.place(name.span().start),
                node: self.node(value),
            })
            .collect()
    }
}

fn integer(digits: &str, radix: u32) -> Value {
    let negative = digits.starts_with('-');
    Value::Integer(i128::from_str_radix(digits, radix).unwrap_or(if negative { i128::MIN } else { i128::MAX }))
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect()
}

fn syntax_message(message: &str) -> String {
    match message {
        "duplicate key" => "this is given twice; keep one of the two".to_owned(),
        other => format!("this is not TOML: {other}"),
    }
}

/// The key that a syntax error concerns, as far as it can be made out: the table header above and what stands before
/// the `=` of its line.
fn key_near(text: &str, offset: usize) -> String {
    let offset = text.floor_char_boundary(offset.min(text.len()));
    let line_start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default().trim();
    let header = |line: &str| {
        let inner = line.trim().strip_prefix('[')?.trim_start_matches('[');
        Some(inner.split(']').next().unwrap_or_default().trim().to_owned())
    };
    if let Some(own) = header(line) {
        return own;
    }
    let key = line.split(['=', '#']).next().unwrap_or_default().trim();
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-\"'".contains(c));
    let section = text[..line_start].lines().rev().find_map(header).unwrap_or_default();
    match (section.is_empty(), is_key) {
        (_, false) => section,
        (true, true) => key.to_owned(),
        (false, true) => format!("{section}.{key}"),
    }
}

/// Leaves out what stands on a line that has a syntax error, inline tables included: its value is a guess of the
/// recovery.
fn forget_lines(entries: &mut Vec<Entry>, lines: &[u32]) {
    entries.retain_mut(|entry| {
        let is_broken = lines.contains(&entry.place.line);
        match &mut entry.node.value {
            Value::Table(inner) => {
                forget_lines(inner, lines);
                !(is_broken && inner.is_empty())
            }
            _ => !is_broken,
        }
    });
}
