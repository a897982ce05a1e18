//! Checks of TAKEOVER.md's invariants; those about connection tables are in `table`.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use vipa_cluster::{State, StoredVote, VipaBrief};
use vipa_flow::FlowState;
use vipa_model::{Connection, Epoch, NodeName};

use crate::{
    client::connection,
    faults::Weather,
    network::NodeId,
    segment::{Generation, Received},
    world::{CALM, Time, World},
};

const MS: Time = 1_000_000;
/// Time after the end of the faults within which the rightful owner owns and every connection makes progress.
const RECOVERY: Time = 5500 * MS;
/// Connections at work and those that ended lately; far more means that entries are not removed.
const MOST_KNOWN: u64 = 256;

#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The owner of each epoch.
    pub(crate) owners: BTreeMap<(IpAddr, Epoch), usize>,
    briefs: BTreeMap<(usize, IpAddr), VipaBrief>,
    /// The routers to which the owner of each epoch consented; a withdrawn consent may come too late.
    consents: BTreeSet<(IpAddr, Epoch, NodeName)>,
    pub(crate) lost_power: BTreeSet<usize>,
    /// A forged SYN of the connection has reached this router when its target's agent was away or had not answered yet.
    /// The router cannot distinguish such a SYN from the client's, so it may place it at another target.
    pub(crate) exposed: BTreeSet<(usize, Generation)>,
    /// Entries that ageing should have removed, at which router, and since when.
    overdue: BTreeMap<(usize, Connection), Time>,
}

impl World {
    /// I1, I2, I3, I8: checked after everything that moved a router.
    pub(crate) fn check_router(&mut self, router: usize) {
        let Some(gateway) = &self.gateways[router] else { return };
        if !gateway.adds_up() {
            return self.fail(format!("r{}: a packet has no fate, or two", router + 1));
        }
        if gateway.flows.count().total() > MOST_KNOWN {
            return self.fail(format!("I8: r{}: the connection table grows", router + 1));
        }
        let briefs: Vec<_> =
            self.scene.vipas().iter().filter_map(|vipa| Some((*vipa, gateway.brain.brief(*vipa)?))).collect();
        for (vipa, brief) in briefs {
            if self.checks.briefs.get(&(router, vipa)) != Some(&brief) {
                self.check_ownership(router, vipa, brief);
            }
        }
    }

    fn check_ownership(&mut self, router: usize, vipa: IpAddr, brief: VipaBrief) {
        let (owns, ownership) = (matches!(brief.state, State::Rebuilding | State::Active), (vipa, brief.epoch));
        if owns && !self.checks.owners.contains_key(&ownership) {
            self.check_grants(router, ownership);
            self.checks.owners.insert(ownership, router);
        }
        let holder = self.checks.owners.get(&ownership).copied();
        if owns && holder != Some(router) {
            let (one, other) = (router + 1, holder.map(|router| router + 1));
            self.fail(format!("I1: r{one} and r{other:?} both own epoch {} of {vipa}", brief.epoch));
        }
        if let Some(to) = &brief.yielding_to {
            self.checks.consents.insert((vipa, brief.epoch, to.clone()));
        }
        self.checks.briefs.insert((router, vipa), brief);
        self.check_single_owner(vipa);
    }

    /// I3: the claim was granted, on disks, by a majority.
    fn check_grants(&mut self, router: usize, (vipa, epoch): (IpAddr, Epoch)) {
        let Some(gateway) = &self.gateways[router] else { return };
        let (name, names) = (&self.nodes[router].name, &gateway.brain.voters().names);
        let granted = |vote: &StoredVote| {
            vote.vipa == vipa && (vote.epoch == epoch && vote.holder == *name || vote.epoch > epoch)
        };
        let voters = self.nodes.iter().filter(|node| names.contains(&node.name));
        let (granters, voters) = (voters.filter(|node| node.disk.iter().any(granted)).count(), names.len());
        if granters * 2 <= voters {
            self.fail(format!("I3: r{} owns epoch {epoch} of {vipa}, granted by {granters} of {voters}", router + 1));
        }
    }

    /// Two routers that may both admit are an owner and the successor that it consents to, and no others.
    fn check_single_owner(&mut self, vipa: IpAddr) {
        let mut live: Vec<(Epoch, usize)> = Vec::new();
        for (router, gateway) in self.gateways.iter().enumerate() {
            let Some(brief) = gateway.as_ref().and_then(|_| self.checks.briefs.get(&(router, vipa))) else { continue };
            if brief.lease.is_some_and(|lease| lease > self.local(router)) {
                live.push((brief.epoch, router));
            }
        }
        live.sort_unstable();
        for pair in live.windows(2) {
            let [(epoch, old), (_, new)] = *pair else { continue };
            if !self.checks.consents.contains(&(vipa, epoch, self.nodes[new].name.clone())) {
                self.fail(format!("two owners of {vipa}: r{} and r{}, without consent", old + 1, new + 1));
            }
        }
    }

    /// I2: at every voter, across restarts.
    pub(crate) fn check_votes(&mut self, node: NodeId, votes: &[StoredVote]) {
        for before in &self.nodes[node].disk {
            let after = votes.iter().find(|vote| vote.vipa == before.vipa);
            let kept = after.is_some_and(|after| {
                after.epoch > before.epoch || after.epoch == before.epoch && after.holder == before.holder
            });
            if !kept {
                let what = format!("I2: {}'s vote {before:?} became {after:?}", self.nodes[node].name);
                return self.fail(what);
            }
        }
    }

    /// I4: a segment of an established connection goes to the target that holds it.
    pub(crate) fn check_delivery(&mut self, router: usize, target: usize, segment: &Received) {
        let Received { port, generation, .. } = *segment;
        let Some((dialog, _)) = self.dialogs.get(&port).filter(|(dialog, _)| dialog.generation == generation) else {
            return;
        };
        let holder = dialog.holder.filter(|holder| *holder != target && self.hosts[*holder].holds(port, generation));
        if let Some(holder) = holder.filter(|_| dialog.is_open()) {
            let Some(gateway) = &self.gateways[router] else { return };
            if gateway.has_overruled(holder, &connection(port)) || self.checks.exposed.contains(&(router, generation)) {
                return;
            }
            let known = gateway.knows(&connection(port));
            // The end of the previous connection is known here, and the holder of this one has not answered yet.
            if matches!(known, Some((_, FlowState::Ended))) && !gateway.is_complete(holder) {
                return;
            }
            // A backup forwards packets to the target that it has in its table. A target that holds an earlier
            // connection of the port acknowledges segments that do not fit, which does no harm (RFC 9293 §3.10.7.4).
            if gateway.is_backup() && self.hosts[target].holds_any(port) {
                return;
            }
            self.fail(format!(
                "I4: r{} sent port {port}'s segment to t{}, but t{} holds it (table: {known:?})",
                router + 1,
                target + 1,
                holder + 1
            ));
        }
    }

    /// I5: a new connection goes to a candidate that listens.
    pub(crate) fn check_admission(&mut self, router: usize, target: usize, allowed: &[usize]) {
        if !allowed.contains(&target) {
            let who = router + 1;
            self.fail(format!("I5: r{who} admitted a connection to t{}, allowed were {allowed:?}", target + 1));
        }
    }

    /// R4: a connection broke, under faults that excuse no break.
    pub(crate) fn check_break(&mut self, port: u16, holder: Option<usize>, by: Option<usize>) {
        let generation = self.dialogs.get(&port).map(|(dialog, _)| dialog.generation);
        let excused = holder.is_some_and(|holder| self.checks.lost_power.contains(&holder))
            || self.checks.exposed.iter().any(|(_, exposed)| Some(*exposed) == generation);
        let line = format!("port {port}: broken, held by {holder:?}, reset by {by:?}");
        self.tell(|| line.clone());
        if self.scene.weather == Weather::Rough && !excused {
            self.fail(format!("R4: {line}"));
        }
    }

    /// I6, I7 and R4, when the faults are long over and the clients silent.
    pub(crate) fn check_end(&mut self) {
        for router in 0..self.scene.routers {
            for vipa in self.scene.vipas() {
                let state = self.gateways[router].as_ref().and_then(|gateway| gateway.brain.brief(*vipa));
                let expected = if router == self.scene.first { State::Active } else { State::Standby };
                let state = state.map(|brief| brief.state);
                if state != Some(expected) {
                    let gateway = self.gateways[router].as_ref();
                    let waits = gateway.and_then(|gateway| gateway.brain.vipa(*vipa)?.takeback);
                    let ends = format!("r{} ends as {state:?}, not as {expected:?}; waits for {waits:?}", router + 1);
                    return self.fail(format!("I6: {vipa}: {ends}"));
                }
            }
        }
        for node in 0..self.nodes.len() {
            let (voters, named) = (self.voters_of(node), self.named().clone());
            if voters.as_ref() != Some(&named) {
                let name = self.nodes[node].name.clone();
                return self.fail(format!("{name} goes by {voters:?} in the end, and not by {named:?}"));
            }
        }
        for router in 0..self.scene.routers {
            for target in 0..self.scene.targets {
                self.check_table(router, target);
            }
        }
        let decided: Vec<_> = self.gateways.iter().flatten().map(|gateway| gateway.brain.decisions()).collect();
        if decided.windows(2).any(|pair| pair[0] != pair[1]) {
            return self.fail(format!("routers differ over what is decided: {decided:?}"));
        }
        let late: Vec<u16> = self
            .dialogs
            .values()
            .filter(|(dialog, _)| dialog.is_late(CALM + RECOVERY))
            .map(|(dialog, _)| dialog.port)
            .collect();
        let stalled = |port: &&u16| {
            let holder = self.dialogs[*port].0.holder;
            !holder.is_some_and(|holder| self.checks.lost_power.contains(&holder))
        };
        if let Some(port) = late.iter().find(stalled) {
            let dialog = format!("{:?}", self.dialogs[port].0);
            self.fail(format!("R4: a connection makes no progress: {dialog}"));
        }
    }
}
