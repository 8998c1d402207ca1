//! Frames from clients: what is a message, and what ends the connection with which code (RFC 6455 §5 and §8.1, A9, B26,
//! C3, C36).

use serde_json::json;

use crate::support::{Client, Frame, Message, Raw, Request, Server, frame, opcode, token};
use opcode::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};

/// The bit of a last fragment.
const FIN: u8 = 0x80;
/// `limits.message_bytes` of these servers.
const MESSAGE_BYTES: usize = 2_000;

fn server() -> Server {
    Server::start(&format!("[limits]\nmessage_bytes = {MESSAGE_BYTES}\nmessage = {{ per_s = 0 }}\n"))
}

fn client(server: &Server) -> Client {
    Client::connect(server.address, &token("ann", &[("room", "sub,pub")]))
}

/// A message of exactly this many bytes that is answered with a pong of this id.
fn ping_of(id: u32, bytes: usize) -> String {
    let text = format!("{{\"type\":\"ping\",\"id\":{id},\"é\":\"\"}}");
    text.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - text.len())))
}

#[track_caller]
fn assert_pong(client: &mut Client, id: u32) {
    assert_eq!(client.receive(), json!({"type": "pong", "id": id}));
}

// A9
#[test]
fn a_message_may_be_exactly_as_long_as_the_limit() {
    let server = server();
    let mut ann = client(&server);
    let text = ping_of(1, MESSAGE_BYTES);
    assert_eq!(text.len(), MESSAGE_BYTES);
    ann.send_text(&text);
    assert_pong(&mut ann, 1);
    ann.raw.send(frame(TEXT, &text[..1_000]));
    ann.raw.send(frame(CONTINUATION, &text[1_000..1_999]));
    ann.raw.send(frame(FIN | CONTINUATION, &text[1_999..]));
    assert_pong(&mut ann, 1);
    ann.raw.send(frame(TEXT, &text));
    ann.raw.send(frame(CONTINUATION, ""));
    ann.raw.send(frame(FIN | CONTINUATION, ""));
    assert_pong(&mut ann, 1);
    ann.close();
}

// A9: as soon as the length is known, before the payload came.
#[test]
fn a_longer_message_closes_1009() {
    let server = server();
    let text = ping_of(1, MESSAGE_BYTES + 1);
    let whole = frame(FIN | TEXT, &text);
    let in_fragments = [frame(TEXT, &text[..1_500]), frame(FIN | CONTINUATION, &text[1_500..])].concat();
    let header_only = whole[..8].to_vec();
    let endless =
        [frame(TEXT, ""), vec![FIN, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]].concat();
    let second_header = [frame(TEXT, &text[..1_500]), vec![CONTINUATION, 0xFE, 0x01, 0xF5, 0, 0, 0, 0]].concat();
    let binary = frame(FIN | BINARY, &text);
    for bytes in [whole, in_fragments, header_only, endless, second_header, binary] {
        let mut ann = client(&server);
        ann.raw.send(&bytes);
        ann.expect_close(1009);
    }
    assert_eq!(server.counter("closed[1009]"), 6);
}

#[test]
fn the_default_limit_is_64_kib() {
    let server = Server::start("");
    let mut ann = client(&server);
    ann.send_text(ping_of(1, 65_536));
    assert_pong(&mut ann, 1);
    ann.send_text(ping_of(2, 65_537));
    ann.expect_close(1009);
}

#[test]
fn binary_closes_1003() {
    let server = server();
    for bytes in [
        frame(FIN | BINARY, "{\"type\":\"ping\"}"),
        frame(FIN | BINARY, ""),
        [frame(BINARY, "a"), frame(FIN | CONTINUATION, "b")].concat(),
        // C36: its payload, or its next fragment, is not waited for.
        frame(FIN | BINARY, "abcdef")[..6].to_vec(),
        frame(FIN | BINARY, "abcdef")[..8].to_vec(),
        frame(BINARY, "abcdef"),
    ] {
        let mut ann = client(&server);
        ann.raw.send(&bytes);
        ann.expect_close(1003);
    }
}

/// Text that is not UTF-8, whole.
const NOT_UTF8: [&[u8]; 12] = [
    b"\xFF",
    b"\x80",
    b"\xC0\x80",
    b"\xC1\xBF",
    b"\xC3\x28",
    b"\xE0\x80\xAF",
    b"\xED\xA0\x80",
    b"\xED\xBF\xBF",
    b"\xF0\x80\x80\x80",
    b"\xF4\x90\x80\x80",
    b"\xF5\x80\x80\x80",
    b"{\"type\":\"ping\",\"id\":\"\xE2\x82\"}",
];

#[test]
fn text_that_is_not_utf8_closes_1007() {
    let server = server();
    for bad in NOT_UTF8 {
        let mut ann = client(&server);
        ann.raw.send(frame(FIN | TEXT, bad));
        ann.expect_close(1007);
        // Behind a good fragment.
        let mut ann = client(&server);
        ann.raw.send([frame(TEXT, "é"), frame(FIN | CONTINUATION, bad)].concat());
        ann.expect_close(1007);
    }
    for cut in [&b"\xC3"[..], b"\xE2\x82", b"\xF0\x9F\x98"] {
        let mut ann = client(&server);
        ann.raw.send([frame(TEXT, cut), frame(FIN | CONTINUATION, "")].concat());
        ann.expect_close(1007);
    }
}

/// A wrong byte is refused before its message, or even its frame, is over.
#[test]
fn text_is_checked_as_it_arrives() {
    let server = server();
    for bad in NOT_UTF8.iter().take(11) {
        let mut ann = client(&server);
        ann.raw.send(frame(TEXT, [b"x", *bad, b"y"].concat()));
        ann.expect_close(1007);
        let mut ann = client(&server);
        let whole = frame(FIN | TEXT, [b"x", *bad, b"y", &[b'z'; 100][..]].concat());
        ann.raw.send(&whole[..whole.len() - 100]);
        ann.expect_close(1007);
    }
}

#[test]
fn a_character_may_be_cut_anywhere() {
    let server = server();
    let text = r#"{"type":"ping","id":"κόσμε-€-😀"}"#.as_bytes();
    let mut ann = client(&server);
    for cut in 0..=text.len() {
        ann.raw.send(frame(TEXT, &text[..cut]));
        ann.raw.send(frame(FIN | CONTINUATION, &text[cut..]));
    }
    for byte in text {
        ann.raw.send(frame(if byte == &text[0] { TEXT } else { CONTINUATION }, [*byte]));
    }
    ann.raw.send(frame(FIN | CONTINUATION, ""));
    for _ in 0..=text.len() + 1 {
        assert_eq!(ann.receive(), json!({"type": "pong", "id": "κόσμε-€-😀"}));
    }
}

// C36
#[test]
fn what_breaks_the_framing_closes_1002() {
    let server = server();
    let text = frame(FIN | TEXT, "x");
    let unmasked = vec![FIN | TEXT, 0];
    let mut cases = vec![
        ("unmasked", unmasked),
        ("unmasked ping", vec![FIN | PING, 0]),
        ("nothing to continue", frame(FIN | CONTINUATION, "x")),
        ("nothing to continue any more", [text, frame(CONTINUATION, "x")].concat()),
        ("a message inside another", [frame(TEXT, "x"), frame(FIN | TEXT, "y")].concat()),
        ("a fragmented one inside another", [frame(TEXT, "x"), frame(BINARY, "y")].concat()),
        ("a fragmented ping", frame(PING, "x")),
        ("a fragmented pong", frame(PONG, "")),
        ("a fragmented close", frame(CLOSE, 1000u16.to_be_bytes())),
        ("a ping of 126 bytes", frame(FIN | PING, [0; 126])),
        ("a pong of 126 bytes", frame(FIN | PONG, [0; 126])),
        ("a close of 126 bytes", frame(FIN | CLOSE, [&1000u16.to_be_bytes()[..], &[b'x'; 124]].concat())),
        ("a length of 64 bits", vec![FIN | TEXT, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("a length in more bytes than it needs", vec![FIN | TEXT, 0xFE, 0, 125, 0, 0, 0, 0]),
        ("a length in far more", vec![FIN | TEXT, 0xFF, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0]),
        ("a close of one byte", frame(FIN | CLOSE, [3])),
    ];
    for opcode in (3..8).chain(11..16) {
        cases.push(("a reserved opcode", frame(FIN | opcode, "")));
    }
    for bits in [0x10, 0x20, 0x40, 0x70] {
        cases.push(("reserved bits", frame(FIN | bits | TEXT, "x")));
        cases.push(("reserved bits of a ping", frame(FIN | bits | PING, "")));
        cases.push(("reserved bits of a later fragment", [frame(TEXT, ""), frame(bits, "")].concat()));
    }
    let count = cases.len() as u64;
    for (what, bytes) in cases {
        let mut ann = client(&server);
        ann.raw.send(&bytes);
        let (code, _) = ann.closed();
        assert_eq!(code, Some(1002), "{what}");
        ann.raw.finish();
        ann.expect_end();
    }
    assert_eq!(server.counter("closed[1002]"), count);
}

#[test]
fn nothing_behind_a_violation_has_an_effect() {
    let server = server();
    let mut bob = Client::connect(server.address, &token("bob", &[("room", "sub")]));
    assert_eq!(bob.request(json!({"type": "subscribe", "pipe": "room"}))["ok"], true);
    let publish = |n: u32| json!({"type": "publish", "pipe": "room", "event": "e", "data": n}).to_string();
    let bad = [frame(FIN | BINARY, "x"), vec![FIN | TEXT, 0], frame(FIN | TEXT, b"\xFF"), frame(FIN | CLOSE, "")];
    for (n, bad) in bad.into_iter().enumerate() {
        let n = n as u32;
        let mut ann = client(&server);
        ann.raw.send([frame(FIN | TEXT, publish(n)), bad, frame(FIN | TEXT, publish(1_000))].concat());
        ann.closed();
        // What stood before it has been done.
        assert_eq!(bob.receive()["data"], n);
    }
    let mut last = client(&server);
    last.send_text(publish(99));
    assert_eq!(bob.receive()["data"], 99);
}

#[test]
fn pings_are_answered_with_their_own_payload() {
    let server = server();
    let mut ann = client(&server);
    let pong = |payload: &[u8]| Some(Frame { opcode: PONG, payload: payload.to_vec() });
    for payload in [&b""[..], b"x", b"\xFF\x00\x80", &[b'p'; 125]] {
        ann.raw.send(frame(FIN | PING, payload));
        assert_eq!(ann.frame(), pong(payload));
    }
    let many: Vec<u8> = (0..100u8).flat_map(|n| frame(FIN | PING, [n])).collect();
    ann.raw.send(&many);
    for n in 0..100u8 {
        assert_eq!(ann.frame(), pong(&[n]));
    }
    // Pongs that nobody asked for are fine.
    ann.raw.send([frame(FIN | PONG, ""), frame(FIN | PONG, "x")].concat());
    assert!(ann.settle().is_empty());
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let server = server();
    let mut ann = client(&server);
    let text = ping_of(7, 100);
    ann.raw.send(frame(TEXT, &text[..10]));
    ann.raw.send(frame(FIN | PING, "one"));
    assert_eq!(ann.frame(), Some(Frame { opcode: PONG, payload: b"one".to_vec() }), "before the message is over");
    ann.raw.send([frame(CONTINUATION, &text[10..50]), frame(FIN | PONG, ""), frame(FIN | PING, "two")].concat());
    ann.raw.send(frame(FIN | CONTINUATION, &text[50..]));
    assert_eq!(ann.frame(), Some(Frame { opcode: PONG, payload: b"two".to_vec() }));
    assert_pong(&mut ann, 7);
    // A close there ends it; the begun message is forgotten.
    ann.raw.send([frame(TEXT, "{"), frame(FIN | CLOSE, 1000u16.to_be_bytes())].concat());
    assert_eq!(ann.hear(), Message::Close(Some(1000), String::new()));
}

#[test]
fn bytes_may_arrive_one_at_a_time() {
    let server = server();
    let mut ann = client(&server);
    let text = ping_of(5, 200);
    let fragments = [
        frame(TEXT, &text[..40]),
        frame(FIN | PING, "middle"),
        frame(CONTINUATION, &text[40..41]),
        frame(CONTINUATION, ""),
        frame(FIN | CONTINUATION, &text[41..]),
        frame(FIN | TEXT, ping_of(6, 126)),
    ];
    ann.raw.send_one_by_one(fragments.concat());
    assert_eq!(ann.frame(), Some(Frame { opcode: PONG, payload: b"middle".to_vec() }));
    assert_pong(&mut ann, 5);
    assert_pong(&mut ann, 6);
    ann.close();
}

// B26
#[test]
fn frames_may_come_with_the_handshake() {
    let server = server();
    let request = Request::upgrade().token(&token("ann", &[("room", "sub,pub")])).text();
    let first = json!({"type": "subscribe", "pipe": "room", "id": 1}).to_string();
    let frames = [frame(FIN | TEXT, first), frame(FIN | TEXT, ping_of(2, 50))].concat();
    for cut in [0, 1, frames.len() - 1, frames.len()] {
        let mut raw = Raw::connect(server.address);
        raw.send([request.as_bytes(), &frames[..cut]].concat());
        // The welcome is first whatever came with the request.
        let mut ann = Client::greet(raw).expect("granted");
        ann.raw.send(&frames[cut..]);
        assert_eq!(ann.receive()["ok"], true);
        assert_pong(&mut ann, 2);
        ann.close();
    }
    let mut raw = Raw::connect(server.address);
    raw.send([request.as_bytes(), &[FIN | TEXT, 0]].concat());
    Client::greet(raw).expect("granted").expect_close(1002);
    let mut raw = Raw::connect(server.address);
    raw.send([request.as_bytes(), &frame(FIN | CLOSE, 4000u16.to_be_bytes())].concat());
    assert_eq!(Client::greet(raw).expect("granted").closed().0, Some(4000));
}

// C3
#[test]
fn what_is_no_message_is_ignored() {
    let server = server();
    let mut ann = client(&server);
    for text in ["", " ", "{", "[]", "null", "7", "\"x\"", "{\"type\":\"ping\",}", "{\"type\":\"ping\"} {}", "\u{0}"] {
        ann.send_text(text);
    }
    assert!(ann.settle().is_empty());
    assert_eq!(server.counter("malformed"), 10);
    ann.close();
}

/// Any bytes after a handshake end at worst the connection that sent them.
#[test]
fn noise_disturbs_nobody_else() {
    let server = server();
    let mut bob = Client::connect(server.address, &token("bob", &[("room", "sub,pub")]));
    assert_eq!(bob.request(json!({"type": "subscribe", "pipe": "room"}))["ok"], true);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..60u32 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(1 + round as usize * 37)
        .collect();
        let mut ann = client(&server);
        // Half of them look like frames.
        let bytes = if round % 2 == 0 { noise } else { frame(FIN | TEXT, &noise) };
        ann.raw.try_send(&bytes);
        if round % 3 == 0 {
            ann.raw.reset();
        }
        assert_eq!(bob.request(json!({"type": "publish", "pipe": "room", "event": "e", "data": round}))["ok"], true);
        assert_eq!(bob.receive()["data"], round);
    }
    bob.close();
}
