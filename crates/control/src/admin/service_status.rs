//! What the service manager is told: that the router is ready, that its loop lives, and in one line how it is.

use std::time::Instant;

use vipa_model::Stance;

use crate::control::Control;

/// What the line of `systemctl status` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ServiceStatus {
    owned: usize,
    rebuilding: usize,
    vipas: usize,
    /// Linked nodes.
    linked: usize,
    unfit: Option<String>,
    stopping: bool,
    /// Of health, as it was judged last.
    verdict: Option<String>,
}

impl Control {
    /// Ready is a router whose workers all forward by routes that this loop has published; its admin socket answers by then.
    pub(crate) fn tend_service_manager(&mut self) {
        if !self.service_manager.is_ready() && !self.routes_stale {
            let versions = self.channel.versions();
            if versions.newest > 1 && versions.seen == versions.newest {
                self.service_manager.ready();
            }
        }
        let mut manager = std::mem::take(&mut self.service_manager);
        manager.tend(Instant::now(), || self.service_status().sentence());
        self.service_manager = manager;
    }

    fn service_status(&self) -> ServiceStatus {
        let count = |wanted: &[Stance]| self.routing.vipas.iter().filter(|vipa| wanted.contains(&vipa.stance)).count();
        ServiceStatus {
            owned: count(&[Stance::Active, Stance::Rebuilding]),
            rebuilding: count(&[Stance::Rebuilding]),
            vipas: self.config.vipas.len(),
            linked: self.cluster.peers().len(),
            unfit: self.cluster.unfit().map(ToOwned::to_owned),
            stopping: self.is_stopping(),
            verdict: self.health.verdict.clone(),
        }
    }
}

impl ServiceStatus {
    fn sentence(&self) -> String {
        let Self { owned, rebuilding, vipas, linked, unfit, stopping, verdict } = self;
        let mut sentence = verdict.as_ref().map(|verdict| format!("{verdict}; ")).unwrap_or_default();
        sentence += &format!("owns {owned} of {vipas} VIPAs");
        if *rebuilding > 0 {
            sentence += &format!(", of which {rebuilding} are rebuilding");
        }
        sentence += &format!("; {linked} nodes linked");
        if let Some(why) = unfit {
            sentence += &format!("; unfit to route: {why}");
        }
        if *stopping { format!("stopping: {sentence}") } else { sentence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_the_router_owns_whom_it_hears_and_what_ails_it() {
        let healthy = ServiceStatus { owned: 2, vipas: 3, linked: 4, ..ServiceStatus::default() };
        assert_eq!(healthy.sentence(), "owns 2 of 3 VIPAs; 4 nodes linked");
        let judged = ServiceStatus { verdict: Some("ok: 17 checks passed".into()), ..healthy.clone() };
        assert_eq!(judged.sentence(), "ok: 17 checks passed; owns 2 of 3 VIPAs; 4 nodes linked");
        let ailing = ServiceStatus { rebuilding: 1, unfit: Some("port p0 is down".into()), stopping: true, ..healthy };
        assert_eq!(
            ailing.sentence(),
            "stopping: owns 2 of 3 VIPAs, of which 1 are rebuilding; 4 nodes linked; unfit to route: port p0 is down"
        );
    }
}
