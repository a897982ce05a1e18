//! What operators decide, and how it is kept.
//!
//! A decision outlives whoever made it: it is on the disk of every router and in the memory of every target, and the
//! later one about the same matter replaces the earlier. It is no part of an ownership and has no epoch: a takeover
//! changes nothing of it, and whoever owns a VIPA next finds it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use vipa_model::{NodeName, Protocol};

/// What a decision is about; there is one decision in force on each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Matter {
    /// Which router comes before all others for this VIPA, whatever the ranks say.
    Place { vipa: IpAddr },
    /// Whether this router may own this VIPA.
    Ownership { vipa: IpAddr, router: NodeName },
    /// Whether this node takes part: a router in owning VIPAs, a target in getting new connections.
    Membership { node: NodeName },
    /// Whether this target gets new connections.
    Target { target: IpAddr },
    /// Whether the service on this port of the VIPA gets new connections, at this target or at all.
    Service { vipa: IpAddr, protocol: Protocol, port: u16, target: Option<IpAddr> },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ruling {
    /// As the configuration has it. DecisionAck, so that it wins over an older ruling that comes late.
    AsConfigured,
    Withheld,
    /// Of `Matter::Place`: there.
    At(NodeName),
}

/// Decisions about one matter in their order: the higher stamp counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stamp {
    /// One more than the highest its maker knew.
    pub count: u64,
    pub by: NodeName,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Decision {
    pub matter: Matter,
    pub ruling: Ruling,
    pub stamp: Stamp,
    /// Who gave the order, and when. Not there in decisions of earlier releases.
    #[serde(default)]
    pub given: Option<Given>,
}

/// A person who gave an order at a node's admin socket, as that node's kernel and user database know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Operator {
    pub uid: u32,
    /// `None`: the user database has none.
    #[serde(deserialize_with = "crate::text::optional_name")]
    pub name: Option<String>,
}

/// The node's own program, where nobody at a socket asks.
impl Default for Operator {
    fn default() -> Self {
        Self { uid: 0, name: Some("vipad".into()) }
    }
}

/// Who gave an order, and when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Given {
    pub by: Operator,
    /// By the clock of the node it was given at, milliseconds since 1970.
    pub unix_ms: u64,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

impl fmt::Display for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { vipa } => write!(f, "{vipa}"),
            Self::Ownership { vipa, router } => write!(f, "{vipa} on {router}"),
            Self::Membership { node } => write!(f, "{node}"),
            Self::Target { target } => write!(f, "target {target}"),
            Self::Service { vipa, protocol, port, target } => {
                write!(f, "service {}/{}", SocketAddr::new(*vipa, *port), protocol.name())?;
                target.map_or(Ok(()), |target| write!(f, " at {target}"))
            }
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matter, ruling, stamp: _, given: _ } = self;
        match (matter, ruling) {
            (_, Ruling::At(router)) => write!(f, "{matter} is moved to {router}"),
            (Matter::Place { vipa }, Ruling::AsConfigured | Ruling::Withheld) => write!(f, "{vipa} goes by rank"),
            (_, Ruling::AsConfigured) => write!(f, "{matter} is as configured again"),
            (Matter::Ownership { .. }, Ruling::Withheld) => write!(f, "{matter} is deactivated"),
            (Matter::Membership { .. }, Ruling::Withheld) => write!(f, "{matter} has left"),
            (Matter::Target { .. } | Matter::Service { .. }, Ruling::Withheld) => write!(f, "{matter} is quiesced"),
        }
    }
}

/// What an operator wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// `to` owns the VIPA, and goes on being first in line for it until it is moved again or taken back.
    Move {
        vipa: IpAddr,
        to: NodeName,
    },
    /// This router gives the VIPA to another, and owns it no more until `Reactivate`.
    Deactivate {
        vipa: IpAddr,
        force: bool,
    },
    Reactivate {
        vipa: IpAddr,
    },
    /// Whoever has the highest rank takes the VIPA back now, whatever its `takeback` says; ends a `Move`.
    Takeback {
        vipa: IpAddr,
    },
    /// No new connections to this target.
    QuiesceTarget {
        target: IpAddr,
    },
    ResumeTarget {
        target: IpAddr,
    },
    /// No new connections to this service, at one target or at all.
    QuiesceService {
        vipa: IpAddr,
        protocol: Protocol,
        port: u16,
        target: Option<IpAddr>,
    },
    ResumeService {
        vipa: IpAddr,
        protocol: Protocol,
        port: u16,
        target: Option<IpAddr>,
    },
    /// The node, or this router, owns nothing and gets no new connections until `Join`.
    Leave {
        node: Option<NodeName>,
        force: bool,
    },
    Join {
        node: Option<NodeName>,
    },
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service =
            |f: &mut fmt::Formatter<'_>, verb, (vipa, protocol, port, target): (_, Protocol, _, &Option<IpAddr>)| {
                let protocol = protocol.name();
                let vipa: &IpAddr = vipa;
                match vipa {
                    IpAddr::V4(vipa) => write!(f, "service {verb} {vipa}:{port}/{protocol}")?,
                    IpAddr::V6(vipa) => write!(f, "service {verb} [{vipa}]:{port}/{protocol}")?,
                }
                target.map_or(Ok(()), |target| write!(f, " {target}"))
            };
        let node = |f: &mut fmt::Formatter<'_>, verb, node: &Option<NodeName>| match node {
            Some(node) => write!(f, "node {verb} {node}"),
            None => write!(f, "node {verb}"),
        };
        match self {
            Self::Move { vipa, to } => write!(f, "vipa move {vipa} {to}"),
            Self::Deactivate { vipa, force: _ } => write!(f, "vipa deactivate {vipa}"),
            Self::Reactivate { vipa } => write!(f, "vipa reactivate {vipa}"),
            Self::Takeback { vipa } => write!(f, "vipa takeback {vipa}"),
            Self::QuiesceTarget { target } => write!(f, "target quiesce {target}"),
            Self::ResumeTarget { target } => write!(f, "target resume {target}"),
            Self::QuiesceService { vipa, protocol, port, target } => {
                service(f, "quiesce", (vipa, *protocol, *port, target))
            }
            Self::ResumeService { vipa, protocol, port, target } => {
                service(f, "resume", (vipa, *protocol, *port, target))
            }
            Self::Leave { node: who, force: _ } => node(f, "leave", who),
            Self::Join { node: who } => node(f, "join", who),
        }
    }
}
