//! Where the workers' calls arrive, and how their answers get back (`shard::call`).
//!
//! Invariant: every call that was taken is answered once, whatever becomes of it, unless its worker has ended. Taking one
//! never waits for another: each is looked after by a task of its own, and whatever bounds their number answers at once
//! when it is reached. Messages for queues get their places here, in the order in which they came.

use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::application::Application;
use super::link::Link;
use super::queues::Queues;
use super::service::{Failure, Service};
use crate::protocol::codes::Code;
use crate::shard::call::{Ask, Call, Outcome, PushAsk};
use crate::shard::command::{Act, Within};

/// Calls on their way from the workers to this thread. More: the worker answers for itself that there is no room.
pub const CALLS_MAX: usize = 8_192;

/// Who looks after the calls.
pub struct Desk {
    pub(super) service: Service,
    pub(super) link: Link,
    pub(super) application: Application,
    pub(super) queues: Queues,
}

impl Desk {
    /// Takes calls for as long as there are workers.
    pub async fn run(self, mut calls: Receiver<Box<Call>>) {
        let desk = Arc::new(self);
        while let Some(call) = calls.recv().await {
            desk.clone().take(*call);
        }
    }

    fn take(self: Arc<Desk>, call: Call) {
        let Call { worker, connection, number, ask } = call;
        let looked_after = self.clone().look_after(ask);
        tokio::spawn(async move {
            let outcome = Box::new(looked_after.await);
            self.link.tell(worker, Act::Answered { connection, number, outcome }).await;
        });
    }

    /// What must be in order is done before this returns.
    fn look_after(self: Arc<Desk>, ask: Ask) -> impl Future<Output = Outcome> + Send {
        let (ask, stored) = match ask {
            Ask::Enqueue(ask) => (None, Some(self.queues.enqueue(*ask))),
            ask => (Some(ask), None),
        };
        async move {
            match (ask, stored) {
                (_, Some(stored)) => Outcome::Enqueued(stored.await),
                (Some(Ask::Authorize(ask)), None) => Outcome::Authorized(self.application.authorize(*ask).await),
                (Some(Ask::Rule(ask)), None) => Outcome::Ruled(self.application.rule(ask).await),
                (Some(Ask::Action(ask)), None) => Outcome::Acted(self.application.act(ask).await),
                (Some(Ask::Push(ask)), None) => Outcome::Pushed(self.push(*ask).await),
                // Taken above.
                (Some(Ask::Enqueue(_)) | None, None) => Outcome::Enqueued(Err(Code::Internal)),
            }
        }
    }

    async fn push(&self, ask: PushAsk) -> Result<u64, Code> {
        let PushAsk { to, tenant, bytes } = ask;
        self.service.push_frame(to, Within::Tenant(tenant), bytes).await.map_err(|failure| match failure {
            Failure::Draining => Code::Draining,
            _ => Code::Overloaded,
        })
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
