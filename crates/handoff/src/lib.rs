//! The channel: everything that crosses between control and the workers, and nothing else.
//!
//! ```text
//!            ┌── Routes (published whole) ───────────────────────►┐
//!            ├── leases (a Deadline in each VipaRoute) ──────────►│
//!  control ──┼── Frames to send (worker 0) ──────────────────────►├── workers
//!            │◄──────────────────────────────────────── Notes ────┤
//!            │◄───────────────────────────── Counters, heartbeat ─┤
//!            └── stop ───────────────────────────────────────────►┘
//! ```
//! The connection table is shared too, but speaks for itself (`vipa_flow`). Nobody waits at this channel.

#![forbid(unsafe_code)]

mod capture;
mod channel;
mod counters;
mod disputes;
mod explain;
mod fate;
mod flows;
mod routes;

pub use capture::{CAPTURED_BYTES, Capture, CaptureRecord, CapturedFate};
pub use channel::{ControlChannel, FRAME_MAX, Frame, Note, WAYS, WorkerChannel, WorkerShared, open};
pub use counters::{Count, CounterId, Counters, Totals, VipaCount, VipaCounters, VipaTotals};
pub use disputes::{Disputes, Origin};
pub use explain::{ChosenBy, Explained, NextPacket, PacketOutcome, explain, has_ended_earlier};
pub use fate::{Fate, LocalReply, Reason};
pub use flows::{AnyKey, Claim, Flows, Reported};
pub use routes::{
    ForwardingAction, Hop, L2Rewrite, NextHop, PortRoute, ReturnRoute, Rewrite, RewriteAction, RouteLists, Routes,
    ServiceRoute, SourceRule, TargetRoute, VipaRoute, next_neighbour,
};
