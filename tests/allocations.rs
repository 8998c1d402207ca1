//! A delivered event allocates nothing: however many receive it, accepting, queueing and gathering it costs the same few
//! allocations, those of the event itself.
//!
//! Method: the pure core alone, with an allocator that counts the calls of this thread. What the kernel needs for a
//! write is not ours; that the shell adds nothing is seen in `loadtest idle` and in the worker's own pools.

#[path = "../benches/rig/mod.rs"]
mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pipeward::shard::Shard;
use pipeward::shard::connection::Handle;
use pipeward::shard::input::{Input, Now};

use rig::{audience, drain, publish};

/// Counts what this thread asks for; tests run in parallel.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Gone while the thread ends: nobody counts any more.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: everything is left to the system's allocator; counting touches no memory that it hands out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Publishes waiting for each subscriber before anything is written.
const WINDOWS: [usize; 3] = [1, 8, 32];
/// Turns that are counted. A pool that grew in one of them would show.
const TURNS: u64 = 50;

struct Core {
    shard: Shard,
    now: Now,
    publisher: Handle,
    frames: Vec<Vec<u8>>,
}

impl Core {
    /// An audience that has had some turns: tables have grown, pools are filled.
    fn warm(subscribers: usize, window: usize) -> Core {
        let (shard, now, publisher) = audience(subscribers);
        let mut core = Core { shard, now, publisher, frames: vec![publish(); window] };
        for _ in 0..4 {
            core.turn();
        }
        core
    }

    /// A window of publishes and every write that follows; the bytes of the writes.
    fn turn(&mut self) -> usize {
        let fresh = publish();
        for frame in &mut self.frames {
            frame.copy_from_slice(&fresh);
        }
        for frame in &mut self.frames {
            self.shard.handle(self.now, Input::Received { connection: self.publisher, bytes: frame });
        }
        drain(&mut self.shard, self.now)
    }

    /// Allocations of some turns, those of the test itself taken off.
    fn allocations(&mut self) -> u64 {
        let before = CALLS.get();
        for _ in 0..TURNS {
            self.turn();
        }
        let own = CALLS.get();
        drop(publish());
        let publish_itself = CALLS.get() - own;
        own - before - TURNS * publish_itself
    }
}

#[test]
fn the_allocator_counts() {
    let before = CALLS.get();
    drop(std::hint::black_box(Box::new(1u64)));
    assert_eq!(CALLS.get() - before, 1);
}

#[test]
fn a_delivery_allocates_nothing() {
    for window in WINDOWS {
        let few = Core::warm(1, window).allocations();
        for subscribers in [10, 100, 1_000] {
            let mut core = Core::warm(subscribers, window);
            let delivered = core.shard.counters().events_out;
            let many = core.allocations();
            let deliveries = core.shard.counters().events_out - delivered;
            assert_eq!(deliveries, TURNS * (window * subscribers) as u64, "everything was delivered");
            assert_eq!(many, few, "window {window}, {subscribers} subscribers: allocations of {deliveries} deliveries");
        }
    }
}

#[test]
fn an_event_itself_costs_a_few_allocations() {
    for window in WINDOWS {
        let events = TURNS * window as u64;
        let allocations = Core::warm(100, window).allocations();
        // The frame's bytes, its shared head, and for a window a share in the one run that all writes use.
        assert!(allocations <= 3 * events, "window {window}: {allocations} allocations for {events} events");
    }
}
