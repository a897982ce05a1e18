//! A host that does not belong to the cluster learns nothing and changes nothing.

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, VIPA},
    process::wait,
    programs,
};
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, everyone_answered};

/// The Ethernet address of the VIPA in the client's kernel.
pub(crate) fn vipa_mac(cluster: &Cluster) -> Result<String> {
    let text = cluster.client_host().ip(&["neigh", "show", "to", &VIPA.to_string()])?;
    let mac = text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1);
    mac.map(String::from).with_context(|| format!("the client does not know the VIPA: {text:?}"))
}

#[test]
fn r04_a_thousand_malformed_and_random_packets_change_nothing_but_counters() {
    Plan::new("r04_spray").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let before = cluster.router("r1").view()?;
        let counted = cluster.router("r1").counters()?;
        let mac = vipa_mac(cluster)?;
        let tool = programs::path("vipa-load")?.display().to_string();
        let vipa = Cluster::service().to_string();
        cluster.client_host().run(&tool, ["spray", "--to", &mac, "--vipa", &vipa, "--count", "1000"])?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let after = cluster.router("r1").view()?;
        ensure!(after.owns && after.epoch == before.epoch, "{before:?} {after:?}");
        let now = cluster.router("r1").counters()?;
        let dropped = |counters: &std::collections::BTreeMap<String, u64>| -> u64 {
            counters.iter().filter(|(name, _)| name.contains("drop")).map(|(_, count)| count).sum()
        };
        ensure!(dropped(&now) > dropped(&counted), "they are counted by name: {now:#?}");
        all_kept(cluster, client).map(drop)
    });
}

/// Half-open links in a second, at both routers together.
const HANDSHAKES: u32 = 4_000;

#[test]
fn takeover_takeback_and_an_agents_restart_work_under_a_flood_of_half_open_links() {
    Plan::new("handshakes").run(|cluster| {
        let client = cluster.client(CONNECTIONS)?;
        let host = cluster.client_host();
        host.ip(&["route", "add", "local", "198.18.0.0/15", "dev", "lo"])?;
        let tool = programs::path("vipa-load")?;
        let pace = HANDSHAKES.to_string();
        let mut arguments = vec!["handshakes", "--seconds", "600", "--per-second", &pace];
        for router in ["10.77.0.11:7400", "10.77.0.12:7400"] {
            arguments.extend(["--to", router]);
        }
        let flood = host.spawn("handshakes", &tool, arguments)?;
        let retried = |cluster: &mut Cluster, router: &str| -> Result<u64> {
            Ok(cluster.router(router).counters()?.get("handshake.retried").copied().unwrap_or_default())
        };
        // It makes its packets first.
        wait("the flood to arrive", PATIENCE, || match retried(cluster, "r1") {
            Ok(count) => (count > 1_000).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        })??;

        cluster.router("r1").kill()?;
        cluster.wait_takeover("r2", Trigger::Failure)?;
        cluster.router("r1").start()?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        cluster.target("t1").kill_agent()?;
        cluster.wait_view("r1", "t1 to be missed", |view| !view.linked.contains("t1"))?;
        cluster.target("t1").start_agent()?;
        for router in ["r1", "r2"] {
            cluster.wait_view(router, "t1 to be back", |view| view.warm.len() == 3)?;
        }
        ensure!(retried(cluster, "r1")? > 1_000, "the flood has ended: {}", cluster.counters());
        drop(flood);
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r06_a_peer_without_a_certificate_of_the_cluster_learns_nothing_and_changes_nothing() {
    Plan::new("r06_foreign").run(|cluster| {
        let client = cluster.client(CONNECTIONS)?;
        let before = cluster.router("r1").view()?;
        let foreign = cluster.foreign_target("t3")?;
        sleep(Duration::from_secs(2));
        ensure!(!foreign.has_address(VIPA)?, "it was told nothing of the VIPA");
        let after = cluster.router("r1").view()?;
        ensure!(after.epoch == before.epoch && after.linked == before.linked && after.owns, "{before:?} {after:?}");
        // Bytes that are no handshake at all.
        for router in ["10.77.0.11", "10.77.0.12"] {
            let script = format!("for i in $(seq 200); do head -c 600 /dev/urandom > /dev/udp/{router}/7400; done");
            cluster.client_host().run("bash", ["-c", &script])?;
        }
        let after = cluster.router("r1").view()?;
        ensure!(after.epoch == before.epoch && after.linked == before.linked && after.owns, "{before:?} {after:?}");
        drop(foreign);
        all_kept(cluster, client).map(drop)
    });
}
