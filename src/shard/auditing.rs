//! What of a worker's decisions goes to the audit (GD-9).
//!
//! Denials are gathered: one record for each connection, code and second, with their number, also where codes alternate: there
//! are few of them. Faults of rules are many; of more than [`FAULTS_MAX`] at a time the last record stands for the others too.

use super::Shard;
use super::connection::{Denied, State};
use super::input::Now;
use super::output::Output;
use super::record::{Kind, Record};
use crate::protocol::codes::{CloseCode, Code};
use crate::protocol::handshake;
use crate::rules::judge::Refusal;

/// Denials of one code are gathered for this long, in milliseconds.
pub(super) const GATHER_MS: u64 = 1_000;
/// Records of faults that are gathered at a time for one connection.
const FAULTS_MAX: usize = 4;

impl Shard {
    pub(super) fn record_connect(&mut self, now: Now, slot: u32) {
        let record = self.record_of(now.unix_ms, slot, Kind::Connect);
        self.outputs.push(Output::Record(Box::new(record)));
    }

    pub(super) fn record_refused(&mut self, now: Now, slot: u32, refusal: &handshake::Refusal) {
        let mut record = self.record_of(now.unix_ms, slot, Kind::Refused);
        record.code = Some(refusal.code);
        record.reason = refusal.detail.clone().map(Into::into);
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
        self.tell_denials(now, slot);
        let Some(open) = self.open_mut(slot) else { return };
        let denials = &mut open.burden_mut().denials;
        if let Some(same) = denials.iter_mut().find(|one| one.code == code && one.fault.as_deref() == fault) {
            same.count += 1;
            return;
        }
        if fault.is_some()
            && let Some(last) = denials.iter_mut().filter(|one| one.fault.is_some()).nth(FAULTS_MAX - 1)
        {
            last.count += 1;
            last.is_mixed = true;
            return;
        }
        let (pipe, fault, since_ms) = (pipe.map(Into::into), fault.map(Into::into), now.ms());
        denials.push(Denied { code, pipe, fault, since_ms, ts_ms: now.unix_ms, count: 1, is_mixed: false });
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
        let Some(burden) = self.open_mut(slot).and_then(|open| open.burden.as_mut()) else { return };
        let due: Vec<Denied> = burden.denials.extract_if(.., |one| now.ms() >= one.since_ms + GATHER_MS).collect();
        due.into_iter().for_each(|one| self.tell_denied(slot, one));
    }

    /// The same whenever it is: the connection ends.
    pub(super) fn tell_denials_at_once(&mut self, slot: u32) {
        let Some(burden) = self.open_mut(slot).and_then(|open| open.burden.as_mut()) else { return };
        let denials = std::mem::take(&mut burden.denials);
        denials.into_iter().for_each(|one| self.tell_denied(slot, one));
    }

    fn tell_denied(&mut self, slot: u32, denied: Denied) {
        let kind = if denied.fault.is_some() { Kind::InternalError } else { Kind::Denied };
        let mut record = self.record_of(denied.ts_ms, slot, kind);
        record.code = Some(if denied.fault.is_some() { Code::Internal } else { denied.code });
        let others = if denied.is_mixed { "; further faults are counted here" } else { "" };
        record.reason = denied.fault.map(|fault| format!("{fault}{others}").into());
        record.pipe = denied.pipe;
        record.count = denied.count;
        self.outputs.push(Output::Record(Box::new(record)));
    }

    fn record_of(&self, ts_ms: u64, slot: u32, kind: Kind) -> Record {
        let mut record = Record::new(ts_ms, kind);
        match &self.slots[slot as usize].state {
            State::Open(open) => {
                record.connection = Some(self.connection_name(self.handle_of(slot)));
                record.user = open.identity.as_ref().map(|identity| identity.id().into());
                record.tenant = open.identity.as_ref().and_then(|identity| identity.tenant().map(Into::into));
                record.ip = Some(open.ip);
            }
            State::Greeting(greeting) => record.ip = Some(greeting.client_ip()),
            State::Authorizing(one) => record.ip = Some(one.ip),
            State::Closing(_) | State::Vacant => {}
        }
        record
    }
}
