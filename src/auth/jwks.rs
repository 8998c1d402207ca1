//! A set of public keys that somebody else publishes and rotates (RFC 7517), and where the current one stands.
//!
//! Invariant: a key of a set is held to the same rules as one of a file: RSA of 2048 to 4096 bits, P-256 or Ed25519,
//! each for its one algorithm (B10). `oct` keys and whatever else is not such a key are left out (B11), so a document
//! can never make a public text into a secret. Certificates and addresses in a key are not looked at (INVARIANTS 30).
//! Fetching is not done here: somebody calls [`FetchedKeys::install`], and a handshake reads what was installed last.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::Key;

/// Keys of one document. More: the document is refused (INVARIANTS 30).
pub const KEYS_MAX: usize = 100;
/// Bytes of one document. More: the document is refused (INVARIANTS 30).
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Usable keys of one document, in its order.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Named>,
    ignored: usize,
}

#[derive(Clone, Debug)]
struct Named {
    id: Option<Box<str>>,
    key: Key,
}

impl KeySet {
    /// Reads a document.
    ///
    /// # Errors
    /// A sentence for the operator: it is too long, no such document, or holds no key that can be used.
    pub fn parse(document: &[u8]) -> Result<KeySet, String> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(format!("it is longer than {DOCUMENT_BYTES_MAX} bytes"));
        }
        let document: Document =
            serde_json::from_slice(document).map_err(|_| "it is not a JSON object with an array `keys`".to_owned())?;
        if document.keys.len() > KEYS_MAX {
            return Err(format!("it holds {} keys; at most {KEYS_MAX} are taken", document.keys.len()));
        }
        let all = document.keys.len();
        let keys: Vec<Named> = document.keys.into_iter().filter_map(named).collect();
        if keys.is_empty() {
            return Err(format!("none of its {all} keys is a public RSA, P-256 or Ed25519 key for signatures"));
        }
        let ignored = all - keys.len();
        Ok(KeySet { keys, ignored })
    }

    /// Keys that can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: an empty document is refused.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys of the document that were left out.
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    /// The keys of this id, or all of them where a token names none, that the algorithm called `name` is for.
    ///
    /// # Errors
    /// [`Unfit`]
    pub fn fitting(&self, id: Option<&str>, name: &str) -> Result<Vec<(&Key, Algorithm)>, Unfit> {
        let mut of_id = self.keys.iter().filter(|one| id.is_none() || one.id.as_deref() == id).peekable();
        if of_id.peek().is_none() {
            return Err(Unfit::Id);
        }
        let fitting: Vec<_> = of_id.filter_map(|one| Some((&one.key, one.key.algorithm(name)?))).collect();
        if fitting.is_empty() { Err(Unfit::Algorithm) } else { Ok(fitting) }
    }
}

/// Why no key of a set fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// None has this id; a later set may.
    Id,
    /// Those that have it are for other algorithms.
    Algorithm,
}

/// Where the current set stands. Cheap to clone; all clones are one place.
#[derive(Clone, Default)]
pub struct FetchedKeys {
    place: Arc<Place>,
}

#[derive(Default)]
struct Place {
    set: RwLock<Option<Arc<KeySet>>>,
    wanted: AtomicBool,
}

impl FetchedKeys {
    /// From now on tokens are verified with this set.
    pub fn install(&self, set: KeySet) {
        *self.place.set.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(set));
    }

    /// The set, once there is one.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.place.set.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether both are one place.
    pub fn is(&self, other: &FetchedKeys) -> bool {
        Arc::ptr_eq(&self.place, &other.place)
    }

    /// Asks for a newer set: a token named a key that is not in this one.
    pub fn want(&self) {
        self.place.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether a newer set was asked for since this was last called.
    pub fn take_wanted(&self) -> bool {
        self.place.wanted.swap(false, Ordering::Relaxed)
    }
}

impl fmt::Debug for FetchedKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "FetchedKeys({})", self.current().map_or(0, |set| set.len()))
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// RFC 7517 §4, RFC 7518 §6, RFC 8037 §2.
#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    kid: Option<Cow<'a, str>>,
    #[serde(rename = "use")]
    usage: Option<Cow<'a, str>>,
    key_ops: Option<Vec<Cow<'a, str>>>,
    alg: Option<Cow<'a, str>>,
    crv: Option<Cow<'a, str>>,
    n: Option<Cow<'a, str>>,
    e: Option<Cow<'a, str>>,
    x: Option<Cow<'a, str>>,
    y: Option<Cow<'a, str>>,
}

fn named(raw: &RawValue) -> Option<Named> {
    let jwk: Jwk<'_> = serde_json::from_str(raw.get()).ok()?;
    let verifies = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
        && jwk.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"));
    if !verifies {
        return None;
    }
    let key = match (&*jwk.kty, jwk.crv.as_deref()) {
        ("RSA", _) => Key::from_rsa(jwk.n.as_deref()?, jwk.e.as_deref()?),
        ("EC", Some("P-256")) => Key::from_p256(jwk.x.as_deref()?, jwk.y.as_deref()?),
        ("OKP", Some("Ed25519")) => Key::from_ed25519(jwk.x.as_deref()?),
        _ => return None,
    };
    let key = key.ok()?;
    if jwk.alg.is_some_and(|alg| key.algorithm(&alg).is_none()) {
        return None;
    }
    Some(Named { id: jwk.kid.map(|id| id.into()), key })
}
