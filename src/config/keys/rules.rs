//! `[[guard]]`, `[module]`, `[pipe]`, `[action]`, `[queue]`, `[push]`: who may do what.

use super::super::call::TIMEOUT_MS_MAX;
use super::super::kind::{Key, Kind, MESSAGE_BYTES_MAX};
use super::super::rule::Stand;
use super::key;

/// Most `queue.*.max_pending_bytes`: what a disk may hold.
const PENDING_BYTES_MAX: u64 = 1 << 40;

const MODULE: &str = "The module whose guards stand before its own.";
const GUARD: &str = "Its own guards, after those of the whole file and of its module.";
const PUBLIC: &str =
    "Says that what is open to everybody is meant. Grants nothing; silences the warning of `pipeward check`.";
const SCHEMA: &str =
    "JSON Schema (2020-12) that the data must fit; `$ref` within the document only, `format` is not looked at.";
const SCOPE_FIELDS: &str = "JSON pointers into the data that must hold the sender's own tenant or organisation.";
const URL: &str = "Where the application takes it, by POST. It cannot be left out.";
const SECRET: &str = "Signs these calls. Default: the secret of `[auth.webhook]`.";

pub(super) static RULES: &[Key] = &[
    key(
        "guard",
        Kind::Guards(|d| &mut d.rules.guards),
        "",
        "Any number of `[[guard]]`: they stand before everything that a client does with pipes, actions, queues and pushes, in order, explicit grants included. The first that refuses ends it.",
    ),
    key(
        "module.*.guard",
        Kind::Guards(|d| &mut d.module.guards),
        "",
        "Guards of the pipes, actions and queues that name this module, after those of the whole file.",
    ),
    key("module.*.public", Kind::Flag(|d| &mut d.module.public), "false", "`public` of everything in this module."),
    key(
        "pipe.*.subscribe",
        Kind::Right(Stand::Pipe, |d| &mut d.pipe.subscribe),
        "false",
        "Who may receive the events of pipes with this name, beside those who are granted it.",
    ),
    key(
        "pipe.*.publish",
        Kind::Right(Stand::Publish, |d| &mut d.pipe.publish),
        "false",
        "Who may send events to them.",
    ),
    key("pipe.*.presence", Kind::Right(Stand::Pipe, |d| &mut d.pipe.presence), "false", "Who may see who is there."),
    key("pipe.*.public", Kind::Flag(|d| &mut d.pipe.public), "false", PUBLIC),
    key("pipe.*.module", Kind::Module(|d| &mut d.pipe.module), "", MODULE),
    key("pipe.*.guard", Kind::Guards(|d| &mut d.pipe.guards), "", GUARD),
    key(
        "pipe.*.scope",
        Kind::Scope(|d| &mut d.pipe.scope),
        "",
        "What the pipe is bound to. Nothing overrides a mismatch, no grant either.",
    ),
    key(
        "pipe.*.rate",
        Kind::Rate(|d| &mut d.pipe.rate),
        "",
        "Rate of `publish` of one connection to one pipe, refused at once.",
    ),
    key(
        "pipe.*.event.*.subscribe",
        Kind::EventRight(Stand::EventSubscribe, |d| &mut d.event.subscribe),
        "",
        "Who of those subscribed is sent this event. Default: all of them. A pipe that defines events takes no others from clients, except with an explicit grant.",
    ),
    key(
        "pipe.*.event.*.publish",
        Kind::EventRight(Stand::EventPublish, |d| &mut d.event.publish),
        "",
        "Who may send it, in the place of the pipe's `publish`.",
    ),
    key(
        "pipe.*.event.*.filter",
        Kind::Filter(|d| &mut d.event.filter),
        "",
        "Decides for each subscriber whether it is delivered; may look at `event.data` and `user`.",
    ),
    key("pipe.*.event.*.schema", Kind::Schema(|d| &mut d.event.payload.schema), "", SCHEMA),
    key(
        "pipe.*.event.*.max_bytes",
        Kind::Bound(1, MESSAGE_BYTES_MAX, |d| &mut d.event.payload.max_bytes),
        "",
        "Bytes of `data` as they came.",
    ),
    key("pipe.*.event.*.scope_fields", Kind::References(|d| &mut d.event.payload.references), "", SCOPE_FIELDS),
    key(
        "action.*.allow",
        Kind::Right(Stand::Item, |d| &mut d.action.allow),
        "false",
        "Who may call this function of the application. Anonymous connections never.",
    ),
    key("action.*.public", Kind::Flag(|d| &mut d.action.public), "false", PUBLIC),
    key("action.*.module", Kind::Module(|d| &mut d.action.module), "", MODULE),
    key("action.*.guard", Kind::Guards(|d| &mut d.action.guards), "", GUARD),
    key("action.*.rate", Kind::Rate(|d| &mut d.action.rate), "", "Calls of one connection, refused at once."),
    key("action.*.schema", Kind::Schema(|d| &mut d.action.payload.schema), "", SCHEMA),
    key(
        "action.*.max_bytes",
        Kind::Bound(1, MESSAGE_BYTES_MAX, |d| &mut d.action.payload.max_bytes),
        "",
        "Bytes of `args` as they came.",
    ),
    key("action.*.scope_fields", Kind::References(|d| &mut d.action.payload.references), "", SCOPE_FIELDS),
    key("action.*.url", Kind::Url(|d| &mut d.action.call.url), "", URL),
    key(
        "action.*.timeout_ms",
        Kind::Number(1, TIMEOUT_MS_MAX, |d| &mut d.action.call.timeout_ms),
        "5000",
        "Milliseconds until it must have answered; later is `TIMEOUT`.",
    ),
    key("action.*.secret", Kind::Signature(|d| &mut d.action.call.secret), "", SECRET),
    key(
        "queue.*.publish",
        Kind::Right(Stand::Item, |d| &mut d.queue.publish),
        "false",
        "Who may hand messages to this queue; a rule sees them as `args`. Anonymous connections never.",
    ),
    key("queue.*.public", Kind::Flag(|d| &mut d.queue.public), "false", PUBLIC),
    key("queue.*.module", Kind::Module(|d| &mut d.queue.module), "", MODULE),
    key("queue.*.guard", Kind::Guards(|d| &mut d.queue.guards), "", GUARD),
    key("queue.*.schema", Kind::Schema(|d| &mut d.queue.payload.schema), "", SCHEMA),
    key(
        "queue.*.max_bytes",
        Kind::Bound(1, MESSAGE_BYTES_MAX, |d| &mut d.queue.payload.max_bytes),
        "",
        "Bytes of `data` as they came.",
    ),
    key("queue.*.scope_fields", Kind::References(|d| &mut d.queue.payload.references), "", SCOPE_FIELDS),
    key("queue.*.url", Kind::Url(|d| &mut d.queue.call.url), "", URL),
    key(
        "queue.*.timeout_ms",
        Kind::Number(1, TIMEOUT_MS_MAX, |d| &mut d.queue.call.timeout_ms),
        "5000",
        "Milliseconds until one attempt must have been answered.",
    ),
    key("queue.*.secret", Kind::Signature(|d| &mut d.queue.call.secret), "", SECRET),
    key(
        "queue.*.max_pending",
        Kind::Number(1, u32::MAX, |d| &mut d.queue.max_pending),
        "100000",
        "Messages that may wait; more are refused `UNAVAILABLE`.",
    ),
    key(
        "queue.*.max_pending_bytes",
        Kind::Large(PENDING_BYTES_MAX, |d| &mut d.queue.max_pending_bytes),
        "268435456",
        "Bytes of data that may wait; more are refused `UNAVAILABLE`.",
    ),
    key(
        "queue.*.max_age_s",
        Kind::Number(1, u32::MAX, |d| &mut d.queue.max_age_s),
        "604800",
        "Seconds after which a message that could not be delivered moves to the dead letters.",
    ),
    key(
        "push.allow",
        Kind::Right(Stand::Push, |d| &mut d.rules.push.allow),
        "false",
        "Who may push to whom: `to` holds the one key that the client gave. Nobody outside the sender's tenant is reached.",
    ),
    key("push.public", Kind::Flag(|d| &mut d.rules.push.public), "false", PUBLIC),
    key("push.guard", Kind::Guards(|d| &mut d.rules.push.guards), "", "Its own guards, after those of the whole file."),
];
