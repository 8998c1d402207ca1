//! One pipe, many subscribers: the cost of a delivery. With window 1 every delivery is a write of its own, with a
//! larger window a server may gather.

use clap::Args;

use super::{Plan, Work, grouped};

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Subscribers of the pipe
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Publishes outstanding
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub window: u32,
}

impl Options {
    /// One group.
    pub fn plan(&self) -> Plan {
        let work = Work::Exchange { window: self.window, rate: None };
        Plan { layout: grouped("fanout", 1, self.connections), work }
    }
}
