//! What each thing that a client sends must do.

use pipeward::protocol::codes::Code;
use pipeward::shard::input::Now;

use super::rights::Right;
use super::wire::{Request, Sent, quote};
use super::{Client, Model, Parcel};

impl Model {
    /// Takes one thing. A publish finds room, or is refused.
    pub fn take(&mut self, now: Now, client: Client, sent: Sent) {
        match sent {
            Sent::Head { pass, subprotocol } => self.greet(now, client, pass, subprotocol),
            Sent::Message { id, request } => {
                self.count("messages_in", 1);
                self.message(now, client, id, request);
            }
            Sent::Malformed { id, error } => {
                self.count("messages_in", 1);
                self.count("malformed", 1);
                self.error(client, id.as_deref(), Code::Invalid, &error);
            }
            Sent::Ping(payload) => {
                self.count("messages_in", 1);
                self.control(client, 10, payload);
            }
            Sent::Pong => self.count("messages_in", 1),
            Sent::Close(code) => {
                self.count("closed[1000]", 1);
                let payload = code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec());
                self.close_with(now, client, payload, false);
                self.connections[client].peer_done = true;
            }
            Sent::Broken(code) => {
                self.count("malformed", 1);
                let reason = match code {
                    1002 => "protocol error",
                    1003 => "binary messages are not supported",
                    1007 => "text is not UTF-8",
                    _ => "message too big",
                };
                self.close(now, client, code, reason, false);
            }
            Sent::Half => unreachable!("it has no end"),
        }
    }

    fn message(&mut self, now: Now, client: Client, id: Option<String>, request: Request) {
        let id = id.as_deref();
        let anonymous = self.connections[client].person.is_none();
        match request {
            Request::Subscribe { pipes, batch, presence, events } => {
                self.each(client, id, pipes, batch, |model, pipe| model.subscribe(client, pipe, presence, &events));
            }
            Request::Unsubscribe { pipes, batch } => self.each(client, id, pipes, batch, |model, pipe| {
                let left = model.connections[client].subscriptions.remove(pipe);
                left.map(drop).ok_or(Code::NotSubscribed)
            }),
            Request::Publish { pipe, event, data, echo } => {
                if let Err(code) = self.decide(client, &pipe, Right::Publish) {
                    return self.error(client, id, code, code.text());
                }
                self.event(now, client, pipe, event, &data, echo);
                self.ok(client, id);
            }
            Request::Ping => {
                let id = id.map_or(String::new(), |id| format!(r#","id":{id}"#));
                self.say(client, format!(r#"{{"type":"pong"{id}}}"#));
            }
            // Nobody has that right, so only what is revoked makes a difference.
            Request::Presence => {
                let code = if self.is_revoked(client, "open:a") { Code::Revoked } else { Code::Forbidden };
                self.error(client, id, code, code.text());
            }
            Request::Action | Request::Enqueue | Request::Push if anonymous => {
                self.error(client, id, Code::Unauthenticated, Code::Unauthenticated.text());
            }
            Request::Action => self.error(client, id, Code::UnknownAction, Code::UnknownAction.text()),
            Request::Enqueue | Request::Push => self.error(client, id, Code::Forbidden, Code::Forbidden.text()),
            Request::Refresh { pass: None } => {
                self.error(client, id, Code::Invalid, "There is no webhook to ask: send a newer token");
            }
            Request::Refresh { pass: Some(pass) } => self.refresh(now, client, id, *pass),
        }
    }

    fn subscribe(&mut self, client: Client, pipe: &str, presence: bool, events: &[String]) -> Result<(), Code> {
        self.decide(client, pipe, Right::Subscribe)?;
        if presence {
            return Err(Code::Forbidden);
        }
        let most = self.plan.subscriptions;
        let subscriptions = &mut self.connections[client].subscriptions;
        if !subscriptions.contains_key(pipe) && subscriptions.len() >= most {
            return Err(Code::TooMany);
        }
        subscriptions.insert(pipe.to_owned(), events.to_vec());
        Ok(())
    }

    fn event(&mut self, now: Now, client: Client, pipe: String, event: String, data: &str, echo: bool) {
        self.count("events_in", 1);
        let connection = &self.connections[client];
        let worker = connection.worker;
        let sender = connection.person.as_ref().map_or("", |person| &person.id);
        let text = format!(
            r#"{{"type":"event","pipe":{},"event":{},"data":{data},"sender":{},"ts":{}}}"#,
            quote(&pipe),
            quote(&event),
            quote(sender),
            now.unix_ms
        );
        let event = self.next_event(pipe, event, text, client);
        for to in self.interested(worker, &event.pipe) {
            self.count("events_to_workers", 1);
            self.push(worker, to, Parcel::Event(event.clone()));
        }
        self.deliver(worker, &event, (!echo).then_some(client));
    }

    /// C7: one outcome for one pipe, all outcomes for a list of them; a name given twice counts once.
    fn each(
        &mut self,
        client: Client,
        id: Option<&str>,
        pipes: Vec<String>,
        batch: bool,
        mut act: impl FnMut(&mut Model, &str) -> Result<(), Code>,
    ) {
        if !batch {
            return match act(self, &pipes[0]) {
                Ok(()) => self.ok(client, id),
                Err(code) => self.error(client, id, code, code.text()),
            };
        }
        let mut results: Vec<(String, String)> = Vec::new();
        for pipe in pipes {
            if results.iter().any(|(done, _)| *done == pipe) {
                continue;
            }
            let result = match act(self, &pipe) {
                Ok(()) => r#"{"ok":true}"#.to_owned(),
                Err(code) => {
                    self.count(format!("denied[{}]", code.name()), 1);
                    format!(r#"{{"ok":false,"code":"{}","error":"{}"}}"#, code.name(), code.text())
                }
            };
            results.push((pipe, result));
        }
        if let Some(id) = id {
            let results: Vec<String> =
                results.into_iter().map(|(pipe, result)| format!("{}:{result}", quote(&pipe))).collect();
            let results = results.join(",");
            self.say(client, format!(r#"{{"type":"reply","id":{id},"ok":true,"results":{{{results}}}}}"#));
        }
    }

    pub(super) fn ok(&mut self, client: Client, id: Option<&str>) {
        if let Some(id) = id {
            self.say(client, format!(r#"{{"type":"reply","id":{id},"ok":true}}"#));
        }
    }

    pub(super) fn error(&mut self, client: Client, id: Option<&str>, code: Code, error: &str) {
        self.count(format!("denied[{}]", code.name()), 1);
        if let Some(id) = id {
            let (name, error) = (code.name(), quote(error));
            self.say(client, format!(r#"{{"type":"reply","id":{id},"ok":false,"code":"{name}","error":{error}}}"#));
        }
    }
}
