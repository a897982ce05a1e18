//! `vipa-agent status`: what the running agent knows and does, told by its socket to who may open that.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use vipa_cluster::target::Summary;
use vipa_model::{NodeName, Protocol};
use vipa_protocol::{
    Accepting, CheckResult, HostLoad, Intent, ListenerLoad, Load, Served, Standing, load::FULL_HEADROOM,
};

use crate::{host::HostStatus, orders::Wish};

/// Ports of a VIPA named one by one; more are counted.
const PORTS_NAMED: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) node: NodeName,
    /// Where routers send this target's packets.
    pub(crate) address: IpAddr,
    pub(crate) up_s: u64,
    /// By name: whether it is linked.
    pub(crate) routers: Vec<(NodeName, bool)>,
    /// How connections are followed; a sentence without its end.
    pub(crate) followed: String,
    /// Connections about which BPF and the kernel's lists differed, and that were put right.
    pub(crate) repaired: u64,
    pub(crate) vipas: Vec<Summary>,
    #[serde(flatten)]
    pub(crate) host: HostStatus,
    /// As routers were told last; `None`: there was no time yet.
    pub(crate) load: Option<Load>,
}

impl Status {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Into a string nothing fails.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self {
            version,
            node,
            address,
            up_s,
            routers,
            followed,
            repaired,
            vipas,
            host: HostStatus { setup, remarks, failing, tunnels, work },
            load,
        } = self;
        let intent = match load.as_ref().map(|load| load.intent) {
            Some(Intent::Drain) => "draining",
            Some(Intent::Serve) | None => "serving",
        };
        writeln!(out, "target {node} at {address}, {intent}, up for {up_s} s, version {version}")?;
        let routers: Vec<String> =
            routers.iter().map(|(router, linked)| format!("{router} {}", link(*linked))).collect();
        writeln!(out, "routers      {}", routers.join(", "))?;
        writeln!(out, "connections  followed by {followed}; {repaired} repaired")?;
        for vipa in vipas {
            write_vipa(out, vipa)?;
        }
        writeln!(out, "\non this host")?;
        for line in setup {
            writeln!(out, "  {line}")?;
        }
        if setup.is_empty() {
            writeln!(out, "  nothing is changed")?;
        }
        for remark in remarks {
            writeln!(out, "  to know: {remark}")?;
        }
        if let Some(failing) = failing {
            writeln!(out, "  FAILING: {failing}")?;
        }
        for (what, count) in tunnels.iter().filter(|(_, count)| *count > 0) {
            writeln!(out, "  {count} packets from tunnels {what}")?;
        }
        writeln!(out, "  since the start: {work}")?;
        match load {
            Some(load) => write_load(out, load),
            None => Ok(()),
        }
    }
}

/// How `vipa-agent status` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

/// `vipa-agent status`: asks the running agent, and prints its answer.
pub(crate) fn ask(socket: &Path, form: Form) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!("no agent answers on {}; does it run, and with this configuration?", socket.display())
    })?;
    stream.write_all(&[&serde_json::to_vec(&Wish::Status)?[..], b"\n"].concat())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("the agent has gone without a word")?;
    let status: Status = serde_json::from_str(&line).with_context(|| format!("the agent says {line:?}"))?;
    match form {
        Form::Text => print!("{}", status.text()),
        Form::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    Ok(())
}

fn link(linked: bool) -> &'static str {
    if linked { "linked" } else { "NOT LINKED" }
}

fn write_vipa(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let Summary { vipa, epoch, connections, records, position, listening, reports_to } = summary;
    writeln!(out, "\nVIPA {vipa}, epoch {epoch}")?;
    writeln!(out, "  connections {connections}; log at {}, its last {records} changes kept", position.sequence)?;
    writeln!(out, "  listening   {}", ports(listening))?;
    let standing = |standing: &Standing| match standing {
        Standing::Owner => "owner",
        Standing::Backup => "backup",
    };
    let reports: Vec<String> = reports_to
        .iter()
        .map(|(router, what, epoch)| format!("{router} ({}, epoch {epoch})", standing(what)))
        .collect();
    writeln!(out, "  reports to  {}", if reports.is_empty() { "nobody".into() } else { reports.join(", ") })
}

fn ports(listening: &[(Protocol, u16)]) -> String {
    let name = |(protocol, port): &(Protocol, u16)| match protocol {
        Protocol::Tcp => format!("{port}/tcp"),
        Protocol::Udp => format!("{port}/udp"),
    };
    let mut named: Vec<String> = listening.iter().take(PORTS_NAMED).map(name).collect();
    match listening.len().saturating_sub(PORTS_NAMED) {
        0 if named.is_empty() => "on nothing".into(),
        0 => named.join(", "),
        more => {
            named.push(format!("{more} more"));
            named.join(", ")
        }
    }
}

fn write_load(out: &mut String, load: &Load) -> std::fmt::Result {
    let Load { intent: _, headroom, host, listeners, checks, served } = load;
    let HostLoad { cpu_permille, runnable_percent, pressure_permille, passive_opens: _, connections } = host;
    writeln!(out, "\nhealth")?;
    writeln!(
        out,
        "  headroom {headroom} of {FULL_HEADROOM}; processors busy {}, run queue {}.{:02} each, waited for {}; \
         {connections} connections",
        permille(*cpu_permille),
        runnable_percent / 100,
        runnable_percent % 100,
        permille(*pressure_permille),
    )?;
    for Served { vipa, ports, begun, established, accepted } in served {
        writeln!(
            out,
            "  {vipa} {ports}/tcp: {begun} handshakes, {established} of them whole, {accepted} accepted in time"
        )?;
    }
    for ListenerLoad { vipa, protocol: _, port, waiting, room, accepting } in listeners {
        let state = match accepting {
            Accepting::Yes => "accepts",
            Accepting::Full => "is FULL",
            Accepting::Stalled => "accepts NOTHING",
        };
        writeln!(out, "  the server of {vipa} port {port} {state}: {waiting} wait, {room} may")?;
    }
    for CheckResult { name, port: _, passing, detail } in checks {
        let passing = if *passing { "passes" } else { "FAILS" };
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        writeln!(out, "  check {name:?} {passing}{detail}")?;
    }
    Ok(())
}

fn permille(permille: u16) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use vipa_model::{Epoch, Incarnation, PortRange};
    use vipa_protocol::Position;

    use super::*;
    use crate::host::HostWork;

    #[test]
    fn everything_has_its_line() {
        let node = |name: &str| name.parse::<NodeName>().unwrap();
        let vipa: IpAddr = "192.0.2.10".parse().unwrap();
        let status = Status {
            version: "1.2.3".into(),
            node: node("t1"),
            address: "10.9.0.31".parse().unwrap(),
            up_s: 61,
            routers: vec![(node("r1"), true), (node("r2"), false)],
            followed: "BPF, verified by sock_diag".into(),
            repaired: 0,
            vipas: vec![Summary {
                vipa,
                epoch: Epoch(3),
                connections: 2,
                records: 9,
                position: Position { incarnation: Incarnation(1), sequence: 9 },
                listening: vec![(Protocol::Tcp, 80)],
                reports_to: vec![(node("r1"), Standing::Owner, Epoch(3))],
            }],
            host: HostStatus {
                setup: vec!["192.0.2.10 is on lo".into()],
                remarks: vec!["eth0 has MTU 1500".into()],
                failing: Some("it does not work; do this".into()),
                tunnels: vec![("unwrapped from GRE".into(), 7), ("dropped: malformed".into(), 0)],
                work: HostWork { address_dumps: 21, address_requests: 1, files_written: 2 },
            },
            load: Some(Load {
                served: vec![Served { vipa, ports: PortRange::one(80), begun: 10, established: 9, accepted: 8 }],
                checks: vec![CheckResult {
                    name: "web".into(),
                    port: None,
                    passing: false,
                    detail: "status 503".into(),
                }],
                ..Load::unknown()
            }),
        };
        let expected = "\
target t1 at 10.9.0.31, serving, up for 61 s, version 1.2.3
routers      r1 linked, r2 NOT LINKED
connections  followed by BPF, verified by sock_diag; 0 repaired

VIPA 192.0.2.10, epoch 3
  connections 2; log at 9, its last 9 changes kept
  listening   80/tcp
  reports to  r1 (owner, epoch 3)

on this host
  192.0.2.10 is on lo
  to know: eth0 has MTU 1500
  FAILING: it does not work; do this
  7 packets from tunnels unwrapped from GRE
  since the start: 1 addresses changed, 21 dumps, 2 files written

health
  headroom 16 of 16; processors busy 0.0 %, run queue 0.00 each, waited for 0.0 %; 0 connections
  192.0.2.10 80/tcp: 10 handshakes, 9 of them whole, 8 accepted in time
  check \"web\" FAILS: status 503
";
        assert_eq!(status.text(), expected);
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
