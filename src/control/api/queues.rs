//! Queues as operators see them: what waits, what was given up, and having that tried again (ruling F16).
//!
//! All of it needs the right `queues`. A retry is put on record.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;

use super::calls::{query, to_the_end};
use super::operations::{Operations, now_ms};
use super::refusal::Refusal;
use super::shape::parse;
use super::types::{DeadLetter, DeadLetters, DeadQuery, LastFailure, NoQuery, Queue, Queues, Retried, Retry};
use super::values::{LIMIT_DEFAULT, QueueName};
use super::{Api, body, ip_of, respond};
use crate::config::ApiRight;
use crate::control::queues::{Dead, QueueFacts};
use crate::shard::record::{Kind, Record};

/// Where queues are listed.
pub(super) const QUEUES: &str = "/v1/queues";
/// Where the dead letters of one are listed.
pub(super) const DEAD: &str = "/v1/queues/{queue}/dead";
/// Where they are sent off again.
pub(super) const RETRY: &str = "/v1/queues/{queue}/retry";

type Served<O> = State<Arc<Api<O>>>;
type Name = Result<Path<String>, PathRejection>;

/// `GET /v1/queues`.
pub(super) async fn list<O: Operations>(State(api): Served<O>, request: Parts) -> Response {
    let listed = api.admit(&request.headers, ip_of(&request.extensions), Some(ApiRight::Queues)).and_then(|_| {
        let NoQuery {} = query(&request.uri)?;
        let queues = api.operations.queues().into_iter().map(queue).collect();
        Ok(Json(Queues { queues }).into_response())
    });
    respond(listed)
}

/// `GET /v1/queues/{queue}/dead`. The name is percent-encoded.
pub(super) async fn dead<O: Operations>(State(api): Served<O>, name: Name, request: Parts) -> Response {
    let listed = async {
        api.admit(&request.headers, ip_of(&request.extensions), Some(ApiRight::Queues))?;
        let DeadQuery { limit, after } = query(&request.uri)?;
        let QueueName(name) = named(name)?;
        let limit = limit.map_or(LIMIT_DEFAULT, |limit| limit.0).into();
        let (letters, next) = api.operations.dead(&name, after, limit).await?;
        let letters = letters.into_iter().map(letter).collect();
        Ok(Json(DeadLetters { letters, next }).into_response())
    };
    respond(listed.await)
}

/// `POST /v1/queues/{queue}/retry`. The name is percent-encoded.
pub(super) async fn retry<O: Operations>(State(api): Served<O>, request: Request) -> Response {
    respond(take(api, request).await)
}

async fn take<O: Operations>(api: Arc<Api<O>>, request: Request) -> Result<Response, Refusal> {
    let ip = ip_of(request.extensions());
    let caller = api.admit(request.headers(), ip, Some(ApiRight::Queues))?;
    let NoQuery {} = query(request.uri())?;
    let (mut parts, content) = request.into_parts();
    let QueueName(name) = named(Path::from_request_parts(&mut parts, &()).await)?;
    let text = body::read(Request::from_parts(parts, content)).await?;
    to_the_end(async move {
        body::check(&text)?;
        let Retry { id } = parse(&text).map_err(Refusal::invalid)?;
        let outcome = api.operations.retry(&name, id.as_ref().map(|id| id.0.as_str())).await.map_err(Refusal::from);
        api.record(Record {
            code: outcome.as_ref().err().map(|refusal| refusal.code),
            key: Some((&*caller.key).into()),
            ip,
            reason: Some("queues retry".into()),
            ..Record::new(now_ms(), Kind::Admin)
        });
        Ok(Json(Retried { ok: true, retried: outcome? }).into_response())
    })
    .await
}

fn named(name: Name) -> Result<QueueName, Refusal> {
    let Path(name) = name.map_err(|_| Refusal::invalid("The name in the path is not UTF-8"))?;
    QueueName::try_from(name).map_err(Refusal::invalid)
}

fn queue(facts: QueueFacts) -> Queue {
    let last_error = facts.last_error.map(|last| LastFailure { at: last.at_ms, error: last.error.into() });
    Queue {
        queue: facts.name.to_string(),
        configured: facts.configured,
        depth: facts.depth,
        bytes: facts.bytes,
        oldest: facts.oldest_ms,
        attempts: facts.attempts,
        last_error,
        dead: facts.dead,
        delivered: facts.totals.delivered,
    }
}

fn letter(dead: Dead) -> DeadLetter {
    // Both were checked before they were stored.
    let raw = |text: Box<str>| RawValue::from_string(text.into()).unwrap_or_else(|_| RawValue::NULL.to_owned());
    DeadLetter {
        id: dead.message.id.to_string(),
        enqueued_at: dead.message.enqueued_at_ms,
        died_at: dead.died_at_ms,
        attempts: dead.attempts,
        error: dead.error.into(),
        user: raw(dead.message.user),
        data: raw(dead.message.data),
    }
}
