//! The server's own handshake, frame reader and sockets behind an echo, for conformance suites from outside:
//!
//! ```text
//! cargo run --release --example ws_echo -- 127.0.0.1:9001
//! ```
//!
//! Text and binary messages come back as they came, pings are answered, a close is answered with its own code, and
//! whatever breaks the rules closes with the code for it. Any path will do and nobody needs a token. A peer that sends
//! and does not read is not read from either, so memory is bounded by one message and [`WAITING_BYTES_MAX`] for each.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use pipeward::protocol::frame::{self, Item, Reader, opcode};
use pipeward::protocol::handshake::{self, Parsed, Refusal};
use pipeward::worker::engine::{Backend, BufferSizes, Engine, Event, Key};

/// Bytes of a message. Longer: 1009.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes waiting to be sent to one peer. More: it is not read from until they have left.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Events handled before the listener is looked at again.
const EVENTS_PER_TURN: usize = 512;

#[allow(dead_code, reason = "tests/echo takes this file as a module")]
fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let listener = TcpListener::bind(&address)?;
    println!("echoing on ws://{}/", listener.local_addr()?);
    serve(listener, Backend::Uring)
}

/// Serves everybody who connects, on this thread, for ever.
///
/// # Errors
/// Out of descriptors or memory at the start; later only what makes going on impossible.
pub fn serve(listener: TcpListener, backend: Backend) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (engine, _refused) = Engine::new(backend, BufferSizes::default())?;
    let mut echo = Echo { engine, connections: HashMap::new(), last_user: 0 };
    loop {
        while let Ok((socket, _)) = listener.accept() {
            echo.open(socket);
        }
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = echo.engine.next() else { break };
            echo.handle(event);
        }
        if !echo.engine.before_wait()? {
            wait(listener.as_raw_fd(), echo.engine.wait_fd())?;
        }
    }
}

struct Echo {
    engine: Engine<Vec<u8>>,
    connections: HashMap<u64, Connection>,
    last_user: u64,
}

struct Connection {
    key: Key,
    stage: Stage,
    /// What goes out with the next write.
    waiting: Vec<u8>,
    sending: bool,
    paused: bool,
}

enum Stage {
    /// What has arrived of the request head.
    Greeting(Vec<u8>),
    Open(Reader),
    /// The last word was said. What still comes is not looked at.
    Closing,
}

impl Echo {
    fn open(&mut self, socket: std::net::TcpStream) {
        self.last_user += 1;
        if let Ok(key) = self.engine.add(socket.into(), self.last_user) {
            let stage = Stage::Greeting(Vec::new());
            let connection = Connection { key, stage, waiting: Vec::new(), sending: false, paused: false };
            self.connections.insert(self.last_user, connection);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Received { user, mut bytes } => {
                if let Some(connection) = self.connections.get_mut(&user) {
                    connection.received(&mut bytes);
                    connection.flush(&mut self.engine);
                }
            }
            Event::Sent { user, ok: true } => {
                if let Some(connection) = self.connections.get_mut(&user) {
                    connection.sending = false;
                    connection.flush(&mut self.engine);
                }
            }
            Event::Ended { user, .. } | Event::Sent { user, ok: false } => {
                if let Some(connection) = self.connections.remove(&user) {
                    self.engine.close(connection.key, false);
                }
            }
            Event::Bell => {}
        }
    }
}

impl Connection {
    fn received(&mut self, bytes: &mut [u8]) {
        match &mut self.stage {
            Stage::Greeting(head) => {
                head.extend_from_slice(bytes);
                let mut head = std::mem::take(head);
                match greet(&head) {
                    Ok(None) => self.stage = Stage::Greeting(head),
                    Ok(Some((response, consumed))) => {
                        self.waiting.extend(response);
                        self.stage = Stage::Open(Reader::default());
                        self.read(&mut head[consumed..]);
                    }
                    Err(refusal) => {
                        self.waiting.extend(refusal.encode());
                        self.stage = Stage::Closing;
                    }
                }
            }
            Stage::Open(_) => self.read(bytes),
            Stage::Closing => {}
        }
    }

    /// Answers every message in the bytes.
    fn read(&mut self, bytes: &mut [u8]) {
        let Stage::Open(reader) = &mut self.stage else { return };
        let out = &mut self.waiting;
        let mut used = 0;
        let last_word = loop {
            let (taken, item) = reader.next(&mut bytes[used..], MESSAGE_BYTES_MAX);
            used += taken;
            match item {
                Ok(None) => return,
                Ok(Some(Item::Text(text))) => frame::append_server_frame(out, opcode::TEXT, text.as_bytes()),
                Ok(Some(Item::Binary(payload))) => frame::append_server_frame(out, opcode::BINARY, payload),
                Ok(Some(Item::Ping(payload))) => frame::append_server_frame(out, opcode::PONG, payload),
                Ok(Some(Item::Pong(_))) => {}
                Ok(Some(Item::Close(code, _))) => {
                    break code.map_or_else(Vec::new, |code| frame::close_payload(code, ""));
                }
                Err(violation) => {
                    let code = violation.close_code();
                    break frame::close_payload(code.number(), code.reason());
                }
            }
        };
        frame::append_server_frame(out, opcode::CLOSE, &last_word);
        self.stage = Stage::Closing;
    }

    /// Starts the next write, or ends our side after the last; holds back a peer that does not read.
    fn flush(&mut self, engine: &mut Engine<Vec<u8>>) {
        if !self.sending && !self.waiting.is_empty() {
            engine.send(self.key, std::mem::take(&mut self.waiting));
            self.sending = true;
        } else if !self.sending && matches!(self.stage, Stage::Closing) {
            engine.finish(self.key);
        }
        let full = self.waiting.len() > WAITING_BYTES_MAX && !matches!(self.stage, Stage::Closing);
        if full != self.paused {
            self.paused = full;
            engine.set_receiving(self.key, !full);
        }
    }
}

/// The response to a head that is complete, and how many bytes it was.
fn greet(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
    match handshake::parse(bytes)? {
        Parsed::Incomplete => Ok(None),
        Parsed::Complete { head, consumed } => Ok(Some((handshake::accept(&handshake::upgrade(&head)?), consumed))),
    }
}

/// Sleeps until one of the two is readable.
fn wait(listener: RawFd, engine: RawFd) -> io::Result<()> {
    let mut watched = [listener, engine].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: two initialised entries, as the count says.
    let result = unsafe { libc::poll(watched.as_mut_ptr(), 2, -1) };
    let error = io::Error::last_os_error();
    if result < 0 && error.kind() != io::ErrorKind::Interrupted { Err(error) } else { Ok(()) }
}
