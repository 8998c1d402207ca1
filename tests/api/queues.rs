//! Queues over the API: what is listed, what is tried again, and who may (F16).

use serde_json::json;

use crate::fake::{Api, Asked, SENDER};
use pipeward::control::service::Failure;
use pipeward::protocol::codes::Code;
use pipeward::shard::record::Kind;

#[test]
fn queues_are_listed() {
    let api = Api::start();
    let last_error = json!({"at": 1_700_000_000_500_u64, "error": "it answered with status 500"});
    let jobs = json!({"queue": "jobs", "configured": true, "depth": 2, "bytes": 40, "oldest": 1_700_000_000_000_u64,
                      "attempts": 3, "last_error": last_error, "dead": 1, "delivered": 9});
    let old = json!({"queue": "old", "configured": false, "depth": 0, "bytes": 40, "oldest": null,
                     "attempts": 3, "last_error": null, "dead": 1, "delivered": 9});
    assert_eq!(api.get("/v1/queues").json(), json!({"queues": [jobs, old]}));
}

// INVARIANTS 26: what was stored is shown byte for byte.
#[test]
fn dead_letters_are_listed_as_they_came() {
    let api = Api::start();
    let answer = api.get("/v1/queues/a%2Fb/dead?limit=5&after=3");
    assert!(answer.body.contains(r#""data":12345678901234567890123"#), "{}", answer.body);
    let letter = &answer.json()["letters"][0];
    assert_eq!((&letter["id"], &letter["user"]["id"]), (&json!("ab".repeat(16)), &json!("ada")));
    assert_eq!((&letter["attempts"], &letter["error"]), (&json!(1), &json!("it answered with status 400")));
    assert_eq!(answer.json()["next"], 7);
    assert_eq!(api.fake.asked(), [Asked::Dead("a/b".to_owned(), Some(3), 5)]);
    for path in ["/v1/queues/a%20b/dead", "/v1/queues/%FF/dead", "/v1/queues/a/dead?after=-1"] {
        api.get(path).refused(400, "INVALID");
    }
    assert_eq!(api.fake.asked(), []);
}

#[test]
fn a_retry_is_carried_out_and_put_on_record() {
    let api = Api::start();
    assert_eq!(api.post("/v1/queues/jobs/retry", r#"{"id":"abc"}"#).json(), json!({"ok": true, "retried": 3}));
    assert_eq!(api.post("/v1/queues/jobs/retry", "{}").json(), json!({"ok": true, "retried": 3}));
    let one = Asked::Retry("jobs".to_owned(), Some("abc".to_owned()));
    assert_eq!(api.fake.asked(), [one, Asked::Retry("jobs".to_owned(), None)]);
    let records = api.fake.records();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|one| one.kind == Kind::Admin && one.key.as_deref() == Some("admin")));
    api.fake.will_answer(Err(Failure::Refused(Code::NotFound, "There is no such queue".to_owned())));
    api.post("/v1/queues/none/retry", "{}").refused(404, "NOT_FOUND");
    assert_eq!(api.fake.records()[0].code, Some(Code::NotFound));
    for body in ["", "[]", r#"{"id":1}"#, r#"{"id":""}"#] {
        api.post("/v1/queues/jobs/retry", body).refused(400, "INVALID");
    }
    api.post("/v1/queues/a%20b/retry", "{}").refused(400, "INVALID");
}

#[test]
fn all_of_it_needs_the_right() {
    let api = Api::start();
    for path in ["/v1/queues", "/v1/queues/jobs/dead"] {
        api.get_as(SENDER, path).refused(403, "FORBIDDEN");
        api.get_as("nobody-has-this-secret", path).refused(401, "UNAUTHENTICATED");
    }
    api.post_as(SENDER, "/v1/queues/jobs/retry", b"{}").refused(403, "FORBIDDEN");
    assert_eq!(api.fake.asked(), []);
}
