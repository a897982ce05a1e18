//! The little world that is measured: one VIPA, sixteen targets, as many clients as wanted, and their packets.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use vipa_balance::{Candidate, ClusterKey, Picker};
use vipa_flow::{Capacity, Confirmed, FlowState, FlowTable, HashSeed, Key4, Key6, Tick};
use vipa_handoff::{Flows, ForwardingAction, PortRoute, RouteLists, Routes, ServiceRoute, TargetRoute, VipaRoute};
use vipa_model::{Balance, Mac, Moment, Orphans, PortId, PortRange, Protocol, Stance, TargetId, Unserved, VipaId};
use vipa_packet::{
    Encapsulation, HeapPacket, PacketBuf, TcpFlags, TunnelEndpoints,
    build::{Builder, packet},
};
use vipa_sync::Deadline;

pub(crate) const VIPA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIPA6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 10);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// What clients' frames are addressed to. The port that plays the network may have any other.
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const PORT: u16 = 80;
pub(crate) const TARGETS: u16 = 16;
const GUE_PORT: u16 = 6080;

/// Where a frame of IPv4 has its source address and port.
pub(crate) const SOURCE_ADDRESS: usize = 26;
pub(crate) const SOURCE_PORT: usize = 34;

/// How packets get to targets.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum ForwardingKind {
    Direct,
    Ipip,
    Gre,
    Gue,
    Nat,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

/// What kind of packets, and what is done to them.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct World {
    pub(crate) family: Family,
    pub(crate) way: ForwardingKind,
}

/// The `n`-th IPv4 client's address and port; 268 million differ. What one half of the address gains the other loses, so
/// that every client's IP header has the same checksum and a generator need not compute it.
pub(crate) fn client(n: u64) -> (u32, u16) {
    let step = (n >> 14) as u32 & 0x3fff;
    ((0x1400 + step) << 16 | (0x6000 - step), 1024 + (n & 0x3fff) as u16)
}

fn client6(n: u64) -> (u128, u16) {
    let network = u128::from_be_bytes([0x20, 0x01, 0x0d, 0xb8, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    (network | u128::from(n >> 14), 1024 + (n & 0x3fff) as u16)
}

impl World {
    /// A frame of the `n`-th client, as short as Ethernet and its headers allow.
    pub(crate) fn frame(self, n: u64, flags: TcpFlags) -> HeapPacket {
        let link: Builder = packet().macs(CLIENT_MAC, ROUTER_MAC);
        match self.family {
            Family::Ipv4 => {
                let (address, port) = client(n);
                link.ipv4(address, VIPA).tcp(port, PORT).flags(flags).payload([0; 10]).build()
            }
            Family::Ipv6 => {
                let (address, port) = client6(n);
                link.ipv6(address, VIPA6).tcp(port, PORT).flags(flags).build()
            }
        }
    }

    /// Writes a capture with a frame of each of the first `clients` clients.
    pub(crate) fn write_capture(self, path: &Path, clients: u64, flags: TcpFlags) -> anyhow::Result<()> {
        const ETHERNET: u32 = 1;
        let mut file = Vec::new();
        // Magic number, version 2.4, no time zone, no accuracy, longest frame.
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, ETHERNET] {
            file.extend_from_slice(&u32::to_le_bytes(word));
        }
        for n in 0..clients {
            let frame = self.frame(n, flags);
            let length = u32::try_from(frame.bytes().len())?;
            for word in [0, 0, length, length] {
                file.extend_from_slice(&u32::to_le_bytes(word));
            }
            file.extend_from_slice(frame.bytes());
        }
        fs::write(path, file).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What workers are told: the VIPA is ours for good, and every target's neighbour is known, on the last of `ports`.
    pub(crate) fn routes(self, ports: u16) -> Routes {
        let key = ClusterKey::new([7; 16]);
        let port =
            PortRoute { address6: Some((ROUTER6, 64)), mtu: 1500, ..PortRoute::new(Mac(ROUTER_MAC), ROUTER, 24) };
        let leaves = PortId(ports - 1);
        let target = |n: u16| {
            let direct = TargetRoute::direct(self.target(n), (leaves, &port), Mac([2, 0, 0, 0, 1, n as u8]));
            TargetRoute { via: self.via(n), ..direct }
        };
        let candidate = |n: u16| Candidate { address: self.target(n), weight: 1, target: TargetId(n) };
        let candidates: Vec<_> = (0..TARGETS).map(candidate).collect();
        let service = ServiceRoute {
            protocol: Protocol::Tcp,
            ports: PortRange::one(PORT),
            picker: Picker::build(&key, Balance::Maglev, &candidates),
            draining: Arc::default(),
            turns: Arc::default(),
            orphans: Orphans::Reset,
            sources: None,
        };
        let vipa = VipaRoute {
            address: match self.family {
                Family::Ipv4 => VIPA.into(),
                Family::Ipv6 => VIPA6.into(),
            },
            stance: Stance::Active,
            lease: Arc::new(Deadline::new(Moment(u64::MAX))),
            services: [service].into(),
            quiet_until: Moment::ZERO,
            by_hash_until: Moment::ZERO,
            new_per_second: None,
            unserved: Unserved::Drop,
        };
        let lists = RouteLists {
            ports: vec![port; usize::from(ports)],
            vipas: vec![vipa],
            targets: (0..TARGETS).map(target).collect(),
            ..RouteLists::default()
        };
        Routes::build(1, key, lists)
    }

    pub(crate) fn target(self, n: u16) -> IpAddr {
        match self.family {
            Family::Ipv4 => Ipv4Addr::new(198, 51, 100, 100 + n as u8).into(),
            Family::Ipv6 => Ipv6Addr::from_bits(ROUTER6.to_bits() + 100 + u128::from(n)).into(),
        }
    }

    fn via(self, n: u16) -> ForwardingAction {
        let outer = match self.target(n) {
            IpAddr::V4(target) => TunnelEndpoints::V4 { source: ROUTER.to_bits(), destination: target.to_bits() },
            IpAddr::V6(target) => TunnelEndpoints::V6 { source: ROUTER6.to_bits(), destination: target.to_bits() },
        };
        match self.way {
            ForwardingKind::Direct => ForwardingAction::Direct,
            ForwardingKind::Ipip => ForwardingAction::Tunnel { outer, how: Encapsulation::Ipip },
            ForwardingKind::Gre => ForwardingAction::Tunnel { outer, how: Encapsulation::Gre },
            ForwardingKind::Gue => ForwardingAction::Tunnel { outer, how: Encapsulation::Gue { port: GUE_PORT } },
            ForwardingKind::Nat => ForwardingAction::Nat { port: Some(8080) },
        }
    }

    /// Connection tables made for `capacity` connections, with those of the first `clients` clients in them.
    pub(crate) fn flows(self, capacity: usize, clients: u64) -> anyhow::Result<Arc<Flows>> {
        const UNUSED: usize = 1024;
        let (ipv4, ipv6) = match self.family {
            Family::Ipv4 => (capacity, UNUSED),
            Family::Ipv6 => (UNUSED, capacity),
        };
        let flows = Flows {
            ipv4: FlowTable::new(Capacity::connections(ipv4), HashSeed::random())?,
            ipv6: FlowTable::new(Capacity::connections(ipv6), HashSeed::random())?,
        };
        for n in 0..clients {
            let target = TargetId((n % u64::from(TARGETS)) as u16);
            let confirmed = match self.family {
                Family::Ipv4 => flows.ipv4.confirm(&key(n), target, FlowState::Confirmed, Tick(0)),
                Family::Ipv6 => flows.ipv6.confirm(&key6(n), target, FlowState::Confirmed, Tick(0)),
            };
            anyhow::ensure!(confirmed == Confirmed::New, "connection {n}: {confirmed:?}");
        }
        Ok(Arc::new(flows))
    }
}

/// The `n`-th client's connection.
pub(crate) fn key(n: u64) -> Key4 {
    let (client, client_port) = client(n);
    Key4 { client, client_port, vipa_port: PORT, vipa: VipaId(0), protocol: Protocol::Tcp }
}

fn key6(n: u64) -> Key6 {
    let (client, client_port) = client6(n);
    Key6 { client, client_port, vipa_port: PORT, vipa: VipaId(0), protocol: Protocol::Tcp }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_has_the_same_header_checksum_and_an_address_that_may_be() {
        let world = World { family: Family::Ipv4, way: ForwardingKind::Direct };
        let checksum = |n| world.frame(n, TcpFlags::ACK).bytes()[24..26].to_vec();
        for n in [1, 16_383, 16_384, 1 << 20, (1 << 28) - 1] {
            assert_eq!(checksum(n), checksum(0), "client {n}");
            assert!(vipa_packet::parse(world.frame(n, TcpFlags::ACK).bytes()).is_ok(), "client {n}");
            assert_ne!(client(n), client(0));
        }
    }

    #[test]
    fn frames_are_as_short_as_may_be() {
        let length = |family| World { family, way: ForwardingKind::Direct }.frame(5, TcpFlags::ACK).bytes().len();
        assert_eq!((length(Family::Ipv4), length(Family::Ipv6)), (64, 74));
    }
}
