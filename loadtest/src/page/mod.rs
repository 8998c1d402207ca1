//! The page of a report: Markdown for repositories, HTML with charts for people, JSON for programs. Nothing in it is loaded
//! from elsewhere.

mod chart;
mod html;
mod markdown;

use serde_json::json;

use crate::suite::{Figure, Page, Section};
use crate::table::number;

pub use html::html;
pub use markdown::markdown;

/// One section in one line.
pub fn line(section: &Section) -> String {
    let figure = section.row.figure;
    let value = number(section.value(), figure.digits());
    let (low, high) = section.spread().map_or((None, None), |(low, high)| (Some(low), Some(high)));
    let (low, high) = (number(low, figure.digits()), number(high, figure.digits()));
    format!("{}: {value} ({low} to {high}){}", what(figure), verdict(section))
}

/// Everything as data.
pub fn json(page: &Page) -> String {
    let sections = page.sections.iter().map(|section| {
        let (low, high) = section.spread().map_or((None, None), |(low, high)| (Some(low), Some(high)));
        json!({
            "title": section.row.title, "command": section.row.command, "figure": what(section.row.figure),
            "value": section.value(), "low": low, "high": high, "target": section.row.target,
            "report": section.report,
        })
    });
    let sections: Vec<_> = sections.collect();
    let all = json!({"machine": page.machine, "command": page.command, "sections": sections, "tails": page.tails});
    serde_json::to_string_pretty(&all).expect("numbers and strings serialise")
}

/// What the figure of a row is.
fn what(figure: Figure) -> &'static str {
    match figure {
        Figure::Cpu => "server CPU, ratio",
        Figure::P99 => "p99, ratio",
        Figure::Bytes => "bytes for one more",
        Figure::Scaling => "times one worker",
        Figure::Crossing => "added µs at p50",
    }
}

fn target(section: &Section) -> String {
    let figure = section.row.figure;
    let sign = if figure == Figure::Scaling { "≥" } else { "≤" };
    let digits = if figure == Figure::Crossing { 0 } else { figure.digits() };
    section.row.target.map_or_else(|| "–".to_owned(), |target| format!("{sign} {target:.digits$}"))
}

fn verdict(section: &Section) -> &'static str {
    match (section.value(), section.row.target) {
        (Some(value), Some(target)) if section.row.figure.reaches(value, target) => " · met",
        (_, Some(_)) => " · not met",
        (_, None) => "",
    }
}

/// The figure of one server of a section that the row's ratio is made of, with its unit.
fn absolute(section: &Section, server: usize) -> String {
    let Some(summary) = section.report.summaries.get(server) else { return "–".to_owned() };
    let (value, digits, unit) = match section.row.figure {
        Figure::Cpu | Figure::Scaling => (summary.cpu_us, 2, "µs CPU"),
        Figure::P99 => (summary.p99_us, 0, "µs"),
        Figure::Bytes => (summary.rss_bytes_per_connection, 0, "B"),
        Figure::Crossing => (summary.p50_us, 0, "µs p50 of all"),
    };
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$} {unit}"))
}

/// What was checked, in a sentence.
fn checked(page: &Page) -> String {
    let sum = |read: fn(&crate::report::Measurement) -> u64| page.measurements().map(read).sum::<u64>();
    let tails: u64 = page.tails.iter().flat_map(|tails| &tails.outcomes).map(|outcome| outcome.deliveries).sum();
    let unclean = page.tails.iter().flat_map(|tails| &tails.outcomes).filter(|outcome| !outcome.clean).count();
    let tails = match unclean {
        _ if page.tails.is_none() => String::new(),
        0 => format!(" Of the {tails} deliveries among others' tails: none."),
        _ => format!(" {unclean} of the tails were not clean."),
    };
    format!(
        "Every one of {} deliveries was checked: {} lost, {} doubled, {} out of order, {} that should not have come; \
         {} clients refused or broken.{tails}",
        sum(|m| m.deliveries),
        sum(|m| m.lost),
        sum(|m| m.duplicated),
        sum(|m| m.disordered),
        sum(|m| m.unexpected),
        sum(|m| m.clients_lost + m.refusals + m.lagged),
    )
}

/// How much other programs disturbed.
fn disturbance(page: &Page) -> String {
    let worst = page.measurements().map(crate::report::Measurement::disturbance).fold(0.0, f64::max);
    let mean = page.measurements().map(crate::report::Measurement::disturbance).sum::<f64>()
        / page.measurements().count().max(1) as f64;
    format!(
        "Other programs: the servers waited for a core {:.0} % of their time on average, {:.0} % in the worst round{}.",
        mean * 100.0,
        worst * 100.0,
        if worst > 0.05 { ". Ratios hold within a round, absolute figures suffer" } else { "" }
    )
}

#[cfg(test)]
mod tests;
