//! A changed configuration, taken up while packets flow.

use serde::{Deserialize, Serialize};

/// How far a reload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ReloadMode {
    /// Says what would change, and changes nothing.
    DryRun,
    /// All of it or, when a part needs a restart, nothing.
    Whole,
    /// What a running router can take up.
    Live,
}

/// What a reload found, and did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reload {
    pub file: String,
    pub changes: Vec<ReloadChange>,
    pub outcome: ReloadOutcome,
    /// It is taken back after so long unless it is confirmed.
    #[serde(default)]
    pub confirm_within_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReloadChange {
    pub what: String,
    pub from: String,
    pub to: String,
    pub needs_restart: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ReloadOutcome {
    /// The file says what the router does already.
    Unchanged,
    Rehearsed,
    Applied,
    /// Applied but for what needs a restart.
    AppliedInPart,
    /// Nothing was changed, because something needs a restart.
    NeedsRestart,
}
