//! The store from outside: what survives, what is refused at the start, and what a million entries cost.
//!
//! Figures: `cargo test --release --test store -- --ignored --nocapture a_million`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipeward::control::store::{Change, Store, StoreError};
use pipeward::shard::command::Person;
use pipeward::shard::revocation::{
    Entry, FOR_EVER, Restoration, Revocation, Revocations, Taken, TokenRevocation, Tokens,
};

/// Tells the test binary to be the process that is killed, and where its store is.
const VICTIM: &str = "PIPEWARD_TEST_STORE_VICTIM";

fn person(tenant: Option<&str>, user: &str) -> Person {
    Person { tenant: tenant.map(Arc::from), user: user.into() }
}

fn pipes(person: Person, pipe: Option<&str>, until_ms: u64) -> Entry {
    let taken = pipe.map_or(Taken::Everything, |pipe| Taken::Pipe(pipe.into()));
    Entry::Pipes(Arc::new(Revocation { person, taken, until_ms, until_authorized_after_ms: None }))
}

fn tokens(tokens: Tokens, until_ms: u64) -> Entry {
    Entry::Tokens(Arc::new(TokenRevocation { tokens, until_ms }))
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn write(store: &Store, change: Change) {
    assert_eq!(wait(store.write(change)), Ok(()));
}

fn held(path: &Path, now_ms: u64) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    let store = Store::open(path, now_ms, |entry| {
        held.insert(format!("{entry:?}"));
    });
    store.unwrap().close();
    held
}

fn texts(entries: &[Entry]) -> BTreeSet<String> {
    entries.iter().map(|entry| format!("{entry:?}")).collect()
}

fn refusal(path: &Path) -> String {
    let why = Store::open(path, 0, |_| {}).err().expect("it must not start");
    assert!(why.contains(&path.display().to_string()), "the path is named: {why}");
    why
}

#[test]
fn every_kind_of_entry_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = Store::open(&path, 0, |_| panic!("it is new")).unwrap();
    let issued_before = Tokens::IssuedBefore {
        person: person(Some("acme"), "ann"),
        issued_before_s: -1,
        except_session: Some("s".into()),
        except_token: None,
    };
    let entries = [
        pipes(person(None, "ann"), Some("a:*"), FOR_EVER),
        pipes(person(Some("acme"), "ann"), Some("a:*"), 5_000),
        pipes(person(None, "ann"), None, FOR_EVER),
        tokens(Tokens::Token("t".into()), FOR_EVER),
        tokens(Tokens::Session("t".into()), 6_000),
        tokens(issued_before, FOR_EVER),
        Entry::Pipes(Arc::new(Revocation {
            person: person(None, "bea"),
            taken: Taken::Pipe("b".into()),
            until_ms: FOR_EVER,
            until_authorized_after_ms: Some(77),
        })),
    ];
    for entry in &entries {
        write(&store, Change::Put(entry.clone()));
    }
    store.close();
    assert_eq!(held(&path, 1_000), texts(&entries));
}

// D4, D6
#[test]
fn the_same_again_replaces_and_a_restore_lifts_what_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = Store::open(&path, 0, |_| {}).unwrap();
    for entry in [
        pipes(person(None, "ann"), Some("a"), 9_000),
        pipes(person(None, "ann"), Some("a"), FOR_EVER),
        pipes(person(None, "ann"), Some("a:*"), FOR_EVER),
        pipes(person(None, "ann"), None, FOR_EVER),
        pipes(person(Some("acme"), "ann"), Some("a"), FOR_EVER),
        pipes(person(None, "anna"), Some("a"), FOR_EVER),
        pipes(person(None, "bea"), Some("a"), FOR_EVER),
        pipes(person(None, "bea"), Some("b"), FOR_EVER),
    ] {
        write(&store, Change::Put(entry));
    }
    write(&store, Change::Lift(Restoration { person: person(None, "ann"), taken: None }));
    let one = Some(Taken::Pipe("a".into()));
    write(&store, Change::Lift(Restoration { person: person(None, "bea"), taken: one }));
    write(&store, Change::Lift(Restoration { person: person(None, "nobody"), taken: None }));
    store.close();
    let left = [
        pipes(person(Some("acme"), "ann"), Some("a"), FOR_EVER),
        pipes(person(None, "anna"), Some("a"), FOR_EVER),
        pipes(person(None, "bea"), Some("b"), FOR_EVER),
    ];
    assert_eq!(held(&path, 1_000), texts(&left));
}

#[test]
fn what_has_ended_is_not_loaded_and_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = Store::open(&path, 0, |_| {}).unwrap();
    let lasting = pipes(person(None, "ann"), Some("a"), FOR_EVER);
    write(&store, Change::Put(lasting.clone()));
    for n in 0..3000 {
        drop(store.write(Change::Put(pipes(person(None, &format!("u{n}")), Some("a"), 5_000))));
    }
    store.close();
    assert_eq!(held(&path, 4_999).len(), 3001);
    assert_eq!(held(&path, 5_000), texts(std::slice::from_ref(&lasting)));
    assert_eq!(held(&path, 0), texts(&[lasting]), "the opening before this one deleted it");
}

// D15, G15: never empty in silence.
#[test]
fn a_store_that_cannot_be_trusted_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");

    std::fs::write(&path, b"").unwrap();
    assert!(refusal(&path).contains("is empty"));
    std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
    assert!(refusal(&path).contains("Put a copy back"));
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 100_000], "it is left as it was");
    std::fs::remove_file(&path).unwrap();

    assert!(refusal(folder.path()).contains("is a directory"));
    assert!(refusal(&folder.path().join("absent").join("s.redb")).contains("make the directory"));

    let store = Store::open(&path, 0, |_| {}).unwrap();
    assert!(refusal(&path).contains("in use by another process"));
    write(&store, Change::Put(pipes(person(None, "ann"), Some("a"), FOR_EVER)));
    store.close();
    let whole = std::fs::read(&path).unwrap();
    for cut in [1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(refusal(&path).contains("Put a copy back"), "cut to {cut}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(held(&path, 0).len(), 1);
}

// G15: through the real binary, before it listens.
#[test]
fn the_server_does_not_start_over_a_damaged_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let file = folder.path().join("pipeward.toml");
    let text = "[edge]\nlisten = '127.0.0.1:0'\n[control]\nlisten = '127.0.0.1:0'\n[store]\npath = 's.redb'\n\
                [auth.token]\nhmac_secret = '0123456789012345678901234567890123456789'\n";
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeward"));
    let ended = command.args(["serve", "--config"]).arg(&file).env("RUST_LOG", "info").output().unwrap();
    let log = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{log}");
    assert!(log.contains("s.redb") && log.contains("Put a copy back") && !log.contains("listening"), "{log}");
}

/// Whatever byte of the file is not what was written: it is refused, or what it holds is what was stored.
#[test]
fn a_changed_byte_never_changes_what_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = Store::open(&path, 0, |_| {}).unwrap();
    for n in 0..50 {
        write(&store, Change::Put(pipes(person(None, &format!("user-{n}")), Some("a:room"), FOR_EVER)));
    }
    store.close();
    let stored = held(&path, 0);
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    let places = (0..whole.len()).filter(|at| whole[*at] != 0).step_by(whole.len().div_ceil(600).max(7));
    for at in places {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        std::fs::write(&path, &changed).unwrap();
        let mut loaded = BTreeSet::new();
        match Store::open(&path, 0, |entry| {
            loaded.insert(format!("{entry:?}"));
        }) {
            Ok(store) => {
                store.close();
                assert_eq!(loaded, stored, "byte {at}");
            }
            Err(why) => {
                refused += 1;
                assert!(why.contains("s.redb"), "{why}");
            }
        }
    }
    assert!(refused > 0, "no change was noticed");
}

#[test]
fn a_full_queue_refuses_and_does_nothing() {
    let store = Store::in_memory().unwrap();
    let many = (0..200_000).map(|n| store.write(Change::Put(pipes(person(None, &format!("u{n}")), None, FOR_EVER))));
    let outcomes: Vec<_> = many.collect::<Vec<_>>().into_iter().map(wait).collect();
    assert!(outcomes.contains(&Ok(())) && outcomes.contains(&Err(StoreError::Full)));
    store.close();
}

/// Issue 3, 2: a crash right after an acknowledgement loses nothing.
#[test]
fn what_was_acknowledged_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let mut acknowledged = BTreeSet::new();
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_victim", "--ignored", "--nocapture"])
            .env(VICTIM, format!("{}|{round}", path.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            if let Some(user) = line.strip_prefix("stored ") {
                acknowledged.insert(user.to_owned());
                seen += 1;
            }
            if seen == 3 + round * 5 {
                // SIGKILL, while it goes on writing; what it has printed by then is read to the end.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= 3 + round * 5, "round {round}: it ended by itself after {seen}");
        let mut held = BTreeSet::new();
        let store = Store::open(&path, 0, |entry| {
            if let Entry::Pipes(one) = entry {
                held.insert(one.person.user.to_string());
            }
        });
        store.unwrap().close();
        assert!(held.is_superset(&acknowledged), "lost: {:?}", acknowledged.difference(&held));
    }
}

/// Not a test by itself: the process that `what_was_acknowledged_survives_sigkill` kills.
#[test]
#[ignore = "the process that another test kills"]
fn the_victim() {
    let Ok(order) = std::env::var(VICTIM) else { return };
    let (path, round) = order.rsplit_once('|').unwrap();
    let store = Store::open(Path::new(path), 0, |_| {}).unwrap();
    for n in 0.. {
        let users: Vec<String> = (0..4).map(|k| format!("r{round}-{n}-{k}")).collect();
        let writes: Vec<_> =
            users.iter().map(|user| store.write(Change::Put(pipes(person(None, user), Some("a"), FOR_EVER)))).collect();
        for (user, done) in users.iter().zip(writes) {
            wait(done).unwrap();
            let mut out = std::io::stdout().lock();
            if writeln!(out, "stored {user}").and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    }
}

#[test]
#[ignore = "prints figures; run it in release"]
fn a_million_entries_are_written_and_read() {
    const ENTRIES: usize = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let store = Store::open(&path, 0, |_| {}).unwrap();
    let began = Instant::now();
    let mut waiting = Vec::new();
    for n in 0..ENTRIES {
        let entry = pipes(person(None, &format!("user-{n:08}")), Some("tenant:org:team-42"), FOR_EVER - 1);
        waiting.push(store.write(Change::Put(entry)));
        if waiting.len() == 2000 {
            waiting.drain(..).for_each(|one| wait(one).unwrap());
        }
    }
    waiting.drain(..).for_each(|one| wait(one).unwrap());
    let writing = began.elapsed();
    let lone: Vec<Duration> = (0..50).map(|n| lone_write(&store, n)).collect();
    store.close();
    let bytes = std::fs::metadata(&path).unwrap().len();
    let before = resident_bytes();
    let table = Revocations::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
    let began = Instant::now();
    let store = Store::open(&path, 0, |entry| {
        if let Entry::Pipes(one) = entry {
            table.insert(one);
        }
    });
    let reading = began.elapsed();
    let after = resident_bytes();
    assert!(table.count() >= ENTRIES);
    let began = Instant::now();
    const LOOKS: usize = 1_000_000;
    let mut found = 0;
    for n in 0..LOOKS {
        found += table.of(None, &format!("user-{:08}", n * 7 % ENTRIES), 1).len();
    }
    let look = began.elapsed() / LOOKS as u32;
    assert_eq!(found, LOOKS);
    store.unwrap().close();
    println!("{ENTRIES} entries: written in {writing:?} (2000 at a time), {} MiB on disk", bytes >> 20);
    println!("a lone write with {ENTRIES} stored: median {:?}", lone[lone.len() / 2]);
    println!("opened, verified and read into the table in {reading:?}");
    println!("memory: {} bytes an entry; a look-up {look:?}", (after - before) / ENTRIES as u64);
}

fn lone_write(store: &Store, n: usize) -> Duration {
    let began = Instant::now();
    write(store, Change::Put(pipes(person(None, &format!("lone-{n}")), Some("a"), FOR_EVER)));
    began.elapsed()
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
