//! R10: a router may be its own target, and its kernel is reached through its ports as well: ping, TCP, and a flood
//! that does not starve other traffic.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan, Ports, Presence, VIPA},
    load::ClientPlan,
    process::wait,
    programs,
};

use crate::{CONNECTIONS, all_kept, all_there, everyone_answered, hostile::vipa_mac};

/// The kernel's interface behind the port, and its addresses.
const INTERFACE: &str = "k0";
const KERNEL: &str = "10.78.0.1";
const KERNEL6: &str = "fd78::1";

fn plan(name: &str) -> Plan {
    let port_lines = format!("kernel_interface = \"{INTERFACE}\"\n");
    Plan { ports: Ports::Tap, targets: 2, port_lines, ..Plan::new(name) }
}

/// Gives the interface its addresses, and the client's host addresses in the same networks.
fn address(cluster: &mut Cluster) -> Result<()> {
    let router = cluster.router("r1").host().clone();
    // The bridge is on the same wire; it must not answer for the interface's addresses.
    router.sysctl("net.ipv4.conf.br0.arp_ignore", "1")?;
    router.sysctl(&format!("net.ipv6.conf.{INTERFACE}.disable_ipv6"), "0")?;
    router.ip(&["address", "add", &format!("{KERNEL}/24"), "dev", INTERFACE])?;
    router.ip(&["-6", "address", "add", &format!("{KERNEL6}/64"), "dev", INTERFACE, "nodad"])?;
    router.ip(&["link", "set", INTERFACE, "up"])?;
    let client = cluster.client_host();
    client.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")?;
    client.ip(&["address", "add", "10.78.0.51/24", "dev", "eth0"])?;
    client.ip(&["-6", "address", "add", "fd78::51/64", "dev", "eth0", "nodad"])?;
    Ok(())
}

#[test]
fn r10_the_routers_kernel_is_reached_through_its_port_and_a_flood_to_it_starves_nobody() {
    // Low enough for a flood on a busy machine to exceed it.
    let kernel = plan("r10_kernel");
    let port_lines = format!("{}kernel_packets_per_second = 8000\n", kernel.port_lines);
    Plan { port_lines, ..kernel }.run(|cluster| {
        address(cluster)?;
        let (router, host) = (cluster.router("r1").host().clone(), cluster.client_host().clone());
        let tool = programs::path("vipa-load")?;
        let mut web = router.spawn("r1-web", &tool, ["web", "--listen", &format!("{KERNEL}:8080")])?;
        wait("the server to listen", Duration::from_secs(10), || {
            (web.ended().is_some() || web.tail(5).contains("listening")).then_some(())
        })?;
        let reached = || -> Result<()> {
            host.run("ping", ["-c", "3", "-i", "0.2", "-W", "2", KERNEL])?;
            host.run("ping", ["-6", "-c", "3", "-i", "0.2", "-W", "2", KERNEL6])?;
            let page = format!("http://{KERNEL}:8080/3000000");
            let got =
                host.run("curl", ["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{size_download}", &page])?;
            ensure!(got == "3000000", "{got} bytes of 3000000");
            Ok(())
        };
        reached().map_err(|error| error.context(cluster.counters()))?;

        let mut client = cluster.client(CONNECTIONS)?;
        let mac = vipa_mac(cluster)?;
        let (to, tool) = (format!("{KERNEL}:8080"), tool.display().to_string());
        client.mark()?;
        let flood = ["spray", "--flood", "--to", &mac, "--vipa", &to, "--count", "100000", "--per-second", "40000"];
        host.run(&tool, flood)?;
        everyone_answered(&mut client)?;
        let counters = cluster.router("r1").counters()?;
        let count = |name: &str| counters.get(name).copied().unwrap_or(0);
        ensure!(count("dropped.kernel-limit") > 10_000, "the kernel got everything: {}", cluster.counters());
        ensure!(count("kernel.to") > 10_000 && count("kernel.from") > 0, "{}", cluster.counters());
        reached().map_err(|error| error.context(cluster.counters()))?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn r10_a_router_is_a_target_of_its_own_vipa() {
    Plan { serves_itself: true, ..plan("r10_local") }.run(|cluster| {
        let router = cluster.router("r1").host().clone();
        router.sysctl("net.ipv4.conf.br0.arp_ignore", "1")?;
        router.ip(&["link", "set", INTERFACE, "up"])?;
        let own = cluster.start_own_target()?;
        own.wait_address(VIPA, Presence::Present)?;
        cluster.wait_view("r1", "its own target to listen", |view| view.listening.contains(Cluster::OWN_TARGET))?;
        let mut client = cluster.client(CONNECTIONS)?;
        let here = client.report().servers.get("r1").copied().unwrap_or(0);
        ensure!(here > CONNECTIONS as u64 / 6, "the router serves {here} of {CONNECTIONS} itself");
        cluster.wait_view("r1", "all to be reported", |view| view.confirmed >= CONNECTIONS as u64)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        let served = own.served();
        ensure!(served.broken == 0 && served.open >= here, "{served:#?}");
        all_kept(cluster, client).map(drop)
    });
}

/// `r2` owns this one, and `r1` is its backup.
const BACKED_UP: &str = "10.77.0.101";
/// `r2` alone may own this one, and `r1` is its only target.
const SERVED: &str = "10.77.0.102";

#[test]
fn r10_a_router_is_owner_of_one_vipa_backup_of_another_and_target_of_a_third_at_once() {
    let ranks = format!("[[vipa]]\naddress = \"{BACKED_UP}\"\nranks = {{ r2 = 200, r1 = 100 }}\n");
    let vipas = [
        ("r1".into(), ranks.clone()),
        (
            "r2".into(),
            format!(
                "{ranks}[[vipa.service]]\nports = 80\ncandidates = [\"10.77.0.31\", \"10.77.0.32\"]\n\
                 [[vipa]]\naddress = \"{SERVED}\"\nranks = {{ r2 = 200 }}\n\
                 [[vipa.service]]\nports = 80\ncandidates = [\"10.77.0.21\"]\n"
            ),
        ),
    ];
    let plan = Plan { serves_itself: true, further_of: vipas.into(), ..plan("r10_three_parts") };
    plan.run(|cluster| {
        let router = cluster.router("r1").host().clone();
        router.sysctl("net.ipv4.conf.br0.arp_ignore", "1")?;
        router.ip(&["link", "set", INTERFACE, "up"])?;
        let own = cluster.start_own_target()?;
        own.wait_address(SERVED.parse::<Ipv4Addr>()?, Presence::Present)?;
        let service = |vipa: &str| -> Result<SocketAddr> { Ok(SocketAddr::new(vipa.parse()?, 80)) };
        let open = |cluster: &mut Cluster, vipa: &str| {
            let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(service(vipa)?, 100) };
            cluster.client_with(&plan)
        };
        owns(cluster, "r2", BACKED_UP)?;
        owns(cluster, "r2", SERVED)?;
        let owned = cluster.client(100)?;
        let backed_up = open(cluster, BACKED_UP)?;
        let served = open(cluster, SERVED)?;
        ensure!(served.report().servers.keys().eq(["r1"]), "{:?}", served.report().servers);
        let mut clients = [owned, backed_up, served];
        // r1 takes over what it backs up; the VIPA that it only serves has no other router and waits for its owner.
        cluster.router("r2").kill()?;
        owns(cluster, "r1", BACKED_UP)?;
        for client in &mut clients[..2] {
            client.mark()?;
            everyone_answered(client)?;
        }
        cluster.router("r2").start()?;
        owns(cluster, "r2", BACKED_UP)?;
        owns(cluster, "r2", SERVED)?;
        for client in &mut clients {
            client.mark()?;
            everyone_answered(client)?;
        }
        ensure!(cluster.router("r1").view()?.owns, "r1 has owned its own all the time");
        for client in clients {
            all_there(cluster, client)?;
        }
        Ok(())
    });
}

fn owns(cluster: &mut Cluster, router: &str, vipa: &str) -> Result<()> {
    let address = vipa.parse()?;
    wait(&format!("{router} to own {vipa}"), Duration::from_secs(20), || {
        let view = cluster.router(router).view_of(address).ok()?;
        (view.owns && !view.rebuilding && !view.listening.is_empty()).then_some(())
    })
}
