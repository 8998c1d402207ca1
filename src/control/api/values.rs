//! The single values of requests: names, ids, times. Each is checked once, when it is read, and declares in its schema what it
//! is checked for.
//!
//! Invariant: a value of these types is in range; nobody checks it again. JSON Schema counts characters, the server bytes;
//! where that differs (ids) the description says so.
//!
//! Source: rulings C14, D9, E10, E15.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::bounds::{EVENT_NAME_BYTES_MAX, IDENTITY_BYTES_MAX, PIPE_NAME_BYTES_MAX};
use crate::protocol::names::{is_event_name, is_pattern, is_pipe_name};
use crate::shard::command::Person;
use crate::shard::revocation::FOR_EVER;

/// Entries in one list of connections or pipes. More: as many as these (E10).
const LIMIT_MAX: u16 = 1000;
/// Entries in one list where no limit is given.
pub(super) const LIMIT_DEFAULT: u16 = 100;
/// Longest time limit, a hundred years, in seconds. More: for ever.
const TTL_S_MAX: f64 = 3_155_760_000.0;
/// Latest cut-off, the end of the year 9999, in Unix seconds. More: 400.
const UNIX_S_MAX: i64 = 253_402_300_799;

/// The name of a pipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct PipeName(pub String);

/// The name of a pipe, or a pattern.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct PipePattern(pub String);

/// The name of an event.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct EventName(pub String);

/// The name of a queue.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct QueueName(pub String);

/// An id of the application or of the server: user, tenant, role, session, token, connection.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Id(pub String);

/// The name of a connection, as `next` of a list tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct ConnectionName(pub String);

/// A time limit, in seconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Box<RawValue>")]
pub(super) struct TtlS(pub f64);

/// A moment, in Unix seconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "f64")]
pub(super) struct UnixS(pub i64);

/// How many entries to list.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Limit(pub u16);

/// A parameter that is switched on by being there: `?count`, `?count=1`, `?count=true`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Flag(pub bool);

impl TryFrom<String> for PipeName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<PipeName, Self::Error> {
        let wrong = "a pipe's name is 1 to 200 bytes of printable ASCII without space, `*`, `{` and `}`";
        if is_pipe_name(&text) { Ok(PipeName(text)) } else { Err(wrong) }
    }
}

impl TryFrom<String> for PipePattern {
    type Error = &'static str;

    fn try_from(text: String) -> Result<PipePattern, Self::Error> {
        let wrong = "a pipe's name or a pattern is 1 to 200 bytes of printable ASCII without space, `{` and `}`";
        if is_pipe_name(&text) || is_pattern(&text) { Ok(PipePattern(text)) } else { Err(wrong) }
    }
}

impl TryFrom<String> for EventName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<EventName, Self::Error> {
        let wrong = "an event's name is 1 to 100 bytes of printable ASCII without space";
        if is_event_name(&text) { Ok(EventName(text)) } else { Err(wrong) }
    }
}

impl TryFrom<String> for QueueName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<QueueName, Self::Error> {
        let wrong = "a queue's name is 1 to 100 bytes of printable ASCII without space";
        if is_event_name(&text) { Ok(QueueName(text)) } else { Err(wrong) }
    }
}

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Id, Self::Error> {
        if (1..=IDENTITY_BYTES_MAX).contains(&text.len()) { Ok(Id(text)) } else { Err("an id is 1 to 256 bytes long") }
    }
}

impl TryFrom<String> for ConnectionName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<ConnectionName, Self::Error> {
        let digits = |part: &str, most: usize, is_digit: fn(&u8) -> bool| {
            (1..=most).contains(&part.len()) && part.as_bytes().iter().all(is_digit)
        };
        let parts: Vec<&str> = text.split('-').collect();
        let known = matches!(parts.as_slice(), ["0", worker, slot, generation]
            if digits(worker, 2, u8::is_ascii_digit)
                && digits(slot, 9, u8::is_ascii_digit)
                && digits(generation, 16, |byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)));
        if known { Ok(ConnectionName(text)) } else { Err("`after` is the `next` of the list before") }
    }
}

impl TryFrom<Box<RawValue>> for TtlS {
    type Error = &'static str;

    /// From the number as it is written: one beyond every double is as good as any that is too large (E15).
    fn try_from(text: Box<RawValue>) -> Result<TtlS, Self::Error> {
        match text.get().parse::<f64>() {
            Ok(seconds) if seconds > 0.0 => Ok(TtlS(seconds)),
            _ => Err("a time limit is a number above 0, in seconds"),
        }
    }
}

impl TryFrom<f64> for UnixS {
    type Error = &'static str;

    /// `1e3` and `1000.0` are whole numbers to JSON Schema, so they are to us.
    fn try_from(seconds: f64) -> Result<UnixS, Self::Error> {
        let in_range = (0.0..=UNIX_S_MAX as f64).contains(&seconds) && seconds.fract() == 0.0;
        let wrong = "a moment is a whole number of Unix seconds up to the year 9999";
        if in_range { Ok(UnixS(seconds as i64)) } else { Err(wrong) }
    }
}

impl TryFrom<String> for Limit {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Limit, Self::Error> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Digits that fit no number are more than the most.
        match text.parse().unwrap_or(u64::MAX) {
            limit @ 1.. if digits => Ok(Limit(u16::try_from(limit).map_or(LIMIT_MAX, |limit| limit.min(LIMIT_MAX)))),
            _ => Err("a limit is a whole number from 1"),
        }
    }
}

impl TryFrom<String> for Flag {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Flag, Self::Error> {
        match &*text {
            "" | "1" | "true" => Ok(Flag(true)),
            "0" | "false" => Ok(Flag(false)),
            _ => Err("it is true or false"),
        }
    }
}

impl TtlS {
    /// When it ends, Unix milliseconds; at least one after `now_ms`.
    pub fn end_ms(&self, now_ms: u64) -> u64 {
        if self.0 > TTL_S_MAX {
            return FOR_EVER;
        }
        // In range: a hundred years are 3.2e12 ms.
        now_ms.saturating_add((self.0 * 1000.0).ceil() as u64)
    }
}

impl Id {
    /// As it is handed on.
    pub fn into_arc(self) -> Arc<str> {
        self.0.into()
    }
}

/// A user, of one tenant or (without `tenant`) of every one.
pub(super) fn person(user: Id, tenant: Option<Id>) -> Person {
    Person { tenant: tenant.map(Id::into_arc), user: user.into_arc() }
}

// ---- schemas -----------------------------------------------------------------------------------------------------

macro_rules! schema {
    ($value:ident, $description:literal, $object:expr) => {
        impl PartialSchema for $value {
            fn schema() -> RefOr<Schema> {
                $object.description(Some($description)).into()
            }
        }

        impl ToSchema for $value {}
    };
}

fn text(bytes_max: usize, pattern: Option<&str>, example: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(bytes_max));
    text.pattern(pattern).examples([example])
}

fn of(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

schema!(
    PipeName,
    "Name of a pipe: printable ASCII without space, `*`, `{` and `}`",
    text(PIPE_NAME_BYTES_MAX, Some("^[!-)+-z|~]+$"), "chat:lobby")
);
schema!(
    PipePattern,
    "Name of a pipe, or a pattern: `*` stands for one or more characters other than `:`, `**` for one or more of any",
    text(PIPE_NAME_BYTES_MAX, Some("^[!-z|~]+$"), "chat:*")
);
schema!(
    EventName,
    "Name of an event: printable ASCII without space",
    text(EVENT_NAME_BYTES_MAX, Some("^[!-~]+$"), "message")
);
schema!(
    QueueName,
    "Name of a queue: printable ASCII without space",
    text(EVENT_NAME_BYTES_MAX, Some("^[!-~]+$"), "moderationJobs")
);
schema!(
    Id,
    "An id: 1 to 256 bytes of UTF-8 (JSON Schema can only say characters)",
    text(IDENTITY_BYTES_MAX, None, "ada")
);
schema!(
    ConnectionName,
    "The name of a connection, as `next` of a list tells it",
    text(32, Some("^0-[0-9]{1,2}-[0-9]{1,9}-[0-9a-f]{1,16}$"), "0-1-17-9f3c")
);
schema!(
    TtlS,
    "Seconds, above 0; more than a hundred years are for ever",
    of(Type::Number).exclusive_minimum(Some(0)).examples([3600])
);
schema!(UnixS, "Unix seconds", of(Type::Integer).minimum(Some(0)).maximum(Some(UNIX_S_MAX)));
schema!(
    Limit,
    "How many entries to list; 100 where it is absent, and at most 1,000 whatever it says",
    of(Type::Integer).minimum(Some(1)).default(Some(LIMIT_DEFAULT.into()))
);
schema!(
    Flag,
    "Whether; `1` and `0` are as good, and its name alone, without `=`, is true",
    AnyOfBuilder::new().item(of(Type::Boolean)).item(of(Type::String).enum_values(Some(["0", "1"])))
);
