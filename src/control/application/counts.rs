//! What calls to the application came to, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// The authorize webhook.
    Authorize,
    /// A guard or a rule.
    Rule,
    /// An action.
    Action,
    /// The taker of a queue.
    Queue,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It took too long, in the line or after it was made.
    Late,
    /// The line was full.
    Overloaded,
    /// The application was not to be reached, hung up, or answered 5xx.
    Unavailable,
    /// It answered what is not an answer.
    Malformed,
}

/// Upper bounds of the times that are told apart, milliseconds.
pub const BOUNDS_MS: [u64; 10] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000];

impl Called {
    /// All of them.
    pub const ALL: [Called; 4] = [Called::Authorize, Called::Rule, Called::Action, Called::Queue];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Called::Authorize => "authorize",
            Called::Rule => "rule",
            Called::Action => "action",
            Called::Queue => "queue",
        }
    }
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 4] = [Fault::Late, Fault::Overloaded, Fault::Unavailable, Fault::Malformed];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Late => "late",
            Fault::Overloaded => "overloaded",
            Fault::Unavailable => "unavailable",
            Fault::Malformed => "malformed",
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub struct Counts {
    kinds: [OfOne; Called::ALL.len()],
}

#[derive(Debug, Default)]
struct OfOne {
    asked: AtomicU64,
    in_flight: AtomicU64,
    faults: [AtomicU64; Fault::ALL.len()],
    times: [AtomicU64; BOUNDS_MS.len() + 1],
    time_us: AtomicU64,
}

/// The counters of one kind as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Calls that were wanted, those that failed in the line included.
    pub asked: u64,
    /// Calls that are being answered.
    pub in_flight: u64,
    /// In the order of [`Fault::ALL`].
    pub faults: [u64; Fault::ALL.len()],
    /// Calls that were made and took at most the bound at the same place and longer than the one before; the last: longer.
    pub times: [u64; BOUNDS_MS.len() + 1],
    /// All of them together, microseconds.
    pub time_us: u64,
}

/// A call that is being made. When it is dropped, it is over.
pub struct UnderWay<'c> {
    own: &'c OfOne,
    began: std::time::Instant,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.own.in_flight.fetch_sub(1, Relaxed);
        let took = self.began.elapsed();
        let place = BOUNDS_MS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.own.times[place.unwrap_or(BOUNDS_MS.len())].fetch_add(1, Relaxed);
        self.own.time_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Counts {
    /// A call is wanted.
    pub fn asked(&self, called: Called) {
        self.kinds[called as usize].asked.fetch_add(1, Relaxed);
    }

    /// A call is made.
    pub fn begin(&self, called: Called) -> UnderWay<'_> {
        let own = &self.kinds[called as usize];
        own.in_flight.fetch_add(1, Relaxed);
        UnderWay { own, began: std::time::Instant::now() }
    }

    /// A call failed.
    pub fn failed(&self, called: Called, fault: Fault) {
        self.kinds[called as usize].faults[fault as usize].fetch_add(1, Relaxed);
    }

    /// As they are now, in the order of [`Called::ALL`].
    pub fn numbers(&self) -> [Numbers; Called::ALL.len()] {
        std::array::from_fn(|kind| {
            let own = &self.kinds[kind];
            Numbers {
                asked: own.asked.load(Relaxed),
                in_flight: own.in_flight.load(Relaxed),
                faults: std::array::from_fn(|place| own.faults[place].load(Relaxed)),
                times: std::array::from_fn(|place| own.times[place].load(Relaxed)),
                time_us: own.time_us.load(Relaxed),
            }
        })
    }
}
