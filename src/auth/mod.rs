//! Who a connection is and what it is granted, before it is one.
//!
//! Reading order: `decision` (what authorize ends in), `identity` (who it is, kept small), `claims` (reading its JSON strictly), `key` (which algorithms a
//! key stands for), `jwks` (keys that are fetched), `token` (verifying a JWT at `now`), `answer` (what the application
//! says where it is asked). Nothing here knows a clock, a socket or a file: the time is an argument, keys and answers
//! arrive as bytes. Invariant: a [`Decision`] leaves this module only after a signature made with the configured key, or
//! out of an answer of the configured webhook, and every id and name in it obeys the rules written at [`decision`].

pub mod answer;
pub mod claims;
pub mod decision;
pub mod identity;
pub mod jwks;
pub mod key;
pub mod token;

#[cfg(test)]
mod tests;

pub use decision::{Decision, Grant, Rights};
pub use identity::{Identity, Profile};
pub use token::{TokenError, Verifier};

/// Fuzz entry: `data` as a whole token, and `data` as the claims of a rightly signed one.
///
/// # Panics
/// If an unsigned token verifies, or a decision breaks an invariant of [`decision`].
#[doc(hidden)]
pub fn fuzz_token(data: &[u8]) {
    use crate::config::{KeySource, TokenSettings};
    const NOW_MS: u64 = 1_700_000_000_000;
    const SECRET: &[u8] = b"the secret of the fuzz target only";

    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let settings = TokenSettings {
        key: KeySource::HmacSecret(SECRET.to_vec()),
        issuer: None,
        audience: None,
        leeway_s: 5,
        require_exp: false,
    };
    let verifier = Verifier::new(&settings).expect("a secret of more than 16 bytes is a key");
    assert!(verifier.verify(text, NOW_MS).is_err(), "nobody can sign without the secret");
    let Ok(decision) = verifier.verify(&token::sign(SECRET, text), NOW_MS) else {
        return;
    };
    assert!(decision.expires_at_ms.is_none_or(|at| at > NOW_MS));
    let identity = &decision.identity;
    let (session, token_id) = (decision.session.as_deref(), decision.token_id.as_deref());
    let optional = [identity.team(), identity.tenant(), identity.org(), session, token_id];
    let mut ids = optional.into_iter().flatten().chain(identity.roles()).chain([identity.id()]);
    assert!(ids.all(claims::is_id));
    assert!(decision.grants.len() <= crate::bounds::GRANTS_MAX);
    assert!(decision.grants.iter().all(|grant| claims::is_grant_name(&grant.pipe)));
}
