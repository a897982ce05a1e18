//! Watching the owner: when it is missed, and when it should be asked to give the VIPA back.

use std::{net::IpAddr, time::Duration};

use vipa_model::{Epoch, Moment, NodeName};
use vipa_protocol::{Message, Trigger, Yield, YieldRefused};

use super::{Input, Phase, Vipa};
use crate::router::{
    Context, Note, RouterView, Settings,
    orders::ORDER_LIMIT,
    reports::TargetView,
    settings::{Takeback, Timing},
    status::Wait,
    succession::Class,
};

/// How long a count of connections is valid.
const COUNT_HOLDS: Duration = Duration::from_secs(3);

impl Vipa {
    /// The moment of the next thing that time alone brings about.
    pub(in super::super) fn deadline(&self, overview: &RouterView<'_>) -> Option<Moment> {
        let RouterView { settings, stopping, .. } = *overview;
        match &self.phase {
            Phase::Standby if stopping => None,
            Phase::Standby => self.suspicion(overview),
            Phase::Suspecting(candidacy) => Some(candidacy.sent + settings.timing.lease / 2),
            Phase::Claiming(candidacy) => Some(candidacy.sent + settings.timing.lease - settings.timing.margin()),
            Phase::Rebuilding(ownership) => {
                ownership.deadline().into_iter().chain(self.leaving(settings)).chain([ownership.rebuild_until]).min()
            }
            Phase::Active(ownership) => ownership.deadline().into_iter().chain(self.leaving(settings)).min(),
            Phase::Yielding { until, .. } if stopping => Some(*until),
            // A linked successor that was not received yet may be waiting for slow voters; meanwhile this router
            // serves.
            Phase::Yielding { until, to } if self.owner.is_none() && overview.peers.contains_key(to) => Some(*until),
            Phase::Yielding { until, .. } => self.suspicion(overview).into_iter().chain([*until]).min(),
        }
    }

    /// When an owner that must give up the VIPA stops waiting to be asked.
    fn leaving(&self, settings: &Settings) -> Option<Moment> {
        let waits = self.ownership().is_some_and(|ownership| ownership.consent.is_none());
        self.leaving_since.filter(|_| waits).map(|since| since + settings.timing.consent())
    }

    /// When this router suspects the owner: a lease and the margin after its last beat, and a step later for each live
    /// router that is ranked higher.
    pub(super) fn suspicion(&self, overview: &RouterView<'_>) -> Option<Moment> {
        let RouterView { settings, peers, .. } = *overview;
        let timing = &settings.timing;
        self.own_precedence(overview)?;
        if !settings.voters.are_known() {
            return None;
        }
        if let Some(offered) = self.offered {
            // The table has the youngest connections; it is not worth waiting for without end.
            let patience = if self.table == Some(self.epoch) { Duration::ZERO } else { timing.lease * 5 };
            return Some((offered + patience).max(self.not_before));
        }
        let above = self.before_me(overview).filter(|name| Some(*name) != self.owner.as_ref());
        let mut live = 0;
        let mut absent = 0;
        for name in above {
            if peers.contains_key(name) { live += 1 } else { absent += 1 }
        }
        let patience = timing.lease + timing.margin();
        let base = match self.heard {
            Some(heard) => heard + patience,
            None if self.epoch == Epoch::NONE && !self.settings.activate => return None,
            // No owner was ever received: first the voters get time to link, then better-ranked routers get their
            // chance.
            None => self.started + patience + timing.lease * 2 * absent.min(1),
        };
        Some((base + timing.claim_step * live).max(self.not_before))
    }

    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        if cx.stopping {
            return;
        }
        self.ask_silent(cx);
        let ready = self.is_ready(cx.now, &cx.settings.timing);
        self.ready_since = if ready { self.ready_since.or(Some(cx.now)) } else { None };
        if self.suspicion(&cx.overview()).is_none_or(|due| due > cx.now) {
            self.ask_back(cx);
            return;
        }
        let (trigger, since) = match (self.offered, self.asked) {
            (Some(_), Some(asked)) => (Trigger::Takeback, asked),
            (Some(offered), None) => (Trigger::Handover, offered),
            (None, _) if self.epoch.max(self.highest) == Epoch::NONE => (Trigger::First, self.started),
            (None, _) => (Trigger::Failure, self.heard.unwrap_or(self.started)),
        };
        self.suspect(trigger, since, cx);
    }

    /// Handles a beat of the owner. False: it is superseded.
    pub(super) fn take_beat(
        &mut self,
        from: NodeName,
        epoch: Epoch,
        yielding_to: Option<&NodeName>,
        sequence: u64,
        cx: &mut Context<'_>,
    ) -> bool {
        if epoch < self.epoch || epoch == self.epoch && self.owner.as_ref().is_some_and(|owner| *owner != from) {
            return false;
        }
        let timing = &cx.settings.timing;
        let same = epoch == self.epoch && self.owner.as_ref() == Some(&from);
        if same && sequence <= self.last_sequence {
            return false;
        }
        let unbroken = same && self.heard.is_some_and(|heard| cx.now.since(heard) < timing.lease);
        if !unbroken {
            self.heard_since = Some(cx.now);
        }
        if !same {
            (self.asked, self.offered) = (None, None);
            self.unfollowed = Vec::new();
        }
        self.epoch = epoch;
        self.highest = self.highest.max(epoch);
        self.owner = Some(from);
        self.last_sequence = sequence;
        self.heard = Some(cx.now);
        self.ballots_lost = 0;
        let consents = yielding_to == Some(&cx.settings.me);
        self.offered = if consents { self.offered.or(Some(cx.now)) } else { None };
        true
    }

    /// Asks an owner that comes after this router to yield, once nothing is left to wait for.
    pub(super) fn ask_back(&mut self, cx: &mut Context<'_>) {
        let Some(owner) = self.owner.clone() else { return };
        if self.asked.is_some_and(|asked| cx.now.since(asked) < cx.settings.timing.lease * 10) {
            return;
        }
        if self.takeback(cx.now, &cx.overview()) != Some(Wait::Nothing) {
            return;
        }
        self.asked = Some(cx.now);
        let follow = |(node, view): (&NodeName, &TargetView)| Some((node.clone(), view.seen?.incarnation));
        let follows = self.targets.iter().filter(|(_, view)| view.is_warm()).filter_map(follow).collect();
        cx.send(&owner, Message::Yield(Yield { vipa: self.settings.address, epoch: self.epoch, follows }));
    }

    /// What prevents this router from taking the VIPA back; `None`: this router is not to take it back.
    pub(in super::super) fn takeback(&self, now: Moment, overview: &RouterView<'_>) -> Option<Wait> {
        let timing = &overview.settings.timing;
        let owner = self.owner.as_ref().filter(|owner| **owner != overview.settings.me)?;
        let heard = self.heard.is_some_and(|heard| now.since(heard) < timing.lease);
        if !heard || !overview.peers.contains_key(owner) || !matches!(self.phase, Phase::Standby) {
            return None;
        }
        let (mine, theirs) = (self.own_precedence(overview)?, self.succession(owner, overview));
        let unfit = theirs.is_some_and(|theirs| theirs.class == Class::Unfit);
        let outranked = || self.before_me(overview).any(|name| name != owner && overview.peers.contains_key(name));
        // An unfit owner consents unasked, and one that must give up the VIPA must be asked by the first in line.
        if Some(mine) <= theirs || unfit || theirs.is_none() && outranked() {
            return None;
        }
        let group = self.settings.group.as_ref().and_then(|group| overview.groups.get(group));
        let gathers = group.and_then(|group| group.home.as_ref()) == Some(&overview.settings.me);
        // A router that comes first by more than its rank waits for no policy.
        let wanted = self.ordered_back.is_some_and(|since| now.since(since) < ORDER_LIMIT);
        let ordered = wanted || gathers || theirs.is_none_or(|theirs| theirs.class != mine.class);
        if !ordered && self.settings.takeback == Takeback::Manual {
            return Some(Wait::Order);
        }
        let Some(ready_since) = self.ready_since else { return Some(self.lacks()) };
        if group.is_some_and(|group| group.unready.iter().any(|vipa| *vipa != self.settings.address)) && !gathers {
            return Some(Wait::Group);
        }
        if !ordered {
            let until = ready_since + self.settings.takeback_delay;
            if until > now {
                return Some(Wait::Delay { until });
            }
            if self.settings.takeback == Takeback::WhenIdle {
                let count = self.counted.filter(|(at, _)| now.since(*at) < COUNT_HOLDS).map(|(_, count)| count);
                if count != Some(0) {
                    return Some(Wait::Idle { connections: count });
                }
            }
        }
        Some(match self.unfollowed.clone() {
            missing if !missing.is_empty() && self.asked.is_some_and(|asked| now.since(asked) < timing.lease * 10) => {
                Wait::Unfollowed { targets: missing }
            }
            _ => Wait::Nothing,
        })
    }

    /// Why this router is not ready, for an operator.
    fn lacks(&self) -> Wait {
        let linked = |address: &IpAddr| self.targets.values().any(|view| view.linked && view.address == *address);
        let unread = self.targets.values().filter(|view| view.linked && !view.is_warm()).map(|view| view.address);
        let (unread, unlinked) = (unread.collect(), self.reporters().into_iter().filter(|a| !linked(a)).collect());
        Wait::Targets { unlinked, unread }
    }

    /// Whether this router could own the VIPA without losing anything: it has a list, every linked target's log, and a
    /// link to every candidate that has not been away or silent for long. The owner has its own record of the
    /// candidates that have been away or silent, and does not consent while one of them reports to it.
    pub(in super::super) fn is_ready(&self, now: Moment, timing: &Timing) -> bool {
        if self.services().is_empty() {
            return false;
        }
        let patience = timing.target_patience();
        let linked = || self.targets.values().filter(|view| view.linked);
        if linked().any(|view| view.is_awaited(now, patience)) {
            return false;
        }
        // With every beat of an owner its backups run this for each VIPA: the cheapest check comes first.
        let is_linked = |address: &IpAddr| linked().any(|view| view.address == *address);
        self.heard_since.is_some_and(|since| now.since(since) >= patience) || self.reporters().iter().all(is_linked)
    }

    pub(in super::super) fn refused_takeback(&mut self, from: &NodeName, refusal: YieldRefused, cx: &mut Context<'_>) {
        let YieldRefused { vipa, epoch, missing } = refusal;
        if epoch == self.epoch && self.owner.as_ref() == Some(from) {
            self.unfollowed.clone_from(&missing);
            cx.note(Note::TakebackTooEarly { vipa, owner: from.clone(), missing });
        }
    }

    pub(in super::super) fn take_back_now(&mut self, cx: &mut Context<'_>) {
        self.ordered_back = Some(cx.now);
        self.step(Input::Due, cx);
    }

    pub(in super::super) fn counted(&mut self, connections: u64, cx: &mut Context<'_>) {
        self.counted = Some((cx.now, connections));
        self.step(Input::Due, cx);
    }
}
