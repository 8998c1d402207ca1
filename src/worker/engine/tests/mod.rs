//! One suite for both backends, over real loopback sockets. Where io_uring is forbidden its half passes unrun; the
//! last test shows that this is said, and that epoll serves instead.

mod rig;

use super::*;
use rig::{Rig, buffer, many_descriptors, more_than_the_kernel_takes, pair, pattern};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd};
use std::thread;
use std::time::{Duration, Instant};

type Buffer = Arc<[u8]>;
type Make = fn(BufferSizes) -> io::Result<Engine<Buffer>>;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for what must not happen to have happened.
const MOMENT: Duration = Duration::from_millis(60);

macro_rules! suite {
    ($($(#[$note:meta])* $name:ident,)*) => {
        mod uring {
            use super::{BufferSizes, Engine};
            $($(#[$note])* #[test] fn $name() {
                match Engine::<super::Buffer>::uring(BufferSizes::default()) {
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)) => {
                        eprintln!("io_uring: {error}");
                    }
                    _ => super::$name(Engine::uring),
                }
            })*
        }
        mod epoll {
            $($(#[$note])* #[test] fn $name() { super::$name(super::Engine::epoll); })*
        }
    };
}

suite! {
    two_thousand_sockets_echo,
    a_stuck_peer_delays_nobody,
    ten_megabytes_arrive_whole,
    pausing_in_a_flood_loses_nothing,
    pausing_without_buffers_loses_nothing,
    a_paused_socket_tells_nothing,
    closing_cuts_off_a_send,
    a_slot_used_again_hears_nothing_old,
    held_buffers_only_delay,
    few_buffers_serve_many,
    half_closed_peers_can_be_answered,
    a_reset_ends_both_directions,
    thousands_of_sends_at_once,
    the_bell_wakes,
    dropping_cuts_off_sends,
    a_chunk_outlives_its_engine,
    a_flood_delays_nobody,
}

fn two_thousand_sockets_echo(make: Make) {
    const SOCKETS: u64 = 2_000;
    let _alone = many_descriptors();
    let mut rig = Rig::new(make);
    let mut clients: Vec<_> = (0..SOCKETS).map(|user| rig.connect(user)).collect();
    for round in 1..=2_usize {
        for (user, (_, client)) in clients.iter_mut().enumerate() {
            client.write_all(&pattern(128 + user)[user..]).expect("write");
        }
        rig.until("all heard", |rig| (0..SOCKETS).all(|user| rig.received(user) == 128 * round));
        for (user, (key, _)) in clients.iter().enumerate() {
            let heard = rig.stories[&(user as u64)].bytes[128 * (round - 1)..].to_vec();
            rig.engine.send(*key, Arc::from(heard));
        }
        rig.until("all sent", |rig| rig.stories.values().all(|story| story.sent == round));
        for (user, (_, client)) in clients.iter_mut().enumerate() {
            let mut echo = [0; 128];
            client.read_exact(&mut echo).expect("echo");
            assert_eq!(echo, pattern(128 + user)[user..]);
        }
    }
    assert_eq!(rig.engine.open(), SOCKETS as usize);
    assert_eq!((rig.engine.counters().stale, rig.engine.counters().sends), (0, 2 * SOCKETS));
}

// INVARIANTS 17
fn a_stuck_peer_delays_nobody(make: Make) {
    let mut rig = Rig::new(make);
    let (stuck, stuck_client) = rig.connect(1);
    let (lively, mut client) = rig.connect(2);
    let load = more_than_the_kernel_takes();
    rig.engine.send(stuck, Arc::clone(&load));
    let started = Instant::now();
    for round in 1..=200 {
        client.write_all(b"ping").expect("write");
        rig.until("heard", |rig| rig.received(2) == 4 * round);
        rig.engine.send(lively, buffer(b"pong"));
        rig.until("answered", |rig| rig.story(2).sent == round);
        client.read_exact(&mut [0; 4]).expect("read");
    }
    assert!(started.elapsed() < PATIENCE / 4);
    assert_eq!((rig.story(1).sent, rig.story(1).failed), (0, 0));
    rig.engine.close(stuck, true);
    rig.until("closed", |rig| rig.engine.closing() == 0);
    assert_eq!(Arc::strong_count(&load), 1, "the kernel is done, so is the engine");
    drop(stuck_client);
}

fn ten_megabytes_arrive_whole(make: Make) {
    let mut rig = Rig::new(make);
    let (key, mut client) = rig.connect(1);
    let load = pattern(10 << 20);
    let expected = load.clone();
    let reader = thread::spawn(move || {
        let mut all = vec![0; expected.len()];
        client.read_exact(&mut all).expect("read");
        assert!(all == expected);
    });
    let shared = buffer(&load);
    rig.engine.send(key, Arc::clone(&shared));
    rig.until("sent", |rig| rig.story(1).sent == 1);
    assert_eq!(Arc::strong_count(&shared), 1);
    reader.join().expect("whole and in order");
}

fn pausing_in_a_flood_loses_nothing(make: Make) {
    pause_and_resume(make, BufferSizes::default());
}

fn pausing_without_buffers_loses_nothing(make: Make) {
    pause_and_resume(make, BufferSizes { buffers: 2, buffer_bytes: 512 });
}

/// Pauses and resumes an endless stream in quick succession, so that completions meet these calls in every state; then
/// it must flow, or rest, as the last call said, without another.
fn pause_and_resume(make: Make, sizes: BufferSizes) {
    const PERIOD: usize = 1 << 16;
    let mut rig = Rig::with(make, sizes);
    let (key, mut client) = rig.connect(1);
    let stop = client.try_clone().expect("a descriptor");
    let flood = thread::spawn(move || {
        let period = pattern(PERIOD);
        while client.write_all(&period).is_ok() {}
    });
    let twice = pattern(PERIOD).repeat(2);
    let (mut seed, mut position) = (0x9E37_79B9_u32, 0);
    for _ in 0..150 {
        for last in [true, false] {
            seed = (0..4).fold(seed, |seed, _| {
                rig.engine.set_receiving(key, seed & 1 == 1);
                if seed & 6 == 0 {
                    rig.engine.submit().expect("submit");
                } else if seed & 8 == 0 {
                    rig.take_events();
                }
                seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223).rotate_left(7)
            });
            rig.engine.set_receiving(key, last);
            let enough = rig.received(1) + 8_192;
            if last {
                rig.until("it flows", |rig| rig.received(1) >= enough);
            } else {
                rig.until_quiet();
            }
        }
        for part in std::mem::take(&mut rig.story(1).bytes).chunks(PERIOD) {
            let from = position % PERIOD;
            let expected = &twice[from..from + part.len()];
            assert!(part == expected, "lost or out of order at {position}");
            position += part.len();
        }
    }
    stop.shutdown(Shutdown::Both).expect("shutdown");
    flood.join().expect("flood");
    assert_eq!(rig.story(1).ended, None, "it rests");
}

fn a_paused_socket_tells_nothing(make: Make) {
    let mut rig = Rig::new(make);
    let (key, mut client) = rig.connect(1);
    client.write_all(b"one").expect("write");
    rig.until("heard", |rig| rig.received(1) == 3);
    rig.engine.set_receiving(key, false);
    rig.for_a_moment();
    client.write_all(b"two").expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    rig.for_a_moment();
    assert_eq!(rig.story(1).bytes, b"one");
    assert_eq!(rig.story(1).ended, None);
    // It may be sent to meanwhile.
    rig.engine.send(key, buffer(b"answer"));
    rig.until("sent", |rig| rig.story(1).sent == 1);
    client.read_exact(&mut [0; 6]).expect("read");
    rig.engine.set_receiving(key, true);
    rig.until("the end", |rig| rig.story(1).ended.is_some());
    assert_eq!(rig.story(1).bytes, b"onetwo");
}

// INVARIANTS 17
fn closing_cuts_off_a_send(make: Make) {
    let mut rig = Rig::new(make);
    for (user, reset) in [(1, false), (2, true)] {
        let (key, mut client) = rig.connect(user);
        let load = more_than_the_kernel_takes();
        rig.engine.send(key, Arc::clone(&load));
        client.write_all(b"never heard").expect("write");
        if reset {
            rig.for_a_moment();
            rig.stories.remove(&user);
        }
        rig.engine.close(key, reset);
        rig.until("closed", |rig| rig.engine.closing() == 0);
        rig.for_a_moment();
        assert!(!rig.stories.contains_key(&user), "nothing is told after close");
        assert_eq!((Arc::strong_count(&load), rig.engine.open()), (1, 0));
        let ended = client.read_to_end(&mut Vec::new());
        assert!(!reset || ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    }
}

// INVARIANTS 2
fn a_slot_used_again_hears_nothing_old(make: Make) {
    let mut rig = Rig::new(make);
    let mut keys = Vec::new();
    for user in 0..400 {
        let (key, mut client) = rig.connect(user);
        client.write_all(&user.to_be_bytes()).expect("write");
        match user % 4 {
            0 => {}
            1 => rig.engine.set_receiving(key, false),
            2 => rig.engine.send(key, buffer(b"hello")),
            _ => {
                rig.until("heard", |rig| rig.received(user) == 8);
                assert_eq!(rig.story(user).bytes, user.to_be_bytes());
            }
        }
        if user % 3 == 0 {
            rig.tick();
        }
        rig.stories.clear();
        rig.engine.close(key, user % 2 == 0);
        if user % 5 == 0 {
            rig.until("closed", |rig| rig.engine.closing() == 0);
        }
        rig.tick();
        assert!(rig.stories.is_empty(), "an event after close");
        keys.push(key);
    }
    rig.until("closed", |rig| rig.engine.closing() == 0);
    assert_eq!(rig.engine.counters().stale, 0, "no completion missed its slot");
    assert!(keys.iter().any(|key| key.slot == keys[0].slot && key.generation > 2), "slots are used again");
    let (_fresh, mut client) = rig.connect(1_000);
    for (count, &key) in keys.iter().enumerate() {
        rig.engine.send(key, buffer(b"to nobody"));
        rig.engine.set_receiving(key, false);
        rig.engine.close(key, true);
        assert_eq!(rig.engine.counters().stale, 3 * (count as u64 + 1));
    }
    client.write_all(b"still here").expect("write");
    rig.until("heard", |rig| rig.received(1_000) == 10);
    assert_eq!(rig.engine.open(), 1);
}

fn held_buffers_only_delay(make: Make) {
    let mut rig = Rig::with(make, BufferSizes { buffers: 4, buffer_bytes: 64 });
    rig.keeps = true;
    let mut clients: Vec<_> = (0..30).map(|user| rig.connect(user)).collect();
    for (_, client) in &mut clients {
        client.write_all(&pattern(1_000)).expect("write");
    }
    rig.until("all buffers held", |rig| rig.kept.len() == 4 && rig.engine.counters().buffers_exhausted > 0);
    // Without buffers there is still sending, and no busy waiting.
    rig.engine.send(clients[0].0, buffer(b"x"));
    rig.until("sent", |rig| rig.story(0).sent == 1);
    rig.for_a_moment();
    assert_eq!(rig.kept.len(), 4);
    assert!(!rig.engine.before_wait().expect("submit"), "nothing can be done before a buffer comes back");
    rig.keeps = false;
    rig.kept.clear();
    rig.until("all heard", |rig| (0..30).all(|user| rig.received(user) == 1_000));
    assert!((0..30).all(|user| rig.stories[&user].bytes == pattern(1_000)));
}

fn few_buffers_serve_many(make: Make) {
    let mut rig = Rig::with(make, BufferSizes { buffers: 2, buffer_bytes: 128 });
    let mut clients: Vec<_> = (0..200).map(|user| rig.connect(user)).collect();
    for (_, client) in &mut clients {
        client.write_all(&pattern(5_000)).expect("write");
        client.shutdown(Shutdown::Write).expect("shutdown");
    }
    rig.until("all ended", |rig| (0..200).all(|user| rig.story(user).ended.is_some()));
    assert!((0..200).all(|user| rig.stories[&user].bytes == pattern(5_000)));
}

fn half_closed_peers_can_be_answered(make: Make) {
    let mut rig = Rig::new(make);
    let (key, mut client) = rig.connect(1);
    client.write_all(b"bye").expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    rig.until("the end", |rig| rig.story(1).ended.is_some());
    assert_eq!((rig.story(1).bytes.clone(), rig.story(1).ended), (b"bye".to_vec(), Some(None)));
    rig.engine.set_receiving(key, false);
    rig.engine.set_receiving(key, true);
    rig.engine.send(key, buffer(b"farewell"));
    rig.until("sent", |rig| rig.story(1).sent == 1);
    rig.engine.close(key, false);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an orderly end");
    assert_eq!(answer, "farewell");
    rig.until("closed", |rig| rig.engine.closing() == 0);
}

fn a_reset_ends_both_directions(make: Make) {
    let mut rig = Rig::new(make);
    let (key, client) = rig.connect(1);
    let (full, full_client) = rig.connect(2);
    rig.engine.send(full, more_than_the_kernel_takes());
    rig.for_a_moment();
    for client in [client, full_client] {
        let client = OwnedFd::from(client);
        socket::shut_down(std::os::fd::AsFd::as_fd(&client), true);
    }
    rig.until("the ends", |rig| rig.story(1).ended.is_some() && rig.story(2).ended.is_some());
    rig.until("the failed send", |rig| rig.story(2).failed == 1);
    let known = [None, Some(libc::ECONNRESET), Some(libc::EPIPE)];
    assert!(known.contains(&rig.story(1).ended.flatten()));
    // The first write after a mere FIN may succeed; the reset that it provokes ends the next.
    for attempt in 1.. {
        rig.engine.send(key, buffer(b"anyone?"));
        rig.until("told", |rig| rig.story(1).sent + rig.story(1).failed == attempt);
        if rig.story(1).failed > 0 {
            break;
        }
        assert!(attempt < 100, "the connection is gone");
        rig.for_a_moment();
    }
    rig.engine.close(key, false);
    rig.engine.close(full, true);
    rig.until("closed", |rig| rig.engine.closing() == 0);
    assert_eq!(rig.engine.open(), 0);
}

/// More sends than the ring has room for, more completions too. They share one socket, to be light on descriptors.
fn thousands_of_sends_at_once(make: Make) {
    const SENDS: usize = 6_000;
    let _alone = many_descriptors();
    let mut rig = Rig::new(make);
    let (server, mut client) = pair();
    let copy = || server.try_clone().expect("a descriptor");
    let keys: Vec<_> = (0..SENDS as u64).map(|user| rig.engine.add(copy(), user).expect("added")).collect();
    for &key in &keys {
        rig.engine.set_receiving(key, false);
    }
    let part = buffer(&pattern(64));
    for &key in &keys {
        rig.engine.send(key, Arc::clone(&part));
    }
    let reader = thread::spawn(move || {
        let mut all = vec![0; 64 * SENDS];
        client.read_exact(&mut all).expect("read");
        let whole = pattern(64);
        assert!(all.chunks(64).all(|chunk| chunk == whole));
        client
    });
    rig.until("all sent", |rig| rig.stories.values().filter(|story| story.sent == 1).count() == SENDS);
    let _client = reader.join().expect("all arrived");
    assert_eq!(Arc::strong_count(&part), 1);
    for key in keys {
        rig.engine.close(key, false);
    }
    rig.until("closed", |rig| rig.engine.closing() == 0 && rig.engine.open() == 0);
    assert_eq!(rig.engine.counters().stale, 0);
}

fn the_bell_wakes(make: Make) {
    // SAFETY: a system call without memory; the answer is checked below and owned by nobody else.
    let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    assert!(raw >= 0);
    // SAFETY: as above.
    let bell = unsafe { std::fs::File::from_raw_fd(raw) };
    let mut rig = Rig::new(make);
    rig.engine.watch_bell(bell.as_raw_fd()).expect("watched");
    rig.for_a_moment();
    assert_eq!(rig.bells, 0);
    for rings in 1..=50 {
        let mut bell = bell.try_clone().expect("a descriptor");
        let ringer = thread::spawn(move || bell.write_all(&1_u64.to_ne_bytes()).expect("rung"));
        rig.until("the bell", |rig| rig.bells >= rings);
        ringer.join().expect("ringer");
        assert_eq!(rig.bells, rings, "once for each");
    }
    for _ in 0..1_000 {
        (&bell).write_all(&1_u64.to_ne_bytes()).expect("rung");
    }
    rig.for_a_moment();
    assert!((51..=1_050).contains(&rig.bells), "at least once more");
}

fn dropping_cuts_off_sends(make: Make) {
    let mut rig = Rig::new(make);
    let load = more_than_the_kernel_takes();
    let mut clients = Vec::new();
    for user in 0..20 {
        let (key, client) = rig.connect(user);
        rig.engine.send(key, Arc::clone(&load));
        if user % 2 == 0 {
            rig.engine.set_receiving(key, false);
        }
        clients.push(client);
    }
    rig.for_a_moment();
    // One whose first operations are still staged.
    let (key, _staged) = rig.connect(99);
    rig.engine.send(key, Arc::clone(&load));
    drop(rig);
    assert_eq!(Arc::strong_count(&load), 1, "freed, not leaked");
    for mut client in clients {
        let mut bytes = Vec::new();
        let _ = client.read_to_end(&mut bytes);
        assert!(bytes.len() < load.len());
    }
}

fn a_chunk_outlives_its_engine(make: Make) {
    let mut rig = Rig::new(make);
    rig.keeps = true;
    let (key, mut client) = rig.connect(1);
    client.write_all(b"kept").expect("write");
    rig.until("heard", |rig| rig.received(1) == 4);
    rig.engine.close(key, false);
    let mut chunk = rig.kept.pop().expect("a chunk");
    drop(rig);
    chunk.make_ascii_uppercase();
    assert_eq!(&chunk[..], b"KEPT");
}

/// Sockets that are always full, and too few buffers for them: a fourth is heard soon nevertheless.
fn a_flood_delays_nobody(make: Make) {
    const FLOODS: u64 = 3;
    const SIZES: BufferSizes = BufferSizes { buffers: 16, buffer_bytes: 1_024 };
    let mut rig = Rig::with(make, SIZES);
    let mut floods = Vec::new();
    for user in 0..FLOODS {
        let (key, flooding) = rig.connect(user);
        rig.engine.set_receiving(key, false);
        let stop = flooding.try_clone().expect("a descriptor");
        floods.push((key, stop, thread::spawn(move || while (&flooding).write_all(&[7; 65_536]).is_ok() {})));
    }
    rig.for_a_moment();
    let (_, mut client) = rig.connect(99);
    floods.iter().for_each(|(key, ..)| rig.engine.set_receiving(*key, true));
    // Each of the others may fill all buffers a few times.
    let ahead_max = 3 * (FLOODS as usize + 1) * usize::from(SIZES.buffers) * SIZES.buffer_bytes as usize;
    rig.events_per_tick = 8;
    for round in 1..=50 {
        // Let the others fill what there is before the fourth has something.
        rig.engine.submit().expect("submit");
        client.write_all(b"ping").expect("write");
        let mut ahead = 0;
        rig.until("heard", |rig| {
            ahead += (0..FLOODS).map(|user| std::mem::take(&mut rig.story(user).bytes).len()).sum::<usize>();
            rig.received(99) == 4 * round
        });
        assert!(ahead <= ahead_max, "{ahead} bytes of others came first");
    }
    for (_, stop, flood) in floods {
        stop.shutdown(Shutdown::Both).expect("shutdown");
        flood.join().expect("flood");
    }
}

/// As in a container: the kernel has io_uring and the process may not use it.
#[test]
fn where_io_uring_is_forbidden_epoll_serves_and_says_why() {
    // Of this thread only, and gone with it.
    let guarded = thread::spawn(|| {
        forbid_io_uring();
        let refused = Engine::<Buffer>::uring(BufferSizes::default()).err().and_then(|error| error.raw_os_error());
        assert_eq!(refused, Some(libc::EPERM));
        let (engine, reason) = Engine::<Buffer>::new(Backend::Uring, BufferSizes::default()).expect("epoll");
        assert_eq!(engine.backend(), Backend::Epoll);
        assert_eq!(reason.and_then(|error| error.raw_os_error()), Some(libc::EPERM));
    });
    guarded.join().expect("served by epoll");
}

/// Makes `io_uring_setup` answer `EPERM` in this thread.
fn forbid_io_uring() {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0),
        step(JUMP_IF_EQUAL, 1, libc::SYS_io_uring_setup as u32),
        step(ANSWER, 0, libc::SECCOMP_RET_ALLOW),
        step(ANSWER, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live through the calls; both calls concern this thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}
