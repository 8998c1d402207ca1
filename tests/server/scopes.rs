//! Scopes: a pipe of another tenant, another organisation or without the feature is refused first of all, under a code of
//! its own, and nothing overrides it (GD-5, F9).

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Application, Client, NO_RATES, Reply, Request, Server, assert_code, assert_ok, one_on_each, records,
    rights, sign, token_with, until,
};

fn server(rules: &str) -> Server {
    Server::start(&format!("[edge]\nworkers = 2\n{AUDITED}[limits]\n{NO_RATES}{rules}"))
}

const SCOPED: &str = r#"
[pipe."{tenant}:{org}:chat-{room}"]
scope = { tenant = "tenant", org = "org", feature = "chat" }
subscribe = true
publish = true
presence = true
[pipe."org:{org}"]
scope = { org = "org" }
subscribe = true
publish = true
presence = true
[pipe."beta"]
scope = { feature = "beta" }
subscribe = true
publish = true
presence = true
"#;

/// Everything, by an exact name and by pattern: no grant may help.
fn grants() -> Value {
    let all = rights("sub,pub,presence");
    let exact = ["acme:red:chat-1", "globex:red:chat-1", "acme:blue:chat-1", "org:blue", "beta"];
    let exact = exact.into_iter().map(|name| (name.to_owned(), all.clone()));
    exact.chain([("**".to_owned(), all.clone())]).collect::<serde_json::Map<_, _>>().into()
}

/// Asserts the same code of subscribe, publish and presence.
#[track_caller]
fn assert_all(client: &mut Client, pipe: &str, code: Option<&str>) {
    let replies = [
        client.subscribe(pipe),
        client.publish(pipe, 1),
        client.request(json!({"type": "presence", "pipe": pipe})),
        client.request(json!({"type": "subscribe", "pipe": pipe, "presence": true, "events": ["e"]})),
    ];
    for reply in replies {
        match code {
            Some(code) => assert_code(&reply, code),
            None => assert_ok(&reply),
        }
    }
}

// GD-5, F9: tenant and organisation first, then the feature; a connection that has none matches none.
#[test]
fn nothing_overrides_a_mismatch() {
    let server = server(SCOPED);
    let (mismatch, disabled) = (Some("SCOPE_MISMATCH"), Some("FEATURE_DISABLED"));
    let chat = json!(["chat"]);
    let table = [
        (json!({"tenant": "acme", "org": "red", "features": chat}), "acme:red:chat-1", None),
        (json!({"tenant": "acme", "org": "red", "features": chat}), "globex:red:chat-1", mismatch),
        (json!({"tenant": "acme", "org": "red", "features": chat}), "acme:blue:chat-1", mismatch),
        (json!({"tenant": "acme", "org": "red", "features": chat}), "ACME:red:chat-1", mismatch),
        (json!({"tenant": "acme", "org": "red", "features": chat}), "acme:red:chat-2", None),
        (json!({"tenant": "red", "org": "acme", "features": chat}), "acme:red:chat-1", mismatch),
        (json!({"tenant": "acme", "org": "red", "features": ["chatter"]}), "acme:red:chat-1", disabled),
        (json!({"tenant": "acme", "org": "red"}), "acme:red:chat-1", disabled),
        (json!({"tenant": "globex", "org": "red"}), "acme:red:chat-1", mismatch),
        (json!({"tenant": "acme", "features": chat}), "acme:red:chat-1", mismatch),
        (json!({"org": "red", "features": chat}), "acme:red:chat-1", mismatch),
        (json!({"features": ["chat", "acme", "red"]}), "acme:red:chat-1", mismatch),
        (json!({"org": "red"}), "org:red", None),
        (json!({"org": "red"}), "org:blue", mismatch),
        (json!({"tenant": "blue"}), "org:blue", mismatch),
        (json!({"features": ["beta"]}), "beta", None),
        (json!({"features": chat}), "beta", disabled),
        (json!({"role": "beta", "info": {"features": ["beta"]}}), "beta", disabled),
    ];
    for (identity, pipe, code) in table {
        let mut claims = identity;
        claims["pipes"] = grants();
        let mut granted = Client::connect(server.address, &token_with("ann", claims.clone()));
        assert_all(&mut granted, pipe, code);
        // By the rule, which is `true`, alike.
        claims["pipes"] = json!({});
        let mut ruled = Client::connect(server.address, &token_with("ben", claims));
        assert_all(&mut ruled, pipe, code);
    }
}

// B21: nobody has no tenant, no organisation and no feature.
#[test]
fn an_anonymous_connection_is_in_no_scope() {
    let server = server(&format!("[auth]\nanonymous = true\n{SCOPED}"));
    let mut nobody = Client::with(server.address, &Request::upgrade());
    assert_all(&mut nobody, "acme:red:chat-1", Some("SCOPE_MISMATCH"));
    assert_all(&mut nobody, "org:red", Some("SCOPE_MISMATCH"));
    assert_all(&mut nobody, "beta", Some("FEATURE_DISABLED"));
}

// GD-5, RK-5: what is published outside reaches nobody, on any worker; without `id` it is counted, silent, on record.
#[test]
fn nothing_crosses_a_scope() {
    let server = server(SCOPED);
    let of = |tenant: &str| json!({"tenant": tenant, "org": "red", "features": ["chat"], "pipes": grants()});
    let mut insiders = one_on_each(server.address, 2, &token_with("ann", of("acme")));
    let mut outsiders = one_on_each(server.address, 2, &token_with("eve", of("globex")));
    for insider in &mut insiders {
        assert_ok(&insider.subscribe("acme:red:chat-1"));
    }
    for outsider in &mut outsiders {
        outsider.tell("acme:red:chat-1", "across");
        outsider.send(json!({"type": "subscribe", "pipe": "acme:red:chat-1"}));
        outsider.send(json!({"type": "subscribe", "pipes": ["acme:red:chat-1", "globex:red:chat-9"]}));
        assert_eq!(outsider.settle(), [] as [Value; 0]);
    }
    assert_eq!(server.counter("denied[SCOPE_MISMATCH]"), 6);
    until("it is on record", || records(&server, "denied").iter().any(|one| one["code"] == "SCOPE_MISMATCH"));
    assert_ok(&insiders[0].publish("acme:red:chat-1", "inside"));
    for insider in &mut insiders {
        insider.expect_event("acme:red:chat-1", "inside");
    }
    for outsider in &mut outsiders {
        assert_eq!(outsider.settle(), [] as [Value; 0]);
    }
    // C7
    let reply = outsiders[0].request(json!({"type": "subscribe", "pipes": ["acme:red:chat-1", "globex:red:chat-9"]}));
    assert_code(&reply["results"]["acme:red:chat-1"], "SCOPE_MISMATCH");
    assert_ok(&reply["results"]["globex:red:chat-9"]);
}

// F8, A4: before revocations, which are told of to nobody outside; and before the application is asked anything.
#[test]
fn it_is_looked_at_before_everything_else() {
    let application = Application::start(|_| Reply::allow(true));
    let url = application.url("/rule");
    let server = server(&format!(
        "[[guard]]\nurl = \"{url}\"\n[pipe.\"{{tenant}}:room\"]\nscope = {{ tenant = \"tenant\", feature = \"chat\" }}\n\
         subscribe = {{ url = \"{url}\" }}\npublish = {{ url = \"{url}\" }}\npresence = {{ url = \"{url}\" }}\n"
    ));
    let mut eve =
        Client::connect(server.address, &token_with("eve", json!({"tenant": "globex", "features": ["chat"]})));
    let mut ann = Client::connect(server.address, &token_with("ann", json!({"tenant": "acme"})));
    server.api.done("revoke", json!({"user": "eve", "pipe": "acme:room"}));
    server.api.done("revoke", json!({"user": "ann", "pipe": "acme:room"}));
    eve.settle();
    ann.settle();
    assert_all(&mut eve, "acme:room", Some("SCOPE_MISMATCH"));
    assert_all(&mut ann, "acme:room", Some("FEATURE_DISABLED"));
    assert_all(&mut ann, "globex:room", Some("SCOPE_MISMATCH"));
    assert_eq!(application.heard().len(), 0);
}

// E5: the application is outside of all scopes.
#[test]
fn the_application_publishes_to_all() {
    let server = server(SCOPED);
    let mut ann = Client::connect(
        server.address,
        &token_with("ann", json!({"tenant": "acme", "org": "red", "features": ["chat"]})),
    );
    assert_ok(&ann.subscribe("acme:red:chat-1"));
    let count = json!({"pipe": "acme:red:chat-1", "event": "e", "data": 1, "count": true});
    assert_eq!(server.api.delivered("publish", count), 1);
    ann.expect_event("acme:red:chat-1", 1);
}

// C26: a feature may come and go at a refresh; subscriptions outside of it end.
#[test]
fn a_feature_that_goes_takes_its_subscriptions() {
    let server = server(SCOPED);
    let with = |features: Value| sign(&json!({"sub": "ann", "features": features}).to_string());
    let mut ann = Client::connect(server.address, &with(json!(["beta"])));
    assert_ok(&ann.subscribe("beta"));
    assert_ok(&ann.publish("beta", 1));
    ann.expect_event("beta", 1);
    assert_ok(&ann.request(json!({"type": "refresh", "token": with(json!([]))})));
    let told = ann.expect_system("unsubscribed", "beta");
    assert_eq!(told["reason"], "refresh", "{told}");
    assert_all(&mut ann, "beta", Some("FEATURE_DISABLED"));
    server.api.done("publish", json!({"pipe": "beta", "event": "e", "data": 2}));
    assert_eq!(ann.settle(), [] as [Value; 0]);
    assert_ok(&ann.request(json!({"type": "refresh", "token": with(json!(["beta"]))})));
    assert_all(&mut ann, "beta", None);
}
