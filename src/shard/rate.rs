//! Rates: the generic cell rate algorithm, one word for each rate.
//!
//! A word holds the *theoretical arrival time*: when the bucket would be full again. A message of cost `n` conforms when
//! moving that time on by `n` intervals leaves it at most `burst` intervals ahead of now. It is a token bucket without
//! a refill: no timer, no division, nothing to sweep. Times are nanoseconds of the monotonic clock of the process.
//!
//! Source: ITU-T I.371, annex A (virtual scheduling form).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::Rate;

/// A rate as the algorithm needs it. Copied out of the configuration once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Nanoseconds that one unit refills in; at least 1.
    interval_ns: u64,
    /// How far ahead of now the arrival time may be: the whole burst.
    tolerance_ns: u64,
}

impl Pace {
    /// `rate.per_s` units a second with a burst of `rate.burst` (at least one unit).
    pub fn new(rate: Rate) -> Pace {
        let interval_ns = (1e9 / rate.per_s).clamp(1.0, 1e15);
        let tolerance_ns = (interval_ns * rate.burst.max(1.0)).min(9e18);
        Pace { interval_ns: interval_ns as u64, tolerance_ns: tolerance_ns as u64 }
    }

    /// One of `holders` equal parts of this rate, with the whole burst.
    #[must_use]
    pub fn shared_by(self, holders: u32) -> Pace {
        Pace { interval_ns: self.interval_ns.saturating_mul(u64::from(holders.max(1))), ..self }
    }

    /// The time in which so many units refill, in nanoseconds.
    pub fn refill_ns(self, units: u64) -> u64 {
        self.interval_ns.saturating_mul(units)
    }

    /// The arrival time after a message of this cost, or how long it must wait, in nanoseconds.
    fn advance(self, arrival_ns: u64, now_ns: u64, cost: u64) -> Result<u64, u64> {
        let next = arrival_ns.max(now_ns).saturating_add(self.interval_ns.saturating_mul(cost));
        let ahead = next - now_ns;
        if ahead <= self.tolerance_ns { Ok(next) } else { Err(ahead - self.tolerance_ns) }
    }
}

/// One bucket of one connection. Eight bytes; zero is a full bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket(u64);

impl Bucket {
    /// How long a message of this cost must wait, in nanoseconds; 0 when it conforms. Takes nothing.
    pub fn wait_ns(self, pace: Pace, now_ns: u64, cost: u64) -> u64 {
        pace.advance(self.0, now_ns, cost).err().unwrap_or(0)
    }

    /// Whether the bucket is not full at this time.
    pub fn owes(self, now_ns: u64) -> bool {
        self.0 > now_ns
    }

    /// Takes the cost, which `wait_ns` said conforms.
    pub fn take(&mut self, pace: Pace, now_ns: u64, cost: u64) {
        if let Ok(next) = pace.advance(self.0, now_ns, cost) {
            self.0 = next;
        }
    }
}

impl Bucket {
    /// Takes the cost whether it conforms or not: what comes next waits for it. The debt is at most one more burst.
    pub fn owe(&mut self, pace: Pace, now_ns: u64, cost: u64) {
        let next = self.0.max(now_ns).saturating_add(pace.interval_ns.saturating_mul(cost));
        self.0 = next.min(now_ns.saturating_add(pace.tolerance_ns.saturating_mul(2)));
    }
}

/// One bucket that several workers share: the sum over a person's connections, or the server's handshakes.
#[derive(Debug, Default)]
pub struct SharedBucket(AtomicU64);

impl SharedBucket {
    /// Whether the bucket is not full at this time.
    pub fn owes(&self, now_ns: u64) -> bool {
        self.0.load(Relaxed) > now_ns
    }

    /// How long a message of this cost would have to wait, in nanoseconds. Takes nothing.
    pub fn wait_ns(&self, pace: Pace, now_ns: u64, cost: u64) -> u64 {
        pace.advance(self.0.load(Relaxed), now_ns, cost).err().unwrap_or(0)
    }

    /// Takes the cost if it conforms, else says how long to wait, in nanoseconds. Lock-free.
    pub fn take(&self, pace: Pace, now_ns: u64, cost: u64) -> Result<(), u64> {
        let mut seen = self.0.load(Relaxed);
        loop {
            let next = pace.advance(seen, now_ns, cost)?;
            match self.0.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => seen = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(per_s: f64, burst: f64) -> Pace {
        Pace::new(Rate { per_s, burst })
    }

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_its_rate() {
        let pace = pace(10.0, 5.0);
        let mut bucket = Bucket::default();
        for _ in 0..5 {
            assert_eq!(bucket.wait_ns(pace, 1_000, 1), 0);
            bucket.take(pace, 1_000, 1);
        }
        assert_eq!(bucket.wait_ns(pace, 1_000, 1), 100_000_000, "a tenth of a second for the next");
        assert_eq!(bucket.wait_ns(pace, 100_001_000, 1), 0);
    }

    #[test]
    fn a_cost_over_the_burst_never_conforms() {
        let pace = pace(10.0, 5.0);
        assert!(Bucket::default().wait_ns(pace, 1 << 60, 6) > 0);
    }

    proptest! {
        /// Over any window the units let through never exceed burst + rate × time (GD-8).
        #[test]
        fn never_more_than_burst_and_rate(per_s in 1u32..1000, burst in 1u32..100,
                                          gaps in prop::collection::vec(0u64..50_000_000, 1..200)) {
            let pace = pace(per_s.into(), burst.into());
            let (mut bucket, shared) = (Bucket::default(), SharedBucket::default());
            let (mut now, mut passed) = (1u64, 0u64);
            for gap in gaps {
                now += gap;
                let conforms = bucket.wait_ns(pace, now, 1) == 0;
                prop_assert_eq!(conforms, shared.take(pace, now, 1).is_ok());
                if conforms {
                    bucket.take(pace, now, 1);
                    passed += 1;
                }
            }
            let most = f64::from(burst) + now as f64 / pace.refill_ns(1) as f64;
            prop_assert!(passed as f64 <= most + 1.0, "{} > {}", passed, most);
        }
    }
}
