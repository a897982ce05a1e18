//! Whether what is sent to a target arrives: the router counts its half of it, the target the other.
//!
//! ```text
//!   reached ── ENOUGH new connections and PATIENCE without a sign of any ──► lost
//!      ▲                                                                      │ after a pause, twice as long each time
//!      └────────────── a sign: the target has opened or reported one ─────── tried
//! ```
//! An agent may be linked and a server listen while nothing that is forwarded gets there: a tunnel that nobody unwraps, a
//! filter, a wrong address. No message says so; SYNs that nobody sees do.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::Moment;

/// New connections without a sign, from which on it is no accident.
const ENOUGH: u64 = 8;
/// Targets tell their counts once a second.
const PATIENCE: Duration = Duration::from_millis(2_500);
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of each target.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    targets: BTreeMap<IpAddr, Record>,
}

#[derive(Debug)]
struct Record {
    /// Counts at the last sign of an arrival.
    admitted: u64,
    arrived: u64,
    /// Connections its reports have named.
    reported: u64,
    /// When the first was sent that there has been no sign of.
    since: Option<Moment>,
    lost: Option<Moment>,
    pause: Duration,
    /// Sent in vain when it was lost.
    in_vain: u64,
}

impl Reach {
    /// A target's report has named so many connections as opened.
    pub(crate) fn reported(&mut self, target: IpAddr, connections: u64) {
        if let Some(record) = self.targets.get_mut(&target) {
            record.reported += connections;
        }
    }

    /// `admitted`: TCP connections given to it in this router's life. `opened`: what it says it has accepted in its host's.
    /// Whether it is lost or found by that.
    pub(crate) fn observe(&mut self, now: Moment, target: IpAddr, admitted: u64, opened: u64) -> bool {
        let record = self.targets.entry(target).or_insert_with(|| Record::new(admitted, opened));
        let arrived = opened.wrapping_add(record.reported);
        if arrived != record.arrived {
            let was_lost = record.lost.is_some();
            *record = Record { reported: record.reported, ..Record::new(admitted, arrived) };
            return was_lost;
        }
        let in_vain = admitted.saturating_sub(record.admitted);
        if let Some(until) = record.lost {
            if now < until {
                return false;
            }
            // Tried again, with an empty account.
            (record.lost, record.since, record.admitted) = (None, None, admitted);
            return true;
        }
        if in_vain == 0 {
            return false;
        }
        let since = *record.since.get_or_insert(now);
        if in_vain < ENOUGH || now.since(since) < PATIENCE {
            return false;
        }
        record.lost = Some(now + record.pause);
        record.pause = (record.pause * 2).min(LONGEST_PAUSE);
        record.in_vain = in_vain;
        true
    }

    /// A target that is not linked any more begins anew.
    pub(crate) fn forget(&mut self, target: IpAddr) {
        self.targets.remove(&target);
    }

    /// How many were sent in vain, to a target that is lost now.
    pub(crate) fn in_vain(&self, target: IpAddr) -> Option<u64> {
        let record = self.targets.get(&target)?;
        record.lost.map(|_| record.in_vain)
    }
}

impl Record {
    fn new(admitted: u64, arrived: u64) -> Self {
        Self { admitted, arrived, reported: 0, since: None, lost: None, pause: FIRST_PAUSE, in_vain: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));

    #[derive(Default)]
    struct Bench(Reach);

    impl Bench {
        fn at(&mut self, ms: u64, admitted: u64, opened: u64) -> (bool, Option<u64>) {
            let changed = self.0.observe(Moment(ms * 1_000_000), T1, admitted, opened);
            (changed, self.0.in_vain(T1))
        }
    }

    #[test]
    fn a_target_that_nothing_reaches_is_lost_after_a_while_tried_again_and_found_by_any_sign() {
        let mut bench = Bench::default();
        assert_eq!(bench.at(0, 100, 7), (false, None));
        assert_eq!(bench.at(500, 110, 7), (false, None));
        assert_eq!(bench.at(2_900, 120, 7), (false, None));
        assert_eq!(bench.at(3_000, 130, 7), (true, Some(30)));
        assert_eq!(bench.at(7_900, 130, 7), (false, Some(30)));
        assert_eq!(bench.at(8_000, 130, 7), (true, None), "tried");
        assert_eq!(bench.at(8_100, 139, 7), (false, None));
        assert_eq!(bench.at(10_600, 140, 7), (true, Some(10)));
        assert_eq!(bench.at(20_500, 140, 7), (false, Some(10)), "the second pause is twice as long");
        assert_eq!(bench.at(20_550, 140, 8), (true, None), "a sign");
    }

    #[test]
    fn few_connections_or_reports_of_them_condemn_nobody() {
        let mut bench = Bench::default();
        bench.at(0, 0, 0);
        assert_eq!(bench.at(1_000, 7, 0), (false, None));
        assert_eq!(bench.at(60_000, 7, 0), (false, None), "seven in vain may be one impatient client");
        bench.0.reported(T1, 1);
        assert_eq!(bench.at(60_100, 500, 0), (false, None));
        assert_eq!(bench.at(70_000, 507, 0), (false, None));
    }
}
