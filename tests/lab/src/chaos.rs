//! Chaos: misfortunes that one seed decides, done to a cluster of three routers and four targets while thousands of
//! connections are checked byte by byte, some of them silent for long, some half closed, some from ports used again at once.
//!
//! ```text
//! seed ──► schedule ──► misfortunes, each with a beginning and an end ──► runner ──► the cluster
//!          (pure)       two at a time at most                             tells the story
//! ```
//! Planned changes are among them: moves, reloads, targets quiesced, routers that leave and join.
//!
//! Whatever happens, one router stays whole and a majority of the voters too; the rest is the cluster's business. In the
//! end everything is mended, and every connection must be there to its last byte, but for those of killed servers.

mod clients;
mod evidence;
mod runner;
mod schedule;

pub use runner::{Outcome, run};
pub use schedule::{Misfortune, What, schedule};

use std::time::Duration;

/// Routers of the cluster; `r1` ranks highest.
pub const ROUTERS: u8 = 3;
pub const TARGETS: u8 = 4;
/// Whose word counts; at most two of them are hindered at a time.
pub const VOTERS: [&str; 5] = ["r1", "r2", "r3", "t1", "t2"];

/// What a run shall be.
#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    /// How long there are misfortunes; then all is mended.
    pub time: Duration,
    pub connections: usize,
    /// Clients of one request a connection, of each ending.
    pub requesters: u16,
    /// By what agents learn of connections, as `agent.observe` has it.
    pub observe: String,
}
