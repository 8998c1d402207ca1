//! One call of the server API, from the other side: what the verbs of the command line are made of.
//!
//! Blocking, with a runtime of its own for the one call. Invariant: no message holds the key.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url, redirect};

/// Time to connect, in milliseconds. More: the call fails.
const CONNECT_MS_MAX: u64 = 5_000;
/// Time for the whole call, in milliseconds. More: the call fails.
const CALL_MS_MAX: u64 = 60_000;
/// Bytes of an answer. More: the call fails.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where the server API is, and who calls.
#[derive(Clone)]
pub struct Client {
    url: Url,
    key: HeaderValue,
}

/// Without the key.
impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Client({})", self.url)
    }
}

/// An answer, whatever it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON.
    pub body: String,
}

impl Client {
    /// `url` is `http://host:port` or `https://…`, with the path that a proxy adds, if any.
    ///
    /// # Errors
    /// A sentence: the address or the key cannot be used.
    pub fn new(url: &str, key: &str) -> Result<Client, String> {
        let url: Url = url.trim_end_matches('/').parse().map_err(|why| format!("`{url}` is not an address ({why})"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("`{url}` is not an address of the server API; write one like http://127.0.0.1:8081"));
        }
        let mut key = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| "the key holds a character that cannot be sent in a header".to_owned())?;
        key.set_sensitive(true);
        Ok(Client { url, key })
    }

    /// Posts JSON to `path`, which begins with `/`.
    ///
    /// # Errors
    /// A sentence: there was no answer.
    pub fn post(&self, path: &str, body: String) -> Result<Answer, String> {
        self.call(Method::POST, self.at(path), Some(body))
    }

    /// Gets `path` with these parameters.
    ///
    /// # Errors
    /// A sentence: there was no answer.
    pub fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<Answer, String> {
        let mut url = self.at(path);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        self.call(Method::GET, url, None)
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        url
    }

    fn call(&self, method: Method, url: Url, body: Option<String>) -> Result<Answer, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| format!("cannot call: {why}"))?;
        runtime.block_on(self.exchange(method, url, body)).map_err(|why| told(&self.url, why.as_ref()))
    }

    async fn exchange(&self, method: Method, url: Url, body: Option<String>) -> Result<Answer, Box<dyn Error>> {
        // An error means that somebody was first with the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .timeout(Duration::from_millis(CALL_MS_MAX))
            .user_agent(concat!("pipeward/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" {
            // A machine without certificates can call all the same.
            builder = builder.tls_certs_only([]);
        }
        let mut request = builder.build()?.request(method, url).header(AUTHORIZATION, self.key.clone());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await? {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes").into());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Answer { status, body: String::from_utf8(bytes)? })
    }
}

/// What went wrong, with its causes.
fn told(url: &Url, why: &(dyn Error + 'static)) -> String {
    let mut text = match why.downcast_ref::<reqwest::Error>() {
        Some(why) if why.is_connect() => "cannot connect".to_owned(),
        Some(why) if why.is_timeout() => "no answer in time".to_owned(),
        _ => why.to_string(),
    };
    let mut last = why;
    while let Some(cause) = last.source() {
        last = cause;
    }
    if !std::ptr::addr_eq(last, why) {
        text = format!("{text}: {last}");
    }
    format!("{url}: {text}")
}
