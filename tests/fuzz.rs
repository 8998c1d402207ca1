//! Every parser that sees bytes from outside, for some seconds each: seeds are mutated and handed to the fuzz entries,
//! which assert what must hold for any input.
//!
//! The generator is fixed, so a run on the same machine goes the same way; only how far it comes depends on its speed.
//! `PIPEWARD_FUZZ_SEED=N` takes another way, `PIPEWARD_FUZZ_SECONDS=N` a longer one. A failing input is printed in
//! hexadecimal: put it into `REGRESSIONS`. `cargo fuzz` (the folder `fuzz`) calls the same entries, guided by coverage.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use pipeward::auth::fuzz_token;
use pipeward::protocol::frame::{append_client_frame, close_payload, opcode};
use pipeward::protocol::fuzz::{fuzz_frame, fuzz_head, fuzz_proxy};
use pipeward::protocol::message_fuzz::{fuzz_message, fuzz_names};

#[path = "../fuzz/entries/config.rs"]
mod config_entry;

/// Inputs that once failed, by entry, in hexadecimal. They run first.
const REGRESSIONS: &[(&str, &str)] = &[];

/// Longest input, in bytes. Longer ones find nothing that these do not.
const INPUT_BYTES_MAX: usize = 3_000;
/// Inputs that are tried at least, however slow the machine is.
const INPUTS_MIN: u64 = 300;

#[test]
fn frames() {
    let mut seeds = Vec::new();
    let frame = |fin: bool, opcode: u8, payload: &[u8]| {
        let mut out = vec![3, 200];
        append_client_frame(&mut out, fin, opcode, payload, [7, 0, 255, 1]);
        out
    };
    let long = "é".repeat(90);
    seeds.push(frame(true, opcode::TEXT, b"{\"type\":\"ping\"}"));
    seeds.push(frame(true, opcode::TEXT, long.as_bytes()));
    seeds.push(frame(true, opcode::BINARY, &[0; 300]));
    seeds.push(frame(true, opcode::CLOSE, &close_payload(1000, "bye")));
    seeds.push(frame(true, opcode::CLOSE, &[]));
    let mut fragments = frame(false, opcode::TEXT, &long.as_bytes()[..91]);
    append_client_frame(&mut fragments, true, opcode::PING, b"are you there", [1, 2, 3, 4]);
    append_client_frame(&mut fragments, false, opcode::CONTINUATION, &long.as_bytes()[91..100], [9; 4]);
    append_client_frame(&mut fragments, true, opcode::CONTINUATION, &long.as_bytes()[100..], [0; 4]);
    append_client_frame(&mut fragments, true, opcode::PONG, b"", [0; 4]);
    seeds.push(fragments);
    let words: &[&[u8]] = &[&[0x81, 0x80], &[0x01, 0x80], &[0x80, 0x80], &[0x88, 0x82], &[0xFE], &[0xFF; 8], &[0; 8]];
    fuzz("frame", fuzz_frame, &seeds, words);
}

#[test]
fn request_heads() {
    let seeds = texts(&[
        "GET /v1/connect HTTP/1.1\r\nHost: edge.example\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://app.example\r\n\
         Sec-WebSocket-Protocol: pipeward.v1, pipeward.token.abc\r\n\r\n\x01\x02",
        "GET /v1/connect?token=a%2Bb&x=%zz HTTP/1.1\r\nhost: [::1]:80\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nauthorization: Bearer T\r\n\r\n",
        "HEAD http://edge.example/healthz HTTP/1.1\r\nHost: edge.example\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.0\r\n\r\n",
    ]);
    let words: &[&[u8]] = &[
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b": ",
        b" HTTP/1.1",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 1\r\n",
        b"Host: other\r\n",
        b"\r\n folded",
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
        b"?token=",
        b"%",
        b"\xC3\xA9",
        b"://",
    ];
    fuzz("head", fuzz_head, &seeds, words);
}

#[test]
fn proxy_headers() {
    let mut seeds = texts(&[
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n",
        "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    ]);
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let v2 = |command_and_family: &[u8], body: &[u8]| {
        let length = (body.len() as u16).to_be_bytes();
        [SIGNATURE, command_and_family, &length, body].concat()
    };
    seeds.push(v2(&[0x21, 0x11], &[192, 0, 2, 1, 198, 51, 100, 1, 0xDC, 4, 1, 0xBB]));
    seeds.push(v2(&[0x21, 0x21], &[[1; 16], [2; 16]].concat()));
    seeds.push(v2(&[0x21, 0x11], &[[9; 12].as_slice(), &[4, 0, 3, 1, 2, 3]].concat()));
    seeds.push(v2(&[0x20, 0x00], &[]));
    let words: &[&[u8]] =
        &[b"PROXY ", SIGNATURE, b"TCP4 ", b"TCP6 ", b"\r\n", b" ", b"0", b"65536", b"::ffff:1.2.3.4", &[0x21]];
    fuzz("proxy", fuzz_proxy, &seeds, words);
}

#[test]
fn messages() {
    let seeds = texts(&[
        r#"{"type":"publish","id":7,"pipe":"team-chat","event":"message","data":{"a":[1,-2.5e+7,null,"\ud83d\ude00"]},"echo":false}"#,
        r#"{"type":"subscribe","id":"x","pipes":["a","b:c"],"events":["one","two"],"presence":true}"#,
        r#" { "type" : "unsubscribe" , "pipe" : "a" } "#,
        r#"{"type":"push","to":{"user":"ann"},"event":"e","data":12345678901234567890123}"#,
        r#"{"type":"action","name":"f","args":{"deep":[[[[[[[[{}]]]]]]]]},"id":null}"#,
        r#"{"type":"refresh","token":"a.b.c"}"#,
        r#"{"type":"ping","id":-9007199254740991}"#,
        "[1e400, true, \"\u{7f}é\"]",
    ]);
    let words: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"\\",
        b",",
        b":",
        b"null",
        b"\"id\":1,",
        b"\"data\":",
        b"\"pipe\":\"a\",",
        b"\\u0070",
        b"\\ud800",
        b"1e400",
        b"-0",
        b"0.",
        b"\xF0\x9F\x98\x80",
        b"\x1F",
        b"[[[[[[[[[[[[[[[[",
        b"{\"a\":{\"a\":{\"a\":",
    ];
    fuzz("message", fuzz_message, &seeds, words);
}

#[test]
fn names() {
    let seeds = texts(&[
        "team-*\nteam-chat",
        "**:user-{user.id}\nacme:user-ann",
        "{tenant}:{org}:team-{team}\nacme:eu:team-red",
        "a*b**c\naxbycc",
        "plain\nplain",
    ]);
    let words: &[&[u8]] = &[b"*", b"**", b":", b"{", b"}", b"{a}", b"{user.id}", b"{user.x}", b"\n", b"-", b" ", b"a"];
    fuzz("names", fuzz_names, &seeds, words);
}

#[test]
fn tokens() {
    let seeds = texts(&[
        r#"{"sub":"ann","exp":1700000100,"nbf":1699999999.5,"iat":1699999990,"name":"Ann","roles":["admin","x"],"role":"y"}"#,
        r#"{"sub":"ann","tenant":"acme","org":"eu","team":"red","features":["a"],"info":{"deep":[1,2]},"jti":"1","sid":"2"}"#,
        r#"{"sub":"ann","pipes":{"team-*":{"subscribe":true,"publish":1},"a":{},"**":{"presence":true}}}"#,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.AAAA",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
    ]);
    let words: &[&[u8]] = &[
        b"\"sub\":",
        b"\"exp\":0,",
        b"\"exp\":1e308,",
        b"\"aud\":\"x\",",
        b"\"pipes\":{},",
        b"true",
        b"null",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"*",
        b"\\u0000",
        b".",
        b"=",
        b"eyJ",
    ];
    fuzz("token", fuzz_token, &seeds, words);
}

#[test]
fn configurations() {
    let seeds = texts(&[
        "[edge]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\nworkers = 2\norigins = [\"https://a.example\"]\n\
         trusted_proxies = [\"10.0.0.0/8\"]\nping_s = 25\n\n[auth]\nanonymous = true\n",
        "[auth.token]\nhmac_secret = \"0123456789abcdef0123456789abcdef\"\nissuer = \"x\"\nleeway_s = 5\n",
        "[limits]\nmessage_bytes = 100\nwhen_slow = \"drop_oldest\"\npublish = { per_s = 0.5, burst = 3 }\n\
         [limits.per_user]\nbytes = { per_s = 10, burst = 1e6 }\n",
        "[pipe.\"{tenant}:team-{user.team}\"]\nsubscribe = true\npublic = true\n[pipe.\"**\"]\npublish = false\n",
        "limits.connections = 0\nedge = { workers = 1 }\n",
    ]);
    let words: &[&[u8]] = &[
        b"[",
        b"]",
        b"\n",
        b" = ",
        b"\"",
        b"'''",
        b"\"\"\"",
        b"#",
        b"{",
        b"}",
        b"true",
        b"nan",
        b"inf",
        b"-1",
        b"9223372036854775807",
        b"1e999",
        b"1979-05-27",
        b"[[pipe]]\n",
        b"[limits]\n",
        b"bytes = { per_s = 1 }\n",
        b"*",
    ];
    fuzz("config", config_entry::fuzz_config, &seeds, words);
}

#[test]
fn the_generator_finds_a_planted_fault() {
    let planted = |input: &[u8]| assert!(!input.windows(3).any(|three| three == b"}}{"), "planted");
    let seeds = texts(&["{\"a\":{}}"]);
    let failure = search(planted, &seeds, &[b"{"], 1, Duration::from_secs(20), INPUTS_MIN);
    let (input, message) = failure.expect("the fault is found");
    assert!(input.windows(3).any(|three| three == b"}}{") && message == "planted", "{message}");
    assert_eq!(from_hex(&to_hex(&input)), input);
}

// ---- the generator -----------------------------------------------------------------------------------------------

fn fuzz(name: &str, entry: impl Fn(&[u8]), seeds: &[Vec<u8>], words: &[&[u8]]) {
    for (_, hex) in REGRESSIONS.iter().filter(|(entry, _)| *entry == name) {
        entry(&from_hex(hex));
    }
    seeds.iter().for_each(|seed| entry(seed));
    let time = Duration::from_secs(setting("PIPEWARD_FUZZ_SECONDS").unwrap_or(2));
    let start = setting("PIPEWARD_FUZZ_SEED").unwrap_or(0);
    if let Some((input, message)) = search(entry, seeds, words, start, time, INPUTS_MIN) {
        panic!("{name}: {message}\nthe input, in hexadecimal: {}", to_hex(&input));
    }
}

/// Tries mutated inputs; the first that makes the entry panic, and what it said.
fn search(
    entry: impl Fn(&[u8]),
    seeds: &[Vec<u8>],
    words: &[&[u8]],
    start: u64,
    time: Duration,
    inputs_min: u64,
) -> Option<(Vec<u8>, String)> {
    let mut random = Random(start ^ 0x9E37_79B9_7F4A_7C15);
    let mut input = Vec::new();
    let began = Instant::now();
    let mut inputs = 0;
    while inputs < inputs_min || began.elapsed() < time {
        inputs += 1;
        // Mostly a few steps away from a seed; now and then further.
        if input.is_empty() || input.len() > INPUT_BYTES_MAX || !random.one_in(4) {
            input.clone_from(random.pick(seeds));
        }
        for _ in 0..=random.below(6) {
            mutate(&mut input, &mut random, seeds, words);
        }
        input.truncate(INPUT_BYTES_MAX);
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| entry(&input))) {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            return Some((input, message));
        }
    }
    println!("{inputs} inputs");
    None
}

fn mutate(input: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>], words: &[&[u8]]) {
    let at = random.below(input.len() + 1);
    let end = (at + 1 + random.below(12)).min(input.len());
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 if at < input.len() => {
            input[at] = *random.pick(&[0, 1, 0x7F, 0x80, 0xC0, 0xED, 0xF4, 0xFE, 0xFF, b'0', b'"'])
        }
        3 => drop(input.drain(at..end.max(at))),
        4 => {
            let again = input[at..end.max(at)].to_vec();
            insert(input, at, &again);
        }
        5 => input.truncate(at),
        6 => {
            let other = random.pick(seeds);
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => insert(input, at, words[random.below(words.len())]),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hexadecimal"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}
