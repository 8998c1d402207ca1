//! `pipeward explain`: why a connection may or may not do something, step by step.
//!
//! The same judge decides as in the server, over the same rules; nothing is asked of the application and no server is
//! needed. What only a running server knows is named and left out: revocations, rates, what is used up.

mod cases;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{ArgGroup, Args, ValueEnum};
use serde_json::value::RawValue;

use self::cases::Explainer;
use super::client::parse_json;
use super::push::parse_target;
use super::{EXIT_WRONG, complain, load, print, print_findings};
use crate::auth::answer;
use crate::auth::decision::Decision;
use crate::auth::token::Verifier;
use crate::config::{self, Config, KeySource};
use crate::control::jwks;

/// Tell why a connection may or may not do something
///
/// Without --token and --answer the connection is anonymous. Exit code: 0 it is told, whatever came of it; 2 the command
/// line or the configuration is wrong.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").args(["pipe", "action", "queue", "to"]).required(true)),
    after_help = "Example: pipeward explain --config pipeward.toml --token \"$TOKEN\" --pipe acme:chat --event message \
                  --data '{\"text\":\"hello\"}'"
)]
pub(super) struct Arguments {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The token that the connection comes with
    #[arg(long, value_name = "TOKEN", conflicts_with = "answer")]
    token: Option<String>,
    /// What the authorize webhook says about the connection: its answer, in JSON
    #[arg(long, value_name = "JSON")]
    answer: Option<String>,
    /// Address that it comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    ip: IpAddr,
    /// May it subscribe to this pipe, publish to it, see who is there?
    #[arg(long, value_name = "PIPE")]
    pipe: Option<String>,
    /// May it call this action?
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// May it hand a message to this queue?
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// May it push to these: user=…, connection=…, role=…, tenant=… or org=…?
    #[arg(long, value_name = "KIND=VALUE", value_parser = parse_target)]
    to: Option<(String, String)>,
    /// Name of the event that is published or pushed
    #[arg(long, value_name = "EVENT", conflicts_with_all = ["action", "queue"])]
    event: Option<String>,
    /// Data of the event or of the message, arguments of the action: JSON
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    data: Option<Box<RawValue>>,
    /// What the application is taken to say where a rule asks it
    #[arg(long, value_name = "ANSWER")]
    assume: Option<Assumed>,
}

/// What the application is taken to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Assumed {
    /// It allows
    Allow,
    /// It refuses
    Refuse,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let config = match load(|environment| config::load_with_flags(arguments.config.as_deref(), environment, &[])) {
        Ok((config, _)) => config,
        Err(findings) => {
            print_findings(&findings);
            return ExitCode::from(EXIT_WRONG);
        }
    };
    let told = match connection(arguments, &config) {
        Ok(Ok(decision)) => explain(arguments, &config, decision.as_ref()),
        Ok(Err(refused)) => vec![format!("connect: {refused}")],
        Err(message) => {
            complain("error", message);
            return ExitCode::from(EXIT_WRONG);
        }
    };
    let is_printed = told.iter().all(print);
    ExitCode::from(u8::from(!is_printed))
}

/// Who the connection is; None: anonymous. The inner error is how it would be refused.
fn connection(arguments: &Arguments, config: &Config) -> Result<Result<Option<Decision>, String>, String> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64;
    let refused = |code: &str, why: &str| Ok(Err(format!("refused, {code}: {why}")));
    let auth = &config.auth;
    match (&arguments.token, &arguments.answer) {
        (Some(token), _) => {
            let Some(settings) = &auth.token else {
                return match &auth.webhook {
                    Some(_) => {
                        Err("there is no [auth.token], so that a token is for the webhook to read; give what it \
                                    answers with --answer"
                            .to_owned())
                    }
                    None => refused("UNAUTHENTICATED", "there is no [auth.token], so that every token is refused"),
                };
            };
            let verifier = Verifier::new(settings).map_err(|why| format!("auth.token: {why}"))?;
            if let (KeySource::JwksUrl(url), Some(keys)) = (&settings.key, verifier.fetched()) {
                keys.install(jwks::fetch_once(url).map_err(|why| format!("{url}: {why}"))?);
            }
            match verifier.verify(token, now_ms) {
                Ok(decision) => Ok(Ok(Some(decision))),
                Err(why) => refused("UNAUTHENTICATED", &why.to_string()),
            }
        }
        (None, Some(answer)) => match answer::authorize(answer, now_ms) {
            Ok(Some(decision)) if decision.expires_at_ms.is_some_and(|end| end <= now_ms) => {
                refused("UNAUTHENTICATED", "its `expires_at` is past")
            }
            Ok(Some(decision)) => Ok(Ok(Some(decision))),
            Ok(None) => refused("UNAUTHENTICATED", "the answer is null"),
            Err(malformed) => refused("UNAVAILABLE", &format!("the answer is malformed: {malformed}")),
        },
        (None, None) if auth.webhook.is_some() => {
            Err("[auth.webhook] decides who this is; give what it answers with --answer, or a --token".to_owned())
        }
        (None, None) if auth.anonymous => Ok(Ok(None)),
        (None, None) => {
            refused("UNAUTHENTICATED", "there is no token, and auth.anonymous is false; give one with --token")
        }
    }
}

fn explain(arguments: &Arguments, config: &Config, decision: Option<&Decision>) -> Vec<String> {
    let assumed = arguments.assume.map(|assumed| assumed == Assumed::Allow);
    let mut explainer = Explainer::new(&config.rules, decision, arguments.ip, assumed);
    let data = arguments.data.as_deref().map(RawValue::get);
    let event = arguments.event.as_deref();
    if let Some(pipe) = &arguments.pipe {
        explainer.pipe(pipe, event, data);
    } else if let Some(action) = &arguments.action {
        explainer.action(action, data);
    } else if let Some(queue) = &arguments.queue {
        explainer.queue(queue, data);
    } else if let Some((kind, id)) = &arguments.to {
        explainer.push((kind, id), event, data);
    }
    explainer.into_lines()
}
