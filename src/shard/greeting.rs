//! From accept to welcome: the head of the request, admission, identity (B1).
//!
//! A handshake holds one bounded buffer and one deadline. The checks run in a stated order and the first that fails
//! answers; nothing is reserved before the checks that need no identity have passed, and a refusal gives back what was.

use std::net::{IpAddr, SocketAddr};

use super::Shard;
use super::admission::Seats;
use super::connection::{Greeting, Handle, Open, State, TokenIds};
use super::frames::Frame;
use super::grants::{Explicit, Grants};
use super::input::Now;
use super::people::Links;
use super::rare::{Origin, OwnLimits};
use super::revocation::TokenFacts;
use crate::auth::decision::Decision;
use crate::auth::token::TokenError;
use crate::bounds::{HANDSHAKE_GRACE_MS, HEAD_BYTES_MAX};
use crate::protocol::codes::Code;
use crate::protocol::encode::{self, Welcome};
use crate::protocol::handshake::{self, Head, Parsed, Refusal, Upgrade};
use crate::protocol::peer::{self, ProxyHeader, cap_key};

/// The path that clients connect to.
const CONNECT_PATH: &str = "/v1/connect";

/// What the bytes of a greeting come to.
enum Step {
    Wait,
    /// Without a word: this does not speak HTTP.
    Drop,
    Answer(Vec<u8>),
    Refuse(Refusal),
    Welcome(Box<Admitted>),
    Ask(Box<Asking>),
}

pub(super) struct Admitted {
    pub response: Vec<u8>,
    pub decision: Option<Decision>,
    pub seats: Seats,
    pub ip: IpAddr,
    /// What the webhook is asked with at a refresh; only where there is one.
    pub origin: Option<Box<Origin>>,
    /// Bytes of the buffer that were the head.
    pub consumed: usize,
}

/// A handshake for which the application is to be asked.
pub(super) struct Asking {
    pub response: Vec<u8>,
    pub seats: Seats,
    pub ip: IpAddr,
    pub origin: Box<Origin>,
    /// Bytes of the buffer that were the head.
    pub consumed: usize,
}

enum Admission {
    Welcome(Box<Admitted>),
    Ask(Asking),
}

enum Identified {
    /// None: anonymous.
    Decided(Option<Box<Decision>>),
    Asks,
}

impl Shard {
    /// Bytes of a connection that is not open yet.
    pub(super) fn received_greeting(&mut self, now: Now, slot: u32, bytes: &mut [u8]) {
        let State::Greeting(greeting) = &mut self.slots[slot as usize].state else { return };
        greeting.waits = false;
        greeting.buffer.extend_from_slice(bytes);
        let mut buffer = std::mem::take(&mut greeting.buffer);
        let step = self.greet(now, slot, &mut buffer, bytes.len());
        match step {
            Step::Wait => {
                if let State::Greeting(greeting) = &mut self.slots[slot as usize].state {
                    greeting.buffer = buffer;
                }
            }
            Step::Drop => {
                self.counters.refuse(Code::Invalid);
                self.drop_connection(slot, false);
            }
            Step::Answer(answer) => self.close_greeting(now, slot, answer),
            Step::Refuse(refusal) => self.refuse(now, slot, &refusal),
            Step::Welcome(admitted) => {
                let consumed = admitted.consumed;
                self.welcome(now, slot, *admitted);
                if buffer.len() > consumed {
                    self.received(now, slot, &mut buffer[consumed..]);
                }
            }
            Step::Ask(asking) => {
                let rest = buffer[asking.consumed..].to_vec();
                self.authorize(now, slot, *asking, rest);
            }
        }
    }

    /// The handshake took too long (B29).
    pub(super) fn greeting_timed_out(&mut self, now: Now, slot: u32) {
        let State::Greeting(greeting) = &self.slots[slot as usize].state else { return };
        self.counters.handshakes_abandoned += 1;
        if greeting.buffer.is_empty() {
            self.drop_connection(slot, false);
        } else {
            self.refuse(now, slot, &Refusal::head_timeout());
        }
    }

    /// Makes room for more handshakes: at most so many of those go that fit, the oldest first. How many went.
    pub(super) fn evict_greetings(&mut self, most: usize, fits: impl Fn(&Greeting) -> bool) -> usize {
        let (mut place, mut evicted) = (0, 0);
        while evicted < most
            && let Some(handle) = self.greeting.get(place).copied()
        {
            let slot = &self.slots[handle.slot as usize];
            match &slot.state {
                State::Greeting(greeting) if slot.generation == handle.generation => {
                    if greeting.waits || !fits(greeting) {
                        place += 1;
                        continue;
                    }
                    self.counters.handshakes_evicted += 1;
                    self.drop_connection(handle.slot, false);
                    evicted += 1;
                }
                // It is over.
                _ => {}
            }
            self.greeting.remove(place);
        }
        evicted
    }

    /// Looks at a handshake that is under way, as it does every second: whether its time is over, or it is silent and in
    /// the way.
    pub(super) fn look_at_greeting(&mut self, now: Now, slot: u32) {
        let State::Greeting(greeting) = &self.slots[slot as usize].state else { return };
        let ms = now.ms();
        let until_ms = greeting.began_ms + u64::from(self.settings.config.edge.handshake_s) * 1_000;
        if ms >= until_ms {
            return self.greeting_timed_out(now, slot);
        }
        let is_idle = greeting.is_silent() && ms >= greeting.began_ms + HANDSHAKE_GRACE_MS;
        if is_idle && greeting.crowds() {
            self.counters.handshakes_evicted += 1;
            return self.drop_connection(slot, false);
        }
        let mut next_ms = until_ms.min(ms + HANDSHAKE_GRACE_MS);
        if let Some(drained_ms) = self.drained_ms.filter(|_| greeting.is_silent()) {
            let leave_at_ms = greeting.began_ms.max(drained_ms) + HANDSHAKE_GRACE_MS;
            if ms >= leave_at_ms {
                // Nobody is let in any more: it only keeps the process from its end (G1).
                self.counters.handshakes_abandoned += 1;
                return self.drop_connection(slot, false);
            }
            next_ms = next_ms.min(leave_at_ms);
        }
        self.wake_at(slot, next_ms);
    }

    /// Throws the entries of handshakes that are over out of the list, when they make up half of it.
    pub(super) fn tidy_greetings(&mut self) {
        if self.greeting.len() > 2 * self.greetings + 64 {
            let slots = &self.slots;
            self.greeting.retain(|handle| {
                let slot = &slots[handle.slot as usize];
                slot.generation == handle.generation && matches!(slot.state, State::Greeting(_))
            });
        }
    }

    /// Looks at what has arrived. A PROXY header is taken off the front of the buffer.
    fn greet(&mut self, now: Now, slot: u32, buffer: &mut Vec<u8>, new_bytes: usize) -> Step {
        let State::Greeting(greeting) = &mut self.slots[slot as usize].state else { return Step::Wait };
        if greeting.may_be_proxied {
            match peer::proxy_header(buffer) {
                Ok(ProxyHeader::Incomplete) => return Step::Wait,
                Ok(ProxyHeader::Absent) => greeting.may_be_proxied = false,
                Ok(ProxyHeader::Present { consumed, source }) => {
                    buffer.drain(..consumed);
                    greeting.may_be_proxied = false;
                    greeting.look_at_bytes = 0;
                    greeting.peer = source.unwrap_or(greeting.peer);
                }
                Err(_) => return Step::Drop,
            }
        }
        // Single bytes must not cost a rescan each: look when the end may have come, or the head has doubled.
        let tail = buffer.len().saturating_sub(new_bytes + 3);
        let ends = buffer[tail..].windows(4).any(|window| window == b"\r\n\r\n");
        if !ends && buffer.len() < greeting.look_at_bytes {
            return Step::Wait;
        }
        greeting.look_at_bytes = (buffer.len() * 2).min(HEAD_BYTES_MAX);
        let peer = greeting.peer;
        match handshake::parse(buffer) {
            Ok(Parsed::Incomplete) => Step::Wait,
            Ok(Parsed::Complete { head, consumed }) => {
                // Before anything can refuse: the record of it names the client, not its proxy (GD-9).
                let trusted = &self.settings.config.edge.trusted_proxies;
                let ip = peer::client_ip(peer.ip(), head.values("x-forwarded-for"), trusted);
                greeting.ip = Some(ip);
                self.answer(now, (peer, ip), &head, consumed)
            }
            Err(refusal) => match handshake::requested_path(buffer) {
                Some(path) if !self.is_served(path) => Step::Refuse(Refusal::not_found()),
                _ => Step::Refuse(refusal),
            },
        }
    }

    fn is_served(&self, path: &str) -> bool {
        matches!(path, CONNECT_PATH | "/healthz" | "/readyz") || (path == "/" && self.shared.page.get().is_some())
    }

    fn answer(&self, now: Now, (peer, ip): (SocketAddr, IpAddr), head: &Head<'_>, consumed: usize) -> Step {
        if !self.is_served(head.path) {
            return Step::Refuse(Refusal::not_found());
        }
        if head.path == CONNECT_PATH {
            return match self.admit(now, peer, ip, head) {
                Ok(Admission::Welcome(admitted)) => Step::Welcome(Box::new(Admitted { consumed, ..*admitted })),
                Ok(Admission::Ask(asking)) => Step::Ask(Box::new(Asking { consumed, ..asking })),
                Err(refusal) => Step::Refuse(refusal),
            };
        }
        let head_only = head.method == "HEAD";
        if head.method != "GET" && !head_only {
            return Step::Refuse(Refusal::method_not_allowed());
        }
        Step::Answer(match (head.path, self.shared.page.get()) {
            ("/", Some(page)) => handshake::plain(200, "text/html; charset=utf-8", page.as_bytes(), head_only),
            ("/healthz", _) => handshake::plain(200, "text/plain", b"ok\n", head_only),
            _ if self.shared.is_ready() => handshake::plain(200, "text/plain", b"ready\n", head_only),
            _ => handshake::plain(503, "text/plain", b"not ready\n", head_only),
        })
    }

    /// B1, from "valid upgrade" on.
    fn admit(&self, now: Now, peer: SocketAddr, ip: IpAddr, head: &Head<'_>) -> Result<Admission, Refusal> {
        let upgrade = handshake::upgrade(head)?;
        let settings = &self.settings;
        let (edge, limits) = (&settings.config.edge, &settings.config.limits);
        if self.shared.is_draining() {
            let wait_s = self.jitter_s(now, peer, edge.drain_s.max(2));
            return Err(Refusal::new(Code::Draining, Code::Draining.text()).with_retry_after_s(wait_s));
        }
        if let Err(wait_ns) = self.shared.admission.handshake(limits.handshakes_per_s, now.mono_ns) {
            let wait_s = u32::try_from(wait_ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1);
            return Err(Refusal::new(Code::RateLimited, Code::RateLimited.text()).with_retry_after_s(wait_s));
        }
        let trusted = edge.trusted_proxies.contains(peer.ip());
        let forwarded_host = if trusted { head.header("x-forwarded-host") } else { None };
        let host = forwarded_host.unwrap_or(upgrade.host);
        if !edge.origins.allows(upgrade.origin, host) {
            return Err(Refusal::origin_not_allowed(upgrade.origin.unwrap_or_default(), host));
        }
        let too_many = |code: Code| self.too_many(now, peer, code);
        let seats = self.shared.admission.enter(limits, cap_key(ip)).map_err(too_many)?;
        let response = handshake::accept(&upgrade);
        match self.identify(now, peer, &upgrade)? {
            Identified::Decided(decision) => {
                let decision = decision.map(|decision| *decision);
                let admitted =
                    Admitted { response, decision, seats, ip, origin: self.origin(head, &upgrade), consumed: 0 };
                self.seat(now, peer, admitted).map(|admitted| Admission::Welcome(Box::new(admitted)))
            }
            Identified::Asks => {
                let origin = self.origin(head, &upgrade).unwrap_or_default();
                Ok(Admission::Ask(Asking { response, seats, ip, origin, consumed: 0 }))
            }
        }
    }

    /// What needs an identity: whether its token is revoked (D12), and its seats.
    pub(super) fn seat(&self, now: Now, peer: SocketAddr, mut admitted: Admitted) -> Result<Admitted, Refusal> {
        let settings = &self.settings;
        let Some(decision) = &admitted.decision else { return Ok(admitted) };
        if self.shared.revocations.covers(&TokenFacts::of(decision), now.unix_ms) {
            return Err(Refusal { status: 401, ..Refusal::new(Code::Revoked, "This token was revoked") });
        }
        let Decision { identity, .. } = decision;
        let tenant = identity.tenant();
        let seated = admitted.seats.identify(&settings.config.limits, settings.summed_over(), tenant, identity.id());
        seated.map_err(|code| self.too_many(now, peer, code))?;
        Ok(admitted)
    }

    fn too_many(&self, now: Now, peer: SocketAddr, code: Code) -> Refusal {
        Refusal::new(code, code.text()).with_retry_after_s(self.jitter_s(now, peer, 10))
    }

    /// Whose token it is, or that the application is to be asked. A token that is present and ours never falls through
    /// (A3).
    fn identify(&self, now: Now, peer: SocketAddr, upgrade: &Upgrade<'_>) -> Result<Identified, Refusal> {
        let settings = &self.settings;
        let auth = &settings.config.auth;
        let refused = |error: String| Refusal::new(Code::Unauthenticated, error);
        match (&upgrade.token, &settings.verifier) {
            (Some(token), Some(verifier)) => {
                let decision = verifier.verify(token, now.unix_ms).map_err(|error| match error {
                    // B11: not the token's fault.
                    TokenError::NoKeys => {
                        let wait_s = self.jitter_s(now, peer, 5);
                        Refusal::new(Code::Overloaded, error.to_string()).with_retry_after_s(wait_s)
                    }
                    _ => refused(error.to_string()),
                })?;
                Ok(Identified::Decided(Some(Box::new(decision))))
            }
            (None, _) | (Some(_), None) if auth.webhook.is_some() => Ok(Identified::Asks),
            (Some(_), None) => Err(refused("this server takes no tokens: auth.token is not configured".into())),
            (None, _) if auth.anonymous => Ok(Identified::Decided(None)),
            (None, _) => Err(refused(Code::Unauthenticated.text().into())),
        }
    }

    pub(super) fn welcome(&mut self, now: Now, slot: u32, admitted: Admitted) {
        let mut decision = admitted.decision;
        let narrowed = decision.as_mut().and_then(|decision| decision.limits.take());
        // Looked up in the step that installs what it allows (INVARIANTS 6).
        let explicit = decision.as_ref().map_or_else(Explicit::default, |decision| Explicit::new(&decision.grants));
        let revoked = decision.as_ref().map_or_else(Vec::new, |decision| self.revoked_for(now, decision, &explicit));
        let ping_at_ms = now.ms() + u64::from(self.settings.config.edge.ping_s) * 1_000;
        let mut open = Open {
            explicit,
            issued_at_ms: decision.as_ref().and_then(|decision| decision.issued_at_ms).unwrap_or(0),
            expires_at_ms: decision.as_ref().and_then(|decision| decision.expires_at_ms).unwrap_or(u64::MAX),
            token_ids: decision.as_ref().and_then(TokenIds::of),
            identity: decision.map(|decision| decision.identity),
            grants: Grants::default(),
            seats: admitted.seats,
            links: Links::default(),
            ip: admitted.ip,
            since_ms: now.unix_ms,
            told_expiring: false,
            ping_at_ms,
            awaits_pong: false,
            owes_pong: false,
            steady: Default::default(),
            burden: None,
            rare: None,
        };
        open.set_revoked(revoked);
        if admitted.origin.is_some() || narrowed.is_some() {
            let rare = open.rare_mut();
            rare.origin = admitted.origin;
            rare.limits = narrowed.map(|narrowed| OwnLimits::new(&self.settings, narrowed));
        }
        let mut first = admitted.response;
        self.append_welcome(now, slot, &open, &mut first);
        // The pending count of the address ends with the greeting that is replaced here.
        match self.slots[slot as usize].state {
            State::Authorizing(_) => self.authorizing -= 1,
            _ => self.greetings -= 1,
        }
        self.slots[slot as usize].state = State::Open(Box::new(open));
        self.open += 1;
        let registry = &self.shared.registry;
        self.people.join(&mut self.slots, |user| registry.hash(user), slot);
        self.counters.welcomed += 1;
        let opening = Frame::opening(first, &self.gatherer.meter);
        self.outboxes[slot as usize].push_last(opening, &mut self.gatherer);
        self.mark_dirty(slot);
        self.record_connect(now, slot);
        self.look_at_open(now, slot);
    }

    fn append_welcome(&self, now: Now, slot: u32, open: &Open, out: &mut Vec<u8>) {
        let name = self.connection_name(self.handle_of(slot));
        let settings = &self.settings;
        let (edge, limits) = (&settings.config.edge, &settings.config.limits);
        let own = open.rare.as_ref().and_then(|rare| rare.limits.as_ref());
        let identity = open.identity.as_ref();
        let welcome = Welcome {
            connection: &name,
            user: identity.map(|identity| (identity.id(), identity.name())),
            expires_at_ms: (open.expires_at_ms != u64::MAX).then_some(open.expires_at_ms),
            ping_s: edge.ping_s,
            message_bytes: limits.message_bytes,
            subscriptions: own.map_or(limits.subscriptions, |own| own.subscriptions),
            queue_bytes: limits.queue_bytes,
        };
        let pipes = self.listed(now, open);
        out.extend_from_slice(&encode::framed(|out| encode::welcome(out, &welcome, pipes)));
    }

    /// The public name of a connection: node, worker, slot, generation. The node is 0 until there are several.
    pub(super) fn connection_name(&self, handle: Handle) -> String {
        format!("0-{}-{}-{:x}", self.worker, handle.slot, handle.generation)
    }

    pub(super) fn refuse(&mut self, now: Now, slot: u32, refusal: &Refusal) {
        self.counters.refuse(refusal.code);
        self.record_refused(now, slot, refusal);
        self.close_greeting(now, slot, refusal.encode());
    }

    /// 1 to `most_s` seconds, spread over the peers, so that those refused together do not come back together.
    pub(super) fn jitter_s(&self, now: Now, peer: SocketAddr, most_s: u32) -> u32 {
        let mixed = (u64::from(peer.port()) ^ now.mono_ns ^ self.shared.names_seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        1 + ((mixed >> 33) % u64::from(most_s.max(1))) as u32
    }
}
