//! Segments in the name of a client that did not send them, with sequence numbers that its target refuses, change
//! nothing.

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, Plan, Unreported},
    load::ClientPlan,
    programs,
};

use crate::{all_kept, everyone_answered, hostile::vipa_mac};

/// Idle connections that each kind of segment is sent to.
const EACH: usize = 200;
/// Segments sent in the name of each client, one after the other.
const KINDS: [&[&str]; 5] = [&["fin"], &["rst"], &["rst", "syn"], &["syn"], &["fin-rst"]];
/// `closing_s` and `half_open_s` are 2, and an entry may be kept four seconds longer than they state.
const AGED: Duration = Duration::from_secs(8);

#[test]
fn spoofed_flags_never_end_a_connection_that_its_target_holds() {
    let table_lines = "closing_s = 2\nhalf_open_s = 2\naudit_s = 0\n".into();
    Plan { table_lines, ..Plan::new("spoofed") }.run(|cluster| {
        let count = EACH * KINDS.len();
        let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), count) };
        let mut client = cluster.client_with(&plan)?;
        cluster.wait_view("r1", "every connection to be reported", |view| view.confirmed >= count as u64)?;
        client.pause()?;
        let clients = clients(cluster)?;
        ensure!(clients.len() == count, "{} clients", clients.len());
        for (flags, clients) in KINDS.iter().zip(clients.chunks(EACH)) {
            spoof(cluster, flags, clients)?;
        }
        sleep(AGED);
        cluster.wait_agreement(Unreported::MayBe)?;
        client.resume()?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

/// The client's ends of its connections to the VIPA.
fn clients(cluster: &Cluster) -> Result<Vec<String>> {
    let text = cluster.client_host().run("ss", ["-Htn", "state", "established", "dport", "=", ":80"])?;
    text.lines()
        .map(|line| line.split_whitespace().nth(2).map(String::from).with_context(|| format!("ss says {line:?}")))
        .collect()
}

fn spoof(cluster: &Cluster, flags: &[&str], clients: &[String]) -> Result<()> {
    let (mac, vipa) = (vipa_mac(cluster)?, Cluster::service().to_string());
    let mut arguments = vec!["spoof", "--to", &mac, "--vipa", &vipa];
    for flags in flags {
        arguments.extend(["--flags", flags]);
    }
    for client in clients {
        arguments.extend(["--client", client]);
    }
    let tool = programs::path("vipa-load")?.display().to_string();
    cluster.client_host().run(&tool, arguments).map(drop)
}
