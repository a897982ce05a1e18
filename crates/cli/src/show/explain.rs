//! What an explanation of one connection's packet looks like.

use std::net::IpAddr;

use vipa_model::NodeName;
use vipa_protocol::{
    Eligibility,
    admin::{
        ExplainedCandidate, ExplainedChoice, ExplainedEntry, ExplainedFate, ExplainedPacket, ExplainedPath,
        ExplainedService, Explanation,
    },
};

use super::{node_name, span, stance_word};
use crate::{
    table::{Side, Table},
    width::labelled,
};

pub(super) fn explanation(out: &mut String, explanation: &Explanation, width: usize) {
    let Explanation { vipa, connection, stance, epoch, owner, packet, entry, service, path, fate, notes } = explanation;
    let place = std::net::SocketAddr::new(*vipa, connection.port);
    out.push_str(&format!("{} to {place}/{}\n", connection.client, connection.protocol.name()));
    let mut line = |label: &str, text: &str| labelled(out, label, text, width);
    let owner = owner.as_ref().map_or_else(|| "nobody".into(), NodeName::to_string);
    line("VIPA", &format!("{} here; epoch {epoch}, owner {owner}", stance_word(*stance)));
    line("entry", &entry.as_ref().map_or_else(|| "none in the connection table".into(), entry_words));
    line(
        "packet",
        match packet {
            ExplainedPacket::Syn => "a SYN, which opens the connection",
            ExplainedPacket::Segment => "a TCP segment in the middle of the connection",
            ExplainedPacket::Datagram => "a UDP datagram",
        },
    );
    match service {
        None => line("service", "none has this port"),
        Some(service) => line("service", &service_words(service)),
    }
    if let Some(path) = path {
        line("path", &path_words(path));
    }
    let ExplainedFate { name, meaning, remedy, decided_in } = fate;
    line("fate", &if meaning.is_empty() { name.clone() } else { format!("{name}: {meaning}") });
    if let Some(place) = decided_in {
        line("decided in", &format!("crates/{place}"));
    }
    if !remedy.is_empty() {
        line("what to do", remedy);
    }
    for note in notes {
        line("note", note);
    }
    if let Some(ExplainedService { candidates, .. }) = service
        && !candidates.is_empty()
    {
        out.push('\n');
        let columns =
            [("candidate", Side::Left), ("node", Side::Left), ("weight", Side::Right), ("new connections", Side::Left)];
        let mut table = Table::new("  ", &columns);
        for ExplainedCandidate { target, node, fitness, weight } in candidates {
            let gets = match fitness {
                Eligibility::Fit if *weight == 0 => "none: its weight is 0".into(),
                Eligibility::Fit => "yes".into(),
                other => format!("none: {other}"),
            };
            table.row([target.to_string(), node_name(node.as_ref()), weight.to_string(), gets]);
        }
        table.print(out);
    }
}

fn at(target: &IpAddr, node: Option<&NodeName>) -> String {
    node.map_or_else(|| target.to_string(), |node| format!("{target} ({node})"))
}

fn entry_words(entry: &ExplainedEntry) -> String {
    let ExplainedEntry { target, node, stage, written_ms_ago, linked } = entry;
    let linked = if *linked { "its agent is linked" } else { "NO LINK to its agent" };
    format!("at {}, {}, written {} ago; {linked}", at(target, node.as_ref()), stage.name(), span(*written_ms_ago))
}

fn service_words(service: &ExplainedService) -> String {
    let ExplainedService { name, method, candidates: _, chosen, chosen_by } = service;
    let by = match chosen_by {
        Some(ExplainedChoice::Hash) => "by the hash of addresses and ports".into(),
        Some(ExplainedChoice::Turn(turn)) => {
            format!("by turn {turn} of the service, if no other connection comes first")
        }
        None => String::new(),
    };
    match chosen {
        Some(target) => format!("{name}, balance {method}: {target}, {by}"),
        None => format!("{name}, balance {method}: no new target is chosen"),
    }
}

fn path_words(path: &ExplainedPath) -> String {
    let ExplainedPath {
        target,
        node,
        kind,
        encapsulation,
        outer,
        target_port,
        port,
        vlan,
        neighbour,
        mac,
        mtu,
        path_mtu,
    } = path;
    let mut parts = vec![format!("{kind} to {}", at(target, node.as_ref()))];
    if let (Some(encapsulation), Some((from, to))) = (encapsulation, outer) {
        parts.push(format!("{encapsulation} from {from} to {to}"));
    }
    if let Some(port) = target_port {
        parts.push(format!("port {port} there"));
    }
    if let Some(port) = port {
        let vlan = vlan.map(|vlan| format!(", VLAN {vlan}")).unwrap_or_default();
        parts.push(format!("by port {port}{vlan}"));
    }
    if let Some(neighbour) = neighbour {
        let mac = mac.as_deref().unwrap_or("an UNKNOWN Ethernet address");
        parts.push(format!("neighbour {neighbour} at {mac}"));
    }
    // A path that leads nowhere has no MTU.
    if *mtu < u16::MAX {
        parts.push(if mtu == path_mtu {
            format!("MTU {mtu}")
        } else {
            format!("MTU {mtu}, {path_mtu} with the tunnel's headers")
        });
    }
    parts.join("; ")
}
