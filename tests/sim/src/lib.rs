//! A whole cluster in one thread from one seed: the routers' and targets' real brains, the real connection table, the
//! real worker, model clients and kernels, and a bad network between them.
//!
//! ```text
//!   clients ──frames──► Gateway (worker, flow, cluster::Router) ──frames──► Host (kernel model, cluster::target)
//!      ▲                    ▲            messages, lost, late, doubled            ▲            │
//!      │                    └───────────────── network ──────────────────────────┘            │
//!      └──────────────────────────────── direct return ───────────────────────────────────────┘
//! ```
//!
//! Everything is decided by the seed: run it again and the same happens. After every step `checks` looks for a
//! violation of TAKEOVER.md's invariants; a run that ends badly can be told as a story.

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
