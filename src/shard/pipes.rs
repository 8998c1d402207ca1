//! The pipes that a worker knows: names to numbers, and who is subscribed.
//!
//! A pipe is known here while a connection of this worker has resolved it. The number ([`PipeId`]) is this worker's own
//! and is reused; what crosses a ring is the process-wide [`Pipe`] (INVARIANTS 1). The list of subscribers is one
//! dense array that a delivery walks from end to end; leaving it is a swap, so that a disconnect costs the same in a
//! pipe of a million.
//!
//! Interest (INVARIANTS 9): this worker's bit in the process-wide pipe is set before the first subscription takes effect
//! and cleared after the last one ended.

use std::rc::Rc;

use hashbrown::HashTable;

use crate::mesh::registry::{Pipe, Registry};
use crate::protocol::codes::Code;

/// A pipe's number on this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipeId(pub u32);

/// A filter's number within one pipe; 0 receives every event.
pub type FilterId = u32;

/// One subscriber in a pipe's list.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    /// The connection's slot.
    pub slot: u32,
    /// Which events it wants.
    pub filter: FilterId,
}

/// One pipe on this worker.
pub struct LocalPipe {
    /// The process-wide object.
    pub global: Pipe,
    /// Unique for the life of the worker, at least 1.
    pub serial: u64,
    /// Who receives its events here.
    pub subscribers: Vec<Subscriber>,
    filters: Option<Box<Filters>>,
    /// Its subscribers are counted in a room (`attendance`), which is one more holder.
    pub attended: bool,
    /// Connections of this worker that have resolved it.
    holders: u32,
}

/// A subscriber was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Its place in the list.
    pub position: u32,
    /// It is the first one here, and the pipe was marked as watched.
    pub watched: bool,
}

/// Event names that a subscription is for: sorted, none twice.
pub type EventNames = Rc<[Box<str>]>;

/// Lists of event names that subscriptions named, each kept once.
#[derive(Default)]
struct Filters {
    lists: Vec<EventList>,
}

struct EventList {
    hash: u64,
    /// Shared by the pipes of one subscribe.
    names: EventNames,
    uses: u32,
}

/// The table of a worker.
pub struct Pipes {
    worker: usize,
    registry: Registry,
    by_name: HashTable<u32>,
    entries: Vec<Option<LocalPipe>>,
    free: Vec<u32>,
    serial: u64,
    subscriptions: u64,
}

impl Pipes {
    /// An empty table.
    pub fn new(worker: usize, registry: Registry) -> Pipes {
        Pipes {
            worker,
            registry,
            by_name: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            serial: 0,
            subscriptions: 0,
        }
    }

    /// Subscriptions on this worker, over all pipes.
    pub fn subscriptions(&self) -> u64 {
        self.subscriptions
    }

    /// Pipes known on this worker.
    pub fn known(&self) -> usize {
        self.by_name.len()
    }

    /// The number of a known pipe.
    #[inline]
    pub fn find(&self, name: &str) -> Option<PipeId> {
        let hash = self.registry.hash(name);
        self.by_name.find(hash, |id| self.name(*id) == name).map(|id| PipeId(*id))
    }

    /// The number of the pipe that a ring entry names.
    #[inline]
    pub fn find_global(&self, pipe: &Pipe) -> Option<PipeId> {
        let same = |id: &u32| self.entries[*id as usize].as_ref().is_some_and(|local| local.global == *pipe);
        self.by_name.find(pipe.hash(), same).map(|id| PipeId(*id))
    }

    /// A known pipe.
    #[inline]
    pub fn get(&self, id: PipeId) -> Option<&LocalPipe> {
        self.entries.get(id.0 as usize).and_then(Option::as_ref)
    }

    /// Whether any worker knows a pipe of this name. Looks into the process-wide table.
    pub fn exists_anywhere(&self, name: &str) -> bool {
        self.registry.find(name).is_some()
    }

    /// Makes the pipe known on behalf of one more connection.
    ///
    /// # Errors
    /// `TOO_MANY` when the process knows as many pipes as it may.
    pub fn hold(&mut self, name: &str) -> Result<PipeId, Code> {
        if let Some(id) = self.find(name) {
            if let Some(local) = &mut self.entries[id.0 as usize] {
                local.holders += 1;
            }
            return Ok(id);
        }
        let global = self.registry.intern(name).map_err(|_| Code::TooMany)?;
        let hash = global.hash();
        self.serial += 1;
        let local = LocalPipe {
            global,
            serial: self.serial,
            subscribers: Vec::new(),
            filters: None,
            attended: false,
            holders: 1,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = Some(local);
                id
            }
            None => {
                self.entries.push(Some(local));
                self.entries.len() as u32 - 1
            }
        };
        let entries = &self.entries;
        self.by_name
            .insert_unique(hash, id, |id| entries[*id as usize].as_ref().map_or(0, |local| local.global.hash()));
        Ok(PipeId(id))
    }

    /// One connection less has resolved it.
    pub fn release(&mut self, id: PipeId) {
        let Some(Some(local)) = self.entries.get_mut(id.0 as usize) else { return };
        local.holders -= 1;
        if local.holders > 0 {
            return;
        }
        if let Ok(entry) = self.by_name.find_entry(local.global.hash(), |other| *other == id.0) {
            entry.remove();
        }
        self.entries[id.0 as usize] = None;
        self.free.push(id.0);
    }

    /// Notes whether the pipe's subscribers are counted in a room.
    pub fn set_attended(&mut self, id: PipeId, attended: bool) {
        if let Some(Some(local)) = self.entries.get_mut(id.0 as usize) {
            local.attended = attended;
        }
    }

    /// Adds a subscriber. `events`: only these, or all.
    pub fn subscribe(&mut self, id: PipeId, slot: u32, events: Option<&EventNames>) -> Subscribed {
        let worker = self.worker;
        let Some(Some(local)) = self.entries.get_mut(id.0 as usize) else {
            return Subscribed { position: 0, watched: false };
        };
        let watched = local.subscribers.is_empty() && local.global.add_interest(worker);
        let filter = local.filter_of(&self.registry, events);
        local.subscribers.push(Subscriber { slot, filter });
        self.subscriptions += 1;
        Subscribed { position: local.subscribers.len() as u32 - 1, watched }
    }

    /// Replaces what a subscriber wants to receive (C11).
    pub fn refilter(&mut self, id: PipeId, position: u32, events: Option<&EventNames>) {
        let Some(Some(local)) = self.entries.get_mut(id.0 as usize) else { return };
        let filter = local.filter_of(&self.registry, events);
        if let Some(subscriber) = local.subscribers.get_mut(position as usize) {
            let old = std::mem::replace(&mut subscriber.filter, filter);
            local.drop_filter(old);
        }
    }

    /// Removes the subscriber at this place. Returns the slot of the connection that took the place, if one did.
    pub fn unsubscribe(&mut self, id: PipeId, position: u32) -> Option<u32> {
        let worker = self.worker;
        let local = self.entries.get_mut(id.0 as usize)?.as_mut()?;
        let removed = local.subscribers.swap_remove(position as usize);
        local.drop_filter(removed.filter);
        self.subscriptions -= 1;
        if local.subscribers.is_empty() {
            local.global.remove_interest(worker);
            local.subscribers = Vec::new();
        }
        local.subscribers.get(position as usize).map(|moved| moved.slot)
    }

    /// Name and subscribers of the pipes with any, by name, the first `limit` after `after`.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Vec<(Box<str>, u64)> {
        let subscribed = self.entries.iter().flatten().filter(|local| !local.subscribers.is_empty());
        let mut names: Vec<(&str, u64)> = subscribed
            .map(|local| (local.global.name(), local.subscribers.len() as u64))
            .filter(|(name, _)| after.is_none_or(|after| *name > after))
            .collect();
        if names.len() > limit && limit > 0 {
            names.select_nth_unstable(limit - 1);
        }
        names.truncate(limit);
        names.sort_unstable();
        names.into_iter().map(|(name, count)| (name.into(), count)).collect()
    }

    fn name(&self, id: u32) -> &str {
        self.entries[id as usize].as_ref().map_or("", |local| local.global.name())
    }
}

impl LocalPipe {
    /// Which filters let an event of this name through: bit by bit, `[0]` is "everything". None: nobody filters.
    pub fn passing(&self, event: impl FnOnce() -> String) -> Option<Vec<bool>> {
        let filters = self.filters.as_ref()?;
        let event = event();
        let mut passing = vec![true];
        passing.extend(filters.lists.iter().map(|list| list.names.iter().any(|name| **name == *event)));
        Some(passing)
    }

    fn filter_of(&mut self, hasher: &Registry, events: Option<&EventNames>) -> FilterId {
        let Some(events) = events else { return 0 };
        let hash = hasher.hash_of(&**events);
        let lists = &mut self.filters.get_or_insert_default().lists;
        let same = |list: &EventList| list.uses > 0 && list.hash == hash && list.names == *events;
        if let Some(index) = lists.iter().position(same) {
            lists[index].uses += 1;
            return index as FilterId + 1;
        }
        let list = EventList { hash, names: events.clone(), uses: 1 };
        match lists.iter().position(|list| list.uses == 0) {
            Some(index) => {
                lists[index] = list;
                index as FilterId + 1
            }
            None => {
                lists.push(list);
                lists.len() as FilterId
            }
        }
    }

    fn drop_filter(&mut self, filter: FilterId) {
        let Some(filters) = &mut self.filters else { return };
        let Some(index) = (filter as usize).checked_sub(1) else { return };
        let list = &mut filters.lists[index];
        list.uses -= 1;
        if list.uses == 0 {
            list.names = EventNames::default();
            if filters.lists.iter().all(|list| list.uses == 0) {
                self.filters = None;
            }
        }
    }
}
