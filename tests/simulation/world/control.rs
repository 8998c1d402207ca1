//! The control thread as one more participant of the mesh: calls of the application, several at a time, each cut into
//! the steps that `control::service` takes and in their order: its turn among the calls about the same user · stored ·
//! in the table · pushed to every worker, with waiting where a ring is full · answered by every worker · acknowledged.
//! Between two steps anything may happen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use pipeward::mesh::port::{Counters, Port};
use pipeward::protocol::encode::{self, Sender};
use pipeward::shard::MeshParcel;
use pipeward::shard::command::{Act, Answer, Command, Person};
use pipeward::shard::revocation::{Entry, FOR_EVER, Restoration, Revocation, Taken, TokenRevocation, Tokens};

use super::World;
use crate::model::wire::quote;
use crate::model::{APPLICATION, Event, Parcel};
use crate::plan::PEOPLE;

/// Calls at work at one time.
const CALLS_MAX: usize = 6;

type Answers = Arc<Mutex<Vec<(u64, usize, Answer)>>>;

pub struct Control {
    port: Port<MeshParcel>,
    answers: Answers,
    calls: Vec<Call>,
    /// By worker: the calls that wait for room in its ring, first come first served.
    lines: BTreeMap<usize, VecDeque<u64>>,
    numbers: u64,
    /// Entries with an end.
    endings: Vec<Entry>,
    /// Revocations that workers say have ended (D4).
    pub reauthorized: VecDeque<Arc<Revocation>>,
    /// Calls that were acknowledged, by what they were.
    pub done: BTreeMap<&'static str, u64>,
}

/// What is called for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Revoke(Arc<Revocation>),
    Restore(Restoration),
    RevokeTokens(Arc<TokenRevocation>),
    End(Entry),
    Lift(Arc<Revocation>),
    /// Nothing that the table is concerned with.
    Act(Act),
    Publish {
        pipe: String,
        event: String,
        data: String,
        count: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Turn,
    /// What was accepted until now is to be delivered first; so many rounds of it are still to come.
    Settling(u8),
    Stored,
    Asked,
}

struct Call {
    number: u64,
    ask: Ask,
    stage: Stage,
    /// Not yet pushed: worker and the same parcel for the mesh and for the model.
    left: VecDeque<(usize, MeshParcel, Parcel)>,
    owed: usize,
    sum: u64,
    /// Events that had been taken when it began.
    began: u64,
}

impl Control {
    pub fn new(port: Port<MeshParcel>) -> Control {
        Control {
            port,
            answers: Answers::default(),
            calls: Vec::new(),
            lines: BTreeMap::new(),
            numbers: 0,
            endings: Vec::new(),
            reauthorized: VecDeque::new(),
            done: BTreeMap::new(),
        }
    }

    pub fn counters(&self) -> Counters {
        self.port.counters()
    }

    fn begin(&mut self, ask: Ask) {
        self.numbers += 1;
        let stage = if ask.subject().is_some() { Stage::Turn } else { Stage::Stored };
        self.calls.push(Call { number: self.numbers, ask, stage, left: VecDeque::new(), owed: 0, sum: 0, began: 0 });
    }

    /// Nothing else about the same user, token or session may be under way.
    fn may_begin(&self, place: usize) -> bool {
        let subject = self.calls[place].ask.subject();
        let ahead = |other: &Call| other.stage != Stage::Turn && other.ask.subject() == subject;
        !self.calls.iter().any(ahead) && !self.calls[..place].iter().any(|other| other.ask.subject() == subject)
    }
}

impl Ask {
    /// Whose turn it needs.
    fn subject(&self) -> Option<&str> {
        match self {
            Ask::Revoke(one) | Ask::Lift(one) => Some(&one.person.user),
            Ask::Restore(one) => Some(&one.person.user),
            Ask::RevokeTokens(one) => Some(subject_of_tokens(one)),
            Ask::End(Entry::Pipes(one)) => Some(&one.person.user),
            Ask::End(Entry::Tokens(one)) => Some(subject_of_tokens(one)),
            Ask::Act(_) | Ask::Publish { .. } => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Ask::Revoke(one) => match &one.taken {
                Taken::Everything => "revoke_all",
                Taken::Pipe(text) if text.contains('*') => "revoke pattern",
                Taken::Pipe(_) => "revoke",
            },
            Ask::Restore(_) => "restore",
            Ask::RevokeTokens(_) => "revoke_tokens",
            Ask::End(_) => "end",
            Ask::Lift(_) => "lift",
            Ask::Publish { .. } => "publish",
            Ask::Act(Act::Push { .. }) => "push",
            Ask::Act(Act::Disconnect { .. }) => "disconnect",
            Ask::Act(Act::Unsubscribe { .. }) => "unsubscribe",
            Ask::Act(_) => "question",
        }
    }
}

fn subject_of_tokens(one: &TokenRevocation) -> &str {
    match &one.tokens {
        Tokens::Token(id) | Tokens::Session(id) => id,
        Tokens::IssuedBefore { person, .. } => &person.user,
    }
}

impl World {
    // ---- what the application wants ------------------------------------------------------------------------------

    /// The application calls for something, or time has come for something.
    pub(super) fn application_calls(&mut self) {
        if self.control.calls.len() >= CALLS_MAX {
            return;
        }
        let ask = self.draw_ask();
        self.say(|| format!("the application asks {ask:?}"));
        self.control.begin(ask);
    }

    // ---- how it goes on ------------------------------------------------------------------------------------------

    /// One step of one call, or of what has come due.
    pub(super) fn calls_go_on(&mut self) {
        self.begin_due();
        if !self.control.calls.is_empty() {
            let place = self.random.below(self.control.calls.len());
            self.call_goes_on(place);
        }
    }

    /// True: something was done.
    pub(super) fn all_calls_go_on(&mut self) -> bool {
        self.begin_due();
        let mut moved = false;
        let mut place = 0;
        while place < self.control.calls.len() {
            let number = self.control.calls[place].number;
            moved |= self.call_goes_on(place);
            place += usize::from(self.control.calls.get(place).is_some_and(|call| call.number == number));
        }
        moved
    }

    fn begin_due(&mut self) {
        while let Some(revocation) = self.control.reauthorized.pop_front() {
            self.control.begin(Ask::Lift(revocation));
        }
        let now_ms = self.now().unix_ms;
        let due: Vec<Entry> = self.control.endings.extract_if(.., |entry| entry.until_ms() <= now_ms).collect();
        due.into_iter().for_each(|entry| self.control.begin(Ask::End(entry)));
    }

    fn call_goes_on(&mut self, place: usize) -> bool {
        let call = &self.control.calls[place];
        if !call.left.is_empty() {
            return self.push_on(place);
        }
        if call.owed > 0 {
            return false;
        }
        match call.stage {
            Stage::Turn => {
                let begins = self.control.may_begin(place);
                if begins {
                    let call = &mut self.control.calls[place];
                    call.stage = if matches!(call.ask, Ask::Restore(_)) { Stage::Settling(2) } else { Stage::Stored };
                    call.began = self.model.events_taken;
                }
                begins
            }
            Stage::Settling(0) => {
                self.control.calls[place].stage = Stage::Stored;
                true
            }
            Stage::Settling(rounds) => {
                self.control.calls[place].stage = Stage::Settling(rounds - 1);
                self.ask_workers(place, &Act::Settle);
                true
            }
            Stage::Stored => {
                self.table_and_parcels(place);
                true
            }
            Stage::Asked => {
                self.acknowledge(place);
                true
            }
        }
    }

    /// The table is changed, and what the workers must be told is pushed as far as there is room.
    fn table_and_parcels(&mut self, place: usize) {
        let now = self.now();
        let table = &self.shared.revocations;
        let act = match &self.control.calls[place].ask {
            Ask::Revoke(one) => {
                table.insert(one.clone());
                self.model.table.insert(one.clone());
                self.control.endings.push(Entry::Pipes(one.clone()));
                Some(Act::Revoke(one.clone()))
            }
            Ask::Restore(one) => {
                table.lift(one);
                self.model.lift(one, self.control.calls[place].began);
                Some(Act::Restore(Arc::new(one.clone())))
            }
            Ask::RevokeTokens(one) => {
                table.insert_tokens(one.clone());
                self.model.table.insert_tokens(one.clone());
                self.control.endings.push(Entry::Tokens(one.clone()));
                Some(Act::RevokeTokens(one.clone()))
            }
            Ask::End(entry) => {
                let ended = table.expire(entry, now.unix_ms);
                let expected = self.model.table.expire(entry, now.unix_ms);
                match entry {
                    Entry::Pipes(one) => {
                        assert_eq!(ended, expected, "{entry:?} ends");
                        let restoration = Restoration { person: one.person.clone(), taken: Some(one.taken.clone()) };
                        ended.then(|| Act::Restore(Arc::new(restoration)))
                    }
                    Entry::Tokens(_) => None,
                }
            }
            Ask::Lift(one) => {
                let holds = table.holds(&Entry::Pipes(one.clone()));
                assert_eq!(
                    holds,
                    self.model.table.pipes.iter().any(|other| Arc::ptr_eq(one, other)),
                    "{one:?} is there"
                );
                let restoration = Restoration { person: one.person.clone(), taken: Some(one.taken.clone()) };
                if holds {
                    table.lift(&restoration);
                    self.model.table.lift(&restoration);
                }
                holds.then(|| Act::Restore(Arc::new(restoration)))
            }
            Ask::Act(act) => Some(act.clone()),
            Ask::Publish { .. } => None,
        };
        self.control.endings.retain(|entry| entry.until_ms() != FOR_EVER);
        self.model.table_changed();
        self.tables_agree();
        self.control.calls[place].stage = Stage::Asked;
        if let Ask::Publish { pipe, event, data, count } = self.control.calls[place].ask.clone() {
            let parcels = self.event_parcels(place, pipe, event, &data, count);
            self.push_first(place, parcels);
        } else if let Some(act) = act {
            self.ask_workers(place, &act);
        } else {
            self.push_first(place, VecDeque::new());
        }
    }

    fn ask_workers(&mut self, place: usize, act: &Act) {
        let number = self.control.calls[place].number;
        let mut parcels = VecDeque::new();
        for worker in 0..self.workers.len() {
            let command = self.command(number, worker, act.clone());
            parcels.push_back((worker, command, Parcel::Command(act.clone(), number)));
        }
        self.control.calls[place].owed = self.workers.len();
        self.push_first(place, parcels);
    }

    /// The command for one worker, which answers into the common list.
    fn command(&self, number: u64, worker: usize, act: Act) -> MeshParcel {
        let answers = self.control.answers.clone();
        let answer = Box::new(move |answer| answers.lock().expect("nobody panics here").push((number, worker, answer)));
        MeshParcel::Command(Box::new(Command { act, answer: Some(answer) }))
    }

    fn event_parcels(
        &mut self,
        place: usize,
        pipe: String,
        event: String,
        data: &str,
        count: bool,
    ) -> VecDeque<(usize, MeshParcel, Parcel)> {
        let now = self.now();
        // As seen from outside: every worker may be interested.
        let interested = self.model.interested(self.workers.len(), &pipe);
        let known = self.shared.registry.find(&pipe);
        let bits = known.as_ref().map_or(0, |known| known.interest());
        assert_eq!(bits, interested.iter().fold(0, |bits, worker| bits | 1 << worker), "interest in {pipe}");
        let Some(known) = known else { return VecDeque::new() };
        let text = format!(
            r#"{{"type":"event","pipe":{},"event":{},"data":{data},"sender":null,"ts":{}}}"#,
            quote(&pipe),
            quote(&event),
            now.unix_ms
        );
        let bytes: Arc<[u8]> = encode::event_frame(&pipe, &event, data, Sender::Application, now.unix_ms).into();
        let told: Event = self.model.next_event(pipe, event, text, APPLICATION);
        let number = self.control.calls[place].number;
        self.control.calls[place].owed = if count { interested.len() } else { 0 };
        let parcel = |worker| {
            let (pipe, bytes) = (known.clone(), bytes.clone());
            if count {
                let command = self.command(number, worker, Act::Publish { pipe, bytes });
                (worker, command, Parcel::Counted(told.clone(), number))
            } else {
                (worker, MeshParcel::Event { pipe, bytes }, Parcel::Event(told.clone()))
            }
        };
        interested.into_iter().map(parcel).collect()
    }

    /// What finds room, and nobody standing in line before it, goes at once.
    fn push_first(&mut self, place: usize, parcels: VecDeque<(usize, MeshParcel, Parcel)>) {
        let mut left = VecDeque::new();
        for (worker, entry, parcel) in parcels {
            let line = self.control.lines.entry(worker).or_default();
            if !line.is_empty() {
                left.push_back((worker, entry, parcel));
            } else if let Some(entry) = self.push_entry(worker, entry, parcel) {
                left.push_back((worker, entry.0, entry.1));
            }
        }
        self.make_visible();
        *self.control.done.entry("waited for room").or_default() += u64::from(!left.is_empty());
        let call = &mut self.control.calls[place];
        if let Some((worker, ..)) = left.front() {
            self.control.lines.entry(*worker).or_default().push_back(call.number);
        }
        call.left = left;
    }

    /// The first of what is left, if it is first in its line and there is room now.
    fn push_on(&mut self, place: usize) -> bool {
        let number = self.control.calls[place].number;
        let Some((worker, entry, parcel)) = self.control.calls[place].left.pop_front() else { return false };
        let first = self.control.lines.entry(worker).or_default().front() == Some(&number);
        let back = if first { self.push_entry(worker, entry, parcel) } else { Some((entry, parcel)) };
        if let Some((entry, parcel)) = back {
            self.control.calls[place].left.push_front((worker, entry, parcel));
            return false;
        }
        self.make_visible();
        self.control.lines.entry(worker).or_default().pop_front();
        if let Some((next, ..)) = self.control.calls[place].left.front() {
            self.control.lines.entry(*next).or_default().push_back(number);
        }
        true
    }

    /// Gives back what finds no room.
    fn push_entry(&mut self, worker: usize, entry: MeshParcel, parcel: Parcel) -> Option<(MeshParcel, Parcel)> {
        let control = self.workers.len();
        let room = self.model.has_room(control, worker);
        match self.control.port.push(worker, entry) {
            Ok(()) => {
                assert!(room, "the ring to worker {worker} takes more than fits");
                self.model.push(control, worker, parcel);
                None
            }
            Err(entry) => {
                assert!(!room, "the ring to worker {worker} has room and takes nothing");
                Some((entry, parcel))
            }
        }
    }

    fn make_visible(&mut self) {
        self.control.port.publish();
        self.model.publish(self.workers.len());
    }

    /// Every worker that was asked answers once, what the model says.
    pub(super) fn take_answers(&mut self, index: usize) {
        let given = std::mem::take(&mut *self.control.answers.lock().expect("nobody panics here"));
        let expected = std::mem::take(&mut self.model.answers);
        let given: Vec<_> =
            given.into_iter().map(|(call, worker, one)| (call, worker, self.model.comparable(one))).collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(call, worker, one)| (call, worker, self.model.comparable(one))).collect();
        assert_eq!(given, expected, "answers of worker {index}");
        for (number, worker, answer) in given {
            self.say(|| format!("worker {worker} answers {answer:?}"));
            let call = self.control.calls.iter_mut().find(|call| call.number == number);
            let call = call.unwrap_or_else(|| panic!("an answer to call {number}, which is over"));
            call.owed = call.owed.checked_sub(1).expect("nobody answers twice");
            if let Answer::Count(count) = answer {
                call.sum += count;
            }
        }
    }

    fn acknowledge(&mut self, place: usize) {
        let call = self.control.calls.remove(place);
        self.say(|| format!("acknowledged, {}: {:?}", call.sum, call.ask));
        *self.control.done.entry(call.ask.name()).or_default() += 1;
        self.model.unix_ms = self.now().unix_ms;
        match &call.ask {
            Ask::Revoke(one) => self.model.acknowledge(one),
            Ask::RevokeTokens(one) => self.model.acknowledge_tokens(one),
            _ => {}
        }
    }

    /// What a look-up finds is what a naive list would give.
    fn tables_agree(&mut self) {
        let now_ms = self.now().unix_ms;
        let (user, tenant, ..) = *self.random.pick(&PEOPLE);
        let found = self.shared.revocations.of(tenant, user, now_ms);
        let person = Person { tenant: tenant.map(Arc::from), user: user.into() };
        let fits = |one: &&Arc<Revocation>| {
            let whose = &one.person;
            whose.user == person.user && (whose.tenant.is_none() || whose.tenant == person.tenant)
        };
        let pipes = self.model.table.pipes.iter();
        let expected: Vec<_> = pipes.filter(|one| one.until_ms > now_ms).filter(fits).cloned().collect();
        assert_eq!(found, expected, "revoked for {user} in {tenant:?}");
    }
}
