//! Every request and answer of the server API. From these types come both the reading of JSON and the OpenAPI document.
//!
//! Units stand in the names. Source: PROTOCOL.md §4; rulings D4, D9, D14, E6–E12.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::shape::{Shape, Shaped, parse};
use super::values::{ConnectionName, EventName, Flag, Id, Limit, PipeName, PipePattern, TtlS, UnixS, person};
use crate::shard::command::Who;

/// Commands in one batch. More: 400, nothing done.
pub(super) const COMMANDS_MAX: usize = 1000;
/// Members listed for one pipe; the rest is counted (E11).
pub(super) const MEMBERS_LISTED_MAX: usize = 1000;

// ---- requests ----------------------------------------------------------------------------------------------------

/// An event for everybody who is subscribed to a pipe
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Publish {
    pub pipe: PipeName,
    pub event: EventName,
    /// Any JSON; delivered byte for byte; absent: null
    #[serde(default = "null")]
    #[schema(value_type = Value, required = false)]
    pub data: Box<RawValue>,
    /// The user that receivers see as the sender; absent: the application
    pub sender: Option<Id>,
    /// Answer with the number of connections that it was queued for
    pub count: Option<bool>,
}

impl Shaped for Publish {
    const SHAPES: &'static [Shape] = &[Shape { required: &["pipe", "event"], optional: &["data", "sender", "count"] }];
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// An event for connections, whatever they are subscribed to
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Push {
    pub to: Target,
    /// The tenant of a user, role or org; the same as inside `to`
    pub tenant: Option<Id>,
    pub event: EventName,
    /// Any JSON; delivered byte for byte
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
}

impl Shaped for Push {
    const SHAPES: &'static [Shape] = &[Shape { required: &["to", "event", "data"], optional: &["tenant"] }];
}

impl Push {
    /// Whom it reaches, with the tenant that stands beside `to` (D14).
    ///
    /// # Errors
    /// A sentence: the two do not go together.
    pub fn target(&mut self) -> Result<Who, &'static str> {
        let mut who = self.to.0.clone();
        let Some(Id(beside)) = self.tenant.take() else { return Ok(who) };
        let tenant = match &mut who {
            Who::User(person) => &mut person.tenant,
            Who::Role(_, tenant) | Who::Org(_, tenant) => tenant,
            Who::Tenant(own) if **own == *beside => return Ok(who),
            Who::Tenant(_) => return Err(OTHER_TENANT),
            Who::Connection(_) | Who::Session(_) => return Err("`tenant` goes with a user, a role or an org"),
        };
        match tenant {
            Some(own) if **own != *beside => return Err(OTHER_TENANT),
            _ => *tenant = Some(beside.into()),
        }
        Ok(who)
    }
}

const OTHER_TENANT: &str = "`tenant` and the tenant in `to` are not the same";

/// The same, answered at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Notify(pub Push);

impl PartialSchema for Notify {
    fn schema() -> RefOr<Schema> {
        Push::schema()
    }
}

impl ToSchema for Notify {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Push::schemas(schemas);
    }
}

impl Shaped for Notify {
    const SHAPES: &'static [Shape] = Push::SHAPES;
}

/// Whom a push reaches: exactly one of user, connection, role, tenant, org; beside user, role and org a tenant may stand
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct TargetFields {
    pub user: Option<Id>,
    pub connection: Option<Id>,
    pub role: Option<Id>,
    pub org: Option<Id>,
    pub tenant: Option<Id>,
}

impl Shaped for TargetFields {
    const SHAPES: &'static [Shape] = &[
        Shape { required: &["user"], optional: &["tenant"] },
        Shape { required: &["connection"], optional: &[] },
        Shape { required: &["role"], optional: &["tenant"] },
        Shape { required: &["tenant"], optional: &[] },
        Shape { required: &["org"], optional: &["tenant"] },
    ];
}

/// [`TargetFields`] that were read strictly.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "Box<RawValue>")]
#[schema(value_type = TargetFields)]
pub(super) struct Target(pub Who);

impl TryFrom<Box<RawValue>> for Target {
    type Error = String;

    fn try_from(text: Box<RawValue>) -> Result<Target, Self::Error> {
        let TargetFields { user, connection, role, org, tenant } =
            parse(text.get()).map_err(|why| why.replacen("The body", "a target", 1))?;
        let who = match (user, connection, role, org, tenant) {
            (Some(user), _, _, _, tenant) => Who::User(person(user, tenant)),
            (_, Some(connection), ..) => Who::Connection(connection.into_arc()),
            (_, _, Some(role), _, tenant) => Who::Role(role.into_arc(), tenant.map(Id::into_arc)),
            (_, _, _, Some(org), tenant) => Who::Org(org.into_arc(), tenant.map(Id::into_arc)),
            (.., Some(tenant)) => Who::Tenant(tenant.into_arc()),
            _ => return Err("give one of user, connection, role, tenant, org".to_owned()),
        };
        Ok(Target(who))
    }
}

/// What else ends a revocation
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Until {
    /// An authorization that was asked for after the revocation, or a token issued after it, that grants the pipe
    Reauthorized,
}

/// Takes a pipe, or all pipes that match a pattern, from a user
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Revoke {
    pub user: Id,
    /// Only in this tenant
    pub tenant: Option<Id>,
    pub pipe: PipePattern,
    /// Absent: until restored
    pub ttl_s: Option<TtlS>,
    pub until: Option<Until>,
}

impl Shaped for Revoke {
    const SHAPES: &'static [Shape] = &[Shape { required: &["user", "pipe"], optional: &["tenant", "ttl_s", "until"] }];
}

/// Takes all pipes from a user; the connections stay
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct RevokeAll {
    pub user: Id,
    /// Only in this tenant
    pub tenant: Option<Id>,
    /// Absent: until restored
    pub ttl_s: Option<TtlS>,
    pub until: Option<Until>,
}

impl Shaped for RevokeAll {
    const SHAPES: &'static [Shape] = &[Shape { required: &["user"], optional: &["tenant", "ttl_s", "until"] }];
}

/// Lifts a revocation
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Restore {
    pub user: Id,
    /// The tenant that the revocation named
    pub tenant: Option<Id>,
    /// The name or pattern exactly as it was revoked; absent: everything that was revoked for the user
    pub pipe: Option<PipePattern>,
}

impl Shaped for Restore {
    const SHAPES: &'static [Shape] = &[Shape { required: &["user"], optional: &["tenant", "pipe"] }];
}

/// Revokes one token by its id, those of a session, or those of a user that were issued before a moment
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct RevokeTokens {
    /// The id of a token (`jti`), never the token itself
    pub token: Option<Id>,
    /// The session of tokens (`sid`)
    pub session: Option<Id>,
    pub user: Option<Id>,
    /// Only in this tenant
    pub tenant: Option<Id>,
    /// Tokens with a lower `iat`, or none, are revoked; absent: the next second, and the answer comes once it has begun
    pub issued_before_s: Option<UnixS>,
    /// The session that is spared
    pub except_session: Option<Id>,
    /// The id of the token that is spared
    pub except_token: Option<Id>,
    /// Absent: for good
    pub ttl_s: Option<TtlS>,
}

impl Shaped for RevokeTokens {
    const SHAPES: &'static [Shape] = &[
        Shape { required: &["token"], optional: &["ttl_s"] },
        Shape { required: &["session"], optional: &["ttl_s"] },
        Shape {
            required: &["user"],
            optional: &["tenant", "issued_before_s", "except_session", "except_token", "ttl_s"],
        },
    ];
}

/// Closes connections
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Disconnect {
    pub user: Option<Id>,
    /// Only in this tenant
    pub tenant: Option<Id>,
    pub connection: Option<Id>,
    pub session: Option<Id>,
    /// Whether the clients may connect again (close code 4503) or not (4403, the default)
    pub reconnect: Option<bool>,
}

impl Shaped for Disconnect {
    const SHAPES: &'static [Shape] = &[
        Shape { required: &["user"], optional: &["tenant", "reconnect"] },
        Shape { required: &["connection"], optional: &["reconnect"] },
        Shape { required: &["session"], optional: &["reconnect"] },
    ];
}

/// Ends subscriptions to a pipe; the grant stays
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Unsubscribe {
    pub user: Option<Id>,
    /// Only in this tenant
    pub tenant: Option<Id>,
    pub connection: Option<Id>,
    pub pipe: PipeName,
}

impl Shaped for Unsubscribe {
    const SHAPES: &'static [Shape] = &[
        Shape { required: &["user", "pipe"], optional: &["tenant"] },
        Shape { required: &["connection", "pipe"], optional: &[] },
    ];
}

/// No parameters
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub(super) struct NoQuery {}

/// Parameters of `publish`
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub(super) struct PublishQuery {
    /// Answer with the number of connections that it was queued for
    pub count: Option<Flag>,
}

/// Parameters of `connections`
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(super) struct ConnectionsQuery {
    /// Only those of this user
    pub user: Option<Id>,
    /// Only those of this tenant; without `user` a list may then be shorter than `limit` and still have a `next`
    pub tenant: Option<Id>,
    pub limit: Option<Limit>,
    /// The `next` of the list before
    pub after: Option<ConnectionName>,
}

/// Parameters of `pipes`
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(super) struct PipesQuery {
    pub limit: Option<Limit>,
    /// The `next` of the list before
    pub after: Option<PipeName>,
}

/// Parameters of a list of dead letters
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub(super) struct DeadQuery {
    pub limit: Option<Limit>,
    /// The `next` of the list before
    pub after: Option<u64>,
}

/// Has dead letters tried again, behind whatever waits
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Retry {
    /// Of one dead letter; absent: all for which the queue has room, oldest first
    pub id: Option<Id>,
}

impl Shaped for Retry {
    const SHAPES: &'static [Shape] = &[Shape { required: &[], optional: &["id"] }];
}

// ---- answers -----------------------------------------------------------------------------------------------------

/// Why a call was refused
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ErrorAnswer {
    /// One of the codes of the protocol
    pub code: String,
    /// A sentence
    pub error: String,
}

/// Done
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Done {
    pub ok: bool,
}

/// Handed to every core that has subscribers
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Published {
    pub ok: bool,
    /// Connections that it was queued for, where `count` was asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub delivered: Option<u64>,
}

/// Queued
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Delivered {
    pub ok: bool,
    /// Connections that it was queued for
    pub delivered: u64,
}

/// In force on every core
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Touched {
    pub ok: bool,
    /// Live connections that it was about
    pub connections: u64,
}

/// In force on every core
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct TokensRevoked {
    pub ok: bool,
    /// Live connections that were closed
    pub connections: u64,
    /// The cut-off, where tokens of a user were revoked
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub issued_before_s: Option<i64>,
}

/// Open connections
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Connections {
    pub connections: Vec<Connection>,
    /// Where to go on; absent: this was all
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

/// One open connection
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Connection {
    pub connection: String,
    /// Null: anonymous
    #[schema(required)]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tenant: Option<String>,
    pub ip: String,
    /// Unix milliseconds
    pub since: u64,
    /// What it is subscribed to
    pub pipes: Vec<String>,
    /// Waiting to be sent
    pub queue_bytes: u64,
}

/// Pipes with subscribers, by name
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Pipes {
    pub pipes: Vec<Pipe>,
    /// Where to go on; absent: this was all
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

/// One pipe
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Pipe {
    pub pipe: String,
    /// Connections
    pub subscribers: u64,
}

/// Who is subscribed to a pipe
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Presence {
    /// At most 1,000
    pub members: Vec<Member>,
    /// Users in all
    pub total: u64,
    /// Connections without a user
    pub anonymous: u64,
}

/// One user
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Member {
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    /// Of this user, subscribed to the pipe
    pub connections: u64,
}

/// Queues, by name
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Queues {
    pub queues: Vec<Queue>,
}

/// One queue
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Queue {
    pub queue: String,
    /// Where it is not in the configuration, nothing is taken and nothing delivered
    pub configured: bool,
    /// Messages that wait
    pub depth: u64,
    /// Bytes of them
    pub bytes: u64,
    /// When the first of them was enqueued, Unix milliseconds; null: none waits
    #[schema(required)]
    pub oldest: Option<u64>,
    /// Attempts that the first of them has behind it
    pub attempts: u32,
    /// Null: no attempt has failed since the start
    #[schema(required)]
    pub last_error: Option<LastFailure>,
    /// Dead letters
    pub dead: u64,
    /// Messages that the application has taken since the start
    pub delivered: u64,
}

/// The last attempt that failed
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct LastFailure {
    /// Unix milliseconds
    pub at: u64,
    pub error: String,
}

/// Messages that are not delivered any more, oldest first
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct DeadLetters {
    pub letters: Vec<DeadLetter>,
    /// Where to go on; absent: this was all
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<u64>,
}

/// One of them
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct DeadLetter {
    pub id: String,
    /// Unix milliseconds
    pub enqueued_at: u64,
    /// Unix milliseconds
    pub died_at: u64,
    pub attempts: u32,
    /// Why it was given up
    pub error: String,
    /// Who sent it; null: nobody by name
    #[schema(value_type = Value)]
    pub user: Box<RawValue>,
    /// As it came
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
}

/// They wait again
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct Retried {
    pub ok: bool,
    /// How many
    pub retried: u64,
}

/// The state of the server in numbers
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct StatsAnswer {
    pub workers: Vec<WorkerNumbers>,
    /// Summed; a pipe known to two workers counts twice
    pub total: Numbers,
}

/// The numbers of one worker
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct WorkerNumbers {
    pub worker: u64,
    #[serde(flatten)]
    pub numbers: Numbers,
}

/// Gauges and counters
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(super) struct Numbers {
    /// In whatever state
    pub connections: u64,
    /// Those that are served
    pub open: u64,
    pub subscriptions: u64,
    pub pipes: u64,
    /// Waiting to be sent
    pub queue_bytes: u64,
    /// Unfinished messages
    pub assembly_bytes: u64,
    /// Connections that wait for room in a ring
    pub stalled: u64,
    /// Entries that wait in rings
    pub ring_depth: u64,
    /// Sweeps that found what nobody had rung for
    pub doorbells_missed: u64,
    /// Everything that is counted since the start
    pub counters: BTreeMap<String, u64>,
}
