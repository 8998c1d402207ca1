//! Verifying a token: a JWT in compact form, at a given time.
//!
//! Invariant: a [`Decision`] comes only out of a token whose signature fits the configured key, by an algorithm that
//! follows from the key, and which is valid at `now_ms`. What is cheap is looked at before the signature is computed
//! (INVARIANTS 19): length, header, times, issuer, audience. What costs memory (identity, grants) is read after it.
//! The key comes from the configuration alone, or from the address that it names: `jku`, `x5u`, `jwk` and `x5c` of the
//! header are not looked at (INVARIANTS 30), and `kid` only chooses among fetched keys (B11); a `crit` refuses, since
//! nothing that it could name is understood (B12).
//! Units: times in claims are Unix seconds, maybe with a fraction; ours are Unix milliseconds.
//! Source: RFC 7515 (form, header), RFC 7519 §4.1 (claims), RFC 8725 (what goes wrong).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::value::RawValue;

use super::claims::{self, Fields, IdentityFields, Malformed, Slot, optional};
use super::decision::Decision;
use super::jwks::{FetchedKeys, KeySet, Unfit};
use super::key::Key;
use crate::bounds::TOKEN_BYTES_MAX;
use crate::config::{KeySource, TokenSettings};

/// The latest `expires_at_ms` that is told, the largest integer that every JSON reader holds. A later `exp` means this.
pub const EXPIRES_AT_MS_MAX: u64 = (1 << 53) - 1;

/// Why a token was refused. The sentence may be told to the client; it holds nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// Not three parts in base64url.
    Form,
    /// The header is not a JSON object with one `alg`.
    Header,
    /// The header has a `crit`.
    Critical,
    /// The algorithm is not one of the key's.
    Algorithm,
    /// No fetched key has the token's `kid`. A newer set was asked for.
    UnknownKey,
    /// No keys have been fetched yet: not the token's fault, and soon over (503).
    NoKeys,
    /// The signature does not fit.
    Signature,
    /// A claim is not as it should be.
    Claims(Malformed),
    /// `exp` (and the leeway) is past.
    Expired,
    /// `nbf` is ahead by more than the leeway.
    NotYetValid,
    /// There is no `exp`, and one is required.
    NoExpiry,
    /// `iss` is not the configured one.
    Issuer,
    /// `aud` does not hold the configured one, or is there and none is configured (B7).
    Audience,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenError::TooLong => "token too long",
            TokenError::Form => "token malformed: not three parts in base64url",
            TokenError::Header => "token malformed: its header is not a JSON object with one `alg`",
            TokenError::Critical => "token refused: its header has `crit`",
            TokenError::Algorithm => "token refused: its algorithm is not one of this server's key",
            TokenError::UnknownKey => "token refused: this server knows no key of its `kid`",
            TokenError::NoKeys => "tokens cannot be verified yet: the keys have not been fetched",
            TokenError::Signature => "token signature does not verify",
            TokenError::Claims(malformed) => return write!(f, "token malformed: {malformed}"),
            TokenError::Expired => "token expired",
            TokenError::NotYetValid => "token not valid yet",
            TokenError::NoExpiry => "token refused: it has no `exp`",
            TokenError::Issuer => "token refused: its issuer is not this server's",
            TokenError::Audience => "token refused: its audience is not this server",
        })
    }
}

impl std::error::Error for TokenError {}

impl From<Malformed> for TokenError {
    fn from(malformed: Malformed) -> TokenError {
        TokenError::Claims(malformed)
    }
}

/// Verifies tokens under one configuration. May be shared between threads.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Keys,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
    leeway_ms: i64,
    require_exp: bool,
}

#[derive(Clone, Debug)]
enum Keys {
    Own(Key),
    /// Of this address.
    Fetched(Box<str>, FetchedKeys),
}

/// Keys that may verify one token.
enum Chosen {
    Own(Algorithm),
    /// Of a set, by the name of the algorithm and the `kid`.
    Fetched(Arc<KeySet>, Box<str>, Option<Box<str>>),
}

impl Verifier {
    /// A verifier for `settings`.
    ///
    /// # Errors
    /// A sentence for the operator that says what is wrong with the key.
    pub fn new(settings: &TokenSettings) -> Result<Verifier, String> {
        let keys = match &settings.key {
            KeySource::JwksUrl(url) => Keys::Fetched(url.as_str().into(), FetchedKeys::default()),
            own => Keys::Own(Key::new(own)?),
        };
        Ok(Verifier {
            keys,
            issuer: settings.issuer.as_deref().map(Box::from),
            audience: settings.audience.as_deref().map(Box::from),
            leeway_ms: i64::from(settings.leeway_s) * 1000,
            require_exp: settings.require_exp,
        })
    }

    /// Where fetched keys are to be put; None: its key is its own.
    pub fn fetched(&self) -> Option<&FetchedKeys> {
        match &self.keys {
            Keys::Own(_) => None,
            Keys::Fetched(_, keys) => Some(keys),
        }
    }

    /// Goes on with the keys of `old`, if both have them from the same address: for a new configuration, which must
    /// not be without keys until they have been fetched again.
    pub fn keep_fetched(&mut self, old: &Verifier) {
        if let (Keys::Fetched(url, keys), Keys::Fetched(old_url, old_keys)) = (&mut self.keys, &old.keys)
            && url == old_url
        {
            *keys = old_keys.clone();
        }
    }

    /// Whether it has a key at all.
    pub fn is_ready(&self) -> bool {
        self.fetched().is_none_or(|keys| keys.current().is_some())
    }

    /// Who `token` says its bearer is, and what it grants, at `now_ms` (Unix milliseconds). The connection must end
    /// at `expires_at_ms`, which is `exp` plus the leeway and always later than `now_ms`.
    ///
    /// # Errors
    /// The first check that failed. Never panics, whatever `token` holds.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Decision, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let parts = Parts::of(token).ok_or(TokenError::Form)?;
        let mut buffer = Vec::with_capacity(parts.header.len().max(parts.claims.len()));
        let chosen = self.choose(decoded(parts.header, &mut buffer)?)?;
        let claims: Claims = claims::object(decoded(parts.claims, &mut buffer)?)?;
        self.check_parties(&claims)?;
        let expires_at_ms = self.check_times(&claims, i64::try_from(now_ms).unwrap_or(i64::MAX))?;
        if !self.verifies(&chosen, &parts)? {
            return Err(TokenError::Signature);
        }
        Ok(claims.decision(expires_at_ms)?)
    }

    fn choose(&self, header: &str) -> Result<Chosen, TokenError> {
        let header: Header = claims::object(header).map_err(|_| TokenError::Header)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let name = header.alg.ok_or(TokenError::Header)?;
        let name = claims::text(name, "alg").map_err(|_| TokenError::Header)?;
        match &self.keys {
            Keys::Own(key) => key.algorithm(&name).map(Chosen::Own).ok_or(TokenError::Algorithm),
            Keys::Fetched(_, keys) => {
                let kid = header.kid.map(|raw| claims::text(raw, "kid")).transpose().map_err(|_| TokenError::Header)?;
                let set = keys.current().ok_or(TokenError::NoKeys)?;
                Ok(Chosen::Fetched(set, name.into(), kid.map(Box::from)))
            }
        }
    }

    fn verifies(&self, chosen: &Chosen, parts: &Parts<'_>) -> Result<bool, TokenError> {
        let fits = |key: &Key, algorithm| key.verifies(algorithm, parts.signed.as_bytes(), parts.signature);
        match (chosen, &self.keys) {
            (Chosen::Own(algorithm), Keys::Own(key)) => Ok(fits(key, *algorithm)),
            (Chosen::Fetched(set, name, kid), Keys::Fetched(_, keys)) => match set.fitting(kid.as_deref(), name) {
                Ok(fitting) => Ok(fitting.into_iter().any(|(key, algorithm)| fits(key, algorithm))),
                Err(Unfit::Algorithm) => Err(TokenError::Algorithm),
                Err(Unfit::Id) => {
                    keys.want();
                    Err(TokenError::UnknownKey)
                }
            },
            _ => Ok(false),
        }
    }

    fn check_parties(&self, claims: &Claims<'_>) -> Result<(), TokenError> {
        let issuer = claims.iss.map(|raw| claims::text(raw, "iss")).transpose()?;
        if self.issuer.is_some() && self.issuer.as_deref() != issuer.as_deref() {
            return Err(TokenError::Issuer);
        }
        match (optional(claims.aud, "aud", audiences)?, &self.audience) {
            (None, None) => Ok(()),
            (Some(given), Some(ours)) if given.contains(ours) => Ok(()),
            _ => Err(TokenError::Audience),
        }
    }

    /// When the connection must end, if it must.
    fn check_times(&self, claims: &Claims<'_>, now_ms: i64) -> Result<Option<u64>, TokenError> {
        let not_before_ms = optional(claims.nbf, "nbf", time_ms)?;
        if not_before_ms.is_some_and(|at| now_ms.saturating_add(self.leeway_ms) < at) {
            return Err(TokenError::NotYetValid);
        }
        let Some(expires_ms) = optional(claims.exp, "exp", time_ms)? else {
            return if self.require_exp { Err(TokenError::NoExpiry) } else { Ok(None) };
        };
        let ends_ms = expires_ms.saturating_add(self.leeway_ms);
        if ends_ms <= now_ms {
            return Err(TokenError::Expired);
        }
        Ok(Some(u64::try_from(ends_ms).unwrap_or(0).min(EXPIRES_AT_MS_MAX)))
    }
}

/// A token with these claims, signed by HS256: for `pipeward token`, the demonstration and tests.
pub fn mint(secret: &[u8], claims: &serde_json::Value) -> String {
    sign(secret, &claims.to_string())
}

/// The same for claims as text, whose order is kept. Whether they are JSON is not looked at.
///
/// # Panics
/// Never: HMAC takes a key of any length.
pub fn sign(secret: &[u8], claims: &str) -> String {
    let mut token = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = jsonwebtoken::crypto::sign(token.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256)
        .expect("HMAC takes a key of any length");
    token.push('.');
    token + &signature
}

/// The three parts of the compact form (RFC 7515 §7.1), still encoded.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// What is signed: header, full stop, claims.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Parts<'a>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        // A fourth part would leave a full stop in the claims, which is not base64url.
        Some(Parts { header, claims, signature, signed })
    }
}

#[derive(Default)]
struct Header<'a> {
    alg: Slot<'a>,
    crit: Slot<'a>,
    kid: Slot<'a>,
}

impl<'a> Fields<'a> for Header<'a> {
    fn slot(&mut self, name: &str) -> Option<&mut Slot<'a>> {
        match name {
            "alg" => Some(&mut self.alg),
            "crit" => Some(&mut self.crit),
            "kid" => Some(&mut self.kid),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Claims<'a> {
    sub: Slot<'a>,
    exp: Slot<'a>,
    nbf: Slot<'a>,
    iat: Slot<'a>,
    iss: Slot<'a>,
    aud: Slot<'a>,
    jti: Slot<'a>,
    sid: Slot<'a>,
    pipes: Slot<'a>,
    limits: Slot<'a>,
    identity: IdentityFields<'a>,
}

impl<'a> Fields<'a> for Claims<'a> {
    fn slot(&mut self, name: &str) -> Option<&mut Slot<'a>> {
        match name {
            "sub" => Some(&mut self.sub),
            "exp" => Some(&mut self.exp),
            "nbf" => Some(&mut self.nbf),
            "iat" => Some(&mut self.iat),
            "iss" => Some(&mut self.iss),
            "aud" => Some(&mut self.aud),
            "jti" => Some(&mut self.jti),
            "sid" => Some(&mut self.sid),
            "pipes" => Some(&mut self.pipes),
            "limits" => Some(&mut self.limits),
            name => self.identity.slot(name),
        }
    }
}

impl Claims<'_> {
    fn decision(&self, expires_at_ms: Option<u64>) -> Result<Decision, Malformed> {
        let user = claims::id(self.sub.ok_or(Malformed::Missing("sub"))?, "sub")?;
        Ok(Decision {
            identity: self.identity.identity(&user)?,
            grants: self.pipes.map(claims::grants).transpose()?.unwrap_or_default(),
            issued_at_ms: optional(self.iat, "iat", time_ms)?,
            expires_at_ms,
            session: optional(self.sid, "sid", claims::id)?,
            token_id: optional(self.jti, "jti", claims::id)?,
            limits: optional(self.limits, "limits", claims::limits)?.map(Box::new),
        })
    }
}

/// A part's text, decoded into `buffer`. Padding, white space and stray last bits are refused (RFC 7515 §2).
fn decoded<'a>(part: &str, buffer: &'a mut Vec<u8>) -> Result<&'a str, TokenError> {
    buffer.clear();
    URL_SAFE_NO_PAD.decode_vec(part, buffer).map_err(|_| TokenError::Form)?;
    std::str::from_utf8(buffer).map_err(|_| TokenError::Form)
}

/// A NumericDate (RFC 7519 §2) in milliseconds, rounded; one out of range means the nearest that is in it.
fn time_ms(raw: &RawValue, field: &'static str) -> Result<i64, Malformed> {
    let text = raw.get();
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds.saturating_mul(1000));
    }
    // Every JSON number is one that Rust reads, and no other JSON value is.
    let seconds: f64 = text.parse().map_err(|_| Malformed::Field(field))?;
    Ok((seconds * 1000.0).round() as i64)
}

/// One string or an array of them (RFC 7519 §4.1.3).
fn audiences(raw: &RawValue, field: &'static str) -> Result<Vec<Box<str>>, Malformed> {
    if raw.get().starts_with('[') {
        return claims::list(raw, field, |_| true);
    }
    Ok(vec![claims::text(raw, field)?.into()])
}
