//! A table inside a value: `{ url = … }`, one entry of `guard`, `scope`. Such tables stand where the table of keys ends,
//! and have small tables of their own.
//!
//! Invariant: a key that is not listed is a finding that names the nearest listed one; whatever is asked for and is
//! wrong is a finding, and [`Table::is_right`] is false from then on.

use super::finding::{Findings, Place};
use super::load::bare_or_quoted;
use super::lookup::{distance, join};
use super::tree::{Entry, Node, Value};

/// One key of such a table.
pub(super) struct Inner {
    /// Its name.
    pub name: &'static str,
    /// What it accepts, in words.
    pub accepts: &'static str,
    /// The default as TOML; empty where there is none.
    pub default: &'static str,
    /// One line for the reference.
    pub doc: &'static str,
}

/// Such a table, being read.
pub(super) struct Table<'n, 'f> {
    /// Full name of the key whose value it is.
    pub key: &'n str,
    /// Where it begins.
    pub place: &'n Place,
    pub entries: &'n [Entry],
    pub findings: &'f mut Findings,
    known: &'static [Inner],
    /// Whether nothing wrong was found so far.
    pub is_right: bool,
}

impl<'n, 'f> Table<'n, 'f> {
    /// `write` is how the whole of it may look.
    pub fn open(
        node: &'n Node,
        key: &'n str,
        known: &'static [Inner],
        write: &str,
        findings: &'f mut Findings,
    ) -> Option<Table<'n, 'f>> {
        let Value::Table(entries) = &node.value else {
            findings.error(&node.place, key, format!("{} was found here; write {write}", node.value.kind()));
            return None;
        };
        let mut table = Table { key, place: &node.place, entries, findings, known, is_right: true };
        for entry in entries.iter().filter(|entry| !known.iter().any(|inner| inner.name == entry.name)) {
            let name: String = entry.name.chars().take(64).collect();
            let nearest = known.iter().min_by_key(|inner| distance(&name, inner.name));
            let nearest = join(key, nearest.map_or("", |inner| inner.name));
            let message = format!("there is no such key; the nearest is `{nearest}`");
            table.wrong(&entry.place, &join(key, &bare_or_quoted(&name)), message);
        }
        Some(table)
    }

    /// The value of a key, where it is given.
    pub fn node(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| &entry.node)
    }

    /// A string that is not empty, of at most `most` bytes.
    pub fn text(&mut self, name: &str, most: usize) -> Option<&'n str> {
        let node = self.node(name)?;
        match &node.value {
            Value::Text(text) if (1..=most).contains(&text.len()) => return Some(text),
            Value::Text(text) if text.is_empty() => {
                let message = format!("is empty; write {}, or leave the key out", self.accepts(name));
                self.wrong(&node.place, &join(self.key, name), message);
            }
            Value::Text(text) => {
                let message = format!("holds {} bytes; write at most {most}", text.len());
                self.wrong(&node.place, &join(self.key, name), message);
            }
            _ => self.wrong_type(name, node),
        }
        None
    }

    /// An integer from `least` to `most`.
    pub fn number(&mut self, name: &str, least: u32, most: u32) -> Option<u32> {
        let node = self.node(name)?;
        let Value::Integer(number) = node.value else {
            self.wrong_type(name, node);
            return None;
        };
        let number_in_range = u32::try_from(number).ok().filter(|number| (least..=most).contains(number));
        if number_in_range.is_none() {
            let message = format!("{number} is out of range; write {}", self.accepts(name));
            self.wrong(&node.place, &join(self.key, name), message);
        }
        number_in_range
    }

    /// Says that a key holds a value of the wrong kind.
    pub fn wrong_type(&mut self, name: &str, node: &Node) {
        let message = format!("{} was found here; write {}", node.value.kind(), self.accepts(name));
        self.wrong(&node.place, &join(self.key, name), message);
    }

    /// Says what is wrong at a place in it.
    pub fn wrong(&mut self, place: &Place, key: &str, message: String) {
        self.findings.error(place, key, message);
        self.is_right = false;
    }

    fn accepts(&self, name: &str) -> &'static str {
        self.known.iter().find(|inner| inner.name == name).map_or("", |inner| inner.accepts)
    }
}
