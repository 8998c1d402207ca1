//! What schemas are taken, and what each keyword says of data that does not fit.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::bounds::JSON_DEPTH_MAX;

fn compiled(schema: Value) -> Schema {
    Schema::compile(&schema).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

fn refused(schema: Value) -> String {
    Schema::compile(&schema).expect_err(&schema.to_string())
}

/// Pointer and sentence.
fn violation(schema: &Schema, data: &str) -> (String, String) {
    let violation = schema.check(data).expect_err(data);
    assert!(!violation.to_string().contains("MARK"), "it tells of the data: {violation}");
    assert!(violation.to_string().len() <= 1_024);
    (violation.pointer.clone(), violation.to_string())
}

#[test]
fn gd7_each_keyword_says_where_and_what_without_the_value() {
    let cases = [
        (json!({ "type": "integer" }), r#""MARK""#, "The data must be of type integer"),
        (json!({ "type": ["string", "null"] }), "1", "The data must be of type null or string"),
        (json!({ "required": ["a"] }), r#"{"MARK":1}"#, r#"The data must have the member "a""#),
        (
            json!({ "additionalProperties": false }),
            r#"{"MARK":1}"#,
            "The data must have no members but those that the schema names",
        ),
        (
            json!({ "properties": { "a": true }, "unevaluatedProperties": false }),
            r#"{"MARK":1}"#,
            "The data must have no members but those that the schema names",
        ),
        (json!({ "prefixItems": [true], "items": false }), r#"[1,"MARK"]"#, "`/1` must not be there"),
        (json!({ "const": 7 }), r#""MARK""#, "The data must be 7"),
        (json!({ "enum": ["a", 1] }), r#""MARK""#, r#"The data must be one of ["a",1]"#),
        (json!({ "pattern": "^[a-z]+$" }), r#""MARK""#, "The data must match the pattern `^[a-z]+$`"),
        (json!({ "maximum": 5 }), "6", "The data must be at most 5"),
        (json!({ "minimum": 5 }), "4.5", "The data must be at least 5"),
        (json!({ "exclusiveMaximum": 5 }), "5", "The data must be less than 5"),
        (json!({ "exclusiveMinimum": 5 }), "5", "The data must be more than 5"),
        (json!({ "multipleOf": 2 }), "3", "The data must be a multiple of 2"),
        (json!({ "maxLength": 3 }), r#""MARK""#, "The data must have at most 3 characters"),
        (json!({ "minLength": 5 }), r#""MARK""#, "The data must have at least 5 characters"),
        (json!({ "maxItems": 0 }), "[1]", "The data must have at most 0 items"),
        (json!({ "minItems": 2 }), "[1]", "The data must have at least 2 items"),
        (json!({ "maxProperties": 0 }), r#"{"MARK":1}"#, "The data must have at most 0 members"),
        (json!({ "minProperties": 2 }), r#"{"MARK":1}"#, "The data must have at least 2 members"),
        (json!({ "uniqueItems": true }), r#"["MARK","MARK"]"#, "The data must have no item twice"),
        (
            json!({ "contains": { "const": 1 } }),
            "[2]",
            "The data must have an item of the kind that the schema asks for",
        ),
        (
            json!({ "propertyNames": { "maxLength": 3 } }),
            r#"{"MARK":1}"#,
            "The data must have other names: each must have at most 3 characters",
        ),
        (json!(false), r#""MARK""#, "The data must not be there"),
        (
            json!({ "anyOf": [{ "const": 1 }, { "const": 2 }] }),
            r#""MARK""#,
            "The data must match one of the schemas of `anyOf`",
        ),
        (
            json!({ "oneOf": [{ "const": 1 }, { "const": 2 }] }),
            r#""MARK""#,
            "The data must match one of the schemas of `oneOf`",
        ),
        (json!({ "oneOf": [true, true] }), r#""MARK""#, "The data must match only one of the schemas of `oneOf`"),
        (json!({ "not": { "type": "string" } }), r#""MARK""#, "The data must not match the schema of `not`"),
        (json!({ "dependentRequired": { "a": ["b"] } }), r#"{"a":"MARK"}"#, r#"The data must have the member "b""#),
        (json!({ "if": { "type": "string" }, "then": false }), r#""MARK""#, "The data must not be there"),
    ];
    for (schema, data, sentence) in cases {
        assert_eq!(violation(&compiled(schema), data).1, sentence, "{data}");
    }
}

#[test]
fn the_pointer_is_that_of_the_first_violation() {
    let schema = compiled(json!({
        "properties": { "a/b~": { "items": { "properties": { "n": { "type": "integer" } } } } }
    }));
    assert_eq!(schema.check(r#"{"a/b~":[{"n":1},{"n":2.0}]}"#), Ok(()));
    let (pointer, told) = violation(&schema, r#"{"a/b~":[{"n":1},{"n":"MARK"}]}"#);
    assert_eq!((&*pointer, &*told), ("/a~1b~0/1/n", "`/a~1b~0/1/n` must be of type integer"));
}

#[test]
fn sentences_are_bounded_whatever_the_data_and_the_schema_hold() {
    let name = "é".repeat(30_000);
    let schema = compiled(json!({ "additionalProperties": { "enum": ["y".repeat(5_000)] } }));
    let violation = schema.check(&format!(r#"{{"{name}":1}}"#)).unwrap_err();
    assert!(violation.pointer.starts_with("/éé") && violation.pointer.ends_with('…'));
    assert!(violation.to_string().len() < 1_024, "{}", violation.to_string().len());
}

#[test]
fn big_numbers_are_checked_and_survive() {
    // INVARIANTS 26
    let schema = compiled(
        json!({ "properties": { "n": { "type": "integer", "minimum": 0 }, "x": { "type": "number", "maximum": 9 } } }),
    );
    assert_eq!(schema.check(r#"{"n":12345678901234567890123,"x":-1e400}"#), Ok(()));
    assert_eq!(violation(&schema, r#"{"n":-12345678901234567890123}"#).1, "`/n` must be at least 0");
    assert_eq!(violation(&schema, r#"{"x":1e400}"#).1, "`/x` must be at most 9");
    assert_eq!(violation(&schema, r#"{"n":1e-3}"#).1, "`/n` must be of type integer");
}

#[test]
fn what_cannot_be_read_never_passes() {
    let all = compiled(json!(true));
    assert_eq!(violation(&all, "{").1, "The data must be JSON");
    assert_eq!(violation(&all, "").1, "The data must be JSON");
    assert_eq!(violation(&all, r#"{"MARK":1,"MARK":2}"#).1, "The data must not hold an object with a name twice");
    let deep = "[".repeat(JSON_DEPTH_MAX + 1) + &"]".repeat(JSON_DEPTH_MAX + 1);
    assert_eq!(violation(&all, &deep).1, "The data must not be nested so deeply");
    assert_eq!(all.check(" null\n"), Ok(()));
}

#[test]
fn f19_nothing_is_fetched_and_format_is_not_asserted() {
    for reference in [
        "https://example.com/schema.json",
        "http://127.0.0.1:1/x",
        "file:///etc/passwd",
        "other.json",
        "#/$defs/none",
        "#none",
    ] {
        let error = refused(json!({ "properties": { "a": { "$ref": reference } } }));
        assert!(error.starts_with("`$ref`: "), "{reference}: {error}");
    }
    assert_eq!(compiled(json!({ "$ref": "#/$defs/a", "$defs": { "a": { "const": 1 } } })).check("1"), Ok(()));
    assert_eq!(compiled(json!({ "$ref": DIALECT })).check(r#"{"type":"string"}"#), Ok(()));
    assert_eq!(compiled(json!({ "format": "email" })).check(r#""none""#), Ok(()));
    assert_eq!(
        compiled(json!({ "contentEncoding": "base64", "contentMediaType": "application/json" })).check(r#""?""#),
        Ok(())
    );
}

#[test]
fn a_schema_that_is_none_is_refused_with_its_place() {
    assert!(refused(json!({ "properties": { "a": { "type": "strin" } } })).starts_with("at `/properties/a/type`: "));
    assert!(refused(json!({ "minimum": "1" })).starts_with("at `/minimum`: "));
    assert!(refused(json!([])).contains("not"), "a schema is an object or a boolean");
    assert!(refused(json!(7)).contains("not"));
    // Only what a linear engine can match, and not more than so large.
    for pattern in ["(", r"(?=a)b", r"(a)\1", "[a-z]{1000}{1000}"] {
        let error = refused(json!({ "properties": { "a": { "pattern": pattern } } }));
        assert!(error.contains("/properties/a"), "{pattern}: {error}");
    }
    for dialect in [json!("http://json-schema.org/draft-07/schema#"), json!("https://example.com/mine"), json!(1)] {
        assert!(refused(json!({ "$schema": dialect })).contains("2020-12"));
    }
    assert_eq!(compiled(json!({ "$schema": DIALECT, "type": "null" })).check("null"), Ok(()));
}

#[test]
fn patterns_take_linear_time() {
    let schema = compiled(json!({ "pattern": "^(a+)+$", "patternProperties": { "^(b|b)*c$": true } }));
    let begun = std::time::Instant::now();
    assert!(schema.check(&format!(r#""{}!""#, "a".repeat(60_000))).is_err());
    assert_eq!(schema.check(&format!(r#"{{"{}":1}}"#, "b".repeat(60_000))), Ok(()));
    assert!(begun.elapsed().as_secs() < 5);
}

#[test]
fn references_to_oneself_end() {
    let list = compiled(json!({ "type": ["array", "null"], "items": { "$ref": "#" } }));
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    // On the stack of a worker.
    let checked = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        assert_eq!(list.check(&nested(JSON_DEPTH_MAX)), Ok(()));
        assert!(list.check(r#"[[[1]]]"#).is_err());
    });
    checked.unwrap().join().unwrap();
    // Around in circles without a step into the data.
    for circle in [
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "$ref": "#" }] }),
        json!({ "anyOf": [{ "$ref": "#" }, { "type": "null" }] }),
        json!({ "not": { "$ref": "#" } }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "oneOf": [{ "$ref": "#/$defs/a" }] } } }),
        json!({ "$dynamicRef": "#x", "$dynamicAnchor": "x" }),
        json!({ "if": { "$ref": "#" }, "then": { "$ref": "#" } }),
    ] {
        if let Ok(schema) = Schema::compile(&circle) {
            let _ = schema.check("[1]");
            let _ = schema.check("null");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_check_panic(text in ".{0,40}|[\\[\\]{}:,\"a0-9.e-]{0,40}") {
        let schema = compiled(json!({
            "type": "object", "required": ["a"], "properties": { "a": { "type": "string", "pattern": "^a" } },
            "patternProperties": { "^e": { "uniqueItems": true, "multipleOf": 0.1 } }, "unevaluatedProperties": { "minimum": 3 }
        }));
        let _ = schema.check(&text);
        let _ = schema.check(&format!(r#"{{"a":{text},"e":[{text}],"z":{text}}}"#));
    }
}
