//! ICMPv6 (RFC 4443): answers pings, reads whose packet an error message is about, and says that one is too big.

use crate::{
    ICMP6, Malformed, PacketBuf, Parsed, TCP, UDP,
    checksum::{self, Sum},
    ethernet::{self, MacAddress},
    icmp::{Quoted, TTL},
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
pub const ECHO_REQUEST: u8 = 128;
pub const ECHO_REPLY: u8 = 129;

/// Longest error message (RFC 4443 §2.4 c): the smallest MTU of IPv6.
const LONGEST_ERROR: usize = 1280;
const IPV6_HEADER: usize = 40;

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

/// Turns the echo request that `parsed` found in `frame` into its reply. The checksum is updated, not recomputed, so a
/// request damaged on its way stays recognisably damaged.
///
/// False, and nothing changed, when it is not an echo request, or when it has extension headers, which are not ours to send
/// back.
#[must_use]
pub fn echo_reply(frame: &mut [u8], parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let Body::Ipv6Icmp(Ipv6Icmp { source, destination, message: Icmp6::EchoRequest }) = parsed.body else {
        return false;
    };
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    if l4 - l3 != IPV6_HEADER || destination >> 120 == 0xff {
        return false;
    }
    let Some(headers) = frame.get_mut(l3..).and_then(|packet| packet.first_chunk_mut::<48>()) else { return false };
    headers[7] = TTL;
    headers[8..24].copy_from_slice(&destination.to_be_bytes());
    headers[24..40].copy_from_slice(&source.to_be_bytes());
    let (old, new) = (u16::from_be_bytes([headers[40], headers[41]]), u16::from_be_bytes([ECHO_REPLY, headers[41]]));
    let sum = u16::from_be_bytes([headers[42], headers[43]]);
    headers[40] = ECHO_REPLY;
    headers[42..44].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
    ethernet::turn_round(frame, our_mac);
    true
}

/// Turns a packet into word to its sender that nothing above `mtu` bytes passes (RFC 4443 §3.2), as from the packet's
/// destination. False, and nothing changed, for an ICMPv6 error, a packet to a group, or without headroom.
#[must_use]
pub fn too_big(packet: &mut impl PacketBuf, parsed: &Parsed, mtu: u16, our_mac: &MacAddress) -> bool {
    let (source, destination) = match parsed.body {
        Body::Ipv6Tcp(segment) => (segment.source, segment.destination),
        Body::Ipv6Udp(datagram) => (datagram.source, datagram.destination),
        Body::Ipv6Fragment(part) => (part.source, part.destination),
        Body::Ipv6Icmp(Ipv6Icmp { source, destination, message: Icmp6::EchoRequest }) => (source, destination),
        _ => return false,
    };
    if destination >> 120 == 0xff {
        return false;
    }
    const HEADERS: usize = IPV6_HEADER + HEADER;
    let l3 = usize::from(parsed.l3);
    let quoted = (parsed.end as usize - l3).min(LONGEST_ERROR - HEADERS);
    let mut link = [0; ethernet::HEADER + ethernet::VLAN_TAG];
    let Some(link) = link.get_mut(..l3) else { return false };
    link.copy_from_slice(&packet.bytes()[..l3]);
    if packet.headroom() < HEADERS || !packet.truncate(l3 + quoted) || packet.prepend(HEADERS).is_none() {
        return false;
    }
    let frame = packet.bytes_mut();
    frame[..l3].copy_from_slice(link);
    let (headers, quote) = frame[l3..].split_at_mut(HEADERS);
    headers.fill(0);
    let (ip, icmp) = headers.split_at_mut(IPV6_HEADER);
    ip[0] = 0x60;
    let length = (HEADER + quoted) as u16;
    ip[4..6].copy_from_slice(&length.to_be_bytes());
    (ip[6], ip[7]) = (ICMP6, TTL);
    ip[8..24].copy_from_slice(&destination.to_be_bytes());
    ip[24..40].copy_from_slice(&source.to_be_bytes());
    icmp[0] = PACKET_TOO_BIG;
    icmp[4..8].copy_from_slice(&u32::from(mtu).to_be_bytes());
    let sum = sum_of(destination, source, length).bytes(icmp).bytes(quote).checksum();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ethernet::turn_round(frame, our_mac);
    true
}

/// What an ICMPv6 message's checksum begins with (RFC 4443 §2.3).
pub(crate) fn sum_of(source: u128, destination: u128, length: u16) -> Sum {
    checksum::pseudo_header6(source, destination, ICMP6, length)
}

#[cfg(test)]
mod tests;
