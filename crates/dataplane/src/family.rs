//! Differences between IPv4 and IPv6 connections: their key, and the table that holds them.

use std::net::IpAddr;

use vipa_balance::{ClusterKey, hash_connection, hash_connection6};
use vipa_flow::{FlowTable, Key, Key4, Key6};
use vipa_handoff::{AnyKey, Flows};
use vipa_model::{Protocol, VipaId};
use vipa_packet::InnerPacket;

/// A connection's key, in either family.
pub(crate) trait Family: Key {
    /// The family's connection table.
    fn table(flows: &Flows) -> &FlowTable<Self>;

    fn client(&self) -> IpAddr;

    /// The hash by which `balance` chooses. `vipa` is the address of this key's VIPA.
    fn balance_hash(&self, key: &ClusterKey, vipa: IpAddr) -> u64;

    /// The hash of the client alone: an IPv6 client is its /64.
    fn source_hash(&self, key: &ClusterKey) -> u64;

    /// The key for held packets, of both families in one queue.
    fn any(self) -> AnyKey;

    /// What an encapsulation needs from a plain mid-stream segment of this family. `None` when it has no hop left.
    fn inner(segment: &[u8]) -> Option<InnerPacket>;
}

impl Family for Key4 {
    #[inline(always)]
    fn table(flows: &Flows) -> &FlowTable<Self> {
        &flows.ipv4
    }

    fn client(&self) -> IpAddr {
        IpAddr::V4(self.client.into())
    }

    #[inline]
    fn balance_hash(&self, key: &ClusterKey, vipa: IpAddr) -> u64 {
        let IpAddr::V4(vipa) = vipa else { unreachable!("an IPv4 connection is to an IPv4 VIPA") };
        hash_connection(key, self.client, self.client_port, vipa.to_bits(), self.vipa_port, self.protocol)
    }

    fn source_hash(&self, key: &ClusterKey) -> u64 {
        hash_connection(key, self.client, 0, u32::from(self.vipa.0), 0, self.protocol)
    }

    fn any(self) -> AnyKey {
        AnyKey::V4(self)
    }

    #[inline(always)]
    fn inner(segment: &[u8]) -> Option<InnerPacket> {
        InnerPacket::of_segment4(segment)
    }
}

impl Family for Key6 {
    #[inline(always)]
    fn table(flows: &Flows) -> &FlowTable<Self> {
        &flows.ipv6
    }

    fn client(&self) -> IpAddr {
        IpAddr::V6(self.client.into())
    }

    #[inline]
    fn balance_hash(&self, key: &ClusterKey, vipa: IpAddr) -> u64 {
        let IpAddr::V6(vipa) = vipa else { unreachable!("an IPv6 connection is to an IPv6 VIPA") };
        hash_connection6(key, self.client, self.client_port, vipa.to_bits(), self.vipa_port, self.protocol)
    }

    fn source_hash(&self, key: &ClusterKey) -> u64 {
        let network = self.client & u128::MAX << 64;
        hash_connection6(key, network, 0, u128::from(self.vipa.0), 0, self.protocol)
    }

    fn any(self) -> AnyKey {
        AnyKey::V6(self)
    }

    #[inline(always)]
    fn inner(segment: &[u8]) -> Option<InnerPacket> {
        InnerPacket::of_segment6(segment)
    }
}

/// A key of this family from its parts.
pub(crate) trait Parts<A>: Family {
    fn of(client: A, client_port: u16, vipa: VipaId, vipa_port: u16, protocol: Protocol) -> Self;
}

impl Parts<u32> for Key4 {
    #[inline(always)]
    fn of(client: u32, client_port: u16, vipa: VipaId, vipa_port: u16, protocol: Protocol) -> Self {
        Self { client, client_port, vipa_port, vipa, protocol }
    }
}

impl Parts<u128> for Key6 {
    #[inline(always)]
    fn of(client: u128, client_port: u16, vipa: VipaId, vipa_port: u16, protocol: Protocol) -> Self {
        Self { client, client_port, vipa_port, vipa, protocol }
    }
}
