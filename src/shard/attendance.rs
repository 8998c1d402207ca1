//! What a worker does with the rooms ([`super::presence`]): counts its subscribers in and out, and tells those who watch.
//!
//! Invariants: a watcher is subscribed and holds the presence right, looked at again whenever it is told something (GD-4).
//! Every local subscriber of an attended pipe is counted in its room exactly once. A room is shown when it is ready and
//! not before: until then the connection that asked is held, and whoever counts in last rings its worker.
//!
//! # What it costs
//! A subscribe, an unsubscribe or a close in an attended pipe: one lock of the room and a look into a tree. Every
//! [`PRESENCE_GATHER_MS`] each worker looks at the sequence of each room that it attends (one load) and, where it moved, works out
//! the net changes and encodes them *once*, whoever many receive them: time grows with the changes and with the
//! watchers, never with members × changes. An event costs nothing: nothing of this is on its way.
//!
//! # Slow watchers
//! Presence is state, so it need not be queued up. A watcher whose queue is more than half full is passed over and gets
//! the net of everything later, or a new list where the log has been outrun. So presence closes no connection and
//! displaces no event, and its frames need never be left out.
//!
//! Bounds: rooms attended by pipes known here, watchers by subscriptions. A `subscribe` opens no more rooms than it may have
//! subscriptions, and a room that nobody watches any more ends in the same step, but for a `presence` request's lease (INVARIANTS
//! 21). One room has at most [`PRESENCE_FRESH_MAX`]
//! watchers that stand at places of their own in the sequence; with one more all are told at once. A connection that waits
//! for rooms waits for one; it is looked at when its worker's bell rings.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::connection::{Handle, State, Until};
use super::delivery::Parcel;
use super::frames::Frame;
use super::input::Now;
use super::outbox::Pushed;
use super::pipes::{EventNames, PipeId, Pipes};
use super::presence::{Claim, Member, Room, Roster};
use crate::auth::decision::Rights;
use crate::auth::identity::Identity;
use crate::bounds::{PRESENCE_FRESH_MAX, PRESENCE_GATHER_MS, PRESENCE_LISTED_AGAIN, PRESENCE_LISTED_MAX};
use crate::protocol::encode::{self, BatchReply, presence};
use crate::protocol::message::{self, Id, Request};
use crate::rules::judge::{Refusal, Surface};

/// What presence may fill of a queue that has no limit, in bytes.
const QUEUE_BYTES_UNLIMITED: usize = 1 << 20;

/// The rooms that a worker attends, and the connections that wait for one.
#[derive(Default)]
pub(super) struct Attendance {
    /// By pipe number, in an order that the same inputs give again.
    kept: BTreeMap<u32, Kept>,
    waiting: Vec<(Handle, Arc<Room>)>,
    /// By slot: the rooms of a message that waits for one of them. They are there when it is tried again.
    claims: BTreeMap<u32, Gathered>,
    /// Pipes whose last watcher here has gone, or did not come about.
    idle: Vec<u32>,
    look_at_ms: Option<u64>,
}

/// One room, and who watches it here.
struct Kept {
    room: Arc<Room>,
    watchers: BTreeMap<u32, View>,
    /// Every watcher knows the changes up to here.
    told: u64,
    fresh: usize,
}

/// What a watcher knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct View {
    /// The changes up to here.
    since: u64,
    /// Every member by name; else only how many there are.
    listed: bool,
}

/// What those who stand at one view are told.
struct Telling {
    /// None: what changed came to nothing.
    frame: Option<Rc<Frame>>,
    listed: bool,
}

/// The rooms of a message's pipes, in their order. None: there is nobody, or it is not allowed.
pub(super) type Gathered = Vec<Option<Claim>>;

impl Attendance {
    /// When rooms are to be looked at.
    pub fn look_at_ms(&self) -> Option<u64> {
        self.look_at_ms
    }

    /// Whether a connection waits for a room that is ready: asked after the doorbell was armed.
    pub fn has_news(&self) -> bool {
        self.waiting.iter().any(|(_, room)| room.is_ready())
    }

    /// Whether rooms are to be looked at because nobody watches them here any more.
    pub fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// The message of this connection that waited for rooms is not tried again.
    pub fn disclaim(&mut self, pipes: &Pipes, slot: u32) {
        if let Some(rooms) = self.claims.remove(&slot) {
            self.idle
                .extend(rooms.iter().flatten().filter_map(|room| pipes.find_global(room.pipe())).map(|pipe| pipe.0));
        }
    }

    /// One subscriber less: its subscription ends, and it watches no more.
    pub fn leave(&mut self, worker: usize, pipes: &Pipes, pipe: PipeId, slot: u32, identity: Option<&Identity>) {
        if pipes.get(pipe).is_some_and(|local| local.attended)
            && let Some(kept) = self.kept.get_mut(&pipe.0)
        {
            kept.room.leave(identity);
            if kept.stop_watching(worker, slot) && kept.watchers.is_empty() {
                self.idle.push(pipe.0);
            }
        }
    }
}

impl Kept {
    fn stop_watching(&mut self, worker: usize, slot: u32) -> bool {
        let watched = self.watchers.remove(&slot).is_some();
        if watched && self.watchers.is_empty() {
            self.room.with(|roster| roster.unwatch(worker));
        }
        watched
    }
}

impl Shard {
    // ---- rooms that become ready ---------------------------------------------------------------------------------

    /// The rooms that a message is about, ready to be shown. To be called before anything is taken for the message.
    ///
    /// # Errors
    /// What it must wait for; then it is to be tried again from the start.
    pub(super) fn gather_rooms(&mut self, now: Now, slot: u32, request: &Request<'_>) -> Result<Gathered, Until> {
        let rooms = match request {
            Request::Presence { pipe } => vec![self.room_of(now, slot, pipe, false)],
            Request::Subscribe { pipes: message::Pipes::One(pipe), presence: true, .. } => {
                self.rooms_to_watch(now, slot, std::slice::from_ref(pipe))
            }
            Request::Subscribe { pipes: message::Pipes::Many(pipes), presence: true, .. } => {
                self.rooms_to_watch(now, slot, pipes)
            }
            _ => return Ok(Gathered::new()),
        };
        let outcome = self.await_rooms(now, slot, &rooms);
        // Those of the try before this one go when the new ones are there.
        self.attendance.claims.remove(&slot);
        if let Err(until) = outcome {
            self.attendance.claims.insert(slot, rooms);
            return Err(until);
        }
        Ok(rooms)
    }

    /// The rooms of pipes that are to be watched, for no more new ones than there is room for among the connection's
    /// subscriptions: the others will be refused (INVARIANTS 21).
    fn rooms_to_watch(&mut self, now: Now, slot: u32, names: &[Cow<'_, str>]) -> Gathered {
        let most = self.subscriptions_max(slot);
        let State::Open(open) = &self.slots[slot as usize].state else { return Gathered::new() };
        let mut left = most.saturating_sub(open.grants.subscriptions());
        let mut seen = BTreeSet::new();
        let mut room = |name| {
            let is_subscribed = self.resolved(slot, name).is_some_and(|(pipe, _)| self.is_subscribed_to(slot, pipe));
            let is_new = seen.insert(name) && !is_subscribed;
            if is_new && left == 0 {
                seen.remove(name);
                return None;
            }
            let room = self.room_of(now, slot, name, true);
            left -= u32::from(is_new && room.is_some());
            room
        };
        names.iter().map(|name| room(name)).collect()
    }

    fn is_subscribed_to(&self, slot: u32, pipe: PipeId) -> bool {
        matches!(&self.slots[slot as usize].state, State::Open(open) if open.grants.is_subscribed_to(pipe))
    }

    /// Whether these rooms are ready to be shown, or what they must be waited for.
    fn await_rooms(&mut self, now: Now, slot: u32, rooms: &Gathered) -> Result<(), Until> {
        for room in rooms.iter().flatten() {
            self.ask_attendance(now, room.room())?;
        }
        for room in rooms.iter().flatten() {
            if room.is_ready() {
                continue;
            }
            room.await_ready(self.worker);
            if !room.is_ready() {
                let handle = self.handle_of(slot);
                let listed = |(one, other): &(Handle, Arc<Room>)| *one == handle && Arc::ptr_eq(other, room.room());
                if !self.attendance.waiting.iter().any(listed) {
                    self.attendance.waiting.push((handle, room.room().clone()));
                }
                return Err(Until::Attendance);
            }
        }
        Ok(())
    }

    /// The room of one pipe, opened if need be, where the connection may see it.
    fn room_of(&mut self, now: Now, slot: u32, name: &str, subscribes: bool) -> Option<Claim> {
        let needed = [Some(Surface::Presence), subscribes.then_some(Surface::Subscribe)];
        if needed.into_iter().flatten().any(|surface| self.may(now, slot, name, surface).is_err()) {
            return None;
        }
        if subscribes {
            let pipe = self.shared.registry.intern(name).ok()?;
            return Some(self.shared.rooms.claim(&pipe));
        }
        // Where nobody is subscribed there is nobody to be counted.
        let pipe = self.shared.registry.find(name).filter(|pipe| pipe.interest() != 0)?;
        Some(self.shared.rooms.lease(&pipe, now.ms()))
    }

    /// Asks every worker that has to count itself in and was not asked.
    fn ask_attendance(&mut self, now: Now, room: &Arc<Room>) -> Result<(), Until> {
        if room.owes(self.worker) {
            self.attend_asked(now, room);
        } else {
            // Whoever opens a room looks after its end, whether anybody is subscribed here or not.
            self.attend(now, room);
        }
        let unasked = room.unasked();
        if unasked == 0 {
            return Ok(());
        }
        let full = self.port.full(unasked);
        let asked = room.ask(unasked & !full);
        for worker in (0..64).filter(|worker| asked >> worker & 1 == 1) {
            // Room was looked for, and nobody else fills this ring.
            let _ = self.port.push(worker, Parcel::Attend(room.clone()));
        }
        if full == 0 { Ok(()) } else { Err(Until::Room(full)) }
    }

    /// Another worker's connection wants to see who is in a pipe.
    pub(super) fn attend_asked(&mut self, now: Now, room: &Arc<Room>) {
        self.attend(now, room);
        let told = room.answer(self.worker);
        for worker in (0..64).filter(|worker| told >> worker & 1 == 1) {
            self.port.ring(worker);
        }
    }

    /// Counts the subscribers of this worker in, unless they are.
    fn attend(&mut self, now: Now, room: &Arc<Room>) {
        if room.is_over() {
            return;
        }
        let Ok(pipe) = self.hold_pipe(room.pipe().name()) else { return };
        if let Some(kept) = self.attendance.kept.get(&pipe.0) {
            self.pipes.release(pipe);
            if Arc::ptr_eq(&kept.room, room) {
                return;
            }
            // The one before it is over; its place, and its hold of the pipe, pass to this one.
        }
        self.pipes.set_attended(pipe, true);
        if let Some(local) = self.pipes.get(pipe)
            && !local.subscribers.is_empty()
        {
            room.with(|roster| {
                for subscriber in &local.subscribers {
                    if let State::Open(open) = &self.slots[subscriber.slot as usize].state {
                        roster.join(open.identity.as_ref());
                    }
                }
            });
        }
        let kept = Kept { room: room.clone(), watchers: BTreeMap::new(), told: 0, fresh: 0 };
        self.attendance.kept.insert(pipe.0, kept);
        self.attendance.look_at_ms.get_or_insert(now.ms() + PRESENCE_GATHER_MS);
    }

    /// Those that wait for a room that is ready now go on.
    pub(super) fn retry_attendance(&mut self, now: Now) {
        if self.attendance.waiting.is_empty() {
            return;
        }
        let slots = &self.slots;
        let mut ready = Vec::new();
        self.attendance.waiting.retain(|(handle, room)| {
            let alive = slots[handle.slot as usize].generation == handle.generation;
            if alive && room.is_ready() {
                ready.push(*handle);
            }
            alive && !room.is_ready()
        });
        for handle in ready {
            if self.slots[handle.slot as usize].generation != handle.generation {
                continue;
            }
            self.run_waiting(now, handle.slot, Some(Until::Attendance));
            let held = self.open_mut(handle.slot).and_then(|open| open.held());
            if held.is_some_and(|held| held.until == Until::Attendance) {
                self.resume(now, handle.slot);
            }
        }
    }

    // ---- coming and going ----------------------------------------------------------------------------------------

    /// A connection has become a subscriber. `watched`: the first one here, of a pipe that is marked.
    pub(super) fn entered(&mut self, now: Now, slot: u32, pipe: PipeId, watched: bool) {
        let Some(local) = self.pipes.get(pipe) else { return };
        if local.attended
            && let Some(kept) = self.attendance.kept.get(&pipe.0).filter(|kept| !kept.room.is_over())
        {
            if let State::Open(open) = &self.slots[slot as usize].state {
                kept.room.join(open.identity.as_ref());
            }
        } else if watched && let Some(room) = self.shared.rooms.find(&local.global) {
            self.attend(now, &room);
        }
    }

    /// The connection is told no more of who is there. Nothing is said about it.
    pub(super) fn stop_watching(&mut self, slot: u32, pipe: PipeId) {
        let Some(local) = self.pipes.get(pipe).filter(|local| local.attended) else { return };
        if let Some(kept) = self.attendance.kept.get_mut(&pipe.0)
            && kept.stop_watching(self.worker, slot)
        {
            if kept.watchers.is_empty() {
                self.attendance.idle.push(pipe.0);
            }
            self.outboxes[slot as usize].purge_presence(local.serial);
        }
    }

    /// Whether the connection is told who is in the pipe.
    pub(super) fn is_watching(&self, slot: u32, pipe: PipeId) -> bool {
        self.attendance.kept.get(&pipe.0).is_some_and(|kept| kept.watchers.contains_key(&slot))
    }

    /// The user of a connection is called otherwise than before.
    pub(super) fn renamed(&mut self, slot: u32) {
        let State::Open(open) = &self.slots[slot as usize].state else { return };
        let Some(identity) = &open.identity else { return };
        for kept in open.grants.subscribed().filter_map(|pipe| self.attendance.kept.get(&pipe.0)) {
            kept.room.rename(identity);
        }
    }

    // ---- requests ------------------------------------------------------------------------------------------------

    /// `presence`.
    pub(super) fn presence(&mut self, now: Now, slot: u32, id: Option<Id<'_>>, name: &str, room: Option<Claim>) {
        if let Err(denied) = self.may(now, slot, name, Surface::Presence) {
            return self.answer_refused(now, slot, id, &denied.into_refusal(), Some(name), None);
        }
        let Some(id) = id else { return };
        let bytes_max = self.presence_bytes_max();
        let reply = |roster: &Roster| {
            encode::framed(|out| {
                presence::reply_members(out, id, listed(roster, bytes_max));
            })
        };
        let reply = room.map_or_else(|| reply(&Roster::default()), |room| room.with(|roster| reply(roster)));
        self.send(slot, reply);
    }

    /// `subscribe` with `presence:true`. `rooms`: those of the pipes, ready.
    pub(super) fn subscribe_watching(
        &mut self,
        now: Now,
        slot: u32,
        id: Option<Id<'_>>,
        pipes: &message::Pipes<'_>,
        events: Option<&EventNames>,
        rooms: Gathered,
    ) {
        let names: Vec<&str> = match pipes {
            message::Pipes::One(pipe) => vec![pipe],
            message::Pipes::Many(pipes) => pipes.iter().map(|pipe| &**pipe).collect(),
        };
        let outcomes: Vec<Result<PipeId, Box<Refusal>>> =
            names.iter().map(|name| self.subscribe_one(now, slot, name, true, events)).collect();
        for (name, refusal) in names.iter().zip(&outcomes).filter_map(|(name, one)| Some((name, one.as_ref().err()?))) {
            self.note_refusal(now, slot, refusal, Some(name));
        }
        let mut bytes_left = self.presence_bytes_max();
        if let Some(id) = id {
            let reply = encode::framed(|out| match (pipes, &outcomes[..]) {
                (message::Pipes::One(_), [Ok(pipe)]) => {
                    self.watch(slot, *pipe, |roster| presence::reply_members(out, id, listed(roster, bytes_left)));
                }
                (message::Pipes::One(_), [Err(refusal)]) => {
                    encode::reply_refused(out, id, &refusal.code, &refusal.message, None);
                }
                _ => {
                    let mut batch = BatchReply::begin(out, id);
                    for (name, outcome) in names.iter().zip(&outcomes) {
                        match outcome {
                            Ok(pipe) => self.watch(slot, *pipe, |roster| {
                                let before = batch.bytes();
                                let count = batch.members(name, listed(roster, bytes_left));
                                bytes_left = bytes_left.saturating_sub(batch.bytes() - before);
                                count
                            }),
                            Err(refusal) => batch.error(name, &refusal.code, &refusal.message, None),
                        }
                    }
                    batch.end();
                }
            });
            self.send(slot, reply);
        } else {
            outcomes.iter().flatten().for_each(|pipe| self.watch(slot, *pipe, |roster| roster.total() as u64));
        }
        // Where a subscription did not come about, the room was opened for nothing.
        let unwatched = rooms.iter().flatten().filter(|room| room.is_unwatched());
        let idle = unwatched.filter_map(|room| self.pipes.find_global(room.pipe())).map(|pipe| pipe.0);
        self.attendance.idle.extend(idle);
        for pipe in outcomes.into_iter().flatten() {
            if self.attendance.kept.get(&pipe.0).is_some_and(|kept| kept.fresh > PRESENCE_FRESH_MAX) {
                self.tell_watchers(pipe);
            }
        }
    }

    /// The subscriber is told from now on of what changes. `list` shows it who is there, and says how many it listed.
    fn watch(&mut self, slot: u32, pipe: PipeId, list: impl FnOnce(&Roster) -> u64) {
        let Some(kept) = self.attendance.kept.get_mut(&pipe.0) else { return };
        let worker = self.worker;
        let view = kept.room.with(|roster| {
            roster.watch(worker);
            View { since: roster.sequence(), listed: list(roster) == roster.total() as u64 }
        });
        if kept.watchers.is_empty() {
            kept.told = view.since;
        }
        kept.watchers.insert(slot, view);
        kept.fresh += 1;
    }

    /// Bytes of a list, so that it does not fill the queue of whoever asked for it.
    fn presence_bytes_max(&self) -> usize {
        match self.settings.config.limits.queue_bytes as usize {
            0 => QUEUE_BYTES_UNLIMITED / 2,
            limit => limit / 2,
        }
    }

    // ---- telling -------------------------------------------------------------------------------------------------

    /// Looks at every room that is attended: tells what changed, and lets go of those that are over.
    pub(super) fn look_at_rooms(&mut self, now: Now) {
        let attended: Vec<u32> = self.attendance.kept.keys().copied().collect();
        for pipe in attended {
            if self.let_room_go(now, pipe) {
                continue;
            }
            let Some(kept) = self.attendance.kept.get(&pipe) else { continue };
            if !kept.watchers.is_empty() && kept.room.sequence() != kept.told {
                self.tell_watchers(PipeId(pipe));
            }
        }
        self.attendance.look_at_ms = (!self.attendance.kept.is_empty()).then_some(now.ms() + PRESENCE_GATHER_MS);
    }

    /// Lets those rooms go that nobody watches here any more.
    pub(super) fn let_idle_rooms_go(&mut self, now: Now) {
        while let Some(pipe) = self.attendance.idle.pop() {
            self.let_room_go(now, pipe);
        }
    }

    /// Ends a room that nobody needs, and attends it no more if it is over. False: it goes on.
    fn let_room_go(&mut self, now: Now, pipe: u32) -> bool {
        let Some(kept) = self.attendance.kept.get(&pipe) else { return false };
        if kept.room.is_unwatched() && kept.room.lease_is_over(now.ms()) {
            self.shared.rooms.end(&kept.room, now.ms());
        }
        let is_over = kept.room.is_over();
        if is_over {
            self.attendance.kept.remove(&pipe);
            self.pipes.set_attended(PipeId(pipe), false);
            self.pipes.release(PipeId(pipe));
        }
        is_over
    }

    /// Brings every watcher of a room here up to date, but for those whose queue is too full.
    fn tell_watchers(&mut self, pipe: PipeId) {
        let Some(kept) = self.attendance.kept.get_mut(&pipe.0) else { return };
        let Some(serial) = self.pipes.get(pipe).map(|local| local.serial) else { return };
        let (room, mut watchers) = (kept.room.clone(), std::mem::take(&mut kept.watchers));
        kept.fresh = 0;
        let views: BTreeSet<View> = watchers.values().copied().collect();
        let (now, tellings, counts) = room.with(|roster| self.tellings(pipe, serial, roster, views));
        let half = self.presence_bytes_max();
        watchers.retain(|slot, view| {
            let State::Open(open) = &self.slots[*slot as usize].state else { return false };
            let may = |index| open.grants.may(index, Rights::PRESENCE);
            if !open.grants.index_of(pipe).is_some_and(may) {
                return false;
            }
            let Some(mut telling) = tellings.get(view) else { return true };
            if telling.frame.as_ref().is_some_and(|frame| frame.bytes().len() > half) {
                telling = &counts;
            }
            if telling.frame.as_ref().is_none_or(|frame| self.tell(*slot, pipe, frame, half)) {
                *view = View { since: now, listed: telling.listed };
            }
            true
        });
        let told = watchers.values().map(|view| view.since).min();
        room.with(|roster| match told {
            Some(told) => roster.told(self.worker, told),
            None => roster.unwatch(self.worker),
        });
        if let Some(kept) = self.attendance.kept.get_mut(&pipe.0) {
            kept.told = told.unwrap_or(now);
            kept.watchers = watchers;
        }
    }

    /// Queues a frame, unless the queue would be more than half full then, or the subscription is in doubt.
    fn tell(&mut self, slot: u32, pipe: PipeId, frame: &Rc<Frame>, half: usize) -> bool {
        if self.suspended.has(pipe, slot) {
            return false;
        }
        let limits = &self.settings.config.limits;
        let outbox = &mut self.outboxes[slot as usize];
        if outbox.queued_bytes() + frame.bytes().len() > half {
            return false;
        }
        let pushed = outbox.push(frame.clone(), limits.queue_bytes as usize, limits.when_slow, &mut self.gatherer);
        self.counters.presence_out += u64::from(pushed == Pushed::Queued);
        self.mark_dirty(slot);
        true
    }

    /// What those at each view are told, the sequence after that, and the numbers alone.
    fn tellings(
        &self,
        pipe: PipeId,
        serial: u64,
        roster: &Roster,
        views: BTreeSet<View>,
    ) -> (u64, BTreeMap<View, Telling>, Telling) {
        let name = self.pipes.get(pipe).map_or("", |local| local.global.name());
        let numbers = (roster.total() as u64, roster.anonymous());
        let meter = &self.gatherer.meter;
        let framed = |bytes| Some(Frame::presence(bytes, serial, meter));
        let counts = framed(encode::framed(|out| presence::counts(out, name, numbers)));
        let mut list = None;
        let mut tellings = BTreeMap::new();
        for view in views {
            let most = if view.listed { PRESENCE_LISTED_MAX } else { PRESENCE_LISTED_AGAIN };
            let few = tellings.len() <= 2 * PRESENCE_FRESH_MAX;
            let net = if view.listed && few { roster.net(view.since) } else { None };
            let telling = match net.filter(|net| net.len() <= PRESENCE_LISTED_MAX) {
                _ if roster.total() > most => Telling { frame: counts.clone(), listed: false },
                Some(net) if net.is_empty() => Telling { frame: None, listed: true },
                Some(net) => {
                    let joined = net.joined.iter().map(|(member, connections)| told(member, *connections));
                    let left = net.left.iter().map(|member| told(member, 0));
                    let bytes = encode::framed(|out| presence::changes(out, name, joined, left, numbers));
                    Telling { frame: framed(bytes), listed: true }
                }
                None => {
                    let (frame, whole) = list.get_or_insert_with(|| {
                        let (mut count, most) = (0, self.presence_bytes_max());
                        let bytes = encode::framed(|out| count = presence::members(out, name, listed(roster, most)));
                        (framed(bytes), count == numbers.0)
                    });
                    Telling { frame: if *whole { frame.clone() } else { counts.clone() }, listed: *whole }
                }
            };
            tellings.insert(view, telling);
        }
        (roster.sequence(), tellings, Telling { frame: counts, listed: false })
    }
}

/// The members as they are listed.
fn listed(roster: &Roster, bytes_max: usize) -> presence::Attendance<impl Iterator<Item = presence::Member<'_>>> {
    let members = roster.members().take(PRESENCE_LISTED_MAX).map(|(member, connections)| told(member, connections));
    presence::Attendance { members, total: roster.total() as u64, anonymous: roster.anonymous(), bytes_max }
}

fn told(member: &Member, connections: u64) -> presence::Member<'_> {
    presence::Member { user: &member.user, name: member.name.as_deref(), connections }
}
