//! A restart of `vipad` is a takeover of itself: with a backup no packet is lost, alone no connection breaks.

use anyhow::{Context, ensure};
use vipa_lab::cluster::Plan;
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, everyone_answered, nothing_lost};

#[test]
fn both_routers_are_restarted_one_after_the_other_and_no_packet_is_lost() {
    Plan::new("changes_restart").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            cluster.router("r2").stop()?;
            cluster.router("r2").start()?;
            cluster.wait_view("r2", "to be warm again", |view| view.warm.len() == 3)?;
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

#[test]
fn a_single_router_is_restarted_and_no_connection_breaks() {
    let mut plan = Plan::new("changes_single");
    plan.routers = 1;
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        cluster.router("r1").stop()?;
        cluster.router("r1").start()?;
        cluster.wait_view("r1", "to own the VIPA again", |view| view.owns && !view.rebuilding)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let records = cluster.router("r1").takeovers()?;
        let record = records.last().context("the gap is shown")?;
        let gap = record.unowned_ms.context("the gap is measured")?;
        let frames = record.unowned_frames.context("af_packet ports can tell what came meanwhile")?;
        println!("restart of a single router: nobody owned the VIPA for {gap} ms, {frames} frames came meanwhile");
        ensure!(gap < 10_000 && frames > 0, "{records:?}");
        all_kept(cluster, client).map(drop)
    });
}
