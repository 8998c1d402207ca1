//! `pipeward demo`: a whole server in one process, with generated keys and a page to open.
//!
//! The page is one file without outside resources, served at `/`. It holds the tokens of two people, a newer and wider one for
//! each, that of an application which may announce and write to one user, and a key of the server API for its operator's
//! half. The keys live as long as the process, and so do revocations; whoever can open the page can use them, hence the
//! default address is a loopback one. The server API listens on the same host, on a port that the system chooses, and
//! lets pages of that host call it, which a server with a configuration file never does. There are always two workers
//! at least, so that messages cross cores also on a small machine.
//!
//! Who comes without a token is asked about at a sample application ([`application`]), by session cookie: it is the authorize
//! webhook of this server, on another port of the same host.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

mod application;

use application::Application;

use crate::auth::token::sign;
use crate::config::{Allow, ApiKey, ApiRight, AuditPath, Config, KeySource, TokenSettings, Webhook};
use crate::rules::definition::Endpoint;
use crate::shard::shared::Settings;

/// The page. What stands between double underscores is filled in by [`page`].
const PAGE: &str = include_str!("page.html");

/// The application itself: the only one that may announce, or write to somebody's own pipe.
const APPLICATION: &str =
    r#"{"sub":"app","name":"The application","pipes":{"announcements":{"publish":true},"user-*":{"publish":true}}}"#;

/// What the operator's buttons need.
const OPERATOR: [ApiRight; 7] = [
    ApiRight::Publish,
    ApiRight::Push,
    ApiRight::Revoke,
    ApiRight::RevokeAll,
    ApiRight::Restore,
    ApiRight::Disconnect,
    ApiRight::Connections,
];

/// Where the audit goes that nobody reads; stdout is for the address.
const NOWHERE: &str = "/dev/null";

/// What is made anew for each process.
struct Secrets {
    /// Signs the tokens.
    signing: [u8; 32],
    /// The key of the server API, in letters and digits.
    operator: String,
    /// Signs what the sample application is asked.
    application: [u8; 32],
}

impl Secrets {
    fn new() -> Result<Secrets, String> {
        let mut random = [[0u8; 32]; 3];
        getrandom::fill(random.as_flattened_mut())
            .map_err(|error| format!("no randomness from the system: {error}"))?;
        let [signing, operator, application] = random;
        let operator = operator.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Secrets { signing, operator, application })
    }
}

/// Runs the demonstration until it is told to stop. Prints the address to open on stdout, and the log on stderr.
pub fn run(listen: SocketAddr) -> ExitCode {
    crate::run::log_to_stderr();
    match prepare(listen) {
        Ok((settings, secrets, application)) => crate::run::run(
            settings,
            None,
            || None,
            |shared, addresses| {
                let ports = Ports { api: addresses.control.port(), application: application.address.port() };
                // Nobody else sets it.
                let _ = shared.page.set(page(&secrets, shared.loads.len(), ports));
                if let Err(error) = application.start() {
                    tracing::error!("{error}");
                }
                addresses.edge.iter().for_each(announce);
            },
        ),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(listen: SocketAddr) -> Result<(Settings, Secrets, Application), String> {
    let secrets = Secrets::new()?;
    let application = Application::bind(listen, &secrets.application)?;
    Ok((settings(listen, &secrets, &application.authorize)?, secrets, application))
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

/// `authorize` is where the sample application is asked.
fn settings(listen: SocketAddr, secrets: &Secrets, authorize: &str) -> Result<Settings, String> {
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
    let mut config = Config::new(workers);
    config.edge.listen = vec![listen];
    config.edge.drain_s = 1;
    config.auth.token = Some(TokenSettings {
        key: KeySource::HmacSecret(secrets.signing.to_vec()),
        issuer: None,
        audience: None,
        leeway_s: 0,
        require_exp: false,
    });
    // Who shows no token has a cookie, or nothing.
    config.auth.webhook = Some(Webhook {
        endpoint: Arc::new(Endpoint {
            number: 0,
            url: authorize.into(),
            timeout_ms: 2_000,
            secret: Some(Arc::from(&secrets.application[..])),
            cache_s: None,
            place: Default::default(),
        }),
        forward_headers: vec!["cookie".into()],
        concurrency: 64,
    });
    config.control.listen = SocketAddr::new(listen.ip(), 0);
    config.control.pages = true;
    let (secret, allow) =
        (secrets.operator.clone().into_bytes(), OPERATOR.into_iter().fold(Allow::default(), Allow::with));
    config.control.keys = vec![ApiKey { name: "operator".to_owned(), secret, allow }];
    config.audit.path = AuditPath::File(NOWHERE.into());
    Settings::new(config)
}

/// Where the page finds what does not listen on its own port.
struct Ports {
    /// The server API.
    api: u16,
    /// The sample application.
    application: u16,
}

/// The page for this process.
fn page(secrets: &Secrets, workers: usize, ports: Ports) -> String {
    let tokens = |claims: &[String]| {
        let tokens: Vec<String> =
            claims.iter().map(|claims| format!("\"{}\"", sign(&secrets.signing, claims))).collect();
        tokens.join(", ")
    };
    let first = [person("ann", "Ann", false), person("ben", "Ben", false), APPLICATION.to_owned()];
    let newer = [person("ann", "Ann", true), person("ben", "Ben", true)];
    PAGE.replace("__TOKENS__", &tokens(&first))
        .replace("__NEWER_TOKENS__", &tokens(&newer))
        .replace("__WORKERS__", &workers.to_string())
        .replace("__API_PORT__", &ports.api.to_string())
        .replace("__APPLICATION_PORT__", &ports.application.to_string())
        .replace("__API_KEY__", &secrets.operator)
}

/// The claims of one person.
fn person(id: &str, name: &str, speaker: bool) -> String {
    format!(r#"{{"sub":"{id}","name":"{name}","pipes":{}}}"#, pipes_of(id, speaker))
}

/// What one person may do: the team's chat both ways and who is in it, announcements and a pipe of their own to listen to; a
/// speaker may announce as well.
fn pipes_of(id: &str, speaker: bool) -> String {
    format!(
        r#"{{"team-chat":{{"subscribe":true,"publish":true,"presence":true}},"announcements":{{"subscribe":true,"publish":{speaker}}},"user-{id}":{{"subscribe":true}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets { signing: [7; 32], operator: "0123456789abcdef".to_owned(), application: [8; 32] }
    }

    #[test]
    fn the_page_is_filled_in_and_loads_nothing_from_elsewhere() {
        let page = page(&secrets(), 3, Ports { api: 40_001, application: 40_002 });
        assert!(!page.contains("__"), "a placeholder was left");
        assert!(page.contains("const WORKERS = 3;"));
        for outside in ["src=", "@import", "url(", "innerHTML", "document.write"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let connects = "connect-src 'self' ws: wss: http://*:40001 http://*:40002\"";
        assert!(page.contains(connects), "the server API, the sample application and nothing else");
        assert_eq!(page.matches("fetch(").count(), 2, "the server API, the sample application");
        let addresses = page.matches("://").count();
        assert_eq!(addresses, 7, "the namespace of the icon, and twice each the WebSocket's own address and those two");
    }

    #[test]
    fn the_server_api_is_as_near_as_the_page_and_takes_one_key() {
        for listens in ["127.0.0.1:8080", "0.0.0.0:8080", "[::1]:0"] {
            let listens: SocketAddr = listens.parse().expect("an address");
            let settings =
                settings(listens, &secrets(), "http://127.0.0.1:1/authorize").expect("the settings are valid");
            let control = &settings.config.control;
            assert_eq!(control.listen, SocketAddr::new(listens.ip(), 0));
            assert!(control.pages);
            let [key] = &control.keys[..] else { panic!("one key") };
            assert_eq!(key.secret, b"0123456789abcdef");
            assert!(key.allow.has(ApiRight::Revoke) && !key.allow.has(ApiRight::RevokeTokens));
            assert!(settings.config.edge.workers >= 2);
        }
    }

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let [one, other] = [(); 2].map(|()| Secrets::new().expect("the system has randomness"));
        assert_eq!(one.operator.len(), 64);
        assert!(one.operator.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one.operator, other.operator);
        assert_ne!(one.signing, other.signing);
        assert_ne!(one.application, other.application);
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
