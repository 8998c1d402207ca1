//! `pipeward unsubscribe`: end subscriptions; the grant stays.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::client::Server;
use super::{EXIT_WRONG, complain};
use crate::config::ApiRight;

/// End the subscription of a user, or of one connection, to a pipe; they may subscribe again
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeward unsubscribe [OPTIONS] <USER> <PIPE>\n       pipeward unsubscribe [OPTIONS] --connection <NAME> <PIPE>",
    after_help = "Example: pipeward unsubscribe ada chat"
)]
pub(super) struct Arguments {
    /// User id (left out with --connection) and name of the pipe
    #[arg(value_name = "ARGUMENT", num_args = 1..=2, required = true)]
    words: Vec<String>,
    /// A single connection, by the name that `connections` lists, instead of a user
    #[arg(long, value_name = "NAME", conflicts_with = "tenant")]
    connection: Option<String>,
    /// Only in this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Serialize)]
struct Body<'a> {
    user: Option<&'a str>,
    tenant: Option<&'a str>,
    connection: Option<&'a str>,
    pipe: &'a str,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { words, connection, tenant, server } = arguments;
    let (user, pipe) = match (connection, words.as_slice()) {
        (None, [user, pipe]) => (Some(user.as_str()), pipe),
        (Some(_), [pipe]) => (None, pipe),
        _ => {
            complain("error", "write USER PIPE, or --connection NAME PIPE");
            return ExitCode::from(EXIT_WRONG);
        }
    };
    let body = Body { user, tenant: tenant.as_deref(), connection: connection.as_deref(), pipe };
    server.post(ApiRight::Unsubscribe, &body)
}
