//! What clients send and what they must receive, as plain text.

use super::rights::{Grant, Person};

/// The token of a handshake.
#[derive(Clone, Debug)]
pub struct Pass {
    pub text: String,
    /// False: its signature is another's, or it is no token at all.
    pub genuine: bool,
    pub person: Person,
    pub grants: Vec<Grant>,
    /// Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    pub ids: Ids,
}

/// What revocations of tokens go by, besides the person.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    pub token_id: Option<String>,
    pub session: Option<String>,
    /// Absent: 0.
    pub issued_at_s: i64,
}

/// One thing in a client's stream that has an effect when it is complete.
#[derive(Clone, Debug)]
pub enum Sent {
    Head {
        pass: Option<Pass>,
        subprotocol: bool,
    },
    Message {
        id: Option<String>,
        request: Request,
    },
    /// The sentence that the reply to it carries.
    Malformed {
        id: Option<String>,
        error: String,
    },
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    /// Breaks the protocol; the code that it is closed with.
    Broken(u16),
    /// Begun and never finished.
    Half,
}

#[derive(Clone, Debug)]
pub enum Request {
    Subscribe { pipes: Vec<String>, batch: bool, presence: bool, events: Vec<String> },
    Unsubscribe { pipes: Vec<String>, batch: bool },
    Publish { pipe: String, event: String, data: String, echo: bool },
    Ping,
    Presence,
    Action,
    Enqueue,
    Push,
    Refresh { pass: Option<Box<Pass>> },
}

/// Where something stands in a client's stream, in bytes from its beginning.
#[derive(Clone, Debug)]
pub struct Item {
    pub start: u64,
    pub end: u64,
    /// It is never cut in two: what breaks the protocol may be refused at its first byte.
    pub whole: bool,
    pub sent: Sent,
}

/// Something that must go out to a client.
#[derive(Clone, Debug)]
pub struct Expect {
    pub what: What,
    /// Within one batch the order between lanes is open. A batch is one call of the shard in which several connections
    /// had their turn; a lane is one of them.
    pub batch: u64,
    pub lane: usize,
    /// It depends on the order between lanes whether it is sent.
    pub optional: bool,
    /// Bytes as it goes out; 0 where they do not matter.
    pub bytes: usize,
}

#[derive(Clone, Debug)]
pub enum What {
    /// A refused handshake.
    Refusal(u16),
    /// An accepted one: the response as it must be.
    Accept(String),
    Event {
        pipe: String,
        text: String,
        /// How many events had been taken when this one was.
        number: u64,
    },
    Text(String),
    /// A text whose end is not known here.
    TextBegins(String),
    /// A control frame: opcode and payload.
    Control(u8, Vec<u8>),
    /// A close frame with this code and any reason.
    Close(u16),
}

impl What {
    pub fn is_event(&self) -> bool {
        matches!(self, What::Event { .. })
    }

    pub fn is_frame(&self, opcode: u8, payload: &[u8]) -> bool {
        match self {
            What::Refusal(_) | What::Accept(_) => false,
            What::Event { text, .. } | What::Text(text) => opcode == 1 && payload == text.as_bytes(),
            What::TextBegins(text) => opcode == 1 && payload.starts_with(text.as_bytes()),
            What::Control(own, bytes) => opcode == *own && payload == bytes,
            What::Close(code) => opcode == 8 && payload.starts_with(&code.to_be_bytes()),
        }
    }
}

/// Bytes of a server's frame with this payload.
pub fn frame_bytes(payload: usize) -> usize {
    payload
        + if payload < 126 {
            2
        } else if payload <= 0xFFFF {
            4
        } else {
            10
        }
}

/// A JSON string.
pub fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The response to an upgrade with the key of RFC 6455 §1.3.
pub fn accept_head(subprotocol: bool) -> String {
    let selected = if subprotocol { "Sec-WebSocket-Protocol: pipeward.v1\r\n" } else { "" };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{selected}\r\n"
    )
}
