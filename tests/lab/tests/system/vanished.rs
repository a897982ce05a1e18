//! A client with a fixed source port comes again after it and its target both vanished without a message.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    load::{Ending, RequestSettings, Requests},
    netns::Plug,
    process::wait,
};
use vipa_protocol::Eligibility;

use crate::requests_kept;

const PORT: u16 = 5_060;

fn start(cluster: &Cluster, name: &str, ending: Ending, silence_ms: u64) -> Result<Requests> {
    let settings = RequestSettings {
        count: Some(1),
        first_port: PORT,
        ports: 1,
        silence_ms: (silence_ms, silence_ms),
        ..RequestSettings::new(Cluster::service(), ending)
    };
    Requests::start(cluster.client_host(), name, &settings)
}

#[test]
fn a_fixed_port_whose_client_and_target_vanished_is_served_anew_by_its_first_syn() {
    Plan { targets: 4, ..Plan::new("vanished") }.run(|cluster| {
        let mut client = start(cluster, "client", Ending::ServerPauses, 600_000)?;
        client.wait_for("the connection", PATIENCE, |report| report.answered == 1)?;
        let targets = cluster.targets();
        let holder = wait("a server to have the connection", PATIENCE, || {
            targets.iter().find(|name| cluster.target(name).served().open == 1).cloned()
        })?;
        cluster.wait_view("r1", "the connection to be reported", |view| view.confirmed == 1)?;
        // No packet of the client's end reaches any host.
        cluster.client_host().nft(
            "add table ip silent\nadd chain ip silent out { type filter hook output priority 0; }\n\
             add rule ip silent out tcp dport 80 drop\n",
        )?;
        drop(client);
        cluster.target(&holder).host().plug(Plug::Out)?;
        cluster.wait_fitness("r1", &holder, "to have vanished", |fitness| *fitness != Eligibility::Fit)?;
        // The router asks it by ARP from then on, and half a second without an answer is enough.
        sleep(Duration::from_secs(1));
        cluster.client_host().run("ss", ["-K", "dport", "=", ":80"])?;
        cluster.client_host().nft("delete table ip silent\n")?;

        let mut again = start(cluster, "again", Ending::ServerCloses, 0)?;
        again.wait_for("the new connection", PATIENCE, |report| report.finished)?;
        let end = requests_kept(again)?;
        ensure!(end.kept == 1 && !end.servers.contains_key(&holder), "{end:#?}");
        // A second SYN comes a second after the first.
        ensure!(end.longest_ms < 1_000, "it was served at a later SYN: {end:#?}");
        Ok(())
    });
}
