//! The frames of the wire that the load generator needs, field for field as the real server sends them.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

/// A message of a client.
#[derive(Deserialize)]
pub struct Request<'a> {
    /// What is asked for.
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// Echoed in the reply; no reply without it.
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    /// The pipe.
    #[serde(borrow)]
    pub pipe: Option<Cow<'a, str>>,
    /// Several pipes at once.
    pub pipes: Option<Vec<String>>,
    /// Name of the event.
    #[serde(borrow)]
    pub event: Option<Cow<'a, str>>,
    /// Passed on as it came.
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    /// False leaves the sender's own connection out.
    pub echo: Option<bool>,
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    pipe: &'a str,
    event: &'a str,
    data: Option<&'a RawValue>,
    sender: &'a str,
    ts: u64,
}

/// The event frame of a publish.
pub fn event(request: &Request<'_>, sender: &str) -> String {
    let event = Event {
        kind: "event",
        pipe: request.pipe.as_deref().unwrap_or(""),
        event: request.event.as_deref().unwrap_or(""),
        data: request.data,
        sender,
        // Unix milliseconds.
        ts: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
    };
    serde_json::to_string(&event).expect("strings and numbers serialise")
}

/// The first frame of a connection.
pub fn welcome(connection: u64, user: &str) -> String {
    json!({"type": "welcome", "protocol": 1, "connection": connection.to_string(), "user": {"id": user}, "pipes": {},
        "ping_s": 0, "limits": {"message_bytes": 65536}})
    .to_string()
}

/// The reply to a message with an `id` (as it stood in that message).
pub fn reply(id: &str, ok: bool) -> String {
    if ok {
        format!(r#"{{"type":"reply","id":{id},"ok":true}}"#)
    } else {
        format!(r#"{{"type":"reply","id":{id},"ok":false,"code":"INVALID","error":"unknown type"}}"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_carries_the_data_as_it_came() {
        let text = r#"{"type":"publish","pipe":"a","event":"e","data": [1e400,12345678901234567890123] }"#;
        let request: Request = serde_json::from_str(text).unwrap();
        let event = event(&request, "u1");
        let start =
            r#"{"type":"event","pipe":"a","event":"e","data":[1e400,12345678901234567890123],"sender":"u1","ts":"#;
        assert!(event.starts_with(start), "{event}");
    }

    #[test]
    fn ids_of_either_type_are_echoed_as_they_came() {
        assert_eq!(reply("7", true), r#"{"type":"reply","id":7,"ok":true}"#);
        assert!(reply("\"a\"", false).contains(r#""id":"a","ok":false"#));
    }
}
