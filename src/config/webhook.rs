//! `[auth.webhook]`: the authorize endpoint.
//!
//! Invariant: it is finished before any other call is read, because its secret signs those that have none of their own
//! (A12); a header that may carry a token of ours is never forwarded (INVARIANTS 28).

use std::path::Path;
use std::sync::Arc;

use super::call::{Calls, RULE_TIMEOUT_MS, SECRET_BYTES_MAX, advise, read_secret_file};
use super::finding::{Findings, Place};
use super::types::Webhook;
use crate::rules::definition::Endpoint;

/// Headers that are forwarded. More: error.
const HEADERS_MAX: usize = 64;
/// It carries a token of ours in its list.
const HEADER_NEVER: &str = "sec-websocket-protocol";

/// `[auth.webhook]` while it is being read.
pub(super) struct WebhookDraft {
    pub url: Option<Box<str>>,
    pub timeout_ms: u32,
    pub forward_headers: Vec<Box<str>>,
    pub secret: Option<String>,
    pub secret_file: Option<String>,
    pub concurrency: u32,
}

impl Default for WebhookDraft {
    fn default() -> WebhookDraft {
        WebhookDraft {
            url: None,
            timeout_ms: RULE_TIMEOUT_MS,
            forward_headers: ["cookie", "authorization"].map(Box::from).to_vec(),
            secret: None,
            secret_file: None,
            concurrency: 64,
        }
    }
}

/// The key of the table.
const KEY: &str = "auth.webhook";

impl WebhookDraft {
    /// The webhook, whose table begins at `place`; None where something is wrong. `place_of` tells where a key was given.
    pub fn finish<'p>(
        self,
        place: &'p Place,
        place_of: impl Fn(&str) -> Option<&'p Place>,
        dir: &Path,
        calls: &mut Calls,
        findings: &mut Findings,
    ) -> Option<Webhook> {
        let place_of = |key: &str| place_of(key).unwrap_or(place);
        let secret = match (self.secret, self.secret_file) {
            (Some(_), Some(_)) => {
                findings.error(place, KEY, "secret and secret_file are both given; keep one of them");
                return None;
            }
            (Some(secret), None) => Some((secret, "auth.webhook.secret")),
            (None, Some(file)) => Some((read(&dir.join(file), place_of, findings)?, "auth.webhook.secret_file")),
            (None, None) => None,
        };
        if let Some((secret, key)) = &secret {
            advise(secret, place_of(key), key, findings);
        }
        let secret: Option<Arc<[u8]>> = secret.map(|(secret, _)| Arc::from(secret.into_bytes()));
        calls.secret = secret.clone();
        let Some(url) = self.url else {
            if std::ptr::eq(place_of("auth.webhook.url"), place) {
                findings.error(place, KEY, "has no url; write `url = \"http://…\"`, where the application is asked");
            }
            return None;
        };
        if secret.is_none() {
            calls.count_unsigned(place, KEY);
        }
        let place = place.of(KEY);
        let endpoint = Endpoint { number: 0, url, timeout_ms: self.timeout_ms, secret, cache_s: None, place };
        let Self { forward_headers, concurrency, .. } = self;
        Some(Webhook { endpoint: Arc::new(endpoint), forward_headers, concurrency })
    }
}

fn read<'p>(path: &Path, place_of: impl Fn(&str) -> &'p Place, findings: &mut Findings) -> Option<String> {
    let why = match read_secret_file(path).map(String::from_utf8) {
        Ok(Ok(secret)) if !secret.is_empty() => return Some(secret),
        Ok(Ok(_)) => "it is empty".to_owned(),
        Ok(Err(_)) => "it is not UTF-8".to_owned(),
        Err(why) => why.to_string(),
    };
    let message =
        format!("{} cannot be used ({why}); write a file that holds 1 to {SECRET_BYTES_MAX} bytes", path.display());
    findings.error(place_of("auth.webhook.secret_file"), "auth.webhook.secret_file", message);
    None
}

/// Reads the names of headers, in lower case.
pub(super) fn headers(texts: Vec<(&str, &Place)>, key: &str, findings: &mut Findings) -> Option<Vec<Box<str>>> {
    let count = texts.len();
    let mut names: Vec<Box<str>> = Vec::with_capacity(count);
    for (at, (text, place)) in texts.into_iter().enumerate() {
        let name = text.to_ascii_lowercase().into_boxed_str();
        let wrong = if at >= HEADERS_MAX {
            format!("there are {count} headers; write at most {HEADERS_MAX}")
        } else if !is_header_name(&name) {
            format!("`{}` is no name of a header; write one like \"cookie\"", text.escape_debug())
        } else if *name == *HEADER_NEVER {
            format!("`{HEADER_NEVER}` may hold a token and is never forwarded; take it out")
        } else if names.contains(&name) {
            format!("`{name}` is given twice; keep one of the two")
        } else {
            names.push(name);
            continue;
        };
        findings.error(place, key, wrong);
        if at >= HEADERS_MAX {
            break;
        }
    }
    (names.len() == count).then_some(names)
}

/// A token of RFC 9110 §5.6.2.
fn is_header_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
