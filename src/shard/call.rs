//! What a shard asks of the application, or of the control thread for it, and what comes back.
//!
//! A call leaves as [`super::output::Output::Call`] and is answered once, by [`super::command::Act::Answered`] through
//! the mesh, or at once where the control thread's queue is full. The number is unique within the connection; an answer
//! to a connection that is gone, or to a number that nobody waits for any more, is dropped and counted.

use std::net::IpAddr;
use std::sync::Arc;

use super::command::Who;
use super::connection::Handle;
use crate::auth::decision::Decision;
use crate::auth::identity::Identity;
use crate::protocol::codes::Code;
use crate::rules::definition::Endpoint;

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The worker that asks.
    pub worker: usize,
    /// The connection for which.
    pub connection: Handle,
    /// Unique within the connection.
    pub number: u32,
    /// What.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// The authorize webhook (PROTOCOL §1), on connect or refresh.
    Authorize(Box<AuthorizeAsk>),
    /// A guard or a rule that is the application's: body of `encode::asks::rule`.
    Rule(HttpAsk),
    /// An action: body of `encode::asks::action`.
    Action(HttpAsk),
    /// Store a message of a queue.
    Enqueue(Box<EnqueueAsk>),
    /// Push to these connections, wherever they are.
    Push(Box<PushAsk>),
}

impl Ask {
    /// What comes of it where nobody has room for it.
    pub fn unheard(&self) -> Outcome {
        const FULL: &str = "too many calls are waiting already";
        match self {
            Ask::Authorize(_) => Outcome::Authorized(Err(NotAuthorized::Overloaded)),
            Ask::Rule(_) => Outcome::Ruled(Err(Unanswered::Failed(FULL.into()))),
            Ask::Action(_) => {
                let (code, message) = (Code::Unavailable.name().into(), Code::Unavailable.text().into());
                Outcome::Acted(Err(Refused { code, message, fault: None }))
            }
            Ask::Enqueue(_) => Outcome::Enqueued(Err(Code::Unavailable)),
            Ask::Push(_) => Outcome::Pushed(Err(Code::Unavailable)),
        }
    }
}

/// A POST to the application.
#[derive(Clone, Debug)]
pub struct HttpAsk {
    /// Where.
    pub endpoint: Arc<Endpoint>,
    /// The JSON body, whole.
    pub body: Box<str>,
}

impl PartialEq for HttpAsk {
    fn eq(&self, other: &HttpAsk) -> bool {
        Arc::ptr_eq(&self.endpoint, &other.endpoint) && self.body == other.body
    }
}

/// Who wants to be authorized.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizeAsk {
    /// The JSON body, whole (`encode::asks::authorize`).
    pub body: Box<str>,
    /// Address of the client: who waits in line is told apart by it.
    pub ip: IpAddr,
    /// When it was asked, Unix milliseconds: the issue time of what is answered (D10).
    pub asked_ms: u64,
}

/// A message for a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct EnqueueAsk {
    /// The queue; defined in the configuration that the shard went by.
    pub queue: Arc<str>,
    /// One JSON value.
    pub data: Box<str>,
    /// The sender as `user` of the calls: JSON (`encode::asks::user`).
    pub user: Box<str>,
    /// Unix milliseconds.
    pub enqueued_at_ms: u64,
}

/// A client's push.
#[derive(Clone, Debug, PartialEq)]
pub struct PushAsk {
    /// To whom.
    pub to: Who,
    /// The sender's tenant: nobody outside is reached (D14). None: those without a tenant.
    pub tenant: Option<Arc<str>>,
    /// The encoded frame.
    pub bytes: Arc<[u8]>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of [`Ask::Authorize`].
    Authorized(Result<Box<Decision>, NotAuthorized>),
    /// Of [`Ask::Rule`].
    Ruled(Result<Ruling, Unanswered>),
    /// Of [`Ask::Action`]: the result as JSON, or the code and sentence for the client.
    Acted(Result<Box<str>, Refused>),
    /// Of [`Ask::Enqueue`]: stored, or why not.
    Enqueued(Result<(), Code>),
    /// Of [`Ask::Push`]: deliveries.
    Pushed(Result<u64, Code>),
}

/// Why nobody was authorized (B13, B24, C24).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAuthorized {
    /// `null` or 401.
    Refused,
    /// 403.
    Forbidden,
    /// It answered, but not as it must: what was wrong with it, for the operator.
    Malformed(Box<str>),
    /// It cannot be reached, or answered 5xx: why, for the operator.
    Unavailable(Box<str>),
    /// It took too long, in the line or after it was asked.
    Late,
    /// The line is full.
    Overloaded,
}

/// What the application answered to a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Whether it allows.
    pub allow: bool,
    /// Names to be merged into `ctx`, as the text of a JSON object.
    pub context: Option<Box<str>>,
}

/// Why a rule has no answer: always a refusal, and a fault for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It took too long.
    Late,
    /// Anything else: why, for the operator; nothing that a client sent.
    Failed(Box<str>),
}

/// A refusal for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `[A-Z][A-Z0-9_]{0,63}`
    pub code: Box<str>,
    /// The sentence, at most 1,024 bytes.
    pub message: Box<str>,
    /// For the operator, where it was a fault of the application or of the way to it.
    pub fault: Option<Box<str>>,
}

/// Who asks, for the bodies of calls.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// None: anonymous.
    pub identity: Option<&'a Identity>,
    /// Public name of the connection.
    pub connection: &'a str,
    /// Address of the client.
    pub ip: IpAddr,
    /// Unique within the process: the name of the connection and the number of the call (INVARIANTS 31).
    pub delivery: &'a str,
}
