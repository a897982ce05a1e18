//! Owning a VIPA, and letting it go.

use std::time::Duration;

use vipa_model::{Epoch, Incarnation, Moment, NodeName};
use vipa_protocol::{Message, YieldRefused};

use super::{Phase, Vipa};
use crate::router::{Context, Note, Output, RouterView, ownership::Consent, succession::Class};

impl Vipa {
    pub(super) fn acknowledged(&mut self, voter: NodeName, sent: Moment, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let Some(ownership) = self.ownership_mut() else { return };
        ownership.superseded.remove(&voter);
        if ownership.acknowledge(voter, sent, cx.settings) {
            cx.out.push(Output::Lease { vipa, until: ownership.lease });
            if cx.now < ownership.lease && ownership.fenced.take().is_some() {
                let epoch = ownership.epoch;
                cx.note(Note::Unfenced { vipa, epoch });
            }
        }
    }

    /// Handles a change of voters; a ballot under way asked the wrong ones.
    pub(in super::super) fn voters_changed(&mut self, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        match &mut self.phase {
            Phase::Standby | Phase::Yielding { .. } => {}
            Phase::Suspecting(_) | Phase::Claiming(_) => self.stand_by(cx),
            Phase::Rebuilding(ownership) | Phase::Active(ownership) => {
                if ownership.count_anew(cx.settings) {
                    cx.out.push(Output::Lease { vipa, until: ownership.lease });
                }
            }
        }
    }

    /// What an owner does as time passes: it notices the end of its lease and the end of its consent.
    pub(super) fn tend(&mut self, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let Some(ownership) = self.ownership_mut() else { return };
        let epoch = ownership.epoch;
        if ownership.fenced.is_none() && cx.now >= ownership.lease {
            ownership.fenced = Some(cx.now);
            cx.note(Note::Fenced { vipa, epoch });
        }
        if ownership.fenced.is_some() && ownership.is_lost(cx.now, cx.settings.electors().len()) {
            let (by, holder) = (self.highest, cx.settings.me.clone());
            self.step_down(by, &holder, cx);
            return;
        }
        if ownership.consent.as_ref().is_some_and(|consent| cx.now >= consent.until) {
            let from = ownership.consent.take().expect("just seen").to;
            self.declined_by = Some(from.clone());
            cx.note(Note::ConsentWithdrawn { vipa, epoch, from });
            cx.beats.hurry(self.settings.address);
            if cx.stopping {
                self.resign(cx);
                return;
            }
        }
        // Without a majority for a whole lease: a router that has one must not wait for our beats to end.
        let ownership = self.ownership().expect("still owned");
        let cut_off = ownership.fenced.is_some_and(|since| cx.now.since(since) >= cx.settings.timing.lease);
        if cut_off
            && ownership.consent.is_none()
            && let Some(best) = self.best_successor(&cx.overview())
        {
            self.consent(best, cx);
            return;
        }
        self.let_go(cx);
    }

    /// Lets the best router take a VIPA that this owner must give up: at once when this router cannot route, otherwise
    /// when no ready router has asked for it after a while.
    fn let_go(&mut self, cx: &mut Context<'_>) {
        let overview = cx.overview();
        let patience = match self.own_precedence(&overview) {
            None => cx.settings.timing.consent(),
            Some(mine) if mine.class == Class::Unfit => Duration::ZERO,
            Some(_) => {
                self.leaving_since = None;
                return;
            }
        };
        let since = *self.leaving_since.get_or_insert(cx.now);
        let consents = self.ownership().is_none_or(|ownership| ownership.consent.is_some());
        if consents || cx.now.since(since) < patience {
            return;
        }
        let overview = cx.overview();
        if let Some(best) = self.best_successor(&overview)
            && self.succession(&best, &overview) > self.own_precedence(&overview)
        {
            self.consent(best, cx);
        } else {
            self.leaving_since = Some(cx.now);
        }
    }

    pub(super) fn may_succeed(&self, router: &NodeName, cx: &Context<'_>) -> bool {
        let overview = cx.overview();
        let rank = self.succession(router, &overview);
        let better = |than: &NodeName| rank > self.succession(than, &overview);
        let consent = self.ownership().and_then(|ownership| ownership.consent.as_ref());
        better(&cx.settings.me) && consent.is_none_or(|consent| consent.to == *router || better(&consent.to))
    }

    /// Consents to a router that asks, unless it would have less than this one. An owner that must give up accepts
    /// less.
    pub(super) fn answer_asker(&mut self, by: NodeName, follows: &[(NodeName, Incarnation)], cx: &mut Context<'_>) {
        let stays = self.own_precedence(&cx.overview()).is_some_and(|mine| mine.class != Class::Unfit);
        let followed = |node: &NodeName, life| follows.iter().any(|(name, known)| name == node && *known == life);
        let missing: Vec<NodeName> = self
            .targets
            .iter()
            .filter(|(_, view)| view.linked)
            .filter(|(node, view)| view.seen.is_some_and(|seen| !followed(node, seen.incarnation)))
            .map(|(node, _)| node.clone())
            .collect();
        if stays && !missing.is_empty() {
            let vipa = self.settings.address;
            return cx.send(&by, Message::YieldRefused(YieldRefused { vipa, epoch: self.epoch, missing }));
        }
        self.consent(by, cx);
    }

    /// The first in line of the linked routers that may own it, except for one that has just not taken it.
    pub(in super::super) fn best_successor(&self, overview: &RouterView<'_>) -> Option<NodeName> {
        let others = self.settings.ranks.iter().map(|(name, _)| name);
        let linked = others.filter(|name| **name != overview.settings.me && overview.peers.contains_key(*name));
        let able = linked
            .filter_map(|name| Some((self.declined_by.as_ref() != Some(name), self.succession(name, overview)?, name)));
        able.max_by_key(|(willing, precedence, _)| (*willing, *precedence)).map(|(_, _, name)| name.clone())
    }

    pub(super) fn consent(&mut self, to: NodeName, cx: &mut Context<'_>) {
        let vipa = self.settings.address;
        let now = cx.now;
        let until = now + cx.settings.timing.consent();
        let Some(ownership) = self.ownership_mut() else { return };
        let epoch = ownership.epoch;
        ownership.consent = Some(Consent { to: to.clone(), since: now, until });
        self.leaving_since = None;
        // Before this router receives anything about it, the successor may own the VIPA and have admitted connections
        // that are orphans here.
        self.emit_stance(cx);
        cx.beats.hurry(self.settings.address);
        cx.note(Note::Consented { vipa, epoch, to: to.clone() });
        cx.out.push(Output::SendTable { to, vipa, epoch, since: None });
    }

    /// The router stops: the best live router takes over.
    pub(super) fn hand_over(&mut self, cx: &mut Context<'_>) {
        match self.best_successor(&cx.overview()) {
            Some(best) => self.consent(best, cx),
            None => self.resign(cx),
        }
    }

    /// An owner that may own it no more lets go even if no router is there to take it.
    pub(in super::super) fn resign_if_barred(&mut self, cx: &mut Context<'_>) {
        let overview = cx.overview();
        if self.ownership().is_some()
            && self.own_precedence(&overview).is_none()
            && self.best_successor(&overview).is_none()
        {
            self.resign(cx);
        }
    }

    /// Gives up the VIPA without a successor.
    pub(super) fn resign(&mut self, cx: &mut Context<'_>) {
        cx.out.push(Output::Withdraw { vipa: self.settings.address });
        self.owner = None;
        self.heard = Some(cx.now);
        self.enter(Phase::Standby, cx);
    }

    /// Two routers own one epoch. A majority's grants never let it happen; without a quorum, the one that comes after
    /// the other lets go.
    pub(super) fn meet_another_owner(&mut self, epoch: Epoch, other: &NodeName, cx: &mut Context<'_>) {
        let (vipa, one) = (self.settings.address, cx.settings.me.clone());
        cx.note(Note::TwoOwners { vipa, epoch, one, other: other.clone() });
        let overview = cx.overview();
        if cx.settings.voters.names.is_empty() && self.succession(other, &overview) > self.own_precedence(&overview) {
            self.step_down(epoch, other, cx);
        }
    }

    /// Steps down: a router holds a higher epoch.
    pub(super) fn step_down(&mut self, by: Epoch, holder: &NodeName, cx: &mut Context<'_>) {
        let Some(ownership) = self.ownership() else { return };
        let vipa = self.settings.address;
        let epoch = ownership.epoch;
        // While the lease holds, only the router consented to can have been granted anything.
        let consent = ownership.consent.as_ref();
        let consented = consent.is_some_and(|consent| consent.to == *holder || cx.now < ownership.lease);
        let told = consent.map(|consent| (consent.to == *holder).then_some(consent.since));
        cx.note(Note::Superseded { vipa, epoch, by, holder: holder.clone() });
        self.highest = self.highest.max(by);
        self.owner = None;
        // The new owner gets the time that a beat may take before it is missed.
        (self.heard, self.heard_since, self.offered, self.asked) = (Some(cx.now), None, None, None);
        (self.declined_by, self.leaving_since) = (None, None);
        cx.out.push(Output::Withdraw { vipa });
        let timing = &cx.settings.timing;
        // A stopping router cannot linger for long.
        let linger = if cx.stopping { timing.yield_linger / 2 } else { timing.yield_linger };
        let until = cx.now + linger;
        let next = if consented { Phase::Yielding { until, to: holder.clone() } } else { Phase::Standby };
        self.enter(next, cx);
        if consented {
            // By consent of both sides it may go on admitting connections that still arrive here.
            cx.out.push(Output::Lease { vipa, until });
        }
        if consented && let Some(since) = told {
            // Connections have begun and ended since the table was sent.
            cx.out.push(Output::SendTable { to: holder.clone(), vipa, epoch, since });
        }
        self.tell_targets(cx);
    }

    pub(super) fn end_lingering(&mut self, cx: &mut Context<'_>) {
        if self.deadline(&cx.overview()).is_some_and(|due| due <= cx.now) {
            self.enter(Phase::Standby, cx);
            self.watch(cx);
        }
    }
}
