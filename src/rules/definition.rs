//! What the configuration says about pipes, events, actions, queues and pushes, compiled.
//!
//! Invariant: every expression here was compiled and type-checked, every schema compiled, every `module` exists, and no
//! event, action or queue is defined twice. Built by `config` alone; shared by all workers, never written.

use std::fmt;
use std::sync::Arc;

use super::expression::{Expression, Filter};
use super::reference::References;
use super::schema::Schema;
use crate::config::Rate;
use crate::protocol::names::{Match, Template};

/// Where something was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// Line from 1; 0 where there is none.
    pub line: u32,
    /// The full key, as in `pipe."chat".subscribe`.
    pub key: Box<str>,
}

/// `file:line: key`
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file, self.line, self.key)
    }
}

/// Everything that is ruled.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `[[guard]]`, in order: before everything.
    pub guards: Vec<Guard>,
    /// `[module.…]`.
    pub modules: Vec<Module>,
    /// `[pipe."…"]` in the order of the file: the first that matches a name decides (F20).
    pub pipes: Vec<PipeRules>,
    /// `[action.…]`, sorted by name.
    pub actions: Vec<ActionRules>,
    /// `[queue.…]`, sorted by name.
    pub queues: Vec<QueueRules>,
    /// `[push]`.
    pub push: PushRules,
}

/// Who decides.
#[derive(Clone, Debug, Default)]
pub enum Right {
    /// `false`.
    #[default]
    Never,
    /// `true`.
    Always,
    /// A CEL expression.
    When(Box<Rule>),
    /// `{ url = … }`: the application (A11).
    Ask(Arc<Endpoint>),
}

/// An expression with its place in the configuration.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What is asked.
    pub expression: Expression,
    /// Where it stands.
    pub place: Place,
}

/// Something of the application that can be called.
#[derive(Clone)]
pub struct Endpoint {
    /// Unique among the endpoints of one configuration; the answers of a rule are remembered under it.
    pub number: u32,
    /// `http://…` or `https://…`
    pub url: Box<str>,
    /// Until it must have answered, 1–60,000 ms.
    pub timeout_ms: u32,
    /// Signs the call; the item's own, else that of `[auth.webhook]` (A12).
    pub secret: Option<Arc<[u8]>>,
    /// For how long an answer of a rule holds for the connection and the pipe, in seconds. None: on subscribe and presence
    /// until refresh or reload, elsewhere for the one message.
    pub cache_s: Option<u32>,
    /// Where it stands.
    pub place: Place,
}

/// Without the secret: a configuration may end in a log.
impl fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Endpoint({} {} ms)", self.url, self.timeout_ms)
    }
}

/// One rule that stands before others.
#[derive(Clone, Debug)]
pub struct Guard {
    /// For calls to the application and for `explain`.
    pub name: Option<Box<str>>,
    /// Evaluated before `set` (F11).
    pub require: Option<Rule>,
    /// Names of `ctx` and what they become, in order. A value that cannot be computed refuses.
    pub set: Vec<(Box<str>, Rule)>,
    /// Instead of both: the application.
    pub ask: Option<Arc<Endpoint>>,
    /// Reply code of a refusal: `[A-Z][A-Z0-9_]{0,63}`; default `FORBIDDEN`.
    pub code: Box<str>,
    /// Sentence of a refusal; default `Access denied`.
    pub message: Box<str>,
    /// Where it stands.
    pub place: Place,
}

/// A named group of pipes, actions and queues.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name.
    pub name: Box<str>,
    /// Before the guards of its items.
    pub guards: Vec<Guard>,
    /// Silences the lint for its items.
    pub public: bool,
    /// Where it stands.
    pub place: Place,
}

/// One `[pipe."…"]`.
#[derive(Clone, Debug)]
pub struct PipeRules {
    /// The name, compiled.
    pub name: Template,
    /// Index into [`Rules::modules`].
    pub module: Option<usize>,
    /// Its own guards.
    pub guards: Vec<Guard>,
    /// What it is bound to.
    pub scope: Scope,
    /// May receive.
    pub subscribe: Right,
    /// May send.
    pub publish: Right,
    /// May see who is there.
    pub presence: Right,
    /// Meant to be open: silences the lint and grants nothing (A7).
    pub public: bool,
    /// Publishes of one connection to one pipe of this definition; refused at once, without throttling.
    pub rate: Option<Rate>,
    /// At most 63, in the order of the file; their place is their bit in a mask. None defined: event names are open (A13).
    pub events: Vec<EventRules>,
    /// Where it stands.
    pub place: Place,
}

/// What a pipe is bound to (GD-5). Nothing overrides a mismatch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The capture that must equal the connection's tenant.
    pub tenant: Option<Box<str>>,
    /// The capture that must equal the connection's organisation.
    pub org: Option<Box<str>>,
    /// The feature that must be enabled for the connection.
    pub feature: Option<Box<str>>,
}

/// One `[pipe."…".event.…]`.
#[derive(Clone, Debug)]
pub struct EventRules {
    /// Its name.
    pub name: Box<str>,
    /// Narrows who is sent it; never `Ask`. None: whoever is subscribed.
    pub subscribe: Option<Right>,
    /// Stands in for the pipe's right to publish; never `Ask`. None: the pipe's right.
    pub publish: Option<Right>,
    /// What it may hold.
    pub payload: Payload,
    /// Decides for each subscriber whether it is delivered.
    pub filter: Option<Box<FilterRule>>,
    /// Where it stands.
    pub place: Place,
}

/// A filter with its place in the configuration.
#[derive(Clone, Debug)]
pub struct FilterRule {
    /// What is asked.
    pub filter: Filter,
    /// Where it stands.
    pub place: Place,
}

/// What the data of an event, an action or a queue may be.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// At most so many bytes of `data` as they came (F17).
    pub max_bytes: Option<u32>,
    /// Parts that must carry the publisher's own tenant or organisation.
    pub references: References,
    /// JSON Schema.
    pub schema: Option<Arc<Schema>>,
}

/// One `[action.…]`.
#[derive(Clone, Debug)]
pub struct ActionRules {
    /// Its name.
    pub name: Box<str>,
    /// Index into [`Rules::modules`].
    pub module: Option<usize>,
    /// Its own guards.
    pub guards: Vec<Guard>,
    /// Who may call it.
    pub allow: Right,
    /// Silences the lint.
    pub public: bool,
    /// What its `args` may be. A mismatch is `INVALID` (A5).
    pub payload: Payload,
    /// Of one connection (F13).
    pub rate: Option<Rate>,
    /// Who performs it.
    pub endpoint: Arc<Endpoint>,
    /// Where it stands.
    pub place: Place,
}

/// One `[queue.…]`.
#[derive(Clone, Debug)]
pub struct QueueRules {
    /// Its name.
    pub name: Arc<str>,
    /// Index into [`Rules::modules`].
    pub module: Option<usize>,
    /// Its own guards.
    pub guards: Vec<Guard>,
    /// Who may enqueue.
    pub publish: Right,
    /// Silences the lint.
    pub public: bool,
    /// What a message may be.
    pub payload: Payload,
    /// Who takes the messages. Its `timeout_ms` is 5,000 unless given (F16).
    pub endpoint: Arc<Endpoint>,
    /// Messages that may wait; more are refused `UNAVAILABLE`. Default 100,000.
    pub max_pending: u32,
    /// Bytes of data that may wait; more are refused `UNAVAILABLE`. Default 256 MiB.
    pub max_pending_bytes: u64,
    /// Older messages move to the dead letters, seconds. Default 7 days.
    pub max_age_s: u32,
    /// Where it stands.
    pub place: Place,
}

/// `[push]`: pushes that clients begin (SR-13).
#[derive(Clone, Debug, Default)]
pub struct PushRules {
    /// Its own guards.
    pub guards: Vec<Guard>,
    /// Who may push to whom; never `Ask`.
    pub allow: Right,
    /// Silences the lint.
    pub public: bool,
    /// Where it stands.
    pub place: Place,
}

impl Rules {
    /// The first definition that matches a name, with its number.
    pub fn pipe<'r>(&'r self, name: &'r str) -> Option<(usize, &'r PipeRules, Match<'r>)> {
        let matching = |(number, one): (usize, &'r PipeRules)| one.name.matches(name).map(|own| (number, one, own));
        self.pipes.iter().enumerate().find_map(matching)
    }

    /// The action of this name.
    pub fn action(&self, name: &str) -> Option<&ActionRules> {
        let found = self.actions.binary_search_by(|one| (*one.name).cmp(name)).ok()?;
        self.actions.get(found)
    }

    /// The queue of this name.
    pub fn queue(&self, name: &str) -> Option<&QueueRules> {
        let found = self.queues.binary_search_by(|one| (*one.name).cmp(name)).ok()?;
        self.queues.get(found)
    }

    /// The guards that stand before an item: global, its module's, its own.
    pub fn guards<'r>(&'r self, module: Option<usize>, own: &'r [Guard]) -> impl Iterator<Item = &'r Guard> {
        let of_module = module.and_then(|module| self.modules.get(module)).map_or(&[][..], |module| &module.guards);
        self.guards.iter().chain(of_module).chain(own)
    }
}

impl Rules {
    /// Whether anything is the application's to decide.
    pub fn asks(&self) -> bool {
        let guards = |guards: &[Guard]| guards.iter().any(|guard| guard.ask.is_some());
        let right = |right: &Right| matches!(right, Right::Ask(_));
        guards(&self.guards)
            || guards(&self.push.guards)
            || self.modules.iter().any(|one| guards(&one.guards))
            || self
                .pipes
                .iter()
                .any(|one| guards(&one.guards) || right(&one.subscribe) || right(&one.publish) || right(&one.presence))
            || self.actions.iter().any(|one| guards(&one.guards) || right(&one.allow))
            || self.queues.iter().any(|one| guards(&one.guards) || right(&one.publish))
    }
}

impl From<bool> for Right {
    fn from(allowed: bool) -> Right {
        if allowed { Right::Always } else { Right::Never }
    }
}

impl PipeRules {
    /// A definition that allows nothing.
    pub fn new(name: Template) -> PipeRules {
        PipeRules {
            name,
            module: None,
            guards: Vec::new(),
            scope: Scope::default(),
            subscribe: Right::Never,
            publish: Right::Never,
            presence: Right::Never,
            public: false,
            rate: None,
            events: Vec::new(),
            place: Place::default(),
        }
    }

    /// Whether the application may be asked before somebody subscribes.
    pub fn asks_to_subscribe(&self, rules: &Rules) -> bool {
        let asks = |guard: &Guard| guard.ask.is_some();
        matches!(self.subscribe, Right::Ask(_)) || rules.guards(self.module, &self.guards).any(asks)
    }

    /// The number of an event that is defined here.
    pub fn event(&self, name: &str) -> Option<usize> {
        self.events.iter().position(|one| *one.name == *name)
    }
}

impl Payload {
    /// Whether nothing is asked of the data.
    pub fn is_open(&self) -> bool {
        self.max_bytes.is_none() && self.references.is_empty() && self.schema.is_none()
    }
}
