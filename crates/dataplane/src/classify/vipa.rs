//! Packets to a VIPA, packets that return from a `nat` target, and fragments of both.

use std::net::IpAddr;

use vipa_flow::{Key4, Key6};
use vipa_handoff::{LocalReply, Reason, ReturnRoute, Routes};
use vipa_model::{Protocol, Stance, VipaId};
use vipa_packet::{
    Fragment, FragmentHead, ICMP, ICMP6, Icmp, Icmp6, Ipv4Icmp, Ipv6Icmp, PacketBuf, Quoted, TCP, Tcp, TcpFlags, UDP,
    Udp,
};

use super::Ingress;
use crate::{
    TurnContext,
    batch::{Batch, BatchFamily, Kind, Verdict},
    family::{Family, Parts},
    fragments::{FirstPart, FragmentKey, Fragments, Span},
    path::entropy_of,
};

/// An address of either family, as packets carry it.
pub(super) trait Addressed: Copy {
    type Key: Parts<Self> + BatchFamily;
    fn find_vipa(routes: &Routes, address: Self) -> Option<VipaId>;
    fn returns(routes: &Routes, address: Self) -> &[ReturnRoute];
    /// Whether it is this router's own address, whose pings are answered here and not by the kernel.
    fn is_pinged_at(self, context: &TurnContext<'_>, at: Ingress<'_>) -> bool;
    fn wide(self) -> u128;
}

impl Addressed for u32 {
    type Key = Key4;

    #[inline(always)]
    fn find_vipa(routes: &Routes, address: Self) -> Option<VipaId> {
        routes.find_vipa(address)
    }

    #[inline(always)]
    fn returns(routes: &Routes, address: Self) -> &[ReturnRoute] {
        routes.returns(address)
    }

    fn is_pinged_at(self, _context: &TurnContext<'_>, at: Ingress<'_>) -> bool {
        self == at.route.address.to_bits() && at.route.kernel.is_none()
    }

    fn wide(self) -> u128 {
        u128::from(self)
    }
}

impl Addressed for u128 {
    type Key = Key6;

    #[inline(always)]
    fn find_vipa(routes: &Routes, address: Self) -> Option<VipaId> {
        routes.find_vipa6(address)
    }

    #[inline(always)]
    fn returns(routes: &Routes, address: Self) -> &[ReturnRoute] {
        routes.returns6(address)
    }

    fn is_pinged_at(self, context: &TurnContext<'_>, at: Ingress<'_>) -> bool {
        at.route.kernel.is_none() && context.routes.is_own(IpAddr::V6(self.into()))
    }

    fn wide(self) -> u128 {
        self
    }
}

/// A packet with ports.
pub(super) trait VipaPacket: Sized {
    /// Begins the lookup of the connection if the packet is to a VIPA.
    fn to_vipa(&self, context: &TurnContext<'_>, batch: &mut Batch) -> Option<Verdict>;

    /// Begins the lookup of the connection if the packet is from a `nat` target, with the target's own address.
    fn look_up_return(&self, context: &TurnContext<'_>, batch: &mut Batch) -> Option<Verdict>;

    #[inline]
    fn classify(&self, context: &TurnContext<'_>, batch: &mut Batch) -> Option<Verdict> {
        self.to_vipa(context, batch).or_else(|| self.look_up_return(context, batch))
    }
}

impl<A: Addressed> VipaPacket for Tcp<A> {
    #[inline(always)]
    fn to_vipa(&self, context: &TurnContext<'_>, batch: &mut Batch) -> Option<Verdict> {
        let vipa = A::find_vipa(context.routes, self.destination)?;
        if self.flags.opens() && !batch.may_open() {
            return Some(Verdict::drop(Reason::Overload));
        }
        let key = A::Key::of(self.source, self.source_port, vipa, self.destination_port, Protocol::Tcp);
        Some(batch.look_up(context.flows, key, Kind::Segment(self.flags)))
    }

    #[inline(always)]
    fn look_up_return(&self, context: &TurnContext<'_>, batch: &mut Batch) -> Option<Verdict> {
        let ends = (self.source, self.source_port, self.destination, self.destination_port);
        returned(context, batch, Protocol::Tcp, ends, Some(self.flags))
    }
}

impl<A: Addressed> VipaPacket for Udp<A> {
    #[inline]
    fn to_vipa(&self, context: &TurnContext<'_>, batch: &mut Batch) -> Option<Verdict> {
        let vipa = A::find_vipa(context.routes, self.destination)?;
        let key = A::Key::of(self.source, self.source_port, vipa, self.destination_port, Protocol::Udp);
        Some(batch.look_up(context.flows, key, Kind::Datagram))
    }

    #[inline]
    fn look_up_return(&self, context: &TurnContext<'_>, batch: &mut Batch) -> Option<Verdict> {
        let ends = (self.source, self.source_port, self.destination, self.destination_port);
        returned(context, batch, Protocol::Udp, ends, None)
    }
}

/// Begins the lookup of the connection that a packet from (source, port) to (client, port) answers.
#[inline(always)]
fn returned<A: Addressed>(
    context: &TurnContext<'_>,
    batch: &mut Batch,
    protocol: Protocol,
    (source, source_port, client, client_port): (A, u16, A, u16),
    flags: Option<TcpFlags>,
) -> Option<Verdict> {
    let mut routes = A::returns(context.routes, source)
        .iter()
        .filter_map(move |route| Some((route, route.port_on_vipa(protocol, source_port)?)));
    let key = move |(route, port): (&ReturnRoute, u16)| A::Key::of(client, client_port, route.vipa, port, protocol);
    let first = routes.next()?;
    let chosen = match routes.next() {
        None => first,
        Some(second) => held_one(context, [first, second].into_iter().chain(routes), key).unwrap_or(first),
    };
    Some(batch.look_up(context.flows, key(chosen), Kind::Return(chosen.0.target, flags)))
}

/// Of several VIPAs on one port of a target, the one whose connection is in the table: the target itself could not
/// distinguish two.
#[inline(never)]
fn held_one<'r, K: Family>(
    context: &TurnContext<'_>,
    mut routes: impl Iterator<Item = (&'r ReturnRoute, u16)>,
    key: impl Fn((&'r ReturnRoute, u16)) -> K,
) -> Option<(&'r ReturnRoute, u16)> {
    let table = K::table(context.flows);
    routes.find(|one| table.lookup(&key(*one)).is_some_and(|hit| hit.target == one.0.target))
}

/// ICMP to a VIPA, to us, or about a packet that was sent to a `nat` target.
pub(super) fn icmp4(context: &TurnContext<'_>, at: Ingress<'_>, icmp: &Ipv4Icmp, batch: &mut Batch) -> Option<Verdict> {
    let vipa = context.routes.find_vipa(icmp.destination);
    match (vipa, icmp.message) {
        (Some(vipa), Icmp::EchoRequest) => Some(ping(context, vipa)),
        (None, Icmp::EchoRequest) if icmp.destination.is_pinged_at(context, at) => {
            Some(Verdict::Answer(LocalReply::IcmpEcho))
        }
        (Some(vipa), Icmp::Error { quoted, .. }) if quoted.source == icmp.destination => {
            Some(batch.look_up(context.flows, quoted_by_client(vipa, &quoted), Kind::Error))
        }
        (Some(_), _) => Some(Verdict::drop(Reason::Icmp)),
        (None, Icmp::Error { quoted, .. }) if quoted.source == icmp.destination => {
            quoted_by_target(context, &quoted, batch)
        }
        (None, _) => None,
    }
}

/// [`icmp4`] for IPv6.
pub(super) fn icmp6(context: &TurnContext<'_>, at: Ingress<'_>, icmp: &Ipv6Icmp, batch: &mut Batch) -> Option<Verdict> {
    let vipa = context.routes.find_vipa6(icmp.destination);
    match (vipa, icmp.message) {
        (Some(vipa), Icmp6::EchoRequest) => Some(ping(context, vipa)),
        (None, Icmp6::EchoRequest) if icmp.destination.is_pinged_at(context, at) => {
            Some(Verdict::Answer(LocalReply::IcmpEcho))
        }
        (Some(vipa), Icmp6::Error { quoted, .. }) if quoted.source == icmp.destination => {
            Some(batch.look_up(context.flows, quoted_by_client(vipa, &quoted), Kind::Error))
        }
        (Some(_), _) => Some(Verdict::drop(Reason::Icmp)),
        (None, Icmp6::Error { quoted, .. }) if quoted.source == icmp.destination => {
            quoted_by_target(context, &quoted, batch)
        }
        (None, _) => None,
    }
}

fn ping(context: &TurnContext<'_>, vipa: VipaId) -> Verdict {
    match context.routes.vipa(vipa) {
        None => Verdict::drop(Reason::NoVipa),
        Some(vipa) if vipa.stance == Stance::Standby => Verdict::drop(Reason::Standby),
        Some(vipa) if vipa.lease.passed(context.now) => Verdict::drop(Reason::Fenced),
        Some(_) => Verdict::Answer(LocalReply::IcmpEcho),
    }
}

fn protocol_of(number: u8) -> Protocol {
    if number == vipa_packet::UDP { Protocol::Udp } else { Protocol::Tcp }
}

/// The connection that an ICMP error to a VIPA is about: the VIPA sent the quoted packet to the client.
fn quoted_by_client<A: Addressed>(vipa: VipaId, quoted: &Quoted<A>) -> A::Key {
    let protocol = protocol_of(quoted.protocol);
    A::Key::of(quoted.destination, quoted.destination_port, vipa, quoted.source_port, protocol)
}

/// An ICMP error to a client about a packet that we forwarded to a `nat` target.
fn quoted_by_target<A: Addressed>(context: &TurnContext<'_>, quoted: &Quoted<A>, batch: &mut Batch) -> Option<Verdict> {
    let ends = (quoted.destination, quoted.destination_port, quoted.source, quoted.source_port);
    returned(context, batch, protocol_of(quoted.protocol), ends, None)
}

/// A fragment. The first one names the connection, or begins a ping; the later ones follow it.
pub(super) fn part<A: Addressed, B: PacketBuf>(
    context: &TurnContext<'_>,
    at: Ingress<'_>,
    fragment: &Fragment<A>,
    payload: usize,
    (fragments, batch): (&mut Fragments<B, Verdict>, &mut Batch),
) -> Option<Verdict> {
    let vipa = A::find_vipa(context.routes, fragment.destination);
    let is_icmp = matches!(fragment.protocol, ICMP | ICMP6);
    let to_us = vipa.is_none() && is_icmp && fragment.destination.is_pinged_at(context, at);
    if vipa.is_none() && !to_us && (is_icmp || A::returns(context.routes, fragment.source).is_empty()) {
        return None;
    }
    let (key, span) = (fragment_key(fragment), Span::of(fragment.offset, payload));
    if span.start > 0 {
        return Some(match fragments.find(&key, span, context.now) {
            Some(Ok(verdict)) => verdict,
            Some(Err(reason)) => Verdict::drop(reason),
            None => Verdict::HoldFragment,
        });
    }
    let Some(FragmentHead { source_port, destination_port, flags }) = fragment.head else {
        return match (vipa, fragment.protocol) {
            _ if fragment.is_echo_request => {
                batch.note_first(FirstPart { key, end: span.end, entropy: 0 });
                Some(vipa.map_or(Verdict::Answer(LocalReply::IcmpEcho), |vipa| ping(context, vipa)))
            }
            (_, TCP | UDP) => Some(Verdict::drop(Reason::FragmentBad)),
            (Some(_), ICMP | ICMP6) => Some(Verdict::drop(Reason::Icmp)),
            (Some(_), _) => Some(Verdict::drop(Reason::IpProtocol)),
            (None, _) => None,
        };
    };
    let Fragment { source, destination, .. } = *fragment;
    let entropy = entropy_of(source.wide(), source_port, destination_port);
    batch.note_first(FirstPart { key, end: span.end, entropy });
    match flags {
        Some(flags) => Tcp { source, destination, source_port, destination_port, flags }.classify(context, batch),
        None => Udp { source, destination, source_port, destination_port }.classify(context, batch),
    }
}

pub(crate) fn fragment_key<A: Addressed>(fragment: &Fragment<A>) -> FragmentKey {
    FragmentKey {
        source: fragment.source.wide(),
        destination: fragment.destination.wide(),
        identification: fragment.identification,
        protocol: fragment.protocol,
    }
}
