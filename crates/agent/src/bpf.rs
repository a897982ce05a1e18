//! Definitions that the agent's BPF programs share.

use std::net::IpAddr;

/// An address as the programs store it: IPv4 as IPv4-mapped IPv6, in network order.
pub(crate) type Address = [u8; 16];

pub(crate) fn address_of(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
