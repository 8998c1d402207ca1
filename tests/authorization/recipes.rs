//! The recipes of docs/authorization.md: each is taken from the page, loaded, and must do what the page says of it.

use std::process::Command;

use serde_json::{Value, json};

use crate::application::{Application, Call};
use crate::support::{Client, Launch, SECRET, Server, assert_code, assert_forbidden, assert_ok, sign, until};

/// Those that are tried below. The page has these and no others.
const RECIPES: &[&str] = &[
    "team-chat",
    "notifications",
    "announcements",
    "admin-events",
    "tenants",
    "moderation",
    "direct-messages",
    "admin-area",
    "documents",
];

/// The recipes of the page, by name.
fn page() -> Vec<(String, String)> {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/authorization.md")).expect("the page");
    let recipe = |part: &str| {
        let (name, rest) = part.split_once(" -->\n```toml\n").expect("a recipe is a block of TOML");
        (name.to_owned(), rest.split_once("\n```").expect("a block ends").0.to_owned())
    };
    page.split("<!-- recipe: ").skip(1).map(recipe).collect()
}

fn recipe(name: &str) -> String {
    page().into_iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("the page has no recipe {name}")).1
}

/// A server with this recipe.
fn start(name: &str) -> Server {
    Server::start(&recipe(name))
}

/// A server with this recipe, whose application is at hand.
fn start_with(name: &str, application: &Application) -> Server {
    Server::start(&recipe(name).replace("127.0.0.1:3000", &application.address.to_string()))
}

#[track_caller]
fn connect(server: &Server, claims: Value) -> Client {
    Client::connect(server.address, &sign(&claims.to_string()))
}

#[track_caller]
fn send(client: &mut Client, pipe: &str, event: &str, data: Value) -> Value {
    client.request(json!({ "type": "publish", "pipe": pipe, "event": event, "data": data }))
}

#[track_caller]
fn act(client: &mut Client, name: &str, args: Value) -> Value {
    client.request(json!({ "type": "action", "name": name, "args": args }))
}

/// The data of the events that have come and are due, in order.
#[track_caller]
fn heard(client: &mut Client) -> Vec<Value> {
    let messages = client.settle();
    messages.into_iter().filter(|message| message["type"] == "event").map(|message| message["data"].clone()).collect()
}

/// Waits until an event with this data has come; all events until then.
#[track_caller]
fn heard_until(client: &mut Client, last: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    until("the event comes", || {
        all.extend(heard(client));
        all.contains(last)
    });
    all
}

#[test]
fn the_page_has_these_recipes_and_all_of_them_are_clean() {
    let page = page();
    let names: Vec<&str> = page.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, RECIPES);
    let directory = tempfile::tempdir().expect("a directory");
    for (name, recipe) in &page {
        let file = directory.path().join(format!("{name}.toml"));
        let rest = format!(
            "\n[auth.token]\nhmac_secret = \"{SECRET}\"\n[[control.key]]\nname = \"app\"\nsecret = \"{SECRET}\"\nallow = [\"*\"]\n"
        );
        std::fs::write(&file, format!("{recipe}{rest}")).expect("a file");
        let checked = Command::new(env!("CARGO_BIN_EXE_pipeward")).arg("check").arg("--strict").arg(&file).output();
        let checked = checked.expect("it runs");
        let said = [checked.stdout, checked.stderr].concat();
        assert_eq!(checked.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&said));
    }
}

// GD-4, GD-7, RK-4, SR-9, A13
#[test]
fn team_chat() {
    let server = start("team-chat");
    let mut ann = connect(&server, json!({ "sub": "ann", "team": "red" }));
    let mut bob = connect(&server, json!({ "sub": "bob", "team": "red" }));
    let hello = json!({ "text": "hello" });
    for outsider in [
        json!({ "sub": "carl", "team": "blue" }),
        json!({ "sub": "dora" }),
        json!({ "sub": "eve", "team": "team-red" }),
    ] {
        let mut outsider = connect(&server, outsider);
        assert_forbidden(&outsider.subscribe("team-red"));
        assert_forbidden(&send(&mut outsider, "team-red", "message", hello.clone()));
        assert_forbidden(&outsider.request(json!({ "type": "presence", "pipe": "team-red" })));
    }
    assert_ok(&ann.subscribe("team-red"));
    assert_ok(&bob.subscribe("team-red"));
    assert_ok(&ann.request(json!({ "type": "presence", "pipe": "team-red" })));
    // What is not of the agreed form reaches nobody, and the reply says where.
    for (data, place) in [
        (json!({ "text": "" }), "`/text` must have at least 1 characters"),
        (json!({ "text": 7 }), "`/text` must be of type string"),
        (json!({}), r#"The data must have the member "text""#),
        (json!({ "text": "x", "html": "<b>" }), "The data must have no members but those that the schema names"),
        (json!("x"), "The data must be of type object"),
    ] {
        let reply = send(&mut ann, "team-red", "message", data);
        assert_code(&reply, "SCHEMA");
        assert_eq!(reply["error"], place);
    }
    assert_code(&send(&mut ann, "team-red", "typing", json!("much more")), "PAYLOAD_TOO_LARGE");
    assert_forbidden(&send(&mut bob, "team-red", "other", json!(1)));
    assert_ok(&send(&mut bob, "team-red", "typing", json!(true)));
    assert_ok(&send(&mut bob, "team-red", "message", hello.clone()));
    assert_eq!(heard_until(&mut ann, &hello), [json!(true), hello.clone()]);
    // The application is held to the form as well (E5), and not to the rate.
    server
        .api
        .call("publish", json!({ "pipe": "team-red", "event": "message", "data": {} }))
        .assert_refused(422, "SCHEMA");
    let last = (0..20).map(|_| send(&mut bob, "team-red", "message", hello.clone())).find(|reply| reply["ok"] != true);
    assert_code(&last.expect("over the rate"), "RATE_LIMITED");
}

// HP-3, HP-5, SR-8
#[test]
fn notifications() {
    let server = start("notifications");
    let mut ann = connect(&server, json!({ "sub": "ann" }));
    let mut bob = connect(&server, json!({ "sub": "bob" }));
    assert_forbidden(&bob.subscribe("user-ann"));
    assert_forbidden(&bob.publish("user-ann", 1));
    assert_forbidden(&ann.publish("user-ann", 1));
    assert_ok(&ann.subscribe("user-ann"));
    assert_ok(&bob.subscribe("user-bob"));
    assert_eq!(
        server.api.delivered("publish?count=true", json!({ "pipe": "user-ann", "event": "e", "data": "for ann" })),
        1
    );
    ann.expect_event("user-ann", "for ann");
    assert_eq!(heard(&mut bob), Vec::<Value>::new());
}

// HP-4, HP-5
#[test]
fn announcements() {
    let server = start("announcements");
    let mut all =
        [json!({ "sub": "ann" }), json!({ "sub": "bob", "tenant": "acme" })].map(|claims| connect(&server, claims));
    for one in &mut all {
        assert_ok(&one.subscribe("announcements"));
        assert_forbidden(&one.publish("announcements", 1));
        assert_forbidden(&one.subscribe("announcements-2"));
    }
    let event = json!({ "pipe": "announcements", "event": "maintenance", "data": { "at": "22:00" } });
    assert_eq!(server.api.delivered("publish?count=true", event), 2);
    for one in &mut all {
        one.expect_event("announcements", json!({ "at": "22:00" }));
    }
}

// RK-4, SR-7, C16, F12
#[test]
fn admin_events() {
    let server = start("admin-events");
    let info = json!({ "projects": ["apollo"] });
    let mut ann = connect(&server, json!({ "sub": "ann", "role": "admin", "info": info }));
    let mut bob = connect(&server, json!({ "sub": "bob", "role": "member", "info": info }));
    for outsider in
        [json!({ "sub": "carl", "role": "admin" }), json!({ "sub": "d", "info": { "projects": ["gemini"] } })]
    {
        let mut outsider = connect(&server, outsider);
        assert_forbidden(&outsider.subscribe("project-apollo"));
        assert_forbidden(&send(&mut outsider, "project-apollo", "message", json!(1)));
    }
    assert_ok(&ann.subscribe("project-apollo"));
    assert_ok(&bob.subscribe("project-apollo"));
    assert_forbidden(&send(&mut bob, "project-apollo", "moderationLog", json!("x")));
    assert_forbidden(&send(&mut bob, "project-apollo", "alert", json!({ "level": 9 })));
    assert_forbidden(&send(&mut ann, "project-apollo", "alert", json!({ "level": 9 })));
    assert_ok(&send(&mut ann, "project-apollo", "moderationLog", json!("log")));
    ann.expect_event("project-apollo", "log");
    let alerts = [json!({ "level": 1 }), json!({ "level": 3 }), json!({}), json!({ "level": "9" })];
    for data in &alerts {
        server.api.done("publish", json!({ "pipe": "project-apollo", "event": "alert", "data": data }));
    }
    // By the application as well: events of different senders have no order among them.
    server.api.done("publish", json!({ "pipe": "project-apollo", "event": "message", "data": "last" }));
    // A filter that cannot be computed delivers nothing; for admins it is decided before that.
    assert_eq!(heard_until(&mut bob, &json!("last")), [json!({ "level": 3 }), json!("last")]);
    let [first, second, third, fourth] = alerts;
    assert_eq!(heard_until(&mut ann, &json!("last")), [first, second, third, fourth, json!("last")]);
}

// GD-5, GD-7, D14, F9
#[test]
fn tenants() {
    let server = start("tenants");
    let everything = json!({ "**": { "subscribe": true, "publish": true, "presence": true } });
    let claims = |sub: &str, tenant: &str, org: &str| json!({ "sub": sub, "tenant": tenant, "org": org, "features": ["chat"], "pipes": everything });
    let pipe = "acme:o1:room-1";
    for (outsider, code) in [
        (claims("eve", "globex", "o1"), "SCOPE_MISMATCH"),
        (claims("eve", "acme", "o2"), "SCOPE_MISMATCH"),
        (json!({ "sub": "eve", "features": ["chat"], "pipes": everything }), "SCOPE_MISMATCH"),
        (json!({ "sub": "eve", "tenant": "acme", "org": "o1", "pipes": everything }), "FEATURE_DISABLED"),
        (
            json!({ "sub": "eve", "tenant": "acme", "org": "o1", "features": ["video"], "pipes": everything }),
            "FEATURE_DISABLED",
        ),
    ] {
        let mut outsider = connect(&server, outsider);
        assert_code(&outsider.subscribe(pipe), code);
        assert_code(
            &send(&mut outsider, pipe, "message", json!({ "tenantId": "acme", "author": { "orgId": "o1" } })),
            code,
        );
        assert_code(&outsider.request(json!({ "type": "presence", "pipe": pipe })), code);
    }
    let mut ann = connect(&server, claims("ann", "acme", "o1"));
    assert_ok(&ann.subscribe(pipe));
    for (data, pointer) in [
        (json!({ "tenantId": "globex", "author": { "orgId": "o1" } }), "/tenantId"),
        (json!({ "tenantId": "acme", "author": { "orgId": "o2" } }), "/author/orgId"),
        (json!({ "tenantId": "acme" }), "/author/orgId"),
        (json!("acme"), "/tenantId"),
    ] {
        let reply = send(&mut ann, pipe, "message", data);
        assert_code(&reply, "SCOPE_MISMATCH");
        assert!(reply["error"].as_str().is_some_and(|error| error.contains(pointer)), "{reply}");
    }
    let good = json!({ "tenantId": "acme", "author": { "orgId": "o1" }, "text": "hi" });
    assert_ok(&send(&mut ann, pipe, "message", good.clone()));
    assert_eq!(heard_until(&mut ann, &good), [good]);
}

// RK-3, SR-14, F15, F16
#[test]
fn moderation() {
    let attempts = std::sync::atomic::AtomicUsize::new(0);
    let application = Application::start(move |_| {
        let first = attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        (if first { 500 } else { 200 }, String::new())
    });
    let server = start_with("moderation", &application);
    let report = json!({ "message": "m-1", "reason": "spam" });
    let enqueue = |client: &mut Client, queue: &str, data: &Value| {
        client.request(json!({ "type": "enqueue", "queue": queue, "data": data }))
    };
    let mut guest = connect(&server, json!({ "sub": "guest", "role": "guest" }));
    assert_forbidden(&enqueue(&mut guest, "reports", &report));
    let mut ann = connect(&server, json!({ "sub": "ann", "role": "member", "tenant": "acme" }));
    assert_forbidden(&enqueue(&mut ann, "other", &report));
    assert_code(&enqueue(&mut ann, "reports", &json!({ "message": "m-1", "reason": "envy" })), "SCHEMA");
    assert_code(
        &enqueue(&mut ann, "reports", &json!({ "message": "x".repeat(5_000), "reason": "spam" })),
        "PAYLOAD_TOO_LARGE",
    );
    assert_ok(&enqueue(&mut ann, "reports", &report));
    assert_ok(&enqueue(&mut ann, "reports", &json!({ "message": "m-2", "reason": "abuse" })));
    let calls = application.await_calls(3);
    let told = |call: &Call, field: &str| call.body[field].clone();
    assert_eq!(calls[0].path, "/realtime/queues/reports");
    assert_eq!((told(&calls[0], "kind"), told(&calls[0], "queue")), (json!("queue"), json!("reports")));
    assert_eq!((told(&calls[0], "data"), told(&calls[0], "user")["tenant"].clone()), (report, json!("acme")));
    // The head is tried again before the next one, as the same message by another delivery.
    assert_eq!(told(&calls[0], "id"), told(&calls[1], "id"));
    assert_ne!(told(&calls[0], "delivery"), told(&calls[1], "delivery"));
    assert_eq!(told(&calls[2], "data")["message"], "m-2");
}

// SR-9, SR-13, SR-15, D14
#[test]
fn direct_messages() {
    let server = start("direct-messages");
    let mut ann = connect(&server, json!({ "sub": "ann" }));
    let mut phone = connect(&server, json!({ "sub": "ann" }));
    let mut bob = connect(&server, json!({ "sub": "bob" }));
    let mut eve = connect(&server, json!({ "sub": "eve" }));
    for pipe in ["dm:ann:bob", "dm:bob:ann"] {
        assert_forbidden(&eve.subscribe(pipe));
        assert_forbidden(&send(&mut eve, pipe, "message", json!("from eve")));
    }
    assert_ok(&bob.subscribe("dm:ann:bob"));
    assert_ok(&send(&mut ann, "dm:ann:bob", "message", json!("hi")));
    bob.expect_event("dm:ann:bob", "hi");
    assert_forbidden(&bob.subscribe("dm:ann:eve"));
    let push = |client: &mut Client, to: Value| {
        client.request(json!({ "type": "push", "to": to, "event": "clipboard", "data": 1 }))
    };
    for to in [
        json!({ "user": "bob" }),
        json!({ "role": "admin" }),
        json!({ "tenant": "acme" }),
        json!({ "connection": "0-0-1" }),
    ] {
        assert_forbidden(&push(&mut ann, to));
    }
    let reply = push(&mut ann, json!({ "user": "ann" }));
    assert_ok(&reply);
    assert!(reply["delivered"].as_u64().is_some_and(|delivered| delivered >= 1), "{reply}");
    let pushed = phone.receive();
    assert_eq!((&pushed["type"], &pushed["sender"]), (&json!("push"), &json!("ann")), "{pushed}");
    assert!(eve.settle().is_empty() && bob.settle().is_empty());
}

// RK-2, SR-2, SR-3, SR-4, SR-5, SR-10, F10, F11, F14
#[test]
fn admin_area() {
    let application = Application::start(|call| match call.body["args"]["room"].as_str() {
        Some("gone") => (404, r#"{"error":{"code":"NO_ROOM","message":"There is no such room"}}"#.to_owned()),
        _ => (200, json!({ "closed": call.body["args"]["room"], "plan": call.body["context"]["plan"] }).to_string()),
    });
    let server = start_with("admin-area", &application);
    let room = json!({ "room": "r-1" });
    let mut suspended =
        connect(&server, json!({ "sub": "s", "role": "admin", "info": { "plan": "pro", "suspended": true } }));
    for reply in [act(&mut suspended, "closeRoom", room.clone()), suspended.subscribe("audit-trail")] {
        assert_code(&reply, "FORBIDDEN");
        assert_eq!(reply["error"], "Your account is suspended");
    }
    let everything = json!({ "**": { "subscribe": true } });
    let mut bob =
        connect(&server, json!({ "sub": "bob", "role": "member", "info": { "plan": "pro" }, "pipes": everything }));
    for reply in [act(&mut bob, "closeRoom", room.clone()), bob.subscribe("audit-trail")] {
        assert_code(&reply, "ADMINS_ONLY");
        assert_eq!(reply["error"], "Admins only");
    }
    let mut free = connect(&server, json!({ "sub": "free", "role": "admin" }));
    assert_ok(&free.subscribe("audit-trail"));
    assert_forbidden(&act(&mut free, "closeRoom", room.clone()));
    let mut ann = connect(&server, json!({ "sub": "ann", "role": "admin", "info": { "plan": "pro" } }));
    assert_code(&act(&mut ann, "openRoom", room.clone()), "UNKNOWN_ACTION");
    let reply = act(&mut ann, "closeRoom", json!({ "room": "Not a room" }));
    assert_code(&reply, "INVALID");
    assert_eq!(reply["error"], "`/room` must match the pattern `^[a-z0-9-]{1,40}$`");
    assert!(application.calls().is_empty(), "nothing of this concerns the application: {:?}", application.calls());
    let reply = act(&mut ann, "closeRoom", room.clone());
    assert_ok(&reply);
    assert_eq!(reply["result"], json!({ "closed": "r-1", "plan": "pro" }));
    let reply = act(&mut ann, "closeRoom", json!({ "room": "gone" }));
    assert_code(&reply, "NO_ROOM");
    assert_eq!(reply["error"], "There is no such room");
    let call = &application.calls()[0];
    assert_eq!((&*call.path, &call.body["action"]), ("/realtime/actions/closeRoom", &json!("closeRoom")));
    assert_eq!(call.body["user"]["id"], "ann");
    let last = (0..10).map(|_| act(&mut ann, "closeRoom", room.clone())).find(|reply| reply["ok"] != true);
    assert_code(&last.expect("over the rate"), "RATE_LIMITED");
}

// SR-6, RK-6, A11
#[test]
fn documents() {
    let application =
        Application::start(|call| match (call.body["user"]["id"].as_str(), call.body["params"]["id"].as_str()) {
            (Some("ann"), Some("7")) => (200, r#"{"allow":true}"#.to_owned()),
            (_, Some("broken")) => (500, r#"{"allow":true}"#.to_owned()),
            (_, Some("odd")) => (200, r#"{"allow":"true"}"#.to_owned()),
            _ => (200, r#"{"allow":false}"#.to_owned()),
        });
    let server = start_with("documents", &application);
    let mut bob = connect(&server, json!({ "sub": "bob" }));
    let mut ann = connect(&server, json!({ "sub": "ann" }));
    assert_forbidden(&bob.subscribe("doc-7"));
    for pipe in ["doc-8", "doc-broken", "doc-odd"] {
        assert_forbidden(&ann.subscribe(pipe));
        assert_forbidden(&ann.publish(pipe, 1));
    }
    let before = application.calls().len();
    for _ in 0..3 {
        assert_ok(&ann.subscribe("doc-7"));
        assert_ok(&ann.publish("doc-7", "edit"));
    }
    let calls = application.calls();
    let kinds: Vec<&Value> = calls[before..].iter().map(|call| &call.body["kind"]).collect();
    assert_eq!(kinds, ["subscribe", "publish"], "each is asked once");
    assert_eq!(calls[before].body["pipe"], "doc-7");
}

/// The page's example of `[auth.webhook]` is one.
#[test]
fn the_webhook_of_the_page_is_a_configuration() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/authorization.md")).expect("the page");
    let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split_once("```")).expect("a block").0;
    assert!(block.starts_with("[auth.webhook]"));
    let server = Launch::new(block).without_token_key().start();
    // Nobody answers there.
    let refused = Client::try_with(server.address, &crate::support::Request::upgrade()).err().expect("refused");
    assert_eq!(refused.status(), 503);
    assert!(refused.header("retry-after").is_some());
}
