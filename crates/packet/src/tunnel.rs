//! Packets wrapped for a target: IP in IP (RFC 2003, RFC 2473, RFC 4213), GRE (RFC 2784), GUE (draft-ietf-intarea-gue).
//!
//! ```text
//! Ethernet │ outer IPv4 or IPv6 │ nothing, GRE 4, or UDP 8 + GUE 4 │ inner packet as it came, from its IP header on
//! ```

mod headers;

use crate::{
    PacketBuf, Parsed, UDP,
    checksum::Sum,
    ethernet::{self, EthernetHeader, TYPE_IPV4, TYPE_IPV6},
    icmp::TTL,
    parse::Body,
    view,
};

pub use headers::{InnerPacket, TunnelHeaders};

/// IP protocol number of an IPv4 packet inside another.
pub(crate) const IPV4_INSIDE: u8 = 4;
/// IP protocol number of an IPv6 packet inside another.
pub(crate) const IPV6_INSIDE: u8 = 41;
/// IP protocol number of GRE.
pub(crate) const GRE: u8 = 47;

/// Ends of a tunnel, numeric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEndpoints {
    V4 { source: u32, destination: u32 },
    V6 { source: u128, destination: u128 },
}

/// What stands between outer and inner header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    Ipip,
    Gre,
    /// In UDP to this port.
    Gue {
        port: u16,
    },
}

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const GRE_HEADER: usize = 4;
const UDP_HEADER: usize = 8;
const GUE_HEADER: usize = 4;
/// A tagged Ethernet header and the longest of what follows.
const MOST: usize = ethernet::HEADER + ethernet::VLAN_TAG + IPV6_HEADER + UDP_HEADER + GUE_HEADER;

impl Encapsulation {
    /// Bytes that a packet grows by.
    #[must_use]
    pub const fn overhead(self, outer_is_ipv6: bool) -> usize {
        (if outer_is_ipv6 { IPV6_HEADER } else { IPV4_HEADER }) + self.shim()
    }

    const fn shim(self) -> usize {
        match self {
            Self::Ipip => 0,
            Self::Gre => GRE_HEADER,
            Self::Gue { .. } => UDP_HEADER + GUE_HEADER,
        }
    }
}

/// Wraps the packet that `parsed` found: padding and Ethernet header go, outer headers and `link` come. `entropy`, alike for
/// all packets of a connection, spreads connections over paths and queues: as GUE's source port (RFC 6335 §6 dynamic range) and
/// IPv6's flow label (RFC 6438).
///
/// DSCP and ECN are copied outwards (RFC 2983 §4.1, RFC 6040 §4.1 normal mode). Outer IPv4 says "do not fragment": the
/// inner packet's size has been checked against the way. GUE's UDP checksum is zero, over IPv6 too (RFC 6935, RFC 6936 §4): the
/// inner packet has its own, and a packet that goes astray is one that the target's list of routers refuses.
///
/// False, and nothing changed, when there is no IP packet or not enough headroom.
#[inline]
#[must_use]
pub fn encapsulate(
    packet: &mut impl PacketBuf,
    parsed: &Parsed,
    outer: &TunnelEndpoints,
    encapsulation: Encapsulation,
    entropy: u32,
    link: &EthernetHeader,
) -> bool {
    let (l3, end) = (usize::from(parsed.l3), parsed.end as usize);
    let Some(&[first, second]) = view::chunk::<2>(packet.bytes(), l3) else { return false };
    if matches!(parsed.body, Body::Arp(_) | Body::OtherEtherType(_)) {
        return false;
    }
    let (inside, ether_type, traffic_class) = match first >> 4 {
        4 => (IPV4_INSIDE, TYPE_IPV4, second),
        6 => (IPV6_INSIDE, TYPE_IPV6, first << 4 | second >> 4),
        _ => return false,
    };
    let outer_is_ipv6 = matches!(outer, TunnelEndpoints::V6 { .. });
    let headers = link.length() + encapsulation.overhead(outer_is_ipv6);
    if packet.headroom() + l3 < headers
        || end < l3
        || end - l3 + encapsulation.overhead(outer_is_ipv6) > usize::from(u16::MAX)
    {
        return false;
    }
    let payload = encapsulation.shim() + end - l3;
    let mut room = [0; MOST];
    let written = &mut room[..headers];
    write_headers(written, outer, encapsulation, link, (inside, ether_type), traffic_class, payload, entropy);
    ethernet::set_priority(written, ethernet::priority(packet.bytes()));
    // Neither can fail: the packet ends at or after `end`, and the headroom was looked at.
    if !packet.truncate(end) || !packet.trim_front(l3) {
        return false;
    }
    match packet.prepend(headers) {
        Some(place) => {
            place.copy_from_slice(written);
            true
        }
        None => false,
    }
}

/// All that goes before the inner packet; `written` has its length and is zero. `payload` counts from the outer IP header's end.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "each header has its own")]
fn write_headers(
    written: &mut [u8],
    outer: &TunnelEndpoints,
    encapsulation: Encapsulation,
    link: &EthernetHeader,
    (inside, ether_type): (u8, u16),
    traffic_class: u8,
    payload: usize,
    entropy: u32,
) {
    let (ethernet, rest) = written.split_at_mut(link.length());
    let protocol = match encapsulation {
        Encapsulation::Ipip => inside,
        Encapsulation::Gre => GRE,
        Encapsulation::Gue { .. } => UDP,
    };
    let shim = match *outer {
        TunnelEndpoints::V4 { source, destination } => {
            link.write(ethernet, TYPE_IPV4);
            let (ip, shim) = rest.split_at_mut(IPV4_HEADER);
            write_ipv4(ip, (source, destination), protocol, traffic_class, payload);
            shim
        }
        TunnelEndpoints::V6 { source, destination } => {
            link.write(ethernet, TYPE_IPV6);
            let (ip, shim) = rest.split_at_mut(IPV6_HEADER);
            write_ipv6(ip, (source, destination), protocol, traffic_class, payload, entropy);
            shim
        }
    };
    match encapsulation {
        Encapsulation::Ipip => {}
        Encapsulation::Gre => shim[2..4].copy_from_slice(&ether_type.to_be_bytes()),
        Encapsulation::Gue { port } => {
            shim[0..2].copy_from_slice(&gue_source(entropy).to_be_bytes());
            shim[2..4].copy_from_slice(&port.to_be_bytes());
            shim[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
            shim[9] = inside;
        }
    }
}

/// The source port that says which connection it is.
#[inline(always)]
const fn gue_source(entropy: u32) -> u16 {
    0xc000 | (entropy as u16 & 0x3fff)
}

#[inline(always)]
fn write_ipv4(ip: &mut [u8], (source, destination): (u32, u32), protocol: u8, traffic_class: u8, payload: usize) {
    let total = (IPV4_HEADER + payload) as u16;
    (ip[0], ip[1]) = (0x45, traffic_class);
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[6] = 0x40;
    (ip[8], ip[9]) = (TTL, protocol);
    ip[12..16].copy_from_slice(&source.to_be_bytes());
    ip[16..20].copy_from_slice(&destination.to_be_bytes());
    let sum = Sum::default()
        .word(u16::from_be_bytes([0x45, traffic_class]))
        .word(total)
        .word(0x4000)
        .word(u16::from_be_bytes([TTL, protocol]))
        .address(source)
        .address(destination);
    ip[10..12].copy_from_slice(&sum.checksum().to_be_bytes());
}

#[inline(always)]
fn write_ipv6(
    ip: &mut [u8],
    (source, destination): (u128, u128),
    protocol: u8,
    traffic_class: u8,
    payload: usize,
    entropy: u32,
) {
    let first = 6 << 28 | u32::from(traffic_class) << 20 | entropy & 0xf_ffff;
    ip[0..4].copy_from_slice(&first.to_be_bytes());
    ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    (ip[6], ip[7]) = (protocol, TTL);
    ip[8..24].copy_from_slice(&source.to_be_bytes());
    ip[24..40].copy_from_slice(&destination.to_be_bytes());
}

/// Takes the outer headers off again, and gives the inner packet an Ethernet header with the frame's addresses, as a target
/// does. For tests, and for measuring. False, and nothing changed, when nothing is wrapped.
#[must_use]
pub fn decapsulate(packet: &mut impl PacketBuf) -> bool {
    let Some((inner, ether_type, link)) = inner_of(packet.bytes()) else { return false };
    ethernet::replace_ethernet_header(packet, inner, ether_type, &link)
}

/// Where the inner packet begins, its EtherType, and the frame's own header.
fn inner_of(frame: &[u8]) -> Option<(usize, u16, EthernetHeader)> {
    let (tagged, outer_type) = ethernet::ether_type(frame)?;
    let l3 = ethernet::HEADER + if tagged { ethernet::VLAN_TAG } else { 0 };
    let (mut protocol, mut at) = match outer_type {
        TYPE_IPV4 => (*frame.get(l3 + 9)?, l3 + usize::from(frame.get(l3)? & 0x0f) * 4),
        TYPE_IPV6 => (*frame.get(l3 + 6)?, l3 + IPV6_HEADER),
        _ => return None,
    };
    if protocol == UDP {
        (protocol, at) = (*frame.get(at + UDP_HEADER + 1)?, at + UDP_HEADER + GUE_HEADER);
    }
    let ether_type = match protocol {
        IPV4_INSIDE => TYPE_IPV4,
        IPV6_INSIDE => TYPE_IPV6,
        GRE => {
            at += GRE_HEADER;
            view::u16_at(frame, at - 2)?
        }
        _ => return None,
    };
    let link = EthernetHeader { destination: *view::chunk(frame, 0)?, source: *view::chunk(frame, 6)?, vlan: None };
    (at < frame.len()).then_some((at, ether_type, link))
}

#[cfg(test)]
mod tests;
