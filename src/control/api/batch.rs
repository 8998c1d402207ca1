//! `POST /v1/batch`: several calls in one request, in order; one that fails does not stop the rest.
//!
//! Each command needs the right of its own call. More than [`COMMANDS_MAX`] commands refuse the whole request, before
//! anything is done. Source: ruling E6.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::de::{Error as _, SeqAccess};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::calls::{Call, Context, Visitor, each_call, perform, query, to_the_end};
use super::operations::{Operations, now_ms};
use super::refusal::Refusal;
use super::shape::{Entries, knows, sentence};
use super::types::{COMMANDS_MAX, NoQuery};
use super::{Api, body, ip_of, respond};
use crate::protocol::codes::Code;

/// Where it is called.
pub(super) const PATH: &str = "/v1/batch";

/// The field of a command that names its call.
const METHOD: &str = "method";

/// How one command is carried out.
type Run<O> = for<'c> fn(&'c Context<O>, Entries<'c>) -> Running<'c>;
type Running<'c> = Pin<Box<dyn Future<Output = Result<Box<RawValue>, Refusal>> + Send + 'c>>;

/// What came of the commands.
#[derive(Serialize)]
struct Results {
    results: Vec<Box<RawValue>>,
}

/// One command that failed.
#[derive(Serialize)]
struct Failed<'r> {
    ok: bool,
    code: &'static str,
    error: &'r str,
}

/// Answers `POST /v1/batch`.
pub(super) async fn answer<O: Operations>(State(api): State<Arc<Api<O>>>, request: Request) -> Response {
    respond(take(api, request).await)
}

async fn take<O: Operations>(api: Arc<Api<O>>, request: Request) -> Result<Response, Refusal> {
    let caller = api.admit(request.headers(), ip_of(request.extensions()), None)?;
    let NoQuery {} = query(request.uri())?;
    let text = body::read(request).await?;
    to_the_end(async move {
        body::check(&text)?;
        let commands = commands(&text)?;
        let mut context = Context::new(api, caller);
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            // Time limits count from the command's own turn: those before it may have taken long.
            context.now_ms = now_ms();
            let outcome = run(&context, command).await;
            results.push(outcome.or_else(|refusal| failed(&refusal))?);
        }
        Ok(Json(Results { results }).into_response())
    })
    .await
}

fn commands(text: &str) -> Result<Vec<&RawValue>, Refusal> {
    let mut body = Entries::read(text, |name| name == "commands")
        .map_err(|why| Refusal::invalid(format!("The body must be a JSON object: {}", sentence(&why))))?;
    let commands = body.take("commands").ok_or_else(|| Refusal::invalid("`commands` is missing"))?;
    if !body.0.is_empty() {
        return Err(Refusal::invalid("`commands` is given twice"));
    }
    let Commands(commands) = serde_json::from_str(commands.get())
        .map_err(|why| Refusal::invalid(format!("`commands`: {}", sentence(&why))))?;
    Ok(commands)
}

/// At most [`COMMANDS_MAX`] values.
struct Commands<'t>(Vec<&'t RawValue>);

impl<'de> Deserialize<'de> for Commands<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> serde::de::Visitor<'de> for Elements {
            type Value = Commands<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Commands<'de>, A::Error> {
                let mut commands = Vec::new();
                while let Some(command) = seq.next_element()? {
                    if commands.len() == COMMANDS_MAX {
                        return Err(A::Error::custom(format!("at most {COMMANDS_MAX} in one batch; nothing was done")));
                    }
                    commands.push(command);
                }
                Ok(Commands(commands))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

async fn run<O: Operations>(context: &Context<O>, command: &RawValue) -> Result<Box<RawValue>, Refusal> {
    let mut entries = Entries::read(command.get(), |name| name == METHOD || is_field(name))
        .map_err(|why| Refusal::invalid(format!("A command must be a JSON object: {}", sentence(&why))))?;
    let method = entries.take(METHOD).ok_or_else(|| Refusal::invalid("`method` is missing"))?;
    if entries.take(METHOD).is_some() {
        return Err(Refusal::invalid("`method` is given twice"));
    }
    let method: String = serde_json::from_str(method.get())
        .map_err(|_| Refusal::invalid("`method` must be the name of a call, as in \"publish\""))?;
    let mut search = Search::<O> { method: &method, found: None };
    each_call(&mut search);
    let Some(run) = search.found else {
        return Err(Refusal::invalid("`method` names no call that a batch may hold"));
    };
    run(context, entries).await
}

/// Whether any call has a field of this name.
fn is_field(name: &str) -> bool {
    struct Knows<'n> {
        name: &'n str,
        does: bool,
    }
    impl Visitor for Knows<'_> {
        fn visit<C: Call>(&mut self) {
            self.does |= knows::<C>(self.name);
        }
    }
    let mut one = Knows { name, does: false };
    each_call(&mut one);
    one.does
}

/// Looks for the call of a name.
struct Search<'m, O> {
    method: &'m str,
    found: Option<Run<O>>,
}

impl<O: Operations> Visitor for Search<'_, O> {
    fn visit<C: Call>(&mut self) {
        if C::RIGHT.name() == self.method {
            self.found = Some(command::<C, O>);
        }
    }
}

fn command<'c, C: Call, O: Operations>(context: &'c Context<O>, entries: Entries<'c>) -> Running<'c> {
    let call = if context.caller.allow.has(C::RIGHT) {
        entries.typed::<C>().map_err(Refusal::invalid)
    } else {
        Err(context.api.forbid(&context.caller, C::RIGHT))
    };
    Box::pin(async move { raw(&perform(call?, context).await?) })
}

fn failed(refusal: &Refusal) -> Result<Box<RawValue>, Refusal> {
    raw(&Failed { ok: false, code: refusal.code.name(), error: &refusal.error })
}

fn raw(answer: &impl Serialize) -> Result<Box<RawValue>, Refusal> {
    to_raw_value(answer).map_err(|_| Refusal::new(Code::Internal, Code::Internal.text()))
}
