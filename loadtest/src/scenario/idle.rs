//! Memory per idle connection that holds an identity, three grants and one subscription. Measured at several counts;
//! the slope of the line is the cost of one more, whatever the server needs at the start.

use clap::Args;

use super::{Plan, Work, subscriber};
use crate::load::Layout;

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Connections at the last step
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub connections: u32,
    /// Pipes over which they spread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pipes: u32,
    /// Counts at which memory is read, evenly spaced
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub steps: u32,
    /// Print the points as JSON and keep the connections open until stdin ends
    #[arg(long)]
    pub hold: bool,
}

impl Options {
    /// Subscribers only.
    pub fn plan(&self) -> Plan {
        let roles = (0..self.connections).map(|index| subscriber(index % self.pipes)).collect();
        let layout = Layout { scenario: "idle", roles, groups: self.pipes, split: false };
        Plan { layout, work: Work::Idle { steps: self.steps, hold: self.hold } }
    }
}
