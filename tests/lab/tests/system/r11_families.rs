//! R11: TCP and UDP, IPv4 and IPv6, a service on one port or all ports, through every way of forwarding: real clients
//! (`curl`, `iperf3`, `ping`), real servers. On TAP ports, because DPDK's af_packet driver has the kernel reassemble
//! fragments and loses packets that are then larger than a frame.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan, Ports, TargetPlan, VIPA, VIPA6},
    netns::Host,
    process::{Process, wait},
    programs,
};

pub(crate) const WEB: u16 = 8080;
pub(crate) const ECHO: u16 = 5300;
pub(crate) const IPERF: u16 = 5201;
/// Bytes that `curl` fetches.
const PAGE: usize = 8_000_000;

/// On every target: a web server and an echo of datagrams, of both families; on the first one iperf3.
pub(crate) fn start_servers(cluster: &Cluster) -> Result<Vec<Process>> {
    let mut servers = Vec::new();
    let load = programs::path("vipa-load")?;
    for host in cluster.target_hosts() {
        let any = |port: u16| SocketAddr::from(([0_u16; 8], port)).to_string();
        let name = |what: &str| format!("{}-{what}", host.name());
        servers.push(host.spawn(&name("web"), &load, ["web", "--listen", &any(WEB)])?);
        for address in udp_addresses(cluster, &host) {
            let at = SocketAddr::new(address, ECHO).to_string();
            servers.push(host.spawn(&name("echo"), &load, ["echo", "--listen", &at])?);
        }
    }
    // A test of iperf3 has two connections, which must reach one target: only this one listens.
    if let Some(host) = cluster.target_hosts().first() {
        let arguments = ["--server", "--forceflush", "--port", &IPERF.to_string()];
        servers.push(host.spawn(&format!("{}-iperf", host.name()), "iperf3", arguments)?);
    }
    for server in &mut servers {
        wait("a server to listen", Duration::from_secs(10), || {
            (server.ended().is_some() || server.tail(5).to_lowercase().contains("listening")).then_some(())
        })?;
        ensure!(server.ended().is_none(), "{} ended: {}", server.name(), server.tail(5));
    }
    Ok(servers)
}

/// A datagram's answer comes from the address that its socket is bound to: the VIPA, or this host's own where `nat`
/// translates to it.
fn udp_addresses(cluster: &Cluster, host: &Host) -> Vec<IpAddr> {
    let way = cluster.delivery();
    if way.forwarding == "nat" {
        return vec![cluster.own_address(host.name())];
    }
    let vipas = [(way.vipa4, IpAddr::from(VIPA)), (way.vipa6, IpAddr::from(VIPA6))];
    vipas.into_iter().filter(|(there, _)| *there).map(|(_, vipa)| vipa).collect()
}

/// Everything that a client does, to each VIPA there is.
fn everything_passes(way: TargetPlan, name: &str) {
    let plan = Plan { way: TargetPlan { all_ports: true, ..way }, ports: Ports::Tap, targets: 2, ..Plan::new(name) };
    plan.run(|cluster| {
        if cluster.delivery().forwarding != "nat" {
            cluster.wait_addresses()?;
        }
        let _servers = start_servers(cluster)?;
        let way = *cluster.delivery();
        for (there, vipa) in [(way.vipa4, IpAddr::from(VIPA)), (way.vipa6, IpAddr::from(VIPA6))] {
            if !there {
                continue;
            }
            if let Err(error) = use_service(cluster, vipa) {
                let counters = cluster.router("r1").vipactl(&["counters"])?;
                return Err(error)
                    .with_context(|| format!("{vipa} by {}; the router counted\n{counters}", way.forwarding));
            }
        }
        let counters = cluster.router("r1").vipactl(&["counters"])?;
        if matches!(way.forwarding, "ipip" | "gre" | "gue") {
            ensure!(counters.contains("replied.too-big"), "no path MTU was told:\n{counters}");
            ensure!(counters.contains("mss.clamped"), "no segment size was lowered:\n{counters}");
        }
        Ok(())
    });
}

/// Waits until the client gets a page of the VIPA.
pub(crate) fn wait_served(cluster: &mut Cluster, vipa: IpAddr) -> Result<()> {
    let client = cluster.client_host().clone();
    let page = format!("http://{}/1", SocketAddr::new(vipa, WEB));
    wait("every target's listeners to be known", Duration::from_secs(10), || {
        let distribution = cluster.router("r1").vipactl(&["distribution"]).ok()?;
        let shown = client.run("curl", ["-gsS", "--max-time", "5", &page]);
        (shown.is_ok() && distribution.contains("tcp")).then_some(())
    })
}

fn use_service(cluster: &mut Cluster, vipa: IpAddr) -> Result<()> {
    let client = cluster.client_host().clone();
    let web = SocketAddr::new(vipa, WEB);
    wait_served(cluster, vipa)?;
    for _ in 0..6 {
        let page = format!("http://{web}/{PAGE}");
        let arguments = ["-gsS", "--max-time", "20", "-o", "/dev/null", "-w", "%{size_download}", &page];
        let size = client.run("curl", arguments)?;
        ensure!(size == PAGE.to_string(), "curl got {size} bytes of {PAGE}");
    }
    let to = vipa.to_string();
    // The client sends: every full segment reaches the path's MTU.
    let arguments = ["--client", &to, "--port", &IPERF.to_string(), "--bytes", "20M", "--connect-timeout", "5000"];
    client.run("iperf3", arguments)?;
    client.run("ping", ["-c", "3", "-i", "0.2", "-W", "2", &to])?;
    let load = programs::path("vipa-load")?.display().to_string();
    let echo = SocketAddr::new(vipa, ECHO).to_string();
    for size in ["100", "1300", "10000"] {
        client.run(&load, ["ask", "--vipa", &echo, "--size", size, "--count", "8"])?;
    }
    Ok(())
}

fn both() -> TargetPlan {
    TargetPlan { vipa6: true, ..TargetPlan::default() }
}

#[test]
fn r11_direct_return_serves_both_families() {
    everything_passes(both(), "r11_direct");
}

#[test]
fn r11_direct_return_finds_targets_by_their_ipv6_addresses_too() {
    everything_passes(TargetPlan { targets6: true, ..both() }, "r11_direct6");
}

#[test]
fn r11_ip_in_ip_carries_both_families_to_ipv4_targets() {
    everything_passes(TargetPlan { forwarding: "ipip", ..both() }, "r11_ipip");
}

#[test]
fn r11_ip_in_ip_carries_both_families_to_ipv6_targets() {
    everything_passes(TargetPlan { forwarding: "ipip", targets6: true, ..both() }, "r11_ipip6");
}

#[test]
fn r11_gre_carries_both_families_to_ipv4_targets() {
    everything_passes(TargetPlan { forwarding: "gre", ..both() }, "r11_gre");
}

#[test]
fn r11_gre_carries_both_families_to_ipv6_targets() {
    everything_passes(TargetPlan { forwarding: "gre", targets6: true, ..both() }, "r11_gre6");
}

#[test]
fn r11_gue_carries_both_families_to_ipv4_targets() {
    everything_passes(TargetPlan { forwarding: "gue", ..both() }, "r11_gue");
}

#[test]
fn r11_gue_carries_both_families_to_ipv6_targets() {
    everything_passes(TargetPlan { forwarding: "gue", targets6: true, ..both() }, "r11_gue6");
}

#[test]
fn r11_nat_serves_ipv4() {
    everything_passes(TargetPlan { forwarding: "nat", ..TargetPlan::default() }, "r11_nat");
}

#[test]
fn r11_nat_serves_ipv6() {
    let way = TargetPlan { forwarding: "nat", targets6: true, vipa4: false, vipa6: true, ..TargetPlan::default() };
    everything_passes(way, "r11_nat6");
}
