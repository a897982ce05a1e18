//! Which connection is at which target.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vipa_model::{Connection, NodeName};

/// Groups of a count told apart, by which its memory is bounded; connections of further ones are summed in [`Connections::others`].
pub const MAX_COUNTED: usize = 100_000;

/// Which connections are meant: those that meet all that is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ConnectionFilter {
    pub vipa: Option<IpAddr>,
    pub client: Option<IpAddr>,
    pub target: Option<IpAddr>,
    pub state: Option<Stage>,
}

/// What connections are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CountBy {
    Target,
    State,
    /// The client's address.
    Client,
    /// VIPA, protocol and port.
    Service,
}

impl CountBy {
    pub const ALL: [Self; 4] = [Self::Target, Self::State, Self::Client, Self::Service];

    /// As on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::State => "state",
            Self::Client => "client",
            Self::Service => "service",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Connections {
    /// In the table and meant, whether shown or not.
    pub total: u64,
    pub shown: Vec<ConnectionRow>,
    /// By what was asked to count by, the largest first. Empty unless asked for.
    #[serde(default)]
    pub counted: Vec<CountedConnections>,
    /// Connections of a count's rows beyond the limit.
    #[serde(default)]
    pub others: u64,
}

/// One row of a count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CountedConnections {
    /// A target's or client's address, a state, or a service as `192.0.2.10:80/tcp`.
    pub name: String,
    pub connections: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConnectionRow {
    pub vipa: IpAddr,
    pub connection: Connection,
    pub target: IpAddr,
    pub node: Option<NodeName>,
    pub stage: Stage,
}

impl ConnectionFilter {
    /// Whether a connection at this target and stage is meant.
    #[must_use]
    pub fn admits(&self, vipa: IpAddr, connection: &Connection, target: IpAddr, stage: Stage) -> bool {
        let Self { vipa: of, client, target: at, state } = *self;
        of.is_none_or(|of| of == vipa)
            && client.is_none_or(|client| client == connection.client.ip().to_canonical())
            && at.is_none_or(|at| at == target)
            && state.is_none_or(|state| state == stage)
    }
}

/// How far the router knows a connection's life to have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    HalfOpen,
    Open,
    /// The target has reported it.
    Confirmed,
    Closing,
    Udp,
    /// The target has reported its end; kept for a while. No list of connections has these.
    Ended,
}

impl Stage {
    /// Those that lists of connections have.
    pub const LISTED: [Self; 5] = [Self::HalfOpen, Self::Open, Self::Confirmed, Self::Closing, Self::Udp];

    /// As on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Open => "open",
            Self::Confirmed => "confirmed",
            Self::Closing => "closing",
            Self::Udp => "udp",
            Self::Ended => "ended",
        }
    }
}
