//! Every reply code and every close code, each in one table.
//!
//! Invariant: a code is only ever written through these tables, so its spelling, its HTTP status and what the client
//! should do cannot differ between two places. Documentation is checked against `ALL`.
//!
//! Source: PROTOCOL.md §3, rulings E1 and E16; RFC 6455 §7.4.1 for the close codes under 4000.

use std::fmt;

/// Why something that a client or the application asked for did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// Malformed, or not valid in this place.
    Invalid,
    /// No verified identity.
    Unauthenticated,
    /// Not granted. Unknown and ungranted pipes answer alike.
    Forbidden,
    /// The pipe or a field belongs to another tenant, organisation or team.
    ScopeMismatch,
    /// The feature is not enabled for this user.
    FeatureDisabled,
    /// The right was taken away until it is restored.
    Revoked,
    /// There is no such subscription.
    NotSubscribed,
    /// No such action.
    UnknownAction,
    /// An event or a body is larger than allowed.
    PayloadTooLarge,
    /// An event's data does not match its schema.
    Schema,
    /// Over a rate.
    RateLimited,
    /// Over a cap, such as subscriptions.
    TooMany,
    /// Over a cap of connections.
    TooManyConnections,
    /// A resource of the server is exhausted.
    Overloaded,
    /// The server is going away.
    Draining,
    /// Nobody there to push to.
    NotConnected,
    /// No such thing.
    NotFound,
    /// The application took too long.
    Timeout,
    /// The application could not be asked.
    Unavailable,
    /// A fault of ours.
    Internal,
}

/// (code, name on the wire, default sentence, HTTP status), in the order of the variants.
const CODES: [(Code, &str, &str, u16); 20] = [
    (Code::Invalid, "INVALID", "The message is not valid", 400),
    (Code::Unauthenticated, "UNAUTHENTICATED", "A valid token is needed", 401),
    (Code::Forbidden, "FORBIDDEN", "Access denied", 403),
    (Code::ScopeMismatch, "SCOPE_MISMATCH", "This belongs to another tenant, organisation or team", 403),
    (Code::FeatureDisabled, "FEATURE_DISABLED", "This feature is not enabled for you", 403),
    (Code::Revoked, "REVOKED", "Access was revoked", 403),
    (Code::NotSubscribed, "NOT_SUBSCRIBED", "Not subscribed to this pipe", 409),
    (Code::UnknownAction, "UNKNOWN_ACTION", "There is no such action", 404),
    (Code::PayloadTooLarge, "PAYLOAD_TOO_LARGE", "The data is too large", 413),
    (Code::Schema, "SCHEMA", "The data does not match the schema of this event", 422),
    (Code::RateLimited, "RATE_LIMITED", "Too many requests; try again later", 429),
    (Code::TooMany, "TOO_MANY", "The limit is reached; give something up first", 429),
    (Code::TooManyConnections, "TOO_MANY_CONNECTIONS", "Too many connections; try again later", 429),
    (Code::Overloaded, "OVERLOADED", "The server is overloaded; try again later", 503),
    (Code::Draining, "DRAINING", "The server is going away; connect again", 503),
    (Code::NotConnected, "NOT_CONNECTED", "Nobody is connected there", 404),
    (Code::NotFound, "NOT_FOUND", "Not found", 404),
    (Code::Timeout, "TIMEOUT", "The application did not answer in time", 504),
    (Code::Unavailable, "UNAVAILABLE", "The application cannot be reached", 503),
    (Code::Internal, "INTERNAL", "Internal error", 500),
];

impl Code {
    /// Every code, in the order of the table.
    pub const ALL: &[Code] = &{
        let mut all = [Code::Invalid; CODES.len()];
        let mut i = 0;
        while i < CODES.len() {
            all[i] = CODES[i].0;
            i += 1;
        }
        all
    };

    /// The code of this name on the wire.
    pub fn of_name(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// The name on the wire, such as `RATE_LIMITED`.
    pub const fn name(self) -> &'static str {
        CODES[self as usize].1
    }

    /// The sentence that is sent where nothing more exact is known.
    pub const fn text(self) -> &'static str {
        CODES[self as usize].2
    }

    /// The HTTP status where the answer is an HTTP response (E1).
    pub const fn status(self) -> u16 {
        CODES[self as usize].3
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a client should do once its connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reconnect {
    /// Not connect again by itself: the same thing would happen.
    Never,
    /// Connect again.
    Now,
    /// Get a new token, then connect again.
    WithNewToken,
    /// Connect again, waiting longer each time.
    WithBackoff,
    /// Connect again after the delay stated in the close reason (`retry_after_ms=N`, C30).
    AfterDelay,
    /// Connect again after a random part of the delay stated in the close reason.
    AfterPartOfDelay,
}

/// Why a WebSocket connection was closed by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum CloseCode {
    /// Answer to the client's own close.
    Normal = 1000,
    /// The server or the page is going away.
    GoingAway = 1001,
    /// The frames break RFC 6455.
    Protocol = 1002,
    /// A binary message.
    Unsupported = 1003,
    /// Text that is not UTF-8.
    InvalidPayload = 1007,
    /// A message over `message_bytes`.
    TooBig = 1009,
    /// A fault of ours.
    Internal = 1011,
    /// Token or session expired.
    Expired = 4401,
    /// Token or session revoked.
    Revoked = 4402,
    /// Disconnected by the application, or the identity changed at refresh.
    Forbidden = 4403,
    /// No pong, or idle for too long.
    Silent = 4408,
    /// Its queue overflowed.
    TooSlow = 4413,
    /// Over its rate for too long.
    OverRate = 4429,
    /// Draining or overloaded.
    Draining = 4503,
}

/// (code, reason in the close frame, what the client should do).
const CLOSE_CODES: [(CloseCode, &str, Reconnect); 14] = [
    (CloseCode::Normal, "", Reconnect::Never),
    (CloseCode::GoingAway, "going away", Reconnect::Now),
    (CloseCode::Protocol, "protocol error", Reconnect::Never),
    (CloseCode::Unsupported, "binary messages are not supported", Reconnect::Never),
    (CloseCode::InvalidPayload, "text is not UTF-8", Reconnect::Never),
    (CloseCode::TooBig, "message too big", Reconnect::Never),
    (CloseCode::Internal, "internal error", Reconnect::WithBackoff),
    (CloseCode::Expired, "expired", Reconnect::WithNewToken),
    (CloseCode::Revoked, "revoked", Reconnect::Never),
    (CloseCode::Forbidden, "forbidden", Reconnect::Never),
    (CloseCode::Silent, "no answer to ping", Reconnect::Now),
    (CloseCode::TooSlow, "too slow", Reconnect::WithBackoff),
    (CloseCode::OverRate, "over the rate", Reconnect::AfterDelay),
    (CloseCode::Draining, "draining", Reconnect::AfterPartOfDelay),
];

impl CloseCode {
    /// Every close code that the server sends, in ascending order.
    pub const ALL: &[CloseCode] = &{
        let mut all = [CloseCode::Normal; CLOSE_CODES.len()];
        let mut i = 0;
        while i < CLOSE_CODES.len() {
            all[i] = CLOSE_CODES[i].0;
            i += 1;
        }
        all
    };

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The reason sent where nothing more exact is known; at most 123 bytes.
    pub const fn reason(self) -> &'static str {
        self.row().1
    }

    /// What the client should do.
    pub const fn reconnect(self) -> Reconnect {
        self.row().2
    }

    const fn row(self) -> &'static (CloseCode, &'static str, Reconnect) {
        let mut i = 0;
        while i + 1 < CLOSE_CODES.len() && CLOSE_CODES[i].0 as u16 != self as u16 {
            i += 1;
        }
        &CLOSE_CODES[i]
    }
}

// `CODES[code as usize]` is the row of `code`, and each close code has its own row, in ascending order.
const _: () = {
    let mut i = 0;
    while i < CODES.len() {
        assert!(CODES[i].0 as usize == i);
        i += 1;
    }
    assert!(Code::Internal as usize == CODES.len() - 1);
    let mut i = 1;
    while i < CLOSE_CODES.len() {
        assert!(CLOSE_CODES[i - 1].0.number() < CLOSE_CODES[i].0.number());
        assert!(CLOSE_CODES[i].1.len() <= 123);
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_status_of_ruling_e1() {
        // E1, E16, written out again from the ruling's text.
        let ruling: &[(u16, &[&str])] = &[
            (400, &["INVALID"]),
            (401, &["UNAUTHENTICATED"]),
            (403, &["FORBIDDEN", "SCOPE_MISMATCH", "FEATURE_DISABLED", "REVOKED"]),
            (404, &["NOT_FOUND", "NOT_CONNECTED", "UNKNOWN_ACTION"]),
            (409, &["NOT_SUBSCRIBED"]),
            (413, &["PAYLOAD_TOO_LARGE"]),
            (422, &["SCHEMA"]),
            (429, &["RATE_LIMITED", "TOO_MANY", "TOO_MANY_CONNECTIONS"]),
            (500, &["INTERNAL"]),
            (503, &["UNAVAILABLE", "OVERLOADED", "DRAINING"]),
            (504, &["TIMEOUT"]),
        ];
        let mut seen = 0;
        for (status, names) in ruling {
            for name in *names {
                let code = Code::ALL.iter().find(|code| code.name() == *name);
                assert_eq!(code.map(|code| code.status()), Some(*status), "{name}");
                seen += 1;
            }
        }
        assert_eq!(seen, Code::ALL.len());
        assert_eq!(Code::Forbidden.text(), "Access denied");
    }

    #[test]
    fn each_close_code_has_its_own_row() {
        let numbers: Vec<u16> = CloseCode::ALL.iter().map(|code| code.number()).collect();
        let page = [1000, 1001, 1002, 1003, 1007, 1009, 1011, 4401, 4402, 4403, 4408, 4413, 4429, 4503];
        assert_eq!(numbers, page);
        for code in CloseCode::ALL {
            assert_eq!(code.row().0, *code);
        }
        assert_eq!(CloseCode::Revoked.reconnect(), Reconnect::Never);
        assert_eq!(CloseCode::Expired.reconnect(), Reconnect::WithNewToken);
        assert_eq!(CloseCode::Draining.reconnect(), Reconnect::AfterPartOfDelay);
    }
}
