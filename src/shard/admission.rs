//! Who may hold how many connections, exact over all workers.
//!
//! The only state that workers share besides the mesh: one record for each address, tenant and person that a cap or a
//! summed rate is configured for. A handshake fetches its records under a lock of one of 64 shards of the map; from then
//! on the connection keeps the references, so that no message ever takes a lock. Counting is compare-and-swap against
//! the limit: two workers cannot exceed it by a race (B22). A seat is given back exactly once, by [`Seats`] being
//! dropped, however the connection ended.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use crossbeam_utils::CachePadded;
use hashbrown::HashTable;

use super::rate::{Pace, SharedBucket};
use crate::config::{Limits, Rate};
use crate::protocol::codes::Code;

/// Rates that are summed over a person's connections, as indices of [`Subject::bucket`].
pub const SUMMED_RATES: usize = 9;

/// What a cap or a summed rate is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubjectKey {
    /// One address; for IPv6 its /64 (B28).
    Address(IpAddr),
    /// One tenant.
    Tenant(Box<str>),
    /// A person is (tenant, user) (D14).
    Person(Option<Box<str>>, Box<str>),
}

/// The shared record of one address, tenant or person. Lives while a connection holds it.
#[derive(Debug)]
pub struct Subject {
    key: SubjectKey,
    connections: CachePadded<AtomicU32>,
    pending: AtomicU32,
    buckets: Option<Box<[SharedBucket; SUMMED_RATES]>>,
}

impl Subject {
    /// Whether a bucket is still to be filled at this time.
    fn owes(&self, now_ns: u64) -> bool {
        self.buckets.as_ref().is_some_and(|buckets| buckets.iter().any(|bucket| bucket.owes(now_ns)))
    }

    /// Connections that hold a seat here now.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Handshakes under way from here now.
    pub fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// The summed bucket with this index; none where no summed rate is configured.
    pub fn bucket(&self, index: usize) -> Option<&SharedBucket> {
        self.buckets.as_ref().map(|buckets| &buckets[index])
    }
}

/// The process-wide counts. Shared by all workers.
pub struct Admission {
    connections: CachePadded<AtomicU32>,
    handshakes: SharedBucket,
    shards: Box<[Mutex<Part>]>,
    hasher: RandomState,
    /// The latest time that a handshake brought, in nanoseconds.
    now_ns: AtomicU64,
}

/// A part of the map under one lock.
#[derive(Default)]
struct Part {
    table: HashTable<Arc<Subject>>,
    /// Above this many records those that nobody needs any more are looked for.
    sweep_at: usize,
}

/// What rates are summed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summed {
    /// `[limits.per_user]` has any.
    pub persons: bool,
    /// `[limits.per_tenant]` has any.
    pub tenants: bool,
}

/// The seats that one connection holds. Dropping it gives all of them back.
#[derive(Default)]
pub struct Seats {
    admission: Option<Arc<Admission>>,
    /// None while no cap and no summed rate concerns it.
    held: Option<Box<[Option<Arc<Subject>>; 3]>>,
}

const ADDRESS: usize = 0;
const TENANT: usize = 1;
const PERSON: usize = 2;

impl Admission {
    /// Nobody is connected. `hasher` must be seeded randomly: addresses and user ids come from the network.
    pub fn new(hasher: RandomState) -> Arc<Admission> {
        Arc::new(Admission {
            connections: CachePadded::default(),
            handshakes: SharedBucket::default(),
            shards: (0..64).map(|_| Mutex::default()).collect(),
            hasher,
            now_ns: AtomicU64::new(0),
        })
    }

    /// Connections that hold a seat, over all workers.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Records that a connection or a handshake holds: for tests and metrics. The others wait for their buckets to fill.
    pub fn subjects(&self) -> usize {
        let held = |subject: &&Arc<Subject>| Arc::strong_count(subject) > 1;
        self.shards.iter().map(|shard| lock(shard).table.iter().filter(held).count()).sum()
    }

    /// Counts one handshake against the rate of the whole server (B23), or says how long to wait, in nanoseconds.
    pub fn handshake(&self, per_s: u32, now_ns: u64) -> Result<(), u64> {
        self.now_ns.fetch_max(now_ns, Relaxed);
        if per_s == 0 {
            return Ok(());
        }
        let pace = Pace::new(Rate { per_s: per_s.into(), burst: per_s.into() });
        self.handshakes.take(pace, now_ns, 1)
    }

    /// The record of an address that has begun a handshake; counted as pending until [`Pending`] is dropped.
    pub fn begin(self: &Arc<Self>, address: IpAddr) -> Pending {
        let subject = self.fetch(SubjectKey::Address(address), false);
        subject.pending.fetch_add(1, Relaxed);
        Pending { admission: self.clone(), subject: Some(subject) }
    }

    /// Takes the seats that need no identity: the whole server's and the address's.
    pub fn enter(self: &Arc<Self>, limits: &Limits, address: IpAddr) -> Result<Seats, Code> {
        if !count_up(&self.connections, limits.connections) {
            return Err(Code::TooManyConnections);
        }
        let mut seats = Seats { admission: Some(self.clone()), held: None };
        seats.sit(ADDRESS, limits.connections_per_ip, || SubjectKey::Address(address), false)?;
        Ok(seats)
    }

    fn fetch(&self, key: SubjectKey, with_rates: bool) -> Arc<Subject> {
        let hash = self.hasher.hash_one(&key);
        let mut shard = self.shard(hash);
        self.sweep(&mut shard);
        let hasher = |subject: &Arc<Subject>| self.hasher.hash_one(&subject.key);
        shard
            .table
            .entry(hash, |subject| subject.key == key, hasher)
            .or_insert_with(|| {
                let buckets = with_rates.then(Box::default);
                Arc::new(Subject { key, connections: CachePadded::default(), pending: AtomicU32::new(0), buckets })
            })
            .get()
            .clone()
    }

    /// Removes records that nobody holds and whose buckets are full again, when the part has doubled since the last time.
    fn sweep(&self, part: &mut Part) {
        if part.table.len() < part.sweep_at.max(64) {
            return;
        }
        let now_ns = self.now_ns.load(Relaxed);
        part.table.retain(|subject| Arc::strong_count(subject) > 1 || subject.owes(now_ns));
        part.sweep_at = part.table.len() * 2;
    }

    /// Forgets the record if only the map and this reference are left, and no bucket of it is still to be filled: whoever
    /// comes back at once finds what was taken. Decided under the shard's lock, where alone
    /// new references come from.
    fn let_go(&self, subject: Arc<Subject>) {
        let hash = self.hasher.hash_one(&subject.key);
        let mut shard = self.shard(hash);
        if Arc::strong_count(&subject) == 2
            && !subject.owes(self.now_ns.load(Relaxed))
            && let Ok(entry) = shard.table.find_entry(hash, |other| Arc::ptr_eq(other, &subject))
        {
            entry.remove();
        }
        // Dropped before the lock is released, so that of two last holders the second sees a count of two.
        drop(subject);
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Part> {
        lock(&self.shards[(hash >> 58) as usize])
    }
}

impl Seats {
    /// Takes the seats of an identity: its tenant's and its own. `summed`: what rates are summed over. On a refusal all
    /// seats are given back with `self`.
    pub fn identify(&mut self, limits: &Limits, summed: Summed, tenant: Option<&str>, user: &str) -> Result<(), Code> {
        if let Some(tenant) = tenant {
            let key = || SubjectKey::Tenant(tenant.into());
            self.sit(TENANT, limits.connections_per_tenant, key, summed.tenants)?;
        }
        let person = || SubjectKey::Person(tenant.map(Into::into), user.into());
        self.sit(PERSON, limits.connections_per_user, person, summed.persons)
    }

    /// The tenant's record, where a cap or a summed rate is configured for tenants.
    pub fn tenant(&self) -> Option<&Subject> {
        self.holds(TENANT)
    }

    /// The person's record, where a cap or a summed rate is configured for persons.
    pub fn person(&self) -> Option<&Subject> {
        self.holds(PERSON)
    }

    fn holds(&self, place: usize) -> Option<&Subject> {
        self.held.as_ref()?[place].as_deref()
    }

    fn sit(&mut self, place: usize, limit: u32, key: impl FnOnce() -> SubjectKey, rates: bool) -> Result<(), Code> {
        let Some(admission) = &self.admission else { return Ok(()) };
        if limit == 0 && !rates {
            return Ok(());
        }
        let subject = admission.fetch(key(), rates);
        if count_up(&subject.connections, limit) {
            self.held.get_or_insert_default()[place] = Some(subject);
            Ok(())
        } else {
            admission.let_go(subject);
            Err(Code::TooManyConnections)
        }
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let Some(admission) = self.admission.take() else { return };
        for subject in self.held.take().into_iter().flat_map(|held| *held).flatten() {
            subject.connections.fetch_sub(1, Relaxed);
            admission.let_go(subject);
        }
        admission.connections.fetch_sub(1, Relaxed);
    }
}

/// One handshake under way.
pub struct Pending {
    admission: Arc<Admission>,
    subject: Option<Arc<Subject>>,
}

impl Pending {
    /// Handshakes under way from the same address, this one included.
    pub fn from_same_address(&self) -> u32 {
        self.subject.as_ref().map_or(0, |subject| subject.pending())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(subject) = self.subject.take() {
            subject.pending.fetch_sub(1, Relaxed);
            self.admission.let_go(subject);
        }
    }
}

fn count_up(count: &AtomicU32, limit: u32) -> bool {
    let limit = if limit == 0 { u32::MAX } else { limit };
    count.fetch_update(Relaxed, Relaxed, |now| (now < limit).then_some(now + 1)).is_ok()
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that could panic runs under the lock; a poisoned map is still whole.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        Admission::new(RandomState::with_seeds(1, 2, 3, 4))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    // GD-8, B22
    #[test]
    fn every_cap_refuses_at_its_limit_and_is_given_back() {
        let limits = Limits {
            connections: 3,
            connections_per_ip: 2,
            connections_per_user: 1,
            connections_per_tenant: 2,
            ..Limits::default()
        };
        let shared = admission();
        let mut first = shared.enter(&limits, address(1)).expect("the first enters");
        let second = shared.enter(&limits, address(1)).expect("the second enters");
        assert_eq!(shared.enter(&limits, address(1)).err(), Some(Code::TooManyConnections), "per address");
        let mut third = shared.enter(&limits, address(2)).expect("another address enters");
        assert_eq!(shared.enter(&limits, address(3)).err(), Some(Code::TooManyConnections), "in all");

        first.identify(&limits, Summed::default(), Some("acme"), "ann").expect("ann sits");
        assert!(third.identify(&limits, Summed::default(), Some("acme"), "ann").is_err(), "per user");
        drop(third);
        assert_eq!(shared.connections(), 2, "a refusal gives the earlier seats back");
        let mut other = shared.enter(&limits, address(2)).expect("room again");
        other
            .identify(&limits, Summed::default(), Some("globex"), "ann")
            .expect("ann of another tenant is another person");
        drop((first, second, other));
        assert_eq!(shared.connections(), 0);
        assert_eq!(shared.subjects(), 0, "no record outlives its holders");
    }

    #[test]
    fn caps_hold_when_threads_race() {
        let limits = Limits { connections: 0, connections_per_ip: 50, ..Limits::default() };
        let shared = admission();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut kept = Vec::new();
                    for round in 0..400 {
                        kept.extend(shared.enter(&limits, address(1)));
                        assert!(kept.len() <= 50);
                        if round % 3 == 0 {
                            kept.pop();
                        }
                    }
                    // One thread after the other fills up what is left: together never more than the cap.
                    while let Ok(seats) = shared.enter(&limits, address(1)) {
                        kept.push(seats);
                    }
                    let seated = kept.first().and_then(|seats| seats.holds(ADDRESS)).map(Subject::connections);
                    assert!(seated.is_none_or(|seated| seated <= 50));
                });
            }
        });
        assert_eq!((shared.connections(), shared.subjects()), (0, 0), "all seats were given back");
        let all: Vec<Seats> = std::iter::from_fn(|| shared.enter(&limits, address(1)).ok()).collect();
        assert_eq!(all.len(), 50);
    }

    #[test]
    fn handshakes_have_a_burst_of_one_second() {
        let shared = admission();
        let passed = (0..30).filter(|_| shared.handshake(10, 1_000_000_000).is_ok()).count();
        assert_eq!(passed, 10);
        assert!(shared.handshake(10, 1_100_000_001).is_ok());
        assert!(shared.handshake(0, 0).is_ok());
    }
}
