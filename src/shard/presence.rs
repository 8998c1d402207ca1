//! Who is there: one room for each pipe that somebody watches, shared by all workers.
//!
//! A pipe has a [`Room`] only while a connection is subscribed to it with `presence:true`, or is about to be (a *claim*), or a
//! `presence` request was made lately (a *lease* of [`PRESENCE_LEASE_MS`]). All other pipes pay nothing: one flag in a word that a first subscriber
//! writes anyway, and not one instruction for an event.
//!
//! # Why a shared table and not a home worker (INVARIANTS 12)
//! Joins and leaves are not the path of messages: each already costs a message, a reply and a place in a list. A lock of one
//! room, taken for some hundred nanoseconds, is cheaper than a message to another worker and back, needs no room in a
//! ring, and cannot be lost. What INVARIANTS 12 is for is kept: one owner of the truth, a sequence, a snapshot that
//! names its place in the sequence.
//!
//! # How a room becomes complete
//! Whoever opens it marks the pipe and learns, by the same atomic operation, which workers had subscribers before the
//! mark; each of those is *owed*: it is asked once, through the mesh, and counts its subscribers in. A worker whose
//! first subscriber comes after the mark sees it, by the operation that announces its interest, and counts itself in.
//! There is no third case, for both operations are on one word. A room is *ready* when nobody is owed; only then is it
//! shown to anybody.
//!
//! # The sequence
//! A member is a person, (tenant, user) (D14), with a number of connections. Only 0 → 1 and 1 → 0 move the sequence; the
//! log keeps these changes from the oldest one that a watching worker has not yet told, at most [`PRESENCE_LOG_MAX`].
//! A list taken at sequence s and the changes after s fit together: no double, no gap. Whoever is behind the log gets
//! a new list. Anonymous connections are counted; they are not members and do not move the sequence (B21).
//!
//! Bounds: rooms by subscriptions and by the rate of `presence` requests (INVARIANTS 21), members by connections, the log by [`PRESENCE_LOG_MAX`] (about 100 bytes each, for as long as
//! a worker has not told them: normally a quarter of a second). Lock order: the table's, then a room's. `now` is
//! an argument, milliseconds of the monotonic clock that all workers share.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::{AHashMap, RandomState};

use crate::auth::identity::Identity;
use crate::bounds::{PRESENCE_LEASE_MS, PRESENCE_LOG_MAX};
use crate::mesh::registry::Pipe;

/// Parts of the table, with a lock each; a power of two.
const SHARDS: usize = 16;

/// The rooms there are, by pipe.
pub struct Rooms(Box<[Mutex<Table>]>);

type Table = AHashMap<Pipe, Arc<Room>>;

/// Who is in one pipe.
pub struct Room {
    pipe: Pipe,
    /// Workers that are owed: they had subscribers when the pipe was marked, and have not yet counted them in.
    owed: AtomicU64,
    /// Those of them that were not asked yet.
    unasked: AtomicU64,
    /// Workers with connections that wait for the room to be ready.
    awaiting: AtomicU64,
    /// Workers with watchers.
    watching: AtomicU64,
    lease_until_ms: AtomicU64,
    /// Claims there are. Raised only under the table's lock, where the room is ended too.
    claims: AtomicU64,
    /// As in the roster, to be looked at without the lock.
    sequence: AtomicU64,
    over: AtomicBool,
    roster: Mutex<Roster>,
}

/// A reference to a room that does not end while this lives: somebody is about to watch, or to be shown who is there.
pub struct Claim(Arc<Room>);

/// The members, and what changed lately.
#[derive(Default)]
pub struct Roster {
    /// Connections of each.
    members: BTreeMap<Arc<Member>, u64>,
    anonymous: u64,
    /// Who came or went, change by change, the last one being the one that led to the present sequence.
    log: VecDeque<Arc<Member>>,
    sequence: u64,
    /// Workers with watchers, and the sequence up to which they have told them.
    told: Vec<(usize, u64)>,
    over: bool,
}

/// A person in a room.
#[derive(Clone, Debug)]
pub struct Member {
    /// User id.
    pub user: Box<str>,
    /// Tenant id.
    pub tenant: Option<Box<str>>,
    /// Display name; no part of who it is.
    pub name: Option<Box<str>>,
}

/// What is left of the changes between two places in the sequence, when those that undo each other are left out.
#[derive(Debug, Default)]
pub struct Net {
    /// Who is there now and was not, with their connections, by user.
    pub joined: Vec<(Arc<Member>, u64)>,
    /// Who was there and is not, by user.
    pub left: Vec<Arc<Member>>,
}

impl Rooms {
    /// None. `hasher` only seeds the maps; pipes bring their own hash.
    pub fn new(hasher: RandomState) -> Rooms {
        Rooms((0..SHARDS).map(|_| Mutex::new(AHashMap::with_hasher(hasher.clone()))).collect())
    }

    /// The room of a pipe, made if there is none, and kept for [`PRESENCE_LEASE_MS`] from now.
    pub fn lease(&self, pipe: &Pipe, now_ms: u64) -> Claim {
        let claim = self.claim(pipe);
        claim.lease_until_ms.fetch_max(now_ms + PRESENCE_LEASE_MS, Relaxed);
        claim
    }

    /// The room of a pipe, made if there is none.
    pub fn claim(&self, pipe: &Pipe) -> Claim {
        let mut rooms = self.lock(pipe);
        let room = rooms.entry(pipe.clone()).or_insert_with(|| {
            let owed = pipe.mark_watched();
            Arc::new(Room {
                pipe: pipe.clone(),
                owed: AtomicU64::new(owed),
                unasked: AtomicU64::new(owed),
                awaiting: AtomicU64::new(0),
                watching: AtomicU64::new(0),
                lease_until_ms: AtomicU64::new(0),
                claims: AtomicU64::new(0),
                sequence: AtomicU64::new(0),
                over: AtomicBool::new(false),
                roster: Mutex::default(),
            })
        });
        room.claims.fetch_add(1, SeqCst);
        Claim(room.clone())
    }

    /// The room of a pipe, if it has one.
    pub fn find(&self, pipe: &Pipe) -> Option<Arc<Room>> {
        self.lock(pipe).get(pipe).cloned()
    }

    /// Ends a room that nobody watches or claims and whose lease is over. False: it goes on, or was ended before.
    pub fn end(&self, room: &Arc<Room>, now_ms: u64) -> bool {
        let mut rooms = self.lock(&room.pipe);
        let mut roster = room.lock();
        let is_claimed = room.claims.load(SeqCst) > 0;
        if roster.over || is_claimed || !roster.told.is_empty() || !room.lease_is_over(now_ms) {
            return false;
        }
        // Under the table's lock: whoever opens the next one marks the pipe after this.
        room.pipe.unmark_watched();
        *roster = Roster { over: true, ..Roster::default() };
        room.over.store(true, SeqCst);
        rooms.remove(&room.pipe);
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|rooms| rooms.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self, pipe: &Pipe) -> MutexGuard<'_, Table> {
        self.0[(pipe.hash() >> 40) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The room, without the claim to it.
    pub fn room(&self) -> &Arc<Room> {
        &self.0
    }
}

impl Deref for Claim {
    type Target = Room;

    fn deref(&self) -> &Room {
        &self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claims.fetch_sub(1, SeqCst);
    }
}

impl Room {
    /// The pipe.
    pub fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Whether every subscriber of every worker is counted in.
    pub fn is_ready(&self) -> bool {
        self.owed.load(SeqCst) == 0
    }

    /// It has ended and counts nobody any more.
    pub fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// Whether this worker has to count its subscribers in.
    pub fn owes(&self, worker: usize) -> bool {
        self.owed.load(SeqCst) >> worker & 1 == 1
    }

    /// Workers that must be asked and were not.
    pub fn unasked(&self) -> u64 {
        self.unasked.load(SeqCst)
    }

    /// Takes these workers on, to ask them. Returns those that nobody else has taken on meanwhile.
    pub fn ask(&self, workers: u64) -> u64 {
        self.unasked.fetch_and(!workers, SeqCst) & workers
    }

    /// This worker wants to know when the room is ready. To be called before the last look whether it is.
    pub fn await_ready(&self, worker: usize) {
        self.awaiting.fetch_or(1 << worker, SeqCst);
    }

    /// This worker has counted its subscribers in. Returns the workers to be told that the room is ready now.
    pub fn answer(&self, worker: usize) -> u64 {
        self.unasked.fetch_and(!(1 << worker), SeqCst);
        if self.owed.fetch_and(!(1 << worker), SeqCst) & !(1 << worker) != 0 {
            return 0;
        }
        self.awaiting.swap(0, SeqCst)
    }

    /// Nobody watches on any worker.
    pub fn is_unwatched(&self) -> bool {
        self.watching.load(Relaxed) == 0
    }

    /// Whether nobody asked for [`PRESENCE_LEASE_MS`].
    pub fn lease_is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.lease_until_ms.load(Relaxed)
    }

    /// Net changes so far.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Relaxed)
    }

    /// One connection more. None: anonymous.
    pub fn join(&self, identity: Option<&Identity>) {
        self.with(|roster| roster.join(identity));
    }

    /// One connection less.
    pub fn leave(&self, identity: Option<&Identity>) {
        self.with(|roster| roster.leave(identity));
    }

    /// A member is called otherwise. No change of the sequence: later lists show it.
    pub fn rename(&self, identity: &Identity) {
        self.with(|roster| {
            if let Some(connections) = roster.members.remove(&Member::of(identity)) {
                roster.members.insert(Arc::new(Member::of(identity)), connections);
            }
        });
    }

    /// Does something with the roster, under its lock.
    pub fn with<R>(&self, act: impl FnOnce(&mut Roster) -> R) -> R {
        let mut roster = self.lock();
        let result = act(&mut roster);
        self.sequence.store(roster.sequence, Relaxed);
        self.watching.store(roster.told.iter().fold(0, |all, (worker, _)| all | 1 << worker), Relaxed);
        result
    }

    /// A poisoned lock is taken all the same: nothing in here leaves the roster half changed.
    fn lock(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roster {
    /// One connection more. None: anonymous.
    pub fn join(&mut self, identity: Option<&Identity>) {
        if self.over {
            return;
        }
        let Some(identity) = identity else {
            self.anonymous += 1;
            return;
        };
        let member = Member::of(identity);
        if let Some(connections) = self.members.get_mut(&member) {
            *connections += 1;
            return;
        }
        let member = Arc::new(member);
        self.members.insert(member.clone(), 1);
        self.changed(member);
    }

    /// One connection less.
    pub fn leave(&mut self, identity: Option<&Identity>) {
        let Some(identity) = identity else {
            self.anonymous = self.anonymous.saturating_sub(1);
            return;
        };
        let member = Member::of(identity);
        let Some(connections) = self.members.get_mut(&member) else { return };
        *connections -= 1;
        if *connections == 0
            && let Some((member, _)) = self.members.remove_entry(&member)
        {
            self.changed(member);
        }
    }

    /// How many members there are.
    pub fn total(&self) -> usize {
        self.members.len()
    }

    /// How many connections without identity.
    pub fn anonymous(&self) -> u64 {
        self.anonymous
    }

    /// Net changes so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the room has ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The members with their connections, by user.
    pub fn members(&self) -> impl Iterator<Item = (&Arc<Member>, u64)> {
        self.members.iter().map(|(member, connections)| (member, *connections))
    }

    /// What came of the changes after `since`. None: they are not all kept.
    pub fn net(&self, since: u64) -> Option<Net> {
        let kept_from = self.sequence - self.log.len() as u64;
        let skipped = usize::try_from(since.checked_sub(kept_from)?).ok()?;
        // The changes of one person alternate: an even number of them is none.
        let mut odd: BTreeMap<&Arc<Member>, bool> = BTreeMap::new();
        for changed in self.log.iter().skip(skipped) {
            let odd = odd.entry(changed).or_default();
            *odd = !*odd;
        }
        let mut net = Net::default();
        for (changed, _) in odd.into_iter().filter(|(_, odd)| *odd) {
            match self.members.get_key_value(changed) {
                Some((member, connections)) => net.joined.push((member.clone(), *connections)),
                None => net.left.push(changed.clone()),
            }
        }
        Some(net)
    }

    /// This worker has watchers from now on.
    pub fn watch(&mut self, worker: usize) {
        if !self.over && self.told.iter().all(|(one, _)| *one != worker) {
            self.told.push((worker, self.sequence));
        }
    }

    /// A worker that watches has told its watchers the changes up to `sequence`.
    pub fn told(&mut self, worker: usize, sequence: u64) {
        if let Some((_, told)) = self.told.iter_mut().find(|(one, _)| *one == worker) {
            *told = sequence;
        }
        self.trim();
    }

    /// This worker has no watchers any more.
    pub fn unwatch(&mut self, worker: usize) {
        self.told.retain(|(one, _)| *one != worker);
        self.trim();
    }

    fn changed(&mut self, member: Arc<Member>) {
        self.sequence += 1;
        if !self.told.is_empty() {
            self.log.push_back(member);
            if self.log.len() > PRESENCE_LOG_MAX {
                self.log.pop_front();
            }
        }
    }

    /// Forgets what everybody has told.
    fn trim(&mut self) {
        let oldest = self.told.iter().map(|(_, told)| *told).min().unwrap_or(self.sequence);
        let needed = usize::try_from(self.sequence - oldest).unwrap_or(usize::MAX);
        while self.log.len() > needed {
            self.log.pop_front();
        }
        if self.log.is_empty() {
            self.log = VecDeque::new();
        }
    }
}

impl Net {
    /// How many changes.
    pub fn len(&self) -> usize {
        self.joined.len() + self.left.len()
    }

    /// Nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Member {
    fn of(identity: &Identity) -> Member {
        Member {
            user: identity.id().into(),
            tenant: identity.tenant().map(Into::into),
            name: identity.name().map(Into::into),
        }
    }

    fn who(&self) -> (&str, Option<&str>) {
        (&self.user, self.tenant.as_deref())
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Member) -> Ordering {
        self.who().cmp(&other.who())
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Member) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Member) -> bool {
        self.who() == other.who()
    }
}

impl Eq for Member {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::Profile;
    use crate::mesh::registry::Registry;
    use proptest::prelude::*;

    fn registry() -> Registry {
        Registry::new(RandomState::with_seeds(1, 2, 3, 4), 10)
    }

    fn rooms() -> Rooms {
        Rooms::new(RandomState::with_seeds(5, 6, 7, 8))
    }

    fn person(user: &str, tenant: Option<&str>) -> Identity {
        Identity::new(&Profile { id: user, tenant, ..Profile::default() })
    }

    fn users(members: &[Arc<Member>]) -> Vec<&str> {
        members.iter().map(|member| &*member.user).collect()
    }

    // C17, D14, B21
    #[test]
    fn a_person_joins_once_and_leaves_once_and_the_anonymous_are_counted() {
        let mut roster = Roster::default();
        roster.watch(0);
        let (ann, other) = (person("ann", None), person("ann", Some("t")));
        roster.join(Some(&ann));
        roster.join(Some(&ann));
        roster.join(Some(&other));
        roster.join(None);
        assert_eq!((roster.total(), roster.anonymous(), roster.sequence()), (2, 1, 2));
        let connections: Vec<u64> = roster.members().map(|(_, connections)| connections).collect();
        assert_eq!(connections, [2, 1]);
        roster.leave(Some(&ann));
        assert_eq!(roster.sequence(), 2, "one connection is left");
        roster.leave(Some(&ann));
        roster.leave(None);
        assert_eq!((roster.total(), roster.anonymous(), roster.sequence()), (1, 0, 3));
        assert_eq!(users(&roster.net(2).expect("kept").left), ["ann"]);
        let net = roster.net(0).expect("kept");
        assert_eq!((net.joined.len(), net.left.len()), (1, 0), "who came and went is not told");
        roster.leave(Some(&person("nobody", None)));
        roster.leave(None);
        assert_eq!((roster.anonymous(), roster.sequence()), (0, 3));
    }

    #[test]
    fn the_log_holds_what_was_not_told_and_is_bounded() {
        let mut roster = Roster::default();
        roster.join(Some(&person("early", None)));
        assert_eq!(roster.log.len(), 0, "nobody watches");
        roster.watch(3);
        roster.watch(4);
        for number in 0..PRESENCE_LOG_MAX {
            roster.join(Some(&person(&number.to_string(), None)));
        }
        assert_eq!(roster.net(1).map(|net| net.len()), Some(PRESENCE_LOG_MAX));
        roster.join(Some(&person("one more", None)));
        assert!(roster.net(1).is_none(), "outrun");
        assert_eq!(roster.net(2).map(|net| net.len()), Some(PRESENCE_LOG_MAX));
        roster.told(3, roster.sequence());
        assert_eq!(roster.log.len(), PRESENCE_LOG_MAX, "the other worker has not told it yet");
        roster.told(4, 10);
        assert_eq!(roster.log.len() as u64, roster.sequence() - 10);
        roster.unwatch(4);
        assert_eq!((roster.log.len(), roster.log.capacity()), (0, 0));
    }

    #[test]
    fn a_room_is_ready_when_all_that_had_subscribers_have_answered() {
        let (registry, rooms) = (registry(), rooms());
        let pipe = registry.intern("a").expect("room");
        for worker in [0, 2, 5] {
            assert!(!pipe.add_interest(worker));
        }
        let room = rooms.claim(&pipe);
        assert!(pipe.add_interest(6), "one that comes later sees the mark");
        assert_eq!((room.is_ready(), room.unasked()), (false, 0b10_0101));
        assert!(Arc::ptr_eq(room.room(), rooms.claim(&pipe).room()));
        assert_eq!(room.answer(0), 0);
        assert_eq!((room.ask(0b101), room.ask(0b100), room.unasked()), (0b100, 0, 0b10_0000), "each is asked once");
        room.await_ready(1);
        room.await_ready(7);
        assert_eq!(room.answer(2), 0);
        assert_eq!(room.answer(2), 0);
        assert!(!room.is_ready() && room.owes(5) && !room.owes(2));
        assert_eq!(room.answer(5), 0b1000_0010, "those who wait are told");
        assert_eq!((room.is_ready(), room.answer(5)), (true, 0));
    }

    #[test]
    fn a_room_ends_when_nobody_watches_and_nobody_asked_lately() {
        let (registry, rooms) = (registry(), rooms());
        let pipe = registry.intern("a").expect("room");
        let room = rooms.lease(&pipe, 100).room().clone();
        room.with(|roster| {
            roster.join(Some(&person("ann", None)));
            roster.watch(1);
        });
        let later = 100 + PRESENCE_LEASE_MS;
        assert!(!room.is_unwatched() && !rooms.end(&room, later));
        room.with(|roster| roster.unwatch(1));
        assert!(room.is_unwatched() && !rooms.end(&room, later - 1));
        assert!(rooms.end(&room, later) && !rooms.end(&room, later));
        assert!(room.is_over() && rooms.is_empty() && rooms.find(&pipe).is_none());
        room.join(Some(&person("bob", None)));
        assert_eq!(room.with(|roster| roster.total()), 0, "an ended room counts nobody");
        assert!(!pipe.add_interest(0), "the mark is off");
        let next = rooms.claim(&pipe);
        assert!(!Arc::ptr_eq(&room, next.room()) && next.owes(0));
        assert_eq!(Arc::strong_count(&room), 1);
    }

    // INVARIANTS 21
    #[test]
    fn a_claimed_room_stays_and_ends_with_its_last_claim() {
        let (registry, rooms) = (registry(), rooms());
        let pipe = registry.intern("a").expect("room");
        let (one, other) = (rooms.claim(&pipe), rooms.claim(&pipe));
        let room = one.room().clone();
        drop(one);
        assert!(!rooms.end(&room, 0));
        drop(other);
        assert!(rooms.end(&room, 0), "no lease is left behind");
    }

    proptest! {
        /// A list taken at any time, and the net changes told after it at any other times, give the list of that time:
        /// nobody joins who is there, nobody leaves who is not. INVARIANTS 12
        #[test]
        fn a_list_and_the_changes_after_it_fit(
            acts in prop::collection::vec((0u8..8, 0usize..5, 0usize..2), 1..300),
            listed_at in 0usize..300,
        ) {
            let mut roster = Roster::default();
            roster.watch(0);
            let mut connections = BTreeMap::<(usize, usize), u64>::new();
            let mut list: Option<(u64, Vec<Arc<Member>>)> = None;
            for (place, (act, user, tenant)) in acts.into_iter().enumerate() {
                let one = person(&user.to_string(), (tenant == 1).then_some("t"));
                match act {
                    0..=2 => {
                        *connections.entry((user, tenant)).or_default() += 1;
                        roster.join(Some(&one));
                    }
                    3..=6 => if let Some(count) = connections.get_mut(&(user, tenant)).filter(|count| **count > 0) {
                        *count -= 1;
                        roster.leave(Some(&one));
                    },
                    _ => if let Some((since, members)) = &mut list {
                        let net = roster.net(*since).expect("told in time");
                        for gone in &net.left {
                            prop_assert!(members.contains(gone));
                            members.retain(|member| member != gone);
                        }
                        for (came, count) in &net.joined {
                            prop_assert!(!members.contains(came));
                            prop_assert!(*count > 0);
                            members.push(came.clone());
                        }
                        *since = roster.sequence();
                        roster.told(0, *since);
                        members.sort();
                        prop_assert!(members.iter().eq(roster.members().map(|(member, _)| member)));
                    },
                }
                if place == listed_at {
                    list = Some((roster.sequence(), roster.members().map(|(member, _)| member.clone()).collect()));
                    roster.told(0, roster.sequence());
                }
            }
            let there = connections.values().filter(|count| **count > 0).count();
            prop_assert_eq!(roster.total(), there);
        }
    }
}
