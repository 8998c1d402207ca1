//! The page of figures made up here.

use super::*;
use crate::report::{Latency, Measurement, Memory, MemoryPoint, Report};
use crate::suite::ROWS;
use crate::tails::{Outcome, Pair, Phase, Tails};

fn latency(p50_us: f64) -> Option<Latency> {
    let (p99_us, p999_us) = (p50_us * 2.0, p50_us * 3.0);
    Some(Latency { samples: 10, mean_us: p50_us, p50_us, p99_us, p999_us, max_us: p999_us })
}

fn measured(server: &str, round: u32, cpu_us: f64) -> Measurement {
    let line = crate::regression::Line { slope: cpu_us * 100.0, intercept: 0.0, r_squared: 1.0 };
    let point = |connections| MemoryPoint { connections, rss_bytes: Some(connections as u64 * 1000), slab_bytes: None };
    Measurement {
        server: server.to_owned(),
        round,
        cpu_us: Some(cpu_us),
        per_s: 1e6 / cpu_us,
        deliveries: 1000,
        completed: true,
        latency: latency(cpu_us * 10.0),
        same_worker: latency(10.0),
        across_workers: latency(25.0),
        memory: Some(Memory { rss: Some(line), slab: None, points: vec![point(1000), point(2000)] }),
        ..Measurement::default()
    }
}

/// Every row of the suite, in three rounds, the first server always half as dear as the second.
fn page() -> Page {
    let report = || {
        let round = |round| [measured("pipeward", round, 2.0), measured("baseline", round, 4.0)];
        Report::new([1, 2, 3].map(round).concat())
    };
    let sections = ROWS.iter().map(|row| Section { row: *row, report: report() }).collect();
    let phase =
        |p50_us| Phase { latency: latency(p50_us), seen_p99_us: None, late_p99_us: Some(1.0), cpu_share: Some(0.5) };
    let outcome = Outcome {
        name: "slow".to_owned(),
        says: "some <do not> read".to_owned(),
        measured: 90,
        disturbing: 10,
        is_first: true,
        pairs: vec![Pair { quiet: phase(100.0), disturbed: phase(150.0) }],
        deliveries: 5,
        acts: 1,
        clean: true,
        trouble: None,
    };
    let (machine, command) = ("a machine".to_owned(), "report".to_owned());
    Page { machine, command, sections, tails: Some(Tails::new(vec![outcome])) }
}

#[test]
fn the_markdown_page_has_every_row_with_its_command_and_its_verdict() {
    let text = markdown(&page());
    for row in ROWS {
        assert!(text.contains(&format!("| {} | {} |", row.title, what(row.figure))), "{}", row.title);
        assert!(text.contains(&format!("`loadtest {}`", row.command)), "{}", row.command);
    }
    assert!(text.contains("| 0.50 | 0.50–0.50 | ≤ 0.79 | met | 2.00 µs CPU | 4.00 µs CPU |"), "{text}");
    assert!(text.contains("| p99, ratio | 0.50 | 0.50–0.50 | ≤ 0.60 | met | 40 µs | 80 µs |"), "{text}");
    assert!(text.contains("| 200 | 200–200 | ≤ 1024 | met | 200 B | 400 B |"), "{text}");
    assert!(text.contains("| added µs at p50 | 15.0 | 15.0–15.0 | ≤ 50 | met |"), "{text}");
    assert!(text.contains("| 200 | 300 | 1.50 | 1.50–1.50 |"), "the tails: {text}");
    assert!(text.contains("0 lost, 0 doubled, 0 out of order"), "{text}");
}

#[test]
fn what_misses_its_target_is_said_to() {
    let mut page = page();
    let worse = |round| [measured("pipeward", round, 4.0), measured("baseline", round, 4.0)];
    page.sections[0].report = Report::new(worse(1).to_vec());
    assert!(markdown(&page).contains("| 1.00 | 1.00–1.00 | ≤ 0.79 | not met |"));
}

#[test]
fn a_loss_anywhere_makes_the_page_unclean_and_is_told() {
    let mut bad = page();
    assert!(bad.is_clean());
    bad.sections[3].report.measurements[1].lost = 7;
    assert!(!bad.is_clean());
    assert!(markdown(&bad).contains("7 lost"));
    let mut bad = page();
    bad.tails.as_mut().unwrap().outcomes[0].clean = false;
    assert!(!bad.is_clean());
    assert!(html(&bad).contains("1 of the tails were not clean"));
}

#[test]
fn the_html_page_stands_alone_with_its_four_charts() {
    let text = html(&page());
    assert_eq!(text.matches("<svg").count(), 4, "CPU, throughput, latency, memory");
    assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
    for outside in ["src=", "href=", "@import", "url(", "<script"] {
        assert!(!text.contains(outside), "{outside}");
    }
    assert!(text.contains("some &lt;do not&gt; read"));
    assert!(!text.contains("NaN") && !text.contains("inf"), "a coordinate is no number");
}

#[test]
fn the_data_can_be_read_again() {
    let value: serde_json::Value = serde_json::from_str(&json(&page())).unwrap();
    assert_eq!(value["sections"].as_array().unwrap().len(), ROWS.len());
    assert_eq!(value["sections"][0]["value"], 0.5);
    assert_eq!(value["tails"]["outcomes"][0]["name"], "slow");
}
