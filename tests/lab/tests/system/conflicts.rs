//! Another station on the clients' network has the VIPA, too: an old router that was left running.

use std::{
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, TargetPlan, VIPA, VIPA6},
    load::Client,
    netns::Host,
    process::wait,
};

use crate::{CONNECTIONS, all_kept, everyone_answered};

const FORGOTTEN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 71);
const FORGOTTEN6: &str = "fd77::71";
/// Without an answer to it, the clients of a station that announces the VIPA come back when the router refreshes its
/// announcement, which is once a minute.
const SOON: Duration = Duration::from_secs(10);

/// A host that has both VIPAs on its outward interface and drops packets to them.
fn forgotten(cluster: &Cluster) -> Result<Host> {
    let host = cluster.lab().host("forgotten", &[FORGOTTEN])?;
    host.nft(
        "add table inet sink\n\
         add chain inet sink in { type filter hook input priority 0; }\n\
         add rule inet sink in tcp dport 80 drop\n",
    )?;
    host.sysctl("net.ipv4.conf.eth0.arp_notify", "1")?;
    host.sysctl("net.ipv6.conf.all.disable_ipv6", "0")?;
    host.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")?;
    Ok(host)
}

/// Waits until the clients are answered again after the other station's announcement.
fn soon_answered(client: &mut Client) -> Result<()> {
    let began = Instant::now();
    client.mark()?;
    everyone_answered(client)?;
    println!("all were answered again after {} ms", began.elapsed().as_millis());
    ensure!(began.elapsed() < SOON, "{:?}", began.elapsed());
    Ok(())
}

/// Waits until the owner answers the client's pings to the IPv6 VIPA.
fn soon_pinged(cluster: &Cluster) -> Result<()> {
    let (host, vipa) = (cluster.client_host(), VIPA6.to_string());
    let began = Instant::now();
    wait("the IPv6 VIPA to answer", SOON, || host.run("ping", ["-6", "-c", "1", "-W", "1", &vipa]).ok())?;
    println!("the IPv6 VIPA answered after {} ms", began.elapsed().as_millis());
    Ok(())
}

/// Waits until the owner names the station, and the number of its announcements.
fn named(cluster: &mut Cluster, mac: &str, vipa: &str) -> Result<()> {
    let line = format!("ADDRESS CONFLICT: station {mac} on port p0 says that it has {vipa} ");
    let status = wait("the station to be named", PATIENCE, || {
        cluster.router("r1").vipactl(&["status"]).ok().filter(|status| status.contains(&line))
    })?;
    ensure!(status.contains("take the address away there"), "{status}");
    Ok(())
}

#[test]
fn a_station_that_announces_the_vipa_is_answered_and_named_and_the_clients_go_on() {
    let way = TargetPlan { vipa6: true, ..TargetPlan::default() };
    Plan { way, ..Plan::new("conflicts_announced") }.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        soon_pinged(cluster)?;
        let host = forgotten(cluster)?;
        let mac = host.mac()?;
        host.ip(&["address", "add", &format!("{VIPA}/24"), "dev", "eth0"])?;
        // An announcement right after a takeover may be an echo of the previous owner.
        sleep(Duration::from_secs(3));
        // It starts, and announces itself several times in a row, as keepalived does.
        for _ in 0..3 {
            host.ip(&["link", "set", "eth0", "down"])?;
            host.ip(&["link", "set", "eth0", "up"])?;
        }
        soon_answered(&mut client)?;
        named(cluster, &mac, &VIPA.to_string())?;
        // It asks for the client with the VIPA as its address.
        host.run("sh", ["-c", &format!("ping -c 1 -W 1 -I {VIPA} 10.77.0.51; true")])?;
        soon_answered(&mut client)?;

        host.ip(&["-6", "address", "add", &format!("{FORGOTTEN6}/64"), "dev", "eth0", "nodad"])?;
        host.ip(&["-6", "address", "add", &format!("{VIPA6}/64"), "dev", "eth0", "nodad"])?;
        host.run("sh", ["-c", &format!("ping -6 -c 1 -W 1 -I {VIPA6} fd77::51; true")])?;
        soon_pinged(cluster)?;
        named(cluster, &mac, &VIPA6.to_string())?;
        let counters = cluster.router("r1").counters()?;
        let count = |name: &str| counters.get(name).copied().unwrap_or(0);
        ensure!(count("conflict.heard") >= 3 && count("conflict.answered") >= 3, "{counters:?}");
        host.ip(&["link", "set", "eth0", "down"])?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_station_that_has_the_vipa_and_never_says_so_is_named() {
    let further = "[announce]\nrefresh_s = 1\n".into();
    Plan { further, ..Plan::new("conflicts_silent") }.run(|cluster| {
        let host = forgotten(cluster)?;
        host.ip(&["address", "add", &format!("{VIPA}/32"), "dev", "eth0"])?;
        named(cluster, &host.mac()?, &VIPA.to_string())
    });
}
