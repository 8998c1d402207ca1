//! One worker's tick, step by step, in the order that `shard` states; and how it sleeps and wakes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use pipeward::bounds::SWEEP_MS;
use pipeward::shard::connection::Handle;
use pipeward::shard::deadlines::TICK_MS;
use pipeward::shard::input::{Input, Now};
use pipeward::shard::output::Output;

use super::{Step, World};
use crate::client::Socket;
use crate::model::stream::show;
use crate::model::{Client, Connection, Model, Phase};
use crate::plan::PIPES;

impl World {
    pub(super) fn turn(&mut self, index: usize) {
        self.bounds_hold(index);
        match self.workers[index].step {
            Step::Events(0) => self.workers[index].step = Step::Rings,
            Step::Events(left) => {
                let more = self.take_event(index);
                self.workers[index].step = if more { Step::Events(left - 1) } else { Step::Rings };
            }
            Step::Rings => {
                self.handle(index, Input::Rings, |model, now| model.rings(now, index));
                self.workers[index].step = Step::Time;
            }
            Step::Time => {
                let now = self.now();
                self.workers[index].timed_ms = now.ms();
                if self.workers[index].shard.deadline_ms().is_some_and(|at_ms| at_ms <= now.ms()) {
                    self.handle(index, Input::Time, |model, now| model.time(now, index));
                }
                self.workers[index].step = Step::Perform;
            }
            Step::Perform => {
                self.perform(index);
                self.workers[index].step = Step::Write;
            }
            Step::Write => {
                let most = if self.random.chance(20) { self.random.below(3) } else { usize::MAX };
                self.write(index, most);
                self.workers[index].step = Step::Publish;
            }
            Step::Publish => {
                self.workers[index].shard.publish();
                self.model.publish(index);
                self.workers[index].step = Step::Sleep;
            }
            Step::Sleep => self.try_to_sleep(index),
            Step::Asleep { since_ms } => self.try_to_wake(index, since_ms),
        }
    }

    fn next_tick(&mut self) -> Step {
        Step::Events(self.random.below(6))
    }

    fn try_to_sleep(&mut self, index: usize) {
        let now = self.now();
        let next = self.next_tick();
        let has_events = self.has_events(index);
        let has_work = self.model.has_work(index);
        let worker = &mut self.workers[index];
        worker.step = next;
        if worker.shard.has_writes() {
            return;
        }
        // Whoever moves something on is not restless: it may wait for room anew each time.
        let counters = worker.shard.port().counters();
        let done = (counters.pushed, counters.taken, worker.shard.counters().messages_in);
        if std::mem::replace(&mut worker.done, done) != done {
            worker.restless = 0;
        }
        self.model.unrelieved[index] = false;
        if !worker.shard.port().arm() {
            worker.restless = if has_work { 0 } else { worker.restless + 1 };
            assert!(worker.restless < 4, "worker {index} cannot sleep although there is nothing to do");
            return;
        }
        worker.restless = 0;
        assert!(!has_work, "worker {index} may sleep although it has work");
        if has_events {
            worker.shard.port().disarm();
            return;
        }
        if self.plan.rates.is_none()
            && let Some(due_ms) = self.model.deadline_ms(index, now)
        {
            let woken_ms = self.workers[index].shard.deadline_ms();
            let late = woken_ms.is_none_or(|at_ms| at_ms > due_ms.next_multiple_of(TICK_MS).max(now.ms() + TICK_MS));
            assert!(!late, "worker {index} would sleep until {woken_ms:?}, something is due at {due_ms}");
        }
        self.workers[index].step = Step::Asleep { since_ms: now.ms() };
        self.say(|| format!("worker {index} sleeps"));
    }

    fn try_to_wake(&mut self, index: usize, since_ms: u64) {
        let now = self.now();
        let has_events = self.has_events(index);
        let next = self.next_tick();
        let has_work = self.model.has_rung_work(index);
        let worker = &mut self.workers[index];
        let rung = worker.bell.load(Relaxed) != worker.heard;
        let due = worker.shard.deadline_ms().is_some_and(|at_ms| at_ms <= now.ms());
        assert!(rung || !has_work, "worker {index} has work, and nobody rang");
        if rung || has_events {
            worker.heard = worker.bell.load(Relaxed);
            worker.shard.port().disarm();
        } else if due || now.ms() >= since_ms + SWEEP_MS {
            assert!(!worker.shard.port().sweep(), "only the sweep found work");
        } else {
            return;
        }
        worker.step = next;
        self.say(|| format!("worker {index} wakes (bell {rung}, sockets {has_events})"));
    }

    fn has_events(&self, index: usize) -> bool {
        let happens = |socket: &Socket| socket.worker == index && self.has_event(socket);
        !self.workers[index].backlog.is_empty() || self.sockets.iter().any(happens)
    }

    fn has_event(&self, socket: &Socket) -> bool {
        let readable = !socket.paused && !socket.outgoing.is_empty();
        let ended = socket.ended && !socket.end_seen && socket.outgoing.is_empty();
        socket.accepted && !socket.closed && (readable || ended || socket.write_done)
    }

    /// Something comes late, for a connection whose slot may have been taken since (INVARIANTS 2).
    fn take_late(&mut self, index: usize) {
        let connection = *self.random.pick(&self.workers[index].dead);
        let mut bytes = *b"too late";
        let input = match self.random.below(4) {
            0 => Input::Received { connection, bytes: &mut bytes },
            1 => Input::Ended { connection },
            2 => Input::Sent { connection, ok: true },
            _ => Input::Sent { connection, ok: false },
        };
        self.handle(index, input, |_, _| {});
    }

    /// Takes one thing that happened at a socket. False: nothing did.
    fn take_event(&mut self, index: usize) -> bool {
        if !self.workers[index].dead.is_empty() && self.random.chance(4) {
            self.take_late(index);
        }
        if !self.workers[index].backlog.is_empty() && self.random.chance(50) {
            let socket = self.workers[index].backlog.remove(0);
            self.accept(index, socket);
            return true;
        }
        let happening: Vec<usize> = (0..self.sockets.len())
            .filter(|socket| self.sockets[*socket].worker == index && self.has_event(&self.sockets[*socket]))
            .collect();
        if happening.is_empty() {
            return !self.workers[index].backlog.is_empty();
        }
        let socket = *self.random.pick(&happening);
        let client = self.clients[&socket];
        let connection = self.model.connections[client].handle;
        if self.sockets[socket].write_done {
            self.sockets[socket].write_done = false;
            self.sockets[socket].writing = None;
            let ok = !self.random.chance(1);
            self.say(|| format!("client {client}: a write is done, ok {ok}"));
            self.handle(index, Input::Sent { connection, ok }, |model, _| {
                model.sent(client);
                if !ok {
                    model.ended(client, true);
                }
            });
        } else if self.sockets[socket].outgoing.is_empty() {
            self.sockets[socket].end_seen = true;
            self.say(|| format!("client {client} ended its stream"));
            self.handle(index, Input::Ended { connection }, |model, _| model.ended(client, false));
        } else {
            let count = self.cut(socket, client);
            let mut bytes: Vec<u8> = self.sockets[socket].outgoing.drain(..count).collect();
            self.say(|| format!("client {client}: {count} bytes"));
            let input = Input::Received { connection, bytes: &mut bytes };
            self.handle(index, input, |model, now| model.received(now, client, count));
        }
        true
    }

    /// How many bytes come in one receive: any number, but nothing that must stay whole is cut.
    fn cut(&mut self, socket: usize, client: Client) -> usize {
        let available = self.sockets[socket].outgoing.len();
        let count = match self.random.below(10) {
            0..=3 => available,
            4 => 1,
            _ => self.random.between(1, available),
        };
        let connection = &self.model.connections[client];
        let end = connection.delivered + count as u64;
        let cut = connection.items.iter().find(|item| item.whole && item.start < end && end < item.end);
        cut.map_or(count, |item| (item.end - connection.delivered) as usize)
    }

    fn accept(&mut self, index: usize, socket: usize) {
        let now = self.now();
        let ip = self.sockets[socket].ip;
        let peer = SocketAddr::from(([10, 0, 0, ip], 1_000 + socket as u16));
        let handle = self.workers[index].shard.accept(now, peer);
        let worker = &self.workers[index];
        let known = worker.clients.contains_key(&(handle.slot, handle.generation)) || worker.dead.contains(&handle);
        assert!(!known, "{handle:?} is given out twice");
        let client = self.model.accept(now, index, handle, ip);
        self.say(|| format!("client {client} connects to worker {index} as {handle:?}"));
        self.places.push(socket);
        self.clients.insert(socket, client);
        // As the shell does: what ended to make room is given up before its slot is used again.
        self.perform(index);
        self.workers[index].clients.insert((handle.slot, handle.generation), client);
        self.sockets[socket].accepted = true;
        self.tell_items(socket);
    }

    /// One input for the shard, and the same for the model.
    pub(super) fn handle(&mut self, index: usize, input: Input<'_>, tell: impl FnOnce(&mut Model, Now)) {
        let now = self.now();
        self.workers[index].shard.handle(now, input);
        self.model.unix_ms = now.unix_ms;
        tell(&mut self.model, now);
        self.take_answers(index);
        if self.model.is_observed() {
            self.observe(index, now);
        }
        for (other, depth) in self.depths(index) {
            let expected = self.model.depth(index, other).0;
            assert_eq!(depth, expected, "entries from worker {index} to {other}");
        }
    }

    fn depths(&mut self, index: usize) -> Vec<(usize, usize)> {
        let others = (0..self.workers.len()).filter(|other| *other != index).collect::<Vec<_>>();
        let port = self.workers[index].shard.port();
        others.into_iter().map(|other| (other, port.outbound_depth(other))).collect()
    }

    /// Everything goes out at once, and the model learns from it what was done.
    fn observe(&mut self, index: usize, now: Now) {
        let mut fresh: BTreeMap<Client, Vec<u8>> = BTreeMap::new();
        while let Some((handle, chunk)) = self.workers[index].shard.next_write() {
            let client = self.client(index, handle);
            self.log.extend_from_slice(chunk.as_ref());
            self.say(|| format!("client {client} gets {}", show(chunk.as_ref())));
            fresh.entry(client).or_default().extend_from_slice(chunk.as_ref());
            drop(chunk);
            self.workers[index].shard.handle(now, Input::Sent { connection: handle, ok: true });
        }
        for (client, bytes) in &fresh {
            let socket = self.places[*client];
            self.sockets[socket].receive(&mut self.random, bytes);
        }
        self.model.observe(now, fresh.clone());
        for client in fresh.keys() {
            self.tell_items(self.places[*client]);
        }
    }

    fn client(&self, index: usize, handle: Handle) -> Client {
        let known = self.workers[index].clients.get(&(handle.slot, handle.generation));
        *known.unwrap_or_else(|| panic!("worker {index} speaks of {handle:?}, which nobody has"))
    }

    fn perform(&mut self, index: usize) {
        let mut outputs = Vec::new();
        self.workers[index].shard.take_outputs(&mut outputs);
        let timed_ms = self.workers[index].timed_ms;
        for output in outputs {
            self.log.extend_from_slice(format!("{index} {output:?}\n").as_bytes());
            let handle = match output {
                Output::Pause(handle) | Output::Resume(handle) | Output::Finish(handle) => handle,
                Output::Close { connection, .. } => connection,
                Output::Record(record) => {
                    self.model.recorded(&record);
                    continue;
                }
                Output::Reauthorized(revocation) => {
                    self.model.reauthorized(index, &revocation);
                    self.control.reauthorized.push_back(revocation);
                    continue;
                }
                Output::Call(_) => unreachable!("no rule here is the application's"),
                Output::UnknownQueue(_) => continue,
            };
            let Some(client) = self.workers[index].clients.get(&(handle.slot, handle.generation)).copied() else {
                continue;
            };
            self.say(|| format!("client {client}: {output:?}"));
            let socket = self.places[client];
            let phase = self.model.connections[client].phase;
            let one = &mut self.sockets[socket];
            match output {
                Output::Pause(_) => one.paused = true,
                Output::Resume(_) => one.paused = false,
                Output::Finish(_) => {
                    assert!(matches!(phase, Phase::Closing { .. } | Phase::Gone), "finished, but {phase:?}");
                    assert!(one.writing.is_none() || one.write_done, "finished while a write is under way");
                    one.finished = true;
                    one.ended |= !one.mute;
                }
                Output::Close { reset, .. } => {
                    let connection = &self.model.connections[client];
                    let out = connection.sending == 0 && connection.expected.is_empty();
                    let closing = matches!(phase, Phase::Closing { .. });
                    let clean = closing && connection.peer_done && out && !one.end_seen;
                    assert!(!clean || one.finished, "client {client} closed and gets no end of the stream");
                    assert!(!(reset && closing && out), "client {client} is reset although all was sent");
                    self.workers[index].clients.remove(&(handle.slot, handle.generation));
                    self.workers[index].dead.push(handle);
                    one.closed = true;
                    self.model.leave(client, Phase::Gone);
                }
                Output::Record(_) | Output::Reauthorized(_) | Output::Call(_) | Output::UnknownQueue(_) => {
                    unreachable!("taken above")
                }
            }
        }
        let untold = self.model.ended.iter().find(|(worker, _)| *worker == index);
        assert!(untold.is_none(), "ended by a later token, and not told: {untold:?}");
        for (client, connection) in self.model.connections.iter().enumerate() {
            let one = &self.sockets[self.places[client]];
            if connection.worker != index || one.closed {
                continue;
            }
            assert!(connection.phase != Phase::Gone, "the socket of client {client} is not closed");
            let late = matches!(connection.phase, Phase::Closing { until_ms } if timed_ms >= until_ms + TICK_MS);
            assert!(!late, "client {client} is closing for ever");
            if connection.phase == Phase::Open && !self.model.is_observed() {
                assert_eq!(one.paused, connection.waits_for.is_some(), "client {client} is paused and waits");
            }
        }
    }

    fn write(&mut self, index: usize, most: usize) {
        for _ in 0..most {
            let Some((handle, chunk)) = self.workers[index].shard.next_write() else {
                let own = |client: &Client| self.model.connections[*client].worker == index;
                for client in (0..self.model.connections.len()).filter(own) {
                    self.model.nothing_waits(client);
                }
                return;
            };
            let client = self.client(index, handle);
            self.log.extend_from_slice(chunk.as_ref());
            self.say(|| format!("client {client} gets {}", show(chunk.as_ref())));
            let socket = self.places[client];
            assert!(!self.sockets[socket].finished, "a write after the end of the stream");
            assert!(self.sockets[socket].writing.is_none(), "two writes at a time");
            self.model.written(client, chunk.as_ref());
            self.sockets[socket].writing = Some(chunk.as_ref().to_vec());
        }
    }

    fn bounds_hold(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        assert_eq!(worker.shard.port().counters().missed, 0, "a bell was missed");
        let own = |connection: &&Connection| connection.worker == index;
        let open = self.model.connections.iter().filter(own).filter(|one| one.phase == Phase::Open);
        let subscriptions: usize = open.clone().map(|one| one.subscriptions.len()).sum();
        if !self.model.is_observed() {
            assert_eq!(worker.shard.open_connections(), open.count(), "open on {index}: {}", worker.shard.counters());
            assert_eq!(worker.shard.pipes().subscriptions() as usize, subscriptions, "subscriptions");
        }
        assert!(self.shared.registry.len() <= PIPES.len(), "pipes that nobody named");
    }
}
