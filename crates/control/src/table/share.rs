//! How much of the connection table one target's reports may hold.
//!
//! A report makes an entry of a connection that no packet has shown here: after a takeover most entries are made so. A target that
//! reports connections that do not exist would fill the table, and entries that reports hold give way to nothing. So a part of the
//! table is guaranteed, in equal parts, to the targets that are known; beyond its own part a target takes what is free and not
//! guaranteed to others. A connection whose packets have passed here is always taken in.
//!
//! ```text
//!   ├─ in use ─┼─ what targets have not used of their guarantee ─┼─ pool: whoever reports first ─┤ capacity of one family
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use vipa_flow::{FlowState, Tick};
use vipa_handoff::{AnyKey, Flows};
use vipa_model::TargetId;

use crate::network::paths::Paths;

/// A target whose reports were refused is named for so many ticks after the last of them: ten minutes.
const NAMED_FOR: u32 = 2_400;
/// Targets named at the same time.
const MAX_NAMED: usize = 64;

/// The shares of both families' tables, as of a moment ago.
#[derive(Debug, Default)]
pub(crate) struct TableShares {
    families: [FamilyShare; 2],
    numbers: HashMap<IpAddr, Vec<TargetId>>,
    measured: Option<Tick>,
    over: BTreeMap<IpAddr, OverShare>,
    news: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, Default)]
struct FamilyShare {
    /// Entries that the reports of any target may hold, whatever others hold.
    guarantee: u64,
    /// Entries that are free, and guaranteed to nobody.
    pool: u64,
}

/// A target whose reports found their share used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverShare {
    pub(crate) refused: u64,
    last: Tick,
}

/// What is left for one target while a run of its reports is taken in.
#[derive(Debug)]
pub(crate) struct Room {
    is_ipv6: bool,
    numbers: Vec<TargetId>,
    /// What it held at first, and what it may hold; `None`: there is nobody else to keep anything for.
    bounds: Option<(u64, u64)>,
}

impl TableShares {
    /// Measures the tables, once a tick at most. `reserve_percent`: the part of a table that is guaranteed.
    pub(crate) fn measure(&mut self, flows: &Flows, ways: &Paths, reserve_percent: u8, now: Tick) {
        if self.measured == Some(now) {
            return;
        }
        self.measured = Some(now);
        self.numbers.clear();
        for (id, way) in ways.all() {
            self.numbers.entry(way.address).or_default().push(id);
        }
        let targets = (self.numbers.len() as u64).max(1);
        for (is_ipv6, family) in [false, true].into_iter().zip(&mut self.families) {
            let (capacity, counts) = if is_ipv6 {
                (flows.ipv6.capacity(), flows.ipv6.count())
            } else {
                (flows.ipv4.capacity(), flows.ipv4.count())
            };
            let capacity = capacity as u64;
            family.guarantee = capacity * u64::from(reserve_percent) / 100 / targets;
            let reserved: u64 = self
                .numbers
                .values()
                .map(|numbers| family.guarantee.saturating_sub(held(flows, is_ipv6, numbers)))
                .sum();
            // Half-open entries give way to all others.
            let in_use = counts.live().saturating_sub(counts.half_open);
            family.pool = capacity.saturating_sub(in_use).saturating_sub(reserved);
        }
    }

    /// What this target's reports may add.
    pub(crate) fn room(&self, flows: &Flows, target: IpAddr, is_ipv6: bool) -> Room {
        let numbers = self.numbers.get(&target).cloned().unwrap_or_default();
        let others = self.numbers.len() - usize::from(self.numbers.contains_key(&target));
        let FamilyShare { guarantee, pool } = self.families[usize::from(is_ipv6)];
        let is_limited = others > 0 && guarantee > 0;
        let bounds = is_limited.then(|| {
            let holds = held(flows, is_ipv6, &numbers);
            (holds, holds.max(guarantee).saturating_add(pool))
        });
        Room { is_ipv6, numbers, bounds }
    }

    /// The run has been taken in: what it used of the pool is used, and so many of its reports were refused.
    pub(crate) fn account(&mut self, flows: &Flows, target: IpAddr, room: &Room, refused: u64, now: Tick) {
        let family = &mut self.families[usize::from(room.is_ipv6)];
        if let Some((before, _)) = room.bounds {
            let after = held(flows, room.is_ipv6, &room.numbers);
            family.pool = family.pool.saturating_sub(after.saturating_sub(before.max(family.guarantee)));
        }
        if refused == 0 {
            return;
        }
        self.over.retain(|_, over| over.is_recent(now));
        if let Some(over) = self.over.get_mut(&target) {
            (over.refused, over.last) = (over.refused.saturating_add(refused), now);
        } else if self.over.len() < MAX_NAMED {
            self.over.insert(target, OverShare { refused, last: now });
            self.news = Some(target);
        }
    }

    /// A target that is named since this was last asked.
    pub(crate) fn take_news(&mut self) -> Option<IpAddr> {
        self.news.take()
    }

    /// The targets whose reports were refused lately.
    pub(crate) fn over(&self, now: Tick) -> impl Iterator<Item = (IpAddr, OverShare)> {
        self.over.iter().filter(move |(_, over)| over.is_recent(now)).map(|(target, over)| (*target, *over))
    }
}

impl OverShare {
    fn is_recent(&self, now: Tick) -> bool {
        now.0.wrapping_sub(self.last.0) < NAMED_FOR
    }
}

impl Room {
    /// Whether the target, reached by `way`, may hold this connection.
    pub(crate) fn has(&mut self, flows: &Flows, way: TargetId, key: &AnyKey) -> bool {
        let Some((_, limit)) = self.bounds else { return true };
        if !self.numbers.contains(&way) {
            self.numbers.push(way);
        }
        held(flows, self.is_ipv6, &self.numbers) < limit
            || flows.lookup(key).is_some_and(|hit| {
                self.numbers.contains(&hit.target) && !matches!(hit.state, FlowState::HalfOpen | FlowState::Ended)
            })
    }
}

fn held(flows: &Flows, is_ipv6: bool, numbers: &[TargetId]) -> u64 {
    numbers.iter().map(|number| flows.held(is_ipv6, *number)).sum()
}

#[cfg(test)]
mod tests;
