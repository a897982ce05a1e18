//! R5: a backup's own list takes new connections; existing ones stay at their targets, on the list or not.

use anyhow::ensure;
use vipa_lab::{
    cluster::{Cluster, Plan, TargetPlan},
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

/// The owner's targets are reached by `way`; the backup's own list has another target alone, which it reaches directly.
/// Every connection of the owner's targets lives on through the takeover, as the rehearsal has predicted.
fn connections_are_reached_that_the_own_list_leaves_out(name: &str, way: TargetPlan) {
    let own = if way.forwarding == "nat" { "nat" } else { "direct" };
    let plan = Plan {
        candidates: [("r1".into(), vec![2, 3]), ("r2".into(), vec![1])].into(),
        forwarding_of: [("r2".into(), own)].into(),
        way,
        ..Plan::new(name)
    };
    plan.run(|cluster| {
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), PER_TARGET * 2) };
        let mut client = cluster.client_with(&plan)?;
        let before = client.report().servers;
        ensure!(!before.is_empty() && !before.contains_key("t1"), "{before:?}");
        let drill = cluster.router("r2").vipactl(&["drill", &Cluster::service().ip().to_string()])?;
        ensure!(drill.contains("  lost         nothing\n"), "{drill}");
        kill_the_owner(cluster, &mut client)?;
        ensure!(client.report().servers == before, "{:?} and then {:?}", before, client.report().servers);
        all_kept(cluster, client).map(drop)
    });
}

/// Connections at each of the owner's two targets, about.
const PER_TARGET: usize = 25;

#[test]
fn r05_direct_targets_off_the_backups_list_keep_their_connections() {
    connections_are_reached_that_the_own_list_leaves_out("r05_direct", TargetPlan::default());
}

#[test]
fn r05_ipip_targets_off_the_backups_list_keep_their_connections() {
    connections_are_reached_that_the_own_list_leaves_out(
        "r05_ipip",
        TargetPlan { forwarding: "ipip", ..TargetPlan::default() },
    );
}

#[test]
fn r05_gre_targets_off_the_backups_list_keep_their_connections() {
    connections_are_reached_that_the_own_list_leaves_out(
        "r05_gre",
        TargetPlan { forwarding: "gre", ..TargetPlan::default() },
    );
}

#[test]
fn r05_gue_targets_off_the_backups_list_keep_their_connections() {
    connections_are_reached_that_the_own_list_leaves_out(
        "r05_gue",
        TargetPlan { forwarding: "gue", ..TargetPlan::default() },
    );
}

#[test]
fn r05_nat_targets_off_the_backups_list_keep_their_connections() {
    connections_are_reached_that_the_own_list_leaves_out(
        "r05_nat",
        TargetPlan { forwarding: "nat", ..TargetPlan::default() },
    );
}

#[test]
fn r05_ipip_over_ipv6_targets_off_the_backups_list_keep_their_connections() {
    let way = TargetPlan { forwarding: "ipip", targets6: true, vipa6: true, ..TargetPlan::default() };
    connections_are_reached_that_the_own_list_leaves_out("r05_ipip6", way);
}

#[test]
fn r05_gre_over_ipv6_targets_off_the_backups_list_keep_their_connections() {
    let way = TargetPlan { forwarding: "gre", targets6: true, vipa6: true, ..TargetPlan::default() };
    connections_are_reached_that_the_own_list_leaves_out("r05_gre6", way);
}

#[test]
fn r05_gue_over_ipv6_targets_off_the_backups_list_keep_their_connections() {
    let way = TargetPlan { forwarding: "gue", targets6: true, vipa6: true, ..TargetPlan::default() };
    connections_are_reached_that_the_own_list_leaves_out("r05_gue6", way);
}

#[test]
fn r05_a_backup_that_restarts_after_the_owners_death_reaches_them_too() {
    let plan = Plan {
        candidates: [("r1".into(), vec![2, 3]), ("r2".into(), vec![1])].into(),
        forwarding_of: [("r2".into(), "direct")].into(),
        way: TargetPlan { forwarding: "gue", ..TargetPlan::default() },
        ..Plan::new("r05_restart")
    };
    plan.run(|cluster| {
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), PER_TARGET * 2) };
        let mut client = cluster.client_with(&plan)?;
        cluster.router("r2").kill()?;
        let killed = cluster.router("r1").kill()?;
        client.mark_at(killed)?;
        cluster.router("r2").start()?;
        cluster.wait_takeover("r2", Trigger::Failure).or_else(|_| cluster.wait_takeover("r2", Trigger::First))?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}
