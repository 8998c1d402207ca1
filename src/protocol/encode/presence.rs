//! Who is there, in words: the members in a reply, and the `presence` frames that build on them.
//!
//! Three forms of the frame. *What changed*: `joined` and `left`. *A new list*: `members`, which replaces whatever the
//! client had; sent where the changes are no longer known one by one. *Numbers only*: neither of these, where there
//! are more members than are listed (E11). All of them, and the replies, carry `total` and `anonymous`, so that a
//! list is known to be complete where it is as long as `total`.
//!
//! Source: PROTOCOL.md §3, rulings B21, C9, C17, E11.

use super::{BatchReply, number, raw, reply, string};
use crate::protocol::message::Id;

/// One person in a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// User id.
    pub user: &'a str,
    /// Display name.
    pub name: Option<&'a str>,
    /// The user's connections that are subscribed; 0 for one who has left.
    pub connections: u64,
}

/// Those who are there, to be listed.
#[derive(Clone, Debug)]
pub struct Attendance<I> {
    /// The members, in the order of the list.
    pub members: I,
    /// How many members there are.
    pub total: u64,
    /// Connections without identity.
    pub anonymous: u64,
    /// The list ends before it takes more than so many bytes.
    pub bytes_max: usize,
}

/// `reply` with the members. Returns how many were listed.
pub fn reply_members<'m>(
    out: &mut Vec<u8>,
    id: Id<'_>,
    attendance: Attendance<impl Iterator<Item = Member<'m>>>,
) -> u64 {
    reply(out, id);
    raw(out, r#","ok":true,"#);
    let listed = list(out, attendance);
    raw(out, "}");
    listed
}

impl BatchReply<'_> {
    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// What was asked for is done for this pipe, and these are there. Returns how many were listed.
    pub fn members<'m>(&mut self, pipe: &str, attendance: Attendance<impl Iterator<Item = Member<'m>>>) -> u64 {
        self.key(pipe);
        raw(self.out, r#"{"ok":true,"#);
        let listed = list(self.out, attendance);
        raw(self.out, "}");
        listed
    }
}

/// `presence`: who came and who went. `total` and `anonymous` are as they are after that.
pub fn changes<'m>(
    out: &mut Vec<u8>,
    pipe: &str,
    joined: impl Iterator<Item = Member<'m>>,
    left: impl Iterator<Item = Member<'m>>,
    (total, anonymous): (u64, u64),
) {
    begin(out, pipe);
    side(out, r#","joined":["#, joined);
    side(out, r#"],"left":["#, left);
    raw(out, "],");
    numbers(out, total, anonymous);
    raw(out, "}");
}

/// `presence` with a new list. Returns how many were listed.
pub fn members<'m>(out: &mut Vec<u8>, pipe: &str, attendance: Attendance<impl Iterator<Item = Member<'m>>>) -> u64 {
    begin(out, pipe);
    raw(out, ",");
    let listed = list(out, attendance);
    raw(out, "}");
    listed
}

/// `presence` with numbers only.
pub fn counts(out: &mut Vec<u8>, pipe: &str, (total, anonymous): (u64, u64)) {
    begin(out, pipe);
    raw(out, ",");
    numbers(out, total, anonymous);
    raw(out, "}");
}

/// What stands before the pipe's name in a `presence` frame.
pub(super) const BEGINNING: &str = r#"{"type":"presence","pipe":"#;

fn begin(out: &mut Vec<u8>, pipe: &str) {
    raw(out, BEGINNING);
    string(out, pipe);
}

fn side<'m>(out: &mut Vec<u8>, before: &str, members: impl Iterator<Item = Member<'m>>) {
    raw(out, before);
    for (place, one) in members.enumerate() {
        raw(out, if place > 0 { "," } else { "" });
        member(out, one);
    }
}

fn list<'m>(out: &mut Vec<u8>, attendance: Attendance<impl Iterator<Item = Member<'m>>>) -> u64 {
    raw(out, r#""members":["#);
    let start = out.len();
    let mut listed = 0;
    for one in attendance.members {
        let before = out.len();
        if listed > 0 {
            raw(out, ",");
        }
        member(out, one);
        if out.len() - start > attendance.bytes_max {
            out.truncate(before);
            break;
        }
        listed += 1;
    }
    raw(out, "],");
    numbers(out, attendance.total, attendance.anonymous);
    listed
}

fn member(out: &mut Vec<u8>, member: Member<'_>) {
    raw(out, r#"{"user":"#);
    string(out, member.user);
    if let Some(name) = member.name {
        raw(out, r#","name":"#);
        string(out, name);
    }
    number(out, r#","connections":"#, member.connections);
    raw(out, "}");
}

fn numbers(out: &mut Vec<u8>, total: u64, anonymous: u64) {
    number(out, r#""total":"#, total);
    number(out, r#","anonymous":"#, anonymous);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(build: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        build(&mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        text
    }

    const ANN: Member<'_> = Member { user: "ann", name: Some("Ann \"A\""), connections: 2 };
    const BOB: Member<'_> = Member { user: "bob", name: None, connections: 0 };

    #[test]
    fn frames_read_as_the_page_says() {
        assert_eq!(
            text(|out| changes(out, "a", [ANN].into_iter(), [BOB].into_iter(), (7, 1))),
            r#"{"type":"presence","pipe":"a","joined":[{"user":"ann","name":"Ann \"A\"","connections":2}],"left":[{"user":"bob","connections":0}],"total":7,"anonymous":1}"#
        );
        assert_eq!(
            text(|out| counts(out, "a", (2_000, 0))),
            r#"{"type":"presence","pipe":"a","total":2000,"anonymous":0}"#
        );
    }

    #[test]
    fn a_list_ends_where_its_room_ends_and_is_still_json() {
        let both = |bytes_max| Attendance { members: [ANN, BOB].into_iter(), total: 2, anonymous: 0, bytes_max };
        let mut listed = 0;
        let full = text(|out| listed = members(out, "a", both(1_000)));
        assert!(listed == 2 && full.contains("bob"), "{full}");
        let short = text(|out| listed = reply_members(out, Id::new("1").expect("an id"), both(60)));
        assert!(listed == 1 && !short.contains("bob") && short.contains(r#""total":2"#), "{short}");
        let none = text(|out| listed = members(out, "a", both(3)));
        assert!(listed == 0 && none.contains(r#""members":[],"#), "{none}");
    }
}
