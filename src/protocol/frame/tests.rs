//! Every corner of RFC 6455 §5 that a server meets, then the properties: cutting the input anywhere changes nothing,
//! and the reader and tungstenite understand each other.

use super::*;
use proptest::prelude::*;
use std::io::{self, Cursor, Read, Write};
use tungstenite::protocol::frame::Frame as TungsteniteFrame;
use tungstenite::protocol::frame::coding::{CloseCode as TungsteniteCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const MAX: usize = 65_536;

/// An item that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Violation(Violation),
}

fn seen(item: Item<'_>) -> Seen {
    match item {
        Item::Text(text) => Seen::Text(text.into()),
        Item::Binary(bytes) => Seen::Binary(bytes.into()),
        Item::Ping(bytes) => Seen::Ping(bytes.into()),
        Item::Pong(bytes) => Seen::Pong(bytes.into()),
        Item::Close(code, reason) => Seen::Close(code, reason.into()),
    }
}

/// Reads `input` through `reader` as one piece; stops at the first violation.
fn feed(reader: &mut Reader, input: &[u8], max: usize, out: &mut Vec<Seen>) -> bool {
    let mut input = input.to_vec();
    let mut at = 0;
    loop {
        let (used, result) = reader.next(&mut input[at..], max);
        at += used;
        match result {
            Ok(Some(item)) => out.push(seen(item)),
            Ok(None) => {
                assert_eq!(at, input.len(), "Ok(None) means that everything was used");
                return true;
            }
            Err(violation) => {
                out.push(Seen::Violation(violation));
                return false;
            }
        }
    }
}

fn read_pieces<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, max: usize) -> Vec<Seen> {
    let (mut reader, mut out) = (Reader::default(), Vec::new());
    for piece in pieces {
        if !feed(&mut reader, piece, max, &mut out) {
            break;
        }
    }
    out
}

/// Reads `input` whole and byte by byte, asserts that both see the same, and answers it.
fn read(input: &[u8]) -> Vec<Seen> {
    let whole = read_pieces([input], MAX);
    assert_eq!(whole, read_pieces(input.chunks(1), MAX));
    whole
}

fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_client_frame(&mut out, fin, opcode, payload, MASK);
    out
}

fn frames(parts: &[(bool, u8, &[u8])]) -> Vec<u8> {
    parts.iter().flat_map(|&(fin, opcode, payload)| frame(fin, opcode, payload)).collect()
}

fn only_violation(input: &[u8]) -> Violation {
    match read(input).as_slice() {
        [Seen::Violation(violation)] => *violation,
        other => panic!("{other:?}"),
    }
}

fn assert_protocol(input: &[u8]) {
    let violation = only_violation(input);
    assert!(matches!(violation, Violation::Protocol(_)), "{violation:?}");
    assert_eq!(violation.close_code(), CloseCode::Protocol); // C36
}

fn text(text: &str) -> Seen {
    Seen::Text(text.into())
}

// C36
#[test]
fn a_binary_message_is_known_from_its_header() {
    for (fin, input) in [(true, frame(true, opcode::BINARY, b"ab")), (false, frame(false, opcode::BINARY, b"ab"))] {
        for cut in 1..input.len() {
            let (mut reader, mut out) = (Reader::default(), Vec::new());
            feed(&mut reader, &input[..cut], MAX, &mut out);
            assert_eq!(reader.is_binary_unfinished(), cut >= 6, "{fin} {cut}");
        }
    }
    let (mut reader, mut out) = (Reader::default(), Vec::new());
    feed(&mut reader, &frame(false, opcode::TEXT, b"ab"), MAX, &mut out);
    assert!(!reader.is_binary_unfinished());
}

#[test]
fn an_idle_reader_is_one_pointer() {
    assert_eq!(size_of::<Reader>(), 8);
    let mut reader = Reader::default();
    let mut out = Vec::new();
    feed(&mut reader, &frames(&[(false, opcode::TEXT, b"a"), (true, opcode::CONTINUATION, b"b")]), MAX, &mut out);
    assert_eq!(out, [text("ab")]);
    assert_eq!(reader.kept_bytes(), 0);
    assert!(!reader.is_unfinished());
}

#[test]
fn a_whole_frame_is_not_copied() {
    let mut input = frame(true, opcode::TEXT, b"hello");
    let place = input.as_ptr() as usize;
    let mut reader = Reader::default();
    let (used, item) = reader.next(&mut input, MAX);
    let Ok(Some(Item::Text(text))) = item else { panic!("{item:?}") };
    assert_eq!((used, text, text.as_ptr() as usize), (11, "hello", place + 6));
    assert_eq!(reader.kept_bytes(), 0);
}

#[test]
fn the_examples_of_the_rfc() {
    // §5.7: a masked "Hello", and the unmasked server frames.
    let masked = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_eq!(read(&masked), [text("Hello")]);
    assert_eq!(frame(true, opcode::TEXT, b"Hello"), masked);
    assert_eq!(server_header(opcode::TEXT, 5), ([0x81, 5, 0, 0, 0, 0, 0, 0, 0, 0], 2));
    assert_eq!(server_header(opcode::BINARY, 256), ([0x82, 126, 1, 0, 0, 0, 0, 0, 0, 0], 4));
    assert_eq!(server_header(opcode::BINARY, 65_536), ([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 10));
}

#[test]
fn every_length_form_at_its_edges() {
    for len in [0, 1, 7, 8, 9, 124, 125, 126, 127, 65_535, 65_536] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        assert_eq!(read(&frame(true, opcode::BINARY, &payload)), [Seen::Binary(payload.clone())]);
        let mut out = Vec::new();
        append_server_frame(&mut out, opcode::BINARY, &payload);
        let expected = ServerFrame { opcode: opcode::BINARY, payload: &payload, size: out.len() };
        assert_eq!(server_frame(&out), Some(expected));
        assert_eq!(server_frame(&out[..out.len() - 1]), None);
    }
}

#[test]
fn control_frames_inside_a_fragmented_message() {
    let input = frames(&[
        (false, opcode::TEXT, "κόσ".as_bytes()),
        (true, opcode::PING, b"1"),
        (false, opcode::CONTINUATION, b""),
        (true, opcode::PONG, b""),
        (true, opcode::PING, &[9; 125]),
        (true, opcode::CONTINUATION, "με".as_bytes()),
        (true, opcode::CLOSE, b""),
    ]);
    let ping = |bytes: &[u8]| Seen::Ping(bytes.into());
    let expected = [ping(b"1"), Seen::Pong(vec![]), ping(&[9; 125]), text("κόσμε"), Seen::Close(None, String::new())];
    assert_eq!(read(&input), expected);
}

#[test]
fn wrong_frames_are_protocol_errors() {
    // C36, RFC 6455 §5.2, §5.4, §5.5
    for bit in [0x10, 0x20, 0x40, 0x70] {
        for opcode in [opcode::TEXT, opcode::BINARY, opcode::PING, opcode::CLOSE] {
            let mut input = frame(true, opcode, b"");
            input[0] |= bit;
            assert_protocol(&input);
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_protocol(&frame(true, opcode, b"x"));
    }
    for opcode in [opcode::CLOSE, opcode::PING, opcode::PONG] {
        assert_protocol(&frame(false, opcode, b""));
        assert_protocol(&frame(true, opcode, &[0; 126]));
        assert_protocol(&frame(true, opcode, &[0; 65_536]));
    }
    assert_protocol(&frame(true, opcode::CONTINUATION, b"x"));
    assert_protocol(&frame(false, opcode::CONTINUATION, b"x"));
    assert_protocol(&frames(&[(false, opcode::TEXT, b"a"), (true, opcode::TEXT, b"b")]));
    assert_protocol(&frames(&[(false, opcode::BINARY, b"a"), (false, opcode::BINARY, b"b")]));
    let after = read(&frames(&[
        (false, opcode::TEXT, b"a"),
        (true, opcode::CONTINUATION, b"b"),
        (true, opcode::CONTINUATION, b"c"),
    ]));
    assert_eq!(after, [text("ab"), Seen::Violation(Violation::Protocol("nothing to continue"))]);
    assert_protocol(&[0x81, 5, b'h', b'e', b'l', b'l', b'o']); // unmasked
}

#[test]
fn lengths_have_one_form_and_63_bits() {
    // RFC 6455 §5.2: the shortest form is obligatory, the highest bit is 0.
    assert_protocol(&[0x82, 0x80 | 126, 0, 125, 1, 2, 3, 4]);
    assert_protocol(&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 1, 2, 3, 4]);
    assert_protocol(&[0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
}

#[test]
fn wrong_frames_are_refused_by_their_first_two_bytes() {
    assert_protocol(&[0x91, 0x80]);
    assert_protocol(&[0x83, 0x80]);
    assert_protocol(&[0x81, 0x00]);
    assert_protocol(&[0x89, 0xFE]);
}

#[test]
fn close_bodies() {
    let close = |payload: &[u8]| read(&frame(true, opcode::CLOSE, payload));
    assert_eq!(close(b""), [Seen::Close(None, String::new())]);
    assert_eq!(close(b"\x03\xE8"), [Seen::Close(Some(1000), String::new())]);
    assert_eq!(close(b"\x0F\xA0bye"), [Seen::Close(Some(4000), "bye".into())]);
    let longest = [b"\x03\xE8".as_slice(), &[b'r'; 123]].concat();
    assert_eq!(close(&longest), [Seen::Close(Some(1000), "r".repeat(123))]);
    assert_protocol(&frame(true, opcode::CLOSE, b"\x03"));
    let violation = only_violation(&frame(true, opcode::CLOSE, b"\x03\xE8\xCE\xBA\xED\xA0\x80"));
    assert_eq!(violation.close_code(), CloseCode::InvalidPayload);
}

#[test]
fn close_codes_that_may_be_sent() {
    let good = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    for code in 0..=u16::MAX {
        let got = read_pieces([frame(true, opcode::CLOSE, &code.to_be_bytes()).as_slice()], MAX);
        let expected = match good(code) {
            true => Seen::Close(Some(code), String::new()),
            false => Seen::Violation(Violation::Protocol("a close code that may not be sent")),
        };
        assert_eq!(got, [expected]);
    }
}

#[test]
fn close_payload_cuts_a_long_reason_between_characters() {
    let payload = close_payload(4413, &"é".repeat(100));
    assert_eq!(payload.len(), 2 + 122);
    assert_eq!(read(&frame(true, opcode::CLOSE, &payload)), [Seen::Close(Some(4413), "é".repeat(61))]);
    assert_eq!(close_payload(1000, ""), [0x03, 0xE8]);
    assert_eq!(close_payload(1000, &"r".repeat(124)).len(), 125);
}

#[test]
fn a_message_may_have_exactly_the_most_bytes() {
    // A9
    let exact = frame(true, opcode::BINARY, &[1; 100]);
    assert_eq!(read_pieces([exact.as_slice()], 100), [Seen::Binary(vec![1; 100])]);
    let too_big = [Seen::Violation(Violation::TooBig)];
    let over = frame(true, opcode::TEXT, &[b'a'; 101]);
    assert_eq!(read_pieces([&over[..2]], 100), too_big, "two bytes of header tell");
    let parts = frames(&[(false, opcode::TEXT, &[b'a'; 60]), (true, opcode::CONTINUATION, &[b'a'; 41])]);
    assert_eq!(read_pieces([&parts[..6 + 60 + 2]], 100), too_big, "the sum tells");
    let exact = frames(&[(false, opcode::TEXT, &[b'a'; 60]), (true, opcode::CONTINUATION, &[b'a'; 40])]);
    assert_eq!(read_pieces([exact.as_slice()], 100), [text(&"a".repeat(100))]);
    let control = frames(&[(false, opcode::TEXT, &[b'a'; 4]), (true, opcode::PING, &[7; 9])]);
    assert_eq!(read_pieces([control.as_slice()], 4), [Seen::Ping(vec![7; 9])], "control frames are apart");
    assert_eq!(Violation::TooBig.close_code(), CloseCode::TooBig);
    let huge = [0x82, 0x80 | 127, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4];
    assert_eq!(read_pieces([huge.as_slice()], usize::MAX >> 2), too_big);
}

#[test]
fn text_is_refused_at_the_first_wrong_byte() {
    // RFC 6455 §8.1; the prefix is fine, the byte after it makes every continuation wrong.
    for (prefix, wrong) in [
        ("κόσμε".as_bytes(), 0x80u8),
        (b"\xE2\x82", b'a'),
        (b"\xED", 0xA0),         // a surrogate
        (b"\xF4", 0x90),         // over U+10FFFF
        (b"\xC3\xA9", 0xF5),     // never a first byte
        (b"", 0xC0),             // over-long
        (b"\xE0", 0x80),         // over-long
        (b"\xF0", 0x8F),         // over-long
        (b"\xF0\x9D\x84", 0x20), // cut short
    ] {
        let payload = [prefix, &[wrong], b"aaaa"].concat();
        let refused = [Seen::Violation(NOT_UTF8)];
        let whole = frame(true, opcode::TEXT, &payload);
        assert_eq!(read(&whole), refused);
        let seen = 6 + prefix.len();
        assert_eq!(read_pieces([&whole[..seen]], MAX), [], "{prefix:?} may still become text");
        assert_eq!(read_pieces([&whole[..seen + 1]], MAX), refused, "{prefix:?} {wrong:x}");
        let fragments = frames(&[(false, opcode::TEXT, prefix), (false, opcode::CONTINUATION, &[wrong])]);
        assert_eq!(read(&fragments), refused);
    }
    assert_eq!(only_violation(&frame(true, opcode::TEXT, b"a\xE2\x82")), NOT_UTF8);
    let cut = frames(&[(false, opcode::TEXT, b"a\xE2"), (true, opcode::CONTINUATION, b"\x82")]);
    assert_eq!(only_violation(&cut), NOT_UTF8);
    assert_eq!(NOT_UTF8.close_code(), CloseCode::InvalidPayload);
}

#[test]
fn binary_is_any_bytes() {
    let input = frames(&[(false, opcode::BINARY, b"\xFF\xFE"), (true, opcode::CONTINUATION, b"\xC0")]);
    assert_eq!(read(&input), [Seen::Binary(vec![0xFF, 0xFE, 0xC0])]);
}

#[test]
fn memory_grows_with_what_arrived() {
    let payload = vec![b'x'; 60_000];
    let input = frame(true, opcode::TEXT, &payload);
    let mut reader = Reader::default();
    let mut out = Vec::new();
    feed(&mut reader, &input[..8], MAX, &mut out);
    assert!(reader.is_unfinished());
    assert!(reader.kept_bytes() < 512, "a header alone: {}", reader.kept_bytes());
    for (i, piece) in input[8..].chunks(1_000).enumerate() {
        feed(&mut reader, piece, MAX, &mut out);
        assert!(reader.kept_bytes() <= 512 + 2 * 1_000 * (i + 1));
        assert!(reader.kept_bytes() <= 512 + payload.len());
    }
    assert_eq!(out.len(), 1);
    assert_eq!((reader.kept_bytes(), reader.is_unfinished()), (0, false));
}

/// A peer of tungstenite that lives in memory.
#[derive(Default)]
struct Wire {
    incoming: Cursor<Vec<u8>>,
    outgoing: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.incoming.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            some => Ok(some),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message and how tungstenite's client is to cut it into frames; control frames go between the fragments.
#[derive(Clone, Debug)]
enum Sent {
    Text(String, Vec<usize>),
    Binary(Vec<u8>, Vec<usize>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let cuts = || prop::collection::vec(0usize..400, 0..4);
    let control = || prop::collection::vec(any::<u8>(), 0..=125);
    prop_oneof![
        ("\\PC{0,60}", cuts()).prop_map(|(text, cuts)| Sent::Text(text, cuts)),
        (prop::collection::vec(any::<u8>(), 0..400), cuts()).prop_map(|(bytes, cuts)| Sent::Binary(bytes, cuts)),
        (60_000usize..70_000, any::<u8>()).prop_map(|(len, byte)| Sent::Binary(vec![byte; len], vec![])),
        control().prop_map(Sent::Ping),
        control().prop_map(Sent::Pong),
    ]
}

/// Sends one message through tungstenite, in the fragments asked for.
fn send(client: &mut WebSocket<Wire>, first: Data, payload: &[u8], cuts: &[usize], between: &[u8]) {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
    cuts.sort_unstable();
    let mut start = 0;
    for (i, &end) in cuts.iter().chain([&payload.len()]).enumerate() {
        let opcode = if i == 0 { first } else { Data::Continue };
        let fin = i == cuts.len();
        let frame = TungsteniteFrame::message(payload[start..end].to_vec(), OpCode::Data(opcode), fin);
        client.write(Message::Frame(frame)).unwrap();
        if !fin {
            client.write(Message::Ping(between.to_vec().into())).unwrap();
        }
        start = end;
    }
}

/// What tungstenite's client writes for `list`, and what is to be read from it.
fn written_by_tungstenite(list: &[Sent]) -> (Vec<u8>, Vec<Seen>) {
    let mut client = WebSocket::from_raw_socket(Wire::default(), Role::Client, None);
    let mut expected = Vec::new();
    for one in list {
        match one {
            Sent::Text(text, cuts) => {
                send(&mut client, Data::Text, text.as_bytes(), cuts, b"between");
                expected.extend(cuts.iter().map(|_| Seen::Ping(b"between".to_vec())));
                expected.push(Seen::Text(text.clone()));
            }
            Sent::Binary(bytes, cuts) => {
                send(&mut client, Data::Binary, bytes, cuts, b"");
                expected.extend(cuts.iter().map(|_| Seen::Ping(vec![])));
                expected.push(Seen::Binary(bytes.clone()));
            }
            Sent::Ping(bytes) => {
                client.write(Message::Ping(bytes.clone().into())).unwrap();
                expected.push(Seen::Ping(bytes.clone()));
            }
            Sent::Pong(bytes) => {
                client.write(Message::Pong(bytes.clone().into())).unwrap();
                expected.push(Seen::Pong(bytes.clone()));
            }
        }
    }
    client.flush().unwrap();
    client.close(Some(CloseFrame { code: TungsteniteCode::Away, reason: "done".into() })).unwrap();
    client.flush().unwrap();
    expected.push(Seen::Close(Some(1001), "done".into()));
    (std::mem::take(&mut client.get_mut().outgoing), expected)
}

/// Cuts `input` at the given places, in any order, and reads the pieces.
fn read_cut(input: &[u8], cuts: &[usize], max: usize) -> Vec<Seen> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.sort_unstable();
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([input.len()]);
    read_pieces(starts.zip(ends).map(|(start, end)| &input[start..end]), max)
}

/// Frames that are mostly right, so that cutting them meets every state.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let opcodes = prop::sample::select(vec![0, 0, 0, 1, 1, 2, 8, 9, 10, 3]);
    let payload = prop_oneof![
        "[aé€𝄞]{0,12}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..8),
        (120usize..140).prop_map(|len| vec![b'a'; len]),
    ];
    let one = (
        prop::bool::weighted(0.6),
        opcodes,
        payload,
        any::<[u8; 4]>(),
        prop::option::weighted(0.05, any::<(usize, u8)>()),
    );
    prop::collection::vec(one, 1..12).prop_map(|list| {
        let mut out = Vec::new();
        for (fin, opcode, payload, mask, damage) in list {
            let start = out.len();
            append_client_frame(&mut out, fin || opcode >= 8, opcode, &payload, mask);
            if let Some((at, byte)) = damage {
                let len = out.len() - start;
                out[start + at % len] ^= byte;
            }
        }
        out
    })
}

proptest! {
    #[test]
    fn what_tungstenite_writes_is_read(
        list in prop::collection::vec(sent(), 0..6),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let (input, expected) = written_by_tungstenite(&list);
        prop_assert_eq!(read_cut(&input, &cuts, 70_000), expected);
    }

    #[test]
    fn what_we_write_tungstenite_reads(list in prop::collection::vec(sent(), 0..6), code in 3000u16..5000, reason: String) {
        let mut input = Vec::new();
        let mut expected = Vec::new();
        for one in list {
            let (opcode, payload, message) = match one {
                Sent::Text(text, _) => (opcode::TEXT, text.clone().into_bytes(), Message::text(text)),
                Sent::Binary(bytes, _) => (opcode::BINARY, bytes.clone(), Message::binary(bytes)),
                Sent::Ping(bytes) => (opcode::PING, bytes.clone(), Message::Ping(bytes.into())),
                Sent::Pong(bytes) => (opcode::PONG, bytes.clone(), Message::Pong(bytes.into())),
            };
            append_server_frame(&mut input, opcode, &payload);
            expected.push(message);
        }
        append_server_frame(&mut input, opcode::CLOSE, &close_payload(code, &reason));
        let wire = Wire { incoming: Cursor::new(input), outgoing: Vec::new() };
        let mut client = WebSocket::from_raw_socket(wire, Role::Client, Some(WebSocketConfig::default()));
        for message in expected {
            prop_assert_eq!(client.read().unwrap(), message);
        }
        let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close frame") };
        prop_assert_eq!(u16::from(frame.code), code);
        prop_assert!(reason.starts_with(frame.reason.as_str()) && frame.reason.len() + 3 >= reason.len().min(123));
    }

    #[test]
    fn cutting_the_input_anywhere_changes_nothing(
        input in prop_oneof![nearly_frames(), prop::collection::vec(any::<u8>(), 0..64)],
        cuts in prop::collection::vec(any::<usize>(), 0..24),
        max in 0usize..300,
    ) {
        let whole = read_pieces([input.as_slice()], max);
        prop_assert_eq!(&read_cut(&input, &cuts, max), &whole);
        prop_assert_eq!(&read_pieces(input.chunks(1), max), &whole);
    }

    #[test]
    fn the_mask_is_applied_byte_for_byte(payload in prop::collection::vec(any::<u8>(), 0..100), mask: [u8; 4]) {
        let mut fast = payload.clone();
        unmask(&mut fast, mask);
        let slow: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        prop_assert_eq!(fast, slow);
    }
}

#[test]
fn a_control_frame_of_tungstenite_is_cut_anywhere() {
    let mut client = WebSocket::from_raw_socket(Wire::default(), Role::Client, None);
    client.send(Message::Ping(vec![5; 125].into())).unwrap();
    let input = std::mem::take(&mut client.get_mut().outgoing);
    for cut in 0..=input.len() {
        assert_eq!(read_cut(&input, &[cut], MAX), [Seen::Ping(vec![5; 125])]);
    }
}

proptest! {
    #[test]
    fn the_fuzz_entry_holds(pieces: (u8, u8), input in nearly_frames()) {
        crate::protocol::fuzz::fuzz_frame(&[&[pieces.0, pieces.1], input.as_slice()].concat());
    }
}
