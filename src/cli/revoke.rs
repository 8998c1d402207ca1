//! `pipeward revoke` and `pipeward revoke-all`: take pipes from a user.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::client::{Server, parse_limit};
use crate::config::ApiRight;

/// Take a pipe, or all pipes that a pattern matches, from a user
///
/// It is stored and in force on every core when this ends, also for connections that come later.
#[derive(Debug, Args)]
#[command(after_help = "Example: pipeward revoke ada 'team-*' --ttl 1h")]
pub(super) struct Arguments {
    /// User id
    user: String,
    /// Name of the pipe, or a pattern
    pipe: String,
    #[command(flatten)]
    common: Common,
}

/// Take all pipes from a user
///
/// The connections stay; nothing can be subscribed to or published until it is restored.
#[derive(Debug, Args)]
pub(super) struct AllArguments {
    /// User id
    user: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Only in this tenant [default: in every tenant]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// How long: 90s, 30m, 1h, 7d [default: until restored]
    #[arg(long, value_name = "TIME", value_parser = parse_limit)]
    ttl: Option<u64>,
    /// It also ends when an authorization that is asked for afterwards grants the pipe
    #[arg(long)]
    until_reauthorized: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Serialize)]
struct Body<'a> {
    user: &'a str,
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipe: Option<&'a str>,
    ttl_s: Option<u64>,
    until: Option<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    arguments.common.call(ApiRight::Revoke, &arguments.user, Some(&arguments.pipe))
}

pub(super) fn run_all(arguments: &AllArguments) -> ExitCode {
    arguments.common.call(ApiRight::RevokeAll, &arguments.user, None)
}

impl Common {
    fn call(&self, right: ApiRight, user: &str, pipe: Option<&str>) -> ExitCode {
        let until = self.until_reauthorized.then_some("reauthorized");
        self.server.post(right, &Body { user, tenant: self.tenant.as_deref(), pipe, ttl_s: self.ttl, until })
    }
}
