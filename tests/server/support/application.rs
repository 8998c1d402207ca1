//! The application behind the server, as far as a test needs one: it hears calls over HTTP, remembers them, and answers
//! each as its script says, at once or when the test does.
//!
//! One thread accepts; a call is served on a thread of its own, so that any number may be held back at once.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{PATIENCE, unix_s};

/// What a call is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This status with this body.
    Status(u16, String),
    /// What [`Application::answer`] will say.
    Held,
    /// The connection is closed instead.
    HangUp,
    /// These bytes, whatever they are.
    Bytes(Vec<u8>),
}

impl Reply {
    /// 200 with JSON.
    pub fn json(body: Value) -> Reply {
        Reply::Status(200, body.to_string())
    }

    /// A rule's yes or no.
    pub fn allow(allow: bool) -> Reply {
        Reply::json(json!({"allow": allow}))
    }
}

/// A call that was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Such as `POST`.
    pub method: String,
    /// As it came, with its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As it came.
    pub body: String,
}

impl Heard {
    /// The body.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Asserts that it was signed under `secret`, just now (PROTOCOL §5).
    #[track_caller]
    pub fn assert_signed(&self, secret: &str) {
        let signature = self.header("x-pipeward-signature").unwrap_or_else(|| panic!("it is not signed: {self:?}"));
        let parts = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1="));
        let (time, mac) = parts.unwrap_or_else(|| panic!("{signature:?}"));
        let mut own = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
        own.update(format!("{time}.{}", self.body).as_bytes());
        let own: String = own.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(mac, own, "signed under another secret, or not this body");
        let age_s = unix_s().abs_diff(time.parse().expect("Unix seconds"));
        assert!(age_s <= PATIENCE.as_secs(), "signed {age_s} s ago or ahead");
    }
}

type Script = dyn Fn(&Heard) -> Reply + Send + Sync;

struct State {
    script: Arc<Script>,
    heard: Vec<Heard>,
    /// For each call what the test has answered, where it was held.
    answers: Vec<Option<Reply>>,
    ended: bool,
}

/// Shared with the threads.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running application; it is gone when dropped, and calls to it are refused by the kernel from then on.
pub struct Application {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Application {
    /// Starts it on a free port. The script answers each call.
    pub fn start(script: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Application {
        Application::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script)
    }

    /// Starts it where one was before.
    pub fn start_at(address: SocketAddr, script: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Application {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let state = State { script: Arc::new(script), heard: Vec::new(), answers: Vec::new(), ended: false };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), ended: AtomicBool::new(false) });
        let own = shared.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if own.ended.load(Ordering::SeqCst) {
                    break;
                }
                let shared = own.clone();
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        Application { address, shared, accepting: Some(accepting) }
    }

    /// An application that holds every call back.
    pub fn holding() -> Application {
        Application::start(|_| Reply::Held)
    }

    /// An address where nobody listens.
    pub fn nowhere() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("it is bound"))
    }

    /// The address of a path of it, such as `/rule`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Another script for the calls from now on.
    pub fn script(&self, script: impl Fn(&Heard) -> Reply + Send + Sync + 'static) {
        self.shared.lock().script = Arc::new(script);
    }

    /// All calls so far, in the order in which they were heard.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.lock().heard.clone()
    }

    /// Waits until so many calls were heard in all; all calls.
    #[track_caller]
    pub fn await_calls(&self, count: usize) -> Vec<Heard> {
        let state = self.shared.lock();
        let (state, waited) = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.heard.len() < count)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "{} calls were heard, not {count}: {:?}", state.heard.len(), state.heard);
        state.heard.clone()
    }

    /// Waits for the call of this number, counted from 0.
    #[track_caller]
    pub fn call(&self, number: usize) -> Heard {
        self.await_calls(number + 1).swap_remove(number)
    }

    /// Answers the call of this number, counted from 0, which is held back.
    #[track_caller]
    pub fn answer(&self, number: usize, reply: Reply) {
        self.await_calls(number + 1);
        self.shared.lock().answers[number] = Some(reply);
        self.shared.changed.notify_all();
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        // Wakes the thread that accepts; with it the listener ends.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// One call, its answer, the end of the connection.
fn serve(shared: &Shared, mut stream: TcpStream) {
    let Some(heard) = hear(&mut stream) else { return };
    let mut state = shared.lock();
    let (number, script) = (state.heard.len(), state.script.clone());
    state.heard.push(heard.clone());
    state.answers.push(None);
    drop(state);
    shared.changed.notify_all();
    let reply = match script(&heard) {
        Reply::Held => {
            let state = shared.lock();
            let waiting = |state: &mut State| state.answers[number].is_none() && !state.ended;
            let mut state = shared.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
            state.answers[number].take().unwrap_or(Reply::HangUp)
        }
        reply => reply,
    };
    let bytes = match reply {
        Reply::Status(status, body) => {
            let head = "Content-Type: application/json\r\nConnection: close";
            format!("HTTP/1.1 {status} Scripted\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
        Reply::Bytes(bytes) => bytes,
        Reply::Held | Reply::HangUp => return,
    };
    // Who has stopped waiting is gone.
    let _ = stream.write_all(&bytes);
}

/// Reads one request; None where it is none, or breaks off.
fn hear(stream: &mut TcpStream) -> Option<Heard> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(heard) = parse(&bytes) {
            return Some(heard);
        }
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// A request that is there as a whole.
fn parse(bytes: &[u8]) -> Option<Heard> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let named =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let headers: Vec<(String, String)> = lines.filter_map(named).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(Some(0), |(_, length)| length.parse().ok())?;
    let body = bytes.get(end..end + length)?;
    Some(Heard { method, path, headers, body: String::from_utf8(body.to_vec()).ok()? })
}
