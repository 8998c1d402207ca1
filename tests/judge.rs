//! The judge by itself: a configuration as text, a case, and what comes of it. End to end the same is in `tests/server`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use pipeward::auth::decision::Rights;
use pipeward::auth::identity::{Identity, Profile};
use pipeward::rules::Rules;
use pipeward::rules::definition::Endpoint;
use pipeward::rules::judge::{Answer, Case, Judge, Surface, Verdict, in_scope};
use pipeward::shard::call::{Ruling, Unanswered};

fn rules(text: &str) -> std::sync::Arc<Rules> {
    let loaded = pipeward::config::parse(text, std::path::Path::new("."), &mut std::iter::empty());
    loaded.unwrap_or_else(|findings| panic!("{findings:#?}")).0.rules
}

fn profile() -> Profile<'static> {
    Profile {
        id: "ann",
        role: Some("member"),
        roles: vec!["member", "beta"],
        team: Some("red"),
        tenant: Some("acme"),
        features: Some(vec!["chat"]),
        info: Some(r#"{"level":3,"suspended":false}"#),
        ..Profile::default()
    }
}

fn ann() -> Identity {
    Identity::new(&profile())
}

/// What a test asks.
#[derive(Clone, Copy)]
struct Asked<'a> {
    surface: Surface,
    item: &'a str,
    event: Option<(&'a str, &'a str)>,
    explicit: Rights,
    identity: Option<&'a Identity>,
}

impl<'a> Asked<'a> {
    fn pipe(surface: Surface, item: &'a str, identity: &'a Identity) -> Asked<'a> {
        Asked { surface, item, event: None, explicit: Rights::NONE, identity: Some(identity) }
    }
}

/// `yes`, `yes, each time`, the code of a refusal, the code and `!` where a rule failed, or `ask URL`.
fn judged(rules: &Rules, asked: Asked<'_>, answers: &HashMap<&str, Answer>) -> String {
    let found = rules.pipe(asked.item);
    if let Some((_, definition, matched)) = &found
        && let Err(code) = in_scope(definition, matched, asked.identity)
    {
        return code.name().to_owned();
    }
    let answer = |endpoint: &Endpoint| answers.get(&*endpoint.url).cloned();
    let case = Case {
        surface: asked.surface,
        identity: asked.identity,
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        item: asked.item,
        event: asked.event,
        args: None,
        to: None,
    };
    let (definition, matched) =
        found.map_or((None, None), |(_, definition, matched)| (Some(definition), Some(matched)));
    match Judge::new(rules, case, matched, &answer).pipe(definition, asked.explicit) {
        Verdict::Allow { lasting: true } => "yes".to_owned(),
        Verdict::Allow { lasting: false } => "yes, each time".to_owned(),
        Verdict::Refuse(refusal) if refusal.fault.is_some() => format!("{}!", refusal.code),
        Verdict::Refuse(refusal) => refusal.code.into_owned(),
        Verdict::Ask(question) => format!("ask {}", question.endpoint.url),
    }
}

fn plainly(rules: &Rules, asked: Asked<'_>) -> String {
    judged(rules, asked, &HashMap::new())
}

// RK-5
#[test]
fn nothing_is_allowed_that_nothing_allows() {
    let (rules, ann) = (rules("[pipe.\"a\"]\nsubscribe = true\n"), ann());
    for surface in [Surface::Subscribe, Surface::Publish, Surface::Presence] {
        let expected = if surface == Surface::Subscribe { "yes" } else { "FORBIDDEN" };
        assert_eq!(plainly(&rules, Asked::pipe(surface, "a", &ann)), expected);
        assert_eq!(plainly(&rules, Asked::pipe(surface, "b", &ann)), "FORBIDDEN");
    }
}

// GD-5, F9: no grant overrides a scope, tenant before feature, nobody has none.
#[test]
fn a_scope_stands_before_everything() {
    let rules = rules(
        "[pipe.\"{tenant}:room\"]\nsubscribe = true\nscope = { tenant = \"tenant\", feature = \"video\" }\n\
         [pipe.\"{tenant}:hall\"]\nsubscribe = true\nscope = { tenant = \"tenant\", feature = \"chat\" }\n",
    );
    let ann = ann();
    let ask = |item| Asked { explicit: Rights::SUBSCRIBE, ..Asked::pipe(Surface::Subscribe, item, &ann) };
    assert_eq!(plainly(&rules, ask("acme:room")), "FEATURE_DISABLED");
    assert_eq!(plainly(&rules, ask("globex:room")), "SCOPE_MISMATCH");
    assert_eq!(plainly(&rules, ask("acme:hall")), "yes");
    let nobody = Asked { identity: None, ..ask("acme:hall") };
    assert_eq!(plainly(&rules, nobody), "SCOPE_MISMATCH");
}

// SR-2, SR-3, SR-10, F11: order, enrichment, own codes; before explicit grants too (F10).
#[test]
fn guards_run_in_order_and_the_first_refusal_ends_the_chain() {
    let rules = rules(
        "[[guard]]\nrequire = \"!user.info.suspended\"\ncode = \"SUSPENDED\"\n\
         [[guard]]\nset = { level = \"user.info.level\" }\n\
         [module.admin]\nguard = [{ require = \"user.role == 'admin'\", code = \"FORBIDDEN\", message = \"Admin only\" }]\n\
         [pipe.\"admin-*\"]\nmodule = \"admin\"\nsubscribe = true\n\
         [pipe.\"level-*\"]\nsubscribe = \"ctx.level > 2\"\n",
    );
    let suspended = Profile { info: Some(r#"{"level":9,"suspended":true}"#), ..profile() };
    let (ann, suspended) = (ann(), Identity::new(&suspended));
    assert_eq!(plainly(&rules, Asked::pipe(Surface::Subscribe, "admin-1", &ann)), "FORBIDDEN");
    assert_eq!(plainly(&rules, Asked::pipe(Surface::Subscribe, "level-1", &ann)), "yes");
    for item in ["admin-1", "level-1", "granted"] {
        let asked = Asked { explicit: Rights::SUBSCRIBE, ..Asked::pipe(Surface::Subscribe, item, &suspended) };
        assert_eq!(plainly(&rules, asked), "SUSPENDED", "{item}");
    }
    // Without `info` the guard fails, which is no allow (RK-6, B20).
    let unknown = Identity::new(&Profile { info: None, ..profile() });
    assert_eq!(plainly(&rules, Asked::pipe(Surface::Subscribe, "level-1", &unknown)), "FORBIDDEN!");
}

// RK-4, A13, A14, C16
#[test]
fn rights_go_down_to_the_event() {
    let rules = rules(
        "[pipe.\"team-{team}\"]\nsubscribe = \"team()\"\npublish = \"team()\"\n\
         [pipe.\"team-{team}\".event.message]\n\
         [pipe.\"team-{team}\".event.log]\npublish = false\nsubscribe = \"user.role == 'admin'\"\n\
         [pipe.\"team-{team}\".event.shout]\npublish = \"'beta' in user.roles\"\n",
    );
    let ann = ann();
    let publish = |item, event, explicit| Asked {
        event: Some((event, "{}")),
        explicit,
        ..Asked::pipe(Surface::Publish, item, &ann)
    };
    for (item, event, explicit, expected) in [
        ("team-red", "message", Rights::NONE, "yes"),
        ("team-blue", "message", Rights::NONE, "FORBIDDEN"),
        ("team-blue", "message", Rights::PUBLISH, "yes"),
        // The event's own rule stands in for the pipe's, and a grant does not override it.
        ("team-red", "log", Rights::PUBLISH, "FORBIDDEN"),
        ("team-red", "shout", Rights::NONE, "yes"),
        // Not defined: only an explicit grant.
        ("team-red", "other", Rights::NONE, "FORBIDDEN"),
        ("team-red", "other", Rights::PUBLISH, "yes"),
    ] {
        assert_eq!(plainly(&rules, publish(item, event, explicit)), expected, "{item} {event}");
    }
}

// F10, A11: what depends on the message is decided for each; answers of the application hold as long as is said.
#[test]
fn only_what_depends_on_nothing_in_the_message_may_be_remembered() {
    let rules = rules(
        "[pipe.\"by-event\"]\npublish = \"event.data.n < 3\"\n\
         [pipe.\"asked\"]\nsubscribe = { url = \"http://127.0.0.1/s\" }\npublish = { url = \"http://127.0.0.1/p\" }\n\
         presence = { url = \"http://127.0.0.1/c\", cache_s = 5 }\n\
         [auth.webhook]\nurl = \"http://127.0.0.1/a\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n\
         [edge]\norigins = []\n",
    );
    let ann = ann();
    let event = |data| Asked { event: Some(("e", data)), ..Asked::pipe(Surface::Publish, "by-event", &ann) };
    assert_eq!(plainly(&rules, event(r#"{"n":1}"#)), "yes, each time");
    assert_eq!(plainly(&rules, event(r#"{"n":4}"#)), "FORBIDDEN");
    assert_eq!(plainly(&rules, event("{}")), "FORBIDDEN!");
    // A name twice: nobody may know which one counts.
    assert_eq!(plainly(&rules, event(r#"{"n":1,"n":9}"#)), "FORBIDDEN!");

    let asked = |surface| Asked { event: Some(("e", "1")), ..Asked::pipe(surface, "asked", &ann) };
    assert_eq!(plainly(&rules, asked(Surface::Subscribe)), "ask http://127.0.0.1/s");
    let yes = Ok(Ruling { allow: true, context: None });
    let mut answers: HashMap<&str, Answer> =
        ["s", "p", "c"].iter().map(|path| (&*format!("http://127.0.0.1/{path}").leak(), yes.clone())).collect();
    assert_eq!(judged(&rules, asked(Surface::Subscribe), &answers), "yes");
    assert_eq!(judged(&rules, asked(Surface::Publish), &answers), "yes, each time");
    assert_eq!(judged(&rules, asked(Surface::Presence), &answers), "yes, each time");
    for no in [Ok(Ruling::default()), Err(Unanswered::Late), Err(Unanswered::Failed("down".into()))] {
        let fault = no.is_err();
        answers.insert("http://127.0.0.1/s", no);
        let expected = if fault { "FORBIDDEN!" } else { "FORBIDDEN" };
        assert_eq!(judged(&rules, asked(Surface::Subscribe), &answers), expected);
    }
}

// HP-3, F2
#[test]
fn another_users_pipe_is_refused_whatever_the_rule_says() {
    let (rules, ann) = (rules("[pipe.\"user-{user.id}\"]\nsubscribe = true\n"), ann());
    assert_eq!(plainly(&rules, Asked::pipe(Surface::Subscribe, "user-ann", &ann)), "yes");
    assert_eq!(plainly(&rules, Asked::pipe(Surface::Subscribe, "user-bob", &ann)), "FORBIDDEN");
    let nobody = Asked { identity: None, ..Asked::pipe(Surface::Subscribe, "user-ann", &ann) };
    assert_eq!(plainly(&rules, nobody), "FORBIDDEN");
}
