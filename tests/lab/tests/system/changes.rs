//! Planned changes under traffic: a reload; and a router whose self-check finds it unfit.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, Ports},
    process::wait,
};
use vipa_protocol::{
    Trigger,
    admin::{Reload, ReloadOutcome, Status},
};

use crate::{CONNECTIONS, all_kept, everyone_answered, nothing_lost};

/// Rewrites a router's configuration.
pub(crate) fn edit(cluster: &mut Cluster, router: &str, edit: impl FnOnce(String) -> String) -> Result<()> {
    let file = cluster.router(router).config().to_path_buf();
    let text = fs::read_to_string(&file)?;
    let edited = edit(text.clone());
    ensure!(edited != text, "the edit changes nothing");
    Ok(fs::write(file, edited)?)
}

pub(crate) fn reload(cluster: &mut Cluster, router: &str, arguments: &[&str]) -> Result<Reload> {
    let text = cluster.router(router).vipactl(&[&["reload", "--json"], arguments].concat())?;
    serde_json::from_str(&text).with_context(|| text)
}

#[test]
fn a_reload_is_taken_up_whole_or_not_at_all_and_loses_no_packet() {
    let mut plan = Plan::new("changes_reload");
    for router in ["r1", "r2"] {
        plan.candidates.insert(router.into(), vec![1, 2]);
    }
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            // A mistake changes nothing, and is reported with its position.
            edit(cluster, "r1", |text| text.replace("protocol = \"tcp\"", "protocoll = \"tcp\""))?;
            let mistake = cluster.router("r1").vipactl(&["reload"]).unwrap_err().to_string();
            ensure!(mistake.contains("r1.toml:") && mistake.contains("did you mean `protocol`"), "{mistake}");
            edit(cluster, "r1", |text| text.replace("protocoll", "protocol"))?;
            ensure!(reload(cluster, "r1", &[])?.outcome == ReloadOutcome::Unchanged);

            // A third candidate, on both routers.
            for router in ["r1", "r2"] {
                edit(cluster, router, |text| {
                    text.replace("\"10.77.0.31\", \"10.77.0.32\"", "\"10.77.0.31\", \"10.77.0.32\", \"10.77.0.33\"")
                })?;
                let rehearsed = reload(cluster, router, &["--dry-run"])?;
                ensure!(rehearsed.outcome == ReloadOutcome::Rehearsed && rehearsed.changes.len() == 1, "{rehearsed:?}");
                ensure!(cluster.router(router).view()?.candidates.len() == 2, "a rehearsal changes nothing");
                ensure!(reload(cluster, router, &[])?.outcome == ReloadOutcome::Applied);
                cluster.wait_view(router, "to have three candidates", |view| view.candidates.len() == 3)?;
            }

            // A change that needs a restart holds back the rest, unless the opposite is requested.
            edit(cluster, "r1", |text| {
                text.replace("lease_ms = 200", "lease_ms = 300") + "\n[hooks]\ntimeout_ms = 77\n"
            })?;
            let refused = reload(cluster, "r1", &[])?;
            ensure!(refused.outcome == ReloadOutcome::NeedsRestart, "{refused:?}");
            let in_part = reload(cluster, "r1", &["--live"])?;
            ensure!(in_part.outcome == ReloadOutcome::AppliedInPart, "{in_part:?}");
            let left = reload(cluster, "r1", &["--dry-run"])?;
            ensure!(left.changes.iter().all(|change| change.needs_restart), "{left:?}");
            let log = fs::read_to_string(cluster.lab().logs().join("r1.log"))?;
            for line in [
                "reloaded: nothing has changed",
                "reloaded: vipa 10.77.0.100: tcp/80 candidates: not there → 10.77.0.33\n",
                "reloaded: hooks.timeout_ms: 5s → 77ms; not taken up before a restart: cluster.lease_ms",
            ] {
                ensure!(log.contains(line), "{line}: {log}");
            }
            Ok(())
        })?;
        // New connections go to the new candidate too.
        client.wait_for("a fresh connection at t3", PATIENCE, |report| report.fresh_servers.contains_key("t3"))?;
        ensure!(cluster.router("r1").view()?.epoch == 1, "nobody took anything over");
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_signal_reloads_and_ranks_that_change_places_move_the_vipa_without_a_lost_packet() {
    Plan::new("changes_ranks").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            for router in ["r2", "r1"] {
                edit(cluster, router, |text| text.replace("r1 = 200, r2 = 190", "r1 = 180, r2 = 190"))?;
                cluster.router(router).hang_up()?;
            }
            cluster.wait_view("r2", "to own the VIPA", |view| view.owns && !view.rebuilding).map(drop)
        })?;
        all_kept(cluster, client).map(drop)
    });
}

/// The router's own reason for being unfit.
fn unfit(cluster: &mut Cluster, router: &str) -> Option<String> {
    let text = cluster.router(router).vipactl(&["status", "--json"]).ok()?;
    serde_json::from_str::<Status>(&text).ok()?.unfit
}

#[test]
fn a_router_whose_port_loses_its_link_hands_over_and_comes_back() {
    let mut plan = Plan::new("changes_port");
    plan.ports = Ports::Tap;
    plan.further = "[autonomics]\nfit_after_ms = 1500\n".into();
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let host = cluster.router("r1").host().clone();
        host.ip(&["link", "set", "dtap0", "down"])?;
        client.mark()?;
        wait("r1 to say that it is unfit", PATIENCE, || {
            unfit(cluster, "r1").filter(|why| why.contains("port p0 has no link"))
        })?;
        cluster.wait_view("r2", "to own the VIPA", |view| view.owns && !view.rebuilding)?;
        everyone_answered(&mut client)?;
        ensure!(cluster.router("r1").counters()?["unfit.port"] == 1);
        host.ip(&["link", "set", "dtap0", "up"])?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        ensure!(unfit(cluster, "r1").is_none());
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

/// The thread of that name in a process.
fn thread_of(process: u32, name: &str) -> Result<Pid> {
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("comm"))?.trim() == name {
            return Ok(Pid::from_raw(entry.file_name().to_string_lossy().parse()?));
        }
    }
    anyhow::bail!("process {process} has no thread {name}")
}

#[test]
fn a_router_whose_worker_stands_still_hands_over_by_itself() {
    let mut plan = Plan::new("changes_stall");
    plan.further = "[autonomics]\nfit_after_ms = 1500\n".into();
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let worker = thread_of(cluster.router("r1").process_id()?, "worker-0")?;
        ptrace::seize(worker, ptrace::Options::empty())?;
        ptrace::interrupt(worker)?;
        waitpid(worker, Some(WaitPidFlag::__WALL))?;
        client.mark()?;
        wait("r1 to say that it is unfit", PATIENCE, || {
            unfit(cluster, "r1").filter(|why| why.contains("worker 0 stands still"))
        })?;
        cluster.wait_view("r2", "to own the VIPA", |view| view.owns && !view.rebuilding)?;
        everyone_answered(&mut client)?;
        ptrace::detach(worker, None::<Signal>)?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        sleep(Duration::from_millis(100));
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_vipa_is_added_and_taken_away_by_reload_while_the_other_serves_on() {
    Plan::new("changes_vipas").run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        let other = "\n[[vipa]]\naddress = \"10.77.0.101\"\nranks = { r1 = 200, r2 = 190 }\n\n[[vipa.service]]\n\
            ports = 80\ncandidates = [\"10.77.0.31\", \"10.77.0.32\", \"10.77.0.33\"]\n";
        nothing_lost(cluster, &mut client, |cluster| {
            for router in ["r1", "r2"] {
                edit(cluster, router, |text| text + other)?;
                ensure!(reload(cluster, router, &[])?.outcome == ReloadOutcome::Applied);
            }
            let status = |cluster: &mut Cluster| -> Option<Status> {
                serde_json::from_str(&cluster.router("r1").vipactl(&["status", "--json"]).ok()?).ok()
            };
            wait("r1 to own the new VIPA too", PATIENCE, || {
                let status = status(cluster)?;
                let active =
                    |vipa: &vipa_protocol::admin::VipaStatus| vipa.stance == vipa_protocol::admin::Stance::Active;
                (status.vipas.len() == 2 && status.vipas.iter().all(active)).then_some(())
            })?;
            let page = wait("the new VIPA to be served", PATIENCE, || {
                cluster.client_host().run("ping", ["-c1", "-W1", "10.77.0.101"]).ok()
            })?;
            ensure!(page.contains("1 received"), "{page}");
            for router in ["r1", "r2"] {
                edit(cluster, router, |text| text.replace(other, ""))?;
                ensure!(reload(cluster, router, &[])?.outcome == ReloadOutcome::Applied);
            }
            wait("r1 to have forgotten it", PATIENCE, || (status(cluster)?.vipas.len() == 1).then_some(()))
        })?;
        ensure!(cluster.router("r1").vipactl(&["connections", "--vipa", "10.77.0.101"]).is_err());
        all_kept(cluster, client).map(drop)
    });
}
