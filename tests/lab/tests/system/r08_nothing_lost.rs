//! R8: in a takeback no packet is lost and no connection breaks.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan},
    ledger::Ledger,
    load::Client,
};
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, everyone_answered, kill_the_owner};

/// Delayed acknowledgements and closing handshakes are through by then.
const QUIET: Duration = Duration::from_millis(400);

/// Does `change` under traffic and counts every packet.
fn nothing_lost(
    cluster: &mut Cluster,
    client: &mut Client,
    change: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let targets = cluster.target_hosts();
    let ledger = Ledger::open(cluster.lab(), cluster.client_host(), targets, Cluster::service())?;
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

#[test]
fn r08_a_takeback_loses_no_packet_and_breaks_no_connection() {
    Plan::new("r08_takeback").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        kill_the_owner(cluster, &mut client)?;
        nothing_lost(cluster, &mut client, |cluster| {
            cluster.router("r1").start()?;
            cluster.wait_takeover("r1", Trigger::Takeback).map(drop)
        })?;
        let end = all_kept(cluster, client)?;
        ensure!(end.stalls == 0, "{end:#?}");
        Ok(())
    });
}

#[test]
fn r08_an_orderly_stop_hands_the_vipa_over_and_loses_no_packet() {
    Plan::new("r08_stop").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            cluster.router("r1").stop()?;
            cluster.wait_view("r2", "to own the VIPA", |view| view.owns && !view.rebuilding).map(drop)
        })?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r08_both_routers_restarted_one_after_the_other_lose_no_packet() {
    Plan::new("r08_restarts").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            cluster.router("r2").stop()?;
            cluster.router("r2").start()?;
            // A backup that is not ready yet could take nothing over in good order.
            cluster
                .wait_view("r2", "to be a warm backup", |view| view.warm.len() == 3 && view.linked.contains("r1"))?;
            cluster.router("r1").stop()?;
            cluster.wait_view("r2", "to own the VIPA", |view| view.owns && !view.rebuilding)?;
            cluster.router("r1").start()?;
            cluster.wait_takeover("r1", Trigger::Takeback).map(drop)
        })?;
        let end = all_kept(cluster, client)?;
        ensure!(end.stalls == 0, "{end:#?}");
        Ok(())
    });
}
