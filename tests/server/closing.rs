//! How connections end: close handshakes from both sides, silence, and streams that just stop (RFC 6455 §5.5.1 and §7,
//! C35, C36, INVARIANTS 17).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Frame, Message, Request, Server, frame, opcode, token, until};

fn client(server: &Server) -> Client {
    Client::connect(server.address, &token("ann", &[("room", "sub,pub")]))
}

fn close_frame(payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode::CLOSE, payload)
}

#[test]
fn a_close_is_answered_with_its_code() {
    let server = Server::start("");
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4401, 4999] {
        let mut ann = client(&server);
        ann.send_close(code, "why not");
        assert_eq!(ann.closed().0, Some(code));
        ann.expect_end();
    }
    let mut ann = client(&server);
    ann.raw.send(close_frame(b""));
    assert_eq!(ann.frame(), Some(Frame { opcode: opcode::CLOSE, payload: vec![] }));
    ann.expect_end();
    let mut ann = client(&server);
    ann.send_close(1000, &"é".repeat(61));
    assert_eq!(ann.closed().0, Some(1000));
}

// C36
#[test]
fn a_close_that_is_wrong_closes_1002_or_1007() {
    let server = Server::start("");
    for code in [0u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let mut ann = client(&server);
        ann.send_close(code, "");
        assert_eq!(ann.closed().0, Some(1002), "{code}");
        ann.expect_end();
    }
    let mut ann = client(&server);
    ann.raw.send(close_frame(&[3]));
    assert_eq!(ann.closed().0, Some(1002));
    for reason in [&b"\x03\xE8\xFF"[..], b"\x03\xE8ok \xE2\x82", b"\x03\xE8\xED\xA0\x80"] {
        let mut ann = client(&server);
        ann.raw.send(close_frame(reason));
        assert_eq!(ann.closed().0, Some(1007));
    }
}

#[test]
fn what_was_asked_before_a_close_is_still_answered() {
    let server = Server::start("");
    let mut ann = client(&server);
    let messages = [
        json!({"type": "subscribe", "pipe": "room", "id": 1}),
        json!({"type": "publish", "pipe": "room", "event": "e", "data": 5, "id": 2}),
    ];
    let mut bytes: Vec<u8> =
        messages.iter().flat_map(|message| frame(0x80 | opcode::TEXT, message.to_string())).collect();
    bytes.extend(close_frame(&1000u16.to_be_bytes()));
    bytes.extend(frame(0x80 | opcode::TEXT, json!({"type": "ping", "id": 3}).to_string()));
    ann.raw.send(bytes);
    let mut heard = Vec::new();
    let code = loop {
        match ann.hear() {
            Message::Json(value) => heard.push(value),
            Message::Close(code, _) => break code,
            Message::End => panic!("no close frame after {heard:?}"),
        }
    };
    assert_eq!(code, Some(1000));
    assert_eq!(heard.len(), 3, "two replies and an event, no pong: {heard:?}");
    ann.expect_end();
}

/// Whoever does not answer the server's close frame is let go all the same, and whatever it still sends is ignored.
#[test]
fn a_close_of_the_server_needs_no_answer() {
    let server = Server::start("[limits]\nconnections = 1\n");
    for talks_on in [false, true] {
        let mut ann = client(&server);
        ann.raw.send(frame(0x80 | opcode::BINARY, "x"));
        assert_eq!(ann.closed().0, Some(1003));
        if talks_on {
            ann.raw.try_send(frame(0x80 | opcode::TEXT, json!({"type": "ping", "id": 1}).to_string()));
            ann.raw.try_send(frame(0x80 | opcode::PING, "x"));
        }
        ann.expect_end();
        // INVARIANTS 17: the seat was given back when the closing began.
        until("a seat is free", || try_connect(&server));
    }
    until("no socket is left", || server.counter("connections") == 0);
}

fn try_connect(server: &Server) -> bool {
    let request = Request::upgrade().token(&token("ann", &[]));
    Client::try_with(server.address, &request).is_ok_and(|client| {
        client.close();
        true
    })
}

#[test]
fn a_stream_that_just_stops_gives_everything_back() {
    let server = Server::start("[limits]\nconnections = 1\n");
    for _ in 0..3 {
        let ann = client(&server);
        ann.raw.reset();
        until("a seat is free after a reset", || try_connect(&server));
        let mut ann = client(&server);
        assert_eq!(ann.request(json!({"type": "subscribe", "pipe": "room"}))["ok"], true);
        ann.raw.finish();
        ann.expect_end();
        until("a seat is free after half a close", || try_connect(&server));
        // In the middle of a frame, and of a message.
        let mut ann = client(&server);
        ann.raw.send(&frame(0x80 | opcode::TEXT, "{\"type\":\"ping\"}")[..9]);
        drop(ann);
        until("a seat is free after half a frame", || try_connect(&server));
        let mut ann = client(&server);
        ann.raw.send(frame(opcode::TEXT, "{"));
        drop(ann);
        until("a seat is free after half a message", || try_connect(&server));
    }
    until("nobody is left", || {
        let counters = server.counters();
        counters.get("connections") + counters.get("subscriptions") + counters.get("pipes") == 0
    });
}

#[test]
fn both_sides_may_close_at_once() {
    let server = Server::start("");
    for _ in 0..20 {
        let mut ann = client(&server);
        ann.raw.send([frame(0x80 | opcode::BINARY, "x"), close_frame(&1001u16.to_be_bytes())].concat());
        assert_eq!(ann.closed().0, Some(1003));
        let began = Instant::now();
        ann.expect_end();
        // Its answer was there already: nothing is waited for. (The wait would be a second each.)
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    }
}

// C35
#[test]
fn whoever_answers_pings_stays() {
    let server = Server::start("[edge]\nping_s = 2\n");
    let mut ann = client(&server);
    assert_eq!(ann.welcome["ping_s"], 2);
    let until = Instant::now() + Duration::from_millis(4_500);
    while Instant::now() < until {
        let heard = ann.hear_for(Duration::from_millis(50));
        assert_eq!(heard, None);
    }
    assert!((1..=3).contains(&ann.pings), "{} pings in 4.5 s", ann.pings);
    ann.settle();
    ann.close();
}

// C35
#[test]
fn whoever_is_silent_is_closed_4408() {
    let server = Server::start("[edge]\nping_s = 2\n");
    let began = Instant::now();
    let mut silent = client(&server);
    silent.answers_pings = false;
    // Any frame is an answer: this one never sends a pong.
    let mut talking = client(&server);
    talking.answers_pings = false;
    let (code, _) = loop {
        talking.send(json!({"type": "publish", "pipe": "room", "event": "e"}));
        match silent.hear_for(Duration::from_millis(100)) {
            Some(Message::Close(code, reason)) => break (code, reason),
            None => {}
            Some(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(code, Some(4408));
    assert!(began.elapsed() >= Duration::from_secs(3), "after {:?}", began.elapsed());
    assert_eq!(silent.pings, 1);
    talking.settle();
    talking.close();
    silent.expect_end();
    assert_eq!(server.counter("closed[4408]"), 1);
}

/// A peer whose machine has gone: nothing is read, nothing answered, no end is sent.
#[test]
fn a_dead_peer_is_let_go() {
    let server = Server::start("[edge]\nping_s = 1\n");
    let dead = client(&server);
    until("it is gone", || server.counter("connections") == 0);
    drop(dead);
    assert_eq!(server.counter("closed[4408]"), 1);
}

/// An ordinary client of another make.
#[test]
fn tungstenite_is_served() {
    use tungstenite::client::IntoClientRequest as _;
    use tungstenite::protocol::frame::coding::CloseCode;
    use tungstenite::protocol::{CloseFrame, Message};

    let server = Server::start("");
    let mut request = format!("ws://{}/v1/connect", server.address).into_client_request().expect("a request");
    let headers = request.headers_mut();
    let bearer = format!("Bearer {}", token("ann", &[("room", "sub,pub")]));
    headers.insert("Authorization", bearer.parse().expect("a value"));
    headers.insert("Sec-WebSocket-Protocol", "pipeward.v1".parse().expect("a value"));
    let stream = std::net::TcpStream::connect(server.address).expect("connected");
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("an option");
    let (mut socket, response) = tungstenite::client(request, stream).expect("granted");
    assert_eq!(response.headers()["sec-websocket-protocol"], "pipeward.v1");
    let next = |socket: &mut tungstenite::WebSocket<_>| -> serde_json::Value {
        let text = socket.read().expect("a message").into_text().expect("text");
        serde_json::from_str(&text).expect("JSON")
    };
    assert_eq!(next(&mut socket)["type"], "welcome");
    let send = |socket: &mut tungstenite::WebSocket<_>, message: serde_json::Value| {
        socket.send(Message::text(message.to_string())).expect("sent");
    };
    send(&mut socket, json!({"type": "subscribe", "pipe": "room", "id": "s"}));
    assert_eq!(next(&mut socket)["ok"], true);
    send(&mut socket, json!({"type": "publish", "pipe": "room", "event": "said", "data": {"text": "hello"}}));
    let event = next(&mut socket);
    assert_eq!((&event["sender"], &event["data"]), (&json!("ann"), &json!({"text": "hello"})));
    socket.send(Message::Ping("are you there".into())).expect("sent");
    assert_eq!(socket.read().expect("a pong"), Message::Pong("are you there".into()));
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "leaving".into() };
    socket.close(Some(goodbye)).expect("closing");
    match socket.read().expect("its answer") {
        Message::Close(Some(answer)) => assert_eq!(answer.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
}
