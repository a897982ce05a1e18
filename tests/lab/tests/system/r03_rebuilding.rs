//! R3: the backup constructs the connection table from the targets' messages alone.

use std::{thread::sleep, time::Duration};

use vipa_lab::cluster::{Cluster, Plan};
use vipa_lab::load::ClientPlan;

use crate::{CONNECTIONS, all_kept, kill_the_owner};

#[test]
fn r03_a_warm_backup_asks_only_for_the_tail() {
    Plan::new("r03_warm").run(|cluster| {
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), CONNECTIONS) };
        let mut client = cluster.client_with(&plan)?;
        let all = CONNECTIONS as u64;
        cluster.wait_view("r2", "every connection", |view| view.connections == all)?;
        let takeover = kill_the_owner(cluster, &mut client)?;
        assert_eq!((takeover.report.targets_answered, takeover.report.targets_expected), (3, 3));
        assert_eq!(takeover.connections_known_before, all);
        assert!(takeover.connections_rebuilt < all / 10, "only what is new is reported: {takeover:?}");
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r03_a_cold_backup_started_a_second_before_the_kill_rebuilds_from_snapshots_alone() {
    let plan = Plan { absent: vec!["r2".into()], ..Plan::new("r03_cold") };
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        cluster.router("r2").start()?;
        sleep(Duration::from_secs(1));
        let takeover = kill_the_owner(cluster, &mut client)?;
        assert_eq!((takeover.report.targets_answered, takeover.report.targets_expected), (3, 3), "{takeover:?}");
        assert!(takeover.connections_known_before + takeover.connections_rebuilt >= CONNECTIONS as u64, "{takeover:?}");
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r03_a_backup_that_never_heard_the_owner_rebuilds_from_the_targets_alone() {
    let plan = Plan { absent: vec!["r2".into()], ..Plan::new("r03_deaf") };
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        cluster.cut("r1", "r2")?;
        cluster.router("r2").start()?;
        cluster.wait_view("r2", "links to the targets", |view| view.linked.len() == 3)?;
        kill_the_owner(cluster, &mut client)?;
        all_kept(cluster, client).map(drop)
    });
}
