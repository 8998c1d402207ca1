//! What of a worker's decisions goes to the audit (GD-9).
//!
//! Denials are gathered: one record for each connection, code and second, with their number.

use super::Shard;
use super::connection::{Denials, Open, State};
use super::input::Now;
use super::output::Output;
use super::record::{Kind, Record};
use crate::protocol::codes::{CloseCode, Code};
use crate::rules::judge::Refusal;

/// Denials of one code are gathered for this long, in milliseconds.
pub(super) const GATHER_MS: u64 = 1_000;

impl Shard {
    pub(super) fn record_connect(&mut self, now: Now, slot: u32) {
        let record = self.record_of(now.unix_ms, slot, Kind::Connect);
        self.outputs.push(Output::Record(Box::new(record)));
    }

    pub(super) fn record_refused(&mut self, now: Now, slot: u32, code: Code) {
        let mut record = self.record_of(now.unix_ms, slot, Kind::Refused);
        record.code = Some(code);
        self.outputs.push(Output::Record(Box::new(record)));
    }

    /// A connection is about to be closed by us.
    pub(super) fn record_disconnect(&mut self, now: Now, slot: u32, close: CloseCode, reason: &'static str) {
        let mut record = self.record_of(now.unix_ms, slot, Kind::Disconnect);
        record.close = Some(close);
        record.reason = Some(reason.into());
        self.outputs.push(Output::Record(Box::new(record)));
    }

    /// A message was denied.
    pub(super) fn note_denial(&mut self, now: Now, slot: u32, code: Code, pipe: Option<&str>) {
        self.note(now, slot, code, pipe, None);
    }

    /// A message was denied by rules. A rule that failed is an internal error to the operator (RK-6).
    pub(super) fn note_refusal(&mut self, now: Now, slot: u32, refusal: &Refusal, item: Option<&str>) {
        // Codes of the configuration and of the application count as what they are: a plain no.
        let code = Code::of_name(&refusal.code).unwrap_or(Code::Forbidden);
        self.note(now, slot, code, item, refusal.fault.as_deref());
    }

    /// A rule failed without refusing a message: what it decides is denied.
    pub(super) fn note_fault(&mut self, now: Now, slot: u32, item: &str, fault: Option<Box<str>>) {
        if let Some(fault) = fault {
            self.note(now, slot, Code::Internal, Some(item), Some(&fault));
        }
    }

    fn note(&mut self, now: Now, slot: u32, code: Code, pipe: Option<&str>, fault: Option<&str>) {
        self.counters.deny(code);
        self.counters.rule_faults += u64::from(fault.is_some());
        if let Some(open) = self.open_mut(slot)
            && let Some(denials) = &mut open.denials
            && denials.code == code
            && denials.fault.as_deref() == fault
        {
            denials.count += 1;
            return;
        }
        self.tell_denials_at_once(slot);
        let Some(open) = self.open_mut(slot) else { return };
        let since_ms = now.ms();
        let (pipe, fault) = (pipe.map(Into::into), fault.map(Into::into));
        open.denials = Some(Box::new(Denials { code, pipe, fault, since_ms, ts_ms: now.unix_ms, count: 1 }));
        self.wake_at(slot, since_ms + GATHER_MS);
    }

    /// The application did not say who somebody is, or not as it must: a handshake or a refresh failed for that.
    pub(super) fn record_authorize_fault(&mut self, now: Now, slot: u32, what: String) {
        self.counters.authorize_faults += 1;
        let mut record = self.record_of(now.unix_ms, slot, Kind::InternalError);
        record.code = Some(Code::Internal);
        record.reason = Some(what.into());
        self.outputs.push(Output::Record(Box::new(record)));
    }

    /// Hands gathered denials to the audit, if their second is over.
    pub(super) fn tell_denials(&mut self, now: Now, slot: u32) {
        let due = |open: &mut Open| open.denials.as_ref().is_some_and(|one| now.ms() >= one.since_ms + GATHER_MS);
        if self.open_mut(slot).is_some_and(due) {
            self.tell_denials_at_once(slot);
        }
    }

    /// The same whenever it is: the connection ends, or another code begins.
    pub(super) fn tell_denials_at_once(&mut self, slot: u32) {
        let Some(denials) = self.open_mut(slot).and_then(|open| open.denials.take()) else { return };
        let kind = if denials.fault.is_some() { Kind::InternalError } else { Kind::Denied };
        let mut record = self.record_of(denials.ts_ms, slot, kind);
        record.code = Some(if denials.fault.is_some() { Code::Internal } else { denials.code });
        record.reason = denials.fault.map(|fault| fault.into_string().into());
        record.pipe = denials.pipe;
        record.count = denials.count;
        self.outputs.push(Output::Record(Box::new(record)));
    }

    fn record_of(&self, ts_ms: u64, slot: u32, kind: Kind) -> Record {
        let mut record = Record::new(ts_ms, kind);
        match &self.slots[slot as usize].state {
            State::Open(open) => {
                record.connection = Some(self.connection_name(self.handle_of(slot)));
                record.user = open.identity.as_ref().map(|identity| identity.id.clone());
                record.tenant = open.identity.as_ref().and_then(|identity| identity.tenant.clone());
                record.ip = Some(open.ip);
            }
            State::Greeting(greeting) => record.ip = Some(greeting.peer.ip()),
            State::Authorizing(one) => record.ip = Some(one.ip),
            State::Closing(_) | State::Vacant => {}
        }
        record
    }
}
