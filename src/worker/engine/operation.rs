//! The word that a completion of io_uring carries: which operation, of which socket.
//!
//! Invariant: slot and generation travel whole, so that a completion for a slot used again finds nothing (INVARIANTS 2).
//! From the lowest bit: slot (28), generation (32), operation (3).

use super::slots::{Key, SLOTS_MAX};

/// What a completion is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Operation {
    Receive,
    Send,
    Cancel,
    CancelAll,
    Bell,
}

const SLOT_BITS: u32 = SLOTS_MAX.trailing_zeros();
const OPERATION_SHIFT: u32 = SLOT_BITS + u32::BITS;
const _: () = assert!(SLOTS_MAX.is_power_of_two() && OPERATION_SHIFT + 3 <= u64::BITS);

pub(super) fn pack(operation: Operation, key: Key) -> u64 {
    (operation as u64) << OPERATION_SHIFT | u64::from(key.generation) << SLOT_BITS | u64::from(key.slot)
}

pub(super) fn unpack(word: u64) -> (Option<Operation>, Key) {
    let all = [Operation::Receive, Operation::Send, Operation::Cancel, Operation::CancelAll, Operation::Bell];
    let slot = (word & (SLOTS_MAX as u64 - 1)) as u32;
    let generation = (word >> SLOT_BITS) as u32;
    (all.get((word >> OPERATION_SHIFT) as usize).copied(), Key { slot, generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    // INVARIANTS 2
    #[test]
    fn slot_generation_and_operation_travel_whole() {
        let key = Key { slot: SLOTS_MAX as u32 - 1, generation: u32::MAX - 5 };
        for operation in [Operation::Receive, Operation::Send, Operation::Cancel, Operation::CancelAll, Operation::Bell]
        {
            assert_eq!(unpack(pack(operation, key)), (Some(operation), key));
        }
        assert_eq!(unpack(u64::MAX).0, None);
    }
}
