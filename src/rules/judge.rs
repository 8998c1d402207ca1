//! One judgement: may this connection do this, here, now? (RK-5, SR-2, F8, F10)
//!
//! A judge is made for one case, asked once and thrown away. It changes nothing and remembers nothing: the same rules,
//! case and answers give the same verdict (GD-10). What it needs is computed when a rule names it and not before, so that
//! a definition of plain booleans costs a comparison.
//!
//! Invariant: a verdict is [`Verdict::Allow`] only where every guard said `true` and then an explicit grant or the rule
//! said `true`. Whatever else comes out of a rule (an error, a null, no answer) is a refusal with a fault (RK-6).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use super::definition::{ActionRules, Endpoint, EventRules, Guard, PipeRules, QueueRules, Right, Rule, Rules};
use super::expression::Fault;
use super::value::{self, Scope, Value};
use crate::auth::decision::Rights;
use crate::auth::identity::Identity;
use crate::protocol::codes::Code;
use crate::protocol::names::Match;
use crate::shard::call::{Ruling, Unanswered};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Surface {
    /// To receive a pipe's events.
    Subscribe,
    /// To send to a pipe.
    Publish,
    /// To see who is in a pipe.
    Presence,
    /// To call a function of the application.
    Action,
    /// To hand a message to a queue.
    Enqueue,
    /// To push to other connections.
    Push,
}

impl Surface {
    /// As calls to the application name it (A11).
    pub fn name(self) -> &'static str {
        match self {
            Surface::Subscribe => "subscribe",
            Surface::Publish => "publish",
            Surface::Presence => "presence",
            Surface::Action => "action",
            Surface::Enqueue => "enqueue",
            Surface::Push => "push",
        }
    }

    /// The right of a grant that stands for it; none off pipes.
    pub fn right(self) -> Rights {
        match self {
            Surface::Subscribe => Rights::SUBSCRIBE,
            Surface::Publish => Rights::PUBLISH,
            Surface::Presence => Rights::PRESENCE,
            Surface::Action | Surface::Enqueue | Surface::Push => Rights::NONE,
        }
    }

    /// Whether an answer of the application without a stated time holds until refresh or reload (F10): what it is given
    /// depends on neither event nor arguments.
    pub fn is_lasting(self) -> bool {
        matches!(self, Surface::Subscribe | Surface::Presence)
    }
}

/// What is to be judged. JSON texts are as the client sent them.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What is asked for.
    pub surface: Surface,
    /// Who asks; None: anonymous.
    pub identity: Option<&'a Identity>,
    /// Address of the client.
    pub ip: IpAddr,
    /// Name of the pipe, the action or the queue; empty for a push.
    pub item: &'a str,
    /// Name of the event, and its data.
    pub event: Option<(&'a str, &'a str)>,
    /// Arguments of an action, data of a queue.
    pub args: Option<&'a str>,
    /// Kind and id of whom a push is for.
    pub to: Option<(&'a str, &'a str)>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Yes. `lasting`: until identity, grants, revocations or rules change, whatever the message.
    Allow {
        /// Whether it may be remembered.
        lasting: bool,
    },
    /// No.
    Refuse(Refusal),
    /// The application is to be asked first.
    Ask(Question),
}

/// A refusal, and what is wrong where it is no plain no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reply code.
    pub code: Cow<'static, str>,
    /// Sentence for the client.
    pub message: Cow<'static, str>,
    /// For the operator: the rule's place and what happened to it. The client is not told (F6).
    pub fault: Option<Box<str>>,
}

impl Refusal {
    /// With the code's own sentence.
    pub fn plain(code: Code) -> Refusal {
        Refusal { code: code.name().into(), message: code.text().into(), fault: None }
    }

    /// `FORBIDDEN` to the client, a fault to the operator.
    pub fn fault(what: impl Into<Box<str>>) -> Refusal {
        Refusal { fault: Some(what.into()), ..Refusal::plain(Code::Forbidden) }
    }
}

/// What the application is to be asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whom.
    pub endpoint: Arc<Endpoint>,
    /// Name of the guard that asks.
    pub guard: Option<Box<str>>,
    /// `ctx` so far, as a JSON object.
    pub context: String,
}

/// An answer that is there.
pub type Answer = Result<Ruling, Unanswered>;

/// Gives the answer of an endpoint to this case, if there is one.
pub type Answers<'a> = dyn Fn(&Endpoint) -> Option<Answer> + 'a;

/// One step of a judgement, for people (`pipeward explain`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at.
    pub what: String,
    /// What came of it.
    pub outcome: String,
}

/// Judges one case. See the module.
pub struct Judge<'a> {
    rules: &'a Rules,
    case: Case<'a>,
    matched: Option<Match<'a>>,
    answers: &'a Answers<'a>,
    user: OnceCell<Value>,
    params: OnceCell<Value>,
    event: OnceCell<Value>,
    args: OnceCell<Value>,
    to: OnceCell<Value>,
    ip: OnceCell<String>,
    context: Value,
    lasting: bool,
    steps: Option<Vec<Step>>,
}

/// Whether a pipe is this connection's by its scope (GD-5): tenant and organisation first, then the feature (F9).
///
/// # Errors
/// `SCOPE_MISMATCH`, `FEATURE_DISABLED`. Nothing overrides them.
pub fn in_scope(pipe: &PipeRules, matched: &Match<'_>, identity: Option<&Identity>) -> Result<(), Code> {
    let same = |capture: &Option<Box<str>>, own: Option<&str>| match capture {
        None => true,
        Some(capture) => own.is_some() && matched.capture(capture) == own,
    };
    let tenant = identity.and_then(|one| one.tenant());
    let org = identity.and_then(|one| one.org());
    if !same(&pipe.scope.tenant, tenant) || !same(&pipe.scope.org, org) {
        return Err(Code::ScopeMismatch);
    }
    match &pipe.scope.feature {
        None => Ok(()),
        Some(feature) => {
            let has = identity.and_then(Identity::features).is_some_and(|mut own| own.any(|one| *one == **feature));
            if has { Ok(()) } else { Err(Code::FeatureDisabled) }
        }
    }
}

impl<'a> Judge<'a> {
    /// `matched`: how the pipe's name fits its definition, where it has one.
    pub fn new(rules: &'a Rules, case: Case<'a>, matched: Option<Match<'a>>, answers: &'a Answers<'a>) -> Judge<'a> {
        Judge {
            rules,
            case,
            matched,
            answers,
            user: OnceCell::new(),
            params: OnceCell::new(),
            event: OnceCell::new(),
            args: OnceCell::new(),
            to: OnceCell::new(),
            ip: OnceCell::new(),
            context: Value::empty(),
            lasting: true,
            steps: None,
        }
    }

    /// Keeps what it does, step by step.
    #[must_use]
    pub fn explaining(mut self) -> Judge<'a> {
        self.steps = Some(Vec::new());
        self
    }

    /// What was done so far, where it is kept.
    pub fn steps(&mut self) -> Vec<Step> {
        self.steps.take().unwrap_or_default()
    }

    /// The context that guards have set.
    pub fn context(&self) -> &Value {
        &self.context
    }

    /// The identity as rules see it.
    pub fn user(&self) -> &Value {
        self.user.get_or_init(|| value::user(self.case.identity))
    }

    /// The address of the client as rules see it.
    pub fn ip(&self) -> &str {
        self.ip.get_or_init(|| self.case.ip.to_string())
    }

    /// The captures of the pipe's name as rules see them.
    pub fn params(&self) -> &Value {
        self.params
            .get_or_init(|| self.matched.as_ref().map_or_else(Value::empty, |one| value::params(one, one.template())))
    }

    /// A right on a pipe, by the guards and then by the explicit grant or the definition. Scope and revocations were looked
    /// at before. For a publish, `event` of the case decides as well (C16, A13, A14).
    pub fn pipe(&mut self, definition: Option<&'a PipeRules>, explicit: Rights) -> Verdict {
        let (module, own) = definition.map_or((None, &[][..]), |one| (one.module, &one.guards[..]));
        if let Some(verdict) = self.guards(module, own) {
            return verdict;
        }
        let granted = explicit.contains(self.case.surface.right());
        if let (Surface::Publish, Some(definition), Some((event, _))) = (self.case.surface, definition, self.case.event)
        {
            match definition.event(event).map(|number| &definition.events[number]) {
                Some(EventRules { publish: Some(right), .. }) => {
                    self.note(|| (format!("event {event} has its own publish rule"), "it decides".into()));
                    return if granted { self.right(right) } else { self.own_right(right) };
                }
                None if !definition.events.is_empty() && !granted => {
                    self.note(|| (format!("event {event}"), "is not defined in this pipe, whose events are".into()));
                    return Verdict::Refuse(Refusal::plain(Code::Forbidden));
                }
                _ => {}
            }
        }
        if granted {
            self.note(|| ("explicit grant".into(), "allows".into()));
            return Verdict::Allow { lasting: self.lasting };
        }
        self.note(|| ("explicit grant".into(), "there is none for this right".into()));
        let Some(definition) = definition else { return Verdict::Refuse(Refusal::plain(Code::Forbidden)) };
        self.own_right(match self.case.surface {
            Surface::Subscribe => &definition.subscribe,
            Surface::Publish => &definition.publish,
            _ => &definition.presence,
        })
    }

    /// Which of the pipe's events this connection may not be sent, one bit each (RK-4), and what failed while that was
    /// decided. To be asked after [`Judge::pipe`] has allowed to subscribe.
    pub fn denied_events(&mut self, definition: &'a PipeRules) -> (u64, Option<Box<str>>) {
        let mut denied = 0;
        let mut fault = None;
        for (number, event) in definition.events.iter().enumerate() {
            let Some(right) = &event.subscribe else { continue };
            match self.right(right) {
                Verdict::Allow { .. } => continue,
                Verdict::Refuse(Refusal { fault: Some(what), .. }) => drop(fault.get_or_insert(what)),
                Verdict::Refuse(_) | Verdict::Ask(_) => {}
            }
            denied |= 1 << number;
        }
        (denied, fault)
    }

    /// Whether an action may be called.
    pub fn action(&mut self, action: &'a ActionRules) -> Verdict {
        match self.guards(action.module, &action.guards) {
            Some(verdict) => verdict,
            None => self.right(&action.allow),
        }
    }

    /// Whether a message may be handed to a queue.
    pub fn enqueue(&mut self, queue: &'a QueueRules) -> Verdict {
        match self.guards(queue.module, &queue.guards) {
            Some(verdict) => verdict,
            None => self.right(&queue.publish),
        }
    }

    /// Whether a client may push to whom it names.
    pub fn push(&mut self) -> Verdict {
        let rules = self.rules;
        match self.guards(None, &rules.push.guards) {
            Some(verdict) => verdict,
            None => self.right(&rules.push.allow),
        }
    }

    /// Runs the guards in their order. Some: the chain has ended here.
    fn guards(&mut self, module: Option<usize>, own: &'a [Guard]) -> Option<Verdict> {
        let rules = self.rules;
        rules.guards(module, own).find_map(|guard| self.guard(guard))
    }

    fn guard(&mut self, guard: &'a Guard) -> Option<Verdict> {
        let name = || format!("guard {}", guard.name.as_deref().unwrap_or("without a name"));
        let refuse = |fault: Option<Box<str>>| {
            let plain =
                Refusal { code: guard.code.to_string().into(), message: guard.message.to_string().into(), fault };
            // A fault is told as any other refusal of ours (F6).
            Some(Verdict::Refuse(match plain.fault {
                Some(what) => Refusal::fault(what),
                None => plain,
            }))
        };
        if let Some(endpoint) = &guard.ask {
            return match self.ask(endpoint, guard.name.as_deref()) {
                Ok(Ruling { allow: true, context }) => {
                    self.note(|| (name(), format!("{} allows", endpoint.url)));
                    self.merge(endpoint, context).err().and_then(|fault| refuse(Some(fault.into())))
                }
                Ok(Ruling { allow: false, .. }) => {
                    self.note(|| (name(), format!("{} refuses", endpoint.url)));
                    refuse(None)
                }
                Err(verdict) => Some(verdict),
            };
        }
        if let Some(rule) = &guard.require {
            match self.test(rule) {
                Ok(true) => self.note(|| (name(), format!("`{}` is true", rule.expression.source()))),
                Ok(false) => {
                    self.note(|| (name(), format!("`{}` is false", rule.expression.source())));
                    return refuse(None);
                }
                Err(fault) => {
                    self.note(|| (name(), format!("`{}` fails: {fault}", rule.expression.source())));
                    return refuse(Some(format!("{}: {fault}", rule.place).into()));
                }
            }
        }
        for (key, rule) in &guard.set {
            match self.with_scope(rule, |rule, scope| rule.expression.value(scope)) {
                Ok(value) => {
                    self.note(|| (name(), format!("sets ctx.{key}")));
                    value::set(&mut self.context, key, value);
                }
                Err(fault) => {
                    self.note(|| (name(), format!("ctx.{key} cannot be computed: {fault}")));
                    return refuse(Some(format!("{}: {fault}", rule.place).into()));
                }
            }
        }
        None
    }

    /// A right of the definition: only where each `{user.…}` of the name is the connection's own (F2).
    fn own_right(&mut self, right: &Right) -> Verdict {
        let nobody = Identity::default();
        let own = self.matched.as_ref().is_none_or(|matched| matched.own(self.case.identity.unwrap_or(&nobody)));
        if own {
            return self.right(right);
        }
        self.note(|| ("the name of the pipe".into(), "speaks of another user than this one".into()));
        Verdict::Refuse(Refusal::plain(Code::Forbidden))
    }

    fn right(&mut self, right: &Right) -> Verdict {
        let forbidden = || Verdict::Refuse(Refusal::plain(Code::Forbidden));
        let surface = self.case.surface.name();
        match right {
            Right::Never => {
                self.note(|| (format!("{surface} rule"), "is false, or there is none".into()));
                forbidden()
            }
            Right::Always => {
                self.note(|| (format!("{surface} rule"), "is true".into()));
                Verdict::Allow { lasting: self.lasting }
            }
            Right::When(rule) => {
                let tested = self.test(rule);
                self.note(|| {
                    let what = format!("rule `{}` ({})", rule.expression.source(), rule.place);
                    (what, tested.as_ref().map_or_else(|fault| format!("fails: {fault}"), |yes| format!("is {yes}")))
                });
                match tested {
                    Ok(true) => Verdict::Allow { lasting: self.lasting },
                    Ok(false) => forbidden(),
                    Err(fault) => Verdict::Refuse(Refusal::fault(format!("{}: {fault}", rule.place))),
                }
            }
            Right::Ask(endpoint) => match self.ask(endpoint, None) {
                Ok(Ruling { allow, context }) => {
                    self.note(|| (endpoint.url.to_string(), if allow { "allows" } else { "refuses" }.into()));
                    match self.merge(endpoint, context.filter(|_| allow)) {
                        Ok(()) if allow => Verdict::Allow { lasting: self.lasting },
                        Ok(()) => forbidden(),
                        Err(fault) => Verdict::Refuse(Refusal::fault(fault)),
                    }
                }
                Err(verdict) => verdict,
            },
        }
    }

    /// Takes what the application has answered into the context (A11).
    fn merge(&mut self, endpoint: &Endpoint, context: Option<Box<str>>) -> Result<(), String> {
        let Some(context) = context else { return Ok(()) };
        let merged = value::merge_json(&mut self.context, &context);
        merged.map_err(|_| format!("{}: its `context` is no JSON object", endpoint.place))
    }

    /// The answer of the application, or the verdict without it.
    fn ask(&mut self, endpoint: &Arc<Endpoint>, guard: Option<&str>) -> Result<Ruling, Verdict> {
        self.lasting &= endpoint.cache_s.is_none() && self.case.surface.is_lasting();
        match (self.answers)(endpoint) {
            Some(Ok(ruling)) => Ok(ruling),
            Some(Err(unanswered)) => {
                let why = match unanswered {
                    Unanswered::Late => "it took too long".into(),
                    Unanswered::Failed(why) => why,
                };
                self.note(|| (endpoint.url.to_string(), format!("has no answer: {why}")));
                Err(Verdict::Refuse(Refusal::fault(format!("{}: {why}", endpoint.place))))
            }
            None => {
                self.note(|| (endpoint.url.to_string(), "is to be asked".into()));
                let context = value::to_json(&self.context);
                Err(Verdict::Ask(Question { endpoint: endpoint.clone(), guard: guard.map(Into::into), context }))
            }
        }
    }

    fn test(&mut self, rule: &Rule) -> Result<bool, Fault> {
        self.with_scope(rule, |rule, scope| rule.expression.test(scope))
    }

    /// Evaluates with what the expression names, and no more.
    fn with_scope<T>(&mut self, rule: &Rule, evaluate: impl FnOnce(&Rule, &Scope<'_>) -> T) -> T {
        use super::expression::Variables;
        let names = rule.expression.names();
        // What depends on the message is decided for each message.
        let Case { event, args, to, .. } = &self.case;
        self.lasting &= !(event.is_some() && names.contains(Variables::EVENT)
            || args.is_some() && names.contains(Variables::ARGS)
            || to.is_some() && names.contains(Variables::TO));
        let mut scope = Scope { pipe: self.pipe_name(), ip: self.ip(), ctx: &self.context, ..Scope::default() };
        if names.contains(Variables::USER) {
            scope.user = self.user();
        }
        if names.contains(Variables::PARAMS) {
            scope.params = self.params();
        }
        if let (true, Some((name, data))) = (names.contains(Variables::EVENT), self.case.event) {
            scope.event = self.event.get_or_init(|| value::event(name, value::parsed(data)));
        }
        if let (true, Some(args)) = (names.contains(Variables::ARGS), self.case.args) {
            scope.args = self.args.get_or_init(|| value::parsed(args));
        }
        if let (true, Some((kind, id))) = (names.contains(Variables::TO), self.case.to) {
            scope.to = self.to.get_or_init(|| value::to(kind, id));
        }
        evaluate(rule, &scope)
    }

    fn pipe_name(&self) -> &'a str {
        match self.case.surface {
            Surface::Subscribe | Surface::Publish | Surface::Presence => self.case.item,
            Surface::Action | Surface::Enqueue | Surface::Push => "",
        }
    }

    fn note(&mut self, step: impl FnOnce() -> (String, String)) {
        if let Some(steps) = &mut self.steps {
            let (what, outcome) = step();
            steps.push(Step { what, outcome });
        }
    }
}
