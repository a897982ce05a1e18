//! A configuration on trial: taken up, and taken back unless an operator confirms it in time.
//!
//! ```text
//!   reload --confirm 60s ──applied──► on trial ──confirm──► kept
//!                                        └─ 60 s, or confirm --undo ──► the former configuration
//! ```
//! The trial is this process's own: a router that is restarted takes up what its file says, and awaits nothing.

use std::{sync::Arc, time::Duration};

use vipa_model::{Moment, config::Config};
use vipa_protocol::admin::{Answer, Reload, ReloadMode, ReloadOutcome, Said};

use crate::control::Control;

/// The shortest and the longest trial.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_600);

/// What is taken back unless it is confirmed.
pub(crate) struct Trial {
    former: Arc<Config>,
    until: Moment,
}

impl Control {
    /// Until the configuration is taken back, if it is on trial.
    pub(crate) fn trial_left(&self) -> Option<Duration> {
        self.trial.as_ref().map(|trial| trial.until.since(self.clock.now()))
    }

    /// Whether `next` may be taken up now, on trial for so long if that is asked for.
    pub(crate) fn judge_trial(
        &self,
        next: Config,
        mode: ReloadMode,
        confirm: Option<Duration>,
    ) -> Result<Config, String> {
        if let Some(left) = self.trial_left().filter(|_| mode != ReloadMode::DryRun) {
            return Err(format!(
                "a reload awaits its confirmation for another {} s: `vipactl confirm` keeps it, `vipactl confirm --undo` takes it back",
                left.as_secs()
            ));
        }
        let Some(time) = confirm else { return Ok(next) };
        if !(SHORTEST..=LONGEST).contains(&time) {
            return Err(format!(
                "a confirmation can be awaited for {} s to {} s",
                SHORTEST.as_secs(),
                LONGEST.as_secs()
            ));
        }
        // The version of a list of voters only grows, so none can be taken back.
        if next.cluster.voters != self.config.cluster.voters {
            return Err("a change of voters cannot be taken back; reload it without --confirm".into());
        }
        Ok(next)
    }

    /// What was taken up is on trial for so long.
    pub(crate) fn begin_trial(&mut self, former: Arc<Config>, reload: &mut Reload, confirm: Option<Duration>) {
        let is_applied = matches!(reload.outcome, ReloadOutcome::Applied | ReloadOutcome::AppliedInPart);
        let Some(time) = confirm.filter(|_| is_applied) else { return };
        tracing::info!("the configuration falls back to the former one in {} s unless it is confirmed", time.as_secs());
        self.trial = Some(Trial { former, until: self.clock.now() + time });
        reload.confirm_within_ms = Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    /// An operator keeps what is on trial, or takes it back.
    pub(crate) fn confirm(&mut self, undo: bool) -> Answer {
        let Some(trial) = self.trial.take() else {
            return Answer::NotFound("no reload awaits its confirmation; it may have fallen back already".into());
        };
        let sentence = if undo {
            self.fall_back(&trial, "an operator took it back")
        } else {
            tracing::info!("the configuration is confirmed");
            "confirmed: the configuration stays".into()
        };
        Answer::Done(Said { sentence })
    }

    /// Ends a trial whose time is over.
    pub(crate) fn end_trial(&mut self, now: Moment) {
        if let Some(trial) = self.trial.take_if(|trial| now >= trial.until) {
            self.fall_back(&trial, "nobody confirmed it in time");
        }
    }

    fn fall_back(&mut self, trial: &Trial, why: &str) -> String {
        let file = self.reader.file.display();
        let sentence =
            format!("the former configuration is in force again, because {why}; {file} still says the other");
        tracing::warn!("{sentence}");
        self.counts.reloads_reverted += 1;
        self.configure(self.config.with_live_part_of(&trial.former));
        sentence
    }
}
