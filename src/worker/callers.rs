//! Handshakes that wait for their turn.
//!
//! When everybody reconnects at once, thousands of requests arrive in one go, each a dozen times the work of a message.
//! They are put aside, copied out of the shared receive buffers, and answered a few in each tick, so that nobody's message waits
//! for all of them (`loadtest tails storm`).
//!
//! Bound: while `CALLERS_MAX` wait nobody is accepted, and of each no more is kept than a request may have.

use std::collections::{HashMap, VecDeque};

use crate::bounds::HEAD_BYTES_MAX;
use crate::shard::connection::Handle;

/// See the module.
#[derive(Default)]
pub struct Callers {
    /// Slot and generation, in the order of arrival; those who were taken out of turn are passed over.
    order: VecDeque<(u32, u32)>,
    bytes: HashMap<(u32, u32), Vec<u8>>,
}

impl Callers {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// Whether bytes of this connection wait: later ones must wait too.
    pub fn has(&self, connection: Handle) -> bool {
        !self.bytes.is_empty() && self.bytes.contains_key(&key(connection))
    }

    /// Puts bytes aside. False: with these it would be more than a request may have; nothing was taken.
    pub fn add(&mut self, connection: Handle, bytes: &[u8]) -> bool {
        let waiting = self.bytes.get(&key(connection)).map_or(0, Vec::len);
        if waiting + bytes.len() > HEAD_BYTES_MAX {
            return false;
        }
        let kept = self.bytes.entry(key(connection)).or_insert_with(|| {
            self.order.push_back(key(connection));
            Vec::new()
        });
        kept.extend_from_slice(bytes);
        true
    }

    /// What this connection has sent, if it waits; out of turn.
    pub fn take(&mut self, connection: Handle) -> Option<Vec<u8>> {
        if self.bytes.is_empty() { None } else { self.bytes.remove(&key(connection)) }
    }

    /// Whose turn it is, and what was sent.
    pub fn next(&mut self) -> Option<(Handle, Vec<u8>)> {
        loop {
            let (slot, generation) = self.order.pop_front()?;
            if let Some(bytes) = self.bytes.remove(&(slot, generation)) {
                return Some((Handle { slot, generation }, bytes));
            }
        }
    }
}

fn key(connection: Handle) -> (u32, u32) {
    (connection.slot, connection.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Handle = Handle { slot: 1, generation: 7 };
    const BEN: Handle = Handle { slot: 2, generation: 7 };

    #[test]
    fn they_come_in_the_order_of_arrival_with_all_that_they_sent() {
        let mut callers = Callers::default();
        assert!(callers.add(ANN, b"GET ") && callers.add(BEN, b"x") && callers.add(ANN, b"/"));
        assert!(callers.has(ANN) && !callers.has(Handle { generation: 8, ..ANN }));
        assert_eq!(callers.next(), Some((ANN, b"GET /".to_vec())));
        assert_eq!(callers.next(), Some((BEN, b"x".to_vec())));
        assert_eq!((callers.next(), callers.is_empty()), (None, true));
    }

    #[test]
    fn who_was_taken_out_of_turn_is_passed_over() {
        let mut callers = Callers::default();
        assert!(callers.add(ANN, b"a") && callers.add(BEN, b"b"));
        assert_eq!(callers.take(ANN), Some(b"a".to_vec()));
        assert_eq!((callers.take(ANN), callers.has(ANN)), (None, false));
        assert_eq!(callers.next(), Some((BEN, b"b".to_vec())));
    }

    #[test]
    fn no_more_is_kept_of_one_than_a_request_may_have() {
        let mut callers = Callers::default();
        assert!(callers.add(ANN, &vec![0; HEAD_BYTES_MAX]));
        assert!(!callers.add(ANN, b"x"));
        assert!(!callers.add(BEN, &vec![0; HEAD_BYTES_MAX + 1]));
        assert_eq!(callers.next().map(|(_, bytes)| bytes.len()), Some(HEAD_BYTES_MAX));
        assert!(callers.is_empty());
    }
}
