//! Voters are added and removed by reload, one at a time, under traffic.

use std::fs;

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    process::wait,
};
use vipa_protocol::admin::{ReloadOutcome, Status};

use crate::{CONNECTIONS, all_kept, changes::reload, kill_the_owner, nothing_lost};

/// Writes a list of voters into a node's configuration.
fn name_voters(cluster: &mut Cluster, node: &str, version: u32, voters: &[&str]) -> Result<()> {
    let file = match node.starts_with('r') {
        true => cluster.router(node).config().to_path_buf(),
        false => cluster.target(node).config().to_path_buf(),
    };
    let list = format!("voters = {voters:?}\nvoters_version = {version}");
    let text = fs::read_to_string(&file)?;
    let lines = text.lines().filter(|line| !line.starts_with("voters_version"));
    let lines = lines.map(|line| if line.starts_with("voters = ") { &list } else { line });
    Ok(fs::write(file, lines.collect::<Vec<_>>().join("\n") + "\n")?)
}

fn status(cluster: &mut Cluster, router: &str) -> Option<Status> {
    serde_json::from_str(&cluster.router(router).vipactl(&["status", "--json"]).ok()?).ok()
}

/// On every node, the owner first; each router has adopted it before this continues with the next node.
fn reload_everywhere(cluster: &mut Cluster, version: u32, voters: &[&str]) -> Result<()> {
    for router in ["r1", "r2"] {
        name_voters(cluster, router, version, voters)?;
        wait(&format!("{router} to take up voters {version}"), PATIENCE, || {
            reload(cluster, router, &[]).ok().filter(|reload| reload.outcome == ReloadOutcome::Applied)
        })?;
    }
    for target in cluster.targets() {
        name_voters(cluster, &target, version, voters)?;
        cluster.target(&target).hang_up_agent()?;
    }
    for router in ["r1", "r2"] {
        wait(&format!("{router} to see all nodes with voters {version}"), PATIENCE, || {
            status(cluster, router).filter(|status| status.voters_version == version && status.other_voters.is_empty())
        })?;
    }
    Ok(())
}

#[test]
fn a_voter_comes_and_another_goes_under_traffic_and_both_at_once_is_refused() {
    let plan = Plan { voters: ["r1", "r2", "t1"].map(String::from).to_vec(), ..Plan::new("voters") };
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            name_voters(cluster, "r1", 2, &["r1", "r2", "t2"])?;
            let refused = cluster.router("r1").vipactl(&["reload"]).unwrap_err().to_string();
            ensure!(refused.contains("one at a time, and here t2 would come and t1 would go"), "{refused}");
            reload_everywhere(cluster, 2, &["r1", "r2", "t1", "t2"])?;
            reload_everywhere(cluster, 3, &["r1", "r2", "t2"])
        })?;
        let shown = cluster.router("r1").vipactl(&["status"])?;
        ensure!(shown.contains("voters r1, r2, t2 (version 3)"), "{shown}");
        ensure!(cluster.router("r1").view()?.epoch == 1, "nobody took anything over");

        // t1 votes no more; of r1, r2 and t2 the last two elect r2, though r1 and t1 are silent.
        cluster.target("t1").freeze_agent()?;
        kill_the_owner(cluster, &mut client)?;
        cluster.target("t1").thaw_agent()?;
        ensure!(cluster.router("r2").view()?.epoch >= 2_000_000_000, "an epoch of the third list of voters");
        cluster.router("r1").start()?;
        cluster.wait_ready()?;
        all_kept(cluster, client).map(drop)
    });
}
