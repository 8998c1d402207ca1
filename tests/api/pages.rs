//! Browsers: a page that has somebody's key in it still cannot call. Only the demonstration opens the API to pages.

use crate::fake::{ADMIN, Api};

#[test]
fn no_page_may_call() {
    let api = Api::start();
    let origin = "Host: a\r\nOrigin: http://a:8080\r\n";
    let asked = api.send(
        format!(
            "OPTIONS /v1/revoke HTTP/1.1\r\n{origin}Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization\r\n\r\n"
        )
        .as_bytes(),
    );
    asked.refused(405, "INVALID");
    let called =
        api.send(format!("GET /v1/stats HTTP/1.1\r\n{origin}Authorization: Bearer {ADMIN}\r\n\r\n").as_bytes());
    assert_eq!(called.status, 200);
    for answer in [asked, called] {
        assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")), "{answer:?}");
    }
}
