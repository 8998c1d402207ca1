//! Checks the data of an event, an action or a queue message before anybody is given it (GD-7).
//!
//! Invariant: what passes obeys its size, its scope fields and its schema, looked at in this order (F8); the sentence of
//! a refusal names a place in the data and what is expected there, never what stands there. Data for which nothing but a
//! size is asked is not read at all. Cost: one tree of the data, whatever is asked of it.

use super::definition::Payload;
use super::schema;
use crate::auth::identity::Identity;
use crate::protocol::codes::Code;

/// Whose data it is.
#[derive(Clone, Copy, Debug)]
pub enum Publisher<'a> {
    /// A connection's; None: an anonymous one.
    Client(Option<&'a Identity>),
    /// The application's: no scope field binds it (E5).
    Application,
}

/// Why data is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// `PAYLOAD_TOO_LARGE`, `SCOPE_MISMATCH`, or the code that was given for a schema's mismatch.
    pub code: Code,
    /// The sentence, at most 1,024 bytes.
    pub message: String,
}

impl Payload {
    /// Whether `data`, a JSON text as it came, may be what it is sent as. `schema_code` is `SCHEMA` for events and queues
    /// and `INVALID` for actions (A5).
    ///
    /// # Errors
    /// The first check that failed.
    pub fn check(&self, data: &str, publisher: Publisher<'_>, schema_code: Code) -> Result<(), Invalid> {
        if let Some(max_bytes) = self.max_bytes
            && data.len() > max_bytes as usize
        {
            let message = format!("The data has {} bytes; {max_bytes} are allowed", data.len());
            return Err(Invalid { code: Code::PayloadTooLarge, message });
        }
        let references = match publisher {
            Publisher::Client(identity) if !self.references.is_empty() => Some((&self.references, identity)),
            _ => None,
        };
        if references.is_none() && self.schema.is_none() {
            return Ok(());
        }
        let read = schema::read(data);
        if let Some((references, identity)) = references {
            let checked = match &read {
                Ok(value) => references.check_value(value, identity),
                Err(_) => Err(references.first().unwrap_or_default().to_owned()),
            };
            checked.map_err(|pointer| Invalid {
                code: Code::ScopeMismatch,
                message: format!("`{pointer}` must be your own tenant or organisation"),
            })?;
        }
        let Some(schema) = &self.schema else { return Ok(()) };
        let checked = read.and_then(|value| schema.check_value(&value));
        checked.map_err(|violation| Invalid { code: schema_code, message: violation.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::auth::identity::Profile;
    use crate::rules::reference::{References, Scoped};
    use crate::rules::schema::Schema;

    fn payload() -> Payload {
        let schema = json!({ "type": "object", "properties": { "level": { "type": "integer" } } });
        Payload {
            max_bytes: Some(60),
            references: References::new(vec![("/t".to_owned(), Scoped::Tenant)]).unwrap(),
            schema: Some(Arc::new(Schema::compile(&schema).unwrap())),
        }
    }

    fn ann() -> Identity {
        Identity::new(&Profile { id: "ann", tenant: Some("acme"), ..Profile::default() })
    }

    fn refusal(payload: &Payload, data: &str, publisher: Publisher<'_>) -> (Code, String) {
        let invalid = payload.check(data, publisher, Code::Schema).expect_err(data);
        (invalid.code, invalid.message)
    }

    #[test]
    fn f8_size_then_scope_then_schema() {
        let (payload, ann) = (payload(), ann());
        let client = Publisher::Client(Some(&ann));
        assert_eq!(payload.check(r#"{"t":"acme","level":1}"#, client, Code::Schema), Ok(()));
        // F17: bytes as they came, white space included; exactly the limit is fine.
        let padded = |bytes: usize| format!("{{\"t\":\"acme\",\"level\":1{}}}", " ".repeat(bytes - 22));
        assert_eq!((padded(60).len(), payload.check(&padded(60), client, Code::Schema)), (60, Ok(())));
        let (code, message) = refusal(&payload, &padded(61), client);
        assert_eq!((code, &*message), (Code::PayloadTooLarge, "The data has 61 bytes; 60 are allowed"));
        // Wrong in all three.
        let all = format!(r#"{{"t":"other","level":"{}"}}"#, "x".repeat(60));
        assert_eq!(refusal(&payload, &all, client).0, Code::PayloadTooLarge);
        // Wrong in the last two.
        let (code, message) = refusal(&payload, r#"{"t":"other","level":"MARK"}"#, client);
        assert_eq!((code, &*message), (Code::ScopeMismatch, "`/t` must be your own tenant or organisation"));
        let (code, message) = refusal(&payload, r#"{"t":"acme","level":"MARK"}"#, client);
        assert_eq!((code, &*message), (Code::Schema, "`/level` must be of type integer"));
    }

    #[test]
    fn a5_the_code_of_a_schema_is_the_surfaces() {
        let invalid = payload().check(r#"{"t":"acme","level":1.5}"#, Publisher::Client(Some(&ann())), Code::Invalid);
        assert_eq!(invalid.unwrap_err().code, Code::Invalid);
    }

    #[test]
    fn e5_the_application_is_held_to_size_and_schema_alone() {
        let payload = payload();
        assert_eq!(payload.check(r#"{"t":"other"}"#, Publisher::Application, Code::Schema), Ok(()));
        assert_eq!(refusal(&payload, r#"{"level":"x"}"#, Publisher::Application).0, Code::Schema);
        assert_eq!(refusal(&payload, &"1".repeat(61), Publisher::Application).0, Code::PayloadTooLarge);
    }

    #[test]
    fn f9_an_anonymous_publisher_owns_no_scope() {
        assert_eq!(refusal(&payload(), r#"{"t":"acme"}"#, Publisher::Client(None)).0, Code::ScopeMismatch);
    }

    #[test]
    fn what_cannot_be_read_passes_no_check_but_an_open_one() {
        let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
        let mut payload = payload();
        payload.max_bytes = None;
        for data in ["{", "", r#"{"t":"acme","t":"acme"}"#, &deep] {
            assert_eq!(refusal(&payload, data, Publisher::Client(Some(&ann()))).0, Code::ScopeMismatch, "{data}");
            assert_eq!(refusal(&payload, data, Publisher::Application).0, Code::Schema, "{data}");
            assert_eq!(Payload::default().check(data, Publisher::Client(None), Code::Schema), Ok(()));
        }
        assert!(Payload::default().is_open());
    }
}
