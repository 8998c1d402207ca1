//! The command line.

use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::scale;
use crate::scenario::Scenario;
use crate::server::Kind;
use crate::stamp;
use crate::suite;
use crate::tails;

/// Load a realtime server with thousands of WebSocket clients and count every delivery.
///
/// Starts the server itself (`--server`, or `--compare` for Pipeward and the baseline in turns), or loads a running
/// one (`--url`). Exit code 1 if any event was lost, doubled or out of order or any client was refused, 2 if nothing
/// could be measured.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = "Example: loadtest fanout --connections 1000 --window 32 --compare --rounds 3")]
pub struct Options {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
    /// Server to start
    #[arg(long, global = true, value_enum, default_value = "pipeward", conflicts_with_all = ["url", "compare"])]
    pub server: Kind,
    /// Pipeward and the baseline in turns, with ratios
    #[arg(long, global = true, conflicts_with = "url")]
    pub compare: bool,
    /// The same server with so many workers in turns, with ratios
    #[arg(long, global = true, value_name = "N", conflicts_with_all = ["url", "compare"],
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub compare_workers: Option<u16>,
    /// Load a running server instead: ws://HOST:PORT/PATH
    #[arg(long, global = true)]
    pub url: Option<String>,
    /// With --url: sign tokens with this HS256 secret (without it, tokens are bare user names)
    #[arg(long, global = true, requires = "url")]
    pub token_secret: Option<String>,
    /// With --url: process to measure CPU and memory of
    #[arg(long, global = true, requires = "url")]
    pub server_pid: Option<i32>,
    /// Worker threads of the server
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Binary of the server (with --compare: of Pipeward) [default: beside this program]
    #[arg(long, global = true, value_name = "PATH")]
    pub bin: Option<PathBuf>,
    /// Binary of the baseline with --compare and report [default: beside this program]
    #[arg(long, global = true, value_name = "PATH")]
    pub baseline_bin: Option<PathBuf>,
    /// Rounds, each with a fresh server [default: 3 where servers are compared, else 1]
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Bytes of the `data` of a publish, quotes included
    #[arg(long, global = true, default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(stamp::DATA_BYTES_MIN as i64..=1 << 20))]
    pub payload: u32,
    /// Seconds of publishing in a round
    #[arg(long, global = true, default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    /// End a round after so many publishes, if that is sooner
    #[arg(long, global = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// Milliseconds of publishing before the measurement begins
    #[arg(long, global = true, default_value_t = 500, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub warmup_ms: u64,
    /// Where there are two cores or more: the server on the first ones, the clients on the last
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub pin: Pin,
    /// Server and clients before all other programs of their cores (SCHED_FIFO; as root): latencies on a machine that is
    /// not quiet. The clients sleep. Not with --pin stacked; in a report for the rows about latency
    #[arg(long, global = true)]
    pub realtime: bool,
    /// How the clients wait; auto spins where they have a core of their own
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub wait: WaitOption,
    /// Handshakes at one time
    #[arg(long, global = true, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub handshakes: u32,
    /// Addresses of 127.0.0.0/8 to connect from [default: one for each 20000 connections or 48 handshakes at one time]
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub addresses: Option<u32>,
    /// Results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bar
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// One scenario, or several that belong together.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// One scenario.
    #[command(flatten)]
    Scenario(Scenario),
    /// Every scenario against the baseline, on one page: Markdown and HTML with charts
    Report(suite::Options),
    /// What others feel: slow consumers, a hot pipe, a reconnect storm, large payloads; p99 with and without, in one run
    Tails(tails::Options),
    /// Idle connections of several servers at once, each with a load process of its own: user and kernel memory
    Scale(scale::Options),
}

/// Whether cores are assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pin {
    /// Where there are two or more.
    Auto,
    /// All workers of the server on the first core, the clients on the last: what a delivery costs with several workers
    /// and with one can then be compared, for the bytes take the same way.
    Stacked,
    /// Never.
    Off,
}

/// How the clients wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitOption {
    /// Spin where the clients have a core of their own.
    Auto,
    /// Poll: the server is never charged for waking the clients.
    Spin,
    /// Sleep in the kernel.
    Sleep,
}

/// A server that runs already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Its address.
    pub address: SocketAddrV4,
    /// HOST:PORT as given.
    pub host: String,
    /// Path with the slash.
    pub path: String,
}

impl Options {
    /// Rounds to run.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.compare || self.compare_workers.is_some() { 3 } else { 1 })
    }

    /// Whether server and clients go before other programs. Workers that share a core would never give way to each other.
    pub fn is_realtime(&self) -> bool {
        self.realtime && self.pin != Pin::Stacked
    }

    /// Addresses to connect from: neither the ports of one address nor its share of pending handshakes may run out.
    pub fn addresses(&self, connections: usize) -> u32 {
        self.addresses.unwrap_or_else(|| (connections as u32).div_ceil(20_000).max(self.handshakes.div_ceil(48)).max(1))
    }
}

/// Reads a `ws://` URL; only IPv4, and no TLS.
pub fn url(text: &str) -> Result<Url, String> {
    let rest = text.strip_prefix("ws://").ok_or_else(|| format!("{text}: must begin with ws://"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut addresses = with_port.to_socket_addrs().map_err(|error| format!("{text}: {error}"))?;
    let address = addresses.find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    let address = address.ok_or_else(|| format!("{text}: has no IPv4 address"))?;
    let path = if path.is_empty() { "/v1/connect" } else { path };
    Ok(Url { address, host: host.to_owned(), path: path.to_owned() })
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.05..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("must be 0.05 to 3600".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
        let options = Options::parse_from(["loadtest", "fanout", "--window", "32", "--compare"]);
        assert_eq!((options.rounds(), options.addresses(1000), options.payload), (3, 1, 128));
        assert!(Options::try_parse_from(["loadtest", "fanout", "--payload", "3"]).is_err());
        assert!(Options::try_parse_from(["loadtest", "latency", "--rate", "nan"]).is_err());
    }

    #[test]
    fn ports_and_pending_handshakes_are_spread_over_addresses() {
        let options = Options::parse_from(["loadtest", "connect", "--handshakes", "100"]);
        assert_eq!((options.addresses(10), options.addresses(70_000)), (3, 4));
    }

    #[test]
    fn urls_are_taken_apart() {
        let expected = |address: &str, host: &str, path: &str| Url {
            address: address.parse().unwrap(),
            host: host.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(url("ws://127.0.0.1:9/x?y"), Ok(expected("127.0.0.1:9", "127.0.0.1:9", "/x?y")));
        assert_eq!(url("ws://127.0.0.1"), Ok(expected("127.0.0.1:80", "127.0.0.1", "/v1/connect")));
        assert!(url("http://127.0.0.1").is_err());
    }
}
