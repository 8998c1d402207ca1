//! What a connection may do on a pipe: what is remembered, else a judgement.
//!
//! An allow is remembered as a bit (`grants`), so that the next message costs a look-up. A refusal never is: it is judged
//! again, for its reason, and refusals cannot fill memory (INVARIANTS 21). An allow that depends on the message, or on an
//! answer that holds for a time only, is marked as fickle: the bit stands for what was decided last (a watcher of presence
//! goes by it), and the next message is judged again.

use std::net::IpAddr;
use std::rc::Rc;

use super::Shard;
use super::asking::asked_about;
use super::connection::{Open, State};
use super::grants::GrantIndex;
use super::input::Now;
use super::pipes::{EventNames, PipeId, Ruled, Viewer, Wants};
use super::rare::AskKey;
use crate::auth::decision::Rights;
use crate::protocol::codes::Code;
use crate::rules::Rules;
use crate::rules::definition::{FilterRule, PipeRules};
use crate::rules::expression::Variables;
use crate::rules::judge::{self, Answer, Case, Judge, Question, Refusal, Surface, Verdict};
use crate::rules::value;

/// Not allowed, or not yet.
#[derive(Debug)]
pub(super) enum Denied {
    /// No.
    Refused(Box<Refusal>),
    /// The application is to be asked.
    Asks(Box<Question>),
}

impl From<Code> for Denied {
    fn from(code: Code) -> Denied {
        Denied::Refused(Box::new(Refusal::plain(code)))
    }
}

impl Denied {
    /// As a refusal: whoever cannot wait is refused.
    pub fn into_refusal(self) -> Box<Refusal> {
        match self {
            Denied::Refused(refusal) => refusal,
            Denied::Asks(question) => {
                Box::new(Refusal::fault(format!("{}: there is no answer to go by", question.endpoint.place)))
            }
        }
    }
}

/// What a message is about, besides its pipe.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'m> {
    pub event: Option<(&'m str, &'m str)>,
    pub args: Option<&'m str>,
    pub to: Option<(&'m str, &'m str)>,
}

impl Shard {
    /// The pipe and its index, if the connection has resolved this name.
    pub(super) fn resolved(&self, slot: u32, name: &str) -> Option<(PipeId, GrantIndex)> {
        let State::Open(open) = &self.slots[slot as usize].state else { return None };
        let pipe = self.pipes.find(name)?;
        Some((pipe, open.grants.index_of(pipe)?))
    }

    /// Whether this was allowed before and still is.
    #[inline]
    pub(super) fn remembers(&self, slot: u32, resolved: Option<(PipeId, GrantIndex)>, surface: Surface) -> bool {
        let (Some((pipe, index)), State::Open(open)) = (resolved, &self.slots[slot as usize].state) else {
            return false;
        };
        open.grants.may(index, surface.right())
            && open.rare.as_ref().is_none_or(|rare| !rare.fickle.contains(&(pipe, surface)))
    }

    /// Whether the connection may subscribe to a pipe, or see who is there.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may(&mut self, now: Now, slot: u32, name: &str, surface: Surface) -> Result<(), Denied> {
        let resolved = self.resolved(slot, name);
        if self.remembers(slot, resolved, surface) {
            return Ok(());
        }
        let lasting = self.judge_pipe(now, slot, name, surface, About::default())?;
        if let Some((pipe, _)) = resolved {
            self.note_right(slot, pipe, surface, lasting);
        }
        Ok(())
    }

    /// Judges a right on a pipe: scope → revocation → guards → grant or rule (F8). Remembers nothing. Answers whether the
    /// allow may be remembered.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn judge_pipe(
        &self,
        now: Now,
        slot: u32,
        name: &str,
        surface: Surface,
        about: About<'_>,
    ) -> Result<bool, Denied> {
        let State::Open(open) = &self.slots[slot as usize].state else { return Err(Code::Internal.into()) };
        let rules = &*self.settings.config.rules;
        let found = rules.pipe(name);
        if let Some((_, definition, matched)) = &found {
            judge::in_scope(definition, matched, open.identity.as_ref())?;
        }
        if open.revocation_of(now.unix_ms, name).is_some() {
            return Err(Code::Revoked.into());
        }
        self.refuse_unasked(surface, name)?;
        let answers = |endpoint: &_| self.answer_of(now, open, surface, name, endpoint);
        let case = case(open, surface, name, about);
        let (definition, matched) =
            found.map_or((None, None), |(_, definition, matched)| (Some(definition), Some(matched)));
        let lasting = verdict(Judge::new(rules, case, matched, &answers).pipe(definition, open.explicit.rights(name)))?;
        // What is seen of the events is decided anew at each subscribe, and the answers for it are not kept.
        let again = surface == Surface::Subscribe
            && self.settings.asks
            && definition.is_some_and(|one| looks_or_denies(one) && one.asks_to_subscribe(rules));
        Ok(lasting && !again)
    }

    /// What a subscription that is allowed lets through: the events asked for, without those that the connection may not
    /// be sent, by the eyes of its viewer. Some text: a rule failed, and its event is denied. Where the application has not
    /// answered yet, events with a rule of their own are denied, and those whose filter reads what its answer may set.
    pub(super) fn wants(
        &self,
        now: Now,
        slot: u32,
        name: &str,
        names: Option<EventNames>,
    ) -> (Wants, Option<Box<str>>) {
        let mut wants = Wants { names, ..Wants::default() };
        let State::Open(open) = &self.slots[slot as usize].state else { return (wants, None) };
        let rules = &*self.settings.config.rules;
        let Some((_, definition, matched)) = rules.pipe(name) else { return (wants, None) };
        if !looks_or_denies(definition) {
            return (wants, None);
        }
        let answers = |endpoint: &_| self.answer_of(now, open, Surface::Subscribe, name, endpoint);
        let case = case(open, Surface::Subscribe, name, About::default());
        let mut judge = Judge::new(rules, case, Some(matched), &answers);
        // Guards run again for the context that they set; what they decided is known.
        let fault = match judge.pipe(Some(definition), open.explicit.rights(name)) {
            Verdict::Allow { .. } => {
                let (denied, fault) = judge.denied_events(definition);
                wants.denied = denied;
                fault
            }
            _ => {
                let asks_context = |one: &FilterRule| one.filter.names().contains(Variables::CTX);
                let ruled = definition.events.iter().enumerate().filter(|(_, event)| {
                    event.subscribe.is_some() || event.filter.as_deref().is_some_and(asks_context)
                });
                wants.denied = ruled.fold(0, |denied, (number, _)| denied | 1 << number);
                None
            }
        };
        if looks(definition) {
            let (user, params, context) = (judge.user().clone(), judge.params().clone(), judge.context().clone());
            let ip = if looks_at_address(definition) { judge.ip() } else { "" };
            let text = format!("{}\n{ip}", [&user, &params, &context].map(value::to_json).join("\n"));
            wants.viewer = Some(Rc::new(Viewer { text: text.into(), user, params, context, ip: ip.into() }));
        }
        (wants, fault)
    }

    /// Notes an allow in the table of a pipe that the connection has resolved.
    pub(super) fn note_right(&mut self, slot: u32, pipe: PipeId, surface: Surface, lasting: bool) {
        let Some(open) = self.open_mut(slot) else { return };
        open.grants.allow(pipe, surface.right());
        if !lasting {
            open.rare_mut().fickle.insert((pipe, surface));
        } else if let Some(rare) = &mut open.rare {
            rare.fickle.remove(&(pipe, surface));
        }
    }

    /// Gives the pipe an index in the connection's table, with nothing allowed yet.
    pub(super) fn remember(&mut self, slot: u32, name: &str) -> Result<(PipeId, GrantIndex), Code> {
        let pipe = self.hold_pipe(name)?;
        let Some(open) = self.open_mut(slot) else {
            self.pipes.release(pipe);
            return Err(Code::Internal);
        };
        let (index, forgotten) = open.grants.resolve(pipe, Rights::NONE);
        if let Some(forgotten) = forgotten {
            self.let_go(slot, forgotten);
        }
        Ok((pipe, index))
    }

    /// Makes a pipe known to this worker.
    pub(super) fn hold_pipe(&mut self, name: &str) -> Result<PipeId, Code> {
        let rules = &self.settings.config.rules;
        self.pipes.hold(name, || ruled(rules, name))
    }

    /// The connection has forgotten this pipe.
    pub(super) fn let_go(&mut self, slot: u32, pipe: PipeId) {
        if let Some(rare) = self.open_mut(slot).and_then(|open| open.rare.as_mut()) {
            rare.forget_pipe(pipe);
        }
        self.pipes.release(pipe);
    }

    /// What the application has answered to this, if it has.
    pub(super) fn answer_of(
        &self,
        now: Now,
        open: &Open,
        surface: Surface,
        item: &str,
        endpoint: &crate::rules::definition::Endpoint,
    ) -> Option<Answer> {
        let key = AskKey { endpoint: endpoint.number, surface, item: item.into() };
        let in_hand = self.in_hand.answers.iter().find(|(asked, _)| *asked == key);
        if let Some((_, answer)) = in_hand {
            return Some(answer.clone());
        }
        let rare = open.rare.as_ref()?;
        rare.answer(&key, now.mono_ns).map(|ruling| Ok(ruling.clone()))
    }

    /// Refuses what could not be asked, because too many calls were under way (C37).
    fn refuse_unasked(&self, surface: Surface, item: &str) -> Result<(), Denied> {
        let unasked = self.in_hand.unasked.iter().any(|key| key.surface == surface && *key.item == *item);
        if unasked { Err(Code::TooMany.into()) } else { Ok(()) }
    }

    /// Judges an action, an enqueue or a push. The context that guards have set, as JSON.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn judge_item(
        &self,
        now: Now,
        slot: u32,
        surface: Surface,
        item: &str,
        about: About<'_>,
    ) -> Result<String, Denied> {
        let State::Open(open) = &self.slots[slot as usize].state else { return Err(Code::Internal.into()) };
        let asked = asked_about(item, &about);
        self.refuse_unasked(surface, &asked)?;
        let rules = &*self.settings.config.rules;
        let answers = |endpoint: &_| self.answer_of(now, open, surface, &asked, endpoint);
        let mut judge = Judge::new(rules, case(open, surface, item, about), None, &answers);
        let refused = || Verdict::Refuse(Refusal::plain(Code::Forbidden));
        verdict(match surface {
            Surface::Action => rules.action(item).map_or_else(refused, |action| judge.action(action)),
            Surface::Enqueue => rules.queue(item).map_or_else(refused, |queue| judge.enqueue(queue)),
            _ => judge.push(),
        })?;
        Ok(value::to_json(judge.context()))
    }
}

/// What the first matching definition asks of a pipe.
pub(super) fn ruled(rules: &Rules, name: &str) -> Ruled {
    let Some((number, definition, _)) = rules.pipe(name) else { return Ruled::default() };
    let PipeRules { events, rate, .. } = definition;
    Ruled {
        definition: u32::try_from(number).ok(),
        examines: !events.is_empty() || rate.is_some(),
        filters: events.iter().any(|event| event.filter.is_some()),
    }
}

/// Whether a filter of the events asks who looks.
fn looks(definition: &PipeRules) -> bool {
    definition.events.iter().any(|one| one.filter.as_ref().is_some_and(|one| one.filter.needs_viewer()))
}

/// Whether a filter of the events asks from where. Elsewhere the address would keep viewers apart that are alike.
fn looks_at_address(definition: &PipeRules) -> bool {
    let asks = |one: &FilterRule| one.filter.names().contains(Variables::IP);
    definition.events.iter().any(|one| one.filter.as_deref().is_some_and(asks))
}

/// Whether subscribers may differ in what they are sent.
fn looks_or_denies(definition: &PipeRules) -> bool {
    looks(definition) || definition.events.iter().any(|one| one.subscribe.is_some())
}

fn case<'a>(open: &'a Open, surface: Surface, item: &'a str, about: About<'a>) -> Case<'a> {
    let About { event, args, to } = about;
    let ip: IpAddr = open.ip;
    Case { surface, identity: open.identity.as_ref(), ip, item, event, args, to }
}

fn verdict(verdict: Verdict) -> Result<bool, Denied> {
    match verdict {
        Verdict::Allow { lasting } => Ok(lasting),
        Verdict::Refuse(refusal) => Err(Denied::Refused(Box::new(refusal))),
        Verdict::Ask(question) => Err(Denied::Asks(Box::new(question))),
    }
}
