//! File, environment and flags → configuration.
//!
//! Everything is read over the defaults in one walk: the file, over it the environment, over that the flags of the
//! command line. Invariant: whatever is wrong is found in one run, and nothing that the table of keys does not know
//! passes in silence.

use std::path::Path;

use super::definitions::Ending;
use super::draft::Draft;
use super::finding::{Finding, Findings, Place};
use super::tree::{Entry, Value};
use super::types::Config;
use super::{environment, lookup, tree, value};
use crate::bounds::WORKERS_MAX;

/// Sections that others build on: whose secret signs, and what `module` may name.
const FIRST: [&str; 2] = ["auth", "module"];

/// A configuration with the warnings about it, or everything that is wrong with it, warnings included.
pub type Loaded = Result<(Config, Vec<Finding>), Vec<Finding>>;

/// A flag of the command line that stands for a key and wins over file and environment.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the operator wrote it: `--listen`.
    pub name: &'static str,
    /// The key: `edge.listen`.
    pub key: &'static str,
    /// Its values; none at all: the flag was not given.
    pub values: Vec<String>,
}

/// Reads the configuration in the file `path`, with the environment over it.
///
/// # Errors
/// Everything that is wrong, in the order of the lines. A file that cannot be read is one finding without a line.
pub fn load(path: &Path, environment: &mut dyn Iterator<Item = (String, String)>) -> Loaded {
    load_with_flags(Some(path), environment, &[])
}

/// The same with flags on top; without a file the defaults stand in for it.
///
/// # Errors
/// As [`load`].
pub fn load_with_flags(
    path: Option<&Path>,
    environment: &mut dyn Iterator<Item = (String, String)>,
    flags: &[Flag],
) -> Loaded {
    let Some(path) = path else { return read("", "defaults", Path::new(""), environment, flags) };
    let name = path.display().to_string();
    match read_file(path) {
        Ok(text) => read(&text, &name, path.parent().unwrap_or(Path::new("")), environment, flags),
        Err((line, message)) => {
            let mut findings = Findings::default();
            findings.error(&Place::new(&name).at(line), "", message);
            Err(findings.into_sorted())
        }
    }
}

/// Reads a configuration from text. Files that it names are relative to `dir` (D13).
///
/// # Errors
/// As [`load`]; the findings name the file `configuration`.
pub fn parse(text: &str, dir: &Path, environment: &mut dyn Iterator<Item = (String, String)>) -> Loaded {
    read(text, "configuration", dir, environment, &[])
}

/// Workers on a machine with `cores` cores available: all of them, one fewer from four up, 1 to `WORKERS_MAX`.
pub(super) fn workers_default(cores: usize) -> u32 {
    let workers = if cores >= 4 { cores - 1 } else { cores };
    workers.clamp(1, WORKERS_MAX) as u32
}

fn read(
    text: &str,
    file: &str,
    dir: &Path,
    environment: &mut dyn Iterator<Item = (String, String)>,
    flags: &[Flag],
) -> Loaded {
    let mut findings = Findings::default();
    let mut root = tree::read(text, file, &mut findings);
    environment::lay_over(&mut root, environment, &mut findings);
    environment::lay_flags_over(&mut root, flags, &mut findings);
    // The parallelism that the system reports honours a cgroup's quota.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut draft = Draft::new(workers_default(cores), dir);
    root.sort_by_key(|entry| FIRST.iter().position(|first| *first == entry.name).unwrap_or(FIRST.len()));
    Walk { draft: &mut draft, findings: &mut findings }.section(&root, "", "");
    match draft.finish(&mut findings) {
        Some(config) => Ok((config, findings.into_sorted())),
        None => Err(findings.into_sorted()),
    }
}

fn read_file(path: &Path) -> Result<String, (u32, String)> {
    let bytes = std::fs::read(path)
        .map_err(|why| (0, format!("the file cannot be read ({why}); give the path of a readable TOML file")))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count() as u32;
        (line, "this is not UTF-8; save the file as UTF-8 text".to_owned())
    })
}

/// A key as it is written in TOML: bare where that is possible.
pub(super) fn bare_or_quoted(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// A key in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.escape_debug())
}

struct Walk<'a> {
    draft: &'a mut Draft,
    findings: &'a mut Findings,
}

impl Walk<'_> {
    /// The keys of one table. `pattern` is its path in the table of keys, `name` what the operator wrote.
    fn section(&mut self, entries: &[Entry], pattern: &str, name: &str) {
        let is_named = lookup::is_named(pattern);
        for entry in entries {
            if is_named {
                self.definition(entry, pattern, name);
                continue;
            }
            let child = lookup::join(name, &bare_or_quoted(&entry.name));
            let child_pattern = lookup::join(pattern, &bare_or_quoted(&entry.name));
            self.key(entry, &child_pattern, &child, pattern);
        }
    }

    fn key(&mut self, entry: &Entry, pattern: &str, name: &str, section: &str) {
        if let Some(key) = lookup::find(pattern) {
            self.draft.places.insert(name.to_owned(), entry.place.clone());
            value::apply(key, name, &entry.node, self.draft, self.findings);
        } else if lookup::is_section(pattern) {
            if let Some(inner) = self.table(entry, name) {
                self.draft.places.insert(name.to_owned(), entry.place.clone());
                self.section(inner, pattern, name);
                self.draft.end_section(name, self.findings);
            }
        } else {
            let nearest = lookup::nearest(section, &entry.name);
            // Neighbours in a definition are shown under the operator's own name for it.
            let own = name.strip_suffix(&bare_or_quoted(&entry.name)).unwrap_or_default();
            let nearest = match nearest.strip_prefix(section) {
                Some(leaf) if section.contains('*') => format!("{own}{}", leaf.trim_start_matches('.')),
                _ => nearest,
            };
            let message = format!("there is no such key; the nearest is `{nearest}`");
            self.findings.error(&entry.place, name, message);
        }
    }

    /// A table under a name of the operator's: `[pipe."…"]`.
    fn definition(&mut self, entry: &Entry, pattern: &str, name: &str) {
        let own = if pattern == "pipe" { quoted(&entry.name) } else { bare_or_quoted(&entry.name) };
        let child = lookup::join(name, &own);
        if let Some(inner) = self.table(entry, &child) {
            self.draft.places.insert(child.clone(), entry.place.clone());
            self.section(inner, &lookup::join(pattern, "*"), &child);
            let ending = Ending { name: &entry.name, key: &child, place: &entry.place };
            self.draft.end(pattern, &ending, self.findings);
        }
    }

    fn table<'e>(&mut self, entry: &'e Entry, name: &str) -> Option<&'e [Entry]> {
        if let Value::Table(inner) = &entry.node.value {
            return Some(inner);
        }
        let found = entry.node.value.kind();
        let message = format!("{found} was found here; write a table: `[{name}]` and its keys below");
        self.findings.error(&entry.place, name, message);
        None
    }
}
