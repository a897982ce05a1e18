//! Whether ownership is steady: VIPAs that change their owner again and again are named, and a router that loses its leases again
//! and again lets its VIPAs go, for longer each time.
//!
//! ```text
//!            LOSSES lost leases within WINDOW            the pause is over
//!   steady ───────────────────────────────────► unsteady ─────────────────► steady
//!                pause: FIRST_PAUSE, twice as long each time, LONGEST_PAUSE at most; FIRST_PAUSE again after CALM
//! ```
//! A lease is lost when a majority of the voters does not confirm it in time: the router gets no processor time, or its links
//! or the voters' disks are slow. It says nothing of whether packets pass, so no look at the ports notices it. While the router
//! is unsteady it counts as unfit: its VIPAs go to routers that are fit, and stay when no router is.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use vipa_cluster::{Note, State};
use vipa_model::{Epoch, Moment};
use vipa_protocol::EventKind;

use crate::control::Control;

/// What is counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// Leases lost within [`WINDOW`] that make a router unsteady.
const LOSSES: usize = 4;
/// Leases of many VIPAs that end within this count as one.
const TOGETHER: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A router that has just started is taking over whatever has no owner, links come one by one, and disks write for all of them:
/// leases that it loses meanwhile say nothing of how it will fare.
const STARTING: Duration = Duration::from_secs(15);
/// Without a lost lease for so long after a pause, the next one begins with [`FIRST_PAUSE`].
const CALM: Duration = Duration::from_secs(600);
/// Changes of owner within [`WINDOW`] by which a VIPA flaps. A planned move there and back is two.
const FLAPS: usize = 5;
/// Changes of one VIPA that are remembered.
const REMEMBERED: usize = 64;
/// Between two looks at the epochs, and between two lines in the log.
const LOOK: Duration = Duration::from_secs(1);
const LINE: Duration = Duration::from_secs(60);
/// VIPAs that a line names.
const NAMED: usize = 8;

/// The leases that this router has lost.
#[derive(Debug)]
pub(crate) struct LostLeases {
    started: Moment,
    lost: VecDeque<Moment>,
    pause: Duration,
    until: Moment,
    total: u64,
}

impl LostLeases {
    /// Of a router that starts now.
    fn new(started: Moment) -> Self {
        Self { started, lost: VecDeque::new(), pause: FIRST_PAUSE, until: Moment::ZERO, total: 0 }
    }

    /// A lease of a VIPA has ended without a majority's word. A sentence if that makes the router unsteady.
    pub(crate) fn lose(&mut self, now: Moment) -> Option<String> {
        self.total += 1;
        let is_starting = now.since(self.started) < STARTING;
        if is_starting || self.is_unsteady(now) || self.lost.back().is_some_and(|last| now.since(*last) < TOGETHER) {
            return None;
        }
        self.lost.retain(|lost| now.since(*lost) < WINDOW);
        self.lost.push_back(now);
        if self.lost.len() < LOSSES {
            return None;
        }
        self.lost.clear();
        if now.since(self.until) >= CALM {
            self.pause = FIRST_PAUSE;
        }
        self.until = now + self.pause;
        let seconds = self.pause.as_secs();
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(format!(
            "this router has lost its leases {LOSSES} times in {} s, because it gets too little processor time, or its links or the \
             voters' disks are slow: it lets its VIPAs go for {seconds} s",
            WINDOW.as_secs()
        ))
    }

    pub(crate) fn is_unsteady(&self, now: Moment) -> bool {
        now < self.until
    }

    /// Leases lost so far, those of each VIPA.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// How often the owners of VIPAs change.
#[derive(Debug, Default)]
pub(crate) struct OwnerChanges {
    /// Of this router's VIPAs.
    vipas: HashMap<IpAddr, Changes>,
    looked: Option<Moment>,
    told: Option<Moment>,
}

#[derive(Debug)]
struct Changes {
    epoch: Epoch,
    /// The newest last.
    at: VecDeque<Moment>,
}

impl Changes {
    fn recent(&self, now: Moment) -> usize {
        self.at.iter().filter(|at| now.since(**at) < WINDOW).count()
    }
}

impl OwnerChanges {
    /// When the VIPA's owner last changed, as far as this router has seen it.
    pub(crate) fn changed(&self, vipa: IpAddr) -> Option<Moment> {
        self.vipas.get(&vipa)?.at.back().copied()
    }

    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.looked.is_none_or(|looked| now.since(looked) >= LOOK)
    }

    /// Takes in the epoch of each VIPA. A line for the log if some flap and the last line is long ago.
    pub(crate) fn look(&mut self, epochs: &HashMap<IpAddr, Epoch>, now: Moment) -> Option<String> {
        self.looked = Some(now);
        self.vipas.retain(|vipa, _| epochs.contains_key(vipa));
        for (vipa, epoch) in epochs {
            let known = self.vipas.entry(*vipa).or_insert_with(|| Changes { epoch: *epoch, at: VecDeque::new() });
            if *epoch <= known.epoch {
                continue;
            }
            // The first owner is no change.
            if known.epoch != Epoch::NONE {
                if known.at.len() == REMEMBERED {
                    known.at.pop_front();
                }
                known.at.push_back(now);
            }
            known.epoch = *epoch;
        }
        let flapping = self.flapping(now);
        if flapping.is_empty() || self.told.is_some_and(|told| now.since(told) < LINE) {
            return None;
        }
        self.told = Some(now);
        let named = flapping.iter().take(NAMED).map(|(vipa, changes)| format!("{vipa} ({changes})"));
        let mut line = format!("VIPAs that flap, with their changes of owner in {} s: ", WINDOW.as_secs());
        line += &named.collect::<Vec<_>>().join(", ");
        if flapping.len() > NAMED {
            line += &format!(" and {} more", flapping.len() - NAMED);
        }
        Some(line)
    }

    /// The VIPAs that flap, with their changes of owner within a minute.
    pub(crate) fn flapping(&self, now: Moment) -> Vec<(IpAddr, usize)> {
        let recent = self.vipas.iter().map(|(vipa, changes)| (*vipa, changes.recent(now)));
        let mut flapping: Vec<_> = recent.filter(|(_, changes)| *changes >= FLAPS).collect();
        flapping.sort_unstable();
        flapping
    }
}

/// Of this router and its VIPAs.
#[derive(Debug)]
pub(crate) struct Steadiness {
    pub(crate) leases: LostLeases,
    pub(crate) owners: OwnerChanges,
}

impl Steadiness {
    /// Of a router that starts now.
    pub(crate) fn new(now: Moment) -> Self {
        Self { leases: LostLeases::new(now), owners: OwnerChanges::default() }
    }
}

impl Control {
    /// Tells the log, and counts what it says of this router's leases.
    pub(crate) fn note(&mut self, note: &Note) {
        match gravity(note) {
            Gravity::Detail => tracing::debug!("{note}"),
            Gravity::News => tracing::info!("{note}"),
            Gravity::Warning => tracing::warn!("{note}"),
            Gravity::Fault => tracing::error!("{note}"),
        }
        self.write_note_down(note);
        match note {
            Note::Refused { peer, mismatch } => {
                self.refusals.note((Some(peer.clone()), None), mismatch.to_string(), 1, self.clock.now());
            }
            Note::Denied { peer, kind, denial } => {
                let why = format!("linked, but a message of the kind {kind} is not listened to, because {denial}");
                let denied = self.cluster.messages_denied_of(peer);
                self.refusals.note_denied(peer, why, denied, self.clock.now());
            }
            _ => {}
        }
        if let Note::Fenced { .. } = note
            && let Some(line) = self.steadiness.leases.lose(self.clock.now())
        {
            tracing::warn!("{line}");
        }
    }

    pub(crate) fn look_at_owners(&mut self, now: Moment) {
        if !self.steadiness.owners.is_due(now) {
            return;
        }
        let epoch = |vipa: &IpAddr| Some((*vipa, self.cluster.brief(*vipa)?.epoch));
        let epochs = self.routing.places.keys().filter_map(epoch).collect();
        if let Some(line) = self.steadiness.owners.look(&epochs, now) {
            tracing::warn!("{line}");
            for (vipa, changes) in self.steadiness.owners.flapping(now).into_iter().take(NAMED) {
                self.write_down(EventKind::Flapping { vipa, changes: changes as u64 });
            }
        }
    }
}

/// The level at which a note is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gravity {
    Detail,
    News,
    Warning,
    Fault,
}

/// What a backup only considers is a detail: with thousands of VIPAs it would bury what happens.
fn gravity(note: &Note) -> Gravity {
    let is_waiting = |state: &State| matches!(state, State::Standby | State::Suspecting | State::Claiming);
    match note {
        Note::Transition { from, to, .. } if is_waiting(from) && is_waiting(to) => Gravity::Detail,
        Note::BallotLost { .. } => Gravity::Detail,
        Note::Linked { .. }
        | Note::Unlinked { .. }
        | Note::Owned { .. }
        | Note::Transition { .. }
        | Note::Unfenced { .. }
        | Note::Superseded { .. }
        | Note::Consented { .. }
        | Note::ConsentWithdrawn { .. }
        | Note::Decided { .. }
        | Note::TakebackTooEarly { .. }
        | Note::Eligibility { unfit: None, .. }
        | Note::Voters { .. } => Gravity::News,
        Note::Refused { .. }
        | Note::Denied { .. }
        | Note::Fenced { .. }
        | Note::TargetLate { .. }
        | Note::Eligibility { unfit: Some(_), .. }
        | Note::OtherVoters { .. } => Gravity::Warning,
        Note::TwoOwners { .. } => Gravity::Fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_considers_is_a_detail_and_what_an_owner_lives_through_is_not() {
        let transition = |from, to| Note::Transition { vipa: VIPA, epoch: Epoch(7), from, to };
        assert_eq!(gravity(&transition(State::Standby, State::Suspecting)), Gravity::Detail);
        assert_eq!(gravity(&transition(State::Claiming, State::Standby)), Gravity::Detail);
        assert_eq!(gravity(&transition(State::Claiming, State::Rebuilding)), Gravity::News);
        assert_eq!(gravity(&transition(State::Active, State::Standby)), Gravity::News);
        assert_eq!(gravity(&Note::Fenced { vipa: VIPA, epoch: Epoch(7) }), Gravity::Warning);
    }

    fn at(seconds: u64) -> Moment {
        Moment(1_000_000_000_000) + Duration::from_secs(seconds)
    }

    const VIPA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

    #[test]
    fn a_router_that_keeps_losing_its_leases_lets_go_for_longer_each_time_and_never_for_ever() {
        let (mut leases, mut now, mut pauses) = (LostLeases::new(Moment::ZERO), 0, Vec::new());
        for _ in 0..8 {
            let began = loop {
                now += 5;
                if leases.lose(at(now)).is_some() {
                    break now;
                }
            };
            while leases.is_unsteady(at(now)) {
                now += 1;
            }
            pauses.push(now - began);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
        now += 600;
        let lines: Vec<_> = [0, 5, 10, 15].map(|later| leases.lose(at(now + later))).into_iter().flatten().collect();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with("it lets its VIPAs go for 10 s"), "{lines:?}");
    }

    #[test]
    fn leases_that_end_together_or_seldom_make_nobody_unsteady() {
        let mut leases = LostLeases::new(Moment::ZERO);
        for vipa in 0..1_000 {
            assert_eq!(leases.lose(at(0) + Duration::from_micros(vipa)), None);
        }
        for minute in 1..100 {
            assert_eq!(leases.lose(at(minute * 31)), None);
        }
        assert_eq!(leases.total(), 1_099);
    }

    #[test]
    fn what_a_router_loses_while_it_starts_is_counted_and_makes_it_not_unsteady() {
        let mut leases = LostLeases::new(at(0));
        let mut lines = |seconds: std::ops::Range<u64>| seconds.filter_map(|second| leases.lose(at(second))).count();
        assert_eq!((lines(1..15), lines(15..18), lines(18..19)), (0, 0, 1));
        assert_eq!(leases.total(), 18);
    }

    #[test]
    fn a_vipa_that_flaps_is_named_once_a_minute_until_it_is_calm() {
        let (mut changes, mut lines) = (OwnerChanges::default(), Vec::new());
        for second in 0..120 {
            // Its owner changes every five seconds; the other one's stays.
            let other = "2001:db8::1".parse().unwrap();
            let epochs = [(VIPA, Epoch(1 + second / 5)), (other, Epoch(7))].into();
            lines.extend(changes.look(&epochs, at(second)).map(|line| (second, line)));
        }
        let seconds: Vec<_> = lines.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [25, 85]);
        assert_eq!(lines[1].1, "VIPAs that flap, with their changes of owner in 60 s: 192.0.2.10 (12)");
        assert_eq!(changes.flapping(at(119)), [(VIPA, 12)]);
        assert_eq!(changes.flapping(at(160)), []);
        changes.look(&HashMap::new(), at(160));
        assert!(changes.vipas.is_empty(), "it is gone");
    }

    #[test]
    fn the_first_owner_and_a_move_there_and_back_are_no_flapping() {
        let mut changes = OwnerChanges::default();
        for (second, epoch) in [(0, 0), (1, 1), (2, 2), (4, 3)] {
            assert_eq!(changes.look(&[(VIPA, Epoch(epoch))].into(), at(second)), None);
        }
        assert_eq!(changes.vipas[&VIPA].recent(at(5)), 2);
    }

    #[test]
    fn a_line_names_a_few_of_many() {
        let mut changes = OwnerChanges::default();
        let mut lines = Vec::new();
        for epoch in 1..=6 {
            let vipa = |n: u8| (IpAddr::from([192, 0, 2, n]), Epoch(epoch));
            lines.extend(changes.look(&(1..=20).map(vipa).collect(), at(epoch)));
        }
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("192.0.2.8 (5) and 12 more"), "{lines:?}");
    }
}
