//! `pipeward disconnect`: close connections.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::client::Server;
use crate::config::ApiRight;

/// Close the connections of a user or a session, or a single one
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Only in this tenant
    #[arg(long, value_name = "TENANT", requires = "user")]
    tenant: Option<String>,
    /// The clients may connect again
    #[arg(long)]
    reconnect: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// User id
    user: Option<String>,
    /// A single connection, by the name that `connections` lists
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// All of a session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    user: Option<&'a str>,
    tenant: Option<&'a str>,
    connection: Option<&'a str>,
    session: Option<&'a str>,
    reconnect: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Which { user, connection, session } = &arguments.which;
    let body = Body {
        user: user.as_deref(),
        tenant: arguments.tenant.as_deref(),
        connection: connection.as_deref(),
        session: session.as_deref(),
        reconnect: arguments.reconnect,
    };
    arguments.server.post(ApiRight::Disconnect, &body)
}
