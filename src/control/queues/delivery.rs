//! The loop of one queue: the message in front, until the application has it or it is given up (F16).
//!
//! After an attempt that failed it waits: first for at most a second, then twice as long each time up to 30 s, and of
//! that a random half or more, so that the queues of one application do not come back all at once. A reload or a retry by
//! hand ends the wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::coding::{self, Dead, Message};
use super::shelf::{self, Edit};
use super::{LastError, Queue, Queues};
use crate::control::service::Service;
use crate::control::store::Change;
use crate::protocol::codes::Code;
use crate::protocol::encode::asks;
use crate::rules::definition::QueueRules;
use crate::shard::record::{Kind, Record};

/// Messages that are read ahead.
const AHEAD_MAX: usize = 64;
/// Bytes after which no more is read ahead.
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a sentence that is kept.
const ERROR_BYTES_MAX: usize = 512;

/// How failed deliveries are repeated. The default is what a server runs with.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest wait after the first attempt; it doubles each time.
    pub first: Duration,
    /// The longest wait of all.
    pub longest: Duration,
    /// After so many attempts a message is given up.
    pub attempts_max: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { first: Duration::from_secs(1), longest: Duration::from_secs(30), attempts_max: 20 }
    }
}

impl Pace {
    /// How long to wait after so many attempts; `random` is anything.
    fn wait(&self, attempts: u32, random: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let longest = doubled.min(self.longest);
        longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// What an attempt came to.
enum Attempt {
    Taken,
    Again(String),
    /// It would never be taken.
    Never(String),
}

/// What the loop has in hand.
struct Front {
    ahead: VecDeque<(u64, Message)>,
    /// The last place that is done with.
    done: Option<u64>,
    attempts: u32,
    attempts_ever: u64,
    settling: Option<tokio::task::JoinHandle<()>>,
    /// Done with, and not yet told to the store.
    unsettled: Option<u64>,
}

/// Delivers, for as long as the process lives.
pub(super) async fn run(queues: Queues, queue: Arc<Queue>) {
    let mut front =
        Front { ahead: VecDeque::new(), done: None, attempts: 0, attempts_ever: 0, settling: None, unsettled: None };
    let mut nudged = queue.nudge.subscribe();
    loop {
        // Before anything is looked at, so that what changes afterwards is not slept over.
        nudged.mark_unchanged();
        if queues.inner.stopping.load(Ordering::Acquire) {
            break;
        }
        if front.ahead.is_empty() && !read_ahead(&queues, &queue, &mut front).await {
            settle(&queues, &queue, &mut front);
            queue.work.notified().await;
            continue;
        }
        let settings = queues.inner.shared.settings();
        let Some(rules) = settings.config.rules.queue(&queue.name) else {
            settle(&queues, &queue, &mut front);
            let _ = nudged.changed().await;
            continue;
        };
        step(&queues, &queue, &mut front, rules, &mut nudged).await;
    }
    if let Some(settling) = front.settling.take() {
        let _ = settling.await;
    }
    settle(&queues, &queue, &mut front);
    if let Some(settling) = front.settling {
        let _ = settling.await;
    }
}

/// One attempt, or none for a message that is too old.
async fn step(
    queues: &Queues,
    queue: &Arc<Queue>,
    front: &mut Front,
    rules: &QueueRules,
    nudged: &mut watch::Receiver<()>,
) {
    let Some((place, message)) = front.ahead.front() else { return };
    let (place, since_ms) = (*place, message.since_ms);
    let age_ms_max = u64::from(rules.max_age_s) * 1000;
    let left_ms = since_ms.saturating_add(age_ms_max).saturating_sub(Service::now_ms());
    if left_ms == 0 {
        let last = queue.state().last_error.clone().filter(|_| front.attempts > 0);
        let why = last.map_or_else(String::new, |last| format!("; {}", last.error));
        return bury(queues, queue, front, format!("it waited longer than {} s{why}", rules.max_age_s)).await;
    }
    front.attempts_ever += 1;
    let outcome = attempt(queues, queue, message, rules, front.attempts_ever).await;
    let error = match outcome {
        Attempt::Taken => {
            let (bytes, next) = (message.bytes(), front.ahead.get(1).map(|(_, next)| next.enqueued_at_ms));
            let mut state = queue.state();
            state.leave(bytes);
            state.oldest_ms = next;
            state.totals.delivered += 1;
            drop(state);
            front.ahead.pop_front();
            (front.done, front.unsettled, front.attempts) = (Some(place), Some(place), 0);
            return settle(queues, queue, front);
        }
        Attempt::Again(error) => {
            front.attempts += 1;
            failed(queue, front.attempts, &error);
            if queues.inner.stopping.load(Ordering::Acquire) {
                return;
            }
            if front.attempts < queues.inner.pace.attempts_max {
                // Whatever random number there is not: it is only about spreading.
                let wait = queues.inner.pace.wait(front.attempts, getrandom::u32().unwrap_or_default());
                let _ = timeout(wait.min(Duration::from_millis(left_ms)), nudged.changed()).await;
                return;
            }
            format!("{error}, {} times", front.attempts)
        }
        Attempt::Never(error) => {
            front.attempts += 1;
            failed(queue, front.attempts, &error);
            error
        }
    };
    bury(queues, queue, front, error).await;
}

async fn attempt(queues: &Queues, queue: &Queue, message: &Message, rules: &QueueRules, number: u64) -> Attempt {
    let id = message.id.to_string();
    let delivery = format!("{id}-{:x}-{number}", queues.inner.started_ms);
    let body = asks::queue(&queue.name, &id, &message.data, &message.user, message.enqueued_at_ms, &delivery);
    match queues.inner.application.deliver(&rules.endpoint, body).await {
        Ok(200..300) => Attempt::Taken,
        // "Too early" and the like may go better later; another 4xx says that this message is wrong.
        Ok(status @ (408 | 425 | 429)) => Attempt::Again(answered(status)),
        Ok(status @ 400..500) => Attempt::Never(answered(status)),
        Ok(status) => Attempt::Again(answered(status)),
        Err(why) => Attempt::Again(why),
    }
}

fn answered(status: u16) -> String {
    format!("it answered with status {status}")
}

fn failed(queue: &Queue, attempts: u32, error: &str) {
    let mut state = queue.state();
    state.attempts = attempts;
    state.totals.failed += 1;
    state.last_error = Some(LastError { at_ms: Service::now_ms(), error: error.into() });
}

/// Makes the message in front a dead letter.
async fn bury(queues: &Queues, queue: &Arc<Queue>, front: &mut Front, error: String) {
    let Some((place, message)) = front.ahead.pop_front() else { return };
    let end = error.floor_char_boundary(ERROR_BYTES_MAX);
    let letter = Dead { died_at_ms: Service::now_ms(), attempts: front.attempts, error: error[..end].into(), message };
    let forget_through = {
        let mut state = queue.state();
        state.leave(letter.message.bytes());
        state.oldest_ms = front.ahead.front().map(|(_, next)| next.enqueued_at_ms);
        state.bury(place, &letter.message)
    };
    let edit = Edit::Bury { queue: queue.name.clone(), place, value: coding::dead(&letter), forget_through };
    if let Err(why) = queues.inner.store.write(Change::Queue(edit)).await {
        tracing::error!(
            "queue {}: a dead letter is not stored ({why:?}); it will be tried again after a restart",
            queue.name
        );
    }
    let reason = format!("queue {}: message {} was given up: {}", queue.name, letter.message.id, letter.error);
    tracing::warn!("{reason}");
    let code = Some(Code::Unavailable);
    queues.inner.audit.record(Record {
        code,
        reason: Some(reason.into()),
        ..Record::new(letter.died_at_ms, Kind::InternalError)
    });
    (front.done, front.attempts) = (Some(place), 0);
}

/// Reads what comes next. False: there is nothing.
async fn read_ahead(queues: &Queues, queue: &Arc<Queue>, front: &mut Front) -> bool {
    let (name, after) = (queue.name.clone(), front.done);
    let read = move |database: &redb::Database| shelf::read(database, &name, after, AHEAD_MAX, AHEAD_BYTES_MAX);
    let found = match queues.inner.store.look(Box::new(read)).await {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => return unreadable(queue, &why).await,
        Err(why) => return unreadable(queue, &format!("{why:?}")).await,
    };
    front.ahead = found.into();
    if let Some((_, message)) = front.ahead.front() {
        queue.state().oldest_ms = Some(message.enqueued_at_ms);
    }
    !front.ahead.is_empty()
}

/// Says so, and lets some time pass.
async fn unreadable(queue: &Queue, why: &str) -> bool {
    failed(queue, 0, &format!("the store {why}"));
    tracing::error!("queue {}: the store {why}", queue.name);
    sleep(Duration::from_secs(1)).await;
    queue.work.notify_one();
    false
}

/// Tells the store what is done with, unless it is being told already: then the next time.
fn settle(queues: &Queues, queue: &Arc<Queue>, front: &mut Front) {
    if front.settling.as_ref().is_some_and(|settling| !settling.is_finished()) {
        return;
    }
    let Some(through) = front.unsettled.take() else { return };
    let stored = queues.inner.store.write(Change::Queue(Edit::Settle { queue: queue.name.clone(), through }));
    let queue = queue.clone();
    front.settling = Some(tokio::spawn(async move {
        if let Err(why) = stored.await {
            tracing::warn!("queue {}: what was delivered may be delivered again ({why:?})", queue.name);
        }
        // Whoever waits for work may have more to settle.
        queue.work.notify_one();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    // F16
    #[test]
    fn waits_double_up_to_half_a_minute_and_are_spread() {
        let pace = Pace::default();
        let (least, most) = (|n| pace.wait(n, 0).as_millis(), |n| pace.wait(n, u32::MAX).as_millis());
        assert_eq!(
            [1, 2, 3, 5, 6, 7, 19, u32::MAX].map(most),
            [1000, 2000, 4000, 16_000, 30_000, 30_000, 30_000, 30_000]
        );
        assert_eq!([1, 2, 7].map(least), [500, 1000, 15_000]);
    }
}
