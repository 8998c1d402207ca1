//! Fetched keys: which of a document are taken, and how a token finds its own (B10, B11, INVARIANTS 30).

use super::*;
use crate::auth::jwks::{DOCUMENT_BYTES_MAX, KEYS_MAX, KeySet, Unfit};

// RFC 7517 A.1 and RFC 8037 A.2: public keys of other people's examples.
const RSA_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
const EC_X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
const EC_Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
const ED_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn set(keys: &str) -> Result<KeySet, String> {
    KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes())
}

/// The public half of an Ed25519 key of the tests, as a JWK with this `kid`.
fn ed25519_jwk(kid: &str) -> String {
    let text = std::str::from_utf8(ED25519_PUBLIC).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }).to_string()
}

/// The RSA key of the tests, by its numbers.
fn rsa_jwk(kid: &str) -> String {
    let text = std::str::from_utf8(RSA_PUBLIC_PKCS1).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    // SEQUENCE, INTEGER of 257 bytes with its leading zero, INTEGER of 3.
    let n = URL_SAFE_NO_PAD.encode(&der[9..9 + 256]);
    let e = URL_SAFE_NO_PAD.encode(&der[der.len() - 3..]);
    json!({ "kty": "RSA", "kid": kid, "n": n, "e": e }).to_string()
}

fn fetched() -> Verifier {
    Verifier::new(&settings(KeySource::JwksUrl("https://issuer.example/keys".into()))).unwrap()
}

fn by(header: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    signed(header, r#"{"sub":"ann"}"#, algorithm, key)
}

#[test]
fn usable_keys_are_taken_and_the_others_left_out() {
    for (taken, algorithm) in [
        (format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB"}}"#), "RS256"),
        (format!(r#"{{"kty":"RSA","n":"AAAA{RSA_N}","e":"AAEAAQ"}}"#), "RS256"),
        (format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB","alg":"RS256","use":"sig","x5c":["AAAA"]}}"#), "RS256"),
        (format!(r#"{{"kty":"EC","crv":"P-256","x":"{EC_X}","y":"{EC_Y}","key_ops":["sign","verify"]}}"#), "ES256"),
        (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED_X}","jku":"https://evil.example"}}"#), "EdDSA"),
    ] {
        let set = set(&format!(r#"{taken},{{"kty":"oct","k":"AAAA"}},7"#)).expect(&taken);
        assert_eq!((set.len(), set.ignored()), (1, 2));
        assert_eq!(set.fitting(None, algorithm).map(|all| all.len()), Ok(1));
        for other in ["HS256", "none", "RS512", "PS256", "ES384"] {
            assert_eq!(set.fitting(None, other).err(), Some(Unfit::Algorithm), "{other}");
        }
    }
    let short = URL_SAFE_NO_PAD.encode([0xA5; 128]);
    let long = URL_SAFE_NO_PAD.encode([0xA5; 513]);
    for ignored in [
        r#"{"kty":"oct","k":"YSBzZWNyZXQgdGhhdCBpcyBsb25nIGVub3VnaA","alg":"HS256"}"#.to_owned(),
        format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#),
        format!(r#"{{"kty":"RSA","n":"{long}","e":"AQAB"}}"#),
        format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":""}}"#),
        format!(r#"{{"kty":"RSA","n":"{RSA_N}"}}"#),
        format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB","use":"enc"}}"#),
        format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB","alg":"RS512"}}"#),
        format!(r#"{{"kty":"RSA","n":"{RSA_N}","e":"AQAB","key_ops":["encrypt"]}}"#),
        format!(r#"{{"kty":"RSA","kty":"RSA","n":"{RSA_N}","e":"AQAB"}}"#),
        format!(r#"{{"kty":"EC","crv":"P-384","x":"{EC_X}","y":"{EC_Y}"}}"#),
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{EC_X}","y":"{EC_X}"}}"#),
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{EC_X}AA","y":"{EC_Y}"}}"#),
        format!(r#"{{"kty":"OKP","crv":"X25519","x":"{ED_X}"}}"#),
        r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.to_owned(),
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED_X}="}}"#),
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED_X}","kid":7}}"#),
        "null".to_owned(),
    ] {
        assert!(set(&ignored).is_err(), "{ignored}");
    }
}

#[test]
fn a_document_has_its_bounds() {
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[{}]"#, "\u{feff}"] {
        assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let one = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED_X}"}}"#);
    assert_eq!(set(&vec![one.clone(); KEYS_MAX].join(",")).unwrap().len(), KEYS_MAX);
    assert!(set(&vec![one.clone(); KEYS_MAX + 1].join(",")).unwrap_err().contains("at most 100"));
    let mut text = format!(r#"{{"keys":[{one}]}}"#);
    text.extend(std::iter::repeat_n(' ', DOCUMENT_BYTES_MAX - text.len()));
    assert!(KeySet::parse(text.as_bytes()).is_ok());
    text.push(' ');
    assert!(KeySet::parse(text.as_bytes()).unwrap_err().contains("longer"));
}

#[test]
fn a_token_finds_its_key() {
    let verifier = fetched();
    let ed = EncodingKey::from_ed_pem(ED25519_PRIVATE).unwrap();
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE).unwrap();
    let verify = |token: &str| verifier.verify(token, NOW_MS).map(|decision| decision.identity.id().to_owned());
    let named_ed = by(r#"{"alg":"EdDSA","kid":"ed"}"#, Algorithm::EdDSA, &ed);
    assert!(!verifier.is_ready());
    assert_eq!(verify(&named_ed), Err(TokenError::NoKeys));

    let keys = verifier.fetched().unwrap().clone();
    let foreign = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"foreign","x":"{ED_X}"}}"#);
    keys.install(set(&[foreign.clone(), ed25519_jwk("ed"), rsa_jwk("rsa")].join(",")).unwrap());
    assert!(verifier.is_ready());
    assert_eq!(verify(&named_ed).as_deref(), Ok("ann"));
    assert_eq!(verify(&by(r#"{"alg":"RS256","kid":"rsa"}"#, Algorithm::RS256, &rsa)).as_deref(), Ok("ann"));
    // No `kid`: any key of the fitting type.
    assert_eq!(verify(&by(r#"{"alg":"EdDSA"}"#, Algorithm::EdDSA, &ed)).as_deref(), Ok("ann"));
    // Another's key, another's algorithm, no such algorithm.
    let refused = verify(&by(r#"{"alg":"EdDSA","kid":"foreign"}"#, Algorithm::EdDSA, &ed));
    assert_eq!(refused, Err(TokenError::Signature));
    assert_eq!(verify(&by(r#"{"alg":"EdDSA","kid":"rsa"}"#, Algorithm::EdDSA, &ed)), Err(TokenError::Algorithm));
    let secret = EncodingKey::from_secret(ED25519_PUBLIC);
    assert_eq!(verify(&by(r#"{"alg":"HS256","kid":"ed"}"#, Algorithm::HS256, &secret)), Err(TokenError::Algorithm));
    assert_eq!(verify(&by(r#"{"alg":"EdDSA","kid":["ed"]}"#, Algorithm::EdDSA, &ed)), Err(TokenError::Header));
    assert!(!keys.take_wanted(), "nothing of that asks for newer keys");

    // Unknown: refused, and a newer set is asked for, once.
    assert_eq!(verify(&by(r#"{"alg":"EdDSA","kid":"new"}"#, Algorithm::EdDSA, &ed)), Err(TokenError::UnknownKey));
    assert!(keys.take_wanted() && !keys.take_wanted());
    keys.install(set(&ed25519_jwk("new")).unwrap());
    assert_eq!(verify(&by(r#"{"alg":"EdDSA","kid":"new"}"#, Algorithm::EdDSA, &ed)).as_deref(), Ok("ann"));
    assert_eq!(verify(&named_ed), Err(TokenError::UnknownKey), "a key that was withdrawn counts no more");
}

// INVARIANTS 19: a token that is worth nothing anyway costs the issuer nothing.
#[test]
fn an_expired_token_asks_for_no_keys() {
    let verifier = fetched();
    let ed = EncodingKey::from_ed_pem(ED25519_PRIVATE).unwrap();
    let keys = verifier.fetched().unwrap();
    keys.install(set(&ed25519_jwk("ed")).unwrap());
    let token = signed(r#"{"alg":"EdDSA","kid":"new"}"#, r#"{"sub":"ann","exp":1}"#, Algorithm::EdDSA, &ed);
    assert_eq!(verifier.verify(&token, NOW_MS), Err(TokenError::Expired));
    assert!(!keys.take_wanted());
}

// G2: a reload must not leave the server without keys.
#[test]
fn a_new_configuration_keeps_the_keys_of_the_same_address() {
    let old = fetched();
    old.fetched().unwrap().install(set(&ed25519_jwk("ed")).unwrap());
    let mut same = fetched();
    same.keep_fetched(&old);
    assert!(same.is_ready() && same.fetched().unwrap().is(old.fetched().unwrap()));
    let mut other = Verifier::new(&settings(KeySource::JwksUrl("https://other.example/keys".into()))).unwrap();
    other.keep_fetched(&old);
    assert!(!other.is_ready());
    let mut own = Verifier::new(&secret_settings()).unwrap();
    own.keep_fetched(&old);
    assert!(own.is_ready() && own.fetched().is_none());
}

proptest! {
    #[test]
    fn whatever_the_document_it_is_read_or_refused(document in prop::collection::vec(any::<u8>(), 0..200), part in "\\PC{0,60}") {
        let _ = KeySet::parse(&document);
        let jwk = json!({ "kty": "RSA", "n": part, "e": part, "crv": part, "x": part, "y": part });
        prop_assert!(set(&jwk.to_string()).is_err());
    }
}
