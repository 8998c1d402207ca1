//! One POST to the application: signed, bounded in time and in the length of its answer, no redirect followed.
//!
//! Connections are kept and used again, but for less time than servers commonly keep idle ones (2 s and more), so that a
//! call is not lost to one that is being closed on the other side. No proxy of the environment is used: what is sent is
//! about people, and goes to the address of the configuration alone.
//!
//! Invariant: no sentence in [`Failed`] holds a part of a body, a header, an address with its query or a secret.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, redirect};
use tokio::time::{Instant, timeout_at};

use super::signature;
use crate::rules::definition::Endpoint;

/// Bytes of an answer. More: [`Failed::TooLong`] (B15).
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// For so long a connection is kept without a call.
const IDLE: Duration = Duration::from_millis(1_500);
/// Idle connections to one host.
const IDLE_MAX: usize = 64;

/// An answer, whatever it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Whole.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It did not come in time.
    Late,
    /// The application could not be reached, or hung up: why, for the operator.
    Unreachable(String),
    /// It is longer than [`ANSWER_BYTES_MAX`].
    TooLong,
}

/// Makes calls. Connections are pooled.
pub struct Poster {
    plain: Client,
    /// Made at the first call that needs it: a machine without certificates can do without.
    secure: OnceLock<Result<Client, String>>,
}

impl Poster {
    /// # Errors
    /// A sentence for the operator.
    pub fn new() -> Result<Poster, String> {
        // An error means that somebody was first with the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = builder().tls_certs_only([]).build();
        let plain = plain.map_err(|why| format!("calls to the application are not possible ({why})"))?;
        Ok(Poster { plain, secure: OnceLock::new() })
    }

    /// Whether this endpoint can be called at all; its application is not asked.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), String> {
        self.client(&endpoint.url).map(drop)
    }

    /// Posts `body`, which is JSON. `now_s` is Unix seconds, for the signature.
    ///
    /// # Errors
    /// [`Failed`]
    pub async fn post(&self, endpoint: &Endpoint, body: String, now_s: u64, until: Instant) -> Result<Reply, Failed> {
        let client = self.client(&endpoint.url).map_err(Failed::Unreachable)?;
        let mut request = client.post(&*endpoint.url).header(CONTENT_TYPE, "application/json");
        if let Some(secret) = &endpoint.secret {
            request = request.header(signature::HEADER, signature::sign(secret, now_s, &body));
        }
        let call = async {
            let mut response = request.body(body).send().await.map_err(unreachable)?;
            let status = response.status().as_u16();
            let mut body = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(unreachable)? {
                if body.len() + piece.len() > ANSWER_BYTES_MAX {
                    return Err(Failed::TooLong);
                }
                body.extend_from_slice(&piece);
            }
            Ok(Reply { status, body })
        };
        timeout_at(until, call).await.unwrap_or(Err(Failed::Late))
    }

    fn client(&self, url: &str) -> Result<&Client, String> {
        if !url.starts_with("https:") {
            return Ok(&self.plain);
        }
        let made = self.secure.get_or_init(|| {
            let refused = |why| format!("no TLS connection is possible ({why}); install the system's certificates");
            builder().build().map_err(refused)
        });
        made.as_ref().map_err(Clone::clone)
    }
}

fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_MAX)
        .tcp_nodelay(true)
        .user_agent(concat!("pipeward/", env!("CARGO_PKG_VERSION")))
}

/// What went wrong, in short, with its last cause; without the address.
fn unreachable(why: reqwest::Error) -> Failed {
    let why = why.without_url();
    let mut text = if why.is_connect() { "cannot connect".to_owned() } else { "the call broke off".to_owned() };
    let mut last: &dyn std::error::Error = &why;
    while let Some(cause) = last.source() {
        last = cause;
    }
    text = format!("{text}: {last}");
    Failed::Unreachable(text)
}
