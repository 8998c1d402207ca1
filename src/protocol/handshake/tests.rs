//! The opening handshake: what is a head, what is an upgrade, where a token is found, and what every refusal says.

use super::*;
use crate::protocol::codes::Code;
use crate::protocol::fuzz::fuzz_head;
use proptest::prelude::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The headers of a good upgrade, Host first.
fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("Host", "edge.example"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ]
}

fn request(line: &str, headers: &[(&str, &str)]) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line}\r\n{headers}\r\n")
}

fn complete(bytes: &[u8]) -> (Head<'_>, usize) {
    match parse(bytes) {
        Ok(Parsed::Complete { head, consumed }) => (head, consumed),
        Ok(Parsed::Incomplete) => panic!("incomplete"),
        Err(refusal) => panic!("{refusal:?}"),
    }
}

fn refused(bytes: &[u8]) -> Refusal {
    fuzz_head(bytes);
    match parse(bytes) {
        Err(refusal) => refusal,
        Ok(Parsed::Complete { .. }) => panic!("complete"),
        Ok(Parsed::Incomplete) => panic!("incomplete"),
    }
}

fn is_incomplete(bytes: &[u8]) -> bool {
    matches!(parse(bytes), Ok(Parsed::Incomplete))
}

/// The status of the whole handshake: 101 or a refusal.
fn status(text: &str) -> u16 {
    fuzz_head(text.as_bytes());
    match parse(text.as_bytes()) {
        Ok(Parsed::Complete { head, .. }) => upgrade(&head).map_or_else(|refusal| refusal.status, |_| 101),
        Ok(Parsed::Incomplete) => panic!("incomplete"),
        Err(refusal) => refusal.status,
    }
}

/// The status with `changes` to the good headers: a name that is there is replaced, or left out where `None`.
fn status_with(changes: &[(&str, Option<&str>)]) -> u16 {
    let mut headers: Vec<(&str, &str)> = good();
    for &(name, value) in changes {
        let place = headers.iter().position(|(own, _)| *own == name);
        match (place, value) {
            (Some(i), Some(value)) => headers[i].1 = value,
            (Some(i), None) => drop(headers.remove(i)),
            (None, Some(value)) => headers.push((name, value)),
            (None, None) => panic!("nothing to leave out"),
        }
    }
    status(&request("GET /v1/connect HTTP/1.1", &headers))
}

/// The status with one more header line behind the good ones.
fn status_and(name: &str, value: &str) -> u16 {
    let mut headers = good();
    headers.push(("X-Between", "1"));
    let mut text = request("GET /v1/connect HTTP/1.1", &headers);
    text.truncate(text.len() - 2);
    status(&format!("{text}{name}: {value}\r\n\r\n"))
}

#[test]
fn the_example_of_the_rfc() {
    // RFC 6455 §1.3
    let text = request(
        "GET /chat?a=1 HTTP/1.1",
        &[
            ("Host", "server.example.com"),
            ("Upgrade", "websocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Origin", "http://example.com"),
            ("Sec-WebSocket-Protocol", "chat, pipeward.v1"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ],
    );
    let bytes = [text.as_bytes(), b"\x81\x80frames"].concat();
    let (head, consumed) = complete(&bytes);
    assert_eq!(consumed, text.len());
    assert_eq!((head.method, head.path, head.query), ("GET", "/chat", Some("a=1")));
    let Ok(upgrade) = upgrade(&head) else { panic!("refused") };
    assert_eq!((upgrade.host, upgrade.origin), ("server.example.com", Some("http://example.com")));
    assert!(upgrade.selects_v1 && upgrade.token.is_none());
    // B30: the extension is not answered.
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: pipeward.v1\r\n\r\n";
    assert_eq!(String::from_utf8(accept(&upgrade)).unwrap(), expected);
}

#[test]
fn every_prefix_is_incomplete() {
    let text = request("GET /v1/connect HTTP/1.1", &good());
    for len in 0..text.len() {
        assert!(is_incomplete(&text.as_bytes()[..len]));
    }
    assert_eq!(complete(text.as_bytes()).1, text.len());
}

#[test]
fn headers_are_found_in_any_case_and_trimmed() {
    let text = request("GET / HTTP/1.1", &[("x-Name", "\t one \t"), ("X-NAME", "two"), ("Empty", "")]);
    let (head, _) = complete(text.as_bytes());
    assert_eq!(head.header("X-Name"), Some("one"));
    assert_eq!(head.values("x-name").collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(head.header("empty"), Some(""));
    assert_eq!(head.header("absent"), None);
    assert_eq!(head.headers().nth(1), Some(("X-NAME", "two")));
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    // INVARIANTS 28
    for wrong in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n\tfolded: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\x7F\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nna(me: a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET /  HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET /é HTTP/1.1\r\n\r\n",
        "G@T / HTTP/1.1\r\n\r\n",
        "GET v1 HTTP/1.1\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\n\r\n",
        "GET http:///x HTTP/1.1\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        let refusal = refused(wrong.as_bytes());
        assert_eq!((refusal.status, refusal.code), (400, Code::Invalid), "{wrong:?}");
    }
    assert_eq!(refused(b"GET / HTTP/1.1\r\nX: \xFF\r\n\r\n").status, 400);
}

#[test]
fn what_is_no_http_is_refused_at_once() {
    // A TLS client, and PROXY headers from a peer that is not trusted (B27).
    assert_eq!(refused(b"\x16\x03\x01\x02").status, 400);
    assert_eq!(refused(b"\r\n\r\n\0\r\nQUIT\n").status, 400);
    assert_eq!(refused(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n").status, 400);
}

#[test]
fn the_head_is_bounded_in_bytes() {
    // B16: exactly the bound is still fine.
    let empty = request("GET / HTTP/1.1", &[("Host", "a"), ("X", "")]).len();
    let of_len = |len: usize| request("GET / HTTP/1.1", &[("Host", "a"), ("X", &"x".repeat(len - empty))]);
    let longest = of_len(HEAD_BYTES_MAX);
    assert_eq!(complete(longest.as_bytes()).1, HEAD_BYTES_MAX);
    let longer = of_len(HEAD_BYTES_MAX + 1);
    assert_eq!(refused(longer.as_bytes()).status, 431);
    assert_eq!(refused(&longer.as_bytes()[..HEAD_BYTES_MAX]).status, 431);
    assert!(is_incomplete(&longer.as_bytes()[..HEAD_BYTES_MAX - 1]));
    assert_eq!(refused(&[b'A'; HEAD_BYTES_MAX * 2]).status, 431);
}

#[test]
fn the_head_is_bounded_in_lines() {
    let of_lines = |lines: usize| request("GET /v1/connect HTTP/1.1", &vec![("A", "b"); lines]);
    assert_eq!(complete(of_lines(HEAD_LINES_MAX).as_bytes()).0.headers().count(), HEAD_LINES_MAX);
    assert_eq!(refused(of_lines(HEAD_LINES_MAX + 1).as_bytes()).status, 431);
}

#[test]
fn the_path_is_known_before_the_rest() {
    // B1: path before head size.
    let long = format!("GET /nowhere?token=x HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
    assert_eq!(refused(long.as_bytes()).status, 431);
    assert_eq!(requested_path(long.as_bytes()), Some("/nowhere"));
    assert_eq!(requested_path(b"GET /nowhere HTTP/1.1"), None);
    assert_eq!(requested_path(b"GET nowhere HTTP/1.1\r\n"), None);
}

#[test]
fn targets_in_absolute_form() {
    // RFC 9112 §3.2.2
    let line = "GET ws://EDGE.example/v1/connect?token=T HTTP/1.1";
    let text = request(line, &good());
    let (head, _) = complete(text.as_bytes());
    assert_eq!((head.path, head.query), ("/v1/connect", Some("token=T")));
    assert_eq!(status(&text), 101);
    assert_eq!(status(&request("GET http://other.example/v1/connect HTTP/1.1", &good())), 400);
    let bare = request("GET https://edge.example HTTP/1.1", &[]);
    assert_eq!(complete(bare.as_bytes()).0.path, "/");
    let star = request("OPTIONS * HTTP/1.1", &[]);
    assert_eq!(complete(star.as_bytes()).0.path, "*");
}

#[test]
fn what_makes_an_upgrade_valid() {
    // B5
    assert_eq!(status_with(&[]), 101);
    assert_eq!(status_with(&[("Host", None)]), 400);
    assert_eq!(status_with(&[("Host", Some(""))]), 400);
    for host in ["a b", "a,b", "user@a", "a/b", "a?b", "a#b"] {
        assert_eq!(status_with(&[("Host", Some(host))]), 400, "{host}");
    }
    assert_eq!(status_with(&[("Host", Some("[::1]:8080"))]), 101);
    assert_eq!(status_with(&[("Upgrade", None)]), 426);
    assert_eq!(status_with(&[("Upgrade", None), ("Connection", None)]), 426);
    assert_eq!(status_with(&[("Upgrade", Some("h2c"))]), 400);
    assert_eq!(status_with(&[("Upgrade", Some("h2c, WebSocket"))]), 101);
    assert_eq!(status_with(&[("Connection", None)]), 400);
    assert_eq!(status_with(&[("Connection", Some("keep-alive"))]), 400);
    assert_eq!(status_with(&[("Connection", Some("keep-alive,uPGRADE"))]), 101);
    assert_eq!(status_with(&[("Connection", Some("keep-alive")), ("connection", Some("upgrade"))]), 101);
    for version in ["8", "12", "14", "013", "13, 8", ""] {
        assert_eq!(status_with(&[("Sec-WebSocket-Version", Some(version))]), 426, "{version}");
    }
    assert_eq!(status_with(&[("Sec-WebSocket-Version", None)]), 426);
    for line in ["POST /v1/connect HTTP/1.1", "HEAD /v1/connect HTTP/1.1", "get /v1/connect HTTP/1.1"] {
        assert_eq!(status(&request(line, &good())), 405, "{line}");
    }
    assert_eq!(status(&request("GET /v1/connect HTTP/1.0", &good())), 400);
}

#[test]
fn the_key_is_16_bytes_in_base64() {
    // B5
    let with = |key: &str| status_with(&[("Sec-WebSocket-Key", Some(key))]);
    assert_eq!(status_with(&[("Sec-WebSocket-Key", None)]), 400);
    let wrong = [
        "",
        "short",
        "dGhlIHNhbXBsZSBub25jZQ",       // without padding
        "dGhlIHNhbXBsZSBub25jZQ=",      // with too little
        "dGhlIHNhbXBsZSBub25j",         // 15 bytes
        "dGhlIHNhbXBsZSBub25jZWE=",     // 17 bytes
        "dGhlIHNhbXBsZSBub25jZWFiY2Q=", // 20 bytes
        "dGhlIHNhbXBsZSBub25jZ_==",     // another alphabet
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for key in wrong {
        assert_eq!(with(key), 400, "{key}");
    }
    assert_eq!(with(KEY), 101);
    assert_eq!(with("dGhlIHNhbXBsZSBub25jZf=="), 101, "bits behind the 16th byte");
}

#[test]
fn an_upgrade_has_no_body() {
    // INVARIANTS 28
    assert_eq!(status_and("Content-Length", "0"), 101);
    for length in ["1", "00", "+0", "-1", "0, 0", "", "x"] {
        assert_eq!(status_and("Content-Length", length), 400, "{length}");
    }
    for coding in ["chunked", "identity", ""] {
        assert_eq!(status_and("Transfer-Encoding", coding), 400, "{coding}");
    }
}

#[test]
fn fields_that_decide_something_stand_once() {
    // INVARIANTS 28, B4
    for (name, value) in good().into_iter().filter(|(name, _)| *name != "Connection") {
        assert_eq!(status_and(&name.to_ascii_uppercase(), value), 400, "{name}");
    }
    for (name, value) in [("Origin", "http://a"), ("Authorization", "Bearer a"), ("Content-Length", "0")] {
        let mut headers = good();
        headers.push((name, value));
        assert_eq!(status(&request("GET / HTTP/1.1", &headers)), 101, "{name}");
        headers.push((name, value));
        assert_eq!(status(&request("GET / HTTP/1.1", &headers)), 400, "{name}");
    }
    assert_eq!(status_and("Connection", "close"), 101);
}

/// The token of an upgrade with this query and these further headers.
fn found(query: &str, headers: &[(&str, &str)]) -> (Option<String>, TokenSource, bool) {
    let text = request(&format!("GET /v1/connect{query} HTTP/1.1"), &[good().as_slice(), headers].concat());
    fuzz_head(text.as_bytes());
    let (head, _) = complete(text.as_bytes());
    match upgrade(&head) {
        Ok(upgrade) => (upgrade.token.map(String::from), upgrade.bearer_from, upgrade.selects_v1),
        Err(refusal) => panic!("{refusal:?}"),
    }
}

#[test]
fn the_first_token_found_wins() {
    // PROTOCOL §1, A3, B4
    let header = ("Authorization", "Bearer H");
    let subprotocol = ("Sec-WebSocket-Protocol", "pipeward.token.S");
    let some = |token: &str, source| (Some(token.to_string()), source, false);
    let nothing = (None, TokenSource::Nowhere, false);
    assert_eq!(found("", &[]), nothing);
    assert_eq!(found("?token=Q", &[header, subprotocol]), some("H", TokenSource::Header));
    assert_eq!(found("?token=Q", &[subprotocol]), some("S", TokenSource::Subprotocol));
    assert_eq!(found("?token=Q", &[]), some("Q", TokenSource::Query));
    for authorization in ["bearer H", "BEARER  H ", "Bearer\tH"] {
        assert_eq!(found("", &[("Authorization", authorization)]), some("H", TokenSource::Header));
    }
    // Empty is present, and does not fall through.
    for authorization in ["Bearer", "Bearer "] {
        assert_eq!(found("?token=Q", &[("Authorization", authorization)]), some("", TokenSource::Header));
    }
    let empty = ("Sec-WebSocket-Protocol", "pipeward.token.");
    assert_eq!(found("?token=Q", &[empty]), some("", TokenSource::Subprotocol));
    assert_eq!(found("?token=", &[]), some("", TokenSource::Query));
    assert_eq!(found("?token", &[]), some("", TokenSource::Query));
    // Another scheme is not a token.
    for authorization in ["Basic QTpC", "Bearertoken", ""] {
        assert_eq!(found("", &[("Authorization", authorization)]), nothing, "{authorization}");
        assert_eq!(found("?token=Q", &[("Authorization", authorization)]), some("Q", TokenSource::Query));
    }
}

#[test]
fn a_token_in_the_query_is_decoded() {
    let from_query = |query: &str| found(query, &[]).0;
    assert_eq!(from_query("?a=1&token=a%2Eb%2ec&token=second").as_deref(), Some("a.b.c"));
    assert_eq!(from_query("?%74oken=a+b%20c").as_deref(), Some("a b c"));
    assert_eq!(from_query("?token=a=b").as_deref(), Some("a=b"));
    assert_eq!(from_query("?token=%4&x").as_deref(), Some("%4"));
    assert_eq!(from_query("?token=%zz%").as_deref(), Some("%zz%"));
    assert_eq!(from_query("?token=%FF").as_deref(), Some("\u{FFFD}"));
    assert_eq!(from_query("?tokens=1&Token=2&&=3"), None);
    assert_eq!(from_query("?"), None);
}

#[test]
fn subprotocols() {
    // B3
    let offered = |value: &str| found("", &[("Sec-WebSocket-Protocol", value)]);
    assert!(offered("pipeward.v1").2);
    assert!(offered("chat ,\tpipeward.v1,").2);
    assert!(!offered("chat").2);
    assert!(!offered("Pipeward.V1, pipeward.v10").2);
    let (token, source, selects_v1) = offered("pipeward.token.a.b-c_d, pipeward.v1");
    assert_eq!((token.as_deref(), source, selects_v1), (Some("a.b-c_d"), TokenSource::Subprotocol, true));
    let lines = [("Sec-WebSocket-Protocol", "pipeward.token.T"), ("Sec-WebSocket-Protocol", "pipeward.v1")];
    assert!(found("", &lines).2);
    // A token is never echoed, and nothing is selected where nothing was offered that we speak.
    let text = request("GET / HTTP/1.1", &[good().as_slice(), &lines[..1]].concat());
    let (head, _) = complete(text.as_bytes());
    let Ok(upgrade) = upgrade(&head) else { panic!("refused") };
    let response = String::from_utf8(accept(&upgrade)).unwrap();
    assert!(!response.contains("pipeward") && !response.contains("Protocol:"), "{response}");
}

#[test]
fn refusals_are_whole_responses() {
    let text = |refusal: Refusal| String::from_utf8(refusal.encode()).unwrap();
    let expected = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\
        Cache-Control: no-store\r\nConnection: close\r\n\r\n{\"code\":\"FORBIDDEN\",\"error\":\"Access denied\"}";
    assert_eq!(text(Refusal::new(Code::Forbidden, Code::Forbidden.text())), expected);
    let wrong_version = text(Refusal::upgrade_required("x"));
    assert!(wrong_version.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    assert!(wrong_version.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    assert!(wrong_version.contains("\r\nUpgrade: websocket\r\n"));
    assert!(wrong_version.contains("\r\nConnection: close, Upgrade\r\n"));
    assert!(wrong_version.ends_with("{\"code\":\"INVALID\",\"error\":\"x\"}"));
    assert!(text(Refusal::method_not_allowed()).contains("\r\nAllow: GET\r\n"));
    assert!(text(Refusal::new(Code::Unauthenticated, "no")).contains("\r\nWWW-Authenticate: Bearer\r\n"));
    // B29
    let late = text(Refusal::head_timeout());
    assert!(late.starts_with("HTTP/1.1 408 Request Timeout\r\n") && late.contains("\"code\":\"TIMEOUT\""));
    let large = text(Refusal::head_too_large());
    assert!(large.starts_with("HTTP/1.1 431 ") && large.contains("\"code\":\"INVALID\""));
    assert!(text(Refusal::not_found()).starts_with("HTTP/1.1 404 Not Found\r\n"));
    // G13
    let retry = |seconds| text(Refusal::new(Code::Draining, "x").with_retry_after_s(seconds));
    assert!(retry(7).contains("\r\nRetry-After: 7\r\n"));
    assert!(retry(0).contains("\r\nRetry-After: 1\r\n"));
    assert!(text(Refusal::invalid("say \"\n\u{1}é\"")).ends_with("\"error\":\"say \\\"\\n\\u0001é\\\"\"}"));
}

#[test]
fn every_code_has_a_reason_phrase() {
    for code in Code::ALL {
        let text = String::from_utf8(Refusal::new(*code, "x").encode()).unwrap();
        let line = text.lines().next().unwrap();
        assert!(line.len() > "HTTP/1.1 400 ".len() && line.contains(&code.status().to_string()), "{line}");
    }
}

#[test]
fn plain_answers() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nCache-Control: no-store\r\n\
        Connection: close\r\n\r\n";
    assert_eq!(plain(200, "text/plain", b"ok\n", true), ok.as_bytes());
    assert_eq!(plain(200, "text/plain", b"ok\n", false), [ok.as_bytes(), b"ok\n"].concat());
}

/// Pieces from which nearly valid heads are made.
fn head_pieces() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"GET ",
        b"/v1/connect",
        b"?token=%41&x=+",
        b" HTTP/1.1\r\n",
        b"GET /v1/connect HTTP/1.1\r\n",
        b"Host: edge.example\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Sec-WebSocket-Protocol: pipeward.v1, pipeward.token.T\r\n",
        b"Authorization: Bearer T\r\n",
        b"Origin: \xC3\xA9\r\n",
        b"Content-Length: 0\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\0",
        b"\xFF",
    ];
    let ordered = prop::collection::vec(prop::bool::weighted(0.9), 12).prop_map({
        let pieces = pieces.clone();
        move |keep| {
            let lines = pieces[4..14].iter().zip(&keep[..10]).filter(|(_, keep)| **keep);
            let mut out: Vec<u8> = lines.flat_map(|(piece, _)| piece.iter().copied()).collect();
            out.extend_from_slice(b"\r\n\x81");
            out
        }
    });
    prop_oneof![prop::collection::vec(prop::sample::select(pieces), 0..16).prop_map(|list| list.concat()), ordered]
}

proptest! {
    #[test]
    fn cutting_the_head_anywhere_changes_nothing(input in head_pieces()) {
        fuzz_head(&input);
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_head(&input);
    }
}
