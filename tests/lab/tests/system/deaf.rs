//! Neighbours that ignore gratuitous ARP learn by their own request where the VIPA is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan},
    load::Client,
};

use crate::{CONNECTIONS, all_kept, everyone_answered};

/// A kernel without an announcement asks again only when its old entry has expired, after 20 to 40 s.
const SOON: Duration = Duration::from_secs(10);

/// The client's host receives no announcement from now on; it still receives requests and answers.
fn deafen(cluster: &Cluster) -> Result<()> {
    cluster.lab().switch().nft(
        "add table bridge deaf\n\
         add chain bridge deaf through { type filter hook forward priority 0; }\n\
         add rule bridge deaf through oifname client arp saddr ip 10.77.0.100 arp daddr ip 10.77.0.100 drop\n",
    )
}

fn soon_answered(client: &mut Client, killed: u64, began: Instant) -> Result<()> {
    client.mark_at(killed)?;
    everyone_answered(client)?;
    println!("all were answered again {} ms after the kill", began.elapsed().as_millis());
    ensure!(began.elapsed() < SOON, "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn clients_that_ignore_announcements_find_the_new_owner_because_it_asks_for_them() {
    Plan::new("deaf_clients").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        deafen(cluster)?;
        let began = Instant::now();
        let killed = cluster.router("r1").kill()?;
        soon_answered(&mut client, killed, began)?;
        ensure!(cluster.router("r2").view()?.owns, "r2 owns it");
        all_kept(cluster, client).map(drop)
    });
}
