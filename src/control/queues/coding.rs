//! How messages of queues are written in the store.
//!
//! Invariant: what is written reads back equal, and whatever else is read is refused, never guessed. All keys of a queue
//! lie together, in the order in which their messages were taken. Numbers in keys are big-endian, so that their bytes
//! sort as they do; elsewhere little-endian. Times are Unix milliseconds.
//!
//! ```text
//! key      length of the name (u16), name, place (u64)
//! message  1, id (16), enqueued_at_ms (u64), since_ms (u64), length of user (u32), user, data
//! dead     1, died_at_ms (u64), attempts (u32), length of error (u32), error, message
//! ```

/// The version that values begin with.
const VERSION: u8 = 1;
/// Bytes of an id before it is written in hexadecimal.
const ID_BYTES: usize = 16;

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Unique; the same at every attempt.
    pub id: Id,
    /// When the client handed it over.
    pub enqueued_at_ms: u64,
    /// When it began to wait: the same, or when it was taken back from the dead letters.
    pub since_ms: u64,
    /// The sender, as JSON.
    pub user: Box<str>,
    /// One JSON value.
    pub data: Box<str>,
}

/// A message that is not delivered any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// When it was given up.
    pub died_at_ms: u64,
    /// How often it was tried since the server was started.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: Box<str>,
    /// As it was.
    pub message: Message,
}

/// The id of a message: 32 digits in hexadecimal, for programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(pub [u8; ID_BYTES]);

impl std::fmt::Display for Id {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Id({self})")
    }
}

impl Message {
    /// Bytes that it counts for, against `max_pending_bytes`.
    pub fn bytes(&self) -> u64 {
        (self.user.len() + self.data.len()) as u64
    }
}

/// Bytes that are no message, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

/// The key of the message at this place. Names are a configuration's: shorter than 64 KiB.
pub fn key(queue: &str, place: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + queue.len());
    out.extend_from_slice(&u16::try_from(queue.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(queue.as_bytes());
    out.extend_from_slice(&place.to_be_bytes());
    out
}

/// The queue and the place of a key.
///
/// # Errors
/// [`Damaged`]
pub fn read_key(key: &[u8]) -> Result<(&str, u64), Damaged> {
    let mut rest = Reader(key);
    let length = u16::from_be_bytes(rest.array()?);
    let queue = rest.text(length.into())?;
    let place = u64::from_be_bytes(rest.array()?);
    if rest.0.is_empty() { Ok((queue, place)) } else { Err(Damaged("a key is too long")) }
}

/// The value of a message.
pub fn message(message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(37 + message.user.len() + message.data.len());
    put_message(&mut out, message);
    out
}

/// The value of a dead letter.
pub fn dead(dead: &Dead) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&dead.died_at_ms.to_le_bytes());
    out.extend_from_slice(&dead.attempts.to_le_bytes());
    put_text(&mut out, &dead.error);
    put_message(&mut out, &dead.message);
    out
}

/// The message of a value.
///
/// # Errors
/// [`Damaged`]
pub fn read_message(value: &[u8]) -> Result<Message, Damaged> {
    let mut rest = Reader(value);
    rest.version()?;
    let id = Id(rest.array()?);
    let enqueued_at_ms = u64::from_le_bytes(rest.array()?);
    let since_ms = u64::from_le_bytes(rest.array()?);
    let user = rest.sized()?.into();
    let data = rest.text(rest.0.len())?.into();
    Ok(Message { id, enqueued_at_ms, since_ms, user, data })
}

/// The dead letter of a value.
///
/// # Errors
/// [`Damaged`]
pub fn read_dead(value: &[u8]) -> Result<Dead, Damaged> {
    let mut rest = Reader(value);
    rest.version()?;
    let died_at_ms = u64::from_le_bytes(rest.array()?);
    let attempts = u32::from_le_bytes(rest.array()?);
    let error = rest.sized()?.into();
    let message = read_message(rest.0)?;
    Ok(Dead { died_at_ms, attempts, error, message })
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    out.push(VERSION);
    out.extend_from_slice(&message.id.0);
    out.extend_from_slice(&message.enqueued_at_ms.to_le_bytes());
    out.extend_from_slice(&message.since_ms.to_le_bytes());
    put_text(out, &message.user);
    out.extend_from_slice(message.data.as_bytes());
}

/// Texts of a message are shorter than a frame, and so than 4 GiB.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn bytes(&mut self, count: usize) -> Result<&'b [u8], Damaged> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Damaged("it is too short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.bytes(N)?.try_into().map_err(|_| Damaged("it is too short"))
    }

    fn text(&mut self, count: usize) -> Result<&'b str, Damaged> {
        std::str::from_utf8(self.bytes(count)?).map_err(|_| Damaged("a text is not UTF-8"))
    }

    fn sized(&mut self) -> Result<&'b str, Damaged> {
        let length = u32::from_le_bytes(self.array()?);
        self.text(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn version(&mut self) -> Result<(), Damaged> {
        let [version] = self.array()?;
        if version == VERSION { Ok(()) } else { Err(Damaged("its version is not known")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Message {
        Message {
            id: Id([0xa7; ID_BYTES]),
            enqueued_at_ms: 1,
            since_ms: u64::MAX,
            user: r#"{"id":"ann"}"#.into(),
            data: "[1,\"\u{e9}\"]".into(),
        }
    }

    #[test]
    fn what_is_written_reads_back_equal_and_a_part_of_it_never() {
        let letter = Dead { died_at_ms: 9, attempts: 20, error: "gone".into(), message: one() };
        let (message, dead) = (message(&one()), dead(&letter));
        assert_eq!(read_message(&message), Ok(one()));
        assert_eq!(read_dead(&dead), Ok(letter));
        assert_eq!(read_key(&key("jobs", 7)), Ok(("jobs", 7)));
        // Data is the rest of a value, so only what stands before it can be missing.
        let before = message.len() - one().data.len();
        assert!((0..before).all(|end| read_message(&message[..end]).is_err()));
        assert!((0..dead.len() - one().data.len()).all(|end| read_dead(&dead[..end]).is_err()));
        assert!((0..14).all(|end| read_key(&key("jobs", 7)[..end]).is_err()));
        assert!(read_key(&[key("jobs", 7), vec![0]].concat()).is_err());
        assert!(read_message(&[&[2], &message[1..]].concat()).is_err());
        assert_eq!(one().id.to_string(), "a7".repeat(16));
    }

    #[test]
    fn keys_sort_by_queue_and_place() {
        let sorted = [key("b", 0), key("b", 255), key("b", 256), key("b", u64::MAX), key("c", 0), key("aa", 0)];
        assert!(sorted.is_sorted());
    }
}
