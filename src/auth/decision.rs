//! What *authorize* answered: who a connection is and what it is granted.
//!
//! Both a verified token and (where configured) the application's webhook end in a [`Decision`]; everything after the
//! handshake sees only this. Invariant: every id in it is 1–256 bytes without control characters, white space, `*`,
//! `{` or `}`; every name in `grants` is a valid pipe name or pattern. Limits that come with it only ever narrow those of
//! the configuration.

use super::identity::Identity;
use crate::config::{Rate, Rates};

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
    /// All three.
    pub const ALL: Rights = Rights(7);

    /// The set as three bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set of these bits; others are ignored.
    pub const fn from_bits(bits: u8) -> Rights {
        Rights(bits & Rights::ALL.0)
    }

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
    /// When the token was issued (`iat`), or the webhook was asked, Unix milliseconds. Absent counts as 0.
    pub issued_at_ms: Option<i64>,
    /// When the connection must end, Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// Session id (`sid`).
    pub session: Option<Box<str>>,
    /// Token id (`jti`).
    pub token_id: Option<Box<str>>,
    /// What it may use less of than others (`limits`).
    pub limits: Option<Box<Narrowed>>,
}

/// Limits of one connection that are narrower than the configuration's. A limit that is not narrowed is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Narrowed {
    /// Under the names of `[limits]`; each finite, `per_s` above 0, `burst` at least 1.
    pub rates: Rates,
    /// Subscriptions at one time; at least 1.
    pub subscriptions: Option<u32>,
}

impl Narrowed {
    /// The rates of a connection for which `configured` are those of all: the lesser of both, number by number. A burst of
    /// `bytes` is never below `message_bytes`, or a long message could never pass (A8).
    #[must_use]
    pub fn rates(&self, configured: &Rates, message_bytes: u32) -> Rates {
        let own = &self.rates;
        let at_least = |rate: Rate| Rate { burst: rate.burst.max(message_bytes.into()), ..rate };
        Rates {
            message: lesser(own.message, configured.message),
            publish: lesser(own.publish, configured.publish),
            subscribe: lesser(own.subscribe, configured.subscribe),
            presence: lesser(own.presence, configured.presence),
            refresh: lesser(own.refresh, configured.refresh),
            action: lesser(own.action, configured.action),
            enqueue: lesser(own.enqueue, configured.enqueue),
            push: lesser(own.push, configured.push),
            bytes: lesser(own.bytes.map(at_least), configured.bytes),
        }
    }

    /// The subscriptions of a connection for which `configured` are those of all.
    #[must_use]
    pub fn subscriptions(&self, configured: u32) -> u32 {
        self.subscriptions.map_or(configured, |own| own.min(configured))
    }
}

/// A rate that is `None` does not limit.
fn lesser(one: Option<Rate>, other: Option<Rate>) -> Option<Rate> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Rate { per_s: one.per_s.min(other.per_s), burst: one.burst.min(other.burst) }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_s: f64, burst: f64) -> Option<Rate> {
        Some(Rate { per_s, burst })
    }

    #[test]
    fn limits_are_narrowed_number_by_number_and_never_widened() {
        let configured =
            Rates { publish: rate(50.0, 100.0), push: rate(5.0, 5.0), bytes: rate(1e6, 4e6), ..Rates::default() };
        let own = Rates {
            publish: rate(5.0, 1_000.0),
            push: rate(1e9, 1e9),
            action: rate(1.0, 2.0),
            bytes: rate(10.0, 10.0),
            ..Rates::default()
        };
        let narrowed = Narrowed { rates: own, subscriptions: Some(10) };
        let expected = Rates {
            publish: rate(5.0, 100.0),
            push: rate(5.0, 5.0),
            action: rate(1.0, 2.0),      // off in the configuration
            bytes: rate(10.0, 65_536.0), // A8
            ..Rates::default()
        };
        assert_eq!(narrowed.rates(&configured, 65_536), expected);
        assert_eq!((narrowed.subscriptions(256), narrowed.subscriptions(5)), (10, 5));
        assert_eq!(Narrowed::default().rates(&configured, 65_536), configured);
        assert_eq!(Narrowed::default().subscriptions(256), 256);
    }

    #[test]
    fn every_rate_can_be_narrowed() {
        let all = |rate: Option<Rate>| Rates {
            message: rate,
            publish: rate,
            subscribe: rate,
            presence: rate,
            refresh: rate,
            action: rate,
            enqueue: rate,
            push: rate,
            bytes: rate,
        };
        let narrowed = Narrowed { rates: all(rate(2.0, 3.0)), subscriptions: None };
        assert_eq!(narrowed.rates(&all(rate(4.0, 4.0)), 1), all(rate(2.0, 3.0)));
        assert_eq!(narrowed.rates(&Rates::default(), 1), all(rate(2.0, 3.0)));
    }
}
