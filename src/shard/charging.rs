//! What a message costs: its rates are looked at before anything is done for it, and taken when it is.
//!
//! A message that comes in pieces is charged for each piece as it comes, if that conforms; where it does not, reading
//! pauses once, for a second at most, and the piece is charged with the whole. What was taken for a message that is refused
//! in the end counts for the next one: a refused message takes nothing.

use super::Shard;
use super::burden::Burden;
use super::connection::{Open, State, Until};
use super::input::Now;
use super::rate::{Pace, SharedBucket};
use super::requests::Flow;
use super::shared::Settings;
use super::throttle::{Excess, Kind, Paces, Share, Verdict};
use crate::protocol::codes::{CloseCode, Code};
use crate::protocol::encode;
use crate::protocol::message::Id;

impl Shard {
    /// The bytes of a message that were not charged while it was incomplete.
    pub(super) fn uncharged_bytes(&mut self, slot: u32, bytes: usize) -> usize {
        self.open_mut(slot).map_or(bytes, |open| {
            bytes.saturating_sub(open.burden.as_ref().map_or(0, |burden| burden.charged_bytes) as usize)
        })
    }

    /// The answer to a ping of ours costs nothing: whoever does no more than it must is over no rate. Any other pong does.
    pub(super) fn pong(&mut self, now: Now, slot: u32, bytes: usize) -> Flow {
        let is_answer = bytes == 0 && self.open_mut(slot).is_some_and(|open| std::mem::take(&mut open.owes_pong));
        if is_answer {
            self.count_in(bytes);
            return Flow::Next;
        }
        self.control(now, slot, bytes)
    }

    /// Counts a control frame, which was served already, against the rates of messages and bytes.
    pub(super) fn control(&mut self, now: Now, slot: u32, bytes: usize) -> Flow {
        // It may lie within a message that is charged piece by piece, and leaves that as it is.
        let excess = self.excess(now, slot, None, bytes);
        match excess.or_else(|| self.take_costs(now, slot, costs(None, bytes))) {
            None => {
                self.count_in(bytes);
                Flow::Next
            }
            Some(excess) => {
                self.owe(now, slot, bytes);
                self.over_rate(now, slot, None, None, excess)
            }
        }
    }

    /// Charges what was done already, conforming or not.
    fn owe(&mut self, now: Now, slot: u32, bytes: usize) {
        let settings = self.settings.clone();
        let Some(open) = self.open_mut(slot) else { return };
        for (kind, cost) in costs(None, bytes) {
            if let Some(pace) = paces(&settings, open).of(kind) {
                open.bucket_mut(kind).owe(pace, now.mono_ns, cost);
            }
        }
    }

    /// Charges bytes of a message that is not complete yet, or has reading wait where they are too many: fragments
    /// without end are not free. No bytes: what was held for them goes on.
    pub(super) fn charge_unfinished(&mut self, now: Now, slot: u32, bytes: usize) -> Flow {
        let Some(open) = self.open_mut(slot) else { return Flow::Closed };
        let burden = open.burden_mut();
        burden.unfinished_bytes = burden.unfinished_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let due = burden.unfinished_bytes.saturating_sub(burden.charged_bytes);
        if due == 0 {
            return Flow::Next;
        }
        let piece = [(Kind::Bytes, u64::from(due))];
        let excess = self.excess_of(now, slot, piece).or_else(|| self.take_costs(now, slot, piece));
        match excess {
            None => {
                if let Some(open) = self.open_mut(slot) {
                    open.burden_mut().charged_bytes += due;
                }
                Flow::Next
            }
            // It waited for this piece. The rest must come all the same, for only a whole message can be refused.
            Some(_) if bytes == 0 || self.reads_on(slot) => Flow::Next,
            Some(excess) => self.piece_over_rate(now, slot, excess),
        }
    }

    fn reads_on(&mut self, slot: u32) -> bool {
        let Some(burden) = self.open_mut(slot).and_then(|open| open.burden.as_ref()) else { return false };
        burden.throttle.as_ref().is_some_and(|throttle| burden.unfinished_bytes <= throttle.read_on_bytes)
    }

    /// The rate that this message is over, if any: the one that it would have to wait longest for. Takes nothing.
    pub(super) fn excess(&self, now: Now, slot: u32, kind: Option<Kind>, bytes: usize) -> Option<Excess> {
        self.excess_of(now, slot, costs(kind, bytes))
    }

    fn excess_of(&self, now: Now, slot: u32, costs: impl IntoIterator<Item = (Kind, u64)>) -> Option<Excess> {
        let State::Open(open) = &self.slots[slot as usize].state else { return None };
        let settings = &self.settings;
        let own = paces(settings, open);
        let mut worst: Option<Excess> = None;
        let mut consider = |excess: Excess| {
            if excess.wait_ns > worst.map_or(0, |worst| worst.wait_ns) {
                worst = Some(excess);
            }
        };
        for (kind, cost) in costs {
            if let Some(pace) = own.of(kind) {
                let wait_ns = open.bucket(kind).wait_ns(pace, now.mono_ns, cost);
                consider(Excess { wait_ns, refill_ns: pace.refill_ns(cost), share: None });
            }
            if settings.sums {
                for (pace, bucket, share) in sums(settings, open, kind, cost) {
                    let wait_ns = bucket.wait_ns(pace, now.mono_ns, cost);
                    consider(Excess { wait_ns, refill_ns: pace.refill_ns(cost), share: Some(share) });
                }
            }
        }
        worst
    }

    /// Takes what the message costs. Another worker may have emptied a summed bucket since it was looked at.
    pub(super) fn take(&mut self, now: Now, slot: u32, kind: Option<Kind>, bytes: usize) -> Option<Excess> {
        let excess = self.take_costs(now, slot, costs(kind, bytes));
        if excess.is_none() {
            if let Some(burden) = self.open_mut(slot).and_then(|open| open.burden.as_mut()) {
                let charged_bytes = std::mem::take(&mut burden.charged_bytes);
                self.counters.message_bytes_in += u64::from(charged_bytes);
            }
            self.count_in(bytes);
        }
        excess
    }

    fn count_in(&mut self, bytes: usize) {
        self.counters.messages_in += 1;
        self.counters.message_bytes_in += bytes as u64;
    }

    fn take_costs(
        &mut self,
        now: Now,
        slot: u32,
        costs: impl IntoIterator<Item = (Kind, u64)> + Clone,
    ) -> Option<Excess> {
        let settings = &self.settings;
        let State::Open(open) = &mut self.slots[slot as usize].state else { return None };
        if settings.sums {
            for (kind, cost) in costs.clone() {
                for (pace, bucket, share) in sums(settings, open, kind, cost) {
                    if let Err(wait_ns) = bucket.take(pace, now.mono_ns, cost) {
                        return Some(Excess { wait_ns, refill_ns: pace.refill_ns(cost), share: Some(share) });
                    }
                }
            }
        }
        for (kind, cost) in costs {
            if let Some(pace) = paces(settings, open).of(kind) {
                open.bucket_mut(kind).take(pace, now.mono_ns, cost);
            }
            if !settings.sums || open.burden.as_ref().is_none_or(|burden| burden.throttle.is_none()) {
                continue;
            }
            // What it gets through counts towards its share, like what it is refused.
            let share = sums(settings, open, kind, cost).next().map(|(.., share)| share);
            if let (Some(throttle), Some(share)) = (&mut open.burden_mut().throttle, share) {
                throttle.charge(now.mono_ns, share);
            }
        }
        None
    }

    #[cold]
    pub(super) fn over_rate(
        &mut self,
        now: Now,
        slot: u32,
        id: Option<Id<'_>>,
        text: Option<&str>,
        excess: Excess,
    ) -> Flow {
        let flow = self.slow_down(now, slot, excess);
        let retry_after_ms = excess.wait_ns.div_ceil(1_000_000);
        match flow {
            Slowed::Held(until) => Flow::Wait { message: text.map(str::to_owned), until },
            Slowed::Refused { until, tell } => {
                self.attendance.disclaim(&self.pipes, slot);
                self.note_denial(now, slot, Code::RateLimited, None);
                if let Some(id) = id {
                    let (code, text) = (Code::RateLimited, Code::RateLimited.text());
                    self.send(
                        slot,
                        encode::framed(|out| encode::reply_error(out, id, code, text, Some(retry_after_ms))),
                    );
                }
                if tell {
                    self.tell_throttled(slot, retry_after_ms);
                }
                Flow::Wait { message: None, until }
            }
            Slowed::Closed => Flow::Closed,
        }
    }

    /// A piece of a message is over the rate of bytes. The refusal is counted, and told, when the whole message is there.
    #[cold]
    fn piece_over_rate(&mut self, now: Now, slot: u32, excess: Excess) -> Flow {
        let until = match self.slow_down(now, slot, excess) {
            Slowed::Held(until) => until,
            Slowed::Refused { until, tell } => {
                if tell {
                    self.tell_throttled(slot, excess.wait_ns.div_ceil(1_000_000));
                }
                // As much as a message may have: more comes of fragments that are empty.
                let message_bytes = self.settings.config.limits.message_bytes;
                let burden = self.open_mut(slot).and_then(|open| open.burden.as_deref_mut());
                if let Some(Burden { throttle: Some(throttle), unfinished_bytes, .. }) = burden {
                    throttle.read_on_bytes = unfinished_bytes.saturating_add(message_bytes);
                }
                until
            }
            Slowed::Closed => return Flow::Closed,
        };
        Flow::Wait { message: None, until }
    }

    /// What becomes of a connection over its rate; closes it where that has lasted too long.
    fn slow_down(&mut self, now: Now, slot: u32, excess: Excess) -> Slowed {
        let throttle_s = self.settings.config.limits.throttle_s;
        let Some(open) = self.open_mut(slot) else { return Slowed::Closed };
        match open.burden_mut().throttle.get_or_insert_default().judge(now.mono_ns, excess, throttle_s) {
            Verdict::Hold(until_ns) => {
                self.counters.slowed += 1;
                Slowed::Held(Until::Time(until_ns))
            }
            Verdict::Refuse { resume_ns, tell } => Slowed::Refused { until: Until::Time(resume_ns), tell },
            Verdict::Close => {
                self.note_denial(now, slot, Code::RateLimited, None);
                // At least a second: whoever comes back sooner comes back with full buckets.
                let reason = format!("retry_after_ms={}", excess.wait_ns.div_ceil(1_000_000).max(1_000));
                self.begin_close(now, slot, CloseCode::OverRate, &reason, false);
                Slowed::Closed
            }
        }
    }
}

/// What became of a connection over its rate.
enum Slowed {
    /// What it sent is kept until then.
    Held(Until),
    /// What it sent is refused, and nothing is read until then. `tell`: it was not told yet.
    Refused {
        until: Until,
        tell: bool,
    },
    Closed,
}

/// The rates of a connection: the configuration's, or its own narrower ones.
fn paces<'p>(settings: &'p Settings, open: &'p Open) -> &'p Paces {
    open.rare.as_ref().and_then(|rare| rare.limits.as_ref()).map_or(&settings.paces, |own| &own.paces)
}

/// The summed rates that a message counts against: its person's, its tenant's.
fn sums<'s>(
    settings: &'s Settings,
    open: &'s Open,
    kind: Kind,
    cost: u64,
) -> impl Iterator<Item = (Pace, &'s SharedBucket, Share)> {
    let both = [(&settings.summed, open.seats.person()), (&settings.of_tenant, open.seats.tenant())];
    both.into_iter().filter_map(move |(paces, subject)| {
        let (pace, subject) = (paces.of(kind)?, subject?);
        let share = Share { kind, pace: pace.shared_by(subject.connections()), cost };
        Some((pace, subject.bucket(kind as usize)?, share))
    })
}

fn costs(kind: Option<Kind>, bytes: usize) -> impl Iterator<Item = (Kind, u64)> + Clone {
    [Some((Kind::Message, 1)), Some((Kind::Bytes, bytes as u64)), kind.map(|kind| (kind, 1))].into_iter().flatten()
}
