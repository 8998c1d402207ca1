//! Everything that can happen to a worker.

use std::sync::Arc;

use super::call::Outcome;
use super::connection::Handle;
use super::shared::Settings;

/// The time, given with every input. Both clocks, because deadlines must not jump and tokens speak of calendar time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, nanoseconds since the process began; never 0.
    pub mono_ns: u64,
    /// Calendar time, Unix milliseconds.
    pub unix_ms: u64,
}

impl Now {
    /// Monotonic, milliseconds.
    pub fn ms(self) -> u64 {
        self.mono_ns / 1_000_000
    }
}

/// One thing that happened. A new socket is the one that is missing here: it answers with a handle, see
/// [`super::Shard::accept`].
pub enum Input<'a> {
    /// Bytes came from a peer. They are unmasked in place.
    Received {
        /// Which.
        connection: Handle,
        /// What came, of any length.
        bytes: &'a mut [u8],
    },
    /// The peer has ended its side of the stream, or the socket failed.
    Ended {
        /// Which.
        connection: Handle,
    },
    /// The write that [`super::Shard::next_write`] gave is done.
    Sent {
        /// Which.
        connection: Handle,
        /// False: the socket failed.
        ok: bool,
    },
    /// A call could not be handed on, and this is its outcome.
    Answered {
        /// For which.
        connection: Handle,
        /// Number of the call.
        number: u32,
        /// What came of it.
        outcome: Box<Outcome>,
    },
    /// Look into the rings of the mesh, and at whoever waits for room in one.
    Rings,
    /// The deadline has come.
    Time,
    /// The process was asked to stop: let everybody go over the configured time.
    Drain,
    /// The configuration was read again.
    Reload(Arc<Settings>),
}
