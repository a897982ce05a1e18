//! The control thread of a router: the shell around `vipa_cluster::Router`.
//!
//! ```text
//!   links (QUIC) ──┐                         ┌──► links
//!   timers ────────┤                         ├──► Routes, leases ──► workers
//!   workers' notes ┼──► cluster::Router ──►──┼──► connection table
//!   admin socket ──┤      (all thinking)     ├──► announcements (ARP)
//!   vote on disk ──┘                         └──► votes to disk
//! ```
//! One single-threaded tokio runtime waits for whatever comes first (`control`); nothing here decides who owns a VIPA. What it dispatches to
//! stands in four folders: `ownership`, `table`, `network` and `admin`.

#![forbid(unsafe_code)]

mod admin;
mod clock;
mod control;
mod counts;
mod network;
mod ownership;
mod settings;
mod startup;
mod table;

pub use admin::client::AdminClient;
pub use admin::reload::Check;
pub use clock::Clock;
pub use control::{Control, Ends, Failure, Packets, Signal};
pub use network::paths::{Lists, Paths};
pub use network::self_check::{PortCondition, PortDevice, Probe};
pub use startup::{ControlError, Prepared};
pub use table::reports::{Reporter, Reports, Taken};
pub use vipa_protocol::admin::PortStatistics;
