//! Exact counting: what each subscriber of each pipe received, in which order, how often, and what it never got.
//!
//! A *lane* is one (subscriber, pipe) pair; a pipe of a run has one publisher, whose publishes are numbered from 0. A
//! lane in order costs four bytes: the number expected next. Only where something was skipped are numbers kept.

use std::collections::{BTreeSet, HashMap};

/// Skipped numbers that are kept, over all lanes. Beyond it, skipped is lost at once and the counts are not exact.
const SKIPPED_MAX: usize = 1 << 20;

/// What was wrong, summed over all lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Numbers that never came.
    pub lost: u64,
    /// Numbers that came more than once.
    pub duplicated: u64,
    /// Numbers that came after a higher one.
    pub disordered: u64,
    /// Events that this subscriber should not have got at all.
    pub unexpected: u64,
    /// More was skipped than could be kept: `lost` and `duplicated` are approximate.
    pub inexact: bool,
}

/// All lanes of a run.
pub struct Lanes {
    expected: Vec<u32>,
    skipped: HashMap<u32, BTreeSet<u32>>,
    skipped_total: usize,
    faults: Faults,
}

impl Lanes {
    /// So many lanes, each expecting 0.
    pub fn new(lanes: usize) -> Self {
        Self { expected: vec![0; lanes], skipped: HashMap::new(), skipped_total: 0, faults: Faults::default() }
    }

    /// Takes note of an event; true if the lane has it for the first time. `sent` is how many were published.
    #[inline]
    pub fn accept(&mut self, lane: usize, sequence: u32, sent: u32) -> bool {
        let expected = &mut self.expected[lane];
        if sequence == *expected && sequence < sent {
            *expected += 1;
            return true;
        }
        self.irregular(lane, sequence, sent)
    }

    /// Takes note of an event that no lane expects.
    pub fn unexpected(&mut self) {
        self.faults.unexpected += 1;
    }

    /// The faults so far, where lane `i` should have had `sent(i)` events by now.
    pub fn faults(&self, sent: impl Fn(usize) -> u32) -> Faults {
        let missing = |(lane, expected): (usize, &u32)| u64::from(sent(lane).saturating_sub(*expected));
        let tail: u64 = self.expected.iter().enumerate().map(missing).sum();
        Faults { lost: self.faults.lost + self.skipped_total as u64 + tail, ..self.faults }
    }

    #[cold]
    fn irregular(&mut self, lane: usize, sequence: u32, sent: u32) -> bool {
        let expected = self.expected[lane];
        if sequence >= sent {
            self.faults.unexpected += 1;
            return false;
        }
        if sequence > expected {
            self.skip(lane as u32, expected..sequence);
            self.expected[lane] = sequence + 1;
            return true;
        }
        let late = self.skipped.get_mut(&(lane as u32)).is_some_and(|skipped| skipped.remove(&sequence));
        if late {
            self.skipped_total -= 1;
            self.faults.disordered += 1;
        } else {
            self.faults.duplicated += 1;
        }
        late
    }

    fn skip(&mut self, lane: u32, range: std::ops::Range<u32>) {
        let kept = range.len().min(SKIPPED_MAX - self.skipped_total);
        self.faults.lost += (range.len() - kept) as u64;
        self.faults.inexact |= kept < range.len();
        self.skipped_total += kept;
        self.skipped.entry(lane).or_default().extend(range.take(kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequences: &[u32], sent: u32) -> Faults {
        let mut lanes = Lanes::new(1);
        for sequence in sequences {
            lanes.accept(0, *sequence, sent);
        }
        lanes.faults(|_| sent)
    }

    #[test]
    fn a_lane_in_order_has_no_faults() {
        assert_eq!(run(&[0, 1, 2], 3), Faults::default());
    }

    #[test]
    fn losses_at_the_end_and_in_the_middle_are_told_from_late_ones() {
        assert_eq!(run(&[0, 1], 4), Faults { lost: 2, ..Faults::default() });
        assert_eq!(run(&[0, 3], 4), Faults { lost: 2, ..Faults::default() });
        assert_eq!(run(&[0, 2, 3, 1], 4), Faults { disordered: 1, ..Faults::default() });
        assert_eq!(run(&[1, 0], 3), Faults { disordered: 1, lost: 1, ..Faults::default() });
    }

    #[test]
    fn duplicates_and_inventions_are_counted_and_do_not_count_as_deliveries() {
        assert_eq!(run(&[0, 0, 1], 2), Faults { duplicated: 1, ..Faults::default() });
        assert_eq!(run(&[1, 0, 0], 2), Faults { duplicated: 1, disordered: 1, ..Faults::default() });
        assert_eq!(run(&[0, 7], 1), Faults { unexpected: 1, ..Faults::default() });
        let mut lanes = Lanes::new(1);
        assert!(lanes.accept(0, 0, 1));
        assert!(!lanes.accept(0, 0, 1));
        assert!(!lanes.accept(0, 1, 1));
    }

    #[test]
    fn lanes_do_not_mix() {
        let mut lanes = Lanes::new(2);
        lanes.accept(0, 1, 2);
        lanes.accept(1, 0, 1);
        assert_eq!(lanes.faults(|lane| [2, 1][lane]), Faults { lost: 1, ..Faults::default() });
    }

    #[test]
    fn a_gap_beyond_the_bound_is_lost_and_said_to_be_inexact() {
        let sent = SKIPPED_MAX as u32 + 11;
        let faults = run(&[sent - 1], sent);
        assert_eq!((faults.lost, faults.inexact), (u64::from(sent) - 1, true));
    }
}
