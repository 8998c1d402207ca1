//! What few connections need: calls under way, answers of the application, narrowed limits.
//!
//! One pointer in each connection; an idle connection that needs none of it pays eight bytes. Everything in here is
//! bounded: calls by `CALLS_IN_FLIGHT_MAX` and `HANDED_OVER_MAX`, answers by `ANSWERS_KEPT_MAX`, buckets by `ITEM_BUCKETS_MAX`, the rest by
//! the resolved pipes of the connection.

use std::collections::VecDeque;

use ahash::{AHashMap, AHashSet};

use super::connection::Until;
use super::pipes::PipeId;
use super::rate::Bucket;
use super::shared::Settings;
use super::throttle::Paces;
use crate::auth::decision::{Narrowed, Rights};
use crate::bounds::{ANSWERS_KEPT_MAX, CALLS_IN_FLIGHT_MAX, HANDED_OVER_MAX, ITEM_BUCKETS_MAX, REFRESHES_WAITING_MAX};
use crate::config::Rate;
use crate::rules::judge::{Answer, Surface};
use crate::shard::call::Ruling;
use crate::shard::rate::Pace;

/// See the module.
#[derive(Default)]
pub(super) struct Rare {
    /// Moves whenever something that decisions were made from changes: refresh, revoke, restore, reload.
    pub epoch: u32,
    /// The number of the last call.
    pub last_call: u32,
    /// Messages that wait for the application, and those behind them on the same pipes, in the order of their arrival.
    pub waiting: VecDeque<Waiting>,
    /// Rings in whose list of those that wait for room the connection stands, for messages in `waiting`; one bit each.
    pub stalled: u64,
    /// It stands in the worker's line of those whose subscriptions are decided again.
    pub recheck_due: bool,
    /// Calls whose outcome is the reply.
    pub flights: Vec<Flight>,
    /// Decisions that hold for one message: to be made again each time.
    pub fickle: AHashSet<(PipeId, Surface)>,
    /// Events with a publish rule of their own that may be published, one bit each.
    pub publishable: AHashMap<PipeId, u64>,
    /// Limits that are narrower than the configuration's.
    pub limits: Option<Box<OwnLimits>>,
    /// What the webhook is asked with at a refresh.
    pub origin: Option<Box<Origin>>,
    /// The refresh that the webhook is asked for.
    pub refreshing: Option<Refreshing>,
    /// The refresh that is in force, and is answered when all subscriptions are decided again.
    pub refreshed: Option<Refreshed>,
    answers: VecDeque<Remembered>,
    buckets: AHashMap<(Surface, Box<str>), Bucket>,
}

/// A message that is kept until the application has answered.
pub(super) struct Waiting {
    pub work: Work,
    /// Pipes and queues that it is about, as hashes in their order: what comes later about them waits behind it (INVARIANTS
    /// 7).
    pub items: Box<[u64]>,
    /// Calls that are not answered yet.
    pub calls: Vec<Asked>,
    /// What was answered.
    pub answers: Vec<(AskKey, Answer)>,
    /// Not asked, because too much is under way already (C37).
    pub unasked: Vec<AskKey>,
    /// The epoch in which it was asked.
    pub epoch: u32,
    /// How often it was asked from the start.
    pub attempts: u8,
    /// It may go on, but must wait for this.
    pub until: Option<Until>,
}

impl Waiting {
    /// Whether it is a subscription, which may wait for a call to be free.
    pub fn is_decided_again(&self) -> bool {
        matches!(self.work, Work::Subscription { .. })
    }
}

/// What waits.
pub(super) enum Work {
    /// A message of the client, already charged to its rates.
    Message(String),
    /// A subscription, to be decided again; it ends for this reason where it is not allowed any more.
    Subscription { pipe: Box<str>, reason: &'static str },
}

impl Work {
    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Work::Message(text) => text.capacity(),
            Work::Subscription { .. } => 0,
        }
    }
}

/// What was asked: whom, and about what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AskKey {
    /// Number of the endpoint in the configuration.
    pub endpoint: u32,
    pub surface: Surface,
    pub item: Box<str>,
}

/// A question that is under way.
pub(super) struct Asked {
    pub number: u32,
    pub key: AskKey,
    /// How long the answer holds, if that is stated.
    pub cache_s: Option<u32>,
}

/// A call whose outcome is the reply to a message.
pub(super) struct Flight {
    pub number: u32,
    /// The JSON token of the message's id.
    pub id: Option<Box<str>>,
    /// Whether it is the application's to answer.
    pub awaits_application: bool,
}

/// A refresh that the webhook was asked for.
pub(super) struct Refreshing {
    pub number: u32,
    pub id: Option<Box<str>>,
    /// When it was asked, Unix milliseconds.
    pub asked_ms: u64,
    /// It was asked again because of a revocation meanwhile.
    pub again: bool,
}

/// A refresh that was adopted.
pub(super) struct Refreshed {
    /// The JSON tokens of the ids that are to be answered; several where it was refreshed again meanwhile.
    pub ids: Vec<Box<str>>,
    /// How often it was.
    pub times: usize,
    /// The grants as the client knew them before.
    pub before: Vec<(Box<str>, Rights)>,
}

/// What the handshake brought that the webhook is asked with.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    pub headers: Box<[(Box<str>, Box<str>)]>,
    pub query: Box<[(Box<str>, Box<str>)]>,
}

/// Limits of one connection, never more than the configuration's.
#[derive(Clone, Debug)]
pub(super) struct OwnLimits {
    pub paces: Paces,
    /// Subscriptions.
    pub subscriptions: u32,
    narrowed: Box<Narrowed>,
}

impl OwnLimits {
    /// What the decision narrows, over what the settings allow.
    pub fn new(settings: &Settings, narrowed: Box<Narrowed>) -> Box<OwnLimits> {
        let limits = &settings.config.limits;
        let paces = Paces::new(&narrowed.rates(&limits.rates, limits.message_bytes));
        Box::new(OwnLimits { paces, subscriptions: narrowed.subscriptions(limits.subscriptions), narrowed })
    }

    /// The same over other settings.
    pub fn again(self, settings: &Settings) -> Box<OwnLimits> {
        OwnLimits::new(settings, self.narrowed)
    }
}

struct Remembered {
    key: AskKey,
    ruling: Ruling,
    /// On the monotonic clock, nanoseconds.
    until_ns: u64,
}

impl Rare {
    /// A number for one more call.
    pub fn next_call(&mut self) -> u32 {
        self.last_call = self.last_call.wrapping_add(1);
        self.last_call
    }

    /// How many calls may still be begun (C37).
    pub fn free_calls(&self) -> usize {
        let asked: usize = self.waiting.iter().map(|one| one.calls.len()).sum();
        let acting = self.flights.iter().filter(|one| one.awaits_application).count();
        CALLS_IN_FLIGHT_MAX.saturating_sub(asked + acting)
    }

    /// Messages of the client that wait.
    pub fn messages_waiting(&self) -> usize {
        self.waiting.iter().filter(|one| !one.is_decided_again()).count()
    }

    /// Whether subscriptions are still to be decided again.
    pub fn is_in_doubt(&self) -> bool {
        self.waiting.iter().any(Waiting::is_decided_again)
    }

    /// Whether one more refresh has to wait.
    pub fn is_refreshing(&self) -> bool {
        self.refreshing.is_some() || self.refreshed.as_ref().is_some_and(|one| one.times >= REFRESHES_WAITING_MAX)
    }

    /// Whether one more message may be handed to the queues, or to others.
    pub fn may_hand_over(&self) -> bool {
        self.flights.iter().filter(|one| !one.awaits_application).count() < HANDED_OVER_MAX
    }

    /// The answer that is remembered, if it still holds.
    pub fn answer(&self, key: &AskKey, now_ns: u64) -> Option<&Ruling> {
        self.answers.iter().find(|one| one.key == *key && one.until_ns > now_ns).map(|one| &one.ruling)
    }

    /// Remembers an answer for so long.
    pub fn remember(&mut self, key: AskKey, ruling: Ruling, until_ns: u64) {
        self.answers.retain(|one| one.key != key);
        if self.answers.len() >= ANSWERS_KEPT_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(Remembered { key, ruling, until_ns });
    }

    /// What was decided is void: identity or rules have changed.
    pub fn forget_decisions(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.answers.clear();
        self.fickle.clear();
        self.publishable.clear();
    }

    /// The connection holds this pipe no more; its number may be another's soon.
    pub fn forget_pipe(&mut self, pipe: PipeId) {
        for surface in [Surface::Subscribe, Surface::Publish, Surface::Presence] {
            self.fickle.remove(&(pipe, surface));
        }
        self.publishable.remove(&pipe);
    }

    /// Takes one unit of an item's own rate, or says how long to wait, in nanoseconds. With `ITEM_BUCKETS_MAX` rates in
    /// use at once one more is refused for a second.
    pub fn take(&mut self, surface: Surface, item: &str, rate: Rate, now_ns: u64) -> Result<(), u64> {
        let pace = Pace::new(rate);
        let key = (surface, item.into());
        if !self.buckets.contains_key(&key) && self.buckets.len() >= ITEM_BUCKETS_MAX {
            self.buckets.retain(|_, bucket| bucket.owes(now_ns));
            if self.buckets.len() >= ITEM_BUCKETS_MAX {
                return Err(1_000_000_000);
            }
        }
        let bucket = self.buckets.entry(key).or_default();
        match bucket.wait_ns(pace, now_ns, 1) {
            0 => {
                bucket.take(pace, now_ns, 1);
                Ok(())
            }
            wait_ns => Err(wait_ns),
        }
    }

    /// Bytes of messages that wait.
    pub fn bytes(&self) -> usize {
        self.waiting.iter().map(|one| one.work.bytes()).sum()
    }
}
