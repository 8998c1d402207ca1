//! What the application wants next, drawn so that calls meet: a few people, tokens and pipes, and mostly what is known.

use std::sync::Arc;

use pipeward::protocol::encode::{self, Sender};
use pipeward::shard::command::{Act, Person, Who, Within};
use pipeward::shard::revocation::{FOR_EVER, Restoration, Revocation, Taken, TokenRevocation, Tokens};

use super::World;
use super::control::Ask;
use crate::plan::{PATTERNS, PEOPLE, SESSIONS, TOKEN_IDS};
use crate::random::Random;

impl World {
    pub(super) fn draw_ask(&mut self) -> Ask {
        let now = self.now();
        let until_ms =
            if self.random.chance(60) { FOR_EVER } else { now.unix_ms + self.random.between(1, 20_000) as u64 };
        match self.random.below(100) {
            0..=26 => {
                let (person, taken) = (self.draw_person(), self.draw_taken());
                let until_authorized_after_ms = self.random.chance(15).then_some(now.unix_ms);
                Ask::Revoke(Arc::new(Revocation { person, taken, until_ms, until_authorized_after_ms }))
            }
            27..=44 => Ask::Restore(self.draw_restoration()),
            45..=51 => Ask::RevokeTokens(Arc::new(TokenRevocation { tokens: self.draw_tokens(), until_ms })),
            52..=55 => {
                let who = self.draw_who();
                Ask::Act(Act::Disconnect { who, reconnect: self.random.chance(50) })
            }
            56..=63 => {
                let who = self.draw_who();
                Ask::Act(Act::Unsubscribe { who, pipe: (*self.random.pick(&self.plan.pipes)).into() })
            }
            64..=73 => {
                self.unique += 1;
                let data = format!(r#"{{"push":{}}}"#, self.unique);
                let bytes = encode::push_frame("pushed", &data, Sender::Application, now.unix_ms).into();
                Ask::Act(Act::Push { to: self.draw_who(), within: Within::Anywhere, bytes })
            }
            74..=87 => {
                self.unique += 1;
                let pipe = (*self.random.pick(&self.plan.pipes)).to_owned();
                let data = format!(r#"{{"by the application": {}}}"#, self.unique);
                Ask::Publish { pipe, event: "message".to_owned(), data, count: self.random.chance(60) }
            }
            88..=93 => {
                let person = if self.random.chance(70) { Some(self.draw_person()) } else { None };
                let after_slot = self.random.chance(20).then(|| self.random.below(3) as u32);
                Ask::Act(Act::Connections { person, after_slot, limit: self.random.between(1, 6) })
            }
            94..=95 => {
                let after = self.random.chance(30).then(|| Arc::from(*self.random.pick(&self.plan.pipes)));
                Ask::Act(Act::Pipes { after, limit: self.random.between(1, 6) })
            }
            96..=98 => Ask::Act(Act::Members { pipe: (*self.random.pick(&self.plan.pipes)).into() }),
            _ => Ask::Act(Act::Stats),
        }
    }

    fn draw_person(&mut self) -> Person {
        let (user, tenant, ..) = *self.random.pick(&PEOPLE);
        let tenant = if self.random.chance(50) { tenant } else { None };
        Person { tenant: tenant.map(Arc::from), user: user.into() }
    }

    fn draw_taken(&mut self) -> Taken {
        match self.random.below(10) {
            0..=1 => Taken::Everything,
            2..=4 => Taken::Pipe((*self.random.pick(&PATTERNS)).into()),
            _ => Taken::Pipe((*self.random.pick(&self.plan.pipes)).into()),
        }
    }

    /// Mostly of something that is revoked.
    fn draw_restoration(&mut self) -> Restoration {
        let known = &self.model.table.pipes;
        let (person, taken) = if !known.is_empty() && self.random.chance(85) {
            let one = self.random.pick(known).clone();
            (one.person.clone(), one.taken.clone())
        } else {
            (self.draw_person(), self.draw_taken())
        };
        Restoration { person, taken: if self.random.chance(70) { Some(taken) } else { None } }
    }

    fn draw_tokens(&mut self) -> Tokens {
        let token = |random: &mut Random| format!("t{}", random.below(TOKEN_IDS)).into();
        match self.random.below(10) {
            0..=2 => Tokens::Token(token(&mut self.random)),
            3..=4 => Tokens::Session((*self.random.pick(&SESSIONS)).into()),
            _ => Tokens::IssuedBefore {
                person: self.draw_person(),
                issued_before_s: (self.now().unix_ms / 1_000) as i64 + self.random.below(4) as i64 - 2,
                except_session: self.random.chance(40).then(|| (*self.random.pick(&SESSIONS)).into()),
                except_token: self.random.chance(30).then(|| token(&mut self.random)),
            },
        }
    }

    fn draw_who(&mut self) -> Who {
        let (_, tenant, org, role) = *self.random.pick(&PEOPLE);
        let only_in = self.random.chance(50).then_some(tenant).flatten().map(Arc::from);
        match self.random.below(8) {
            0 => Who::Session((*self.random.pick(&SESSIONS)).into()),
            1 => Who::Role(role.unwrap_or("nobody").into(), only_in),
            2 => Who::Tenant(tenant.unwrap_or("nowhere").into()),
            3 => Who::Org(org.unwrap_or("nowhere").into(), only_in),
            4..=5 if !self.model.connections.is_empty() => {
                Who::Connection(self.random.pick(&self.model.connections).name().into())
            }
            _ => Who::User(self.draw_person()),
        }
    }
}
