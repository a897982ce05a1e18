//! This router as a voter: whose claims it answers, and how.

use vipa_model::{Moment, NodeName, Voters};
use vipa_protocol::Claim;

use super::{Outbox, Output, Router};
use crate::voter::{Claimant, StoredVote, Verdict};

impl Router {
    pub(super) fn is_voter(&self) -> bool {
        self.settings.electors().contains(&self.settings.me)
    }

    /// The voters of a router that asks for this one's vote; `None`: they do not count here.
    pub(super) fn asks_with(&self, from: &NodeName) -> Option<&Voters> {
        let mine = &self.settings.voters;
        if *from == self.settings.me { Some(mine) } else { self.membership.answered(mine, from) }
    }

    pub(super) fn asked_for_votes(&mut self, now: Moment, from: &NodeName, claims: &[Claim], out: &mut Outbox) {
        if !self.is_voter() {
            return;
        }
        let Some(incarnation) = self.life_of(from) else { return };
        let epochs = self.asks_with(from).map(Voters::epochs);
        let claimant = Claimant { router: from.clone(), incarnation };
        for claim in claims {
            if !self.may_say_as_owner(from, claim.vipa, claim.epoch) {
                continue;
            }
            match self.voter.answer(now, &claimant, epochs.as_ref(), claim) {
                Verdict::Reply(vote) => self.ballots.vote(from, vote),
                Verdict::Store { token, vote } => out.push(Output::StoreVote { token, vote }),
            }
        }
    }

    /// Sends the claims and votes of this event.
    pub(super) fn send_ballots(&mut self, now: Moment, out: &mut Outbox) {
        for (to, message) in self.ballots.take() {
            self.send(now, &to, message, out);
        }
    }

    /// The contents of the file of votes, and the token that confirms them.
    #[must_use]
    pub fn votes_to_store(&self) -> (u64, Vec<StoredVote>) {
        self.voter.to_store()
    }
}
