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
mod advertiser;
mod agent_timeouts;
mod announce;
mod audit;
mod clock;
mod compare;
mod completeness;
mod conflicts;
mod connection_counts;
mod control;
mod counts;
mod drill;
mod eligibility;
mod hooks;
mod identifiers;
mod kernel_routes;
mod lists;
mod neighbour_prompts;
mod neighbours;
mod orders;
mod own_kernel;
mod path_mtu;
mod paths;
mod port_liveness;
mod probes;
mod publishing;
mod queries;
mod query_jobs;
mod reachability;
mod reclaim;
mod recorder;
mod refusals;
mod reload;
mod replica;
mod responsiveness;
mod restart_gap;
mod routing_state;
mod self_check;
mod settings;
mod share;
mod startup;
mod status;
mod steadiness;
mod sweep;
mod table;
mod table_effects;
mod takeovers;
mod transfer;
mod voting;

pub use clock::Clock;
pub use control::{Control, Ends, Failure, Packets, Signal};
pub use paths::{Lists, Paths};
pub use reload::Check;
pub use self_check::{PortCondition, PortDevice, Probe};
pub use startup::{ControlError, Prepared};
pub use table::{Reporter, Reports, Taken};
