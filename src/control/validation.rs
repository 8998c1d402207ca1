//! What the application publishes is checked like what clients publish: size and schema, not rights and scopes (E5). An
//! invalid event reaches nobody (GD-7).
//!
//! An event that a definition with events does not define is published all the same, since the application decides, and
//! said in the log, at most once a minute for each definition (RK-7).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::service::Failure;
use crate::protocol::codes::Code;
use crate::rules::Rules;
use crate::rules::payload::Publisher;

/// Between two warnings about one definition.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Checks events of the application.
#[derive(Default)]
pub struct Validation {
    /// Definitions by their key that were warned about within the last minute.
    warned: Mutex<HashMap<Box<str>, Instant>>,
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
            if self.may_warn(&definition.place.key, Instant::now()) {
                tracing::warn!(
                    "{}: the application published the event {event:?}, which is not defined there",
                    definition.place
                );
            }
            return Ok(());
        };
        let payload = &definition.events[known].payload;
        let checked = payload.check(data, Publisher::Application, Code::Schema);
        checked.map_err(|invalid| Failure::Refused(invalid.code, invalid.message))
    }

    fn may_warn(&self, key: &str, now: Instant) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.retain(|_, at| now.duration_since(*at) < WARN_EVERY);
        let first = !warned.contains_key(key);
        if first {
            warned.insert(key.into(), now);
        }
        first
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

    // RK-7
    #[test]
    fn a_definition_is_warned_about_once_a_minute() {
        let (validation, now) = (Validation::default(), Instant::now());
        assert!(validation.may_warn("a", now) && validation.may_warn("b", now));
        assert!(!validation.may_warn("a", now + Duration::from_secs(59)));
        assert!(validation.may_warn("a", now + Duration::from_secs(61)));
        assert_eq!(validation.warned.lock().unwrap().len(), 1, "what is old is forgotten");
    }
}
