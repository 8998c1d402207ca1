//! Messages that wait for the application, and the calls that leave for them.
//!
//! A message that needs an answer is kept as it came. When the last of its answers is there it is judged again from the
//! start, so nothing that was decided before the wait is believed after it: identity, grants, revocations and rules are
//! those of that moment (INVARIANTS 7). Answers that were asked for before one of them changed are thrown away, and asked
//! for again. What a connection sends later about the same pipe waits behind it; everything else goes on.

use std::cmp::Ordering;

use ahash::AHashSet;

use super::Shard;
use super::asking::Questions;
use super::connection::{Handle, Stalled, State, Until};
use super::input::Now;
use super::rare::{AskKey, Asked, Waiting, Work};
use super::refresh::Decided;
use super::requests::Flow;
use super::rights::About;
use crate::bounds::{ASKED_AGAIN_MAX, MESSAGES_WAITING_MAX, RECHECKS_MAX};
use crate::protocol::codes::Code;
use crate::protocol::message::{self, Envelope, Request};
use crate::rules::judge::{Answer, Question, Surface};
use crate::shard::call::Outcome;

/// Answers for the message that is being judged.
#[derive(Default)]
pub(super) struct InHand {
    pub answers: Vec<(AskKey, Answer)>,
    /// What could not be asked, for too much was under way.
    pub unasked: Vec<AskKey>,
}

impl Shard {
    /// What a new message must wait for: questions, or (none of them) an earlier message about the same pipe. None: it
    /// need not wait.
    pub(super) fn must_wait(&self, now: Now, slot: u32, request: &Request<'_>) -> Option<Questions> {
        let State::Open(open) = &self.slots[slot as usize].state else { return None };
        if let Some(rare) = &open.rare
            && !rare.waiting.is_empty()
        {
            let items = self.items(request);
            if rare.waiting.iter().any(|one| shares(&one.items, &items)) {
                return Some(Questions::new());
            }
        }
        if !self.settings.asks || self.is_plain_publish(slot, request) {
            return None;
        }
        let questions = self.questions(now, slot, request);
        (!questions.is_empty()).then_some(questions)
    }

    /// Keeps a message, already charged, and sends its questions out.
    pub(super) fn set_aside(
        &mut self,
        now: Now,
        slot: u32,
        envelope: &Envelope<'_>,
        text: &str,
        questions: Questions,
    ) -> Flow {
        let full = self.open_mut(slot).is_none_or(|open| open.rare_mut().messages_waiting() >= MESSAGES_WAITING_MAX);
        if full {
            self.answer_error(now, slot, envelope.id, Code::TooMany, Code::TooMany.text());
            return Flow::Next;
        }
        self.counters.set_aside += 1;
        let (calls, unasked) = self.ask_all(slot, questions, &envelope.request);
        let items = self.items(&envelope.request);
        let Some(open) = self.open_mut(slot) else { return Flow::Closed };
        let rare = open.rare_mut();
        let waiting = Waiting {
            work: Work::Message(text.to_owned()),
            items,
            calls,
            answers: Vec::new(),
            unasked,
            epoch: rare.epoch,
            attempts: 0,
            until: None,
        };
        let bytes = waiting.work.bytes();
        rare.waiting.push_back(waiting);
        self.assembly_bytes += bytes;
        // Nothing could be asked: it is to be refused, in its turn.
        self.run_waiting(now, slot, None);
        if self.open_mut(slot).is_some() { Flow::Next } else { Flow::Closed }
    }

    /// A live subscription is to be decided again, by the application: it is suspended until the answer is there. It stands
    /// before every message, and one that is in doubt already is not begun anew: that would put the decision off.
    pub(super) fn recheck(&mut self, slot: u32, pipe: Box<str>, reason: &'static str) {
        let items = Box::new([self.shared.registry.hash(&pipe)]);
        let Some(open) = self.open_mut(slot) else { return };
        let rare = open.rare_mut();
        let same = |one: &Waiting| matches!(&one.work, Work::Subscription { pipe: other, .. } if *other == pipe);
        if let Some(one) = rare.waiting.iter_mut().find(|one| same(one)) {
            one.work = Work::Subscription { pipe, reason };
            return;
        }
        let epoch = rare.epoch;
        rare.waiting.push_front(Waiting {
            items,
            work: Work::Subscription { pipe, reason },
            calls: Vec::new(),
            answers: Vec::new(),
            unasked: Vec::new(),
            epoch,
            attempts: 0,
            until: None,
        });
    }

    /// A call has come to its end.
    pub(super) fn answered(&mut self, now: Now, connection: Handle, number: u32, outcome: Outcome) {
        let Some(slot) = self.slot_of(connection) else { return };
        match outcome {
            Outcome::Authorized(answer) => self.authorized(now, slot, number, answer),
            Outcome::Ruled(answer) => {
                if self.note_answer(now, slot, number, answer) {
                    self.run_waiting(now, slot, None);
                }
                self.next_rechecks(now);
            }
            Outcome::Acted(_) | Outcome::Enqueued(_) | Outcome::Pushed(_) => {
                self.landed(now, slot, number, outcome);
                self.run_waiting(now, slot, None);
            }
        }
    }

    /// Gives an answer to the message that waits for it; remembers it where it holds for longer. True: it was the last that
    /// the message waits for.
    fn note_answer(&mut self, now: Now, slot: u32, number: u32, answer: Answer) -> bool {
        self.counters.answers_failed += u64::from(answer.is_err());
        let Some(rare) = self.open_mut(slot).and_then(|open| open.rare.as_mut()) else { return false };
        let epoch = rare.epoch;
        let found = rare.waiting.iter_mut().find_map(|one| {
            let place = one.calls.iter().position(|asked| asked.number == number)?;
            Some((one.calls.swap_remove(place), one))
        });
        let Some((Asked { key, cache_s, .. }, one)) = found else { return false };
        one.answers.push((key.clone(), answer.clone()));
        let (current, last, again) = (one.epoch == epoch, one.calls.is_empty(), one.is_decided_again());
        if let (true, Ok(ruling), Some(cache_s @ 1..)) = (current, answer, cache_s) {
            rare.remember(key, ruling, now.mono_ns + u64::from(cache_s) * 1_000_000_000);
        }
        self.rechecks -= usize::from(again);
        last
    }

    /// Calls that subscriptions which are decided again may have under way on this worker: a reload must not overrun the
    /// application, nor the line of the others' calls.
    fn rechecks_max(&self) -> usize {
        (RECHECKS_MAX / self.shared.loads.len()).max(1)
    }

    /// Goes on with subscriptions that wait for their turn to be decided again.
    pub(super) fn next_rechecks(&mut self, now: Now) {
        while self.rechecks < self.rechecks_max()
            && let Some(handle) = self.rechecks_due.pop_front()
        {
            let alive = self.slots[handle.slot as usize].generation == handle.generation;
            if alive && let Some(rare) = self.open_mut(handle.slot).and_then(|open| open.rare.as_mut()) {
                rare.recheck_due = false;
                self.run_waiting(now, handle.slot, None);
            }
        }
    }

    /// Goes on with whatever waits and need not any more, in the order of arrival. `came`: what some may have waited for
    /// besides the application.
    pub(super) fn run_waiting(&mut self, now: Now, slot: u32, came: Option<Until>) {
        // What those that stay are about. A set, for many pipes may wait behind many.
        let mut ahead = AHashSet::new();
        let (mut place, mut no_call_is_free) = (0, false);
        while let Some(rare) = self.open_mut(slot).and_then(|open| open.rare.as_mut())
            && let Some(one) = rare.waiting.get_mut(place)
        {
            // Also where it stands behind another: what it waited for does not come twice.
            one.until.take_if(|until| came.is_some_and(|came| until.is_alike(came)));
            let stays = !one.calls.is_empty()
                || one.until.is_some()
                || (no_call_is_free && one.is_decided_again())
                || one.items.iter().any(|item| ahead.contains(item));
            let one = if stays { None } else { rare.waiting.remove(place) };
            let bytes = one.as_ref().map_or(0, |one| one.work.bytes());
            let waits_on = one.and_then(|one| self.try_again(now, slot, one));
            let Some(open) = self.open_mut(slot) else {
                self.assembly_bytes -= bytes;
                return;
            };
            let rare = open.rare_mut();
            match waits_on {
                None if !stays => {
                    self.assembly_bytes -= bytes;
                    continue;
                }
                None => {}
                Some(one) => {
                    no_call_is_free |= one.is_decided_again() && one.calls.is_empty();
                    rare.waiting.insert(place, one);
                }
            }
            ahead.extend(rare.waiting.get(place).iter().flat_map(|one| one.items.iter().copied()));
            place += 1;
        }
        self.list_stalled(slot);
        self.conclude_refresh(now, slot);
    }

    /// Lists the connection once for each ring in which one of its messages waits for room.
    fn list_stalled(&mut self, slot: u32) {
        let handle = self.handle_of(slot);
        let Some(rare) = self.open_mut(slot).and_then(|open| open.rare.as_mut()) else { return };
        let rings = rare
            .waiting
            .iter()
            .fold(0, |all, one| if let Some(Until::Room(rings)) = one.until { all | rings } else { all });
        let unlisted = rings & !rare.stalled;
        if unlisted != 0 {
            rare.stalled |= unlisted;
            self.stalled.push_back(Stalled { handle, rings: unlisted, set_aside: true });
        }
    }

    /// There is room in a ring for which messages of this connection have waited.
    pub(super) fn relieve_waiting(&mut self, now: Now, slot: u32, rings: u64) {
        let Some(rare) = self.open_mut(slot).and_then(|open| open.rare.as_mut()) else { return };
        rare.stalled &= !rings;
        self.run_waiting(now, slot, Some(Until::Room(rings)));
    }

    /// Judges again what has its answers. Some: it waits on.
    fn try_again(&mut self, now: Now, slot: u32, mut one: Waiting) -> Option<Waiting> {
        let epoch = self.open_mut(slot)?.rare_mut().epoch;
        if one.epoch != epoch {
            one.epoch = epoch;
            let was_asked = !one.answers.is_empty() || !one.unasked.is_empty();
            one.attempts = one.attempts.saturating_add(u8::from(was_asked));
            one.answers.clear();
            one.unasked.clear();
        }
        one.until = None;
        self.in_hand = InHand { answers: std::mem::take(&mut one.answers), unasked: std::mem::take(&mut one.unasked) };
        let waits = match &mut one.work {
            Work::Message(text) => {
                let text = std::mem::take(text);
                let waits = self.message_again(now, slot, &text, &mut one);
                one.work = Work::Message(text);
                waits
            }
            Work::Subscription { pipe, reason } => {
                let (pipe, reason) = (pipe.clone(), *reason);
                self.subscription_again(now, slot, &pipe, reason, &mut one)
            }
        };
        let in_hand = std::mem::take(&mut self.in_hand);
        waits.then(|| Waiting { answers: in_hand.answers, unasked: [in_hand.unasked, one.unasked].concat(), ..one })
    }

    /// Whether the message must wait on.
    fn message_again(&mut self, now: Now, slot: u32, text: &str, one: &mut Waiting) -> bool {
        let parsed = message::parse(text);
        if let Ok(envelope) = &parsed {
            let questions = self.questions(now, slot, &envelope.request);
            if !questions.is_empty() {
                if one.attempts > ASKED_AGAIN_MAX {
                    self.answer_error(now, slot, envelope.id, Code::Unavailable, Code::Unavailable.text());
                    return false;
                }
                let (calls, unasked) = self.ask_all(slot, questions, &envelope.request);
                (one.calls, one.unasked) = (calls, unasked);
                return true;
            }
        }
        match self.go_on(now, slot, text, parsed, None) {
            Flow::Next | Flow::Closed => false,
            Flow::Wait { until, .. } => {
                one.until = Some(until);
                true
            }
        }
    }

    /// Whether the subscription's decision must wait on.
    fn subscription_again(&mut self, now: Now, slot: u32, pipe: &str, reason: &'static str, one: &mut Waiting) -> bool {
        let subscribed = self.resolved(slot, pipe).map(|(id, _)| id);
        let Some(id) =
            subscribed.filter(|id| self.open_mut(slot).is_some_and(|open| open.grants.is_subscribed_to(*id)))
        else {
            return false;
        };
        let decided = match self.decide_subscription(now, slot, pipe) {
            Decided::Settled(decided) => decided,
            Decided::Asks(surface, question) if one.attempts <= ASKED_AGAIN_MAX => {
                let key = AskKey { endpoint: question.endpoint.number, surface, item: pipe.into() };
                self.ask_again(slot, key, &question, one);
                return true;
            }
            // Asked often enough: it is decided without an answer.
            Decided::Asks(..) => self.judge_pipe(now, slot, pipe, Surface::Subscribe, About::default()),
        };
        match self.settle_subscription(now, slot, (id, pipe), decided) {
            Some(name) => self.tell_unsubscribed(slot, &name, reason),
            None => self.release(slot, id),
        }
        false
    }

    /// Asks about a live subscription, if it is its turn; with too many under way it has that when others have landed.
    fn ask_again(&mut self, slot: u32, key: AskKey, question: &Question, one: &mut Waiting) {
        if self.open_mut(slot).is_none_or(|open| open.rare_mut().free_calls() == 0) {
            return;
        }
        if self.rechecks >= self.rechecks_max() {
            let handle = self.handle_of(slot);
            if self.open_mut(slot).is_some_and(|open| !std::mem::replace(&mut open.rare_mut().recheck_due, true)) {
                self.rechecks_due.push_back(handle);
            }
        } else if let Some(asked) = self.ask_rule(slot, key, question, &About::default()) {
            one.calls.push(asked);
            self.rechecks += 1;
        }
    }
}

/// Whether they have one in common; both in their order.
fn shares(mut one: &[u64], mut other: &[u64]) -> bool {
    while let ([first, ..], [second, ..]) = (one, other) {
        match first.cmp(second) {
            Ordering::Equal => return true,
            Ordering::Less => one = &one[1..],
            Ordering::Greater => other = &other[1..],
        }
    }
    false
}
