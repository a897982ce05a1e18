//! What control knows of each VIPA, and the `Routes` the workers get from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_handoff::{
    PortRoute, ReturnRoute, RouteLists, Routes, ServiceRoute, SourceRule, TargetRoute, VipaRoute, next_neighbour,
};
use vipa_model::{
    Balance, Epoch, Forwarding, Moment, PortId, PortRange, Protocol, Service, Stance, TargetId, VipaId, config,
};
use vipa_protocol::{Fitness, Load};
use vipa_sync::Deadline;

use crate::{
    fitness::Judge,
    neighbours::Neighbours,
    ways::{Way, Ways},
};

/// One VIPA as this router sees it; its place in `View::vipas` is its `VipaId`.
pub(crate) struct VipaView {
    pub(crate) address: IpAddr,
    pub(crate) epoch: Epoch,
    pub(crate) stance: Stance,
    pub(crate) quiet_until: Moment,
    pub(crate) lease: Arc<Deadline>,
    /// The list new connections use.
    pub(crate) services: Vec<Service>,
    /// What listens where, as the targets last said.
    pub(crate) listeners: BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>,
    new_per_second: Option<u32>,
}

/// Everything `Routes` is made from.
pub(crate) struct View {
    pub(crate) key: ClusterKey,
    pub(crate) ports: Vec<PortRoute>,
    pub(crate) vipas: Vec<VipaView>,
    pub(crate) ways: Ways,
    pub(crate) neighbours: Neighbours,
    /// Targets whose agents have been away for long.
    pub(crate) away: BTreeSet<IpAddr>,
    /// How the linked targets fare, in their own words.
    loads: BTreeMap<IpAddr, Load>,
    pickers: Pickers,
    generation: u64,
}

impl View {
    pub(crate) fn new(key: ClusterKey, ports: Vec<PortRoute>, vipas: &[config::Vipa]) -> Self {
        let vipas = vipas.iter().map(VipaView::new).collect();
        Self {
            key,
            ports,
            vipas,
            ways: Ways::default(),
            neighbours: Neighbours::default(),
            away: BTreeSet::new(),
            loads: BTreeMap::new(),
            pickers: Pickers::default(),
            generation: 0,
        }
    }

    pub(crate) fn vipa_index(&self, address: IpAddr) -> Option<usize> {
        self.vipas.iter().position(|vipa| vipa.address == address)
    }

    /// What the candidates of a VIPA are judged by.
    pub(crate) fn judge(&self, vipa: usize) -> Judge<'_> {
        let VipaView { address, listeners, .. } = &self.vipas[vipa];
        Judge { vipa: *address, listeners, loads: &self.loads }
    }

    /// Takes in how a target fares, or that it is not linked any more. `None`: that decides nothing otherwise than
    /// before; else what it changes for new connections beside weights, a sentence each.
    pub(crate) fn fares(&mut self, target: IpAddr, load: Option<Load>) -> Option<Vec<String>> {
        let known = self.loads.get(&target);
        let is_same = match (&load, known) {
            (Some(load), Some(known)) => !load.decides_otherwise_than(known),
            (None, None) => true,
            _ => false,
        };
        let before = if is_same { Vec::new() } else { self.standings(target) };
        match load {
            Some(load) => self.loads.insert(target, load),
            None => self.loads.remove(&target),
        };
        if is_same {
            return None;
        }
        let after = self.standings(target);
        let changed = before.into_iter().zip(after).filter(|((_, before), (_, after))| before.code() != after.code());
        let sentence = |(_, (service, fitness)): (_, (String, Fitness))| match fitness {
            Fitness::Fit => format!("{service}: {target} gets new connections again"),
            other => format!("{service}: {target} gets no new connections, because {other}"),
        };
        Some(changed.map(sentence).collect())
    }

    pub(crate) fn load(&self, target: IpAddr) -> Option<&Load> {
        self.loads.get(&target)
    }

    /// How a target stands with every service it is a candidate of.
    fn standings(&self, target: IpAddr) -> Vec<(String, Fitness)> {
        let mut standings = Vec::new();
        for (index, vipa) in self.vipas.iter().enumerate() {
            for service in vipa.services.iter().filter(|service| service.candidates.contains(&target)) {
                let Service { protocol, ports, .. } = service;
                let name = format!("{} {protocol:?} {}-{}", vipa.address, ports.first, ports.last).to_lowercase();
                standings.push((name, self.judge(index).standing(service, target).fitness));
            }
        }
        standings
    }

    /// Every neighbour that packets to targets go by, and the gateways, with their ports.
    pub(crate) fn wanted_neighbours(&self) -> Vec<(IpAddr, PortId)> {
        let targets = self.ways.all().iter().filter_map(|way| way.neighbour(&self.ports));
        let gateways = self.ports.iter().flat_map(|port| [port.gateway.map(IpAddr::V4), port.gateway6.map(IpAddr::V6)]);
        let gateways = gateways.flatten().filter_map(|gateway| next_neighbour(&self.ports, gateway));
        let own = |address: &IpAddr| self.ports.iter().any(|port| port.has(*address));
        targets.chain(gateways).filter(|(_, address)| !own(address)).map(|(port, address)| (address, port)).collect()
    }

    /// Gives every candidate of these services its way.
    pub(crate) fn intern(&mut self, services: &[Service]) {
        for service in services {
            for candidate in &service.candidates {
                self.ways.intern(Way::new(*candidate, &service.delivery));
            }
        }
    }

    /// Whether packets for this target find their way out.
    pub(crate) fn reaches(&self, target: IpAddr) -> bool {
        let mut ways = self.ways.all().iter().filter(|way| way.address == target);
        ways.any(|way| way.route(&self.ports, |address| self.neighbours.mac(address)).next_hop.is_some())
    }

    /// The next snapshot for the workers.
    pub(crate) fn routes(&mut self) -> Routes {
        self.generation += 1;
        self.pickers.begin();
        let mut lists = RouteLists { ports: self.ports.clone(), ..RouteLists::default() };
        for (id, vipa) in (0..=u16::MAX).map(VipaId).zip(&self.vipas) {
            let mut services = Vec::new();
            for service in &vipa.services {
                let sources = SourceRule::build(&service.sources).map(Arc::new);
                let judge = Judge { vipa: vipa.address, listeners: &vipa.listeners, loads: &self.loads };
                segments(service, &judge, &mut self.ways, |ports, eligible| {
                    services.push(ServiceRoute {
                        protocol: service.protocol,
                        ports,
                        picker: self.pickers.get(&self.key, service.balance, &eligible),
                        orphans: service.orphans,
                        sources: sources.clone(),
                    });
                });
                returns(id, service, &mut self.ways, &mut lists.returns);
            }
            // Places in the list are `VipaId`s, so none may be left out.
            lists.vipas.push(VipaRoute {
                address: vipa.address,
                stance: vipa.stance,
                lease: Arc::clone(&vipa.lease),
                services,
                quiet_until: vipa.quiet_until,
                new_per_second: vipa.new_per_second,
            });
        }
        self.pickers.end();
        let mac = |address| self.neighbours.mac(address);
        let route = |way: &Way| TargetRoute { away: self.away.contains(&way.address), ..way.route(&self.ports, mac) };
        lists.targets = self.ways.all().iter().map(route).collect();
        lists.neighbours = self.neighbours.found().collect();
        Routes::build(self.generation, self.key, lists)
    }
}

/// What may come back from the targets that a service reaches by `nat`.
fn returns(vipa: VipaId, service: &Service, ways: &mut Ways, returns: &mut BTreeMap<IpAddr, Vec<ReturnRoute>>) {
    for candidate in &service.candidates {
        let way = Way::new(*candidate, &service.delivery);
        if way.forwarding != Forwarding::Nat {
            continue;
        }
        let Some(target) = ways.intern(way) else { continue };
        let (ports, vipa_port) = match way.target_port {
            Some(port) => (PortRange::one(port), Some(service.ports.first)),
            None => (service.ports, None),
        };
        let route = ReturnRoute { protocol: service.protocol, ports, vipa, vipa_port, target };
        returns.entry(*candidate).or_default().push(route);
    }
}

impl VipaView {
    fn new(vipa: &config::Vipa) -> Self {
        Self {
            address: vipa.address,
            epoch: Epoch::NONE,
            stance: Stance::Standby,
            quiet_until: Moment::ZERO,
            lease: Arc::new(Deadline::default()),
            services: Vec::new(),
            listeners: BTreeMap::new(),
            new_per_second: vipa.new_per_second,
        }
    }
}

/// Cuts a service's ports into runs on which the same candidates listen, and names each run with those candidates.
fn segments(service: &Service, judge: &Judge<'_>, ways: &mut Ways, mut segment: impl FnMut(PortRange, Vec<Candidate>)) {
    let range = service.ports;
    let listened = |address: &IpAddr| {
        let from = (service.protocol, range.first);
        let to = (service.protocol, range.last);
        judge.listeners.get(address).into_iter().flat_map(move |ports| ports.range(from..=to).map(|&(_, port)| port))
    };
    // Where the answer may change: at each port with a listener, and right after it.
    let mut cuts = BTreeSet::from([u32::from(range.first)]);
    for port in service.candidates.iter().flat_map(&listened) {
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
        let eligible = judge.choose(service, ports.first);
        let candidate = |address| {
            let target = ways.intern(Way::new(address, &service.delivery))?;
            Some(Candidate { address, weight: judge.weight(service, address), target })
        };
        segment(ports, eligible.into_iter().filter_map(candidate).collect());
    }
}

/// Pickers by what they were made of: a Maglev table is large, and most snapshots change none of them.
#[derive(Debug, Default)]
struct Pickers {
    used: BTreeMap<PickerKey, Picker>,
    old: BTreeMap<PickerKey, Picker>,
}

type PickerKey = (bool, Vec<(TargetId, u16)>);

impl Pickers {
    fn begin(&mut self) {
        self.old = std::mem::take(&mut self.used);
    }

    fn get(&mut self, key: &ClusterKey, balance: Balance, candidates: &[Candidate]) -> Picker {
        let ids = candidates.iter().map(|candidate| (candidate.target, candidate.weight)).collect();
        let name = (balance == Balance::RoundRobin, ids);
        let kept = self.used.get(&name).cloned().or_else(|| self.old.remove(&name));
        let picker = kept.unwrap_or_else(|| Picker::build(key, balance, candidates));
        self.used.insert(name, picker.clone());
        picker
    }

    fn end(&mut self) {
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const T2: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 22));

    fn service(ports: PortRange) -> Service {
        Service {
            protocol: Protocol::Tcp,
            ports,
            delivery: vipa_model::Delivery::default(),
            balance: Balance::Maglev,
            choice: vipa_model::Choice::default(),
            orphans: vipa_model::Orphans::Reset,
            sources: vipa_model::Sources::default(),
            candidates: vec![T1, T2],
        }
    }

    fn cut(ports: PortRange, listening: &[(IpAddr, u16)]) -> Vec<(u16, u16, usize)> {
        let service = service(ports);
        let mut listeners: BTreeMap<IpAddr, BTreeSet<_>> = BTreeMap::new();
        for &(address, port) in listening {
            listeners.entry(address).or_default().insert((Protocol::Tcp, port));
        }
        let mut found = Vec::new();
        let judge = Judge { vipa: T1, listeners: &listeners, loads: &BTreeMap::new() };
        segments(&service, &judge, &mut Ways::default(), |ports, eligible| {
            found.push((ports.first, ports.last, eligible.len()));
        });
        found
    }

    #[test]
    fn a_service_on_one_port_has_the_candidates_that_listen_there() {
        assert_eq!(cut(PortRange::one(80), &[]), [(80, 80, 0)]);
        assert_eq!(cut(PortRange::one(80), &[(T1, 80)]), [(80, 80, 1)]);
        assert_eq!(cut(PortRange::one(80), &[(T1, 80), (T2, 80), (T2, 81)]), [(80, 80, 2)]);
    }

    #[test]
    fn a_service_on_all_ports_is_cut_where_the_listeners_change() {
        let found = cut(PortRange::ALL, &[(T1, 80), (T2, 80), (T1, 81), (T2, 65535)]);
        assert_eq!(found, [(1, 79, 0), (80, 80, 2), (81, 81, 1), (82, 65534, 0), (65535, 65535, 1)]);
    }

    #[test]
    fn thousands_of_services_share_the_tables_of_the_same_candidates() {
        const VIPAS: u16 = 40;
        const SERVICES: u16 = 100;
        let vipa = |n: u16| config::Vipa {
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, n as u8 + 1)),
            ranks: Vec::new(),
            activate: true,
            takeback: config::Takeback::Immediate,
            new_per_second: None,
            services: None,
        };
        let vipas: Vec<_> = (0..VIPAS).map(vipa).collect();
        let port = PortRoute::new(vipa_model::Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(198, 51, 100, 1), 24);
        let mut view = View::new(ClusterKey::new([7; 16]), vec![port], &vipas);
        for vipa in &mut view.vipas {
            vipa.services = (0..SERVICES).map(|n| service(PortRange::one(1_000 + n))).collect();
            for target in [T1, T2] {
                let ports = (0..SERVICES).map(|n| (Protocol::Tcp, 1_000 + n));
                vipa.listeners.insert(target, ports.collect());
            }
        }
        let routes = view.routes();
        assert_eq!(routes.vipas.iter().map(|vipa| vipa.services.len()).sum::<usize>(), 4_000);
        assert!(routes.vipas.iter().flat_map(|vipa| &vipa.services).all(|service| service.picker.serves(TargetId(1))));
        assert_eq!((view.pickers.used.len(), routes.targets.len()), (1, 2));
    }
}
