//! The page as one HTML file: the charts, and the tables of the Markdown page.

use std::fmt::Write as _;

use super::chart::{Bars, Series, bars, escape, percentiles, slopes};
use super::{absolute, checked, disturbance, line};
use crate::suite::{Figure, Page, Section};
use crate::table::number;

const STYLE: &str = "
:root { --paper: #fcfcfb; --ink: #0b0b0b; --soft: #52514e; --line: #e1e0d9; --first: #2a78d6; --second: #a09e98; --mark: #d03b3b }
@media (prefers-color-scheme: dark) { :root { --paper: #1a1a19; --ink: #fff; --soft: #c3c2b7; --line: #383835;
  --first: #3987e5; --second: #75736e; --mark: #e66767 } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem } h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem } p { max-width: 46rem }
.soft, figcaption { color: var(--soft) } code { font-size: .9em } figure { margin: 1rem 0 } svg { width: 100%; height: auto }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif } svg .soft { fill: var(--soft) }
svg .first { fill: var(--first) } svg .second { fill: var(--second) } svg .grid { stroke: var(--line) }
svg .mark { stroke: var(--mark); stroke-width: 2 } svg path { stroke-width: 2 }
svg path.first { fill: none; stroke: var(--first) } svg path.second { fill: none; stroke: var(--second) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right } th:first-child, td:first-child
  { text-align: left } .key span { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .35em 0 1em }
";

/// The page.
pub fn html(page: &Page) -> String {
    let mut text = String::from("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n");
    let _ = write!(
        text,
        "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Pipeward, measured</title>\n<style>{STYLE}</style>\n\
         <h1>Pipeward, measured</h1>\n<p class=\"soft\">{}<br><code>loadtest {}</code></p>\n<p>{} {}</p>\n",
        escape(&page.machine),
        escape(&page.command),
        escape(&checked(page)),
        escape(&disturbance(page))
    );
    text += "<p class=\"key\"><span style=\"background:var(--first)\"></span>Pipeward\
             <span style=\"background:var(--second)\"></span>baseline (tokio and tokio-tungstenite; no tokens, no permissions)</p>\n";
    let compared: Vec<&Section> = page.sections.iter().filter(|section| section.report.summaries.len() == 2).collect();
    let both = |of: fn(&Section) -> bool| compared.iter().copied().filter(move |section| of(section));
    let against = |section: &Section| matches!(section.row.figure, Figure::Cpu | Figure::P99);
    let cpu: Vec<Bars> = both(|section| section.row.figure == Figure::Cpu).map(cpu_bars).collect();
    text += &figure(
        "CPU per delivery",
        "Server CPU for one delivery (one connection), each scenario scaled to its baseline. The red mark is what is wanted.",
        &bars(&cpu),
    );
    let throughput: Vec<Bars> =
        compared.iter().filter(|s| against(s)).map(|section| throughput_bars(section)).collect();
    text += &figure(
        "Throughput",
        "Deliveries (connections) per second with one worker on one core. A fixed rate in the latency scenario.",
        &bars(&throughput),
    );
    for section in both(|section| section.row.figure == Figure::P99) {
        text += &figure(
            "Latency",
            "From the intended sending to the arrival, in microseconds, logarithmic.",
            &percentiles(&latency_series(section)),
        );
    }
    for section in both(|section| section.row.figure == Figure::Bytes) {
        text += &figure(
            "Memory",
            "Resident memory of the server against the number of idle connections, in megabytes, logarithmic.",
            &slopes(&memory_series(section)),
        );
    }
    text +=
        "<h2>Every row</h2>\n<div class=\"wide\"><table><tr><th>scenario<th>figure, range<th>first<th>second</tr>\n";
    for section in &page.sections {
        let _ = writeln!(
            text,
            "<tr><td>{}<br><code class=\"soft\">loadtest {}</code><td>{}<td>{}<td>{}</tr>",
            escape(section.row.title),
            escape(section.row.command),
            escape(&line(section)),
            absolute(section, 0),
            absolute(section, 1)
        );
    }
    text += "</table></div>\n";
    if let Some(tails) = &page.tails {
        text += "<h2>What others feel</h2>\n<p>p99 of clients that do nothing wrong, without and with a disturbance, in the same \
                 run on the same connections. Wanted: at most twice.</p>\n<div class=\"wide\"><table><tr><th>disturbance\
                 <th>p99 µs without<th>with<th>ratio</tr>\n";
        for outcome in &tails.outcomes {
            let [p99, p99_with] = outcome.medians(|phase| Some(phase.latency?.p99_us));
            let (p99, p99_with) = (number(p99, 0), number(p99_with, 0));
            let (says, ratio) = (escape(&outcome.says), number(outcome.ratio(), 2));
            let _ = writeln!(text, "<tr><td>{says}<td>{p99}<td>{p99_with}<td>{ratio}</tr>");
        }
        text += "</table></div>\n";
    }
    text + "</html>\n"
}

fn figure(title: &str, caption: &str, svg: &str) -> String {
    format!("<h2>{title}</h2>\n<figure>{svg}<figcaption>{caption}</figcaption></figure>\n")
}

fn cpu_bars(section: &Section) -> Bars {
    let cpu = |server: usize| section.report.summaries[server].cpu_us.unwrap_or(0.0);
    let text = |server: usize| format!("{:.2} µs", cpu(server));
    let values = [(cpu(0), text(0)), (cpu(1), text(1))];
    Bars { label: section.row.title.to_owned(), values, mark: section.row.target.map(|target| target * cpu(1)) }
}

fn throughput_bars(section: &Section) -> Bars {
    let per_s = |server: usize| section.report.summaries[server].per_s.unwrap_or(0.0);
    let text = |server: usize| format!("{:.0} /s", per_s(server));
    Bars { label: section.row.title.to_owned(), values: [(per_s(0), text(0)), (per_s(1), text(1))], mark: None }
}

fn latency_series(section: &Section) -> [Series; 2] {
    [0, 1].map(|server| {
        let summary = &section.report.summaries[server];
        let values = [("p50", summary.p50_us), ("p99", summary.p99_us), ("p99.9", summary.p999_us)];
        let point = |(at, (name, us)): (usize, (&str, Option<f64>))| Some((at as f64, us?, name.to_owned()));
        Series(values.into_iter().enumerate().filter_map(point).collect())
    })
}

fn memory_series(section: &Section) -> [Series; 2] {
    [0, 1].map(|server| {
        let name = &section.report.summaries[server].server;
        let measured = section.report.measurements.iter().find(|measurement| measurement.server == *name);
        let points = measured.and_then(|measurement| measurement.memory.as_ref()).map(|memory| &memory.points);
        let points = points.into_iter().flatten();
        let point = |point: &crate::report::MemoryPoint| {
            Some((point.connections as f64, point.rss_bytes? as f64 / 1e6, point.connections.to_string()))
        };
        Series(points.filter_map(point).collect())
    })
}
