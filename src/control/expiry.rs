//! When time limits of revocations end: the next one first.
//!
//! Invariant: every entry of the table that has a time limit is in here, and is given out when that has come, at the
//! latest a second after a jump of the calendar clock. What was lifted or replaced meanwhile is given out all the same:
//! whether an entry still stands is known by the table alone, which is asked when it is due. No table is ever searched
//! for what has ended.
//!
//! Memory: 24 bytes an entry. Entries that no longer stand are thrown away when they are more than half of all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::service::Service;
use crate::shard::revocation::{Entry, FOR_EVER, Revocations};

/// Entries that are ended side by side.
const BATCH_MAX: usize = 64;
/// The longest sleep: after so long a jump of the calendar clock is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Fewer entries than this are not worth throwing away.
const TIDY_MIN: usize = 1024;

/// The time limits.
#[derive(Default)]
pub struct Endings {
    heap: Mutex<BinaryHeap<Reverse<Due>>>,
    sooner: Notify,
}

impl Endings {
    /// One more entry of `table`. One without a time limit is not kept.
    pub fn add(&self, entry: Entry, table: &Revocations) {
        let due = Due { at_ms: entry.until_ms(), entry };
        if due.at_ms == FOR_EVER {
            return;
        }
        let mut heap = self.heap();
        if heap.len() >= TIDY_MIN && heap.len() / 2 > table.count() {
            heap.retain(|Reverse(due)| table.holds(&due.entry));
        }
        let is_next = heap.peek().is_none_or(|Reverse(next)| due.at_ms < next.at_ms);
        heap.push(Reverse(due));
        if is_next {
            self.sooner.notify_one();
        }
    }

    /// Entries that have ended by `now_ms`, at most `most`, the earliest first.
    pub fn take_due(&self, now_ms: u64, most: usize) -> Vec<Entry> {
        let mut heap = self.heap();
        let mut due = Vec::new();
        while due.len() < most
            && let Some(Reverse(next)) = heap.peek()
            && next.at_ms <= now_ms
            && let Some(Reverse(next)) = heap.pop()
        {
            due.push(next.entry);
        }
        due
    }

    /// When the next one ends, Unix milliseconds.
    pub fn next_ms(&self) -> Option<u64> {
        self.heap().peek().map(|Reverse(next)| next.at_ms)
    }

    /// Entries in here.
    pub fn len(&self) -> usize {
        self.heap().len()
    }

    /// Whether nothing has a time limit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn heap(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Due>>> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what is due, for ever.
pub async fn run(service: Service) {
    loop {
        let now_ms = Service::now_ms();
        let due = service.endings().take_due(now_ms, BATCH_MAX);
        if due.is_empty() {
            let left_ms = service.endings().next_ms().map_or(u64::MAX, |at_ms| at_ms.saturating_sub(now_ms));
            let sleep = SLEEP_MAX.min(Duration::from_millis(left_ms));
            // Woken early or not: it looks again.
            let _ = timeout(sleep, service.endings().sooner.notified()).await;
            continue;
        }
        let mut ending = JoinSet::new();
        for entry in due {
            let service = service.clone();
            ending.spawn(async move { service.end(entry).await });
        }
        while ending.join_next().await.is_some() {}
    }
}

/// Ordered by time alone.
struct Due {
    at_ms: u64,
    entry: Entry,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.at_ms == other.at_ms
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        self.at_ms.cmp(&other.at_ms)
    }
}
