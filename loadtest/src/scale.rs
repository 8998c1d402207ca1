//! Many idle connections: several servers at once, each with a load process of its own, because one process may not hold
//! enough descriptors. After each of them the machine's memory is read; the slopes over the number of connections are what
//! one more costs: in the server, in the kernel, and in all.
//!
//! On one machine the kernel holds both ends of each connection, and the clients' own memory is in the last figure too.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::options;
use crate::process;
use crate::regression::{Line, fit};
use crate::report::{command, machine, say};
use crate::table::{number, table};

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Servers, each with a load process
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub processes: u32,
    /// Connections of each
    #[arg(long, default_value_t = 18_000, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub connections: u32,
}

/// The machine with so many connections.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Point {
    connections: u64,
    /// Resident memory of all servers.
    servers_rss_bytes: u64,
    /// Slab memory of the kernel.
    slab_bytes: u64,
    /// Memory that is no longer available: servers, clients, kernel.
    used_bytes: u64,
}

#[derive(Serialize)]
struct Scale {
    machine: String,
    command: String,
    /// Memory of one server for one more connection, each by its own slope.
    rss_bytes_per_connection: Vec<f64>,
    points: Vec<Point>,
    slab: Option<Line>,
    used: Option<Line>,
}

/// A load process that holds its connections until its stdin is closed.
struct Holder {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It has a last word, and must not find nobody listening.
        let _ = self.stdout.read_to_end(&mut Vec::new());
        let _ = self.child.wait();
    }
}

/// Runs the processes and prints what they cost. True: every connection was made.
pub fn run(options: &options::Options, scale: &Options) -> Result<bool, String> {
    let mut holders = Vec::new();
    let mut report = Scale {
        machine: machine(),
        command: command(),
        rss_bytes_per_connection: Vec::new(),
        points: vec![machine_now(Point::default())],
        slab: None,
        used: None,
    };
    let mut complete = true;
    for _ in 0..scale.processes {
        let (holder, held) = start(options, scale)?;
        holders.push(holder);
        let before = report.points.last().copied().unwrap_or_default();
        let points = held["memory"]["points"].as_array().map_or(&[][..], Vec::as_slice);
        let last = points.last().ok_or("a load process measured nothing")?;
        let count = last["connections"].as_u64().unwrap_or(0);
        complete &= count == u64::from(scale.connections);
        report.rss_bytes_per_connection.extend(held["memory"]["rss"]["slope"].as_f64());
        report.points.push(machine_now(Point {
            connections: before.connections + count,
            servers_rss_bytes: before.servers_rss_bytes + last["rss_bytes"].as_u64().unwrap_or(0),
            ..before
        }));
    }
    let line = |read: fn(&Point) -> u64| {
        fit(&report.points.iter().map(|point| (point.connections as f64, read(point) as f64)).collect::<Vec<_>>())
    };
    report.slab = line(|point| point.slab_bytes);
    report.used = line(|point| point.used_bytes);
    let json = || serde_json::to_string_pretty(&report).expect("numbers and strings serialise");
    say(&if options.json { json() } else { text(&report) });
    Ok(complete)
}

fn start(options: &options::Options, scale: &Options) -> Result<(Holder, Value), String> {
    let own = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let mut command = Command::new(own);
    command.args(["idle", "--hold", "--quiet", "--steps", "4", "--connections", &scale.connections.to_string()]);
    command.args(["--server", options.server.name(), "--workers", &options.workers.to_string()]);
    if let Some(binary) = &options.bin {
        command.arg("--bin").arg(binary);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let stdin = child.stdin.take();
    let stdout = BufReader::new(child.stdout.take().ok_or("a load process without output")?);
    let mut holder = Holder { child, stdin, stdout };
    let mut line = String::new();
    holder.stdout.read_line(&mut line).map_err(|error| error.to_string())?;
    // It has said on stderr why, if it ended.
    let held =
        serde_json::from_str(&line).map_err(|_| "a load process ended before its connections stood".to_owned())?;
    Ok((holder, held))
}

/// The machine's memory into a point.
fn machine_now(point: Point) -> Point {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |key| process::kilobytes(&meminfo, key).unwrap_or(0);
    let used_bytes = bytes("MemTotal:").saturating_sub(bytes("MemAvailable:"));
    Point { slab_bytes: process::slab_bytes().unwrap_or(0), used_bytes, ..point }
}

fn text(report: &Scale) -> String {
    let mb = |bytes: u64| number(Some(bytes as f64 / 1e6), 1);
    let row = |point: &Point| {
        let bytes = [point.servers_rss_bytes, point.slab_bytes, point.used_bytes].map(mb);
        [vec![point.connections.to_string()], bytes.to_vec()].concat()
    };
    let head = ["connections", "servers' RSS MB", "kernel slab MB", "machine in use MB"];
    let mut text = format!("{}\nloadtest {}\n\n", report.machine, report.command);
    text += &table(&head, &report.points.iter().map(row).collect::<Vec<_>>());
    let slope = |line: Option<Line>| number(line.map(|line| line.slope), 0);
    let own: Vec<String> = report.rss_bytes_per_connection.iter().map(|bytes| number(Some(*bytes), 0)).collect();
    let _ = writeln!(
        text,
        "\nbytes for one more connection: in a server {} (each by itself), slab for both ends {}, in all with the clients {}",
        own.join(", "),
        slope(report.slab),
        slope(report.used),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slopes_are_told() {
        let point = |connections: u64| Point {
            connections,
            servers_rss_bytes: 1_000_000 + connections * 500,
            slab_bytes: connections * 4_000,
            used_bytes: connections * 6_000,
        };
        let points = vec![point(0), point(10_000), point(20_000)];
        let line = |slope| Some(Line { slope, intercept: 0.0, r_squared: 1.0 });
        let report = Scale {
            machine: "m".to_owned(),
            command: "scale".to_owned(),
            rss_bytes_per_connection: vec![500.0],
            points,
            slab: line(4_000.0),
            used: line(6_000.0),
        };
        let text = text(&report);
        assert!(text.contains("in a server 500") && text.contains("both ends 4000"), "{text}");
        assert!(machine_now(Point::default()).used_bytes > 1 << 20);
    }
}
