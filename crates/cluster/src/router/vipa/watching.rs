//! Watching the owner: when it is missed, and when it should be asked to give the VIPA back.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use vipa_model::{Epoch, Moment, NodeName};
use vipa_protocol::{Message, Trigger, Yield};

use super::{Phase, Vipa};
use crate::router::{Context, Peer, Settings, reports::TargetView};

impl Vipa {
    /// The moment of the next thing that time alone brings about.
    pub(in super::super) fn deadline(
        &self,
        settings: &Settings,
        peers: &BTreeMap<NodeName, Peer>,
        stopping: bool,
    ) -> Option<Moment> {
        match &self.phase {
            Phase::Standby if stopping => None,
            Phase::Standby => self.suspicion(settings, peers),
            Phase::Suspecting(candidacy) => Some(candidacy.sent + settings.timing.lease / 2),
            Phase::Claiming(candidacy) => Some(candidacy.sent + settings.timing.lease - settings.timing.margin()),
            Phase::Rebuilding(tenure) => tenure.deadline().into_iter().chain([tenure.rebuild_until]).min(),
            Phase::Active(tenure) => tenure.deadline(),
            Phase::Yielding { until } if stopping => Some(*until),
            Phase::Yielding { until } => self.suspicion(settings, peers).into_iter().chain([*until]).min(),
        }
    }

    /// When this router stops believing in the owner: a lease and the margin after its last beat, and a step later for
    /// each live router that is ranked higher.
    pub(super) fn suspicion(&self, settings: &Settings, peers: &BTreeMap<NodeName, Peer>) -> Option<Moment> {
        let timing = &settings.timing;
        self.settings.rank(&settings.me)?;
        if let Some(offered) = self.offered {
            // The table makes the youngest connections known; it is not worth waiting for without end.
            let patience = if self.table == Some(self.epoch) { Duration::ZERO } else { timing.lease * 5 };
            return Some((offered + patience).max(self.not_before));
        }
        let above = self.settings.ranked_above(&settings.me).filter(|name| Some(*name) != self.owner.as_ref());
        let mut live = 0;
        let mut absent = 0;
        for name in above {
            if peers.contains_key(name) { live += 1 } else { absent += 1 }
        }
        let patience = timing.lease + timing.margin();
        let base = match self.heard {
            Some(heard) => heard + patience,
            None if self.epoch == Epoch::NONE && !self.settings.activate => return None,
            // Nobody was ever heard: first the voters come to speak, then better-ranked routers get their chance.
            None => self.started + patience + timing.lease * 2 * absent.min(1),
        };
        Some((base + timing.claim_step * live).max(self.not_before))
    }

    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        if cx.stopping {
            return;
        }
        if self.suspicion(cx.settings, cx.peers).is_none_or(|due| due > cx.now) {
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

    /// Takes a beat of the owner in. False: it is of the past.
    pub(super) fn hear(
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

    /// Asks a lower-ranked owner to yield, once everything this router needs is at hand.
    pub(super) fn ask_back(&mut self, cx: &mut Context<'_>) {
        let timing = &cx.settings.timing;
        let Some(owner) = self.owner.clone() else { return };
        let recently = |moment: Option<Moment>, span| moment.is_some_and(|moment| cx.now.since(moment) < span);
        if !recently(self.heard, timing.lease) || recently(self.asked, timing.lease * 10) || !cx.is_linked(&owner) {
            return;
        }
        let Some(my_rank) = self.settings.rank(&cx.settings.me) else { return };
        if self.settings.rank(&owner).is_some_and(|rank| rank >= my_rank) || !self.is_ready(cx) {
            return;
        }
        self.asked = Some(cx.now);
        cx.send(&owner, Message::Yield(Yield { vipa: self.settings.address, epoch: self.epoch }));
    }

    /// Whether this router could own the VIPA without losing anything: it has a list, every linked target's log, and
    /// a link to every candidate, or to half of them if the others have kept away for long.
    pub(super) fn is_ready(&self, cx: &Context<'_>) -> bool {
        if self.services().is_empty() || !self.targets.values().filter(|view| view.linked).all(TargetView::is_warm) {
            return false;
        }
        let candidates = self.reporters();
        let linked = |address: &&IpAddr| self.targets.values().any(|view| view.linked && view.address == **address);
        let present = candidates.iter().filter(linked).count();
        let settled =
            self.heard_since.is_some_and(|since| cx.now.since(since) >= cx.settings.timing.rebuild_deadline * 2);
        present == candidates.len() || settled && present * 2 >= candidates.len()
    }
}
