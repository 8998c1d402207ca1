//! `[limits]`: how much a connection, a user and a tenant may use.

use super::super::kind::{Key, Kind, MESSAGE_BYTES_MAX, QUEUE_BYTES_MAX};
use super::key;
use crate::bounds::PIPES_MAX;

const USUAL: &str = "{ per_s = 50, burst = 100 }";

pub(super) static LIMITS: &[Key] = &[
    key(
        "limits.connections",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.connections),
        "100000",
        "Connections in all; 0 = no limit.",
    ),
    key(
        "limits.connections_per_ip",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.connections_per_ip),
        "0",
        "Connections of one address (IPv6: one /64); 0 = no limit.",
    ),
    key(
        "limits.connections_per_user",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.connections_per_user),
        "0",
        "Connections of one user of one tenant; 0 = no limit.",
    ),
    key(
        "limits.connections_per_tenant",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.connections_per_tenant),
        "0",
        "Connections of one tenant; 0 = no limit.",
    ),
    key(
        "limits.handshakes_per_s",
        Kind::Number(0, u32::MAX, |d| &mut d.limits.handshakes_per_s),
        "0",
        "Handshakes per second of the whole server, with a burst of one second's worth; 0 = no limit.",
    ),
    key(
        "limits.message_bytes",
        Kind::Size(MESSAGE_BYTES_MAX, |d| &mut d.limits.message_bytes),
        "65536",
        "Bytes of one message of a client, after reassembly. A longer one closes 1009.",
    ),
    key(
        "limits.subscriptions",
        Kind::Size(PIPES_MAX as u32, |d| &mut d.limits.subscriptions),
        "256",
        "Pipes that one connection may be subscribed to.",
    ),
    key(
        "limits.queue_bytes",
        Kind::Size(QUEUE_BYTES_MAX, |d| &mut d.limits.queue_bytes),
        "1048576",
        "Bytes that may wait to be sent to one connection.",
    ),
    key(
        "limits.when_slow",
        Kind::WhenSlow(|d| &mut d.limits.when_slow),
        "\"close\"",
        "What a full queue leads to: `\"close\"` (4413), or `\"drop_oldest\"`: the oldest events go and the client is told how many (`lagged`).",
    ),
    key(
        "limits.throttle_s",
        Kind::Number(0, 3600, |d| &mut d.limits.throttle_s),
        "10",
        "Seconds that a connection may stay over a rate before it is closed (4429); 0 closes at the first refusal.",
    ),
    key(
        "limits.message",
        Kind::Rate(|d| &mut d.limits.rates.message),
        "{ per_s = 100, burst = 200 }",
        "Rate of all messages of a connection, whatever their type. In every rate `per_s = 0` switches it off, and `burst` is one second's worth where it is left out.",
    ),
    key("limits.publish", Kind::Rate(|d| &mut d.limits.rates.publish), USUAL, "Rate of `publish`, per connection."),
    key(
        "limits.subscribe",
        Kind::Rate(|d| &mut d.limits.rates.subscribe),
        USUAL,
        "Rate of `subscribe`, per connection.",
    ),
    key("limits.presence", Kind::Rate(|d| &mut d.limits.rates.presence), USUAL, "Rate of `presence`, per connection."),
    key(
        "limits.refresh",
        Kind::Rate(|d| &mut d.limits.rates.refresh),
        "{ per_s = 1, burst = 5 }",
        "Rate of `refresh`, per connection.",
    ),
    key("limits.action", Kind::Rate(|d| &mut d.limits.rates.action), USUAL, "Rate of `action`, per connection."),
    key("limits.enqueue", Kind::Rate(|d| &mut d.limits.rates.enqueue), USUAL, "Rate of `enqueue`, per connection."),
    key("limits.push", Kind::Rate(|d| &mut d.limits.rates.push), USUAL, "Rate of `push`, per connection."),
    key(
        "limits.bytes",
        Kind::Rate(|d| &mut d.limits.rates.bytes),
        "{ per_s = 1048576, burst = 4194304 }",
        "Bytes of messages that a connection may send. `burst` may not be below `limits.message_bytes`.",
    ),
    key(
        "limits.per_user.message",
        Kind::Rate(|d| &mut d.limits.per_user.message),
        "",
        "The same rates, summed over the connections of one user of one tenant. Default: none.",
    ),
    key("limits.per_user.publish", Kind::Rate(|d| &mut d.limits.per_user.publish), "", "Rate of `publish`, per user."),
    key(
        "limits.per_user.subscribe",
        Kind::Rate(|d| &mut d.limits.per_user.subscribe),
        "",
        "Rate of `subscribe`, per user.",
    ),
    key(
        "limits.per_user.presence",
        Kind::Rate(|d| &mut d.limits.per_user.presence),
        "",
        "Rate of `presence`, per user.",
    ),
    key("limits.per_user.refresh", Kind::Rate(|d| &mut d.limits.per_user.refresh), "", "Rate of `refresh`, per user."),
    key("limits.per_user.action", Kind::Rate(|d| &mut d.limits.per_user.action), "", "Rate of `action`, per user."),
    key("limits.per_user.enqueue", Kind::Rate(|d| &mut d.limits.per_user.enqueue), "", "Rate of `enqueue`, per user."),
    key("limits.per_user.push", Kind::Rate(|d| &mut d.limits.per_user.push), "", "Rate of `push`, per user."),
    key(
        "limits.per_user.bytes",
        Kind::Rate(|d| &mut d.limits.per_user.bytes),
        "",
        "Bytes of messages, per user. `burst` may not be below `limits.message_bytes`.",
    ),
    key(
        "limits.per_tenant.message",
        Kind::Rate(|d| &mut d.limits.per_tenant.message),
        "",
        "The same rates, summed over the connections of one tenant. Default: none.",
    ),
    key(
        "limits.per_tenant.publish",
        Kind::Rate(|d| &mut d.limits.per_tenant.publish),
        "",
        "Rate of `publish`, per tenant.",
    ),
    key(
        "limits.per_tenant.subscribe",
        Kind::Rate(|d| &mut d.limits.per_tenant.subscribe),
        "",
        "Rate of `subscribe`, per tenant.",
    ),
    key(
        "limits.per_tenant.presence",
        Kind::Rate(|d| &mut d.limits.per_tenant.presence),
        "",
        "Rate of `presence`, per tenant.",
    ),
    key(
        "limits.per_tenant.refresh",
        Kind::Rate(|d| &mut d.limits.per_tenant.refresh),
        "",
        "Rate of `refresh`, per tenant.",
    ),
    key(
        "limits.per_tenant.action",
        Kind::Rate(|d| &mut d.limits.per_tenant.action),
        "",
        "Rate of `action`, per tenant.",
    ),
    key(
        "limits.per_tenant.enqueue",
        Kind::Rate(|d| &mut d.limits.per_tenant.enqueue),
        "",
        "Rate of `enqueue`, per tenant.",
    ),
    key("limits.per_tenant.push", Kind::Rate(|d| &mut d.limits.per_tenant.push), "", "Rate of `push`, per tenant."),
    key(
        "limits.per_tenant.bytes",
        Kind::Rate(|d| &mut d.limits.per_tenant.bytes),
        "",
        "Bytes of messages, per tenant. `burst` may not be below `limits.message_bytes`.",
    ),
];
