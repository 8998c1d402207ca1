//! The server API: what the application and the operators call (PROTOCOL.md §4).
//!
//! ```text
//!  serve ──▶ router ──▶ keys (who calls, what may they) ──▶ body (bytes → typed) ──▶ calls ──▶ Operations
//!  time-outs, bounds            401, 403                        400, 408, 413          the service
//! ```
//!
//! Reading order: `values` and `types` (every request and answer), `calls` (one implementation of [`calls::Call`] for each `POST`), `batch`,
//! `queries` (each `GET`), `queues`, `body` and `shape` (strictness), `document` (OpenAPI, from the same types), `refusal`, `keys`,
//! `serve`.
//!
//! Invariant: one list of calls ([`calls::each_call`]) gives the routes, the commands of a batch and the OpenAPI document,
//! so that none of the three can drift. Whatever is refused answers `{"code","error"}` and has changed nothing. A call
//! that has begun ends, even where its client has gone. No key and no payload is ever logged or audited.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{Extensions, HeaderMap};
use axum::response::Response;
use axum::routing::{get, post};

mod batch;
mod body;
mod calls;
mod client;
mod document;
mod keys;
mod notify;
mod operations;
mod pages;
mod queries;
mod queues;
mod refusal;
mod serve;
mod shape;
mod types;
mod values;

pub use client::{Answer, Client};
pub use document::document;
pub use keys::KeyRing;
pub use operations::Operations;
pub use pages::{page_of_same_host, with_pages};
pub use serve::{Peer, serve};

use calls::{Call, Visitor, each_call};
use keys::Caller;
use notify::Notices;
use refusal::Refusal;

use crate::config::ApiRight;
use crate::protocol::codes::Code;
use crate::shard::record::{Kind, Record};

/// What all handlers share.
struct Api<O> {
    operations: O,
    keys: KeyRing,
    notices: Notices,
    /// The OpenAPI document.
    document: Arc<str>,
}

/// Everything that the server API answers. Must be called within a tokio runtime.
pub fn router<O: Operations>(operations: O, keys: KeyRing) -> Router {
    let notices = Notices::start(operations.clone());
    let api = Arc::new(Api { operations, keys, notices, document: document().to_string().into() });
    let mut routes = Routes { router: Router::new() };
    each_call(&mut routes);
    routes
        .router
        .route(batch::PATH, post(batch::answer::<O>))
        .route(queries::CONNECTIONS, get(queries::connections::<O>))
        .route(queries::PIPES, get(queries::pipes::<O>))
        .route(queries::PRESENCE, get(queries::presence::<O>))
        .route(queues::QUEUES, get(queues::list::<O>))
        .route(queues::DEAD, get(queues::dead::<O>))
        .route(queues::RETRY, post(queues::retry::<O>))
        .route(queries::STATS, get(queries::stats::<O>))
        .route(queries::METRICS, get(queries::metrics::<O>))
        .route(queries::OPENAPI, get(queries::openapi::<O>))
        .route(queries::HEALTHZ, get(queries::healthz))
        .route(queries::READYZ, get(queries::readyz::<O>))
        .method_not_allowed_fallback(refusal::method_not_allowed)
        .fallback(refusal::no_such_path)
        .with_state(api)
}

/// Adds the route of each call.
struct Routes<O> {
    router: Router<Arc<Api<O>>>,
}

impl<O: Operations> Visitor for Routes<O> {
    fn visit<C: Call>(&mut self) {
        let router = std::mem::take(&mut self.router);
        self.router = router.route(&calls::path::<C>(), post(calls::answer::<C, O>));
    }
}

impl<O: Operations> Api<O> {
    /// Who makes this request; the right to this call is theirs, if it needs one.
    fn admit(&self, headers: &HeaderMap, ip: Option<IpAddr>, right: Option<ApiRight>) -> Result<Caller, Refusal> {
        let caller = self.keys.caller(headers, ip).inspect_err(|refusal| {
            self.record(Record { code: Some(refusal.code), ip, ..refused("API key") });
        })?;
        match right {
            Some(right) if !caller.allow.has(right) => Err(self.forbid(&caller, right)),
            _ => Ok(caller),
        }
    }

    /// The refusal of a call that the key may not make, which is put on record.
    fn forbid(&self, caller: &Caller, right: ApiRight) -> Refusal {
        let record = refused(right.name());
        self.record(Record { code: Some(Code::Forbidden), key: Some((&*caller.key).into()), ip: caller.ip, ..record });
        Refusal::new(Code::Forbidden, format!("This key may not call {}", right.name()))
    }

    fn record(&self, record: Record) {
        self.operations.record(record);
    }
}

fn refused(what: &'static str) -> Record {
    Record { reason: Some(what.into()), ..Record::new(operations::now_ms(), Kind::Refused) }
}

/// The address of the client, where the listener told it.
fn ip_of(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(|peer| peer.0.ip())
}

/// A handler's outcome as a response.
fn respond(outcome: Result<Response, Refusal>) -> Response {
    use axum::response::IntoResponse;
    outcome.unwrap_or_else(IntoResponse::into_response)
}
