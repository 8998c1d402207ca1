//! What stands on the wire, in both directions, and nothing else: bytes in, typed values out, and back.
//!
//! Everything here is PURE: no socket, clock, thread or randomness. Invariant: no byte of a peer can make anything in
//! this folder panic or allocate more than a fixed multiple of what was received.
//!
//! Reading order: [`codes`] (what we may answer) · [`names`] (pipes, events, patterns) · [`handshake`] and [`peer`]
//! (how a connection begins, and whose it is) · [`frame`] (RFC 6455) · [`message`] (client → server) · [`encode`]
//! (server → client).

pub mod codes;
pub mod encode;
pub mod frame;
pub mod handshake;
mod json;
pub mod message;
pub mod names;
pub mod peer;

#[doc(hidden)]
pub mod fuzz;
#[doc(hidden)]
pub mod message_fuzz;
