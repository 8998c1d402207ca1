//! Form, header, algorithms and keys: nothing but a token signed with the configured key gets through.

use super::*;

#[test]
fn every_algorithm_verifies_and_only_with_its_own_key() {
    // B10
    for (of, verifier) in verifiers().iter().enumerate() {
        for (by, (key, algorithms)) in private_keys().iter().enumerate() {
            for &(name, algorithm) in *algorithms {
                let verified = verifier.verify(&named(name, algorithm, key), NOW_MS);
                let same = of == by || (1..=2).contains(&of) && (1..=2).contains(&by);
                match verified {
                    Ok(decision) => assert!(same && decision.identity.id() == "ann"),
                    Err(error) => {
                        assert!(!same && error == TokenError::Algorithm, "{name}: {error}")
                    }
                }
            }
        }
    }
}

#[test]
fn a_token_may_not_choose_its_algorithm() {
    let signature_of = |key: &EncodingKey| named("HS256", Algorithm::HS256, key);
    for (pem, verifier) in [
        (RSA_PUBLIC, public(RSA_PUBLIC).unwrap()),
        (P256_PUBLIC, public(P256_PUBLIC).unwrap()),
        (ED25519_PUBLIC, public(ED25519_PUBLIC).unwrap()),
    ] {
        // A public key taken for an HMAC secret.
        let confused = verifier.verify(&signature_of(&EncodingKey::from_secret(pem)), NOW_MS);
        assert_eq!(confused, Err(TokenError::Algorithm));
    }
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE).unwrap();
    let p384 = EncodingKey::from_ec_pem(P384_PRIVATE).unwrap();
    let [hmac, by_rsa, _, by_p256, _] = verifiers();
    for (name, algorithm) in [
        ("RS384", Algorithm::RS384),
        ("RS512", Algorithm::RS512),
        ("PS256", Algorithm::PS256),
        ("PS512", Algorithm::PS512),
    ] {
        assert_eq!(by_rsa.verify(&named(name, algorithm, &rsa), NOW_MS), Err(TokenError::Algorithm));
    }
    assert_eq!(by_rsa.verify(&named("RS256", Algorithm::PS256, &rsa), NOW_MS), Err(TokenError::Signature));
    assert_eq!(by_p256.verify(&named("ES384", Algorithm::ES384, &p384), NOW_MS), Err(TokenError::Algorithm));
    assert_eq!(by_p256.verify(&named("ES256", Algorithm::ES384, &p384), NOW_MS), Err(TokenError::Signature));
    let secret = EncodingKey::from_secret(SECRET);
    assert_eq!(hmac.verify(&named("HS512", Algorithm::HS256, &secret), NOW_MS), Err(TokenError::Signature));
    for name in ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS1", "dir", "A256KW"] {
        let message = unsigned(&json!({ "alg": name }).to_string(), r#"{"sub":"ann"}"#);
        for verifier in verifiers() {
            assert_eq!(verifier.verify(&format!("{message}."), NOW_MS), Err(TokenError::Algorithm), "{name}");
        }
        assert_eq!(hmac.verify(&named(name, Algorithm::HS256, &secret), NOW_MS), Err(TokenError::Algorithm));
    }
}

#[test]
fn the_header_is_read_strictly_and_brings_no_key() {
    let hmac = Verifier::new(&secret_settings()).unwrap();
    let attackers = EncodingKey::from_secret(b"a secret that the bearer brought");
    let ours = EncodingKey::from_secret(SECRET);
    let verify = |header: &str, key| hmac.verify(&signed(header, r#"{"sub":"ann"}"#, Algorithm::HS256, key), NOW_MS);
    // INVARIANTS 30
    for foreign in [
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"YSBzZWNyZXQgdGhhdCB0aGUgYmVhcmVyIGJyb3VnaHQ"}}"#,
        r#"{"alg":"HS256","jku":"https://evil.example/keys","kid":"../../dev/null"}"#,
        r#"{"alg":"HS256","x5u":"https://evil.example/","x5c":["AAAA"],"typ":7,"kid":[]}"#,
    ] {
        assert_eq!(verify(foreign, &attackers), Err(TokenError::Signature));
        assert!(verify(foreign, &ours).is_ok(), "ignored: {foreign}");
    }
    // B12
    for crit in [r#"["exp"]"#, "[]", "null", r#"["b64"],"b64":false"#] {
        assert_eq!(verify(&format!(r#"{{"alg":"HS256","crit":{crit}}}"#), &ours), Err(TokenError::Critical));
    }
    for malformed in [
        "",
        "{}",
        "[]",
        "null",
        r#""HS256""#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":256}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","\u0061lg":"HS256"}"#,
        r#"{"alg":"HS256"} {}"#,
        r#"{"alg":"HS256""#,
    ] {
        assert_eq!(verify(malformed, &ours), Err(TokenError::Header), "{malformed}");
    }
    assert!(verify("{\"\\u0061lg\":\"\\u0048S256\" ,\n\"typ\":\"JWT\"}", &ours).is_ok(), "escapes are JSON");
}

#[test]
fn published_examples_verify_as_far_as_they_are_ours() {
    // RFC 7515 appendix A.1. It has no `sub`, which is looked at after the signature.
    let secret = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                 cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let verifier = Verifier::new(&settings(KeySource::HmacSecret(secret))).unwrap();
    let no_user = TokenError::Claims(Malformed::Missing("sub"));
    assert_eq!(verifier.verify(token, 1_300_819_379_999), Err(no_user));
    assert_eq!(verifier.verify(token, 1_300_819_380_000), Err(TokenError::Expired));
}

#[test]
fn the_form_is_three_parts_in_base64url() {
    let verifier = Verifier::new(&secret_settings()).unwrap();
    let good = sign(SECRET, r#"{"sub":"ann"}"#);
    assert!(verifier.verify(&good, NOW_MS).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts") };
    for form in [
        String::new(),
        ".".into(),
        "..".into(),
        header.into(),
        format!("{header}.{claims}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{header}.{claims}.{signature}.{signature}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header} .{claims}.{signature}"),
        format!("{header}.{claims}\n.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode([b'{', 0xFF, b'}'])),
        "Bearer a.b.c".into(),
        "\u{1F512}.a.b".into(),
    ] {
        let error = verifier.verify(&form, NOW_MS).expect_err(&form);
        assert!(
            matches!(error, TokenError::Form | TokenError::Header | TokenError::Claims(Malformed::Object)),
            "{form}: {error}"
        );
    }
    // Neither padding, nor nothing, nor other last bits that decode alike, make a second spelling of a signature.
    for signature in [format!("{signature}="), String::new(), format!("{signature}A"), respelled(signature)] {
        assert_eq!(verifier.verify(&format!("{header}.{claims}.{signature}"), NOW_MS), Err(TokenError::Signature));
    }
    let long = format!("{}.{}", "A".repeat(TOKEN_BYTES_MAX), "e30.e30");
    assert_eq!(verifier.verify(&long, NOW_MS), Err(TokenError::TooLong));
    let fill = |bytes: usize| sign(SECRET, &format!(r#"{{"sub":"ann","x":"{}"}}"#, "x".repeat(bytes)));
    let most = (0..).find(|&bytes| fill(12_000 + bytes).len() > TOKEN_BYTES_MAX).unwrap();
    assert!(verifier.verify(&fill(12_000 + most - 1), NOW_MS).is_ok(), "at most {TOKEN_BYTES_MAX} bytes are fine");
    assert_eq!(verifier.verify(&fill(12_000 + most), NOW_MS), Err(TokenError::TooLong));
}

/// A signature of 32 bytes whose last character differs in the two bits that mean nothing.
fn respelled(signature: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = signature.split_at(signature.len() - 1);
    let at = ALPHABET.iter().position(|&byte| byte == last.as_bytes()[0]).unwrap();
    format!("{rest}{}", ALPHABET[at ^ 1] as char)
}

#[test]
fn keys_are_checked_when_loaded() {
    // B10
    let hmac = |secret: &[u8]| Verifier::new(&settings(KeySource::HmacSecret(secret.to_vec())));
    assert!(hmac(&[7; 16]).is_ok());
    for (refused, says) in [
        (hmac(&[7; 15]), "15 bytes"),
        (hmac(RSA_PUBLIC), "public_key_file"),
        (public(RSA1024_PUBLIC), "1024 bits"),
        (public(P384_PUBLIC), "not P-256"),
        (public(SECP256K1_PUBLIC), "not P-256"),
        (public(ED448_PUBLIC), "none of"),
        (public(RSA_PRIVATE), "private"),
        (public(P256_PRIVATE), "private"),
        (public(ED25519_PRIVATE), "private"),
        (public(&[P256_PUBLIC, ED25519_PUBLIC].concat()), "more than one"),
        (public(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "openssl x509"),
        (public(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "damaged"),
        (public(b"-----BEGIN PUBLIC KEY-----"), "damaged"),
        (public(b"ssh-ed25519 AAAA"), "not PEM"),
        (public(&[0xFF; 64]), "not PEM"),
        (public(b""), "not PEM"),
        (public(short_ed25519().as_bytes()), "Ed25519 key is damaged"),
    ] {
        let message = refused.expect_err(says);
        assert!(message.contains(says), "{message}");
    }
}

/// A PEM whose Ed25519 key is cut to 31 bytes, everything around it being right.
fn short_ed25519() -> String {
    let der = [&[0x30, 41, 0x30, 5, 0x06, 3, 43, 101, 112, 0x03, 32, 0][..], &[7; 31]].concat();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn a_verifier_may_be_shared_and_does_not_print_its_key() {
    fn shared<T: Send + Sync>(value: T) -> T {
        value
    }
    let verifier = shared(Verifier::new(&secret_settings()).unwrap());
    let printed = format!("{verifier:?}");
    assert!(!printed.contains("a secret") && !printed.contains("97, 32, 115"), "{printed}");
}
