//! JSON text to the tree that a schema and scope fields are checked on.
//!
//! Why not the reader of `serde_json`: data may hold numbers that it refuses (`1e400`) although they are JSON and are
//! passed on as they came (INVARIANTS 26), 128 levels are allowed (C5), and it takes the last of two members with one
//! name where another reader takes the first. Here numbers beyond 64 bits become doubles, those beyond doubles the
//! largest double, and a repeated name is an error. Two different integers beyond 2^64 may therefore be equal to
//! `enum`, `const` and `uniqueItems`, and a limit near them is as exact as a double is.
//!
//! Depth is bounded, so recursion is; memory is a fixed multiple of the text.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use crate::bounds::JSON_DEPTH_MAX;

/// Why there is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Not one JSON text.
    NotJson,
    /// More than `JSON_DEPTH_MAX` levels.
    TooDeep,
    /// An object holds one name twice.
    Repeated,
}

/// The tree of a whole text.
pub(super) fn tree(text: &str) -> Result<Value, Unreadable> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = reader.value()?;
    reader.skip_white();
    if reader.at == text.len() { Ok(value) } else { Err(Unreadable::NotJson) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Result<Value, Unreadable> {
        self.skip_white();
        match self.peek() {
            b'{' => self.nested(Reader::object),
            b'[' => self.nested(Reader::array),
            b'"' => Ok(Value::String(self.string()?.into_owned())),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => self.number(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Unreadable>) -> Result<Value, Unreadable> {
        self.depth += 1;
        if self.depth > JSON_DEPTH_MAX {
            return Err(Unreadable::TooDeep);
        }
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, Unreadable> {
        let mut members = Map::new();
        while self.has_next(members.is_empty(), b'}')? {
            self.skip_white();
            let name = self.string()?.into_owned();
            self.skip_white();
            self.expect(b':')?;
            if members.insert(name, self.value()?).is_some() {
                return Err(Unreadable::Repeated);
            }
        }
        Ok(Value::Object(members))
    }

    fn array(&mut self) -> Result<Value, Unreadable> {
        let mut elements = Vec::new();
        while self.has_next(elements.is_empty(), b']')? {
            elements.push(self.value()?);
        }
        Ok(Value::Array(elements))
    }

    /// Whether another member or element begins; the comma before it, or the bracket `end`, is passed.
    fn has_next(&mut self, first: bool, end: u8) -> Result<bool, Unreadable> {
        self.skip_white();
        if self.peek() == end {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Unreadable> {
        let start = self.at;
        self.expect(b'"')?;
        let mut plain = true;
        loop {
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    plain = false;
                    self.at += 2;
                }
                // The byte that `peek` gives at the end is one of these.
                0..=0x1f => return Err(Unreadable::NotJson),
                _ => self.at += 1,
            }
        }
        self.at += 1;
        if plain {
            return Ok(Cow::Borrowed(&self.text[start + 1..self.at - 1]));
        }
        let token = self.text.get(start..self.at).ok_or(Unreadable::NotJson)?;
        serde_json::from_str::<String>(token).map(Cow::Owned).map_err(|_| Unreadable::NotJson)
    }

    fn number(&mut self) -> Result<Value, Unreadable> {
        let start = self.at;
        while matches!(self.peek(), b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') {
            self.at += 1;
        }
        let token = &self.text[start..self.at];
        let beyond = || {
            // The grammar is checked without the range; what Rust then reads of it is finite or infinite.
            serde_json::from_str::<&RawValue>(token).ok()?;
            Number::from_f64(token.parse::<f64>().ok()?.clamp(f64::MIN, f64::MAX))
        };
        let number = serde_json::from_str::<Number>(token).ok().or_else(beyond);
        number.map(Value::Number).ok_or(Unreadable::NotJson)
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Unreadable> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Unreadable::NotJson);
        }
        self.at += word.len();
        Ok(value)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unreadable> {
        if self.peek() != byte {
            return Err(Unreadable::NotJson);
        }
        self.at += 1;
        Ok(())
    }

    fn skip_white(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// The byte here; 0, which no grammar rule allows, at the end.
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn big_numbers_survive() {
        // INVARIANTS 26, F21
        assert_eq!(tree("12345678901234567890123"), Ok(json!(12345678901234567890123_f64)));
        assert_eq!(tree("18446744073709551615"), Ok(json!(u64::MAX)));
        assert_eq!(tree("-9223372036854775808"), Ok(json!(i64::MIN)));
        assert_eq!(tree("1e400"), Ok(json!(f64::MAX)));
        assert_eq!(tree("-1e400"), Ok(json!(f64::MIN)));
        assert_eq!(tree(&format!("1{}", "0".repeat(1_000))), Ok(json!(f64::MAX)));
        assert_eq!(tree("1e-400"), Ok(json!(0.0)));
        assert_eq!(tree("1E+2"), Ok(json!(100.0)));
    }

    #[test]
    fn a_repeated_name_is_an_error() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"a":1,"\u0061":2}]"#, r#"{"":0,"":0}"#] {
            assert_eq!(tree(text), Err(Unreadable::Repeated), "{text}");
        }
        assert_eq!(tree(r#"{"a":{"a":1},"A":2}"#), Ok(json!({ "a": { "a": 1 }, "A": 2 })));
    }

    #[test]
    fn c5_so_many_levels_and_no_more() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(tree(&nested(JSON_DEPTH_MAX)).is_ok());
        assert_eq!(tree(&nested(JSON_DEPTH_MAX + 1)), Err(Unreadable::TooDeep));
        assert_eq!(tree(&"[".repeat(1_000_000)), Err(Unreadable::TooDeep));
        // Side by side is not deeper.
        assert!(tree(&format!("[{}0]", "[],{},".repeat(1_000))).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "nulll",
            "tru",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "1e+",
            "--1",
            "-",
            "NaN",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a" 1}"#,
            "\"",
            "\"\\",
            "\"\\\"",
            "\"\\x\"",
            "\"\n\"",
            "1 1",
            "[",
            "]",
            "{",
            "}",
            r#""\ud800""#,
            "\"\\é\"",
            "\u{feff}1",
        ] {
            assert_eq!(tree(text), Err(Unreadable::NotJson), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(value in any_json(), spaces in "[ \n\r\t]{0,3}") {
            let text = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(tree(&format!("{spaces}{text}{spaces}")), Ok(value));
        }

        #[test]
        fn it_never_panics_and_agrees_on_what_is_json(text in "[\\[\\]{}:,\"\\\\u0-9a-f.eE+\\- \ntrués]{0,24}") {
            match tree(&text) {
                Ok(_) => prop_assert!(serde_json::from_str::<&RawValue>(&text).is_ok()),
                Err(Unreadable::NotJson) => prop_assert!(serde_json::from_str::<Value>(&text).is_err()),
                Err(_) => {}
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1.0e9..1.0e9).prop_map(Value::from),
            "\\PC{0,6}|[\\x00-\\x1f\"\\\\/]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-e\u{e9}\"]{0,3}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }
}
