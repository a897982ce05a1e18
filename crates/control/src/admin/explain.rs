//! What becomes of the next packet of one connection: asked of the routes that the workers have now.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use vipa_flow::{FlowState, Tick};
use vipa_handoff::{
    AnyKey, ChosenBy, Explained, Fate, ForwardingAction, NextPacket, PacketOutcome, Reason, Routes, TargetRoute,
    next_neighbour,
};
use vipa_model::{Connection, Mac, NodeName, Protocol, TargetId};
use vipa_packet::{Encapsulation, TunnelEndpoints};
use vipa_protocol::{
    admin::{
        Answer, ExplainedCandidate, ExplainedChoice, ExplainedEntry, ExplainedFate, ExplainedPacket, ExplainedPath,
        ExplainedService, Explanation, Stance,
    },
    meaning::meaning_of,
};

use crate::{
    admin::{
        connections::{names, no_vipa, stage},
        status,
    },
    control::{Control, vipa_id},
};

/// A tick of the connection table, milliseconds.
const TICK_MS: u64 = 250;

pub(crate) fn explain(control: &Control, vipa: IpAddr, connection: &Connection) -> Answer {
    let Some(index) = control.routing.vipa_index(vipa) else { return no_vipa(vipa) };
    let client = connection.client.ip().to_canonical();
    let Some(key) = AnyKey::of(vipa_id(index), vipa, connection) else {
        return Answer::Error(format!("{client} is no client of {vipa}: one is IPv4, the other IPv6"));
    };
    let (routes, now) = (control.channel.routes(), control.clock.now());
    let packet = match (connection.protocol, control.flows.lookup(&key)) {
        (Protocol::Udp, _) => NextPacket::Datagram,
        // After its end the client's next word is a new connection of the same ports.
        (Protocol::Tcp, Some(hit)) if hit.state != FlowState::Ended => NextPacket::Segment,
        (Protocol::Tcp, _) => NextPacket::Syn,
    };
    let explained = vipa_handoff::explain(&routes, &control.flows, &key, packet, now);
    let nodes = names(control, vipa);
    let entry = explained.entry.and_then(|hit| {
        let target = routes.target(hit.target)?.address;
        Some(ExplainedEntry {
            target,
            node: nodes.get(&target).cloned(),
            stage: stage(hit.state),
            written_ms_ago: u64::from(hit.silence(Tick::from(now))) * TICK_MS,
            linked: control.flows.is_linked(hit.target),
        })
    });
    let known = control.cluster.vipa(vipa);
    let owner = known.as_ref().and_then(|known| known.owner.clone());
    let stance = known.map_or(Stance::Standby, |known| status::stance(known.state));
    Answer::Explanation(Box::new(Explanation {
        vipa,
        connection: *connection,
        stance,
        epoch: control.routing.vipas[index].epoch,
        notes: notes(control, index, &explained, connection, (stance, owner.as_ref())),
        owner,
        packet: match packet {
            NextPacket::Syn => ExplainedPacket::Syn,
            NextPacket::Segment => ExplainedPacket::Segment,
            NextPacket::Datagram => ExplainedPacket::Datagram,
        },
        entry,
        service: service(control, index, connection, &explained, (&routes, &nodes)),
        path: target_of(&explained).and_then(|target| path(control, &routes, target, &nodes)),
        fate: fate(&routes, &explained),
    }))
}

fn target_of(explained: &Explained) -> Option<TargetId> {
    match explained.outcome {
        PacketOutcome::Forward(target) | PacketOutcome::AwaitNeighbour(target) => Some(target),
        PacketOutcome::AwaitReports | PacketOutcome::Fate(_) => None,
    }
}

fn service(
    control: &Control,
    index: usize,
    connection: &Connection,
    explained: &Explained,
    (routes, nodes): (&Routes, &BTreeMap<IpAddr, NodeName>),
) -> Option<ExplainedService> {
    let (protocol, port) = (connection.protocol, connection.port);
    let services = &control.routing.vipas[index].services;
    let service = services.iter().find(|service| service.protocol == protocol && service.ports.contains(port))?;
    let judge = control.routing.judge(index);
    let candidate = |(target, fitness)| ExplainedCandidate {
        target,
        node: nodes.get(&target).cloned(),
        fitness,
        weight: judge.weight(service, target),
    };
    let chosen = explained.chosen_by.and_then(|_| Some(routes.target(target_of(explained)?)?.address));
    Some(ExplainedService {
        name: format!("{}/{}", service.protocol.name(), service.ports),
        method: service.balance.name().into(),
        candidates: judge.candidates_fitness(service, port).into_iter().map(candidate).collect(),
        chosen,
        chosen_by: explained.chosen_by.filter(|_| chosen.is_some()).map(|by| match by {
            ChosenBy::Hash => ExplainedChoice::Hash,
            ChosenBy::Turn(turn) => ExplainedChoice::Turn(turn),
        }),
    })
}

fn path(
    control: &Control,
    routes: &Routes,
    target: TargetId,
    nodes: &BTreeMap<IpAddr, NodeName>,
) -> Option<ExplainedPath> {
    let TargetRoute { address, via, next_hop, mtu, path_mtu, .. } = *routes.target(target)?;
    let next = next_neighbour(&routes.ports, address).filter(|_| via != ForwardingAction::Local);
    let (kind, encapsulation, outer, target_port) = match via {
        ForwardingAction::Direct => ("direct", None, None, None),
        ForwardingAction::Local => ("local", None, None, None),
        ForwardingAction::Nat { port } => ("nat", None, None, port),
        ForwardingAction::Tunnel { outer, how } => ("tunnel", Some(encapsulation(how)), Some(ends(outer)), None),
    };
    Some(ExplainedPath {
        target: address,
        node: nodes.get(&address).cloned(),
        kind: kind.into(),
        encapsulation: encapsulation.map(str::to_owned),
        outer,
        target_port,
        port: next.map(|(port, _)| control.port_name(port).to_owned()),
        vlan: next_hop.and_then(|hop| hop.link.vlan),
        neighbour: next.map(|(_, neighbour)| neighbour),
        mac: next_hop.filter(|_| via != ForwardingAction::Local).map(|hop| Mac(hop.link.destination).to_string()),
        mtu,
        path_mtu,
    })
}

fn encapsulation(how: Encapsulation) -> &'static str {
    match how {
        Encapsulation::Ipip => "ipip",
        Encapsulation::Gre => "gre",
        Encapsulation::Gue { .. } => "gue",
    }
}

fn ends(outer: TunnelEndpoints) -> (IpAddr, IpAddr) {
    match outer {
        TunnelEndpoints::V4 { source, destination } => {
            (Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into())
        }
        TunnelEndpoints::V6 { source, destination } => {
            (Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into())
        }
    }
}

fn fate(routes: &Routes, explained: &Explained) -> ExplainedFate {
    let remedy_of = |reason: Reason| meaning_of(reason.name()).map(|meaning| meaning.remedy).unwrap_or_default();
    match explained.outcome {
        PacketOutcome::AwaitNeighbour(target) => {
            let target = routes.target(target).map(|route| route.address);
            let neighbour = target.and_then(|target| next_neighbour(&routes.ports, target));
            let whom = match (neighbour, target) {
                (Some((_, neighbour)), Some(target)) if neighbour != target => {
                    format!("{neighbour}, the way to {target},")
                }
                (_, Some(target)) => target.to_string(),
                _ => "the target".into(),
            };
            ExplainedFate {
                name: "held".into(),
                meaning: format!(
                    "waits until {whom} has answered where it is; then forwarded, else dropped.no-neighbour"
                ),
                remedy: remedy_of(Reason::NoNeighbour),
                decided_in: Some(Reason::NoNeighbour.decided_in().into()),
            }
        }
        PacketOutcome::AwaitReports => ExplainedFate {
            name: "held".into(),
            meaning:
                "waits for the targets' reports after a change of ownership; then forwarded, else dropped.hold-expired"
                    .into(),
            remedy: remedy_of(Reason::HoldExpired),
            decided_in: Some(Reason::HoldExpired.decided_in().into()),
        },
        PacketOutcome::Forward(_) => of_fate(Fate::Forward),
        PacketOutcome::Fate(fate) => of_fate(fate),
    }
}

fn of_fate(fate: Fate) -> ExplainedFate {
    let meaning = meaning_of(fate.name());
    let (meaning, remedy) = meaning.map(|meaning| (meaning.counts, meaning.remedy)).unwrap_or_default();
    let decided_in = (fate != Fate::Forward).then(|| fate.decided_in().into());
    ExplainedFate { name: fate.name().into(), meaning, remedy, decided_in }
}

/// What bends the answer, and what only a worker knows.
fn notes(
    control: &Control,
    index: usize,
    explained: &Explained,
    connection: &Connection,
    (stance, owner): (Stance, Option<&NodeName>),
) -> Vec<String> {
    let routing = &control.routing.vipas[index];
    let mut notes = Vec::new();
    if !matches!(stance, Stance::Active | Stance::Rebuilding | Stance::Yielding) {
        let owner = owner.map_or_else(|| "no router".into(), ToString::to_string);
        notes.push(format!(
            "{owner} owns {} now; this is what would become of a packet that comes here",
            routing.address
        ));
    }
    if explained.chosen_by.is_some() || explained.packet != NextPacket::Segment && explained.entry.is_none() {
        if let Some(limit) = routing.new_per_second {
            notes.push(format!(
                "beyond {limit} new connections a second (new_per_second) it would be dropped.vipa-limit"
            ));
        }
        let (protocol, port) = (connection.protocol, connection.port);
        let service = routing.services.iter().find(|one| one.protocol == protocol && one.ports.contains(port));
        if let Some(limit) = service.and_then(|service| service.sources.new_per_second) {
            notes.push(format!(
                "beyond {limit} new connections of this client a second (new_per_second_per_source) it would be dropped.source-limit"
            ));
        }
        if control.flows.count().live() >= control.flows.capacity() as u64 {
            notes.push(
                "the connection table is full: an entry that may go gives way, else it is dropped.table-full".into(),
            );
        }
    }
    if control.routes_stale {
        notes.push("something has just changed that the workers do not know yet; ask again".into());
    }
    notes
}
