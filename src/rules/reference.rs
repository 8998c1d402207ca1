//! Parts of an event that must carry the publisher's own tenant or organisation (GD-7, F9).
//!
//! Invariant: what passes names, at every pointer, exactly the tenant or organisation of the connection that sent it. A
//! missing part, one that is no string, a publisher without tenant and a name that stands in an object twice (two
//! readers could choose differently) are all mismatches. Pointers are those of RFC 6901.

use std::sync::Arc;

use serde_json::Value;

use super::schema;
use crate::auth::identity::Identity;

/// What a part must be equal to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoped {
    /// The publisher's tenant.
    Tenant,
    /// The publisher's organisation.
    Org,
}

impl Scoped {
    /// `tenant` or `org`, as written in `scope_fields`.
    pub fn named(name: &str) -> Option<Scoped> {
        match name {
            "tenant" => Some(Scoped::Tenant),
            "org" => Some(Scoped::Org),
            _ => None,
        }
    }

    fn own(self, identity: &Identity) -> Option<&str> {
        match self {
            Scoped::Tenant => identity.tenant(),
            Scoped::Org => identity.org(),
        }
    }
}

/// `scope_fields`: pointers, in the order of the file. The default asks nothing.
#[derive(Clone, Debug, Default)]
pub struct References {
    fields: Arc<[(Box<str>, Scoped)]>,
}

impl References {
    /// The parts that are asked for.
    ///
    /// # Errors
    /// A sentence for the operator that names the pointer which is none, or is there twice.
    pub fn new(fields: Vec<(String, Scoped)>) -> Result<References, String> {
        for (place, (pointer, _)) in fields.iter().enumerate() {
            if !is_pointer(pointer) {
                return Err(format!(
                    "`{pointer}` is not a JSON pointer: it begins with `/`, as in `/order/tenantId`; `~` is written `~0` and a `/` \
                     inside a name `~1`"
                ));
            }
            if fields[..place].iter().any(|(earlier, _)| earlier == pointer) {
                return Err(format!("`{pointer}` is there twice"));
            }
        }
        Ok(References { fields: fields.into_iter().map(|(pointer, scoped)| (pointer.into(), scoped)).collect() })
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether `data`, a JSON text, carries what `identity` (None: anonymous) owns.
    ///
    /// # Errors
    /// The first pointer that does not: `SCOPE_MISMATCH`.
    pub fn check(&self, data: &str, identity: Option<&Identity>) -> Result<(), String> {
        let Some((first, _)) = self.fields.first() else { return Ok(()) };
        match schema::read(data) {
            Ok(value) => self.check_value(&value, identity),
            Err(_) => Err(String::from(&**first)),
        }
    }

    /// The same for what was already read by [`schema::read`].
    pub(super) fn check_value(&self, value: &Value, identity: Option<&Identity>) -> Result<(), String> {
        let owned = |pointer: &str, scoped: Scoped| {
            let own = identity.and_then(|identity| scoped.own(identity));
            own.is_some() && own == value.pointer(pointer).and_then(Value::as_str)
        };
        match self.fields.iter().find(|(pointer, scoped)| !owned(pointer, *scoped)) {
            Some((pointer, _)) => Err(String::from(&**pointer)),
            None => Ok(()),
        }
    }

    /// The first pointer.
    pub(super) fn first(&self) -> Option<&str> {
        self.fields.first().map(|(pointer, _)| &**pointer)
    }
}

/// RFC 6901 §3. The empty pointer, the whole document, is left out: an event that is nothing but a tenant's name is more
/// likely a forgotten pointer.
fn is_pointer(text: &str) -> bool {
    let tilde = |part: &str| part.starts_with(['0', '1']);
    text.starts_with('/') && text.split('~').skip(1).all(tilde) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::Profile;

    fn identity(tenant: Option<&str>, org: Option<&str>) -> Identity {
        Identity::new(&Profile { id: "ann", tenant, org, ..Profile::default() })
    }

    fn references(fields: &[(&str, Scoped)]) -> References {
        References::new(fields.iter().map(|(pointer, scoped)| ((*pointer).to_owned(), *scoped)).collect()).unwrap()
    }

    #[test]
    fn gd7_f9_anything_but_the_own_tenant_is_a_mismatch() {
        let asked = references(&[("/tenantId", Scoped::Tenant), ("/deep/0/a~1b~0", Scoped::Org)]);
        let ann = identity(Some("acme"), Some("o1"));
        let good = r#"{"tenantId":"\u0061cme","deep":[{"a/b~":"o1"}],"n":1e400}"#;
        assert_eq!(asked.check(good, Some(&ann)), Ok(()));
        let wrong = [
            (r#"{"tenantId":"other","deep":[{"a/b~":"o1"}]}"#, "/tenantId"),
            (r#"{"tenantId":"acme","deep":[{"a/b~":"o2"}]}"#, "/deep/0/a~1b~0"),
            (r#"{"tenantId":"acme","deep":[{}]}"#, "/deep/0/a~1b~0"),
            (r#"{"tenantId":"acme","deep":{"0":{"a/b~":"o2"}}}"#, "/deep/0/a~1b~0"),
            (r#"{"deep":[{"a/b~":"o1"}]}"#, "/tenantId"),
            (r#"{"tenantId":null,"deep":[{"a/b~":"o1"}]}"#, "/tenantId"),
            (r#"{"tenantId":["acme"],"deep":[{"a/b~":"o1"}]}"#, "/tenantId"),
            (r#"{"tenantId":"ACME","deep":[{"a/b~":"o1"}]}"#, "/tenantId"),
            (r#"{"tenantId":"acme ","deep":[{"a/b~":"o1"}]}"#, "/tenantId"),
            ("null", "/tenantId"),
            (r#""acme""#, "/tenantId"),
            ("", "/tenantId"),
            ("{", "/tenantId"),
        ];
        for (data, pointer) in wrong {
            assert_eq!(asked.check(data, Some(&ann)), Err(pointer.to_owned()), "{data}");
        }
    }

    #[test]
    fn a_name_that_stands_there_twice_is_a_mismatch_wherever_it_is() {
        // Readers differ in which of the two they take.
        let asked = references(&[("/tenantId", Scoped::Tenant)]);
        let ann = identity(Some("acme"), None);
        for data in [
            r#"{"tenantId":"acme","tenantId":"other"}"#,
            r#"{"tenantId":"other","tenantId":"acme"}"#,
            r#"{"tenantId":"acme","tenant\u0049d":"acme"}"#,
            r#"{"tenantId":"acme","x":{"y":1,"y":2}}"#,
        ] {
            assert_eq!(asked.check(data, Some(&ann)), Err("/tenantId".to_owned()), "{data}");
        }
    }

    #[test]
    fn who_has_no_tenant_owns_none() {
        let asked = references(&[("/t", Scoped::Tenant)]);
        for nobody in [None, Some(&identity(None, Some("acme")))] {
            for data in [r#"{"t":"acme"}"#, r#"{"t":""}"#, r#"{"t":null}"#, "{}"] {
                assert_eq!(asked.check(data, nobody), Err("/t".to_owned()), "{data}");
            }
        }
        assert_eq!(References::default().check("anything", None), Ok(()));
        assert!(References::default().is_empty() && !asked.is_empty());
    }

    #[test]
    fn what_is_no_pointer_is_told_to_the_operator() {
        for pointer in ["", "tenantId", "$.tenantId", "#/t", "/a~", "/a~2", "/a~~0", "/a\n"] {
            let error = References::new(vec![(pointer.to_owned(), Scoped::Tenant)]).unwrap_err();
            assert!(error.contains("is not a JSON pointer"), "{pointer}: {error}");
        }
        let twice = vec![("/a".to_owned(), Scoped::Tenant), ("/a".to_owned(), Scoped::Org)];
        assert_eq!(References::new(twice).unwrap_err(), "`/a` is there twice");
        assert_eq!((Scoped::named("tenant"), Scoped::named("org")), (Some(Scoped::Tenant), Some(Scoped::Org)));
        assert_eq!(Scoped::named("team"), None);
    }
}
