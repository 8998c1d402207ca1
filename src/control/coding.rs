//! How an entry of the revocation table is written in the store: one key and one value, in our own compact form.
//!
//! Invariant: what is written reads back equal, and whatever else is read is refused, never guessed. The key holds what
//! an entry is about, so the same again replaces it (D4), and it begins with the person, so that all entries of one lie
//! together. The value holds the time limits behind a version of its own. Texts carry their length as a LEB128 number
//! in front; other numbers are little-endian, Unix milliseconds, in an issue time Unix seconds.
//!
//! ```text
//! key    1 user tenant? pipe?      pipes of a user; no pipe: everything
//!        2 id                      the token of this id
//!        3 id                      the tokens of a session
//!        4 user tenant? issued_before_s except_session? except_token?
//! value  1 until_ms until_authorized_after_ms?       (? : a byte 0, or 1 and the thing)
//! ```

use std::sync::Arc;

use crate::shard::command::Person;
use crate::shard::revocation::{Entry, Revocation, Taken, TokenRevocation, Tokens};

/// The version that values begin with.
const VALUE_VERSION: u8 = 1;

const PIPES: u8 = 1;
const TOKEN: u8 = 2;
const SESSION: u8 = 3;
const ISSUED_BEFORE: u8 = 4;

/// Bytes that are no entry, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

/// The key of an entry.
pub fn key(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Pipes(one) => pipes_key(&one.person, &one.taken),
        Entry::Tokens(one) => tokens_key(&one.tokens),
    }
}

/// The value of an entry.
pub fn value(entry: &Entry) -> Vec<u8> {
    let after_ms = match entry {
        Entry::Pipes(one) => one.until_authorized_after_ms,
        Entry::Tokens(_) => None,
    };
    let mut out = Vec::with_capacity(18);
    out.push(VALUE_VERSION);
    out.extend_from_slice(&entry.until_ms().to_le_bytes());
    out.push(u8::from(after_ms.is_some()));
    if let Some(after_ms) = after_ms {
        out.extend_from_slice(&after_ms.to_le_bytes());
    }
    out
}

/// The key of a revocation of pipes.
pub fn pipes_key(person: &Person, taken: &Taken) -> Vec<u8> {
    let mut out = person_prefix(person);
    match taken {
        Taken::Everything => put_optional(&mut out, None),
        Taken::Pipe(name) => put_optional(&mut out, Some(name)),
    }
    out
}

/// What the keys of all revocations of pipes of this person begin with, and no other key does.
pub fn person_prefix(person: &Person) -> Vec<u8> {
    let mut out = vec![PIPES];
    put_person(&mut out, person);
    out
}

/// The entry behind a key and a value.
///
/// # Errors
/// [`Damaged`] for anything that [`key`] and [`value`] do not write.
pub fn decode(key: &[u8], value: &[u8]) -> Result<Entry, Damaged> {
    let (until_ms, until_authorized_after_ms) = times(value)?;
    let mut rest = Reader(key);
    let tokens = match rest.byte()? {
        PIPES => {
            let person = rest.person()?;
            let taken = rest.optional()?.map_or(Taken::Everything, Taken::Pipe);
            rest.end()?;
            let revocation = Revocation { person, taken, until_ms, until_authorized_after_ms };
            return Ok(Entry::Pipes(Arc::new(revocation)));
        }
        TOKEN => Tokens::Token(rest.text()?),
        SESSION => Tokens::Session(rest.text()?),
        ISSUED_BEFORE => Tokens::IssuedBefore {
            person: rest.person()?,
            issued_before_s: i64::from_le_bytes(rest.array()?),
            except_session: rest.optional()?,
            except_token: rest.optional()?,
        },
        _ => return Err(Damaged("its key is of an unknown kind")),
    };
    rest.end()?;
    if until_authorized_after_ms.is_some() {
        return Err(Damaged("a revocation of tokens has a time that only pipes have"));
    }
    Ok(Entry::Tokens(Arc::new(TokenRevocation { tokens, until_ms })))
}

fn tokens_key(tokens: &Tokens) -> Vec<u8> {
    let mut out = Vec::new();
    match tokens {
        Tokens::Token(id) => {
            out.push(TOKEN);
            put_text(&mut out, id);
        }
        Tokens::Session(id) => {
            out.push(SESSION);
            put_text(&mut out, id);
        }
        Tokens::IssuedBefore { person, issued_before_s, except_session, except_token } => {
            out.push(ISSUED_BEFORE);
            put_person(&mut out, person);
            out.extend_from_slice(&issued_before_s.to_le_bytes());
            put_optional(&mut out, except_session.as_deref());
            put_optional(&mut out, except_token.as_deref());
        }
    }
    out
}

fn times(value: &[u8]) -> Result<(u64, Option<u64>), Damaged> {
    let mut rest = Reader(value);
    if rest.byte()? != VALUE_VERSION {
        return Err(Damaged("its value is of an unknown version"));
    }
    let until_ms = u64::from_le_bytes(rest.array()?);
    let after_ms = if rest.flag()? { Some(u64::from_le_bytes(rest.array()?)) } else { None };
    rest.end()?;
    Ok((until_ms, after_ms))
}

fn put_person(out: &mut Vec<u8>, person: &Person) {
    put_text(out, &person.user);
    put_optional(out, person.tenant.as_deref());
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(text.as_bytes());
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.bytes(N)?.try_into().map_err(|_| Damaged("it ends too early"))
    }

    fn byte(&mut self) -> Result<u8, Damaged> {
        Ok(self.array::<1>()?[0])
    }

    fn flag(&mut self) -> Result<bool, Damaged> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged("a flag is neither 0 nor 1")),
        }
    }

    fn length(&mut self) -> Result<usize, Damaged> {
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                let shortest = shift == 0 || byte != 0;
                return if shortest { Ok(length) } else { Err(Damaged("a length is not in its shortest form")) };
            }
        }
        Err(Damaged("a length is too large"))
    }

    fn text(&mut self) -> Result<Arc<str>, Damaged> {
        let length = self.length()?;
        std::str::from_utf8(self.bytes(length)?).map(Arc::from).map_err(|_| Damaged("a text is not UTF-8"))
    }

    fn optional(&mut self) -> Result<Option<Arc<str>>, Damaged> {
        if self.flag()? { self.text().map(Some) } else { Ok(None) }
    }

    fn person(&mut self) -> Result<Person, Damaged> {
        let user = self.text()?;
        Ok(Person { user, tenant: self.optional()? })
    }

    fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged("something follows its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Arc<str>> {
        prop_oneof!["[ -~]{0,40}", "\\PC{0,20}", "[a-z]{120,300}"].prop_map(Arc::from)
    }

    fn person() -> impl Strategy<Value = Person> {
        (text(), prop::option::of(text())).prop_map(|(user, tenant)| Person { tenant, user })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let taken = prop_oneof![Just(Taken::Everything), text().prop_map(Taken::Pipe)];
        let pipes =
            (person(), taken, any::<u64>(), any::<Option<u64>>()).prop_map(|(person, taken, until_ms, after)| {
                let until_authorized_after_ms = after;
                Entry::Pipes(Arc::new(Revocation { person, taken, until_ms, until_authorized_after_ms }))
            });
        let issued_before = (person(), any::<i64>(), prop::option::of(text()), prop::option::of(text())).prop_map(
            |(person, issued_before_s, except_session, except_token)| Tokens::IssuedBefore {
                person,
                issued_before_s,
                except_session,
                except_token,
            },
        );
        let tokens = prop_oneof![text().prop_map(Tokens::Token), text().prop_map(Tokens::Session), issued_before];
        let tokens = (tokens, any::<u64>())
            .prop_map(|(tokens, until_ms)| Entry::Tokens(Arc::new(TokenRevocation { tokens, until_ms })));
        prop_oneof![pipes, tokens]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_equal(entry in entry()) {
            prop_assert_eq!(decode(&key(&entry), &value(&entry)), Ok(entry));
        }

        /// Two entries share a key exactly if the table would hold one of them.
        #[test]
        fn keys_are_equal_where_entries_replace_each_other(one in entry(), other in entry()) {
            let same = match (&one, &other) {
                (Entry::Pipes(one), Entry::Pipes(other)) => one.person == other.person && one.taken == other.taken,
                (Entry::Tokens(one), Entry::Tokens(other)) => one.tokens == other.tokens,
                _ => false,
            };
            prop_assert_eq!(key(&one) == key(&other), same);
        }

        /// D6: what belongs to a person is found by the prefix, and nothing of anybody else.
        #[test]
        fn a_prefix_is_one_persons(entry in entry(), other in person()) {
            let own = match &entry {
                Entry::Pipes(one) => Some(&one.person),
                Entry::Tokens(_) => None,
            };
            prop_assert_eq!(key(&entry).starts_with(&person_prefix(&other)), own == Some(&other));
            if let Some(own) = own {
                prop_assert!(key(&entry).starts_with(&person_prefix(own)));
            }
        }

        /// Whatever is read: an entry that is written the same way again, or a refusal.
        #[test]
        fn anything_else_is_refused(key_bytes in prop::collection::vec(any::<u8>(), 0..60), value_bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(entry) = decode(&key_bytes, &value_bytes) {
                prop_assert_eq!((key(&entry), value(&entry)), (key_bytes, value_bytes));
            }
        }

        #[test]
        fn a_changed_byte_never_reads_as_the_same(entry in entry(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (mut key_bytes, mut value_bytes) = (key(&entry), value(&entry));
            let whole = key_bytes.len() + value_bytes.len();
            let at = at.index(whole);
            match at.checked_sub(key_bytes.len()) {
                None => key_bytes[at] ^= flip,
                Some(at) => value_bytes[at] ^= flip,
            }
            if let Ok(read) = decode(&key_bytes, &value_bytes) {
                prop_assert_ne!(&read, &entry);
                prop_assert_eq!((key(&read), value(&read)), (key_bytes, value_bytes));
            }
        }

        #[test]
        fn a_cut_entry_is_refused(entry in entry(), at in any::<prop::sample::Index>()) {
            let (key_bytes, value_bytes) = (key(&entry), value(&entry));
            prop_assert!(decode(&key_bytes[..at.index(key_bytes.len())], &value_bytes).is_err());
            prop_assert!(decode(&key_bytes, &value_bytes[..at.index(value_bytes.len())]).is_err());
        }
    }
}
