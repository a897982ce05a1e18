//! R2: on takeover the targets report which of them listen; a candidate without a listener gets no new connection.

use std::{collections::BTreeMap, time::Duration};

use vipa_lab::{
    cluster::{Cluster, Plan},
    load::{ClientPlan, Fresh},
};

use crate::{CONNECTIONS, all_kept, kill_the_owner};

/// A client whose fresh connections are opened only on request.
fn quiet_client(connections: usize) -> ClientPlan {
    ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), connections) }
}

fn servers(fresh: &Fresh) -> Vec<&str> {
    fresh.servers.keys().map(String::as_str).collect()
}

#[test]
fn r02_a_candidate_without_a_listener_gets_nothing_and_is_used_as_soon_as_it_has_one() {
    let plan = Plan { silent: vec![3], ..Plan::new("r02_silent") };
    plan.run(|cluster| {
        let mut client = cluster.client_with(&quiet_client(CONNECTIONS))?;
        assert_eq!(client.report().servers.keys().collect::<Vec<_>>(), ["t1", "t2"]);
        kill_the_owner(cluster, &mut client)?;
        let fresh = client.fresh_and_wait(90)?;
        assert_eq!((fresh.failed, servers(&fresh)), (0, vec!["t1", "t2"]), "the backup sends nothing to t3");
        cluster.target("t3").start_servers()?;
        cluster.wait_view("r2", "t3's listener", |view| view.listening.contains("t3"))?;
        let fresh = client.fresh_and_wait(90)?;
        assert_eq!((fresh.failed, servers(&fresh)), (0, vec!["t1", "t2", "t3"]), "a listener is used at once");
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r02_a_listener_that_goes_away_gets_no_new_connection() {
    Plan::new("r02_gone").run(|cluster| {
        let mut client = cluster.client_with(&quiet_client(0))?;
        cluster.target("t1").kill_servers()?;
        cluster.wait_view("r1", "t1 to listen no more", |view| !view.listening.contains("t1"))?;
        let fresh = client.fresh_and_wait(90)?;
        assert_eq!((fresh.failed, servers(&fresh)), (0, vec!["t2", "t3"]));
        Ok(())
    });
}

#[test]
fn r02_new_connections_spread_evenly_over_the_listeners() {
    Plan::new("r02_spread").run(|cluster| {
        let client = cluster.client(CONNECTIONS)?;
        let servers: BTreeMap<String, u64> = client.report().servers;
        assert!(servers.values().all(|&count| (60..=140).contains(&count)), "{servers:?}");
        assert_eq!(servers.len(), 3);
        client.finish(Duration::from_secs(20))?;
        Ok(())
    });
}
