//! Whose turn it is to be written to.
//!
//! A socket write takes microseconds, deciding about a message less than one. So an event for a hundred subscribers holds
//! up everybody who comes after it, and by more than all of their own work. Connections with something for them alone
//! (a reply, an event of a small pipe) therefore go before those that an event for many has reached, and while there are
//! such connections slices are small: between two of them the worker hears what has come meanwhile.
//!
//! Neither starves: in every slice both have their share, whatever the other has waiting; the many a larger one, for
//! a storm of reconnects is a storm of replies. The order of one connection's
//! frames is its queue's and not touched by this.

use std::collections::VecDeque;

use crate::bounds::{WRITES_AMONG_OTHERS, WRITES_PER_SLICE};

/// Subscribers of one worker from which on an event is one for many.
pub(super) const MANY: usize = 32;
/// Slices for which the many are written to in small ones after somebody else was written to.
const AMONG_OTHERS_SLICES: u8 = 64;

const _: () = assert!(MANY <= WRITES_AMONG_OTHERS && WRITES_AMONG_OTHERS < WRITES_PER_SLICE);

/// Connections with something to write, each once, in the order in which that began.
#[derive(Default)]
pub(super) struct Turns {
    few: VecDeque<u32>,
    many: VecDeque<u32>,
    /// A slice has begun, and so much is left of it for either.
    in_slice: bool,
    few_left: usize,
    many_left: usize,
    /// Slices that will still be small.
    among_others: u8,
}

impl Turns {
    /// Somebody has something to write for it alone.
    pub fn add(&mut self, slot: u32) {
        self.few.push_back(slot);
    }

    /// Somebody has something to write that many have, or more than one write's worth.
    pub fn add_to_many(&mut self, slot: u32) {
        self.many.push_back(slot);
    }

    /// Nobody has.
    pub fn is_empty(&self) -> bool {
        self.few.is_empty() && self.many.is_empty()
    }

    fn begin_slice(&mut self) {
        self.in_slice = true;
        let small = self.among_others > 0 || !self.few.is_empty();
        self.among_others = self.among_others.saturating_sub(1);
        self.many_left = if small { WRITES_AMONG_OTHERS } else { WRITES_PER_SLICE };
        self.few_left = if self.many.is_empty() { WRITES_AMONG_OTHERS } else { WRITES_AMONG_OTHERS / 2 };
    }

    /// Who is next; None: nobody, or the slice is over, and another one begins with the next call.
    pub fn next(&mut self) -> Option<u32> {
        if !self.in_slice {
            self.begin_slice();
        }
        let next = self.next_of_slice();
        self.in_slice = next.is_some();
        next
    }

    fn next_of_slice(&mut self) -> Option<u32> {
        if self.few_left > 0
            && let Some(slot) = self.few.pop_front()
        {
            self.few_left -= 1;
            self.among_others = AMONG_OTHERS_SLICES;
            return Some(slot);
        }
        self.many_left = self.many_left.checked_sub(1)?;
        self.many.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(turns: &mut Turns) -> Vec<u32> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn the_many_alone_have_whole_slices() {
        let mut turns = Turns::default();
        (0..300).for_each(|slot| turns.add_to_many(slot));
        assert_eq!(slice(&mut turns).len(), WRITES_PER_SLICE);
        assert_eq!(slice(&mut turns), (256..300).collect::<Vec<_>>());
        assert!(turns.is_empty() && slice(&mut turns).is_empty());
    }

    #[test]
    fn who_has_something_of_its_own_goes_first_and_soon() {
        let mut turns = Turns::default();
        (0..300).for_each(|slot| turns.add_to_many(slot));
        turns.add(1_000);
        let first = slice(&mut turns);
        assert_eq!((first.len(), first[0], first[1]), (1 + WRITES_AMONG_OTHERS, 1_000, 0));
        // It may come again: the slices stay small for a while, and then they are whole again.
        assert_eq!(slice(&mut turns).len(), WRITES_AMONG_OTHERS);
        let mut small = 2;
        while !turns.is_empty() {
            assert_eq!(slice(&mut turns).len().div_ceil(WRITES_AMONG_OTHERS), 1);
            small += 1;
        }
        (small..=usize::from(AMONG_OTHERS_SLICES)).for_each(|_| drop(slice(&mut turns)));
        (0..100).for_each(|slot| turns.add_to_many(slot));
        assert_eq!(slice(&mut turns).len(), 100);
    }

    #[test]
    fn neither_starves_beside_the_other() {
        let mut turns = Turns::default();
        (0..2_000).for_each(|slot| turns.add(slot));
        (2_000..2_100).for_each(|slot| turns.add_to_many(slot));
        let first = slice(&mut turns);
        let many = first.iter().filter(|slot| **slot >= 2_000).count();
        assert_eq!((first.len() - many, many), (WRITES_AMONG_OTHERS / 2, WRITES_AMONG_OTHERS));
    }
}
