//! The time, as the core wants it: asked for once a tick.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::shard::input::Now;

/// Both clocks of the process. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// Begins now.
    pub fn start() -> Clock {
        Clock { began: Instant::now() }
    }

    /// The time since the beginning (at least 1 ns) and the calendar's.
    pub fn now(self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mono_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        Now { mono_ns, unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
    }
}
