//! What a worker counts, in plain memory: nobody else writes it, and a reader asks the worker.
//!
//! One table. Whatever is refused, dropped, closed or full moves a counter here.

use std::fmt;

use crate::protocol::codes::{CloseCode, Code};

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// The plain counters; all start at 0 and only grow.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $name: u64,)+
            refused: Vec<u64>,
            denied: Vec<u64>,
            closed: Vec<u64>,
        }

        impl Counters {
            /// Name and value of every plain counter.
            pub fn plain(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Sockets that were accepted.
    accepted,
    /// Handshakes that ended in a welcome.
    welcomed,
    /// Handshakes that ended without a word, or too late.
    handshakes_abandoned,
    /// Handshakes closed to make room for others.
    handshakes_evicted,
    /// Messages received.
    messages_in,
    /// Bytes of messages received.
    message_bytes_in,
    /// Messages that could not be read.
    malformed,
    /// Events that clients published.
    events_in,
    /// Events taken from other workers.
    events_from_workers,
    /// Events pushed to other workers, once for each.
    events_to_workers,
    /// Events queued for a subscriber.
    events_out,
    /// Events left out for connections that were too slow.
    events_dropped,
    /// Presence frames queued for a watcher.
    presence_out,
    /// Messages that waited until it was known who is in a pipe.
    presence_waits,
    /// Publishes that waited for room in a ring.
    ring_full,
    /// Messages that waited for their rate.
    slowed,
    /// Times that a client was told `throttled`.
    throttled,
    /// Pings sent.
    pings,
    /// Inputs for a connection that had ended.
    stale,
    /// Connections closed because the worker's queues or unfinished messages were over their budget.
    over_budget,
    /// Calls for the application that left: authorize, rules, actions, messages of queues, pushes.
    calls,
    /// Messages that waited for the application.
    set_aside,
    /// Rules of the application that had no usable answer.
    answers_failed,
    /// Rules that failed: an error, or no boolean. Each refused.
    rule_faults,
    /// Filters that failed for an event and a subscriber. Each left the event out.
    filter_faults,
    /// Handshakes and refreshes that failed because the webhook could not be asked, or answered something else.
    authorize_faults,
    /// Writes handed to the kernel.
    writes,
    /// Bytes handed to the kernel.
    bytes_out,
}

impl Counters {
    /// A handshake was refused.
    pub fn refuse(&mut self, code: Code) {
        count(&mut self.refused, code as usize);
    }

    /// A message was answered with this code, or would have been if it had an `id`.
    pub fn deny(&mut self, code: Code) {
        count(&mut self.denied, code as usize);
    }

    /// A connection was closed by us.
    pub fn close(&mut self, code: CloseCode) {
        let place = CloseCode::ALL.iter().position(|one| *one == code).unwrap_or_default();
        count(&mut self.closed, place);
    }

    /// How many handshakes were refused with this code.
    pub fn refused(&self, code: Code) -> u64 {
        self.refused.get(code as usize).copied().unwrap_or_default()
    }

    /// How many messages were denied with this code.
    pub fn denied(&self, code: Code) -> u64 {
        self.denied.get(code as usize).copied().unwrap_or_default()
    }

    /// How many connections were closed with this code.
    pub fn closed(&self, code: CloseCode) -> u64 {
        let place = CloseCode::ALL.iter().position(|one| *one == code).unwrap_or_default();
        self.closed.get(place).copied().unwrap_or_default()
    }
}

/// `name=value` of all that is not 0.
impl fmt::Display for Counters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.plain().into_iter().filter(|(_, value)| *value > 0) {
            write!(out, "{name}={value} ")?;
        }
        for code in Code::ALL {
            for (what, value) in [("refused", self.refused(*code)), ("denied", self.denied(*code))] {
                if value > 0 {
                    write!(out, "{what}[{}]={value} ", code.name())?;
                }
            }
        }
        for code in CloseCode::ALL {
            if self.closed(*code) > 0 {
                write!(out, "closed[{}]={} ", code.number(), self.closed(*code))?;
            }
        }
        Ok(())
    }
}

fn count(counts: &mut Vec<u64>, place: usize) {
    if counts.len() <= place {
        counts.resize(place + 1, 0);
    }
    counts[place] += 1;
}
