//! Pipes taken from a user while connected, while away, and across workers (HP-8, HP-9, A4, D1–D7, D14, D16,
//! INVARIANTS 6–8, 10).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Client, MOMENT, Message, NO_RATES, Raw, Request, Server, Stop, assert_code, assert_ok, assert_system, one_on_each,
    rights, sign, token, token_with, unix_s, until,
};

fn server(workers: usize) -> Server {
    Server::start(&format!("[edge]\nworkers = {workers}\n[limits]\nqueue_bytes = 1073741824\n{NO_RATES}"))
}

fn connect(server: &Server, user: &str) -> Client {
    Client::connect(server.address, &token_with(user, json!({})))
}

#[track_caller]
fn revoke(server: &Server, user: &str, pipe: &str) -> u64 {
    server.api.connections("revoke", json!({"user": user, "pipe": pipe}))
}

/// A4: every right is gone, whatever the token says; and nothing happens where no answer is asked for.
#[track_caller]
fn assert_revoked(client: &mut Client, pipe: &str) {
    assert_code(&client.subscribe(pipe), "REVOKED");
    assert_code(&client.publish(pipe, 0), "REVOKED");
    assert_code(&client.request(json!({"type": "presence", "pipe": pipe})), "REVOKED");
    let unsubscribe = client.request(json!({"type": "unsubscribe", "pipe": pipe}));
    assert_eq!(unsubscribe["ok"], false, "{unsubscribe}");
    client.send(json!({"type": "subscribe", "pipe": pipe}));
    client.tell(pipe, 0);
    assert_eq!(client.settle(), [] as [Value; 0]);
}

fn a_pipe_is_lost_on_every_connection(workers: usize) {
    let server = server(workers);
    let ann = token_with("ann", json!({}));
    let mut hers = one_on_each(server.address, workers, &ann);
    let mut idle = Client::connect(server.address, &ann);
    let (mut ben, mut sender) = (connect(&server, "ben"), connect(&server, "sender"));
    for client in hers.iter_mut().chain([&mut ben]) {
        assert_ok(&client.request(json!({"type": "subscribe", "pipes": ["room", "hall"]})));
    }
    // D2: granted or subscribed or not.
    assert_eq!(revoke(&server, "ann", "room"), workers as u64 + 1);
    assert_ok(&sender.publish("room", "after"));
    assert_ok(&sender.publish("hall", "after"));
    for client in hers.iter_mut().chain([&mut idle]) {
        client.expect_system("pipe_revoked", "room");
    }
    for client in &mut hers {
        client.expect_event("hall", "after");
        assert_revoked(client, "room");
    }
    ben.expect_event("room", "after");
    ben.expect_event("hall", "after");
    assert_revoked(&mut idle, "room");
    assert_eq!(ben.settle(), [] as [Value; 0], "what was published to a revoked pipe reached somebody");
    let listed = server.api.list("/v1/pipes");
    let (hall, room) = (json!({"pipe": "hall", "subscribers": workers + 1}), json!({"pipe": "room", "subscribers": 1}));
    assert_eq!(listed["pipes"], json!([hall, room]));
}

// HP-8, D1, D2
#[test]
fn a_pipe_is_lost_at_once_one_worker() {
    a_pipe_is_lost_on_every_connection(1);
}

// HP-8, D1, D2
#[test]
fn a_pipe_is_lost_at_once_two_workers() {
    a_pipe_is_lost_on_every_connection(2);
}

// HP-8, D1, D2
#[test]
fn a_pipe_is_lost_at_once_four_workers() {
    a_pipe_is_lost_on_every_connection(4);
}

// D1
#[test]
fn a_pattern_takes_every_pipe_that_it_matches() {
    let server = server(2);
    let mut ann = connect(&server, "ann");
    let mut idle = connect(&server, "ann");
    for pipe in ["a:1", "a:2", "a:2:x", "b"] {
        assert_ok(&ann.subscribe(pipe));
    }
    assert_eq!(revoke(&server, "ann", "a:*"), 2);
    let told: Vec<Value> = ann.settle();
    let mut pipes: Vec<&str> = told.iter().filter_map(|heard| heard["pipe"].as_str()).collect();
    pipes.sort_unstable();
    assert_eq!(pipes, ["a:1", "a:2"], "one event for each: {told:?}");
    told.iter().for_each(|heard| assert_system(heard, "pipe_revoked"));
    idle.expect_system("pipe_revoked", "a:*");
    for pipe in ["a:1", "a:2", "a:never-heard-of"] {
        assert_revoked(&mut ann, pipe);
        assert_revoked(&mut idle, pipe);
    }
    assert_ok(&ann.publish("a:2:x", 1));
    ann.expect_event("a:2:x", 1);
    assert_ok(&ann.publish("b", 1));
    ann.expect_event("b", 1);
}

// HP-9, D7
#[test]
fn everything_is_taken_and_the_connection_stays() {
    for workers in [1, 2, 4] {
        let server = server(workers);
        let mut hers = one_on_each(server.address, workers, &token_with("ann", json!({})));
        for client in &mut hers {
            assert_ok(&client.request(json!({"type": "subscribe", "pipes": ["room", "hall"]})));
        }
        assert_eq!(server.api.connections("revoke_all", json!({"user": "ann"})), workers as u64);
        for client in &mut hers {
            let told = client.settle();
            assert_eq!(told.len(), 1, "{told:?}");
            assert_system(&told[0], "all_pipes_revoked");
            assert_revoked(client, "room");
            assert_revoked(client, "another");
        }
        let count = server.api.delivered("push", json!({"to": {"user": "ann"}, "event": "e", "data": 1}));
        assert_eq!(count, workers as u64, "push is no pipe");
        let mut later = connect(&server, "ann");
        assert_eq!(later.welcome["pipes"], json!({}));
        assert_revoked(&mut later, "room");
        assert_eq!(server.api.list("/v1/pipes")["pipes"], json!([]));
    }
}

// HP-8, B25
#[test]
fn who_was_away_finds_it_taken() {
    let server = server(2);
    assert_eq!(revoke(&server, "ann", "room"), 0);
    assert_eq!(revoke(&server, "ann", "a:*"), 0);
    let grants = token("ann", &[("room", "sub,pub"), ("hall", "sub"), ("a:*", "sub"), ("a:1", "sub"), ("r*", "sub")]);
    let mut ann = Client::connect(server.address, &grants);
    assert_eq!(ann.welcome["pipes"], json!({"hall": rights("sub"), "r*": rights("sub")}), "patterns stay patterns");
    assert_eq!(ann.settle(), [] as [Value; 0]);
    assert_revoked(&mut ann, "room");
    assert_revoked(&mut ann, "a:1");
    assert_ok(&ann.subscribe("hall"));
    assert_ok(&ann.subscribe("rooms"));
    let batch = ann.request(json!({"type": "subscribe", "pipes": ["hall", "room"]}));
    assert_eq!(batch["results"]["hall"]["ok"], true, "{batch}");
    assert_eq!(batch["results"]["room"]["code"], "REVOKED", "{batch}");
    assert_eq!(connect(&server, "anna").welcome["pipes"], json!({"**": rights("sub,pub,presence")}));
}

// A4: also what a rule of the configuration gives to all.
#[test]
fn what_a_rule_gives_is_taken_too() {
    let server = Server::start("[pipe.\"open-{x}\"]\nsubscribe = true\npublish = true\npublic = true\n");
    let mut ann = Client::connect(server.address, &token("ann", &[]));
    let mut ben = Client::connect(server.address, &token("ben", &[]));
    assert_ok(&ann.subscribe("open-1"));
    assert_ok(&ben.subscribe("open-1"));
    assert_eq!(revoke(&server, "ann", "open-1"), 1);
    ann.expect_system("pipe_revoked", "open-1");
    assert_revoked(&mut ann, "open-1");
    assert_ok(&ann.subscribe("open-2"));
    assert_ok(&ben.publish("open-1", 1));
    ben.expect_event("open-1", 1);
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

/// After the answer nothing that is published later arrives, and after the system event nothing of the pipe at all,
/// however many publish meanwhile and from wherever (D3, INVARIANTS 6, 8).
fn a_race_with_publishers(workers: usize, rounds: usize) {
    const PUBLISHERS: usize = 3;
    let server = server(workers);
    let ann = token_with("ann", json!({}));
    let mut victims = one_on_each(server.address, workers, &ann);
    let begun: [AtomicU64; PUBLISHERS] = Default::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&over);
        for (number, begun) in begun.iter().enumerate() {
            let (server, over) = (&server, &over);
            scope.spawn(move || {
                let mut publisher = connect(server, &format!("publisher-{number}"));
                while !over.load(SeqCst) {
                    // Whatever bears a higher number than is read here was sent after that.
                    let next = begun.fetch_add(1, SeqCst);
                    publisher.tell("room", next);
                    // Seldom enough to race, often enough that nobody is too slow while the store waits for its disk.
                    if next.is_multiple_of(8) {
                        publisher.settle();
                    }
                }
            });
        }
        for round in 0..rounds {
            for victim in &mut victims {
                assert_ok(&victim.subscribe("room"));
            }
            // Each hears something, so the race is on.
            for victim in &mut victims {
                assert_eq!(victim.receive()["type"], "event");
            }
            std::thread::sleep(Duration::from_millis(round as u64 % 4));
            let revoked = revoke(&server, "ann", "room");
            assert_eq!(revoked, workers as u64, "somebody is gone: {:?}", server.counters());
            let marks = begun.each_ref().map(|begun| begun.load(SeqCst));
            std::thread::sleep(Duration::from_millis(5));
            for victim in &mut victims {
                let heard = victim.settle();
                let end = heard.iter().position(|one| one["type"] == "system").expect("the system event");
                assert_system(&heard[end], "pipe_revoked");
                assert_eq!(heard.len(), end + 1, "after it came {:?}", &heard[end + 1..]);
                for event in &heard[..end] {
                    let publisher = event["sender"].as_str().and_then(|sender| sender.strip_prefix("publisher-"));
                    let publisher: usize = publisher.and_then(|number| number.parse().ok()).expect("a publisher");
                    let number = event["data"].as_u64().expect("a number");
                    assert!(number < marks[publisher], "published after the answer: {event}, {marks:?}");
                }
            }
            assert_eq!(server.api.connections("restore", json!({"user": "ann"})), workers as u64);
            for victim in &mut victims {
                victim.expect_system("pipe_restored", "room");
                assert_eq!(victim.settle(), [] as [Value; 0], "D5: the subscription is not made again by itself");
            }
        }
    });
}

// D3
#[test]
fn nothing_published_later_arrives_one_worker() {
    a_race_with_publishers(1, 10);
}

// D3
#[test]
fn nothing_published_later_arrives_two_workers() {
    a_race_with_publishers(2, 10);
}

// D3
#[test]
fn nothing_published_later_arrives_four_workers() {
    a_race_with_publishers(4, 10);
}

// INVARIANTS 8: after a restore the new subscription skips what stood in the rings before it.
#[test]
fn a_restore_does_not_bring_back_what_was_published_meanwhile() {
    let server = server(2);
    let mut ann = connect(&server, "ann");
    let mut publishers = one_on_each(server.address, 2, &token_with("ben", json!({})));
    for round in 0..20 {
        assert_eq!(revoke(&server, "ann", "room"), 1);
        ann.expect_system("pipe_revoked", "room");
        for publisher in &mut publishers {
            (0..20).for_each(|_| publisher.tell("room", json!([round, "while it was taken"])));
            publisher.settle();
        }
        server.api.done("restore", json!({"user": "ann"}));
        ann.expect_system("pipe_restored", "room");
        assert_ok(&ann.subscribe("room"));
        assert_ok(&publishers[0].publish("room", json!([round, "after"])));
        ann.expect_event("room", json!([round, "after"]));
    }
}

/// A client for whom the kernel keeps little, so that events wait in the server.
fn connect_small(server: &Server, user: &str) -> Client {
    let socket = Socket::new(Domain::for_address(server.address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("an option");
    socket.connect(&server.address.into()).expect("connected");
    let mut raw = Raw::over(socket.into());
    raw.send(Request::upgrade().token(&token_with(user, json!({}))).text());
    Client::greet(raw).expect("let in")
}

// D3, INVARIANTS 10
#[test]
fn what_waits_in_the_queue_of_a_slow_reader_is_taken_too() {
    const EACH: usize = 4_000;
    let server = server(2);
    let mut slow = connect_small(&server, "ann");
    let mut publisher = connect(&server, "ben");
    assert_ok(&slow.subscribe("room"));
    assert_ok(&slow.subscribe("hall"));
    let padding = "x".repeat(2_000);
    for number in 0..EACH {
        publisher.tell("room", json!([number, padding]));
        publisher.tell("hall", json!([number, padding]));
    }
    server.until_counter("events_out", 2 * EACH as u64);
    assert_eq!(revoke(&server, "ann", "room"), 1);
    let (mut rooms, mut halls, mut told) = (0, 0, false);
    while halls < EACH {
        let heard = slow.receive();
        match heard["pipe"].as_str() {
            Some("hall") => {
                assert_eq!(heard["data"][0], halls, "the other pipe loses nothing and keeps its order");
                halls += 1;
            }
            Some("room") if heard["type"] == "event" => {
                assert!(!told, "an event after the system event: {heard}");
                assert_eq!(heard["data"][0], rooms);
                rooms += 1;
            }
            _ => {
                assert_system(&heard, "pipe_revoked");
                assert!(!told);
                told = true;
            }
        }
    }
    // It stands at the end of the queue, behind what was queued of the other pipe.
    if !told {
        slow.expect_system("pipe_revoked", "room");
    }
    assert!(rooms < EACH, "all {rooms} events were still sent");
    assert_eq!(slow.settle(), [] as [Value; 0]);
}

// D3: also of a subscription that has ended before.
#[test]
fn what_waits_of_an_ended_subscription_is_taken_too() {
    const COUNT: usize = 4_000;
    let server = server(1);
    let mut slow = connect_small(&server, "ann");
    let mut publisher = connect(&server, "ben");
    assert_ok(&slow.subscribe("room"));
    let padding = "x".repeat(2_000);
    (0..COUNT).for_each(|number| publisher.tell("room", json!([number, padding])));
    server.until_counter("events_out", COUNT as u64);
    slow.send(json!({"type": "unsubscribe", "pipe": "room", "id": 77}));
    until("it has ended", || server.api.list("/v1/pipes")["pipes"] == json!([]));
    assert_eq!(revoke(&server, "ann", "room"), 1);
    let mut heard = 0;
    loop {
        let one = slow.receive();
        match one["type"].as_str() {
            Some("event") => heard += 1,
            Some("reply") => assert_eq!((&one["id"], &one["ok"]), (&json!(77), &json!(true)), "{one}"),
            _ => {
                assert_system(&one, "pipe_revoked");
                break;
            }
        }
    }
    assert!(heard < COUNT, "all {heard} were still sent");
    assert_eq!(slow.settle(), [] as [Value; 0]);
}

// D14
#[test]
fn a_tenant_that_is_named_is_meant_alone() {
    let server = server(2);
    let of_tenant = |tenant: &str| token_with("ann", json!({"tenant": tenant}));
    let mut red = Client::connect(server.address, &of_tenant("red"));
    let mut blue = Client::connect(server.address, &of_tenant("blue"));
    let mut none = connect(&server, "ann");
    for client in [&mut red, &mut blue, &mut none] {
        assert_ok(&client.subscribe("room"));
    }
    let named = json!({"user": "ann", "tenant": "red", "pipe": "room"});
    assert_eq!(server.api.connections("revoke", named), 1);
    red.expect_system("pipe_revoked", "room");
    let mut sender = connect(&server, "ben");
    assert_ok(&sender.publish("room", 1));
    blue.expect_event("room", 1);
    none.expect_event("room", 1);
    assert_eq!(Client::connect(server.address, &of_tenant("red")).welcome["pipes"]["**"], rights("sub,pub,presence"));
    assert_revoked(&mut Client::connect(server.address, &of_tenant("red")), "room");
    assert_ok(&Client::connect(server.address, &of_tenant("blue")).subscribe("room"));
    // Without a tenant that id is meant everywhere.
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    for client in [&mut red, &mut blue, &mut none] {
        client.expect_system("pipe_revoked", "room");
        assert_revoked(client, "room");
    }
    assert_revoked(&mut Client::connect(server.address, &of_tenant("green")), "room");
    // With a tenant only that tenant's entry is lifted; the other one stands.
    server.api.done("restore", json!({"user": "ann", "tenant": "red", "pipe": "room"}));
    red.expect_system("pipe_restored", "room");
    assert_revoked(&mut red, "room");
    // Without one all are, also one that named a tenant (D14).
    server.api.done("revoke", json!({"user": "ann", "tenant": "red", "pipe": "room"}));
    red.expect_system("pipe_revoked", "room");
    server.api.done("restore", json!({"user": "ann", "pipe": "room"}));
    for client in [&mut red, &mut blue, &mut none] {
        client.expect_system("pipe_restored", "room");
    }
    red.expect_system("pipe_restored", "room");
    for client in [&mut red, &mut blue, &mut none] {
        assert_ok(&client.subscribe("room"));
    }
}

// D5
#[test]
fn a_time_limit_ends_by_itself() {
    let server = server(2);
    let mut before = connect(&server, "ann");
    assert_ok(&before.subscribe("room"));
    let limited = json!({"user": "ann", "pipe": "room", "ttl_s": 1});
    let began = std::time::Instant::now();
    assert_eq!(server.api.connections("revoke", limited), 1);
    before.expect_system("pipe_revoked", "room");
    let mut during = connect(&server, "ann");
    assert_code(&during.subscribe("room"), "REVOKED");
    for client in [&mut before, &mut during] {
        client.expect_system("pipe_restored", "room");
        assert!(began.elapsed() > Duration::from_millis(800), "it ended early: {:?}", began.elapsed());
    }
    let mut sender = connect(&server, "ben");
    assert_ok(&sender.publish("room", 1));
    assert_eq!(before.settle(), [] as [Value; 0], "a subscription is not made again by itself");
    for client in [&mut before, &mut during, &mut connect(&server, "ann")] {
        assert_ok(&client.subscribe("room"));
    }
}

// D6
#[test]
fn a_restore_lifts_exactly_what_it_names() {
    let server = server(2);
    let mut ann = connect(&server, "ann");
    assert_eq!(server.api.connections("restore", json!({"user": "ann"})), 1, "nothing to lift is fine");
    assert_eq!(ann.settle(), [] as [Value; 0]);
    revoke(&server, "ann", "a:*");
    revoke(&server, "ann", "a:1");
    server.api.done("revoke_all", json!({"user": "ann"}));
    ann.settle();
    let mut restore = |pipe: &str, still: &str| {
        server.api.done("restore", json!({"user": "ann", "pipe": pipe}));
        ann.expect_system("pipe_restored", pipe);
        assert_revoked(&mut ann, still);
        assert_revoked(&mut connect(&server, "ann"), still);
    };
    restore("a:1", "a:1");
    restore("a:*", "a:1");
    server.api.done("restore", json!({"user": "ann", "pipe": "a:1"}));
    assert_eq!(ann.settle(), [] as [Value; 0], "it was lifted already");
    revoke(&server, "ann", "b");
    ann.expect_system("pipe_revoked", "b");
    server.api.done("restore", json!({"user": "ann"}));
    let told = ann.settle();
    assert_eq!(told.len(), 2, "{told:?}");
    told.iter().for_each(|heard| assert_system(heard, "pipe_restored"));
    for pipe in ["a:1", "a:2", "b", "c"] {
        assert_ok(&ann.subscribe(pipe));
        assert_ok(&connect(&server, "ann").subscribe(pipe));
    }
}

// D5: what is not granted any more does not come back either.
#[test]
fn a_restore_grants_nothing_by_itself() {
    let server = server(1);
    let mut ann = Client::connect(server.address, &token("ann", &[("room", "sub")]));
    revoke(&server, "ann", "hall");
    revoke(&server, "ann", "room");
    server.api.done("restore", json!({"user": "ann"}));
    ann.settle();
    assert_code(&ann.subscribe("hall"), "FORBIDDEN");
    assert_code(&ann.publish("room", 1), "FORBIDDEN");
    assert_ok(&ann.subscribe("room"));
}

// D4
#[test]
fn the_last_call_decides_the_time_limit() {
    let server = server(2);
    let mut ann = connect(&server, "ann");
    let limited = |pipe: &str| json!({"user": "ann", "pipe": pipe, "ttl_s": 1});
    server.api.done("revoke", limited("for-ever"));
    revoke(&server, "ann", "for-ever");
    revoke(&server, "ann", "short");
    server.api.done("revoke", limited("short"));
    for pipe in ["for-ever", "for-ever", "short", "short"] {
        ann.expect_system("pipe_revoked", pipe);
    }
    ann.expect_system("pipe_restored", "short");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ann.settle(), [] as [Value; 0]);
    assert_revoked(&mut ann, "for-ever");
    assert_revoked(&mut connect(&server, "ann"), "for-ever");
    assert_ok(&ann.subscribe("short"));
}

// D4: `until: "reauthorized"`
#[test]
fn a_later_token_that_grants_the_pipe_ends_it() {
    for workers in [1, 2, 4] {
        let server = server(workers);
        let issued = |at_s: u64, grants: Value| sign(&json!({"sub": "ann", "iat": at_s, "pipes": grants}).to_string());
        let grants = json!({"room": rights("sub"), "hall": rights("sub")});
        let before = issued(unix_s(), grants.clone());
        let mut hers = one_on_each(server.address, workers, &before);
        let until = json!({"user": "ann", "pipe": "room", "until": "reauthorized"});
        assert_eq!(server.api.connections("revoke", until), workers as u64);
        hers.iter_mut().for_each(|client| drop(client.expect_system("pipe_revoked", "room")));
        assert_code(&Client::connect(server.address, &before).subscribe("room"), "REVOKED");
        let elsewhere = issued(unix_s() + 10, json!({"hall": rights("sub")}));
        assert_code(&Client::connect(server.address, &elsewhere).subscribe("room"), "REVOKED");
        assert_code(&hers[0].subscribe("room"), "REVOKED");
        // Its `iat` is later: the application has decided again.
        let mut later = Client::connect(server.address, &issued(unix_s() + 10, grants));
        assert_ok(&later.subscribe("room"));
        for client in &mut hers {
            client.expect_system("pipe_restored", "room");
            assert_ok(&client.subscribe("room"));
        }
        let mut again = Client::connect(server.address, &before);
        assert_ok(&again.subscribe("room"));
    }
}

// D1, D3: what is neither the user's nor anybody's does no harm.
#[test]
fn revoking_what_nobody_has_changes_nothing_for_others() {
    let server = server(2);
    let mut ben = connect(&server, "ben");
    assert_ok(&ben.subscribe("room"));
    assert_eq!(revoke(&server, "somebody-else", "**"), 0);
    assert_eq!(server.api.connections("revoke_all", json!({"user": "another"})), 0);
    assert!(ben.hear_for(MOMENT).is_none());
    assert_ok(&ben.publish("room", 1));
    ben.expect_event("room", 1);
}

// INVARIANTS 6: either the look-up sees the entry or the command finds the connection.
#[test]
fn no_subscription_slips_between() {
    let server = server(4);
    let ann = token_with("ann", json!({}));
    let mut connected = 0;
    for round in 0..15 {
        let over = AtomicBool::new(false);
        let clients: Vec<Client> = std::thread::scope(|scope| {
            let _stop = Stop(&over);
            let connecting: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut clients = Vec::new();
                        while !over.load(SeqCst) {
                            let mut client = Client::connect(server.address, &ann);
                            client.send(json!({"type": "subscribe", "pipe": "room"}));
                            clients.push(client);
                        }
                        clients
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(round % 5 * 4));
            revoke(&server, "ann", "room");
            let event = json!({"pipe": "room", "event": "e", "data": round, "count": true});
            let delivered = server.api.delivered("publish", event);
            over.store(true, SeqCst);
            assert_eq!(delivered, 0, "somebody was subscribed after the answer");
            connecting.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
        });
        connected += clients.len();
        for mut client in clients {
            client.settle();
            assert_code(&client.subscribe("room"), "REVOKED");
        }
        server.api.done("restore", json!({"user": "ann"}));
    }
    assert!(connected > 0, "nobody ever raced");
}

// D4, INVARIANTS 6: whoever calls at once, the last word on each pipe is everybody's: of the table, of each worker.
#[test]
fn callers_at_once_come_to_one_state() {
    const CALLERS: usize = 4;
    const CALLS: usize = 40;
    let server = server(4);
    let ann = token_with("ann", json!({}));
    let mut hers = one_on_each(server.address, 4, &ann);
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let server = &server;
            scope.spawn(move || {
                for call in 0..CALLS {
                    // A pipe of the caller's own, where it has the last word, and one that all pull at.
                    for pipe in [format!("own-{caller}"), "common".to_owned()] {
                        let method = if (call + caller) % 2 == 0 { "revoke" } else { "restore" };
                        server.api.done(method, json!({"user": "ann", "pipe": pipe}));
                    }
                }
            });
        }
    });
    hers.push(Client::connect(server.address, &ann));
    for client in &mut hers {
        client.settle();
        for caller in 0..CALLERS {
            let reply = client.subscribe(&format!("own-{caller}"));
            assert_eq!(reply["ok"], (CALLS - 1 + caller) % 2 == 1, "of caller {caller}: {reply}");
        }
    }
    let common: Vec<bool> = hers.iter_mut().map(|client| client.subscribe("common")["ok"] == true).collect();
    assert!(common.iter().all(|one| *one == common[0]), "{common:?}");
}

// INVARIANTS 10: what waits for a slow reader of a revoked token is not sent any more.
#[test]
fn a_revoked_token_drops_what_waits() {
    const COUNT: usize = 4_000;
    let server = server(2);
    for method in ["disconnect", "revoke_tokens"] {
        let mut slow = connect_small(&server, "ann");
        let mut publisher = connect(&server, "ben");
        assert_ok(&slow.subscribe("room"));
        let before = server.counter("events_out");
        let padding = "x".repeat(2_000);
        (0..COUNT).for_each(|number| publisher.tell("room", json!([number, padding])));
        server.until_counter("events_out", before + COUNT as u64);
        assert_eq!(server.api.connections(method, json!({"user": "ann"})), 1);
        let mut heard = 0;
        loop {
            match slow.hear() {
                Message::Json(event) => {
                    assert_eq!(event["data"][0], heard, "what was under way is whole and in order");
                    heard += 1;
                }
                Message::Close(code, _) => {
                    assert_eq!(code, Some(if method == "disconnect" { 4403 } else { 4402 }));
                    break;
                }
                // Whoever reads too late is cut off.
                Message::End => break,
            }
        }
        assert!(heard < COUNT, "{method}: all {heard} were still sent");
    }
}

// Nothing that the user sends after the answer reaches anybody, wherever the two live.
#[test]
fn a_revoked_publisher_is_heard_no_more() {
    let server = server(2);
    let mut publishers = one_on_each(server.address, 2, &token_with("ann", json!({})));
    let mut ben = connect(&server, "ben");
    assert_ok(&ben.subscribe("room"));
    for round in 0..10 {
        let begun: [AtomicU64; 2] = Default::default();
        let over = AtomicBool::new(false);
        let marks = std::thread::scope(|scope| {
            let _stop = Stop(&over);
            for ((place, publisher), begun) in publishers.iter_mut().enumerate().zip(&begun) {
                let over = &over;
                scope.spawn(move || {
                    while !over.load(SeqCst) {
                        let next = begun.fetch_add(1, SeqCst);
                        publisher.tell("room", json!([round, place, next]));
                        if next.is_multiple_of(16) {
                            publisher.settle();
                        }
                    }
                });
            }
            assert_eq!(ben.receive()["type"], "event");
            assert_eq!(revoke(&server, "ann", "room"), 2);
            let marks = begun.each_ref().map(|begun| begun.load(SeqCst));
            std::thread::sleep(Duration::from_millis(5));
            marks
        });
        publishers.iter_mut().for_each(|publisher| drop(publisher.settle()));
        for heard in ben.settle() {
            let (place, number) = (heard["data"][1].as_u64(), heard["data"][2].as_u64());
            let place = place.and_then(|place| usize::try_from(place).ok()).expect("a place");
            assert!(number < Some(marks[place]), "{heard} was sent after {marks:?}");
        }
        server.api.done("restore", json!({"user": "ann"}));
        publishers.iter_mut().for_each(|publisher| drop(publisher.settle()));
    }
}

// Names may hold what JSON and addresses must escape.
#[test]
fn names_that_need_escaping() {
    let server = server(2);
    let user = r#"a"n\n'/?&é"#;
    let pipe = r#"a"b\c/d?e=f&g#h%20"#;
    let mut ann = Client::connect(server.address, &token_with(user, json!({})));
    assert_ok(&ann.subscribe(pipe));
    let escaped: String = pipe.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let listed = server.api.list(&format!("/v1/pipes/{escaped}/presence"));
    assert_eq!(listed["members"][0]["user"], user, "{listed}");
    assert_eq!(revoke(&server, user, pipe), 1);
    ann.expect_system("pipe_revoked", pipe);
    assert_revoked(&mut ann, pipe);
    let server = server.kill().start();
    let mut ann = Client::connect(server.address, &token_with(user, json!({})));
    assert_revoked(&mut ann, pipe);
    server.api.done("restore", json!({"user": user, "pipe": pipe}));
    ann.expect_system("pipe_restored", pipe);
    assert_ok(&ann.subscribe(pipe));
}
