//! A socket whose every byte the test decides, and HTTP as far as a handshake needs it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;

/// A TCP connection and what was received and not yet looked at.
pub struct Raw {
    /// The connection itself.
    pub stream: TcpStream,
    pub(super) received: Vec<u8>,
}

impl Raw {
    /// Connects.
    #[track_caller]
    pub fn connect(to: SocketAddr) -> Raw {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("connected");
        stream.set_nodelay(true).expect("an option");
        Raw { stream, received: Vec::new() }
    }

    /// Connects from this local address, such as 127.0.0.7.
    #[track_caller]
    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Raw {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("bound");
        socket.connect_timeout(&to.into(), PATIENCE).expect("connected");
        socket.set_tcp_nodelay(true).expect("an option");
        Raw { stream: socket.into(), received: Vec::new() }
    }

    /// Over a connection that was made with options of its own.
    pub fn over(stream: TcpStream) -> Raw {
        stream.set_nodelay(true).expect("an option");
        Raw { stream, received: Vec::new() }
    }

    /// Sends bytes; they leave at once.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// Sends bytes that the other side may no longer want.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends bytes one by one, each in a segment of its own as far as the kernel plays along.
    #[track_caller]
    pub fn send_one_by_one(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            std::thread::yield_now();
        }
    }

    /// Ends our side of the stream.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shut down");
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("an option");
    }

    /// Waits for more bytes. False: the stream has ended (or was reset). Panics after [`PATIENCE`].
    #[track_caller]
    pub fn wait(&mut self) -> bool {
        match self.wait_for(PATIENCE) {
            Some(more) => more,
            None => panic!("nothing came; before: {:?}", String::from_utf8_lossy(&self.received)),
        }
    }

    /// Waits for more bytes; None: none came in this time.
    pub fn wait_for(&mut self, time: Duration) -> Option<bool> {
        let mut buffer = [0; 64 * 1024];
        self.stream.set_read_timeout(Some(time.max(Duration::from_millis(1)))).expect("an option");
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(false),
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return Some(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(_) => return Some(false),
            }
        }
    }

    /// What was received and not yet looked at, as text.
    pub fn received_text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Waits for the end of the stream; what still came before it.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let began = Instant::now();
        while self.wait() {
            assert!(began.elapsed() < PATIENCE, "the stream does not end");
        }
        std::mem::take(&mut self.received)
    }

    /// Reads one HTTP response: its head and, as far as `Content-Length` says, its body.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.wait(), "no response: {:?}", String::from_utf8_lossy(&self.received));
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).expect("UTF-8");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let mut response = Response { status_line, headers, body: Vec::new() };
        let length = response.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        while self.received.len() < length {
            assert!(self.wait(), "the body is cut short");
        }
        response.body = self.received.drain(..length).collect();
        response
    }
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    /// The whole first line.
    pub status_line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As many bytes as announced.
    pub body: Vec<u8>,
}

impl Response {
    /// The status, such as 101.
    pub fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// The header of that name, which stands only once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is repeated in {self:?}");
        first
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Asserts a whole refusal: status, JSON body with `code` and `error`, and that the connection is said to end.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(self.status(), status, "{self:?} {}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert!(self.header("connection").is_some_and(|value| value.starts_with("close")), "{self:?}");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
        assert_eq!(body.as_object().map(|body| body.len()), Some(2), "{body}");
    }
}

/// The key of every upgrade here, and what must be answered to it (RFC 6455 §1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// See [`KEY`].
pub(super) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An HTTP request head.
#[derive(Clone)]
pub struct Request {
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// A valid upgrade of `/v1/connect` without a token.
    pub fn upgrade() -> Request {
        Request::get("/v1/connect")
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", KEY)
    }

    /// `GET path` with a Host.
    pub fn get(path: &str) -> Request {
        let request =
            Request { method: "GET".into(), target: path.into(), version: "HTTP/1.1".into(), headers: vec![] };
        request.header("Host", "edge.example")
    }

    /// With this method.
    pub fn method(mut self, method: &str) -> Request {
        self.method = method.into();
        self
    }

    /// With this target.
    pub fn target(mut self, target: &str) -> Request {
        self.target = target.into();
        self
    }

    /// With this version.
    pub fn version(mut self, version: &str) -> Request {
        self.version = version.into();
        self
    }

    /// With one more header line.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With this header instead of those of the same name.
    pub fn set(self, name: &str, value: &str) -> Request {
        self.without(name).header(name, value)
    }

    /// Without the headers of this name.
    pub fn without(mut self, name: &str) -> Request {
        self.headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self
    }

    /// With this token in `Authorization`.
    pub fn token(self, token: &str) -> Request {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// As it goes out.
    pub fn text(&self) -> String {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{} {} {}\r\n{lines}\r\n", self.method, self.target, self.version)
    }

    /// Sends it over a connection of its own; the response.
    #[track_caller]
    pub fn ask(&self, to: SocketAddr) -> Response {
        let mut raw = Raw::connect(to);
        raw.send(self.text());
        raw.response()
    }

    /// As [`Request::ask`] for what is refused: the stream must end after the response.
    #[track_caller]
    pub fn assert_refused(&self, to: SocketAddr, status: u16, code: &str) -> Response {
        let mut raw = Raw::connect(to);
        raw.send(self.text());
        let response = raw.response();
        response.assert_refused(status, code);
        let rest = raw.rest();
        assert!(rest.is_empty(), "after the refusal: {:?}", String::from_utf8_lossy(&rest));
        response
    }
}
