//! Rules of the file: guards, modules, pipes with their events, actions, queues, pushes, and the webhook. What is
//! refused comes first.

use pipeward::config;
use pipeward::rules::definition::{Right, Rules, Scope};

use super::{clean, errors, parse, parse_with, refused, warned};

/// A text whose calls are signed.
const SIGNED: &str = "auth.webhook = { url = 'http://a', secret = '0123456789abcdef' }\n";

/// The rules of a text without findings.
fn rules(text: &str) -> std::sync::Arc<Rules> {
    clean(&format!("{SIGNED}{text}")).rules
}

/// The sample of PROTOCOL.md §6, rules and webhook.
const SAMPLE: &str = r#"
[auth.webhook]
url = "http://127.0.0.1:3000/realtime/authorize"
timeout_ms = 2000
forward_headers = ["cookie", "authorization"]
secret = "0123456789abcdef"
concurrency = 64
[limits.per_tenant]
publish = { per_s = 200, burst = 400 }
[[guard]]
name = "active"
require = "!has(user.info.suspended)"
code = "FORBIDDEN"
[[guard]]
name = "permissions"
set = { permissions = "user.info.permissions" }
[module.admin]
guard = [ { require = "user.role == 'admin'", code = "FORBIDDEN", message = "Admin only" } ]
[pipe."{tenant}:{org}:team-{team}"]
module = "admin"
scope = { tenant = "tenant", org = "org", feature = "chat" }
subscribe = "user.team == params.team"
publish = "user.team == params.team && 'chat' in user.features"
presence = false
public = false
[pipe."{tenant}:{org}:team-{team}".event.moderationLog]
subscribe = "user.role == 'admin'"
publish = false
schema = { type = "object" }
max_bytes = 4096
filter = "event.data.level >= 3 || user.role == 'admin'"
scope_fields = { "/tenantId" = "tenant", "/orgId" = "org" }
[action.sendMessage]
allow = "user.role in ['member', 'admin']"
schema = { type = "object" }
rate = { per_s = 5, burst = 10 }
url = "http://127.0.0.1:3000/realtime/actions/sendMessage"
timeout_ms = 5000
[queue.moderationJobs]
publish = "user.role == 'admin'"
url = "http://127.0.0.1:3000/realtime/queues/moderation"
[push]
allow = "user.role == 'admin' || to.user == user.id"
"#;

#[test]
fn the_sample_of_the_protocol_is_read() {
    let config = clean(SAMPLE);
    let webhook = config.auth.webhook.expect("a webhook");
    assert_eq!((webhook.endpoint.number, webhook.endpoint.timeout_ms, webhook.concurrency), (0, 2_000, 64));
    assert_eq!(webhook.forward_headers, ["cookie".into(), "authorization".into()]);
    assert_eq!(webhook.endpoint.secret.as_deref(), Some(&b"0123456789abcdef"[..]));
    assert_eq!(config.limits.per_tenant.publish.map(|rate| rate.burst), Some(400.0));
    let rules = config.rules;
    let [active, permissions] = rules.guards.as_slice() else { panic!("two guards") };
    assert_eq!(
        (active.name.as_deref(), &*active.code, &*active.message),
        (Some("active"), "FORBIDDEN", "Access denied")
    );
    assert!(active.require.is_some() && active.set.is_empty() && active.ask.is_none());
    assert_eq!(
        (&*permissions.set[0].0, permissions.set[0].1.expression.source()),
        ("permissions", "user.info.permissions")
    );
    assert_eq!((&*rules.modules[0].name, &*rules.modules[0].guards[0].message), ("admin", "Admin only"));
    let (number, pipe, captured) = rules.pipe("acme:emea:team-red").expect("it matches");
    assert_eq!((number, pipe.module, captured.capture("team")), (0, Some(0), Some("red")));
    let scope = Scope { tenant: Some("tenant".into()), org: Some("org".into()), feature: Some("chat".into()) };
    assert_eq!(pipe.scope, scope);
    let Right::When(subscribe) = &pipe.subscribe else { panic!("an expression") };
    assert_eq!(subscribe.expression.source(), "user.team == params.team");
    assert_eq!(subscribe.place.to_string(), "configuration:22: pipe.\"{tenant}:{org}:team-{team}\".subscribe");
    assert!(matches!((&pipe.publish, &pipe.presence), (Right::When(_), Right::Never)));
    let event = &pipe.events[pipe.event("moderationLog").expect("it is defined")];
    assert!(matches!((&event.subscribe, &event.publish), (Some(Right::When(_)), Some(Right::Never))));
    assert_eq!(event.payload.max_bytes, Some(4096));
    assert!(event.payload.schema.is_some() && !event.payload.references.is_empty() && event.filter.is_some());
    let action = rules.action("sendMessage").expect("it is defined");
    assert_eq!(&*action.endpoint.url, "http://127.0.0.1:3000/realtime/actions/sendMessage");
    assert_eq!((action.endpoint.timeout_ms, action.rate.map(|rate| rate.burst)), (5_000, Some(10.0)));
    // A12: the webhook's secret signs all calls.
    assert_eq!(action.endpoint.secret, webhook.endpoint.secret);
    let queue = rules.queue("moderationJobs").expect("it is defined");
    // F16
    assert_eq!((queue.endpoint.timeout_ms, queue.max_pending), (5_000, 100_000));
    assert_eq!((queue.max_pending_bytes, queue.max_age_s), (256 << 20, 604_800));
    assert!(matches!(rules.push.allow, Right::When(_)));
    let numbers = [webhook.endpoint.number, action.endpoint.number, queue.endpoint.number];
    assert!(numbers[1] != numbers[0] && numbers[2] != numbers[0] && numbers[1] != numbers[2], "{numbers:?}");
}

// F7, F18: what cannot be decided is refused when it is read, with its place.
#[test]
fn a_rule_that_cannot_yield_a_boolean_is_refused() {
    for (text, key) in [
        ("[pipe.\"a\"]\nsubscribe = '1 + 1'\n", "pipe.\"a\".subscribe"),
        ("[pipe.\"a\"]\npublish = 'user.id'\n", "pipe.\"a\".publish"),
        ("[pipe.\"a\"]\npresence = 'user.roles'\n", "pipe.\"a\".presence"),
        ("[pipe.\"a\"]\nsubscribe = 'usr.id == \"a\"'\n", "pipe.\"a\".subscribe"),
        ("[pipe.\"a\"]\nsubscribe = 'user.id =='\n", "pipe.\"a\".subscribe"),
        ("[pipe.\"a\"]\nsubscribe = 'user.nickname == \"a\"'\n", "pipe.\"a\".subscribe"),
        ("[pipe.\"a\"]\nsubscribe = 'event.name == \"a\"'\n", "pipe.\"a\".subscribe"),
        ("[pipe.\"a\"]\npresence = 'event.name == \"a\"'\n", "pipe.\"a\".presence"),
        ("[pipe.\"a\".event.b]\nsubscribe = 'event.data.x'\n", "pipe.\"a\".event.b.subscribe"),
        ("[pipe.\"a\".event.b]\nfilter = 'args.x'\n", "pipe.\"a\".event.b.filter"),
        ("[pipe.\"a\".event.b]\nfilter = true\n", "pipe.\"a\".event.b.filter"),
        ("[push]\nallow = '\"x\"'\n", "push.allow"),
        ("[[guard]]\nrequire = 'user.id'\n", "guard.require"),
        ("[[guard]]\nset = { x = 'nobody.id' }\n", "guard.set.x"),
    ] {
        refused(text, 2, key, "");
    }
    let action = |rule: &str| format!("{SIGNED}[action.a]\nallow = '{rule}'\nurl = 'http://a'\n");
    refused(&action("event.name == \"x\""), 3, "action.a.allow", "event");
    refused(&action("to.user == user.id"), 3, "action.a.allow", "to");
    rules("[action.a]\nallow = 'args.owner == user.id'\nurl = 'http://a'\n");
    rules("[pipe.\"a-{x}\"]\nsubscribe = 'owner(\"x\")'\npublish = 'event.name == \"b\" && team()'\n");
}

// A2
#[test]
fn a_capture_that_the_name_lacks_is_refused() {
    let name = "pipe.\"team-{team}\"";
    refused(
        "[pipe.\"team-{team}\"]\nscope = { tenant = 'tenant' }\n",
        2,
        &format!("{name}.scope.tenant"),
        "captures `team`",
    );
    refused("[pipe.\"a\"]\nscope.org = 'org'\n", 2, "pipe.\"a\".scope.org", "write `{org}` into it");
    refused("[pipe.\"{user.id}\"]\nscope.tenant = 'id'\n", 2, "pipe.\"{user.id}\".scope.tenant", "captures nothing");
    refused("[pipe.\"{t}:a\"]\nscope = { tennant = 't' }\n", 2, "pipe.\"{t}:a\".scope.tennant", "scope.tenant`");
    refused("[pipe.\"{t}:a\"]\nscope = 't'\n", 2, "pipe.\"{t}:a\".scope", "write `{ tenant");
    refused("[pipe.\"{t}:a\"]\nscope = { feature = 1 }\n", 2, "pipe.\"{t}:a\".scope.feature", "a string");
    let subscribe = "pipe.\"a-{x}\".subscribe";
    refused("[pipe.\"a-{x}\"]\nsubscribe = 'user.id == params.y'\n", 2, subscribe, "`params.y` is nothing");
    let text = "[pipe.\"a-{x}\"]\nguard = [{ set = { b = 'params.z' } }]\n[pipe.\"a-{x}\".event.e]\nfilter = 'params.q == user.id'\n";
    let (places, messages) = errors(text);
    assert_eq!(places.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4], "{messages}");
}

#[test]
fn a_module_that_is_not_there_is_refused() {
    let module = "[module.admin]\n";
    refused("[pipe.\"a\"]\nmodule = 'admin'\n", 2, "pipe.\"a\".module", "write `[module.NAME]`");
    for (table, key) in [("[pipe.\"a\"]", "pipe.\"a\""), ("[action.a]\nurl = 'http://a'", "action.a")] {
        let text = format!("{SIGNED}{module}{table}\nmodule = 'admn'\n");
        let line = text.lines().count() as u32;
        refused(&text, line, &format!("{key}.module"), "the nearest is `admin`");
    }
    // It may stand behind what names it.
    assert_eq!(rules(&format!("[pipe.\"a\"]\nmodule = 'admin'\n{module}")).pipes[0].module, Some(0));
    warned(module, 1, "module.admin", "no pipe, action or queue");
}

// A11, F11
#[test]
fn a_guard_that_decides_nothing_or_twice_is_refused() {
    for (guard, key, part) in [
        ("{}", "guard", "decides nothing"),
        ("{ name = 'x', code = 'NO' }", "guard", "decides nothing"),
        ("{ url = 'http://a', require = 'true' }", "guard.url", "write two guards"),
        ("{ url = 'http://a', set = { a = '1' } }", "guard.url", "write two guards"),
        ("{ require = 'has(user.id)', timeout_ms = 5 }", "guard.timeout_ms", "asks the application"),
        ("{ require = 'has(user.id)', secret = '0123456789abcdef' }", "guard.secret", "asks the application"),
        ("{ requires = 'has(user.id)' }", "guard.requires", "nearest is `guard.require`"),
        ("{ require = true }", "guard.require", "an expression in quotes"),
        ("{ set = {} }", "guard.set", "1 to 64"),
        ("{ set = { '1a' = 'user.id' } }", "guard.set.1a", "letters, digits"),
        ("{ set = { a = 1 } }", "guard.set.a", "an expression in quotes"),
        ("{ set = 'a' }", "guard.set", "a table of names"),
        ("{ require = 'has(user.id)', code = 'Forbidden' }", "guard.code", "beginning with a capital"),
        ("{ require = 'has(user.id)', code = '' }", "guard.code", "empty"),
        ("{ require = 'has(user.id)', code = '9A' }", "guard.code", "beginning with a capital"),
        ("{ url = 'ftp://a' }", "guard.url", "`http://host/path`"),
        ("{ url = 'http://u:p@a' }", "guard.url", "logs"),
        ("{ url = 'http://a b' }", "guard.url", "white space"),
        ("{ url = 'nowhere' }", "guard.url", "no address"),
        ("{ url = 'http://a', timeout_ms = 0 }", "guard.timeout_ms", "from 1 to 60000"),
        ("{ url = 'http://a', timeout_ms = 60001 }", "guard.timeout_ms", "from 1 to 60000"),
        ("{ url = 'http://a', cache_s = 0 }", "guard.cache_s", "from 1 to 86400"),
        ("'true'", "guard", "write `{ require"),
    ] {
        let findings = parse(&format!("{SIGNED}guard = [{guard}]\n")).expect_err(guard);
        let found: Vec<_> = findings.iter().map(|finding| (finding.line, finding.key.as_str())).collect();
        // `requires` leaves a guard that decides nothing, which is said as well.
        assert!(found.contains(&(2, key)), "{guard}: {findings:#?}");
        assert!(findings.iter().any(|finding| finding.message.contains(part)), "{guard}: {findings:#?}");
        assert!(found.len() == 1 || key == "guard.requires", "{guard}: {findings:#?}");
    }
    refused("[guard]\nrequire = 'true'\n", 1, "guard", "write `[[guard]]`");
    refused("[pipe.\"a\"]\nguard = { require = 'true' }\n", 2, "pipe.\"a\".guard", "write `guard = [");
    let text = format!("{SIGNED}[[push.guard]]\nurl = 'https://a/b?c=d'\ntimeout_ms = 7\ncache_s = 9\ncode = 'A_1'\n");
    let guard = &clean(&text).rules.push.guards[0];
    let asked = guard.ask.as_ref().expect("a url");
    assert_eq!((&*asked.url, asked.timeout_ms, asked.cache_s, &*guard.code), ("https://a/b?c=d", 7, Some(9), "A_1"));
    assert_eq!(asked.place.to_string(), "configuration:2: push.guard");
}

// A11
#[test]
fn the_application_is_asked_only_where_that_can_be_awaited() {
    let ask = "{ url = 'http://a/b', timeout_ms = 9 }";
    let text = format!(
        "[pipe.\"a\"]\nsubscribe = {ask}\npublish = {ask}\npresence = {ask}\n[action.a]\nallow = {ask}\nurl = 'http://a'\n\
         [queue.q]\npublish = {ask}\nurl = 'http://a'\n"
    );
    let rules = rules(&text);
    let pipe = &rules.pipes[0];
    let rights = [&pipe.subscribe, &pipe.publish, &pipe.presence, &rules.actions[0].allow, &rules.queues[0].publish];
    let mut numbers: Vec<u32> = rights
        .iter()
        .map(|right| match right {
            Right::Ask(endpoint) => endpoint.number,
            other => panic!("{other:?}"),
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 5, "each has a number of its own");
    let Right::Ask(endpoint) = &pipe.subscribe else { unreachable!("looked at above") };
    assert_eq!((endpoint.timeout_ms, endpoint.cache_s, endpoint.secret.is_some()), (9, None, true));

    for right in ["subscribe", "publish"] {
        let text = format!("[pipe.\"a\".event.b]\n{right} = {ask}\n");
        refused(&text, 2, &format!("pipe.\"a\".event.b.{right}"), "about a single event");
    }
    refused(&format!("[push]\nallow = {ask}\n"), 2, "push.allow", "a guard with `url`");
    refused("[pipe.\"a\"]\nsubscribe = { timeout_ms = 9 }\n", 2, "pipe.\"a\".subscribe", "has no url");
    let misspelt = "[pipe.\"a\"]\nsubscribe = { url = 'http://a', timeout = 9 }\n";
    refused(misspelt, 2, "pipe.\"a\".subscribe.timeout", "nearest is `pipe.\"a\".subscribe.timeout_ms`");
}

// INVARIANTS 3
#[test]
fn a_pipe_has_at_most_63_events() {
    let events = |count: usize| (0..count).map(|n| format!("[pipe.\"a\".event.e{n}]\n")).collect::<String>();
    assert_eq!(rules(&events(63)).pipes[0].events.len(), 63);
    refused(&events(64), 64, "pipe.\"a\".event.e63", "at most 63");
    refused("[pipe.\"a\".event.\"a b\"]\n", 1, "pipe.\"a\".event.\"a b\"", "printable ASCII");
    refused("[pipe.\"a\"]\nevent = 'x'\n", 2, "pipe.\"a\".event", "write a table");
}

// D13, F19
#[test]
fn schemas_are_files_of_the_configuration_or_tables() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let load = |schema: &str| {
        let text = format!("[pipe.\"a\".event.b]\nschema = {schema}\n");
        config::parse(&text, dir.path(), &mut std::iter::empty())
    };
    std::fs::create_dir(dir.path().join("schemas")).unwrap();
    write("schemas/a.json", "{\"type\": \"object\", \"required\": [\"x\"]}");
    let (config, _) = load("'schemas/a.json'").expect("a schema");
    let schema = config.rules.pipes[0].events[0].payload.schema.clone().expect("a schema");
    assert!(schema.check("{\"x\":1}").is_ok() && schema.check("{}").is_err());
    let (config, _) = load("{ properties.x = { type = 'integer', maximum = 3 } }").expect("a schema");
    let schema = config.rules.pipes[0].events[0].payload.schema.clone().expect("a schema");
    assert!(schema.check("{\"x\":3}").is_ok() && schema.check("{\"x\":4}").is_err());

    write("broken.json", "{\n\"type\": }");
    write("wrong.json", "{\"type\": \"objekt\"}");
    write("remote.json", "{\"$ref\": \"https://schemas.example/a.json\"}");
    for (schema, part) in [
        ("'absent.json'", "absent.json cannot be read"),
        ("'broken.json'", "broken.json:2: this is not JSON"),
        ("'wrong.json'", "wrong.json: "),
        ("'remote.json'", "remote.json: "),
        ("{ '$ref' = 'https://schemas.example/a.json' }", ""),
        ("{ maximum = inf }", "JSON does not have"),
        ("{ const = 1979-05-27 }", "JSON does not have"),
        ("true", "the name of a JSON file, or a table"),
        ("''", "the name of a JSON file, or a table"),
    ] {
        let findings = load(schema).expect_err(schema);
        assert_eq!(findings.len(), 1, "{schema}: {findings:#?}");
        assert_eq!((findings[0].line, &*findings[0].key), (2, "pipe.\"a\".event.b.schema"));
        assert!(findings[0].message.contains(part), "{}", findings[0]);
    }
    assert!(load("{ maximum = 99999999999999999999 }").is_err());
}

#[test]
fn scope_fields_are_pointers_and_whose_they_are() {
    let event = |fields: &str| format!("[pipe.\"a\".event.b]\nscope_fields = {fields}\n");
    let key = "pipe.\"a\".event.b.scope_fields";
    refused(&event("{ '/a' = 'user' }"), 2, &format!("{key}.\"/a\""), "\"tenant\" or \"org\"");
    refused(&event("{ 'a' = 'org' }"), 2, key, "");
    refused(&event("['/a']"), 2, key, "`{ \"/tenantId\" = \"tenant\" }`");
    assert!(!rules(&event("{ '/a/b' = 'org' }")).pipes[0].events[0].payload.is_open());
}

#[test]
fn an_action_or_queue_without_an_address_is_refused() {
    refused("[action.a]\nallow = false\n", 1, "action.a", "has no url");
    refused("[queue.q]\n", 1, "queue.q", "has no url");
    refused("[action.a]\nurl = 'file:///etc/passwd'\n", 2, "action.a.url", "`http://host/path`");
    refused("[action.a]\nurl = 7\n", 2, "action.a.url", "an integer");
    refused("[action.\"a b\"]\nurl = 'http://a'\n", 1, "action.\"a b\"", "printable ASCII");
    refused("[queue.q]\nurl = 'http://a'\nmax_pending = 0\n", 3, "queue.q.max_pending", "from 1");
    refused("[queue.q]\nurl = 'http://a'\nmax_pending_bytes = 0\n", 3, "queue.q.max_pending_bytes", "from 1");
    refused("[queue.q]\nurl = 'http://a'\nmax_age_s = 0\n", 3, "queue.q.max_age_s", "from 1");
    refused("[queue.q]\nurl = 'http://a'\nallow = true\n", 3, "queue.q.allow", "no such key");
    refused("[action.a]\nurl = 'http://a'\nmax_bytes = 0\n", 3, "action.a.max_bytes", "from 1");
    let rules = rules(
        "[action.z]\nurl = 'http://a'\nsecret = 'fedcba9876543210'\n[action.a]\nurl = 'http://a'\n\
         [queue.q]\nurl = 'http://a'\nmax_pending = 1\nmax_pending_bytes = 2\nmax_age_s = 3\ntimeout_ms = 4\n",
    );
    assert!(rules.action("a").is_some() && rules.action("z").is_some() && rules.action("b").is_none());
    // A12: its own secret wins.
    let secret = rules.action("z").and_then(|action| action.endpoint.secret.clone());
    assert_eq!(secret.as_deref(), Some(&b"fedcba9876543210"[..]));
    let queue = rules.queue("q").expect("it is defined");
    assert_eq!((queue.max_pending, queue.max_pending_bytes, queue.max_age_s, queue.endpoint.timeout_ms), (1, 2, 3, 4));
}

#[test]
fn a_webhook_needs_an_address_and_never_gets_our_tokens() {
    refused("[auth.webhook]\ntimeout_ms = 5\n", 1, "auth.webhook", "has no url");
    refused("[auth.webhook]\nurl = 'gopher://a'\n", 2, "auth.webhook.url", "`http://host/path`");
    let hook = |line: &str| format!("[auth.webhook]\nurl = 'http://a'\nsecret = '0123456789abcdef'\n{line}\n");
    let headers = "auth.webhook.forward_headers";
    // INVARIANTS 28
    refused(&hook("forward_headers = ['Sec-WebSocket-Protocol']"), 4, headers, "never forwarded");
    refused(&hook("forward_headers = ['a', 'A']"), 4, headers, "given twice");
    refused(&hook("forward_headers = ['a b']"), 4, headers, "no name of a header");
    refused(&hook("forward_headers = 7"), 4, headers, "an integer");
    refused(&hook("concurrency = 0"), 4, "auth.webhook.concurrency", "from 1 to 4096");
    refused(&hook("timeout_ms = 60001"), 4, "auth.webhook.timeout_ms", "from 1 to 60000");
    refused(&hook("secret_file = 'x'"), 1, "auth.webhook", "keep one of them");
    let webhook = clean(&hook("forward_headers = ['X-Session']")).auth.webhook.expect("a webhook");
    assert_eq!(webhook.forward_headers, ["x-session".into()]);
    assert!(clean(&hook("forward_headers = []")).auth.webhook.expect("a webhook").forward_headers.is_empty());

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "fedcba9876543210\n").unwrap();
    let load = |file: &str| {
        let text = format!("[auth.webhook]\nurl = 'http://a'\nsecret_file = '{file}'\n[action.a]\nurl = 'http://b'\n");
        config::parse(&text, dir.path(), &mut std::iter::empty())
    };
    let (config, warnings) = load("secret").expect("a secret");
    assert_eq!(warnings, []);
    assert_eq!(config.rules.actions[0].endpoint.secret.as_deref(), Some(&b"fedcba9876543210"[..]));
    assert!(!format!("{config:?}").contains("fedcba"), "a configuration may end in a log");
    let findings = load("absent").unwrap_err();
    assert_eq!((findings[0].line, &*findings[0].key), (3, "auth.webhook.secret_file"));

    let (config, _) = parse_with(
        "[action.a]\nurl = 'http://b'\n",
        &[("PIPEWARD_AUTH__WEBHOOK__URL", "http://env"), ("PIPEWARD_AUTH__WEBHOOK__SECRET", "1234567890123456")],
    )
    .expect("a webhook of the environment");
    assert_eq!(&*config.auth.webhook.expect("a webhook").endpoint.url, "http://env");
    assert_eq!(config.rules.actions[0].endpoint.secret.as_deref(), Some(&b"1234567890123456"[..]));
}

// INVARIANTS 29
#[test]
fn every_page_with_the_cookies_of_its_visitors_is_refused() {
    let text = |rest: &str| format!("{SIGNED}[edge]\norigins = '*'\n{rest}");
    refused(&text(""), 3, "edge.origins", "edge.origins_any_with_cookies = true");
    warned(&text("origins_any_with_cookies = true\n"), 3, "edge.origins", "every web page");
    warned(&text("").replace("secret =", "forward_headers = [], secret ="), 3, "edge.origins", "every web page");
}

// A12
#[test]
fn calls_without_a_signature_are_warned_about() {
    warned("[auth.webhook]\nurl = 'http://a'\n", 1, "auth.webhook", "not signed");
    warned("[action.a]\nurl = 'http://a'\n[queue.q]\nurl = 'http://a'\n", 1, "action.a", "nor at one other place");
    warned("[auth.webhook]\nurl = 'http://a'\nsecret = 'short'\n", 3, "auth.webhook.secret", "at least 16");
    warned(&format!("{SIGNED}[action.a]\nurl = 'http://a'\nsecret = 'short'\n"), 4, "action.a.secret", "at least 16");
    clean("[action.a]\nurl = 'http://a'\nsecret = '0123456789abcdef'\n");
    warned(
        &format!("{SIGNED}[auth]\nanonymous = true\n").replace("[auth]\n", "auth."),
        2,
        "auth.anonymous",
        "no effect",
    );
}

// SR-11, G9
#[test]
fn what_everybody_may_do_without_a_rule_is_warned_about() {
    let url = "url = 'http://a'\n";
    for (table, right, rest) in [
        ("[pipe.\"a\"]", "subscribe", ""),
        ("[pipe.\"a\"]", "publish", ""),
        ("[pipe.\"a\"]", "presence", ""),
        ("[action.a]", "allow", url),
        ("[queue.q]", "publish", url),
        ("[push]", "allow", ""),
    ] {
        let key = format!("{}.{right}", table.trim_matches(['[', ']']));
        let text = |value: &str, more: &str| format!("{SIGNED}{table}\n{right} = {value}\n{rest}{more}");
        warned(&text("true", ""), 3, &key, "open to every");
        warned(&text("'1 == 1'", ""), 3, &key, "always true and so open to every");
        warned(&text("'false'", ""), 3, &key, "always false");
        clean(&text("true", "public = true\n"));
        clean(&text("true", "guard = [{ require = 'user.role == \"admin\"' }]\n"));
        clean(&text("true", "guard = [{ url = 'http://a' }]\n"));
        clean(&text("'has(user.id)'", ""));
        clean(&text("false", ""));
        // One that refuses nobody stands before nothing; one for the whole file does not say who may do this.
        warned(&text("true", "guard = [{ set = { a = 'user.id' } }]\n"), 3, &key, "open to every");
        let global = "guard = [{ require = 'has(user.id)' }]\n";
        warned(&format!("{global}{}", text("true", "")), 4, &key, "open to every");
        if table != "[push]" {
            let module = |inner: &str| text("true", "module = 'm'\n") + "[module.m]\n" + inner;
            clean(&module("public = true\n"));
            clean(&module("guard = [{ require = 'user.role == \"admin\"' }]\n"));
            warned(&module(""), 3, &key, "open to every");
        }
    }
    let event = |pipe: &str, right: &str| {
        format!("[pipe.\"{pipe}\"]\nsubscribe = 'has(user.id)'\n[pipe.\"{pipe}\".event.b]\nsubscribe = {right}\n")
    };
    for right in ["true", "'1 == 1'"] {
        warned(&event("a", right), 4, "pipe.\"a\".event.b.subscribe", "subscribed to the pipe");
    }
    rules(&event("a", "true").replacen("subscribe", "public = true\nsubscribe", 1));
    rules(&event("a", "true").replacen("subscribe", "guard = [{ require = 'has(user.id)' }]\nsubscribe", 1));
    // F2: nobody else can ask for that name.
    rules(&event("x-{user.id}", "true"));
    warned("[pipe.\"a\"]\n[pipe.\"a\".event.b]\npublish = true\n", 3, "pipe.\"a\".event.b.publish", "open to every");
    let scoped = "[pipe.\"{t}:a\"]\nscope = { tenant = 't' }\nsubscribe = true\n";
    warned(scoped, 3, "pipe.\"{t}:a\".subscribe", "open to every connection of the tenant");
    warned("[[guard]]\nrequire = 'true'\n", 2, "guard.require", "stops nobody");
    warned("[[guard]]\nrequire = '1 == 2'\n", 2, "guard.require", "stops everybody");
    warned("[pipe.\"a\".event.b]\nfilter = 'true'\n", 2, "pipe.\"a\".event.b.filter", "always true");
    warned("[pipe.\"a\".event.b]\nfilter = 'false'\n", 2, "pipe.\"a\".event.b.filter", "always false");
}

// F20
#[test]
fn a_definition_behind_one_that_matches_all_of_its_names_is_warned_about() {
    warned(
        "[pipe.\"{t}:{o}\"]\n[pipe.\"acme:{o}\"]\n",
        2,
        "pipe.\"acme:{o}\"",
        "decided by pipe.\"{t}:{o}\" in line 1",
    );
    warned("[pipe.\"{t}:**\"]\n[pipe.\"b\"]\n[pipe.\"a:b:c\"]\n", 3, "pipe.\"a:b:c\"", "in line 1");
    clean("[pipe.\"acme:{o}\"]\n[pipe.\"{t}:{o}\"]\n[pipe.\"{t}:**\"]\n");
}

#[test]
fn names_are_shown_as_they_are_written() {
    refused("[action.a]\nurl = 'http://a'\nalow = true\n", 3, "action.a.alow", "nearest is `action.a.allow`");
    refused("[pipe.\"a\".event.b]\nscheme = {}\n", 2, "pipe.\"a\".event.b.scheme", "`pipe.\"a\".event.b.schema`");
    refused("[module.m]\nguards = []\n[pipe.\"a\"]\nmodule = 'm'\n", 2, "module.m.guards", "`module.m.guard`");
    refused("[pus]\nallow = true\n", 1, "pus", "nearest is `push`");
    refused("[push]\nallowed = true\n", 2, "push.allowed", "nearest is `push.allow`");
}
