//! What is allowed and worth a second look: what is open to everybody, what never decides, what always decides the same
//! (SR-11, G9).
//!
//! Invariant: only warnings are made here. A guard for the whole file does not count as one that stands before an item:
//! it says who may do anything, not who may do this. A definition with `{user.id}` or the like in its name is not
//! reported: it is open to those whose own value stands there, and nobody else can ask for that name (F2).

use std::collections::HashMap;

use super::call::Calls;
use super::finding::{Findings, Place};
use super::load::quoted;
use super::shadow::{Budget, Shape};
use super::types::Config;
use crate::protocol::peer::Origins;
use crate::rules::Rules;
use crate::rules::definition::{Guard, PipeRules, Right};

const EVERYBODY: &str = "every connection";
const EVERYBODY_AND_NOBODY: &str = "every connection, anonymous ones included";
const AUTHENTICATED: &str = "every authenticated connection";

/// Reports what the configuration opens to everybody, and what it says in vain.
pub(super) fn lint(config: &Config, places: &HashMap<String, Place>, calls: &Calls, findings: &mut Findings) {
    let mut lint = Lint { rules: &config.rules, places, findings };
    if config.edge.origins == Origins::Any {
        let message = "every web page may connect from its visitors' browsers; write the origins of your own pages";
        lint.warn("edge.origins", message);
    }
    if config.auth.anonymous && config.auth.webhook.is_some() {
        let message = "has no effect: [auth.webhook] is asked about every connection without a token; take one of the \
                       two out";
        lint.warn("auth.anonymous", message);
    }
    lint.unsigned(calls);
    lint.guards(&config.rules.guards);
    lint.modules();
    let everybody = if config.auth.anonymous { EVERYBODY_AND_NOBODY } else { EVERYBODY };
    for pipe in &config.rules.pipes {
        lint.pipe(pipe, everybody);
    }
    lint.shadowed();
    lint.items();
}

struct Lint<'a> {
    rules: &'a Rules,
    places: &'a HashMap<String, Place>,
    findings: &'a mut Findings,
}

impl Lint<'_> {
    fn warn(&mut self, key: &str, message: impl Into<String>) {
        if let Some(place) = self.places.get(key) {
            self.findings.warning(place, key, message);
        }
    }

    /// A12
    fn unsigned(&mut self, calls: &Calls) {
        let Some((place, key, count)) = &calls.unsigned else { return };
        let others = match count - 1 {
            0 => String::new(),
            1 => ", nor at one other place".to_owned(),
            others => format!(", nor at {others} other places"),
        };
        let message = format!(
            "calls to the application are not signed here{others}, so that it cannot tell who calls; write a secret in \
             [auth.webhook], or here"
        );
        self.findings.warning(place, key, message);
    }

    fn modules(&mut self) {
        for (number, module) in self.rules.modules.iter().enumerate() {
            self.guards(&module.guards);
            let names = [
                self.rules.pipes.iter().any(|one| one.module == Some(number)),
                self.rules.actions.iter().any(|one| one.module == Some(number)),
                self.rules.queues.iter().any(|one| one.module == Some(number)),
            ];
            if !names.contains(&true) {
                let message = "no pipe, action or queue names this module, so that its guards stand before nothing; name it \
                               where it is meant, or take it out";
                self.warn(&module.place.key, message);
            }
        }
    }

    fn pipe(&mut self, pipe: &PipeRules, everybody: &str) {
        let key = &*pipe.place.key;
        self.guards(&pipe.guards);
        let scope = &pipe.scope;
        let whom = match (&scope.tenant, &scope.org, &scope.feature) {
            (None, None, None) => everybody.to_owned(),
            (Some(_), None, _) => "every connection of the tenant".to_owned(),
            (_, Some(_), _) => "every connection of the organisation".to_owned(),
            (None, None, Some(feature)) => format!("every connection that has the feature `{feature}`"),
        };
        let is_own = pipe.name.text().contains("{user.");
        let is_meant = is_own || pipe.public || self.stands_before(pipe.module, &pipe.guards);
        for (right, name) in [(&pipe.subscribe, "subscribe"), (&pipe.publish, "publish"), (&pipe.presence, "presence")]
        {
            self.right(right, &format!("{key}.{name}"), &whom, is_meant);
        }
        for event in &pipe.events {
            if let Some(right) = &event.subscribe {
                let subscribed = format!("{whom} that is subscribed to the pipe");
                self.right(right, &format!("{}.subscribe", event.place.key), &subscribed, is_meant);
            }
            if let Some(right) = &event.publish {
                self.right(right, &format!("{}.publish", event.place.key), &whom, is_meant);
            }
            if let Some(filter) = &event.filter {
                let message = match filter.filter.constant() {
                    None => continue,
                    Some(true) => "is always true, so that it keeps nothing from anybody; take it out",
                    Some(false) => "is always false, so that nobody gets this event",
                };
                self.findings.warning(&Place::from(&filter.place), &filter.place.key, message);
            }
        }
    }

    fn items(&mut self) {
        for action in &self.rules.actions {
            self.guards(&action.guards);
            let is_meant = action.public || self.stands_before(action.module, &action.guards);
            self.right(&action.allow, &format!("{}.allow", action.place.key), AUTHENTICATED, is_meant);
        }
        for queue in &self.rules.queues {
            self.guards(&queue.guards);
            let is_meant = queue.public || self.stands_before(queue.module, &queue.guards);
            self.right(&queue.publish, &format!("{}.publish", queue.place.key), AUTHENTICATED, is_meant);
        }
        let push = &self.rules.push;
        self.guards(&push.guards);
        self.right(&push.allow, "push.allow", AUTHENTICATED, push.public || self.stands_before(None, &push.guards));
    }

    /// Whether the module says that it is meant, or a guard of the module or the item decides before the rule.
    fn stands_before(&self, module: Option<usize>, own: &[Guard]) -> bool {
        let module = module.and_then(|module| self.rules.modules.get(module));
        let decides = |guard: &Guard| guard.require.is_some() || guard.ask.is_some();
        module.is_some_and(|module| module.public || module.guards.iter().any(decides)) || own.iter().any(decides)
    }

    fn right(&mut self, right: &Right, key: &str, whom: &str, is_meant: bool) {
        let constant = match right {
            Right::Never | Right::Ask(_) => return,
            Right::Always => None,
            Right::When(rule) => match rule.expression.constant() {
                None => return,
                Some(false) => return self.warn(key, "is always false, so that it allows nobody; write `false`"),
                Some(true) => Some("is always true; write `true`"),
            },
        };
        match (is_meant, constant) {
            (false, _) => {
                let always = if constant.is_some() { "always true and so " } else { "" };
                let message =
                    format!("{always}open to {whom}; if that is meant, write `public = true` in this definition");
                self.warn(key, message);
            }
            (true, Some(message)) => self.warn(key, message),
            (true, None) => {}
        }
    }

    fn guards(&mut self, guards: &[Guard]) {
        for rule in guards.iter().filter_map(|guard| guard.require.as_ref()) {
            let message = match rule.expression.constant() {
                None => continue,
                Some(true) => "is always true, so that this guard stops nobody; take it out",
                Some(false) => "is always false, so that this guard stops everybody",
            };
            self.findings.warning(&Place::from(&rule.place), &rule.place.key, message);
        }
    }

    /// F20
    fn shadowed(&mut self) {
        let rules = self.rules;
        let shapes: Vec<Shape> = rules.pipes.iter().map(|pipe| Shape::of(pipe.name.text())).collect();
        let mut budget = Budget::default();
        for (at, pipe) in rules.pipes.iter().enumerate() {
            let covering = shapes[..at].iter().position(|earlier| earlier.covers(&shapes[at], &mut budget));
            let Some(earlier) = covering.map(|number| &rules.pipes[number]) else { continue };
            let message = format!(
                "never decides: every name that it matches is decided by pipe.{} in line {}; take it out, or put it first",
                quoted(earlier.name.text()),
                earlier.place.line
            );
            self.warn(&pipe.place.key, message);
        }
    }
}
