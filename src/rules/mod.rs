//! Rules of the configuration: who may do what, beside what a token or the webhook grants.
//!
//! ```text
//!  message ─▶ scope ─▶ revoked? ─▶ guards: global → module → own ─▶ explicit grant, or the rule ─▶ event: right,
//!                                   first refusal ends                                             size, scope, schema
//! ```
//!
//! Pure: a rule sees what it is given and answers with a boolean; anything else is a refusal to the client and a fault to
//! the operator (RK-6). What a rule needs of the application comes back as [`judge::Verdict::Ask`], and the same
//! judgement is made again once the answer is there.
//!
//! Reading order: [`definition`] (what a configuration says) · [`expression`] (CEL, checked at load) · [`value`] (JSON
//! and identities as its values) · [`judge`] (the chain) · [`payload`], [`schema`] and [`reference`] (what an
//! event may hold).

pub mod definition;
pub mod expression;
pub mod judge;
pub mod payload;
pub mod reference;
pub mod schema;
pub mod value;

pub use definition::Rules;
