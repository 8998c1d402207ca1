//! `pipeward demo`: a whole server in one process, with a generated key and a page to open.

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::auth::token::sign;
use crate::config::{Config, KeySource, TokenSettings};
use crate::shard::shared::Settings;

/// The page; `__TOKENS__` stands for the tokens of its three connections.
const PAGE: &str = include_str!("page.html");

/// Runs the demonstration until it is told to stop.
pub fn run(listen: SocketAddr) -> ExitCode {
    crate::run::log_to_stderr();
    let mut key = [0u8; 32];
    if let Err(error) = getrandom::fill(&mut key) {
        tracing::error!("no randomness from the system: {error}");
        return ExitCode::FAILURE;
    }
    match settings(listen, &key) {
        Ok(settings) => crate::run::run(settings, |addresses| {
            for address in addresses {
                println!("open http://{address}/ in a browser");
            }
        }),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn settings(listen: SocketAddr, key: &[u8]) -> Result<Settings, String> {
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
    let mut config = Config::new(workers);
    config.edge.listen = vec![listen];
    config.edge.drain_s = 1;
    config.auth.token = Some(TokenSettings {
        key: KeySource::HmacSecret(key.to_vec()),
        issuer: None,
        audience: None,
        leeway_s: 0,
        require_exp: false,
    });
    let mut settings = Settings::new(config)?;
    let tokens: Vec<String> = [
        person("ann", "Ann"),
        person("ben", "Ben"),
        // The application itself: the only one that may announce, or write to somebody's own pipe.
        r#"{"sub":"app","name":"The application","pipes":{"announcements":{"publish":true},"user-*":{"publish":true}}}"#.into(),
    ]
    .iter()
    .map(|claims| format!("\"{}\"", sign(key, claims)))
    .collect();
    settings.page = Some(PAGE.replace("__TOKENS__", &tokens.join(",")));
    Ok(settings)
}

fn person(id: &str, name: &str) -> String {
    format!(
        r#"{{"sub":"{id}","name":"{name}","pipes":{{"team-chat":{{"subscribe":true,"publish":true}},"announcements":{{"subscribe":true}},"user-{id}":{{"subscribe":true}}}}}}"#
    )
}
