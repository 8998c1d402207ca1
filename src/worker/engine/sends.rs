//! Buffers on their way to the kernel: one per socket with a send in flight, none otherwise.
//!
//! Invariant: an entry is taken out only when the kernel has completed (or never saw) the send of it, so what it reads
//! is alive. The table grows to the largest number of sends that were ever in flight at once, which the callers bound
//! (at most one per socket).

use super::StableBytes;

pub(super) struct Sends<B> {
    entries: Vec<Entry<B>>,
    free: Vec<u32>,
}

struct Entry<B> {
    buffer: Option<B>,
    sent_bytes: usize,
}

impl<B: StableBytes> Sends<B> {
    pub(super) fn new() -> Sends<B> {
        Sends { entries: Vec::new(), free: Vec::new() }
    }

    /// Keeps `buffer`; returns its index.
    pub(super) fn insert(&mut self, buffer: B) -> u32 {
        let entry = Entry { buffer: Some(buffer), sent_bytes: 0 };
        match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        }
    }

    /// What is still to be sent; empty when all was taken, or for an index not in use.
    pub(super) fn rest(&self, index: u32) -> &[u8] {
        let Some(entry) = self.entries.get(index as usize) else { return &[] };
        let bytes = entry.buffer.as_ref().map_or(&[][..], |buffer| buffer.as_ref());
        bytes.get(entry.sent_bytes..).unwrap_or(&[])
    }

    /// Counts `bytes` as taken by the kernel; true when that was the last of them.
    pub(super) fn advance(&mut self, index: u32, bytes: usize) -> bool {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.sent_bytes += bytes;
        }
        self.rest(index).is_empty()
    }

    /// Drops the buffer.
    pub(super) fn remove(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize)
            && entry.buffer.take().is_some()
        {
            self.free.push(index);
        }
    }
}
