//! `pipeward push`: an event for connections, whatever they are subscribed to.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::client::{Server, parse_json};
use super::{EXIT_WRONG, complain};
use crate::config::ApiRight;

/// What a push can be aimed at.
const KINDS: [&str; 5] = ["user", "connection", "role", "tenant", "org"];

/// Push an event to connections through a running server
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeward push [OPTIONS] <USER> <EVENT> <DATA>\n       pipeward push [OPTIONS] --to <KIND=VALUE> <EVENT> <DATA>",
    after_help = "Example: pipeward push --to role=admin alert '{\"level\":3}'"
)]
pub(super) struct Arguments {
    /// User id (left out with --to), name of the event, and its data, which is any JSON
    #[arg(value_name = "ARGUMENT", num_args = 2..=3, required = true, allow_negative_numbers = true)]
    words: Vec<String>,
    /// Whom it reaches, instead of a user: connection=…, role=…, tenant=…, org=… or user=…
    #[arg(long, value_name = "KIND=VALUE", value_parser = parse_target)]
    to: Option<(String, String)>,
    /// Only in this tenant; goes with a user, a role or an org
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Do not wait until it is queued
    #[arg(long)]
    notify: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Serialize)]
struct Body<'a> {
    to: BTreeMap<&'a str, &'a str>,
    event: &'a str,
    data: &'a RawValue,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match body(arguments) {
        Ok((to, event, data)) => {
            let right = if arguments.notify { ApiRight::Notify } else { ApiRight::Push };
            arguments.server.post(right, &Body { to, event, data: &data })
        }
        Err(message) => {
            complain("error", message);
            ExitCode::from(EXIT_WRONG)
        }
    }
}

type Parts<'a> = (BTreeMap<&'a str, &'a str>, &'a str, Box<RawValue>);

fn body(arguments: &Arguments) -> Result<Parts<'_>, String> {
    let Arguments { words, to, tenant, .. } = arguments;
    let (kind, value, event, data) = match (to, words.as_slice()) {
        (None, [user, event, data]) => ("user", user, event, data),
        (Some((kind, value)), [event, data]) => (kind.as_str(), value, event, data),
        (None, _) => return Err("write USER EVENT DATA, or --to KIND=VALUE EVENT DATA".to_owned()),
        (Some(_), _) => return Err("with --to write EVENT DATA and no user".to_owned()),
    };
    let data = parse_json(data).map_err(|why| format!("DATA: {why}"))?;
    let mut to = BTreeMap::from([(kind, value.as_str())]);
    if let Some(tenant) = tenant
        && to.insert("tenant", tenant).is_some()
    {
        return Err("--to tenant=… and --tenant say the same; keep one of them".to_owned());
    }
    Ok((to, event, data))
}

pub(super) fn parse_target(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((kind, value)) if KINDS.contains(&kind) => Ok((kind.to_owned(), value.to_owned())),
        _ => Err(format!("write one of {} and a value, as in role=admin", KINDS.join(", "))),
    }
}
