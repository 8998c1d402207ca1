//! Idle connections that the server pings: the CPU of a ping and its pong, which is all that an idle connection costs
//! besides memory.

use clap::Args;

use super::{Plan, Work, subscriber};
use crate::load::Layout;

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Connections
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Seconds between the pings of a connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub ping_s: u32,
}

impl Options {
    /// Subscribers only.
    pub fn plan(&self) -> Plan {
        let roles = (0..self.connections).map(|_| subscriber(0)).collect();
        let layout = Layout { scenario: "pings", roles, groups: 1, split: false };
        Plan { layout, work: Work::Pings { ping_s: self.ping_s } }
    }
}
