//! R9: backups are ranked; the next one takes over when the first one dies too, also in the middle of its takeover.

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan},
    load::Client,
};
use vipa_protocol::{Trigger, admin::TakeoverRecord};

use crate::{CONNECTIONS, all_kept, everyone_answered, kill_the_owner};

fn chain(name: &str) -> Plan {
    Plan { routers: 3, ..Plan::new(name) }
}

/// Kills `router` and waits until `next` owns the VIPA and every connection has had an answer since.
fn kill_and_follow(cluster: &mut Cluster, client: &mut Client, (router, next): (&str, &str)) -> Result<TakeoverRecord> {
    let killed = cluster.router(router).kill()?;
    client.mark_at(killed)?;
    let takeover = cluster.wait_takeover(next, Trigger::Failure)?;
    everyone_answered(client)?;
    Ok(takeover)
}

#[test]
fn r09_the_second_backup_takes_over_when_the_first_one_dies_too_and_the_first_takes_back() {
    chain("r09_chain").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let first = kill_the_owner(cluster, &mut client)?;
        let second = kill_and_follow(cluster, &mut client, ("r2", "r3"))?;
        ensure!(second.report.epoch > first.report.epoch, "{first:?} {second:?}");
        // The middle one first: each time the highest-ranked live router owns.
        cluster.router("r2").start()?;
        let back = cluster.wait_takeover("r2", Trigger::Takeback)?;
        ensure!(back.report.epoch > second.report.epoch, "{second:?} {back:?}");
        cluster.router("r1").start()?;
        let back = cluster.wait_takeover("r1", Trigger::Takeback)?;
        ensure!(back.report.predecessor.as_ref().is_some_and(|name| name.to_string() == "r2"), "{back:?}");
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r09_a_backup_that_dies_in_the_middle_of_its_takeover_is_followed_by_the_next() {
    chain("r09_middle").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        // It does not vote; r2's takeover waits for it until its deadline, and the second kill comes in that time.
        cluster.target("t3").freeze_agent()?;
        cluster.router("r1").kill()?;
        let middle = cluster.wait_view("r2", "to be rebuilding", |view| view.rebuilding)?;
        let killed = cluster.router("r2").kill()?;
        client.mark_at(killed)?;
        let takeover = cluster.wait_takeover("r3", Trigger::Failure)?;
        ensure!(takeover.report.epoch.0 > middle.epoch, "{middle:?} {takeover:?}");
        everyone_answered(&mut client)?;
        cluster.target("t3").thaw_agent()?;
        cluster.wait_view("r3", "t3's report", |view| view.warm.len() == 3)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}
