//! Weighted active connections: new connections go where the fewest live ones are, for the weight.
//!
//! The table is counted twice a second. Between two counts the workers take turns, in the order that looking at the counts before
//! every connection would have given, until everybody has as many as its weight says; from then on by the weights alone. So the packet
//! path has nothing to count, and no router asks another.

use std::{cmp::Ordering, collections::BTreeSet, net::IpAddr, time::Duration};

use vipa_model::Moment;

/// Shortest time between two counts of the table.
const RECOUNT: Duration = Duration::from_millis(500);
/// Counting may take this share of the time: one part in `SHARE`.
const SHARE: u32 = 10;
/// Turns planned at a time, twice as many as came before the last count; what comes beyond them goes by the weights.
const FEWEST_TURNS: u64 = 64;
const MOST_TURNS: u64 = 8192;

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
    /// When it is time to count, how many connections have come since the last time. `opened`: those this router has opened in
    /// its life.
    pub(crate) fn is_due(&mut self, now: Moment, opened: u64) -> Option<u64> {
        if now < self.next {
            return None;
        }
        // Counting takes its time; the next count is due some time after it.
        self.next = Moment(u64::MAX);
        Some(opened - std::mem::replace(&mut self.opened, opened).min(opened))
    }

    pub(crate) fn took(&mut self, began: Moment, now: Moment) {
        self.next = now + (now.since(began) * SHARE).max(RECOUNT);
    }
}

/// Deals connections out, each to whoever has the fewest for its weight with the ones dealt before it, until everybody has got
/// one: then all are level. `came`: before the last count.
pub(crate) fn deal(candidates: &[Weighed], came: u64) -> Vec<IpAddr> {
    let mut held: Vec<Weighed> = candidates.iter().copied().filter(|candidate| candidate.weight > 0).collect();
    let mut without: BTreeSet<IpAddr> = held.iter().map(|candidate| candidate.target).collect();
    let most = (2 * came).clamp(FEWEST_TURNS, MOST_TURNS);
    let mut dealt = Vec::new();
    while !without.is_empty() && (dealt.len() as u64) < most {
        let fewest = held.iter_mut().min_by(|one, other| fuller(one, other).then(one.target.cmp(&other.target)));
        let Some(next) = fewest else { break };
        next.active += 1;
        without.remove(&next.target);
        dealt.push(next.target);
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

    /// The places in the list of those who get the next turns.
    fn turns(list: &[(u16, u64)], came: u64) -> Vec<u8> {
        let place = |dealt| (0..).find(|place| target(*place) == dealt).expect("one of the list");
        deal(&weighed(list), came).into_iter().map(place).collect()
    }

    #[test]
    fn turns_go_where_the_fewest_are_for_the_weight_until_all_are_level() {
        assert_eq!(turns(&[(1, 0), (1, 0)], 0), [0, 1]);
        assert_eq!(turns(&[(1, 3), (1, 0)], 0), [1, 1, 1, 0]);
        assert_eq!(turns(&[(1, 2), (2, 1)], 0), [1, 1, 1, 1, 0]);
        assert_eq!(turns(&[(0, 0), (1, 5)], 0), [1]);
        assert_eq!(turns(&[], 3), [0; 0]);
    }

    #[test]
    fn no_more_turns_are_planned_than_may_be_needed() {
        let planned = |came| turns(&[(1, 0), (1, 1_000_000)], came).len() as u64;
        assert_eq!([0, 100, u64::from(u32::MAX)].map(planned), [FEWEST_TURNS, 200, MOST_TURNS]);
    }

    /// A second of it every half second: connections live for a time that depends on their target.
    #[test]
    fn slow_targets_end_up_with_as_many_live_connections_as_quick_ones() {
        let (weights, lives) = ([1_u16, 1, 2], [40_usize, 10, 20]);
        let mut ends: Vec<Vec<usize>> = vec![Vec::new(); 3];
        for now in 0..400 {
            ends.iter_mut().for_each(|ends| ends.retain(|end| *end > now));
            let list: Vec<(u16, u64)> = (0..3).map(|n| (weights[n], ends[n].len() as u64)).collect();
            let by_weight = [0, 1, 2, 2].into_iter().cycle();
            for n in turns(&list, 30).into_iter().chain(by_weight).take(30).map(usize::from) {
                ends[n].push(now + lives[n]);
            }
        }
        let per_weight: Vec<usize> = (0..3).map(|n| ends[n].len() / usize::from(weights[n])).collect();
        let (least, most) = (*per_weight.iter().min().unwrap(), *per_weight.iter().max().unwrap());
        assert!(most - least <= most / 10, "{per_weight:?}");
    }

    #[test]
    fn the_table_is_counted_at_its_pace() {
        let mut recount = Recount::default();
        let at = |ms: u64| Moment(ms * 1_000_000);
        assert_eq!(recount.is_due(at(0), 0), Some(0));
        recount.took(at(0), at(10));
        assert_eq!(recount.is_due(at(400), 100), None);
        assert_eq!(recount.is_due(at(510), 100), Some(100));
        recount.took(at(510), at(710));
        assert_eq!(recount.is_due(at(2_700), 900_000), None, "a slow count is not repeated soon");
        assert_eq!(recount.is_due(at(2_710), 900_000), Some(899_900));
    }
}
