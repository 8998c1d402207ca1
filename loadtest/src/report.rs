//! What was measured: one record for each round, medians of the rounds and of their ratios, as JSON. The
//! human form is [`table`]'s.

use std::io::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::Trouble;
use crate::order::Faults;
use crate::regression::Line;
use crate::table;

/// One round against one server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measurement {
    /// Name of the scenario.
    pub scenario: String,
    /// `pipeward`, `baseline` or a URL.
    pub server: String,
    /// Worker threads, where we started it.
    pub workers: Option<u16>,
    /// From 1.
    pub round: u32,
    /// Clients, publishers included.
    pub connections: usize,
    /// Pipes.
    pub pipes: u32,
    /// Bytes of a publish's `data`.
    pub payload_bytes: u32,
    /// Publishes outstanding on each pipe.
    pub window: Option<u32>,
    /// Publishes per second in all.
    pub rate_per_s: Option<f64>,
    /// Length of the measured part.
    pub seconds: f64,
    /// Publishes in it.
    pub messages: u64,
    /// Events received in it.
    pub deliveries: u64,
    /// Events that never came, over the whole round.
    pub lost: u64,
    /// Events that came twice.
    pub duplicated: u64,
    /// Events that came after a later one.
    pub disordered: u64,
    /// Events at somebody who should not get them.
    pub unexpected: u64,
    /// The four counts are lower bounds.
    pub inexact: bool,
    /// Clients refused, closed or broken.
    pub clients_lost: u64,
    /// Replies with `ok:false`.
    pub refusals: u64,
    /// `lagged` frames.
    pub lagged: u64,
    /// Everything awaited arrived.
    pub completed: bool,
    /// The first thing that went wrong, in words.
    pub first_trouble: Option<String>,
    /// CPU of the server in the measured part, all threads, in nanoseconds.
    pub server_cpu_ns: Option<u64>,
    /// CPU of the kernel's network threads on the server's cores, where those are known.
    pub softirq_cpu_ns: u64,
    /// Time that its threads waited for a core, in nanoseconds: other programs ran there.
    pub server_waited_ns: Option<u64>,
    /// CPU of the load generator; the whole time where it spins.
    pub load_cpu_ns: Option<u64>,
    /// CPU of the server and of the network threads for one delivery (scenario `connect`: one connection), in
    /// microseconds.
    pub cpu_us: Option<f64>,
    /// Deliveries (connections) per second.
    pub per_s: f64,
    /// Of deliveries, from the intended sending; of connections, from opening to the reply to the subscribe.
    pub latency: Option<Latency>,
    /// Of deliveries that one worker made from end to end; scenario `cross`, where the server names its workers.
    pub same_worker: Option<Latency>,
    /// Of deliveries that crossed from one worker to another.
    pub across_workers: Option<Latency>,
    /// Memory at several counts.
    pub memory: Option<Memory>,
    /// Resident memory of the server at the end.
    pub server_rss_bytes: Option<u64>,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Values recorded.
    pub samples: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Half are below.
    pub p50_us: f64,
    /// 99 % are below.
    pub p99_us: f64,
    /// 99.9 % are below.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Memory of the server against the number of connections.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Resident memory of the process, in bytes.
    pub rss: Option<Line>,
    /// Slab memory of the whole kernel, in bytes: on one machine, both ends of each connection.
    pub slab: Option<Line>,
    /// What the lines were drawn through.
    pub points: Vec<MemoryPoint>,
}

/// Memory at one count of connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryPoint {
    /// Connections that are ready.
    pub connections: usize,
    /// Resident memory of the server.
    pub rss_bytes: Option<u64>,
    /// Slab memory of the kernel.
    pub slab_bytes: Option<u64>,
}

/// The median round of one server, figure by figure.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Which server.
    pub server: String,
    /// CPU for one delivery or connection, in microseconds.
    pub cpu_us: Option<f64>,
    /// Deliveries or connections per second.
    pub per_s: Option<f64>,
    /// Median latency in microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile.
    pub p99_us: Option<f64>,
    /// 99.9th percentile.
    pub p999_us: Option<f64>,
    /// Median latency across workers less that on one worker: what crossing adds, in microseconds.
    pub crossing_us: Option<f64>,
    /// Resident memory for one more connection, in bytes.
    pub rss_bytes_per_connection: Option<f64>,
}

/// Everything of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Kernel release and processor.
    pub machine: String,
    /// The command line.
    pub command: String,
    /// One for each server, in the order of their first rounds.
    pub summaries: Vec<Summary>,
    /// The first server's figures divided by the second's, where two were compared: the median of the rounds' ratios.
    /// A machine may change its speed by half between rounds, seldom within one.
    pub ratios: Option<Summary>,
    /// The ratios of each round.
    pub ratio_rounds: Vec<Summary>,
    /// Every round.
    pub measurements: Vec<Measurement>,
}

impl Latency {
    /// The percentiles of a histogram in nanoseconds; none if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            samples: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        })
    }
}

impl Measurement {
    /// Derives CPU and rate for each of `units` deliveries or connections.
    pub fn per_unit(&mut self, units: u64) {
        self.per_s = units as f64 / self.seconds;
        let cpu_ns = self.server_cpu_ns.filter(|_| units > 0).map(|cpu_ns| cpu_ns + self.softirq_cpu_ns);
        self.cpu_us = cpu_ns.map(|cpu_ns| cpu_ns as f64 / 1e3 / units as f64);
    }

    /// Takes over what went wrong.
    pub fn faults(&mut self, faults: Faults, trouble: &Trouble) {
        (self.lost, self.duplicated) = (faults.lost, faults.duplicated);
        (self.disordered, self.unexpected, self.inexact) = (faults.disordered, faults.unexpected, faults.inexact);
        (self.clients_lost, self.refusals, self.lagged) = (trouble.clients_lost, trouble.refusals, trouble.lagged);
        self.first_trouble.clone_from(&trouble.first);
    }

    /// Cores that the server and the network threads of its cores were busy on.
    pub fn cpu_share(&self) -> Option<f64> {
        let cpu_ns = self.server_cpu_ns? + self.softirq_cpu_ns;
        (self.seconds > 0.0).then(|| cpu_ns as f64 / 1e9 / self.seconds)
    }

    /// What crossing from one worker to another adds to the median latency.
    pub fn crossing_us(&self) -> Option<f64> {
        Some(self.across_workers?.p50_us - self.same_worker?.p50_us)
    }

    /// The share of its time in which the server waited for a core that others than the kernel's network threads had.
    pub fn disturbance(&self) -> f64 {
        let cpu = self.server_cpu_ns.unwrap_or(0) as f64;
        let waited = self.server_waited_ns.unwrap_or(0).saturating_sub(self.softirq_cpu_ns) as f64;
        if waited > 0.0 { waited / (cpu + waited) } else { 0.0 }
    }

    /// Nothing was lost, doubled, out of order, refused or left over.
    pub fn is_clean(&self) -> bool {
        let faults = [self.lost, self.duplicated, self.disordered, self.unexpected];
        self.completed
            && faults == [0; 4]
            && [self.clients_lost, self.refusals, self.lagged] == [0; 3]
            && self.first_trouble.is_none()
    }
}

impl Report {
    /// Summarises the rounds.
    pub fn new(measurements: Vec<Measurement>) -> Self {
        let mut servers: Vec<&str> = Vec::new();
        for measurement in &measurements {
            if !servers.contains(&measurement.server.as_str()) {
                servers.push(&measurement.server);
            }
        }
        let summaries: Vec<_> = servers.iter().map(|server| Summary::of(server, &measurements)).collect();
        let ratio_rounds = match servers[..] {
            [first, second] => Summary::ratios(first, second, &measurements),
            _ => Vec::new(),
        };
        let ratios = ratio_rounds.first().map(|first| Summary::median(first.server.clone(), &ratio_rounds));
        Self { machine: machine(), command: command(), summaries, ratios, ratio_rounds, measurements }
    }

    /// Every round is clean.
    pub fn is_clean(&self) -> bool {
        self.measurements.iter().all(Measurement::is_clean)
    }

    /// Writes the report to stdout.
    pub fn print(&self, json: bool) {
        let data = || serde_json::to_string_pretty(self).expect("numbers and strings serialise");
        say(&if json { data() } else { table::text(self) });
    }
}

impl Summary {
    fn of(server: &str, measurements: &[Measurement]) -> Self {
        let rounds = measurements.iter().filter(|measurement| measurement.server == server).map(Self::one);
        Self::median(server.to_owned(), &rounds.collect::<Vec<_>>())
    }

    /// The figures of one round.
    pub fn one(measurement: &Measurement) -> Self {
        let latency = measurement.latency;
        let rss = measurement.memory.as_ref().and_then(|memory| memory.rss);
        Self {
            server: measurement.server.clone(),
            cpu_us: measurement.cpu_us,
            per_s: (measurement.per_s > 0.0).then_some(measurement.per_s),
            p50_us: latency.map(|latency| latency.p50_us),
            p99_us: latency.map(|latency| latency.p99_us),
            p999_us: latency.map(|latency| latency.p999_us),
            crossing_us: measurement.crossing_us(),
            rss_bytes_per_connection: rss.map(|line| line.slope),
        }
    }

    fn median(server: String, rounds: &[Self]) -> Self {
        let median = |read: fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(read).collect());
        Self {
            server,
            cpu_us: median(|round| round.cpu_us),
            per_s: median(|round| round.per_s),
            p50_us: median(|round| round.p50_us),
            p99_us: median(|round| round.p99_us),
            p999_us: median(|round| round.p999_us),
            crossing_us: median(|round| round.crossing_us),
            rss_bytes_per_connection: median(|round| round.rss_bytes_per_connection),
        }
    }

    fn ratios(first: &str, second: &str, measurements: &[Measurement]) -> Vec<Self> {
        let of = |server: &str, round: u32| {
            measurements.iter().find(|m| m.server == server && m.round == round).map(Self::one)
        };
        let rounds = measurements.iter().filter(|measurement| measurement.server == first);
        let over = |ours: &Measurement| {
            let ratio = Self::one(ours).over(&of(second, ours.round)?);
            Some(Self { server: format!("{first} / {second}"), ..ratio })
        };
        rounds.filter_map(over).collect()
    }

    fn over(&self, other: &Self) -> Self {
        let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs.filter(|value| *value != 0.0)?);
        Self {
            server: self.server.clone(),
            cpu_us: ratio(self.cpu_us, other.cpu_us),
            per_s: ratio(self.per_s, other.per_s),
            p50_us: ratio(self.p50_us, other.p50_us),
            p99_us: ratio(self.p99_us, other.p99_us),
            p999_us: ratio(self.p999_us, other.p999_us),
            crossing_us: None,
            rss_bytes_per_connection: ratio(self.rss_bytes_per_connection, other.rss_bytes_per_connection),
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Writes to stdout, with a line's end. Who does not want to hear it is no error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// The command line, without the program.
pub fn command() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
}

/// Kernel release and processor.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("", |pair| pair.1);
    // Not what this process may use: it may be bound to one core by now.
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("Linux {}, {cores} cores,{model}", read("/proc/sys/kernel/osrelease").trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(server: &str, cpu_us: f64) -> Measurement {
        Measurement { server: server.to_owned(), cpu_us: Some(cpu_us), completed: true, ..Measurement::default() }
    }

    #[test]
    fn ratios_are_the_medians_of_the_rounds() {
        // The machine is twice as slow in the second round: the ratio stays what it is.
        let rounds = [(1, 1.0, 2.0), (2, 2.0, 4.0), (3, 3.0, 4.0)];
        let both = |(round, ours, theirs)| {
            [("pipeward", ours), ("baseline", theirs)]
                .map(|(server, cpu_us)| Measurement { round, ..measured(server, cpu_us) })
        };
        let report = Report::new(rounds.map(both).concat());
        assert_eq!(report.summaries.iter().map(|s| s.cpu_us).collect::<Vec<_>>(), [Some(2.0), Some(4.0)]);
        assert_eq!(report.ratios.as_ref().and_then(|ratios| ratios.cpu_us), Some(0.5));
        assert!(report.is_clean());
        assert!(table::text(&report).contains("ratio"), "{}", table::text(&report));
    }

    #[test]
    fn any_fault_makes_a_report_unclean() {
        let faults: [fn(&mut Measurement); 6] = [
            |m| m.lost = 1,
            |m| m.disordered = 1,
            |m| m.duplicated = 1,
            |m| m.clients_lost = 1,
            |m| m.refusals = 1,
            |m| m.completed = false,
        ];
        for fault in faults {
            let mut bad = measured("a", 1.0);
            fault(&mut bad);
            assert!(!Report::new(vec![measured("a", 1.0), bad]).is_clean());
        }
    }

    #[test]
    fn a_busy_machine_is_told() {
        let mut disturbed = measured("a", 1.0);
        (disturbed.server_cpu_ns, disturbed.server_waited_ns) = (Some(60), Some(40));
        assert!(table::text(&Report::new(vec![disturbed])).contains("up to 40 %"));
        assert!(!table::text(&Report::new(vec![measured("a", 1.0)])).contains("waited"));
    }

    #[test]
    fn work_that_the_kernel_moved_to_its_network_threads_is_counted() {
        let mut round = measured("a", 0.0);
        (round.server_cpu_ns, round.softirq_cpu_ns, round.server_waited_ns) = (Some(2_000), 1_000, Some(1_000));
        round.seconds = 1.0;
        round.per_unit(10);
        assert_eq!((round.cpu_us, round.per_s, round.disturbance()), (Some(0.3), 10.0, 0.0));
    }

    #[test]
    fn medians_of_few_values() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
