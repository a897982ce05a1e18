//! What control counts, beside the workers.

use std::cell::Cell;

use tokio::sync::watch;
use vipa_transport::{Statistics, state::Writes};

use crate::{admin::socket::ClientCounts, table::reports::Taken};

/// By `named`'s names, which docs/counters.md explains.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reports: Taken,
    pub(crate) reloads: u64,
    pub(crate) reloads_refused: u64,
    pub(crate) reloads_reverted: u64,
    pub(crate) questions_denied: u64,
    pub(crate) paths_forgotten: u64,
    pub(crate) routes_deferred: u64,
    pub(crate) frames_unsent: Cell<u64>,
    pub(crate) paths_lowered: u64,
    pub(crate) conflicts_heard: u64,
    pub(crate) conflicts_answered: u64,
    pub(crate) kernel_interferences: u64,
    pub(crate) clients: watch::Sender<ClientCounts>,
}

impl Counts {
    /// `writes`: of the files of this node's state; `denied`: messages that the cluster did not listen to; `links`: what the
    /// transport has counted; `links_refused`: attempts to link.
    pub(crate) fn named(
        &self,
        writes: Writes,
        denied: u64,
        links: Statistics,
        links_refused: u64,
    ) -> [(String, u64); 27] {
        let Taken { opened, closed, swept, refused, disputed, unlisted, over_share } = self.reports;
        let Writes { stored, failed, slow } = writes;
        let clients = *self.clients.borrow();
        [
            ("report.opened".into(), opened),
            ("report.closed".into(), closed),
            ("report.swept".into(), swept),
            ("report.refused".into(), refused),
            ("report.disputed".into(), disputed),
            ("report.unlisted".into(), unlisted),
            ("report.over-share".into(), over_share),
            ("reload.applied".into(), self.reloads),
            ("reload.refused".into(), self.reloads_refused),
            ("reload.reverted".into(), self.reloads_reverted),
            ("link.refused".into(), links_refused),
            ("handshake.retried".into(), links.handshakes_retried),
            ("handshake.refused".into(), links.handshakes_refused),
            ("handshake.expired".into(), links.handshakes_expired),
            ("message.denied".into(), denied + self.questions_denied),
            ("path.forgotten".into(), self.paths_forgotten),
            ("routes.deferred".into(), self.routes_deferred),
            ("frame.unsent".into(), self.frames_unsent.get()),
            ("path.lowered".into(), self.paths_lowered),
            ("conflict.heard".into(), self.conflicts_heard),
            ("conflict.answered".into(), self.conflicts_answered),
            ("kernel.interference".into(), self.kernel_interferences),
            ("client.displaced".into(), clients.displaced),
            ("client.slow".into(), clients.slow),
            ("state.stored".into(), stored),
            ("state.failed".into(), failed),
            ("state.slow".into(), slow),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_controls_is_documented() {
        let page = include_str!("../../../docs/counters.md");
        let (_, of_control) = page.split_once("\n## Control\n").expect("control's counters have a chapter");
        for (name, _) in Counts::default().named(Writes::default(), 0, Statistics::default(), 0) {
            assert!(of_control.contains(&format!("| `{name}` |")), "docs/counters.md does not say what {name} is");
        }
    }
}
