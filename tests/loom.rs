//! The mesh under loom: every interleaving of two or three threads, as far as the preemption bounds below reach.
//!
//! Run with `RUSTFLAGS="--cfg pipeward_loom" cargo test --release --test loom`; without the flag this file is empty. A bell is
//! loom's `Notify`, which like an eventfd remembers one ring: a wakeup that is lost leaves all threads blocked, and loom
//! reports the deadlock. INVARIANTS 1, 13, 14.
#![cfg(pipeward_loom)]

use ahash::RandomState;
use loom::{
    model::Builder,
    sync::{Arc, Notify},
    thread,
};
use pipeward::mesh::{Bell, Doorbell, Port, Registry, mesh, ring::ring};

/// Participants with their bells.
fn participants(count: usize, entries: usize) -> Vec<(Port<usize>, Arc<Notify>)> {
    let bells: Vec<_> = (0..count).map(|_| Arc::new(Notify::new())).collect();
    let boxed = bells.iter().cloned().map(|bell| Box::new(move || bell.notify()) as Box<dyn Bell>);
    mesh(boxed.collect(), entries).into_iter().zip(bells).collect()
}

/// Sends `entries` to `target` and takes as many as `takes` from anybody, asleep whenever there is nothing to do. Each
/// entry is published by itself, so that `producer_waits` is raised when the consumer may be at work already.
fn act(port: &mut Port<usize>, bell: &Notify, target: usize, entries: usize, takes: usize) {
    let (mut sent, mut taken) = (0, 0);
    while sent < entries || taken < takes {
        port.relieved();
        while let Some((_, entry)) = port.pop() {
            assert_eq!(entry, taken, "in order, once");
            taken += 1;
        }
        while sent < entries && port.full(1 << target) == 0 {
            assert_eq!(port.push(target, sent), Ok(()));
            port.publish();
            sent += 1;
        }
        if (sent < entries || taken < takes) && port.arm() {
            bell.wait();
            port.disarm();
        }
    }
    assert_eq!((sent, taken), (entries, takes));
}

fn bounded(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Entries cross once and in order, and what is left over is freed once (loom counts its `Arc`s).
#[test]
fn ring_moves_each_entry_once() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || {
            let mut refused = 0;
            for entry in 0..3 {
                refused += usize::from(producer.push(Arc::new(entry)).is_err());
                producer.publish();
            }
            refused
        });
        let mut taken: Vec<usize> = (0..2).filter_map(|_| consumer.pop().map(|entry| *entry)).collect();
        let refused = sender.join().unwrap();
        assert!(taken.is_sorted());
        assert!(refused <= 1);
        if refused == 0 && taken.len() < 2 {
            taken.extend(consumer.pop().map(|entry| *entry));
        }
        assert!(taken.iter().enumerate().all(|(at, entry)| at == *entry));
    });
}

/// The same where the two ends go while the other still acts.
#[test]
fn ring_ends_may_go_in_any_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || {
            for entry in 0..2 {
                assert!(producer.push(Arc::new(entry)).is_ok());
            }
        });
        if let Some(entry) = consumer.pop() {
            assert_eq!(*entry, 0);
        }
        drop(consumer);
        sender.join().unwrap();
    });
}

/// A producer that waits for room is told, whenever the consumer frees the slot.
#[test]
fn producer_that_waits_is_rung_back() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(1);
        let bell = Arc::new(Notify::new());
        assert!(producer.push(0).is_ok());
        producer.publish();
        let freeing = {
            let bell = bell.clone();
            thread::spawn(move || {
                assert_eq!(consumer.pop(), Some(0));
                if consumer.take_waiting() {
                    bell.notify();
                }
                consumer
            })
        };
        if !producer.wait_for_room() {
            bell.wait();
            // Loom's bell may also wake for no reason; then wait until it is the real one.
            while producer.free() == 0 {
                bell.wait();
            }
        }
        assert!(producer.push(1).is_ok());
        producer.publish();
        assert_eq!(freeing.join().unwrap().pop(), Some(1));
    });
}

/// Two that ring at once: the sleeper wakes, and each ring stands for one arming.
#[test]
fn doorbell_rings_once_for_two() {
    loom::model(|| {
        let bell = Arc::new(Notify::new());
        let doorbell = {
            let bell = bell.clone();
            Arc::new(Doorbell::new(Box::new(move || bell.notify())))
        };
        doorbell.arm();
        let other = {
            let doorbell = doorbell.clone();
            thread::spawn(move || doorbell.ring_if_armed())
        };
        let here = doorbell.ring_if_armed();
        assert!(here != other.join().unwrap(), "exactly one of them rings");
        bell.wait();
        assert!(!doorbell.disarm());
    });
}

/// Ring, `producer_waits`, armed flag and bell together: more entries than slots, both sides sleep and wake.
#[test]
fn mesh_one_way_loses_no_wakeup() {
    bounded(4, || {
        let mut ends = participants(2, 1);
        let (mut receiver, receiver_bell) = ends.remove(1);
        let (mut sender, sender_bell) = ends.remove(0);
        let receiving = thread::spawn(move || act(&mut receiver, &receiver_bell, 0, 0, 2));
        act(&mut sender, &sender_bell, 1, 2, 0);
        receiving.join().unwrap();
    });
}

/// Both send to each other through rings of one slot: nobody waits for ever.
#[test]
fn mesh_both_ways_has_no_cycle_of_waiting() {
    bounded(2, || {
        let mut ends = participants(2, 1);
        let (mut other, other_bell) = ends.remove(1);
        let (mut one, one_bell) = ends.remove(0);
        let acting = thread::spawn(move || act(&mut other, &other_bell, 0, 2, 2));
        act(&mut one, &one_bell, 1, 2, 2);
        acting.join().unwrap();
    });
}

/// Two senders ring one sleeper.
#[test]
fn mesh_two_senders_wake_one_receiver() {
    bounded(3, || {
        let mut ends = participants(3, 1);
        let (mut receiver, bell) = ends.remove(0);
        let sending: Vec<_> = ends
            .into_iter()
            .map(|(mut port, _)| {
                thread::spawn(move || {
                    assert_eq!(port.push(0, 7), Ok(()));
                    port.publish();
                })
            })
            .collect();
        let mut from = 0;
        while from != 0b110 {
            if let Some((source, entry)) = receiver.pop() {
                assert_eq!((entry, from & (1 << source)), (7, 0));
                from |= 1 << source;
            } else if receiver.arm() {
                bell.wait();
                receiver.disarm();
            }
        }
        for sender in sending {
            sender.join().unwrap();
        }
    });
}

/// The last two holders go while a third looks the name up: one object for the name, and none left behind.
#[test]
fn registry_keeps_one_object_for_a_name() {
    bounded(3, || {
        let registry = Registry::new(RandomState::with_seeds(1, 2, 3, 4), 1);
        let held = registry.intern("a").unwrap();
        let going = {
            let held = held.clone();
            thread::spawn(move || drop(held))
        };
        let coming = {
            let registry = registry.clone();
            thread::spawn(move || {
                // The bound is 1: were the old object still counted while its name is gone, this would be refused.
                let pipe = registry.intern("a").unwrap();
                assert_eq!(registry.find("a"), Some(pipe.clone()));
            })
        };
        drop(held);
        going.join().unwrap();
        coming.join().unwrap();
        assert!(registry.is_empty() && registry.find("a").is_none());
    });
}
