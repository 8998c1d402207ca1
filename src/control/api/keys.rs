//! Who calls: the key of a request against the keys of the configuration.
//!
//! Invariant: the time that a refusal takes tells nothing about any key. Both sides are hashed first, so that lengths do not
//! show, and every key is compared, whether or not an earlier one was it.
//!
//! Source: PROTOCOL.md §4, rulings E2, E3, G10.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::refusal::Refusal;
use crate::config::{Allow, ApiKey};
use crate::protocol::codes::Code;

/// Who made a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Name of the key, for the audit.
    pub key: Arc<str>,
    /// What it may do.
    pub allow: Allow,
    /// Where the request came from.
    pub ip: Option<IpAddr>,
}

/// The keys in force; a clone sees what is put into another.
#[derive(Clone)]
pub struct KeyRing(Arc<RwLock<Arc<[Known]>>>);

struct Known {
    digest: [u8; 32],
    name: Arc<str>,
    allow: Allow,
}

impl KeyRing {
    /// With these keys.
    pub fn new(keys: &[ApiKey]) -> KeyRing {
        KeyRing(Arc::new(RwLock::new(hashed(keys))))
    }

    /// Puts these in the place of the others (G2).
    pub fn replace(&self, keys: &[ApiKey]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = hashed(keys);
    }

    /// Whose key the request carries.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, the same whether there is no key, an unknown one, or no keys at all.
    pub(super) fn caller(&self, headers: &HeaderMap, ip: Option<IpAddr>) -> Result<Caller, Refusal> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let presented = bearer(headers).unwrap_or_default();
        match find(&known, presented) {
            Some(key) => Ok(Caller { key: key.name.clone(), allow: key.allow, ip }),
            None => Err(Refusal::new(Code::Unauthenticated, "A valid API key is needed: Authorization: Bearer KEY")),
        }
    }
}

fn hashed(keys: &[ApiKey]) -> Arc<[Known]> {
    let known = keys.iter().map(|key| Known {
        digest: Sha256::digest(&key.secret).into(),
        name: key.name.as_str().into(),
        allow: key.allow,
    });
    known.collect()
}

/// Looks at every key, and says at the end which it was.
fn find<'k>(known: &'k [Known], presented: &[u8]) -> Option<&'k Known> {
    let digest: [u8; 32] = Sha256::digest(presented).into();
    let mut place = u32::MAX;
    for (at, key) in (0u32..).zip(known) {
        place.conditional_assign(&at, key.digest[..].ct_eq(&digest[..]));
    }
    known.get(place as usize)
}

/// The one credential of the scheme Bearer (any case); two headers are none.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, None) = (values.next()?, values.next()) else { return None };
    let (scheme, credential) = first.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| credential.trim_ascii())
}
