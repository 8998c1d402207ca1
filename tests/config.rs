//! Configuration: what is accepted, what is refused and how that is said. Requirement ids stand at the tests.

use std::net::SocketAddr;
use std::path::Path;

use pipeward::config::{self, ApiRight, AuditPath, Config, Finding, KeySource, Rate, Severity, WhenSlow};
use pipeward::protocol::peer::Origins;
use pipeward::rules::definition::Right;
use proptest::prelude::*;

#[path = "config/rules.rs"]
mod rules;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

type Loaded = Result<(Config, Vec<Finding>), Vec<Finding>>;

fn parse_with(text: &str, environment: &[(&str, &str)]) -> Loaded {
    let mut variables = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::parse(text, Path::new(""), &mut variables)
}

fn parse(text: &str) -> Loaded {
    parse_with(text, &[])
}

/// The configuration of a text that is in order, without warnings.
fn clean(text: &str) -> Config {
    let (config, warnings) = parse(text).unwrap_or_else(|findings| panic!("{text}\n{findings:#?}"));
    assert_eq!(warnings, [], "{text}");
    config
}

/// `line key` of every error, and all messages.
fn errors(text: &str) -> (Vec<(u32, String)>, String) {
    let findings = parse(text).expect_err(text);
    let places =
        findings.iter().filter(|finding| finding.is_error()).map(|finding| (finding.line, finding.key.clone()));
    (places.collect(), findings.iter().map(|finding| format!("{finding}\n")).collect())
}

/// Asserts that `text` has exactly one error, at `line` and `key`, whose message holds `part`.
#[track_caller]
fn refused(text: &str, line: u32, key: &str, part: &str) {
    let (places, messages) = errors(text);
    assert_eq!(places, [(line, key.to_owned())], "{text}\n{messages}");
    assert!(messages.contains(part), "{messages}");
}

#[track_caller]
fn warned(text: &str, line: u32, key: &str, part: &str) {
    let (_, warnings) = parse(text).unwrap_or_else(|findings| panic!("{text}\n{findings:#?}"));
    let places: Vec<_> = warnings.iter().map(|warning| (warning.line, warning.key.as_str())).collect();
    assert_eq!(places, [(line, key)], "{text}\n{warnings:#?}");
    assert_eq!(warnings[0].severity, Severity::Warning);
    assert!(warnings[0].message.contains(part), "{}", warnings[0]);
}

#[test]
fn an_empty_file_holds_the_defaults_of_the_protocol() {
    let config = clean("");
    assert_eq!(config.edge.listen, ["127.0.0.1:8080".parse::<SocketAddr>().unwrap()]);
    assert!(config.edge.workers >= 1);
    assert_eq!(config.edge.origins, Origins::SameHost);
    assert_eq!((config.edge.ping_s, config.edge.drain_s, config.edge.handshake_s), (25, 30, 10));
    assert!(!config.auth.anonymous && config.auth.token.is_none());
    let rules = &config.rules;
    assert!(rules.pipes.is_empty() && rules.guards.is_empty() && rules.actions.is_empty() && rules.queues.is_empty());
    // SR-13
    assert!(matches!(rules.push.allow, Right::Never));
    assert!(config.auth.webhook.is_none());
    let limits = &config.limits;
    assert_eq!((limits.connections, limits.connections_per_ip, limits.handshakes_per_s), (100_000, 0, 0));
    assert_eq!((limits.message_bytes, limits.subscriptions, limits.queue_bytes), (65_536, 256, 1_048_576));
    assert_eq!((limits.when_slow, limits.throttle_s), (WhenSlow::Close, 10));
    // C2, C32
    assert_eq!(limits.rates.message, Some(Rate { per_s: 100.0, burst: 200.0 }));
    assert_eq!(limits.rates.refresh, Some(Rate { per_s: 1.0, burst: 5.0 }));
    for rate in [limits.rates.publish, limits.rates.subscribe, limits.rates.presence, limits.rates.push] {
        assert_eq!(rate, Some(Rate { per_s: 50.0, burst: 100.0 }));
    }
    assert_eq!((limits.per_user.publish, limits.per_tenant.publish), (None, None));
}

#[test]
fn every_key_reaches_its_place() {
    let config = clean(&format!(
        r#"
[edge]
listen = ["127.0.0.1:1", "[::1]:2"]
workers = 3
origins = "https://app.example"
trusted_proxies = ["10.0.0.0/8", "192.168.1.1"]
ping_s = 1
drain_s = 0
handshake_s = 4
[auth]
anonymous = true
[auth.token]
hmac_secret = "{SECRET}"
issuer = "i"
audience = "a"
leeway_s = 5
require_exp = true
[limits]
connections = 1
connections_per_ip = 2
connections_per_user = 3
connections_per_tenant = 4
handshakes_per_s = 5
message_bytes = 1000
subscriptions = 7
queue_bytes = 8000
when_slow = "drop_oldest"
throttle_s = 0
publish = {{ per_s = 1.5, burst = 2 }}
message = {{ per_s = 0 }}
bytes = {{ per_s = 10, burst = 1000 }}
[limits.per_user]
publish = {{ per_s = 200, burst = 400 }}
subscribe = {{ per_s = 7 }}
[pipe."a-{{x}}"]
subscribe = true
publish = true
presence = true
public = true
"#
    ));
    assert_eq!(config.edge.listen, ["127.0.0.1:1", "[::1]:2"].map(|text| text.parse::<SocketAddr>().unwrap()));
    assert_eq!(config.edge.workers, 3);
    assert!(matches!(&config.edge.origins, Origins::Listed(origins) if origins.len() == 1));
    assert!(config.edge.trusted_proxies.contains("10.9.9.9".parse().unwrap()));
    assert!(!config.edge.trusted_proxies.contains("11.9.9.9".parse().unwrap()));
    assert_eq!((config.edge.ping_s, config.edge.drain_s, config.edge.handshake_s), (1, 0, 4));
    assert!(config.auth.anonymous);
    let token = config.auth.token.unwrap();
    assert_eq!(token.key, KeySource::HmacSecret(SECRET.as_bytes().to_vec()));
    assert_eq!((token.issuer.as_deref(), token.audience.as_deref()), (Some("i"), Some("a")));
    assert_eq!((token.leeway_s, token.require_exp), (5, true));
    let limits = &config.limits;
    assert_eq!([limits.connections, limits.connections_per_ip, limits.connections_per_user], [1, 2, 3]);
    assert_eq!([limits.connections_per_tenant, limits.handshakes_per_s], [4, 5]);
    assert_eq!([limits.message_bytes, limits.subscriptions, limits.queue_bytes], [1000, 7, 8000]);
    assert_eq!((limits.when_slow, limits.throttle_s), (WhenSlow::DropOldest, 0));
    assert_eq!(limits.rates.publish, Some(Rate { per_s: 1.5, burst: 2.0 }));
    assert_eq!(limits.rates.message, None);
    assert_eq!(limits.per_user.publish, Some(Rate { per_s: 200.0, burst: 400.0 }));
    assert_eq!(limits.per_user.subscribe, Some(Rate { per_s: 7.0, burst: 7.0 }));
    let pipe = &config.rules.pipes[0];
    assert_eq!((pipe.name.text(), pipe.place.line), ("a-{x}", 35));
    assert!([&pipe.subscribe, &pipe.publish, &pipe.presence].iter().all(|right| matches!(right, Right::Always)));
    assert!(pipe.public);
}

#[test]
fn each_rate_has_a_place_of_its_own() {
    let names = ["message", "publish", "subscribe", "presence", "refresh", "action", "enqueue", "push", "bytes"];
    for section in ["limits", "limits.per_user", "limits.per_tenant"] {
        let rows: String =
            names.iter().zip(1..).map(|(name, n)| format!("{name} = {{ per_s = {n}, burst = {n}00000 }}\n")).collect();
        let config = clean(&format!("[{section}]\n{rows}"));
        let rates = match section {
            "limits" => &config.limits.rates,
            "limits.per_user" => &config.limits.per_user,
            _ => &config.limits.per_tenant,
        };
        let in_order = [
            rates.message,
            rates.publish,
            rates.subscribe,
            rates.presence,
            rates.refresh,
            rates.action,
            rates.enqueue,
            rates.push,
            rates.bytes,
        ];
        let per_s: Vec<f64> = in_order.iter().flatten().map(|rate| rate.per_s).collect();
        assert_eq!(per_s, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], "{section}");
    }
}

#[test]
fn all_errors_are_reported_at_once_with_line_and_key() {
    let text =
        "[edge]\nworkers = 0\nlisten = 'x'\nping_s = 'a'\nboo = 1\n[limits]\nwhen_slow = 'drop'\n[pipe.\"{a}-{b}\"]\n";
    let (places, messages) = errors(text);
    let keys = ["edge.workers", "edge.listen", "edge.ping_s", "edge.boo", "limits.when_slow", "pipe.\"{a}-{b}\""];
    let expected: Vec<_> = [2, 3, 4, 5, 7, 8].into_iter().zip(keys.map(str::to_owned)).collect();
    assert_eq!(places, expected, "{messages}");
    assert!(messages.starts_with("configuration:2: edge.workers: 0 is out of range; write an integer from 1 to 63"));
}

#[test]
fn syntax_errors_do_not_hide_other_mistakes() {
    let (places, messages) = errors("[edge]\nworkers = = 3\nlisten = 'x\nping_s = 0\n[limits]\nconnections\n");
    let keys: Vec<_> = places.iter().map(|(line, key)| (*line, key.as_str())).collect();
    assert_eq!(
        keys,
        [(2, "edge.workers"), (3, "edge.listen"), (4, "edge.ping_s"), (6, "limits.connections")],
        "{messages}"
    );
}

#[test]
fn repeated_keys_and_tables_are_refused() {
    refused("[edge]\nping_s = 3\nping_s = 4\n", 3, "edge.ping_s", "given twice");
    refused("[edge]\nping_s = 3\n[limits]\n[edge]\ndrain_s = 4\n", 4, "edge", "given twice");
    refused("[pipe.\"a\"]\n[pipe.\"a\"]\n", 2, "pipe.\"a\"", "given twice");
    refused("limits.publish = { per_s = 1, per_s = 2 }\n", 1, "limits.publish", "given twice");
}

#[test]
fn an_unknown_key_names_the_nearest() {
    refused("[edge]\nlisten_on = 'x'\n", 2, "edge.listen_on", "nearest is `edge.listen`");
    refused("[limit]\n", 1, "limit", "nearest is `limits`");
    refused("[pipe.\"a\"]\nsubscrib = true\n", 2, "pipe.\"a\".subscrib", "nearest is `pipe.\"a\".subscribe`");
    refused("[limits]\npublish = { per_s = 1, burts = 2 }\n", 2, "limits.publish", "nearest is `burst`");
    refused("[control]\nlisten_on = 'x'\n", 2, "control.listen_on", "nearest is `control.listen`");
    refused("'edge.listen' = '127.0.0.1:1'\n", 1, "\"edge.listen\"", "no such key");
    refused("['auth.token']\nhmac_secret = 'x'\n", 1, "\"auth.token\"", "no such key");
}

#[test]
fn wrong_types_and_ranges_say_what_to_write() {
    refused("edge = 3\n", 1, "edge", "[edge]");
    refused("[[edge]]\n", 1, "edge", "an array was found");
    refused("pipe.x = true\n", 1, "pipe.\"x\"", "write a table");
    refused("[edge]\nworkers = 64\n", 2, "edge.workers", "from 1 to 63");
    refused("[edge]\nworkers = 99999999999999999999999\n", 2, "edge.workers", "out of range");
    refused("[edge]\nworkers = -1\n", 2, "edge.workers", "out of range");
    refused("[edge]\nworkers = 2.0\n", 2, "edge.workers", "a number with a fraction");
    refused("[edge]\nhandshake_s = 0\n", 2, "edge.handshake_s", "from 1 to 300");
    refused("[auth]\nanonymous = 'yes'\n", 2, "auth.anonymous", "`true` or `false`");
    refused("[limits]\nconnections = 4294967296\n", 2, "limits.connections", "4294967295");
    refused("[limits]\npublish = 5\n", 2, "limits.publish", "per_s");
    refused("[limits]\npublish = { burst = 5 }\n", 2, "limits.publish", "lacks `per_s`");
    refused("[limits]\npublish = { per_s = -1, burst = 5 }\n", 2, "limits.publish", "from 0");
    refused("[limits]\npublish = { per_s = nan, burst = 5 }\n", 2, "limits.publish", "from 0");
    refused("[limits]\npublish = { per_s = inf, burst = 5 }\n", 2, "limits.publish", "from 0");
    refused("[limits]\npublish = { per_s = 1, burst = 0.5 }\n", 2, "limits.publish", "below 1");
    refused("[edge]\nping_s = 2020-01-01\n", 2, "edge.ping_s", "a date");
    refused("[auth.token]\nhmac_secret = 5\n", 2, "auth.token.hmac_secret", "a string");
}

#[test]
fn addresses_origins_and_networks() {
    refused("[edge]\nlisten = []\n", 2, "edge.listen", "at least one");
    refused("[edge]\nlisten = ':80'\n", 2, "edge.listen", "\"0.0.0.0:80\"");
    refused("[edge]\nlisten = '127.0.0.1'\n", 2, "edge.listen", "\"127.0.0.1:8080\"");
    refused("[edge]\nlisten = ['1.1.1.1:1',\n'1.1.1.1:1']\n", 3, "edge.listen", "given twice");
    refused("[edge]\nlisten = ['1.1.1.1:1', 5]\n", 2, "edge.listen", "an integer was found");
    refused("[edge]\norigins = ['*', 'https://a.example']\n", 2, "edge.origins", "write `*` alone");
    refused("[edge]\norigins = ['app.example']\n", 2, "edge.origins", "https://app.example");
    refused("[edge]\ntrusted_proxies = '10.0.0.0/33'\n", 2, "edge.trusted_proxies", "at most 32");
    assert_eq!(clean("[edge]\norigins = []\n").edge.origins, Origins::Listed(Vec::new()));
    assert_eq!(clean("[edge]\nlisten = '0.0.0.0:0'\n").edge.listen.len(), 1);
}

// PROTOCOL §6: 0 is "no limit" in all counts of [limits]. The three that bound memory become the most supported.
#[test]
fn zero_is_no_limit() {
    let limits = clean("[limits]\nconnections = 0\nsubscriptions = 0\nqueue_bytes = 0\n").limits;
    assert_eq!(limits.connections, 0);
    assert!(limits.subscriptions >= 1_000_000);
    assert_eq!(limits.queue_bytes, 1 << 30);
    let limits = clean("[limits]\nmessage_bytes = 0\nbytes = { per_s = 0 }\nqueue_bytes = 0\n").limits;
    assert_eq!(limits.message_bytes, 64 << 20);
}

// A8
#[test]
fn a_burst_of_bytes_below_message_bytes_is_refused() {
    let key = "limits.bytes";
    refused("[limits]\nbytes = { per_s = 9, burst = 65535 }\n", 2, key, "at least 65536");
    refused("[limits]\nmessage_bytes = 4194305\nqueue_bytes = 0\n", 2, key, "at least 4194305");
    refused("[limits.per_user]\nbytes = { per_s = 9, burst = 9 }\n", 2, "limits.per_user.bytes", "at least 65536");
    refused("[limits.per_tenant]\nbytes = { per_s = 9, burst = 9 }\n", 2, "limits.per_tenant.bytes", "at least 65536");
    clean("[limits]\nbytes = { per_s = 9, burst = 65536 }\n");
    clean("[limits]\nmessage_bytes = 4194304\nqueue_bytes = 0\n");
    clean("[limits]\nmessage_bytes = 4194305\nqueue_bytes = 0\nbytes = { per_s = 0, burst = 9 }\n");
}

// B10
#[test]
fn a_token_has_exactly_one_key() {
    refused("[auth.token]\nissuer = 'a'\n", 1, "auth.token", "write hmac_secret, public_key_file or jwks_url");
    let both = format!("[auth.token]\nhmac_secret = '{SECRET}'\npublic_key_file = 'k.pem'\n");
    refused(&both, 1, "auth.token", "exactly one");
    refused("[auth.token]\njwks_url = 'http://a'\n", 2, "auth.token.jwks_url", "write `https://…`");
    refused("[auth.token]\npublic_key_file = 'absent.pem'\n", 2, "auth.token.public_key_file", "absent.pem");
    let secret = |length: usize| format!("[auth.token]\nhmac_secret = '{}'\n", "s".repeat(length));
    refused(&secret(15), 2, "auth.token.hmac_secret", "at least 16 bytes");
    warned(&secret(16), 2, "auth.token.hmac_secret", "at least 32");
    warned(&secret(31), 2, "auth.token.hmac_secret", "at least 32");
    clean(&secret(32));
}

// D13
#[test]
fn files_are_relative_to_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipeward.toml");
    std::fs::write(&file, "[auth.token]\npublic_key_file = 'keys/ed.pem'\n").unwrap();
    std::fs::create_dir(dir.path().join("keys")).unwrap();
    // An Ed25519 public key (RFC 8410 §10.1).
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    std::fs::write(dir.path().join("keys/ed.pem"), pem).unwrap();
    let (config, warnings) = config::load(&file, &mut std::iter::empty()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.auth.token.unwrap().key, KeySource::PublicKeyPem(pem.as_bytes().to_vec()));

    std::fs::write(dir.path().join("keys/ed.pem"), "no key").unwrap();
    let findings = config::load(&file, &mut std::iter::empty()).unwrap_err();
    assert_eq!((findings[0].line, findings[0].key.as_str()), (2, "auth.token.public_key_file"));
    assert_eq!(findings[0].file, file.display().to_string());
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipeward.toml");
    let findings = config::load(&file, &mut std::iter::empty()).unwrap_err();
    assert!(findings[0].to_string().starts_with(&format!("{}: the file cannot be read", file.display())));
    std::fs::write(&file, b"[edge]\nlisten = '\xff'\n").unwrap();
    let findings = config::load(&file, &mut std::iter::empty()).unwrap_err();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].line, 2);
    assert!(findings[0].message.contains("UTF-8"));
}

// F20
#[test]
fn definitions_keep_the_order_of_the_file() {
    let names = ["zoo-{x}", "a:*", "mid", "b-{user.id}", "**"];
    let text: String = names.iter().map(|name| format!("[pipe.\"{name}\"]\n")).collect();
    let config = clean(&text);
    let read: Vec<_> = config.rules.pipes.iter().map(|pipe| (pipe.name.text(), pipe.place.line)).collect();
    assert_eq!(read, [(names[0], 1), (names[1], 2), (names[2], 3), (names[3], 4), (names[4], 5)]);
}

// F1
#[test]
fn two_captures_in_one_segment_are_refused() {
    refused("[pipe.\"{a}-{b}\"]\n", 1, "pipe.\"{a}-{b}\"", "{a}-{b}");
    refused("[pipe.\"a b\"]\n", 1, "pipe.\"a b\"", "printable");
    clean("[pipe.\"{a}:{b}\"]\n");
}

// E2, G10, D13
#[test]
fn the_keys_of_the_server_api_are_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "fedcba9876543210fedcba9876543210\n").unwrap();
    let text = "[control]\nlisten = '127.0.0.1:9'\n[[control.key]]\nname = 'app'\nsecret = '0123456789abcdef'\nallow = ['*']\n\
                [[control.key]]\nname = 'b'\nsecret_file = 'secret'\nallow = ['publish', 'revoke_all']\n";
    let (config, warnings) = config::parse(text, dir.path(), &mut std::iter::empty()).expect(text);
    assert!(warnings.is_empty(), "{warnings:#?}");
    assert_eq!(config.control.listen, "127.0.0.1:9".parse().unwrap());
    let [app, b] = config.control.keys.as_slice() else { panic!("two keys") };
    assert_eq!((app.name.as_str(), app.secret.as_slice()), ("app", &b"0123456789abcdef"[..]));
    assert!(ApiRight::ALL.iter().all(|right| app.allow.has(*right)));
    // Without the line end that editors put there.
    assert_eq!(b.secret, b"fedcba9876543210fedcba9876543210");
    let allowed: Vec<_> = ApiRight::ALL.iter().filter(|right| b.allow.has(**right)).collect();
    assert_eq!(allowed, [&ApiRight::Publish, &ApiRight::RevokeAll]);
    // A configuration may end in a log.
    assert!(!format!("{config:?}").contains("fedcba"));
    assert!(clean("").control.keys.is_empty());
}

// E2, G10
#[test]
fn a_key_of_the_server_api_must_be_whole_and_of_its_own() {
    let key = |fields: &str| format!("[[control.key]]\n{fields}\n");
    let named = "name = 'a'\nallow = ['*']\nsecret = '0123456789abcdef'";
    for (fields, line, name, part) in [
        ("allow = ['*']\nsecret = '0123456789abcdef'", 1, "control.key.name", "missing"),
        ("name = 'a b'\nallow = ['*']\nsecret = '0123456789abcdef'", 2, "control.key.name", "letters, digits"),
        ("name = 'a'\nsecret = '0123456789abcdef'", 1, "control.key.allow", "[\"*\"]"),
        ("name = 'a'\nallow = 'publish'\nsecret = '0123456789abcdef'", 3, "control.key.allow", "array"),
        ("name = 'a'\nallow = ['publsh']\nsecret = '0123456789abcdef'", 3, "control.key.allow", "nearest is `publish`"),
        ("name = 'a'\nallow = ['openapi']\nsecret = '0123456789abcdef'", 3, "control.key.allow", "no call"),
        ("name = 'a'\nallow = ['*']", 1, "control.key", "no secret"),
        ("name = 'a'\nallow = ['*']\nsecret = '0123456789abcde'", 4, "control.key.secret", "16 to 1024"),
        ("name = 'a'\nallow = ['*']\nsecret = '0123456789 abcdef'", 4, "control.key.secret", "white space"),
        ("name = 'a'\nallow = ['*']\nsecret = 7", 4, "control.key.secret", "string"),
        ("name = 'a'\nallow = ['*']\nsecret_file = 'absent'", 4, "control.key.secret_file", "absent"),
        ("name = 'a'\nallow = ['*']\nsecret = 'x'\nsecret_file = 'y'", 1, "control.key", "exactly one"),
        (&format!("{named}\nalow = ['*']"), 5, "control.key.alow", "nearest is `control.key.allow`"),
    ] {
        refused(&key(fields), line, name, part);
    }
    let other = "name = 'b'\nallow = []\nsecret = '0123456789abcdefg'";
    refused(&(key(named) + &key(&other.replace("'b'", "'a'"))), 5, "control.key.name", "given twice");
    refused(&(key(named) + &key(&other.replace("fg'", "f'"))), 5, "control.key.secret", "the secret of `a`");
    refused("[control]\nkey = 'x'\n", 2, "control.key", "write `[[control.key]]`");
    refused("[control]\nlisten = ['127.0.0.1:1']\n", 2, "control.listen", "an array was found");
    refused("[control]\nlisten = 'localhost:1'\n", 2, "control.listen", "127.0.0.1:1");
    refused("[edge]\nlisten = 'localhost:8080'\n", 2, "edge.listen", "names are not looked up");
    // One port for two listeners.
    let both = |edge: &str, control: &str| format!("[edge]\nlisten = {edge}\n[control]\nlisten = '{control}'\n");
    for (edge, control) in [
        ("'127.0.0.1:9'", "127.0.0.1:9"),
        ("['[::1]:9', '127.0.0.1:9']", "127.0.0.1:9"),
        ("'0.0.0.0:9'", "127.0.0.1:9"),
        ("'[::1]:9'", "[::]:9"),
    ] {
        refused(&both(edge, control), 4, "control.listen", "taken by edge.listen");
    }
    refused("[edge]\nlisten = '127.0.0.1:8081'\n", 2, "control.listen", "taken by edge.listen");
    refused("[control]\nlisten = '127.0.0.1:8080'\n", 2, "control.listen", "taken by edge.listen");
    for (edge, control) in
        [("'127.0.0.1:0'", "127.0.0.1:0"), ("'127.0.0.1:9'", "127.0.0.2:9"), ("'[::1]:9'", "0.0.0.0:9")]
    {
        clean(&both(edge, control));
    }
    assert!(clean(&(key(named) + &key(other))).control.keys.len() == 2);
}

// D13
#[test]
fn the_files_of_store_and_audit_are_relative_to_the_configuration() {
    let read = |text: &str| config::parse(text, Path::new("/etc/pipeward"), &mut std::iter::empty()).expect(text).0;
    let config = read("");
    assert_eq!(config.store.path, Path::new("/etc/pipeward/pipeward.redb"));
    assert_eq!(config.audit.path, AuditPath::Stdout);
    let config = read("[store]\npath = 'a/b.redb'\n[audit]\npath = 'audit.log'\n");
    assert_eq!(config.store.path, Path::new("/etc/pipeward/a/b.redb"));
    assert_eq!(config.audit.path, AuditPath::File("/etc/pipeward/audit.log".into()));
    let config = read("[store]\npath = '/var/b.redb'\n[audit]\npath = '-'\n");
    assert_eq!(config.store.path, Path::new("/var/b.redb"));
    assert_eq!(config.audit.path, AuditPath::Stdout);
    assert_eq!(read("[audit]\npath = './-'\n").audit.path, AuditPath::File("/etc/pipeward/./-".into()));
    for (store, audit) in [("x", "x"), ("pipeward.redb", "./pipeward.redb"), ("x", "a/../x"), ("./a//x", "a/./x")] {
        let text = format!("[store]\npath = '{store}'\n[audit]\npath = '{audit}'\n");
        refused(&text, 4, "audit.path", "the file of the store");
    }
    refused("[audit]\npath = './pipeward.redb'\n", 2, "audit.path", "the file of the store");
    clean("[store]\npath = 'x'\n[audit]\npath = '../x'\n");
    refused("[audit]\npath = 7\n", 2, "audit.path", "string");
    refused("[store]\npath = ''\n", 2, "store.path", "empty");
}

// G6
#[test]
fn the_environment_wins_over_the_file() {
    let text = "[edge]\nping_s = 3\n[limits]\npublish = { per_s = 1, burst = 2 }\n";
    let (config, warnings) = parse_with(
        text,
        &[
            ("PIPEWARD_EDGE__PING_S", "7"),
            ("PIPEWARD_EDGE__LISTEN", "127.0.0.1:99"),
            ("PIPEWARD_EDGE__TRUSTED_PROXIES", "[\"10.0.0.0/8\", \"127.0.0.1\"]"),
            ("PIPEWARD_LIMITS__PUBLISH__PER_S", "50"),
            ("PIPEWARD_LIMITS__PER_USER__PUBLISH", "{ per_s = 4, burst = 5 }"),
            ("PIPEWARD_LIMITS__WHEN_SLOW", "drop_oldest"),
            ("PIPEWARD_AUTH__TOKEN__HMAC_SECRET", SECRET),
            ("PIPEWARD_AUTH__TOKEN__AUDIENCE", "12"),
            ("PIPEWARD_URL", "ignored: no section"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.edge.ping_s, 7);
    assert_eq!(config.edge.listen[0].port(), 99);
    assert!(config.edge.trusted_proxies.contains("127.0.0.1".parse().unwrap()));
    assert_eq!(config.limits.rates.publish, Some(Rate { per_s: 50.0, burst: 2.0 }));
    assert_eq!(config.limits.per_user.publish, Some(Rate { per_s: 4.0, burst: 5.0 }));
    assert_eq!(config.limits.when_slow, WhenSlow::DropOldest);
    let token = config.auth.token.unwrap();
    assert_eq!(token.key, KeySource::HmacSecret(SECRET.as_bytes().to_vec()));
    assert_eq!(token.audience.as_deref(), Some("12"));
}

// G6, G16
#[test]
fn a_variable_that_names_no_key_is_an_error() {
    for (name, value, key, part) in [
        ("PIPEWARD_EDGE__PING", "3", "edge.ping", "nearest is PIPEWARD_EDGE__PING_S"),
        ("PIPEWARD_EGDE__LISTEN", "3", "egde.listen", "nearest is PIPEWARD_EDGE__LISTEN"),
        ("PIPEWARD__LISTEN", "3", "_listen", "no such key"),
        ("PIPEWARD_EDGE__PING_S", "0", "edge.ping_s", "from 1 to 3600"),
        ("PIPEWARD_AUTH__TOKEN", "{}", "auth.token", "section"),
        ("PIPEWARD_PIPE__CHAT__SUBSCRIBE", "true", "pipe.chat.subscribe", "in the file"),
        ("PIPEWARD_CONTROL__KEY", "[]", "control.key", "in the file"),
        ("PIPEWARD_MODULE__A__PUBLIC", "true", "module.a.public", "in the file"),
        ("PIPEWARD_ACTION__A__URL", "http://a", "action.a.url", "in the file"),
        ("PIPEWARD_QUEUE__A__URL", "http://a", "queue.a.url", "in the file"),
        ("PIPEWARD_PUSH__GUARD", "[]", "push.guard", "in the file"),
        ("PIPEWARD_AUTH__WEBHOOK__URL", "ftp://a", "auth.webhook.url", "`http://host/path`"),
        ("PIPEWARD_EDGE__ping_s", "3", "edge.ping_s", "PIPEWARD_EDGE__PING_S"),
    ] {
        let findings = parse_with("", &[(name, value)]).expect_err(name);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        let finding = &findings[0];
        assert_eq!((finding.file.as_str(), finding.line, finding.key.as_str()), (name, 0, key));
        assert!(finding.message.contains(part), "{finding}");
        assert!(finding.to_string().starts_with(&format!("{name}: {key}: ")), "{finding}");
    }
}

// G16, PROTOCOL §6: by the whole name, and as one that can be used.
#[test]
fn an_unknown_variable_names_the_nearest_one_that_there_is() {
    for (unknown, nearest) in [
        ("PIPEWARD_CONTORL__LISTEN", "PIPEWARD_CONTROL__LISTEN"),
        ("PIPEWARD_STOER__PATH", "PIPEWARD_STORE__PATH"),
        ("PIPEWARD_AUDT__PATH", "PIPEWARD_AUDIT__PATH"),
        ("PIPEWARD_LIMTS__PUBLSH", "PIPEWARD_LIMITS__PUBLISH"),
        ("PIPEWARD_LIMITS__PER_USR__PUBLISH", "PIPEWARD_LIMITS__PER_USER__PUBLISH"),
        ("PIPEWARD_LIMITS__PUBLISH__PERS", "PIPEWARD_LIMITS__PUBLISH__PER_S"),
        ("PIPEWARD_LIMITS__PUBLISH__BURTS", "PIPEWARD_LIMITS__PUBLISH__BURST"),
        ("PIPEWARD_EDGE__LISTEN__X", "PIPEWARD_EDGE__LISTEN"),
        // Not one that only the file may hold.
        ("PIPEWARD_PUSH__GUARDS", "PIPEWARD_PUSH__PUBLIC"),
    ] {
        let findings = parse_with("", &[(unknown, "3")]).expect_err(unknown);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(findings[0].message.ends_with(&format!("the nearest is {nearest}")), "{}", findings[0]);
    }
}

// G6: one number of a rate, over the other one of the file or else of the default.
#[test]
fn one_number_of_a_rate_wins_alone() {
    let publish = |text: &str, variables: &[(&str, &str)]| {
        let (config, warnings) = parse_with(text, variables).unwrap();
        assert_eq!(warnings, []);
        config.limits.rates.publish.map(|rate| (rate.per_s, rate.burst))
    };
    let burst = ("PIPEWARD_LIMITS__PUBLISH__BURST", "7");
    let per_s = ("PIPEWARD_LIMITS__PUBLISH__PER_S", "3");
    let file = "[limits]\npublish = { per_s = 1, burst = 2 }\n";
    assert_eq!((publish("", &[burst]), publish("", &[per_s])), (Some((50.0, 7.0)), Some((3.0, 100.0))));
    assert_eq!((publish(file, &[burst]), publish(file, &[per_s])), (Some((1.0, 7.0)), Some((3.0, 2.0))));
    assert_eq!(publish("[limits]\nthrottle_s = 1\n", &[burst, per_s]), Some((3.0, 7.0)));
    let findings = parse_with("limits = 3\n", &[burst]).unwrap_err();
    assert!(findings.iter().any(|finding| finding.line == 1 && finding.key == "limits"), "{findings:#?}");
}

#[test]
fn a_variable_does_not_hide_what_is_wrong_in_the_file() {
    let findings = parse_with("edge = 3\n", &[("PIPEWARD_EDGE__PING_S", "4")]).unwrap_err();
    assert!(findings.iter().any(|finding| finding.line == 1 && finding.key == "edge"), "{findings:#?}");
}

// G9
#[test]
fn rights_open_to_everybody_are_warned_about() {
    for right in ["subscribe", "publish", "presence"] {
        let text = format!("[pipe.\"chat\"]\n{right} = true\n");
        warned(&text, 2, &format!("pipe.\"chat\".{right}"), "open to every connection");
        clean(&format!("{text}public = true\n"));
        clean(&format!("[pipe.\"user-{{user.id}}\"]\n{right} = true\n"));
    }
    clean("[pipe.\"chat\"]\nsubscribe = false\n");
    // A7: it grants nothing.
    let pipe = &clean("[pipe.\"chat\"]\npublic = true\n").rules.pipes[0];
    assert!([&pipe.subscribe, &pipe.publish, &pipe.presence].iter().all(|right| matches!(right, Right::Never)));
    warned("[edge]\norigins = '*'\n", 2, "edge.origins", "every web page");
    warned("[edge]\norigins = ['*']\n", 2, "edge.origins", "every web page");
}

#[test]
fn a_definition_that_never_decides_is_warned_about() {
    warned("[pipe.\"room-{a}\"]\n[pipe.\"room-{b}\"]\n", 2, "pipe.\"room-{b}\"", "line 1");
    warned("[pipe.\"room-{a}\"]\n[pipe.\"room-*\"]\n", 2, "pipe.\"room-*\"", "line 1");
    warned("[pipe.\"room-{a}\"]\n[pipe.\"room-{user.id}\"]\n", 2, "pipe.\"room-{user.id}\"", "line 1");
    warned("[pipe.\"**\"]\n[pipe.\"chat\"]\n", 2, "pipe.\"chat\"", "line 1");
    clean("[pipe.\"chat\"]\n[pipe.\"room-*\"]\n[pipe.\"room-**\"]\n[pipe.\"**\"]\n");
}

#[test]
fn no_secret_is_ever_shown() {
    let hidden = "hunter2hunter2";
    let text = format!("[auth.token]\nhmac_secret = '{hidden}'\n");
    let findings = parse(&text).unwrap_err();
    assert!(!format!("{findings:?}").contains(hidden));
    let text = format!("[auth.token]\nhmac_secret = '{hidden}\n");
    assert!(!format!("{:?}", parse(&text).unwrap_err()).contains(hidden));
    let config = clean(&format!("[auth.token]\nhmac_secret = '{SECRET}'\n"));
    assert!(!format!("{config:?}").contains(SECRET));
}

/// `docs/configuration.md` is made from the table of keys. To write it anew: `BLESS=1 cargo test --test config`.
#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let made = config::reference();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == made, "docs/configuration.md is out of date; run: BLESS=1 cargo test --test config");
}

const WHOLE: &str = "[edge]\nlisten = [\"127.0.0.1:8080\"]\nworkers = 2\n[auth.token]\nhmac_secret = \"0123456789abcdef\"\n\
[limits]\npublish = { per_s = 50, burst = 100 }\n[limits.per_tenant]\nbytes = { per_s = 1 }\n[pipe.\"a-{x}\".event.b]\n\
schema = { type = 'object' }\nfilter = 'user.id == event.data.x'\n[pipe.\"c\"]\nsubscribe = { url = 'http://a' }\n\
scope = { tenant = 't' }\n[[guard]]\nrequire = \"user.role in ['a'] || owner('x')\"\nset = { a = 'user.info.b + 1' }\n\
[module.m]\nguard = [{ url = 'http://a' }]\n[action.s]\nurl = 'http://a'\nmodule = 'm'\n[queue.q]\nmax_age_s = 3\n\
[control]\nlisten = 1979-05-27\n";

proptest! {
    /// Whatever stands in the file, the loader answers, and every finding has a place and a sentence.
    #[test]
    fn any_text_is_answered(
        cuts in proptest::collection::vec((0..WHOLE.len(), 0..WHOLE.len(), "[\\[\\]{}=\"'.\\n a-z0-9#,é]{0,4}"), 0..6),
    ) {
        let mut text = WHOLE.to_owned();
        for (from, to, put) in cuts {
            let (from, to) = (text.floor_char_boundary(from.min(to)), text.floor_char_boundary(from.max(to).min(from + 9)));
            text.replace_range(from.min(to)..to.max(from), &put);
        }
        let lines = text.lines().count() as u32 + 1;
        for finding in parse(&text).map_or_else(|findings| findings, |(_, warnings)| warnings) {
            prop_assert!(finding.line >= 1 && finding.line <= lines, "{finding}");
            prop_assert!(!finding.message.is_empty() && !finding.file.is_empty());
        }
    }
}
