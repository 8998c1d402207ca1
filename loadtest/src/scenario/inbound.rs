//! Many publishers, each with a pipe of its own, and one receiver: the cost of receiving. The receiver's events gather
//! in few large writes, so that nearly all of the server's time is reading and checking.

use clap::Args;

use super::{Plan, Work, publisher};
use crate::client::Role;
use crate::load::Layout;

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Publishers
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Publishes outstanding of each publisher
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub window: u32,
}

impl Options {
    /// A group for each publisher, and one client subscribed to all.
    pub fn plan(&self) -> Plan {
        let mut roles = vec![Role { group_first: 0, group_count: self.connections, publishes: None }];
        roles.extend((0..self.connections).map(publisher));
        let layout = Layout { scenario: "inbound", roles, groups: self.connections, split: false };
        Plan { layout, work: Work::Exchange { window: self.window, rate: None } }
    }
}
