//! Definitions while they are being read: `[module.…]`, `[pipe."…"]` with its events, `[action.…]`, `[queue.…]`.
//!
//! Invariant: a definition enters the rules once its last key is read, under a name that a client can send, with a
//! module that exists (modules are read before the rest) and with everything it cannot do without.
//!
//! Source: PROTOCOL.md §6, rulings A2, A12, F16, INVARIANTS 3.

use std::sync::Arc;

use super::call::CALL_TIMEOUT_MS;
use super::draft::Draft;
use super::finding::{Findings, Place};
use super::lookup::distance;
use super::payload::ScopeDraft;
use super::rule::check_captures;
use super::types::Rate;
use crate::protocol::names::{Template, is_event_name};
use crate::rules::definition::{
    ActionRules, Endpoint, EventRules, FilterRule, Guard, Module, Payload, PipeRules, QueueRules, Right,
};

/// Definitions of one kind; each unknown name of a pipe is compared with them in order. More: error.
const DEFINITIONS_MAX: usize = 4096;
/// Events of one pipe: their bits and one for all others make a word (INVARIANTS 3).
const EVENTS_MAX: usize = 63;

/// One `[module.…]`.
#[derive(Default)]
pub(super) struct ModuleDraft {
    pub guards: Vec<Guard>,
    pub public: bool,
}

/// One `[pipe."…"]`.
#[derive(Default)]
pub(super) struct PipeDraft {
    pub module: Option<usize>,
    pub guards: Vec<Guard>,
    pub scope: ScopeDraft,
    pub subscribe: Right,
    pub publish: Right,
    pub presence: Right,
    pub public: bool,
    pub rate: Option<Rate>,
    events: Vec<EventRules>,
}

/// One `[pipe."…".event.…]`.
#[derive(Default)]
pub(super) struct EventDraft {
    pub subscribe: Option<Right>,
    pub publish: Option<Right>,
    pub payload: Payload,
    pub filter: Option<Box<FilterRule>>,
}

/// One `[action.…]`.
#[derive(Default)]
pub(super) struct ActionDraft {
    pub module: Option<usize>,
    pub guards: Vec<Guard>,
    pub allow: Right,
    pub public: bool,
    pub payload: Payload,
    pub rate: Option<Rate>,
    pub call: CallDraft,
}

/// One `[queue.…]`.
pub(super) struct QueueDraft {
    pub module: Option<usize>,
    pub guards: Vec<Guard>,
    pub publish: Right,
    pub public: bool,
    pub payload: Payload,
    pub call: CallDraft,
    pub max_pending: u32,
    pub max_pending_bytes: u64,
    pub max_age_s: u32,
}

impl Default for QueueDraft {
    fn default() -> QueueDraft {
        QueueDraft {
            module: None,
            guards: Vec::new(),
            publish: Right::default(),
            public: false,
            payload: Payload::default(),
            call: CallDraft::default(),
            max_pending: 100_000,
            max_pending_bytes: 256 << 20,
            max_age_s: 7 * 24 * 3600,
        }
    }
}

/// Where an action or a queue is performed.
pub(super) struct CallDraft {
    pub url: Option<Box<str>>,
    pub timeout_ms: u32,
    pub secret: Option<String>,
}

impl Default for CallDraft {
    fn default() -> CallDraft {
        CallDraft { url: None, timeout_ms: CALL_TIMEOUT_MS, secret: None }
    }
}

/// A definition that ends.
pub(super) struct Ending<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its full name as a key.
    pub key: &'a str,
    pub place: &'a Place,
}

impl Draft {
    /// Ends the definition of the table `pattern` whose keys were read last.
    pub fn end(&mut self, pattern: &str, ending: &Ending<'_>, findings: &mut Findings) {
        match pattern {
            "module" => self.end_module(ending, findings),
            "pipe" => self.end_pipe(ending, findings),
            "pipe.*.event" => self.end_event(ending, findings),
            "action" => self.end_action(ending, findings),
            "queue" => self.end_queue(ending, findings),
            _ => {}
        }
    }

    /// The number of a module.
    pub fn module(&self, name: &str, place: &Place, key: &str, findings: &mut Findings) -> Option<usize> {
        let modules = &self.rules.modules;
        let found = modules.iter().position(|module| *module.name == *name);
        if found.is_none() {
            let short: String = name.chars().take(64).collect();
            let nearest = modules.iter().min_by_key(|module| distance(&short, &module.name));
            let instead = nearest.map_or_else(
                || "there is none at all; write `[module.NAME]`".to_owned(),
                |module| format!("the nearest is `{}`", module.name),
            );
            findings.error(place, key, format!("there is no module `{}`; {instead}", short.escape_debug()));
        }
        found
    }

    fn end_module(&mut self, ending: &Ending<'_>, findings: &mut Findings) {
        let ModuleDraft { guards, public } = std::mem::take(&mut self.module);
        // One whose name is wrong is kept, so that what names it is not wrong as well.
        ending.named("a module", findings);
        if ending.fits(self.rules.modules.len(), findings) {
            let place = ending.place.of(ending.key);
            self.rules.modules.push(Module { name: ending.name.into(), guards, public, place });
        }
    }

    fn end_pipe(&mut self, ending: &Ending<'_>, findings: &mut Findings) {
        let pipe = std::mem::take(&mut self.pipe);
        let name = match Template::parse(ending.name) {
            Ok(name) => name,
            Err(why) => return findings.error(ending.place, ending.key, why),
        };
        let PipeDraft { module, guards, scope, subscribe, publish, presence, public, rate, events } = pipe;
        let scope = scope.finish(&name, findings);
        if ending.fits(self.rules.pipes.len(), findings) {
            let place = ending.place.of(ending.key);
            let rules =
                PipeRules { name, module, guards, scope, subscribe, publish, presence, public, rate, events, place };
            check_captures(&rules, findings);
            self.rules.pipes.push(rules);
        }
    }

    fn end_event(&mut self, ending: &Ending<'_>, findings: &mut Findings) {
        let EventDraft { subscribe, publish, payload, filter } = std::mem::take(&mut self.event);
        let named = ending.named("an event", findings);
        if self.pipe.events.len() == EVENTS_MAX {
            let message =
                format!("is one too many: a pipe defines at most {EVENTS_MAX} events; divide them over two pipes");
            return findings.error(ending.place, ending.key, message);
        }
        if named {
            let place = ending.place.of(ending.key);
            let name = ending.name.into();
            self.pipe.events.push(EventRules { name, subscribe, publish, payload, filter, place });
        }
    }

    fn end_action(&mut self, ending: &Ending<'_>, findings: &mut Findings) {
        let ActionDraft { module, guards, allow, public, payload, rate, call } = std::mem::take(&mut self.action);
        let named = ending.named("an action", findings);
        let endpoint = self.call(call, ending, findings);
        if let (true, Some(endpoint), true) = (named, endpoint, ending.fits(self.rules.actions.len(), findings)) {
            let (name, place) = (ending.name.into(), ending.place.of(ending.key));
            let rules = ActionRules { name, module, guards, allow, public, payload, rate, endpoint, place };
            self.rules.actions.push(rules);
        }
    }

    fn end_queue(&mut self, ending: &Ending<'_>, findings: &mut Findings) {
        let queue = std::mem::take(&mut self.queue);
        let named = ending.named("a queue", findings);
        let endpoint = self.call(queue.call, ending, findings);
        if let (true, Some(endpoint), true) = (named, endpoint, ending.fits(self.rules.queues.len(), findings)) {
            self.rules.queues.push(QueueRules {
                name: ending.name.into(),
                module: queue.module,
                guards: queue.guards,
                publish: queue.publish,
                public: queue.public,
                payload: queue.payload,
                endpoint,
                max_pending: queue.max_pending,
                max_pending_bytes: queue.max_pending_bytes,
                max_age_s: queue.max_age_s,
                place: ending.place.of(ending.key),
            });
        }
    }

    fn call(&mut self, call: CallDraft, ending: &Ending<'_>, findings: &mut Findings) -> Option<Arc<Endpoint>> {
        let Some(url) = call.url else {
            // A url that is there and wrong has its own finding.
            if !self.places.contains_key(&format!("{}.url", ending.key)) {
                let message = "has no url; write `url = \"http://…\"`, where the application takes it";
                findings.error(ending.place, ending.key, message);
            }
            return None;
        };
        let secret = call.secret.as_deref();
        Some(Arc::new(self.calls.endpoint(ending.place, ending.key, &url, call.timeout_ms, secret)))
    }
}

impl Ending<'_> {
    /// Whether it has a name that a client can send.
    fn named(&self, noun: &str, findings: &mut Findings) -> bool {
        let named = is_event_name(self.name);
        if !named {
            let message = format!("the name of {noun} is 1 to 100 bytes of printable ASCII without space");
            findings.error(self.place, self.key, message);
        }
        named
    }

    /// Whether there is room beside `others` of its kind.
    fn fits(&self, others: usize, findings: &mut Findings) -> bool {
        let fits = others < DEFINITIONS_MAX;
        if !fits {
            let message = format!("is one too many: there are more than {DEFINITIONS_MAX} definitions of this kind");
            findings.error(self.place, self.key, message);
        }
        fits
    }
}
