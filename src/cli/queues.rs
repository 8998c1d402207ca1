//! `pipeward queues`: what waits for the application, what was given up, and having that tried again.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::client::{Server, encoded};
use crate::config::ApiRight;

/// Show the queues: what waits, since when, the last error, and what was given up
///
/// The answer is JSON.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the messages of a queue that were given up, oldest first
    ///
    /// The answer is JSON. Where it holds `next`, there are more: give that as --after.
    Dead {
        /// Name of the queue
        queue: String,
        /// At most so many, 1 to 1000 [default: 100]
        #[arg(long, value_name = "N")]
        limit: Option<u16>,
        /// The `next` of the list before
        #[arg(long, value_name = "NEXT")]
        after: Option<u64>,
        #[command(flatten)]
        server: Server,
    },
    /// Have messages tried again that were given up, behind whatever waits
    Retry {
        /// Name of the queue
        queue: String,
        /// Id of one message [default: all for which the queue has room]
        id: Option<String>,
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Serialize)]
struct Retry<'a> {
    id: Option<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let right = ApiRight::Queues;
    match &arguments.verb {
        None => arguments.server.get(right, &[]),
        Some(Verb::Dead { queue, limit, after, server }) => {
            let parameters =
                [("limit", limit.map(|limit| limit.to_string())), ("after", after.map(|at| at.to_string()))];
            let given: Vec<_> = parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            server.get_at(right, &format!("/v1/queues/{}/dead", encoded(queue)), &given)
        }
        Some(Verb::Retry { queue, id, server }) => {
            server.post_at(right, &format!("/v1/queues/{}/retry", encoded(queue)), &Retry { id: id.as_deref() })
        }
    }
}
