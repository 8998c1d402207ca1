//! Reading the JSON of authorize strictly: identities and grants.
//!
//! Shared by tokens and the webhook's answers. Invariant: what is read obeys [`decision`]; a right
//! that is anything but `true` is not granted, and anything else of the wrong type, `null` too, refuses the whole
//! (A1). Reading has two steps, so that a token's signature can stand between them: [`object`] finds where the fields
//! are and copies nothing; [`IdentityFields::identity`] and [`grants`] look at them and copy. A name that is read may
//! stand only once in its object, since two readers could choose differently (RFC 8725 §2.6).
//!
//! [`decision`]: super::decision

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::decision::{Grant, Narrowed, Rights};
use super::identity::{Identity, Profile};
use crate::bounds::{GRANTS_MAX, IDENTITY_BYTES_MAX, JSON_DEPTH_MAX, LABEL_BYTES_MAX};
use crate::config::Rate;
use crate::protocol::names::{is_pattern, is_pipe_name};

/// Entries of one list (`roles`, `features`, `aud`). More: the answer is malformed.
pub const LIST_MAX: usize = 1_000;

/// What is wrong with an answer. Holds nothing of the answer itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not one JSON object, or a name stands in it twice.
    Object,
    /// This field is missing.
    Missing(&'static str),
    /// This field has the wrong type, length or characters.
    Field(&'static str),
    /// A name in `pipes` is neither a pipe's name nor a pattern.
    GrantName,
    /// A name stands in `pipes` twice.
    GrantRepeated,
    /// More than [`GRANTS_MAX`] names in `pipes`.
    GrantsTooMany,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Object => f.write_str("not a JSON object with each name once"),
            Malformed::Missing(field) => write!(f, "`{field}` is missing"),
            Malformed::Field(field) => write!(f, "`{field}` has a wrong type, length or character"),
            Malformed::GrantName => f.write_str("a name in `pipes` is not a valid pipe name or pattern"),
            Malformed::GrantRepeated => f.write_str("a name in `pipes` is repeated"),
            Malformed::GrantsTooMany => write!(f, "`pipes` has more than {GRANTS_MAX} names"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Where a field's value is kept once it was found; its text is valid JSON.
pub type Slot<'a> = Option<&'a RawValue>;

/// The fields of one kind of object.
pub trait Fields<'a>: Default {
    /// The place of the field called `name`, or `None` if it is not looked at.
    fn slot(&mut self, name: &str) -> Option<&mut Slot<'a>>;
}

/// The fields of one kind of object: a slot for each name.
macro_rules! fields {
    ($(#[$doc:meta])* $kind:ident { $($slot:ident: $name:literal),+ }) => {
        $(#[$doc])*
        #[derive(Default)]
        struct $kind<'a> {
            $($slot: Slot<'a>,)+
        }

        impl<'a> Fields<'a> for $kind<'a> {
            fn slot(&mut self, name: &str) -> Option<&mut Slot<'a>> {
                match name {
                    $($name => Some(&mut self.$slot),)+
                    _ => None,
                }
            }
        }
    };
}
pub(super) use fields;

/// Finds the fields of the one object in `text`; others are skipped. Copies nothing.
///
/// # Errors
/// [`Malformed::Object`] if `text` is not one JSON object, or a field that is looked at is repeated.
pub fn object<'a, F: Fields<'a>>(text: &'a str) -> Result<F, Malformed> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json.deserialize_map(FieldsVisitor(PhantomData)).map_err(|_| Malformed::Object)?;
    json.end().map_err(|_| Malformed::Object)?;
    Ok(fields)
}

/// The fields of an identity other than its id.
#[derive(Debug, Default)]
pub struct IdentityFields<'a> {
    name: Slot<'a>,
    role: Slot<'a>,
    roles: Slot<'a>,
    team: Slot<'a>,
    tenant: Slot<'a>,
    org: Slot<'a>,
    features: Slot<'a>,
    info: Slot<'a>,
}

impl<'a> Fields<'a> for IdentityFields<'a> {
    fn slot(&mut self, name: &str) -> Option<&mut Slot<'a>> {
        Some(match name {
            "name" => &mut self.name,
            "role" => &mut self.role,
            "roles" => &mut self.roles,
            "team" => &mut self.team,
            "tenant" => &mut self.tenant,
            "org" => &mut self.org,
            "features" => &mut self.features,
            "info" => &mut self.info,
            _ => return None,
        })
    }
}

impl IdentityFields<'_> {
    /// The identity of the user `user`, an id already checked by [`id`].
    ///
    /// # Errors
    /// [`Malformed::Field`] for the first field that is not as [`Identity`] wants it.
    pub fn identity(&self, user: &str) -> Result<Identity, Malformed> {
        let role = optional(self.role, "role", id)?;
        let roles = optional(self.roles, "roles", |raw, field| list(raw, field, is_id))?.unwrap_or_default();
        let name = optional(self.name, "name", |raw, field| string(raw, field, is_label))?;
        let team = optional(self.team, "team", id)?;
        let tenant = optional(self.tenant, "tenant", id)?;
        let org = optional(self.org, "org", id)?;
        let features = optional(self.features, "features", |raw, field| list(raw, field, is_label))?;
        let info = optional(self.info, "info", verbatim)?;
        Ok(Identity::new(&Profile {
            id: user,
            name: name.as_deref(),
            role: role.as_deref(),
            roles: texts(&roles),
            team: team.as_deref(),
            tenant: tenant.as_deref(),
            org: org.as_deref(),
            features: features.as_deref().map(texts),
            info: info.as_deref(),
        }))
    }
}

fn texts(list: &[Box<str>]) -> Vec<&str> {
    list.iter().map(|text| &**text).collect()
}

/// The explicit grants of a `pipes` object, in its order.
///
/// # Errors
/// [`Malformed`] if it is no object of objects, a name is invalid or repeated, or there are more than [`GRANTS_MAX`].
pub fn grants(raw: &RawValue) -> Result<Vec<Grant>, Malformed> {
    let Entries(entries) = serde_json::from_str(raw.get()).map_err(|_| Malformed::Field("pipes"))?;
    if entries.len() > GRANTS_MAX {
        return Err(Malformed::GrantsTooMany);
    }
    let mut grants = Vec::with_capacity(entries.len());
    for (name, raw) in entries {
        if !is_grant_name(&name) {
            return Err(Malformed::GrantName);
        }
        let rights: RightFields = object(raw.get()).map_err(|_| Malformed::Field("pipes"))?;
        grants.push(Grant { pipe: name.into(), rights: rights.rights() });
    }
    // Sorted rather than hashed: the names are another's, and there is no seed here.
    let mut names: Vec<&str> = grants.iter().map(|grant| &*grant.pipe).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Malformed::GrantRepeated);
    }
    Ok(grants)
}

/// The narrower limits of a `limits` object: rates under the names of `[limits]`, and `subscriptions`. A rate is
/// `{ "per_s": number above 0, "burst": number of at least 1 }`; without `burst` it is one second's worth.
///
/// # Errors
/// [`Malformed::Field`] if anything in it has another type or range.
pub fn limits(raw: &RawValue, field: &'static str) -> Result<Narrowed, Malformed> {
    let wrong = |_| Malformed::Field(field);
    let fields: LimitFields = object(raw.get()).map_err(wrong)?;
    let read = |slot: Slot<'_>| optional(slot, field, rate);
    let mut narrowed = Narrowed::default();
    let rates = &mut narrowed.rates;
    rates.message = read(fields.message)?;
    rates.publish = read(fields.publish)?;
    rates.subscribe = read(fields.subscribe)?;
    rates.presence = read(fields.presence)?;
    rates.refresh = read(fields.refresh)?;
    rates.action = read(fields.action)?;
    rates.enqueue = read(fields.enqueue)?;
    rates.push = read(fields.push)?;
    rates.bytes = read(fields.bytes)?;
    narrowed.subscriptions = optional(fields.subscriptions, field, |raw, field| match raw.get().parse::<u64>() {
        Ok(count) if count >= 1 => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
        _ => Err(Malformed::Field(field)),
    })?;
    Ok(narrowed)
}

fn rate(raw: &RawValue, field: &'static str) -> Result<Rate, Malformed> {
    let number = |raw: &RawValue, field| {
        // Every JSON number is one that Rust reads, and no other JSON value is; the largest of them as infinity.
        raw.get().parse::<f64>().map(|number| number.min(f64::MAX)).map_err(|_| Malformed::Field(field))
    };
    let fields: RateFields = object(raw.get()).map_err(|_| Malformed::Field(field))?;
    let per_s = number(fields.per_s.ok_or(Malformed::Field(field))?, field)?;
    let burst = optional(fields.burst, field, number)?.unwrap_or(per_s.max(1.0));
    if per_s > 0.0 && burst >= 1.0 { Ok(Rate { per_s, burst }) } else { Err(Malformed::Field(field)) }
}

/// A user, tenant, organisation, team, role, session or token id ([`is_id`]).
///
/// # Errors
/// [`Malformed::Field`] with `field` if it is no string or not such an id.
pub fn id(raw: &RawValue, field: &'static str) -> Result<Box<str>, Malformed> {
    string(raw, field, is_id)
}

/// `read` of the field where there is one.
///
/// # Errors
/// Those of `read`.
pub fn optional<T>(
    slot: Slot<'_>,
    field: &'static str,
    read: impl FnOnce(&RawValue, &'static str) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    slot.map(|raw| read(raw, field)).transpose()
}

/// A string, without a copy where it holds no escapes.
///
/// # Errors
/// [`Malformed::Field`] with `field` if it is no string.
pub fn text<'a>(raw: &'a RawValue, field: &'static str) -> Result<Cow<'a, str>, Malformed> {
    serde_json::from_str::<Text>(raw.get()).map(|text| text.0).map_err(|_| Malformed::Field(field))
}

/// An array of at most [`LIST_MAX`] strings of which `valid` holds.
///
/// # Errors
/// [`Malformed::Field`] with `field` if it is anything else.
pub fn list(raw: &RawValue, field: &'static str, valid: fn(&str) -> bool) -> Result<Vec<Box<str>>, Malformed> {
    let texts: Vec<Text> = serde_json::from_str(raw.get()).map_err(|_| Malformed::Field(field))?;
    if texts.len() > LIST_MAX || !texts.iter().all(|text| valid(&text.0)) {
        return Err(Malformed::Field(field));
    }
    Ok(texts.into_iter().map(|text| text.0.into()).collect())
}

/// Whether `text` may be an id: 1–256 bytes without control characters, white space, `*`, `{` and `}` (B9). A user
/// called `**` would otherwise turn a pipe built from it into everybody's (INVARIANTS 5).
pub fn is_id(text: &str) -> bool {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '{' | '}');
    (1..=IDENTITY_BYTES_MAX).contains(&text.len()) && !text.contains(forbidden)
}

/// Whether `name` may stand in `pipes`.
pub fn is_grant_name(name: &str) -> bool {
    is_pipe_name(name) || is_pattern(name)
}

/// Whether `text` may be a display name or a feature: whatever is not too long. They are shown and compared; nothing is
/// built from them, so that B9 is not about them.
fn is_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX
}

fn string(raw: &RawValue, field: &'static str, valid: fn(&str) -> bool) -> Result<Box<str>, Malformed> {
    let text = text(raw, field)?;
    if valid(&text) { Ok(text.into()) } else { Err(Malformed::Field(field)) }
}

/// Any JSON, kept as it came, if every reader after us can take it: the scan that found it checks the grammar but
/// neither the depth nor whether escaped surrogates come in pairs.
///
/// # Errors
/// [`Malformed::Field`] with `field` if it is nested too deeply or holds half a pair.
pub fn verbatim(raw: &RawValue, field: &'static str) -> Result<Box<str>, Malformed> {
    let text = raw.get();
    let (mut depth, mut in_string, mut at) = (0_usize, false, 0);
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => match escape_bytes(&text.as_bytes()[at..]) {
                Some(bytes) => at += bytes - 1,
                None => return Err(Malformed::Field(field)),
            },
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return Err(Malformed::Field(field));
        }
        at += 1;
    }
    Ok(text.into())
}

/// Bytes of the escape that `text` begins with, a pair of surrogates being one; `None` for half a pair.
fn escape_bytes(text: &[u8]) -> Option<usize> {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(text.get(at + 2..at + 6)?).ok()?;
        (text.get(at..at + 2)? == b"\\u").then(|| u16::from_str_radix(digits, 16).ok())?
    };
    match text.get(1)? {
        b'u' => match unit(0)? {
            0xD800..=0xDBFF => matches!(unit(6)?, 0xDC00..=0xDFFF).then_some(12),
            0xDC00..=0xDFFF => None,
            _ => Some(6),
        },
        _ => Some(2),
    }
}

fields! {
    /// The rights of one grant.
    RightFields { subscribe: "subscribe", publish: "publish", presence: "presence" }
}

impl RightFields<'_> {
    fn rights(&self) -> Rights {
        let when = |slot: Slot<'_>, right| Rights::when(slot.is_some_and(|raw| raw.get() == "true"), right);
        when(self.subscribe, Rights::SUBSCRIBE)
            .union(when(self.publish, Rights::PUBLISH))
            .union(when(self.presence, Rights::PRESENCE))
    }
}

fields! {
    /// The rates of `limits`, and its one count.
    LimitFields {
        message: "message", publish: "publish", subscribe: "subscribe", presence: "presence", refresh: "refresh",
        action: "action", enqueue: "enqueue", push: "push", bytes: "bytes", subscriptions: "subscriptions"
    }
}

fields! {
    /// The numbers of one rate.
    RateFields { per_s: "per_s", burst: "burst" }
}

/// A JSON string, borrowed where it can be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldsVisitor<F>(PhantomData<F>);

impl<'de, F: Fields<'de>> Visitor<'de> for FieldsVisitor<F> {
    type Value = F;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<F, A::Error> {
        let mut fields = F::default();
        while let Some(Text(name)) = map.next_key()? {
            match fields.slot(&name) {
                Some(slot) if slot.is_some() => return Err(A::Error::custom("repeated")),
                Some(slot) => *slot = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

/// Names and values of an object in their order; one more than allowed is enough to know.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            if entries.len() <= GRANTS_MAX {
                entries.push((name, value));
            }
        }
        Ok(Entries(entries))
    }
}
