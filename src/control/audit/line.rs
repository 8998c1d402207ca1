//! A record as one line of JSON (G3).
//!
//! Invariant: whatever the strings of a record hold, the line is one valid JSON object and its only newline is its last
//! byte. `ts` is in Unix milliseconds.

use std::net::IpAddr;

use serde::Serialize;

use crate::shard::record::{Kind, Particulars, Record};

/// Why some are missing.
const DROPPED: &str = "audit records were dropped before this one";

/// The fields in the order in which they are written.
#[derive(Serialize)]
struct Line<'a> {
    ts: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipe: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(flatten)]
    said: Said<'a>,
    #[serde(skip_serializing_if = "is_one")]
    count: u64,
    #[serde(skip_serializing_if = "is_none")]
    dropped: u64,
}

/// What a call said.
#[derive(Default, Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_before_s: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    except_session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    except_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconnect: Option<bool>,
}

impl Said<'_> {
    fn of(said: &Particulars) -> Said<'_> {
        Said {
            session: said.session.as_deref(),
            token_id: said.token_id.as_deref(),
            issued_before_s: said.issued_before_s,
            except_session: said.except_session.as_deref(),
            except_token: said.except_token.as_deref(),
            ttl_s: said.ttl_s,
            until: said.until,
            reconnect: said.reconnect,
        }
    }
}

/// Appends the line of a record.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    append(
        &Line {
            ts: record.ts_ms,
            kind: record.kind.name(),
            code: record.code.map(|code| code.name()),
            close: record.close.map(|close| close.number()),
            user: record.user.as_deref(),
            tenant: record.tenant.as_deref(),
            connection: record.connection.as_deref(),
            ip: record.ip,
            pipe: record.pipe.as_deref(),
            key: record.key.as_deref(),
            reason: record.reason.as_deref(),
            said: record.particulars.as_deref().map(Said::of).unwrap_or_default(),
            count: record.count,
            dropped: 0,
        },
        out,
    );
}

/// Appends the line that says how many records are missing here.
pub(super) fn write_dropped(ts_ms: u64, dropped: u64, out: &mut Vec<u8>) {
    append(
        &Line {
            ts: ts_ms,
            kind: Kind::InternalError.name(),
            code: None,
            close: None,
            user: None,
            tenant: None,
            connection: None,
            ip: None,
            pipe: None,
            key: None,
            reason: Some(DROPPED),
            said: Said::default(),
            count: 1,
            dropped,
        },
        out,
    );
}

fn append(line: &Line<'_>, out: &mut Vec<u8>) {
    // Numbers and strings into memory: neither can fail.
    if serde_json::to_writer(&mut *out, line).is_ok() {
        out.push(b'\n');
    }
}

fn is_one(count: &u64) -> bool {
    *count <= 1
}

fn is_none(count: &u64) -> bool {
    *count == 0
}
