//! The authorize webhook on connect: what it is asked, what its answers mean, and who is let in meanwhile: nobody.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Application, Client, Heard, Launch, MOMENT, Raw, Reply, Request, Server, assert_code, assert_forbidden,
    assert_ok, opcode, records, rights, token, unix_ms, until,
};

const SIGNED_WITH: &str = "secret-of-the-calls-of-the-tests";

fn configured(application: &Application, webhook: &str, rest: &str) -> Launch {
    let url = application.url("/authorize?site=1");
    let webhook = format!("[auth.webhook]\nurl = \"{url}\"\nsecret = \"{SIGNED_WITH}\"\n{webhook}\n");
    Launch::new(&format!("[edge]\nworkers = 2\ndrain_s = 0\n{webhook}{AUDITED}{rest}"))
}

/// Without tokens of our own: the webhook alone says who is who.
fn server(application: &Application, webhook: &str, rest: &str) -> Server {
    configured(application, webhook, rest).without_token_key().start()
}

/// `ann`, who may subscribe and publish on `room`.
fn ann() -> Value {
    json!({"user": {"id": "ann"}, "pipes": {"room": rights("sub,pub")}})
}

fn welcomes_ann() -> Application {
    Application::start(|_| Reply::json(ann()))
}

/// What the client put into `?case=`.
fn case(heard: &Heard) -> usize {
    heard.json()["query"]["case"].as_str().and_then(|case| case.parse().ok()).expect("a case")
}

fn upgrade_case(case: usize) -> Request {
    Request::upgrade().target(&format!("/v1/connect?case={case}"))
}

#[track_caller]
fn assert_unavailable(server: &Server, request: &Request) -> u64 {
    let response = request.assert_refused(server.address, 503, "OVERLOADED");
    // G13
    let wait_s: u64 = response.header("retry-after").expect("when to come back").parse().expect("whole seconds");
    assert!(wait_s >= 1, "{response:?}");
    wait_s
}

// HP-1, GD-1, RK-9, B17, INVARIANTS 31, A12: asked once, signed, with what it is configured to get and no more.
#[test]
fn it_is_asked_once_and_its_answer_is_who_they_are() {
    let expires_at = unix_ms() + 3_600_000;
    let answer = json!({
        "user": {
            "id": "ann", "name": "Ann", "role": "admin", "roles": ["member"], "team": "red", "tenant": "acme",
            "org": "left", "features": ["chat"], "info": {"plan": "pro"}
        },
        "pipes": {"room": {"subscribe": true}, "hall-*": {"publish": true, "presence": true}},
        "expires_at": expires_at, "further": [1]
    });
    let application = Application::start(move |_| Reply::json(answer.clone()));
    let rule = "user.role == 'admin' && user.roles == ['admin', 'member'] && user.team == params.team && \
                user.tenant == 'acme' && user.org == 'left' && 'chat' in user.features && user.info.plan == 'pro' && \
                user.name == 'Ann'";
    let forwards = "forward_headers = [\"cookie\", \"X-Site\", \"authorization\"]";
    let server = server(&application, forwards, &format!("[pipe.\"team-{{team}}\"]\nsubscribe = \"{rule}\"\n"));
    let request = Request::upgrade()
        .target("/v1/connect?room=a%20b&room=second&token=t.o.k&empty=")
        .header("Cookie", "a=1")
        .header("cookie", "b=\"2\"")
        .header("X-Site", "one")
        .header("x-site", "two")
        .header("X-Private", "not for them")
        .header("Authorization", "Basic dXNlcg==");
    let mut client = Client::with(server.address, &request);
    let welcome = client.welcome.clone();
    assert_eq!((&welcome["user"]["id"], &welcome["user"]["name"]), (&json!("ann"), &json!("Ann")), "{welcome}");
    assert_eq!(welcome["pipes"], json!({"room": rights("sub"), "hall-*": rights("pub,presence")}), "{welcome}");
    assert_eq!(welcome["expires_at"], expires_at, "{welcome}");
    assert_ok(&client.subscribe("room"));
    assert_forbidden(&client.publish("room", 1));
    assert_ok(&client.publish("hall-1", 1));
    assert_ok(&client.subscribe("team-red"));
    assert_forbidden(&client.subscribe("team-blue"));
    let heard = application.heard();
    assert_eq!(heard.len(), 1, "asked once, whatever was sent since: {heard:?}");
    assert_eq!((&*heard[0].method, &*heard[0].path), ("POST", "/authorize?site=1"));
    assert_eq!(heard[0].header("content-type"), Some("application/json"));
    heard[0].assert_signed(SIGNED_WITH);
    let mut body = heard[0].json();
    let delivery = body["delivery"].take();
    assert!(delivery.as_str().is_some_and(|delivery| !delivery.is_empty()), "{delivery}");
    let expected = json!({
        "kind": "connect", "delivery": null, "connection": client.name(), "ip": "127.0.0.1", "user": null,
        "headers": {"cookie": "a=1; b=\"2\"", "x-site": "one, two", "authorization": "Basic dXNlcg=="},
        "query": {"room": "a b", "token": "t.o.k", "empty": ""}
    });
    assert_eq!(body, expected);
}

// RK-9, A12: cookie and authorization where nothing is said; no secret, no signature.
#[test]
fn by_default_it_gets_cookies_and_authorization() {
    let application = welcomes_ann();
    let url = application.url("/authorize");
    let server = Launch::new(&format!("[auth.webhook]\nurl = \"{url}\"\n")).without_token_key().start();
    let request = Request::upgrade().header("Cookie", "a=1").header("X-Site", "1").header("Accept-Language", "en");
    Client::with(server.address, &request.token("theirs"));
    let heard = application.call(0);
    assert_eq!(heard.json()["headers"], json!({"cookie": "a=1", "authorization": "Bearer theirs"}));
    assert_eq!((heard.json()["query"].clone(), heard.header("x-pipeward-signature")), (json!({}), None));
    Client::with(server.address, &Request::upgrade());
    assert_eq!(application.call(1).json()["headers"], json!({}));
    server.log_line("secret");
}

// HP-1, GD-1, A1, B9, B13, B14, B15, B18: everything but a whole answer refuses, and the status says who is to blame.
#[test]
fn an_answer_that_is_not_one_lets_nobody_in() {
    let json = |text: &str| (Reply::Status(200, text.to_owned()), 503);
    let mut cases: Vec<(Reply, u16)> = vec![
        (Reply::Status(200, "null".to_owned()), 401),
        (Reply::Status(200, " null\n".to_owned()), 401),
        (Reply::Status(401, ann().to_string()), 401),
        (Reply::Status(403, ann().to_string()), 403),
        (Reply::Status(204, String::new()), 503),
        (Reply::HangUp, 503),
        (Reply::Bytes(b"SSH-2.0-nothing\r\n\r\n".to_vec()), 503),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"user\":{\"id\":\"ann\"}}".to_vec()), 503),
        (
            Reply::Bytes(
                b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{\"user\":{\"id\":\"ann\xff\xff\xff\"}}".to_vec(),
            ),
            503,
        ),
        json(r#"{"user":{"id":"ann"},"expires_at":1000}"#),
        json(r#"{"user":{"id":"ann"},"expires_at":-1}"#),
    ];
    // B18
    let (past, negative) = (cases.len() - 2, cases.len() - 1);
    (cases[past].1, cases[negative].1) = (401, 401);
    for status in [201, 202, 206, 301, 302, 307, 400, 404, 405, 429, 500, 502, 503] {
        cases.push((Reply::Status(status, ann().to_string()), 503));
    }
    for text in [
        "",
        " ",
        "{}",
        "[]",
        "true",
        "5",
        r#""ann""#,
        "nul",
        "null null",
        r#"{"user":null}"#,
        r#"{"user":{}}"#,
        r#"{"user":"ann"}"#,
        r#"{"user":[]}"#,
        r#"{"user":true}"#,
        r#"{"user":{"id":null}}"#,
        r#"{"user":{"id":5}}"#,
        r#"{"user":{"id":""}}"#,
        r#"{"user":{"id":"a b"}}"#,
        r#"{"user":{"id":"**"}}"#,
        r#"{"user":{"id":"a*"}}"#,
        r#"{"user":{"id":"{a}"}}"#,
        r#"{"user":{"id":"a\u0000"}}"#,
        r#"{"user":{"id":"a\n"}}"#,
        r#"{"userId":5}"#,
        r#"{"userId":""}"#,
        r#"{"userId":null}"#,
        r#"{"userId":"ann","user":{"id":"ann"}}"#,
        r#"{"id":"ann"}"#,
        r#"{"user":{"id":"ann"}"#,
        r#"{"user":{"id":"ann"}}}"#,
        r#"{"user":{"id":"ann","id":"root"}}"#,
        r#"{"user":{"id":"ann"},"user":{"id":"root"}}"#,
        r#"{"user":{"id":"ann"},"pipes":[]}"#,
        r#"{"user":{"id":"ann"},"pipes":true}"#,
        r#"{"user":{"id":"ann"},"pipes":"room"}"#,
        r#"{"user":{"id":"ann"},"pipes":{"room":true}}"#,
        r#"{"user":{"id":"ann"},"pipes":{"room":["subscribe"]}}"#,
        r#"{"user":{"id":"ann"},"pipes":{"room":null}}"#,
        r#"{"user":{"id":"ann"},"pipes":{"":{}}}"#,
        r#"{"user":{"id":"ann"},"pipes":{"a b":{"subscribe":true}}}"#,
        r#"{"user":{"id":"ann"},"pipes":{"{x}":{"subscribe":true}}}"#,
        r#"{"user":{"id":"ann"},"pipes":{"ä":{"subscribe":true}}}"#,
        r#"{"user":{"id":"ann"},"expires_at":"soon"}"#,
        r#"{"user":{"id":"ann"},"expires_at":1.5}"#,
        r#"{"user":{"id":"ann"},"expires_at":true}"#,
        r#"{"user":{"id":"ann"},"expires_at":[]}"#,
        r#"{"user":{"id":"ann","features":"chat"}}"#,
        r#"{"user":{"id":"ann","features":{}}}"#,
        r#"{"user":{"id":"ann","features":[1]}}"#,
        r#"{"user":{"id":"ann","features":["chat",null]}}"#,
        r#"{"user":{"id":"ann","role":5}}"#,
        r#"{"user":{"id":"ann","role":["admin"]}}"#,
        r#"{"user":{"id":"ann","roles":"admin"}}"#,
        r#"{"user":{"id":"ann","roles":[true]}}"#,
        r#"{"user":{"id":"ann","roles":["a b"]}}"#,
        r#"{"user":{"id":"ann","team":5}}"#,
        r#"{"user":{"id":"ann","tenant":5}}"#,
        r#"{"user":{"id":"ann","tenant":""}}"#,
        r#"{"user":{"id":"ann","tenant":"a*"}}"#,
        r#"{"user":{"id":"ann","org":{}}}"#,
        r#"{"user":{"id":"ann","name":5}}"#,
        r#"{"user":{"id":"ann"},"session":5}"#,
        r#"{"user":{"id":"ann"},"session":"a b"}"#,
        r#"{"user":{"id":"ann"},"token_id":true}"#,
        r#"{"user":{"id":"ann"},"limits":5}"#,
        r#"{"user":{"id":"ann"},"limits":{"publish":5}}"#,
    ] {
        cases.push(json(text));
    }
    let long = "i".repeat(257);
    cases.push(json(&json!({"user": {"id": long}}).to_string()));
    cases.push(json(&json!({"user": {"id": "ann", "tenant": long}}).to_string()));
    cases.push(json(&json!({"user": {"id": "ann"}, "pipes": {"p".repeat(201): {}}}).to_string()));
    cases.push(json(&format!("{}{}", ann(), " ".repeat(1 << 20))));
    let grants =
        |count: usize| (0..count).map(|pipe| (format!("p{pipe}"), json!({}))).collect::<serde_json::Map<_, _>>();
    cases.push(json(&json!({"user": {"id": "ann"}, "pipes": grants(10_001)}).to_string()));
    cases.push(json(&format!(r#"{{"user":{{"id":"ann","info":{}{}}}}}"#, "[".repeat(5_000), "]".repeat(5_000))));
    let count = cases.len();
    let script = cases.clone();
    let application = Application::start(move |heard| script[case(heard)].0.clone());
    let server = server(&application, "", "");
    for (number, (reply, status)) in cases.iter().enumerate() {
        let request = upgrade_case(number);
        let mut raw = Raw::connect(server.address);
        raw.send(request.text());
        let response = raw.response();
        let shown: String = format!("{reply:?}").chars().take(200).collect();
        assert_eq!(response.status(), *status, "case {number}: {shown}: {response:?}");
        let code = match status {
            401 => "UNAUTHENTICATED",
            403 => "FORBIDDEN",
            _ => "OVERLOADED",
        };
        response.assert_refused(*status, code);
        assert_eq!(response.header("retry-after").is_some(), *status == 503, "case {number}: {response:?}");
        assert!(raw.rest().is_empty());
    }
    let calls = application.heard();
    assert_eq!(calls.len(), count, "each was asked once, and a redirect is not followed");
    assert!(calls.iter().all(|heard| heard.path == "/authorize?site=1"));
    assert_eq!(server.counter("welcomed"), 0);
    until("it is on record", || records(&server, "internal_error").iter().any(|one| one["code"] == "INTERNAL"));
    let record = &records(&server, "internal_error")[0];
    assert!(record["reason"].as_str().is_some_and(|reason| reason.contains("auth.webhook")), "{record}");
}

// HP-1: nobody listens there.
#[test]
fn a_webhook_that_is_not_there_lets_nobody_in() {
    let config = format!("[auth]\nanonymous = true\n[auth.webhook]\nurl = \"{}/authorize\"\n", Application::nowhere());
    let server = Launch::new(&config).without_token_key().start();
    assert_unavailable(&server, &Request::upgrade());
    assert_unavailable(&server, &Request::upgrade().token("theirs"));
    assert_eq!(server.counter("welcomed"), 0);
}

// B13: wherever it points.
#[test]
fn a_redirect_is_not_followed() {
    let application = Application::start(|heard| match &*heard.path {
        "/elsewhere" => Reply::json(ann()),
        _ => Reply::Bytes(b"HTTP/1.1 307 Over\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".to_vec()),
    });
    let server = server(&application, "", "");
    assert_unavailable(&server, &Request::upgrade());
    assert_eq!(application.heard().len(), 1);
}

// A1, B9, B15, B19: a right that is not `true` is not granted, the rest of the answer stands; as much as is allowed is.
#[test]
fn a_right_that_is_not_true_is_not_granted() {
    let grants: serde_json::Map<_, _> = (0..10_000).map(|pipe| (format!("p{pipe}"), rights("sub"))).collect();
    let long = "i".repeat(256);
    let answers = [
        (
            json!({"user": {"id": "ann"}, "pipes": {
                "a": {"subscribe": 1, "publish": "true", "presence": true}, "b": {"subscribe": null, "publish": {}},
                "c": {"subscribe": [true], "publish": true}, "d": {"Subscribe": true}, "e": {}, "f": {"admin": true}
            }}),
            json!({
                "a": rights("presence"), "b": rights(""), "c": rights("pub"), "d": rights(""), "e": rights(""),
                "f": rights("")
            }),
        ),
        (json!({"userId": "ann", "pipes": {"room": rights("sub")}}), json!({"room": rights("sub")})),
        (json!({"userId": "ann"}), json!({})),
        (json!({"user": {"id": long, "tenant": long, "role": long, "features": [], "info": null}}), json!({})),
        (json!({"user": {"id": "ann"}, "pipes": grants}), Value::Null),
    ];
    let script = answers.clone();
    let application = Application::start(move |heard| Reply::json(script[case(heard)].0.clone()));
    let server = server(&application, "", "");
    for (number, (answer, pipes)) in answers.iter().enumerate() {
        let mut client = Client::with(server.address, &upgrade_case(number));
        if pipes.is_object() {
            assert_eq!(client.welcome["pipes"], *pipes, "{answer}");
        } else {
            // B25
            assert_eq!(client.welcome["pipes_truncated"], true);
            assert_ok(&client.subscribe("p9999"));
        }
        for pipe in ["b", "d", "e", "f"] {
            assert_forbidden(&client.subscribe(pipe));
            assert_forbidden(&client.publish(pipe, 1));
        }
    }
}

// HP-1, B24: too late is 503, and what comes later opens nothing.
#[test]
fn an_answer_that_is_late_lets_nobody_in() {
    let application = Application::holding();
    let server = server(&application, "timeout_ms = 400", "");
    let began = Instant::now();
    assert_unavailable(&server, &Request::upgrade());
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    application.answer(0, Reply::json(ann()));
    std::thread::sleep(MOMENT);
    assert_eq!((server.counter("welcomed"), application.heard().len()), (0, 1));
    until("it is on record", || !records(&server, "internal_error").is_empty());
}

// A3: with keys of our own a token is ours alone, wherever it stands: it never falls through to the webhook.
#[test]
fn with_token_keys_a_token_is_never_the_webhooks() {
    let application = welcomes_ann();
    let server = configured(&application, "", "").start();
    let good = token("tess", &[("room", "sub")]);
    let protocol = |token: &str| format!("pipeward.v1, pipeward.token.{token}");
    let ways = |token: &str| {
        [
            Request::upgrade().token(token),
            Request::upgrade().target(&format!("/v1/connect?token={token}")),
            Request::upgrade().header("Sec-WebSocket-Protocol", &protocol(token)),
        ]
    };
    for request in ways(&good) {
        assert_eq!(Client::with(server.address, &request).welcome["user"]["id"], "tess");
    }
    let forged = pipeward::auth::token::sign(b"another secret of thirty-two byte", r#"{"sub":"tess"}"#);
    let expired = crate::support::sign(r#"{"sub":"tess","exp":1000}"#);
    for bad in ["x", "a.b.c", &forged, &expired] {
        for request in ways(bad) {
            // A cookie that the application would take does not help.
            request.header("Cookie", "session=good").assert_refused(server.address, 401, "UNAUTHENTICATED");
        }
    }
    Request::upgrade().target("/v1/connect?token=").assert_refused(server.address, 401, "UNAUTHENTICATED");
    assert!(application.heard().is_empty(), "{:?}", application.heard());
    // Without a token it is asked; another scheme is only a header (B4).
    let request = Request::upgrade().header("Authorization", "Basic eA==").header("Cookie", "c=1");
    assert_eq!(Client::with(server.address, &request).welcome["user"]["id"], "ann");
    let headers = application.call(0).json()["headers"].clone();
    assert_eq!(headers, json!({"cookie": "c=1", "authorization": "Basic eA=="}));
}

// A3: without keys of our own whatever looks like a token is the application's to judge.
#[test]
fn without_token_keys_a_token_is_the_webhooks() {
    let application = Application::start(|heard| {
        let asked = heard.json();
        let known = asked["headers"]["authorization"] == "Bearer tok" || asked["query"]["token"] == "tok";
        if known { Reply::json(ann()) } else { Reply::Status(401, String::new()) }
    });
    let server = server(&application, "", "[auth]\nanonymous = true\n");
    Client::with(server.address, &Request::upgrade().token("tok"));
    assert_eq!(application.call(0).json()["headers"], json!({"authorization": "Bearer tok"}));
    Client::with(server.address, &Request::upgrade().target("/v1/connect?a=1&token=tok"));
    let asked = application.call(1).json();
    assert_eq!((&asked["headers"], &asked["query"]), (&json!({}), &json!({"a": "1", "token": "tok"})));
    let mut raw = Raw::connect(server.address);
    raw.send(Request::upgrade().header("Sec-WebSocket-Protocol", "pipeward.token.tok, pipeward.v1").text());
    let response = raw.response();
    assert_eq!((response.status(), response.header("sec-websocket-protocol")), (101, Some("pipeward.v1")));
    let asked = application.call(2).json();
    assert_eq!((&asked["headers"], &asked["query"]), (&json!({"authorization": "Bearer tok"}), &json!({})));
    // GD-3: a webhook that says no is not what `anonymous` is for.
    for bad in [Request::upgrade().token("bad"), Request::upgrade(), Request::upgrade().target("/v1/connect?token=bad")]
    {
        bad.assert_refused(server.address, 401, "UNAUTHENTICATED");
    }
    assert_eq!(application.heard().len(), 6);
}

// A3: with neither, a token is refused even where anybody may come without one.
#[test]
fn with_neither_keys_nor_webhook_a_token_is_refused() {
    let server = Launch::new("[auth]\nanonymous = true\n").without_token_key().start();
    Request::upgrade().token(&token("ann", &[])).assert_refused(server.address, 401, "UNAUTHENTICATED");
    assert_eq!(Client::with(server.address, &Request::upgrade()).welcome["user"], Value::Null);
}

// RK-1: what is no upgrade, or from a page that may not, is refused before anybody is asked.
#[test]
fn what_is_refused_anyway_is_not_asked_about() {
    let application = welcomes_ann();
    let server = server(&application, "", "");
    Request::upgrade().without("Sec-WebSocket-Key").assert_refused(server.address, 400, "INVALID");
    Request::upgrade().header("Origin", "https://evil.example").assert_refused(server.address, 403, "FORBIDDEN");
    Request::upgrade().header("Content-Length", "5").assert_refused(server.address, 400, "INVALID");
    Request::upgrade().target("/v2/connect").assert_refused(server.address, 404, "NOT_FOUND");
    assert!(application.heard().is_empty(), "{:?}", application.heard());
}

// HP-1, item 1 of the issue: who is connected does not notice a webhook that is slow, down or talking nonsense.
#[test]
fn a_webhook_in_trouble_does_not_touch_who_is_connected() {
    let application = welcomes_ann();
    let server = server(&application, "timeout_ms = 3000\nconcurrency = 2", "");
    let mut ann = Client::with(server.address, &Request::upgrade());
    assert_ok(&ann.subscribe("room"));
    application.script(|_| Reply::Held);
    let mut pending: Vec<Raw> = (0..20).map(|_| Raw::connect(server.address)).collect();
    pending.iter_mut().for_each(|raw| raw.send(Request::upgrade().text()));
    application.await_calls(3);
    let talks = |ann: &mut Client| {
        for number in 0..20 {
            assert_ok(&ann.publish("room", number));
            ann.expect_event("room", number);
        }
        server.api.done("publish", json!({"pipe": "room", "event": "e", "data": "api"}));
        ann.expect_event("room", "api");
    };
    talks(&mut ann);
    let address = application.address;
    drop(application);
    // Whoever was under way is refused, and so is whoever comes while nobody answers.
    for mut raw in pending {
        raw.response().assert_refused(503, "OVERLOADED");
    }
    assert_unavailable(&server, &Request::upgrade());
    talks(&mut ann);
    assert_eq!(ann.settle(), [] as [Value; 0]);
    let _back = Application::start_at(address, |_| Reply::json(ann_of(1)));
    assert_eq!(Client::with(server.address, &Request::upgrade()).welcome["user"]["id"], "user-1");
}

fn ann_of(number: usize) -> Value {
    json!({"user": {"id": format!("user-{number}")}, "pipes": {"room": rights("sub")}})
}

// Item 1, B24, G13: so many calls at a time, the rest wait, and are refused when they have waited for too long; who has
// many in line keeps nobody else waiting; two that ask the same are still two.
#[test]
fn a_storm_of_upgrades_is_bounded_and_fair() {
    const AT_ONCE: usize = 4;
    const MANY: usize = 300;
    const FEW: usize = 12;
    let (now, most, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let own = most.clone();
    let application = Application::start(move |_| {
        own.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        let number = answers.fetch_add(1, Ordering::SeqCst);
        now.fetch_sub(1, Ordering::SeqCst);
        Reply::json(ann_of(number))
    });
    let server = server(&application, &format!("timeout_ms = 3000\nconcurrency = {AT_ONCE}"), "");
    let open = |from: [u8; 4]| {
        let mut raw = Raw::connect_from(IpAddr::from(from), server.address);
        // All alike, down to the cookie.
        raw.send(Request::upgrade().header("Cookie", "same=1").text());
        raw
    };
    let crowd: Vec<Raw> = (0..MANY).map(|_| open([127, 0, 0, 2])).collect();
    application.await_calls(AT_ONCE + 1);
    let few: Vec<Raw> = (0..FEW).map(|_| open([127, 0, 0, 3])).collect();
    let mut users = BTreeSet::new();
    for raw in few {
        let client = Client::greet(raw).unwrap_or_else(|refused| panic!("behind the crowd: {refused:?}"));
        users.insert(client.welcome["user"]["id"].to_string());
    }
    let mut waits_s = Vec::new();
    for raw in crowd {
        match Client::greet(raw) {
            Ok(client) => drop(users.insert(client.welcome["user"]["id"].to_string())),
            Err(refused) => {
                refused.assert_refused(503, "OVERLOADED");
                waits_s.push(refused.header("retry-after").expect("a time").parse::<u64>().expect("seconds"));
            }
        }
    }
    let (let_in, calls) = (MANY + FEW - waits_s.len(), application.heard());
    assert_eq!(users.len(), let_in, "each has an answer of its own");
    assert!(let_in > FEW + AT_ONCE && waits_s.len() > MANY / 2, "{let_in} were let in");
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE, "at one time");
    assert!((let_in..=let_in + AT_ONCE).contains(&calls.len()), "{} calls for {let_in}", calls.len());
    assert!(waits_s.iter().all(|wait_s| (1..=60).contains(wait_s)), "{waits_s:?}");
    assert!(waits_s.iter().collect::<BTreeSet<_>>().len() > 2, "not all are told to come back at once: {waits_s:?}");
    let deliveries: BTreeSet<String> = calls.iter().map(|heard| heard.json()["delivery"].to_string()).collect();
    assert_eq!(deliveries.len(), calls.len());
    // It is over: the next one is asked about.
    assert_ok(&Client::with(server.address, &Request::upgrade()).subscribe("room"));
}

// B26: what was sent before the answer is handled after the welcome, in order.
#[test]
fn what_was_sent_before_the_answer_waits_for_it() {
    let application = Application::holding();
    let server = server(&application, "", "");
    let mut raw = Raw::connect(server.address);
    let text = |message: Value| crate::support::frame(0x80 | opcode::TEXT, message.to_string());
    raw.send(
        [Request::upgrade().text().into_bytes(), text(json!({"type": "subscribe", "id": "first", "pipe": "room"}))]
            .concat(),
    );
    application.await_calls(1);
    for number in 2..5 {
        let id = format!("then-{number}");
        raw.send(text(json!({"type": "publish", "id": id, "pipe": "room", "event": "e", "data": number})));
    }
    assert_eq!(raw.wait_for(MOMENT), None, "nothing is said to who is not known");
    application.answer(0, Reply::json(ann()));
    let mut client = Client::greet(raw).expect("it is let in");
    let heard = client.settle();
    let kinds: Vec<String> = heard.iter().map(|one| format!("{}{}", one["type"], one["id"])).collect();
    assert_eq!(heard[0]["id"], "first", "{kinds:?}");
    assert_eq!(heard.iter().filter(|one| one["type"] == "event").count(), 3, "{kinds:?}");
    assert!(heard.iter().filter(|one| one["type"] == "reply").all(|one| one["ok"] == true), "{heard:?}");
}

// B26: a whole message may be among it; more is answered, and nobody is cut off without a word.
#[test]
fn a_whole_message_may_be_sent_before_the_answer() {
    let application = Application::holding();
    let server = server(&application, "timeout_ms = 60000", "");
    let publish = json!({"type": "publish", "id": 1, "pipe": "room", "event": "e", "data": ""}).to_string();
    let data = "x".repeat(65_536 - publish.len());
    let message = publish.replace(r#""data":"""#, &format!(r#""data":"{data}""#));
    assert_eq!(message.len(), 65_536);
    let message = crate::support::frame(0x80 | opcode::TEXT, message);
    let mut raw = Raw::connect(server.address);
    raw.send([Request::upgrade().text().into_bytes(), message.clone()].concat());
    application.await_calls(1);
    application.answer(0, Reply::json(ann()));
    let mut client = Client::greet(raw).expect("it is let in");
    assert_ok(&client.reply(&json!(1)));
    // How much of this comes before receiving has stopped is a matter of luck.
    let mut raw = Raw::connect(server.address);
    raw.send(Request::upgrade().text());
    application.await_calls(2);
    raw.stream.set_write_timeout(Some(MOMENT)).expect("an option");
    raw.try_send(message.repeat(8));
    application.answer(1, Reply::json(ann()));
    let response = raw.response();
    assert!([101, 413].contains(&response.status()), "{response:?}");
}

// B1, B22: a seat is taken before the application is asked, and given back by who goes before the answer, however they go.
#[test]
fn who_waits_for_the_answer_holds_a_seat() {
    for resets in [true, false] {
        let application = Application::holding();
        let server = server(&application, "timeout_ms = 60000", "[limits]\nconnections = 1\n");
        let mut first = Raw::connect(server.address);
        first.send(Request::upgrade().text());
        application.await_calls(1);
        Request::upgrade().assert_refused(server.address, 429, "TOO_MANY_CONNECTIONS");
        if resets {
            first.reset()
        } else {
            drop(first)
        }
        application.script(|_| Reply::json(ann()));
        let mut client = None;
        until("the seat is free", || {
            client = Client::try_with(server.address, &Request::upgrade()).ok();
            client.is_some()
        });
        // The answer to who has gone is nobody's.
        application.answer(0, Reply::json(json!({"user": {"id": "root"}})));
        assert_ok(&client.expect("it was let in").subscribe("room"));
        assert_eq!(server.counter("welcomed"), 1);
    }
}

// INVARIANTS 18: whoever is not known yet cannot fill memory by talking on.
#[test]
fn who_talks_on_before_the_answer_is_held_back() {
    let application = Application::holding();
    let server = server(&application, "timeout_ms = 60000", "[limits]\nmessage = { per_s = 0 }\n");
    let mut raw = Raw::connect(server.address);
    raw.send(Request::upgrade().text());
    application.await_calls(1);
    let before = server.resident_bytes();
    raw.stream.set_write_timeout(Some(MOMENT)).expect("an option");
    let piece = crate::support::frame(0x80 | opcode::TEXT, r#"{"type":"ping"}"#).repeat(4_000);
    let mut sent = 0;
    while sent < 64 << 20 && raw.try_send(&piece) {
        sent += piece.len();
    }
    if sent >= 64 << 20 {
        // Too much came before receiving had stopped: it was refused, and what followed was thrown away.
        raw.response().assert_refused(413, "PAYLOAD_TOO_LARGE");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "it has grown by {grown} bytes");
}

// B1, B22: the caps of a person are looked at when it is known who it is.
#[test]
fn caps_of_a_person_hold_for_the_answer() {
    let application = welcomes_ann();
    let server = server(&application, "", "[limits]\nconnections_per_user = 2\n");
    let _two = [(); 2].map(|()| Client::with(server.address, &Request::upgrade()));
    Request::upgrade().assert_refused(server.address, 429, "TOO_MANY_CONNECTIONS");
}

// D10, D12, GD-6: session and token id of an answer are revoked like a token's; issued is when it was asked for.
#[test]
fn what_the_answer_names_can_be_revoked() {
    let application = Application::start(|_| {
        Reply::json(json!({"user": {"id": "ann"}, "session": "s1", "token_id": "t1", "pipes": {"room": rights("sub")}}))
    });
    let server = server(&application, "", "");
    let connect = || Client::with(server.address, &Request::upgrade());
    let (one, other) = (connect(), connect());
    assert_eq!(server.api.connections("revoke_tokens", json!({"session": "s1"})), 2);
    one.expect_close(4402);
    other.expect_close(4402);
    Request::upgrade().assert_refused(server.address, 401, "REVOKED");
    application.script(|_| Reply::json(json!({"user": {"id": "ann"}, "session": "s2", "token_id": "t1"})));
    let client = connect();
    assert_eq!(server.api.connections("revoke_tokens", json!({"token": "t1"})), 1);
    client.expect_close(4402);
    Request::upgrade().assert_refused(server.address, 401, "REVOKED");
    application.script(|_| Reply::json(ann()));
    let client = connect();
    assert_eq!(server.api.connections("revoke_tokens", json!({"user": "ann"})), 1);
    client.expect_close(4402);
    // Asked for after the cut-off.
    assert_ok(&connect().subscribe("room"));
}

// §4, D8, INVARIANTS 7: an answer that was asked for before the revocation is asked for once more; the grant stays away.
#[test]
fn an_answer_from_before_a_revocation_is_asked_for_again() {
    let application = Application::holding();
    let server = server(&application, "timeout_ms = 20000", "");
    let open = || {
        let mut raw = Raw::connect(server.address);
        raw.send(Request::upgrade().text());
        raw
    };
    let raw = open();
    application.await_calls(1);
    server.api.done("revoke", json!({"user": "ann", "pipe": "room"}));
    application.answer(0, Reply::json(ann()));
    let again = application.call(1);
    let first = application.call(0).json();
    assert_eq!((&again.json()["kind"], &again.json()["connection"]), (&json!("connect"), &first["connection"]));
    assert_ne!(again.json()["delivery"], first["delivery"], "INVARIANTS 31");
    again.assert_signed(SIGNED_WITH);
    // Revoked yet again while it is asked again: that is looked up when it is installed, and not asked a third time.
    server.api.done("revoke", json!({"user": "ann", "pipe": "hall"}));
    application.answer(1, Reply::json(json!({"user": {"id": "ann"}, "pipes": {"room": rights("sub"), "hall": rights("sub"), "den": rights("sub")}})));
    let mut ann = Client::greet(raw).expect("it is let in");
    assert_eq!(ann.welcome["pipes"], json!({"den": rights("sub")}));
    assert_code(&ann.subscribe("room"), "REVOKED");
    assert_code(&ann.subscribe("hall"), "REVOKED");
    assert_eq!(application.heard().len(), 2);
}

// INVARIANTS 7: also where the revocation is over by then; what the application says last holds.
#[test]
fn a_revocation_that_is_over_still_has_it_asked_again() {
    let application = Application::holding();
    let server = server(&application, "timeout_ms = 20000", "");
    for (round, revoke) in ["revoke", "revoke_all"].into_iter().enumerate() {
        let mut raw = Raw::connect(server.address);
        raw.send(Request::upgrade().text());
        application.await_calls(2 * round + 1);
        let body = if revoke == "revoke" { json!({"user": "ann", "pipe": "room"}) } else { json!({"user": "ann"}) };
        server.api.done(revoke, body);
        server.api.done("restore", json!({"user": "ann"}));
        application.answer(2 * round, Reply::json(ann()));
        application.answer(2 * round + 1, Reply::json(json!({"user": {"id": "ann"}, "pipes": {}})));
        let mut client = Client::greet(raw).expect("it is let in");
        assert_forbidden(&client.subscribe("room"));
    }
    // What concerns somebody else has nobody asked again.
    let mut raw = Raw::connect(server.address);
    raw.send(Request::upgrade().text());
    application.await_calls(5);
    server.api.done("revoke", json!({"user": "ben", "pipe": "room"}));
    application.answer(4, Reply::json(ann()));
    assert_ok(&Client::greet(raw).expect("it is let in").subscribe("room"));
    assert_eq!(application.heard().len(), 5);
}

// D8, D10: everything of a user is revoked while the application is asked about them: that answer lets nobody in.
#[test]
fn an_answer_from_before_its_user_was_revoked_lets_nobody_in() {
    let application = Application::start(|_| Reply::Held);
    let server = server(&application, "timeout_ms = 20000", "");
    let mut raw = Raw::connect(server.address);
    raw.send(Request::upgrade().text());
    application.await_calls(1);
    application.script(|_| Reply::Status(401, String::new()));
    server.api.done("revoke_tokens", json!({"user": "ann"}));
    application.answer(0, Reply::json(ann()));
    let response = raw.response();
    assert_eq!(response.status(), 401, "{response:?}");
    assert_eq!(server.counter("welcomed"), 0);
}

// G1: who is still being asked about when it drains is not let in.
#[test]
fn who_is_known_too_late_finds_it_draining() {
    let application = Application::holding();
    let launch = configured(&application, "timeout_ms = 20000", "").without_token_key();
    let mut server = launch.variable("PIPEWARD_EDGE__DRAIN_S", "2").start();
    let mut pending = Raw::connect(server.address);
    pending.send(Request::upgrade().text());
    application.await_calls(1);
    server.signal(libc::SIGTERM);
    server.log_line("drain");
    application.answer(0, Reply::json(ann()));
    let response = pending.response();
    assert_eq!(response.status(), 503, "{response:?}");
    assert_eq!(server.exit_code(), Some(0));
}

// G4: neither log nor audit holds what was forwarded, answered, or signs.
#[test]
fn nothing_of_a_call_is_on_record() {
    let application = Application::start(|_| Reply::Status(500, "ANSWERED-THIS".to_owned()));
    let server = server(&application, "", "");
    let request = Request::upgrade().target("/v1/connect?token=TOKEN-OF-ANN").header("Cookie", "sid=COOKIE-OF-ANN");
    assert_unavailable(&server, &request);
    application.script(|_| Reply::Status(200, r#"{"user":{"id":"SPOILED ID"}}"#.to_owned()));
    assert_unavailable(&server, &request);
    until("both are on record", || {
        records(&server, "internal_error").iter().map(|one| one["count"].as_u64().unwrap_or(1)).sum::<u64>() >= 2
    });
    let text = std::fs::read_to_string(server.path("audit.log")).expect("a file") + &server.log().join("\n");
    for secret in ["TOKEN-OF-ANN", "COOKIE-OF-ANN", "ANSWERED-THIS", "SPOILED", SIGNED_WITH] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
