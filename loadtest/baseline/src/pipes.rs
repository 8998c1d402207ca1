//! Who receives what: one map under one mutex, as simple as it gets.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use futures_channel::mpsc::UnboundedSender;
use tokio_tungstenite::tungstenite::Message;

/// The way to one connection's task.
pub type Sender = UnboundedSender<Message>;

/// Subscribers by pipe, each with the channel of its connection.
#[derive(Default)]
pub struct Pipes {
    subscribers: Mutex<HashMap<String, Vec<(u64, Sender)>>>,
}

impl Pipes {
    /// Subscribes a connection; the caller knows that it is not subscribed yet.
    pub fn join(&self, pipe: &str, connection: u64, sender: &Sender) {
        let mut pipes = self.subscribers.lock().expect("nobody panics while holding it");
        pipes.entry(pipe.to_owned()).or_default().push((connection, sender.clone()));
    }

    /// Queues a message for every subscriber of the pipe; the text is shared, not copied.
    pub fn publish(&self, pipe: &str, message: &Message, left_out: Option<u64>) {
        let pipes = self.subscribers.lock().expect("nobody panics while holding it");
        for (id, sender) in pipes.get(pipe).into_iter().flatten() {
            if Some(*id) != left_out {
                let _ = sender.unbounded_send(message.clone());
            }
        }
    }

    /// Removes a connection that has ended from the pipes that it joined.
    pub fn leave(&self, joined: &HashSet<String>, connection: u64) {
        let mut pipes = self.subscribers.lock().expect("nobody panics while holding it");
        for pipe in joined {
            if let Some(subscribers) = pipes.get_mut(pipe) {
                subscribers.retain(|(id, _)| *id != connection);
                if subscribers.is_empty() {
                    pipes.remove(pipe);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_channel::mpsc::unbounded;

    #[test]
    fn echo_false_leaves_out_only_the_sender_and_a_leaver_gets_nothing() {
        let pipes = Pipes::default();
        let (first, mut first_inbox) = unbounded();
        let (second, mut second_inbox) = unbounded();
        pipes.join("a", 1, &first);
        pipes.join("a", 2, &second);
        pipes.publish("a", &Message::text("x"), Some(2));
        assert!(first_inbox.try_recv().is_ok());
        assert!(second_inbox.try_recv().is_err());
        pipes.leave(&HashSet::from(["a".to_owned(), "unknown".to_owned()]), 1);
        pipes.publish("a", &Message::text("y"), None);
        assert!(first_inbox.try_recv().is_err());
        assert!(second_inbox.try_recv().is_ok());
    }
}
