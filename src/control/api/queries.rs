//! The calls that only ask: one handler for each `GET`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::calls::query;
use super::operations::Operations;
use super::refusal::Refusal;
use super::types::{
    Connection, Connections, ConnectionsQuery, MEMBERS_LISTED_MAX, Member, NoQuery, Numbers, Pipe, Pipes, PipesQuery,
    Presence, StatsAnswer, WorkerNumbers,
};
use super::values::{ConnectionName, Id, LIMIT_DEFAULT, Limit, PipeName, person};
use super::{Api, ip_of, respond};
use crate::config::ApiRight;
use crate::protocol::codes::Code;
use crate::shard::command::{ConnectionFacts, Stats};

/// Where open connections are listed.
pub(super) const CONNECTIONS: &str = "/v1/connections";
/// Where pipes are listed.
pub(super) const PIPES: &str = "/v1/pipes";
/// Who is subscribed to a pipe.
pub(super) const PRESENCE: &str = "/v1/pipes/{pipe}/presence";
/// The state in numbers.
pub(super) const STATS: &str = "/v1/stats";
/// The same for Prometheus.
pub(super) const METRICS: &str = "/metrics";
/// The document of this API.
pub(super) const OPENAPI: &str = "/openapi.json";
/// Whether the process lives.
pub(super) const HEALTHZ: &str = "/healthz";
/// Whether every worker accepts connections.
pub(super) const READYZ: &str = "/readyz";

/// The type of Prometheus' text format.
pub(super) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Served<O> = State<Arc<Api<O>>>;

/// `GET /v1/connections` (E10).
pub(super) async fn connections<O: Operations>(State(api): Served<O>, request: Parts) -> Response {
    let listed = async {
        api.admit(&request.headers, ip_of(&request.extensions), Some(ApiRight::Connections))?;
        let ConnectionsQuery { user, tenant, limit, after } = query(&request.uri)?;
        let person = user.map(|user| person(user, tenant.clone()));
        let after = after.map(|ConnectionName(after)| after);
        let (mut facts, next) = api.operations.connections(person, after.as_deref(), most(limit)).await?;
        if let Some(Id(tenant)) = tenant {
            facts.retain(|facts| facts.tenant.as_deref() == Some(&tenant));
        }
        let connections = facts.into_iter().map(connection).collect();
        Ok(Json(Connections { connections, next }).into_response())
    };
    respond(listed.await)
}

/// `GET /v1/pipes` (E11).
pub(super) async fn pipes<O: Operations>(State(api): Served<O>, request: Parts) -> Response {
    let listed = async {
        api.admit(&request.headers, ip_of(&request.extensions), Some(ApiRight::Pipes))?;
        let PipesQuery { limit, after } = query(&request.uri)?;
        let after = after.map(|PipeName(after)| after);
        let (pipes, next) = api.operations.pipes(after.as_deref(), most(limit)).await?;
        let pipes = pipes.into_iter().map(|(pipe, subscribers)| Pipe { pipe: pipe.into(), subscribers }).collect();
        Ok(Json(Pipes { pipes, next }).into_response())
    };
    respond(listed.await)
}

/// `GET /v1/pipes/{pipe}/presence` (E11). The name is percent-encoded.
pub(super) async fn presence<O: Operations>(
    State(api): Served<O>,
    pipe: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Parts,
) -> Response {
    let listed = async {
        api.admit(&request.headers, ip_of(&request.extensions), Some(ApiRight::Presence))?;
        let NoQuery {} = query(&request.uri)?;
        let Path(pipe) = pipe.map_err(|_| Refusal::invalid("The name in the path is not UTF-8"))?;
        let PipeName(pipe) = PipeName::try_from(pipe).map_err(Refusal::invalid)?;
        let members = api.operations.members(&pipe).await?;
        let (total, anonymous) = (members.people.len() as u64, members.anonymous);
        let members = members.people.into_iter().take(MEMBERS_LISTED_MAX).map(|member| Member {
            user: member.user.into(),
            tenant: member.tenant.map(String::from),
            name: member.name.map(String::from),
            connections: member.connections,
        });
        Ok(Json(Presence { members: members.collect(), total, anonymous }).into_response())
    };
    respond(listed.await)
}

/// `GET /v1/stats` (E12).
pub(super) async fn stats<O: Operations>(State(api): Served<O>, request: Parts) -> Response {
    let summed = async {
        api.admit(&request.headers, ip_of(&request.extensions), Some(ApiRight::Stats))?;
        let NoQuery {} = query(&request.uri)?;
        let stats = api.operations.stats().await?;
        let mut total = Numbers::default();
        let workers = stats.iter().map(|stats| {
            let numbers = numbers(stats);
            total.add(&numbers);
            WorkerNumbers { worker: stats.worker as u64, numbers }
        });
        let workers = workers.collect();
        Ok(Json(StatsAnswer { workers, total }).into_response())
    };
    respond(summed.await)
}

/// `GET /metrics`.
pub(super) async fn metrics<O: Operations>(State(api): Served<O>, request: Parts) -> Response {
    let text = async {
        api.admit(&request.headers, ip_of(&request.extensions), Some(ApiRight::Metrics))?;
        let NoQuery {} = query(&request.uri)?;
        let text = api.operations.metrics().await?;
        Ok(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
    };
    respond(text.await)
}

/// `GET /openapi.json`, with any key (E3).
pub(super) async fn openapi<O: Operations>(State(api): Served<O>, request: Parts) -> Response {
    let outcome = api.admit(&request.headers, ip_of(&request.extensions), None).and_then(|_| {
        let NoQuery {} = query(&request.uri)?;
        Ok(([(CONTENT_TYPE, "application/json")], api.document.to_string()).into_response())
    });
    respond(outcome)
}

/// `GET /healthz`: the process lives. Needs no key.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: every worker accepts connections. Needs no key.
pub(super) async fn readyz<O: Operations>(State(api): Served<O>) -> Response {
    if api.operations.is_ready() {
        return "ready\n".into_response();
    }
    Refusal::with_status(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "Not ready").into_response()
}

fn most(limit: Option<Limit>) -> usize {
    limit.map_or(LIMIT_DEFAULT, |limit| limit.0).into()
}

fn connection(facts: ConnectionFacts) -> Connection {
    Connection {
        connection: facts.connection,
        user: facts.user.map(String::from),
        tenant: facts.tenant.map(String::from),
        ip: facts.ip.to_string(),
        since: facts.since_ms,
        pipes: facts.pipes.into_iter().map(String::from).collect(),
        queue_bytes: facts.queue_bytes,
    }
}

fn numbers(stats: &Stats) -> Numbers {
    Numbers {
        connections: stats.connections,
        open: stats.open,
        subscriptions: stats.subscriptions,
        pipes: stats.pipes,
        queue_bytes: stats.queue_bytes,
        assembly_bytes: stats.assembly_bytes,
        stalled: stats.stalled,
        ring_depth: stats.ring_depth,
        doorbells_missed: stats.doorbells_missed,
        counters: stats.counters.plain().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

impl Numbers {
    fn add(&mut self, other: &Numbers) {
        self.connections += other.connections;
        self.open += other.open;
        self.subscriptions += other.subscriptions;
        self.pipes += other.pipes;
        self.queue_bytes += other.queue_bytes;
        self.assembly_bytes += other.assembly_bytes;
        self.stalled += other.stalled;
        self.ring_depth += other.ring_depth;
        self.doorbells_missed += other.doorbells_missed;
        for (name, value) in &other.counters {
            *self.counters.entry(name.clone()).or_default() += value;
        }
    }
}
