//! The PROXY protocol, versions 1 (a line of text) and 2 (binary): what a trusted proxy sends before the first byte of
//! its client.
//!
//! Whether the peer is trusted is the caller's to check before (B27). Invariants: what is found does not depend on how
//! the bytes were cut; at most `PROXY_HEADER_BYTES_MAX` bytes are waited for; a header that names no TCP address
//! (LOCAL, UNKNOWN, UNIX sockets, datagrams) leaves the peer's own. Optional values (TLVs) are skipped unread, checksums
//! among them.
//!
//! Source: "The PROXY protocol, versions 1 & 2" of HAProxy, §2.1 and §2.2. Units: bytes.

use crate::bounds::PROXY_HEADER_BYTES_MAX;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How a version 1 header begins.
const SIGNATURE_V1: &[u8] = b"PROXY ";
/// How a version 2 header begins.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its CR LF.
const LINE_BYTES_MAX: usize = 107;
/// The fixed part of version 2.
const FIXED_BYTES: usize = 16;

/// What stands before the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Could be a header; more bytes are needed.
    Incomplete,
    /// There is none: the first byte is already the client's.
    Absent,
    /// A whole header.
    Present {
        /// Its bytes.
        consumed: usize,
        /// The client's address; `None` where the proxy speaks for itself or does not know.
        source: Option<SocketAddr>,
    },
}

/// Looks for a PROXY header at the front of `bytes`; call again from the first byte on when more has arrived.
///
/// # Errors
/// A header that is malformed or too long. The connection is to be ended without an answer: whoever is at the other end
/// does not speak HTTP yet.
pub fn proxy_header(bytes: &[u8]) -> Result<ProxyHeader, &'static str> {
    match (begins(bytes, SIGNATURE_V1), begins(bytes, SIGNATURE_V2)) {
        (Some(true), _) => version_1(bytes),
        (_, Some(true)) => version_2(bytes),
        (None, _) | (_, None) => Ok(ProxyHeader::Incomplete),
        (Some(false), Some(false)) => Ok(ProxyHeader::Absent),
    }
}

/// Whether `bytes` begins with `signature`; `None` where they are too few to tell.
fn begins(bytes: &[u8], signature: &[u8]) -> Option<bool> {
    let known = bytes.len().min(signature.len());
    if bytes[..known] != signature[..known] {
        return Some(false);
    }
    (known == signature.len()).then_some(true)
}

fn version_1(bytes: &[u8]) -> Result<ProxyHeader, &'static str> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return match window.len() {
            LINE_BYTES_MAX => Err("a PROXY line over 107 bytes"),
            _ => Ok(ProxyHeader::Incomplete),
        };
    };
    let Some(line) = window[..end].strip_suffix(b"\r") else {
        return Err("a PROXY line that does not end in CR LF");
    };
    let line = std::str::from_utf8(&line[SIGNATURE_V1.len()..]).map_err(|_| "a PROXY line that is not ASCII")?;
    let source = version_1_source(line).ok_or("a malformed PROXY line")?;
    Ok(ProxyHeader::Present { consumed: end + 1, source })
}

/// The outer `None`: malformed; the inner: unknown.
fn version_1_source(line: &str) -> Option<Option<SocketAddr>> {
    let mut parts = line.split(' ');
    let family = parts.next()?;
    if family == "UNKNOWN" {
        // Whatever follows on the line is to be ignored.
        return Some(None);
    }
    let (source, destination, source_port, destination_port) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (source, destination): (IpAddr, IpAddr) = (source.parse().ok()?, destination.parse().ok()?);
    let family_is_right = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    port(destination_port)?;
    let source = SocketAddr::new(source.to_canonical(), port(source_port)?);
    family_is_right.then_some(Some(source))
}

/// A port in decimal: no sign, no leading zero.
pub(super) fn port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

fn version_2(bytes: &[u8]) -> Result<ProxyHeader, &'static str> {
    // Checked in the order of the bytes, so that a prefix is refused for the same reason as the whole.
    let rest = &bytes[SIGNATURE_V2.len()..];
    let Some(&version_and_command) = rest.first() else {
        return Ok(ProxyHeader::Incomplete);
    };
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err("a PROXY header of an unknown version or command"),
    };
    let Some(&family) = rest.get(1) else {
        return Ok(ProxyHeader::Incomplete);
    };
    if !is_local && (family >> 4 > 3 || family & 0xF > 2) {
        return Err("a PROXY header of an unknown family");
    }
    let Some(&[high, low]) = rest.get(2..4).and_then(|field| field.first_chunk()) else {
        return Ok(ProxyHeader::Incomplete);
    };
    let body_len = usize::from(u16::from_be_bytes([high, low]));
    let consumed = FIXED_BYTES + body_len;
    if consumed > PROXY_HEADER_BYTES_MAX {
        return Err("a PROXY header that is too long");
    }
    if !is_local && body_len < address_bytes(family) {
        return Err("a PROXY header too short for its addresses");
    }
    let Some(body) = bytes.get(FIXED_BYTES..consumed) else {
        return Ok(ProxyHeader::Incomplete);
    };
    let source = if is_local { None } else { version_2_source(family, body) };
    Ok(ProxyHeader::Present { consumed, source })
}

/// Bytes that the two addresses of a family take.
fn address_bytes(family: u8) -> usize {
    match (family >> 4, family & 0xF) {
        (_, 0) => 0,
        (1, _) => 12,
        (2, _) => 36,
        (3, _) => 216,
        _ => 0,
    }
}

/// The source of TCP over IPv4 or IPv6; anything else names no TCP address.
fn version_2_source(family: u8, body: &[u8]) -> Option<SocketAddr> {
    let (ip, ports): (IpAddr, &[u8]) = match family {
        0x11 => (Ipv4Addr::from(*body.first_chunk::<4>()?).into(), body.get(8..)?),
        0x21 => (Ipv6Addr::from(*body.first_chunk::<16>()?).into(), body.get(32..)?),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(*ports.first_chunk()?)))
}
