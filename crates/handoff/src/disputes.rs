//! Connections that one target reports while the table has them at another.
//!
//! A target's log may be late: what it reports may have ended, with the end a few records further on, and the client may
//! have begun the next connection of the same addresses and ports at another target. So a report takes nothing from a
//! target whose agent is linked: that one speaks for itself.
//!
//! ```text
//!   report of A, entry at B ──► dispute ──► A reports the end ──────────────────────────► settled: B keeps it
//!                                     ├──► B reports the end, or its agent is away ─────► settled: A has it
//!                                     ├──► B has not confirmed it in time (see PATIENCE) ► settled: A has it
//!                                     └──► B holds it ──────────────────────────────────► stays a dispute
//! ```

use std::collections::HashMap;

use vipa_flow::{Admitted, FlowState, Tick};
use vipa_model::{ConnectionState, TargetId};

use crate::{AnyKey, Flows, Reported};

/// Disputes at the same time. It takes a client that uses a port anew while its former target's agent was away; more than a
/// few are somebody's mistake.
const MOST: usize = 4096;
/// Ticks in which the target of an entry is to report it: of a half-open one a quarter of a second, because the connection
/// is where it was completed, of one whose client went on a second.
const PATIENCE_HALF_OPEN: u32 = 1;
const PATIENCE: u32 = 4;

#[derive(Debug, Default)]
pub struct Disputes {
    open: HashMap<AnyKey, Dispute>,
    settled: Tick,
}

#[derive(Clone, Copy, Debug)]
struct Dispute {
    /// The way to the target that reports it.
    claimant: TargetId,
    since: Tick,
}

impl Disputes {
    /// As [`Flows::report`]; what another target has is kept in mind.
    pub fn report(
        &mut self,
        flows: &Flows,
        (key, claimant): (&AnyKey, TargetId),
        is_its: impl Fn(TargetId) -> bool,
        state: ConnectionState,
        now: Tick,
    ) -> Reported {
        let reported = flows.report(key, claimant, is_its, state, now);
        if matches!(reported, Reported::Disputed(_)) {
            if self.open.len() < MOST || self.open.contains_key(key) {
                self.open.insert(*key, Dispute { claimant, since: now });
            } else {
                flows.note_diverged(claimant);
            }
        }
        reported
    }

    /// As [`Flows::report_end`]; the target's own claim is over.
    pub fn report_end(&mut self, flows: &Flows, key: &AnyKey, is_its: impl Fn(TargetId) -> bool, now: Tick) -> bool {
        if self.open.get(key).is_some_and(|dispute| is_its(dispute.claimant)) {
            self.open.remove(key);
        }
        let ended = flows.report_end(key, is_its, now);
        if ended && let Some(Dispute { claimant, .. }) = self.open.remove(key) {
            // A SYN may have left an entry there that waits for the next report: then the claim waits, too.
            self.report(flows, (key, claimant), |way| way == claimant, ConnectionState::Established, now);
        }
        ended
    }

    /// As [`Flows::inherit`]. A connection that arrives at the target that claims it is confirmed at once.
    pub fn inherit(
        &mut self,
        flows: &Flows,
        (key, target): (&AnyKey, TargetId),
        state: FlowState,
        since: Option<Tick>,
        now: Tick,
    ) -> Admitted {
        let admitted = flows.inherit(key, target, state, since, now);
        if let Some(Dispute { claimant, .. }) = self.open.get(key).copied()
            && flows.lookup(key).is_some_and(|hit| hit.target == claimant)
        {
            self.open.remove(key);
            let _ = flows.confirm(key, claimant, FlowState::Confirmed, now);
        }
        admitted
    }

    /// Forgets what a target claimed whose agent is no longer linked. When it is back, it tells what has changed, and not
    /// this again: its log is to be read anew then.
    pub fn withdraw(&mut self, flows: &Flows, is_its: impl Fn(TargetId) -> bool) {
        self.open.retain(|_, dispute| {
            let withdrawn = is_its(dispute.claimant);
            if withdrawn {
                flows.note_diverged(dispute.claimant);
            }
            !withdrawn
        });
    }

    /// Settles what can be settled; once a tick is enough.
    pub fn settle(&mut self, flows: &Flows, now: Tick) {
        if self.open.is_empty() || now == self.settled {
            return;
        }
        self.settled = now;
        self.open.retain(|key, Dispute { claimant, since }| {
            let waited = now.0.wrapping_sub(since.0);
            let is_theirs = match flows.lookup(key) {
                None => false,
                Some(hit) if hit.target == *claimant => false,
                Some(hit) if !flows.is_linked(hit.target) => false,
                Some(hit) => match hit.state {
                    FlowState::Ended => false,
                    FlowState::HalfOpen => waited < PATIENCE_HALF_OPEN,
                    FlowState::Open | FlowState::Closing | FlowState::Udp => waited < PATIENCE,
                    FlowState::Confirmed | FlowState::Reopened => true,
                },
            };
            if !is_theirs {
                let _ = flows.confirm(key, *claimant, FlowState::Confirmed, now);
            }
            is_theirs
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vipa_flow::HashSeed;
    use vipa_model::{Connection, Protocol, VipaId};

    use super::*;

    const LATE: TargetId = TargetId(1);
    const HOLDER: TargetId = TargetId(2);
    const NOW: Tick = Tick(1_000);

    struct Bench {
        flows: Flows,
        disputes: Disputes,
        key: AnyKey,
    }

    impl Bench {
        /// A table that has the connection at one linked target, in this state, and the other one's report of it.
        fn disputed(state: FlowState) -> Self {
            let vipa = Ipv4Addr::new(192, 0, 2, 10).into();
            let client = ([203, 0, 113, 4], 4000).into();
            let key = AnyKey::of(VipaId(0), vipa, &Connection { protocol: Protocol::Tcp, client, port: 80 }).unwrap();
            let flows = Flows::new(100, 1, HashSeed::new([7; 4])).unwrap();
            flows.set_linked(LATE, true);
            flows.set_linked(HOLDER, true);
            flows.admit(&key, HOLDER, state, NOW);
            let mut bench = Self { flows, disputes: Disputes::default(), key };
            let reported = bench.report(LATE, ConnectionState::Established);
            assert_eq!(reported, Reported::Disputed(HOLDER), "{state:?}");
            bench
        }

        fn report(&mut self, target: TargetId, state: ConnectionState) -> Reported {
            let Self { flows, disputes, key } = self;
            disputes.report(flows, (key, target), |way| way == target, state, NOW)
        }

        fn end(&mut self, target: TargetId) -> bool {
            let Self { flows, disputes, key } = self;
            disputes.report_end(flows, key, |way| way == target, NOW)
        }

        fn after(&mut self, ticks: u32) -> Option<(TargetId, FlowState)> {
            self.disputes.settle(&self.flows, Tick(NOW.0 + ticks));
            self.flows.lookup(&self.key).map(|hit| (hit.target, hit.state))
        }
    }

    #[test]
    fn a_late_report_takes_no_younger_connection_when_its_end_follows() {
        for state in
            [FlowState::HalfOpen, FlowState::Open, FlowState::Closing, FlowState::Confirmed, FlowState::Reopened]
        {
            let mut bench = Bench::disputed(state);
            assert!(!bench.end(LATE));
            assert_eq!(bench.after(100), Some((HOLDER, state)));
        }
    }

    #[test]
    fn what_the_other_target_does_not_confirm_in_time_is_where_it_was_reported() {
        for (state, kept, lost) in [(FlowState::HalfOpen, 0, 1), (FlowState::Open, 3, 4), (FlowState::Closing, 3, 4)] {
            let mut bench = Bench::disputed(state);
            assert_eq!(bench.after(kept), Some((HOLDER, state)));
            assert_eq!(bench.after(lost), Some((LATE, FlowState::Confirmed)));
        }
        let mut bench = Bench::disputed(FlowState::Open);
        assert_eq!(bench.report(HOLDER, ConnectionState::Established), Reported::Known);
        assert_eq!(bench.after(1_000), Some((HOLDER, FlowState::Confirmed)));
    }

    #[test]
    fn the_claim_counts_once_the_holder_reports_the_end_or_is_away() {
        let mut bench = Bench::disputed(FlowState::Confirmed);
        assert!(bench.end(HOLDER));
        assert_eq!(bench.after(0), Some((LATE, FlowState::Confirmed)));
        let mut bench = Bench::disputed(FlowState::Confirmed);
        bench.flows.set_linked(HOLDER, false);
        assert_eq!(bench.after(1), Some((LATE, FlowState::Confirmed)));
        let mut bench = Bench::disputed(FlowState::Confirmed);
        bench.disputes.withdraw(&bench.flows, |way| way == LATE);
        assert!(bench.flows.has_diverged(LATE));
        bench.flows.set_linked(HOLDER, false);
        assert_eq!(bench.after(1), Some((HOLDER, FlowState::Confirmed)));
    }

    /// The holder's end was of the connection before a SYN that is remembered: that one may still be reported, or not.
    #[test]
    fn the_claim_waits_on_while_a_syn_waits_for_its_report() {
        let mut bench = Bench::disputed(FlowState::Reopened);
        assert!(bench.end(HOLDER));
        assert_eq!(bench.after(0), Some((HOLDER, FlowState::HalfOpen)));
        assert_eq!(bench.after(1), Some((LATE, FlowState::Confirmed)));
    }

    #[test]
    fn what_a_predecessor_tells_to_be_at_the_claimant_is_confirmed_at_once() {
        let mut bench = Bench::disputed(FlowState::HalfOpen);
        let Bench { flows, disputes, key } = &mut bench;
        let _ = disputes.inherit(flows, (key, LATE), FlowState::Open, None, NOW);
        assert_eq!(bench.flows.lookup(&bench.key).map(|hit| (hit.target, hit.state)), Some((LATE, FlowState::Confirmed)));
        assert!(bench.disputes.open.is_empty());
        let mut bench = Bench::disputed(FlowState::Confirmed);
        let Bench { flows, disputes, key } = &mut bench;
        let _ = disputes.inherit(flows, (key, LATE), FlowState::Open, None, NOW);
        assert_eq!(bench.after(1), Some((HOLDER, FlowState::Confirmed)));
    }

    #[test]
    fn disputes_are_bounded() {
        let flows = Flows::new(10_000, 1, HashSeed::new([7; 4])).unwrap();
        flows.set_linked(HOLDER, true);
        let mut disputes = Disputes::default();
        for client in 0..2 * MOST as u32 {
            let vipa = Ipv4Addr::new(192, 0, 2, 10).into();
            let client = (Ipv4Addr::from_bits(0x0a00_0000 + client), 4000).into();
            let key = AnyKey::of(VipaId(0), vipa, &Connection { protocol: Protocol::Tcp, client, port: 80 }).unwrap();
            flows.admit(&key, HOLDER, FlowState::Confirmed, NOW);
            disputes.report(&flows, (&key, LATE), |way| way == LATE, ConnectionState::Established, NOW);
        }
        assert_eq!(disputes.open.len(), MOST);
    }
}
