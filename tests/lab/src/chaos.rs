//! Chaos: faults that one seed decides, on a cluster of three routers and four targets, while thousands of connections
//! are checked byte by byte. Some of the connections are silent for long, some half closed, some use their ports again
//! at once.
//!
//! ```text
//! seed ──► schedule ──► faults, each with a beginning and an end ──► runner ──► the cluster
//!          (pure)       two at a time at most                        logs the story
//! ```
//! Planned changes are among the faults: moves, reloads, targets quiesced, routers that leave and join.
//!
//! At every moment one router and a majority of the voters are unaffected. In the end every fault is over, and every
//! connection must be there to its last byte, except those of killed servers.

mod clients;
mod evidence;
mod runner;
mod schedule;

pub use runner::{Outcome, run};
pub use schedule::{ScheduledFault, What, schedule};

use std::time::Duration;

/// Routers of the cluster; `r1` ranks highest.
pub const ROUTERS: u8 = 3;
pub const TARGETS: u8 = 4;
/// The voters; at most two of them are affected at a time.
pub const VOTERS: [&str; 5] = ["r1", "r2", "r3", "t1", "t2"];

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    /// How long there are faults; after that they end.
    pub time: Duration,
    pub connections: usize,
    /// Clients of one request a connection, of each ending.
    pub requesters: u16,
    /// How agents follow connections, as in `agent.observe`.
    pub observe: String,
}
