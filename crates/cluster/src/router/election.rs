//! Elections: the voters are asked first whether they would grant, then to grant.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Moment, NodeName};
use vipa_protocol::{Refusal, Trigger};

/// Rounds after which a claim is given up.
const ROUNDS: u8 = 8;

/// A ballot under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Candidacy {
    pub(super) epoch: Epoch,
    /// Rounds of the real ballot before this one.
    pub(super) round: u8,
    /// Sending of the claim; the lease that results from it begins here.
    pub(super) sent: Moment,
    pub(super) granted: BTreeSet<NodeName>,
    pub(super) refused: BTreeMap<NodeName, Refusal>,
    pub(super) trigger: Trigger,
    /// When the predecessor was last received, or asked to yield.
    pub(super) since: Moment,
    pub(super) asked_first: Moment,
}

/// The result of a ballot so far.
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

    /// The next round, when voters were slow and none has a rival: they answer at once what they have stored by now.
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
