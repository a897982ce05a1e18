//! What an operator sees of one connection and of packets under traffic; and a configuration on trial. Nothing of it costs a packet.

use std::fs;

use anyhow::{Context, Result, ensure};
use vipa_lab::cluster::{Cluster, Plan, VIPA};
use vipa_protocol::admin::{Connections, Explanation, Reload, ReloadOutcome};

use crate::{
    CONNECTIONS, all_kept,
    changes::{edit, reload},
    nothing_lost,
};

fn ask<T: serde::de::DeserializeOwned>(cluster: &mut Cluster, question: &[&str]) -> Result<T> {
    let text = cluster.router("r1").vipactl(&[question, &["--json"]].concat())?;
    serde_json::from_str(&text).with_context(|| text)
}

fn see_a_connection(cluster: &mut Cluster) -> Result<()> {
    let one: Connections = ask(cluster, &["connections", "--limit", "1", "--state", "confirmed"])?;
    let row = one.shown.first().context("there are connections")?;
    let service = format!("{VIPA}:{}/tcp", row.connection.port);
    let known: Explanation = ask(cluster, &["explain", &row.connection.client.to_string(), &service])?;
    let path = known.path.as_ref().context("it goes somewhere")?;
    ensure!(known.fate.name == "forwarded" && path.target == row.target && path.mac.is_some(), "{known:#?}");
    ensure!(known.entry.as_ref().is_some_and(|entry| entry.target == row.target && entry.linked), "{known:#?}");

    let new: Explanation = ask(cluster, &["explain", "10.77.0.50:9", &service])?;
    ensure!(new.entry.is_none() && new.service.as_ref().is_some_and(|service| service.chosen.is_some()), "{new:#?}");
    let refused = cluster.router("r1").vipactl(&["explain", "10.77.0.50:9", "10.77.0.250:80/tcp"]).unwrap_err();
    ensure!(refused.to_string().contains("is not a VIPA of this router"), "{refused}");

    let counted: Connections = ask(cluster, &["connections", "--count-by", "target"])?;
    let sum: u64 = counted.counted.iter().map(|row| row.connections).sum();
    ensure!(counted.total >= CONNECTIONS as u64 && sum == counted.total && counted.others == 0, "{counted:?}");
    Ok(())
}

fn see_packets(cluster: &mut Cluster) -> Result<()> {
    let file = cluster.lab().logs().join("x.pcapng");
    let vipa = VIPA.to_string();
    let name = file.to_str().context("UTF-8")?;
    let said = cluster.router("r1").vipactl(&[
        "capture",
        "-w",
        name,
        "--vipa",
        &vipa,
        "--fate",
        "forwarded",
        "--limit",
        "200",
    ])?;
    ensure!(said.starts_with("200 packets, in and out"), "{said}");
    let captured = String::from_utf8_lossy(&fs::read(&file)?).matches("forwarded").count();
    ensure!(captured == 200, "each of 200 packets has its fate as its comment, and {captured} have");
    Ok(())
}

fn try_a_configuration(cluster: &mut Cluster) -> Result<()> {
    let two = "\"10.77.0.31\", \"10.77.0.32\"";
    edit(cluster, "r1", |text| text.replace(two, &format!("{two}, \"10.77.0.33\"")))?;
    let tried: Reload = reload(cluster, "r1", &["--confirm", "1500ms"])?;
    ensure!(tried.outcome == ReloadOutcome::Applied && tried.confirm_within_ms == Some(1_500), "{tried:?}");
    let refused = cluster.router("r1").vipactl(&["reload"]).unwrap_err().to_string();
    ensure!(refused.contains("a reload awaits its confirmation"), "{refused}");
    cluster.wait_view("r1", "to have three candidates", |view| view.candidates.len() == 3)?;
    cluster.wait_view("r1", "to fall back to two candidates", |view| view.candidates.len() == 2)?;
    let counters = cluster.router("r1").counters()?;
    ensure!(counters["reload.reverted"] == 1, "{counters:?}");
    let late = cluster.router("r1").vipactl(&["confirm"]).unwrap_err().to_string();
    ensure!(late.contains("no reload awaits its confirmation"), "{late}");

    reload(cluster, "r1", &["--confirm", "60s"])?;
    cluster.router("r1").vipactl(&["confirm"])?;
    ensure!(reload(cluster, "r1", &["--dry-run"])?.changes.is_empty(), "it stays");
    Ok(())
}

#[test]
fn an_operator_sees_connections_and_packets_and_tries_a_configuration() {
    let mut plan = Plan::new("looking");
    for router in ["r1", "r2"] {
        plan.candidates.insert(router.into(), vec![1, 2]);
    }
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            see_a_connection(cluster)?;
            see_packets(cluster)?;
            try_a_configuration(cluster)
        })?;
        all_kept(cluster, client).map(drop)
    });
}
