//! Rounds: a fresh server, the clients of the scenario, a measurement; in turns where servers are compared.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::{Engine, Exchange, Target, Wait};
use crate::options::{self, Options, Pin, WaitOption};
use crate::process;
use crate::regression;
use crate::report::{Latency, Measurement, Memory, MemoryPoint, Report};
use crate::scenario::{Plan, Work};
use crate::server::{Kind, Server, Settings};
use crate::token::Credentials;

/// Signs the tokens for servers that we start.
const SECRET: &str = "loadtest-secret-of-at-least-32-bytes";
/// Between the last handshake of a step and the reading of memory.
const SETTLE: Duration = Duration::from_millis(300);

/// What a round is run against.
#[derive(Clone, Copy)]
enum Subject {
    Started(Kind),
    Running,
}

/// Runs everything that the command line asks for.
pub fn all(options: &Options) -> Result<Report, String> {
    let plan = options.scenario.plan();
    process::reserve_files(plan.layout.roles.len())?;
    let subjects: &[Subject] = match (&options.url, options.compare) {
        (Some(_), _) => &[Subject::Running],
        (None, true) => &[Subject::Started(Kind::Pipeward), Subject::Started(Kind::Baseline)],
        (None, false) => &[Subject::Started(options.server)],
    };
    let placement = Placement::choose(options);
    if let Some(core) = placement.load_core {
        process::pin(&[core]).map_err(|error| format!("cannot bind to core {core}: {error}"))?;
    }
    let mut measurements = Vec::new();
    for round in 1..=options.rounds() {
        for subject in subjects {
            measurements.push(Round { options, plan: &plan, placement: &placement, subject: *subject, round }.run()?);
        }
    }
    Ok(Report::new(measurements))
}

/// Which cores the two sides use.
struct Placement {
    server_cores: Option<Vec<usize>>,
    load_core: Option<usize>,
    wait: Wait,
}

impl Placement {
    fn choose(options: &Options) -> Self {
        let cores = process::cores();
        let pin = options.pin == Pin::Auto && cores.len() > 1;
        let workers = usize::from(options.workers);
        // As many workers as cores: the clients have to share the last one.
        let own = if workers < cores.len() { cores.len() - 1 } else { cores.len() };
        let server_cores = pin.then(|| cores[..workers.min(own)].to_vec());
        let load_core = if pin { cores.last().copied() } else { None };
        let alone = pin && options.url.is_none() && own < cores.len();
        let wait = match options.wait {
            WaitOption::Auto if alone => Wait::Spin,
            WaitOption::Spin => Wait::Spin,
            WaitOption::Auto | WaitOption::Sleep => Wait::Sleep,
        };
        Self { server_cores, load_core, wait }
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
            Subject::Started(kind) => Some(Server::start(&self.settings(kind))?),
            Subject::Running => None,
        };
        let pid = server.as_ref().map(Server::pid).or(self.options.server_pid);
        let target = self.target(server.as_ref())?;
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
            Work::Idle { steps } => self.idle(&mut engine, pid, steps, &mut measurement, &mut tick),
        };
        bar.finish_and_clear();
        measurement.completed = done.map_err(|error| format!("the clients' sockets: {error}"))?;
        measurement.server_rss_bytes = pid.and_then(|pid| process::rss_bytes(pid).ok());
        measurement.faults(engine.load.faults(), &engine.load.trouble);
        // The clients go first, so that no server is asked to say goodbye to thousands.
        drop(engine);
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
        engine.load.latency.reset();
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
        measurement.per_unit(measurement.deliveries);
        Ok(done)
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
            engine.linger(SETTLE)?;
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
        Ok(true)
    }

    fn settings(&self, kind: Kind) -> Settings {
        let options = self.options;
        let binary: Option<PathBuf> = match kind {
            Kind::Baseline if options.compare => options.baseline_bin.clone(),
            _ => options.bin.clone(),
        };
        Settings {
            kind,
            workers: options.workers,
            binary,
            cores: self.placement.server_cores.clone(),
            small_pages: matches!(self.plan.work, Work::Idle { .. }),
            secret: SECRET.to_owned(),
        }
    }

    fn target(&self, server: Option<&Server>) -> Result<Target, String> {
        let options = self.options;
        let connections = self.plan.layout.roles.len();
        let (addresses, handshakes) = (options.addresses(connections), options.handshakes as usize);
        if let (Some(server), Subject::Started(kind)) = (server, self.subject) {
            let credentials = match kind {
                Kind::Pipeward => Credentials::Secret(SECRET.to_owned()),
                Kind::Baseline => Credentials::Name,
            };
            let address = server.address();
            let (host, path) = (address.to_string(), "/v1/connect".to_owned());
            return Ok(Target { address, host, path, credentials, addresses, handshakes });
        }
        let url = options::url(options.url.as_deref().unwrap_or_default())?;
        let credentials = match &options.token_secret {
            Some(secret) => Credentials::Secret(secret.clone()),
            None => Credentials::Name,
        };
        Ok(Target { address: url.address, host: url.host, path: url.path, credentials, addresses, handshakes })
    }

    fn blank(&self) -> Measurement {
        let server = match self.subject {
            Subject::Started(kind) => kind.name().to_owned(),
            Subject::Running => self.options.url.clone().unwrap_or_default(),
        };
        Measurement {
            scenario: self.plan.layout.scenario.to_owned(),
            server,
            workers: matches!(self.subject, Subject::Started(_)).then_some(self.options.workers),
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

/// Time and CPU of both sides.
struct Meter {
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
    fn start(pid: Option<i32>, placement: &Placement) -> Self {
        let softirq_threads = placement.server_cores.as_deref().map(process::softirq_threads).unwrap_or_default();
        let before = Readings::now(pid, &softirq_threads);
        Self { pid, softirq_threads, begin: Instant::now(), before }
    }

    fn stop(self, measurement: &mut Measurement) {
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
