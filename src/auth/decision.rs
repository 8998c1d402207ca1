//! What *authorize* answered: who a connection is and what it is granted.
//!
//! Both a verified token and (where configured) the application's webhook end in a [`Decision`]; everything after the
//! handshake sees only this. Invariant: every id in it is 1–256 bytes without control characters, white space, `*`,
//! `{` or `}`; every name in `grants` is a valid pipe name or pattern.

/// The three rights of a grant, one bit each. Deny by default: the empty set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Nothing is allowed.
    pub const NONE: Rights = Rights(0);
    /// May receive the pipe's events.
    pub const SUBSCRIBE: Rights = Rights(1);
    /// May send events to the pipe.
    pub const PUBLISH: Rights = Rights(2);
    /// May see who else is there.
    pub const PRESENCE: Rights = Rights(4);

    /// Whether every right of `other` is in this set.
    pub fn contains(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }

    /// The rights of both sets together.
    #[must_use]
    pub fn union(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// `right` where `allowed`, else nothing.
    #[must_use]
    pub fn when(allowed: bool, right: Rights) -> Rights {
        if allowed { right } else { Rights::NONE }
    }
}

/// A verified person. Locked for the life of the connection (GD-2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// User id; never empty.
    pub id: Box<str>,
    /// Display name.
    pub name: Option<Box<str>>,
    /// `role`, else the first of `roles`.
    pub role: Option<Box<str>>,
    /// The union of `role` and `roles`, without repetition.
    pub roles: Box<[Box<str>]>,
    /// Team id.
    pub team: Option<Box<str>>,
    /// Tenant id. A person is (tenant, user).
    pub tenant: Option<Box<str>>,
    /// Organisation id.
    pub org: Option<Box<str>>,
    /// Features enabled for this person.
    pub features: Box<[Box<str>]>,
    /// Any further JSON of the application, as text.
    pub info: Option<Box<str>>,
}

/// One explicit grant: a pipe name or a pattern, and what it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// A pipe name, or a pattern holding `*` or `**`.
    pub pipe: Box<str>,
    /// What may be done there.
    pub rights: Rights,
}

/// The whole answer of authorize.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Who it is.
    pub identity: Identity,
    /// What it is granted, in the order given, no name twice, at most `bounds::GRANTS_MAX`.
    pub grants: Vec<Grant>,
    /// When the token was issued (`iat`), Unix seconds. Absent counts as 0.
    pub issued_at_s: Option<i64>,
    /// When the connection must end, Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// Session id (`sid`).
    pub session: Option<Box<str>>,
    /// Token id (`jti`).
    pub token_id: Option<Box<str>>,
}
