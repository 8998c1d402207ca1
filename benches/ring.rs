//! What crossing cores costs. Method: criterion, one thread for costs without contention, two threads (whatever cores
//! the kernel gives them) for the throughput of a ring; time per entry, or per call where the name says so. An entry is
//! a number and a reference-counted frame, as in the server.

use ahash::RandomState;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pipeward::{
    bounds::{PIPES_MAX, RING_ENTRIES},
    mesh::{Bell, Port, Registry, mesh, ring::ring},
};
use std::{
    hint::{black_box, spin_loop},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Entries to one `publish`.
const BATCH: u64 = 64;

type Entry = (u64, Arc<[u8]>);

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    let frame: Arc<[u8]> = Arc::from([0; 128]);
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("one thread, batch of 64", |bencher| {
        let (mut producer, mut consumer) = ring::<Entry>(RING_ENTRIES);
        bencher.iter(|| {
            for number in 0..BATCH {
                let _ = black_box(producer.push((number, frame.clone())));
            }
            producer.publish();
            while let Some(entry) = consumer.pop() {
                black_box(entry);
            }
        });
    });
    for workers in [2, 8, 64] {
        let mut ports = awake(workers);
        let mut receiver = ports.remove(1);
        let mut sender = ports.remove(0);
        group.bench_function(format!("port of {workers}, batch of 64"), |bencher| {
            bencher.iter(|| {
                for number in 0..BATCH {
                    if sender.full(0b10) == 0 {
                        let _ = sender.push(1, (number, frame.clone()));
                    }
                }
                sender.publish();
                while let Some(entry) = receiver.pop() {
                    black_box(entry);
                }
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    let mut idle = awake(64).remove(0);
    group.bench_function("port of 64, arm and disarm", |bencher| {
        bencher.iter(|| black_box(idle.arm()) && idle.disarm());
    });
    group.finish();
}

fn two_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(1));
    group.bench_function("two threads", |bencher| {
        bencher.iter_custom(|count| -> Duration {
            let (mut producer, mut consumer) = ring::<u64>(RING_ENTRIES);
            let receiving = thread::spawn(move || {
                let mut taken = 0;
                while taken < count {
                    match consumer.pop() {
                        Some(entry) => taken += u64::from(black_box(entry) < count),
                        None => spin_loop(),
                    }
                }
            });
            let start = Instant::now();
            let mut sent = 0;
            while sent < count {
                let batch = BATCH.min(count - sent).min(producer.free() as u64);
                for number in sent..sent + batch {
                    let _ = producer.push(number);
                }
                producer.publish();
                sent += batch;
                if batch == 0 {
                    spin_loop();
                }
            }
            let joined = receiving.join();
            let elapsed = start.elapsed();
            assert!(joined.is_ok());
            elapsed
        });
    });
    group.finish();
}

fn registry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("registry");
    let registry = Registry::new(RandomState::with_seeds(1, 2, 3, 4), PIPES_MAX);
    let names: Vec<String> = (0..100_000).map(|number| format!("tenant-{number}:room")).collect();
    let held: Vec<_> = names.iter().filter_map(|name| registry.intern(name).ok()).collect();
    let mut turn = names.iter().cycle();
    group.bench_function("find, call", |bencher| {
        bencher.iter(|| turn.next().and_then(|name| registry.find(name)));
    });
    group.bench_function("intern and drop a new name, call", |bencher| {
        bencher.iter(|| registry.intern(black_box("a name that nobody holds")).is_ok());
    });
    group.bench_function("clone and drop, call", |bencher| bencher.iter(|| black_box(held[7].clone())));
    group.bench_function("interest, call", |bencher| bencher.iter(|| black_box(held[7].interest())));
    group.finish();
}

/// Ports whose owners never sleep.
fn awake(workers: usize) -> Vec<Port<Entry>> {
    mesh((0..workers).map(|_| Box::new(|| ()) as Box<dyn Bell>).collect(), RING_ENTRIES)
}

criterion_group!(benches, one_thread, two_threads, registry);
criterion_main!(benches);
