//! Cluster logic: which nodes are alive, which router owns each VIPA, and what the targets hold. Pure and sans-io:
//! time, links and the disk's confirmations come in as events; what is to be done goes out as data.
//!
//! ```text
//!   links, timer, disk, orders ──Event──► Router ──Output──► messages, votes to store, stances and leases   (vipad)
//!                                           │ Voter
//!   links, timer, disk, kernel ──Event──► Target ──Output──► messages, votes to store, VIPAs to serve       (vipa-agent)
//!                                           │ Voter
//! ```
//! [`Router`] for `vipad` and [`target::Target`] for `vipa-agent` share one [`Voter`]. TAKEOVER.md describes the
//! protocol; the diagram of a router's states is above `router::vipa`.
//!
//! ```
//! use std::time::Duration;
//! use vipa_cluster::Voter;
//! use vipa_model::{Epoch, Moment};
//!
//! let voter = Voter::new(Duration::from_millis(500), Vec::new(), Moment::ZERO);
//! let (token, votes) = voter.to_store();
//! assert_eq!((token, votes.len()), (0, 0));
//! assert_eq!(voter.highest("192.0.2.10".parse().unwrap()), Epoch(0));
//! ```

#![forbid(unsafe_code)]

mod authority;
mod ballots;
mod decision_log;
mod hello;
pub mod log;
mod membership;
mod paths;
pub mod recording;
mod router;
pub mod target;
mod voter;

pub use authority::{Denial, check_stored_decision, check_stored_vote};
pub use hello::Mismatch;
pub use membership::{Objection, at_start};
pub use paths::StoredLists;
pub use router::{
    Event, Note, Outbox, Output, PeerStatus, Resting, Router, Settings, Stage, State, Stored, Takeback, TargetStatus,
    Timing, VipaBrief, VipaSettings, VipaStatus, Wait,
};
pub use voter::{Claimant, StoredVote, Verdict, Voter};
