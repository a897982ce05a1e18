//! R7: the return of a higher-ranked router is detected, and the VIPA goes back to it; never are there two owners.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan},
    netns::Plug,
};
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, everyone_answered, kill_the_owner, nothing_lost};

/// At most one router may hold, at one moment, that it owns the VIPA and may admit connections.
fn at_most_one_owner(cluster: &mut Cluster) -> Result<()> {
    let owning: Vec<_> = ["r1", "r2"]
        .into_iter()
        .filter_map(|name| Some((name, cluster.router(name).view().ok()?)))
        .filter(|(_, view)| view.owns && !view.fenced)
        .map(|(name, view)| (name, view.epoch))
        .collect();
    ensure!(owning.len() < 2, "two owners: {owning:?}");
    Ok(())
}

#[test]
fn r07_a_returning_router_of_higher_rank_takes_the_vipa_back() {
    Plan::new("r07_returns").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let takeover = kill_the_owner(cluster, &mut client)?;
        cluster.router("r1").start()?;
        let takeback = cluster.wait_takeover("r1", Trigger::Takeback)?;
        ensure!(takeback.report.epoch > takeover.report.epoch, "epochs only grow: {takeover:?}, {takeback:?}");
        cluster.wait_view("r2", "to be the backup again", |view| !view.owns && view.owner.as_deref() == Some("r1"))?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r07_a_router_cut_off_from_the_others_fences_itself_and_there_are_never_two_owners() {
    Plan::new("r07_partition").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        // Only messages between nodes are cut: packets of clients still reach both routers.
        for node in ["r2", "t1", "t2", "t3"] {
            cluster.cut("r1", node)?;
        }
        client.mark()?;
        let taken = loop {
            at_most_one_owner(cluster)?;
            if let Some(takeover) =
                cluster.router("r2").takeovers()?.pop().filter(|last| last.report.trigger == Trigger::Failure)
            {
                break takeover;
            }
        };
        ensure!(cluster.router("r1").view()?.fenced, "r1 knows that its lease has run out");
        everyone_answered(&mut client)?;
        for node in ["r2", "t1", "t2", "t3"] {
            cluster.mend("r1", node)?;
        }
        let takeback = cluster.wait_takeover("r1", Trigger::Takeback)?;
        ensure!(takeback.report.epoch > taken.report.epoch);
        at_most_one_owner(cluster)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r07_an_owner_that_was_stopped_for_five_seconds_and_wakes_up_with_stale_beliefs_does_no_harm() {
    Plan::new("r07_stale").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let until = Instant::now() + Duration::from_secs(5);
        cluster.router("r1").freeze()?;
        client.mark()?;
        let taken = cluster.wait_takeover("r2", Trigger::Failure)?;
        everyone_answered(&mut client)?;
        sleep(until.saturating_duration_since(Instant::now()));
        cluster.router("r1").go_on()?;
        let takeback = cluster.wait_takeover("r1", Trigger::Takeback)?;
        ensure!(takeback.report.epoch > taken.report.epoch);
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r07_an_owner_whose_wire_was_pulled_comes_back_and_takes_the_vipa_back() {
    Plan::new("r07_unplugged").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let host = cluster.router("r1").host().clone();
        host.plug(Plug::Out)?;
        client.mark()?;
        cluster.wait_takeover("r2", Trigger::Failure)?;
        everyone_answered(&mut client)?;
        sleep(Duration::from_millis(500));
        host.plug(Plug::In)?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r07_without_a_quorum_two_routers_take_over_and_back_by_their_ranks_alone() {
    Plan { no_quorum: true, ..Plan::new("r07_no_quorum") }.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        kill_the_owner(cluster, &mut client)?;
        nothing_lost(cluster, &mut client, |cluster| {
            cluster.router("r1").start()?;
            cluster.wait_takeover("r1", Trigger::Takeback).map(drop)
        })?;
        all_kept(cluster, client).map(drop)
    });
}
