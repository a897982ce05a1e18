//! Who is alive, who owns each VIPA, what the targets hold. Pure and sans-io: time, links and the disk's
//! confirmations come in as events, what is to be done goes out as data.
//!
//! Two machines share one [`Voter`]: [`Router`] for `vipad`, [`target::Target`] for `vipa-agent`. TAKEOVER.md tells the
//! protocol; the picture of a router's states stands above `router::vipa`.

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
