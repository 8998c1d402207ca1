//! The demonstration's application: people sign in to it and get a session cookie, and Pipeward asks it who they are.
//!
//! It is what any application with sessions and an authorize endpoint looks like: `POST /sign-in` sets the cookie, `POST
//! /authorize` is `[auth.webhook]` of the demonstration. The cookie goes to whatever port of the host is called, so a
//! WebSocket carries it to Pipeward, which forwards it. `GET /last` is for the page alone: what was asked last, and
//! answered.
//!
//! Invariant: a session is a random id that only its browser knows; what is shown of a question holds none. Nobody but
//! pages of the same host signs anybody in, and nobody but Pipeward, by its signature, is told who somebody is.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::header::{ACCESS_CONTROL_ALLOW_CREDENTIALS, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::{pipes_of, reachable};
use crate::control::api::{page_of_same_host, serve, with_pages};
use crate::control::application::signature;

/// The name of the cookie. Cookies know no port: others of this host must not be taken for ours.
const COOKIE: &str = "pipeward_demo_session";
/// Sessions that are remembered. More: the oldest is forgotten.
const SESSIONS_MAX: usize = 64;
/// A call that was signed longer ago is refused, in seconds: somebody may have kept it.
const SIGNED_S_MAX: u64 = 300;
/// Who may sign in.
const PEOPLE: [(&str, &str); 2] = [("ann", "Ann"), ("ben", "Ben")];

/// The application before it serves: its address is known, so that the configuration can name it.
pub(super) struct Application {
    listener: TcpListener,
    desk: Arc<Desk>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where Pipeward asks.
    pub authorize: String,
}

/// What it knows.
struct Desk {
    secret: Vec<u8>,
    /// Session and user, the oldest first.
    sessions: Mutex<VecDeque<(String, &'static str)>>,
    last: Mutex<Value>,
}

impl Application {
    /// On a free port of the host of `beside`. `secret` signs what Pipeward asks.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn bind(beside: SocketAddr, secret: &[u8]) -> Result<Application, String> {
        let refused = |why: std::io::Error| format!("the sample application cannot listen on {}: {why}", beside.ip());
        let listener = TcpListener::bind(SocketAddr::new(beside.ip(), 0)).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let authorize = format!("http://{}/authorize", reachable(address));
        let desk = Desk { secret: secret.to_vec(), sessions: Mutex::default(), last: Mutex::default() };
        Ok(Application { listener, desk: Arc::new(desk), address, authorize })
    }

    /// Serves on a thread of its own for as long as the process lives. To be called when signals are blocked already: they
    /// are for the main thread.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn start(self) -> Result<(), String> {
        let refused = |why: std::io::Error| format!("the sample application cannot start: {why}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refused)?;
        let Application { listener, desk, .. } = self;
        let router = with_pages(router(desk));
        let thread = std::thread::Builder::new().name("application".to_owned());
        let served = move || {
            runtime.block_on(async {
                // Nobody stops it: it ends with the process.
                let (_running, stopped) = watch::channel(false);
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, router, stopped).await,
                    Err(why) => tracing::error!("the sample application cannot serve: {why}"),
                }
            });
        };
        thread.spawn(served).map(drop).map_err(refused)
    }
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/sign-in", post(sign_in))
        .route("/authorize", post(authorize))
        .route("/last", get(last))
        .with_state(desk)
}

/// Who wants to sign in.
#[derive(Deserialize)]
struct SignIn {
    user: String,
}

/// `POST /sign-in`: a session for Ann or Ben. For anybody else the cookie of nobody, as somebody who made it up would have.
/// There is no password: this is a demonstration.
async fn sign_in(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: String) -> Response {
    if page_of_same_host(&headers).is_none() {
        // Another site must not choose who its visitors are here.
        return (StatusCode::FORBIDDEN, "only pages of this host sign people in\n").into_response();
    }
    let Ok(SignIn { user }) = serde_json::from_str(&body) else {
        return (StatusCode::BAD_REQUEST, "who?\n").into_response();
    };
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "no randomness from the system\n").into_response();
    }
    let session: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let person = PEOPLE.iter().find(|(id, _)| *id == user);
    if let Some((id, _)) = person {
        let mut sessions = desk.sessions();
        if sessions.len() >= SESSIONS_MAX {
            sessions.pop_front();
        }
        sessions.push_back((session.clone(), id));
    }
    let cookie = format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict");
    let answer = json!({ "signed_in": person.map(|(id, _)| id) });
    shared(([(SET_COOKIE, cookie)], Json(answer)))
}

/// `POST /authorize`: whose the forwarded cookie is, and what they may do. Nobody's: `null`, which Pipeward makes a 401.
async fn authorize(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: String) -> Response {
    if !desk.is_signed(&headers, &body) {
        // Not 401: that would be about the client's credentials.
        return (StatusCode::BAD_REQUEST, "the signature is not Pipeward's, or old\n").into_response();
    }
    let Ok(mut question) = serde_json::from_str::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "no JSON\n").into_response();
    };
    if !matches!(question["kind"].as_str(), Some("connect" | "refresh")) {
        return (StatusCode::BAD_REQUEST, "this endpoint only authorizes\n").into_response();
    }
    let answer = question["headers"]["cookie"].as_str().and_then(|cookies| desk.user_of(cookies));
    let answer = answer.map_or_else(
        || "null".to_owned(),
        |(id, name)| format!(r#"{{"user":{{"id":"{id}","name":"{name}"}},"pipes":{}}}"#, pipes_of(id, false)),
    );
    if let Some(cookie) = question["headers"].get_mut("cookie") {
        // A page has no business with what only the browser knows.
        *cookie = json!(format!("{COOKIE}=…"));
    }
    *desk.last() =
        json!({ "question": question, "answer": serde_json::from_str::<Value>(&answer).unwrap_or_default() });
    ([(CONTENT_TYPE, "application/json")], answer).into_response()
}

/// `GET /last`: what authorize was asked last, and what it answered; null before the first time.
async fn last(State(desk): State<Arc<Desk>>) -> Response {
    let last = desk.last().clone();
    shared(Json(last))
}

/// An answer to a call with cookies, which a page of another port may read ([`with_pages`] says which).
fn shared(answer: impl IntoResponse) -> Response {
    ([(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"))], answer).into_response()
}

impl Desk {
    /// Whose session is among these cookies: id and name.
    fn user_of(&self, cookies: &str) -> Option<(&'static str, &'static str)> {
        let ours = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
        let (_, session) = ours.into_iter().find(|(name, _)| *name == COOKIE)?;
        let sessions = self.sessions();
        let (_, user) = sessions.iter().find(|(own, _)| bool::from(own.as_bytes().ct_eq(session.as_bytes())))?;
        PEOPLE.into_iter().find(|(id, _)| id == user)
    }

    /// Whether Pipeward has signed this, and lately.
    fn is_signed(&self, headers: &HeaderMap, body: &str) -> bool {
        let Some(given) = headers.get(signature::HEADER).and_then(|value| value.to_str().ok()) else { return false };
        let at_s = given.strip_prefix("t=").and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
        let Some(at_s) = at_s else { return false };
        let now_s = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let own = signature::sign(&self.secret, at_s, body);
        now_s.abs_diff(at_s) <= SIGNED_S_MAX && bool::from(own.as_bytes().ct_eq(given.as_bytes()))
    }

    fn sessions(&self) -> MutexGuard<'_, VecDeque<(String, &'static str)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Value> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
