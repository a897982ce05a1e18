//! Asking the voters: first whether they would, then whether they do.

use std::collections::{BTreeMap, BTreeSet};

use vipa_model::{Epoch, Moment, NodeName};
use vipa_protocol::{Refusal, Trigger};

/// A ballot under way.
#[derive(Clone, Debug)]
pub(super) struct Candidacy {
    pub(super) epoch: Epoch,
    /// Also where the lease that comes of it begins.
    pub(super) sent: Moment,
    pub(super) granted: BTreeSet<NodeName>,
    pub(super) refused: BTreeMap<NodeName, Refusal>,
    pub(super) trigger: Trigger,
    /// Where the predecessor was last heard, or asked to yield.
    pub(super) since: Moment,
    pub(super) asked_first: Moment,
}

/// How a ballot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standings {
    Open,
    Won,
    Lost,
}

/// How many of `voters` make a majority.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Candidacy {
    pub(super) fn new(epoch: Epoch, now: Moment, trigger: Trigger, since: Moment) -> Self {
        let (granted, refused) = (BTreeSet::new(), BTreeMap::new());
        Self { epoch, sent: now, granted, refused, trigger, since, asked_first: now }
    }

    /// The same candidacy with its real ballot.
    pub(super) fn in_earnest(&self, now: Moment) -> Self {
        let asked_first = self.asked_first;
        Self { asked_first, ..Self::new(self.epoch, now, self.trigger, self.since) }
    }

    pub(super) fn grant(&mut self, voter: NodeName) {
        self.refused.remove(&voter);
        self.granted.insert(voter);
    }

    pub(super) fn refuse(&mut self, voter: NodeName, reason: Refusal) {
        if !self.granted.contains(&voter) {
            self.refused.insert(voter, reason);
        }
    }

    pub(super) fn standings(&self, voters: usize) -> Standings {
        if self.granted.len() >= majority(voters) {
            Standings::Won
        } else if voters - self.refused.len().min(voters) < majority(voters) {
            Standings::Lost
        } else {
            Standings::Open
        }
    }
}
