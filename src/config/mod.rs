//! Text → typed configuration.
//!
//! ```text
//! file ──► tree ──┐                         keys (the one table) ──► reference (docs/configuration.md)
//! environment ────┼─► load (the walk) ──► value ──► draft ──► lint ──► types::Config
//! flags ──────────┘        │                          │
//!                          └────────► findings ◄──────┘
//! ```
//!
//! Of rules, `rule`, `guards`, `call` and `payload` read single values, `definitions` puts them together.
//!
//! Invariant: a [`Config`] is complete and in range, or there is none and the [`Finding`]s say why, all of them. Only
//! `types` is PURE; `load`, `draft`, `payload`, `webhook` and `control` read files.

mod call;
mod control;
mod definitions;
mod draft;
mod environment;
mod finding;
mod guards;
mod keys;
mod kind;
mod lint;
mod load;
mod lookup;
mod payload;
mod reference;
mod rule;
mod shadow;
mod table;
mod tree;
mod types;
mod value;
mod webhook;

pub use control::{Allow, ApiKey, ApiRight, Control};
pub use finding::{Finding, Severity};
pub use load::{Flag, Loaded, load, load_with_flags, parse};
pub use reference::reference;
pub use types::*;

#[cfg(test)]
mod tests;
