//! Guards: global, then the module's, then the item's own; the first refusal ends the chain under its own code; what they
//! set is seen by whatever comes later (SR-2, SR-3, SR-10).

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Client, NO_RATES, Server, assert_code, assert_forbidden, assert_ok, await_fault, rights, sign, token_with,
};

fn server(rules: &str) -> Server {
    Server::start(&format!("[edge]\nworkers = 2\n{AUDITED}[limits]\n{NO_RATES}{rules}"))
}

/// A member whose `info` this is.
fn claims(info: Value) -> Value {
    json!({"sub": "ann", "role": "member", "info": info})
}

#[track_caller]
fn connect(server: &Server, claims: &Value) -> Client {
    Client::connect(server.address, &sign(&claims.to_string()))
}

/// What the three surfaces of a pipe answer: subscribe, publish, presence.
#[track_caller]
fn all_three(client: &mut Client, pipe: &str) -> [Value; 3] {
    [client.subscribe(pipe), client.publish(pipe, 1), client.request(json!({"type": "presence", "pipe": pipe}))]
}

const CHAIN: &str = r#"
[[guard]]
name = "first"
require = "user.info.first"
code = "FIRST"
message = "not by the first"
[[guard]]
require = "user.info.second"
code = "SECOND"
[module.desk]
guard = [ { require = "user.info.third", code = "THIRD" }, { require = "user.info.fourth", code = "FOURTH" } ]
[pipe."desk-{x}"]
module = "desk"
guard = [ { require = "user.info.fifth", code = "FIFTH", message = "not by its own" } ]
subscribe = true
publish = true
presence = true
[pipe."free-{x}"]
public = true
subscribe = true
publish = true
presence = true
[pipe."none-{x}"]
module = "desk"
"#;

// SR-2, SR-10, F10, F11: global → module → own, and only then the rule; the first refusal is the answer.
#[test]
fn the_first_refusal_ends_the_chain() {
    let server = server(CHAIN);
    let order = ["first", "second", "third", "fourth", "fifth"];
    for refusing in 0..=order.len() {
        // All after the first that refuses would refuse too, or fail.
        let info: serde_json::Map<_, _> = order
            .iter()
            .take(refusing + 1)
            .enumerate()
            .map(|(at, name)| ((*name).into(), json!(at < refusing)))
            .collect();
        let mut ann = connect(&server, &claims(info.into()));
        let reached = order.get(refusing).map(|name| name.to_uppercase());
        for reply in all_three(&mut ann, "desk-1") {
            match &reached {
                Some(code) => {
                    assert_code(&reply, code);
                    let own = [("FIRST", "not by the first"), ("FIFTH", "not by its own")];
                    let sentence =
                        own.iter().find(|(own, _)| own == code).map_or("Access denied", |(_, sentence)| sentence);
                    assert_eq!(reply["error"], sentence, "{reply}");
                }
                None => assert_ok(&reply),
            }
        }
        // Without a module only the global ones; a guard that is passed allows nothing.
        for (free, none) in all_three(&mut ann, "free-1").into_iter().zip(all_three(&mut ann, "none-1")) {
            match refusing {
                0 | 1 => {
                    assert_eq!(Some(free["code"].as_str()), reached.as_deref().map(Some));
                    assert_eq!(free["code"], none["code"]);
                }
                _ => {
                    assert_ok(&free);
                    assert_eq!(none["ok"], false, "{none}");
                }
            }
        }
        if refusing == order.len() {
            assert_forbidden(&ann.subscribe("none-1"));
        }
    }
}

// F10, RK-5: a grant of the token stands in for the rule, never for a guard; also where nothing defines the pipe.
#[test]
fn guards_stand_before_explicit_grants() {
    let server = server(CHAIN);
    let mut ann =
        Client::connect(server.address, &token_with("ann", json!({"info": {"first": true, "second": false}})));
    for pipe in ["desk-1", "free-1", "none-1", "undefined"] {
        for reply in all_three(&mut ann, pipe) {
            assert_code(&reply, "SECOND");
        }
    }
    let info = json!({"first": true, "second": true, "third": true, "fourth": false});
    let mut ben = Client::connect(server.address, &token_with("ben", json!({"info": info})));
    for reply in all_three(&mut ben, "none-1") {
        assert_code(&reply, "FOURTH");
    }
    for reply in all_three(&mut ben, "undefined") {
        assert_ok(&reply);
    }
    server.api.done("publish", json!({"pipe": "undefined", "event": "e", "data": "last"}));
    let heard = ben.settle();
    assert!(heard.iter().all(|one| one["pipe"] == "free-1" || one["pipe"] == "undefined"), "{heard:?}");
}

// F6, RK-6: a guard that fails is a fault, told as any refusal of ours; its own code is for a plain no.
#[test]
fn a_guard_that_fails_refuses_and_is_on_record() {
    let server = server(CHAIN);
    let mut ann = connect(&server, &claims(json!({"first": "yes"})));
    for reply in all_three(&mut ann, "free-1") {
        assert_forbidden(&reply);
    }
    await_fault(&server, "guard.require");
    let mut ben = connect(&server, &claims(json!({"first": true, "second": true, "third": true, "fourth": true})));
    assert_forbidden(&ben.subscribe("desk-1"));
    await_fault(&server, "pipe.\"desk-{x}\".guard.require");
    let mut nobody = connect(&server, &json!({"sub": "cat"}));
    assert_forbidden(&nobody.subscribe("free-1"));
}

const SETTING: &str = r#"
[[guard]]
name = "permissions"
set = { permissions = "user.info.permissions", level = "user.info.level" }
[[guard]]
require = "ctx.level > 0"
set = { level = "ctx.level * 10", more = "ctx.level + 1" }
code = "NO_LEVEL"
[module.desk]
guard = [ { set = { desk = "'desk ' + user.id" } } ]
[pipe."desk-{x}"]
module = "desk"
guard = [ { require = "ctx.desk == 'desk ann'", set = { own = "params.x" } } ]
subscribe = "ctx.own in ctx.permissions && ctx.level == 50 && ctx.more == 51"
publish = "ctx.permissions.exists(p, p == 'write')"
[pipe."desk-{x}".event.e]
[pipe."desk-{x}".event.secret]
subscribe = "'secret' in ctx.permissions"
[pipe."free-{x}"]
subscribe = "has(ctx.desk) || has(ctx.own)"
publish = "ctx.desk == 'desk ann'"
"#;

// SR-10, F11: each sees what those before it set, in order; a context belongs to one decision.
#[test]
fn what_guards_set_is_seen_by_all_that_come_later() {
    let server = server(SETTING);
    let mut ann = connect(&server, &claims(json!({"level": 5, "permissions": ["a", "write"]})));
    assert_ok(&ann.subscribe("desk-a"));
    assert_ok(&ann.publish("desk-a", 1));
    ann.expect_event("desk-a", 1);
    assert_forbidden(&ann.subscribe("desk-b"));
    server.api.done("publish", json!({"pipe": "desk-a", "event": "secret", "data": 2}));
    server.api.done("publish", json!({"pipe": "desk-a", "event": "plain", "data": 3}));
    ann.expect_event("desk-a", 3);
    // What a module's guard has set elsewhere is not there.
    assert_forbidden(&ann.subscribe("free-a"));
    assert_forbidden(&ann.publish("free-a", 1));
    await_fault(&server, "pipe.\"free-{x}\".publish");
    let mut reader = connect(&server, &claims(json!({"level": 5, "permissions": ["a", "secret"]})));
    assert_ok(&reader.subscribe("desk-a"));
    assert_forbidden(&reader.publish("desk-a", 1));
    server.api.done("publish", json!({"pipe": "desk-a", "event": "secret", "data": 4}));
    reader.expect_event("desk-a", 4);
    let mut other = connect(&server, &json!({"sub": "ben", "info": {"level": 5, "permissions": ["a"]}}));
    assert_forbidden(&other.subscribe("desk-a"));
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// F11: `require` comes before `set` in one entry; what cannot be computed refuses.
#[test]
fn what_cannot_be_set_refuses() {
    let server = server(&SETTING.replace("ctx.level * 10", "ctx.level * 10 / (8 - ctx.level)"));
    // `ctx.level` is 0: `set` of the same guard, which would be fine, is not reached.
    let mut low = connect(&server, &claims(json!({"level": 0, "permissions": []})));
    assert_code(&low.subscribe("desk-a"), "NO_LEVEL");
    let mut without = connect(&server, &claims(json!({"level": 5})));
    for reply in all_three(&mut without, "desk-a") {
        assert_forbidden(&reply);
    }
    await_fault(&server, "guard.set.permissions");
    let mut eight = connect(&server, &claims(json!({"level": 8, "permissions": ["a"]})));
    assert_forbidden(&eight.subscribe("desk-a"));
    await_fault(&server, "guard.set.level");
}

// F8: scope → revocation → guards → right.
#[test]
fn scope_and_revocation_are_looked_at_before() {
    let server = server(
        "[[guard]]\nrequire = \"user.info.open\"\ncode = \"GUARDED\"\n\
         [pipe.\"{tenant}:room\"]\nscope = { tenant = \"tenant\" }\nsubscribe = true\npublish = true\npresence = true\n",
    );
    let ann = json!({"sub": "ann", "tenant": "acme", "info": {"open": false}});
    let mut ann = connect(&server, &ann);
    for reply in all_three(&mut ann, "globex:room") {
        assert_code(&reply, "SCOPE_MISMATCH");
    }
    for reply in all_three(&mut ann, "acme:room") {
        assert_code(&reply, "GUARDED");
    }
    server.api.done("revoke", json!({"user": "ann", "pipe": "acme:room"}));
    ann.expect_system("pipe_revoked", "acme:room");
    for reply in all_three(&mut ann, "acme:room") {
        assert_code(&reply, "REVOKED");
    }
    for reply in all_three(&mut ann, "globex:room") {
        assert_code(&reply, "SCOPE_MISMATCH");
    }
}

// F10: what looks at the event is asked for each, on publish alone can it be passed; the rest is remembered and not lost.
#[test]
fn a_guard_that_looks_at_the_event_is_asked_for_each() {
    let server = server(
        "[pipe.\"room\"]\nguard = [ { require = \"event.data.open\", code = \"CLOSED\" } ]\npublish = true\nsubscribe = true\n\
         [pipe.\"hall\"]\nguard = [ { set = { kind = \"event.name\" } }, { require = \"ctx.kind == 'e'\" } ]\npublish = true\n",
    );
    let mut ann = connect(&server, &json!({"sub": "ann", "pipes": {"room": rights("sub,pub")}}));
    for _ in 0..3 {
        assert_ok(&ann.publish("room", json!({"open": true})));
        assert_code(&ann.publish("room", json!({"open": false})), "CLOSED");
        assert_forbidden(&ann.publish("room", json!({})));
        assert_ok(&ann.publish("hall", 1));
        assert_forbidden(&ann.request(json!({"type": "publish", "pipe": "hall", "event": "f", "data": 1})));
    }
    // There is no event where one subscribes.
    assert_forbidden(&ann.subscribe("room"));
    await_fault(&server, "pipe.\"room\".guard.require");
}

// C7: each pipe of a batch has the code of its own guard.
#[test]
fn a_batch_carries_each_guards_code() {
    let server = server(CHAIN);
    let info = json!({"first": true, "second": true, "third": false});
    let mut ann = connect(&server, &claims(info));
    let reply = ann.request(json!({"type": "subscribe", "pipes": ["desk-1", "free-1", "undefined"]}));
    assert_ok(&reply);
    assert_code(&reply["results"]["desk-1"], "THIRD");
    assert_ok(&reply["results"]["free-1"]);
    assert_forbidden(&reply["results"]["undefined"]);
}
