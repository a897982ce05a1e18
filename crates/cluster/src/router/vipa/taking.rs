//! Taking a VIPA over: the ballots, the takeover, the end of rebuilding.

use std::{collections::BTreeSet, net::IpAddr};

use vipa_model::{Epoch, Moment};
use vipa_protocol::{Ballot, Claim, Matter, Order, OwnershipCause, TakeoverReport, Trigger};

use super::{Phase, Vipa};
use crate::router::{
    Context, Note, Output, RouterView,
    election::{Candidacy, Standings},
    ownership::Ownership,
    reports::TargetView,
};

impl Vipa {
    pub(super) fn suspect(&mut self, trigger: Trigger, since: Moment, cx: &mut Context<'_>) {
        let epochs = cx.settings.voters.epochs();
        let epoch = self.epoch.max(self.highest).next().max(epochs.start);
        if epoch >= epochs.end {
            // Other nodes go by later voters. This router must adopt them, too, before it may own anything.
            self.not_before = cx.now + cx.settings.timing.lease;
            return;
        }
        self.enter(Phase::Suspecting(Candidacy::new(epoch, cx.now, trigger, since)), cx);
        self.campaign(Ballot::Trial, epoch, cx);
    }

    pub(super) fn campaign(&self, ballot: Ballot, epoch: Epoch, cx: &mut Context<'_>) {
        let settings = cx.settings;
        for voter in settings.electors() {
            cx.claim(voter, Claim { vipa: self.settings.address, epoch, ballot });
        }
    }

    pub(super) fn count(&mut self, cx: &mut Context<'_>) {
        let voters = cx.settings.electors().len();
        match &self.phase {
            Phase::Suspecting(candidacy) => match candidacy.standings(voters) {
                Standings::Won => {
                    let candidacy = candidacy.in_earnest(cx.now);
                    let epoch = candidacy.epoch;
                    self.enter(Phase::Claiming(candidacy), cx);
                    self.campaign(Ballot::Real { round: 0 }, epoch, cx);
                }
                Standings::Lost => self.lose_ballot(cx),
                Standings::Open => {}
            },
            Phase::Claiming(candidacy) => match candidacy.standings(voters) {
                Standings::Won => self.take_over(cx),
                Standings::Lost => self.lose_ballot(cx),
                Standings::Open => {}
            },
            Phase::Standby | Phase::Rebuilding(_) | Phase::Active(_) | Phase::Yielding { .. } => {}
        }
    }

    pub(super) fn ballot_due(&mut self, cx: &mut Context<'_>) {
        let overview = RouterView { stopping: false, ..cx.overview() };
        if self.deadline(&overview).is_some_and(|due| due <= cx.now) {
            self.ask_again(cx);
        }
    }

    /// Ends a ballot whose time has passed. A real one without a rival has another round: a new epoch would only make
    /// slow disks write once more.
    fn ask_again(&mut self, cx: &mut Context<'_>) {
        if let Phase::Claiming(candidacy) = &mut self.phase
            && let Some(next) = candidacy.again(cx.now)
        {
            let (round, epoch) = (next.round, next.epoch);
            *candidacy = next;
            self.campaign(Ballot::Real { round }, epoch, cx);
        } else {
            self.lose_ballot(cx);
        }
    }

    /// Returns to watching, for a time that keeps two losers of one ballot apart.
    pub(super) fn lose_ballot(&mut self, cx: &mut Context<'_>) {
        let timing = &cx.settings.timing;
        let above = self.before_me(&cx.overview()).count();
        let step = timing.claim_step * u32::try_from(above).unwrap_or(u32::MAX);
        let (candidacy, pause) = match &self.phase {
            // Doubled each time, so that a router without voters does not ask them for ever at the rate of beats.
            Phase::Suspecting(candidacy) => (candidacy, timing.beat * (1 << self.ballots_lost.min(6))),
            Phase::Claiming(candidacy) => (candidacy, timing.lease / 2 + step),
            Phase::Standby | Phase::Rebuilding(_) | Phase::Active(_) | Phase::Yielding { .. } => return,
        };
        let refusals = candidacy.refused.iter().map(|(voter, refusal)| (voter.clone(), *refusal)).collect();
        let note = Note::BallotLost { vipa: self.settings.address, epoch: candidacy.epoch, refusals };
        self.highest = match self.phase {
            // Some voters have granted this epoch to another router; it is used up.
            Phase::Claiming(_) => self.highest.max(candidacy.epoch),
            _ => self.highest,
        };
        self.not_before = cx.now + pause.min(timing.lease * 10);
        self.ballots_lost += 1;
        cx.note(note);
        self.stand_by(cx);
    }

    pub(super) fn stand_by(&mut self, cx: &mut Context<'_>) {
        if let Phase::Claiming(candidacy) = &self.phase {
            self.highest = self.highest.max(candidacy.epoch);
        }
        self.enter(Phase::Standby, cx);
    }

    /// A majority granted it. From here on the order of the outputs matters: first the workers, then the network, then
    /// the targets.
    pub(super) fn take_over(&mut self, cx: &mut Context<'_>) {
        let Phase::Claiming(candidacy) = &self.phase else { return };
        let us = |from: Moment, to: Moment| u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX);
        let (vipa, epoch, claimed) = (self.settings.address, candidacy.epoch, (candidacy.round, candidacy.sent));
        let report = TakeoverReport {
            vipa,
            epoch,
            trigger: candidacy.trigger,
            cause: self.cause(candidacy, &cx.overview()),
            predecessor: self.owner.clone(),
            detect_us: us(candidacy.since, candidacy.asked_first),
            collect_us: us(candidacy.asked_first, cx.now),
            rebuild_us: 0,
            targets_answered: 0,
            targets_expected: 0,
            targets_warm: u32::try_from(self.targets.values().filter(|view| view.is_warm()).count())
                .unwrap_or(u32::MAX),
            connections_reported: 0,
        };
        let (from, cause) = (report.predecessor.clone(), report.cause.clone());
        let ownership = Ownership::new(candidacy.granted.clone(), claimed, cx.now, cx.settings, report);
        let until = ownership.lease;
        if until <= cx.now {
            // The grants took so long that another router may have been granted the next epoch already.
            self.ask_again(cx);
            return;
        }
        self.epoch = epoch;
        self.highest = self.highest.max(epoch);
        self.owner = Some(cx.settings.me.clone());
        (self.heard, self.heard_since, self.offered, self.asked) = (None, None, None, None);
        (self.ballots_lost, self.ordered_back, self.ready_since) = (0, None, None);
        cx.note(Note::Owned { vipa, epoch, from, cause });
        self.serve(cx);
        self.enter(Phase::Rebuilding(ownership), cx);
        cx.out.push(Output::Lease { vipa, until });
        cx.out.push(Output::Announce { vipa });
        cx.beats.hurry(self.settings.address);
        self.tell_all(cx);
        self.rebuilt(cx);
    }

    /// Why this router takes the VIPA over, as far as it is known here.
    fn cause(&self, candidacy: &Candidacy, overview: &RouterView<'_>) -> OwnershipCause {
        let (vipa, me, log) = (self.settings.address, &overview.settings.me, overview.decision_log);
        let ordered = |order: Order, matter: &Matter| OwnershipCause::Ordered {
            order: order.to_string(),
            given: log.given(matter).cloned(),
        };
        if let Some(owner) = &self.owner {
            let barred = Matter::Ownership { vipa, router: owner.clone() };
            if log.withholds(&barred) {
                return ordered(Order::Deactivate { vipa, force: false }, &barred);
            }
            if log.has_left(owner) {
                let left = Matter::Membership { node: owner.clone() };
                return ordered(Order::Leave { node: Some(owner.clone()), force: false }, &left);
            }
        }
        let place = Matter::Place { vipa };
        match candidacy.trigger {
            Trigger::First => OwnershipCause::First,
            Trigger::Failure => {
                let silent = candidacy.asked_first.since(candidacy.since);
                OwnershipCause::Silent { ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX) }
            }
            Trigger::Takeback | Trigger::Handover => {
                let unfit = self.owner.as_ref().and_then(|owner| overview.peers.get(owner)?.unfit.clone());
                if log.place(vipa) == Some(me) {
                    ordered(Order::Move { vipa, to: me.clone() }, &place)
                } else if let Some(why) = unfit {
                    OwnershipCause::Unfit { why }
                } else if candidacy.trigger == Trigger::Handover {
                    OwnershipCause::HandedOver
                } else if self.ordered_back.is_some() {
                    ordered(Order::Takeback { vipa }, &place)
                } else if self.owner.as_ref().and_then(|owner| self.succession(owner, overview))
                    > self.own_precedence(overview)
                {
                    OwnershipCause::Group
                } else {
                    OwnershipCause::Rank
                }
            }
        }
    }

    /// Ends the rebuilding when every target has answered, or its time has passed.
    pub(super) fn rebuilt(&mut self, cx: &mut Context<'_>) {
        let Phase::Rebuilding(ownership) = &self.phase else { return };
        // For a report of many messages: a target that has not answered yet is found soon, without a full count.
        let unanswered = |view: &TargetView| view.linked && !view.has_answered(ownership.epoch);
        if cx.now < ownership.rebuild_until && self.targets.values().any(unanswered) {
            return;
        }
        let (expected, missing) = self.expected_answers(ownership.epoch);
        if !missing.is_empty() && cx.now < ownership.rebuild_until {
            return;
        }
        let mut ownership = ownership.clone();
        for &target in &missing {
            cx.note(Note::TargetLate { vipa: self.settings.address, epoch: ownership.epoch, target });
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        ownership.report.targets_expected = count(expected);
        ownership.report.targets_answered = count(expected - missing.len());
        ownership.report.rebuild_us = u64::try_from(cx.now.since(ownership.granted_at).as_micros()).unwrap_or(u64::MAX);
        let report = ownership.report.clone();
        self.last_report = Some(report.clone());
        self.enter(Phase::Active(ownership), cx);
        cx.out.push(Output::Report(report));
    }

    /// How many targets are expected to answer for `epoch`, and those that have not: the linked ones and every
    /// candidate, of this router's list or of the previous owner's.
    pub(super) fn expected_answers(&self, epoch: Epoch) -> (usize, Vec<IpAddr>) {
        let mut expected = self.reporters();
        expected.extend(self.targets.values().filter(|view| view.linked).map(|view| view.address));
        expected.sort_unstable();
        expected.dedup();
        let answered = self.targets.values().filter(|view| view.has_answered(epoch)).map(|view| view.address);
        let answered: BTreeSet<IpAddr> = answered.collect();
        let missing = expected.iter().filter(|address| !answered.contains(address)).copied().collect();
        (expected.len(), missing)
    }
}
