//! Frames as bytes: what the server sends, and the client's half for tests and the load generator.
//!
//! Server frames are never masked and never fragmented; a client's always are masked (RFC 6455 §5.1). Units: bytes.

use super::{CONTROL_BYTES_MAX, unmask};

/// Bytes of a close reason beside its two bytes of code.
const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// The header of an unfragmented server frame: an array, and how many of its bytes (2, 4 or 10) count.
pub fn server_header(opcode: u8, payload_len: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    let size = put_header(&mut header, true, opcode, payload_len);
    (header, size)
}

/// Appends one unfragmented server frame.
pub fn append_server_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    let (header, size) = server_header(opcode, payload.len());
    out.reserve(size + payload.len());
    out.extend_from_slice(&header[..size]);
    out.extend_from_slice(payload);
}

/// The payload of a close frame. A reason over 123 bytes is cut between two characters.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}

/// Appends one client frame, masked with `mask`.
pub fn append_client_frame(out: &mut Vec<u8>, fin: bool, opcode: u8, payload: &[u8], mask: [u8; 4]) {
    let mut header = [0; 10];
    let size = put_header(&mut header, fin, opcode, payload.len());
    header[1] |= 0x80;
    out.reserve(size + mask.len() + payload.len());
    out.extend_from_slice(&header[..size]);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], mask);
}

/// A server frame as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFrame<'a> {
    /// Its opcode.
    pub opcode: u8,
    /// Its payload.
    pub payload: &'a [u8],
    /// Bytes of the whole frame.
    pub size: usize,
}

/// The unfragmented server frame at the front of `bytes`, or `None` until it lies there whole. It trusts the server
/// and checks nothing; it is for clients of our own.
pub fn server_frame(bytes: &[u8]) -> Option<ServerFrame<'_>> {
    let &[first, second, ref rest @ ..] = bytes else {
        return None;
    };
    let (payload_len, length_bytes) = match second & 0x7F {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 8),
        short => (usize::from(short), 0),
    };
    let payload = rest[length_bytes..].get(..payload_len)?;
    Some(ServerFrame { opcode: first & 0x0F, payload, size: 2 + length_bytes + payload_len })
}

/// Writes an unmasked header in its shortest form; answers its size.
fn put_header(header: &mut [u8; 10], fin: bool, opcode: u8, payload_len: usize) -> usize {
    header[0] = if fin { 0x80 | opcode } else { opcode };
    if payload_len < 126 {
        header[1] = payload_len as u8;
        2
    } else if let Ok(short) = u16::try_from(payload_len) {
        header[1] = 126;
        header[2..4].copy_from_slice(&short.to_be_bytes());
        4
    } else {
        header[1] = 127;
        header[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
        10
    }
}
