//! How a connection begins: an HTTP/1.1 request head, read from a plain byte slice.
//!
//! Purpose: [`parse`] finds the head at the front of what has arrived, [`upgrade`] decides whether it is a valid
//! WebSocket upgrade and finds the token in it, [`Refusal`] and [`accept`] are the answers. Reading bytes, the time
//! limit and the choice by path are the caller's.
//!
//! Invariants: everything is bounded by `HEAD_BYTES_MAX` and `HEAD_LINES_MAX`. What is refused does not depend on how
//! the bytes were cut: once a prefix is refused, every continuation of it is refused alike. Anything that two HTTP
//! implementations could read differently (folded lines, bare line feeds, repeated fields, a body) is refused, because
//! the proxy in front may be the other one (INVARIANTS 28). Nothing here implements `Debug` that could print a token.
//!
//! Source: RFC 9112 §2–§5 (HTTP/1.1 syntax), RFC 6455 §4.2 (opening handshake); rulings B1–B5, B16, B29. Units: bytes.

mod response;
#[cfg(test)]
mod tests;
mod upgrade;

use crate::bounds::{HEAD_BYTES_MAX, HEAD_LINES_MAX};

pub use response::{Refusal, plain};
pub use upgrade::{TokenSource, Upgrade, accept, upgrade};

/// A complete request head. It may hold a token: never log it whole.
pub struct Head<'a> {
    /// As it was sent; methods are case-sensitive.
    pub method: &'a str,
    /// The path as it was sent, without query; not percent-decoded. `*` for `OPTIONS *`.
    pub path: &'a str,
    /// What follows the first `?`, if there is one. May hold a token.
    pub query: Option<&'a str>,
    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub version_minor: u8,
    /// Host and port of a target in absolute form.
    authority: Option<&'a str>,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    /// The value of the first header of that name, in any case, without the white space around it.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// The values of all headers of that name, in any case, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All headers, name and value as sent, in order; at most `HEAD_LINES_MAX`.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.headers.iter().copied()
    }
}

/// What [`parse`] found.
pub enum Parsed<'a> {
    /// Nothing is wrong so far; call again with more bytes.
    Incomplete,
    /// The whole head.
    Complete {
        /// The head.
        head: Head<'a>,
        /// Its bytes, with the empty line. What follows them are frames.
        consumed: usize,
    },
}

/// Reads the request head at the front of `bytes`. It keeps nothing: call it again, from the first byte on, when more
/// has arrived.
///
/// # Errors
/// 400 for anything malformed, as soon as it is seen; 431 for a head over `HEAD_BYTES_MAX` or `HEAD_LINES_MAX` (B16).
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Refusal> {
    let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    match parse_window(window)? {
        Some((head, consumed)) => Ok(Parsed::Complete { head, consumed }),
        None if window.len() == HEAD_BYTES_MAX => Err(Refusal::head_too_large()),
        None => Ok(Parsed::Incomplete),
    }
}

/// The path of the request line at the front of `bytes`, once that line is complete and well-formed, or longer than a whole
/// head may be. Lets the caller answer 404 for a path that does not exist even where [`parse`] refuses the rest of the head (B1).
pub fn requested_path(bytes: &[u8]) -> Option<&str> {
    let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    match next_line(window).ok()? {
        Some((line, _)) => request_line(line).ok().map(|head| head.path),
        None if window.len() == HEAD_BYTES_MAX => begun_path(window),
        None => None,
    }
}

/// The path of a request line whose end is not there. One that goes on beyond it is longer than any that exists.
fn begun_path(line: &[u8]) -> Option<&str> {
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let (method, target) = (parts.next()?, parts.next()?);
    let target = target.split(|byte| b" ?#".contains(byte)).next()?;
    let target =
        std::str::from_utf8(target).ok().filter(|target| target.bytes().all(|byte| byte.is_ascii_graphic()))?;
    let (_, path) = split_target(target).filter(|_| std::str::from_utf8(method).is_ok_and(is_token))?;
    Some(if path.is_empty() { "/" } else { path })
}

fn parse_window(window: &[u8]) -> Result<Option<(Head<'_>, usize)>, Refusal> {
    let Some((line, mut rest)) = next_line(window)? else {
        return Ok(None);
    };
    let mut head = request_line(line)?;
    while let Some((line, after)) = next_line(rest)? {
        rest = after;
        if line.is_empty() {
            return Ok(Some((head, window.len() - rest.len())));
        }
        if head.headers.len() == HEAD_LINES_MAX {
            return Err(Refusal::head_too_large());
        }
        head.headers.push(header_line(line)?);
    }
    Ok(None)
}

/// Splits off one line with its CR LF; `None` where its end has not arrived.
fn next_line(bytes: &[u8]) -> Result<Option<(&str, &[u8])>, Refusal> {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let (text, has_return) = match line {
        [text @ .., b'\r'] => (text, true),
        text => (text, false),
    };
    if text.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(Refusal::invalid("The request head holds a control character"));
    }
    let Some(end) = end else { return Ok(None) };
    if !has_return {
        return Err(Refusal::invalid("A line of the request head must end in CR LF"));
    }
    match std::str::from_utf8(text) {
        Ok(text) => Ok(Some((text, &bytes[end + 1..]))),
        Err(_) => Err(Refusal::invalid("The request head is not UTF-8")),
    }
}

fn request_line(line: &str) -> Result<Head<'_>, Refusal> {
    let malformed = || Refusal::invalid("The request line is malformed; this is an HTTP/1.1 server");
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    let version_minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        _ => return Err(malformed()),
    };
    if !is_token(method) || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed());
    }
    let (authority, path_and_query) = split_target(target).ok_or_else(malformed)?;
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    // The absolute form may leave the path out (RFC 9112 §3.2.1).
    let path = if path.is_empty() { "/" } else { path };
    Ok(Head { method, path, query, version_minor, authority, headers: Vec::with_capacity(16) })
}

/// Origin form, absolute form or `*` (RFC 9112 §3.2): the authority, if there is one, and the rest.
fn split_target(target: &str) -> Option<(Option<&str>, &str)> {
    if target.starts_with('/') || target == "*" {
        return Some((None, target));
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (!authority.is_empty()).then_some((Some(authority), path_and_query))
}

fn header_line(line: &str) -> Result<(&str, &str), Refusal> {
    if line.starts_with([' ', '\t']) {
        return Err(Refusal::invalid("A header line must not be folded"));
    }
    match line.split_once(':') {
        Some((name, value)) if is_token(name) => Ok((name, value.trim_matches([' ', '\t']))),
        _ => Err(Refusal::invalid("A header line is malformed")),
    }
}

/// Whether `text` is a token of RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
