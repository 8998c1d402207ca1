//! The story of one case: each step of the judge, and what the shard looks at before and after it.
//!
//! Invariant: the order is that of F8 and RK-2, and every outcome comes from the functions that the shard calls.

use std::net::IpAddr;

use crate::auth::decision::Decision;
use crate::auth::identity::Identity;
use crate::protocol::codes::Code;
use crate::protocol::names::{Match, is_event_name, is_pipe_name};
use crate::rules::Rules;
use crate::rules::definition::{Endpoint, EventRules, Payload, PipeRules};
use crate::rules::judge::{self, Answer, Case, Judge, Refusal, Surface, Verdict};
use crate::rules::payload::Publisher;
use crate::rules::value::{self, Scope};
use crate::shard::call::Ruling;
use crate::shard::grants::Explicit;

/// A definition with its number, and how the pipe's name fits it.
type Found<'n> = (usize, &'n PipeRules, Match<'n>);

/// Tells cases of one connection.
pub(super) struct Explainer<'a> {
    rules: &'a Rules,
    identity: Option<&'a Identity>,
    explicit: Explicit,
    ip: IpAddr,
    /// What the application is taken to say.
    assumed: Option<bool>,
    lines: Vec<String>,
}

impl<'a> Explainer<'a> {
    /// `decision` None: an anonymous connection.
    pub fn new(rules: &'a Rules, decision: Option<&'a Decision>, ip: IpAddr, assumed: Option<bool>) -> Explainer<'a> {
        let identity = decision.map(|decision| &decision.identity);
        let explicit = Explicit::new(decision.map_or(&[], |decision| &decision.grants));
        let mut explainer = Explainer { rules, identity, explicit, ip, assumed, lines: Vec::new() };
        explainer.lines.push(format!("connection: {}", who(identity)));
        explainer
    }

    /// What was told.
    pub fn into_lines(mut self) -> Vec<String> {
        self.lines.push("not looked at: revocations, rates and caps, which only a running server knows".to_owned());
        self.lines
    }

    /// Subscribe, publish (of `event`, where one is given) and presence.
    pub fn pipe(&mut self, name: &str, event: Option<&str>, data: Option<&str>) {
        if !is_pipe_name(name) {
            return self.lines.push(format!("pipe {name}: refused, INVALID: this is no name of a pipe"));
        }
        let found = self.rules.pipe(name);
        match &found {
            Some((number, definition, matched)) => {
                let captured: Vec<String> =
                    matched.captured().map(|(name, value)| format!(", {name} = {value}")).collect();
                self.lines.push(format!("pipe {name}: decided by {}{}", definition.place, captured.concat()));
                for later in self.rules.pipes[number + 1..].iter().filter(|later| later.name.matches(name).is_some()) {
                    self.step(&format!("{} matches too", later.place), "stands later and does not decide");
                }
            }
            None => self.lines.push(format!("pipe {name}: no definition matches, explicit grants alone decide")),
        }
        let defined = found.iter().flat_map(|(_, definition, _)| &definition.events).map(|event| Some(&*event.name));
        // Without one given, each event that the pipe defines.
        let mut published: Vec<Option<&str>> = if event.is_some() { vec![event] } else { defined.collect() };
        if published.is_empty() {
            published.push(None);
        }
        self.right(name, found, Surface::Subscribe, event, data);
        for event in published {
            self.right(name, found, Surface::Publish, event, data);
        }
        self.right(name, found, Surface::Presence, None, None);
    }

    fn right<'n>(
        &mut self,
        name: &'n str,
        found: Option<Found<'n>>,
        surface: Surface,
        event: Option<&str>,
        data: Option<&str>,
    ) where
        'a: 'n,
    {
        let about = event.filter(|_| surface == Surface::Publish);
        let with = about.map_or(String::new(), |event| format!(" {event}"));
        self.lines.push(format!("{}{with}", surface.name()));
        if about.is_some_and(|event| !is_event_name(event)) {
            return self.refused(&Refusal::plain(Code::Invalid));
        }
        if let Some((_, definition, matched)) = &found
            && let Err(code) = self.in_scope(definition, matched)
        {
            return self.refused(&Refusal::plain(code));
        }
        let definition = found.as_ref().map(|(_, definition, _)| *definition);
        let answers = answers(self.assumed);
        let case = Case { event: about.map(|event| (event, data.unwrap_or("null"))), ..self.case(surface, name) };
        let matched = found.as_ref().map(|(_, _, matched)| *matched);
        let mut judge = Judge::new(self.rules, case, matched, &answers).explaining();
        let verdict = judge.pipe(definition, self.explicit.rights(name));
        self.steps(&mut judge);
        let defined =
            |pipe: &'n PipeRules| about.and_then(|event| pipe.event(event)).map(|number| &pipe.events[number]);
        match definition.and_then(defined) {
            Some(defined) => self.payload(&defined.payload, data, Code::Schema, &verdict),
            None => self.verdict(&verdict),
        }
        if let (Surface::Subscribe, Some(definition), Verdict::Allow { .. }) = (surface, definition, &verdict) {
            self.events(&mut judge, definition, (name, event, data));
        }
    }

    /// An action, with `data` as its arguments.
    pub fn action(&mut self, name: &str, data: Option<&str>) {
        self.lines.push(format!("action {name}"));
        if !self.is_identified() {
            return;
        }
        let Some(action) = self.rules.action(name) else {
            self.step("definition", "there is none");
            return self.refused(&Refusal::plain(Code::UnknownAction));
        };
        self.step("definition", &action.place.to_string());
        let answers = answers(self.assumed);
        let case = Case { args: Some(data.unwrap_or("null")), ..self.case(Surface::Action, name) };
        let mut judge = Judge::new(self.rules, case, None, &answers).explaining();
        let verdict = judge.action(action);
        self.steps(&mut judge);
        self.payload(&action.payload, data, Code::Invalid, &verdict);
    }

    /// A message for a queue.
    pub fn queue(&mut self, name: &str, data: Option<&str>) {
        self.lines.push(format!("enqueue {name}"));
        if !self.is_identified() {
            return;
        }
        let Some(queue) = self.rules.queue(name) else {
            self.step("definition", "there is none");
            return self.refused(&Refusal::plain(Code::Forbidden));
        };
        self.step("definition", &queue.place.to_string());
        let answers = answers(self.assumed);
        let case = Case { args: Some(data.unwrap_or("null")), ..self.case(Surface::Enqueue, name) };
        let mut judge = Judge::new(self.rules, case, None, &answers).explaining();
        let verdict = judge.enqueue(queue);
        self.steps(&mut judge);
        self.payload(&queue.payload, data, Code::Schema, &verdict);
    }

    /// A push to others.
    pub fn push(&mut self, to: (&str, &str), event: Option<&str>, data: Option<&str>) {
        self.lines.push(format!("push to {}={}", to.0, to.1));
        if !self.is_identified() {
            return;
        }
        let answers = answers(self.assumed);
        let event = (event.unwrap_or(""), data.unwrap_or("null"));
        let case = Case { event: Some(event), to: Some(to), ..self.case(Surface::Push, "") };
        let mut judge = Judge::new(self.rules, case, None, &answers).explaining();
        let verdict = judge.push();
        self.steps(&mut judge);
        if matches!(verdict, Verdict::Allow { .. }) {
            self.step("whom it reaches", "connections of the sender's own tenant alone");
        }
        self.verdict(&verdict);
    }

    fn case<'c>(&self, surface: Surface, item: &'c str) -> Case<'c>
    where
        'a: 'c,
    {
        Case { surface, identity: self.identity, ip: self.ip, item, event: None, args: None, to: None }
    }

    /// B21
    fn is_identified(&mut self) -> bool {
        if self.identity.is_none() {
            self.step("identity", "there is none, and only those who have one may do this");
            self.refused(&Refusal::plain(Code::Unauthenticated));
        }
        self.identity.is_some()
    }

    fn in_scope(&mut self, definition: &PipeRules, matched: &Match<'_>) -> Result<(), Code> {
        let bound = judge::in_scope(definition, matched, self.identity);
        let scope = &definition.scope;
        let named = [("tenant", &scope.tenant), ("org", &scope.org), ("feature", &scope.feature)];
        let named: Vec<String> =
            named.iter().filter_map(|(kind, what)| Some(format!("{kind} {}", what.as_deref()?))).collect();
        if !named.is_empty() {
            let outcome =
                if bound.is_ok() { "is the connection's own" } else { "is not the connection's; nothing overrides it" };
            self.step(&format!("scope ({})", named.join(", ")), outcome);
        }
        bound
    }

    /// Which events a subscriber is sent.
    fn events<'j>(
        &mut self,
        judge: &mut Judge<'j>,
        definition: &'j PipeRules,
        (name, event, data): (&str, Option<&str>, Option<&str>),
    ) {
        let (denied, _) = judge.denied_events(definition);
        for (number, one) in definition.events.iter().enumerate() {
            if event.is_some_and(|event| *event != *one.name) {
                continue;
            }
            let outcome = if denied >> number & 1 == 1 {
                "is never sent to it, its own subscribe rule says no".to_owned()
            } else {
                Self::filtered(judge, one, name, data)
            };
            self.step(&format!("event {}", one.name), &outcome);
        }
    }

    fn filtered(judge: &Judge<'_>, event: &EventRules, item: &str, data: Option<&str>) -> String {
        let Some(rule) = &event.filter else { return "is sent to it".to_owned() };
        let source = rule.filter.source();
        let Some(data) = data else { return format!("is sent to it where `{source}` is true") };
        let event = value::event(&event.name, value::parsed(data));
        let scope = Scope {
            user: judge.user(),
            params: judge.params(),
            ctx: judge.context(),
            ip: judge.ip(),
            event: &event,
            pipe: item,
            ..Scope::default()
        };
        match rule.filter.viewer(&rule.filter.common(&scope), &scope) {
            Ok(true) => format!("with this data is sent to it: `{source}` is true"),
            Ok(false) => format!("with this data is not sent to it: `{source}` is false"),
            Err(fault) => format!("with this data is not sent to it: `{source}` ({}) fails: {fault}", rule.place),
        }
    }

    /// What the data must be, once the rules have allowed, and the end of the story.
    fn payload(&mut self, payload: &Payload, data: Option<&str>, schema_code: Code, verdict: &Verdict) {
        if !matches!(verdict, Verdict::Allow { .. }) || payload.is_open() {
            return self.verdict(verdict);
        }
        let Some(data) = data else {
            self.step("data", "is not given: its size, scope fields and schema are not looked at");
            return self.verdict(verdict);
        };
        match payload.check(data, Publisher::Client(self.identity), schema_code) {
            Ok(()) => {
                self.step("data", "fits its size, scope fields and schema");
                self.verdict(verdict);
            }
            Err(invalid) => {
                self.step("data", &invalid.message);
                self.refused(&Refusal { message: invalid.message.into(), ..Refusal::plain(invalid.code) });
            }
        }
    }

    fn steps(&mut self, judge: &mut Judge<'_>) {
        for step in judge.steps() {
            self.step(&step.what, &step.outcome);
        }
    }

    fn step(&mut self, what: &str, outcome: &str) {
        self.lines.push(format!("  {what}: {outcome}"));
    }

    fn verdict(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Allow { .. } => self.lines.push("  => allowed".to_owned()),
            Verdict::Refuse(refusal) => self.refused(refusal),
            Verdict::Ask(question) => {
                let endpoint = &question.endpoint;
                let line = format!(
                    "  => undecided: {} asks {} (ctx: {}); --assume allow or --assume refuse goes on from there",
                    endpoint.place, endpoint.url, question.context
                );
                self.lines.push(line);
            }
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        if let Some(fault) = &refusal.fault {
            self.lines.push(format!("  fault, which the client is not told: {fault}"));
        }
        self.lines.push(format!("  => refused, {}: {}", refusal.code, refusal.message));
    }
}

/// The same answer to everything that the application is asked, where there is one.
fn answers(assumed: Option<bool>) -> impl Fn(&Endpoint) -> Option<Answer> {
    move |_| assumed.map(|allow| Ok(Ruling { allow, context: None }))
}

/// The identity in a line.
fn who(identity: Option<&Identity>) -> String {
    let Some(one) = identity else { return "anonymous".to_owned() };
    let mut line = format!("user {}", one.id());
    for (kind, value) in [("tenant", one.tenant()), ("org", one.org()), ("team", one.team())] {
        if let Some(value) = value {
            line += &format!(", {kind} {value}");
        }
    }
    let features = one.features().map(Iterator::collect).unwrap_or_default();
    for (kind, values) in [("roles", one.roles().collect::<Vec<_>>()), ("features", features)] {
        if !values.is_empty() {
            line += &format!(", {kind} {}", values.join(" "));
        }
    }
    line
}
