//! Filters: for each subscriber a predicate over event and identity says whether an event is delivered (SR-7, F12).

use serde_json::{Value, json};

use crate::support::{AUDITED, Client, NO_RATES, Request, Server, assert_ok, one_on_each, sign};

fn server(workers: usize, rules: &str) -> Server {
    Server::start(&format!("[edge]\nworkers = {workers}\n{AUDITED}[limits]\n{NO_RATES}{rules}"))
}

fn person(user: &str, further: Value) -> String {
    let mut claims = json!({"sub": user});
    let own = claims.as_object_mut().expect("an object");
    own.extend(further.as_object().expect("claims").clone());
    sign(&claims.to_string())
}

/// The data of all events up to the one that carries `"end"`.
#[track_caller]
fn until_end(client: &mut Client) -> Vec<Value> {
    let mut data = Vec::new();
    loop {
        let heard = client.receive();
        assert_eq!(heard["type"], "event", "{heard}");
        if heard["data"] == "end" {
            return data;
        }
        data.push(heard["data"].clone());
    }
}

const ALERTS: &str = r#"
[pipe."alerts"]
subscribe = true
publish = true
public = true
[pipe."alerts".event.alert]
filter = "event.data.level >= 3 || user.role == 'admin'"
[pipe."alerts".event.letter]
filter = "event.data.to == user.id"
[pipe."alerts".event.strange]
filter = "user.info.watch[event.data.kind] == true"
[pipe."alerts".event.end]
"#;

// SR-7, E7: decided for each subscriber, whoever publishes, on whatever worker; those left out do not count.
#[test]
fn a_filter_decides_for_each_subscriber() {
    for workers in [1, 2, 4] {
        let server = server(workers, ALERTS);
        let mut members = one_on_each(server.address, workers, &person("ann", json!({"role": "member"})));
        let mut admins = one_on_each(server.address, workers, &person("root", json!({"role": "admin"})));
        let mut plain = one_on_each(server.address, workers, &person("ben", json!({})));
        for client in members.iter_mut().chain(&mut admins).chain(&mut plain) {
            assert_ok(&client.subscribe("alerts"));
        }
        let count = |event: &str, data: Value| {
            server.api.delivered("publish", json!({"pipe": "alerts", "event": event, "data": data, "count": true}))
        };
        let each = workers as u64;
        assert_eq!(count("alert", json!({"level": 2})), each);
        assert_eq!(count("alert", json!({"level": 3})), 3 * each);
        assert_eq!(count("letter", json!({"to": "ben"})), each);
        assert_eq!(count("letter", json!({"to": "nobody"})), 0);
        // A client's own is filtered as any other's, for itself as well.
        let alert =
            |level: u64| json!({"type": "publish", "pipe": "alerts", "event": "alert", "data": {"level": level}});
        for level in 1..5 {
            assert_ok(&members[0].request(alert(level)));
        }
        let end = json!({"type": "publish", "pipe": "alerts", "event": "end", "data": "end"});
        assert_ok(&members[0].request(end));
        let levels = |levels: &[u64]| levels.iter().map(|level| json!({"level": level})).collect::<Vec<_>>();
        for client in &mut members {
            assert_eq!(until_end(client), levels(&[3, 3, 4]));
        }
        for client in &mut admins {
            assert_eq!(until_end(client), levels(&[2, 3, 1, 2, 3, 4]));
        }
        for client in &mut plain {
            let mut expected = levels(&[3, 3, 4]);
            expected.insert(1, json!({"to": "ben"}));
            assert_eq!(until_end(client), expected);
        }
    }
}

// F12: a filter that fails delivers nothing to that subscriber and is counted; `||` absorbs as CEL says.
#[test]
fn a_filter_that_fails_does_not_deliver() {
    let server = server(1, ALERTS);
    let mut watcher =
        Client::connect(server.address, &person("ann", json!({"info": {"watch": {"fire": true, "rain": 1}}})));
    let mut other = Client::connect(server.address, &person("ben", json!({"role": "admin"})));
    for client in [&mut watcher, &mut other] {
        assert_ok(&client.subscribe("alerts"));
    }
    let publish =
        |event: &str, data: Value| server.api.done("publish", json!({"pipe": "alerts", "event": event, "data": data}));
    publish("strange", json!({"kind": "fire"}));
    publish("strange", json!({"kind": "rain"}));
    publish("strange", json!({"kind": "snow"}));
    publish("strange", json!({"kind": 7}));
    publish("strange", json!({}));
    publish("strange", json!(null));
    // Without a level the admin sees it all the same, the member does not.
    publish("alert", json!({"text": "no level"}));
    publish("alert", json!({"level": "3"}));
    publish("letter", json!({}));
    publish("end", json!("end"));
    assert_eq!(until_end(&mut watcher), [json!({"kind": "fire"})]);
    assert_eq!(until_end(&mut other), [json!({"text": "no level"}), json!({"level": "3"})]);
    assert!(server.counter("filter_faults") >= 10, "{}", server.counter("filter_faults"));
}

// SR-7, RK-4, C11: a filter narrows what rights and the names that were asked for leave; it never adds.
#[test]
fn a_filter_only_narrows() {
    let server = server(
        2,
        "[pipe.\"room\"]\nsubscribe = true\npublish = true\npublic = true\n\
         [pipe.\"room\".event.log]\nsubscribe = \"user.role == 'admin'\"\nfilter = \"true || user.id == 'x'\"\n\
         [pipe.\"room\".event.news]\nfilter = \"event.data.lang == user.info.lang\"\n[pipe.\"room\".event.end]\n",
    );
    let info = json!({"info": {"lang": "de"}});
    let mut ann = Client::connect(server.address, &person("ann", info.clone()));
    let mut few = Client::connect(server.address, &person("ann", info));
    assert_ok(&ann.subscribe("room"));
    assert_ok(&few.request(json!({"type": "subscribe", "pipe": "room", "events": ["end"]})));
    let publish =
        |event: &str, data: Value| server.api.done("publish", json!({"pipe": "room", "event": event, "data": data}));
    publish("log", json!(1));
    publish("news", json!({"lang": "fr"}));
    publish("news", json!({"lang": "de"}));
    publish("other", json!(2));
    publish("end", json!("end"));
    assert_eq!(until_end(&mut ann), [json!({"lang": "de"}), json!(2)]);
    assert_eq!(until_end(&mut few), [] as [Value; 0]);
}

// SR-10, C26: a filter sees captures and what guards have set; both are those of the last decision.
#[test]
fn a_filter_sees_captures_and_context() {
    let server = server(
        2,
        "[[guard]]\nset = { floor = \"user.info.floor\" }\n[pipe.\"house-{house}\"]\nsubscribe = true\npublic = true\n\
         [pipe.\"house-{house}\".event.noise]\nfilter = \"event.data.floor == ctx.floor && event.data.house == params.house\"\n\
         [pipe.\"house-{house}\".event.end]\n",
    );
    let on = |floor: u64| person("ann", json!({"info": {"floor": floor}}));
    let mut ann = Client::connect(server.address, &on(1));
    assert_ok(&ann.subscribe("house-a"));
    let noise = |floor: u64| {
        for house in ["a", "b"] {
            let data = json!({"floor": floor, "house": house});
            server.api.done("publish", json!({"pipe": "house-a", "event": "noise", "data": data}));
        }
    };
    let end = || server.api.done("publish", json!({"pipe": "house-a", "event": "end", "data": "end"}));
    noise(1);
    noise(2);
    end();
    assert_eq!(until_end(&mut ann), [json!({"floor": 1, "house": "a"})]);
    assert_ok(&ann.request(json!({"type": "refresh", "token": on(2)})));
    noise(1);
    noise(2);
    end();
    assert_eq!(until_end(&mut ann), [json!({"floor": 2, "house": "a"})]);
}

// PROTOCOL §6: `ip` is there as everywhere; one user at two addresses is two viewers.
#[test]
fn a_filter_sees_the_address_of_each_viewer() {
    let config = format!(
        "[edge]\nworkers = 2\ntrusted_proxies = [\"127.0.0.1/32\"]\n{AUDITED}[limits]\n{NO_RATES}\
         [pipe.\"office\"]\nsubscribe = true\npublic = true\n\
         [pipe.\"office\".event.memo]\nfilter = \"ip.startsWith('192.0.2.') && event.data.n > 0\"\n\
         [pipe.\"office\".event.end]\n"
    );
    let server = Server::start(&config);
    let ann = person("ann", json!({}));
    let mut clients = ["192.0.2.7", "203.0.113.9"].map(|from| {
        let request = Request::upgrade().token(&ann).header("X-Forwarded-For", from);
        Client::with(server.address, &request)
    });
    for client in &mut clients {
        assert_ok(&client.subscribe("office"));
    }
    for (event, data) in [("memo", json!({"n": 0})), ("memo", json!({"n": 1})), ("end", json!("end"))] {
        server.api.done("publish", json!({"pipe": "office", "event": event, "data": data}));
    }
    assert_eq!(clients.each_mut().map(until_end), [vec![json!({"n": 1})], vec![]]);
}

// F21, INVARIANTS 26: what is filtered is delivered as it came.
#[test]
fn what_is_filtered_is_delivered_as_it_came() {
    let server = server(
        1,
        "[pipe.\"n\"]\nsubscribe = true\npublish = true\npublic = true\n[pipe.\"n\".event.e]\nfilter = \"event.data.n > 0\"\n",
    );
    let mut ann = Client::connect(server.address, &person("ann", json!({})));
    assert_ok(&ann.subscribe("n"));
    for data in [r#"{ "n":12345678901234567890123, "é":1.10 }"#, r#"{"n": 1e400}"#] {
        // A name that stands there twice could be read differently by whoever gets it: it has no value.
        ann.send_text(r#"{"type":"publish","pipe":"n","event":"e","data":{"n":1,"n":2}}"#);
        ann.send_text(format!(r#"{{"type":"publish","pipe":"n","event":"e","data":{data}}}"#));
        let frame = ann.frame().expect("a frame");
        let text = String::from_utf8(frame.payload).expect("UTF-8");
        assert!(text.contains(&format!(r#""data":{data}"#)), "{text}");
    }
}
