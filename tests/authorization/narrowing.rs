//! Limits that come with a token or an answer: narrower than the configuration's for this connection, never wider, and
//! nothing at all where they are not as agreed.

use serde_json::{Value, json};

use crate::application::Application;
use crate::support::{Client, Launch, Request, SECRET, Server, assert_code, assert_ok, sign};

/// Everything is granted; three subscriptions and one publish a while are what everybody has.
const CONFIG: &str =
    "[limits]\nsubscriptions = 3\npublish = { per_s = 100, burst = 100 }\npush = { per_s = 100, burst = 100 }\n";

fn token(limits: Value) -> String {
    let everything = json!({ "**": { "subscribe": true, "publish": true } });
    sign(&json!({ "sub": "ann", "pipes": everything, "limits": limits }).to_string())
}

/// How many pipes this connection may subscribe to.
#[track_caller]
fn subscriptions(client: &mut Client) -> usize {
    for count in 0..10 {
        let reply = client.subscribe(&format!("room-{count}"));
        if reply["ok"] != true {
            assert_code(&reply, "TOO_MANY");
            return count;
        }
    }
    panic!("there is no limit")
}

#[test]
fn a_token_narrows_and_never_widens() {
    let server = Server::start(CONFIG);
    for (limits, expected) in
        [(json!({}), 3), (json!({ "subscriptions": 1 }), 1), (json!({ "subscriptions": 1_000 }), 3)]
    {
        let mut client = Client::connect(server.address, &token(limits));
        assert_eq!(client.welcome["limits"]["subscriptions"], expected, "{}", client.welcome);
        assert_eq!(subscriptions(&mut client), expected);
    }
    // Two at once and then none for a long time; the rate of others is not touched.
    let limits = json!({ "publish": { "per_s": 0.001, "burst": 2 } });
    let mut narrow = Client::connect(server.address, &token(limits));
    let mut wide = Client::connect(server.address, &token(json!({ "publish": { "per_s": 1e9, "burst": 1e9 } })));
    assert_ok(&narrow.publish("room-1", 1));
    assert_ok(&narrow.publish("room-1", 2));
    assert_code(&narrow.publish("room-1", 3), "RATE_LIMITED");
    for _ in 0..50 {
        assert_ok(&wide.publish("room-1", 4));
    }
}

#[test]
fn limits_that_are_not_as_agreed_refuse_the_token() {
    let server = Server::start(CONFIG);
    for limits in [
        json!(null),
        json!([]),
        json!({ "subscriptions": 0 }),
        json!({ "subscriptions": "1" }),
        json!({ "publish": 5 }),
        json!({ "publish": { "per_s": 0 } }),
        json!({ "publish": { "per_s": 1, "burst": 0 } }),
    ] {
        let response = Client::try_with(server.address, &Request::upgrade().token(&token(limits.clone())));
        response.err().unwrap_or_else(|| panic!("{limits} was taken")).assert_refused(401, "UNAUTHENTICATED");
    }
}

#[test]
fn a_refresh_brings_limits_of_its_own() {
    let server = Server::start(CONFIG);
    let mut client = Client::connect(server.address, &token(json!({ "subscriptions": 1 })));
    assert_eq!(subscriptions(&mut client), 1);
    assert_ok(&client.request(json!({ "type": "refresh", "token": token(json!({ "subscriptions": 2 })) })));
    assert_eq!(subscriptions(&mut client), 2);
    assert_ok(&client.request(json!({ "type": "refresh", "token": token(json!({})) })));
    assert_eq!(subscriptions(&mut client), 3);
}

#[test]
fn an_answer_of_the_webhook_narrows_as_a_token_does() {
    let application = Application::start(|call| {
        let everything = json!({ "**": { "subscribe": true } });
        let limits: Value = match call.body["query"]["limits"].as_str() {
            Some(text) => serde_json::from_str(text).expect("JSON"),
            None => json!({}),
        };
        (200, json!({ "userId": "ann", "pipes": everything, "limits": limits }).to_string())
    });
    let address = application.address;
    let config = format!("{CONFIG}[auth.webhook]\nurl = \"http://{address}/\"\nsecret = \"{SECRET}\"\n");
    let server = Launch::new(&config).without_token_key().start();
    let request = |limits: &str| Request::upgrade().target(&format!("/v1/connect?limits={limits}"));
    let mut client = Client::with(server.address, &request("%7B%22subscriptions%22%3A1%7D"));
    assert_eq!(subscriptions(&mut client), 1);
    let mut client = Client::with(server.address, &request("%7B%22subscriptions%22%3A9%7D"));
    assert_eq!(subscriptions(&mut client), 3);
    let refused = Client::try_with(server.address, &request("%7B%22subscriptions%22%3A0%7D")).err().expect("refused");
    assert_eq!(refused.status(), 503);
}
