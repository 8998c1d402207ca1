//! Calls to the application: who may connect, rules that are its own, actions, and what lies in queues (PROTOCOL.md §5).
//!
//! Invariant: every call that was taken comes to an outcome within its time limit, which begins when it is taken and
//! includes waiting in line; every failure is counted. Nothing of a call is remembered, and two calls are never merged:
//! what is answered to one is about nobody else. Authorize has its time limit twice, once in line and once when it is
//! asked (B24): with one for both, a long line would have everybody asked about with no time left for the answer, and the
//! application would work for people who are refused meanwhile.
//!
//! Upgrades and everything else have a gate each, so that a storm of upgrades keeps no action waiting. Upgrades are told
//! apart by the address of the client, the others by the endpoint that they go to; see [`gate`] for what that means.
//! Messages of queues pass no gate: there is one under way for each queue.
//!
//! Reading order: here, then `gate`, `post`, `signature`, `counts`.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub mod counts;
pub mod gate;
pub mod post;
pub mod signature;

use counts::{Called, Counts, Fault};
use gate::{Gate, Share, Turned};
use post::{Failed, Poster, Reply, Sending};

use super::service::Service;
use crate::auth::answer;
use crate::auth::decision::Decision;
use crate::protocol::codes::Code;
use crate::rules::definition::Endpoint;
use crate::shard::call::{AuthorizeAsk, HttpAsk, NotAuthorized, Refused, Ruling, Unanswered};
use crate::shard::shared::Shared;

/// Upgrades that wait for authorize. More: 503 for the last one of the address that has most of them waiting.
pub const AUTHORIZE_WAITING_MAX: usize = 4_096;
/// Calls of rules and actions at one time, whatever they go to; one endpoint alone gets half of them.
pub const CALLS_MAX: usize = 256;
/// Calls of rules and actions that wait. More: `UNAVAILABLE`.
pub const CALLS_WAITING_MAX: usize = 4_096;

/// The application, from this side. Cheap to clone. To be used on the control thread's runtime.
#[derive(Clone)]
pub struct Application {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    poster: Poster,
    upgrades: Gate<IpAddr>,
    others: Gate<Box<str>>,
    counts: Counts,
}

impl Application {
    /// # Errors
    /// A sentence for the operator: calls that the settings in force need are not possible on this machine.
    pub fn new(shared: Arc<Shared>) -> Result<Application, String> {
        let upgrades = Gate::new(0, AUTHORIZE_WAITING_MAX, Share::Turns);
        let others = Gate::new(CALLS_MAX, CALLS_WAITING_MAX, Share::Room);
        let inner = Inner { shared, poster: Poster::new()?, upgrades, others, counts: Counts::default() };
        let application = Application { inner: Arc::new(inner) };
        application.take_up();
        if let Some(webhook) = &application.inner.shared.settings().config.auth.webhook {
            application.inner.poster.check(&webhook.endpoint).map_err(|why| format!("auth.webhook.url: {why}"))?;
        }
        Ok(application)
    }

    /// Takes up the settings in force, after they were replaced.
    pub fn take_up(&self) {
        let settings = self.inner.shared.settings();
        if let Some(webhook) = &settings.config.auth.webhook {
            self.inner.upgrades.resize(webhook.concurrency as usize);
        }
    }

    /// Asks who may connect, or who a connection is now.
    ///
    /// # Errors
    /// [`NotAuthorized`]
    pub async fn authorize(&self, ask: AuthorizeAsk) -> Result<Box<Decision>, NotAuthorized> {
        self.inner.counts.asked(Called::Authorize);
        let webhook = self.inner.shared.settings().config.auth.webhook.as_ref().map(|webhook| webhook.endpoint.clone());
        let Some(endpoint) = webhook else {
            return Err(NotAuthorized::Unavailable("auth.webhook was taken out of the configuration".into()));
        };
        let reply = match self.inner.upgrades.enter(network(ask.ip), deadline(&endpoint)).await {
            Ok(_pass) => self.post(Called::Authorize, &endpoint, ask.body.into(), deadline(&endpoint)).await,
            Err(turned) => Err(self.turned(Called::Authorize, turned)),
        };
        let outcome = authorized(reply, ask.asked_ms);
        if matches!(outcome, Err(NotAuthorized::Malformed(_))) {
            self.inner.counts.failed(Called::Authorize, Fault::Malformed);
        }
        outcome
    }

    /// Asks a guard or a rule.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub async fn rule(&self, ask: HttpAsk) -> Result<Ruling, Unanswered> {
        let outcome = match self.other(Called::Rule, ask).await {
            Ok(Reply { status: 200, body }) => {
                std::str::from_utf8(&body).map_err(|_| "its answer is not UTF-8".to_owned()).and_then(answer::ruling)
            }
            Ok(Reply { status: status @ 500.., .. }) => return Err(Unanswered::Failed(only_200(status).into())),
            Ok(Reply { status, .. }) => Err(only_200(status)),
            Err(NoReply::Late) => return Err(Unanswered::Late),
            Err(NoReply::Full) => return Err(Unanswered::Failed(FULL.into())),
            Err(NoReply::Unreachable(why)) => return Err(Unanswered::Failed(why.into())),
            Err(NoReply::TooLong) => Err(TOO_LONG.to_owned()),
        };
        outcome.map_err(|why| {
            self.inner.counts.failed(Called::Rule, Fault::Malformed);
            Unanswered::Failed(why.into())
        })
    }

    /// Has an action done. The result is JSON as it came.
    ///
    /// # Errors
    /// [`Refused`]: by the application (F14), or for want of an answer. A fault says which action, by its place in the
    /// file.
    pub async fn act(&self, ask: HttpAsk) -> Result<Box<str>, Refused> {
        let endpoint = ask.endpoint.clone();
        let outcome = self.perform(ask).await;
        outcome.map_err(|refused| {
            let fault = refused.fault.map(|fault| format!("{}: {fault}", endpoint.place).into());
            Refused { fault, ..refused }
        })
    }

    async fn perform(&self, ask: HttpAsk) -> Result<Box<str>, Refused> {
        match self.other(Called::Action, ask).await {
            Ok(reply) => {
                let outcome = answer::action(reply.status, &reply.body);
                if reply.status < 500 && outcome.as_ref().is_err_and(|refused| refused.fault.is_some()) {
                    self.inner.counts.failed(Called::Action, Fault::Malformed);
                }
                outcome
            }
            Err(NoReply::Late) => Err(refused(Code::Timeout, "it did not answer in time".to_owned())),
            Err(NoReply::Full) => Err(refused(Code::Unavailable, FULL.to_owned())),
            Err(NoReply::Unreachable(why)) => Err(refused(Code::Unavailable, why)),
            Err(NoReply::TooLong) => {
                self.inner.counts.failed(Called::Action, Fault::Malformed);
                Err(refused(Code::Internal, TOO_LONG.to_owned()))
            }
        }
    }

    /// Hands over a message of a queue. Returns the status of the answer.
    ///
    /// # Errors
    /// A sentence for the operator: there is none.
    pub async fn deliver(&self, endpoint: &Endpoint, body: String) -> Result<u16, String> {
        self.inner.counts.asked(Called::Queue);
        let until = deadline(endpoint);
        match self.post(Called::Queue, endpoint, body, until).await {
            Ok(reply) => Ok(reply.status),
            Err(NoReply::Late) => Err(format!("it did not answer within {} ms", endpoint.timeout_ms)),
            Err(NoReply::Unreachable(why)) => Err(why),
            // The status of an answer that is too long is not known any more: it is not taken for a good one.
            Err(NoReply::TooLong | NoReply::Full) => Err(TOO_LONG.to_owned()),
        }
    }

    /// What the calls came to.
    pub fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// Upgrades that wait for authorize; and rules and actions that wait, together.
    pub fn waiting(&self) -> (usize, usize) {
        (self.inner.upgrades.waiting(), self.inner.others.waiting())
    }

    async fn other(&self, called: Called, ask: HttpAsk) -> Result<Reply, NoReply> {
        self.inner.counts.asked(called);
        let HttpAsk { endpoint, body } = ask;
        let until = deadline(&endpoint);
        match self.inner.others.enter(endpoint.url.clone(), until).await {
            Ok(_pass) => self.post(called, &endpoint, body.into(), until).await,
            Err(turned) => Err(self.turned(called, turned)),
        }
    }

    async fn post(&self, called: Called, endpoint: &Endpoint, body: String, until: Instant) -> Result<Reply, NoReply> {
        let counts = &self.inner.counts;
        let _under_way = counts.begin(called);
        let sending = match called {
            // A message of a queue is delivered at least once, each time with the same id.
            Called::Authorize | Called::Rule | Called::Queue => Sending::Repeatable,
            Called::Action => Sending::Single,
        };
        match self.inner.poster.post(endpoint, body, Service::now_ms() / 1000, until, sending).await {
            Ok(reply) => {
                if reply.status >= 500 {
                    counts.failed(called, Fault::Unavailable);
                }
                Ok(reply)
            }
            Err(Failed::Late) => {
                counts.failed(called, Fault::Late);
                Err(NoReply::Late)
            }
            Err(Failed::Unreachable(why)) => {
                counts.failed(called, Fault::Unavailable);
                Err(NoReply::Unreachable(why))
            }
            Err(Failed::TooLong) => Err(NoReply::TooLong),
        }
    }

    fn turned(&self, called: Called, turned: Turned) -> NoReply {
        let (fault, reply) = match turned {
            Turned::Full => (Fault::Overloaded, NoReply::Full),
            Turned::Late => (Fault::Late, NoReply::Late),
        };
        self.inner.counts.failed(called, fault);
        reply
    }
}

/// Why there is no reply. All but the last one, and answers of 5xx, are counted already.
enum NoReply {
    Late,
    Full,
    Unreachable(String),
    TooLong,
}

const FULL: &str = "too many calls wait for an answer";
const TOO_LONG: &str = "its answer is longer than 1 MiB";

fn deadline(endpoint: &Endpoint) -> Instant {
    Instant::now() + Duration::from_millis(endpoint.timeout_ms.into())
}

fn only_200(status: u16) -> String {
    format!("it answered with status {status}, and only 200 is an answer")
}

/// Whom an address counts for: for IPv6 its /64 (B28).
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
}

/// What authorize answered (B13, B14, B15).
fn authorized(reply: Result<Reply, NoReply>, asked_ms: u64) -> Result<Box<Decision>, NotAuthorized> {
    let malformed = |why: String| NotAuthorized::Malformed(why.into());
    match reply {
        Ok(Reply { status: 200, body }) => {
            let body = std::str::from_utf8(&body).map_err(|_| malformed("its answer is not UTF-8".to_owned()))?;
            match answer::authorize(body, asked_ms) {
                Ok(Some(decision)) => Ok(Box::new(decision)),
                Ok(None) => Err(NotAuthorized::Refused),
                Err(why) => Err(malformed(why.to_string())),
            }
        }
        Ok(Reply { status: 401, .. }) => Err(NotAuthorized::Refused),
        Ok(Reply { status: 403, .. }) => Err(NotAuthorized::Forbidden),
        Ok(Reply { status: status @ 500.., .. }) => Err(NotAuthorized::Unavailable(only_200(status).into())),
        Ok(Reply { status, .. }) => Err(malformed(only_200(status))),
        Err(NoReply::Late) => Err(NotAuthorized::Late),
        Err(NoReply::Full) => Err(NotAuthorized::Overloaded),
        Err(NoReply::Unreachable(why)) => Err(NotAuthorized::Unavailable(why.into())),
        Err(NoReply::TooLong) => Err(malformed(TOO_LONG.to_owned())),
    }
}

fn refused(code: Code, fault: String) -> Refused {
    Refused { code: code.name().into(), message: code.text().into(), fault: Some(fault.into()) }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
