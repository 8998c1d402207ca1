//! Out of file descriptors: everybody gets an answer, those inside go on, and it passes.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{Client, Launch, Raw, Request, Server, assert_ok, token, until};

const ALL: &[(&str, &str)] = &[("**", "sub,pub")];

/// Starts the server with this limit of open files.
fn with_open_files(config: &str, most: u64) -> Server {
    let set = move || {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the pointer is to a live value of the right type.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    Launch::new(config).before(set).start()
}

/// What became of one attempt to connect where descriptors are short. None: turned away.
#[track_caller]
fn attempt(to: SocketAddr, request: &Request) -> Option<Client> {
    let mut raw = Raw::connect(to);
    raw.try_send(request.text());
    // An answer, or the end: whoever is still sending while being turned away may see a reset.
    while !raw.received_text().contains("\r\n\r\n") && raw.wait() {}
    let text = raw.received_text();
    match text.split(' ').nth(1) {
        Some("101") => Some(Client::greet(raw).expect("it began with 101")),
        Some("503") => {
            let response = raw.response();
            response.assert_refused(503, "OVERLOADED");
            assert!(response.header("retry-after").is_some(), "{response:?}");
            None
        }
        None => None,
        Some(_) => panic!("{text}"),
    }
}

/// Time that the process has spent on a core so far.
fn busy(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    // SAFETY: takes no pointers.
    let per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Duration::from_millis(ticks * 1_000 / per_s)
}

// GD-8, B22: out of descriptors is a refusal, not an end, and passes.
#[test]
fn running_out_of_descriptors_is_survived() {
    let server = with_open_files("[edge]\nworkers = 2\n", 96);
    let request = Request::upgrade().token(&token("ann", ALL));
    let mut inside: Vec<Client> = Vec::new();
    let mut turned_away = 0;
    while turned_away < 30 {
        match attempt(server.address, &request) {
            Some(client) => inside.push(client),
            None => turned_away += 1,
        }
        assert!(inside.len() < 96, "there is no limit");
    }
    assert!(inside.len() >= 20, "only {} were let in", inside.len());
    for client in &mut inside {
        assert_ok(&client.subscribe("room"));
    }
    assert_ok(&inside[0].publish("room", 1));
    for client in &mut inside {
        client.expect_event("room", 1);
    }
    let before = busy(&server);
    std::thread::sleep(Duration::from_secs(1));
    let spent = busy(&server) - before;
    assert!(spent < Duration::from_millis(500), "it spins: {spent:?} in a second without work");
    let all = inside.len();
    for client in inside.drain(..all / 2) {
        client.close();
    }
    until("connections are let in again", || {
        while inside.len() < all - 4 {
            match attempt(server.address, &request) {
                Some(client) => inside.push(client),
                None => return false,
            }
        }
        true
    });
    assert_ok(&inside[0].publish("room", 2));
}

// GD-8: everybody gets an answer although all workers fight for the last descriptors.
#[test]
fn nobody_is_left_waiting_for_a_descriptor() {
    let server = with_open_files("[edge]\nworkers = 6\n", 140);
    let request = Request::upgrade().token(&token("ann", ALL));
    let inside: Vec<Client> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| (0..40).filter_map(|_| attempt(server.address, &request)).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("answered")).collect()
    });
    assert!((20..140).contains(&inside.len()), "{} were let in", inside.len());
    for client in inside {
        client.close();
    }
    until("connections are let in again", || attempt(server.address, &request).is_some());
}
