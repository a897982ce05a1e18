//! Maglev's consistent hashing (Eisenbud et al., NSDI 2016, §3.4): a table of slots that the candidates fill in turns,
//! each in an order of its own. Shares differ by little, and when a candidate goes, the others keep nearly all of
//! their slots.

use std::fmt;

use vipa_model::TargetId;

use crate::{Candidate, ClusterKey, hash_address};

/// Slots of a table; prime, so that every `skip` visits all of them. More than a hundred times the candidates keeps
/// shares within about 1 % of each other (§3.4 of the paper).
pub const SLOTS: usize = 65_537;

/// Which target each slot of hashes belongs to. 128 KiB; share it.
#[derive(PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[TargetId]>,
    /// Whose slots they are, sorted.
    members: Box<[TargetId]>,
}

impl Maglev {
    /// `None` when no candidate has any weight. The order of `candidates` and their ids decide nothing; of several
    /// candidates with one address the first counts.
    #[must_use]
    pub fn build(key: &ClusterKey, candidates: &[Candidate]) -> Option<Self> {
        let mut walkers = Walker::all(key, candidates);
        let mut members: Vec<_> = walkers.iter().map(|walker| walker.target).collect();
        members.sort_unstable();
        let members = members.into();
        // One candidate, or none, needs no walk.
        if walkers.len() <= 1 {
            return walkers.first().map(|only| Self { slots: vec![only.target; SLOTS].into(), members });
        }
        let full = walkers.iter().map(|walker| walker.weight).max().unwrap_or_default();
        let mut slots: Vec<Option<TargetId>> = vec![None; SLOTS];
        let mut empty = SLOTS;
        loop {
            for walker in &mut walkers {
                if !walker.has_turn(full) {
                    continue;
                }
                *walker.next_empty(&mut slots) = Some(walker.target);
                empty -= 1;
                if empty == 0 {
                    return Some(Self { slots: slots.into_iter().flatten().collect(), members });
                }
            }
        }
    }

    /// The target that connections of this hash go to.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u64) -> TargetId {
        // The hash as a fraction of 2^64, times SLOTS: below SLOTS, evenly, without a division.
        let slot = (u128::from(hash) * SLOTS as u128) >> 64;
        self.slots[slot as usize]
    }

    /// Whether `target` is one of those that new connections may go to.
    #[inline]
    #[must_use]
    pub fn serves(&self, target: TargetId) -> bool {
        self.members.binary_search(&target).is_ok()
    }

    /// The target of each slot.
    pub fn slots(&self) -> impl Iterator<Item = TargetId> + '_ {
        self.slots.iter().copied()
    }
}

impl fmt::Debug for Maglev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maglev").finish_non_exhaustive()
    }
}

/// One candidate's permutation of the slots: `offset`, `offset + skip`, `offset + 2 skip` … modulo `SLOTS`.
struct Walker {
    target: TargetId,
    weight: u32,
    /// Turns saved up, in units of weight.
    credit: u32,
    slot: usize,
    skip: usize,
}

impl Walker {
    /// Walkers of the candidates that have weight, sorted by address, so that all routers take the turns in one order.
    fn all(key: &ClusterKey, candidates: &[Candidate]) -> Vec<Self> {
        let mut ordered: Vec<_> = candidates.iter().filter(|candidate| candidate.weight > 0).collect();
        ordered.sort_by_key(|candidate| candidate.address);
        ordered.dedup_by_key(|candidate| candidate.address);
        let walker = |candidate: &Candidate| Self {
            target: candidate.target,
            weight: u32::from(candidate.weight),
            credit: 0,
            slot: (hash_address(key, 1, candidate.address) % SLOTS as u64) as usize,
            skip: (hash_address(key, 2, candidate.address) % (SLOTS as u64 - 1) + 1) as usize,
        };
        ordered.into_iter().map(walker).collect()
    }

    /// Whether the candidate takes a slot in this round: the heaviest do in every round, the others in a share of the rounds, weight divided
    /// by the heaviest weight.
    fn has_turn(&mut self, full: u32) -> bool {
        self.credit += self.weight;
        let due = self.credit >= full;
        if due {
            self.credit -= full;
        }
        due
    }

    /// The next free slot in the walker's order; there must be one.
    fn next_empty<'a>(&mut self, slots: &'a mut [Option<TargetId>]) -> &'a mut Option<TargetId> {
        while slots[self.slot].is_some() {
            self.slot += self.skip;
            if self.slot >= SLOTS {
                self.slot -= SLOTS;
            }
        }
        &mut slots[self.slot]
    }
}

#[cfg(test)]
mod tests;
