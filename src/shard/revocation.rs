//! What was taken away and stays so: the shared table of revocations.
//!
//! Written by the control thread alone, before the workers are told; read by a worker when a connection is admitted or
//! refreshed, never for a message. Looking up and installing what the look-up allows are one step of the shard: either
//! it sees the entry, or the command that follows finds the connection (INVARIANTS 6).
//!
//! Time limits are Unix milliseconds; `u64::MAX` is "until restored".

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ahash::{AHashMap, RandomState};

use super::command::Person;
use crate::auth::decision::{Decision, Rights};
use crate::protocol::names::pattern_matches;

/// How far an issue time may lie ahead of our clock and still be believed, milliseconds: clocks differ.
const ISSUED_AHEAD_MS_MAX: i64 = 300_000;

/// No time limit.
pub const FOR_EVER: u64 = u64::MAX;

/// Which pipes a revocation takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Taken {
    /// All of them.
    Everything,
    /// A pipe, or every pipe that a pattern matches.
    Pipe(Arc<str>),
}

impl Taken {
    /// Whether this pipe is among them.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Taken::Everything => true,
            Taken::Pipe(text) if text.contains('*') => pattern_matches(text, name),
            Taken::Pipe(text) => **text == *name,
        }
    }
}

/// Pipes of a user that are revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub person: Person,
    /// Which.
    pub taken: Taken,
    /// Until when.
    pub until_ms: u64,
    /// It also ends when an authorization that was asked for (or a token that was issued) after this moment, Unix
    /// milliseconds, grants the pipe (D4).
    pub until_authorized_after_ms: Option<u64>,
}

impl Revocation {
    /// Whether an authorization of this time came after the moment from which one may end this (D4).
    pub fn is_followed_by(&self, issued_at_ms: i64) -> bool {
        let Some(after_ms) = self.until_authorized_after_ms else { return false };
        u64::try_from(issued_at_ms).is_ok_and(|issued_ms| issued_ms > after_ms)
    }

    /// Whether this decision ends it for everybody (D4): it was made later and grants the very pipe. What took more than
    /// one pipe stays until it is restored; it does not bind later authorizations where they grant a pipe.
    pub fn ends_by(&self, issued_at_ms: i64, rights: impl FnOnce(&str) -> Rights) -> bool {
        match &self.taken {
            Taken::Pipe(text) if !text.contains('*') => {
                self.is_followed_by(issued_at_ms) && rights(text) != Rights::NONE
            }
            Taken::Pipe(_) | Taken::Everything => false,
        }
    }
}

/// What a restore lifts, or what has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// Whose.
    pub person: Person,
    /// Exactly the entry of this text (D6); None: all entries of the user.
    pub taken: Option<Taken>,
}

/// Tokens that are revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRevocation {
    /// Which.
    pub tokens: Tokens,
    /// Until when.
    pub until_ms: u64,
}

/// One entry of the table, as it was put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Pipes of a user.
    Pipes(Arc<Revocation>),
    /// Tokens.
    Tokens(Arc<TokenRevocation>),
}

impl Entry {
    /// Until when it is in force, Unix milliseconds.
    pub fn until_ms(&self) -> u64 {
        match self {
            Entry::Pipes(one) => one.until_ms,
            Entry::Tokens(one) => one.until_ms,
        }
    }
}

/// Which tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tokens {
    /// The one with this id (`jti`).
    Token(Arc<str>),
    /// Those of this session (`sid`).
    Session(Arc<str>),
    /// Those of a user that were issued before a time, Unix seconds, but for one session or token.
    IssuedBefore {
        /// Whose.
        person: Person,
        /// Tokens with a lower `iat`, or none, are revoked.
        issued_before_s: i64,
        /// Spared.
        except_session: Option<Arc<str>>,
        /// Spared.
        except_token: Option<Arc<str>>,
    },
}

/// What a decision says about the token it came from: what revocations of tokens go by.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenFacts<'a> {
    /// User id.
    pub user: &'a str,
    /// Tenant id.
    pub tenant: Option<&'a str>,
    /// `jti`.
    pub token_id: Option<&'a str>,
    /// `sid`.
    pub session: Option<&'a str>,
    /// `iat`, or when the webhook was asked, Unix milliseconds; absent counts as 0.
    pub issued_at_ms: i64,
}

impl<'a> TokenFacts<'a> {
    /// Of a decision.
    pub fn of(decision: &'a Decision) -> TokenFacts<'a> {
        TokenFacts {
            user: decision.identity.id(),
            tenant: decision.identity.tenant(),
            token_id: decision.token_id.as_deref(),
            session: decision.session.as_deref(),
            issued_at_ms: decision.issued_at_ms.unwrap_or(0),
        }
    }
}

impl Tokens {
    /// Whether this token is among them.
    ///
    /// An issue time that has not come says nothing about when a token was issued: dated far ahead it would outlive every
    /// cut-off to come, so it is old for each that does not lie as far ahead itself.
    pub fn covers(&self, token: &TokenFacts<'_>, now_ms: u64) -> bool {
        match self {
            Tokens::Token(id) => token.token_id == Some(id),
            Tokens::Session(id) => token.session == Some(id),
            Tokens::IssuedBefore { person, issued_before_s, except_session, except_token } => {
                let spared = |own: Option<&str>, spared: &Option<Arc<str>>| own.is_some() && own == spared.as_deref();
                let latest_ms = i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_add(ISSUED_AHEAD_MS_MAX);
                let cut_off_ms = issued_before_s.saturating_mul(1_000);
                let dated_ahead = token.issued_at_ms > latest_ms && cut_off_ms <= latest_ms;
                person.is(token.tenant, token.user)
                    && (token.issued_at_ms < cut_off_ms || dated_ahead)
                    && !spared(token.session, except_session)
                    && !spared(token.token_id, except_token)
            }
        }
    }
}

impl Person {
    /// Whether this person is meant.
    pub fn is(&self, tenant: Option<&str>, user: &str) -> bool {
        *self.user == *user && self.tenant.as_deref().is_none_or(|own| tenant == Some(own))
    }
}

/// The table. Cheap to read; a write copies nothing.
pub struct Revocations {
    parts: RwLock<Parts>,
    recent: Mutex<Recent>,
}

/// Whose revocations came lately, in the order of time.
#[derive(Default)]
struct Recent {
    entries: VecDeque<(u64, Person)>,
    /// When the latest one was that is no longer listed.
    forgotten_ms: Option<u64>,
}

/// Entries of [`Recent`]: more than come within a webhook's time-out. Beyond it everybody is asked about again.
const RECENT_MAX: usize = 4_096;

struct Parts {
    /// By user id.
    pipes: AHashMap<Arc<str>, Vec<Arc<Revocation>>>,
    tokens: AHashMap<Arc<str>, Arc<TokenRevocation>>,
    sessions: AHashMap<Arc<str>, Arc<TokenRevocation>>,
    /// By user id.
    issued_before: AHashMap<Arc<str>, Vec<Arc<TokenRevocation>>>,
    count: usize,
}

impl Revocations {
    /// Nothing is revoked.
    pub fn new(hasher: RandomState) -> Revocations {
        Revocations {
            parts: RwLock::new(Parts {
                pipes: AHashMap::with_hasher(hasher.clone()),
                tokens: AHashMap::with_hasher(hasher.clone()),
                sessions: AHashMap::with_hasher(hasher.clone()),
                issued_before: AHashMap::with_hasher(hasher),
                count: 0,
            }),
            recent: Mutex::default(),
        }
    }

    /// Entries in force or not yet cleaned up.
    pub fn count(&self) -> usize {
        self.read().count
    }

    /// What is revoked for this person at `now_ms`.
    pub fn of(&self, tenant: Option<&str>, user: &str, now_ms: u64) -> Vec<Arc<Revocation>> {
        let parts = self.read();
        let Some(entries) = parts.pipes.get(user) else { return Vec::new() };
        entries.iter().filter(|one| one.until_ms > now_ms && one.person.is(tenant, user)).cloned().collect()
    }

    /// Whether this token is revoked at `now_ms`.
    pub fn covers(&self, token: &TokenFacts<'_>, now_ms: u64) -> bool {
        let parts = self.read();
        let by_id = token.token_id.and_then(|id| parts.tokens.get(id));
        let by_session = token.session.and_then(|id| parts.sessions.get(id));
        let by_user = parts.issued_before.get(token.user).into_iter().flatten();
        by_id
            .into_iter()
            .chain(by_session)
            .chain(by_user)
            .any(|one| one.until_ms > now_ms && one.tokens.covers(token, now_ms))
    }

    /// Puts a revocation of pipes in force; the same (person, pipes) again is replaced (D4).
    pub fn insert(&self, revocation: Arc<Revocation>) {
        let mut parts = self.write();
        let entries = parts.pipes.entry(revocation.person.user.clone()).or_default();
        let same = |one: &&mut Arc<Revocation>| one.person == revocation.person && one.taken == revocation.taken;
        if let Some(old) = entries.iter_mut().find(same) {
            *old = revocation;
        } else {
            entries.push(revocation);
            parts.count += 1;
        }
    }

    /// Whether anything of this person was revoked at or after this time, Unix milliseconds, whether it still is or not: what
    /// was asked about the person before may be out of date. Beyond the latest `RECENT_MAX` it is assumed of everybody.
    pub fn touched_since(&self, tenant: Option<&str>, user: &str, since_ms: u64) -> bool {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.forgotten_ms.is_some_and(|ms| ms >= since_ms)
            || recent.entries.iter().rev().take_while(|(ms, _)| *ms >= since_ms).any(|(_, one)| one.is(tenant, user))
    }

    /// Notes that something of this person is being revoked. To be called before it is put in force.
    pub fn touch(&self, person: &Person, now_ms: u64) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = recent.entries.back().map_or(now_ms, |(last_ms, _)| now_ms.max(*last_ms));
        if recent.entries.len() >= RECENT_MAX
            && let Some((ms, _)) = recent.entries.pop_front()
        {
            recent.forgotten_ms = Some(ms);
        }
        recent.entries.push_back((now_ms, person.clone()));
    }

    /// Until when exactly these tokens are revoked; 0: they are not.
    pub fn until_of(&self, tokens: &Tokens) -> u64 {
        let parts = self.read();
        let until = |one: &Arc<TokenRevocation>| one.until_ms;
        match tokens {
            Tokens::Token(id) => parts.tokens.get(id).map_or(0, until),
            Tokens::Session(id) => parts.sessions.get(id).map_or(0, until),
            Tokens::IssuedBefore { person, .. } => {
                let entries = parts.issued_before.get(&person.user).into_iter().flatten();
                entries.filter(|one| one.tokens == *tokens).map(until).max().unwrap_or(0)
            }
        }
    }

    /// Puts a revocation of tokens in force; the same again is replaced. Returns what it has made superfluous: earlier
    /// cut-offs of the same person, which are no longer in the table.
    pub fn insert_tokens(&self, revocation: Arc<TokenRevocation>) -> Vec<Arc<TokenRevocation>> {
        let mut parts = self.write();
        let mut superfluous = Vec::new();
        let before = match &revocation.tokens {
            Tokens::Token(id) => usize::from(parts.tokens.insert(id.clone(), revocation.clone()).is_some()),
            Tokens::Session(id) => usize::from(parts.sessions.insert(id.clone(), revocation.clone()).is_some()),
            Tokens::IssuedBefore { person, .. } => {
                let entries = parts.issued_before.entry(person.user.clone()).or_default();
                let listed = entries.len();
                entries.retain(|one| {
                    let same = one.tokens == revocation.tokens;
                    let contained = !same && revocation.contains(one);
                    if contained {
                        superfluous.push(one.clone());
                    }
                    !same && !contained
                });
                let gone = listed - entries.len();
                entries.push(revocation);
                gone
            }
        };
        parts.count = parts.count + 1 - before;
        superfluous
    }

    /// For a restoration without a tenant: one for each entry of that user that names a tenant and fits.
    pub fn in_named_tenants(&self, restoration: &Restoration) -> Vec<Restoration> {
        if restoration.person.tenant.is_some() {
            return Vec::new();
        }
        let parts = self.read();
        let entries = parts.pipes.get(&restoration.person.user).into_iter().flatten();
        let fits = |one: &&Arc<Revocation>| {
            one.person.tenant.is_some() && restoration.taken.as_ref().is_none_or(|taken| *taken == one.taken)
        };
        let exact = |one: &Arc<Revocation>| Restoration { person: one.person.clone(), taken: Some(one.taken.clone()) };
        entries.filter(fits).map(exact).collect()
    }

    /// Lifts what the restoration names. Returns the entries that were in the table.
    pub fn lift(&self, restoration: &Restoration) -> Vec<Arc<Revocation>> {
        let mut parts = self.write();
        let Some(entries) = parts.pipes.get_mut(&restoration.person.user) else { return Vec::new() };
        let (lifted, kept) = std::mem::take(entries).into_iter().partition(|one| restoration.lifts(one));
        *entries = kept;
        if entries.is_empty() {
            parts.pipes.remove(&restoration.person.user);
        }
        let lifted: Vec<_> = lifted;
        parts.count -= lifted.len();
        lifted
    }

    /// Takes this entry out if what stands in its place has ended by `now_ms`. True: it was there and had. The caller
    /// knows from its own list what is due; nothing else is looked at under the lock.
    pub fn expire(&self, entry: &Entry, now_ms: u64) -> bool {
        let mut parts = self.write();
        let ended = match entry {
            Entry::Pipes(old) => {
                let same = |one: &Revocation| one.person == old.person && one.taken == old.taken;
                end_listed(&mut parts.pipes, &old.person.user, |one| same(one) && one.until_ms <= now_ms)
            }
            Entry::Tokens(old) => match &old.tokens {
                Tokens::Token(id) => end_single(&mut parts.tokens, id, now_ms),
                Tokens::Session(id) => end_single(&mut parts.sessions, id, now_ms),
                Tokens::IssuedBefore { person, .. } => end_listed(&mut parts.issued_before, &person.user, |one| {
                    one.tokens == old.tokens && one.until_ms <= now_ms
                }),
            },
        };
        parts.count -= usize::from(ended);
        ended
    }

    /// Whether this very entry is in the table: not lifted, not ended, not replaced by a later one.
    pub fn holds(&self, entry: &Entry) -> bool {
        let parts = self.read();
        match entry {
            Entry::Pipes(own) => {
                parts.pipes.get(&own.person.user).is_some_and(|list| list.iter().any(|one| Arc::ptr_eq(one, own)))
            }
            Entry::Tokens(own) => {
                let is_own = |one: &Arc<TokenRevocation>| Arc::ptr_eq(one, own);
                match &own.tokens {
                    Tokens::Token(id) => parts.tokens.get(id).is_some_and(is_own),
                    Tokens::Session(id) => parts.sessions.get(id).is_some_and(is_own),
                    Tokens::IssuedBefore { person, .. } => {
                        parts.issued_before.get(&person.user).is_some_and(|list| list.iter().any(is_own))
                    }
                }
            }
        }
    }

    /// Whether an entry of the same person and pipes, or of the same tokens, is in the table: this one would take its place.
    pub fn has_same(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Pipes(own) => {
                let same = |one: &Arc<Revocation>| one.person == own.person && one.taken == own.taken;
                self.read().pipes.get(&own.person.user).is_some_and(|list| list.iter().any(same))
            }
            Entry::Tokens(own) => self.until_of(&own.tokens) > 0,
        }
    }

    /// Entries that speak of this user id, in whatever tenant.
    pub fn count_of(&self, user: &str) -> usize {
        let parts = self.read();
        parts.pipes.get(user).map_or(0, Vec::len) + parts.issued_before.get(user).map_or(0, Vec::len)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Parts> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Parts> {
        self.parts.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the one of a user's entries that `is_over`. True: there was one.
fn end_listed<T>(map: &mut AHashMap<Arc<str>, Vec<Arc<T>>>, user: &Arc<str>, is_over: impl Fn(&T) -> bool) -> bool {
    let Some(entries) = map.get_mut(user) else { return false };
    let Some(place) = entries.iter().position(|one| is_over(one)) else { return false };
    entries.remove(place);
    if entries.is_empty() {
        map.remove(user);
    }
    true
}

/// Removes the entry of this id if it has ended. True: it had.
fn end_single(map: &mut AHashMap<Arc<str>, Arc<TokenRevocation>>, id: &Arc<str>, now_ms: u64) -> bool {
    let ended = map.get(id).is_some_and(|one| one.until_ms <= now_ms);
    if ended {
        map.remove(id);
    }
    ended
}

impl TokenRevocation {
    /// Whether every token that `other` revokes is revoked by this too, and for as long.
    fn contains(&self, other: &TokenRevocation) -> bool {
        let Tokens::IssuedBefore { person, issued_before_s, except_session, except_token } = &self.tokens else {
            return false;
        };
        let Tokens::IssuedBefore {
            person: other_person,
            issued_before_s: other_before_s,
            except_session: other_session,
            except_token: other_token,
        } = &other.tokens
        else {
            return false;
        };
        let spares_nobody_else = (except_session.is_none() || except_session == other_session)
            && (except_token.is_none() || except_token == other_token);
        person == other_person
            && issued_before_s >= other_before_s
            && spares_nobody_else
            && self.until_ms >= other.until_ms
    }
}

impl Restoration {
    /// Whether this entry is lifted. A tenant that was named must be the entry's own.
    pub fn lifts(&self, revocation: &Revocation) -> bool {
        self.person == revocation.person && self.taken.as_ref().is_none_or(|taken| *taken == revocation.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Revocations {
        Revocations::new(RandomState::with_seeds(1, 2, 3, 4))
    }

    fn person(tenant: Option<&str>, user: &str) -> Person {
        Person { tenant: tenant.map(Arc::from), user: user.into() }
    }

    fn pipes(person: Person, pipe: &str, until_ms: u64) -> Arc<Revocation> {
        let taken = Taken::Pipe(pipe.into());
        Arc::new(Revocation { person, taken, until_ms, until_authorized_after_ms: None })
    }

    fn cut_off(issued_before_s: i64, except_session: Option<&str>, until_ms: u64) -> Arc<TokenRevocation> {
        let tokens = Tokens::IssuedBefore {
            person: person(None, "ann"),
            issued_before_s,
            except_session: except_session.map(Arc::from),
            except_token: None,
        };
        Arc::new(TokenRevocation { tokens, until_ms })
    }

    // D4
    #[test]
    fn an_entry_ends_once_and_only_if_what_stands_in_its_place_has_ended() {
        let table = table();
        let first = pipes(person(None, "ann"), "a", 100);
        table.insert(first.clone());
        table.insert(pipes(person(Some("t"), "ann"), "a", 100));
        let first = Entry::Pipes(first);
        assert!(table.holds(&first) && !table.expire(&first, 99));
        let longer = Entry::Pipes(pipes(person(None, "ann"), "a", 200));
        let Entry::Pipes(one) = &longer else { unreachable!() };
        table.insert(one.clone());
        assert!(!table.holds(&first) && table.holds(&longer));
        assert!(!table.expire(&first, 150), "it was prolonged");
        assert!(table.expire(&first, 200) && !table.expire(&longer, 200));
        assert_eq!((table.count(), table.count_of("ann"), table.of(Some("t"), "ann", 0).len()), (1, 1, 1));
    }

    #[test]
    fn tokens_end_alike() {
        let table = table();
        for tokens in [Tokens::Token("x".into()), Tokens::Session("x".into()), cut_off(5, None, 0).tokens.clone()] {
            let one = Arc::new(TokenRevocation { tokens, until_ms: 100 });
            assert!(table.insert_tokens(one.clone()).is_empty());
            let entry = Entry::Tokens(one);
            assert!(table.holds(&entry) && !table.expire(&entry, 99) && table.count() == 1);
            assert!(table.expire(&entry, 100) && !table.holds(&entry) && !table.expire(&entry, 100));
            assert_eq!(table.count(), 0);
        }
    }

    // D9, D11: calling it at every change of a password leaves one entry, not one for each.
    #[test]
    fn a_later_cut_off_takes_the_place_of_earlier_ones_that_it_contains() {
        let table = table();
        let sparing = cut_off(10, Some("s"), FOR_EVER);
        let plain = cut_off(10, None, FOR_EVER);
        assert!(table.insert_tokens(plain.clone()).is_empty());
        assert_eq!(table.insert_tokens(sparing.clone()), [], "it spares more");
        assert_eq!(table.insert_tokens(cut_off(20, None, 500)), [], "it ends sooner");
        assert_eq!(table.count(), 3);
        let all = table.insert_tokens(cut_off(20, None, FOR_EVER));
        assert_eq!(all, [plain, sparing], "and the one with its own text was replaced");
        assert_eq!(table.count(), 1);
        assert_eq!(table.insert_tokens(cut_off(19, None, FOR_EVER)), [], "an earlier one contains nothing");
        assert!(table.covers(&issued_at(19_999), 1) && !table.covers(&issued_at(20_000), 1));
    }

    fn issued_at(issued_at_ms: i64) -> TokenFacts<'static> {
        TokenFacts { user: "ann", issued_at_ms, ..TokenFacts::default() }
    }

    // B8, D9: what is dated ahead is old for every cut-off of today, and judged by its date where the cut-off lies ahead too.
    #[test]
    fn a_token_that_is_dated_far_ahead_does_not_outlive_a_cut_off() {
        let now_ms = 1_000_000_000;
        let (near, far) = (issued_at(1_000_000_000 + 299_000), issued_at(1_000_000_000 + 500_000));
        let today = table();
        today.insert_tokens(cut_off(1_000_001, None, FOR_EVER));
        assert!(!today.covers(&near, now_ms) && today.covers(&far, now_ms));
        assert!(!today.covers(&far, now_ms + 200_000), "its time has come");
        let ahead = table();
        ahead.insert_tokens(cut_off(1_000_450, None, FOR_EVER));
        assert!(ahead.covers(&near, now_ms) && !ahead.covers(&far, now_ms));
    }

    // D6
    #[test]
    fn lifting_counts_down() {
        let table = table();
        table.insert(pipes(person(None, "ann"), "a", FOR_EVER));
        table.insert(pipes(person(None, "ann"), "b", FOR_EVER));
        let lifted = table.lift(&Restoration { person: person(None, "ann"), taken: Some(Taken::Pipe("a".into())) });
        assert_eq!((lifted.len(), table.count()), (1, 1));
        table.lift(&Restoration { person: person(None, "ann"), taken: None });
        assert_eq!((table.count(), table.count_of("ann")), (0, 0));
    }
}
