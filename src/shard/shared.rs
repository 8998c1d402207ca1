//! What all workers of a process share: the settings, the pipe registry, the seats, and whether it is ready.
//!
//! Nothing in here is written on the path of a message, but for the buckets of summed rates, which are lock-free.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use ahash::RandomState;
use crossbeam_utils::CachePadded;

use super::admission::Admission;
use super::throttle::Paces;
use crate::auth::token::Verifier;
use crate::bounds::PIPES_MAX;
use crate::config::Config;
use crate::mesh::registry::Registry;

/// The configuration, made ready for use.
pub struct Settings {
    /// As loaded.
    pub config: Config,
    /// Checks tokens; None where `[auth.token]` is absent.
    pub verifier: Option<Verifier>,
    /// The rates of one connection.
    pub paces: Paces,
    /// The rates summed over a person's connections.
    pub summed: Paces,
    /// A page served at `/`, for the demonstration.
    pub page: Option<String>,
}

impl Settings {
    /// # Errors
    /// A sentence about the key of `[auth.token]`, if it is not usable.
    pub fn new(config: Config) -> Result<Settings, String> {
        let verifier = config.auth.token.as_ref().map(Verifier::new).transpose()?;
        let paces = Paces::new(&config.limits.rates);
        let summed = Paces::new(&config.limits.per_user);
        Ok(Settings { config, verifier, paces, summed, page: None })
    }
}

/// Shared by all workers of a process.
pub struct Shared {
    /// The configuration.
    pub settings: Settings,
    /// Seeds the hashers and the first generation of connection handles.
    pub seed: u64,
    /// Process-wide pipes.
    pub registry: Registry,
    /// Seats and summed rates.
    pub admission: Arc<Admission>,
    /// Connections of each worker, for placing new ones.
    pub loads: Box<[CachePadded<AtomicU32>]>,
    workers_ready: AtomicU32,
    draining: AtomicBool,
}

impl Shared {
    /// `seed` must be random in production: keys of the maps come from the network (INVARIANTS 23).
    pub fn new(settings: Settings, seed: u64) -> Arc<Shared> {
        let hasher = |salt: u64| RandomState::with_seeds(seed, salt, seed.rotate_left(17), salt.rotate_left(31) ^ seed);
        let workers = settings.config.edge.workers;
        Arc::new(Shared {
            settings,
            seed,
            registry: Registry::new(hasher(0x5049_5045), PIPES_MAX),
            admission: Admission::new(hasher(0x5355_424a)),
            loads: (0..workers).map(|_| CachePadded::default()).collect(),
            workers_ready: AtomicU32::new(0),
            draining: AtomicBool::new(false),
        })
    }

    /// A worker accepts connections from now on.
    pub fn worker_ready(&self) {
        self.workers_ready.fetch_add(1, Relaxed);
    }

    /// Every worker accepts and nobody asked to stop (G17).
    pub fn is_ready(&self) -> bool {
        self.workers_ready.load(Relaxed) as usize == self.loads.len() && !self.is_draining()
    }

    /// New connections are refused from now on.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}
