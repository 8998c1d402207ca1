//! Many small pipes at once: the cost of a delivery where there is little to share.

use clap::Args;

use super::{Plan, Work, grouped};

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Pipes, each with a publisher
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pipes: u32,
    /// Subscribers of each pipe
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub subscribers: u32,
    /// Publishes outstanding on each pipe
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub window: u32,
}

impl Options {
    /// A group for each pipe.
    pub fn plan(&self) -> Plan {
        let work = Work::Exchange { window: self.window, rate: None };
        Plan { layout: grouped("pipes", self.pipes, self.subscribers), work }
    }
}
