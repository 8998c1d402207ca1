//! The service over workers that note what they are told and answer by a simple rule.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::*;
use crate::config::{AuditPath, AuditSettings, Config};
use crate::control::expiry;
use crate::control::link::Attendance;
use crate::mesh::doorbell::Bell;
use crate::mesh::port::{Port, mesh};
use crate::shard::MeshParcel as Parcel;
use crate::shard::revocation::FOR_EVER;
use crate::shard::shared::Settings;

/// Connections that each worker claims to have.
const EACH: u64 = 3;

type Seen = Arc<StdMutex<Vec<(usize, String)>>>;

struct Rig {
    service: Service,
    seen: Seen,
    /// How many entries stood in the table whenever a worker was asked to settle.
    settled: Arc<StdMutex<Vec<usize>>>,
    workers: Vec<JoinHandle<()>>,
    paused: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.workers.drain(..).for_each(|worker| worker.join().unwrap());
    }
}

impl Rig {
    fn new(workers: usize, entries: usize) -> Rig {
        Rig::over(workers, entries, Store::in_memory().unwrap())
    }

    fn over(workers: usize, entries: usize, store: Store) -> Rig {
        let bells = (0..=workers).map(|_| Box::new(|| {}) as Box<dyn Bell>).collect();
        let mut ports = mesh::<Parcel>(bells, entries);
        let link = Link::new(ports.pop().unwrap());
        let shared = Shared::new(Settings::new(Config::new(workers)).unwrap(), 7);
        let audit = Audit::start(&AuditSettings { path: AuditPath::Stdout }).unwrap();
        let application = Application::new(shared.clone()).unwrap();
        let shelf = Store::in_memory().unwrap();
        let queues =
            Queues::open(shared.clone(), shelf, audit.clone(), application.clone(), Default::default()).unwrap();
        let service = Service::new(shared.clone(), link.clone(), store, audit, Endings::default(), application, queues);
        let settled = Arc::<StdMutex<Vec<usize>>>::default();
        let (seen, paused, over) =
            (Seen::default(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let workers = ports.into_iter().enumerate().map(|(worker, port)| {
            let fake = Fake {
                port,
                seen: seen.clone(),
                settled: settled.clone(),
                paused: paused.clone(),
                over: over.clone(),
                shared: shared.clone(),
                _attendance: link.attendance(worker),
            };
            std::thread::spawn(move || fake.run())
        });
        let workers = workers.collect();
        Rig { service, seen, settled, workers, paused, over }
    }

    fn acts(&self, worker: usize) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(one, _)| *one == worker).map(|(_, act)| act.clone()).collect()
    }

    fn revoked(&self, user: &str) -> usize {
        self.service.shared().revocations.of(None, user, Service::now_ms()).len()
    }
}

struct Fake {
    port: Port<Parcel>,
    seen: Seen,
    settled: Arc<StdMutex<Vec<usize>>>,
    paused: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    shared: Arc<Shared>,
    _attendance: Attendance,
}

impl Fake {
    fn run(mut self) {
        while !self.over.load(Ordering::SeqCst) {
            if self.paused.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            match self.port.pop() {
                None => std::thread::sleep(Duration::from_micros(200)),
                Some((_, Parcel::Event { pipe, .. })) => self.note(format!("event {}", pipe.name())),
                Some((_, Parcel::Command(command))) => {
                    let answer = self.act(&command.act);
                    if let Some(tell) = command.answer {
                        tell(answer);
                    }
                }
                #[allow(unreachable_patterns, reason = "parcels between workers do not come from this thread")]
                Some(_) => {}
            }
        }
    }

    fn note(&self, text: String) {
        self.seen.lock().unwrap().push((self.port.worker(), text));
    }

    fn act(&self, act: &Act) -> Answer {
        let worker = self.port.worker();
        match act {
            Act::Revoke(one) => {
                // INVARIANTS 6: it is in the table before any worker hears of it.
                let held = self.shared.revocations.of(None, &one.person.user, 0);
                assert!(held.iter().any(|held| held.taken == one.taken), "told before it was in the table");
                self.note(format!("revoke {:?} {}", one.taken, one.until_ms == FOR_EVER));
                Answer::Count(EACH)
            }
            Act::Settle => {
                self.settled.lock().unwrap().push(self.shared.revocations.count());
                Answer::Count(0)
            }
            Act::Restore(one) => {
                self.note(format!("restore {:?}", one.taken));
                Answer::Count(EACH)
            }
            Act::Connections { after_slot, limit, .. } => {
                let first = after_slot.map_or(0, |slot| slot + 1);
                Answer::Connections((first..5).take(*limit).map(|slot| facts(worker, slot)).collect())
            }
            Act::Pipes { after, limit } => {
                let names = ["a", "b", "c", "d", "e"].into_iter().skip(worker);
                let behind = names.filter(|name| after.as_deref().is_none_or(|after| *name > after));
                Answer::Pipes(behind.take(*limit).map(|name| (name.into(), 1)).collect())
            }
            Act::Members { .. } => {
                let own = Member { tenant: None, user: format!("w{worker}").into(), name: None, connections: 1 };
                let name = (worker > 0).then(|| "Ann".into());
                let ann = Member { tenant: Some("t".into()), user: "ann".into(), name, connections: 2 };
                Answer::Members(Members { people: vec![own, ann], anonymous: 1 })
            }
            Act::Stats => Answer::Stats(Box::new(Stats { worker, ..Stats::default() })),
            other => {
                self.note(format!("{other:?}"));
                Answer::Count(EACH)
            }
        }
    }
}

fn facts(worker: usize, slot: u32) -> ConnectionFacts {
    ConnectionFacts {
        slot,
        connection: format!("0-{worker}-{slot}-ab"),
        user: None,
        tenant: None,
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        since_ms: 0,
        pipes: Vec::new(),
        queue_bytes: 0,
    }
}

fn person(user: &str) -> Person {
    Person { tenant: None, user: user.into() }
}

fn revocation(user: &str, pipe: &str, until_ms: u64) -> Revocation {
    let taken = Taken::Pipe(pipe.into());
    Revocation { person: person(user), taken, until_ms, until_authorized_after_ms: None }
}

fn restoration(user: &str, pipe: &str) -> Restoration {
    Restoration { person: person(user), taken: Some(Taken::Pipe(pipe.into())) }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

// INVARIANTS 6
#[test]
fn a_revocation_is_stored_in_the_table_and_known_to_every_worker_before_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = Store::open(&path, 0, |_| {}).unwrap();
    let rig = Rig::over(3, 64, store.clone());
    wait(async {
        assert_eq!(rig.service.revoke(revocation("ann", "a", FOR_EVER)).await, Ok(3 * EACH));
        assert_eq!(rig.revoked("ann"), 1);
        for worker in 0..3 {
            assert_eq!(rig.acts(worker), [r#"revoke Pipe("a") true"#]);
        }
        assert_eq!(rig.service.revoke(revocation("bea", "a", FOR_EVER)).await, Ok(3 * EACH));
        assert_eq!(rig.service.restore(restoration("bea", "a")).await, Ok(3 * EACH));
        assert_eq!(rig.service.restore(restoration("nobody", "a")).await, Ok(3 * EACH), "nothing to lift is fine");
        assert_eq!((rig.revoked("bea"), rig.acts(2).len()), (0, 4));
    });
    store.close();
    let mut held = Vec::new();
    Store::open(&path, 0, |entry| held.push(entry)).unwrap().close();
    assert_eq!(held, [Entry::Pipes(Arc::new(revocation("ann", "a", FOR_EVER)))]);
}

// INVARIANTS 6, D15: in force, not durable.
#[test]
fn without_a_store_it_is_in_force_and_the_answer_says_so() {
    let store = Store::in_memory().unwrap();
    store.close();
    let rig = Rig::over(2, 64, store);
    wait(async {
        let failure = rig.service.revoke(revocation("ann", "a", FOR_EVER)).await.unwrap_err();
        assert!(matches!(failure, Failure::NotDurable(_)), "{failure:?}");
        assert_eq!((rig.revoked("ann"), rig.acts(0).len(), rig.acts(1).len()), (1, 1, 1));
        let tokens = TokenRevocation { tokens: Tokens::Token("t".into()), until_ms: FOR_EVER };
        assert!(matches!(rig.service.revoke_tokens(tokens).await, Err(Failure::NotDurable(_))));
        assert_eq!(rig.service.shared().revocations.count(), 2);
        assert!(matches!(rig.service.restore(restoration("ann", "a")).await, Err(Failure::NotDurable(_))));
        assert_eq!((rig.revoked("ann"), rig.acts(0).len()), (0, 3));
    });
}

// D6, D14, INVARIANTS 6: an entry that fails does not leave those after it in force.
#[test]
fn a_restore_over_all_tenants_goes_on_where_one_fails() {
    let store = Store::in_memory().unwrap();
    store.close();
    let rig = Rig::over(1, 64, store);
    let in_tenant = |tenant: &str| Revocation {
        person: Person { tenant: Some(tenant.into()), user: "ann".into() },
        ..revocation("ann", "a", FOR_EVER)
    };
    let table = &rig.service.shared().revocations;
    for one in [in_tenant("red"), in_tenant("blue"), revocation("ann", "a", FOR_EVER)] {
        table.insert(Arc::new(one));
    }
    let outcome = wait(rig.service.restore(restoration("ann", "a")));
    assert!(matches!(outcome, Err(Failure::NotDurable(_))), "{outcome:?}");
    assert_eq!((table.count(), rig.acts(0).len()), (0, 3));
}

// INVARIANTS 8
#[test]
fn what_was_said_before_a_restore_is_out_before_the_entry_goes() {
    let rig = Rig::new(2, 64);
    wait(async {
        for tenant in ["red", "blue"] {
            let person = Person { tenant: Some(tenant.into()), user: "ann".into() };
            let entry = Revocation { person, ..revocation("ann", "a", FOR_EVER) };
            rig.service.shared().revocations.insert(Arc::new(entry));
        }
        assert!(rig.settled.lock().unwrap().is_empty());
        rig.service.restore(restoration("ann", "a")).await.unwrap();
        assert_eq!(*rig.settled.lock().unwrap(), [2, 2, 2, 2], "two rounds for all that it lifts");
        assert_eq!(rig.service.shared().revocations.count(), 0);
    });
}

#[test]
fn a_restore_is_not_held_up_by_a_worker_that_does_not_answer() {
    let rig = Rig::new(2, 64);
    wait(async {
        rig.service.revoke(revocation("ann", "a", FOR_EVER)).await.unwrap();
        rig.paused.store(true, Ordering::SeqCst);
        assert_eq!(rig.service.restore(restoration("ann", "a")).await, Err(Failure::Overloaded));
        assert_eq!(rig.revoked("ann"), 0);
        rig.paused.store(false, Ordering::SeqCst);
        // It is on its way, and what comes after it stays behind it.
        rig.service.revoke(revocation("ann", "a", FOR_EVER)).await.unwrap();
        for worker in 0..2 {
            let acts = rig.acts(worker);
            assert_eq!(acts.len(), 3, "{acts:?}");
            assert!(acts[1].starts_with("restore") && acts[2].starts_with("revoke"), "{acts:?}");
        }
    });
}

/// Many revocations and restorations of one entry at once: whatever comes last, everybody agrees on it.
#[test]
fn store_table_and_workers_agree_on_what_came_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = Store::open(&path, 0, |_| {}).unwrap();
    let rig = Rig::over(2, 8, store.clone());
    wait(async {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..200u64 {
            let service = rig.service.clone();
            calls.spawn(async move {
                match n % 3 {
                    0 => service.restore(restoration("ann", "a")).await,
                    _ => service.revoke(revocation("ann", "a", FOR_EVER - n)).await,
                }
            });
        }
        while let Some(outcome) = calls.join_next().await {
            assert_eq!(outcome.unwrap(), Ok(2 * EACH));
        }
    });
    let last = rig.acts(0).pop().unwrap();
    assert_eq!(rig.acts(0), rig.acts(1), "one order on every worker");
    assert_eq!(rig.revoked("ann") == 1, last.starts_with("revoke"));
    let in_table: BTreeSet<u64> =
        rig.service.shared().revocations.of(None, "ann", 0).iter().map(|one| one.until_ms).collect();
    store.close();
    let mut held = BTreeSet::new();
    Store::open(&path, 0, |entry| {
        held.insert(entry.until_ms());
    })
    .unwrap()
    .close();
    assert_eq!(held, in_table);
}

// D5: the end of a time limit; D4: a later call prolongs it.
#[test]
fn a_time_limit_ends_by_itself_and_only_if_it_still_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = Store::open(&path, 0, |_| {}).unwrap();
    let rig = Rig::over(2, 64, store.clone());
    wait(async {
        let task = tokio::spawn(expiry::run(rig.service.clone()));
        let soon = Service::now_ms() + 150;
        for (pipe, until_ms) in [("long", FOR_EVER), ("short", soon), ("prolonged", soon), ("lifted", soon)] {
            rig.service.revoke(revocation("ann", pipe, until_ms)).await.unwrap();
        }
        let tokens = TokenRevocation { tokens: Tokens::Session("s".into()), until_ms: soon };
        rig.service.revoke_tokens(tokens).await.unwrap();
        rig.service.revoke(revocation("ann", "prolonged", soon + 60_000)).await.unwrap();
        rig.service.restore(restoration("ann", "lifted")).await.unwrap();
        let before = rig.acts(0).len();
        let began = Instant::now();
        while rig.acts(0).len() == before || rig.service.shared().revocations.count() > 2 {
            assert!(began.elapsed() < Duration::from_secs(5), "nothing ended");
            sleep(Duration::from_millis(5)).await;
        }
        assert!(Service::now_ms() >= soon);
        sleep(Duration::from_millis(100)).await;
        for worker in 0..2 {
            assert_eq!(rig.acts(worker)[before..], [r#"restore Some(Pipe("short"))"#]);
        }
        assert_eq!(rig.revoked("ann"), 2);
        task.abort();
    });
    store.close();
    let mut held = Vec::new();
    Store::open(&path, 0, |entry| held.push(entry)).unwrap().close();
    assert_eq!(held.len(), 2, "ended entries are deleted: {held:?}");
}

// D4: an authorization ends the entry that it was told of, not one that came after.
#[test]
fn a_later_authorization_lifts_only_the_entry_it_saw() {
    let rig = Rig::new(1, 64);
    wait(async {
        rig.service.revoke(revocation("ann", "a", FOR_EVER)).await.unwrap();
        let seen = rig.service.shared().revocations.of(None, "ann", 0).remove(0);
        rig.service.revoke(revocation("ann", "a", FOR_EVER)).await.unwrap();
        rig.service.lift_reauthorized(seen).await;
        assert_eq!(rig.revoked("ann"), 1);
        let seen = rig.service.shared().revocations.of(None, "ann", 0).remove(0);
        rig.service.lift_reauthorized(seen).await;
        assert_eq!((rig.revoked("ann"), rig.acts(0).len()), (0, 3));
    });
}

// D9
#[test]
fn a_cut_off_of_now_answers_when_its_second_has_passed() {
    let rig = Rig::new(1, 64);
    wait(async {
        let cut_off = |issued_before_s| TokenRevocation {
            tokens: Tokens::IssuedBefore {
                person: person("ann"),
                issued_before_s,
                except_session: None,
                except_token: None,
            },
            until_ms: FOR_EVER,
        };
        let now_s = Service::now_ms() / 1000;
        let issued_before_s = Service::cut_off_now();
        assert!(issued_before_s as u64 > now_s);
        assert_eq!(rig.service.revoke_tokens(cut_off(issued_before_s)).await, Ok(EACH));
        assert!(Service::now_ms() >= issued_before_s as u64 * 1000, "a token minted now must be good");
        let began = Instant::now();
        rig.service.revoke_tokens(cut_off(issued_before_s + 3600)).await.unwrap();
        rig.service.revoke_tokens(cut_off(0)).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(900), "any other cut-off is answered at once");
    });
}

#[test]
fn a_caller_that_hangs_up_stops_nothing() {
    let rig = Rig::new(2, 64);
    wait(async {
        rig.paused.store(true, Ordering::SeqCst);
        let call = rig.service.revoke(revocation("ann", "a", FOR_EVER));
        assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
        rig.paused.store(false, Ordering::SeqCst);
        rig.service.drain().await;
        assert_eq!((rig.revoked("ann"), rig.acts(0).len(), rig.acts(1).len()), (1, 1, 1));
        assert_eq!(rig.service.stats().await, Err(Failure::Draining));
    });
}

#[test]
fn full_rings_are_waited_for_in_order() {
    let rig = Rig::new(2, 4);
    wait(async {
        rig.paused.store(true, Ordering::SeqCst);
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..50 {
            let service = rig.service.clone();
            calls.spawn(async move { service.disconnect(Who::Session(format!("{n:02}").into()), false).await });
        }
        sleep(Duration::from_millis(30)).await;
        assert_eq!(calls.try_join_next().map(|_| ()), None);
        rig.paused.store(false, Ordering::SeqCst);
        while let Some(outcome) = calls.join_next().await {
            assert_eq!(outcome.unwrap(), Ok(2 * EACH));
        }
        let acts = rig.acts(0);
        assert!(acts.len() == 50 && acts.is_sorted(), "{acts:?}");
    });
}

#[test]
fn a_worker_that_has_ended_is_not_waited_for() {
    let mut rig = Rig::new(3, 4);
    wait(async {
        assert_eq!(rig.service.disconnect(Who::Tenant("t".into()), true).await, Ok(3 * EACH));
        rig.over.store(true, Ordering::SeqCst);
        rig.workers.drain(..).for_each(|worker| worker.join().unwrap());
        let began = Instant::now();
        // More than the rings hold.
        for _ in 0..6 {
            assert_eq!(rig.service.disconnect(Who::Tenant("t".into()), true).await, Ok(0));
        }
        assert!(began.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn too_many_calls_are_refused_and_leave_nothing_behind() {
    let rig = Rig::new(1, 4);
    wait(async {
        rig.paused.store(true, Ordering::SeqCst);
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..=CALLS_MAX {
            let service = rig.service.clone();
            calls.spawn(async move { service.revoke(revocation(&format!("u{n}"), "a", FOR_EVER)).await });
        }
        let first = calls.join_next().await.unwrap().unwrap();
        assert_eq!(first, Err(Failure::Overloaded));
        rig.paused.store(false, Ordering::SeqCst);
        while let Some(outcome) = calls.join_next().await {
            assert_eq!(outcome.unwrap(), Ok(EACH));
        }
        assert_eq!(rig.service.shared().revocations.count(), CALLS_MAX);
    });
}

// Everything has a bound; taking everything is always possible.
#[test]
fn one_user_cannot_have_revocations_without_end() {
    let rig = Rig::new(1, 64);
    let table = &rig.service.shared().revocations;
    for n in 0..REVOCATIONS_PER_USER_MAX {
        table.insert(Arc::new(revocation("ann", &format!("p{n}"), FOR_EVER)));
    }
    wait(async {
        let refused = rig.service.revoke(revocation("ann", "one more", FOR_EVER)).await.unwrap_err();
        assert!(matches!(&refused, Failure::TooMany(why) if why.contains("revoke_all")), "{refused:?}");
        // D4: the same again takes no more room, and its time limit is the new one.
        let until_ms = Service::now_ms() + 3_600_000;
        assert_eq!(rig.service.revoke(revocation("ann", "p7", until_ms)).await, Ok(EACH));
        assert_eq!(table.count(), REVOCATIONS_PER_USER_MAX);
        assert!(table.of(None, "ann", until_ms).len() == REVOCATIONS_PER_USER_MAX - 1, "it has its new end");
        let all = Revocation { taken: Taken::Everything, ..revocation("ann", "", FOR_EVER) };
        assert_eq!(rig.service.revoke(all).await, Ok(EACH));
        assert_eq!(rig.service.revoke(revocation("bea", "a", FOR_EVER)).await, Ok(EACH));
        assert_eq!(table.count(), REVOCATIONS_PER_USER_MAX + 2);
    });
}

#[test]
fn an_event_goes_to_workers_with_subscribers_only() {
    let rig = Rig::new(3, 64);
    let pipe = rig.service.shared().registry.intern("room").unwrap();
    pipe.add_interest(1);
    wait(async {
        assert_eq!(rig.service.publish("room", "e", "1", None, false).await, Ok(None));
        assert_eq!(rig.service.publish("room", "e", "1", Some("ann"), true).await, Ok(Some(EACH)));
        assert_eq!(rig.service.publish("empty", "e", "1", None, true).await, Ok(Some(0)));
        assert_eq!(rig.service.publish("empty", "e", "1", None, false).await, Ok(None));
    });
    assert_eq!((rig.acts(0), rig.acts(2)), (vec![], vec![]));
    assert!(rig.acts(1)[0] == "event room" && rig.acts(1).len() == 2, "{:?}", rig.acts(1));
    assert!(rig.service.shared().registry.find("empty").is_none());
}

// E10
#[test]
fn connections_are_listed_page_by_page_over_all_workers() {
    let rig = Rig::new(2, 64);
    wait(async {
        let mut names = Vec::new();
        let mut after: Option<String> = None;
        for page in 0.. {
            let (found, next) = rig.service.connections(None, after.as_deref(), 3).await.unwrap();
            assert!(found.len() == 3 || (page == 3 && found.len() == 1), "page {page}");
            names.extend(found.into_iter().map(|one| one.connection));
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let all: Vec<String> = (0..10).map(|n| format!("0-{}-{}-ab", n / 5, n % 5)).collect();
        assert_eq!(names, all);
        let (found, next) = rig.service.connections(None, None, 10).await.unwrap();
        assert_eq!((found.len(), next), (10, None), "exactly all is not more");
        let gone = rig.service.connections(None, Some("0-9-0-ab"), 10).await.unwrap();
        assert_eq!(gone, (vec![], None));
    });
    for text in ["0-1-2-ab", "0-0-4294967295-ffffffff"] {
        assert!(Service::is_connection_cursor(text));
    }
    for text in ["", "0-1-2", "1-1-2-ab", "0-1-2-ab-3", "0--2-ab", "0-1-2-xyz", "0-1-4294967296-ab", "nonsense"] {
        assert!(!Service::is_connection_cursor(text), "{text}");
        let listed = wait(rig.service.connections(None, Some(text), 10));
        assert_eq!(listed, Ok((vec![], None)), "{text}");
    }
}

// E11, E12
#[test]
fn pipes_members_and_numbers_are_put_together() {
    let rig = Rig::new(3, 64);
    wait(async {
        let (first, next) = rig.service.pipes(None, 2).await.unwrap();
        assert_eq!((first, next.as_deref()), (vec![("a".into(), 1), ("b".into(), 2)], Some("b")));
        let (rest, next) = rig.service.pipes(next.as_deref(), 3).await.unwrap();
        assert_eq!((rest, next), (vec![("c".into(), 3), ("d".into(), 3), ("e".into(), 3)], None));
        let members = rig.service.members("a").await.unwrap();
        let found: Vec<_> =
            members.people.iter().map(|one| (&*one.user, one.name.as_deref(), one.connections)).collect();
        assert_eq!(found, [("ann", Some("Ann"), 6), ("w0", None, 1), ("w1", None, 1), ("w2", None, 1)]);
        assert_eq!(members.anonymous, 3);
        let stats = rig.service.stats().await.unwrap();
        assert_eq!(stats.iter().map(|one| one.worker).collect::<Vec<_>>(), [0, 1, 2]);
    });
}

#[test]
fn endings_come_in_order_and_stale_ones_are_thrown_away() {
    let rig = Rig::new(1, 64);
    let table = &rig.service.shared().revocations;
    let endings = Endings::default();
    for until_ms in [30, 10, FOR_EVER, 20] {
        let entry = Arc::new(revocation("ann", &until_ms.to_string(), until_ms));
        table.insert(entry.clone());
        endings.add(Entry::Pipes(entry), table);
    }
    assert_eq!((endings.len(), endings.next_ms()), (3, Some(10)));
    let due: Vec<u64> = endings.take_due(20, 9).iter().map(Entry::until_ms).collect();
    assert_eq!(due, [10, 20]);
    assert_eq!((endings.take_due(29, 9).len(), endings.take_due(30, 0).len(), endings.len()), (0, 0, 1));
    for n in 0..5000 {
        let entry = Arc::new(revocation("ann", "again", 1000 + n));
        table.insert(entry.clone());
        endings.add(Entry::Pipes(entry), table);
        assert!(endings.len() <= 1025, "replaced entries pile up: {}", endings.len());
    }
    assert_eq!(endings.take_due(FOR_EVER - 1, 9999).iter().filter(|one| table.holds(one)).count(), 2);
}
