//! `pipeward connections`: who is connected.

use std::process::ExitCode;

use clap::Args;

use super::client::Server;
use crate::config::ApiRight;

/// List open connections
///
/// The answer is JSON. Where it holds `next`, there are more: give that as --after.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only those of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only those of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// At most so many, 1 to 1000 [default: 100]
    #[arg(long, value_name = "N")]
    limit: Option<u16>,
    /// The `next` of the list before
    #[arg(long, value_name = "NEXT")]
    after: Option<String>,
    #[command(flatten)]
    server: Server,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { user, tenant, limit, after, server } = arguments;
    let limit = limit.map(|limit| limit.to_string());
    let parameters = [("user", user), ("tenant", tenant), ("limit", &limit), ("after", after)];
    let given = parameters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    server.get(ApiRight::Connections, &given.collect::<Vec<_>>())
}
