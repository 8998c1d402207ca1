//! What is wrong with a configuration, and where.
//!
//! Invariant: a finding names a place that the operator can open (file and line, an environment variable or a flag),
//! the key, and what to write instead. No message quotes the value of a secret.

use std::fmt;
use std::sync::Arc;

use crate::rules::definition;

/// Whether the configuration can be used as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is used; somebody should look at this.
    Warning,
}

/// One thing that is wrong, or worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file, the environment variable or the flag that the value came from.
    pub file: String,
    /// Line of the file, from 1; 0 where there is none (environment, flags, defaults, a file that cannot be read).
    pub line: u32,
    /// The full key, as in `limits.publish`; empty where no key could be made out.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Finding {
    /// Whether the configuration is refused because of this.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `file:line: key: message`, without the parts that are not known.
impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.file)?;
        if self.line > 0 {
            write!(out, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(out, ": {}", self.key)?;
        }
        write!(out, ": {}", self.message)
    }
}

/// Where a key was given.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// File, environment variable or flag.
    pub file: Arc<str>,
    /// Line from 1; 0 where there is none.
    pub line: u32,
}

impl Place {
    pub fn new(file: &str) -> Place {
        Place { file: file.into(), line: 0 }
    }

    pub fn at(&self, line: u32) -> Place {
        Place { file: Arc::clone(&self.file), line }
    }

    /// The place of `key`, for what outlives the loading.
    pub fn of(&self, key: &str) -> definition::Place {
        definition::Place { file: Arc::clone(&self.file), line: self.line, key: key.into() }
    }
}

impl From<&definition::Place> for Place {
    fn from(place: &definition::Place) -> Place {
        Place { file: Arc::clone(&place.file), line: place.line }
    }
}

/// Findings in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    pub fn error(&mut self, place: &Place, key: &str, message: impl Into<String>) {
        self.add(Severity::Error, place, key, message.into());
    }

    pub fn warning(&mut self, place: &Place, key: &str, message: impl Into<String>) {
        self.add(Severity::Warning, place, key, message.into());
    }

    pub fn has_errors(&self) -> bool {
        self.list.iter().any(Finding::is_error)
    }

    /// All of them, in the order of the lines; what has no line stands last.
    pub fn into_sorted(mut self) -> Vec<Finding> {
        self.list.sort_by_key(|finding| if finding.line == 0 { u32::MAX } else { finding.line });
        self.list
    }

    fn add(&mut self, severity: Severity, place: &Place, key: &str, message: String) {
        let (file, line) = (place.file.to_string(), place.line);
        let finding = Finding { severity, file, line, key: key.to_owned(), message };
        if !self.list.contains(&finding) {
            self.list.push(finding);
        }
    }
}
