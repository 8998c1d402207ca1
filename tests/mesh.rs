//! The mesh with real threads that really sleep: few slots, many entries, everybody to everybody. INVARIANTS 1, 13, 14.
#![cfg(not(pipeward_loom))]

use ahash::RandomState;
use pipeward::mesh::{Bell, Counters, Pipe, Port, Registry, mesh};
use std::{
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

const WORKERS: usize = 4;
const ENTRIES_EACH: u64 = 20_000;

/// A bell like an eventfd: it remembers a ring until it is heard.
#[derive(Default)]
struct Chime {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Chime {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }

    /// False: nobody rang for far longer than any schedule explains.
    fn wait(&self) -> bool {
        let rung = self.rung.lock().unwrap();
        let (mut rung, result) = self.heard.wait_timeout_while(rung, Duration::from_secs(20), |rung| !*rung).unwrap();
        *rung = false;
        !result.timed_out()
    }
}

/// Sends numbered entries to everybody else, each with a reference to a pipe, and takes everybody else's.
fn work(mut port: Port<(u64, Pipe)>, chime: &Chime, registry: &Registry) -> Counters {
    let others = ((1 << WORKERS) - 1) & !(1 << port.worker());
    let mut next = [0; WORKERS];
    let mut sent = 0;
    let done = |sent: u64, next: &[u64]| sent == ENTRIES_EACH && next.iter().sum::<u64>() == ENTRIES_EACH * 3;
    while !done(sent, &next) {
        port.relieved();
        while let Some((from, (number, pipe))) = port.pop() {
            assert_eq!(number, next[from], "in order and once");
            assert_eq!(pipe.name(), format!("pipe:{}", number % 5));
            next[from] += 1;
        }
        while sent < ENTRIES_EACH && port.full(others) == 0 {
            let pipe = registry.intern(&format!("pipe:{}", sent % 5)).unwrap();
            for target in (0..WORKERS).filter(|target| others >> target & 1 == 1) {
                assert!(port.push(target, (sent, pipe.clone())).is_ok(), "there was room");
            }
            sent += 1;
        }
        port.publish();
        if !done(sent, &next) && port.arm() && !chime.wait() {
            port.sweep();
            panic!("a wakeup was lost: {:?}", port.counters());
        }
        port.disarm();
    }
    port.counters()
}

#[test]
fn everything_arrives_in_order_and_nobody_sleeps_for_ever() {
    let chimes: Vec<Arc<Chime>> = (0..WORKERS).map(|_| Arc::default()).collect();
    let bells = chimes.iter().cloned().map(|chime| Box::new(move || chime.ring()) as Box<dyn Bell>);
    let registry = Registry::new(RandomState::with_seeds(1, 2, 3, 4), 5);
    let ports = mesh(bells.collect(), 8);
    let counters: Vec<Counters> = thread::scope(|scope| {
        let workers: Vec<_> =
            ports.into_iter().zip(&chimes).map(|(port, chime)| scope.spawn(|| work(port, chime, &registry))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for counters in &counters {
        assert_eq!((counters.pushed, counters.taken, counters.missed), (ENTRIES_EACH * 3, ENTRIES_EACH * 3, 0));
    }
    assert!(counters.iter().any(|counters| counters.full > 0), "the rings never filled: {counters:?}");
    assert!(counters.iter().any(|counters| counters.rung > 0), "nobody ever slept: {counters:?}");
    assert!(registry.is_empty(), "{} pipes were left behind", registry.len());
}
