//! The words of the house as types. Numbers that mean different things have different types.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Choice;

/// Whether packets can be forwarded for this address or to it: a VIPA or a node can have it.
#[must_use]
pub fn is_host_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => {
            !(v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some())
        }
    }
}

/// A node's name: one DNS label (RFC 1123 §2.1), 1 to 63 of `a-z 0-9 -`, no hyphen at either end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a node name: use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")]
pub struct InvalidNodeName(pub String);

impl NodeName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;
    fn from_str(text: &str) -> Result<Self, InvalidNodeName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=63).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid { Ok(Self(text.into())) } else { Err(InvalidNodeName(text.into())) }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for NodeName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NodeName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A node's name: one DNS label.",
            "type": "string",
            "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        })
    }
}

/// Number of an ownership of one VIPA. Only ever grows; 0 means "never owned".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Epoch(pub u64);

impl Epoch {
    pub const NONE: Self = Self(0);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A router's place in the order of succession for one VIPA, 1 to 254; the highest alive owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rank(pub u8);

/// One life of a node's process; a restarted process has a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// A node takes its calendar's milliseconds since 1970 for it. Beyond this, in the year 146 million, no process has started.
    pub const LAST: Self = Self(1 << 62);
}

/// VIPAs of one router at most: what a connection's entry tells apart.
pub const MAX_VIPAS: usize = 4096;

/// Paths of one router at most: targets with the ways in which they are reached.
pub const MAX_PATHS: usize = 8192;

/// Index of a VIPA at this router, below [`MAX_VIPAS`]; given to another VIPA once nothing names it. Never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipaId(pub u16);

/// Index of a path to a target at this router, below [`MAX_PATHS`]; given to another path once nothing names it. Never on the
/// wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u16);

/// Index of a port (network interface) at this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Transport-layer ports `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    pub const ALL: Self = Self { first: 1, last: u16::MAX };

    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// As the configuration has it.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("all"),
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// How a router gets a connection's packets to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Direct return: the destination MAC becomes the target's; the target answers the client itself.
    #[default]
    Direct,
    /// IP in IP (RFC 2003, RFC 2473), either family in either. The target unwraps, and answers the client itself.
    Ipip,
    /// GRE without options (RFC 2784).
    Gre,
    /// IP in UDP, Generic UDP Encapsulation (draft-ietf-intarea-gue, version 0): the outer source port spreads
    /// connections over the network's paths and the target's queues.
    Gue,
    /// The destination becomes the target's own address and port, and the source the VIPA's again on the way back,
    /// which must lead through this router. The client's address stays.
    Nat,
}

impl Forwarding {
    pub const ALL: [Self; 5] = [Self::Direct, Self::Ipip, Self::Gre, Self::Gue, Self::Nat];

    /// Whether the target gets packets wrapped in others.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gre | Self::Gue)
    }

    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
            Self::Nat => "nat",
        }
    }
}

/// How a service's packets get to its targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Delivery {
    pub forwarding: Forwarding,
    /// Candidates that are reached another way than the others.
    pub exceptions: Vec<(IpAddr, Forwarding)>,
    /// The targets' port, where `nat` changes it; the service then has one port.
    pub target_port: Option<u16>,
    /// Answer a packet that is too big for the way to its target, so that its sender learns the path's MTU (RFC 1191,
    /// RFC 8201). Otherwise it is dropped.
    pub path_mtu: bool,
    /// Lower the maximum segment size in SYNs to what fits the way (RFC 6691).
    pub clamp_mss: bool,
}

impl Default for Delivery {
    fn default() -> Self {
        let forwarding = Forwarding::default();
        Self { forwarding, exceptions: Vec::new(), target_port: None, path_mtu: true, clamp_mss: true }
    }
}

impl Delivery {
    /// Whether any candidate is reached so.
    #[must_use]
    pub fn uses(&self, forwarding: Forwarding) -> bool {
        self.forwarding == forwarding || self.exceptions.iter().any(|(_, exception)| *exception == forwarding)
    }

    /// How packets get to this candidate.
    #[must_use]
    pub fn forwarding_to(&self, candidate: IpAddr) -> Forwarding {
        let exception = self.exceptions.iter().find(|(address, _)| *address == candidate);
        exception.map_or(self.forwarding, |&(_, forwarding)| forwarding)
    }
}

/// Which clients a service admits, and how fast. Asked about new connections only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sources {
    /// When not empty, only these, as far as `deny` has no longer prefix.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub allow: Vec<IpNet>,
    /// Not these, as far as `allow` has no longer prefix.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub deny: Vec<IpNet>,
    /// Most new connections a second from one client address (an IPv6 client's /64).
    pub new_per_second: Option<u32>,
}

/// How the target of a new connection is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Consistent hashing of the client's address and port (Maglev, NSDI 2016 §3.4).
    #[default]
    Maglev,
    /// In turn, weighted.
    RoundRobin,
    /// To whoever has the fewest live connections for its weight.
    WeightedActive,
}

impl Balance {
    pub const ALL: [Self; 3] = [Self::Maglev, Self::RoundRobin, Self::WeightedActive];

    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::RoundRobin => "round-robin",
            Self::WeightedActive => "weighted-active",
        }
    }
}

/// What happens to a TCP packet whose connection nobody knows, once rebuilding is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Orphans {
    /// Answered with a reset after a grace time, so that the client does not wait for nothing.
    #[default]
    Reset,
    Drop,
    /// Sent to the target that `balance` names.
    Balance,
}

impl Orphans {
    pub const ALL: [Self; 3] = [Self::Reset, Self::Drop, Self::Balance];

    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Drop => "drop",
            Self::Balance => "balance",
        }
    }
}

/// What becomes of a new connection that nobody serves: to a port without a service, or of a service without a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unserved {
    /// Nothing is said.
    #[default]
    Drop,
    /// As by a host where the port is closed: TCP is answered with a reset, UDP with "port unreachable".
    Refuse,
}

impl Unserved {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Refuse => "refuse",
        }
    }
}

/// VIPA + protocol + ports, and who may serve it. The VIPA stands where the service is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Service {
    pub protocol: Protocol,
    pub ports: PortRange,
    pub delivery: Delivery,
    pub balance: Balance,
    pub choice: Choice,
    pub orphans: Orphans,
    pub sources: Sources,
    /// Addresses of the candidate targets, in the order of the configuration, each once.
    pub candidates: Vec<IpAddr>,
}

/// What a router is to a VIPA, as its workers need to know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stance {
    /// Another router owns it, or nobody does.
    #[default]
    Standby,
    /// Owned; the targets' reports are being collected.
    Rebuilding,
    /// Owned, and the connection table is complete.
    Active,
    /// Handed to another router; what still arrives is forwarded and admitted until nothing does.
    Yielding,
}

/// One connection to a VIPA as seen from the VIPA's side. The VIPA stands where the connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Connection {
    pub protocol: Protocol,
    pub client: SocketAddr,
    /// Port on the VIPA.
    pub port: u16,
}

/// How far a connection's life has come, as its target knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConnectionState {
    /// SYN-RECEIVED.
    HalfOpen,
    Established,
    /// FIN seen in one direction at least; packets may still come.
    Closing,
}

/// What a router tells another of an entry of its connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryState {
    /// Its SYN has passed.
    HalfOpen,
    /// Its client went on after the SYN.
    Open,
    /// Its target says that it holds it.
    Held,
    /// A FIN or RST has passed.
    Closing,
    /// Its target has reported its end a moment ago and answers late segments, for example from TIME-WAIT.
    Ended,
    Udp,
}

impl EntryState {
    /// Whether the router that tells it has forwarded more of the TCP connection than a SYN, which anybody may have sent.
    #[must_use]
    pub fn has_segments(self) -> bool {
        matches!(self, Self::Open | Self::Held | Self::Closing)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The bit of the first byte that a group of stations has (IEEE 802).
    const GROUP: u8 = 1;

    /// Whether one station may have it.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & Self::GROUP == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
