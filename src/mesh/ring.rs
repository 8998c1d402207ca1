//! A bounded queue from one thread to one other, without a lock.
//!
//! Invariant: the slots from `head` to `tail` are initialised and belong to the consumer, the others belong to the
//! producer. Only the producer writes `tail`, only the consumer writes `head`; both count up for ever and wrap with
//! `usize`, and a slot is the index modulo the capacity.
//!
//! Why: with one writer for each index no operation needs a compare-and-swap, and free room never shrinks under the
//! producer (INVARIANTS 13). Each side keeps a copy of the other's index and reads the shared one only when the copy
//! says that nothing can be done; so a cache line moves about once a batch and not once an entry.
//!
//! A producer that finds no room raises `producer_waits`, and the consumer tells it when room appears. Both sides first
//! write, then pass a SeqCst fence, then read what the other wrote: at least one sees the other (the pattern of
//! Dekker's lock), so the two cannot miss each other. Loom tries this in `tests/loom.rs`.
//!
//! This is the only file of the mesh that holds unsafe code.

use super::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell, fence};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;

/// Makes a ring of `capacity` entries.
///
/// # Panics
/// When `capacity` is not a power of two: a mistake of the caller.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    ring_from(capacity, 0)
}

/// The sending end. Entries are staged by [`push`](Self::push) and become visible together by
/// [`publish`](Self::publish). Dropping it publishes what is staged.
pub struct Producer<T: Send> {
    shared: Arc<Shared<T>>,
    /// Where the next entry goes; staged entries lie between `published` and here.
    tail: usize,
    published: usize,
    /// Copy of the consumer's index, never ahead of it.
    head: usize,
}

/// The receiving end.
pub struct Consumer<T: Send> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// Copy of the producer's index, never ahead of it.
    tail: usize,
}

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Index of the next entry to be taken. Written by the consumer.
    head: CachePadded<AtomicUsize>,
    /// Index behind the last visible entry. Written by the producer.
    tail: CachePadded<AtomicUsize>,
    /// Raised by the producer, lowered by whichever side sees that the wait is over.
    producer_waits: CachePadded<AtomicBool>,
}

// SAFETY: a slot is touched by one side at a time, the producer before it stores `tail` (Release) and the consumer
// after it loaded it (Acquire), and the reverse by `head`; so entries only move from one thread to the other, for
// which `T: Send` is enough. There is one `Producer` and one `Consumer`, neither can be cloned, and both act through
// `&mut self`.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T: Send> Producer<T> {
    /// Entries that fit now, staged ones already counted off. Reads the consumer's index.
    pub fn free(&mut self) -> usize {
        self.head = self.shared.head.load(Ordering::Acquire);
        self.shared.slots.len() - self.tail.wrapping_sub(self.head)
    }

    /// Whether one more entry fits. Reads the consumer's index only where the copy of it says no.
    pub fn has_room(&mut self) -> bool {
        self.tail.wrapping_sub(self.head) < self.shared.slots.len() || self.free() > 0
    }

    /// Stages `entry`, or gives it back when there is no room.
    pub fn push(&mut self, entry: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(entry);
        }
        let slot = &self.shared.slots[self.tail & (self.shared.slots.len() - 1)];
        // SAFETY: there is room, so this slot is not between `head` and `tail`: the consumer has moved out of it
        // (the Acquire load of `head` orders that before this write) and does not look at it before `tail` is stored.
        slot.with_mut(|place| unsafe { (*place).write(entry) });
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Makes the staged entries visible. Does not wake anybody; whoever rings a doorbell afterwards fences first.
    pub fn publish(&mut self) {
        if self.published != self.tail {
            self.shared.tail.store(self.tail, Ordering::Release);
            self.published = self.tail;
        }
    }

    /// Raises `producer_waits` and looks for room once more. True: there is room, the flag is lowered, do not wait.
    /// False: the consumer will find the flag raised after it has freed a slot. May be called again at any time.
    /// Staged entries must be published before the producer really waits, else there may be nothing to be freed.
    pub fn wait_for_room(&mut self) -> bool {
        // A swap for the reason given in `Doorbell::arm`.
        self.shared.producer_waits.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        let room = self.free() > 0;
        if room {
            self.stop_waiting();
        }
        room
    }

    /// Lowers `producer_waits`. The consumer may still ring once.
    pub fn stop_waiting(&mut self) {
        self.shared.producer_waits.swap(false, Ordering::AcqRel);
    }

    /// Entries in the ring, staged ones included.
    pub fn depth(&mut self) -> usize {
        self.shared.slots.len() - self.free()
    }
}

impl<T: Send> Drop for Producer<T> {
    fn drop(&mut self) {
        self.publish();
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest visible entry and frees its slot.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail && self.is_empty() {
            return None;
        }
        let slot = &self.shared.slots[self.head & (self.shared.slots.len() - 1)];
        // SAFETY: the slot lies between `head` and `tail`, so the producer wrote it before the `tail` that was loaded
        // here (Acquire) and leaves it alone until `head` has passed it. It is moved out once: `head` moves on below.
        let entry = slot.with_mut(|place| unsafe { (*place).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(entry)
    }

    /// Whether no entry is visible. Reads the producer's index.
    pub fn is_empty(&mut self) -> bool {
        self.depth() == 0
    }

    /// Entries that are visible. Reads the producer's index.
    pub fn depth(&mut self) -> usize {
        self.tail = self.shared.tail.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head)
    }

    /// To be asked after slots were freed: whether the producer waits and must be rung. Lowers the flag. Fences.
    pub fn take_waiting(&mut self) -> bool {
        fence(Ordering::SeqCst);
        self.take_waiting_fenced()
    }

    /// The same for a caller that has passed a SeqCst fence since it freed the last slot.
    pub fn take_waiting_fenced(&mut self) -> bool {
        let waits = &self.shared.producer_waits;
        waits.load(Ordering::Relaxed) && waits.swap(false, Ordering::AcqRel)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (mut head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        while head != tail {
            let slot = &self.slots[head & (self.slots.len() - 1)];
            // SAFETY: both ends are gone (this is `&mut self` behind their `Arc`), and the slots from `head` to `tail`
            // are initialised and were not moved out.
            slot.with_mut(|place| unsafe { (*place).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

fn ring_from<T: Send>(capacity: usize, first: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two");
    let shared = Arc::new(Shared {
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        head: CachePadded::new(AtomicUsize::new(first)),
        tail: CachePadded::new(AtomicUsize::new(first)),
        producer_waits: CachePadded::new(AtomicBool::new(false)),
    });
    let producer = Producer { shared: shared.clone(), tail: first, published: first, head: first };
    (producer, Consumer { shared, head: first, tail: first })
}

#[cfg(all(test, not(pipeward_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::VecDeque, sync::Arc as StdArc};

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Push,
        Publish,
        Pop,
        Wait,
        Take,
    }

    proptest! {
        /// The ring against two plain queues, with indices that wrap soon.
        #[test]
        fn behaves_as_two_queues(
            acts in prop::collection::vec(
                prop_oneof![
                    4 => Just(Act::Push), 2 => Just(Act::Publish), 3 => Just(Act::Pop), 1 => Just(Act::Wait),
                    1 => Just(Act::Take)
                ],
                0..200,
            ),
            capacity_log2 in 0u32..4,
            before_wrap in 0usize..20,
        ) {
            let capacity = 1usize << capacity_log2;
            let (mut producer, mut consumer) = ring_from(capacity, 0usize.wrapping_sub(before_wrap));
            let (mut staged, mut visible) = (VecDeque::new(), VecDeque::new());
            let mut waits = false;
            for (number, act) in acts.into_iter().enumerate() {
                let full = staged.len() + visible.len() == capacity;
                match act {
                    Act::Push => {
                        prop_assert_eq!(producer.push(Box::new(number)).is_err(), full);
                        if !full {
                            staged.push_back(number);
                        }
                    }
                    Act::Publish => {
                        producer.publish();
                        visible.append(&mut staged);
                    }
                    Act::Pop => prop_assert_eq!(consumer.pop().map(|entry| *entry), visible.pop_front()),
                    Act::Wait => {
                        prop_assert_eq!(producer.wait_for_room(), !full);
                        waits = full;
                    }
                    Act::Take => prop_assert_eq!(consumer.take_waiting(), std::mem::take(&mut waits)),
                }
                prop_assert_eq!(producer.free(), capacity - staged.len() - visible.len());
                prop_assert_eq!(producer.depth(), staged.len() + visible.len());
                prop_assert_eq!(consumer.depth(), visible.len());
            }
        }
    }

    #[test]
    fn frees_what_was_never_taken() {
        let witness = StdArc::new(());
        let (mut producer, mut consumer) = ring(4);
        for _ in 0..4 {
            assert!(producer.push(witness.clone()).is_ok());
        }
        assert!(consumer.pop().is_none(), "staged entries are not visible");
        producer.publish();
        drop(consumer.pop());
        assert!(producer.push(witness.clone()).is_ok());
        assert!(producer.push(witness.clone()).is_err());
        assert_eq!(StdArc::strong_count(&witness), 5);
        drop(consumer);
        assert_eq!(StdArc::strong_count(&witness), 5);
        drop(producer);
        assert_eq!(StdArc::strong_count(&witness), 1, "published and staged entries are freed once");
    }

    #[test]
    #[should_panic(expected = "power of two")]
    fn refuses_an_odd_capacity() {
        ring::<u8>(3);
    }
}
