//! The pipe objects of the process: one for each name in use, whoever uses it.
//!
//! Invariant: as long as any [`Pipe`] of a name exists, on a worker or in a ring entry, the name stands for that one
//! object and the object for that name. So an entry in flight cannot reach another pipe's subscribers, whatever was
//! subscribed and forgotten meanwhile (INVARIANTS 1), and two equal names never have two interest words.
//!
//! How: a `Pipe` is counted. Dropping any but the last is one compare-and-swap. The last one counts down to 0 under the
//! lock of its shard, where the name is looked up too, and takes the object out of the table there: nobody can
//! find an object that is being removed, and nobody can forget to remove one. The count is apart from the `Arc`'s,
//! whose holders include the table and which cannot be asked to stop at one.
//!
//! Locks are taken when a name is first mentioned on a worker and when a pipe's last holder goes, never for an event.
//! Names come from clients, so the table's hash has a seed of the process (INVARIANTS 23) and its size a bound (21).
//!
//! The highest bit of the interest word says that somebody watches who is there (`shard::presence`). It is in the same word
//! as the interest so that one order holds for both: whoever sets his bit either finds it set, or was found by whoever
//! set it.
//!
//! Memory: 64 bytes an object, 10 to 21 in the table, and the name.

use super::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::bounds::WORKERS_MAX;
use ahash::RandomState;
use hashbrown::HashTable;
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::PoisonError,
};

/// Parts of the table with a lock each; a power of two. Loom's states grow with it.
const SHARDS: usize = if cfg!(pipeward_loom) { 1 } else { 64 };

/// There are as many pipes as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A holder's reference to the object of one pipe name. Equal references refer to the same object. A clone costs two
/// atomic additions, so a worker keeps one and counts its own uses locally (INVARIANTS 22).
pub struct Pipe(Arc<Object>);

/// All pipe objects, by name. Cheap to clone: every worker has one.
#[derive(Clone)]
pub struct Registry {
    shards: Arc<Vec<Arc<Shard>>>,
    hasher: RandomState,
    pipes: Arc<AtomicUsize>,
    pipes_max: usize,
}

struct Object {
    name: Box<str>,
    hash: u64,
    interest: AtomicU64,
    /// How many `Pipe`s refer to this. It becomes 0 only under the shard's lock, and is never raised from 0.
    holders: AtomicUsize,
    shard: Arc<Shard>,
}

struct Shard {
    table: Mutex<HashTable<Arc<Object>>>,
    /// Objects in all shards.
    pipes: Arc<AtomicUsize>,
}

impl Registry {
    /// A registry of at most `pipes_max` objects. `hasher` carries the seed of the process.
    pub fn new(hasher: RandomState, pipes_max: usize) -> Self {
        let pipes = Arc::new(AtomicUsize::new(0));
        let shard = |_| Arc::new(Shard { table: Mutex::new(HashTable::new()), pipes: pipes.clone() });
        Self { shards: Arc::new((0..SHARDS).map(shard).collect()), hasher, pipes, pipes_max }
    }

    /// The hash of `name`, equal to [`Pipe::hash`] of its object: for a worker's own tables.
    pub fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// The hash of anything else that came from a client, under the same seed.
    pub fn hash_of(&self, value: &(impl Hash + ?Sized)) -> u64 {
        self.hasher.hash_one(value)
    }

    /// The object of `name`, made if there is none. Its interest is then 0.
    ///
    /// # Errors
    /// [`Full`] if it would have to be made and there are `pipes_max` already.
    pub fn intern(&self, name: &str) -> Result<Pipe, Full> {
        let hash = self.hash(name);
        let shard = self.shard(hash);
        let mut table = shard.lock();
        if let Some(object) = table.find(hash, |object| *object.name == *name) {
            return Ok(Pipe::of(object));
        }
        if !self.reserve() {
            return Err(Full);
        }
        let object = Arc::new(Object {
            name: name.into(),
            hash,
            interest: AtomicU64::new(0),
            holders: AtomicUsize::new(1),
            shard: shard.clone(),
        });
        table.insert_unique(hash, object.clone(), |object| object.hash);
        Ok(Pipe(object))
    }

    /// The object of `name`, if anybody holds it.
    pub fn find(&self, name: &str) -> Option<Pipe> {
        let hash = self.hash(name);
        let table = self.shard(hash).lock();
        table.find(hash, |object| *object.name == *name).map(Pipe::of)
    }

    /// Objects there are.
    pub fn len(&self) -> usize {
        self.pipes.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, hash: u64) -> &Arc<Shard> {
        // The table uses the lowest and the seven highest bits.
        &self.shards[(hash >> 48) as usize & (SHARDS - 1)]
    }

    /// Counts one object more, unless there are `pipes_max`.
    fn reserve(&self) -> bool {
        let more = |pipes| (pipes < self.pipes_max).then_some(pipes + 1);
        self.pipes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

impl Pipe {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The hash of the name, under the seed of the process.
    pub fn hash(&self) -> u64 {
        self.0.hash
    }

    /// The workers that have subscribers, one bit each. A publisher reads it after it accepted the publish.
    pub fn interest(&self) -> u64 {
        self.0.interest.load(Ordering::SeqCst) & !WATCHED
    }

    /// Sets the bit of `worker`. Only that worker does so, before its subscription takes effect (INVARIANTS 9). True if
    /// the pipe was marked as watched by then; if not, whoever marks it later finds the bit.
    pub fn add_interest(&self, worker: usize) -> bool {
        self.0.interest.fetch_or(bit(worker), Ordering::SeqCst) & WATCHED != 0
    }

    /// Clears the bit of `worker`. Only that worker does so, after its last subscription ended.
    pub fn remove_interest(&self, worker: usize) {
        self.0.interest.fetch_and(!bit(worker), Ordering::SeqCst);
    }

    /// Marks the pipe as watched. Returns the workers that had subscribers before.
    pub fn mark_watched(&self) -> u64 {
        self.0.interest.fetch_or(WATCHED, Ordering::SeqCst) & !WATCHED
    }

    /// Takes the mark off.
    pub fn unmark_watched(&self) {
        self.0.interest.fetch_and(!WATCHED, Ordering::SeqCst);
    }

    /// One more holder, to be called where the object is in its table.
    fn of(object: &Arc<Object>) -> Self {
        object.holders.fetch_add(1, Ordering::Relaxed);
        Self(object.clone())
    }
}

impl Clone for Pipe {
    fn clone(&self) -> Self {
        Self::of(&self.0)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let object = &self.0;
        let fewer = |holders| (holders > 1).then(|| holders - 1);
        if object.holders.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fewer).is_ok() {
            return;
        }
        // Between the look above and the lock somebody may have found the object; then this is not the last.
        let mut table = object.shard.lock();
        if object.holders.fetch_sub(1, Ordering::AcqRel) == 1
            && let Ok(entry) = table.find_entry(object.hash, |other| Arc::ptr_eq(other, object))
        {
            entry.remove();
            object.shard.pipes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl PartialEq for Pipe {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Pipe {}

impl Hash for Pipe {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Pipe({:?}, interest {:#b})", self.name(), self.interest())
    }
}

impl Shard {
    /// A poisoned lock is taken all the same: nothing in here leaves the table half changed.
    fn lock(&self) -> MutexGuard<'_, HashTable<Arc<Object>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mark of a pipe that is watched: the bit that is nobody's.
const WATCHED: u64 = 1 << WORKERS_MAX;

/// The bit of `worker`, which is below `WORKERS_MAX`.
fn bit(worker: usize) -> u64 {
    1 << (worker % WORKERS_MAX)
}

#[cfg(all(test, not(pipeward_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn registry(pipes_max: usize) -> Registry {
        Registry::new(RandomState::with_seeds(1, 2, 3, 4), pipes_max)
    }

    // INVARIANTS 1
    #[test]
    fn a_name_is_one_object_until_its_last_holder_goes() {
        let registry = registry(10);
        let subscriber = registry.intern("room:1").unwrap();
        subscriber.add_interest(62);
        let in_ring = subscriber.clone();
        drop(subscriber);
        let again = registry.intern("room:1").unwrap();
        assert_eq!((&again, again.interest(), again.name()), (&in_ring, 1 << 62, "room:1"));
        again.remove_interest(62);
        again.add_interest(0);
        assert_eq!(in_ring.interest(), 1);
        drop(again);
        assert_eq!(registry.find("room:1").as_ref(), Some(&in_ring));
        drop(in_ring);
        assert_eq!((registry.find("room:1"), registry.len()), (None, 0));
        assert_eq!(registry.intern("room:1").map(|pipe| pipe.interest()), Ok(0), "a new object");
    }

    // INVARIANTS 21
    #[test]
    fn the_table_is_bounded_and_room_comes_back() {
        let registry = registry(2);
        let (first, second) = (registry.intern("a"), registry.intern("b"));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(registry.intern("c"), Err(Full));
        assert_eq!(registry.intern("a"), first, "a name that is there needs no room");
        assert_eq!(registry.find("c"), None, "a refusal leaves nothing behind");
        drop(second);
        assert!(registry.intern("c").is_ok());
        drop(first);
        assert!(registry.is_empty());
    }

    #[test]
    fn an_object_may_outlive_the_registry() {
        let registry = registry(2);
        let pipe = registry.intern("a").unwrap();
        let shard = Arc::downgrade(&pipe.0.shard);
        drop(registry);
        assert_eq!(pipe.name(), "a");
        drop(pipe);
        assert!(shard.upgrade().is_none(), "no cycle of references is left");
    }

    #[test]
    fn a_mark_and_an_interest_find_each_other_and_are_kept_apart() {
        let pipe = registry(1).intern("a").unwrap();
        assert!(!pipe.add_interest(0));
        assert_eq!(pipe.mark_watched(), 1, "whoever came before the mark is told");
        assert!(pipe.add_interest(62), "whoever comes after it sees it");
        assert_eq!(pipe.interest(), 1 << 62 | 1, "an event does not go to the mark");
        pipe.unmark_watched();
        assert!(!pipe.add_interest(3));
    }

    #[test]
    fn an_object_is_one_cache_line() {
        assert!(size_of::<Object>() + 2 * size_of::<usize>() <= 64);
    }

    proptest! {
        /// Against a map of counts: every name has one object while it is held, and none after.
        #[test]
        fn holds_what_is_held(acts in prop::collection::vec((0u8..4, 0usize..6, any::<prop::sample::Index>()), 0..200)) {
            let registry = registry(4);
            let mut held: Vec<(usize, Pipe)> = Vec::new();
            for (act, number, which) in acts {
                let mut objects: HashMap<usize, &Pipe> = HashMap::new();
                for (number, pipe) in &held {
                    prop_assert_eq!(*objects.entry(*number).or_insert(pipe), pipe);
                }
                prop_assert_eq!(registry.len(), objects.len());
                let name = format!("pipe:{number}");
                match (act, held.is_empty()) {
                    (0, _) => match registry.intern(&name) {
                        Ok(pipe) => held.push((number, pipe)),
                        Err(Full) => prop_assert!(objects.len() == 4 && !objects.contains_key(&number)),
                    },
                    (1, _) => {
                        let found = registry.find(&name);
                        prop_assert_eq!(found.as_ref(), objects.get(&number).copied());
                    }
                    (2, false) => held.push(held[which.index(held.len())].clone()),
                    (3, false) => drop(held.swap_remove(which.index(held.len()))),
                    _ => {}
                }
            }
            drop(held);
            prop_assert!(registry.is_empty());
        }
    }
}
