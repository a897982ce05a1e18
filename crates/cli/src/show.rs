//! Answers as a person reads them, and as a script does.

mod explain;
mod health;
mod operating;

use std::{fmt::Write, net::IpAddr};

use anyhow::Context;
use vipa_model::{
    Balance, NodeName, Orphans, Protocol, Rank, Service, Voters, Weights,
    calendar::{rfc3339, span},
};
use vipa_protocol::{
    Eligibility, Given, Intent, Load, OwnershipCause, Trigger,
    admin::{
        AddressConflict, Answer, ConnectionRow, Connections, CountedConnections, Decisions, Distribution,
        DistributionRow, Flapping, Link, MirrorStatus, NarrowPath, OverShare, RefusedPeer, Responsiveness,
        ServiceDistribution, Stance, Status, Succession, TakeoverRecord, Takeovers, TargetStatus, VipaDistribution,
        VipaStatus,
    },
    assess_agent,
    health::assess,
    load::FULL_HEADROOM,
    report::TakeoverReport,
};

use crate::{
    rates,
    table::{Side, Table, grouped},
    width,
};

/// Ports of a target named one by one; more are counted.
const PORTS_NAMED: usize = 4;

/// The answer's content as one JSON document on one line.
pub(crate) fn json(answer: &Answer) -> anyhow::Result<String> {
    let text = match answer {
        Answer::Status(status) => serde_json::to_string(status),
        Answer::Connections(connections) => serde_json::to_string(connections),
        Answer::Distribution(distribution) => serde_json::to_string(distribution),
        Answer::Takeovers(takeovers) => serde_json::to_string(takeovers),
        Answer::Counters(counters) => serde_json::to_string(counters),
        Answer::Ports(ports) => serde_json::to_string(ports),
        Answer::Workers(workers) => serde_json::to_string(workers),
        Answer::Reload(reload) => serde_json::to_string(reload),
        Answer::Audit(audit) => serde_json::to_string(audit),
        Answer::Drill(drill) => serde_json::to_string(drill),
        Answer::Diff(diff) => serde_json::to_string(diff),
        Answer::Decisions(decisions) => serde_json::to_string(decisions),
        Answer::Events(events) => serde_json::to_string(events),
        Answer::Health(health) => serde_json::to_string(health),
        Answer::Agent(status) => serde_json::to_string(status),
        Answer::Progress(said) | Answer::Done(said) => serde_json::to_string(said),
        Answer::Explanation(explanation) => serde_json::to_string(explanation),
        Answer::Captured(captured) => serde_json::to_string(captured),
        Answer::NotFound(sentence) | Answer::Error(sentence) => serde_json::to_string(sentence),
    };
    Ok(text.context("cannot write JSON")? + "\n")
}

pub(crate) fn text(answer: &Answer) -> anyhow::Result<String> {
    let (mut out, width) = (String::new(), width::of_terminal());
    match answer {
        Answer::Status(status) => show_status(&mut out, status)?,
        Answer::Connections(connections) => show_connections(&mut out, connections)?,
        Answer::Distribution(distribution) => show_distribution(&mut out, distribution)?,
        Answer::Takeovers(takeovers) => show_takeovers(&mut out, takeovers)?,
        Answer::Counters(counters) => rates::show(&mut out, counters, None, rates::Shown::default(), width),
        Answer::Captured(captured) => writeln!(out, "{} packets", captured.packets.len())?,
        Answer::Explanation(explanation) => explain::explanation(&mut out, explanation, width),
        Answer::Ports(_) | Answer::Workers(_) => out.push_str(&json(answer)?),
        Answer::Reload(reload) => operating::reload(&mut out, reload)?,
        Answer::Audit(audit) => operating::audit(&mut out, audit)?,
        Answer::Drill(drill) => operating::drill(&mut out, drill)?,
        Answer::Diff(diff) => operating::diff(&mut out, diff)?,
        Answer::Decisions(decisions) => show_decisions(&mut out, decisions)?,
        Answer::Events(events) => events.events.iter().try_for_each(|row| writeln!(out, "{}", row.event))?,
        Answer::Health(health) => health::health(&mut out, health)?,
        Answer::Agent(status) => write!(out, "{}\n{}", assess_agent(status).summary(), status.text())?,
        Answer::Progress(said) | Answer::Done(said) => writeln!(out, "{}", said.sentence)?,
        Answer::NotFound(sentence) | Answer::Error(sentence) => writeln!(out, "{sentence}")?,
    }
    Ok(out)
}

fn refused_line(peer: &RefusedPeer) -> String {
    let RefusedPeer { node, address, why, times, last_ms_ago } = peer;
    let who: Vec<_> = node.iter().map(NodeName::to_string).chain(address.iter().map(IpAddr::to_string)).collect();
    let (who, times, last) = (who.join(" at "), grouped(*times), span(*last_ms_ago));
    format!("REFUSED: {who}: {why} ({times} times, the last {last} ago)")
}

fn show_status(out: &mut String, status: &Status) -> anyhow::Result<()> {
    let Status { node, cluster, incarnation: _, uptime_ms, links, vipas, connections, capacity, unfit, left, .. } =
        status;
    let Status {
        voters,
        voters_version,
        other_voters,
        voters_wait,
        recording,
        unconfirmed_ms,
        narrow_paths,
        over_share,
        refused,
        flapping,
        conflicts,
        interferences,
        leases_lost,
        ..
    } = status;
    let voters = voters_line(*voters_version, voters);
    writeln!(out, "{}", assess(status).summary())?;
    writeln!(out, "router {node} of cluster {cluster}, up {}; {voters}", span(*uptime_ms))?;
    writeln!(out, "connection table: {} of {}", grouped(*connections), grouped(*capacity))?;
    for (node, Voters { version, names }) in other_voters {
        writeln!(out, "OTHER VOTERS: {node} has {}; give all nodes the same list", voters_line(*version, names))?;
    }
    if let Some(why) = voters_wait {
        writeln!(out, "VOTERS WAIT: those of the configuration do not count yet: {why}")?;
    }
    if let Some(why) = unfit {
        writeln!(out, "UNFIT: {why}; its VIPAs go to routers that are fit")?;
    }
    if let Some(ms) = unconfirmed_ms {
        let left = span(*ms);
        writeln!(out, "UNCONFIRMED: the configuration is taken back in {left}; `vipactl confirm` keeps it")?;
    }
    if !left.is_empty() {
        let left: Vec<_> = left.iter().map(NodeName::as_str).collect();
        writeln!(out, "left: {}; `vipactl node join` takes them in again", left.join(", "))?;
    }
    for NarrowPath { target, mtu, kept_s } in narrow_paths {
        let kept = span(kept_s * 1_000);
        writeln!(
            out,
            "NARROW PATH: the tunnel to {target} has {mtu} bytes for a packet and its headers, tried anew in {kept}"
        )?;
    }
    for OverShare { target, refused } in over_share {
        let refused = grouped(*refused);
        writeln!(
            out,
            "OVER SHARE: {target} reports more connections than its share of the table; {refused} were not taken in"
        )?;
    }
    for peer in refused {
        writeln!(out, "{}", refused_line(peer))?;
    }
    for Flapping { vipa, changes } in flapping {
        writeln!(out, "FLAPPING: {vipa} has changed its owner {changes} times in the last minute")?;
    }
    for AddressConflict { vipa, mac, port, also, claims, ago_s } in conflicts {
        let also = also.map(|address| format!(", which is {address} as well,")).unwrap_or_default();
        let ago = span(ago_s * 1_000);
        writeln!(
            out,
            "ADDRESS CONFLICT: station {mac} on port {port}{also} says that it has {vipa} (heard {claims} times, last {ago} ago); \
             take the address away there"
        )?;
    }
    for interference in interferences {
        writeln!(out, "KERNEL: {interference}")?;
    }
    if *leases_lost > 0 {
        writeln!(out, "leases lost since the start, of all VIPAs: {}", grouped(*leases_lost))?;
    }
    if let Some(file) = recording {
        writeln!(out, "recording to {file}, until `vipactl record stop`")?;
    }
    for vipa in vipas {
        show_vipa(out, node, vipa)?;
    }
    if !links.is_empty() {
        let mut table = Table::new("  ", &[("node", Side::Left), ("role", Side::Left), ("link", Side::Left)]);
        for Link { node, target, up } in links {
            let role = target.map_or_else(|| "router".into(), |address| format!("target {address}"));
            table.row([node.to_string(), role, up_or_down(*up)]);
        }
        out.push_str("\nlinks\n");
        table.print(out);
    }
    Ok(())
}

fn voters_line(version: u32, voters: &[NodeName]) -> String {
    let names: Vec<_> = voters.iter().map(NodeName::as_str).collect();
    match version {
        0 => "voters not known yet".into(),
        _ if names.is_empty() => "no quorum".into(),
        1 => format!("voters {}", names.join(", ")),
        version => format!("voters {} (version {version})", names.join(", ")),
    }
}

fn show_vipa(out: &mut String, me: &NodeName, vipa: &VipaStatus) -> anyhow::Result<()> {
    let VipaStatus {
        address,
        epoch,
        stance,
        owner,
        fenced,
        ranks,
        services,
        targets,
        connections,
        confirmed,
        mirror,
        succession,
    } = vipa;
    let owner = match owner {
        None => "nobody".into(),
        Some(owner) if owner == me => format!("{owner}, this router"),
        Some(owner) => owner.to_string(),
    };
    let fenced = if *fenced { ", FENCED: its lease has run out" } else { "" };
    writeln!(out, "\nVIPA {address}: {}{fenced}", stance_word(*stance))?;
    let ranks: Vec<_> = ranks.iter().map(|(name, Rank(rank))| format!("{name} {rank}")).collect();
    writeln!(out, "  epoch {epoch}, owner {owner}; ranks {}", ranks.join(", "))?;
    show_succession(out, succession)?;
    let services: Vec<_> = services.iter().map(service_name).collect();
    let services = if services.is_empty() { "none known yet".into() } else { services.join(", ") };
    writeln!(out, "  services {services}; connections {}, confirmed {}", grouped(*connections), grouped(*confirmed))?;
    if let Some(mirror) = mirror {
        writeln!(out, "  replicated: {}", mirrored(mirror))?;
    }
    let mut table = Table::new(
        "  ",
        &[
            ("target", Side::Left),
            ("node", Side::Left),
            ("link", Side::Left),
            ("log", Side::Left),
            ("listening", Side::Left),
            ("headroom", Side::Left),
            ("connections", Side::Right),
            ("serves", Side::Left),
        ],
    );
    for target in targets {
        let TargetStatus {
            address,
            node,
            linked,
            complete,
            position,
            listening,
            load,
            connections,
            resting,
            responsiveness,
        } = target;
        let log = match (complete, position) {
            (true, Some(position)) => format!("at {}", position.sequence),
            (true, None) => "complete".into(),
            (false, _) => "unknown".into(),
        };
        table.row([
            address.to_string(),
            node_name(node.as_ref()),
            up_or_down(*linked),
            log,
            if resting.is_empty() { ports(listening) } else { format!("{}, quiesced", ports(listening)) },
            load.as_ref().map_or_else(|| "-".into(), headroom),
            grouped(*connections),
            served(responsiveness),
        ]);
    }
    if !targets.is_empty() {
        table.print(out);
    }
    Ok(())
}

/// The whole, and where it is less than all, the parts.
fn served(responsiveness: &Responsiveness) -> String {
    let Responsiveness { reached, established, accepted } = responsiveness;
    match responsiveness.percent() {
        None => "-".into(),
        Some(100) => "100 %".into(),
        Some(percent) => {
            let part = |part: &Option<u8>, name| part.map(|part| format!("{part} % {name}"));
            let parts = [part(reached, "reached"), part(established, "established"), part(accepted, "accepted")];
            format!("{percent} %: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
    }
}

fn show_succession(out: &mut String, succession: &Succession) -> anyhow::Result<()> {
    let Succession { group, placed, barred, yielding_to, lingers_ms, takeback, takeback_in_ms } = succession;
    let barred: Vec<_> = barred.iter().map(NodeName::as_str).collect();
    let parts = [
        group.as_ref().map(|group| format!("group {group}")),
        placed.as_ref().map(|router| format!("moved to {router}")),
        (!barred.is_empty()).then(|| format!("not at {}", barred.join(", "))),
        yielding_to.as_ref().map(|router| format!("yields to {router}")),
        lingers_ms.map(|ms| format!("forwards what still comes for {}", span(ms))),
        takeback.as_ref().map(|wait| match takeback_in_ms {
            Some(ms) => format!("takes it back in {}", span(*ms)),
            None => format!("takes it back after: {wait}"),
        }),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        writeln!(out, "  {}", parts.join("; "))?;
    }
    Ok(())
}

fn show_decisions(out: &mut String, decisions: &Decisions) -> anyhow::Result<()> {
    let Decisions { decisions } = decisions;
    if decisions.is_empty() {
        writeln!(out, "nothing is decided: all is as configured")?;
    }
    for decision in decisions {
        let node = &decision.stamp.by;
        match &decision.given {
            Some(Given { by, unix_ms }) => {
                writeln!(out, "{decision}; decided by {by} at {}, by way of {node}", rfc3339(*unix_ms))?;
            }
            None => writeln!(out, "{decision}; decided by way of {node}")?,
        }
    }
    Ok(())
}

fn show_connections(out: &mut String, connections: &Connections) -> anyhow::Result<()> {
    let Connections { total, shown, counted, others } = connections;
    if !counted.is_empty() {
        show_counted(out, *total, counted, *others);
        return Ok(());
    }
    let mut table = Table::new(
        "",
        &[
            ("client", Side::Left),
            ("vipa", Side::Left),
            ("service", Side::Left),
            ("target", Side::Left),
            ("node", Side::Left),
            ("state", Side::Left),
        ],
    );
    for ConnectionRow { vipa, connection, target, node, stage } in shown {
        table.row([
            connection.client.to_string(),
            vipa.to_string(),
            format!("{}/{}", connection.protocol.name(), connection.port),
            target.to_string(),
            node_name(node.as_ref()),
            stage.name().into(),
        ]);
    }
    if !shown.is_empty() {
        table.print(out);
    }
    let more = if (shown.len() as u64) < *total { "; --limit N shows more" } else { "" };
    writeln!(out, "{} of {} connections{more}", grouped(shown.len() as u64), grouped(*total))?;
    Ok(())
}

fn show_counted(out: &mut String, total: u64, counted: &[CountedConnections], others: u64) {
    let mut table = Table::new("", &[("", Side::Left), ("connections", Side::Right), ("share", Side::Right)]);
    let mut row = |name: &str, connections: u64| {
        let share = format!("{:.1} %", connections as f64 * 100.0 / total.max(1) as f64);
        table.row([name.to_owned(), grouped(connections), share]);
    };
    counted.iter().for_each(|CountedConnections { name, connections }| row(name, *connections));
    if others > 0 {
        row("others; --limit N shows more", others);
    }
    row("all", total);
    table.print(out);
}

fn show_distribution(out: &mut String, distribution: &Distribution) -> anyhow::Result<()> {
    for (index, VipaDistribution { vipa, epoch, services }) in distribution.vipas.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        writeln!(out, "VIPA {vipa}, epoch {epoch}")?;
        if services.is_empty() {
            out.push_str("  no services known yet\n");
        }
        for service in services {
            show_service(out, service)?;
        }
    }
    if distribution.vipas.is_empty() {
        out.push_str("this router has no VIPAs\n");
    }
    Ok(())
}

fn show_service(out: &mut String, distribution: &ServiceDistribution) -> anyhow::Result<()> {
    let ServiceDistribution { service, targets } = distribution;
    let balance = match service.balance {
        Balance::Maglev => "maglev",
        Balance::RoundRobin => "round-robin",
        Balance::WeightedActive => "weighted-active",
    };
    let orphans = match service.orphans {
        Orphans::Reset => "reset",
        Orphans::Drop => "dropped",
        Orphans::Balance => "balanced",
    };
    let weights = match service.choice.weights {
        Weights::Static => "",
        Weights::Load => " and the targets' load",
    };
    writeln!(out, "  {}: balanced by {balance}{weights}, orphans {orphans}", service_name(service))?;
    let total: u64 = targets.iter().map(|row| row.connections).sum();
    let mut table = Table::new(
        "    ",
        &[
            ("target", Side::Left),
            ("node", Side::Left),
            ("link", Side::Left),
            ("weight", Side::Right),
            ("serves", Side::Right),
            ("waiting", Side::Right),
            ("connections", Side::Right),
            ("share", Side::Right),
            ("new connections", Side::Left),
        ],
    );
    for row in targets {
        let DistributionRow {
            target,
            node,
            candidate: _,
            agent,
            linked,
            weight,
            waiting,
            connections,
            responsiveness,
            ..
        } = row;
        let share =
            if total == 0 { "-".into() } else { format!("{:.1} %", *connections as f64 * 100.0 / total as f64) };
        table.row([
            target.to_string(),
            node_name(node.as_ref()),
            if *agent { up_or_down(*linked) } else { "none".into() },
            weight.to_string(),
            responsiveness.percent().map_or_else(|| "-".into(), |percent| format!("{percent} %")),
            grouped(u64::from(*waiting)),
            grouped(*connections),
            share,
            new_connections(row),
        ]);
    }
    table.print(out);
    Ok(())
}

/// How far the connections and flows that no target reports would outlive the owner.
fn mirrored(mirror: &MirrorStatus) -> String {
    match mirror {
        MirrorStatus::Telling { followers, connections, left_out } => {
            let names: Vec<_> = followers.iter().map(NodeName::as_str).collect();
            let to = if names.is_empty() { "no backup".into() } else { names.join(", ") };
            let beyond = match left_out {
                0 => String::new(),
                left_out => format!("; {} UDP flows are too many to tell", grouped(*left_out)),
            };
            format!("{} connections, told to {to}{beyond}", grouped(*connections))
        }
        MirrorStatus::Following { from, connections, behind_ms: Some(behind) } => {
            format!("{} connections, told by {from}, at most {behind} ms behind", grouped(*connections))
        }
        MirrorStatus::Following { from, behind_ms: None, .. } => format!("not yet told by {from}"),
    }
}

/// Whether a target gets any, and why not.
fn new_connections(row: &DistributionRow) -> String {
    let DistributionRow { fitness, fit, listening, chosen, .. } = row;
    match (fitness, chosen) {
        (Eligibility::Fit, _) if fit < listening => format!("yes, on {fit} of {listening} ports"),
        (Eligibility::Fit, _) if *fit > 1 => format!("yes, on {fit} ports"),
        (Eligibility::Fit, _) => "yes".into(),
        (reason, true) => format!("yes, for want of a better: {reason}"),
        (reason, false) => format!("no, {reason}"),
    }
}

/// Steps of headroom, and what the host's processors do.
fn headroom(load: &Load) -> String {
    let drains = if load.intent == Intent::Drain { ", draining" } else { "" };
    format!("{}/{FULL_HEADROOM}, cpu {} %{drains}", load.headroom, load.host.cpu_permille / 10)
}

fn show_takeovers(out: &mut String, takeovers: &Takeovers) -> anyhow::Result<()> {
    if takeovers.records.is_empty() {
        out.push_str("this router has taken nothing over yet\n");
    }
    for (index, record) in takeovers.records.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        show_takeover(out, record)?;
    }
    Ok(())
}

fn show_takeover(out: &mut String, record: &TakeoverRecord) -> anyhow::Result<()> {
    let TakeoverRecord {
        report,
        finished_unix_ms,
        announce_us,
        first_forward_us,
        connections_known_before,
        connections_rebuilt,
        unowned_ms,
        unowned_frames,
        held,
        released,
        expired,
    } = record;
    let TakeoverReport {
        vipa,
        epoch,
        trigger,
        cause,
        predecessor,
        detect_us,
        collect_us,
        rebuild_us,
        targets_answered,
        targets_expected,
        targets_warm,
        connections_reported,
    } = report;
    let before = predecessor.as_ref().map_or_else(String::new, |name| format!(" from {name}"));
    let why = match trigger {
        Trigger::First => "first owner",
        Trigger::Failure => "failure: taken over",
        Trigger::Takeback => "takeback: taken back",
        Trigger::Handover => "handover: handed over",
    };
    writeln!(out, "{}  VIPA {vipa}, epoch {epoch}  {why}{before}", rfc3339(*finished_unix_ms))?;
    if *cause != OwnershipCause::Unknown {
        writeln!(out, "  cause        {cause}")?;
    }
    let first = first_forward_us.map_or_else(|| "none meanwhile".into(), |us| format!("after {}", milliseconds(us)));
    writeln!(
        out,
        "  time         detect {}, collect {}, announce {}, rebuild {}; first packet forwarded {first}",
        milliseconds(*detect_us),
        milliseconds(*collect_us),
        milliseconds(*announce_us),
        milliseconds(*rebuild_us),
    )?;
    writeln!(
        out,
        "  targets      {targets_answered} of {targets_expected} answered, {targets_warm} with the tail of their log only"
    )?;
    writeln!(
        out,
        "  connections  {} known before, {} reported, {} rebuilt",
        grouped(*connections_known_before),
        grouped(*connections_reported),
        grouped(*connections_rebuilt)
    )?;
    writeln!(
        out,
        "  packets      {} held, {} released, {} given up",
        grouped(*held),
        grouped(*released),
        grouped(*expired)
    )?;
    if let Some(ms) = unowned_ms {
        let frames = match unowned_frames {
            Some(frames) => format!("{} frames came to its ports meanwhile", grouped(*frames)),
            None => "its ports cannot tell what came meanwhile".into(),
        };
        writeln!(
            out,
            "  gap          nobody owned it for {}, since this router last stopped; {frames}",
            milliseconds(ms * 1000)
        )?;
    }
    Ok(())
}

pub(crate) fn stance_word(stance: Stance) -> &'static str {
    match stance {
        Stance::Standby => "standby",
        Stance::Suspecting => "suspecting the owner",
        Stance::Claiming => "claiming",
        Stance::Rebuilding => "rebuilding",
        Stance::Active => "active",
        Stance::Yielding => "yielding",
    }
}

fn service_name(service: &Service) -> String {
    format!("{}/{}", service.protocol.name(), service.ports)
}

fn ports(listening: &[(Protocol, u16)]) -> String {
    let named: Vec<_> =
        listening.iter().take(PORTS_NAMED).map(|(protocol, port)| format!("{}/{port}", protocol.name())).collect();
    match listening.len() {
        0 => "-".into(),
        count if count > PORTS_NAMED => format!("{} and {} more", named.join(" "), count - PORTS_NAMED),
        _ => named.join(" "),
    }
}

fn node_name(node: Option<&NodeName>) -> String {
    node.map_or_else(|| "-".into(), ToString::to_string)
}

fn up_or_down(up: bool) -> String {
    if up { "up" } else { "down" }.into()
}

fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_peer_has_a_line_that_says_who_why_how_often_and_when() {
        let peer = |node: Option<&str>, address: Option<[u8; 4]>| RefusedPeer {
            node: node.map(|node| node.parse().unwrap()),
            address: address.map(IpAddr::from),
            why: "it is revoked".into(),
            times: 1_200,
            last_ms_ago: 61_000,
        };
        let end = "it is revoked (1,200 times, the last 1 min 1 s ago)";
        assert_eq!(refused_line(&peer(Some("t9"), Some([10, 77, 0, 99]))), format!("REFUSED: t9 at 10.77.0.99: {end}"));
        assert_eq!(refused_line(&peer(Some("t9"), None)), format!("REFUSED: t9: {end}"));
        assert_eq!(refused_line(&peer(None, Some([10, 77, 0, 99]))), format!("REFUSED: 10.77.0.99: {end}"));
    }
}
