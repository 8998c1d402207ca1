//! Whether a request head is a valid WebSocket upgrade, which subprotocol it selects, and the token it carries.
//!
//! Invariant: a head that passes has one meaning for every HTTP implementation: one Host, one Upgrade, one key, no body
//! (INVARIANTS 28). Finding a token says nothing about its worth; one that is present is never passed over for another
//! source (PROTOCOL §1: first found wins, no fall-through).
//!
//! Source: RFC 6455 §4.2.1 (what a server checks), §4.2.2 (what it answers); rulings B3–B5, B30.

use super::{Head, Refusal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;

/// The subprotocol of version 1.
const SUBPROTOCOL: &str = "pipeward.v1";
/// What stands before a token that is offered as a subprotocol. Such an entry is never echoed.
const TOKEN_PREFIX: &str = "pipeward.token.";
/// RFC 6455 §1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Headers that must not stand twice. Two of them are two readings of one request.
const SINGLE: [&str; 8] = [
    "host",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "origin",
    "authorization",
    "content-length",
    "transfer-encoding",
];

/// A valid upgrade request. It may hold a token: never log it whole.
pub struct Upgrade<'a> {
    /// `Sec-WebSocket-Key`, 16 bytes in base64.
    pub key: &'a str,
    /// `pipeward.v1` was offered, hence is selected.
    pub selects_v1: bool,
    /// The first token found; `Some("")` where one is present and empty (B4).
    pub token: Option<Cow<'a, str>>,
    /// Where it was found.
    pub bearer_from: TokenSource,
    /// `Origin`, as sent.
    pub origin: Option<&'a str>,
    /// `Host`, as sent; never empty.
    pub host: &'a str,
}

/// Where a token was found, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer T`.
    Header,
    /// A subprotocol `pipeward.token.T`.
    Subprotocol,
    /// `?token=T`.
    Query,
    /// Nowhere: there is no token.
    Nowhere,
}

/// Checks that `head` is a WebSocket upgrade; the path is the caller's to check before.
///
/// # Errors
/// 405 for another method than GET; 426 where Upgrade is missing or the version is not 13; 400 for everything else
/// (B5).
pub fn upgrade<'a>(head: &Head<'a>) -> Result<Upgrade<'a>, Refusal> {
    if head.method != "GET" {
        return Err(Refusal::method_not_allowed());
    }
    if head.version_minor == 0 {
        return Err(Refusal::invalid("A WebSocket upgrade needs HTTP/1.1"));
    }
    for name in SINGLE {
        if head.values(name).nth(1).is_some() {
            return Err(Refusal::invalid(format!("The header {name} is repeated")));
        }
    }
    check_no_body(head)?;
    let host = host(head)?;
    check_upgrade_headers(head)?;
    let key = key(head)?;
    let (token, bearer_from) = token(head);
    let selects_v1 = subprotocols(head).any(|entry| entry == SUBPROTOCOL);
    Ok(Upgrade { key, selects_v1, token, bearer_from, origin: head.header("origin"), host })
}

/// The `101` response (RFC 6455 §4.2.2). Extensions are never negotiated (B30).
pub fn accept(upgrade: &Upgrade<'_>) -> Vec<u8> {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(upgrade.key.as_bytes());
    hash.update(ACCEPT_GUID);
    let mut out = String::with_capacity(192);
    out.push_str("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    out.push_str("Sec-WebSocket-Accept: ");
    STANDARD.encode_string(hash.digest().bytes(), &mut out);
    if upgrade.selects_v1 {
        out.push_str("\r\nSec-WebSocket-Protocol: ");
        out.push_str(SUBPROTOCOL);
    }
    out.push_str("\r\n\r\n");
    out.into_bytes()
}

fn check_no_body(head: &Head<'_>) -> Result<(), Refusal> {
    if head.header("transfer-encoding").is_some() {
        return Err(Refusal::invalid("An upgrade must not have a Transfer-Encoding"));
    }
    match head.header("content-length") {
        None | Some("0") => Ok(()),
        Some(_) => Err(Refusal::invalid("An upgrade must not have a body")),
    }
}

fn host<'a>(head: &Head<'a>) -> Result<&'a str, Refusal> {
    let is_host = |byte: u8| byte.is_ascii_graphic() && !b"/\\?#@,\"<>".contains(&byte);
    let host = match head.header("host") {
        None | Some("") => return Err(Refusal::invalid("The header Host is missing")),
        Some(host) if host.bytes().all(is_host) => host,
        Some(_) => return Err(Refusal::invalid("The header Host is malformed")),
    };
    match head.authority {
        Some(authority) if !authority.eq_ignore_ascii_case(host) => {
            Err(Refusal::invalid("The request target and the header Host name different hosts"))
        }
        _ => Ok(host),
    }
}

fn check_upgrade_headers(head: &Head<'_>) -> Result<(), Refusal> {
    let Some(upgrade) = head.header("upgrade") else {
        return Err(Refusal::upgrade_required("Connect here with a WebSocket client"));
    };
    if !has_entry([upgrade].into_iter(), "websocket") {
        return Err(Refusal::invalid("The header Upgrade must name websocket"));
    }
    if !has_entry(head.values("connection"), "upgrade") {
        return Err(Refusal::invalid("The header Connection must name Upgrade"));
    }
    match head.header("sec-websocket-version") {
        Some("13") => Ok(()),
        _ => Err(Refusal::upgrade_required("The header Sec-WebSocket-Version must be 13")),
    }
}

fn key<'a>(head: &Head<'a>) -> Result<&'a str, Refusal> {
    // Bits after the 16th byte are not looked at: they are random with some clients.
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
    );
    let Some(key) = head.header("sec-websocket-key") else {
        return Err(Refusal::invalid("The header Sec-WebSocket-Key is missing"));
    };
    let mut nonce = [0; 18];
    match ENGINE.decode_slice(key, &mut nonce) {
        Ok(16) => Ok(key),
        _ => Err(Refusal::invalid("The header Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

fn token<'a>(head: &Head<'a>) -> (Option<Cow<'a, str>>, TokenSource) {
    if let Some(token) = head.header("authorization").and_then(bearer) {
        return (Some(token.into()), TokenSource::Header);
    }
    if let Some(token) = subprotocols(head).find_map(|entry| entry.strip_prefix(TOKEN_PREFIX)) {
        return (Some(token.into()), TokenSource::Subprotocol);
    }
    let pairs = head.query.into_iter().flat_map(|query| query.split('&'));
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if form_decode(name) == "token" {
            return (Some(form_decode(value)), TokenSource::Query);
        }
    }
    (None, TokenSource::Nowhere)
}

impl Head<'_> {
    /// Names and values of the query, decoded, in order.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let pairs = self.query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form_decode(name), form_decode(value))
        })
    }
}

/// The token of `Bearer T`, the scheme in any case; other schemes are not ours (B4).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once([' ', '\t']).unwrap_or((authorization, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches([' ', '\t']))
}

/// The subprotocols offered, over all header lines, in order.
fn subprotocols<'a>(head: &Head<'a>) -> impl Iterator<Item = &'a str> {
    entries(head.values("sec-websocket-protocol"))
}

fn has_entry<'a>(values: impl Iterator<Item = &'a str>, wanted: &str) -> bool {
    entries(values).any(|entry| entry.eq_ignore_ascii_case(wanted))
}

/// The entries of comma-separated lists (RFC 9110 §5.6.1).
fn entries<'a>(values: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    values
        .flat_map(|value| value.split(','))
        .map(|entry| entry.trim_matches([' ', '\t']))
        .filter(|entry| !entry.is_empty())
}

/// Decodes one name or value of a query as forms and `URLSearchParams` write them. What is not a valid escape stays as
/// it is, what is not UTF-8 becomes U+FFFD: neither can be part of a valid token.
fn form_decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, behind @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_value(*high) << 4 | hex_value(*low));
                rest = behind;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned().into()
}

/// The value of a hexadecimal digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
