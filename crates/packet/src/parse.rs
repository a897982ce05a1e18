//! One look at a frame: what it is and whose, or why it is nothing.
//!
//! ```text
//! frame ─► Ethernet ─► (802.1Q) ─┬─► ARP
//!                                ├─► IPv4 ─┬─► TCP, UDP        addresses, ports, flags
//!                                │         ├─► ICMP            echo, or the packet an error quotes
//!                                │         ├─► fragment        no ports to decide by
//!                                │         └─► other protocol
//!                                └─► other EtherType
//! ```
//!
//! Nearly every packet is TCP or UDP in IPv4 without options or VLAN tag: [`parse`] recognises it at fixed offsets by one
//! chain of comparisons. Whatever fails one of them is looked at again from the start, by `parse_any`, which knows all forms and
//! all the reasons. The short way never says anything that the long way would not (a property test).

use crate::{
    ICMP, TCP, TcpFlags, UDP,
    arp::{self, Arp},
    checksum,
    ethernet::{HEADER, TYPE_ARP, TYPE_IPV4, TYPE_VLAN, VLAN_TAG},
    icmp::{self, Ipv4Icmp},
    tcp, view,
};

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// More fragments, or a fragment offset: the packet is not whole.
const FRAGMENT: u16 = 0x3fff;
/// Ethernet, IPv4 without options, UDP or the beginning of TCP.
const PLAIN_HEADERS: usize = HEADER + IPV4_HEADER + UDP_HEADER;

/// What a frame is. Offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// VLAN identifier of the 802.1Q tag, if there is one (0 is a tag that only says a priority).
    pub vlan: Option<u16>,
    /// Where the ARP message or IP header begins: 14, or 18 after a VLAN tag.
    pub l3: u8,
    /// Where the transport header begins; the same as `l3` when there is none.
    pub l4: u8,
    /// Where the packet ends. What follows in the frame is padding.
    pub end: u32,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Ipv4Tcp(Ipv4Tcp),
    Ipv4Udp(Ipv4Udp),
    Ipv4Icmp(Ipv4Icmp),
    Arp(Arp),
    /// A part of an IPv4 packet, the first one included.
    Ipv4Fragment {
        source: u32,
        destination: u32,
        protocol: u8,
    },
    /// A transport protocol that no service can have.
    Ipv4Other {
        source: u32,
        destination: u32,
        protocol: u8,
    },
    /// Neither ARP nor IPv4: the EtherType, or an 802.3 frame's length.
    OtherEtherType(u16),
}

/// A TCP segment in an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Tcp {
    pub source: u32,
    pub destination: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub flags: TcpFlags,
}

/// A UDP datagram in an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Udp {
    pub source: u32,
    pub destination: u32,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Why a frame is nothing. Each is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Malformed {
    /// Ends within its Ethernet header, VLAN tag or first 20 bytes of IPv4.
    TooShort,
    Ipv4Version,
    /// Header length below 20 bytes, or past the packet's end.
    Ipv4HeaderLength,
    /// Total length below the header's, or past the frame's end.
    Ipv4TotalLength,
    Ipv4Checksum,
    /// Comes from an address no host can have: 0/8, 127/8, multicast, 255/8 (RFC 1122 §3.2.1.3). Answering it would be
    /// answering somebody else, or everybody.
    Ipv4Source,
    /// Fewer than 20 bytes, or a data offset below that or past the packet's end.
    TcpHeader,
    /// Fewer than 8 bytes, or a length below that or past the packet's end.
    UdpLength,
    IcmpTooShort,
    /// An error message whose quote is cut before the quoted packet's ports.
    IcmpQuote,
    /// Cut short, not for IPv4 over Ethernet, an unknown operation, or sent by a group address.
    Arp,
}

impl Malformed {
    pub const ALL: [Self; 11] = [
        Self::TooShort,
        Self::Ipv4Version,
        Self::Ipv4HeaderLength,
        Self::Ipv4TotalLength,
        Self::Ipv4Checksum,
        Self::Ipv4Source,
        Self::TcpHeader,
        Self::UdpLength,
        Self::IcmpTooShort,
        Self::IcmpQuote,
        Self::Arp,
    ];
    pub const COUNT: usize = Self::ALL.len();

    /// Place in [`ALL`](Self::ALL).
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Name of its counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too-short",
            Self::Ipv4Version => "ipv4-version",
            Self::Ipv4HeaderLength => "ipv4-header-length",
            Self::Ipv4TotalLength => "ipv4-total-length",
            Self::Ipv4Checksum => "ipv4-checksum",
            Self::Ipv4Source => "ipv4-source",
            Self::TcpHeader => "tcp-header",
            Self::UdpLength => "udp-length",
            Self::IcmpTooShort => "icmp-too-short",
            Self::IcmpQuote => "icmp-quote",
            Self::Arp => "arp-malformed",
        }
    }
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
    let ip: &[u8; IPV4_HEADER] = head[HEADER..].first_chunk()?;
    let ports = &head[HEADER + IPV4_HEADER..];
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let source = u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]);
    let destination = u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]]);
    let source_port = u16::from_be_bytes([ports[0], ports[1]]);
    let destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    let plain = u16::from_be_bytes([head[12], head[13]]) == TYPE_IPV4
        && ip[0] == 0x45
        && u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT == 0
        && HEADER + total <= frame.len()
        && checksum::ipv4_header_is_valid(ip)
        && !is_martian(source);
    if !plain {
        return None;
    }
    let body = match ip[9] {
        TCP => {
            let segment: &[u8; tcp::HEADER] = frame[HEADER + IPV4_HEADER..].first_chunk()?;
            let data_offset = usize::from(segment[12] >> 4) * 4;
            if data_offset < tcp::HEADER || IPV4_HEADER + data_offset > total {
                return None;
            }
            let flags = TcpFlags(segment[13]);
            Body::Ipv4Tcp(Ipv4Tcp { source, destination, source_port, destination_port, flags })
        }
        UDP => {
            let length = usize::from(u16::from_be_bytes([ports[4], ports[5]]));
            if length < UDP_HEADER || IPV4_HEADER + length > total {
                return None;
            }
            Body::Ipv4Udp(Ipv4Udp { source, destination, source_port, destination_port })
        }
        _ => return None,
    };
    let (l3, l4) = (HEADER as u8, (HEADER + IPV4_HEADER) as u8);
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
        TYPE_IPV4 => parse_ipv4(frame, l3)?,
        TYPE_ARP => (l3, l3 + arp::LENGTH, Body::Arp(arp::read(frame, l3)?)),
        other => (l3, frame.len(), Body::OtherEtherType(other)),
    };
    Ok(Parsed { vlan, l3: l3 as u8, l4: l4 as u8, end: end as u32, body })
}

/// Where the transport header begins, where the packet ends, and what it is.
fn parse_ipv4(frame: &[u8], l3: usize) -> Result<(usize, usize, Body), Malformed> {
    let ip: &[u8; IPV4_HEADER] = view::chunk(frame, l3).ok_or(Malformed::TooShort)?;
    let header_length = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[0] >> 4 != 4 {
        return Err(Malformed::Ipv4Version);
    }
    if header_length < IPV4_HEADER {
        return Err(Malformed::Ipv4HeaderLength);
    }
    let packet = frame.get(l3..l3 + total).ok_or(Malformed::Ipv4TotalLength)?;
    let Some((header, payload)) = packet.split_at_checked(header_length) else {
        return Err(if total < IPV4_HEADER { Malformed::Ipv4TotalLength } else { Malformed::Ipv4HeaderLength });
    };
    if !checksum::is_valid(header) {
        return Err(Malformed::Ipv4Checksum);
    }
    let source = u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]);
    let destination = u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]]);
    if is_martian(source) {
        return Err(Malformed::Ipv4Source);
    }
    let protocol = ip[9];
    let body = if u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT != 0 {
        Body::Ipv4Fragment { source, destination, protocol }
    } else {
        match protocol {
            TCP => Body::Ipv4Tcp(read_tcp(payload, source, destination)?),
            UDP => Body::Ipv4Udp(read_udp(payload, source, destination)?),
            ICMP => Body::Ipv4Icmp(Ipv4Icmp { source, destination, message: icmp::read(payload)? }),
            _ => Body::Ipv4Other { source, destination, protocol },
        }
    };
    Ok((l3 + header_length, l3 + total, body))
}

fn read_tcp(segment: &[u8], source: u32, destination: u32) -> Result<Ipv4Tcp, Malformed> {
    let header: &[u8; tcp::HEADER] = segment.first_chunk().ok_or(Malformed::TcpHeader)?;
    let data_offset = usize::from(header[12] >> 4) * 4;
    if !(tcp::HEADER..=segment.len()).contains(&data_offset) {
        return Err(Malformed::TcpHeader);
    }
    Ok(Ipv4Tcp {
        source,
        destination,
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        flags: TcpFlags(header[13]),
    })
}

fn read_udp(datagram: &[u8], source: u32, destination: u32) -> Result<Ipv4Udp, Malformed> {
    let [s0, s1, d0, d1, l0, l1, ..] = *datagram else { return Err(Malformed::UdpLength) };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if !(UDP_HEADER..=datagram.len()).contains(&length) {
        return Err(Malformed::UdpLength);
    }
    Ok(Ipv4Udp {
        source,
        destination,
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
    })
}

/// Whether no host can have this address: 0/8, 127/8, 224/4 or 255/8. One bit for each first byte.
#[inline(always)]
pub(crate) const fn is_martian(address: u32) -> bool {
    const MARTIAN: [u64; 4] = [1, 1 << 63, 0, (0xffff << 32) | (1 << 63)];
    let first = address >> 24;
    MARTIAN[(first >> 6) as usize] >> (first & 63) & 1 != 0
}

#[cfg(test)]
mod tests;
