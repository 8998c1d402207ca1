//! The configuration while it is being read, and the checks that look at more than one key.
//!
//! Invariant: a [`Config`] leaves this file only where no finding is an error.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::call::Calls;
use super::control::{Control, KeyDraft, finish_keys};
use super::definitions::{ActionDraft, EventDraft, ModuleDraft, PipeDraft, QueueDraft};
use super::finding::{Findings, Place};
use super::types::{AuditPath, AuditSettings, Auth, Config, Edge, KeySource, Limits, Rates, Store, TokenSettings};
use super::webhook::WebhookDraft;
use crate::auth::token::Verifier;
use crate::protocol::peer::Origins;
use crate::rules::Rules;

/// Bytes of `hmac_secret`. Fewer: error.
const SECRET_BYTES_MIN: usize = 16;
/// Bytes of `hmac_secret` that its hash deserves (RFC 7518 §3.2). Fewer: warning.
const SECRET_BYTES_ADVISED: usize = 32;
/// Bytes of a key file. More: error.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// What has been read so far, over the defaults.
pub(super) struct Draft {
    /// What file names are relative to (D13).
    pub dir: PathBuf,
    pub edge: Edge,
    pub workers: u32,
    /// Pages from anywhere may use the cookies of their visitors (INVARIANTS 29).
    pub origins_any_with_cookies: bool,
    pub auth: Auth,
    pub token: TokenDraft,
    pub webhook: WebhookDraft,
    pub limits: Limits,
    pub control: Control,
    /// `[[control.key]]`, secrets in files not yet read.
    pub control_keys: Vec<KeyDraft>,
    pub store: Option<String>,
    pub audit: Option<String>,
    /// What was ruled so far.
    pub rules: Rules,
    /// The definitions that are being read.
    pub module: ModuleDraft,
    pub pipe: PipeDraft,
    pub event: EventDraft,
    pub action: ActionDraft,
    pub queue: QueueDraft,
    pub calls: Calls,
    /// Where each known key and section was given. Of keys in definitions: the last.
    pub places: HashMap<String, Place>,
}

/// `[auth.token]` before its key is chosen.
#[derive(Default)]
pub(super) struct TokenDraft {
    pub hmac_secret: Option<String>,
    pub public_key_file: Option<String>,
    pub jwks_url: Option<String>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub leeway_s: u32,
    pub require_exp: bool,
}

/// Room for what an event has around its data: names, sender, time.
const ENVELOPE_BYTES: u32 = 1_024;

impl Draft {
    /// The defaults, for `workers` workers and files in `dir`.
    pub fn new(workers: u32, dir: &Path) -> Draft {
        Draft {
            dir: dir.to_owned(),
            edge: Edge::new(workers as usize),
            workers,
            origins_any_with_cookies: false,
            auth: Auth::default(),
            token: TokenDraft::default(),
            webhook: WebhookDraft::default(),
            limits: Limits::default(),
            control: Control::default(),
            control_keys: Vec::new(),
            store: None,
            audit: None,
            rules: Rules::default(),
            module: ModuleDraft::default(),
            pipe: PipeDraft::default(),
            event: EventDraft::default(),
            action: ActionDraft::default(),
            queue: QueueDraft::default(),
            calls: Calls::default(),
            places: HashMap::new(),
        }
    }

    /// Ends a table of the file that is no definition.
    pub fn end_section(&mut self, name: &str, findings: &mut Findings) {
        let Some(place) = self.places.get(name) else { return };
        match name {
            "auth.webhook" => {
                let webhook = std::mem::take(&mut self.webhook);
                let place_of = |key: &str| self.places.get(key);
                self.auth.webhook = webhook.finish(place, place_of, &self.dir, &mut self.calls, findings);
            }
            "push" => self.rules.push.place = place.of(name),
            _ => {}
        }
    }

    /// The configuration, unless something was or is wrong.
    pub fn finish(mut self, findings: &mut Findings) -> Option<Config> {
        let dir = std::mem::take(&mut self.dir);
        let dir = dir.as_path();
        self.check_bytes(findings);
        self.check_queue(findings);
        self.check_cookies(findings);
        self.check_listeners(findings);
        if let Some(section) = self.places.get("auth.token").cloned() {
            self.auth.token = self.token(&section, dir, findings);
        }
        if let Some(keys) = finish_keys(std::mem::take(&mut self.control_keys), dir, findings) {
            self.control.keys = keys;
        }
        self.edge.workers = self.workers as usize;
        let (store, audit) = self.files(dir, findings);
        // Looked up by halves.
        self.rules.actions.sort_by(|one, other| one.name.cmp(&other.name));
        self.rules.queues.sort_by(|one, other| one.name.cmp(&other.name));
        let Draft { edge, auth, limits, rules, control, places, calls, .. } = self;
        let config = Config { edge, auth, limits, rules: Arc::new(rules), control, store, audit };
        super::lint::lint(&config, &places, &calls, findings);
        (!findings.has_errors()).then_some(config)
    }

    /// A message of the full size must be able to pass (A8).
    fn check_bytes(&self, findings: &mut Findings) {
        let message_bytes = self.limits.message_bytes;
        let all: [(&str, &Rates); 3] = [
            ("limits.bytes", &self.limits.rates),
            ("limits.per_user.bytes", &self.limits.per_user),
            ("limits.per_tenant.bytes", &self.limits.per_tenant),
        ];
        for (key, rates) in all {
            let Some(rate) = rates.bytes.filter(|rate| rate.burst < f64::from(message_bytes)) else { continue };
            let Some(place) = self.places.get(key).or(self.places.get("limits.message_bytes")) else { continue };
            let message = format!(
                "its burst of {} is below limits.message_bytes ({message_bytes}), so that a long message could never \
                 pass; write a burst of at least {message_bytes}, or lower message_bytes",
                rate.burst
            );
            findings.error(place, key, message);
        }
    }

    fn check_queue(&self, findings: &mut Findings) {
        let Limits { queue_bytes, message_bytes, .. } = self.limits;
        let place = self.places.get("limits.queue_bytes").or(self.places.get("limits.message_bytes"));
        // An event carries what a message carried, and its envelope.
        if let (true, Some(place)) = (queue_bytes < message_bytes.saturating_add(ENVELOPE_BYTES), place) {
            let message = format!(
                "{queue_bytes} is below limits.message_bytes ({message_bytes}): one message of the full size is too \
                 much for every receiver; write at least {message_bytes}, or lower message_bytes"
            );
            findings.warning(place, "limits.queue_bytes", message);
        }
    }

    /// A page from anywhere must not act with the cookies of its visitors by accident (INVARIANTS 29).
    fn check_cookies(&self, findings: &mut Findings) {
        let gets_cookies = self
            .auth
            .webhook
            .as_ref()
            .is_some_and(|webhook| webhook.forward_headers.iter().any(|one| **one == *"cookie"));
        let Some(place) = self.places.get("edge.origins") else { return };
        if gets_cookies && self.edge.origins == Origins::Any && !self.origins_any_with_cookies {
            let message = "every web page could connect with the cookies of its visitors, which [auth.webhook] gets; \
                           write the origins of your own pages, take \"cookie\" out of auth.webhook.forward_headers, or \
                           write edge.origins_any_with_cookies = true";
            findings.error(place, "edge.origins", message);
        }
    }

    /// Two listeners cannot have one port, but for one that the system chooses.
    fn check_listeners(&self, findings: &mut Findings) {
        let control = self.control.listen;
        let takes = |edge: &&SocketAddr| {
            let everywhere =
                edge.is_ipv4() == control.is_ipv4() && (edge.ip().is_unspecified() || control.ip().is_unspecified());
            edge.port() == control.port() && control.port() != 0 && (edge.ip() == control.ip() || everywhere)
        };
        let place = self.places.get("control.listen").or(self.places.get("edge.listen"));
        if let (Some(edge), Some(place)) = (self.edge.listen.iter().find(takes), place) {
            let message = format!("{control} is taken by edge.listen ({edge}); write another port in one of the two");
            findings.error(place, "control.listen", message);
        }
    }

    /// The files that the server writes.
    fn files(&mut self, dir: &Path, findings: &mut Findings) -> (Store, AuditSettings) {
        let path = self.store.take().map_or(Store::default().path, PathBuf::from);
        let store = Store { path: dir.join(path) };
        let path = match self.audit.take().as_deref() {
            None | Some("-") => AuditPath::Stdout,
            Some(file) => AuditPath::File(dir.join(file)),
        };
        if let (AuditPath::File(file), Some(place)) = (&path, self.places.get("audit.path"))
            && resolved(file) == resolved(&store.path)
        {
            let message = "this is the file of the store as well; write another one";
            findings.error(place, "audit.path", message);
        }
        (store, AuditSettings { path })
    }

    fn token(&mut self, section: &Place, dir: &Path, findings: &mut Findings) -> Option<TokenSettings> {
        let token = std::mem::take(&mut self.token);
        let (name, key) = match (token.hmac_secret, token.public_key_file, token.jwks_url) {
            (Some(secret), None, None) => ("auth.token.hmac_secret", self.hmac_secret(secret, findings)?),
            (None, Some(file), None) => ("auth.token.public_key_file", self.public_key(&file, dir, findings)?),
            (None, None, Some(url)) => ("auth.token.jwks_url", self.jwks_url(url, findings)?),
            (None, None, None) => {
                let tried = ["auth.token.hmac_secret", "auth.token.public_key_file", "auth.token.jwks_url"];
                if !tried.iter().any(|key| self.places.contains_key(*key)) {
                    let message =
                        "there is no key to verify tokens with; write hmac_secret, public_key_file or jwks_url";
                    findings.error(section, "auth.token", message);
                }
                return None;
            }
            _ => {
                let message = "more than one of hmac_secret, public_key_file and jwks_url is given; keep exactly one";
                findings.error(section, "auth.token", message);
                return None;
            }
        };
        let settings = TokenSettings {
            key,
            issuer: token.issuer,
            audience: token.audience,
            leeway_s: token.leeway_s,
            require_exp: token.require_exp,
        };
        match Verifier::new(&settings) {
            Ok(_) => Some(settings),
            Err(why) => {
                findings.error(self.place(name, section), name, why.to_string());
                None
            }
        }
    }

    fn hmac_secret(&self, secret: String, findings: &mut Findings) -> Option<KeySource> {
        let key = "auth.token.hmac_secret";
        let place = &self.places[key];
        match secret.len() {
            length if length < SECRET_BYTES_MIN => {
                let message = format!(
                    "a secret of {length} bytes can be guessed; write at least {SECRET_BYTES_MIN} bytes, better \
                     {SECRET_BYTES_ADVISED} random ones"
                );
                findings.error(place, key, message);
                return None;
            }
            length if length < SECRET_BYTES_ADVISED => {
                let message = format!("{length} bytes are few for a secret; write at least {SECRET_BYTES_ADVISED}");
                findings.warning(place, key, message);
            }
            _ => {}
        }
        Some(KeySource::HmacSecret(secret.into_bytes()))
    }

    fn public_key(&self, file: &str, dir: &Path, findings: &mut Findings) -> Option<KeySource> {
        let key = "auth.token.public_key_file";
        let path = dir.join(file);
        let read = std::fs::metadata(&path).and_then(|metadata| {
            if metadata.len() > KEY_FILE_BYTES_MAX {
                return Err(std::io::Error::other(format!("it is longer than {KEY_FILE_BYTES_MAX} bytes")));
            }
            std::fs::read(&path)
        });
        match read {
            Ok(pem) => Some(KeySource::PublicKeyPem(pem)),
            Err(why) => {
                let message = format!("{} cannot be read ({why}); write the path of a PEM file", path.display());
                findings.error(&self.places[key], key, message);
                None
            }
        }
    }

    fn jwks_url(&self, url: String, findings: &mut Findings) -> Option<KeySource> {
        match crate::control::jwks::check_url(&url) {
            Ok(()) => Some(KeySource::JwksUrl(url)),
            Err(why) => {
                let key = "auth.token.jwks_url";
                findings.error(&self.places[key], key, why);
                None
            }
        }
    }

    fn place<'p>(&'p self, key: &str, otherwise: &'p Place) -> &'p Place {
        self.places.get(key).unwrap_or(otherwise)
    }
}

/// One spelling for all paths of one file: as the system has it, else as far as the names alone say.
fn resolved(path: &Path) -> PathBuf {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let in_its_folder = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    if let Some(found) = path.canonicalize().ok().or_else(in_its_folder) {
        return found;
    }
    path.components().fold(PathBuf::new(), |mut named, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(named.components().next_back(), Some(Component::Normal(_))) => {
                named.pop();
            }
            other => named.push(other),
        }
        named
    })
}
