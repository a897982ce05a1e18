//! Those of TAKEOVER.md's invariants that can be checked for one router without the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipa_cluster::{Event, Note, Output, Router, State, StoredVote};
use vipa_model::{Epoch, Moment, NodeName};
use vipa_protocol::{Ballot, Grant, Message, Vote, Votes};

/// What the steps so far have shown.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// The voters that granted each epoch to this router.
    grants: BTreeMap<(IpAddr, Epoch), BTreeSet<NodeName>>,
    /// Ballots that were under way when the recording began: their grants may have come before.
    begun: BTreeSet<IpAddr>,
    /// The votes that were last to be stored, and their token.
    votes: BTreeMap<IpAddr, StoredVote>,
    storing: BTreeMap<(IpAddr, Epoch), u64>,
    stored: u64,
    states: BTreeMap<IpAddr, (State, Epoch)>,
}

impl Witness {
    pub(super) fn of(router: &Router) -> Self {
        let mut witness = Self::default();
        for vipa in router.vipas() {
            witness.states.insert(vipa.vipa, (vipa.state, vipa.epoch));
            if matches!(vipa.state, State::Suspecting | State::Claiming) {
                witness.begun.insert(vipa.vipa);
            }
        }
        witness
    }

    /// Checks one step; the error is the violation.
    pub(super) fn watch(
        &mut self,
        at: Moment,
        event: &Event,
        outputs: &[Output],
        router: &Router,
    ) -> Result<(), String> {
        match event {
            Event::Received { peer, message: Message::Votes(votes) } => {
                for Grant { vipa, epoch, .. } in real_grants(votes) {
                    self.grants.entry((*vipa, *epoch)).or_default().insert(peer.clone());
                }
            }
            Event::VotesStored { token } => self.stored = self.stored.max(*token),
            _ => {}
        }
        for output in outputs {
            self.look(at, output, router)?;
        }
        let vipas: Vec<IpAddr> = self.states.keys().copied().collect();
        for vipa in vipas {
            self.look_at_state(vipa, router)?;
        }
        Ok(())
    }

    fn look(&mut self, at: Moment, output: &Output, router: &Router) -> Result<(), String> {
        match output {
            Output::StoreVote { token, vote } => self.vote(*token, vote),
            Output::Send { to, message: Message::Votes(votes) } => {
                real_grants(votes).try_for_each(|Grant { vipa, epoch, .. }| match self.storing.get(&(*vipa, *epoch)) {
                    Some(token) if *token > self.stored => {
                        Err(format!("I2: {to} is granted epoch {epoch} of {vipa}, and that is on no disk"))
                    }
                    Some(_) | None => Ok(()),
                })
            }
            // A router that has yielded admits for as long as it lingers, as its successor knows.
            Output::Lease { vipa, until } => match router.brief(*vipa).map(|brief| brief.state) {
                Some(State::Rebuilding | State::Active) if *until > at + router.lease() => {
                    Err(format!("I3: the lease of {vipa} is longer than a lease: {until}"))
                }
                Some(_) | None => Ok(()),
            },
            Output::Announce { vipa } => match router.brief(*vipa).map(|brief| brief.state) {
                Some(State::Rebuilding | State::Active) => Ok(()),
                state => Err(format!("I1: {vipa} is announced by a router that is {state:?}")),
            },
            Output::Note(Note::TwoOwners { vipa, epoch, one, other }) => {
                Err(format!("I1: {one} and {other} both own epoch {epoch} of {vipa}"))
            }
            Output::Stance { vipa, .. } => {
                self.states.entry(*vipa).or_insert((State::Standby, Epoch::NONE));
                Ok(())
            }
            Output::Dropped { vipa } => {
                self.states.remove(vipa);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn vote(&mut self, token: u64, vote: &StoredVote) -> Result<(), String> {
        let before = self.votes.insert(vote.vipa, vote.clone());
        let falls = |before: &StoredVote| {
            before.epoch > vote.epoch || before.epoch == vote.epoch && before.holder != vote.holder
        };
        if let Some(before) = before.as_ref().filter(|before| falls(before)) {
            return Err(format!("I2: the vote {before:?} became {vote:?}"));
        }
        // A vote that already waits is requested again in another round; the first write that has it confirms it.
        if before.as_ref() != Some(vote) {
            self.storing.insert((vote.vipa, vote.epoch), token);
        }
        Ok(())
    }

    /// Epochs only grow, and a router that comes to own one was granted it by a majority.
    fn look_at_state(&mut self, vipa: IpAddr, router: &Router) -> Result<(), String> {
        let Some(brief) = router.brief(vipa) else { return Ok(()) };
        let now = (brief.state, brief.epoch);
        let before = self.states.insert(vipa, now).unwrap_or(now);
        if brief.epoch < before.1 {
            return Err(format!("I1: {vipa} was owned in epoch {}, and now in {}", before.1, brief.epoch));
        }
        let owns = |state| matches!(state, State::Rebuilding | State::Active);
        if !owns(brief.state) || owns(before.0) && brief.epoch == before.1 {
            return Ok(());
        }
        let voters = &router.voters().names;
        let granted = |voter: &&NodeName| {
            **voter == router.hello().node
                || self.grants.get(&(vipa, brief.epoch)).is_some_and(|grants| grants.contains(*voter))
        };
        let granters = voters.iter().filter(granted).count();
        if granters * 2 <= voters.len() && !voters.is_empty() && !self.begun.contains(&vipa) {
            return Err(format!(
                "I3: {vipa} is owned in epoch {}, granted by {granters} of {}",
                brief.epoch,
                voters.len()
            ));
        }
        self.begun.remove(&vipa);
        Ok(())
    }
}

/// The grants among these votes that bind the voter.
fn real_grants(votes: &Votes) -> impl Iterator<Item = &Grant> {
    votes.votes.iter().filter_map(|vote| match vote {
        Vote::Grant(grant) if grant.ballot != Ballot::Trial => Some(grant),
        Vote::Grant(_) | Vote::Refuse(_) => None,
    })
}
