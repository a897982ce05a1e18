//! R4: no connection breaks in a takeover: no reset, no timeout, no byte lost or doubled.

use anyhow::ensure;
use vipa_lab::{
    cluster::{Plan, Ports},
    load::ClientPlan,
};

use crate::{CONNECTIONS, Cluster, all_kept, everyone_answered, kill_the_owner};

fn takeover_under_load(plan: Plan) {
    let connections = plan.connections;
    plan.run(|cluster| {
        let mut client = cluster.client_with(&ClientPlan::new(Cluster::service(), connections))?;
        kill_the_owner(cluster, &mut client)?;
        let end = all_kept(cluster, client)?;
        ensure!(end.stalls == 0, "an exchange took longer than TCP's own repair of a short outage: {end:#?}");
        ensure!(end.fresh_ok > 0, "new connections succeeded");
        Ok(())
    });
}

#[test]
fn r04_no_connection_breaks_when_the_owner_is_killed() {
    takeover_under_load(Plan { connections: 1_000, ..Plan::new("r04_killed") });
}

#[test]
fn r04_no_connection_breaks_on_tap_ports_either() {
    takeover_under_load(Plan { connections: CONNECTIONS, ports: Ports::Tap, ..Plan::new("r04_tap") });
}

#[test]
fn r04_no_connection_breaks_when_two_workers_share_the_table() {
    Plan { workers: 2, ..Plan::new("r04_workers") }.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        kill_the_owner(cluster, &mut client)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let forwarded = |counters: &std::collections::BTreeMap<String, u64>| counters.get("forwarded").copied();
        let shares: Vec<_> = cluster.router("r2").workers_counters()?.iter().filter_map(forwarded).collect();
        ensure!(shares.len() == 2 && shares.iter().all(|share| *share > 0), "both forward: {shares:?}");
        let end = all_kept(cluster, client)?;
        ensure!(end.stalls == 0, "{end:#?}");
        Ok(())
    });
}
