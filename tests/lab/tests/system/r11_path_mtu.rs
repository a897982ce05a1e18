//! R11, path MTU: a sender of packets that are too large gets an error, from us about tunnels and through us about the
//! path behind the client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Plan, Ports, TargetPlan, VIPA, VIPA6},
    netns::Host,
    programs,
};

use crate::r11_families::{ECHO, IPERF, WEB, start_servers, wait_served};

/// The router before the client, and the client behind it.
const HOP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 60);
const HOP_FAR: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);
/// MTU between the two.
const NARROW: &str = "1300";
const PAGE: usize = 3_000_000;

fn plan(name: &str, way: TargetPlan) -> Plan {
    Plan { way: TargetPlan { all_ports: true, ..way }, ports: Ports::Tap, targets: 2, ..Plan::new(name) }
}

#[test]
fn r11_a_client_learns_a_tunnels_mtu_from_the_router_where_segments_are_not_clamped() {
    let way = TargetPlan { forwarding: "ipip", vipa6: true, ..TargetPlan::default() };
    let plan = Plan { service_lines: "clamp_mss = false".into(), ..plan("r11_mtu_learnt", way) };
    plan.run(|cluster| {
        cluster.wait_addresses()?;
        let _servers = start_servers(cluster)?;
        let client = cluster.client_host().clone();
        let tool = programs::path("vipa-load")?.display().to_string();
        for vipa in [IpAddr::from(VIPA), IpAddr::from(VIPA6)] {
            wait_served(cluster, vipa)?;
            // Nothing has been learned yet: IPv4's full-size packets are fragmented, and for IPv6's the sender gets an
            // error.
            let echo = SocketAddr::new(vipa, ECHO).to_string();
            client.run(&tool, ["ask", "--vipa", &echo, "--size", "10000", "--count", "4"])?;
            let (to, port) = (vipa.to_string(), IPERF.to_string());
            client.run("iperf3", ["--client", &to, "--port", &port, "--bytes", "5M", "--connect-timeout", "5000"])?;
            let learnt = client.ip(&["route", "get", &to])?;
            ensure!(learnt.contains("mtu 1480"), "the client did not learn: {learnt}; {}", cluster.counters());
        }
        let counters = cluster.router("r1").counters()?;
        let count = |name: &str| counters.get(name).copied().unwrap_or(0);
        ensure!(count("part.sent") > 0, "nothing was cut: {}", cluster.counters());
        ensure!(count("replied.too-big") > 0 && count("mss.clamped") == 0, "{}", cluster.counters());
        Ok(())
    });
}

/// A client behind a hop that takes small packets only. The hop reports that to the VIPA, which is the source of the
/// large ones.
fn a_narrow_path_is_told_to_the_target(name: &str, forwarding: &'static str) {
    let way = TargetPlan { forwarding, ..TargetPlan::default() };
    let plan = Plan { port_lines: format!("gateway = \"{HOP}\"\n"), ..plan(name, way) };
    plan.run(|cluster| {
        if forwarding != "nat" {
            cluster.wait_addresses()?;
        }
        let _servers = start_servers(cluster)?;
        wait_served(cluster, VIPA.into())?;
        let hop = cluster.lab().host("hop", &[HOP, HOP_FAR])?;
        let far = cluster.lab().host("far", &[FAR])?;
        for key in ["conf.all.send_redirects", "conf.eth0.send_redirects"] {
            hop.sysctl(&format!("net.ipv4.{key}"), "0")?;
        }
        hop.sysctl("net.ipv4.ip_forward", "1")?;
        hop.ip(&["route", "add", &FAR.to_string(), "dev", "eth0", "mtu", "lock", NARROW])?;
        far.ip(&["route", "add", "default", "via", &HOP_FAR.to_string()])?;
        // With nat, answers must pass the router.
        let back = if forwarding == "nat" { VIPA } else { HOP };
        for target in cluster.target_hosts() {
            target.ip(&["route", "add", "10.79.0.0/24", "via", &back.to_string()])?;
        }
        for _ in 0..4 {
            let page = format!("http://{VIPA}:{WEB}/{PAGE}");
            let arguments = ["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{size_download}", &page];
            let got = far.run("curl", arguments).with_context(|| cluster.counters())?;
            ensure!(got == PAGE.to_string(), "{got} bytes of {PAGE}");
        }
        ensure!(told(&hop)? > 0, "nothing was too large for the hop");
        let counters = cluster.router("r1").counters()?;
        let lost = ["dropped.icmp", "dropped.icmp-orphan"].map(|name| counters.get(name).copied().unwrap_or(0));
        ensure!(lost == [0, 0], "errors did not reach their connection: {}", cluster.counters());
        Ok(())
    });
}

/// Errors "destination unreachable" that this host has sent, "fragmentation needed" among them.
fn told(host: &Host) -> Result<u64> {
    let text = host.run("cat", ["/proc/net/snmp"])?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Icmp:")).map(str::split_whitespace);
    let (names, values) = lines.next().zip(lines.next()).context("the kernel counts ICMP")?;
    let found = names.zip(values).find(|(name, _)| *name == "OutDestUnreachs");
    Ok(found.context("the kernel counts its errors")?.1.parse()?)
}

#[test]
fn r11_an_icmp_error_from_a_narrow_path_reaches_the_target_that_holds_the_connection() {
    a_narrow_path_is_told_to_the_target("r11_narrow_direct", "direct");
}

#[test]
fn r11_an_icmp_error_from_a_narrow_path_is_translated_for_a_target_of_nat() {
    a_narrow_path_is_told_to_the_target("r11_narrow_nat", "nat");
}

#[test]
fn r11_an_icmp_error_from_a_narrow_path_goes_through_the_tunnel() {
    a_narrow_path_is_told_to_the_target("r11_narrow_gue", "gue");
}
