//! `subscribe` and `unsubscribe`.

use std::borrow::Cow;

use super::Shard;
use super::connection::State;
use super::input::Now;
use super::pipes::{EventNames, PipeId, Wants};
use super::rights::Denied;
use crate::protocol::codes::Code;
use crate::protocol::encode::{self, BatchReply};
use crate::protocol::message::{Id, Pipes};
use crate::rules::judge::{Refusal, Surface};

impl Shard {
    /// Subscribes to one pipe, or replaces what is wanted of it (C11). `presence`: the right to see who is there is
    /// needed as well, and without it nothing is done (C8).
    pub(super) fn subscribe_one(
        &mut self,
        now: Now,
        slot: u32,
        name: &str,
        presence: bool,
        events: Option<&EventNames>,
    ) -> Result<PipeId, Box<Refusal>> {
        let plain = |code: Code| Box::new(Refusal::plain(code));
        let resolved = self.resolved(slot, name);
        let lasting = self.allowed(now, slot, name, Surface::Subscribe)?;
        let sees = if presence { Some(self.allowed(now, slot, name, Surface::Presence)?) } else { None };
        let (wants, fault) = self.wants(now, slot, name, events.cloned());
        self.deny_named(name, &wants)?;
        self.note_fault(now, slot, name, fault);
        let most = self.subscriptions_max(slot);
        let Some(open) = self.open_mut(slot) else { return Err(plain(Code::Internal)) };
        let subscribed = resolved.filter(|(_, index)| open.grants.is_subscribed(*index));
        if subscribed.is_none() && open.grants.subscriptions() >= most {
            return Err(plain(Code::TooMany));
        }
        let (pipe, index) = match resolved {
            Some(resolved) => resolved,
            None => self.remember(slot, name).map_err(plain)?,
        };
        self.note_right(slot, pipe, Surface::Subscribe, lasting);
        if let Some(lasting) = sees {
            self.note_right(slot, pipe, Surface::Presence, lasting);
        }
        if let (Some(_), Some(open)) = (subscribed, self.open_mut(slot)) {
            let position = open.grants.position(index);
            self.pipes.refilter(pipe, position, wants);
            if !presence {
                self.stop_watching(slot, pipe);
            }
            return Ok(pipe);
        }
        let subscribed = self.pipes.subscribe(pipe, slot, wants);
        if let Some(open) = self.open_mut(slot) {
            open.grants.subscribe(index, subscribed.position);
        }
        self.entered(now, slot, pipe, subscribed.watched);
        Ok(pipe)
    }

    /// Whether this is allowed, remembered or judged; and whether that lasts.
    fn allowed(&self, now: Now, slot: u32, name: &str, surface: Surface) -> Result<bool, Box<Refusal>> {
        if self.remembers(slot, self.resolved(slot, name), surface) {
            return Ok(true);
        }
        self.judge_pipe(now, slot, name, surface, Default::default()).map_err(Denied::into_refusal)
    }

    /// An event that was named and may not be seen refuses the whole (C10).
    fn deny_named(&self, name: &str, wants: &Wants) -> Result<(), Box<Refusal>> {
        let (Some(names), true) = (&wants.names, wants.denied != 0) else { return Ok(()) };
        let Some((_, definition, _)) = self.settings.config.rules.pipe(name) else { return Ok(()) };
        let denied = |event: &str| definition.event(event).is_some_and(|number| wants.denied >> number & 1 == 1);
        if names.iter().any(|event| denied(event)) {
            return Err(Box::new(Refusal::plain(Code::Forbidden)));
        }
        Ok(())
    }

    /// Subscriptions that the connection may hold.
    pub(super) fn subscriptions_max(&self, slot: u32) -> u32 {
        let most = self.settings.config.limits.subscriptions;
        let State::Open(open) = &self.slots[slot as usize].state else { return most };
        open.rare.as_ref().and_then(|rare| rare.limits.as_ref()).map_or(most, |own| own.subscriptions)
    }

    pub(super) fn unsubscribe_one(&mut self, slot: u32, name: &str) -> Result<(), Box<Refusal>> {
        let plain = |code: Code| Box::new(Refusal::plain(code));
        let (pipe, index) = self.resolved(slot, name).ok_or_else(|| plain(Code::NotSubscribed))?;
        let Some(open) = self.open_mut(slot) else { return Err(plain(Code::Internal)) };
        if !open.grants.is_subscribed(index) {
            return Err(plain(Code::NotSubscribed));
        }
        self.end_subscription(slot, pipe);
        if let Some(forgotten) = self.open_mut(slot).and_then(|open| open.grants.forget_surplus()) {
            self.let_go(slot, forgotten);
        }
        Ok(())
    }

    /// Ends a subscription, if there is one; the decision about the pipe stays remembered.
    pub(super) fn end_subscription(&mut self, slot: u32, pipe: PipeId) -> bool {
        let Some(open) = self.open_mut(slot) else { return false };
        let Some(index) = open.grants.index_of(pipe).filter(|index| open.grants.is_subscribed(*index)) else {
            return false;
        };
        let position = open.grants.unsubscribe(index);
        self.leave_list(slot, pipe, position);
        if let State::Open(open) = &self.slots[slot as usize].state {
            self.attendance.leave(self.worker, &self.pipes, pipe, slot, open.identity.as_ref());
        }
        true
    }

    /// Takes a connection out of a pipe's list, and tells the one that took its place.
    pub(super) fn leave_list(&mut self, slot: u32, pipe: PipeId, position: u32) {
        self.forget_kept(slot, pipe);
        if let Some(moved) = self.pipes.unsubscribe(pipe, position)
            && moved != slot
            && let Some(open) = self.open_mut(moved)
        {
            open.grants.moved(pipe, position);
        }
    }

    /// Does something for each pipe of a message and replies once: for one pipe with its outcome, for many with all.
    pub(super) fn each(
        &mut self,
        now: Now,
        slot: u32,
        id: Option<Id<'_>>,
        pipes: &Pipes<'_>,
        mut act: impl FnMut(&mut Shard, &str) -> Result<(), Box<Refusal>>,
    ) {
        match pipes {
            Pipes::One(pipe) => match act(self, pipe) {
                Ok(()) => self.answer_ok(slot, id),
                Err(refusal) => self.answer_refused(now, slot, id, &refusal, Some(pipe), None),
            },
            Pipes::Many(pipes) => {
                let outcomes: Vec<Result<(), Box<Refusal>>> = pipes.iter().map(|pipe| act(self, pipe)).collect();
                for (pipe, refusal) in
                    pipes.iter().zip(&outcomes).filter_map(|(pipe, one)| Some((pipe, one.as_ref().err()?)))
                {
                    self.note_refusal(now, slot, refusal, Some(pipe));
                }
                let Some(id) = id else { return };
                let reply = encode::framed(|out| {
                    let mut batch = BatchReply::begin(out, id);
                    for (pipe, outcome) in pipes.iter().zip(outcomes) {
                        match outcome {
                            Ok(()) => batch.ok(pipe),
                            Err(refusal) => batch.error(pipe, &refusal.code, &refusal.message, None),
                        }
                    }
                    batch.end();
                });
                self.send(slot, reply);
            }
        }
    }
}

/// The names that a subscribe gave, in the form in which they are kept.
pub(super) fn event_list(names: Option<Vec<Cow<'_, str>>>) -> Option<EventNames> {
    let mut names: Vec<Box<str>> = names?.iter().map(|name| Box::from(&**name)).collect();
    names.sort();
    names.dedup();
    Some(names.into())
}
