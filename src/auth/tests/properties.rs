//! Whatever the bytes: no panic, nothing unsigned verifies, and every decision keeps its invariants.

use super::*;

const FULL: &str = r#"{"sub":"ann","name":"Ann","roles":["x"],"info":{"a":[1,"\ud83d\ude00"]},"exp":1800000000.5,"pipes":{"p-*":{"publish":true}}}"#;

/// Text that is nearly claims: pieces of them in any order.
fn nearly_claims() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"sub\":\"ann\"",
        "\"exp\":",
        "\"pipes\":{",
        "\"p-**\":{",
        "\"subscribe\":true",
        "\"info\":",
        "\"roles\":[",
        "\"\\ud800\"",
        "null",
        "true",
        "1e999",
        "-",
        "\"x\"",
        "1700000001",
        " ",
        "\u{e9}",
        "\0",
    ]);
    prop_oneof![
        any::<String>(),
        prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat()),
        (0..FULL.len(), any::<char>()).prop_map(|(at, by)| format!("{}{by}{}", &FULL[..at], &FULL[at + 1..])),
    ]
}

proptest! {
    #[test]
    fn nothing_unsigned_verifies(text in prop_oneof![any::<String>(), "[A-Za-z0-9_.=-]{0,300}", "e30\\.[a-zA-Z0-9_-]{0,60}\\.[a-zA-Z0-9_-]{0,60}"]) {
        for verifier in verifiers() {
            prop_assert!(verifier.verify(&text, NOW_MS).is_err());
        }
    }

    #[test]
    fn a_changed_token_does_not_verify(which in 0_usize..5, at in any::<prop::sample::Index>(), by in "[A-Za-z0-9_.=-]|\\PC", how in 0..4) {
        let (key, algorithms) = &private_keys()[which];
        let (name, algorithm) = algorithms[0];
        let token = signed(&json!({ "alg": name, "typ": "JWT" }).to_string(), FULL, algorithm, key);
        let verifier = &verifiers()[which];
        prop_assert!(verifier.verify(&token, NOW_MS).is_ok());
        let at = at.index(token.len());
        let changed = match how {
            0 => format!("{}{by}{}", &token[..at], &token[at + 1..]),
            1 => format!("{}{by}{}", &token[..at], &token[at..]),
            2 => token[..at].to_string(),
            _ => format!("{}{}", &token[..at], &token[at + 1..]),
        };
        prop_assume!(changed != token);
        prop_assert!(verifier.verify(&changed, NOW_MS).is_err(), "{changed}");
    }

    #[test]
    fn any_signed_claims_keep_the_invariants(claims in nearly_claims()) {
        crate::auth::fuzz_token(claims.as_bytes());
    }

    #[test]
    fn any_bytes_keep_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::auth::fuzz_token(&bytes);
    }
}
