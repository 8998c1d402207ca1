//! One participant's end of the mesh: a ring to and a ring from everybody else, and everybody's doorbell.
//!
//! Call order of an owner's tick: [`relieved`](Port::relieved) (whom paused publishes may go to again) →
//! [`pop`](Port::pop) some → decide, and for each publish [`full`](Port::full), then [`push`](Port::push) →
//! [`publish`](Port::publish) → if there is nothing more to do [`arm`](Port::arm); true: sleep until the bell, then
//! [`disarm`](Port::disarm) (or [`sweep`](Port::sweep) if only time woke it).
//!
//! Invariant: whoever sleeps after `arm` returned true is rung when an entry is published to it and when room appears
//! that it was refused by `full` (INVARIANTS 13, 14). Entries of one ring are taken in the order sent, each once.
//!
//! **Why no cycle of waiting exists.** What waits for room is a connection, never a worker: its publish stays unparsed
//! and its worker goes on with everything else. Room in a ring depends on one thing only, that its consumer takes
//! entries. Taking an entry needs no room anywhere: it is moved out and its slot is free before anything is done with
//! it, and what is done is local (deliveries to bounded queues, which have a policy of their own when they are full); a
//! taken entry never causes a push. A consumer with a visible entry is awake, since `arm` looks at every ring after the
//! flag is up and a publisher rings after the entry is visible. So an edge of waiting leads from a connection to a
//! worker's draining, and from a draining to nothing: every path has length one. When slots were freed the consumer
//! rings the waiting producer back, by the same two-sided fence; `arm` raises `producer_waits` anew for all room that
//! is still awaited, so that it cannot be lost to another publish of the same worker which filled the ring again.

use super::{
    doorbell::{Bell, Doorbell},
    ring::{Consumer, Producer, ring},
    sync::{Ordering, fence},
};
use std::sync::Arc;

/// Most participants of one mesh: a set of them is one word.
pub const PARTICIPANTS_MAX: usize = u64::BITS as usize;

/// Entries taken from one ring before the next ring's turn.
const TURN_ENTRIES: u32 = 16;
/// Entries taken before waiting producers are looked for, at the latest.
const RELIEF_ENTRIES: u32 = 64;

/// Makes the mesh of `bells.len()` participants, with rings of `entries` each. Port i rings bell i to be woken.
///
/// # Panics
/// When there are more than [`PARTICIPANTS_MAX`] bells or `entries` is not a power of two: mistakes of the caller.
pub fn mesh<T: Send>(bells: Vec<Box<dyn Bell>>, entries: usize) -> Vec<Port<T>> {
    let count = bells.len();
    assert!(count <= PARTICIPANTS_MAX, "a set of participants is one word");
    let doorbells: Arc<[Doorbell]> = bells.into_iter().map(Doorbell::new).collect();
    let mut ports: Vec<Port<T>> = (0..count).map(|worker| Port::new(worker, &doorbells)).collect();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let (producer, consumer) = ring(entries);
            ports[from].outbound[to] = Some(producer);
            ports[to].inbound[from] = Some(consumer);
        }
    }
    ports
}

/// What happened at one port since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries pushed.
    pub pushed: u64,
    /// Entries taken.
    pub taken: u64,
    /// Calls of `full` that found a target without room.
    pub full: u64,
    /// Bells of others that were rung.
    pub rung: u64,
    /// Times that only the sweep found work. Anything but 0 is a bug (INVARIANTS 14).
    pub missed: u64,
}

/// The end of the mesh that one participant owns. Sets of participants are words with one bit each.
pub struct Port<T: Send> {
    worker: usize,
    outbound: Box<[Option<Producer<T>>]>,
    inbound: Box<[Option<Consumer<T>>]>,
    doorbells: Arc<[Doorbell]>,
    /// Targets with entries that are staged, or visible and not yet rung for.
    touched: u64,
    /// Targets that `full` refused and `relieved` has not yet reported.
    awaited: u64,
    /// Rings that were taken from since waiting producers were last looked for.
    freed: u64,
    freed_entries: u32,
    /// The ring whose turn it is, and what was taken in this turn.
    turn: usize,
    turn_entries: u32,
    counters: Counters,
}

impl<T: Send> Port<T> {
    /// The number of this participant.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The number of participants.
    pub fn workers(&self) -> usize {
        self.doorbells.len()
    }

    /// Counters so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Those of `targets` whose ring has no room for one more entry; this participant itself and bits that stand for
    /// nobody are left out. 0: a `push` to each of `targets` will succeed, and stays possible until it is made. Room
    /// that is refused here is awaited: its owner is rung when it appears, and `relieved` reports it.
    pub fn full(&mut self, targets: u64) -> u64 {
        let mut full = 0;
        for target in members(targets) {
            if let Some(Some(producer)) = self.outbound.get_mut(target)
                && !producer.has_room()
                && !producer.wait_for_room()
            {
                full |= 1 << target;
            }
        }
        self.awaited |= full;
        self.counters.full += u64::from(full != 0);
        full
    }

    /// Those targets that `full` refused and that have room again. Each is reported once.
    pub fn relieved(&mut self) -> u64 {
        let mut relieved = 0;
        for target in members(self.awaited) {
            if let Some(producer) = &mut self.outbound[target]
                && producer.has_room()
            {
                producer.stop_waiting();
                relieved |= 1 << target;
            }
        }
        self.awaited &= !relieved;
        relieved
    }

    /// Stages `entry` for `target`. Gives it back if there is no room or no such target; after `full` there is.
    pub fn push(&mut self, target: usize, entry: T) -> Result<(), T> {
        let Some(Some(producer)) = self.outbound.get_mut(target) else { return Err(entry) };
        producer.push(entry)?;
        self.touched |= 1 << target;
        self.counters.pushed += 1;
        Ok(())
    }

    /// Makes all staged entries visible, and rings each target that sleeps, once.
    pub fn publish(&mut self) {
        if self.touched == 0 {
            return;
        }
        for target in members(self.touched) {
            if let Some(producer) = &mut self.outbound[target] {
                producer.publish();
            }
        }
        fence(Ordering::SeqCst);
        for target in members(self.touched) {
            self.counters.rung += u64::from(self.doorbells[target].ring_if_armed_fenced());
        }
        self.touched = 0;
    }

    /// Takes an entry and says whose it is. The rings have turns. Producers that wait for room are rung back now and
    /// then, and at the latest when this returns `None`.
    pub fn pop(&mut self) -> Option<(usize, T)> {
        // One step more than there are rings: the ring whose turn ends here may be the only one with entries.
        for _ in 0..=self.inbound.len() {
            if self.turn_entries < TURN_ENTRIES
                && let Some(consumer) = &mut self.inbound[self.turn]
                && let Some(entry) = consumer.pop()
            {
                let from = self.turn;
                self.turn_entries += 1;
                self.freed |= 1 << from;
                self.freed_entries += 1;
                self.counters.taken += 1;
                if self.freed_entries >= RELIEF_ENTRIES {
                    self.relieve();
                }
                return Some((from, entry));
            }
            self.turn = if self.turn + 1 == self.inbound.len() { 0 } else { self.turn + 1 };
            self.turn_entries = 0;
        }
        self.relieve();
        None
    }

    /// Wakes `target` for something that does not travel in a ring (state that is shared or coalesced), to be called
    /// after that was written. True if it slept.
    pub fn ring(&mut self, target: usize) -> bool {
        let rings = self.doorbells.get(target).is_some_and(Doorbell::ring_if_armed);
        self.counters.rung += u64::from(rings);
        rings
    }

    /// The very last act before sleeping: publishes what is staged, arms the doorbell and looks once more. False: there
    /// is an entry, or room that is awaited; do not sleep. An owner with other sources of work looks at these after
    /// this returned true, and calls `disarm` if it finds any.
    pub fn arm(&mut self) -> bool {
        self.publish();
        self.relieve();
        self.doorbells[self.worker].arm();
        let idle = !self.pending();
        if !idle {
            self.disarm();
        }
        idle
    }

    /// The owner is awake. True if nobody had rung it.
    pub fn disarm(&mut self) -> bool {
        self.doorbells[self.worker].disarm()
    }

    /// The same where only time woke the owner. True if it should have been rung and was not, which is counted.
    pub fn sweep(&mut self) -> bool {
        let missed = self.pending() && self.disarm();
        self.disarm();
        self.counters.missed += u64::from(missed);
        missed
    }

    /// Entries in the ring to `target`.
    pub fn outbound_depth(&mut self, target: usize) -> usize {
        self.outbound.get_mut(target).and_then(Option::as_mut).map_or(0, Producer::depth)
    }

    /// Visible entries in the ring from `source`.
    pub fn inbound_depth(&mut self, source: usize) -> usize {
        self.inbound.get_mut(source).and_then(Option::as_mut).map_or(0, Consumer::depth)
    }

    fn new(worker: usize, doorbells: &Arc<[Doorbell]>) -> Self {
        Self {
            worker,
            outbound: doorbells.iter().map(|_| None).collect(),
            inbound: doorbells.iter().map(|_| None).collect(),
            doorbells: doorbells.clone(),
            touched: 0,
            awaited: 0,
            freed: 0,
            freed_entries: 0,
            turn: 0,
            turn_entries: 0,
            counters: Counters::default(),
        }
    }

    /// Whether an entry is visible, or room that is awaited; `producer_waits` is raised anew where it is not.
    fn pending(&mut self) -> bool {
        let entry = self.inbound.iter_mut().flatten().any(|consumer| !consumer.is_empty());
        let outbound = &mut self.outbound;
        entry
            || members(self.awaited)
                .any(|target| outbound[target].as_mut().is_some_and(|producer| producer.wait_for_room()))
    }

    /// Rings back the producers that wait for slots which were freed.
    fn relieve(&mut self) {
        if self.freed == 0 {
            return;
        }
        // One fence serves both reads, of the flag and of the doorbell: where this fence comes before the one in `arm`,
        // `pending` sees the freed slots.
        fence(Ordering::SeqCst);
        for source in members(self.freed) {
            if let Some(consumer) = &mut self.inbound[source]
                && consumer.take_waiting_fenced()
            {
                self.counters.rung += u64::from(self.doorbells[source].ring_if_armed_fenced());
            }
        }
        self.freed = 0;
        self.freed_entries = 0;
    }
}

/// The numbers of the bits that are set, from the lowest.
fn members(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize);
        set &= set.wrapping_sub(1);
        lowest
    })
}

#[cfg(all(test, not(pipeward_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        collections::VecDeque,
        sync::atomic::{AtomicU64, Ordering},
    };

    fn counted(count: usize, entries: usize) -> (Vec<Port<u64>>, Arc<[AtomicU64]>) {
        let rung: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let bells = (0..count).map(|worker| {
            let rung = rung.clone();
            Box::new(move || {
                rung[worker].fetch_add(1, Ordering::Relaxed);
            }) as Box<dyn Bell>
        });
        (mesh(bells.collect(), entries), rung)
    }

    // INVARIANTS 13
    #[test]
    fn full_names_who_has_no_room_and_relieved_reports_it_once() {
        let (mut ports, _) = counted(3, 2);
        let mut sender = ports.remove(0);
        assert_eq!(sender.full(0b111), 0);
        for entry in 0..2 {
            assert_eq!(sender.push(1, entry), Ok(()));
        }
        assert_eq!(sender.push(1, 2), Err(2));
        assert_eq!(sender.full(u64::MAX), 0b010, "itself and nobody are left out");
        assert_eq!((sender.push(0, 3), sender.push(63, 4)), (Err(3), Err(4)));
        assert_eq!((sender.relieved(), sender.outbound_depth(1), ports[0].inbound_depth(0)), (0, 2, 0));
        sender.publish();
        assert_eq!(ports[0].inbound_depth(0), 2);
        assert_eq!(ports[0].pop(), Some((0, 0)));
        assert_eq!(sender.relieved(), 0b010);
        assert_eq!(sender.relieved(), 0);
        assert_eq!((sender.counters().full, sender.counters().pushed), (1, 2));
    }

    // INVARIANTS 14; DESIGN 5: one ring of the bell per target and tick, none for an owner that is awake.
    #[test]
    fn rings_a_sleeper_once_for_a_batch() {
        let (mut ports, rung) = counted(2, 8);
        let mut receiver = ports.remove(1);
        let mut sender = ports.remove(0);
        let mut send = |count| {
            for entry in 0..count {
                assert_eq!(sender.push(1, entry), Ok(()));
            }
            sender.publish();
        };
        send(2);
        assert_eq!(rung[1].load(Ordering::Relaxed), 0, "awake");
        assert!(!receiver.arm(), "there are entries");
        while receiver.pop().is_some() {}
        assert!(receiver.arm());
        send(3);
        send(1);
        assert_eq!(rung[1].load(Ordering::Relaxed), 1);
        assert!(!receiver.disarm(), "it was rung");
    }

    // INVARIANTS 13: the ring was filled again by another publish of the same worker, and the wait is not lost.
    #[test]
    fn awaited_room_that_was_used_up_is_still_awaited() {
        let (mut ports, rung) = counted(2, 1);
        let mut receiver = ports.remove(1);
        let mut sender = ports.remove(0);
        assert_eq!(sender.push(1, 1), Ok(()));
        assert_eq!(sender.full(0b10), 0b10);
        assert!(sender.arm());
        assert_eq!((receiver.pop(), receiver.pop()), (Some((0, 1)), None));
        assert_eq!(rung[0].load(Ordering::Relaxed), 1);
        assert!(!sender.disarm());
        assert_eq!(sender.push(1, 2), Ok(()));
        assert!(sender.arm());
        assert_eq!((receiver.pop(), receiver.pop()), (Some((0, 2)), None));
        assert_eq!(rung[0].load(Ordering::Relaxed), 2);
        assert_eq!(sender.relieved(), 0b10);
    }

    #[test]
    fn a_busy_ring_does_not_starve_another() {
        let (mut ports, _) = counted(3, 256);
        for sender in &mut ports[1..] {
            for entry in 0..200 {
                assert_eq!(sender.push(0, entry), Ok(()));
            }
            sender.publish();
        }
        let first: Vec<usize> = (0..100).filter_map(|_| ports[0].pop().map(|(from, _)| from)).collect();
        let of_one = first.iter().filter(|from| **from == 1).count();
        assert!((40..=60).contains(&of_one), "{of_one}");
    }

    #[test]
    fn the_sweep_counts_only_what_the_bell_missed() {
        let (mut ports, _) = counted(2, 2);
        assert!(ports[0].arm());
        assert!(!ports[0].sweep(), "nothing to do");
        assert!(ports[0].arm());
        assert_eq!(ports[1].push(0, 1), Ok(()));
        ports[1].publish();
        assert!(!ports[0].sweep(), "it was rung");
        assert!(ports[0].pop().is_some());
        assert!(ports[0].arm());
        assert_eq!(ports[1].push(0, 1), Ok(()));
        if let Some(producer) = &mut ports[1].outbound[0] {
            producer.publish();
        }
        assert!(ports[0].sweep(), "visible and not rung for");
        assert_eq!(ports[0].counters().missed, 1);
    }

    #[test]
    fn a_mesh_of_one_is_always_idle() {
        let (mut ports, _) = counted(1, 2);
        assert_eq!((ports[0].full(1), ports[0].pop()), (0, None));
        assert!(ports[0].arm());
    }

    proptest! {
        /// Participants that only act when awake: any schedule ends with everything delivered, once and in order, and
        /// nobody asleep with work. INVARIANTS 13, 14.
        #[test]
        fn every_schedule_ends_with_all_delivered(
            count in 2usize..5,
            entries_log2 in 0u32..3,
            targets in prop::collection::vec((0usize..4, any::<u64>()), 1..60),
            schedule in prop::collection::vec((0usize..4, 0usize..4), 0..400),
        ) {
            let (mut ports, rung) = counted(count, 1 << entries_log2);
            let others = |worker: usize| ((1u64 << count) - 1) & !(1 << worker);
            let mut unsent: Vec<VecDeque<u64>> = vec![VecDeque::new(); count];
            for (worker, set) in targets {
                unsent[worker % count].push_back(set & others(worker % count));
            }
            let mut expected = vec![vec![VecDeque::new(); count]; count];
            let mut asleep: Vec<Option<u64>> = vec![None; count];
            let mut number = 0;
            let rounds = (0..200_000).map(|round| (round % count, 3));
            for (worker, pops) in schedule.into_iter().chain(rounds) {
                let worker = worker % count;
                let bell = rung[worker].load(Ordering::Relaxed);
                if asleep[worker] == Some(bell) {
                    if asleep.iter().zip(&*rung).all(|(at, bell)| *at == Some(bell.load(Ordering::Relaxed))) {
                        break;
                    }
                    continue;
                }
                let port = &mut ports[worker];
                if asleep[worker].take().is_some() {
                    port.disarm();
                }
                port.relieved();
                for _ in 0..pops {
                    let Some((from, entry)) = port.pop() else { break };
                    prop_assert_eq!(expected[from][worker].pop_front(), Some(entry));
                }
                while let Some(set) = unsent[worker].front().copied().filter(|set| port.full(*set) == 0) {
                    unsent[worker].pop_front();
                    for target in members(set) {
                        number += 1;
                        prop_assert_eq!(port.push(target, number), Ok(()));
                        expected[worker][target].push_back(number);
                    }
                }
                port.publish();
                if port.arm() {
                    asleep[worker] = Some(bell);
                }
            }
            prop_assert!(unsent.iter().all(VecDeque::is_empty), "somebody waits for ever");
            prop_assert!(expected.iter().flatten().all(VecDeque::is_empty), "an entry was not delivered");
            prop_assert!(!ports.iter_mut().any(Port::pending));
        }
    }
}
