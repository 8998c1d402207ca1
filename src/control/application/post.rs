//! One POST to the application: signed, bounded in time and in the length of its answer, no redirect followed.
//!
//! Connections are kept and used again, but for less time than servers commonly keep idle ones (2 s and more). A server may
//! close one all the same, without a word and in the very moment in which it is used again. Whether the application has
//! seen such a call cannot be known. So what may arrive twice ([`Sending::Repeatable`]) is sent once more, on a fresh
//! connection and within the same time; and what may not ([`Sending::Single`]) has a fresh connection of its own. To look whether
//! a kept one is still open would not do for that: the end of it may be on its way. A connection costs a round trip, and
//! with TLS two and some arithmetic; a message done twice, or refused although the application is well, costs more.
//!
//! No proxy of the environment is used: what is sent is about people, and goes to the address of the configuration alone.
//!
//! Invariant: no sentence in [`Failed`] holds a part of a body, a header, an address with its query or a secret.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::header::{CONNECTION, CONTENT_TYPE};
use reqwest::{Client, Response, redirect};
use tokio::time::{Instant, timeout_at};

use super::signature;
use crate::rules::definition::Endpoint;

/// Bytes of an answer. More: [`Failed::TooLong`] (B15).
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// For so long a connection is kept without a call.
const IDLE: Duration = Duration::from_millis(1_500);
/// Idle connections to one host.
const IDLE_MAX: usize = 64;

/// The last connections that are remembered as having answered, and as many before them. More: the older half is forgotten.
const ANSWERED_MAX: usize = 4_096;

/// How often a call may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Never twice: it does something.
    Single,
    /// Twice does no harm: it only asks, or is told apart by its id.
    Repeatable,
}

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

/// Makes calls.
pub struct Poster {
    plain: Clients,
    /// Made at the first call that needs it: a machine without certificates can do without.
    secure: OnceLock<Result<Clients, String>>,
    answered: Mutex<Answered>,
}

/// Our ends of connections that have answered: one that breaks and is not in here was fresh.
#[derive(Default)]
struct Answered {
    last: HashSet<SocketAddr>,
    before: HashSet<SocketAddr>,
}

impl Answered {
    fn note(&mut self, own: SocketAddr) {
        if self.last.len() >= ANSWERED_MAX && !self.last.contains(&own) {
            self.before = std::mem::take(&mut self.last);
        }
        self.last.insert(own);
    }

    /// Whether it is in here; then no more.
    fn take(&mut self, own: SocketAddr) -> bool {
        let (last, before) = (self.last.remove(&own), self.before.remove(&own));
        last || before
    }
}

/// For addresses of one scheme.
struct Clients {
    /// Keeps connections.
    pooled: Client,
    /// Makes one for each call.
    fresh: Client,
}

/// What one call sends.
struct Parcel<'c> {
    endpoint: &'c Endpoint,
    body: Bytes,
    signature: Option<String>,
}

impl Poster {
    /// # Errors
    /// A sentence for the operator.
    pub fn new() -> Result<Poster, String> {
        // An error means that somebody was first with the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = Clients::new(|| builder().tls_certs_only([]));
        let plain = plain.map_err(|why| format!("calls to the application are not possible ({why})"))?;
        Ok(Poster { plain, secure: OnceLock::new(), answered: Mutex::default() })
    }

    /// Whether this endpoint can be called at all; its application is not asked.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), String> {
        self.clients(&endpoint.url).map(drop)
    }

    /// Posts `body`, which is JSON. `now_s` is Unix seconds, for the signature.
    ///
    /// # Errors
    /// [`Failed`]
    pub async fn post(
        &self,
        endpoint: &Endpoint,
        body: String,
        now_s: u64,
        until: Instant,
        sending: Sending,
    ) -> Result<Reply, Failed> {
        let clients = self.clients(&endpoint.url).map_err(Failed::Unreachable)?;
        let signature = endpoint.secret.as_ref().map(|secret| signature::sign(secret, now_s, &body));
        let parcel = Parcel { endpoint, body: body.into(), signature };
        let call = async {
            let mut response = match sending {
                Sending::Single => parcel.send_alone(&clients.fresh).await,
                Sending::Repeatable => match parcel.send(&clients.pooled).await {
                    Err(why) if self.was_kept(&why) => parcel.send_alone(&clients.fresh).await,
                    sent => sent.inspect(|response| self.note(response)),
                },
            }
            .map_err(unreachable)?;
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

    /// Notes that the connection of this answer may be used again.
    fn note(&self, response: &Response) {
        if let Some(info) = response.extensions().get::<HttpInfo>() {
            self.answered().note(info.local_addr());
        }
    }

    /// Whether this call broke, before there was an answer, on a connection that had answered before.
    fn was_kept(&self, why: &reqwest::Error) -> bool {
        broken_connection(why).is_some_and(|own| self.answered().take(own))
    }

    fn answered(&self) -> MutexGuard<'_, Answered> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self, url: &str) -> Result<&Clients, String> {
        if !url.starts_with("https:") {
            return Ok(&self.plain);
        }
        let made = self.secure.get_or_init(|| {
            let refused = |why| format!("no TLS connection is possible ({why}); install the system's certificates");
            Clients::new(builder).map_err(refused)
        });
        made.as_ref().map_err(Clone::clone)
    }
}

impl Clients {
    fn new(builder: impl Fn() -> reqwest::ClientBuilder) -> reqwest::Result<Clients> {
        let pooled = builder().pool_idle_timeout(IDLE).pool_max_idle_per_host(IDLE_MAX).build()?;
        Ok(Clients { pooled, fresh: builder().pool_max_idle_per_host(0).build()? })
    }
}

impl Parcel<'_> {
    async fn send(&self, client: &Client) -> reqwest::Result<Response> {
        self.request(client).send().await
    }

    /// On a connection which the other side need not keep.
    async fn send_alone(&self, fresh: &Client) -> reqwest::Result<Response> {
        self.request(fresh).header(CONNECTION, "close").send().await
    }

    fn request(&self, client: &Client) -> reqwest::RequestBuilder {
        let request = client.post(&*self.endpoint.url).header(CONTENT_TYPE, "application/json");
        let request = match &self.signature {
            Some(signature) => request.header(signature::HEADER, signature),
            None => request,
        };
        request.body(self.body.clone())
    }
}

/// Our end of the connection that broke, where one did; none where the answer was not HTTP.
fn broken_connection(why: &reqwest::Error) -> Option<SocketAddr> {
    let mut causes = std::iter::successors(std::error::Error::source(why), |cause| cause.source());
    let failed = causes.find_map(|cause| cause.downcast_ref::<hyper_util::client::legacy::Error>())?;
    let broke = |cause: &(dyn std::error::Error + 'static)| {
        let closed =
            cause.downcast_ref::<hyper::Error>().is_some_and(|why| why.is_incomplete_message() || why.is_canceled());
        closed || cause.is::<std::io::Error>()
    };
    let mut causes = std::iter::successors(std::error::Error::source(failed), |cause| cause.source());
    if !causes.any(broke) {
        return None;
    }
    let mut extras = axum::http::Extensions::new();
    failed.connect_info()?.get_extras(&mut extras);
    extras.get::<HttpInfo>().map(HttpInfo::local_addr)
}

fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
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
