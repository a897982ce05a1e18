//! What a request may do.

use super::{AuditMode, ReloadMode, Request};

impl Request {
    /// Whether it changes something at the router or in the cluster; who may only read may not ask it.
    #[must_use]
    pub fn changes_something(&self) -> bool {
        match self {
            Self::Order { .. } | Self::Record { .. } | Self::Confirm { .. } => true,
            // It slows workers down, and shows what clients say.
            Self::CaptureStart { .. } | Self::CaptureRead | Self::CaptureStop => true,
            Self::Reload { mode, .. } => *mode != ReloadMode::DryRun,
            Self::Audit { mode, .. } => *mode == AuditMode::Repair,
            Self::Status
            | Self::Connections { .. }
            | Self::Explain { .. }
            | Self::Distribution
            | Self::Takeovers
            | Self::Counters
            | Self::Ports
            | Self::Workers
            | Self::Drill { .. }
            | Self::Diff { .. }
            | Self::Decisions
            | Self::Events { .. }
            | Self::Health => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Order;

    #[test]
    fn looking_changes_nothing_and_ordering_does() {
        let reload = |mode| Request::Reload { mode, confirm_ms: None }.changes_something();
        let audit = |mode| Request::Audit { vipa: None, mode }.changes_something();
        assert_eq!(
            (reload(ReloadMode::DryRun), reload(ReloadMode::Whole), reload(ReloadMode::Live)),
            (false, true, true)
        );
        assert_eq!((audit(AuditMode::Look), audit(AuditMode::Repair)), (false, true));
        assert!(Request::Order { order: Order::Join { node: None } }.changes_something());
        assert!(!Request::Status.changes_something());
    }
}
