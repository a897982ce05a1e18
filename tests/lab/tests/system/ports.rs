//! A router's port whose device is replaced, or that has no connection to the network.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, Ports},
    load::Client,
};
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, everyone_answered};

/// Longer than a router takes to be fit again after a fault (`autonomics.fit_after_ms`) and to take back.
const LONG_ENOUGH: Duration = Duration::from_secs(9);

/// Asserts that `r2` owns the VIPA, and continues to.
fn stays_at_r2(cluster: &mut Cluster, client: &mut Client) -> Result<()> {
    client.mark()?;
    everyone_answered(client)?;
    let until = Instant::now() + LONG_ENOUGH;
    while Instant::now() < until {
        let view = cluster.router("r2").view()?;
        ensure!(view.owns, "r1 has taken back what it cannot route");
        sleep(Duration::from_millis(100));
    }
    client.mark()?;
    everyone_answered(client).map(drop)
}

#[test]
fn a_router_whose_interface_was_deleted_and_made_anew_ends_and_its_next_life_takes_back() {
    Plan::new("ports_replaced").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let (host, address) = (cluster.router("r1").host().clone(), cluster.router("r1").control_address());
        let mac = host.mac()?;
        host.remove_interface()?;
        client.mark()?;
        cluster.wait_takeover("r2", Trigger::Failure)?;
        everyone_answered(&mut client)?;

        host.make_interface(&mac, &[address])?;
        let said = cluster.router("r1").wait_failure(PATIENCE)?;
        ensure!(said.contains("the device of port p0 is another one than was opened"), "{said}");
        client.mark()?;
        everyone_answered(&mut client)?;

        cluster.router("r1").start()?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_port_that_leads_nowhere_loses_its_vipas_and_gets_none_back_in_this_life_or_the_next() {
    Plan { ports: Ports::Tap, ..Plan::new("ports_nowhere") }.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let host = cluster.router("r1").host().clone();
        // Its link stays up, and the routers exchange messages by another interface.
        let unplug = || host.ip(&["link", "set", "dtap0", "nomaster"]);
        let plug = || host.ip(&["link", "set", "dtap0", "master", "br0"]);
        let began = Instant::now();
        unplug()?;
        client.mark()?;
        cluster.wait_view("r2", "to own the VIPA", |view| view.owns && !view.rebuilding)?;
        everyone_answered(&mut client)?;
        println!("r2 owned the VIPA and all were answered after {} ms", began.elapsed().as_millis());
        let status = cluster.router("r1").vipactl(&["status"])?;
        ensure!(status.contains("UNFIT: nobody on the network of port p0 answers"), "{status}");
        stays_at_r2(cluster, &mut client)?;

        // The same from the start of a process: unplugged before anything could be taken back.
        cluster.router("r1").kill()?;
        cluster.router("r1").start()?;
        unplug()?;
        stays_at_r2(cluster, &mut client)?;

        plug()?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}
