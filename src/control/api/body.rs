//! The bytes of a request's body, bounded in number and in time, as text that is JSON (RFC 8259).
//!
//! Beyond the grammar two things are refused that other readers could not take: nesting over [`JSON_DEPTH_MAX`] levels, and
//! half of a surrogate pair, which stands for no character. An event passes its `data` on as it came, so whatever passes
//! here must be readable by every client.
//!
//! Source: rulings A9, C5, E4.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;

use super::refusal::Refusal;
use crate::bounds::JSON_DEPTH_MAX;
use crate::protocol::codes::Code;

/// Bytes of a request's body. More: 413 without reading on.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;
/// Time for the whole body, in milliseconds. More: 408.
const BODY_MS_MAX: u64 = 30_000;

/// Reads the body as text.
///
/// # Errors
/// 413 over [`BODY_BYTES_MAX`], 408 when it does not arrive in time, 400 if it is not UTF-8 or breaks off.
pub(super) async fn read(request: Request) -> Result<String, Refusal> {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let collected = collect(request.into_body());
    let Ok(bytes) = tokio::time::timeout(Duration::from_millis(BODY_MS_MAX), collected).await else {
        let error = format!("The body did not arrive within {} s", BODY_MS_MAX / 1000);
        return Err(Refusal::with_status(Code::Invalid, StatusCode::REQUEST_TIMEOUT, error));
    };
    String::from_utf8(bytes?).map_err(|_| Refusal::invalid("The body is not UTF-8"))
}

/// Checks what the grammar of JSON leaves open. `text` need not be JSON: that is found by its reader.
///
/// # Errors
/// 400: nested too deeply, or half of a surrogate pair.
pub(super) fn check(text: &str) -> Result<(), Refusal> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(bytes, at)?,
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return Err(Refusal::invalid(format!("The body is nested more than {JSON_DEPTH_MAX} levels deep")));
        }
    }
    Ok(())
}

/// Where the string that goes on at `at` has ended.
fn end_of_string(bytes: &[u8], mut at: usize) -> Result<usize, Refusal> {
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\\' if bytes.get(at) == Some(&b'u') => at = end_of_escape(bytes, at - 1)?,
            b'\\' => at += 1,
            _ => {}
        }
    }
    Ok(at)
}

/// Where the `\u` escape at `at` (with its second half, if it has one) has ended.
fn end_of_escape(bytes: &[u8], at: usize) -> Result<usize, Refusal> {
    match unit(bytes, at) {
        Some(0xD800..=0xDBFF) if matches!(unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => Ok(at + 12),
        Some(0xD800..=0xDFFF) => {
            Err(Refusal::invalid("The body holds half of a surrogate pair, which is no character"))
        }
        _ => Ok(at + 2),
    }
}

/// The UTF-16 unit of the escape `\uXXXX` at `at`, if there is one.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

async fn collect(mut body: Body) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(data) = next(&mut body).await? {
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The next piece of the body, which is empty for trailers.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
    match frame {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(_)) => Err(Refusal::invalid("The body broke off")),
    }
}

fn too_large() -> Refusal {
    Refusal::new(Code::PayloadTooLarge, format!("The body is larger than {BODY_BYTES_MAX} bytes"))
}
