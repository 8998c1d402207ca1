//! `pipeward demo`: a server to play with, in one command.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

/// Run a demonstration: a server with a generated key, a sample authorize endpoint and a page to open
///
/// Everything runs in this process and nothing is kept. The address of the page is printed. The server API and the sample
/// application listen beside it, on ports that the system chooses.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    crate::demo::run(arguments.listen)
}
