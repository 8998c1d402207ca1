//! What all workers of a process share: the settings, the pipe registry, the seats, and whether it is ready.
//!
//! Nothing in here is written on the path of a message, but for the buckets of summed rates, which are lock-free.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ahash::RandomState;
use crossbeam_utils::CachePadded;

use super::admission::{Admission, Summed};
use super::presence::Rooms;
use super::revocation::Revocations;
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
    /// The rates summed over a tenant's connections.
    pub of_tenant: Paces,
    /// Whether rates are summed over anybody.
    pub sums: bool,
    /// Whether any rule of a pipe, an action or a queue, or any guard, is the application's.
    pub asks: bool,
}

impl Settings {
    /// What rates are summed over.
    pub fn summed_over(&self) -> Summed {
        Summed { persons: self.summed.any(), tenants: self.of_tenant.any() }
    }

    /// # Errors
    /// A sentence about the key of `[auth.token]`, if it is not usable.
    pub fn new(config: Config) -> Result<Settings, String> {
        let verifier = config.auth.token.as_ref().map(Verifier::new).transpose()?;
        let paces = Paces::new(&config.limits.rates);
        let summed = Paces::new(&config.limits.per_user);
        let of_tenant = Paces::new(&config.limits.per_tenant);
        let asks = config.rules.asks();
        let sums = summed.any() || of_tenant.any();
        Ok(Settings { config, verifier, paces, summed, of_tenant, sums, asks })
    }
}

/// Shared by all workers of a process.
pub struct Shared {
    settings: RwLock<Arc<Settings>>,
    /// For what peers may see: generations of handles, spread of waiting times. The hashers' seed cannot be had from it.
    pub names_seed: u64,
    seed: u64,
    /// Process-wide pipes.
    pub registry: Registry,
    /// What was taken away.
    pub revocations: Revocations,
    /// Who is in the pipes that somebody watches.
    pub rooms: Rooms,
    /// Seats and summed rates.
    pub admission: Arc<Admission>,
    /// Connections of each worker, for placing new ones.
    pub loads: Box<[CachePadded<AtomicU32>]>,
    /// A page served at `/` once it is there, for the demonstration.
    pub page: OnceLock<String>,
    workers_ready: AtomicU32,
    draining: AtomicBool,
}

impl Shared {
    /// `seed` must be random in production: keys of the maps come from the network (INVARIANTS 23).
    pub fn new(settings: Settings, seed: u64) -> Arc<Shared> {
        let hasher = |salt: u64| hasher(seed, salt);
        let workers = settings.config.edge.workers;
        Arc::new(Shared {
            settings: RwLock::new(Arc::new(settings)),
            names_seed: names_seed(seed),
            seed,
            registry: Registry::new(hasher(0x5049_5045), PIPES_MAX),
            revocations: Revocations::new(hasher(0x5245_564f)),
            rooms: Rooms::new(hasher(0x524f_4f4d)),
            admission: Admission::new(hasher(0x5355_424a)),
            loads: (0..workers).map(|_| CachePadded::default()).collect(),
            page: OnceLock::new(),
            workers_ready: AtomicU32::new(0),
            draining: AtomicBool::new(false),
        })
    }

    /// A hasher for keys that come from the network. `salt` makes it another one for each table.
    pub fn hasher(&self, salt: u64) -> RandomState {
        hasher(self.seed, salt)
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other settings in force; workers take them up when they are told ([`super::input::Input::Reload`]).
    pub fn replace_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// A worker accepts connections from now on.
    pub fn worker_ready(&self) {
        self.workers_ready.fetch_add(1, Relaxed);
    }

    /// Every worker accepts, tokens can be verified (B11), and nobody asked to stop (G17).
    pub fn is_ready(&self) -> bool {
        self.workers_ready.load(Relaxed) as usize == self.loads.len()
            && !self.is_draining()
            && self.settings().verifier.as_ref().is_none_or(Verifier::is_ready)
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

/// A one-way function of the seed (INVARIANTS 23).
fn names_seed(seed: u64) -> u64 {
    let digest = sha1_smol::Sha1::from([b"names".as_slice(), &seed.to_le_bytes()].concat()).digest().bytes();
    digest[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn hasher(seed: u64, salt: u64) -> RandomState {
    RandomState::with_seeds(seed, salt, seed.rotate_left(17), salt.rotate_left(31) ^ seed)
}
