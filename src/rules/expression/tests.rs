//! Tests of expressions: what is refused at load, what is answered, what is a fault, filters, and our evaluator against
//! that of the crate `cel`.

mod answers;
mod arbitrary;
mod faults;
mod filters;
mod load;
mod reference;

use super::{Expression, Fault, Variables, Wanted};
use crate::rules::value::{Scope, Value, event, json, parsed, to};

/// The values that most tests are about; [`World::scope`] lends them.
struct World {
    user: Value,
    params: Value,
    event: Value,
    args: Value,
    to: Value,
    ctx: Value,
}

impl World {
    fn new() -> World {
        let sent = |text: &str| json(text).expect("test JSON");
        World {
            user: sent(
                r#"{"id":"u1","name":"Ada","role":"member","roles":["member","editor"],"team":"red","tenant":"t1",
                    "features":["chat","polls"],
                    "info":{"level":3,"ratio":1.5,"suspended":false,"nothing":null,"tags":["a","b"],"flag":true,
                            "big":18446744073709551615,"deep":{"x":{"y":1}},"text":"hello"}}"#,
            ),
            params: sent(r#"{"team":"red","tenant":"t1","room":"r1","user":"u1"}"#),
            event: event("message", sent(r#"{"level":2,"text":"hi","list":["u1","u2"],"n":9007199254740993}"#)),
            args: sent(r#"{"author":"u1","other":"u2","number":5,"list":[1,2,3]}"#),
            to: to("user", "u1"),
            ctx: sent(r#"{"permissions":["write"],"plan":"pro"}"#),
        }
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            user: &self.user,
            params: &self.params,
            event: &self.event,
            args: &self.args,
            to: &self.to,
            ctx: &self.ctx,
            pipe: "t1:team-red",
            ip: "192.0.2.7",
        }
    }
}

fn compile(text: &str) -> Expression {
    Expression::compile(text, Variables::ALL, Wanted::Boolean).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    match Expression::compile(text, Variables::ALL, Wanted::Boolean) {
        Ok(_) => panic!("`{text}` was not refused"),
        Err(sentence) => sentence,
    }
}

fn ask(text: &str) -> Result<bool, Fault> {
    compile(text).test(&World::new().scope())
}
