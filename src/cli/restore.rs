//! `pipeward restore`: lift what was revoked.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::client::Server;
use crate::config::ApiRight;

/// Lift a revocation of a user, or all of them
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// User id
    user: String,
    /// The name or pattern exactly as it was revoked [default: everything that was revoked for the user]
    pipe: Option<String>,
    /// The tenant that the revocation named
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Serialize)]
struct Body<'a> {
    user: &'a str,
    tenant: Option<&'a str>,
    pipe: Option<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { user, pipe, tenant, server } = arguments;
    server.post(ApiRight::Restore, &Body { user, tenant: tenant.as_deref(), pipe: pipe.as_deref() })
}
