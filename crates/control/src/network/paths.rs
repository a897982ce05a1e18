//! The ways to targets: each has a `TargetId`, which the connection table keeps for every connection.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use vipa_handoff::{ForwardingAction, NextHop, PortRoute, TargetRoute, WAYS, next_neighbour};
use vipa_model::{
    Forwarding, Mac, Path, PathLookup, PortId, PortRange, Protocol, Service, TargetId, TargetPath, VipaId, find_path,
};
use vipa_packet::{Encapsulation, TunnelEndpoints};
use vipa_sync::Versions;

use crate::table::identifiers::{Identifier, Identifiers};

const _: () = assert!(<TargetId as Identifier>::COUNT == WAYS);
/// Where GUE is expected: what IANA has assigned to it.
const GUE_PORT: u16 = 6080;

/// A target and how packets get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TargetAndPath {
    pub(crate) address: IpAddr,
    pub(crate) path: Path,
}

/// What is known of how the targets of a VIPA are reached.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    /// This router's own list.
    pub services: &'a [Service],
    /// What it learned of targets that the list does not name, the newest last.
    pub learned: &'a [TargetPath],
}

/// A way of which nobody has said yet how it leads to its target: what is known of it may change later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Guess {
    vipa: VipaId,
    address: IpAddr,
    /// The service that its connections are of; `None`: their ports are no service's.
    service: Option<(Protocol, PortRange)>,
}

impl TargetAndPath {
    /// The port it leads out of, and the neighbour there whose MAC must be known.
    pub(crate) fn neighbour(&self, ports: &[PortRoute]) -> Option<(PortId, IpAddr)> {
        let (port, neighbour) = next_neighbour(ports, self.address)?;
        // Rewriting the MAC reaches nobody behind a gateway.
        (self.path.forwarding != Forwarding::Direct || neighbour == self.address).then_some((port, neighbour))
    }

    /// As the workers need it. `mac` knows the neighbours; `lowered` is what the path takes, if that is less than the port.
    pub(crate) fn route(
        &self,
        ports: &[PortRoute],
        mac: impl Fn(IpAddr) -> Option<Mac>,
        lowered: Option<u16>,
    ) -> TargetRoute {
        let least = |port_mtu: u16| lowered.map_or(port_mtu, |lowered| lowered.min(port_mtu));
        let route = |via, next_hop, mtu, path_mtu| TargetRoute {
            address: self.address,
            via,
            next_hop,
            mtu,
            path_mtu,
            tells_mtu: self.path.path_mtu,
            clamps_mss: self.path.clamp_mss,
            away: false,
            silent: false,
            on_link: false,
        };
        if let Some(port) = ports.iter().find(|port| port.has(self.address)) {
            let hop = port.kernel.map(|kernel| NextHop { port: kernel, link: own_link(port) });
            return route(ForwardingAction::Local, hop, port.mtu, port.mtu);
        }
        let unreachable = || route(ForwardingAction::Direct, None, u16::MAX, u16::MAX);
        let Some((id, neighbour)) = self.neighbour(ports) else { return unreachable() };
        let Some(port) = ports.get(usize::from(id.0)) else { return unreachable() };
        let next_hop = mac(neighbour).map(|mac| NextHop { port: id, link: port.link_to(mac) });
        let Some(how) = encapsulation(self.path.forwarding) else {
            let via = match self.path.forwarding {
                Forwarding::Nat => ForwardingAction::Nat { port: self.path.target_port },
                _ => ForwardingAction::Direct,
            };
            return route(via, next_hop, port.mtu, least(port.mtu));
        };
        let Some(outer) = outer(port, self.address) else { return unreachable() };
        let overhead = how.overhead(self.address.is_ipv6());
        let path_mtu = least(port.mtu);
        let mtu = path_mtu.saturating_sub(u16::try_from(overhead).unwrap_or(u16::MAX));
        route(ForwardingAction::Tunnel { outer, how }, next_hop, mtu, path_mtu)
    }
}

fn encapsulation(forwarding: Forwarding) -> Option<Encapsulation> {
    match forwarding {
        Forwarding::Direct | Forwarding::Nat => None,
        Forwarding::Ipip => Some(Encapsulation::Ipip),
        Forwarding::Gre => Some(Encapsulation::Gre),
        Forwarding::Gue => Some(Encapsulation::Gue { port: GUE_PORT }),
    }
}

/// From the port to the target; `None` when the port has no address of the target's family.
fn outer(port: &PortRoute, target: IpAddr) -> Option<TunnelEndpoints> {
    Some(match target {
        IpAddr::V4(target) => TunnelEndpoints::V4 { source: port.address.to_bits(), destination: target.to_bits() },
        IpAddr::V6(target) => TunnelEndpoints::V6 { source: port.address6?.0.to_bits(), destination: target.to_bits() },
    })
}

/// To the kernel, whose interface has the port's MAC.
fn own_link(port: &PortRoute) -> vipa_packet::EthernetHeader {
    vipa_packet::EthernetHeader { source: port.mac.0, destination: port.mac.0, vlan: None }
}

impl Lists<'_> {
    fn find(&self, target: IpAddr, service: (Protocol, u16)) -> PathLookup {
        find_path(self.services, self.learned, target, service)
    }
}

/// Gives each way its `TargetId`, for as long as a list or a connection names it.
#[derive(Debug, Default)]
pub struct Paths {
    /// By `TargetId`; `None`: it stands for nothing now.
    ways: Vec<Option<TargetAndPath>>,
    ids: HashMap<TargetAndPath, TargetId>,
    /// With a port for each, by which it is looked up again.
    guesses: HashMap<Guess, (TargetId, u16)>,
    pub(crate) identifiers: Identifiers<TargetId>,
    /// Targets that have got an id since this was last read.
    new: Vec<IpAddr>,
    /// What the workers had counted for an id before it stood for its way.
    before: HashMap<TargetId, u64>,
    /// New connections by ids that stand for nothing now, of targets that are still known.
    past: BTreeMap<IpAddr, u64>,
    /// Counts the ways that have come and gone.
    revision: u64,
}

impl Paths {
    /// Another one once a way has come or gone.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The id of `way`, a new one if need be; `None` when all are given away.
    pub(crate) fn intern(&mut self, way: TargetAndPath) -> Option<TargetId> {
        if let Some(&id) = self.ids.get(&way) {
            self.identifiers.revive(id);
            return Some(id);
        }
        let id = self.push(way)?;
        self.ids.insert(way, id);
        Some(id)
    }

    fn push(&mut self, way: TargetAndPath) -> Option<TargetId> {
        let id = self.identifiers.take()?;
        let place = usize::from(id.0);
        if self.ways.len() <= place {
            self.ways.resize(place + 1, None);
        }
        self.ways[place] = Some(way);
        self.revision += 1;
        self.new.push(way.address);
        Some(id)
    }

    /// The targets that have got an id since this was last asked.
    pub(crate) fn take_new(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.new)
    }

    /// Retires the ids that no list names, those of guesses among them: who reports such a connection names it again. True if
    /// there are any that were not retired before.
    pub(crate) fn retire_all_but(&mut self, named: &HashSet<TargetAndPath>, snapshots: Versions) -> bool {
        let Self { ids, guesses, identifiers, .. } = self;
        let unnamed = ids.iter().filter(|(way, _)| !named.contains(way)).map(|(_, id)| *id);
        let unnamed = unnamed.chain(guesses.values().map(|(id, _)| *id));
        unnamed.filter(|id| identifiers.retire(*id, snapshots)).count() > 0
    }

    /// These stand for nothing from now on. `admitted`: the connections that the workers have counted for each; `is_known`:
    /// whether a target's connections are still counted.
    pub(crate) fn vacate(
        &mut self,
        gone: &HashSet<TargetId>,
        admitted: impl Fn(TargetId) -> u64,
        is_known: impl Fn(IpAddr) -> bool,
    ) {
        self.revision += 1;
        for id in gone {
            if let Some(way) = self.ways.get_mut(usize::from(id.0)).and_then(Option::take) {
                let before = self.before.remove(id).unwrap_or_default();
                *self.past.entry(way.address).or_default() += admitted(*id).saturating_sub(before);
            }
        }
        self.ids.retain(|_, id| !gone.contains(id));
        self.guesses.retain(|_, (id, _)| !gone.contains(id));
        let still: HashSet<IpAddr> = self.all().map(|(_, way)| way.address).collect();
        self.past.retain(|address, _| still.contains(address) || is_known(*address));
    }

    /// Whichever way this id will stand for, so many connections were another's.
    pub(crate) fn begin_count(&mut self, id: TargetId, admitted: u64) {
        self.before.insert(id, admitted);
    }

    /// New connections given to each target in this router's life, by what the workers have counted for each id.
    pub(crate) fn sent(&self, admitted: impl Fn(TargetId) -> u64) -> BTreeMap<IpAddr, u64> {
        let mut sent = self.past.clone();
        for (id, way) in self.all() {
            let before = self.before.get(&id).copied().unwrap_or_default();
            *sent.entry(way.address).or_default() += admitted(id).saturating_sub(before);
        }
        sent
    }

    /// How many of these ways have no id yet.
    pub(crate) fn missing(&self, ways: &HashSet<TargetAndPath>) -> usize {
        ways.iter().filter(|way| !self.ids.contains_key(way)).count()
    }

    /// The id of the way of connections to this port of a VIPA at `address`. Where nobody has said how that leads there, the id
    /// is a guess's, which [`revise`](Self::revise) puts right once somebody does.
    pub(crate) fn find(
        &mut self,
        vipa: VipaId,
        lists: Lists<'_>,
        address: IpAddr,
        (protocol, port): (Protocol, u16),
    ) -> Option<TargetId> {
        let path = match lists.find(address, (protocol, port)) {
            PathLookup::Known(path) => return self.intern(TargetAndPath { address, path }),
            PathLookup::Guessed(path) => path,
        };
        let has_port = |service: &&Service| service.protocol == protocol && service.ports.contains(port);
        let service = lists.services.iter().find(has_port).map(|service| (protocol, service.ports));
        let guess = Guess { vipa, address, service };
        if let Some(&(id, _)) = self.guesses.get(&guess) {
            self.identifiers.revive(id);
            return Some(id);
        }
        let id = self.push(TargetAndPath { address, path })?;
        self.guesses.insert(guess, (id, port));
        Some(id)
    }

    /// Looks the guesses of a VIPA up again, of which more is known now. Says whether any has changed.
    pub(crate) fn revise(&mut self, vipa: VipaId, lists: Lists<'_>) -> bool {
        let mut changed = false;
        for (guess, (id, port)) in self.guesses.iter().filter(|(guess, _)| guess.vipa == vipa) {
            let protocol = guess.service.map_or(Protocol::Tcp, |(protocol, _)| protocol);
            let path = lists.find(guess.address, (protocol, *port)).path();
            let Some(way) = &mut self.ways[usize::from(id.0)] else { continue };
            changed |= std::mem::replace(&mut way.path, path) != path;
        }
        changed
    }

    /// The ways that are guesses still.
    pub(crate) fn guessed(&self, vipa: VipaId, lists: Lists<'_>) -> HashSet<TargetId> {
        let unknown = |(guess, (_, port)): &(&Guess, &(TargetId, u16))| {
            let protocol = guess.service.map_or(Protocol::Tcp, |(protocol, _)| protocol);
            // Who opened a connection from the VIPA is reached as on the services' ports.
            guess.service.is_some() && matches!(lists.find(guess.address, (protocol, *port)), PathLookup::Guessed(_))
        };
        let of_vipa = self.guesses.iter().filter(|(guess, _)| guess.vipa == vipa);
        of_vipa.filter(unknown).map(|(_, (id, _))| *id).collect()
    }

    /// Whose way it is.
    pub(crate) fn address(&self, id: TargetId) -> Option<IpAddr> {
        self.ways.get(usize::from(id.0))?.map(|way| way.address)
    }

    /// Whose way each is, by `TargetId`: for who works beside the loop.
    pub(crate) fn addresses(&self) -> Vec<Option<IpAddr>> {
        self.ways.iter().map(|way| way.map(|way| way.address)).collect()
    }

    /// All ways that lead to `address`.
    pub(crate) fn to(&self, address: IpAddr) -> HashSet<TargetId> {
        self.all().filter(|(_, way)| way.address == address).map(|(id, _)| id).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (TargetId, &TargetAndPath)> {
        let places = (0..=u16::MAX).map(TargetId).zip(&self.ways);
        places.filter_map(|(id, way)| Some((id, way.as_ref()?)))
    }

    /// By `TargetId`; `None`: it stands for nothing now.
    pub(crate) fn by_id(&self) -> &[Option<TargetAndPath>] {
        &self.ways
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use vipa_model::{Balance, Choice, Delivery, Orphans, ServicePath, Sources};

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    impl Paths {
        /// The id by which the routes name it, if it has one; a guess of the same way has another.
        pub(crate) fn id_of(&self, way: &TargetAndPath) -> Option<TargetId> {
            self.ids.get(way).copied()
        }
    }

    fn port() -> PortRoute {
        PortRoute {
            gateway: Some(Ipv4Addr::new(198, 51, 100, 254)),
            address6: Some((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 64)),
            vlan: Some(7),
            kernel: Some(PortId(1)),
            ..PortRoute::new(Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(198, 51, 100, 1), 24)
        }
    }

    fn way(address: &str, forwarding: Forwarding) -> TargetAndPath {
        let address = address.parse().unwrap();
        TargetAndPath { address, path: path(forwarding) }
    }

    fn path(forwarding: Forwarding) -> Path {
        Delivery { forwarding, ..Delivery::default() }.path_to(Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn direct_reaches_the_network_alone_and_a_tunnel_what_lies_behind_the_gateway() {
        let far = "203.0.113.9";
        assert_eq!(way(far, Forwarding::Direct).neighbour(&[port()]), None);
        let gateway = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254));
        assert_eq!(way(far, Forwarding::Ipip).neighbour(&[port()]), Some((PortId(0), gateway)));
        let near = "198.51.100.9";
        assert_eq!(way(near, Forwarding::Direct).neighbour(&[port()]), Some((PortId(0), near.parse().unwrap())));
    }

    #[test]
    fn a_tunnel_leaves_room_for_its_headers() {
        for (address, forwarding, mtu) in [
            ("198.51.100.9", Forwarding::Ipip, 1480),
            ("198.51.100.9", Forwarding::Gre, 1476),
            ("198.51.100.9", Forwarding::Gue, 1468),
            ("2001:db8::9", Forwarding::Ipip, 1460),
            ("2001:db8::9", Forwarding::Gue, 1448),
        ] {
            let route = way(address, forwarding).route(&[port()], |_| Some(MAC), None);
            assert_eq!(route.mtu, mtu, "{address} {forwarding:?}");
            assert_eq!(route.path_mtu, 1500);
            assert_eq!(route.next_hop.unwrap().link.vlan, Some(7));
        }
    }

    #[test]
    fn a_path_that_takes_less_than_the_port_leaves_less_to_tunnels_and_to_nothing_else() {
        let routed = |forwarding, lowered| {
            let route = way("198.51.100.9", forwarding).route(&[port()], |_| Some(MAC), Some(lowered));
            (route.mtu, route.path_mtu)
        };
        assert_eq!(routed(Forwarding::Ipip, 1400), (1380, 1400));
        assert_eq!(routed(Forwarding::Gue, 1400), (1368, 1400));
        assert_eq!(routed(Forwarding::Gue, 9000), (1468, 1500));
        assert_eq!([Forwarding::Direct, Forwarding::Nat].map(|how| routed(how, 1400).0), [1500; 2]);
    }

    #[test]
    fn the_routers_own_address_leads_to_its_kernel_whatever_is_configured() {
        let route = way("198.51.100.1", Forwarding::Gre).route(&[port()], |_| None, None);
        assert_eq!((route.via, route.next_hop.unwrap().port), (ForwardingAction::Local, PortId(1)));
    }

    #[test]
    fn what_has_no_known_neighbour_or_no_address_to_come_from_is_not_reached() {
        assert_eq!(way("198.51.100.9", Forwarding::Direct).route(&[port()], |_| None, None).next_hop, None);
        let ipv4_only = PortRoute { address6: None, ..port() };
        assert_eq!(way("2001:db8::9", Forwarding::Ipip).route(&[ipv4_only], |_| Some(MAC), None).next_hop, None);
    }

    #[test]
    fn a_target_has_one_id_for_each_way_to_it() {
        let mut ways = Paths::default();
        let direct = ways.intern(way("198.51.100.9", Forwarding::Direct));
        let tunnel = ways.intern(way("198.51.100.9", Forwarding::Gue));
        assert_ne!(direct, tunnel);
        assert_eq!(ways.intern(way("198.51.100.9", Forwarding::Direct)), direct);
        assert_eq!(ways.address(tunnel.unwrap()), Some("198.51.100.9".parse().unwrap()));
    }

    const VIPA: VipaId = VipaId(3);
    const WEB: (Protocol, u16) = (Protocol::Tcp, 80);

    fn service(candidates: &[IpAddr]) -> Service {
        Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(80),
            delivery: Delivery::default(),
            balance: Balance::Maglev,
            choice: Choice::default(),
            orphans: Orphans::Reset,
            sources: Sources::default(),
            candidates: candidates.to_vec(),
        }
    }

    #[test]
    fn a_connection_at_a_target_that_the_own_list_leaves_out_goes_the_way_that_was_learned_of_it() {
        let (listed, other) = ("198.51.100.9".parse().unwrap(), "198.51.100.10".parse().unwrap());
        let services = [service(&[listed])];
        for forwarding in Forwarding::ALL {
            let learned = ServicePath { protocol: Protocol::Tcp, ports: PortRange::one(80), path: path(forwarding) };
            let lists = Lists { services: &services, learned: &[TargetPath { target: other, service: learned }] };
            let mut ways = Paths::default();
            let id = ways.find(VIPA, lists, other, WEB).unwrap();
            assert_eq!(
                ways.by_id()[usize::from(id.0)].unwrap(),
                TargetAndPath { address: other, path: path(forwarding) }
            );
            assert_eq!(ways.find(VIPA, lists, listed, WEB), ways.intern(way("198.51.100.9", Forwarding::Direct)));
            assert!(ways.guessed(VIPA, lists).is_empty());
        }
    }

    #[test]
    fn a_guess_is_put_right_when_somebody_says_how_the_target_is_reached_and_its_connections_with_it() {
        let (listed, other) = ("198.51.100.9".parse().unwrap(), "198.51.100.10".parse().unwrap());
        let services = [service(&[listed])];
        let nothing = Lists { services: &services, learned: &[] };
        let mut ways = Paths::default();
        let id = ways.find(VIPA, nothing, other, WEB).unwrap();
        assert_eq!(ways.find(VIPA, nothing, other, WEB), Some(id), "one for all connections of the service");
        assert_eq!(ways.by_id()[usize::from(id.0)].unwrap().path, path(Forwarding::Direct));
        assert_eq!(ways.guessed(VIPA, nothing), [id].into());
        let service = ServicePath { protocol: Protocol::Tcp, ports: PortRange::one(80), path: path(Forwarding::Gre) };
        let told = Lists { learned: &[TargetPath { target: other, service }], ..nothing };
        assert!(!ways.revise(VipaId(4), told), "another VIPA's");
        assert!(ways.revise(VIPA, told));
        assert!(!ways.revise(VIPA, told));
        assert_eq!(ways.by_id()[usize::from(id.0)].unwrap().path, path(Forwarding::Gre));
        assert_eq!((ways.address(id), ways.guessed(VIPA, told).len()), (Some(other), 0));
    }

    #[test]
    fn connections_that_a_target_opened_from_any_port_share_one_way() {
        let target = "198.51.100.9".parse().unwrap();
        let services = [service(&[target])];
        let lists = Lists { services: &services, learned: &[] };
        let mut ways = Paths::default();
        let ids: HashSet<_> =
            (40_000..50_000).map(|port| ways.find(VIPA, lists, target, (Protocol::Tcp, port))).collect();
        assert_eq!(ids.len(), 1);
        assert!(ways.guessed(VIPA, lists).is_empty());
    }
}
