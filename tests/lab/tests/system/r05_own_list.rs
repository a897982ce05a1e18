//! R5: a backup's own list takes new connections; existing ones stay where they are, on the list or not.

use vipa_lab::{
    cluster::{Cluster, Plan},
    load::ClientPlan,
};

use crate::{CONNECTIONS, all_kept, kill_the_owner};

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
