//! Hostile nodes with certificates of the cluster: they send every kind of message with every number that does harm if
//! it is accepted. Messages that a node's role does not allow change nothing, and those that it allows concern no other
//! node.

use std::{thread::sleep, time::Duration};

use crate::{everyone_answered, kill_the_owner};
use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    load::ClientPlan,
    netns::Host,
    process::Process,
    programs,
};

const CHECKED: usize = 200;
/// Time in which every kind of message arrives several times, whatever else the machine does.
const ATTACK: Duration = Duration::from_secs(12);
/// The hostile nodes: a voter that is a candidate, a candidate, a target on no list, a router without a rank.
const HOSTILE: [&str; 4] = ["t3", "t4", "t5", "r3"];

fn plan() -> Plan {
    let listed = |router: &str| (router.to_owned(), vec![1, 2, 3, 4]);
    Plan {
        routers: 3,
        targets: 5,
        voters: ["r1", "r2", "t1", "t2", "t3"].map(String::from).to_vec(),
        candidates: ["r1", "r2", "r3"].map(listed).into(),
        silent: vec![3, 4, 5],
        absent: vec!["r3".into()],
        rankless: vec!["r3".into()],
        ..Plan::new("hostile_peer")
    }
}

fn start(host: &Host, name: &str, config: &std::path::Path, seed: u64) -> Result<Process> {
    let (config, seed) = (config.display().to_string(), seed.to_string());
    let arguments = ["hostile", "--config", &config, "--seed", &seed];
    host.spawn(&format!("{name}-hostile"), programs::path("vipa-load")?, arguments)
}

fn start_hostile(cluster: &mut Cluster) -> Result<Vec<Process>> {
    let mut hostile = Vec::new();
    for (seed, name) in (1..).zip(HOSTILE) {
        hostile.push(if name.starts_with('t') {
            let target = cluster.target(name);
            target.kill_agent()?;
            start(target.host(), name, target.config(), seed)?
        } else {
            let router = cluster.router(name);
            start(router.host(), name, router.config(), seed)?
        });
    }
    Ok(hostile)
}

#[test]
fn nodes_that_mean_harm_break_no_connection_and_end_no_ownership() {
    plan().run(|cluster| {
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), CHECKED) };
        let mut client = cluster.client_with(&plan)?;
        let before = cluster.router("r1").view()?;
        ensure!(before.owns, "{before:?}");
        let hostile = start_hostile(cluster)?;
        sleep(ATTACK);
        client.mark()?;
        everyone_answered(&mut client)?;

        let after = cluster.router("r1").view()?;
        ensure!(after.owns && !after.fenced && after.epoch == before.epoch, "{before:?} {after:?}");
        for name in ["r1", "r2"] {
            let denied = cluster.router(name).counters()?.get("message.denied").copied().unwrap_or_default();
            ensure!(denied > 500, "{name} did not listen to {denied} messages");
            let status = cluster.router(name).vipactl(&["status"])?;
            for peer in HOSTILE {
                ensure!(status.contains(&format!("REFUSED: {peer}: linked, but")), "{name} names {peer}: {status}");
            }
            ensure!(!status.contains('\x1b'), "what a peer writes is escaped: {status:?}");
        }
        for target in ["t1", "t2"] {
            ensure!(after.linked.contains(target), "{target} is linked: {after:?}");
        }

        // A takeover in the middle of it.
        kill_the_owner(cluster, &mut client)?;
        for mut process in hostile {
            let name = process.name().to_owned();
            process.stop(PATIENCE).with_context(|| name.clone())?;
            let said = process.tail(1);
            let sent = serde_json::from_str::<serde_json::Value>(&said).ok().and_then(|said| said["sent"].as_u64());
            ensure!(sent.is_some_and(|sent| sent > 1_000), "{name} has sent too little: {said}");
        }
        let end = client.finish(PATIENCE)?;
        ensure!(end.kept == end.asked && end.broken.total() == 0, "connections were lost: {end:#?}");
        for name in ["t1", "t2"] {
            let served = cluster.target(name).served();
            ensure!(served.broken == 0, "the server of {name} saw faults: {served:#?}");
        }
        Ok(())
    });
}
