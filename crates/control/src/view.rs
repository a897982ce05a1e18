//! What control knows of each VIPA, and the `Routes` the workers get from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_handoff::{PortRoute, Routes, ServiceRoute, TargetRoute, VipaRoute};
use vipa_model::{Balance, Epoch, Moment, PortId, PortRange, Protocol, Service, Stance, TargetId};
use vipa_sync::Deadline;

use crate::{neighbours::Neighbours, table::Targets};

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
}

/// Everything `Routes` is made from.
pub(crate) struct View {
    pub(crate) key: ClusterKey,
    pub(crate) ports: Vec<PortRoute>,
    pub(crate) vipas: Vec<VipaView>,
    pub(crate) targets: Targets,
    pub(crate) neighbours: Neighbours,
    pickers: Pickers,
    generation: u64,
}

impl View {
    pub(crate) fn new(key: ClusterKey, ports: Vec<PortRoute>, vipas: impl IntoIterator<Item = IpAddr>) -> Self {
        let vipas = vipas.into_iter().map(VipaView::new).collect();
        Self {
            key,
            ports,
            vipas,
            targets: Targets::default(),
            neighbours: Neighbours::default(),
            pickers: Pickers::default(),
            generation: 0,
        }
    }

    pub(crate) fn vipa_index(&self, address: IpAddr) -> Option<usize> {
        self.vipas.iter().position(|vipa| vipa.address == address)
    }

    /// The port on whose network `address` lies; direct return reaches nothing else.
    pub(crate) fn port_towards(&self, address: Ipv4Addr) -> Option<PortId> {
        let on_link = |port: &PortRoute| {
            let mask = u32::MAX.checked_shl(32 - u32::from(port.prefix_length)).unwrap_or(0);
            (port.address.to_bits() ^ address.to_bits()) & mask == 0
        };
        self.ports.iter().position(on_link).map(|index| PortId(u16::try_from(index).expect("few ports")))
    }

    /// Every target's address with the port it is reached through.
    pub(crate) fn reachable_targets(&self) -> Vec<(Ipv4Addr, PortId)> {
        let ipv4 = self.targets.addresses().iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        ipv4.filter_map(|address| Some((address, self.port_towards(address)?))).collect()
    }

    /// The next snapshot for the workers.
    pub(crate) fn routes(&mut self) -> Routes {
        self.generation += 1;
        self.pickers.begin();
        let mut vipas = Vec::with_capacity(self.vipas.len());
        for vipa in &self.vipas {
            let mut services = Vec::new();
            for service in &vipa.services {
                segments(service, &vipa.listeners, &mut self.targets, |ports, eligible| {
                    services.push(ServiceRoute {
                        protocol: service.protocol,
                        ports,
                        picker: self.pickers.get(&self.key, service.balance, &eligible),
                        orphans: service.orphans,
                    });
                });
            }
            services.sort_by_key(|service| (service.protocol, service.ports.first));
            // Places in the list are `VipaId`s, so none may be left out.
            let IpAddr::V4(address) = vipa.address else { unreachable!("the configuration refuses IPv6 VIPAs") };
            vipas.push(VipaRoute {
                address,
                stance: vipa.stance,
                lease: Arc::clone(&vipa.lease),
                services,
                quiet_until: vipa.quiet_until,
            });
        }
        self.pickers.end();
        let targets = self.targets.addresses().iter().map(|address| self.target_route(*address)).collect();
        Routes::build(self.generation, self.key, self.ports.clone(), vipas, targets)
    }

    fn target_route(&self, address: IpAddr) -> TargetRoute {
        let address = match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        TargetRoute {
            address,
            port: self.port_towards(address).unwrap_or(PortId(0)),
            mac: self.neighbours.mac(address),
            forwarding: vipa_model::Forwarding::Direct,
        }
    }
}

impl VipaView {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            epoch: Epoch::NONE,
            stance: Stance::Standby,
            quiet_until: Moment::ZERO,
            lease: Arc::new(Deadline::default()),
            services: Vec::new(),
            listeners: BTreeMap::new(),
        }
    }
}

/// Cuts a service's ports into runs on which the same candidates listen, and names each run with those candidates.
fn segments(
    service: &Service,
    listeners: &BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>>,
    targets: &mut Targets,
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
        let candidate = |address| targets.intern(address).map(|target| Candidate { address, weight: 1, target });
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
    use super::*;

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const T2: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 22));

    fn cut(ports: PortRange, listening: &[(IpAddr, u16)]) -> Vec<(u16, u16, usize)> {
        let service = Service {
            protocol: Protocol::Tcp,
            ports,
            forwarding: vipa_model::Forwarding::Direct,
            balance: Balance::Maglev,
            orphans: vipa_model::Orphans::Reset,
            candidates: vec![T1, T2],
        };
        let mut listeners: BTreeMap<IpAddr, BTreeSet<_>> = BTreeMap::new();
        for &(address, port) in listening {
            listeners.entry(address).or_default().insert((Protocol::Tcp, port));
        }
        let mut found = Vec::new();
        segments(&service, &listeners, &mut Targets::default(), |ports, eligible| {
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
