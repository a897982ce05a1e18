//! R6: each node that receives the backup's list reports its listeners and its connections to it, then and later.

use vipa_lab::{
    cluster::{Cluster, Plan},
    load::ClientPlan,
};

use crate::{CONNECTIONS, all_kept, kill_the_owner};

#[test]
fn r06_targets_report_to_the_new_owner_what_they_hold_and_whatever_changes_later() {
    let plan = Plan { silent: vec![3], ..Plan::new("r06_reports") };
    plan.run(|cluster| {
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), CONNECTIONS) };
        let mut client = cluster.client_with(&plan)?;
        let takeover = kill_the_owner(cluster, &mut client)?;
        assert_eq!((takeover.report.targets_answered, takeover.report.targets_expected), (3, 3));
        let first = CONNECTIONS as u64;
        let view = cluster.wait_view("r2", "what the targets hold", |view| view.connections == first)?;
        assert_eq!(view.warm.iter().collect::<Vec<_>>(), ["t1", "t2", "t3"]);
        assert_eq!(view.listening.iter().collect::<Vec<_>>(), ["t1", "t2"]);
        let more =
            cluster.start_client(&ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), 50) })?;
        cluster.wait_view("r2", "connections opened later", |view| view.confirmed == first + 50)?;
        cluster.target("t3").start_servers()?;
        cluster.wait_view("r2", "a listener opened later", |view| view.listening.len() == 3)?;
        let end = more.finish(vipa_lab::cluster::PATIENCE)?;
        assert_eq!(end.kept, 50);
        cluster.wait_view("r2", "connections closed later", |view| view.confirmed == first)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r06_a_target_with_connections_reports_to_a_backup_whose_list_it_is_not_on() {
    let plan = Plan { candidates: [("r2".into(), vec![1])].into(), ..Plan::new("r06_unlisted") };
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let takeover = kill_the_owner(cluster, &mut client)?;
        assert_eq!((takeover.report.targets_answered, takeover.report.targets_expected), (3, 3));
        all_kept(cluster, client).map(drop)
    });
}
