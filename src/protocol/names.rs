//! Names of pipes and events, the patterns of grants, and the templates of `[pipe."…"]` definitions.
//!
//! A pipe name is 1–200 bytes of printable ASCII without space, `*`, `{` and `}`. In a pattern `*` stands for one or
//! more characters other than `:`, and `**` for one or more of any; `***` reads as `**` and then `*`.
//!
//! Invariant: a template gives each capture exactly one possible value for a name. A name that could be split in two
//! ways would let one tenant's pipe pass for another's (F1), so [`Template::parse`] refuses whatever would allow it.
//! Matching takes at most pattern × name steps, whatever the two are: names come from attackers.
//!
//! Source: PROTOCOL.md §1 Names, rulings C14, F1, F2; INVARIANTS 5.

use crate::auth::identity::Identity;
use crate::bounds::{EVENT_NAME_BYTES_MAX, PIPE_NAME_BYTES_MAX};

/// Whether `name` may name a pipe.
pub fn is_pipe_name(name: &str) -> bool {
    (1..=PIPE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| is_name_byte(byte) && byte != b'*')
}

/// Whether `name` may name an event: 1–100 bytes of printable ASCII without space (C14).
pub fn is_event_name(name: &str) -> bool {
    (1..=EVENT_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether `pattern` is a grant's pattern: a pipe name that holds at least one `*`.
pub fn is_pattern(pattern: &str) -> bool {
    (1..=PIPE_NAME_BYTES_MAX).contains(&pattern.len()) && pattern.bytes().all(is_name_byte) && pattern.contains('*')
}

/// Whether `name` is one of those that `pattern` stands for. A pattern without `*` stands for itself alone; a name
/// over 200 bytes matches nothing.
pub fn pattern_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let literal = pattern.iter().position(|&byte| byte == b'*').unwrap_or(pattern.len());
    let (start, rest) = pattern.split_at(literal);
    if name.len() > PIPE_NAME_BYTES_MAX || !name.starts_with(start) {
        return false;
    }
    if rest.is_empty() {
        return name.len() == literal;
    }
    Ends::matching(rest, &name[literal..])
}

/// What bytes a name, pattern or template may hold outside captures.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'{' && byte != b'}'
}

/// The set of lengths of `name` that the pattern read so far can stand for.
struct Ends([bool; PIPE_NAME_BYTES_MAX + 1]);

impl Ends {
    /// Whether `pattern` stands for the whole of `name`, which is at most 200 bytes.
    fn matching(mut pattern: &[u8], name: &[u8]) -> bool {
        let mut ends = Ends([false; PIPE_NAME_BYTES_MAX + 1]);
        ends.0[0] = true;
        while let Some(&byte) = pattern.first() {
            let taken = if pattern.starts_with(b"**") {
                ends.extend(name, |_| true);
                2
            } else if byte == b'*' {
                ends.extend(name, |byte| byte != b':');
                1
            } else {
                let literal = pattern.iter().position(|&byte| byte == b'*');
                let literal = &pattern[..literal.unwrap_or(pattern.len())];
                ends.advance(name, literal);
                literal.len()
            };
            pattern = &pattern[taken..];
        }
        ends.0[name.len()]
    }

    /// One or more bytes that are `allowed` follow.
    fn extend(&mut self, name: &[u8], allowed: impl Fn(u8) -> bool) {
        let mut reached = false;
        for (end, &byte) in name.iter().enumerate() {
            let now = (self.0[end] || reached) && allowed(byte);
            self.0[end] = reached;
            reached = now;
        }
        self.0[name.len()] = reached;
    }

    /// Exactly the bytes of `literal` follow.
    fn advance(&mut self, name: &[u8], literal: &[u8]) {
        for end in (0..=name.len()).rev() {
            self.0[end] =
                end.checked_sub(literal.len()).is_some_and(|start| self.0[start] && &name[start..end] == literal);
        }
    }
}

/// The compiled name of a `[pipe."…"]` definition: literals, `{capture}`, `{user.id}` and its kin, `*` and `**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    /// The text with `*` in the place of each capture.
    shape: Box<str>,
    slots: Box<[Slot]>,
}

/// A capture and where its value stands in a matching name: a whole segment (what is between two `:`) but for the
/// literals at its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    value: Wanted,
    segment: Segment,
    prefix_len: usize,
    suffix_len: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Capture(Box<str>),
    Own(Own),
}

/// Number of a segment, counted from the end of the name that is on the capture's side of any `**`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    FromStart(usize),
    FromEnd(usize),
}

/// What a `{user.…}` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Id,
    Team,
    Tenant,
    Org,
}

impl Own {
    fn of(self, identity: &Identity) -> Option<&str> {
        match self {
            Own::Id => Some(identity.id()),
            Own::Team => identity.team(),
            Own::Tenant => identity.tenant(),
            Own::Org => identity.org(),
        }
    }
}

impl Template {
    /// Compiles a definition's name.
    ///
    /// # Errors
    /// A sentence for the operator: a byte that no name holds, a brace without its partner, a capture that is no
    /// identifier or is used twice, an unknown `{user.…}`, two captures (or a capture and a `*`) in one segment, a
    /// capture between two `**`, or a name too long to match anything.
    pub fn parse(text: &str) -> Result<Template, String> {
        let segments: Vec<&str> = text.split(':').collect();
        let many: Vec<usize> = (0..segments.len()).filter(|&i| segments[i].contains("**")).collect();
        let mut shape = String::with_capacity(text.len());
        let mut slots: Vec<Slot> = Vec::new();
        for (i, segment) in segments.iter().enumerate() {
            if i > 0 {
                shape.push(':');
            }
            let Some((prefix, value, suffix)) = split_capture(segment)? else {
                shape.push_str(segment);
                continue;
            };
            if slots
                .iter()
                .any(|slot| matches!((&slot.value, &value), (Wanted::Capture(a), Wanted::Capture(b)) if a == b))
            {
                return Err(format!("the capture in `{segment}` is used before; give each capture a name of its own"));
            }
            let segment = match (many.first(), many.last()) {
                (Some(&first), Some(&last)) if first < i && i < last => {
                    return Err(format!(
                        "`{segment}` stands between two `**` and could match in several places; use `**` once"
                    ));
                }
                (Some(&first), _) if first < i => Segment::FromEnd(segments.len() - 1 - i),
                _ => Segment::FromStart(i),
            };
            shape.extend([prefix, "*", suffix]);
            slots.push(Slot { value, segment, prefix_len: prefix.len(), suffix_len: suffix.len() });
        }
        if !(is_pipe_name(&shape) || is_pattern(&shape)) {
            return Err(format!(
                "a name is 1 to {PIPE_NAME_BYTES_MAX} bytes of printable ASCII without space; \
                 `{{` and `}}` only around captures"
            ));
        }
        Ok(Template { text: text.into(), shape: shape.into(), slots: slots.into() })
    }

    /// The name as it stands in the configuration.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of the captures, in order, `{user.…}` left out.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().filter_map(|slot| match &slot.value {
            Wanted::Capture(name) => Some(&**name),
            Wanted::Own(_) => None,
        })
    }

    /// Whether `name` has the shape of this template. A `{user.…}` matches whatever a capture would; whether it is the
    /// connection's own is told by [`Match::own`].
    pub fn matches<'n>(&'n self, name: &'n str) -> Option<Match<'n>> {
        pattern_matches(&self.shape, name).then_some(Match { template: self, name })
    }
}

/// A name that has the shape of a template.
#[derive(Clone, Copy, Debug)]
pub struct Match<'n> {
    template: &'n Template,
    name: &'n str,
}

impl<'n> Match<'n> {
    /// The template that the name fits.
    pub fn template(&self) -> &'n Template {
        self.template
    }

    /// The value of a capture; `None` if the template has no such capture.
    pub fn capture(&self, name: &str) -> Option<&'n str> {
        let slot =
            self.template.slots.iter().find(|slot| matches!(&slot.value, Wanted::Capture(own) if **own == *name))?;
        self.value(slot)
    }

    /// Name and value of each capture, in order, `{user.…}` left out.
    pub fn captured(&self) -> impl Iterator<Item = (&'n str, &'n str)> {
        let own = *self;
        self.template.captures().filter_map(move |name| Some((name, own.capture(name)?)))
    }

    /// Whether each `{user.…}` is the connection's own value (F2). An identity without that value owns none of them,
    /// and neither does one whose value holds `:` or another byte that cannot stand there: it equals no part of a name.
    pub fn own(&self, identity: &Identity) -> bool {
        self.template.slots.iter().all(|slot| match slot.value {
            Wanted::Own(own) => own.of(identity).is_some_and(|value| self.value(slot) == Some(value)),
            Wanted::Capture(_) => true,
        })
    }

    fn value(&self, slot: &Slot) -> Option<&'n str> {
        let segment = match slot.segment {
            Segment::FromStart(i) => self.name.split(':').nth(i),
            Segment::FromEnd(i) => self.name.rsplit(':').nth(i),
        }?;
        segment.get(slot.prefix_len..segment.len().checked_sub(slot.suffix_len)?)
    }
}

/// The one capture of a segment, with the literals before and after it.
fn split_capture(segment: &str) -> Result<Option<(&str, Wanted, &str)>, String> {
    let Some((prefix, rest)) = segment.split_once('{') else {
        return Ok(None);
    };
    let Some((name, suffix)) = rest.split_once('}') else {
        return Err(format!("`{segment}` has a `{{` without its `}}`"));
    };
    let value = match name.strip_prefix("user.") {
        None if is_identifier(name) => Wanted::Capture(name.into()),
        None => {
            return Err(format!("`{{{name}}}` must be letters, digits and `_`, not beginning with a digit"));
        }
        Some("id") => Wanted::Own(Own::Id),
        Some("team") => Wanted::Own(Own::Team),
        Some("tenant") => Wanted::Own(Own::Tenant),
        Some("org") => Wanted::Own(Own::Org),
        Some(_) => {
            return Err(format!(
                "`{{{name}}}` is unknown; there are {{user.id}}, {{user.team}}, {{user.tenant}} and {{user.org}}"
            ));
        }
    };
    if suffix.contains('{') {
        return Err(format!(
            "`{segment}` holds two captures, so a name could be split in two ways; put `:` between them"
        ));
    }
    if prefix.contains('*') || suffix.contains('*') {
        return Err(format!(
            "`{segment}` holds a capture and a `*`, so a name could be split in two ways; put `:` between them"
        ));
    }
    Ok(Some((prefix, value, suffix)))
}

fn is_identifier(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
