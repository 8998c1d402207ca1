//! What the load generator writes into the `data` of a publish, to recognise the event wherever it comes out.
//!
//! `data` is one JSON string: a marker, the group, the sequence number and the intended time of sending, then filler.
//! The four are letters of fixed width (a nibble each, `a`–`p`), so that a server which looks into strings finds
//! nothing to escape, and so that every event of a run has the same length.

use memchr::memmem;

/// What an event says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The group (a pipe and its one publisher).
    pub group: u32,
    /// Counts the publishes of the group from 0.
    pub sequence: u32,
    /// When it should have been sent, in nanoseconds since the run began.
    pub sent_ns: u64,
}

/// Begins every stamp; the quote makes it the begin of a JSON string.
const MARKER: &[u8] = b"\"#pw:";
/// Letters after the marker.
const LETTERS: usize = 8 + 8 + 16;
/// Bytes of the shortest `data` value, quotes included.
pub const DATA_BYTES_MIN: usize = MARKER.len() + LETTERS + 1;

/// A `data` value of `data_bytes` (at least [`DATA_BYTES_MIN`]) bytes, quotes included, with an empty stamp.
pub fn blank(data_bytes: usize) -> Vec<u8> {
    let mut data = MARKER.to_vec();
    data.resize(MARKER.len() + LETTERS, b'a');
    data.resize(data_bytes.max(DATA_BYTES_MIN) - 1, b'x');
    data.push(b'"');
    data
}

/// Writes the stamp into a value made by [`blank`].
pub fn write(data: &mut [u8], stamp: Stamp) {
    let letters = &mut data[MARKER.len()..MARKER.len() + LETTERS];
    put(&mut letters[..8], u64::from(stamp.group));
    put(&mut letters[8..16], u64::from(stamp.sequence));
    put(&mut letters[16..], stamp.sent_ns);
}

/// Finds and reads the stamp of an event, if it is one. `hint` remembers where the last one stood: events of a run
/// look alike, so that the search is seldom needed.
#[inline]
pub fn read(text: &[u8], hint: &mut usize) -> Option<Stamp> {
    let at = if text.get(*hint..).is_some_and(|rest| rest.starts_with(MARKER)) {
        *hint
    } else {
        *hint = memmem::find(text, MARKER)?;
        *hint
    };
    let letters = text.get(at + MARKER.len()..at + MARKER.len() + LETTERS)?;
    let valid = letters.iter().fold(true, |valid, letter| valid & (b'a'..=b'p').contains(letter));
    valid.then(|| Stamp {
        group: take(&letters[..8]) as u32,
        sequence: take(&letters[8..16]) as u32,
        sent_ns: take(&letters[16..]),
    })
}

fn put(letters: &mut [u8], mut value: u64) {
    for letter in letters.iter_mut().rev() {
        *letter = b'a' + (value & 0xF) as u8;
        value >>= 4;
    }
}

fn take(letters: &[u8]) -> u64 {
    letters.iter().fold(0, |value, letter| value << 4 | u64::from(letter - b'a'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_from_anywhere_in_an_event() {
        let stamp = Stamp { group: 0xDEAD_BEEF, sequence: u32::MAX, sent_ns: 0x0123_4567_89AB_CDEF };
        let mut data = blank(128);
        write(&mut data, stamp);
        assert_eq!(data.len(), 128);
        let text = String::from_utf8(data).unwrap();
        let mut hint = 0;
        for event in [format!(r#"{{"type":"event","data":{text},"ts":1}}"#), format!(r#"{{"ts":1,"data":{text}}}"#)] {
            assert_eq!(read(event.as_bytes(), &mut hint), Some(stamp));
        }
    }

    #[test]
    fn other_text_and_damaged_stamps_are_not_events() {
        let mut hint = 3;
        let event = blank(DATA_BYTES_MIN);
        assert_eq!(read(br##"{"type":"welcome"}"##, &mut hint), None);
        assert_eq!(read(b"", &mut hint), None);
        assert_eq!(read(&event[..event.len() - 2], &mut hint), None);
        let mut damaged = event;
        damaged[10] = b'z';
        assert_eq!(read(&damaged, &mut hint), None);
    }
}
