//! Every scenario, small, through the real binaries: the load generator against the baseline.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

/// The baseline's binary beside ours. Cargo builds only this package's binaries for its tests, so it is asked here.
fn baseline() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let directory = Path::new(LOADTEST).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "pipeward-baseline", "--target-dir"]);
        cargo.arg(directory.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if directory.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the baseline does not build");
        directory.join("pipeward-baseline")
    })
}

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(LOADTEST).args(arguments).args(["--json", "--pin", "off"]).output().unwrap()
}

/// Runs a scenario against the baseline; the one clean measurement.
fn measure(arguments: &[&str]) -> Value {
    let binary = baseline().to_str().unwrap();
    let mut all = arguments.to_vec();
    all.extend(["--server", "baseline", "--bin", binary, "--seconds", "20", "--warmup-ms", "100"]);
    let output = loadtest(&all);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap();
    let measurements = report["measurements"].as_array().unwrap();
    assert_eq!(measurements.len(), 1);
    measurements[0].clone()
}

#[test]
fn fanout_delivers_every_message_to_everyone() {
    for (window, messages) in [("1", 200), ("32", 224)] {
        let result = measure(&["fanout", "--connections", "50", "--window", window, "--messages", "200"]);
        assert_eq!((&result["messages"], &result["deliveries"]), (&messages.into(), &(messages * 50).into()));
        assert_eq!(result["latency"]["samples"], result["deliveries"]);
        assert!(result["cpu_us"].as_f64().unwrap() > 0.0, "{result}");
    }
}

#[test]
fn pipes_do_not_mix() {
    let result = measure(&["pipes", "--pipes", "10", "--subscribers", "5", "--messages", "200"]);
    assert_eq!((&result["connections"], &result["deliveries"]), (&60.into(), &1000.into()));
}

#[test]
fn latency_keeps_its_rate() {
    let result = measure(&["latency", "--connections", "50", "--rate", "500", "--messages", "200"]);
    assert_eq!(result["deliveries"], 10_000);
    let seconds = result["seconds"].as_f64().unwrap();
    assert!((0.39..5.0).contains(&seconds), "200 messages at 500 a second took {seconds} s");
}

#[test]
fn cross_measures_pairs() {
    let result = measure(&["cross", "--pairs", "8", "--rate", "500", "--messages", "200"]);
    assert_eq!((&result["connections"], &result["deliveries"]), (&16.into(), &200.into()));
}

#[test]
fn inbound_reaches_the_one_receiver() {
    // More than one batch of subscriptions.
    let result = measure(&["inbound", "--connections", "300", "--messages", "600"]);
    assert_eq!((&result["connections"], &result["deliveries"]), (&301.into(), &600.into()));
}

#[test]
fn connect_counts_connections() {
    let result = measure(&["connect", "--connections", "200", "--addresses", "3"]);
    assert_eq!(result["latency"]["samples"], 200);
    assert!(result["per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn idle_finds_a_slope() {
    let result = measure(&["idle", "--connections", "200", "--steps", "4"]);
    let memory = &result["memory"];
    assert_eq!(memory["points"].as_array().unwrap().len(), 4);
    let slope = memory["rss"]["slope"].as_f64().unwrap();
    assert!((1_000.0..1_000_000.0).contains(&slope), "{slope} bytes for a connection of the baseline");
}

#[test]
fn comparing_runs_both_in_turns() {
    let binary = baseline().to_str().unwrap();
    let output =
        loadtest(&["idle", "--connections", "8", "--steps", "2", "--compare", "--rounds", "1", "--bin", "/bin/false"]);
    assert_eq!(output.status.code(), Some(2), "the first server cannot start");
    assert!(String::from_utf8_lossy(&output.stderr).contains("exit status: 1"));
    let output = loadtest(&[
        "fanout",
        "--server",
        "baseline",
        "--bin",
        binary,
        "--connections",
        "5",
        "--messages",
        "10",
        "--rounds",
        "2",
    ]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (report["measurements"].as_array().unwrap().len(), report["summaries"].as_array().unwrap().len()),
        (2, 1)
    );
}

#[test]
fn tails_measure_the_same_clients_with_and_without() {
    let binary = baseline().to_str().unwrap();
    for (kind, small) in
        [("slow", [""; 2]), ("hot", ["--quiet-pipes", "40"]), ("storm", ["--storm", "40"]), ("large", [""; 2])]
    {
        let mut arguments = vec!["tails", kind, "--pairs", "1", "--seconds", "0.5", "--measured-rate", "1000"];
        arguments.extend(["--server", "baseline", "--bin", binary]);
        arguments.extend(small.iter().filter(|word| !word.is_empty()));
        let output = loadtest(&arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{kind}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_str(&text).unwrap();
        let outcome = &report["outcomes"][0];
        assert_eq!((&outcome["name"], &outcome["clean"]), (&kind.into(), &true.into()), "{outcome}");
        let pair = &outcome["pairs"][0];
        for phase in ["quiet", "disturbed"] {
            assert!(pair[phase]["latency"]["samples"].as_u64().unwrap() >= 400, "{kind}, {phase}: {pair}");
        }
        // The baseline tells nobody that events were left out.
        assert_eq!(outcome["acts"].as_u64().unwrap() > 0, kind != "slow", "{kind}: {outcome}");
    }
}

#[test]
fn scale_holds_the_connections_of_several_servers_at_once() {
    let binary = baseline().to_str().unwrap();
    let arguments = ["scale", "--processes", "2", "--connections", "100", "--server", "baseline", "--bin", binary];
    let output = loadtest(&arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap();
    let counts: Vec<_> =
        report["points"].as_array().unwrap().iter().map(|point| point["connections"].as_u64()).collect();
    assert_eq!(counts, [Some(0), Some(100), Some(200)]);
    assert_eq!(report["rss_bytes_per_connection"].as_array().unwrap().len(), 2);
}

#[test]
fn what_compares_by_itself_takes_no_server_from_outside() {
    for command in ["report", "tails"] {
        let output = loadtest(&[command, "--url", "ws://127.0.0.1:1/"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--url"), "{command}");
    }
}

#[test]
fn a_refusal_is_told_and_fails_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/v1/connect", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let length = stream.read(&mut head).unwrap();
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\n\r\n{\"code\":\"UNAUTHENTICATED\"}").unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let output = loadtest(&["connect", "--connections", "1", "--url", &url, "--token-secret", "s"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("401 Unauthorized"), "{text}");
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /v1/connect HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("Authorization: Bearer eyJ"), "{request}");
}

#[test]
fn too_many_connections_are_refused_before_anything_starts() {
    let output = loadtest(&["idle", "--connections", "1000000"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ulimit -n"));
}

#[test]
fn the_server_does_not_outlive_a_killed_load_generator() {
    let binary = baseline().to_str().unwrap();
    let arguments = ["latency", "--server", "baseline", "--bin", binary, "--seconds", "60", "--pin", "off"];
    let mut child = Command::new(LOADTEST).args(arguments).stdout(Stdio::null()).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let mut server = String::new();
    assert!(eventually(|| {
        server = fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
        !server.is_empty()
    }));
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = || match fs::read_to_string(format!("/proc/{server}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    assert!(eventually(gone), "process {server} still runs");
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
