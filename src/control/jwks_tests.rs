//! Fetching keys from an issuer that answers as it is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use super::*;

const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const OTHER_KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"two","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// An issuer on this machine.
struct Issuer {
    address: SocketAddr,
    /// The whole answer; None: it says nothing.
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    fn start(answer: Option<String>) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::<Mutex<Vec<String>>>::default());
        let (answers, noted) = (answer.clone(), asked.clone());
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut part = [0; 4096];
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(0) | Err(_) => break,
                        Ok(bytes) => head.extend_from_slice(&part[..bytes]),
                    }
                }
                noted.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                match answers.lock().unwrap().clone() {
                    // The client may hang up in the middle.
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => silent.push(stream),
                }
            }
        });
        Issuer { address, answer, asked }
    }

    fn answers(&self, answer: Option<String>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn fetcher(&self, pace: Pace) -> Fetcher {
        Fetcher::new(&format!("http://{}/keys?of=us", self.address), pace).unwrap()
    }
}

fn answer(status: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
}

fn quick() -> Pace {
    Pace {
        first: Duration::from_millis(10),
        soonest: Duration::from_millis(150),
        usual: Duration::from_millis(600),
        limit: Duration::from_millis(300),
        look: Duration::from_millis(5),
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn ids(keys: &FetchedKeys) -> Vec<bool> {
    let Some(set) = keys.current() else { return Vec::new() };
    ["one", "two"].iter().map(|id| set.fitting(Some(id), "EdDSA").is_ok()).collect()
}

// INVARIANTS 30
#[test]
fn only_https_or_this_machine() {
    for good in [
        "https://issuer.example/keys",
        "https://issuer.example:8443/a?b=c",
        "http://localhost:9/keys",
        "http://127.9.9.9/keys",
        "http://[::1]:80/",
    ] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    for bad in [
        "http://issuer.example/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/",
        "http://10.0.0.1/keys",
        "ftp://localhost/keys",
        "file:///etc/keys",
        "https://user:secret@issuer.example/keys",
        "https://",
        "keys.json",
        "",
    ] {
        let why = check_url(bad).unwrap_err();
        assert!(why.contains("write") && !why.contains("secret"), "{bad}: {why}");
    }
}

#[test]
fn what_is_no_set_of_keys_is_refused() {
    let issuer = Issuer::start(answer("200 OK", KEYS));
    let fetcher = issuer.fetcher(quick());
    wait(async {
        assert_eq!(fetcher.fetch().await.unwrap().len(), 1);
        let head = issuer.asked.lock().unwrap()[0].clone();
        assert!(head.starts_with("GET /keys?of=us HTTP/1.1\r\n"), "{head}");
        let long = format!("{}{}", " ".repeat(DOCUMENT_BYTES_MAX), KEYS);
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{long}");
        let moved = format!("HTTP/1.1 302 Found\r\nLocation: http://{}/x\r\nContent-Length: 0\r\n\r\n", issuer.address);
        for (given, expected) in [
            (answer("500 Oops", KEYS), "500"),
            (answer("203 Other", KEYS), "203"),
            (Some(moved), "302"),
            (answer("200 OK", "{}"), "array `keys`"),
            (answer("200 OK", r#"{"keys":[]}"#), "none of its 0 keys"),
            (answer("200 OK", &long), "longer than 262144"),
            (Some(endless), "longer than 262144"),
            (Some("nonsense".to_owned()), ""),
            (None, "timed out"),
        ] {
            let asked = issuer.asked();
            issuer.answers(given);
            let began = Instant::now();
            let why = fetcher.fetch().await.unwrap_err();
            assert!(why.contains(expected), "{expected}: {why}");
            assert!(began.elapsed() < Duration::from_secs(3));
            assert!(issuer.asked() == asked + 1, "a redirect was followed, or it asked again");
        }
    });
}

// B11
#[test]
fn keys_are_fetched_kept_and_rotated() {
    let issuer = Issuer::start(answer("500 Oops", ""));
    let keys = FetchedKeys::default();
    let (pace, fetched) = (quick(), keys.clone());
    let fetcher = issuer.fetcher(pace);
    wait(async {
        let task = tokio::spawn(fetcher.run(fetched));
        until("it tries again until there is a first set", || issuer.asked() >= 3).await;
        assert!(keys.current().is_none());
        issuer.answers(answer("200 OK", KEYS));
        until("the first set", || ids(&keys) == [true, false]).await;
        let got = Instant::now();

        // A key that nobody knows: fetched again, but not at once.
        issuer.answers(answer("200 OK", OTHER_KEYS));
        keys.want();
        let asked = issuer.asked();
        until("the second set", || ids(&keys) == [false, true]).await;
        assert!(got.elapsed() >= pace.soonest - Duration::from_millis(20), "{:?}", got.elapsed());
        assert!(got.elapsed() < pace.usual);
        assert_eq!(issuer.asked(), asked + 1);

        // However often it is asked for.
        let (began, asked) = (Instant::now(), issuer.asked());
        while began.elapsed() < Duration::from_millis(400) {
            keys.want();
            sleep(Duration::from_millis(2)).await;
        }
        let times = issuer.asked() - asked;
        assert!((1..=4).contains(&times), "{times} times in 400 ms, 150 ms apart");

        // The issuer is down: the keys stay.
        issuer.answers(answer("503 Down", ""));
        let asked = issuer.asked();
        until("it asks by itself", || issuer.asked() > asked).await;
        assert_eq!(ids(&keys), [false, true]);
        issuer.answers(answer("200 OK", KEYS));
        until("and comes back", || ids(&keys) == [true, false]).await;
        task.abort();
    });
}
