//! What the verbs that call a running server have in common: where it is, whose key, and how answers are told (G5, G14).
//!
//! Flags win over `--config`, that over `PIPEWARD_URL` and `PIPEWARD_KEY`. The answer goes to stdout; an error to stderr,
//! with exit code 1. The key is never printed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::token::{Ttl, parse_ttl};
use super::{EXIT_WRONG, complain, load, print, print_findings};
use crate::config::{self, ApiRight};
use crate::control::api::{Answer, Client};

/// Exit code where the server refused, or did not answer.
const EXIT_FAILED: u8 = 1;
/// Where the server API is unless something else is said.
const URL_DEFAULT: &str = "http://127.0.0.1:8081";

/// How to reach the server.
#[derive(Args)]
#[command(next_help_heading = "Server")]
pub(super) struct Server {
    /// Address of the server API, as http://127.0.0.1:8081 [env: PIPEWARD_URL]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Secret of an API key; better in the environment, where others do not see it [env: PIPEWARD_KEY]
    #[arg(long, value_name = "SECRET")]
    key: Option<String>,
    /// Take address and key from the server's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Without the key.
impl std::fmt::Debug for Server {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Server").field("url", &self.url).field("config", &self.config).finish_non_exhaustive()
    }
}

/// What the server says to an error.
#[derive(Deserialize)]
struct Refused {
    code: String,
    error: String,
}

impl Server {
    /// Posts to the call of this right.
    pub fn post(&self, right: ApiRight, body: &impl Serialize) -> ExitCode {
        self.post_at(right, &format!("/v1/{}", right.name()), body)
    }

    /// The same to another path.
    pub fn post_at(&self, right: ApiRight, path: &str, body: &impl Serialize) -> ExitCode {
        self.call(right, |client| {
            let body = serde_json::to_string(body).map_err(|why| format!("cannot write the request: {why}"))?;
            client.post(path, body)
        })
    }

    /// Asks the call of this right.
    pub fn get(&self, right: ApiRight, parameters: &[(&str, String)]) -> ExitCode {
        self.get_at(right, &format!("/v1/{}", right.name()), parameters)
    }

    /// The same of another path.
    pub fn get_at(&self, right: ApiRight, path: &str, parameters: &[(&str, String)]) -> ExitCode {
        self.call(right, |client| client.get(path, parameters))
    }

    fn call(&self, right: ApiRight, call: impl FnOnce(&Client) -> Result<Answer, String>) -> ExitCode {
        let client = match self.client(right) {
            Ok(client) => client,
            Err(code) => return code,
        };
        match call(&client) {
            Ok(answer) if (200..300).contains(&answer.status) => {
                ExitCode::from(u8::from(!print(answer.body.trim_end())))
            }
            Ok(answer) => {
                complain("error", sentence(&answer));
                ExitCode::from(EXIT_FAILED)
            }
            Err(message) => {
                complain("error", message);
                ExitCode::from(EXIT_FAILED)
            }
        }
    }

    /// Who calls whom; otherwise the exit code, the reason having been told.
    fn client(&self, right: ApiRight) -> Result<Client, ExitCode> {
        let (mut url, mut key) = (self.url.clone(), self.key.clone());
        if let Some(file) = &self.config {
            let (config, _) = load(|environment| config::load(file, environment)).map_err(|findings| {
                print_findings(&findings);
                ExitCode::from(EXIT_WRONG)
            })?;
            let control = config.control;
            url.get_or_insert_with(|| format!("http://{}", reachable(control.listen)));
            let fitting = control.keys.iter().find(|key| key.allow.has(right));
            key = key.or_else(|| fitting.and_then(|key| String::from_utf8(key.secret.clone()).ok()));
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = url.or_else(|| variable("PIPEWARD_URL")).unwrap_or_else(|| URL_DEFAULT.to_owned());
        let client = match key.or_else(|| variable("PIPEWARD_KEY")) {
            Some(key) => Client::new(&url, &key),
            None if self.config.is_some() => {
                Err(format!("no [[control.key]] of the configuration is allowed to call {}", right.name()))
            }
            None => Err("there is no API key; give --key, PIPEWARD_KEY, or --config FILE".to_owned()),
        };
        client.map_err(|message| {
            complain("error", message);
            ExitCode::from(EXIT_WRONG)
        })
    }
}

/// The address by which a listener is reached from its own machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn sentence(answer: &Answer) -> String {
    match serde_json::from_str::<Refused>(&answer.body) {
        Ok(Refused { code, error }) => format!("{error} ({code})"),
        Err(_) => format!("the server answered with status {}, and not as the server API does", answer.status),
    }
}

/// A name as one segment of a path.
pub(super) fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Any JSON, as it was written.
pub(super) fn parse_json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text)
        .map_err(|why| format!("this is not JSON ({why}); a string needs quotes of its own, as in '\"hello\"'"))
}

/// `90s`, `30m`, `1h`, `7d`: in seconds.
pub(super) fn parse_limit(text: &str) -> Result<u64, String> {
    match parse_ttl(text)? {
        Ttl::Seconds(seconds) => Ok(seconds),
        Ttl::Endless => Err("leave the flag out for no limit".to_owned()),
    }
}
