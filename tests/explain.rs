//! `pipeward explain`: the steps it tells, and that its verdicts are those of the rules. Requirement ids stand at the
//! tests.

use std::path::Path;
use std::process::{Command, Output};

use pipeward::auth::token::mint;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const RULES: &str = r#"
[auth.token]
hmac_secret = "0123456789abcdef0123456789abcdef"
[auth.webhook]
url = "http://127.0.0.1:1/authorize"
secret = "0123456789abcdef"
[[guard]]
name = "active"
require = "!has(user.info.suspended)"
[pipe."{tenant}:team-{team}"]
scope = { tenant = "tenant" }
subscribe = "team()"
publish = "team()"
presence = "user.info.level > 3"
[pipe."{tenant}:team-{team}".event.note]
schema = { type = "object", required = ["text"] }
filter = "event.data.level >= 3 || role({'admin': true})"
[pipe."{tenant}:team-{team}".event.audit]
subscribe = "role({'admin': true})"
publish = false
[pipe."{tenant}:**"]
subscribe = { url = "http://127.0.0.1:1/rules" }
[action.send]
allow = "args.to == user.id"
max_bytes = 20
url = "http://127.0.0.1:1/send"
[queue.jobs]
publish = "user.role == 'admin'"
url = "http://127.0.0.1:1/jobs"
[push]
allow = "to.user == user.id"
"#;

struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(rules: &str) -> Rig {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("pipeward.toml"), rules).expect("a file");
        Rig { dir }
    }

    fn file(&self) -> String {
        self.dir.path().join("pipeward.toml").display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeward"));
        command.args(["explain", "--config", &self.file()]).args(arguments);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PIPEWARD_")) {
            command.env_remove(name);
        }
        command.output().expect("the program starts")
    }

    /// What is told, without the folder of the file.
    #[track_caller]
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{arguments:?}");
        let folder = Path::new(&self.file()).parent().expect("a folder").display().to_string();
        String::from_utf8(output.stdout).expect("UTF-8").replace(&format!("{folder}/"), "")
    }

    #[track_caller]
    fn wrong(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn token(more: &str) -> String {
    let mut claims = serde_json::json!({ "sub": "ada", "tenant": "acme", "team": "red", "roles": ["member"] });
    let more: serde_json::Value = serde_json::from_str(more).expect("JSON");
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    mint(SECRET.as_bytes(), &claims)
}

/// Asserts that the lines stand in this order, others between them.
#[track_caller]
fn in_order(told: &str, lines: &[&str]) {
    let mut rest = told;
    for line in lines {
        let Some(at) = rest.find(line) else { panic!("`{line}` does not stand (in this order) in\n{told}") };
        rest = &rest[at + line.len()..];
    }
}

#[test]
fn each_step_of_a_pipe_is_told() {
    let rig = Rig::new(RULES);
    let member = token("{}");
    let told = rig.told(&["--token", &member, "--pipe", "acme:team-red"]);
    in_order(
        &told,
        &[
            "connection: user ada, tenant acme, team red, roles member\n",
            "pipe acme:team-red: decided by pipeward.toml:10: pipe.\"{tenant}:team-{team}\", tenant = acme, team = red\n",
            "pipe.\"{tenant}:**\" matches too: stands later and does not decide\n",
            "subscribe\n",
            "scope (tenant tenant): is the connection's own\n",
            "guard active: `!has(user.info.suspended)` is true\n",
            "explicit grant: there is none",
            "rule `team()`",
            "=> allowed\n",
            "event note: is sent to it where `event.data.level >= 3",
            "event audit: is never sent to it",
            "publish note\n",
            "=> allowed\n",
            "publish audit\n",
            "event audit has its own publish rule",
            "=> refused, FORBIDDEN: Access denied\n",
            "presence\n",
            "fails",
            // F6
            "fault, which the client is not told: pipeward.toml:14: pipe.\"{tenant}:team-{team}\".presence",
            "=> refused, FORBIDDEN: Access denied\n",
            "not looked at: revocations",
        ],
    );
    // GD-5: nothing overrides it, a grant neither.
    let granted =
        token("{\"tenant\":\"other\",\"pipes\":{\"**\":{\"subscribe\":true,\"publish\":true,\"presence\":true}}}");
    let told = rig.told(&["--token", &granted, "--pipe", "acme:team-red"]);
    assert_eq!(told.matches("=> refused, SCOPE_MISMATCH").count(), 4, "{told}");
    // A guard stands before grants too (F10).
    let suspended = token("{\"info\":{\"suspended\":true},\"pipes\":{\"**\":{\"subscribe\":true}}}");
    let told = rig.told(&["--token", &suspended, "--pipe", "acme:team-red"]);
    in_order(&told, &["subscribe", "guard active: `!has(user.info.suspended)` is false\n", "=> refused, FORBIDDEN"]);
    assert!(!told.contains("=> allowed"), "{told}");
    let told = rig.told(&["--token", &member, "--pipe", "a b"]);
    assert!(told.contains("refused, INVALID"), "{told}");
    let told = rig.told(&["--token", &token("{\"pipes\":{\"room\":{\"publish\":true}}}"), "--pipe", "room"]);
    in_order(
        &told,
        &["no definition matches", "subscribe", "refused", "publish", "explicit grant: allows", "=> allowed"],
    );
}

#[test]
fn an_event_is_judged_with_its_data() {
    let rig = Rig::new(RULES);
    let member = token("{}");
    let pipe = |event: &str, data: &str| {
        rig.told(&["--token", &member, "--pipe", "acme:team-red", "--event", event, "--data", data])
    };
    let told = pipe("note", "{\"text\":\"x\",\"level\":3}");
    in_order(&told, &["event note: with this data is sent to it", "publish note", "data: fits", "=> allowed"]);
    let told = pipe("note", "{\"text\":\"x\",\"level\":2}");
    in_order(&told, &["event note: with this data is not sent to it", "publish note", "=> allowed"]);
    let told = pipe("note", "{\"level\":3}");
    in_order(&told, &["publish note", "=> refused, SCHEMA: ", "presence"]);
    // A14, A13
    let told = pipe("audit", "1");
    in_order(&told, &["event audit: is never sent", "publish audit", "=> refused, FORBIDDEN", "presence"]);
    let told = pipe("other", "1");
    in_order(&told, &["publish other", "is not defined in this pipe", "=> refused, FORBIDDEN", "presence"]);
}

#[test]
fn actions_queues_and_pushes_are_judged() {
    let rig = Rig::new(RULES);
    let (member, admin) = (token("{}"), token("{\"role\":\"admin\"}"));
    let action = |data: &str| rig.told(&["--token", &member, "--action", "send", "--data", data]);
    in_order(
        &action("{\"to\":\"ada\"}"),
        &["action send", "`args.to == user.id`", "is true", "data: fits", "=> allowed"],
    );
    in_order(&action("{\"to\":\"bob\"}"), &["is false", "=> refused, FORBIDDEN"]);
    in_order(&action("{\"to\":\"ada\",\"x\":\"0123456789\"}"), &["=> refused, PAYLOAD_TOO_LARGE"]);
    in_order(&rig.told(&["--token", &member, "--action", "sent"]), &["=> refused, UNKNOWN_ACTION"]);
    in_order(&rig.told(&["--token", &member, "--queue", "jobs"]), &["enqueue jobs", "=> refused, FORBIDDEN"]);
    in_order(&rig.told(&["--token", &admin, "--queue", "jobs"]), &["enqueue jobs", "=> allowed"]);
    // F15
    in_order(&rig.told(&["--token", &admin, "--queue", "absent"]), &["=> refused, FORBIDDEN"]);
    let push = |to: &str| rig.told(&["--token", &member, "--to", to, "--event", "e"]);
    in_order(&push("user=ada"), &["push to user=ada", "own tenant alone", "=> allowed"]);
    in_order(&push("user=bob"), &["=> refused, FORBIDDEN"]);
    // Reading what is not there fails closed (RK-6).
    in_order(&push("role=admin"), &["fault", "=> refused, FORBIDDEN"]);
}

// A11
#[test]
fn what_the_application_decides_is_undecided() {
    let rig = Rig::new(RULES);
    let member = token("{}");
    let arguments = ["--token", &member, "--pipe", "acme:a:b"];
    in_order(
        &rig.told(&arguments),
        &["subscribe", "=> undecided", "http://127.0.0.1:1/rules", "publish", "=> refused"],
    );
    let assume = |answer: &str| rig.told(&[&arguments[..], &["--assume", answer]].concat());
    in_order(
        &assume("allow"),
        &["subscribe", "http://127.0.0.1:1/rules: allows", "=> allowed", "publish", "=> refused"],
    );
    assert!(!assume("refuse").contains("=> allowed"));
}

#[test]
fn who_cannot_connect_may_do_nothing() {
    let rig = Rig::new(RULES);
    let expired = token("{\"exp\":1}");
    assert_eq!(rig.told(&["--token", &expired, "--pipe", "a"]), "connect: refused, UNAUTHENTICATED: token expired\n");
    assert!(rig.told(&["--answer", "null", "--pipe", "a"]).starts_with("connect: refused, UNAUTHENTICATED"));
    assert!(
        rig.told(&["--answer", "{}", "--pipe", "a"])
            .starts_with("connect: refused, UNAVAILABLE: the answer is malformed")
    );
    let past = "{\"userId\":\"ada\",\"expires_at\":5}";
    assert!(rig.told(&["--answer", past, "--pipe", "a"]).starts_with("connect: refused, UNAUTHENTICATED"));
    let answer = "{\"user\":{\"id\":\"ada\",\"tenant\":\"acme\",\"team\":\"red\"}}";
    in_order(&rig.told(&["--answer", answer, "--pipe", "acme:team-red"]), &["user ada", "subscribe", "=> allowed"]);
    assert!(rig.wrong(&["--pipe", "a"]).contains("--answer"));

    let open = Rig::new("[auth]\nanonymous = true\n[pipe.\"a\"]\nsubscribe = true\n[push]\nallow = true\n");
    in_order(
        &open.told(&["--pipe", "a"]),
        &["connection: anonymous", "subscribe", "=> allowed", "publish", "=> refused"],
    );
    // B21
    in_order(&open.told(&["--to", "user=ada"]), &["=> refused, UNAUTHENTICATED"]);
    let closed = Rig::new("");
    assert!(closed.told(&["--pipe", "a"]).starts_with("connect: refused, UNAUTHENTICATED"));
    // A3
    assert!(closed.told(&["--token", "x", "--pipe", "a"]).starts_with("connect: refused, UNAUTHENTICATED"));
    let asked = Rig::new("[auth.webhook]\nurl = 'http://127.0.0.1:1'\nsecret = '0123456789abcdef'\n");
    assert!(asked.wrong(&["--token", "x", "--pipe", "a"]).contains("--answer"));
}

#[test]
fn a_wrong_command_line_or_configuration_exits_2() {
    let rig = Rig::new(RULES);
    let member = token("{}");
    rig.wrong(&["--token", &member]);
    rig.wrong(&["--token", &member, "--pipe", "a", "--action", "b"]);
    rig.wrong(&["--token", &member, "--answer", "null", "--pipe", "a"]);
    rig.wrong(&["--token", &member, "--pipe", "a", "--data", "{"]);
    rig.wrong(&["--token", &member, "--to", "nobody=a"]);
    assert!(Rig::new("[pipe.\"a\"]\nsubscribe = '1'\n").wrong(&["--pipe", "a"]).contains("pipe.\"a\".subscribe"));
}
