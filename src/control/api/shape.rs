//! JSON text → a typed request: which of the known fields go together, none of them twice. Others are ignored, as everywhere
//! in the protocol, so that a client may be newer than its server; they are not even kept.
//!
//! Each request states its [`Shape`]s once; they are what is checked here and what the OpenAPI document declares. A field
//! that may be left out may be `null` as well, which is the same. Values of `data` are kept as they came.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Known fields of one object, repeated ones counted. More: refused without reading on.
const FIELDS_MAX: usize = 32;

/// Fields that go together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Must be there; these decide which shape it is.
    pub required: &'static [&'static str],
    /// May be left out.
    pub optional: &'static [&'static str],
}

/// A JSON object that comes in one of several shapes.
pub(super) trait Shaped: DeserializeOwned {
    /// All shapes; every field of the type stands in at least one of them.
    const SHAPES: &'static [Shape];
}

/// The known members of a JSON object, in order, values as they came.
pub(super) struct Entries<'t>(pub Vec<(Cow<'t, str>, &'t RawValue)>);

/// Reads `text` as a `T`.
///
/// # Errors
/// A sentence that names the field.
pub(super) fn parse<T: Shaped>(text: &str) -> Result<T, String> {
    let entries = Entries::read(text, |name| knows::<T>(name));
    entries.map_err(|why| format!("The body must be a JSON object: {}", sentence(&why)))?.typed()
}

/// Whether a `T` has a field of this name.
pub(super) fn knows<T: Shaped>(name: &str) -> bool {
    T::SHAPES.iter().any(|shape| shape.has(name))
}

impl<'t> Entries<'t> {
    /// The members of the object `text` whose names are `known`.
    ///
    /// # Errors
    /// It is no object, or has too many of them.
    pub fn read(text: &'t str, known: impl Fn(&str) -> bool) -> serde_json::Result<Entries<'t>> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let entries = deserializer.deserialize_map(Members(known))?;
        deserializer.end()?;
        Ok(entries)
    }

    /// Takes out the field of this name.
    pub fn take(&mut self, name: &str) -> Option<&'t RawValue> {
        let place = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.remove(place).1)
    }

    /// The object as a `T`, which need not have all of the fields.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn typed<T: Shaped>(mut self) -> Result<T, String> {
        self.0.retain(|(name, _)| knows::<T>(name));
        for (at, (name, _)) in self.0.iter().enumerate() {
            if self.0[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("`{name}` is given twice"));
            }
        }
        self.0.retain(|(name, value)| value.get() != "null" || always_required(T::SHAPES, name));
        let fits = |shape: &&Shape| {
            shape.required.iter().all(|field| self.0.iter().any(|(name, _)| name == field))
                && self.0.iter().all(|(name, _)| shape.has(name))
        };
        if T::SHAPES.iter().filter(fits).count() != 1 {
            return Err(self.misfit(T::SHAPES));
        }
        let fields = Fields { rest: self.0.into_iter(), current: None };
        T::deserialize(MapAccessDeserializer::new(fields)).map_err(|why| sentence(&why))
    }

    fn misfit(&self, shapes: &[Shape]) -> String {
        let missing = |field: &&&str| !self.0.iter().any(|(name, _)| name == **field);
        if let [shape] = shapes
            && let Some(field) = shape.required.iter().find(missing)
        {
            return format!("`{field}` is missing");
        }
        let each: Vec<String> = shapes.iter().map(Shape::in_words).collect();
        format!("Give exactly one of these: {}", each.join(" · "))
    }
}

impl Shape {
    fn has(&self, name: &str) -> bool {
        self.required.iter().chain(self.optional).any(|field| *field == name)
    }

    fn in_words(&self) -> String {
        let required = self.required.join(" and ");
        if self.optional.is_empty() { required } else { format!("{required} (with {})", self.optional.join(", ")) }
    }
}

/// A field without which no shape is complete: its `null` is a value.
fn always_required(shapes: &[Shape], name: &str) -> bool {
    shapes.iter().all(|shape| shape.required.contains(&name))
}

/// What serde has to say, without the place in a text that the caller does not see.
pub(super) fn sentence(why: &serde_json::Error) -> String {
    let text = why.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}

/// Keeps the members of these names.
struct Members<K>(K);

impl<'de, K: Fn(&str) -> bool> Visitor<'de> for Members<K> {
    type Value = Entries<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(Key(name)) = map.next_key()? {
            if !(self.0)(&name) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() == FIELDS_MAX {
                return Err(A::Error::custom(format!("more than {FIELDS_MAX} fields")));
            }
            entries.push((name, map.next_value()?));
        }
        Ok(Entries(entries))
    }
}

/// Borrowed where it holds no escape.
#[derive(Deserialize)]
struct Key<'t>(#[serde(borrow)] Cow<'t, str>);

/// Hands the members on; an error names the field that it is about.
struct Fields<'t> {
    rest: std::vec::IntoIter<(Cow<'t, str>, &'t RawValue)>,
    current: Option<(Cow<'t, str>, &'t RawValue)>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        self.current = self.rest.next();
        let Some((name, _)) = &self.current else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        let Some((name, value)) = self.current.take() else { return Err(Self::Error::custom("a value without a key")) };
        seed.deserialize(value).map_err(|why| Self::Error::custom(format!("`{name}`: {}", sentence(&why))))
    }
}
