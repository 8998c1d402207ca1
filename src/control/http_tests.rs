//! An application on this machine that answers as a test tells it: late, never, too much, or not HTTP at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::rules::definition::Endpoint;

/// A call as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: String,
    pub body: String,
}

impl Request {
    /// A header by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What comes back.
pub enum Answer {
    /// An answer with a length; the connection stays.
    Reply(u16, String),
    /// These bytes, then the connection ends.
    Raw(Vec<u8>),
    /// Nothing, for as long as the caller waits.
    Nothing,
}

/// The application. Its threads end with the test.
pub struct Application {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Application {
    /// Answers each call with what `answer` makes of it and of the number of calls before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Application {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, answer) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(answer));
        let noted = seen.clone();
        let connections = Arc::<AtomicUsize>::default();
        let count = connections.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, SeqCst);
                let (stream, noted, answer) = (stream.unwrap(), noted.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &noted, &*answer));
            }
        });
        Application { address, seen, connections }
    }

    /// Every call so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// A path of it.
    pub fn endpoint(&self, path: &str, timeout_ms: u32) -> Arc<Endpoint> {
        endpoint(&format!("http://{}{path}", self.address), timeout_ms)
    }
}

/// Any address.
pub fn endpoint(url: &str, timeout_ms: u32) -> Arc<Endpoint> {
    let secret = Some(Arc::from(&b"secret"[..]));
    Arc::new(Endpoint { number: 0, url: url.into(), timeout_ms, secret, cache_s: None, place: Default::default() })
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, usize) -> Answer) {
    while let Some(request) = read(&mut stream) {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        match answer(&request, number) {
            Answer::Reply(status, body) => {
                let head = format!("HTTP/1.1 {status} Some\r\nContent-Length: {}\r\n\r\n", body.len());
                // The caller may have hung up.
                let _ = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
            }
            Answer::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Answer::Nothing => {
                let mut rest = [0; 64];
                let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                let _ = stream.read(&mut rest);
                return;
            }
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let mut more = |bytes: &mut Vec<u8>| match stream.read(&mut piece) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            bytes.extend_from_slice(&piece[..count]);
            Some(())
        }
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        more(&mut bytes)?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut request = Request { head, body: String::new() };
    let length: usize = request.header("content-length").map_or(0, |value| value.parse().unwrap());
    while bytes.len() < end + 4 + length {
        more(&mut bytes)?;
    }
    request.body = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).unwrap();
    Some(request)
}
