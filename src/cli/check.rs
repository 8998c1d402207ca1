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
    let who = match (&config.auth.token, config.auth.anonymous) {
        (Some(_), true) => "clients with a token, and anonymous ones",
        (Some(_), false) => "clients with a token",
        (None, true) => "anonymous clients only (there is no [auth.token])",
        (None, false) => "nobody (there is no [auth.token], and auth.anonymous is false)",
    };
    format!(
        "would listen on {} with {} and let in {who}; {}",
        listen.join(", "),
        counted(config.edge.workers, "worker"),
        counted(config.pipes.len(), "pipe definition")
    )
}
