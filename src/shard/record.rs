//! What is told to the audit: one record for each thing that matters to security (GD-9).
//!
//! A record never holds a token, a secret, a cookie or a payload. Workers hand them out as outputs; the shell puts them
//! into a bounded channel and counts what does not fit.

use std::net::IpAddr;

use crate::protocol::codes::{CloseCode, Code};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A connection was welcomed.
    Connect,
    /// A handshake was refused.
    Refused,
    /// Messages of a connection were denied.
    Denied,
    /// A connection was closed by us for a reason of its own (expired, revoked, too slow, over its rate, by the application).
    Disconnect,
    /// The application revoked something.
    Revoke,
    /// The application restored something.
    Restore,
    /// Any other call of the application that changes something.
    Admin,
    /// A fault of ours or of the configuration that made a decision fail closed.
    InternalError,
}

impl Kind {
    /// As it is written (G3).
    pub fn name(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Refused => "refused",
            Kind::Denied => "denied",
            Kind::Disconnect => "disconnect",
            Kind::Revoke => "revoke",
            Kind::Restore => "restore",
            Kind::Admin => "admin",
            Kind::InternalError => "internal_error",
        }
    }

    /// Whether denials may never displace it (INVARIANTS 33).
    pub fn is_kept(self) -> bool {
        matches!(self, Kind::Disconnect | Kind::Revoke | Kind::Restore | Kind::Admin | Kind::InternalError)
    }
}

/// What a call of the application said beside whom and which pipe it was about. Ids, never a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Particulars {
    /// The session that it was about.
    pub session: Option<Box<str>>,
    /// The id of the token that it was about (`jti`).
    pub token_id: Option<Box<str>>,
    /// The cut-off, Unix seconds.
    pub issued_before_s: Option<i64>,
    /// The session that was spared.
    pub except_session: Option<Box<str>>,
    /// The id of the token that was spared.
    pub except_token: Option<Box<str>>,
    /// The time limit, seconds.
    pub ttl_s: Option<f64>,
    /// What else ends it.
    pub until: Option<&'static str>,
    /// Whether the clients may connect again.
    pub reconnect: Option<bool>,
}

/// One record of a worker or of the control thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When, Unix milliseconds.
    pub ts_ms: u64,
    /// What.
    pub kind: Kind,
    /// Code of a refusal or denial.
    pub code: Option<Code>,
    /// Code of a close.
    pub close: Option<CloseCode>,
    /// Public name of the connection.
    pub connection: Option<String>,
    /// User id.
    pub user: Option<Box<str>>,
    /// Tenant id.
    pub tenant: Option<Box<str>>,
    /// Address of the client.
    pub ip: Option<IpAddr>,
    /// Name of the API key.
    pub key: Option<Box<str>>,
    /// Pipe or pattern.
    pub pipe: Option<Box<str>>,
    /// Why, or which call: a fixed sentence or name. Nothing that a client sent, but for the origin and host of a refused
    /// page, cut short.
    pub reason: Option<std::borrow::Cow<'static, str>>,
    /// What else a call said.
    pub particulars: Option<Box<Particulars>>,
    /// How many such things this record stands for.
    pub count: u64,
}

impl Record {
    /// A record of this kind with nothing else in it.
    pub fn new(ts_ms: u64, kind: Kind) -> Record {
        Record {
            ts_ms,
            kind,
            code: None,
            close: None,
            connection: None,
            user: None,
            tenant: None,
            ip: None,
            key: None,
            pipe: None,
            reason: None,
            particulars: None,
            count: 1,
        }
    }
}
