//! What goes out, as bytes: frames that their receivers share, and runs of frames that were copied together.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes held by frames and runs of one worker, shared ones counted once.
#[derive(Clone, Default)]
pub struct Meter(Rc<Cell<usize>>);

impl Meter {
    /// Bytes alive now.
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    fn subtract(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

/// A frame's bytes: of this worker alone, or shared with the workers that also deliver it.
enum FrameBytes {
    Local(Box<[u8]>),
    Shared(Arc<[u8]>),
}

/// One encoded WebSocket frame, shared by all local receivers.
pub struct Frame {
    bytes: FrameBytes,
    /// The local pipe of an event or, with [`KEPT`], of a presence frame; [`KEPT`] alone for the answer to the handshake; 0
    /// for everything else.
    pub(super) pipe: u64,
    meter: Meter,
}

/// Marks a frame that belongs to a pipe and is never left out. Serial numbers of pipes do not reach it.
pub(super) const KEPT: u64 = 1 << 63;

impl Frame {
    /// An event of a pipe, already encoded. `pipe` is its local serial number, at least 1.
    pub fn event(bytes: Box<[u8]>, pipe: u64, meter: &Meter) -> Rc<Frame> {
        meter.add(bytes.len());
        Rc::new(Frame { bytes: FrameBytes::Local(bytes), pipe, meter: meter.clone() })
    }

    /// The same, for an event that other workers deliver too.
    pub fn shared_event(bytes: Arc<[u8]>, pipe: u64, meter: &Meter) -> Rc<Frame> {
        meter.add(bytes.len());
        Rc::new(Frame { bytes: FrameBytes::Shared(bytes), pipe, meter: meter.clone() })
    }

    /// Who came to a pipe and who went: goes with the pipe's events when they are purged, and is never left out.
    pub fn presence(bytes: impl Into<Box<[u8]>>, pipe: u64, meter: &Meter) -> Rc<Frame> {
        Frame::event(bytes.into(), pipe | KEPT, meter)
    }

    /// A reply, a system message or a control frame: never left out.
    pub fn other(bytes: impl Into<Box<[u8]>>, meter: &Meter) -> Rc<Frame> {
        Frame::event(bytes.into(), 0, meter)
    }

    /// The answer to the handshake, with the welcome: goes out whatever comes of the connection, for without it the peer
    /// could not read anything that follows.
    pub fn opening(bytes: impl Into<Box<[u8]>>, meter: &Meter) -> Rc<Frame> {
        Frame::event(bytes.into(), KEPT, meter)
    }

    /// The same as [`Frame::other`], shared by the connections of several workers.
    pub fn shared_other(bytes: Arc<[u8]>, meter: &Meter) -> Rc<Frame> {
        Frame::shared_event(bytes, 0, meter)
    }

    /// The frame as it goes out.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            FrameBytes::Local(bytes) => bytes,
            FrameBytes::Shared(bytes) => bytes,
        }
    }

    /// Whether it may be left out for a connection that is too slow.
    pub(super) fn is_event(&self) -> bool {
        self.pipe != 0 && self.pipe & KEPT == 0
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.meter.subtract(self.bytes().len());
    }
}

/// Several frames copied together. Shared by all connections that have the same ones waiting.
pub struct Run {
    bytes: Box<[u8]>,
    meter: Meter,
}

impl Run {
    /// Of frames that were copied together.
    pub(super) fn new(copied: Vec<u8>, meter: &Meter) -> Rc<Run> {
        meter.add(copied.len());
        Rc::new(Run { bytes: copied.into_boxed_slice(), meter: meter.clone() })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.meter.subtract(self.bytes.len());
    }
}

/// One write: what the shell hands to the kernel. Its bytes do not move and do not change.
#[derive(Clone)]
pub enum Chunk {
    /// One frame, sent from where it lies.
    Frame(Rc<Frame>),
    /// Several.
    Run(Rc<Run>),
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        match self {
            Chunk::Frame(frame) => frame.bytes(),
            Chunk::Run(run) => &run.bytes,
        }
    }
}
