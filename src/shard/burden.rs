//! What a connection carries only at times: rates that are not full again, an unfinished message, input that waits,
//! denials that the audit was not told, what is revoked for its user.
//!
//! One pointer in each connection, made when first needed and given back when a look at the connection finds that it
//! carries nothing: whoever does nothing but answer pings has none.

use std::sync::Arc;

use super::connection::{Denied, Held, Open};
use super::rate::Bucket;
use super::revocation::Revocation;
use super::throttle::{KINDS, Kind, Throttle};
use crate::protocol::frame::Reader;

/// The kinds whose buckets lie in the connection itself, because a pong takes of them too: messages and bytes.
const STEADY: usize = 2;
const _: () = assert!((Kind::Message as usize) < STEADY && (Kind::Bytes as usize) < STEADY);

/// The buckets that every connection has.
pub(super) type Steady = [Bucket; STEADY];

/// See the module.
#[derive(Default)]
pub(super) struct Burden {
    /// The unfinished frame or message.
    pub reader: Reader,
    /// When the unfinished message began; 0 = there is none.
    pub unfinished_since_ms: u64,
    /// Bytes of the unfinished message that have come, those of its frames' headers included.
    pub unfinished_bytes: u32,
    /// Bytes that were taken from the rate before their message was whole. Those of a refused one count for the next.
    pub charged_bytes: u32,
    pub held: Option<Box<Held>>,
    pub throttle: Option<Box<Throttle>>,
    /// Denials not yet told to the audit, each code by itself (INVARIANTS 33). No more than there are codes, and a few
    /// faults: see `auditing`.
    pub denials: Vec<Denied>,
    /// What is revoked for its user.
    pub revoked: Vec<Arc<Revocation>>,
    buckets: [Bucket; KINDS - STEADY],
}

impl Burden {
    /// Whether there is nothing in it that anybody could miss.
    fn is_nothing(&self, now_ns: u64) -> bool {
        let Burden {
            reader,
            unfinished_since_ms,
            unfinished_bytes,
            charged_bytes,
            held,
            throttle,
            denials,
            revoked,
            buckets,
        } = self;
        reader.kept_bytes() == 0
            && (*unfinished_since_ms, *unfinished_bytes, *charged_bytes) == (0, 0, 0)
            && held.is_none()
            && throttle.is_none()
            && denials.is_empty()
            && revoked.is_empty()
            && !buckets.iter().any(|bucket| bucket.owes(now_ns))
    }
}

impl Open {
    /// What it carries, made when first needed.
    #[inline]
    pub fn burden_mut(&mut self) -> &mut Burden {
        self.burden.get_or_insert_default()
    }

    /// Gives back what is carried for nothing.
    pub fn unburden(&mut self, now_ns: u64) {
        self.burden.take_if(|burden| burden.is_nothing(now_ns));
    }

    /// The bucket of a rate; one that was never needed is full.
    #[inline]
    pub fn bucket(&self, kind: Kind) -> Bucket {
        match self.steady.get(kind as usize) {
            Some(bucket) => *bucket,
            None => self.burden.as_ref().map_or_else(Bucket::default, |burden| burden.buckets[kind as usize - STEADY]),
        }
    }

    /// The same, to take from.
    #[inline]
    pub fn bucket_mut(&mut self, kind: Kind) -> &mut Bucket {
        match self.steady.get_mut(kind as usize) {
            Some(bucket) => bucket,
            None => &mut self.burden.get_or_insert_default().buckets[kind as usize - STEADY],
        }
    }

    /// Input that waits.
    pub fn held(&self) -> Option<&Held> {
        self.burden.as_ref()?.held.as_deref()
    }

    /// The same, taken.
    pub fn take_held(&mut self) -> Option<Box<Held>> {
        self.burden.as_mut()?.held.take()
    }

    /// The unfinished frame or message, taken.
    pub fn take_reader(&mut self) -> Reader {
        self.burden.as_mut().map(|burden| std::mem::take(&mut burden.reader)).unwrap_or_default()
    }

    /// When the unfinished message began; 0 = there is none.
    pub fn unfinished_since_ms(&self) -> u64 {
        self.burden.as_ref().map_or(0, |burden| burden.unfinished_since_ms)
    }

    /// Input that is kept, in bytes.
    pub fn input_bytes(&self) -> usize {
        self.burden
            .as_ref()
            .map_or(0, |burden| burden.reader.kept_bytes() + burden.held.as_ref().map_or(0, |held| held.bytes()))
    }

    /// Denials not yet told to the audit.
    pub fn denials(&self) -> &[Denied] {
        self.burden.as_ref().map_or(&[], |burden| &burden.denials)
    }

    /// What is revoked for its user.
    pub fn revoked(&self) -> &[Arc<Revocation>] {
        self.burden.as_ref().map_or(&[], |burden| &burden.revoked)
    }

    /// Replaces what is revoked for its user.
    pub fn set_revoked(&mut self, revoked: Vec<Arc<Revocation>>) {
        if self.burden.is_some() || !revoked.is_empty() {
            self.burden_mut().revoked = revoked;
        }
    }
}
