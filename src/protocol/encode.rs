//! What the server sends: JSON messages, written by plain appends, no tree between.
//!
//! Each function appends one whole message to `out`, without a frame around it; [`framed`] puts one in front. An event
//! is the exception, because it is the hot path: [`event_frame`] computes its length first and writes frame header and
//! message into one allocation of exactly that size, shared from then on by all who receive it.
//!
//! Invariant: whatever strings come in, what goes out is valid JSON and UTF-8. `data` and ids are the exception: they
//! are JSON already and are copied verbatim.
//!
//! Source: PROTOCOL.md §3, rulings A6, B21, B25, C7, C25, C28; RFC 8259 §7 for escapes.

pub mod asks;
pub mod presence;

use std::borrow::Cow;

use crate::auth::decision::Rights;
use crate::bounds::GRANTS_LISTED_MAX;
use crate::protocol::codes::Code;
use crate::protocol::frame::{opcode, server_frame, server_header};
use crate::protocol::json::{Scanner, plain_len};
use crate::protocol::message::Id;

/// Who sent an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender<'a> {
    /// A verified user, by id.
    User(&'a str),
    /// The application: `null`.
    Application,
    /// A connection without identity: the empty string (A6).
    Anonymous,
}

/// One event as a whole WebSocket text frame, in one allocation without spare capacity. `data` is JSON, copied
/// verbatim; `ts_ms` is Unix time in milliseconds.
pub fn event_frame(pipe: &str, event: &str, data: &str, sender: Sender<'_>, ts_ms: u64) -> Vec<u8> {
    let mut ts = [0; DIGITS_MAX];
    let ts = digits(ts_ms, &mut ts);
    let sender_len = match sender {
        Sender::User(user) => string_len(user),
        Sender::Application => 4,
        Sender::Anonymous => 2,
    };
    let len = EVENT.iter().map(|part| part.len()).sum::<usize>()
        + string_len(pipe)
        + string_len(event)
        + data.len()
        + sender_len
        + ts.len();
    let (header, header_len) = server_header(opcode::TEXT, len);
    let mut out = Vec::with_capacity(header_len + len);
    out.extend_from_slice(&header[..header_len]);
    out.extend_from_slice(EVENT[0].as_bytes());
    string(&mut out, pipe);
    out.extend_from_slice(EVENT[1].as_bytes());
    string(&mut out, event);
    out.extend_from_slice(EVENT[2].as_bytes());
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(EVENT[3].as_bytes());
    match sender {
        Sender::User(user) => string(&mut out, user),
        Sender::Application => out.extend_from_slice(b"null"),
        Sender::Anonymous => out.extend_from_slice(b"\"\""),
    }
    out.extend_from_slice(EVENT[4].as_bytes());
    out.extend_from_slice(ts);
    out.extend_from_slice(EVENT[5].as_bytes());
    out
}

/// What stands around and between pipe, event, data, sender and ts.
const EVENT: [&str; 6] =
    [r#"{"type":"event","pipe":"#, r#","event":"#, r#","data":"#, r#","sender":"#, r#","ts":"#, "}"];

/// The pipe's name in a frame that [`event_frame`] or [`presence`] wrote. For the rare cases in which nobody else knows it
/// any more.
pub fn pipe_of(frame: &[u8]) -> String {
    let text = server_frame(frame).and_then(|frame| std::str::from_utf8(frame.payload).ok()).unwrap_or_default();
    let behind = text.strip_prefix(EVENT[0]).or_else(|| text.strip_prefix(presence::BEGINNING)).unwrap_or_default();
    let value = Scanner::new(behind).value().ok().and_then(|value| value.string().map(Cow::into_owned));
    value.unwrap_or_default()
}

/// The event's name in a frame that [`event_frame`] wrote.
pub fn event_name(frame: &[u8]) -> String {
    let text = server_frame(frame).and_then(|frame| std::str::from_utf8(frame.payload).ok()).unwrap_or_default();
    let name = || {
        let behind = text.strip_prefix(EVENT[0])?;
        let pipe = Scanner::new(behind).value().ok()?;
        let behind = behind[pipe.text.len()..].strip_prefix(EVENT[1])?;
        Scanner::new(behind).value().ok()?.string().map(Cow::into_owned)
    };
    name().unwrap_or_default()
}

/// The event's data in a frame that [`event_frame`] wrote, as it came; "null" for another frame.
pub fn data_of(frame: &[u8]) -> &str {
    let text = server_frame(frame).and_then(|frame| std::str::from_utf8(frame.payload).ok()).unwrap_or_default();
    let data = || {
        let behind = text.strip_prefix(EVENT[0])?;
        let pipe = Scanner::new(behind).value().ok()?;
        let behind = behind[pipe.text.len()..].strip_prefix(EVENT[1])?;
        let event = Scanner::new(behind).value().ok()?;
        let behind = behind[event.text.len()..].strip_prefix(EVENT[2])?;
        // What follows the data holds no string with a bare quote, so the last one is ours, whatever the data holds.
        Some(&behind[..behind.rfind(EVENT[3])?])
    };
    data().unwrap_or("null")
}

/// Whatever `build` appends, as one whole WebSocket text frame.
pub fn framed(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // Room for the header of the short messages that most replies are; a longer header moves the message once.
    const ROOM: usize = 2;
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&[0; ROOM]);
    build(&mut out);
    let (header, header_len) = server_header(opcode::TEXT, out.len().saturating_sub(ROOM));
    out.splice(..ROOM.min(out.len()), header[..header_len].iter().copied());
    out
}

/// The first message of a connection, apart from its grants.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// Id of the connection.
    pub connection: &'a str,
    /// (id, display name) of the verified user; `None` for an anonymous connection (B21).
    pub user: Option<(&'a str, Option<&'a str>)>,
    /// When the connection will end, Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// Seconds between two pings of the server.
    pub ping_s: u32,
    /// Bytes of the largest message that is taken.
    pub message_bytes: u32,
    /// Subscriptions that the connection may hold at one time; 0 for no limit.
    pub subscriptions: u32,
    /// Bytes that may wait to be sent to it; 0 for no limit.
    pub queue_bytes: u32,
}

/// `welcome`. `pipes` are all explicit grants but revoked ones; the first 1,000 are listed (B25).
pub fn welcome<'p>(out: &mut Vec<u8>, welcome: &Welcome<'_>, pipes: impl IntoIterator<Item = (&'p str, Rights)>) {
    raw(out, r#"{"type":"welcome","protocol":1,"connection":"#);
    string(out, welcome.connection);
    match welcome.user {
        Some((id, name)) => {
            raw(out, r#","user":{"id":"#);
            string(out, id);
            raw(out, r#","name":"#);
            match name {
                Some(name) => string(out, name),
                None => raw(out, "null"),
            }
            raw(out, "}");
        }
        None => raw(out, r#","user":null"#),
    }
    grants(out, pipes, welcome.expires_at_ms);
    number(out, r#","ping_s":"#, welcome.ping_s.into());
    number(out, r#","limits":{"message_bytes":"#, welcome.message_bytes.into());
    number(out, r#","subscriptions":"#, welcome.subscriptions.into());
    number(out, r#","queue_bytes":"#, welcome.queue_bytes.into());
    raw(out, "}}");
}

/// `reply` with `ok:true` and nothing else.
pub fn reply_ok(out: &mut Vec<u8>, id: Id<'_>) {
    reply(out, id);
    raw(out, r#","ok":true}"#);
}

/// `reply` to `refresh`: the grants as they are now (C25, B25).
pub fn reply_refresh<'p>(
    out: &mut Vec<u8>,
    id: Id<'_>,
    pipes: impl IntoIterator<Item = (&'p str, Rights)>,
    expires_at_ms: Option<u64>,
) {
    reply(out, id);
    raw(out, r#","ok":true"#);
    grants(out, pipes, expires_at_ms);
    raw(out, "}");
}

/// `reply` to `action`: `result` is JSON, copied verbatim.
pub fn reply_result(out: &mut Vec<u8>, id: Id<'_>, result: &str) {
    reply(out, id);
    raw(out, r#","ok":true,"result":"#);
    raw(out, result);
    raw(out, "}");
}

/// `reply` to `push`: deliveries.
pub fn reply_delivered(out: &mut Vec<u8>, id: Id<'_>, delivered: u64) {
    reply(out, id);
    number(out, r#","ok":true,"delivered":"#, delivered);
    raw(out, "}");
}

/// `reply` with `ok:false` and a code that may be the application's: `[A-Z][A-Z0-9_]{0,63}`.
pub fn reply_refused(out: &mut Vec<u8>, id: Id<'_>, code: &str, error: &str, retry_after_ms: Option<u64>) {
    reply(out, id);
    raw(out, ",");
    failure(out, code, error, retry_after_ms);
}

/// `reply` with `ok:false`. `error` is a sentence; [`Code::text`] where nothing more exact is known.
pub fn reply_error(out: &mut Vec<u8>, id: Id<'_>, code: Code, error: &str, retry_after_ms: Option<u64>) {
    reply_refused(out, id, code.name(), error, retry_after_ms);
}

/// `reply` to a batch: `ok:true` and a result for each pipe (C7). Call [`BatchReply::end`] last, and name no pipe twice.
pub struct BatchReply<'o> {
    out: &'o mut Vec<u8>,
    separator: &'static str,
}

impl<'o> BatchReply<'o> {
    /// Begins the message.
    pub fn begin(out: &'o mut Vec<u8>, id: Id<'_>) -> BatchReply<'o> {
        reply(out, id);
        raw(out, r#","ok":true,"results":"#);
        BatchReply { out, separator: "{" }
    }

    /// What was asked for is done for this pipe.
    pub fn ok(&mut self, pipe: &str) {
        self.key(pipe);
        raw(self.out, r#"{"ok":true}"#);
    }

    /// It is not. The code may be the application's: `[A-Z][A-Z0-9_]{0,63}`.
    pub fn error(&mut self, pipe: &str, code: &str, error: &str, retry_after_ms: Option<u64>) {
        self.key(pipe);
        raw(self.out, "{");
        failure(self.out, code, error, retry_after_ms);
    }

    /// Completes the message.
    pub fn end(self) {
        raw(self.out, if self.separator == "{" { "{}}" } else { "}}" });
    }

    fn key(&mut self, pipe: &str) {
        raw(self.out, self.separator);
        self.separator = ",";
        string(self.out, pipe);
        raw(self.out, ":");
    }
}

/// `pong`, with the id of the `ping` if it had one (A10).
pub fn pong(out: &mut Vec<u8>, id: Option<Id<'_>>) {
    raw(out, r#"{"type":"pong""#);
    if let Some(id) = id {
        raw(out, r#","id":"#);
        raw(out, id.token());
    }
    raw(out, "}");
}

/// `system` `throttled`: messages are refused until this many milliseconds have passed.
pub fn throttled(out: &mut Vec<u8>, retry_after_ms: u64) {
    number(out, r#"{"type":"system","event":"throttled","retry_after_ms":"#, retry_after_ms);
    raw(out, "}");
}

/// `system` `lagged`: `dropped` events of the pipe were left out just here (C33).
pub fn lagged(out: &mut Vec<u8>, pipe: &str, dropped: u64) {
    raw(out, r#"{"type":"system","event":"lagged","pipe":"#);
    string(out, pipe);
    number(out, r#","dropped":"#, dropped);
    raw(out, "}");
}

/// `system` `draining`: the connection will be closed; connect again after a random part of this time.
pub fn draining(out: &mut Vec<u8>, reconnect_in_ms: u64) {
    number(out, r#"{"type":"system","event":"draining","reconnect_in_ms":"#, reconnect_in_ms);
    raw(out, "}");
}

/// `system` `expiring`: the connection ends in this many seconds (C29).
pub fn expiring(out: &mut Vec<u8>, in_s: u64) {
    number(out, r#"{"type":"system","event":"expiring","in_s":"#, in_s);
    raw(out, "}");
}

/// `system` `pipe_revoked`: the pipe, or what the pattern matches, was taken away (D1).
pub fn pipe_revoked(out: &mut Vec<u8>, pipe: &str) {
    raw(out, r#"{"type":"system","event":"pipe_revoked","pipe":"#);
    string(out, pipe);
    raw(out, "}");
}

/// `system` `all_pipes_revoked`: every pipe was taken away.
pub fn all_pipes_revoked(out: &mut Vec<u8>) {
    raw(out, r#"{"type":"system","event":"all_pipes_revoked"}"#);
}

/// `system` `pipe_restored`: what the revocation of this text took is decided anew; subscribe again (D5).
pub fn pipe_restored(out: &mut Vec<u8>, pipe: &str) {
    raw(out, r#"{"type":"system","event":"pipe_restored","pipe":"#);
    string(out, pipe);
    raw(out, "}");
}

/// `system` `grants_changed`: all explicit grants as they are now, and the names that came or changed and that went (B25).
pub fn grants_changed<'p>(
    out: &mut Vec<u8>,
    pipes: impl IntoIterator<Item = (&'p str, Rights)>,
    added: &[Box<str>],
    removed: &[Box<str>],
) {
    raw(out, r#"{"type":"system","event":"grants_changed""#);
    grants(out, pipes, None);
    names(out, r#","added":["#, added);
    names(out, r#","removed":["#, removed);
    raw(out, "}");
}

fn names(out: &mut Vec<u8>, before: &str, names: &[Box<str>]) {
    raw(out, before);
    for (place, name) in names.iter().take(GRANTS_LISTED_MAX).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        string(out, name);
    }
    raw(out, "]");
}

/// A `push` as a whole WebSocket text frame. `data` is JSON, copied verbatim; `ts_ms` is Unix time in milliseconds.
pub fn push_frame(event: &str, data: &str, sender: Sender<'_>, ts_ms: u64) -> Vec<u8> {
    framed(|out| {
        raw(out, r#"{"type":"push","event":"#);
        string(out, event);
        raw(out, r#","data":"#);
        raw(out, data);
        raw(out, r#","sender":"#);
        match sender {
            Sender::User(user) => string(out, user),
            Sender::Application => raw(out, "null"),
            Sender::Anonymous => string(out, ""),
        }
        number(out, r#","ts":"#, ts_ms);
        raw(out, "}");
    })
}

/// `system` `unsubscribed`: a subscription was ended, `reason` being `refresh`, `reload` or `server`.
pub fn unsubscribed(out: &mut Vec<u8>, pipe: &str, reason: &str) {
    raw(out, r#"{"type":"system","event":"unsubscribed","pipe":"#);
    string(out, pipe);
    raw(out, r#","reason":"#);
    string(out, reason);
    raw(out, "}");
}

/// Any string as a JSON string, quotes included.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_len(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { break };
        match short_escape(byte) {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None => {
                let digit = |nibble: u8| char::from_digit(nibble.into(), 16).map_or(b'0', |digit| digit as u8);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
}

/// How many bytes [`string`] appends.
fn string_len(text: &str) -> usize {
    let mut rest = text.as_bytes();
    let mut len = 2 + rest.len();
    loop {
        let plain = plain_len(rest);
        let Some(&byte) = rest.get(plain) else {
            return len;
        };
        len += if short_escape(byte).is_some() { 1 } else { 5 };
        rest = &rest[plain + 1..];
    }
}

/// The letter after the backslash, for those that have one (RFC 8259 §7).
fn short_escape(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        0x08 => Some(b'b'),
        0x0c => Some(b'f'),
        _ => None,
    }
}

/// The beginning of every reply.
fn reply(out: &mut Vec<u8>, id: Id<'_>) {
    raw(out, r#"{"type":"reply","id":"#);
    raw(out, id.token());
}

/// The members of a failed reply or result, and the brace that ends it.
fn failure(out: &mut Vec<u8>, code: &str, error: &str, retry_after_ms: Option<u64>) {
    raw(out, r#""ok":false,"code":"#);
    string(out, code);
    raw(out, r#","error":"#);
    string(out, error);
    if let Some(retry_after_ms) = retry_after_ms {
        number(out, r#","retry_after_ms":"#, retry_after_ms);
    }
    raw(out, "}");
}

/// The members `pipes`, `pipes_truncated?` and `expires_at?`.
fn grants<'p>(out: &mut Vec<u8>, pipes: impl IntoIterator<Item = (&'p str, Rights)>, expires_at_ms: Option<u64>) {
    raw(out, r#","pipes":{"#);
    let mut pipes = pipes.into_iter();
    for (i, (pipe, rights)) in pipes.by_ref().take(GRANTS_LISTED_MAX).enumerate() {
        if i > 0 {
            raw(out, ",");
        }
        string(out, pipe);
        for (name, right) in [
            (r#":{"subscribe":"#, Rights::SUBSCRIBE),
            (r#","publish":"#, Rights::PUBLISH),
            (r#","presence":"#, Rights::PRESENCE),
        ] {
            raw(out, name);
            raw(out, if rights.contains(right) { "true" } else { "false" });
        }
        raw(out, "}");
    }
    raw(out, "}");
    if pipes.next().is_some() {
        raw(out, r#","pipes_truncated":true"#);
    }
    if let Some(expires_at_ms) = expires_at_ms {
        number(out, r#","expires_at":"#, expires_at_ms);
    }
}

fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// `before`, then the number in decimal digits.
fn number(out: &mut Vec<u8>, before: &str, value: u64) {
    raw(out, before);
    out.extend_from_slice(digits(value, &mut [0; DIGITS_MAX]));
}

/// Decimal digits of the largest `u64`.
const DIGITS_MAX: usize = 20;

fn digits(mut value: u64, buffer: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        buffer[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &buffer[start..];
        }
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
