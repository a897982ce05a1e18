//! P8: a takeover as a client sees it. The owner is killed with SIGKILL; measured is the time from there to the first
//! answer to a message that was sent after it, and so a little more than to the first packet that the backup forwards. A
//! thousand connections are real, on real kernels; beyond them targets without a kernel tell of as many as wanted, on the
//! real protocol, because a machine has no room for a million real ones.

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan},
    load::{Client, ClientPlan},
    process::wait,
};

use crate::{
    figure::{Case, Owed, median},
    machine::Machine,
};

const LEASE_MS: u64 = 60;
const LIVE: usize = 1_000;
const OWED_MEDIAN: f64 = 100.0;
const OWED_LAST: f64 = 200.0;
const OWED_SPREAD: f64 = 20.0;

/// Connections in all, and how often the owner is killed.
const SIZES: [(u32, usize, &str); 3] = [(1_000, 15, "1 k"), (100_000, 5, "100 k"), (1_000_000, 5, "1 M")];

pub(crate) fn measure(_: &Machine) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let mut medians = Vec::new();
    for (connections, runs, name) in SIZES {
        let takeovers = kill_again_and_again(connections, runs).with_context(|| format!("{name} connections"))?;
        let times: Vec<f64> = takeovers.iter().map(|takeover| takeover.silence_ms).collect();
        let part = |of: fn(&Takeover) -> f64| median(&takeovers.iter().map(of).collect::<Vec<_>>());
        medians.push(median(&times));
        cases.push(
            Case::new(format!("takeover, {name} connections, median"), median(&times), "ms", Owed::AtMost(OWED_MEDIAN))
                .beside("connections", f64::from(connections))
                .beside("runs", runs as f64)
                .beside("shortest_ms", times.iter().copied().fold(f64::INFINITY, f64::min))
                .beside("detect_ms", part(|takeover| takeover.detect_ms))
                .beside("collect_ms", part(|takeover| takeover.collect_ms))
                .beside("rebuild_ms", part(|takeover| takeover.rebuild_ms)),
        );
        let last = times.iter().copied().fold(0.0, f64::max);
        cases.push(Case::new(format!("takeover, {name} connections, longest"), last, "ms", Owed::AtMost(OWED_LAST)));
    }
    let spread = |values: &[f64]| {
        values.iter().copied().fold(0.0, f64::max) - values.iter().copied().fold(f64::INFINITY, f64::min)
    };
    cases.push(Case::new("medians differ by", spread(&medians), "ms", Owed::AtMost(OWED_SPREAD)));
    Ok(cases)
}

struct Takeover {
    /// From the kill to the first answer.
    silence_ms: f64,
    /// The backup's own account of it.
    detect_ms: f64,
    collect_ms: f64,
    rebuild_ms: f64,
}

fn kill_again_and_again(connections: u32, runs: usize) -> Result<Vec<Takeover>> {
    let beyond = connections - LIVE as u32;
    let mut plan = Plan { lease_ms: LEASE_MS, connections: LIVE, ..Plan::new("perf-takeover") };
    if beyond > 0 {
        plan.replays = [(2, beyond / 2), (3, beyond - beyond / 2)].into();
    }
    let mut cluster = Cluster::start(plan)?;
    cluster.wait_ready()?;
    let plan = ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), LIVE) };
    let mut client = cluster.client_with(&plan)?;
    let takeovers = (0..runs).map(|_| kill(&mut cluster, &mut client, connections)).collect::<Result<Vec<_>>>();
    if takeovers.is_err() {
        cluster.show_logs();
    }
    let takeovers = takeovers?;
    let end = client.finish(PATIENCE)?;
    ensure!(end.kept == end.asked && end.broken.total() == 0, "connections were lost: {end:#?}");
    Ok(takeovers)
}

/// With a warm backup; afterwards everything is as before.
fn kill(cluster: &mut Cluster, client: &mut Client, connections: u32) -> Result<Takeover> {
    cluster.wait_ready()?;
    for router in ["r1", "r2"] {
        cluster.wait_view(router, "every connection", |view| view.connections >= u64::from(connections))?;
    }
    let known = cluster.router("r2").takeovers()?.len();
    let killed = cluster.router("r1").kill()?;
    client.mark_at(killed)?;
    let report =
        client.wait_for("an answer after the kill", PATIENCE, |report| report.first_after_mark_us.is_some())?;
    let silence = report.first_after_mark_us.context("there was an answer")?;
    client.wait_for("an answer on every connection", PATIENCE, |report| report.silent_since_mark == 0)?;
    let report = wait("the backup's report of its takeover", PATIENCE, || {
        let records = cluster.router("r2").takeovers().ok()?;
        Some(records.into_iter().nth(known)?.report)
    })?;
    cluster.router("r1").start()?;
    let ms = |us: u64| us as f64 / 1e3;
    let (detect_ms, collect_ms, rebuild_ms) = (ms(report.detect_us), ms(report.collect_us), ms(report.rebuild_us));
    Ok(Takeover { silence_ms: ms(silence), detect_ms, collect_ms, rebuild_ms })
}
