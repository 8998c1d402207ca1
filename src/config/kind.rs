//! What a key is: the columns of the table in `keys`.
//!
//! Invariant: a kind carries the place in the draft that its value goes to, so that a key can neither be read under
//! another name nor be forgotten.

use std::net::SocketAddr;
use std::sync::Arc;

use super::control::KeyDraft;
use super::draft::Draft;
use super::payload::ScopeDraft;
use super::rule::Stand;
use super::types::{Rate, WhenSlow};
use crate::protocol::peer::{Networks, Origins};
use crate::rules::definition::{FilterRule, Guard, Right};
use crate::rules::reference::References;
use crate::rules::schema::Schema;

/// Largest `limits.message_bytes`, in bytes. More: configuration error.
pub(super) const MESSAGE_BYTES_MAX: u32 = 64 << 20;
/// Largest `limits.queue_bytes`, in bytes. More: configuration error.
pub(super) const QUEUE_BYTES_MAX: u32 = 1 << 30;

const _: () = assert!(QUEUE_BYTES_MAX as usize <= crate::bounds::WORKER_QUEUE_BYTES_MAX);
const _: () = assert!((MESSAGE_BYTES_MAX as usize) * 4 <= crate::bounds::WORKER_ASSEMBLY_BYTES_MAX);

/// One key.
pub(super) struct Key {
    /// Full name; `*` for any name.
    pub path: &'static str,
    /// What it accepts, and where that goes.
    pub kind: Kind,
    /// The default as TOML; empty where there is none.
    pub default: &'static str,
    /// One line for the reference.
    pub doc: &'static str,
}

/// Where the value of a key goes.
pub(super) type Field<T> = fn(&mut Draft) -> &mut T;

/// What a key accepts.
pub(super) enum Kind {
    /// A boolean.
    Flag(Field<bool>),
    /// An integer from the first to the second number.
    Number(u32, u32, Field<u32>),
    /// An integer up to the number; 0 stands for the number itself, the most that the server supports.
    Size(u32, Field<u32>),
    /// A string that is not empty.
    Text(Field<Option<String>>),
    /// The same, never quoted in a message.
    Secret(Field<Option<String>>),
    /// `"close"` or `"drop_oldest"`.
    WhenSlow(Field<WhenSlow>),
    /// One `"address:port"`.
    Address(Field<SocketAddr>),
    /// The tables `[[control.key]]`.
    Keys(Field<Vec<KeyDraft>>),
    /// One `"address:port"` or an array of them.
    Addresses(Field<Vec<SocketAddr>>),
    /// One origin, an array of them, or `"*"`.
    Origins(Field<Origins>),
    /// One network or an array of them.
    Networks(Field<Networks>),
    /// `{ per_s, burst }`; `per_s = 0` is off.
    Rate(Field<Option<Rate>>),
    /// An integer from the first to the second number, or none.
    Bound(u32, u32, Field<Option<u32>>),
    /// A large integer from 1 to the number.
    Large(u64, Field<u64>),
    /// A string that is not empty and signs; never quoted in a message.
    Signature(Field<Option<String>>),
    /// An address of the application.
    Url(Field<Option<Box<str>>>),
    /// One name of a header or an array of them.
    Headers(Field<Vec<Box<str>>>),
    /// Who decides.
    Right(Stand, Field<Right>),
    /// The same of an event, which has one only where it is given.
    EventRight(Stand, Field<Option<Right>>),
    /// A list of guards.
    Guards(Field<Vec<Guard>>),
    /// The name of a module.
    Module(Field<Option<usize>>),
    /// What a pipe is bound to.
    Scope(Field<ScopeDraft>),
    /// What each delivery of an event must pass.
    Filter(Field<Option<Box<FilterRule>>>),
    /// A JSON Schema: a file or a table.
    Schema(Field<Option<Arc<Schema>>>),
    /// JSON pointers and whose value stands there.
    References(Field<References>),
}

impl Kind {
    /// What it accepts, in words.
    pub fn accepts(&self) -> String {
        match self {
            Kind::Flag(_) => "`true` or `false`".to_owned(),
            Kind::Number(least, most, _) | Kind::Bound(least, most, _) => {
                format!("an integer from {least} to {most}")
            }
            Kind::Large(most, _) => format!("an integer from 1 to {most}"),
            Kind::Size(most, _) => format!("an integer from 1 to {most}; 0 = {most}"),
            Kind::Text(_) => "a string".to_owned(),
            Kind::Secret(_) => "a string of at least 16 bytes".to_owned(),
            Kind::WhenSlow(_) => "`\"close\"` or `\"drop_oldest\"`".to_owned(),
            Kind::Address(_) => "`\"address:port\"`".to_owned(),
            Kind::Keys(_) => "tables".to_owned(),
            Kind::Addresses(_) => "`\"address:port\"`, or an array of them".to_owned(),
            Kind::Origins(_) => "`\"scheme://host\"`, an array of them, or `\"*\"`".to_owned(),
            Kind::Networks(_) => "`\"address/prefix\"`, or an array of them".to_owned(),
            Kind::Rate(_) => "`{ per_s = number, burst = number }`".to_owned(),
            Kind::Signature(_) => "a string of at most 1024 bytes".to_owned(),
            Kind::Url(_) => "`\"http://…\"` or `\"https://…\"`".to_owned(),
            Kind::Headers(_) => "the name of a header, or an array of them".to_owned(),
            Kind::Right(stand, _) => stand.accepts().to_owned(),
            Kind::EventRight(stand, _) => stand.accepts().to_owned(),
            Kind::Guards(_) => "guards, in order (below)".to_owned(),
            Kind::Module(_) => "the name of a `[module.NAME]`".to_owned(),
            Kind::Scope(_) => "`{ tenant, org, feature }` (below)".to_owned(),
            Kind::Filter(_) => "an expression in quotes".to_owned(),
            Kind::Schema(_) => "the name of a JSON file, or a table".to_owned(),
            Kind::References(_) => "`{ \"/pointer\" = \"tenant\" or \"org\" }`".to_owned(),
        }
    }

    /// Whether the value is text, so that anything an environment variable holds is taken as it is.
    pub fn is_text(&self) -> bool {
        matches!(self, Kind::Text(_) | Kind::Secret(_) | Kind::Signature(_) | Kind::Url(_))
    }
}
