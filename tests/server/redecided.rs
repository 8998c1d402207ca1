//! What a refresh and a reload change about decisions that rules have made: all of them are made again, live subscriptions
//! included (C26, G2). Those of the application: `asked_anew`.

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Client, NO_RATES, Server, assert_code, assert_forbidden, assert_ok, one_on_each, rights, sign,
};

fn config(rules: &str) -> String {
    format!("[edge]\nworkers = 2\n{AUDITED}[limits]\n{NO_RATES}{rules}")
}

fn server(rules: &str) -> Server {
    Server::start(&config(rules))
}

fn member(role: &str) -> String {
    sign(&json!({"sub": "ann", "role": role}).to_string())
}

#[track_caller]
fn refresh(client: &mut Client, token: &str) {
    assert_ok(&client.request(json!({"type": "refresh", "token": token})));
}

#[track_caller]
fn expect_unsubscribed(client: &mut Client, pipe: &str, reason: &str) {
    let told = client.expect_system("unsubscribed", pipe);
    assert_eq!(told["reason"], reason, "{told}");
}

fn publish(server: &Server, pipe: &str, data: u64) -> u64 {
    server.api.delivered("publish", json!({"pipe": pipe, "event": "e", "data": data, "count": true}))
}

const BY_ROLE: &str = r#"
[pipe."desk"]
subscribe = "user.role == 'admin'"
publish = "user.role == 'admin'"
presence = "user.role == 'admin'"
[pipe."hall"]
subscribe = "user.role in ['member', 'admin']"
presence = "user.role == 'admin'"
[pipe."special"]
subscribe = true
[pipe."special".event.e]
publish = "user.role == 'admin'"
[pipe."guarded"]
guard = [ { require = "user.role == 'admin'", code = "ADMINS" } ]
subscribe = true
publish = true
"#;

// C25, C26, HP-7: roles may change; what they allowed ends, what they still allow is not disturbed.
#[test]
fn a_refresh_decides_everything_again() {
    let server = server(BY_ROLE);
    let mut ann = Client::connect(server.address, &member("admin"));
    assert_ok(&ann.request(json!({"type": "subscribe", "pipe": "hall", "presence": true})));
    for pipe in ["desk", "guarded"] {
        assert_ok(&ann.subscribe(pipe));
        assert_ok(&ann.publish(pipe, 1));
        ann.expect_event(pipe, 1);
    }
    assert_ok(&ann.subscribe("special"));
    for number in 0..2 {
        assert_ok(&ann.publish("special", number));
        ann.expect_event("special", number);
    }
    ann.send(json!({"type": "refresh", "token": member("member"), "id": "r"}));
    let mut ended = [ann.receive(), ann.receive()].map(|told| {
        assert_eq!((&told["event"], &told["reason"]), (&json!("unsubscribed"), &json!("refresh")), "{told}");
        told["pipe"].clone()
    });
    ended.sort_by_key(Value::to_string);
    assert_eq!(ended, ["desk", "guarded"]);
    let reply = ann.receive();
    assert_eq!((&reply["id"], &reply["ok"]), (&json!("r"), &json!(true)), "{reply}");
    for pipe in ["desk", "guarded"] {
        let replies = [ann.publish(pipe, 2), ann.subscribe(pipe)];
        for reply in replies {
            assert_code(&reply, if pipe == "desk" { "FORBIDDEN" } else { "ADMINS" });
        }
        assert_eq!(publish(&server, pipe, 3), 0);
    }
    assert_forbidden(&ann.publish("special", 2));
    assert_forbidden(&ann.request(json!({"type": "presence", "pipe": "hall"})));
    // Who comes and goes is told to her no more, the events are.
    let mut bob = Client::connect(server.address, &sign(r#"{"sub":"bob","role":"member"}"#));
    assert_ok(&bob.subscribe("hall"));
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    assert_eq!(publish(&server, "hall", 4), 2);
    ann.expect_event("hall", 4);
    assert_eq!(ann.settle(), [] as [Value; 0]);
    // And back.
    refresh(&mut ann, &member("admin"));
    assert_ok(&ann.subscribe("desk"));
    assert_ok(&ann.publish("guarded", 5));
}

// G2: on every worker; an explicit grant stands in for the rule that goes, but for no guard and no scope that comes.
#[test]
fn a_reload_decides_everything_again() {
    let open = "[pipe.\"desk\"]\nsubscribe = true\npublish = true\npublic = true\n\
                [pipe.\"hall\"]\nsubscribe = true\npublish = true\npublic = true\n";
    let server = server(open);
    let plain = json!({"sub": "ann", "role": "member"});
    let mut granted = plain.clone();
    granted["pipes"] = json!({"desk": rights("sub,pub")});
    let mut ruled = one_on_each(server.address, 2, &sign(&plain.to_string()));
    let mut explicit = one_on_each(server.address, 2, &sign(&granted.to_string()));
    for client in ruled.iter_mut().chain(&mut explicit) {
        for pipe in ["desk", "hall"] {
            assert_ok(&client.subscribe(pipe));
        }
    }
    let by_rule =
        open.replacen("subscribe = true\npublish = true", "subscribe = \"user.role == 'admin'\"\npublish = false", 1);
    assert!(server.reload(&config(&by_rule)));
    for client in &mut ruled {
        expect_unsubscribed(client, "desk", "reload");
        assert_forbidden(&client.publish("desk", 1));
    }
    assert_eq!((publish(&server, "desk", 1), publish(&server, "hall", 2)), (2, 4));
    for client in &mut explicit {
        client.expect_event("desk", 1);
        client.expect_event("hall", 2);
    }
    let guarded =
        format!("[module.closed]\nguard = [ {{ require = \"has(user.info.key)\", code = \"NO_KEY\" }} ]\n{by_rule}")
            .replacen("[pipe.\"desk\"]\n", "[pipe.\"desk\"]\nmodule = \"closed\"\n", 1)
            .replacen("[pipe.\"hall\"]\n", "[pipe.\"hall\"]\nscope = { feature = \"hall\" }\n", 1);
    assert!(server.reload(&config(&guarded)));
    for client in &mut explicit {
        let mut ended = [client.receive(), client.receive()].map(|told| (told["pipe"].clone(), told["reason"].clone()));
        ended.sort_by_key(|one| one.0.to_string());
        assert_eq!(ended, [(json!("desk"), json!("reload")), (json!("hall"), json!("reload"))]);
        assert_code(&client.publish("desk", 3), "NO_KEY");
        assert_code(&client.subscribe("hall"), "FEATURE_DISABLED");
    }
    assert_eq!((publish(&server, "desk", 4), publish(&server, "hall", 5)), (0, 0));
    // A file with an error changes nothing.
    assert!(!server.reload(&config(&open.replacen("true", "\"user.rule == 'x'\"", 1))));
    for client in &mut explicit {
        assert_code(&client.subscribe("desk"), "NO_KEY");
    }
}
