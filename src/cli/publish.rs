//! `pipeward publish`: an event for the subscribers of a pipe.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::client::{Server, parse_json};
use crate::config::ApiRight;

/// Publish an event through a running server
#[derive(Debug, Args)]
#[command(after_help = "Example: pipeward publish chat message '{\"text\":\"hello\"}' --count")]
pub(super) struct Arguments {
    /// Name of the pipe
    pipe: String,
    /// Name of the event
    event: String,
    /// Any JSON; delivered byte for byte
    #[arg(value_parser = parse_json, allow_negative_numbers = true)]
    data: Box<RawValue>,
    /// The user that receivers see as the sender [default: the application]
    #[arg(long, value_name = "USER")]
    sender: Option<String>,
    /// Answer with the number of connections that it was queued for
    #[arg(long)]
    count: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Serialize)]
struct Body<'a> {
    pipe: &'a str,
    event: &'a str,
    data: &'a RawValue,
    sender: Option<&'a str>,
    count: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { pipe, event, data, sender, count, server } = arguments;
    server.post(ApiRight::Publish, &Body { pipe, event, data, sender: sender.as_deref(), count: *count })
}
