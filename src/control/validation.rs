//! What the application publishes is checked like what clients publish: size and schema, not rights and scopes (E5). An
//! invalid event reaches nobody (GD-7).
//!
//! An event that a definition with events does not define is published all the same, since the application decides, and
//! said in the log, at most once a minute for each event of each definition (RK-7).

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::service::Failure;
use crate::protocol::codes::Code;
use crate::rules::Rules;
use crate::rules::definition::Place;
use crate::rules::payload::Publisher;
use crate::warned::Warned;

/// Checks events of the application.
pub struct Validation {
    /// Definition and event, a line each.
    warned: Mutex<Warned>,
    began: Instant,
}

impl Default for Validation {
    fn default() -> Validation {
        Validation { warned: Mutex::new(Warned::new(u32::MAX)), began: Instant::now() }
    }
}

impl Validation {
    /// Whether this may be published under these rules.
    ///
    /// # Errors
    /// [`Failure::Refused`]: `PAYLOAD_TOO_LARGE` or `SCHEMA`, with a sentence for the application.
    pub fn check(&self, rules: &Rules, pipe: &str, event: &str, data: &str) -> Result<(), Failure> {
        let Some((_, definition, _)) = rules.pipe(pipe) else { return Ok(()) };
        if definition.events.is_empty() {
            return Ok(());
        }
        let Some(known) = definition.event(event) else {
            self.warn(&definition.place, event);
            return Ok(());
        };
        let payload = &definition.events[known].payload;
        let checked = payload.check(data, Publisher::Application, Code::Schema);
        checked.map_err(|invalid| Failure::Refused(invalid.code, invalid.message))
    }

    fn warn(&self, definition: &Place, event: &str) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let name = format!("{}\n{event}", definition.key);
        let due = self.warned.lock().unwrap_or_else(PoisonError::into_inner).due(now_ms, &name);
        if let Some(others) = due {
            let others = crate::warned::others(others);
            tracing::warn!(
                "{definition}: the application published the event {event:?}, which is not defined there{others}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use serde_json::json;

    use crate::protocol::names::Template;
    use crate::rules::definition::{EventRules, Payload, PipeRules, Right};
    use crate::rules::reference::{References, Scoped};
    use crate::rules::schema::Schema;

    /// `room-*` defines the event `move`; `open-*` defines none.
    fn rules() -> Rules {
        let schema = Schema::compile(&json!({"type": "object", "required": ["x"]})).unwrap();
        let references = References::new(vec![("/tenantId".to_owned(), Scoped::Tenant)]).unwrap();
        let payload = Payload { max_bytes: Some(19), references, schema: Some(Arc::new(schema)) };
        let place = Default::default();
        let event = EventRules { name: "move".into(), subscribe: None, publish: None, payload, filter: None, place };
        let pipe = |name: &str, events| PipeRules {
            name: Template::parse(name).unwrap(),
            module: None,
            guards: Vec::new(),
            scope: Default::default(),
            subscribe: Right::Never,
            publish: Right::Never,
            presence: Right::Never,
            public: false,
            rate: None,
            events,
            place: Default::default(),
        };
        Rules { pipes: vec![pipe("room-{x}", vec![event]), pipe("open-{x}", Vec::new())], ..Rules::default() }
    }

    // E5, F17, GD-7
    #[test]
    fn the_application_too_keeps_to_size_and_schema_but_not_to_scopes() {
        let (validation, rules) = (Validation::default(), rules());
        let check = |pipe: &str, event: &str, data: &str| match validation.check(&rules, pipe, event, data) {
            Ok(()) => "ok".to_owned(),
            Err(Failure::Refused(code, message)) => {
                assert!(!message.contains("secret"), "{message}");
                code.name().to_owned()
            }
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(check("room-1", "move", r#"{"x":1}"#), "ok", "no scope field binds it");
        assert_eq!(check("room-1", "move", r#"{"y":"secret"}"#), "SCHEMA");
        assert_eq!(check("room-1", "move", r#"{"x":1,"y":"secret"}"#), "PAYLOAD_TOO_LARGE");
        assert_eq!(check("room-1", "other", r#"{"y":1}"#), "ok", "undefined: the application decides (RK-7)");
        assert_eq!(check("open-1", "move", "1"), "ok");
        assert_eq!(check("elsewhere", "move", "1"), "ok");
    }
}
