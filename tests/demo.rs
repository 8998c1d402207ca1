//! The demonstration as a newcomer meets it: `pipeward demo` is started, the page is fetched from the address that it
//! prints, and the tokens of the page connect, talk, and are refused what they were not granted.
//!
//! Everything goes over real sockets to the real binary. A browser is not needed: what it would run are these messages.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

/// Longest wait for anything. Reached only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running demonstration; ends with this value.
struct Demo {
    process: Child,
    address: SocketAddr,
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended by itself, which the tests notice elsewhere.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Demo {
    fn start() -> Demo {
        let mut process = Command::new(env!("CARGO_BIN_EXE_pipeward"))
            .args(["demo", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("it prints a line");
        let address = line.strip_prefix("open http://").and_then(|rest| rest.split('/').next());
        let address = address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address: {line}"));
        Demo { process, address }
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
        stream
    }

    fn page(&self) -> String {
        let mut stream = self.stream();
        write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        let (head, page) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/html"), "{head}");
        assert!(page.trim_end().ends_with("</html>"), "the page came whole");
        page.to_owned()
    }

    /// The tokens in the page, in its order: Ann, Ben, the application.
    fn tokens(&self) -> Vec<String> {
        let page = self.page();
        let list = between(&page, "const TOKENS = ", ";");
        serde_json::from_str(list).expect("the tokens are a list of strings")
    }

    fn connect(&self, token: &str) -> Client {
        let mut request = format!("ws://{}/v1/connect", self.address).into_client_request().expect("a valid address");
        let offered = format!("pipeward.v1, pipeward.token.{token}");
        let offered = HeaderValue::from_str(&offered).expect("a token is a header value");
        request.headers_mut().insert("Sec-WebSocket-Protocol", offered);
        // As a browser sends it: the page's own origin.
        let origin = HeaderValue::from_str(&format!("http://{}", self.address)).expect("an origin");
        request.headers_mut().insert("Origin", origin);
        let (socket, response) = tungstenite::client(request, self.stream()).expect("the token is good");
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "pipeward.v1", "the token is not echoed");
        let mut client = Client { socket, worker: 0 };
        let welcome = client.next();
        assert_eq!(welcome["type"], "welcome");
        let connection = welcome["connection"].as_str().expect("a connection id");
        let worker = connection.split('-').nth(1).and_then(|worker| worker.parse().ok());
        client.worker = worker.unwrap_or_else(|| panic!("no worker in {connection}"));
        client
    }
}

struct Client {
    socket: WebSocket<TcpStream>,
    worker: usize,
}

impl Client {
    fn next(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().expect("a message comes in time") {
                return serde_json::from_str(&text).expect("the server sends JSON");
            }
        }
    }

    /// Sends a request and returns its reply. Nothing else may come before it.
    fn ask(&mut self, mut request: Value) -> Value {
        request["id"] = json!(1);
        self.socket.send(Message::text(request.to_string())).expect("the server reads");
        let reply = self.next();
        assert_eq!((&reply["type"], &reply["id"]), (&json!("reply"), &json!(1)), "{reply}");
        reply
    }

    fn listen(&mut self, pipe: &str) {
        let reply = self.ask(json!({"type": "subscribe", "pipe": pipe}));
        assert_eq!(reply["ok"], true, "{pipe}: {reply}");
    }

    fn publish(&mut self, pipe: &str, text: &str) -> Value {
        self.ask(json!({"type": "publish", "pipe": pipe, "event": "message", "data": {"text": text}, "echo": false}))
    }

    fn hears(&mut self, pipe: &str, sender: &str, text: &str) {
        let event = self.next();
        let expected = (&json!("event"), &json!(pipe), &json!(sender), &json!({ "text": text }));
        assert_eq!((&event["type"], &event["pipe"], &event["sender"], &event["data"]), expected);
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no `{before}` in the page")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no `{after}` in the page")).0
}

#[test]
fn two_people_talk_and_the_application_reaches_them() {
    let demo = Demo::start();
    let tokens = demo.tokens();
    assert_eq!(tokens.len(), 3);
    let [mut ann, mut ben, mut app] = [0, 1, 2].map(|place| demo.connect(&tokens[place]));
    for (client, own) in [(&mut ann, "user-ann"), (&mut ben, "user-ben")] {
        for pipe in ["team-chat", "announcements", own] {
            client.listen(pipe);
        }
    }
    assert_eq!(ann.publish("team-chat", "hello")["ok"], true);
    ben.hears("team-chat", "ann", "hello");
    assert_eq!(ben.publish("team-chat", "hello yourself")["ok"], true);
    ann.hears("team-chat", "ben", "hello yourself");
    assert_eq!(app.publish("announcements", "lunch")["ok"], true);
    ann.hears("announcements", "app", "lunch");
    ben.hears("announcements", "app", "lunch");
    assert_eq!(app.publish("user-ben", "only you")["ok"], true);
    ben.hears("user-ben", "app", "only you");
    // Nothing of the last one came to Ann: her next message is her own reply.
    assert_eq!(ann.publish("team-chat", "bye")["ok"], true);
}

// HP-6
#[test]
fn what_the_buttons_try_is_refused_and_reaches_nobody() {
    let demo = Demo::start();
    let tokens = demo.tokens();
    let [mut ann, mut ben, mut app] = [0, 1, 2].map(|place| demo.connect(&tokens[place]));
    ann.listen("announcements");
    ben.listen("announcements");
    ben.listen("team-chat");
    let refusals = [
        ann.publish("announcements", "forged"),
        ann.ask(json!({"type": "subscribe", "pipe": "user-ben"})),
        ann.publish("user-ben", "forged"),
        app.publish("team-chat", "forged"),
        app.ask(json!({"type": "subscribe", "pipe": "team-chat"})),
    ];
    for refusal in refusals {
        let answer = (&refusal["ok"], &refusal["code"], &refusal["error"]);
        assert_eq!(answer, (&json!(false), &json!("FORBIDDEN"), &json!("Access denied")));
    }
    // Had any of them been delivered, it would come before this.
    assert_eq!(ann.publish("team-chat", "honest")["ok"], true);
    ben.hears("team-chat", "ann", "honest");
    assert_eq!(app.publish("announcements", "honest")["ok"], true);
    ann.hears("announcements", "app", "honest");
    ben.hears("announcements", "app", "honest");
}

#[test]
fn connections_live_on_two_workers_at_least() {
    let demo = Demo::start();
    let page = demo.page();
    let workers: usize = between(&page, "const WORKERS = ", ";").parse().expect("a number");
    assert!(workers >= 2);
    let token = &demo.tokens()[0];
    // The kernel places each by a hash of its port: 64 on one of two workers is a chance of 1 in 2^63.
    let clients: Vec<Client> = (0..64).map(|_| demo.connect(token)).collect();
    let seen: BTreeSet<usize> = clients.iter().map(|client| client.worker).collect();
    assert!(seen.len() >= 2, "all live on {seen:?}");
    assert!(seen.iter().all(|worker| *worker < workers), "{seen:?}");
}

#[test]
fn a_token_of_another_demonstration_is_refused() {
    let (one, other) = (Demo::start(), Demo::start());
    let token = &one.tokens()[0];
    let mut stream = other.stream();
    write!(
        stream,
        "GET /v1/connect HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {token}\r\n\r\n",
        other.address
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("\"code\":\"UNAUTHENTICATED\""), "{answer}");
}
