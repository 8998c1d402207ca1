//! Queues: who may hand over what; what was answered `ok` is delivered, in order and at least once, whatever happens to
//! the server or to the application in between; what the application will never take is set apart.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    API_KEY, AUDITED, Application, Client, Heard, Launch, MOMENT, NO_RATES, Reply, Request, Server, assert_code,
    assert_forbidden, assert_ok, await_records, frame, opcode, sign, unix_ms, until,
};

const SIGNED_WITH: &str = "secret-of-the-calls-of-the-tests";
const JOBS: &str = "[queue.jobs]\npublish = \"user.role == 'member'\"\nurl = \"URL/jobs\"\n";

/// `URL` in the rules stands for the application.
fn config(application: &Application, rules: &str) -> String {
    let rules = rules.replace("URL", application.url("").trim_end_matches('/'));
    format!("[edge]\nworkers = 2\ndrain_s = 0\n{AUDITED}[limits]\n{NO_RATES}enqueue = {{ per_s = 0 }}\n{rules}")
}

fn launch(application: &Application, rules: &str) -> Launch {
    Launch::new(&config(application, rules))
}

fn connect(server: &Server, user: &str, role: &str) -> Client {
    Client::connect(server.address, &sign(&json!({"sub": user, "role": role}).to_string()))
}

fn enqueue(client: &mut Client, queue: &str, data: impl Into<Value>) -> Value {
    client.request(json!({"type": "enqueue", "queue": queue, "data": data.into()}))
}

fn ok(_: &Heard) -> Reply {
    Reply::Status(200, String::new())
}

/// `queue` as `GET /v1/queues` has it.
#[track_caller]
fn queue(server: &Server, name: &str) -> Value {
    let listed = server.api.list("/v1/queues");
    let all = listed["queues"].as_array().expect("queues");
    all.iter().find(|one| one["queue"] == name).unwrap_or_else(|| panic!("no {name} in {listed}")).clone()
}

/// The data of those deliveries, each message once, in the order of their first attempt; asserts one id for each message.
#[track_caller]
fn delivered(calls: &[Heard]) -> Vec<Value> {
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut order = Vec::new();
    for heard in calls {
        let body = heard.json();
        let (id, data) = (body["id"].to_string(), body["data"].to_string());
        match ids.get(&id) {
            Some(known) => assert_eq!(*known, data, "an id is of one message"),
            None => {
                order.push(body["data"].clone());
                ids.insert(id, data);
            }
        }
    }
    order
}

fn numbers(count: u64) -> Vec<Value> {
    (0..count).map(Value::from).collect()
}

fn command(server: &Server, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeward"));
    let url = format!("http://{}", server.api.address);
    let output = command.args(arguments).args(["--url", &url]).env("PIPEWARD_KEY", API_KEY).output().expect("it runs");
    let text = String::from_utf8(if output.status.success() { output.stdout } else { output.stderr }).expect("UTF-8");
    (output.status.success(), text)
}

#[track_caller]
fn told(server: &Server, arguments: &[&str]) -> Value {
    let (done, text) = command(server, arguments);
    assert!(done, "{arguments:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

// RK-3, RK-5, RK-7, F15, B21, GD-10: what no rule allows is not taken; a queue that nobody defined is logged.
#[test]
fn nothing_is_taken_that_no_rule_allows() {
    let application = Application::start(ok);
    let rules = format!(
        "[auth]\nanonymous = true\n{JOBS}[queue.none]\nurl = \"URL/\"\n[queue.never]\nurl = \"URL/\"\npublish = false\n\
         [queue.fails]\nurl = \"URL/\"\npublish = \"user.team == 'red'\"\n[queue.odd]\nurl = \"URL/\"\npublish = \"args.open\"\n\
         [queue.small]\nurl = \"URL/\"\npublish = \"has(user.id)\"\nmax_bytes = 20\n\
         schema = {{ type = \"object\", required = [\"n\"], properties = {{ n = {{ type = \"integer\" }} }} }}\n"
    );
    let server = launch(&application, &rules).start();
    let mut nobody = Client::with(server.address, &Request::upgrade());
    let mut guest = connect(&server, "guest", "guest");
    let mut ann = connect(&server, "ann", "member");
    assert_code(&enqueue(&mut nobody, "jobs", 1), "UNAUTHENTICATED");
    assert_forbidden(&enqueue(&mut guest, "jobs", 1));
    for name in ["none", "never", "fails", "Jobs", "nosuch"] {
        assert_forbidden(&enqueue(&mut ann, name, json!({"open": true})));
    }
    for data in [json!({}), json!({"open": "true"}), json!({"open": 1}), json!(null)] {
        assert_forbidden(&enqueue(&mut ann, "odd", data));
    }
    let wrong = enqueue(&mut ann, "small", json!({"n": "SPOILED"}));
    assert_code(&wrong, "SCHEMA");
    assert!(wrong["error"].as_str().is_some_and(|error| error.contains("/n") && !error.contains("SPOILED")), "{wrong}");
    assert_code(&enqueue(&mut ann, "small", json!({"n": 1, "further": "long enough"})), "PAYLOAD_TOO_LARGE");
    assert_code(&ann.request(json!({"type": "enqueue", "data": 1})), "INVALID");
    guest.send(json!({"type": "enqueue", "queue": "jobs", "data": 1}));
    assert_eq!((ann.settle(), guest.settle()), (vec![], vec![]));
    assert!(application.heard().is_empty(), "{:?}", application.heard());
    assert!(
        server.api.list("/v1/queues")["queues"].as_array().is_some_and(|all| all.iter().all(|one| one["depth"] == 0))
    );
    assert_ok(&enqueue(&mut ann, "small", json!({"n": 1})));
    assert_ok(&enqueue(&mut ann, "odd", json!({"open": true})));
    application.await_calls(2);
}

// RK-7, F15: a message for a queue that nobody defined is ignored, and logged by name; a flood of them is not a flood there.
#[test]
fn an_undefined_queue_is_logged() {
    let application = Application::start(ok);
    let server = launch(&application, JOBS).start();
    let mut ann = connect(&server, "ann", "member");
    ann.send(json!({"type": "enqueue", "queue": "unheard-of", "data": "PRIVATE"}));
    assert!(server.log_line("unheard-of").contains("WARN"));
    // Each by its name, however often one of them is named.
    for _ in 0..20 {
        assert_forbidden(&enqueue(&mut ann, "unheard-of", "PRIVATE"));
    }
    assert_forbidden(&enqueue(&mut ann, "unheard-of-too", "PRIVATE"));
    server.log_line("\"unheard-of-too\"");
    assert_eq!(server.log().iter().filter(|line| line.contains("\"unheard-of\"")).count(), 1);
    for number in 0..200 {
        ann.send(json!({"type": "enqueue", "queue": format!("further-{number}"), "data": "PRIVATE"}));
    }
    assert_eq!(ann.settle(), [] as [Value; 0]);
    let lines = server.log().iter().filter(|line| line.contains("no [queue]")).count();
    assert!(lines < 50 && !server.log().join("\n").contains("PRIVATE"), "{lines} lines");
    assert!(application.heard().is_empty());
}

// §5, A12, INVARIANTS 26, 31: what the application is told, under which secret; data as it came.
#[test]
fn the_call_says_whose_it_is_and_is_signed() {
    let application = Application::start(ok);
    let own = "[queue.own]\npublish = \"has(user.id)\"\nurl = \"URL/own\"\nsecret = \"another-secret-of-this-queue\"\n";
    let webhook = format!("[auth.webhook]\nurl = \"URL/authorize\"\nsecret = \"{SIGNED_WITH}\"\n");
    let server = launch(&application, &format!("{webhook}{JOBS}{own}")).start();
    let claims = json!({"sub": "ann", "name": "Ann", "role": "member", "tenant": "acme"});
    let mut ann = Client::connect(server.address, &sign(&claims.to_string()));
    let before_ms = unix_ms();
    ann.send_text(r#"{"type":"enqueue","id":"q","queue":"jobs","data":{"n": 12345678901234567890123 }}"#);
    let reply = ann.reply(&json!("q"));
    assert_ok(&reply);
    let heard = application.call(0);
    assert_eq!((&*heard.method, &*heard.path), ("POST", "/jobs"));
    heard.assert_signed(SIGNED_WITH);
    assert!(heard.body.contains(r#""data":{"n": 12345678901234567890123 }"#), "{}", heard.body);
    let body = heard.json();
    assert_eq!((&body["kind"], &body["queue"]), (&json!("queue"), &json!("jobs")));
    let user = json!({"id": "ann", "name": "Ann", "role": "member", "roles": ["member"], "tenant": "acme"});
    assert_eq!(body["user"], user);
    assert!(body["enqueued_at"].as_u64().is_some_and(|at_ms| (before_ms..=unix_ms()).contains(&at_ms)), "{body}");
    assert!(body["id"].as_str().is_some_and(|id| !id.is_empty()) && body["delivery"].is_string(), "{body}");
    assert_ok(&enqueue(&mut ann, "own", 1));
    application.call(1).assert_signed("another-secret-of-this-queue");
}

// F16, §5: in order, each at least once; a failed one is tried again under the same id before the next one is.
#[test]
fn messages_arrive_in_order_however_often_it_takes() {
    const COUNT: u64 = 12;
    let seen: Mutex<BTreeMap<String, u32>> = Mutex::default();
    let application = Application::start(move |heard| {
        let body = heard.json();
        let mut seen = seen.lock().expect("no test has failed");
        let attempts = seen.entry(body["id"].to_string()).or_default();
        *attempts += 1;
        // Every fourth one fails at first, each in a way of its own.
        match (body["data"].as_u64(), *attempts) {
            (Some(0), 1) => Reply::Status(500, String::new()),
            (Some(4), 1) => Reply::HangUp,
            (Some(8), 1) => Reply::Status(429, String::new()),
            _ => Reply::Status(204, String::new()),
        }
    });
    let server = launch(&application, JOBS).start();
    let mut two = [connect(&server, "ann", "member"), connect(&server, "ann", "member")];
    for number in 0..COUNT {
        assert_ok(&enqueue(&mut two[number as usize % 2], "jobs", number));
    }
    let calls = application.await_calls(COUNT as usize + 3);
    until("all are taken", || queue(&server, "jobs")["depth"] == 0);
    assert_eq!(application.heard().len(), calls.len(), "what was taken is not delivered again");
    assert_eq!(delivered(&calls), numbers(COUNT));
    let order: Vec<u64> = calls.iter().map(|heard| heard.json()["data"].as_u64().expect("a number")).collect();
    assert!(order.is_sorted(), "the head blocks those behind it: {order:?}");
    let attempts: Vec<Value> =
        calls.iter().filter(|heard| heard.json()["data"] == 4).map(|heard| heard.json()["delivery"].clone()).collect();
    assert_eq!(attempts.len(), 2);
    assert_ne!(attempts[0], attempts[1], "INVARIANTS 31");
}

// F16: first within 1 s, then after longer and longer.
#[test]
fn attempts_are_spaced_out() {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let own = times.clone();
    let application = Application::start(move |_| {
        own.lock().expect("no test has failed").push(Instant::now());
        Reply::Status(503, String::new())
    });
    let server = launch(&application, JOBS).start();
    let mut ann = connect(&server, "ann", "member");
    let began = Instant::now();
    for number in 0..3 {
        assert_ok(&enqueue(&mut ann, "jobs", number));
    }
    let calls = application.await_calls(4);
    assert_eq!(delivered(&calls), [json!(0)], "only the head is tried");
    // From the beginning, not from each other: a busy machine notes one late, never early.
    let times: Vec<Duration> =
        times.lock().expect("no test has failed").iter().map(|time| time.duration_since(began)).collect();
    for (time, least_ms) in times.iter().zip([0, 400, 1_300, 3_200]) {
        assert!(*time >= Duration::from_millis(least_ms), "{times:?}");
    }
    let shown = queue(&server, "jobs");
    assert_eq!(
        (&shown["depth"], &shown["dead"], &shown["configured"]),
        (&json!(3), &json!(0), &json!(true)),
        "{shown}"
    );
    assert!(shown["attempts"].as_u64().is_some_and(|attempts| attempts >= 3), "{shown}");
    assert!(shown["last_error"]["error"].as_str().is_some_and(|error| error.contains("503")), "{shown}");
    assert!(shown["oldest"].as_u64().is_some_and(|at_ms| at_ms <= unix_ms()), "{shown}");
}

/// Starts a server again, after `COUNT` messages were acknowledged and none was delivered; all of them are, then.
fn survive(end: impl FnOnce(Server) -> Launch) {
    const COUNT: u64 = 20;
    let application = Application::start(|_| Reply::Status(503, String::new()));
    let server = launch(&application, JOBS).start();
    let mut ann = connect(&server, "ann", "member");
    for number in 0..COUNT {
        assert_ok(&enqueue(&mut ann, "jobs", number));
    }
    application.await_calls(1);
    let before = application.heard().len();
    let server = end(server).start();
    assert_eq!(queue(&server, "jobs")["depth"], COUNT);
    application.script(ok);
    until("all are taken", || queue(&server, "jobs")["depth"] == 0);
    let calls = application.heard();
    assert_eq!(delivered(&calls), numbers(COUNT), "with the ids of before");
    assert!(calls.len() >= before + COUNT as usize);
    // What was taken stays taken.
    until("it is settled", || queue(&server, "jobs")["delivered"] == COUNT);
    std::thread::sleep(MOMENT);
    let (server, count) = (server.stop().start(), application.heard().len());
    assert_eq!(queue(&server, "jobs")["depth"], 0);
    std::thread::sleep(MOMENT);
    assert_eq!(application.heard().len(), count);
    // And what comes now comes behind it.
    assert_ok(&enqueue(&mut connect(&server, "ann", "member"), "jobs", COUNT));
    assert_eq!(application.call(count).json()["data"], COUNT);
}

// RK-3, F16, item 8: `ok` means stored.
#[test]
fn what_was_taken_survives_a_kill() {
    survive(Server::kill);
}

// RK-3, F16
#[test]
fn what_was_taken_survives_a_restart() {
    survive(Server::stop);
}

// Item 8: a kill in the middle loses nothing of what was acknowledged, and changes no order.
#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let application = Application::start(ok);
    let mut launch = launch(&application, JOBS);
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut sent = 0_u64;
    for round in 0..4 {
        let server = launch.start();
        let mut ann = connect(&server, "ann", "member");
        // Some are on their way when it dies: they may or may not be there.
        for _ in 0..40 {
            ann.send(json!({"type": "enqueue", "queue": "jobs", "data": sent, "id": sent}));
            sent += 1;
        }
        for _ in 0..10 + 5 * round {
            let reply = ann.receive();
            assert_ok(&reply);
            acknowledged.push(reply["id"].as_u64().expect("a number"));
        }
        launch = server.kill();
    }
    let server = launch.start();
    until("all are taken", || queue(&server, "jobs")["depth"] == 0);
    let data: Vec<u64> = delivered(&application.heard()).iter().map(|data| data.as_u64().expect("a number")).collect();
    assert!(data.is_sorted(), "in order: {data:?}");
    let lost: Vec<&u64> = acknowledged.iter().filter(|number| !data.contains(number)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

// C37, item 8: what is being stored waits for the disk, not for the application: a burst that the rates allow is taken.
#[test]
fn a_burst_is_taken_whole() {
    const COUNT: u64 = 200;
    let application = Application::start(ok);
    let server = launch(&application, JOBS).start();
    let mut ann = connect(&server, "ann", "member");
    let texts = (0..COUNT)
        .map(|number| json!({"type": "enqueue", "queue": "jobs", "data": number, "id": format!("n{number}")}));
    ann.raw.send(texts.flat_map(|text| frame(0x80 | opcode::TEXT, text.to_string())).collect::<Vec<u8>>());
    (0..COUNT).for_each(|_| assert_ok(&ann.receive()));
    until("all are taken", || queue(&server, "jobs")["delivered"] == COUNT);
    assert_eq!(delivered(&application.heard()), numbers(COUNT));
}

// F16, item 8: bounded by messages; there is room again when the application has taken some.
#[test]
fn a_full_queue_takes_no_more() {
    let application = Application::holding();
    let rules = format!(
        "{JOBS}max_pending = 3\ntimeout_ms = 30000\n[queue.other]\npublish = true\npublic = true\nurl = \"URL/other\"\n"
    );
    let server = launch(&application, &rules).start();
    let mut ann = connect(&server, "ann", "member");
    for number in 0..3 {
        assert_ok(&enqueue(&mut ann, "jobs", number));
    }
    for _ in 0..3 {
        assert_code(&enqueue(&mut ann, "jobs", "too many"), "UNAVAILABLE");
    }
    ann.send(json!({"type": "enqueue", "queue": "jobs", "data": "too many"}));
    assert_ok(&enqueue(&mut ann, "other", "its own"));
    assert_eq!(queue(&server, "jobs")["depth"], 3);
    application.script(ok);
    application.answer(0, Reply::Status(200, String::new()));
    until("all are taken", || queue(&server, "jobs")["depth"] == 0);
    assert_ok(&enqueue(&mut ann, "jobs", 3));
    until("the last is taken", || queue(&server, "jobs")["delivered"] == 4);
    let jobs: Vec<Heard> = application.heard().into_iter().filter(|heard| heard.path == "/jobs").collect();
    assert_eq!(delivered(&jobs), numbers(4), "what was refused is not there");
}

// Item 8: and by bytes.
#[test]
fn a_queue_is_bounded_by_bytes() {
    let application = Application::holding();
    let server = launch(&application, &format!("{JOBS}max_pending_bytes = 2000\ntimeout_ms = 30000\n")).start();
    let mut ann = connect(&server, "ann", "member");
    let large = "x".repeat(1_000);
    assert_ok(&enqueue(&mut ann, "jobs", &*large));
    assert_code(&enqueue(&mut ann, "jobs", &*large), "UNAVAILABLE");
    assert_ok(&enqueue(&mut ann, "jobs", "small"));
    assert!(queue(&server, "jobs")["bytes"].as_u64().is_some_and(|bytes| (1_000..=2_000).contains(&bytes)));
}

// Item 8: the bounds hold after a restart too.
#[test]
fn a_full_queue_is_full_after_a_restart() {
    let application = Application::start(|_| Reply::Status(503, String::new()));
    let server = launch(&application, &format!("{JOBS}max_pending = 2\n")).start();
    let mut ann = connect(&server, "ann", "member");
    for number in 0..2 {
        assert_ok(&enqueue(&mut ann, "jobs", number));
    }
    let server = server.kill().start();
    assert_code(&enqueue(&mut connect(&server, "ann", "member"), "jobs", 2), "UNAVAILABLE");
}

// F16, G3: what the application will never take is set apart, on record, and the next one proceeds; it can be had again,
// under the same id. `pipeward queues`, `queues dead`, `queues retry`.
#[test]
fn what_is_refused_for_good_becomes_a_dead_letter() {
    let application = Application::start(|heard| {
        let refused = heard.json()["data"]["wrong"] == true;
        Reply::Status(if refused { 422 } else { 200 }, String::new())
    });
    let server = launch(&application, JOBS).start();
    let mut ann = connect(&server, "ann", "member");
    let data = |number: u64, wrong: bool| json!({"number": number, "wrong": wrong, "text": "PRIVATE"});
    for number in 0..6 {
        assert_ok(&enqueue(&mut ann, "jobs", data(number, number % 2 == 1)));
    }
    until("three are dead", || queue(&server, "jobs")["dead"] == 3);
    until("three are taken", || queue(&server, "jobs")["delivered"] == 3);
    assert_eq!(application.heard().len(), 6, "no second attempt at what is refused for good");
    for record in await_records(&server, "internal_error", 3) {
        let reason = record["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("jobs") && reason.contains("422") && !reason.contains("PRIVATE"), "{record}");
    }
    let listed = told(&server, &["queues"]);
    let shown = &listed["queues"][0];
    assert_eq!((&shown["queue"], &shown["depth"], &shown["dead"]), (&json!("jobs"), &json!(0), &json!(3)), "{listed}");
    assert!(shown["last_error"]["error"].as_str().is_some_and(|error| error.contains("422")), "{listed}");
    let dead = told(&server, &["queues", "dead", "jobs"]);
    let letters = dead["letters"].as_array().expect("letters").clone();
    assert_eq!(
        letters.iter().map(|one| &one["data"]).collect::<Vec<_>>(),
        [&data(1, true), &data(3, true), &data(5, true)]
    );
    assert!(letters.iter().all(|one| one["user"]["id"] == "ann" && one["attempts"] == 1), "{letters:?}");
    let ids: Vec<String> = letters.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect();
    let heard_of: Vec<Value> = application.heard().iter().map(|heard| heard.json()["id"].clone()).collect();
    assert!(ids.iter().all(|id| heard_of.contains(&json!(id))), "{ids:?}");
    // They outlive the process.
    let server = server.kill().start();
    assert_eq!(told(&server, &["queues", "dead", "jobs"])["letters"].as_array().map(Vec::len), Some(3));
    let before = application.heard().len();
    application.script(ok);
    assert_eq!(told(&server, &["queues", "retry", "jobs", &ids[1]])["retried"], 1);
    let again = application.call(before).json();
    assert_eq!((&again["id"], &again["data"]), (&json!(ids[1]), &data(3, true)));
    assert_eq!(told(&server, &["queues", "retry", "jobs"])["retried"], 2);
    let calls = application.await_calls(before + 3);
    assert_eq!(delivered(&calls[before..]), [data(3, true), data(1, true), data(5, true)]);
    until("none is left", || queue(&server, "jobs")["dead"] == 0 && queue(&server, "jobs")["depth"] == 0);
    for unknown in
        [&["queues", "retry", "jobs", &ids[1]][..], &["queues", "retry", "nosuch"], &["queues", "dead", "nosuch"]]
    {
        let (done, text) = command(&server, unknown);
        assert!(!done && text.contains("NOT_FOUND"), "{unknown:?}: {text}");
    }
    assert!(!std::fs::read_to_string(server.path("audit.log")).expect("a file").contains("PRIVATE"), "G4");
}

// F16: 408, 425 and 429 say "not now", and so does whatever is no 4xx.
#[test]
fn not_now_is_not_never() {
    let left = Mutex::new(vec![408, 425, 302]);
    let application = Application::start(move |_| match left.lock().expect("no test has failed").pop() {
        Some(status) => Reply::Status(status, String::new()),
        None => Reply::Status(202, String::new()),
    });
    let server = launch(&application, JOBS).start();
    assert_ok(&enqueue(&mut connect(&server, "ann", "member"), "jobs", 0));
    until("it is taken", || queue(&server, "jobs")["delivered"] == 1);
    assert_eq!((application.heard().len(), queue(&server, "jobs")["dead"].clone()), (4, json!(0)));
}

// Item 8: bounded by age: what could not be delivered in time is set apart, and says why.
#[test]
fn what_is_too_old_becomes_a_dead_letter() {
    let application = Application::start(|_| Reply::Status(503, String::new()));
    let server = launch(&application, &format!("{JOBS}max_age_s = 1\n")).start();
    assert_ok(&enqueue(&mut connect(&server, "ann", "member"), "jobs", 0));
    until("it is dead", || queue(&server, "jobs")["dead"] == 1);
    let dead = server.api.list("/v1/queues/jobs/dead");
    assert!(dead["letters"][0]["error"].as_str().is_some_and(|error| error.contains("503")), "{dead}");
    await_records(&server, "internal_error", 1);
}

// F16: one queue that is stuck keeps no other one waiting, and no client.
#[test]
fn a_stuck_queue_is_alone() {
    let application = Application::start(|heard| if heard.path == "/jobs" { Reply::Held } else { ok(heard) });
    let rules = format!("{JOBS}timeout_ms = 30000\n[queue.other]\npublish = \"has(user.id)\"\nurl = \"URL/other\"\n");
    let server = launch(&application, &rules).start();
    let mut ann = connect(&server, "ann", "member");
    for number in 0..10 {
        assert_ok(&enqueue(&mut ann, "jobs", number));
        assert_ok(&enqueue(&mut ann, "other", number));
    }
    until("all of the other are taken", || queue(&server, "other")["delivered"] == 10);
    assert_eq!(queue(&server, "jobs")["depth"], 10);
}

// F16: a call that takes too long has failed, whatever is answered later.
#[test]
fn a_late_answer_does_not_count() {
    let application = Application::holding();
    let server = launch(&application, &format!("{JOBS}timeout_ms = 300\n")).start();
    assert_ok(&enqueue(&mut connect(&server, "ann", "member"), "jobs", 0));
    application.await_calls(2);
    application.answer(0, Reply::Status(200, String::new()));
    std::thread::sleep(MOMENT);
    assert_eq!(queue(&server, "jobs")["depth"], 1);
    application.script(ok);
    until("it is taken", || queue(&server, "jobs")["depth"] == 0);
    assert_eq!(delivered(&application.heard()), [json!(0)]);
}

// G2, F16: a reload takes up a new address; a queue that is taken out keeps what it has, takes no more, and goes on later.
#[test]
fn a_queue_outlives_its_configuration() {
    let (down, up) = (Application::start(|_| Reply::Status(503, String::new())), Application::start(ok));
    let server = launch(&down, JOBS).start();
    let mut ann = connect(&server, "ann", "member");
    for number in 0..3 {
        assert_ok(&enqueue(&mut ann, "jobs", number));
    }
    down.await_calls(1);
    assert!(server.reload(&config(&down, "")));
    until("it is gone", || enqueue(&mut ann, "jobs", "none")["code"] == "FORBIDDEN");
    let shown = queue(&server, "jobs");
    assert_eq!((&shown["configured"], &shown["depth"]), (&json!(false), &json!(3)), "{shown}");
    assert!(server.reload(&config(&up, JOBS)));
    until("all are taken", || queue(&server, "jobs")["depth"] == 0);
    assert_eq!(delivered(&up.heard()), numbers(3));
}

// A11, SR-2: a rule of the application for a queue; what it says no to, or nothing, is not stored.
#[test]
fn the_application_may_decide_who_may() {
    let application = Application::start(|heard| match &*heard.path {
        "/rule" => Reply::allow(heard.json()["args"]["n"] == 1),
        _ => ok(heard),
    });
    let rules = "[queue.jobs]\npublish = { url = \"URL/rule\", timeout_ms = 500 }\nurl = \"URL/jobs\"\n";
    let server = launch(&application, rules).start();
    let mut ann = connect(&server, "ann", "member");
    assert_forbidden(&enqueue(&mut ann, "jobs", json!({"n": 2})));
    assert_ok(&enqueue(&mut ann, "jobs", json!({"n": 1})));
    assert_forbidden(&enqueue(&mut ann, "jobs", json!({"n": 3})));
    application.script(|heard| if heard.path == "/rule" { Reply::Held } else { ok(heard) });
    assert_forbidden(&enqueue(&mut ann, "jobs", json!({"n": 1})));
    until("one is taken", || queue(&server, "jobs")["delivered"] == 1);
    let asked = application.call(0).json();
    assert_eq!(
        (&asked["kind"], &asked["queue"], &asked["args"]),
        (&json!("enqueue"), &json!("jobs"), &json!({"n": 2}))
    );
    let jobs: Vec<Heard> = application.heard().into_iter().filter(|heard| heard.path == "/jobs").collect();
    assert_eq!(delivered(&jobs), [json!({"n": 1})]);
}

// Item 8: messages of one connection keep their order also where each must be asked about first.
#[test]
fn order_holds_behind_a_rule_of_the_application() {
    let application = Application::start(|heard| {
        if heard.path == "/rule" {
            // The earlier one takes longer.
            std::thread::sleep(Duration::from_millis(if heard.json()["args"].as_u64() == Some(0) { 300 } else { 0 }));
            return Reply::allow(true);
        }
        ok(heard)
    });
    let rules = "[queue.jobs]\npublish = { url = \"URL/rule\" }\nurl = \"URL/jobs\"\n";
    let server = launch(&application, rules).start();
    let mut ann = connect(&server, "ann", "member");
    for number in 0..8 {
        ann.send(json!({"type": "enqueue", "queue": "jobs", "data": number, "id": format!("n{number}")}));
    }
    (0..8).for_each(|_| assert_ok(&ann.receive()));
    until("all are taken", || queue(&server, "jobs")["delivered"] == 8);
    let jobs: Vec<Heard> = application.heard().into_iter().filter(|heard| heard.path == "/jobs").collect();
    assert_eq!(delivered(&jobs), numbers(8));
}

// G10, E2: the calls about queues need their own right.
#[test]
fn queues_need_the_right() {
    let application = Application::start(ok);
    let control = "[control]\nlisten = \"127.0.0.1:0\"\n[[control.key]]\nname = \"tests\"\nsecret = \"the-key-of-the-tests\"\n\
                   allow = [\"publish\", \"stats\"]\n";
    let server = launch(&application, &format!("{JOBS}{control}")).argument("--listen").argument("127.0.0.1:0").start();
    for path in ["/v1/queues", "/v1/queues/jobs/dead"] {
        server.api.get(path).assert_refused(403, "FORBIDDEN");
    }
    let (done, text) = command(&server, &["queues", "retry", "jobs"]);
    assert!(!done && text.contains("FORBIDDEN"), "{text}");
}
