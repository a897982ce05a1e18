//! A target that listens but does not serve loses its traffic, and gets it back when it serves.

use std::time::{Duration, Instant};

use anyhow::Context;
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    load::{ClientPlan, Fresh, Report},
    process::wait,
};
use vipa_protocol::Eligibility;

use crate::{CONNECTIONS, everyone_answered, kill_the_owner};

fn quiet_client(connections: usize) -> ClientPlan {
    ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), connections) }
}

fn servers(fresh: &Fresh) -> Vec<&str> {
    fresh.servers.keys().map(String::as_str).collect()
}

#[test]
fn a_server_that_is_stopped_loses_its_traffic_within_two_seconds_and_has_it_again_when_it_goes_on() {
    // It measures seconds.
    Plan { alone: true, ..Plan::new("health_stopped") }.run(|cluster| {
        let mut old = cluster.client_with(&quiet_client(CONNECTIONS))?;
        let of_t1 = old.report().servers.get("t1").copied().context("t1 serves some")?;
        let mut client = cluster.client_with(&quiet_client(0))?;
        cluster.target("t1").freeze_servers()?;
        // About a third of these reach t1, whose kernel opens them: its application accepts none.
        client.fresh(60)?;
        let began = Instant::now();
        for router in ["r1", "r2"] {
            cluster.wait_fitness(
                router,
                "t1",
                "not to accept",
                |fitness| matches!(fitness, Eligibility::NotAccepting { waiting } if *waiting > 0),
            )?;
        }
        let took = began.elapsed();
        println!("a stopped server was left out after {} ms", took.as_millis());
        assert!(took < Duration::from_secs(2), "{took:?}");
        let text = cluster.router("r1").vipactl(&["distribution"])?;
        assert!(text.contains("no, its server accepts none of "), "{text}");
        let serves = |cluster: &mut Cluster| -> Option<u8> {
            let rows = cluster.router("r1").distribution().ok()?;
            rows.get("t1")?.responsiveness.accepted
        };
        let told = wait("t1's responsiveness to fall", Duration::from_secs(3), || {
            serves(cluster).filter(|accepted| *accepted < 95)
        })?;
        println!(
            "t1's server accepts {told} % of what is sent to it, {} ms after it was stopped",
            began.elapsed().as_millis()
        );
        // No other target is affected: connections elsewhere are answered, and new ones all go there.
        old.mark()?;
        old.wait_for("all but t1's to be answered", PATIENCE, |report| report.silent_since_mark == of_t1)?;
        let before = client.report();
        client.fresh(30)?;
        client.wait_for("the others to serve all", PATIENCE, |report| report.fresh_ok >= before.fresh_ok + 30)?;

        cluster.target("t1").thaw_servers()?;
        cluster.wait_fitness("r1", "t1", "to be fit again", |fitness| *fitness == Eligibility::Fit)?;
        old.mark()?;
        everyone_answered(&mut old)?;
        let end = old.finish(PATIENCE)?;
        assert!(end.kept == end.asked && end.broken.total() == 0, "{end:?}");
        client.wait_for("the fresh connections", Duration::from_secs(20), |report| {
            report.fresh_ok + report.fresh_failed >= 90
        })?;

        cluster.target("t1").freeze_servers()?;
        client.fresh(30)?;
        cluster.wait_fitness("r1", "t1", "not to accept", |fitness| *fitness != Eligibility::Fit)?;
        kill_the_owner(cluster, &mut client)?;
        let before = client.report();
        client.fresh(60)?;
        client.wait_for("the others to serve all", Duration::from_secs(20), |report| {
            report.fresh_ok >= before.fresh_ok + 60
        })?;
        cluster.target("t1").thaw_servers()?;
        cluster.wait_fitness("r2", "t1", "to be fit again", |fitness| *fitness == Eligibility::Fit)?;
        client.wait_for("the stopped ones", Duration::from_secs(20), |report| {
            report.fresh_ok + report.fresh_failed >= 180
        })?;
        let fresh = client.fresh_and_wait(90)?;
        assert_eq!((fresh.failed, servers(&fresh)), (0, vec!["t1", "t2", "t3"]));
        Ok(())
    });
}

/// As far as it changes within seconds, and without a busy processor, which all hosts of the lab share.
#[test]
fn a_target_that_completes_half_of_its_handshakes_gets_half_a_share() {
    // The host's own load counts too.
    let plan = Plan { alone: true, service_lines: "weights = \"load\"\n".into(), ..Plan::new("health_half_a_share") };
    plan.run(|cluster| {
        let mut client = cluster.client_with(&quiet_client(0))?;
        cluster.target("t1").host().nft(
            "add table ip half\n\
             add chain ip half out { type filter hook output priority 0; }\n\
             add rule ip half out tcp sport 80 tcp flags & (syn|ack) == (syn|ack) tcp dport & 2 == 2 drop\n",
        )?;
        client.fresh(180)?;
        let [t1, t2] = wait("t1's share to follow", PATIENCE, || {
            let rows = cluster.router("r1").distribution().ok()?;
            let rows = ["t1", "t2"].map(|target| rows.get(target));
            let [t1, t2] = [rows[0]?.clone(), rows[1]?.clone()];
            let serves_half = t1.responsiveness.percent().is_some_and(|percent| percent <= 75);
            (serves_half && t1.weight < t2.weight).then_some([t1, t2])
        })?;
        println!("{:?} is served, so t1's weight is {} of {}", t1.responsiveness, t1.weight, t2.weight);
        cluster.target("t1").host().nft("delete table ip half\n")?;
        // With this many, chance changes a share by some hundredths.
        let later = cluster.client_with(&quiet_client(2_000))?;
        let servers = later.report().servers;
        let of = |target: &str| servers.get(target).copied().unwrap_or_default() as f64;
        let owed = f64::from(t1.weight) / f64::from(t2.weight);
        for full in ["t2", "t3"] {
            let share = of("t1") / of(full);
            assert!((owed * 0.75..owed * 1.25).contains(&share), "{share} of {full}'s, not {owed}: {servers:?}");
        }
        Ok(())
    });
}

#[test]
fn a_drained_target_loses_nothing_and_gets_nothing_new() {
    Plan::new("health_drained").run(|cluster| {
        let mut client = cluster.client_with(&ClientPlan { fresh_per_second: 100, ..quiet_client(0) })?;
        client.wait_for("traffic", Duration::from_secs(20), |report| report.fresh_ok > 100)?;
        let said = cluster.target("t1").drain_agent()?;
        assert!(said.ends_with("drained: no connection left; the agent leaves\n"), "{said}");
        let before = client.report();
        let after = client
            .wait_for("more traffic", Duration::from_secs(20), |report| report.fresh_ok > before.fresh_ok + 200)?;
        let of_t1 = |report: &Report| report.fresh_servers.get("t1").copied();
        assert_eq!((of_t1(&after), after.fresh_failed), (of_t1(&before), 0));
        Ok(())
    });
}

#[test]
fn a_target_that_no_packet_reaches_is_found_out_by_what_was_sent_in_vain() {
    Plan::new("health_unreachable").run(|cluster| {
        let mut client = cluster.client_with(&quiet_client(0))?;
        // Its agent stays linked, its server listens, and packets that routers forward are lost on the last step.
        cluster.target("t1").host().nft(
            "add table ip deaf\n\
             add chain ip deaf in { type filter hook prerouting priority -300; }\n\
             add rule ip deaf in ip daddr 10.77.0.100 drop\n",
        )?;
        client.fresh(60)?;
        cluster.wait_fitness(
            "r1",
            "t1",
            "to be unreachable",
            |fitness| matches!(fitness, Eligibility::Unreachable { in_vain } if *in_vain >= 8),
        )?;
        let fresh = client.fresh_and_wait(60)?;
        assert!(fresh.failed == 0 && !fresh.servers.contains_key("t1"), "{fresh:?}");
        cluster.target("t1").host().nft("delete table ip deaf\n")?;
        cluster.wait_fitness("r1", "t1", "to be tried again", |fitness| *fitness == Eligibility::Fit)?;
        let fresh = client.fresh_and_wait(60)?;
        assert!(fresh.failed == 0 && fresh.servers.contains_key("t1"), "{fresh:?}");
        Ok(())
    });
}

#[test]
fn new_connections_go_where_the_fewest_live_ones_are() {
    let plan =
        Plan { service_lines: "balance = \"weighted-active\"\n".into(), silent: vec![3], ..Plan::new("health_active") };
    plan.run(|cluster| {
        let client = cluster.client_with(&quiet_client(100))?;
        let servers = client.report().servers;
        assert!(servers.values().all(|&count| (40..=60).contains(&count)), "{servers:?}");
        // A target that joins late gets all new connections, until it has as many as the others.
        cluster.target("t3").start_servers()?;
        cluster.wait_view("r1", "t3's listener", |view| view.listening.contains("t3"))?;
        std::thread::sleep(Duration::from_secs(1));
        let late = cluster.client_with(&quiet_client(30))?;
        let servers = late.report().servers;
        assert!(servers.get("t3").is_some_and(|&count| count >= 25), "{servers:?}");
        Ok(())
    });
}
