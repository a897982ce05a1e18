//! What becomes of the next packet of one connection, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vipa_model::{Connection, Epoch, NodeName};

use super::{Stage, Stance};
use crate::eligibility::Eligibility;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explanation {
    pub vipa: IpAddr,
    pub connection: Connection,
    /// What this router is to the VIPA.
    pub stance: Stance,
    pub epoch: Epoch,
    pub owner: Option<NodeName>,
    /// The packet whose fate this is.
    pub packet: ExplainedPacket,
    /// What the connection table has.
    pub entry: Option<ExplainedEntry>,
    /// The service of the VIPA and port, and how it places a new connection now; `None`: no service has the port.
    pub service: Option<ExplainedService>,
    /// Where the packet goes, or waits to go.
    pub path: Option<ExplainedPath>,
    pub fate: ExplainedFate,
    /// What bends the answer and is not foreseen, a sentence each.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ExplainedPacket {
    /// A TCP segment that opens the connection.
    Syn,
    /// A TCP segment in the middle of the connection.
    Segment,
    Datagram,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExplainedEntry {
    pub target: IpAddr,
    pub node: Option<NodeName>,
    pub stage: Stage,
    /// Since the entry was last written, milliseconds, to a quarter of a second; it is not written by every packet.
    pub written_ms_ago: u64,
    /// Whether the target's agent is linked and all that it holds is known here.
    pub linked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExplainedService {
    /// `tcp/80`, `udp/53-60`.
    pub name: String,
    /// `balance` of the configuration: `maglev`, `round-robin` or `weighted-active`.
    pub method: String,
    pub candidates: Vec<ExplainedCandidate>,
    /// The target that a new connection gets; `None`: the packet needs no new target, or there is none.
    pub chosen: Option<IpAddr>,
    /// By what it is chosen.
    pub chosen_by: Option<ExplainedChoice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ExplainedChoice {
    /// The hash of the connection's addresses and ports.
    Hash,
    /// The service's turn of this number, if no other connection comes first.
    Turn(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExplainedCandidate {
    pub target: IpAddr,
    pub node: Option<NodeName>,
    pub fitness: Eligibility,
    /// Its share of new connections, relative to the others'.
    pub weight: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExplainedPath {
    pub target: IpAddr,
    pub node: Option<NodeName>,
    /// `direct`, `tunnel`, `nat`, or `local`: this router's own kernel.
    pub kind: String,
    /// `ipip`, `gre` or `gue`.
    pub encapsulation: Option<String>,
    /// The tunnel's ends.
    pub outer: Option<(IpAddr, IpAddr)>,
    /// The port of the target that `nat` translates to, if it is another one.
    pub target_port: Option<u16>,
    /// The router's port by which the packet leaves.
    pub port: Option<String>,
    pub vlan: Option<u16>,
    /// The neighbour whose Ethernet address it gets: the target, or a gateway.
    pub neighbour: Option<IpAddr>,
    /// `None`: not known yet.
    pub mac: Option<String>,
    /// Largest packet of a client that fits the path, bytes of IP.
    pub mtu: u16,
    /// Largest packet that the path takes, outer headers included.
    pub path_mtu: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExplainedFate {
    /// The counter of the packet's fate, or `held` while it waits.
    pub name: String,
    /// What the fate means.
    pub meaning: String,
    /// What an operator does about it; empty: nothing.
    pub remedy: String,
    /// Where the code decides it, for fates that end a packet here.
    pub decided_in: Option<String>,
}
