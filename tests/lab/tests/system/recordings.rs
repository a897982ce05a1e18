//! `vipa-sim` replays what a real `vipad` has recorded, with the same results.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan},
    programs,
};
use vipa_protocol::{Trigger, admin::Status};

use crate::{CONNECTIONS, all_kept, everyone_answered, kill_the_owner};

/// Makes a router record; returns the file.
fn record(cluster: &mut Cluster, router: &str) -> Result<PathBuf> {
    let router = cluster.router(router);
    router.vipactl(&["record", "start", "--limit-mb", "16"])?;
    let status: Status = serde_json::from_str(&router.vipactl(&["status", "--json"])?)?;
    Ok(status.recording.context("the status names the file")?.into())
}

/// The story of a recording without a fault.
fn replay(file: &PathBuf) -> Result<String> {
    let told = Command::new(programs::path("vipa-sim")?).arg("--replay").arg(file).output()?;
    let story = String::from_utf8(told.stdout)?;
    ensure!(told.status.success(), "{}: {story}", file.display());
    Ok(story)
}

#[test]
fn a_takeover_and_a_takeback_replay_to_what_was_recorded() {
    Plan::new("recordings").run(|cluster| {
        let (owners, backups) = (record(cluster, "r1")?, record(cluster, "r2")?);
        let mut client = cluster.client(CONNECTIONS)?;
        kill_the_owner(cluster, &mut client)?;
        cluster.router("r1").start()?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let said = cluster.router("r2").vipactl(&["record", "stop"])?;
        ensure!(said.contains("events are in"), "{said}");
        all_kept(cluster, client)?;

        let story = replay(&backups)?;
        for part in ["r1: link lost", "trigger: Failure", "standby → suspecting", "may be succeeded by r1", "yielding"]
        {
            ensure!(story.contains(part), "{part:?} is not in the story:\n{story}");
        }
        // Killed, it left what it had recorded until then.
        let story = replay(&owners)?;
        ensure!(story.contains("10.77.0.100: active, epoch 1 of r1"), "{story}");
        Ok(())
    });
}
