//! One simulated client: what is remembered about it, its handshake, its subscriptions.
//!
//! There are thousands of these in one thread, so the struct is small and holds no buffer while nothing is incomplete.

use crate::token::{Credentials, Grants};

/// Where a client stands between its socket and its last subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No socket yet.
    Unopened,
    /// The TCP connection is being made.
    Connecting,
    /// The upgrade request is sent.
    Upgrading,
    /// Upgraded; the `welcome` frame is awaited.
    Welcoming,
    /// A subscribe is sent; its reply is awaited.
    Subscribing,
    /// Welcomed and subscribed.
    Ready,
    /// Refused, closed or broken.
    Lost,
}

/// What a client does in a scenario: it subscribes to a range of groups, and may be the publisher of one. A group is a
/// pipe with one publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// First group that it subscribes to.
    pub group_first: u32,
    /// Groups that it subscribes to, from there.
    pub group_count: u32,
    /// The group that it publishes to.
    pub publishes: Option<u32>,
}

/// The state of one client.
pub struct Client {
    /// Its part in the scenario.
    pub role: Role,
    /// Its descriptor; −1 before there is one.
    pub socket: i32,
    /// The worker that serves it, where the server says so.
    pub worker: Option<u16>,
    /// How far it has come.
    pub phase: Phase,
    /// A send is in flight: the next has to wait, or the two could be reordered.
    pub sending: bool,
    /// Its lane of `group_first`; the other groups follow.
    pub lane_first: u32,
    /// Groups whose subscription is asked for.
    pub asked: u32,
    /// When it was opened, in nanoseconds since the run began.
    pub opened_ns: u64,
    /// The front of a frame or of the response head, until the rest arrives; mostly empty, and then no allocation.
    pub kept: Vec<u8>,
}

const _: () = assert!(size_of::<Client>() <= 100);

/// Pipes in one subscribe message (PROTOCOL.md §2).
pub const BATCH_PIPES_MAX: u32 = 256;
/// Bytes of a response head. Longer: the client is lost.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

// A fixed key, hence a fixed answer (both are the example of RFC 6455 §1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Name of the user behind a client.
pub fn user(index: u32) -> String {
    format!("u-{index:07}")
}

/// Name of a group's pipe.
pub fn pipe(scenario: &str, group: u32) -> String {
    format!("{scenario}-{group:06}")
}

/// The three grants (four for one that also publishes elsewhere) that a token of this client carries.
pub fn grants(scenario: &str, index: u32, role: Role) -> Grants {
    let mut grants = vec![(format!("user-{}", user(index)), true, false), ("announcements".to_owned(), true, false)];
    match role.group_count {
        0 => {}
        1 => grants.push((pipe(scenario, role.group_first), true, role.publishes == Some(role.group_first))),
        // A token in a header cannot name a thousand pipes (at most 16 KiB of head).
        _ => grants.push((format!("{scenario}-*"), true, role.publishes.is_some())),
    }
    if let Some(group) = role.publishes.filter(|_| role.group_count == 0) {
        grants.push((pipe(scenario, group), false, true));
    }
    grants
}

/// The upgrade request.
pub fn request(
    host: &str,
    path: &str,
    credentials: &Credentials,
    user: &str,
    grants: &Grants,
    expires_s: u64,
) -> String {
    let token = credentials.token(user, grants, expires_s);
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: pipeward.v1\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// Reads the response head at the front of `bytes`: its length once it is whole, or why it is no upgrade.
pub fn response(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Err("the response head is too long".to_owned()) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        let body: String = String::from_utf8_lossy(&bytes[end + 4..]).chars().take(200).collect();
        return Err(format!("refused: {status} {body}"));
    }
    let accepted = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT);
    if accepted { Ok(Some(end + 4)) } else { Err("the upgrade has a wrong Sec-WebSocket-Accept".to_owned()) }
}

/// The worker in the `connection` of a welcome: `node-worker-slot-generation`.
pub fn worker(welcome: &[u8]) -> Option<u16> {
    const KEY: &[u8] = b"\"connection\":\"";
    let name = &welcome[memchr::memmem::find(welcome, KEY)? + KEY.len()..];
    let name = std::str::from_utf8(&name[..memchr::memchr(b'"', name)?]).ok()?;
    let mut parts = name.split('-').skip(1);
    let worker = parts.next()?.parse().ok();
    parts.next().and(worker)
}

/// The subscribe message for the next groups of the role, after `asked` of them; and how many it asks for.
pub fn subscribe(scenario: &str, role: Role, asked: u32) -> (String, u32) {
    let count = (role.group_count - asked).min(BATCH_PIPES_MAX);
    let first = role.group_first + asked;
    let message = if count == 1 {
        format!(r#"{{"type":"subscribe","id":{asked},"pipe":"{}"}}"#, pipe(scenario, first))
    } else {
        let pipes: Vec<String> = (first..first + count).map(|group| format!("\"{}\"", pipe(scenario, group))).collect();
        format!(r#"{{"type":"subscribe","id":{asked},"pipes":[{}]}}"#, pipes.join(","))
    };
    (message, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_awaited_checked_and_measured() {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-ACCEPT: {ACCEPT}\r\n\r\n");
        let mut bytes = head.clone().into_bytes();
        assert_eq!(response(&bytes[..bytes.len() - 1]), Ok(None));
        bytes.extend_from_slice(b"\x81\x00");
        assert_eq!(response(&bytes), Ok(Some(head.len())));
        let wrong = "HTTP/1.1 101 X\r\nSec-WebSocket-Accept: AAAA\r\n\r\n";
        assert!(response(wrong.as_bytes()).unwrap_err().contains("Accept"));
        let refused = "HTTP/1.1 401 Unauthorized\r\n\r\n{\"code\":\"UNAUTHENTICATED\"}";
        assert!(response(refused.as_bytes()).unwrap_err().contains("401 Unauthorized {\"code\""));
        assert!(response(&vec![b'x'; HEAD_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn the_worker_is_read_from_a_welcome_that_names_it() {
        assert_eq!(worker(br#"{"type":"welcome","connection":"0-3-17-ab","user":{}}"#), Some(3));
        assert_eq!(worker(br#"{"type":"welcome","connection":"12"}"#), None);
        assert_eq!(worker(br#"{"type":"welcome","connection":"0-x-1-2"}"#), None);
        assert_eq!(worker(b"{}"), None);
    }

    #[test]
    fn a_thousand_pipes_are_asked_for_in_batches() {
        let role = Role { group_first: 0, group_count: 600, publishes: None };
        let mut asked = 0;
        let mut counts = Vec::new();
        while asked < role.group_count {
            let (message, count) = subscribe("in", role, asked);
            let message: serde_json::Value = serde_json::from_str(&message).unwrap();
            assert_eq!(message["pipes"].as_array().unwrap().len(), count as usize);
            assert_eq!(message["pipes"][0], pipe("in", asked));
            counts.push(count);
            asked += count;
        }
        assert_eq!(counts, [256, 256, 88]);
    }

    #[test]
    fn every_client_has_three_grants_and_the_receiver_of_all_a_pattern() {
        let subscriber = Role { group_first: 4, group_count: 1, publishes: None };
        let publisher = Role { group_first: 0, group_count: 0, publishes: Some(4) };
        let receiver = Role { group_first: 0, group_count: 9, publishes: None };
        for (role, expected) in [
            (subscriber, ("s-000004".to_owned(), true, false)),
            (publisher, ("s-000004".to_owned(), false, true)),
            (receiver, ("s-*".to_owned(), true, false)),
        ] {
            let grants = grants("s", 1, role);
            assert_eq!(grants.len(), 3);
            assert_eq!(grants[2], expected);
        }
    }
}
