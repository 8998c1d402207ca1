//! Queues against applications that fail, and against crashes.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::*;
use crate::config::{AuditPath, AuditSettings, Config};
use crate::control::http::{self, Answer, Request};
use crate::rules::Rules;
use crate::rules::definition::{Endpoint, Payload, QueueRules, Right};
use crate::shard::shared::Settings;

const PACE: Pace = Pace { first: Duration::from_millis(10), longest: Duration::from_millis(40), attempts_max: 4 };

struct Rig {
    queues: Queues,
    store: Store,
    shared: Arc<Shared>,
    audit: Audit,
    audit_path: PathBuf,
    folder: Arc<tempfile::TempDir>,
}

fn rules(name: &str, endpoint: Arc<Endpoint>) -> QueueRules {
    QueueRules {
        name: name.into(),
        module: None,
        guards: Vec::new(),
        publish: Right::Always,
        public: false,
        payload: Payload::default(),
        endpoint,
        max_pending: 100_000,
        max_pending_bytes: 1 << 28,
        max_age_s: 3_600,
        place: Default::default(),
    }
}

fn settings(queues: Vec<QueueRules>) -> Settings {
    let mut config = Config::new(1);
    config.rules = Arc::new(Rules { queues, ..Rules::default() });
    Settings::new(config).unwrap()
}

impl Rig {
    fn new(queues: Vec<QueueRules>) -> Rig {
        Rig::over(Arc::new(tempfile::tempdir().unwrap()), "store.redb", queues)
    }

    fn over(folder: Arc<tempfile::TempDir>, file: &str, queues: Vec<QueueRules>) -> Rig {
        let store = Store::open(&folder.path().join(file), 0, |_| {}).unwrap();
        let shared = Shared::new(settings(queues), 7);
        let audit_path = folder.path().join(format!("{file}.audit"));
        let audit = Audit::start(&AuditSettings { path: AuditPath::File(audit_path.clone()) }).unwrap();
        let application = Application::new(shared.clone()).unwrap();
        let queues = Queues::open(shared.clone(), store.clone(), audit.clone(), application, PACE).unwrap();
        Rig { queues, store, shared, audit, audit_path, folder }
    }

    fn one(&self) -> QueueFacts {
        self.queues.list().into_iter().next().expect("a queue")
    }

    /// The audit as it is when it has been closed.
    fn audited(&self) -> String {
        self.audit.close();
        std::fs::read_to_string(&self.audit_path).unwrap()
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never was so");
}

fn message(queue: &str, data: &str) -> EnqueueAsk {
    EnqueueAsk {
        queue: queue.into(),
        data: data.into(),
        user: r#"{"id":"ann"}"#.into(),
        enqueued_at_ms: Service::now_ms(),
    }
}

fn numbers(application: &http::Application) -> Vec<u64> {
    application.seen().iter().map(|call| field(call, "data").parse().unwrap()).collect()
}

fn field(call: &Request, name: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(&call.body).unwrap();
    body[name].as_str().map_or_else(|| body[name].to_string(), str::to_owned)
}

fn reply(status: u16) -> http::Application {
    http::Application::start(move |_, _| Answer::Reply(status, String::new()))
}

#[test]
fn a_queue_that_was_taken_out_does_not_hold_up_the_stop() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let application = reply(200);
    let before = Rig::over(folder.clone(), "store.redb", vec![rules("jobs", application.endpoint("/jobs", 1_000))]);
    assert_eq!(wait(before.queues.enqueue(message("jobs", "1"))), Ok(()));
    crash(folder.path(), "later.redb");
    let rig = Rig::over(folder, "later.redb", Vec::new());
    wait(async {
        rig.queues.start();
        // Its loop reads what there is, and has not got it yet.
        tokio::task::yield_now().await;
        let stopped = tokio::time::timeout(Duration::from_secs(5), rig.queues.stop()).await;
        assert!(stopped.is_ok(), "it waits for a configuration that does not come");
    });
    assert_eq!((rig.queues.list().len(), application.seen().len()), (1, 0));
}

#[test]
fn a_reload_during_an_attempt_is_not_missed() {
    let (silent, good) = (http::Application::start(|_, _| Answer::Nothing), reply(200));
    let rig = Rig::new(vec![rules("jobs", silent.endpoint("/jobs", 300))]);
    // Half a minute at least, were the reload not noticed.
    let pace = Pace { first: Duration::from_secs(60), longest: Duration::from_secs(60), attempts_max: 4 };
    let application = Application::new(rig.shared.clone()).unwrap();
    let queues = Queues::open(rig.shared.clone(), rig.store.clone(), rig.audit.clone(), application, pace).unwrap();
    wait(async {
        queues.start();
        assert_eq!(queues.enqueue(message("jobs", "1")).await, Ok(()));
        until(|| !silent.seen().is_empty()).await;
        rig.shared.replace_settings(settings(vec![rules("jobs", good.endpoint("/jobs", 1_000))]));
        queues.take_up();
        until(|| numbers(&good) == [1]).await;
        queues.stop().await;
    });
}

// RK-3, F16; INVARIANTS 31
#[test]
fn messages_are_delivered_in_order_and_once_where_nothing_fails() {
    let application = reply(200);
    let rig = Rig::new(vec![rules("jobs", application.endpoint("/jobs", 1_000))]);
    wait(async {
        rig.queues.start();
        let stored: Vec<_> = (0..300).map(|n| rig.queues.enqueue(message("jobs", &n.to_string()))).collect();
        for one in stored {
            assert_eq!(one.await, Ok(()));
        }
        until(|| rig.one().depth == 0).await;
        assert_eq!(numbers(&application), (0..300).collect::<Vec<_>>());
        let call = &application.seen()[7];
        assert_eq!((field(call, "kind"), field(call, "queue")), ("queue".to_owned(), "jobs".to_owned()));
        assert_eq!(field(call, "user"), r#"{"id":"ann"}"#);
        assert!(call.header("x-pipeward-signature").is_some());
        let calls = application.seen();
        let different =
            |name| calls.iter().map(|call| field(call, name)).collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!((different("id"), different("delivery")), (300, 300));
        let facts = rig.one();
        assert_eq!((facts.bytes, facts.oldest_ms, facts.totals.delivered), (0, None, 300));
        rig.queues.stop().await;
    });
    // What was settled is settled: nothing comes again.
    assert_eq!(rig.store.survey_queues(), Ok(Vec::new()));
}

#[test]
fn the_head_is_tried_again_with_the_same_id_and_blocks_the_others() {
    let application =
        http::Application::start(|_, number| Answer::Reply([500, 302, 429, 200, 200][number.min(4)], String::new()));
    let rig = Rig::new(vec![rules("jobs", application.endpoint("/", 1_000))]);
    wait(async {
        rig.queues.start();
        for n in 0..2 {
            rig.queues.enqueue(message("jobs", &n.to_string())).await.unwrap();
        }
        until(|| rig.one().depth == 0).await;
        assert_eq!(numbers(&application), [0, 0, 0, 0, 1]);
        let calls = application.seen();
        assert!(calls[..4].iter().all(|call| field(call, "id") == field(&calls[0], "id")));
        let deliveries: std::collections::BTreeSet<_> = calls.iter().map(|call| field(call, "delivery")).collect();
        assert_eq!(deliveries.len(), 5, "every attempt has a name of its own");
        let facts = rig.one();
        assert_eq!((facts.totals.failed, facts.attempts, facts.dead), (3, 0, 0));
        assert_eq!(&*facts.last_error.unwrap().error, "it answered with status 429");
    });
}

#[test]
fn what_is_refused_or_failed_too_often_or_too_old_becomes_a_dead_letter() {
    // 400 for the first, then 500 as often as the second is tried, then 200.
    let application = http::Application::start(|call, _| {
        let status = match field(call, "data").as_str() {
            "0" => 400,
            "1" => 500,
            _ => 200,
        };
        Answer::Reply(status, String::new())
    });
    let rig = Rig::new(vec![rules("jobs", application.endpoint("/", 1_000))]);
    wait(async {
        rig.queues.start();
        for n in 0..3 {
            rig.queues.enqueue(message("jobs", &n.to_string())).await.unwrap();
        }
        let old = EnqueueAsk { enqueued_at_ms: Service::now_ms() - 3_600_000, ..message("jobs", "3") };
        rig.queues.enqueue(old).await.unwrap();
        rig.queues.enqueue(message("jobs", "4")).await.unwrap();
        until(|| rig.one().depth == 0).await;
        assert_eq!(numbers(&application), [0, 1, 1, 1, 1, 2, 4]);
        let (letters, next) = rig.queues.dead("jobs", None, 10).await.unwrap().unwrap();
        let errors: Vec<_> = letters.iter().map(|one| (&*one.message.data, one.attempts, &*one.error)).collect();
        assert_eq!(
            errors,
            [
                ("0", 1, "it answered with status 400"),
                ("1", 4, "it answered with status 500, 4 times"),
                ("3", 0, "it waited longer than 3600 s")
            ]
        );
        assert_eq!(next, None);
        let (first, next) = rig.queues.dead("jobs", None, 2).await.unwrap().unwrap();
        let (rest, last) = rig.queues.dead("jobs", next, 2).await.unwrap().unwrap();
        assert_eq!((first.len(), rest.len(), last), (2, 1, None));
        assert!(rig.queues.dead("none", None, 2).await.unwrap().is_none());
    });
    let audited = rig.audited();
    assert_eq!(audited.matches("was given up").count(), 3, "{audited}");
    assert!(audited.contains("internal_error") && !audited.contains("ann"), "{audited}");
}

#[test]
fn dead_letters_wait_again_when_they_are_told_to() {
    let good = Arc::new(AtomicBool::new(false));
    let is_good = good.clone();
    let application = http::Application::start(move |_, _| {
        Answer::Reply(if is_good.load(SeqCst) { 200 } else { 422 }, String::new())
    });
    let rig = Rig::new(vec![rules("jobs", application.endpoint("/", 1_000))]);
    wait(async {
        rig.queues.start();
        for n in 0..4 {
            rig.queues.enqueue(message("jobs", &n.to_string())).await.unwrap();
        }
        until(|| rig.one().dead == 4).await;
        good.store(true, SeqCst);
        let (letters, _) = rig.queues.dead("jobs", None, 10).await.unwrap().unwrap();
        let id = letters[2].message.id.to_string();
        assert_eq!(rig.queues.revive("jobs", Some(&id)).await, Ok(1));
        until(|| rig.one().totals.delivered == 1).await;
        assert_eq!(field(application.seen().last().unwrap(), "id"), id, "the same id as before");
        assert_eq!(rig.queues.revive("jobs", Some(&id)).await, Err(NotRevived::NoLetter));
        assert_eq!(rig.queues.revive("none", None).await, Err(NotRevived::NoQueue));
        assert_eq!(rig.queues.revive("jobs", None).await, Ok(3));
        until(|| rig.one().depth == 0).await;
        assert_eq!(numbers(&application)[4..], [2, 0, 1, 3]);
        assert_eq!((rig.one().dead, rig.queues.revive("jobs", None).await), (0, Ok(0)));
    });
}

// Issue 4, 8: bounded, with a policy when full.
#[test]
fn a_full_queue_refuses() {
    let gone = http::endpoint("http://127.0.0.1:1/", 500);
    let few = QueueRules { max_pending: 3, ..rules("few", gone.clone()) };
    let small = QueueRules { max_pending_bytes: 60, ..rules("small", gone) };
    let rig = Rig::new(vec![few, small]);
    wait(async {
        for n in 0..5 {
            let outcome = rig.queues.enqueue(message("few", "1")).await;
            assert_eq!(outcome, if n < 3 { Ok(()) } else { Err(Code::Unavailable) });
        }
        let long = format!("\"{}\"", "x".repeat(30));
        assert_eq!(rig.queues.enqueue(message("small", &long)).await, Ok(()));
        assert_eq!(rig.queues.enqueue(message("small", &long)).await, Err(Code::Unavailable));
        assert_eq!(rig.queues.enqueue(message("small", "1")).await, Ok(()), "what fits is taken");
        assert_eq!(rig.queues.enqueue(message("none", "1")).await, Err(Code::Forbidden)); // F15
        let facts = rig.queues.list();
        let numbers = |at: usize| (&*facts[at].name, facts[at].depth, facts[at].totals.refused);
        assert_eq!((numbers(0), numbers(1)), (("few", 3, 2), ("small", 2, 1)));
        // What waits to be stored is bounded too, whatever the queues would hold.
        let huge: Arc<str> = format!("\"{}\"", "x".repeat(1 << 20)).into();
        let many: Vec<_> = (0..20).map(|_| rig.queues.enqueue(message("small", &huge))).collect();
        for one in many {
            assert_eq!(one.await, Err(Code::Unavailable));
        }
    });
}

// Issue 4, 8: kept across restart and SIGKILL. The file is copied while the server lives: what a crash would leave.
#[test]
fn what_was_answered_ok_survives_a_crash_in_order() {
    let folder;
    let before = http::Application::start(|_, _| Answer::Reply(503, String::new()));
    {
        let mut patient = rules("jobs", before.endpoint("/", 1_000));
        patient.max_pending = 50;
        let refused = rules("refused", reply(400).endpoint("/", 1_000));
        let rig = Rig::new(vec![patient, refused]);
        folder = rig.folder.clone();
        wait(async {
            for n in 0..50 {
                assert_eq!(rig.queues.enqueue(message("jobs", &n.to_string())).await, Ok(()));
            }
            rig.queues.enqueue(message("refused", "7")).await.unwrap();
            crash(folder.path(), "after.redb");
        });
    }
    let after = reply(204);
    let rig = Rig::over(folder.clone(), "after.redb", vec![rules("jobs", after.endpoint("/", 1_000))]);
    wait(async {
        let facts = rig.queues.list();
        let numbers_of = |at: usize| (&*facts[at].name, facts[at].configured, facts[at].depth);
        assert_eq!((numbers_of(0), numbers_of(1)), (("jobs", true, 50), ("refused", false, 1)));
        assert!(facts[0].oldest_ms.is_some() && facts[0].bytes > 0);
        rig.queues.start();
        rig.queues.enqueue(message("jobs", "50")).await.unwrap();
        until(|| rig.one().depth == 0).await;
        assert_eq!(numbers(&after), (0..51).collect::<Vec<_>>());
        assert_eq!(rig.queues.list()[1].depth, 1, "a queue that is not configured keeps what it has");
    });
}

#[test]
fn a_crash_in_the_middle_delivers_again_what_was_not_settled_and_nothing_less() {
    let (folder, count) = (Arc::new(tempfile::tempdir().unwrap()), Arc::new(AtomicUsize::new(0)));
    let seen = count.clone();
    let first = http::Application::start(move |_, _| {
        // The 40th is never answered.
        if seen.fetch_add(1, SeqCst) < 39 { Answer::Reply(200, String::new()) } else { Answer::Nothing }
    });
    let rig = Rig::over(folder.clone(), "before.redb", vec![rules("jobs", first.endpoint("/", 60_000))]);
    let ids = wait(async {
        rig.queues.start();
        for n in 0..100 {
            rig.queues.enqueue(message("jobs", &n.to_string())).await.unwrap();
        }
        until(|| count.load(SeqCst) == 40).await;
        // A copy takes longer than a crash, and must not meet a write.
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.store.look(Box::new(|_| ())).await.unwrap();
        std::fs::copy(folder.path().join("before.redb"), folder.path().join("after.redb")).unwrap();
        first.seen().iter().map(|call| field(call, "id")).collect::<Vec<_>>()
    });
    let second = reply(200);
    let rig = Rig::over(folder, "after.redb", vec![rules("jobs", second.endpoint("/", 1_000))]);
    wait(async {
        rig.queues.start();
        until(|| rig.one().depth == 0).await;
    });
    let numbers = numbers(&second);
    let from = numbers[0];
    assert!(from <= 39, "{from} were settled, and 39 delivered");
    assert_eq!(numbers, (from..100).collect::<Vec<_>>());
    // Whoever keeps the ids knows what came twice.
    let again: Vec<String> = second.seen().iter().map(|call| field(call, "id")).collect();
    assert!(ids[from as usize..].iter().zip(&again).all(|(one, other)| one == other));
}

#[test]
fn dead_letters_survive_too() {
    let rig = Rig::new(vec![rules("jobs", reply(400).endpoint("/", 1_000))]);
    let folder = rig.folder.clone();
    wait(async {
        rig.queues.start();
        for n in 0..3 {
            rig.queues.enqueue(message("jobs", &n.to_string())).await.unwrap();
        }
        until(|| rig.one().dead == 3).await;
        // The last one may still be on its way to the store: what comes after it is not.
        rig.queues.dead("jobs", None, 1).await.unwrap();
        crash(folder.path(), "after.redb");
    });
    let application = reply(200);
    let rig = Rig::over(folder, "after.redb", vec![rules("jobs", application.endpoint("/", 1_000))]);
    wait(async {
        rig.queues.start();
        assert_eq!((rig.one().depth, rig.one().dead), (0, 3));
        rig.queues.enqueue(message("jobs", "3")).await.unwrap();
        assert_eq!(rig.queues.revive("jobs", None).await, Ok(3));
        until(|| rig.one().totals.delivered == 4).await;
        assert_eq!(numbers(&application), [3, 0, 1, 2], "no place is used twice");
    });
}

#[test]
fn a_reload_brings_another_endpoint_at_once() {
    let slow = Pace { first: Duration::from_secs(60), longest: Duration::from_secs(60), attempts_max: 20 };
    let (before, after) = (reply(500), reply(200));
    let rig = Rig::new(vec![rules("jobs", before.endpoint("/", 1_000))]);
    let application = Application::new(rig.shared.clone()).unwrap();
    let queues = Queues::open(rig.shared.clone(), rig.store.clone(), rig.audit.clone(), application, slow).unwrap();
    wait(async {
        queues.start();
        queues.enqueue(message("jobs", "1")).await.unwrap();
        until(|| queues.list()[0].attempts == 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Taken out of the configuration: nothing is taken, nothing is lost.
        rig.shared.replace_settings(settings(Vec::new()));
        queues.take_up();
        assert_eq!(queues.enqueue(message("jobs", "2")).await, Err(Code::Forbidden));
        assert_eq!((queues.list()[0].configured, queues.list()[0].depth), (false, 1));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let endpoint = after.endpoint("/", 1_000);
        rig.shared.replace_settings(settings(vec![rules("jobs", endpoint.clone()), rules("new", endpoint)]));
        queues.take_up();
        queues.enqueue(message("new", "3")).await.unwrap();
        until(|| queues.list().iter().all(|one| one.depth == 0)).await;
        assert_eq!(after.seen().len(), 2);
        // It stops although the wait after a failure would be a minute.
        queues.stop().await;
    });
}

#[test]
fn dead_letters_have_a_bound_and_the_oldest_go() {
    let mut state = State::default();
    let letter = |bytes: usize| Message {
        id: Id([0; 16]),
        enqueued_at_ms: 0,
        since_ms: 0,
        user: "".into(),
        data: "x".repeat(bytes).into(),
    };
    for place in 0..DEAD_MAX as u64 {
        assert_eq!(state.bury(place, &letter(1)), None);
    }
    assert_eq!(state.bury(DEAD_MAX as u64, &letter(1)), Some(0));
    assert_eq!((state.dead.len(), state.dead_bytes, state.totals.forgotten), (DEAD_MAX, DEAD_MAX as u64, 1));
}

/// What a crash would leave: the file as it is, without closing it.
fn crash(folder: &Path, to: &str) {
    std::fs::copy(folder.join("store.redb"), folder.join(to)).unwrap();
}
