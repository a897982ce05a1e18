//! Ownership of a VIPA: the lease, the consent to a successor, and the report of the takeover.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Moment, NodeName, Voters};
use vipa_protocol::{TakeoverReport, Trigger};

use super::{
    election::majority,
    settings::{Settings, Timing},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Ownership {
    pub(super) epoch: Epoch,
    /// The claim that a majority granted: its round, and when it was sent.
    pub(super) claimed: (u8, Moment),
    /// For each voter: when the last beat (or claim) of ours that it answered was sent.
    pub(super) acknowledged: BTreeMap<NodeName, Moment>,
    pub(super) lease: Moment,
    /// Since when this owner has been without a lease.
    pub(super) fenced: Option<Moment>,
    /// Voters that have granted a higher epoch.
    pub(super) superseded: BTreeSet<NodeName>,
    pub(super) consent: Option<Consent>,
    pub(super) granted_at: Moment,
    pub(super) rebuild_until: Moment,
    pub(super) report: TakeoverReport,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Consent {
    pub(super) to: NodeName,
    /// When the successor was sent the table.
    pub(super) since: Moment,
    pub(super) until: Moment,
}

impl Ownership {
    pub(super) fn new(
        granted: BTreeSet<NodeName>,
        claimed: (u8, Moment),
        now: Moment,
        settings: &Settings,
        report: TakeoverReport,
    ) -> Self {
        let acknowledged = granted.into_iter().map(|voter| (voter, claimed.1)).collect();
        let mut ownership = Self {
            epoch: report.epoch,
            claimed,
            acknowledged,
            lease: Moment::ZERO,
            fenced: None,
            superseded: BTreeSet::new(),
            consent: None,
            granted_at: now,
            rebuild_until: now + settings.timing.rebuild_deadline,
            report,
        };
        ownership.renew(settings);
        ownership
    }

    /// The next thing that time alone brings about, except for checks with every beat.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let lease = self.fenced.is_none().then_some(self.lease);
        let consent = self.consent.as_ref().map(|consent| consent.until);
        lease.into_iter().chain(consent).min()
    }

    /// How long a predecessor that consented may go on admitting: its youngest connections are reported only after
    /// that.
    pub(super) fn overlap(&self, timing: &Timing) -> Duration {
        match self.report.trigger {
            Trigger::First | Trigger::Failure => Duration::ZERO,
            Trigger::Takeback | Trigger::Handover => timing.yield_linger,
        }
    }

    /// A voter answered the message sent at `sent`. True when the lease became longer.
    pub(super) fn acknowledge(&mut self, voter: NodeName, sent: Moment, settings: &Settings) -> bool {
        let last = self.acknowledged.entry(voter).or_default();
        *last = sent.max(*last);
        self.renew(settings)
    }

    /// The lease lasts from the sending of the youngest beat that a majority has answered, shortened by the margin.
    fn renew(&mut self, settings: &Settings) -> bool {
        let electors = settings.electors();
        let counts = |(voter, sent): (&NodeName, &Moment)| electors.contains(voter).then_some(*sent);
        // Called once for each VIPA, beat and voter: the few voters fit on the stack.
        let mut sent: ArrayVec<Moment, { Voters::MOST }> =
            self.acknowledged.iter().filter_map(counts).take(Voters::MOST).collect();
        sent.sort_unstable_by(|one, other| other.cmp(one));
        let Some(&answered) = sent.get(majority(electors.len()) - 1) else { return false };
        let lease = answered + (settings.timing.lease - settings.timing.margin());
        let longer = lease > self.lease;
        self.lease = self.lease.max(lease);
        longer
    }

    /// Handles a change of voters. A promise of a voter that stays holds, whichever list was in force when it was
    /// given.
    pub(super) fn count_anew(&mut self, settings: &Settings) -> bool {
        self.superseded.retain(|voter| settings.electors().contains(voter));
        self.renew(settings)
    }

    /// Whether so many voters have granted a higher epoch that ours cannot have a majority again.
    pub(super) fn is_lost(&self, now: Moment, voters: usize) -> bool {
        let left = voters - self.superseded.len().min(voters);
        left < majority(voters) || now >= self.lease && !self.superseded.is_empty()
    }
}
