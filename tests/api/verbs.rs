//! The verbs of the command line that call a running server (G5, G14).

use std::process::{Command, Output};

use pipeward::shard::command::{Person, Who};
use pipeward::shard::revocation::Taken;

use crate::fake::{ADMIN, Api, Asked};

fn pipeward(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeward"));
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PIPEWARD_")) {
        command.env_remove(name);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

impl Api {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = pipeward(arguments);
        command.env("PIPEWARD_URL", format!("http://{}", self.address)).env("PIPEWARD_KEY", ADMIN);
        command.output().expect("the program starts")
    }

    /// Runs, and returns what was asked and printed.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> (Asked, String) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
        let mut asked = self.fake.asked();
        assert_eq!(asked.len(), 1, "{arguments:?}");
        (asked.remove(0), text(&output.stdout))
    }
}

fn ada() -> Who {
    Who::User(Person { tenant: None, user: "ada".into() })
}

#[test]
fn each_verb_makes_its_call_and_prints_the_answer() {
    let api = Api::start();
    let (asked, printed) = api.done(&["publish", "chat", "m", r#"{"n":1.10}"#, "--count"]);
    assert!(matches!(asked, Asked::Publish { data, count: true, sender: None, .. } if data == r#"{"n":1.10}"#));
    assert_eq!(printed, "{\"ok\":true,\"delivered\":3}\n");
    let (asked, _) = api.done(&["publish", "chat", "m", "-5", "--sender", "ada"]);
    assert!(matches!(asked, Asked::Publish { data, sender: Some(sender), .. } if data == "-5" && sender == "ada"));
    let push = |to| Asked::Push { to, event: "e".to_owned(), data: "1".to_owned() };
    assert_eq!(api.done(&["push", "ada", "e", "1"]).0, push(ada()));
    assert_eq!(api.done(&["push", "--to", "role=admin", "e", "1"]).0, push(Who::Role("admin".into(), None)));
    let tenant = api.done(&["push", "e", "1", "--to", "org=o", "--tenant", "acme"]).0;
    assert_eq!(tenant, push(Who::Org("o".into(), Some("acme".into()))));

    let (asked, printed) = api.done(&["revoke", "ada", "team-*", "--ttl", "1h"]);
    assert!(
        matches!(asked, Asked::Revoke(one) if one.taken == Taken::Pipe("team-*".into()) && one.until_ms < u64::MAX)
    );
    assert_eq!(printed, "{\"ok\":true,\"connections\":3}\n");
    assert!(matches!(api.done(&["revoke-all", "ada"]).0, Asked::Revoke(one) if one.taken == Taken::Everything));
    assert!(matches!(api.done(&["restore", "ada", "team-*"]).0, Asked::Restore(one) if one.taken.is_some()));
    assert!(matches!(api.done(&["restore", "ada"]).0, Asked::Restore(one) if one.taken.is_none()));
    assert!(matches!(api.done(&["revoke-tokens", "--user", "ada", "--except-session", "s"]).0, Asked::RevokeTokens(_)));
    assert!(matches!(api.done(&["revoke-tokens", "--token", "t"]).0, Asked::RevokeTokens(_)));
    assert_eq!(api.done(&["disconnect", "ada", "--reconnect"]).0, Asked::Disconnect(ada(), true));
    let session = api.done(&["disconnect", "--session", "s"]).0;
    assert_eq!(session, Asked::Disconnect(Who::Session("s".into()), false));
    assert_eq!(api.done(&["unsubscribe", "ada", "chat"]).0, Asked::Unsubscribe(ada(), "chat".to_owned()));
    let one = api.done(&["unsubscribe", "--connection", "c", "chat"]).0;
    assert_eq!(one, Asked::Unsubscribe(Who::Connection("c".into()), "chat".to_owned()));
    let (asked, printed) = api.done(&["connections", "--user", "a b", "--limit", "7"]);
    assert_eq!(asked, Asked::Connections(Some(Person { tenant: None, user: "a b".into() }), None, 7));
    assert!(printed.starts_with("{\"connections\":[{"));
}

// F16
#[test]
fn queues_are_shown_and_tried_again() {
    let api = Api::start();
    let shown = api.run(&["queues"]);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    assert!(text(&shown.stdout).starts_with(r#"{"queues":[{"queue":"jobs","configured":true,"depth":2,"#));
    let (asked, printed) = api.done(&["queues", "dead", "a/b.c%", "--limit", "5", "--after", "3"]);
    assert_eq!(asked, Asked::Dead("a/b.c%".to_owned(), Some(3), 5));
    assert!(printed.contains(r#""data":12345678901234567890123"#), "{printed}");
    let (asked, printed) = api.done(&["queues", "retry", "a.b"]);
    assert_eq!((asked, &*printed), (Asked::Retry("a.b".to_owned(), None), "{\"ok\":true,\"retried\":3}\n"));
    let one = api.done(&["queues", "retry", "jobs", "abc"]).0;
    assert_eq!(one, Asked::Retry("jobs".to_owned(), Some("abc".to_owned())));
}

#[test]
fn a_refusal_goes_to_stderr_and_never_the_key() {
    let api = Api::start();
    let output = api.run(&["revoke", "ada", "no good"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    assert!(text(&output.stderr).contains("a pipe's name") && text(&output.stderr).ends_with("(INVALID)\n"));
    api.fake.will_answer(Ok(0));
    let output = api.run(&["push", "ada", "e", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("NOT_CONNECTED"));
    let output = api.run(&["connections", "--key", "not-the-secret-of-anybody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("UNAUTHENTICATED") && !text(&output.stderr).contains("not-the-secret"));
    let output = api.run(&["connections", "--url", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot connect") && !text(&output.stderr).contains(ADMIN));
}

#[test]
fn a_wrong_command_line_is_told_before_anything_is_called() {
    let api = Api::start();
    for arguments in [
        &["publish", "chat", "m", "{no json"][..],
        &["push", "e", "1"],
        &["push", "--to", "team=a", "e", "1"],
        &["push", "--to", "user=a", "b", "e", "1"],
        &["push", "--to", "tenant=a", "--tenant", "b", "e", "1"],
        &["revoke", "ada"],
        &["revoke", "ada", "p", "--ttl", "5"],
        &["revoke-tokens"],
        &["revoke-tokens", "--user", "a", "--token", "b"],
        &["disconnect"],
        &["disconnect", "ada", "--session", "s"],
        &["unsubscribe", "chat"],
        &["connections", "--url", "ftp://x"],
    ] {
        let output = api.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(!text(&output.stderr).contains(ADMIN));
    }
    assert_eq!(api.fake.asked(), []);
}

#[test]
fn address_and_key_come_from_the_configuration() {
    let api = Api::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipeward.toml");
    let keys = |allow: &str| {
        format!(
            "[control]\nlisten = '{}'\n[[control.key]]\nname = 'a'\nsecret = '{ADMIN}'\nallow = ['{allow}']\n",
            api.address
        )
    };
    std::fs::write(&file, keys("publish")).unwrap();
    let run = |verb: &[&str]| pipeward(verb).arg("--config").arg(&file).output().unwrap();
    let publish = ["publish", "chat", "m", "1"];
    assert_eq!(run(&publish).status.code(), Some(0));
    assert_eq!(api.fake.asked().len(), 1);
    let output = run(&["restore", "ada"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("allowed to call restore"));
    let output = pipeward(&publish).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("PIPEWARD_KEY"));
    assert_eq!(api.fake.asked(), []);
}
