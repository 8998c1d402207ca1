//! What a token must and must not do: every algorithm, a table of refusals, and properties.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;
use serde_json::json;

use super::claims::Malformed;
use super::decision::{Decision, Rights};
use super::token::{EXPIRES_AT_MS_MAX, TokenError, Verifier, mint, sign};
use crate::bounds::{GRANTS_MAX, JSON_DEPTH_MAX, TOKEN_BYTES_MAX};
use crate::config::{KeySource, TokenSettings};

mod claims;
mod jwks;
mod properties;
mod signature;
mod validity;

// Test keys; tests/keys/README.md says how they were made.
const RSA_PRIVATE: &[u8] = include_bytes!("../../tests/keys/rsa2048.private.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../../tests/keys/rsa2048.public.pem");
const RSA_PUBLIC_PKCS1: &[u8] = include_bytes!("../../tests/keys/rsa2048.public.pkcs1.pem");
const RSA1024_PUBLIC: &[u8] = include_bytes!("../../tests/keys/rsa1024.public.pem");
const P256_PRIVATE: &[u8] = include_bytes!("../../tests/keys/p256.private.pem");
const P256_PUBLIC: &[u8] = include_bytes!("../../tests/keys/p256.public.pem");
const P384_PRIVATE: &[u8] = include_bytes!("../../tests/keys/p384.private.pem");
const P384_PUBLIC: &[u8] = include_bytes!("../../tests/keys/p384.public.pem");
const SECP256K1_PUBLIC: &[u8] = include_bytes!("../../tests/keys/secp256k1.public.pem");
const ED25519_PRIVATE: &[u8] = include_bytes!("../../tests/keys/ed25519.private.pem");
const ED25519_PUBLIC: &[u8] = include_bytes!("../../tests/keys/ed25519.public.pem");
const ED448_PUBLIC: &[u8] = include_bytes!("../../tests/keys/ed448.public.pem");

const SECRET: &[u8] = b"a secret of the tests, 32 bytes+";
const NOW_S: u64 = 1_700_000_000;
const NOW_MS: u64 = NOW_S * 1000;

fn settings(key: KeySource) -> TokenSettings {
    TokenSettings { key, issuer: None, audience: None, leeway_s: 0, require_exp: false }
}

fn secret_settings() -> TokenSettings {
    settings(KeySource::HmacSecret(SECRET.to_vec()))
}

fn public(pem: &[u8]) -> Result<Verifier, String> {
    Verifier::new(&settings(KeySource::PublicKeyPem(pem.to_vec())))
}

fn verify(claims: &str) -> Result<Decision, TokenError> {
    Verifier::new(&secret_settings()).unwrap().verify(&sign(SECRET, claims), NOW_MS)
}

/// The refusal of `claims`, whose sentence must say nothing of them.
fn refusal(claims: &str) -> TokenError {
    let error = verify(claims).expect_err(claims);
    assert!(!error.to_string().contains("MARK"), "{error} tells of {claims}");
    error
}

fn field(name: &'static str) -> TokenError {
    TokenError::Claims(Malformed::Field(name))
}

fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn signed(header: &str, claims: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    let message = unsigned(header, claims);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// The header's `alg` set to `name`, signed as `algorithm`.
fn named(name: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    signed(&json!({ "alg": name }).to_string(), r#"{"sub":"ann"}"#, algorithm, key)
}

fn private_keys() -> [(EncodingKey, &'static [(&'static str, Algorithm)]); 5] {
    use Algorithm::*;
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE).unwrap();
    [
        (EncodingKey::from_secret(SECRET), &[("HS256", HS256), ("HS384", HS384), ("HS512", HS512)]),
        (rsa.clone(), &[("RS256", RS256)]),
        (rsa, &[("RS256", RS256)]),
        (EncodingKey::from_ec_pem(P256_PRIVATE).unwrap(), &[("ES256", ES256)]),
        (EncodingKey::from_ed_pem(ED25519_PRIVATE).unwrap(), &[("EdDSA", EdDSA)]),
    ]
}

fn verifiers() -> [Verifier; 5] {
    [
        Verifier::new(&secret_settings()).unwrap(),
        public(RSA_PUBLIC).unwrap(),
        public(RSA_PUBLIC_PKCS1).unwrap(),
        public(P256_PUBLIC).unwrap(),
        public(ED25519_PUBLIC).unwrap(),
    ]
}
