//! The control thread of a router: the shell around `vipa_cluster::Router`.
//!
//! ```text
//!   links (QUIC) ──┐                         ┌──► links
//!   timers ────────┤                         ├──► Routes, leases ──► workers
//!   workers' notes ┼──► cluster::Router ──►──┼──► connection table
//!   admin socket ──┤      (all thinking)     ├──► announcements (ARP)
//!   vote on disk ──┘                         └──► votes to disk
//! ```
//! One single-threaded tokio runtime waits for whatever comes first; nothing here decides who owns a VIPA.

#![forbid(unsafe_code)]

mod active;
mod admin;
mod announce;
mod asking;
mod audit;
mod away;
mod bequest;
mod census;
mod clock;
mod compare;
mod completeness;
mod condition;
mod conflicts;
mod control;
mod counts;
mod drill;
mod fitness;
mod hooks;
mod identifiers;
mod kernel_routes;
mod last_life;
mod lists;
mod mirror;
mod neighbours;
mod orders;
mod outward;
mod own_kernel;
mod path_mtu;
mod port_liveness;
mod prepare;
mod probes;
mod publishing;
mod questions;
mod reach;
mod reclaim;
mod recorder;
mod refusals;
mod reload;
mod responsiveness;
mod settings;
mod share;
mod status;
mod steadiness;
mod sweep;
mod table;
mod table_effects;
mod takeovers;
mod view;
mod vipa_questions;
mod voting;
mod ways;

pub use clock::Clock;
pub use condition::{PortCondition, PortDevice, Probe};
pub use control::{Control, Ends, Failure, Packets, Signal};
pub use prepare::{ControlError, Prepared};
pub use reload::Check;
pub use table::{Reporter, Reports, Taken};
pub use ways::{Lists, Ways};
