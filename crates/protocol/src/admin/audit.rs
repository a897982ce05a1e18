//! The connection table compared with what the targets hold.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vipa_model::{Connection, NodeName};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AuditMode {
    Look,
    Repair,
}

/// The connection table against what the targets hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Audit {
    /// Every linked target of every VIPA asked about.
    pub targets: Vec<TargetAudit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TargetAudit {
    pub vipa: IpAddr,
    pub target: IpAddr,
    pub node: NodeName,
    pub result: AuditResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AuditResult {
    /// The table has exactly the established connections that the target holds; how many.
    Agrees {
        connections: u64,
    },
    Differs {
        connections: u64,
        differences: Vec<(Difference, u64)>,
        examples: Vec<AuditExample>,
        /// Parts of the table that differ and were not looked at yet.
        parts_left: u64,
        repaired: bool,
    },
    NoAnswer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditExample {
    pub connection: Connection,
    pub difference: Difference,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    /// The target holds it, the table does not know it.
    Missing,
    /// The table has it at another target.
    Elsewhere,
    /// The table has it in another state than established and reported.
    Unconfirmed,
    /// The table has it, the target does not.
    Stale,
}

impl Difference {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Elsewhere => "elsewhere",
            Self::Unconfirmed => "unconfirmed",
            Self::Stale => "stale",
        }
    }
}
