//! How routers get packets to targets: a path belongs to a target and a service, not to one router's list.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Delivery, Forwarding, PortRange, Protocol, Service};

/// How packets of one service get to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    pub forwarding: Forwarding,
    /// The target's port, where `nat` changes it; the service then has one port.
    pub target_port: Option<u16>,
    /// See [`Delivery::path_mtu`].
    pub path_mtu: bool,
    /// See [`Delivery::clamp_mss`].
    pub clamp_mss: bool,
}

/// The path of a service's packets to the target whose path this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServicePath {
    pub protocol: Protocol,
    pub ports: PortRange,
    pub path: Path,
}

/// A service's path to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetPath {
    pub target: IpAddr,
    pub service: ServicePath,
}

/// What is known of the path to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathLookup {
    /// A list or a report names the target and the port.
    Known(Path),
    /// Nobody names the two together; this is the best guess.
    Guessed(Path),
}

impl PathLookup {
    #[must_use]
    pub fn path(self) -> Path {
        match self {
            Self::Known(path) | Self::Guessed(path) => path,
        }
    }
}

impl Delivery {
    /// The path to this candidate.
    #[must_use]
    pub fn path_to(&self, candidate: IpAddr) -> Path {
        let forwarding = self.forwarding_to(candidate);
        Path {
            forwarding,
            target_port: self.target_port.filter(|_| forwarding == Forwarding::Nat),
            path_mtu: self.path_mtu,
            clamp_mss: self.clamp_mss,
        }
    }
}

impl Service {
    /// The path to this target, if it is a candidate.
    #[must_use]
    pub fn path_to(&self, target: IpAddr) -> Option<ServicePath> {
        self.candidates.contains(&target).then(|| ServicePath {
            protocol: self.protocol,
            ports: self.ports,
            path: self.delivery.path_to(target),
        })
    }
}

impl ServicePath {
    /// Whether this is the path of packets to this port of the VIPA.
    #[must_use]
    pub fn covers(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && self.ports.contains(port)
    }

    /// Whether it is the path of every port that `other` is the path of.
    #[must_use]
    pub fn covers_all_of(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.ports.first <= other.ports.first && other.ports.last <= self.ports.last
    }
}

/// The path of a connection to this port of a VIPA at `target`, by this rule:
///
/// 1. a service of the router's own list that has the port and names the target;
/// 2. what was learned of the target and the port, the newest first (`learned` has the newest last);
/// 3. guesses, the best first: the target's path of another port of the VIPA (never `nat`, which is bound to its ports), then
///    the path that the service of the port has for targets that its list does not except, then direct return.
#[must_use]
pub fn find_path(
    services: &[Service],
    learned: &[TargetPath],
    target: IpAddr,
    (protocol, port): (Protocol, u16),
) -> PathLookup {
    let has_port = |service: &&Service| service.protocol == protocol && service.ports.contains(port);
    let heard = || learned.iter().rev().filter(|path| path.target == target).map(|path| path.service);
    let own = services.iter().filter(has_port).find_map(|service| service.path_to(target));
    if let Some(known) = own.or_else(|| heard().find(|known| known.covers(protocol, port))) {
        return PathLookup::Known(known.path);
    }
    let service = services.iter().find(has_port);
    let others = services.iter().filter_map(|service| service.path_to(target)).chain(heard());
    let beside = others.map(|known| known.path).find(|path| path.forwarding != Forwarding::Nat);
    let guess = beside.or_else(|| service.map(|service| service.delivery.path_to(target)));
    PathLookup::Guessed(guess.unwrap_or_else(|| Delivery::default().path_to(target)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{Balance, Choice, Orphans, Sources};

    const T1: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 21));
    const T2: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 22));
    const WEB: (Protocol, u16) = (Protocol::Tcp, 80);

    fn path(forwarding: Forwarding) -> Path {
        Delivery { forwarding, ..Delivery::default() }.path_to(T1)
    }

    fn learned(target: IpAddr, ports: PortRange, forwarding: Forwarding) -> TargetPath {
        TargetPath { target, service: ServicePath { protocol: Protocol::Tcp, ports, path: path(forwarding) } }
    }

    fn service(port: u16, forwarding: Forwarding, candidates: &[IpAddr]) -> Service {
        Service {
            protocol: Protocol::Tcp,
            ports: PortRange::one(port),
            delivery: Delivery { forwarding, ..Delivery::default() },
            balance: Balance::Maglev,
            choice: Choice::default(),
            orphans: Orphans::Reset,
            sources: Sources::default(),
            candidates: candidates.to_vec(),
        }
    }

    #[test]
    fn an_own_list_that_names_the_target_counts_more_than_what_was_learned() {
        let services = [service(80, Forwarding::Gre, &[T1])];
        let learned = [learned(T1, PortRange::one(80), Forwarding::Ipip)];
        assert_eq!(find_path(&services, &learned, T1, WEB), PathLookup::Known(path(Forwarding::Gre)));
    }

    #[test]
    fn an_own_list_without_the_target_leaves_it_to_what_was_learned_last() {
        let services = [service(80, Forwarding::Direct, &[T2])];
        let learned = [
            learned(T1, PortRange::ALL, Forwarding::Ipip),
            learned(T1, PortRange::one(80), Forwarding::Gue),
            learned(T2, PortRange::one(80), Forwarding::Gre),
        ];
        assert_eq!(find_path(&services, &learned, T1, WEB), PathLookup::Known(path(Forwarding::Gue)));
        assert_eq!(find_path(&services, &learned, T1, (Protocol::Tcp, 81)), PathLookup::Known(path(Forwarding::Ipip)));
    }

    #[test]
    fn where_nobody_names_target_and_port_together_the_target_is_reached_as_on_its_other_ports() {
        let services = [service(80, Forwarding::Direct, &[T2]), service(443, Forwarding::Gue, &[T1])];
        assert_eq!(find_path(&services, &[], T1, WEB), PathLookup::Guessed(path(Forwarding::Gue)));
        assert_eq!(find_path(&services, &[], T1, (Protocol::Tcp, 40_000)), PathLookup::Guessed(path(Forwarding::Gue)));
        let services = [service(80, Forwarding::Gre, &[T2]), service(443, Forwarding::Nat, &[T1])];
        assert_eq!(find_path(&services, &[], T1, WEB), PathLookup::Guessed(path(Forwarding::Gre)));
        assert_eq!(find_path(&[], &[], T1, WEB), PathLookup::Guessed(path(Forwarding::Direct)));
    }
}
