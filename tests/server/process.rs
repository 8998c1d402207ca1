//! The process: where it listens, how it ends, and with which exit code (G1, G7, G12, G15, G17).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{AUDITED, Client, Launch, Message, Raw, Request, Server, one_on_each, records, token, until};

fn client(address: SocketAddr) -> Client {
    Client::connect(address, &token("ann", &[("room", "sub,pub")]))
}

#[test]
fn it_listens_on_every_address() {
    let server = Server::start("[edge]\nlisten = [\"127.0.0.1:0\", \"127.0.0.2:0\", \"[::1]:0\"]\n");
    until("three addresses are told", || server.addresses().len() == 3);
    let addresses = server.addresses();
    assert!(addresses[2].is_ipv6(), "{addresses:?}");
    for address in addresses {
        client(address).close();
    }
}

#[test]
fn flags_win_over_the_file() {
    let config = "[edge]\nlisten = \"192.0.2.1:8080\"\nworkers = 1\n";
    let flags = ["--workers", "3", "--listen", "127.0.0.1:0"];
    let server = flags.iter().fold(Launch::new(config), |launch, flag| launch.argument(flag)).start();
    let clients: Vec<Client> = (0..6).map(|_| client(server.address)).collect();
    assert_eq!(server.workers(), 3);
    clients.into_iter().for_each(Client::close);
}

// G15
#[test]
fn an_address_in_use_is_named_and_exits_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let mut server = Launch::new(&format!("[edge]\nlisten = \"{address}\"\n")).spawn();
    assert_eq!(server.exit_code(), Some(1));
    server.log_line(&address.to_string());
    // Nor are clients shared with another server that happens to run there.
    let first = Server::start("");
    let mut second = Launch::new(&format!("[edge]\nlisten = \"{}\"\n", first.address)).spawn();
    assert_eq!(second.exit_code(), Some(1));
    second.log_line(&first.address.to_string());
    client(first.address).close();
}

#[test]
fn an_address_of_somebody_else_exits_1() {
    let mut server = Launch::new("[edge]\nlisten = \"192.0.2.1:8080\"\n").spawn();
    assert_eq!(server.exit_code(), Some(1));
    server.log_line("192.0.2.1:8080");
}

// G7
#[test]
fn a_bad_configuration_exits_2_before_it_listens() {
    for (config, named) in [
        ("[edge]\nworkers = 0\n", ":2: edge.workers"),
        ("[edge]\nnothing = 1\n", ":2: edge.nothing"),
        ("[edge\n", ":1"),
        ("[auth.token]\npublic_key_file = \"missing.pem\"\n", "public_key_file"),
        ("[auth.token]\npublic_key_file = \"pipeward.toml\"\n", "public_key_file"),
        ("[auth.token]\nhmac_secret = \"short\"\n", "hmac_secret"),
    ] {
        let mut server = Launch::new(config).spawn();
        assert_eq!(server.exit_code(), Some(2), "{config}");
        server.log_line(named);
        assert!(server.addresses().is_empty(), "{config}");
    }
}

// G1
#[test]
fn told_to_stop_with_nobody_there_it_exits_0() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = Server::start("[edge]\ndrain_s = 3600\n");
        client(server.address).close();
        server.signal(signal);
        assert_eq!(server.exit_code(), Some(0));
    }
}

// G1
#[test]
fn a_drain_lets_everybody_go() {
    let mut server = Server::start("[edge]\ndrain_s = 4\n");
    let address = server.address;
    let mut clients: Vec<Client> = (0..4).map(|_| client(address)).collect();
    server.signal(libc::SIGTERM);
    for client in &mut clients {
        let told = client.receive();
        assert_eq!((&told["type"], &told["event"]), (&json!("system"), &json!("draining")), "{told}");
        assert!(told["reconnect_in_ms"].as_u64().is_some_and(|ms| ms > 0), "{told}");
    }
    // While it drains: alive, not ready, and nobody new comes in.
    let response = Request::get("/readyz").ask(address);
    assert_eq!(response.status(), 503, "{response:?}");
    assert_eq!(Request::get("/healthz").ask(address).status(), 200);
    let upgrade = Request::upgrade().token(&token("ann", &[]));
    let response = upgrade.assert_refused(address, 503, "DRAINING");
    let retry_after = response.header("retry-after").and_then(|value| value.parse::<u32>().ok());
    assert!(retry_after.is_some_and(|seconds| seconds >= 1), "{response:?}");
    // Somebody is always the last, and is served until then.
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                let mut answered = 0;
                loop {
                    client.send(json!({"type": "ping"}));
                    match client.hear() {
                        Message::Json(value) => answered += usize::from(value["type"] == "pong"),
                        Message::Close(code, reason) => {
                            assert_eq!(code, Some(4503));
                            // C30
                            let delay = reason.strip_prefix("retry_after_ms=").and_then(|ms| ms.parse::<u64>().ok());
                            assert!(delay.is_some_and(|ms| ms > 0), "{reason:?}");
                            return answered;
                        }
                        Message::End => panic!("no close frame"),
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        })
        .collect();
    let answered: Vec<usize> = threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
    assert!(answered.iter().any(|pongs| *pongs >= 5), "all were let go at once: {answered:?}");
    assert_eq!(server.exit_code(), Some(0));
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

// G1
#[test]
fn a_drain_does_not_wait_for_those_who_do_not_answer() {
    let mut server = Server::start("[edge]\ndrain_s = 0\nhandshake_s = 300\n");
    let silent = Raw::connect(server.address);
    let mut half = Raw::connect(server.address);
    half.send("GET /v1/connect HTTP/1.1\r\nHost: a\r\n");
    let mut deaf = client(server.address);
    server.until_counter("accepted", 3);
    server.signal(libc::SIGTERM);
    assert_eq!(deaf.closed().0, Some(4503));
    assert_eq!(server.exit_code(), Some(0));
    drop((silent, half));
}

// G1: connections that a load balancer keeps in reserve, and has not used, hold nothing up.
#[test]
fn a_drain_does_not_wait_for_those_who_never_spoke() {
    for workers in [1, 2] {
        let mut server = Server::start(&format!(
            "[edge]\nworkers = {workers}\ndrain_s = 30\nhandshake_s = 300\ntrusted_proxies = [\"127.0.0.1\"]\n"
        ));
        let mut ann = client(server.address);
        let silent: Vec<Raw> = (0..5).map(|_| Raw::connect(server.address)).collect();
        server.until_counter("accepted", 6);
        server.signal(libc::SIGTERM);
        assert_eq!(ann.receive()["event"], "draining");
        ann.close();
        let began = Instant::now();
        assert_eq!(server.exit_code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
        drop(silent);
    }
}

// G1: those of different workers do not come back at the same time either.
#[test]
fn a_drain_tells_everybody_another_time() {
    let server = Server::start("[edge]\nworkers = 2\ndrain_s = 60\n");
    let token = token("ann", &[]);
    let mut clients: Vec<Client> = (0..3).flat_map(|_| one_on_each(server.address, 2, &token)).collect();
    server.signal(libc::SIGTERM);
    let mut times: Vec<u64> =
        clients.iter_mut().map(|client| client.receive()["reconnect_in_ms"].as_u64().expect("a time")).collect();
    times.sort_unstable();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 5_000), "{times:?}");
}

// G1
#[test]
fn a_second_signal_exits_at_once() {
    let mut server = Server::start("[edge]\ndrain_s = 3600\n");
    let mut clients: Vec<Client> = (0..4).map(|_| client(server.address)).collect();
    server.signal(libc::SIGTERM);
    for client in &mut clients {
        assert_eq!(client.receive()["event"], "draining");
    }
    assert!(server.is_running());
    server.signal(libc::SIGTERM);
    assert!(server.exit_code().is_some(), "it ends by itself, not by the signal");
}

// G1, GD-9: an exit in haste loses no record that was taken in.
#[test]
fn a_second_signal_exits_with_the_audit_written() {
    let mut server = Server::start(&format!("[edge]\ndrain_s = 3600\n{AUDITED}"));
    let mut ann = client(server.address);
    server.signal(libc::SIGTERM);
    assert_eq!(ann.receive()["event"], "draining");
    for call in 0..5 {
        server.api.done("revoke", json!({"user": "ben", "pipe": format!("room-{call}")}));
    }
    server.signal(libc::SIGTERM);
    assert!(server.exit_code().is_some(), "it ends by itself, not by the signal");
    assert_eq!(records(&server, "revoke").len(), 5);
}

/// Lets stderr of the child be something that cannot be written.
fn mute_stderr(full_disk: bool) -> std::io::Result<()> {
    let mut pipe = [0; 2];
    // SAFETY: both ends fit the array and the path ends with a zero; the calls only make and close descriptors of the
    // child.
    let done = unsafe {
        let written = if full_disk {
            libc::open(c"/dev/full".as_ptr(), libc::O_WRONLY)
        } else if libc::pipe(pipe.as_mut_ptr()) == 0 {
            libc::close(pipe[0]);
            pipe[1]
        } else {
            -1
        };
        libc::dup2(written, 2)
    };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

// A line of the log that cannot be written is lost, and nothing else.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    for full_disk in [false, true] {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let config = format!("[edge]\nlisten = \"{free}\"\n");
        let mut server = Launch::new(&config).before(move || mute_stderr(full_disk)).spawn();
        until("it listens", || TcpStream::connect(free).is_ok());
        until("it is ready", || Request::get("/readyz").ask(free).status() == 200);
        let mut ann = client(free);
        for signal in [libc::SIGUSR1, libc::SIGHUP, libc::SIGUSR1] {
            server.signal(signal);
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(ann.request(json!({"type": "subscribe", "pipe": "room"}))["ok"], true);
        }
        ann.close();
        server.signal(libc::SIGTERM);
        assert_eq!(server.exit_code(), Some(0), "full disk: {full_disk}");
    }
}

#[test]
fn other_signals_do_not_end_it() {
    let mut server = Server::start("");
    let mut ann = client(server.address);
    server.signal(libc::SIGHUP);
    server.log_line("the configuration was reloaded");
    server.signal(libc::SIGPIPE);
    ann.settle();
    assert_eq!(server.counter("open"), 1);
    assert!(server.is_running());
}

#[test]
fn it_serves_by_epoll_where_it_is_told_to() {
    let server = Launch::new("").variable("PIPEWARD_BACKEND", "epoll").start();
    let mut ann = client(server.address);
    assert_eq!(ann.request(json!({"type": "subscribe", "pipe": "room"}))["ok"], true);
    ann.send(json!({"type": "publish", "pipe": "room", "event": "e", "data": "x".repeat(50_000)}));
    assert_eq!(ann.receive()["event"], "e");
    ann.close();
}

/// As in many containers: the kernel has io_uring and the sandbox refuses it.
#[test]
fn it_says_so_and_serves_where_io_uring_is_forbidden() {
    let server = Launch::new("").variable("PIPEWARD_BACKEND", "uring").before(forbid_io_uring).start();
    server.log_line("io_uring is not available");
    let mut ann = client(server.address);
    assert_eq!(ann.request(json!({"type": "subscribe", "pipe": "room"}))["ok"], true);
    ann.close();
}

/// A system call filter (seccomp(2)) that answers `EPERM` to `io_uring_setup`.
fn forbid_io_uring() -> std::io::Result<()> {
    let statement = |code: u32, jump: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: jump, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_setup as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter and its program outlive the calls; both only make system calls.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
    };
    if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
