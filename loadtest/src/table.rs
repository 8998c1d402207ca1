//! The report as a person reads it: a table of the rounds, one of the medians, and what to beware of.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::report::{Measurement, Report, Summary};

/// Above this share of waiting for a core, the report says so.
const DISTURBANCE_MAX: f64 = 0.05;

/// The human form.
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\nloadtest {}\n\n", report.machine, report.command);
    let idle = report.measurements.iter().any(|measurement| measurement.memory.is_some());
    let rows: Vec<Vec<String>> = report.measurements.iter().map(if idle { memory_row } else { speed_row }).collect();
    let head: &[&str] = if idle {
        &["server", "round", "connections", "RSS B/conn", "r²", "RSS at 0", "kernel B/conn (both ends)", "lost"]
    } else {
        &["server", "round", "CPU µs", "per s", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "RSS MB", "lost", "faults"]
    };
    text += &table(head, &rows);
    if report.measurements.len() > report.summaries.len() || report.ratios.is_some() {
        text += "\nmedian\n";
        let rows = report.summaries.iter().map(|summary| summary_row(summary, &summary.server, false));
        let ratios = report.ratios.iter().map(|ratios| summary_row(ratios, "ratio", true));
        let rows: Vec<_> = rows.chain(ratios).collect();
        text += &table(&["server", "CPU µs", "per s", "p50 µs", "p99 µs", "p99.9 µs", "RSS B/conn"], &rows);
    }
    let crossings: Vec<Vec<String>> = report.measurements.iter().filter_map(crossing_row).collect();
    if !crossings.is_empty() {
        text += "\nby where the two ends of a pair are\n";
        text +=
            &table(&["server", "round", "one worker, p50 µs", "p99 µs", "two workers, p50 µs", "p99 µs"], &crossings);
    }
    if report.measurements.iter().any(|measurement| measurement.disturbance() > DISTURBANCE_MAX) {
        let worst = report.measurements.iter().map(Measurement::disturbance).fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "\nnote: the server waited for its core up to {:.0} % of the time: other programs disturb these figures",
            worst * 100.0
        );
    }
    let troubles: BTreeSet<_> = report.measurements.iter().filter_map(|m| m.first_trouble.as_ref()).collect();
    for trouble in troubles {
        let _ = writeln!(text, "\nfault: {trouble}");
    }
    text
}

fn summary_row(summary: &Summary, label: &str, ratio: bool) -> Vec<String> {
    let figure = |value: Option<f64>, digits: usize| number(value, if ratio { 3 } else { digits });
    vec![
        label.to_owned(),
        figure(summary.cpu_us, 3),
        figure(summary.per_s, 0),
        figure(summary.p50_us, 1),
        figure(summary.p99_us, 1),
        figure(summary.p999_us, 1),
        figure(summary.rss_bytes_per_connection, 0),
    ]
}

fn speed_row(measurement: &Measurement) -> Vec<String> {
    let latency = measurement.latency;
    vec![
        measurement.server.clone(),
        measurement.round.to_string(),
        number(measurement.cpu_us, 3),
        number(Some(measurement.per_s), 0),
        number(latency.map(|latency| latency.p50_us), 1),
        number(latency.map(|latency| latency.p99_us), 1),
        number(latency.map(|latency| latency.p999_us), 1),
        number(latency.map(|latency| latency.max_us), 1),
        number(measurement.server_rss_bytes.map(|bytes| bytes as f64 / 1e6), 1),
        measurement.lost.to_string(),
        fault_count(measurement),
    ]
}

fn crossing_row(measurement: &Measurement) -> Option<Vec<String>> {
    let (same, across) = (measurement.same_worker?, measurement.across_workers?);
    let mut row = vec![measurement.server.clone(), measurement.round.to_string()];
    row.extend([same.p50_us, same.p99_us, across.p50_us, across.p99_us].map(|us| number(Some(us), 1)));
    Some(row)
}

fn memory_row(measurement: &Measurement) -> Vec<String> {
    let memory = measurement.memory.as_ref();
    let rss = memory.and_then(|memory| memory.rss);
    vec![
        measurement.server.clone(),
        measurement.round.to_string(),
        measurement.connections.to_string(),
        number(rss.map(|line| line.slope), 0),
        number(rss.map(|line| line.r_squared), 4),
        number(rss.map(|line| line.intercept), 0),
        number(memory.and_then(|memory| memory.slab).map(|line| line.slope), 0),
        measurement.clients_lost.to_string(),
    ]
}

/// Everything but losses that makes a round unclean.
fn fault_count(measurement: &Measurement) -> String {
    let counted = measurement.duplicated + measurement.disordered + measurement.unexpected;
    let told = measurement.clients_lost + measurement.refusals + measurement.lagged;
    let unfinished = if measurement.completed { "" } else { " (unfinished)" };
    format!("{}{unfinished}", counted + told)
}

/// A figure with so many digits, or a dash.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// Columns as wide as they must be; the first to the left, the others to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend_from_slice(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut cells = line.iter().zip(&widths);
        if let Some((cell, width)) = cells.next() {
            let _ = write!(text, "{cell:<width$}");
        }
        for (cell, width) in cells {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_wide_characters_counted_once() {
        assert_eq!(table(&["a", "µs"], &[vec!["bcd".into(), "1.25".into()]]), "a      µs\nbcd  1.25\n");
    }
}
