//! The command line, driven as an operator would: exit codes, and what goes to stdout and stderr.

use std::path::PathBuf;
use std::process::{Command, Output};

use pipeward::auth::token::Verifier;
use pipeward::config::{KeySource, TokenSettings};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn pipeward(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeward"));
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PIPEWARD_")) {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    pipeward(arguments).output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> File {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pipeward.toml");
        std::fs::write(&path, text).expect("a file");
        File { _dir: dir, path }
    }

    fn name(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }
}

// G7
#[test]
fn check_answers_with_its_exit_code() {
    let clean = File::new("[edge]\nworkers = 2\n");
    let warned = File::new("[pipe.\"chat\"]\nsubscribe = true\n");
    let wrong = File::new("[edge]\nworkers = 0\nlistne = 'x'\n[pipe.\"chat\"]\nsubscribe = true\n");
    for (file, strict, expected) in [
        (&clean, false, 0),
        (&clean, true, 0),
        (&warned, false, 0),
        (&warned, true, 1),
        (&wrong, false, 2),
        (&wrong, true, 2),
    ] {
        let flags: &[&str] = if strict { &["check", file.name(), "--strict"] } else { &["check", file.name()] };
        let output = run(flags);
        assert_eq!(code(&output), expected, "{}", stderr(&output));
    }
    let output = run(&["check", clean.name()]);
    assert_eq!(stderr(&output), "");
    assert!(stdout(&output).starts_with(&format!("{}: 0 errors, 0 warnings\n", clean.name())));
    assert!(stdout(&output).contains("2 workers"));
    let output = run(&["check", wrong.name()]);
    assert!(stdout(&output).contains("2 errors, 1 warning\n"));
    let lines: Vec<_> = stderr(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with(&format!("error: {}:2: edge.workers: ", wrong.name())));
    assert!(
        lines[1].starts_with(&format!("error: {}:3: edge.listne: ", wrong.name())) && lines[1].contains("edge.listen")
    );
    assert!(lines[2].starts_with(&format!("warning: {}:5: pipe.\"chat\".subscribe: ", wrong.name())));
}

#[test]
fn check_of_no_file_is_an_error() {
    let output = run(&["check", "/nonexistent/pipeward.toml"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("/nonexistent/pipeward.toml: the file cannot be read"));
    assert_eq!(code(&run(&["check"])), 2);
}

// G16
#[test]
fn check_looks_at_the_environment_too() {
    let file = File::new("");
    let output = pipeward(&["check", file.name()]).env("PIPEWARD_EDGE__PING", "3").output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("PIPEWARD_EDGE__PING: edge.ping: "), "{}", stderr(&output));
    let output = pipeward(&["check", file.name()]).env("PIPEWARD_EDGE__WORKERS", "5").output().unwrap();
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("5 workers"));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_an_error() {
    use std::os::unix::ffi::OsStrExt as _;
    let file = File::new("");
    let value = std::ffi::OsStr::from_bytes(b"0123456789abcdef\xff");
    let output = pipeward(&["check", file.name()]).env("PIPEWARD_AUTH__TOKEN__HMAC_SECRET", value).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("PIPEWARD_AUTH__TOKEN__HMAC_SECRET: the value is not UTF-8"));
}

// G7
#[test]
fn serve_refuses_a_bad_file_before_it_listens() {
    let file = File::new("[edge]\nworkers = 0\n[[guard]]\nrequire = 'x'\n");
    let output = run(&["serve", "--config", file.name()]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains(":2: edge.workers: ") && stderr(&output).contains(":4: guard.require: "));
    assert_eq!(stdout(&output), "");
}

#[test]
fn flags_of_serve_are_checked_like_keys() {
    let output = run(&["serve", "--workers", "0", "--listen", "nowhere"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("--workers: edge.workers: 0 is out of range"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--listen: edge.listen: `nowhere`"), "{}", stderr(&output));
    let output = run(&["serve", "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("given twice"));
}

fn claims(token: &str) -> serde_json::Value {
    use base64::Engine as _;
    let payload = token.trim_end().split('.').nth(1).expect("three parts");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

// G8
#[test]
fn token_prints_a_token_that_verifies() {
    let output = run(&[
        "token",
        "--secret",
        SECRET,
        "--user",
        "ada",
        "--pipe",
        "chat=sub,pub",
        "--pipe",
        "a=b=presence",
        "--pipe",
        "shut=",
        "--ttl",
        "30m",
        "--claim",
        "tenant=\"acme\"",
        "--claim",
        "roles=[\"admin\"]",
    ]);
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    let text = stdout(&output);
    assert_eq!(text.matches('\n').count(), 1);
    assert!(text.ends_with('\n'));

    let settings = TokenSettings {
        key: KeySource::HmacSecret(SECRET.as_bytes().to_vec()),
        issuer: None,
        audience: None,
        leeway_s: 0,
        require_exp: true,
    };
    let claims = claims(&text);
    let issued_at_s = claims["iat"].as_u64().unwrap();
    assert_eq!(claims["exp"].as_u64().unwrap(), issued_at_s + 1800);
    assert_eq!(claims["pipes"]["chat"], serde_json::json!({ "subscribe": true, "publish": true }));
    let decision = Verifier::new(&settings).unwrap().verify(text.trim_end(), issued_at_s * 1000).expect("it verifies");
    assert_eq!(decision.identity.id(), "ada");
    assert_eq!(decision.identity.tenant(), Some("acme"));
    let names: Vec<&str> = decision.grants.iter().map(|grant| &*grant.pipe).collect();
    assert!(names.contains(&"chat") && names.contains(&"a=b"));
}

#[test]
fn token_takes_times_and_claims() {
    let base = ["token", "--secret", SECRET, "--user", "u"];
    let with = |more: &[&str]| run(&[&base, more].concat());
    let exp_after = |more: &[&str]| {
        let claims = claims(&stdout(&with(more)));
        claims["exp"].as_u64().map(|exp| exp - claims["iat"].as_u64().unwrap())
    };
    assert_eq!(exp_after(&[]), Some(3600));
    assert_eq!(exp_after(&["--ttl", "90s"]), Some(90));
    assert_eq!(exp_after(&["--ttl", "2d"]), Some(172_800));
    assert_eq!(exp_after(&["--ttl", "none"]), None);
    assert_eq!(claims(&stdout(&with(&["--claim", "exp=5"])))["exp"], 5);
    assert_eq!(claims(&stdout(&with(&["--claim", "a=\"b=c\""])))["a"], "b=c");
    for (wrong, part) in [
        (["--ttl", "1"], "90s, 30m, 1h"),
        (["--ttl", "0s"], "longer than nothing"),
        (["--ttl", "99999999999999999999h"], "90s, 30m, 1h"),
        (["--ttl", "9999999999999999h"], "hundred years"),
        (["--ttl", "1é"], "90s, 30m, 1h"),
        (["--claim", "a=b"], "not JSON"),
        (["--claim", "a"], "NAME=JSON"),
        (["--claim", "=1"], "name is missing"),
        (["--claim", "sub=\"x\""], "contradict"),
        (["--pipe", "chat"], "NAME=sub,pub,presence"),
        (["--pipe", "chat=read"], "`read` is not a right"),
        (["--pipe", "a b=sub"], "not a pipe name"),
    ] {
        let output = with(&wrong);
        assert_eq!(code(&output), 2, "{wrong:?}");
        assert!(stderr(&output).contains(part), "{wrong:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{wrong:?}");
    }
    let output = with(&["--pipe", "a=sub", "--pipe", "a=pub"]);
    assert_eq!(code(&output), 2);
    let output = run(&["token", "--secret", SECRET, "--user", "**"]);
    assert_eq!(code(&output), 2);
    let output = run(&["token", "--secret", "short", "--user", "u"]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("16 bytes"));
}

#[test]
fn token_reads_its_secret_from_the_environment() {
    let output = pipeward(&["token", "--user", "u"]).env("PIPEWARD_SECRET", SECRET).output().unwrap();
    assert_eq!(code(&output), 0);
    assert_eq!(claims(&stdout(&output))["sub"], "u");
    let output = pipeward(&["token", "--help"]).env("PIPEWARD_SECRET", SECRET).output().unwrap();
    assert!(!stdout(&output).contains(SECRET));
}

#[test]
fn every_verb_has_help() {
    let whole = run(&["--help"]);
    assert_eq!(code(&whole), 0);
    for verb in ["serve", "check", "token", "demo", "completions"] {
        assert!(stdout(&whole).contains(verb), "{verb}");
        let output = run(&[verb, "--help"]);
        assert_eq!((code(&output), stderr(&output)), (0, String::new()), "{verb}");
        assert!(stdout(&output).contains("Usage: pipeward "), "{verb}");
    }
    assert_eq!(code(&run(&["--version"])), 0);
    assert_eq!(code(&run(&[])), 2);
    assert_eq!(code(&run(&["sreve"])), 2);
    assert!(stderr(&run(&["sreve"])).contains("serve"));
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("pipeward") && stdout(&output).contains("check"), "{shell}");
    }
    assert_eq!(code(&run(&["completions", "nosuch"])), 2);
}

#[test]
fn nobody_reading_the_answer_is_no_crash() {
    let file = File::new("");
    for arguments in [&["check", file.name()][..], &["completions", "bash"], &["--help"]] {
        let mut child = pipeward(arguments)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.code().is_some() && !stderr(&output).contains("panicked"), "{arguments:?}: {output:?}");
    }
}
