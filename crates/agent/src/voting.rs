//! Whose votes count, when that changes: judged by the target's brain, stored, and only then taken up and told.

use std::{path::Path, time::Duration};

use anyhow::Context;
use vipa_cluster::target::Event;
use vipa_model::{Voters, config::Config, with_causes};
use vipa_transport::{
    Admission,
    state::{GroupCommit, Kind, Outcome, StateFile},
};

use crate::agent::Agent;

/// Voters between the configuration, the disk and the brain.
pub(crate) struct Voting {
    pub(crate) file: GroupCommit<Voters>,
    /// Those of the configuration, until the brain goes by them.
    wanted: Option<Voters>,
    /// Those that wait for the disk or are on their way there.
    stored_next: Option<Voters>,
    /// Why it does not yet, as last said.
    said: String,
}

impl Voting {
    /// What the brain is to go by at first, too. Call it within the runtime.
    pub(crate) fn start(state_dir: &Path, slow: Duration, configured: &Voters) -> anyhow::Result<(Voters, Self)> {
        let (file, known) = StateFile::open(state_dir, Kind::Voters)?;
        let (voters, wanted) = vipa_cluster::at_start(known.into_iter().next(), configured);
        if voters.are_known() {
            let stored = file.store(std::slice::from_ref(&voters));
            stored.with_context(|| format!("cannot write to state_dir {}", state_dir.display()))?;
        }
        let file = GroupCommit::start(file, slow);
        Ok((voters, Self { file, wanted, stored_next: None, said: String::new() }))
    }

    /// Begins to write the voters that wait for the disk.
    pub(crate) fn flush(&mut self) {
        if let Some(voters) = &self.stored_next {
            self.file.flush(|| (u64::from(voters.version), vec![voters.clone()]));
        }
    }
}

impl Agent {
    /// Of a changed configuration a running agent takes up the voters and what is revoked; the rest needs a restart.
    pub(crate) fn reload(&mut self, file: &Path) {
        match crate::read(file) {
            Ok((config, _)) => {
                self.metrics.reloaded(true);
                self.revoke(&config);
                self.voting.wanted = Some(config.cluster.voters).filter(|voters| voters != self.target.voters());
                match self.voting.wanted {
                    Some(_) => self.seek_voters(),
                    None => tracing::info!(
                        "reload: the voters are the same; but for what is revoked all else needs a restart"
                    ),
                }
            }
            Err(error) => {
                self.metrics.reloaded(false);
                tracing::warn!("the configuration was not reloaded: {}", with_causes(error.as_ref()));
            }
        }
    }

    /// Links of nodes that are revoked are cut. Which routers there are stays as it was at the start.
    fn revoke(&self, config: &Config) {
        let Admission { revoked_nodes, revoked_serials, .. } = Admission::of(config);
        let routers = self.routers.clone();
        // Nobody links to an agent: it dials.
        self.links.admit(Admission { routers, revoked_nodes, revoked_serials, ..Admission::default() });
    }

    /// Goes by the voters of the configuration, once that may be.
    pub(crate) fn seek_voters(&mut self) {
        let Some(wanted) = self.voting.wanted.clone().filter(|_| self.voting.stored_next.is_none()) else { return };
        match self.target.may_go_by(self.now(), &wanted) {
            Ok(()) => {
                self.voting.file.request();
                self.voting.stored_next = Some(wanted);
            }
            Err(objection) => {
                let objection = objection.to_string();
                if self.voting.said != objection {
                    tracing::warn!("the voters of the configuration do not count yet: {objection}");
                    self.voting.said = objection;
                }
            }
        }
    }

    /// Voters that the disk has refused are sought again in a while.
    pub(crate) fn voters_stored(&mut self, outcome: &Outcome) {
        let Some(voters) = self.voting.stored_next.take() else { return };
        if let Outcome::Failed { .. } = outcome {
            return;
        }
        if self.voting.wanted.as_ref() == Some(&voters) {
            self.voting.wanted = None;
        }
        self.voting.said.clear();
        self.feed(Event::Voters { voters });
        self.links.introduce(self.target.hello());
    }
}
