//! Who may do what, decided from the grants and definitions each time anew: no table, no bits, no memory.

/// A verified person as the token names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    pub id: String,
    pub tenant: Option<String>,
    pub team: Option<String>,
    pub org: Option<String>,
    pub role: Option<String>,
}

/// What a token grants on a name or pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub name: String,
    pub subscribe: bool,
    pub publish: bool,
}

/// A `[pipe."…"]` of the configuration.
#[derive(Clone, Debug)]
pub struct Definition {
    pub text: String,
    pub subscribe: bool,
    pub publish: bool,
}

/// The two rights that this version knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Right {
    Subscribe,
    Publish,
}

/// Decision = explicit grant or definition allows (F3: the exact name alone, else the union of the patterns).
pub fn may(person: Option<&Person>, grants: &[Grant], definitions: &[Definition], name: &str, right: Right) -> bool {
    let given = |subscribe: bool, publish: bool| if right == Right::Subscribe { subscribe } else { publish };
    let explicit = match grants.iter().find(|grant| grant.name == name) {
        Some(exact) => given(exact.subscribe, exact.publish),
        None => grants.iter().any(|grant| given(grant.subscribe, grant.publish) && split(&grant.name, name).is_some()),
    };
    let defined = definitions.iter().find_map(|one| split(&one.text, name).map(|captures| (one, captures)));
    explicit
        || defined.is_some_and(|(definition, captures)| {
            given(definition.subscribe, definition.publish)
                && captures.iter().all(|(capture, value)| own(person, capture).is_none_or(|own| own == Some(*value)))
        })
}

/// Whether a name, or a pattern, is one that this pattern stands for.
pub fn matches(pattern: &str, name: &str) -> bool {
    split(pattern, name).is_some()
}

/// For `{user.…}` the connection's own value, if it has one. None for a capture that may be anything.
fn own<'p>(person: Option<&'p Person>, capture: &str) -> Option<Option<&'p str>> {
    match capture {
        "user.id" => Some(person.map(|person| person.id.as_str())),
        "user.tenant" => Some(person.and_then(|person| person.tenant.as_deref())),
        "user.team" => Some(person.and_then(|person| person.team.as_deref())),
        _ => None,
    }
}

/// The captures of a name that a pattern or definition stands for, tried by plain recursion.
fn split<'n>(pattern: &'n str, name: &'n str) -> Option<Vec<(&'n str, &'n str)>> {
    let some_of = |rest: &'n str, allowed: fn(char) -> bool, capture: Option<&'n str>| {
        for (end, last) in name.char_indices() {
            if !allowed(last) {
                return None;
            }
            let end = end + last.len_utf8();
            if let Some(mut captures) = split(rest, &name[end..]) {
                captures.extend(capture.map(|capture| (capture, &name[..end])));
                return Some(captures);
            }
        }
        None
    };
    if let Some(rest) = pattern.strip_prefix("**") {
        some_of(rest, |_| true, None)
    } else if let Some(rest) = pattern.strip_prefix('*') {
        some_of(rest, |character| character != ':', None)
    } else if let Some(rest) = pattern.strip_prefix('{') {
        let (capture, rest) = rest.split_once('}')?;
        some_of(rest, |character| character != ':', Some(capture))
    } else if let Some(first) = pattern.chars().next() {
        split(&pattern[first.len_utf8()..], name.strip_prefix(first)?)
    } else {
        name.is_empty().then(Vec::new)
    }
}
