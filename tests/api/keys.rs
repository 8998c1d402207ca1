//! Who may call what (E2, E3, G10).

use pipeward::config::Allow;
use pipeward::protocol::codes::Code;
use pipeward::shard::record::Kind;

use crate::fake::{ADMIN, Api, SENDER, key};

const PUBLISH: &str = r#"{"pipe":"p","event":"e","data":1}"#;
const REVOKE: &str = r#"{"user":"u","pipe":"p"}"#;

#[test]
fn every_path_but_the_probes_needs_a_key() {
    let api = Api::start();
    for path in ["/v1/connections", "/v1/pipes", "/v1/pipes/p/presence", "/v1/stats", "/metrics", "/openapi.json"] {
        let answer = api.get_as("not-the-secret-of-anybody", path);
        answer.refused(401, "UNAUTHENTICATED");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(api.get(path).status, 200, "{path}");
    }
    for call in ["publish", "batch", "push", "notify", "revoke", "revoke_all", "restore", "revoke_tokens", "disconnect"]
    {
        api.post_as("not-the-secret-of-anybody", &format!("/v1/{call}"), b"not even JSON")
            .refused(401, "UNAUTHENTICATED");
    }
    assert_eq!(api.get_as("", "/healthz").status, 200);
    assert_eq!(api.get_as("", "/readyz").status, 200);
}

#[test]
fn a_key_counts_whole_and_alone() {
    let api = Api::start();
    let ask = |header: &str| api.send(format!("GET /v1/stats HTTP/1.1\r\nHost: a\r\n{header}\r\n").as_bytes()).status;
    assert_eq!(ask(&format!("Authorization: Bearer {ADMIN}\r\n")), 200);
    assert_eq!(ask(&format!("authorization: bEARER   {ADMIN}  \r\n")), 200);
    for header in [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: {ADMIN}\r\n"),
        format!("Authorization: Basic {ADMIN}\r\n"),
        format!("Authorization: Bearer {}\r\n", &ADMIN[..ADMIN.len() - 1]),
        format!("Authorization: Bearer {ADMIN}x\r\n"),
        format!("Authorization: Bearer {ADMIN} {SENDER}\r\n"),
        format!("Authorization: Bearer {}\r\n", ADMIN.to_uppercase()),
        format!("Authorization: Bearer {ADMIN}\r\nAuthorization: Bearer {ADMIN}\r\n"),
        "Authorization: Bearer \u{ff}\r\n".to_owned(),
    ] {
        assert_eq!(ask(&header), 401, "{header}");
    }
}

#[test]
fn a_key_may_do_what_it_is_allowed_and_no_more() {
    let api = Api::start();
    assert_eq!(api.post_as(SENDER, "/v1/publish", PUBLISH.as_bytes()).status, 200);
    assert_eq!(api.fake.asked().len(), 1);
    let error = api.post_as(SENDER, "/v1/revoke", REVOKE.as_bytes()).refused(403, "FORBIDDEN");
    assert_eq!(error, "This key may not call revoke");
    api.get_as(SENDER, "/metrics").refused(403, "FORBIDDEN");
    // Before the body is looked at.
    api.post_as(SENDER, "/v1/revoke", b"{").refused(403, "FORBIDDEN");
    assert_eq!(api.get_as(SENDER, "/openapi.json").status, 200);
    assert_eq!(api.fake.asked(), []);
}

#[test]
fn without_keys_every_call_is_refused_and_keys_can_be_replaced() {
    let api = Api::with_keys(&[]);
    api.post("/v1/publish", PUBLISH).refused(401, "UNAUTHENTICATED");
    api.post_as("", "/v1/publish", PUBLISH.as_bytes()).refused(401, "UNAUTHENTICATED");
    // G2
    api.keys.replace(&[key("new", ADMIN, Allow::EVERYTHING)]);
    assert_eq!(api.post("/v1/publish", PUBLISH).status, 200);
    api.keys.replace(&[]);
    api.post("/v1/publish", PUBLISH).refused(401, "UNAUTHENTICATED");
    assert_eq!(api.fake.asked().len(), 1);
}

// GD-9
#[test]
fn refused_keys_are_audited_without_the_key() {
    let api = Api::start();
    api.post_as("a-secret-that-is-wrong", "/v1/revoke", REVOKE.as_bytes()).refused(401, "UNAUTHENTICATED");
    api.post_as(SENDER, "/v1/revoke", REVOKE.as_bytes()).refused(403, "FORBIDDEN");
    let [wrong, forbidden] = &api.fake.records()[..] else { panic!("two records") };
    assert_eq!((wrong.kind, wrong.code, wrong.key.as_deref()), (Kind::Refused, Some(Code::Unauthenticated), None));
    assert_eq!(wrong.ip, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((forbidden.kind, forbidden.code), (Kind::Refused, Some(Code::Forbidden)));
    assert_eq!((forbidden.key.as_deref(), forbidden.reason.as_deref()), (Some("sender"), Some("revoke")));
    assert!(!format!("{wrong:?}{forbidden:?}").contains("secret"));
}
