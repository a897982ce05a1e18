//! R11: servers as distributions package them, behind one VIPA of each family: nginx with workers that share a port,
//! socat with sockets that take clients of both families or share a port, and one that answers datagrams.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vipa_lab::{
    cluster::{Cluster, PATIENCE, Plan, TargetPlan, VIPA, VIPA6},
    netns::Host,
    process::{Process, wait},
    programs,
};
use vipa_protocol::Trigger;

use crate::r11_families::{ECHO, WEB, wait_served};

/// Port at which socat echoes.
const TALK: u16 = 7;
/// A download that takes five seconds, longer than a takeover. nginx limits the rate: a client that reads slowly would
/// have most of the file in its socket's buffer before the router is killed, and could read that in one go.
const FILE: usize = 6_000_000;
const RATE: &str = "1000k";

fn nginx(cluster: &Cluster, host: &Host) -> Result<Process> {
    let folder = cluster.lab().dir().join(format!("nginx-{}", host.name()));
    fs::create_dir_all(folder.join("www"))?;
    fs::write(folder.join("www/file"), vec![b'v'; FILE])?;
    let (here, name) = (folder.display(), host.name());
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds.iter().map(|kind| format!("{kind}_temp_path {here}/{kind}; ")).collect();
    let text = format!(
        "user root;\ndaemon off;\nworker_processes 2;\npid {here}/pid;\nevents {{ }}\n\
         http {{ access_log off; {temporary}server {{ listen [::]:{WEB} ipv6only=off reuseport; root {here}/www; limit_rate {RATE}; \
         location = /who {{ return 200 {name}; }} }} }}\n"
    );
    let config = folder.join("conf");
    fs::write(&config, text)?;
    let arguments = ["-e".into(), folder.join("log").display().to_string(), "-c".into(), config.display().to_string()];
    host.spawn(&format!("{name}-nginx"), "nginx", arguments)
}

/// All servers on one target.
fn serve(cluster: &Cluster, host: &Host) -> Result<Vec<Process>> {
    let mut servers = vec![nginx(cluster, host)?];
    let talk = format!("TCP6-LISTEN:{TALK},ipv6only=0,reuseaddr,reuseport,fork");
    for number in 0..2 {
        servers.push(host.spawn(&format!("{}-talk-{number}", host.name()), "socat", [talk.as_str(), "PIPE"])?);
    }
    // A datagram's answer comes from the address that its socket is bound to.
    for (number, listen) in [
        format!("UDP4-RECVFROM:{ECHO},bind={VIPA},reuseport,fork"),
        format!("UDP6-RECVFROM:{ECHO},bind=[{VIPA6}],reuseport,fork"),
    ]
    .iter()
    .enumerate()
    {
        servers.push(host.spawn(&format!("{}-echo-{number}", host.name()), "socat", [listen.as_str(), "PIPE"])?);
    }
    Ok(servers)
}

fn url(vipa: IpAddr, page: &str) -> String {
    format!("http://{}/{page}", SocketAddr::new(vipa, WEB))
}

/// One client of each server.
fn use_servers(cluster: &Cluster, vipa: IpAddr) -> Result<()> {
    let client = cluster.client_host();
    let mut seen: Vec<String> =
        (0..16).map(|_| client.run("curl", ["-gsS", "--max-time", "10", &url(vipa, "who")])).collect::<Result<_>>()?;
    seen.sort_unstable();
    seen.dedup();
    ensure!(seen == ["t1", "t2"], "nginx of {seen:?} served {vipa}");
    let to = SocketAddr::new(vipa, TALK);
    let said = client.run("sh", ["-c", &format!("echo hello | socat -t 5 - TCP:{to}")])?;
    ensure!(said == "hello\n", "socat answers {said:?}");
    let load = programs::path("vipa-load")?.display().to_string();
    let echo = SocketAddr::new(vipa, ECHO).to_string();
    client.run(&load, ["ask", "--vipa", &echo, "--size", "500", "--count", "8"]).map(drop)
}

#[test]
fn r11_packaged_servers_of_both_families_serve_on_through_a_takeover() {
    let way = TargetPlan { vipa6: true, all_ports: true, ..TargetPlan::default() };
    Plan { way, targets: 2, ..Plan::new("r11_servers") }.run(|cluster| {
        cluster.wait_addresses()?;
        let mut servers = Vec::new();
        for host in cluster.target_hosts() {
            servers.extend(serve(cluster, &host)?);
        }
        let vipas = [IpAddr::from(VIPA), VIPA6.into()];
        for vipa in vipas {
            wait_served(cluster, vipa)?;
            wait("both targets' servers to be known", PATIENCE, || use_servers(cluster, vipa).ok())
                .with_context(|| format!("at last: {:?}", use_servers(cluster, vipa)))?;
        }
        let client = cluster.client_host().clone();
        let download = |vipa: IpAddr| {
            let url = url(vipa, "file");
            let arguments = ["-gsS", "-o", "/dev/null", "-w", "%{size_download}", &url];
            client.spawn(&format!("curl-{}", if vipa.is_ipv4() { 4 } else { 6 }), "curl", arguments)
        };
        let mut downloads = vipas.map(download).into_iter().collect::<Result<Vec<Process>>>()?;
        std::thread::sleep(Duration::from_millis(500));
        ensure!(downloads.iter_mut().all(|download| download.ended().is_none()), "they take five seconds");
        cluster.router("r1").kill()?;
        cluster.wait_takeover("r2", Trigger::Failure)?;
        for download in &mut downloads {
            let end = wait("the download to end", PATIENCE, || download.ended())?;
            let size = download.tail(1);
            ensure!(end.success() && size.trim() == FILE.to_string(), "{end}: {size} bytes of {FILE}");
        }
        for vipa in vipas {
            use_servers(cluster, vipa)?;
        }
        for server in &mut servers {
            ensure!(server.ended().is_none(), "{} ended: {}", server.name(), server.tail(5));
        }
        Ok(())
    });
}
