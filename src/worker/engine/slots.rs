//! The table of sockets: 24 bytes each, found by a [`Key`] that goes stale when its slot is freed (INVARIANTS 2).
//!
//! Invariant: a slot is occupied exactly while it holds a descriptor, and its generation grows whenever it is freed. So
//! a key, or a completion carrying one, finds the socket that it was made for or nothing. A free slot's `user` word is
//! the link to the next free one: freed last, used first, which makes stale keys show early in tests.

use std::io;
use std::os::fd::OwnedFd;

/// Sockets in one engine. More: `add` fails with `StorageFull`, the socket is closed. 28 bits, so that slot, generation
/// and operation fit the one word that a completion carries.
pub const SLOTS_MAX: usize = 1 << 28;

/// Names one socket of one engine, for ever: never reused for another (up to 2³² reuses of its slot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// No outgoing buffer.
pub(super) const NOT_SENDING: u32 = u32::MAX;
const END: u64 = u64::MAX;

/// One socket.
pub(super) struct Slot {
    /// The caller's word.
    pub(super) user: u64,
    pub(super) fd: Option<OwnedFd>,
    pub(super) generation: u32,
    /// Index of the buffer in flight, or [`NOT_SENDING`].
    pub(super) sending: u32,
    /// What goes on; the bits belong to the implementation.
    pub(super) state: u16,
}

const _: () = assert!(size_of::<Slot>() <= 32, "an idle connection costs the engine this much and nothing else");

impl Slot {
    pub(super) fn is(&self, bits: u16) -> bool {
        self.state & bits != 0
    }

    pub(super) fn set(&mut self, bits: u16, on: bool) {
        if on {
            self.state |= bits;
        } else {
            self.state &= !bits;
        }
    }
}

pub(super) struct Slots {
    slots: Vec<Slot>,
    free: u64,
    occupied: usize,
}

impl Slots {
    pub(super) fn new() -> Slots {
        Slots { slots: Vec::new(), free: END, occupied: 0 }
    }

    pub(super) fn occupied(&self) -> usize {
        self.occupied
    }

    pub(super) fn insert(&mut self, fd: OwnedFd, user: u64, state: u16) -> io::Result<Key> {
        let slot = if self.free == END {
            if self.slots.len() >= SLOTS_MAX {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.slots.push(Slot { user, fd: Some(fd), generation: 0, sending: NOT_SENDING, state });
            self.slots.len() - 1
        } else {
            let index = self.free as usize;
            let slot = &mut self.slots[index];
            self.free = slot.user;
            (slot.user, slot.fd, slot.sending, slot.state) = (user, Some(fd), NOT_SENDING, state);
            index
        };
        self.occupied += 1;
        Ok(Key { slot: slot as u32, generation: self.slots[slot].generation })
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation && slot.fd.is_some()).then_some(slot)
    }

    /// Frees the slot and returns its descriptor, which closes when dropped.
    pub(super) fn remove(&mut self, key: Key) -> Option<OwnedFd> {
        let free = self.free;
        let slot = self.get(key)?;
        let fd = slot.fd.take();
        slot.user = free;
        slot.generation = slot.generation.wrapping_add(1);
        self.free = u64::from(key.slot);
        self.occupied -= 1;
        fd
    }

    /// Keys of all sockets.
    pub(super) fn keys(&self) -> Vec<Key> {
        let numbered = self.slots.iter().enumerate().filter(|(_, slot)| slot.fd.is_some());
        numbered.map(|(slot, it)| Key { slot: slot as u32, generation: it.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn descriptor() -> OwnedFd {
        File::open("/dev/null").expect("/dev/null").into()
    }

    // INVARIANTS 2
    #[test]
    fn a_key_of_a_freed_slot_finds_nothing() {
        let mut slots = Slots::new();
        let first = slots.insert(descriptor(), 7, 0).unwrap();
        let other = slots.insert(descriptor(), 8, 0).unwrap();
        assert!(slots.remove(first).is_some());
        assert!(slots.get(first).is_none() && slots.remove(first).is_none());
        let second = slots.insert(descriptor(), 9, 0).unwrap();
        assert_eq!(second.slot, first.slot, "freed last, used first");
        assert_ne!(second, first);
        assert!(slots.get(first).is_none());
        assert_eq!(slots.get(second).map(|slot| slot.user), Some(9));
        assert_eq!(slots.get(other).map(|slot| slot.user), Some(8));
        assert_eq!(slots.occupied(), 2);
        assert_eq!(slots.keys(), [second, other]);
    }
}
