//! What really went out to a client, held against what must.
//!
//! Every frame must be the next one expected, byte for byte. Where the order is open (events taken from several rings
//! in one turn) only each publisher's own order is asked for. A connection that drops its oldest may lack events; then
//! it must have been told, for each pipe, before its next event, and exactly so many when all is out.

use pipeward::bounds::WRITE_BYTES_MAX;
use pipeward::config::WhenSlow;
use pipeward::protocol::frame::server_frame;

use super::wire::What;
use super::{Client, Connection, Model, Phase};

const LAGGED: &str = r#"{"type":"system","event":"lagged","pipe":"#;

impl Model {
    /// A write was begun: whole frames, after the response to a handshake.
    pub fn written(&mut self, client: Client, chunk: &[u8]) {
        let drops = self.plan.when_slow == WhenSlow::DropOldest;
        let limit = self.plan.queue_bytes;
        let connection = &mut self.connections[client];
        assert!(connection.phase != Phase::Gone, "a write for a connection that has ended");
        assert_eq!(connection.sending, 0, "two writes at a time");
        assert!(!chunk.is_empty(), "an empty write");
        let everything = connection.expected.iter().map(|one| one.bytes).sum::<usize>() <= WRITE_BYTES_MAX;
        connection.sending = chunk.len();
        let mut rest = connection.take_response(chunk);
        let mut delivered = Vec::new();
        // What may stand in the queue over its limit.
        let mut beside = chunk.len() - rest.len();
        while !rest.is_empty() {
            let frame = server_frame(rest).unwrap_or_else(|| panic!("a frame is cut in two: {}", show(rest)));
            assert!(!connection.close_seen, "a frame after the close frame: {}", show(frame.payload));
            let text = std::str::from_utf8(frame.payload).unwrap_or_default();
            if let (1, Some(lagged)) = (frame.opcode, text.strip_prefix(LAGGED)) {
                assert!(drops, "lagged where the slow are closed");
                connection.told(lagged);
                beside += frame.size;
            } else {
                let taken = connection.take_frame(frame.opcode, frame.payload, drops);
                if let What::Event { pipe, number, .. } = taken {
                    delivered.push((pipe, number));
                }
                if frame.opcode == 8 || text.starts_with(r#"{"type":"welcome""#) {
                    beside += frame.size;
                }
            }
            rest = &rest[frame.size..];
        }
        assert!(chunk.len() - beside <= limit, "{} bytes in a queue of {limit}", chunk.len() - beside);
        if everything {
            connection.all_out(drops);
        }
        for (pipe, number) in delivered {
            self.may_reach(client, &pipe, number);
        }
    }

    /// Nothing more is to be written now, so nothing may be left that must be.
    pub fn nothing_waits(&self, client: Client) {
        let connection = &self.connections[client];
        if connection.sending > 0 || connection.phase == Phase::Gone {
            return;
        }
        let left: Vec<_> = connection.expected.iter().filter(|one| !one.optional).collect();
        assert!(left.is_empty(), "client {client} misses {} frames, and was not told: {:?}", left.len(), left[0].what);
    }
}

impl Connection {
    fn take_response<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        match self.expected.front().map(|one| one.what.clone()) {
            Some(What::Refusal(status)) => {
                let line = format!("HTTP/1.1 {status} ");
                assert!(chunk.starts_with(line.as_bytes()), "expected {line}, got {}", show(chunk));
                self.expected.pop_front();
                &[]
            }
            Some(What::Accept(head)) => {
                assert!(chunk.starts_with(head.as_bytes()), "expected {head}, got {}", show(chunk));
                self.expected.pop_front();
                &chunk[head.len()..]
            }
            _ => chunk,
        }
    }

    /// What it was.
    pub fn take_frame(&mut self, opcode: u8, payload: &[u8], drops: bool) -> What {
        let Some(place) = self.expected.iter().position(|one| one.what.is_frame(opcode, payload)) else {
            let next = self.expected.front().map(|one| &one.what);
            panic!("not expected: opcode {opcode} {}; next should come {next:?}", show(payload));
        };
        let matched = self.expected.remove(place).expect("it is there");
        let mut passed = Vec::new();
        for index in 0..place {
            let one = &self.expected[index];
            if one.batch == matched.batch && one.lane != matched.lane {
                continue;
            }
            let left_out = one.optional || (drops && one.what.is_event());
            assert!(left_out, "out of order or missing: {:?} should come before {}", one.what, show(payload));
            passed.push(index);
        }
        for index in passed.into_iter().rev() {
            if let Some(one) = self.expected.remove(index)
                && let (false, What::Event { pipe, .. }) = (one.optional, one.what)
            {
                *self.missing.entry(pipe).or_default() += 1;
            }
        }
        if let What::Event { pipe, .. } = &matched.what {
            let (missing, told) = (self.missing.get(pipe), self.told.get(pipe));
            assert!(missing <= told, "an event of {pipe} before it was told that {missing:?} are missing ({told:?})");
        }
        self.close_seen |= opcode == 8;
        matched.what
    }

    fn told(&mut self, lagged: &str) {
        let (pipe, dropped) = lagged.rsplit_once(r#","dropped":"#).expect("lagged says how many");
        let dropped: u64 = dropped.trim_end_matches('}').parse().expect("a number");
        assert!(dropped > 0, "lagged by nothing");
        let pipe = pipe.trim_matches('"').replace("\\\"", "\"").replace("\\\\", "\\");
        *self.told.entry(pipe).or_default() += dropped;
    }

    /// Everything that waited is out: what is left was left out, and was told.
    fn all_out(&mut self, drops: bool) {
        for one in self.expected.drain(..).filter(|one| !one.optional) {
            let What::Event { pipe, .. } = &one.what else { panic!("missing: {:?}", one.what) };
            assert!(drops, "missing, and not closed as too slow: {:?}", one.what);
            *self.missing.entry(pipe.clone()).or_default() += 1;
        }
        assert!(self.unsure || self.missing == self.told, "left out {:?}, told {:?}", self.missing, self.told);
        assert!(self.missing.is_empty() || self.overflowed, "left out although there was room: {:?}", self.missing);
        self.missing.clear();
        self.told.clear();
        self.overflowed = false;
    }
}

/// Bytes for people.
pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).collect()
}

const _: () = assert!(WRITE_BYTES_MAX >= 8 * 4_000, "a limited queue goes out in one write");
