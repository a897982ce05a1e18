//! An operator's commands during traffic: rehearse, compare, audit. None of them costs a packet.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, VIPA},
    load::ClientPlan,
    process::wait,
};
use vipa_protocol::{
    Trigger,
    admin::{Audit, AuditResult, Diff, Drill, PeerAnswer, Takeovers},
};

use crate::{CONNECTIONS, all_kept, all_there, everyone_answered, kill_the_owner, nothing_lost};

fn ask<T: serde::de::DeserializeOwned>(cluster: &mut Cluster, router: &str, question: &[&str]) -> Result<T> {
    let text = cluster.router(router).vipactl(&[question, &["--json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("{router} says {text}"))
}

/// Asserts that all linked targets agree with `router`'s table; returns how many connections they hold.
fn agreed(cluster: &mut Cluster, router: &str, targets: usize) -> Result<u64> {
    let audit: Audit = ask(cluster, router, &["audit"])?;
    ensure!(audit.targets.len() == targets, "{audit:?}");
    let mut total = 0;
    for target in &audit.targets {
        let AuditResult::Agrees { connections } = target.result else { anyhow::bail!("{router} differs: {audit:#?}") };
        total += connections;
    }
    Ok(total)
}

#[test]
fn the_tables_of_owner_and_backup_agree_with_the_targets_under_load_and_after_a_takeover() {
    let mut plan = Plan::new("operating_audit");
    plan.further = "[hooks]\ntimeout_ms = 100\n".into();
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            for router in ["r1", "r2"] {
                let held = agreed(cluster, router, 3)?;
                ensure!(held >= CONNECTIONS as u64, "{router}: {held}");
            }
            Ok(())
        })?;
        kill_the_owner(cluster, &mut client)?;
        agreed(cluster, "r2", 3)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_drill_tells_what_the_takeover_then_does() {
    Plan::new("operating_drill").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let vipa = VIPA.to_string();
        let drill: Drill = ask(cluster, "r2", &["drill", &vipa])?;
        ensure!(drill.losses.is_empty() && drill.unserved.is_empty() && drill.before.is_empty(), "{drill:#?}");
        ensure!(drill.connections >= CONNECTIONS as u64 && !drill.owned_here, "{drill:#?}");
        ensure!(drill.targets.iter().all(|target| target.held.is_some() && target.reached), "{drill:#?}");
        let owner: Drill = ask(cluster, "r1", &["drill", &vipa])?;
        ensure!(owner.owned_here, "{owner:#?}");

        // A target that cannot be asked is named.
        cluster.target("t3").kill_agent()?;
        cluster.wait_view("r2", "t3 to be missed", |view| !view.linked.contains("t3"))?;
        let drill: Drill = ask(cluster, "r2", &["drill", &vipa])?;
        ensure!(drill.losses.len() == 1 && drill.losses[0].target == cluster.target("t3").address(), "{drill:#?}");
        cluster.target("t3").start_agent()?;
        cluster.wait_view("r2", "t3 to be back", |view| view.warm.len() == 3)?;

        client.mark()?;
        everyone_answered(&mut client)?;
        let takeover = kill_the_owner(cluster, &mut client)?;
        let foretold = Duration::from_micros(drill.detect_us);
        let detected = Duration::from_micros(takeover.report.detect_us);
        ensure!(detected < foretold * 3, "foretold {foretold:?}, came {detected:?}");
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn each_vipas_takeover_report_has_its_own_figures() {
    const OTHER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 101);
    const FEW: usize = 40;
    let mut plan = Plan::new("operating_figures");
    plan.further = format!(
        "[[vipa]]\naddress = \"{OTHER}\"\nranks = {{ r1 = 200, r2 = 190 }}\n\n[[vipa.service]]\nports = 80\n\
         candidates = [\"10.77.0.31\", \"10.77.0.32\", \"10.77.0.33\"]\n"
    );
    plan.run(|cluster| {
        wait("r2 to follow the other VIPA", PATIENCE, || {
            let view = cluster.router("r2").view_of(OTHER.into()).ok()?;
            (view.owner.as_deref() == Some("r1") && view.listening.len() == 3).then_some(())
        })?;
        let only = |vipa, connections| ClientPlan { fresh_per_second: 0, ..ClientPlan::new(vipa, connections) };
        let mut client = cluster.client_with(&only(Cluster::service(), CONNECTIONS))?;
        let mut quiet = cluster.client_with(&only((OTHER, 80).into(), FEW))?;
        quiet.pause()?;
        cluster.wait_view("r2", "every connection", |view| view.connections == CONNECTIONS as u64)?;
        wait("r2 to know those of the other VIPA", PATIENCE, || {
            (cluster.router("r2").view_of(OTHER.into()).ok()?.connections == FEW as u64).then_some(())
        })?;

        // An agent that does not answer: there is time to forward packets while the table is rebuilt.
        cluster.target("t3").freeze_agent()?;
        kill_the_owner(cluster, &mut client)?;
        cluster.target("t3").thaw_agent()?;
        let record = |cluster: &mut Cluster, vipa: std::net::Ipv4Addr| {
            wait("a takeover report", PATIENCE, || {
                let Takeovers { records } = ask(cluster, "r2", &["takeovers"]).ok()?;
                records.into_iter().find(|one| one.report.vipa == vipa && one.report.trigger == Trigger::Failure)
            })
        };
        let (many, few) = (record(cluster, VIPA)?, record(cluster, OTHER)?);
        ensure!(many.connections_known_before == CONNECTIONS as u64, "{many:#?}");
        ensure!(few.connections_known_before == FEW as u64, "{few:#?}");
        ensure!(many.first_forward_us.is_some(), "the clients of this VIPA went on: {many:#?}");
        ensure!(few.first_forward_us.is_none() && few.held == 0, "the clients of this VIPA were quiet: {few:#?}");
        quiet.resume()?;
        quiet.mark()?;
        everyone_answered(&mut quiet)?;
        all_there(cluster, quiet)?;
        all_there(cluster, client).map(drop)
    });
}

#[test]
fn a_diff_shows_where_a_backup_is_configured_otherwise() {
    let mut plan = Plan::new("operating_diff");
    plan.candidates.insert("r2".into(), vec![1, 2]);
    plan.run(|cluster| {
        let vipa = VIPA.to_string();
        let diff: Diff = ask(cluster, "r1", &["diff", &vipa])?;
        let [peer] = &diff.peers[..] else { anyhow::bail!("{diff:?}") };
        let PeerAnswer::Differs(rows) = &peer.answer else { anyhow::bail!("{diff:?}") };
        let [row] = &rows[..] else { anyhow::bail!("{diff:?}") };
        ensure!(row.what == "tcp/80 candidates" && row.there == "10.77.0.31 10.77.0.32", "{row:?}");
        cluster.router("r2").kill()?;
        cluster.wait_view("r1", "r2 to be missed", |view| !view.linked.contains("r2"))?;
        let diff: Diff = ask(cluster, "r1", &["diff", &vipa])?;
        ensure!(diff.peers[0].answer == PeerAnswer::Silent, "{diff:?}");
        Ok(())
    });
}

#[test]
fn takeovers_are_remembered_across_restarts() {
    Plan::new("operating_memory").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        kill_the_owner(cluster, &mut client)?;
        let before = cluster.router("r2").takeovers_ever()?;
        cluster.router("r1").start()?;
        cluster.wait_takeover("r1", vipa_protocol::Trigger::Takeback)?;
        cluster.router("r2").stop()?;
        cluster.router("r2").start()?;
        let after = vipa_lab::process::wait("r2 to answer", Duration::from_secs(20), || {
            cluster.router("r2").takeovers_ever().ok()
        })?;
        ensure!(!before.is_empty() && after == before, "{before:?} became {after:?}");
        ensure!(cluster.router("r2").takeovers()?.is_empty(), "this life has taken nothing over");
        let file = cluster.lab().dir().join("state-pki-r2/takeovers.json");
        ensure!(fs::metadata(&file)?.len() < 200_000);
        all_kept(cluster, client).map(drop)
    });
}
