//! How a service's new connections are shared among those of its candidates that are fit for them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What decides each candidate's share, beside `Balance`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Choice {
    pub weights: Weights,
    /// Candidates whose configured weight is not [`Choice::USUAL_WEIGHT`].
    pub exceptions: Vec<(IpAddr, u16)>,
}

/// Where a candidate's weight comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

    /// The configured weight of a candidate.
    #[must_use]
    pub fn weight_of(&self, candidate: IpAddr) -> u16 {
        let exception = self.exceptions.iter().find(|(address, _)| *address == candidate);
        exception.map_or(Self::USUAL_WEIGHT, |&(_, weight)| weight)
    }
}
