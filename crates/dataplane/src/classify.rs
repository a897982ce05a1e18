//! Classification of each packet of a burst: which connection it belongs to, or what else becomes of it. Changes no
//! packet.

mod neighbour;
mod path;
mod plain;
mod vipa;

use std::net::IpAddr;

use vipa_flow::vectors::Vectors;
use vipa_handoff::{PortRoute, Reason};
use vipa_model::{PortId, Stance};
use vipa_packet::{Body, HeaderColumns, HeaderSums, L2Destination, PacketBuf, Parsed, Station, ethernet};

use crate::{
    TurnContext,
    batch::{Batch, Verdict},
    fragments::{FirstPart, FragmentKey, Fragments, Span},
    path::entropy,
};
use vipa::{VipaPacket, icmp4, icmp6, part};

/// The port by which a packet arrived, and its route.
#[derive(Clone, Copy)]
struct Ingress<'a> {
    port: PortId,
    route: &'a PortRoute,
}

/// A burst that a port has just delivered.
pub(crate) struct ArrivedBurst<'a, B> {
    pub(crate) port: PortId,
    pub(crate) sums: HeaderSums,
    pub(crate) packets: &'a [B],
}

/// Gives each packet its verdict, or begins the lookup of its connection.
#[inline(always)]
pub(crate) fn classify<B: PacketBuf>(
    context: &TurnContext<'_>,
    burst: &ArrivedBurst<'_, B>,
    fragments: &mut Fragments<B, Verdict>,
    (vectors, columns, batch): (Vectors, &mut HeaderColumns, &mut Batch),
) {
    let &ArrivedBurst { port, packets, .. } = burst;
    if packets.is_empty() {
        return;
    }
    let Some(route) = context.routes.port(port) else {
        // A kernel interface, or a port that no snapshot names yet.
        let verdict = context.routes.port_of_kernel(port).map_or(Verdict::drop(Reason::NotForUs), Verdict::FromKernel);
        batch.verdicts.fill(verdict);
        return;
    };
    let at = Ingress { port, route };
    // A port with a VLAN tag has no plain frames.
    let station = if route.vlan.is_none() { Station::new(&route.mac.0) } else { Station::NOBODY };
    let others = plain::plain(context, station, burst, vectors, (columns, batch));
    for (index, packet) in others.map(|index| (index, &packets[index])) {
        batch.index = index as u8;
        batch.verdicts[index] = classify_any(context, at, packet.bytes(), fragments, batch);
    }
}

#[inline(never)]
fn classify_any<B: PacketBuf>(
    context: &TurnContext<'_>,
    at: Ingress<'_>,
    frame: &[u8],
    fragments: &mut Fragments<B, Verdict>,
    batch: &mut Batch,
) -> Verdict {
    let l2_destination = ethernet::l2_destination(frame, &at.route.mac.0);
    if l2_destination == L2Destination::Foreign {
        return Verdict::drop(Reason::NotForUs);
    }
    let parsed = match vipa_packet::parse(frame) {
        Ok(parsed) => parsed,
        Err(malformed) => return Verdict::drop(Reason::Malformed(malformed)),
    };
    // VLAN 0 is a tag that carries a priority only.
    if parsed.vlan.filter(|vlan| *vlan != 0) != at.route.vlan {
        return Verdict::drop(Reason::Vlan);
    }
    let ours = match parsed.body {
        Body::Arp(message) => neighbour::arp(context, at, l2_destination, &message),
        Body::Ipv6Icmp(icmp) => match neighbour::discovery(context, at, frame, &icmp) {
            Some(verdict) => Some(verdict),
            None if l2_destination == L2Destination::Group => None,
            None => icmp6(context, at, &icmp, batch).or_else(|| path::narrow_path(context, at, frame, &parsed)),
        },
        _ if l2_destination == L2Destination::Group => None,
        Body::Ipv4Tcp(segment) => segment.classify(context, batch),
        Body::Ipv6Tcp(segment) => segment.classify(context, batch),
        Body::Ipv4Udp(datagram) => datagram.classify(context, batch),
        Body::Ipv6Udp(datagram) => datagram.classify(context, batch),
        Body::Ipv4Icmp(icmp) => {
            icmp4(context, at, &icmp, batch).or_else(|| path::narrow_path(context, at, frame, &parsed))
        }
        Body::Ipv4Fragment(fragment) => part(context, at, &fragment, payload(&parsed), (fragments, batch)),
        Body::Ipv6Fragment(fragment) => part(context, at, &fragment, payload(&parsed), (fragments, batch)),
        Body::Ipv4Other { destination, .. } => {
            context.routes.find_vipa(destination).map(|_| Verdict::drop(Reason::IpProtocol))
        }
        Body::Ipv6Other { destination, .. } => {
            context.routes.find_vipa6(destination).map(|_| Verdict::drop(Reason::IpProtocol))
        }
        Body::OtherEtherType(_) => None,
    };
    ours.unwrap_or_else(|| not_ours(at, l2_destination, &parsed.body))
}

/// Bytes after the IP header of a fragment.
fn payload(parsed: &Parsed) -> usize {
    (parsed.end as usize).saturating_sub(usize::from(parsed.l4))
}

/// The mapping that a first fragment makes for the later fragments of its packet.
pub(crate) fn first_part(packet: &impl PacketBuf) -> Option<FirstPart> {
    let parsed = vipa_packet::parse(packet.bytes()).ok()?;
    let (key, Span { start, end }) = part_of(&parsed)?;
    (start == 0).then(|| FirstPart { key, end, entropy: entropy(&parsed) })
}

/// Which packet a later fragment belongs to, and its position in it.
pub(crate) fn later_part(packet: &impl PacketBuf) -> Option<(FragmentKey, Span)> {
    part_of(&vipa_packet::parse(packet.bytes()).ok()?)
}

fn part_of(parsed: &Parsed) -> Option<(FragmentKey, Span)> {
    let (key, start) = match &parsed.body {
        Body::Ipv4Fragment(fragment) => (vipa::fragment_key(fragment), fragment.offset),
        Body::Ipv6Fragment(fragment) => (vipa::fragment_key(fragment), fragment.offset),
        _ => return None,
    };
    Some((key, Span::of(start, payload(parsed))))
}

/// A packet for no VIPA goes to the kernel behind this port, if there is one.
fn not_ours(at: Ingress<'_>, l2_destination: L2Destination, body: &Body) -> Verdict {
    if let Some(kernel) = at.route.kernel {
        return Verdict::ToKernel(kernel);
    }
    Verdict::drop(match body {
        Body::Arp(_) => Reason::ArpOfOthers,
        Body::OtherEtherType(_) => Reason::EtherType,
        _ if l2_destination == L2Destination::Group => Reason::Group,
        _ => Reason::NoVipa,
    })
}

/// Whether `address` is a VIPA for which this router answers.
fn answered_vipa(context: &TurnContext<'_>, address: IpAddr) -> bool {
    let id = match address {
        IpAddr::V4(address) => context.routes.find_vipa(address.to_bits()),
        IpAddr::V6(address) => context.routes.find_vipa6(address.to_bits()),
    };
    id.and_then(|id| context.routes.vipa(id)).is_some_and(|vipa| match vipa.stance {
        Stance::Active | Stance::Rebuilding => !vipa.lease.passed(context.now),
        Stance::Standby | Stance::Yielding => false,
    })
}
