//! Owning a VIPA, and letting go of it.

use vipa_model::{Epoch, Moment, NodeName};

use super::{Phase, Vipa};
use crate::router::{Context, Note, Output, tenure::Consent};

impl Vipa {
    pub(super) fn acknowledged(&mut self, voter: NodeName, sent: Moment, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let Some(tenure) = self.tenure_mut() else { return };
        tenure.superseded.remove(&voter);
        if tenure.acknowledge(voter, sent, cx.settings) {
            cx.out.push(Output::Lease { vipa, until: tenure.lease });
            if cx.now < tenure.lease && tenure.fenced.take().is_some() {
                let epoch = tenure.epoch;
                cx.note(Note::Unfenced { vipa, epoch });
            }
        }
    }

    /// What an owner does as time passes: it notices the end of its lease and the end of its consent.
    pub(super) fn tend(&mut self, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let Some(tenure) = self.tenure_mut() else { return };
        let epoch = tenure.epoch;
        if tenure.fenced.is_none() && cx.now >= tenure.lease {
            tenure.fenced = Some(cx.now);
            cx.note(Note::Fenced { vipa, epoch });
        }
        if tenure.fenced.is_some() && tenure.is_lost(cx.now, cx.settings.voters.len()) {
            let (by, holder) = (self.highest, cx.settings.me.clone());
            self.step_down(by, &holder, cx);
            return;
        }
        if tenure.consent.as_ref().is_some_and(|consent| cx.now >= consent.until) {
            let from = tenure.consent.take().expect("just seen").to;
            cx.note(Note::ConsentWithdrawn { vipa, epoch, from });
            cx.beats.hurry();
            if cx.stopping {
                self.resign(cx);
                return;
            }
        }
        // Without a majority for a whole lease: whoever has one shall not wait for our beats to end.
        let tenure = self.tenure().expect("still owned");
        let cut_off = tenure.fenced.is_some_and(|since| cx.now.since(since) >= cx.settings.timing.lease);
        if cut_off
            && tenure.consent.is_none()
            && let Some(best) = self.best_successor(cx)
        {
            self.consent(best, cx);
        }
    }

    pub(super) fn may_succeed(&self, router: &NodeName, cx: &Context<'_>) -> bool {
        let rank = self.settings.rank(router);
        let better = |than: &NodeName| rank > self.settings.rank(than);
        let consent = self.tenure().and_then(|tenure| tenure.consent.as_ref());
        better(&cx.settings.me) && consent.is_none_or(|consent| consent.to == *router || better(&consent.to))
    }

    pub(super) fn best_successor(&self, cx: &Context<'_>) -> Option<NodeName> {
        let others = self.settings.ranks.iter().filter(|(name, _)| *name != cx.settings.me && cx.is_linked(name));
        others.max_by_key(|(_, rank)| *rank).map(|(name, _)| name.clone())
    }

    pub(super) fn consent(&mut self, to: NodeName, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let until = cx.now + cx.settings.timing.consent();
        let Some(tenure) = self.tenure_mut() else { return };
        let epoch = tenure.epoch;
        tenure.consent = Some(Consent { to: to.clone(), until });
        cx.beats.hurry();
        cx.note(Note::Consented { vipa, epoch, to: to.clone() });
        cx.out.push(Output::SendTable { to, vipa, epoch });
    }

    /// The router stops: the best live router shall go on.
    pub(super) fn hand_over(&mut self, cx: &mut Context<'_>) {
        match self.best_successor(cx) {
            Some(best) => self.consent(best, cx),
            None => self.resign(cx),
        }
    }

    /// Nobody goes on; the VIPA is left alone.
    pub(super) fn resign(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Output::Withdraw { vipa: self.settings.address });
        self.owner = None;
        self.heard = Some(cx.now);
        self.enter(Phase::Standby, cx);
    }

    /// Somebody holds a higher epoch.
    pub(super) fn step_down(&mut self, by: Epoch, holder: &NodeName, cx: &mut Context<'_>) {
        let Some(tenure) = self.tenure() else { return };
        let vipa = self.settings.address;
        let epoch = tenure.epoch;
        // While the lease holds, nobody but the router consented to can have been granted anything.
        let to_whom = tenure.consent.as_ref().map(|consent| &consent.to);
        let consented = to_whom.is_some_and(|to| to == holder || cx.now < tenure.lease);
        cx.note(Note::Superseded { vipa, epoch, by, holder: holder.clone() });
        self.highest = self.highest.max(by);
        self.owner = None;
        // The new owner gets the time a beat may take before it is missed.
        (self.heard, self.heard_since, self.offered, self.asked) = (Some(cx.now), None, None, None);
        cx.out.push(Output::Withdraw { vipa });
        let timing = &cx.settings.timing;
        // A stopping router cannot linger for long.
        let linger = if cx.stopping { timing.yield_linger / 2 } else { timing.yield_linger };
        let until = cx.now + linger;
        let next = if consented { Phase::Yielding { until } } else { Phase::Standby };
        self.enter(next, cx);
        if consented {
            // By consent of both sides it may go on admitting what still comes here.
            cx.out.push(Output::Lease { vipa, until });
        }
        self.tell_targets(cx);
    }

    pub(super) fn retire(&mut self, cx: &mut Context<'_>) {
        if self.deadline(cx.settings, cx.peers, cx.stopping).is_some_and(|due| due <= cx.now) {
            self.enter(Phase::Standby, cx);
            self.watch(cx);
        }
    }
}
