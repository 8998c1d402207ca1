//! What one published message costs before and after the decision: parsing it and encoding the event.
//!
//! Method: the smallest and a 128-byte publish as a browser would send them, and one of 4 KiB; all input fits the first
//! cache. The parse alone is also given for `serde_json` into borrowed fields, as a measure of the machine. Run with
//! `cargo bench --bench message`. Wanted: 128 bytes parsed in less than 300 ns.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pipeward::protocol::encode::{Sender, event_frame, framed, reply_ok};
use pipeward::protocol::message::{Id, parse};
use pipeward::protocol::names::pattern_matches;

/// A publish of exactly `len` bytes.
fn publish(len: usize) -> String {
    let text = |fill: &str| {
        format!(
            r#"{{"type":"publish","pipe":"acme:eu:team-7","event":"message","data":{{"text":"{fill}"}},"id":12345}}"#
        )
    };
    let spare = len.saturating_sub(text("").len());
    text(&"x".repeat(spare))
}

fn message(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for len in [0, 128, 4096] {
        let text = publish(len);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("parse publish {} B", text.len()), |bencher| {
            bencher.iter(|| parse(black_box(&text)).is_ok());
        });
        group.bench_function(format!("serde_json {} B", text.len()), |bencher| {
            bencher.iter(|| {
                serde_json::from_str::<std::collections::BTreeMap<&str, &serde_json::value::RawValue>>(black_box(&text))
                    .is_ok()
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("encode");
    let data = format!("{{\"text\":\"{}\"}}", "x".repeat(50));
    group.bench_function("event frame, 60 B of data", |bencher| {
        bencher.iter(|| {
            event_frame(black_box("acme:eu:team-7"), "message", &data, Sender::User("user-1234"), 1_700_000_000_000)
        });
    });
    let id = Id::new("12345").expect("an integer");
    group.bench_function("reply ok", |bencher| bencher.iter(|| framed(|out| reply_ok(out, black_box(id)))));
    group.finish();

    let mut group = criterion.benchmark_group("pattern");
    for (pattern, name) in
        [("acme:eu:*", "acme:eu:team-7"), ("acme:us:*", "acme:eu:team-7"), ("**:team-*", "acme:eu:team-7")]
    {
        group.bench_function(format!("{pattern} {name}"), |bencher| {
            bencher.iter(|| pattern_matches(black_box(pattern), black_box(name)));
        });
    }
    group.finish();
}

criterion_group!(benches, message);
criterion_main!(benches);
