//! `pipeward demo`: a whole server in one process, with a generated key and a page to open.
//!
//! The page is one file without outside resources, served at `/`. It holds three tokens: two people, and an application
//! that may announce and write to one user. The key lives as long as the process, so the tokens do too; whoever can open
//! the page can use them, hence the default address is a loopback one. There are always two workers at least, so that
//! messages cross cores also on a small machine.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use crate::auth::token::sign;
use crate::config::{Config, KeySource, TokenSettings};
use crate::shard::shared::Settings;

/// The page. `__TOKENS__` stands for the tokens of its three connections, `__WORKERS__` for the number of workers.
const PAGE: &str = include_str!("page.html");

/// The application itself: the only one that may announce, or write to somebody's own pipe.
const APPLICATION: &str =
    r#"{"sub":"app","name":"The application","pipes":{"announcements":{"publish":true},"user-*":{"publish":true}}}"#;

/// Runs the demonstration until it is told to stop. Prints the address to open on stdout, and the log on stderr.
pub fn run(listen: SocketAddr) -> ExitCode {
    crate::run::log_to_stderr();
    let mut key = [0u8; 32];
    if let Err(error) = getrandom::fill(&mut key) {
        tracing::error!("no randomness from the system: {error}");
        return ExitCode::FAILURE;
    }
    match settings(listen, &key) {
        Ok(settings) => crate::run::run(settings, |addresses| addresses.iter().for_each(announce)),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Where nobody reads stdout the server runs all the same.
fn announce(address: &SocketAddr) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "open http://{}/ in a browser", reachable(*address)).and_then(|()| stdout.flush());
}

/// An address that a browser on this machine can open: "every address" is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
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
    let claims = [person("ann", "Ann"), person("ben", "Ben"), APPLICATION.to_owned()];
    let tokens = claims.map(|claims| format!("\"{}\"", sign(key, &claims))).join(", ");
    let page = PAGE.replacen("__TOKENS__", &tokens, 1).replacen("__WORKERS__", &workers.to_string(), 1);
    let mut settings = Settings::new(config)?;
    settings.page = Some(page);
    Ok(settings)
}

/// The claims of one person: the team's chat both ways, announcements and a pipe of their own to listen to.
fn person(id: &str, name: &str) -> String {
    format!(
        r#"{{"sub":"{id}","name":"{name}","pipes":{{"team-chat":{{"subscribe":true,"publish":true}},"announcements":{{"subscribe":true}},"user-{id}":{{"subscribe":true}}}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_filled_in_and_loads_nothing_from_elsewhere() {
        let settings = settings(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[7; 32]).expect("the settings are valid");
        let page = settings.page.expect("there is a page");
        assert!(!page.contains("__"), "a placeholder was left");
        assert!(page.contains(&format!("const WORKERS = {};", settings.config.edge.workers)));
        assert!(settings.config.edge.workers >= 2);
        for outside in ["src=", "@import", "url(", "fetch(", "innerHTML", "document.write"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let addresses = page.matches("://").count();
        assert_eq!(addresses, 2, "the namespace of the icon and the WebSocket's own address");
    }

    #[test]
    fn every_address_is_announced_as_one_that_can_be_opened() {
        for (listens, opens) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("192.0.2.1:3", "192.0.2.1:3"),
            ("[2001:db8::1]:4", "[2001:db8::1]:4"),
        ] {
            let address = listens.parse().expect("an address");
            assert_eq!(reachable(address).to_string(), opens);
        }
    }
}
