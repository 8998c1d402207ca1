//! The typed configuration: what the rest of the server reads.
//!
//! Invariant: a value of these types that came from `load` or `parse` is complete and in range; nobody checks it
//! again. PURE: the types alone know no file, clock or environment. Units stand in the names (`_s` seconds, `_bytes`
//! bytes). Defaults are the ones of PROTOCOL.md §6 and rulings C2 and C32. What is ruled is
//! in [`crate::rules::definition`].

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::control::Control;
use crate::protocol::peer::{Networks, Origins};
use crate::rules::Rules;
use crate::rules::definition::Endpoint;

/// Everything that one process is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[edge]`: where clients connect.
    pub edge: Edge,
    /// `[auth]`: who may connect.
    pub auth: Auth,
    /// `[limits]`: how much anybody may use.
    pub limits: Limits,
    /// `[[guard]]`, `[module.…]`, `[pipe."…"]`, `[action.…]`, `[queue.…]` and `[push]`: who may do what.
    pub rules: Arc<Rules>,
    /// `[control]`: where the application and the operators call.
    pub control: Control,
    /// `[store]`: what outlives the process.
    pub store: Store,
    /// `[audit]`: the record of what matters to security.
    pub audit: AuditSettings,
}

impl Config {
    /// The defaults, for `workers` workers (1 to `bounds::WORKERS_MAX`).
    pub fn new(workers: usize) -> Config {
        Config {
            edge: Edge::new(workers),
            auth: Auth::default(),
            limits: Limits::default(),
            rules: Arc::default(),
            control: Control::default(),
            store: Store::default(),
            audit: AuditSettings::default(),
        }
    }
}

impl Config {
    /// Takes over from `old` what a running server cannot change, and names the keys that differ.
    pub fn keep_fixed(&mut self, old: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        fn keep<T: Clone + PartialEq>(new: &mut T, old: &T, key: &'static str, kept: &mut Vec<&'static str>) {
            if new != old {
                *new = old.clone();
                kept.push(key);
            }
        }
        keep(&mut self.edge.listen, &old.edge.listen, "edge.listen", &mut kept);
        keep(&mut self.edge.workers, &old.edge.workers, "edge.workers", &mut kept);
        keep(&mut self.control.listen, &old.control.listen, "control.listen", &mut kept);
        keep(&mut self.store, &old.store, "store.path", &mut kept);
        keep(&mut self.audit, &old.audit, "audit.path", &mut kept);
        kept
    }
}

/// `[edge]`: the listeners that clients connect to.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Addresses to listen on; never empty, none twice.
    pub listen: Vec<SocketAddr>,
    /// Worker threads, 1 to `bounds::WORKERS_MAX`.
    pub workers: usize,
    /// Which web pages may connect.
    pub origins: Origins,
    /// Peers whose `X-Forwarded-For` and PROXY protocol are believed.
    pub trusted_proxies: Networks,
    /// Seconds between pings, at least 1.
    pub ping_s: u32,
    /// Seconds over which connections are let go when the server drains; 0 means at once.
    pub drain_s: u32,
    /// Seconds that a handshake may take, at least 1 (B29).
    pub handshake_s: u32,
}

impl Edge {
    /// The defaults, for `workers` workers.
    pub fn new(workers: usize) -> Edge {
        Edge {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))],
            workers,
            origins: Origins::SameHost,
            trusted_proxies: Networks::default(),
            ping_s: 25,
            drain_s: 30,
            handshake_s: 10,
        }
    }
}

/// `[auth]`: who may connect. The default lets nobody in.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// Whether a connection without a token is served, as nobody.
    pub anonymous: bool,
    /// `[auth.token]`; without it a token is the webhook's, or refused where there is none (A3).
    pub token: Option<TokenSettings>,
    /// `[auth.webhook]`: the application is asked about a connection that brings no token of ours.
    pub webhook: Option<Webhook>,
}

/// `[auth.webhook]`: the authorize endpoint of the application.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where it is, how long it may take, and the secret that signs the calls. Its number is 0.
    pub endpoint: Arc<Endpoint>,
    /// Headers of the upgrade request that it is shown, in lower case, none twice; never `sec-websocket-protocol`
    /// (INVARIANTS 28).
    pub forward_headers: Vec<Box<str>>,
    /// Calls at a time, at least 1; further upgrades wait in line (B24).
    pub concurrency: u32,
}

/// `[auth.token]`: how tokens are verified.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// The key; the algorithms allowed follow from it (B10).
    pub key: KeySource,
    /// `iss` that a token must carry.
    pub issuer: Option<String>,
    /// `aud` that a token must name; without it a token that names any is refused (B7).
    pub audience: Option<String>,
    /// Seconds of tolerance for `exp` and `nbf`.
    pub leeway_s: u32,
    /// Whether a token without `exp` is refused (B6).
    pub require_exp: bool,
}

/// Where the key of `[auth.token]` came from: exactly one source (B10).
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `hmac_secret`, at least 16 bytes: HS256, HS384, HS512.
    HmacSecret(Vec<u8>),
    /// What `public_key_file` holds: RSA, P-256 or Ed25519, in PEM.
    PublicKeyPem(Vec<u8>),
    /// `jwks_url`, where the keys are published: https, or http to this machine.
    JwksUrl(String),
}

/// Names the kind of key and nothing of the key: a configuration may end in a log.
impl fmt::Debug for KeySource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            KeySource::HmacSecret(_) => "HmacSecret(…)",
            KeySource::PublicKeyPem(_) => "PublicKeyPem(…)",
            KeySource::JwksUrl(_) => "JwksUrl(…)",
        })
    }
}

/// `[limits]`. In the counts of connections and handshakes 0 means no limit; in `message_bytes`, `subscriptions` and
/// `queue_bytes` a 0 of the file has already become the largest value the server supports.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections in all; 0 = no limit.
    pub connections: u32,
    /// Connections of one address (IPv6: one /64); 0 = no limit.
    pub connections_per_ip: u32,
    /// Connections of one (tenant, user); 0 = no limit.
    pub connections_per_user: u32,
    /// Connections of one tenant; 0 = no limit.
    pub connections_per_tenant: u32,
    /// Handshakes per second, of the whole server (B23); 0 = no limit.
    pub handshakes_per_s: u32,
    /// Bytes of one message after reassembly; never 0.
    pub message_bytes: u32,
    /// Subscriptions of one connection; never 0.
    pub subscriptions: u32,
    /// Bytes waiting to be sent to one connection; never 0.
    pub queue_bytes: u32,
    /// What happens when `queue_bytes` is reached.
    pub when_slow: WhenSlow,
    /// Rates of one connection.
    pub rates: Rates,
    /// Rates summed over the connections of one (tenant, user).
    pub per_user: Rates,
    /// Rates summed over the connections of one tenant.
    pub per_tenant: Rates,
    /// Seconds that a connection may stay over a rate before it is closed (4429); 0 closes at the first refusal (C31).
    pub throttle_s: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 100_000,
            connections_per_ip: 0,
            connections_per_user: 0,
            connections_per_tenant: 0,
            handshakes_per_s: 0,
            message_bytes: 65_536,
            subscriptions: 256,
            queue_bytes: 1_048_576,
            when_slow: WhenSlow::Close,
            rates: Rates::per_connection(),
            per_user: Rates::default(),
            per_tenant: Rates::default(),
            throttle_s: 10,
        }
    }
}

/// What happens to a connection whose outgoing queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenSlow {
    /// It is closed with 4413.
    Close,
    /// Its oldest events are dropped, and it is told how many (`lagged`).
    DropOldest,
}

/// A token bucket: `per_s` units come each second, at most `burst` are kept. Both finite; `per_s` above 0, `burst` at
/// least 1. The unit is one message, for `bytes` one byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Units per second.
    pub per_s: f64,
    /// Most units kept.
    pub burst: f64,
}

/// One rate for each kind of message; `None` is off. The default has them all off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// Every inbound message, whatever its type (C2).
    pub message: Option<Rate>,
    /// `publish`.
    pub publish: Option<Rate>,
    /// `subscribe`.
    pub subscribe: Option<Rate>,
    /// `presence`.
    pub presence: Option<Rate>,
    /// `refresh`.
    pub refresh: Option<Rate>,
    /// `action`.
    pub action: Option<Rate>,
    /// `enqueue`.
    pub enqueue: Option<Rate>,
    /// `push`.
    pub push: Option<Rate>,
    /// Bytes of inbound messages. Its burst is never below `Limits::message_bytes` (A8).
    pub bytes: Option<Rate>,
}

impl Rates {
    /// The defaults of one connection (C2, C32).
    pub fn per_connection() -> Rates {
        let usual = Some(Rate { per_s: 50.0, burst: 100.0 });
        Rates {
            message: Some(Rate { per_s: 100.0, burst: 200.0 }),
            publish: usual,
            subscribe: usual,
            presence: usual,
            refresh: Some(Rate { per_s: 1.0, burst: 5.0 }),
            action: usual,
            enqueue: usual,
            push: usual,
            bytes: Some(Rate { per_s: 1_048_576.0, burst: 4_194_304.0 }),
        }
    }
}

/// `[store]`: where revocations are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The file.
    pub path: PathBuf,
}

impl Default for Store {
    fn default() -> Store {
        Store { path: PathBuf::from("pipeward.redb") }
    }
}

/// `[audit]`: where the audit goes. The default is stdout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditSettings {
    /// The place.
    pub path: AuditPath,
}

/// Where the audit goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditPath {
    /// `"-"`: stdout; the log goes to stderr (G4).
    #[default]
    Stdout,
    /// A file, rotated by size.
    File(PathBuf),
}
