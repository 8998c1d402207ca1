//! What the pure core costs: to accept a publish, to queue it for each subscriber, to check a grant.
//!
//! No socket and no kernel: bytes go into the shard, writes are taken and reported done at once. `fan-out` divided by
//! the number of subscribers is the cost of a delivery inside the core.

mod rig;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pipeward::auth::decision::{Grant, Rights};
use pipeward::shard::Shard;
use pipeward::shard::connection::Handle;
use pipeward::shard::grants::{Explicit, Grants};
use pipeward::shard::input::Input;
use pipeward::shard::pipes::PipeId;

use rig::{audience, connect, drain, message, publish, shard};

fn fan_out(criterion: &mut Criterion) {
    let publish = publish();
    let mut group = criterion.benchmark_group("publish");
    for subscribers in [0usize, 1, 100, 1000] {
        let (mut shard, now, publisher) = audience(subscribers);
        group.throughput(Throughput::Elements(subscribers.max(1) as u64));
        group.bench_function(BenchmarkId::new("128 bytes, decided and queued, subscribers", subscribers), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..rounds {
                    let mut bytes = publish.clone();
                    let began = std::time::Instant::now();
                    shard.handle(now, Input::Received { connection: publisher, bytes: &mut bytes });
                    spent += began.elapsed();
                    black_box(drain(&mut shard, now));
                }
                spent
            });
        });
        group.bench_function(
            BenchmarkId::new("the same and its writes gathered, subscribers", subscribers),
            |bencher| {
                bencher.iter(|| {
                    shard.handle(now, Input::Received { connection: publisher, bytes: &mut publish.clone() });
                    black_box(drain(&mut shard, now))
                });
            },
        );
    }
    group.finish();
}

fn grants(criterion: &mut Criterion) {
    for count in [3u32, 32, 64, 3000] {
        let mut grants = Grants::default();
        for number in 0..count {
            let (index, _) = grants.resolve(PipeId(number), Rights::PUBLISH);
            grants.subscribe(index, 0);
        }
        criterion.bench_function(&format!("grant check, the last of {count}"), |bencher| {
            bencher.iter(|| {
                let index = grants.index_of(black_box(PipeId(count - 1)));
                index.is_some_and(|index| grants.may(index, Rights::PUBLISH))
            });
        });
    }
    let explicit = Explicit::new(&[
        Grant { pipe: "team-chat".into(), rights: Rights::PUBLISH },
        Grant { pipe: "room-*".into(), rights: Rights::SUBSCRIBE },
        Grant { pipe: "user-12345".into(), rights: Rights::SUBSCRIBE },
    ]);
    criterion.bench_function("first mention of a name, three grants", |bencher| {
        bencher.iter(|| explicit.rights(black_box("room-77")));
    });
}

/// What presence costs: nothing for an event, whether the pipe is watched or not; a lock and a look into a tree for a
/// subscribe; and one encoding for all watchers when the changes are told.
fn presence(criterion: &mut Criterion) {
    const MEMBERS: usize = 1_000;
    let publish = publish();
    let follow = message(r#"{"type":"subscribe","pipe":"team-chat"}"#);
    let watch = message(r#"{"type":"subscribe","pipe":"team-chat","presence":true}"#);
    let leave = message(r#"{"type":"unsubscribe","pipe":"team-chat"}"#);
    let mut group = criterion.benchmark_group("presence, a pipe of 1,000 members");
    for (what, watchers) in [("nobody watches", 0), ("one watches", 1), ("all watch", MEMBERS)] {
        let (mut shard, mut now) = shard();
        let members: Vec<Handle> = (0..MEMBERS).map(|user| connect(&mut shard, now, user)).collect();
        for (place, connection) in members.iter().enumerate() {
            let mut bytes = if place < watchers { watch.clone() } else { follow.clone() };
            shard.handle(now, Input::Received { connection: *connection, bytes: &mut bytes });
            drain(&mut shard, now);
        }
        let mut passes = |shard: &mut Shard, ms: u64| {
            now.mono_ns += ms * 1_000_000;
            shard.handle(now, Input::Time);
            now
        };
        let now = passes(&mut shard, 300);
        drain(&mut shard, now);
        group.bench_function(format!("publish and deliver, {what}"), |bencher| {
            bencher.iter(|| {
                shard.handle(now, Input::Received { connection: members[0], bytes: &mut publish.clone() });
                black_box(drain(&mut shard, now))
            });
        });
        let last = members[MEMBERS - 1];
        group.bench_function(format!("unsubscribe and subscribe, {what}"), |bencher| {
            bencher.iter(|| {
                shard.handle(now, Input::Received { connection: last, bytes: &mut leave.clone() });
                shard.handle(now, Input::Received { connection: last, bytes: &mut follow.clone() });
                black_box(drain(&mut shard, now))
            });
        });
        group.bench_function(format!("telling that one left or came, {what}"), |bencher| {
            let mut here = true;
            bencher.iter_custom(|rounds| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..rounds {
                    let mut bytes = if here { leave.clone() } else { follow.clone() };
                    here = !here;
                    shard.handle(now, Input::Received { connection: last, bytes: &mut bytes });
                    drain(&mut shard, now);
                    let began = std::time::Instant::now();
                    let now = passes(&mut shard, 300);
                    spent += began.elapsed();
                    black_box(drain(&mut shard, now));
                }
                spent
            });
        });
    }
    group.finish();
}

fn handshake(criterion: &mut Criterion) {
    criterion.bench_function("handshake to welcome and close, three grants", |bencher| {
        let (mut shard, now) = shard();
        let mut outputs = Vec::new();
        bencher.iter(|| {
            let connection = connect(&mut shard, now, 1);
            drain(&mut shard, now);
            shard.handle(now, Input::Ended { connection });
            shard.take_outputs(&mut outputs);
            outputs.clear();
        });
    });
}

criterion_group!(benches, fan_out, grants, handshake, presence);
criterion_main!(benches);
