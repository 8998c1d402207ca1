//! Who a connection is and what it is granted: at the welcome, and after a newer token (C21–C27).

use pipeward::protocol::codes::Code;
use pipeward::shard::input::Now;
use pipeward::shard::revocation::{Revocation, Taken};

use super::control::{covers, unsubscribed};
use super::rights::{self, Grant, Right};
use super::wire::{Pass, quote};
use super::{Client, Model};

impl Model {
    /// Takes over what a token says, but for what is revoked.
    pub fn install(&mut self, client: Client, pass: Pass) {
        let mut revoked = self.table.of(&pass.person, self.unix_ms);
        let ended: Vec<_> = revoked.extract_if(.., |one| ends(&pass, one)).collect();
        let connection = &mut self.connections[client];
        // D14: a revocation in every tenant is lifted by nobody's token but one without a tenant.
        let own = |one: &Revocation| one.person.tenant.as_deref() == pass.person.tenant.as_deref();
        self.ended.extend(ended.into_iter().filter(|one| own(one)).map(|one| (connection.worker, one)));
        connection.revoked = revoked;
        connection.person = Some(pass.person);
        connection.grants = pass.grants;
        connection.ids = pass.ids;
        connection.expires_at_ms = pass.expires_at_ms;
        connection.told_expiring = false;
    }

    /// Whether the connection knows this pipe, or what this pattern stands for, to be revoked.
    pub fn is_revoked(&self, client: Client, name: &str) -> bool {
        let connection = &self.connections[client];
        connection.revoked.iter().any(|one| {
            // D4: a later authorization that grants the pipe itself is not bound.
            let ended = follows(connection.ids.issued_at_s, one) && grants_any(&connection.grants, name);
            one.until_ms > self.unix_ms && covers(&one.taken, name) && !ended
        })
    }

    fn hides(&self, client: Client, grant: &str) -> bool {
        if !grant.contains('*') {
            return self.is_revoked(client, grant);
        }
        let connection = &self.connections[client];
        connection.revoked.iter().any(|one| {
            let same = match &one.taken {
                Taken::Everything => true,
                Taken::Pipe(text) => **text == *grant,
            };
            one.until_ms > self.unix_ms && same && !follows(connection.ids.issued_at_s, one)
        })
    }

    /// B25
    pub fn listed(&self, client: Client) -> String {
        let listed = self.shown(client).into_iter().map(|grant| {
            let Grant { name, subscribe, publish } = &grant;
            format!(r#"{}:{{"subscribe":{subscribe},"publish":{publish},"presence":false}}"#, quote(name))
        });
        listed.collect::<Vec<_>>().join(",")
    }

    /// The grants that a client is told of (B25).
    fn shown(&self, client: Client) -> Vec<Grant> {
        self.connections[client].grants.iter().filter(|grant| !self.hides(client, &grant.name)).cloned().collect()
    }

    pub fn refresh(&mut self, now: Now, client: Client, id: Option<&str>, pass: Pass) {
        let connection = &self.connections[client];
        let Some(person) = &connection.person else {
            return self.close(now, client, 4403, "an anonymous connection cannot take a token", true);
        };
        if !pass.genuine || pass.expires_at_ms.is_some_and(|at| at <= now.unix_ms) {
            // The sentence is for people and may change; that there is one is not for the verifier to say.
            let error = self.verifier.verify(&pass.text, now.unix_ms).err().map(|error| error.to_string());
            return self.error(client, id, Code::Unauthenticated, &error.unwrap_or_default());
        }
        let whose = |one: &rights::Person| (one.id.clone(), one.tenant.clone(), one.org.clone());
        if whose(person) != whose(&pass.person) {
            return self.close(now, client, 4403, "the token is somebody else's", true);
        }
        if self.table.covers_token(&pass.person, &pass.ids, now.unix_ms) {
            return self.error(client, id, Code::Revoked, "This token was revoked");
        }
        if pass.ids.issued_at_s < connection.ids.issued_at_s {
            let error = "The token is older than the one in use: send a newer one";
            return self.error(client, id, Code::Invalid, error);
        }
        self.adopt(client, id, pass);
    }

    fn adopt(&mut self, client: Client, id: Option<&str>, pass: Pass) {
        let old = self.shown(client);
        self.install(client, pass);
        let names: Vec<String> = self.connections[client].subscriptions.keys().cloned().collect();
        let mut told = Vec::new();
        for name in names {
            if !self.may(client, &name, Right::Subscribe) {
                self.unsubscribe(client, &name);
                told.push(unsubscribed(&name, "refresh"));
            }
        }
        *self.told.entry("unsubscribed").or_default() += told.len() as u64;
        *self.told.entry("refreshed").or_default() += 1;
        self.say_in_any_order(client, told);
        let new = self.shown(client);
        let names =
            |names: Vec<&Grant>| names.into_iter().map(|grant| quote(&grant.name)).collect::<Vec<_>>().join(",");
        let added = names(new.iter().filter(|grant| !old.contains(grant)).collect());
        let removed = names(old.iter().filter(|grant| new.iter().all(|other| other.name != grant.name)).collect());
        let listed = self.listed(client);
        if !added.is_empty() || !removed.is_empty() {
            *self.told.entry("grants_changed").or_default() += 1;
            self.say(client, format!(
                r#"{{"type":"system","event":"grants_changed","pipes":{{{listed}}},"added":[{added}],"removed":[{removed}]}}"#
            ));
        }
        if let Some(id) = id {
            let expires = self.connections[client].expires_at_ms;
            let expires = expires.map_or(String::new(), |at| format!(r#","expires_at":{at}"#));
            self.say(client, format!(r#"{{"type":"reply","id":{id},"ok":true,"pipes":{{{listed}}}{expires}}}"#));
        }
    }
}

/// D4: whether this token, issued later, grants what was revoked until then.
fn ends(pass: &Pass, revocation: &Revocation) -> bool {
    match &revocation.taken {
        Taken::Pipe(text) if !text.contains('*') => {
            follows(pass.ids.issued_at_s, revocation) && grants_any(&pass.grants, text)
        }
        Taken::Pipe(_) | Taken::Everything => false,
    }
}

fn follows(issued_at_s: i64, revocation: &Revocation) -> bool {
    revocation.until_authorized_after_ms.is_some_and(|after_ms| issued_at_s * 1_000 > after_ms as i64)
}

/// Whether the explicit grants give any right to this pipe.
fn grants_any(grants: &[Grant], name: &str) -> bool {
    [Right::Subscribe, Right::Publish].into_iter().any(|right| rights::may(None, grants, &[], name, right))
}
