//! The calls that only ask (E10–E12).

use serde_json::json;

use crate::fake::{Api, Asked};
use pipeward::shard::command::Person;

#[test]
fn connections_are_listed_page_by_page() {
    let api = Api::start();
    let answer = api.get("/v1/connections");
    assert_eq!(answer.status, 200);
    let expected = json!({
        "connections": [
            {"connection": "0-0-1-1", "user": "ada", "tenant": "acme", "ip": "127.0.0.1", "since": 1_700_000_000_000_u64,
             "pipes": ["chat"], "queue_bytes": 12},
            {"connection": "0-0-2-1", "user": null, "ip": "127.0.0.1", "since": 1_700_000_000_000_u64,
             "pipes": ["chat"], "queue_bytes": 12},
        ],
        "next": "0-0-2-1"
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(api.fake.asked(), [Asked::Connections(None, None, 100)]);
    // `next` is good as `after`; ids are percent-encoded.
    api.get("/v1/connections?user=a%20%2B%C3%A9&tenant=acme&limit=1000&after=0-0-2-1");
    let person = Person { tenant: Some("acme".into()), user: "a +é".into() };
    assert_eq!(api.fake.asked(), [Asked::Connections(Some(person), Some("0-0-2-1".to_owned()), 1000)]);
    let listed = api.get("/v1/connections?tenant=acme").json();
    assert_eq!(listed["connections"].as_array().unwrap().len(), 1);
    api.fake.asked();
    for query in ["limit=0", "limit=x", "limit=-1", "limit=1.5", "limit=1&limit=2", "after=x", "after=0-0-2"] {
        api.get(&format!("/v1/connections?{query}")).refused(400, "INVALID");
    }
    assert_eq!(api.fake.asked(), []);
}

// E10: "most 1,000"; what is left empty is not given.
#[test]
fn a_limit_over_the_most_is_the_most_and_empty_parameters_are_none() {
    let api = Api::start();
    for (query, limit) in [
        ("limit=1001", 1000),
        ("limit=99999999999999999999", 1000),
        ("user=&tenant=&limit=&after=", 100),
        ("user&limit&", 100),
        ("limit=7&user=", 7),
    ] {
        assert_eq!(api.get(&format!("/v1/connections?{query}")).status, 200, "{query}");
        assert_eq!(api.fake.asked(), [Asked::Connections(None, None, limit)], "{query}");
    }
    assert_eq!(api.get("/v1/pipes?limit=5000&after=").status, 200);
    assert_eq!(api.fake.asked(), [Asked::Pipes(None, 1000)]);
    assert_eq!(api.get("/v1/queues/a/dead?limit=5000&after=").status, 200);
    assert_eq!(api.fake.asked(), [Asked::Dead("a".to_owned(), None, 1000)]);
}

#[test]
fn pipes_and_their_members_are_listed() {
    let api = Api::start();
    assert_eq!(api.get("/v1/pipes?limit=5&after=bar").json(), json!({"pipes": [{"pipe": "chat", "subscribers": 2}]}));
    assert_eq!(api.fake.asked(), [Asked::Pipes(Some("bar".to_owned()), 5)]);
    let member = |at: u32| json!({"user": format!("u{at}"), "name": "N", "connections": 2});
    let answer = api.get("/v1/pipes/a%2Fb%3F%25:c/presence").json();
    assert_eq!(answer, json!({"members": [member(0), member(1), member(2)], "total": 3, "anonymous": 1}));
    assert_eq!(api.fake.asked(), [Asked::Members("a/b?%:c".to_owned())]);
    // At most a thousand are listed, beside their number.
    api.fake.will_answer(Ok(1500));
    let answer = api.get("/v1/pipes/p/presence").json();
    assert_eq!((answer["members"].as_array().unwrap().len(), &answer["total"]), (1000, &json!(1500)));
    api.fake.asked();
    for path in [
        "/v1/pipes/a%20b/presence",
        "/v1/pipes//presence",
        "/v1/pipes/a*/presence",
        "/v1/pipes/%FF/presence",
        "/v1/pipes?after=a%20b",
    ] {
        api.get(path).refused(400, "INVALID");
    }
    assert_eq!(api.fake.asked(), []);
}

#[test]
fn stats_are_told_for_each_worker_and_summed() {
    let api = Api::start();
    let stats = api.get("/v1/stats").json();
    assert_eq!((&stats["workers"][0]["worker"], &stats["workers"][1]["worker"]), (&json!(0), &json!(1)));
    assert_eq!((&stats["workers"][0]["connections"], &stats["total"]["connections"]), (&json!(5), &json!(10)));
    assert_eq!((&stats["total"]["subscriptions"], &stats["total"]["counters"]["events_in"]), (&json!(14), &json!(9)));
}

// G12
#[test]
fn the_probes_tell_life_and_readiness() {
    let api = Api::start();
    assert_eq!((api.get("/healthz").body.as_str(), api.get("/readyz").status), ("ok\n", 200));
    api.fake.will_be_ready(false);
    assert_eq!((api.get("/healthz").status, api.get("/readyz").status), (200, 503));
    let metrics = api.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert_eq!(metrics.body, "pipeward_connections 1\n");
}
