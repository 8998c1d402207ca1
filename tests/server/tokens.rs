//! Who somebody is: where a token may stand, which ones are good, and when they end (PROTOCOL §1, A1, A3, A13, B4,
//! B6–B10, B12, C29, D13, INVARIANTS 30).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::support::{Client, Launch, Request, SECRET, Server, sign, token, unix_ms, unix_s};

const RSA_PRIVATE: &[u8] = include_bytes!("../keys/rsa2048.private.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../keys/rsa2048.public.pem");
const P256_PRIVATE: &[u8] = include_bytes!("../keys/p256.private.pem");
const P256_PUBLIC: &[u8] = include_bytes!("../keys/p256.public.pem");
const ED25519_PRIVATE: &[u8] = include_bytes!("../keys/ed25519.private.pem");
const ED25519_PUBLIC: &[u8] = include_bytes!("../keys/ed25519.public.pem");

/// A token with this header and these claims, signed by `algorithm` whatever the header says.
fn signed(header: Value, claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(&header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("signed");
    format!("{message}.{signature}")
}

fn secret() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

#[track_caller]
fn assert_refused(server: &Server, token: &str) {
    Request::upgrade().token(token).assert_refused(server.address, 401, "UNAUTHENTICATED");
}

fn by_query(token: &str) -> Request {
    Request::upgrade().target(&format!("/v1/connect?a=b&token={token}"))
}

fn by_subprotocol(request: Request, token: &str) -> Request {
    request.header("Sec-WebSocket-Protocol", &format!("pipeward.v1, pipeward.token.{token}"))
}

#[test]
fn a_token_may_stand_in_three_places_and_the_first_decides() {
    let server = Server::start("");
    let (ann, bob, eve) = (token("ann", &[]), token("bob", &[]), token("eve", &[]));
    let upgrade = Request::upgrade;
    let user = |request: Request| Client::with(server.address, &request).welcome["user"]["id"].clone();
    assert_eq!(user(upgrade().token(&ann)), "ann");
    assert_eq!(user(upgrade().header("authorization", &format!("bEARER  {ann}"))), "ann", "B4");
    assert_eq!(user(by_subprotocol(upgrade(), &bob)), "bob");
    assert_eq!(user(by_query(&eve)), "eve");
    assert_eq!(user(by_subprotocol(by_query(&eve), &bob).token(&ann)), "ann");
    assert_eq!(user(by_subprotocol(by_query(&eve), &bob)), "bob");
    assert_eq!(user(by_subprotocol(by_query("wrong"), "wrong").token(&ann)), "ann");
    assert_eq!(user(by_query(&eve).header("Authorization", "Basic YTpi")), "eve", "B4");
    // A token that is there and wrong: nothing behind it is looked at.
    let refused = |request: Request| request.assert_refused(server.address, 401, "UNAUTHENTICATED");
    refused(by_subprotocol(by_query(&eve), &bob).token("wrong"));
    refused(by_subprotocol(by_query(&eve), "wrong"));
    refused(by_subprotocol(by_query(&eve), ""));
    refused(by_query(&eve).header("Authorization", "Bearer"));
    refused(by_query(&eve).header("Authorization", "Bearer "));
    refused(by_query("wrong"));
    // B4
    refused(by_query(""));
    let response = refused(upgrade());
    assert_eq!(response.header("www-authenticate"), Some("Bearer"));
}

#[test]
fn every_algorithm_of_a_secret_is_good_and_no_other() {
    let server = Server::start("");
    let claims = json!({"sub": "ann"});
    for (name, algorithm) in [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)] {
        let good = signed(json!({"alg": name}), &claims, algorithm, &secret());
        assert_eq!(Client::connect(server.address, &good).welcome["user"]["id"], "ann", "{name}");
    }
    for name in ["none", "None", "NONE", "", "hs256", "HS256 ", "RS256", "ES256", "EdDSA", "PS256"] {
        assert_refused(&server, &signed(json!({"alg": name}), &claims, Algorithm::HS256, &secret()));
        let unsigned = signed(json!({"alg": name}), &claims, Algorithm::HS256, &secret());
        assert_refused(&server, &unsigned[..=unsigned.rfind('.').expect("three parts")]);
    }
    assert_refused(&server, &signed(json!({}), &claims, Algorithm::HS256, &secret()));
    assert_refused(&server, &signed(json!({"alg": ["HS256"]}), &claims, Algorithm::HS256, &secret()));
    assert_refused(&server, &signed(json!({"alg": "HS512"}), &claims, Algorithm::HS256, &secret()));
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE).expect("a key");
    assert_refused(&server, &signed(json!({"alg": "RS256"}), &claims, Algorithm::RS256, &rsa));
    let other = EncodingKey::from_secret(b"another secret of thirty-two byte");
    assert_refused(&server, &signed(json!({"alg": "HS256"}), &claims, Algorithm::HS256, &other));
}

// D13: the file lies beside the configuration.
#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE).expect("a key");
    let p256 = EncodingKey::from_ec_pem(P256_PRIVATE).expect("a key");
    let ed25519 = EncodingKey::from_ed_pem(ED25519_PRIVATE).expect("a key");
    let cases = [
        ("RS256", Algorithm::RS256, RSA_PUBLIC, rsa),
        ("ES256", Algorithm::ES256, P256_PUBLIC, p256),
        ("EdDSA", Algorithm::EdDSA, ED25519_PUBLIC, ed25519),
    ];
    let claims = json!({"sub": "ann"});
    for (name, algorithm, public, private) in cases {
        let config = "[auth.token]\npublic_key_file = \"keys.pem\"\n";
        let server = Launch::new(config).file("keys.pem", public).start();
        let good = signed(json!({"alg": name}), &claims, algorithm, &private);
        assert_eq!(Client::connect(server.address, &good).welcome["user"]["id"], "ann", "{name}");
        let text = std::str::from_utf8(public).expect("PEM");
        for confused in [text, text.trim_end(), &text.replace('\n', "\r\n")] {
            let key = EncodingKey::from_secret(confused.as_bytes());
            assert_refused(&server, &signed(json!({"alg": "HS256"}), &claims, Algorithm::HS256, &key));
            assert_refused(&server, &signed(json!({"alg": name}), &claims, Algorithm::HS256, &key));
        }
        assert_refused(&server, &signed(json!({"alg": "HS256"}), &claims, algorithm, &private));
        assert_refused(&server, &signed(json!({"alg": "none"}), &claims, algorithm, &private));
        assert_refused(&server, &token("ann", &[]));
    }
}

// B12, INVARIANTS 30
#[test]
fn a_header_cannot_bring_its_own_key() {
    let server = Server::start("");
    let claims = json!({"sub": "ann"});
    let with = |name: &str, value: Value, key: &EncodingKey| {
        let mut header = json!({"alg": "HS256"});
        header[name] = value;
        signed(header, &claims, Algorithm::HS256, key)
    };
    let theirs = EncodingKey::from_secret(b"their own secret of thirty-two b");
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("their own secret of thirty-two b")});
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("http://127.0.0.1:1/keys")),
        ("x5u", json!("http://127.0.0.1:1/keys")),
        ("x5c", json!(["MIIB"])),
        ("kid", json!("../../../../dev/null")),
    ] {
        assert_refused(&server, &with(name, value.clone(), &theirs));
        Client::connect(server.address, &with(name, value, &secret())).close();
    }
    assert_refused(&server, &with("crit", json!(["exp"]), &secret()));
    assert_refused(&server, &with("crit", json!([]), &secret()));
}

// A1, B8, B9
#[test]
fn claims_that_are_not_as_they_should_be_refuse_the_token() {
    let server = Server::start("");
    let now = unix_s();
    for claims in [
        json!({}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": "x".repeat(257)}),
        json!({"sub": "**"}),
        json!({"sub": "a b"}),
        json!({"sub": "a{b"}),
        json!({"sub": "a\u{7}"}),
        json!({"sub": "ann", "tenant": 3}),
        json!({"sub": "ann", "role": "a*"}),
        json!({"sub": "ann", "features": "chat"}),
        json!({"sub": "ann", "features": [1]}),
        json!({"sub": "ann", "pipes": []}),
        json!({"sub": "ann", "pipes": {"room": true}}),
        json!({"sub": "ann", "pipes": {"a room": {"subscribe": true}}}),
        json!({"sub": "ann", "exp": "soon"}),
        json!({"sub": "ann", "exp": null}),
        json!({"sub": "ann", "exp": now - 1}),
        json!({"sub": "ann", "exp": 0}),
        json!({"sub": "ann", "exp": -1}),
        json!({"sub": "ann", "nbf": now + 100}),
        json!({"sub": "ann", "iat": "then"}),
        // B7
        json!({"sub": "ann", "aud": "somebody"}),
    ] {
        assert_refused(&server, &sign(&claims.to_string()));
    }
    for text in ["", "[]", "null", "{\"sub\":\"ann\"", "{\"sub\":\"ann\",\"sub\":\"bob\"}"] {
        assert_refused(&server, &sign(text));
    }
    let good = token("ann", &[]);
    let parts: Vec<&str> = good.split('.').collect();
    for form in [
        "x".into(),
        "..".into(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}."),
        format!("{good}.x"),
        format!("{good}="),
        format!("{}={}", parts[0], &good[parts[0].len()..]),
        format!("{}.{}.", parts[0], parts[1]),
        "x".repeat(12_000),
    ] {
        assert_refused(&server, &form);
    }
}

#[test]
fn claims_at_their_limits_are_good() {
    let server = Server::start("");
    let now = unix_s();
    let expires_at = |claims: Value| {
        let client = Client::connect(server.address, &sign(&claims.to_string()));
        client.welcome.get("expires_at").cloned()
    };
    // B6
    assert_eq!(expires_at(json!({"sub": "ann"})), None);
    assert_eq!(expires_at(json!({"sub": "ann", "exp": now + 100})), Some(json!((now + 100) * 1000)));
    assert_eq!(expires_at(json!({"sub": "ann", "exp": now as f64 + 100.5})), Some(json!(now * 1000 + 100_500)));
    // B8
    assert_eq!(expires_at(json!({"sub": "ann", "iat": now + 1000, "nbf": now - 1})), None);
    assert!(expires_at(json!({"sub": "ann", "exp": 1e300})).is_some());
    let long = "é".repeat(128);
    // B9: only ids are short and without control characters.
    let odd = "Ann\n\u{1b}[31m ".repeat(80);
    let welcome = Client::connect(server.address, &sign(&json!({"sub": "ann", "name": odd}).to_string())).welcome;
    assert_eq!(welcome["user"]["name"], odd);
    let named = sign(&json!({"sub": long, "name": "Ann Example"}).to_string());
    assert_eq!(Client::connect(server.address, &named).welcome["user"], json!({"id": long, "name": "Ann Example"}));
    // A1: any other value of a right is no error, and no right.
    let odd = json!({"subscribe": "yes", "publish": 1, "presence": null});
    let client = Client::connect(server.address, &sign(&json!({"sub": "ann", "pipes": {"room": odd}}).to_string()));
    let none = json!({"subscribe": false, "publish": false, "presence": false});
    assert_eq!(client.welcome["pipes"], json!({"room": none}));
}

#[test]
fn issuer_audience_leeway_and_expiry_are_checked_as_configured() {
    let config = format!(
        "[auth.token]\nhmac_secret = \"{SECRET}\"\nissuer = \"us\"\naudience = \"edge\"\nleeway_s = 30\nrequire_exp = true\n"
    );
    let server = Server::start(&config);
    let now = unix_s();
    let claims = |change: Value| {
        let mut claims = json!({"sub": "ann", "iss": "us", "aud": "edge", "exp": now + 60});
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        sign(&claims.to_string())
    };
    for good in [json!({}), json!({"aud": ["other", "edge"]}), json!({"exp": now - 5}), json!({"nbf": now + 20})] {
        Client::connect(server.address, &claims(good)).close();
    }
    for bad in [
        json!({"iss": "them"}),
        json!({"iss": null}),
        json!({"aud": "other"}),
        json!({"aud": []}),
        json!({"aud": null}),
        json!({"exp": now - 40}),
        json!({"nbf": now + 60}),
    ] {
        assert_refused(&server, &claims(bad));
    }
    let no_exp = sign(&json!({"sub": "ann", "iss": "us", "aud": "edge"}).to_string());
    assert_refused(&server, &no_exp);
    // Whoever comes within the leeway stays until it is over.
    let welcome = Client::connect(server.address, &claims(json!({"exp": now - 5}))).welcome;
    assert_eq!(welcome["expires_at"], json!((now + 25) * 1000));
}

#[test]
fn anonymous_where_it_is_allowed() {
    let server = Server::start("[auth]\nanonymous = true\n");
    let client = Client::with(server.address, &Request::upgrade());
    // B21
    assert_eq!(client.welcome["user"], Value::Null);
    assert_eq!(client.welcome["pipes"], json!({}));
    client.close();
    assert_refused(&server, "wrong");
    by_query("").assert_refused(server.address, 401, "UNAUTHENTICATED");
    let claims = json!({"sub": "ann", "exp": unix_s() - 1});
    assert_refused(&server, &sign(&claims.to_string()));
    let ann = Client::connect(server.address, &token("ann", &[]));
    assert_eq!(ann.welcome["user"]["id"], "ann");
}

// A3
#[test]
fn without_a_key_every_token_is_refused() {
    let server = Launch::new("[auth]\nanonymous = true\n").without_token_key().start();
    assert_refused(&server, &token("ann", &[]));
    by_query("x").assert_refused(server.address, 401, "UNAUTHENTICATED");
    assert_eq!(Client::with(server.address, &Request::upgrade()).welcome["user"], Value::Null);
}

#[test]
fn a_token_that_runs_out_ends_its_connection() {
    let server = Server::start("");
    let expires_ms = (unix_s() + 2) * 1000;
    let claims =
        json!({"sub": "ann", "exp": expires_ms / 1000, "pipes": {"room": {"subscribe": true, "publish": true}}});
    let mut idle = Client::connect(server.address, &sign(&claims.to_string()));
    let mut busy = Client::connect(server.address, &sign(&claims.to_string()));
    let mut lasting = Client::connect(server.address, &token("bob", &[]));
    while unix_ms() + 300 < expires_ms {
        busy.send(json!({"type": "publish", "pipe": "room", "event": "e", "data": 1}));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(idle.closed().0, Some(4401));
    let at_ms = unix_ms();
    assert!(at_ms >= expires_ms, "{} ms early", expires_ms - at_ms);
    // A second is promised; the machine is shared.
    assert!(at_ms < expires_ms + 5_000, "{} ms late", at_ms - expires_ms);
    assert_eq!(busy.closed().0, Some(4401));
    lasting.settle();
    assert_eq!(server.counter("closed[4401]"), 2);
}

// C29
#[test]
fn a_client_is_told_that_its_token_runs_out() {
    let server = Server::start("");
    let told = |in_s: u64| {
        let claims = json!({"sub": "ann", "exp": unix_s() + in_s});
        Client::connect(server.address, &sign(&claims.to_string())).settle()
    };
    let soon = told(30);
    assert_eq!(soon.len(), 1, "{soon:?}");
    assert_eq!((&soon[0]["type"], &soon[0]["event"]), (&json!("system"), &json!("expiring")));
    assert!(soon[0]["in_s"].as_u64().is_some_and(|in_s| (20..=30).contains(&in_s)), "{soon:?}");
    assert!(told(300).is_empty());
}
