//! What one node asks another beside the protocol's own course: an audit's and a rehearsal's questions.
//!
//! An answer carries its question's token. Nobody depends on one: a question whose answer does not come is given up.
//! The answers go the way of the connection log, after everything that was reported before, so that a router that reads
//! one knows the log up to the place it names.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vipa_model::{Connection, NodeName, Rank, Service};

use crate::{Position, event::ClusterEvent};

/// Parts into which connections are divided by their hash, to find a difference by few numbers.
pub const BUCKETS: usize = 256;
/// Parts of which one question may ask for every connection: of a million connections, 16,000.
pub const MOST_BUCKETS: usize = 4;
/// Most connections told in one answer.
pub const MOST_TOLD: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRequest {
    pub token: u64,
    pub question: Question,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Router → target: which connections to this VIPA do you hold, established or closing? Digests of all, and the connections
    /// themselves of these parts.
    Holds { vipa: IpAddr, buckets: Vec<u16> },
    /// Router → router: how are you configured for this VIPA?
    Settings { vipa: IpAddr },
    /// Router → router: what has happened, as you saw it? The latest [`MAX_EVENTS`](crate::event::MAX_EVENTS) since then at most.
    Events { since_unix_ms: u64 },
    /// Router → router: how are you configured, in short?
    SettingsDigests,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    pub token: u64,
    pub reply: Reply,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Holds(Holds),
    Settings(VipaSettings),
    #[serde(deserialize_with = "crate::event::events")]
    Events(Vec<ClusterEvent>),
    /// Of each VIPA, a digest of what should be the same everywhere.
    SettingsDigests(Vec<(IpAddr, u64)>),
    /// This node knows nothing of the VIPA.
    Unknown,
}

/// A target's connections at one moment, established or closing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    pub upto: Position,
    pub digests: Digests,
    /// Of the parts asked for.
    pub connections: Vec<Connection>,
}

/// What a router has in its configuration of a VIPA that should be the same at another, or differs by intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipaSettings {
    pub ranks: Vec<(NodeName, Rank)>,
    /// `None`: it uses what the owner distributes.
    pub services: Option<Vec<Service>>,
    /// Everything else by its name in the configuration, as text.
    #[serde(deserialize_with = "crate::text::settings")]
    pub others: Vec<(String, String)>,
}

/// A count and a sum of hashes for each part; adding and removing connections in any order leads to the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests(Vec<Digest>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Digest {
    count: u32,
    sum: u64,
}

impl Default for Digests {
    fn default() -> Self {
        Self(vec![Digest::default(); BUCKETS])
    }
}

impl Digests {
    pub fn add(&mut self, connection: &Connection) {
        let hash = hash(connection);
        if let Some(digest) = self.0.get_mut(place(hash)) {
            digest.count = digest.count.wrapping_add(1);
            digest.sum = digest.sum.wrapping_add(hash);
        }
    }

    pub fn remove(&mut self, connection: &Connection) {
        let hash = hash(connection);
        if let Some(digest) = self.0.get_mut(place(hash)) {
            digest.count = digest.count.wrapping_sub(1);
            digest.sum = digest.sum.wrapping_sub(hash);
        }
    }

    /// How many connections are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|digest| u64::from(digest.count)).sum()
    }

    /// The parts in which the two differ; of one that another release has divided otherwise, all.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<u16> {
        let differs = |place: &u16| self.0.get(usize::from(*place)) != other.0.get(usize::from(*place));
        (0..BUCKETS as u16).filter(differs).collect()
    }
}

/// The part a connection is in.
#[must_use]
pub fn bucket(connection: &Connection) -> u16 {
    place(hash(connection)) as u16
}

const _: () = assert!(BUCKETS == 256, "`place` takes the top 8 bits");

fn place(hash: u64) -> usize {
    (hash >> 56) as usize
}

/// The same at every node. It finds accidents; who could forge it could only hide a fault of his own connections.
fn hash(connection: &Connection) -> u64 {
    let Connection { protocol, client, port } = *connection;
    let address = match client.ip().to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let address = address.to_bits();
    let ends = u64::from(protocol as u8) << 32 | u64::from(client.port()) << 16 | u64::from(port);
    mix(mix(mix((address >> 64) as u64) ^ address as u64) ^ ends)
}

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use vipa_model::Protocol;

    use super::*;

    fn connection(number: u32) -> Connection {
        let client = SocketAddr::from((number.to_be_bytes(), 40_000));
        Connection { protocol: Protocol::Tcp, client, port: 80 }
    }

    proptest! {
        #[test]
        fn digests_are_equal_exactly_when_the_connections_are(
            one in prop::collection::btree_set(0_u32..300, 0..60),
            other in prop::collection::btree_set(0_u32..300, 0..60),
        ) {
            let digests = |set: &std::collections::BTreeSet<u32>| {
                let mut digests = Digests::default();
                set.iter().for_each(|number| digests.add(&connection(*number)));
                digests
            };
            let mut expected: Vec<_> = one.symmetric_difference(&other).map(|number| bucket(&connection(*number))).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(digests(&one).differing(&digests(&other)), expected);
            // From one to the other by single changes, in whatever order.
            let mut moved = digests(&one);
            other.difference(&one).for_each(|number| moved.add(&connection(*number)));
            one.difference(&other).for_each(|number| moved.remove(&connection(*number)));
            prop_assert_eq!(&moved, &digests(&other));
            prop_assert_eq!(moved.count(), other.len() as u64);
        }
    }

    #[test]
    fn connections_are_spread_over_all_parts() {
        let mut counts = [0_u32; BUCKETS];
        (0..25_600).for_each(|number| counts[usize::from(bucket(&connection(number)))] += 1);
        assert!(counts.iter().all(|count| (50..=160).contains(count)), "{counts:?}");
    }

    #[test]
    fn an_ipv4_client_is_the_same_when_the_kernel_calls_it_by_ipv6() {
        let plain = connection(7);
        let SocketAddr::V4(client) = plain.client else { panic!("it is IPv4") };
        let mapped = SocketAddr::from((client.ip().to_ipv6_mapped(), client.port()));
        assert_eq!(bucket(&plain), bucket(&Connection { client: mapped, ..plain }));
    }
}
