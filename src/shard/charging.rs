//! What a message costs: its rates are looked at before anything is done for it, and taken when it is.

use super::Shard;
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
        self.open_mut(slot).map_or(bytes, |open| bytes.saturating_sub(open.charged_bytes))
    }

    /// Counts a control frame, which was served already, against the rates of messages and bytes.
    pub(super) fn control(&mut self, now: Now, slot: u32, bytes: usize) -> Flow {
        match self.excess(now, slot, None, bytes).or_else(|| self.take(now, slot, None, bytes)) {
            None => Flow::Next,
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
                open.buckets[kind as usize].owe(pace, now.mono_ns, cost);
            }
        }
    }

    /// Charges bytes of a message that is not complete yet, and says how long to wait before more is read, where they
    /// are too many: fragments without end are not free.
    pub(super) fn charge_unfinished(&mut self, now: Now, slot: u32, bytes: usize) -> Option<Until> {
        let settings = self.settings.clone();
        let open = self.open_mut(slot)?;
        let pace = paces(&settings, open).of(Kind::Bytes)?;
        let bucket = &mut open.buckets[Kind::Bytes as usize];
        let wait_ns = bucket.wait_ns(pace, now.mono_ns, bytes as u64);
        bucket.owe(pace, now.mono_ns, bytes as u64);
        open.charged_bytes += bytes;
        (wait_ns > 0).then(|| Until::Time(now.mono_ns + wait_ns.min(1_000_000_000)))
    }

    /// The rate that this message is over, if any: the one that it would have to wait longest for. Takes nothing.
    pub(super) fn excess(&self, now: Now, slot: u32, kind: Option<Kind>, bytes: usize) -> Option<Excess> {
        let State::Open(open) = &self.slots[slot as usize].state else { return None };
        let settings = &self.settings;
        let own = paces(settings, open);
        let mut worst: Option<Excess> = None;
        let mut consider = |excess: Excess| {
            if excess.wait_ns > worst.map_or(0, |worst| worst.wait_ns) {
                worst = Some(excess);
            }
        };
        for (kind, cost) in costs(kind, bytes) {
            if let Some(pace) = own.of(kind) {
                let wait_ns = open.buckets[kind as usize].wait_ns(pace, now.mono_ns, cost);
                consider(Excess { wait_ns, interval_ns: pace.interval_ns(), share: None });
            }
            if settings.sums {
                for (pace, bucket, share) in sums(settings, open, kind, cost) {
                    let wait_ns = bucket.wait_ns(pace, now.mono_ns, cost);
                    consider(Excess { wait_ns, interval_ns: pace.interval_ns(), share: Some(share) });
                }
            }
        }
        worst
    }

    /// Takes what the message costs. Another worker may have emptied a summed bucket since it was looked at.
    pub(super) fn take(&mut self, now: Now, slot: u32, kind: Option<Kind>, bytes: usize) -> Option<Excess> {
        let settings = &self.settings;
        let State::Open(open) = &mut self.slots[slot as usize].state else { return None };
        if settings.sums {
            for (kind, cost) in costs(kind, bytes) {
                for (pace, bucket, share) in sums(settings, open, kind, cost) {
                    if let Err(wait_ns) = bucket.take(pace, now.mono_ns, cost) {
                        return Some(Excess { wait_ns, interval_ns: pace.interval_ns(), share: Some(share) });
                    }
                }
            }
        }
        for (kind, cost) in costs(kind, bytes) {
            if let Some(pace) = paces(settings, open).of(kind) {
                open.buckets[kind as usize].take(pace, now.mono_ns, cost);
            }
            if open.throttle.is_none() || !settings.sums {
                continue;
            }
            // What it gets through counts towards its share, like what it is refused.
            let share = sums(settings, open, kind, cost).next().map(|(.., share)| share);
            if let (Some(throttle), Some(share)) = (&mut open.throttle, share) {
                throttle.charge(now.mono_ns, share);
            }
        }
        if kind.is_some() {
            open.charged_bytes = 0;
        }
        self.counters.messages_in += 1;
        self.counters.message_bytes_in += bytes as u64;
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
        let throttle_s = self.settings.config.limits.throttle_s;
        let Some(open) = self.open_mut(slot) else { return Flow::Closed };
        let verdict = open.throttle.get_or_insert_default().judge(now.mono_ns, excess, throttle_s);
        let retry_after_ms = excess.wait_ns.div_ceil(1_000_000);
        match verdict {
            Verdict::Hold(until_ns) => {
                self.counters.slowed += 1;
                Flow::Wait { message: text.map(str::to_owned), until: Until::Time(until_ns) }
            }
            Verdict::Refuse { resume_ns, tell } => {
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
                Flow::Wait { message: None, until: Until::Time(resume_ns) }
            }
            Verdict::Close => {
                self.note_denial(now, slot, Code::RateLimited, None);
                // At least a second: whoever comes back sooner comes back with full buckets.
                let reason = format!("retry_after_ms={}", retry_after_ms.max(1_000));
                self.begin_close(now, slot, CloseCode::OverRate, &reason, false);
                Flow::Closed
            }
        }
    }
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

fn costs(kind: Option<Kind>, bytes: usize) -> impl Iterator<Item = (Kind, u64)> {
    [Some((Kind::Message, 1)), Some((Kind::Bytes, bytes as u64)), kind.map(|kind| (kind, 1))].into_iter().flatten()
}
