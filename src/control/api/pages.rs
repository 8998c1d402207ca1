//! Calls from a web page, which only the demonstration lets in: cross-origin resource sharing (CORS).
//!
//! Invariant: without [`with_pages`] no header of this protocol is ever sent, so that no browser makes a call with a key. With
//! it only pages of the host that the call itself goes to may make one, whatever their port; the key is needed all the same.
//!
//! Source: Fetch Standard, "HTTP CORS protocol".

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

/// The same router, open to pages of the same host.
pub fn with_pages(router: Router) -> Router {
    router.layer(from_fn(share))
}

async fn share(request: Request, next: Next) -> Response {
    let page = page_of_same_host(request.headers());
    let asks = request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if page.is_some() && asks { permission() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(page) = page {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
    }
    response
}

/// The answer to a browser that asks before it calls.
fn permission() -> Response {
    let allowed = [
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
        (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization")),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

/// The origin of the page that calls, if it is of the host that is called.
pub fn page_of_same_host(headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let (_, page) = origin.to_str().ok()?.split_once("://")?;
    let called = headers.get(HOST)?.to_str().ok()?;
    host(page).eq_ignore_ascii_case(host(called)).then(|| origin.clone())
}

/// Without the port; an IPv6 address keeps its brackets.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_same_host_are_let_in() {
        for (origin, called, let_in) in [
            ("http://127.0.0.1:8080", "127.0.0.1:40001", true),
            ("https://Demo.example", "demo.example:40001", true),
            ("http://[::1]:8080", "[::1]:40001", true),
            ("http://[::1]", "[::1]", true),
            ("http://localhost:8080", "127.0.0.1:40001", false),
            ("http://[::1]:8080", "[::2]:40001", false),
            ("http://demo.example.evil.example", "demo.example", false),
            ("http://evil.example", "demo.example:40001", false),
            ("null", "null", false),
        ] {
            let headers = [(ORIGIN, origin), (HOST, called)];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_str(value).unwrap()));
            let page = page_of_same_host(&HeaderMap::from_iter(headers));
            assert_eq!(page.is_some(), let_in, "{origin} calls {called}");
        }
        assert_eq!(page_of_same_host(&HeaderMap::new()), None);
    }
}
