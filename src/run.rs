//! The process: threads for the workers, signals for the main thread, and how it ends.
//!
//! SIGTERM or SIGINT drains (G1); a second one ends the process at once, once the audit has been written. SIGUSR1 writes every worker's counters into
//! the log. A worker that fails ends the process: a supervisor restarts it and clients reconnect (ARCHITECTURE.md,
//! Panics).

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bounds::RING_ENTRIES;
use crate::config::Config;
use crate::control::Control;
use crate::control::audit::Audit;
use crate::mesh::doorbell::Bell;
use crate::mesh::port::mesh;
use crate::shard::shared::{Settings, Shared};
use crate::worker::engine::Backend;
use crate::worker::{Clock, EventFd, Handoffs, Listeners, Orders, Parts, expect_connections, listen};

/// Exit code when the server could not do its work.
const EXIT_FAILED: u8 = 1;
/// Exit code where the configuration is wrong.
const EXIT_WRONG: u8 = 2;
/// How long an exit in haste, after a second signal, waits for the audit. What was recorded is mostly written in a
/// moment, and who sends a second signal does not want to wait for a disk that hangs.
const HASTY_AUDIT_WAIT: Duration = Duration::from_millis(500);

/// Runs the server until it is told to stop.
///
/// `reload` reads the configuration again: None, once it has said why, where it is not usable.
pub fn serve(config: Config, reload: impl FnMut() -> Option<Config>) -> ExitCode {
    log_to_stderr();
    let store = config.store.path.clone();
    match Settings::new(config) {
        Ok(settings) => run(settings, Some(&store), reload, |_, _| {}),
        Err(error) => {
            tracing::error!("auth.token: {error}");
            ExitCode::from(EXIT_WRONG)
        }
    }
}

/// Log lines go to stderr: what went on, without tokens or payloads. `RUST_LOG` chooses how much; default `info`.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // A line that cannot be written is lost. Told to say so, the library would write to the same stderr with `eprintln!`,
    // which panics where that fails, and a panic ends the process.
    let log = log.log_internal_errors(false);
    // A second call, as in tests, changes nothing.
    let _ = log.try_init();
}

/// Runs a server with these settings. `store` None: what is revoked is forgotten with the process. `started` is told where
/// it listens, before anybody else is.
pub fn run(
    settings: Settings,
    store: Option<&Path>,
    reload: impl FnMut() -> Option<Config>,
    started: impl FnOnce(&Shared, &Addresses),
) -> ExitCode {
    match start(settings, store) {
        Ok(server) => {
            // Nobody is told that the server listens before every worker does. Why one does not is said where it is waited for.
            if server.all_serve() {
                started(&server.shared, &server.addresses);
                tracing::info!("server API on {}", server.addresses.control);
                for address in &server.addresses.edge {
                    tracing::info!("listening on {address}");
                }
            }
            server.supervise(reload)
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// A running server.
struct Server {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
    bells: Vec<Arc<EventFd>>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    /// Each worker says once that it serves, or drops its sender unused.
    serving: Receiver<()>,
    control: Control,
    audit: Audit,
    addresses: Addresses,
}

/// Where a server listens.
pub struct Addresses {
    /// For clients.
    pub edge: Vec<SocketAddr>,
    /// For the application.
    pub control: SocketAddr,
}

fn start(settings: Settings, store: Option<&Path>) -> Result<Server, String> {
    block_signals();
    expect_connections(settings.config.limits.connections);
    let edge = &settings.config.edge;
    let (workers, addresses) = (edge.workers, edge.listen.clone());
    let listeners =
        listen(&addresses, workers).map_err(|(address, error)| format!("cannot listen on {address}: {error}"))?;
    let addresses = listeners.first().map(Listeners::addresses).unwrap_or_default();
    let seed = getrandom::u64().map_err(|error| format!("no randomness from the system: {error}"))?;
    let bells = (0..workers)
        .map(|_| EventFd::new())
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| format!("cannot make an eventfd: {error}"))?;
    let rings = bells.iter().map(|bell| {
        let bell = bell.clone();
        Box::new(move || bell.ring()) as Box<dyn Bell>
    });
    // The last participant is the control thread, which only gives: nobody needs to wake it.
    let nobody = Box::new(|| {}) as Box<dyn Bell>;
    let mut ports = mesh(rings.chain([nobody]).collect(), RING_ENTRIES);
    let shared = Shared::new(settings, seed);
    let audit = Audit::start(&shared.settings().config.audit).map_err(|error| error.to_string())?;
    let port = ports.pop().ok_or("a mesh without ports")?;
    // The revocations of yesterday are in force before the first worker takes a connection.
    let control = Control::start(shared.clone(), port, store, audit.clone())?;
    let witness = control.witness();
    let orders = Arc::new(Orders::default());
    let handoffs = Handoffs::new(workers);
    let clock = Clock::start();
    let cpus = allowed_cpus();
    let mut threads = Vec::with_capacity(workers);
    let (ready, serving) = sync_channel(workers);
    for (worker, (port, listeners)) in ports.into_iter().zip(listeners).enumerate() {
        let parts = Parts {
            shared: shared.clone(),
            port,
            bell: bells[worker].clone(),
            listeners,
            handoffs: handoffs.clone(),
            orders: orders.clone(),
            witness: witness.clone(),
            clock,
            backend: backend(),
        };
        let (attendance, ready) = (control.attendance(worker), ready.clone());
        let cpu = cpus.get(worker % cpus.len().max(1)).copied();
        let thread = std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            let ended = crate::worker::run(parts, move || ready.send(()).unwrap_or_default());
            drop(attendance);
            ended
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // Those that did start may have served somebody meanwhile: what is on its way to the disk gets there.
                control.stop();
                audit.close();
                return Err(format!("cannot start worker {worker}: {error}"));
            }
        }
    }
    let addresses = Addresses { edge: addresses, control: control.address() };
    Ok(Server { shared, orders, bells, workers: threads, serving, control, audit, addresses })
}

impl Server {
    /// Whether every worker serves; waits until each does or has failed.
    fn all_serve(&self) -> bool {
        self.serving.iter().count() == self.workers.len()
    }

    /// Waits for signals and for the workers.
    fn supervise(mut self, mut reload: impl FnMut() -> Option<Config>) -> ExitCode {
        let mut draining = false;
        loop {
            match wait_for_signal(Duration::from_millis(100)) {
                Some(libc::SIGTERM | libc::SIGINT) if draining => {
                    tracing::warn!("told to stop again: exiting at once");
                    self.audit.close_within(HASTY_AUDIT_WAIT);
                    return ExitCode::from(EXIT_FAILED);
                }
                Some(libc::SIGTERM | libc::SIGINT) => {
                    let drain_s = self.shared.settings().config.edge.drain_s;
                    draining = true;
                    self.shared.drain();
                    tracing::info!("draining: connections are let go within {drain_s} s");
                    self.ring_all();
                }
                Some(libc::SIGUSR1) => {
                    self.orders.reports.fetch_add(1, Relaxed);
                    self.ring_all();
                }
                Some(libc::SIGHUP) => self.reload(&mut reload),
                _ => {}
            }
            if self.control.has_ended() {
                tracing::error!("the control thread has ended by itself");
                return ExitCode::from(EXIT_FAILED);
            }
            if let Some(code) = self.ended() {
                self.control.stop();
                self.audit.close();
                return code;
            }
        }
    }

    /// Puts a configuration that was read again in force, whole or not at all (G2).
    fn reload(&self, reload: &mut impl FnMut() -> Option<Config>) {
        let old = self.shared.settings();
        let Some(mut config) = reload() else {
            return tracing::error!("the configuration was not reloaded: the old one stays in force");
        };
        for key in config.keep_fixed(&old.config) {
            tracing::warn!("{key} cannot be changed while the server runs: it keeps its value until a restart");
        }
        match Settings::new(config) {
            Ok(mut settings) => {
                if let (Some(new), Some(old)) = (&mut settings.verifier, &old.verifier) {
                    new.keep_fetched(old);
                }
                self.shared.replace_settings(settings);
                self.orders.reloads.fetch_add(1, Release);
                self.ring_all();
                self.control.reload();
                tracing::info!("the configuration was reloaded");
            }
            Err(error) => tracing::error!("the configuration was not reloaded: auth.token: {error}"),
        }
    }

    fn ring_all(&self) {
        self.bells.iter().for_each(|bell| bell.ring());
    }

    /// The exit code, once a worker has failed or all have ended.
    fn ended(&mut self) -> Option<ExitCode> {
        while let Some(place) = self.workers.iter().position(JoinHandle::is_finished) {
            match self.workers.swap_remove(place).join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!("a worker failed: {error}");
                    return Some(ExitCode::from(EXIT_FAILED));
                }
                Err(_) => return Some(ExitCode::from(EXIT_FAILED)),
            }
        }
        self.workers.is_empty().then_some(ExitCode::SUCCESS)
    }
}

/// The variable that chooses epoll although io_uring may be there: `epoll`.
const BACKEND_VARIABLE: &str = "PIPEWARD_BACKEND";

fn backend() -> Backend {
    match std::env::var(BACKEND_VARIABLE).as_deref() {
        Ok("epoll") => Backend::Epoll,
        _ => Backend::Uring,
    }
}

fn signals() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, sigaddset then changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGHUP] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Threads started from now on leave the signals to [`wait_for_signal`].
fn block_signals() {
    let set = signals();
    // SAFETY: the set is initialised; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    // A file that may not grow is an error of the write that tried, not the end of the process.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

fn wait_for_signal(most: Duration) -> Option<i32> {
    let set = signals();
    let timeout = libc::timespec { tv_sec: most.as_secs() as libc::time_t, tv_nsec: i64::from(most.subsec_nanos()) };
    // SAFETY: set and timeout are initialised; no information about the signal is asked for.
    let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const timeout) };
    (signal > 0).then_some(signal)
}

/// The cores that this process may run on.
fn allowed_cpus() -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the size given into the set, which is zeroed and so valid either way.
    let (result, set) = unsafe {
        let result = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
        (result, set.assume_init())
    };
    if result != 0 {
        return Vec::new();
    }
    // SAFETY: the index is below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Pins the calling thread. A refusal is no fault: the thread runs wherever the kernel likes.
fn pin(cpu: usize) {
    // SAFETY: a zeroed set is an empty one; the index comes from the kernel's own set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}
