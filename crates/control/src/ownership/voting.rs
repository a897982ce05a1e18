//! Whose votes count, when that changes: judged by the cluster, stored, and only then taken up and told.
//!
//! ```text
//!  reload ──► judged ──► on its way to the disk ──► stored ──► taken up
//!               │ no          │ disk refuses, or takes longer than STORE_LIMIT; another reload is taken up
//!               └──► refused ◄┘
//! ```

use std::time::Duration;

use vipa_cluster::Objection;
use vipa_model::{
    Moment, Voters,
    config::{Cluster, Config},
};
use vipa_protocol::admin::{Answer, ReloadMode};
use vipa_transport::state::{GroupCommit, Outcome, StateFile, Writes};

use crate::{admin::reload::Fresh, control::Control};

/// How often a router that was started with voters it could not go by looks whether it can.
const LOOK: Duration = Duration::from_secs(1);
/// A reload whose voters are not on the disk by then is refused.
const STORE_LIMIT: Duration = Duration::from_secs(10);

/// Voters between the configuration, the disk and the cluster.
pub(crate) struct Voting {
    file: GroupCommit<Voters>,
    on_disk: Voters,
    /// What the write under way puts there.
    writing: Option<Voters>,
    waiting: Option<Waiting>,
    /// Those that the configuration named at the start, until this router goes by them or by others.
    wanted: Option<Voters>,
    next_look: Moment,
}

/// A reload that goes on when its voters are on the disk.
struct Waiting {
    voters: Voters,
    fresh: Fresh,
    until: Moment,
}

impl Voting {
    /// Call it within the runtime.
    pub(crate) fn start(file: StateFile<Voters>, slow: Duration, on_disk: Voters, wanted: Option<Voters>) -> Self {
        Self::new(GroupCommit::start(file, slow), on_disk, wanted)
    }

    fn new(file: GroupCommit<Voters>, on_disk: Voters, wanted: Option<Voters>) -> Self {
        Self { file, on_disk, writing: None, waiting: None, wanted, next_look: Moment::ZERO }
    }

    pub(crate) fn has(&self, voters: &Voters) -> bool {
        self.on_disk == *voters
    }

    pub(crate) fn writes(&self) -> Writes {
        self.file.writes()
    }

    pub(crate) async fn done(&mut self) -> Outcome {
        self.file.done().await
    }

    /// Begins to write the voters that wait, or else those in force.
    pub(crate) fn flush(&mut self, in_force: &Voters) {
        let Self { file, waiting, writing, .. } = self;
        file.flush(|| {
            let voters = waiting.as_ref().map_or(in_force, |waiting| &waiting.voters);
            *writing = Some(voters.clone());
            (u64::from(voters.version), vec![voters.clone()])
        });
    }

    /// The reload that waits for its voters is not carried out; who asked for it is told why.
    pub(crate) fn overtake(&mut self, why: &str) -> bool {
        let Some(Waiting { fresh, .. }) = self.waiting.take() else { return false };
        tracing::warn!("a reload that waited for its voters to be stored was not carried out: {why}");
        if let Some(reply) = fresh.reply {
            reply.end(Answer::Error(format!("nothing was changed: {why}")));
        }
        true
    }

    fn store(&mut self, voters: Voters, fresh: Fresh, now: Moment) -> bool {
        let overtaken = self.overtake("another reload came before its voters were on the disk");
        self.waiting = Some(Waiting { voters, fresh, until: now + STORE_LIMIT });
        self.file.request();
        overtaken
    }

    /// A write has ended. What is to be taken up now, and whether a reload that waited is refused.
    fn stored(&mut self, outcome: Outcome) -> (Option<Fresh>, bool) {
        let written = self.writing.take();
        match outcome {
            Outcome::Stored { .. } => {
                self.on_disk = written.unwrap_or_else(|| self.on_disk.clone());
                let waiting = self.waiting.take_if(|waiting| waiting.voters == self.on_disk);
                (waiting.map(|waiting| waiting.fresh), false)
            }
            Outcome::Failed { why } => {
                let of_it = self.waiting.as_ref().is_some_and(|waiting| Some(&waiting.voters) == written.as_ref());
                (None, of_it && self.overtake(&format!("its voters cannot be stored: {why}")))
            }
        }
    }

    /// Whether a reload that waited has waited for too long, and is refused.
    fn give_up(&mut self, now: Moment) -> bool {
        let late = self.waiting.as_ref().is_some_and(|waiting| now >= waiting.until);
        let limit = STORE_LIMIT.as_secs();
        late && self.overtake(&format!("its voters are not on the disk after {limit} s; see whether the disk works"))
    }
}

impl Control {
    /// Refuses a configuration whose voters may not follow those of now.
    pub(crate) fn judge_voters(&self, next: Config) -> Result<Config, String> {
        let voters = &self.config.with_live_part_of(&next).cluster.voters;
        let judged = self.cluster.may_go_by(self.clock.now(), voters);
        judged.map(|()| next).map_err(|objection| objection.to_string())
    }

    /// The reload goes on when its voters are stored. One that waited already is overtaken.
    pub(crate) fn store_voters(&mut self, fresh: Fresh) {
        let Ok(next) = &fresh.config else { return };
        let voters = next.cluster.voters.clone();
        self.counts.reloads_refused += u64::from(self.voting.store(voters, fresh, self.clock.now()));
    }

    pub(crate) fn voters_stored(&mut self, outcome: Outcome) {
        let (fresh, refused) = self.voting.stored(outcome);
        self.counts.reloads_refused += u64::from(refused);
        if let Some(fresh) = fresh {
            self.voting.wanted = None;
            self.reload(fresh);
        }
    }

    /// A reload that was not carried out after its voters had been stored must not bring them into force at the next start.
    fn restore_voters(&mut self) {
        let in_force = &self.config.cluster.voters;
        if self.voting.waiting.is_none() && in_force.are_known() && !self.voting.has(in_force) {
            self.voting.file.request();
        }
    }

    /// Why this router does not go by the voters of its configuration yet.
    pub(crate) fn voters_wait(&self) -> Option<Objection> {
        self.cluster.may_go_by(self.clock.now(), self.voting.wanted.as_ref()?).err()
    }

    /// Goes by the voters named at the start, once it may.
    pub(crate) fn seek_voters(&mut self, now: Moment) {
        self.counts.reloads_refused += u64::from(self.voting.give_up(now));
        self.restore_voters();
        let Some(wanted) = self.voting.wanted.clone().filter(|_| now >= self.voting.next_look) else { return };
        self.voting.next_look = now + LOOK;
        if self.voting.waiting.is_none() && self.trial.is_none() && self.voters_wait().is_none() {
            let cluster = Cluster { voters: wanted, ..self.config.cluster.clone() };
            let config = Ok(Config { cluster, ..(*self.config).clone() });
            self.reload(Fresh { config, mode: ReloadMode::Whole, confirm: None, reply: None });
        }
    }
}

#[cfg(test)]
mod tests;
