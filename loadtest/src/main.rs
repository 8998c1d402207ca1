//! The load generator of Pipeward.
//!
//! Thousands of WebSocket clients in one thread, driven by one io_uring, so that on a machine with two cores one of
//! them is enough to load a server on the other. Every event is counted at every subscriber: losses, duplicates and
//! order errors are exact. Reading order: [`scenario`] (what is run) → [`run`] (a round) → [`engine`] (sockets and
//! time) → [`load`] (the clients, without sockets) → [`order`], [`stamp`], [`frame`] (what they look at) → [`report`].
//!
//! It shares no code with the server: what it believes about the wire is written here a second time, on purpose.

mod client;
mod engine;
mod frame;
mod load;
mod options;
mod order;
mod process;
mod regression;
mod report;
mod ring;
mod run;
mod scenario;
mod server;
mod stamp;
mod table;
mod token;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = options::Options::parse();
    match run::all(&options) {
        Ok(report) => {
            report.print(options.json);
            // Any loss, duplicate, order error or refused client makes the figures worthless.
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(2)
        }
    }
}
