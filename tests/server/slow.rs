//! Consumers that do not read: closed or told what they missed, to the last event, while nobody else waits for them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{Client, Message, NO_RATES, Raw, Request, Server, assert_ok, token, until};

const ALL: &[(&str, &str)] = &[("**", "sub,pub")];

fn server(limits: &str) -> Server {
    Server::start(&format!("[edge]\nworkers = 1\n[limits]\n{limits}\n{NO_RATES}"))
}

/// A client for whom the kernel keeps little, so that its slowness is soon felt.
#[track_caller]
fn connect_small(to: SocketAddr, user: &str) -> Client {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("an option");
    socket.connect(&to.into()).expect("connected");
    let mut raw = Raw::over(socket.into());
    raw.send(Request::upgrade().token(&token(user, ALL)).text());
    Client::greet(raw).expect("let in")
}

#[track_caller]
fn connect(server: &Server, user: &str) -> Client {
    Client::connect(server.address, &token(user, ALL))
}

/// Publishes `count` numbered events, turn by turn into each of the pipes, `bytes` of padding in each.
#[track_caller]
fn publish_numbered(publisher: &mut Client, pipes: &[&str], count: usize, bytes: usize) {
    let padding = "x".repeat(bytes);
    for number in 0..count {
        publisher.tell(pipes[number % pipes.len()], json!([number, padding]));
    }
    assert!(publisher.settle().is_empty());
}

/// Takes messages until everything published into each pipe was either heard or told as left out. At each place where
/// it is told, exactly as many are missing before the next event of that pipe (C33).
#[track_caller]
fn account(client: &mut Client, pipes: &[&str], count: usize) -> (usize, usize) {
    let mut next: HashMap<String, usize> = (0..pipes.len()).map(|turn| (pipes[turn].to_owned(), turn)).collect();
    let (mut heard_count, mut dropped_count) = (0, 0);
    while heard_count + dropped_count < count {
        let heard = client.receive();
        let pipe = heard["pipe"].as_str().unwrap_or_default();
        let Some(next) = next.get_mut(pipe) else { panic!("{heard}") };
        match heard["type"].as_str() {
            Some("event") => {
                assert_eq!(heard["data"][0].as_u64(), Some(*next as u64), "a gap that was not told, or told too late");
                *next += pipes.len();
                heard_count += 1;
            }
            Some("system") => {
                assert_eq!(heard["event"], "lagged", "{heard}");
                let dropped = heard["dropped"].as_u64().filter(|dropped| *dropped > 0).expect("a number") as usize;
                *next += pipes.len() * dropped;
                dropped_count += dropped;
            }
            _ => panic!("{heard}"),
        }
    }
    (heard_count, dropped_count)
}

// GD-8, C34: 4413; and nobody else on the same worker and pipe notices.
#[test]
fn a_slow_consumer_is_closed_and_delays_nobody() {
    let server = server("queue_bytes = 100000");
    let mut slow = connect_small(server.address, "slow");
    let mut quick = connect(&server, "quick");
    let mut publisher = connect(&server, "ann");
    assert_ok(&slow.subscribe("room"));
    assert_ok(&quick.subscribe("room"));
    let padding = "x".repeat(1_000);
    let mut slowest = Duration::ZERO;
    let mut count = 0;
    while server.counter("closed[4413]") == 0 {
        for _ in 0..50 {
            let began = Instant::now();
            publisher.tell("room", json!([count, padding]));
            let heard = quick.receive();
            assert_eq!(heard["data"][0], count, "the quick one gets everything in order");
            slowest = slowest.max(began.elapsed());
            count += 1;
        }
        assert!(count < 20_000, "it is not closed");
    }
    assert!(slowest < Duration::from_secs(5), "one event took {slowest:?}");
    // It has not read; what the kernel holds for it comes first, then the close frame or the reset (C34).
    let mut next = 0;
    loop {
        match slow.hear() {
            Message::Json(heard) => {
                assert_eq!(heard["data"][0], next, "no gap before the end");
                next += 1;
            }
            Message::Close(code, _) => {
                assert_eq!(code, Some(4413));
                break;
            }
            Message::End => break,
        }
    }
    assert!(next < count);
    assert_ok(&quick.publish("room", "after"));
    quick.expect_event("room", "after");
    assert!(quick.settle().is_empty());
}

// C34: who is only a little late still gets the close frame.
#[test]
fn the_close_frame_reaches_a_consumer_that_starts_to_read() {
    let server = server("queue_bytes = 60000");
    let mut slow = connect_small(server.address, "slow");
    assert_ok(&slow.subscribe("room"));
    let reader = std::thread::spawn(move || {
        // Reads, but not as fast as others publish.
        loop {
            match slow.hear() {
                Message::Json(_) => std::thread::sleep(Duration::from_millis(2)),
                other => return other,
            }
        }
    });
    let mut publisher = connect(&server, "ann");
    until("it is closed as too slow", || {
        publish_numbered(&mut publisher, &["room"], 100, 3_000);
        server.counter("closed[4413]") == 1
    });
    match reader.join().expect("it reads") {
        Message::Close(code, reason) => assert_eq!((code, reason.is_empty()), (Some(4413), false)),
        other => panic!("{other:?} instead of the close frame"),
    }
}

// GD-8, C33: drop_oldest leaves out events, tells how many for each pipe at the right place, and never a reply.
#[test]
fn what_a_slow_consumer_misses_is_told_exactly() {
    const COUNT: usize = 6_000;
    // Published at a time: less than the queue holds, so that who reads loses nothing.
    const BATCH: usize = 20;
    let server = server("queue_bytes = 50000\nwhen_slow = \"drop_oldest\"");
    let pipes = ["one", "two", "three"];
    let mut slow = connect_small(server.address, "slow");
    let mut quick = connect(&server, "quick");
    for pipe in pipes {
        assert_ok(&slow.subscribe(pipe));
        assert_ok(&quick.subscribe(pipe));
    }
    let mut publisher = connect(&server, "ann");
    let padding = "x".repeat(1_000);
    for first in (0..COUNT).step_by(BATCH) {
        for number in first..first + BATCH {
            publisher.tell(pipes[number % 3], json!([number, padding]));
        }
        for number in first..first + BATCH {
            assert_eq!(quick.receive()["data"][0], number, "the quick one misses nothing");
        }
        if first % 1_000 == 0 {
            slow.send(json!({"type": "ping", "id": first}));
        }
    }
    assert_eq!(server.counter("closed[4413]"), 0);
    let mut pongs = Vec::new();
    let (heard, dropped) = account_with_pongs(&mut slow, &pipes, COUNT, &mut pongs);
    assert!(dropped > 0 && heard > 0, "{heard} heard, {dropped} dropped");
    assert_eq!(server.counter("events_dropped"), dropped as u64);
    assert_eq!(pongs, [0, 1_000, 2_000, 3_000, 4_000, 5_000], "replies are never left out");
    // It has caught up: the next event comes as if nothing had been.
    assert_ok(&publisher.publish("two", "after"));
    slow.expect_event("two", "after");
    quick.expect_event("two", "after");
    assert!(slow.settle().is_empty() && quick.settle().is_empty());
}

/// As [`account`], with pongs between.
#[track_caller]
fn account_with_pongs(client: &mut Client, pipes: &[&str], count: usize, pongs: &mut Vec<u64>) -> (usize, usize) {
    // Pongs are put aside first, without losing the order of everything else.
    let (mut heard, mut sum) = (Vec::new(), 0);
    while sum < count || pongs.len() < 6 {
        let message = client.receive();
        match message["type"].as_str() {
            Some("pong") => pongs.push(message["id"].as_u64().expect("a number")),
            Some("event") => sum += 1,
            _ => sum += message["dropped"].as_u64().expect("a number") as usize,
        }
        if message["type"] != "pong" {
            heard.push(message);
        }
    }
    let mut next: HashMap<&str, usize> = pipes.iter().enumerate().map(|(turn, pipe)| (*pipe, turn)).collect();
    let (mut events, mut dropped) = (0, 0);
    for message in &heard {
        let next = next.get_mut(message["pipe"].as_str().expect("a pipe")).expect("a known pipe");
        if message["type"] == "event" {
            assert_eq!(message["data"][0].as_u64(), Some(*next as u64), "a gap that was not told, or told too late");
            *next += pipes.len();
            events += 1;
        } else {
            assert_eq!(message["event"], "lagged", "{message}");
            let count = message["dropped"].as_u64().expect("a number") as usize;
            *next += pipes.len() * count;
            dropped += count;
        }
    }
    (events, dropped)
}

// C33: told also where nothing is left to send after it: an event that itself finds no room.
#[test]
fn a_loss_at_the_end_is_told_without_waiting_for_another_event() {
    const COUNT: usize = 400;
    let server = server("queue_bytes = 60000\nwhen_slow = \"drop_oldest\"");
    let mut slow = connect_small(server.address, "slow");
    assert_ok(&slow.subscribe("room"));
    let mut publisher = connect(&server, "ann");
    // Two of these do not fit: while one is being written the next is left out, and the queue is empty behind it.
    publish_numbered(&mut publisher, &["room"], COUNT, 40_000);
    assert!(server.counter("events_dropped") > 0, "nothing was left out");
    let (_, dropped) = account(&mut slow, &["room"], COUNT);
    assert_eq!(server.counter("events_dropped"), dropped as u64);
    assert!(slow.settle().is_empty());
}

// C33, RFC 6455 §5.5.1: a loss is told before the close frame, after which nothing comes.
#[test]
fn a_loss_is_told_before_the_close_frame() {
    const COUNT: usize = 400;
    let server = server("queue_bytes = 60000\nwhen_slow = \"drop_oldest\"");
    let mut slow = connect_small(server.address, "slow");
    assert_ok(&slow.subscribe("room"));
    let mut publisher = connect(&server, "ann");
    publish_numbered(&mut publisher, &["room"], COUNT, 40_000);
    slow.send_close(1000, "");
    until("it has begun to close", || server.counter("closed[1000]") == 1);
    let (_, dropped) = account(&mut slow, &["room"], COUNT);
    assert!(dropped > 0, "nothing was left out");
    assert_eq!(slow.closed().0, Some(1000));
    slow.expect_end();
}

// C13, C33: what a loss is told between: after the reply to subscribe, before the reply to unsubscribe.
#[test]
fn a_loss_is_told_within_its_subscription() {
    const COUNT: usize = 50;
    let server = server("queue_bytes = 60000\nwhen_slow = \"drop_oldest\"");
    let mut slow = connect_small(server.address, "slow");
    let mut publisher = connect(&server, "ann");
    assert_ok(&slow.subscribe("stuffing"));
    publish_numbered(&mut publisher, &["stuffing"], 400, 40_000);
    slow.send(json!({"type": "subscribe", "pipe": "room", "id": "begin"}));
    until("it is subscribed", || server.counter("subscriptions") == 2);
    publish_numbered(&mut publisher, &["room"], COUNT, 40_000);
    slow.send(json!({"type": "unsubscribe", "pipe": "room", "id": "end"}));
    until("it is unsubscribed", || server.counter("subscriptions") == 1);
    let mut lost = 0;
    let mut order = Vec::new();
    while order.last() != Some(&"end") {
        let heard = slow.receive();
        match (heard["pipe"].as_str(), heard["id"].as_str()) {
            (_, Some("begin")) => order.push("begin"),
            (_, Some("end")) => order.push("end"),
            (Some("room"), _) => {
                assert_eq!(heard["event"], "lagged", "{heard}");
                lost += heard["dropped"].as_u64().expect("a number");
                order.push("lagged");
            }
            _ => {}
        }
    }
    assert_eq!((order, lost), (vec!["begin", "lagged", "end"], COUNT as u64));
    assert!(slow.settle().is_empty());
}

// C33: an event that is larger than the whole queue is left out and told, the connection stays.
#[test]
fn an_event_larger_than_the_queue_is_left_out_and_told() {
    let server = server("queue_bytes = 5000\nwhen_slow = \"drop_oldest\"");
    let mut small = connect(&server, "small");
    assert_ok(&small.subscribe("room"));
    let mut publisher = connect(&server, "ann");
    publish_numbered(&mut publisher, &["room"], 3, 6_000);
    let (heard, dropped) = account(&mut small, &["room"], 3);
    assert_eq!((heard, dropped), (0, 3));
    assert_ok(&publisher.publish("room", 1));
    small.expect_event("room", 1);
}

// C33, §2: a slow consumer that gives the pipe up or takes it again is told no wrong numbers.
#[test]
fn unsubscribing_while_slow_ends_it_cleanly() {
    let server = server("queue_bytes = 50000\nwhen_slow = \"drop_oldest\"");
    let mut slow = connect_small(server.address, "slow");
    assert_ok(&slow.subscribe("room"));
    let mut publisher = connect(&server, "ann");
    publish_numbered(&mut publisher, &["room"], 1_500, 1_000);
    slow.send(json!({"type": "unsubscribe", "pipe": "room", "id": "end"}));
    until("it is unsubscribed", || server.counter("subscriptions") == 0);
    publish_numbered(&mut publisher, &["room"], 100, 1_000);
    let (mut next, mut ended) = (0, false);
    while !ended {
        let heard = slow.receive();
        match heard["type"].as_str() {
            Some("event") => {
                assert_eq!(heard["data"][0], next);
                next += 1;
            }
            Some("reply") => ended = true,
            _ => next += heard["dropped"].as_u64().expect("a number"),
        }
    }
    assert_eq!(next, 1_500);
    assert!(slow.settle().is_empty(), "an event or a loss of a pipe that it had left");
}

// C33, A10: replies are never dropped to make room; a client that asks and never reads is closed instead.
#[test]
fn replies_without_end_close_a_client_that_does_not_read() {
    let server = server("queue_bytes = 20000\nwhen_slow = \"drop_oldest\"");
    let mut slow = connect_small(server.address, "slow");
    let mut quick = connect(&server, "quick");
    let id = "x".repeat(60);
    let mut asked = 0u32;
    while server.counter("closed[4413]") == 0 {
        for _ in 0..500 {
            let ping = json!({"type": "ping", "id": id}).to_string();
            if !slow.raw.try_send(crate::support::frame(0x81, ping)) {
                break;
            }
            asked += 1;
        }
        assert!(asked < 400_000, "it is not closed");
        assert!(quick.settle().is_empty());
    }
    assert_eq!(server.counter("events_dropped"), 0);
}

// GD-8: one that never reads, among many, on the same pipe: the others have everything before it has read a byte.
#[test]
fn many_slow_ones_delay_no_quick_one() {
    const COUNT: usize = 500;
    let server = server("queue_bytes = 50000\nwhen_slow = \"drop_oldest\"");
    let mut slow: Vec<Client> = (0..20).map(|_| connect_small(server.address, "slow")).collect();
    for client in &mut slow {
        assert_ok(&client.subscribe("room"));
    }
    let mut quick: Vec<Client> = (0..3).map(|_| connect(&server, "quick")).collect();
    for client in &mut quick {
        assert_ok(&client.subscribe("room"));
    }
    let mut publisher = connect(&server, "ann");
    let padding: Value = json!("x".repeat(1_000));
    for number in 0..COUNT {
        publisher.tell("room", json!([number, padding]));
        for client in &mut quick {
            assert_eq!(client.receive()["data"][0], number);
        }
    }
    assert!(server.counter("events_dropped") > 0, "the slow ones were not slow");
    for client in &mut slow {
        let (heard, dropped) = account(client, &["room"], COUNT);
        assert_eq!(heard + dropped, COUNT);
    }
}
