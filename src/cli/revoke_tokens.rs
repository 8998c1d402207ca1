//! `pipeward revoke-tokens`: tokens that count no more.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::client::{Server, parse_limit};
use crate::config::ApiRight;

/// Revoke a token, the tokens of a session, or those of a user, and close their connections
#[derive(Debug, Args)]
#[command(after_help = "Example: pipeward revoke-tokens --user ada --except-session s1")]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Only in this tenant
    #[arg(long, value_name = "TENANT", requires = "user")]
    tenant: Option<String>,
    /// Those of the user that were issued before this moment, Unix seconds [default: now, this second included]
    #[arg(long, value_name = "UNIX_S", requires = "user")]
    issued_before: Option<u64>,
    /// The session that is spared
    #[arg(long, value_name = "ID", requires = "user")]
    except_session: Option<String>,
    /// The id of the token that is spared
    #[arg(long, value_name = "ID", requires = "user")]
    except_token: Option<String>,
    /// How long: 90s, 30m, 1h, 7d [default: for good]
    #[arg(long, value_name = "TIME", value_parser = parse_limit)]
    ttl: Option<u64>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The id of a token (its claim jti), never the token itself
    #[arg(long, value_name = "ID")]
    token: Option<String>,
    /// A session (the claim sid)
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// A user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    token: Option<&'a str>,
    session: Option<&'a str>,
    user: Option<&'a str>,
    tenant: Option<&'a str>,
    issued_before_s: Option<u64>,
    except_session: Option<&'a str>,
    except_token: Option<&'a str>,
    ttl_s: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Which { token, session, user } = &arguments.which;
    let body = Body {
        token: token.as_deref(),
        session: session.as_deref(),
        user: user.as_deref(),
        tenant: arguments.tenant.as_deref(),
        issued_before_s: arguments.issued_before,
        except_session: arguments.except_session.as_deref(),
        except_token: arguments.except_token.as_deref(),
        ttl_s: arguments.ttl,
    };
    arguments.server.post(ApiRight::RevokeTokens, &body)
}
