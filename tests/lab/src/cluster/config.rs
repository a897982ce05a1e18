//! The nodes' configurations and certificates.

use std::{
    fmt::Write,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result};

use super::{Cluster, Plan, Ports, SERVICE_PORT, VIPA, VIPA6};
use crate::{
    netns::{Lab, finish},
    programs,
};

const CONTROL_PORT: u16 = 7400;

pub(super) fn control_address(router: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + router)
}

pub(super) fn port_address(router: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 20 + router)
}

pub(super) fn target_address(target: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 30 + target)
}

/// Node name of a target.
pub(super) fn agent_address(plan: &Plan, target: u8) -> IpAddr {
    if plan.way.targets6 {
        return Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x30 + u16::from(target)).into();
    }
    target_address(target).into()
}

/// A certificate authority and a certificate for every node of the plan, in `<lab>/pki`.
pub(super) fn make_certificates(lab: &Lab, plan: &Plan) -> Result<()> {
    let routers = (1..=plan.routers).map(|number| (format!("r{number}"), None));
    let targets = (1..=plan.targets).map(|number| (format!("t{number}"), Some(agent_address(plan, number))));
    let own = plan.serves_itself.then(|| (Cluster::OWN_TARGET.to_string(), Some(port_address(1).into())));
    issue(lab, "pki", routers.chain(targets).chain(own))
}

/// A node and, for a target, its address.
type Certified = (String, Option<IpAddr>);

/// A certificate authority of its own in `<lab>/<folder>`, and certificates for `nodes`.
pub(super) fn issue(lab: &Lab, folder: &str, nodes: impl IntoIterator<Item = Certified>) -> Result<()> {
    let folder = lab.dir().join(folder);
    let vipactl = programs::path("vipactl")?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&vipactl);
        command.args(arguments).arg("--dir").arg(&folder);
        finish(command).context("vipactl makes the certificates")
    };
    run(&["pki", "init"])?;
    for (node, target) in nodes {
        match target {
            Some(address) => run(&["pki", "issue", &node, "--target", &address.to_string()])?,
            None => run(&["pki", "issue", &node, "--router"])?,
        };
    }
    Ok(())
}

/// Writes the configuration of router `number`; returns its path.
pub(super) fn write_router(lab: &Lab, plan: &Plan, number: u8) -> Result<PathBuf> {
    let name = format!("r{number}");
    let mut text = head(lab, &name, "pki", Some(control_address(number)))?;
    cluster(&mut text, plan)?;
    let workers = plan.workers;
    let device = match plan.ports {
        Ports::AfPacket => format!("net_af_packet0,iface=eth0,framecnt=8192,qpairs={workers}"),
        Ports::Tap => "net_tap0,iface=dtap0".into(),
    };
    let cores: Vec<_> = (0..workers).map(|worker| ((number - 1 + worker) % 2).to_string()).collect();
    let ranked = (1..=plan.routers).filter(|number| !plan.rankless.contains(&format!("r{number}")));
    let ranks: Vec<_> = ranked.map(|number| format!("r{number} = {}", 210 - 10 * number)).collect();
    let all: Vec<u8> = (1..=plan.targets).collect();
    let candidates = plan.candidates.get(&name).unwrap_or(&all);
    let own = plan.serves_itself.then(|| IpAddr::from(port_address(1)));
    let candidates = candidates.iter().map(|target| agent_address(plan, *target)).chain(own);
    let is_agentless = |address: &IpAddr| plan.agentless.iter().any(|target| agent_address(plan, *target) == *address);
    let candidate = |address: IpAddr| match is_agentless(&address) {
        false => format!("\"{address}\""),
        true => format!("{{ address = \"{address}\", agent = false, check = {{ interval_ms = 200 }} }}"),
    };
    let candidates: Vec<_> = candidates.map(candidate).collect();
    let address6 = match plan.way.has_ipv6() {
        true => format!("address6 = \"fd77::{}/64\"\n", 20 + number),
        false => String::new(),
    };
    write!(
        text,
        r#"
[dpdk]
memory = "auto"
memory_mb = 128
file_prefix = "{tag}-{name}"

[[port]]
name = "p0"
device = "{device}"
address = "{port}/24"
queues = {workers}
{address6}{lines}
[workers]
cores = [{cores}]
idle = "sleep"

[table]
connections = {table}
{table_lines}"#,
        tag = lab.tag(),
        lines = plan.port_lines,
        table_lines = plan.table_lines,
        port = port_address(number),
        cores = cores.join(", "),
        table = ((plan.connections + plan.replays.values().sum::<u32>() as usize) * 4).max(100_000),
    )?;
    let vipas = [(plan.way.vipa4, IpAddr::from(VIPA)), (plan.way.vipa6, IpAddr::from(VIPA6))];
    let has_rank = !plan.rankless.contains(&name);
    for (_, vipa) in vipas.iter().filter(|(there, _)| *there && has_rank) {
        write!(text, "\n[[vipa]]\naddress = \"{vipa}\"\nranks = {{ {} }}\n", ranks.join(", "))?;
        if plan.inherits.contains(&name) {
            continue;
        }
        let services: &[(&str, String)] = match plan.way.all_ports {
            true => &[("tcp", "\"all\"".into()), ("udp", "\"all\"".into())],
            false => &[("tcp", SERVICE_PORT.to_string())],
        };
        for (protocol, ports) in services {
            write!(
                text,
                "\n[[vipa.service]]\nprotocol = \"{protocol}\"\nports = {ports}\nforwarding = \"{}\"\ncandidates = [{}]\n{}\n",
                plan.forwarding_of.get(&name).copied().unwrap_or(plan.way.forwarding),
                candidates.join(", "),
                plan.service_lines
            )?;
        }
    }
    write!(text, "\n{}", plan.further)?;
    text.push_str(plan.further_of.get(&name).map_or("", String::as_str));
    save(lab, &name, &text)
}

/// Writes the configuration of target `number`; returns its path.
pub(super) fn write_target(lab: &Lab, plan: &Plan, number: u8) -> Result<PathBuf> {
    write_agent(lab, plan, &format!("t{number}"), agent_address(plan, number), "pki")
}

/// Writes the configuration of an agent whose certificate is in `<lab>/<pki>`; returns its path.
pub(super) fn write_agent(lab: &Lab, plan: &Plan, name: &str, address: IpAddr, pki: &str) -> Result<PathBuf> {
    let mut text = head(lab, name, pki, None)?;
    cluster(&mut text, plan)?;
    write!(text, "\n[agent]\naddress = \"{address}\"\n{}", plan.agent_lines)?;
    let file = if pki == "pki" { name.to_string() } else { format!("{pki}-{name}") };
    save(lab, &file, &text)
}

fn head(lab: &Lab, name: &str, pki: &str, listen: Option<Ipv4Addr>) -> Result<String> {
    let dir = lab.dir().display();
    let mut text = format!("[node]\nname = \"{name}\"\nstate_dir = \"{dir}/state-{pki}-{name}\"\n");
    let admin = if pki == "pki" { name.to_string() } else { format!("{pki}-{name}") };
    writeln!(text, "admin = \"{dir}/{admin}.sock\"")?;
    if let Some(address) = listen {
        writeln!(text, "listen = \"{address}:{CONTROL_PORT}\"")?;
    }
    write!(text, "\n[pki]\nca = \"pki/ca.pem\"\ncertificate = \"{pki}/{name}.pem\"\nkey = \"{pki}/{name}.key\"\n")?;
    Ok(text)
}

fn cluster(text: &mut String, plan: &Plan) -> Result<()> {
    let voters: Vec<_> = plan.voters().iter().map(|voter| format!("\"{voter}\"")).collect();
    let electors = match plan.no_quorum {
        true => "quorum = \"none\"".to_owned(),
        false => format!("voters = [{}]", voters.join(", ")),
    };
    write!(
        text,
        "\n[cluster]\nname = \"lab\"\nkey = \"000102030405060708090a0b0c0d0e0f\"\n{electors}\nlease_ms = {}\n\n[cluster.routers]\n",
        plan.lease_ms
    )?;
    for number in 1..=plan.routers {
        writeln!(text, "r{number} = \"{}:{CONTROL_PORT}\"", control_address(number))?;
    }
    Ok(())
}

fn save(lab: &Lab, name: &str, text: &str) -> Result<PathBuf> {
    let path = lab.dir().join(format!("{name}.toml"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
