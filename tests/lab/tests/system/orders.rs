//! Operators' orders under traffic: no order costs a packet, and a decision outlives takeovers and restarts.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, VIPA, View},
    load::ClientPlan,
    process::wait,
};
use vipa_protocol::{Eligibility, Trigger, admin::ReloadOutcome};

use crate::{
    CONNECTIONS, all_kept,
    changes::{edit, reload},
    kill_the_owner, nothing_lost,
};

/// Gives an order at `router`, which answers once it is carried out.
fn order(cluster: &mut Cluster, router: &str, words: &[&str]) -> Result<String> {
    cluster.router(router).vipactl(words)
}

fn owns(cluster: &mut Cluster, router: &str) -> Result<bool> {
    Ok(cluster.router(router).view()?.owns)
}

/// Time in which a takeback that must not happen would have happened.
const NOTHING_HAPPENS: Duration = Duration::from_secs(1);

fn warm(cluster: &mut Cluster, router: &str) -> Result<()> {
    cluster.wait_view(router, "to be warm", |view| view.warm.len() == 3 && view.owner.is_some()).map(drop)
}

#[test]
fn a_vipa_is_moved_stays_there_over_a_restart_and_is_taken_back_without_a_lost_packet() {
    Plan::new("orders_move").run(|cluster| {
        let vipa = VIPA.to_string();
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            order(cluster, "r1", &["vipa", "move", &vipa, "r2"])?;
            ensure!(owns(cluster, "r2")? && !owns(cluster, "r1")?, "the order is answered once it is carried out");
            // The rank of r1 is higher, and it would take the VIPA back without the order.
            cluster.router("r1").stop()?;
            cluster.router("r1").start()?;
            warm(cluster, "r1")?;
            std::thread::sleep(NOTHING_HAPPENS);
            ensure!(owns(cluster, "r2")?, "r1 keeps to what was decided before it was restarted");
            order(cluster, "r2", &["vipa", "takeback", &vipa])?;
            ensure!(owns(cluster, "r1")?);
            Ok(())
        })?;
        let refused = order(cluster, "r1", &["vipa", "move", &vipa, "r9"]).unwrap_err().to_string();
        ensure!(refused.contains("r9"), "{refused}");
        let end = all_kept(cluster, client)?;
        ensure!(end.stalls == 0, "{end:#?}");
        Ok(())
    });
}

#[test]
fn a_vipa_is_deactivated_on_its_owner_and_reactivated_without_a_lost_packet() {
    Plan::new("orders_deactivate").run(|cluster| {
        let vipa = VIPA.to_string();
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            order(cluster, "r1", &["vipa", "deactivate", &vipa])?;
            ensure!(owns(cluster, "r2")? && !owns(cluster, "r1")?);
            let refused = order(cluster, "r2", &["vipa", "deactivate", &vipa]).unwrap_err().to_string();
            ensure!(refused.contains("--force"), "nobody is left to take it: {refused}");
            cluster.router("r1").stop()?;
            cluster.router("r1").start()?;
            warm(cluster, "r1")?;
            std::thread::sleep(NOTHING_HAPPENS);
            ensure!(owns(cluster, "r2")?, "deactivated it stays, over a restart too");
            order(cluster, "r1", &["vipa", "reactivate", &vipa])?;
            cluster.wait_takeover("r1", Trigger::Takeback).map(drop)
        })?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_node_leaves_and_joins_and_no_packet_is_lost() {
    Plan::new("orders_node").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            order(cluster, "r1", &["node", "leave"])?;
            ensure!(owns(cluster, "r2")?, "the router that leaves gives up what it owns");
            order(cluster, "r2", &["node", "leave", "t1"])?;
            cluster.wait_fitness("r2", "t1", "to have left", |fitness| *fitness == Eligibility::Quiesced)?;
            order(cluster, "r2", &["node", "join", "t1"])?;
            cluster.wait_fitness("r2", "t1", "to have joined", |fitness| *fitness == Eligibility::Fit)?;
            order(cluster, "r1", &["node", "join"])?;
            cluster.wait_takeover("r1", Trigger::Takeback).map(drop)
        })?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_quiesced_target_keeps_what_it_has_and_gets_nothing_new_over_a_takeover_too() {
    Plan::new("orders_quiesce").run(|cluster| {
        let t1 = cluster.target("t1").address().to_string();
        let mut client = cluster
            .client_with(&ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), CONNECTIONS) })?;
        let of_t1 = |client: &mut vipa_lab::load::Client| -> Result<u64> {
            let fresh = client.fresh_and_wait(60)?;
            ensure!(fresh.failed == 0, "{fresh:?}");
            Ok(fresh.servers.get("t1").copied().unwrap_or_default())
        };
        ensure!(of_t1(&mut client)? > 0);
        nothing_lost(cluster, &mut client, |cluster| {
            order(cluster, "r1", &["target", "quiesce", &t1])?;
            for router in ["r1", "r2"] {
                cluster.wait_fitness(router, "t1", "to be quiesced", |fitness| *fitness == Eligibility::Quiesced)?;
            }
            Ok(())
        })?;
        ensure!(of_t1(&mut client)? == 0, "the owner sends it nothing new");
        kill_the_owner(cluster, &mut client)?;
        ensure!(of_t1(&mut client)? == 0, "nor does its successor");
        order(cluster, "r2", &["target", "resume", &t1])?;
        ensure!(of_t1(&mut client)? > 0);

        // The same for one service, at one target.
        let service = format!("{VIPA}:80/tcp");
        order(cluster, "r2", &["service", "quiesce", &service, &t1])?;
        ensure!(of_t1(&mut client)? == 0);
        order(cluster, "r2", &["service", "resume", &service, &t1])?;
        ensure!(of_t1(&mut client)? > 0);
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn with_takeback_manual_a_returning_router_waits_for_the_order_and_when_idle_for_the_last_connection() {
    Plan::new("orders_manual").run(|cluster| {
        let vipa = VIPA.to_string();
        let mut client = cluster
            .client_with(&ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), CONNECTIONS) })?;
        for router in ["r1", "r2"] {
            edit(cluster, router, |text| text.replace("\nranks = ", "\ntakeback = \"manual\"\nranks = "))?;
            ensure!(reload(cluster, router, &[])?.outcome == ReloadOutcome::Applied);
        }
        kill_the_owner(cluster, &mut client)?;
        nothing_lost(cluster, &mut client, |cluster| {
            cluster.router("r1").start()?;
            warm(cluster, "r1")?;
            std::thread::sleep(NOTHING_HAPPENS);
            ensure!(owns(cluster, "r2")?, "nobody has ordered a takeback");
            order(cluster, "r1", &["vipa", "takeback", &vipa])?;
            ensure!(owns(cluster, "r1")?);
            Ok(())
        })?;

        for router in ["r1", "r2"] {
            edit(cluster, router, |text| text.replace("takeback = \"manual\"", "takeback = \"when-idle\""))?;
            ensure!(reload(cluster, router, &[])?.outcome == ReloadOutcome::Applied);
        }
        kill_the_owner(cluster, &mut client)?;
        cluster.router("r1").start()?;
        warm(cluster, "r1")?;
        std::thread::sleep(NOTHING_HAPPENS);
        ensure!(owns(cluster, "r2")?, "the VIPA has connections");
        all_kept(cluster, client)?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        Ok(())
    });
}

#[test]
fn vipas_of_one_group_move_together_by_order_by_failure_and_back() {
    const OTHER: &str = "10.77.0.101";
    Plan::new("orders_group").run(|cluster| {
        let other = format!(
            "\n[[vipa]]\naddress = \"{OTHER}\"\nranks = {{ r1 = 200, r2 = 190 }}\n\n[[vipa.service]]\n\
             ports = 80\ncandidates = [\"10.77.0.31\", \"10.77.0.32\", \"10.77.0.33\"]\n"
        );
        for router in ["r1", "r2"] {
            edit(cluster, router, |text| (text + &other).replace("[[vipa]]\n", "[[vipa]]\ngroup = \"web\"\n"))?;
            ensure!(reload(cluster, router, &[])?.outcome == ReloadOutcome::Applied);
        }
        let mut client = cluster.client(CONNECTIONS)?;
        both_at(cluster, "r1", OTHER)?;
        nothing_lost(cluster, &mut client, |cluster| {
            order(cluster, "r1", &["vipa", "move", OTHER, "r2"])?;
            both_at(cluster, "r2", OTHER)?;
            order(cluster, "r1", &["vipa", "takeback", &VIPA.to_string()])?;
            both_at(cluster, "r1", OTHER)
        })?;
        kill_the_owner(cluster, &mut client)?;
        both_at(cluster, "r2", OTHER)?;
        cluster.router("r1").start()?;
        both_at(cluster, "r1", OTHER)?;
        all_kept(cluster, client).map(drop)
    });
}

/// Waits until this router owns both.
fn both_at(cluster: &mut Cluster, router: &str, other: &str) -> Result<()> {
    let other = other.parse()?;
    wait(&format!("{router} to own both VIPAs"), PATIENCE, || {
        let router = cluster.router(router);
        let owns = |view: Result<View>| view.is_ok_and(|view| view.owns && !view.rebuilding);
        (owns(router.view()) && owns(router.view_of(other))).then_some(())
    })
}
