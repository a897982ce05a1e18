//! This router as a voter: whose claims it answers, and what with.

use vipa_model::{Moment, NodeName, Voters};
use vipa_protocol::{Claim, Refusal, Refuse, Vote};

use super::{Outbox, Output, Router};
use crate::voter::{Claimant, StoredVote, Verdict};

impl Router {
    pub(super) fn is_voter(&self) -> bool {
        self.settings.electors().contains(&self.settings.me)
    }

    /// The voters that who asks for this router's vote goes by, if it is to be answered.
    pub(super) fn asks_with(&self, from: &NodeName) -> Option<&Voters> {
        let mine = &self.settings.voters;
        if *from == self.settings.me { Some(mine) } else { self.electorate.answered(mine, from) }
    }

    pub(super) fn asked_for_votes(&mut self, now: Moment, from: &NodeName, claims: &[Claim], out: &mut Outbox) {
        if !self.is_voter() {
            return;
        }
        let Some(incarnation) = self.life_of(from) else { return };
        let epochs = self.asks_with(from).map(Voters::epochs);
        let claimant = Claimant { router: from.clone(), incarnation };
        for claim in claims {
            let Claim { vipa, epoch, ballot } = *claim;
            if !self.may_say_as_owner(from, vipa, epoch) {
                continue;
            }
            if !epochs.as_ref().is_some_and(|epochs| epochs.contains(&epoch)) {
                let (reason, highest) = (Refusal::Voters, self.voter.highest(vipa));
                self.ballots.vote(from, Vote::Refuse(Refuse { vipa, epoch, ballot, reason, highest }));
                continue;
            }
            match self.voter.claim(now, &claimant, claim) {
                Verdict::Reply(vote) => self.ballots.vote(from, vote),
                Verdict::Store { token, vote } => out.push(Output::StoreVote { token, vote }),
            }
        }
    }

    /// Sends the claims and votes that have come together.
    pub(super) fn send_ballots(&mut self, now: Moment, out: &mut Outbox) {
        for (to, message) in self.ballots.take() {
            self.send(now, &to, message, out);
        }
    }

    /// What the file of votes is to hold, and the token to confirm it with.
    #[must_use]
    pub fn votes_to_store(&self) -> (u64, Vec<StoredVote>) {
        self.voter.to_store()
    }
}
