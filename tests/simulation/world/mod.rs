//! The shell that the simulation plays: sockets, workers that sleep and wake, one virtual clock, all from one seed.
//!
//! A worker's tick is cut into its steps, in the order that `shard` states, and the steps of all workers are interleaved
//! as they would be on several cores. A worker sleeps only when `Port::arm` allows it and wakes only when its bell
//! rang, a socket has something, or a deadline came; a starved one is passed over for long.
//!
//! The clock moves in whole ticks of the timing wheel, so that the model knows when a deadline is met; how late one
//! may be between two ticks has a property test of its own. Where rates are low it moves freely.

mod control;
mod ending;
mod turns;
mod wishes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pipeward::mesh::Bell;
use pipeward::mesh::port::mesh;
use pipeward::shard::Shard;
use pipeward::shard::connection::Handle;
use pipeward::shard::deadlines::TICK_MS;
use pipeward::shard::input::Now;
use pipeward::shard::shared::Shared;

use crate::client::Socket;
use crate::model::{Client, Model};
use crate::plan::{EPOCH_MS, Plan};
use crate::random::Random;
use control::Control;

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
    Asleep {
        since_ms: u64,
    },
}

struct Worker {
    shard: Shard,
    step: Step,
    bell: Arc<AtomicU64>,
    heard: u64,
    clients: BTreeMap<(u32, u32), Client>,
    /// Handles of connections that have ended: none is ever given out again.
    dead: Vec<Handle>,
    /// Sockets that wait to be accepted.
    backlog: Vec<usize>,
    /// How often it could not sleep although there was nothing to do.
    restless: u32,
    /// Entries that it has pushed and taken and messages that it has read when it last wanted to sleep.
    done: (u64, u64, u64),
    /// When it last looked at its deadline.
    timed_ms: u64,
}

pub struct World {
    pub plan: Plan,
    pub random: Random,
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    control: Control,
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
        // One more than workers: the control thread.
        let bells: Vec<Arc<AtomicU64>> = (0..=plan.workers).map(|_| Arc::default()).collect();
        let ring = |bell: &Arc<AtomicU64>| {
            let bell = bell.clone();
            Box::new(move || {
                bell.fetch_add(1, Relaxed);
            }) as Box<dyn Bell>
        };
        let mut ports = mesh(bells.iter().map(ring).collect(), plan.ring_entries);
        let control = Control::new(ports.pop().expect("there is one for each bell"));
        let mono_ns = 1_024_000_000 + random.below(1_000_000) as u64;
        let mut world = World {
            model: Model::new(&plan),
            shared,
            workers: Vec::new(),
            control,
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
                dead: Vec::new(),
                backlog: Vec::new(),
                restless: 0,
                done: (0, 0, 0),
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
        if self.random.chance(self.plan.control_percent) {
            self.application_calls();
        }
        if self.random.chance(40) {
            self.calls_go_on();
        }
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
        let unix_ms = self.now().unix_ms;
        let random = &mut self.random;
        let one = &mut self.sockets[socket];
        match random.below(200) {
            0..=1 => one.ended = true,
            2 => return self.cut_off(socket),
            _ => {
                let burst = if random.chance(10) { 12 } else { 3 };
                for _ in 0..random.between(1, burst) {
                    self.unique += 1;
                    if one.talks() {
                        one.talk(random, &self.plan, unix_ms, self.unique);
                    }
                }
            }
        }
        self.tell_items(socket);
    }

    /// The stream ends in the middle of something: what was not handed in yet is lost from some byte on.
    fn cut_off(&mut self, socket: usize) {
        let Some(client) = self.clients.get(&socket).copied() else { return };
        let one = &mut self.sockets[socket];
        let kept = self.random.below(one.outgoing.len() + 1);
        let total = one.sent_bytes - (one.outgoing.len() - kept) as u64;
        let items = &mut self.model.connections[client].items;
        if items.iter().any(|item| item.whole && item.start < total && total < item.end) {
            return;
        }
        one.outgoing.truncate(kept);
        one.sent_bytes = total;
        one.ended = true;
        items.retain(|item| item.start < total);
        items.iter_mut().filter(|item| item.end > total).for_each(|item| item.end = u64::MAX);
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
}
