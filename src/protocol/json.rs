//! A scanner of JSON text (RFC 8259) that builds no tree: it checks the grammar of everything once and hands back
//! values as slices of the text.
//!
//! Invariant: what it accepts is exactly what the grammar of RFC 8259 accepts, whatever the size of a number or the
//! depth of the nesting. Two things that the grammar allows are noted beside it, so that the caller can refuse them
//! with a reply: more than [`JSON_DEPTH_MAX`] levels, and half of a surrogate pair (it stands for no character, and
//! strict readers on the other side would fail on the whole event). Nesting is followed without recursion, at one bit
//! a level. Why by hand: a published payload is passed on verbatim (INVARIANTS 26), so a tree would be built for nothing.

use std::borrow::Cow;

use crate::bounds::JSON_DEPTH_MAX;

/// The text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotJson;

/// What a value is, as far as the grammar tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    False,
    True,
    Number,
    /// A string without escapes: its characters are the text between the quotes.
    String,
    /// A string with at least one escape.
    EscapedString,
    Array,
    Object,
}

/// A value whose grammar was checked, and its text as it came, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub kind: Kind,
    pub text: &'a str,
}

impl<'a> Value<'a> {
    /// The characters of a string. `None` for any other kind.
    pub fn string(self) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::String => Some(Cow::Borrowed(&self.text[1..self.text.len() - 1])),
            Kind::EscapedString => Some(Cow::Owned(unescape(&self.text[1..self.text.len() - 1]))),
            _ => None,
        }
    }

    /// The elements of an array, none for any other kind.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let mut scanner = Scanner::new(self.text);
        let mut more = self.kind == Kind::Array && scanner.open(b'[');
        let mut first = true;
        std::iter::from_fn(move || {
            let element = if more { scanner.element(first).ok().flatten() } else { None };
            (more, first) = (element.is_some(), false);
            element
        })
    }

    /// The members of an object, none for any other kind.
    pub fn members(self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        let mut scanner = Scanner::new(self.text);
        let mut more = self.kind == Kind::Object && scanner.open(b'{');
        let mut first = true;
        std::iter::from_fn(move || {
            let member = if more { scanner.member(first).ok().flatten() } else { None };
            (more, first) = (member.is_some(), false);
            member
        })
    }
}

/// A position in a JSON text, moving forwards only.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Containers opened with [`Scanner::open`] and not yet ended.
    depth: usize,
    /// More than `JSON_DEPTH_MAX` levels were seen.
    pub too_deep: bool,
    /// An escape that is half of a surrogate pair was seen.
    pub unpaired_surrogate: bool,
}

impl<'a> Scanner<'a> {
    /// Stands before the first byte of `text`.
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0, depth: 0, too_deep: false, unpaired_surrogate: false }
    }

    /// Steps into an object (`{`) or array (`[`) if one begins here.
    pub fn open(&mut self, bracket: u8) -> bool {
        self.skip_white();
        let opened = self.peek() == bracket;
        if opened {
            self.at += 1;
            self.depth += 1;
        }
        opened
    }

    /// The next member of the object stepped into, or `None` at its end. `first` is true at the first call.
    pub fn member(&mut self, first: bool) -> Result<Option<(Value<'a>, Value<'a>)>, NotJson> {
        if !self.has_next(first, b'}')? {
            return Ok(None);
        }
        let key = self.key()?;
        Ok(Some((key, self.value()?)))
    }

    /// The next element of the array stepped into, or `None` at its end. `first` is true at the first call.
    pub fn element(&mut self, first: bool) -> Result<Option<Value<'a>>, NotJson> {
        if self.has_next(first, b']')? { self.value().map(Some) } else { Ok(None) }
    }

    /// The value that begins here, white space before it skipped.
    pub fn value(&mut self) -> Result<Value<'a>, NotJson> {
        self.skip_white();
        let start = self.at;
        let kind = match self.peek() {
            b'{' => self.container().map(|()| Kind::Object),
            b'[' => self.container().map(|()| Kind::Array),
            _ => self.scalar(),
        }?;
        Ok(Value { kind, text: &self.text[start..self.at] })
    }

    /// Whether nothing but white space is left.
    pub fn at_end(&mut self) -> bool {
        self.skip_white();
        self.at == self.text.len()
    }

    fn has_next(&mut self, first: bool, end: u8) -> Result<bool, NotJson> {
        self.skip_white();
        let byte = self.peek();
        if byte == end {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if first {
            return Ok(true);
        }
        self.expect(b',')?;
        Ok(true)
    }

    /// A key and the colon after it.
    fn key(&mut self) -> Result<Value<'a>, NotJson> {
        self.skip_white();
        let start = self.at;
        let kind = if self.peek() == b'"' {
            self.string()?
        } else {
            return Err(NotJson);
        };
        let text = &self.text[start..self.at];
        self.skip_white();
        self.expect(b':')?;
        Ok(Value { kind, text })
    }

    /// A whole object or array, with everything in it.
    fn container(&mut self) -> Result<(), NotJson> {
        let mut open = Levels::default();
        loop {
            // Here a value begins.
            self.skip_white();
            let bracket = self.peek();
            let mut closed = false;
            if bracket == b'{' || bracket == b'[' {
                self.at += 1;
                open.push(bracket == b'{');
                self.too_deep |= self.depth + open.count > JSON_DEPTH_MAX;
                self.skip_white();
                closed = self.close(&mut open);
                if !closed {
                    if open.is_object() {
                        self.key()?;
                    }
                    continue;
                }
            } else {
                self.scalar()?;
            }
            // Here one has ended.
            loop {
                if closed && open.count == 0 {
                    return Ok(());
                }
                self.skip_white();
                closed = self.close(&mut open);
                if !closed {
                    break;
                }
            }
            self.expect(b',')?;
            if open.is_object() {
                self.key()?;
            }
        }
    }

    /// Ends the innermost container if its bracket stands here.
    fn close(&mut self, open: &mut Levels) -> bool {
        let closed = self.peek() == if open.is_object() { b'}' } else { b']' };
        if closed {
            self.at += 1;
            open.pop();
        }
        closed
    }

    fn scalar(&mut self) -> Result<Kind, NotJson> {
        match self.peek() {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true", Kind::True),
            b'f' => self.literal("false", Kind::False),
            b'n' => self.literal("null", Kind::Null),
            _ => Err(NotJson),
        }
    }

    fn literal(&mut self, word: &str, kind: Kind) -> Result<Kind, NotJson> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(NotJson);
        }
        self.at += word.len();
        Ok(kind)
    }

    fn number(&mut self) -> Result<Kind, NotJson> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(NotJson) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<Kind, NotJson> {
        self.at += 1;
        let mut kind = Kind::String;
        loop {
            self.at += plain_len(self.rest());
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(kind);
                }
                b'\\' => {
                    kind = Kind::EscapedString;
                    self.escape()?;
                }
                _ => return Err(NotJson),
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        let rest = self.rest();
        match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let (unit, length) = match (hex4(&rest[2..]), rest.get(6..8)) {
                    (None, _) => return Err(NotJson),
                    (Some(high @ 0xd800..=0xdbff), Some(b"\\u")) => match hex4(&rest[8..]) {
                        Some(0xdc00..=0xdfff) => (0, 12),
                        _ => (high, 6),
                    },
                    (Some(unit), _) => (unit, 6),
                };
                self.unpaired_surrogate |= matches!(unit, 0xd800..=0xdfff);
                self.at += length;
            }
            _ => return Err(NotJson),
        }
        Ok(())
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.peek() != byte {
            return Err(NotJson);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn skip_white(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// The byte here. 0 at the end: no grammar rule allows that byte outside or inside a string.
    #[inline]
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }
}

/// How many bytes at the front of `bytes` stand in a JSON string as they are: neither `"`, `\` nor a control byte.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 128;
    let mut at = 0;
    while let Some(Ok(chunk)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        // One flag in the highest bit of every byte. A borrow can set a wrong flag only above a right one, and the
        // lowest is the one that is used.
        let word = u64::from_le_bytes(chunk);
        let (quote, backslash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        at += 1;
    }
    at
}

/// The characters that the inside of a checked string stands for; half a surrogate pair becomes U+FFFD.
#[cold]
fn unescape(inside: &str) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(backslash) = rest.find('\\') {
        text.push_str(&rest[..backslash]);
        let escape = &rest[backslash..];
        let (character, length) = match escape.as_bytes().get(1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'u') => unescape_unicode(escape.as_bytes()),
            Some(&byte) => (char::from(byte), 2),
            None => break,
        };
        text.push(character);
        rest = escape.get(length..).unwrap_or("");
    }
    text.push_str(rest);
    text
}

fn unescape_unicode(escape: &[u8]) -> (char, usize) {
    let unit = escape.get(2..).and_then(hex4).unwrap_or(0xfffd);
    if let (0xd800..=0xdbff, Some(b"\\u")) = (unit, escape.get(6..8))
        && let Some(low @ 0xdc00..=0xdfff) = hex4(&escape[8..])
    {
        let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        return (character, 12);
    }
    (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.iter().try_fold(0, |unit, &byte| Some(unit << 4 | char::from(byte).to_digit(16)?))
}

/// For each open container whether it is an object: one bit each, the innermost lowest.
#[derive(Default)]
struct Levels {
    bits: u128,
    count: usize,
    /// Outer levels, 128 to a word. Empty for every message that is not refused as too deep.
    outer: Vec<u128>,
}

impl Levels {
    fn push(&mut self, object: bool) {
        if self.count > 0 && self.count.is_multiple_of(128) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u128::from(object);
        self.count += 1;
    }

    fn pop(&mut self) {
        self.bits >>= 1;
        self.count -= 1;
        if self.count > 0 && self.count.is_multiple_of(128) {
            self.bits = self.outer.pop().unwrap_or(0);
        }
    }

    fn is_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
