//! WebSocket frames: the server's reading side, and (in `write`) everything that writes a frame.
//!
//! Purpose: turn the bytes of one connection into complete messages and control frames. [`Reader`] is the hot path:
//! a frame that lies whole in the input is unmasked where it lies and handed out as a slice of it, without a copy.
//! Only what is cut short by the end of the input, or fragmented by the sender, is kept, behind one pointer; an idle
//! connection costs those 8 bytes.
//!
//! Invariants: what is reported depends on the bytes alone, never on how they were cut into inputs. Memory grows with
//! the bytes that arrived, never with a length that was merely announced, and stays below `message_bytes_max`. No input
//! makes it panic.
//!
//! Source: RFC 6455 §5 (framing), §5.5.1 and §7.4 (close), §8.1 (UTF-8). Units: bytes.

mod assembly;
mod write;

#[cfg(test)]
mod tests;

use super::codes::CloseCode;
use assembly::{Assembly, Taken};

pub use write::{ServerFrame, append_client_frame, append_server_frame, close_payload, server_frame, server_header};

/// Opcodes of RFC 6455 §5.2.
pub mod opcode {
    /// Goes on with a fragmented message.
    pub const CONTINUATION: u8 = 0x0;
    /// Begins a UTF-8 message.
    pub const TEXT: u8 = 0x1;
    /// Begins a message of any bytes.
    pub const BINARY: u8 = 0x2;
    /// Begins the closing handshake.
    pub const CLOSE: u8 = 0x8;
    /// Asks for a pong.
    pub const PING: u8 = 0x9;
    /// Answers a ping.
    pub const PONG: u8 = 0xA;
}

/// Longest header that a client may send: 2 bytes, 8 of length, 4 of mask.
pub const HEADER_BYTES_MAX: usize = 14;
/// Longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// One complete message, or one control frame, from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with the same 0–125 bytes.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The peer closes: its code, where it gave one, and its reason of 0–123 bytes. Nothing after it is to be read.
    Close(Option<u16>, &'a str),
}

/// What the peer did wrong. The connection ends; the reader is not to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Against the framing rules (1002); the text says which.
    Protocol(&'static str),
    /// Text or a close reason that is not UTF-8 (1007).
    InvalidPayload(&'static str),
    /// A message longer than `message_bytes_max` (1009).
    TooBig,
}

impl Violation {
    /// The close code that tells the peer (C36).
    pub fn close_code(&self) -> CloseCode {
        match self {
            Violation::Protocol(_) => CloseCode::Protocol,
            Violation::InvalidPayload(_) => CloseCode::InvalidPayload,
            Violation::TooBig => CloseCode::TooBig,
        }
    }
}

/// Reads one connection's frames. One pointer; nothing is allocated while no frame or message is unfinished.
#[derive(Default)]
pub struct Reader(Option<Box<Assembly>>);

impl Reader {
    /// Takes the next item from the front of `bytes`: how many bytes it used, and the item.
    ///
    /// Call it again with what is left until it answers `Ok(None)`: then all of `bytes` was used (kept, where it
    /// belongs to something unfinished). That last call, with no bytes left, also frees the item before it.
    ///
    /// `message_bytes_max` bounds a message after reassembly; exactly that many bytes are still fine (A9). A longer
    /// one is refused as soon as a header tells. Text is checked as it arrives, so that a wrong byte is refused before
    /// its message ends.
    pub fn next<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        message_bytes_max: usize,
    ) -> (usize, Result<Option<Item<'a>>, Violation>) {
        self.forget_delivered();
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match self.whole_frame(rest, message_bytes_max) {
                Err(violation) => return (bytes.len(), Err(violation)),
                Ok(Some(header)) => {
                    let start = used + header.size;
                    let end = start + header.payload_len;
                    let payload = &mut bytes[start..end];
                    unmask(payload, header.mask);
                    return (end, item(header.opcode, payload).map(Some));
                }
                Ok(None) if rest.is_empty() => return (used, Ok(None)),
                Ok(None) => {}
            }
            let assembly = self.0.get_or_insert_default();
            let (taken_bytes, taken) = assembly.take(rest, message_bytes_max);
            used += taken_bytes;
            match taken {
                Err(violation) => return (bytes.len(), Err(violation)),
                Ok(Taken::Everything) => return (used, Ok(None)),
                Ok(Taken::Fragment) => {}
                Ok(Taken::Complete) => return (used, self.assembled()),
            }
        }
    }

    /// Memory held for what is unfinished, in bytes; 0: nothing is.
    pub fn kept_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |assembly| size_of::<Assembly>() + assembly.capacity())
    }

    /// Whether a frame or a fragmented message was begun and is not finished.
    pub fn is_unfinished(&self) -> bool {
        self.0.as_ref().is_some_and(|assembly| assembly.is_unfinished())
    }

    /// Whether the unfinished message is a binary one: known from its first header on.
    pub fn is_binary_unfinished(&self) -> bool {
        self.0.as_ref().is_some_and(|assembly| assembly.is_binary())
    }

    /// The header of the frame at the front of `rest`, if that frame is an item by itself and lies there whole.
    fn whole_frame(&self, rest: &[u8], message_bytes_max: usize) -> Result<Option<Header>, Violation> {
        let context = match &self.0 {
            None => Context { message_open: false, message_len: 0, message_bytes_max },
            Some(assembly) if assembly.is_between_frames() => assembly.context(message_bytes_max),
            Some(_) => return Ok(None),
        };
        let Some(header) = Header::parse(rest, context)? else {
            return Ok(None);
        };
        let alone = header.is_control() || (header.fin && header.opcode != opcode::CONTINUATION);
        let lies_whole = header.payload_len <= rest.len() - header.size;
        Ok((alone && lies_whole).then_some(header))
    }

    fn assembled(&self) -> Result<Option<Item<'_>>, Violation> {
        let complete = self.0.as_ref().and_then(|assembly| assembly.complete());
        complete.map(|(opcode, payload)| item(opcode, payload)).transpose()
    }

    fn forget_delivered(&mut self) {
        if let Some(assembly) = &mut self.0 {
            assembly.forget_delivered();
            if !assembly.is_unfinished() {
                self.0 = None;
            }
        }
    }
}

/// What the checks of a header depend on besides its bytes.
#[derive(Clone, Copy)]
struct Context {
    /// A fragmented message was begun.
    message_open: bool,
    /// Bytes of it so far.
    message_len: usize,
    message_bytes_max: usize,
}

/// A frame header that passed every check which it can be given before its payload.
#[derive(Clone, Copy)]
struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    payload_len: usize,
    /// Bytes of the header itself, 6–14.
    size: usize,
}

impl Header {
    fn is_control(&self) -> bool {
        is_control(self.opcode)
    }

    /// `None` where more bytes are needed. A wrong first pair of bytes is refused without the rest.
    #[inline]
    fn parse(bytes: &[u8], context: Context) -> Result<Option<Header>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        check_first_pair(first, second, context.message_open)?;
        let (payload_len, length_bytes) = match second & 0x7F {
            126 => {
                let Some(field) = rest.first_chunk::<2>() else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes(*field)), 2)
            }
            127 => {
                let Some(field) = rest.first_chunk::<8>() else {
                    return Ok(None);
                };
                (u64::from_be_bytes(*field), 8)
            }
            short => (u64::from(short), 0),
        };
        let opcode = first & 0x0F;
        check_length(payload_len, length_bytes, opcode, context)?;
        let Some(mask) = rest[length_bytes..].first_chunk::<4>() else {
            return Ok(None);
        };
        Ok(Some(Header {
            fin: first & 0x80 != 0,
            opcode,
            mask: *mask,
            payload_len: payload_len as usize,
            size: 2 + length_bytes + 4,
        }))
    }
}

#[inline]
fn check_first_pair(first: u8, second: u8, message_open: bool) -> Result<(), Violation> {
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0F);
    if first & 0x70 != 0 {
        return Err(Violation::Protocol("a reserved bit is set"));
    }
    match opcode {
        opcode::CONTINUATION if !message_open => {
            return Err(Violation::Protocol("nothing to continue"));
        }
        opcode::TEXT | opcode::BINARY if message_open => {
            return Err(Violation::Protocol("a new message inside a fragmented one"));
        }
        opcode::CONTINUATION | opcode::TEXT | opcode::BINARY => {}
        opcode::CLOSE | opcode::PING | opcode::PONG => {
            if !fin {
                return Err(Violation::Protocol("a fragmented control frame"));
            }
            if usize::from(second & 0x7F) > CONTROL_BYTES_MAX {
                return Err(Violation::Protocol("a control frame over 125 bytes"));
            }
        }
        _ => return Err(Violation::Protocol("a reserved opcode")),
    }
    if second & 0x80 == 0 {
        return Err(Violation::Protocol("an unmasked frame"));
    }
    Ok(())
}

#[inline]
fn check_length(payload_len: u64, length_bytes: usize, opcode: u8, context: Context) -> Result<(), Violation> {
    if payload_len >> 63 != 0 {
        return Err(Violation::Protocol("a length over 63 bits"));
    }
    if (length_bytes == 2 && payload_len < 126) || (length_bytes == 8 && payload_len <= u64::from(u16::MAX)) {
        return Err(Violation::Protocol("a length that is not in its shortest form"));
    }
    let room = context.message_bytes_max.saturating_sub(context.message_len);
    if !is_control(opcode) && payload_len > room as u64 {
        return Err(Violation::TooBig);
    }
    Ok(())
}

fn is_control(opcode: u8) -> bool {
    opcode & 0x8 != 0
}

/// A complete, unmasked payload as an item; the last checks are made here.
#[inline]
fn item(opcode: u8, payload: &[u8]) -> Result<Item<'_>, Violation> {
    match opcode {
        opcode::TEXT => match simdutf8::basic::from_utf8(payload) {
            Ok(text) => Ok(Item::Text(text)),
            Err(_) => Err(NOT_UTF8),
        },
        opcode::BINARY => Ok(Item::Binary(payload)),
        opcode::PING => Ok(Item::Ping(payload)),
        opcode::PONG => Ok(Item::Pong(payload)),
        _ => close_item(payload),
    }
}

/// Text that is not UTF-8.
const NOT_UTF8: Violation = Violation::InvalidPayload("text that is not UTF-8");

fn close_item(payload: &[u8]) -> Result<Item<'_>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(Item::Close(None, "")),
            _ => Err(Violation::Protocol("a close frame of one byte")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Violation::Protocol("a close code that may not be sent"));
    }
    match simdutf8::basic::from_utf8(reason) {
        Ok(reason) => Ok(Item::Close(Some(code), reason)),
        Err(_) => Err(Violation::InvalidPayload("a close reason that is not UTF-8")),
    }
}

/// Whether a close frame may carry `code`: RFC 6455 §7.4.1 and §7.4.2, with 1012–1014 as IANA has registered them.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Applies the mask (RFC 6455 §5.3) from its first byte on, eight bytes at a time.
#[inline]
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}
