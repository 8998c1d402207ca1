//! The life of one connection as types: greeting → open → closing, each consumed to give the next.
//!
//! Invariant: only [`Open`] holds an identity, grants and subscriptions, so nothing can be allowed before the handshake
//! has decided or after the closing began. A handle names (slot, generation); the slot is reused, the pair never is.

use std::net::SocketAddr;

use super::admission::{Pending, Seats};
use super::deadlines::Wake;
use super::grants::{Explicit, Grants};
use super::rate::Bucket;
use super::throttle::Throttle;
use crate::auth::decision::Identity;
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

/// Where a connection is in its life.
pub(super) enum State {
    Vacant,
    Greeting(Box<Greeting>),
    Open(Box<Open>),
    Closing(Box<Closing>),
}

/// Before the welcome: a bounded buffer and a deadline, no identity, no rights.
pub(super) struct Greeting {
    /// The socket's peer, or what a trusted PROXY header said.
    pub peer: SocketAddr,
    /// Whether the socket's own peer is a trusted proxy that has not yet spoken PROXY protocol.
    pub may_be_proxied: bool,
    pub began_ms: u64,
    /// What has arrived of the head, at most `HEAD_BYTES_MAX` and one receive.
    pub buffer: Vec<u8>,
    /// Length at which the head is looked at again, so that single bytes cost no rescans.
    pub look_at_bytes: usize,
    /// Counted against the handshakes under way, until this is dropped.
    pub _pending: Pending,
}

/// Identified and served.
pub(super) struct Open {
    /// None: anonymous.
    pub identity: Option<Box<Identity>>,
    pub explicit: Explicit,
    pub grants: Grants,
    pub seats: Seats,
    pub reader: Reader,
    pub buckets: [Bucket; super::throttle::KINDS],
    /// Unix milliseconds; `u64::MAX` = never.
    pub expires_at_ms: u64,
    /// When the last byte came, on the monotonic clock.
    pub heard_ms: u64,
    /// When the next ping is due, on the monotonic clock.
    pub ping_at_ms: u64,
    /// A ping was sent and nothing came since.
    pub awaits_pong: bool,
    /// When the unfinished message began; 0 = there is none.
    pub unfinished_since_ms: u64,
    /// When a draining server lets it go; `u64::MAX` = not draining.
    pub leave_at_ms: u64,
    pub held: Option<Box<Held>>,
    pub throttle: Option<Box<Throttle>>,
}

/// Input that must wait: a decoded message that could not be accepted yet, and the raw bytes behind it.
pub(super) struct Held {
    pub message: Option<String>,
    pub rest: Vec<u8>,
    pub until: Until,
}

/// What held input waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Room in these rings of the mesh, one bit for each worker.
    Room(u64),
    /// This time on the monotonic clock, in nanoseconds.
    Time(u64),
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
