//! Weighted active connections: new connections go where the fewest live ones are, for the weight.
//!
//! The table is counted twice a second. Between two counts the workers have a round of turns, made so that going through
//! it once does what looking at the counts before every connection would have done. So the packet path has nothing to
//! count, and no router asks another.

use std::{cmp::Ordering, collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::Moment;

/// Shortest time between two counts of the table.
const RECOUNT: Duration = Duration::from_millis(500);
/// Counting may take this share of the time: one part in `SHARE`.
const SHARE: u32 = 10;
/// Turns planned at a time, as many as new connections may come until the next count.
const FEWEST_TURNS: u64 = 8;
const MOST_TURNS: u64 = 1024;

/// Each candidate's turns until the next count, by service.
pub(crate) type Turns = BTreeMap<usize, BTreeMap<IpAddr, u16>>;

/// A candidate, its weight, and its live connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weighed {
    pub(crate) target: IpAddr,
    pub(crate) weight: u16,
    pub(crate) active: u64,
}

/// When to count again.
#[derive(Debug, Default)]
pub(crate) struct Recount {
    next: Moment,
    opened: u64,
}

impl Recount {
    /// How many turns to plan, when it is time to count. `opened`: connections this router has opened in its life.
    pub(crate) fn is_due(&mut self, now: Moment, opened: u64) -> Option<u64> {
        if now < self.next {
            return None;
        }
        // Counting takes its time; the next count is due some time after it.
        self.next = Moment(u64::MAX);
        let new = opened - std::mem::replace(&mut self.opened, opened).min(opened);
        Some(new.clamp(FEWEST_TURNS, MOST_TURNS))
    }

    pub(crate) fn took(&mut self, began: Moment, now: Moment) {
        self.next = now + (now.since(began) * SHARE).max(RECOUNT);
    }
}

/// Deals `turns` connections out, each to whoever has the fewest for its weight with the ones dealt before it. Somebody who
/// has none of them gets no turn.
pub(crate) fn deal(candidates: &[Weighed], turns: u64) -> BTreeMap<IpAddr, u16> {
    let mut held: Vec<Weighed> = candidates.iter().copied().filter(|candidate| candidate.weight > 0).collect();
    let mut dealt: BTreeMap<IpAddr, u16> = BTreeMap::new();
    for _ in 0..turns {
        let fewest = held.iter_mut().min_by(|one, other| fuller(one, other).then(one.target.cmp(&other.target)));
        let Some(next) = fewest else { break };
        next.active += 1;
        *dealt.entry(next.target).or_default() += 1;
    }
    dealt
}

/// Who would have more for its weight with one more: compared as fractions, without dividing.
fn fuller(one: &Weighed, other: &Weighed) -> Ordering {
    let cross = |a: &Weighed, b: &Weighed| u128::from(a.active + 1) * u128::from(b.weight);
    cross(one, other).cmp(&cross(other, one))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn target(number: u8) -> IpAddr {
        Ipv4Addr::new(198, 51, 100, number).into()
    }

    fn weighed(list: &[(u16, u64)]) -> Vec<Weighed> {
        let weighed = |(number, &(weight, active)): (usize, &(u16, u64))| Weighed {
            target: target(number as u8),
            weight,
            active,
        };
        list.iter().enumerate().map(weighed).collect()
    }

    fn turns(list: &[(u16, u64)], turns: u64) -> Vec<u16> {
        let dealt = deal(&weighed(list), turns);
        (0..list.len()).map(|number| dealt.get(&target(number as u8)).copied().unwrap_or(0)).collect()
    }

    #[test]
    fn turns_go_where_the_fewest_are_for_the_weight() {
        assert_eq!(turns(&[(1, 0), (1, 0)], 10), [5, 5]);
        assert_eq!(turns(&[(1, 0), (1, 100)], 10), [10, 0]);
        assert_eq!(turns(&[(1, 10), (2, 10)], 10), [0, 10]);
        assert_eq!(turns(&[(1, 10), (2, 10)], 40), [10, 30]);
        assert_eq!(turns(&[(0, 0), (1, 5)], 3), [0, 3]);
        assert_eq!(turns(&[], 3), [0; 0]);
    }

    /// A second of it every half second: connections live for a time that depends on their target.
    #[test]
    fn slow_targets_end_up_with_as_many_live_connections_as_quick_ones() {
        let (weights, lives) = ([1_u16, 1, 2], [40_usize, 10, 20]);
        let mut ends: Vec<Vec<usize>> = vec![Vec::new(); 3];
        for now in 0..400 {
            ends.iter_mut().for_each(|ends| ends.retain(|end| *end > now));
            let list: Vec<(u16, u64)> = (0..3).map(|n| (weights[n], ends[n].len() as u64)).collect();
            for (n, dealt) in turns(&list, 30).into_iter().enumerate() {
                ends[n].extend(std::iter::repeat_n(now + lives[n], dealt.into()));
            }
        }
        let per_weight: Vec<usize> = (0..3).map(|n| ends[n].len() / usize::from(weights[n])).collect();
        let (least, most) = (*per_weight.iter().min().unwrap(), *per_weight.iter().max().unwrap());
        assert!(most - least <= most / 10, "{per_weight:?}");
    }

    #[test]
    fn the_table_is_counted_at_its_pace_and_as_many_turns_planned_as_may_be_needed() {
        let mut recount = Recount::default();
        let at = |ms: u64| Moment(ms * 1_000_000);
        assert_eq!(recount.is_due(at(0), 0), Some(FEWEST_TURNS));
        recount.took(at(0), at(10));
        assert_eq!(recount.is_due(at(400), 100), None);
        assert_eq!(recount.is_due(at(510), 100), Some(100));
        recount.took(at(510), at(710));
        assert_eq!(recount.is_due(at(2_700), 900_000), None, "a slow count is not repeated soon");
        assert_eq!(recount.is_due(at(2_710), 900_000), Some(MOST_TURNS));
    }
}
