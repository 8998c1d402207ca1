//! The gate under floods, late comers and people who go away.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

use super::*;

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

fn soon(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

type Log = Rc<RefCell<Vec<String>>>;

/// Goes through, notes it, and stays behind the gate for a moment.
fn visitor(gate: &Gate<u32>, log: &Log, key: u32, name: &str) -> JoinHandle<()> {
    let (gate, log, name) = (gate.clone(), log.clone(), name.to_owned());
    spawn_local(async move {
        let Ok(pass) = gate.enter(key, soon(5_000)).await else { panic!("it was not in time") };
        log.borrow_mut().push(name);
        yield_now().await;
        drop(pass);
    })
}

// B24; issue 4, 1: queues fairly
#[test]
fn one_key_with_many_in_line_does_not_make_others_wait() {
    run(async {
        let (gate, log) = (Gate::new(1, 100, Share::Turns), Log::default());
        let first = gate.enter(0, soon(1_000)).await.ok().unwrap();
        let mut visitors: Vec<_> = (0..5).map(|n| visitor(&gate, &log, 1, &format!("a{n}"))).collect();
        yield_now().await;
        visitors.extend((0..2).map(|n| visitor(&gate, &log, 2, &format!("b{n}"))));
        yield_now().await;
        assert_eq!((gate.taken(), gate.waiting()), (1, 7));
        drop(first);
        for one in visitors {
            one.await.unwrap();
        }
        assert_eq!(*log.borrow(), ["a0", "b0", "a1", "b1", "a2", "a3", "a4"], "in turns, and in order within a line");
        assert_eq!((gate.taken(), gate.waiting()), (0, 0));
        assert!(gate.state().keys.is_empty() && gate.state().turns.is_empty(), "nothing is remembered");
    });
}

#[test]
fn a_full_line_turns_away_whoever_has_the_longest() {
    run(async {
        let gate = Gate::new(1, 4, Share::Turns);
        let _first = gate.enter(0, soon(1_000)).await.ok().unwrap();
        let enter = |key: u32| {
            let gate = gate.clone();
            spawn_local(async move { gate.enter(key, soon(200)).await.err() })
        };
        let mut flood: Vec<_> = (0..4).map(|_| enter(1)).collect();
        yield_now().await;
        assert_eq!(gate.enter(1, soon(200)).await.err(), Some(Turned::Full), "its own line is the longest");
        let other = enter(2);
        yield_now().await;
        assert_eq!(flood.pop().unwrap().await.unwrap(), Some(Turned::Full), "the last of the flood made room");
        assert_eq!(gate.waiting(), 4);
        assert_eq!(other.await.unwrap(), Some(Turned::Late), "it stood in line until its time was over");
        for one in flood {
            assert_eq!(one.await.unwrap(), Some(Turned::Late));
        }
        assert_eq!((gate.taken(), gate.waiting()), (1, 0));
    });
}

#[test]
fn a_slow_key_leaves_room_for_others() {
    run(async {
        let gate = Gate::new(8, 100, Share::Room);
        let mut slow = Vec::new();
        while let Ok(pass) = gate.enter(1, soon(5)).await {
            slow.push(pass);
        }
        assert_eq!(slow.len(), 4, "one key alone: half");
        let mut other = Vec::new();
        while let Ok(pass) = gate.enter(2, soon(5)).await {
            other.push(pass);
        }
        assert_eq!(other.len(), 2);
        assert!(gate.enter(3, soon(5)).await.is_ok(), "a third one finds room");
        // What waits gets in as soon as it may.
        let (late, log) = (gate.clone(), Log::default());
        let waiting = visitor(&late, &log, 1, "late");
        yield_now().await;
        assert_eq!(gate.waiting(), 1);
        slow.pop();
        yield_now().await;
        assert_eq!(gate.waiting(), 1, "three of its own and three free");
        slow.pop();
        waiting.await.unwrap();
        assert_eq!(*log.borrow(), ["late"]);
    });
}

#[test]
fn no_place_is_lost_by_those_who_go_away() {
    run(async {
        let gate = Gate::new(1, 100, Share::Turns);
        let first = gate.enter(0, soon(1_000)).await.ok().unwrap();
        let waiting: Vec<_> = (0..50)
            .map(|n| {
                let gate = gate.clone();
                spawn_local(async move { gate.enter(n % 3, soon(1_000)).await.map(drop) })
            })
            .collect();
        yield_now().await;
        assert_eq!(gate.waiting(), 50);
        // Some in line, and one that was just called and has not yet heard of it.
        waiting.iter().step_by(2).for_each(JoinHandle::abort);
        drop(first);
        waiting[0].abort();
        for one in waiting {
            let _ = one.await;
        }
        assert_eq!((gate.taken(), gate.waiting()), (0, 0));
        assert!(gate.enter(9, soon(10)).await.is_ok());
    });
}

#[test]
fn another_size_holds_at_once() {
    run(async {
        let gate = Gate::new(1, 100, Share::Turns);
        let _first = gate.enter(0, soon(1_000)).await.ok().unwrap();
        let second = {
            let gate = gate.clone();
            spawn_local(async move { gate.enter(0, soon(1_000)).await.is_ok() })
        };
        yield_now().await;
        gate.resize(2);
        assert!(second.await.unwrap());
        gate.resize(0);
        assert_eq!(gate.enter(0, soon(5)).await.err(), Some(Turned::Late), "nobody gets in by mistake");
    });
}
