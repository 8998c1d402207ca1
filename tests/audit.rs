//! The audit: what a line looks like, that nothing a client chooses breaks one, and what happens when there is no room.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipeward::config::{AuditPath, AuditSettings};
use pipeward::control::audit::{Audit, AuditBounds};
use pipeward::protocol::codes::{CloseCode, Code};
use pipeward::shard::record::{Kind, Particulars, Record};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

const KINDS: [Kind; 8] = [
    Kind::Connect,
    Kind::Refused,
    Kind::Denied,
    Kind::Disconnect,
    Kind::Revoke,
    Kind::Restore,
    Kind::Admin,
    Kind::InternalError,
];

/// A place for one audit.
struct Place {
    path: PathBuf,
    _folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        Place { path: folder.path().join("audit.log"), _folder: folder }
    }

    fn start(&self, bounds: AuditBounds) -> Audit {
        Audit::start_with(&settings(&self.path), bounds).expect("the audit starts")
    }

    fn lines(&self) -> Vec<Value> {
        lines(&self.path)
    }
}

fn settings(path: &Path) -> AuditSettings {
    AuditSettings { path: AuditPath::File(path.to_owned()) }
}

fn bounds() -> AuditBounds {
    AuditBounds::default()
}

/// Every line of a file, each of which must be an object.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is not ended");
    text.lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(value.is_object(), "{line}");
            value
        })
        .collect()
}

fn denial(number: u64) -> Record {
    Record { user: Some("ann".into()), code: Some(Code::Forbidden), ..Record::new(number, Kind::Denied) }
}

fn dropped_in(lines: &[Value]) -> u64 {
    lines.iter().filter_map(|line| line["dropped"].as_u64()).sum()
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

// G3
#[test]
fn a_line_has_the_fields_of_the_ruling_and_no_others() {
    let place = Place::new();
    let audit = place.start(bounds());
    audit.record(Record {
        code: Some(Code::RateLimited),
        close: Some(CloseCode::OverRate),
        connection: Some("c-1".to_owned()),
        user: Some("ann".into()),
        tenant: Some("acme".into()),
        ip: Some(IpAddr::from([192, 0, 2, 7])),
        key: Some("app".into()),
        pipe: Some("team-*".into()),
        reason: Some("over the rate".into()),
        count: 3,
        ..Record::new(1_700_000_000_123, Kind::Disconnect)
    });
    audit.record(Record {
        ip: Some("2001:db8::7".parse().expect("an address")),
        ..Record::new(1_700_000_000_124, Kind::Connect)
    });
    audit.close();
    let text = fs::read_to_string(&place.path).expect("read");
    assert_eq!(
        text,
        "{\"ts\":1700000000123,\"kind\":\"disconnect\",\"code\":\"RATE_LIMITED\",\"close\":4429,\"user\":\"ann\",\
         \"tenant\":\"acme\",\"connection\":\"c-1\",\"ip\":\"192.0.2.7\",\"pipe\":\"team-*\",\"key\":\"app\",\
         \"reason\":\"over the rate\",\"count\":3}\n\
         {\"ts\":1700000000124,\"kind\":\"connect\",\"ip\":\"2001:db8::7\"}\n"
    );
    assert_eq!((audit.written(), audit.dropped(), audit.failures()), (2, 0, 0));
}

#[test]
fn a_line_is_there_soon_without_a_close() {
    let place = Place::new();
    let audit = place.start(bounds());
    let began = Instant::now();
    audit.record(denial(1));
    eventually("the record was not written", || place.lines().len() == 1);
    assert!(began.elapsed() < Duration::from_secs(5));
    let mode = fs::metadata(&place.path).expect("there").permissions().mode();
    assert_eq!(mode & 0o007, 0, "others may read who did what");
}

#[test]
fn records_of_several_threads_are_all_written() {
    let place = Place::new();
    let audit = place.start(bounds());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let audit = audit.clone();
            std::thread::spawn(move || {
                for number in 0..500 {
                    audit.record(Record::new(number, KINDS[number as usize % KINDS.len()]));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    audit.close();
    let lines = place.lines();
    assert_eq!(lines.len(), 2000);
    assert_eq!((audit.written(), audit.dropped()), (2000, 0));
}

#[test]
fn a_connection_begins_before_it_ends() {
    let place = Place::new();
    let audit = place.start(bounds());
    // The two go by different lanes.
    audit.record(Record::new(5, Kind::Connect));
    audit.record(Record::new(5, Kind::Disconnect));
    audit.record(Record::new(4, Kind::Denied));
    audit.close();
    let kinds: Vec<Value> = place.lines().iter().map(|line| line["kind"].clone()).collect();
    assert_eq!(kinds, ["denied", "connect", "disconnect"]);
}

// GD-9, INVARIANTS 33
#[test]
fn a_flood_of_denials_displaces_no_revocation_and_is_told_of() {
    const FLOOD: u64 = 20_000;
    let place = Place::new();
    let audit = place.start(AuditBounds { kept: 64, others: 64, ..bounds() });
    for number in 0..FLOOD {
        audit.record(denial(number));
        if number % 500 == 0 {
            audit.record(Record::new(number, Kind::Revoke));
        }
    }
    let dropped = audit.dropped();
    assert!(dropped > 0, "64 places took a flood of {FLOOD}");
    eventually("the drops were not told of", || dropped_in(&place.lines()) >= dropped);
    audit.close();
    let lines = place.lines();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count() as u64;
    assert_eq!(of("revoke"), FLOOD / 500, "a revocation was displaced");
    assert_eq!(of("denied") + audit.dropped(), FLOOD);
    assert_eq!(audit.written(), FLOOD / 500 + of("denied"));
    assert_eq!(dropped_in(&lines), audit.dropped());
    let told: Vec<&Value> = lines.iter().filter(|line| line["dropped"].is_u64()).collect();
    assert!(told.iter().all(|line| line["kind"] == "internal_error" && line["reason"].is_string()));
}

#[test]
fn a_full_kept_lane_is_bounded_too() {
    let place = Place::new();
    let audit = place.start(AuditBounds { kept: 8, others: 8, ..bounds() });
    for number in 0..5000 {
        audit.record(Record::new(number, Kind::Admin));
    }
    assert!(audit.dropped() > 0);
    audit.close();
    assert_eq!(audit.written() + audit.dropped(), 5000);
    // What was written after the drops is preceded by the line about them.
    assert_eq!(dropped_in(&place.lines()), audit.dropped());
}

// G3 "…, rotated by size"
#[test]
fn files_are_rotated_by_size_and_the_oldest_goes() {
    let place = Place::new();
    let small = AuditBounds { file_bytes: 4096, files: 2, interval: Duration::from_millis(1), ..bounds() };
    let audit = place.start(small);
    for number in 0..1000 {
        audit.record(denial(number));
    }
    audit.close();
    assert_eq!((audit.written(), audit.dropped(), audit.failures()), (1000, 0, 0));
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", place.path.display()));
    let files = [numbered(2), numbered(1), place.path.clone()];
    let mut numbers = Vec::new();
    for file in &files {
        let bytes = fs::metadata(file).expect("rotated").len();
        assert!(bytes > 0 && bytes <= small.file_bytes, "{bytes} bytes in {}", file.display());
        numbers.extend(lines(file).iter().map(|line| line["ts"].as_u64().expect("a time")));
    }
    assert!(!numbered(3).exists(), "more files than allowed");
    assert!(numbers.len() > 100 && numbers.len() < 1000);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line is missing or out of order");
    assert_eq!(numbers.last(), Some(&999));
}

#[test]
fn a_restart_writes_on_and_rotates_by_what_is_there() {
    let place = Place::new();
    let small = AuditBounds { file_bytes: 400, ..bounds() };
    for round in 0..4 {
        let audit = place.start(small);
        (0..2).for_each(|number| audit.record(denial(round * 2 + number)));
        audit.close();
    }
    let first = PathBuf::from(format!("{}.1", place.path.display()));
    let mut all = lines(&first);
    all.extend(place.lines());
    let times: Vec<Option<u64>> = all.iter().map(|line| line["ts"].as_u64()).collect();
    assert_eq!(times, (0..8).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_file_that_was_moved_or_removed_is_made_anew() {
    let place = Place::new();
    let audit = place.start(AuditBounds { interval: Duration::from_millis(1), ..bounds() });
    let moved = place.path.with_extension("moved");
    audit.record(denial(1));
    eventually("written", || audit.written() == 1);
    fs::rename(&place.path, &moved).expect("moved");
    audit.record(denial(2));
    eventually("written", || audit.written() == 2);
    fs::remove_file(&place.path).expect("removed");
    audit.record(denial(3));
    audit.close();
    assert_eq!(lines(&moved)[0]["ts"], 1);
    assert_eq!(place.lines().iter().map(|line| line["ts"].clone()).collect::<Vec<_>>(), [3]);
    assert_eq!((audit.written(), audit.dropped()), (3, 0));
}

#[test]
fn a_full_disk_costs_records_and_nothing_else() {
    let audit = Audit::start_with(
        &settings(Path::new("/dev/full")),
        AuditBounds { interval: Duration::from_millis(1), ..bounds() },
    )
    .expect("it opens");
    for number in 0..1000 {
        audit.record(denial(number));
    }
    eventually("the failure was not counted", || audit.dropped() == 1000);
    assert!(audit.failures() > 0);
    audit.record(denial(1000));
    let began = Instant::now();
    audit.close();
    assert!(began.elapsed() < Duration::from_secs(5), "closing waited for a full disk");
    assert_eq!((audit.written(), audit.dropped()), (0, 1001));
}

#[test]
fn once_there_is_room_again_what_is_missing_is_told() {
    let place = Place::new();
    // What the path stands for is changed under the audit: first a folder is in its way, then nothing.
    let audit = place.start(AuditBounds { interval: Duration::from_millis(1), ..bounds() });
    fs::remove_file(&place.path).expect("removed");
    fs::create_dir(&place.path).expect("a folder in the way");
    (0..10).for_each(|number| audit.record(denial(number)));
    eventually("the failure was not counted", || audit.dropped() == 10);
    fs::remove_dir(&place.path).expect("out of the way");
    audit.record(denial(10));
    audit.close();
    let lines = place.lines();
    assert_eq!(lines.iter().map(|line| line["dropped"].as_u64()).collect::<Vec<_>>(), [Some(10), None]);
    assert_eq!((audit.written(), audit.dropped()), (1, 10));
}

// D15 in spirit: a place that cannot be written is said at the start, with its name.
#[test]
fn a_place_that_cannot_be_opened_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in [folder.path().join("no/such/folder.log"), folder.path().to_owned()] {
        let error = Audit::start(&settings(&path)).err().expect("refused").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn what_comes_after_the_close_is_counted_and_a_second_close_is_harmless() {
    let place = Place::new();
    let audit = place.start(bounds());
    audit.record(denial(1));
    let other = audit.clone();
    audit.close();
    other.record(denial(2));
    other.close();
    assert_eq!((place.lines().len(), other.written(), other.dropped()), (1, 1, 1));
}

#[test]
fn the_writer_ends_with_the_last_handle() {
    let place = Place::new();
    let audit = place.start(bounds());
    audit.record(denial(1));
    drop(audit);
    eventually("the record was not written", || place.lines().len() == 1);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\\x00-\\x1f\"\\\\\\x7f-\\u{a0}\\u{2028}\\u{2029}\u{feff}\u{1f600}]{0,20}"]
}

prop_compose! {
    fn particulars()(
        texts in prop::array::uniform4(prop::option::of(text())),
        issued_before_s in prop::option::of(any::<i64>()),
        ttl_s in prop::option::of(1.0..1e9),
        until in prop::option::of(Just("reauthorized")),
        reconnect in prop::option::of(any::<bool>()),
    ) -> Particulars {
        let [session, token_id, except_session, except_token] = texts.map(|text| text.map(String::into_boxed_str));
        Particulars { session, token_id, issued_before_s, except_session, except_token, ttl_s, until, reconnect }
    }
}

prop_compose! {
    fn record()(
        ts_ms in any::<u64>(),
        kind in prop::sample::select(KINDS.as_slice()),
        code in prop::option::of(prop::sample::select(Code::ALL)),
        close in prop::option::of(prop::sample::select(CloseCode::ALL)),
        texts in prop::array::uniform6(prop::option::of(text())),
        ip in prop::option::of(any::<IpAddr>()),
        count in any::<u64>(),
        particulars in prop::option::of(particulars()),
    ) -> Record {
        let [connection, user, tenant, key, pipe, reason] = texts;
        let boxed = |text: Option<String>| text.map(String::into_boxed_str);
        Record {
            ts_ms, kind, code, close, connection, ip, count,
            user: boxed(user), tenant: boxed(tenant), key: boxed(key), pipe: boxed(pipe),
            reason: reason.map(Into::into),
            particulars: particulars.map(Box::new),
        }
    }
}

/// What the line must say.
fn expected(record: &Record) -> Value {
    let mut line = json!({
        "ts": record.ts_ms, "kind": record.kind.name(), "code": record.code.map(Code::name),
        "close": record.close.map(CloseCode::number), "connection": record.connection, "user": record.user,
        "tenant": record.tenant, "ip": record.ip, "key": record.key, "pipe": record.pipe, "reason": record.reason,
        "count": (record.count > 1).then_some(record.count),
    });
    if let Some(said) = &record.particulars {
        let said = json!({
            "session": said.session, "token_id": said.token_id, "issued_before_s": said.issued_before_s,
            "except_session": said.except_session, "except_token": said.except_token, "ttl_s": said.ttl_s,
            "until": said.until, "reconnect": said.reconnect,
        });
        line.as_object_mut().expect("an object").extend(said.as_object().expect("an object").clone());
    }
    line.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    line
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_strings_each_record_is_one_line_of_json(mut records in prop::collection::vec(record(), 1..40)) {
        let place = Place::new();
        let audit = place.start(bounds());
        records.iter().for_each(|record| audit.record(record.clone()));
        audit.close();
        let bytes = fs::read(&place.path).expect("read");
        prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), records.len());
        prop_assert!(!bytes.iter().any(|byte| *byte < 0x20 && *byte != b'\n'));
        // The order of what has the same time is free.
        let sorted = |mut lines: Vec<String>| { lines.sort(); lines };
        let written = sorted(place.lines().iter().map(Value::to_string).collect());
        prop_assert_eq!(written, sorted(records.drain(..).map(|record| expected(&record).to_string()).collect()));
    }
}
