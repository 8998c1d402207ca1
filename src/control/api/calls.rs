//! The calls that do something: one implementation of [`Call`] for each `POST`.
//!
//! [`each_call`] is the only list of them. A call is carried out on a task of its own, so that it ends even where the client
//! goes away in the middle.

use std::future::Future;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::keys::Caller;
use super::notify::Notice;
use super::operations::{Operations, now_ms};
use super::refusal::Refusal;
use super::shape::{Shaped, parse};
use super::types::{
    Delivered, Disconnect, Done, NoQuery, Notify, Publish, PublishQuery, Published, Push, Restore, Revoke, RevokeAll,
    RevokeTokens, TokensRevoked, Touched, Unsubscribe, Until,
};
use super::values::{Id, TtlS, person};
use super::{Api, body, ip_of, respond};
use crate::config::ApiRight;
use crate::protocol::codes::Code;
use crate::protocol::encode::{Sender, event_frame, push_frame};
use crate::shard::command::Who;
use crate::shard::record::{Kind, Particulars, Record};
use crate::shard::revocation::{FOR_EVER, Restoration, Revocation, Taken, TokenRevocation, Tokens};

/// Bytes of a frame beside its data, all of them escaped: names, sender and time stamp.
const FRAME_BYTES_AROUND_MAX: usize = 4 * 1024;

/// The parameter that needs no value.
const FLAG: &str = "count";

/// A call of the application that does something.
pub(super) trait Call: Shaped + ToSchema + Send + 'static {
    /// Its name, and the right that it needs.
    const RIGHT: ApiRight;
    /// One line for the document.
    const SUMMARY: &'static str;
    /// Where it went well.
    const STATUS: StatusCode = StatusCode::OK;
    /// What it may answer beside the codes that every call may.
    const CODES: &'static [Code] = &[];
    /// Parameters in the address.
    type Query: DeserializeOwned + ToSchema + Send;
    /// Where it went well.
    type Answer: Serialize + ToSchema + Send;

    /// Lays the parameters over the body.
    fn adopt(&mut self, _query: Self::Query) {}

    /// What the audit is told; the outcome, time and key are added. None: not audited. `now_ms` is when the request was
    /// read, Unix milliseconds.
    fn record(&self, _now_ms: u64) -> Option<Record> {
        None
    }

    /// Carries it out.
    fn run<O: Operations>(self, context: &Context<O>) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send;
}

/// What is given the type of each call in turn.
pub(super) trait Visitor {
    /// One call.
    fn visit<C: Call>(&mut self);
}

/// All calls, in the order of PROTOCOL.md §4.
pub(super) fn each_call(visitor: &mut impl Visitor) {
    visitor.visit::<Publish>();
    visitor.visit::<Push>();
    visitor.visit::<Notify>();
    visitor.visit::<Revoke>();
    visitor.visit::<RevokeAll>();
    visitor.visit::<Restore>();
    visitor.visit::<RevokeTokens>();
    visitor.visit::<Disconnect>();
    visitor.visit::<Unsubscribe>();
}

/// Where a call is made.
pub(super) fn path<C: Call>() -> String {
    format!("/v1/{}", C::RIGHT.name())
}

/// What a call is carried out for.
pub(super) struct Context<O> {
    pub api: Arc<Api<O>>,
    pub caller: Caller,
    /// When the request was read, Unix milliseconds.
    pub now_ms: u64,
}

impl<O: Operations> Context<O> {
    /// Now.
    pub fn new(api: Arc<Api<O>>, caller: Caller) -> Context<O> {
        Context { api, caller, now_ms: now_ms() }
    }

    fn end_ms(&self, ttl: Option<&TtlS>) -> u64 {
        ttl.map_or(FOR_EVER, |ttl| ttl.end_ms(self.now_ms))
    }

    fn reauthorized(&self, until: Option<Until>) -> Option<u64> {
        until.map(|Until::Reauthorized| self.now_ms)
    }

    /// Refuses a frame that no connection's queue could hold, not even an empty one: it would reach nobody, or close
    /// every receiver as too slow. `encode` makes the frame, where that must be known to the byte.
    fn check_size(&self, data: &RawValue, encode: impl FnOnce(&str) -> Vec<u8>) -> Result<(), Refusal> {
        let (data, most) = (data.get(), self.api.operations.queue_bytes());
        let fits = data.len() + FRAME_BYTES_AROUND_MAX <= most;
        if fits || (data.len() < most && encode(data).len() <= most) {
            return Ok(());
        }
        let error =
            format!("As a frame this is larger than {most} bytes, which is all that a connection's queue can hold");
        Err(Refusal::new(Code::PayloadTooLarge, error))
    }

    fn check_push(&self, push: &Push) -> Result<(), Refusal> {
        self.check_size(&push.data, |data| push_frame(&push.event.0, data, Sender::Application, self.now_ms))
    }
}

/// Answers a `POST`.
pub(super) async fn answer<C: Call, O: Operations>(State(api): State<Arc<Api<O>>>, request: Request) -> Response {
    respond(take::<C, O>(api, request).await)
}

async fn take<C: Call, O: Operations>(api: Arc<Api<O>>, request: Request) -> Result<Response, Refusal> {
    let caller = api.admit(request.headers(), ip_of(request.extensions()), Some(C::RIGHT))?;
    let query: C::Query = query(request.uri())?;
    let text = body::read(request).await?;
    to_the_end(async move {
        body::check(&text)?;
        let mut call: C = parse(&text).map_err(Refusal::invalid)?;
        drop(text);
        call.adopt(query);
        let answer = perform(call, &Context::new(api, caller)).await?;
        Ok((C::STATUS, Json(answer)).into_response())
    })
    .await
}

/// Carries out, and puts on record what came of it.
pub(super) async fn perform<C: Call, O: Operations>(call: C, context: &Context<O>) -> Result<C::Answer, Refusal> {
    let record = call.record(context.now_ms);
    let outcome = call.run(context).await;
    if let Some(record) = record {
        let code = outcome.as_ref().err().map(|refusal| refusal.code);
        let (key, ip) = (Some((&*context.caller.key).into()), context.caller.ip);
        context.api.record(Record { ts_ms: now_ms(), code, key, ip, ..record });
    }
    outcome
}

/// Runs on a task of its own, which a client that goes away does not end.
pub(super) async fn to_the_end(
    work: impl Future<Output = Result<Response, Refusal>> + Send + 'static,
) -> Result<Response, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(Refusal::new(Code::Internal, Code::Internal.text())))
}

/// The parameters in an address. Others are ignored, as fields of a body are. One without a value is not there, but for
/// [`FLAG`].
pub(super) fn query<Q: DeserializeOwned>(uri: &Uri) -> Result<Q, Refusal> {
    let is_given = |pair: &&str| pair.split_once('=').map_or(*pair == FLAG, |(_, value)| !value.is_empty());
    let given: Vec<&str> = uri.query().unwrap_or_default().split('&').filter(is_given).collect();
    let uri: Uri = format!("/?{}", given.join("&")).parse().map_err(|_| Refusal::invalid("The address is none"))?;
    Query::try_from_uri(&uri).map(|Query(query)| query).map_err(|why| Refusal::invalid(why.body_text()))
}

impl Call for Publish {
    const RIGHT: ApiRight = ApiRight::Publish;
    const SUMMARY: &'static str = "Send an event to the subscribers of a pipe";
    const CODES: &'static [Code] = &[Code::Schema];
    type Query = PublishQuery;
    type Answer = Published;

    fn adopt(&mut self, query: PublishQuery) {
        self.count = query.count.map(|flag| flag.0).or(self.count);
    }

    async fn run<O: Operations>(self, context: &Context<O>) -> Result<Published, Refusal> {
        let sender = self.sender.as_ref().map(|sender| sender.0.as_str());
        let from = sender.map_or(Sender::Application, Sender::User);
        context.check_size(&self.data, |data| event_frame(&self.pipe.0, &self.event.0, data, from, context.now_ms))?;
        let count = self.count.unwrap_or_default();
        let operations = &context.api.operations;
        let delivered = operations.publish(&self.pipe.0, &self.event.0, self.data.get(), sender, count).await?;
        Ok(Published { ok: true, delivered: delivered.filter(|_| count) })
    }
}

impl Call for Push {
    const RIGHT: ApiRight = ApiRight::Push;
    const SUMMARY: &'static str = "Send an event to connections";
    const CODES: &'static [Code] = &[Code::NotConnected];
    type Query = NoQuery;
    type Answer = Delivered;

    async fn run<O: Operations>(mut self, context: &Context<O>) -> Result<Delivered, Refusal> {
        context.check_push(&self)?;
        let to = self.target().map_err(Refusal::invalid)?;
        match context.api.operations.push(to, &self.event.0, self.data.get()).await? {
            0 => Err(Refusal::new(Code::NotConnected, Code::NotConnected.text())),
            delivered => Ok(Delivered { ok: true, delivered }),
        }
    }
}

impl Call for Notify {
    const RIGHT: ApiRight = ApiRight::Notify;
    const SUMMARY: &'static str = "The same without waiting";
    const STATUS: StatusCode = StatusCode::ACCEPTED;
    type Query = NoQuery;
    type Answer = Done;

    async fn run<O: Operations>(mut self, context: &Context<O>) -> Result<Done, Refusal> {
        context.check_push(&self.0)?;
        let to = self.0.target().map_err(Refusal::invalid)?;
        let Push { event, data, .. } = self.0;
        context.api.notices.take(Notice { to, event: event.0, data: data.into() })?;
        Ok(Done { ok: true })
    }
}

impl Call for Revoke {
    const RIGHT: ApiRight = ApiRight::Revoke;
    const SUMMARY: &'static str = "Take a pipe from a user, durably and at once";
    const CODES: &'static [Code] = &[Code::TooMany];
    type Query = NoQuery;
    type Answer = Touched;

    fn record(&self, _now_ms: u64) -> Option<Record> {
        let pipe = Some(self.pipe.0.as_str().into());
        let particulars = lasting(self.ttl_s.as_ref(), self.until);
        let record = about(Kind::Revoke, Self::RIGHT, Some(&self.user), self.tenant.as_ref());
        Some(Record { pipe, particulars, ..record })
    }

    async fn run<O: Operations>(self, context: &Context<O>) -> Result<Touched, Refusal> {
        let revocation = Revocation {
            person: person(self.user, self.tenant),
            taken: Taken::Pipe(self.pipe.0.into()),
            until_ms: context.end_ms(self.ttl_s.as_ref()),
            until_authorized_after_ms: context.reauthorized(self.until),
        };
        Ok(Touched { ok: true, connections: context.api.operations.revoke(revocation).await? })
    }
}

impl Call for RevokeAll {
    const RIGHT: ApiRight = ApiRight::RevokeAll;
    const SUMMARY: &'static str = "Take all pipes from a user, durably and at once";
    const CODES: &'static [Code] = &[Code::TooMany];
    type Query = NoQuery;
    type Answer = Touched;

    fn record(&self, _now_ms: u64) -> Option<Record> {
        let particulars = lasting(self.ttl_s.as_ref(), self.until);
        Some(Record { particulars, ..about(Kind::Revoke, Self::RIGHT, Some(&self.user), self.tenant.as_ref()) })
    }

    async fn run<O: Operations>(self, context: &Context<O>) -> Result<Touched, Refusal> {
        let revocation = Revocation {
            person: person(self.user, self.tenant),
            taken: Taken::Everything,
            until_ms: context.end_ms(self.ttl_s.as_ref()),
            until_authorized_after_ms: context.reauthorized(self.until),
        };
        Ok(Touched { ok: true, connections: context.api.operations.revoke(revocation).await? })
    }
}

impl Call for Restore {
    const RIGHT: ApiRight = ApiRight::Restore;
    const SUMMARY: &'static str = "Lift revocations of a user";
    type Query = NoQuery;
    type Answer = Touched;

    fn record(&self, _now_ms: u64) -> Option<Record> {
        let pipe = self.pipe.as_ref().map(|pipe| pipe.0.as_str().into());
        Some(Record { pipe, ..about(Kind::Restore, Self::RIGHT, Some(&self.user), self.tenant.as_ref()) })
    }

    async fn run<O: Operations>(self, context: &Context<O>) -> Result<Touched, Refusal> {
        let taken = self.pipe.map(|pipe| Taken::Pipe(pipe.0.into()));
        let restoration = Restoration { person: person(self.user, self.tenant), taken };
        Ok(Touched { ok: true, connections: context.api.operations.restore(restoration).await? })
    }
}

impl Call for RevokeTokens {
    const RIGHT: ApiRight = ApiRight::RevokeTokens;
    const SUMMARY: &'static str = "Revoke tokens and close their connections (4402), durably and at once";
    const CODES: &'static [Code] = &[Code::TooMany];
    type Query = NoQuery;
    type Answer = TokensRevoked;

    fn record(&self, now_ms: u64) -> Option<Record> {
        let particulars = Particulars {
            session: text(self.session.as_ref()),
            token_id: text(self.token.as_ref()),
            issued_before_s: self.cut_off_s(now_ms),
            except_session: text(self.except_session.as_ref()),
            except_token: text(self.except_token.as_ref()),
            ..particulars(self.ttl_s.as_ref(), None)
        };
        let record = about(Kind::Revoke, Self::RIGHT, self.user.as_ref(), self.tenant.as_ref());
        Some(Record { particulars: Some(particulars.into()), ..record })
    }

    async fn run<O: Operations>(self, context: &Context<O>) -> Result<TokensRevoked, Refusal> {
        let until_ms = context.end_ms(self.ttl_s.as_ref());
        let cut_off_s = self.cut_off_s(context.now_ms);
        let (tokens, issued_before_s) = match (self.token, self.session, self.user) {
            (Some(token), ..) => (Tokens::Token(token.into_arc()), None),
            (_, Some(session), _) => (Tokens::Session(session.into_arc()), None),
            (_, _, Some(user)) => {
                let issued_before_s = cut_off_s.unwrap_or_default();
                let tokens = Tokens::IssuedBefore {
                    person: person(user, self.tenant),
                    issued_before_s,
                    except_session: self.except_session.map(Id::into_arc),
                    except_token: self.except_token.map(Id::into_arc),
                };
                (tokens, Some(issued_before_s))
            }
            (None, None, None) => return Err(Refusal::invalid("Give one of token, session, user")),
        };
        let connections = context.api.operations.revoke_tokens(TokenRevocation { tokens, until_ms }).await?;
        Ok(TokensRevoked { ok: true, connections, issued_before_s })
    }
}

impl RevokeTokens {
    /// The cut-off of a user's tokens, Unix seconds; where none is given the current second is included (D9).
    fn cut_off_s(&self, now_ms: u64) -> Option<i64> {
        let next_s = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX).saturating_add(1);
        self.user.as_ref().map(|_| self.issued_before_s.map_or(next_s, |moment| moment.0))
    }
}

impl Call for Disconnect {
    const RIGHT: ApiRight = ApiRight::Disconnect;
    const SUMMARY: &'static str = "Close connections";
    type Query = NoQuery;
    type Answer = Touched;

    fn record(&self, _now_ms: u64) -> Option<Record> {
        let connection = self.connection.as_ref().map(|connection| connection.0.clone());
        let reconnect = Some(self.reconnect.unwrap_or_default());
        let said = Particulars { session: text(self.session.as_ref()), reconnect, ..Particulars::default() };
        let record = about(Kind::Admin, Self::RIGHT, self.user.as_ref(), self.tenant.as_ref());
        Some(Record { connection, particulars: Some(said.into()), ..record })
    }

    async fn run<O: Operations>(self, context: &Context<O>) -> Result<Touched, Refusal> {
        let who = match (self.user, self.connection, self.session) {
            (Some(user), ..) => Who::User(person(user, self.tenant)),
            (_, Some(connection), _) => Who::Connection(connection.into_arc()),
            (_, _, Some(session)) => Who::Session(session.into_arc()),
            (None, None, None) => return Err(Refusal::invalid("Give one of user, connection, session")),
        };
        let reconnect = self.reconnect.unwrap_or_default();
        Ok(Touched { ok: true, connections: context.api.operations.disconnect(who, reconnect).await? })
    }
}

impl Call for Unsubscribe {
    const RIGHT: ApiRight = ApiRight::Unsubscribe;
    const SUMMARY: &'static str = "End subscriptions to a pipe";
    type Query = NoQuery;
    type Answer = Touched;

    fn record(&self, _now_ms: u64) -> Option<Record> {
        let connection = self.connection.as_ref().map(|connection| connection.0.clone());
        let pipe = Some(self.pipe.0.as_str().into());
        Some(Record { connection, pipe, ..about(Kind::Admin, Self::RIGHT, self.user.as_ref(), self.tenant.as_ref()) })
    }

    async fn run<O: Operations>(self, context: &Context<O>) -> Result<Touched, Refusal> {
        let who = match (self.user, self.connection) {
            (Some(user), _) => Who::User(person(user, self.tenant)),
            (_, Some(connection)) => Who::Connection(connection.into_arc()),
            (None, None) => return Err(Refusal::invalid("Give one of user, connection")),
        };
        Ok(Touched { ok: true, connections: context.api.operations.unsubscribe(who, &self.pipe.0).await? })
    }
}

/// A record about a user; which call it was stands as its reason.
fn about(kind: Kind, call: ApiRight, user: Option<&Id>, tenant: Option<&Id>) -> Record {
    Record { user: text(user), tenant: text(tenant), reason: Some(call.name().into()), ..Record::new(0, kind) }
}

/// How long a revocation lasts, where that was said.
fn lasting(ttl: Option<&TtlS>, until: Option<Until>) -> Option<Box<Particulars>> {
    (ttl.is_some() || until.is_some()).then(|| particulars(ttl, until).into())
}

fn particulars(ttl: Option<&TtlS>, until: Option<Until>) -> Particulars {
    let until = until.map(|Until::Reauthorized| "reauthorized");
    // One beyond every double has no form in JSON, and is for ever as its absence is.
    let ttl_s = ttl.map(|ttl| ttl.0).filter(|ttl_s| ttl_s.is_finite());
    Particulars { ttl_s, until, ..Particulars::default() }
}

fn text(id: Option<&Id>) -> Option<Box<str>> {
    id.map(|id| id.0.as_str().into())
}
