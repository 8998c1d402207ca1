//! `pipeward serve`: arguments → configuration → the server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{EXIT_WRONG, load, print_findings};
use crate::config::{self, Flag};

/// Run the server
///
/// Without --config the defaults hold. A flag wins over the environment, the environment over the file. SIGTERM or
/// SIGINT drains: connections are let go over drain_s, then it exits 0. Exit code 1: it cannot listen; 2: the
/// configuration is wrong, and every reason stands on stderr.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port for clients, as 127.0.0.1:8080; may be given several times
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    listen: Vec<String>,
    /// Address and port of the server API
    #[arg(long, value_name = "ADDR")]
    control: Option<String>,
    /// Worker threads [default: the cores available, one fewer from four up]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
}

impl Arguments {
    fn flags(&self) -> [Flag; 3] {
        let list = |value: &Option<String>| value.iter().cloned().collect();
        [
            Flag { name: "--listen", key: "edge.listen", values: self.listen.clone() },
            Flag { name: "--control", key: "control.listen", values: list(&self.control) },
            Flag { name: "--workers", key: "edge.workers", values: list(&self.workers) },
        ]
    }
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let flags = arguments.flags();
    let read = || load(|environment| config::load_with_flags(arguments.config.as_deref(), environment, &flags));
    match read() {
        Ok((config, warnings)) => {
            print_findings(&warnings);
            crate::run::serve(config, || match read() {
                Ok((config, warnings)) => {
                    print_findings(&warnings);
                    Some(config)
                }
                Err(findings) => {
                    print_findings(&findings);
                    None
                }
            })
        }
        Err(findings) => {
            print_findings(&findings);
            ExitCode::from(EXIT_WRONG)
        }
    }
}
