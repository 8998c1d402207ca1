//! The OpenAPI document says what is served.

use pipeward::config::ApiRight;
use pipeward::control::api::document;
use serde_json::Value;

use crate::fake::Api;

#[test]
fn every_operation_of_the_document_is_served_and_every_right_has_one() {
    let api = Api::start();
    let served = api.get("/openapi.json");
    assert_eq!(served.header("content-type"), Some("application/json"));
    let document = served.json();
    assert_eq!(document, pipeward::control::api::document());
    let mut names = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            names.push(operation["operationId"].as_str().unwrap().to_owned());
            let path = path.replace("{pipe}", "p").replace("{queue}", "q");
            let answer = if method == "post" { api.post(&path, "{}") } else { api.get(&path) };
            // Whatever it answers is declared.
            let declared = &operation["responses"][answer.status.to_string()];
            assert!(declared.is_object(), "{method} {path}: {answer:?}");
            let kinds: Vec<&String> = declared["content"].as_object().unwrap().keys().collect();
            assert_eq!(Some(kinds[0].as_str()), answer.header("content-type"), "{method} {path}");
            // Open to nobody without a key, but for the probes.
            let is_probe = operation["security"] == Value::Array(Vec::new());
            assert_eq!(is_probe, path.ends_with('z'), "{path}");
        }
    }
    names.sort();
    let mut expected: Vec<String> = ApiRight::ALL.iter().map(|right| right.name().to_owned()).collect();
    expected.extend(["healthz", "openapi", "queues_dead", "queues_retry", "readyz"].map(str::to_owned));
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn every_reference_leads_to_a_schema() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn requests_are_declared_as_they_are_read() {
    let schemas = &document()["components"]["schemas"];
    for name in
        ["Publish", "Push", "Notify", "Revoke", "RevokeAll", "Restore", "RevokeTokens", "Disconnect", "Unsubscribe"]
    {
        let schema = &schemas[name];
        let shapes = schema["oneOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
        for shape in shapes {
            assert!(shape["additionalProperties"].is_null(), "{name}: unknown fields are ignored");
            let required = shape["required"].as_array().unwrap();
            assert!(!required.is_empty(), "{name}");
            for field in required {
                assert!(shape["properties"][field.as_str().unwrap()].is_object(), "{name}: {field}");
            }
        }
    }
    assert_eq!(schemas["PipeName"]["maxLength"], 200);
    assert_eq!(schemas["EventName"]["maxLength"], 100);
    assert_eq!(schemas["Id"]["maxLength"], 256);
    assert_eq!(schemas["TtlS"]["exclusiveMinimum"], 0);
}
