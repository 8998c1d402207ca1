//! SIGHUP: what the file says now holds for everything decided from then on, whole or not at all (G2).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    API_KEY, Client, NO_RATES, Request, SECRET, Server, assert_code, assert_forbidden, assert_ok, one_on_each, token,
    until,
};

fn config(workers: usize, pipes: &str) -> String {
    format!("[edge]\nworkers = {workers}\n[limits]\n{NO_RATES}\n{pipes}")
}

fn open(rights: &str) -> String {
    format!("[pipe.\"open-{{x}}\"]\npublic = true\n{rights}\n[pipe.\"other-{{x}}\"]\nsubscribe = true\npublic = true\n")
}

fn a_narrower_definition(workers: usize) {
    let server = Server::start(&config(workers, &open("subscribe = true\npublish = true\n")));
    let mut by_rule = one_on_each(server.address, workers, &token("ann", &[]));
    let mut by_grant = Client::connect(server.address, &token("ben", &[("open-1", "sub")]));
    for client in by_rule.iter_mut().chain([&mut by_grant]) {
        assert_ok(&client.subscribe("open-1"));
        assert_ok(&client.subscribe("other-1"));
    }
    assert!(server.reload(&config(workers, &open("publish = true\n"))));
    for client in &mut by_rule {
        let told = client.expect_system("unsubscribed", "open-1");
        assert_eq!(told["reason"], "reload", "{told}");
        assert_forbidden(&client.subscribe("open-1"));
        assert_forbidden(&client.subscribe("open-2"));
    }
    // What was not touched goes on.
    assert_ok(&by_rule[0].publish("open-1", 1));
    by_grant.expect_event("open-1", 1);
    server.api.done("publish", json!({"pipe": "other-1", "event": "e", "data": 2}));
    for client in by_rule.iter_mut().chain([&mut by_grant]) {
        client.expect_event("other-1", 2);
        assert_eq!(client.settle(), [] as [Value; 0]);
    }
    assert!(server.reload(&config(workers, &open("subscribe = true\n"))));
    for client in &mut by_rule {
        until("publishing is refused", || client.publish("open-1", 3)["code"] == "FORBIDDEN");
        assert_ok(&client.subscribe("open-1"));
    }
    server.api.done("publish", json!({"pipe": "open-1", "event": "e", "data": 4}));
    for client in &mut by_rule {
        loop {
            let heard = client.receive();
            assert_eq!(heard["type"], "event", "{heard}");
            if heard["data"] == 4 {
                break;
            }
        }
    }
}

// G2
#[test]
fn a_narrower_definition_ends_subscriptions_one_worker() {
    a_narrower_definition(1);
}

// G2
#[test]
fn a_narrower_definition_ends_subscriptions_four_workers() {
    a_narrower_definition(4);
}

#[test]
fn what_nothing_changed_for_is_not_disturbed() {
    let server = Server::start(&config(2, &open("subscribe = true\npublish = true\n")));
    let mut ann = Client::connect(server.address, &token("ann", &[]));
    let mut ben = Client::connect(server.address, &token("ben", &[]));
    assert_ok(&ann.subscribe("open-1"));
    let mut next = 0;
    for _ in 0..5 {
        (0..200).for_each(|number| ben.tell("open-1", next + number));
        assert!(server.reload(&config(2, &open("subscribe = true\npublish = true\npresence = true\n"))));
        (200..400).for_each(|number| ben.tell("open-1", next + number));
        (0..400).for_each(|number| ann.expect_event("open-1", next + number));
        next += 400;
    }
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

#[test]
fn limits_hold_at_once() {
    let wide = "[edge]\nworkers = 2\n[limits]\nsubscriptions = 5\nmessage_bytes = 65536\nconnections_per_user = 100\n";
    let server = Server::start(wide);
    let all = token("ann", &[("**", "sub,pub")]);
    let mut clients = one_on_each(server.address, 2, &all);
    clients.iter_mut().for_each(|client| assert_ok(&client.subscribe("first")));
    let narrow = "[edge]\nworkers = 2\n[limits]\nsubscriptions = 2\nmessage_bytes = 1024\nconnections_per_user = 2\n";
    assert!(server.reload(narrow));
    until("the cap is lower", || Client::try_with(server.address, &Request::upgrade().token(&all)).is_err());
    let refused = Request::upgrade().token(&all);
    refused.assert_refused(server.address, 429, "TOO_MANY_CONNECTIONS");
    for client in &mut clients {
        client.settle();
        assert_ok(&client.subscribe("second"));
        assert_code(&client.subscribe("third"), "TOO_MANY");
    }
    for mut client in clients {
        client.tell("first", "x".repeat(2_000));
        assert_eq!(client.closed().0, Some(1009));
    }
    assert!(server.reload("[edge]\nworkers = 2\n"));
    until("the cap is gone", || Client::try_with(server.address, &Request::upgrade().token(&all)).is_ok());
}

// G2: all or nothing.
#[test]
fn a_bad_file_is_refused_whole() {
    let good = config(2, &open("subscribe = true\n"));
    let server = Server::start(&good);
    let mut ann = Client::connect(server.address, &token("ann", &[]));
    assert_ok(&ann.subscribe("open-1"));
    for (bad, named) in [
        (config(2, &open("nothing = 1\n")), "nothing"),
        (config(2, &open("subscribe = 1\n")), "subscribe"),
        ("[edge\n".to_owned(), "pipeward.toml:1"),
        (config(2, "[auth.token]\npublic_key_file = \"missing.pem\"\n"), "public_key_file"),
    ] {
        assert!(!server.reload(&bad), "{bad}");
        server.log_line(named);
        assert_eq!(ann.settle(), [] as [Value; 0], "{bad}");
        assert_ok(&ann.subscribe("open-2"));
        assert_ok(&ann.request(json!({"type": "unsubscribe", "pipe": "open-2"})));
        assert_ok(&Client::connect(server.address, &token("ben", &[])).subscribe("open-1"));
    }
    std::fs::remove_file(server.path("pipeward.toml")).expect("it was there");
    server.signal(libc::SIGHUP);
    until("it is refused", || server.log().iter().filter(|line| line.contains("was not reloaded")).count() == 5);
    assert_ok(&ann.subscribe("open-2"));
    assert!(server.reload(&config(2, "")));
    ann.expect_system("unsubscribed", "open-1");
}

// G2: what cannot change keeps its value and is named; the rest of the file is taken.
#[test]
fn fixed_keys_keep_their_value() {
    let server = Server::start(&config(2, &open("subscribe = true\n")));
    let control = server.api.address;
    let moved = "[edge]\nworkers = 3\n[store]\npath = \"moved.redb\"\n[audit]\npath = \"moved.log\"\n\
                 [pipe.\"new-{x}\"]\nsubscribe = true\npublic = true\n";
    assert!(server.reload(moved));
    for key in ["edge.workers", "store.path", "audit.path"] {
        server.log_line(&format!("{key} cannot be changed"));
    }
    assert!(!server.log().iter().any(|line| line.contains("edge.listen cannot")), "the flag still says the same");
    let mut ann = Client::connect(server.address, &token("ann", &[]));
    until("the rest is in force", || ann.subscribe("new-1")["ok"] == true);
    assert_forbidden(&ann.subscribe("open-1"));
    until("two workers run", || server.workers() == 2);
    server.api.done("revoke", json!({"user": "ann", "pipe": "new-1"}));
    assert!(!server.path("moved.redb").exists() && !server.path("moved.log").exists());
    assert_eq!(server.api.address, control);
    // Yet the next start goes by the file.
    let server = server.kill().start();
    until("three workers run", || server.workers() == 3);
    assert_ok(&Client::connect(server.address, &token("ann", &[])).subscribe("new-1"));
}

fn with_key(secret: &str, allow: &str) -> String {
    format!(
        "[edge]\nworkers = 1\n[control]\nlisten = \"127.0.0.1:0\"\n\
         [[control.key]]\nname = \"app\"\nsecret = \"{secret}\"\nallow = [{allow}]\n"
    )
}

// E2, G10
#[test]
fn keys_of_the_api_change() {
    // `listen` stands in the text, so clients need an address too.
    let start = |text: &str| text.replace("workers = 1", "workers = 1\nlisten = \"127.0.0.1:0\"");
    let server = Server::start(&start(&with_key(API_KEY, "\"*\"")));
    let revoke = || server.api.call("revoke", json!({"user": "ann", "pipe": "room"}));
    assert_eq!(revoke().status, 200);
    assert!(server.reload(&start(&with_key(API_KEY, "\"publish\""))));
    until("it may no longer revoke", || revoke().status == 403);
    server.api.done("publish", json!({"pipe": "room", "event": "e", "data": 1}));
    assert!(server.reload(&start(&with_key("another-key-of-the-tests", "\"*\""))));
    until("it is no key any more", || revoke().status == 401);
    assert!(server.reload(&start(&with_key(API_KEY, "\"*\""))));
    until("it is one again", || revoke().status == 200);
}

// The key of tokens: for whoever comes from then on; those who are there stay.
#[test]
fn the_key_of_tokens_changes() {
    let with_secret = |secret: &str| format!("[auth.token]\nhmac_secret = \"{secret}\"\n");
    let server = Server::start(&with_secret(SECRET));
    let old = token("ann", &[("room", "sub,pub")]);
    let new_secret = "fedcba9876543210fedcba9876543210";
    let claims = json!({"sub": "ann", "pipes": {"room": {"subscribe": true, "publish": true}}}).to_string();
    let new = pipeward::auth::token::sign(new_secret.as_bytes(), &claims);
    let let_in = |token: &str| Client::try_with(server.address, &Request::upgrade().token(token)).is_ok();
    let mut ann = Client::connect(server.address, &old);
    assert_ok(&ann.subscribe("room"));
    assert!(!let_in(&new));
    assert!(server.reload(&with_secret(new_secret)));
    until("the new key is in force", || let_in(&new));
    // Each worker for itself takes it up; soon no worker takes the old one.
    until("the old key is not", || !(0..20).any(|_| let_in(&old)));
    std::thread::sleep(Duration::from_millis(50));
    assert_ok(&ann.publish("room", 1));
    ann.expect_event("room", 1);
    assert_code(&ann.request(json!({"type": "refresh", "token": old})), "UNAUTHENTICATED");
    assert_ok(&ann.request(json!({"type": "refresh", "token": new})));
}

// A revocation is no configuration.
#[test]
fn a_reload_brings_nothing_back() {
    let open = config(2, &open("subscribe = true\npublish = true\n"));
    let server = Server::start(&open);
    let mut ann = Client::connect(server.address, &token("ann", &[]));
    assert_ok(&ann.subscribe("open-1"));
    server.api.done("revoke", json!({"user": "ann", "pipe": "open-1"}));
    ann.expect_system("pipe_revoked", "open-1");
    for _ in 0..3 {
        assert!(server.reload(&open));
        assert_code(&ann.subscribe("open-1"), "REVOKED");
        assert_code(&Client::connect(server.address, &token("ann", &[])).subscribe("open-1"), "REVOKED");
    }
    assert_eq!(ann.settle(), [] as [Value; 0]);
}
