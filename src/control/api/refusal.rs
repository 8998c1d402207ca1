//! Why a call was not carried out, and its form in HTTP: the status of its code and `{"code","error"}`.
//!
//! Source: PROTOCOL.md §4, ruling E1.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::operations::Failure;
use super::types::ErrorAnswer;
use crate::protocol::codes::Code;

/// Seconds after which a call that found the server too busy may be tried again.
const RETRY_S: HeaderValue = HeaderValue::from_static("1");

/// A call that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Why, for programs.
    pub code: Code,
    /// Why, for people; a sentence without a full stop.
    pub error: String,
    /// Another status than the code's own.
    pub status: Option<StatusCode>,
}

impl Refusal {
    /// With the status of its code.
    pub fn new(code: Code, error: impl Into<String>) -> Refusal {
        Refusal { code, error: error.into(), status: None }
    }

    /// The request is not what the call takes.
    pub fn invalid(error: impl Into<String>) -> Refusal {
        Refusal::new(Code::Invalid, error)
    }

    /// With a status of its own.
    pub fn with_status(code: Code, status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { status: Some(status), ..Refusal::new(code, error) }
    }

    fn status(&self) -> StatusCode {
        let own = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.status.unwrap_or(own)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        match failure {
            // INVARIANTS 6
            Failure::NotDurable(why) => Refusal::new(
                Code::Internal,
                format!("It is in force on every core, and not durable: a restart undoes it ({why})"),
            ),
            Failure::TooMany(error) => Refusal::new(Code::TooMany, error),
            Failure::Overloaded => Refusal::new(Code::Overloaded, Code::Overloaded.text()),
            Failure::Draining => Refusal::new(Code::Draining, "The server is stopping"),
            Failure::Refused(code, error) => Refusal::new(code, error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let answer = ErrorAnswer { code: self.code.name().into(), error: self.error };
        let mut response = (status, Json(answer)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, RETRY_S);
            }
            _ => {}
        }
        response
    }
}

/// For paths that are not served.
pub(super) async fn no_such_path(uri: Uri) -> Refusal {
    let hint = if uri.path().starts_with("/v1/connect") && !uri.path().starts_with("/v1/connections") {
        "; clients connect to the edge listener, this is the server API"
    } else {
        "; GET /openapi.json lists what there is"
    };
    Refusal::new(Code::NotFound, format!("There is no such path{hint}"))
}

/// For methods that a path does not have.
pub(super) async fn method_not_allowed() -> Refusal {
    let error = "This path does not take that method; the header Allow names those it takes";
    Refusal::with_status(Code::Invalid, StatusCode::METHOD_NOT_ALLOWED, error)
}
