//! The scenarios: who connects, who publishes what, and what is measured. One file each.

pub mod connect;
pub mod cross;
pub mod fanout;
pub mod idle;
pub mod inbound;
pub mod latency;
pub mod pings;
pub mod pipes;

use clap::Subcommand;

use crate::client::Role;
use crate::load::Layout;

/// What to run.
#[derive(Clone, Debug, Subcommand)]
pub enum Scenario {
    /// One pipe with many subscribers; the next window follows when the last is delivered to all
    Fanout(fanout::Options),
    /// Many pipes with few subscribers each, a publisher and a window for each
    Pipes(pipes::Options),
    /// One pipe at a fixed rate: how long events take, counted from the intended time of sending
    Latency(latency::Options),
    /// Many publishers with a pipe each, and one receiver subscribed to all of them
    Inbound(inbound::Options),
    /// A storm of handshakes, each with welcome and one subscribe: CPU per connection
    Connect(connect::Options),
    /// Memory per idle connection: the slope over several counts
    Idle(idle::Options),
    /// Idle connections that are pinged: CPU per ping and its pong
    Pings(pings::Options),
    /// Pairs of connections at a fixed rate: latency from one to another, across workers where there are several
    Cross(cross::Options),
}

/// What the clients do once they are there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Publishes.
    Exchange {
        /// Outstanding for each group.
        window: u32,
        /// Publishes per second in all; none: as fast as windows are delivered.
        rate: Option<f64>,
    },
    /// Nothing: getting there is what is measured.
    Connect,
    /// Nothing: memory is measured at `steps` equal steps of the count.
    Idle {
        /// Points of the regression.
        steps: u32,
        /// Afterwards they stay open until stdin ends.
        hold: bool,
    },
    /// Nothing, but pings are answered.
    Pings {
        /// Between the pings of a connection.
        ping_s: u32,
    },
}

/// A scenario made concrete.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub layout: Layout,
    /// What is done.
    pub work: Work,
}

impl Scenario {
    /// Its clients and its work.
    pub fn plan(&self) -> Plan {
        match self {
            Self::Fanout(options) => options.plan(),
            Self::Pipes(options) => options.plan(),
            Self::Latency(options) => options.plan(),
            Self::Inbound(options) => options.plan(),
            Self::Connect(options) => options.plan(),
            Self::Idle(options) => options.plan(),
            Self::Pings(options) => options.plan(),
            Self::Cross(options) => options.plan(),
        }
    }
}

/// A client that only publishes to a group.
pub fn publisher(group: u32) -> Role {
    Role { group_first: 0, group_count: 0, publishes: Some(group) }
}

/// A client that is subscribed to one group.
pub fn subscriber(group: u32) -> Role {
    Role { group_first: group, group_count: 1, publishes: None }
}

/// For each of `pipes` pipes one publisher, then for each `subscribers` subscribers.
pub fn grouped(scenario: &'static str, pipes: u32, subscribers: u32) -> Layout {
    let mut roles: Vec<Role> = (0..pipes).map(publisher).collect();
    // Neighbours in the order of connecting are on different pipes, so that no pipe depends on where a server puts
    // connections that come one after the other.
    roles.extend((0..subscribers).flat_map(|_| (0..pipes).map(subscriber)));
    Layout { scenario, roles, groups: pipes, split: false }
}

/// A rate on the command line: publishes per second.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=10_000_000.0).contains(&rate) { Ok(rate) } else { Err("must be 0.1 to 10000000 per second".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pipe_has_one_publisher_and_its_subscribers() {
        let layout = grouped("t", 3, 4);
        assert_eq!(layout.roles.len(), 3 + 12);
        for group in 0..3 {
            let count = |wanted: Role| layout.roles.iter().filter(|role| **role == wanted).count();
            assert_eq!((count(publisher(group)), count(subscriber(group))), (1, 4));
        }
    }

    #[test]
    fn the_one_receiver_of_inbound_is_subscribed_to_every_publisher() {
        let plan = inbound::Options { connections: 5, window: 2 }.plan();
        let receivers: Vec<_> = plan.layout.roles.iter().filter(|role| role.group_count > 0).collect();
        assert_eq!(receivers, [&Role { group_first: 0, group_count: 5, publishes: None }]);
        assert_eq!((plan.layout.roles.len(), plan.layout.groups), (6, 5));
    }

    #[test]
    fn idle_connections_are_spread_over_the_pipes() {
        let layout = idle::Options { connections: 10, pipes: 4, steps: 5, hold: false }.plan().layout;
        let groups: Vec<_> = layout.roles.iter().map(|role| role.group_first).collect();
        assert_eq!(groups, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]);
        assert!(layout.roles.iter().all(|role| role.group_count == 1 && role.publishes.is_none()));
    }
}
