//! Calls against applications that are slow, wrong, gone, or flooded.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant as Clock;

use super::*;
use crate::config::{Config, Webhook};
use crate::control::http::{self, Answer, endpoint};
use crate::rules::definition::Place;
use crate::shard::shared::Settings;

const ADA: &str = r#"{"user":{"id":"ada"},"pipes":{"chat":{"subscribe":true}}}"#;

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn application(webhook: Option<(Arc<Endpoint>, u32)>) -> Application {
    let mut config = Config::new(1);
    config.auth.webhook =
        webhook.map(|(endpoint, concurrency)| Webhook { endpoint, forward_headers: Vec::new(), concurrency });
    Application::new(Shared::new(Settings::new(config).unwrap(), 7)).unwrap()
}

fn upgrade(ip: [u8; 4]) -> AuthorizeAsk {
    AuthorizeAsk { body: r#"{"kind":"connect"}"#.into(), ip: ip.into(), asked_ms: 1_700_000_000_000 }
}

fn ask(endpoint: &Arc<Endpoint>) -> HttpAsk {
    HttpAsk { endpoint: endpoint.clone(), body: r#"{"kind":"action"}"#.into() }
}

async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never was so");
}

fn reply(status: u16, body: &str) -> http::Application {
    let body = body.to_owned();
    http::Application::start(move |_, _| Answer::Reply(status, body.clone()))
}

fn authorize(answers: http::Application) -> Result<Box<Decision>, NotAuthorized> {
    let application = application(Some((answers.endpoint("/authorize", 1_000), 2)));
    wait(application.authorize(upgrade([10, 0, 0, 1])))
}

fn faults(application: &Application, called: Called) -> [u64; 4] {
    application.counts().numbers()[called as usize].faults
}

// PROTOCOL §5
#[test]
fn a_call_is_a_signed_post_of_json() {
    let answers = reply(200, ADA);
    let one = application(Some((answers.endpoint("/authorize?of=us", 1_000), 2)));
    let decision = wait(one.authorize(upgrade([10, 0, 0, 1]))).expect("allowed");
    assert_eq!((decision.identity.id(), decision.grants.len()), ("ada", 1));
    assert_eq!(decision.issued_at_ms, Some(1_700_000_000_000)); // D10
    let call = &answers.seen()[0];
    assert!(call.head.starts_with("POST /authorize?of=us HTTP/1.1\r\n"), "{}", call.head);
    assert_eq!(call.header("content-type"), Some("application/json"));
    assert_eq!(call.body, r#"{"kind":"connect"}"#);
    let signature = call.header("x-pipeward-signature").expect("signed");
    let now_s: u64 = signature[2..].split(',').next().unwrap().parse().unwrap();
    assert!(now_s.abs_diff(Service::now_ms() / 1000) < 10);
    assert_eq!(signature, signature::sign(b"secret", now_s, &call.body));
}

#[test]
fn without_a_secret_there_is_no_signature() {
    let answers = reply(200, "null");
    let endpoint = Endpoint { secret: None, ..(*answers.endpoint("/", 1_000)).clone() };
    let one = application(Some((Arc::new(endpoint), 2)));
    assert_eq!(wait(one.authorize(upgrade([10, 0, 0, 1]))).err(), Some(NotAuthorized::Refused));
    assert_eq!(answers.seen()[0].header("x-pipeward-signature"), None);
}

// B13, B14, B15
#[test]
fn what_is_no_answer_lets_nobody_in() {
    assert_eq!(authorize(reply(200, " null\n")).err(), Some(NotAuthorized::Refused));
    assert_eq!(authorize(reply(401, ADA)).err(), Some(NotAuthorized::Refused));
    assert_eq!(authorize(reply(403, ADA)).err(), Some(NotAuthorized::Forbidden));
    for (status, body) in
        [(200, "{}"), (200, ""), (200, "<html>"), (204, ""), (201, ADA), (302, ADA), (404, ADA), (200, "[1,2]")]
    {
        let refused = authorize(reply(status, body)).err();
        assert!(matches!(refused, Some(NotAuthorized::Malformed(_))), "{status} {body}: {refused:?}");
    }
    for status in [500, 502, 503] {
        let refused = authorize(reply(status, ADA)).err();
        assert!(matches!(refused, Some(NotAuthorized::Unavailable(_))), "{status}: {refused:?}");
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let there = Arc::new(AtomicUsize::new(0));
    let count = there.clone();
    let elsewhere = http::Application::start(move |_, _| {
        count.fetch_add(1, SeqCst);
        Answer::Reply(200, ADA.to_owned())
    });
    let location = format!("http://{}/", elsewhere.address);
    let answers = http::Application::start(move |_, _| {
        Answer::Raw(format!("HTTP/1.1 307 See\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    });
    assert!(matches!(authorize(answers), Err(NotAuthorized::Malformed(_))));
    assert_eq!(there.load(SeqCst), 0);
}

#[test]
fn an_answer_is_read_to_its_bound_and_no_further() {
    let long = format!("{ADA}{}", " ".repeat(post::ANSWER_BYTES_MAX - ADA.len()));
    assert!(authorize(reply(200, &long)).is_ok(), "exactly 1 MiB");
    let refused = authorize(reply(200, &format!("{long} "))).err();
    assert!(matches!(&refused, Some(NotAuthorized::Malformed(why)) if why.contains("1 MiB")), "{refused:?}");
    // One without a length and without an end.
    let endless = http::Application::start(|_, _| {
        let mut bytes = b"HTTP/1.1 200 Yes\r\nConnection: close\r\n\r\n".to_vec();
        bytes.resize(8 << 20, b' ');
        Answer::Raw(bytes)
    });
    assert!(matches!(authorize(endless), Err(NotAuthorized::Malformed(_))));
}

#[test]
fn whoever_hangs_up_or_is_not_there_is_unavailable() {
    for bytes in [&b""[..], b"HTTP/1.1 200 Yes\r\nContent-Length: 99\r\n\r\n{", b"what?\r\n\r\n"] {
        let answers = http::Application::start(move |_, _| Answer::Raw(bytes.to_vec()));
        let refused = authorize(answers).err();
        assert!(matches!(refused, Some(NotAuthorized::Unavailable(_))), "{bytes:?}: {refused:?}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let secret = format!("http://{free}/authorize?key=hidden");
    let one = application(Some((endpoint(&secret, 1_000), 2)));
    let refused = wait(one.authorize(upgrade([10, 0, 0, 1]))).err();
    let Some(NotAuthorized::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("connect") && !why.contains("hidden"), "{why}");
    assert_eq!(faults(&one, Called::Authorize), [0, 0, 1, 0]);
}

/// An answer after which the connection ends, although nothing in it says so.
fn and_hangs_up(body: &str) -> Answer {
    Answer::Raw(format!("HTTP/1.1 200 Yes\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[test]
fn a_server_that_closes_kept_connections_without_a_word_fails_no_call() {
    let answers = http::Application::start(|request, _| match request.head.split(' ').nth(1) {
        Some("/authorize") => and_hangs_up(ADA),
        Some("/rule") => and_hangs_up(r#"{"allow":true}"#),
        _ => and_hangs_up("1"),
    });
    let one = application(Some((answers.endpoint("/authorize", 5_000), 4)));
    wait(async {
        for round in 0..150 {
            let calls: Vec<_> = (0..4)
                .map(|n| {
                    let one = one.clone();
                    let [rule, action, queue] =
                        ["/rule", "/action", "/queue"].map(|path| answers.endpoint(path, 5_000));
                    tokio::spawn(async move {
                        assert_eq!(one.authorize(upgrade([10, 0, 0, n])).await.err(), None, "round {round}");
                        one.rule(ask(&rule)).await.unwrap_or_else(|why| panic!("round {round}: {why:?}"));
                        assert_eq!(one.act(ask(&action)).await.as_deref(), Ok("1"), "round {round}");
                        assert_eq!(one.deliver(&queue, "{}".to_owned()).await, Ok(200), "round {round}");
                    })
                })
                .collect();
            for call in calls {
                call.await.unwrap();
            }
        }
    });
    let arrived = |path: &str| answers.seen().iter().filter(|call| call.head.contains(path)).count();
    assert_eq!(arrived(" /action "), 600, "an action is never sent twice");
    assert_eq!(Called::ALL.map(|called| faults(&one, called)), [[0; 4]; 4]);
}

#[test]
fn who_hangs_up_instead_of_answering_is_asked_once_more_only_on_a_connection_that_was_kept() {
    // The first call is answered and its connection kept, every later one is not.
    let answers = http::Application::start(|_, before| match before {
        0 => Answer::Reply(200, r#"{"allow":true}"#.to_owned()),
        _ => Answer::Raw(Vec::new()),
    });
    let one = application(None);
    let rule = answers.endpoint("/rule", 5_000);
    wait(async {
        assert!(one.rule(ask(&rule)).await.is_ok());
        assert!(matches!(one.rule(ask(&rule)).await, Err(Unanswered::Failed(_))));
        assert_eq!((answers.seen().len(), answers.connections()), (3, 2), "the kept connection, then a fresh one");
        assert!(matches!(one.rule(ask(&rule)).await, Err(Unanswered::Failed(_))));
        assert_eq!((answers.seen().len(), answers.connections()), (4, 3), "a fresh connection, and no more");
        assert!(one.act(ask(&rule)).await.is_err());
        assert_eq!((answers.seen().len(), answers.connections()), (5, 4), "an action is never sent twice");
    });
}

// B24
#[test]
fn time_in_the_line_counts() {
    let answers = http::Application::start(|_, _| Answer::Nothing);
    let one = application(Some((answers.endpoint("/", 300), 1)));
    let began = Clock::now();
    wait(async {
        let calls: Vec<_> = (0..3)
            .map(|n| {
                let one = one.clone();
                tokio::spawn(async move { one.authorize(upgrade([10, 0, 0, n])).await.err() })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), Some(NotAuthorized::Late));
        }
    });
    assert!(began.elapsed() < Duration::from_millis(1_000), "{:?}", began.elapsed());
    assert_eq!(faults(&one, Called::Authorize), [3, 0, 0, 0]);
    assert_eq!((one.waiting(), one.counts().numbers()[0].in_flight), ((0, 0), 0));
}

// Issue 4, 1; B24
#[test]
fn a_storm_of_upgrades_queues_fairly_and_melts_nobody() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (busy, peak) = (now.clone(), most.clone());
    let answers = http::Application::start(move |_, _| {
        peak.fetch_max(busy.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        busy.fetch_sub(1, SeqCst);
        Answer::Reply(200, ADA.to_owned())
    });
    let one = application(Some((answers.endpoint("/", 30_000), 16)));
    let (flood, others) = wait(async {
        let call = |ip| {
            let one = one.clone();
            tokio::spawn(async move { (one.authorize(upgrade(ip)).await, answers_so_far(&one)) })
        };
        let flood: Vec<_> = (0..5_000).map(|_| call([10, 0, 0, 1])).collect();
        until(|| one.waiting().0 == AUTHORIZE_WAITING_MAX).await;
        let others: Vec<_> = (0..50).map(|n| call([10, 0, 1, n])).collect();
        let (mut flooded, mut other) = (Vec::new(), Vec::new());
        for one in flood {
            flooded.push(one.await.unwrap());
        }
        for one in others {
            other.push(one.await.unwrap());
        }
        (flooded, other)
    });
    assert!(most.load(SeqCst) <= 16, "{} at a time", most.load(SeqCst));
    for (outcome, before) in &others {
        assert!(outcome.is_ok(), "{outcome:?}");
        assert!(*before < 1_000, "the flood was in front: {before} answers before this one");
    }
    let turned_away = flood.iter().filter(|(one, _)| *one == Err(NotAuthorized::Overloaded)).count();
    let let_in = flood.iter().filter(|(one, _)| one.is_ok()).count();
    assert_eq!(turned_away + let_in, 5_000, "every one has an answer");
    assert_eq!(let_in, AUTHORIZE_WAITING_MAX + 16 - 50);
    assert_eq!(faults(&one, Called::Authorize)[Fault::Overloaded as usize], turned_away as u64);
}

fn answers_so_far(one: &Application) -> u64 {
    one.counts().numbers()[Called::Authorize as usize].times.iter().sum()
}

#[test]
fn upgrades_of_one_network_stand_in_one_line() {
    let same = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
    assert!(same("2001:db8::1", "2001:db8::ffff:1") && !same("2001:db8::1", "2001:db8:0:1::1"));
    assert!(same("::ffff:10.0.0.1", "10.0.0.1") && !same("10.0.0.1", "10.0.0.2"));
}

#[test]
fn a_reload_brings_another_webhook() {
    let (before, after) = (reply(403, ""), reply(200, ADA));
    let one = application(Some((before.endpoint("/", 1_000), 1)));
    assert_eq!(wait(one.authorize(upgrade([10, 0, 0, 1]))).err(), Some(NotAuthorized::Forbidden));
    let mut config = Config::new(1);
    let webhook = Webhook { endpoint: after.endpoint("/", 1_000), forward_headers: Vec::new(), concurrency: 5 };
    config.auth.webhook = Some(webhook);
    one.inner.shared.replace_settings(Settings::new(config).unwrap());
    one.take_up();
    assert!(wait(one.authorize(upgrade([10, 0, 0, 1]))).is_ok());
    one.inner.shared.replace_settings(Settings::new(Config::new(1)).unwrap());
    let refused = wait(one.authorize(upgrade([10, 0, 0, 1])));
    assert!(matches!(refused, Err(NotAuthorized::Unavailable(_))), "{refused:?}");
}

// A11: anything but a proper 200 refuses.
#[test]
fn a_rule_is_allowed_by_a_proper_answer_alone() {
    let rule = |answers: http::Application| wait(application(None).rule(ask(&answers.endpoint("/", 500))));
    assert_eq!(rule(reply(200, r#"{"allow":true}"#)), Ok(Ruling { allow: true, context: None }));
    assert_eq!(rule(reply(200, r#"{"allow":false}"#)), Ok(Ruling { allow: false, context: None }));
    for (status, body) in [
        (200, r#"{"allow":"true"}"#),
        (200, r#"{"allow":1}"#),
        (200, "{}"),
        (200, "true"),
        (200, ""),
        (201, r#"{"allow":true}"#),
        (302, r#"{"allow":true}"#),
        (403, r#"{"allow":true}"#),
        (500, r#"{"allow":true}"#),
    ] {
        let answer = rule(reply(status, body));
        assert!(matches!(answer, Err(Unanswered::Failed(_))), "{status} {body}: {answer:?}");
    }
    let silent = http::Application::start(|_, _| Answer::Nothing);
    assert_eq!(rule(silent), Err(Unanswered::Late));
}

// F14
#[test]
fn an_action_gives_its_result_or_its_own_error() {
    let act = |answers: http::Application| wait(application(None).act(ask(&answers.endpoint("/", 500))));
    assert_eq!(act(reply(200, r#"{"n":12345678901234567890123}"#)).as_deref(), Ok(r#"{"n":12345678901234567890123}"#));
    assert_eq!(act(reply(204, "")).as_deref(), Ok("null"));
    let code = |answers| act(answers).unwrap_err().code.to_string();
    assert_eq!(code(reply(200, r#"{"error":{"code":"TOO_LATE","message":"Closed"}}"#)), "TOO_LATE");
    assert_eq!(code(reply(404, "")), "NOT_FOUND");
    assert_eq!(code(reply(500, "")), "UNAVAILABLE");
    assert_eq!(code(reply(200, "<html>")), "INTERNAL");
    assert_eq!(code(http::Application::start(|_, _| Answer::Nothing)), "TIMEOUT");
    assert_eq!(code(http::Application::start(|_, _| Answer::Raw(Vec::new()))), "UNAVAILABLE");
    let refused = wait(application(None).act(ask(&endpoint("http://127.0.0.1:1/", 500)))).unwrap_err();
    assert_eq!((&*refused.code, refused.fault.is_some()), ("UNAVAILABLE", true));
}

#[test]
fn a_fault_of_an_action_says_which_action() {
    let place = Place { file: "pipeward.toml".into(), line: 7, key: "action.buy".into() };
    for (answers, why) in [(reply(500, ""), "status 500"), (reply(200, "<html>"), "a body that is not JSON")] {
        let at = Endpoint { place: place.clone(), ..(*answers.endpoint("/", 500)).clone() };
        let refused = wait(application(None).act(ask(&Arc::new(at)))).unwrap_err();
        let fault = refused.fault.expect("a fault");
        assert!(fault.starts_with("pipeward.toml:7: action.buy: ") && fault.contains(why), "{fault}");
    }
    // What the application refuses is no fault.
    assert_eq!(wait(application(None).act(ask(&reply(403, "").endpoint("/", 500)))).unwrap_err().fault, None);
}

#[test]
fn one_slow_endpoint_does_not_keep_the_others_waiting() {
    let slow = http::Application::start(|_, _| Answer::Nothing);
    let quick = reply(200, "1");
    let (slow_at, quick_at) = (slow.endpoint("/slow", 2_000), quick.endpoint("/quick", 2_000));
    let one = application(None);
    wait(async {
        let stuck: Vec<_> = (0..1_000)
            .map(|_| {
                let (one, slow_at) = (one.clone(), slow_at.clone());
                tokio::spawn(async move { one.act(ask(&slow_at)).await })
            })
            .collect();
        until(|| one.waiting().1 == 1_000 - CALLS_MAX / 2).await;
        let began = Clock::now();
        for _ in 0..20 {
            assert_eq!(one.act(ask(&quick_at)).await.as_deref(), Ok("1"));
        }
        assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
        for call in stuck {
            assert_eq!(&*call.await.unwrap().unwrap_err().code, "TIMEOUT");
        }
    });
    assert_eq!(one.waiting(), (0, 0));
}

#[test]
fn connections_are_used_again() {
    let answers = reply(200, r#"{"allow":true}"#);
    let one = application(None);
    wait(async {
        for _ in 0..10 {
            one.rule(ask(&answers.endpoint("/", 1_000))).await.unwrap();
        }
    });
    assert_eq!((answers.seen().len(), answers.connections()), (10, 1));
}
