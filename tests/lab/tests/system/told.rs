//! What an operator is told: a target's server stops, the owner's links are cut, a router is configured with another key. `vipactl health`
//! and `vipactl events` name each of them.

use std::fs;

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    process::wait,
};

/// Waits until the verdict on a router has a line that has all of these words.
fn wait_verdict(cluster: &mut Cluster, router: &str, words: &[&str]) -> Result<String> {
    wait(&format!("{router}'s health to say {words:?}"), PATIENCE, || {
        let lines = cluster.router(router).health().ok()?;
        lines.into_iter().find(|line| words.iter().all(|word| line.contains(word)))
    })
}

/// The same of the events that a router tells.
fn wait_event(cluster: &mut Cluster, router: &str, words: &[&str]) -> Result<String> {
    let told = wait(&format!("{router}'s events to say {words:?}"), PATIENCE, || {
        let lines = cluster.router(router).events().ok()?;
        lines.into_iter().find(|line| words.iter().all(|word| line.contains(word)))
    });
    told.with_context(|| cluster.router(router).events().unwrap_or_default().join("\n"))
}

#[test]
fn a_stopped_server_a_cut_owner_and_a_router_with_another_key_are_named_by_health_and_events() {
    Plan::new("told").run(|cluster| {
        wait_verdict(cluster, "r1", &["ok owner"])?;
        let address = cluster.target("t1").address().to_string();

        cluster.target("t1").kill_servers()?;
        wait_verdict(cluster, "r1", &["WARNING targets", &address, "nothing listens"])?;
        wait_event(cluster, "r2", &["r1: ", &address, "gets no new connections, because nothing listens"])?;
        cluster.target("t1").start_servers()?;
        wait_verdict(cluster, "r1", &["ok targets"])?;
        wait_event(cluster, "r2", &["r1: ", &address, "gets new connections again"])?;

        // An order, its person and its cause: whoever runs the test is the operator.
        cluster.router("r2").vipactl(&["vipa", "move", "10.77.0.100", "r2"])?;
        let uid = nix::unistd::Uid::effective();
        wait_event(cluster, "r1", &[&format!("uid {uid})"), "orders: vipa move 10.77.0.100 r2"])?;
        let ordered = &["r2: owns 10.77.0.100 from now on", "after r1: ordered by ", &format!("uid {uid})")];
        wait_event(cluster, "r1", ordered)?;
        let text = cluster.router("r1").vipactl(&["decisions"])?;
        ensure!(
            text.contains("10.77.0.100 is moved to r2; decided by ") && text.contains(&format!("(uid {uid}) at 2")),
            "{text}"
        );
        cluster.router("r1").vipactl(&["vipa", "takeback", "10.77.0.100"])?;
        wait_event(cluster, "r1", &["r1: owns 10.77.0.100", "ordered by ", "vipa takeback 10.77.0.100"])?;

        let others: Vec<String> = cluster.nodes().into_iter().filter(|node| node != "r1").collect();
        for node in &others {
            cluster.cut("r1", node)?;
        }
        wait_event(cluster, "r2", &["r2: owns 10.77.0.100 from now on", "after r1: its owner was silent for ", " ms"])?;
        wait_verdict(cluster, "r2", &["WARNING links", "router r1 has no link"])?;
        wait_verdict(cluster, "r1", &["CRITICAL voters", "no majority"])?;
        for node in &others {
            cluster.mend("r1", node)?;
        }
        wait_verdict(cluster, "r2", &["ok links"])?;
        wait_event(cluster, "r2", &["r1: the lease of 10.77.0.100 ran out"])?;

        cluster.router("r2").stop()?;
        let file = cluster.router("r2").config().to_owned();
        let text = fs::read_to_string(&file).context("r2's configuration")?;
        let other = text.replace("000102030405060708090a0b0c0d0e0f", "ff0102030405060708090a0b0c0d0e0f");
        ensure!(other != text, "the configuration has another key than this test knows");
        fs::write(&file, other).context("r2's configuration")?;
        cluster.router("r2").start()?;
        wait_verdict(cluster, "r1", &["WARNING peers", "r2 is refused", "cluster.key is another one"])?;
        wait_event(cluster, "r1", &["r1: refuses r2", "cluster.key is another one"])?;
        let refused =
            cluster.router("r1").vipactl(&["diff", "10.77.0.100"]).unwrap_or_else(|error| format!("{error:#}"));
        ensure!(refused.contains("r2 is not listened to: its cluster.key is another one"), "{refused}");
        fs::write(&file, text).context("r2's configuration")?;
        Ok(())
    });
}
