//! A storm of handshakes: TCP accept, upgrade with a token, welcome, one subscribe and its reply.

use clap::Args;

use super::{Plan, Work, subscriber};
use crate::load::Layout;

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Connections to open; they stay open until the end of the round
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Pipes over which they spread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pipes: u32,
}

impl Options {
    /// Subscribers only.
    pub fn plan(&self) -> Plan {
        let roles = (0..self.connections).map(|index| subscriber(index % self.pipes)).collect();
        Plan { layout: Layout { scenario: "connect", roles, groups: self.pipes, split: false }, work: Work::Connect }
    }
}
