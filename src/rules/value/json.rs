//! JSON text to values and back.
//!
//! Invariant: whatever is accepted is JSON (RFC 8259) of at most `JSON_DEPTH_MAX` levels with no key twice in an object:
//! of two values for one key a rule would see one and the reader behind it perhaps the other. By hand, since the usual
//! parsers refuse `1e400` and `12345678901234567890123`, which are JSON (INVARIANTS 26), and since depth must be bounded.

use std::fmt::{self, Write};
use std::sync::Arc;

use super::{Map, Value};
use crate::bounds::JSON_DEPTH_MAX;

/// Why a text has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotJson {
    /// It is not JSON, or holds half of a surrogate pair.
    Malformed,
    /// More than `JSON_DEPTH_MAX` levels.
    TooDeep,
    /// An object has a key twice.
    RepeatedKey,
    /// JSON, but not the object that was wanted.
    NoObject,
}

/// A sentence for the operator.
impl fmt::Display for NotJson {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NotJson::Malformed => "not JSON",
            NotJson::TooDeep => "JSON with too many levels",
            NotJson::RepeatedKey => "JSON with a key twice in one object",
            NotJson::NoObject => "JSON, but not an object",
        })
    }
}

/// The value of a JSON text.
///
/// # Errors
/// See [`NotJson`].
pub fn json(text: &str) -> Result<Value, NotJson> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(value) } else { Err(NotJson::Malformed) }
}

/// The JSON text of a value. A number that is not finite is written as null, JSON has none;
/// so is what could not be read.
pub fn to_json(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, NotJson> {
        self.space();
        match self.peek().ok_or(NotJson::Malformed)? {
            b'{' | b'[' if depth >= JSON_DEPTH_MAX => Err(NotJson::TooDeep),
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => Ok(Value::String(self.string()?.into())),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, NotJson> {
        let mut fields = Vec::new();
        self.at += 1;
        self.space();
        if self.takes(b'}') {
            return Ok(Value::empty());
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            fields.push((name.into_boxed_str(), self.value(depth)?));
            self.space();
            if self.takes(b'}') {
                return Map::unique(fields).map(Value::Map).ok_or(NotJson::RepeatedKey);
            }
            self.expect(b',')?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, NotJson> {
        let mut elements = Vec::new();
        self.at += 1;
        self.space();
        if self.takes(b']') {
            return Ok(Value::List(Arc::new([])));
        }
        loop {
            elements.push(self.value(depth)?);
            self.space();
            if self.takes(b']') {
                return Ok(Value::List(elements.into()));
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Result<String, NotJson> {
        self.expect(b'"')?;
        let mut characters = String::new();
        loop {
            let plain = self.rest().bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
            let plain = plain.ok_or(NotJson::Malformed)?;
            characters.push_str(&self.rest()[..plain]);
            self.at += plain;
            if self.takes(b'"') {
                return Ok(characters);
            }
            self.expect(b'\\')?;
            characters.push(self.escaped()?);
        }
    }

    fn escaped(&mut self) -> Result<char, NotJson> {
        let byte = self.peek().ok_or(NotJson::Malformed)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                let second = if (0xd800..0xdc00).contains(&first) {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    Some(self.unit()?)
                } else {
                    None
                };
                let mut decoded = char::decode_utf16([first].into_iter().chain(second));
                decoded.next().and_then(Result::ok).ok_or(NotJson::Malformed)?
            }
            _ => return Err(NotJson::Malformed),
        })
    }

    fn unit(&mut self) -> Result<u16, NotJson> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()).ok_or(NotJson::Malformed)?;
        self.at += 4;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Value, NotJson> {
        let start = self.at;
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        let mut integer = true;
        if self.takes(b'.') {
            integer = false;
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            integer = false;
            let _ = self.takes(b'+') || self.takes(b'-');
            self.digits()?;
        }
        let number = &self.text[start..self.at];
        if integer {
            if let Ok(exact) = number.parse() {
                return Ok(Value::Int(exact));
            }
            if let Ok(exact) = number.parse() {
                return Ok(Value::Uint(exact));
            }
        }
        number.parse().map(Value::Double).map_err(|_| NotJson::Malformed)
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let many = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += many;
        if many > 0 { Ok(()) } else { Err(NotJson::Malformed) }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, NotJson> {
        if !self.rest().starts_with(word) {
            return Err(NotJson::Malformed);
        }
        self.at += word.len();
        Ok(value)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.takes(byte) { Ok(()) } else { Err(NotJson::Malformed) }
    }
}

/// Recursion is as deep as the value, which is JSON or a rule's, both bounded.
fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null | Value::Unreadable => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => drop(write!(out, "{value}")),
        Value::Uint(value) => drop(write!(out, "{value}")),
        Value::Double(value) if value.is_finite() => drop(write!(out, "{value:?}")),
        Value::Double(_) => out.push_str("null"),
        Value::String(text) => write_string(out, text),
        Value::List(elements) => {
            out.push('[');
            for (number, element) in elements.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(out, element);
            }
            out.push(']');
        }
        Value::Map(fields) => {
            out.push('{');
            for (number, (name, field)) in fields.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write_string(out, name);
                out.push(':');
                write(out, field);
            }
            out.push('}');
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => drop(write!(out, "\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}
