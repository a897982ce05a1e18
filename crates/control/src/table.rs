//! The connection table as control keeps it: targets' reports in, ended connections out, transfers and replicas to peers, audits.

pub(crate) mod agent_timeouts;
pub(crate) mod audit;
pub(crate) mod completeness;
pub(crate) mod connection_counts;
pub(crate) mod effects;
pub(crate) mod identifiers;
pub(crate) mod reclaim;
pub(crate) mod replica;
pub(crate) mod reports;
pub(crate) mod share;
pub(crate) mod stale_sweep;
pub(crate) mod transfer;
