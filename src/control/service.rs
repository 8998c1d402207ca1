//! What the application can ask for, whatever it asks by.
//!
//! Invariant (INVARIANTS 6): a revocation is stored durably, then in the shared table, then known to every worker, and
//! only then answered; a restoration likewise. Where the store fails it is in force all the same, and the answer says
//! that it will not outlive the process. What concerns one user, token or session happens one after the other, ends of
//! time limits included, so that store, table and workers agree on what came last. What was begun is finished, also
//! where the caller hangs up in the middle.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ahash::RandomState;
use tokio::sync::{Mutex, Semaphore, TryAcquireError};
use tokio::time::{sleep, timeout};

use super::application::Application;
use super::audit::Audit;
use super::expiry::Endings;
use super::link::{Late, Link};
use super::queues::{Dead, NotRevived, QueueFacts, Queues};
use super::store::{Change, Store, StoreError};
use super::validation::Validation;
use crate::bounds::{REVOCATIONS_MAX, REVOCATIONS_PER_USER_MAX};
use crate::protocol::codes::Code;
use crate::protocol::encode::{self, Sender};
use crate::shard::command::{Act, Answer, ConnectionFacts, Member, Members, Person, Stats, Who, Within};
use crate::shard::record::Record;
use crate::shard::revocation::{Entry, Restoration, Revocation, Revocations, Taken, TokenRevocation, Tokens};
use crate::shard::shared::Shared;

/// Calls at work at one time. More: [`Failure::Overloaded`].
const CALLS_MAX: usize = 1024;
/// Users are spread over so many lines in which their changes stand.
const LINES: usize = 256;
/// The longest that a revocation of tokens waits for its cut-off to pass (D9).
const CUT_OFF_WAIT_S: i64 = 2;
/// The longest that a restore waits for what was accepted before it to be delivered.
const SETTLE_WAIT: Duration = Duration::from_secs(5);

/// Why a call failed. What is in force all the same is said by the variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// In force on every worker, but not stored: it is gone after a restart. The sentence is for the operator. 500.
    NotDurable(String),
    /// More than may be in force. Nothing was done. The sentence may be told to the caller. 429.
    TooMany(String),
    /// Too many calls are at work, and nothing was done; or a worker has not answered for 10 s, and will do it late. 503.
    Overloaded,
    /// The server has stopped serving calls. Nothing was done. 503.
    Draining,
    /// What was given is not as it must be, or not there. Nothing was done. The sentence may be told to the caller.
    Refused(Code, String),
}

impl From<Late> for Failure {
    fn from(_: Late) -> Failure {
        Failure::Overloaded
    }
}

/// The calls. Cheap to clone. Its functions must be called on the control thread's runtime.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    link: Link,
    store: Store,
    audit: Audit,
    endings: Endings,
    application: Application,
    queues: Queues,
    validation: Validation,
    calls: Arc<Semaphore>,
    lines: Box<[Mutex<()>]>,
    hasher: RandomState,
    started_ms: u64,
}

impl Service {
    /// Over what it needs. `endings` knows the time limits of what is in the table already.
    pub fn new(
        shared: Arc<Shared>,
        link: Link,
        store: Store,
        audit: Audit,
        endings: Endings,
        application: Application,
        queues: Queues,
    ) -> Service {
        let hasher = shared.hasher(0x4c49_4e45);
        Service {
            inner: Arc::new(Inner {
                shared,
                link,
                store,
                audit,
                endings,
                application,
                queues,
                validation: Validation::default(),
                calls: Arc::new(Semaphore::new(CALLS_MAX)),
                lines: (0..LINES).map(|_| Mutex::new(())).collect(),
                hasher,
                started_ms: Service::now_ms(),
            }),
        }
    }

    /// What the process shares: settings, readiness, the table of revocations.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The audit.
    pub fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    /// When it was made, which is when the process started, Unix milliseconds.
    pub fn started_ms(&self) -> u64 {
        self.inner.started_ms
    }

    /// Hands a record to the audit. Never blocks.
    pub fn record(&self, record: Record) {
        self.inner.audit.record(record);
    }

    /// Unix milliseconds.
    pub fn now_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The cut-off of a revocation of tokens that names none: the current second is included (D9). Unix seconds.
    pub fn cut_off_now() -> i64 {
        i64::try_from(Service::now_ms() / 1000).unwrap_or(i64::MAX - 1) + 1
    }

    /// Whether `text` can have come from a `next` of [`connections`](Self::connections).
    pub fn is_connection_cursor(text: &str) -> bool {
        cursor(text).is_some()
    }

    /// Sends an event to everybody who is subscribed; `sender` None is the application. `data` is JSON and travels
    /// verbatim. Answers once every worker with subscribers has it in its ring; with `count`, once they have delivered
    /// it, with the number of connections whose queue took it.
    ///
    /// # Errors
    /// [`Failure::Refused`] where the event is not as the rules want it; [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn publish(
        &self,
        pipe: &str,
        event: &str,
        data: &str,
        sender: Option<&str>,
        count: bool,
    ) -> Result<Option<u64>, Failure> {
        let from = match sender {
            None => Sender::Application,
            Some("") => Sender::Anonymous,
            Some(user) => Sender::User(user),
        };
        let rules = self.inner.shared.settings().config.rules.clone();
        self.inner.validation.check(&rules, pipe, event, data)?;
        // A pipe that nobody knows has no subscriber, and sending to it creates nothing (INVARIANTS 21).
        let Some(known) = self.inner.shared.registry.find(pipe) else { return Ok(count.then_some(0)) };
        let bytes: Arc<[u8]> = encode::event_frame(pipe, event, data, from, Service::now_ms()).into();
        self.run(move |inner| async move {
            if count {
                return Ok(Some(inner.link.publish_counted(&known, &bytes).await?));
            }
            inner.link.publish(&known, &bytes).await;
            Ok(None)
        })
        .await
    }

    /// Sends a `push` to these connections, from the application. Returns how many queues took it.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn push(&self, to: Who, event: &str, data: &str) -> Result<u64, Failure> {
        let bytes = encode::push_frame(event, data, Sender::Application, Service::now_ms()).into();
        self.push_frame(to, Within::Anywhere, bytes).await
    }

    /// The same with a frame that is encoded already.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn push_frame(&self, to: Who, within: Within, bytes: Arc<[u8]>) -> Result<u64, Failure> {
        self.count(Act::Push { to, within, bytes }).await
    }

    /// Takes pipes from a user. Returns the number of the user's connections (D2).
    ///
    /// # Errors
    /// All of [`Failure`].
    pub async fn revoke(&self, revocation: Revocation) -> Result<u64, Failure> {
        self.run(move |inner| async move {
            let entry = Arc::new(revocation);
            let _turn = inner.turn(&entry.person.user).await;
            inner.check_room(&Entry::Pipes(entry.clone()))?;
            let stored = inner.store.write(Change::Put(Entry::Pipes(entry.clone()))).await;
            inner.table().touch(&entry.person, Self::now_ms());
            inner.table().insert(entry.clone());
            inner.endings.add(Entry::Pipes(entry.clone()), inner.table());
            let connections = inner.link.count_all(&Act::Revoke(entry)).await?;
            durable(stored).map(|()| connections)
        })
        .await
    }

    /// Gives back what was taken: exactly the entry of this text, or all of the user (D6). Returns the number of the
    /// user's connections.
    ///
    /// # Errors
    /// All of [`Failure`].
    pub async fn restore(&self, restoration: Restoration) -> Result<u64, Failure> {
        self.run(move |inner| async move {
            let _turn = inner.turn(&restoration.person.user).await;
            // Without a tenant it means that user id in every tenant (D14): also what was revoked in a named one.
            let named = inner.table().in_named_tenants(&restoration);
            let settled = inner.settle().await;
            let (mut outcome, mut late) = (Ok(0), settled.is_err());
            for one in named.into_iter().chain([restoration]) {
                let lifted = inner.restore(one, late).await;
                late |= lifted == Err(Failure::Overloaded);
                // What went wrong with one is no reason to leave another in force; the first of it is told.
                outcome = outcome.and(lifted);
            }
            outcome.and_then(|connections| settled.map(|()| connections))
        })
        .await
    }

    /// Revokes tokens, and closes (4402) the connections that live by them. Returns how many. Where the cut-off lies at
    /// most two seconds ahead, as the default one does, it answers only when that second has come, so that a token
    /// minted after the answer is good (D9).
    ///
    /// # Errors
    /// All of [`Failure`].
    pub async fn revoke_tokens(&self, revocation: TokenRevocation) -> Result<u64, Failure> {
        self.run(move |inner| async move {
            let cut_off_s = match &revocation.tokens {
                Tokens::IssuedBefore { issued_before_s, .. } => Some(*issued_before_s),
                Tokens::Token(_) | Tokens::Session(_) => None,
            };
            let outcome = inner.revoke_tokens(revocation).await;
            if let Some(cut_off_s) = cut_off_s {
                pass(cut_off_s).await;
            }
            outcome
        })
        .await
    }

    /// Closes these connections: 4403, or with `reconnect` 4503. Returns how many.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn disconnect(&self, who: Who, reconnect: bool) -> Result<u64, Failure> {
        self.count(Act::Disconnect { who, reconnect }).await
    }

    /// Ends these connections' subscription to a pipe; the grant stays (E9). Returns how many were subscribed.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn unsubscribe(&self, who: Who, pipe: &str) -> Result<u64, Failure> {
        self.count(Act::Unsubscribe { who, pipe: pipe.into() }).await
    }

    /// Open connections, worker by worker, those behind the one called `after` (its name is the place, whether it still
    /// lives or not): at most `limit`, and the name to go on from where there are more.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn connections(
        &self,
        person: Option<Person>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<ConnectionFacts>, Option<String>), Failure> {
        let (first, mut after_slot) = match after.map(cursor) {
            None => (0, None),
            Some(Some((worker, slot))) => (worker, Some(slot)),
            Some(None) => return Ok((Vec::new(), None)),
        };
        self.run(move |inner| async move {
            let mut found = Vec::new();
            for worker in first..inner.link.workers() {
                let room = limit + 1 - found.len();
                let act = Act::Connections { person: person.clone(), after_slot: after_slot.take(), limit: room };
                if let Some(Answer::Connections(facts)) = inner.link.ask_one(worker, &act).await? {
                    found.extend(facts);
                }
                if found.len() > limit {
                    break;
                }
            }
            let next = page(&mut found, limit, |one| one.connection.clone());
            Ok((found, next))
        })
        .await
    }

    /// Pipes with subscribers and how many, by name, those behind the name `after`: at most `limit`, and the name to go
    /// on from where there are more.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn pipes(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(Box<str>, u64)>, Option<String>), Failure> {
        let act = Act::Pipes { after: after.map(Arc::from), limit: limit + 1 };
        self.run(move |inner| async move {
            let mut sums = BTreeMap::new();
            for answer in inner.link.ask_all(&act).await? {
                let Answer::Pipes(pipes) = answer else { continue };
                for (name, subscribers) in pipes {
                    *sums.entry(name).or_insert(0) += subscribers;
                }
            }
            let mut found: Vec<(Box<str>, u64)> = sums.into_iter().collect();
            let next = page(&mut found, limit, |(name, _)| name.to_string());
            Ok((found, next))
        })
        .await
    }

    /// Who is subscribed to a pipe, by user and tenant, whichever workers their connections live on.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn members(&self, pipe: &str) -> Result<Members, Failure> {
        let act = Act::Members { pipe: pipe.into() };
        self.run(move |inner| async move {
            let answers = inner.link.ask_all(&act).await?;
            Ok(merged(answers.into_iter().filter_map(|answer| match answer {
                Answer::Members(members) => Some(members),
                _ => None,
            })))
        })
        .await
    }

    /// The state of every worker, in their order.
    ///
    /// # Errors
    /// [`Failure::Overloaded`], [`Failure::Draining`].
    pub async fn stats(&self) -> Result<Vec<Stats>, Failure> {
        self.run(|inner| async move {
            let answers = inner.link.ask_all(&Act::Stats).await?;
            let stats = answers.into_iter().filter_map(|answer| match answer {
                Answer::Stats(stats) => Some(*stats),
                _ => None,
            });
            Ok(stats.collect())
        })
        .await
    }

    /// Calls to the application.
    pub fn application(&self) -> &Application {
        &self.inner.application
    }

    /// All queues, by name.
    pub fn queues(&self) -> Vec<QueueFacts> {
        self.inner.queues.list()
    }

    /// Dead letters of a queue behind the place `after`, and where to go on.
    ///
    /// # Errors
    /// [`Failure::Refused`]: there is no such queue, or the store cannot be read.
    pub async fn dead(
        &self,
        queue: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<Dead>, Option<u64>), Failure> {
        match self.inner.queues.dead(queue, after, limit).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(no_queue()),
            Err(why) => Err(Failure::Refused(Code::Internal, why)),
        }
    }

    /// Has the dead letter of this id wait again, or all for which there is room. Returns how many.
    ///
    /// # Errors
    /// [`Failure::Refused`]: there is no such queue or letter, the queue is full, the store failed.
    pub async fn retry(&self, queue: &str, id: Option<&str>) -> Result<u64, Failure> {
        let (queue, id) = (queue.to_owned(), id.map(str::to_owned));
        self.run(move |inner| async move {
            let revived = inner.queues.revive(&queue, id.as_deref()).await;
            revived.map_err(|why| match why {
                NotRevived::NoQueue => no_queue(),
                NotRevived::NoLetter => Failure::Refused(Code::NotFound, "There is no such dead letter".to_owned()),
                NotRevived::Full => Failure::Refused(Code::Unavailable, "The queue is full".to_owned()),
                NotRevived::Store => Failure::Refused(Code::Internal, "The store cannot be written".to_owned()),
            })
        })
        .await
    }

    /// What is due of the time limits.
    pub(super) fn endings(&self) -> &Endings {
        &self.inner.endings
    }

    /// Ends an entry whose time has come, unless it was lifted or replaced meanwhile (D5).
    pub(super) async fn end(&self, entry: Entry) {
        let inner = &self.inner;
        let _turn = inner.turn(subject(&entry)).await;
        if !inner.table().expire(&entry, Service::now_ms()) {
            return;
        }
        inner.store.write_later(Change::Remove(entry.clone()));
        if let Entry::Pipes(ended) = entry {
            let restoration = Restoration { person: ended.person.clone(), taken: Some(ended.taken.clone()) };
            // A worker that is late does it late; nobody waits for this answer.
            let _ = inner.link.count_all(&Act::Restore(Arc::new(restoration))).await;
        }
    }

    /// Lifts a revocation that a later authorization has ended (D4), unless it was lifted or replaced meanwhile.
    pub(super) async fn lift_reauthorized(&self, revocation: Arc<Revocation>) {
        let inner = &self.inner;
        let _turn = inner.turn(&*revocation.person.user).await;
        if !inner.table().holds(&Entry::Pipes(revocation.clone())) {
            return;
        }
        let taken = Some(revocation.taken.clone());
        let restoration = Restoration { person: revocation.person.clone(), taken };
        // The store says in the log where it fails; then it ends once more after the next start.
        let _ = inner.store.write(Change::Lift(restoration.clone())).await;
        let _ = inner.settle().await;
        inner.table().lift(&restoration);
        let _ = inner.link.count_all(&Act::Restore(Arc::new(restoration))).await;
    }

    /// Refuses calls from now on, and returns when none is at work any more.
    pub(super) async fn drain(&self) {
        let all = u32::try_from(CALLS_MAX).unwrap_or(u32::MAX);
        // Given when every call has ended; closed afterwards.
        let _none_at_work = self.inner.calls.acquire_many(all).await;
        self.inner.calls.close();
    }

    async fn count(&self, act: Act) -> Result<u64, Failure> {
        self.run(move |inner| async move { Ok(inner.link.count_all(&act).await?) }).await
    }

    /// Runs a call in a task of its own, which goes on when the caller goes.
    async fn run<T, F>(&self, call: impl FnOnce(Arc<Inner>) -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let permit = self.inner.calls.clone().try_acquire_owned().map_err(|why| match why {
            TryAcquireError::NoPermits => Failure::Overloaded,
            TryAcquireError::Closed => Failure::Draining,
        })?;
        let call = call(self.inner.clone());
        let task = tokio::spawn(async move {
            let outcome = call.await;
            drop(permit);
            outcome
        });
        // A task ends without an outcome only with its runtime.
        task.await.unwrap_or(Err(Failure::Draining))
    }
}

impl Inner {
    fn table(&self) -> &Revocations {
        &self.shared.revocations
    }

    /// Waits until nothing else changes what concerns this user, token or session.
    async fn turn(&self, subject: &(impl Hash + ?Sized)) -> tokio::sync::MutexGuard<'_, ()> {
        let line = self.hasher.hash_one(subject) as usize % self.lines.len();
        self.lines[line].lock().await
    }

    /// Whether there is room for one more. What takes the place of an entry needs none (D4).
    fn check_room(&self, entry: &Entry) -> Result<(), Failure> {
        let user = match entry {
            Entry::Pipes(one) => (one.taken != Taken::Everything).then_some(&one.person.user),
            Entry::Tokens(one) => match &one.tokens {
                Tokens::IssuedBefore { person, .. } => Some(&person.user),
                Tokens::Token(_) | Tokens::Session(_) => None,
            },
        };
        let full = self.table().count() >= REVOCATIONS_MAX;
        let full_of_user = user.is_some_and(|user| self.table().count_of(user) >= REVOCATIONS_PER_USER_MAX);
        if !(full || full_of_user) || self.table().has_same(entry) {
            return Ok(());
        }
        Err(Failure::TooMany(if full {
            format!("{REVOCATIONS_MAX} revocations are in force, and that is the most")
        } else {
            format!(
                "{REVOCATIONS_PER_USER_MAX} revocations of this user are in force, and that is the most; revoke_all is \
                 always possible"
            )
        }))
    }

    /// Lifts what this names exactly. With `late` nobody waits for the workers, one of which does not answer: each entry
    /// of a user would wait for it anew.
    async fn restore(&self, restoration: Restoration, late: bool) -> Result<u64, Failure> {
        let stored = self.store.write(Change::Lift(restoration.clone())).await;
        self.table().lift(&restoration);
        let act = Act::Restore(Arc::new(restoration));
        if late {
            self.link.tell_all(&act).await;
            return durable(stored).map(|()| 0);
        }
        let connections = self.link.count_all(&act).await?;
        durable(stored).map(|()| connections)
    }

    /// Returns when every event that any worker had accepted by now is delivered, by what is in force now: whoever is
    /// given a pipe back does not get what was said there meanwhile (INVARIANTS 8). After the first round all of it is in
    /// the rings, after the second it is out of them.
    ///
    /// A worker that takes nothing more, or does not answer, holds it up for a bounded time.
    async fn settle(&self) -> Result<(), Failure> {
        let rounds = async {
            for _ in 0..2 {
                self.link.count_all(&Act::Settle).await?;
            }
            Ok(())
        };
        timeout(SETTLE_WAIT, rounds).await.unwrap_or(Err(Late)).map_err(Failure::from)
    }

    async fn revoke_tokens(&self, mut revocation: TokenRevocation) -> Result<u64, Failure> {
        let _turn = self.turn(subject(&Entry::Tokens(Arc::new(revocation.clone())))).await;
        // What is revoked is never given back by saying it again for a shorter time: nothing restores a token.
        revocation.until_ms = revocation.until_ms.max(self.table().until_of(&revocation.tokens));
        let revocation = Arc::new(revocation);
        let entry = Entry::Tokens(revocation.clone());
        self.check_room(&entry)?;
        let stored = self.store.write(Change::Put(entry.clone())).await;
        if let Tokens::IssuedBefore { person, .. } = &revocation.tokens {
            self.table().touch(person, Service::now_ms());
        }
        for superfluous in self.table().insert_tokens(revocation.clone()) {
            // Not durable before what takes its place is: the store keeps the order. It keeps both where that one is not.
            if stored.is_ok() {
                self.store.write_later(Change::Remove(Entry::Tokens(superfluous)));
            }
        }
        self.endings.add(entry, self.table());
        let connections = self.link.count_all(&Act::RevokeTokens(revocation)).await?;
        durable(stored).map(|()| connections)
    }
}

fn no_queue() -> Failure {
    Failure::Refused(Code::NotFound, "There is no such queue".to_owned())
}

/// Whose turn a change of this entry needs.
fn subject(entry: &Entry) -> &str {
    match entry {
        Entry::Pipes(one) => &one.person.user,
        Entry::Tokens(one) => match &one.tokens {
            Tokens::Token(id) | Tokens::Session(id) => id,
            Tokens::IssuedBefore { person, .. } => &person.user,
        },
    }
}

fn durable(stored: Result<(), StoreError>) -> Result<(), Failure> {
    stored.map_err(|why| {
        Failure::NotDurable(match why {
            StoreError::Full => "too many changes wait for the disk".to_owned(),
            StoreError::Failed(why) => why,
        })
    })
}

/// Waits until the second `cut_off_s` (Unix) has come, if it comes soon.
async fn pass(cut_off_s: i64) {
    let now_ms = i64::try_from(Service::now_ms()).unwrap_or(i64::MAX);
    let ahead_ms = cut_off_s.saturating_mul(1000).saturating_sub(now_ms);
    if (1..=CUT_OFF_WAIT_S * 1000).contains(&ahead_ms) {
        sleep(Duration::from_millis(ahead_ms.unsigned_abs())).await;
    }
}

/// Cuts a list that is one too long, and says where to go on.
fn page<T>(found: &mut Vec<T>, limit: usize, name: impl Fn(&T) -> String) -> Option<String> {
    let more = found.len() > limit;
    found.truncate(limit);
    if more { found.last().map(name) } else { None }
}

/// Worker and slot of a connection's public name: node, worker, slot, generation.
fn cursor(name: &str) -> Option<(usize, u32)> {
    let mut parts = name.split('-');
    let (node, worker, slot, generation) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    u64::from_str_radix(generation, 16).ok()?;
    if parts.next().is_some() || node != "0" {
        return None;
    }
    Some((worker.parse().ok()?, slot.parse().ok()?))
}

fn merged(parts: impl Iterator<Item = Members>) -> Members {
    let mut people: BTreeMap<(Box<str>, Option<Box<str>>), Member> = BTreeMap::new();
    let mut anonymous = 0;
    for part in parts {
        anonymous += part.anonymous;
        for member in part.people {
            let place = (member.user.clone(), member.tenant.clone());
            match people.get_mut(&place) {
                Some(sum) => {
                    sum.connections += member.connections;
                    sum.name = sum.name.take().or(member.name);
                }
                None => {
                    people.insert(place, member);
                }
            }
        }
    }
    Members { people: people.into_values().collect(), anonymous }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
