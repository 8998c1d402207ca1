//! The HTTP responses that are not an upgrade: refusals with their JSON body, and small plain answers.
//!
//! Every one of them ends the connection, so that nothing which follows a refused head is ever read as a request.
//! Source: RFC 9110 §15; PROTOCOL §1; rulings B5, B16, B29, E1, G13.

use crate::protocol::codes::Code;
use std::borrow::Cow;

/// Bytes of each value of a refused head that the audit is told.
const DETAIL_BYTES_MAX: usize = 200;

/// Why a connection is not accepted, and the whole answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 400–503.
    pub status: u16,
    /// The `code` of the body.
    pub code: Code,
    /// The `error` of the body, a sentence for people. Never holds what the peer sent as a secret.
    pub error: Cow<'static, str>,
    /// `Retry-After` in whole seconds; 0 is sent as 1 (G13).
    pub retry_after_s: Option<u32>,
    /// What the audit is told besides, and the peer is not.
    pub detail: Option<String>,
}

impl Refusal {
    /// A refusal with the code's own status (E1).
    pub fn new(code: Code, error: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status: code.status(), code, error: error.into(), retry_after_s: None, detail: None }
    }

    /// 403: pages of this origin may not connect. `host` is what the origin was compared with (INVARIANTS 29).
    pub fn origin_not_allowed(origin: &str, host: &str) -> Refusal {
        let refusal = Refusal::new(Code::Forbidden, "This origin may not connect; see edge.origins");
        let detail = format!("the origin {:?} is not allowed at the host {:?}", cut(origin), cut(host));
        Refusal { detail: Some(detail), ..refusal }
    }

    /// The same with `Retry-After`, in seconds.
    #[must_use]
    pub fn with_retry_after_s(mut self, retry_after_s: u32) -> Refusal {
        self.retry_after_s = Some(retry_after_s);
        self
    }

    /// 400 `INVALID`: not a request, or not a valid upgrade.
    pub fn invalid(error: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Code::Invalid, error)
    }

    /// 404: no such path.
    pub fn not_found() -> Refusal {
        Refusal::new(Code::NotFound, Code::NotFound.text())
    }

    /// 405: the path exists, but only for GET.
    pub fn method_not_allowed() -> Refusal {
        Refusal { status: 405, ..Refusal::invalid("Only GET is allowed here") }
    }

    /// 408: the head did not arrive in time (B29).
    pub fn head_timeout() -> Refusal {
        Refusal { status: 408, ..Refusal::new(Code::Timeout, "The request head did not arrive in time") }
    }

    /// 426: this path speaks WebSocket, version 13, only.
    pub fn upgrade_required(error: &'static str) -> Refusal {
        Refusal { status: 426, ..Refusal::invalid(error) }
    }

    /// 431: the head is over one of its bounds (B16).
    pub fn head_too_large() -> Refusal {
        Refusal { status: 431, ..Refusal::invalid("The request head is too large") }
    }

    /// The whole response, to be followed by the end of the connection.
    pub fn encode(&self) -> Vec<u8> {
        let error = serde_json::Value::from(&*self.error);
        let body = format!("{{\"code\":\"{}\",\"error\":{error}}}", self.code.name());
        let mut out = status_line(self.status);
        match self.status {
            401 => out.push_str("WWW-Authenticate: Bearer\r\n"),
            405 => out.push_str("Allow: GET\r\n"),
            426 => out.push_str("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            _ => {}
        }
        if let Some(retry_after_s) = self.retry_after_s {
            out.push_str(&format!("Retry-After: {}\r\n", retry_after_s.max(1)));
        }
        // RFC 9110 §7.8: who sends Upgrade names it in Connection.
        let connection = if self.status == 426 { "close, Upgrade" } else { "close" };
        finish(out, "application/json", connection, body.as_bytes(), false)
    }
}

/// As much of what a peer sent as is put on record.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(DETAIL_BYTES_MAX)]
}

/// A whole response with the given body, after which the connection ends. `head_only` (for HEAD) leaves the body out
/// but still states its length.
pub fn plain(status: u16, content_type: &str, body: &[u8], head_only: bool) -> Vec<u8> {
    finish(status_line(status), content_type, "close", body, head_only)
}

fn finish(mut head: String, content_type: &str, connection: &str, body: &[u8], head_only: bool) -> Vec<u8> {
    head.push_str(&format!(
        "Content-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: {connection}\r\n\r\n",
        body.len()
    ));
    let mut out = head.into_bytes();
    if !head_only {
        out.extend_from_slice(body);
    }
    out
}

fn status_line(status: u16) -> String {
    format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status))
}

/// RFC 9110 §15, as far as this server answers so.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
