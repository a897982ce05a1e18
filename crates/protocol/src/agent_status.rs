//! How a target's agent is: for `vipa-agent status`, and for `vipactl` at its socket.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use vipa_model::{Epoch, NodeName, Protocol};

use crate::{
    health::{Health, HealthCheck, Severity},
    load::{Accepting, CheckResult, FULL_HEADROOM, HostLoad, Intent, ListenerLoad, Load, Served},
    message::{Position, Standing},
};

/// Ports of a VIPA named one by one; more are counted.
const PORTS_NAMED: usize = 8;

/// What a running agent knows and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentStatus {
    pub version: String,
    pub node: NodeName,
    /// Where routers send this target's packets.
    pub address: IpAddr,
    pub up_s: u64,
    /// By name: whether it is linked.
    pub routers: Vec<(NodeName, bool)>,
    /// How connections are followed; a sentence without its end.
    pub followed: String,
    /// Connections about which BPF and the kernel's lists differed, and that were put right.
    pub repaired: u64,
    pub vipas: Vec<VipaSummary>,
    #[serde(flatten)]
    pub host: HostStatus,
    /// As routers were told last; `None`: there was no time yet.
    pub load: Option<Load>,
}

/// A VIPA in short, for who asks this target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VipaSummary {
    pub vipa: IpAddr,
    pub epoch: Epoch,
    pub connections: usize,
    /// Changes kept for routers that were away.
    pub records: usize,
    /// Where its log ends.
    pub position: Position,
    /// The ports of its services that something listens on.
    pub listening: Vec<(Protocol, u16)>,
    /// The routers reported to, and what each is.
    pub reports_to: Vec<(NodeName, Standing, Epoch)>,
}

/// What is changed on this host and how that goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostStatus {
    /// What is changed on this host now, a line each.
    pub setup: Vec<String>,
    /// What may keep packets from getting where they should, a sentence each.
    pub remarks: Vec<String>,
    /// What could not be set up and is tried again.
    pub failing: Option<String>,
    /// What became of packets from tunnels.
    pub tunnels: Vec<(String, u64)>,
    pub work: HostWork,
}

/// What the host's part has cost since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostWork {
    /// Dumps of the addresses of the interface that carries the VIPAs.
    pub address_dumps: u64,
    /// Addresses put there and taken away.
    pub address_requests: u64,
    /// Writes of what is changed on this host.
    pub files_written: u64,
}

impl fmt::Display for HostWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address_dumps, address_requests, files_written } = self;
        write!(f, "{address_requests} addresses changed, {address_dumps} dumps, {files_written} files written")
    }
}

impl AgentStatus {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
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

fn link(linked: bool) -> &'static str {
    if linked { "linked" } else { "NOT LINKED" }
}

fn write_vipa(out: &mut String, summary: &VipaSummary) -> std::fmt::Result {
    let VipaSummary { vipa, epoch, connections, records, position, listening, reports_to } = summary;
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

/// The verdict on a target, from its agent's status alone.
#[must_use]
pub fn assess_agent(status: &AgentStatus) -> Health {
    let AgentStatus { node, routers, vipas, host, load, .. } = status;
    let unlinked: Vec<&str> = routers.iter().filter(|(_, linked)| !linked).map(|(router, _)| router.as_str()).collect();
    let links = match (unlinked.len(), routers.len()) {
        (0, all) => HealthCheck::new("links", Severity::Ok, format!("all {all} routers are linked")),
        (none, all) if none == all => {
            HealthCheck::new("links", Severity::Critical, "no router is linked: this target gets no new connections")
        }
        (_, _) => HealthCheck::new("links", Severity::Warning, format!("no link to {}", unlinked.join(", "))),
    };
    let setup = match &host.failing {
        Some(failing) => HealthCheck::new("host", Severity::Critical, failing.clone()),
        None if host.remarks.is_empty() => HealthCheck::new("host", Severity::Ok, "this host is set up"),
        None => HealthCheck::new("host", Severity::Warning, host.remarks.join("; ")),
    };
    let silent: Vec<String> =
        vipas.iter().filter(|vipa| vipa.listening.is_empty()).map(|vipa| vipa.vipa.to_string()).collect();
    let listeners = match silent.len() {
        0 => {
            HealthCheck::new("listeners", Severity::Ok, format!("something listens for each of {} VIPAs", vipas.len()))
        }
        _ => HealthCheck::new("listeners", Severity::Warning, format!("nothing listens for {}", silent.join(", "))),
    };
    let mut checks = vec![links, setup, listeners];
    if let Some(load) = load {
        checks.extend([accepting(load), own_checks(load), intent(load)]);
    }
    Health::new(node.clone(), checks)
}

fn accepting(load: &Load) -> HealthCheck {
    let stuck = load.listeners.iter().find(|listener| listener.accepting != Accepting::Yes);
    match stuck {
        None => HealthCheck::new("accepting", Severity::Ok, "every server accepts connections"),
        Some(ListenerLoad { vipa, port, waiting, .. }) => {
            let finding = format!("the server of {vipa} port {port} accepts no connections, and {waiting} wait");
            HealthCheck::new("accepting", Severity::Critical, finding)
        }
    }
}

fn own_checks(load: &Load) -> HealthCheck {
    match load.checks.iter().find(|check| !check.passing) {
        None => HealthCheck::new("checks", Severity::Ok, format!("{} checks of this target pass", load.checks.len())),
        Some(CheckResult { name, detail, .. }) => {
            HealthCheck::new("checks", Severity::Critical, format!("the check {name:?} fails: {detail}"))
        }
    }
}

fn intent(load: &Load) -> HealthCheck {
    let finding = match load.intent {
        Intent::Drain => "it is draining, as it was told",
        Intent::Serve => "it serves",
    };
    HealthCheck::new("intent", Severity::Ok, finding)
}

#[cfg(test)]
mod tests {
    use vipa_model::{Epoch, Incarnation, PortRange};

    use super::*;

    #[test]
    fn everything_has_its_line() {
        let node = |name: &str| name.parse::<NodeName>().unwrap();
        let vipa: IpAddr = "192.0.2.10".parse().unwrap();
        let status = AgentStatus {
            version: "1.2.3".into(),
            node: node("t1"),
            address: "10.9.0.31".parse().unwrap(),
            up_s: 61,
            routers: vec![(node("r1"), true), (node("r2"), false)],
            followed: "BPF, verified by sock_diag".into(),
            repaired: 0,
            vipas: vec![VipaSummary {
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
        let health = assess_agent(&status);
        let findings: Vec<_> = health.checks.iter().map(|check| (check.severity, &*check.finding)).collect();
        let expected = [
            (Severity::Critical, "it does not work; do this"),
            (Severity::Critical, "the check \"web\" fails: status 503"),
            (Severity::Warning, "no link to r2"),
        ];
        assert_eq!(findings[..3], expected);
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<AgentStatus>(&json).unwrap(), status);
    }
}
