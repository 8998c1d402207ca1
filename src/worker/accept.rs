//! New sockets: listening, accepting, and placing them where there is room.
//!
//! Every worker listens on the same addresses (SO_REUSEPORT), so that the kernel spreads the handshakes. It spreads them
//! by hash and not by load: a worker that holds clearly more than the mean hands the socket over before the handshake
//! (INVARIANTS 25).
//!
//! Accepting is never awaited, only readiness is: a dropped accept of the runtime leaks its socket. Out of descriptors:
//! one that the process keeps in reserve is given up, the peer is told 503, and it is taken back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::bell::EventFd;
use crate::bounds::HEAD_BYTES_MAX;
use crate::mesh::doorbell::Bell;
use crate::protocol::codes::Code;
use crate::protocol::handshake::Refusal;

/// Handshakes that the kernel may queue for one listener.
const BACKLOG: i32 = 4096;
/// How often an address that is in use is tried again, and how long after the last time.
const CLAIM_TRIES: u32 = 20;
/// See [`CLAIM_TRIES`].
const CLAIM_PAUSE: Duration = Duration::from_millis(25);
/// Bytes that the kernel takes from us for a slow peer before it says "wait". With one write of at most 64 KiB this
/// bounds what still passes after a revocation (INVARIANTS 10).
const NOT_SENT_BYTES_MAX: u32 = 128 * 1024;
/// Descriptors of a server besides those of connections.
const DESCRIPTORS_BESIDE: u32 = 1_024;
/// Descriptors that room is made for before they are needed: 8 MiB.
const DESCRIPTORS_EXPECTED_MAX: u64 = 1 << 20;
/// A worker that holds this many more connections than 5/4 of the mean hands new ones over.
const HANDOFF_SLACK: u32 = 16;

/// Makes the listening sockets of all workers: each worker gets one for every address.
///
/// # Errors
/// The address that could not be listened on, and why.
pub fn listen(addresses: &[SocketAddr], workers: usize) -> Result<Vec<Listeners>, (SocketAddr, io::Error)> {
    let mut all: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for address in addresses {
        claim(*address).map_err(|error| (*address, error))?;
    }
    for address in addresses {
        let mut address = *address;
        for listeners in &mut all {
            let listener = listener(address).map_err(|error| (address, error))?;
            // Port 0 stands for one free port, the same for all workers.
            address = listener.local_addr().map_err(|error| (address, error))?;
            listeners.push(listener);
        }
    }
    let reserve = Reserve::new();
    Ok(all.into_iter().map(|listeners| Listeners { listeners, reserve: reserve.clone(), turned_away: 0 }).collect())
}

/// Whether nobody else listens there. SO_REUSEPORT alone would let a second server of the same user take half of the
/// clients of the first without a word (G15). The kernel may hold on to the sockets of a server that was killed for some
/// milliseconds, so it is tried for a while.
fn claim(address: SocketAddr) -> io::Result<()> {
    let mut tries = 0;
    loop {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < CLAIM_TRIES => {
                tries += 1;
                std::thread::sleep(CLAIM_PAUSE);
            }
            result => return result,
        }
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit these two.
    socket.set_tcp_nodelay(true)?;
    set_not_sent_bytes_max(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn set_not_sent_bytes_max(socket: &Socket) -> io::Result<()> {
    let value = NOT_SENT_BYTES_MAX;
    // SAFETY: the value is four readable bytes, as the option wants.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel make its table of this process's descriptors as large as so many connections need (0: as many as may be),
/// 8 bytes of kernel memory for each. To be called before there are threads: where they share the table, it grows at the
/// cost of some 10 ms for the one that opens the next socket, and all the connections of that worker.
pub fn expect_connections(connections: u32) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 || limit.rlim_cur == 0 {
        return;
    }
    let wanted = if connections == 0 { u32::MAX } else { connections.saturating_add(DESCRIPTORS_BESIDE) };
    let count = limit.rlim_cur.min(u64::from(wanted)).min(DESCRIPTORS_EXPECTED_MAX);
    let Ok(any) = File::open("/dev/null") else { return };
    // SAFETY: `any` is open; no pointers. The result is a descriptor of ours, or negative.
    let last = unsafe { libc::fcntl(any.as_raw_fd(), libc::F_DUPFD_CLOEXEC, (count - 1) as i32) };
    if last >= 0 {
        // SAFETY: just made, and owned by nobody else.
        drop(unsafe { OwnedFd::from_raw_fd(last) });
    }
}

/// The listening sockets of one worker.
pub struct Listeners {
    listeners: Vec<TcpListener>,
    reserve: Arc<Reserve>,
    turned_away: u64,
}

/// One descriptor that the process keeps back, so that a peer for whom there is none can still be told so.
///
/// It is given up, the peer is accepted in its place, and that peer's socket, once it was told and ended, is the next
/// reserve: no descriptor is ever free in between. Only from giving it up to accepting another worker may be faster; then
/// `missing` tells that one that its connection came of the reserve, and it is turned away instead.
struct Reserve {
    held: Mutex<Option<OwnedFd>>,
    missing: AtomicBool,
}

impl Reserve {
    fn new() -> Arc<Reserve> {
        let held = File::open("/dev/null").ok().map(OwnedFd::from);
        Arc::new(Reserve { held: Mutex::new(held), missing: AtomicBool::new(false) })
    }

    /// Accepts with the reserved descriptor, says 503, and keeps the descriptor. False: there was nobody, or somebody
    /// else took it.
    fn turn_away(&self, listener: &TcpListener) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Before it is given up: whoever gets it must see this afterwards.
        self.missing.store(true, SeqCst);
        *held = None;
        let accepted = listener.accept().ok();
        let turned_away = accepted.is_some();
        *held = match accepted {
            Some((socket, _)) => Some(refuse(socket)),
            None => File::open("/dev/null").ok().map(OwnedFd::from),
        };
        self.missing.store(held.is_none(), SeqCst);
        turned_away
    }

    /// Gives back what `turn_away` lost to this socket. The socket itself where nothing was lost.
    fn restore(&self, socket: TcpStream) -> Option<TcpStream> {
        if !self.missing.load(SeqCst) {
            return Some(socket);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Some(socket);
        }
        *held = Some(refuse(socket));
        self.missing.store(false, SeqCst);
        None
    }
}

/// The kernel may hold on to the sockets for some time after the process has gone, on behalf of its rings, and would go on
/// taking clients in for nobody. So they stop listening here.
impl Drop for Listeners {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // It has stopped already, or there is nothing to stop.
            let _ = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Tells the watchers that everybody at the door was taken in.
#[derive(Clone, Default)]
pub struct Answered(Rc<RefCell<Vec<Waker>>>);

impl Answered {
    /// They may look at the door again.
    pub fn notify(&self) {
        let mut waiting = self.0.borrow_mut();
        if !waiting.is_empty() {
            waiting.drain(..).for_each(Waker::wake);
        }
    }
}

impl Listeners {
    /// The addresses, with the ports that were chosen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Watches the listeners from the runtime of this thread: whenever somebody waits, `knocked` is set and the worker's
    /// bell rung, once until [`Answered::notify`].
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn watch(&self, knocked: &Rc<Cell<bool>>, bell: &Arc<EventFd>) -> io::Result<Answered> {
        let answered = Answered::default();
        for listener in &self.listeners {
            let door = monoio::net::TcpListener::from_std(listener.try_clone()?)?;
            let (knocked, bell, answered) = (knocked.clone(), bell.clone(), answered.clone());
            monoio::spawn(async move {
                while door.readable(false).await.is_ok() {
                    knocked.set(true);
                    bell.ring();
                    let mut asked = false;
                    poll_fn(|context| {
                        if asked && !knocked.get() {
                            return Poll::Ready(());
                        }
                        asked = true;
                        answered.0.borrow_mut().push(context.waker().clone());
                        Poll::Pending
                    })
                    .await;
                }
            });
        }
        Ok(answered)
    }

    /// The next socket that waits; None: nobody does, or none can be taken now.
    pub fn accept(&mut self) -> Option<(OwnedFd, SocketAddr)> {
        for place in 0..self.listeners.len() {
            loop {
                match self.listeners[place].accept() {
                    Ok((socket, peer)) => {
                        if let Some(socket) = self.reserve.restore(socket) {
                            return Some((socket.into(), peer));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                        if !self.turn_away(place) {
                            break;
                        }
                    }
                    // The peer has gone meanwhile; the next one may be there.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::warn!("accept failed: {error}");
                        break;
                    }
                }
            }
        }
        None
    }

    /// Out of descriptors: uses the reserved one to tell the next peer so. False: not possible either.
    fn turn_away(&mut self, place: usize) -> bool {
        self.turned_away += 1;
        if self.turned_away.is_power_of_two() {
            let count = self.turned_away;
            tracing::warn!("out of file descriptors: {count} connections refused; raise the limit (ulimit -n)");
        }
        self.reserve.turn_away(&self.listeners[place])
    }
}

/// Says 503 to a peer that no descriptor is left for, and ends its stream. What is left of the socket is a descriptor.
fn refuse(mut socket: TcpStream) -> OwnedFd {
    let refusal = Refusal::new(Code::Overloaded, "The server is out of file descriptors").with_retry_after_s(5);
    // Whoever does not get the answer sees the connection end; there is nothing better to do.
    let _ = socket.set_nonblocking(true);
    let _ = socket.write(&refusal.encode());
    // A socket that is closed with bytes unread resets the stream, and the answer may be lost with it.
    let _ = socket.read(&mut [0; HEAD_BYTES_MAX]);
    let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Write);
    socket.into()
}

type Handed = VecDeque<(OwnedFd, SocketAddr)>;

/// Sockets on their way from one worker to another. Off the path of messages, hence simply locked.
pub struct Handoffs(Box<[(AtomicU32, Mutex<Handed>)]>);

impl Handoffs {
    /// For so many workers.
    pub fn new(workers: usize) -> Arc<Handoffs> {
        Arc::new(Handoffs((0..workers).map(|_| Default::default()).collect()))
    }

    /// Which other worker should have the next connection, if not this one.
    pub fn better_place(&self, worker: usize, loads: &[CachePadded<AtomicU32>]) -> Option<usize> {
        let mine = loads[worker].load(Relaxed);
        let (least, total) = loads.iter().enumerate().fold(((worker, mine), 0u64), |(least, total), (other, load)| {
            let load = load.load(Relaxed) + self.0[other].0.load(Relaxed);
            (if load < least.1 { (other, load) } else { least }, total + u64::from(load))
        });
        let mean = total / loads.len() as u64;
        let over = u64::from(mine) > mean + mean / 4 + u64::from(HANDOFF_SLACK);
        (over && least.0 != worker).then_some(least.0)
    }

    /// Gives a socket to another worker, which must be rung then.
    pub fn give(&self, to: usize, socket: OwnedFd, peer: SocketAddr) {
        let (count, queue) = &self.0[to];
        queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((socket, peer));
        count.fetch_add(1, Relaxed);
    }

    /// Whether something waits for this worker.
    pub fn has(&self, worker: usize) -> bool {
        self.0[worker].0.load(Relaxed) > 0
    }

    /// The next socket for this worker.
    pub fn take(&self, worker: usize) -> Option<(OwnedFd, SocketAddr)> {
        if !self.has(worker) {
            return None;
        }
        let (count, queue) = &self.0[worker];
        let taken = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if taken.is_some() {
            count.fetch_sub(1, Relaxed);
        }
        taken
    }
}
