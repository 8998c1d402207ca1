//! All clients of a run and what they have seen: a machine without sockets.
//!
//! Contract: the engine opens clients, feeds [`Load::receive`] with the bytes of their sockets and calls
//! [`Load::publish`]; after each call it takes the bytes to be sent from [`Load::outbox`] and the groups whose window
//! has been delivered from [`Load::delivered`]. Times are nanoseconds since the run began, given by the caller.

use hdrhistogram::Histogram;

use crate::client::{self, Client, Phase, Role};
use crate::frame::{self, Masks, Scan};
use crate::order::{Faults, Lanes};
use crate::stamp::{self, Stamp};

/// Latencies are kept up to one minute, in nanoseconds, with three significant digits.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Who takes part in a scenario.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Begins the names of the pipes.
    pub scenario: &'static str,
    /// Every client, in the order of opening.
    pub roles: Vec<Role>,
    /// Pipes, each with at most one publisher.
    pub groups: u32,
    /// Latencies are also kept apart by whether an event crossed from one worker to another.
    pub split: bool,
}

/// What went wrong apart from the counting of events.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// Clients that were refused, closed or broken.
    pub clients_lost: u64,
    /// Replies with `ok:false`.
    pub refusals: u64,
    /// `lagged` frames: the server says that it left events out.
    pub lagged: u64,
    /// The first of all these, in words.
    pub first: Option<String>,
}

/// When bytes came, in nanoseconds since the run began.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// At the socket, as the kernel says; else the same as `seen_ns`.
    pub at_ns: u64,
    /// In this program.
    pub seen_ns: u64,
}

/// A pipe and its publisher.
struct Group {
    publisher: Option<u32>,
    /// The worker of its publisher, where the server says so.
    worker: Option<u16>,
    subscribers: u32,
    sent: u32,
    /// Deliveries of the current window that are still awaited.
    awaited: u64,
    /// The publish message up to the value of `data`.
    head: Box<[u8]>,
}

/// See the module.
pub struct Load {
    scenario: &'static str,
    /// Every client.
    pub clients: Vec<Client>,
    groups: Vec<Group>,
    lanes: Lanes,
    data: Vec<u8>,
    text: Vec<u8>,
    masks: Masks,
    hint: usize,
    /// Bytes to be sent, by client. The engine empties it.
    pub outbox: Vec<(u32, Vec<u8>)>,
    /// Groups whose window has been delivered to all. The engine empties it.
    pub delivered: Vec<u32>,
    /// Buffers to be used again by `outbox`. The engine fills it.
    pub spare: Vec<Vec<u8>>,
    /// Time from the intended sending to the arrival of each event, in nanoseconds.
    pub latency: Histogram<u64>,
    /// The same to the moment at which this program had it; empty where the kernel was not asked for the arrival.
    pub seen: Histogram<u64>,
    /// The same, of events whose publisher and subscriber the same worker serves; with `split` only.
    pub same_worker: Histogram<u64>,
    /// The same, of events that crossed from one worker to another; with `split` only.
    pub across_workers: Histogram<u64>,
    split: bool,
    /// How late this program itself was with publishes that had their time, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// Time from opening to the last reply to a subscribe, in nanoseconds.
    pub opening: Histogram<u64>,
    /// Publishes sent.
    pub messages: u64,
    /// Events received for the first time.
    pub deliveries: u64,
    /// Deliveries still awaited.
    pub outstanding: u64,
    /// Pings answered.
    pub pings: u64,
    /// Clients in phase `Ready`.
    pub ready: usize,
    /// What went wrong.
    pub trouble: Trouble,
}

impl Load {
    /// All clients unopened. `data_bytes` is the length of the `data` of every publish.
    pub fn new(layout: &Layout, data_bytes: usize) -> Self {
        let name = layout.scenario;
        let mut groups: Vec<Group> = (0..layout.groups)
            .map(|group| {
                let pipe = client::pipe(name, group);
                let head = format!(r#"{{"type":"publish","pipe":"{pipe}","event":"load","data":"#);
                Group {
                    publisher: None,
                    worker: None,
                    subscribers: 0,
                    sent: 0,
                    awaited: 0,
                    head: head.into_bytes().into(),
                }
            })
            .collect();
        let mut lanes = 0;
        let mut clients = Vec::with_capacity(layout.roles.len());
        for (index, role) in layout.roles.iter().enumerate() {
            clients.push(Client {
                role: *role,
                socket: -1,
                worker: None,
                phase: Phase::Unopened,
                sending: false,
                lane_first: lanes,
                asked: 0,
                opened_ns: 0,
                kept: Vec::new(),
            });
            lanes += role.group_count;
            for group in role.group_first..role.group_first + role.group_count {
                groups[group as usize].subscribers += 1;
            }
            if let Some(group) = role.publishes {
                groups[group as usize].publisher = Some(index as u32);
            }
        }
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are valid");
        Self {
            scenario: name,
            clients,
            groups,
            lanes: Lanes::new(lanes as usize),
            data: stamp::blank(data_bytes),
            text: Vec::new(),
            masks: Masks::new(),
            hint: 0,
            outbox: Vec::new(),
            delivered: Vec::new(),
            spare: Vec::new(),
            latency: histogram(),
            seen: histogram(),
            same_worker: histogram(),
            across_workers: histogram(),
            split: layout.split,
            lateness: histogram(),
            opening: histogram(),
            messages: 0,
            deliveries: 0,
            outstanding: 0,
            pings: 0,
            ready: 0,
            trouble: Trouble::default(),
        }
    }

    /// Number of groups.
    pub fn groups(&self) -> u32 {
        self.groups.len() as u32
    }

    /// Publishes `window` messages to a group in one piece; `intended_ns` is the time that latencies count from.
    pub fn publish(&mut self, group_index: u32, window: u32, intended_ns: u64) {
        let group = &mut self.groups[group_index as usize];
        let Some(publisher) = group.publisher else { return };
        let mut out = self.spare.pop().unwrap_or_default();
        out.clear();
        for sequence in group.sent..group.sent + window {
            stamp::write(&mut self.data, Stamp { group: group_index, sequence, sent_ns: intended_ns });
            self.text.clear();
            self.text.extend_from_slice(&group.head);
            self.text.extend_from_slice(&self.data);
            self.text.push(b'}');
            frame::append(&mut out, frame::TEXT, &self.text, self.masks.next());
        }
        group.sent += window;
        let awaited = u64::from(window) * u64::from(group.subscribers);
        group.awaited += awaited;
        self.outstanding += awaited;
        self.messages += u64::from(window);
        self.outbox.push((publisher, out));
    }

    /// Latencies begin anew.
    pub fn forget_latencies(&mut self) {
        let split = [&mut self.same_worker, &mut self.across_workers];
        for latency in [&mut self.latency, &mut self.seen, &mut self.lateness].into_iter().chain(split) {
            latency.reset();
        }
    }

    /// The TCP connection of a client stands; `request` upgrades it.
    pub fn connected(&mut self, index: u32, request: String) {
        self.clients[index as usize].phase = Phase::Upgrading;
        self.outbox.push((index, request.into_bytes()));
    }

    /// Takes what a client's socket has received.
    pub fn receive(&mut self, index: u32, bytes: &[u8], now: Arrival) {
        let mut kept = std::mem::take(&mut self.clients[index as usize].kept);
        if kept.is_empty() {
            let used = self.consume(index, bytes, now);
            if used == bytes.len() {
                return;
            }
            kept.extend_from_slice(&bytes[used..]);
        } else {
            kept.extend_from_slice(bytes);
            let used = self.consume(index, &kept, now);
            if used == kept.len() {
                return;
            }
            kept.drain(..used);
        }
        self.clients[index as usize].kept = kept;
    }

    /// A client is gone; why.
    pub fn lose(&mut self, index: u32, why: &str) {
        let client = &mut self.clients[index as usize];
        if client.phase == Phase::Lost {
            return;
        }
        if client.phase == Phase::Ready {
            self.ready -= 1;
        }
        client.phase = Phase::Lost;
        client.kept = Vec::new();
        self.trouble.clients_lost += 1;
        self.note(|| format!("client {index}: {why}"));
    }

    /// Everything that the lanes found, measured against what was sent.
    pub fn faults(&self) -> Faults {
        let mut group_of_lane = Vec::new();
        for client in &self.clients {
            group_of_lane.extend(client.role.group_first..client.role.group_first + client.role.group_count);
        }
        self.lanes.faults(|lane| self.groups[group_of_lane[lane] as usize].sent)
    }

    /// Handles whole frames at the front of `bytes`; how many bytes that were.
    fn consume(&mut self, index: u32, bytes: &[u8], now: Arrival) -> usize {
        let mut used = 0;
        if self.clients[index as usize].phase == Phase::Upgrading {
            match client::response(bytes) {
                Ok(Some(head)) => used = head,
                Ok(None) => return 0,
                Err(why) => {
                    self.lose(index, &why);
                    return bytes.len();
                }
            }
            self.clients[index as usize].phase = Phase::Welcoming;
        }
        loop {
            match frame::scan(&bytes[used..]) {
                Scan::Frame { opcode, payload, consumed } => {
                    used += consumed;
                    self.frame(index, opcode, payload, now);
                }
                Scan::Incomplete => return used,
                Scan::Broken(why) => {
                    self.lose(index, why);
                    return bytes.len();
                }
            }
            if self.clients[index as usize].phase == Phase::Lost {
                return bytes.len();
            }
        }
    }

    #[inline]
    fn frame(&mut self, index: u32, opcode: u8, payload: &[u8], now: Arrival) {
        if opcode == frame::TEXT
            && let Some(stamp) = stamp::read(payload, &mut self.hint)
        {
            self.event(index, stamp, now);
        } else {
            self.other(index, opcode, payload, now);
        }
    }

    #[inline]
    fn event(&mut self, index: u32, stamp: Stamp, now: Arrival) {
        let client = &self.clients[index as usize];
        let offset = stamp.group.wrapping_sub(client.role.group_first);
        if offset >= client.role.group_count {
            self.lanes.unexpected();
            return;
        }
        let group = &mut self.groups[stamp.group as usize];
        if !self.lanes.accept((client.lane_first + offset) as usize, stamp.sequence, group.sent) {
            return;
        }
        let latency_ns = now.at_ns.saturating_sub(stamp.sent_ns).max(1);
        self.latency.saturating_record(latency_ns);
        if now.seen_ns != now.at_ns {
            self.seen.saturating_record(now.seen_ns.saturating_sub(stamp.sent_ns).max(1));
        }
        if self.split {
            let same = client.worker == group.worker;
            let latency = if same { &mut self.same_worker } else { &mut self.across_workers };
            latency.saturating_record(latency_ns);
        }
        self.deliveries += 1;
        self.outstanding -= 1;
        group.awaited -= 1;
        if group.awaited == 0 {
            self.delivered.push(stamp.group);
        }
    }

    #[cold]
    fn other(&mut self, index: u32, opcode: u8, payload: &[u8], now: Arrival) {
        match opcode {
            frame::TEXT => self.text(index, payload, now),
            frame::PING => {
                self.pings += 1;
                let mut out = Vec::new();
                frame::append(&mut out, frame::PONG, payload, self.masks.next());
                self.outbox.push((index, out));
            }
            frame::PONG => {}
            frame::CLOSE => {
                let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                self.lose(index, &format!("closed by the server: {code} {reason}"));
            }
            _ => self.lose(index, "a frame that is neither text nor control"),
        }
    }

    /// A text frame that is no event of ours.
    fn text(&mut self, index: u32, payload: &[u8], now: Arrival) {
        let has = |needle: &[u8]| memchr::memmem::find(payload, needle).is_some();
        let phase = self.clients[index as usize].phase;
        if has(br#""ok":false"#) {
            self.trouble.refusals += 1;
            let reply: String = String::from_utf8_lossy(payload).chars().take(300).collect();
            self.note(|| format!("client {index}: {reply}"));
            if phase == Phase::Subscribing {
                self.lose(index, "its subscription was refused");
            }
        } else if has(br#""lagged""#) {
            self.trouble.lagged += 1;
            self.note(|| format!("client {index}: lagged"));
        } else if (phase == Phase::Welcoming && has(br#""welcome""#))
            || (phase == Phase::Subscribing && has(br#""reply""#))
        {
            if phase == Phase::Welcoming {
                self.welcomed(index, payload);
            }
            self.advance(index, now);
        }
    }

    /// Notes which worker serves it.
    fn welcomed(&mut self, index: u32, welcome: &[u8]) {
        let client = &mut self.clients[index as usize];
        client.worker = client::worker(welcome);
        if let Some(group) = client.role.publishes {
            self.groups[group as usize].worker = client.worker;
        }
    }

    /// Asks for the next subscriptions, or is ready.
    fn advance(&mut self, index: u32, now: Arrival) {
        let client = &mut self.clients[index as usize];
        if client.asked == client.role.group_count {
            client.phase = Phase::Ready;
            self.ready += 1;
            self.opening.saturating_record(now.seen_ns.saturating_sub(client.opened_ns).max(1));
            return;
        }
        let (message, count) = client::subscribe(self.scenario, client.role, client.asked);
        client.asked += count;
        client.phase = Phase::Subscribing;
        let mut out = Vec::new();
        frame::append(&mut out, frame::TEXT, message.as_bytes(), self.masks.next());
        self.outbox.push((index, out));
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        self.trouble.first.get_or_insert_with(words);
    }
}

#[cfg(test)]
mod tests;
