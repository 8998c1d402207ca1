//! What workers tell the control thread by themselves: records for the audit, revocations that have ended, and calls for
//! the application.
//!
//! None of it ever waits. A record that does not fit is counted by the audit. A revocation that does not fit stays in force
//! for other connections until the next authorization that ends it says so again: late, never lost. A call that does not
//! fit comes back, and the worker answers it.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::audit::Audit;
use super::desk::CALLS_MAX;
use super::service::Service;
use crate::shard::call::Call;
use crate::shard::record::Record;
use crate::shard::revocation::Revocation;
use crate::worker::Witness;

/// Revocations on their way to be lifted.
const LIFTS_MAX: usize = 1024;

/// The workers' end.
pub struct Told {
    audit: Audit,
    lifts: Sender<Arc<Revocation>>,
    calls: Sender<Box<Call>>,
}

/// Both ends: revocations to lift, and calls to look after.
pub fn witness(audit: Audit) -> (Arc<Told>, Receiver<Arc<Revocation>>, Receiver<Box<Call>>) {
    let (lifts, lifted) = channel(LIFTS_MAX);
    let (calls, called) = channel(CALLS_MAX);
    (Arc::new(Told { audit, lifts, calls }), lifted, called)
}

/// Lifts what workers say has ended, one after the other.
pub async fn lift(service: Service, mut lifted: Receiver<Arc<Revocation>>) {
    while let Some(revocation) = lifted.recv().await {
        service.lift_reauthorized(revocation).await;
    }
}

impl Witness for Told {
    fn record(&self, record: Record) {
        self.audit.record(record);
    }

    fn reauthorized(&self, revocation: Arc<Revocation>) {
        // Full: see the head of this file.
        let _ = self.lifts.try_send(revocation);
    }

    fn call(&self, call: Box<Call>) -> Result<(), Box<Call>> {
        self.calls.try_send(call).map_err(|(TrySendError::Full(call) | TrySendError::Closed(call))| call)
    }
}
