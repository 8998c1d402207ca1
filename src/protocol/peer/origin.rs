//! Which web pages may connect, by the `Origin` that browsers send and pages cannot forge.
//!
//! Invariant: without `"*"` an opaque origin (`null`) or one that cannot be parsed is refused. A request without Origin
//! does not come from a browser and passes: it could have claimed any origin.
//!
//! Source: RFC 6454 §4 and §6.2, RFC 6455 §10.2; ruling B2.

use std::str::FromStr;

/// A web origin, normalised: scheme and host in lower case, the default port written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: Box<str>,
    /// IPv6 addresses in brackets.
    host: Box<str>,
    /// `None` where the scheme has no default and none was given.
    port: Option<u16>,
}

impl FromStr for Origin {
    type Err = String;

    /// # Errors
    /// A sentence for the operator.
    fn from_str(text: &str) -> Result<Origin, String> {
        let wrong = || format!("\"{text}\" is not an origin such as \"https://app.example\" (no path, no final slash)");
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let (host, port) = split_authority(authority).ok_or_else(wrong)?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return Err(wrong());
        }
        let scheme = scheme.to_ascii_lowercase();
        let port = port.or_else(|| default_port(&scheme));
        Ok(Origin { scheme: scheme.into(), host: host.to_ascii_lowercase().into(), port })
    }
}

/// The pages that may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Only pages served from the host and port that they connect to.
    #[default]
    SameHost,
    /// Only these.
    Listed(Vec<Origin>),
    /// Every page, opaque ones too.
    Any,
}

impl Origins {
    /// Whether a request with this `Origin` header may connect. `host` is the authority that the client asked for: the
    /// `Host` header, or X-Forwarded-Host from a trusted proxy (INVARIANTS 29).
    pub fn allows(&self, origin: Option<&str>, host: &str) -> bool {
        let Some(origin) = origin else { return true };
        match self {
            Origins::Any => true,
            Origins::Listed(list) => origin.parse().is_ok_and(|origin| list.contains(&origin)),
            Origins::SameHost => origin.parse().is_ok_and(|origin| is_same_host(&origin, host)),
        }
    }
}

/// Schemes are ignored, since TLS may end before this server; a `Host` without port then stands for either default.
fn is_same_host(origin: &Origin, host: &str) -> bool {
    let Some((host, port)) = split_authority(host) else {
        return false;
    };
    let same_port = match port {
        Some(port) => origin.port == Some(port),
        None => matches!(origin.port, Some(80 | 443)),
    };
    same_port && origin.host.eq_ignore_ascii_case(host)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Host and port of `host[:port]`; the host keeps the brackets of an IPv6 address.
fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_len = match authority.strip_prefix('[') {
        Some(inside) => inside.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_len);
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(super::proxy::port(digits)?),
        None if port.is_empty() => None,
        None => return None,
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:%".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_host)).then_some((host, port))
}
