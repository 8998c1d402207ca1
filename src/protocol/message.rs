//! What a client sends: one JSON object in each text message, parsed in one pass.
//!
//! Invariants: `data` and `args` are the bytes of the text as they came, checked against the grammar and never
//! rewritten (INVARIANTS 26); names in a [`Request`] are valid; what parsing allocates is bounded by a multiple of the
//! text. Nothing is inspected inside `data` beyond its grammar (C4).
//!
//! A field that is `null` counts as absent, except `data` and `args`, which are any JSON value. Fields that a type
//! does not have are ignored, whatever they hold. The depth limit counts the levels of the whole message, its own
//! object being the first (C5).
//!
//! Source: PROTOCOL.md §2, rulings C1–C6, C14, C18.

use std::borrow::Cow;
use std::fmt;

use crate::bounds::{BATCH_PIPES_MAX, EVENT_LIST_MAX, IDENTITY_BYTES_MAX, JSON_DEPTH_MAX, MESSAGE_ID_BYTES_MAX};
use crate::protocol::json::{Kind, Scanner, Value};
use crate::protocol::names::{is_event_name, is_pipe_name};

/// A message's `id`: the JSON token as it came (`7`, `"a"`), to be echoed verbatim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// An id from its JSON token: an integer within ±(2^53−1), or a string of up to 64 bytes once unescaped (C1).
    /// `None` if it is anything else. For those who had to keep the token while they waited.
    pub fn new(token: &'a str) -> Option<Id<'a>> {
        let mut scanner = Scanner::new(token);
        let value = scanner.value().ok()?;
        let whole = value.text.len() == token.len() && !scanner.unpaired_surrogate;
        if whole { Id::of(value) } else { None }
    }

    /// The JSON token.
    pub fn token(self) -> &'a str {
        self.0
    }

    fn of(value: Value<'a>) -> Option<Id<'a>> {
        const INTEGER_MAX: u64 = (1 << 53) - 1;
        let valid = match value.kind {
            // The grammar was checked, so what fails to parse is a fraction, an exponent or too large.
            Kind::Number => value.text.parse::<i64>().is_ok_and(|id| id.unsigned_abs() <= INTEGER_MAX),
            Kind::String => value.text.len() <= MESSAGE_ID_BYTES_MAX + 2,
            Kind::EscapedString => value.string().is_some_and(|id| id.len() <= MESSAGE_ID_BYTES_MAX),
            _ => false,
        };
        valid.then_some(Id(value.text))
    }
}

/// A message that can be acted on.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope<'a> {
    /// Where absent there is no reply (but to `ping`, A10).
    pub id: Option<Id<'a>>,
    /// What is asked for.
    pub request: Request<'a>,
}

/// A message that cannot be acted on. It counts against the rate; it is answered `INVALID` where it has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed<'a> {
    /// The message's id. `None` too where the text is no JSON object (C3) or the id itself is wrong (C1).
    pub id: Option<Id<'a>>,
    /// What was wrong and what to send instead. Quotes nothing that the client sent.
    pub error: Cow<'static, str>,
}

/// The pipes of a `subscribe` or `unsubscribe`. Every name is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pipes<'a> {
    /// `pipe`: the reply speaks of this one.
    One(Cow<'a, str>),
    /// `pipes`: the reply carries `results`. 1–256 were sent; a name sent twice is listed once, at its first place.
    Many(Vec<Cow<'a, str>>),
}

impl<'a> Pipes<'a> {
    /// The names, in the order sent.
    pub fn as_slice(&self) -> &[Cow<'a, str>] {
        match self {
            Pipes::One(pipe) => std::slice::from_ref(pipe),
            Pipes::Many(pipes) => pipes,
        }
    }
}

/// Whom a client's `push` is for: exactly one of these (C18), 1–256 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Every connection of a user.
    User(Cow<'a, str>),
    /// One connection.
    Connection(Cow<'a, str>),
    /// Everyone with a role.
    Role(Cow<'a, str>),
    /// Everyone of a tenant.
    Tenant(Cow<'a, str>),
    /// Everyone of an organisation.
    Org(Cow<'a, str>),
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request<'a> {
    /// Receive the events of pipes.
    Subscribe {
        /// Which ones.
        pipes: Pipes<'a>,
        /// Follow who is there as well.
        presence: bool,
        /// Only these events; `None` (absent or empty) for all. 1–64 valid names.
        events: Option<Vec<Cow<'a, str>>>,
    },
    /// Stop receiving.
    Unsubscribe {
        /// Which ones.
        pipes: Pipes<'a>,
    },
    /// Send an event.
    Publish {
        /// Where to.
        pipe: Cow<'a, str>,
        /// Name of the event.
        event: Cow<'a, str>,
        /// One JSON value, the bytes as they came without white space around them; `null` if absent (C14).
        data: &'a str,
        /// Whether the sender's own connection gets it too.
        echo: bool,
    },
    /// Ask who is there.
    Presence {
        /// In which pipe.
        pipe: Cow<'a, str>,
    },
    /// Call a function of the application.
    Action {
        /// Its name; any string.
        name: Cow<'a, str>,
        /// One JSON value as it came; `null` if absent.
        args: &'a str,
    },
    /// Hand a message to the application's queue.
    Enqueue {
        /// Its name; any string.
        queue: Cow<'a, str>,
        /// One JSON value as it came; `null` if absent.
        data: &'a str,
    },
    /// Push an event to people instead of a pipe.
    Push {
        /// To whom.
        to: Target<'a>,
        /// Name of the event.
        event: Cow<'a, str>,
        /// One JSON value as it came; `null` if absent.
        data: &'a str,
    },
    /// Run authorize again, or adopt the given token.
    Refresh {
        /// The newer token.
        token: Option<Cow<'a, str>>,
    },
    /// Answer with `pong`.
    Ping,
}

/// Parses one text message.
///
/// # Errors
/// [`Malformed`], with the id to answer where there is one.
pub fn parse(text: &str) -> Result<Envelope<'_>, Malformed<'_>> {
    let fields = Fields::read(text).map_err(|error| Malformed { id: None, error })?;
    let id = fields.id().map_err(|error| Malformed { id: None, error })?;
    match fields.request() {
        Ok(request) => Ok(Envelope { id, request }),
        Err(error) => Err(Malformed { id, error }),
    }
}

/// What was wrong and what to send instead.
type Wrong = Cow<'static, str>;

const UNKNOWN_TYPE: &str = "unknown `type`; there are subscribe, unsubscribe, publish, presence, \
    action, enqueue, push, refresh and ping";

macro_rules! keys {
    ($($key:ident = $name:literal),*) => {
        /// The keys of an envelope that mean something.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Key { $($key),* }

        impl Key {
            const COUNT: usize = [$($name),*].len();

            #[inline]
            fn of(name: &str) -> Option<Key> {
                match name { $($name => Some(Key::$key),)* _ => None }
            }

            fn name(self) -> &'static str {
                match self { $(Key::$key => $name),* }
            }
        }
    };
}

// The frequent ones first: they are compared in this order.
keys! {
    Type = "type", Pipe = "pipe", Event = "event", Data = "data", Id = "id", Echo = "echo",
    Pipes = "pipes", Events = "events",
    Presence = "presence", Name = "name", Args = "args", Queue = "queue", To = "to", Token = "token"
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.name())
    }
}

/// The values of an envelope, none of them interpreted yet.
struct Fields<'a> {
    known: [Option<Value<'a>>; Key::COUNT],
    id_repeated: bool,
    /// The text is a JSON object, and yet nothing may be done with it.
    defect: Option<Wrong>,
}

impl<'a> Fields<'a> {
    /// Reads the whole text. An error means that it is no JSON object.
    fn read(text: &'a str) -> Result<Fields<'a>, Wrong> {
        const NOT_JSON: &str = "this is not JSON; send one JSON object in each text message";
        let mut fields = Fields { known: [None; Key::COUNT], id_repeated: false, defect: None };
        let mut scanner = Scanner::new(text);
        if !scanner.open(b'{') {
            return Err(NOT_JSON.into());
        }
        let mut unknown: Vec<Cow<'a, str>> = Vec::new();
        let mut repeated = false;
        let mut first = true;
        while let Some((key, value)) = scanner.member(first).map_err(|_| NOT_JSON)? {
            first = false;
            let name = key.string().unwrap_or_default();
            match Key::of(&name) {
                Some(key) => {
                    let place = &mut fields.known[key as usize];
                    repeated |= place.is_some();
                    fields.id_repeated |= place.is_some() && key == Key::Id;
                    *place = Some(value);
                }
                None => unknown.push(name),
            }
        }
        if !scanner.at_end() {
            return Err(NOT_JSON.into());
        }
        unknown.sort_unstable();
        repeated |= unknown.windows(2).any(|pair| pair[0] == pair[1]);
        if repeated {
            fields.defect = Some("a field is given twice; give each once".into());
        } else if scanner.too_deep {
            fields.defect = Some(format!("nested deeper than {JSON_DEPTH_MAX} levels; flatten the data").into());
        } else if scanner.unpaired_surrogate {
            fields.defect = Some("a `\\u` escape is half of a surrogate pair; send both halves or none".into());
        }
        Ok(fields)
    }

    /// The id, if there is one. An error means that the message cannot even be answered.
    fn id(&self) -> Result<Option<Id<'a>>, Wrong> {
        let valid = match self.get(Key::Id) {
            _ if self.id_repeated => None,
            None => return Ok(None),
            Some(value) => Id::of(value),
        };
        valid.map(Some).ok_or_else(|| {
            format!("`id` must be an integer within ±(2^53-1) or a string of up to {MESSAGE_ID_BYTES_MAX} bytes").into()
        })
    }

    fn request(self) -> Result<Request<'a>, Wrong> {
        if let Some(defect) = self.defect {
            return Err(defect);
        }
        match &*self.string(Key::Type)? {
            "publish" => Ok(Request::Publish {
                pipe: self.pipe()?,
                event: self.event()?,
                data: self.raw(Key::Data),
                echo: self.boolean(Key::Echo, true)?,
            }),
            "subscribe" => Ok(Request::Subscribe {
                pipes: self.pipes()?,
                presence: self.boolean(Key::Presence, false)?,
                events: self.events()?,
            }),
            "unsubscribe" => Ok(Request::Unsubscribe { pipes: self.pipes()? }),
            "ping" => Ok(Request::Ping),
            "presence" => Ok(Request::Presence { pipe: self.pipe()? }),
            "action" => Ok(Request::Action { name: self.string(Key::Name)?, args: self.raw(Key::Args) }),
            "enqueue" => Ok(Request::Enqueue { queue: self.string(Key::Queue)?, data: self.raw(Key::Data) }),
            "push" => Ok(Request::Push { to: self.target()?, event: self.event()?, data: self.raw(Key::Data) }),
            "refresh" => {
                Ok(Request::Refresh { token: self.get(Key::Token).map(|_| self.string(Key::Token)).transpose()? })
            }
            _ => Err(UNKNOWN_TYPE.into()),
        }
    }

    #[inline]
    fn get(&self, key: Key) -> Option<Value<'a>> {
        self.known[key as usize].filter(|value| value.kind != Kind::Null)
    }

    #[inline]
    fn raw(&self, key: Key) -> &'a str {
        self.known[key as usize].map_or("null", |value| value.text)
    }

    #[inline]
    fn string(&self, key: Key) -> Result<Cow<'a, str>, Wrong> {
        self.get(key).and_then(Value::string).ok_or_else(|| format!("{key} must be given, as a string").into())
    }

    fn boolean(&self, key: Key, default: bool) -> Result<bool, Wrong> {
        match self.get(key).map(|value| value.kind) {
            None => Ok(default),
            Some(Kind::True) => Ok(true),
            Some(Kind::False) => Ok(false),
            Some(_) => Err(format!("{key} must be true or false").into()),
        }
    }

    fn pipe(&self) -> Result<Cow<'a, str>, Wrong> {
        valid_pipe(self.string(Key::Pipe)?)
    }

    fn event(&self) -> Result<Cow<'a, str>, Wrong> {
        valid_event(self.string(Key::Event)?)
    }

    /// C6
    fn pipes(&self) -> Result<Pipes<'a>, Wrong> {
        match (self.get(Key::Pipe), self.get(Key::Pipes)) {
            (Some(_), None) => self.pipe().map(Pipes::One),
            (None, Some(_)) => {
                let mut pipes = self.list(Key::Pipes, BATCH_PIPES_MAX, valid_pipe)?;
                if pipes.is_empty() {
                    return Err("`pipes` is empty; name at least one".into());
                }
                keep_first_of_each(&mut pipes);
                Ok(Pipes::Many(pipes))
            }
            (Some(_), Some(_)) => Err("both `pipe` and `pipes` are given; give one of them".into()),
            (None, None) => Err("`pipe` (a string) or `pipes` (an array of strings) must be given".into()),
        }
    }

    fn events(&self) -> Result<Option<Vec<Cow<'a, str>>>, Wrong> {
        if self.get(Key::Events).is_none() {
            return Ok(None);
        }
        let events = self.list(Key::Events, EVENT_LIST_MAX, valid_event)?;
        Ok(Some(events).filter(|events| !events.is_empty()))
    }

    fn list(
        &self,
        key: Key,
        count_max: usize,
        valid: fn(Cow<'a, str>) -> Result<Cow<'a, str>, Wrong>,
    ) -> Result<Vec<Cow<'a, str>>, Wrong> {
        let wrong_type = || format!("{key} must be an array of strings");
        let array = self.get(key).filter(|value| value.kind == Kind::Array).ok_or_else(wrong_type)?;
        let mut names = Vec::new();
        for element in array.elements() {
            if names.len() == count_max {
                return Err(format!("{key} names more than {count_max}; send several messages").into());
            }
            names.push(valid(element.string().ok_or_else(wrong_type)?)?);
        }
        Ok(names)
    }

    /// C18. A key that is unknown counts too: ignoring what looks like a narrowing would reach more people than meant.
    fn target(&self) -> Result<Target<'a>, Wrong> {
        let mut members = self.get(Key::To).into_iter().flat_map(Value::members);
        let target = match (members.next(), members.next()) {
            (Some((key, value)), None) => {
                let known = |name: Cow<'a, str>| match &*key.string().unwrap_or_default() {
                    "user" => Some(Target::User(name)),
                    "connection" => Some(Target::Connection(name)),
                    "role" => Some(Target::Role(name)),
                    "tenant" => Some(Target::Tenant(name)),
                    "org" => Some(Target::Org(name)),
                    _ => None,
                };
                value.string().filter(|name| (1..=IDENTITY_BYTES_MAX).contains(&name.len())).and_then(known)
            }
            _ => None,
        };
        target.ok_or_else(|| {
            format!(
                "`to` must be an object with one of user, connection, role, tenant and org, \
                 a string of 1 to {IDENTITY_BYTES_MAX} bytes"
            )
            .into()
        })
    }
}

/// C14
fn valid_pipe(name: Cow<'_, str>) -> Result<Cow<'_, str>, Wrong> {
    if is_pipe_name(&name) {
        return Ok(name);
    }
    Err("a pipe's name is 1 to 200 bytes of printable ASCII without space, `*`, `{` and `}`".into())
}

/// C14
fn valid_event(name: Cow<'_, str>) -> Result<Cow<'_, str>, Wrong> {
    if is_event_name(&name) {
        return Ok(name);
    }
    Err("an event's name is 1 to 100 bytes of printable ASCII without space".into())
}

/// Removes names that stand further in front already.
fn keep_first_of_each(names: &mut Vec<Cow<'_, str>>) {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_unstable_by(|&a, &b| names[a].cmp(&names[b]).then(a.cmp(&b)));
    let mut keep = vec![true; names.len()];
    for pair in order.windows(2) {
        keep[pair[1]] = names[pair[0]] != names[pair[1]];
    }
    let mut place = 0;
    names.retain(|_| {
        place += 1;
        keep[place - 1]
    });
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
