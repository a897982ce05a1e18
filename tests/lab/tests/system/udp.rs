//! UDP flows stay at their target: when it is quiesced, and when a backup takes the VIPA over.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, VIPA},
    load::{UdpFlows, UdpServer},
    process::wait,
};

const PORT: u16 = 5_353;
const FLOWS: usize = 90;

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

        // The flows fall silent: the target runs out of them, and they begin anew elsewhere.
        cluster.router("r1").vipactl(&["target", "quiesce", &t1, "--drain"])?;
        let after = flows.ask(PATIENCE)?;
        ensure!(!after.contains(&"t1".to_owned()), "{:?}", UdpFlows::by_server(&after));
        Ok(())
    });
}
