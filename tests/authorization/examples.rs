//! The sample endpoints: that each says yes to whom it knows, no to everybody else, and nothing at all to whoever is not
//! Pipeward; then that the server lives with its answers.
//!
//! An interpreter that is missing is said to be missing, and then only the text of that sample is looked at; with
//! PIPEWARD_REQUIRE_EXAMPLES=1, as in `scripts/check`, it fails the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::signature;
use crate::support::{Client, Launch, PATIENCE, Request, SECRET, assert_forbidden, assert_ok, unix_ms, unix_s};

/// A sample that is running.
struct Sample {
    child: Child,
    address: SocketAddr,
    /// Where it is asked.
    path: &'static str,
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example(name: &str) -> PathBuf {
    root().join("examples/authorize").join(name)
}

/// Whether this program can be run. If not, that is said, or fails the test.
fn have(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        let required = std::env::var_os("PIPEWARD_REQUIRE_EXAMPLES").is_some_and(|value| value == "1");
        assert!(!required, "{program} is missing, and PIPEWARD_REQUIRE_EXAMPLES=1 asks for it");
        eprintln!("{program} is missing: its sample was only read, not run");
    }
    found
}

/// Runs a sample that takes PORT and says where it listens.
fn run(mut command: Command) -> Sample {
    command.env("PIPEWARD_SECRET", SECRET).env("PORT", "0").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the sample starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
    let address = address.unwrap_or_else(|| panic!("the sample says {line:?}"));
    Sample { child, address, path: "/" }
}

/// Runs a PHP file in PHP's own server, which wants to be told a port.
fn run_php(file: &Path, path: &'static str) -> Sample {
    let begun = Instant::now();
    loop {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let mut command = Command::new("php");
        command.arg("-S").arg(address.to_string()).arg(file).env("PIPEWARD_SECRET", SECRET);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut sample = Sample { child: child.expect("php starts"), address, path };
        // It ends if somebody else has taken the port meanwhile.
        while sample.child.try_wait().expect("our child").is_none() {
            if TcpStream::connect(address).is_ok() {
                return sample;
            }
            assert!(begun.elapsed() < PATIENCE, "php does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Sample {
    /// Asks it with this signature; status and body.
    fn ask(&self, signature: Option<&str>, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        let signature = signature.map(|value| format!("X-Pipeward-Signature: {value}\r\n")).unwrap_or_default();
        let (host, path) = (self.address, self.path);
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{signature}\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).expect("it listens");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no status in {head:?}")), body.trim().to_owned())
    }
}

fn call(kind: &str, headers: Value) -> String {
    json!({
        "kind": kind, "delivery": "1", "connection": "0-1-2", "ip": "127.0.0.1", "headers": headers, "query": {}, "user": null
    })
    .to_string()
}

/// What a browser of this session brings: a cookie for those who read cookies, a token for those who read tokens.
fn credentials(session: &str) -> Value {
    json!({ "cookie": format!("theme=dark; session={session}"), "authorization": format!("Bearer {session}") })
}

/// Everything that a sample must do, by itself and under the server.
fn exercise(sample: &Sample) {
    // INVARIANTS 31: nobody but Pipeward, nothing old, nothing meant for another.
    let ann = call("connect", credentials("ann-session"));
    let now_s = unix_s();
    for (signature, body) in [
        (None, &*ann),
        (Some(String::new()), &*ann),
        (Some("t=,v1=".to_owned()), &*ann),
        (Some(signature("another secret of 32 bytes, maybe", now_s, &ann)), &*ann),
        (Some(signature(SECRET, now_s, &ann.replace("ann", "bob"))), &*ann),
        (Some(signature(SECRET, now_s - 400, &ann)), &*ann),
        (Some(signature(SECRET, now_s + 400, &ann)), &*ann),
        (Some(signature(SECRET, now_s - 400, &ann).replace(&(now_s - 400).to_string(), &now_s.to_string())), &*ann),
    ] {
        assert_eq!(sample.ask(signature.as_deref(), body).0, 400, "{signature:?}");
    }
    for kind in ["action", "queue", "subscribe", ""] {
        let body = call(kind, credentials("ann-session"));
        assert_eq!(sample.ask(Some(&signature(SECRET, unix_s(), &body)), &body).0, 400, "{kind}");
    }
    for headers in [json!({}), credentials("eve-session"), credentials(""), json!({ "cookie": "" })] {
        let body = call("connect", headers);
        let (status, answer) = sample.ask(Some(&signature(SECRET, unix_s(), &body)), &body);
        assert!(status == 401 || (status, &*answer) == (200, "null"), "{status} {answer} for {body}");
    }
    for kind in ["connect", "refresh"] {
        let body = call(kind, credentials("ann-session"));
        let (status, answer) = sample.ask(Some(&signature(SECRET, unix_s(), &body)), &body);
        assert_eq!(status, 200, "{answer}");
        let asked_ms = unix_ms();
        let decision =
            pipeward::auth::answer::authorize(&answer, asked_ms).unwrap_or_else(|why| panic!("{why}: {answer}"));
        let decision = decision.expect("ann is known");
        assert_eq!((decision.identity.id(), decision.identity.tenant()), ("ann", Some("acme")));
        assert_eq!((&*decision.grants[0].pipe, decision.session.as_deref()), ("user-ann", Some("s-1")));
        let hour = asked_ms + 3_600_000;
        assert!(decision.expires_at_ms.is_some_and(|at| at.abs_diff(hour) < 60_000), "{decision:?}");
    }
    serves(sample);
}

/// HP-1, HP-7, GD-1: the server asks it at the handshake and at a refresh.
fn serves(sample: &Sample) {
    let (address, path) = (sample.address, sample.path);
    let config =
        format!("[auth.webhook]\nurl = \"http://{address}{path}\"\nsecret = \"{SECRET}\"\ntimeout_ms = 10000\n");
    let server = Launch::new(&config).without_token_key().start();
    let request = |session: &str| {
        let cookie = format!("theme=dark; session={session}");
        Request::upgrade().header("Cookie", &cookie).header("Authorization", &format!("Bearer {session}"))
    };
    for refused in [Request::upgrade(), request("eve-session")] {
        let response = Client::try_with(server.address, &refused).err().expect("refused");
        assert_eq!(response.status(), 401);
    }
    let mut ann = Client::with(server.address, &request("ann-session"));
    assert_eq!(ann.welcome["user"], json!({ "id": "ann", "name": "Ann" }));
    assert!(ann.welcome["expires_at"].is_u64(), "{}", ann.welcome);
    assert_ok(&ann.subscribe("user-ann"));
    assert_forbidden(&ann.subscribe("user-bob"));
    assert_forbidden(&ann.publish("user-ann", 1));
    let refreshed = ann.request(json!({ "type": "refresh" }));
    assert_ok(&refreshed);
    assert_eq!(refreshed["pipes"]["user-ann"]["subscribe"], true, "{refreshed}");
    assert_eq!(server.api.delivered("publish?count=true", json!({ "pipe": "user-ann", "event": "e", "data": 7 })), 1);
    ann.expect_event("user-ann", 7);
}

#[test]
fn node() {
    if have("node", "--version") {
        let mut command = Command::new("node");
        command.arg(example("node.mjs"));
        exercise(&run(command));
    }
}

#[test]
fn python() {
    if have("python3", "--version") {
        let mut command = Command::new("python3");
        command.arg(example("python.py"));
        exercise(&run(command));
    }
}

#[test]
fn php() {
    if have("php", "--version") {
        exercise(&run_php(&example("php.php"), "/realtime/authorize"));
    }
}

/// The route runs in a stand-in of Laravel that has the few classes and functions which it uses.
#[test]
fn laravel() {
    if have("php", "--version") {
        exercise(&run_php(&root().join("tests/authorization/laravel.php"), "/realtime/authorize"));
    }
}

#[test]
fn go() {
    if !have("go", "version") {
        return;
    }
    let made = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = tempfile::tempdir_in(made).expect("a directory");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(program.path().join("authorize"))
        .arg(example("go.go"))
        // Nothing is fetched, and nothing is written outside the target directory.
        .envs([("GO111MODULE", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "")])
        .env("GOCACHE", made.join("go-cache"))
        .env("GOPATH", made.join("go-path"))
        .status();
    assert!(built.expect("go starts").success(), "the sample does not compile");
    exercise(&run(Command::new(program.path().join("authorize"))));
}

/// What can be seen without running them: each checks signature, age and kind, in constant time.
#[test]
fn each_sample_checks_who_asks() {
    let samples = [
        ("node.mjs", "timingSafeEqual("),
        ("python.py", "compare_digest("),
        ("php.php", "hash_equals("),
        ("laravel.php", "hash_equals("),
        ("go.go", "hmac.Equal("),
    ];
    let page = std::fs::read_to_string(root().join("docs/authorization.md")).expect("the page");
    for (name, comparison) in samples {
        let text = std::fs::read_to_string(example(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let has_age = text.contains("300") || text.contains("5*time.Minute");
        let header =
            text.to_ascii_lowercase().contains("x-pipeward-signature") || text.contains("X_PIPEWARD_SIGNATURE");
        assert!(text.contains(comparison) && has_age && header, "{name} does not check who asks");
        assert!(text.contains("connect") && text.contains("refresh"), "{name} does not check the kind");
        assert!(page.contains(&format!("(../examples/authorize/{name})")), "the page does not show {name}");
    }
    assert_eq!(std::fs::read_dir(example("")).expect("the samples").count(), samples.len(), "a sample without a test");
}
