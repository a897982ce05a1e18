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
/// More would be longer than the longest pause.
const MOST_DOUBLINGS: u32 = 4;

/// What is known of each target.
#[derive(Debug, Default)]
pub(crate) struct Reachability {
    targets: BTreeMap<IpAddr, Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Connections given to it until the last sign of an arrival.
    admitted: u64,
    /// Connections given to it until it was last observed.
    latest: u64,
    /// What it said it has accepted, once it has said so.
    opened: Option<u64>,
    /// Whether its reports have named opened connections since it was last observed.
    has_reported: bool,
    /// When the first was sent that there has been no sign of.
    since: Option<Moment>,
    lost: Option<Moment>,
    /// Pauses since the last sign of an arrival.
    pauses: u32,
    /// Sent in vain when it was lost.
    in_vain: u64,
}

impl Reachability {
    /// A target's report has named opened connections.
    pub(crate) fn reported(&mut self, target: IpAddr) {
        self.targets.entry(target).or_default().has_reported = true;
    }

    /// `admitted`: TCP connections given to it in this router's life. `opened`: what it says it has accepted in its host's.
    /// Whether it is lost or found by that.
    ///
    /// What is sent between its link and its first word of itself counts too: a burst may come at once.
    pub(crate) fn observe(&mut self, now: Moment, target: IpAddr, admitted: u64, opened: u64) -> bool {
        let record = self.targets.entry(target).or_default();
        let has_opened = record.opened.is_some_and(|before| before != opened);
        (record.latest, record.opened) = (admitted, Some(opened));
        if std::mem::take(&mut record.has_reported) || has_opened {
            let was_lost = record.lost.is_some();
            *record = Record { admitted, latest: admitted, opened: Some(opened), ..Record::default() };
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
        record.lost = Some(now + FIRST_PAUSE.saturating_mul(1 << record.pauses.min(MOST_DOUBLINGS)).min(LONGEST_PAUSE));
        record.pauses = record.pauses.saturating_add(1);
        record.in_vain = in_vain;
        true
    }

    /// A target that is not linked any more begins anew.
    pub(crate) fn unlink(&mut self, target: IpAddr) {
        if let Some(record) = self.targets.get_mut(&target) {
            let Record { latest, .. } = *record;
            *record = Record { admitted: latest, latest, ..Record::default() };
        }
    }

    /// Forgets targets that nothing can be said of any more.
    pub(crate) fn retain(&mut self, is_known: impl Fn(IpAddr) -> bool) {
        self.targets.retain(|target, _| is_known(*target));
    }

    /// How many were sent in vain, to a target that is lost now.
    pub(crate) fn in_vain(&self, target: IpAddr) -> Option<u64> {
        let record = self.targets.get(&target)?;
        record.lost.map(|_| record.in_vain)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));

    #[derive(Default)]
    struct Bench(Reachability);

    impl Bench {
        fn at(&mut self, ms: u64, admitted: u64, opened: u64) -> (bool, Option<u64>) {
            let changed = self.0.observe(Moment(ms * 1_000_000), T1, admitted, opened);
            (changed, self.0.in_vain(T1))
        }
    }

    #[test]
    fn a_target_that_nothing_reaches_is_lost_after_a_while_tried_again_and_found_by_any_sign() {
        let mut bench = Bench::default();
        assert_eq!(bench.at(0, 100, 6), (false, None));
        assert_eq!(bench.at(0, 100, 7), (false, None), "a sign");
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
        bench.0.reported(T1);
        assert_eq!(bench.at(60_100, 500, 0), (false, None));
        assert_eq!(bench.at(70_000, 507, 0), (false, None));
    }

    #[test]
    fn what_is_sent_before_a_targets_first_word_counts_and_what_was_sent_before_its_link_does_not() {
        let mut bench = Bench::default();
        assert_eq!(bench.at(900, 21, 7), (false, None), "a burst came before it said anything");
        assert_eq!(bench.at(3_400, 21, 7), (true, Some(21)));
        bench.0.unlink(T1);
        assert_eq!(bench.at(4_000, 21, 9), (false, None));
        assert_eq!(bench.at(60_000, 28, 9), (false, None));
        bench.0.unlink(T1);
        bench.0.reported(T1);
        assert_eq!(bench.at(61_000, 128, 9), (false, None), "its first report names some of the burst");
        assert_eq!(bench.at(64_000, 128, 9), (false, None));
    }
}
