//! ICMP for IPv4 (RFC 792): answers pings, and reads whose packet an error message is about.

use crate::{
    ICMP, Malformed, PacketBuf, Parsed, TCP, UDP,
    checksum::{self, Sum},
    ethernet::{self, MacAddress},
    parse::Body,
    view,
};

/// Bytes of an ICMP header.
pub const HEADER: usize = 8;

pub const ECHO_REPLY: u8 = 0;
pub const UNREACHABLE: u8 = 3;
pub const ECHO_REQUEST: u8 = 8;
pub const TIME_EXCEEDED: u8 = 11;
pub const PARAMETER_PROBLEM: u8 = 12;
/// Code of [`UNREACHABLE`]: the packet must be fragmented and says it must not (path MTU discovery, RFC 1191).
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// Time to live of what we send ourselves (RFC 1700's default).
pub(crate) const TTL: u8 = 64;

/// An ICMP message in an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Icmp {
    pub source: u32,
    pub destination: u32,
    pub message: Icmp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp {
    EchoRequest,
    /// Unreachable, time exceeded or parameter problem, and the packet it is about.
    Error {
        kind: u8,
        code: u8,
        quoted: Quoted<u32>,
    },
    /// Anything else: other types, and errors about a packet without ports (another protocol, a later fragment).
    /// Source quench and redirect are here too: nobody may act on the one (RFC 6633), and the other is
    /// a matter between a host and its first router.
    Other(u8),
}

/// What an error message quotes: the addresses and ports of a packet that the error's receiver had sent.
/// So for a VIPA's connection the *source* is the VIPA and the *destination* is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<A> {
    pub source: A,
    pub destination: A,
    /// [`TCP`](crate::TCP) or [`UDP`](crate::UDP).
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Reads an ICMP message, from the first byte of its header to the end of the packet.
pub(crate) fn read(message: &[u8]) -> Result<Icmp, Malformed> {
    let [kind, code, _, _, _, _, _, _, quote @ ..] = message else { return Err(Malformed::IcmpTooShort) };
    match *kind {
        ECHO_REQUEST if *code == 0 => Ok(Icmp::EchoRequest),
        UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => match read_quote(quote) {
            Quote::Ports(quoted) => Ok(Icmp::Error { kind: *kind, code: *code, quoted }),
            Quote::NoPorts => Ok(Icmp::Other(*kind)),
            Quote::Malformed => Err(Malformed::IcmpQuote),
        },
        other => Ok(Icmp::Other(other)),
    }
}

enum Quote {
    Ports(Quoted<u32>),
    NoPorts,
    Malformed,
}

/// The quote holds at least the header and eight more bytes (RFC 1812 §4.3.2.3). Its checksum and time to live are as the
/// quoting router saw them and its length may be cut, so none of these is checked.
fn read_quote(quote: &[u8]) -> Quote {
    let Some(header) = quote.first_chunk::<20>() else { return Quote::Malformed };
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_length < 20 {
        return Quote::Malformed;
    }
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    let protocol = header[9];
    if later_fragment || !matches!(protocol, TCP | UDP) {
        return Quote::NoPorts;
    }
    let fields = (
        view::u32_at(header, 12),
        view::u32_at(header, 16),
        view::u16_at(quote, header_length),
        view::u16_at(quote, header_length + 2),
    );
    match fields {
        (Some(source), Some(destination), Some(source_port), Some(destination_port)) => {
            Quote::Ports(Quoted { source, destination, protocol, source_port, destination_port })
        }
        _ => Quote::Malformed,
    }
}

/// Turns the echo request that `parsed` found in `frame` into its reply. The ICMP checksum is updated, not recomputed
/// (RFC 1624), so a request damaged on its way stays recognisably damaged.
///
/// False, and nothing changed, when it is not an echo request, or when it has IP options: a route recorded or demanded on
/// the way here is not ours to send back.
#[must_use]
pub fn echo_reply(frame: &mut [u8], parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let Body::Ipv4Icmp(Ipv4Icmp { source, destination, message: Icmp::EchoRequest }) = parsed.body else {
        return false;
    };
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    if l4 - l3 != 20 {
        return false;
    }
    let Some(packet) = frame.get_mut(l3..) else { return false };
    let Some(headers) = packet.first_chunk_mut::<28>() else { return false };

    // Swapping the addresses does not change the sum; the time to live does.
    let old = u16::from_be_bytes([headers[8], headers[9]]);
    headers[8] = TTL;
    let new = u16::from_be_bytes([headers[8], headers[9]]);
    let sum = u16::from_be_bytes([headers[10], headers[11]]);
    headers[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
    headers[12..16].copy_from_slice(&destination.to_be_bytes());
    headers[16..20].copy_from_slice(&source.to_be_bytes());

    let old = u16::from_be_bytes([headers[20], headers[21]]);
    headers[20] = ECHO_REPLY;
    let new = u16::from_be_bytes([headers[20], headers[21]]);
    let sum = u16::from_be_bytes([headers[22], headers[23]]);
    headers[22..24].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());

    ethernet::turn_round(frame, our_mac);
    true
}

/// Longest error message we send (RFC 1812 §4.3.2.3).
const LONGEST_ERROR: usize = 576;
const IPV4_HEADER: usize = 20;

/// Turns a packet into word to its sender that nothing above `mtu` bytes passes: fragmentation needed (RFC 1191 §4), as from
/// the packet's destination. False, and nothing changed, for an ICMP error, a later part (RFC 1122 §3.2.2), a packet to a
/// group, or without headroom.
#[must_use]
pub fn too_big(packet: &mut impl PacketBuf, parsed: &Parsed, mtu: u16, our_mac: &MacAddress) -> bool {
    let (source, destination) = match parsed.body {
        Body::Ipv4Tcp(segment) => (segment.source, segment.destination),
        Body::Ipv4Udp(datagram) => (datagram.source, datagram.destination),
        Body::Ipv4Fragment(part) if part.offset == 0 => (part.source, part.destination),
        Body::Ipv4Icmp(Ipv4Icmp { source, destination, message: Icmp::EchoRequest }) => (source, destination),
        _ => return false,
    };
    if destination >> 28 >= 0xe {
        return false;
    }
    const HEADERS: usize = IPV4_HEADER + HEADER;
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
    let (ip, icmp) = headers.split_at_mut(IPV4_HEADER);
    // Network control, as RFC 1812 §4.3.2.5 wants errors to be.
    (ip[0], ip[1]) = (0x45, 0xc0);
    ip[2..4].copy_from_slice(&((HEADERS + quoted) as u16).to_be_bytes());
    (ip[8], ip[9]) = (TTL, ICMP);
    ip[12..16].copy_from_slice(&destination.to_be_bytes());
    ip[16..20].copy_from_slice(&source.to_be_bytes());
    let sum = checksum::of(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    (icmp[0], icmp[1]) = (UNREACHABLE, FRAGMENTATION_NEEDED);
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    let sum = Sum::default().bytes(icmp).bytes(quote).checksum();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ethernet::turn_round(frame, our_mac);
    true
}

/// Whether a packet must not be cut on its way: its sender looks for the path's MTU, as all of IPv6 does.
#[must_use]
pub fn must_not_be_cut(frame: &[u8], parsed: &Parsed) -> bool {
    match view::chunk::<IPV4_HEADER>(frame, usize::from(parsed.l3)) {
        Some(header) => header[0] >> 4 == 6 || header[6] & 0x40 != 0,
        None => false,
    }
}

#[cfg(test)]
mod tests;
