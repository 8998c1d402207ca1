//! `pipeward token`: a token to try things with (G8). Times are whole seconds.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{EXIT_WRONG, complain, print};
use crate::auth::claims::{is_grant_name, is_id};
use crate::auth::token::mint;
use crate::bounds::IDENTITY_BYTES_MAX;

/// Longest `--ttl`: a hundred years, in seconds.
const TTL_S_MAX: u64 = 100 * 365 * 24 * 3600;

/// Print a signed token (HS256)
///
/// The token and a newline are all that goes to stdout.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: pipeward token --secret \"$SECRET\" --user ada --pipe 'chat=sub,pub' --pipe 'news-*=sub' \
                        --claim 'tenant=\"acme\"'"
)]
pub(super) struct Arguments {
    /// The secret that the server has as auth.token.hmac_secret
    #[arg(long, env = "PIPEWARD_SECRET", hide_env_values = true, value_name = "SECRET")]
    secret: String,
    /// User id (the claim `sub`)
    #[arg(long, value_name = "USER")]
    user: String,
    /// Grant rights on a pipe or a pattern: NAME=sub,pub,presence (any of the three, or none); may be given several times
    #[arg(long = "pipe", value_name = "NAME=RIGHTS", value_parser = parse_pipe)]
    pipes: Vec<(String, Value)>,
    /// How long the token is good: 90s, 30m, 1h, 7d, or `none` for no end
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_ttl)]
    ttl: Ttl,
    /// Any further claim, its value in JSON: tenant='"acme"', roles='["admin"]'; may be given several times
    #[arg(long = "claim", value_name = "NAME=JSON", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ttl {
    Seconds(u64),
    Endless,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    match claims(arguments, now_s) {
        Ok(claims) => {
            if arguments.secret.len() < 16 {
                complain("warning", "the server takes no secret under 16 bytes, so it will not take this token");
            }
            let is_printed = print(mint(arguments.secret.as_bytes(), &claims));
            ExitCode::from(u8::from(!is_printed))
        }
        Err(message) => {
            complain("error", message);
            ExitCode::from(EXIT_WRONG)
        }
    }
}

/// The claims of the token. A `--claim` wins over `iat` and `exp`, so that old and expired tokens can be made.
fn claims(arguments: &Arguments, now_s: u64) -> Result<Value, String> {
    if !is_id(&arguments.user) {
        return Err(format!(
            "--user is 1 to {IDENTITY_BYTES_MAX} bytes without white space, control characters, `*`, `{{` or `}}`"
        ));
    }
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), json!(arguments.user));
    claims.insert("iat".to_owned(), json!(now_s));
    if let Ttl::Seconds(ttl_s) = arguments.ttl {
        claims.insert("exp".to_owned(), json!(now_s.saturating_add(ttl_s)));
    }
    let mut pipes = Map::new();
    for (name, rights) in &arguments.pipes {
        if pipes.insert(name.clone(), rights.clone()).is_some() {
            return Err(format!("--pipe names `{name}` twice; write its rights once, as in '{name}=sub,pub'"));
        }
    }
    if !pipes.is_empty() {
        claims.insert("pipes".to_owned(), Value::Object(pipes));
    }
    let mut seen = Vec::new();
    for (name, value) in &arguments.claims {
        let own_flag = match name.as_str() {
            "sub" => Some("--user"),
            "pipes" if !arguments.pipes.is_empty() => Some("--pipe"),
            _ => None,
        };
        if let Some(flag) = own_flag {
            return Err(format!("--claim {name} and {flag} contradict each other; leave one of them out"));
        }
        if seen.contains(&name) {
            return Err(format!("--claim names `{name}` twice; keep one of the two"));
        }
        seen.push(name);
        claims.insert(name.clone(), value.clone());
    }
    Ok(Value::Object(claims))
}

/// `NAME=sub,pub,presence`. The last `=` divides, since names may hold one.
fn parse_pipe(text: &str) -> Result<(String, Value), String> {
    let (name, list) = text.rsplit_once('=').ok_or("there is no `=`; write NAME=sub,pub,presence")?;
    if !is_grant_name(name) {
        return Err(format!(
            "`{name}` is not a pipe name: 1 to 200 bytes of printable ASCII without space, `{{`, `}}`"
        ));
    }
    let mut rights = Map::new();
    for right in list.split(',').map(str::trim).filter(|right| !right.is_empty()) {
        let full = match right {
            "sub" => "subscribe",
            "pub" => "publish",
            "presence" => "presence",
            _ => return Err(format!("`{right}` is not a right; write sub, pub or presence, with commas between")),
        };
        rights.insert(full.to_owned(), Value::Bool(true));
    }
    Ok((name.to_owned(), Value::Object(rights)))
}

pub(super) fn parse_ttl(text: &str) -> Result<Ttl, String> {
    if text == "none" {
        return Ok(Ttl::Endless);
    }
    let wrong = || "write a whole number and its unit, as in 90s, 30m, 1h or 7d, or `none`".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let unit_s = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match count.checked_mul(unit_s) {
        Some(seconds) if (1..=TTL_S_MAX).contains(&seconds) => Ok(Ttl::Seconds(seconds)),
        _ => Err("must be longer than nothing and at most a hundred years (36500d)".to_owned()),
    }
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, json) = text.split_once('=').ok_or("there is no `=`; write NAME=JSON")?;
    if name.is_empty() {
        return Err("the name is missing; write NAME=JSON".to_owned());
    }
    let value = serde_json::from_str(json)
        .map_err(|why| format!("the value is not JSON ({why}); a string needs quotes, as in tenant='\"acme\"'"))?;
    Ok((name.to_owned(), value))
}
