//! Connections where the test wants them, and tokens that say more than who and what.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Client, sign};

/// Connects with this token until a connection stands on each worker; the kernel places them. In the workers' order.
#[track_caller]
pub fn one_on_each(to: SocketAddr, workers: usize, token: &str) -> Vec<Client> {
    let mut found: BTreeMap<usize, Client> = BTreeMap::new();
    let mut spare = Vec::new();
    while found.len() < workers {
        let client = Client::connect(to, token);
        match found.entry(client.worker()) {
            Entry::Vacant(place) => drop(place.insert(client)),
            Entry::Occupied(_) => spare.push(client),
        }
        assert!(spare.len() < 2_000, "after so many connections only {:?} have one", found.keys());
    }
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), (0..workers).collect::<Vec<_>>());
    spare.into_iter().for_each(Client::close);
    found.into_values().collect()
}

/// A token of `user` with all rights on every pipe and these further claims, an object.
pub fn token_with(user: &str, further: Value) -> String {
    let every = json!({"subscribe": true, "publish": true, "presence": true});
    let mut claims = json!({"sub": user, "pipes": {"**": every}});
    let further = further.as_object().expect("claims").clone();
    claims.as_object_mut().expect("an object").extend(further);
    sign(&claims.to_string())
}

/// A grant with these rights, as it stands in a token or in what the server tells: `"sub,pub"`.
pub fn rights(rights: &str) -> Value {
    let has = |right: &str| rights.split(',').any(|one| one == right);
    json!({"subscribe": has("sub"), "publish": has("pub"), "presence": has("presence")})
}

/// Asserts a `system` message with this `event`.
#[track_caller]
pub fn assert_system(heard: &Value, event: &str) {
    assert_eq!((&heard["type"], &heard["event"]), (&json!("system"), &json!(event)), "{heard}");
}

impl Client {
    /// Asserts that the next message is this `system` event, about this pipe.
    #[track_caller]
    pub fn expect_system(&mut self, event: &str, pipe: &str) -> Value {
        let heard = self.receive();
        assert_system(&heard, event);
        assert_eq!(heard["pipe"], pipe, "{heard}");
        heard
    }

    /// Its public name.
    #[track_caller]
    pub fn name(&self) -> String {
        self.welcome["connection"].as_str().expect("a name").to_owned()
    }
}
