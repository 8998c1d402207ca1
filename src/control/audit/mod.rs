//! The audit: one JSON object a line for everything that matters to security (GD-9, G3).
//!
//! [`Audit::record`] hands a record over and returns at once, whatever the disk does: it never waits, takes no lock and
//! makes no system call, so that a worker may call it. A thread of its own turns records into lines and writes them in
//! batches, at most [`AuditBounds::interval`] after they came.
//!
//! Two lanes, each bounded (INVARIANTS 33): what the application did and what was closed goes by one, connections,
//! refusals and denials by the other, so that no flood of denials displaces a revocation. A full lane drops the record;
//! the drop is counted, and a line that says how many were dropped stands before the next record written.
//!
//! Nothing is synced to the disk: what was written outlives the process, not the machine. An fsync for each batch would
//! cost more than the records are worth; who needs that ships the lines to another machine.

mod line;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{AuditPath, AuditSettings};
use crate::shard::record::Record;
use sink::Sink;
use writer::Writer;

/// How much the audit may hold, and where it stops. The default is what a server runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditBounds {
    /// Records of the kept lane that wait for the writer. One for each connection that a call of the application closes
    /// at once. More: dropped and counted.
    pub kept: usize,
    /// Records of the other lane. More: dropped and counted.
    pub others: usize,
    /// Bytes of one file. A batch that would make it larger goes to a new one.
    pub file_bytes: u64,
    /// Older files beside the one that is written: `.1` is the youngest. The oldest goes.
    pub files: u32,
    /// Between two looks of the writer at its lanes.
    pub interval: Duration,
}

impl Default for AuditBounds {
    fn default() -> AuditBounds {
        AuditBounds {
            kept: 65_536,
            others: 16_384,
            file_bytes: 64 << 20,
            files: 5,
            interval: Duration::from_millis(100),
        }
    }
}

/// How long [`Audit::close`] waits for a writer that is stuck, such as on a pipe that nobody reads.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Takes records. Cheap to clone; every clone writes to the same place.
#[derive(Clone)]
pub struct Audit {
    kept: SyncSender<Box<Record>>,
    others: SyncSender<Box<Record>>,
    counts: Arc<Counts>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What the two sides tell each other.
#[derive(Debug, Default)]
struct Counts {
    /// Records that went nowhere: their lane was full, or the place could not be written.
    dropped: AtomicU64,
    written: AtomicU64,
    /// Batches that could not be written, or not wholly.
    failures: AtomicU64,
    closing: AtomicBool,
}

impl Audit {
    /// Opens the place and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened for writing; the message names it.
    pub fn start(settings: &AuditSettings) -> io::Result<Audit> {
        Audit::start_with(settings, AuditBounds::default())
    }

    /// The same with other bounds.
    ///
    /// # Errors
    /// As [`Audit::start`].
    pub fn start_with(settings: &AuditSettings, bounds: AuditBounds) -> io::Result<Audit> {
        let sink = match &settings.path {
            AuditPath::Stdout => Sink::stdout()?,
            AuditPath::File(path) => Sink::file(path, bounds).map_err(|error| unusable(path, &error))?,
        };
        let (kept, kept_out) = sync_channel(bounds.kept.max(1));
        let (others, others_out) = sync_channel(bounds.others.max(1));
        let counts = Arc::new(Counts::default());
        let writer = Writer::new(kept_out, others_out, sink, counts.clone(), bounds);
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Audit { kept, others, counts, writer: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Hands a record to the writer. Never blocks; what does not fit is dropped and counted.
    pub fn record(&self, record: Record) {
        let lane = if record.kind.is_kept() { &self.kept } else { &self.others };
        if lane.try_send(Box::new(record)).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Records that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    /// Records that were written since the start.
    pub fn written(&self) -> u64 {
        self.counts.written.load(Relaxed)
    }

    /// Writes that failed since the start.
    pub fn failures(&self) -> u64 {
        self.counts.failures.load(Relaxed)
    }

    /// Writes what was recorded before this call and ends the writer; records that come later are dropped. Waits at most
    /// five seconds. A second call does nothing.
    pub fn close(&self) {
        self.close_within(CLOSE_WAIT);
    }

    /// The same, waiting at most so long.
    pub fn close_within(&self, most: Duration) {
        self.counts.closing.store(true, Release);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        writer.thread().unpark();
        let until = Instant::now() + most;
        while !writer.is_finished() {
            if Instant::now() >= until {
                tracing::error!("the audit could not be written to its end within {most:?}");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // It has ended; how is of no interest any more.
        let _ = writer.join();
    }
}

impl Counts {
    fn is_closing(&self) -> bool {
        self.closing.load(Acquire)
    }
}

fn unusable(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the audit file {} cannot be opened for writing: {error}", path.display()))
}
