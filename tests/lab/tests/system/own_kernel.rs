//! VIPAs on the kernels of Vipa's own hosts, where they do harm.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, VIPA},
    load::ClientPlan,
    process::wait,
};
use vipa_protocol::{Eligibility, Trigger};

use crate::{CONNECTIONS, all_kept};

fn quiet(connections: usize) -> ClientPlan {
    ClientPlan { fresh_per_second: 0, ..ClientPlan::new(Cluster::service(), connections) }
}

fn wait_status(cluster: &mut Cluster, router: &str, text: &str) -> Result<String> {
    wait(&format!("{router} to say {text:?}"), PATIENCE, || {
        cluster.router(router).vipactl(&["status"]).ok().filter(|status| status.contains(text))
    })
}

#[test]
fn a_vipa_on_the_routers_own_kernel_makes_it_unfit_at_once_and_from_its_start() {
    Plan::new("own_kernel_router").run(|cluster| {
        let mut client = cluster.client_with(&quiet(0))?;
        // The client's host has the VIPA resolved. If it had to ask now, the kernel that has the VIPA would answer as
        // well.
        client.fresh_and_wait(10)?;
        let host = cluster.router("r1").host().clone();
        let address = format!("{VIPA}/32");
        // Its kernel resets the connections that it receives.
        host.ip(&["address", "add", &address, "dev", "eth0"])?;
        let sentence =
            format!("this host's kernel has {VIPA} on eth0 and resets its connections: ip address del {VIPA} dev eth0");
        cluster.wait_view("r2", "to own the VIPA", |view| view.owns && !view.rebuilding)?;
        let status = wait_status(cluster, "r1", &format!("KERNEL: {sentence}"))?;
        ensure!(status.contains(&format!("UNFIT: {sentence}")), "{status}");
        let failed = client.report().fresh_failed;
        let fresh = client.fresh_and_wait(60)?;
        ensure!(fresh.failed == 0, "{fresh:?}");

        cluster.router("r1").stop()?;
        cluster.router("r1").start()?;
        wait_status(cluster, "r1", &format!("UNFIT: {sentence}"))?;
        ensure!(cluster.router("r2").view()?.owns, "r1 has taken back what it cannot route");

        host.ip(&["address", "del", &address, "dev", "eth0"])?;
        cluster.wait_takeover("r1", Trigger::Takeback)?;
        let status = cluster.router("r1").vipactl(&["status"])?;
        ensure!(!status.contains("KERNEL:") && !status.contains("UNFIT"), "{status}");
        let fresh = client.fresh_and_wait(60)?;
        ensure!(fresh.failed == 0 && client.report().fresh_failed == failed, "{fresh:?}");
        Ok(())
    });
}

#[test]
fn a_kernel_that_forwards_is_named_and_breaks_nothing() {
    Plan::new("own_kernel_forwards").run(|cluster| {
        let mut client = cluster.client_with(&quiet(CONNECTIONS))?;
        let host = cluster.router("r1").host().clone();
        host.sysctl("net.ipv4.ip_forward", "1")?;
        wait_status(cluster, "r1", "KERNEL: this host's kernel forwards what comes to eth0 a second time")?;
        for _ in 0..5 {
            let fresh = client.fresh_and_wait(60)?;
            ensure!(fresh.failed == 0, "{fresh:?}");
            std::thread::sleep(Duration::from_secs(1));
        }
        let status = cluster.router("r1").vipactl(&["status"])?;
        ensure!(!status.contains("UNFIT"), "{status}");
        host.sysctl("net.ipv4.ip_forward", "0")?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn a_vipa_on_a_targets_outward_interface_is_named_and_the_target_gets_nothing_new() {
    Plan::new("own_kernel_target").run(|cluster| {
        let mut client = cluster.client_with(&quiet(CONNECTIONS))?;
        let host = cluster.target("t1").host().clone();
        host.ip(&["address", "add", &format!("{VIPA}/32"), "dev", "eth0"])?;
        let sentence = format!("{VIPA} is on eth0, where this host answers for it");
        cluster.wait_fitness("r1", "t1", "not to be fit", |fitness| {
            matches!(fitness, Eligibility::CheckFailing { check, detail } if check == "vipa-address" && detail.contains(&sentence))
        })?;
        let fresh = client.fresh_and_wait(60)?;
        ensure!(fresh.failed == 0 && !fresh.servers.contains_key("t1"), "{fresh:?}");
        host.ip(&["address", "del", &format!("{VIPA}/32"), "dev", "eth0"])?;
        cluster.wait_fitness("r1", "t1", "to be fit again", |fitness| *fitness == Eligibility::Fit)?;
        let fresh = client.fresh_and_wait(60)?;
        ensure!(fresh.failed == 0 && fresh.servers.contains_key("t1"), "{fresh:?}");
        all_kept(cluster, client).map(drop)
    });
}
