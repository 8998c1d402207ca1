//! What happens to a connection over its rate: slowed first, then refused, then closed (A8, GD-8).
//!
//! 1. *Slow.* When a bucket is empty the message waits, unread bytes behind it, for up to one second after the bucket
//!    first ran empty. A short burst over the rate loses nothing.
//! 2. *Refuse.* After that second the message is refused with `RATE_LIMITED`, the client is told `throttled` once, and
//!    reading pauses until the bucket has a token, at most a second at a time.
//! 3. *Close.* An episode of refusals that lasts `throttle_s` ends the connection with 4429. An episode ends when after
//!    its last pause a second, and at least twice the time in which what one message took is refilled, has passed without a
//!    refusal. The slowest rate that refused decides: a refusal by a faster one does not end its episode.
//!
//! Only the connection whose message was over a rate is paused. For a rate summed over a person's connections only one
//! that takes more than its share of it is closed.

use super::rate::{Bucket, Pace};
use crate::bounds::SLOW_MS_MAX;
use crate::config::{Rate, Rates};
use crate::protocol::message::Request;

/// Kinds of rates, as indices into a connection's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every message.
    Message,
    /// Every byte of a message.
    Bytes,
    /// `publish`.
    Publish,
    /// `subscribe`.
    Subscribe,
    /// `presence`.
    Presence,
    /// `refresh`.
    Refresh,
    /// `action`.
    Action,
    /// `enqueue`.
    Enqueue,
    /// `push`.
    Push,
}

/// How many kinds there are.
pub const KINDS: usize = 9;
const _: () = assert!(KINDS == super::admission::SUMMED_RATES && Kind::Push as usize == KINDS - 1);

impl Kind {
    /// The rate that a request counts against, besides messages and bytes. `ping` and `unsubscribe` have none (C2).
    pub fn of(request: &Request<'_>) -> Option<Kind> {
        match request {
            Request::Publish { .. } => Some(Kind::Publish),
            Request::Subscribe { .. } => Some(Kind::Subscribe),
            Request::Presence { .. } => Some(Kind::Presence),
            Request::Refresh { .. } => Some(Kind::Refresh),
            Request::Action { .. } => Some(Kind::Action),
            Request::Enqueue { .. } => Some(Kind::Enqueue),
            Request::Push { .. } => Some(Kind::Push),
            Request::Unsubscribe { .. } | Request::Ping => None,
        }
    }
}

/// The configured rates, ready for the buckets; None is off.
#[derive(Clone, Debug, Default)]
pub struct Paces([Option<Pace>; KINDS]);

impl Paces {
    /// From the configuration.
    pub fn new(rates: &Rates) -> Paces {
        let pace = |rate: Option<Rate>| rate.map(Pace::new);
        Paces([
            pace(rates.message),
            pace(rates.bytes),
            pace(rates.publish),
            pace(rates.subscribe),
            pace(rates.presence),
            pace(rates.refresh),
            pace(rates.action),
            pace(rates.enqueue),
            pace(rates.push),
        ])
    }

    /// The pace of one kind.
    pub fn of(&self, kind: Kind) -> Option<Pace> {
        self.0[kind as usize]
    }

    /// Whether any is on.
    pub fn any(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }
}

/// One message that does not conform.
#[derive(Clone, Copy, Debug)]
pub struct Excess {
    /// How long until it would, in nanoseconds.
    pub wait_ns: u64,
    /// The time in which the exceeded rate refills what the message takes, in nanoseconds.
    pub refill_ns: u64,
    /// For a summed rate: this connection's share of it.
    pub share: Option<Share>,
}

/// A connection's share of a rate that is summed over a person's connections, and what a message takes of it.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Which rate.
    pub kind: Kind,
    /// The summed rate, divided by the person's connections.
    pub pace: Pace,
    /// Units that the message takes.
    pub cost: u64,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Keep the message until this time, in nanoseconds.
    Hold(u64),
    /// Refuse it, and read again at this time. `tell`: the episode begins here.
    Refuse {
        /// When reading goes on, in nanoseconds.
        resume_ns: u64,
        /// Say `throttled`.
        tell: bool,
    },
    /// It has lasted too long.
    Close,
}

/// The memory of a connection that is, or was lately, over a rate.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Up to so many bytes of the unfinished message reading goes on although they are too many: it has paused for that message.
    pub read_on_bytes: u32,
    slow_since_ns: u64,
    last_ns: u64,
    episode: Option<Episode>,
    shares: [Bucket; KINDS],
}

#[derive(Clone, Copy, Debug)]
struct Episode {
    began_ns: u64,
    /// When reading goes on after the last refusal. Calm counts from here: a peer that is not read cannot be refused.
    resume_ns: u64,
    /// How long it must be calm: the longest time of all its refusals.
    calm_ns: u64,
    /// It was over its own rate, or over its share of a summed one.
    own_fault: bool,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Throttle {
    /// Charges a message, accepted or refused, to the connection's share of a summed rate. True: it takes more than that.
    pub fn charge(&mut self, now_ns: u64, share: Share) -> bool {
        let bucket = &mut self.shares[share.kind as usize];
        let over = bucket.wait_ns(share.pace, now_ns, share.cost) > 0;
        bucket.owe(share.pace, now_ns, share.cost);
        over
    }

    /// Judges a message over its rate.
    pub fn judge(&mut self, now_ns: u64, excess: Excess, throttle_s: u32) -> Verdict {
        let calm_ns = SECOND_NS.max(excess.refill_ns.saturating_mul(2));
        let is_over = |episode: &mut Episode| now_ns.saturating_sub(episode.resume_ns) > episode.calm_ns;
        let ended = self.episode.take_if(is_over).is_some();
        if ended || self.last_ns == 0 || now_ns.saturating_sub(self.last_ns) > calm_ns {
            self.slow_since_ns = now_ns;
        }
        let resume_ns = now_ns + excess.wait_ns.min(SECOND_NS);
        self.last_ns = resume_ns;
        let slow_ns = (now_ns - self.slow_since_ns).saturating_add(excess.wait_ns);
        if self.episode.is_none() && slow_ns <= SLOW_MS_MAX * 1_000_000 {
            return Verdict::Hold(now_ns + excess.wait_ns);
        }
        let tell = self.episode.is_none();
        let over_share = match excess.share {
            None => true,
            Some(share) => self.charge(now_ns, share),
        };
        let episode = self.episode.get_or_insert(Episode { began_ns: now_ns, resume_ns, calm_ns: 0, own_fault: false });
        episode.resume_ns = resume_ns;
        episode.calm_ns = episode.calm_ns.max(calm_ns);
        episode.own_fault |= over_share;
        if episode.own_fault && now_ns - episode.began_ns >= u64::from(throttle_s) * SECOND_NS {
            return Verdict::Close;
        }
        Verdict::Refuse { resume_ns, tell }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn excess(wait_ms: u64, refill_ms: u64) -> Excess {
        Excess { wait_ns: wait_ms * MS, refill_ns: refill_ms * MS, share: None }
    }

    // A8
    #[test]
    fn slowed_first_then_refused_then_closed() {
        let mut throttle = Throttle::default();
        let mut now = 1_000 * MS;
        for _ in 0..10 {
            assert_eq!(throttle.judge(now, excess(100, 100), 2), Verdict::Hold(now + 100 * MS));
            now += 100 * MS;
        }
        let began = now;
        assert_eq!(throttle.judge(now, excess(100, 100), 2), Verdict::Refuse { resume_ns: now + 100 * MS, tell: true });
        loop {
            now += 200 * MS;
            match throttle.judge(now, excess(100, 100), 2) {
                Verdict::Refuse { tell, .. } => assert!(!tell, "told once in an episode"),
                Verdict::Close => break,
                Verdict::Hold(_) => panic!("an episode does not hold"),
            }
        }
        assert_eq!(now - began, 2_000 * MS);
    }

    #[test]
    fn a_calm_second_after_the_pause_ends_the_episode() {
        let mut throttle = Throttle::default();
        let Verdict::Refuse { resume_ns, tell: true } = throttle.judge(MS, excess(1_500, 100), 5) else { panic!() };
        let later = resume_ns + SECOND_NS + 1;
        assert!(matches!(throttle.judge(later, excess(1_500, 100), 5), Verdict::Refuse { tell: true, .. }));
        // Nine tenths of a second after the pause of one second.
        let soon = later + 1_900 * MS;
        assert!(matches!(throttle.judge(soon, excess(1_500, 100), 5), Verdict::Refuse { tell: false, .. }));
    }

    // A8: the calm of a message that takes much of its rate is long.
    #[test]
    fn a_pause_is_not_the_calm_that_ends_an_episode() {
        let mut throttle = Throttle::default();
        let mut now = MS;
        assert!(matches!(throttle.judge(now, excess(15_000, 15_000), 4), Verdict::Refuse { tell: true, .. }));
        for _ in 0..3 {
            now += 1_100 * MS;
            assert!(matches!(throttle.judge(now, excess(9_000, 15_000), 4), Verdict::Refuse { tell: false, .. }));
        }
        assert_eq!(throttle.judge(now + 1_100 * MS, excess(9_000, 15_000), 4), Verdict::Close);
    }

    // A8
    #[test]
    fn a_faster_rate_does_not_end_the_episode_of_a_slower_one() {
        let mut throttle = Throttle::default();
        let (slow, fast) = (excess(10_000, 10_000), excess(250, 250));
        assert!(matches!(throttle.judge(MS, slow, 6), Verdict::Refuse { tell: true, .. }));
        assert!(matches!(throttle.judge(1_100 * MS, fast, 6), Verdict::Refuse { tell: false, .. }));
        assert!(matches!(throttle.judge(4_000 * MS, fast, 6), Verdict::Refuse { tell: false, .. }));
        assert_eq!(throttle.judge(7_000 * MS, slow, 6), Verdict::Close);
    }

    #[test]
    fn after_an_episode_a_message_is_slowed_first_again() {
        let mut throttle = Throttle::default();
        let Verdict::Refuse { resume_ns, .. } = throttle.judge(MS, excess(1_001, 10), 6) else { panic!() };
        let later = resume_ns + SECOND_NS + 1;
        assert_eq!(throttle.judge(later, excess(500, 10_000), 6), Verdict::Hold(later + 500 * MS));
    }

    // C31
    #[test]
    fn throttle_zero_closes_at_the_first_refusal() {
        assert_eq!(Throttle::default().judge(MS, excess(1_001, 1), 0), Verdict::Close);
    }

    #[test]
    fn a_pause_lasts_a_second_at_most() {
        let verdict = Throttle::default().judge(MS, excess(60_000, 60_000), 10);
        assert_eq!(verdict, Verdict::Refuse { resume_ns: MS + SECOND_NS, tell: true });
    }

    #[test]
    fn within_its_share_of_a_summed_rate_a_connection_is_refused_but_never_closed() {
        let share = Some(Share { kind: Kind::Publish, pace: Pace::new(Rate { per_s: 1.0, burst: 1.0 }), cost: 1 });
        let (mut quiet, mut loud) = (Throttle::default(), Throttle::default());
        let excess = Excess { wait_ns: 2 * SECOND_NS, refill_ns: SECOND_NS, share };
        let mut closed = false;
        for round in 1..40u64 {
            let verdict = quiet.judge(round * 1_500 * MS, excess, 3);
            assert!(matches!(verdict, Verdict::Refuse { .. }), "round {round}: {verdict:?}");
            closed |= loud.judge(round * 200 * MS, excess, 3) == Verdict::Close;
        }
        assert!(closed);
    }
}
