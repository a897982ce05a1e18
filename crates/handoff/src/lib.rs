//! The channel between control and the workers: everything that crosses between them, and nothing else.
//!
//! ```text
//!            ┌── Routes (published whole) ───────────────────────►┐
//!            ├── leases (a Deadline in each VipaRoute) ──────────►│
//!  control ──┼── Frames to send (worker 0) ──────────────────────►├── workers
//!            │◄──────────────────────────────────────── Notes ────┤
//!            │◄───────────────────────────── Counters, heartbeat ─┤
//!            └── stop ───────────────────────────────────────────►┘
//! ```
//! The connection table is shared too; `vipa_flow` describes it. Neither side ever waits for the other one.
//!
//! ```
//! use std::sync::Arc;
//! use vipa_balance::ClusterKey;
//! use vipa_handoff::{Count, Routes, open};
//!
//! let (control, mut workers) = open(Arc::new(Routes::empty(ClusterKey::new([0; 16]))), 1);
//! let worker = workers.pop().unwrap();
//! worker.shared.counters.add(Count::Received, 32);
//! assert_eq!(control.totals().count(Count::Received), 32);
//! ```

#![forbid(unsafe_code)]

mod capture;
mod channel;
mod counters;
mod disputes;
mod explain;
mod fate;
mod flows;
mod load;
mod routes;

pub use capture::{CAPTURED_BYTES, Capture, CaptureRecord, CapturedFate};
pub use channel::{ControlChannel, FRAME_MAX, Frame, Note, WAYS, WorkerChannel, WorkerShared, open};
pub use counters::{Count, CounterId, Counters, Totals, VipaCount, VipaCounters, VipaTotals};
pub use disputes::{Disputes, Origin};
pub use explain::{ChosenBy, Explained, NextPacket, PacketOutcome, explain, has_ended_earlier};
pub use fate::{Fate, LocalReply, Reason};
pub use flows::{AnyKey, Claim, Flows, Reported};
pub use load::WorkerLoad;
pub use routes::{
    ForwardingAction, Hop, L2Rewrite, NextHop, PortRoute, ReturnRoute, Rewrite, RewriteAction, RouteLists, Routes,
    ServiceRoute, SourceRule, TargetRoute, VipaRoute, next_neighbour,
};
