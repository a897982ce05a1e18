//! R5: a backup's own list takes new connections; existing ones stay where they are, on the list or not.

use anyhow::ensure;
use vipa_lab::{
    cluster::{Cluster, Plan},
    load::ClientPlan,
};
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, everyone_answered, kill_the_owner};

#[test]
fn r05_after_a_takeover_new_connections_go_to_the_backups_list_and_old_ones_stay() {
    let plan = Plan { candidates: [("r2".into(), vec![1])].into(), ..Plan::new("r05_list") };
    plan.run(|cluster| {
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), CONNECTIONS) };
        let mut client = cluster.client_with(&plan)?;
        let before = client.report().servers;
        assert_eq!(before.len(), 3);
        kill_the_owner(cluster, &mut client)?;
        let fresh = client.fresh_and_wait(60)?;
        assert_eq!(fresh.servers, [("t1".to_string(), 60)].into());
        assert_eq!(client.report().servers, before);
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r05_a_backups_list_may_have_nobody_of_the_owners_and_each_keeps_what_the_other_admitted() {
    let lists = [("r1".into(), vec![1, 2]), ("r2".into(), vec![3])];
    let plan = Plan { candidates: lists.into(), ..Plan::new("r05_apart") };
    plan.run(|cluster| {
        let quiet =
            |connections| ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), connections) };
        let mut early = cluster.client_with(&quiet(CONNECTIONS))?;
        ensure!(early.report().servers.keys().eq(["t1", "t2"]), "{:?}", early.report().servers);
        kill_the_owner(cluster, &mut early)?;
        let mut late = cluster.client_with(&quiet(60))?;
        ensure!(late.report().servers == [("t3".to_string(), 60)].into(), "{:?}", late.report().servers);
        cluster.router("r1").start()?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        for client in [&mut early, &mut late] {
            client.mark()?;
            everyone_answered(client)?;
        }
        let fresh = early.fresh_and_wait(60)?;
        ensure!(fresh.ok == 60 && fresh.servers.keys().eq(["t1", "t2"]), "{fresh:?}");
        all_kept(cluster, late)?;
        all_kept(cluster, early).map(drop)
    });
}
