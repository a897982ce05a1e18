//! What the workers are told, at the end of each turn of the loop: routes and neighbours.
//!
//! Many events of a turn lead to one publication. With a thousand VIPAs it takes milliseconds, and in a takeover of all of them
//! every turn changes something. So a publication that takes long waits until the loop has done other work for a multiple of
//! its time ([`vipa_model::Throttle`]); housekeeping's next tick ends the wait at the latest.

use std::{collections::BTreeSet, sync::Arc};

use vipa_model::Moment;

use crate::{
    control::{Control, send_frame},
    network::announcements,
};

impl Control {
    /// The workers must know a VIPA as ours before the first packet that its announcement brings.
    pub(crate) fn end_turn(&mut self) {
        if self.targets_stale && self.targets_throttle.is_due(self.clock.now()) {
            self.targets_stale = false;
            let began = self.clock.now();
            self.seek_targets();
            self.targets_throttle.took(began, self.clock.now());
        }
        if self.routes_stale && self.routes_throttle.is_due(self.clock.now()) {
            let began = self.clock.now();
            self.publish();
            self.routes_throttle.took(began, self.clock.now());
        }
        // Routes that wait, for a worker or for their turn, are published later, and announced then.
        let announced = if self.routes_stale { BTreeSet::new() } else { std::mem::take(&mut self.to_announce) };
        for vipa in announced {
            let now = self.clock.now();
            self.announcements.begin(vipa, now);
            self.announce(vipa);
            if let Some(index) = self.routing.vipa_index(vipa) {
                self.advertiser.own(vipa, self.routing.vipas[index].epoch);
            }
            self.takeovers.announced(vipa, now);
        }
        self.seen = None;
        self.routing.take_listener_changes().into_iter().for_each(|change| self.happened(change));
        let complete = if self.routes_stale { Vec::new() } else { std::mem::take(&mut self.complete) };
        for report in complete {
            self.neighbour_prompts.want_anew(report.vipa);
            self.metrics.took_over(&report);
            self.takeovers.finish(report, |vipa| self.channel.vipa_totals(vipa), self.clock.now());
        }
    }

    /// What cannot be published now is published with all that changes meanwhile, once the worker has gone on: housekeeping
    /// tries again. A worker that stands still for longer makes this router unfit, which hands its VIPAs over.
    pub(crate) fn publish(&mut self) {
        if !self.channel.takes_routes() {
            if !self.routes_wait {
                tracing::warn!("a worker stands still: no new routes are published before it goes on");
            }
            (self.routes_stale, self.routes_wait) = (true, true);
            self.counts.routes_deferred += 1;
            return;
        }
        if std::mem::take(&mut self.routes_wait) {
            tracing::info!("the workers go on: new routes are published again");
        }
        self.routes_stale = false;
        let routes = self.routing.routes();
        self.channel.publish(Arc::new(routes));
    }

    /// Targets or candidates may be others: at the end of the turn that is looked at once for all.
    pub(crate) fn reach_targets(&mut self) {
        (self.targets_stale, self.routes_stale) = (true, true);
    }

    /// Keeps every known target resolved, and probes those without an agent; new ones are asked for at once.
    pub(crate) fn seek_targets(&mut self) {
        let now = self.clock.now();
        let agentless = self.routing.agentless();
        self.routing.keep_answers_of(&agentless);
        self.probes.ask(&agentless);
        self.routing.neighbours.want(self.routing.wanted_neighbours(), now);
        self.ask_neighbours(now);
    }

    pub(crate) fn ask_neighbours(&mut self, now: Moment) {
        let (ports, channel, counts) = (&self.routing.ports, &self.channel, &self.counts);
        let fell_silent = self.routing.neighbours.ask_due(now, |port, address| {
            let own = &ports[usize::from(port.0)];
            send_frame(channel, counts, (port, own), &announcements::question(own, address));
        });
        let moved = self.routing.neighbours.verify_due(now, |port, address, known| {
            let own = &ports[usize::from(port.0)];
            send_frame(channel, counts, (port, own), &announcements::question_to(own, address, known));
        });
        self.routes_stale |= fell_silent | moved;
    }
}
