//! Pairs of connections at a fixed rate: the way of one event from a client to another. With several workers, the
//! connections of a pair are often on different ones; the welcome says on which, so that pairs on one worker and pairs
//! across two are measured apart in the same run, and the difference is the price of crossing.

use clap::Args;

use super::{Plan, Work, grouped};
use crate::load::Layout;

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Pairs of a publisher and a subscriber
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pairs: u32,
    /// Publishes per second in all
    #[arg(long, default_value_t = 1000.0, value_parser = super::rate)]
    pub rate: f64,
}

impl Options {
    /// A group for each pair.
    pub fn plan(&self) -> Plan {
        let work = Work::Exchange { window: 1, rate: Some(self.rate) };
        Plan { layout: Layout { split: true, ..grouped("cross", self.pairs, 1) }, work }
    }
}
