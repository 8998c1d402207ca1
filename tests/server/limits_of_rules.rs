//! Limits that rules and authorizations bring: the rate of a pipe, sums over a tenant, and limits that a token narrows.

use serde_json::{Value, json};

use crate::support::{
    Client, NO_RATES, Request, Server, assert_code, assert_forbidden, assert_ok, one_on_each, sign, token_with, until,
};

/// So slow that nothing refills during a test.
const FEW: &str = "per_s = 0.001";

#[track_caller]
fn connect(server: &Server, user: &str, claims: Value) -> Client {
    Client::connect(server.address, &token_with(user, claims))
}

/// Asserts a refusal that says when to come again, and that nothing but it was said.
#[track_caller]
fn assert_limited(client: &mut Client, reply: &Value) {
    assert_code(reply, "RATE_LIMITED");
    assert!(reply["retry_after_ms"].as_u64().is_some_and(|wait_ms| wait_ms > 1_000), "{reply}");
    assert_eq!(
        client.settle().iter().filter(|one| one["type"] == "system").count(),
        0,
        "refused at once, not throttled"
    );
}

// Issue 4, 10: of one connection and one pipe; refused at once, nothing reaches anybody.
#[test]
fn a_pipe_may_have_a_rate_of_its_own() {
    let server = Server::start(&format!(
        "[edge]\nworkers = 2\n[limits]\n{NO_RATES}[pipe.\"slow-{{x}}\"]\nsubscribe = true\npublic = true\n\
         publish = \"event.data != 'refused'\"\nrate = {{ {FEW}, burst = 3 }}\n[pipe.\"slow-{{x}}\".event.e]\n\
         schema = {{ not = {{ const = \"invalid\" }} }}\n"
    ));
    let plain = |user: &str| sign(&json!({"sub": user}).to_string());
    let mut watcher = Client::connect(server.address, &plain("watcher"));
    assert_ok(&watcher.subscribe("slow-1"));
    let mut ann = Client::connect(server.address, &plain("ann"));
    // What has no right does not use it up; what breaks the schema does.
    for _ in 0..5 {
        assert_forbidden(&ann.publish("slow-1", "refused"));
    }
    assert_ok(&ann.publish("slow-1", 1));
    assert_code(&ann.publish("slow-1", "invalid"), "SCHEMA");
    assert_ok(&ann.publish("slow-1", 2));
    for number in 0..5 {
        let reply = ann.publish("slow-1", number);
        assert_limited(&mut ann, &reply);
    }
    // Another pipe of the definition and another connection have their own, also where nobody listens.
    for number in 0..3 {
        assert_ok(&ann.publish("slow-2", number));
    }
    let reply = ann.publish("slow-2", 3);
    assert_limited(&mut ann, &reply);
    let mut again = Client::connect(server.address, &plain("ann"));
    assert_ok(&again.publish("slow-1", 3));
    // A refresh does not fill it.
    assert_ok(&ann.request(json!({"type": "refresh", "token": plain("ann")})));
    let reply = ann.publish("slow-1", 4);
    assert_limited(&mut ann, &reply);
    for number in 1..4 {
        watcher.expect_event("slow-1", number);
    }
    // The application has no rate.
    for number in 4..9 {
        server.api.done("publish", json!({"pipe": "slow-1", "event": "e", "data": number}));
    }
    for number in 4..9 {
        watcher.expect_event("slow-1", number);
    }
    assert_eq!(watcher.settle(), [] as [Value; 0]);
}

// GD-8, D14: summed over a tenant's connections, whoever they are, wherever they are.
#[test]
fn a_tenant_has_a_sum() {
    let server = Server::start(&format!(
        "[edge]\nworkers = 2\n[limits]\n{NO_RATES}throttle_s = 3600\n[limits.per_tenant]\npublish = {{ {FEW}, burst = 6 }}\n"
    ));
    let acme = json!({"tenant": "acme"});
    let mut clients = one_on_each(server.address, 2, &token_with("ann", acme.clone()));
    clients.push(connect(&server, "ben", acme.clone()));
    for number in 0..6 {
        assert_ok(&clients[number % 3].publish("room", number));
    }
    for client in &mut clients {
        assert_code(&client.publish("room", 6), "RATE_LIMITED");
        assert_eq!(client.request(json!({"type": "ping"}))["type"], "pong");
    }
    let mut late = connect(&server, "cat", acme);
    assert_code(&late.publish("room", 7), "RATE_LIMITED");
    // Other tenants have their own, and who has none is in no sum.
    for tenant in [json!({"tenant": "globex"}), json!({})] {
        let mut other = connect(&server, "ann", tenant.clone());
        for number in 0..6 {
            assert_ok(&other.publish("room", number));
        }
        let seventh = other.publish("room", 6);
        if tenant == json!({}) { assert_ok(&seventh) } else { assert_code(&seventh, "RATE_LIMITED") }
    }
}

// GD-8, D14: a person is summed within its tenant; both sums hold at once.
#[test]
fn the_lesser_sum_counts() {
    let server = Server::start(&format!(
        "[edge]\nworkers = 2\n[limits]\n{NO_RATES}throttle_s = 3600\n[limits.per_user]\nsubscribe = {{ {FEW}, burst = 3 }}\n\
         [limits.per_tenant]\nsubscribe = {{ {FEW}, burst = 5 }}\n"
    ));
    let acme = json!({"tenant": "acme"});
    let mut anns = [connect(&server, "ann", acme.clone()), connect(&server, "ann", acme.clone())];
    for number in 0..3 {
        assert_ok(&anns[number % 2].subscribe(&format!("room-{number}")));
    }
    for ann in &mut anns {
        assert_code(&ann.subscribe("room-x"), "RATE_LIMITED");
    }
    let mut ben = connect(&server, "ben", acme);
    assert_ok(&ben.subscribe("room"));
    assert_ok(&ben.subscribe("hall"));
    assert_code(&ben.subscribe("yard"), "RATE_LIMITED");
    let mut elsewhere = connect(&server, "ann", json!({"tenant": "globex"}));
    assert_ok(&elsewhere.subscribe("room"));
}

fn narrowed() -> Server {
    Server::start(&format!(
        "[edge]\nworkers = 2\n[limits]\nthrottle_s = 3600\npublish = {{ {FEW}, burst = 6 }}\nsubscribe = {{ per_s = 0 }}\n\
         subscriptions = 4\n"
    ))
}

// Issue 4, 10: never more than the configuration allows.
#[test]
fn a_token_narrows_and_never_widens() {
    let server = narrowed();
    let publishes = |client: &mut Client| {
        let count = (0..8).take_while(|number| client.publish("room", *number)["ok"] == true).count();
        client.settle();
        count
    };
    for (limits, expected) in [
        (json!({}), 6),
        (json!({"publish": {"per_s": 0.001, "burst": 2}}), 2),
        (json!({"publish": {"per_s": 0.001, "burst": 100}}), 6),
        (json!({"publish": {"per_s": 1_000_000.0, "burst": 1_000_000}}), 6),
        (json!({"subscribe": {"per_s": 1, "burst": 1}, "unknown": 7}), 6),
    ] {
        let mut ann = connect(&server, "ann", json!({"limits": limits}));
        assert_eq!(publishes(&mut ann), expected, "{limits}");
    }
    for (subscriptions, expected) in [(json!(2), 2), (json!(4), 4), (json!(100), 4)] {
        let mut ann = connect(&server, "ann", json!({"limits": {"subscriptions": subscriptions}}));
        for number in 0..5 {
            let reply = ann.subscribe(&format!("room-{number}"));
            if number < expected { assert_ok(&reply) } else { assert_code(&reply, "TOO_MANY") }
        }
    }
    // A rate that the configuration leaves off may be set.
    let mut ann = connect(&server, "ann", json!({"limits": {"subscribe": {"per_s": 0.001, "burst": 1}}}));
    assert_ok(&ann.subscribe("room-1"));
    assert_code(&ann.subscribe("room-2"), "RATE_LIMITED");
}

// A1: a wrong type refuses the token.
#[test]
fn malformed_limits_are_no_limits() {
    let server = narrowed();
    for limits in [
        json!(5),
        json!([]),
        json!({"publish": 5}),
        json!({"publish": {"per_s": "1", "burst": 1}}),
        json!({"publish": {"per_s": -1, "burst": 1}}),
        json!({"publish": {"per_s": 0, "burst": 1}}),
        json!({"publish": {"per_s": 1, "burst": 0}}),
        json!({"subscriptions": "many"}),
        json!({"subscriptions": -1}),
        json!({"subscriptions": 0}),
        json!({"subscriptions": 1.5}),
    ] {
        let token = token_with("ann", json!({"limits": limits}));
        Request::upgrade().token(&token).assert_refused(server.address, 401, "UNAUTHENTICATED");
    }
}

// HP-7: a refresh brings other limits, and a narrowed one stays narrowed over a reload.
#[test]
fn narrowed_limits_change_with_a_refresh_and_outlive_a_reload() {
    let server = narrowed();
    let with = |subscriptions: u32| token_with("ann", json!({"limits": {"subscriptions": subscriptions}}));
    let mut ann = Client::connect(server.address, &with(3));
    for number in 0..3 {
        assert_ok(&ann.subscribe(&format!("room-{number}")));
    }
    assert_code(&ann.subscribe("room-3"), "TOO_MANY");
    assert_ok(&ann.request(json!({"type": "refresh", "token": with(1)})));
    // What stands goes on.
    assert_ok(&ann.subscribe("room-0"));
    assert_code(&ann.subscribe("room-3"), "TOO_MANY");
    assert_ok(&ann.request(json!({"type": "unsubscribe", "pipe": "room-2"})));
    assert_code(&ann.subscribe("room-3"), "TOO_MANY");
    assert!(server.reload("[edge]\nworkers = 2\n[limits]\nsubscriptions = 9\n"));
    let mut free = Client::connect(server.address, &token_with("ben", json!({})));
    until("the reload is in force", || (0..9).all(|number| free.subscribe(&format!("hall-{number}"))["ok"] == true));
    assert_code(&ann.subscribe("room-3"), "TOO_MANY");
    assert_ok(&ann.request(json!({"type": "refresh", "token": token_with("ann", json!({}))})));
    for number in 2..9 {
        assert_ok(&ann.subscribe(&format!("room-{number}")));
    }
    assert_code(&ann.subscribe("room-9"), "TOO_MANY");
}
