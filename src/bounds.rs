//! Every fixed bound of the server, in one place, related to each other by assertions at compile time.
//!
//! A bound that an operator may change is a key of `[limits]` (see `config`); its default stands there. The bounds
//! here are part of the design: each says what happens when it is reached.

/// Workers in one process: one bit of a pipe's interest word each, and one bit says that somebody watches who is there.
/// The control thread is one more participant of the mesh. More: configuration error.
pub const WORKERS_MAX: usize = 63;

/// Bytes of a request head (request line and headers). Longer: 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request head. More: 431.
pub const HEAD_LINES_MAX: usize = 100;
/// Bytes of a PROXY protocol header (v1 at most 107; v2 16 + addresses and TLVs). Longer: the connection ends.
pub const PROXY_HEADER_BYTES_MAX: usize = 536;
/// Connections between accept and welcome, per process. More: the oldest silent one is closed, where none is silent the oldest.
pub const HANDSHAKES_PENDING_MAX: usize = 4096;
/// The same for one address (IPv6: one /64), trusted proxies apart. More: those of that address that have not sent a byte for
/// [`HANDSHAKE_GRACE_MS`] are closed, the oldest first, until there are no more than this.
pub const HANDSHAKES_PENDING_PER_IP_MAX: usize = 64;
/// A handshake younger than this is not closed to make room for another of its address, in milliseconds.
pub const HANDSHAKE_GRACE_MS: u64 = 1_000;

/// Bytes of a pipe's name. Longer: `INVALID`.
pub const PIPE_NAME_BYTES_MAX: usize = 200;
/// Bytes of an event's name. Longer: `INVALID`.
pub const EVENT_NAME_BYTES_MAX: usize = 100;
/// Bytes of a message's `id` when it is a string. Longer: the message is malformed.
pub const MESSAGE_ID_BYTES_MAX: usize = 64;
/// Pipes in one `subscribe` or `unsubscribe`. More: `INVALID`.
pub const BATCH_PIPES_MAX: usize = 256;
/// Names in the `events` list of one `subscribe`. More: `INVALID`.
pub const EVENT_LIST_MAX: usize = 64;
/// Nesting of a client's JSON. Deeper: `INVALID`.
pub const JSON_DEPTH_MAX: usize = 128;
/// Bytes of a token. Longer: refused before it is decoded.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a user, tenant, organisation, team, role, session or token id. Longer: the answer is malformed.
pub const IDENTITY_BYTES_MAX: usize = 256;
/// Bytes of a display name, or of the name of a feature. Longer: the answer is malformed.
pub const LABEL_BYTES_MAX: usize = 1_024;
/// Explicit grants of one connection. More: the answer is malformed.
pub const GRANTS_MAX: usize = 10_000;
/// Grants listed in a `welcome`. More: `pipes_truncated`.
pub const GRANTS_LISTED_MAX: usize = 1_000;
/// Resolved names that one connection remembers without being subscribed to them. More: the oldest is forgotten.
pub const RESOLVED_NAMES_MAX: usize = 32;
/// Pipes known to the process at one time (subscribed, or named by a grant that was used). More: `TOO_MANY`.
pub const PIPES_MAX: usize = 4_000_000;

/// Revocations in force at one time; each takes some 400 bytes. More: `TOO_MANY`. What takes the place of another needs no room.
pub const REVOCATIONS_MAX: usize = 10_000_000;
/// Revocations of single pipes, and cut-offs of tokens, of one user id. More: `TOO_MANY`; taking everything from the user is
/// always possible.
pub const REVOCATIONS_PER_USER_MAX: usize = 10_000;
/// Pushes of `notify` that wait. More: `OVERLOADED`.
pub const NOTICES_MAX: usize = 1_024;
/// Bytes of their payloads. More: `OVERLOADED`.
pub const NOTICE_BYTES_MAX: usize = 64 << 20;

/// Entries of one ring of the mesh. Full: the publish stays unparsed and its connection pauses.
pub const RING_ENTRIES: usize = 1024;
/// Entries taken from the rings in one go, and how often in one tick. In between, whoever has much waiting is given a write.
pub const RING_ENTRIES_PER_TURN: usize = 16;
/// See [`RING_ENTRIES_PER_TURN`].
pub const RING_TURNS_PER_TICK: usize = 16;
/// Writes started before anything else is looked at again.
pub const WRITES_PER_SLICE: usize = 256;
/// The same where some have a reply or an event of a small pipe waiting, and others an event for many: of the latter so many, of
/// the former half as many.
pub const WRITES_AMONG_OTHERS: usize = 64;
/// Bytes gathered into one write. One frame that is longer goes alone.
pub const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Bytes waiting to be sent, per worker. More: the connection with the longest queue is closed as too slow (4413).
pub const WORKER_QUEUE_BYTES_MAX: usize = 1 << 30;
/// Bytes of unfinished messages, per worker. More: the connection holding most is closed (1009).
pub const WORKER_ASSEMBLY_BYTES_MAX: usize = 256 << 20;
/// A message that was begun must be complete within this time, in milliseconds, pauses in reading apart. Later: 4408.
pub const MESSAGE_UNFINISHED_MS_MAX: u64 = 30_000;

/// So long before its token expires a connection is told so, in milliseconds (C29).
pub const EXPIRING_NOTICE_MS: u64 = 60_000;
/// Members that are listed, in a reply or in a `presence` frame (E11). More: the first ones and `total`, or numbers only.
pub const PRESENCE_LISTED_MAX: usize = 1_000;
/// Where there were more members than are listed, frames list them again at so many. Fewer than
/// [`PRESENCE_LISTED_MAX`], so that a crowd around it does not cause a new list each time.
pub const PRESENCE_LISTED_AGAIN: usize = 900;
/// Changes of a room that are kept until every worker has told them. More: a new list is sent instead.
pub const PRESENCE_LOG_MAX: usize = 1_024;
/// A room is kept so long after somebody last asked by `presence`, in milliseconds. One that was watched ends with its last
/// watcher.
pub const PRESENCE_LEASE_MS: u64 = 5_000;
/// Changes are gathered for so long before they are told, in milliseconds (C17: at most 1,000).
pub const PRESENCE_GATHER_MS: u64 = 250;
/// Watchers of one room that came to a worker since it last told the changes. More: it tells them at once.
pub const PRESENCE_FRESH_MAX: usize = 16;

/// Calls to the application under way for one connection (C37). More: `TOO_MANY`.
pub const CALLS_IN_FLIGHT_MAX: usize = 64;
/// Messages of one connection that are being stored for a queue, or pushed: they wait for this server, not for the
/// application. More: `TOO_MANY`.
pub const HANDED_OVER_MAX: usize = 256;
/// Calls under way for subscriptions that are decided again after a refresh or reload, in the whole process. More: they have
/// their turn when others have landed.
pub const RECHECKS_MAX: usize = 128;
/// Refreshes of one connection that are in force and not answered, because the application is still asked about its
/// subscriptions. More: `RATE_LIMITED`.
pub const REFRESHES_WAITING_MAX: usize = 8;
/// Bytes of the application's answer to a rule. More: no answer, hence a refusal.
pub const RULING_BYTES_MAX: usize = 64 * 1024;
/// Messages of one connection that wait for the application, or behind one that does, on the same pipe. More: `TOO_MANY`.
pub const MESSAGES_WAITING_MAX: usize = 64;
/// How often a message asks the application anew because identity, grants or rules have changed meanwhile. More: `UNAVAILABLE`.
pub const ASKED_AGAIN_MAX: u8 = 3;
/// Answers of the application that one connection remembers. More: the oldest is forgotten.
pub const ANSWERS_KEPT_MAX: usize = 64;
/// Rates of single pipes and actions that one connection uses at one time. More: `RATE_LIMITED`.
pub const ITEM_BUCKETS_MAX: usize = 1_024;
/// How much longer than the webhook's own time-out a handshake waits for its answer, in milliseconds. Later: 503.
pub const AUTHORIZE_SLACK_MS: u64 = 5_000;

/// Names of undefined events (of the process) or queues (of a worker) that the log has named within [`WARN_AGAIN_MS`]. More:
/// the next warning says how many were kept back.
pub const WARNED_NAMES_MAX: usize = 1_024;
/// Between two warnings about one such name, in milliseconds.
pub const WARN_AGAIN_MS: u64 = 60_000;
/// Undefined queues that a worker warns about in one second. More: they have their turn later, and are counted.
pub const QUEUES_WARNED_PER_S_MAX: u32 = 8;
/// Bytes that are kept of somebody who waits for the webhook's answer, beyond one message. Receiving stops with the first; these
/// were on their way. More: 413.
pub const EARLY_BYTES_MAX: usize = 64 * 1024;

/// Between our close frame and the end of the socket, in milliseconds, where the peer does not answer.
pub const CLOSE_WAIT_MS: u64 = 1_000;
/// A worker looks at its rings at least this often, in milliseconds, whatever the doorbell says.
pub const SWEEP_MS: u64 = 1_000;
/// A message may wait this long for its rate before it is refused, in milliseconds.
pub const SLOW_MS_MAX: u64 = 1_000;

const _: () = assert!(WORKERS_MAX < u64::BITS as usize, "interest is one bit per worker in one word, and one mark");
const _: () = assert!(RING_ENTRIES.is_power_of_two());
const _: () = assert!(PROXY_HEADER_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(HANDSHAKES_PENDING_PER_IP_MAX < HANDSHAKES_PENDING_MAX);
const _: () = assert!(GRANTS_LISTED_MAX <= GRANTS_MAX);
const _: () = assert!(PRESENCE_LISTED_AGAIN < PRESENCE_LISTED_MAX && PRESENCE_LISTED_MAX <= PRESENCE_LOG_MAX);
const _: () = assert!(PRESENCE_GATHER_MS <= 1_000);
const _: () = assert!(CALLS_IN_FLIGHT_MAX <= MESSAGES_WAITING_MAX);
