//! A target's agent reports its Ethernet address: forged ARP does not change it, and a replaced card is known at once.
//!
//! ```text
//!   client ──► r1, owner ──► t1, t2, t3        forger ──► r1: t1, t2, t3 are mine, a thousand times a second
//! ```
//! The router's port is a TAP device here, so that only `vipad` receives the forged frames. The kernel beside an
//! `af_packet` port accepts them too, and loses its links to the targets.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, Ports},
    load::{Client, STALL},
    netns::Host,
    process::{Process, wait},
    programs,
};

use crate::{all_kept, everyone_answered, hostile::vipa_mac};

const CONNECTIONS: usize = 200;
/// How long answers are forged.
const FORGING: Duration = Duration::from_secs(10);
/// A kernel that receives nothing any more asks its neighbours again only after 20 to 40 s.
const SOON: Duration = Duration::from_secs(5);

/// Forges answers for all targets, until it is dropped.
fn forge(cluster: &mut Cluster) -> Result<Process> {
    let forger = cluster.lab().host("forger", &["10.77.0.66".parse()?])?;
    let claims: Vec<String> = cluster.targets().iter().map(|name| cluster.own_address(name).to_string()).collect();
    let (mac, told) = (vipa_mac(cluster)?, cluster.router("r1").port_address().to_string());
    let mut arguments = vec!["forge", "--to", &mac, "--told", &told, "--per-second", "1000"];
    claims.iter().for_each(|claim| arguments.extend(["--claim", claim]));
    forger.spawn("forger", programs::path("vipa-load")?, arguments)
}

/// The targets receive no requests for their addresses any more; they still receive answers to their own.
fn silence(cluster: &Cluster) -> Result<()> {
    let rule = |target: &str| format!("add rule bridge silent through oifname {target} arp operation request drop\n");
    let rules: String = cluster.targets().iter().map(|target| rule(target)).collect();
    let chain = "add table bridge silent\nadd chain bridge silent through { type filter hook forward priority 0; }\n";
    cluster.lab().switch().nft(&format!("{chain}{rules}"))
}

fn counted(cluster: &mut Cluster, counter: &str) -> Result<u64> {
    Ok(cluster.router("r1").counters()?.get(counter).copied().unwrap_or(0))
}

/// Waits until the owner has used the address that each target reports: their stations have answered it.
fn wait_told(cluster: &mut Cluster) -> Result<()> {
    for target in cluster.targets() {
        let mac = cluster.target(&target).host().mac()?;
        let line = format!("told by its agent: {} is at {mac}", cluster.own_address(&target));
        wait(&line, PATIENCE, || cluster.router("r1").log_text().ok()?.contains(&line).then_some(()))?;
    }
    Ok(())
}

/// Asserts that no connection waits long for an answer.
fn nobody_stalls(client: &mut Client, during: Duration) -> Result<()> {
    let began = Instant::now();
    client.mark()?;
    while began.elapsed() < during {
        sleep(Duration::from_millis(200));
        let report = client.report();
        ensure!(report.longest_ms < STALL.as_millis() as u64, "a connection stalls: {report:#?}");
    }
    everyone_answered(client)?;
    Ok(())
}

/// Gives the target's interface another Ethernet address.
fn replace_card(host: &Host, mac: &str) -> Result<()> {
    host.ip(&["link", "set", "eth0", "address", mac]).map(drop)
}

#[test]
fn a_thousand_forged_answers_a_second_stall_no_connection_even_to_targets_that_cannot_answer() {
    Plan { ports: Ports::Tap, ..Plan::new("forged_answers") }.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        wait_told(cluster)?;
        let forger = forge(cluster)?;
        nobody_stalls(&mut client, FORGING)?;
        silence(cluster)?;
        nobody_stalls(&mut client, FORGING)?;
        let (contested, moved) = (counted(cluster, "neighbour.contested")?, counted(cluster, "neighbour.moved")?);
        println!("{contested} forged answers were told to r1, {moved} were believed");
        ensure!(contested > 10_000, "the answers came to the router: {contested}");
        ensure!(moved == 0, "{moved} were believed");
        drop(forger);
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_target_whose_card_is_replaced_is_found_at_its_new_address_at_once_whatever_is_forged() {
    Plan { ports: Ports::Tap, ..Plan::new("forged_replaced") }.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        wait_told(cluster)?;
        let forger = forge(cluster)?;
        let host = cluster.target("t1").host().clone();
        replace_card(&host, "02:56:49:50:41:f1")?;
        let began = Instant::now();
        client.mark()?;
        everyone_answered(&mut client)?;
        println!("all were answered {} ms after the card was replaced", began.elapsed().as_millis());
        ensure!(began.elapsed() < SOON, "{:?}", began.elapsed());
        let moved = counted(cluster, "neighbour.moved")?;
        ensure!(moved == 1, "{moved} addresses moved");
        drop(forger);
        all_kept(cluster, client).map(drop).context("after the card was replaced")
    });
}
