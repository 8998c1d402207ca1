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
use crate::rules::value::Value;

/// A pipe's number on this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipeId(pub u32);

/// A filter's number within one pipe; 0 receives every event that its definition lets everybody have.
pub type FilterId = u32;

/// What the definition of a pipe makes of its messages, looked up once for each pipe that a worker knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ruled {
    /// Its number in the configuration.
    pub definition: Option<u32>,
    /// Events have rules, or publishes a rate: a remembered right is not all that a publish needs.
    pub examines: bool,
    /// Some event has a filter: delivery decides for each subscriber.
    pub filters: bool,
}

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
    /// What its definition asks for.
    pub ruled: Ruled,
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

/// What a subscription lets through. The default is everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wants {
    /// Only these events. Shared by the pipes of one subscribe.
    pub names: Option<EventNames>,
    /// Events of the definition that the connection may not be sent, one bit each (RK-4).
    pub denied: u64,
    /// Who looks, where a filter asks for that (SR-7).
    pub viewer: Option<Rc<Viewer>>,
    /// Nothing for now: its events are kept until it is decided whether it goes on (`suspended`).
    pub suspended: bool,
}

/// A subscriber as filters see it. Two with the same text are the same to every filter.
#[derive(Debug)]
pub struct Viewer {
    /// `user`, `params`, `ctx` and `ip` as one text.
    pub text: Box<str>,
    /// Identity.
    pub user: Value,
    /// Captures of the pipe's name.
    pub params: Value,
    /// What guards have set.
    pub context: Value,
    /// Address of the client; empty where no filter asks for it.
    pub ip: Box<str>,
}

impl PartialEq for Viewer {
    fn eq(&self, other: &Viewer) -> bool {
        self.text == other.text
    }
}

impl Wants {
    /// Whether it lets through whatever its definition lets everybody have.
    pub fn is_everything(&self) -> bool {
        self.names.is_none() && self.denied == 0 && self.viewer.is_none() && !self.suspended
    }

    fn hash(&self, registry: &Registry) -> u64 {
        let names = self.names.as_deref().unwrap_or_default();
        registry.hash_of(&(names, self.denied, self.viewer.as_ref().map(|viewer| &viewer.text), self.suspended))
    }
}

/// What subscriptions want, each kept once and found by its hash: with a filter that looks at the user there may be as many
/// as subscribers.
#[derive(Default)]
struct Filters {
    lists: Vec<Listed>,
    by_wants: HashTable<u32>,
    /// Places of `lists` that nobody uses.
    free: Vec<u32>,
}

struct Listed {
    hash: u64,
    wants: Wants,
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

    /// Makes the pipe known on behalf of one more connection. `ruled` is asked where it was not known here.
    ///
    /// # Errors
    /// `TOO_MANY` when the process knows as many pipes as it may.
    pub fn hold(&mut self, name: &str, ruled: impl FnOnce() -> Ruled) -> Result<PipeId, Code> {
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
            ruled: ruled(),
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

    /// Looks the definitions of all known pipes up again: there are others now.
    pub fn rule_again(&mut self, mut ruled: impl FnMut(&str) -> Ruled) {
        for local in self.entries.iter_mut().flatten() {
            local.ruled = ruled(local.global.name());
        }
    }

    /// Adds a subscriber.
    pub fn subscribe(&mut self, id: PipeId, slot: u32, wants: Wants) -> Subscribed {
        let worker = self.worker;
        let Some(Some(local)) = self.entries.get_mut(id.0 as usize) else {
            return Subscribed { position: 0, watched: false };
        };
        let watched = local.subscribers.is_empty() && local.global.add_interest(worker);
        let filter = local.filter_of(&self.registry, wants);
        local.subscribers.push(Subscriber { slot, filter });
        self.subscriptions += 1;
        Subscribed { position: local.subscribers.len() as u32 - 1, watched }
    }

    /// Replaces what a subscriber wants to receive (C11).
    pub fn refilter(&mut self, id: PipeId, position: u32, wants: Wants) {
        let Some(Some(local)) = self.entries.get_mut(id.0 as usize) else { return };
        let filter = local.filter_of(&self.registry, wants);
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
    /// Whether some subscriber may not get some event: then delivery asks [`LocalPipe::passing`].
    #[inline]
    pub fn is_selective(&self) -> bool {
        self.filters.is_some() || self.ruled.filters
    }

    /// Which filters let an event through, by their numbers. `everybody`: what filter 0 does.
    pub fn passing(&self, everybody: bool, mut lets: impl FnMut(&Wants) -> bool) -> Vec<bool> {
        let lists = self.filters.as_ref().map_or(&[][..], |filters| &filters.lists);
        std::iter::once(everybody).chain(lists.iter().map(|list| list.uses > 0 && lets(&list.wants))).collect()
    }

    /// What the subscriber at this place wants.
    pub fn wants(&self, position: u32) -> Wants {
        let filter = self.subscribers.get(position as usize).map_or(0, |subscriber| subscriber.filter);
        let list = (filter as usize).checked_sub(1).and_then(|index| self.filters.as_ref()?.lists.get(index));
        list.map_or_else(Wants::default, |list| list.wants.clone())
    }

    fn filter_of(&mut self, hasher: &Registry, wants: Wants) -> FilterId {
        if wants.is_everything() {
            return 0;
        }
        let hash = wants.hash(hasher);
        let Filters { lists, by_wants, free } = &mut **self.filters.get_or_insert_default();
        if let Some(index) = by_wants.find(hash, |index| lists[*index as usize].wants == wants) {
            lists[*index as usize].uses += 1;
            return *index + 1;
        }
        let list = Listed { hash, wants, uses: 1 };
        let index = match free.pop() {
            Some(index) => {
                lists[index as usize] = list;
                index
            }
            None => {
                lists.push(list);
                lists.len() as u32 - 1
            }
        };
        by_wants.insert_unique(hash, index, |index| lists[*index as usize].hash);
        index + 1
    }

    fn drop_filter(&mut self, filter: FilterId) {
        let Some(filters) = &mut self.filters else { return };
        let Some(index) = filter.checked_sub(1) else { return };
        let list = &mut filters.lists[index as usize];
        list.uses -= 1;
        if list.uses > 0 {
            return;
        }
        list.wants = Wants::default();
        if let Ok(entry) = filters.by_wants.find_entry(list.hash, |other| *other == index) {
            entry.remove();
        }
        filters.free.push(index);
        if filters.by_wants.is_empty() {
            self.filters = None;
        }
    }
}
