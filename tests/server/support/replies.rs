//! The messages that most tests send, and what they expect of the answers.

use serde_json::{Value, json};

use super::Client;

/// `[limits]` without rates, for tests that send much and are not about rates.
pub const NO_RATES: &str =
    "message = { per_s = 0 }\npublish = { per_s = 0 }\nsubscribe = { per_s = 0 }\nbytes = { per_s = 0 }\n";

impl Client {
    /// Asks to be subscribed to a pipe; the reply.
    #[track_caller]
    pub fn subscribe(&mut self, pipe: &str) -> Value {
        self.request(json!({"type": "subscribe", "pipe": pipe}))
    }

    /// Publishes the event `e` and asks for a reply; the reply.
    #[track_caller]
    pub fn publish(&mut self, pipe: &str, data: impl Into<Value>) -> Value {
        self.request(json!({"type": "publish", "pipe": pipe, "event": "e", "data": data.into()}))
    }

    /// Publishes the event `e` without asking for a reply.
    #[track_caller]
    pub fn tell(&mut self, pipe: &str, data: impl Into<Value>) {
        self.send(json!({"type": "publish", "pipe": pipe, "event": "e", "data": data.into()}));
    }

    /// Asserts that the next message is an event of this pipe with this data.
    #[track_caller]
    pub fn expect_event(&mut self, pipe: &str, data: impl Into<Value>) {
        let heard = self.receive();
        assert_eq!((&heard["type"], &heard["pipe"]), (&json!("event"), &json!(pipe)), "{heard}");
        assert_eq!(heard["data"], data.into(), "{heard}");
    }

    /// The worker that serves this connection, from its name.
    #[track_caller]
    pub fn worker(&self) -> usize {
        let name = self.welcome["connection"].as_str().expect("a name");
        name.split('-').nth(1).and_then(|worker| worker.parse().ok()).expect("a worker in the name")
    }
}

/// Asserts that what was asked for is done.
#[track_caller]
pub fn assert_ok(reply: &Value) {
    assert_eq!(reply["ok"], true, "{reply}");
}

/// Asserts a refusal with this code and a sentence.
#[track_caller]
pub fn assert_code(reply: &Value, code: &str) {
    assert_eq!((&reply["ok"], &reply["code"]), (&json!(false), &json!(code)), "{reply}");
    assert!(reply["error"].as_str().is_some_and(|error| !error.is_empty()), "{reply}");
}

/// Asserts the refusal of what nothing allows.
#[track_caller]
pub fn assert_forbidden(reply: &Value) {
    assert_code(reply, "FORBIDDEN");
    assert_eq!(reply["error"], "Access denied", "{reply}");
}
