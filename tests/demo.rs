//! The demonstration as a newcomer meets it: `pipeward demo` is started, the page is fetched from the address that it
//! prints, and the tokens of the page connect, talk, and are refused what they were not granted; the page's key calls the
//! server API, as the operator's buttons do, and what it takes away is gone; and a session cookie of its sample application
//! connects without a token.
//!
//! Everything goes over real sockets to the real binary. A browser is not needed: what it would run are these messages.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
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
    stdout: BufReader<ChildStdout>,
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
        let mut stdout = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it prints a line");
        let address = line.strip_prefix("open http://").and_then(|rest| rest.split('/').next());
        let address = address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address: {line}"));
        Demo { process, stdout, address }
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

    fn operator(&self) -> Operator {
        let page = self.page();
        let port = between(&page, "const API = `http://${location.hostname}:", "`;").parse().expect("a port");
        let key = between(&page, "const API_KEY = \"", "\";").to_owned();
        Operator { address: SocketAddr::new(self.address.ip(), port), origin: format!("http://{}", self.address), key }
    }

    /// The sample application.
    fn application(&self) -> Operator {
        let page = self.page();
        let port = between(&page, "const APPLICATION = `http://${location.hostname}:", "`;").parse().expect("a port");
        let address = SocketAddr::new(self.address.ip(), port);
        Operator { address, origin: format!("http://{}", self.address), key: String::new() }
    }

    /// Connects as a browser does that has no token: from this page, with these cookies. Err: the status of the refusal.
    fn visit(&self, origin: &str, cookies: &str) -> Result<(WebSocket<TcpStream>, Value), u16> {
        let mut request = format!("ws://{}/v1/connect", self.address).into_client_request().expect("a valid address");
        for (name, value) in [("Sec-WebSocket-Protocol", "pipeward.v1"), ("Origin", origin), ("Cookie", cookies)] {
            if !value.is_empty() {
                request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header value"));
            }
        }
        match tungstenite::client(request, self.stream()) {
            Ok((socket, _)) => {
                let mut client = Client { socket, worker: 0 };
                let welcome = client.next();
                Ok((client.socket, welcome))
            }
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(why) => panic!("{why}"),
        }
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

/// The page's way to the server API.
struct Operator {
    address: SocketAddr,
    /// Of the page.
    origin: String,
    key: String,
}

/// The head of an answer and its body.
struct Answer {
    status: u16,
    /// In small letters.
    head: String,
    body: Value,
}

impl Answer {
    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header)
    }
}

impl Operator {
    /// Calls as the page does: `body` is sent as it is, without a type that a browser would ask leave for.
    fn call(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let fields = format!("Authorization: Bearer {}\r\nContent-Type: text/plain;charset=UTF-8\r\n", self.key);
        self.send("POST", path, &self.origin, &fields, &body)
    }

    /// Calls and expects it to be done. Returns the answer without its `ok`.
    fn done(&self, path: &str, body: &Value) -> Value {
        let Answer { status, head, mut body } = self.call(path, body);
        assert_eq!((status, &body["ok"]), (200, &json!(true)), "{head} {body}");
        body.as_object_mut().and_then(|fields| fields.remove("ok"));
        body
    }

    fn send(&self, method: &str, path: &str, origin: &str, fields: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\n{fields}Connection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).expect("JSON") };
        Answer { status, head: head.to_ascii_lowercase(), body }
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

    /// The next message, which must be a `system` one; returns its event and its pipe.
    fn told(&mut self) -> (String, Option<String>) {
        let message = self.next();
        assert_eq!(message["type"], "system", "{message}");
        let text = |field: &str| message[field].as_str().map(str::to_owned);
        (text("event").expect("an event"), text("pipe"))
    }

    /// Reads on until the server closes; returns the code and the reason.
    fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read().expect("it is closed in time") {
                Message::Close(frame) => {
                    let frame = frame.expect("a close code");
                    return (frame.code.into(), frame.reason.to_string());
                }
                message => assert!(!message.is_text(), "{message}"),
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

// Issue 3: the operator's half.
#[test]
fn the_operator_takes_a_pipe_away_and_gives_it_back() {
    let demo = Demo::start();
    let (tokens, operator) = (demo.tokens(), demo.operator());
    let [mut ann, mut ben] = [0, 1].map(|place| demo.connect(&tokens[place]));
    ann.listen("team-chat");
    ben.listen("team-chat");
    assert_eq!(operator.done("/v1/revoke", &json!({"user": "ann", "pipe": "team-chat"})), json!({"connections": 1}));
    assert_eq!(ann.told(), ("pipe_revoked".to_owned(), Some("team-chat".to_owned())));
    assert_eq!(ben.publish("team-chat", "without Ann")["ok"], true);
    assert_eq!(ann.publish("team-chat", "still here")["code"], "REVOKED");
    // Connecting again does not help.
    let mut again = demo.connect(&tokens[0]);
    assert_eq!(again.ask(json!({"type": "subscribe", "pipe": "team-chat"}))["code"], "REVOKED");
    let restored = operator.done("/v1/restore", &json!({"user": "ann", "pipe": "team-chat"}));
    assert_eq!(restored, json!({"connections": 2}));
    for client in [&mut ann, &mut again] {
        assert_eq!(client.told(), ("pipe_restored".to_owned(), Some("team-chat".to_owned())));
        client.listen("team-chat");
    }
    assert_eq!(ben.publish("team-chat", "welcome back")["ok"], true);
    ann.hears("team-chat", "ben", "welcome back");
}

#[test]
fn the_operator_takes_everything_and_still_reaches_the_user() {
    let demo = Demo::start();
    let (tokens, operator) = (demo.tokens(), demo.operator());
    let [mut ann, mut ben] = [0, 1].map(|place| demo.connect(&tokens[place]));
    ann.listen("announcements");
    ben.listen("announcements");
    assert_eq!(operator.done("/v1/revoke_all", &json!({"user": "ben"})), json!({"connections": 1}));
    assert_eq!(ben.told(), ("all_pipes_revoked".to_owned(), None));
    let news = json!({"pipe": "announcements", "event": "message", "data": {"text": "lunch"}});
    assert_eq!(operator.done("/v1/publish?count=true", &news), json!({"delivered": 1}), "Ann alone");
    let event = ann.next();
    assert_eq!((&event["sender"], &event["data"]["text"]), (&Value::Null, &json!("lunch")));
    let push = json!({"to": {"user": "ben"}, "event": "message", "data": {"text": "only you"}});
    assert_eq!(operator.done("/v1/push", &push), json!({"delivered": 1}));
    let pushed = ben.next();
    assert_eq!((&pushed["type"], &pushed["data"]["text"]), (&json!("push"), &json!("only you")));
    operator.done("/v1/restore", &json!({"user": "ben"}));
    assert_eq!(ben.told(), ("pipe_restored".to_owned(), Some("**".to_owned())));
    ben.listen("announcements");
}

#[test]
fn the_operator_disconnects_in_two_ways() {
    let demo = Demo::start();
    let (tokens, operator) = (demo.tokens(), demo.operator());
    let mut ann = demo.connect(&tokens[0]);
    assert_eq!(operator.done("/v1/disconnect", &json!({"user": "ann", "reconnect": true})), json!({"connections": 1}));
    let (code, reason) = ann.closed();
    assert!(code == 4503 && reason.starts_with("retry_after_ms="), "{code} {reason}");
    let mut ann = demo.connect(&tokens[0]);
    operator.done("/v1/disconnect", &json!({"user": "ann"}));
    assert_eq!(ann.closed().0, 4403);
    let push = operator.call("/v1/push", &json!({"to": {"user": "ann"}, "event": "message", "data": null}));
    assert_eq!((push.status, &push.body["code"]), (404, &json!("NOT_CONNECTED")));
}

#[test]
fn the_page_may_call_and_pages_from_elsewhere_may_not() {
    let demo = Demo::start();
    let operator = demo.operator();
    let asks = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n";
    let allowed = operator.send("OPTIONS", "/v1/revoke", &operator.origin, asks, "");
    let origin = format!("access-control-allow-origin: {}", operator.origin);
    assert_eq!(allowed.status, 204);
    for header in [&*origin, "access-control-allow-headers: authorization", "access-control-allow-methods: get, post"] {
        assert!(allowed.has(header), "{header} is not in {}", allowed.head);
    }
    assert!(operator.call("/v1/restore", &json!({"user": "ann"})).has(&origin), "the page may read the answer");
    let elsewhere = operator.send("OPTIONS", "/v1/revoke", "http://elsewhere.example", asks, "");
    assert!(elsewhere.status == 405 && !elsewhere.head.contains("access-control-"), "{}", elsewhere.head);
    // The origin is no credential, and the key is not for everything.
    let keyless = operator.send("POST", "/v1/restore", &operator.origin, "", "{\"user\":\"ann\"}");
    assert_eq!((keyless.status, &keyless.body["code"]), (401, &json!("UNAUTHENTICATED")));
    assert_eq!(operator.call("/v1/revoke_tokens", &json!({"user": "ann"})).body["code"], "FORBIDDEN");
}

#[test]
fn who_is_in_the_chat_is_shown_and_a_newer_token_widens() {
    let demo = Demo::start();
    let (page, tokens) = (demo.page(), demo.tokens());
    let newer: Vec<String> = serde_json::from_str(between(&page, "const NEWER_TOKENS = ", ";")).expect("a list");
    let mut ann = demo.connect(&tokens[0]);
    let reply = ann.ask(json!({"type": "subscribe", "pipe": "team-chat", "presence": true}));
    assert_eq!(reply["members"], json!([{"user": "ann", "name": "Ann", "connections": 1}]));
    let mut ben = demo.connect(&tokens[1]);
    ben.listen("team-chat");
    let presence = ann.next();
    let joined = (&presence["type"], &presence["joined"][0]["user"]);
    assert_eq!(joined, (&json!("presence"), &json!("ben")), "{presence}");
    assert_eq!(ann.publish("announcements", "may I?")["code"], "FORBIDDEN");
    ann.socket
        .send(Message::text(json!({"type": "refresh", "id": 2, "token": newer[0]}).to_string()))
        .expect("it reads");
    let frames = [ann.next(), ann.next()];
    assert!(frames.iter().any(|frame| frame["event"] == "grants_changed"), "{frames:?}");
    assert!(frames.iter().any(|frame| frame["id"] == 2 && frame["ok"] == true), "{frames:?}");
    assert_eq!(ann.publish("announcements", "I may")["ok"], true);
}

#[test]
fn stdout_is_for_the_address_alone() {
    let mut demo = Demo::start();
    let operator = demo.operator();
    operator.done("/v1/revoke_all", &json!({"user": "ann"}));
    // Whoever reads stdout gets all of it, the audit's last lines too.
    let process = libc::pid_t::try_from(demo.process.id()).expect("a process id");
    // SAFETY: a signal to our own child, which has not been waited for.
    assert_eq!(unsafe { libc::kill(process, libc::SIGTERM) }, 0);
    let mut rest = String::new();
    demo.stdout.read_to_string(&mut rest).expect("stdout ends with the process");
    assert_eq!(rest, "");
    assert!(demo.process.wait().expect("it ends").success());
}

/// Signs in, and returns the cookie as a browser would send it.
fn sign_in(application: &Operator, user: &str) -> String {
    let answer = application.send("POST", "/sign-in", &application.origin, "", &json!({ "user": user }).to_string());
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(answer.has("access-control-allow-credentials: true"), "the page sends and takes cookies: {}", answer.head);
    assert!(answer.has(&format!("access-control-allow-origin: {}", application.origin)), "{}", answer.head);
    let cookie = between(&answer.head, "set-cookie: ", "\r\n");
    assert!(cookie.contains("httponly") && cookie.contains("samesite=strict"), "{cookie}");
    cookie.split(';').next().expect("a cookie").to_owned()
}

// PROTOCOL §6: "a sample authorize endpoint".
#[test]
fn a_session_cookie_connects_as_its_user_and_no_other_cookie_does() {
    let demo = Demo::start();
    let application = demo.application();
    let page = application.origin.clone();
    assert_eq!(demo.visit(&page, "").err(), Some(401), "no cookie at all");
    for (user, other) in [("ann", "ben"), ("ben", "ann")] {
        let cookie = sign_in(&application, user);
        // Other cookies of the host come along.
        let visit = demo.visit(&page, &format!("theme=dark; {cookie}; pipeward_demo=1"));
        let (socket, welcome) = visit.unwrap_or_else(|status| panic!("{user}: {status}"));
        assert_eq!((&welcome["type"], &welcome["user"]["id"]), (&json!("welcome"), &json!(user)));
        let pipes: BTreeSet<&str> = welcome["pipes"].as_object().expect("pipes").keys().map(String::as_str).collect();
        let own = format!("user-{user}");
        assert_eq!(pipes, BTreeSet::from(["announcements", "team-chat", own.as_str()]));
        let mut client = Client { socket, worker: 0 };
        ["team-chat", "announcements", &*own].iter().for_each(|pipe| client.listen(pipe));
        assert_eq!(client.publish("team-chat", "hello")["ok"], true);
        assert_eq!(client.publish("announcements", "forged")["code"], "FORBIDDEN");
        let refused = client.ask(json!({"type": "subscribe", "pipe": format!("user-{other}")}));
        assert_eq!(refused["code"], "FORBIDDEN");
        // The page shows what was asked and answered, without the session.
        let last = application.send("GET", "/last", &page, "", "").body;
        assert_eq!((&last["question"]["kind"], &last["answer"]["user"]["id"]), (&json!("connect"), &json!(user)));
        let (_, session) = cookie.split_once('=').expect("a name and a value");
        assert!(!last.to_string().contains(session), "{last}");
        // A page from elsewhere cannot use it (INVARIANTS 29), and one byte less is nobody's.
        assert_eq!(demo.visit("http://elsewhere.example", &cookie).err(), Some(403));
        assert_eq!(demo.visit(&page, &cookie[..cookie.len() - 1]).err(), Some(401));
    }
    let made_up = sign_in(&application, "mallory");
    assert_eq!(demo.visit(&page, &made_up).err(), Some(401));
    assert_eq!(application.send("GET", "/last", &page, "", "").body["answer"], Value::Null);
}

#[test]
fn the_sample_application_answers_the_server_and_its_own_page_alone() {
    let demo = Demo::start();
    let application = demo.application();
    let page = application.origin.clone();
    let cookie = sign_in(&application, "ann");
    let question = json!({"kind": "connect", "headers": {"cookie": cookie}}).to_string();
    for signature in ["", "X-Pipeward-Signature: t=1,v1=00\r\n", "X-Pipeward-Signature: no\r\n"] {
        assert_eq!(status(application.address, "/authorize", &page, signature, &question), 400, "{signature}");
    }
    assert_eq!(status(application.address, "/sign-in", "http://elsewhere.example", "", r#"{"user":"ann"}"#), 403);
    let elsewhere = application.send("GET", "/last", "http://elsewhere.example", "", "");
    assert!(!elsewhere.head.contains("access-control-allow-origin"), "{}", elsewhere.head);
}

/// The status of a POST whose answer need not be JSON.
fn status(address: SocketAddr, path: &str, origin: &str, fields: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\n{fields}Connection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}
