//! First look at each packet of a burst: whose connection it is, or what else becomes of it. Changes no packet.

mod neighbour;
mod vipa;

use std::net::IpAddr;

use vipa_handoff::{PortRoute, Reason};
use vipa_model::{PortId, Stance};
use vipa_packet::{Body, Delivery, PacketBuf, Parsed, Station, Tcp, ethernet};

use crate::{
    Scene,
    fragments::{FragmentKey, Fragments},
    lanes::{Lanes, Verdict},
};
use vipa::{Addressed, VipaPacket, icmp4, icmp6, part};

/// A port as the classifier sees it.
#[derive(Clone, Copy)]
struct At<'a> {
    port: PortId,
    route: &'a PortRoute,
}

/// Gives each packet its verdict, or asks for its connection.
#[inline]
pub(crate) fn classify<B: PacketBuf>(
    scene: &Scene<'_>,
    port: PortId,
    burst: &[B],
    fragments: &Fragments<B, Verdict>,
    lanes: &mut Lanes,
) {
    lanes.clear();
    let Some(route) = scene.routes.port(port) else {
        // A kernel interface, or a port that no snapshot names yet.
        let verdict = scene.routes.port_of_kernel(port).map_or(Verdict::drop(Reason::NotForUs), Verdict::FromKernel);
        lanes.verdicts.fill(verdict);
        return;
    };
    let at = At { port, route };
    // A port with a tag has no plain frames.
    let station = if route.vlan.is_none() { Station::new(&route.mac.0) } else { Station::NOBODY };
    for (place, packet) in (0..).zip(burst) {
        let frame = packet.bytes();
        lanes.place = place;
        if !plain(scene, station, frame, lanes) {
            lanes.verdicts[usize::from(place)] = classify_any(scene, at, frame, fragments, lanes);
        }
    }
}

/// What nearly every packet is: a plain TCP segment to a VIPA. False, and nothing done: any other, to be looked at from the start.
#[inline(always)]
fn plain(scene: &Scene<'_>, station: Station, frame: &[u8], lanes: &mut Lanes) -> bool {
    match vipa_packet::plain_tcp(frame, station) {
        Some(segment) => plain_to_vipa(scene, &segment, lanes),
        None => plain6(scene, station, frame, lanes),
    }
}

/// A function of its own, so that either family has the registers for itself.
#[inline(never)]
fn plain6(scene: &Scene<'_>, station: Station, frame: &[u8], lanes: &mut Lanes) -> bool {
    vipa_packet::plain_tcp6(frame, station).is_some_and(|segment| plain_to_vipa(scene, &segment, lanes))
}

#[inline(always)]
fn plain_to_vipa<A: Addressed>(scene: &Scene<'_>, segment: &Tcp<A>, lanes: &mut Lanes) -> bool {
    if segment.flags.goes_on() {
        return segment.to_vipa(scene, lanes).is_some();
    }
    first_or_last(scene, *segment, lanes)
}

#[inline(never)]
fn first_or_last<A: Addressed>(scene: &Scene<'_>, segment: Tcp<A>, lanes: &mut Lanes) -> bool {
    let Some(verdict) = segment.to_vipa(scene, lanes) else { return false };
    lanes.verdicts[usize::from(lanes.place)] = verdict;
    true
}

#[inline(never)]
fn classify_any<B: PacketBuf>(
    scene: &Scene<'_>,
    at: At<'_>,
    frame: &[u8],
    fragments: &Fragments<B, Verdict>,
    lanes: &mut Lanes,
) -> Verdict {
    let delivery = ethernet::delivery(frame, &at.route.mac.0);
    if delivery == Delivery::Foreign {
        return Verdict::drop(Reason::NotForUs);
    }
    let parsed = match vipa_packet::parse(frame) {
        Ok(parsed) => parsed,
        Err(malformed) => return Verdict::drop(Reason::Malformed(malformed)),
    };
    // VLAN 0 is a tag that only says a priority.
    if parsed.vlan.filter(|vlan| *vlan != 0) != at.route.vlan {
        return Verdict::drop(Reason::Vlan);
    }
    let ours = match parsed.body {
        Body::Arp(message) => neighbour::arp(scene, at, delivery, &message),
        Body::Ipv6Icmp(icmp) => match neighbour::discovery(scene, at, &icmp) {
            Some(verdict) => Some(verdict),
            None if delivery == Delivery::Group => None,
            None => icmp6(scene, at, &icmp, lanes),
        },
        _ if delivery == Delivery::Group => None,
        Body::Ipv4Tcp(segment) => segment.classify(scene, lanes),
        Body::Ipv6Tcp(segment) => segment.classify(scene, lanes),
        Body::Ipv4Udp(datagram) => datagram.classify(scene, lanes),
        Body::Ipv6Udp(datagram) => datagram.classify(scene, lanes),
        Body::Ipv4Icmp(icmp) => icmp4(scene, at, &icmp, lanes),
        Body::Ipv4Fragment(fragment) => part(scene, &fragment, payload(&parsed), fragments, lanes),
        Body::Ipv6Fragment(fragment) => part(scene, &fragment, payload(&parsed), fragments, lanes),
        Body::Ipv4Other { destination, .. } => {
            scene.routes.find_vipa(destination).map(|_| Verdict::drop(Reason::IpProtocol))
        }
        Body::Ipv6Other { destination, .. } => {
            scene.routes.find_vipa6(destination).map(|_| Verdict::drop(Reason::IpProtocol))
        }
        Body::OtherEtherType(_) => None,
    };
    ours.unwrap_or_else(|| not_ours(at, delivery, &parsed.body))
}

/// Bytes after the IP header, of a part of a packet.
fn payload(parsed: &Parsed) -> usize {
    (parsed.end as usize).saturating_sub(usize::from(parsed.l4))
}

/// What a packet that is the first of several parts teaches by, and how much it holds.
pub(crate) fn first_part(packet: &impl PacketBuf) -> Option<(FragmentKey, u16)> {
    let parsed = vipa_packet::parse(packet.bytes()).ok()?;
    let (key, offset) = part_key(&parsed)?;
    (offset == 0).then(|| (key, u16::try_from(payload(&parsed)).unwrap_or(u16::MAX)))
}

/// Which packet a later part belongs to, and where.
pub(crate) fn later_part(packet: &impl PacketBuf) -> Option<(FragmentKey, u16)> {
    part_key(&vipa_packet::parse(packet.bytes()).ok()?)
}

fn part_key(parsed: &Parsed) -> Option<(FragmentKey, u16)> {
    match &parsed.body {
        Body::Ipv4Fragment(fragment) => Some((vipa::fragment_key(fragment), fragment.offset)),
        Body::Ipv6Fragment(fragment) => Some((vipa::fragment_key(fragment), fragment.offset)),
        _ => None,
    }
}

/// What is for no VIPA is for the kernel behind this port, if there is one.
fn not_ours(at: At<'_>, delivery: Delivery, body: &Body) -> Verdict {
    if let Some(kernel) = at.route.kernel {
        return Verdict::ToKernel(kernel);
    }
    Verdict::drop(match body {
        Body::Arp(_) => Reason::ArpOfOthers,
        Body::OtherEtherType(_) => Reason::EtherType,
        _ if delivery == Delivery::Group => Reason::Group,
        _ => Reason::NoVipa,
    })
}

/// Whether `address` is a VIPA that this router says it has.
fn answered_vipa(scene: &Scene<'_>, address: IpAddr) -> bool {
    let id = match address {
        IpAddr::V4(address) => scene.routes.find_vipa(address.to_bits()),
        IpAddr::V6(address) => scene.routes.find_vipa6(address.to_bits()),
    };
    id.and_then(|id| scene.routes.vipa(id)).is_some_and(|vipa| match vipa.stance {
        Stance::Active | Stance::Rebuilding => !vipa.lease.passed(scene.now),
        Stance::Standby | Stance::Yielding => false,
    })
}
