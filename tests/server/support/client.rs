//! A WebSocket client that does what the test says: JSON messages for the well-behaved, frames for the rest.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::socket::ACCEPT;
use super::{MOMENT, PATIENCE, Raw, Request, Response};

/// Opcodes of RFC 6455 §5.2.
pub mod opcode {
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xA;
}

/// A client's frame, masked. `first` is the opcode, with the high bits that the test wants: 0x80 for the last fragment.
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let payload = payload.as_ref();
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A server's frame, which is never masked and never fragmented.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// What a client hears.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// A text message, which is always JSON.
    Json(Value),
    /// The server closes: its code and its reason.
    Close(Option<u16>, String),
    /// The stream ended.
    End,
}

/// An open WebSocket. Pings are answered while it waits for something, unless `answers_pings` is false.
pub struct Client {
    /// The connection below.
    pub raw: Raw,
    /// The first message.
    pub welcome: Value,
    /// Whether pings get their pong.
    pub answers_pings: bool,
    /// Pings that were heard.
    pub pings: usize,
    /// Messages that were passed over while waiting for a reply.
    inbox: VecDeque<Message>,
    last_id: u64,
}

impl Client {
    /// Connects with this token and takes the welcome.
    #[track_caller]
    pub fn connect(to: SocketAddr, token: &str) -> Client {
        Client::with(to, &Request::upgrade().token(token))
    }

    /// Connects with this request, which must be granted, and takes the welcome.
    #[track_caller]
    pub fn with(to: SocketAddr, request: &Request) -> Client {
        match Client::try_with(to, request) {
            Ok(client) => client,
            Err(response) => panic!("refused: {response:?} {}", String::from_utf8_lossy(&response.body)),
        }
    }

    /// Connects with this request; the response if that is refused.
    #[track_caller]
    pub fn try_with(to: SocketAddr, request: &Request) -> Result<Client, Response> {
        let mut raw = Raw::connect(to);
        raw.send(request.text());
        Client::greet(raw)
    }

    /// Takes the response and the welcome, after the request was sent.
    #[track_caller]
    pub fn greet(raw: Raw) -> Result<Client, Response> {
        let mut client = Client::open(raw)?;
        // B26
        client.welcome = client.receive();
        assert_eq!(client.welcome["type"], "welcome", "{}", client.welcome);
        Ok(client)
    }

    /// Takes the response to a request that was sent; the rest is frames.
    #[track_caller]
    pub fn open(mut raw: Raw) -> Result<Client, Response> {
        let response = raw.response();
        if response.status() != 101 {
            return Err(response);
        }
        assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT));
        assert!(response.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
        assert!(response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
        let (welcome, inbox) = (Value::Null, VecDeque::new());
        Ok(Client { raw, welcome, answers_pings: true, pings: 0, inbox, last_id: 0 })
    }

    /// Sends a JSON message.
    #[track_caller]
    pub fn send(&mut self, message: Value) {
        self.send_text(message.to_string());
    }

    /// Sends text as one message.
    #[track_caller]
    pub fn send_text(&mut self, text: impl AsRef<[u8]>) {
        self.raw.send(frame(0x80 | opcode::TEXT, text));
    }

    /// Sends a close frame.
    #[track_caller]
    pub fn send_close(&mut self, code: u16, reason: &str) {
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        self.raw.send(frame(0x80 | opcode::CLOSE, payload));
    }

    /// The next JSON message.
    #[track_caller]
    pub fn receive(&mut self) -> Value {
        match self.hear() {
            Message::Json(value) => value,
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    /// The next that is heard, pings and pongs apart.
    #[track_caller]
    pub fn hear(&mut self) -> Message {
        self.hear_for(PATIENCE).unwrap_or_else(|| panic!("nothing was heard for {PATIENCE:?}"))
    }

    /// The next that is heard within this time, pings and pongs apart.
    #[track_caller]
    pub fn hear_for(&mut self, time: Duration) -> Option<Message> {
        if let Some(message) = self.inbox.pop_front() {
            return Some(message);
        }
        self.hear_from_socket(Instant::now() + time)
    }

    /// Asserts that for a [`MOMENT`] nothing is heard.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        let heard = self.hear_for(MOMENT);
        assert!(heard.is_none(), "heard {heard:?}");
    }

    /// Sends a message with an `id` of its own and waits for the reply to it; what comes before is kept for later.
    #[track_caller]
    pub fn request(&mut self, mut message: Value) -> Value {
        self.last_id += 1;
        let id = json!(self.last_id);
        message["id"] = id.clone();
        self.send(message);
        self.reply(&id)
    }

    /// Waits for the reply with this `id`; what comes before is kept for later.
    #[track_caller]
    pub fn reply(&mut self, id: &Value) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.hear_from_socket(until) {
                Some(Message::Json(value)) if is_reply_to(&value, id) => return value,
                Some(message @ Message::Json(_)) => self.inbox.push_back(message),
                other => panic!("no reply to {id}, but {other:?} after {:?}", self.inbox),
            }
        }
    }

    /// Everything that the server sends until it has answered a ping sent now: what was due from this worker.
    #[track_caller]
    pub fn settle(&mut self) -> Vec<Value> {
        let pong = self.request(json!({"type": "ping"}));
        assert_eq!(pong["type"], "pong");
        let heard = self.inbox.drain(..);
        heard.map(|message| if let Message::Json(value) = message { value } else { panic!("{message:?}") }).collect()
    }

    /// Waits for the server's close frame, passing over messages; its code and reason.
    #[track_caller]
    pub fn closed(&mut self) -> (Option<u16>, String) {
        let mut before = Vec::new();
        loop {
            match self.hear() {
                Message::Close(code, reason) => return (code, reason),
                Message::End => panic!("the stream ended without a close frame, after {before:?}"),
                Message::Json(value) => before.push(value),
            }
        }
    }

    /// Waits for a close frame with this code, answers it, and waits for the end of the stream.
    #[track_caller]
    pub fn expect_close(mut self, code: u16) -> String {
        let (given, reason) = self.closed();
        assert_eq!(given, Some(code), "reason {reason:?}");
        self.raw.try_send(frame(0x80 | opcode::CLOSE, code.to_be_bytes()));
        self.expect_end();
        reason
    }

    /// Waits for the end of the stream; nothing but pings and pongs may come before it.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let heard = self.hear();
        assert_eq!(heard, Message::End);
    }

    /// Closes with 1000 as one should: the server answers with the same code and ends the stream.
    #[track_caller]
    pub fn close(mut self) {
        self.send_close(1000, "");
        assert_eq!(self.closed().0, Some(1000));
        self.expect_end();
    }

    /// The next frame, whatever it is; None: the stream ended first.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        self.frame_until(Instant::now() + PATIENCE).unwrap_or_else(|| panic!("no frame came"))
    }

    /// None: nothing in time. Some(None): the stream ended.
    #[track_caller]
    fn frame_until(&mut self, until: Instant) -> Option<Option<Frame>> {
        loop {
            if let Some((frame, size)) = parse(&self.raw.received) {
                self.raw.received.drain(..size);
                return Some(Some(frame));
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.raw.wait_for(left) {
                Some(true) => {}
                Some(false) => {
                    assert!(self.raw.received.is_empty(), "the stream ended inside a frame: {:?}", self.raw.received);
                    return Some(None);
                }
                None if left.is_zero() => return None,
                None => {}
            }
        }
    }

    #[track_caller]
    fn hear_from_socket(&mut self, until: Instant) -> Option<Message> {
        loop {
            let Some(heard) = self.frame_until(until)? else { return Some(Message::End) };
            match heard.opcode {
                opcode::TEXT => {
                    let text = std::str::from_utf8(&heard.payload).expect("UTF-8");
                    let value = serde_json::from_str(text);
                    return Some(Message::Json(value.unwrap_or_else(|error| panic!("{error} in {text:?}"))));
                }
                opcode::CLOSE => return Some(close_message(&heard.payload)),
                opcode::PING => {
                    self.pings += 1;
                    if self.answers_pings {
                        self.raw.try_send(frame(0x80 | opcode::PONG, &heard.payload));
                    }
                }
                opcode::PONG => {}
                _ => panic!("the server sent {heard:?}"),
            }
        }
    }
}

fn is_reply_to(value: &Value, id: &Value) -> bool {
    matches!(value["type"].as_str(), Some("reply" | "pong")) && value["id"] == *id
}

fn close_message(payload: &[u8]) -> Message {
    match payload {
        [] => Message::Close(None, String::new()),
        [high, low, reason @ ..] => {
            let reason = String::from_utf8(reason.to_vec()).expect("a reason in UTF-8");
            Message::Close(Some(u16::from_be_bytes([*high, *low])), reason)
        }
        _ => panic!("a close frame of one byte"),
    }
}

/// The server's frame at the front of the bytes, checked for what every server frame must be.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let &[first, second, ref rest @ ..] = bytes else { return None };
    assert_eq!(first & 0xF0, 0x80, "a server's frame is whole and has no reserved bits");
    assert_eq!(second & 0x80, 0, "a server's frame is not masked");
    let (length, length_bytes) = match second {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).expect("a length"), 8),
        short => (usize::from(short), 0),
    };
    assert!(length_bytes != 2 || length > 125, "lengths are in their shortest form");
    assert!(length_bytes != 8 || length > 65_535, "lengths are in their shortest form");
    let payload = rest[length_bytes..].get(..length)?.to_vec();
    Some((Frame { opcode: first & 0x0F, payload }, 2 + length_bytes + length))
}
