//! Disputes: connections that one target reports while the table has them at another.
//!
//! A target's log may be late. A connection that it reports may have ended, with the end a few records further on, and
//! the client may have begun the next connection of the same addresses and ports at another target. So a report takes
//! nothing from another target whose agent is linked: that target's own reports decide.
//!
//! ```text
//!   report of A, entry at B ──► dispute ──► A reports the end ──────────────────────────► settled: B keeps it
//!                                     ├──► B reports the end ───────────────────────────► settled: A has it
//!                                     ├──► B's agent goes away soon (see SOON) ─────────► settled: A has it
//!                                     ├──► B has not confirmed it in time (see PATIENCE) ► settled: A has it
//!                                     ├──► the VIPA's owner reports that A has it ──────► settled: A has it
//!                                     └──► B holds it ──────────────────────────────────► stays a dispute
//! ```
//!
//! Two targets may both hold a connection of the same addresses and ports: one of them missed its end. The router that
//! owned the VIPA has forwarded the client's segments, so it has the right target. It sends that when it hands the VIPA
//! over, and a backup asks for it while the owner lives.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use vipa_flow::{Confirmed, FlowState, Tick};
use vipa_model::{Connection, ConnectionState, EntryState, TargetId, VipaId};

use crate::{AnyKey, Claim, Flows, Reported};

/// Disputes at the same time. One arises when a client reuses a port whose former target's agent was away at the end of
/// the connection; more than a few are caused by a fault.
const MOST: usize = 4096;
/// Ticks within which the target of an entry must report it. For a half-open entry a quarter of a second, because the
/// connection is at the target where it was completed; one second if the client has sent more than a SYN.
const PATIENCE_HALF_OPEN: u32 = 1;
const PATIENCE: u32 = 4;
/// The same for a half-open entry, where the other target's claim comes from a snapshot: five seconds since the last
/// SYN. A connection in a snapshot may be older than the SYN, and its client may have left it without an end that
/// reached the target. The client's next connection may need a second SYN, which comes after a second, or a third, two
/// seconds later (RFC 6298 §5.5).
const PATIENCE_OF_SNAPSHOTS: u32 = 20;
/// Ticks within which a linked target reports an end that its log had before the claim: five seconds. If it has not by
/// then, it holds the connection, and still does while its agent is away.
const SOON: u32 = 20;
/// Ticks within which a target must report a connection that a predecessor has placed at it: five seconds.
const TOLD_FOR: u32 = 20;

#[derive(Debug, Default)]
pub struct Disputes {
    open: HashMap<AnyKey, Dispute>,
    /// Connections that a predecessor has placed at this target, which has not reported them, while the table has them
    /// at another target that has.
    told: HashMap<AnyKey, Dispute>,
    settled: Tick,
}

#[derive(Clone, Copy, Debug)]
struct Dispute {
    /// The path to the target that reports the connection, or is to report it.
    claimant: TargetId,
    since: Tick,
    origin: Origin,
}

/// Kind of report that a claim comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The target's log: events as they happen.
    Log,
    /// The list of all connections that the target holds, some of which may be old.
    Snapshot,
}

impl Origin {
    fn patience_half_open(self) -> u32 {
        match self {
            Self::Log => PATIENCE_HALF_OPEN,
            Self::Snapshot => PATIENCE_OF_SNAPSHOTS,
        }
    }
}

impl Dispute {
    /// Whether the other target has not reported an end in time, so that it holds the connection.
    fn is_old(&self, now: Tick) -> bool {
        now.0.wrapping_sub(self.since.0) >= SOON
    }
}

impl Disputes {
    /// As [`Flows::report`]; a report of another target's connection becomes a dispute.
    pub fn report(
        &mut self,
        flows: &Flows,
        (key, claimant): (&AnyKey, TargetId),
        is_its: impl Fn(TargetId) -> bool,
        claim: impl Fn(TargetId) -> Claim,
        (state, origin): (ConnectionState, Origin),
        now: Tick,
    ) -> Reported {
        let is_old = self.open.get(key).is_some_and(|dispute| dispute.claimant == claimant && dispute.is_old(now));
        if is_old
            && let Some(hit) = flows.lookup(key).filter(|hit| hit.state.is_held() && !is_its(hit.target))
            && claim(hit.target) == Claim::Unheld
        {
            return Reported::Disputed(hit.target);
        }
        let reported = flows.report(key, claimant, is_its, claim, state, now);
        if let Reported::Disputed(_) = reported {
            if self.told.get(key).is_some_and(|told| told.claimant == claimant) {
                return self.give(flows, key, claimant, now);
            }
            let is_full = self.open.len() >= MOST;
            match self.open.entry(*key) {
                Entry::Occupied(dispute) if dispute.get().claimant == claimant => {}
                Entry::Vacant(_) if is_full => flows.note_diverged(claimant),
                entry => drop(entry.insert_entry(Dispute { claimant, since: now, origin })),
            }
        }
        reported
    }

    /// As [`Flows::report_end`]; also ends the target's own claim.
    pub fn report_end(&mut self, flows: &Flows, key: &AnyKey, is_its: impl Fn(TargetId) -> bool, now: Tick) -> bool {
        if self.open.get(key).is_some_and(|dispute| is_its(dispute.claimant)) {
            self.open.remove(key);
        }
        let ended = flows.report_end(key, is_its, now);
        if ended && let Some(Dispute { claimant, origin, .. }) = self.open.remove(key) {
            // A SYN may have left an entry there that waits for the next report: then the claim waits, too.
            let state = (ConnectionState::Established, origin);
            self.report(flows, (key, claimant), |way| way == claimant, |_| Claim::Unheld, state, now);
        }
        ended
    }

    /// As [`Flows::inherit`]. A connection that the predecessor places at the target that claims it goes to that
    /// target, even if another one holds it, too.
    pub fn inherit(
        &mut self,
        flows: &Flows,
        (key, target): (&AnyKey, TargetId),
        state: EntryState,
        since: Option<Tick>,
        now: Tick,
    ) {
        // A connection that a target held when its agent was last linked is older than the predecessor's information.
        if state == EntryState::Held
            && let Some(hit) = flows.lookup(key).filter(|hit| hit.target != target && hit.state.is_held())
            && !flows.is_linked(hit.target)
            && flows.remove(key, Some(hit.target))
        {
            flows.note_diverged(hit.target);
        }
        let _ = flows.inherit(key, target, FlowState::of_told(state), since, now);
        let is_here = flows.lookup(key).is_some_and(|hit| hit.target == target);
        let is_claimed = self.open.get(key).is_some_and(|dispute| dispute.claimant == target);
        if is_claimed && (is_here || state.has_segments()) {
            self.give(flows, key, target, now);
        } else if !is_here && state.has_segments() && self.told.len() < MOST {
            self.told.insert(*key, Dispute { claimant: target, since: now, origin: Origin::Log });
        }
    }

    /// Whether this target reports a connection that the table has at another target, or has had until a moment ago.
    #[must_use]
    pub fn is_claimed(&self, key: &AnyKey, target: TargetId) -> bool {
        self.open.get(key).is_some_and(|dispute| dispute.claimant == target)
    }

    /// The connections that two targets hold, by VIPA: at most `most` of each VIPA.
    #[must_use]
    pub fn by_vipa(&self, most: usize) -> BTreeMap<VipaId, Vec<Connection>> {
        let mut by_vipa: BTreeMap<VipaId, Vec<Connection>> = BTreeMap::new();
        for key in self.open.keys() {
            let of_vipa = by_vipa.entry(key.vipa()).or_default();
            if of_vipa.len() < most {
                of_vipa.push(key.connection());
            }
        }
        by_vipa
    }

    /// Settles for the claimant. Another target that holds the connection becomes the claimant.
    fn give(&mut self, flows: &Flows, key: &AnyKey, claimant: TargetId, now: Tick) -> Reported {
        self.open.remove(key);
        self.told.remove(key);
        if let Some(holder) = flows.lookup(key).filter(|hit| hit.target != claimant && hit.state.is_held()) {
            self.open.insert(*key, Dispute { claimant: holder.target, since: now, origin: Origin::Log });
        }
        match flows.confirm(key, claimant, FlowState::Confirmed, now) {
            Confirmed::Full => Reported::Full,
            Confirmed::Known => Reported::Known,
            Confirmed::New | Confirmed::NewEvicting(_) | Confirmed::Replaced(_) => Reported::New,
        }
    }

    /// Removes the claims of a target whose agent is no longer linked. When it is back, it reports what has changed,
    /// but not these connections again: its log must then be read from the start.
    pub fn withdraw(&mut self, flows: &Flows, is_its: impl Fn(TargetId) -> bool) {
        self.open.retain(|_, dispute| {
            let withdrawn = is_its(dispute.claimant);
            if withdrawn {
                flows.note_diverged(dispute.claimant);
            }
            !withdrawn
        });
    }

    /// Whether a dispute or a predecessor's placement names this path.
    #[must_use]
    pub fn names(&self, way: TargetId) -> bool {
        self.open.values().chain(self.told.values()).any(|dispute| dispute.claimant == way)
    }

    /// Removes the disputes about a VIPA that this router owns no more.
    pub fn forget(&mut self, vipa: VipaId) {
        self.open.retain(|key, _| key.vipa() != vipa);
        self.told.retain(|key, _| key.vipa() != vipa);
    }

    /// Settles all disputes that can be settled; to be called once a tick.
    pub fn resolve(&mut self, flows: &Flows, now: Tick) {
        if self.open.is_empty() && self.told.is_empty() || now == self.settled {
            return;
        }
        self.settled = now;
        self.told.retain(|_, told| now.0.wrapping_sub(told.since.0) < TOLD_FOR);
        self.open.retain(|key, dispute| {
            let Dispute { claimant, since, origin } = &*dispute;
            let waited = now.0.wrapping_sub(since.0);
            let is_theirs = match flows.lookup(key) {
                None => false,
                Some(hit) if hit.target == *claimant => false,
                Some(hit) if !flows.is_linked(hit.target) => hit.state.is_held() && dispute.is_old(now),
                Some(hit) => match hit.state {
                    FlowState::Ended => false,
                    // The SYN may be younger than the claim.
                    FlowState::HalfOpen => waited.min(hit.silence(now).into()) < origin.patience_half_open(),
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
    use vipa_model::Protocol;

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
            disputes.report(flows, (key, target), |way| way == target, |_| Claim::Unheld, (state, Origin::Log), NOW)
        }

        /// The target reports again that it holds the connection.
        fn report_at(&mut self, target: TargetId, now: Tick) {
            let Self { flows, disputes, key } = self;
            let state = (ConnectionState::Established, Origin::Log);
            disputes.report(flows, (key, target), |way| way == target, |_| Claim::Unheld, state, now);
        }

        /// The VIPA's previous owner reports that the late target has the connection.
        fn inherit(&mut self, state: EntryState) {
            let Self { flows, disputes, key } = self;
            disputes.inherit(flows, (key, LATE), state, None, NOW);
        }

        fn end(&mut self, target: TargetId) -> bool {
            let Self { flows, disputes, key } = self;
            disputes.report_end(flows, key, |way| way == target, NOW)
        }

        fn after(&mut self, ticks: u32) -> Option<(TargetId, FlowState)> {
            self.disputes.resolve(&self.flows, Tick(NOW.0 + ticks));
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
    fn a_target_that_no_list_names_takes_nothing_and_gives_way_to_one_that_a_list_names() {
        let report = |bench: &mut Bench, claim| {
            let Bench { flows, disputes, key } = bench;
            let state = (ConnectionState::Established, Origin::Log);
            disputes.report(flows, (key, LATE), |way| way == LATE, |_| claim, state, NOW)
        };
        for linked in [true, false] {
            let mut bench = Bench::disputed(FlowState::Confirmed);
            bench.disputes.withdraw(&bench.flows, |way| way == LATE);
            bench.flows.set_linked(HOLDER, linked);
            assert_eq!(report(&mut bench, Claim::Nothing), Reported::Unlisted);
            assert_eq!(bench.after(100), Some((HOLDER, FlowState::Confirmed)), "linked {linked}");
            assert_eq!(report(&mut bench, Claim::Everything), Reported::New);
            assert_eq!(bench.after(101), Some((LATE, FlowState::Confirmed)), "linked {linked}");
        }
        // An ended connection belongs to no target.
        let mut bench = Bench::disputed(FlowState::Confirmed);
        bench.disputes.withdraw(&bench.flows, |way| way == LATE);
        assert!(bench.end(HOLDER));
        assert_eq!(report(&mut bench, Claim::Nothing), Reported::New);
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

    /// The client's SYN passed here, and its handshake may take a second SYN. The other target holds the previous
    /// connection, which the client has left without an end that reached that target.
    #[test]
    fn what_a_snapshot_names_may_be_older_than_a_syn_that_passed_here() {
        for (origin, kept) in [(Origin::Log, 0), (Origin::Snapshot, PATIENCE_OF_SNAPSHOTS - 1)] {
            let mut bench = Bench::disputed(FlowState::HalfOpen);
            bench.disputes.open.clear();
            let Bench { flows, disputes, key } = &mut bench;
            let state = (ConnectionState::Established, origin);
            disputes.report(flows, (key, LATE), |way| way == LATE, |_| Claim::Unheld, state, NOW);
            assert_eq!(bench.after(kept), Some((HOLDER, FlowState::HalfOpen)), "{origin:?}");
            assert_eq!(bench.after(kept + 1), Some((LATE, FlowState::Confirmed)), "{origin:?}");
        }
    }

    /// The target has had time to report its end, so it holds the connection, whatever happens to its agent later.
    #[test]
    fn a_holder_whose_agent_goes_away_long_after_the_claim_keeps_the_connection() {
        for (held_for, expected) in [(SOON - 1, LATE), (SOON, HOLDER)] {
            let mut bench = Bench::disputed(FlowState::Confirmed);
            assert_eq!(bench.after(held_for), Some((HOLDER, FlowState::Confirmed)));
            // A repeated report is no new claim.
            assert_eq!(bench.report(LATE, ConnectionState::Established), Reported::Disputed(HOLDER));
            bench.flows.set_linked(HOLDER, false);
            bench.disputes.settled = Tick(0);
            assert_eq!(bench.after(held_for), Some((expected, FlowState::Confirmed)), "{held_for}");
            bench.report_at(LATE, Tick(NOW.0 + held_for));
            assert_eq!(bench.after(held_for), Some((expected, FlowState::Confirmed)), "{held_for}");
        }
    }

    /// The holder's end was of the connection before a SYN that is remembered: the next connection may still be
    /// reported, or not.
    #[test]
    fn the_claim_waits_on_while_a_syn_waits_for_its_report() {
        let mut bench = Bench::disputed(FlowState::Reopened);
        assert!(bench.end(HOLDER));
        assert_eq!(bench.after(0), Some((HOLDER, FlowState::HalfOpen)));
        assert_eq!(bench.after(1), Some((LATE, FlowState::Confirmed)));
    }

    #[test]
    fn what_a_predecessor_has_heard_counts_more_than_what_a_target_held_whose_agent_went_away() {
        for (linked, expected) in [(false, (LATE, FlowState::Open)), (true, (HOLDER, FlowState::Confirmed))] {
            let mut bench = Bench::disputed(FlowState::Confirmed);
            bench.disputes.withdraw(&bench.flows, |way| way == LATE);
            bench.flows.set_linked(HOLDER, linked);
            bench.inherit(EntryState::Held);
            assert_eq!(bench.after(1), Some(expected), "linked {linked}");
            assert_eq!(bench.flows.has_diverged(HOLDER), !linked);
        }
    }

    #[test]
    fn what_a_predecessor_tells_to_be_at_the_claimant_is_confirmed_at_once() {
        let mut bench = Bench::disputed(FlowState::HalfOpen);
        bench.inherit(EntryState::Open);
        let entry = bench.flows.lookup(&bench.key).map(|hit| (hit.target, hit.state));
        assert_eq!(entry, Some((LATE, FlowState::Confirmed)));
        assert!(bench.disputes.open.is_empty());
    }

    /// One of the two has missed the connection's end, and the predecessor has forwarded the client's segments to the
    /// other.
    #[test]
    fn of_two_targets_that_hold_a_connection_the_predecessor_knows_which_one_it_is() {
        use EntryState::{Closing, Ended, HalfOpen, Held, Open};
        for (told, expected) in [(Held, LATE), (Open, LATE), (Closing, LATE), (HalfOpen, HOLDER), (Ended, HOLDER)] {
            // The predecessor reports after the claim.
            let mut bench = Bench::disputed(FlowState::Confirmed);
            bench.inherit(told);
            assert_eq!(bench.after(1), Some((expected, FlowState::Confirmed)));
            // When the connection ends at that target, the other one has it.
            let other = if expected == LATE { HOLDER } else { LATE };
            bench.end(expected);
            assert_eq!(bench.after(2), Some((other, FlowState::Confirmed)));
            // The predecessor reports before the claim.
            let mut bench = Bench::disputed(FlowState::Confirmed);
            bench.disputes.withdraw(&bench.flows, |way| way == LATE);
            bench.inherit(told);
            assert_eq!(bench.after(1), Some((HOLDER, FlowState::Confirmed)));
            bench.report(LATE, ConnectionState::Established);
            assert_eq!(bench.after(2), Some((expected, FlowState::Confirmed)));
        }
        // A report of long ago counts no more.
        let mut bench = Bench::disputed(FlowState::Confirmed);
        bench.disputes.withdraw(&bench.flows, |way| way == LATE);
        bench.inherit(EntryState::Held);
        bench.after(TOLD_FOR);
        bench.report(LATE, ConnectionState::Established);
        assert_eq!(bench.after(TOLD_FOR + 1), Some((HOLDER, FlowState::Confirmed)));
    }

    #[test]
    fn a_dispute_names_its_claimant_until_its_vipa_is_gone() {
        let mut bench = Bench::disputed(FlowState::Confirmed);
        assert!(bench.disputes.names(LATE) && !bench.disputes.names(HOLDER));
        bench.disputes.forget(VipaId(1));
        assert!(bench.disputes.names(LATE));
        bench.disputes.forget(VipaId(0));
        assert!(!bench.disputes.names(LATE));
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
            let state = (ConnectionState::Established, Origin::Log);
            disputes.report(&flows, (&key, LATE), |way| way == LATE, |_| Claim::Unheld, state, NOW);
        }
        assert_eq!(disputes.open.len(), MOST);
    }
}
