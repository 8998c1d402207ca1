//! Who a connection is, in as few bytes as that takes: every connection keeps one for as long as it lives.
//!
//! All texts lie in one `str`, one behind the other: a head that says which are there, then each with its length before
//! it. Head and lengths are ASCII, so that the whole is a `str` and taking a text out of it checks no UTF-8 again.

use std::fmt;

/// A verified person. Locked for the life of the connection (GD-2).
#[derive(Clone, PartialEq)]
pub struct Identity(Box<str>);

/// The same, with every text by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile<'a> {
    /// User id; never empty.
    pub id: &'a str,
    /// Display name.
    pub name: Option<&'a str>,
    /// `role`, else the first of `roles`.
    pub role: Option<&'a str>,
    /// The union of `role` and `roles`, without repetition.
    pub roles: Vec<&'a str>,
    /// Team id.
    pub team: Option<&'a str>,
    /// Tenant id. A person is (tenant, user).
    pub tenant: Option<&'a str>,
    /// Organisation id.
    pub org: Option<&'a str>,
    /// Features enabled for this person. None: nothing was said about them, which a rule can tell from none (B20).
    pub features: Option<Vec<&'a str>>,
    /// Any further JSON of the application, as text.
    pub info: Option<&'a str>,
}

// What may be missing, in the order in which it lies behind the id; the bit in the head says that it is there.
const TENANT: u8 = 1;
const NAME: u8 = 1 << 1;
const ORG: u8 = 1 << 2;
const TEAM: u8 = 1 << 3;
const INFO: u8 = 1 << 4;
const ROLES: u8 = 1 << 5;
const FEATURES: u8 = 1 << 6;

impl Identity {
    /// Of these texts. A `role` that is not the first of `roles` becomes it, and one that is there twice is kept once.
    pub fn new(profile: &Profile<'_>) -> Identity {
        let mut roles = Vec::new();
        for role in profile.role.iter().chain(&profile.roles) {
            if !roles.contains(role) {
                roles.push(*role);
            }
        }
        let texts = [
            (TENANT, profile.tenant),
            (NAME, profile.name),
            (ORG, profile.org),
            (TEAM, profile.team),
            (INFO, profile.info),
        ];
        let mut head = 0;
        let mut packed = String::new();
        put(&mut packed, profile.id);
        for (bit, text) in texts {
            if let Some(text) = text {
                head |= bit;
                put(&mut packed, text);
            }
        }
        for (bit, list) in [(ROLES, (!roles.is_empty()).then_some(&roles)), (FEATURES, profile.features.as_ref())] {
            if let Some(list) = list {
                head |= bit;
                put_number(&mut packed, list.len());
                list.iter().for_each(|text| put(&mut packed, text));
            }
        }
        packed.insert(0, char::from(head));
        Identity(packed.into_boxed_str())
    }

    /// User id; never empty.
    pub fn id(&self) -> &str {
        self.behind_head().text()
    }

    /// Tenant id. A person is (tenant, user).
    pub fn tenant(&self) -> Option<&str> {
        self.optional(TENANT)
    }

    /// Display name.
    pub fn name(&self) -> Option<&str> {
        self.optional(NAME)
    }

    /// Organisation id.
    pub fn org(&self) -> Option<&str> {
        self.optional(ORG)
    }

    /// Team id.
    pub fn team(&self) -> Option<&str> {
        self.optional(TEAM)
    }

    /// Any further JSON of the application, as text.
    pub fn info(&self) -> Option<&str> {
        self.optional(INFO)
    }

    /// `role`, else the first of `roles`.
    pub fn role(&self) -> Option<&str> {
        self.roles().next()
    }

    /// The union of `role` and `roles`, without repetition.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.list(ROLES).into_iter().flatten()
    }

    /// Features enabled for this person. None: nothing was said about them, which a rule can tell from none (B20).
    pub fn features(&self) -> Option<impl Iterator<Item = &str>> {
        self.list(FEATURES)
    }

    /// Every text by itself.
    pub fn profile(&self) -> Profile<'_> {
        Profile {
            id: self.id(),
            name: self.name(),
            role: self.role(),
            roles: self.roles().collect(),
            team: self.team(),
            tenant: self.tenant(),
            org: self.org(),
            features: self.features().map(Iterator::collect),
            info: self.info(),
        }
    }

    fn head(&self) -> u8 {
        self.0.as_bytes()[0]
    }

    fn behind_head(&self) -> Rest<'_> {
        Rest(&self.0[1..])
    }

    fn optional(&self, bit: u8) -> Option<&str> {
        (self.head() & bit != 0).then(|| self.before(bit).text())
    }

    fn list(&self, bit: u8) -> Option<impl Iterator<Item = &str>> {
        (self.head() & bit != 0).then(|| {
            let mut rest = self.before(ROLES);
            if bit == FEATURES && self.head() & ROLES != 0 {
                for _ in 0..rest.number() {
                    rest.text();
                }
            }
            (0..rest.number()).map(move |_| rest.text())
        })
    }

    /// Where this single text lies, or the lists.
    fn before(&self, bit: u8) -> Rest<'_> {
        let mut rest = self.behind_head();
        for _ in 0..=(self.head() & (bit - 1)).count_ones() {
            rest.text();
        }
        rest
    }
}

impl Default for Identity {
    /// Without an id, as nobody is who was verified: something to build others on.
    fn default() -> Identity {
        Identity::new(&Profile::default())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.profile().fmt(formatter)
    }
}

/// What has not been read yet.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn text(&mut self) -> &'a str {
        let length = self.number();
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        text
    }

    fn number(&mut self) -> usize {
        let (mut number, mut used) = (0, 0);
        for byte in self.0.bytes() {
            number |= usize::from(byte & 0x3F) << (6 * used);
            used += 1;
            if byte & MORE == 0 {
                break;
            }
        }
        self.0 = &self.0[used..];
        number
    }
}

/// Six bits of a number are in a byte; this one says that further bytes follow.
const MORE: u8 = 0x40;

fn put_number(out: &mut String, mut number: usize) {
    while number >= 0x40 {
        out.push(char::from(number as u8 & 0x3F | MORE));
        number >>= 6;
    }
    out.push(char::from(number as u8));
}

fn put(out: &mut String, text: &str) {
    put_number(out, text.len());
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_and_a_tenant_take_little_more_than_their_bytes() {
        let ann = Identity::new(&Profile { id: "ann", tenant: Some("acme"), ..Profile::default() });
        assert_eq!(ann.0.len(), 1 + 4 + 5);
        assert_eq!((ann.id(), ann.tenant(), ann.name(), ann.role()), ("ann", Some("acme"), None, None));
        assert_eq!(ann.features().map(Iterator::count), None);
        assert_eq!(Identity::default().id(), "");
    }

    // B19
    #[test]
    fn the_role_is_the_first_of_the_roles() {
        let with = |role: Option<&'static str>, roles: &[&'static str]| {
            let identity = Identity::new(&Profile { id: "a", role, roles: roles.to_vec(), ..Profile::default() });
            (identity.role().map(str::to_owned), identity.roles().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(with(Some("b"), &["a", "b"]), (Some("b".into()), vec!["b".into(), "a".into()]));
        assert_eq!(with(None, &["a", "b"]), (Some("a".into()), vec!["a".into(), "b".into()]));
        assert_eq!(with(Some("b"), &[]), (Some("b".into()), vec!["b".into()]));
        assert_eq!(with(None, &[]), (None, vec![]));
    }

    proptest! {
        /// Whatever goes in comes out, of any length, with empty texts, and with every choice of what is missing.
        #[test]
        fn what_goes_in_comes_out(
            id in ".{1,70}",
            texts in prop::array::uniform5(prop::option::of(".{0,80}|\\PC{4000,5000}")),
            roles in prop::collection::btree_set(".{0,9}", 0..70),
            features in prop::option::of(prop::collection::vec(".{0,9}", 0..70)),
        ) {
            let [name, team, tenant, org, info] = &texts;
            let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
            let profile = Profile {
                id: &id,
                name: name.as_deref(),
                role: roles.first().copied(),
                roles,
                team: team.as_deref(),
                tenant: tenant.as_deref(),
                org: org.as_deref(),
                features: features.as_ref().map(|all| all.iter().map(String::as_str).collect()),
                info: info.as_deref(),
            };
            let identity = Identity::new(&profile);
            prop_assert_eq!(identity.profile(), profile.clone());
            prop_assert_eq!(&identity, &Identity::new(&profile));
            let other = Identity::new(&Profile { id: &format!("{id}x"), ..profile });
            prop_assert_ne!(&identity, &other);
        }
    }
}
