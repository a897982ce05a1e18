//! A router's report about a change of ownership, once it is over.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, NodeName};

use crate::event::OwnershipCause;

/// Why a router came to own a VIPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// No router had owned it.
    First,
    /// The owner was missed.
    Failure,
    /// This router is ranked higher than the owner and asked for it.
    Takeback,
    /// The owner offered it: it stops, or has lost its voters.
    Handover,
}

/// One change of ownership, by the new owner. Spans in microseconds, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TakeoverReport {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub trigger: Trigger,
    /// The trigger in full.
    #[serde(default)]
    pub cause: OwnershipCause,
    /// The previous owner, if one was known.
    pub predecessor: Option<NodeName>,
    /// Last beat of the predecessor (or the request for takeback) → asking the voters.
    pub detect_us: u64,
    /// Asking the voters → a majority's grants.
    pub collect_us: u64,
    /// A majority's grants → rebuilding complete.
    pub rebuild_us: u64,
    pub targets_answered: u32,
    pub targets_expected: u32,
    /// Targets whose log was known from before, so that only its tail was requested.
    pub targets_warm: u32,
    /// Records and connections the targets reported while rebuilding.
    pub connections_reported: u64,
}
