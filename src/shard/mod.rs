//! The shard: one worker's connections, what they may do, and what waits to be sent to them.
//!
//! A deterministic machine: no socket, clock, thread or randomness in it. The same inputs at the same times give the
//! same outputs, which is what `tests/simulation` relies on.
//!
//! # Call order
//! For each thing that happened: [`Shard::accept`] for a new socket, [`Shard::handle`] for everything else. Then perform
//! every [`Output`] of [`Shard::take_outputs`], then start writes: [`Shard::next_write`] until it answers nothing, and
//! report each with [`Input::Sent`] when the kernel is done with it. [`Shard::deadline_ms`] says when to come back with
//! [`Input::Time`]. Before sleeping, hand what was pushed to other workers over with [`Shard::publish`].
//!
//! # Reading order
//! [`input`] (all that can happen) and [`output`] (all that it can ask for) · `connection` (the life of one), `burden` and
//! `rare` (what it has only at times) · `greeting` and `authorizing` (handshake and admission) · `requests` (what a message
//! does: `charging`, `rights`, `subscribing`, `publishing`, `calling`, `asking`, `awaiting`, `suspended`) · [`grants`] ·
//! [`pipes`] · `delivery` · [`call`] · [`presence`] and `attendance` · [`frames`], [`outbox`] and `turns` · `closing` ·
//! [`throttle`] and [`rate`] · [`deadlines`].

pub mod admission;
mod asking;
mod attendance;
mod auditing;
mod authorizing;
mod awaiting;
mod burden;
pub mod call;
mod calling;
mod charging;
mod closing;
pub mod command;
mod commands;
pub mod connection;
pub mod counters;
pub mod deadlines;
mod delivery;
pub mod frames;
pub mod grants;
mod greeting;
pub mod input;
pub mod outbox;
pub mod output;
mod people;
pub mod pipes;
pub mod presence;
mod publishing;
mod rare;
pub mod rate;
mod reading;
pub mod record;
mod refresh;
mod requests;
pub mod revocation;
mod rights;
pub mod shared;
mod subscribing;
mod suspended;
pub mod throttle;
mod turns;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use attendance::Attendance;
use awaiting::InHand;
use command::{Settling, Ticks};
use connection::{Greeting, Handle, Open, Slot, Stalled, State};
use counters::Counters;
use deadlines::{Deadlines, Wake};
use delivery::Parcel;
use frames::{Chunk, Frame};
use input::{Input, Now};
use outbox::{Gatherer, Outbox, Pushed};
use output::Output;
use people::People;
use pipes::Pipes;
use shared::{Settings, Shared};
use suspended::Suspended;
use turns::Turns;

use crate::bounds::{
    HANDSHAKE_GRACE_MS, HANDSHAKES_PENDING_MAX, HANDSHAKES_PENDING_PER_IP_MAX, WORKER_ASSEMBLY_BYTES_MAX,
    WORKER_QUEUE_BYTES_MAX, WRITE_BYTES_MAX,
};
use crate::mesh::port::Port;
use crate::protocol::codes::CloseCode;
use crate::protocol::peer::cap_key;

pub use delivery::Parcel as MeshParcel;

/// One worker's connections. See the module for the order of calls.
pub struct Shard {
    shared: Arc<Shared>,
    /// The settings in force here; replaced between two inputs.
    settings: Arc<Settings>,
    worker: usize,
    port: Port<Parcel>,
    slots: Vec<Slot>,
    /// Queue heads, dense and apart from the cold state: what a delivery touches.
    outboxes: Vec<Outbox>,
    free: Vec<u32>,
    gatherer: Gatherer,
    /// Connections with something to write.
    turns: Turns,
    /// Connections with much waiting that were not yet given a write.
    pressed: usize,
    /// Bytes of events delivered in this turn, each counted once.
    turn_bytes: usize,
    /// Connections that could not take one more delivery, to be closed when the fan-out is done.
    too_slow: Vec<u32>,
    pipes: Pipes,
    suspended: Suspended,
    people: People,
    attendance: Attendance,
    deadlines: Deadlines,
    /// Held input that waits for a time, which is met to the millisecond: rates are finer than the wheel.
    pauses: BinaryHeap<Reverse<(u64, u32, u32)>>,
    due: Vec<(Handle, Wake)>,
    /// Handshakes under way, oldest first; entries of ended ones are skipped.
    greeting: VecDeque<Handle>,
    greetings: usize,
    /// Since when everybody is let go, in milliseconds.
    drained_ms: Option<u64>,
    /// When each place is let go. Empty until the server drains.
    leave_at_ms: Vec<u64>,
    /// Handshakes for which the application is asked.
    authorizing: usize,
    /// Calls under way for subscriptions that are decided again.
    rechecks: usize,
    /// Connections with such subscriptions that have not had their turn, each once.
    rechecks_due: VecDeque<Handle>,
    /// Answers of the application for the message that is being judged.
    in_hand: InHand,
    open: usize,
    /// Connections whose messages wait for room, and in which rings.
    stalled: VecDeque<Stalled>,
    /// The control thread waits for these; it asks for one at a time of each user.
    settling: Vec<Settling>,
    /// Bytes of unfinished and held messages.
    assembly_bytes: usize,
    outputs: Vec<Output>,
    counters: Counters,
    ticks: Ticks,
}

impl Shard {
    /// An empty shard. `port` is this worker's end of the mesh.
    pub fn new(shared: Arc<Shared>, port: Port<Parcel>, now: Now) -> Shard {
        let worker = port.worker();
        let pipes = Pipes::new(worker, shared.registry.clone());
        let settings = shared.settings();
        Shard {
            shared,
            settings,
            worker,
            port,
            slots: Vec::new(),
            outboxes: Vec::new(),
            free: Vec::new(),
            gatherer: Gatherer::default(),
            turns: Turns::default(),
            pressed: 0,
            turn_bytes: 0,
            too_slow: Vec::new(),
            pipes,
            suspended: Suspended::default(),
            people: People::default(),
            attendance: Attendance::default(),
            deadlines: Deadlines::new(now.ms()),
            pauses: BinaryHeap::new(),
            due: Vec::new(),
            greeting: VecDeque::new(),
            greetings: 0,
            drained_ms: None,
            leave_at_ms: Vec::new(),
            authorizing: 0,
            rechecks: 0,
            rechecks_due: VecDeque::new(),
            in_hand: InHand::default(),
            open: 0,
            stalled: VecDeque::new(),
            settling: Vec::new(),
            assembly_bytes: 0,
            outputs: Vec::new(),
            counters: Counters::default(),
            ticks: Ticks::default(),
        }
    }

    /// A socket was accepted. Returns the handle by which it is known from now on.
    pub fn accept(&mut self, now: Now, peer: SocketAddr) -> Handle {
        self.counters.accepted += 1;
        self.shared.loads[self.worker].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let trusted = self.settings.config.edge.trusted_proxies.contains(peer.ip());
        let address = cap_key(peer.ip());
        let pending = self.shared.admission.begin(address);
        let over = (pending.from_same_address() as usize).saturating_sub(HANDSHAKES_PENDING_PER_IP_MAX);
        let over = if trusted { 0 } else { over };
        let share = HANDSHAKES_PENDING_MAX / self.shared.loads.len();
        let of_address = |greeting: &Greeting| !greeting.is_proxied && cap_key(greeting.peer.ip()) == address;
        if self.greetings >= share {
            // Full: whoever crowds gives way itself, however young its handshakes are; then the silent, then anybody.
            let _ = self.evict_greetings(over.min(1), of_address) > 0
                || self.evict_greetings(1, Greeting::is_silent) > 0
                || self.evict_greetings(1, |_| true) > 0;
        } else if over > 0 {
            let is_idle = |greeting: &Greeting| {
                of_address(greeting) && greeting.is_silent() && now.ms() >= greeting.began_ms + HANDSHAKE_GRACE_MS
            };
            self.evict_greetings(over, is_idle);
        }
        let handle = self.vacancy();
        let greeting = Greeting {
            peer,
            ip: None,
            is_proxied: trusted,
            may_be_proxied: trusted,
            began_ms: now.ms(),
            buffer: Vec::new(),
            waits: false,
            look_at_bytes: 0,
            pending,
        };
        self.slots[handle.slot as usize].state = State::Greeting(Box::new(greeting));
        self.greetings += 1;
        self.tidy_greetings();
        self.greeting.push_back(handle);
        let handshake_ms = u64::from(self.settings.config.edge.handshake_s) * 1_000;
        self.wake_at(handle.slot, now.ms() + handshake_ms.min(HANDSHAKE_GRACE_MS));
        handle
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Received { connection, bytes } => {
                if let Some(slot) = self.slot_of(connection) {
                    self.received(now, slot, bytes);
                }
            }
            Input::Ended { connection } => {
                if let Some(slot) = self.slot_of(connection) {
                    self.ended(slot);
                }
            }
            Input::Sent { connection, ok } => {
                if let Some(slot) = self.slot_of(connection) {
                    self.sent(slot, ok);
                }
            }
            Input::Answered { connection, number, outcome } => self.answered(now, connection, number, *outcome),
            Input::Rings => self.rings(now),
            Input::Time => self.time(now),
            Input::Drain => self.drain(now),
            Input::Reload(settings) => self.reload(now, settings),
        }
        if !self.too_slow.is_empty() {
            self.close_too_slow(now);
        }
        if self.attendance.has_idle() {
            self.let_idle_rooms_go(now);
        }
        self.keep_budgets(now);
    }

    /// What the shell must do now, in order.
    pub fn take_outputs(&mut self, into: &mut Vec<Output>) {
        into.append(&mut self.outputs);
    }

    /// The next write to start. None: nothing more waits, everything that waits has a write under way, or the slice is over
    /// (at most [`crate::bounds::WRITES_PER_SLICE`]): then what has come meanwhile is to be heard before the next one.
    pub fn next_write(&mut self) -> Option<(Handle, Chunk)> {
        while let Some(slot) = self.turns.next() {
            let outbox = &mut self.outboxes[slot as usize];
            if outbox.take_turn() {
                self.pressed -= 1;
            }
            if let Some(chunk) = outbox.gather(&mut self.gatherer) {
                self.counters.writes += 1;
                self.counters.bytes_out += chunk.as_ref().len() as u64;
                if self.turns.is_empty() {
                    // The slice may end here; an idle worker holds no run.
                    self.gatherer.end_round();
                }
                return Some((self.handle_of(slot), chunk));
            }
        }
        if self.turns.is_empty() {
            self.gatherer.end_round();
        }
        None
    }

    /// Whether a write waits to be started.
    pub fn has_writes(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether to start writes, and to hear what became of the last ones, before taking in more: somebody has much waiting
    /// and was not yet given a write, or one connection may have been given a write's worth since [`Shard::publish`].
    /// Otherwise those who read all the time would be called slow.
    pub fn is_pressed(&self) -> bool {
        self.pressed > 0 || self.turn_bytes >= self.pressed_bytes()
    }

    /// A quarter of a connection's queue, at most one write: whoever has this much waiting must be given a write before more
    /// comes. The queue is never without a limit (`Limits::queue_bytes`).
    fn pressed_bytes(&self) -> usize {
        WRITE_BYTES_MAX.min(self.settings.config.limits.queue_bytes as usize / 4)
    }

    /// Hands what was pushed over to the other workers and rings those that sleep.
    pub fn publish(&mut self) {
        self.turn_bytes = 0;
        self.port.publish();
    }

    /// This worker's end of the mesh, for the shell's going to sleep.
    pub fn port(&mut self) -> &mut Port<Parcel> {
        &mut self.port
    }

    /// When [`Input::Time`] is due, in milliseconds of the monotonic clock.
    pub fn deadline_ms(&self) -> Option<u64> {
        let pause = self.pauses.peek().map(|Reverse((at_ms, ..))| *at_ms);
        [pause, self.other_deadline_ms()].into_iter().flatten().min()
    }

    fn other_deadline_ms(&self) -> Option<u64> {
        self.deadlines.next_ms().into_iter().chain(self.attendance.look_at_ms()).min()
    }

    /// Whether something came that is in no ring. To be asked after the port was armed and before sleeping; if so,
    /// [`Input::Rings`] takes it up.
    pub fn has_news(&self) -> bool {
        self.attendance.has_news()
    }

    /// A tick of the shell took so long, in nanoseconds.
    pub fn note_tick(&mut self, ns: u64) {
        self.ticks.note(ns);
    }

    /// Connections that exist, in whatever state.
    pub fn connections(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether this connection is still at its handshake, which is a dozen times the work of a message.
    #[inline]
    pub fn is_greeting(&self, connection: Handle) -> bool {
        self.greetings > 0
            && self.slots.get(connection.slot as usize).is_some_and(|slot| {
                slot.generation == connection.generation && matches!(slot.state, State::Greeting(_))
            })
    }

    /// Bytes of this handshake wait for their turn: it is not closed to make room for others meanwhile.
    pub fn keep_greeting(&mut self, connection: Handle) {
        if let Some(slot) = self.slots.get_mut(connection.slot as usize)
            && slot.generation == connection.generation
            && let State::Greeting(greeting) = &mut slot.state
        {
            greeting.waits = true;
        }
    }

    /// Connections that are being served.
    pub fn open_connections(&self) -> usize {
        self.open
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The pipes known here.
    pub fn pipes(&self) -> &Pipes {
        &self.pipes
    }

    /// Bytes of frames waiting or being written, those shared by many receivers counted once.
    pub fn frame_bytes(&self) -> usize {
        self.gatherer.meter.bytes()
    }

    /// Writes that shared a run that was already copied together, and runs that were copied.
    pub fn runs(&self) -> (u64, u64) {
        (self.gatherer.runs_shared, self.gatherer.runs_copied)
    }

    fn vacancy(&mut self) -> Handle {
        if let Some(slot) = self.free.pop() {
            return self.handle_of(slot);
        }
        let slot = self.slots.len() as u32;
        // Not the same after a restart: a handle is also the connection's public name.
        let generation = (self.shared.names_seed >> 32) as u32 ^ slot.wrapping_mul(0x9E37_79B1);
        self.slots.push(Slot { generation, wake: Wake::default(), state: State::Vacant });
        self.outboxes.push(Outbox::default());
        Handle { slot, generation }
    }

    fn handle_of(&self, slot: u32) -> Handle {
        Handle { slot, generation: self.slots[slot as usize].generation }
    }

    /// The slot of a handle that is still good.
    fn slot_of(&mut self, handle: Handle) -> Option<u32> {
        let good = self
            .slots
            .get(handle.slot as usize)
            .is_some_and(|slot| slot.generation == handle.generation && !matches!(slot.state, State::Vacant));
        if !good {
            self.counters.stale += 1;
        }
        good.then_some(handle.slot)
    }

    fn open_mut(&mut self, slot: u32) -> Option<&mut Open> {
        match &mut self.slots[slot as usize].state {
            State::Open(open) => Some(open),
            _ => None,
        }
    }

    fn wake_at(&mut self, slot: u32, at_ms: u64) {
        let handle = self.handle_of(slot);
        self.deadlines.schedule(handle, &mut self.slots[slot as usize].wake, at_ms);
    }

    /// Queues a message that is not an event. One that finds no room ends the connection as too slow.
    fn send(&mut self, slot: u32, bytes: Vec<u8>) {
        self.queue(slot, Frame::other(bytes, &self.gatherer.meter));
    }

    /// Queues a frame for one connection.
    fn queue(&mut self, slot: u32, frame: Rc<Frame>) {
        let limits = &self.settings.config.limits;
        let outbox = &mut self.outboxes[slot as usize];
        match outbox.push(frame, limits.queue_bytes as usize, limits.when_slow, &mut self.gatherer) {
            Pushed::Queued => {}
            Pushed::Dropped(events) | Pushed::LeftOut(events) => self.counters.events_dropped += u64::from(events),
            Pushed::TooSlow => self.too_slow.push(slot),
        }
        self.mark_dirty(slot);
    }

    /// Whoever has much waiting now is given a write before more comes.
    fn press(&mut self, slot: u32) {
        let pressed_bytes = self.pressed_bytes();
        if self.outboxes[slot as usize].presses(pressed_bytes) {
            self.pressed += 1;
        }
    }

    fn mark_dirty(&mut self, slot: u32) {
        if self.outboxes[slot as usize].needs_turn(&mut self.gatherer) {
            self.turns.add(slot);
        }
    }

    fn sent(&mut self, slot: u32, ok: bool) {
        self.outboxes[slot as usize].sent(&mut self.gatherer);
        if !ok {
            self.drop_connection(slot, false);
            return;
        }
        let outbox = &mut self.outboxes[slot as usize];
        if outbox.has_more() {
            if outbox.needs_turn(&mut self.gatherer) {
                self.turns.add_to_many(slot);
            }
        } else {
            self.advance_closing(slot);
        }
    }

    fn time(&mut self, now: Now) {
        let mut due = std::mem::take(&mut self.due);
        while let Some(Reverse((at_ms, slot, generation))) = self.pauses.peek().copied() {
            if at_ms > now.ms() {
                break;
            }
            self.pauses.pop();
            if self.slots[slot as usize].generation == generation {
                self.look_at(now, slot);
            }
        }
        self.deadlines.take_due(now.ms(), &mut due);
        for (handle, mark) in due.drain(..) {
            let slot = &mut self.slots[handle.slot as usize];
            if slot.generation == handle.generation && slot.wake.is(mark) {
                self.look_at(now, handle.slot);
            }
        }
        self.due = due;
        if self.attendance.look_at_ms().is_some_and(|at_ms| at_ms <= now.ms()) {
            self.look_at_rooms(now);
        }
    }

    /// A connection's live entry of the wheel came up: do what is due and schedule the next.
    fn look_at(&mut self, now: Now, slot: u32) {
        match &self.slots[slot as usize].state {
            State::Vacant => {}
            State::Greeting(_) => self.look_at_greeting(now, slot),
            State::Authorizing(one) => {
                let until = one.deadline_ms;
                if now.ms() >= until { self.authorizing_timed_out(now, slot) } else { self.wake_at(slot, until) }
            }
            State::Open(_) => self.look_at_open(now, slot),
            State::Closing(closing) => {
                let until = closing.deadline_ms;
                if now.ms() >= until { self.end_closing(slot) } else { self.wake_at(slot, until) }
            }
        }
    }

    /// Budgets of the whole worker (INVARIANTS 18): over one, the largest holder goes first.
    fn keep_budgets(&mut self, now: Now) {
        if self.gatherer.meter.bytes() > WORKER_QUEUE_BYTES_MAX {
            let queued = |slot: &u32| self.outboxes[*slot as usize].queued_bytes() + self.suspended.bytes_of(*slot);
            if let Some(slot) = self.open_slots().into_iter().max_by_key(queued) {
                self.counters.over_budget += 1;
                self.begin_close(now, slot, CloseCode::TooSlow, CloseCode::TooSlow.reason(), true);
            }
        }
        if self.assembly_bytes > WORKER_ASSEMBLY_BYTES_MAX {
            let held = |slot: &u32| self.held_bytes(*slot);
            if let Some(slot) = self.open_slots().into_iter().max_by_key(held) {
                self.counters.over_budget += 1;
                self.begin_close(now, slot, CloseCode::TooBig, CloseCode::TooBig.reason(), false);
            }
        }
    }

    fn open_slots(&self) -> Vec<u32> {
        let is_open = |slot: &u32| matches!(self.slots[*slot as usize].state, State::Open(_));
        (0..self.slots.len() as u32).filter(is_open).collect()
    }

    fn held_bytes(&self, slot: u32) -> usize {
        match &self.slots[slot as usize].state {
            State::Open(open) => {
                let waiting = open.rare.as_ref().map_or(0, |rare| rare.bytes());
                open.input_bytes() + waiting
            }
            _ => 0,
        }
    }

    /// New rules hold from here on: what was decided by the old ones is decided again, subscriptions included (G2). One
    /// step, so that nothing is delivered by an old decision afterwards.
    fn reload(&mut self, now: Now, settings: Arc<Settings>) {
        self.settings = settings;
        let rules = self.settings.config.rules.clone();
        self.pipes.rule_again(|name| rights::ruled(&rules, name));
        let settings = self.settings.clone();
        let everybody = self.open_slots();
        for slot in &everybody {
            if let Some(rare) = self.open_mut(*slot).and_then(|open| open.rare.as_mut()) {
                rare.limits = rare.limits.take().map(|own| own.again(&settings));
            }
            self.decide_again(now, *slot, "reload");
            self.wake_at(*slot, now.ms());
        }
        // Only now: a message that waited is judged by the new rules, and so must be whom it reaches.
        for slot in everybody {
            self.run_waiting(now, slot, None);
        }
    }

    /// When a draining server lets this connection go; `u64::MAX` = it is not draining, or whoever had this place then is gone.
    fn leave_at_ms(&self, slot: u32) -> u64 {
        self.leave_at_ms.get(slot as usize).copied().unwrap_or(u64::MAX)
    }

    /// Lets everybody go, evenly over `drain_s` (G1).
    fn drain(&mut self, now: Now) {
        let drain_ms = u64::from(self.settings.config.edge.drain_s) * 1_000;
        self.drained_ms = Some(now.ms());
        for handle in self.greeting.clone() {
            let slot = &self.slots[handle.slot as usize];
            if slot.generation == handle.generation && matches!(slot.state, State::Greeting(_)) {
                self.wake_at(handle.slot, now.ms() + HANDSHAKE_GRACE_MS);
            }
        }
        self.leave_at_ms = vec![u64::MAX; self.slots.len()];
        let everybody = self.open_slots();
        let count = everybody.len() as u64;
        // Each worker begins at a place of its own within a step, so that no two let go at the same time.
        let (worker, workers) = (self.worker as u64, self.shared.loads.len() as u64);
        for (place, slot) in everybody.into_iter().enumerate() {
            let after_ms = drain_ms * (place as u64 * workers + worker) / (count * workers);
            let leave_at_ms = now.ms() + after_ms;
            self.leave_at_ms[slot as usize] = leave_at_ms;
            let told = crate::protocol::encode::framed(|out| {
                crate::protocol::encode::draining(out, closing::reconnect_in_ms(drain_ms, after_ms));
            });
            self.send(slot, told);
            self.wake_at(slot, leave_at_ms);
        }
    }
}
