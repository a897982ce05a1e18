//! Answers to `vipactl`.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use vipa_cluster::Wait;
use vipa_model::{Moment, NodeName, Protocol, Rank, listed};
use vipa_protocol::{
    Decision, Eligibility, ListenerLoad, Load, Matter, Role, Ruling, Served,
    admin::{
        AddressConflict, Answer, Counters, Decisions, Distribution, DistributionRow, Flapping, Link, MirrorStatus,
        NarrowPath, OverShare, Responsiveness, ServiceDistribution, Stance, Status, Succession, Takeovers,
        TargetStatus, VipaDistribution, VipaStatus,
    },
};

use crate::{
    control::Control,
    network::{conflicts::Conflict, eligibility::Standing},
    table::{
        connection_counts::{ConnectionCounts, Counted},
        replica,
    },
};

pub(crate) fn takeovers(control: &Control) -> Answer {
    Answer::Takeovers(Takeovers { records: control.takeovers.records() })
}

pub(crate) fn decisions(control: &Control) -> Answer {
    let mut decisions = control.cluster.decisions();
    decisions.retain(|decision| decision.ruling != Ruling::AsConfigured);
    Answer::Decisions(Decisions { decisions })
}

pub(crate) fn status(control: &Control, counts: &ConnectionCounts) -> Status {
    let config = &control.config;
    let mut links: BTreeMap<NodeName, Link> = BTreeMap::new();
    for (node, _) in config.cluster.routers.iter().filter(|(node, _)| *node != config.node.name) {
        links.insert(node.clone(), Link { node: node.clone(), target: None, up: false });
    }
    let vipas = control.cluster.vipas();
    for target in vipas.iter().flat_map(|vipa| &vipa.targets) {
        if !links.contains_key(&target.node) {
            let link = Link { node: target.node.clone(), target: Some(target.address), up: false };
            links.insert(target.node.clone(), link);
        }
    }
    for peer in control.cluster.peers() {
        let target = match peer.role {
            Role::Router => None,
            Role::Target { address } => Some(address),
        };
        let up = !control.health.is_silent(&peer.node);
        links.insert(peer.node.clone(), Link { node: peer.node, target, up });
    }
    let loads = LoadsByVipa::of(&control.routing.loads);
    let ranks: Ranks = config.vipas.iter().map(|vipa| (vipa.address, &vipa.ranks)).collect();
    Status {
        node: config.node.name.clone(),
        cluster: config.cluster.name.clone(),
        incarnation: control.cluster.hello().incarnation,
        uptime_ms: control.clock.now().0 / 1_000_000,
        voters: control.cluster.voters().names.clone(),
        voters_version: control.cluster.voters().version,
        other_voters: control.cluster.other_voters(),
        voters_wait: control.voters_wait().map(|objection| objection.to_string()),
        links: links.into_values().collect(),
        vipas: vipas.into_iter().map(|vipa| vipa_status(control, vipa, (&ranks, &loads), counts)).collect(),
        connections: control.flows.count().live(),
        capacity: control.flows.capacity() as u64,
        unfit: control.cluster.unfit().map(str::to_owned),
        left: left(control),
        narrow_paths: narrow_paths(control),
        flapping: flapping(control),
        over_share: over_share(control),
        refused: control.refusals.recent(|node| control.cluster.messages_denied_of(node), control.clock.now()),
        conflicts: conflicts(control),
        interferences: control.own_kernel.all().iter().map(ToString::to_string).collect(),
        leases_lost: control.steadiness.leases.total(),
        recording: control.recorder.file().map(|file| file.display().to_string()),
        health: control.health_facts(),
        config_file: Some(control.reader.file.display().to_string()),
        unconfirmed_ms: control.trial_left().map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn flapping(control: &Control) -> Vec<Flapping> {
    let flapping = control.steadiness.owners.flapping(control.clock.now());
    flapping.into_iter().map(|(vipa, changes)| Flapping { vipa, changes: changes as u64 }).collect()
}

fn conflicts(control: &Control) -> Vec<AddressConflict> {
    let now = control.clock.now();
    let row = |(vipa, conflict): (IpAddr, &Conflict)| AddressConflict {
        vipa,
        mac: conflict.mac.to_string(),
        port: control.port_name(conflict.port).to_owned(),
        also: control.routing.neighbours.address_of(conflict.mac),
        claims: conflict.claims,
        ago_s: now.since(conflict.last).as_secs(),
    };
    control.conflicts.all().map(row).collect()
}

fn narrow_paths(control: &Control) -> Vec<NarrowPath> {
    let paths = control.routing.path_mtus.all(control.clock.now());
    paths.map(|(target, mtu, kept)| NarrowPath { target, mtu, kept_s: kept.as_secs() }).collect()
}

fn over_share(control: &Control) -> Vec<OverShare> {
    let over = control.reports.shares.over(control.clock.now().into());
    over.map(|(target, over)| OverShare { target, refused: over.refused }).collect()
}

fn left(control: &Control) -> Vec<NodeName> {
    let left = |decision: Decision| match decision {
        Decision { matter: Matter::Membership { node }, ruling: Ruling::Withheld, .. } => Some(node),
        _ => None,
    };
    control.cluster.decisions().into_iter().filter_map(left).collect()
}

fn succession(control: &Control, vipa: &vipa_cluster::VipaStatus) -> Succession {
    let now = control.clock.now();
    let ms = |moment: Moment| u64::try_from(moment.since(now).as_millis()).unwrap_or(u64::MAX);
    let list = |nodes: &[IpAddr]| nodes.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let (mut takeback_in_ms, owner) = (None, vipa.owner.as_ref().map_or("the owner", NodeName::as_str));
    let takeback = vipa.takeback.as_ref().map(|wait| match wait {
        Wait::Nothing => format!("{owner} is asked to yield"),
        Wait::Targets { unlinked, unread } if unread.is_empty() => format!("no link to {}", list(unlinked)),
        Wait::Targets { unlinked: _, unread } => format!("not everything is read from {}", list(unread)),
        Wait::Unfollowed { targets } => format!("{} report to {owner} and not here", listed(targets)),
        Wait::Group => "others of its group are not ready".into(),
        Wait::Delay { until } => {
            takeback_in_ms = Some(ms(*until));
            "takeback_delay_s".into()
        }
        Wait::Idle { connections: Some(connections) } => format!("the end of {connections} connections"),
        Wait::Idle { connections: None } => "connections to be counted".into(),
        Wait::Order => format!("an order: vipactl vipa takeback {}", vipa.vipa),
    });
    Succession {
        group: vipa.group.clone(),
        placed: vipa.placed.clone(),
        barred: vipa.barred.clone(),
        yielding_to: vipa.yielding_to.clone(),
        lingers_ms: vipa.lingers_until.map(ms),
        takeback,
        takeback_in_ms,
    }
}

/// The ranks of each VIPA, highest first.
type Ranks<'a> = HashMap<IpAddr, &'a Vec<(NodeName, Rank)>>;

/// What each linked target says of itself, with the part of it that is about one VIPA found by target and VIPA: what a target says is
/// about all its VIPAs, and with a thousand of them all of it for each would be a million lines.
struct LoadsByVipa<'a> {
    loads: &'a BTreeMap<IpAddr, Load>,
    listeners: HashMap<(IpAddr, IpAddr), Vec<ListenerLoad>>,
    served: HashMap<(IpAddr, IpAddr), Vec<Served>>,
}

impl<'a> LoadsByVipa<'a> {
    fn of(loads: &'a BTreeMap<IpAddr, Load>) -> Self {
        let (mut listeners, mut served): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        for (target, load) in loads {
            for listener in &load.listeners {
                listeners.entry((*target, listener.vipa)).or_default().push(*listener);
            }
            for service in &load.served {
                served.entry((*target, service.vipa)).or_default().push(*service);
            }
        }
        Self { loads, listeners, served }
    }

    fn about(&self, target: IpAddr, vipa: IpAddr) -> Option<Load> {
        let Load { intent, headroom, host, listeners: _, checks, served: _ } = self.loads.get(&target)?;
        Some(Load {
            intent: *intent,
            headroom: *headroom,
            host: *host,
            listeners: self.listeners.get(&(target, vipa)).cloned().unwrap_or_default(),
            checks: checks.clone(),
            served: self.served.get(&(target, vipa)).cloned().unwrap_or_default(),
        })
    }
}

fn vipa_status(
    control: &Control,
    vipa: vipa_cluster::VipaStatus,
    (ranks, loads): (&Ranks<'_>, &LoadsByVipa<'_>),
    counts: &ConnectionCounts,
) -> VipaStatus {
    let nothing = Counted::default();
    let counted = control.routing.vipa_index(vipa.vipa).map_or(&nothing, |index| counts.of(index));
    let held = counted.by_target(&control.routing.ways);
    let mut targets: BTreeMap<IpAddr, TargetStatus> = BTreeMap::new();
    let unknown = |address| TargetStatus {
        address,
        node: None,
        linked: false,
        complete: false,
        position: None,
        listening: Vec::new(),
        load: loads.about(address, vipa.vipa),
        connections: 0,
        resting: Vec::new(),
        responsiveness: control.routing.accounts.of_vipa(address, vipa.vipa),
    };
    for address in vipa.services.iter().flat_map(|service| &service.candidates).chain(held.keys()) {
        targets.insert(*address, unknown(*address));
    }
    let succession = succession(control, &vipa);
    for known in vipa.targets {
        let target = targets.entry(known.address).or_insert_with(|| unknown(known.address));
        target.node = Some(known.node);
        target.linked = known.linked;
        target.complete = known.complete;
        target.position = known.position;
        target.listening = known.listening;
    }
    for (address, count) in &held {
        targets.entry(*address).or_insert_with(|| unknown(*address)).connections = *count;
    }
    for resting in &vipa.resting {
        if let Some(target) = targets.get_mut(&resting.target) {
            target.resting.push((resting.protocol, resting.ports.first));
        }
    }
    VipaStatus {
        address: vipa.vipa,
        epoch: vipa.epoch,
        stance: stance(vipa.state),
        owner: vipa.owner,
        fenced: vipa.fenced,
        ranks: ranks.get(&vipa.vipa).copied().cloned().unwrap_or_default(),
        services: vipa.services,
        targets: targets.into_values().collect(),
        connections: counted.total,
        confirmed: counted.confirmed,
        mirror: control.replicas.state(vipa.vipa, control.clock.now()).map(replica_status),
        succession,
    }
}

fn replica_status(state: replica::State) -> MirrorStatus {
    match state {
        replica::State::Telling { followers, connections, left_out } => {
            MirrorStatus::Telling { followers, connections: connections as u64, left_out }
        }
        replica::State::Following { from, connections, behind } => MirrorStatus::Following {
            from,
            connections: connections as u64,
            behind_ms: behind.map(|behind| u64::try_from(behind.as_millis()).unwrap_or(u64::MAX)),
        },
    }
}

pub(crate) fn stance(state: vipa_cluster::State) -> Stance {
    use vipa_cluster::State;
    match state {
        State::Standby => Stance::Standby,
        State::Suspecting => Stance::Suspecting,
        State::Claiming => Stance::Claiming,
        State::Rebuilding => Stance::Rebuilding,
        State::Active => Stance::Active,
        State::Yielding => Stance::Yielding,
    }
}

pub(crate) fn distribution(control: &Control, counts: &ConnectionCounts) -> Distribution {
    let mut vipas = Vec::new();
    for vipa in control.cluster.vipas() {
        let services = vipa.services.iter().map(|service| ServiceDistribution {
            service: service.clone(),
            targets: distribution_rows(control, &vipa, service, counts),
        });
        vipas.push(VipaDistribution { vipa: vipa.vipa, epoch: vipa.epoch, services: services.collect() });
    }
    Distribution { vipas }
}

fn distribution_rows(
    control: &Control,
    vipa: &vipa_cluster::VipaStatus,
    service: &vipa_model::Service,
    counts: &ConnectionCounts,
) -> Vec<DistributionRow> {
    let index = control.routing.vipa_index(vipa.vipa).unwrap_or_default();
    let held = counts.of(index).of_service(service, &control.routing.ways);
    let others = held.keys().filter(|address| !service.candidates.contains(address));
    let judge = control.routing.judge(index);
    let standing = |address: &IpAddr| judge.standing(service, *address);
    let nobody_is_fit = service.candidates.iter().all(|address| standing(address).fitness != Eligibility::Fit);
    let row = |address: &IpAddr| {
        let known = vipa.targets.iter().find(|target| target.address == *address);
        let Standing { fitness, listening, fit, waiting } = standing(address);
        DistributionRow {
            target: *address,
            node: known.map(|target| target.node.clone()),
            candidate: service.candidates.contains(address),
            agent: service.choice.agentless(*address).is_none(),
            linked: known.is_some_and(|target| target.linked),
            listening,
            chosen: fitness == Eligibility::Fit || nobody_is_fit && fitness.is_last_resort(),
            fitness,
            fit,
            weight: judge.weight(service, *address),
            waiting,
            connections: held.get(address).copied().unwrap_or_default(),
            responsiveness: match service.protocol {
                Protocol::Tcp => control.routing.accounts.of_service(*address, (vipa.vipa, service.ports)),
                Protocol::Udp => Responsiveness::default(),
            },
        }
    };
    service.candidates.iter().chain(others).map(row).collect()
}

pub(crate) fn counters(control: &Control) -> Counters {
    let named = |totals: &vipa_handoff::Totals| totals.iter().map(|(name, n)| (name.to_string(), n)).collect();
    let mut total: BTreeMap<String, u64> = named(&control.channel.totals());
    total.extend(control_counts(control));
    let workers = control.channel.workers().iter().map(|shared| named(&shared.counters.totals())).collect();
    Counters { at_us: control.clock.now().0 / 1_000, total, workers }
}

/// What control counts, beside the workers.
pub(crate) fn control_counts(control: &Control) -> BTreeMap<String, u64> {
    let mut total = BTreeMap::new();
    total.insert("notes.refused".into(), control.channel.notes_refused());
    total.extend(control.routing.neighbours.counts());
    total.insert("neighbour.unasked".into(), control.neighbour_prompts.left_out());
    let writes = control.votes.writes() + control.decisions.writes() + control.voting.writes();
    total.insert("flow.evicted".into(), control.flows.evictions());
    let (denied, links) = (control.cluster.messages_denied(), control.links.statistics());
    total.extend(control.counts.named(writes, denied, links, control.refusals.total()));
    total.extend(control.routing.identifier_counts());
    total.extend(control.advertiser.counts());
    total.extend(control.audits.named());
    total.extend(control.self_check.counts());
    total.extend(control.recorder.counts());
    total
}

#[cfg(test)]
mod tests {
    use vipa_model::PortRange;
    use vipa_protocol::Accepting;

    use super::*;

    #[test]
    fn what_a_target_says_of_a_vipa_is_told_with_that_vipa_alone() {
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let ports = PortRange::one(80);
        let served = |vipa| Served { vipa, ports, begun: 3, established: 2, accepted: 1 };
        let listener = |vipa| ListenerLoad {
            vipa,
            protocol: Protocol::Tcp,
            port: 80,
            waiting: 1,
            room: 8,
            accepting: Accepting::Yes,
        };
        let said = Load {
            headroom: 7,
            listeners: [10, 11].map(address).map(listener).to_vec(),
            served: [10, 11, 12].map(address).map(served).to_vec(),
            ..Load::unknown()
        };
        let all = BTreeMap::from([(address(1), said.clone())]);
        let loads = LoadsByVipa::of(&all);
        let of_ten = Load { listeners: vec![listener(address(10))], served: vec![served(address(10))], ..said.clone() };
        assert_eq!(loads.about(address(1), address(10)), Some(of_ten));
        let of_another = Load { listeners: vec![], served: vec![], ..said };
        assert_eq!(loads.about(address(1), address(13)), Some(of_another));
        assert_eq!(loads.about(address(2), address(10)), None);
    }
}
