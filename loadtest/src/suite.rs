//! `loadtest report`: every scenario with its comparison interleaved, and one page of it.
//!
//! A row of the page *is* a command line: what it shows can be repeated alone by that command. The figure of a row is a ratio
//! of the same round wherever something is compared; over the rounds its median counts, and the lowest and highest are shown.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Parser};

use crate::options::{self, Pin};
use crate::page;
use crate::report::{Measurement, Report, Summary, command, machine, median, say};
use crate::run;
use crate::tails::{self, Tails};

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// A minute instead of many: small counts, one round, no tails. For the check, not for figures
    #[arg(long)]
    pub quick: bool,
    /// Directory of the page: report.md, report.html, report.json
    #[arg(long, value_name = "DIR", default_value = "target/report")]
    pub out: PathBuf,
}

/// What a row shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// CPU for one delivery or connection, over the baseline's.
    Cpu,
    /// 99th percentile, over the baseline's.
    P99,
    /// Resident bytes for one more idle connection.
    Bytes,
    /// What two workers deliver on two cores over what one delivers on one, by CPU: twice the server's CPU for one delivery
    /// with one worker, over that with two. Both are measured with the workers on one core and the clients on another:
    /// the clients' share is thereby left out, and the bytes take the same way.
    Scaling,
    /// Median latency across two workers less that on one of them, in microseconds.
    Crossing,
}

/// A row of the page.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// In words.
    pub title: &'static str,
    /// What runs.
    pub command: &'static str,
    /// What is added to it in quick mode.
    pub quick: &'static str,
    /// What is shown.
    pub figure: Figure,
    /// What it must reach: at most, for [`Figure::Scaling`] at least.
    pub target: Option<f64>,
}

/// All of them.
pub const ROWS: &[Row] = &[
    Row {
        title: "1 pipe × 1000 subscribers, window 1",
        command: "fanout --connections 1000 --window 1 --compare",
        quick: "--connections 200",
        figure: Figure::Cpu,
        target: Some(0.79),
    },
    Row {
        title: "the same, window 32",
        command: "fanout --connections 1000 --window 32 --compare",
        quick: "--connections 200",
        figure: Figure::Cpu,
        target: Some(0.60),
    },
    Row {
        title: "100 pipes × 10 subscribers",
        command: "pipes --pipes 100 --subscribers 10 --compare",
        quick: "--pipes 20",
        figure: Figure::Cpu,
        target: Some(0.95),
    },
    Row {
        title: "1 pipe × 100 at 1000/s, p99",
        command: "latency --connections 100 --rate 1000 --compare",
        quick: "",
        figure: Figure::P99,
        target: Some(0.60),
    },
    Row {
        title: "inbound: 1000 publishers, a pipe each, one receiver",
        command: "inbound --connections 1000 --compare",
        quick: "--connections 200",
        figure: Figure::Cpu,
        target: Some(0.46),
    },
    Row {
        title: "connect, welcome, one subscribe",
        command: "connect --connections 10000 --compare",
        quick: "--connections 500",
        figure: Figure::Cpu,
        target: Some(0.75),
    },
    Row {
        title: "idle connection: identity, three grants, one subscription",
        command: "idle --connections 8000 --compare",
        quick: "--connections 1000 --steps 4",
        figure: Figure::Bytes,
        target: Some(1024.0),
    },
    Row {
        title: "two workers against one, 1 pipe × 1000, window 1",
        command: "fanout --connections 1000 --window 1 --workers 2 --compare-workers 1 --pin stacked",
        quick: "--connections 200",
        figure: Figure::Scaling,
        target: Some(1.7),
    },
    Row {
        title: "two workers against one, window 32",
        command: "fanout --connections 1000 --window 32 --workers 2 --compare-workers 1 --pin stacked",
        quick: "--connections 200",
        figure: Figure::Scaling,
        target: Some(1.7),
    },
    Row {
        title: "crossing from one worker to another, both awake",
        command: "cross --pairs 64 --rate 20000 --workers 2 --wait sleep",
        quick: "--pairs 16",
        figure: Figure::Crossing,
        target: Some(50.0),
    },
    Row {
        title: "crossing, both asleep before each event",
        command: "cross --pairs 64 --rate 500 --workers 2 --wait sleep",
        quick: "--pairs 16",
        figure: Figure::Crossing,
        target: None,
    },
];

/// A row and what was measured for it.
pub struct Section {
    /// The row.
    pub row: Row,
    /// The rounds.
    pub report: Report,
}

/// Everything that goes on the page.
pub struct Page {
    /// Kernel release and processor.
    pub machine: String,
    /// The command line.
    pub command: String,
    /// Rows.
    pub sections: Vec<Section>,
    /// What others feel; none in quick mode.
    pub tails: Option<Tails>,
}

impl Figure {
    /// The figure of each round.
    pub fn rounds(self, report: &Report) -> Vec<f64> {
        let ratios = |read: fn(&Summary) -> Option<f64>| report.ratio_rounds.iter().filter_map(read).collect();
        let first = report.measurements.first().map_or("", |measurement| measurement.server.as_str());
        let own = |read: fn(&Summary) -> Option<f64>| -> Vec<f64> {
            let rounds = report.measurements.iter().filter(|measurement| measurement.server == first);
            rounds.map(Summary::one).filter_map(|round| read(&round)).collect()
        };
        match self {
            Self::Cpu => ratios(|round| round.cpu_us),
            Self::P99 => ratios(|round| round.p99_us),
            Self::Scaling => ratios(|round| Some(2.0 / round.cpu_us?)),
            Self::Bytes => own(|round| round.rss_bytes_per_connection),
            Self::Crossing => own(|round| round.crossing_us),
        }
    }

    /// Whether a value reaches its target.
    pub fn reaches(self, value: f64, target: f64) -> bool {
        if self == Self::Scaling { value >= target } else { value <= target }
    }

    /// Digits after the point.
    pub fn digits(self) -> usize {
        match self {
            Self::Bytes => 0,
            Self::Crossing => 1,
            Self::Cpu | Self::P99 | Self::Scaling => 2,
        }
    }
}

impl Section {
    /// The median of the rounds.
    pub fn value(&self) -> Option<f64> {
        median(self.row.figure.rounds(&self.report))
    }

    /// The lowest and the highest round.
    pub fn spread(&self) -> Option<(f64, f64)> {
        let rounds = self.row.figure.rounds(&self.report);
        Some((rounds.iter().copied().reduce(f64::min)?, rounds.iter().copied().reduce(f64::max)?))
    }
}

impl Page {
    /// Nothing was lost, doubled, out of order or refused.
    pub fn is_clean(&self) -> bool {
        self.sections.iter().all(|section| section.report.is_clean()) && self.tails.as_ref().is_none_or(Tails::is_clean)
    }

    /// Every round of every row.
    pub fn measurements(&self) -> impl Iterator<Item = &Measurement> {
        self.sections.iter().flat_map(|section| &section.report.measurements)
    }
}

/// Runs all rows and writes the page. True: clean.
pub fn run(options: &options::Options, suite: &Options) -> Result<bool, String> {
    if options.url.is_some() || options.compare || options.compare_workers.is_some() {
        return Err("report starts and compares its servers itself: neither --url nor --compare".to_owned());
    }
    let failed = |error: std::io::Error| format!("{}: {error}", suite.out.display());
    fs::create_dir_all(&suite.out).map_err(failed)?;
    let mut sections = Vec::new();
    for row in ROWS {
        eprintln!("loadtest {}", row.command);
        let of_row = row_options(row, options, suite.quick);
        let options::Command::Scenario(scenario) = &of_row.command else { unreachable!("rows are scenarios") };
        // Counts as small as those of quick mode show that it works, not how well.
        let target = row.target.filter(|_| !suite.quick);
        let section = Section { row: Row { target, ..*row }, report: run::all(&of_row, scenario)? };
        eprintln!("    {}", page::line(&section));
        sections.push(section);
    }
    let tails = if suite.quick {
        None
    } else {
        let of_tails =
            options::Options { pin: options.pin, realtime: options.realtime, ..options_of("tails", options) };
        let options::Command::Tails(every) = &of_tails.command else { unreachable!("tails are tails") };
        eprintln!("loadtest tails");
        Some(tails::run(&of_tails, every)?)
    };
    let page = Page { machine: machine(), command: command(), sections, tails };
    for (name, text) in
        [("report.md", page::markdown(&page)), ("report.html", page::html(&page)), ("report.json", page::json(&page))]
    {
        fs::write(suite.out.join(name), text).map_err(failed)?;
    }
    say(&page::markdown(&page));
    eprintln!("written: report.md, report.html and report.json in {}", suite.out.display());
    Ok(page.is_clean())
}

/// The options of a row: its own command line, and of ours what concerns every row.
fn row_options(row: &Row, ours: &options::Options, quick: bool) -> options::Options {
    let words = if quick { format!("{} {}", row.command, row.quick) } else { row.command.to_owned() };
    let mut options = options_of(&last_of_each(&words), ours);
    options.rounds = ours.rounds.or(Some(if quick { 1 } else { 5 }));
    if quick {
        (options.seconds, options.warmup_ms) = (0.5, 100);
    }
    if options.pin == Pin::Auto {
        options.pin = ours.pin;
    }
    // Where CPU is the figure the clients spin, so that the server is not charged for waking them.
    options.realtime = ours.realtime && matches!(row.figure, Figure::P99 | Figure::Crossing);
    options
}

fn options_of(words: &str, ours: &options::Options) -> options::Options {
    let options = options::Options::parse_from(std::iter::once("loadtest").chain(words.split_whitespace()));
    options::Options {
        bin: ours.bin.clone(),
        baseline_bin: ours.baseline_bin.clone(),
        seconds: ours.seconds,
        payload: ours.payload,
        warmup_ms: ours.warmup_ms,
        quiet: ours.quiet,
        ..options
    }
}

/// A command line in which an option that is given twice counts as given last.
fn last_of_each(words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let repeated = |at: usize| words[at].starts_with("--") && words[at + 1..].contains(&words[at]);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if repeated(at) {
            at += 2;
        } else {
            kept.push(words[at]);
            at += 1;
        }
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_command_line_also_in_quick_mode() {
        let ours = options::Options::parse_from(["loadtest", "report"]);
        for row in ROWS {
            for quick in [false, true] {
                let options = row_options(row, &ours, quick);
                assert!(matches!(options.command, options::Command::Scenario(_)), "{}", row.command);
                let compares = options.compare || options.compare_workers.is_some();
                assert_eq!(compares, row.figure != Figure::Crossing, "{}", row.command);
            }
        }
    }

    #[test]
    fn what_is_given_twice_counts_as_given_last() {
        assert_eq!(last_of_each("a --x 1 --flag --y 2 --x 3"), "a --flag --y 2 --x 3");
    }

    #[test]
    fn two_workers_that_need_the_same_cpu_for_a_delivery_deliver_twice_as_much_on_two_cores() {
        let measured = |server: &str, cpu_us| Measurement {
            server: server.to_owned(),
            round: 1,
            cpu_us: Some(cpu_us),
            completed: true,
            ..Measurement::default()
        };
        let rounds = |two, one| Report::new(vec![measured("2 workers", two), measured("1 worker", one)]);
        assert_eq!(Figure::Scaling.rounds(&rounds(4.0, 4.0)), [2.0]);
        assert_eq!(Figure::Scaling.rounds(&rounds(5.0, 4.0)), [1.6]);
        assert!(Figure::Scaling.reaches(1.9, 1.7) && !Figure::Scaling.reaches(1.6, 1.7));
        assert!(Figure::Cpu.reaches(0.5, 0.6) && !Figure::Cpu.reaches(0.7, 0.6));
    }
}
