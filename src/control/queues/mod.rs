//! Queues: what clients hand over for the application is stored, and delivered to it in order until it says that it has it
//! (PROTOCOL.md §5, ruling F16).
//!
//! ```text
//!  worker ──▶ enqueue ──▶ store (fsync) ──▶ ok        for each queue: read ahead ──▶ call ──▶ 2xx: settle, next
//!                 bounds, a place                                                   ├─ 4xx, 20 attempts, too old: bury
//!                                                                                   └─ else: again, after a while
//! ```
//!
//! Invariant: a message that was answered `ok` lies in the store until the application has answered 2xx, or it has become
//! a dead letter. In a queue the one that came first is delivered first, and nobody behind it before it is done with.
//! After a crash messages may be delivered again, with the same id; so does whoever settles late: settling is gathered
//! and not waited for. Attempts are counted since the start of the process.
//!
//! A queue that is no longer in the configuration keeps its messages, takes none and delivers none. Messages lie on disk;
//! in memory are the numbers of each queue, the ids of its dead letters, and what is read ahead (1 MiB at most).
//!
//! Reading order: here (taking, listing, reviving), `delivery`, `shelf` (tables), `coding` (bytes).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::application::Application;
use super::audit::Audit;
use super::service::Service;
use super::store::{Change, Store, StoreError};
use crate::protocol::codes::Code;
use crate::shard::call::EnqueueAsk;
use crate::shard::shared::Shared;

pub mod coding;
mod delivery;
pub mod shelf;

pub use coding::{Dead, Id, Message};
pub use delivery::Pace;
use shelf::{Edit, Found};

/// Dead letters of one queue. More: the oldest are forgotten.
pub const DEAD_MAX: usize = 10_000;
/// Bytes of dead letters of one queue. More: the oldest are forgotten.
pub const DEAD_BYTES_MAX: u64 = 256 << 20;
/// Messages that wait to be stored, of all queues. More: `UNAVAILABLE`. Fewer than the store takes, so that a flood of
/// them never keeps a revocation out.
const STORING_MAX: usize = 2_048;
/// Bytes of them. More: `UNAVAILABLE`.
const STORING_BYTES_MAX: u64 = 16 << 20;
/// Bytes of dead letters that are read for one answer.
const LISTED_BYTES_MAX: u64 = 4 << 20;

/// All queues. Cheap to clone. To be used on the control thread's runtime.
#[derive(Clone)]
pub struct Queues {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    store: Store,
    audit: Audit,
    application: Application,
    pace: Pace,
    queues: Mutex<BTreeMap<Arc<str>, Arc<Queue>>>,
    storing: Mutex<Storing>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    started: AtomicBool,
    stopping: AtomicBool,
    /// Makes the names of attempts differ from those before a restart.
    started_ms: u64,
}

/// What is on its way to the store.
#[derive(Default)]
struct Storing {
    count: usize,
    bytes: u64,
}

/// One queue.
struct Queue {
    name: Arc<str>,
    state: Mutex<State>,
    /// There may be something to deliver.
    work: Notify,
    /// What was waited for may have changed.
    nudge: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    next_place: u64,
    depth: u64,
    bytes: u64,
    oldest_ms: Option<u64>,
    attempts: u32,
    last_error: Option<LastError>,
    /// Place, id, bytes; by place.
    dead: VecDeque<(u64, Id, u64)>,
    dead_bytes: u64,
    totals: Totals,
}

/// Why the last attempt that failed did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// A sentence for the operator.
    pub error: Box<str>,
}

/// What happened in a queue since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that were stored.
    pub enqueued: u64,
    /// Messages that were refused: a bound, or the store.
    pub refused: u64,
    /// Messages that the application has taken.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that became dead letters.
    pub died: u64,
    /// Dead letters that were forgotten for want of room.
    pub forgotten: u64,
}

/// A queue as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is in the configuration.
    pub configured: bool,
    /// Messages that wait, the one that is being delivered included.
    pub depth: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When the first of them was enqueued, Unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// Attempts that the first one has behind it.
    pub attempts: u32,
    /// None: none has failed since the start.
    pub last_error: Option<LastError>,
    /// Dead letters.
    pub dead: u64,
    /// Since the start.
    pub totals: Totals,
}

/// Why nothing was revived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRevived {
    /// There is no such queue.
    NoQueue,
    /// There is no such dead letter.
    NoLetter,
    /// The queue is full.
    Full,
    /// The store failed.
    Store,
}

impl Queues {
    /// With what lies in the store. Blocks: to be called before the runtime runs.
    ///
    /// # Errors
    /// A sentence for the operator: the store is damaged.
    pub fn open(
        shared: Arc<Shared>,
        store: Store,
        audit: Audit,
        application: Application,
        pace: Pace,
    ) -> Result<Queues, String> {
        let found = store.survey_queues()?;
        let queues = found.into_iter().map(|(name, found)| (name.clone(), Arc::new(Queue::new(name, found))));
        let queues = Mutex::new(queues.collect());
        let (storing, tasks) = (Mutex::default(), Mutex::default());
        let (started, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        let started_ms = Service::now_ms();
        let inner =
            Inner { shared, store, audit, application, pace, queues, storing, tasks, started, stopping, started_ms };
        Ok(Queues { inner: Arc::new(inner) })
    }

    /// Starts to deliver.
    pub fn start(&self) {
        self.inner.started.store(true, Ordering::Release);
        let known: Vec<Arc<Queue>> = lock(&self.inner.queues).values().cloned().collect();
        known.into_iter().for_each(|queue| self.spawn(queue));
        self.take_up();
    }

    /// Takes up the settings in force, after they were replaced: what could not be delivered is tried again at once.
    pub fn take_up(&self) {
        let settings = self.inner.shared.settings();
        for rules in &settings.config.rules.queues {
            self.known_or_new(&rules.name);
        }
        lock(&self.inner.queues).values().for_each(|queue| queue.look_again());
    }

    /// Ends deliveries: attempts under way are awaited, nothing new is begun.
    pub async fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        lock(&self.inner.queues).values().for_each(|queue| queue.look_again());
        let tasks = std::mem::take(&mut *lock(&self.inner.tasks));
        for task in tasks {
            let _ = task.await;
        }
    }

    /// Gives a message its place and hands it to the store, at once and in order; then waits until it is durable.
    ///
    /// # Errors
    /// `FORBIDDEN`: there is no such queue (F15); `UNAVAILABLE`: it is full; `INTERNAL`: the store failed (D15).
    pub fn enqueue(&self, ask: EnqueueAsk) -> impl Future<Output = Result<(), Code>> + Send + use<> {
        let begun = self.begin(ask);
        let queues = self.clone();
        async move {
            let (queue, bytes, enqueued_at_ms, stored) = begun?;
            let stored = stored.await;
            {
                let mut storing = lock(&queues.inner.storing);
                storing.count -= 1;
                storing.bytes -= bytes;
            }
            let mut state = queue.state();
            let Err(why) = stored else {
                state.totals.enqueued += 1;
                state.oldest_ms.get_or_insert(enqueued_at_ms);
                drop(state);
                queue.work.notify_one();
                return Ok(());
            };
            state.depth -= 1;
            state.bytes -= bytes;
            state.totals.refused += 1;
            Err(if why == StoreError::Full { Code::Unavailable } else { Code::Internal })
        }
    }

    /// All queues, by name: those of the configuration, and those with messages.
    pub fn list(&self) -> Vec<QueueFacts> {
        let settings = self.inner.shared.settings();
        let queues = lock(&self.inner.queues);
        let all = queues.values().map(|queue| {
            let state = queue.state();
            QueueFacts {
                name: queue.name.clone(),
                configured: settings.config.rules.queue(&queue.name).is_some(),
                depth: state.depth,
                bytes: state.bytes,
                oldest_ms: state.oldest_ms.filter(|_| state.depth > 0),
                attempts: state.attempts,
                last_error: state.last_error.clone(),
                dead: state.dead.len() as u64,
                totals: state.totals,
            }
        });
        all.filter(|one| one.configured || one.depth + one.dead > 0).collect()
    }

    /// Dead letters behind the place `after`, oldest first: at most `limit`, and the place to go on from where there may
    /// be more. None: there is no such queue.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn dead(
        &self,
        queue: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Option<(Vec<Dead>, Option<u64>)>, String> {
        let Some(queue) = self.known(queue) else { return Ok(None) };
        let name = queue.name.clone();
        let read = move |database: &redb::Database| shelf::read_dead(database, &name, after, limit, LISTED_BYTES_MAX);
        let found = self.inner.store.look(Box::new(read)).await.map_err(|why| format!("{why:?}"))??;
        let last = found.last().map(|(place, _)| *place);
        let more = last.filter(|last| queue.state().dead.back().is_some_and(|(place, ..)| place > last));
        Ok(Some((found.into_iter().map(|(_, letter)| letter).collect(), more)))
    }

    /// Has dead letters wait again, behind all others: the one with this id, or all for which there is room, oldest
    /// first. Returns how many.
    ///
    /// # Errors
    /// [`NotRevived`]
    pub async fn revive(&self, queue: &str, id: Option<&str>) -> Result<u64, NotRevived> {
        let queue = self.known(queue).ok_or(NotRevived::NoQueue)?;
        let settings = self.inner.shared.settings();
        let (room, room_bytes) = match settings.config.rules.queue(&queue.name) {
            Some(rules) => (u64::from(rules.max_pending), rules.max_pending_bytes),
            None => (u64::MAX, u64::MAX),
        };
        let (taken, moves, stored) = {
            let mut state = queue.state();
            let taken = state.take_dead(id, room, room_bytes);
            if taken.is_empty() {
                let there = id.is_none() || state.dead.iter().any(|(_, own, _)| Some(&*own.to_string()) == id);
                return match (there, state.dead.is_empty()) {
                    (false, _) => Err(NotRevived::NoLetter),
                    (true, true) => Ok(0),
                    (true, false) => Err(NotRevived::Full),
                };
            }
            let moves: Vec<(u64, u64)> = taken.iter().map(|(place, ..)| (*place, state.new_place())).collect();
            let (name, since_ms) = (queue.name.clone(), Service::now_ms());
            let edit = Edit::Revive { queue: name, moves: moves.clone(), since_ms };
            (taken, moves, self.inner.store.write(Change::Queue(edit)))
        };
        if stored.await.is_err() {
            queue.state().put_back(&taken);
            return Err(NotRevived::Store);
        }
        queue.look_again();
        Ok(moves.len() as u64)
    }

    /// Bounds, and the place; all in one step, so that places are in the order of the calls.
    #[allow(clippy::type_complexity, reason = "it is taken apart at once")]
    fn begin(
        &self,
        ask: EnqueueAsk,
    ) -> Result<(Arc<Queue>, u64, u64, impl Future<Output = Result<(), StoreError>> + Send + use<>), Code> {
        let settings = self.inner.shared.settings();
        let rules = settings.config.rules.queue(&ask.queue).ok_or(Code::Forbidden)?;
        let queue = self.known_or_new(&ask.queue);
        let EnqueueAsk { user, data, enqueued_at_ms, .. } = ask;
        let message = Message { id: new_id()?, enqueued_at_ms, since_ms: enqueued_at_ms, user, data };
        let bytes = message.bytes();
        let mut state = queue.state();
        let mut storing = lock(&self.inner.storing);
        if state.depth >= u64::from(rules.max_pending)
            || state.bytes + bytes > rules.max_pending_bytes
            || storing.count >= STORING_MAX
            || storing.bytes + bytes > STORING_BYTES_MAX
            || self.inner.stopping.load(Ordering::Acquire)
        {
            state.totals.refused += 1;
            return Err(Code::Unavailable);
        }
        state.depth += 1;
        state.bytes += bytes;
        storing.count += 1;
        storing.bytes += bytes;
        let (name, place, value) = (queue.name.clone(), state.new_place(), coding::message(&message));
        let stored = self.inner.store.write(Change::Queue(Edit::Append { queue: name, place, value }));
        drop((state, storing));
        Ok((queue, bytes, enqueued_at_ms, stored))
    }

    fn known(&self, name: &str) -> Option<Arc<Queue>> {
        lock(&self.inner.queues).get(name).cloned()
    }

    /// To be called for names of the configuration only: they are bounded.
    fn known_or_new(&self, name: &Arc<str>) -> Arc<Queue> {
        if let Some(queue) = self.known(name) {
            return queue;
        }
        let queue = Arc::new(Queue::new(name.clone(), Found::default()));
        lock(&self.inner.queues).insert(name.clone(), queue.clone());
        if self.inner.started.load(Ordering::Acquire) {
            self.spawn(queue.clone());
        }
        queue
    }

    fn spawn(&self, queue: Arc<Queue>) {
        let task = tokio::spawn(delivery::run(self.clone(), queue));
        lock(&self.inner.tasks).push(task);
    }
}

impl Queue {
    fn new(name: Arc<str>, found: Found) -> Queue {
        let Found { depth, bytes, oldest_ms, next_place, dead } = found;
        let dead_bytes = dead.iter().map(|(.., bytes)| bytes).sum();
        let state = State { depth, bytes, oldest_ms, next_place, dead: dead.into(), dead_bytes, ..State::default() };
        Queue { name, state: Mutex::new(state), work: Notify::new(), nudge: watch::Sender::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn look_again(&self) {
        self.work.notify_one();
        self.nudge.send_replace(());
    }
}

impl State {
    fn new_place(&mut self) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        place
    }

    /// A message has left the queue.
    fn leave(&mut self, bytes: u64) {
        self.depth = self.depth.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.attempts = 0;
        self.oldest_ms = None;
    }

    /// Notes a dead letter. Returns the last place of those that must be forgotten for it.
    fn bury(&mut self, place: u64, message: &Message) -> Option<u64> {
        self.dead.push_back((place, message.id, message.bytes()));
        self.dead_bytes += message.bytes();
        self.totals.died += 1;
        let mut through = None;
        while self.dead.len() > 1 && (self.dead.len() > DEAD_MAX || self.dead_bytes > DEAD_BYTES_MAX) {
            let Some((place, _, bytes)) = self.dead.pop_front() else { break };
            self.dead_bytes -= bytes;
            self.totals.forgotten += 1;
            through = Some(place);
        }
        through
    }

    /// Takes dead letters out that may wait again, and counts them as waiting.
    fn take_dead(&mut self, id: Option<&str>, room: u64, room_bytes: u64) -> Vec<(u64, Id, u64)> {
        let mut taken = Vec::new();
        let mut kept = VecDeque::with_capacity(self.dead.len());
        let mut full = false;
        for letter in std::mem::take(&mut self.dead) {
            let (_, own, bytes) = letter;
            let wanted = id.is_none_or(|id| own.to_string() == id);
            full |= wanted && (self.depth >= room || self.bytes.saturating_add(bytes) > room_bytes);
            if wanted && !full {
                self.depth += 1;
                self.bytes += bytes;
                self.dead_bytes -= bytes;
                taken.push(letter);
            } else {
                kept.push_back(letter);
            }
        }
        self.dead = kept;
        taken
    }

    fn put_back(&mut self, taken: &[(u64, Id, u64)]) {
        for letter in taken {
            self.depth -= 1;
            self.bytes -= letter.2;
            self.dead_bytes += letter.2;
            self.dead.push_back(*letter);
        }
        self.dead.make_contiguous().sort_unstable_by_key(|(place, ..)| *place);
    }
}

fn new_id() -> Result<Id, Code> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| Code::Internal)?;
    Ok(Id(id))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
