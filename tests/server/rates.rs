//! Rates: slowed first, then refused, then closed; each kind by itself, and summed over a person's connections.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Client, Message, PATIENCE, Request, Server, Stop, assert_code, assert_ok, frame, sign, token, until,
};

const ALL: &[(&str, &str)] = &[("**", "sub,pub")];

fn claims(claims: Value) -> Request {
    Request::upgrade().token(&sign(&claims.to_string()))
}

/// What became of some numbered requests.
#[derive(Default)]
struct Outcomes {
    ok: Vec<u64>,
    refused: Vec<u64>,
    throttled: usize,
    events: Vec<u64>,
    closed: Option<(Option<u16>, String)>,
}

/// Listens until all requests up to `last` are answered or the connection is closed.
#[track_caller]
fn outcomes(client: &mut Client, count: u64) -> Outcomes {
    let mut all = Outcomes::default();
    while ((all.ok.len() + all.refused.len()) as u64) < count {
        let heard = match client.hear() {
            Message::Json(heard) => heard,
            Message::Close(code, reason) => {
                all.closed = Some((code, reason));
                break;
            }
            Message::End => panic!("the stream ended without a close frame"),
        };
        match (heard["type"].as_str(), heard["id"].as_u64()) {
            (Some("pong"), Some(id)) => all.ok.push(id),
            (Some("reply"), Some(id)) if heard["ok"] == true => all.ok.push(id),
            (Some("reply"), Some(id)) => {
                assert_code(&heard, "RATE_LIMITED");
                assert!(heard["retry_after_ms"].as_u64().is_some_and(|wait_ms| wait_ms >= 1), "{heard}");
                all.refused.push(id);
            }
            (Some("event"), _) => all.events.push(heard["data"].as_u64().expect("a number")),
            (Some("system"), _) => {
                assert_eq!(heard["event"], "throttled", "{heard}");
                assert!(heard["retry_after_ms"].as_u64().is_some_and(|wait_ms| wait_ms >= 1), "C28: {heard}");
                all.throttled += 1;
            }
            _ => panic!("{heard}"),
        }
    }
    all
}

fn numbered(number: u64) -> Value {
    json!({"type": "publish", "pipe": "room", "event": "e", "data": number, "id": number})
}

// A8: slow first. A short excess loses nothing, is told nothing, and takes the time that the rate says.
#[test]
fn a_short_excess_is_slowed_and_loses_nothing() {
    let server = Server::start("[limits]\npublish = { per_s = 20, burst = 5 }\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut bob = Client::connect(server.address, &token("bob", ALL));
    assert_ok(&ann.subscribe("room"));
    assert_ok(&bob.subscribe("room"));
    let began = Instant::now();
    for number in 0..17 {
        ann.send(numbered(number));
    }
    // Whoever is not over a rate is not slowed.
    let asked = Instant::now();
    assert!(bob.request(json!({"type": "ping"}))["type"] == "pong");
    let waited = asked.elapsed();
    let all = outcomes(&mut ann, 17);
    let took = began.elapsed();
    assert!(all.closed.is_none() && all.throttled == 0 && all.refused.is_empty(), "a short excess was refused");
    assert_eq!(all.ok, (0..17).collect::<Vec<_>>());
    assert_eq!(all.events, all.ok, "in order");
    assert!(took >= Duration::from_millis(550), "12 over the burst at 20 per second: {took:?}");
    assert!(waited < took, "another connection waited {waited:?}");
    for number in 0..17 {
        bob.expect_event("room", number);
    }
    assert!(server.counter("slowed") > 0);
}

// A8, GD-8: then refused, with no effect, told once; what was accepted is what is heard.
#[test]
fn a_long_excess_is_refused_and_told_once() {
    let server = Server::start("[limits]\npublish = { per_s = 20, burst = 5 }\nthrottle_s = 60\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut bob = Client::connect(server.address, &token("bob", ALL));
    assert_ok(&bob.subscribe("room"));
    let began = Instant::now();
    for number in 0..50 {
        ann.send(numbered(number));
    }
    let all = outcomes(&mut ann, 50);
    let took = began.elapsed();
    assert!(all.closed.is_none());
    assert_eq!(all.throttled, 1, "once per episode");
    assert!(all.refused.len() >= 5, "{} refused", all.refused.len());
    let most = 5.0 + took.as_secs_f64() * 20.0 + 1.0;
    assert!(all.ok.len() as f64 <= most, "{} were accepted in {took:?}", all.ok.len());
    assert!(all.ok.len() >= 20, "the first second is slowed, not refused: {}", all.ok.len());
    for number in &all.ok {
        bob.expect_event("room", *number);
    }
    assert!(bob.settle().is_empty(), "a refused publish had an effect");
    assert_eq!(server.counter("denied[RATE_LIMITED]"), all.refused.len() as u64);
    assert_eq!(server.counter("throttled"), 1);

    // A calm second ends the episode; the next one is told again.
    std::thread::sleep(Duration::from_millis(1_300));
    for number in 0..45 {
        ann.send(numbered(number));
    }
    assert_eq!(outcomes(&mut ann, 45).throttled, 1);
}

// A8, C30: over its rate for throttle_s, it is closed and told for how long.
#[test]
fn an_excess_that_lasts_is_closed() {
    let server = Server::start("[limits]\npublish = { per_s = 20, burst = 5 }\nthrottle_s = 1\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut refused_at = None;
    for number in 0..2_000 {
        ann.send(numbered(number));
    }
    let (code, reason) = loop {
        match ann.hear() {
            Message::Json(heard) if heard["event"] == "throttled" => refused_at = Some(Instant::now()),
            Message::Json(_) => {}
            Message::Close(code, reason) => break (code, reason),
            Message::End => panic!("the stream ended without a close frame"),
        }
    };
    assert_eq!(code, Some(4429));
    let lasted = refused_at.expect("throttled comes first").elapsed();
    assert!(lasted >= Duration::from_millis(900), "closed after {lasted:?}");
    let wait_ms = reason.strip_prefix("retry_after_ms=").and_then(|wait_ms| wait_ms.parse::<u64>().ok());
    assert!(wait_ms.is_some_and(|wait_ms| wait_ms >= 1), "C30: {reason:?}");
    assert_eq!(server.counter("closed[4429]"), 1);
}

// C2 counts messages: a pong that we asked for is none of the client's wishes.
#[test]
fn whoever_only_answers_pings_is_over_no_rate() {
    let limits = "message = { per_s = 0.1, burst = 2 }\nthrottle_s = 1\n";
    let server = Server::start(&format!("[edge]\nping_s = 1\n[limits]\n{limits}"));
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let until = Instant::now() + Duration::from_millis(6_500);
    while Instant::now() < until {
        assert_eq!(ann.hear_for(Duration::from_millis(50)), None);
    }
    assert!(ann.pings >= 4, "{} pings", ann.pings);
    for id in 0..2 {
        ann.send(json!({"type": "ping", "id": id}));
    }
    assert_eq!(outcomes(&mut ann, 2).ok, [0, 1], "its bucket is full");
    // Nobody asked for these.
    for _ in 0..20 {
        ann.raw.send(frame(0x8A, ""));
    }
    let (code, _) = loop {
        match ann.hear() {
            Message::Json(_) => {}
            Message::Close(code, reason) => break (code, reason),
            Message::End => panic!("the stream ended without a close frame"),
        }
    };
    assert_eq!(code, Some(4429));
}

// C31
#[test]
fn without_throttle_time_the_first_refusal_closes() {
    let server = Server::start("[limits]\npublish = { per_s = 0.5, burst = 2 }\nthrottle_s = 0\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let mut bob = Client::connect(server.address, &token("bob", ALL));
    assert_ok(&bob.subscribe("room"));
    for number in 0..5 {
        ann.send(numbered(number));
    }
    let all = outcomes(&mut ann, 5);
    assert_eq!((all.ok.len(), all.refused.len(), all.throttled), (2, 0, 0));
    let (code, reason) = all.closed.expect("a close frame");
    assert_eq!(code, Some(4429));
    let wait_ms = reason.strip_prefix("retry_after_ms=").and_then(|wait_ms| wait_ms.parse::<u64>().ok());
    assert!(wait_ms.is_some_and(|wait_ms| (1_000..=2_000).contains(&wait_ms)), "{reason:?}");
    bob.expect_event("room", 0);
    bob.expect_event("room", 1);
    assert!(bob.settle().is_empty());
}

// C2, C32: each kind has its own bucket, and `message` counts everything.
#[test]
fn every_kind_has_its_own_rate() {
    let server = Server::start(
        "[limits]\nmessage = { per_s = 0.1, burst = 20 }\npublish = { per_s = 0.1, burst = 3 }\nsubscribe = { per_s = 0.1, burst = 2 }\nrefresh = { per_s = 0.1, burst = 1 }\npresence = { per_s = 0.1, burst = 1 }\naction = { per_s = 0.1, burst = 1 }\nenqueue = { per_s = 0.1, burst = 1 }\npush = { per_s = 0.1, burst = 1 }\nthrottle_s = 600\n",
    );
    for (message, burst) in [
        (json!({"type": "publish", "pipe": "room", "event": "e"}), 3),
        (json!({"type": "subscribe", "pipes": ["a", "b", "c"]}), 2),
        (json!({"type": "refresh"}), 1),
        (json!({"type": "presence", "pipe": "room"}), 1),
        (json!({"type": "action", "name": "a"}), 1),
        (json!({"type": "enqueue", "queue": "q"}), 1),
        (json!({"type": "push", "to": {"user": "u"}, "event": "e"}), 1),
    ] {
        let mut client = Client::connect(server.address, &token("ann", ALL));
        for _ in 0..burst {
            assert_ne!(client.request(message.clone())["code"], "RATE_LIMITED", "{message}");
        }
        let reply = client.request(message.clone());
        assert_code(&reply, "RATE_LIMITED");
        assert!(reply["retry_after_ms"].as_u64().is_some_and(|wait_ms| (5_000..=10_000).contains(&wait_ms)), "{reply}");
    }
    // C2: ping, unsubscribe and what cannot be read count as messages.
    let mut client = Client::connect(server.address, &token("ann", ALL));
    for number in 0..5 {
        assert_eq!(client.request(json!({"type": "ping"}))["type"], "pong");
        assert_code(&client.request(json!({"type": "unsubscribe", "pipe": "room"})), "NOT_SUBSCRIBED");
        client.send_text("nonsense");
        client.send_text(format!(r#"{{"type":"nonsense","id":"x{number}"}}"#));
        assert_code(&client.reply(&json!(format!("x{number}"))), "INVALID");
    }
    client.send(json!({"type": "ping", "id": "over"}));
    assert_code(&client.reply(&json!("over")), "RATE_LIMITED");
}

// GD-8: bytes
#[test]
fn bytes_have_a_rate() {
    let server =
        Server::start("[limits]\nmessage_bytes = 10000\nbytes = { per_s = 1000, burst = 30000 }\nthrottle_s = 600\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let data = "x".repeat(9_500);
    for _ in 0..3 {
        assert_ok(&ann.publish("room", data.as_str()));
    }
    let reply = ann.publish("room", data.as_str());
    assert_code(&reply, "RATE_LIMITED");
    // About 38,500 bytes were offered where 30,000 fit: some 8.5 seconds at 1,000 bytes per second.
    assert!(reply["retry_after_ms"].as_u64().is_some_and(|wait_ms| (3_000..=9_000).contains(&wait_ms)), "{reply}");
}

/// A publish of so many bytes.
fn sized(id: u64, bytes: usize) -> String {
    let text = json!({"type": "publish", "id": id, "pipe": "room", "event": "e", "data": ""}).to_string();
    text.replace(r#""data":"""#, &format!(r#""data":"{}""#, "x".repeat(bytes - text.len())))
}

/// Sends a message in two pieces that arrive apart.
#[track_caller]
fn send_in_two(client: &mut Client, text: &str) {
    let whole = frame(0x81, text);
    let (first, second) = whole.split_at(whole.len() - 5);
    client.raw.send(first);
    std::thread::sleep(Duration::from_millis(50));
    client.raw.send(second);
}

// A8: the calm that ends an episode is that of the whole message, and is not the pause.
#[test]
fn an_excess_of_bytes_that_lasts_is_closed() {
    for (limits, bytes) in [
        ("message_bytes = 20000\nbytes = { per_s = 1000, burst = 20000 }\n", 15_000),
        ("bytes = { per_s = 50000, burst = 65536 }\n", 60_000),
    ] {
        let server = Server::start(&format!(
            "[limits]\n{limits}message = {{ per_s = 0 }}\npublish = {{ per_s = 0 }}\nthrottle_s = 4\n"
        ));
        let mut ann = Client::connect(server.address, &token("ann", ALL));
        let began = Instant::now();
        for id in 0..60 {
            // Closed at last, it may be reset in the middle of this.
            if !ann.raw.try_send(frame(0x81, sized(id, bytes))) {
                break;
            }
        }
        let all = outcomes(&mut ann, 60);
        let (code, _) = all.closed.unwrap_or_else(|| panic!("{limits} was never closed"));
        assert_eq!((code, all.throttled), (Some(4429), 1), "{limits}");
        assert!(began.elapsed() >= Duration::from_secs(4), "{limits} closed after {:?}", began.elapsed());
    }
}

// A8: refusals by a faster rate do not end the episode of a slower one.
#[test]
fn refusals_by_two_rates_are_one_episode() {
    let server = Server::start(
        "[limits]\npublish = { per_s = 0.1, burst = 1 }\nmessage = { per_s = 4, burst = 4 }\nthrottle_s = 6\n",
    );
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let began = Instant::now();
    let (mut throttled, mut closed) = (0, None);
    'rounds: while began.elapsed() < PATIENCE {
        ann.send(numbered(1));
        for _ in 0..10 {
            ann.send(json!({"type": "ping"}));
        }
        let until = Instant::now() + Duration::from_millis(2_200);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match ann.hear_for(left) {
                Some(Message::Json(heard)) => throttled += usize::from(heard["event"] == "throttled"),
                Some(Message::Close(code, _)) => {
                    closed = code;
                    break 'rounds;
                }
                Some(Message::End) => panic!("the stream ended without a close frame"),
                None => {}
            }
        }
    }
    assert_eq!((closed, throttled), (Some(4429), 1));
}

// A8, C35: what comes in two pieces is refused like what comes in one, and nobody waits for ever.
#[test]
fn a_message_in_pieces_over_the_rate_is_refused() {
    let server =
        Server::start("[limits]\nmessage_bytes = 200000\nbytes = { per_s = 1000, burst = 200000 }\nthrottle_s = 600\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    ann.send_text(sized(1, 150_000));
    assert_ok(&ann.reply(&json!(1)));
    for id in 2..4 {
        let began = Instant::now();
        send_in_two(&mut ann, &sized(id, 150_000));
        let reply = ann.reply(&json!(id));
        // However many receives it takes, it pauses once for each message.
        assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
        assert_code(&reply, "RATE_LIMITED");
        // What was refused has taken nothing: about 100,000 bytes are missing.
        assert!(reply["retry_after_ms"].as_u64().is_some_and(|wait_ms| wait_ms <= 100_500), "{reply}");
    }
    let told = ann.settle().into_iter().filter(|heard| heard["event"] == "throttled").count();
    assert_eq!((told, server.counter("throttled")), (1, 1));
    assert_eq!(server.counter("denied[RATE_LIMITED]"), 2, "once for each message");
    // Less fits at once.
    send_in_two(&mut ann, &sized(9, 1_000));
    assert_ok(&ann.reply(&json!(9)));
}

// A8: fragments without end.
#[test]
fn a_message_that_goes_on_over_the_rate_is_closed() {
    let server =
        Server::start("[limits]\nmessage_bytes = 20000\nbytes = { per_s = 100, burst = 20000 }\nthrottle_s = 2\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    ann.raw.send(frame(0x01, r#"{"type":"#));
    let empty = frame(0x00, "").repeat(2_000);
    let began = Instant::now();
    while ann.raw.try_send(&empty) {
        std::thread::sleep(Duration::from_millis(20));
        assert!(began.elapsed() < PATIENCE, "it goes on and on");
    }
    server.until_counter("closed[4429]", 1);
}

// A8: a piece counts for one message and for no other.
#[test]
fn what_a_message_in_pieces_took_is_no_credit() {
    let server =
        Server::start("[limits]\nmessage_bytes = 20000\nbytes = { per_s = 100, burst = 20000 }\nthrottle_s = 600\n");
    for kind in [r#"{"type":"ping","x":""#, r#"{"type":"unsubscribe","pipe":"q","x":""#, r#"{"type":"nonsense","x":""#]
    {
        let mut ann = Client::connect(server.address, &token("ann", ALL));
        let mut accepted = 0;
        let began = Instant::now();
        for id in 0..40 {
            send_in_two(&mut ann, &format!(r#"{kind}{}","id":"{id}"}}"#, "x".repeat(2_000 - kind.len())));
            match ann.reply(&json!(id.to_string())) {
                heard if heard["code"] == "RATE_LIMITED" => break,
                _ => accepted += 2_000,
            }
            ann.send_text(sized(id, 1_900));
            match ann.reply(&json!(id)) {
                heard if heard["code"] == "RATE_LIMITED" => break,
                _ => accepted += 1_900,
            }
        }
        let most = 20_000 + 100 * (began.elapsed().as_secs() as usize + 1);
        assert!(accepted <= most, "{kind}: {accepted} of {most}");
    }
}

// GD-8: what comes in pieces counts for the sum as well.
#[test]
fn a_sum_of_bytes_counts_messages_in_pieces() {
    let server = Server::start(
        "[limits]\nthrottle_s = 600\nmessage = { per_s = 0 }\n[limits.per_user]\nbytes = { per_s = 1000, burst = 65536 }\n",
    );
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    let began = Instant::now();
    let mut accepted = 0;
    for id in 0..20 {
        send_in_two(&mut ann, &sized(id, 20_000));
        let reply = ann.reply(&json!(id));
        if reply["ok"] != true {
            assert_code(&reply, "RATE_LIMITED");
            break;
        }
        accepted += 20_000;
    }
    let most = 65_536 + 1_000 * (began.elapsed().as_secs() as usize + 1);
    assert!(accepted >= 40_000 && accepted <= most, "{accepted} of {most}");
}

// PROTOCOL §6: per_s = 0 is off.
#[test]
fn a_rate_of_zero_is_off() {
    let server = Server::start("[limits]\npublish = { per_s = 0 }\nmessage = { per_s = 0 }\n");
    let mut ann = Client::connect(server.address, &token("ann", ALL));
    for number in 0..1_000 {
        ann.send(numbered(number));
    }
    let all = outcomes(&mut ann, 1_000);
    assert_eq!((all.ok.len(), all.refused.len(), all.throttled), (1_000, 0, 0));
    assert_eq!(server.counter("slowed"), 0);
}

// GD-8, D14: summed over the connections of one person, on whichever worker, and of nobody else.
#[test]
fn a_users_rate_is_summed_over_its_connections() {
    let server = Server::start(
        "[edge]\nworkers = 2\n[limits]\nthrottle_s = 600\n[limits.per_user]\npublish = { per_s = 1, burst = 20 }\n",
    );
    let connect = |claimed: Value| Client::with(server.address, &claims(claimed));
    let grants = json!({"**": {"publish": true, "subscribe": true}});
    let mut own: Vec<Client> = Vec::new();
    while own.len() < 2 || own.iter().all(|client| client.worker() == own[0].worker()) {
        own.push(connect(json!({"sub": "ann", "tenant": "acme", "pipes": grants})));
        assert!(own.len() < 40, "all on one worker");
    }
    let mut elsewhere = connect(json!({"sub": "ann", "tenant": "globex", "pipes": grants}));
    let mut other = connect(json!({"sub": "bob", "tenant": "acme", "pipes": grants}));
    let began = Instant::now();
    let mut accepted = 0;
    for turn in 0.. {
        let index = if turn % 2 == 0 { 0 } else { own.len() - 1 };
        let reply = own[index].publish("room", turn);
        if reply["ok"] == true {
            accepted += 1;
        } else {
            assert_code(&reply, "RATE_LIMITED");
            break;
        }
    }
    let most = 20.0 + began.elapsed().as_secs_f64() + 1.0;
    assert!(accepted >= 20 && f64::from(accepted) <= most, "{accepted} of at most {most}");
    for client in [&mut elsewhere, &mut other] {
        for number in 0..20 {
            assert_ok(&client.publish("room", number));
        }
    }
}

// A8: for a summed rate only a connection that itself takes more than its share is closed.
#[test]
fn a_quiet_connection_of_a_loud_user_is_not_closed() {
    let server = Server::start(
        "[limits]\nmessage = { per_s = 0 }\npublish = { per_s = 0 }\nthrottle_s = 1\n[limits.per_user]\npublish = { per_s = 10, burst = 10 }\n",
    );
    let address = server.address;
    let mut quiet = Client::connect(address, &token("ann", ALL));
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = Stop(&stopped);
        let loud = scope.spawn(|| {
            let mut closed = 0;
            while !stopped.load(SeqCst) {
                let mut loud = Client::connect(address, &token("ann", ALL));
                for number in 0..200 {
                    loud.raw.try_send(frame(0x81, numbered(number).to_string()));
                }
                assert_eq!(loud.closed().0, Some(4429), "a loud one is closed");
                closed += 1;
            }
            closed
        });
        let (mut refused, began) = (0, Instant::now());
        while refused < 4 || began.elapsed() < Duration::from_secs(3) {
            let reply = quiet.publish("room", 1);
            if reply["ok"] != true {
                assert_code(&reply, "RATE_LIMITED");
                refused += 1;
            }
            std::thread::sleep(Duration::from_millis(350));
            assert!(began.elapsed() < PATIENCE, "the quiet one was refused {refused} times only");
        }
        drop(stop);
        assert!(loud.join().expect("no failure") >= 2);
    });
    until("the quiet one can publish again", || {
        std::thread::sleep(Duration::from_millis(200));
        quiet.publish("room", 2)["ok"] == true
    });
}
