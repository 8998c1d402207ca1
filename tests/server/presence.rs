//! Who is there, over connections, workers, and changes of what one may see (GD-4, A4, B21, C8–C11, C17, D14, D16, E11,
//! INVARIANTS 10, 12).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Client, NO_RATES, Request, Server, assert_code, assert_forbidden, assert_ok, assert_system, frame, one_on_each,
    opcode, token, token_with, until,
};

/// Longer than presence may be gathered (C17).
const GATHERED: Duration = Duration::from_millis(1_200);

fn server(workers: usize) -> Server {
    let rates = format!("{NO_RATES}presence = {{ per_s = 0 }}\nrefresh = {{ per_s = 0 }}\n");
    let open = "[pipe.\"open-{x}\"]\nsubscribe = true\npublic = true\n";
    Server::start(&format!("[edge]\nworkers = {workers}\n[auth]\nanonymous = true\n[limits]\n{rates}{open}"))
}

fn connect(server: &Server, user: &str) -> Client {
    Client::connect(server.address, &token_with(user, json!({})))
}

fn members(reply: &Value) -> BTreeMap<String, u64> {
    let members = reply["members"].as_array().unwrap_or_else(|| panic!("no members in {reply}"));
    members
        .iter()
        .map(|one| (one["user"].as_str().expect("a user").to_owned(), one["connections"].as_u64().expect("a number")))
        .collect()
}

fn there(members: &[(&str, u64)]) -> BTreeMap<String, u64> {
    members.iter().map(|(user, connections)| ((*user).to_owned(), *connections)).collect()
}

/// Subscribes and watches; who is there.
#[track_caller]
fn watch(client: &mut Client, pipe: &str) -> BTreeMap<String, u64> {
    let reply = client.request(json!({"type": "subscribe", "pipe": pipe, "presence": true}));
    assert_ok(&reply);
    members(&reply)
}

#[track_caller]
fn ask(client: &mut Client, pipe: &str) -> BTreeMap<String, u64> {
    let reply = client.request(json!({"type": "presence", "pipe": pipe}));
    assert_ok(&reply);
    members(&reply)
}

/// Everything that a watcher is told within the time in which it has to be: who came, who went.
#[track_caller]
fn told(client: &mut Client, pipe: &str) -> (Vec<String>, Vec<String>) {
    std::thread::sleep(GATHERED);
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    for heard in client.settle() {
        assert_eq!((&heard["type"], &heard["pipe"]), (&json!("presence"), &json!(pipe)), "{heard}");
        let names = |side: &str| {
            let side = heard[side].as_array().unwrap_or_else(|| panic!("no changes in {heard}"));
            side.iter().map(|one| one["user"].as_str().expect("a user").to_owned()).collect::<Vec<_>>()
        };
        joined.extend(names("joined"));
        left.extend(names("left"));
    }
    joined.sort_unstable();
    left.sort_unstable();
    (joined, left)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// C17: one member, joined once, left once, however many connections there are.
fn one_member(workers: usize) {
    let server = server(workers);
    let mut watchers = one_on_each(server.address, workers, &token_with("watcher", json!({})));
    for (number, watcher) in watchers.iter_mut().enumerate() {
        assert_eq!(watch(watcher, "room"), there(&[("watcher", number as u64 + 1)]));
    }
    std::thread::sleep(GATHERED);
    watchers.iter_mut().for_each(|watcher| drop(watcher.settle()));
    let mut hers = one_on_each(server.address, workers, &token("ann", &[("room", "sub")]));
    hers.iter_mut().for_each(|client| assert_ok(&client.subscribe("room")));
    for watcher in &mut watchers {
        assert_eq!(told(watcher, "room"), (names(&["ann"]), names(&[])));
    }
    let both = there(&[("ann", workers as u64), ("watcher", workers as u64)]);
    assert_eq!(ask(&mut watchers[0], "room"), both);
    assert_eq!(ask(&mut connect(&server, "visitor"), "room"), both, "a question needs no subscription");
    let listed = server.api.list("/v1/pipes/room/presence");
    assert_eq!((members(&listed), &listed["total"], &listed["anonymous"]), (both, &json!(2), &json!(0)));
    let last = hers.pop().expect("one");
    hers.into_iter().for_each(Client::close);
    until("they are gone", || ask(&mut watchers[0], "room")["ann"] == 1);
    for watcher in &mut watchers {
        assert_eq!(told(watcher, "room"), (names(&[]), names(&[])), "she is still there");
    }
    last.close();
    for watcher in &mut watchers {
        assert_eq!(told(watcher, "room"), (names(&[]), names(&["ann"])));
    }
}

// GD-4, C17
#[test]
fn a_user_is_one_member_one_worker() {
    one_member(1);
}

// GD-4, C17
#[test]
fn a_user_is_one_member_two_workers() {
    one_member(2);
}

// GD-4, C17
#[test]
fn a_user_is_one_member_four_workers() {
    one_member(4);
}

// B21
#[test]
fn anonymous_connections_are_counted_and_not_listed() {
    let server = server(2);
    let mut nobodies: Vec<Client> = (0..3).map(|_| Client::with(server.address, &Request::upgrade())).collect();
    nobodies.iter_mut().for_each(|client| assert_ok(&client.subscribe("open-1")));
    let mut ann = connect(&server, "ann");
    let reply = ann.request(json!({"type": "subscribe", "pipe": "open-1", "presence": true}));
    assert_eq!(members(&reply), there(&[("ann", 1)]), "{reply}");
    assert_eq!((&reply["total"], &reply["anonymous"]), (&json!(1), &json!(3)), "{reply}");
    let listed = server.api.list("/v1/pipes/open-1/presence");
    assert_eq!((members(&listed), &listed["anonymous"]), (there(&[("ann", 1)]), &json!(3)));
    nobodies.into_iter().for_each(Client::close);
    until("they are no longer counted", || {
        ann.request(json!({"type": "presence", "pipe": "open-1"}))["anonymous"] == 0
    });
    // And without the right they see nobody themselves.
    let mut nobody = Client::with(server.address, &Request::upgrade());
    assert_forbidden(&nobody.request(json!({"type": "presence", "pipe": "open-1"})));
}

// GD-4, C8
#[test]
fn it_is_not_for_those_without_the_right() {
    let server = server(2);
    let mut ann = Client::connect(server.address, &token("ann", &[("room", "sub,pub"), ("hall", "presence")]));
    assert_forbidden(&ann.request(json!({"type": "subscribe", "pipe": "room", "presence": true})));
    assert_forbidden(&ann.request(json!({"type": "presence", "pipe": "room"})));
    assert_forbidden(&ann.request(json!({"type": "presence", "pipe": "unheard-of"})));
    // Nothing half done: it is not subscribed either.
    assert_code(&ann.request(json!({"type": "unsubscribe", "pipe": "room"})), "NOT_SUBSCRIBED");
    // Seeing who is there and receiving are two rights.
    assert_forbidden(&ann.subscribe("hall"));
    assert_eq!(ask(&mut ann, "hall"), there(&[]));
    assert_ok(&ann.subscribe("room"));
    let mut ben = connect(&server, "ben");
    assert_eq!(watch(&mut ben, "room"), there(&[("ann", 1), ("ben", 1)]));
    let mut eve = connect(&server, "eve");
    assert_ok(&eve.subscribe("room"));
    assert_eq!(told(&mut ben, "room").0, names(&["eve"]));
    assert_eq!(ann.settle(), [] as [Value; 0], "it did not ask and may not know");
    assert_eq!(eve.settle(), [] as [Value; 0], "it did not ask");
}

// D16, INVARIANTS 10
#[test]
fn a_revocation_takes_out_and_shuts_out() {
    let server = server(2);
    let mut watcher = connect(&server, "watcher");
    let mut hers = one_on_each(server.address, 2, &token_with("ann", json!({})));
    hers.iter_mut().for_each(|client| drop(watch(client, "room")));
    assert_eq!(watch(&mut watcher, "room"), there(&[("ann", 2), ("watcher", 1)]));
    std::thread::sleep(GATHERED);
    hers.iter_mut().for_each(|client| drop(client.settle()));
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    let mut ben = connect(&server, "ben");
    assert_ok(&ben.subscribe("room"));
    assert_eq!(told(&mut watcher, "room"), (names(&["ben"]), names(&["ann"])));
    for client in &mut hers {
        let heard = client.settle();
        assert_eq!(heard.len(), 1, "no frame of the pipe follows: {heard:?}");
        assert_system(&heard[0], "pipe_revoked");
        assert_code(&client.request(json!({"type": "presence", "pipe": "room"})), "REVOKED");
    }
    assert_eq!(ask(&mut watcher, "room"), there(&[("ben", 1), ("watcher", 1)]));
    server.api.done("restore", json!({"user": "ann"}));
    assert_ok(&hers[0].subscribe("room"));
    assert_eq!(told(&mut watcher, "room"), (names(&["ann"]), names(&[])));
}

// GD-4, HP-7: the right is looked at whenever something is told.
#[test]
fn a_refresh_without_the_right_stops_it() {
    let server = server(2);
    let grants = |rights: &str| token("ann", &[("room", rights)]);
    let mut ann = Client::connect(server.address, &grants("sub,presence"));
    watch(&mut ann, "room");
    let mut ben = connect(&server, "ben");
    assert_ok(&ben.subscribe("room"));
    assert_eq!(told(&mut ann, "room").0, names(&["ben"]));
    assert_ok(&ann.request(json!({"type": "refresh", "token": grants("sub")})));
    assert_system(&ann.receive(), "grants_changed");
    let mut eve = connect(&server, "eve");
    assert_ok(&eve.subscribe("room"));
    assert_eq!(told(&mut ann, "room"), (names(&[]), names(&[])));
    assert_forbidden(&ann.request(json!({"type": "presence", "pipe": "room"})));
    assert_ok(&ben.publish("room", 1));
    ann.expect_event("room", 1);
    // Having it again it may ask again.
    assert_ok(&ann.request(json!({"type": "refresh", "token": grants("sub,presence")})));
    ann.settle();
    assert_eq!(watch(&mut ann, "room"), there(&[("ann", 1), ("ben", 1), ("eve", 1)]));
    eve.close();
    assert_eq!(told(&mut ann, "room").1, names(&["eve"]));
}

// INVARIANTS 12
#[test]
fn leaving_and_coming_back_soon_is_not_told() {
    let server = server(2);
    let mut watcher = connect(&server, "watcher");
    watch(&mut watcher, "room");
    let mut ann = connect(&server, "ann");
    assert_ok(&ann.subscribe("room"));
    assert_eq!(told(&mut watcher, "room").0, names(&["ann"]));
    let message = |kind: &str| frame(0x80 | opcode::TEXT, json!({"type": kind, "pipe": "room"}).to_string());
    // In one piece: nothing can come between.
    ann.raw.send([message("unsubscribe"), message("subscribe")].concat());
    ann.settle();
    assert_eq!(told(&mut watcher, "room"), (names(&[]), names(&[])));
    assert_eq!(ask(&mut watcher, "room"), there(&[("ann", 1), ("watcher", 1)]));
    ann.raw.send([message("unsubscribe"), message("subscribe"), message("unsubscribe")].concat());
    ann.settle();
    assert_eq!(told(&mut watcher, "room"), (names(&[]), names(&["ann"])));
}

// C11
#[test]
fn it_ends_with_subscribing_without_it() {
    let server = server(1);
    let mut ann = connect(&server, "ann");
    watch(&mut ann, "room");
    assert_ok(&ann.subscribe("room"));
    let mut ben = connect(&server, "ben");
    assert_ok(&ben.subscribe("room"));
    assert_eq!(told(&mut ann, "room"), (names(&[]), names(&[])));
    assert_ok(&ben.publish("room", 1));
    ann.expect_event("room", 1);
}

// D14: a person is a user in a tenant.
#[test]
fn the_same_name_in_two_tenants_is_two() {
    let server = server(2);
    let of_tenant = |tenant: &str| token_with("ann", json!({"tenant": tenant, "name": tenant}));
    let mut watcher = connect(&server, "watcher");
    watch(&mut watcher, "room");
    let mut red = Client::connect(server.address, &of_tenant("red"));
    assert_ok(&red.subscribe("room"));
    assert_eq!(told(&mut watcher, "room").0, names(&["ann"]));
    let mut blue = Client::connect(server.address, &of_tenant("blue"));
    assert_ok(&blue.subscribe("room"));
    assert_eq!(told(&mut watcher, "room").0, names(&["ann"]));
    let listed = server.api.list("/v1/pipes/room/presence");
    assert_eq!((&listed["total"], listed["members"].as_array().map(Vec::len)), (&json!(3), Some(3)), "{listed}");
    server.api.done("revoke", json!({"user": "ann", "tenant": "red", "pipe": "room"}));
    assert_eq!(told(&mut watcher, "room").1, names(&["ann"]));
    let reply = watcher.request(json!({"type": "presence", "pipe": "room"}));
    let members = reply["members"].as_array().expect("members");
    assert!(members.iter().any(|one| one["user"] == "ann" && one["name"] == "blue"), "{reply}");
    assert!(!members.iter().any(|one| one["name"] == "red"), "{reply}");
}

// GD-4: every way of leaving is one.
#[test]
fn whoever_is_closed_has_left() {
    let server = server(2);
    let mut watcher = connect(&server, "watcher");
    watch(&mut watcher, "room");
    let mut all: Vec<Client> = Vec::new();
    for user in ["closes", "vanishes", "is-disconnected", "is-revoked", "unsubscribes", "is-unsubscribed", "narrows"] {
        let mut client = connect(&server, user);
        assert_ok(&client.subscribe("room"));
        all.push(client);
    }
    assert_eq!(told(&mut watcher, "room").0.len(), 7);
    let mut all = all.into_iter();
    let mut next = || all.next().expect("one more");
    next().close();
    next().raw.reset();
    server.api.done("disconnect", json!({"user": "is-disconnected"}));
    next().expect_close(4403);
    server.api.done("revoke_tokens", json!({"user": "is-revoked", "issued_before_s": 5}));
    next().expect_close(4402);
    let mut unsubscribes = next();
    assert_ok(&unsubscribes.request(json!({"type": "unsubscribe", "pipe": "room"})));
    server.api.done("unsubscribe", json!({"user": "is-unsubscribed", "pipe": "room"}));
    let _is_unsubscribed = next();
    let mut narrows = next();
    assert_ok(&narrows.request(json!({"type": "refresh", "token": token("narrows", &[])})));
    let (joined, mut left) = told(&mut watcher, "room");
    if left.len() < 7 {
        // What vanished is noticed when the kernel says so.
        left.extend(told(&mut watcher, "room").1);
    }
    assert_eq!((joined.len(), left.len()), (0, 7), "{left:?}");
    assert_eq!(ask(&mut watcher, "room"), there(&[("watcher", 1)]));
}

// G2, GD-4: the right may also go with the configuration.
#[test]
fn a_reload_without_the_right_stops_it() {
    let with = |presence: &str| {
        format!(
            "[edge]\nworkers = 2\n[limits]\n{NO_RATES}\
             [pipe.\"open-{{x}}\"]\nsubscribe = true\npublic = true\npresence = {presence}\n"
        )
    };
    let server = Server::start(&with("true"));
    let mut watchers = one_on_each(server.address, 2, &token("ann", &[]));
    watchers.iter_mut().for_each(|watcher| drop(watch(watcher, "open-1")));
    let mut ben = Client::connect(server.address, &token("ben", &[]));
    assert_ok(&ben.subscribe("open-1"));
    watchers.iter_mut().for_each(|watcher| assert!(told(watcher, "open-1").0.contains(&"ben".to_owned())));
    assert!(server.reload(&with("false")));
    for watcher in &mut watchers {
        let denied = |watcher: &mut Client| watcher.request(json!({"type": "presence", "pipe": "open-1"}));
        until("the right is gone", || denied(watcher)["code"] == "FORBIDDEN");
    }
    ben.close();
    for watcher in &mut watchers {
        assert_eq!(told(watcher, "open-1"), (names(&[]), names(&[])));
    }
    // The subscription itself stays.
    server.api.done("publish", json!({"pipe": "open-1", "event": "e", "data": 1}));
    watchers.iter_mut().for_each(|watcher| watcher.expect_event("open-1", 1));
}

// INVARIANTS 21: what is refused by the cap, or ended at once, leaves no pipe behind.
#[test]
fn watching_opens_no_more_rooms_than_there_may_be_subscriptions() {
    const MOST: usize = 16;
    for workers in [1, 2] {
        let rates = format!("{NO_RATES}presence = {{ per_s = 0 }}\nsubscriptions = {MOST}\n");
        let server = Server::start(&format!("[edge]\nworkers = {workers}\n[limits]\n{rates}"));
        let pipes = || server.api.list("/v1/stats")["total"]["pipes"].as_u64().expect("a number");
        let mut ann = Client::connect(server.address, &token("ann", &[("**", "sub,presence")]));
        let watch = |ann: &mut Client, round: usize, count: usize| {
            let names: Vec<String> = (0..count).map(|number| format!("room-{round}-{number}")).collect();
            let reply = ann.request(json!({"type": "subscribe", "pipes": &names, "presence": true}));
            (reply["results"].as_object().expect("results").values().filter(|one| one["ok"] == true).count(), names)
        };
        for round in 0..20 {
            let (done, _) = watch(&mut ann, round, 256);
            assert_eq!(done, if round == 0 { MOST } else { 0 });
        }
        assert!(pipes() <= MOST as u64, "{} pipes of refused subscriptions", pipes());
        let kept: Vec<String> = (0..MOST).map(|number| format!("room-0-{number}")).collect();
        assert_ok(&ann.request(json!({"type": "unsubscribe", "pipes": kept})));
        for round in 100..140 {
            let (done, names) = watch(&mut ann, round, MOST);
            assert_eq!(done, MOST);
            assert_ok(&ann.request(json!({"type": "unsubscribe", "pipes": names})));
        }
        // What it remembers without a subscription is bounded by itself.
        assert!(pipes() <= 4 * MOST as u64, "{} pipes of ended subscriptions", pipes());
        // A name that stands twice counts once, and is watched.
        let twice = json!({"type": "subscribe", "pipes": ["a", "a", "b"], "presence": true});
        let reply = ann.request(twice);
        assert!(reply["results"]["b"]["members"].is_array(), "{reply}");
        drop(ann);
        until("nothing is left", || pipes() == 0);
    }
}
