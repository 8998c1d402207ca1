//! The server API as an application uses it: blocking, each call over a connection of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{PATIENCE, Request};

/// The secret of the key that every server is given.
pub const API_KEY: &str = "the-key-of-the-tests";

/// Where the server API is.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Its listener.
    pub address: SocketAddr,
}

/// What a call was answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Asserts a refusal with this status and code.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.json()["code"], code, "{self:?}");
    }
}

impl Api {
    /// `POST /v1/METHOD`; None where the server goes away before it has answered in full.
    pub fn try_call(self, method: &str, body: &Value) -> Option<Answer> {
        let body = body.to_string();
        let request = Request::get(&format!("/v1/{method}")).method("POST");
        self.ask(&request.header("Content-Length", &body.len().to_string()), &body)
    }

    /// `POST /v1/METHOD`; the answer.
    #[track_caller]
    pub fn call(self, method: &str, body: Value) -> Answer {
        self.try_call(method, &body).expect("an answer")
    }

    /// `POST /v1/METHOD`, which must be done; the body of the answer.
    #[track_caller]
    pub fn done(self, method: &str, body: Value) -> Value {
        let answer = self.call(method, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        assert_eq!(answer["ok"], true, "{answer}");
        answer
    }

    /// As [`Api::done`]: how many connections it was about.
    #[track_caller]
    pub fn connections(self, method: &str, body: Value) -> u64 {
        self.done(method, body)["connections"].as_u64().expect("a number")
    }

    /// As [`Api::done`]: how many it was delivered to.
    #[track_caller]
    pub fn delivered(self, method: &str, body: Value) -> u64 {
        self.done(method, body)["delivered"].as_u64().expect("a number")
    }

    /// `GET` of this path with the key; the answer.
    #[track_caller]
    pub fn get(self, path: &str) -> Answer {
        self.ask(&Request::get(path), "").expect("an answer")
    }

    /// `GET` of this path with the key, which must be answered with 200 and JSON.
    #[track_caller]
    pub fn list(self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Any request, to which the key is added; None where the server goes away before it has answered in full.
    pub fn ask(self, request: &Request, body: &str) -> Option<Answer> {
        let request =
            request.clone().header("Connection", "close").header("Authorization", &format!("Bearer {API_KEY}"));
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(format!("{}{body}", request.text()).as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length: usize = length.map_or(Some(body.len()), |(_, length)| length.trim().parse().ok())?;
        (body.len() == length).then(|| Answer { status, text: body.to_owned() })
    }
}
