//! Whose connections are which: from a user id to the connections of that user on this worker.
//!
//! One small table entry for each user, and two links in each connection: the entry names the user's newest connection,
//! the links lead to the others. It costs nothing for a message.

use hashbrown::HashTable;

use super::connection::{Slot, State};

/// No connection.
pub const NOBODY: u32 = u32::MAX;

/// The neighbours of a connection in its user's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// The next older one.
    pub next: u32,
    /// The next newer one.
    pub previous: u32,
}

impl Default for Links {
    fn default() -> Links {
        Links { next: NOBODY, previous: NOBODY }
    }
}

/// The newest connection of each user.
#[derive(Default)]
pub struct People(HashTable<u32>);

impl People {
    /// Adds an open connection. `hash` is that of its user id.
    pub(super) fn join(&mut self, slots: &mut [Slot], hash: impl Fn(&str) -> u64, slot: u32) {
        let Some(user) = user_of(slots, slot).map(str::to_owned) else { return };
        let newest = self.0.find_mut(hash(&user), |other| user_of(slots, *other) == Some(&user));
        let next = match newest {
            Some(newest) => std::mem::replace(newest, slot),
            None => {
                self.0.insert_unique(hash(&user), slot, |other| user_of(slots, *other).map_or(0, &hash));
                NOBODY
            }
        };
        set_links(slots, slot, Links { next, previous: NOBODY });
        if next != NOBODY {
            let older = links_of(slots, next);
            set_links(slots, next, Links { previous: slot, ..older });
        }
    }

    /// Removes a connection that is still open.
    pub(super) fn leave(&mut self, slots: &mut [Slot], hash: impl Fn(&str) -> u64, slot: u32) {
        let Some(user) = user_of(slots, slot).map(str::to_owned) else { return };
        let Links { next, previous } = links_of(slots, slot);
        if next != NOBODY {
            let older = links_of(slots, next);
            set_links(slots, next, Links { previous, ..older });
        }
        if previous != NOBODY {
            let newer = links_of(slots, previous);
            set_links(slots, previous, Links { next, ..newer });
        } else if let Ok(mut entry) = self.0.find_entry(hash(&user), |other| *other == slot) {
            if next == NOBODY {
                entry.remove();
            } else {
                *entry.get_mut() = next;
            }
        }
    }

    /// The connections of a user, whatever the tenant.
    pub(super) fn of(&self, slots: &[Slot], hash: impl Fn(&str) -> u64, user: &str) -> Vec<u32> {
        let mut all = Vec::new();
        let mut slot = self.0.find(hash(user), |other| user_of(slots, *other) == Some(user)).copied().unwrap_or(NOBODY);
        while slot != NOBODY {
            all.push(slot);
            slot = links_of(slots, slot).next;
        }
        all
    }
}

fn user_of(slots: &[Slot], slot: u32) -> Option<&str> {
    match &slots[slot as usize].state {
        State::Open(open) => open.identity.as_ref().map(|identity| identity.id()),
        _ => None,
    }
}

fn links_of(slots: &[Slot], slot: u32) -> Links {
    match &slots[slot as usize].state {
        State::Open(open) => open.links,
        _ => Links::default(),
    }
}

fn set_links(slots: &mut [Slot], slot: u32, links: Links) {
    if let State::Open(open) = &mut slots[slot as usize].state {
        open.links = links;
    }
}
