//! Fuzz entries of the parsers that see a peer's first bytes. Called from a stable test and from `cargo fuzz`.
//!
//! Each one asserts what must hold for any input: no panic, the same result however the bytes are cut, nothing used
//! that is not there, and answers that stay one HTTP response.

use super::frame::{Item, Reader, Violation};
use super::handshake::{self, Parsed, Refusal};
use super::peer::{ProxyHeader, proxy_header};
use crate::bounds::{HEAD_BYTES_MAX, HEAD_LINES_MAX, PROXY_HEADER_BYTES_MAX};

/// Prefixes of one input that are tried at most.
const PREFIXES_MAX: usize = 128;

/// The frame reader: byte 0 chooses the length of the pieces, byte 1 the longest message, the rest is the input.
pub fn fuzz_frame(data: &[u8]) {
    let &[piece_len, limit, ref input @ ..] = data else {
        return;
    };
    let message_bytes_max = usize::from(limit) * 8;
    let whole = read(input.chunks(input.len().max(1)), message_bytes_max);
    let cut = read(input.chunks(usize::from(piece_len) + 1), message_bytes_max);
    let single = read(input.chunks(1), message_bytes_max);
    assert_eq!(whole, cut);
    assert_eq!(whole, single);
}

/// The request head, and what follows from it: upgrade, refusal, response.
pub fn fuzz_head(data: &[u8]) {
    let whole = head_result(data);
    match &whole {
        Ok(None) => assert!(data.len() < HEAD_BYTES_MAX),
        Ok(Some(consumed)) => assert!(*consumed <= data.len().min(HEAD_BYTES_MAX)),
        Err(refusal) => check_response(&refusal.encode()),
    }
    for prefix in prefixes(data) {
        let result = head_result(prefix);
        assert!(result == whole || result == Ok(None), "a prefix is read otherwise than the whole");
        if let Some(path) = handshake::requested_path(prefix) {
            assert_eq!(handshake::requested_path(data), Some(path));
        }
    }
    if let Ok(Parsed::Complete { head, .. }) = handshake::parse(data) {
        assert!(head.headers().count() <= HEAD_LINES_MAX);
        match handshake::upgrade(&head) {
            Ok(upgrade) => check_response(&handshake::accept(&upgrade)),
            Err(refusal) => check_response(&refusal.encode()),
        }
    }
}

/// The PROXY header.
pub fn fuzz_proxy(data: &[u8]) {
    let whole = proxy_header(data);
    match whole {
        Ok(ProxyHeader::Present { consumed, .. }) => {
            assert!(consumed <= data.len().min(PROXY_HEADER_BYTES_MAX))
        }
        Ok(ProxyHeader::Incomplete) => assert!(data.len() < PROXY_HEADER_BYTES_MAX),
        Ok(ProxyHeader::Absent) | Err(_) => {}
    }
    for prefix in prefixes(data) {
        let result = proxy_header(prefix);
        assert!(result == whole || result == Ok(ProxyHeader::Incomplete));
    }
}

/// An item as comparable bytes: its kind, and its content.
type Read = Vec<Result<(u8, Vec<u8>), Violation>>;

fn read<'d>(pieces: impl Iterator<Item = &'d [u8]>, message_bytes_max: usize) -> Read {
    let (mut reader, mut out) = (Reader::default(), Read::new());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut at = 0;
        loop {
            let (used, result) = reader.next(&mut piece[at..], message_bytes_max);
            at += used;
            match result {
                Ok(Some(item)) => out.push(Ok(comparable(item, message_bytes_max))),
                Ok(None) => break,
                Err(violation) => {
                    out.push(Err(violation));
                    return out;
                }
            }
        }
        assert_eq!(at, piece.len());
        assert_eq!(reader.is_unfinished(), reader.kept_bytes() > 0);
        assert!(reader.kept_bytes() <= 1024 + message_bytes_max);
    }
    out
}

fn comparable(item: Item<'_>, message_bytes_max: usize) -> (u8, Vec<u8>) {
    let (kind, bytes, most) = match item {
        Item::Text(text) => (0, text.as_bytes().to_vec(), message_bytes_max),
        Item::Binary(bytes) => (1, bytes.to_vec(), message_bytes_max),
        Item::Ping(bytes) => (2, bytes.to_vec(), 125),
        Item::Pong(bytes) => (3, bytes.to_vec(), 125),
        Item::Close(code, reason) => (4, format!("{code:?}{reason}").into_bytes(), 140),
    };
    assert!(bytes.len() <= most);
    (kind, bytes)
}

/// The bytes that the head took, if it is complete.
fn head_result(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    handshake::parse(bytes).map(|parsed| match parsed {
        Parsed::Incomplete => None,
        Parsed::Complete { consumed, .. } => Some(consumed),
    })
}

/// One response head, well-formed whatever was put into it.
fn check_response(response: &[u8]) {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").expect("a response head ends");
    let head = std::str::from_utf8(&response[..end]).expect("a response head is text");
    for line in head.split("\r\n") {
        assert!(!line.is_empty() && line.bytes().all(|byte| matches!(byte, 0x20..=0x7E)), "{line:?}");
    }
    let body = &response[end + 4..];
    assert!(body.is_empty() || serde_json::from_slice::<serde_json::Value>(body).is_ok());
}

/// All prefixes of a short input, evenly chosen ones of a long one.
fn prefixes(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = data.len() / PREFIXES_MAX + 1;
    (0..data.len()).step_by(step).map(|len| &data[..len])
}
