//! docs/authorization.md, tried out: each of its recipes is loaded and exercised over real sockets, and each of the sample
//! endpoints is run, asked by hand and asked by the server.
//!
//! `recipes`: what the page promises of each configuration, the refusals first. `examples`: who may connect, in Node, Python,
//! PHP, Laravel and Go. `narrowing`: limits that come with a token or an answer. `application`: the application of the recipes.

#[path = "../server/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests of the server, which use all of it")]
mod support;

mod application;
mod examples;
mod narrowing;
mod recipes;

/// The signature header of `body` at this time.
fn signature(secret: &str, at_s: u64, body: &str) -> String {
    use base64::Engine as _;
    let (key, message) = (jsonwebtoken::EncodingKey::from_secret(secret.as_bytes()), format!("{at_s}.{body}"));
    let code = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).expect("HMAC");
    let code = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(code).expect("base64");
    let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={at_s},v1={hex}")
}
