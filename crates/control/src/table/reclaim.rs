//! Gives the identifiers of VIPAs and paths back that nothing names any more: asks the workers, the connection table and what
//! control keeps. [`Identifiers`](crate::table::identifiers::Identifiers) has the order of the steps.
//!
//! A walk of the table happens beside the loop, and serves all identifiers that wait for one. It also takes out the connections
//! of VIPAs that are gone, because nobody will report their ends.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;
use vipa_handoff::{AnyKey, Flows};
use vipa_model::{MAX_PATHS, MAX_VIPAS, Moment, Stance, TargetId, VipaId, config};
use vipa_sync::{Deadline, Versions};

use crate::{
    control::{Control, vipa_id},
    network::{
        paths::TargetAndPath,
        routing_state::{RoutingState, VipaRouting},
    },
    table::{
        identifiers::{IdentifierCounts, Tasks},
        reports::Reports,
    },
};

/// How often this is looked at.
const PACE: Duration = Duration::from_millis(250);
/// Between two walks there is at least this, and so many times what the last one took.
const WALK_PAUSE: Duration = Duration::from_secs(1);
const WALK_SHARE: u32 = 20;
/// A walk for what earlier ones have met: connections may go on for days.
const WALK_AGAIN: Duration = Duration::from_secs(60);
/// Connections of VIPAs that are gone which one walk takes out; the next one takes others.
const REMOVED_AT_ONCE: usize = 262_144;

/// What gives identifiers back.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    pub(crate) tasks: Tasks,
    next: Moment,
    walk: Option<oneshot::Receiver<Walked>>,
    walk_began: Moment,
    /// No walk begins before the first of these moments; from the second on, one begins without news, too.
    walk_after: Moment,
    walk_again: Moment,
}

/// What control knows and keeps, as far as identifiers are in it.
pub(crate) struct Holders<'a> {
    pub(crate) routing: &'a mut RoutingState,
    pub(crate) reports: &'a Reports,
    pub(crate) flows: &'a Flows,
    pub(crate) versions: Versions,
}

/// Which identifiers the entries of the table had.
#[derive(Debug)]
pub(crate) struct Walked {
    vipas: Vec<bool>,
    targets: Vec<bool>,
    /// There may be more connections to take out.
    is_partial: bool,
}

/// Walks the whole table once, and takes out the connections of these VIPAs.
pub(crate) fn walk(flows: &Flows, gone: &BTreeSet<VipaId>) -> Walked {
    let mut walked = Walked { vipas: vec![false; MAX_VIPAS], targets: vec![false; MAX_PATHS], is_partial: false };
    let mut removed: Vec<(AnyKey, TargetId)> = Vec::new();
    flows.export_where(&|_| true, &mut |key, way, _| {
        let vipa = key.vipa();
        walked.vipas[usize::from(vipa.0)] = true;
        // Of the VIPAs that are gone the next walk tells: until then their paths are in the table.
        if let Some(met) = walked.targets.get_mut(usize::from(way.0)) {
            *met = true;
        }
        if gone.contains(&vipa) && removed.len() < REMOVED_AT_ONCE {
            removed.push((key, way));
        }
    });
    walked.is_partial = !removed.is_empty();
    for (key, way) in removed {
        flows.remove(&key, Some(way));
    }
    walked
}

impl Reclaim {
    /// Goes on with all identifiers, as far as that is possible now. `admitted`: what the workers have counted for a path. True
    /// if another snapshot of the routes is to be published.
    pub(crate) fn advance(&mut self, now: Moment, holders: Holders<'_>, admitted: impl Fn(TargetId) -> u64) -> bool {
        let Holders { routing, reports, flows, versions } = holders;
        let mut publish = routing.retire_unnamed_paths(versions);
        let vipas = routing.vipa_identifiers.over(now);
        let (named, paths): (Vec<_>, Vec<_>) =
            routing.ways.identifiers.over(now).into_iter().partition(|id| reports.disputes_name(*id));
        named.into_iter().for_each(|id| routing.ways.identifiers.keep(id));
        if !vipas.is_empty() || !paths.is_empty() {
            routing.vacate_paths(&paths.iter().copied().collect(), &admitted);
            let task = self.tasks.renew();
            vipas.into_iter().for_each(|id| routing.vipa_identifiers.vacate(id, versions, task));
            paths.into_iter().for_each(|id| routing.ways.identifiers.vacate(id, versions, task));
        }
        let wanted = routing.vipa_identifiers.advance(versions).max(routing.ways.identifiers.advance(versions));
        publish |= wanted.is_some();
        let oldest = self.tasks.oldest();
        routing.vipa_identifiers.release(versions, oldest);
        for id in routing.ways.identifiers.release(versions, oldest) {
            // Whatever way it stands for next finds nothing of the last one.
            flows.set_linked(id, false);
            flows.forget_diverged(id);
            routing.ways.begin_count(id, admitted(id));
        }
        publish
    }

    /// The VIPAs whose connections the walk that is to begin now takes out; `None`: no walk is to begin.
    pub(crate) fn begin_walk(&mut self, routing: &mut RoutingState, now: Moment) -> Option<BTreeSet<VipaId>> {
        let RoutingState { vipa_identifiers, ways, .. } = routing;
        let has_news = vipa_identifiers.has_news() || ways.identifiers.has_news();
        let is_wanted = vipa_identifiers.has_drained() || ways.identifiers.has_drained();
        let is_due = now >= self.walk_after && (has_news || now >= self.walk_again);
        if !is_wanted || !is_due {
            return None;
        }
        self.walk_began = now;
        ways.identifiers.begin_walk();
        Some(vipa_identifiers.begin_walk())
    }

    pub(crate) fn end_walk(&mut self, routing: &mut RoutingState, walked: &Walked, now: Moment) {
        let Walked { vipas, targets, is_partial } = walked;
        routing.vipa_identifiers.end_walk(|id| vipas[usize::from(id.0)], now);
        routing.ways.identifiers.end_walk(|id| targets[usize::from(id.0)], now);
        self.walk_after = now + WALK_PAUSE.max(now.since(self.walk_began) * WALK_SHARE);
        self.walk_again = if *is_partial { self.walk_after } else { self.walk_after + WALK_AGAIN };
    }
}

impl Control {
    pub(crate) fn give_back(&mut self, now: Moment) {
        if now < self.reclaim.next {
            return;
        }
        self.reclaim.next = now + PACE;
        if let Some(walk) = &mut self.reclaim.walk {
            match walk.try_recv() {
                Ok(walked) => {
                    self.reclaim.walk = None;
                    self.reclaim.end_walk(&mut self.routing, &walked, now);
                }
                Err(oneshot::error::TryRecvError::Empty) => {}
                // The thread has panicked, which ends nothing: all that is known is that the entries are there still.
                Err(oneshot::error::TryRecvError::Closed) => self.reclaim.walk = None,
            }
        }
        let Self { reclaim, routing, reports, flows, channel, .. } = self;
        let holders = Holders { routing, reports, flows, versions: channel.versions() };
        self.routes_stale |= reclaim.advance(now, holders, |id| channel.admitted(id));
        if self.reclaim.walk.is_some() {
            return;
        }
        let Some(gone) = self.reclaim.begin_walk(&mut self.routing, now) else { return };
        let (flows, (tell, told)) = (Arc::clone(&self.flows), oneshot::channel());
        self.reclaim.walk = Some(told);
        tokio::task::spawn_blocking(move || {
            // The loop may have ended meanwhile.
            let _ = tell.send(walk(&flows, &gone));
        });
    }
}

impl RoutingState {
    /// The VIPAs of a new configuration: those that have come and those that stay. Those that are gone stay until the
    /// cluster has done with them.
    pub(crate) fn configure(&mut self, vipas: &[config::Vipa]) {
        for vipa in vipas {
            if let Some(place) = self.vipa_index(vipa.address) {
                let known = &mut self.vipas[place];
                (known.new_per_second, known.unserved) = (vipa.new_per_second, vipa.unserved);
                continue;
            }
            // What has no room is refused before, by `has_room`.
            let Some(VipaId(id)) = self.vipa_identifiers.take() else { continue };
            let place = usize::from(id);
            self.places.insert(vipa.address, place);
            if place < self.vipas.len() {
                self.vipas[place] = VipaRouting::new(vipa);
            } else {
                self.vipas.push(VipaRouting::new(vipa));
            }
        }
    }

    /// Whether there are identifiers for all that comes with this configuration; else a sentence.
    pub(crate) fn has_room(&self, vipas: &[config::Vipa]) -> Result<(), String> {
        let refuse = |wanted: usize, free: usize, what: &str| {
            Err(format!(
                "{wanted} {what} are new, and only {free} more can be told apart now: those that were taken away are given back \
                 half a minute after their last connection has ended; reload again then, or with fewer"
            ))
        };
        let new = vipas.iter().filter(|vipa| !self.places.contains_key(&vipa.address)).count();
        if new > self.vipa_identifiers.available() {
            return refuse(new, self.vipa_identifiers.available(), "VIPAs");
        }
        let services = vipas.iter().flat_map(|vipa| vipa.services.iter().flatten());
        let ways = services.flat_map(|service| {
            service
                .candidates
                .iter()
                .map(|address| TargetAndPath { address: *address, path: service.delivery.path_to(*address) })
        });
        let new = self.ways.missing(&ways.collect());
        if new > self.ways.identifiers.available() {
            return refuse(new, self.ways.identifiers.available(), "paths");
        }
        Ok(())
    }

    /// This VIPA is none of this router's any more. Its place stays until its id is given back, because places are ids, and
    /// nobody finds it there.
    pub(crate) fn retire(&mut self, vipa: IpAddr, versions: Versions) -> Option<VipaId> {
        let id = vipa_id(self.places.remove(&vipa)?);
        let retired = &mut self.vipas[usize::from(id.0)];
        retired.address = match vipa {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        retired.stance = Stance::Standby;
        retired.lease = Arc::new(Deadline::default());
        retired.clear();
        self.vipa_identifiers.retire(id, versions);
        self.lists_stale = true;
        Some(id)
    }

    /// Retires the ids of the paths that no list names any more, once a list has changed. True if there are any.
    fn retire_unnamed_paths(&mut self, versions: Versions) -> bool {
        if !std::mem::take(&mut self.lists_stale) {
            return false;
        }
        let mut named = HashSet::new();
        for VipaRouting { services, learned, .. } in &self.vipas {
            for service in services {
                named.extend(
                    service
                        .candidates
                        .iter()
                        .map(|address| TargetAndPath { address: *address, path: service.delivery.path_to(*address) }),
                );
            }
            named.extend(learned.iter().map(|path| TargetAndPath { address: path.target, path: path.service.path }));
        }
        self.ways.retire_all_but(&named, versions)
    }

    fn vacate_paths(&mut self, paths: &HashSet<TargetId>, admitted: impl Fn(TargetId) -> u64) {
        let Self { ways, loads, .. } = self;
        ways.vacate(paths, admitted, |target| loads.contains_key(&target));
    }

    pub(crate) fn identifier_counts(&self) -> [(String, u64); 6] {
        let named = |what: &str, counts: IdentifierCounts| {
            let IdentifierCounts { retired, reused, exhausted } = counts;
            [("retired", retired), ("reused", reused), ("exhausted", exhausted)]
                .map(|(how, count)| (format!("{what}.{how}"), count))
        };
        let [a, b, c] = named("vipa-id", self.vipa_identifiers.counts());
        let [d, e, f] = named("path-id", self.ways.identifiers.counts());
        [a, b, c, d, e, f]
    }
}

#[cfg(test)]
mod tests;
