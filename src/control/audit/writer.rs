//! The thread that writes: lanes to batches, batches to the sink.
//!
//! Invariant: every record that was handed over is counted once, as written or as dropped, and the `dropped` of all
//! lines written add up to the drops before them. A place that cannot be written costs the batch, never the thread.
//! Records of a batch are sorted by time; a record of one lane may follow a later one of the other by one batch.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::sink::Sink;
use super::{AuditBounds, Counts, line};
use crate::shard::record::{Kind, Record};

/// Records taken from one lane at a time.
const TAKEN_MAX: usize = 1024;
/// Bytes gathered into one write.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Between two complaints in the log.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Writer {
    kept: Receiver<Box<Record>>,
    others: Receiver<Box<Record>>,
    sink: Sink,
    counts: Arc<Counts>,
    interval: Duration,
    batch_bytes: usize,
    records: Vec<Record>,
    batch: Vec<u8>,
    line: Vec<u8>,
    /// Records in the batch.
    in_batch: u64,
    /// Drops that a line in the batch tells of.
    dropped_in_batch: u64,
    /// Drops that were told of.
    told: u64,
    /// When the log was last told of a failure, and of drops.
    complained: [Option<Instant>; 2],
}

impl Writer {
    pub fn new(
        kept: Receiver<Box<Record>>,
        others: Receiver<Box<Record>>,
        sink: Sink,
        counts: Arc<Counts>,
        bounds: AuditBounds,
    ) -> Writer {
        Writer {
            kept,
            others,
            sink,
            counts,
            interval: bounds.interval,
            batch_bytes: usize::try_from(bounds.file_bytes).unwrap_or(usize::MAX).min(BATCH_BYTES_MAX),
            records: Vec::new(),
            batch: Vec::new(),
            line: Vec::new(),
            in_batch: 0,
            dropped_in_batch: 0,
            told: 0,
            complained: [None; 2],
        }
    }

    /// Until [`super::Audit::close`], or until nobody can hand records over any more.
    pub fn run(mut self) {
        loop {
            // Looked at before the lanes are: what was recorded before the close is in them.
            let closing = self.counts.is_closing();
            let alone = loop {
                let (full, alone) = self.take();
                self.write_records();
                if !full {
                    break alone;
                }
            };
            if closing || alone {
                return;
            }
            std::thread::park_timeout(self.interval);
        }
    }

    /// Takes records from both lanes: whether there may be more, and whether nobody is left to send any. The kept lane is
    /// first, so that what a worker recorded before is found in the other one.
    fn take(&mut self) -> (bool, bool) {
        let mut full = false;
        let mut alone = true;
        for lane in [&self.kept, &self.others] {
            let most = self.records.len() + TAKEN_MAX;
            let end = loop {
                match lane.try_recv() {
                    Ok(record) => self.records.push(*record),
                    Err(end) => break Some(end),
                }
                if self.records.len() == most {
                    break None;
                }
            };
            full |= end.is_none();
            alone &= end == Some(TryRecvError::Disconnected);
        }
        (full, alone)
    }

    fn write_records(&mut self) {
        let mut records = mem::take(&mut self.records);
        // In the same millisecond a connection begins before it ends.
        records.sort_by_key(|record| (record.ts_ms, record.kind != Kind::Connect));
        self.tell_dropped(records.first().map(|first| first.ts_ms));
        for record in records.drain(..) {
            self.line.clear();
            line::write(&record, &mut self.line);
            self.append();
            self.in_batch += 1;
        }
        self.flush();
        self.records = records;
    }

    /// Puts a line about missing records before the next one, if there is one.
    fn tell_dropped(&mut self, next_ts_ms: Option<u64>) {
        let dropped = self.counts.dropped.load(Relaxed);
        let untold = dropped - self.told;
        if untold == 0 {
            return;
        }
        let ts_ms = next_ts_ms.unwrap_or_else(unix_ms);
        self.line.clear();
        line::write_dropped(ts_ms, untold, &mut self.line);
        self.append();
        self.dropped_in_batch = untold;
        self.told = dropped;
        if self.may_complain(1) {
            tracing::warn!("{untold} audit records were dropped, {dropped} since the start");
        }
    }

    /// Adds the line to the batch.
    fn append(&mut self) {
        if self.batch.len() + self.line.len() > self.batch_bytes {
            self.flush();
        }
        self.batch.extend_from_slice(&self.line);
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let outcome = self.sink.write(&self.batch);
        let mut lost = newlines(&self.batch[outcome.bytes..]);
        if self.dropped_in_batch > 0 && outcome.bytes == 0 {
            // The line about the drops is the first one: it is to be told again, and is no record.
            self.told -= self.dropped_in_batch;
            lost -= 1;
        }
        if outcome.bytes < self.batch.len() {
            self.counts.failures.fetch_add(1, Relaxed);
        }
        self.counts.dropped.fetch_add(lost, Relaxed);
        self.counts.written.fetch_add(self.in_batch - lost, Relaxed);
        self.batch.clear();
        self.in_batch = 0;
        self.dropped_in_batch = 0;
        if let Some(error) = outcome.error
            && self.may_complain(0)
        {
            let dropped = self.counts.dropped.load(Relaxed);
            tracing::error!("the audit cannot be written as it should: {error}; {dropped} records were dropped so far");
        }
    }

    fn may_complain(&mut self, what: usize) -> bool {
        let may = self.complained[what].is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL);
        if may {
            self.complained[what] = Some(Instant::now());
        }
        may
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
