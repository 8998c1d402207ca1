//! The client's half of RFC 6455 §5, as little of it as a load generator needs.
//!
//! Server frames are found in place: nothing is copied or allocated, the caller keeps what is incomplete. A server of
//! ours sends whole, unmasked frames without extensions; anything else is an error that the run reports.

/// A text frame (RFC 6455 §5.6).
pub const TEXT: u8 = 0x1;
/// A close frame (§5.5.1).
pub const CLOSE: u8 = 0x8;
/// A ping (§5.5.2).
pub const PING: u8 = 0x9;
/// A pong (§5.5.3).
pub const PONG: u8 = 0xA;

/// Bytes that one server frame may hold. Longer is an error, so that a length read from the wire never becomes memory.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// What stands at the front of some bytes from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// A whole frame, `consumed` bytes long with its header.
    Frame { opcode: u8, payload: &'a [u8], consumed: usize },
    /// The front of a frame.
    Incomplete,
    /// Not a frame that this server may send.
    Broken(&'static str),
}

/// Looks at the frame at the front of `bytes`.
#[inline]
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    let [first, second, rest @ ..] = bytes else { return Scan::Incomplete };
    if first & 0x80 == 0 {
        return Scan::Broken("a fragmented message");
    }
    if first & 0x70 != 0 {
        return Scan::Broken("a reserved bit is set");
    }
    if second & 0x80 != 0 {
        return Scan::Broken("a masked frame from the server");
    }
    let (header, length) = match second & 0x7F {
        126 => match rest {
            [a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            _ => return Scan::Incomplete,
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX)),
            None => return Scan::Incomplete,
        },
        short => (2, usize::from(short)),
    };
    if length > PAYLOAD_BYTES_MAX {
        return Scan::Broken("a frame over 4 MiB");
    }
    match bytes.get(header..header + length) {
        Some(payload) => Scan::Frame { opcode: first & 0x0F, payload, consumed: header + length },
        None => Scan::Incomplete,
    }
}

/// Appends a whole masked client frame (§5.3).
pub fn append(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    for chunk in out[start..].chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

/// Mask keys: they need not be secret here, only not constant (xorshift, never zero).
pub struct Masks(u64);

impl Masks {
    /// Starts the sequence.
    pub fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// The next key.
    pub fn next(&mut self) -> [u8; 4] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) as u32 | 1).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server frame of `length` bytes `x`.
    fn server_frame(length: usize) -> Vec<u8> {
        let mut frame = vec![0x81];
        match length {
            0..=125 => frame.push(length as u8),
            126..=0xFFFF => {
                frame.push(126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn every_length_form_is_found_and_every_cut_is_incomplete() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let frame = server_frame(length);
            match scan(&frame) {
                Scan::Frame { opcode: TEXT, payload, consumed } => {
                    assert_eq!((payload.len(), consumed), (length, frame.len()));
                }
                other => panic!("{length}: {other:?}"),
            }
            for cut in (0..frame.len().min(16)).chain([frame.len() - 1]) {
                assert_eq!(scan(&frame[..cut]), Scan::Incomplete, "{length} cut at {cut}");
            }
        }
    }

    #[test]
    fn two_frames_in_a_row_are_taken_one_by_one() {
        let mut bytes = server_frame(3);
        bytes.extend(server_frame(5));
        let Scan::Frame { consumed, .. } = scan(&bytes) else { panic!("the first is whole") };
        assert!(matches!(scan(&bytes[consumed..]), Scan::Frame { payload: b"xxxxx", .. }));
    }

    #[test]
    fn what_the_server_may_not_send_is_broken() {
        for bytes in [&[0x01, 0x00][..], &[0xC1, 0x00], &[0x81, 0x80], &[0x81, 127, 0xFF, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(matches!(scan(bytes), Scan::Broken(_)), "{bytes:?}");
        }
    }

    #[test]
    fn a_client_frame_unmasks_to_what_was_given() {
        let mut masks = Masks::new();
        for length in [0, 5, 125, 126, 70_000] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mask = masks.next();
            assert_ne!(mask, [0; 4]);
            let mut out = Vec::new();
            append(&mut out, TEXT, &payload, mask);
            let header = out.len() - length - 4;
            assert_eq!(out[1] & 0x80, 0x80, "clients mask (RFC 6455 §5.1)");
            assert_eq!(out[header..header + 4], mask);
            let plain: Vec<u8> = out[header + 4..].iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
            assert_eq!(plain, payload);
        }
    }
}
