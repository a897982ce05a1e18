//! Neighbours that ignore gratuitous ARP and unsolicited neighbour advertisements learn from a question where the VIPA is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan, SERVICE_PORT, VIPA6, Way},
    load::{Client, ClientPlan},
};

use crate::{CONNECTIONS, all_kept, everyone_answered};

/// A kernel that has not been told asks again only when it has given up its old knowledge: IPv4's after 20 to 40 s, IPv6's after 8 s at
/// the least, since it doubts it for 5 s and asks the old station for 3 s (RFC 4861 §7.3.3).
const SOON: Duration = Duration::from_secs(10);
const SOON6: Duration = Duration::from_secs(4);

/// The client's host hears no announcement from now on; questions and answers it does.
fn deafen(cluster: &Cluster) -> Result<()> {
    cluster.lab().switch().nft(
        "add table bridge deaf\n\
         add chain bridge deaf through { type filter hook forward priority 0; }\n\
         add rule bridge deaf through oifname client arp saddr ip 10.77.0.100 arp daddr ip 10.77.0.100 drop\n\
         add rule bridge deaf through oifname client icmpv6 type nd-neighbor-advert ip6 daddr ff02::1 drop\n",
    )
}

fn found_soon(cluster: &mut Cluster, mut client: Client, soon: Duration) -> Result<()> {
    deafen(cluster)?;
    let began = Instant::now();
    let killed = cluster.router("r1").kill()?;
    client.mark_at(killed)?;
    everyone_answered(&mut client)?;
    println!("all were answered again {} ms after the kill", began.elapsed().as_millis());
    ensure!(began.elapsed() < soon, "{:?}", began.elapsed());
    ensure!(cluster.router("r2").view()?.owns, "r2 owns it");
    all_kept(cluster, client).map(drop)
}

#[test]
fn clients_that_ignore_announcements_find_the_new_owner_because_it_asks_for_them() {
    Plan::new("deaf_clients").run(|cluster| {
        let client = cluster.client(CONNECTIONS)?;
        found_soon(cluster, client, SOON)
    });
}

#[test]
fn ipv6_clients_that_ignore_announcements_find_the_new_owner_because_it_asks_for_them() {
    let way = Way { vipa6: true, ..Way::default() };
    Plan { way, ..Plan::new("deaf_clients6") }.run(|cluster| {
        let client = cluster.client_with(&ClientPlan::new((VIPA6, SERVICE_PORT).into(), CONNECTIONS))?;
        found_soon(cluster, client, SOON6)
    });
}
