//! What the tests of the running server share: [`Server`] (a process), [`Request`] and [`Raw`] (bytes and HTTP on a
//! socket), [`Client`] (a WebSocket client that may also misbehave), [`Api`] (the application's calls), [`Application`]
//! (what the server calls).
//!
//! Everything that waits does so for at most [`PATIENCE`] and then panics with what it saw instead.

mod api;
mod application;
mod audit;
mod client;
mod replies;
mod server;
mod socket;
mod spread;

pub use api::{API_KEY, Api};
pub use application::{Application, Heard, Reply};
pub use audit::{AUDITED, await_fault, await_records, records};
pub use client::{Client, Frame, Message, frame, opcode};
pub use replies::{NO_RATES, assert_code, assert_forbidden, assert_ok};
pub use server::{Counters, Launch, Server};
pub use socket::{Raw, Request, Response};
pub use spread::{assert_system, one_on_each, rights, token_with};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long something that must happen may take. The machine is shared: far longer than it ever should.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long to look on where nothing may happen.
pub const MOMENT: Duration = Duration::from_millis(300);
/// The secret of every server that is not told otherwise.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A token with these claims (JSON, an object), signed with [`SECRET`].
pub fn sign(claims: &str) -> String {
    pipeward::auth::token::sign(SECRET.as_bytes(), claims)
}

/// A token of `user` with these grants: pairs of a name or pattern and the rights, as in `("room-*", "sub,pub")`.
pub fn token(user: &str, grants: &[(&str, &str)]) -> String {
    let pipes: serde_json::Map<_, _> = grants
        .iter()
        .map(|(pipe, rights)| {
            let has = |right: &str| rights.split(',').any(|one| one == right);
            let rights =
                serde_json::json!({"subscribe": has("sub"), "publish": has("pub"), "presence": has("presence")});
            ((*pipe).to_owned(), rights)
        })
        .collect();
    sign(&serde_json::json!({"sub": user, "pipes": pipes}).to_string())
}

/// The time in Unix milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// The time in Unix seconds, rounded down.
pub fn unix_s() -> u64 {
    unix_ms() / 1000
}

/// Looks again and again until `condition` holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sets its flag when dropped: the other threads of a test that fails are told to stop.
pub struct Stop<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
