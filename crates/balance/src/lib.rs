//! Chooses the target of a new connection. Pure: the same cluster key, candidates and connection give the same target
//! on every router, whatever order it learnt them in and whatever ids it gave them.
//!
//! ```text
//! connection ──siphash-1-3, cluster key──► hash ──► Picker ─┬─ Maglev: slot of the hash ──► target
//!                                                           ├─ RoundRobin: the service's next turn ──► target
//!                                                           └─ None: nobody listens
//! ```

#![forbid(unsafe_code)]

mod maglev;
mod picker;

use std::{fmt, net::IpAddr};

use siphasher::sip::SipHasher13;
use vipa_model::{Protocol, TargetId};

pub use maglev::{Maglev, SLOTS};
pub use picker::{Picker, RoundRobin};

/// The secret that all routers of a cluster share and clients do not know: without it nobody can choose ports that
/// bring all connections to one target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClusterKey([u8; 16]);

impl ClusterKey {
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }
}

impl From<[u8; 16]> for ClusterKey {
    fn from(key: [u8; 16]) -> Self {
        Self(key)
    }
}

/// A secret is not printed.
impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// A target that may get new connections of a service now: it is on the list, and it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Decides where this target stands; the same on every router.
    pub address: IpAddr,
    /// Its share of new connections, relative to the others'; 0: none.
    pub weight: u16,
    /// This router's name for it; decides nothing.
    pub target: TargetId,
}

/// The number that [`Picker::pick`] decides by. Addresses and ports in numeric order.
#[inline]
#[must_use]
pub fn hash_connection(
    key: &ClusterKey,
    client: u32,
    client_port: u16,
    vipa: u32,
    port: u16,
    protocol: Protocol,
) -> u64 {
    let mut bytes = [0; 13];
    bytes[0..4].copy_from_slice(&client.to_be_bytes());
    bytes[4..8].copy_from_slice(&vipa.to_be_bytes());
    bytes[8..10].copy_from_slice(&client_port.to_be_bytes());
    bytes[10..12].copy_from_slice(&port.to_be_bytes());
    bytes[12] = protocol_number(protocol);
    SipHasher13::new_with_key(&key.0).hash(&bytes)
}

/// The same for IPv6.
#[inline]
#[must_use]
pub fn hash_connection6(
    key: &ClusterKey,
    client: u128,
    client_port: u16,
    vipa: u128,
    port: u16,
    protocol: Protocol,
) -> u64 {
    let mut bytes = [0; 37];
    bytes[0..16].copy_from_slice(&client.to_be_bytes());
    bytes[16..32].copy_from_slice(&vipa.to_be_bytes());
    bytes[32..34].copy_from_slice(&client_port.to_be_bytes());
    bytes[34..36].copy_from_slice(&port.to_be_bytes());
    bytes[36] = protocol_number(protocol);
    SipHasher13::new_with_key(&key.0).hash(&bytes)
}

/// The protocol's IP number, so that the order of an enum is no part of what routers agree on.
const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// Where an address stands in `salt`'s order of all addresses.
fn hash_address(key: &ClusterKey, salt: u8, address: IpAddr) -> u64 {
    let mut bytes = [0; 18];
    bytes[0] = salt;
    match address {
        IpAddr::V4(address) => {
            bytes[1] = 4;
            bytes[2..6].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            bytes[1] = 6;
            bytes[2..].copy_from_slice(&address.octets());
        }
    }
    SipHasher13::new_with_key(&key.0).hash(&bytes)
}

#[cfg(test)]
mod tests;
