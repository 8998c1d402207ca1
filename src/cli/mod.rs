//! The command line: one verb, one file.
//!
//! Exit codes of every verb: 0 done · 1 it could not be done (for `check --strict`: warnings) · 2 the command line or
//! the configuration is wrong. What was asked for goes to stdout, everything else to stderr. Help texts and
//! completions derive from the types here.

mod check;
mod client;
mod completions;
mod connections;
mod demo;
mod disconnect;
mod explain;
mod publish;
mod push;
mod queues;
mod restore;
mod revoke;
mod revoke_tokens;
mod serve;
mod token;
mod unsubscribe;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Finding, Loaded, Severity};

/// Exit code where the command line or the configuration is wrong.
const EXIT_WRONG: u8 = 2;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pipeward",
    version,
    about = "Realtime edge server: very many WebSocket connections, permissions enforced on every message",
    after_help = "Every key of the configuration can also be given by an environment variable: \
                  PIPEWARD_EDGE__PING_S stands for ping_s in [edge].",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serve::Arguments),
    Check(check::Arguments),
    Explain(explain::Arguments),
    Token(token::Arguments),
    Demo(demo::Arguments),
    Publish(publish::Arguments),
    Push(push::Arguments),
    Revoke(revoke::Arguments),
    RevokeAll(revoke::AllArguments),
    Restore(restore::Arguments),
    RevokeTokens(revoke_tokens::Arguments),
    Disconnect(disconnect::Arguments),
    Unsubscribe(unsubscribe::Arguments),
    Connections(connections::Arguments),
    Queues(queues::Arguments),
    Completions(completions::Arguments),
}

/// Runs the verb that `arguments` (the program's name first) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(message) => {
            // Help and version come this way too, on stdout and with code 0. Nobody is left to tell of a closed pipe.
            let _ = message.print();
            return ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(EXIT_WRONG));
        }
    };
    match arguments.verb {
        Verb::Serve(arguments) => serve::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Token(arguments) => token::run(&arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Publish(arguments) => publish::run(&arguments),
        Verb::Push(arguments) => push::run(&arguments),
        Verb::Revoke(arguments) => revoke::run(&arguments),
        Verb::RevokeAll(arguments) => revoke::run_all(&arguments),
        Verb::Restore(arguments) => restore::run(&arguments),
        Verb::RevokeTokens(arguments) => revoke_tokens::run(&arguments),
        Verb::Disconnect(arguments) => disconnect::run(&arguments),
        Verb::Unsubscribe(arguments) => unsubscribe::run(&arguments),
        Verb::Connections(arguments) => connections::run(&arguments),
        Verb::Queues(arguments) => queues::run(&arguments),
        Verb::Completions(arguments) => completions::run(&arguments),
    }
}

/// The variables of the environment that the configuration may look at. One that is not UTF-8 is a finding: a secret
/// must not be changed in silence.
fn environment() -> Result<Vec<(String, String)>, Vec<Finding>> {
    let (mut variables, mut findings) = (Vec::new(), Vec::new());
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("PIPEWARD_")) else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name.to_owned(), value)),
            Err(_) => findings.push(Finding {
                severity: Severity::Error,
                file: name.to_owned(),
                line: 0,
                key: String::new(),
                message: "the value is not UTF-8; write it as UTF-8 text".to_owned(),
            }),
        }
    }
    if findings.is_empty() { Ok(variables) } else { Err(findings) }
}

/// Loads with the environment of this process.
fn load(load: impl FnOnce(&mut dyn Iterator<Item = (String, String)>) -> Loaded) -> Loaded {
    load(&mut environment()?.into_iter())
}

/// One line on stderr for each finding.
fn print_findings(findings: &[Finding]) {
    for finding in findings {
        complain(if finding.is_error() { "error" } else { "warning" }, finding);
    }
}

/// One line on stderr. Where nobody reads it, that is no reason to fail, let alone to panic as `eprintln` does.
fn complain(severity: &str, message: impl Display) {
    let _ = writeln!(std::io::stderr(), "{severity}: {message}");
}

/// One line on stdout; false where it could not be written.
fn print(line: impl Display) -> bool {
    writeln!(std::io::stdout(), "{line}").is_ok()
}
