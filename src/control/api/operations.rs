//! What the API asks of the rest of the server: the service, or in tests something that notes what it was asked.

use std::future::Future;

use crate::control::queues::{Dead, QueueFacts};
use crate::shard::command::{ConnectionFacts, Members, Person, Stats, Who};
use crate::shard::record::Record;
use crate::shard::revocation::{Restoration, Revocation, TokenRevocation};

pub use crate::control::service::Failure;

/// What a call came to.
pub type Outcome<T> = Result<T, Failure>;

/// A part of a list, and where to go on.
pub type Page<T> = (Vec<T>, Option<String>);

/// Everything that the application can have done. Names and lengths have been checked by the API.
pub trait Operations: Clone + Send + Sync + 'static {
    /// Delivers an event; with `count` answers how many connections it was queued for. `data` is JSON.
    fn publish(
        &self,
        pipe: &str,
        event: &str,
        data: &str,
        sender: Option<&str>,
        count: bool,
    ) -> impl Future<Output = Outcome<Option<u64>>> + Send;
    /// Queues a `push` frame; answers for how many connections.
    fn push(&self, to: Who, event: &str, data: &str) -> impl Future<Output = Outcome<u64>> + Send;
    /// Revokes pipes; answers how many connections the user has.
    fn revoke(&self, revocation: Revocation) -> impl Future<Output = Outcome<u64>> + Send;
    /// Lifts revocations of pipes.
    fn restore(&self, restoration: Restoration) -> impl Future<Output = Outcome<u64>> + Send;
    /// Revokes tokens; answers how many connections were closed.
    fn revoke_tokens(&self, revocation: TokenRevocation) -> impl Future<Output = Outcome<u64>> + Send;
    /// Closes connections.
    fn disconnect(&self, who: Who, reconnect: bool) -> impl Future<Output = Outcome<u64>> + Send;
    /// Ends subscriptions.
    fn unsubscribe(&self, who: Who, pipe: &str) -> impl Future<Output = Outcome<u64>> + Send;
    /// Open connections after the one named, and where to go on.
    fn connections(
        &self,
        person: Option<Person>,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Outcome<Page<ConnectionFacts>>> + Send;
    /// Pipes with subscribers after the one named, and where to go on.
    fn pipes(&self, after: Option<&str>, limit: usize) -> impl Future<Output = Outcome<Page<(Box<str>, u64)>>> + Send;
    /// Who is subscribed to a pipe.
    fn members(&self, pipe: &str) -> impl Future<Output = Outcome<Members>> + Send;
    /// All queues, by name.
    fn queues(&self) -> Vec<QueueFacts>;
    /// Dead letters of a queue behind a place, and where to go on.
    fn dead(
        &self,
        queue: &str,
        after: Option<u64>,
        limit: usize,
    ) -> impl Future<Output = Outcome<(Vec<Dead>, Option<u64>)>> + Send;
    /// Has dead letters of a queue wait again: one, or all for which there is room; answers how many.
    fn retry(&self, queue: &str, id: Option<&str>) -> impl Future<Output = Outcome<u64>> + Send;
    /// The numbers of every worker.
    fn stats(&self) -> impl Future<Output = Outcome<Vec<Stats>>> + Send;
    /// The same and the control thread's own, as Prometheus text.
    fn metrics(&self) -> impl Future<Output = Outcome<String>> + Send;
    /// Puts something on record; never waits.
    fn record(&self, record: Record);
    /// Whether every worker accepts connections (G17).
    fn is_ready(&self) -> bool;
    /// Bytes that a connection's queue can hold.
    fn queue_bytes(&self) -> usize;
}

/// Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
