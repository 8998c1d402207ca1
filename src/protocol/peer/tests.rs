//! PROXY headers byte by byte, forwarded addresses, networks and origins.

use super::*;
use crate::bounds::PROXY_HEADER_BYTES_MAX;
use crate::protocol::fuzz::fuzz_proxy;
use proptest::prelude::*;
use std::net::SocketAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn networks(list: &[&str]) -> Networks {
    Networks(list.iter().map(|text| text.parse().unwrap()).collect())
}

/// Asserts that every proper prefix is incomplete, and the header, with other bytes behind it, is found.
fn assert_present(header: &[u8], expected: Option<&str>) {
    for len in 0..header.len() {
        assert_eq!(proxy_header(&header[..len]), Ok(ProxyHeader::Incomplete), "after {len} bytes");
    }
    let source = expected.map(|text| text.parse::<SocketAddr>().unwrap());
    let input = [header, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(proxy_header(&input), Ok(ProxyHeader::Present { consumed: header.len(), source }));
    assert_eq!(proxy_header(header), Ok(ProxyHeader::Present { consumed: header.len(), source }));
}

fn assert_malformed(header: &[u8]) {
    fuzz_proxy(header);
    assert!(proxy_header(header).is_err(), "{:?}", String::from_utf8_lossy(header));
}

/// A version 2 header with these four fields.
fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let fixed = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &(body.len() as u16).to_be_bytes()];
    [fixed.concat().as_slice(), body].concat()
}

fn body_4() -> Vec<u8> {
    [[192, 0, 2, 7].as_slice(), &[10, 0, 0, 1], &[0x30, 0x39], &[0, 80]].concat()
}

fn body_6() -> Vec<u8> {
    let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
    [source.octets().as_slice(), &Ipv6Addr::LOCALHOST.octets(), &[0x30, 0x39], &[0, 80]].concat()
}

#[test]
fn proxy_version_1() {
    // B27
    assert_present(b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n", Some("192.0.2.7:12345"));
    assert_present(b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n", Some("[2001:db8::7]:65535"));
    assert_present(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", Some("192.0.2.7:1"));
    assert_present(b"PROXY UNKNOWN\r\n", None);
    assert_present(b"PROXY UNKNOWN whatever \xC3\xA9 this is\r\n", None);
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
    assert_eq!(longest.len(), 107);
    assert_present(longest.as_bytes(), None);
    assert_malformed(longest.replace("\r\n", "x\r\n").as_bytes());
}

#[test]
fn malformed_proxy_lines() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY tcp4 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
        "PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
        "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 ::1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 \r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWNS\r\n",
    ] {
        assert_malformed(line.as_bytes());
    }
    assert_malformed(b"PROXY UNKNOWN \xFF\r\n");
    assert_malformed(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat());
    let unfinished = [b"PROXY ".as_slice(), &[b'x'; 100]].concat();
    assert_eq!(proxy_header(&unfinished), Ok(ProxyHeader::Incomplete));
}

#[test]
fn proxy_version_2() {
    // B27
    assert_present(&version_2(0x21, 0x11, &body_4()), Some("192.0.2.7:12345"));
    assert_present(&version_2(0x21, 0x21, &body_6()), Some("[2001:db8::7]:12345"));
    let with_values = [body_4().as_slice(), &[0xEA, 0, 2, 1, 2]].concat();
    assert_present(&version_2(0x21, 0x11, &with_values), Some("192.0.2.7:12345"));
    let mut mapped = body_6();
    mapped[..16].copy_from_slice(&"192.0.2.7".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().octets());
    assert_present(&version_2(0x21, 0x21, &mapped), Some("192.0.2.7:12345"));
}

#[test]
fn proxy_version_2_without_a_tcp_address() {
    assert_present(&version_2(0x20, 0x00, b""), None);
    assert_present(&version_2(0x20, 0x11, &body_4()), None);
    assert_present(&version_2(0x20, 0xFF, b"x"), None);
    assert_present(&version_2(0x21, 0x00, b""), None);
    assert_present(&version_2(0x21, 0x00, b"ignored"), None);
    assert_present(&version_2(0x21, 0x12, &body_4()), None);
    assert_present(&version_2(0x21, 0x22, &body_6()), None);
    assert_present(&version_2(0x21, 0x31, &[b'u'; 216]), None);
}

#[test]
fn malformed_proxy_version_2() {
    for command in [0x00, 0x01, 0x11, 0x22, 0x2F, 0x31, 0xFF] {
        assert_malformed(&version_2(command, 0x11, &body_4())[..13]);
    }
    for family in [0x03, 0x13, 0x1F, 0x23, 0x41, 0xF1, 0xFF] {
        assert_malformed(&version_2(0x21, family, &[0; 216])[..14]);
    }
    assert_malformed(&version_2(0x21, 0x11, &body_4()[..11])[..16]);
    assert_malformed(&version_2(0x21, 0x21, &body_6()[..35]));
    assert_malformed(&version_2(0x21, 0x31, &[0; 215]));
    let longest = version_2(0x21, 0x11, &[1; PROXY_HEADER_BYTES_MAX - 16]);
    assert_present(&longest, Some("1.1.1.1:257"));
    assert_malformed(&version_2(0x21, 0x11, &[1; PROXY_HEADER_BYTES_MAX - 15])[..16]);
    assert_malformed(&version_2(0x20, 0x00, &[1; 60_000]));
}

#[test]
fn other_first_bytes_are_no_proxy_header() {
    for bytes in [b"GET / HTTP/1.1\r\n".as_slice(), b"POST", b"PRI *", b"PROXYX", b"proxy ", b"\r\nG", b"\x16\x03"] {
        assert_eq!(proxy_header(bytes), Ok(ProxyHeader::Absent), "{bytes:?}");
    }
    assert_eq!(proxy_header(b""), Ok(ProxyHeader::Incomplete));
    assert_eq!(proxy_header(b"\r\n\r\n"), Ok(ProxyHeader::Incomplete));
    assert_eq!(proxy_header(b"\r\n\r\nGET"), Ok(ProxyHeader::Absent));
}

#[test]
fn networks_contain_their_addresses() {
    let trusted = networks(&["10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1", "10.1.2.3/31"]);
    for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "::ffff:10.1.1.1", "fd12::1", "::1"] {
        assert!(trusted.contains(ip(inside)), "{inside}");
    }
    for outside in ["11.0.0.0", "9.255.255.255", "192.0.2.6", "::ffff:11.0.0.1", "fe00::", "::2", "::a00:1"] {
        assert!(!trusted.contains(ip(outside)), "{outside}");
    }
    assert!(networks(&["0.0.0.0/0"]).contains(ip("255.1.2.3")) && !networks(&["0.0.0.0/0"]).contains(ip("::1")));
    assert!(networks(&["::/0"]).contains(ip("ff::")) && !networks(&["::/0"]).contains(ip("1.2.3.4")));
    assert!(networks(&["::ffff:10.0.0.0/104"]).contains(ip("10.9.9.9")));
    assert!(!Networks::default().contains(ip("127.0.0.1")));
    assert_eq!("fd00::/8".parse::<Network>().unwrap().to_string(), "fd00::/8");
}

#[test]
fn malformed_networks_are_explained() {
    for wrong in [
        "",
        "/",
        "10.0.0.0/",
        "10.0.0.0/33",
        "::/129",
        "10.0.0/8",
        "10.0.0.0/+8",
        "10.0.0.0/8/8",
        "a",
        "::ffff:1.2.3.4/95",
        "10.0.0.0/256",
    ] {
        let error = wrong.parse::<Network>().unwrap_err();
        assert!(error.contains(&format!("\"{wrong}\"")), "{error}");
    }
}

#[test]
fn the_rightmost_untrusted_hop_is_the_client() {
    // B27
    let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
    let client = |peer: &str, lines: &[&str]| client_ip(ip(peer), lines.iter().copied(), &trusted);
    assert_eq!(client("10.0.0.1", &[]), ip("10.0.0.1"));
    assert_eq!(client("10.0.0.1", &["192.0.2.7"]), ip("192.0.2.7"));
    assert_eq!(client("10.0.0.1", &["6.6.6.6, 192.0.2.7 ,10.0.0.2"]), ip("192.0.2.7"));
    assert_eq!(client("10.0.0.1", &["6.6.6.6", "192.0.2.7,10.0.0.3", "10.0.0.2"]), ip("192.0.2.7"));
    assert_eq!(client("10.0.0.1", &["10.0.0.9, 10.0.0.2"]), ip("10.0.0.9"), "all trusted: the first");
    assert_eq!(client("::ffff:10.0.0.1", &["::ffff:192.0.2.7"]), ip("192.0.2.7"));
    assert_eq!(client("fd00::1", &["2001:db8::7"]), ip("2001:db8::7"));
    // From others the header is only text.
    assert_eq!(client("192.0.2.1", &["192.0.2.7"]), ip("192.0.2.1"));
    // With a port, as some proxies write it.
    for hop in ["192.0.2.7:4711", "[::ffff:192.0.2.7]:4711", "[::ffff:192.0.2.7]"] {
        assert_eq!(client("10.0.0.1", &[hop]), ip("192.0.2.7"), "{hop}");
    }
}

#[test]
fn a_malformed_forwarded_for_is_ignored() {
    // B27
    let trusted = networks(&["10.0.0.0/8"]);
    let client = |line: &str| client_ip(ip("10.0.0.1"), [line].into_iter(), &trusted);
    for line in [
        "",
        "unknown",
        "192.0.2.7,",
        "192.0.2.7, x",
        "192.0.2.7:",
        "192.0.2.7:x",
        "192.0.2.7:1:2",
        "192.0.2.7:70000",
        "[::1",
        "[1.2.3.4]",
        "[::1]x",
        "::1]:1",
        "192.0.2.7, , 10.0.0.2",
        "1.2.3",
    ] {
        assert_eq!(client(line), ip("10.0.0.1"), "{line:?}");
    }
    // What the client itself wrote on the left cannot hide it.
    assert_eq!(client("garbage, 192.0.2.7"), ip("192.0.2.7"));
    assert_eq!(client(", 192.0.2.7, 10.0.0.2"), ip("192.0.2.7"));
}

#[test]
fn ipv6_is_counted_per_64() {
    // B28
    assert_eq!(cap_key(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
    assert_eq!(cap_key(ip("2001:db8:1:2::")), cap_key(ip("2001:db8:1:2:ffff:ffff:ffff:ffff")));
    assert_ne!(cap_key(ip("2001:db8:1:2::")), cap_key(ip("2001:db8:1:3::")));
    assert_eq!(cap_key(ip("192.0.2.7")), ip("192.0.2.7"));
    assert_eq!(cap_key(ip("::ffff:192.0.2.7")), ip("192.0.2.7"));
}

#[test]
fn pages_of_the_same_host() {
    // B2
    let same = |origin: &str, host: &str| Origins::SameHost.allows(Some(origin), host);
    for (origin, host) in [
        ("http://a.example", "a.example"),
        ("https://a.example", "a.example"),
        ("https://A.example", "a.EXAMPLE"),
        ("https://a.example", "a.example:443"),
        ("http://a.example", "a.example:80"),
        ("https://a.example:8443", "a.example:8443"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ] {
        assert!(same(origin, host), "{origin} {host}");
    }
    for (origin, host) in [
        ("null", "null"),
        ("null", "a.example"),
        ("", ""),
        ("a.example", "a.example"),
        ("http://a.example:8080", "a.example"),
        ("http://a.example", "a.example:8080"),
        ("http://b.example", "a.example"),
        ("http://a.example.evil", "a.example"),
        ("http://evil.a.example", "a.example"),
        ("http://a.example/", "a.example"),
        ("http://a.example@evil", "a.example"),
        ("http://a.example:", "a.example"),
        ("http://a.example:x", "a.example"),
        ("http://a.example b", "a.example"),
        ("http://", "a.example"),
        ("app://a.example", "a.example"),
        ("http://[::1]x", "[::1]"),
    ] {
        assert!(!same(origin, host), "{origin} {host}");
    }
    assert!(Origins::SameHost.allows(None, "a.example"), "not a browser");
}

#[test]
fn pages_of_listed_origins() {
    // B2
    let list = Origins::Listed(vec!["https://App.example".parse().unwrap(), "capacitor://localhost".parse().unwrap()]);
    for origin in ["https://app.example", "HTTPS://APP.EXAMPLE:443", "capacitor://localhost"] {
        assert!(list.allows(Some(origin), "edge.example"), "{origin}");
    }
    for origin in [
        "http://app.example",
        "https://app.example:8443",
        "https://edge.example",
        "capacitor://localhost:80",
        "null",
        "",
    ] {
        assert!(!list.allows(Some(origin), "edge.example"), "{origin}");
    }
    assert!(list.allows(None, "edge.example"));
    for origin in [Some("null"), Some("nonsense"), None] {
        assert!(Origins::Any.allows(origin, "edge.example"));
    }
    assert!(!Origins::Listed(vec![]).allows(Some("http://a"), "a"));
}

#[test]
fn malformed_origins_are_explained() {
    for wrong in [
        "",
        "*",
        "null",
        "app.example",
        "https://",
        "https://app.example/",
        "https://a/b",
        "https://a:0x1",
        "1a://b",
        "://b",
        "https://a:65536",
        "https://[::1",
        "https://a b",
        "https://ü",
    ] {
        let error = wrong.parse::<Origin>().unwrap_err();
        assert!(error.contains(&format!("\"{wrong}\"")), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_panic(
        start in prop::sample::select(vec![b"".as_slice(), b"PROXY ", b"PROXY TCP4 1.2.3.4 ", b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"]),
        rest in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        fuzz_proxy(&[start, &rest].concat());
    }

    #[test]
    fn any_text_is_a_hop_an_origin_or_an_error(hops: String, origin: String, host: String) {
        client_ip(ip("10.0.0.1"), [hops.as_str()].into_iter(), &networks(&["10.0.0.0/8"]));
        Origins::SameHost.allows(Some(&origin), &host);
        let _ = origin.parse::<Network>();
    }
}
