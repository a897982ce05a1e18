//! ICMPv6 (RFC 4443): answers pings, reads whose packet an error message is about, and says that one is too big.

use crate::{
    ICMP6, Malformed, PacketBuf, Parsed, TCP, UDP,
    checksum::{self, Sum},
    ethernet::{self, MacAddress},
    icmp::{Quoted, TTL},
    icmp_error::{ErrorMessage, replace_by_error},
    nd::{self, Advertisement, Solicitation},
    parse::{Body, Chain, addresses6, walk_ipv6},
    view,
};

/// Bytes of an ICMPv6 header.
pub const HEADER: usize = 8;

pub const UNREACHABLE: u8 = 1;
pub const PACKET_TOO_BIG: u8 = 2;
pub const TIME_EXCEEDED: u8 = 3;
pub const PARAMETER_PROBLEM: u8 = 4;
/// Code of [`UNREACHABLE`]: nobody has bound the port.
pub const PORT_UNREACHABLE: u8 = 4;
/// Code of [`TIME_EXCEEDED`]: at a router.
const IN_TRANSIT: u8 = 0;
pub const ECHO_REQUEST: u8 = 128;
pub const ECHO_REPLY: u8 = 129;

/// Longest error message (RFC 4443 §2.4 c): the smallest MTU of IPv6.
const LONGEST_ERROR: usize = 1280;
const IPV6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;

/// An ICMPv6 message in an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Icmp {
    pub source: u128,
    pub destination: u128,
    pub message: Icmp6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp6 {
    EchoRequest,
    /// Unreachable, too big, time exceeded or parameter problem, and the packet it is about.
    Error {
        kind: u8,
        code: u8,
        quoted: Quoted<u128>,
    },
    Solicitation(Solicitation),
    Advertisement(Advertisement),
    /// Anything else: other types, and errors about a packet without ports.
    Other(u8),
}

/// Reads an ICMPv6 message, from the first byte of its header to the end of the packet.
pub(crate) fn read(message: &[u8], source: u128, destination: u128, hop_limit: u8) -> Result<Icmp6, Malformed> {
    let [kind, code, _, _, _, _, _, _, quote @ ..] = message else { return Err(Malformed::Icmp6TooShort) };
    match *kind {
        ECHO_REQUEST if *code == 0 => Ok(Icmp6::EchoRequest),
        UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM => match read_quote(quote) {
            Ok(Some(quoted)) => Ok(Icmp6::Error { kind: *kind, code: *code, quoted }),
            Ok(None) => Ok(Icmp6::Other(*kind)),
            Err(()) => Err(Malformed::Icmp6Quote),
        },
        nd::SOLICITATION | nd::ADVERTISEMENT => nd::read(message, source, destination, hop_limit),
        other => Ok(Icmp6::Other(other)),
    }
}

/// Whether the first part of a message begins an echo request.
pub(crate) fn is_echo_request(message: &[u8]) -> bool {
    message.first_chunk::<HEADER>().is_some_and(|header| header[..2] == [ECHO_REQUEST, 0])
}

/// The quoted packet's ends; `None` when it has no ports, `Err` when it is cut before them. Its hop limit and length are as
/// the quoting router saw them, so neither is checked.
fn read_quote(quote: &[u8]) -> Result<Option<Quoted<u128>>, ()> {
    let header: &[u8; IPV6_HEADER] = quote.first_chunk().ok_or(())?;
    if header[0] >> 4 != 6 {
        return Err(());
    }
    let (source, destination) = addresses6(header);
    let Chain { protocol, at, part } = walk_ipv6(quote).map_err(|_| ())?;
    if !matches!(protocol, TCP | UDP) || part.is_some_and(|part| part.offset != 0) {
        return Ok(None);
    }
    match (view::u16_at(quote, at), view::u16_at(quote, at + 2)) {
        (Some(source_port), Some(destination_port)) => {
            Ok(Some(Quoted { source, destination, protocol, source_port, destination_port }))
        }
        _ => Err(()),
    }
}

/// Turns the echo request that `parsed` found into its reply, or a part of one into that part of its reply. The checksum is
/// updated, not recomputed: so a request damaged on its way stays recognisably damaged, and no part needs the others. A whole
/// request's extension headers are taken away: they ask for something on the way here.
///
/// False, and nothing changed, when it is no echo request, or a part with extension headers beside its fragment header. Of a
/// later part the caller knows that it belongs to an echo request.
#[must_use]
pub fn echo_reply(packet: &mut impl PacketBuf, parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let (source, destination, whole, has_icmp_header) = match parsed.body {
        Body::Ipv6Icmp(Ipv6Icmp { source, destination, message: Icmp6::EchoRequest }) => {
            (source, destination, true, true)
        }
        Body::Ipv6Fragment(part) if part.protocol == ICMP6 && (part.offset > 0 || part.is_echo_request) => {
            (part.source, part.destination, false, part.offset == 0)
        }
        _ => return false,
    };
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let Some(extensions) = l4.checked_sub(l3 + IPV6_HEADER) else { return false };
    if destination >> 120 == 0xff
        || !(whole || extensions == FRAGMENT_HEADER)
        || !has_bytes(packet, l4, has_icmp_header)
    {
        return false;
    }
    let kept = if whole { 0 } else { extensions };
    let mut headers = [0; ethernet::HEADER + ethernet::VLAN_TAG + IPV6_HEADER];
    let Some(headers) = headers.get_mut(..l3 + IPV6_HEADER) else { return false };
    headers.copy_from_slice(&packet.bytes()[..l3 + IPV6_HEADER]);
    if !packet.trim_front(extensions - kept) {
        return false;
    }
    let length = (parsed.end as usize - l4 + kept) as u16;
    let ip = &mut headers[l3..];
    ip[4..6].copy_from_slice(&length.to_be_bytes());
    if whole {
        ip[6] = ICMP6;
    }
    ip[7] = TTL;
    ip[8..24].copy_from_slice(&destination.to_be_bytes());
    ip[24..40].copy_from_slice(&source.to_be_bytes());
    let frame = packet.bytes_mut();
    frame[..headers.len()].copy_from_slice(headers);
    if has_icmp_header && let Some(icmp) = frame.get_mut(headers.len() + kept..) {
        let (old, new) = (u16::from_be_bytes([icmp[0], icmp[1]]), u16::from_be_bytes([ECHO_REPLY, icmp[1]]));
        let sum = u16::from_be_bytes([icmp[2], icmp[3]]);
        icmp[0] = ECHO_REPLY;
        icmp[2..4].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
    }
    ethernet::return_to_sender(frame, our_mac);
    true
}

/// Whether a packet has an ICMPv6 header at `l4`, where it must have one.
fn has_bytes(packet: &impl PacketBuf, l4: usize, has_icmp_header: bool) -> bool {
    packet.bytes().len() >= l4 + if has_icmp_header { HEADER } else { 0 }
}

/// Turns a packet into an error message to its sender: nothing above `mtu` bytes passes (RFC 4443 §3.2). It comes from the packet's
/// destination, the end that the sender knows. False as in [`error`].
#[must_use]
pub fn too_big(packet: &mut impl PacketBuf, parsed: &Parsed, mtu: u16, our_mac: &MacAddress) -> bool {
    let Some((_, source)) = ends(&parsed.body) else { return false };
    error(packet, parsed, &ErrorMessage { kind: PACKET_TOO_BIG, code: 0, rest: u32::from(mtu), source }, our_mac)
}

/// The same: the packet's hop limit has ended here (RFC 4443 §3.3). It comes from `our_address`, or, without one, from the
/// packet's destination.
#[must_use]
pub fn time_exceeded(
    packet: &mut impl PacketBuf,
    parsed: &Parsed,
    our_address: Option<u128>,
    our_mac: &MacAddress,
) -> bool {
    let Some((_, destination)) = ends(&parsed.body) else { return false };
    let source = our_address.unwrap_or(destination);
    error(packet, parsed, &ErrorMessage { kind: TIME_EXCEEDED, code: IN_TRANSIT, rest: 0, source }, our_mac)
}

/// The same: nobody has bound the datagram's port (RFC 4443 §3.1). It comes from the datagram's destination.
#[must_use]
pub fn port_unreachable(packet: &mut impl PacketBuf, parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let Some((_, source)) = ends(&parsed.body) else { return false };
    error(packet, parsed, &ErrorMessage { kind: UNREACHABLE, code: PORT_UNREACHABLE, rest: 0, source }, our_mac)
}

/// Source and destination of a packet that may be answered with an error message: no ICMPv6 error and no packet to a group
/// (RFC 4443 §2.4 e).
fn ends(body: &Body) -> Option<(u128, u128)> {
    let (source, destination) = match *body {
        Body::Ipv6Tcp(segment) => (segment.source, segment.destination),
        Body::Ipv6Udp(datagram) => (datagram.source, datagram.destination),
        Body::Ipv6Fragment(part) => (part.source, part.destination),
        Body::Ipv6Icmp(Ipv6Icmp { source, destination, message: Icmp6::EchoRequest }) => (source, destination),
        _ => return None,
    };
    (destination >> 120 != 0xff).then_some((source, destination))
}

/// Turns a packet into an error message about it. False, and nothing changed, when it may not have one, or without headroom.
fn error(packet: &mut impl PacketBuf, parsed: &Parsed, message: &ErrorMessage<u128>, our_mac: &MacAddress) -> bool {
    let Some((sender, _)) = ends(&parsed.body) else { return false };
    const HEADERS: usize = IPV6_HEADER + HEADER;
    replace_by_error(packet, parsed, LONGEST_ERROR, our_mac, |headers: &mut [u8; HEADERS], quote| {
        let (ip, icmp) = headers.split_at_mut(IPV6_HEADER);
        ip[0] = 0x60;
        let length = (HEADER + quote.len()) as u16;
        ip[4..6].copy_from_slice(&length.to_be_bytes());
        (ip[6], ip[7]) = (ICMP6, TTL);
        ip[8..24].copy_from_slice(&message.source.to_be_bytes());
        ip[24..40].copy_from_slice(&sender.to_be_bytes());
        (icmp[0], icmp[1]) = (message.kind, message.code);
        icmp[4..8].copy_from_slice(&message.rest.to_be_bytes());
        let sum = sum_of(message.source, sender, length).bytes(icmp).bytes(quote).checksum();
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    })
}

/// What an ICMPv6 message's checksum begins with (RFC 4443 §2.3).
pub(crate) fn sum_of(source: u128, destination: u128, length: u16) -> Sum {
    checksum::pseudo_header6(source, destination, ICMP6, length)
}

#[cfg(test)]
mod tests;
