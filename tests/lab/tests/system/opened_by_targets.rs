//! Connections that a target opens with the VIPA as their source: the server's answers come to the VIPA's owner, which
//! has the connection from the target's report.

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan, TargetPlan, VIPA},
    load::{ClientPlan, Server},
};

use crate::{all_kept, everyone_answered, kill_the_owner};

/// Port of the server beside the clients.
const FAR_PORT: u16 = 9_000;
/// Its address: `cluster` defines where the client is.
const FAR: [u8; 4] = [10, 77, 0, 51];

/// A target opens fifty connections and more, during a takeover and after it; none waits for a repeated SYN-ACK.
fn targets_open_connections(name: &str, way: TargetPlan) {
    let plan = Plan { way, ..Plan::new(name) };
    plan.run(|cluster| {
        cluster.wait_addresses()?;
        let _far = Server::start(cluster.client_host(), (FAR, FAR_PORT).into())?;
        let opened = ClientPlan {
            sources: vec![VIPA.into()],
            fresh_per_second: 0,
            ..ClientPlan::new((FAR, FAR_PORT).into(), 50)
        };
        let mut client = cluster.client_on("t1", &opened)?;
        kill_the_owner(cluster, &mut client)?;
        let fresh = client.fresh_and_wait(50)?;
        ensure!(fresh.ok == 50, "{fresh:?}");
        client.mark()?;
        everyone_answered(&mut client)?;
        nobody_was_reset(cluster)?;
        all_kept(cluster, client).map(drop)
    });
}

fn nobody_was_reset(cluster: &mut Cluster) -> Result<()> {
    let counters = cluster.router("r2").counters()?;
    let of = |name: &str| counters.get(name).copied().unwrap_or_default();
    ensure!(of("replied.reset") == 0, "{}", cluster.counters());
    ensure!(of("dropped.syn-ack") == 0, "SYN-ACKs waited in vain: {}", cluster.counters());
    Ok(())
}

#[test]
fn connections_that_a_target_opens_from_the_vipa_work_and_live_through_a_takeover() {
    targets_open_connections("opened", TargetPlan::default());
}

#[test]
fn connections_that_a_target_opens_from_a_port_of_a_service_work_too() {
    targets_open_connections("opened_all", TargetPlan { all_ports: true, ..TargetPlan::default() });
}

#[test]
fn connections_that_a_tunnelled_target_opens_get_their_answers_through_the_tunnel() {
    targets_open_connections("opened_gue", TargetPlan { forwarding: "gue", ..TargetPlan::default() });
}
