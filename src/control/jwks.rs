//! Fetching the keys of tokens from the address that publishes them (B11, INVARIANTS 30).
//!
//! Invariant: what is in force is the last good document; a fetch that fails, or a document without a usable key,
//! changes nothing. Only https, or http to this machine; no redirect is followed, so that the address of the
//! configuration alone decides whose keys count; a document is refused before more of it is read than may be.
//!
//! When: at the start, until there is a first set (1 s apart, then twice as long up to 10 s); every 5 minutes; and when
//! a token names a key that is not there, but never sooner than 10 s after the last attempt, so that made-up key ids
//! cannot turn this server against its issuer.

use std::time::Duration;

use reqwest::{Client, Url, redirect};
use tokio::time::{Instant, sleep};

use crate::auth::jwks::{DOCUMENT_BYTES_MAX, FetchedKeys, KeySet};

/// When to fetch. The default is what a server runs with.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between the first two attempts; it doubles up to `soonest`.
    pub first: Duration,
    /// Between two attempts at least, once there is a set.
    pub soonest: Duration,
    /// Between two attempts at most.
    pub usual: Duration,
    /// For one attempt.
    pub limit: Duration,
    /// Between two looks whether a newer set is asked for.
    pub look: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            first: Duration::from_secs(1),
            soonest: Duration::from_secs(10),
            usual: Duration::from_secs(300),
            limit: Duration::from_secs(5),
            look: Duration::from_millis(100),
        }
    }
}

/// Whether keys may be fetched from `text`.
///
/// # Errors
/// A sentence for the operator that says what to write instead.
pub fn check_url(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|why| format!("this is no address ({why}); write `https://host/path`"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address with a name or password would end in logs; write it without".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_machine(&url) => Ok(url),
        "http" => Err("keys that come by http can be exchanged on the way; write `https://…`".to_owned()),
        _ => Err("keys are fetched by https; write `https://host/path`".to_owned()),
    }
}

fn is_this_machine(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Fetches keys for one address.
pub struct Fetcher {
    client: Client,
    url: Url,
    pace: Pace,
}

impl Fetcher {
    /// # Errors
    /// A sentence for the operator: the address may not be fetched from, or no certificates are installed to trust.
    pub fn new(text: &str, pace: Pace) -> Result<Fetcher, String> {
        let url = parse(text)?;
        // An error means that somebody was first with the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(pace.limit)
            .user_agent(concat!("pipeward/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" {
            // A machine without certificates can fetch from itself all the same.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|why| {
            format!("auth.token.jwks_url: no TLS connection is possible ({why}); install the system's certificates")
        })?;
        Ok(Fetcher { client, url, pace })
    }

    /// Keeps `keys` current, for ever.
    pub async fn run(self, keys: FetchedKeys) {
        let mut pause = self.pace.first;
        let mut had_failed = false;
        loop {
            let began = Instant::now();
            match self.fetch().await {
                Ok(set) => {
                    if keys.current().is_none() || had_failed {
                        tracing::info!("{} keys for tokens fetched ({} ignored)", set.len(), set.ignored());
                    }
                    keys.install(set);
                    had_failed = false;
                }
                Err(why) => {
                    if !had_failed {
                        let kept = if keys.current().is_some() { "the old ones stay" } else { "tokens get 503" };
                        tracing::warn!("keys for tokens cannot be fetched from {} ({why}); {kept}", self.url);
                    }
                    had_failed = true;
                }
            }
            if keys.current().is_none() {
                sleep(pause).await;
                pause = (pause * 2).min(self.pace.soonest);
                continue;
            }
            self.wait(began, &keys).await;
        }
    }

    /// Until it is time again.
    async fn wait(&self, began: Instant, keys: &FetchedKeys) {
        while began.elapsed() < self.pace.usual {
            sleep(self.pace.look).await;
            // What is asked for too soon stays asked for.
            if began.elapsed() >= self.pace.soonest && keys.take_wanted() {
                return;
            }
        }
    }

    /// The document as it is now.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn fetch(&self) -> Result<KeySet, String> {
        let mut response = self.client.get(self.url.clone()).send().await.map_err(told)?;
        if response.status().as_u16() != 200 {
            return Err(format!("it answered {}, and only 200 is taken", response.status().as_u16()));
        }
        let mut document = Vec::new();
        while let Some(part) = response.chunk().await.map_err(told)? {
            if document.len() + part.len() > DOCUMENT_BYTES_MAX {
                return Err(format!("it is longer than {DOCUMENT_BYTES_MAX} bytes"));
            }
            document.extend_from_slice(&part);
        }
        KeySet::parse(&document)
    }
}

/// The keys at this address as they are now, for a program that has no runtime of its own.
///
/// # Errors
/// A sentence for the operator.
pub fn fetch_once(text: &str) -> Result<KeySet, String> {
    let fetcher = Fetcher::new(text, Pace::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|why| why.to_string())?;
    runtime.block_on(fetcher.fetch())
}

/// The error with what caused it, which the library leaves out; without the address, which stands beside it.
fn told(why: reqwest::Error) -> String {
    let why = why.without_url();
    let mut text = why.to_string();
    let mut cause = std::error::Error::source(&why);
    while let Some(one) = cause {
        text = format!("{text}: {one}");
        cause = one.source();
    }
    text
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
