//! The end of a schedule: everything comes to rest, everybody was served, all leave, and nothing is left of them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use pipeward::shard::counters::Counters;
use pipeward::shard::deadlines::TICK_MS;
use pipeward::shard::input::Input;

use super::{Step, World};
use crate::client::Socket;
use crate::model::{Connection, Phase};

impl World {
    /// Everybody reads, nobody acts: all that can be done is done.
    pub(super) fn rest(&mut self) {
        for socket in &mut self.sockets {
            socket.slow = false;
        }
        for round in 0..200_000 {
            for socket in 0..self.sockets.len() {
                if self.sockets[socket].writing.is_some() && !self.sockets[socket].write_done {
                    self.finish_write(socket);
                }
            }
            let before: Vec<Step> = self.workers.iter().map(|worker| worker.step).collect();
            for worker in 0..self.workers.len() {
                self.turn(worker);
            }
            let calls = self.all_calls_go_on();
            let asleep = |step: &Step| matches!(step, Step::Asleep { .. });
            let still =
                self.workers.iter().zip(&before).all(|(worker, before)| asleep(before) && worker.step == *before);
            let writing = self.sockets.iter().any(|socket| socket.writing.is_some() && !socket.closed);
            if still && !writing && !calls {
                if !self.model.is_observed() || !self.somebody_is_held() {
                    return;
                }
                // Rates: what is held goes on in its time.
                self.mono_ns += 10_000_000;
            }
            assert!(round < 199_999, "there is no end to it: {before:?}");
        }
    }

    fn somebody_is_held(&self) -> bool {
        let whole = |connection: &Connection| {
            let complete = connection.items.iter().any(|item| item.end <= connection.delivered);
            connection.phase == Phase::Open && complete
        };
        let unread = |socket: &Socket| !socket.closed && socket.accepted && !socket.outgoing.is_empty();
        self.model.connections.iter().any(whole)
            || (0..self.sockets.len()).any(|socket| unread(&self.sockets[socket]) && self.is_open(socket))
    }

    fn is_open(&self, socket: usize) -> bool {
        self.clients.get(&socket).is_some_and(|client| self.model.connections[*client].phase == Phase::Open)
    }

    /// INVARIANTS 13: nobody waits for ever.
    pub(super) fn everybody_is_served(&self) {
        for (client, connection) in self.model.connections.iter().enumerate() {
            assert!(connection.waits_for.is_none(), "client {client} waits for room for ever");
            self.model.nothing_waits(client);
            if connection.phase == Phase::Open {
                let left = connection.items.iter().find(|item| item.end <= connection.delivered);
                assert!(left.is_none(), "client {client} gets no answer to {left:?}");
            }
        }
        for worker in &self.workers {
            assert!(!worker.shard.has_writes());
        }
    }

    pub(super) fn everybody_leaves(&mut self) {
        self.draining = self.random.chance(20);
        if self.draining {
            self.shared.drain();
            for worker in 0..self.workers.len() {
                self.handle(worker, Input::Drain, |model, now| model.drain(now, worker));
                self.workers[worker].shard.port().disarm();
                self.workers[worker].step = Step::Rings;
            }
        } else {
            for socket in 0..self.sockets.len() {
                if self.sockets[socket].talks() && self.random.chance(40) && self.is_open(socket) {
                    self.sockets[socket].close(&mut self.random);
                    self.tell_items(socket);
                } else {
                    self.sockets[socket].ended = true;
                }
            }
        }
        for round in 0..200 {
            self.rest();
            if self.sockets.iter().all(|socket| socket.closed) {
                break;
            }
            if round > 100 {
                for socket in &mut self.sockets {
                    socket.ended = true;
                }
            }
            self.mono_ns += 9 * TICK_MS * 1_000_000;
        }
    }

    pub(super) fn nothing_is_left(&mut self) {
        self.rest();
        assert!(self.sockets.iter().all(|socket| socket.closed), "a socket is never closed");
        let mut totals: BTreeMap<String, u64> = BTreeMap::new();
        for worker in &mut self.workers {
            let shard = &mut worker.shard;
            assert_eq!((shard.connections(), shard.open_connections()), (0, 0), "connections");
            assert_eq!((shard.pipes().known(), shard.pipes().subscriptions()), (0, 0), "pipes");
            assert!(shard.next_write().is_none(), "a write is left");
            assert_eq!(shard.frame_bytes(), 0, "bytes of frames");
            assert!(!shard.has_stalled(), "somebody who left still waits for room");
            let port = shard.port().counters();
            for (name, value) in [("pushed", port.pushed), ("taken", port.taken), ("missed", port.missed)] {
                *totals.entry(name.into()).or_default() += value;
            }
            for (name, value) in totals_of(shard.counters()) {
                *totals.entry(name).or_default() += value;
            }
        }
        let port = self.control.counters();
        for (name, value) in [("pushed", port.pushed), ("taken", port.taken), ("missed", port.missed)] {
            *totals.entry(name.into()).or_default() += value;
        }
        assert!(self.shared.registry.is_empty(), "{} pipes are left", self.shared.registry.len());
        let admission = &self.shared.admission;
        assert_eq!((admission.connections(), admission.subjects()), (0, 0), "seats are left");
        assert!(self.shared.loads.iter().all(|load| load.load(Relaxed) == 0), "loads are left");
        assert_eq!(totals["missed"], 0);
        assert_eq!(totals["pushed"], totals["taken"], "entries were lost in the rings");
        self.counters_agree(&totals);
        self.records_agree(&totals);
        totals.extend(self.model.told.iter().map(|(name, count)| (format!("told {name}"), *count)));
        totals.extend(self.control.done.iter().map(|(name, count)| (format!("call {name}"), *count)));
        self.totals = totals;
    }

    /// GD-9: each outcome of a handshake and each close of ours has its record. Denials are gathered, and those of a
    /// connection that ends first are told when we close it.
    fn records_agree(&self, totals: &BTreeMap<String, u64>) {
        let records = &self.model.records;
        for name in records.keys().chain(totals.keys()) {
            let [recorded, counted] = [records, totals].map(|map| map.get(name).copied().unwrap_or_default());
            if name.starts_with("denied[") {
                assert!(recorded <= counted, "{name}: {recorded} recorded, {counted} counted");
            } else if name == "welcomed" || name.starts_with("refused[") || name.starts_with("closed[") {
                let peers_own = name == "closed[1000]";
                assert!(peers_own || recorded == counted, "{name}: {recorded} recorded, {counted} counted");
            }
        }
    }

    /// What the shards counted is what the model counted.
    fn counters_agree(&self, totals: &BTreeMap<String, u64>) {
        let own = |name: &str| self.model.counts.get(name).copied().unwrap_or_default();
        let unsure = self.model.told.contains_key("too much at once");
        let slow = unsure || own("closed[4413]") > 0 || totals.get("events_dropped").copied().unwrap_or_default() > 0;
        for name in totals.keys().chain(self.model.counts.keys()) {
            let skipped = match name.as_str() {
                // Of these the model has its own idea, or none.
                "pushed" | "taken" | "missed" | "stale" | "writes" | "bytes_out" | "message_bytes_in" => true,
                "events_dropped" | "over_budget" | "slowed" | "throttled" => true,
                "events_out" => slow || self.model.is_observed(),
                "ring_full" | "denied[RATE_LIMITED]" | "handshakes_abandoned" => self.model.is_observed(),
                name => self.model.is_observed() && name.starts_with("closed["),
            };
            if !skipped {
                assert_eq!(totals.get(name).copied().unwrap_or_default(), own(name), "counter {name}");
            }
        }
    }
}

/// Every counter that is not 0, as it is written into the log.
fn totals_of(counters: &Counters) -> Vec<(String, u64)> {
    let text = counters.to_string();
    let pairs = text.split_whitespace().filter_map(|pair| pair.rsplit_once('='));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}
