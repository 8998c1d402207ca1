//! A gate through which at most so many go at a time; the others stand in line, and whoever has many there does not
//! make those wait who have few.
//!
//! Invariant: each key has a line of its own, first come first served; keys take turns. The lines together have a bound.
//! Where they are full, the last one of the longest line makes room for somebody whose line is shorter, so that a flood
//! from one place shuts nobody else out. A place is never lost: it comes back when its [`Pass`] is dropped.
//!
//! With [`Share::Room`] a key may hold as many places as are still free, and no more: one alone gets half of them, two a
//! third each. So a key that has come never finds the gate taken by a slow one (the dynamic threshold of shared-memory
//! switches: Choudhury and Hahne, 1998).

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// How places are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// A key may hold all of them while nobody else asks.
    Turns,
    /// Some always stay free for another key.
    Room,
}

/// Why somebody does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// The line is full.
    Full,
    /// Its time is over.
    Late,
}

/// The gate. Cheap to clone.
pub struct Gate<K: Eq + Hash + Clone> {
    inner: Arc<Inner<K>>,
}

impl<K: Eq + Hash + Clone> Clone for Gate<K> {
    fn clone(&self) -> Gate<K> {
        Gate { inner: self.inner.clone() }
    }
}

/// A place behind the gate, until it is dropped.
pub struct Pass<K: Eq + Hash + Clone> {
    gate: Gate<K>,
    key: K,
}

struct Inner<K> {
    share: Share,
    waiting_max: usize,
    state: Mutex<State<K>>,
}

struct State<K> {
    places: usize,
    taken: usize,
    waiting: usize,
    next_number: u64,
    keys: HashMap<K, Own>,
    /// Keys with somebody in line, each once, in the order of their turns.
    turns: VecDeque<K>,
}

/// What one key has. There is none for a key that has nothing.
#[derive(Default)]
struct Own {
    taken: usize,
    line: VecDeque<(u64, Called)>,
}

/// How whoever stands in line is called. The value: whether the place is theirs.
type Called = oneshot::Sender<bool>;

impl<K: Eq + Hash + Clone> Gate<K> {
    /// With so many places, and so many that may wait for one.
    pub fn new(places: usize, waiting_max: usize, share: Share) -> Gate<K> {
        let state =
            State { places, taken: 0, waiting: 0, next_number: 0, keys: HashMap::new(), turns: VecDeque::new() };
        Gate { inner: Arc::new(Inner { share, waiting_max, state: Mutex::new(state) }) }
    }

    /// From now on with so many places. Those that have one keep it.
    pub fn resize(&self, places: usize) {
        let mut state = self.state();
        if state.places != places {
            state.places = places;
            state.call_next(self.inner.share);
        }
    }

    /// Waits for a place, until `until` at most.
    ///
    /// # Errors
    /// [`Turned`]
    pub async fn enter(&self, key: K, until: Instant) -> Result<Pass<K>, Turned> {
        let mut waiter = {
            let mut state = self.state();
            if state.take(&key, self.inner.share) {
                return Ok(Pass { gate: self.clone(), key });
            }
            if state.waiting >= self.inner.waiting_max && !state.make_room(&key) {
                return Err(Turned::Full);
            }
            let (number, called) = state.line_up(&key);
            Waiter { gate: self, key: &key, number, called, through: false }
        };
        match timeout_at(until, &mut waiter.called).await {
            Ok(Ok(true)) => {
                waiter.through = true;
                drop(waiter);
                Ok(Pass { gate: self.clone(), key })
            }
            Ok(_) => Err(Turned::Full),
            Err(_) => Err(Turned::Late),
        }
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        self.state().taken
    }

    /// Those in line.
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Drop for Pass<K> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.give_back(&self.key);
        state.call_next(self.gate.inner.share);
    }
}

/// A place in line, given up when it is dropped, whoever drops it.
struct Waiter<'g, K: Eq + Hash + Clone> {
    gate: &'g Gate<K>,
    key: &'g K,
    number: u64,
    called: oneshot::Receiver<bool>,
    /// Whether it was called and went through.
    through: bool,
}

impl<K: Eq + Hash + Clone> Drop for Waiter<'_, K> {
    fn drop(&mut self) {
        if self.through {
            return;
        }
        let mut state = self.gate.state();
        state.leave_line(self.key, self.number);
        // Called and gone in the same moment: the place is the next one's.
        if self.called.try_recv() == Ok(true) {
            state.give_back(self.key);
            state.call_next(self.gate.inner.share);
        }
    }
}

impl<K: Eq + Hash + Clone> State<K> {
    fn may(&self, key: &K, share: Share) -> bool {
        let free = self.places.saturating_sub(self.taken);
        match share {
            Share::Turns => free > 0,
            Share::Room => free > self.keys.get(key).map_or(0, |own| own.taken),
        }
    }

    /// Takes a place for somebody who has just come, if nobody of the same key was here first.
    fn take(&mut self, key: &K, share: Share) -> bool {
        let first = self.keys.get(key).is_none_or(|own| own.line.is_empty());
        let can = first && self.may(key, share);
        if can {
            self.taken += 1;
            self.keys.entry(key.clone()).or_default().taken += 1;
        }
        can
    }

    fn give_back(&mut self, key: &K) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(own) = self.keys.get_mut(key) {
            own.taken = own.taken.saturating_sub(1);
        }
        self.forget(key);
    }

    fn line_up(&mut self, key: &K) -> (u64, oneshot::Receiver<bool>) {
        let (call, called) = oneshot::channel();
        self.next_number += 1;
        self.waiting += 1;
        let own = self.keys.entry(key.clone()).or_default();
        if own.line.is_empty() {
            self.turns.push_back(key.clone());
        }
        own.line.push_back((self.next_number, call));
        (self.next_number, called)
    }

    /// Sends the last one of the longest line away, if that line is longer than this key's would become.
    fn make_room(&mut self, key: &K) -> bool {
        let would_be = self.keys.get(key).map_or(0, |own| own.line.len()) + 1;
        let longest = self.keys.iter().max_by_key(|(_, own)| own.line.len());
        let Some((longest, length)) = longest.map(|(key, own)| (key.clone(), own.line.len())) else { return false };
        if length <= would_be {
            return false;
        }
        let last = self.keys.get_mut(&longest).and_then(|own| own.line.pop_back());
        if let Some((_, call)) = last {
            self.waiting -= 1;
            // Whoever it is may have gone in this moment.
            let _ = call.send(false);
        }
        true
    }

    fn leave_line(&mut self, key: &K, number: u64) {
        let Some(own) = self.keys.get_mut(key) else { return };
        // Those who leave because their time is over stand in front.
        if let Some(place) = own.line.iter().position(|(other, _)| *other == number) {
            own.line.remove(place);
            self.waiting -= 1;
            if own.line.is_empty() {
                self.turns.retain(|other| other != key);
            }
            self.forget(key);
        }
    }

    /// Gives free places to those whose turn it is.
    fn call_next(&mut self, share: Share) {
        let mut passed_over = 0;
        while passed_over < self.turns.len() && self.taken < self.places {
            let Some(key) = self.turns.pop_front() else { return };
            if !self.may(&key, share) {
                self.turns.push_back(key);
                passed_over += 1;
                continue;
            }
            passed_over = 0;
            let Some(own) = self.keys.get_mut(&key) else { continue };
            if let Some((_, call)) = own.line.pop_front() {
                self.waiting -= 1;
                if call.send(true).is_ok() {
                    own.taken += 1;
                    self.taken += 1;
                }
            }
            if own.line.is_empty() {
                self.forget(&key);
            } else {
                self.turns.push_back(key);
            }
        }
    }

    fn forget(&mut self, key: &K) {
        if self.keys.get(key).is_some_and(|own| own.taken == 0 && own.line.is_empty()) {
            self.keys.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
