//! The outer headers of a tunnel, prepared once. Only lengths, traffic class, entropy and checksum differ from packet to packet.

use super::{
    Encapsulation, GUE_HEADER, IPV4_HEADER, IPV4_INSIDE, IPV6_HEADER, IPV6_INSIDE, MOST, TunnelEndpoints, UDP_HEADER,
    gue_source, write_headers,
};
use crate::{
    Endpoint, PacketBuf, TCP, TcpFlags, UDP, checksum,
    ethernet::{EthernetHeader, HEADER, TYPE_IPV4, TYPE_IPV6},
    parse::FRAGMENT4,
    view,
};

/// The fields of a packet that can be forwarded as it is, by encapsulation or translation alone: TCP without SYN, or UDP, directly after
/// an IP header without options or VLAN tag, whose TTL has not run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerPacket {
    pub(crate) is_ipv6: bool,
    pub(crate) protocol: u8,
    traffic_class: u8,
    /// Bytes from the IP header on.
    pub size: u16,
    /// The source address, folded.
    pub source: u64,
    /// Source and destination port.
    pub ports: u32,
}

impl InnerPacket {
    /// Reads a frame that [`parse`](crate::parse) has accepted; its checks are not repeated. `None`: the packet needs more than
    /// encapsulation or translation.
    #[inline(always)]
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER + IPV4_HEADER + UDP_HEADER] = frame.first_chunk()?;
        let ip: &[u8; IPV4_HEADER + UDP_HEADER] = head.last_chunk()?;
        let inner = match (u16::from_be_bytes([head[12], head[13]]), ip[0]) {
            (TYPE_IPV4, 0x45) => {
                let part = u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT4 != 0;
                if part || !is_left_as_it_is(ip[9], frame, HEADER + IPV4_HEADER) {
                    return None;
                }
                Self::read4(frame, ip[9])?
            }
            (TYPE_IPV6, 0x60..=0x6f) => {
                if !is_left_as_it_is(ip[6], frame, HEADER + IPV6_HEADER) {
                    return None;
                }
                Self::read6(frame, ip[6])?
            }
            _ => return None,
        };
        (HEADER + usize::from(inner.size) <= frame.len()).then_some(inner)
    }

    /// Reads a plain mid-stream segment of IPv4, as [`HeaderColumns`](crate::HeaderColumns) finds it. `None` when its TTL runs out here.
    #[inline(always)]
    #[must_use]
    pub fn of_segment4(frame: &[u8]) -> Option<Self> {
        Self::read4(frame, TCP)
    }

    /// Reads a plain mid-stream segment of IPv6, likewise.
    #[inline(always)]
    #[must_use]
    pub fn of_segment6(frame: &[u8]) -> Option<Self> {
        Self::read6(frame, TCP)
    }

    #[inline(always)]
    fn read4(frame: &[u8], protocol: u8) -> Option<Self> {
        let ip: &[u8; IPV4_HEADER + UDP_HEADER] = view::chunk(frame, HEADER)?;
        (ip[8] > 1).then_some(Self {
            is_ipv6: false,
            protocol,
            traffic_class: ip[1],
            size: u16::from_be_bytes([ip[2], ip[3]]),
            source: u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]).into(),
            ports: u32::from_be_bytes([ip[20], ip[21], ip[22], ip[23]]),
        })
    }

    #[inline(always)]
    fn read6(frame: &[u8], protocol: u8) -> Option<Self> {
        let ip: &[u8; IPV6_HEADER + UDP_HEADER] = view::chunk(frame, HEADER)?;
        let size = u16::from_be_bytes([ip[4], ip[5]]).checked_add(IPV6_HEADER as u16)?;
        let source = view::u128_at(ip, 8)?;
        (ip[7] > 1).then_some(Self {
            is_ipv6: true,
            protocol,
            traffic_class: ip[0] << 4 | ip[1] >> 4,
            size,
            source: (source >> 64) as u64 ^ source as u64,
            ports: view::u32_at(ip, IPV6_HEADER)?,
        })
    }

    /// The destination of `frame`, which this was read from.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self, frame: &[u8]) -> Option<Endpoint> {
        let port = self.ports as u16;
        if self.is_ipv6 {
            view::u128_at(frame, HEADER + 24).map(|address| Endpoint::V6(address, port))
        } else {
            view::u32_at(frame, HEADER + 16).map(|address| Endpoint::V4(address, port))
        }
    }

    /// Decrements the TTL of the packet, which begins with its IP header, and updates the checksum.
    #[inline(always)]
    pub(crate) fn decrement_ttl(&self, packet: &mut [u8]) {
        let Some(header) = packet.first_chunk_mut::<IPV4_HEADER>() else { return };
        if self.is_ipv6 {
            header[7] -= 1;
        } else {
            header[8] -= 1;
            let sum = u16::from_be_bytes([header[10], header[11]]);
            header[10..12].copy_from_slice(&checksum::after_hop(sum).to_be_bytes());
        }
    }
}

/// Whether the transport header is left as it is: a SYN's MSS option may have to be changed.
#[inline(always)]
fn is_left_as_it_is(protocol: u8, frame: &[u8], l4: usize) -> bool {
    match protocol {
        TCP => frame.get(l4 + 13).is_some_and(|flags| !TcpFlags(*flags).has(TcpFlags::SYN)),
        UDP => true,
        _ => false,
    }
}

/// The outer headers of one tunnel, for inner packets of either family.
#[derive(Clone, Debug)]
pub struct TunnelHeaders {
    ipv4: HeaderTemplate,
    ipv6: HeaderTemplate,
    /// Bytes of the Ethernet header, and of all headers.
    before: usize,
    length: usize,
    /// Bytes after the outer IP header.
    shim: usize,
    outer_is_ipv6: bool,
    is_gue: bool,
}

/// The headers as they are for an empty payload and traffic class 0.
#[derive(Clone, Debug)]
struct HeaderTemplate {
    bytes: [u8; MOST],
    /// The ones' complement sum of an outer IPv4 header.
    sum: u16,
}

/// Headers are copied in pieces of this size, which may overlap. None are shorter than one piece.
const PIECE: usize = 32;
const _: () = assert!(HEADER + IPV4_HEADER >= PIECE && MOST <= 3 * PIECE);

impl TunnelHeaders {
    #[must_use]
    pub fn new(outer: &TunnelEndpoints, encapsulation: Encapsulation, link: &EthernetHeader) -> Self {
        let outer_is_ipv6 = matches!(outer, TunnelEndpoints::V6 { .. });
        let (before, shim) = (link.length(), encapsulation.shim());
        let length = before + encapsulation.overhead(outer_is_ipv6);
        let headers = |inside| {
            let mut bytes = [0; MOST];
            write_headers(&mut bytes[..length], outer, encapsulation, link, inside, 0, shim, 0);
            let sum = view::u16_at(&bytes, before + 10).map_or(0, |checksum| !checksum);
            HeaderTemplate { bytes, sum }
        };
        Self {
            ipv4: headers((IPV4_INSIDE, TYPE_IPV4)),
            ipv6: headers((IPV6_INSIDE, TYPE_IPV6)),
            before,
            length,
            shim,
            outer_is_ipv6,
            is_gue: matches!(encapsulation, Encapsulation::Gue { .. }),
        }
    }

    /// Does what [`decrement_ttl`](crate::decrement_ttl) and [`encapsulate`](super::encapsulate) do, to the packet that `inner` was read
    /// from. False, and nothing changed, without headroom, or when the outer packet would be longer than IP allows.
    #[inline(always)]
    #[must_use]
    pub fn wrap(&self, packet: &mut impl PacketBuf, inner: &InnerPacket, entropy: u32) -> bool {
        let Self { before, length, shim, .. } = *self;
        let size = usize::from(inner.size);
        let grown = length - HEADER;
        if packet.headroom() < grown || size + grown > usize::from(u16::MAX) {
            return false;
        }
        let end = HEADER + size;
        if packet.bytes().len() != end && !packet.truncate(end) {
            return false;
        }
        if packet.prepend(grown).is_none() {
            return false;
        }
        let Some((headers, carried)) = packet.bytes_mut().split_at_mut_checked(length) else { return false };
        inner.decrement_ttl(carried);
        let HeaderTemplate { bytes, sum } = if inner.is_ipv6 { &self.ipv6 } else { &self.ipv4 };
        copy(headers, bytes);
        let Some(ip) = headers.get_mut(before..) else { return true };
        let payload = (shim + size) as u16;
        if self.outer_is_ipv6 {
            if let Some(start) = ip.first_chunk_mut::<6>() {
                let first = 6 << 28 | u32::from(inner.traffic_class) << 20 | entropy & 0xf_ffff;
                start[..4].copy_from_slice(&first.to_be_bytes());
                start[4..].copy_from_slice(&payload.to_be_bytes());
            }
        } else if let Some(header) = ip.first_chunk_mut::<IPV4_HEADER>() {
            let sum = u32::from(*sum) + u32::from(inner.traffic_class) + u32::from(inner.size);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            header[1] = inner.traffic_class;
            header[2..4].copy_from_slice(&(IPV4_HEADER as u16 + payload).to_be_bytes());
            header[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
        }
        if self.is_gue
            && let Some(shim) = headers.last_chunk_mut::<{ UDP_HEADER + GUE_HEADER }>()
        {
            shim[0..2].copy_from_slice(&gue_source(entropy).to_be_bytes());
            shim[4..6].copy_from_slice(&payload.to_be_bytes());
        }
        true
    }
}

/// Fills `place`, which is at least one piece long.
#[inline(always)]
fn copy(place: &mut [u8], from: &[u8; MOST]) {
    let length = place.len();
    let piece = |at: usize| view::chunk::<PIECE>(from, at);
    if length > 2 * PIECE
        && let (Some(middle), Some(piece)) = (place.get_mut(PIECE..2 * PIECE), piece(PIECE))
    {
        middle.copy_from_slice(piece);
    }
    if let (Some(first), Some(piece)) = (place.first_chunk_mut(), piece(0)) {
        *first = *piece;
    }
    if let (Some(last), Some(piece)) = (place.last_chunk_mut(), piece(length.wrapping_sub(PIECE))) {
        *last = *piece;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeapPacket, build::packet, decrement_ttl, encapsulate, nat, parse};
    use proptest::prelude::*;

    fn cases() -> Vec<(TunnelEndpoints, Encapsulation, EthernetHeader)> {
        let outers = [
            TunnelEndpoints::V4 { source: 0xc633_6401, destination: 0xc633_6415 },
            TunnelEndpoints::V6 { source: 0x2001_0db8 << 96 | 1, destination: 0x2001_0db8 << 96 | 0x21 },
        ];
        let encapsulations = [Encapsulation::Ipip, Encapsulation::Gre, Encapsulation::Gue { port: 6080 }];
        let link = |vlan| EthernetHeader { source: [2, 0, 0, 0, 0, 2], destination: [2, 0, 0, 0, 1, 0], vlan };
        let pairs = outers.into_iter().flat_map(|outer| encapsulations.map(|encapsulation| (outer, encapsulation)));
        pairs
            .flat_map(|(outer, encapsulation)| [None, Some(7)].map(|vlan| (outer, encapsulation, link(vlan))))
            .collect()
    }

    fn assert_same(frame: &HeapPacket, there: Endpoint, entropy: u32) -> Result<(), TestCaseError> {
        let parsed = parse(frame.bytes()).unwrap();
        let inner = InnerPacket::read(frame.bytes()).unwrap();
        prop_assert_eq!(inner.destination(frame.bytes()), Some(there));
        prop_assert_eq!(usize::from(inner.size), parsed.end as usize - HEADER);
        for (outer, encapsulation, link) in cases() {
            let (mut long_way, mut short_way) = (frame.clone(), frame.clone());
            prop_assert!(decrement_ttl(long_way.bytes_mut(), &parsed));
            prop_assert!(encapsulate(&mut long_way, &parsed, &outer, encapsulation, entropy, &link));
            prop_assert!(TunnelHeaders::new(&outer, encapsulation, &link).wrap(&mut short_way, &inner, entropy));
            prop_assert_eq!(&short_way, &long_way, "{:?} {:?} {:?}", outer, encapsulation, link);
        }
        for target in [Endpoint::V4(entropy, entropy as u16), Endpoint::V6(u128::from(entropy) << 77, entropy as u16)] {
            let (mut long_way, mut short_way) = (frame.clone(), frame.clone());
            let bytes = long_way.bytes_mut();
            let translated = nat::to_target(bytes, &parsed, target) && decrement_ttl(bytes, &parsed);
            prop_assert_eq!(nat::plain_to_target(short_way.bytes_mut(), &inner, target), translated);
            prop_assert_eq!(&short_way, &long_way, "{:?}", target);
            let (mut long_way, mut short_way) = (frame.clone(), frame.clone());
            let bytes = long_way.bytes_mut();
            let translated = nat::from_target(bytes, &parsed, target) && decrement_ttl(bytes, &parsed);
            prop_assert_eq!(nat::plain_from_target(short_way.bytes_mut(), &inner, target), translated);
            prop_assert_eq!(&short_way, &long_way, "from {:?}", target);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_short_way_writes_what_the_long_way_writes(
            source: u32, ports: (u16, u16), class: u8, ttl in 2..=u8::MAX, id: u16, length in 0..1400_usize, entropy: u32, pad: bool,
        ) {
            prop_assume!(!crate::parse::is_martian(source));
            let ends = packet().ipv4(source, "192.0.2.10").traffic_class(class).ttl(ttl).identification(id);
            for frame in [ends.clone().tcp(ports.0, ports.1), ends.udp(ports.0, ports.1)] {
                let frame = frame.payload(vec![1; length]);
                let there = Endpoint::V4(0xc000_020a, ports.1);
                assert_same(&if pad { frame.padded() } else { frame }.build(), there, entropy)?;
            }
            let ends = packet().ipv6(0x2001_0db8 << 96 | u128::from(source), "2001:db8::10").traffic_class(class).ttl(ttl);
            let there = Endpoint::V6(0x2001_0db8 << 96 | 0x10, ports.1);
            assert_same(&ends.tcp(ports.0, ports.1).payload(vec![1; length]).build(), there, entropy)?;
        }
    }

    #[test]
    fn whatever_needs_more_than_wrapping_takes_the_long_way() {
        let ends = || packet().ipv4("203.0.113.4", "192.0.2.10");
        let ends6 = || packet().ipv6("2001:db8:1::4", "2001:db8::10");
        for frame in [
            ends().tcp(1, 2).syn(),
            ends().tcp(1, 2).ttl(1),
            ends().tcp(1, 2).vlan(3),
            ends().tcp(1, 2).ip_options(&[1; 4]),
            ends().udp(1, 2).first_fragment(),
            ends().icmp_echo(1, 2),
            ends6().tcp(1, 2).syn(),
            ends6().udp(1, 2).ttl(1),
            ends6().udp(1, 2).extension(0, &[0; 6]),
        ] {
            assert_eq!(InnerPacket::read(frame.build().bytes()), None, "{frame:?}");
        }
    }

    #[test]
    fn without_headroom_nothing_changes() {
        let (outer, encapsulation, link) = cases()[0];
        let mut frame = packet().ipv4("203.0.113.4", "192.0.2.10").udp(1, 2).build();
        let (inner, room) = (InnerPacket::read(frame.bytes()).unwrap(), frame.headroom() - 19);
        assert!(frame.prepend(room).is_some() && frame.trim_front(0));
        let before = frame.clone();
        assert!(!TunnelHeaders::new(&outer, encapsulation, &link).wrap(&mut frame, &inner, 1));
        assert_eq!(frame, before);
    }
}
