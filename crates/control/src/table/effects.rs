//! What the cluster's outputs and other routers' words do to the connection table.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use vipa_cluster::Event;
use vipa_flow::Tick;
use vipa_handoff::AnyKey;
use vipa_model::{Connection, ConnectionState, Epoch, Moment, NodeName, Stance, VipaId};
use vipa_protocol::{Change, Copied, Entry, MAX_LOCATED, Message, Run, TableReplica};

use crate::{
    control::{Control, vipa_id},
    table::{
        replica::{About, Subject, Walk},
        reports::Reporter,
        transfer::{Changed, TableTransfer},
    },
};

impl Control {
    pub(crate) fn install(&mut self, vipa: IpAddr, target: IpAddr, run: &Run) {
        let Some(index) = self.routing.vipa_index(vipa) else { return };
        let now = Tick::from(self.clock.now());
        let cluster = &self.cluster;
        let is_listed = |target, service| cluster.is_listed(vipa, target, service);
        let reporter = Reporter {
            vipa: vipa_id(index),
            vipa_address: vipa,
            lists: self.routing.vipas[index].lists(),
            target,
            ways: &mut self.routing.ways,
            now,
            reserve_percent: self.config.table.reserve_percent,
            is_listed: &is_listed,
        };
        if has_opened(run) {
            self.routing.reach.reported(target);
        }
        let taken = self.reports.install(reporter, run);
        if let Some(target) = self.reports.shares.take_news() {
            tracing::warn!(
                %target,
                "a target's reports hold their share of the connection table; what else it reports is not taken in until a packet of it \
                 has passed here"
            );
        }
        self.takeovers.reported(vipa, taken);
        self.counts.reports.add(taken);
        self.reach_new();
    }

    pub(crate) fn sweep(&mut self) {
        let now = Tick::from(self.clock.now());
        self.reports.resolve(now);
        if let Some((vipa, taken)) = self.reports.sweep(&self.routing.ways, now) {
            if let Some(routing) = self.routing.vipas.get(usize::from(vipa.0)) {
                self.takeovers.reported(routing.address, taken);
            }
            self.counts.reports.add(taken);
        }
    }

    /// The target's reports on this VIPA are complete from now on, or no longer.
    pub(crate) fn completed(&mut self, vipa: IpAddr, target: IpAddr, complete: bool) {
        let Some(index) = self.routing.vipa_index(vipa) else { return };
        let diverged = complete && self.reports.has_diverged(target, &self.routing.ways);
        if let Some(linked) = self.completeness.set(vipa_id(index), target, complete) {
            self.set_linked(target, linked);
            if linked {
                self.reports.forget_diverged(target, &self.routing.ways);
            }
        }
        if diverged {
            let known = self.cluster.vipa(vipa).map(|vipa| vipa.targets).unwrap_or_default();
            if let Some(node) = known.into_iter().find(|known| known.address == target).map(|known| known.node) {
                self.feed(Event::ReadAnew { vipa, target: node });
            }
        }
    }

    /// Whether everything that this target holds is known.
    pub(crate) fn set_linked(&mut self, target: IpAddr, linked: bool) {
        self.reports.set_linked(target, &self.routing.ways, linked);
        self.routing.neighbours.doubt(target, !linked, self.clock.now());
    }

    /// The VIPA is gone: nobody's reports on it are waited for.
    pub(crate) fn forget_completeness(&mut self, vipa: VipaId) {
        for (target, linked) in self.completeness.forget(vipa) {
            self.set_linked(target, linked);
        }
    }

    pub(crate) fn send_table(&mut self, to: NodeName, vipa: IpAddr, epoch: Epoch, since: Option<Moment>) {
        let Some(index) = self.routing.vipa_index(vipa) else { return };
        let targets = self.routing.ways.addresses();
        let changed = since.map(|since| Changed { since: since.into(), now: self.clock.now().into() });
        let hold = self.reclaim.tasks.hold();
        self.transfers.leave(TableTransfer { to, vipa, id: vipa_id(index), epoch, targets, changed, _hold: hold });
    }

    pub(crate) fn install_table(&mut self, vipa: IpAddr, entries: &[Entry]) {
        let Some(index) = self.routing.vipa_index(vipa) else { return };
        let now = Tick::from(self.clock.now());
        let since = self.routing.vipas[index].owned_since.map(Tick::from);
        let (id, lists) = (vipa_id(index), self.routing.vipas[index].lists());
        let mut found = HashMap::new();
        for Entry { connection, target, state } in entries {
            let Some(key) = AnyKey::of(id, vipa, connection) else { continue };
            let way = found.entry((*target, key.service()));
            let way = way.or_insert_with(|| self.routing.ways.find(id, lists, *target, key.service()));
            if let Some(target) = *way {
                // What a target reported stays: it is the truth, and this only the old owner's belief. Where the target's
                // agent is linked, its report confirms the entry soon, or it goes.
                self.reports.inherit((&key, target), *state, since, now);
            }
        }
        self.reach_new();
    }

    /// What another router says or asks about connections of which only the owner can tell. What is not of this ownership is of
    /// the past.
    pub(crate) fn mirrored(&mut self, from: NodeName, mirror: TableReplica) {
        let TableReplica { vipa, epoch, copied } = mirror;
        let (Some(index), Some(status)) = (self.routing.vipa_index(vipa), self.cluster.brief(vipa)) else { return };
        if epoch != status.epoch {
            return;
        }
        let owns = status.owner.as_ref() == Some(&self.config.node.name);
        match copied {
            Copied::Wanted if owns => self.replicas.wanted(vipa, epoch, from),
            Copied::Round(round) if status.owner.as_ref() == Some(&from) => {
                let now = self.clock.now();
                let about = About { vipa, id: vipa_id(index), epoch, lists: self.routing.vipas[index].lists() };
                self.replicas.receive(&about, &from, round, (&*self.flows, &mut self.routing.ways), now);
                self.reach_new();
            }
            Copied::Locate(connections) if owns => {
                let copied = Copied::Located(self.locate(index, vipa, &connections));
                self.links.send(&from, &Message::TableReplica(TableReplica { vipa, epoch, copied }));
            }
            Copied::Located(entries) if status.owner.as_ref() == Some(&from) => self.install_table(vipa, &entries),
            Copied::Wanted | Copied::Round(_) | Copied::Locate(_) | Copied::Located(_) => {}
        }
    }

    /// The targets at which this owner has these connections, without those of which only a SYN has passed.
    fn locate(&self, index: usize, vipa: IpAddr, connections: &[Connection]) -> Vec<Entry> {
        let entry = |&connection: &Connection| {
            let hit = self.flows.lookup(&AnyKey::of(vipa_id(index), vipa, &connection)?)?;
            let state = hit.state.told();
            let target = self.routing.ways.address(hit.target).filter(|_| state.has_segments())?;
            Some(Entry { connection, target, state })
        };
        connections.iter().take(MAX_LOCATED).filter_map(entry).collect()
    }

    /// Asks each VIPA's owner where it has the connections that two targets hold: it forwards their packets.
    fn ask_where_disputed_are(&mut self, now: Moment) {
        if !self.replicas.is_locate_due(now) {
            return;
        }
        for (id, connections) in self.reports.disputed(MAX_LOCATED) {
            let Some(vipa) = self.routing.vipas.get(usize::from(id.0)).map(|routing| routing.address) else { continue };
            let Some(brief) = self.cluster.brief(vipa) else { continue };
            let owner = brief.owner.filter(|owner| *owner != self.config.node.name && self.cluster.is_linked(owner));
            if let Some(owner) = owner {
                let copied = Copied::Locate(connections);
                self.links.send(&owner, &Message::TableReplica(TableReplica { vipa, epoch: brief.epoch, copied }));
            }
        }
    }

    /// As owner tells, as backup asks, what nobody but the owner knows.
    pub(crate) fn replicate(&mut self) {
        let now = self.clock.now();
        if !self.replicas.is_due(now) {
            return;
        }
        self.ask_where_disputed_are(now);
        let mut walk = self.replicas.walked(now);
        let udp_lifetime = self.config.table.udp;
        let mut subjects = Vec::new();
        for (index, routing) in self.routing.vipas.iter().enumerate() {
            let id = vipa_id(index);
            let mut about = About { vipa: routing.address, id, epoch: routing.epoch, lists: routing.lists() };
            if !about.is_mirrored() {
                continue;
            }
            let Some(brief) = self.cluster.brief(routing.address) else { continue };
            about.epoch = brief.epoch;
            let is_linked = |node: &NodeName| self.cluster.is_linked(node);
            match brief.owner {
                Some(owner) if owner == self.config.node.name => {
                    if !self.replicas.is_followed(&about, is_linked) {
                        continue;
                    }
                    let found = walk.as_mut().and_then(|walk| Some((walk.entries.remove(&id)?, walk.began)));
                    for (to, mirror) in found.map(|found| self.replicas.tell(&about, found, now)).unwrap_or_default() {
                        self.links.send(&to, &Message::TableReplica(mirror));
                    }
                    subjects.push(Subject::new(id, &routing.services));
                }
                // What this router has admitted in its last moments the owner may not know yet; its whole would end it here too.
                Some(_) if routing.stance == Stance::Yielding => {}
                Some(owner) if is_linked(&owner) => {
                    let table = (&*self.flows, udp_lifetime);
                    if let Some(mirror) = self.replicas.follow(&about, &owner, table, now) {
                        self.links.send(&owner, &Message::TableReplica(mirror));
                    }
                }
                Some(_) | None => {}
            }
        }
        if let Some(found) = self.replicas.begin_walk(&subjects, now) {
            let (flows, routes, targets) =
                (Arc::clone(&self.flows), self.channel.routes(), self.routing.ways.addresses());
            let hold = self.reclaim.tasks.hold();
            tokio::task::spawn_blocking(move || {
                let walk = Walk::run(subjects, (&flows, &routes, &targets), now);
                // The loop may have ended meanwhile.
                let _ = found.send(Walk { _hold: Some(hold), ..walk });
            });
        }
    }

    /// Reports come many times a second and nearly all name known targets; routes of thousands of services are not made
    /// anew for each.
    pub(crate) fn reach_new(&mut self) {
        let new = self.routing.ways.take_new();
        if new.is_empty() {
            return;
        }
        self.routing.lists_stale = true;
        for target in new {
            self.set_linked(target, self.completeness.is_linked(target));
        }
        self.reach_targets();
    }
}

/// Whether a run names a connection that its target holds and whose handshake is complete.
fn has_opened(run: &Run) -> bool {
    match run {
        Run::Tail { records, .. } => records
            .iter()
            .any(|record| matches!(record.change, Change::Opened(state) if state != ConnectionState::HalfOpen)),
        Run::Snapshot { connections, .. } => connections.iter().any(|(_, state)| *state != ConnectionState::HalfOpen),
    }
}
