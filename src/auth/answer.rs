//! What the application answers: to authorize, to a rule that is its own, and to an action.
//!
//! Invariant: what these functions return came whole out of one JSON text of the agreed form; anything else is an error
//! and never an allow. An error holds nothing of the answer but what the application meant for the client. Bounds on
//! the size of an answer and on its time stand where it is received.
//!
//! Source: PROTOCOL.md §1 and §5, rulings A1, B13–B15, B19, D10, F14.

use serde_json::value::RawValue;

use super::claims::{self, Fields, IdentityFields, Malformed, Slot, fields, optional};
use super::decision::Decision;
use super::token::EXPIRES_AT_MS_MAX;
use crate::bounds::RULING_BYTES_MAX;
use crate::protocol::codes::Code;
use crate::shard::call::{Refused, Ruling};

/// Bytes of a refusal's sentence. Longer: it is cut.
const MESSAGE_BYTES_MAX: usize = 1_024;
/// Bytes of a refusal's code.
const CODE_BYTES_MAX: usize = 64;

/// Who the body of a 200 from the authorize webhook says the connection is; `None` for `null`, which refuses it. It was
/// asked at `asked_ms` (Unix milliseconds), which is when what it grants was issued (D10). Whether `expires_at` is past is
/// for the caller to see (B18).
///
/// # Errors
/// [`Malformed`] for anything that is not exactly as agreed, an empty body too (B13).
pub fn authorize(body: &str, asked_ms: u64) -> Result<Option<Decision>, Malformed> {
    if body.trim_matches(is_white) == "null" {
        return Ok(None);
    }
    let answer: Answer = claims::object(body)?;
    let identity = match (answer.user, answer.user_id) {
        (Some(user), None) => {
            let user: User = claims::object(user.get()).map_err(|_| Malformed::Field("user"))?;
            let id = claims::id(user.id.ok_or(Malformed::Missing("user.id"))?, "user.id")?;
            user.identity.identity(&id)?
        }
        (None, Some(id)) => IdentityFields::default().identity(&claims::id(id, "userId")?)?,
        (None, None) => return Err(Malformed::Missing("user")),
        // Two answers to who it is.
        (Some(_), Some(_)) => return Err(Malformed::Field("userId")),
    };
    Ok(Some(Decision {
        identity,
        grants: answer.pipes.map(claims::grants).transpose()?.unwrap_or_default(),
        issued_at_ms: i64::try_from(asked_ms).ok(),
        expires_at_ms: optional(answer.expires_at, "expires_at", integer_ms)?,
        session: optional(answer.session, "session", claims::id)?,
        token_id: optional(answer.token_id, "token_id", claims::id)?,
        limits: optional(answer.limits, "limits", claims::limits)?.map(Box::new),
    }))
}

/// What the body of a 200 says to a rule or a guard: `{"allow":bool,"context":{…}?}`.
///
/// # Errors
/// A sentence for the operator: the application did not answer the question, which refuses.
pub fn ruling(body: &str) -> Result<Ruling, String> {
    if body.len() > RULING_BYTES_MAX {
        return Err(format!("the answer has {} bytes; {RULING_BYTES_MAX} are read", body.len()));
    }
    let fields: RulingFields = claims::object(body).map_err(|malformed| malformed.to_string())?;
    let allow = match fields.allow.map(RawValue::get) {
        Some("true") => true,
        Some("false") => false,
        Some(_) => return Err("`allow` is neither true nor false".to_owned()),
        None => return Err("`allow` is missing".to_owned()),
    };
    let context = optional(fields.context, "context", |raw, field| match raw.get().starts_with('{') {
        true => claims::verbatim(raw, field),
        false => Err(Malformed::Field(field)),
    });
    Ok(Ruling { allow, context: context.map_err(|malformed| malformed.to_string())? })
}

/// What an answer to an action means for the client: the result, one JSON value as it came, or a refusal (F14).
///
/// # Errors
/// The refusal; with a `fault` where the application did not do as agreed or failed.
pub fn action(status: u16, body: &[u8]) -> Result<Box<str>, Refused> {
    let read = std::str::from_utf8(body).map(|text| text.trim_matches(is_white));
    match (status, read) {
        (200..=299, Ok("")) => Ok("null".into()),
        (204, _) => Ok("null".into()),
        (200..=299, Ok(text)) => result(text),
        (200..=299, Err(_)) => Err(faulty(Code::Internal, format!("{status} with a body that is not UTF-8"))),
        (400..=499, read) => Err(refusal(status, read.unwrap_or_default())),
        _ => Err(faulty(Code::Unavailable, format!("status {status}"))),
    }
}

fn result(text: &str) -> Result<Box<str>, Refused> {
    let no_json = |_| faulty(Code::Internal, "a body that is not JSON".to_owned());
    let raw: &RawValue = serde_json::from_str(text).map_err(no_json)?;
    if text.starts_with('{') {
        let fields: ErrorFields = claims::object(text)
            .map_err(|_| faulty(Code::Internal, "an answer in which `error` stands twice".to_owned()))?;
        if let Some(error) = fields.error.filter(|raw| raw.get().starts_with('{')) {
            let (code, message) = error_of(error);
            let unnamed =
                || faulty(Code::Internal, "an `error` whose `code` is not of the form [A-Z][A-Z0-9_]{0,63}".to_owned());
            let code = code.ok_or_else(unnamed)?;
            return Err(Refused { message: message.unwrap_or_else(|| usual(&code).into()), code, fault: None });
        }
    }
    claims::verbatim(raw, "result").map_err(|malformed| faulty(Code::Internal, malformed.to_string()))
}

/// A 4xx: what its body says, and where that says nothing, what the status means.
fn refusal(status: u16, text: &str) -> Refused {
    let fields: ErrorFields = claims::object(text).unwrap_or_default();
    let (code, message) = fields.error.map(error_of).unwrap_or_default();
    let meant = match status {
        401 => Code::Unauthenticated,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        429 => Code::RateLimited,
        _ => Code::Invalid,
    };
    let code = code.unwrap_or_else(|| meant.name().into());
    Refused { message: message.unwrap_or_else(|| usual(&code).into()), code, fault: None }
}

/// The sentence for a code that came without one.
fn usual(code: &str) -> &'static str {
    let own = Code::ALL.iter().find(|own| own.name() == code);
    own.map_or("The application refused this", |own| own.text())
}

/// Code and sentence of an `error` object, each where it is as it must be.
fn error_of(raw: &RawValue) -> (Option<Box<str>>, Option<Box<str>>) {
    let fields: RefusalFields = claims::object(raw.get()).unwrap_or_default();
    let text = |slot: Slot<'_>, field| slot.and_then(|raw| claims::text(raw, field).ok().map(|text| text.into_owned()));
    let code = text(fields.code, "code").filter(|code| is_code(code)).map(Box::from);
    let message = text(fields.message, "message").map(|mut message| {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.into_boxed_str()
    });
    (code, message)
}

fn faulty(code: Code, fault: String) -> Refused {
    Refused { code: code.name().into(), message: code.text().into(), fault: Some(fault.into()) }
}

/// `[A-Z][A-Z0-9_]{0,63}`
pub fn is_code(text: &str) -> bool {
    let further = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= CODE_BYTES_MAX && text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(further)
}

/// An integer, written as one, of milliseconds; one out of range means the nearest that is in it.
fn integer_ms(raw: &RawValue, field: &'static str) -> Result<u64, Malformed> {
    let text = raw.get();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Field(field));
    }
    if text.starts_with('-') {
        return Ok(0);
    }
    Ok(digits.parse().unwrap_or(EXPIRES_AT_MS_MAX).min(EXPIRES_AT_MS_MAX))
}

/// White space of JSON.
fn is_white(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\r' | '\t')
}

fields! {
    /// The answer of authorize.
    Answer {
        user: "user", user_id: "userId", pipes: "pipes", expires_at: "expires_at", session: "session",
        token_id: "token_id", limits: "limits"
    }
}

/// Its `user`.
#[derive(Default)]
struct User<'a> {
    id: Slot<'a>,
    identity: IdentityFields<'a>,
}

impl<'a> Fields<'a> for User<'a> {
    fn slot(&mut self, name: &str) -> Option<&mut Slot<'a>> {
        if name == "id" { Some(&mut self.id) } else { self.identity.slot(name) }
    }
}

fields! {
    /// The answer to a rule.
    RulingFields { allow: "allow", context: "context" }
}

fields! {
    /// The answer to an action, as far as it is a refusal.
    ErrorFields { error: "error" }
}

fields! {
    /// Its `error`.
    RefusalFields { code: "code", message: "message" }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
