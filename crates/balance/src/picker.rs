//! What a service's new connections are chosen by.

use std::sync::Arc;

use vipa_model::{Balance, TargetId};

use crate::{Candidate, ClusterKey, Maglev};

/// Turns in a round at most; weights are rounded to fit.
const LONGEST_ROUND: u32 = 4096;

/// Cheap to clone: the tables are shared.
#[derive(Clone, Debug, Default)]
pub enum Picker {
    /// Nobody may get a new connection now.
    #[default]
    None,
    Maglev(Arc<Maglev>),
    Turns(Arc<Turns>),
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

    /// By turns, and before these the targets in `first` have theirs, once: they have fewer connections than others.
    #[must_use]
    pub fn by_turns(first: Vec<TargetId>, candidates: &[Candidate]) -> Self {
        match round(candidates) {
            round if round.is_empty() => Self::None,
            round => Self::Turns(Arc::new(Turns { first, round })),
        }
    }

    /// The target of a new connection: by its `hash` ([`hash_connection`](crate::hash_connection)), or by the next `turn`,
    /// counted from 0.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u64, turn: impl FnOnce() -> u64) -> Option<TargetId> {
        match self {
            Self::None => None,
            Self::Maglev(maglev) => Some(maglev.pick(hash)),
            Self::Turns(turns) => Some(turns.of(turn())),
        }
    }

    /// The target of a new connection by its `hash` alone, alike on every router that has the same candidates and weights,
    /// whatever the service's way of choosing.
    #[must_use]
    pub fn pick_by_hash(&self, hash: u64) -> Option<TargetId> {
        match self {
            Self::None => None,
            Self::Maglev(maglev) => Some(maglev.pick(hash)),
            Self::Turns(turns) => Some(turns.round[hash as usize % turns.round.len()]),
        }
    }

    /// The target of each of a connection's packets, if their `hash` says so alike, now and later, without a memory of the
    /// connection: by consistent hashing only.
    #[must_use]
    pub fn pick_without_memory(&self, hash: u64) -> Option<TargetId> {
        match self {
            Self::None | Self::Turns(_) => None,
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
            Self::Turns(turns) => turns.round.contains(&target),
        }
    }
}

/// The targets in the order of their turns: some once, then one round again and again.
#[derive(Debug)]
pub struct Turns {
    first: Vec<TargetId>,
    /// Never empty.
    round: Vec<TargetId>,
}

impl Turns {
    #[inline]
    fn of(&self, turn: u64) -> TargetId {
        let turn = turn as usize;
        match self.first.get(turn) {
            Some(target) => *target,
            None => self.round[(turn - self.first.len()) % self.round.len()],
        }
    }
}

/// One round in which each candidate has as many turns as its weight says, spread evenly: in each turn everybody
/// gains its weight, and who has most takes the turn and pays a whole round for it.
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
    let mut gained = vec![0_i64; weights.len()];
    let turns = 0..length;
    turns
        .filter_map(|_| {
            gained.iter_mut().zip(&weights).for_each(|(gain, weight)| *gain += i64::from(*weight));
            // Of equals the first by address.
            let most = gained.iter().enumerate().rev().max_by_key(|(_, gain)| **gain)?.0;
            gained[most] -= i64::from(length);
            Some(ordered[most].target)
        })
        .collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
