//! The door: everything that crosses between control and the workers, and nothing else.
//!
//! ```text
//!            ┌── Routes (published whole) ───────────────────────►┐
//!            ├── leases (a Deadline in each VipaRoute) ──────────►│
//!  control ──┼── Frames to send (worker 0) ──────────────────────►├── workers
//!            │◄──────────────────────────────────────── Notes ────┤
//!            │◄───────────────────────────── Counters, heartbeat ─┤
//!            └── stop ───────────────────────────────────────────►┘
//! ```
//! The connection table is shared too, but speaks for itself (`vipa_flow`). Nobody waits at this door.

#![forbid(unsafe_code)]

mod counters;
mod disputes;
mod door;
mod fate;
mod flows;
mod routes;

pub use counters::{Cell, Count, Counters, Totals, VipaCount, VipaCounters, VipaTotals};
pub use disputes::{Disputes, Origin};
pub use door::{ControlDoor, Desk, FRAME_MAX, Frame, Note, WAYS, WorkerDoor, open};
pub use fate::{Fate, LocalReply, Reason};
pub use flows::{AnyKey, Claim, Flows, Reported};
pub use routes::{
    Express, Hop, How, NextHop, PortRoute, ReturnRoute, Rewrite, RouteLists, Routes, ServiceRoute, SourceRule,
    TargetRoute, Via, VipaRoute, next_neighbour,
};
