//! The last step of a packet: rewritten or encapsulated for its target, or translated back to the VIPA for the client.

use std::net::IpAddr;

use vipa_handoff::{Count, Fate, ForwardingAction, Hop, NextHop, Note, Reason, Rewrite, RewriteAction, TargetRoute};
use vipa_model::{PortId, TargetId, VipaId};
use vipa_packet::{
    Body, Endpoint, FragmentHead, Fragmenter, Icmp, Icmp6, InnerPacket, Ipv4Icmp, Ipv6Icmp, PacketBuf, Parsed,
    TcpFlags, encapsulate, ethernet, has_last_hop, icmp, nat, parse_plain, tcp,
};

use crate::{TurnContext, Tx, family::Family, mask::BurstMask, tx_ports::TxPorts};

/// Why a packet was not forwarded.
pub(crate) enum NotForwarded<B> {
    /// The next neighbour's MAC is not known yet.
    Neighbour(B),
    /// Larger than the path's MTU, given here; the sender is to receive an ICMP error.
    TooBig(B, u16),
    /// Its time to live ends here; the sender is to receive an ICMP error.
    LastHop(B),
    Drop(Reason),
}

/// Packets of a burst that are prepared to leave, all by one port: [`NOWHERE`] while there are none.
#[derive(Clone, Copy)]
pub(crate) struct Prepared {
    pub(crate) packets: BurstMask,
    pub(crate) port: PortId,
}

/// No port has this number.
const NOWHERE: PortId = PortId(u16::MAX);

impl Prepared {
    pub(crate) const NONE: Self = Self { packets: BurstMask::NONE, port: NOWHERE };
}

/// Prepares a plain segment for this target, to leave by `port`. False, with nothing changed, if it needs more than
/// that or leaves by another port.
#[inline(always)]
pub(crate) fn prepare<K: Family>(
    context: &TurnContext<'_>,
    packet: &mut impl PacketBuf,
    target: TargetId,
    port: &mut PortId,
) -> bool {
    let frame = packet.bytes_mut();
    if let Some(rewrite) = context.routes.l2_rewrite(target, frame.len()) {
        let leaves = rewrite.port == *port || first_leaves(port, rewrite.port);
        if leaves {
            ethernet::rewrite_macs(frame, &rewrite.macs);
        }
        return leaves;
    }
    let Some(leaves) = rewrite_prepared::<K>(context, packet, target, port_taken(*port)) else { return false };
    *port = leaves;
    true
}

/// Prepares a plain segment of a `nat` target for the client. False as in [`prepare`].
#[inline(always)]
pub(crate) fn prepare_return<K: Family>(
    context: &TurnContext<'_>,
    packet: &mut impl PacketBuf,
    key: &K,
    port: &mut PortId,
) -> bool {
    let (frame, from) = (packet.bytes_mut(), (key.vipa(), key.vipa_port()));
    let turned = K::inner(frame)
        .and_then(|inner| translate_back_plain(context, from, (frame, &inner, key.client()), port_taken(*port)));
    let Some(leaves) = turned else { return false };
    context.shared.counters.add(Count::Returned, 1);
    *port = leaves;
    true
}

/// The first prepared packet sets the port by which all leave.
#[cold]
fn first_leaves(port: &mut PortId, by: PortId) -> bool {
    let is_first = *port == NOWHERE;
    if is_first {
        *port = by;
    }
    is_first
}

/// The port by which the prepared packets leave, if there are any.
#[inline(always)]
fn port_taken(port: PortId) -> Option<PortId> {
    (port != NOWHERE).then_some(port)
}

/// Rewrites a plain segment that leaves by `port`, if that is given; returns the port by which it leaves. Cold not
/// because it is rare: the caller's registers are for the packets that need less.
#[cold]
#[inline(never)]
fn rewrite_prepared<K: Family>(
    context: &TurnContext<'_>,
    packet: &mut impl PacketBuf,
    target: TargetId,
    port: Option<PortId>,
) -> Option<PortId> {
    let way = context.routes.rewrite(target).filter(|way| port.is_none_or(|port| port == way.port))?;
    let inner = K::inner(packet.bytes())?;
    rewrite_plain(way, packet, &inner).then_some(way.port)
}

/// Forwards a packet to a target.
#[inline]
pub(crate) fn forward<T: Tx>(
    context: &TurnContext<'_>,
    tx_ports: &mut TxPorts<T>,
    target: TargetId,
    mut packet: T::Buf,
) -> Result<(), NotForwarded<T::Buf>> {
    let frame = packet.bytes_mut();
    if let Some(rewrite) = context.routes.l2_rewrite(target, frame.len())
        && ethernet::is_untagged(frame)
    {
        ethernet::rewrite_macs(frame, &rewrite.macs);
        return tx_ports
            .send(&context.shared.counters, rewrite.port, packet, Fate::Forward)
            .map_err(|_| NotForwarded::Drop(Reason::NoRoute));
    }
    forward_changed(context, tx_ports, (target, None), packet)
}

/// Forwards a later fragment, with its connection's entropy for outer headers.
#[inline(never)]
pub(crate) fn forward_part<T: Tx>(
    context: &TurnContext<'_>,
    tx_ports: &mut TxPorts<T>,
    (target, entropy): (TargetId, u32),
    packet: T::Buf,
) -> Result<(), NotForwarded<T::Buf>> {
    if context.routes.counts_hop(target) {
        return forward_changed(context, tx_ports, (target, Some(entropy)), packet);
    }
    forward(context, tx_ports, target, packet)
}

/// Forwards a packet that needs more than new MACs, or for which something is missing.
#[inline(never)]
fn forward_changed<T: Tx>(
    context: &TurnContext<'_>,
    tx_ports: &mut TxPorts<T>,
    (target, entropy): (TargetId, Option<u32>),
    mut packet: T::Buf,
) -> Result<(), NotForwarded<T::Buf>> {
    let Some(route) = context.routes.target(target) else { return Err(NotForwarded::Neighbour(packet)) };
    let Some(hop) = &route.next_hop else {
        ask_for_neighbour(context, route);
        return Err(NotForwarded::Neighbour(packet));
    };
    if let Some(way) = context.routes.rewrite(target)
        && let Some(inner) = InnerPacket::read(packet.bytes())
        && rewrite_plain(way, &mut packet, &inner)
    {
        return tx_ports
            .send(&context.shared.counters, hop.port, packet, Fate::Forward)
            .map_err(|_| NotForwarded::Drop(Reason::NoRoute));
    }
    forward_rewritten(context, tx_ports, (route, hop), entropy, packet)
}

/// Asks control to resolve a neighbour again: a packet waits for one that has not answered for long and is asked
/// seldom.
#[cold]
fn ask_for_neighbour(context: &TurnContext<'_>, route: &TargetRoute) {
    if route.via != ForwardingAction::Local
        && let Hop::Unknown(port, address) = context.routes.hop(route.address)
    {
        // A full mailbox counts what it refuses; the packet will be tried again.
        let _ = context.shared.notes.try_send(Note::Wanted { port, address });
    }
}

/// [`rewrite`] for a packet that has nothing out of the ordinary. False, with nothing changed, if it needs more.
#[inline(always)]
fn rewrite_plain(way: &Rewrite, packet: &mut impl PacketBuf, inner: &InnerPacket) -> bool {
    if inner.size > way.mtu {
        return false;
    }
    match &way.how {
        RewriteAction::Wrap(wrappers) => wrappers.wrap(packet, inner, mix(inner.source, inner.ports)),
        RewriteAction::Translate { address, port, macs } => {
            let frame = packet.bytes_mut();
            let translated = nat::plain_to_target(frame, inner, endpoint(*address, port.unwrap_or(inner.ports as u16)));
            if translated {
                ethernet::rewrite_macs(frame, macs);
            }
            translated
        }
    }
}

#[inline(never)]
fn forward_rewritten<T: Tx>(
    context: &TurnContext<'_>,
    tx_ports: &mut TxPorts<T>,
    (route, hop): (&TargetRoute, &NextHop),
    number: Option<u32>,
    mut packet: T::Buf,
) -> Result<(), NotForwarded<T::Buf>> {
    let frame = packet.bytes();
    let parsed = look(frame).map_err(NotForwarded::Drop)?;
    if route.counts_hop() && has_last_hop(frame) {
        return Err(NotForwarded::LastHop(packet));
    }
    let number = number.unwrap_or_else(|| entropy(&parsed));
    let size = parsed.end as usize - usize::from(parsed.l3);
    if size > usize::from(route.mtu) {
        return match Fragmenter::new(frame, &parsed, route.mtu) {
            Some(cut) => forward_in_parts(context, tx_ports, (route, hop), (&cut, number), packet),
            None if route.tells_mtu && icmp::must_not_be_cut(frame, &parsed) => {
                Err(NotForwarded::TooBig(packet, route.mtu))
            }
            None => Err(NotForwarded::Drop(Reason::TooBig)),
        };
    }
    rewrite(context, (route, hop), number, &mut packet, &parsed).map_err(NotForwarded::Drop)?;
    tx_ports
        .send(&context.shared.counters, hop.port, packet, Fate::Forward)
        .map_err(|_| NotForwarded::Drop(Reason::NoRoute))
}

/// Fragments a packet, as IPv4 requires of routers, so that a sender without path MTU discovery is served. The packet
/// becomes its own first fragment, whose fate is the packet's.
#[cold]
fn forward_in_parts<T: Tx>(
    context: &TurnContext<'_>,
    tx_ports: &mut TxPorts<T>,
    (route, hop): (&TargetRoute, &NextHop),
    (cut, number): (&Fragmenter, u32),
    mut packet: T::Buf,
) -> Result<(), NotForwarded<T::Buf>> {
    let mut buffer = [0; LONGEST_PART];
    for n in 1.. {
        let Some(length) = cut.write(packet.bytes(), n, &mut buffer) else { break };
        let part = tx_ports.make(hop.port, &buffer[..length]);
        let mut part = part.ok_or(NotForwarded::Drop(Reason::TxRefused))?;
        let parsed = look(part.bytes()).map_err(NotForwarded::Drop)?;
        rewrite(context, (route, hop), number, &mut part, &parsed).map_err(NotForwarded::Drop)?;
        tx_ports.send_part(&context.shared.counters, hop.port, part);
    }
    if !cut.keep_first(&mut packet) {
        return Err(NotForwarded::Drop(Reason::TooBig));
    }
    let parsed = look(packet.bytes()).map_err(NotForwarded::Drop)?;
    rewrite(context, (route, hop), number, &mut packet, &parsed).map_err(NotForwarded::Drop)?;
    tx_ports
        .send(&context.shared.counters, hop.port, packet, Fate::Forward)
        .map_err(|_| NotForwarded::Drop(Reason::NoRoute))
}

/// The longest frame of a fragment: the configuration's largest MTU, an Ethernet header and a tag.
const LONGEST_PART: usize = 9_600 + ethernet::HEADER + ethernet::VLAN_TAG;

fn look(frame: &[u8]) -> Result<Parsed, Reason> {
    match parse_plain(frame) {
        Some(parsed) => Ok(parsed),
        None => vipa_packet::parse(frame).map_err(Reason::Malformed),
    }
}

/// Applies the path's rewrite, the Ethernet header included, to a packet that fits the path's MTU.
fn rewrite(
    context: &TurnContext<'_>,
    (route, hop): (&TargetRoute, &NextHop),
    entropy: u32,
    packet: &mut impl PacketBuf,
    parsed: &Parsed,
) -> Result<(), Reason> {
    match route.via {
        ForwardingAction::Direct | ForwardingAction::Local => replace_ethernet_header(packet, parsed, hop),
        ForwardingAction::Tunnel { outer, how } => {
            let frame = packet.bytes_mut();
            if route.clamps_mss && opens(parsed) {
                clamp(context, frame, parsed, route.mtu);
            }
            if !vipa_packet::decrement_ttl(frame, parsed) {
                return Err(Reason::TimeToLive);
            }
            let wrapped = encapsulate(packet, parsed, &outer, how, entropy, &hop.link);
            if wrapped { Ok(()) } else { Err(Reason::TooBig) }
        }
        ForwardingAction::Nat { port } => {
            let frame = packet.bytes_mut();
            if !vipa_packet::decrement_ttl(frame, parsed) {
                return Err(Reason::TimeToLive);
            }
            if !translate(frame, parsed, route.address, port) {
                return Err(Reason::IpProtocol);
            }
            replace_ethernet_header(packet, parsed, hop)
        }
    }
}

/// Translates a packet to the VIPA into one to the target itself.
fn translate(frame: &mut [u8], parsed: &Parsed, target: IpAddr, port: Option<u16>) -> bool {
    let endpoint = |to: u16| endpoint(target, port.unwrap_or(to));
    match parsed.body {
        Body::Ipv4Icmp(icmp) => match icmp.message {
            vipa_packet::Icmp::Error { quoted, .. } => {
                nat::error_to_target(frame, parsed, endpoint(quoted.source_port))
            }
            _ => false,
        },
        Body::Ipv6Icmp(icmp) => match icmp.message {
            vipa_packet::Icmp6::Error { quoted, .. } => {
                nat::error_to_target(frame, parsed, endpoint(quoted.source_port))
            }
            _ => false,
        },
        Body::Ipv4Tcp(segment) => nat::to_target(frame, parsed, endpoint(segment.destination_port)),
        Body::Ipv6Tcp(segment) => nat::to_target(frame, parsed, endpoint(segment.destination_port)),
        Body::Ipv4Udp(datagram) => nat::to_target(frame, parsed, endpoint(datagram.destination_port)),
        Body::Ipv6Udp(datagram) => nat::to_target(frame, parsed, endpoint(datagram.destination_port)),
        Body::Ipv4Fragment(part) => {
            nat::to_target(frame, parsed, endpoint(part.head.map_or(0, |head| head.destination_port)))
        }
        Body::Ipv6Fragment(part) => {
            nat::to_target(frame, parsed, endpoint(part.head.map_or(0, |head| head.destination_port)))
        }
        Body::Ipv4Other { .. } | Body::Ipv6Other { .. } | Body::Arp(_) | Body::OtherEtherType(_) => false,
    }
}

/// Sends a packet of a `nat` target to the client, with the VIPA as its source.
#[inline(never)]
pub(crate) fn return_to_client<T: Tx>(
    context: &TurnContext<'_>,
    tx_ports: &mut TxPorts<T>,
    (vipa, vipa_port): (VipaId, u16),
    mut packet: T::Buf,
) -> Result<(), NotForwarded<T::Buf>> {
    let frame = packet.bytes_mut();
    let turned = InnerPacket::read(frame).and_then(|inner| {
        let client = address(inner.destination(frame)?);
        translate_back_plain(context, (vipa, vipa_port), (frame, &inner, client), None)
    });
    match turned {
        Some(port) => send_back(context, tx_ports, port, packet),
        None => return_any_to_client(context, tx_ports, (vipa, vipa_port), packet),
    }
}

/// Translates a plain packet back to the VIPA, prepared to leave for the client by `port`, if that is given; returns
/// the port by which it leaves. `None`, with nothing changed, if it needs more.
#[inline(always)]
fn translate_back_plain(
    context: &TurnContext<'_>,
    (vipa, vipa_port): (VipaId, u16),
    (frame, inner, client): (&mut [u8], &InnerPacket, IpAddr),
    port: Option<PortId>,
) -> Option<PortId> {
    let rewrite = context.routes.l2_rewrite_to(client, frame.len())?;
    if port.is_some_and(|port| port != rewrite.port) {
        return None;
    }
    let vipa = context.routes.vipa(vipa)?;
    if !nat::plain_from_target(frame, inner, endpoint(vipa.address, vipa_port)) {
        return None;
    }
    ethernet::rewrite_macs(frame, &rewrite.macs);
    Some(rewrite.port)
}

#[inline(always)]
fn send_back<T: Tx>(
    context: &TurnContext<'_>,
    tx_ports: &mut TxPorts<T>,
    port: PortId,
    packet: T::Buf,
) -> Result<(), NotForwarded<T::Buf>> {
    context.shared.counters.add(Count::Returned, 1);
    tx_ports
        .send(&context.shared.counters, port, packet, Fate::Forward)
        .map_err(|_| NotForwarded::Drop(Reason::NoRoute))
}

#[inline(never)]
fn return_any_to_client<T: Tx>(
    context: &TurnContext<'_>,
    tx_ports: &mut TxPorts<T>,
    (vipa, vipa_port): (VipaId, u16),
    mut packet: T::Buf,
) -> Result<(), NotForwarded<T::Buf>> {
    let frame = packet.bytes_mut();
    let parsed = look(frame).map_err(NotForwarded::Drop)?;
    if has_last_hop(frame) {
        return Err(NotForwarded::LastHop(packet));
    }
    let Some(vipa) = context.routes.vipa(vipa) else { return Err(NotForwarded::Drop(Reason::NoVipa)) };
    let Some(client) = destination(&parsed.body) else { return Err(NotForwarded::Drop(Reason::IpProtocol)) };
    let hop = match context.routes.hop(client) {
        Hop::Known(hop) => hop,
        Hop::Unknown(port, address) => {
            // A full mailbox counts what it refuses; the packet will be tried again.
            let _ = context.shared.notes.try_send(Note::Wanted { port, address });
            return Err(NotForwarded::Neighbour(packet));
        }
        Hop::None => return Err(NotForwarded::Drop(Reason::NoRoute)),
    };
    let mtu = context.routes.port(hop.port).map_or(u16::MAX, |port| port.mtu);
    if parsed.end as usize - usize::from(parsed.l3) > usize::from(mtu) {
        let told = icmp::must_not_be_cut(frame, &parsed);
        return Err(if told { NotForwarded::TooBig(packet, mtu) } else { NotForwarded::Drop(Reason::TooBig) });
    }
    if !vipa_packet::decrement_ttl(frame, &parsed) {
        return Err(NotForwarded::Drop(Reason::TimeToLive));
    }
    let source = endpoint(vipa.address, vipa_port);
    let rewritten = match parsed.body {
        Body::Ipv4Icmp(_) | Body::Ipv6Icmp(_) => nat::error_from_target(frame, &parsed, source),
        _ => nat::from_target(frame, &parsed, source),
    };
    if !rewritten {
        return Err(NotForwarded::Drop(Reason::IpProtocol));
    }
    replace_ethernet_header(&mut packet, &parsed, &hop).map_err(NotForwarded::Drop)?;
    send_back(context, tx_ports, hop.port, packet)
}

fn replace_ethernet_header(packet: &mut impl PacketBuf, parsed: &Parsed, hop: &NextHop) -> Result<(), Reason> {
    let (l3, link) = (usize::from(parsed.l3), &hop.link);
    let relinked = ethernet::ether_type(packet.bytes())
        .is_some_and(|(_, ether_type)| ethernet::replace_ethernet_header(packet, l3, ether_type, link));
    if relinked { Ok(()) } else { Err(Reason::TooBig) }
}

fn endpoint(address: IpAddr, port: u16) -> Endpoint {
    match address {
        IpAddr::V4(address) => Endpoint::V4(address.to_bits(), port),
        IpAddr::V6(address) => Endpoint::V6(address.to_bits(), port),
    }
}

fn address(endpoint: Endpoint) -> IpAddr {
    match endpoint {
        Endpoint::V4(address, _) => IpAddr::V4(address.into()),
        Endpoint::V6(address, _) => IpAddr::V6(address.into()),
    }
}

fn destination(body: &Body) -> Option<IpAddr> {
    let v4 = |address: u32| Some(IpAddr::V4(address.into()));
    let v6 = |address: u128| Some(IpAddr::V6(address.into()));
    match *body {
        Body::Ipv4Tcp(segment) => v4(segment.destination),
        Body::Ipv4Udp(datagram) => v4(datagram.destination),
        Body::Ipv4Icmp(icmp) => v4(icmp.destination),
        Body::Ipv4Fragment(part) => v4(part.destination),
        Body::Ipv4Other { destination, .. } => v4(destination),
        Body::Ipv6Tcp(segment) => v6(segment.destination),
        Body::Ipv6Udp(datagram) => v6(datagram.destination),
        Body::Ipv6Icmp(icmp) => v6(icmp.destination),
        Body::Ipv6Fragment(part) => v6(part.destination),
        Body::Ipv6Other { destination, .. } => v6(destination),
        Body::Arp(_) | Body::OtherEtherType(_) => None,
    }
}

fn opens(parsed: &Parsed) -> bool {
    match parsed.body {
        Body::Ipv4Tcp(segment) => segment.flags.has(TcpFlags::SYN),
        Body::Ipv6Tcp(segment) => segment.flags.has(TcpFlags::SYN),
        _ => false,
    }
}

/// Clamps the MSS: a segment of this size, with headers without options, fills the path's MTU (RFC 6691 §2).
fn clamp(context: &TurnContext<'_>, frame: &mut [u8], parsed: &Parsed, mtu: u16) {
    let headers = if matches!(parsed.body, Body::Ipv6Tcp(_)) { 60 } else { 40 };
    if tcp::clamp_mss(frame, parsed, mtu.saturating_sub(headers)) {
        context.shared.counters.add(Count::MssClamped, 1);
    }
}

#[inline(always)]
fn mix(address: u64, ports: u32) -> u32 {
    let word = (address ^ u64::from(ports) << 16).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word >> 32) as u32
}

/// Entropy for the outer header: the same number for all packets of a connection, and spread over all connections. No
/// secret: it selects one of several paths of equal cost. An ICMP error has that of the connection it is about. A later
/// fragment does not name its connection, so it has that of its first fragment.
pub(crate) fn entropy(parsed: &Parsed) -> u32 {
    match parsed.body {
        Body::Ipv4Tcp(s) => entropy_of(s.source.into(), s.source_port, s.destination_port),
        Body::Ipv4Udp(s) => entropy_of(s.source.into(), s.source_port, s.destination_port),
        Body::Ipv6Tcp(s) => entropy_of(s.source, s.source_port, s.destination_port),
        Body::Ipv6Udp(s) => entropy_of(s.source, s.source_port, s.destination_port),
        Body::Ipv4Fragment(part) => entropy_of_part(part.source.into(), part.identification, part.head),
        Body::Ipv6Fragment(part) => entropy_of_part(part.source, part.identification, part.head),
        // The packet that an error quotes goes from the VIPA to the client.
        Body::Ipv4Icmp(Ipv4Icmp { message: Icmp::Error { quoted, .. }, .. }) => {
            entropy_of(quoted.destination.into(), quoted.destination_port, quoted.source_port)
        }
        Body::Ipv6Icmp(Ipv6Icmp { message: Icmp6::Error { quoted, .. }, .. }) => {
            entropy_of(quoted.destination, quoted.destination_port, quoted.source_port)
        }
        _ => 0,
    }
}

/// Entropy of a connection of this client and these ports; an IPv4 address is the low 32 bits.
pub(crate) fn entropy_of(client: u128, client_port: u16, vipa_port: u16) -> u32 {
    mix((client >> 64) as u64 ^ client as u64, u32::from(client_port) << 16 | u32::from(vipa_port))
}

fn entropy_of_part(client: u128, identification: u32, head: Option<FragmentHead>) -> u32 {
    match head {
        Some(head) => entropy_of(client, head.source_port, head.destination_port),
        None => mix((client >> 64) as u64 ^ client as u64, identification),
    }
}
