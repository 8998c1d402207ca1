//! The listener: connections that are kept, slow ones, and stopping.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::fake::{ADMIN, Api};
use crate::http::read;

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let api = Api::start();
    let mut stream = api.connect();
    for _ in 0..3 {
        let request = format!("GET /v1/stats HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read(&mut stream).status, 200);
    }
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let api = Api::start();
    let mut stream = api.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    // Closed, with or without a word.
    let _ = stream.read_to_end(&mut rest);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(8) && waited < Duration::from_secs(18), "{waited:?}");
}

#[test]
fn a_stop_ends_idle_connections_and_the_listener() {
    let mut api = Api::start();
    let mut stream = api.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(read(&mut stream).status, 200);
    let began = Instant::now();
    api.stop();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or_default(), 0);
    assert!(TcpStream::connect(api.address).is_err());
}
