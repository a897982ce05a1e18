//! One look at a frame: what it is and whose, or why it is nothing.
//!
//! ```text
//! frame ─► Ethernet ─► (802.1Q) ─┬─► ARP
//!                                ├─► IPv4 ─┬─► TCP, UDP        addresses, ports, flags
//!                                ├─► IPv6 ─┼─► ICMP, ICMPv6    echo, neighbours, or the packet an error quotes
//!                                │         ├─► fragment        ports in the first part only
//!                                │         └─► other protocol
//!                                └─► other EtherType
//! ```
//!
//! Nearly every packet is TCP or UDP directly after an IP header without options or VLAN tag: [`parse_plain`] recognises it
//! (in IPv4) at fixed offsets by one chain of comparisons. Whatever fails one of them is looked at again from the start, by
//! `parse_any`, which knows all forms and all the reasons. A worker asks for even less, in either family: [`HeaderColumns`] says of all of a
//! burst's frames at once what names a connection. The short ways never say anything that the long way would not (a property test).

mod columns;
mod ipv4;
mod ipv6;
mod transport;

use crate::{
    Malformed, TCP, TcpFlags, UDP,
    arp::{self, Arp},
    checksum,
    ethernet::{HEADER, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, VLAN_TAG},
    icmp::Ipv4Icmp,
    icmp6::Ipv6Icmp,
    tcp, view,
};
pub use columns::{HEADER_ROWS, HeaderColumns, HeaderSums, Ipv4Segments, Ipv6Segments};
pub(crate) use ipv4::{FRAGMENT as FRAGMENT4, is_martian};
pub(crate) use ipv6::{Chain, addresses as addresses6, walk as walk_ipv6};

pub(crate) const UDP_HEADER: usize = 8;
/// Longest IP packet, and longest payload that parts can make.
pub(crate) const LONGEST: usize = 65_535;
/// Ethernet, IPv4 without options, UDP or the beginning of TCP.
const PLAIN_HEADERS: usize = HEADER + ipv4::HEADER + UDP_HEADER;
/// Ethernet, IPv4 and TCP, all without options.
const PLAIN_TCP: usize = HEADER + ipv4::HEADER + tcp::HEADER;
/// The same with IPv6.
const PLAIN_TCP6: usize = HEADER + ipv6::HEADER + tcp::HEADER;

/// What a frame is. Offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// VLAN identifier of the 802.1Q tag, if there is one (0 is a tag that only says a priority).
    pub vlan: Option<u16>,
    /// Where the ARP message or IP header begins: 14, or 18 after a VLAN tag.
    pub l3: u8,
    /// Where the transport header begins, after all IP options and extension headers; in a later fragment, where its
    /// payload does. The same as `l3` when there is none.
    pub l4: u16,
    /// Where the packet ends. What follows in the frame is padding.
    pub end: u32,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Ipv4Tcp(Ipv4Tcp),
    Ipv4Udp(Ipv4Udp),
    Ipv4Icmp(Ipv4Icmp),
    Ipv4Fragment(Fragment<u32>),
    /// A transport protocol that no service can have.
    Ipv4Other {
        source: u32,
        destination: u32,
        protocol: u8,
    },
    Ipv6Tcp(Ipv6Tcp),
    Ipv6Udp(Ipv6Udp),
    Ipv6Icmp(Ipv6Icmp),
    Ipv6Fragment(Fragment<u128>),
    /// A transport protocol that no service can have, "no next header" (59) included.
    Ipv6Other {
        source: u128,
        destination: u128,
        protocol: u8,
    },
    Arp(Arp),
    /// Neither ARP nor IP: the EtherType, or an 802.3 frame's length.
    OtherEtherType(u16),
}

/// A TCP segment between two addresses of a family: `u32` or `u128`, numeric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<A> {
    pub source: A,
    pub destination: A,
    pub source_port: u16,
    pub destination_port: u16,
    pub flags: TcpFlags,
}

/// A UDP datagram, likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<A> {
    pub source: A,
    pub destination: A,
    pub source_port: u16,
    pub destination_port: u16,
}

pub type Ipv4Tcp = Tcp<u32>;
pub type Ipv6Tcp = Tcp<u128>;
pub type Ipv4Udp = Udp<u32>;
pub type Ipv6Udp = Udp<u128>;

/// A part of a packet, the first one included. Parts belong together that agree in addresses and identification and, in IPv4
/// alone, in protocol (RFC 791 §2.3, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<A> {
    pub source: A,
    pub destination: A,
    /// The transport protocol; in IPv6 it may be an extension header's that precedes the transport header, in all parts alike.
    pub protocol: u8,
    /// 16 bits in IPv4.
    pub identification: u32,
    /// Bytes of payload before this part: 0 in the first.
    pub offset: u16,
    /// Whether another part follows.
    pub more: bool,
    /// The transport header, where this is the first part and has it whole.
    pub head: Option<FragmentHead>,
    /// Whether this is the first part of a ping, and has its ICMP header whole.
    pub is_echo_request: bool,
}

/// What the first part of a TCP segment or UDP datagram says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHead {
    pub source_port: u16,
    pub destination_port: u16,
    /// `None` in UDP.
    pub flags: Option<TcpFlags>,
}

/// Looks at a frame. Never panics and never reads past the frame's end, whatever the bytes.
///
/// # Errors
/// [`Malformed`] is a verdict on the frame, and its fate.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Parsed, Malformed> {
    match parse_plain(frame) {
        Some(parsed) => Ok(parsed),
        None => parse_any(frame),
    }
}

/// The short way of [`parse`] alone: TCP or UDP, whole, in IPv4 without options or tag, and nothing wrong with it. `None` is
/// no verdict; ask [`parse`]. For the packet path, where the fields it takes from here stay in registers.
#[inline(always)]
#[must_use]
pub fn parse_plain(frame: &[u8]) -> Option<Parsed> {
    let head: &[u8; PLAIN_HEADERS] = frame.first_chunk()?;
    let ip: &[u8; ipv4::HEADER] = head[HEADER..].first_chunk()?;
    let ports = &head[HEADER + ipv4::HEADER..];
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let source = u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]);
    let destination = u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]]);
    let source_port = u16::from_be_bytes([ports[0], ports[1]]);
    let destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    let plain = u16::from_be_bytes([head[12], head[13]]) == TYPE_IPV4
        && ip[0] == 0x45
        && u16::from_be_bytes([ip[6], ip[7]]) & ipv4::FRAGMENT == 0
        && HEADER + total <= frame.len()
        && checksum::ipv4_header_is_valid(ip)
        && !is_martian(source);
    if !plain {
        return None;
    }
    let body = match ip[9] {
        TCP => {
            let segment: &[u8; tcp::HEADER] = frame[HEADER + ipv4::HEADER..].first_chunk()?;
            let data_offset = usize::from(segment[12] >> 4) * 4;
            if data_offset < tcp::HEADER || ipv4::HEADER + data_offset > total {
                return None;
            }
            let flags = TcpFlags(segment[13]);
            Body::Ipv4Tcp(Ipv4Tcp { source, destination, source_port, destination_port, flags })
        }
        UDP => {
            let length = usize::from(u16::from_be_bytes([ports[4], ports[5]]));
            if length < UDP_HEADER || ipv4::HEADER + length > total {
                return None;
            }
            Body::Ipv4Udp(Ipv4Udp { source, destination, source_port, destination_port })
        }
        _ => return None,
    };
    let (l3, l4) = (HEADER as u8, (HEADER + ipv4::HEADER) as u16);
    Some(Parsed { vlan: None, l3, l4, end: (HEADER + total) as u32, body })
}

/// Every form, every reason.
#[inline(never)]
fn parse_any(frame: &[u8]) -> Result<Parsed, Malformed> {
    let outer = view::u16_at(frame, HEADER - 2).ok_or(Malformed::TooShort)?;
    let (ether_type, vlan, l3) = if outer == TYPE_VLAN {
        let control = view::u16_at(frame, HEADER).ok_or(Malformed::TooShort)?;
        let inner = view::u16_at(frame, HEADER + 2).ok_or(Malformed::TooShort)?;
        (inner, Some(control & 0x0fff), HEADER + VLAN_TAG)
    } else {
        (outer, None, HEADER)
    };
    let (l4, end, body) = match ether_type {
        TYPE_IPV4 => ipv4::read(frame, l3)?,
        TYPE_IPV6 => ipv6::read(frame, l3)?,
        TYPE_ARP => (l3, l3 + arp::LENGTH, Body::Arp(arp::read(frame, l3)?)),
        other => (l3, frame.len(), Body::OtherEtherType(other)),
    };
    Ok(Parsed { vlan, l3: l3 as u8, l4: l4 as u16, end: end as u32, body })
}

#[cfg(test)]
mod tests;
