//! Attack and overload: established connections are not affected.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    programs,
};

use crate::{CONNECTIONS, all_kept, hostile::vipa_mac};

/// SYNs, each of another client that never answers: ten times what the connection table holds.
const FLOOD: u64 = 1_000_000;
/// A rate at which the machine can send, receive, forward and answer with two processors.
const PER_SECOND: u32 = 50_000;

#[test]
fn r04_a_flood_of_a_million_syns_is_not_noticed_by_those_who_are_connected() {
    Plan { alone: true, ..Plan::new("r04_flood") }.run(|cluster| {
        // The flood's clients have a route back, so that targets keep half-open connections and report them.
        for host in cluster.target_hosts() {
            host.ip(&["route", "add", "198.18.0.0/15", "via", "10.77.0.51"])?;
        }
        let mut client = cluster.client(CONNECTIONS)?;
        cluster.wait_view("r1", "every connection to be reported", |view| view.confirmed >= CONNECTIONS as u64)?;
        let before = cluster.router("r1").counters()?;
        let took_over = cluster.router("r2").takeovers()?.len();

        client.mark()?;
        flood(cluster)?;
        let report = client.report();
        ensure!(report.open == CONNECTIONS as u64 && report.broken.total() == 0, "connections were lost: {report:#?}");
        ensure!(report.longest_ms < 5_000, "a connection stood still for {} ms: {report:#?}", report.longest_ms);

        let after = cluster.router("r1").counters()?;
        let grown = |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
        let fates = ["flow.opened", "flow.unrecorded", "dropped.table-full", "dropped.overload"];
        let arrived: u64 = fates.map(grown).iter().sum();
        ensure!(arrived > FLOOD / 2, "the flood did not arrive: {arrived} of {FLOOD}; {}", cluster.counters());
        ensure!(grown("flow.evicted") > 0, "the table was never full: {}", cluster.counters());
        let view = cluster.router("r1").view()?;
        ensure!(view.owns && view.confirmed >= CONNECTIONS as u64, "reported connections went: {view:?}");
        ensure!(cluster.router("r2").takeovers()?.len() == took_over, "the flood moved the VIPA");
        // Connections that were opened during the flood were served too.
        let end = all_kept(cluster, client)?;
        ensure!(end.fresh_ok > 20, "{end:#?}");
        Ok(())
    });
}

/// Sends the flood from the client's host, at a rate that the machine can keep.
fn flood(cluster: &mut Cluster) -> Result<()> {
    let mac = vipa_mac(cluster)?;
    let tool = programs::path("vipa-load")?;
    let (vipa, count, pace) = (Cluster::service().to_string(), FLOOD.to_string(), PER_SECOND.to_string());
    let arguments = ["spray", "--flood", "--to", &mac, "--vipa", &vipa, "--count", &count, "--per-second", &pace];
    let mut sender = cluster.client_host().spawn("flood", &tool, arguments)?;
    vipa_lab::process::wait("the flood to be over", PATIENCE + Duration::from_secs(60), || sender.ended())?;
    Ok(())
}
