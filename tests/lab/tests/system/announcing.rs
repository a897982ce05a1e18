//! Announcements of a VIPA beyond the network: hooks, and a real BIRD at each router that announces the VIPA by BGP to
//! a BIRD upstream, through which the client's packets pass.
//!
//! ```text
//!   client ──► up (BIRD, AS 65000) ──► r1 or r2 (vipad, and BIRD, AS 65001) ──► targets ──► client
//! ```

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, VIPA},
    netns::Host,
    process::{Process, wait},
};
use vipa_protocol::Trigger;

use crate::{CONNECTIONS, all_kept, everyone_answered, nothing_lost};

const UP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 61);

/// As in docs/operations.md.
const ROUTER: &str = r#"
log stderr all;
router id CONTROL;
ipv4 table vipas;
protocol device { scan time 10; }
protocol kernel vipas4 {
  learn;
  kernel table 7400;
  ipv4 { table vipas; import all; export none; };
}
protocol bgp up {
  local CONTROL as 65001;
  neighbor UP as 65000;
  connect retry time 1;
  ipv4 {
    table vipas;
    import none;
    export filter {
      bgp_next_hop = PORT;
      bgp_med = 4294967295 - krt_metric;
      accept;
    };
  };
}
"#;

const UPSTREAM: &str = r#"
log stderr all;
router id UP;
protocol device { scan time 10; }
protocol kernel { ipv4 { import none; export all; }; }
template bgp vipa {
  local UP as 65000;
  connect retry time 1;
  ipv4 { import all; export none; };
}
protocol bgp r1 from vipa { neighbor 10.77.0.11 as 65001; }
protocol bgp r2 from vipa { neighbor 10.77.0.12 as 65001; }
"#;

/// Starts a BIRD in `host`.
fn bird(cluster: &Cluster, host: &Host, text: &str) -> Result<Process> {
    let file = cluster.lab().dir().join(format!("bird-{}.conf", host.name()));
    fs::write(&file, text.replace("UP", &UP.to_string()))?;
    let socket = cluster.lab().dir().join(format!("bird-{}.ctl", host.name()));
    let arguments = ["-f", "-c", &file.display().to_string(), "-s", &socket.display().to_string()].map(String::from);
    host.spawn(&format!("bird-{}", host.name()), "/usr/sbin/bird", arguments)
}

/// The router upstream, and the BIRDs of all three; the client's packets to the VIPA take it from now on.
fn upstream(cluster: &mut Cluster) -> Result<(Host, Vec<Process>)> {
    let up = cluster.lab().host("upstream", &[UP])?;
    up.sysctl("net.ipv4.ip_forward", "1")?;
    for host in [&up, cluster.client_host()] {
        for key in ["all.send_redirects", "eth0.send_redirects", "all.accept_redirects", "eth0.accept_redirects"] {
            host.sysctl(&format!("net.ipv4.conf.{key}"), "0")?;
        }
    }
    let mut birds = vec![bird(cluster, &up, UPSTREAM)?];
    for name in ["r1", "r2"] {
        let router = cluster.router(name);
        let (host, control, port) = (router.host().clone(), router.control_address(), router.port_address());
        let text = ROUTER.replace("CONTROL", &control.to_string()).replace("PORT", &port.to_string());
        birds.push(bird(cluster, &host, &text)?);
    }
    cluster.client_host().ip(&["route", "add", &format!("{VIPA}/32"), "via", &UP.to_string()])?;
    Ok((up, birds))
}

/// Waits until the router upstream sends the VIPA's packets to that router's port.
fn wait_route(cluster: &mut Cluster, up: &Host, router: &str) -> Result<()> {
    let port = cluster.router(router).port_address();
    wait(&format!("the route upstream to lead to {router}"), PATIENCE, || {
        up.ip(&["route", "get", &VIPA.to_string()]).ok()?.contains(&format!("via {port} ")).then_some(())
    })
}

#[test]
fn bird_announces_a_vipa_where_it_is_owned_and_no_connection_breaks_when_it_moves() {
    let mut plan = Plan::new("announcing_bird");
    // A busy machine must not fence an owner here: the test counts what a change of owner loses.
    plan.lease_ms = 500;
    plan.further = "[announce]\ninterface = \"vipa0\"\n".into();
    plan.run(|cluster| {
        let (up, _birds) = upstream(cluster)?;
        wait_route(cluster, &up, "r1")?;
        let mut client = cluster.client(CONNECTIONS)?;

        // Killed: its interface is gone with it, and its BIRD, which lives on, withdraws its announcement.
        let killed = cluster.router("r1").kill()?;
        client.mark_at(killed)?;
        wait_route(cluster, &up, "r2")?;
        everyone_answered(&mut client)?;

        nothing_lost(cluster, &mut client, |cluster| {
            cluster.router("r1").start()?;
            cluster.wait_takeover("r1", Trigger::Takeback)?;
            wait_route(cluster, &up, "r1")
        })?;

        // Stopped by SIGSTOP it continues to announce; the newer epoch is preferred.
        cluster.router("r1").freeze()?;
        client.mark()?;
        wait_route(cluster, &up, "r2")?;
        everyone_answered(&mut client)?;
        cluster.router("r1").go_on()?;
        wait_route(cluster, &up, "r1")?;
        client.mark()?;
        everyone_answered(&mut client)?;
        all_kept(cluster, client).map(drop)
    });
}

#[test]
fn hooks_are_told_of_what_is_owned_and_a_slow_one_costs_the_takeover_nothing() {
    let folder = std::env::temp_dir().join(format!("vipa-lab-hook-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (program, log) = (folder.join("hook"), folder.join("log"));
    fs::write(&program, format!("#!/bin/sh\necho \"$VIPA_NODE $*\" >> {}\nexec sleep 60\n", log.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.display();
    let mut plan = Plan::new("announcing_hooks");
    plan.further = format!("[hooks]\nowned = [\"{program}\", \"-v\"]\nreleased = [\"{program}\"]\ntimeout_ms = 700\n");
    plan.run(|cluster| {
        let mut client = cluster.client(CONNECTIONS)?;
        nothing_lost(cluster, &mut client, |cluster| {
            cluster.router("r1").stop()?;
            cluster.wait_view("r2", "to own the VIPA", |view| view.owns && !view.rebuilding).map(drop)
        })?;
        let told = || fs::read_to_string(&log).unwrap_or_default();
        wait("r2's hook to be killed", Duration::from_secs(10), || {
            (cluster.router("r2").counters().ok()?.get("hook.failed") == Some(&1)).then_some(())
        })?;
        let expected =
            [format!("r1 -v owned {VIPA} 1"), format!("r1 released {VIPA} 1"), format!("r2 -v owned {VIPA} 2")];
        let mut lines: Vec<_> = told().lines().map(String::from).collect();
        lines.sort();
        ensure!(lines == expected, "{lines:?}");
        all_kept(cluster, client).map(drop)
    });
    fs::remove_dir_all(folder).unwrap();
}
