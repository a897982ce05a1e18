//! How a service's new connections are shared among those of its candidates that are fit for them.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::Pace;

/// What decides each candidate's share, beside `Balance`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Choice {
    pub weights: Weights,
    /// Candidates whose configured weight is not [`Choice::USUAL_WEIGHT`].
    pub exceptions: Vec<(IpAddr, u16)>,
    /// Candidates without an agent: the routers ask them themselves.
    pub agentless: Vec<Agentless>,
}

/// A candidate that tells nothing of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Agentless {
    pub address: IpAddr,
    pub question: Question,
    pub pace: Pace,
}

/// What a router asks a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Question {
    /// Does it answer an ICMP echo request?
    Ping,
    /// Does a TCP connection to this port open?
    Tcp(u16),
    /// Does `GET path` on this port answer with one of these statuses, both ends included?
    Http { port: u16, path: String, statuses: (u16, u16) },
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping => f.write_str("ping"),
            Self::Tcp(port) => write!(f, "tcp {port}"),
            Self::Http { port, path, .. } => write!(f, "http {port} {path}"),
        }
    }
}

/// Where a candidate's weight comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// The configuration alone.
    #[default]
    Static,
    /// The configured weight times the headroom that the target itself reports.
    Load,
}

impl Weights {
    pub const ALL: [Self; 2] = [Self::Static, Self::Load];

    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Load => "load",
        }
    }
}

impl Choice {
    pub const USUAL_WEIGHT: u16 = 1;
    /// Times the full headroom it still fits 16 bits.
    pub const MAX_WEIGHT: u16 = 256;

    /// What is asked of a candidate that has no agent; `None`: it has one.
    #[must_use]
    pub fn agentless(&self, candidate: IpAddr) -> Option<&Agentless> {
        self.agentless.iter().find(|agentless| agentless.address == candidate)
    }

    /// The configured weight of a candidate.
    #[must_use]
    pub fn weight_of(&self, candidate: IpAddr) -> u16 {
        let exception = self.exceptions.iter().find(|(address, _)| *address == candidate);
        exception.map_or(Self::USUAL_WEIGHT, |&(_, weight)| weight)
    }
}
