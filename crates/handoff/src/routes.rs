//! Forwarding state of the workers: immutable, replaced whole.

mod index;
mod l2_rewrite;
mod returns;
mod sources;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use vipa_balance::{ClusterKey, Picker};
use vipa_model::{Epoch, Mac, Moment, Orphans, PortId, PortRange, Protocol, Stance, TargetId, Unserved, VipaId};
use vipa_packet::{Encapsulation, EthernetHeader, TunnelEndpoints};
use vipa_sync::{Counter, Deadline};

use crate::Capture;

use index::Index;
pub use l2_rewrite::{L2Rewrite, Rewrite, RewriteAction};
pub use returns::ReturnRoute;
pub use sources::SourceRule;

/// One snapshot, used for a whole burst. `PortId`, `VipaId` and `TargetId` are indexes of its lists.
#[derive(Debug)]
pub struct Routes {
    /// Number of this snapshot in this process.
    pub generation: u64,
    pub key: ClusterKey,
    pub ports: Vec<PortRoute>,
    pub vipas: Vec<VipaRoute>,
    pub targets: Vec<TargetRoute>,
    /// Whether any VIPA is being rebuilt.
    pub is_rebuilding: bool,
    /// The packets that an operator captures; nearly always `None`. Workers read it in their housekeeping.
    pub capture: Option<Arc<Capture>>,
    /// Hosts on a port's own network that are no targets and have been resolved: gateways, and clients of `nat`.
    neighbours: HashMap<IpAddr, (PortId, Mac)>,
    vipa_index: Index<u32>,
    vipa_index6: Index<u128>,
    target_index: Index<u32>,
    target_index6: Index<u128>,
    /// By index: packets that may return from one address.
    returns: Vec<Vec<ReturnRoute>>,
    return_index: Index<u32>,
    return_index6: Index<u128>,
    /// The paths to this router's own kernel.
    own: Vec<TargetId>,
    /// By `TargetId`.
    l2_rewrites: Vec<L2Rewrite>,
    /// By `TargetId`.
    rewrites: Vec<Option<Box<Rewrite>>>,
    /// To the neighbours, and to the gateways of hosts on no port's network.
    near: HashMap<IpAddr, L2Rewrite>,
    beyond: L2Rewrite,
    beyond6: L2Rewrite,
}

/// The lists from which [`Routes::build`] makes a snapshot.
#[derive(Default)]
pub struct RouteLists {
    pub ports: Vec<PortRoute>,
    pub vipas: Vec<VipaRoute>,
    pub targets: Vec<TargetRoute>,
    pub neighbours: HashMap<IpAddr, (PortId, Mac)>,
    /// By the targets' own addresses.
    pub returns: BTreeMap<IpAddr, Vec<ReturnRoute>>,
    pub capture: Option<Arc<Capture>>,
}

/// A port of this router, with its addresses and networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRoute {
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub prefix_length: u8,
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 address and its network's prefix length.
    pub address6: Option<(Ipv6Addr, u8)>,
    pub gateway6: Option<Ipv6Addr>,
    /// The VLAN tag of all its frames.
    pub vlan: Option<u16>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// The kernel interface that gets packets for no VIPA, and whose packets leave by this port.
    pub kernel: Option<PortId>,
}

/// A VIPA: this router's role for it, and its services.
pub struct VipaRoute {
    pub address: IpAddr,
    pub stance: Stance,
    /// When it has passed, nothing new is admitted and ARP is not answered. Workers read it once for each burst.
    pub lease: Arc<Deadline>,
    /// By protocol and first port; disjoint.
    pub services: Arc<[ServiceRoute]>,
    /// Until then packets of unknown connections are held although the table is complete: a target's late report may
    /// still name them.
    pub quiet_until: Moment,
    /// Until then a SYN may be one that has reached another router before, so new connections are placed by hash alone.
    pub by_hash_until: Moment,
    /// Limit on new connections a second, of all workers together.
    pub new_per_second: Option<u32>,
    pub unserved: Unserved,
}

/// A range of ports of a VIPA with the same targets.
#[derive(Clone, Debug)]
pub struct ServiceRoute {
    pub protocol: Protocol,
    pub ports: PortRange,
    pub picker: Picker,
    /// Targets that get no new connections and keep the UDP flows that they have; nearly always none.
    pub draining: Arc<[TargetId]>,
    /// Turns that all workers have taken, where the service balances by turns.
    pub turns: Arc<Counter>,
    pub orphans: Orphans,
    /// `None`: every client is admitted.
    pub sources: Option<Arc<SourceRule>>,
}

/// A path to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRoute {
    /// The target's own address.
    pub address: IpAddr,
    pub via: ForwardingAction,
    /// `None` until the neighbour on the path has been resolved.
    pub next_hop: Option<NextHop>,
    /// Largest packet of a client that fits the path, bytes of IP.
    pub mtu: u16,
    /// Largest packet that the path to the target takes, bytes of IP, outer headers included.
    pub path_mtu: u16,
    /// Whether the sender of a larger packet gets an ICMP error.
    pub tells_mtu: bool,
    pub clamps_mss: bool,
    /// Its agent has been away for so long that its reports count no more.
    pub away: bool,
    /// The neighbour on the path has left several questions in a row unanswered.
    pub silent: bool,
    /// That neighbour is the target itself, so that its answers show that the target's kernel runs.
    pub on_link: bool,
}

/// What is done to a packet on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingAction {
    /// Only the MACs are rewritten.
    Direct,
    Tunnel {
        outer: TunnelEndpoints,
        how: Encapsulation,
    },
    /// The destination becomes the target's address and, if there is one, this port.
    Nat {
        port: Option<u16>,
    },
    /// Sent to the kernel of this router.
    Local,
}

/// The port by which a packet leaves, and its Ethernet header there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub port: PortId,
    pub link: EthernetHeader,
}

/// How to reach an address that is no target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    Known(NextHop),
    /// This neighbour must be resolved first.
    Unknown(PortId, IpAddr),
    /// No port leads there.
    None,
}

impl Routes {
    /// Sorts each VIPA's services. Of several VIPAs or targets with one address, lookups find the first one.
    ///
    /// # Panics
    /// With more than 65,535 VIPAs or targets, which their ids cannot name.
    #[must_use]
    pub fn build(generation: u64, key: ClusterKey, lists: RouteLists) -> Self {
        let RouteLists { ports, mut vipas, targets, neighbours, returns, capture } = lists;
        for vipa in &mut vipas {
            let place = |service: &ServiceRoute| (service.protocol, service.ports.first);
            // Most are those of the previous snapshot, which has sorted them.
            if !vipa.services.is_sorted_by_key(place) {
                let mut services = vipa.services.to_vec();
                services.sort_by_key(place);
                vipa.services = services.into();
            }
        }
        let (vipa_index, vipa_index6) = index(vipas.iter().map(|vipa| vipa.address));
        let (target_index, target_index6) = index(targets.iter().map(|target| target.address));
        let (return_index, return_index6) = index(returns.keys().copied());
        let returns = returns.into_values().collect();
        let own = (0..=u16::MAX)
            .map(TargetId)
            .zip(&targets)
            .filter(|(_, way)| way.via == ForwardingAction::Local)
            .map(|(id, _)| id);
        let own = own.collect();
        let l2_rewrites = targets.iter().map(TargetRoute::l2_rewrite).collect();
        let rewrites = targets.iter().map(|target| target.rewrite().map(Box::new)).collect();
        let mut routes = Self {
            generation,
            key,
            ports,
            capture,
            is_rebuilding: vipas.iter().any(|vipa| vipa.stance == Stance::Rebuilding),
            vipas,
            targets,
            neighbours,
            vipa_index,
            vipa_index6,
            target_index,
            target_index6,
            returns,
            return_index,
            return_index6,
            own,
            l2_rewrites,
            rewrites,
            near: HashMap::new(),
            beyond: L2Rewrite::NONE,
            beyond6: L2Rewrite::NONE,
        };
        routes.near =
            routes.neighbours.keys().map(|address| (*address, routes.l2_rewrite_by(routes.hop(*address)))).collect();
        let beyond = |family| routes.l2_rewrite_by(routes.hop_by(gateway(&routes.ports, family)));
        (routes.beyond, routes.beyond6) = (beyond(Ipv4Addr::UNSPECIFIED.into()), beyond(Ipv6Addr::UNSPECIFIED.into()));
        routes
    }

    /// Routes before anything is known.
    #[must_use]
    pub fn empty(key: ClusterKey) -> Self {
        Self::build(0, key, RouteLists::default())
    }

    /// The VIPA with this IPv4 address (in numeric order).
    #[inline]
    #[must_use]
    pub fn find_vipa(&self, address: u32) -> Option<VipaId> {
        self.vipa_index.find(address).map(VipaId)
    }

    /// The VIPA with this IPv6 address (in numeric order).
    #[inline]
    #[must_use]
    pub fn find_vipa6(&self, address: u128) -> Option<VipaId> {
        self.vipa_index6.find(address).map(VipaId)
    }

    /// Whether a target has this address.
    #[must_use]
    pub fn is_target(&self, address: IpAddr) -> bool {
        self.find_target(address).is_some()
    }

    /// The first path to the target that has this address.
    #[must_use]
    pub fn find_target(&self, address: IpAddr) -> Option<&TargetRoute> {
        let place = match address {
            IpAddr::V4(address) => self.target_index.find(address.to_bits()),
            IpAddr::V6(address) => self.target_index6.find(address.to_bits()),
        };
        self.targets.get(usize::from(place?))
    }

    /// Packets that may return from this address of a target; nearly always none.
    #[inline]
    #[must_use]
    pub fn returns(&self, address: u32) -> &[ReturnRoute] {
        self.return_index.find(address).map_or(&[], |place| &self.returns[usize::from(place)])
    }

    /// As [`returns`](Self::returns), for IPv6.
    #[inline]
    #[must_use]
    pub fn returns6(&self, address: u128) -> &[ReturnRoute] {
        self.return_index6.find(address).map_or(&[], |place| &self.returns[usize::from(place)])
    }

    #[inline]
    #[must_use]
    pub fn vipa(&self, id: VipaId) -> Option<&VipaRoute> {
        self.vipas.get(usize::from(id.0))
    }

    #[inline]
    #[must_use]
    pub fn target(&self, id: TargetId) -> Option<&TargetRoute> {
        self.targets.get(usize::from(id.0))
    }

    /// Rewrite of an untagged frame of `length` bytes to a target, if only its MACs have to change.
    #[inline(always)]
    #[must_use]
    pub fn l2_rewrite(&self, id: TargetId, length: usize) -> Option<&L2Rewrite> {
        self.l2_rewrites.get(usize::from(id.0)).filter(|rewrite| rewrite.takes(length))
    }

    /// Rewrite of packets to a target that is resolved, where more than the frame's MACs changes.
    #[inline(always)]
    #[must_use]
    pub fn rewrite(&self, id: TargetId) -> Option<&Rewrite> {
        self.rewrites.get(usize::from(id.0))?.as_deref()
    }

    /// The paths to this router's own kernel: it may be a target itself. Nearly always none.
    #[must_use]
    pub fn own(&self) -> &[TargetId] {
        &self.own
    }

    /// Whether this router is a hop on the path to a target: it has routed an encapsulated or translated packet, but
    /// not a packet that only gets another MAC.
    #[must_use]
    pub fn counts_hop(&self, id: TargetId) -> bool {
        self.target(id).is_some_and(TargetRoute::counts_hop)
    }

    /// Whether a target's agent has been away for long.
    #[must_use]
    pub fn is_away(&self, id: TargetId) -> bool {
        self.target(id).is_some_and(|target| target.away)
    }

    /// Whether the neighbour on the path to a target does not answer.
    #[must_use]
    pub fn is_silent(&self, id: TargetId) -> bool {
        self.target(id).is_some_and(|target| target.silent)
    }

    /// Whether a target's kernel runs as far as neighbour resolution shows: the target is on the link and answers
    /// there.
    #[must_use]
    pub fn is_answering(&self, id: TargetId) -> bool {
        self.target(id)
            .is_some_and(|target| target.on_link && target.next_hop.is_some() && !target.silent && !target.away)
    }

    #[inline]
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&PortRoute> {
        self.ports.get(usize::from(id.0))
    }

    /// The port whose kernel interface `id` is.
    #[must_use]
    pub fn port_of_kernel(&self, id: PortId) -> Option<PortId> {
        let port = self.ports.iter().position(|port| port.kernel == Some(id))?;
        u16::try_from(port).ok().map(PortId)
    }

    /// Whether this is a port's own address.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.ports.iter().any(|port| port.has(address) || address == port.link_local())
    }

    /// How to reach a host that is no target.
    #[must_use]
    pub fn hop(&self, address: IpAddr) -> Hop {
        self.hop_by(next_neighbour(&self.ports, address))
    }

    fn hop_by(&self, neighbour: Option<(PortId, IpAddr)>) -> Hop {
        let Some((id, neighbour)) = neighbour else { return Hop::None };
        match (self.neighbours.get(&neighbour), self.port(id)) {
            (Some(&(on, mac)), Some(port)) if on == id => Hop::Known(NextHop { port: id, link: port.link_to(mac) }),
            _ => Hop::Unknown(id, neighbour),
        }
    }

    /// Rewrite of an untagged frame of `length` bytes to a host that is no target, if only its MACs have to change.
    #[inline(always)]
    #[must_use]
    pub fn l2_rewrite_to(&self, host: IpAddr, length: usize) -> Option<&L2Rewrite> {
        let rewrite = match host {
            _ if on_link(&self.ports, host).is_some() => self.near.get(&host)?,
            IpAddr::V4(_) => &self.beyond,
            IpAddr::V6(_) => &self.beyond6,
        };
        rewrite.takes(length).then_some(rewrite)
    }

    fn l2_rewrite_by(&self, hop: Hop) -> L2Rewrite {
        match hop {
            Hop::Known(hop) => L2Rewrite::new(&hop, self.port(hop.port).map_or(u16::MAX, |port| port.mtu)),
            Hop::Unknown(..) | Hop::None => L2Rewrite::NONE,
        }
    }
}

/// The port towards `address`, and the neighbour there: the address itself on the port's network, else the gateway.
#[must_use]
pub fn next_neighbour(ports: &[PortRoute], address: IpAddr) -> Option<(PortId, IpAddr)> {
    match on_link(ports, address) {
        Some(id) => Some((id, address)),
        None => gateway(ports, address),
    }
}

/// The port on whose network `address` is.
#[inline(always)]
fn on_link(ports: &[PortRoute], address: IpAddr) -> Option<PortId> {
    let port = match address {
        IpAddr::V4(address) => ports.iter().position(|port| port.is_on_link4(address)),
        IpAddr::V6(address) => ports.iter().position(|port| port.is_on_link6(address)),
    };
    u16::try_from(port?).ok().map(PortId)
}

/// Port and gateway for addresses of this family that are on no port's network.
fn gateway(ports: &[PortRoute], address: IpAddr) -> Option<(PortId, IpAddr)> {
    (0..=u16::MAX).map(PortId).zip(ports).find_map(|(id, port)| {
        let gateway = match address {
            IpAddr::V4(_) => port.gateway.map(IpAddr::V4),
            IpAddr::V6(_) => port.gateway6.map(IpAddr::V6),
        };
        Some((id, gateway?))
    })
}

impl TargetRoute {
    /// As [`Routes::counts_hop`].
    #[must_use]
    pub fn counts_hop(&self) -> bool {
        match self.via {
            ForwardingAction::Tunnel { .. } | ForwardingAction::Nat { .. } => true,
            ForwardingAction::Direct | ForwardingAction::Local => false,
        }
    }

    /// A path by which nothing is sent: no target has this index.
    #[must_use]
    pub fn nowhere() -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED.into(),
            via: ForwardingAction::Direct,
            next_hop: None,
            mtu: u16::MAX,
            path_mtu: u16::MAX,
            tells_mtu: false,
            clamps_mss: false,
            away: false,
            on_link: false,
            silent: false,
        }
    }

    /// A target of direct return, resolved already.
    #[must_use]
    pub fn direct(address: impl Into<IpAddr>, (id, port): (PortId, &PortRoute), mac: Mac) -> Self {
        Self {
            address: address.into(),
            via: ForwardingAction::Direct,
            next_hop: Some(NextHop { port: id, link: port.link_to(mac) }),
            mtu: port.mtu,
            path_mtu: port.mtu,
            tells_mtu: true,
            clamps_mss: true,
            away: false,
            silent: false,
            on_link: true,
        }
    }
}

impl PortRoute {
    /// A port with an IPv4 network and nothing else, with Ethernet's ordinary MTU.
    #[must_use]
    pub fn new(mac: Mac, address: Ipv4Addr, prefix_length: u8) -> Self {
        Self {
            mac,
            address,
            prefix_length,
            gateway: None,
            address6: None,
            gateway6: None,
            vlan: None,
            mtu: 1500,
            kernel: None,
        }
    }

    /// Whether `address` is on this port's own network.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.is_on_link4(address),
            IpAddr::V6(address) => self.is_on_link6(address),
        }
    }

    #[inline(always)]
    fn is_on_link4(&self, address: Ipv4Addr) -> bool {
        let differing = self.address.to_bits() ^ address.to_bits();
        differing.checked_shr(32 - u32::from(self.prefix_length)).unwrap_or(0) == 0
    }

    #[inline(always)]
    fn is_on_link6(&self, address: Ipv6Addr) -> bool {
        self.address6.is_some_and(|(own, length)| {
            let differing = own.to_bits() ^ address.to_bits();
            differing.checked_shr(128 - u32::from(length)).unwrap_or(0) == 0
        })
    }

    /// The Ethernet header of a frame from this port to `mac`.
    #[must_use]
    pub fn link_to(&self, mac: Mac) -> EthernetHeader {
        EthernetHeader { source: self.mac.0, destination: mac.0, vlan: self.vlan }
    }

    /// Whether this is the port's configured address, of either family.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.address == address,
            IpAddr::V6(address) => self.address6.is_some_and(|(own, _)| own == address),
        }
    }

    /// The port's link-local IPv6 address, made from its MAC (RFC 4291 appendix A).
    #[must_use]
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The source address of its neighbour solicitations.
    #[must_use]
    pub fn source6(&self) -> Ipv6Addr {
        self.address6.map_or_else(|| self.link_local(), |(address, _)| address)
    }
}

impl VipaRoute {
    /// Until when a SYN may be one that has reached another router before; the first owner of all has no predecessor.
    #[must_use]
    pub fn by_hash_until(epoch: Epoch, stance: Stance, quiet_until: Moment) -> Moment {
        /// A SYN is sent again after one and after three seconds (RFC 6298 §2, §5.5).
        const SENT_AGAIN: Duration = Duration::from_secs(4);
        match stance {
            _ if epoch <= Epoch(1) => Moment::ZERO,
            Stance::Rebuilding => Moment(u64::MAX),
            Stance::Standby | Stance::Active | Stance::Yielding => quiet_until + SENT_AGAIN,
        }
    }

    /// The service that a port belongs to.
    #[inline]
    #[must_use]
    pub fn find_service(&self, protocol: Protocol, port: u16) -> Option<&ServiceRoute> {
        let after =
            self.services.partition_point(|service| (service.protocol, service.ports.first) <= (protocol, port));
        let service = self.services[..after].last()?;
        (service.protocol == protocol && service.ports.contains(port)).then_some(service)
    }
}

impl fmt::Debug for VipaRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, stance, lease, services, quiet_until, by_hash_until, new_per_second, unserved } = self;
        f.debug_struct("VipaRoute")
            .field("address", address)
            .field("stance", stance)
            .field("lease", &lease.get())
            .field("services", services)
            .field("quiet_until", quiet_until)
            .field("by_hash_until", by_hash_until)
            .field("new_per_second", new_per_second)
            .field("unserved", unserved)
            .finish()
    }
}

/// Indexes of a list by address, for each family.
fn index(addresses: impl ExactSizeIterator<Item = IpAddr>) -> (Index<u32>, Index<u128>) {
    assert!(addresses.len() < usize::from(u16::MAX), "{} addresses are more than an id can name", addresses.len());
    let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
    for (id, address) in (0..u16::MAX).zip(addresses) {
        match address {
            IpAddr::V4(address) => ipv4.push((address.to_bits(), id)),
            IpAddr::V6(address) => ipv6.push((address.to_bits(), id)),
        }
    }
    (Index::build(&ipv4), Index::build(&ipv6))
}

#[cfg(test)]
mod tests;
