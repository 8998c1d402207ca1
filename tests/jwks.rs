//! Keys that are fetched, through the real binary: nobody gets in before there are any, and a new key is found (B11).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

const PRIVATE: &[u8] = include_bytes!("keys/ed25519.private.pem");
const PUBLIC: &str = include_str!("keys/ed25519.public.pem");
/// Whatever must happen may take so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The public key of the tests under this id, in a document.
fn document(kid: &str) -> String {
    let body: String = PUBLIC.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }] }).to_string()
}

fn token(kid: &str) -> String {
    let header = json!({ "alg": "EdDSA", "kid": kid }).to_string();
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(r#"{"sub":"ann"}"#));
    let key = EncodingKey::from_ed_pem(PRIVATE).unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

/// Publishes what it is given; nothing: it is down.
fn issuer() -> (SocketAddr, Arc<Mutex<Option<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let published = Arc::<Mutex<Option<String>>>::default();
    let document = published.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let (status, body) = match document.lock().unwrap().clone() {
                Some(document) => ("200 OK", document),
                None => ("503 Down", String::new()),
            };
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
    });
    (address, published)
}

struct Server {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(jwks_url: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeward.toml");
        let text = format!(
            "[edge]\nlisten = '127.0.0.1:0'\nworkers = 1\n[control]\nlisten = '127.0.0.1:0'\n\
             [auth.token]\njwks_url = '{jwks_url}'\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pipeward"))
            .args(["serve", "--config"])
            .arg(&file)
            .env("RUST_LOG", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listening = lines.find(|line| line.contains("listening on ")).expect("it starts without any keys");
        let address = listening.rsplit(' ').next().unwrap().parse().unwrap();
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        Server { child, address, _folder: folder }
    }

    /// The head of the answer to a request.
    fn ask(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n{headers}\r\n").unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
            head.extend_from_slice(&byte);
        }
        String::from_utf8(head).unwrap()
    }

    fn connect(&self, kid: &str) -> String {
        let headers = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {}\r\n",
            token(kid)
        );
        self.ask("/v1/connect", &headers)
    }
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or(head)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

// B11
#[test]
fn keys_come_before_tokens_and_new_ones_are_found() {
    let (address, published) = issuer();
    let server = Server::start(&format!("http://{address}/keys"));
    let early = server.connect("one");
    assert!(status(&early) == "503" && early.to_ascii_lowercase().contains("retry-after: "), "{early}");
    assert_eq!(status(&server.ask("/readyz", "")), "503");
    assert_eq!(status(&server.ask("/healthz", "")), "200");

    *published.lock().unwrap() = Some(document("one"));
    until("it becomes ready", || status(&server.ask("/readyz", "")) == "200");
    assert_eq!(status(&server.connect("one")), "101");

    *published.lock().unwrap() = Some(document("two"));
    assert_eq!(status(&server.connect("two")), "401", "nobody waits for a key");
    until("the new key is fetched", || status(&server.connect("two")) == "101");
    assert_eq!(status(&server.connect("one")), "401", "the old one was withdrawn");

    *published.lock().unwrap() = None;
    assert_eq!(status(&server.connect("two")), "101", "keys stay while the issuer is down");
    assert_eq!(status(&server.ask("/readyz", "")), "200");
}
