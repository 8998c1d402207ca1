//! Actions: nothing reaches the application before every check is passed, in the stated order; then exactly one reply.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Application, Client, Heard, Launch, MOMENT, NO_RATES, Reply, Request, Server, assert_code,
    assert_forbidden, assert_ok, records, rights, sign, token, until,
};

const SIGNED_WITH: &str = "secret-of-the-calls-of-the-tests";

/// `URL` in the rules stands for the application.
fn server(application: &Application, rules: &str) -> Server {
    let rules = rules.replace("URL", application.url("").trim_end_matches('/'));
    Launch::new(&format!("[edge]\nworkers = 2\n{AUDITED}[limits]\n{NO_RATES}action = {{ per_s = 0 }}\n{rules}")).start()
}

fn connect(server: &Server, user: &str, role: &str) -> Client {
    Client::connect(server.address, &sign(&json!({"sub": user, "role": role}).to_string()))
}

fn call(client: &mut Client, name: &str, args: Value) -> Value {
    client.request(json!({"type": "action", "name": name, "args": args}))
}

const SEND: &str = "[action.send]\nallow = \"user.role == 'member'\"\nurl = \"URL/send\"\nmax_bytes = 100\n\
                    rate = { per_s = 0.01, burst = 2 }\n\
                    schema = { type = \"object\", required = [\"text\"], properties = { text = { type = \"string\" } } }\n";

// RK-2, SR-4, SR-5, F13, A5, B21: identity → rule → rate → schema, and the application hears of none that is refused.
#[test]
fn the_checks_come_in_their_order() {
    let application = Application::start(|_| Reply::json(json!("done")));
    let server = server(&application, &format!("[auth]\nanonymous = true\n{SEND}"));
    let (good, bad) = (json!({"text": "hi"}), json!({"text": 5}));
    // Identity before anything, whether the action exists or not.
    let mut nobody = Client::with(server.address, &Request::upgrade());
    for name in ["send", "nosuch"] {
        assert_code(&call(&mut nobody, name, good.clone()), "UNAUTHENTICATED");
    }
    // The rule before rate and schema; who is refused uses nothing up.
    let mut guest = connect(&server, "guest", "guest");
    for _ in 0..10 {
        assert_forbidden(&call(&mut guest, "send", good.clone()));
        assert_forbidden(&call(&mut guest, "send", bad.clone()));
    }
    // The rate before the schema; what fails the schema uses it up.
    let mut ann = connect(&server, "ann", "member");
    let mut beside = connect(&server, "ann", "member");
    let wrong = call(&mut ann, "send", bad.clone());
    assert_code(&wrong, "INVALID");
    assert!(wrong["error"].as_str().is_some_and(|error| error.contains("/text")), "the place is named: {wrong}");
    assert_code(&call(&mut ann, "send", json!({})), "INVALID");
    for args in [&good, &bad] {
        let limited = call(&mut ann, "send", args.clone());
        assert_code(&limited, "RATE_LIMITED");
        assert!(limited["retry_after_ms"].as_u64().is_some_and(|ms| ms > 1_000), "{limited}");
    }
    // It refuses at once and slows nobody down.
    assert_eq!(ann.settle(), [] as [Value; 0]);
    for name in ["nosuch", "Send", "send "] {
        let reply = call(&mut ann, name, good.clone());
        assert!(["UNKNOWN_ACTION", "INVALID"].contains(&reply["code"].as_str().unwrap_or_default()), "{reply}");
    }
    assert!(application.heard().is_empty(), "{:?}", application.heard());
    // Per connection.
    assert_code(&call(&mut beside, "send", json!({"text": "x".repeat(100)})), "PAYLOAD_TOO_LARGE");
    let done = call(&mut beside, "send", good.clone());
    assert_eq!((&done["ok"], &done["result"]), (&json!(true), &json!("done")), "{done}");
    assert_eq!(application.heard().len(), 1);
}

// RK-5, RK-6, GD-10: no rule, a rule that fails, a literal false: refused, and not called.
#[test]
fn without_a_rule_that_allows_it_nothing_is_called() {
    let application = Application::start(|_| Reply::json(json!(1)));
    let server = server(
        &application,
        "[action.none]\nurl = \"URL/\"\n[action.never]\nurl = \"URL/\"\nallow = false\n[action.fails]\nurl = \"URL/\"\n\
         allow = \"user.team == 'red'\"\n[action.odd]\nurl = \"URL/\"\nallow = \"args.open\"\n\
         [action.own]\nurl = \"URL/\"\nallow = \"owner('user')\"\n",
    );
    let mut ann = connect(&server, "ann", "admin");
    for name in ["none", "never", "fails"] {
        assert_forbidden(&call(&mut ann, name, json!({"open": true})));
    }
    for args in [json!({}), json!({"open": "true"}), json!({"open": 1}), json!(null), json!([true])] {
        assert_forbidden(&call(&mut ann, "odd", args));
    }
    // F4, SR-13: an id in the arguments is believed only where it is the own one.
    for args in [json!({"user": "ben"}), json!({"user": ["ann"]}), json!({})] {
        assert_forbidden(&call(&mut ann, "own", args));
    }
    assert!(application.heard().is_empty(), "{:?}", application.heard());
    assert_ok(&call(&mut ann, "odd", json!({"open": true})));
    assert_ok(&call(&mut ann, "own", json!({"user": "ann"})));
    assert_eq!(application.heard().len(), 2);
}

// §5, A12, INVARIANTS 26, 31, SR-2: what the application is told, and under which secret.
#[test]
fn the_call_says_who_asks_and_is_signed() {
    let application = Application::start(|heard| match &*heard.path {
        "/guard" => Reply::json(json!({"allow": true, "context": {"plan": "pro", "seats": 3}})),
        "/buy" => Reply::Status(200, r#"{"n":  12345678901234567890123, "m":1e400}"#.to_owned()),
        _ => Reply::json(json!(1)),
    });
    let server = server(
        &application,
        &format!(
            "[auth.webhook]\nurl = \"URL/authorize\"\nsecret = \"{SIGNED_WITH}\"\n\
             [[guard]]\nset = {{ first = \"user.id\" }}\n[module.shop]\nguard = [{{ url = \"URL/guard\" }}]\n\
             [action.buy]\nmodule = \"shop\"\nallow = \"ctx.plan == 'pro'\"\nurl = \"URL/buy\"\n\
             guard = [{{ set = {{ many = \"ctx.seats + 1\" }} }}]\n\
             [action.own]\nallow = true\npublic = true\nurl = \"URL/own\"\nsecret = \"another-secret-of-this-action\"\n"
        ),
    );
    let claims = json!({"sub": "ann", "name": "Ann", "role": "member", "tenant": "acme", "info": {"a": [1]}});
    let mut ann = Client::connect(server.address, &sign(&claims.to_string()));
    ann.send_text(r#"{"type":"action","id":7,"name":"buy","args":{"n":12345678901234567890123, "e":1e400}}"#);
    let reply = String::from_utf8(ann.frame().expect("a frame").payload).expect("UTF-8");
    assert!(reply.contains(r#""result":{"n":  12345678901234567890123, "m":1e400}"#), "as it came: {reply}");
    let calls = application.heard();
    assert_eq!(calls.iter().map(|heard| &*heard.path).collect::<Vec<_>>(), ["/guard", "/buy"]);
    calls.iter().for_each(|heard| heard.assert_signed(SIGNED_WITH));
    assert!(calls[1].body.contains(r#""args":{"n":12345678901234567890123, "e":1e400}"#), "{}", calls[1].body);
    let read = |heard: &Heard| serde_json::from_str::<Value>(&heard.body.replace("1e400", "1")).expect("JSON");
    let (guard, mut body) = (read(&calls[0]), read(&calls[1]));
    assert_ne!(body["delivery"], guard["delivery"], "INVARIANTS 31");
    assert_eq!((&guard["kind"], &guard["context"]), (&json!("action"), &json!({"first": "ann"})));
    assert!(body["delivery"].take().as_str().is_some_and(|delivery| !delivery.is_empty()));
    body["args"] = Value::Null;
    let expected = json!({
        "kind": "action", "delivery": null, "action": "buy", "args": null, "connection": ann.name(), "ip": "127.0.0.1",
        "user": {
            "id": "ann", "name": "Ann", "role": "member", "roles": ["member"], "tenant": "acme",
            "info": {"a": [1]}
        },
        "context": {"first": "ann", "plan": "pro", "seats": 3, "many": 4}
    });
    assert_eq!(body, expected);
    assert_ok(&call(&mut ann, "own", json!(null)));
    application.call(2).assert_signed("another-secret-of-this-action");
}

// SR-3, RK-6, A11: a guard or a rule of the application that does not say yes: the action is not called.
#[test]
fn what_the_application_must_allow_is_not_called_without_it() {
    let application = Application::start(|_| Reply::json(json!(1)));
    let server = server(
        &application,
        "[action.asked]\nallow = { url = \"URL/rule\", timeout_ms = 300 }\nurl = \"URL/act\"\n\
         [action.guarded]\nallow = \"has(user.id)\"\nurl = \"URL/act\"\nrate = { per_s = 0.01, burst = 1 }\n\
         guard = [{ url = \"URL/rule\", timeout_ms = 300, code = \"NOT_YET\", message = \"Pay first\" }]\n",
    );
    let mut ann = connect(&server, "ann", "member");
    let acts = |application: &Application| application.heard().iter().filter(|heard| heard.path == "/act").count();
    for reply in [
        Reply::allow(false),
        Reply::Status(200, "{}".to_owned()),
        Reply::Status(200, r#"{"allow":"true"}"#.to_owned()),
        Reply::Status(200, r#"{"allow":true,"context":5}"#.to_owned()),
        Reply::Status(201, r#"{"allow":true}"#.to_owned()),
        Reply::Status(403, r#"{"allow":true}"#.to_owned()),
        Reply::Status(500, r#"{"allow":true}"#.to_owned()),
        Reply::HangUp,
        Reply::Held,
    ] {
        let refuses = reply.clone();
        application.script(move |heard| if heard.path == "/rule" { refuses.clone() } else { Reply::json(json!(1)) });
        assert_forbidden(&call(&mut ann, "asked", json!({"a": 1})));
        let guarded = call(&mut ann, "guarded", json!({}));
        assert_eq!(guarded["ok"], false, "{reply:?}: {guarded}");
        // What the guard says is for a plain no; a failure is no answer of it (F6).
        let said = if matches!(&reply, Reply::Status(200, body) if body == r#"{"allow":false}"#) {
            "NOT_YET"
        } else {
            "FORBIDDEN"
        };
        assert_eq!(guarded["code"], said, "{reply:?}: {guarded}");
    }
    assert_eq!(acts(&application), 0);
    application.script(|_| Reply::Status(200, r#"{"allow":true,"context":{"seen":1}}"#.to_owned()));
    assert_ok(&call(&mut ann, "asked", json!({"a": 1})));
    // F13: none of the refused ones has used the rate up.
    assert_ok(&call(&mut ann, "guarded", json!({})));
    assert_code(&call(&mut ann, "guarded", json!({})), "RATE_LIMITED");
    assert_eq!(acts(&application), 2);
    let rule = application.heard().into_iter().find(|heard| heard.path == "/rule").expect("it was asked").json();
    assert_eq!((&rule["kind"], &rule["action"], &rule["args"]), (&json!("action"), &json!("asked"), &json!({"a": 1})));
}

/// What the client put into `args.case`.
fn case(heard: &Heard) -> usize {
    heard.json()["args"]["case"].as_u64().and_then(|case| usize::try_from(case).ok()).expect("a case")
}

/// The result, or the code and the sentence, where that is the application's.
type Expected = Result<Value, (&'static str, Option<&'static str>)>;

// F14, §5: what the application answers is what the client hears; what it does wrong is the operator's.
#[test]
fn answers_pass_and_faults_do_not() {
    let status = |status: u16, body: &str| Reply::Status(status, body.to_owned());
    let own = r#"{"error":{"code":"OUT_OF_STOCK","message":"Nothing left"}}"#;
    let long = format!(r#""{}""#, "x".repeat(1 << 20));
    let cases: Vec<(Reply, Expected)> = vec![
        (status(200, r#"{"a":[1,null]}"#), Ok(json!({"a": [1, null]}))),
        (status(200, "null"), Ok(Value::Null)),
        (status(200, "false"), Ok(json!(false))),
        (status(200, ""), Ok(Value::Null)),
        (status(204, ""), Ok(Value::Null)),
        (status(201, "5"), Ok(json!(5))),
        (status(200, r#"{"error":null}"#), Ok(json!({"error": null}))),
        (status(200, own), Err(("OUT_OF_STOCK", Some("Nothing left")))),
        (status(409, own), Err(("OUT_OF_STOCK", Some("Nothing left")))),
        (status(400, own), Err(("OUT_OF_STOCK", Some("Nothing left")))),
        (status(400, "SPOILED"), Err(("INVALID", None))),
        (status(401, ""), Err(("UNAUTHENTICATED", None))),
        (status(403, "{}"), Err(("FORBIDDEN", None))),
        (status(404, "[]"), Err(("NOT_FOUND", None))),
        (status(409, r#"{"error":"SPOILED"}"#), Err(("INVALID", None))),
        (status(422, r#"{"error":{"code":"lower","message":"Not so"}}"#), Err(("INVALID", None))),
        (status(429, ""), Err(("RATE_LIMITED", None))),
        (status(500, own), Err(("UNAVAILABLE", None))),
        (status(500, "SPOILED stack trace"), Err(("UNAVAILABLE", None))),
        (status(503, ""), Err(("UNAVAILABLE", None))),
        (status(302, "SPOILED"), Err(("UNAVAILABLE", None))),
        (status(200, "SPOILED"), Err(("INTERNAL", None))),
        (status(200, r#"{"a":1} SPOILED"#), Err(("INTERNAL", None))),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\"\xff\"".to_vec()), Err(("INTERNAL", None))),
        (status(200, &long), Err(("INTERNAL", None))),
        (Reply::HangUp, Err(("UNAVAILABLE", None))),
        (Reply::Bytes(b"SPOILED\r\n\r\n".to_vec()), Err(("UNAVAILABLE", None))),
        (Reply::Held, Err(("TIMEOUT", None))),
    ];
    let script: Vec<Reply> = cases.iter().map(|(reply, _)| reply.clone()).collect();
    let application = Application::start(move |heard| script[case(heard)].clone());
    let act = "[action.act]\nallow = \"has(user.id)\"\nurl = \"URL/act\"\ntimeout_ms = 1000\n";
    let server = server(&application, act);
    let mut ann = connect(&server, "ann", "member");
    for (number, (reply, expected)) in cases.iter().enumerate() {
        let shown: String = format!("{reply:?}").chars().take(200).collect();
        let heard = call(&mut ann, "act", json!({"case": number}));
        match expected {
            Ok(result) => {
                assert_eq!((&heard["ok"], &heard["result"]), (&json!(true), result), "{shown}: {heard}");
                assert!(heard.as_object().is_some_and(|reply| reply.contains_key("result")), "{heard}");
            }
            Err((code, message)) => {
                assert_code(&heard, code);
                assert!(message.is_none_or(|message| heard["error"] == message), "{shown}: {heard}");
                assert!(!heard.to_string().contains("SPOILED"), "{shown}: {heard}");
            }
        }
    }
    assert_eq!(application.heard().len(), cases.len(), "each once: none is tried again, no redirect is followed");
    drop(application);
    assert_code(&call(&mut ann, "act", json!({"case": 0})), "UNAVAILABLE");
    until("faults are on record", || records(&server, "internal_error").len() > 1);
    let text = std::fs::read_to_string(server.path("audit.log")).expect("a file") + &server.log().join("\n");
    assert!(!text.contains("SPOILED"), "{text}");
    // Exactly one reply to each.
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// Exactly one reply: after TIMEOUT the answer that still comes is nobody's.
#[test]
fn a_late_answer_is_not_a_second_reply() {
    let application = Application::holding();
    let server = server(&application, "[action.act]\nallow = \"has(user.id)\"\nurl = \"URL/act\"\ntimeout_ms = 300\n");
    let mut ann = connect(&server, "ann", "member");
    assert_code(&call(&mut ann, "act", json!(1)), "TIMEOUT");
    application.answer(0, Reply::json(json!("late")));
    ann.expect_nothing();
    application.script(|_| Reply::json(json!("next")));
    assert_eq!(call(&mut ann, "act", json!(2))["result"], "next");
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// §2: without an `id` it is done and nobody is told, whatever comes of it.
#[test]
fn without_an_id_there_is_no_reply() {
    let application = Application::start(|_| Reply::Status(500, String::new()));
    let server = server(&application, SEND);
    let mut ann = connect(&server, "ann", "member");
    let mut guest = connect(&server, "guest", "guest");
    for client in [&mut guest, &mut ann] {
        client.send(json!({"type": "action", "name": "send", "args": {"text": "hi"}}));
    }
    assert_eq!(application.call(0).json()["user"]["id"], "ann");
    ann.send(json!({"type": "action", "name": "send", "args": 5}));
    ann.send(json!({"type": "action", "name": "nosuch", "args": 5}));
    std::thread::sleep(MOMENT);
    assert_eq!((ann.settle(), guest.settle()), (vec![], vec![]));
    assert_eq!(application.heard().len(), 1);
}

// §2: args that are not there are null; what is no action at all is malformed.
#[test]
fn what_is_no_action_is_invalid() {
    let application = Application::start(|_| Reply::json(json!(1)));
    let server = server(&application, "[action.act]\nallow = \"has(user.id)\"\nurl = \"URL/act\"\n");
    let mut ann = connect(&server, "ann", "member");
    for wrong in [json!({}), json!({"name": 5}), json!({"name": ""}), json!({"name": null, "args": 1})] {
        let mut message = wrong.clone();
        message["type"] = json!("action");
        let reply = ann.request(message);
        assert!(
            ["INVALID", "UNKNOWN_ACTION"].contains(&reply["code"].as_str().unwrap_or_default()),
            "{wrong}: {reply}"
        );
    }
    assert!(application.heard().is_empty());
    assert_ok(&ann.request(json!({"type": "action", "name": "act"})));
    assert_eq!(application.call(0).json()["args"], Value::Null);
}

// C37, item 7: 64 at a time for one connection, each with its own reply in whatever order; nothing else waits for them.
#[test]
fn so_many_are_under_way_and_no_more() {
    const MOST: usize = 64;
    let application = Application::holding();
    let server =
        server(&application, "[action.act]\nallow = \"has(user.id)\"\nurl = \"URL/act\"\ntimeout_ms = 30000\n");
    let claims = json!({"sub": "ann", "pipes": {"room": rights("sub,pub")}});
    let mut ann = Client::connect(server.address, &sign(&claims.to_string()));
    assert_ok(&ann.subscribe("room"));
    for number in 0..MOST {
        ann.send(json!({"type": "action", "id": format!("n{number}"), "name": "act", "args": number}));
    }
    let calls = application.await_calls(MOST);
    for _ in 0..3 {
        assert_code(&call(&mut ann, "act", json!("one more")), "TOO_MANY");
    }
    assert_ok(&ann.publish("room", 1));
    ann.expect_event("room", 1);
    // Another connection has its own.
    let mut beside = connect(&server, "ann", "member");
    beside.send(json!({"type": "action", "id": "beside", "name": "act", "args": "beside"}));
    application.await_calls(MOST + 1);
    for (place, heard) in calls.iter().enumerate().rev() {
        let args = heard.json()["args"].clone();
        application.answer(place, Reply::json(args.clone()));
        let reply = ann.reply(&json!(format!("n{args}")));
        assert_eq!((&reply["ok"], &reply["result"]), (&json!(true), &args), "{reply}");
    }
    application.answer(MOST, Reply::json(json!("beside")));
    assert_eq!(beside.reply(&json!("beside"))["result"], "beside");
    application.script(|_| Reply::json(json!("free")));
    assert_eq!(call(&mut ann, "act", json!(1))["result"], "free");
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// Item 7: an action that is slow keeps no other one waiting.
#[test]
fn a_slow_action_does_not_starve_another() {
    let (slow, quick) = (Application::holding(), Application::start(|_| Reply::json(json!("quick"))));
    let rules = format!(
        "[action.slow]\nallow = \"has(user.id)\"\nurl = \"{}\"\ntimeout_ms = 20000\n\
         [action.quick]\nallow = \"has(user.id)\"\nurl = \"{}\"\ntimeout_ms = 5000\n",
        slow.url("/"),
        quick.url("/")
    );
    let server = server(&slow, &rules);
    let mut crowd: Vec<Client> = (0..6).map(|user| connect(&server, &format!("u{user}"), "member")).collect();
    for client in &mut crowd {
        for number in 0..64 {
            client.send(json!({"type": "action", "name": "slow", "args": number}));
        }
    }
    slow.await_calls(100);
    let mut ann = connect(&server, "ann", "member");
    for _ in 0..20 {
        assert_eq!(call(&mut ann, "quick", json!(1))["result"], "quick");
    }
}

// Item 7: however many are under way, in line and beyond, each has exactly one reply, and then all is as before.
#[test]
fn a_flood_has_its_replies_one_by_one() {
    const CROWD: usize = 8;
    const EACH: usize = 64;
    let application = Application::holding();
    let server = server(&application, "[action.act]\nallow = \"has(user.id)\"\nurl = \"URL/act\"\ntimeout_ms = 1500\n");
    let mut crowd: Vec<Client> = (0..CROWD).map(|user| connect(&server, &format!("u{user}"), "member")).collect();
    for client in &mut crowd {
        for number in 0..EACH {
            client.send(json!({"type": "action", "id": format!("n{number}"), "name": "act", "args": number}));
        }
    }
    for client in &mut crowd {
        let replies: Vec<Value> = (0..EACH).map(|_| client.receive()).collect();
        replies.iter().for_each(|reply| assert_code(reply, "TIMEOUT"));
        let ids: BTreeSet<String> = replies.iter().map(|reply| reply["id"].to_string()).collect();
        assert_eq!(ids.len(), EACH, "one to each");
        assert_eq!(client.settle(), [] as [Value; 0]);
    }
    application.script(|_| Reply::json(json!("again")));
    for client in &mut crowd {
        assert_eq!(call(client, "act", json!(1))["result"], "again");
    }
}

// B27: the address is the client's, not the proxy's.
#[test]
fn the_address_behind_a_trusted_proxy_is_told() {
    let application = Application::start(|heard| match heard.json()["kind"].as_str() {
        Some("connect") => Reply::json(json!({"user": {"id": "ann"}})),
        _ => Reply::json(json!(1)),
    });
    let server = Launch::new(&format!(
        "[edge]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[auth.webhook]\nurl = \"{}\"\nsecret_file = \"calls.secret\"\n\
         [action.act]\nallow = \"ip == '203.0.113.7'\"\nurl = \"{}\"\n",
        application.url("/authorize"),
        application.url("/act")
    ))
    .file("calls.secret", format!("{SIGNED_WITH}\n").as_bytes())
    .without_token_key()
    .start();
    let request = Request::upgrade().header("X-Forwarded-For", "198.51.100.1, 203.0.113.7");
    assert_ok(&call(&mut Client::with(server.address, &request), "act", json!(null)));
    for heard in application.heard() {
        assert_eq!(heard.json()["ip"], "203.0.113.7");
        // D13: the file lies beside the configuration.
        heard.assert_signed(SIGNED_WITH);
    }
    assert_forbidden(&call(&mut Client::with(server.address, &Request::upgrade()), "act", json!(null)));
}

// Who goes before the answer has nobody told, and the next one in that place least of all.
#[test]
fn an_answer_for_who_has_gone_is_dropped() {
    let application = Application::holding();
    let server =
        server(&application, "[action.act]\nallow = \"has(user.id)\"\nurl = \"URL/act\"\ntimeout_ms = 20000\n");
    let mut ann = connect(&server, "ann", "member");
    ann.send(json!({"type": "action", "id": 1, "name": "act", "args": 1}));
    application.await_calls(1);
    ann.raw.reset();
    until("it is gone", || server.api.list("/v1/connections")["connections"] == json!([]));
    let mut next: Vec<Client> = (0..8).map(|_| Client::connect(server.address, &token("ben", &[]))).collect();
    application.answer(0, Reply::json(json!("hers")));
    std::thread::sleep(Duration::from_millis(50));
    for client in &mut next {
        client.expect_nothing();
    }
}

// D7: what is revoked about pipes is about pipes; whose token is revoked calls nothing any more.
#[test]
fn revoking_pipes_leaves_actions() {
    let application = Application::start(|_| Reply::json(json!(1)));
    let server = server(&application, "[action.act]\nallow = \"has(user.id)\"\nurl = \"URL/act\"\n");
    let mut ann = connect(&server, "ann", "member");
    server.api.done("revoke_all", json!({"user": "ann"}));
    assert_ok(&call(&mut ann, "act", json!(1)));
    server.api.done("revoke_tokens", json!({"user": "ann"}));
    ann.expect_close(4402);
    assert_eq!(application.heard().len(), 1);
}

// Item 10, GD-8: what all connections of a user may do together holds for actions too.
#[test]
fn the_rate_of_a_user_is_summed() {
    let application = Application::start(|_| Reply::json(json!(1)));
    let url = application.url("/act");
    let server = Server::start(&format!(
        "[limits]\nthrottle_s = 3600\n[limits.per_user]\naction = {{ per_s = 0.01, burst = 3 }}\n\
         [action.act]\nallow = \"has(user.id)\"\nurl = \"{url}\"\n"
    ));
    let mut two = [(); 2].map(|()| connect(&server, "ann", "member"));
    let mut done = 0;
    for client in &mut two {
        for _ in 0..2 {
            done += u32::from(call(client, "act", json!(1))["ok"] == true);
        }
    }
    assert_eq!((done, application.heard().len()), (3, 3));
}
