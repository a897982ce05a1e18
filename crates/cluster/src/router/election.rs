//! Asking the voters: first whether they would, then whether they do.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Moment, NodeName};
use vipa_protocol::{Refusal, Trigger};

/// A claim is given up after so many rounds.
const ROUNDS: u8 = 8;

/// A ballot under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Candidacy {
    pub(super) epoch: Epoch,
    /// How often the real ballot was asked for before.
    pub(super) round: u8,
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
        Self { epoch, round: 0, sent: now, granted, refused, trigger, since, asked_first: now }
    }

    /// The same candidacy with its real ballot.
    pub(super) fn in_earnest(&self, now: Moment) -> Self {
        let asked_first = self.asked_first;
        Self { asked_first, ..Self::new(self.epoch, now, self.trigger, self.since) }
    }

    /// The next round, when voters were slow and none has a rival: what they have stored by now they answer at once.
    pub(super) fn again(&self, now: Moment) -> Option<Self> {
        let round = self.round + 1;
        let rival = self.refused.values().any(|refusal| *refusal != Refusal::Recovering);
        (!rival && round < ROUNDS).then(|| Self { round, ..self.in_earnest(now) })
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
