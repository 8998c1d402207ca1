//! Frame codec: what one message costs between the socket's bytes and the message parser, and back.
//!
//! Method: `read` refills a 64 KiB input with masked frames of one size (the copy is measured apart as `refill`, to be
//! subtracted) and reads all of them. `cut` delivers a frame in pieces of 1,460 bytes, the payload of one TCP segment.
//! `write` appends unmasked frames to a buffer that keeps its capacity. Throughput counts payload bytes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pipeward::protocol::frame::{Item, Reader, append_client_frame, append_server_frame, opcode};
use std::hint::black_box;

const INPUT_BYTES: usize = 64 * 1024;
const SIZES: [usize; 4] = [16, 128, 1024, 16 * 1024];

fn input(payload_len: usize) -> (Vec<u8>, u64) {
    let payload = vec![b'a'; payload_len];
    let mut out = Vec::new();
    let mut frames = 0;
    while out.len() < INPUT_BYTES {
        append_client_frame(&mut out, true, opcode::TEXT, &payload, [1, 2, 3, 4]);
        frames += 1;
    }
    (out, frames)
}

/// Bytes of text in `input`, read as one piece.
fn read_all(reader: &mut Reader, input: &mut [u8]) -> usize {
    let (mut at, mut text_bytes) = (0, 0);
    loop {
        let (used, item) = reader.next(&mut input[at..], INPUT_BYTES);
        at += used;
        match item {
            Ok(Some(Item::Text(text))) => text_bytes += black_box(text).len(),
            Ok(None) => return text_bytes,
            other => panic!("{other:?}"),
        }
    }
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame/read");
    for payload_len in SIZES {
        let (template, frames) = input(payload_len);
        let mut work = template.clone();
        let mut reader = Reader::default();
        group.throughput(Throughput::Bytes(frames * payload_len as u64));
        group.bench_function(BenchmarkId::new("refill", payload_len), |bencher| {
            bencher.iter(|| black_box(&mut work).copy_from_slice(black_box(&template)));
        });
        group.bench_function(BenchmarkId::new("text", payload_len), |bencher| {
            bencher.iter(|| {
                work.copy_from_slice(&template);
                read_all(&mut reader, &mut work)
            });
        });
    }
    group.finish();
}

fn cut(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame/cut");
    let payload = vec![b'a'; 16 * 1024];
    let mut template = Vec::new();
    append_client_frame(&mut template, true, opcode::TEXT, &payload, [1, 2, 3, 4]);
    let mut work = template.clone();
    let mut reader = Reader::default();
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("text/16384", |bencher| {
        bencher.iter(|| {
            work.copy_from_slice(&template);
            work.chunks_mut(1_460).map(|piece| read_all(&mut reader, piece)).sum::<usize>()
        });
    });
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame/write");
    for payload_len in SIZES {
        let payload = vec![b'a'; payload_len];
        let mut out = Vec::with_capacity(payload_len + 10);
        group.throughput(Throughput::Bytes(payload_len as u64));
        group.bench_function(BenchmarkId::new("text", payload_len), |bencher| {
            bencher.iter(|| {
                out.clear();
                append_server_frame(&mut out, opcode::TEXT, black_box(&payload));
                black_box(out.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, read, cut, write);
criterion_main!(benches);
