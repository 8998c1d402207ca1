//! The metrics: read back by a parser of the format that knows nothing of how they were written, and held against the page
//! that describes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pipeward::control::application::counts::{Called, Numbers};
use pipeward::control::metrics::{CONTENT_TYPE, Calls, Extra, names, reference, render};
use pipeward::control::queues::{QueueFacts, Totals};
use pipeward::protocol::codes::{CloseCode, Code};
use pipeward::shard::command::{Stats, TICK_BOUNDS_NS};

type Labels = BTreeMap<String, String>;

/// One metric as it was read.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Name, labels, value, in the order of the text.
    samples: Vec<(String, Labels, f64)>,
}

/// Reads the exposition format 0.0.4, strictly: HELP, then TYPE, then the samples of one metric together, no two alike.
fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    if !text.ends_with('\n') {
        return Err("the last line is not ended".to_owned());
    }
    for line in text.lines() {
        let fault = |what: &str| format!("{what}: {line}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(fault("no sentence"))?;
            if !is_name(name) || families.contains_key(name) {
                return Err(fault("a bad or repeated name"));
            }
            current = name.to_owned();
            families.insert(current.clone(), Family { help: help.to_owned(), ..Family::default() });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(fault("no type"))?;
            let family = families.get_mut(name).filter(|family| name == current && family.kind.is_empty());
            let family = family.ok_or(fault("a type out of place"))?;
            if !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(fault("no such type"));
            }
            family.kind = kind.to_owned();
        } else {
            let (name, labels, value) = sample(line).ok_or(fault("no sample"))?;
            let family = families.get_mut(&current).ok_or(fault("a sample of nothing"))?;
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !suffixes.iter().any(|suffix| name == format!("{current}{suffix}")) {
                return Err(fault("a sample out of place"));
            }
            if !seen.insert((name.clone(), labels.clone())) {
                return Err(fault("a sample twice"));
            }
            if family.kind != "gauge" && (value.is_nan() || value < 0.0) {
                return Err(fault("a count below 0"));
            }
            family.samples.push((name, labels, value));
        }
    }
    Ok(families)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        while !inner.starts_with('}') {
            let (label, after) = inner.split_once("=\"")?;
            let close = after.find('"')?;
            let value = &after[..close];
            if !is_name(label) || value.contains('\\') || labels.insert(label.to_owned(), value.to_owned()).is_some() {
                return None;
            }
            inner = &after[close + 1..];
            inner = match inner.strip_prefix(',') {
                Some(next) if !next.starts_with('}') => next,
                Some(_) => return None,
                None => inner,
            };
        }
        rest = &inner[1..];
    }
    let value = rest.strip_prefix(' ')?;
    let plain = value.bytes().all(|b| b.is_ascii_digit() || b".+-eE".contains(&b));
    (is_name(name) && plain).then_some(())?;
    Some((name.to_owned(), labels, value.parse().ok()?))
}

/// Two workers with something in every field that matters.
fn workers() -> Vec<Stats> {
    (0..2)
        .map(|worker| {
            let factor = worker as u64 + 1;
            let mut stats = Stats {
                worker,
                connections: 10 * factor,
                open: 9 * factor,
                queue_bytes: 1 << 40,
                doorbells_missed: factor,
                ..Stats::default()
            };
            stats.counters.welcomed = 7 * factor;
            stats.counters.handshakes_abandoned = 3;
            stats.counters.events_out = u64::MAX / 4;
            (0..factor).for_each(|_| stats.counters.refuse(Code::Forbidden));
            stats.counters.deny(Code::Forbidden);
            stats.counters.deny(Code::RateLimited);
            stats.counters.close(CloseCode::TooSlow);
            [1, 10_000, 10_001, 700_000, u64::MAX / 8].iter().for_each(|ns| stats.ticks.note(*ns));
            stats
        })
        .collect()
}

fn numbers() -> Numbers {
    let mut numbers =
        Numbers { asked: 20, in_flight: 2, faults: [1, 2, 3, 4], time_us: 1_500_000, ..Numbers::default() };
    (numbers.times[0], numbers.times[9], numbers.times[10]) = (5, 1, 2);
    numbers
}

fn extra() -> Extra {
    Extra {
        revocations: 4,
        audit_written: 1_000,
        audit_dropped: 5,
        audit_failures: 2,
        ready: true,
        connections_limit: 100_000,
        started_ms: 1_700_000_000_500,
        calls: Called::ALL.map(|called| Calls { called, numbers: numbers() }).into(),
        upgrades_waiting: 6,
        calls_waiting: 8,
        queues: vec![QueueFacts {
            name: "jobs".into(),
            configured: true,
            depth: 11,
            bytes: 12,
            oldest_ms: Some(1_700_000_000_000),
            attempts: 1,
            last_error: None,
            dead: 13,
            totals: Totals { enqueued: 1, refused: 2, delivered: 3, failed: 4, died: 5, forgotten: 6 },
        }],
        now_ms: 1_700_000_090_500,
    }
}

fn value(families: &BTreeMap<String, Family>, metric: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let family = &families[metric];
    let found = family.samples.iter().find(|sample| sample.0 == metric && sample.1 == labels);
    found.unwrap_or_else(|| panic!("{metric} {labels:?}")).2
}

// Issue 3, 8; E13
#[test]
fn the_output_is_valid_and_says_what_the_workers_said() {
    let families = parse(&render(&workers(), &extra())).expect("valid");
    let described: Vec<&str> = names().map(|(name, ..)| name).collect();
    assert_eq!(families.len(), described.len());
    for (name, kind, labels) in names() {
        let family = &families[name];
        assert_eq!(family.kind, kind, "{name}");
        assert!(family.help.len() > 5 && !family.samples.is_empty(), "{name}");
        for (_, found, _) in
            family.samples.iter().filter(|sample| !sample.0.ends_with("_sum") && !sample.0.ends_with("_count"))
        {
            let mut expected: Vec<&str> = labels.split(", ").filter(|label| !label.is_empty()).collect();
            expected.sort_unstable();
            assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{name}");
        }
    }
    let of = |metric: &str, labels: &[(&str, &str)]| value(&families, metric, labels);
    assert_eq!(of("pipeward_connections", &[]), 30.0);
    assert_eq!(of("pipeward_worker_connections", &[("worker", "1")]), 20.0);
    assert_eq!(of("pipeward_refused_total", &[("code", "FORBIDDEN")]), 5.0);
    assert_eq!(of("pipeward_refused_total", &[("code", "SCHEMA")]), 0.0);
    assert_eq!(of("pipeward_handshakes_refused_total", &[("code", "FORBIDDEN")]), 3.0);
    assert_eq!(of("pipeward_messages_denied_total", &[("code", "RATE_LIMITED")]), 2.0);
    assert_eq!(of("pipeward_closed_total", &[("code", "4413")]), 2.0);
    assert_eq!(of("pipeward_worker_handshakes_total", &[("outcome", "refused"), ("worker", "1")]), 2.0);
    assert_eq!(of("pipeward_worker_handshakes_total", &[("outcome", "welcomed"), ("worker", "0")]), 7.0);
    assert_eq!(of("pipeward_worker_doorbells_missed_total", &[("worker", "1")]), 2.0);
    assert_eq!(of("pipeward_audit_dropped_total", &[]), 5.0);
    assert_eq!(of("pipeward_calls_total", &[("call", "action")]), 20.0);
    assert_eq!(of("pipeward_calls_in_flight", &[("call", "rule")]), 2.0);
    assert_eq!(of("pipeward_call_failures_total", &[("call", "authorize"), ("reason", "unavailable")]), 3.0);
    assert_eq!((of("pipeward_upgrades_waiting", &[]), of("pipeward_calls_waiting", &[])), (6.0, 8.0));
    let jobs = [("queue", "jobs")];
    assert_eq!((of("pipeward_queue_depth", &jobs), of("pipeward_queue_dead", &jobs)), (11.0, 13.0));
    assert_eq!(of("pipeward_queue_oldest_seconds", &jobs), 90.5);
    assert_eq!(of("pipeward_queue_delivered_total", &jobs), 3.0);
    let times = &families["pipeward_call_seconds"].samples;
    let value_of = |name: &str, le: Option<&str>| {
        let own = |labels: &Labels| labels["call"] == "queue" && labels.get("le").map(String::as_str) == le;
        times.iter().find(|(own_name, labels, _)| own_name.ends_with(name) && own(labels)).expect("a sample").2
    };
    assert_eq!((value_of("_bucket", Some("0.005")), value_of("_bucket", Some("5"))), (5.0, 6.0));
    assert_eq!((value_of("_bucket", Some("+Inf")), value_of("_count", None), value_of("_sum", None)), (8.0, 8.0, 1.5));
    assert_eq!(of("pipeward_revocations", &[]), 4.0);
    assert_eq!(of("pipeward_ready", &[]), 1.0);
    assert_eq!(of("pipeward_start_time_seconds", &[]), 1_700_000_000.5);
    assert!(CONTENT_TYPE.contains("version=0.0.4"));
}

#[test]
fn the_histogram_grows_to_its_count() {
    let families = parse(&render(&workers(), &extra())).expect("valid");
    let samples = &families["pipeward_worker_tick_seconds"].samples;
    for worker in ["0", "1"] {
        let own = |suffix: &str| -> Vec<(f64, f64)> {
            let of_worker =
                samples.iter().filter(|(name, labels, _)| name.ends_with(suffix) && labels["worker"] == worker);
            of_worker
                .map(|(_, labels, value)| {
                    let le = labels.get("le").map_or("0", String::as_str);
                    (le.replace("+Inf", "inf").parse().expect("a bound"), *value)
                })
                .collect()
        };
        let buckets = own("_bucket");
        assert_eq!(buckets.len(), TICK_BOUNDS_NS.len() + 1);
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert_eq!((buckets[0], buckets[1]), ((0.000_01, 2.0), (0.000_025, 3.0)));
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 5.0)));
        assert_eq!(own("_count")[0].1, 5.0);
        assert!(own("_sum")[0].1 > 1e9);
    }
}

#[test]
fn a_server_without_an_answer_of_its_workers_is_still_valid() {
    let families = parse(&render(&[], &Extra::default())).expect("valid");
    assert_eq!(value(&families, "pipeward_connections", &[]), 0.0);
    assert_eq!(value(&families, "pipeward_ready", &[]), 0.0);
    assert!(families["pipeward_worker_connections"].samples.is_empty());
}

#[test]
fn the_parser_refuses_what_the_format_forbids() {
    let head = "# HELP a A.\n# TYPE a counter\n";
    for (text, ok) in [
        ("a 1\n", true),
        ("a{b=\"c\",d=\"e\"} 1\n", true),
        ("a 1", false),
        ("a{b=\"c\",} 1\n", false),
        ("a{b=\"c\"}1\n", false),
        ("a{b=\"c\",b=\"d\"} 1\n", false),
        ("a 1\na 2\n", false),
        ("a -1\n", false),
        ("a_sum 1\n", false),
        ("b 1\n", false),
        ("a x\n", false),
        ("# TYPE a counter\n", false),
        ("# HELP a A.\n", false),
        ("\n", false),
    ] {
        assert_eq!(parse(&format!("{head}{text}")).is_ok(), ok, "{text}");
    }
}

/// `docs/metrics.md` is made from the table of metrics. To write it anew: `BLESS=1 cargo test --test metrics`.
#[test]
fn the_page_of_metrics_is_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let made = reference();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &made).expect("the page is writable");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == made, "docs/metrics.md is out of date; run: BLESS=1 cargo test --test metrics");
}
