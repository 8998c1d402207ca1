//! The life of one connection as types: greeting → (authorizing →) open → closing, each consumed to give the next.
//!
//! Invariant: only [`Open`] holds an identity, grants and subscriptions, so nothing can be allowed before the handshake
//! has decided or after the closing began. A handle names (slot, generation); the slot is reused, the pair never is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::admission::{Pending, Seats};
use super::burden::{Burden, Steady};
use super::deadlines::Wake;
use super::grants::{Explicit, Grants};
use super::people::Links;
use super::rare::{Origin, Rare};
use super::revocation::{Revocation, Taken, TokenFacts};
use crate::auth::decision::{Decision, Rights};
use crate::auth::identity::Identity;
use crate::bounds::HANDSHAKES_PENDING_PER_IP_MAX;
use crate::protocol::codes::Code;
use crate::protocol::frame::Reader;

/// A connection of this worker. Handles that outlive their connection are recognised and ignored (INVARIANTS 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Place in the worker's table.
    pub slot: u32,
    /// How often the place was used.
    pub generation: u32,
}

/// One place of the table.
pub(super) struct Slot {
    pub generation: u32,
    pub wake: Wake,
    pub state: State,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Slot>() <= 24);

/// Where a connection is in its life.
pub(super) enum State {
    Vacant,
    Greeting(Box<Greeting>),
    Authorizing(Box<Authorizing>),
    Open(Box<Open>),
    Closing(Box<Closing>),
}

/// Before the welcome: a bounded buffer and a deadline, no identity, no rights.
pub(super) struct Greeting {
    /// The socket's peer, or what a trusted PROXY header said.
    pub peer: SocketAddr,
    /// Whose it is, once the head has said so.
    pub ip: Option<IpAddr>,
    /// The socket's own peer is a trusted proxy.
    pub is_proxied: bool,
    /// Whether the socket's own peer is a trusted proxy that has not yet spoken PROXY protocol.
    pub may_be_proxied: bool,
    pub began_ms: u64,
    /// What has arrived of the head, at most `HEAD_BYTES_MAX` and one receive.
    pub buffer: Vec<u8>,
    /// The shell has bytes of it that wait for their turn: it is not silent.
    pub waits: bool,
    /// Length at which the head is looked at again, so that single bytes cost no rescans.
    pub look_at_bytes: usize,
    /// Counted against the handshakes under way, until this is dropped.
    pub pending: Pending,
}

impl Greeting {
    /// The address of the client, as far as it is known.
    pub fn client_ip(&self) -> IpAddr {
        self.ip.unwrap_or(self.peer.ip())
    }

    /// More of its address are under way than may be.
    pub fn crowds(&self) -> bool {
        !self.is_proxied && self.pending.from_same_address() as usize > HANDSHAKES_PENDING_PER_IP_MAX
    }

    /// Nothing has come of it.
    pub fn is_silent(&self) -> bool {
        self.buffer.is_empty() && !self.waits
    }
}

/// Its head was good and it holds its first seats; the application is asked who it is. Nothing is allowed yet.
pub(super) struct Authorizing {
    /// The socket's peer, or what a trusted PROXY header said.
    pub peer: SocketAddr,
    pub ip: IpAddr,
    pub seats: Seats,
    /// What answers the upgrade if it is let in.
    pub response: Vec<u8>,
    /// What the webhook is asked with.
    pub origin: Box<Origin>,
    /// When it was asked, Unix milliseconds: the issue time of what is answered (D10).
    pub asked_ms: u64,
    /// It was asked again because of a revocation meanwhile.
    pub again: bool,
    /// When waiting ends in any case, on the monotonic clock.
    pub deadline_ms: u64,
    /// What came behind the head; receiving is stopped when it comes, so it is little.
    pub rest: Vec<u8>,
}

/// Identified and served.
pub(super) struct Open {
    /// None: anonymous.
    pub identity: Option<Identity>,
    pub explicit: Explicit,
    pub grants: Grants,
    pub seats: Seats,
    /// Its neighbours among the connections of its user.
    pub links: Links,
    pub ip: IpAddr,
    /// When it was welcomed, Unix milliseconds.
    pub since_ms: u64,
    /// `iat` of the token in use, or when the webhook was asked, Unix milliseconds; absent counts as 0.
    pub issued_at_ms: i64,
    pub token_ids: Option<Box<TokenIds>>,
    /// `expiring` was said for the expiry in use.
    pub told_expiring: bool,
    /// Unix milliseconds; `u64::MAX` = never.
    pub expires_at_ms: u64,
    /// When the next ping is due, on the monotonic clock.
    pub ping_at_ms: u64,
    /// A ping was sent and nothing came since.
    pub awaits_pong: bool,
    /// A ping was sent whose pong has not come.
    pub owes_pong: bool,
    pub steady: Steady,
    /// What it carries only at times.
    pub burden: Option<Box<Burden>>,
    /// What few need: calls under way, narrowed limits.
    pub rare: Option<Box<Rare>>,
}

// A size class of the allocator: one byte more would cost 32 for each connection.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Open>() <= 192);

/// The ids of the token in use, where it has any.
pub(super) struct TokenIds {
    pub token_id: Option<Box<str>>,
    pub session: Option<Box<str>>,
}

impl TokenIds {
    pub fn of(decision: &Decision) -> Option<Box<TokenIds>> {
        let (token_id, session) = (decision.token_id.clone(), decision.session.clone());
        (token_id.is_some() || session.is_some()).then(|| Box::new(TokenIds { token_id, session }))
    }

    /// The new ids, each old one where there is no new one.
    pub fn over(new: Option<Box<TokenIds>>, old: Option<Box<TokenIds>>) -> Option<Box<TokenIds>> {
        match (new, old) {
            (Some(new), Some(old)) => Some(Box::new(TokenIds {
                token_id: new.token_id.or(old.token_id),
                session: new.session.or(old.session),
            })),
            (new, old) => new.or(old),
        }
    }
}

/// Denials of one code within one second, for one audit record.
pub(super) struct Denied {
    pub code: Code,
    pub pipe: Option<Box<str>>,
    /// A rule failed: its place and what happened.
    pub fault: Option<Box<str>>,
    /// When the first one was, on the monotonic clock.
    pub since_ms: u64,
    /// The same, Unix milliseconds.
    pub ts_ms: u64,
    pub count: u64,
    /// Further faults are among them, for which there was no record left.
    pub is_mixed: bool,
}

impl Open {
    /// Whether this connection was let in as nobody: it never becomes anybody (GD-3).
    pub fn is_anonymous(&self) -> bool {
        self.identity.is_none()
    }

    /// What few need, made when first needed.
    pub fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// What revocations of tokens go by; None: anonymous.
    pub fn token_facts(&self) -> Option<TokenFacts<'_>> {
        let identity = self.identity.as_ref()?;
        Some(TokenFacts {
            user: identity.id(),
            tenant: identity.tenant(),
            token_id: self.token_ids.as_ref().and_then(|ids| ids.token_id.as_deref()),
            session: self.session(),
            issued_at_ms: self.issued_at_ms,
        })
    }

    /// Session id of the token in use.
    pub fn session(&self) -> Option<&str> {
        self.token_ids.as_ref().and_then(|ids| ids.session.as_deref())
    }

    /// The revocation that takes this pipe from its user at this time, if one does.
    pub fn revocation_of(&self, now_ms: u64, name: &str) -> Option<&Arc<Revocation>> {
        let binds = |one: &&Arc<Revocation>| {
            // A later authorization that grants the pipe itself is not bound (D4).
            let ended = || one.is_followed_by(self.issued_at_ms) && self.explicit.rights(name) != Rights::NONE;
            one.until_ms > now_ms && one.taken.covers(name) && !ended()
        };
        self.revoked().iter().find(binds)
    }

    /// Whether this explicit grant is not told to the client, because what it grants is revoked: the pipe of a name, the
    /// same pattern, or everything (B25).
    pub fn hides(&self, now_ms: u64, grant: &str) -> bool {
        if !grant.contains('*') {
            return self.revocation_of(now_ms, grant).is_some();
        }
        let same = |one: &Arc<Revocation>| match &one.taken {
            Taken::Everything => !one.is_followed_by(self.issued_at_ms),
            Taken::Pipe(text) => **text == *grant && !one.is_followed_by(self.issued_at_ms),
        };
        self.revoked().iter().any(|one| one.until_ms > now_ms && same(one))
    }
}

/// Input that must wait: a decoded message that could not be accepted yet, and the raw bytes behind it.
pub(super) struct Held {
    pub message: Option<String>,
    pub rest: Vec<u8>,
    pub until: Until,
    /// Since when, on the monotonic clock.
    pub since_ms: u64,
}

/// Somebody who waits for room in rings of the mesh.
pub(super) struct Stalled {
    pub handle: Handle,
    /// One bit for each worker.
    pub rings: u64,
    /// A message that was set aside waits, else held input.
    pub set_aside: bool,
}

/// What held input waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Room in these rings of the mesh, one bit for each worker.
    Room(u64),
    /// This time on the monotonic clock, in nanoseconds.
    Time(u64),
    /// Other workers' counting of who is in a pipe.
    Attendance,
}

impl Until {
    /// Whether both are of one kind.
    pub fn is_alike(self, other: Until) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// Holds no rights and no seat any more; waits for its last bytes to leave and for the peer's answer.
pub(super) struct Closing {
    pub deadline_ms: u64,
    /// For the peer's close frame. None after a refused handshake, where nothing more is read.
    pub reader: Option<Reader>,
    /// The peer will say nothing more that matters.
    pub peer_done: bool,
    /// The peer has ended its side of the stream.
    pub peer_ended: bool,
    /// Our side of the stream was ended.
    pub finished: bool,
}

impl Held {
    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.message.as_ref().map_or(0, String::capacity) + self.rest.capacity()
    }
}
