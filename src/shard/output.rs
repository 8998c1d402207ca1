//! Everything that a worker's core may ask its shell for, besides the writes of [`super::Shard::next_write`].

use std::sync::Arc;

use super::call::Call;
use super::connection::Handle;
use super::record::Record;
use super::revocation::Revocation;

/// One effect, to be performed in the order given.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Stop receiving from this connection. What was already received may still be handed in.
    Pause(Handle),
    /// Receive from it again.
    Resume(Handle),
    /// Nothing more will be written: end our side of the stream, keep receiving.
    Finish(Handle),
    /// The connection is over and its handle is void: close the socket.
    Close {
        /// Which.
        connection: Handle,
        /// Throw away what the kernel has not sent yet, instead of trying to deliver it.
        reset: bool,
    },
    /// Tell the audit. Never waits: what does not fit is counted.
    Record(Box<Record>),
    /// Ask the application, or the control thread. Answered once, by [`super::command::Act::Answered`] or
    /// [`super::input::Input::Answered`].
    Call(Box<Call>),
    /// A client named a queue that nobody has defined: warn the operator (RK-7). At most the first 100 characters.
    UnknownQueue(Box<str>),
    /// A later authorization has ended this revocation (D4): lift it everywhere.
    Reauthorized(Arc<Revocation>),
}
