//! The ways to targets: each has a `TargetId`, which the connection table keeps for every connection.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use vipa_handoff::{NextHop, PortRoute, TargetRoute, Via, WAYS, next_neighbour};
use vipa_model::{Delivery, Forwarding, Mac, PortId, Protocol, Service, TargetId};
use vipa_packet::{Encapsulation, Outer};

/// Ways a router tells apart in its life; a `TargetId` is never given twice.
pub(crate) const MAX_WAYS: usize = WAYS;
/// Where GUE is expected: what IANA has assigned to it.
const GUE_PORT: u16 = 6080;

/// A target and how packets get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub(crate) address: IpAddr,
    pub(crate) forwarding: Forwarding,
    pub(crate) target_port: Option<u16>,
    path_mtu: bool,
    clamp_mss: bool,
}

impl Way {
    pub(crate) fn new(address: IpAddr, delivery: &Delivery) -> Self {
        let forwarding = delivery.forwarding_to(address);
        Self {
            address,
            forwarding,
            target_port: delivery.target_port.filter(|_| forwarding == Forwarding::Nat),
            path_mtu: delivery.path_mtu,
            clamp_mss: delivery.clamp_mss,
        }
    }

    /// The way of connections to this port of a VIPA that has these services. A target may hold connections to a port
    /// that no service names any more.
    pub(crate) fn of(address: IpAddr, services: &[Service], (protocol, port): (Protocol, u16)) -> Self {
        let service = services.iter().find(|service| service.protocol == protocol && service.ports.contains(port));
        match service {
            Some(service) => Self::new(address, &service.delivery),
            None => Self::new(address, &Delivery::default()),
        }
    }

    /// The port it leads out of, and the neighbour there whose MAC must be known.
    pub(crate) fn neighbour(&self, ports: &[PortRoute]) -> Option<(PortId, IpAddr)> {
        let (port, neighbour) = next_neighbour(ports, self.address)?;
        // Rewriting the MAC reaches nobody behind a gateway.
        (self.forwarding != Forwarding::Direct || neighbour == self.address).then_some((port, neighbour))
    }

    /// As the workers need it. `mac` knows the neighbours.
    pub(crate) fn route(&self, ports: &[PortRoute], mac: impl Fn(IpAddr) -> Option<Mac>) -> TargetRoute {
        let route = |via, next_hop, mtu| TargetRoute {
            address: self.address,
            via,
            next_hop,
            mtu,
            tells_mtu: self.path_mtu,
            clamps_mss: self.clamp_mss,
            away: false,
            silent: false,
        };
        if let Some(port) = ports.iter().find(|port| port.has(self.address)) {
            let hop = port.kernel.map(|kernel| NextHop { port: kernel, link: own_link(port) });
            return route(Via::Local, hop, port.mtu);
        }
        let unreachable = || route(Via::Direct, None, u16::MAX);
        let Some((id, neighbour)) = self.neighbour(ports) else { return unreachable() };
        let Some(port) = ports.get(usize::from(id.0)) else { return unreachable() };
        let next_hop = mac(neighbour).map(|mac| NextHop { port: id, link: port.link_to(mac) });
        let Some(how) = encapsulation(self.forwarding) else {
            let via = match self.forwarding {
                Forwarding::Nat => Via::Nat { port: self.target_port },
                _ => Via::Direct,
            };
            return route(via, next_hop, port.mtu);
        };
        let Some(outer) = outer(port, self.address) else { return unreachable() };
        let overhead = how.overhead(self.address.is_ipv6());
        let mtu = port.mtu.saturating_sub(u16::try_from(overhead).unwrap_or(u16::MAX));
        route(Via::Tunnel { outer, how }, next_hop, mtu)
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
fn outer(port: &PortRoute, target: IpAddr) -> Option<Outer> {
    Some(match target {
        IpAddr::V4(target) => Outer::V4 { source: port.address.to_bits(), destination: target.to_bits() },
        IpAddr::V6(target) => Outer::V6 { source: port.address6?.0.to_bits(), destination: target.to_bits() },
    })
}

/// To the kernel, whose interface has the port's MAC.
fn own_link(port: &PortRoute) -> vipa_packet::Link {
    vipa_packet::Link { source: port.mac.0, destination: port.mac.0, vlan: None }
}

/// Gives each way its `TargetId`, once and for the life of the process.
#[derive(Debug, Default)]
pub struct Ways {
    ways: Vec<Way>,
    ids: HashMap<Way, TargetId>,
}

impl Ways {
    /// The id of `way`, a new one if need be; `None` when all are given away.
    pub(crate) fn intern(&mut self, way: Way) -> Option<TargetId> {
        if let Some(&id) = self.ids.get(&way) {
            return Some(id);
        }
        if self.ways.len() == MAX_WAYS {
            return None;
        }
        let id = TargetId(u16::try_from(self.ways.len()).expect("MAX_WAYS fits 16 bits"));
        self.ways.push(way);
        self.ids.insert(way, id);
        Some(id)
    }

    /// Whose way it is.
    pub(crate) fn address(&self, id: TargetId) -> Option<IpAddr> {
        self.ways.get(usize::from(id.0)).map(|way| way.address)
    }

    /// Whose way each is, by `TargetId`: for who works beside the loop.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.ways.iter().map(|way| way.address).collect()
    }

    /// All ways that lead to `address`.
    pub(crate) fn to(&self, address: IpAddr) -> HashSet<TargetId> {
        let leads = |(way, _): &(&Way, &TargetId)| way.address == address;
        self.ids.iter().filter(leads).map(|(_, id)| *id).collect()
    }

    pub(crate) fn all(&self) -> &[Way] {
        &self.ways
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn port() -> PortRoute {
        PortRoute {
            gateway: Some(Ipv4Addr::new(198, 51, 100, 254)),
            address6: Some((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 64)),
            vlan: Some(7),
            kernel: Some(PortId(1)),
            ..PortRoute::new(Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(198, 51, 100, 1), 24)
        }
    }

    fn way(address: &str, forwarding: Forwarding) -> Way {
        Way::new(address.parse().unwrap(), &Delivery { forwarding, ..Delivery::default() })
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
            let route = way(address, forwarding).route(&[port()], |_| Some(MAC));
            assert_eq!(route.mtu, mtu, "{address} {forwarding:?}");
            assert_eq!(route.next_hop.unwrap().link.vlan, Some(7));
        }
    }

    #[test]
    fn the_routers_own_address_leads_to_its_kernel_whatever_is_configured() {
        let route = way("198.51.100.1", Forwarding::Gre).route(&[port()], |_| None);
        assert_eq!((route.via, route.next_hop.unwrap().port), (Via::Local, PortId(1)));
    }

    #[test]
    fn what_has_no_known_neighbour_or_no_address_to_come_from_is_not_reached() {
        assert_eq!(way("198.51.100.9", Forwarding::Direct).route(&[port()], |_| None).next_hop, None);
        let ipv4_only = PortRoute { address6: None, ..port() };
        assert_eq!(way("2001:db8::9", Forwarding::Ipip).route(&[ipv4_only], |_| Some(MAC)).next_hop, None);
    }

    #[test]
    fn a_target_has_one_id_for_each_way_to_it() {
        let mut ways = Ways::default();
        let direct = ways.intern(way("198.51.100.9", Forwarding::Direct));
        let tunnel = ways.intern(way("198.51.100.9", Forwarding::Gue));
        assert_ne!(direct, tunnel);
        assert_eq!(ways.intern(way("198.51.100.9", Forwarding::Direct)), direct);
        assert_eq!(ways.address(tunnel.unwrap()), Some("198.51.100.9".parse().unwrap()));
    }
}
