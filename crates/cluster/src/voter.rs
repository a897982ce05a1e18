//! One vote; the same code on routers and targets.
//!
//! An acknowledged beat and a grant are both promises: for one lease of this voter's clock no other router is granted
//! the VIPA, except the router that the owner itself consents to. The owner counts its lease from before the voter
//! does, so it fences itself first. Votes survive a restart, promises do not: a voter that restarts refuses for one
//! lease.
//!
//! VIPAs are added and removed by reloads, so a voter forgets the vote of a VIPA that no router has owned or claimed
//! for [`KEPT`]. What remains of all forgotten votes is one epoch, the *floor*: a claim of a VIPA without a vote is
//! granted above it only. So an epoch that was granted once is never granted to another router, as if the vote were
//! still there. A claimant that is refused receives the floor and claims above it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, Incarnation, Moment, NodeName};
use vipa_protocol::{Ballot, Beat, BeatAck, Claim, Grant, Owned, Refusal, Refuse, Superseded, Vote};

/// VIPAs for which one voter keeps votes and promises; claims of any more are refused.
const MAX_VIPAS: usize = 4096;
/// How long a vote is kept after the last promise to its owner has ended.
const KEPT: Duration = Duration::from_secs(30);
/// Newly known VIPAs after which a voter looks for votes to forget.
const LOOK_EVERY: usize = 64;
/// In the file of votes, the floor is the vote of this address, which no VIPA can have. Nothing is granted or promised
/// for it, or the file would have two votes under one address.
const FLOOR: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A grant as it is kept on the disk. A later one of the same VIPA replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoredVote {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub holder: NodeName,
    /// The holder's incarnation that claimed it; the next one needs an epoch of its own.
    pub incarnation: Incarnation,
}

/// The claimant: a router, in one of its incarnations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claimant {
    pub router: NodeName,
    pub incarnation: Incarnation,
}

/// Result of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send this to the claimant now.
    Reply(Vote),
    /// The vote waits for the disk. Write [`Voter::to_store`], then call [`Voter::stored`] with the token that comes
    /// with it.
    Store { token: u64, vote: StoredVote },
}

/// The votes and promises of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Voter {
    lease: Duration,
    silent_until: Moment,
    ledgers: BTreeMap<IpAddr, VipaVotes>,
    /// The highest vote that has been forgotten.
    #[serde(default)]
    floor: Option<StoredVote>,
    /// VIPAs that were left when this voter last looked for votes to forget.
    #[serde(default)]
    left: usize,
    tokens: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct VipaVotes {
    vote: Option<GivenVote>,
    promise: Option<Promise>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct GivenVote {
    epoch: Epoch,
    holder: Claimant,
    /// The youngest round that it answers.
    round: u8,
    /// The first store that makes it durable, while that is under way.
    waiting: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Promise {
    to: NodeName,
    epoch: Epoch,
    /// The beat that caused it; an older one that comes late changes no consent.
    sequence: u64,
    until: Moment,
    consent: Option<NodeName>,
}

impl Voter {
    /// `votes` as the disk has them.
    #[must_use]
    pub fn new(lease: Duration, votes: Vec<StoredVote>, now: Moment) -> Self {
        let mut ledgers = BTreeMap::<IpAddr, VipaVotes>::new();
        let (floor, votes): (Vec<_>, Vec<_>) = votes.into_iter().partition(|vote| vote.vipa == FLOOR);
        for StoredVote { vipa, epoch, holder: router, incarnation } in votes {
            let holder = Claimant { router, incarnation };
            ledgers.entry(vipa).or_default().vote = Some(GivenVote { epoch, holder, round: 0, waiting: None });
        }
        let floor = floor.into_iter().max_by_key(|vote| vote.epoch);
        Self { lease, silent_until: now + lease, ledgers, floor, left: 0, tokens: 0 }
    }

    /// Grants nothing for a lease: the promises of the time in which this vote did not count are not known.
    pub fn keep_silent(&mut self, now: Moment) {
        self.silent_until = now + self.lease;
    }

    /// The highest epoch granted or received.
    #[must_use]
    pub fn highest(&self, vipa: IpAddr) -> Epoch {
        self.ledgers.get(&vipa).map_or(Epoch::NONE, VipaVotes::highest).max(self.lowest(vipa))
    }

    /// The epoch above which a VIPA is granted because of the votes that have been forgotten.
    fn lowest(&self, vipa: IpAddr) -> Epoch {
        let has_vote = self.ledgers.get(&vipa).is_some_and(|ledger| ledger.vote.is_some());
        let floor = self.floor.as_ref().filter(|_| !has_vote);
        floor.map_or(Epoch::NONE, |vote| vote.epoch)
    }

    /// Every vote, as the disk is to have it, and the token of the youngest. One write confirms all requests up to this
    /// token, however many there are.
    #[must_use]
    pub fn to_store(&self) -> (u64, Vec<StoredVote>) {
        let stored = |(vipa, ledger): (&IpAddr, &VipaVotes)| {
            let GivenVote { epoch, holder: Claimant { router, incarnation }, .. } = ledger.vote.clone()?;
            Some(StoredVote { vipa: *vipa, epoch, holder: router, incarnation })
        };
        (self.tokens, self.floor.iter().cloned().chain(self.ledgers.iter().filter_map(stored)).collect())
    }

    /// Handles an owner's beat, which proves that it lives.
    pub fn beat(&mut self, now: Moment, owner: &NodeName, beat: &Beat) -> BeatAck {
        let mut superseded = Vec::new();
        for owned in &beat.owned {
            match self.promise(now, owner, beat.sequence, owned) {
                Ok(()) => {}
                Err((epoch, holder)) => superseded.push(Superseded { vipa: owned.vipa, epoch, holder }),
            }
        }
        BeatAck { sequence: beat.sequence, superseded }
    }

    fn promise(
        &mut self,
        now: Moment,
        owner: &NodeName,
        sequence: u64,
        owned: &Owned,
    ) -> Result<(), (Epoch, NodeName)> {
        let Owned { vipa, epoch, yielding_to } = owned;
        let until = now + self.lease;
        // The floor says nothing about this VIPA's owner: no router has owned it since it was forgotten.
        let Some(ledger) = self.votes_of(*vipa, now) else { return Err((*epoch, owner.clone())) };
        if let Some(vote) = &ledger.vote
            && vote.epoch > *epoch
        {
            return Err((vote.epoch, vote.holder.router.clone()));
        }
        match &mut ledger.promise {
            Some(promise) if promise.epoch > *epoch => return Err((promise.epoch, promise.to.clone())),
            Some(promise) if promise.epoch == *epoch && promise.to == *owner => {
                promise.until = promise.until.max(until);
                if sequence > promise.sequence {
                    promise.sequence = sequence;
                    promise.consent.clone_from(yielding_to);
                }
            }
            // Only the winner of an epoch sends a beat, so it counts although this voter may have voted otherwise.
            promise => {
                *promise =
                    Some(Promise { to: owner.clone(), epoch: *epoch, sequence, until, consent: yielding_to.clone() });
            }
        }
        Ok(())
    }

    /// Answers a claim of a router whose voters grant `epochs`; `None`: that router goes by voters that do not count
    /// here.
    pub fn answer(
        &mut self,
        now: Moment,
        claimant: &Claimant,
        epochs: Option<&Range<Epoch>>,
        claim: &Claim,
    ) -> Verdict {
        let Claim { vipa, epoch, ballot } = *claim;
        if epochs.is_some_and(|epochs| epochs.contains(&epoch)) {
            return self.claim(now, claimant, claim);
        }
        let (reason, highest) = (Refusal::Voters, self.highest(vipa));
        Verdict::Reply(Vote::Refuse(Refuse { vipa, epoch, ballot, reason, highest }))
    }

    /// Decides on a claim.
    pub fn claim(&mut self, now: Moment, claimant: &Claimant, claim: &Claim) -> Verdict {
        let Claim { vipa, epoch, ballot } = *claim;
        if let Err(reason) = self.judge(now, claimant, vipa, epoch) {
            let highest = self.highest(vipa);
            return Verdict::Reply(Vote::Refuse(Refuse { vipa, epoch, ballot, reason, highest }));
        }
        match ballot {
            Ballot::Trial => Verdict::Reply(Vote::Grant(Grant { vipa, epoch, ballot })),
            Ballot::Real { round } => self.grant(now, claimant, vipa, epoch, round),
        }
    }

    fn judge(&mut self, now: Moment, claimant: &Claimant, vipa: IpAddr, epoch: Epoch) -> Result<(), Refusal> {
        if now < self.silent_until {
            return Err(Refusal::Recovering);
        }
        let lowest = self.lowest(vipa);
        let ledger = self.votes_of(vipa, now).ok_or(Refusal::Granted)?;
        // An epoch is given once, and again only to the very claimant that has it: not to its next incarnation either,
        // which would inherit a consent that was another's.
        let its_own = ledger.vote.as_ref().is_some_and(|vote| vote.epoch == epoch && vote.holder == *claimant);
        if ledger.vote.as_ref().is_some_and(|vote| vote.epoch >= epoch && !its_own) || epoch <= lowest {
            return Err(Refusal::Granted);
        }
        if let Some(promise) = &ledger.promise {
            let same = promise.to == claimant.router;
            if promise.epoch > epoch || promise.epoch == epoch && !(same && its_own) {
                return Err(Refusal::Granted);
            }
            if promise.until > now && !same && promise.consent.as_ref() != Some(&claimant.router) {
                return Err(Refusal::OwnerAlive);
            }
        }
        Ok(())
    }

    fn grant(&mut self, now: Moment, claimant: &Claimant, vipa: IpAddr, epoch: Epoch, round: u8) -> Verdict {
        let until = now + self.lease;
        let token = self.tokens + 1;
        let ledger = self.ledgers.entry(vipa).or_default();
        let promise = Promise { to: claimant.router.clone(), epoch, sequence: 0, until, consent: None };
        match &mut ledger.promise {
            Some(known) if known.epoch == epoch => known.until = known.until.max(until),
            known => *known = Some(promise),
        }
        match &mut ledger.vote {
            Some(vote) if vote.epoch == epoch => {
                if vote.waiting.is_none() {
                    return Verdict::Reply(Vote::Grant(Grant { vipa, epoch, ballot: Ballot::Real { round } }));
                }
                // The store under way is as good as the next one, unless it fails.
                vote.round = vote.round.max(round);
            }
            vote => *vote = Some(GivenVote { epoch, holder: claimant.clone(), round, waiting: Some(token) }),
        }
        self.tokens = token;
        let Claimant { router: holder, incarnation } = claimant.clone();
        Verdict::Store { token, vote: StoredVote { vipa, epoch, holder, incarnation } }
    }

    /// The store of `token`, and with it every earlier one, is on the disk: returns the grants that may be sent now,
    /// each to the very incarnation that claimed it. The next one would count its lease from a claim that this promise
    /// is older than.
    pub fn stored(&mut self, token: u64) -> Vec<(Claimant, Grant)> {
        let mut grants = Vec::new();
        for (vipa, ledger) in &mut self.ledgers {
            if let Some(vote) = &mut ledger.vote
                && vote.waiting.is_some_and(|waiting| waiting <= token)
            {
                vote.waiting = None;
                let ballot = Ballot::Real { round: vote.round };
                grants.push((vote.holder.clone(), Grant { vipa: *vipa, epoch: vote.epoch, ballot }));
            }
        }
        grants
    }

    fn votes_of(&mut self, vipa: IpAddr, now: Moment) -> Option<&mut VipaVotes> {
        if vipa == FLOOR {
            return None;
        }
        if !self.ledgers.contains_key(&vipa) {
            if self.ledgers.len() >= self.left + LOOK_EVERY || self.ledgers.len() >= MAX_VIPAS {
                self.forget(now);
            }
            if self.ledgers.len() >= MAX_VIPAS {
                return None;
            }
        }
        Some(self.ledgers.entry(vipa).or_default())
    }

    /// Forgets the votes whose last promise has been over for [`KEPT`]. They are on the disk until the next vote is
    /// stored.
    fn forget(&mut self, now: Moment) {
        let Self { ledgers, floor, silent_until, left, .. } = self;
        ledgers.retain(|_, ledger| {
            let VipaVotes { vote, promise } = &*ledger;
            let until = promise.as_ref().map_or(*silent_until, |promise| promise.until.max(*silent_until));
            let is_waiting = vote.as_ref().is_some_and(|vote| vote.waiting.is_some());
            let kept = is_waiting || now < until + KEPT;
            if !kept {
                let highest = ledger.highest();
                let holder = vote.as_ref().map(|vote| vote.holder.clone());
                let promised = promise.as_ref().map(|promise| (promise.to.clone(), Incarnation::default()));
                let holder = holder.map(|holder| (holder.router, holder.incarnation)).or(promised);
                if let Some((holder, incarnation)) = holder
                    && floor.as_ref().is_none_or(|floor| floor.epoch < highest)
                {
                    *floor = Some(StoredVote { vipa: FLOOR, epoch: highest, holder, incarnation });
                }
            }
            kept
        });
        *left = ledgers.len();
    }
}

impl VipaVotes {
    fn highest(&self) -> Epoch {
        let voted = self.vote.as_ref().map_or(Epoch::NONE, |vote| vote.epoch);
        let heard = self.promise.as_ref().map_or(Epoch::NONE, |promise| promise.epoch);
        voted.max(heard)
    }
}

#[cfg(test)]
mod tests;
