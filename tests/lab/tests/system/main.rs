//! Whole clusters: real kernels' TCP stacks, real packets, real kills. A test's name begins with the requirement that
//! it proves (each file states its own). Run with `make test-system`, as root, two at a time, because they wait most of
//! the time. A plan that needs the whole machine states that.

mod ageing;
mod agentless;
mod announcing;
mod changes;
mod conflicts;
mod deaf;
mod failures;
mod forged;
mod half_closed;
mod health;
mod hostile;
mod hostile_peer;
mod identity;
mod looking;
mod monitoring;
mod moves;
mod opened_by_targets;
mod operating;
mod orders;
mod overload;
mod own_kernel;
mod partitions;
mod ports;
mod r01_knowledge;
mod r02_listeners;
mod r03_rebuilding;
mod r04_connections;
mod r05_own_list;
mod r06_association;
mod r07_takeback;
mod r08_nothing_lost;
mod r09_succession;
mod r10_own_kernel;
mod r11_families;
mod r11_path_mtu;
mod r11_servers;
mod recordings;
mod restarts;
mod spoofed;
mod told;
mod udp;
mod vanished;
mod voters;
mod web_page;
mod worker_panic;

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Unreported},
    load::{Client, Report, RequestReport, Requests},
    packet_ledger::PacketLedger,
};
use vipa_protocol::{Trigger, admin::TakeoverRecord};

/// Long-lived connections in most tests: enough to be on every target, few enough for a busy machine.
const CONNECTIONS: usize = 300;

/// Lets the client's connections end, and asserts that every one ended correctly.
fn requests_kept(client: Requests) -> Result<RequestReport> {
    let end = client.finish(PATIENCE)?;
    ensure!(end.kept == end.asked && end.broken.total() == 0, "connections were lost: {end:#?}");
    Ok(end)
}

/// Kills `r1`, the owner, and waits until `r2` owns the VIPA and every connection has had an answer since the kill.
fn kill_the_owner(cluster: &mut Cluster, client: &mut Client) -> Result<TakeoverRecord> {
    let killed = cluster.router("r1").kill()?;
    client.mark_at(killed)?;
    let takeover = cluster.wait_takeover("r2", Trigger::Failure)?;
    everyone_answered(client)?;
    Ok(takeover)
}

/// Waits until every open connection has had an answer since the mark.
fn everyone_answered(client: &mut Client) -> Result<Report> {
    client.wait_for("an answer on every connection since the mark", PATIENCE, |report| report.silent_since_mark == 0)
}

/// Ends the client, and asserts that every connection was kept to its last byte, every fresh one succeeded, and the
/// servers agree. Before the end, every router had the connections that the targets held and no others.
fn all_kept(cluster: &mut Cluster, mut client: Client) -> Result<Report> {
    client.pause()?;
    cluster.wait_agreement(Unreported::MayBe)?;
    all_there(cluster, client)
}

/// The same in a cluster whose targets have connections other than those of the one VIPA.
fn all_there(cluster: &mut Cluster, client: Client) -> Result<Report> {
    let end = client.finish(PATIENCE)?;
    ensure!(end.kept == end.asked && end.broken.total() == 0, "connections were lost: {end:#?}");
    ensure!(end.fresh_failed == 0, "new connections failed: {end:#?}");
    for name in cluster.targets() {
        let served = cluster.target(&name).served();
        ensure!(served.broken == 0, "the server of {name} saw faults: {served:#?}");
    }
    Ok(end)
}

/// Time after which delayed acknowledgements and closing handshakes are through.
const QUIET: Duration = Duration::from_millis(400);

/// Does `change` under traffic and counts every packet.
fn nothing_lost(
    cluster: &mut Cluster,
    client: &mut Client,
    change: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let targets = cluster.target_hosts();
    let ledger = PacketLedger::open(cluster.lab(), cluster.client_host(), targets, Cluster::service())?;
    client.pause()?;
    sleep(QUIET);
    let before = ledger.read()?;
    client.resume()?;
    change(cluster)?;
    client.mark()?;
    everyone_answered(client)?;
    client.pause()?;
    sleep(QUIET);
    let account = ledger.read()?.since(before);
    client.resume()?;
    ensure!(account.sent > 500, "there was traffic: {account:?}");
    ensure!(account.lost() == 0, "packets were lost: {account:?}; {}", cluster.counters());
    Ok(())
}
