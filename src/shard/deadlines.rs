//! When a connection wants to be looked at again: one coarse timing wheel for all of a worker's connections.
//!
//! A connection has many deadlines (ping, token expiry, handshake, throttle, close) and at most one live entry here: the
//! earliest. When it comes up, the connection works out what is due and schedules the next. An entry that was
//! overtaken by an earlier one is left in place and recognised as stale when it comes up. This costs 8 bytes a
//! connection, against 640 for a timer of the runtime, and nothing for each message.
//!
//! Resolution [`TICK_MS`]: a deadline is met at most that much late. Beyond the wheel's horizon the entry comes up early
//! and is scheduled again.

use super::connection::Handle;

/// Milliseconds of one slot of the wheel.
pub const TICK_MS: u64 = 64;
const SLOTS: usize = 1024;

/// The tick at which a connection's live entry comes up, in four bytes; 0 = none. Kept in the connection.
///
/// Ticks are counted modulo 2³², which is eight years: an entry is never further ahead than the wheel is long, so that what
/// is left of the number tells them apart for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake(u32);

/// The wheel. All times are milliseconds of the monotonic clock.
pub struct Deadlines {
    slots: Box<[Vec<Handle>]>,
    occupied: [u64; SLOTS / 64],
    /// Every tick up to and including this one has come up.
    done: u64,
}

impl Deadlines {
    /// An empty wheel that starts at `now_ms`.
    pub fn new(now_ms: u64) -> Deadlines {
        Deadlines { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: [0; SLOTS / 64], done: now_ms / TICK_MS }
    }

    /// Looks at the connection no later than one tick after `at_ms`.
    pub fn schedule(&mut self, connection: Handle, wake: &mut Wake, at_ms: u64) {
        let mut tick = at_ms.div_ceil(TICK_MS).clamp(self.done + 1, self.done + SLOTS as u64 - 2);
        // The number that stands for none is no tick.
        tick += u64::from(tick as u32 == 0);
        let ahead = wake.0.wrapping_sub(self.done as u32);
        if wake.0 != 0 && (1..=tick - self.done).contains(&u64::from(ahead)) {
            return;
        }
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(connection);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        *wake = Wake(tick as u32);
    }

    /// When the next entry comes up, in milliseconds.
    pub fn next_ms(&self) -> Option<u64> {
        let start = (self.done as usize + 1) % SLOTS;
        let (mut word, mut bits) = (start / 64, self.occupied[start / 64] & (!0 << (start % 64)));
        for _ in 0..=SLOTS / 64 {
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some((self.done + 1 + ahead as u64) * TICK_MS);
            }
            word = (word + 1) % (SLOTS / 64);
            bits = self.occupied[word];
        }
        None
    }

    /// Appends to `due` every entry whose tick has come, with that tick's mark. Stale ones included: compare with
    /// [`Wake::is`].
    pub fn take_due(&mut self, now_ms: u64, due: &mut Vec<(Handle, Wake)>) {
        let until = now_ms / TICK_MS;
        // After a long stall the wheel may have turned more than once; every slot is visited at most once.
        let last = until.min(self.done + SLOTS as u64);
        let mut tick = self.done;
        while tick < last {
            tick += 1;
            let slot = tick as usize % SLOTS;
            if self.occupied[slot / 64] & (1 << (slot % 64)) != 0 {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
                let mut entries = std::mem::take(&mut self.slots[slot]);
                due.extend(entries.drain(..).map(|handle| (handle, Wake(tick as u32))));
                if entries.capacity() <= 64 {
                    self.slots[slot] = entries;
                }
            }
        }
        self.done = self.done.max(until);
    }
}

impl Wake {
    /// Takes the mark off if this is the live entry; false for a stale one.
    pub fn is(&mut self, came_up: Wake) -> bool {
        let live = self.0 == came_up.0;
        if live {
            self.0 = 0;
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handle(slot: u32) -> Handle {
        Handle { slot, generation: 1 }
    }

    // The count of ticks does not fit four bytes any more: nobody is forgotten, and who is looked at earlier is so once.
    #[test]
    fn after_eight_years_everybody_comes_up_still() {
        let start = (1u64 << 32) - 1_500;
        let mut wheel = Deadlines::new(start * TICK_MS);
        let mut wakes = [Wake::default(); 8];
        let mut live = 0;
        for tick in start + 1..start + 6_000 {
            let now_ms = tick * TICK_MS;
            for (slot, wake) in wakes.iter_mut().enumerate() {
                // One deadline far away, a nearer one, and one that changes nothing.
                for ahead in [900, slot as u64 * 100 + 3, 800] {
                    wheel.schedule(handle(slot as u32), wake, now_ms + ahead * TICK_MS);
                }
            }
            let mut due = Vec::new();
            wheel.take_due(now_ms, &mut due);
            for (handle, mark) in due {
                live += usize::from(wakes[handle.slot as usize].is(mark));
            }
        }
        // Each is set again a tick after it came up.
        let looks = |ticks: usize| (0..wakes.len()).map(|slot| ticks / (slot * 100 + 4)).sum::<usize>();
        assert!(live.abs_diff(looks(6_000)) <= wakes.len(), "{live} looks, not about {}", looks(6_000));
        // What was overtaken lies there until its time.
        let entries: usize = wheel.slots.iter().map(Vec::len).sum();
        assert!(entries <= looks(900) + 2 * wakes.len(), "{entries} entries");
    }

    #[test]
    fn an_earlier_deadline_overtakes_and_the_later_entry_is_stale() {
        let mut wheel = Deadlines::new(0);
        let mut wake = Wake::default();
        wheel.schedule(handle(1), &mut wake, 10_000);
        wheel.schedule(handle(1), &mut wake, 1_000);
        wheel.schedule(handle(1), &mut wake, 5_000);
        assert_eq!(wheel.next_ms(), Some(1_024));
        let mut due = Vec::new();
        wheel.take_due(1_100, &mut due);
        assert_eq!(due.len(), 1);
        assert!(wake.is(due[0].1));
        due.clear();
        wheel.take_due(20_000, &mut due);
        assert_eq!(due.len(), 1);
        assert!(!wake.is(due[0].1), "what was overtaken is stale");
        assert_eq!(wheel.next_ms(), None);
    }

    proptest! {
        /// Nobody is forgotten, nobody comes up early (but for the horizon), nobody more than one tick late.
        #[test]
        fn everybody_comes_up_in_time(delays in prop::collection::vec(0u64..200_000, 1..40), step in 1u64..5_000) {
            let mut wheel = Deadlines::new(7);
            let mut wakes: Vec<Wake> = vec![Wake::default(); delays.len()];
            for (slot, delay) in delays.iter().enumerate() {
                wheel.schedule(handle(slot as u32), &mut wakes[slot], 7 + delay);
            }
            let mut met = vec![None; delays.len()];
            let (mut now, mut due) = (7, Vec::new());
            while met.iter().any(Option::is_none) {
                prop_assert!(wheel.next_ms().is_some());
                now += step;
                wheel.take_due(now, &mut due);
                for (connection, mark) in due.drain(..) {
                    let slot = connection.slot as usize;
                    prop_assert!(wakes[slot].is(mark));
                    if now >= 7 + delays[slot] {
                        met[slot] = Some(now);
                    } else {
                        wheel.schedule(connection, &mut wakes[slot], 7 + delays[slot]);
                    }
                }
                for (slot, delay) in delays.iter().enumerate() {
                    if met[slot].is_none() {
                        prop_assert!(now <= 7 + delay + TICK_MS, "slot {} is late", slot);
                    }
                }
            }
        }
    }
}
