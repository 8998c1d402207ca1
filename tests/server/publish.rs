//! Who gets what, in which order and in which bytes; and messages that cannot be read, which change nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use serde_json::{Value, json};

use crate::support::{
    Client, NO_RATES, Request, Server, Stop, assert_code, assert_forbidden, assert_ok, opcode, sign, token, unix_ms,
};

const WORKERS: &str = "[edge]\nworkers = 2\n";
const ALL: &[(&str, &str)] = &[("**", "sub,pub")];

#[track_caller]
fn connect(server: &Server, user: &str) -> Client {
    Client::connect(server.address, &token(user, ALL))
}

/// The next text message, as it came.
#[track_caller]
fn receive_text(client: &mut Client) -> String {
    loop {
        let frame = client.frame().expect("the stream goes on");
        match frame.opcode {
            opcode::TEXT => return String::from_utf8(frame.payload).expect("UTF-8"),
            opcode::PING => {}
            other => panic!("opcode {other}"),
        }
    }
}

// §3: the bytes of `data` are delivered as they came.
#[test]
fn data_is_delivered_verbatim() {
    let server = Server::start(&format!("{WORKERS}[limits]\n{NO_RATES}"));
    let mut listeners: Vec<Client> = (0..6).map(|number| connect(&server, &format!("user-{number}"))).collect();
    for listener in &mut listeners {
        assert_ok(&listener.subscribe("room"));
    }
    let mut ann = connect(&server, "ann");
    let mut values: Vec<String> = [
        "12345678901234567890123",
        "1e400",
        "-0",
        "-0.0",
        "1.000",
        "0.1e-7",
        "1E+2",
        "3.141592653589793238462643383279502884197",
        r#"{ "b" :1 , "a":[ 1,2 ,3 ],"b":2}"#,
        "\t[ \r\n]\n",
        r#""\u0041\/\u00e9\ud83d\ude00 \" \\ \b\f\n\r\t""#,
        "\"é 😀 \u{7f} \u{2028}\"",
        r#""},\"sender\":\"root\",{""#,
        r#"{"type":"publish","pipe":"x","id":1,"id":2}"#,
        "true",
        "null",
        r#""""#,
    ]
    .map(str::to_owned)
    .to_vec();
    // Lengths on both sides of where the frame's length grows by two and by eight bytes.
    values.extend((20..60).chain(65_380..65_420).map(|length| format!("\"{}\"", "x".repeat(length))));
    for (number, value) in values.iter().enumerate() {
        let message = format!(r#"{{"pipe":"room","data":{value},"type":"publish","event":"e{number}"}}"#);
        if message.len() > 65_536 {
            continue;
        }
        ann.send_text(&message);
        for listener in &mut listeners {
            let text = receive_text(listener);
            let data = value.trim_matches(['\t', '\r', '\n', ' ']);
            let start =
                format!(r#"{{"type":"event","pipe":"room","event":"e{number}","data":{data},"sender":"ann","ts":"#);
            let rest = text.strip_prefix(&start).unwrap_or_else(|| panic!("{value} came as {text}"));
            assert!(rest.strip_suffix('}').is_some_and(|ts| ts.parse::<u64>().is_ok()), "{rest}");
        }
    }
}

// §3, C14
#[test]
fn an_event_says_who_sent_it_and_when() {
    let server = Server::start("");
    let mut bob = connect(&server, "bob");
    assert_ok(&bob.subscribe("room"));
    let odd = "änn \"the 1st\"".replace(' ', "_");
    let mut ann = connect(&server, &odd);
    let before = unix_ms();
    // What the client says about itself counts for nothing.
    ann.send(
        json!({"type": "publish", "pipe": "room", "event": "e", "sender": "root", "ts": 1, "user": "root", "seq": 7}),
    );
    let heard = bob.receive();
    assert_eq!(heard["sender"], json!(odd), "the verified user id");
    assert_eq!(heard["data"], Value::Null, "C14: absent data is null");
    let ts = heard["ts"].as_u64().expect("a time");
    assert!((before - 1_000..=unix_ms() + 1_000).contains(&ts), "{ts} is not about now");
    let keys: Vec<&String> = heard.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["data", "event", "pipe", "sender", "ts", "type"], "{heard}");
}

// C12: publishing needs no subscription, and nobody has to be there.
#[test]
fn publishing_needs_no_subscription_and_no_audience() {
    let server = Server::start(WORKERS);
    let mut ann = connect(&server, "ann");
    assert_ok(&ann.publish("nobody-here", 1));
    assert_ok(&ann.publish("nobody-here", 2));
    let mut bob = connect(&server, "bob");
    assert_ok(&bob.subscribe("room"));
    assert_ok(&ann.publish("room", 3));
    bob.expect_event("room", 3);
    assert!(ann.settle().is_empty(), "the publisher is not subscribed");
    // Published into the empty pipe before: not kept for later.
    assert_ok(&bob.subscribe("nobody-here"));
    assert!(bob.settle().is_empty());
}

// C15
#[test]
fn echo_false_leaves_out_the_senders_own_connection_only() {
    let server = Server::start(&format!("[edge]\nworkers = 4\n[limits]\n{NO_RATES}"));
    let mut own: Vec<Client> = (0..8).map(|_| connect(&server, "ann")).collect();
    for client in &mut own {
        assert_ok(&client.subscribe("room"));
    }
    for sender in 0..own.len() {
        let message = json!({"type": "publish", "pipe": "room", "event": "e", "data": sender, "echo": false});
        assert_ok(&own[sender].request(message));
        assert_ok(&own[sender].publish("room", "echoed"));
        for (number, client) in own.iter_mut().enumerate() {
            if number != sender {
                client.expect_event("room", sender);
            }
            client.expect_event("room", "echoed");
        }
    }
    assert_code(&own[0].request(json!({"type": "publish", "pipe": "room", "event": "e", "echo": 0})), "INVALID");
}

// C1, C3, C4, C5, C6, C14: no effect, the connection stays, and INVALID where there is an id.
#[test]
fn what_cannot_be_read_changes_nothing() {
    let server = Server::start(&format!("[limits]\n{NO_RATES}"));
    let mut bob = connect(&server, "bob");
    assert_ok(&bob.subscribe("a"));
    assert_ok(&bob.subscribe("b"));
    let mut ann = connect(&server, "ann");
    let long_pipe = format!(r#"{{"type":"publish","pipe":"{}","event":"e","id":1}}"#, "a".repeat(201));
    let long_event = format!(r#"{{"type":"publish","pipe":"a","event":"{}","id":1}}"#, "a".repeat(101));
    let deep =
        format!(r#"{{"type":"publish","pipe":"a","event":"e","data":{}{},"id":1}}"#, "[".repeat(128), "]".repeat(128));
    let many: Vec<String> = (0..257).map(|number| format!("p{number}")).collect();
    let many = json!({"type": "subscribe", "id": 1, "pipes": many}).to_string();
    let invalid: Vec<&str> = vec![
        r#"{"type":"publish","pipe":"a","pipe":"b","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"a","p\u0069pe":"a","event":"e","id":1}"#,
        r#"{"type":"ping","type":"publish","pipe":"a","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e","data":1,"data":2,"id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e","other":1,"other":1,"id":1}"#,
        r#"{"type":"publish","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"a","id":1}"#,
        r#"{"type":"publish","pipe":["a"],"event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"a*","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"a b","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"{a}","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"ä","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"a\u0000","event":"e","id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"","id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e e","id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"é","id":1}"#,
        r#"{"type":"publish","pipe":"a","event":7,"id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e","echo":"false","id":1}"#,
        &long_pipe,
        &long_event,
        &deep,
        &many,
        r#"{"type":"subscribe","id":1}"#,
        r#"{"type":"subscribe","pipe":"c","pipes":["d"],"id":1}"#,
        r#"{"type":"subscribe","pipes":[],"id":1}"#,
        r#"{"type":"subscribe","pipes":"c","id":1}"#,
        r#"{"type":"subscribe","pipes":["c",1],"id":1}"#,
        r#"{"type":"subscribe","pipes":["c","d*"],"id":1}"#,
        r#"{"type":"subscribe","pipe":"c","events":"e","id":1}"#,
        r#"{"type":"subscribe","pipe":"c","events":["e "],"id":1}"#,
        r#"{"type":"subscribe","pipe":"c","presence":1,"id":1}"#,
        r#"{"type":"unsubscribe","id":1}"#,
        r#"{"type":"enqueue","id":1}"#,
        r#"{"type":"action","id":1}"#,
        r#"{"type":"SUBSCRIBE","pipe":"c","id":1}"#,
        r#"{"type":"nonsense","id":1}"#,
        r#"{"type":1,"id":1}"#,
        r#"{"id":1}"#,
    ];
    for text in &invalid {
        ann.send_text(text);
        assert_code(&ann.reply(&json!(1)), "INVALID");
        // The same without an id: no reply.
        ann.send_text(text.replace(r#","id":1"#, "").replace(r#""id":1,"#, "").replace(r#""id":1"#, ""));
    }
    assert!(ann.settle().is_empty(), "a malformed message was answered without an id");
    let unreadable = [
        "",
        " ",
        "{",
        "nonsense",
        "[]",
        "7",
        "null",
        r#"{"type":"publish","pipe":"a","event":"e","data":01,"id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e","data":.5,"id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e","data":NaN,"id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e","data":[1,],"id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e","data":"\x","id":1}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":1,}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":1} x"#,
        r#"{'type':'publish','pipe':'a','event':'e','id':1}"#,
        "{\"type\":\"publish\",\"pipe\":\"a\",\"event\":\"e\",\"data\":\"\n\",\"id\":1}",
        // C1: ids that are none.
        r#"{"type":"publish","pipe":"a","event":"e","id":1.0}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":1e3}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":true}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":{}}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":[1]}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":9007199254740992}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":-9007199254740992}"#,
        r#"{"type":"publish","pipe":"a","event":"e","id":"12345678901234567890123456789012345678901234567890123456789012345"}"#,
    ];
    for text in unreadable {
        ann.send_text(text);
    }
    assert!(ann.settle().is_empty(), "C1, C3: no reply");
    assert_eq!(server.counter("malformed"), (2 * invalid.len() + unreadable.len()) as u64, "all are counted");
    assert!(bob.settle().is_empty(), "a malformed message had an effect");
    for pipe in ["c", "d", "p0"] {
        assert_code(&ann.request(json!({"type": "unsubscribe", "pipe": pipe})), "NOT_SUBSCRIBED");
    }
    assert_ok(&ann.publish("a", "still here"));
    bob.expect_event("a", "still here");
}

// C5, C14: what is just within its bound is taken.
#[test]
fn the_largest_of_everything_is_taken() {
    let server = Server::start("");
    let mut ann = connect(&server, "ann");
    let (pipe, event) = ("p".repeat(200), "~".repeat(100));
    assert_ok(&ann.subscribe(&pipe));
    let data = format!("{}{}", "[".repeat(127), "]".repeat(127));
    ann.send_text(format!(r#"{{"type":"publish","pipe":"{pipe}","event":"{event}","data":{data}}}"#));
    assert!(receive_text(&mut ann).contains(&format!(r#""event":"{event}","data":{data},"#)));
    let pipes: Vec<String> = (0..255).map(|number| format!("p{number}")).collect();
    let reply = ann.request(json!({"type": "subscribe", "pipes": pipes}));
    assert_eq!(reply["results"].as_object().map(|results| results.len()), Some(255));
    let odd = "!\"#$%&'()+,-./:;<=>?@[]^_`|~";
    assert_code(&ann.subscribe(odd), "TOO_MANY");
    assert_ok(&ann.request(json!({"type": "unsubscribe", "pipe": "p0"})));
    assert_ok(&ann.subscribe(odd));
    assert_ok(&ann.publish(odd, 1));
    ann.expect_event(odd, 1);
}

// C1, A10
#[test]
fn ids_come_back_as_they_were() {
    let server = Server::start("");
    let mut ann = connect(&server, "ann");
    let long = format!("\"{}\"", "x".repeat(64));
    let ids = ["0", "-1", "9007199254740991", "-9007199254740991", "\"\"", "\"ä\"", r#""a\"b\u0000""#, &long];
    for id in ids {
        for kind in [r#""type":"ping""#, r#""type":"publish","pipe":"a","event":"e""#, r#""type":"nonsense""#] {
            ann.send_text(format!(r#"{{"id":{id},{kind}}}"#));
            let reply: Value = serde_json::from_str(&receive_text(&mut ann)).expect("JSON");
            assert_eq!(reply["id"], serde_json::from_str::<Value>(id).expect("JSON"), "{kind}");
        }
    }
    // `null` counts as absent, a ping is answered all the same, a publish is not.
    ann.send_text(r#"{"type":"publish","pipe":"a","event":"e","id":null}"#);
    ann.send_text(r#"{"type":"ping","id":null}"#);
    ann.send_text(r#"{"type":"ping"}"#);
    for _ in 0..2 {
        assert_eq!(ann.receive(), json!({"type": "pong"}));
    }
}

// C7
#[test]
fn a_batch_answers_for_each_pipe() {
    let server = Server::start("[limits]\nsubscriptions = 3\n");
    let grants = [("a", "sub"), ("b", "sub"), ("p", "pub"), ("c-*", "sub")];
    let mut ann = Client::connect(server.address, &token("ann", &grants));
    let mut application = connect(&server, "app");
    let batch = ["a", "p", "b", "nosuch", "a", "c-1", "c-2", "p"];
    let reply = ann.request(json!({"type": "subscribe", "pipes": batch}));
    assert_eq!(reply["ok"], true);
    let results = reply["results"].as_object().expect("results");
    let mut names: Vec<&str> = results.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c-1", "c-2", "nosuch", "p"], "each once");
    assert_eq!(
        (&results["a"], &results["b"], &results["c-1"]),
        (&json!({"ok": true}), &json!({"ok": true}), &json!({"ok": true}))
    );
    assert_forbidden(&results["p"]);
    assert_forbidden(&results["nosuch"]);
    assert_code(&results["c-2"], "TOO_MANY");
    for pipe in ["a", "b", "c-1", "c-2", "p", "nosuch"] {
        assert_ok(&application.publish(pipe, 1));
    }
    for pipe in ["a", "b", "c-1"] {
        ann.expect_event(pipe, 1);
    }
    let reply = ann.request(json!({"type": "unsubscribe", "pipes": ["a", "p", "c-1", "c-2", "nosuch", "a"]}));
    assert_eq!(reply["ok"], true);
    for (pipe, ended) in [("a", true), ("p", false), ("c-1", true), ("c-2", false), ("nosuch", false)] {
        match ended {
            true => assert_ok(&reply["results"][pipe]),
            false => assert_code(&reply["results"][pipe], "NOT_SUBSCRIBED"),
        }
    }
    for pipe in ["a", "c-1", "b"] {
        assert_ok(&application.publish(pipe, 2));
    }
    ann.expect_event("b", 2);
    assert!(ann.settle().is_empty());
}

// §2 `events`, C10, C11
#[test]
fn an_event_list_narrows_and_subscribing_again_replaces_it() {
    let server = Server::start(&format!("{WORKERS}[limits]\nsubscriptions = 1\n{NO_RATES}"));
    let mut ann = connect(&server, "ann");
    let mut near: Vec<Client> = (0..6).map(|number| connect(&server, &format!("user-{number}"))).collect();
    let mut bob = connect(&server, "bob");
    for client in &mut near {
        assert_ok(&client.subscribe("room"));
    }
    let mut heard = |events: Option<&[&str]>, expected: &[&str]| {
        let mut message = json!({"type": "subscribe", "pipe": "room"});
        if let Some(events) = events {
            message["events"] = json!(events);
        }
        // C11: one subscription however often it is made.
        assert_ok(&ann.request(message));
        for event in ["a", "b", "aa", "c", "last"] {
            assert_ok(&bob.request(json!({"type": "publish", "pipe": "room", "event": event, "data": 1})));
        }
        for event in expected {
            assert_eq!(ann.receive()["event"], *event, "{events:?}");
        }
        for client in &mut near {
            for event in ["a", "b", "aa", "c", "last"] {
                assert_eq!(client.receive()["event"], event, "another's list concerns nobody else");
            }
        }
    };
    heard(Some(&["a", "last"]), &["a", "last"]);
    heard(Some(&["b", "c", "b", "last"]), &["b", "c", "last"]);
    heard(None, &["a", "b", "aa", "c", "last"]);
    heard(Some(&["last"]), &["last"]);
    // "only those named, if any are"
    heard(Some(&[]), &["a", "b", "aa", "c", "last"]);
    heard(Some(&["nosuch", "last"]), &["last"]);
    assert_code(&ann.subscribe("other"), "TOO_MANY");
    assert_ok(&ann.request(json!({"type": "unsubscribe", "pipe": "room"})));
    assert_ok(&ann.subscribe("other"));
    assert!(ann.settle().is_empty());
}

// C13: under a flood the reply comes first, and nothing comes after the reply to unsubscribe. Whatever is sent after the
// reply comes without a gap; of what was sent before it, some may come (INVARIANTS 8), in order.
#[test]
fn the_reply_to_subscribe_comes_first_and_that_to_unsubscribe_last() {
    let server = Server::start(&format!("{WORKERS}[limits]\n{NO_RATES}"));
    let mut listeners: Vec<Client> = (0..6).map(|number| connect(&server, &format!("user-{number}"))).collect();
    let mut ann = connect(&server, "ann");
    let (stopped, begun) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(SeqCst) {
                for _ in 0..50 {
                    let number = begun.fetch_add(1, SeqCst);
                    ann.tell("room", number);
                }
                assert!(ann.settle().is_empty());
            }
        });
        let stop = Stop(&stopped);
        for round in 0..20 {
            for listener in &mut listeners {
                listener.send(json!({"type": "subscribe", "pipe": "room", "id": round}));
                let first = listener.receive();
                assert_eq!((&first["type"], &first["id"]), (&json!("reply"), &json!(round)), "{first}");
                let certain = begun.load(SeqCst);
                let mut next = 0;
                while next <= certain + 10 {
                    let number = listener.receive()["data"].as_u64().expect("a number");
                    if next < certain && number <= certain {
                        assert!(number >= next, "{number} comes after {next}");
                    } else {
                        assert_eq!(number, next.max(certain), "without a gap");
                    }
                    next = number + 1;
                }
                listener.send(json!({"type": "unsubscribe", "pipe": "room", "id": "end"}));
                loop {
                    let heard = listener.receive();
                    if heard["type"] == "reply" {
                        assert_eq!((&heard["id"], &heard["ok"]), (&json!("end"), &json!(true)));
                        break;
                    }
                    assert_eq!(heard["data"], next, "without a gap");
                    next += 1;
                }
                assert!(listener.settle().is_empty(), "an event after the reply to unsubscribe");
            }
        }
        for listener in &mut listeners {
            listener.expect_nothing();
        }
        drop(stop);
    });
}

// §3: one sender's events come in the order sent, on every pipe and across workers, replies in between.
#[test]
fn events_of_one_sender_come_in_order() {
    const EVENTS: u32 = 3_000;
    let server = Server::start(&format!("{WORKERS}[limits]\n{NO_RATES}"));
    let mut listeners: Vec<Client> = (0..6).map(|number| connect(&server, &format!("user-{number}"))).collect();
    for listener in &mut listeners {
        assert_ok(&listener.subscribe("one"));
        assert_ok(&listener.subscribe("two"));
    }
    let mut ann = connect(&server, "ann");
    let reader = std::thread::spawn(move || {
        for listener in &mut listeners {
            for number in 0..EVENTS {
                listener.expect_event(if number % 3 == 0 { "one" } else { "two" }, number);
            }
        }
        listeners
    });
    for number in 0..EVENTS {
        ann.tell(if number % 3 == 0 { "one" } else { "two" }, number);
    }
    let listeners = reader.join().expect("all came in order");
    for mut listener in listeners {
        assert!(listener.settle().is_empty());
    }
    assert_eq!(server.counter("events_in"), u64::from(EVENTS));
}

// A6, §3: what a token says about names ends in no event but as the sender's id.
#[test]
fn a_token_cannot_forge_a_sender() {
    let server = Server::start("[auth]\nanonymous = true\n[pipe.wall]\nsubscribe = true\npublish = true\n");
    let claims = json!({"sub": "ann", "name": "bob", "sender": "bob", "role": "bob"});
    let mut ann = Client::connect(server.address, &sign(&claims.to_string()));
    let mut nobody = Client::with(server.address, &Request::upgrade());
    assert_ok(&nobody.subscribe("wall"));
    assert_ok(&ann.publish("wall", 1));
    assert_eq!(nobody.receive()["sender"], "ann");
    assert_ok(&nobody.publish("wall", 2));
    assert_eq!(nobody.receive()["sender"], "");
}
