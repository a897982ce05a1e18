//! The owner is cut off from some nodes and not from others. Cut off from all nodes: `r07_takeback.rs`.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::ensure;
use vipa_lab::cluster::Plan;

use crate::{CONNECTIONS, QUIET, all_kept, everyone_answered};

/// Many leases.
const LONG: Duration = Duration::from_secs(2);

#[test]
fn r07_a_backup_that_hears_everybody_but_the_owner_disturbs_nobody() {
    Plan::new("r07_deaf_backup").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let before = cluster.router("r1").view()?;
        cluster.cut("r1", "r2")?;
        client.mark()?;
        let until = Instant::now() + LONG;
        while Instant::now() < until {
            let (r1, r2) = (cluster.router("r1").view()?, cluster.router("r2").view()?);
            ensure!(r1.owns && !r1.fenced && r1.epoch == before.epoch, "{r1:?}");
            ensure!(!r2.owns, "{r2:?}");
        }
        everyone_answered(&mut client)?;
        cluster.mend("r1", "r2")?;
        cluster.wait_view("r2", "to hear the owner again", |view| view.linked.contains("r1"))?;
        ensure!(client.report().stalls == 0, "nobody has noticed");
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r04_clients_that_do_not_reach_the_owner_for_a_while_go_on_where_they_were() {
    Plan::new("r04_clients_cut").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let before = cluster.router("r1").view()?;
        cluster.cut_clients("r1")?;
        // Connections that were outside the owner's partition are still answered.
        sleep(QUIET);
        client.mark()?;
        sleep(LONG);
        let silent = client.wait_for("a report", LONG, |_| true)?.silent_since_mark;
        ensure!(silent > CONNECTIONS as u64 * 9 / 10, "the way of nearly all was cut, but {silent} were silent");
        cluster.mend_clients("r1")?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let after = cluster.router("r1").view()?;
        ensure!(after.owns && after.epoch == before.epoch, "the nodes heard each other: {before:?} {after:?}");
        all_kept(cluster, client).map(drop)
    });
}
