//! Heavy tails: what others feel when somebody misbehaves or the weather turns.
//!
//! Method: one server, two groups of clients. The *measured* ones exchange events at a fixed rate all the time; the
//! *disturbing* ones live in a second thread and act in every second phase. Both phases are of the same run, the same
//! connections and the same seconds; the figure is the measured clients' p99 with the disturbance over their p99 without,
//! the median of several pairs of phases.
//!
//! Measured and disturbing clients share a core here, on other machines they would not. So that what the disturbing ones
//! cost *here* is not taken for what they cost in the server, latency counts from the handing over of a publish to the
//! kernel to the moment at which the kernel had the event for its receiver (`SO_TIMESTAMPNS`; over loopback that is within
//! the server's own write), and the measuring thread goes first (`SCHED_FIFO`, if allowed). When this program had the event,
//! and how late it was with its publishes, are told beside it.

mod disturber;
mod outcome;

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::client::Role;
use crate::engine::{Engine, Exchange, Target, Wait};
use crate::load::Layout;
use crate::options;
use crate::process;
use crate::report::{Latency, Measurement, Report};
use crate::run::{self, Meter, Placement};
use crate::scenario::{grouped, publisher, subscriber};
use crate::server::Server;
use disturber::{Act, Disturbance, Disturber};
pub use outcome::{Outcome, Pair, Phase, Tails};

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Which disturbances [default: all]
    #[arg(value_enum)]
    pub kinds: Vec<Kind>,
    /// Pairs of a quiet and a disturbed phase
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pairs: u32,
    /// Publishes per second of the measured clients: few enough that a quiet server is far from busy, for a busy one has
    /// tails of its own
    #[arg(long, default_value_t = 200.0, value_parser = crate::scenario::rate)]
    pub measured_rate: f64,
    /// hot: pipes beside the hot one, each with one client
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub quiet_pipes: u32,
    /// hot: subscribers of the hot pipe
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub hot_subscribers: u32,
    /// hot: publishes per second to it
    #[arg(long, default_value_t = 500.0, value_parser = crate::scenario::rate)]
    pub hot_rate: f64,
    /// storm: clients that reconnect all at once, again and again
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub storm: u32,
    /// large: publishes of 16 KiB per second to a pipe with as many subscribers as the measured one
    #[arg(long, default_value_t = 50.0, value_parser = crate::scenario::rate)]
    pub large_rate: f64,
}

/// A disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One in ten subscribers of the pipe does not read
    Slow,
    /// One pipe is hot, next to ten thousand quiet ones
    Hot,
    /// Everybody else reconnects at once
    Storm,
    /// Another pipe carries payloads of 16 KiB
    Large,
}

/// Subscribers of the one measured pipe, those that misbehave included.
const SUBSCRIBERS: u32 = 100;
/// `data` of a large publish.
const LARGE_BYTES: usize = 16 * 1024;
/// A queue that a client which does not read overflows within a phase.
const SLOW_QUEUE_BYTES: u32 = 64 * 1024;
/// Receive buffer of a client that does not read: the kernel doubles it, and holds little on its behalf.
const SLOW_RECEIVE_BYTES: i32 = 4096;
/// Between two phases, and between the begin of a disturbance and the measurement.
const SETTLE: Duration = Duration::from_millis(300);
/// Publishing before the first phase.
const WARM_UP: Duration = Duration::from_millis(500);

/// Who is measured, and what disturbs them.
struct Scene {
    kind: Kind,
    says: String,
    layout: Layout,
    disturbance: Disturbance,
}

impl Scene {
    fn new(kind: Kind, options: &Options, payload: usize) -> Self {
        let one_pipe = |name| grouped(name, 1, SUBSCRIBERS);
        let quiet = |layout, act| Disturbance { layout, act, data_bytes: payload, receive_bytes: None };
        let (says, layout, disturbance) = match kind {
            Kind::Slow => {
                let slow = SUBSCRIBERS / 10;
                let roles = vec![subscriber(0); slow as usize];
                let act = Disturbance {
                    receive_bytes: Some(SLOW_RECEIVE_BYTES),
                    ..quiet(Layout { scenario: "slow", roles, groups: 1, split: false }, Act::StopReading)
                };
                let says = format!("{slow} of {SUBSCRIBERS} subscribers of the pipe do not read");
                (says, grouped("slow", 1, SUBSCRIBERS - slow), act)
            }
            Kind::Hot => {
                // Its own subscriber: descriptors are what runs out first.
                let own = |pipe| Role { group_first: pipe, group_count: 1, publishes: Some(pipe) };
                let (groups, hot, rate) = (options.quiet_pipes, options.hot_subscribers, options.hot_rate);
                let layout = Layout { scenario: "quiet", roles: (0..groups).map(own).collect(), groups, split: false };
                let says = format!("a pipe with {hot} subscribers gets {rate} events/s next to {groups} quiet pipes");
                (says, layout, quiet(grouped("hot", 1, hot), Act::Publish { rate }))
            }
            Kind::Storm => {
                let roles = vec![subscriber(0); options.storm as usize];
                let layout = Layout { scenario: "storm", roles, groups: 1, split: false };
                let says = format!("{} clients reconnect all at once, again and again", options.storm);
                (says, one_pipe("calm"), quiet(layout, Act::Reconnect))
            }
            Kind::Large => {
                let rate = options.large_rate;
                let mut roles = vec![publisher(0)];
                roles.resize(1 + SUBSCRIBERS as usize, subscriber(0));
                let layout = Layout { scenario: "large", roles, groups: 1, split: false };
                let act = Disturbance { data_bytes: LARGE_BYTES, ..quiet(layout, Act::Publish { rate }) };
                let says = format!("another pipe with {SUBSCRIBERS} subscribers gets {rate} events/s of 16 KiB");
                (says, one_pipe("small"), act)
            }
        };
        Self { kind, says, layout, disturbance }
    }
}

/// Measures the disturbances that were asked for, one server for each.
pub fn run(options: &options::Options, tails: &Options) -> Result<Tails, String> {
    if options.url.is_some() || options.compare || options.compare_workers.is_some() {
        return Err("tails starts its own server, one: neither --url nor --compare".to_owned());
    }
    let kinds = if tails.kinds.is_empty() { Kind::value_variants() } else { &tails.kinds };
    let mut outcomes = Vec::new();
    for kind in kinds {
        outcomes.push(measure(options, tails, &Scene::new(*kind, tails, options.payload as usize))?);
    }
    Ok(Tails::new(outcomes))
}

fn measure(options: &options::Options, tails: &Options, scene: &Scene) -> Result<Outcome, String> {
    process::reserve_files(scene.layout.roles.len() + scene.disturbance.layout.roles.len())?;
    let cores = process::cores();
    let placement = Placement::choose(options, options.workers, &cores);
    placement.take()?;
    let mut settings = run::settings(options, options.server, options.workers, &placement);
    if scene.kind == Kind::Slow {
        (settings.queue_bytes, settings.drop_oldest) = (SLOW_QUEUE_BYTES, true);
    }
    let server = Server::start(&settings)?;
    let outcome = phases(options, tails, scene, &server, &placement);
    process::first_on_its_core(false);
    process::pin(&cores).map_err(|error| format!("cannot give the cores back: {error}"))?;
    outcome
}

fn phases(
    options: &options::Options,
    tails: &Options,
    scene: &Scene,
    server: &Server,
    placement: &Placement,
) -> Result<Outcome, String> {
    let failed = |error: std::io::Error| format!("the clients' sockets: {error}");
    let target = |connections| {
        let addresses = options.addresses(connections);
        run::target(server, options.server, addresses, options.handshakes as usize)
    };
    let measured = |connections| Target { kernel_times: true, ..target(connections) };
    let disturber = Disturber::start(scene.disturbance.clone(), target(scene.disturbance.layout.roles.len()))?;
    let is_first = process::first_on_its_core(true);
    let everyone = scene.layout.roles.len();
    let mut engine =
        Engine::new(&scene.layout, options.payload as usize, measured(everyone), Wait::Sleep).map_err(failed)?;
    let mut completed = engine.open(everyone, &mut |_| {}).map_err(failed)? && engine.load.ready == everyone;
    let duration = Duration::from_secs_f64(options.seconds);
    let mut phase = |length: Duration| -> Result<Phase, String> {
        engine.load.forget_latencies();
        let rate = Some(tails.measured_rate);
        let exchange = Exchange { window: 1, rate, duration: length, messages_max: u64::MAX };
        let mut measurement = Measurement::default();
        let meter = Meter::start(Some(server.pid()), placement);
        completed = completed && engine.exchange(exchange, &mut |_| {}).map_err(failed)?;
        meter.stop(&mut measurement);
        let [latency, seen, late] = [&engine.load.latency, &engine.load.seen, &engine.load.lateness].map(Latency::of);
        let (seen_p99_us, late_p99_us) = (seen.map(|seen| seen.p99_us), late.map(|late| late.p99_us));
        Ok(Phase { latency, seen_p99_us, late_p99_us, cpu_share: measurement.cpu_share() })
    };
    phase(WARM_UP)?;
    let mut pairs = Vec::new();
    for _ in 0..tails.pairs {
        let quiet = phase(duration)?;
        disturber.begin(duration + 2 * SETTLE);
        std::thread::sleep(SETTLE);
        let disturbed = phase(duration)?;
        disturber.await_end()?;
        std::thread::sleep(SETTLE);
        pairs.push(Pair { quiet, disturbed });
    }
    let disturbance = disturber.end()?;
    let mut measurement = Measurement { completed, ..Measurement::default() };
    measurement.faults(engine.load.faults(), &engine.load.trouble);
    measurement.deliveries = engine.load.deliveries;
    let clean = Report::new(vec![measurement.clone()]).is_clean() && disturbance.clean;
    Ok(Outcome {
        name: scene.kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
        says: scene.says.clone(),
        measured: everyone,
        disturbing: scene.disturbance.layout.roles.len(),
        is_first,
        pairs,
        deliveries: measurement.deliveries,
        acts: disturbance.acts,
        clean,
        trouble: measurement.first_trouble.or(disturbance.trouble),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn one_in_ten_is_slow_on_the_very_pipe_that_is_measured() {
        let options = options::Options::parse_from(["loadtest", "tails", "slow"]);
        let options::Command::Tails(tails) = &options.command else { panic!("tails was asked for") };
        let scene = Scene::new(tails.kinds[0], tails, 128);
        let slow = &scene.disturbance.layout;
        assert_eq!((slow.scenario, slow.roles.len()), (scene.layout.scenario, 10));
        assert_eq!(scene.layout.roles.len(), 1 + 90);
    }

    #[test]
    fn the_hot_pipe_is_none_of_the_quiet_ones() {
        let options = options::Options::parse_from(["loadtest", "tails", "--quiet-pipes", "5"]);
        let options::Command::Tails(tails) = &options.command else { panic!("tails was asked for") };
        let scene = Scene::new(Kind::Hot, tails, 128);
        assert_ne!(scene.layout.scenario, scene.disturbance.layout.scenario);
        assert!(scene.layout.roles.iter().enumerate().all(|(pipe, role)| role.publishes == Some(pipe as u32)));
    }
}
