//! UDP flows stay at their target: when it is quiesced, and when a backup takes the VIPA over.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, VIPA},
    load::{ClientPlan, UdpFlows, UdpServer},
    process::wait,
    programs,
};
use vipa_protocol::{
    Trigger,
    admin::{Drill, MirrorStatus},
};

use crate::{
    CONNECTIONS, all_there,
    changes::{edit, reload},
    hostile::vipa_mac,
};

const PORT: u16 = 5_353;
const FLOWS: usize = 90;
/// The owner checks pinned flows once a second; a busy machine takes longer.
const TOLD: Duration = Duration::from_secs(3);

fn service() -> SocketAddr {
    (VIPA, PORT).into()
}

/// A plan with a UDP service beside the TCP service. Its candidates are these targets, by number.
fn plan(name: &str, candidates: &[u8]) -> Plan {
    let candidates: Vec<_> = candidates.iter().map(|number| format!("\"10.77.0.{}\"", 30 + number)).collect();
    let further =
        format!("[[vipa.service]]\nprotocol = \"udp\"\nports = {PORT}\ncandidates = [{}]\n", candidates.join(", "));
    Plan { further, ..Plan::new(name) }
}

/// A server on every target, known to the owner and the backup.
fn start_servers(cluster: &mut Cluster) -> Result<Vec<UdpServer>> {
    cluster.wait_addresses()?;
    let servers: Vec<_> =
        cluster.target_hosts().iter().map(|host| UdpServer::start(host, service())).collect::<Result<_>>()?;
    for router in ["r1", "r2"] {
        wait(&format!("{router} to know the UDP servers"), PATIENCE, || {
            let text = cluster.router(router).vipactl(&["status"]).ok()?;
            (text.matches(&format!("udp/{PORT}")).count() > servers.len()).then_some(())
        })?;
    }
    Ok(servers)
}

#[test]
fn udp_flows_of_a_quiesced_target_stay_there_until_they_run_out_and_new_ones_go_elsewhere() {
    let plan = Plan { table_lines: "udp_s = 4\n".into(), ..plan("udp_quiesce", &[1, 2, 3]) };
    plan.run(|cluster| {
        let _servers = start_servers(cluster)?;
        let t1 = cluster.target("t1").address().to_string();
        let mut flows = UdpFlows::open(cluster.client_host(), service(), FLOWS)?;
        let before = flows.ask(PATIENCE)?;
        ensure!(UdpFlows::by_server(&before).len() == 3, "every target has flows: {before:?}");

        cluster.router("r1").vipactl(&["target", "quiesce", &t1])?;
        for _ in 0..3 {
            std::thread::sleep(Duration::from_secs(2));
            ensure!(
                flows.ask(PATIENCE)? == before,
                "every flow stays at its target, beyond the lifetime of a silent one"
            );
        }
        let mut new = UdpFlows::open(cluster.client_host(), service(), FLOWS)?;
        let placed = new.ask(PATIENCE)?;
        ensure!(!placed.contains(&"t1".to_owned()), "new flows go elsewhere: {:?}", UdpFlows::by_server(&placed));

        // The flows fall silent: the target has none left, and they begin again at other targets.
        cluster.router("r1").vipactl(&["target", "quiesce", &t1, "--drain"])?;
        let after = flows.ask(PATIENCE)?;
        ensure!(!after.contains(&"t1".to_owned()), "{:?}", UdpFlows::by_server(&after));
        Ok(())
    });
}

/// Pinned flows that the owner sends, or that the backup has received.
fn replicated(cluster: &mut Cluster, router: &str) -> Option<u64> {
    match cluster.router(router).table_replica_of().ok()?? {
        MirrorStatus::Telling { connections, left_out: 0, .. } => Some(connections),
        MirrorStatus::Following { connections, behind_ms: Some(_), .. } => Some(connections),
        MirrorStatus::Telling { .. } | MirrorStatus::Following { .. } => None,
    }
}

#[test]
fn udp_flows_stay_at_their_target_through_an_unplanned_takeover_although_the_candidates_have_changed() {
    plan("udp_takeover", &[1, 2]).run(|cluster| {
        let _servers = start_servers(cluster)?;
        let mut flows = UdpFlows::open(cluster.client_host(), service(), FLOWS)?;
        let before = flows.ask(PATIENCE)?;
        ensure!(UdpFlows::by_server(&before).len() == 2, "{before:?}");

        // One candidate more, and one that gets no new flows: hashing finds fewer than half of them now.
        for router in ["r1", "r2"] {
            edit(cluster, router, |text| {
                text.replace("\"10.77.0.31\", \"10.77.0.32\"]", "\"10.77.0.31\", \"10.77.0.32\", \"10.77.0.33\"]")
            })?;
            reload(cluster, router, &[])?;
        }
        let t1 = cluster.target("t1").address().to_string();
        cluster.router("r1").vipactl(&["target", "quiesce", &t1])?;
        ensure!(flows.ask(PATIENCE)? == before, "the owner keeps every flow where it is");
        std::thread::sleep(TOLD);
        let of_t1 = UdpFlows::by_server(&before).get("t1").copied().unwrap_or_default() as u64;
        let told = wait("r2 to be told of the pinned flows", PATIENCE, || {
            let told = replicated(cluster, "r2")?;
            (told > of_t1 && Some(told) == replicated(cluster, "r1")).then_some(told)
        })?;
        ensure!(told < FLOWS as u64, "those that hashing finds are not told: {told}");

        cluster.router("r1").kill()?;
        cluster.wait_takeover("r2", Trigger::Failure)?;
        let after = flows.ask(PATIENCE)?;
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        ensure!(moved == 0, "{moved} of {FLOWS} flows have moved; {told} were told");
        Ok(())
    });
}

#[test]
fn a_drill_compares_what_targets_report_and_shows_udp_flows_and_half_open_connections_apart() {
    const SYNS: u64 = 100;
    plan("udp_drill", &[1, 2, 3]).run(|cluster| {
        let _servers = start_servers(cluster)?;
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), CONNECTIONS) };
        let client = cluster.client_with(&plan)?;
        let mut flows = UdpFlows::open(cluster.client_host(), service(), FLOWS)?;
        flows.ask(PATIENCE)?;
        let (mac, tool) = (vipa_mac(cluster)?, programs::path("vipa-load")?.display().to_string());
        let (vipa, syns) = (Cluster::service().to_string(), SYNS.to_string());
        cluster.client_host().run(&tool, ["spray", "--flood", "--to", &mac, "--vipa", &vipa, "--count", &syns])?;
        let mut last = None;
        let drill = wait("table and targets to agree", PATIENCE, || {
            let text = cluster.router("r1").vipactl(&["drill", &VIPA.to_string(), "--json"]).ok()?;
            let drill: Drill = serde_json::from_str(&text).ok()?;
            let agrees = drill.targets.iter().all(|target| target.held == Some(target.known));
            last = Some(drill.clone());
            agrees.then_some(drill)
        });
        let drill = drill.with_context(|| format!("{last:#?}"))?;
        let known: u64 = drill.targets.iter().map(|target| target.known).sum();
        let others: u64 = drill.targets.iter().map(|target| target.others).sum();
        ensure!(known == CONNECTIONS as u64, "{drill:#?}");
        ensure!((FLOWS as u64 + 1..=FLOWS as u64 + SYNS).contains(&others), "{drill:#?}");
        ensure!(drill.connections == known + others && drill.losses.is_empty(), "{drill:#?}");
        all_there(cluster, client).map(drop)
    });
}
