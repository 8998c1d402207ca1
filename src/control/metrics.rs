//! The numbers of a server in the text format of Prometheus (exposition format 0.0.4).
//!
//! One table: every metric, its type, what it says and where it comes from. The output and `docs/metrics.md` are made
//! from it, and a test holds every counter of the workers to be in it.
//!
//! Workers count in plain memory; a scrape asks each of them and adds up here. What tells workers apart is named
//! `pipeward_worker_…` and has the label `worker`; everything else is of the whole process. Every label value is written
//! from the start, zeros included, so that a rate never begins with a gap.

use std::fmt::{Display, Write};

use super::application::counts::{BOUNDS_MS, Called, Fault, Numbers};
use super::queues::QueueFacts;
use crate::protocol::codes::{CloseCode, Code};
use crate::shard::command::{Stats, TICK_BOUNDS_NS};
use crate::shard::counters::Counters;

/// `Content-Type` of the output.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What no worker knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// Revocations in force.
    pub revocations: u64,
    /// Audit records that were written.
    pub audit_written: u64,
    /// Audit records that were dropped.
    pub audit_dropped: u64,
    /// Writes of the audit that failed.
    pub audit_failures: u64,
    /// `/readyz` answers 200.
    pub ready: bool,
    /// `limits.connections`; 0: none.
    pub connections_limit: u64,
    /// When the process started, Unix milliseconds.
    pub started_ms: u64,
    /// Calls to the application, by what is called.
    pub calls: Vec<Calls>,
    /// Upgrades that wait for authorize.
    pub upgrades_waiting: u64,
    /// Rules and actions that wait for room.
    pub calls_waiting: u64,
    /// All queues, by name.
    pub queues: Vec<QueueFacts>,
    /// Now, Unix milliseconds.
    pub now_ms: u64,
}

/// Calls of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Calls {
    /// Which.
    pub called: Called,
    /// What they came to.
    pub numbers: Numbers,
}

/// One metric.
struct Metric {
    name: &'static str,
    help: &'static str,
    source: Source,
}

/// Where a metric comes from. Type and labels follow.
enum Source {
    /// Gauge: one value of each worker.
    Worker(fn(&Stats) -> u64),
    /// Gauge: the same, added up.
    Sum(fn(&Stats) -> u64),
    /// Counter of each worker that stands beside its [`Counters`].
    WorkerTotal(fn(&Stats) -> u64),
    /// Counter of each worker, by its name in [`Counters`].
    Counter(&'static str),
    /// Counter for each code, of all workers.
    Codes(fn(&Counters, Code) -> u64),
    /// Counter for each close code, of all workers.
    Closes(fn(&Counters, CloseCode) -> u64),
    /// Handshakes of each worker by how they ended.
    Outcomes,
    /// Histogram of each worker.
    Ticks,
    /// Gauge of each kind of call.
    Call(fn(&Numbers) -> u64),
    /// Counter of each kind of call.
    CallTotal(fn(&Numbers) -> u64),
    /// Counter of each kind of call, by fault.
    CallFaults,
    /// Histogram of each kind of call.
    CallTimes,
    /// Gauge of each queue.
    Queue(fn(&QueueFacts) -> u64),
    /// Counter of each queue.
    QueueTotal(fn(&QueueFacts) -> u64),
    /// Gauge of each queue: how long the first message has waited.
    QueueAge,
    /// Gauge of the process.
    Process(fn(&Extra) -> f64),
    /// Counter of the process.
    ProcessTotal(fn(&Extra) -> u64),
    /// Always 1; the version is a label.
    Version,
}

const fn metric(name: &'static str, source: Source, help: &'static str) -> Metric {
    Metric { name, help, source }
}

/// How a handshake ends: the label and its counters.
const OUTCOMES: [&str; 4] = ["welcomed", "refused", "abandoned", "evicted"];

/// Every metric, in the order of the output.
static METRICS: &[Metric] = &[
    metric("pipeward_build_info", Source::Version, "Always 1; the label is the version that runs."),
    metric(
        "pipeward_start_time_seconds",
        Source::Process(|extra| extra.started_ms as f64 / 1000.0),
        "When the process started, Unix seconds.",
    ),
    metric(
        "pipeward_ready",
        Source::Process(|extra| f64::from(u8::from(extra.ready))),
        "1 while new connections are taken, else 0: starting or draining.",
    ),
    metric(
        "pipeward_connections",
        Source::Sum(|stats| stats.connections),
        "Connections, handshakes under way included.",
    ),
    metric(
        "pipeward_connections_limit",
        Source::Process(|extra| extra.connections_limit as f64),
        "limits.connections of the configuration; 0 is no limit.",
    ),
    metric(
        "pipeward_refused_total",
        Source::Codes(|counters, code| counters.refused(code) + counters.denied(code)),
        "Handshakes refused and messages denied, together, by code.",
    ),
    metric("pipeward_handshakes_refused_total", Source::Codes(Counters::refused), "Handshakes refused, by code."),
    metric("pipeward_messages_denied_total", Source::Codes(Counters::denied), "Messages denied, by code."),
    metric(
        "pipeward_closed_total",
        Source::Closes(Counters::closed),
        "Connections closed by the server, by close code.",
    ),
    metric(
        "pipeward_revocations",
        Source::Process(|extra| extra.revocations as f64),
        "Revocations in force, or not yet cleaned up after their end.",
    ),
    metric("pipeward_audit_written_total", Source::ProcessTotal(|extra| extra.audit_written), "Audit records written."),
    metric(
        "pipeward_audit_dropped_total",
        Source::ProcessTotal(|extra| extra.audit_dropped),
        "Audit records dropped: the buffer was full, or the file could not be written.",
    ),
    metric(
        "pipeward_audit_failures_total",
        Source::ProcessTotal(|extra| extra.audit_failures),
        "Writes of the audit that failed.",
    ),
    metric("pipeward_calls_total", Source::CallTotal(|one| one.asked), "Calls to the application that were wanted."),
    metric("pipeward_calls_in_flight", Source::Call(|one| one.in_flight), "Calls that are being answered."),
    metric(
        "pipeward_call_failures_total",
        Source::CallFaults,
        "Calls without a proper answer; a refusal is one. In the line: late or overloaded.",
    ),
    metric("pipeward_call_seconds", Source::CallTimes, "How long calls took, without waiting in line."),
    metric(
        "pipeward_upgrades_waiting",
        Source::Process(|extra| extra.upgrades_waiting as f64),
        "Upgrades in line for authorize, over auth.webhook.concurrency.",
    ),
    metric(
        "pipeward_calls_waiting",
        Source::Process(|extra| extra.calls_waiting as f64),
        "Calls of rules and actions in line.",
    ),
    metric("pipeward_queue_depth", Source::Queue(|one| one.depth), "Messages that wait in a queue."),
    metric("pipeward_queue_bytes", Source::Queue(|one| one.bytes), "Bytes of the messages that wait in a queue."),
    metric("pipeward_queue_oldest_seconds", Source::QueueAge, "How long the first message of a queue has waited."),
    metric("pipeward_queue_dead", Source::Queue(|one| one.dead), "Dead letters of a queue."),
    metric(
        "pipeward_queue_enqueued_total",
        Source::QueueTotal(|one| one.totals.enqueued),
        "Messages of a queue that were stored.",
    ),
    metric(
        "pipeward_queue_refused_total",
        Source::QueueTotal(|one| one.totals.refused),
        "Messages refused because the queue was full or the store failed.",
    ),
    metric(
        "pipeward_queue_delivered_total",
        Source::QueueTotal(|one| one.totals.delivered),
        "Messages that the application has taken.",
    ),
    metric(
        "pipeward_queue_attempts_failed_total",
        Source::QueueTotal(|one| one.totals.failed),
        "Attempts to deliver that failed.",
    ),
    metric(
        "pipeward_queue_died_total",
        Source::QueueTotal(|one| one.totals.died),
        "Messages that became dead letters.",
    ),
    metric(
        "pipeward_queue_dead_forgotten_total",
        Source::QueueTotal(|one| one.totals.forgotten),
        "Dead letters that were forgotten for want of room.",
    ),
    metric(
        "pipeward_worker_connections",
        Source::Worker(|stats| stats.connections),
        "Connections in whatever state, by worker.",
    ),
    metric("pipeward_worker_connections_open", Source::Worker(|stats| stats.open), "Connections that are served."),
    metric("pipeward_worker_subscriptions", Source::Worker(|stats| stats.subscriptions), "Subscriptions."),
    metric("pipeward_worker_pipes", Source::Worker(|stats| stats.pipes), "Pipes known."),
    metric(
        "pipeward_worker_queue_bytes",
        Source::Worker(|stats| stats.queue_bytes),
        "Bytes that wait to be sent; what several connections share counts once.",
    ),
    metric(
        "pipeward_worker_assembly_bytes",
        Source::Worker(|stats| stats.assembly_bytes),
        "Bytes of messages that are not complete, or wait for their rate.",
    ),
    metric(
        "pipeward_worker_connections_stalled",
        Source::Worker(|stats| stats.stalled),
        "Connections whose publish waits for room in a ring.",
    ),
    metric(
        "pipeward_worker_ring_entries",
        Source::Worker(|stats| stats.ring_depth),
        "Entries in the rings to this worker.",
    ),
    metric(
        "pipeward_worker_doorbells_missed_total",
        Source::WorkerTotal(|stats| stats.doorbells_missed),
        "Sweeps that found what nobody had rung for. Anything but 0 is a bug.",
    ),
    metric(
        "pipeward_worker_tick_seconds",
        Source::Ticks,
        "How long ticks took, from waking to sleeping. What takes long delays everything else of the worker.",
    ),
    metric("pipeward_worker_accepted_total", Source::Counter("accepted"), "Sockets accepted."),
    metric(
        "pipeward_worker_handshakes_total",
        Source::Outcomes,
        "Handshakes by how they ended: welcomed, refused, abandoned (silent or too late), evicted (to make room).",
    ),
    metric("pipeward_worker_messages_received_total", Source::Counter("messages_in"), "Messages of clients."),
    metric(
        "pipeward_worker_received_bytes_total",
        Source::Counter("message_bytes_in"),
        "Bytes of messages of clients, without frame headers.",
    ),
    metric(
        "pipeward_worker_messages_malformed_total",
        Source::Counter("malformed"),
        "Messages that could not be read.",
    ),
    metric("pipeward_worker_events_published_total", Source::Counter("events_in"), "Events that clients published."),
    metric(
        "pipeward_worker_events_taken_total",
        Source::Counter("events_from_workers"),
        "Events taken from other workers.",
    ),
    metric(
        "pipeward_worker_events_handed_total",
        Source::Counter("events_to_workers"),
        "Events handed to other workers, once for each.",
    ),
    metric(
        "pipeward_worker_events_delivered_total",
        Source::Counter("events_out"),
        "Events queued for a subscriber: the fan-out.",
    ),
    metric(
        "pipeward_worker_events_dropped_total",
        Source::Counter("events_dropped"),
        "Events left out for connections that were too slow; each was told how many.",
    ),
    metric(
        "pipeward_worker_presence_frames_total",
        Source::Counter("presence_out"),
        "Presence frames queued for a watcher.",
    ),
    metric(
        "pipeward_worker_presence_waits_total",
        Source::Counter("presence_waits"),
        "Messages that waited until it was known who is in a pipe.",
    ),
    metric(
        "pipeward_worker_ring_full_total",
        Source::Counter("ring_full"),
        "Publishes that waited for room in a ring.",
    ),
    metric("pipeward_worker_messages_slowed_total", Source::Counter("slowed"), "Messages that waited for their rate."),
    metric(
        "pipeward_worker_throttled_total",
        Source::Counter("throttled"),
        "Episodes in which a client was over its rate and was told so.",
    ),
    metric(
        "pipeward_worker_calls_total",
        Source::Counter("calls"),
        "Calls that left for the application or the control thread: authorize, rules, actions, queues, pushes.",
    ),
    metric(
        "pipeward_worker_messages_set_aside_total",
        Source::Counter("set_aside"),
        "Messages that waited for the application.",
    ),
    metric(
        "pipeward_worker_answers_failed_total",
        Source::Counter("answers_failed"),
        "Rules of the application that had no usable answer. Each refused.",
    ),
    metric(
        "pipeward_worker_rule_faults_total",
        Source::Counter("rule_faults"),
        "Rules that failed: an error, or no boolean. Each refused.",
    ),
    metric(
        "pipeward_worker_filter_faults_total",
        Source::Counter("filter_faults"),
        "Filters that failed for an event and a subscriber. Each left the event out.",
    ),
    metric(
        "pipeward_worker_authorize_faults_total",
        Source::Counter("authorize_faults"),
        "Handshakes and refreshes that failed because the webhook could not be asked, or answered something else.",
    ),
    metric("pipeward_worker_pings_total", Source::Counter("pings"), "Pings sent."),
    metric(
        "pipeward_worker_stale_total",
        Source::Counter("stale"),
        "Answers that came for a connection that had ended.",
    ),
    metric(
        "pipeward_worker_over_budget_total",
        Source::Counter("over_budget"),
        "Connections closed because the worker's queues or unfinished messages were over their bound.",
    ),
    metric("pipeward_worker_writes_total", Source::Counter("writes"), "Writes handed to the kernel."),
    metric("pipeward_worker_sent_bytes_total", Source::Counter("bytes_out"), "Bytes handed to the kernel."),
];

/// The output for a scrape.
pub fn render(workers: &[Stats], extra: &Extra) -> String {
    // A scrape of one worker is some 9 KB.
    let mut out = String::with_capacity(8192 + 4096 * workers.len());
    for metric in METRICS {
        line(&mut out, format_args!("# HELP {} {}", metric.name, metric.help));
        line(&mut out, format_args!("# TYPE {} {}", metric.name, metric.source.kind()));
        samples(&mut out, metric, workers, extra);
    }
    out
}

/// The whole of `docs/metrics.md`.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for metric in METRICS {
        let labels = match metric.source.labels() {
            "" => "–".to_owned(),
            labels => format!("`{}`", labels.replace(", ", "`, `")),
        };
        line(&mut page, format_args!("| `{}` | {} | {labels} | {} |", metric.name, metric.source.kind(), metric.help));
    }
    page
}

/// Name, type and labels (separated by `, `) of every metric, in the order of the output.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    METRICS.iter().map(|metric| (metric.name, metric.source.kind(), metric.source.labels()))
}

const HEAD: &str = "\
# Metrics

`GET /metrics` on the control listener, with an API key whose `allow` has `metrics`, answers in the text format of
Prometheus (version 0.0.4). What to watch and when to be woken: [operating.md](operating.md#metrics-and-alerts). This page is
made from the table in `src/control/metrics.rs`.

- What is named `pipeward_worker_…` has the label `worker`, the worker's number from 0; sum over it for the whole server.
  Everything else is of the process.
- `code` is a code of [protocol.md](protocol.md), such as `FORBIDDEN`, or the number of a close code, such as `4413`.
- Counters start at 0 with the process and end in `_total`. Bytes are bytes, times are seconds.
- `call` is what the application is called for: `authorize`, `rule`, `action` or `queue`. `queue` is a queue's name.
- Workers count in plain memory and are asked at each scrape; a scrape costs each of them some microseconds.
- Deliveries per published event (fan-out) are `pipeward_worker_events_delivered_total` over
  `pipeward_worker_events_published_total`, both summed over the workers.

| metric | type | labels | meaning |
|---|---|---|---|
";

impl Source {
    fn kind(&self) -> &'static str {
        match self {
            Source::Worker(_) | Source::Sum(_) | Source::Process(_) | Source::Version => "gauge",
            Source::Call(_) | Source::Queue(_) | Source::QueueAge => "gauge",
            Source::Ticks | Source::CallTimes => "histogram",
            _ => "counter",
        }
    }

    fn labels(&self) -> &'static str {
        match self {
            Source::Worker(_) | Source::WorkerTotal(_) | Source::Counter(_) => "worker",
            Source::Outcomes => "worker, outcome",
            Source::Ticks => "worker, le",
            Source::Codes(_) | Source::Closes(_) => "code",
            Source::Version => "version",
            Source::Call(_) | Source::CallTotal(_) => "call",
            Source::CallFaults => "call, reason",
            Source::CallTimes => "call, le",
            Source::Queue(_) | Source::QueueTotal(_) | Source::QueueAge => "queue",
            Source::Sum(_) | Source::Process(_) | Source::ProcessTotal(_) => "",
        }
    }
}

fn samples(out: &mut String, metric: &Metric, workers: &[Stats], extra: &Extra) {
    let name = metric.name;
    match &metric.source {
        Source::Worker(value) | Source::WorkerTotal(value) => {
            for stats in workers {
                line(out, format_args!("{name}{{worker=\"{}\"}} {}", stats.worker, value(stats)));
            }
        }
        Source::Counter(counter) => {
            for stats in workers {
                let value = plain(&stats.counters, counter);
                line(out, format_args!("{name}{{worker=\"{}\"}} {value}", stats.worker));
            }
        }
        Source::Sum(value) => line(out, format_args!("{name} {}", workers.iter().map(value).sum::<u64>())),
        Source::Codes(value) => {
            for code in Code::ALL {
                let sum: u64 = workers.iter().map(|stats| value(&stats.counters, *code)).sum();
                line(out, format_args!("{name}{{code=\"{}\"}} {sum}", code.name()));
            }
        }
        Source::Closes(value) => {
            for code in CloseCode::ALL {
                let sum: u64 = workers.iter().map(|stats| value(&stats.counters, *code)).sum();
                line(out, format_args!("{name}{{code=\"{}\"}} {sum}", code.number()));
            }
        }
        Source::Outcomes => {
            for stats in workers {
                for (outcome, value) in OUTCOMES.iter().zip(outcomes(&stats.counters)) {
                    let worker = stats.worker;
                    line(out, format_args!("{name}{{worker=\"{worker}\",outcome=\"{outcome}\"}} {value}"));
                }
            }
        }
        Source::Ticks => workers.iter().for_each(|stats| ticks(out, name, stats)),
        Source::Call(value) | Source::CallTotal(value) => {
            for Calls { called, numbers } in &extra.calls {
                line(out, format_args!("{name}{{call=\"{}\"}} {}", called.name(), value(numbers)));
            }
        }
        Source::CallFaults => {
            for Calls { called, numbers } in &extra.calls {
                for (fault, count) in Fault::ALL.iter().zip(numbers.faults) {
                    let (called, reason) = (called.name(), fault.name());
                    line(out, format_args!("{name}{{call=\"{called}\",reason=\"{reason}\"}} {count}"));
                }
            }
        }
        Source::CallTimes => extra.calls.iter().for_each(|calls| call_times(out, name, calls)),
        Source::Queue(value) | Source::QueueTotal(value) => {
            for queue in &extra.queues {
                line(out, format_args!("{name}{{queue=\"{}\"}} {}", escaped(&queue.name), value(queue)));
            }
        }
        Source::QueueAge => {
            for queue in &extra.queues {
                let age_ms = queue.oldest_ms.map_or(0, |oldest_ms| extra.now_ms.saturating_sub(oldest_ms));
                line(out, format_args!("{name}{{queue=\"{}\"}} {}", escaped(&queue.name), age_ms as f64 / 1000.0));
            }
        }
        Source::Process(value) => line(out, format_args!("{name} {}", value(extra))),
        Source::ProcessTotal(value) => line(out, format_args!("{name} {}", value(extra))),
        Source::Version => line(out, format_args!("{name}{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))),
    }
}

fn ticks(out: &mut String, name: &str, stats: &Stats) {
    let worker = stats.worker;
    let mut below = 0;
    for (count, bound_ns) in stats.ticks.counts.iter().zip(TICK_BOUNDS_NS) {
        below += count;
        let le = bound_ns as f64 / 1e9;
        line(out, format_args!("{name}_bucket{{worker=\"{worker}\",le=\"{le}\"}} {below}"));
    }
    let all: u64 = stats.ticks.counts.iter().sum();
    line(out, format_args!("{name}_bucket{{worker=\"{worker}\",le=\"+Inf\"}} {all}"));
    line(out, format_args!("{name}_sum{{worker=\"{worker}\"}} {}", stats.ticks.sum_ns as f64 / 1e9));
    line(out, format_args!("{name}_count{{worker=\"{worker}\"}} {all}"));
}

fn call_times(out: &mut String, name: &str, calls: &Calls) {
    let Calls { called, numbers } = calls;
    let call = called.name();
    let mut below = 0;
    for (count, bound_ms) in numbers.times.iter().zip(BOUNDS_MS) {
        below += count;
        let le = bound_ms as f64 / 1000.0;
        line(out, format_args!("{name}_bucket{{call=\"{call}\",le=\"{le}\"}} {below}"));
    }
    let all: u64 = numbers.times.iter().sum();
    line(out, format_args!("{name}_bucket{{call=\"{call}\",le=\"+Inf\"}} {all}"));
    line(out, format_args!("{name}_sum{{call=\"{call}\"}} {}", numbers.time_us as f64 / 1e6));
    line(out, format_args!("{name}_count{{call=\"{call}\"}} {all}"));
}

/// A label's value: names of queues are a configuration's.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// In the order of [`OUTCOMES`].
fn outcomes(counters: &Counters) -> [u64; OUTCOMES.len()] {
    let refused = Code::ALL.iter().map(|code| counters.refused(*code)).sum();
    [counters.welcomed, refused, counters.handshakes_abandoned, counters.handshakes_evicted]
}

/// A counter by its name; the tests know that every name of the table is one.
fn plain(counters: &Counters, name: &str) -> u64 {
    counters.plain().into_iter().find(|(own, _)| *own == name).map_or(0, |(_, value)| value)
}

fn line(out: &mut String, text: impl Display) {
    // Into memory: it cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    // One fact, one table: what a worker counts is shown, and under a name of its own.
    #[test]
    fn every_counter_of_a_worker_is_a_metric() {
        let mut shown: Vec<&str> = METRICS
            .iter()
            .filter_map(|metric| match metric.source {
                Source::Counter(name) => Some(name),
                _ => None,
            })
            .chain(["welcomed", "handshakes_abandoned", "handshakes_evicted"])
            .collect();
        let mut counted: Vec<&str> = Counters::default().plain().into_iter().map(|(name, _)| name).collect();
        shown.sort_unstable();
        counted.sort_unstable();
        assert_eq!(shown, counted, "metrics (left) against shard::counters (right)");
    }

    #[test]
    fn a_name_of_a_queue_cannot_break_the_format() {
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }

    #[test]
    fn names_and_sentences_are_in_the_style_of_prometheus() {
        for (at, Metric { name, help, source }) in METRICS.iter().enumerate() {
            assert!(name.starts_with("pipeward_"), "{name}"); // E13
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), source.kind() == "counter", "{name}");
            assert_eq!(name.starts_with("pipeward_worker_"), source.labels().starts_with("worker"), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\\', '\n', '|']), "{name}");
            assert!(METRICS[..at].iter().all(|earlier| earlier.name != *name), "{name} stands twice");
        }
    }
}
