//! Expressions that decide on subscribe, publish and presence: by identity, captures and event; what fails refuses and is on
//! record with its place; what nothing allows is refused.

use serde_json::{Value, json};

use crate::support::{
    AUDITED, Application, Client, Launch, NO_RATES, Reply, Request, Server, assert_code, assert_forbidden, assert_ok,
    await_fault, records, rights, sign, until,
};

fn server(rules: &str) -> Server {
    Server::start(&format!("[edge]\nworkers = 2\n{AUDITED}[limits]\n{NO_RATES}{rules}"))
}

#[track_caller]
fn connect(server: &Server, claims: &Value) -> Client {
    Client::connect(server.address, &sign(&claims.to_string()))
}

fn presence(client: &mut Client, pipe: &str) -> Value {
    client.request(json!({"type": "presence", "pipe": pipe}))
}

// RK-5, GD-4, GD-10: each right by itself; what is not written is refused; nothing is delivered to who was refused.
#[test]
fn nothing_is_allowed_that_no_rule_allows() {
    let server = server(
        "[pipe.\"none\"]\n[pipe.\"sub\"]\nsubscribe = \"has(user.id)\"\n[pipe.\"pub\"]\npublish = \"has(user.id)\"\n\
         [pipe.\"who\"]\npresence = \"has(user.id)\"\n",
    );
    let mut ann = connect(&server, &json!({"sub": "ann"}));
    for (pipe, allowed) in [("none", ""), ("sub", "sub"), ("pub", "pub"), ("who", "presence"), ("nosuch", "")] {
        let replies =
            [("presence", presence(&mut ann, pipe)), ("pub", ann.publish(pipe, 1)), ("sub", ann.subscribe(pipe))];
        for (right, reply) in replies {
            if right == allowed { assert_ok(&reply) } else { assert_forbidden(&reply) }
        }
    }
    for pipe in ["none", "pub", "who", "nosuch"] {
        server.api.done("publish", json!({"pipe": pipe, "event": "e", "data": 1}));
    }
    server.api.done("publish", json!({"pipe": "sub", "event": "e", "data": 2}));
    ann.expect_event("sub", 2);
    assert_eq!(ann.settle(), [] as [Value; 0]);
}

// SR-9, F4, F5, B19, B20, PROTOCOL §6: rule by rule, who it lets in.
#[test]
fn rules_decide_by_identity_and_captures() {
    let people = [
        json!({"sub": "root", "role": "admin", "tenant": "acme", "org": "red", "team": "one", "features": ["chat"]}),
        json!({"sub": "ann", "roles": ["member", "editor"], "tenant": "acme", "org": "red", "team": "two"}),
        json!({"sub": "ben", "role": "member", "tenant": "globex", "info": {"plan": "pro", "projects": ["x"]}}),
        json!({"sub": "cat"}),
    ];
    // A name under `{tenant}:{org}:{team}:{owner}` with the rule's number before, the rule, who may.
    let table = [
        ("acme:red:one:ann", "user.team == params.team", "root"),
        ("acme:red:one:ann", "user.role == 'admin' || user.id == params.owner", "root ann"),
        ("acme:red:one:ann", "'chat' in user.features", "root"),
        ("acme:red:one:ann", "has(user.features) && 'chat' in user.features", "root"),
        ("acme:red:one:ann", "owner('owner')", "ann"),
        ("acme:red:one:ann", "has(user.id)", "root ann ben cat"),
        ("acme:red:one:ann", "team()", "root"),
        ("acme:red:one:ann", "tenant()", "root ann"),
        ("acme:red:one:ann", "tenant() && org()", "root ann"),
        ("globex:red:one:ann", "tenant()", "ben"),
        ("globex:red:one:ann", "org()", "root ann"),
        ("acme:red:one:ann", "role({'admin': true, 'member': false})", "root"),
        ("acme:red:one:ann", "role({'editor': true, 'member': false})", "ann"),
        ("acme:red:one:ann", "'member' in user.roles", "ann ben"),
        ("acme:red:one:ann", "user.role in ['member', 'admin']", "root ann ben"),
        ("acme:red:one:ann", "user.info.plan == 'pro'", "ben"),
        ("acme:red:one:ann", "user.info.projects.exists(p, p == 'x')", "ben"),
        ("acme:red:one:ann", "!has(user.info.suspended)", "root ann ben cat"),
        ("acme:red:one:ann", "pipe.endsWith(':ann') && ip == '127.0.0.1'", "root ann ben cat"),
        ("acme:red:one:ann", "user.id == 'ANN' || user.id == 'an'", ""),
    ];
    let rules: String = table
        .iter()
        .enumerate()
        .map(|(number, (_, rule, _))| {
            format!("[pipe.\"{number}:{{tenant}}:{{org}}:{{team}}:{{owner}}\"]\nsubscribe = \"{rule}\"\npublish = \"{rule}\"\n")
        })
        .collect();
    let server = server(&rules);
    for claims in &people {
        let mut client = connect(&server, claims);
        for (number, (name, rule, may)) in table.iter().enumerate() {
            let pipe = format!("{number}:{name}");
            let allowed = may.split(' ').any(|one| claims["sub"] == one);
            for reply in [client.publish(&pipe, 1), client.subscribe(&pipe)] {
                assert_eq!(reply["ok"], allowed, "{claims}: {rule}: {reply}");
                if !allowed {
                    assert_forbidden(&reply);
                }
            }
        }
    }
}

// B20: what was not said about features is absent to rules, and so is it in calls; an empty list is there.
#[test]
fn features_of_which_nothing_was_said_are_absent() {
    let application = Application::start(|_| Reply::json(json!({"allow": true})));
    let server = server(&format!(
        "[pipe.\"has\"]\nsubscribe = \"has(user.features)\"\n[pipe.\"read\"]\nsubscribe = \"!('x' in user.features)\"\n\
         [pipe.\"asked\"]\nsubscribe = {{ url = \"{}\" }}\n\
         [pipe.\"scoped\"]\nscope = {{ feature = \"x\" }}\nsubscribe = \"has(user.id)\"\n",
        application.url("/rule")
    ));
    let mut unsaid = connect(&server, &json!({"sub": "ann"}));
    assert_forbidden(&unsaid.subscribe("has"));
    assert_forbidden(&unsaid.subscribe("read"));
    await_fault(&server, "pipe.\"read\".subscribe");
    assert_code(&unsaid.subscribe("scoped"), "FEATURE_DISABLED");
    assert_ok(&unsaid.subscribe("asked"));
    let mut none = connect(&server, &json!({"sub": "ben", "features": []}));
    for pipe in ["has", "read", "asked"] {
        assert_ok(&none.subscribe(pipe));
    }
    assert_code(&none.subscribe("scoped"), "FEATURE_DISABLED");
    let said = |call: usize| application.call(call).json()["user"].get("features").cloned();
    assert_eq!((said(0), said(1)), (None, Some(json!([]))));
}

// RK-6, F6, B20: refused as anything else is; to the operator an internal error, with the place.
#[test]
fn a_rule_that_fails_refuses_and_is_on_record() {
    let server = server(
        "[pipe.\"absent-{x}\"]\nsubscribe = \"user.team == 'red'\"\npublish = \"user.info.level > 3\"\n\
         presence = \"user.info.open\"\n\
         [pipe.\"lost-{x}\"]\nsubscribe = \"!(user.org == 'red')\"\n\
         [pipe.\"data-{x}\"]\npublish = \"event.data.open\"\n",
    );
    let info = json!({"level": "SECRET-LEVEL", "open": "SECRET-OPEN"});
    let mut ann = connect(&server, &json!({"sub": "ann", "info": info}));
    assert_forbidden(&ann.subscribe("absent-1"));
    assert_eq!(await_fault(&server, "pipe.\"absent-{x}\".subscribe")["user"], "ann");
    assert_forbidden(&ann.publish("absent-1", 1));
    await_fault(&server, "pipe.\"absent-{x}\".publish");
    assert_forbidden(&presence(&mut ann, "absent-1"));
    let record = await_fault(&server, "pipe.\"absent-{x}\".presence");
    assert_eq!(record["pipe"], "absent-1", "{record}");
    // A negation does not turn a fault into an allow.
    assert_forbidden(&ann.subscribe("lost-1"));
    await_fault(&server, "pipe.\"lost-{x}\".subscribe");
    for data in [json!({"open": 1}), json!({"open": "true"}), json!({"open": null}), json!({}), json!(true), json!([])]
    {
        assert_forbidden(&ann.publish("data-1", data));
    }
    await_fault(&server, "pipe.\"data-{x}\".publish");
    assert_forbidden(&ann.publish("data-1", json!({"open": false})));
    assert_ok(&ann.publish("data-1", json!({"open": true})));
    assert_eq!(server.counter("rule_faults"), 10);
    assert_eq!(ann.settle(), [] as [Value; 0]);
    let file = std::fs::read_to_string(server.path("audit.log")).expect("a file");
    assert!(!file.contains("SECRET") && !server.log().join("\n").contains("SECRET"), "G4");
}

// HP-6: without `id` nobody is told, but it is counted and on record.
#[test]
fn without_an_id_a_refusal_is_silent() {
    let server = server("[pipe.\"room\"]\nsubscribe = \"user.role == 'admin'\"\npublish = \"user.id == 'root'\"\n");
    let mut ann = connect(&server, &json!({"sub": "ann", "role": "member"}));
    ann.send(json!({"type": "subscribe", "pipe": "room"}));
    ann.tell("room", 1);
    assert_eq!(ann.settle(), [] as [Value; 0]);
    assert_eq!(server.counter("denied[FORBIDDEN]"), 2);
    until("it is on record", || records(&server, "denied").iter().any(|one| one["code"] == "FORBIDDEN"));
}

// B21: `user` is an empty map; a literal `true` is for everybody, `has(user.id)` for those who are somebody.
#[test]
fn an_anonymous_connection_is_nobody() {
    let server = server(
        "[auth]\nanonymous = true\n[pipe.\"all\"]\nsubscribe = true\npublish = true\npresence = true\npublic = true\n\
         [pipe.\"known\"]\nsubscribe = \"has(user.id)\"\n[pipe.\"unknown\"]\nsubscribe = \"!has(user.id)\"\n\
         [pipe.\"named\"]\nsubscribe = \"user.id != 'x'\"\n[pipe.\"user-{user.id}\"]\nsubscribe = true\n\
         [pipe.\"team\"]\nsubscribe = \"team() || tenant() || org() || role({'': true}) || owner('x')\"\n",
    );
    let mut nobody = Client::with(server.address, &Request::upgrade());
    assert_ok(&nobody.subscribe("all"));
    assert_ok(&nobody.subscribe("unknown"));
    for pipe in ["known", "named", "user-", "user-x", "user-null", "team"] {
        assert_forbidden(&nobody.subscribe(pipe));
    }
    assert_ok(&nobody.publish("all", 1));
    nobody.expect_event("all", 1);
}

// HP-3, F2, SR-8: the rule speaks only for the pipe that is the connection's own; an explicit grant speaks for any.
#[test]
fn a_rule_of_a_users_pipe_is_for_that_user() {
    let server = server(
        "[pipe.\"user-{user.id}\"]\nsubscribe = \"user.role == 'member'\"\npublish = true\npresence = true\npublic = true\n\
         [pipe.\"user-{user.id}\".event.note]\n[pipe.\"user-{user.id}\".event.own]\npublish = true\n\
         [pipe.\"org-{user.org}:team-{user.team}\"]\nsubscribe = true\n",
    );
    let claims = |user: &str, role: &str| json!({"sub": user, "role": role, "org": "o", "team": "t"});
    let mut ann = connect(&server, &claims("ann", "member"));
    let mut guest = connect(&server, &claims("guest", "guest"));
    assert_ok(&ann.subscribe("user-ann"));
    assert_forbidden(&guest.subscribe("user-guest"));
    assert_ok(&ann.subscribe("org-o:team-t"));
    for pipe in ["user-guest", "user-ANN", "user-ann2", "user-{user.id}", "user-*", "org-o:team-x", "org-x:team-t"] {
        let reply = ann.subscribe(pipe);
        assert!(reply["code"] == "FORBIDDEN" || (reply["code"] == "INVALID" && pipe.contains(['{', '*'])), "{reply}");
    }
    for event in ["note", "own", "undefined"] {
        let publish = |pipe: &str| json!({"type": "publish", "pipe": pipe, "event": event, "data": 1});
        assert_forbidden(&guest.request(publish("user-ann")));
        let own = ann.request(publish("user-ann"));
        // A13
        if event == "undefined" { assert_forbidden(&own) } else { assert_ok(&own) }
    }
    assert_forbidden(&presence(&mut guest, "user-ann"));
    assert_eq!(ann.settle().len(), 2, "only her own");
    let granted = json!({"sub": "helper", "pipes": {"user-ann": rights("sub,pub")}});
    let mut helper = connect(&server, &granted);
    assert_ok(&helper.subscribe("user-ann"));
    assert_ok(&helper.request(json!({"type": "publish", "pipe": "user-ann", "event": "own", "data": 3})));
    ann.expect_event("user-ann", 3);
}

// F20: the first definition that matches decides, also where it allows less.
#[test]
fn the_first_definition_that_matches_decides() {
    let server = server(
        "[pipe.\"room-secret\"]\n[pipe.\"room-{x}\"]\nsubscribe = \"has(user.id)\"\n\
         [pipe.\"hall-*\"]\npublish = \"has(user.id)\"\n[pipe.\"hall-1\"]\nsubscribe = \"has(user.id)\"\n",
    );
    let mut ann = connect(&server, &json!({"sub": "ann"}));
    assert_forbidden(&ann.subscribe("room-secret"));
    assert_ok(&ann.subscribe("room-secrets"));
    assert_forbidden(&ann.subscribe("hall-1"));
    assert_ok(&ann.publish("hall-1", 1));
}

// A rule that looks at the event decides for each message, whatever the last one was.
#[test]
fn what_depends_on_the_event_is_decided_for_each() {
    let server = server(
        "[pipe.\"room\"]\nsubscribe = true\npublic = true\n\
         publish = \"event.name != 'secret' && (event.data.level < 3 || user.role == 'admin')\"\n",
    );
    let mut ann = connect(&server, &json!({"sub": "ann", "role": "member"}));
    let mut root = connect(&server, &json!({"sub": "root", "role": "admin"}));
    assert_ok(&root.subscribe("room"));
    for round in 0..3 {
        assert_ok(&ann.publish("room", json!({"level": 2, "round": round})));
        assert_forbidden(&ann.publish("room", json!({"level": 3, "round": round})));
        assert_forbidden(
            &ann.request(json!({"type": "publish", "pipe": "room", "event": "secret", "data": {"level": 1}})),
        );
        // Before she sends her own: events of two senders come in no certain order.
        root.expect_event("room", json!({"level": 2, "round": round}));
        assert_ok(&root.publish("room", json!({"level": 9, "round": round})));
        root.expect_event("room", json!({"level": 9, "round": round}));
    }
    assert_eq!(root.settle(), [] as [Value; 0]);
}

// F21, INVARIANTS 26: numbers of any size are compared, and passed on as they came.
#[test]
fn numbers_beyond_64_bits_fail_no_rule() {
    let server = server("[pipe.\"room\"]\nsubscribe = true\npublic = true\npublish = \"event.data.n > 10\"\n");
    let mut ann = connect(&server, &json!({"sub": "ann"}));
    assert_ok(&ann.subscribe("room"));
    for (number, allowed) in [
        ("12345678901234567890123", true),
        ("18446744073709551615", true),
        ("10.000000000000000000001", false),
        ("1e400", true),
        ("-1e400", false),
        ("9007199254740993", true),
    ] {
        ann.send_text(format!(r#"{{"type":"publish","id":1,"pipe":"room","event":"e","data":{{"n": {number} }}}}"#));
        let mut heard = Vec::new();
        while heard.len() < if allowed { 2 } else { 1 } {
            let frame = ann.frame().expect("a frame");
            heard.push(String::from_utf8(frame.payload).expect("UTF-8"));
        }
        let whole = heard.join("\n");
        assert_eq!(whole.contains(r#""ok":true"#), allowed, "{number}: {whole}");
        assert_eq!(whole.contains(&format!(r#""data":{{"n": {number} }}"#)), allowed, "{number}: {whole}");
    }
}

// F21: nor does arithmetic, whatever the spelling of a number and whatever becomes of it.
#[test]
fn arithmetic_takes_a_number_however_it_is_spelt() {
    let server = server(
        "[pipe.\"shop\"]\npublish = \"event.data.price * 2 > 10\"\n[pipe.\"club\"]\nsubscribe = \"user.info.n + 0.5 > 1.0\"\n",
    );
    let mut ann = connect(&server, &json!({"sub": "ann", "info": {"n": 1}}));
    assert_ok(&ann.subscribe("club"));
    for (price, allowed) in
        [("6", true), ("6.5", true), ("9223372036854775807", true), ("99999999999999999999", true), ("5.0", false)]
    {
        ann.send_text(format!(r#"{{"type":"publish","id":"a","pipe":"shop","event":"e","data":{{"price":{price}}}}}"#));
        let reply = ann.reply(&json!("a"));
        if allowed { assert_ok(&reply) } else { assert_forbidden(&reply) }
    }
    assert_eq!(server.counter("rule_faults"), 0);
}

// RK-6: what two readers could read differently is no value, also to a rule that says what may not be there.
#[test]
fn data_with_a_name_twice_passes_no_rule_about_it() {
    let server = server("[pipe.\"room\"]\npublish = \"!has(event.data.admin) || event.data.admin != true\"\n");
    let mut ann = connect(&server, &json!({"sub": "ann"}));
    for (data, allowed) in
        [(r#"{"x":1}"#, true), (r#"{"x":1,"x":2}"#, false), (r#"{"admin":false,"admin":true}"#, false)]
    {
        ann.send_text(format!(r#"{{"type":"publish","id":"a","pipe":"room","event":"e","data":{data}}}"#));
        let reply = ann.reply(&json!("a"));
        if allowed { assert_ok(&reply) } else { assert_forbidden(&reply) }
    }
}

// C7, C8: in a batch each pipe is decided by its own rules; presence and subscribe of one pipe go together.
#[test]
fn a_batch_is_decided_one_by_one() {
    let server = server("[pipe.\"team-{team}\"]\nsubscribe = \"team()\"\npresence = \"user.role == 'lead'\"\n");
    let mut ann = connect(&server, &json!({"sub": "ann", "team": "red", "role": "member"}));
    let reply = ann.request(json!({"type": "subscribe", "pipes": ["team-red", "team-blue", "nosuch"]}));
    assert_ok(&reply);
    assert_ok(&reply["results"]["team-red"]);
    for pipe in ["team-blue", "nosuch"] {
        assert_forbidden(&reply["results"][pipe]);
    }
    let mut bob = connect(&server, &json!({"sub": "bob", "team": "red", "role": "member"}));
    assert_forbidden(&bob.request(json!({"type": "subscribe", "pipe": "team-red", "presence": true})));
    assert_code(&bob.request(json!({"type": "unsubscribe", "pipe": "team-red"})), "NOT_SUBSCRIBED");
    let mut lead = connect(&server, &json!({"sub": "lead", "team": "red", "role": "lead"}));
    let reply = lead.request(json!({"type": "subscribe", "pipe": "team-red", "presence": true}));
    assert_ok(&reply);
    assert!(
        reply["members"].as_array().is_some_and(|members| members.iter().any(|one| one["user"] == "ann")),
        "{reply}"
    );
}

// RK-6, F7, F18, A2: what cannot be a rule does not serve.
#[test]
fn a_file_with_a_rule_that_cannot_be_one_does_not_serve() {
    for (wrong, key) in [
        ("[pipe.\"a\"]\nsubscribe = \"1 + 1\"\n", "subscribe"),
        ("[pipe.\"a\"]\npublish = \"user.id\"\n", "publish"),
        ("[pipe.\"a\"]\npublish = \"user.info.x + 1\"\n", "publish"),
        ("[pipe.\"a\"]\npublish = \"-user.info.x\"\n", "publish"),
        ("[[guard]]\nrequire = \"ctx.x % 2\"\n", "require"),
        ("[pipe.\"a\"]\nsubscribe = \"user.info.a + user.info.b\"\n", "subscribe"),
        ("[pipe.\"a\"]\n[pipe.\"a\".event.e]\nfilter = \"user.info.a + user.info.b\"\n", "filter"),
        ("[pipe.\"a\"]\npresence = \"usr.id == 'x'\"\n", "presence"),
        ("[pipe.\"a\"]\nsubscribe = \"event.name == 'x'\"\n", "subscribe"),
        ("[pipe.\"a\"]\nsubscribe = \"user.id ==\"\n", "subscribe"),
        ("[pipe.\"a\"]\nmodule = \"nosuch\"\n", "module"),
        ("[pipe.\"a\"]\nscope = { tenant = \"t\" }\n", "scope"),
        ("[[guard]]\nrequire = \"'x'\"\n", "require"),
    ] {
        let mut server = Launch::new(wrong).spawn();
        assert_eq!(server.exit_code(), Some(2), "{wrong}");
        let line = server.log_line("pipeward.toml:");
        assert!(line.contains(key), "{wrong}: {line}");
    }
}
