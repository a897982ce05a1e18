//! A connection is not its addresses and ports: clients that use their ports again at once lose nothing, however late
//! the report of an earlier connection arrives.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, TargetPlan, Unreported},
    load::{Ending, RequestSettings, Requests},
};
use vipa_protocol::Trigger;

use crate::requests_kept;

/// Connections one after the other, of each kind of client.
const CONNECTIONS: u64 = 500;
/// During each change.
const MEANWHILE: u64 = 200;

/// A client whose server closes first, from four ports; and one that resets, from a single port.
fn start_clients(cluster: &Cluster, count: Option<u64>) -> Result<[Requests; 2]> {
    let start = |name: &str, ending, first_port, ports| {
        let settings = RequestSettings { count, first_port, ports, ..RequestSettings::new(Cluster::service(), ending) };
        Requests::start(cluster.client_host(), name, &settings)
    };
    Ok([start("http", Ending::ServerCloses, 40_000, 4)?, start("abort", Ending::ClientResets, 41_000, 1)?])
}

fn kept_through(cluster: &mut Cluster) -> Result<()> {
    for mut client in start_clients(cluster, Some(CONNECTIONS))? {
        client.wait_for("all connections", PATIENCE, |report| report.finished)?;
        let end = requests_kept(client)?;
        ensure!(end.kept == CONNECTIONS, "{end:#?}");
    }
    cluster.wait_agreement(Unreported::MayBe)?;

    let mut clients = start_clients(cluster, None)?;
    let mut go_on = || clients.iter_mut().try_for_each(|client| client.wait_further(MEANWHILE, PATIENCE).map(drop));
    go_on()?;
    cluster.router("r1").kill()?;
    cluster.wait_takeover("r2", Trigger::Failure)?;
    go_on()?;
    for name in cluster.targets() {
        cluster.target(&name).kill_agent()?;
        cluster.target(&name).start_agent()?;
        go_on()?;
    }
    cluster.router("r1").start()?;
    cluster.wait_takeover("r1", Trigger::Takeback)?;
    go_on()?;
    clients.into_iter().try_for_each(|client| requests_kept(client).map(drop))?;
    cluster.wait_agreement(Unreported::MayBe)
}

fn observed_by(observer: &str, name: &str) {
    let agent_lines = format!("observe = \"{observer}\"\n");
    Plan { agent_lines, ..Plan::new(name) }.run(kept_through);
}

#[test]
fn ports_are_used_again_at_once_and_nothing_breaks_where_agents_observe_by_bpf() {
    observed_by("bpf", "identity_bpf");
}

#[test]
fn ports_are_used_again_at_once_and_nothing_breaks_where_agents_observe_by_sock_diag() {
    observed_by("diag", "identity_diag");
}

#[test]
fn ports_are_used_again_at_once_and_nothing_breaks_where_addresses_are_translated() {
    let way = TargetPlan { forwarding: "nat", ..TargetPlan::default() };
    Plan { way, ..Plan::new("identity_nat") }.run(kept_through);
}

#[test]
fn a_translated_client_that_has_closed_gets_no_reset_when_its_targets_agent_restarts() {
    const RESTARTS: usize = 10;
    let way = TargetPlan { forwarding: "nat", ..TargetPlan::default() };
    Plan { way, targets: 1, ..Plan::new("identity_nat_agent") }.run(|cluster| {
        let resets = cluster.client_host().count("input", "ip saddr 10.77.0.100 tcp flags & rst == rst")?;
        // If a target sends its last ACK and its FIN at once, they may overtake each other on their way through other
        // kernels. Then the client acknowledges twice, and the target's kernel resets the connection that it no longer
        // has (RFC 9293 §3.10.7.1).
        let of_the_target =
            cluster.target("t1").host().count("output", "ip saddr 10.77.0.31 tcp flags & rst == rst")?;
        let settings = RequestSettings {
            endings: vec![Ending::ClientCloses, Ending::ClientHalfCloses, Ending::ServerHalfCloses],
            clients: 24,
            silence_ms: (0, 700),
            interval: Duration::from_millis(20),
            ..RequestSettings::new(Cluster::service(), Ending::ServerCloses)
        };
        let mut client = Requests::start(cluster.client_host(), "client", &settings)?;
        for _ in 0..RESTARTS {
            client.wait_further(MEANWHILE, PATIENCE)?;
            cluster.target("t1").kill_agent()?;
            cluster.target("t1").start_agent()?;
            cluster.wait_view("r1", "to know t1 again", |view| view.warm.len() == 1)?;
        }
        requests_kept(client)?;
        cluster.wait_agreement(Unreported::MayBe)?;
        let (resets, its_own) = (resets.packets()?, of_the_target.packets()?);
        ensure!(
            resets <= its_own,
            "{resets} resets came to the client, {its_own} of the target; {}",
            cluster.counters()
        );
        for name in ["r1", "r2"] {
            let replied = cluster.router(name).counters()?.get("replied.reset").copied().unwrap_or_default();
            ensure!(replied == 0, "{name} sent {replied} resets; {}", cluster.counters());
        }
        Ok(())
    });
}

/// The acknowledgement of a client's FIN is lost until the client repeats the FIN after seconds. Only the client's
/// target, which holds the connection in TIME-WAIT, can answer it, and until then the client cannot use its port again.
#[test]
fn a_clients_last_segments_reach_their_target_although_the_network_was_deaf_for_seconds() {
    const DEAF: Duration = Duration::from_secs(4);
    let service_lines = "orphans = \"drop\"".into();
    Plan { service_lines, ..Plan::new("identity_last") }.run(|cluster| {
        for takes_over in [false, true] {
            let settings = RequestSettings {
                first_port: 40_000 + 100 * u16::from(takes_over),
                ports: 1,
                clients: 8,
                interval: Duration::from_millis(1),
                ..RequestSettings::new(Cluster::service(), Ending::ServerCloses)
            };
            let mut client = Requests::start(cluster.client_host(), "client", &settings)?;
            if takes_over {
                cluster.router("r1").kill()?;
                cluster.wait_takeover("r2", Trigger::Failure)?;
                client.wait_further(MEANWHILE, PATIENCE)?;
            }
            cluster.client_host().nft(
                "table ip deaf {\n chain heard { type filter hook input priority 0;\n  ip saddr 10.77.0.100 ip length 52 \
                 tcp flags & (fin | syn | rst | psh | ack) == ack drop\n }\n}\n",
            )?;
            if takes_over {
                // The successor has just been started: no target reports connections in TIME-WAIT to it.
                cluster.router("r1").start()?;
                cluster.wait_takeover("r1", Trigger::Takeback)?;
            }
            sleep(DEAF);
            let stuck = client.report().asked;
            cluster.client_host().nft("delete table ip deaf\n")?;
            client.wait_further(MEANWHILE, PATIENCE)?;
            let end = requests_kept(client)?;
            ensure!(end.asked > stuck + 8, "{end:#?}");
        }
        Ok(())
    });
}
