//! Settings of a router at its start.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};
use vipa_model::{Incarnation, NodeName, Rank, Service, Voters};
use vipa_protocol::{Decision, KeyDigest};

use crate::{paths::StoredLists, voter::StoredVote};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub cluster: String,
    /// Of `cluster.key`, which every node must have.
    pub key: KeyDigest,
    pub me: NodeName,
    /// Addresses of its ports: targets receive tunnelled packets from these.
    pub addresses: Vec<IpAddr>,
    pub incarnation: Incarnation,
    /// Without voters there is no quorum: a router is its own only elector, and of two that own a VIPA at once the one
    /// of the higher epoch goes on, then the one of the higher rank.
    pub voters: Voters,
    pub timing: Timing,
    pub vipas: Vec<VipaSettings>,
}

impl Settings {
    /// The nodes whose majority grants what this router owns.
    pub(super) fn electors(&self) -> &[NodeName] {
        let alone = self.voters.are_known() && self.voters.names.is_empty();
        if alone { std::slice::from_ref(&self.me) } else { &self.voters.names }
    }
}

/// What the disk has of this router's earlier lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// They matter only when this router is a voter.
    pub votes: Vec<StoredVote>,
    pub decisions: Vec<Decision>,
    /// By VIPA.
    pub lists: BTreeMap<IpAddr, StoredLists>,
}

/// Time limits of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// The same on every node.
    pub lease: Duration,
    /// Interval of beats; at most a quarter of the lease.
    pub beat: Duration,
    /// How far two nodes' clocks may drift apart over a lease, in percent of it, with some allowance for late wake-ups.
    pub drift_percent: u32,
    /// A backup waits this much longer for each live router ranked above it.
    pub claim_step: Duration,
    /// Rebuilding ends after this long, whichever targets have not answered.
    pub rebuild_deadline: Duration,
    /// Orphans are held for this long after rebuilding.
    pub grace: Duration,
    /// A router that handed a VIPA over goes on forwarding and admitting for this long.
    pub yield_linger: Duration,
}

impl Timing {
    /// Defaults for a lease.
    #[must_use]
    pub fn of_lease(lease: Duration) -> Self {
        Self {
            lease,
            beat: lease / 5,
            drift_percent: 10,
            claim_step: lease / 2,
            rebuild_deadline: Duration::from_secs(1),
            grace: Duration::from_millis(200),
            yield_linger: Duration::from_secs(2),
        }
    }

    /// Margin by which the owner's lease is shortened and a backup's patience lengthened.
    #[must_use]
    pub fn margin(&self) -> Duration {
        self.lease * self.drift_percent / 100
    }

    /// How long a target may be silent, or have no link, before nothing waits for it.
    pub(super) fn target_patience(&self) -> Duration {
        self.rebuild_deadline * 2
    }

    /// How long consent to a successor stands before it is withdrawn.
    pub(super) fn consent(&self) -> Duration {
        (self.lease * 10).max(Duration::from_secs(2))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipaSettings {
    pub address: IpAddr,
    /// Every router that may own it; ranks are unique.
    pub ranks: Vec<(NodeName, Rank)>,
    /// This router's own list; `None`: the list that the owner distributes.
    pub services: Option<Vec<Service>>,
    /// Whether this router may be the first owner.
    pub activate: bool,
    pub takeback: Takeback,
    /// How long this router must have been ready before it takes the VIPA back.
    pub takeback_delay: Duration,
    /// VIPAs of one group have one owner; they agree on ranks and takeback.
    pub group: Option<String>,
}

impl VipaSettings {
    pub(super) fn rank(&self, node: &NodeName) -> Option<Rank> {
        self.ranks.iter().find(|(name, _)| name == node).map(|(_, rank)| *rank)
    }
}

/// When a higher-ranked router takes a VIPA back, once it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Takeback {
    #[default]
    Immediate,
    /// When the VIPA has no connections.
    WhenIdle,
    /// On an operator's order.
    Manual,
}
