//! Tokens for the simulated users: HS256 (RFC 7515 §A.1, RFC 7519), with the grants that a scenario needs.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;

/// How a client proves who it is.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Signs a token with this secret.
    Secret(String),
    /// Sends the user's name as it is; for servers that take any token.
    Name,
}

/// What a client may do: names or patterns with the rights to subscribe and to publish.
pub type Grants = Vec<(String, bool, bool)>;

impl Credentials {
    /// The bearer token of a user, valid until `expires_s` (Unix seconds).
    pub fn token(&self, user: &str, grants: &Grants, expires_s: u64) -> String {
        match self {
            Self::Name => user.to_owned(),
            Self::Secret(secret) => sign(secret, &claims(user, grants, expires_s)),
        }
    }
}

fn claims(user: &str, grants: &Grants, expires_s: u64) -> Value {
    let mut pipes = Map::new();
    for (name, subscribe, publish) in grants {
        let mut rights = Map::new();
        for (right, granted) in [("subscribe", *subscribe), ("publish", *publish)] {
            if granted {
                rights.insert(right.to_owned(), Value::Bool(true));
            }
        }
        pipes.insert(name.clone(), Value::Object(rights));
    }
    json!({"sub": user, "exp": expires_s, "pipes": pipes})
}

fn sign(secret: &str, claims: &Value) -> String {
    let mut token = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(token.as_bytes());
    let signature = mac.finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_an_independent_implementation() {
        // echo -n "$head.$claims" | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef -binary | basenc --base64url
        let token = sign("0123456789abcdef0123456789abcdef", &json!({"sub": "u"}));
        assert_eq!(
            token,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1In0.1WoTIWLgTv0EKM-4XvCy3Ug53VAwZIMDW_uKNki3twI"
        );
    }

    #[test]
    fn only_granted_rights_are_written() {
        let grants = vec![("a".to_owned(), true, false), ("b-*".to_owned(), false, true)];
        let claims = claims("u", &grants, 9);
        assert_eq!(claims["pipes"], json!({"a": {"subscribe": true}, "b-*": {"publish": true}}));
        assert_eq!((&claims["sub"], &claims["exp"]), (&json!("u"), &json!(9)));
    }

    #[test]
    fn a_server_that_takes_any_token_gets_the_name() {
        assert_eq!(Credentials::Name.token("u-1", &Vec::new(), 0), "u-1");
    }
}
