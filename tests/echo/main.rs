//! The frame path against the catalogue of situations that conformance suites know (RFC 6455 §5–§8), byte by byte:
//! `examples/ws_echo` on both backends, a script for each situation.
//!
//! The tests are in the order of the catalogue's chapters: messages, pings, reserved bits, opcodes, fragmentation, UTF-8,
//! closing, sizes.

#[allow(dead_code, unused_imports, reason = "shared with tests/server, which uses all of it")]
#[path = "../server/support/mod.rs"]
mod support;
#[path = "../../examples/ws_echo.rs"]
mod ws_echo;

use std::net::{SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::time::Duration;

use pipeward::worker::engine::Backend;
use support::opcode::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};
use support::{Client, Frame, Raw, Request, frame};

/// The bit of a last fragment.
const FIN: u8 = 0x80;

/// One step of a conversation.
enum Step {
    /// These bytes are sent.
    Send(Vec<u8>),
    /// The same in pieces of this many bytes.
    SendIn(usize, Vec<u8>),
    /// This frame comes next.
    Hear(u8, Vec<u8>),
}
use Step::{Hear, Send, SendIn};

/// The echo servers: on io_uring (or what is there instead) and on epoll.
fn servers() -> &'static [SocketAddr; 2] {
    static SERVERS: OnceLock<[SocketAddr; 2]> = OnceLock::new();
    SERVERS.get_or_init(|| {
        [Backend::Uring, Backend::Epoll].map(|backend| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("an address");
            std::thread::spawn(move || ws_echo::serve(listener, backend).expect("it serves"));
            address
        })
    })
}

fn open(address: SocketAddr) -> Client {
    let mut raw = Raw::connect(address);
    raw.send(Request::upgrade().text());
    Client::open(raw).expect("granted")
}

/// Plays the steps, then closes with 1000: the server answers alike, and ends the stream.
#[track_caller]
fn converse(steps: Vec<Step>) {
    play(steps, Some(1000), Some(1000));
}

/// Plays the steps; the server must then close with this code (None: without one) and end the stream.
#[track_caller]
fn fail(code: u16, steps: Vec<Step>) {
    play(steps, None, Some(code));
}

#[track_caller]
fn play(steps: Vec<Step>, our_close: Option<u16>, their_close: Option<u16>) {
    for address in servers() {
        let mut client = open(*address);
        for step in &steps {
            match step {
                Send(bytes) => client.raw.send(bytes),
                SendIn(size, bytes) => bytes.chunks(*size).for_each(|piece| client.raw.send(piece)),
                Hear(opcode, payload) => hear(&mut client, *opcode, payload),
            }
        }
        if let Some(code) = our_close {
            client.send_close(code, "");
        }
        let (code, _) = client.closed();
        assert_eq!(code, their_close);
        // A client that has failed answers nothing and sends no end: the server goes first.
        assert_eq!(client.frame(), None, "nothing follows the close frame");
    }
}

#[track_caller]
fn hear(client: &mut Client, opcode: u8, payload: &[u8]) {
    let heard = client.frame().expect("a frame, not the end");
    let (length, expected) = (heard.payload.len(), payload.len());
    assert!(
        heard.opcode == opcode && heard.payload == payload,
        "{} of {length} bytes, not {opcode} of {expected}",
        heard.opcode
    );
}

/// A message sent whole and heard whole.
fn echoed(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<Step> {
    let payload = payload.as_ref();
    vec![Send(frame(FIN | opcode, payload)), Hear(opcode, payload.to_vec())]
}

/// A message in fragments of at most `size` bytes.
fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let count = payload.len().div_ceil(size).max(1);
    let fragment = |place: usize| {
        let part = &payload[place * size..payload.len().min((place + 1) * size)];
        let opcode = if place == 0 { opcode } else { CONTINUATION };
        frame(if place + 1 == count { FIN | opcode } else { opcode }, part)
    };
    (0..count).flat_map(fragment).collect()
}

/// So many bytes of ASCII, no two pages alike.
fn text_of(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| b'!' + ((place + place / 4096) % 90) as u8).collect()
}

#[test]
fn messages_come_back_as_they_came() {
    for opcode in [TEXT, BINARY] {
        for bytes in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
            converse(echoed(opcode, text_of(bytes)));
        }
        let payload = text_of(65_536);
        converse(vec![SendIn(997, frame(FIN | opcode, &payload)), Hear(opcode, payload)]);
    }
    converse(echoed(BINARY, (0..=255).collect::<Vec<u8>>()));
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    for payload in [&b""[..], b"Hello", b"\x00\xFF\xFE\xFD", &[0xFE; 125]] {
        converse(vec![Send(frame(FIN | PING, payload)), Hear(PONG, payload.to_vec())]);
        converse(vec![SendIn(1, frame(FIN | PING, payload)), Hear(PONG, payload.to_vec())]);
    }
    fail(1002, vec![Send(frame(FIN | PING, [0xFE; 126]))]);
    for payload in ["", "unasked"] {
        let pong = frame(FIN | PONG, payload);
        converse(vec![Send(pong.clone())]);
        converse(vec![Send([pong, frame(FIN | PING, "asked")].concat()), Hear(PONG, b"asked".to_vec())]);
    }
    let names: Vec<Vec<u8>> = (0..10).map(|n| format!("payload-{n}").into_bytes()).collect();
    let all: Vec<u8> = names.iter().flat_map(|name| frame(FIN | PING, name)).collect();
    for size in [1, all.len()] {
        let pongs = names.iter().map(|name| Hear(PONG, name.clone()));
        converse([SendIn(size, all.clone())].into_iter().chain(pongs).collect());
    }
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bits in 1..8u8 {
        for opcode in [TEXT, BINARY, PING, CLOSE] {
            fail(1002, vec![Send(frame(FIN | bits << 4 | opcode, ""))]);
            let mut steps = echoed(TEXT, "good");
            steps.push(SendIn(1, frame(FIN | bits << 4 | opcode, "bad")));
            fail(1002, steps);
        }
    }
    for opcode in (3..8).chain(11..16) {
        for payload in ["", "payload"] {
            fail(1002, vec![Send([frame(FIN | opcode, payload), frame(FIN | PING, "")].concat())]);
            let mut steps = echoed(TEXT, "good");
            steps.push(SendIn(1, frame(FIN | opcode, payload)));
            fail(1002, steps);
        }
    }
}

#[test]
fn fragments_become_one_message() {
    let text = b"fragment1fragment2fragment3fragment4fragment5".to_vec();
    for opcode in [TEXT, BINARY] {
        for size in [1, 9, 23, text.len()] {
            for pieces in [1, usize::MAX] {
                converse(vec![SendIn(pieces, fragments(opcode, &text, size)), Hear(opcode, text.clone())]);
            }
        }
        let hollow = [frame(opcode, ""), frame(CONTINUATION, ""), frame(FIN | CONTINUATION, "")].concat();
        converse(vec![Send(hollow), Hear(opcode, vec![])]);
        // A ping inside is answered before the message is over.
        let (first, second) = (frame(opcode, "frag"), frame(FIN | CONTINUATION, "ment"));
        for pieces in [1, usize::MAX] {
            converse(vec![
                SendIn(pieces, [first.clone(), frame(FIN | PING, "now")].concat()),
                Hear(PONG, b"now".to_vec()),
                SendIn(pieces, [frame(FIN | PONG, ""), second.clone()].concat()),
                Hear(opcode, b"fragment".to_vec()),
            ]);
        }
        // What may not stand there.
        let started = frame(opcode, "frag");
        fail(1002, vec![Send([&started[..], &frame(FIN | TEXT, "x")].concat())]);
        fail(1002, vec![SendIn(1, [&started[..], &frame(BINARY, "x")].concat())]);
    }
    fail(1002, vec![Send([frame(PING, "frag"), frame(FIN | CONTINUATION, "ment")].concat())]);
    fail(1002, vec![Send([frame(PONG, "frag"), frame(FIN | CONTINUATION, "ment")].concat())]);
    for first in [FIN | CONTINUATION, CONTINUATION] {
        for pieces in [1, usize::MAX] {
            fail(1002, vec![SendIn(pieces, [frame(first, "x"), frame(FIN | TEXT, "good")].concat())]);
        }
        let mut steps = echoed(TEXT, "good");
        steps.push(Send(frame(first, "nothing to continue")));
        fail(1002, steps);
    }
}

/// First and last of every length, both sides of each gap, and what is no character but may be sent.
const UTF8: [&[u8]; 16] = [
    b"hello $ \xC2\xA2 \xE2\x82\xAC \xF0\xA4\xAD\xA2 world",
    b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5",
    b"\x00",
    b"\x7F",
    b"\xC2\x80",
    b"\xDF\xBF",
    b"\xE0\xA0\x80",
    b"\xED\x9F\xBF",
    b"\xEE\x80\x80",
    b"\xEF\xBF\xBD",
    b"\xEF\xBF\xBE",
    b"\xEF\xBF\xBF",
    b"\xF0\x90\x80\x80",
    b"\xF0\x9F\xBF\xBF",
    b"\xF3\xBF\xBF\xBE",
    b"\xF4\x8F\xBF\xBF",
];

/// What can be seen to be wrong without another byte: stray continuations, impossible and overlong beginnings,
/// surrogates, code points beyond the last.
const WRONG: [&[u8]; 30] = [
    b"\x80",
    b"\xBF",
    b"\x80\xBF\x80\xBF\x80\xBF",
    b"\xC0",
    b"\xC0\x80",
    b"\xC0\xAF",
    b"\xC1\xBF",
    b"\xC2 ",
    b"\xDF\xC0",
    b"\xE0\x80",
    b"\xE0\x80\x80",
    b"\xE0\x80\xAF",
    b"\xE0\x9F\xBF",
    b"\xE2\x82 ",
    b"\xED\xA0",
    b"\xED\xA0\x80",
    b"\xED\xAD\xBF\xED\xB0\x80",
    b"\xED\xBF\xBF",
    b"\xEF\xBF\xEF",
    b"\xF0\x80\x80",
    b"\xF0\x80\x80\x80",
    b"\xF0\x8F\xBF\xBF",
    b"\xF0\x9F\x98\xF0",
    b"\xF4\x90",
    b"\xF4\x90\x80\x80",
    b"\xF5",
    b"\xF8\x88\x80\x80\x80",
    b"\xFC\x84\x80\x80\x80\x80",
    b"\xFE",
    b"\xFF",
];

#[test]
fn text_is_utf8() {
    for text in UTF8 {
        converse(echoed(TEXT, text));
        converse(vec![SendIn(1, frame(FIN | TEXT, text)), Hear(TEXT, text.to_vec())]);
        converse(vec![Send(fragments(TEXT, text, 1)), Hear(TEXT, text.to_vec())]);
        // Cut anywhere, it is text only if the cut is between two characters.
        for end in 1..text.len() {
            match std::str::from_utf8(&text[..end]) {
                Ok(_) => converse(echoed(TEXT, &text[..end])),
                Err(_) => fail(1007, vec![Send(frame(FIN | TEXT, &text[..end]))]),
            }
        }
    }
    for wrong in WRONG {
        fail(1007, vec![Send(frame(FIN | TEXT, wrong))]);
        fail(1007, vec![Send(fragments(TEXT, wrong, 1))]);
        converse(echoed(BINARY, wrong));
    }
}

/// It is refused at the first wrong byte: the rest is never sent.
#[test]
fn wrong_text_is_refused_at_once() {
    for wrong in WRONG {
        let start = [b"\xCE\xBA\xE1\xBD\xB9\xCF\x83", wrong].concat();
        fail(1007, vec![Send(frame(TEXT, "\u{3BA}")), Send(frame(CONTINUATION, &start))]);
        let whole = frame(FIN | TEXT, [&start[..], b"edited and much more"].concat());
        fail(1007, vec![Send(whole[..whole.len() - 20].to_vec())]);
        fail(1007, vec![SendIn(1, whole[..whole.len() - 20].to_vec())]);
    }
}

#[test]
fn a_close_is_answered_and_ends_it() {
    let close = |payload: &[u8]| frame(FIN | CLOSE, payload);
    let code = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    for good in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]) {
        play(vec![Send(close(&code(good, b"")))], None, Some(good));
        play(vec![SendIn(1, close(&code(good, "Schluß".as_bytes())))], None, Some(good));
    }
    play(vec![Send(close(b""))], None, None);
    play(vec![Send(close(&code(1000, &[b'*'; 123])))], None, Some(1000));
    fail(1002, vec![Send(close(&code(1000, &[b'*'; 124])))]);
    fail(1002, vec![Send(close(b"a"))]);
    fail(1007, vec![Send(close(&code(1000, b"\xCE\xBA\xED\xA0\x80ted")))]);
    for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        fail(1002, vec![Send(close(&code(bad, b"")))]);
    }
    // Nothing after it counts, and a begun message is forgotten.
    let goodbye = close(&code(1000, b""));
    for after in [frame(FIN | TEXT, "late"), frame(FIN | PING, ""), goodbye.clone(), vec![0xFF; 10]] {
        play(vec![Send([&goodbye[..], &after].concat())], None, Some(1000));
        play(vec![Send([&frame(TEXT, "frag")[..], &goodbye, &after].concat())], None, Some(1000));
    }
    let long = text_of(256 * 1024);
    let both = [frame(FIN | TEXT, &long), goodbye].concat();
    play(vec![Send(both), Hear(TEXT, long)], None, Some(1000));
}

#[test]
fn long_messages_come_back() {
    for opcode in [TEXT, BINARY] {
        for megabytes in [1, 4, 16] {
            converse(echoed(opcode, text_of(megabytes << 20)));
        }
    }
    fail(
        1009,
        vec![Send(frame(FIN | BINARY, "")), Hear(BINARY, vec![]), Send(vec![FIN | TEXT, 0xFF, 0, 0, 0, 0, 4, 0, 0, 1])],
    );
}

#[test]
fn long_messages_come_back_from_fragments_and_pieces() {
    let long = text_of(4 << 20);
    for opcode in [TEXT, BINARY] {
        for size in [64, 1024, 65_536, 4 << 20] {
            converse(vec![Send(fragments(opcode, &long, size)), Hear(opcode, long.clone())]);
        }
    }
    let short = text_of(1 << 20);
    for size in [64, 1500] {
        converse(vec![SendIn(size, frame(FIN | TEXT, &short)), Hear(TEXT, short.clone())]);
    }
    let short = text_of(65_536);
    converse(vec![Send(fragments(TEXT, &short, 1300)), Hear(TEXT, short)]);
}

#[test]
fn many_messages_come_back_one_after_another() {
    for bytes in [0, 64, 1024] {
        converse((0..300).flat_map(|_| echoed(TEXT, text_of(bytes))).collect());
    }
}

/// Who sends without reading is not read from for ever; when it reads, nothing is missing.
#[test]
fn a_peer_that_does_not_read_is_held_back() {
    use std::io::{ErrorKind, Write as _};
    for address in servers() {
        let mut client = open(*address);
        let message = frame(FIN | BINARY, text_of(1 << 20));
        client.raw.stream.set_nonblocking(true).expect("an option");
        let (mut sent, mut stuck) = (0, 0);
        while stuck < 30 {
            match client.raw.stream.write(&message[sent % message.len()..]) {
                Ok(count) => (sent, stuck) = (sent + count, 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stuck += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => panic!("{error}"),
            }
            assert!(sent < 256 << 20, "it takes without end");
        }
        client.raw.stream.set_nonblocking(false).expect("an option");
        let whole = sent / message.len();
        for _ in 0..whole {
            assert_eq!(client.frame().map(|frame| frame.payload.len()), Some(1 << 20));
        }
        client.raw.send(&message[sent % message.len()..]);
        assert_eq!(client.frame(), Some(Frame { opcode: BINARY, payload: text_of(1 << 20) }));
        client.send_close(1000, "");
        assert_eq!(client.closed().0, Some(1000));
    }
}
