//! What one seed plays on: the configuration, and how its clients and its network behave.

use std::sync::Arc;

use pipeward::config::{Config, KeySource, Rate, Rates, TokenSettings, WhenSlow};
use pipeward::protocol::names::Template;
use pipeward::rules::Rules;
use pipeward::rules::definition::PipeRules;
use pipeward::shard::shared::{Settings, Shared};

use crate::model::rights::Definition;
use crate::random::Random;

/// Signs every good token.
pub const SECRET: &[u8] = b"a secret that only the simulation knows";
/// Unix time at the beginning, in milliseconds.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// Names that clients speak of; each seed takes a few of them, so that they meet.
pub const PIPES: [&str; 14] = [
    "open:a",
    "open:b",
    "user-ann",
    "user-bob",
    "acme:news",
    "globex:news",
    "announce",
    "room-1",
    "room-2",
    "room-secret",
    "lobby:x:y",
    "deep:a:b",
    "odd\"name\\",
    "red:chat",
];

/// Patterns that tokens may grant.
pub const PATTERNS: [&str; 9] = ["room-*", "**", "open:*", "user-*", "*", "deep:**", "*:news", "lobby:*", "***"];

/// Id, tenant, organisation, role.
pub type Whose = (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>);

/// Who connects. Teams change.
pub const PEOPLE: [Whose; 6] = [
    ("ann", Some("acme"), Some("north"), Some("admin")),
    ("bob", Some("acme"), Some("south"), None),
    ("ann", Some("globex"), Some("north"), None),
    ("zoë", None, None, Some("admin")),
    ("a:b", None, Some("south"), Some("guest")),
    ("q\"t\\", Some("globex"), None, None),
];

/// Teams of tokens.
pub const TEAMS: [Option<&str>; 3] = [None, Some("red"), Some("blue")];
/// Session ids, and so many token ids.
pub const SESSIONS: [&str; 10] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];
pub const TOKEN_IDS: usize = 20;

const DEFINITIONS: [(&str, bool, bool); 9] = [
    ("open:{room}", true, true),
    ("user-{user.id}", true, false),
    ("{user.tenant}:news", true, false),
    ("announce", true, false),
    ("room-1", false, true),
    ("lobby:**", true, true),
    ("{user.team}:chat", true, true),
    ("deep:{a}:{b}", false, true),
    ("{anything}", true, false),
];

/// Everything that is drawn before the first step.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Workers, 1–4.
    pub workers: usize,
    /// Entries of each ring, 2–8.
    pub ring_entries: usize,
    /// `[limits]` and the times of `[edge]`.
    pub queue_bytes: usize,
    pub when_slow: WhenSlow,
    pub message_bytes: usize,
    pub subscriptions: usize,
    pub connections: u32,
    pub per_ip: u32,
    pub per_user: u32,
    pub per_tenant: u32,
    pub ping_s: u64,
    pub handshake_s: u64,
    pub drain_s: u64,
    pub anonymous: bool,
    /// Low rates: nobody is slow then, and what is taken when is learned from the replies.
    pub rates: Option<LowRates>,
    pub definitions: Vec<Definition>,
    /// The names that this seed's clients speak of.
    pub pipes: Vec<&'static str>,
    /// Steps before everybody leaves.
    pub steps: usize,
    pub clients_max: usize,
    /// Of a hundred clients, how many read nothing for long.
    pub slow_percent: usize,
    /// Of a hundred turns, how many a starved worker is passed over.
    pub starved: usize,
    /// Of a hundred client acts, how many are publishes.
    pub publish_percent: usize,
    /// Of a hundred steps, at how many the application wants something.
    pub control_percent: usize,
    /// Of a hundred requests, how many are refreshes.
    pub refresh_percent: usize,
}

/// Rates that a busy client exceeds.
#[derive(Clone, Debug)]
pub struct LowRates {
    pub message: Option<(f64, f64)>,
    pub publish: Option<(f64, f64)>,
    pub subscribe: Option<(f64, f64)>,
    pub user_publish: Option<(f64, f64)>,
    pub handshakes_per_s: u32,
    pub throttle_s: u64,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(random: &mut Random) -> Plan {
        let rates = random.chance(15).then(|| LowRates::draw(random));
        let limited = rates.is_none() && random.chance(55);
        let cap = |random: &mut Random, most| if random.chance(75) { 0 } else { random.between(1, most) as u32 };
        let mut definitions = Vec::new();
        for (text, subscribe, publish) in DEFINITIONS {
            if random.chance(if text == "{anything}" { 15 } else { 70 }) {
                definitions.push(Definition { text: text.into(), subscribe, publish });
            }
        }
        let mut pipes = PIPES.to_vec();
        for _ in 0..PIPES.len() - random.between(2, 9) {
            pipes.swap_remove(random.below(pipes.len()));
        }
        let timed = rates.is_none() && random.chance(25);
        let steady = rates.is_some() || random.chance(20);
        Plan {
            workers: random.between(1, 4),
            ring_entries: 2 << random.below(3),
            queue_bytes: if limited { random.between(900, 4_000) } else { 1 << 20 },
            when_slow: if random.chance(50) { WhenSlow::Close } else { WhenSlow::DropOldest },
            message_bytes: random.between(700, 2_000),
            subscriptions: if random.chance(30) { random.between(1, 3) } else { 256 },
            connections: cap(random, 8),
            per_ip: cap(random, 4),
            per_user: cap(random, 2),
            per_tenant: cap(random, 4),
            ping_s: if timed { random.between(2, 40) as u64 } else { 3_600 },
            handshake_s: random.between(1, 10) as u64,
            drain_s: random.between(0, 20) as u64,
            anonymous: random.chance(60),
            rates,
            definitions,
            pipes,
            steps: random.between(200, 900),
            clients_max: random.between(2, 9),
            slow_percent: if random.chance(50) { 0 } else { random.between(10, 60) },
            starved: if random.chance(60) { 0 } else { random.between(60, 97) },
            publish_percent: random.between(20, 75),
            control_percent: if steady { 0 } else { random.between(1, 12) },
            refresh_percent: if steady { 0 } else { random.between(1, 10) },
        }
    }

    /// How tokens are verified.
    pub fn tokens() -> TokenSettings {
        TokenSettings {
            key: KeySource::HmacSecret(SECRET.to_vec()),
            issuer: None,
            audience: None,
            leeway_s: 0,
            require_exp: false,
        }
    }

    /// What a server with this plan shares between its workers.
    pub fn shared(&self, seed: u64) -> Arc<Shared> {
        let mut config = Config::new(self.workers);
        config.edge.ping_s = self.ping_s as u32;
        config.edge.handshake_s = self.handshake_s as u32;
        config.edge.drain_s = self.drain_s as u32;
        config.auth.anonymous = self.anonymous;
        config.auth.token = Some(Plan::tokens());
        let limits = &mut config.limits;
        limits.queue_bytes = self.queue_bytes as u32;
        limits.when_slow = self.when_slow;
        limits.message_bytes = self.message_bytes as u32;
        limits.subscriptions = self.subscriptions as u32;
        limits.connections = self.connections;
        limits.connections_per_ip = self.per_ip;
        limits.connections_per_user = self.per_user;
        limits.connections_per_tenant = self.per_tenant;
        limits.rates = Rates::default();
        if let Some(low) = &self.rates {
            let rate = |rate: Option<(f64, f64)>| rate.map(|(per_s, burst)| Rate { per_s, burst });
            limits.rates.message = rate(low.message);
            limits.rates.publish = rate(low.publish);
            limits.rates.subscribe = rate(low.subscribe);
            limits.per_user.publish = rate(low.user_publish);
            limits.handshakes_per_s = low.handshakes_per_s;
            limits.throttle_s = low.throttle_s as u32;
        }
        let pipes = self.definitions.iter().map(|definition| PipeRules {
            subscribe: definition.subscribe.into(),
            publish: definition.publish.into(),
            ..PipeRules::new(Template::parse(&definition.text).expect("the definitions are well formed"))
        });
        config.rules = Arc::new(Rules { pipes: pipes.collect(), ..Rules::default() });
        Shared::new(Settings::new(config).expect("the secret is a key"), seed)
    }
}

impl LowRates {
    fn draw(random: &mut Random) -> LowRates {
        let rate = |random: &mut Random, percent, per_s, burst| {
            random.chance(percent).then(|| (random.between(1, per_s) as f64, random.between(1, burst) as f64))
        };
        LowRates {
            message: rate(random, 40, 20, 12),
            publish: rate(random, 70, 8, 5),
            subscribe: rate(random, 40, 6, 4),
            user_publish: rate(random, 40, 8, 6),
            handshakes_per_s: if random.chance(70) { 0 } else { random.between(1, 4) as u32 },
            throttle_s: random.between(0, 4) as u64,
        }
    }
}
