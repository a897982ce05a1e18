//! Whose votes count, when that changes: judged by the cluster, stored, and only then taken up and told.

use std::time::Duration;

use tokio::sync::mpsc;
use vipa_cluster::Objection;
use vipa_model::{
    Moment, Voters,
    config::{Cluster, Config},
};
use vipa_protocol::admin::ReloadMode;
use vipa_transport::votes::{VoteFile, VoteKeeper};

use crate::{control::Control, reload::Fresh};

/// How often a router that was started with voters it could not go by looks whether it can.
const LOOK: Duration = Duration::from_secs(1);

/// Voters between the configuration, the disk and the cluster.
pub(crate) struct Voting {
    keeper: VoteKeeper<Voters>,
    on_disk: Voters,
    /// What waits for its voters to be stored.
    waiting: Option<Fresh>,
    /// Those that the configuration named at the start, until this router goes by them or by others.
    wanted: Option<Voters>,
    next_look: Moment,
}

impl Voting {
    /// Call it within the runtime. The versions that are stored come out of the receiver.
    pub(crate) fn start(file: VoteFile, on_disk: Voters, wanted: Option<Voters>) -> (Self, mpsc::Receiver<u64>) {
        let (keeper, stored) = VoteKeeper::start(file);
        (Self { keeper, on_disk, waiting: None, wanted, next_look: Moment::ZERO }, stored)
    }

    pub(crate) fn has(&self, voters: &Voters) -> bool {
        self.on_disk == *voters
    }
}

impl Control {
    /// Refuses a configuration whose voters may not follow those of now.
    pub(crate) fn judge_voters(&self, next: Config) -> Result<Config, String> {
        let voters = &self.config.with_live_part_of(&next).cluster.voters;
        let judged = self.cluster.may_go_by(self.clock.now(), voters);
        judged.map(|()| next).map_err(|objection| objection.to_string())
    }

    /// The reload goes on when its voters are stored. One that waited already is overtaken, and told nothing.
    pub(crate) fn store_voters(&mut self, fresh: Fresh) {
        let Ok(next) = &fresh.config else { return };
        let voters = next.cluster.voters.clone();
        self.voting.keeper.store(u64::from(voters.version), vec![voters]);
        self.voting.waiting = Some(fresh);
    }

    pub(crate) fn voters_stored(&mut self, version: u64) {
        let voters = |fresh: &Fresh| fresh.config.as_ref().ok().map(|next| next.cluster.voters.clone());
        let Some(voters) = self.voting.waiting.as_ref().and_then(voters) else { return };
        if u64::from(voters.version) == version {
            self.voting.on_disk = voters;
            self.voting.wanted = None;
            let fresh = self.voting.waiting.take().expect("just seen");
            self.reload(fresh);
        }
    }

    /// Why this router does not go by the voters of its configuration yet.
    pub(crate) fn voters_wait(&self) -> Option<Objection> {
        self.cluster.may_go_by(self.clock.now(), self.voting.wanted.as_ref()?).err()
    }

    /// Goes by the voters named at the start, once it may.
    pub(crate) fn seek_voters(&mut self, now: Moment) {
        let Some(wanted) = self.voting.wanted.clone().filter(|_| now >= self.voting.next_look) else { return };
        self.voting.next_look = now + LOOK;
        if self.voting.waiting.is_none() && self.voters_wait().is_none() {
            let cluster = Cluster { voters: wanted, ..self.config.cluster.clone() };
            let config = Ok(Config { cluster, ..(*self.config).clone() });
            self.reload(Fresh { config, mode: ReloadMode::Whole, reply: None });
        }
    }
}
