//! Times, issuer and audience, and that they are looked at before the signature.

use super::*;

#[test]
fn times_are_compared_with_the_given_now() {
    let with = |claim: &str, leeway_s| {
        let verifier = Verifier::new(&TokenSettings { leeway_s, ..secret_settings() }).unwrap();
        let verified = verifier.verify(&sign(SECRET, &format!(r#"{{"sub":"ann",{claim}}}"#)), NOW_MS);
        verified.map(|decision| decision.expires_at_ms)
    };
    let expired = Err(TokenError::Expired);
    assert_eq!(with(r#""x":1"#, 0), Ok(None)); // B6
    assert_eq!(with(r#""exp":1700000001"#, 0), Ok(Some(NOW_MS + 1000)));
    assert_eq!(with(r#""exp":1700000000"#, 0), expired); // B18
    assert_eq!(with(r#""exp":1700000000"#, 5), Ok(Some(NOW_MS + 5000)));
    assert_eq!(with(r#""exp":1699999995"#, 5), expired);
    assert_eq!(with(r#""exp":1700000000.123"#, 0), Ok(Some(NOW_MS + 123)));
    assert_eq!(with(r#""exp":1.700000001e9"#, 0), Ok(Some(NOW_MS + 1000)));
    for early in ["0", "-1", "-0.5", "-1e400", "-9223372036854775808", "1e-400", "-99999999999999999999999"] {
        assert_eq!(with(&format!(r#""exp":{early}"#), u32::MAX / 1000), expired, "{early}");
    }
    for late in ["9223372036854775807", "18446744073709551616", "1e400", "1e17", "9007199254741"] {
        assert_eq!(with(&format!(r#""exp":{late}"#), u32::MAX), Ok(Some(EXPIRES_AT_MS_MAX)), "{late}");
    }
    assert_eq!(with(r#""nbf":1700000000"#, 0), Ok(None));
    assert_eq!(with(r#""nbf":1700000000.001"#, 0), Err(TokenError::NotYetValid)); // B8
    assert_eq!(with(r#""nbf":1700000005"#, 5), Ok(None));
    assert_eq!(with(r#""nbf":1700000006"#, 5), Err(TokenError::NotYetValid));
    assert_eq!(with(r#""nbf":1e400"#, u32::MAX), Err(TokenError::NotYetValid));
    assert_eq!(with(r#""nbf":-5"#, 0), Ok(None));
    assert_eq!(with(r#""iat":1800000000"#, 0), Ok(None)); // B8: ahead is accepted
    for (iat, ms) in [("17.9", 17_900), ("-0.5", -500), ("1700000000", 1_700_000_000_000)] {
        assert_eq!(verify(&format!(r#"{{"sub":"a","iat":{iat}}}"#)).unwrap().issued_at_ms, Some(ms));
    }
    for name in ["exp", "nbf", "iat"] {
        for wrong in [r#""1800000000""#, "null", "true", "[]", "{}", r#""MARK""#] {
            assert_eq!(refusal(&format!(r#"{{"sub":"a","{name}":{wrong}}}"#)), field(name), "{wrong}");
        }
        for no_json in ["NaN", "Infinity", "01", "1.", "+1", "0x7"] {
            let object = TokenError::Claims(Malformed::Object);
            assert_eq!(refusal(&format!(r#"{{"sub":"a","{name}":{no_json}}}"#)), object, "{no_json}");
        }
    }
}

#[test]
fn exp_may_be_required() {
    // B6
    let verifier = Verifier::new(&TokenSettings { require_exp: true, ..secret_settings() }).unwrap();
    let verify = |claims: &str| verifier.verify(&sign(SECRET, claims), NOW_MS);
    assert_eq!(verify(r#"{"sub":"a"}"#), Err(TokenError::NoExpiry));
    assert!(verify(r#"{"sub":"a","exp":1700000001}"#).is_ok());
}

#[test]
fn issuer_and_audience_must_be_ours() {
    let named = TokenSettings { issuer: Some("joe".into()), audience: Some("edge".into()), ..secret_settings() };
    let [strict, open] = [named, secret_settings()].map(|settings| Verifier::new(&settings).unwrap());
    let verify = |verifier: &Verifier, claims: &str| {
        verifier.verify(&sign(SECRET, &format!(r#"{{"sub":"a"{claims}}}"#)), NOW_MS).err()
    };
    for good in [r#","iss":"joe","aud":"edge""#, r#","iss":"jo\u0065","aud":["x","edge"]"#] {
        assert_eq!(verify(&strict, good), None, "{good}");
    }
    for bad in [
        r#","aud":"edge""#,
        r#","iss":"Joe","aud":"edge""#,
        r#","iss":"joe ","aud":"edge""#,
        r#","iss":"","aud":"edge""#,
    ] {
        assert_eq!(verify(&strict, bad), Some(TokenError::Issuer), "{bad}");
    }
    for bad in ["", r#","aud":"edges""#, r#","aud":[]"#, r#","aud":["x","Edge"]"#, r#","aud":"""#] {
        assert_eq!(verify(&strict, &format!(r#","iss":"joe"{bad}"#)), Some(TokenError::Audience), "{bad}");
    }
    assert_eq!(verify(&open, r#","iss":"anybody""#), None);
    // B7
    for aud in [r#""edge""#, r#"["edge"]"#, "[]", r#""""#] {
        assert_eq!(verify(&open, &format!(r#","aud":{aud}"#)), Some(TokenError::Audience), "{aud}");
    }
    for aud in ["7", "null", "{}", r#"["edge",7]"#, r#"[["edge"]]"#] {
        assert_eq!(verify(&strict, &format!(r#","iss":"joe","aud":{aud}"#)), Some(field("aud")), "{aud}");
    }
    assert_eq!(verify(&open, r#","iss":7"#), Some(field("iss")));
}

#[test]
fn cheap_checks_come_before_the_signature() {
    // INVARIANTS 19: with a wrong signature, the cheap check is still the one that answers.
    let named = TokenSettings { issuer: Some("joe".into()), ..secret_settings() };
    let verifier = Verifier::new(&named).unwrap();
    let forged = |claims: &str| verifier.verify(&sign(b"another secret", claims), NOW_MS).unwrap_err();
    assert_eq!(forged(r#"{"sub":"a","iss":"joe","exp":1}"#), TokenError::Expired);
    assert_eq!(forged(r#"{"sub":"a","iss":"moe"}"#), TokenError::Issuer);
    assert_eq!(forged(r#"{"sub":"a","iss":"joe","aud":"x"}"#), TokenError::Audience);
    assert_eq!(forged(r#"{"sub":"a","iss":"joe","nbf":1800000000}"#), TokenError::NotYetValid);
    // What takes memory comes after it.
    assert_eq!(forged(r#"{"iss":"joe","pipes":7}"#), TokenError::Signature);
}

#[test]
fn a_minted_token_verifies() {
    let token = mint(SECRET, &json!({ "sub": "ann", "exp": NOW_S + 1, "pipes": { "p": { "subscribe": true } } }));
    let verifier = Verifier::new(&secret_settings()).unwrap();
    let decision = verifier.verify(&token, NOW_MS).unwrap();
    assert_eq!(decision.grants[0].rights, Rights::SUBSCRIBE);
    assert_eq!(verifier.verify(&token, NOW_MS + 999).map(|_| ()), Ok(()));
    assert_eq!(verifier.verify(&token, NOW_MS + 1000), Err(TokenError::Expired));
}
