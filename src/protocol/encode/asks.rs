//! The bodies of calls to the application: who asks, for what, and with which data.
//!
//! Each says its `kind` and carries a `delivery` of its own inside what is signed (INVARIANTS 31), so that an endpoint
//! can tell a call that was meant for another, and one that it has seen. Invariant: whatever comes in, what goes out is one
//! JSON object; `data`, `args` and `context` are JSON already and are copied as they are. Fields that do not concern the
//! call are left out, and so is what is not known of a user.
//!
//! Source: PROTOCOL.md §1 and §5, rulings A11, B17.

use super::{number, raw, string};
use crate::auth::identity::Identity;
use crate::shard::call::Asker;

/// What a rule is asked about; what does not concern the surface is empty or `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Case<'a> {
    /// The pipe's name; "" off pipes.
    pub pipe: &'a str,
    /// Captures of the pipe's definition, by name.
    pub params: &'a [(&'a str, &'a str)],
    /// An event's name and data.
    pub event: Option<(&'a str, &'a str)>,
    /// An action's name.
    pub action: Option<&'a str>,
    /// The arguments of an action, or the data of a message for a queue: JSON.
    pub args: Option<&'a str>,
    /// A queue's name.
    pub queue: Option<&'a str>,
    /// Whom a push is for: `user`, `connection`, `role`, `tenant` or `org`, and which.
    pub to: Option<(&'a str, &'a str)>,
}

/// A connection asks to be let in (`refresh`: to be asked about anew), with these headers (names in lower case) and this
/// query (B17).
pub fn authorize(
    refresh: bool,
    asker: &Asker<'_>,
    headers: &[(Box<str>, Box<str>)],
    query: &[(Box<str>, Box<str>)],
) -> String {
    written(|out| {
        begin(out, if refresh { "refresh" } else { "connect" }, asker);
        pairs(out, r#","headers":"#, headers.iter().map(|(name, value)| (&**name, &**value)));
        pairs(out, r#","query":"#, query.iter().map(|(name, value)| (&**name, &**value)));
    })
}

/// A rule, or the guard of this name, is the application's to decide. `surface` is `subscribe`, `publish`, `presence`,
/// `action`, `enqueue` or `push`; `context` the `ctx` so far, a JSON object.
pub fn rule(surface: &str, guard: Option<&str>, asker: &Asker<'_>, case: &Case<'_>, context: &str) -> String {
    written(|out| {
        begin(out, surface, asker);
        // Deciding about an action is not performing it: the one call must not pass for the other.
        raw(out, r#","rule":true"#);
        text(out, r#","guard":"#, guard);
        if !case.pipe.is_empty() {
            text(out, r#","pipe":"#, Some(case.pipe));
            pairs(out, r#","params":"#, case.params.iter().copied());
        }
        if let Some((name, data)) = case.event {
            text(out, r#","event":{"name":"#, Some(name));
            raw(out, r#","data":"#);
            raw(out, data);
            raw(out, "}");
        }
        text(out, r#","action":"#, case.action);
        text(out, r#","queue":"#, case.queue);
        if let Some(args) = case.args {
            raw(out, r#","args":"#);
            raw(out, args);
        }
        if let Some(to) = case.to {
            pairs(out, r#","to":"#, [to]);
        }
        raw(out, r#","context":"#);
        raw(out, context);
    })
}

/// An action is to be performed. `args` is JSON, `context` a JSON object.
pub fn action(name: &str, args: &str, asker: &Asker<'_>, context: &str) -> String {
    written(|out| {
        begin(out, "action", asker);
        text(out, r#","action":"#, Some(name));
        raw(out, r#","args":"#);
        raw(out, args);
        raw(out, r#","context":"#);
        raw(out, context);
    })
}

/// A message of a queue. `data` and `user` (of [`user`]) are JSON; `id` is the same at every attempt, `delivery` is not.
pub fn queue(queue: &str, id: &str, data: &str, user: &str, enqueued_at_ms: u64, delivery: &str) -> String {
    written(|out| {
        text(out, r#"{"kind":"queue","delivery":"#, Some(delivery));
        text(out, r#","queue":"#, Some(queue));
        text(out, r#","id":"#, Some(id));
        raw(out, r#","data":"#);
        raw(out, data);
        raw(out, r#","user":"#);
        raw(out, user);
        number(out, r#","enqueued_at":"#, enqueued_at_ms);
    })
}

/// A user as the calls know one: an object, or `null` for an anonymous connection.
pub fn user(identity: Option<&Identity>) -> String {
    let mut out = Vec::new();
    user_of(&mut out, identity);
    String::from_utf8(out).unwrap_or_default()
}

/// One object, without the brace that ends it.
fn written(build: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(512);
    build(&mut out);
    raw(&mut out, "}");
    // Only text was appended.
    String::from_utf8(out).unwrap_or_default()
}

fn begin(out: &mut Vec<u8>, kind: &str, asker: &Asker<'_>) {
    text(out, r#"{"kind":"#, Some(kind));
    text(out, r#","delivery":"#, Some(asker.delivery));
    text(out, r#","connection":"#, Some(asker.connection));
    text(out, r#","ip":"#, Some(&asker.ip.to_string()));
    raw(out, r#","user":"#);
    user_of(out, asker.identity);
}

fn user_of(out: &mut Vec<u8>, identity: Option<&Identity>) {
    let Some(identity) = identity else {
        raw(out, "null");
        return;
    };
    text(out, r#"{"id":"#, Some(identity.id()));
    text(out, r#","name":"#, identity.name());
    text(out, r#","role":"#, identity.role());
    list(out, r#","roles":"#, identity.roles());
    text(out, r#","team":"#, identity.team());
    text(out, r#","tenant":"#, identity.tenant());
    text(out, r#","org":"#, identity.org());
    if let Some(features) = identity.features() {
        list(out, r#","features":"#, features);
    }
    if let Some(info) = identity.info() {
        raw(out, r#","info":"#);
        raw(out, info);
    }
    raw(out, "}");
}

/// `before` and a string, where there is one.
fn text(out: &mut Vec<u8>, before: &str, value: Option<&str>) {
    if let Some(value) = value {
        raw(out, before);
        string(out, value);
    }
}

fn list<'t>(out: &mut Vec<u8>, before: &str, values: impl Iterator<Item = &'t str>) {
    raw(out, before);
    let mut separator = "[";
    for value in values {
        raw(out, separator);
        string(out, value);
        separator = ",";
    }
    raw(out, if separator == "[" { "[]" } else { "]" });
}

fn pairs<'p>(out: &mut Vec<u8>, before: &str, pairs: impl IntoIterator<Item = (&'p str, &'p str)>) {
    raw(out, before);
    let mut separator = "{";
    for (name, value) in pairs {
        raw(out, separator);
        string(out, name);
        raw(out, ":");
        string(out, value);
        separator = ",";
    }
    raw(out, if separator == "{" { "{}" } else { "}" });
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::identity::Profile;

    fn ann() -> Identity {
        Identity::new(&Profile {
            id: "ann",
            name: Some("A\"nn"),
            role: Some("admin"),
            roles: vec!["admin", "member"],
            tenant: Some("acme"),
            features: Some(vec!["chat"]),
            info: Some(r#"{"n":12345678901234567890123}"#),
            ..Profile::default()
        })
    }

    fn asker(identity: Option<&Identity>) -> Asker<'_> {
        Asker { identity, connection: "0-1-2", ip: IpAddr::from([10, 0, 0, 1]), delivery: "0-1-2.7" }
    }

    fn read(body: &str) -> Value {
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    #[test]
    fn invariants_31_each_call_has_its_kind_and_a_delivery() {
        let kind = |body: String| {
            let body = read(&body);
            assert!(body["delivery"].as_str().is_some_and(|delivery| !delivery.is_empty()), "{body}");
            body["kind"].as_str().unwrap().to_owned()
        };
        assert_eq!(kind(authorize(false, &asker(None), &[], &[])), "connect");
        assert_eq!(kind(authorize(true, &asker(None), &[], &[])), "refresh");
        assert_eq!(kind(rule("publish", None, &asker(None), &Case::default(), "{}")), "publish");
        assert_eq!(kind(action("a", "null", &asker(None), "{}")), "action");
        assert_eq!(kind(queue("q", "1", "null", "null", 1, "d")), "queue");
    }

    #[test]
    fn rk9_authorize_is_told_headers_query_and_the_locked_identity() {
        let headers = [("cookie".into(), "a=\"1\"; b=2".into()), ("authorization".into(), "Bearer x".into())];
        let query = [("room".into(), "é\n".into())];
        let body = read(&authorize(false, &asker(None), &headers, &query));
        let expected = json!({
            "kind": "connect", "delivery": "0-1-2.7", "connection": "0-1-2", "ip": "10.0.0.1", "user": null,
            "headers": { "cookie": "a=\"1\"; b=2", "authorization": "Bearer x" }, "query": { "room": "é\n" }
        });
        assert_eq!(body, expected);
        let identity = ann();
        let body = authorize(true, &asker(Some(&identity)), &[], &[]);
        assert!(body.contains("12345678901234567890123"), "information passes verbatim");
        let body = read(&body);
        assert_eq!((&body["headers"], &body["query"]), (&json!({}), &json!({})));
        let user = &body["user"];
        assert_eq!(
            (&user["id"], &user["name"], &user["roles"]),
            (&json!("ann"), &json!("A\"nn"), &json!(["admin", "member"]))
        );
        assert_eq!((user.get("team"), &user["tenant"], &user["features"]), (None, &json!("acme"), &json!(["chat"])));
    }

    #[test]
    fn a11_a_rule_is_told_what_concerns_its_surface() {
        let identity = ann();
        let case = Case {
            pipe: "team-red",
            params: &[("team", "red")],
            event: Some(("message", r#"{"n": 1e400}"#)),
            ..Case::default()
        };
        let body = rule("publish", Some("active"), &asker(Some(&identity)), &case, r#"{"plan":"pro"}"#);
        assert!(body.contains(r#""event":{"name":"message","data":{"n": 1e400}}"#), "{body}");
        let body = read(&body.replace("1e400", "1"));
        assert_eq!(
            (&body["guard"], &body["pipe"], &body["params"]),
            (&json!("active"), &json!("team-red"), &json!({ "team": "red" }))
        );
        assert_eq!((&body["context"], &body["user"]["id"]), (&json!({ "plan": "pro" }), &json!("ann")));
        for absent in ["action", "args", "queue", "to"] {
            assert_eq!(body.get(absent), None, "{absent}");
        }
        let case = Case { action: Some("send"), args: Some("[1]"), ..Case::default() };
        let body = read(&rule("action", None, &asker(None), &case, "{}"));
        assert_eq!((&body["action"], &body["args"], &body["user"]), (&json!("send"), &json!([1]), &Value::Null));
        for absent in ["guard", "pipe", "params", "event", "queue", "to"] {
            assert_eq!(body.get(absent), None, "{absent}");
        }
        let case = Case { queue: Some("jobs"), args: Some("{}"), ..Case::default() };
        assert_eq!(read(&rule("enqueue", None, &asker(None), &case, "{}"))["queue"], json!("jobs"));
        let case = Case { event: Some(("hello", "1")), to: Some(("user", "bob")), ..Case::default() };
        assert_eq!(read(&rule("push", None, &asker(None), &case, "{}"))["to"], json!({ "user": "bob" }));
    }

    #[test]
    fn rk2_an_action_and_rk3_a_message_say_whose_they_are() {
        let identity = ann();
        let body = read(&action("send", r#"{"text":"hi"}"#, &asker(Some(&identity)), r#"{"a":1}"#));
        assert_eq!((&body["action"], &body["args"]), (&json!("send"), &json!({ "text": "hi" })));
        assert_eq!(
            (&body["user"]["tenant"], &body["context"], &body["ip"]),
            (&json!("acme"), &json!({ "a": 1 }), &json!("10.0.0.1"))
        );
        let body = read(&queue("jobs", "7-1", "[1, 2]", &user(Some(&identity)), 1_700_000_000_123, "d-1"));
        let expected = json!({
            "kind": "queue", "delivery": "d-1", "queue": "jobs", "id": "7-1", "data": [1, 2], "user": read(&user(Some(&identity))),
            "enqueued_at": 1_700_000_000_123_u64
        });
        assert_eq!(body, expected);
        assert_eq!(user(None), "null");
    }

    proptest! {
        #[test]
        fn whatever_comes_in_is_one_object(name in ".{0,12}", value in ".{0,12}") {
            let identity = Identity::new(&Profile { id: &name, name: Some(&value), ..Profile::default() });
            let asker = Asker { identity: Some(&identity), connection: &name, ip: IpAddr::from([1; 16]), delivery: &value };
            let headers = [(name.as_str().into(), value.as_str().into())];
            let case = Case {
                pipe: &name, params: &[(&name, &value)], event: Some((&name, "1")), action: Some(&name), args: Some("2"),
                queue: Some(&value), to: Some((&name, &value)),
            };
            for body in [
                authorize(false, &asker, &headers, &headers),
                rule(&name, Some(&value), &asker, &case, "{}"),
                action(&name, "null", &asker, "{}"),
                queue(&name, &value, "null", &user(Some(&identity)), u64::MAX, &name),
            ] {
                prop_assert!(read(&body).is_object());
            }
        }
    }
}
