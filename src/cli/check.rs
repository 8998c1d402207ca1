//! `pipeward check`: what is wrong with a configuration file, all of it at once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{EXIT_WRONG, load, print, print_findings};
use crate::config::{self, Config, Finding};

/// Check a configuration file
///
/// Findings go to stderr, one a line, with file, line and key; a summary goes to stdout. The environment is taken into
/// account as `serve` would. Exit code: 0 usable, 1 warnings with --strict, 2 errors.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file (TOML)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Exit with 1 where there are warnings
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let file = arguments.file.display();
    match load(|environment| config::load(&arguments.file, environment)) {
        Ok((config, warnings)) => {
            print_findings(&warnings);
            print(format_args!("{file}: {}", counts(&warnings)));
            print(summary(&config));
            ExitCode::from(u8::from(arguments.strict && !warnings.is_empty()))
        }
        Err(findings) => {
            print_findings(&findings);
            print(format_args!("{file}: {}", counts(&findings)));
            ExitCode::from(EXIT_WRONG)
        }
    }
}

fn counts(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let warnings = findings.len() - errors;
    format!("{}, {}", counted(errors, "error"), counted(warnings, "warning"))
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What a server with this configuration would do, in a sentence.
fn summary(config: &Config) -> String {
    let listen: Vec<String> = config.edge.listen.iter().map(ToString::to_string).collect();
    let (edge, auth, rules) = (&config.edge, &config.auth, &config.rules);
    let who = match (&auth.token, &auth.webhook, auth.anonymous) {
        (Some(_), Some(_), _) => "clients with a token, and others as [auth.webhook] says",
        (None, Some(_), _) => "clients as [auth.webhook] says",
        (Some(_), None, true) => "clients with a token, and anonymous ones",
        (Some(_), None, false) => "clients with a token",
        (None, None, true) => "anonymous clients only (there is no [auth.token] and no [auth.webhook])",
        (None, None, false) => "nobody (there is no [auth.token] and no [auth.webhook], and auth.anonymous is false)",
    };
    let counts = [
        (rules.pipes.len(), "pipe definition"),
        (rules.actions.len(), "action"),
        (rules.queues.len(), "queue"),
        (rules.guards.len(), "guard"),
        (rules.modules.len(), "module"),
    ];
    // What is defined; a file without rules says so with its pipes.
    let defined = counts.iter().enumerate().filter(|(at, (count, _))| *at == 0 || *count > 0);
    let defined: Vec<String> = defined.map(|(_, (count, noun))| counted(*count, noun)).collect();
    format!(
        "would listen on {} with {} and let in {who}; {}",
        listen.join(", "),
        counted(edge.workers, "worker"),
        defined.join(", ")
    )
}
