//! What of the application can be called: addresses, time limits, the secret that signs.
//!
//! Invariant: an [`Endpoint`] that leaves this file has a number of its own within the configuration and an address of
//! `http` or `https` that can be shown in a log. A secret is never quoted in a finding.
//!
//! Source: PROTOCOL.md §5, rulings A11, A12.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use super::finding::{Findings, Place};
use super::table::{Inner, Table};
use super::tree::Node;
use crate::rules::definition::Endpoint;

/// Longest `timeout_ms`.
pub(super) const TIMEOUT_MS_MAX: u32 = 60_000;
/// `timeout_ms` of guards, rules and the webhook.
pub(super) const RULE_TIMEOUT_MS: u32 = 2_000;
/// `timeout_ms` of actions and queues (F16).
pub(super) const CALL_TIMEOUT_MS: u32 = 5_000;
/// Longest `cache_s`, a day.
const CACHE_S_MAX: u32 = 86_400;
/// Bytes of an address. More: error.
pub(super) const URL_BYTES_MAX: usize = 2_048;
/// Bytes of a secret that signs. More: error.
pub(super) const SECRET_BYTES_MAX: usize = 1_024;
/// Bytes of a secret that is not to be guessed. Fewer: warning.
const SECRET_BYTES_ADVISED: usize = 16;

/// How a rule of the application is written.
pub(super) const ASK_EXAMPLE: &str = "`{ url = \"http://…\", timeout_ms = 2000 }`";

pub(super) const URL: Inner = Inner {
    name: "url",
    accepts: "a string `http://…` or `https://…`",
    default: "",
    doc: "Where it is asked, by POST.",
};
pub(super) const TIMEOUT: Inner = Inner {
    name: "timeout_ms",
    accepts: "an integer from 1 to 60000",
    default: "2000",
    doc: "Milliseconds until it must have answered; later is a refusal.",
};
pub(super) const CACHE: Inner = Inner {
    name: "cache_s",
    accepts: "an integer from 1 to 86400",
    default: "",
    doc: "For how many seconds an answer holds for that connection and item, whatever the message. Without it an answer holds on subscribe and presence until refresh or reload, elsewhere for the one message.",
};
pub(super) const SECRET: Inner = Inner {
    name: "secret",
    accepts: "a string of at most 1024 bytes",
    default: "",
    doc: "Signs these calls. Default: the secret of `[auth.webhook]`.",
};

/// What `{ url = … }` holds in the place of a right.
pub(super) static ASK: [Inner; 4] = [URL, TIMEOUT, CACHE, SECRET];

/// Makes endpoints: numbers them, and signs with the webhook's secret those that have none of their own.
#[derive(Default)]
pub(super) struct Calls {
    /// The webhook's, once it is read; it is read before all others.
    pub secret: Option<Arc<[u8]>>,
    made: u32,
    /// The first call without any secret, and how many there are.
    pub unsigned: Option<(Place, Box<str>, u32)>,
}

impl Calls {
    /// An endpoint that is called as `key`.
    pub fn endpoint(&mut self, place: &Place, key: &str, url: &str, timeout_ms: u32, own: Option<&str>) -> Endpoint {
        let secret = own.map(|own| Arc::from(own.as_bytes())).or_else(|| self.secret.clone());
        if secret.is_none() {
            self.count_unsigned(place, key);
        }
        // The webhook's number is 0, whether there is one or not.
        self.made += 1;
        Endpoint { number: self.made, url: url.into(), timeout_ms, secret, cache_s: None, place: place.of(key) }
    }

    /// Remembers that a call will have no signature.
    pub fn count_unsigned(&mut self, place: &Place, key: &str) {
        let (_, _, count) = self.unsigned.get_or_insert_with(|| (place.clone(), key.into(), 0));
        *count += 1;
    }
}

/// Reads `{ url = … }`.
pub(super) fn ask(node: &Node, key: &str, calls: &mut Calls, findings: &mut Findings) -> Option<Arc<Endpoint>> {
    let table = Table::open(node, key, &ASK, ASK_EXAMPLE, findings)?;
    ask_of(table, calls)
}

/// The same, of a table that may hold more.
pub(super) fn ask_of(mut table: Table<'_, '_>, calls: &mut Calls) -> Option<Arc<Endpoint>> {
    let url = table.text("url", URL_BYTES_MAX);
    let timeout_ms = table.number("timeout_ms", 1, TIMEOUT_MS_MAX).unwrap_or(RULE_TIMEOUT_MS);
    let cache_s = table.number("cache_s", 1, CACHE_S_MAX);
    let secret = table.text("secret", SECRET_BYTES_MAX);
    if let Some(node) = table.node("url") {
        let checked = url.map_or(Ok(()), check_url);
        if let Err(why) = checked {
            table.wrong(&node.place, &format!("{}.url", table.key), why);
        }
    } else {
        table.wrong(table.place, table.key, format!("has no url; write {ASK_EXAMPLE}"));
    }
    if let (Some(secret), Some(node)) = (secret, table.node("secret")) {
        advise(secret, &node.place, &format!("{}.secret", table.key), table.findings);
    }
    if !table.is_right {
        return None;
    }
    let endpoint = calls.endpoint(table.place, table.key, url?, timeout_ms, secret);
    Some(Arc::new(Endpoint { cache_s, ..endpoint }))
}

/// Whether calls can be made to this address (RFC 3986 §3, without what has no place here).
///
/// # Errors
/// A sentence for the operator that says what to write instead.
pub(super) fn check_url(text: &str) -> Result<(), String> {
    let write = "write `http://host/path` or `https://host/path`";
    if text.len() > URL_BYTES_MAX {
        return Err(format!("holds {} bytes; write at most {URL_BYTES_MAX}", text.len()));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("an address is ASCII without white space; {write}, other letters as `%XX`"));
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Err(format!("this is no address; {write}")) };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("`{scheme}:` is not spoken; {write}"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority.contains('@') {
        return Err("an address with a name or password would end in logs; write it without, and a secret".to_owned());
    }
    let is_address = |text: &str| text.strip_suffix(']').is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok());
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => match inner.rsplit_once("]:") {
            Some((host, port)) => (format!("[{host}]"), Some(port)),
            None => (authority.to_owned(), None),
        },
        None => {
            authority.split_once(':').map_or((authority.to_owned(), None), |(host, port)| (host.to_owned(), Some(port)))
        }
    };
    let is_host = match host.strip_prefix('[') {
        Some(inner) => is_address(inner),
        None => is_host_name(&host),
    };
    if !is_host {
        return Err(format!("`{host}` is no host; {write}"));
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() || port.starts_with('+') => {
            Err(format!("`{port}` is no port; write a number up to 65535, or none"))
        }
        _ => Ok(()),
    }
}

/// A name of letters, digits, `-` and `_` between dots. One that ends in a number is an IPv4 address.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    let labels = host.strip_suffix('.').unwrap_or(host);
    labels.split('.').all(is_label) && (!is_number || host.parse::<Ipv4Addr>().is_ok())
}

/// A secret that could be guessed is worth a word.
pub(super) fn advise(secret: &str, place: &Place, key: &str, findings: &mut Findings) {
    if secret.len() < SECRET_BYTES_ADVISED {
        let message =
            format!("{} bytes can be guessed; write at least {SECRET_BYTES_ADVISED} random ones", secret.len());
        findings.warning(place, key, message);
    }
}

/// A file's secret, without the line end that editors put there.
///
/// # Errors
/// Why it cannot be had.
pub(super) fn read_secret_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > SECRET_BYTES_MAX as u64 + 2 {
        return Err(std::io::Error::other(format!("it is longer than {SECRET_BYTES_MAX} bytes")));
    }
    let mut bytes = std::fs::read(path)?;
    let kept = bytes.trim_ascii_end().len();
    bytes.truncate(kept);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::check_url;

    #[test]
    fn an_address_is_one_that_can_be_called() {
        for address in [
            "http://a",
            "https://app.example/realtime/authorize?x=1",
            "http://127.0.0.1:3000/",
            "http://[::1]:3000/a",
            "http://[::1]",
            "http://my_service:80",
            "http://a.example./x",
            "http://a/%C3%A9",
        ] {
            assert_eq!(check_url(address), Ok(()), "{address}");
            assert!(reqwest::Url::parse(address).is_ok(), "{address}");
        }
        for address in [
            "",
            "a",
            "http:/a",
            "http://",
            "http:///a",
            "http://:80",
            "http://a:b",
            "http://a:65536",
            "http://a:+1",
            "http://[::1",
            "http://[a]",
            "http://1.2.3",
            "http://1.2.3.256",
            "http://0x7f",
            "http://u@a",
            "http://u:p@a",
            "http://a b",
            "http://a\n",
            "http://é",
            "HTTP://a",
            "ftp://a",
            "//a",
            "http://a..b",
            "http://a/\u{7f}",
        ] {
            assert!(check_url(address).is_err(), "{address}");
        }
        assert!(check_url(&format!("http://a/{}", "b".repeat(3_000))).is_err());
    }
}
