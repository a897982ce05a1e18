//! Evidence about a late connection, collected while it is late: from the client's kernel, the targets' kernels and the
//! routers' tables.
//!
//! A broken connection is reported 30 s after the fault, when no node has its state any more.

use std::{collections::BTreeSet, fmt::Write as _, thread::JoinHandle};

use crate::{
    cluster::{Cluster, VIPA},
    netns::Host,
};

/// Late connections that are examined; the first ones are the most useful.
const MOST: usize = 20;
/// How long the packets of a connection are captured, in the format of `timeout`.
const WATCHED: &str = "4";

/// Examines each late connection once.
#[derive(Default)]
pub(super) struct Evidence {
    late: BTreeSet<u16>,
    seen: usize,
    /// Captures under way.
    packets: Vec<(u16, JoinHandle<String>)>,
}

impl Evidence {
    /// Evidence about the connections that have become late since the last call.
    pub(super) fn look(&mut self, cluster: &mut Cluster, late: &[u16]) -> Vec<String> {
        let late: BTreeSet<u16> = late.iter().copied().collect();
        let new: Vec<u16> = late.difference(&self.late).copied().collect();
        self.late = late;
        let mut told = Vec::new();
        for port in new {
            if self.seen == MOST {
                break;
            }
            self.seen += 1;
            self.packets.push((port, packets(cluster.client_host(), port)));
            told.push(state(cluster, port));
        }
        let (over, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.packets).into_iter().partition(|(_, packets)| packets.is_finished());
        self.packets = open;
        for (port, packets) in over {
            told.push(format!("packets of port {port} at the client:\n{}", packets.join().unwrap_or_default()));
        }
        told
    }
}

/// The sockets of a client's port on all hosts, and its entries in every table.
fn state(cluster: &mut Cluster, port: u16) -> String {
    let mut text = format!("port {port} is late.");
    let mut add = |who: &str, what: &str| {
        for line in what.lines().filter(|line| !line.trim().is_empty()) {
            let _ = write!(text, "\n    {who}: {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    };
    let sockets = |host: &Host, side: &str| {
        let filter = format!("{side} = :{port}");
        host.run("ss", ["-Htanoi", &filter]).unwrap_or_else(|error| format!("{error:#}"))
    };
    add("client", &sockets(cluster.client_host(), "sport"));
    for host in cluster.target_hosts() {
        add(host.name(), &sockets(&host, "dport"));
    }
    for name in cluster.running_routers() {
        let router = cluster.router(&name);
        match router.view() {
            Ok(view) => add(&name, &format!("owns {}, epoch {}", view.owns, view.epoch)),
            Err(error) => add(&name, &format!("{error:#}")),
        }
        match router.known() {
            Ok(known) => {
                for ((_, target), stage) in known.iter().filter(|((client, _), _)| client.port() == port) {
                    add(&name, &format!("{target} has it, {stage:?}"));
                }
            }
            Err(error) => add(&name, &format!("{error:#}")),
        }
    }
    text
}

/// Captures what the client sends and receives on this port.
fn packets(client: &Host, port: u16) -> JoinHandle<String> {
    let filter = format!("host {VIPA} and port {port}");
    let mut command = client.command("timeout", [WATCHED, "tcpdump", "-i", "any", "-ntt", "-c", "200", &filter]);
    std::thread::spawn(move || match command.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => error.to_string(),
    })
}
