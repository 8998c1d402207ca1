//! The load generator of Pipeward.
//!
//! Thousands of WebSocket clients in one thread, driven by one io_uring, so that on a machine with two cores one of
//! them is enough to load a server on the other. Every event is counted at every subscriber: losses, duplicates and
//! order errors are exact. Reading order: [`scenario`] (what is run) → [`run`] (a round) → [`engine`] (sockets and
//! time) → [`load`] (the clients, without sockets) → [`order`], [`stamp`], [`frame`] (what they look at) → [`report`]
//! (what was measured). Above them: [`suite`] runs every scenario and [`page`] writes it down, [`tails`] measures what
//! others feel, [`scale`] holds many idle connections.
//!
//! It shares no code with the server: what it believes about the wire is written here a second time, on purpose.

mod client;
mod engine;
mod frame;
mod load;
mod options;
mod order;
mod page;
mod process;
mod regression;
mod report;
mod ring;
mod run;
mod scale;
mod scenario;
mod server;
mod stamp;
mod suite;
mod table;
mod tails;
mod token;

use std::process::ExitCode;

use clap::Parser;

use options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    let clean = match &options.command {
        Command::Scenario(scenario) => run::all(&options, scenario).map(|report| {
            report.print(options.json);
            report.is_clean()
        }),
        Command::Report(report) => suite::run(&options, report),
        Command::Tails(tails) => tails::run(&options, tails).map(|tails| {
            tails.print(options.json);
            tails.is_clean()
        }),
        Command::Scale(scale) => scale::run(&options, scale),
    };
    match clean {
        Ok(true) => ExitCode::SUCCESS,
        // Any loss, duplicate, order error or refused client makes the figures worthless.
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(2)
        }
    }
}
