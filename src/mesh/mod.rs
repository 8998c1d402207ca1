//! How workers reach each other: one bounded single-producer ring for each ordered pair, one doorbell for each worker,
//! and the pipe objects that entries refer to.
//!
//! Invariants: nothing on a worker's message path takes a lock of another worker; an entry that was accepted is taken
//! exactly once, in the order sent; a participant that sleeps is rung when it has something to do (INVARIANTS 13, 14);
//! a name stands for one object as long as anybody, a ring entry included, refers to it (INVARIANTS 1).
//!
//! A *participant* is whoever owns a port: every worker, and a thread that is no worker if it has something to say to
//! them. Reading order: [`ring`], [`doorbell`], [`port`], [`registry`].

pub mod doorbell;
pub mod port;
pub mod registry;
pub mod ring;

pub use doorbell::{Bell, Doorbell};
pub use port::{Counters, Port, mesh};
pub use registry::{Full, Pipe, Registry};

/// The primitives that loom replaces in order to try every interleaving (`--cfg pipeward_loom`, `tests/loom.rs`).
mod sync {
    #[cfg(pipeward_loom)]
    pub use loom::{
        cell::UnsafeCell,
        sync::{
            Arc, Mutex, MutexGuard,
            atomic::{AtomicBool, AtomicU64, AtomicUsize, fence},
        },
    };
    pub use std::sync::atomic::Ordering;
    #[cfg(not(pipeward_loom))]
    pub use std::sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, fence},
    };

    /// `std`'s cell with the interface of loom's.
    #[cfg(not(pipeward_loom))]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    #[cfg(not(pipeward_loom))]
    impl<T> UnsafeCell<T> {
        pub fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub fn with_mut<R>(&self, act: impl FnOnce(*mut T) -> R) -> R {
            act(self.0.get())
        }
    }
}
