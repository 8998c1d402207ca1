//! The signature of a call to the application: `t=<Unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`.
//!
//! Source: PROTOCOL.md §5; HMAC: RFC 2104.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header that holds it.
pub const HEADER: &str = "x-pipeward-signature";

/// The header's value for a body that is sent at `now_s`, Unix seconds.
pub fn sign(secret: &[u8], now_s: u64, body: &str) -> String {
    let mut value = format!("t={now_s},v1=");
    // A key of any length is taken.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) {
        mac.update(now_s.to_string().as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        for byte in mac.finalize().into_bytes() {
            // Into memory: it cannot fail.
            let _ = write!(value, "{byte:02x}");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL §5; the expected value is `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn it_is_the_mac_of_time_and_body() {
        let value = sign(b"secret", 1_700_000_000, r#"{"a":1}"#);
        assert_eq!(value, "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686");
        assert_ne!(value, sign(b"secret", 1_700_000_001, r#"{"a":1}"#));
        assert_ne!(value, sign(b"other", 1_700_000_000, r#"{"a":1}"#));
    }
}
