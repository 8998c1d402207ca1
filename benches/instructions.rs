//! Fixed work on the pure core, to be counted in instructions instead of nanoseconds: counts repeat, also on a busy machine.
//!
//! Method: each `counted_*` function is called a fixed number of times after a warm-up that does the same outside of it;
//! `scripts/instructions` runs this program once under callgrind, reads the inclusive count of each of these functions, divides
//! by the units written down beside them in `benches/instructions.toml`, and compares. The functions are never inlined and keep
//! their names; what they are given passes through `black_box`. The allocator is the server's.

mod rig;

use std::hint::black_box;

use pipeward::auth::decision::Rights;
use pipeward::protocol::encode::{Sender, event_frame};
use pipeward::protocol::frame::{Item, Reader};
use pipeward::protocol::message::parse;
use pipeward::rules::schema::Schema;
use pipeward::shard::Shard;
use pipeward::shard::connection::Handle;
use pipeward::shard::grants::Grants;
use pipeward::shard::input::{Input, Now};
use pipeward::shard::pipes::PipeId;

use rig::{RULES_ELSEWHERE, audience, audience_with, drain, publish};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls of each counted function: `calls` in the record.
const CALLS: usize = 200;
/// Calls before them, which are not counted: tables grow, pools fill.
const WARM_UP: usize = 64;
/// Grant checks in one call: the call itself is then lost in them.
const CHECKS: u32 = 1_000;
/// Publishes waiting for each subscriber when writes are gathered, as in a loaded server.
const GATHERED: usize = 32;

fn main() {
    publishes();
    gathering();
    grants();
    parsing();
    schemas();
}

fn publishes() {
    let publish = publish();
    let mut bytes = publish.clone();
    for (rules, subscribers, counted) in [
        ("", 1, counted_publish_to_1 as fn(&mut Shard, Now, Handle, &mut [u8])),
        ("", 1_000, counted_publish_to_1000 as fn(&mut Shard, Now, Handle, &mut [u8])),
        (RULES_ELSEWHERE, 1, counted_publish_with_rules_elsewhere as fn(&mut Shard, Now, Handle, &mut [u8])),
    ] {
        let (mut shard, now, publisher) = audience_with(rules, subscribers);
        for call in 0..WARM_UP + CALLS {
            bytes.copy_from_slice(&publish);
            if call < WARM_UP {
                shard.handle(now, Input::Received { connection: publisher, bytes: &mut bytes });
            } else {
                black_box(counted)(&mut shard, now, publisher, &mut bytes);
            }
            drain(&mut shard, now);
        }
    }
}

/// Frame, message, rates, right, encoding, and one subscriber.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted_publish_to_1(shard: &mut Shard, now: Now, connection: Handle, bytes: &mut [u8]) {
    shard.handle(black_box(now), Input::Received { connection, bytes });
}

/// The same with a thousand subscribers; 999 of them are the difference. Not the same code address on purpose: the
/// counter tells the two apart by their names.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted_publish_to_1000(shard: &mut Shard, now: Now, connection: Handle, bytes: &mut [u8]) {
    black_box(bytes.len());
    shard.handle(black_box(now), Input::Received { connection, bytes });
}

/// The first again, in a server whose other pipes and actions have rules, guards, scopes and schemas: this one pays nothing
/// for them.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted_publish_with_rules_elsewhere(shard: &mut Shard, now: Now, connection: Handle, bytes: &mut [u8]) {
    black_box(bytes.as_ptr());
    shard.handle(black_box(now), Input::Received { connection, bytes });
}

/// The price of a schema, on two kinds of data of a kilobyte each: one text, and a list of small records.
fn schemas() {
    let schema = r#"{"type":"object","required":["items"],"properties":{"text":{"type":"string"},"items":{"type":"array",
        "items":{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"name":{"type":"string"}}}}}}"#;
    let schema = Schema::compile(&serde_json::from_str(schema).expect("JSON")).expect("a schema");
    let text = format!(r#"{{"text":"{}","items":[]}}"#, "x".repeat(1_000));
    let records: Vec<String> = (0..40).map(|id| format!(r#"{{"id":{id},"name":"abc"}}"#)).collect();
    let records = format!(r#"{{"items":[{}]}}"#, records.join(","));
    for _ in 0..CALLS {
        assert!(counted_schema_of_text(&schema, &text));
        assert!(counted_schema_of_records(&schema, &records));
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
fn counted_schema_of_text(schema: &Schema, data: &str) -> bool {
    schema.check(black_box(data)).is_ok()
}

#[inline(never)]
#[unsafe(no_mangle)]
fn counted_schema_of_records(schema: &Schema, data: &str) -> bool {
    black_box(data.len());
    schema.check(black_box(data)).is_ok()
}

fn gathering() {
    let publish = publish();
    let (mut shard, now, publisher) = audience(1_000);
    for round in 0..2 + CALLS / 10 {
        for _ in 0..GATHERED {
            shard.handle(now, Input::Received { connection: publisher, bytes: &mut publish.clone() });
        }
        if round < 2 {
            drain(&mut shard, now);
        } else {
            black_box(counted_gather(&mut shard, now));
        }
    }
}

/// A write for each of a thousand subscribers with the same 32 events waiting, and its end.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted_gather(shard: &mut Shard, now: Now) -> usize {
    drain(black_box(shard), now)
}

fn grants() {
    for (count, counted) in
        [(3, counted_grant_of_3 as fn(&Grants, PipeId) -> u32), (64, counted_grant_of_64 as fn(&Grants, PipeId) -> u32)]
    {
        let mut grants = Grants::default();
        for number in 0..count {
            let (index, _) = grants.resolve(PipeId(number), Rights::PUBLISH);
            grants.subscribe(index, 0);
        }
        for _ in 0..CALLS {
            assert_eq!(black_box(counted)(&grants, PipeId(count - 1)), CHECKS);
        }
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
fn counted_grant_of_3(grants: &Grants, pipe: PipeId) -> u32 {
    (0..CHECKS).filter(|_| may_publish(grants, pipe)).count() as u32
}

#[inline(never)]
#[unsafe(no_mangle)]
fn counted_grant_of_64(grants: &Grants, pipe: PipeId) -> u32 {
    let mut allowed = 0;
    for _ in 0..CHECKS {
        allowed += u32::from(may_publish(grants, pipe));
    }
    allowed
}

/// From the worker's number of a pipe to the answer.
#[inline(always)]
fn may_publish(grants: &Grants, pipe: PipeId) -> bool {
    let index = black_box(grants).index_of(black_box(pipe));
    index.is_some_and(|index| grants.may(index, Rights::PUBLISH))
}

fn parsing() {
    let publish = publish();
    let mut bytes = publish.clone();
    let mut reader = Reader::default();
    for _ in 0..CALLS {
        bytes.copy_from_slice(&publish);
        assert!(counted_frame(&mut reader, &mut bytes) > 128);
    }
    let mut reader = Reader::default();
    let mut bytes = publish.clone();
    let (_, item) = reader.next(&mut bytes, 65_536);
    let Ok(Some(Item::Text(text))) = item else { panic!("the frame is whole") };
    let data = format!("\"{}\"", "x".repeat(126));
    for _ in 0..CALLS {
        assert!(counted_message(text));
        assert!(counted_event(&data) > 128);
    }
}

/// A masked frame that arrived whole: header, unmasking, UTF-8.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted_frame(reader: &mut Reader, bytes: &mut [u8]) -> usize {
    match reader.next(black_box(bytes), 65_536) {
        (_, Ok(Some(Item::Text(text)))) => black_box(text).len(),
        _ => 0,
    }
}

/// The JSON of a publish: grammar of everything, fields as slices.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted_message(text: &str) -> bool {
    black_box(parse(black_box(text))).is_ok()
}

/// The frame of the event, allocated and freed.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted_event(data: &str) -> usize {
    let frame = event_frame("team-chat", "m", black_box(data), Sender::User("user-1234"), 1_700_000_000_000);
    black_box(frame).len()
}
