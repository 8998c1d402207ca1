//! Push by a client: refused unless a rule allows it for that target, and never beyond the sender's own tenant.

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Application, Client, NO_RATES, Reply, Request, Server, assert_code, assert_forbidden, assert_ok,
    one_on_each, sign, token_with, unix_ms,
};

fn server(workers: usize, rules: &str) -> Server {
    Server::start(&format!(
        "[edge]\nworkers = {workers}\n[auth]\nanonymous = true\n{AUDITED}[limits]\n{NO_RATES}push = {{ per_s = 0 }}\n{rules}"
    ))
}

fn connect(server: &Server, claims: Value) -> Client {
    Client::connect(server.address, &sign(&claims.to_string()))
}

fn push(client: &mut Client, to: Value) -> Value {
    client.request(json!({"type": "push", "to": to.clone(), "event": "nudge", "data": {"for": to}}))
}

const ALL: &str = "[push]\nallow = true\npublic = true\n";

/// The targets by which somebody of tenant `red` could be reached.
fn shapes(connection: &str) -> [Value; 5] {
    [
        json!({"user": "ann"}),
        json!({"connection": connection}),
        json!({"role": "member"}),
        json!({"tenant": "red"}),
        json!({"org": "left"}),
    ]
}

// SR-13, SR-15, RK-5: by default nobody reaches anybody, not even themselves, whatever else a token grants.
#[test]
fn it_is_refused_by_default() {
    for rules in ["", "[push]\n", "[push]\nallow = false\n", "[push]\npublic = true\n"] {
        let server = server(2, rules);
        let claims = json!({"tenant": "red", "org": "left", "role": "member"});
        let mut ann = Client::connect(server.address, &token_with("ann", claims.clone()));
        let mut root = Client::connect(server.address, &token_with("root", claims));
        for to in shapes(&ann.name()) {
            assert_forbidden(&push(&mut root, to.clone()));
            assert_forbidden(&push(&mut ann, to));
        }
        assert_eq!((ann.settle(), root.settle()), (vec![], vec![]), "{rules:?}");
    }
}

// SR-13, PROTOCOL §6: the rule of the sample: oneself, or an admin anybody; a target of another shape is no way around it.
#[test]
fn the_rule_decides_by_sender_and_target() {
    let server = server(2, "[push]\nallow = \"user.role == 'admin' || to.user == user.id\"\n");
    let claims = |user: &str, role: &str| json!({"sub": user, "role": role, "tenant": "red", "org": "left"});
    let mut ann = connect(&server, claims("ann", "member"));
    let mut ben = connect(&server, claims("ben", "member"));
    let mut root = connect(&server, claims("root", "admin"));
    let mut shapes_of_ben = shapes(&ben.name());
    shapes_of_ben[0] = json!({"user": "ben"});
    for to in shapes_of_ben.iter().cloned().chain([json!({"user": "ANN"}), json!({"user": "a"})]) {
        assert_forbidden(&push(&mut ann, to));
    }
    // Nor what names the own connection, which is not what the rule speaks of.
    let own = json!({"connection": ann.name()});
    assert_forbidden(&push(&mut ann, own));
    for client in [&mut ann, &mut ben, &mut root] {
        assert_eq!(client.settle(), [] as [Value; 0]);
    }
    let reply = push(&mut ann, json!({"user": "ann"}));
    assert_eq!((&reply["ok"], &reply["delivered"]), (&json!(true), &json!(1)), "{reply}");
    let heard = ann.receive();
    assert_eq!((&heard["type"], &heard["event"], &heard["sender"]), (&json!("push"), &json!("nudge"), &json!("ann")));
    assert_eq!(heard["data"], json!({"for": {"user": "ann"}}));
    assert!(heard["ts"].as_u64().is_some_and(|ts| unix_ms().abs_diff(ts) < 60_000), "{heard}");
    for to in shapes_of_ben {
        assert_ok(&push(&mut root, to.clone()));
        let heard = ben.receive();
        assert_eq!((&heard["data"]["for"], &heard["sender"]), (&to, &json!("root")), "{heard}");
    }
}

// RK-6: what fails or is no boolean allows nothing.
#[test]
fn a_rule_that_fails_refuses() {
    for rule in ["user.team == to.user", "event.data.open", "user.info.friends", "to.role == user.role"] {
        let server = server(1, &format!("[push]\nallow = \"{rule}\"\n"));
        let mut ann = connect(&server, json!({"sub": "ann", "role": "member", "info": {"friends": ["ann"]}}));
        assert_forbidden(&push(&mut ann, json!({"user": "ann"})));
        let message = json!({"type": "push", "to": {"user": "ann"}, "event": "nudge", "data": {"open": "true"}});
        assert_forbidden(&ann.request(message));
        assert_eq!(ann.settle(), [] as [Value; 0], "{rule}");
    }
}

// D14, C20, INVARIANTS 4: whatever the rule allows and whatever the target, the sender's tenant is the end of it.
#[test]
fn it_never_leaves_the_tenant() {
    let server = server(2, ALL);
    let claims = |user: &str, tenant: &str| json!({"sub": user, "tenant": tenant, "org": "left", "role": "member"});
    let mut red = connect(&server, claims("ann", "red"));
    let mut blue = connect(&server, claims("ann", "blue"));
    let mut none = connect(&server, json!({"sub": "ann", "org": "left", "role": "member"}));
    let mut nobody = Client::with(server.address, &Request::upgrade());
    let mut sender = connect(&server, json!({"sub": "root", "tenant": "red", "role": "admin", "org": "right"}));
    for to in shapes(&red.name()) {
        let reply = push(&mut sender, to.clone());
        let own = u64::from(to["tenant"] == "red");
        assert_eq!((&reply["ok"], &reply["delivered"]), (&json!(true), &json!(1 + own)), "{to}: {reply}");
        assert_eq!(red.receive()["data"]["for"], to);
        assert_eq!(sender.settle().len() as u64, own);
    }
    // Everything of another tenant, of none, and of who is nobody.
    for to in [
        json!({"connection": blue.name()}),
        json!({"connection": none.name()}),
        json!({"connection": nobody.name()}),
        json!({"tenant": "blue"}),
    ] {
        assert_code(&push(&mut sender, to), "NOT_CONNECTED");
    }
    // A sender without a tenant reaches those without one.
    let mut free = connect(&server, json!({"sub": "free", "role": "admin"}));
    for to in
        [json!({"user": "ann"}), json!({"connection": none.name()}), json!({"role": "member"}), json!({"org": "left"})]
    {
        let reply = push(&mut free, to.clone());
        assert_eq!((&reply["ok"], &reply["delivered"]), (&json!(true), &json!(1)), "{to}: {reply}");
        assert_eq!(none.receive()["data"]["for"], to);
    }
    for to in [json!({"tenant": "red"}), json!({"connection": red.name()}), json!({"connection": blue.name()})] {
        assert_code(&push(&mut free, to), "NOT_CONNECTED");
    }
    for client in [&mut red, &mut blue, &mut none, &mut nobody, &mut sender, &mut free] {
        assert_eq!(client.settle(), [] as [Value; 0]);
    }
}

// C19: nobody there, or of the right name in another tenant only.
#[test]
fn nobody_there_is_said_so() {
    let server = server(2, ALL);
    let mut ann = connect(&server, json!({"sub": "ann", "tenant": "red"}));
    let _other = connect(&server, json!({"sub": "ben", "tenant": "blue", "role": "admin", "org": "left"}));
    for to in [
        json!({"user": "ben"}),
        json!({"user": "**"}),
        json!({"role": "admin"}),
        json!({"org": "left"}),
        json!({"tenant": "green"}),
        json!({"connection": "0-0-0-0"}),
        json!({"connection": "nonsense"}),
    ] {
        let reply = push(&mut ann, to.clone());
        assert_eq!(reply["ok"], false, "{to}: {reply}");
        assert!(["NOT_CONNECTED", "INVALID"].contains(&reply["code"].as_str().unwrap_or_default()), "{to}: {reply}");
    }
    assert_code(&push(&mut ann, json!({"user": "ben"})), "NOT_CONNECTED");
}

// C18
#[test]
fn a_target_is_one_key() {
    let server = server(1, ALL);
    let mut ann = connect(&server, json!({"sub": "ann", "tenant": "red"}));
    for to in [
        json!({}),
        json!({"user": "ann", "role": "x"}),
        json!({"everyone": true}),
        json!({"user": 5}),
        json!({"user": null}),
        json!({"user": ["ann"]}),
        json!("ann"),
        json!(null),
        json!([{"user": "ann"}]),
    ] {
        assert_code(&push(&mut ann, to), "INVALID");
    }
    for message in [
        json!({"type": "push", "event": "e", "data": 1}),
        json!({"type": "push", "to": {"user": "ann"}, "data": 1}),
        json!({"type": "push", "to": {"user": "ann"}, "event": "a b", "data": 1}),
        json!({"type": "push", "to": {"user": "ann"}, "event": "", "data": 1}),
    ] {
        assert_code(&ann.request(message), "INVALID");
    }
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// B21: whoever is nobody pushes to nobody.
#[test]
fn who_is_nobody_may_not() {
    let server = server(1, ALL);
    let mut nobody = Client::with(server.address, &Request::upgrade());
    let mut ann = connect(&server, json!({"sub": "ann"}));
    let own = json!({"connection": nobody.name()});
    for to in [json!({"user": "ann"}), own] {
        assert_code(&push(&mut nobody, to), "UNAUTHENTICATED");
    }
    assert_eq!((nobody.settle(), ann.settle()), (vec![], vec![]));
}

// SR-12, SR-15: wherever they are; the sum is what was delivered.
#[test]
fn it_reaches_every_worker() {
    const WORKERS: usize = 3;
    let server = server(WORKERS, ALL);
    let claims = json!({"tenant": "red", "org": "left", "role": "member"});
    let mut all = one_on_each(server.address, WORKERS, &token_with("ann", claims));
    let mut sender = connect(&server, json!({"sub": "root", "tenant": "red"}));
    for to in [json!({"user": "ann"}), json!({"role": "member"}), json!({"org": "left"}), json!({"tenant": "red"})] {
        let own = u64::from(to["tenant"] == "red");
        let reply = push(&mut sender, to.clone());
        assert_eq!(reply["delivered"], WORKERS as u64 + own, "{to}: {reply}");
        for client in &mut all {
            assert_eq!(client.receive()["data"]["for"], to);
        }
        sender.settle();
    }
    for client in &mut all {
        let to = json!({"connection": client.name()});
        assert_eq!(push(&mut sender, to.clone())["delivered"], 1);
        assert_eq!(client.receive()["data"]["for"], to);
    }
    assert!(all.iter_mut().all(|client| client.settle().is_empty()));
}

// §2: without an `id` it is done and nobody is told; data passes as it came (INVARIANTS 26).
#[test]
fn data_passes_as_it_came() {
    let server = server(2, ALL);
    let mut ann = connect(&server, json!({"sub": "ann"}));
    let mut ben = connect(&server, json!({"sub": "ben"}));
    ben.send_text(r#"{"type":"push","to":{"user":"ann"},"event":"e","data":{"n": 12345678901234567890123 }}"#);
    let heard = String::from_utf8(ann.frame().expect("a frame").payload).expect("UTF-8");
    assert!(heard.contains(r#""data":{"n": 12345678901234567890123 }"#), "{heard}");
    ben.send(json!({"type": "push", "to": {"user": "nosuch"}, "event": "e"}));
    assert_eq!(ben.settle(), [] as [Value; 0]);
    ben.send(json!({"type": "push", "to": {"user": "ann"}, "event": "e"}));
    assert_eq!(ann.receive()["data"], Value::Null);
}

// F10, SR-2, A11: guards stand before the rule, the application's too; what it is told.
#[test]
fn guards_stand_before_it() {
    let application = Application::start(|_| Reply::allow(false));
    let url = application.url("/guard");
    let server = server(
        2,
        &format!(
            "[[guard]]\nrequire = \"user.role != 'banned'\"\ncode = \"BANNED\"\nmessage = \"Not you\"\n\
             [push]\nallow = true\nguard = [{{ name = \"friends\", url = \"{url}\" }}]\n"
        ),
    );
    let mut ann = connect(&server, json!({"sub": "ann", "role": "member"}));
    let mut ben = connect(&server, json!({"sub": "ben", "role": "banned"}));
    assert_code(&push(&mut ben, json!({"user": "ann"})), "BANNED");
    assert!(application.heard().is_empty(), "the first refusal ends it");
    assert_forbidden(&push(&mut ann, json!({"user": "ben"})));
    let asked = application.call(0).json();
    assert_eq!(
        (&asked["kind"], &asked["guard"], &asked["to"]),
        (&json!("push"), &json!("friends"), &json!({"user": "ben"}))
    );
    assert_eq!(asked["event"], json!({"name": "nudge", "data": {"for": {"user": "ben"}}}));
    application.script(|heard| Reply::allow(heard.json()["to"]["user"] == "ben"));
    assert_ok(&push(&mut ann, json!({"user": "ben"})));
    assert_eq!(ben.receive()["type"], "push");
    // The answer was for that message.
    assert_forbidden(&push(&mut ann, json!({"user": "ann"})));
    assert_eq!((ann.settle(), ben.settle()), (vec![], vec![]));
}

// GD-8: it has a rate of its own.
#[test]
fn pushes_have_a_rate() {
    let server = Server::start(&format!("[limits]\nthrottle_s = 3600\npush = {{ per_s = 0.1, burst = 2 }}\n{ALL}"));
    let mut ann = connect(&server, json!({"sub": "ann"}));
    for _ in 0..2 {
        assert_ok(&push(&mut ann, json!({"user": "ann"})));
    }
    assert_code(&push(&mut ann, json!({"user": "ann"})), "RATE_LIMITED");
}
