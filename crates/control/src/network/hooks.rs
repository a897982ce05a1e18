//! Programs that are told when a VIPA comes and goes (`[hooks]`).
//!
//! Of each VIPA one runs at a time, of all at most [`AT_ONCE`]. A VIPA that came and went while its hook ran is looked at
//! again when that has ended, so that the last word a hook was told is always the truth.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    process::{ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::Command,
    sync::watch,
    task::{Id, JoinSet},
};
use vipa_model::{Epoch, NodeName, config};

use crate::network::advertiser::Owned;

/// Hooks that run at one time.
const AT_ONCE: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) run: u64,
    /// Of those: ended badly, could not be started, or had to be killed.
    pub(crate) failed: u64,
}

/// Runs hooks until the writer is gone and its last word has been told.
pub(crate) async fn run(
    me: NodeName,
    settings: watch::Receiver<config::Hooks>,
    owned: watch::Receiver<Owned>,
    counts: watch::Sender<Counts>,
) {
    let run = |hook: Hook, me: NodeName| async move { hook.run(&me).await };
    run_with(run, me, settings, owned, counts).await;
}

/// `program` runs a hook, and says whether it went well.
async fn run_with<F: Future<Output = bool> + Send + 'static>(
    program: impl Fn(Hook, NodeName) -> F,
    me: NodeName,
    settings: watch::Receiver<config::Hooks>,
    mut owned: watch::Receiver<Owned>,
    counts: watch::Sender<Counts>,
) {
    let mut told = Owned::new();
    let mut running: JoinSet<bool> = JoinSet::new();
    let mut by_task: BTreeMap<Id, IpAddr> = BTreeMap::new();
    let mut busy: BTreeMap<IpAddr, Option<Epoch>> = BTreeMap::new();
    let mut open = true;
    loop {
        let wanted = owned.borrow_and_update().clone();
        for (vipa, epoch) in news(&told, &wanted) {
            if busy.len() == AT_ONCE {
                break;
            }
            if busy.contains_key(&vipa) {
                continue;
            }
            let before = told.get(&vipa).copied();
            let Some(hook) = Hook::of(&settings.borrow(), vipa, before, epoch) else {
                tell(&mut told, vipa, epoch);
                continue;
            };
            busy.insert(vipa, epoch);
            let task = running.spawn(program(hook, me.clone()));
            by_task.insert(task.id(), vipa);
        }
        if !open && busy.is_empty() && told == wanted {
            return;
        }
        tokio::select! {
            changed = owned.changed(), if open => open = changed.is_ok(),
            Some(ended) = running.join_next_with_id() => {
                let (task, went_well) = match ended {
                    Ok((task, went_well)) => (task, went_well),
                    Err(error) => {
                        tracing::error!(%error, "a task that ran a hook broke off");
                        (error.id(), false)
                    }
                };
                let Some(vipa) = by_task.remove(&task) else { continue };
                if let Some(epoch) = busy.remove(&vipa) {
                    tell(&mut told, vipa, epoch);
                }
                counts.send_modify(|counts| {
                    counts.run += 1;
                    counts.failed += u64::from(!went_well);
                });
            }
        }
    }
}

/// Where what was told and what is differ; `None`: it was released.
fn news(told: &Owned, wanted: &Owned) -> Vec<(IpAddr, Option<Epoch>)> {
    let gone = told.keys().filter(|vipa| !wanted.contains_key(vipa)).map(|vipa| (*vipa, None));
    let come = wanted.iter().filter(|(vipa, epoch)| told.get(vipa) != Some(epoch));
    gone.chain(come.map(|(vipa, epoch)| (*vipa, Some(*epoch)))).collect()
}

fn tell(told: &mut Owned, vipa: IpAddr, epoch: Option<Epoch>) {
    match epoch {
        Some(epoch) => told.insert(vipa, epoch),
        None => told.remove(&vipa),
    };
}

/// One run of a program.
struct Hook {
    command: Vec<String>,
    word: &'static str,
    vipa: IpAddr,
    epoch: Epoch,
    limit: std::time::Duration,
}

impl Hook {
    fn of(settings: &config::Hooks, vipa: IpAddr, before: Option<Epoch>, now: Option<Epoch>) -> Option<Self> {
        let (command, word) = match now {
            Some(_) => (settings.owned.as_ref(), "owned"),
            None => (settings.released.as_ref(), "released"),
        };
        let epoch = now.or(before).unwrap_or(Epoch::NONE);
        Some(Self { command: command?.clone(), word, vipa, epoch, limit: settings.timeout })
    }

    /// Whether it went well; what did not is in the log.
    async fn run(self, me: &NodeName) -> bool {
        let Self { command, word, vipa, epoch, limit } = self;
        let Some((program, arguments)) = command.split_first() else { return false };
        let mut prepared = Command::new(program);
        prepared.args(arguments).args([word, &vipa.to_string(), &epoch.to_string()]);
        prepared.env("VIPA_NODE", me.as_str()).stdin(Stdio::null()).stdout(Stdio::null());
        let run = run_in_group(prepared.process_group(0).kill_on_drop(true));
        let wrong = match tokio::time::timeout(limit, run).await {
            Ok(Ok(status)) if status.success() => return true,
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => format!("cannot run it: {error}"),
            Err(_) => {
                let limit = limit.as_millis();
                format!("it was still running after {limit} ms and was killed, with all that it had started")
            }
        };
        tracing::warn!(hook = %program, %word, %vipa, %epoch, "a hook failed: {wrong}");
        false
    }
}

/// Runs a program in a process group of its own. When this is dropped before the program has ended, all of the group is killed;
/// what a program that ends leaves running goes on.
async fn run_in_group(command: &mut Command) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    // Declared after the child and so dropped before it: the group's number is not free for others until the child is.
    let mut group = ProcessGroup(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let status = child.wait().await?;
    group.0 = None;
    Ok(status)
}

/// The processes a hook has started; `None` once it has ended.
struct ProcessGroup(Option<Pid>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // What ended by itself is not there any more.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests;
