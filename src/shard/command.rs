//! What the application may ask of every worker: the commands that the control thread sends through the mesh.
//!
//! A command is carried out in one step by each worker that it is sent to, and answered by calling [`Command::answer`],
//! from the worker's thread. No ring is needed for the answer, so draining a ring never depends on room in another
//! (INVARIANTS 13). Commands and events of the control thread travel in the same ring, so their order is kept.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::call::Outcome;
use super::connection::Handle;
use super::counters::Counters;
use super::revocation::{Restoration, Revocation, TokenRevocation};
use crate::mesh::registry::Pipe;

/// One request to one worker.
pub struct Command {
    /// What to do.
    pub act: Act,
    /// Called once with what came of it. Must be quick and must not block: it runs on the worker.
    pub answer: Option<Tell>,
}

/// Tells whoever asked.
pub type Tell = Box<dyn FnOnce(Answer) + Send>;

/// A worker that is asked to settle, and has not yet.
pub(super) struct Settling {
    /// By ring: entries that stood there when it was asked and are not dealt with.
    pub ahead: Box<[usize]>,
    pub answer: Option<Tell>,
}

impl fmt::Debug for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Command({:?})", self.act)
    }
}

/// A user: in one tenant, or (as server calls without a `tenant` mean it) in every one (D14).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Person {
    /// None: whatever the tenant.
    pub tenant: Option<Arc<str>>,
    /// User id.
    pub user: Arc<str>,
}

/// Connections that a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// All of a user.
    User(Person),
    /// One, by its public name.
    Connection(Arc<str>),
    /// All of a session.
    Session(Arc<str>),
    /// All whose identity has this role; with a tenant only there.
    Role(Arc<str>, Option<Arc<str>>),
    /// All of a tenant.
    Tenant(Arc<str>),
    /// All of an organisation; with a tenant only there.
    Org(Arc<str>, Option<Arc<str>>),
}

/// How far a push reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// Wherever the target is.
    Anywhere,
    /// Only connections of this tenant; None: only those without one (D14, C20).
    Tenant(Option<Arc<str>>),
}

/// What to do. Counts are answered for this worker alone; the asker adds them up.
#[derive(Clone, Debug)]
pub enum Act {
    /// Deliver an encoded event (`encode::event_frame`) and count the connections whose queue took it.
    Publish {
        /// To whom.
        pipe: Pipe,
        /// The frame.
        bytes: Arc<[u8]>,
    },
    /// Queue an encoded `push` frame for these connections and count them.
    Push {
        /// To whom.
        to: Who,
        /// Nobody outside is reached.
        within: Within,
        /// The frame.
        bytes: Arc<[u8]>,
    },
    /// A call of this worker has come to its end. Counts 0.
    Answered {
        /// For which connection.
        connection: Handle,
        /// Number of the call.
        number: u32,
        /// What came of it.
        outcome: Box<Outcome>,
    },
    /// A revocation is in the shared table: take the grants and subscriptions away now. Counts the user's connections.
    Revoke(Arc<Revocation>),
    /// A revocation was lifted or has ended. Counts the user's connections.
    Restore(Arc<Restoration>),
    /// Hand over to the others what was accepted here, and answer once what the others had handed over by now is delivered
    /// (INVARIANTS 8).
    Settle,
    /// A revocation of tokens is in the shared table: close those connections (4402) and count them.
    RevokeTokens(Arc<TokenRevocation>),
    /// Close these connections: 4403, or 4503 where they may reconnect. Counts them.
    Disconnect {
        /// Which.
        who: Who,
        /// Whether they may come back.
        reconnect: bool,
    },
    /// End these connections' subscription to a pipe; the grant stays (E9). Counts those that were subscribed.
    Unsubscribe {
        /// Which.
        who: Who,
        /// The pipe.
        pipe: Arc<str>,
    },
    /// List open connections, by slot, from the one after `after_slot`.
    Connections {
        /// Only those of this user.
        person: Option<Person>,
        /// The slot of the last one that was listed.
        after_slot: Option<u32>,
        /// At most so many.
        limit: usize,
    },
    /// List pipes with subscribers here, by name, those after `after`: the first `limit` of them.
    Pipes {
        /// The last name that was listed.
        after: Option<Arc<str>>,
        /// At most so many.
        limit: usize,
    },
    /// Who is subscribed to a pipe here.
    Members {
        /// The pipe.
        pipe: Arc<str>,
    },
    /// All counters and gauges of the worker.
    Stats,
}

/// What came of a command on one worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Connections (or deliveries) that it touched.
    Count(u64),
    /// For [`Act::Connections`].
    Connections(Vec<ConnectionFacts>),
    /// For [`Act::Pipes`]: name and subscribers here.
    Pipes(Vec<(Box<str>, u64)>),
    /// For [`Act::Members`].
    Members(Members),
    /// For [`Act::Stats`].
    Stats(Box<Stats>),
}

/// One open connection, for operators.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionFacts {
    /// Slot on its worker, for going on after it.
    pub slot: u32,
    /// Public name.
    pub connection: String,
    /// User id; None: anonymous.
    pub user: Option<Box<str>>,
    /// Tenant id.
    pub tenant: Option<Box<str>>,
    /// Address of the client.
    pub ip: IpAddr,
    /// When it was welcomed, Unix milliseconds.
    pub since_ms: u64,
    /// Pipes it is subscribed to.
    pub pipes: Vec<Box<str>>,
    /// Bytes waiting to be sent.
    pub queue_bytes: u64,
}

/// Subscribers of one pipe on one worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// For each person (tenant, user): display name and connections here.
    pub people: Vec<Member>,
    /// Anonymous connections.
    pub anonymous: u64,
}

/// One person in a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Tenant id.
    pub tenant: Option<Box<str>>,
    /// User id.
    pub user: Box<str>,
    /// Display name.
    pub name: Option<Box<str>>,
    /// Connections subscribed.
    pub connections: u64,
}

/// The state of one worker in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Number of the worker.
    pub worker: usize,
    /// Connections in whatever state.
    pub connections: u64,
    /// Connections that are served.
    pub open: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Pipes known.
    pub pipes: u64,
    /// Bytes of frames waiting or being written, shared ones counted once.
    pub queue_bytes: u64,
    /// Bytes of unfinished and held messages.
    pub assembly_bytes: u64,
    /// Connections that wait for room in a ring.
    pub stalled: u64,
    /// Entries in the rings to this worker.
    pub ring_depth: u64,
    /// Sweeps that found what nobody had rung for; anything but 0 is a bug.
    pub doorbells_missed: u64,
    /// How long its ticks took. Noted by the worker, which has the clock.
    pub ticks: Ticks,
    /// Everything that is counted.
    pub counters: Counters,
}

/// Upper bounds of the lengths of ticks that are told apart, nanoseconds.
pub const TICK_BOUNDS_NS: [u64; 12] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    250_000_000,
];

/// How long the ticks of a worker took, from waking to sleeping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// Ticks that took at most the bound at the same place and longer than the one before; the last: longer than all.
    pub counts: [u64; TICK_BOUNDS_NS.len() + 1],
    /// All of them together, nanoseconds.
    pub sum_ns: u64,
}

impl Ticks {
    /// A tick took so long, nanoseconds.
    pub fn note(&mut self, ns: u64) {
        let place = TICK_BOUNDS_NS.iter().position(|bound| ns <= *bound).unwrap_or(TICK_BOUNDS_NS.len());
        self.counts[place] += 1;
        self.sum_ns += ns;
    }
}
