//! One pipe at a fixed rate. The publisher does not wait for a slow server: an event's latency counts from the time
//! when it should have been sent, so that a pause of the server is seen in every event that it delays.

use clap::Args;

use super::{Plan, Work, grouped};

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Subscribers of the pipe
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Publishes per second
    #[arg(long, default_value_t = 1000.0, value_parser = super::rate)]
    pub rate: f64,
}

impl Options {
    /// One group.
    pub fn plan(&self) -> Plan {
        let work = Work::Exchange { window: 1, rate: Some(self.rate) };
        Plan { layout: grouped("latency", 1, self.connections), work }
    }
}
