//! The page as Markdown.

use std::fmt::Write as _;

use super::{absolute, checked, disturbance, target, verdict, what};
use crate::suite::{Figure, Page};
use crate::table::number;
use crate::tails::Outcome;

/// The page.
pub fn markdown(page: &Page) -> String {
    let mut text = format!(
        "# Pipeward, measured\n\n{}\n\n`loadtest {}`\n\n{} {}\n\n\
         The servers run in turns on the same core(s), the clients on another; a ratio is of one round, the table shows the \
         median of the rounds and their range. The baseline is the broadcast server that one would write in an afternoon \
         with tokio and tokio-tungstenite, without tokens or permissions.\n\n",
        page.machine,
        page.command,
        checked(page),
        disturbance(page)
    );
    text += "| scenario | figure | median | range | wanted | | first | second |\n|---|---|--:|--:|--:|---|--:|--:|\n";
    for section in &page.sections {
        let digits = section.row.figure.digits();
        let range = section.spread().map_or_else(
            || "–".to_owned(),
            |(low, high)| format!("{}–{}", number(Some(low), digits), number(Some(high), digits)),
        );
        let _ = writeln!(
            text,
            "| {} | {} | {} | {range} | {} | {} | {} | {} |",
            section.row.title,
            what(section.row.figure),
            number(section.value(), digits),
            target(section),
            verdict(section).trim_start_matches(" · "),
            absolute(section, 0),
            absolute(section, 1),
        );
    }
    text += "\nFirst and second are Pipeward and the baseline; two workers and one where workers are compared. \
             *Times one worker* is twice the server's CPU for one delivery with one worker, over that with two: what two \
             workers deliver on two cores. Both are measured with the workers on one core and the clients on another, so that \
             the clients' share is left out and the bytes take the same way.\n\n";
    text += "## Each row again\n\n";
    for section in &page.sections {
        let _ = writeln!(text, "- {}: `loadtest {}`", section.row.title, section.row.command);
    }
    text += "\n## Throughput and latency\n\n";
    text += "| scenario | server | per s | p50 µs | p99 µs | p99.9 µs |\n|---|---|--:|--:|--:|--:|\n";
    for section in page.sections.iter().filter(|section| section.row.figure != Figure::Bytes) {
        for summary in &section.report.summaries {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                section.row.title,
                summary.server,
                number(summary.per_s, 0),
                number(summary.p50_us, 0),
                number(summary.p99_us, 0),
                number(summary.p999_us, 0)
            );
        }
    }
    if let Some(tails) = &page.tails {
        text += "\n## What others feel\n\n";
        text += "p99 of clients that do nothing wrong, without and with a disturbance, in the same run on the same \
                 connections; the ratio is the median of the pairs of phases. Wanted: at most 2.\n\n";
        text += "| disturbance | p99 µs without | with | ratio | range | server's cores without | with |\n\
                 |---|--:|--:|--:|--:|--:|--:|\n";
        tails.outcomes.iter().for_each(|outcome| text += &tail(outcome));
        text += "\n`loadtest tails`\n";
    }
    text
}

fn tail(outcome: &Outcome) -> String {
    let [p99, p99_with] = outcome.medians(|phase| Some(phase.latency?.p99_us));
    let [cpu, cpu_with] = outcome.medians(|phase| phase.cpu_share);
    let ratios = outcome.ratios();
    let (low, high) = (ratios.iter().copied().reduce(f64::min), ratios.iter().copied().reduce(f64::max));
    format!(
        "| {} | {} | {} | {} | {}–{} | {} | {} |\n",
        outcome.says,
        number(p99, 0),
        number(p99_with, 0),
        number(outcome.ratio(), 2),
        number(low, 2),
        number(high, 2),
        number(cpu, 2),
        number(cpu_with, 2)
    )
}
