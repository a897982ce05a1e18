//! R8: in a takeback no packet is lost and no connection breaks.

use anyhow::ensure;
use vipa_lab::cluster::Plan;
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, kill_the_owner, nothing_lost};

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
