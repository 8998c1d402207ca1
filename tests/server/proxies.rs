//! Whose address a connection is counted under: X-Forwarded-For and the PROXY protocol, believed from trusted proxies
//! and from nobody else. The cap per address, set to one, shows which address was taken.

use std::net::SocketAddr;

use crate::support::{Client, Raw, Request, Response, Server, token};

fn server(trusted: &str) -> Server {
    Server::start(&format!("[edge]\nworkers = 2\ntrusted_proxies = [{trusted}]\n[limits]\nconnections_per_ip = 1\n"))
}

fn request() -> Request {
    Request::upgrade().token(&token("ann", &[]))
}

fn forwarded(hops: &str) -> Request {
    request().header("X-Forwarded-For", hops)
}

/// Connects with these bytes before the request.
#[track_caller]
fn behind(to: SocketAddr, proxy_header: &[u8], request: &Request) -> Result<Client, Response> {
    let mut raw = Raw::connect(to);
    raw.send([proxy_header, request.text().as_bytes()].concat());
    Client::greet(raw)
}

/// Asserts that the two count as one address.
#[track_caller]
fn assert_same(server: &Server, one: (&[u8], &Request), other: (&[u8], &Request)) {
    let first = behind(server.address, one.0, one.1).unwrap_or_else(|response| panic!("the first: {response:?}"));
    let Err(response) = behind(server.address, other.0, other.1) else { panic!("the two are different addresses") };
    response.assert_refused(429, "TOO_MANY_CONNECTIONS");
    first.close();
}

/// Asserts that the two count as different addresses.
#[track_caller]
fn assert_different(server: &Server, one: (&[u8], &Request), other: (&[u8], &Request)) {
    let first = behind(server.address, one.0, one.1).unwrap_or_else(|response| panic!("the first: {response:?}"));
    let second = behind(server.address, other.0, other.1).unwrap_or_else(|response| panic!("the second: {response:?}"));
    first.close();
    second.close();
}

/// A PROXY header of version 2 for TCP over IPv4, from this address, with some TLVs behind it.
fn version_2(source: [u8; 4], tlv_bytes: usize) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend_from_slice(&(12 + tlv_bytes as u16).to_be_bytes());
    header.extend_from_slice(&source);
    header.extend_from_slice(&[10, 0, 0, 1, 0xC0, 0x01, 0x1F, 0x90]);
    header.resize(header.len() + tlv_bytes, 4);
    header
}

fn version_1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 10.0.0.1 49153 8080\r\n").into_bytes()
}

// B27: from a trusted proxy the rightmost hop that is not trusted counts.
#[test]
fn forwarded_for_counts_from_a_trusted_proxy() {
    let server = server("\"127.0.0.1\", \"10.0.0.0/8\"");
    let plain: &[u8] = b"";
    let pair = |one: &str, other: &str| (forwarded(one), forwarded(other));
    for (one, other) in [
        ("203.0.113.1", "203.0.113.2"),
        ("203.0.113.1, 203.0.113.2", "203.0.113.1, 203.0.113.3"),
        ("203.0.113.1, 10.9.9.9", "203.0.113.2, 10.9.9.9"),
        ("2001:db8:0:1::1", "2001:db8:0:2::1"),
    ] {
        let (one, other) = pair(one, other);
        assert_different(&server, (plain, &one), (plain, &other));
    }
    for (one, other) in [
        ("203.0.113.1", "203.0.113.1"),
        // Whatever a client writes itself stands left of what its proxy adds.
        ("203.0.113.1, 203.0.113.9", "203.0.113.2, 203.0.113.9"),
        ("nonsense, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.1.1.1, 10.2.2.2", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        // B28: one /64 is one address.
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"),
        ("[2001:db8:0:1::1]:4711", "2001:db8:0:1::3"),
        // B27: a malformed one is ignored, so the proxy's own address counts.
        ("nonsense", "203.0.113.300"),
        ("203.0.113.1, nonsense", "203.0.113.2, "),
    ] {
        let (one, other) = pair(one, other);
        assert_same(&server, (plain, &one), (plain, &other));
    }
    // Several lines are one list.
    let lines = request().header("X-Forwarded-For", "203.0.113.1").header("X-Forwarded-For", "203.0.113.9");
    assert_same(&server, (plain, &lines), (plain, &forwarded("203.0.113.9")));
    assert_different(&server, (plain, &lines), (plain, &forwarded("203.0.113.1")));
    // Nothing said: the proxy's own address.
    assert_same(&server, (plain, &request()), (plain, &forwarded("nonsense")));
}

// B27, GD-8: from anybody else it is just a header, else every client could choose its address.
#[test]
fn forwarded_for_of_others_counts_for_nothing() {
    for trusted in ["", "\"10.0.0.0/8\", \"127.0.0.2\""] {
        let server = server(trusted);
        let plain: &[u8] = b"";
        assert_same(&server, (plain, &forwarded("203.0.113.1")), (plain, &forwarded("203.0.113.2")));
        assert_same(&server, (plain, &request()), (plain, &forwarded("203.0.113.2")));
    }
}

// B27: PROXY protocol, versions 1 and 2, from a trusted proxy.
#[test]
fn a_proxy_header_counts_from_a_trusted_proxy() {
    let server = server("\"127.0.0.0/8\"");
    let request = request();
    let pair = |one: Vec<u8>, other: Vec<u8>| (one, other);
    for (one, other) in [
        pair(version_1("203.0.113.1"), version_1("203.0.113.2")),
        pair(version_2([203, 0, 113, 1], 0), version_2([203, 0, 113, 2], 0)),
        pair(version_1("203.0.113.1"), version_2([203, 0, 113, 2], 40)),
        pair(version_1("203.0.113.1"), vec![]),
    ] {
        assert_different(&server, (&one, &request), (&other, &request));
    }
    for (one, other) in [
        pair(version_1("203.0.113.1"), version_1("203.0.113.1")),
        pair(version_1("203.0.113.1"), version_2([203, 0, 113, 1], 100)),
        pair(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::f 2001:db8::2 3 4\r\n".to_vec(),
        ),
        // The proxy speaks for itself, or does not know.
        pair(b"PROXY UNKNOWN\r\n".to_vec(), vec![]),
        pair(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec(), vec![]),
    ] {
        assert_same(&server, (&one, &request), (&other, &request));
    }
}

// B27: with both, X-Forwarded-For counts only if the peer that PROXY names is trusted too.
#[test]
fn forwarded_for_behind_a_proxy_header_needs_trust_in_its_peer() {
    let server = server("\"127.0.0.1\", \"10.0.0.0/8\"");
    let (untrusted, trusted) = (version_1("203.0.113.1"), version_1("10.1.1.1"));
    let (one, other) = (forwarded("198.51.100.1"), forwarded("198.51.100.2"));
    assert_same(&server, (&untrusted, &one), (&untrusted, &other));
    assert_different(&server, (&trusted, &one), (&trusted, &other));
}

// B27: the bytes may come as they like.
#[test]
fn a_proxy_header_may_come_byte_by_byte() {
    let server = server("\"127.0.0.1\"");
    for header in [version_1("203.0.113.1"), version_2([203, 0, 113, 1], 20)] {
        let mut raw = Raw::connect(server.address);
        raw.send_one_by_one(&header);
        raw.send_one_by_one(request().text());
        let first = Client::greet(raw).expect("let in");
        assert!(behind(server.address, &version_1("203.0.113.1"), &request()).is_err(), "it is another address");
        first.close();
    }
    // Less than a header is not yet anything.
    let mut raw = Raw::connect(server.address);
    raw.send(b"PRO");
    assert_eq!(raw.wait_for(crate::support::MOMENT), None);
}

// B27: malformed ones end the connection, and so do those of peers that are not trusted: nobody is let in by them.
#[test]
fn proxy_headers_that_do_not_count_end_the_connection() {
    let trusting = server("\"127.0.0.1\"");
    for header in [
        &b"PROXY TCP4 203.0.113.1\r\n"[..],
        b"PROXY TCP4 2001:db8::1 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 203.0.113.1 10.0.0.1 99999 2\r\n",
        b"PROXY TCP4 203.0.113.1 10.0.0.1 1 2\n",
        b"PROXY NONSENSE\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\x00\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x02\x01\x02",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &[b"PROXY ", &[b'x'; 200][..]].concat(),
    ] {
        let mut raw = Raw::connect(trusting.address);
        raw.try_send([header, request().text().as_bytes()].concat());
        let answer = String::from_utf8_lossy(&raw.rest()).into_owned();
        assert!(!answer.contains("101"), "let in after {:?}", String::from_utf8_lossy(header));
    }
    for (trusted, twice) in [("", false), ("\"10.0.0.0/8\"", false), ("\"127.0.0.1\"", true)] {
        let server = server(trusted);
        for header in [version_1("203.0.113.1"), version_2([203, 0, 113, 1], 0)] {
            // A second header is the client's doing: what follows the first is not HTTP.
            let header = if twice { [header.clone(), header].concat() } else { header };
            let mut raw = Raw::connect(server.address);
            raw.try_send([&header[..], request().text().as_bytes()].concat());
            let answer = String::from_utf8_lossy(&raw.rest()).into_owned();
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400 ");
            assert!(refused, "{trusted:?}: {answer:?}");
        }
        assert!(server.counter("refused[INVALID]") >= 2, "it is counted");
        behind(server.address, b"", &request()).expect("others are served").close();
    }
}
