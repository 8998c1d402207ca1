//! Rounds: a fresh server, the clients of the scenario, a measurement; in turns where servers are compared.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::{Engine, Exchange, Target, Wait};
use crate::options::{self, Command, Options, Pin, WaitOption};
use crate::process;
use crate::regression;
use crate::report::{Latency, Measurement, Memory, MemoryPoint, Report, say};
use crate::scenario::{Plan, Scenario, Work};
use crate::server::{Kind, Server, Settings};
use crate::token::Credentials;

/// Signs the tokens for servers that we start.
const SECRET: &str = "loadtest-secret-of-at-least-32-bytes";
/// More than any scenario queues for one connection.
const QUEUE_BYTES: u32 = 16 << 20;
/// Between two looks while connections are only held.
const SETTLE: Duration = Duration::from_millis(300);
/// A connection is idle once it was pinged and had done nothing else since the ping before. Seconds between pings while memory
/// is measured, and how long the measurement waits for that.
const IDLE_PING_S: u32 = 3;
const IDLE_AFTER: Duration = Duration::from_millis(IDLE_PING_S as u64 * 1_000 + 500);

/// What a round is run against.
#[derive(Clone, Copy)]
enum Subject {
    Started(Kind, u16),
    Running,
}

/// Runs a scenario as the command line asks for it.
pub fn all(options: &Options, scenario: &Scenario) -> Result<Report, String> {
    let plan = scenario.plan();
    process::reserve_files(plan.layout.roles.len())?;
    let workers = options.workers;
    let subjects = match (&options.url, options.compare, options.compare_workers) {
        (Some(_), ..) => vec![Subject::Running],
        (None, true, _) => vec![Subject::Started(Kind::Pipeward, workers), Subject::Started(Kind::Baseline, workers)],
        (None, false, Some(others)) => [workers, others].map(|count| Subject::Started(options.server, count)).to_vec(),
        (None, false, None) => vec![Subject::Started(options.server, workers)],
    };
    let cores = process::cores();
    let mut measurements = Vec::new();
    for round in 1..=options.rounds() {
        for subject in &subjects {
            let placement = Placement::choose(options, subject.workers().unwrap_or(workers), &cores);
            placement.take()?;
            let round = Round { options, plan: &plan, placement: &placement, subject: *subject, round };
            measurements.push(round.run()?);
        }
    }
    // As it was: the next scenario of a report looks at it again.
    process::pin(&cores).map_err(|error| format!("cannot give the cores back: {error}"))?;
    Ok(Report::new(measurements))
}

impl Subject {
    fn workers(self) -> Option<u16> {
        match self {
            Self::Started(_, workers) => Some(workers),
            Self::Running => None,
        }
    }
}

/// Which cores the two sides use.
pub struct Placement {
    /// Those of the server.
    pub server_cores: Option<Vec<usize>>,
    load_core: Option<usize>,
    wait: Wait,
}

impl Placement {
    /// The server on the first of these cores, the clients on the last.
    pub fn choose(options: &Options, workers: u16, cores: &[usize]) -> Self {
        let pin = options.pin != Pin::Off && cores.len() > 1;
        let wanted = if options.pin == Pin::Stacked { 1 } else { usize::from(workers) };
        // As many workers as cores: the clients have to share the last one.
        let alone = wanted < cores.len();
        let server_cores = pin.then(|| cores[..wanted.min(cores.len())].to_vec());
        let load_core = if pin { cores.last().copied() } else { None };
        let wait = match options.wait {
            WaitOption::Auto if pin && alone && options.url.is_none() && !options.is_realtime() => Wait::Spin,
            WaitOption::Spin => Wait::Spin,
            WaitOption::Auto | WaitOption::Sleep => Wait::Sleep,
        };
        Self { server_cores, load_core, wait }
    }

    /// Binds this thread, and those that it starts, to the clients' core.
    pub fn take(&self) -> Result<(), String> {
        let Some(core) = self.load_core else { return Ok(()) };
        process::pin(&[core]).map_err(|error| format!("cannot bind to core {core}: {error}"))
    }
}

struct Round<'a> {
    options: &'a Options,
    plan: &'a Plan,
    placement: &'a Placement,
    subject: Subject,
    round: u32,
}

impl Round<'_> {
    fn run(&self) -> Result<Measurement, String> {
        let server = match self.subject {
            Subject::Started(kind, workers) => Some(Server::start(&self.settings(kind, workers))?),
            Subject::Running => None,
        };
        let pid = server.as_ref().map(Server::pid).or(self.options.server_pid);
        let target = self.target(server.as_ref())?;
        if self.options.is_realtime() && !process::first_on_its_core(true) {
            return Err("--realtime is not allowed here: it needs root".to_owned());
        }
        let data_bytes = self.options.payload as usize;
        let mut engine = Engine::new(&self.plan.layout, data_bytes, target, self.placement.wait)
            .map_err(|error| format!("io_uring (Linux 6.0 or later, not forbidden): {error}"))?;
        let mut measurement = self.blank();
        let bar = self.bar();
        let mut tick = |share: f64| bar.set_position((share * 100.0) as u64);
        let done = match self.plan.work {
            Work::Exchange { window, rate } => {
                self.exchange(&mut engine, pid, window, rate, &mut measurement, &mut tick)
            }
            Work::Connect => self.connect(&mut engine, pid, &mut measurement, &mut tick),
            Work::Idle { steps, hold } => self.idle(&mut engine, pid, steps, hold, &mut measurement, &mut tick),
            Work::Pings { .. } => self.pings(&mut engine, pid, &mut measurement, &mut tick),
        };
        bar.finish_and_clear();
        measurement.completed = done.map_err(|error| format!("the clients' sockets: {error}"))?;
        measurement.server_rss_bytes = pid.and_then(|pid| process::rss_bytes(pid).ok());
        measurement.faults(engine.load.faults(), &engine.load.trouble);
        // The clients go first, so that no server is asked to say goodbye to thousands.
        drop(engine);
        process::first_on_its_core(false);
        Ok(measurement)
    }

    fn exchange(
        &self,
        engine: &mut Engine,
        pid: Option<i32>,
        window: u32,
        rate: Option<f64>,
        measurement: &mut Measurement,
        tick: &mut dyn FnMut(f64),
    ) -> std::io::Result<bool> {
        let everyone = self.plan.layout.roles.len();
        if !engine.open(everyone, &mut |_| {})? || engine.load.ready < everyone {
            return Ok(false);
        }
        let messages_max = self.options.messages.unwrap_or(u64::MAX);
        let warmup = Duration::from_millis(self.options.warmup_ms);
        let exchange = Exchange { window, rate, duration: warmup, messages_max: messages_max.div_ceil(10) };
        if !warmup.is_zero() && !engine.exchange(exchange, &mut |_| {})? {
            return Ok(false);
        }
        engine.load.forget_latencies();
        let (messages, deliveries) = (engine.load.messages, engine.load.deliveries);
        let meter = Meter::start(pid, self.placement);
        let duration = Duration::from_secs_f64(self.options.seconds);
        let done = engine.exchange(Exchange { window, rate, duration, messages_max }, tick)?;
        meter.stop(measurement);
        measurement.window = rate.is_none().then_some(window);
        measurement.rate_per_s = rate;
        measurement.messages = engine.load.messages - messages;
        measurement.deliveries = engine.load.deliveries - deliveries;
        measurement.latency = Latency::of(&engine.load.latency);
        measurement.same_worker = Latency::of(&engine.load.same_worker);
        measurement.across_workers = Latency::of(&engine.load.across_workers);
        measurement.per_unit(measurement.deliveries);
        Ok(done)
    }

    /// Idle connections whose pings are answered: what one costs.
    fn pings(
        &self,
        engine: &mut Engine,
        pid: Option<i32>,
        measurement: &mut Measurement,
        tick: &mut dyn FnMut(f64),
    ) -> std::io::Result<bool> {
        if !engine.open(self.plan.layout.roles.len(), &mut |_| {})? {
            return Ok(false);
        }
        let pings = engine.load.pings;
        let meter = Meter::start(pid, self.placement);
        engine.linger(Duration::from_secs_f64(self.options.seconds))?;
        meter.stop(measurement);
        tick(1.0);
        measurement.per_unit(engine.load.pings - pings);
        Ok(true)
    }

    fn connect(
        &self,
        engine: &mut Engine,
        pid: Option<i32>,
        measurement: &mut Measurement,
        tick: &mut dyn FnMut(f64),
    ) -> std::io::Result<bool> {
        let meter = Meter::start(pid, self.placement);
        let done = engine.open(self.plan.layout.roles.len(), tick)?;
        meter.stop(measurement);
        measurement.latency = Latency::of(&engine.load.opening);
        measurement.per_unit(engine.load.ready as u64);
        Ok(done)
    }

    fn idle(
        &self,
        engine: &mut Engine,
        pid: Option<i32>,
        steps: u32,
        hold: bool,
        measurement: &mut Measurement,
        tick: &mut dyn FnMut(f64),
    ) -> std::io::Result<bool> {
        let meter = Meter::start(pid, self.placement);
        let mut points = Vec::new();
        for step in 1..=steps {
            let count = self.plan.layout.roles.len() * step as usize / steps as usize;
            if !engine.open(count, &mut |_| {})? {
                return Ok(false);
            }
            engine.linger(IDLE_AFTER)?;
            points.push(MemoryPoint {
                connections: engine.load.ready,
                rss_bytes: pid.and_then(|pid| process::rss_bytes(pid).ok()),
                slab_bytes: process::slab_bytes(),
            });
            tick(f64::from(step) / f64::from(steps));
        }
        meter.stop(measurement);
        let line = |read: fn(&MemoryPoint) -> Option<u64>| {
            let points: Vec<_> =
                points.iter().filter_map(|point| Some((point.connections as f64, read(point)? as f64))).collect();
            regression::fit(&points)
        };
        let (rss, slab) = (line(|point| point.rss_bytes), line(|point| point.slab_bytes));
        measurement.memory = Some(Memory { rss, slab, points });
        if hold {
            hold_open(engine, measurement)?;
        }
        Ok(true)
    }

    fn settings(&self, kind: Kind, workers: u16) -> Settings {
        let mut settings = settings(self.options, kind, workers, self.placement);
        settings.small_pages = matches!(self.plan.work, Work::Idle { .. });
        settings.ping_s = match self.plan.work {
            Work::Pings { ping_s } => Some(ping_s),
            Work::Idle { .. } => Some(IDLE_PING_S),
            _ => None,
        };
        settings
    }

    fn target(&self, server: Option<&Server>) -> Result<Target, String> {
        let options = self.options;
        let connections = self.plan.layout.roles.len();
        let (addresses, handshakes) = (options.addresses(connections), options.handshakes as usize);
        if let (Some(server), Subject::Started(kind, _)) = (server, self.subject) {
            return Ok(target(server, kind, addresses, handshakes));
        }
        let url = options::url(options.url.as_deref().unwrap_or_default())?;
        let credentials = match &options.token_secret {
            Some(secret) => Credentials::Secret(secret.clone()),
            None => Credentials::Name,
        };
        let (address, host, path) = (url.address, url.host, url.path);
        Ok(Target { address, host, path, credentials, addresses, handshakes, receive_bytes: None, kernel_times: false })
    }

    fn blank(&self) -> Measurement {
        let server = match self.subject {
            Subject::Started(kind, 1) if self.options.compare_workers.is_some() => format!("{}, 1 worker", kind.name()),
            Subject::Started(kind, workers) if self.options.compare_workers.is_some() => {
                format!("{}, {workers} workers", kind.name())
            }
            Subject::Started(kind, _) => kind.name().to_owned(),
            Subject::Running => self.options.url.clone().unwrap_or_default(),
        };
        Measurement {
            scenario: self.plan.layout.scenario.to_owned(),
            server,
            workers: self.subject.workers(),
            round: self.round,
            connections: self.plan.layout.roles.len(),
            pipes: self.plan.layout.groups,
            payload_bytes: self.options.payload,
            ..Measurement::default()
        }
    }

    fn bar(&self) -> ProgressBar {
        if self.options.quiet {
            return ProgressBar::hidden();
        }
        // Draws on stderr, and only if that is a terminal.
        let bar = ProgressBar::new(100);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:40} {percent:>3} % {elapsed}") {
            bar.set_style(style);
        }
        let server = self.blank().server;
        bar.set_prefix(format!("{} · {server} · round {}", self.plan.layout.scenario, self.round));
        bar
    }
}

/// How to start a server: as the command line says, on the cores that it is given.
pub fn settings(options: &Options, kind: Kind, workers: u16, placement: &Placement) -> Settings {
    let compared = options.compare || matches!(options.command, Command::Report(_));
    let binary: Option<PathBuf> = match kind {
        Kind::Baseline if compared => options.baseline_bin.clone(),
        _ => options.bin.clone(),
    };
    Settings {
        kind,
        workers,
        binary,
        cores: placement.server_cores.clone(),
        small_pages: false,
        secret: SECRET.to_owned(),
        queue_bytes: QUEUE_BYTES,
        drop_oldest: false,
        ping_s: None,
        realtime: options.is_realtime(),
    }
}

/// Where the clients of a server that we started connect to.
pub fn target(server: &Server, kind: Kind, addresses: u32, handshakes: usize) -> Target {
    let credentials = match kind {
        Kind::Pipeward => Credentials::Secret(SECRET.to_owned()),
        Kind::Baseline => Credentials::Name,
    };
    let address = server.address();
    let (host, path) = (address.to_string(), "/v1/connect".to_owned());
    Target { address, host, path, credentials, addresses, handshakes, receive_bytes: None, kernel_times: false }
}

/// Says on stdout what was measured, and keeps the connections until stdin ends: others look at the machine meanwhile.
fn hold_open(engine: &mut Engine, measurement: &Measurement) -> std::io::Result<()> {
    say(&serde_json::to_string(measurement)?);
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    while !over.load(Ordering::Relaxed) {
        engine.linger(SETTLE)?;
    }
    Ok(())
}

/// Time and CPU of both sides.
pub struct Meter {
    pid: Option<i32>,
    softirq_threads: Vec<i32>,
    begin: Instant,
    before: Readings,
}

/// Nanoseconds of CPU so far.
struct Readings {
    server: Option<u64>,
    softirq: u64,
    waited: Option<u64>,
    load: Option<u64>,
}

impl Meter {
    /// Begins.
    pub fn start(pid: Option<i32>, placement: &Placement) -> Self {
        let softirq_threads = placement.server_cores.as_deref().map(process::softirq_threads).unwrap_or_default();
        let before = Readings::now(pid, &softirq_threads);
        Self { pid, softirq_threads, begin: Instant::now(), before }
    }

    /// Ends, and writes down what passed since it began.
    pub fn stop(self, measurement: &mut Measurement) {
        measurement.seconds = self.begin.elapsed().as_secs_f64();
        let (before, now) = (self.before, Readings::now(self.pid, &self.softirq_threads));
        let since = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        measurement.server_cpu_ns = since(now.server, before.server);
        measurement.softirq_cpu_ns = now.softirq.saturating_sub(before.softirq);
        measurement.server_waited_ns = since(now.waited, before.waited);
        measurement.load_cpu_ns = since(now.load, before.load);
    }
}

impl Readings {
    fn now(pid: Option<i32>, softirq_threads: &[i32]) -> Self {
        let server = |read: fn(i32) -> std::io::Result<u64>| pid.and_then(|pid| read(pid).ok());
        Self {
            server: server(process::cpu_ns),
            softirq: softirq_threads.iter().filter_map(|pid| process::thread_cpu_ns(*pid).ok()).sum(),
            waited: server(process::waited_ns),
            load: process::cpu_ns(std::process::id() as i32).ok(),
        }
    }
}
