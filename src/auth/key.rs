//! The key that tokens are verified with, and the algorithms that follow from it.
//!
//! Invariant: the algorithm is a property of the key, never of the token (RFC 8725 §3.1). A token may only name one
//! of the few algorithms that its verifier's key stands for, so a public key can never be taken for an HMAC secret.
//! Everything a key can be wrong in is found when it is loaded; the messages are for the operator.
//! Source: RFC 7518 §3 (algorithms), RFC 8037 (EdDSA), B10.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::config::KeySource;

/// Bytes of the shortest secret that is a key (B10).
pub const SECRET_BYTES_MIN: usize = 16;
/// Bits of the smallest RSA modulus that is a key (B10).
pub const RSA_BITS_MIN: usize = 2048;
/// Bits of the largest RSA modulus that is a key: what the library verifies with.
pub const RSA_BITS_MAX: usize = 4096;
/// Bytes of a coordinate on P-256 (RFC 7518 §6.2.1.2).
const P256_BYTES: usize = 32;
/// Bytes of an Ed25519 public key (RFC 8032 §5.1.5).
const ED25519_BYTES: usize = 32;

/// A key, checked, with the algorithms it may be used for.
#[derive(Clone, Debug)]
pub struct Key {
    key: DecodingKey,
    algorithms: &'static [(&'static str, Algorithm)],
}

impl Key {
    /// Reads a secret, or a public key in PEM (`PUBLIC KEY`, or `RSA PUBLIC KEY` as in PKCS #1).
    ///
    /// # Errors
    /// A sentence for the operator that says what is wrong with the key and what would do; never the key itself.
    pub fn new(source: &KeySource) -> Result<Key, String> {
        match source {
            KeySource::HmacSecret(secret) => hmac(secret),
            KeySource::PublicKeyPem(pem) => public(pem),
            KeySource::JwksUrl(_) => Err("the keys of an address have to be fetched first".into()),
        }
    }

    /// The RSA key of a modulus and an exponent, in base64url (RFC 7518 §6.3.1).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_rsa(modulus: &str, exponent: &str) -> Result<Key, String> {
        let mut numbers = der_integer(&decoded(modulus)?);
        numbers.extend(der_integer(&decoded(exponent)?));
        rsa(DecodingKey::from_rsa_der(&der(0x30, &numbers)))
    }

    /// The P-256 key of two coordinates, in base64url (RFC 7518 §6.2.1).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_p256(x: &str, y: &str) -> Result<Key, String> {
        let (x, y) = (decoded(x)?, decoded(y)?);
        if x.len() != P256_BYTES || y.len() != P256_BYTES {
            return Err(format!("a coordinate of the P-256 key does not have {P256_BYTES} bytes"));
        }
        p256(DecodingKey::from_ec_der(&[&[0x04], &*x, &*y].concat()))
    }

    /// The Ed25519 key of its bytes, in base64url (RFC 8037 §2).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_ed25519(x: &str) -> Result<Key, String> {
        ed25519(DecodingKey::from_ed_der(&decoded(x)?))
    }

    /// The algorithm called `name` in a token's header, if it is one of this key's. Names are compared exactly.
    pub fn algorithm(&self, name: &str) -> Option<Algorithm> {
        self.algorithms.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Whether `signature` (base64url) over `message` was made with this key.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }
}

fn hmac(secret: &[u8]) -> Result<Key, String> {
    if secret.starts_with(b"-----BEGIN") {
        return Err("the secret is a PEM key, which anybody may know; give a public key as public_key_file".into());
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!("the secret has {} bytes; at least {SECRET_BYTES_MIN} are needed", secret.len()));
    }
    Ok(Key {
        key: DecodingKey::from_secret(secret),
        algorithms: &[("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)],
    })
}

fn public(pem: &[u8]) -> Result<Key, String> {
    check_label(pem)?;
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return rsa(key);
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        return p256(key);
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return ed25519(key);
    }
    Err("the key is none of RSA, P-256 and Ed25519, or its PEM text is damaged".into())
}

/// One block, and a public one: the library would take a certificate's or a private key's first bits for a key.
fn check_label(pem: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(pem).map_err(|_| "the key is not PEM text")?;
    let mut labels = text.split("-----BEGIN ").skip(1).map(|rest| rest.split("-----").next().unwrap_or_default());
    let label = labels.next().ok_or("the key is not PEM text (no line -----BEGIN PUBLIC KEY-----)")?;
    if labels.next().is_some() {
        return Err("the key file holds more than one PEM block; leave only the public key".into());
    }
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => Ok(()),
        "CERTIFICATE" => Err("the key is a certificate; take its key with `openssl x509 -pubkey -noout`".into()),
        label if label.ends_with("PRIVATE KEY") => {
            Err("the key is a private one, which only the issuer may hold; take its public half with `openssl pkey -pubout`".into())
        }
        _ => Err("the PEM block of the key is not labelled PUBLIC KEY".into()),
    }
}

fn rsa(key: DecodingKey) -> Result<Key, String> {
    let modulus = key
        .try_get_as_bytes()
        .and_then(|der| (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(der))
        .map(|(modulus, _exponent)| modulus)
        .map_err(|_| format!("the RSA key is damaged, or its modulus is longer than {RSA_BITS_MAX} bits"))?;
    let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - zeros;
    if bits < RSA_BITS_MIN {
        return Err(format!("the RSA key has {bits} bits; at least {RSA_BITS_MIN} are needed"));
    }
    Ok(Key { key, algorithms: &[("RS256", Algorithm::RS256)] })
}

fn p256(key: DecodingKey) -> Result<Key, String> {
    match (DEFAULT_PROVIDER.verifier_factory)(&Algorithm::ES256, &key) {
        Ok(_) => Ok(Key { key, algorithms: &[("ES256", Algorithm::ES256)] }),
        Err(_) => Err("the elliptic curve of the key is not P-256 (prime256v1), which ES256 needs".into()),
    }
}

fn ed25519(key: DecodingKey) -> Result<Key, String> {
    // The library slices the key to 32 bytes without looking.
    let whole = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == ED25519_BYTES);
    if !whole || (DEFAULT_PROVIDER.verifier_factory)(&Algorithm::EdDSA, &key).is_err() {
        return Err("the Ed25519 key is damaged".into());
    }
    Ok(Key { key, algorithms: &[("EdDSA", Algorithm::EdDSA)] })
}

fn decoded(part: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part of the key is not base64url".to_owned())
}

/// An unsigned number as a DER INTEGER (X.690 §8.3), for the library that reads keys in PKCS #1 only.
fn der_integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    // A leading bit would be a sign, and nothing at all would be no number.
    let positive: &[u8] = if digits.first().is_none_or(|first| first & 0x80 != 0) { &[0] } else { &[] };
    der(0x02, &[positive, digits].concat())
}

/// A tag, the length of `content` in as few bytes as it needs (X.690 §8.1.3), and `content`.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    match digits {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | long.len() as u8);
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}
