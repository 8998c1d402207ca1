//! The application of the recipes: answers what the test tells it to, and remembers what it was asked.
//!
//! Every call must be signed as PROTOCOL §5 says; one that is not is answered 400 and remembered as such.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::signature;
use crate::support::{SECRET, unix_s, until};

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    pub body: Value,
}

/// What a call is answered: status and body.
pub type Answer = (u16, String);

/// An HTTP server on a free port, signed with [`SECRET`].
pub struct Application {
    pub address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Application {
    /// One that answers so. It ends with the test.
    pub fn start(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Application {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (own, answer) = (calls.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (calls, answer) = (own.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &calls, &*answer));
            }
        });
        Application { address, calls }
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many calls; all of them.
    #[track_caller]
    pub fn await_calls(&self, count: usize) -> Vec<Call> {
        until("the application is called", || self.calls().len() >= count);
        self.calls()
    }
}

fn serve(stream: TcpStream, calls: &Mutex<Vec<Call>>, answer: &dyn Fn(&Call) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let (mut length, mut given) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match &*name.to_ascii_lowercase() {
                "content-length" => length = value.trim().parse().ok()?,
                "x-pipeward-signature" => given = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).ok()?;
        let (status, text) = if is_signed(&given, &body) {
            let call = Call { path, body: serde_json::from_str(&body).ok()? };
            calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
            answer(&call)
        } else {
            calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { path, body: "not signed".into() });
            (400, String::new())
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", text.len());
        (&stream).write_all(format!("{head}{text}").as_bytes()).ok()?;
    }
}

fn is_signed(given: &str, body: &str) -> bool {
    let at_s = given.strip_prefix("t=").and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
    at_s.is_some_and(|at_s| at_s.abs_diff(unix_s()) <= 300 && signature(SECRET, at_s, body) == given)
}
