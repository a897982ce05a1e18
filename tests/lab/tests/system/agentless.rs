//! A target without an agent beside others with one: the routers probe it themselves, and the owner sends its backups
//! what they need to keep its connections.

use std::time::Duration;

use anyhow::Context;
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    load::ClientPlan,
    process::wait,
};
use vipa_protocol::{Eligibility, Trigger, admin::MirrorStatus};

use crate::{CONNECTIONS, all_kept, everyone_answered, kill_the_owner};

/// The target without an agent, whose name is its address.
const T3: &str = "10.77.0.33";

#[test]
fn a_target_without_an_agent_keeps_its_connections_through_a_takeover_and_a_takeback() {
    let voters = ["r1", "r2", "t1"].map(String::from).to_vec();
    let plan = Plan { agentless: vec![3], voters, ..Plan::new("agentless") };
    plan.run(|cluster| {
        for router in ["r1", "r2"] {
            cluster.wait_fitness(router, T3, "to answer", |fitness| *fitness == Eligibility::Fit)?;
        }
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), CONNECTIONS) };
        let mut client = cluster.client_with(&plan)?;
        let of_t3 = client.report().servers.get("t3").copied().context("t3 serves some")?;
        assert!(of_t3 > 50, "{of_t3}");

        let behind = wait("r2 to have been told", PATIENCE, || match cluster.router("r2").table_replica_of() {
            Ok(Some(MirrorStatus::Following { connections, behind_ms: Some(behind), .. })) if connections == of_t3 => {
                Some(behind)
            }
            _ => None,
        })?;
        println!("{of_t3} connections of an agentless target are told, {behind} ms behind");
        assert!(behind < 2_000, "{behind} ms");
        // Connections that are older than that are kept.
        std::thread::sleep(Duration::from_millis(behind));
        let takeover = kill_the_owner(cluster, &mut client)?;
        assert_eq!((takeover.report.targets_answered, takeover.report.targets_expected), (2, 2));
        let fresh = client.fresh_and_wait(90)?;
        assert_eq!((fresh.failed, fresh.servers.len()), (0, 3), "{fresh:?}");

        cluster.router("r1").start()?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client)?;

        cluster.target("t3").kill_servers()?;
        cluster.wait_fitness(
            "r1",
            T3,
            "not to answer",
            |fitness| matches!(fitness, Eligibility::CheckFailing { check, .. } if check == "tcp 80"),
        )?;
        Ok(())
    });
}

#[test]
fn what_is_opened_to_a_target_without_an_agent_while_the_vipa_changes_hands_goes_on() {
    let voters = ["r1", "r2", "t1"].map(String::from).to_vec();
    let plan = Plan { agentless: vec![3], voters, ..Plan::new("agentless_change") };
    plan.run(|cluster| {
        for router in ["r1", "r2"] {
            cluster.wait_fitness(router, T3, "to answer", |fitness| *fitness == Eligibility::Fit)?;
        }
        let plan = ClientPlan { fresh_per_second: 300, ..ClientPlan::new(Cluster::service(), 30) };
        let mut client = cluster.client_with(&plan)?;
        cluster.router("r1").stop()?;
        cluster.wait_takeover("r2", Trigger::Handover)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        cluster.router("r1").start()?;
        cluster.wait_fitness("r1", T3, "to answer", |fitness| *fitness == Eligibility::Fit)?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let end = all_kept(cluster, client)?;
        let by_t3 = end.fresh_servers.get("t3").copied().unwrap_or_default();
        assert!(by_t3 > end.fresh_ok / 5, "{end:?}");
        Ok(())
    });
}
