//! A failure of a node other than the owner costs only what that node held.

use std::thread::sleep;

use anyhow::ensure;
use vipa_lab::{
    cluster::{Cluster, Plan, Presence, VIPA},
    load::ClientPlan,
    netns::Plug,
};
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, PATIENCE, QUIET, all_kept, everyone_answered, kill_the_owner};

#[test]
fn r04_a_killed_agent_costs_no_connection_and_a_takeover_without_it_keeps_the_others() {
    Plan::new("r04_no_agent").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        cluster.target("t3").kill_agent()?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let takeover = kill_the_owner(cluster, &mut client)?;
        ensure!(takeover.report.targets_answered == 2, "t3 cannot answer: {takeover:?}");
        cluster.target("t3").start_agent()?;
        cluster.wait_view("r2", "the agent to be back", |view| view.warm.len() == 3)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let end = client.finish(PATIENCE)?;
        let other = end.broken.total();
        ensure!(other == 0, "a warm backup knows t3's connections from before: {end:#?}");
        Ok(())
    });
}

#[test]
fn r03_r04_agents_that_were_killed_under_load_tell_everything_in_the_takeover_that_follows_at_once() {
    Plan::new("r04_agents_again").run(|cluster| {
        let plan = ClientPlan { fresh_per_second: 200, ..ClientPlan::new(Cluster::service(), CONNECTIONS) };
        let mut client = cluster.client_with(&plan)?;
        client.wait_for("traffic", PATIENCE, |report| report.fresh_ok > 100)?;
        for name in ["t1", "t2", "t3"] {
            cluster.target(name).kill_agent()?;
            cluster.target(name).start_agent()?;
        }
        kill_the_owner(cluster, &mut client)?;
        cluster.wait_view("r2", "all agents' logs", |view| view.warm.len() == 3)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r04_a_killed_server_costs_only_its_own_connections() {
    Plan::new("r04_no_server").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let own = client.report().servers["t3"];
        cluster.target("t3").kill_servers()?;
        kill_the_owner(cluster, &mut client)?;
        let end = client.finish(PATIENCE)?;
        // A killed process's kernel ends its connections by FIN, or by RST where something was left unread.
        let ended = end.broken.reset + end.broken.closed;
        ensure!(end.broken.total() == own && ended == own, "{own} were t3's: {end:#?}");
        ensure!(end.kept == end.asked - own, "{end:#?}");
        Ok(())
    });
}

#[test]
fn r04_a_target_that_vanishes_in_the_takeover_costs_only_its_own_connections() {
    Plan::new("r04_no_target").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let own = client.report().servers["t3"];
        let t3 = cluster.target("t3").host().clone();
        t3.plug(Plug::Out)?;
        // Its earlier answers have arrived, and no node misses it yet.
        sleep(QUIET);
        let killed = cluster.router("r1").kill()?;
        client.mark_at(killed)?;
        cluster.wait_takeover("r2", Trigger::Failure)?;
        client.wait_for("the others to be answered", PATIENCE, |report| report.silent_since_mark == own)?;
        // Back before the client's time limit ends: TCP repairs even these.
        t3.plug(Plug::In)?;
        everyone_answered(&mut client)?;
        let end = client.finish(PATIENCE)?;
        ensure!(end.kept == end.asked, "{end:#?}");
        Ok(())
    });
}

#[test]
fn r06_an_agent_that_is_killed_or_stops_in_good_order_leaves_its_address_until_cleanup() {
    Plan::new("r06_address").run(|cluster| {
        for name in ["t1", "t2", "t3"] {
            cluster.target(name).wait_address(VIPA, Presence::Present)?;
        }
        cluster.target("t1").kill_agent()?;
        ensure!(cluster.target("t1").has_address(VIPA)?, "connections live on when an agent dies");
        cluster.wait_view("r1", "t1 to be missed", |view| !view.linked.contains("t1"))?;
        cluster.target("t1").start_agent()?;
        // When it is linked again, it has taken its address over; before that there would be no process to stop in good
        // order.
        cluster.wait_view("r1", "t1 to be back", |view| view.linked.contains("t1"))?;
        cluster.target("t1").stop_agent()?;
        ensure!(cluster.target("t1").has_address(VIPA)?, "connections live on when an agent stops");
        cluster.target("t1").clean_up()?;
        ensure!(!cluster.target("t1").has_address(VIPA)?, "cleanup takes it away");
        Ok(())
    });
}

#[test]
fn r04_a_takeover_waits_for_a_slow_agent_no_longer_than_its_deadline_and_takes_its_late_report_in() {
    Plan::new("r04_slow_agent").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        cluster.target("t2").freeze_agent()?;
        let takeover = kill_the_owner(cluster, &mut client)?;
        ensure!(takeover.report.targets_answered < takeover.report.targets_expected, "{takeover:?}");
        cluster.target("t2").thaw_agent()?;
        cluster.wait_view("r2", "the late report", |view| view.warm.len() == 3)?;
        all_kept(cluster, client).map(drop)
    });
}
