//! Drives the clients of a run over real sockets: one thread, one ring.
//!
//! Every loop here ends: by its work, by its time, or because nothing has arrived for [`STALL`].

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::client::{self, Phase};
use crate::load::{Arrival, Layout, Load};
use crate::ring::{Event, Ring};
use crate::token::Credentials;

/// Without any arrival for this long, what is awaited counts as lost.
pub const STALL: Duration = Duration::from_secs(5);
/// Clients opened before it is looked at what has happened meanwhile.
const OPENED_PER_TURN: usize = 32;
/// Time of validity of the tokens, in seconds; longer than any run.
const TOKEN_S: u64 = 24 * 3600;

/// Where the clients connect to, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server's address.
    pub address: SocketAddrV4,
    /// For the Host header.
    pub host: String,
    /// Path of the upgrade request.
    pub path: String,
    /// How clients prove who they are.
    pub credentials: Credentials,
    /// Addresses of 127.0.0.0/8 to connect from, in turns.
    pub addresses: u32,
    /// Clients between connect and ready at one time.
    pub handshakes: usize,
    /// Receive buffer of the clients' sockets, where not the kernel's choice.
    pub receive_bytes: Option<i32>,
    /// Latencies count from the moment at which a publish was handed to the kernel to the moment at which the kernel had the
    /// event for its receiver, so that they hold no waiting of this program.
    pub kernel_times: bool,
}

/// How the thread passes the time when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Polls: the server never pays for waking it, as with clients on other machines. Takes a core of its own.
    Spin,
    /// Sleeps in the kernel.
    Sleep,
}

/// An exchange of messages.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// Publishes outstanding in each group; with a `rate`, publishes at one time.
    pub window: u32,
    /// Publishes per second in all, over the groups in turns; none: the next window follows when one is delivered.
    pub rate: Option<f64>,
    /// No publish begins after this.
    pub duration: Duration,
    /// No publish begins after this many (rounded up to whole windows).
    pub messages_max: u64,
}

/// See the module.
pub struct Engine {
    /// The clients.
    pub load: Load,
    ring: Ring,
    sockets: Vec<OwnedFd>,
    target: Target,
    wait: Wait,
    origin: Instant,
    /// The same moment, Unix nanoseconds.
    origin_unix_ns: u64,
    events: Vec<Event>,
    waiting: std::collections::HashMap<u32, Vec<u8>>,
    opened: usize,
    /// Sockets with a receive in the ring.
    receiving: usize,
    /// Sends that go to the kernel in one call; it does not let others of this core run meanwhile.
    pub sends_per_call: usize,
    expires_s: u64,
    scenario: &'static str,
}

impl Engine {
    /// Prepares a run; nothing is connected yet.
    pub fn new(layout: &Layout, data_bytes: usize, target: Target, wait: Wait) -> io::Result<Self> {
        let mut ring = Ring::new()?;
        if target.kernel_times {
            ring.ask_for_times();
        }
        // One moment on both clocks.
        let (origin, now) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        Ok(Self {
            load: Load::new(layout, data_bytes),
            ring,
            sockets: Vec::with_capacity(layout.roles.len()),
            target,
            wait,
            origin,
            origin_unix_ns: now.as_nanos() as u64,
            events: Vec::new(),
            waiting: std::collections::HashMap::new(),
            opened: 0,
            receiving: 0,
            sends_per_call: usize::MAX,
            expires_s: now.as_secs() + TOKEN_S,
            scenario: layout.scenario,
        })
    }

    /// Opens clients until `count` are open, and waits until each is ready or lost. False: nothing moved any more.
    pub fn open(&mut self, count: usize, tick: &mut dyn FnMut(f64)) -> io::Result<bool> {
        let from = self.opened;
        let mut moved = Instant::now();
        let mut settled_before = self.settled();
        loop {
            while self.opened < count && self.opened - self.settled() < self.target.handshakes {
                self.open_one()?;
                // Who is connected speaks without waiting for all the others.
                if self.opened.is_multiple_of(OPENED_PER_TURN) {
                    self.turn(Duration::ZERO)?;
                }
            }
            let settled = self.settled();
            if settled == count {
                return Ok(true);
            }
            if settled != settled_before {
                (settled_before, moved) = (settled, Instant::now());
                tick((settled - from) as f64 / (count - from) as f64);
            } else if moved.elapsed() > STALL {
                self.load.trouble.first.get_or_insert_with(|| format!("{settled} of {count} clients got ready"));
                return Ok(false);
            }
            self.turn(Duration::from_millis(100))?;
        }
    }

    /// Publishes as told and waits until all of it is delivered. False: something never arrived.
    pub fn exchange(&mut self, exchange: Exchange, tick: &mut dyn FnMut(f64)) -> io::Result<bool> {
        let begin = Instant::now();
        let mut progress = Progress { begin, moved: begin, deliveries: self.load.deliveries, exchange, share: 0.0 };
        let mut pace = Pace { first: self.load.messages, taken: 0, begun_ns: self.now_ns() };
        self.load.delivered.clear();
        if exchange.rate.is_none() {
            self.load.delivered.extend(0..self.load.groups());
        }
        loop {
            let now = Instant::now();
            let sent = self.load.messages - pace.first;
            let publishing = now - begin < exchange.duration && sent < exchange.messages_max;
            let wait = match exchange.rate {
                Some(rate) => self.publish_due(&mut pace, rate, publishing, exchange),
                None => self.publish_windows(&pace, publishing, exchange),
            };
            if !publishing && self.load.outstanding == 0 {
                return Ok(true);
            }
            if progress.stalled(now, self.load.deliveries, self.load.outstanding) {
                return Ok(false);
            }
            progress.tell(now, sent, tick);
            self.turn(wait)?;
        }
    }

    /// Ends all connections without a word, and begins again with clients that are not yet opened. The ring stays: taking it
    /// down with thousands of receives in it would hold up every other thread of this core.
    pub fn restart(&mut self, layout: &Layout, data_bytes: usize) -> io::Result<()> {
        for socket in &self.sockets {
            // SAFETY: an open descriptor of ours; that the peer is gone already is no error.
            unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
        }
        let begin = Instant::now();
        while self.receiving > 0 && begin.elapsed() < STALL {
            self.turn(Duration::from_millis(10))?;
        }
        self.sockets.clear();
        self.waiting.clear();
        self.load = Load::new(layout, data_bytes);
        self.opened = 0;
        Ok(())
    }

    /// Serves the sockets for some time (pings are answered), without publishing.
    pub fn linger(&mut self, duration: Duration) -> io::Result<()> {
        let end = Instant::now() + duration;
        let wait = std::mem::replace(&mut self.wait, Wait::Sleep);
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(left)?;
        }
        self.wait = wait;
        Ok(())
    }

    /// Nanoseconds since the run began.
    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn settled(&self) -> usize {
        self.load.ready + self.load.trouble.clients_lost as usize
    }

    fn publish_windows(&mut self, pace: &Pace, publishing: bool, exchange: Exchange) -> Duration {
        while let Some(group) = self.load.delivered.pop() {
            if publishing && self.load.messages - pace.first < exchange.messages_max {
                let now_ns = self.now_ns();
                self.load.publish(group, exchange.window, now_ns);
            }
        }
        Duration::from_millis(100)
    }

    /// Publishes everything whose time has come; the time until the next.
    fn publish_due(&mut self, pace: &mut Pace, rate: f64, publishing: bool, exchange: Exchange) -> Duration {
        self.load.delivered.clear();
        if !publishing {
            return Duration::from_millis(100);
        }
        // Latency counts from the time that was intended, also where this loop comes late: a slow server is not
        // asked less often because it is slow (coordinated omission).
        loop {
            let due_ns = pace.begun_ns + (pace.taken as f64 * 1e9 / rate) as u64;
            let now_ns = self.now_ns();
            if due_ns > now_ns || self.load.messages - pace.first >= exchange.messages_max {
                return Duration::from_nanos(due_ns.saturating_sub(now_ns)).min(Duration::from_millis(100));
            }
            self.load.lateness.saturating_record((now_ns - due_ns).max(1));
            let group = (pace.taken % u64::from(self.load.groups())) as u32;
            let from_ns = if self.target.kernel_times { now_ns } else { due_ns };
            self.load.publish(group, exchange.window, from_ns);
            pace.taken += 1;
        }
    }

    fn open_one(&mut self) -> io::Result<()> {
        let index = self.opened as u32;
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + index % self.target.addresses);
        let source = self.target.address.ip().is_loopback().then_some(source);
        let socket = socket(source, self.target.receive_bytes)?;
        if self.target.kernel_times {
            set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)?;
        }
        let client = &mut self.load.clients[self.opened];
        client.socket = socket.as_raw_fd();
        client.phase = Phase::Connecting;
        client.opened_ns = self.origin.elapsed().as_nanos() as u64;
        self.ring.connect(index, socket.as_raw_fd(), &address(self.target.address))?;
        self.sockets.push(socket);
        self.opened += 1;
        Ok(())
    }

    /// Sends what is to be sent, waits if nothing is to be done, and takes what has arrived.
    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        self.flush()?;
        self.ring.turn((self.wait == Wait::Sleep).then_some(wait))?;
        let mut events = std::mem::take(&mut self.events);
        self.ring.finished(&mut events)?;
        if events.is_empty() {
            std::hint::spin_loop();
        }
        for event in events.drain(..) {
            self.take(event)?;
        }
        self.events = events;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sends = 0;
        for (index, buffer) in self.load.outbox.drain(..) {
            let client = &mut self.load.clients[index as usize];
            if client.phase == Phase::Lost {
                continue;
            }
            if client.sending {
                self.waiting.entry(index).or_default().extend_from_slice(&buffer);
                self.load.spare.push(buffer);
            } else {
                client.sending = true;
                self.ring.send(index, client.socket, buffer)?;
                sends += 1;
                if sends % self.sends_per_call == 0 {
                    self.ring.submit()?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Received { client, piece } => {
                let seen_ns = self.now_ns();
                let arrived_ns = piece.arrived_unix_ns.map(|at_ns| at_ns.saturating_sub(self.origin_unix_ns));
                let bytes = self.ring.bytes(piece);
                if self.load.clients[client as usize].phase != Phase::Lost {
                    self.load.receive(client, bytes, Arrival { at_ns: arrived_ns.unwrap_or(seen_ns), seen_ns });
                }
                self.ring.recycle(piece.buffer);
            }
            Event::Ended { client, result } if result == -libc::ENOBUFS => {
                self.ring.receive(client, self.load.clients[client as usize].socket)?;
            }
            Event::Ended { client, result: 0 } => {
                self.receiving -= 1;
                self.load.lose(client, "the server ended the connection");
            }
            Event::Ended { client, result } => {
                self.receiving -= 1;
                self.load.lose(client, &io::Error::from_raw_os_error(-result).to_string());
            }
            Event::Sent { client, buffer, error } => self.sent(client, buffer, error)?,
            Event::Connected { client, result } if result < 0 => {
                self.load.lose(client, &format!("connect: {}", io::Error::from_raw_os_error(-result)));
            }
            Event::Connected { client, .. } => self.connected(client)?,
        }
        Ok(())
    }

    fn sent(&mut self, index: u32, buffer: Vec<u8>, error: Option<i32>) -> io::Result<()> {
        self.load.spare.push(buffer);
        self.load.clients[index as usize].sending = false;
        if let Some(error) = error {
            self.load.lose(index, &format!("send: {}", io::Error::from_raw_os_error(error)));
        } else if let Some(buffer) = self.waiting.remove(&index) {
            self.load.outbox.push((index, buffer));
            self.flush()?;
        }
        Ok(())
    }

    fn connected(&mut self, index: u32) -> io::Result<()> {
        let client = &self.load.clients[index as usize];
        let (socket, role) = (client.socket, client.role);
        let grants = client::grants(self.scenario, index, role);
        let Target { host, path, credentials, .. } = &self.target;
        let request = client::request(host, path, credentials, &client::user(index), &grants, self.expires_s);
        self.load.connected(index, request);
        self.receiving += 1;
        self.ring.receive(index, socket)
    }
}

/// How far a paced exchange has come.
struct Pace {
    /// Messages before it.
    first: u64,
    /// Turns taken, each a window of one group.
    taken: u64,
    /// When it began.
    begun_ns: u64,
}

/// Watches an exchange.
struct Progress {
    begin: Instant,
    moved: Instant,
    deliveries: u64,
    exchange: Exchange,
    share: f64,
}

impl Progress {
    fn stalled(&mut self, now: Instant, deliveries: u64, outstanding: u64) -> bool {
        if deliveries != self.deliveries || outstanding == 0 {
            (self.deliveries, self.moved) = (deliveries, now);
        }
        now - self.moved > STALL
    }

    /// Tells each whole percent once.
    fn tell(&mut self, now: Instant, sent: u64, tick: &mut dyn FnMut(f64)) {
        let by_time = (now - self.begin).as_secs_f64() / self.exchange.duration.as_secs_f64();
        let share = by_time.max(sent as f64 / self.exchange.messages_max as f64).min(1.0);
        if share >= self.share + 0.01 {
            self.share = share;
            tick(share);
        }
    }
}

/// A TCP socket, bound to `source` if given, whose close resets: a storm leaves no port in TIME_WAIT.
fn socket(source: Option<Ipv4Addr>, receive_bytes: Option<i32>) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set(&socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32)?;
    if let Some(bytes) = receive_bytes {
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes)?;
    }
    if let Some(source) = source {
        // The port is chosen at connect, so that only the pair of addresses must be unique.
        set(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32)?;
        let address = address(SocketAddrV4::new(source, 0));
        let pointer: *const libc::sockaddr_in = &address;
        // SAFETY: the address is valid for the length given.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), pointer.cast(), size_of_val(&address) as u32) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

fn set<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let pointer: *const T = value;
    // SAFETY: the option is read from `value` for its own size.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, pointer.cast(), size_of::<T>() as libc::socklen_t)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}
