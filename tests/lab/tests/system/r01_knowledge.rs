//! R1: a backup stores, before any failure, the candidates of every service: the owner's, or its own.

use vipa_lab::cluster::Plan;

use crate::{CONNECTIONS, all_kept, kill_the_owner};

#[test]
fn r01_a_backup_without_a_list_of_its_own_knows_the_owners_before_any_failure_and_uses_it_after() {
    let plan = Plan { inherits: vec!["r2".into()], ..Plan::new("r01_owners_list") };
    plan.run(|cluster| {
        let owners = cluster.router("r1").view()?.candidates;
        assert_eq!(owners.len(), 3);
        cluster.wait_view("r2", "the owner's list", |view| view.candidates == owners)?;
        let mut client = cluster.client(CONNECTIONS)?;
        kill_the_owner(cluster, &mut client)?;
        let fresh = client.fresh_and_wait(60)?;
        // The probe that ran during the takeover may be among them.
        assert!(fresh.ok >= 60, "{fresh:?}");
        assert_eq!((fresh.failed, fresh.servers.len()), (0, 3), "{fresh:?}");
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r01_a_backup_with_a_list_of_its_own_keeps_it() {
    let plan = Plan { candidates: [("r2".into(), vec![1, 2])].into(), ..Plan::new("r01_own_list") };
    plan.run(|cluster| {
        let own = [cluster.target("t1").address().into(), cluster.target("t2").address().into()].into();
        assert_eq!(cluster.router("r2").view()?.candidates, own);
        assert_eq!(cluster.router("r1").view()?.candidates.len(), 3);
        Ok(())
    });
}
