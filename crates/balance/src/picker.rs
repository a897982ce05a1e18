//! How a service chooses the target of a new connection: by consistent hashing, or round robin.

use std::sync::Arc;

use vipa_model::{Balance, TargetId};

use crate::{Candidate, ClusterKey, Maglev};

/// Longest round, in turns. Weights whose sum is larger are scaled down and rounded.
const LONGEST_ROUND: u32 = 4096;

/// Cheap to clone: the tables are shared.
#[derive(Clone, Debug, Default)]
pub enum Picker {
    /// Nobody may get a new connection now.
    #[default]
    None,
    Maglev(Arc<Maglev>),
    RoundRobin(Arc<RoundRobin>),
}

impl Picker {
    /// The order of `candidates` decides nothing; those of weight 0 get nothing.
    #[must_use]
    pub fn build(key: &ClusterKey, balance: Balance, candidates: &[Candidate]) -> Self {
        match balance {
            Balance::Maglev => {
                Maglev::build(key, candidates).map_or(Self::None, |maglev| Self::Maglev(Arc::new(maglev)))
            }
            Balance::RoundRobin | Balance::WeightedActive => Self::by_turns(Vec::new(), candidates),
        }
    }

    /// Weighted round robin. The targets in `below_share`, which have fewer connections than their share, are given the first turns, one
    /// for each time that they are listed.
    #[must_use]
    pub fn by_turns(below_share: Vec<TargetId>, candidates: &[Candidate]) -> Self {
        match round(candidates) {
            round if round.is_empty() => Self::None,
            round => Self::RoundRobin(Arc::new(RoundRobin { below_share, round })),
        }
    }

    /// Whether this is not the only copy of what was built.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self {
            Self::None => false,
            Self::Maglev(maglev) => Arc::strong_count(maglev) > 1,
            Self::RoundRobin(turns) => Arc::strong_count(turns) > 1,
        }
    }

    /// The target of a new connection: by its `hash` ([`hash_connection`](crate::hash_connection)), or by the number of the next turn,
    /// which `turn` counts from 0.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u64, turn: impl FnOnce() -> u64) -> Option<TargetId> {
        match self {
            Self::None => None,
            Self::Maglev(maglev) => Some(maglev.pick(hash)),
            Self::RoundRobin(turns) => Some(turns.of(turn())),
        }
    }

    /// The target of a new connection by its `hash` alone, whatever the service's method. Routers with the same candidates and weights
    /// choose the same target.
    #[must_use]
    pub fn pick_by_hash(&self, hash: u64) -> Option<TargetId> {
        match self {
            Self::None => None,
            Self::Maglev(maglev) => Some(maglev.pick(hash)),
            Self::RoundRobin(turns) => Some(turns.round[hash as usize % turns.round.len()]),
        }
    }

    /// The target of a packet whose connection is in no table. `None` unless consistent hashing names the same target for all packets of
    /// the connection.
    #[must_use]
    pub fn pick_without_memory(&self, hash: u64) -> Option<TargetId> {
        match self {
            Self::None | Self::RoundRobin(_) => None,
            Self::Maglev(maglev) => Some(maglev.pick(hash)),
        }
    }

    /// Whether `target` is one of those that new connections may go to.
    #[inline]
    #[must_use]
    pub fn serves(&self, target: TargetId) -> bool {
        match self {
            Self::None => false,
            Self::Maglev(maglev) => maglev.serves(target),
            Self::RoundRobin(turns) => turns.round.contains(&target),
        }
    }
}

/// Targets in the order of their turns: those below their share once, then the round again and again.
#[derive(Debug)]
pub struct RoundRobin {
    below_share: Vec<TargetId>,
    /// Never empty.
    round: Vec<TargetId>,
}

impl RoundRobin {
    #[inline]
    fn of(&self, turn: u64) -> TargetId {
        let turn = turn as usize;
        match self.below_share.get(turn) {
            Some(target) => *target,
            None => self.round[(turn - self.below_share.len()) % self.round.len()],
        }
    }
}

/// One round of smooth weighted round robin: each candidate has as many turns as its weight, spread evenly. In each turn every candidate
/// gains its weight in credit, and the one with most credit takes the turn and pays the sum of all weights.
fn round(candidates: &[Candidate]) -> Vec<TargetId> {
    let mut ordered: Vec<_> = candidates.iter().filter(|candidate| candidate.weight > 0).collect();
    ordered.sort_by_key(|candidate| candidate.address);
    ordered.dedup_by_key(|candidate| candidate.address);
    let mut weights: Vec<u32> = ordered.iter().map(|candidate| u32::from(candidate.weight)).collect();
    let common = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    weights.iter_mut().for_each(|weight| *weight /= common);
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    if total > u64::from(LONGEST_ROUND) {
        for weight in &mut weights {
            *weight = (u64::from(*weight) * u64::from(LONGEST_ROUND) / total).max(1) as u32;
        }
    }
    let length: u32 = weights.iter().sum();
    let mut credits = vec![0_i64; weights.len()];
    let turns = 0..length;
    turns
        .filter_map(|_| {
            credits.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += i64::from(*weight));
            // Of equals the first by address.
            let most = credits.iter().enumerate().rev().max_by_key(|(_, credit)| **credit)?.0;
            credits[most] -= i64::from(length);
            Some(ordered[most].target)
        })
        .collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
