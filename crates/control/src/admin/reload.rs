//! A changed configuration, taken up while packets flow: read beside the loop, judged whole, applied whole or not at all.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use vipa_cluster::Event;
use vipa_model::config::{Change, Config, Effect, Program};
use vipa_protocol::{
    EventKind, Operator, ReloadResult,
    admin::{Answer, Reload, ReloadChange, ReloadMode, ReloadOutcome},
    event::event_text,
    health::ReloadFacts,
};
use vipa_transport::Admission;

use crate::{admin::socket::Reply, control::Control, ownership::restart_gap::unix_ms, settings::settings};

/// Changes told one by one in the log's line; `vipactl reload` shows all of them.
const NAMED: usize = 8;

/// A configuration that was read, on its way back to the loop.
pub(crate) struct Fresh {
    pub(crate) config: Result<Config, String>,
    pub(crate) mode: ReloadMode,
    /// It is taken back unless it is confirmed within this time.
    pub(crate) confirm: Option<Duration>,
    /// Nobody waits for the answer to a signal; the log has it.
    pub(crate) reply: Option<Reply>,
}

/// What else a configuration must meet on this host, beside being valid: a sentence when it does not.
pub type Check = fn(&Config) -> Result<(), String>;

/// Reads the file again and again.
pub(crate) struct Reader {
    pub(crate) file: PathBuf,
    pub(crate) check: Check,
    pub(crate) fresh: mpsc::Sender<Fresh>,
}

impl Reader {
    pub(crate) fn start(&self, mode: ReloadMode, confirm: Option<Duration>, reply: Option<Reply>) {
        let (file, check, fresh) = (self.file.clone(), self.check, self.fresh.clone());
        tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || read(&file, check));
            let config = read.await.unwrap_or_else(|error| Err(error.to_string()));
            // The loop may have ended meanwhile.
            let _ = fresh.send(Fresh { config, mode, confirm, reply }).await;
        });
    }
}

fn outcome(changes: &[Change], mode: ReloadMode) -> ReloadOutcome {
    let restart = changes.iter().any(|change| change.effect == Effect::Restart);
    let live = changes.iter().any(|change| change.effect == Effect::Live);
    match mode {
        _ if changes.is_empty() => ReloadOutcome::Unchanged,
        ReloadMode::DryRun => ReloadOutcome::Rehearsed,
        ReloadMode::Whole if restart => ReloadOutcome::NeedsRestart,
        ReloadMode::Live if !live => ReloadOutcome::NeedsRestart,
        ReloadMode::Live if restart => ReloadOutcome::AppliedInPart,
        ReloadMode::Whole | ReloadMode::Live => ReloadOutcome::Applied,
    }
}

/// For the log: what is taken up, and what is left for a restart.
fn in_a_line(changes: &[Change]) -> String {
    let (live, left): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.effect == Effect::Live);
    let named = live.iter().take(NAMED).map(|change| format!("{}: {} → {}", change.what, change.from, change.to));
    let mut parts: Vec<String> = named.collect();
    if live.len() > NAMED {
        parts.push(format!("{} more changes", live.len() - NAMED));
    }
    if !left.is_empty() {
        let what: Vec<_> = left.iter().map(|change| &*change.what).collect();
        parts.push(format!("not taken up before a restart: {}", what.join(", ")));
    }
    parts.join("; ")
}

fn read(file: &std::path::Path, check: Check) -> Result<Config, String> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
    let config = Config::parse_for(Program::Router, &name, &text).map_err(|errors| errors.to_string())?;
    check(&config).map(|()| config)
}

impl Control {
    /// What was read has come: compares, and applies what there is to apply.
    pub(crate) fn reload(&mut self, fresh: Fresh) {
        let Fresh { config, mode, confirm, reply } = fresh;
        let fits = |next: Config| self.routing.has_room(&next.vipas).map(|()| next);
        let by = reply.as_ref().map(|reply| reply.operator().cloned().unwrap_or_default());
        let judged = config.and_then(fits).and_then(|next| self.judge_voters(next));
        let answer = match judged.and_then(|next| self.judge_trial(next, mode, confirm)) {
            Ok(next) if self.stores_voters_first(&next, mode) => {
                // The rest waits for a disk; the log says how it ends.
                if reply.is_none() {
                    self.service_manager.reloaded();
                }
                return self.store_voters(Fresh { config: Ok(next), mode, confirm, reply });
            }
            Ok(next) => {
                let former = Arc::clone(&self.config);
                let mut reload = self.take_up(&next, mode);
                self.begin_trial(former, &mut reload, confirm);
                Answer::Reload(reload)
            }
            Err(mistakes) => {
                tracing::warn!("the configuration was not reloaded: {mistakes}");
                self.counts.reloads_refused += 1;
                self.metrics.reloaded(false);
                Answer::Error(format!("nothing was changed:\n{mistakes}"))
            }
        };
        if mode != ReloadMode::DryRun {
            self.remember_reload(by, &answer);
        }
        match reply {
            Some(reply) => reply.end(answer),
            // A signal has no other answer than the log.
            None => self.service_manager.reloaded(),
        }
    }

    /// For health and events.
    fn remember_reload(&mut self, by: Option<Operator>, answer: &Answer) {
        let result = match answer {
            Answer::Reload(Reload { changes, outcome, .. }) => {
                let live = changes.iter().filter(|change| !change.needs_restart).count() as u32;
                match outcome {
                    ReloadOutcome::Unchanged | ReloadOutcome::Rehearsed => ReloadResult::Unchanged,
                    ReloadOutcome::Applied => ReloadResult::Applied { changes: live },
                    ReloadOutcome::AppliedInPart => ReloadResult::AppliedInPart { changes: live },
                    ReloadOutcome::NeedsRestart => ReloadResult::NeedsRestart,
                }
            }
            Answer::Error(why) => ReloadResult::Refused { why: event_text(why) },
            _ => return,
        };
        let is_failed = matches!(result, ReloadResult::NeedsRestart | ReloadResult::Refused { .. });
        let failed = is_failed.then(|| result.to_string());
        self.health.reload = Some(ReloadFacts { unix_ms: unix_ms(), failed });
        self.write_down(EventKind::Reload { by, result });
    }

    fn take_up(&mut self, next: &Config, mode: ReloadMode) -> Reload {
        let changes = self.config.changes(next);
        let outcome = outcome(&changes, mode);
        // The file as it is now counts, also where it says that nothing is to change.
        if mode != ReloadMode::DryRun && outcome != ReloadOutcome::NeedsRestart {
            let overtaken = self.voting.overtake("another reload came before its voters were on the disk");
            self.counts.reloads_refused += u64::from(overtaken);
        }
        match outcome {
            ReloadOutcome::Rehearsed => {}
            ReloadOutcome::NeedsRestart => self.metrics.reloaded(false),
            ReloadOutcome::Applied | ReloadOutcome::AppliedInPart | ReloadOutcome::Unchanged => {
                self.metrics.reloaded(true)
            }
        }
        match outcome {
            ReloadOutcome::Applied | ReloadOutcome::AppliedInPart => {
                tracing::info!("reloaded: {}", in_a_line(&changes));
                self.counts.reloads += 1;
                self.configure(self.config.with_live_part_of(next));
            }
            ReloadOutcome::NeedsRestart => {
                self.counts.reloads_refused += 1;
                let what: Vec<_> = changes.iter().filter(|change| change.effect == Effect::Restart).collect();
                let what: Vec<_> = what.iter().map(|change| &*change.what).collect();
                tracing::warn!("nothing was reloaded: {} needs a restart", what.join(", "));
            }
            ReloadOutcome::Unchanged => tracing::info!("reloaded: nothing has changed"),
            ReloadOutcome::Rehearsed => {}
        }
        let change = |Change { what, from, to, effect }| ReloadChange {
            what,
            from,
            to,
            needs_restart: effect == Effect::Restart,
        };
        Reload {
            file: self.reader.file.display().to_string(),
            changes: changes.into_iter().map(change).collect(),
            outcome,
            confirm_within_ms: None,
        }
    }

    /// Whether voters change with this, and are not on the disk yet.
    fn stores_voters_first(&self, next: &Config, mode: ReloadMode) -> bool {
        let applied = || match outcome(&self.config.changes(next), mode) {
            ReloadOutcome::Applied | ReloadOutcome::AppliedInPart => true,
            ReloadOutcome::Unchanged | ReloadOutcome::Rehearsed | ReloadOutcome::NeedsRestart => false,
        };
        !self.voting.has(&self.config.with_live_part_of(next).cluster.voters) && applied()
    }

    /// From now on this is the configuration: for everybody, in the order in which a failure would do least harm.
    pub(crate) fn configure(&mut self, next: Config) {
        let now = self.clock.now();
        let next = Arc::new(next);
        self.advertiser.set_hooks(&next.hooks);
        self.announcements.reschedule(&next.announce, now);
        self.self_check.set(next.autonomics.clone());
        self.routing.configure(&next.vipas);
        self.config = next;
        self.configs.send_replace(Arc::clone(&self.config));
        let settings = Box::new(settings(&self.config, self.cluster.hello().incarnation));
        self.feed(Event::Configured { settings });
        self.links.introduce(self.cluster.hello());
        self.links.admit(Admission::of(&self.config));
        self.reach_targets();
    }

    /// The cluster has done with a VIPA that is configured no more. Nobody will report the ends of its connections, so the walk
    /// that looks for its id takes them out of the table.
    pub(crate) fn retire(&mut self, vipa: IpAddr) {
        self.announcements.end(vipa);
        self.advertiser.release(vipa);
        self.replicas.forget(vipa);
        let Some(id) = self.routing.retire(vipa, self.channel.versions()) else { return };
        self.reports.forget(id);
        self.forget_completeness(id);
        self.reach_targets();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(what: &str, effect: Effect) -> Change {
        Change { what: what.into(), from: "1".into(), to: "2".into(), effect }
    }

    #[test]
    fn what_was_taken_up_is_one_line_that_names_a_few_changes_and_counts_the_rest() {
        let two = [change("table.audit_s", Effect::Live), change("cluster.lease_ms", Effect::Restart)];
        let expected = "table.audit_s: 1 → 2; not taken up before a restart: cluster.lease_ms";
        assert_eq!(in_a_line(&two), expected);
        let many: Vec<Change> = (0..11).map(|number| change(&format!("c{number}"), Effect::Live)).collect();
        let line = in_a_line(&many);
        assert!(line.starts_with("c0: 1 → 2; c1: 1 → 2; ") && line.ends_with("c7: 1 → 2; 3 more changes"), "{line}");
    }
}
