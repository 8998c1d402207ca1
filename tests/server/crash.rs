//! What was acknowledged outlives the process, however it ends; and a store that is not whole is never taken for an
//! empty one (HP-8, D13, D15, G15, INVARIANTS 6, 32).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Client, Launch, Request, Server, assert_code, assert_ok, assert_system, rights, token, token_with, unix_s,
};

fn launch() -> Launch {
    Launch::new("[edge]\nworkers = 2\ndrain_s = 0\n")
}

/// Everything that can be stored, one of each.
fn revoke_one_of_each(server: &Server) {
    let done = |method: &str, body: Value| drop(server.api.done(method, body));
    done("revoke", json!({"user": "ann", "pipe": "room"}));
    done("revoke", json!({"user": "ann", "pipe": "a:*"}));
    done("revoke", json!({"user": "ann", "pipe": "red-only", "tenant": "red"}));
    done("revoke", json!({"user": "ann", "pipe": "limited", "ttl_s": 3600}));
    done("revoke", json!({"user": "ann", "pipe": "over", "ttl_s": 0.05}));
    done("revoke", json!({"user": "ann", "pipe": "lifted"}));
    done("restore", json!({"user": "ann", "pipe": "lifted"}));
    done("revoke_all", json!({"user": "ben"}));
    done("revoke_all", json!({"user": "eve"}));
    done("restore", json!({"user": "eve"}));
    done("revoke_tokens", json!({"token": "t1"}));
    done("revoke_tokens", json!({"session": "s1"}));
    done("revoke_tokens", json!({"user": "joe", "issued_before_s": 1_000, "except_session": "spared"}));
    // Until what was to end has ended.
    std::thread::sleep(Duration::from_millis(60));
}

#[track_caller]
fn assert_one_of_each(server: &Server) {
    let connect = |user: &str, claims: Value| Client::connect(server.address, &token_with(user, claims));
    let refused = |user: &str, claims: Value| {
        Request::upgrade().token(&token_with(user, claims)).assert_refused(server.address, 401, "REVOKED");
    };
    let mut ann = connect("ann", json!({}));
    for pipe in ["room", "a:1", "limited"] {
        assert_code(&ann.subscribe(pipe), "REVOKED");
    }
    for pipe in ["red-only", "over", "lifted", "another"] {
        assert_ok(&ann.subscribe(pipe));
    }
    assert_code(&connect("ann", json!({"tenant": "red"})).subscribe("red-only"), "REVOKED");
    assert_eq!(connect("ben", json!({})).welcome["pipes"], json!({}));
    assert_ok(&connect("eve", json!({})).subscribe("room"));
    refused("ann", json!({"jti": "t1"}));
    refused("ann", json!({"sid": "s1"}));
    refused("joe", json!({"iat": 999}));
    assert_ok(&connect("joe", json!({"iat": 1_000})).subscribe("room"));
    assert_ok(&connect("joe", json!({"iat": 1, "sid": "spared"})).subscribe("room"));
}

// HP-8, GD-6, D4, D5, D6, D9, D14
#[test]
fn it_is_all_there_after_a_restart() {
    let server = launch().start();
    revoke_one_of_each(&server);
    assert_one_of_each(&server);
    let server = server.stop().start();
    assert_one_of_each(&server);
    let server = server.kill().start();
    assert_one_of_each(&server);
    // What is lifted now stays lifted.
    server.api.done("restore", json!({"user": "ann"}));
    let server = server.kill().start();
    let mut ann = Client::connect(server.address, &token_with("ann", json!({})));
    for pipe in ["room", "a:1", "limited"] {
        assert_ok(&ann.subscribe(pipe));
    }
    assert_eq!(Client::connect(server.address, &token_with("ben", json!({}))).welcome["pipes"], json!({}));
}

// D5: the end of a time limit is kept, not its length.
#[test]
fn a_time_limit_goes_on_while_the_server_is_away() {
    let server = launch().start();
    server.api.done("revoke", json!({"user": "ann", "pipe": "short", "ttl_s": 0.3}));
    server.api.done("revoke", json!({"user": "ann", "pipe": "long", "ttl_s": 3}));
    let launch = server.kill();
    std::thread::sleep(Duration::from_millis(400));
    let server = launch.start();
    let mut ann = Client::connect(server.address, &token_with("ann", json!({})));
    assert_ok(&ann.subscribe("short"));
    assert_code(&ann.subscribe("long"), "REVOKED");
    let told = ann.expect_system("pipe_restored", "long");
    assert_system(&told, "pipe_restored");
    assert_ok(&ann.subscribe("long"));
}

// D4
#[test]
fn what_ends_with_a_later_token_still_does_so_after_a_restart() {
    let server = launch().start();
    let issued = |at_s: u64| token_with("ann", json!({"iat": at_s}));
    let before = issued(unix_s());
    server.api.done("revoke", json!({"user": "ann", "pipe": "room", "until": "reauthorized"}));
    let server = server.kill().start();
    assert_code(&Client::connect(server.address, &before).subscribe("room"), "REVOKED");
    assert_ok(&Client::connect(server.address, &issued(unix_s() + 10)).subscribe("room"));
    let mut ann = Client::connect(server.address, &before);
    crate::support::until("it has ended for all", || ann.subscribe("room")["ok"] == true);
    let server = server.stop().start();
    assert_ok(&Client::connect(server.address, &before).subscribe("room"));
}

/// What one caller was told before the server died: for each user whether the pipe is revoked.
fn call_until_it_dies(server: &Server, round: usize, caller: usize) -> BTreeMap<String, bool> {
    let mut acknowledged = BTreeMap::new();
    for number in 0.. {
        let user = format!("user-{round}-{caller}-{number}");
        let mut call = |method: &str, body: &Value, revoked: bool| {
            // As soon as it is asked, what was acknowledged before may be undone.
            acknowledged.remove(&user);
            let answer = server.api.try_call(method, body)?;
            assert_eq!(answer.status, 200, "{answer:?}");
            acknowledged.insert(user.clone(), revoked);
            Some(())
        };
        let pipe = json!({"user": user, "pipe": "room"});
        let all = json!({"user": user});
        let came_to = match number % 4 {
            0 | 1 => call("revoke", &pipe, true),
            2 => call("revoke_all", &all, true),
            _ => call("revoke", &pipe, true).and_then(|()| call("restore", &pipe, false)),
        };
        if came_to.is_none() {
            break;
        }
    }
    acknowledged
}

// HP-8, INVARIANTS 6: SIGKILL right after the acknowledgement, again and again, in the middle of others.
#[test]
fn a_crash_loses_nothing_that_was_acknowledged() {
    const ROUNDS: usize = 12;
    const CALLERS: usize = 3;
    let mut launch = launch();
    let mut everything: BTreeMap<String, bool> = BTreeMap::new();
    for round in 0..ROUNDS {
        let server = launch.start();
        let pid = i32::try_from(server.pid()).expect("a pid");
        let acknowledged: Vec<_> = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| {
                    let server = &server;
                    scope.spawn(move || call_until_it_dies(server, round, caller))
                })
                .collect();
            let last = json!({"user": format!("last-{round}"), "pipe": "room"});
            std::thread::sleep(Duration::from_millis(20 + 13 * (round as u64 % 5)));
            let answer = server.api.try_call("revoke", &last).expect("an answer");
            // SAFETY: kill takes no pointers; the process is our child and not yet waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            assert_eq!(answer.status, 200, "{answer:?}");
            let callers = callers.into_iter().flat_map(|caller| caller.join().expect("a caller"));
            callers.chain([(format!("last-{round}"), true)]).collect()
        });
        assert!(acknowledged.len() > CALLERS, "hardly anything was acknowledged: {acknowledged:?}");
        launch = server.killed();
        everything.extend(acknowledged);
    }
    let server = launch.start();
    assert!(everything.values().any(|revoked| !revoked), "no restore was acknowledged");
    let granted = json!({"room": rights("sub")});
    for (user, revoked) in everything {
        let welcome = Client::connect(server.address, &token(&user, &[("room", "sub")])).welcome;
        assert_eq!(welcome["pipes"], if revoked { json!({}) } else { granted.clone() }, "{user}");
    }
}

#[track_caller]
fn assert_does_not_start(launch: Launch, named: &Path) -> Launch {
    let mut server = launch.spawn();
    assert_eq!(server.exit_code(), Some(1));
    server.log_line(&named.display().to_string());
    assert!(server.addresses().is_empty(), "it listened: {:?}", server.log());
    server.ended()
}

// D15
#[test]
fn what_is_no_store_is_refused_with_its_path() {
    for bytes in [&b"not a store at all"[..], &[0; 8192], b""] {
        let launch = Launch::new("").file("pipeward.redb", bytes);
        let path = launch.path("pipeward.redb");
        let _directory = assert_does_not_start(launch, &path);
        assert_eq!(std::fs::read(&path).expect("it is left alone"), bytes);
    }
}

// D15: never empty silently.
#[test]
fn a_damaged_store_is_refused_with_its_path() {
    let server = launch().start();
    for number in 0..300 {
        server.api.done("revoke", json!({"user": format!("user-{number}"), "pipe": "room"}));
    }
    let path = server.path("pipeward.redb");
    let mut launch = server.stop();
    let whole = std::fs::read(&path).expect("a file");
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("cut short", |bytes| bytes.truncate(100)),
        ("zeros at the start", |bytes| bytes[..4_096].fill(0)),
        ("the entries overwritten", |bytes| {
            for at in 0..bytes.len() - 5 {
                if bytes[at..].starts_with(b"user-") {
                    bytes[at..at + 5].copy_from_slice(b"USER_");
                }
            }
        }),
    ];
    for (what, damage) in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        assert_ne!(bytes, whole, "{what}");
        std::fs::write(&path, bytes).expect("written");
        launch = assert_does_not_start(launch, &path);
    }
    std::fs::write(&path, whole).expect("written");
    let server = launch.start();
    for number in 0..300 {
        let welcome = Client::connect(server.address, &token(&format!("user-{number}"), &[("room", "sub")])).welcome;
        assert_eq!(welcome["pipes"], json!({}), "user-{number}");
    }
}

// D15, G15
#[test]
fn a_store_in_use_is_refused_with_its_path() {
    let first = launch().start();
    let path = first.path("pipeward.redb");
    assert_does_not_start(Launch::new(&format!("[store]\npath = \"{}\"\n", path.display())), &path);
    first.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
}

// D13, D15
#[test]
fn a_place_where_no_store_can_be_is_refused_with_its_path() {
    for place in ["missing/pipeward.redb", "."] {
        let launch = Launch::new(&format!("[store]\npath = \"{place}\"\n"));
        let path = launch.path(place);
        assert_does_not_start(launch, &path);
    }
    let launch = Launch::new("[store]\npath = \"deeper/kept.redb\"\n");
    std::fs::create_dir(launch.path("deeper")).expect("a directory");
    let server = launch.start();
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    assert!(server.path("deeper/kept.redb").exists(), "beside the configuration");
}

/// As on a full disk: writes to files fail from now on, up to `bytes`. The process must ignore SIGXFSZ.
fn limit_files(server: &Server, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    let pid = i32::try_from(server.pid()).expect("a pid");
    // SAFETY: the limit is initialised; the old one is not asked for; the process is our child and not yet waited for.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

// D15, INVARIANTS 6: in force and not acknowledged; and it stays so until the next start, which knows what is there.
#[test]
fn what_cannot_be_written_is_in_force_and_not_acknowledged() {
    let ignoring = launch().before(|| {
        // SAFETY: a plain system call.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Ok(())
    });
    let server = ignoring.start();
    let mut ann = Client::connect(server.address, &token_with("ann", json!({})));
    for pipe in ["kept", "room", "hall"] {
        assert_ok(&ann.subscribe(pipe));
    }
    server.api.done("revoke", json!({"user": "ann", "pipe": "kept"}));
    ann.expect_system("pipe_revoked", "kept");
    limit_files(&server, 0);
    server.api.call("revoke", json!({"user": "ann", "pipe": "room"})).assert_refused(500, "INTERNAL");
    ann.expect_system("pipe_revoked", "room");
    assert_code(&ann.subscribe("room"), "REVOKED");
    assert_code(&Client::connect(server.address, &token_with("ann", json!({}))).subscribe("room"), "REVOKED");
    let tokens = json!({"user": "ben", "issued_before_s": 5});
    server.api.call("revoke_tokens", tokens).assert_refused(500, "INTERNAL");
    let ben = Request::upgrade().token(&token_with("ben", json!({})));
    ben.assert_refused(server.address, 401, "REVOKED");
    // There is room again; what the file holds is not known before it is read anew.
    limit_files(&server, libc::RLIM_INFINITY);
    server.api.call("revoke", json!({"user": "ann", "pipe": "hall"})).assert_refused(500, "INTERNAL");
    ann.expect_system("pipe_revoked", "hall");
    assert_ok(&ann.publish("elsewhere", 1));
    let server = server.kill().start();
    let mut ann = Client::connect(server.address, &token_with("ann", json!({})));
    assert_code(&ann.subscribe("kept"), "REVOKED");
    server.api.done("revoke", json!({"user": "ann", "pipe": "hall"}));
    ann.expect_system("pipe_revoked", "hall");
}
