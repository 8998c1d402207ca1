//! The grant table of one connection: what it may do on which pipe, one bit test away.
//!
//! What authorize granted is kept as it came, packed ([`Explicit`]). The first message that names a pipe *resolves* it:
//! the pipe gets the next index of the table, and three bits of its entry say what is allowed, a fourth that it is
//! subscribed. Every later message costs: name → pipe (one hash look-up), pipe → index, one bit. An entry is eight bytes,
//! the first two lie in the table itself. A denial is never remembered, so that refusals cannot fill memory (INVARIANTS
//! 21).
//!
//! Which grant counts (F3): the exact name decides alone; among patterns the union.

use ahash::AHashMap;
use smallvec::SmallVec;

use super::pipes::PipeId;
use crate::auth::decision::{Grant, Rights};
use crate::bounds::RESOLVED_NAMES_MAX;
use crate::protocol::names;

/// The grants as authorize gave them: for each a byte of rights, a byte of length, the name.
#[derive(Clone, Debug, Default)]
pub struct Explicit(Box<[u8]>);

const PATTERN: u8 = 0x80;

impl Explicit {
    /// Packs the grants. Every name is a valid pipe name or pattern (at most 200 bytes), as authorize has checked.
    pub fn new(grants: &[Grant]) -> Explicit {
        let mut packed = Vec::with_capacity(grants.iter().map(|grant| 2 + grant.pipe.len()).sum());
        for grant in grants {
            let Ok(length) = u8::try_from(grant.pipe.len()) else { continue };
            let mut head = grant.rights.bits();
            if grant.pipe.contains('*') {
                head |= PATTERN;
            }
            packed.extend_from_slice(&[head, length]);
            packed.extend_from_slice(grant.pipe.as_bytes());
        }
        Explicit(packed.into_boxed_slice())
    }

    /// The grants, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Rights)> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let [head, length, tail @ ..] = rest else { return None };
            let (name, next) = tail.split_at_checked(usize::from(*length))?;
            rest = next;
            Some((std::str::from_utf8(name).ok()?, Rights::from_bits(*head)))
        })
    }

    /// What the grants allow on this pipe.
    pub fn rights(&self, name: &str) -> Rights {
        let mut union = Rights::NONE;
        let mut rest = &self.0[..];
        while let [head, length, tail @ ..] = rest {
            let Some((granted, next)) = tail.split_at_checked(usize::from(*length)) else { break };
            rest = next;
            if head & PATTERN == 0 {
                if granted == name.as_bytes() {
                    return Rights::from_bits(*head);
                }
            } else if std::str::from_utf8(granted).is_ok_and(|pattern| names::pattern_matches(pattern, name)) {
                union = union.union(Rights::from_bits(*head));
            }
        }
        union
    }
}

/// An index of the table.
pub type GrantIndex = usize;

/// The resolved grants of one connection.
#[derive(Debug, Default)]
pub struct Grants {
    entries: SmallVec<[Entry; 2]>,
    by_pipe: Option<Box<AHashMap<PipeId, u32>>>,
    subscriptions: u32,
    forget_next: u32,
}

/// What is decided for one pipe.
#[derive(Clone, Copy, Debug)]
struct Entry {
    pipe: PipeId,
    /// One bit for each right, one for "is subscribed", and below them where the connection stands in the pipe's list while
    /// it is subscribed.
    bits: u32,
}

const SUBSCRIBED: u32 = 1 << 31;
const POSITION_BITS: u32 = 28;
/// A worker would need more than 200 million connections to come to it.
const POSITION_MAX: u32 = (1 << POSITION_BITS) - 1;

/// Bits of an entry, for these rights.
#[inline]
const fn bits_of(rights: Rights) -> u32 {
    (rights.bits() as u32) << POSITION_BITS
}
const _: () = assert!(bits_of(Rights::ALL) & (SUBSCRIBED | POSITION_MAX) == 0);

impl Entry {
    fn new(pipe: PipeId, rights: Rights) -> Entry {
        Entry { pipe, bits: bits_of(rights) }
    }

    fn is_subscribed(self) -> bool {
        self.bits & SUBSCRIBED != 0
    }

    fn position(self) -> u32 {
        self.bits & POSITION_MAX
    }

    fn set_position(&mut self, position: u32) {
        debug_assert!(position <= POSITION_MAX);
        self.bits = self.bits & !POSITION_MAX | position & POSITION_MAX;
    }

    fn set_rights(&mut self, rights: Rights) {
        self.bits = self.bits & !bits_of(Rights::ALL) | bits_of(rights);
    }
}

/// Above this many entries the table keeps a map from pipe to index instead of looking through the entries.
const SCAN_MAX: usize = 16;

impl Grants {
    /// The index of a resolved pipe.
    #[inline]
    pub fn index_of(&self, pipe: PipeId) -> Option<GrantIndex> {
        match &self.by_pipe {
            None => self.entries.iter().position(|entry| entry.pipe == pipe),
            Some(map) => map.get(&pipe).map(|index| *index as usize),
        }
    }

    /// Whether the right is granted there; of several, all of them. No right at all is not granted.
    #[inline]
    pub fn may(&self, index: GrantIndex, right: Rights) -> bool {
        let wanted = bits_of(right);
        wanted != 0 && self.entries[index].bits & wanted == wanted
    }

    /// All rights that are granted there.
    pub fn rights(&self, index: GrantIndex) -> Rights {
        Rights::from_bits((self.entries[index].bits >> POSITION_BITS) as u8)
    }

    /// Whether the connection is subscribed there.
    pub fn is_subscribed(&self, index: GrantIndex) -> bool {
        self.entries[index].is_subscribed()
    }

    /// How many pipes the connection is subscribed to.
    pub fn subscriptions(&self) -> u32 {
        self.subscriptions
    }

    /// Remembers what was decided for a pipe. Returns the index, and the pipe that was forgotten to make room: at most
    /// [`RESOLVED_NAMES_MAX`] pipes are remembered without being subscribed.
    pub fn resolve(&mut self, pipe: PipeId, rights: Rights) -> (GrantIndex, Option<PipeId>) {
        let unsubscribed = self.entries.len() - self.subscriptions as usize;
        let (index, forgotten) = match self.oldest_unsubscribed(unsubscribed) {
            Some(index) => {
                let old = std::mem::replace(&mut self.entries[index], Entry::new(pipe, rights));
                if let Some(map) = &mut self.by_pipe {
                    map.remove(&old.pipe);
                }
                (index, Some(old.pipe))
            }
            None => {
                self.entries.reserve_exact(if self.entries.len() < 4 { 1 } else { self.entries.len() / 2 });
                self.entries.push(Entry::new(pipe, rights));
                (self.entries.len() - 1, None)
            }
        };
        self.note(pipe, index);
        (index, forgotten)
    }

    /// Marks the pipe as subscribed; `position` is the connection's place in the pipe's list.
    pub fn subscribe(&mut self, index: GrantIndex, position: u32) {
        self.entries[index].bits |= SUBSCRIBED;
        self.entries[index].set_position(position);
        self.subscriptions += 1;
    }

    /// Takes the mark off and returns the place.
    pub fn unsubscribe(&mut self, index: GrantIndex) -> u32 {
        self.entries[index].bits &= !SUBSCRIBED;
        self.subscriptions -= 1;
        self.entries[index].position()
    }

    /// After an unsubscribe: the pipe to forget, where more are remembered than may be.
    pub fn forget_surplus(&mut self) -> Option<PipeId> {
        let unsubscribed = self.entries.len() - self.subscriptions as usize;
        let index =
            if unsubscribed > RESOLVED_NAMES_MAX { self.oldest_unsubscribed(unsubscribed)? } else { return None };
        let forgotten = self.entries[index].pipe;
        self.remove(index);
        Some(forgotten)
    }

    /// Removes an unsubscribed entry; the last one takes its index.
    fn remove(&mut self, index: GrantIndex) {
        let last = self.entries.len() - 1;
        let removed = self.entries.swap_remove(index);
        if let Some(map) = &mut self.by_pipe {
            map.remove(&removed.pipe);
        }
        if index != last {
            self.note(self.entries[index].pipe, index);
        }
    }

    /// The connection's place in the list of a pipe that it is subscribed to.
    pub fn position(&self, index: GrantIndex) -> u32 {
        self.entries[index].position()
    }

    /// The connection was moved to another place in the pipe's list.
    pub fn moved(&mut self, pipe: PipeId, position: u32) {
        if let Some(index) = self.index_of(pipe) {
            self.entries[index].set_position(position);
        }
    }

    /// All resolved pipes.
    pub fn resolved(&self) -> impl Iterator<Item = PipeId> {
        self.entries.iter().map(|entry| entry.pipe)
    }

    /// The pipes it is subscribed to.
    pub fn subscribed(&self) -> impl Iterator<Item = PipeId> {
        self.entries.iter().filter(|entry| entry.is_subscribed()).map(|entry| entry.pipe)
    }

    /// Whether it is subscribed to this pipe.
    pub fn is_subscribed_to(&self, pipe: PipeId) -> bool {
        self.index_of(pipe).is_some_and(|index| self.is_subscribed(index))
    }

    /// Replaces what was decided for a resolved pipe.
    pub fn set_rights(&mut self, pipe: PipeId, rights: Rights) {
        if let Some(index) = self.index_of(pipe) {
            self.entries[index].set_rights(rights);
        }
    }

    /// Allows one right more for a resolved pipe.
    pub fn allow(&mut self, pipe: PipeId, right: Rights) {
        if let Some(index) = self.index_of(pipe) {
            self.entries[index].bits |= bits_of(right);
        }
    }

    /// Forgets a resolved pipe that it is not subscribed to (any more).
    pub fn forget(&mut self, pipe: PipeId) {
        if let Some(index) = self.index_of(pipe) {
            self.remove(index);
        }
    }

    /// All resolved pipes, with the place where subscribed. Empties the table.
    pub fn take_all(&mut self) -> Vec<(PipeId, Option<u32>)> {
        let all = std::mem::take(self).entries.into_iter();
        all.map(|entry| (entry.pipe, entry.is_subscribed().then_some(entry.position()))).collect()
    }

    fn note(&mut self, pipe: PipeId, index: GrantIndex) {
        if let Some(map) = &mut self.by_pipe {
            map.insert(pipe, index as u32);
        } else if self.entries.len() > SCAN_MAX {
            let entries = self.entries.iter().enumerate();
            self.by_pipe = Some(Box::new(entries.map(|(index, entry)| (entry.pipe, index as u32)).collect()));
        }
    }

    /// Where the table holds all the unsubscribed entries that it may: the one to forget.
    fn oldest_unsubscribed(&mut self, unsubscribed: usize) -> Option<GrantIndex> {
        if unsubscribed < RESOLVED_NAMES_MAX {
            return None;
        }
        let count = self.entries.len();
        let start = self.forget_next as usize;
        let index = (start..start + count).map(|index| index % count).find(|index| !self.is_subscribed(*index))?;
        self.forget_next = (index as u32 + 1) % count as u32;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(pipe: &str, rights: &[Rights]) -> Grant {
        Grant { pipe: pipe.into(), rights: rights.iter().fold(Rights::NONE, |all, one| all.union(*one)) }
    }

    // F3, RK-5
    #[test]
    fn the_exact_name_decides_alone_and_patterns_add_up() {
        let explicit = Explicit::new(&[
            grant("room-*", &[Rights::SUBSCRIBE]),
            grant("room-**", &[Rights::PUBLISH]),
            grant("room-secret", &[]),
        ]);
        assert_eq!(explicit.rights("room-1"), Rights::SUBSCRIBE.union(Rights::PUBLISH));
        assert_eq!(explicit.rights("room-1:2"), Rights::PUBLISH);
        assert_eq!(explicit.rights("room-secret"), Rights::NONE);
        assert_eq!(explicit.rights("hall"), Rights::NONE);
        assert_eq!(Explicit::default().rights("room-1"), Rights::NONE);
    }

    // HP-2: a few thousand grants in one table, each right by itself.
    #[test]
    fn thousands_of_resolved_grants_keep_their_own_bits() {
        let mut grants = Grants::default();
        for number in 0..3_000u32 {
            let rights = match number % 3 {
                0 => Rights::SUBSCRIBE,
                1 => Rights::PUBLISH,
                _ => Rights::SUBSCRIBE.union(Rights::PRESENCE),
            };
            let (index, forgotten) = grants.resolve(PipeId(number), rights);
            assert_eq!(forgotten, None);
            grants.subscribe(index, number * 2);
        }
        for number in 0..3_000u32 {
            let index = grants.index_of(PipeId(number)).expect("resolved");
            assert_eq!(grants.may(index, Rights::SUBSCRIBE), number % 3 != 1);
            assert_eq!(grants.may(index, Rights::PUBLISH), number % 3 == 1);
            assert_eq!(grants.may(index, Rights::PRESENCE), number % 3 == 2);
            assert_eq!(grants.position(index), number * 2);
        }
        assert_eq!(grants.subscriptions(), 3_000);
        assert_eq!(grants.take_all().len(), 3_000);
        assert_eq!(grants.index_of(PipeId(5)), None);
    }

    // INVARIANTS 21
    #[test]
    fn only_a_few_unsubscribed_names_are_remembered_and_bits_are_not_inherited() {
        let mut grants = Grants::default();
        let (kept, _) = grants.resolve(PipeId(0), Rights::PUBLISH.union(Rights::SUBSCRIBE));
        grants.subscribe(kept, 7);
        for number in 1..=RESOLVED_NAMES_MAX as u32 {
            assert_eq!(grants.resolve(PipeId(number), Rights::PUBLISH).1, None);
        }
        let (index, forgotten) = grants.resolve(PipeId(1_000), Rights::NONE);
        assert_eq!(forgotten, Some(PipeId(1)), "the oldest goes");
        assert!(!grants.may(index, Rights::PUBLISH), "its rights do not pass to the next");
        assert!(!grants.may(kept, Rights::NONE) && !grants.may(kept, Rights::ALL), "deny by default");
        assert_eq!(grants.index_of(PipeId(1)), None);
        assert_eq!(grants.index_of(PipeId(0)), Some(kept), "a subscription is never forgotten");
    }
}
