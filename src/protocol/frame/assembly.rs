//! What one connection has begun and not finished: a header cut in two, a payload cut in two, a fragmented message,
//! a control frame inside one.
//!
//! Invariants: exists only while something is unfinished, or its last item is still being looked at. `text_valid` bytes
//! of a text message are known to be UTF-8 and what follows them could still become so. The buffer grows by doubling,
//! never beyond `message_bytes_max` and never beyond what the frame at hand can still fill.
//!
//! Source: RFC 6455 §5.4 (fragmentation), §8.1 (UTF-8).

use super::{CONTROL_BYTES_MAX, Context, HEADER_BYTES_MAX, Header, NOT_UTF8, Violation, is_control, opcode, unmask};

/// How far [`Assembly::take`] came.
pub(super) enum Taken {
    /// All bytes are used, nothing is complete.
    Everything,
    /// A fragment is complete and its message is not: the next frame begins.
    Fragment,
    /// A message or a control frame is complete.
    Complete,
}

/// The unfinished part of a connection's input.
#[derive(Default)]
pub(super) struct Assembly {
    /// The first bytes of a header that was cut.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// `TEXT` or `BINARY` once the message has begun.
    message_opcode: Option<u8>,
    message: Vec<u8>,
    text_valid: usize,
    control: Control,
    /// The opcode of the item that was handed out last and is to be forgotten.
    delivered: Option<u8>,
}

/// A frame whose header is known.
#[derive(Clone, Copy)]
struct Frame {
    header: Header,
    /// Payload bytes already taken.
    taken: usize,
}

/// The payload of a control frame that was cut.
struct Control {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

impl Default for Control {
    fn default() -> Control {
        Control { bytes: [0; CONTROL_BYTES_MAX], len: 0 }
    }
}

impl Assembly {
    /// Takes bytes of at most one frame from the front of `rest`.
    pub(super) fn take(&mut self, rest: &[u8], message_bytes_max: usize) -> (usize, Result<Taken, Violation>) {
        let (header_bytes, mut frame) = match self.frame {
            Some(frame) => (0, frame),
            None => match self.take_header(rest, message_bytes_max) {
                Err(violation) => return (rest.len(), Err(violation)),
                Ok(None) => return (rest.len(), Ok(Taken::Everything)),
                Ok(Some((used, frame))) => (used, frame),
            },
        };
        let rest = &rest[header_bytes..];
        let wanted = frame.header.payload_len - frame.taken;
        let part = &rest[..wanted.min(rest.len())];
        if frame.header.is_control() {
            self.take_control(part, frame);
        } else if let Err(violation) = self.take_data(part, frame, message_bytes_max) {
            return (rest.len(), Err(violation));
        }
        frame.taken += part.len();
        (header_bytes + part.len(), Ok(self.settle(frame)))
    }

    /// The item that [`Taken::Complete`] announced: its opcode and payload.
    pub(super) fn complete(&self) -> Option<(u8, &[u8])> {
        let opcode = self.delivered?;
        if is_control(opcode) {
            return Some((opcode, &self.control.bytes[..usize::from(self.control.len)]));
        }
        Some((opcode, &self.message))
    }

    /// Forgets the item that was handed out last. Where that leaves nothing unfinished, the owner drops the rest.
    pub(super) fn forget_delivered(&mut self) {
        self.delivered = None;
    }

    /// Whether a frame or a message was begun and is not complete.
    pub(super) fn is_unfinished(&self) -> bool {
        self.message_opcode.is_some() || !self.is_between_frames()
    }

    /// Whether the message that was begun is a binary one.
    pub(super) fn is_binary(&self) -> bool {
        self.message_opcode == Some(opcode::BINARY)
    }

    /// Whether the next byte is the first of a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.header_len == 0 && self.frame.is_none()
    }

    /// What the next header is checked against.
    pub(super) fn context(&self, message_bytes_max: usize) -> Context {
        Context { message_open: self.message_opcode.is_some(), message_len: self.message.len(), message_bytes_max }
    }

    /// Bytes held for the message.
    pub(super) fn capacity(&self) -> usize {
        self.message.capacity()
    }

    fn take_header(&mut self, rest: &[u8], message_bytes_max: usize) -> Result<Option<(usize, Frame)>, Violation> {
        let had = usize::from(self.header_len);
        let more = rest.len().min(HEADER_BYTES_MAX - had);
        self.header[had..had + more].copy_from_slice(&rest[..more]);
        let known = &self.header[..had + more];
        let Some(header) = Header::parse(known, self.context(message_bytes_max))? else {
            self.header_len = known.len() as u8;
            return Ok(None);
        };
        self.header_len = 0;
        if header.opcode == opcode::TEXT || header.opcode == opcode::BINARY {
            self.message_opcode = Some(header.opcode);
        }
        Ok(Some((header.size - had, Frame { header, taken: 0 })))
    }

    fn take_control(&mut self, part: &[u8], frame: Frame) {
        let into = &mut self.control.bytes[frame.taken..frame.taken + part.len()];
        into.copy_from_slice(part);
        unmask(into, mask_at(frame));
        self.control.len = (frame.taken + part.len()) as u8;
    }

    fn take_data(&mut self, part: &[u8], frame: Frame, message_bytes_max: usize) -> Result<(), Violation> {
        let before = self.message.len();
        let still_announced = frame.header.payload_len - frame.taken;
        let most = if frame.header.fin { before + still_announced } else { message_bytes_max };
        grow(&mut self.message, part.len(), most);
        self.message.extend_from_slice(part);
        unmask(&mut self.message[before..], mask_at(frame));
        self.check_text()
    }

    /// Refuses text as soon as no continuation could make it UTF-8.
    fn check_text(&mut self) -> Result<(), Violation> {
        if self.message_opcode != Some(opcode::TEXT) {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.message[self.text_valid..]) {
            Ok(_) => self.text_valid = self.message.len(),
            Err(error) if error.error_len().is_none() => self.text_valid += error.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        }
        Ok(())
    }

    fn settle(&mut self, frame: Frame) -> Taken {
        if frame.taken < frame.header.payload_len {
            self.frame = Some(frame);
            return Taken::Everything;
        }
        self.frame = None;
        if frame.header.is_control() {
            self.delivered = Some(frame.header.opcode);
            Taken::Complete
        } else if frame.header.fin {
            self.delivered = self.message_opcode.take();
            Taken::Complete
        } else {
            Taken::Fragment
        }
    }
}

/// The mask as it applies from the first byte not yet taken.
fn mask_at(frame: Frame) -> [u8; 4] {
    let mut mask = frame.header.mask;
    mask.rotate_left(frame.taken % 4);
    mask
}

/// Makes room for `more` bytes: doubling, but to no more than `most` in all.
fn grow(message: &mut Vec<u8>, more: usize, most: usize) {
    let needed = message.len() + more;
    if needed > message.capacity() {
        let target = needed.saturating_mul(2).min(most).max(needed);
        message.reserve_exact(target - message.len());
    }
}
