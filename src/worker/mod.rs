//! The shell of one worker: the only code that knows sockets, threads' runtimes and the time.
//!
//! One tick: take what happened (new sockets, bytes, finished writes, the rings, the deadline), let the shard decide,
//! start writes, hand over to the other workers and to the kernel. Only when there is nothing to do does it sleep, as
//! the very last act after arming its doorbell. Nothing is ever held back by a timer: while writes are under way the
//! next ones gather by themselves, so batching grows with load (INVARIANTS 16).
//!
//! The runtime (monoio) gives the thread its sleep and its timer; sockets are not in it but in the [`engine`], which
//! holds no task and no buffer for an idle connection.

mod accept;
mod bell;
mod callers;
mod clock;
pub mod engine;

pub use accept::{Handoffs, Listeners, expect_connections, listen};
pub use bell::EventFd;
pub use clock::Clock;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed};
use std::time::Duration;

use callers::Callers;
use engine::{Backend, BufferSizes, Engine, Event, Key, StableBytes};
use monoio::net::TcpStream;

use crate::bounds::{QUEUES_WARNED_PER_S_MAX, RING_ENTRIES_PER_TURN, RING_TURNS_PER_TICK, SWEEP_MS};
use crate::mesh::port::Port;
use crate::shard::call::Call;
use crate::shard::connection::Handle;
use crate::shard::frames::Chunk;
use crate::shard::input::{Input, Now};
use crate::shard::output::Output;
use crate::shard::record::Record;
use crate::shard::revocation::Revocation;
use crate::shard::shared::Shared;
use crate::shard::{MeshParcel, Shard};
use crate::warned::{self, Warned};

// SAFETY: a chunk is a counted reference to a frame or a run; their bytes lie on the heap and never change.
unsafe impl StableBytes for Chunk {}

/// Events of sockets are taken for so long before anything else is looked at again, in nanoseconds.
const EVENTS_NS: u64 = 120_000;
/// So many are taken between two looks at the clock.
const EVENTS_PER_LOOK: usize = 16;
/// What new sockets, handshakes and connections that have gone may take in one tick, in nanoseconds; each is some 5 to 15 µs
/// of work, most of it the kernel's. The rest waits for its turn: nobody's messages wait for a storm of reconnects.
const NEWCOMERS_NS: u64 = 60_000;
/// The same while writes wait to be started.
const NEWCOMERS_AMONG_WRITES_NS: u64 = 30_000;
/// Handshakes of a tick whose bytes are not copied first.
const GREETINGS_AT_ONCE: usize = 2;
/// Handshakes that wait for their turn. With more, nobody is accepted.
const CALLERS_MAX: usize = 1_024;
/// After the drain's time: how long late closings may take, in milliseconds.
const DRAIN_SLACK_MS: u64 = 2_000;
/// Busy ticks between two looks at the listeners, where nothing told that there is somebody.
const TICKS_PER_ACCEPT: u32 = 64;

/// What the main thread may ask all workers for.
#[derive(Default)]
pub struct Orders {
    /// Counts requests to write the counters into the log.
    pub reports: AtomicU32,
    /// Counts new settings in `Shared`.
    pub reloads: AtomicU32,
}

/// Where workers hand what the control thread must know. Called on the path of connections: quick, and never waits.
pub trait Witness: Send + Sync {
    /// For the audit.
    fn record(&self, record: Record);
    /// Look after this call and have it answered. The call comes back where there is no room for it.
    ///
    /// # Errors
    /// The call itself: the worker answers it.
    fn call(&self, call: Box<Call>) -> Result<(), Box<Call>>;
    /// This revocation is to be lifted everywhere (D4).
    fn reauthorized(&self, revocation: Arc<Revocation>);
}

/// What one worker is given.
pub struct Parts {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// This worker's end of the mesh.
    pub port: Port<MeshParcel>,
    /// Its doorbell.
    pub bell: Arc<EventFd>,
    /// Its listening sockets.
    pub listeners: Listeners,
    /// Sockets that workers hand to each other.
    pub handoffs: Arc<Handoffs>,
    /// Orders of the main thread.
    pub orders: Arc<Orders>,
    /// Who is told.
    pub witness: Arc<dyn Witness>,
    /// The process's clock.
    pub clock: Clock,
    /// Whether io_uring may be used.
    pub backend: Backend,
}

/// Runs a worker on the calling thread until the server has drained. `started` is called once it serves.
///
/// # Errors
/// The thread's rings could not be made, or one became unusable.
pub fn run(parts: Parts, started: impl FnOnce()) -> io::Result<()> {
    let (engine, refused) = Engine::new(parts.backend, BufferSizes::default())?;
    if let Some(reason) = refused {
        tracing::warn!("io_uring is not available here ({reason}); worker {} uses epoll", parts.port.worker());
    }
    match engine.backend() {
        Backend::Uring => {
            let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build()?;
            runtime.block_on(Worker::new(parts, engine)?.run(started))
        }
        Backend::Epoll => {
            let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build()?;
            runtime.block_on(Worker::new(parts, engine)?.run(started))
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    shard: Shard,
    engine: Engine<Chunk>,
    /// The engine's key of each slot of the shard.
    keys: Vec<Option<Key>>,
    listeners: Listeners,
    handoffs: Arc<Handoffs>,
    orders: Arc<Orders>,
    witness: Arc<dyn Witness>,
    clock: Clock,
    bell: Arc<EventFd>,
    outputs: Vec<Output>,
    /// Handshakes that wait for their turn.
    callers: Callers,
    /// Connections whose socket has ended, to be let go, and whether it was a write that failed. Nothing follows from such a
    /// socket, so that it can wait.
    ended: VecDeque<(Handle, bool)>,
    unknown_queues: Warned,
    /// Somebody waits at a listener.
    knocked: Rc<Cell<bool>>,
    ticks_since_accept: u32,
    reported: u32,
    reloaded: u32,
    draining: bool,
    /// When a draining worker ends whoever is still there: everybody who was served has been let go by then.
    over_at_ms: u64,
    /// The others were told that nobody is left here.
    told_empty: bool,
}

/// What a sleep ended by.
enum Woken {
    ByEvent,
    ByTime,
}

impl Worker {
    fn new(parts: Parts, mut engine: Engine<Chunk>) -> io::Result<Worker> {
        engine.watch_bell(parts.bell.raw())?;
        let shard = Shard::new(parts.shared.clone(), parts.port, parts.clock.now());
        Ok(Worker {
            shared: parts.shared,
            shard,
            engine,
            keys: Vec::new(),
            listeners: parts.listeners,
            handoffs: parts.handoffs,
            orders: parts.orders,
            witness: parts.witness,
            clock: parts.clock,
            bell: parts.bell,
            outputs: Vec::new(),
            callers: Callers::default(),
            ended: VecDeque::new(),
            unknown_queues: Warned::new(QUEUES_WARNED_PER_S_MAX),
            knocked: Rc::new(Cell::new(true)),
            ticks_since_accept: 0,
            reported: 0,
            reloaded: 0,
            draining: false,
            over_at_ms: u64::MAX,
            told_empty: false,
        })
    }

    async fn run(mut self, started: impl FnOnce()) -> io::Result<()> {
        let door = pollable(self.engine.wait_fd())?;
        let answered = self.listeners.watch(&self.knocked, &self.bell)?;
        self.shared.worker_ready();
        started();
        while !self.is_over() {
            self.tick()?;
            if !self.knocked.get() {
                answered.notify();
            }
            // Looked at before it sleeps as well, so that nothing needs to wake it for its end.
            if self.is_over() {
                break;
            }
            if self.has_work() || !self.shard.port().arm() {
                continue;
            }
            let others = self.knocked.get() || self.handoffs.has(self.shard.port().worker()) || self.shard.has_news();
            if self.engine.before_wait()? || others {
                self.shard.port().disarm();
                continue;
            }
            match self.sleep(&door).await? {
                Woken::ByEvent => drop(self.shard.port().disarm()),
                Woken::ByTime => drop(self.shard.port().sweep()),
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        self.ticks_since_accept += 1;
        let now = self.clock.now();
        let mut greetings = 0;
        for taken in 1.. {
            if self.shard.is_pressed() {
                break;
            }
            let Some(event) = self.engine.next() else { break };
            match event {
                Event::Received { user, mut bytes } => self.received(now, handle(user), &mut bytes, &mut greetings),
                Event::Ended { user, .. } => self.ended.push_back((handle(user), false)),
                Event::Sent { user, ok: true } => {
                    self.shard.handle(now, Input::Sent { connection: handle(user), ok: true });
                }
                Event::Sent { user, ok: false } => self.ended.push_back((handle(user), true)),
                Event::Bell => {}
            }
            if taken % EVENTS_PER_LOOK == 0 && self.clock.now().mono_ns - now.mono_ns >= EVENTS_NS {
                break;
            }
        }
        self.newcomers(now);
        for _ in 0..RING_TURNS_PER_TICK {
            let taken = self.shard.port().counters().taken;
            self.shard.handle(now, Input::Rings);
            let more = self.shard.port().counters().taken - taken == RING_ENTRIES_PER_TURN as u64;
            if !more || self.shard.is_pressed() {
                break;
            }
        }
        if self.shard.deadline_ms().is_some_and(|at_ms| at_ms <= now.ms()) {
            self.shard.handle(now, Input::Time);
        }
        self.obey();
        self.perform();
        self.write();
        self.shard.publish();
        self.engine.submit()?;
        self.shard.note_tick(self.clock.now().mono_ns - now.mono_ns);
        Ok(())
    }

    /// Bytes of a connection; a handshake waits for its turn if enough were answered in this tick.
    fn received(&mut self, now: Now, connection: Handle, bytes: &mut [u8], greetings: &mut usize) {
        if self.shard.is_greeting(connection) {
            let waits = *greetings >= GREETINGS_AT_ONCE || self.callers.has(connection);
            if waits && self.callers.add(connection, bytes) {
                self.shard.keep_greeting(connection);
                return;
            }
            *greetings += 1;
            if let Some(mut earlier) = self.callers.take(connection) {
                self.shard.handle(now, Input::Received { connection, bytes: &mut earlier });
            }
        }
        self.shard.handle(now, Input::Received { connection, bytes });
    }

    /// Whoever comes, introduces itself or has gone: one of each in turns, for as long as they may take.
    fn newcomers(&mut self, now: Now) {
        let most_ns = if self.shard.has_writes() { NEWCOMERS_AMONG_WRITES_NS } else { NEWCOMERS_NS };
        let until_ns = self.clock.now().mono_ns + most_ns;
        loop {
            let [ended, greeted, accepted] = [self.let_one_go(now), self.greet_one(now), self.accept_one()];
            // Here, for to close a socket is most of the work.
            self.perform();
            if !(ended || greeted || accepted) || self.clock.now().mono_ns >= until_ns {
                return;
            }
        }
    }

    /// The next handshake that waits for its turn.
    fn greet_one(&mut self, now: Now) -> bool {
        let Some((connection, mut bytes)) = self.callers.next() else { return false };
        self.shard.handle(now, Input::Received { connection, bytes: &mut bytes });
        true
    }

    /// The next connection whose socket has ended.
    fn let_one_go(&mut self, now: Now) -> bool {
        let Some((connection, write_failed)) = self.ended.pop_front() else { return false };
        if write_failed {
            self.shard.handle(now, Input::Sent { connection, ok: false });
            return true;
        }
        if let Some(mut bytes) = self.callers.take(connection) {
            self.shard.handle(now, Input::Received { connection, bytes: &mut bytes });
        }
        self.shard.handle(now, Input::Ended { connection });
        true
    }

    fn has_work(&mut self) -> bool {
        self.shard.has_writes() || self.knocked.get() || !self.callers.is_empty() || !self.ended.is_empty()
    }

    /// Takes up what the main thread asked for.
    fn obey(&mut self) {
        if self.shared.is_draining() && !self.draining {
            self.draining = true;
            let now = self.clock.now();
            self.over_at_ms = now.ms() + u64::from(self.shared.settings().config.edge.drain_s) * 1_000 + DRAIN_SLACK_MS;
            self.shard.handle(now, Input::Drain);
        }
        let reloads = self.orders.reloads.load(Acquire);
        if reloads != self.reloaded {
            self.reloaded = reloads;
            let (now, settings) = (self.clock.now(), self.shared.settings());
            self.shard.handle(now, Input::Reload(settings));
        }
        let reports = self.orders.reports.load(Relaxed);
        if reports != self.reported {
            self.reported = reports;
            self.report();
        }
    }

    /// Draining, and nobody is left on any worker: until then every listener goes on answering (G1). Whoever keeps
    /// knocking, or sits there without a word, cannot keep the process alive for ever.
    fn is_over(&mut self) -> bool {
        if !self.draining {
            return false;
        }
        let nobody_here = self.shard.connections() == 0;
        if std::mem::replace(&mut self.told_empty, nobody_here) != nobody_here && nobody_here {
            for other in 0..self.shared.loads.len() {
                self.shard.port().ring(other);
            }
        }
        let nobody = self.shared.loads.iter().all(|load| load.load(Relaxed) == 0);
        nobody || self.clock.now().ms() >= self.over_at_ms
    }

    fn perform(&mut self) {
        // A call that nobody has room for is answered here and now, which may ask for more.
        loop {
            self.shard.take_outputs(&mut self.outputs);
            if self.outputs.is_empty() {
                return;
            }
            self.perform_outputs();
        }
    }

    fn perform_outputs(&mut self) {
        let mut unheard = Vec::new();
        for output in self.outputs.drain(..) {
            let key = |handle: Handle| self.keys.get(handle.slot as usize).copied().flatten();
            match output {
                Output::Pause(handle) => key(handle).into_iter().for_each(|key| self.engine.set_receiving(key, false)),
                Output::Resume(handle) => key(handle).into_iter().for_each(|key| self.engine.set_receiving(key, true)),
                Output::Finish(handle) => key(handle).into_iter().for_each(|key| self.engine.finish(key)),
                Output::Close { connection, reset } => {
                    if let Some(key) = self.keys.get_mut(connection.slot as usize).and_then(Option::take) {
                        self.engine.close(key, reset);
                    }
                }
                Output::Record(record) => self.witness.record(*record),
                Output::Reauthorized(revocation) => self.witness.reauthorized(revocation),
                Output::Call(call) => unheard.extend(self.witness.call(call).err()),
                Output::UnknownQueue(name) => {
                    if let Some(others) = self.unknown_queues.due(self.clock.now().ms(), &name) {
                        let others = warned::others(others);
                        tracing::warn!(
                            "a client's message for the queue {name:?} was ignored: no [queue] is defined for it{others}"
                        );
                    }
                }
            }
        }
        let now = self.clock.now();
        for call in unheard {
            let outcome = Box::new(call.ask.unheard());
            self.shard.handle(now, Input::Answered { connection: call.connection, number: call.number, outcome });
        }
    }

    /// Starts a slice of the writes that wait.
    fn write(&mut self) {
        while let Some((handle, chunk)) = self.shard.next_write() {
            match self.keys.get(handle.slot as usize) {
                Some(Some(key)) => self.engine.send(*key, chunk),
                _ => {
                    let now = self.clock.now();
                    self.shard.handle(now, Input::Sent { connection: handle, ok: false });
                }
            }
        }
    }

    /// Takes the next socket that another worker handed over, or that waits at the listeners; places it on the worker that
    /// has least.
    fn accept_one(&mut self) -> bool {
        let worker = self.shard.port().worker();
        if let Some((socket, peer)) = self.handoffs.take(worker) {
            self.open(socket, peer);
            return true;
        }
        let looks = self.knocked.get() || self.ticks_since_accept >= TICKS_PER_ACCEPT;
        // With many at their handshake they wait better in the kernel's line than here.
        if !looks || self.callers.waiting() >= CALLERS_MAX {
            return false;
        }
        self.ticks_since_accept = 0;
        let Some((socket, peer)) = self.listeners.accept() else {
            self.knocked.set(false);
            return false;
        };
        self.knocked.set(true);
        match self.handoffs.better_place(worker, &self.shared.loads) {
            Some(other) => {
                self.handoffs.give(other, socket, peer);
                self.shard.port().ring(other);
            }
            None => self.open(socket, peer),
        }
        true
    }

    fn open(&mut self, socket: OwnedFd, peer: std::net::SocketAddr) {
        let now = self.clock.now();
        let handle = self.shard.accept(now, peer);
        let slot = handle.slot as usize;
        if self.keys.len() <= slot {
            self.keys.resize(slot + 1, None);
        }
        // A slot that was evicted to make room is given up here before it is used again.
        self.perform();
        match self.engine.add(socket, user(handle)) {
            Ok(key) => self.keys[slot] = Some(key),
            Err(error) => {
                tracing::warn!("a socket could not be taken: {error}");
                self.shard.handle(now, Input::Ended { connection: handle });
            }
        }
    }

    async fn sleep(&mut self, door: &TcpStream) -> io::Result<Woken> {
        let now_ms = self.clock.now().ms();
        let until_ms = self.shard.deadline_ms().unwrap_or(u64::MAX);
        let most_ms = until_ms.saturating_sub(now_ms).clamp(1, SWEEP_MS);
        match monoio::time::timeout(Duration::from_millis(most_ms), door.readable(false)).await {
            Ok(ready) => ready.map(|()| Woken::ByEvent),
            Err(_) => Ok(Woken::ByTime),
        }
    }

    /// Writes the counters into the log.
    fn report(&mut self) {
        let worker = self.shard.port().worker();
        let mesh = self.shard.port().counters();
        let engine = self.engine.counters();
        let (shared, copied) = self.shard.runs();
        tracing::info!(
            "worker {worker}: connections={} open={} pipes={} subscriptions={} frame_bytes={} runs_shared={shared} \
             runs_copied={copied} {} mesh={mesh:?} sockets={engine:?}",
            self.shard.connections(),
            self.shard.open_connections(),
            self.shard.pipes().known(),
            self.shard.pipes().subscriptions(),
            self.shard.frame_bytes(),
            self.shard.counters(),
        );
    }
}

fn user(handle: Handle) -> u64 {
    u64::from(handle.generation) << 32 | u64::from(handle.slot)
}

fn handle(user: u64) -> Handle {
    Handle { slot: user as u32, generation: (user >> 32) as u32 }
}

/// A descriptor of any kind as something that the runtime can await: it is only ever polled, never read.
fn pollable(fd: RawFd) -> io::Result<TcpStream> {
    // SAFETY: the descriptor is open: its owner is alive in the caller.
    let own = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    // SAFETY: the duplicate is owned here and given away. The type says "socket"; polling works on any descriptor.
    let stream = unsafe { std::net::TcpStream::from_raw_fd(own.into_raw_fd()) };
    TcpStream::from_std(stream)
}
