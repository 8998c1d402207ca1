//! What the measured clients felt, as a record and as a table.

use std::fmt::Write as _;

use serde::Serialize;

use crate::report::{Latency, command, machine, median, say};
use crate::table::{number, table};

/// One phase.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Phase {
    /// Of the measured clients, from a publish handed to the kernel to the event at its receiver's socket.
    pub latency: Option<Latency>,
    /// The same until the measuring thread had the event, 99th percentile in microseconds.
    pub seen_p99_us: Option<f64>,
    /// How late the measuring thread itself was with its publishes, 99th percentile in microseconds. It is not in the
    /// latency.
    pub late_p99_us: Option<f64>,
    /// Cores that the server was busy on.
    pub cpu_share: Option<f64>,
}

/// A quiet phase and the disturbed one after it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    /// Without.
    pub quiet: Phase,
    /// With.
    pub disturbed: Phase,
}

/// One disturbance.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name on the command line.
    pub name: String,
    /// What happens in it.
    pub says: String,
    /// Clients that were measured.
    pub measured: usize,
    /// Clients that disturbed them.
    pub disturbing: usize,
    /// The measuring thread went before the disturbing one.
    pub is_first: bool,
    /// Phases.
    pub pairs: Vec<Pair>,
    /// Events that the measured clients got, all of them checked.
    pub deliveries: u64,
    /// Deliveries or connections of the disturbing clients; of those that do not read, how often they were told that
    /// they had missed something.
    pub acts: u64,
    /// No loss, no double, no order error, nobody refused.
    pub clean: bool,
    /// The first thing that went wrong.
    pub trouble: Option<String>,
}

/// Several disturbances.
#[derive(Clone, Debug, Serialize)]
pub struct Tails {
    /// Kernel release and processor.
    pub machine: String,
    /// The command line.
    pub command: String,
    /// Each.
    pub outcomes: Vec<Outcome>,
}

impl Outcome {
    /// The ratio of the 99th percentiles of each pair.
    pub fn ratios(&self) -> Vec<f64> {
        let ratio = |pair: &Pair| Some(pair.disturbed.latency?.p99_us / pair.quiet.latency?.p99_us);
        self.pairs.iter().filter_map(ratio).collect()
    }

    /// Their median.
    pub fn ratio(&self) -> Option<f64> {
        median(self.ratios())
    }

    /// The median over the pairs of a figure of the quiet and of the disturbed phases.
    pub fn medians(&self, read: fn(&Phase) -> Option<f64>) -> [Option<f64>; 2] {
        let over = |phase: fn(&Pair) -> &Phase| median(self.pairs.iter().map(phase).filter_map(read).collect());
        [over(|pair| &pair.quiet), over(|pair| &pair.disturbed)]
    }
}

impl Tails {
    /// With what they were measured on.
    pub fn new(outcomes: Vec<Outcome>) -> Self {
        Self { machine: machine(), command: command(), outcomes }
    }

    /// Every one is clean.
    pub fn is_clean(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.clean)
    }

    /// Writes them to stdout.
    pub fn print(&self, json: bool) {
        let data = || serde_json::to_string_pretty(self).expect("numbers and strings serialise");
        say(&if json { data() } else { self.text() });
    }

    fn text(&self) -> String {
        let mut text = format!("{}\nloadtest {}\n\n", self.machine, self.command);
        let head = [
            "",
            "measured",
            "disturbing",
            "p50 µs",
            "with",
            "p99 µs",
            "with",
            "ratio",
            "low",
            "high",
            "CPU",
            "with",
            "seen p99 µs",
            "with",
            "late p99 µs",
            "with",
        ];
        let row = |outcome: &Outcome| {
            let [p50, p50_with] = outcome.medians(|phase| Some(phase.latency?.p50_us));
            let [p99, p99_with] = outcome.medians(|phase| Some(phase.latency?.p99_us));
            let [cpu, cpu_with] = outcome.medians(|phase| phase.cpu_share);
            let ratios = outcome.ratios();
            let (low, high) = (ratios.iter().copied().reduce(f64::min), ratios.iter().copied().reduce(f64::max));
            let mut row = vec![outcome.name.clone(), outcome.measured.to_string(), outcome.disturbing.to_string()];
            row.extend([p50, p50_with, p99, p99_with].map(|us| number(us, 0)));
            row.extend([outcome.ratio(), low, high, cpu, cpu_with].map(|figure| number(figure, 2)));
            row.extend(outcome.medians(|phase| phase.seen_p99_us).map(|us| number(us, 0)));
            row.extend(outcome.medians(|phase| phase.late_p99_us).map(|us| number(us, 0)));
            row
        };
        text += &table(&head, &self.outcomes.iter().map(row).collect::<Vec<_>>());
        for outcome in &self.outcomes {
            let _ = writeln!(text, "{}: {}; {} deliveries checked", outcome.name, outcome.says, outcome.deliveries);
            if !outcome.is_first {
                let _ = writeln!(text, "note: the measuring thread may not go first on its core (SCHED_FIFO)");
            }
            if !outcome.clean {
                let trouble = outcome.trouble.as_deref().unwrap_or("events were lost, doubled or out of order");
                let _ = writeln!(text, "fault: {}: {trouble}", outcome.name);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(p99_us: f64) -> Phase {
        let latency = Latency { samples: 1, mean_us: 1.0, p50_us: 1.0, p99_us, p999_us: p99_us, max_us: p99_us };
        Phase { latency: Some(latency), seen_p99_us: Some(1.0), late_p99_us: Some(1.0), cpu_share: Some(0.5) }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs() {
        let pairs = [(100.0, 150.0), (200.0, 200.0), (100.0, 900.0)];
        let pairs = pairs.map(|(quiet, disturbed)| Pair { quiet: phase(quiet), disturbed: phase(disturbed) }).to_vec();
        let outcome = Outcome {
            name: "slow".to_owned(),
            says: "s".to_owned(),
            measured: 1,
            disturbing: 1,
            is_first: true,
            pairs,
            deliveries: 1,
            acts: 0,
            clean: false,
            trouble: None,
        };
        assert_eq!(outcome.ratio(), Some(1.5));
        let tails = Tails::new(vec![outcome]);
        assert!(!tails.is_clean());
        let text = tails.text();
        assert!(text.contains("1.50") && text.contains("fault: slow"), "{text}");
    }
}
