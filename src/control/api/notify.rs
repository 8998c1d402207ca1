//! `notify`: pushes that nobody waits for.
//!
//! One queue and one task, so that pushes are carried out in the order in which they were taken, and so that those who do not
//! wait cannot pile up without end.

use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::operations::Operations;
use super::refusal::Refusal;
use crate::bounds::{NOTICE_BYTES_MAX, NOTICES_MAX};
use crate::protocol::codes::Code;
use crate::shard::command::Who;

/// One push.
pub(super) struct Notice {
    /// To whom.
    pub to: Who,
    /// Name of the event.
    pub event: String,
    /// JSON.
    pub data: Box<str>,
}

/// A push, and its part of the room.
type Waiting = (Notice, OwnedSemaphorePermit);

/// The entry of the queue.
pub(super) struct Notices {
    queue: Sender<Waiting>,
    room: Arc<Semaphore>,
}

impl Notices {
    /// Starts the task; it ends with the last entry.
    pub fn start<O: Operations>(operations: O) -> Notices {
        let (queue, mut waiting): (_, Receiver<Waiting>) = channel(NOTICES_MAX);
        tokio::spawn(async move {
            while let Some((notice, _room)) = waiting.recv().await {
                // Nobody waits for the outcome; what could not be delivered is counted by the workers.
                let _ = operations.push(notice.to, &notice.event, &notice.data).await;
            }
        });
        Notices { queue, room: Arc::new(Semaphore::new(NOTICE_BYTES_MAX)) }
    }

    /// Takes a push to be carried out later.
    ///
    /// # Errors
    /// `OVERLOADED`: too many wait already.
    pub fn take(&self, notice: Notice) -> Result<(), Refusal> {
        let full = || Refusal::new(Code::Overloaded, "Too many notifications wait; try again later");
        let bytes = u32::try_from(notice.data.len()).map_err(|_| full())?;
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| full())?;
        self.queue.try_send((notice, room)).map_err(|_| full())
    }
}
