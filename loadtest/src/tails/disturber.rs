//! The disturbing clients, in a thread of their own: it acts when told, for as long as told, and is calm otherwise.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::engine::{Engine, Exchange, Target, Wait};
use crate::load::Layout;
use crate::order::Faults;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// They read nothing.
    StopReading,
    /// They exchange events at this rate.
    Publish {
        /// Publishes per second.
        rate: f64,
    },
    /// They go without a word, all at once, and come again, all at once, again and again.
    Reconnect,
}

/// Who disturbs, and how.
#[derive(Clone, Debug)]
pub struct Disturbance {
    /// The clients.
    pub layout: Layout,
    /// What they do when told.
    pub act: Act,
    /// Bytes of the `data` of their publishes.
    pub data_bytes: usize,
    /// Receive buffer of their sockets, where not the kernel's choice.
    pub receive_bytes: Option<i32>,
}

/// What became of the disturbing clients.
#[derive(Clone, Debug)]
pub struct Disturbed {
    /// Deliveries of their own, or connections that they made.
    pub acts: u64,
    /// Nothing of theirs was lost, doubled, out of order or refused. Of those that do not read nothing is asked.
    pub clean: bool,
    /// The first thing that went wrong.
    pub trouble: Option<String>,
}

/// Looks for orders this often.
const CALM: Duration = Duration::from_millis(20);
/// Those who did not read catch up for so long.
const CATCH_UP: Duration = Duration::from_millis(500);
/// The measuring thread waits for its core while the kernel takes these.
const SENDS_PER_CALL: usize = 8;
/// An act that takes so much longer than told is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// The thread's handle. Dropping it ends the thread.
pub struct Disturber {
    orders: Sender<Duration>,
    answers: Receiver<()>,
    thread: JoinHandle<io::Result<Disturbed>>,
}

impl Disturber {
    /// Connects the clients and waits until all are there.
    pub fn start(disturbance: Disturbance, target: Target) -> Result<Self, String> {
        let (orders, told) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let thread = std::thread::spawn(move || Clients::new(disturbance, target)?.serve(&told, &answer));
        let disturber = Self { orders, answers, thread };
        disturber.await_end()?;
        Ok(disturber)
    }

    /// Acts for so long from now.
    pub fn begin(&self, duration: Duration) {
        // A thread that has ended is noticed when its answer is awaited.
        let _ = self.orders.send(duration);
    }

    /// Waits until the act is over.
    pub fn await_end(&self) -> Result<(), String> {
        self.answers.recv_timeout(PATIENCE).map_err(|_| "the disturbing clients gave up".to_owned())
    }

    /// Ends the clients.
    pub fn end(self) -> Result<Disturbed, String> {
        drop(self.orders);
        let ended = self.thread.join().map_err(|_| "the disturbing clients panicked".to_owned())?;
        ended.map_err(|error| format!("the disturbing clients' sockets: {error}"))
    }
}

struct Clients {
    disturbance: Disturbance,
    engine: Engine,
    outcome: Disturbed,
}

impl Clients {
    fn new(disturbance: Disturbance, mut target: Target) -> io::Result<Self> {
        target.receive_bytes = disturbance.receive_bytes;
        if disturbance.act == Act::Reconnect {
            target.handshakes = disturbance.layout.roles.len();
        }
        let mut engine = Engine::new(&disturbance.layout, disturbance.data_bytes, target, Wait::Sleep)?;
        engine.sends_per_call = SENDS_PER_CALL;
        let outcome = Disturbed { acts: 0, clean: true, trouble: None };
        Ok(Self { disturbance, engine, outcome })
    }

    fn serve(mut self, told: &Receiver<Duration>, answer: &Sender<()>) -> io::Result<Disturbed> {
        self.connect()?;
        let _ = answer.send(());
        loop {
            match told.recv_timeout(Duration::ZERO) {
                Ok(duration) => {
                    self.act(duration)?;
                    let _ = answer.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.engine.linger(CALM)?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.disturbance.act != Act::StopReading {
            self.note();
        }
        Ok(self.outcome)
    }

    fn connect(&mut self) -> io::Result<()> {
        let everyone = self.disturbance.layout.roles.len();
        let all = self.engine.open(everyone, &mut |_| {})? && self.engine.load.ready == everyone;
        self.outcome.clean &= all;
        Ok(())
    }

    fn act(&mut self, duration: Duration) -> io::Result<()> {
        match self.disturbance.act {
            Act::StopReading => {
                std::thread::sleep(duration);
                let before = self.engine.load.trouble.lagged;
                self.engine.linger(CATCH_UP)?;
                self.outcome.acts += self.engine.load.trouble.lagged - before;
            }
            Act::Publish { rate } => {
                let exchange = Exchange { window: 1, rate: Some(rate), duration, messages_max: u64::MAX };
                let before = self.engine.load.deliveries;
                self.outcome.clean &= self.engine.exchange(exchange, &mut |_| {})?;
                self.outcome.acts += self.engine.load.deliveries - before;
            }
            Act::Reconnect => {
                let begin = Instant::now();
                while begin.elapsed() < duration {
                    self.note();
                    self.engine.restart(&self.disturbance.layout, self.disturbance.data_bytes)?;
                    self.connect()?;
                    self.outcome.acts += self.engine.load.ready as u64;
                }
            }
        }
        Ok(())
    }

    /// Takes over what went wrong so far.
    fn note(&mut self) {
        let load = &self.engine.load;
        self.outcome.clean &= load.faults() == Faults::default() && load.trouble.first.is_none();
        if self.outcome.trouble.is_none() {
            self.outcome.trouble.clone_from(&load.trouble.first);
        }
    }
}
