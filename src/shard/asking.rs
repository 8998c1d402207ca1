//! What the application is asked for a message, and the calls that leave with it.
//!
//! A request is surveyed before anything is done for it: every right that is not remembered is judged, and what the judge
//! would have to ask becomes a question. How answers come back, and what waits for them, is in `awaiting`.

use std::borrow::Cow;

use super::Shard;
use super::input::Now;
use super::output::Output;
use super::rare::{AskKey, Asked};
use super::rights::{About, Denied};
use crate::bounds::CALLS_IN_FLIGHT_MAX;
use crate::protocol::encode::asks;
use crate::protocol::message::{Request, Target};
use crate::rules::judge::{Question, Surface};
use crate::shard::call::{Ask, Asker, Call, HttpAsk};

/// What a message must have answered before it can be judged.
pub(super) type Questions = Vec<(AskKey, Question)>;

impl Shard {
    /// A publish that is allowed by what is remembered, to a pipe that asks nothing more of it: the frequent one.
    pub(super) fn is_plain_publish(&self, slot: u32, request: &Request<'_>) -> bool {
        let Request::Publish { pipe, .. } = request else { return false };
        let resolved = self.resolved(slot, pipe);
        resolved.is_some_and(|(id, _)| self.is_free(id)) && self.remembers(slot, resolved, Surface::Publish)
    }

    /// Everything that the application must be asked before this request can be judged.
    pub(super) fn questions(&self, now: Now, slot: u32, request: &Request<'_>) -> Questions {
        let mut questions = Questions::new();
        let mut note = |surface: Surface, item: &str, judged: Result<(), Denied>| {
            if let Err(Denied::Asks(question)) = judged {
                let key = AskKey { endpoint: question.endpoint.number, surface, item: item.into() };
                questions.push((key, *question));
            }
        };
        let mut pipe = |name: &str, surface: Surface, about: About<'_>| {
            if surface == Surface::Publish || !self.remembers(slot, self.resolved(slot, name), surface) {
                note(surface, name, self.judge_pipe(now, slot, name, surface, about).map(drop));
            }
        };
        match request {
            Request::Subscribe { pipes, presence, .. } => {
                for name in pipes.as_slice() {
                    pipe(name, Surface::Subscribe, About::default());
                    if *presence {
                        pipe(name, Surface::Presence, About::default());
                    }
                }
            }
            Request::Presence { pipe: name } => pipe(name, Surface::Presence, About::default()),
            Request::Publish { .. } if self.is_plain_publish(slot, request) => {}
            Request::Publish { pipe: name, event, data, .. } => {
                pipe(name, Surface::Publish, About { event: Some((event, data)), ..About::default() });
            }
            // Nobody is not asked about: it is refused (B21).
            Request::Action { .. } | Request::Enqueue { .. } | Request::Push { .. } if self.is_anonymous(slot) => {}
            Request::Action { .. } | Request::Enqueue { .. } | Request::Push { .. } => {
                let (surface, item, about) = item_of(request);
                note(surface, &asked_about(item, &about), self.judge_request(now, slot, request).map(drop));
            }
            Request::Unsubscribe { .. } | Request::Refresh { .. } | Request::Ping => {}
        }
        questions
    }

    /// What a message is about, where order counts: its pipes, its queue, as hashes in their order. (A queue's entry cannot
    /// be a pipe's name. Two names of one hash would only wait for each other.)
    pub(super) fn items(&self, request: &Request<'_>) -> Box<[u64]> {
        let hash = |name: &str| self.shared.registry.hash(name);
        let mut items: Vec<u64> = match request {
            Request::Subscribe { pipes, .. } | Request::Unsubscribe { pipes } => {
                pipes.as_slice().iter().map(|name| hash(name)).collect()
            }
            Request::Publish { pipe, .. } | Request::Presence { pipe } => vec![hash(pipe)],
            Request::Enqueue { queue, .. } => vec![hash(&format!("queue {queue}"))],
            Request::Action { .. } | Request::Push { .. } | Request::Refresh { .. } | Request::Ping => Vec::new(),
        };
        items.sort_unstable();
        items.into()
    }

    /// Sends questions out, as many as may be under way; the others are answered for the message with `TOO_MANY`.
    pub(super) fn ask_all(
        &mut self,
        slot: u32,
        questions: Questions,
        request: &Request<'_>,
    ) -> (Vec<Asked>, Vec<AskKey>) {
        let about = about_of(request);
        let free = self.open_mut(slot).map_or(0, |open| open.rare_mut().free_calls());
        let (mut calls, mut unasked) = (Vec::new(), Vec::new());
        for (key, question) in questions {
            if calls.len() < free.min(CALLS_IN_FLIGHT_MAX) {
                calls.extend(self.ask_rule(slot, key, &question, &about));
            } else {
                unasked.push(key);
            }
        }
        (calls, unasked)
    }

    pub(super) fn ask_rule(&mut self, slot: u32, key: AskKey, question: &Question, about: &About<'_>) -> Option<Asked> {
        let Question { endpoint, guard, context } = question;
        let item = &*key.item;
        let rules = self.settings.config.rules.clone();
        let matched = if is_of_pipe(key.surface) { rules.pipe(item).map(|(_, _, matched)| matched) } else { None };
        let params: Vec<(&str, &str)> = matched.iter().flat_map(|one| one.captured()).collect();
        let case = asks::Case {
            pipe: if is_of_pipe(key.surface) { item } else { "" },
            params: &params,
            event: about.event,
            action: (key.surface == Surface::Action).then_some(item),
            args: about.args,
            queue: (key.surface == Surface::Enqueue).then_some(item),
            to: about.to,
        };
        let surface = key.surface.name();
        let number = self.call(slot, |asker| {
            let body = asks::rule(surface, guard.as_deref(), asker, &case, context);
            Ask::Rule(HttpAsk { endpoint: endpoint.clone(), body: body.into() })
        })?;
        Some(Asked { number, key, cache_s: endpoint.cache_s })
    }

    /// Sends a call out. Its number, by which the answer will be known.
    pub(super) fn call(&mut self, slot: u32, ask: impl FnOnce(&Asker<'_>) -> Ask) -> Option<u32> {
        let (worker, connection) = (self.worker, self.handle_of(slot));
        let name = self.connection_name(connection);
        let open = self.open_mut(slot)?;
        let number = open.rare_mut().next_call();
        let delivery = format!("{name}-{number}");
        let asker = Asker { identity: open.identity.as_ref(), connection: &name, ip: open.ip, delivery: &delivery };
        let call = Call { worker, connection, number, ask: ask(&asker) };
        self.counters.calls += 1;
        self.outputs.push(Output::Call(Box::new(call)));
        Some(number)
    }
}

/// Whether it is about a pipe.
fn is_of_pipe(surface: Surface) -> bool {
    matches!(surface, Surface::Subscribe | Surface::Publish | Surface::Presence)
}

/// Surface, name and further facts of a request that is about no pipe.
pub(super) fn item_of<'a>(request: &'a Request<'_>) -> (Surface, &'a str, About<'a>) {
    match request {
        Request::Action { name, .. } => (Surface::Action, name, about_of(request)),
        Request::Enqueue { queue, .. } => (Surface::Enqueue, queue, about_of(request)),
        _ => (Surface::Push, "", about_of(request)),
    }
}

/// What an answer of the application is remembered under: the name of the pipe, action or queue, or whom a push is for.
pub(super) fn asked_about<'a>(item: &'a str, about: &About<'_>) -> Cow<'a, str> {
    match about.to {
        Some((kind, id)) => format!("{kind} {id}").into(),
        None => item.into(),
    }
}

fn about_of<'a>(request: &'a Request<'_>) -> About<'a> {
    match request {
        Request::Publish { event, data, .. } => About { event: Some((event, data)), ..About::default() },
        Request::Action { args, .. } => About { args: Some(args), ..About::default() },
        Request::Enqueue { data, .. } => About { args: Some(data), ..About::default() },
        Request::Push { to, event, data } => {
            About { event: Some((event, data)), to: Some(named(to)), ..About::default() }
        }
        _ => About::default(),
    }
}

/// Kind and id of a push's target.
pub(super) fn named<'a>(to: &'a Target<'_>) -> (&'static str, &'a str) {
    match to {
        Target::User(id) => ("user", id),
        Target::Connection(id) => ("connection", id),
        Target::Role(id) => ("role", id),
        Target::Tenant(id) => ("tenant", id),
        Target::Org(id) => ("org", id),
    }
}
