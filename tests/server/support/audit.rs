//! What stands in the audit file of a server.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, Server, until};

/// `[audit]` with a file that [`records`] reads.
pub const AUDITED: &str = "[audit]\npath = \"audit.log\"\n";

/// The records of a kind so far.
pub fn records(server: &Server, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(server.path("audit.log")).unwrap_or_default();
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let records = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON in each line"));
    records.filter(|record| record["kind"] == kind).collect()
}

/// The records of a kind, once there are so many.
#[track_caller]
pub fn await_records(server: &Server, kind: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} records of {kind}"), || records(server, kind).len() >= count);
    let found = records(server, kind);
    assert_eq!(found.len(), count, "{found:?}");
    found
}

/// Waits for a record of an internal error whose reason names this key of the configuration, with file and line (RK-6).
#[track_caller]
pub fn await_fault(server: &Server, key: &str) -> Value {
    let named = |record: &Value| {
        let reason = record["reason"].as_str().unwrap_or_default();
        let place = reason.split_once(&format!(": {key}: ")).map(|(place, _)| place.to_owned());
        let line = place.and_then(|place| Some(place.rsplit_once("pipeward.toml:")?.1.parse::<u32>()));
        matches!(line, Some(Ok(1..)))
    };
    let mut found = None;
    let began = Instant::now();
    while found.is_none() {
        let all = records(server, "internal_error");
        found = all.iter().find(|one| named(one)).cloned();
        assert!(found.is_some() || began.elapsed() < PATIENCE, "no internal error at {key} in {all:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let found = found.expect("it was found");
    assert_eq!(found["code"], "INTERNAL", "{found}");
    found
}
