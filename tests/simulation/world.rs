//! The shell that the simulation plays: sockets, workers that sleep and wake, one virtual clock, all from one seed.
//!
//! A worker's tick is cut into its steps, in the order that `shard` states, and the steps of all workers are interleaved
//! as they would be on several cores. A worker sleeps only when `Port::arm` allows it and wakes only when its bell
//! rang, a socket has something, or a deadline came; a starved one is passed over for long.
//!
//! The clock moves in whole ticks of the timing wheel, so that the model knows when a deadline is met; how late one
//! may be between two ticks has a property test of its own. Where rates are low it moves freely.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pipeward::bounds::SWEEP_MS;
use pipeward::mesh::port::mesh;
use pipeward::mesh::Bell;
use pipeward::shard::connection::Handle;
use pipeward::shard::deadlines::TICK_MS;
use pipeward::shard::input::{Input, Now};
use pipeward::shard::output::Output;
use pipeward::shard::shared::Shared;
use pipeward::shard::Shard;

use crate::client::Socket;
use crate::model::{Client, Model, Phase};
use crate::plan::{EPOCH_MS, Plan};
use crate::random::Random;

/// Where a worker is in its tick.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// Take so many more things that happened at sockets.
    Events(usize),
    Rings,
    Time,
    Perform,
    Write,
    Publish,
    Sleep,
    Asleep { since_ms: u64 },
}

struct Worker {
    shard: Shard,
    step: Step,
    bell: Arc<AtomicU64>,
    heard: u64,
    clients: BTreeMap<(u32, u32), Client>,
    /// Sockets that wait to be accepted.
    backlog: Vec<usize>,
    /// How often it could not sleep although there was nothing to do.
    restless: u32,
    /// When it last looked at its deadline.
    timed_ms: u64,
}

pub struct World {
    pub plan: Plan,
    pub random: Random,
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    pub sockets: Vec<Socket>,
    /// Client of the model → socket.
    places: Vec<usize>,
    /// Socket → client of the model.
    clients: BTreeMap<usize, Client>,
    pub model: Model,
    mono_ns: u64,
    /// Everything that the shards gave out, in order.
    pub log: Vec<u8>,
    /// What all shards counted, once all is over.
    pub totals: BTreeMap<String, u64>,
    verbose: bool,
    unique: u64,
    draining: bool,
}

impl World {
    pub fn new(seed: u64, verbose: bool) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        if verbose {
            eprintln!("{plan:#?}");
        }
        let shared = plan.shared(random.next());
        let bells: Vec<Arc<AtomicU64>> = (0..plan.workers).map(|_| Arc::default()).collect();
        let ring = |bell: &Arc<AtomicU64>| {
            let bell = bell.clone();
            Box::new(move || {
                bell.fetch_add(1, Relaxed);
            }) as Box<dyn Bell>
        };
        let ports = mesh(bells.iter().map(ring).collect(), plan.ring_entries);
        let mono_ns = 1_024_000_000 + random.below(1_000_000) as u64;
        let mut world = World {
            model: Model::new(&plan),
            shared,
            workers: Vec::new(),
            sockets: Vec::new(),
            places: Vec::new(),
            clients: BTreeMap::new(),
            mono_ns,
            log: Vec::new(),
            totals: BTreeMap::new(),
            verbose,
            unique: 0,
            draining: false,
            plan,
            random,
        };
        let now = world.now();
        for (port, bell) in ports.into_iter().zip(bells) {
            world.workers.push(Worker {
                shard: Shard::new(world.shared.clone(), port, now),
                step: Step::Events(0),
                bell,
                heard: 0,
                clients: BTreeMap::new(),
                backlog: Vec::new(),
                restless: 0,
                timed_ms: 0,
            });
        }
        world
    }

    /// Plays one whole schedule.
    pub fn run(&mut self) {
        for _ in 0..self.plan.steps {
            self.step();
        }
        self.rest();
        self.everybody_is_served();
        self.everybody_leaves();
        self.nothing_is_left();
    }

    fn now(&self) -> Now {
        Now { mono_ns: self.mono_ns, unix_ms: EPOCH_MS + self.mono_ns / 1_000_000 }
    }

    fn say(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>9} {}", self.mono_ns / 1_000_000, line());
        }
    }

    // ---- the schedule --------------------------------------------------------------------------------------------

    fn step(&mut self) {
        match self.random.below(100) {
            0..=64 => {
                let worker = self.random.below(self.workers.len());
                // The last worker is the one that starves.
                let starves = worker + 1 == self.workers.len() && worker > 0 && self.random.chance(self.plan.starved);
                if !starves {
                    for _ in 0..self.random.between(1, 8) {
                        self.turn(worker);
                    }
                }
            }
            65..=86 => self.client_acts(),
            87..=95 => self.clients_read(),
            _ => self.time_passes(),
        }
    }

    fn client_acts(&mut self) {
        let alive = self.sockets.iter().filter(|socket| !socket.closed).count();
        if alive < self.plan.clients_max && self.random.chance(if alive < 4 { 50 } else { 8 }) {
            return self.connect();
        }
        let Some(socket) = self.any_socket(|socket| socket.talks()) else { return };
        let random = &mut self.random;
        let one = &mut self.sockets[socket];
        match random.below(200) {
            0..=1 => one.ended = true,
            2 => {
                // The stream ends in the middle of something.
                let kept = random.below(one.outgoing.len() + 1);
                if one.outgoing.len() > kept && !one.accepted {
                    return;
                }
                one.ended = true;
            }
            _ => {
                let burst = if random.chance(10) { 12 } else { 3 };
                for _ in 0..random.between(1, burst) {
                    self.unique += 1;
                    if one.talks() {
                        one.talk(random, &self.plan, self.unique);
                    }
                }
            }
        }
        self.tell_items(socket);
    }

    fn connect(&mut self) {
        let worker = self.random.below(self.workers.len());
        let ip = self.random.below(3) as u8;
        let slow = self.plan.rates.is_none() && self.random.chance(self.plan.slow_percent);
        let mute = self.random.chance(10);
        let mut socket = Socket::new(worker, ip, slow, mute);
        if self.random.chance(95) {
            let unix_ms = self.now().unix_ms;
            socket.knock(&mut self.random, &self.plan, unix_ms);
        } else {
            // Says nothing, ever.
            socket.done = true;
        }
        self.sockets.push(socket);
        self.workers[worker].backlog.push(self.sockets.len() - 1);
    }

    /// The kernel finishes writes as the clients read; now and then a socket fails.
    fn clients_read(&mut self) {
        for socket in 0..self.sockets.len() {
            let one = &self.sockets[socket];
            if one.writing.is_some() && !one.write_done && self.random.chance(if one.slow { 2 } else { 60 }) {
                self.finish_write(socket);
            }
        }
    }

    fn finish_write(&mut self, socket: usize) {
        let one = &mut self.sockets[socket];
        let Some(bytes) = &one.writing else { return };
        let bytes = bytes.clone();
        one.write_done = true;
        one.receive(&mut self.random, &bytes);
        self.tell_items(socket);
    }

    fn time_passes(&mut self) {
        let ticks = match self.random.below(20) {
            0 => self.random.between(100, 700),
            1..=4 => self.random.between(10, 40),
            _ => self.random.between(1, 4),
        };
        if self.plan.rates.is_some() {
            let most_ns = ticks.min(60) as u64 * TICK_MS * 1_000_000;
            self.mono_ns += 1 + self.random.next() % most_ns;
        } else {
            self.mono_ns += ticks as u64 * TICK_MS * 1_000_000;
        }
    }

    fn any_socket(&mut self, fits: impl Fn(&Socket) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.sockets.len()).filter(|socket| fits(&self.sockets[*socket])).collect();
        if fitting.is_empty() { None } else { Some(*self.random.pick(&fitting)) }
    }

    /// The model learns what a client sent, once it knows the client.
    fn tell_items(&mut self, socket: usize) {
        let Some(client) = self.clients.get(&socket).copied() else { return };
        for item in self.sockets[socket].items.drain(..).collect::<Vec<_>>() {
            self.say(|| format!("client {client} sends {item:?}"));
            self.model.connections[client].items.push_back(item);
        }
    }

    // ---- one worker ----------------------------------------------------------------------------------------------

    fn turn(&mut self, index: usize) {
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
        let has_work = self.model.has_work(index);
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

    /// Takes one thing that happened at a socket. False: nothing did.
    fn take_event(&mut self, index: usize) -> bool {
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
    fn handle(&mut self, index: usize, input: Input<'_>, tell: impl FnOnce(&mut Model, Now)) {
        let now = self.now();
        self.workers[index].shard.handle(now, input);
        tell(&mut self.model, now);
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
            self.say(|| format!("client {client} gets {}", crate::model::stream::show(chunk.as_ref())));
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
                    self.workers[index].clients.remove(&(handle.slot, handle.generation));
                    one.closed = true;
                    self.model.leave(client, Phase::Gone);
                    let _ = reset;
                }
            }
        }
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
            self.say(|| format!("client {client} gets {}", crate::model::stream::show(chunk.as_ref())));
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
        let own = |connection: &&crate::model::Connection| connection.worker == index;
        let open = self.model.connections.iter().filter(own).filter(|one| one.phase == Phase::Open);
        let subscriptions: usize = open.clone().map(|one| one.subscriptions.len()).sum();
        if !self.model.is_observed() {
            assert_eq!(worker.shard.open_connections(), open.count(), "open on {index}: {}", worker.shard.counters());
            assert_eq!(worker.shard.pipes().subscriptions() as usize, subscriptions, "subscriptions");
        }
        assert!(self.shared.registry.len() <= crate::plan::PIPES.len(), "pipes that nobody named");
    }

    // ---- the end -------------------------------------------------------------------------------------------------

    /// Everybody reads, nobody acts: all that can be done is done.
    fn rest(&mut self) {
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
            let asleep = |step: &Step| matches!(step, Step::Asleep { .. });
            let still = self.workers.iter().zip(&before).all(|(worker, before)| asleep(before) && worker.step == *before);
            let writing = self.sockets.iter().any(|socket| socket.writing.is_some() && !socket.closed);
            if still && !writing {
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
        let whole = |connection: &crate::model::Connection| {
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
    fn everybody_is_served(&self) {
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

    fn everybody_leaves(&mut self) {
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

    fn nothing_is_left(&mut self) {
        self.rest();
        assert!(self.sockets.iter().all(|socket| socket.closed), "a socket is never closed");
        let mut totals: BTreeMap<String, u64> = BTreeMap::new();
        for worker in &mut self.workers {
            let shard = &mut worker.shard;
            assert_eq!((shard.connections(), shard.open_connections()), (0, 0), "connections");
            assert_eq!((shard.pipes().known(), shard.pipes().subscriptions()), (0, 0), "pipes");
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
        assert!(self.shared.registry.is_empty(), "{} pipes are left", self.shared.registry.len());
        let admission = &self.shared.admission;
        assert_eq!((admission.connections(), admission.subjects()), (0, 0), "seats are left");
        assert!(self.shared.loads.iter().all(|load| load.load(Relaxed) == 0), "loads are left");
        assert_eq!(totals["missed"], 0);
        assert_eq!(totals["pushed"], totals["taken"], "entries were lost in the rings");
        self.counters_agree(&totals);
        self.totals = totals;
    }

    /// What the shards counted is what the model counted.
    fn counters_agree(&self, totals: &BTreeMap<String, u64>) {
        let own = |name: &str| self.model.counts.get(name).copied().unwrap_or_default();
        let slow = own("closed[4413]") > 0 || totals.get("events_dropped").copied().unwrap_or_default() > 0;
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
fn totals_of(counters: &pipeward::shard::counters::Counters) -> Vec<(String, u64)> {
    let text = counters.to_string();
    let pairs = text.split_whitespace().filter_map(|pair| pair.rsplit_once('='));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}
