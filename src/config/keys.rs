//! The one table of configuration keys, in three files.
//!
//! From it come: which keys are known, what each accepts and where its value goes, which key a misspelt one was meant
//! to be, and the reference in `docs/configuration.md`. A path is the key's full name; `*` stands for any name.
//! Defaults stand here as text and in `types` and `definitions` as values; a test holds them equal.

use super::kind::{Key, Kind};

mod limits;
mod rules;
mod server;

/// Every key, in the order of the reference.
pub(super) fn keys() -> impl Iterator<Item = &'static Key> {
    server::SERVER.iter().chain(limits::LIMITS).chain(rules::RULES)
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}
