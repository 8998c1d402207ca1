//! The clients against bytes written by hand.

use super::*;

fn at(ns: u64) -> Arrival {
    Arrival { at_ns: ns, seen_ns: ns }
}

const HEAD: &[u8] = b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 126];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn event(group: u32, sequence: u32, sent_ns: u64) -> Vec<u8> {
    let mut data = stamp::blank(64);
    stamp::write(&mut data, Stamp { group, sequence, sent_ns });
    let text = format!(r#"{{"type":"event","data":{}}}"#, String::from_utf8(data).unwrap());
    server_frame(frame::TEXT, text.as_bytes())
}

/// One publisher and two subscribers of one pipe, all ready.
fn ready() -> Load {
    let publisher = Role { group_first: 0, group_count: 0, publishes: Some(0) };
    let subscriber = Role { group_first: 0, group_count: 1, publishes: None };
    let layout = Layout { scenario: "t", roles: vec![publisher, subscriber, subscriber], groups: 1, split: false };
    let mut load = Load::new(&layout, 64);
    for index in 0..3 {
        load.connected(index, "request".to_owned());
        load.receive(index, HEAD, at(1));
        load.receive(index, &server_frame(frame::TEXT, br#"{"type":"welcome"}"#), at(2));
        if index > 0 {
            assert_eq!(load.clients[index as usize].phase, Phase::Subscribing, "it waits for the reply");
            load.receive(index, &server_frame(frame::TEXT, br#"{"type":"reply","id":0,"ok":true}"#), at(3));
        }
    }
    assert_eq!((load.ready, load.trouble.clients_lost), (3, 0));
    load.outbox.clear();
    load
}

#[test]
fn a_window_is_delivered_when_every_subscriber_has_all_of_it() {
    let mut load = ready();
    load.publish(0, 2, 100);
    assert_eq!((load.outbox.len(), load.outbox[0].0, load.outstanding), (1, 0, 4));
    for (client, sequence) in [(1, 0), (1, 1), (2, 0)] {
        load.receive(client, &event(0, sequence, 100), at(1_100));
        assert!(load.delivered.is_empty());
    }
    load.receive(2, &event(0, 1, 100), at(2_100));
    assert_eq!(load.delivered, [0]);
    assert_eq!((load.deliveries, load.outstanding, load.faults()), (4, 0, Faults::default()));
    assert_eq!(load.latency.len(), 4);
    assert!((1_990..=2_010).contains(&load.latency.max()), "{}", load.latency.max());
}

#[test]
fn frames_cut_anywhere_are_put_together_again() {
    let mut bytes: Vec<u8> = Vec::new();
    for sequence in 0..3 {
        bytes.extend(event(0, sequence, 1));
    }
    for cut in 1..bytes.len() {
        let mut load = ready();
        load.publish(0, 3, 1);
        load.receive(1, &bytes[..cut], at(2));
        load.receive(1, &bytes[cut..], at(2));
        assert_eq!(load.deliveries, 3, "cut at {cut}");
        assert!(load.clients[1].kept.is_empty());
    }
}

#[test]
fn a_head_cut_anywhere_with_the_welcome_behind_it_is_understood() {
    let role = Role { group_first: 0, group_count: 0, publishes: None };
    let mut bytes = HEAD.to_vec();
    bytes.extend(server_frame(frame::TEXT, br#"{"type":"welcome"}"#));
    for cut in 1..bytes.len() {
        let mut load = Load::new(&Layout { scenario: "t", roles: vec![role], groups: 0, split: false }, 64);
        load.connected(0, String::new());
        load.receive(0, &bytes[..cut], at(1));
        load.receive(0, &bytes[cut..], at(1));
        assert_eq!(load.ready, 1, "cut at {cut}");
    }
}

#[test]
fn losses_duplicates_and_strays_are_found() {
    let mut load = ready();
    load.publish(0, 2, 1);
    load.receive(1, &event(0, 1, 1), at(2));
    load.receive(1, &event(0, 1, 1), at(2));
    load.receive(2, &event(7, 0, 1), at(2));
    let faults = load.faults();
    assert_eq!((faults.lost, faults.duplicated, faults.unexpected), (3, 1, 1));
    assert_eq!(load.outstanding, 3);
}

#[test]
fn pings_are_answered_and_closes_and_refusals_are_told() {
    let mut load = ready();
    load.receive(1, &server_frame(frame::PING, b"hi"), at(1));
    assert_eq!((load.outbox.len(), load.outbox[0].1[0]), (1, 0x8A));
    load.receive(1, &server_frame(frame::TEXT, br#"{"type":"reply","ok":false,"code":"FORBIDDEN"}"#), at(1));
    assert_eq!(load.trouble.refusals, 1);
    load.receive(2, &server_frame(frame::CLOSE, b"\x11\x3dslow"), at(1));
    assert_eq!((load.trouble.clients_lost, load.ready), (1, 2));
    assert!(load.trouble.first.as_ref().unwrap().contains("FORBIDDEN"));
}
