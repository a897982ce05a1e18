//! Whose votes count, when that changes: judged by the target's brain, stored, and only then taken up and told.

use std::path::Path;

use anyhow::Context;
use tokio::sync::mpsc;
use vipa_cluster::target::Event;
use vipa_model::Voters;
use vipa_transport::votes::{VoteFile, VoteKeeper};

use crate::agent::Agent;

/// Voters between the configuration, the disk and the brain.
pub(crate) struct Voting {
    keeper: VoteKeeper<Voters>,
    /// Those of the configuration, until the brain goes by them.
    wanted: Option<Voters>,
    /// Those on their way to the disk.
    stored_next: Option<Voters>,
    /// Why it does not yet, as last said.
    said: String,
}

impl Voting {
    /// What the brain is to go by at first, too. Call it within the runtime.
    pub(crate) fn start(state_dir: &Path, configured: &Voters) -> anyhow::Result<(Voters, Self, mpsc::Receiver<u64>)> {
        let (file, known) = VoteFile::open_as(state_dir, "voters.json")?;
        let (voters, wanted) = vipa_cluster::at_start(known.into_iter().next(), configured);
        if voters.are_known() {
            let stored = file.store(std::slice::from_ref(&voters));
            stored.with_context(|| format!("cannot write to state_dir {}", state_dir.display()))?;
        }
        let (keeper, stored) = VoteKeeper::start(file);
        Ok((voters, Self { keeper, wanted, stored_next: None, said: String::new() }, stored))
    }
}

impl Agent {
    /// Of a changed configuration a running agent takes up the voters; the rest needs a restart.
    pub(crate) fn reload(&mut self, file: &Path) {
        match crate::read(file) {
            Ok((config, _)) => {
                self.voting.wanted = Some(config.cluster.voters).filter(|voters| voters != self.target.voters());
                match self.voting.wanted {
                    Some(_) => self.seek_voters(),
                    None => tracing::info!("reload: the voters are the same, and all else needs a restart"),
                }
            }
            Err(error) => tracing::warn!("the configuration was not reloaded: {error:#}"),
        }
    }

    /// Goes by the voters of the configuration, once that may be.
    pub(crate) fn seek_voters(&mut self) {
        let Some(wanted) = self.voting.wanted.clone().filter(|_| self.voting.stored_next.is_none()) else { return };
        match self.target.may_go_by(self.now(), &wanted) {
            Ok(()) => {
                self.voting.keeper.store(u64::from(wanted.version), vec![wanted.clone()]);
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

    pub(crate) fn voters_stored(&mut self, version: u64) {
        let Some(voters) = self.voting.stored_next.take_if(|voters| u64::from(voters.version) == version) else {
            return;
        };
        if self.voting.wanted.as_ref() == Some(&voters) {
            self.voting.wanted = None;
        }
        self.voting.said.clear();
        self.feed(Event::Voters { voters });
        self.links.introduce(self.target.hello());
    }
}
