//! Simulation of a whole cluster in one thread from one seed: the real cluster logic of routers and targets, the real
//! connection table, the real worker, model clients and kernels, and a bad network between them.
//!
//! ```text
//!   clients ──frames──► Gateway (worker, flow, cluster::Router) ──frames──► Host (kernel model, cluster::target)
//!      ▲                    ▲            messages, lost, late, doubled            ▲            │
//!      │                    └───────────────── network ──────────────────────────┘            │
//!      └──────────────────────────────── direct return ───────────────────────────────────────┘
//! ```
//!
//! The seed decides everything: a second run does the same. After every step `checks` looks for a violation of
//! TAKEOVER.md's invariants; a run that fails can be repeated with a log of its events (a story).
//!
//! ```no_run
//! // Seed 1, without a story of its events.
//! assert!(vipa_sim::simulate(1, false).is_ok());
//! ```

#![forbid(unsafe_code)]

mod checks;
mod client;
mod faults;
mod gateway;
mod host;
mod network;
mod random;
pub mod replay;
pub mod scale;
mod segment;
mod world;

pub use gateway::Relapse;
pub use world::{
    Attacks, Failure, HostileRole, Summary, recordings, simulate, simulate_attacked, simulate_followed,
    simulate_relapse,
};
