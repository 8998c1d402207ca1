//! `POST /v1/batch` (E6).

use pipeward::shard::record::Kind;
use serde_json::{Value, json};

use crate::fake::{Api, Asked, SENDER};

fn results(body: &Value) -> Vec<Value> {
    body["results"].as_array().expect("results").clone()
}

#[test]
fn commands_are_tried_in_order_and_fail_alone() {
    let api = Api::start();
    let body = r#"{"commands":[
        {"method":"publish","pipe":"a","event":"e","data":1.10},
        {"pipe":"b","event":"e","data":"x","method":"publish","count":true},
        {"method":"publish","pipe":"no good","event":"e","data":1},
        {"method":"stats"}, {"method":"batch","commands":[]}, {"method":5}, {}, 7,
        {"method":"revoke","user":"ada","pipe":"c","session":1,"user":"ada"},
        {"method":"revoke","user":"ada","pipe":"c"},
        {"method":"notify","to":{"user":"ada"},"event":"e","data":null}
    ]}"#;
    let answer = api.post("/v1/batch", body);
    assert_eq!(answer.status, 200);
    let results = results(&answer.json());
    let oks: Vec<bool> = results.iter().map(|result| result["ok"].as_bool().unwrap()).collect();
    assert_eq!(oks, [true, true, false, false, false, false, false, false, false, true, true]);
    assert_eq!(results[0], json!({"ok": true}));
    assert_eq!(results[1], json!({"ok": true, "delivered": 3}));
    assert_eq!(results[9], json!({"ok": true, "connections": 3}));
    for failed in results.iter().filter(|result| result["ok"] == false) {
        assert_eq!(failed["code"], "INVALID", "{failed}");
        assert!(!failed["error"].as_str().unwrap().is_empty());
    }
    let asked = api.fake.asked();
    assert!(matches!(&asked[0], Asked::Publish { pipe, data, count: false, .. } if pipe == "a" && data == "1.10"));
    assert!(matches!(&asked[1], Asked::Publish { pipe, count: true, .. } if pipe == "b"));
    assert!(matches!(&asked[2], Asked::Revoke(_)));
    let kinds: Vec<Kind> = api.fake.records().iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Revoke]);
}

#[test]
fn each_command_needs_the_right_of_its_call() {
    let api = Api::start();
    let body = r#"{"commands":[{"method":"revoke","user":"u","pipe":"p"},{"method":"publish","pipe":"p","event":"e","data":1}]}"#;
    let answer = api.post_as(SENDER, "/v1/batch", body.as_bytes());
    assert_eq!(answer.status, 200);
    let results = results(&answer.json());
    assert_eq!((&results[0]["ok"], &results[0]["code"]), (&json!(false), &json!("FORBIDDEN")));
    assert_eq!(results[1], json!({"ok": true}));
    assert!(matches!(&api.fake.asked()[..], [Asked::Publish { .. }]));
}

#[test]
fn a_thousand_commands_are_taken_and_one_more_refuses_all() {
    let api = Api::start();
    let command = r#"{"method":"publish","pipe":"p","event":"e","data":1}"#;
    let many = |count: usize| format!(r#"{{"commands":[{}]}}"#, vec![command; count].join(","));
    let error = api.post("/v1/batch", &many(1001)).refused(400, "INVALID");
    assert!(error.contains("1000"), "{error}");
    assert_eq!(api.fake.asked(), []);
    assert_eq!(results(&api.post("/v1/batch", &many(1000)).json()).len(), 1000);
    assert_eq!(api.fake.asked().len(), 1000);
    assert_eq!(api.post("/v1/batch", r#"{"commands":[]}"#).json(), json!({"results": []}));
    for body in [r#"{"commands":{}}"#, r#"{"commands":null}"#, r#"{"x":1}"#, r#"{"commands":[],"commands":[]}"#] {
        api.post("/v1/batch", body).refused(400, "INVALID");
    }
}
