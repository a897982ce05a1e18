//! What control knows of each VIPA, and the `Routes` the workers get from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_handoff::{PortRoute, ReturnRoute, RouteLists, Routes, ServiceRoute, SourceRule, VipaRoute, next_neighbour};
use vipa_model::{
    Balance, Epoch, Forwarding, Moment, PortId, PortRange, Protocol, Service, Stance, TargetId, VipaId, config,
};
use vipa_sync::Deadline;

use crate::{
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
            pickers: Pickers::default(),
            generation: 0,
        }
    }

    pub(crate) fn vipa_index(&self, address: IpAddr) -> Option<usize> {
        self.vipas.iter().position(|vipa| vipa.address == address)
    }

    /// Every neighbour that packets to targets go by, and the gateways, with their ports.
    pub(crate) fn wanted_neighbours(&self) -> Vec<(IpAddr, PortId)> {
        let targets = self.ways.all().iter().filter_map(|way| way.neighbour(&self.ports));
        let gateways = self.ports.iter().flat_map(|port| [port.gateway.map(IpAddr::V4), port.gateway6.map(IpAddr::V6)]);
        let gateways = gateways.flatten().filter_map(|gateway| next_neighbour(&self.ports, gateway));
        let own = |address: &IpAddr| self.ports.iter().any(|port| IpAddr::V4(port.address) == *address);
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

    /// The next snapshot for the workers.
    pub(crate) fn routes(&mut self) -> Routes {
        self.generation += 1;
        self.pickers.begin();
        let mut lists = RouteLists { ports: self.ports.clone(), ..RouteLists::default() };
        for (id, vipa) in (0..=u16::MAX).map(VipaId).zip(&self.vipas) {
            let mut services = Vec::new();
            for service in &vipa.services {
                let sources = SourceRule::build(&service.sources).map(Arc::new);
                segments(service, &vipa.listeners, &mut self.ways, |ports, eligible| {
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
        lists.targets = self.ways.all().iter().map(|way| way.route(&self.ports, mac)).collect();
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
fn segments(
    service: &Service,
    listeners: &BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>,
    ways: &mut Ways,
    mut segment: impl FnMut(PortRange, Vec<Candidate>),
) {
    let range = service.ports;
    let listened = |address: &IpAddr| {
        let from = (service.protocol, range.first);
        let to = (service.protocol, range.last);
        listeners.get(address).into_iter().flat_map(move |ports| ports.range(from..=to).map(|&(_, port)| port))
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
        let listens = |address: &&IpAddr| {
            listeners.get(*address).is_some_and(|open| open.contains(&(service.protocol, ports.first)))
        };
        let eligible: Vec<IpAddr> = service.candidates.iter().filter(listens).copied().collect();
        let way = |address| Way::new(address, &service.delivery);
        let candidate = |address| ways.intern(way(address)).map(|target| Candidate { address, weight: 1, target });
        segment(ports, eligible.into_iter().filter_map(candidate).collect());
    }
}

/// Pickers by what they were made of: a Maglev table is large, and most snapshots change none of them.
#[derive(Debug, Default)]
struct Pickers {
    used: BTreeMap<PickerKey, Picker>,
    old: BTreeMap<PickerKey, Picker>,
}

type PickerKey = (bool, Vec<TargetId>);

impl Pickers {
    fn begin(&mut self) {
        self.old = std::mem::take(&mut self.used);
    }

    fn get(&mut self, key: &ClusterKey, balance: Balance, candidates: &[Candidate]) -> Picker {
        let ids = candidates.iter().map(|candidate| candidate.target).collect();
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

    fn cut(ports: PortRange, listening: &[(IpAddr, u16)]) -> Vec<(u16, u16, usize)> {
        let service = Service {
            protocol: Protocol::Tcp,
            ports,
            delivery: vipa_model::Delivery::default(),
            balance: Balance::Maglev,
            orphans: vipa_model::Orphans::Reset,
            sources: vipa_model::Sources::default(),
            candidates: vec![T1, T2],
        };
        let mut listeners: BTreeMap<IpAddr, BTreeSet<_>> = BTreeMap::new();
        for &(address, port) in listening {
            listeners.entry(address).or_default().insert((Protocol::Tcp, port));
        }
        let mut found = Vec::new();
        segments(&service, &listeners, &mut Ways::default(), |ports, eligible| {
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
}
