//! What control knows of each VIPA, and the `Routes` the workers get from it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_cluster::Resting;
use vipa_handoff::{
    Capture, PortRoute, ReturnRoute, RouteLists, Routes, ServiceRoute, SourceRule, TargetRoute, VipaRoute,
    next_neighbour,
};
use vipa_model::{
    Agentless, Balance, Epoch, Forwarding, Moment, PortId, PortRange, Protocol, Service, ServicePath, Stance, TargetId,
    TargetPath, Unserved, VipaId, config,
};
use vipa_protocol::{Eligibility, EventKind, Load, ServiceKey, event::MAX_EVENT_NAMES};
use vipa_sync::{Counter, Deadline};

use crate::{
    control::vipa_id,
    network::{
        eligibility::EligibilityRules,
        neighbours::Neighbours,
        path_mtu::PathMtus,
        paths::{Lists, Paths, TargetAndPath},
        probes::{ProbeResult, ProbeVerdict},
        reachability::Reachability,
        responsiveness::{Accounts, Place},
        weighted_active::{self, Weighed},
    },
    table::{connection_counts::ConnectionCounts, identifiers::Identifiers},
};

/// One VIPA as this router sees it; its place in `RoutingState::vipas` is its `VipaId`.
pub(crate) struct VipaRouting {
    pub(crate) address: IpAddr,
    pub(crate) epoch: Epoch,
    pub(crate) stance: Stance,
    /// Since when this router owns it.
    pub(crate) owned_since: Option<Moment>,
    pub(crate) quiet_until: Moment,
    pub(crate) lease: Arc<Deadline>,
    /// The list new connections use.
    pub(crate) services: Vec<Service>,
    /// How targets are reached that the list does not name, the newest last.
    pub(crate) learned: Vec<TargetPath>,
    /// What listens where, as the targets last said.
    pub(crate) listeners: BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>,
    /// Of services that go by turns, by their places in the list.
    turns: BTreeMap<usize, Turns>,
    /// Which of their candidates new connections keep away from.
    pub(crate) resting: Vec<Resting>,
    pub(crate) new_per_second: Option<u32>,
    pub(crate) unserved: Unserved,
    /// What its services came to, and of which revision of what is judged by.
    made: Option<(Revision, Arc<[ServiceRoute]>)>,
}

/// Counts the changes of what all VIPAs' candidates are judged by, and of the ids of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Revision {
    judged: u64,
    paths: u64,
}

/// A service by its VIPA's place and its own in that VIPA's list.
type ServicePlace = (usize, usize);

/// Services for which the same has changed, by the target and what that is.
type Alike = BTreeMap<(IpAddr, Eligibility), Vec<ServicePlace>>;

/// Adds what is otherwise `after` than `before`: the same services in the same order.
fn differences(
    alike: &mut Alike,
    target: IpAddr,
    before: Vec<(ServicePlace, Eligibility)>,
    after: impl IntoIterator<Item = (ServicePlace, Eligibility)>,
) {
    for ((place, before), (_, after)) in before.into_iter().zip(after) {
        if before.code() == after.code() {
            continue;
        }
        alike.entry((target, after)).or_default().push(place);
    }
}

/// Whose turns come first, and how many the workers have taken since that was found out.
#[derive(Debug, Default)]
struct Turns {
    first: Vec<IpAddr>,
    taken: Arc<Counter>,
}

/// Everything `Routes` is made from.
pub(crate) struct RoutingState {
    pub(crate) key: ClusterKey,
    pub(crate) ports: Vec<PortRoute>,
    pub(crate) vipas: Vec<VipaRouting>,
    /// The place of each VIPA that is not retired.
    pub(crate) places: HashMap<IpAddr, usize>,
    pub(crate) vipa_identifiers: Identifiers<VipaId>,
    /// A list has changed since the paths that no list names were last looked for.
    pub(crate) lists_stale: bool,
    pub(crate) ways: Paths,
    pub(crate) neighbours: Neighbours,
    pub(crate) path_mtus: PathMtus,
    /// Targets whose agents have been away for long.
    pub(crate) away: BTreeSet<IpAddr>,
    /// How the linked targets fare, in their own words.
    pub(crate) loads: BTreeMap<IpAddr, Load>,
    /// What the candidates without an agent have answered.
    pub(crate) found: HashMap<Agentless, ProbeVerdict>,
    /// Whether what is sent to targets arrives.
    pub(crate) reach: Reachability,
    /// How much of it is served.
    pub(crate) accounts: Accounts,
    /// Targets that have told how they fare since it was last compared with what was sent to them.
    told: BTreeSet<IpAddr>,
    pickers: Pickers,
    /// What listeners have changed and is to be said yet.
    listener_changes: Alike,
    /// Counts the changes of what candidates are judged by: how targets fare, what they answer, whether they are reached.
    judged: u64,
    generation: u64,
    /// What workers are to capture.
    pub(crate) capture: Option<Arc<Capture>>,
}

impl RoutingState {
    pub(crate) fn new(key: ClusterKey, ports: Vec<PortRoute>, vipas: &[config::Vipa]) -> Self {
        let mut routing = Self {
            key,
            ports,
            places: HashMap::new(),
            vipas: Vec::new(),
            vipa_identifiers: Identifiers::default(),
            lists_stale: false,
            ways: Paths::default(),
            neighbours: Neighbours::default(),
            path_mtus: PathMtus::default(),
            away: BTreeSet::new(),
            loads: BTreeMap::new(),
            found: HashMap::new(),
            reach: Reachability::default(),
            accounts: Accounts::default(),
            told: BTreeSet::new(),
            pickers: Pickers::default(),
            listener_changes: Alike::new(),
            judged: 0,
            generation: 0,
            capture: None,
        };
        routing.configure(vipas);
        routing
    }

    pub(crate) fn vipa_index(&self, address: IpAddr) -> Option<usize> {
        self.places.get(&address).copied()
    }

    /// What the candidates of a VIPA are judged by.
    pub(crate) fn judge(&self, vipa: usize) -> EligibilityRules<'_> {
        let VipaRouting { address, listeners, resting, .. } = &self.vipas[vipa];
        let Self { loads, found, reach, accounts, .. } = self;
        EligibilityRules { vipa: *address, listeners, resting, loads, found, reach, accounts }
    }

    /// Takes in how a target fares, or that it is not linked any more. `None`: that decides nothing otherwise than
    /// before; else what it changes for new connections beside weights.
    pub(crate) fn fares(&mut self, target: IpAddr, load: Option<Load>) -> Option<Vec<EventKind>> {
        let known = self.loads.get(&target);
        let is_same = match (&load, known) {
            (Some(load), Some(known)) => !load.decides_otherwise_than(known),
            (None, None) => true,
            _ => false,
        };
        let before = if is_same { Vec::new() } else { self.standings(target) };
        self.judged += u64::from(!is_same);
        match load {
            Some(load) => {
                self.told.insert(target);
                self.loads.insert(target, load)
            }
            None => {
                self.reach.unlink(target);
                self.accounts.forget(target);
                self.loads.remove(&target)
            }
        };
        if is_same {
            return None;
        }
        Some(self.changes(target, before))
    }

    /// Compares what was sent to each linked target with what arrived there. Says what that changes.
    pub(crate) fn compare(&mut self, now: Moment, admitted: impl Fn(TargetId) -> u64) -> Vec<EventKind> {
        let sent = self.ways.sent(admitted);
        let mut changes = self.account(now, &sent);
        self.reach.retain(|target| sent.contains_key(&target) || self.loads.contains_key(&target));
        let linked: Vec<(IpAddr, u64)> =
            self.loads.iter().map(|(target, load)| (*target, load.host.passive_opens)).collect();
        for (target, opened) in linked {
            if self.reach.observe(now, target, sent.get(&target).copied().unwrap_or_default(), opened) {
                let what = match self.reach.in_vain(target) {
                    Some(in_vain) => format!("{target} gets no new TCP connections: none of {in_vain} has reached it"),
                    None => format!("{target} gets new TCP connections again: they reach it, or it is tried"),
                };
                changes.push(EventKind::TargetRemark { target: Some(target), what });
            }
        }
        self.judged += u64::from(!changes.is_empty());
        changes
    }

    /// Takes in what the targets tell of what was sent to them. Says whose shares that changes.
    fn account(&mut self, now: Moment, sent: &BTreeMap<IpAddr, u64>) -> Vec<EventKind> {
        let mut changes = Vec::new();
        if self.told.is_empty() {
            return changes;
        }
        let of_it = |vipa: &VipaRouting| -> Vec<Place> {
            let tcp = vipa.services.iter().filter(|service| service.protocol == Protocol::Tcp);
            tcp.map(|service| (vipa.address, service.ports)).collect()
        };
        let owned = self.vipas.iter().filter(|vipa| vipa.stance == Stance::Active);
        let ours: BTreeSet<Place> = owned.flat_map(of_it).collect();
        for target in std::mem::take(&mut self.told) {
            let Some(load) = self.loads.get(&target) else { continue };
            let admitted = sent.get(&target).copied().unwrap_or_default();
            for place in self.accounts.tell(now, target, &load.served, admitted, |place| ours.contains(&place)) {
                let percent = self.accounts.of_service(target, place).percent().unwrap_or(100);
                let (vipa, ports) = place;
                let what = format!(
                    "{target} serves {percent} % of what is sent to it for {vipa} tcp/{ports}; \
                     shares that follow the load do too"
                );
                changes.push(EventKind::TargetRemark { target: Some(target), what });
            }
        }
        changes
    }

    /// Takes in what an agentless candidate has answered. Says what that changes.
    pub(crate) fn found(&mut self, (agentless, found): ProbeResult) -> Vec<EventKind> {
        let target = agentless.address;
        let before = self.standings(target);
        self.found.insert(agentless, found);
        self.judged += 1;
        self.changes(target, before)
    }

    /// Whether any service here is balanced by its live connections.
    pub(crate) fn balances_by_active(&self) -> bool {
        let owned = self.vipas.iter().filter(|vipa| vipa.stance != Stance::Standby);
        owned.flat_map(|vipa| &vipa.services).any(|service| service.balance == Balance::WeightedActive)
    }

    /// Of services that are balanced by their live connections, now counted, deals the next turns out; `came`: connections since
    /// the last count. Says whether that changes anything.
    pub(crate) fn recount(&mut self, counts: &ConnectionCounts, came: u64) -> bool {
        let mut changed = false;
        for index in 0..self.vipas.len() {
            let vipa = &self.vipas[index];
            let by_active = |service: &Service| service.balance == Balance::WeightedActive;
            if vipa.stance == Stance::Standby || !vipa.services.iter().any(by_active) {
                continue;
            }
            let counted = counts.of(index);
            let mut dealt = BTreeMap::new();
            for (place, service) in vipa.services.iter().enumerate().filter(|(_, service)| by_active(service)) {
                let active = counted.of_service(service, &self.ways);
                let judge = self.judge(index);
                let weigh = |target: &IpAddr| Weighed {
                    target: *target,
                    weight: judge.weight(service, *target),
                    active: active.get(target).copied().unwrap_or_default(),
                };
                let fit = |target: &&IpAddr| judge.standing(service, **target).fitness == Eligibility::Fit;
                let weighed: Vec<Weighed> = service.candidates.iter().filter(fit).map(weigh).collect();
                let first = weighted_active::deal(&weighed, came);
                // Turns that were taken are not for whoever has them next.
                if came > 0 || vipa.turns.get(&place).is_none_or(|turns| turns.first != first) {
                    dealt.insert(place, Turns { first, taken: Arc::default() });
                }
            }
            if !dealt.is_empty() {
                changed = true;
                self.vipas[index].turns.append(&mut dealt);
                self.vipas[index].made = None;
            }
        }
        changed
    }

    /// Every candidate without an agent, each question once.
    pub(crate) fn agentless(&self) -> Vec<Agentless> {
        let services = self.vipas.iter().flat_map(|vipa| &vipa.services);
        let mut all: Vec<Agentless> = Vec::new();
        for agentless in services.flat_map(|service| &service.choice.agentless) {
            if !all.contains(agentless) {
                all.push(agentless.clone());
            }
        }
        all
    }

    /// What has changed for new connections.
    fn changes(&self, target: IpAddr, before: Vec<(ServicePlace, Eligibility)>) -> Vec<EventKind> {
        let mut alike = Alike::new();
        differences(&mut alike, target, before, self.standings(target));
        self.events_of(alike)
    }

    /// What the listeners that were told since this was last asked have changed for new connections.
    pub(crate) fn take_listener_changes(&mut self) -> Vec<EventKind> {
        let alike = std::mem::take(&mut self.listener_changes);
        self.events_of(alike)
    }

    fn events_of(&self, alike: Alike) -> Vec<EventKind> {
        let key = |(vipa, place): &ServicePlace| {
            let VipaRouting { address, services, .. } = &self.vipas[*vipa];
            // The list may be another one already.
            let Service { protocol, ports, .. } = services.get(*place)?;
            Some(ServiceKey { vipa: *address, protocol: *protocol, ports: *ports })
        };
        let event = |((target, eligibility), places): ((IpAddr, Eligibility), Vec<ServicePlace>)| {
            let services = places.iter().filter_map(key).take(MAX_EVENT_NAMES).collect();
            let more = places.len().saturating_sub(MAX_EVENT_NAMES) as u32;
            EventKind::Target { target, eligibility, services, more }
        };
        alike.into_iter().map(event).collect()
    }

    /// How a target stands with every service it is a candidate of.
    fn standings(&self, target: IpAddr) -> Vec<(ServicePlace, Eligibility)> {
        (0..self.vipas.len()).flat_map(|vipa| self.standings_at(vipa, target)).collect()
    }

    fn standings_at(&self, vipa: usize, target: IpAddr) -> impl Iterator<Item = (ServicePlace, Eligibility)> {
        let judge = self.judge(vipa);
        let services = self.vipas[vipa].services.iter().enumerate();
        let of_target = services.filter(move |(_, service)| service.candidates.contains(&target));
        of_target.map(move |(place, service)| ((vipa, place), judge.standing(service, target).fitness))
    }

    /// Every neighbour that packets to targets go by, and the gateways, with their ports.
    pub(crate) fn wanted_neighbours(&self) -> Vec<(IpAddr, PortId)> {
        let targets = self.ways.all().filter_map(|(_, way)| way.neighbour(&self.ports));
        let gateways = self.ports.iter().flat_map(|port| [port.gateway.map(IpAddr::V4), port.gateway6.map(IpAddr::V6)]);
        let gateways = gateways.flatten().filter_map(|gateway| next_neighbour(&self.ports, gateway));
        let own = |address: &IpAddr| self.ports.iter().any(|port| port.has(*address));
        targets.chain(gateways).filter(|(_, address)| !own(address)).map(|(port, address)| (address, port)).collect()
    }

    /// What is known of a VIPA's targets has changed: each gets its way, and guesses are put right.
    fn lists_changed(&mut self, vipa: usize) {
        let VipaRouting { services, learned, .. } = &self.vipas[vipa];
        for service in services {
            for &address in &service.candidates {
                self.ways.intern(TargetAndPath { address, path: service.delivery.path_to(address) });
            }
        }
        for path in learned {
            self.ways.intern(TargetAndPath { address: path.target, path: path.service.path });
        }
        self.ways.revise(vipa_id(vipa), Lists { services, learned });
        self.vipas[vipa].made = None;
        self.lists_stale = true;
    }

    /// Whether packets for this target find their way out.
    pub(crate) fn reaches(&self, target: IpAddr) -> bool {
        let mut ways = self.ways.all().filter(|(_, way)| way.address == target);
        ways.any(|(_, way)| way.route(&self.ports, |address| self.neighbours.mac(address), None).next_hop.is_some())
    }

    /// Takes in that a link on the path to a target takes no more than `mtu` bytes. The path's MTU, if that lowers what a tunnel has.
    pub(crate) fn narrow_path(&mut self, target: IpAddr, mtu: u16, now: Moment) -> Option<u16> {
        let has_tunnel = self.ways.all().any(|(_, way)| way.address == target && way.path.forwarding.is_tunnel());
        if has_tunnel { self.path_mtus.lower(target, mtu, now) } else { None }
    }

    /// The ways by which packets find no way out.
    pub(crate) fn unreached(&self) -> HashSet<TargetId> {
        let hop = |way: &TargetAndPath| way.route(&self.ports, |address| self.neighbours.mac(address), None).next_hop;
        self.ways.all().filter(|(_, way)| hop(way).is_none()).map(|(id, _)| id).collect()
    }

    /// Whether the neighbour on the way to this target has left several questions in a row unanswered.
    pub(crate) fn is_silent(&self, target: IpAddr) -> bool {
        let mut ways = self.ways.all().filter(|(_, way)| way.address == target);
        ways.any(|(_, way)| {
            way.neighbour(&self.ports).is_some_and(|(_, neighbour)| self.neighbours.is_silent(neighbour))
        })
    }

    /// What `target` listens on for a VIPA.
    pub(crate) fn listens(&mut self, vipa: usize, target: IpAddr, listening: BTreeSet<(Protocol, u16)>) {
        let before: Vec<_> = self.standings_at(vipa, target).collect();
        self.vipas[vipa].listeners.insert(target, listening);
        self.vipas[vipa].made = None;
        let mut alike = std::mem::take(&mut self.listener_changes);
        differences(&mut alike, target, before, self.standings_at(vipa, target));
        self.listener_changes = alike;
    }

    /// Which candidates of a VIPA new connections keep away from.
    pub(crate) fn rest(&mut self, vipa: usize, resting: Vec<Resting>) {
        self.vipas[vipa].resting = resting;
        self.vipas[vipa].made = None;
    }

    /// The list that new connections to a VIPA use.
    pub(crate) fn serve_with(&mut self, vipa: usize, services: Vec<Service>) {
        self.vipas[vipa].services = services;
        self.lists_changed(vipa);
    }

    /// How targets are reached that the list of a VIPA does not name.
    pub(crate) fn learn(&mut self, vipa: usize, paths: Vec<TargetPath>) {
        self.vipas[vipa].learned = paths;
        self.lists_changed(vipa);
    }

    /// Candidates without an agent whose answers count no more are forgotten.
    pub(crate) fn keep_answers_of(&mut self, asked: &[Agentless]) {
        let before = self.found.len();
        self.found.retain(|of, _| asked.contains(of));
        self.judged += u64::from(self.found.len() != before);
    }

    /// What a VIPA's services come to, as they were made for the last routes if nothing of it has changed: with thousands of
    /// VIPAs whose owner changes, nothing but their stance has.
    fn services_of(&mut self, index: usize) -> Arc<[ServiceRoute]> {
        let revision = Revision { judged: self.judged, paths: self.ways.revision() };
        if let Some((of, services)) = &self.vipas[index].made
            && *of == revision
        {
            return Arc::clone(services);
        }
        let services = self.make_services(index);
        self.vipas[index].made = Some((revision, Arc::clone(&services)));
        services
    }

    fn make_services(&mut self, index: usize) -> Arc<[ServiceRoute]> {
        let Self { key, vipas, loads, found, reach, accounts, ways, pickers, .. } = self;
        let VipaRouting { address, services, listeners, resting, turns, .. } = &mut vipas[index];
        let judge = EligibilityRules { vipa: *address, listeners, resting, loads, found, reach, accounts };
        let mut made = Vec::new();
        for (place, service) in services.iter().enumerate() {
            let turns = turns.entry(place).or_default();
            let sources = SourceRule::build(&service.sources).map(Arc::new);
            segments(service, &judge, ways, |Segment { ports, eligible, draining }| {
                made.push(ServiceRoute {
                    protocol: service.protocol,
                    ports,
                    picker: pickers.get(key, service.balance, &eligible, &turns.first),
                    draining,
                    turns: Arc::clone(&turns.taken),
                    orphans: service.orphans,
                    sources: sources.clone(),
                });
            });
        }
        made.sort_by_key(|service| (service.protocol, service.ports.first));
        made.into()
    }

    /// The next snapshot for the workers.
    pub(crate) fn routes(&mut self) -> Routes {
        self.generation += 1;
        let mut lists = RouteLists { ports: self.ports.clone(), ..RouteLists::default() };
        for index in 0..self.vipas.len() {
            let (id, services) = (vipa_id(index), self.services_of(index));
            let vipa = &self.vipas[index];
            for service in vipa.services.iter().filter(|service| service.delivery.uses(Forwarding::Nat)) {
                let paths = service.candidates.iter().filter_map(|target| Some((*target, service.path_to(*target)?)));
                paths.for_each(|(target, path)| returns(id, target, path, &mut self.ways, &mut lists.returns));
            }
            for TargetPath { target, service } in &vipa.learned {
                returns(id, *target, *service, &mut self.ways, &mut lists.returns);
            }
            // Places in the list are `VipaId`s, so none may be left out.
            lists.vipas.push(VipaRoute {
                address: vipa.address,
                stance: vipa.stance,
                lease: Arc::clone(&vipa.lease),
                services,
                quiet_until: vipa.quiet_until,
                by_hash_until: VipaRoute::by_hash_until(vipa.epoch, vipa.stance, vipa.quiet_until),
                new_per_second: vipa.new_per_second,
                unserved: vipa.unserved,
            });
        }
        self.pickers.drop_unused();
        let mac = |address| self.neighbours.mac(address);
        let neighbour = |way: &TargetAndPath| way.neighbour(&self.ports).map(|(_, neighbour)| neighbour);
        // Places in the list are `TargetId`s; nothing is sent by one that stands for nothing.
        let route = |way: &Option<TargetAndPath>| match way {
            None => TargetRoute::nowhere(),
            Some(way) => TargetRoute {
                away: self.away.contains(&way.address),
                silent: neighbour(way).is_some_and(|neighbour| self.neighbours.is_silent(neighbour)),
                on_link: neighbour(way) == Some(way.address),
                ..way.route(&self.ports, mac, self.path_mtus.of(way.address))
            },
        };
        lists.targets = self.ways.by_id().iter().map(route).collect();
        lists.neighbours = self.neighbours.found().collect();
        lists.capture = self.capture.clone();
        Routes::build(self.generation, self.key, lists)
    }
}

/// What may come back from a target that is reached by `nat`.
fn returns(
    vipa: VipaId,
    address: IpAddr,
    ServicePath { protocol, ports, path }: ServicePath,
    ways: &mut Paths,
    returns: &mut BTreeMap<IpAddr, Vec<ReturnRoute>>,
) {
    if path.forwarding != Forwarding::Nat {
        return;
    }
    let Some(target) = ways.intern(TargetAndPath { address, path }) else { return };
    let (ports, vipa_port) = match path.target_port {
        Some(port) => (PortRange::one(port), Some(ports.first)),
        None => (ports, None),
    };
    let route = ReturnRoute { protocol, ports, vipa, vipa_port, target };
    let known = returns.entry(address).or_default();
    if !known.contains(&route) {
        known.push(route);
    }
}

impl VipaRouting {
    /// What is known of how its targets are reached.
    pub(crate) fn lists(&self) -> Lists<'_> {
        Lists { services: &self.services, learned: &self.learned }
    }

    pub(crate) fn new(vipa: &config::Vipa) -> Self {
        Self {
            address: vipa.address,
            epoch: Epoch::NONE,
            stance: Stance::Standby,
            owned_since: None,
            quiet_until: Moment::ZERO,
            lease: Arc::new(Deadline::default()),
            services: Vec::new(),
            learned: Vec::new(),
            listeners: BTreeMap::new(),
            turns: BTreeMap::new(),
            resting: Vec::new(),
            new_per_second: vipa.new_per_second,
            unserved: vipa.unserved,
            made: None,
        }
    }

    /// Nothing is served any more.
    pub(crate) fn clear(&mut self) {
        (self.services, self.learned, self.resting) = Default::default();
        (self.listeners, self.turns) = Default::default();
        self.made = None;
    }
}

/// Ports of a service on which the same candidates listen.
struct Segment {
    ports: PortRange,
    /// For new connections.
    eligible: Vec<Candidate>,
    /// For the UDP flows and half-open connections that they have.
    draining: Arc<[TargetId]>,
}

/// Cuts a service's ports into runs on which the same candidates listen.
fn segments(service: &Service, judge: &EligibilityRules<'_>, ways: &mut Paths, mut segment: impl FnMut(Segment)) {
    let range = service.ports;
    let removed = judge.removed(service);
    let listened = |address: &IpAddr| {
        let from = (service.protocol, range.first);
        let to = (service.protocol, range.last);
        judge.listeners.get(address).into_iter().flat_map(move |ports| ports.range(from..=to).map(|&(_, port)| port))
    };
    // Where the answer may change: at each port with a listener, and right after it.
    let mut cuts = BTreeSet::from([u32::from(range.first)]);
    for port in service.candidates.iter().chain(&removed).flat_map(&listened) {
        cuts.insert(u32::from(port));
        cuts.insert(u32::from(port) + 1);
    }
    let end = u32::from(range.last) + 1;
    let starts: Vec<u32> = cuts.into_iter().filter(|&start| start < end).collect();
    for (index, &start) in starts.iter().enumerate() {
        let next = starts.get(index + 1).copied().unwrap_or(end);
        let port = |number: u32| u16::try_from(number).expect("within the range");
        let ports = PortRange { first: port(start), last: port(next - 1) };
        // No segment holds a port with a listener and another: what is true of its first is true of all.
        let candidates = judge.candidates_fitness(service, ports.first);
        let eligible = EligibilityRules::choose(&candidates);
        let draining = judge.draining(service, ports.first, &candidates);
        let mut id = |address| ways.intern(TargetAndPath { address, path: service.delivery.path_to(address) });
        let candidate =
            |address| Some(Candidate { address, weight: judge.weight(service, address), target: id(address)? });
        let eligible = eligible.into_iter().filter_map(candidate).collect();
        let draining: Vec<TargetId> = draining.into_iter().filter_map(&mut id).collect();
        let listens = |target: &&IpAddr| judge.listeners[*target].contains(&(service.protocol, ports.first));
        let removed = removed.iter().filter(listens).flat_map(|target| ways.to(*target));
        let draining = draining.into_iter().chain(removed).collect();
        segment(Segment { ports, eligible, draining });
    }
}

/// Pickers by what they were made of: a Maglev table is large, and many services have the same.
#[derive(Debug, Default)]
struct Pickers {
    known: BTreeMap<PickerKey, Picker>,
}

/// Whether it goes by turns, who has the first of them, and the targets with their weights.
type PickerKey = (bool, Vec<TargetId>, Vec<(TargetId, u16)>);

impl Pickers {
    fn get(&mut self, key: &ClusterKey, balance: Balance, candidates: &[Candidate], first: &[IpAddr]) -> Picker {
        // Somebody may have become unfit since the count, and the service may have another policy.
        let id = |address: &IpAddr| candidates.iter().find(|one| one.address == *address).map(|one| one.target);
        let counts = balance == Balance::WeightedActive;
        let first: Vec<TargetId> = first.iter().filter(|_| counts).filter_map(id).collect();
        let ids = candidates.iter().map(|candidate| (candidate.target, candidate.weight)).collect();
        let name = (balance != Balance::Maglev, first, ids);
        let build = |(_, first, _): &PickerKey| match balance {
            Balance::Maglev => Picker::build(key, balance, candidates),
            Balance::RoundRobin | Balance::WeightedActive => Picker::by_turns(first.clone(), candidates),
        };
        match self.known.get(&name) {
            Some(known) => known.clone(),
            None => {
                let picker = build(&name);
                self.known.insert(name, picker.clone());
                picker
            }
        }
    }

    /// Forgets those that no service of a VIPA has.
    fn drop_unused(&mut self) {
        self.known.retain(|_, picker| picker.is_shared());
    }
}

#[cfg(test)]
mod tests;
