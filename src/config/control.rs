//! `[control]`: the listener of the server API, and the keys that it takes.
//!
//! Invariant: a key that leaves this file has a name and a secret of its own and says what it may do; nobody gets a
//! right that was not written out. Secrets are never quoted in a finding or in `Debug`.
//!
//! Source: PROTOCOL.md §6 `[control]`, rulings E2, G10, D13.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::call::{SECRET_BYTES_MAX, read_secret_file};
use super::finding::{Findings, Place};
use super::lookup::distance;
use super::tree::{Entry, Node, Value};

/// Keys of the server API. More: configuration error.
const KEYS_MAX: usize = 256;
/// Bytes of a key's name. More: configuration error.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of a secret. Fewer: configuration error.
const SECRET_BYTES_MIN: usize = 16;

/// The full name of the table, in findings.
const KEY: &str = "control.key";
/// What a `[[control.key]]` holds.
const FIELDS: [&str; 4] = ["name", "secret", "secret_file", "allow"];

/// `[control]`: where the application and the operators call.
#[derive(Clone, Debug)]
pub struct Control {
    /// Address of the server API.
    pub listen: SocketAddr,
    /// Who may call; without any every call is refused (G10). No name and no secret stands twice.
    pub keys: Vec<ApiKey>,
    /// Whether web pages of the same host may call, which needs CORS. No key of the file: an application's key has no
    /// place in a page, but for the demonstration's.
    pub pages: bool,
}

impl Default for Control {
    fn default() -> Control {
        Control { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)), keys: Vec::new(), pages: false }
    }
}

/// One `[[control.key]]`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Stands in the audit for whoever holds the key.
    pub name: String,
    /// 16 to 1024 bytes, sent as `Authorization: Bearer …`.
    pub secret: Vec<u8>,
    /// What it may do.
    pub allow: Allow,
}

/// Without the secret: a configuration may end in a log.
impl fmt::Debug for ApiKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ApiKey({:?}, {:?})", self.name, self.allow)
    }
}

/// What a key may be allowed to do: one right for each call of the server API (E2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiRight {
    /// `POST /v1/publish`.
    Publish,
    /// `POST /v1/batch`; needs no right of its own, each command needs its own.
    Batch,
    /// `POST /v1/push`.
    Push,
    /// `POST /v1/notify`.
    Notify,
    /// `POST /v1/revoke`.
    Revoke,
    /// `POST /v1/revoke_all`.
    RevokeAll,
    /// `POST /v1/restore`.
    Restore,
    /// `POST /v1/revoke_tokens`.
    RevokeTokens,
    /// `POST /v1/disconnect`.
    Disconnect,
    /// `POST /v1/unsubscribe`.
    Unsubscribe,
    /// `GET /v1/connections`.
    Connections,
    /// `GET /v1/pipes`.
    Pipes,
    /// `GET /v1/pipes/{pipe}/presence`.
    Presence,
    /// `GET /v1/stats`.
    Stats,
    /// `GET /metrics`.
    Metrics,
    /// `GET /v1/queues` and what lies below.
    Queues,
}

impl ApiRight {
    /// Every right, in the order of ruling E2, and `queues`.
    pub const ALL: [ApiRight; 16] = [
        ApiRight::Publish,
        ApiRight::Batch,
        ApiRight::Push,
        ApiRight::Notify,
        ApiRight::Revoke,
        ApiRight::RevokeAll,
        ApiRight::Restore,
        ApiRight::RevokeTokens,
        ApiRight::Disconnect,
        ApiRight::Unsubscribe,
        ApiRight::Connections,
        ApiRight::Pipes,
        ApiRight::Presence,
        ApiRight::Stats,
        ApiRight::Metrics,
        ApiRight::Queues,
    ];

    /// As it stands in `allow`, in the path of the call and in the `method` of a batch's command.
    pub const fn name(self) -> &'static str {
        match self {
            ApiRight::Publish => "publish",
            ApiRight::Batch => "batch",
            ApiRight::Push => "push",
            ApiRight::Notify => "notify",
            ApiRight::Revoke => "revoke",
            ApiRight::RevokeAll => "revoke_all",
            ApiRight::Restore => "restore",
            ApiRight::RevokeTokens => "revoke_tokens",
            ApiRight::Disconnect => "disconnect",
            ApiRight::Unsubscribe => "unsubscribe",
            ApiRight::Connections => "connections",
            ApiRight::Pipes => "pipes",
            ApiRight::Presence => "presence",
            ApiRight::Stats => "stats",
            ApiRight::Metrics => "metrics",
            ApiRight::Queues => "queues",
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Allow(u32);

impl Allow {
    /// `["*"]`.
    pub const EVERYTHING: Allow = Allow((1 << ApiRight::ALL.len()) - 1);

    /// The set with one right more.
    #[must_use]
    pub const fn with(self, right: ApiRight) -> Allow {
        Allow(self.0 | 1 << right as u32)
    }

    /// Whether the right is in the set.
    pub const fn has(self, right: ApiRight) -> bool {
        self.0 & 1 << right as u32 != 0
    }
}

impl fmt::Debug for Allow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set()
            .entries(ApiRight::ALL.iter().filter(|right| self.has(**right)).map(|right| right.name()))
            .finish()
    }
}

/// A `[[control.key]]` whose secret may still have to be read.
pub(super) struct KeyDraft {
    place: Place,
    name: String,
    secret: SecretDraft,
    allow: Allow,
}

enum SecretDraft {
    Here(Place, String),
    File(Place, String),
}

/// Reads the tables `[[control.key]]`. What is wrong becomes a finding, all of it at once.
pub(super) fn read_keys(node: &Node, findings: &mut Findings) -> Option<Vec<KeyDraft>> {
    let Value::List(items) = &node.value else {
        findings.error(&node.place, KEY, format!("{} was found here; write `[[control.key]]`", node.value.kind()));
        return None;
    };
    if items.len() > KEYS_MAX {
        findings.error(&node.place, KEY, format!("there are {} keys; write at most {KEYS_MAX}", items.len()));
        return None;
    }
    let keys: Vec<KeyDraft> = items.iter().filter_map(|item| read_key(item, findings)).collect();
    for (at, key) in keys.iter().enumerate() {
        if keys[..at].iter().any(|earlier| earlier.name == key.name) {
            let message = format!("the name `{}` is given twice; give each key a name of its own", key.name);
            findings.error(&key.place, "control.key.name", message);
        }
    }
    Some(keys)
}

/// Reads the secrets, relative to `dir`, and compares them. None where a finding is an error.
pub(super) fn finish_keys(drafts: Vec<KeyDraft>, dir: &Path, findings: &mut Findings) -> Option<Vec<ApiKey>> {
    let count = drafts.len();
    let mut keys: Vec<ApiKey> = Vec::with_capacity(count);
    for KeyDraft { place, name, secret, allow } in drafts {
        let Some(secret) = secret.read(dir, findings) else { continue };
        if let Some(earlier) = keys.iter().find(|key| key.secret == secret) {
            let message = format!("has the secret of `{}`; give each key a secret of its own", earlier.name);
            findings.error(&place, "control.key.secret", message);
        }
        keys.push(ApiKey { name, secret, allow });
    }
    (keys.len() == count).then_some(keys)
}

fn read_key(node: &Node, findings: &mut Findings) -> Option<KeyDraft> {
    let Value::Table(entries) = &node.value else {
        findings.error(&node.place, KEY, format!("{} was found here; write `[[control.key]]`", node.value.kind()));
        return None;
    };
    let unknown = entries.iter().filter(|entry| !FIELDS.contains(&entry.name.as_str()));
    for entry in unknown {
        let name: String = entry.name.chars().take(64).collect();
        let nearest = FIELDS.iter().min_by_key(|field| distance(&name, field)).unwrap_or(&FIELDS[0]);
        let message = format!("there is no such key; the nearest is `control.key.{nearest}`");
        findings.error(&entry.place, &format!("{KEY}.{name}"), message);
    }
    let field = |name: &str| entries.iter().find(|entry| entry.name == name);
    let name = read_name(field("name"), &node.place, findings);
    let secret = read_secret(field("secret"), field("secret_file"), &node.place, findings);
    let allow = read_allow(field("allow"), &node.place, findings);
    Some(KeyDraft { place: node.place.clone(), name: name?, secret: secret?, allow: allow? })
}

fn read_name(entry: Option<&Entry>, key: &Place, findings: &mut Findings) -> Option<String> {
    let accepted =
        format!("write a name of 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`; the audit shows it");
    let Some(entry) = entry else {
        findings.error(key, "control.key.name", format!("is missing; {accepted}"));
        return None;
    };
    let is_name = |text: &str| {
        (1..=NAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match &entry.node.value {
        Value::Text(text) if is_name(text) => Some(text.clone()),
        _ => {
            findings.error(&entry.node.place, "control.key.name", format!("is no name; {accepted}"));
            None
        }
    }
}

fn read_secret(
    secret: Option<&Entry>,
    file: Option<&Entry>,
    key: &Place,
    findings: &mut Findings,
) -> Option<SecretDraft> {
    let (name, entry) = match (secret, file) {
        (Some(entry), None) => ("control.key.secret", entry),
        (None, Some(entry)) => ("control.key.secret_file", entry),
        (Some(_), Some(_)) => {
            findings.error(key, KEY, "secret and secret_file are both given; keep exactly one of them");
            return None;
        }
        (None, None) => {
            findings.error(
                key,
                KEY,
                format!("has no secret; write secret (at least {SECRET_BYTES_MIN} bytes) or secret_file"),
            );
            return None;
        }
    };
    match &entry.node.value {
        Value::Text(text) if secret.is_some() => Some(SecretDraft::Here(entry.node.place.clone(), text.clone())),
        Value::Text(text) => Some(SecretDraft::File(entry.node.place.clone(), text.clone())),
        other => {
            findings.error(&entry.node.place, name, format!("{} was found here; write a string", other.kind()));
            None
        }
    }
}

fn read_allow(entry: Option<&Entry>, key: &Place, findings: &mut Findings) -> Option<Allow> {
    let name = "control.key.allow";
    let Some(entry) = entry else {
        findings.error(key, name, "is missing; write the calls that this key may make, or `[\"*\"]` for all of them");
        return None;
    };
    let Value::List(items) = &entry.node.value else {
        let message = format!("{} was found here; write an array of names of calls", entry.node.value.kind());
        findings.error(&entry.node.place, name, message);
        return None;
    };
    let (mut allow, mut complete) = (Allow::default(), true);
    for item in items {
        let text = if let Value::Text(text) = &item.value { text.as_str() } else { "" };
        if text == "*" {
            allow = Allow::EVERYTHING;
        } else if let Some(right) = ApiRight::ALL.iter().find(|right| right.name() == text) {
            allow = allow.with(*right);
        } else {
            let written: String = text.chars().take(64).collect();
            let nearest = ApiRight::ALL.iter().min_by_key(|right| distance(&written, right.name()));
            let nearest = nearest.map_or("*", |right| right.name());
            let message = format!("`{written}` is no call of the server API; the nearest is `{nearest}`");
            findings.error(&item.place, name, message);
            complete = false;
        }
    }
    complete.then_some(allow)
}

impl SecretDraft {
    fn read(self, dir: &Path, findings: &mut Findings) -> Option<Vec<u8>> {
        let (name, place, secret) = match self {
            SecretDraft::Here(place, text) => ("control.key.secret", place, text.into_bytes()),
            SecretDraft::File(place, file) => {
                let name = "control.key.secret_file";
                let path = dir.join(file);
                match read_secret_file(&path) {
                    Ok(bytes) => (name, place, bytes),
                    Err(why) => {
                        let message = format!("{} cannot be read ({why}); write the path of a file", path.display());
                        findings.error(&place, name, message);
                        return None;
                    }
                }
            }
        };
        let wrong = match secret.len() {
            length if length < SECRET_BYTES_MIN => format!("{length} bytes can be guessed"),
            length if length > SECRET_BYTES_MAX => "it does not fit a header".to_owned(),
            _ if secret.iter().any(|byte| byte.is_ascii_control() || *byte == b' ') => {
                "spaces and control characters cannot be sent in a header".to_owned()
            }
            _ => return Some(secret),
        };
        let message = format!("{wrong}; write {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes without white space");
        findings.error(&place, name, message);
        None
    }
}
