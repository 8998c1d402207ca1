//! Environment variables and flags, laid over the tree of the file.
//!
//! `PIPEWARD_EDGE__PING_S` stands for `edge.ping_s` (G6). Only names that start with `PIPEWARD_` and hold `__` count.
//! Invariant: a name that stands for no key is an error (G16); a variable wins over the file, a flag over both. One number of
//! a rate wins alone: the other stays as it is in the file, or else by default.

use super::finding::{Findings, Place};
use super::kind::{Key, Kind};
use super::load::Flag;
use super::lookup::{self, RATE_NUMBERS};
use super::tree::{self, Entry, Node, Value};

const PREFIX: &str = "PIPEWARD_";
const SEPARATOR: &str = "__";
/// Definitions, whose names cannot be spelt in a variable, and arrays of tables.
const FILE_ONLY: [&str; 7] = ["pipe", "module", "action", "queue", "guard", "push.guard", "control.key"];

/// Lays the variables over `root`.
pub(super) fn lay_over(
    root: &mut Vec<Entry>,
    environment: &mut dyn Iterator<Item = (String, String)>,
    findings: &mut Findings,
) {
    let mut variables: Vec<_> =
        environment.filter(|(name, _)| name.starts_with(PREFIX) && name.contains(SEPARATOR)).collect();
    // Sorted, so that the findings do not depend on the order of the environment.
    variables.sort();
    for (name, text) in variables {
        let place = Place::new(&name);
        match key_of(&name) {
            Ok(path) => {
                let node = node(&path, &text, &place);
                keep_the_rest_of_a_rate(root, &path, &place);
                put(root, &path, node, &place, findings);
            }
            Err((key, message)) => findings.error(&place, &key, message),
        }
    }
}

/// Lays the flags over `root`.
pub(super) fn lay_flags_over(root: &mut Vec<Entry>, flags: &[Flag], findings: &mut Findings) {
    for flag in flags {
        let place = Place::new(flag.name);
        let node = match flag.values.as_slice() {
            [] => continue,
            [one] => node(flag.key, one, &place),
            several => {
                let items = several.iter().map(|text| node(flag.key, text, &place)).collect();
                Node { place: place.clone(), value: Value::List(items) }
            }
        };
        put(root, flag.key, node, &place, findings);
    }
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', SEPARATOR).to_ascii_uppercase())
}

/// The key that the variable `name` stands for, or the key it looks like and what is wrong.
fn key_of(name: &str) -> Result<String, (String, String)> {
    let path = name[PREFIX.len()..].replace(SEPARATOR, ".").to_ascii_lowercase();
    let (section, leaf) = path.rsplit_once('.').unwrap_or(("", &path));
    let is_rate = RATE_NUMBERS.contains(&leaf) && rate(section).is_some();
    if is_file_only(&path) {
        return Err((path, "definitions and arrays of tables cannot be given here; write them in the file".to_owned()));
    }
    if lookup::find(&path).is_some() || is_rate {
        if name == name.to_ascii_uppercase() {
            return Ok(path);
        }
        let message = format!("variables are written in capitals; write {}", variable(&path));
        return Err((path, message));
    }
    if lookup::is_section(&path) {
        return Err((path, "this names a section; name one of its keys".to_owned()));
    }
    let nearest = variable(&lookup::nearest_path(&path, |key| !is_file_only(key)));
    Err((path, format!("there is no such key; the nearest is {nearest}")))
}

/// The key of a rate.
fn rate(path: &str) -> Option<&'static Key> {
    lookup::find(path).filter(|key| matches!(key.kind, Kind::Rate(_)))
}

fn is_file_only(path: &str) -> bool {
    let is_below = |array: &str| path.strip_prefix(array).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    FILE_ONLY.iter().any(|only| is_below(only))
}

/// Puts the default of the rate that `path` is a number of below what is laid over, where nothing else is there.
fn keep_the_rest_of_a_rate(root: &mut Vec<Entry>, path: &str, place: &Place) {
    let Some(key) = path.rsplit_once('.').and_then(|(section, _)| rate(section)) else { return };
    let path: Vec<&str> = key.path.split('.').collect();
    if !key.default.is_empty() && !tree::has(root, &path) {
        // Where the way there is no table, laying over says so.
        let _ = tree::set(root, &path, tree::read_value(key.default, place));
    }
}

fn node(key: &str, text: &str, place: &Place) -> Node {
    let is_text = lookup::find(key).is_some_and(|key| key.kind.is_text());
    let read = tree::read_value(text, place);
    match read.value {
        Value::Text(_) => read,
        // A secret or an audience made of digits is still text.
        _ if is_text => Node { place: place.clone(), value: Value::Text(text.to_owned()) },
        _ => read,
    }
}

fn put(root: &mut Vec<Entry>, key: &str, node: Node, place: &Place, findings: &mut Findings) {
    let path: Vec<&str> = key.split('.').collect();
    if let Err(found) = tree::set(root, &path, node) {
        let message = format!("cannot be laid over {found} of the file; write it there, or make that a table");
        findings.error(place, key, message);
    }
}
