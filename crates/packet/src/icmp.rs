//! ICMP for IPv4 (RFC 792): answers pings, and reads whose packet an error message is about.

use crate::{
    ICMP, Malformed, PacketBuf, Parsed, TCP, UDP,
    checksum::{self, Sum},
    ethernet::{self, MacAddress},
    icmp_error::{ErrorMessage, replace_by_error},
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
/// Code of [`UNREACHABLE`]: nobody has bound the port.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`TIME_EXCEEDED`]: at a router.
const IN_TRANSIT: u8 = 0;
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

/// Whether the first part of a message begins an echo request.
pub(crate) fn is_echo_request(message: &[u8]) -> bool {
    message.first_chunk::<HEADER>().is_some_and(|header| header[..2] == [ECHO_REQUEST, 0])
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

/// Turns the echo request that `parsed` found in `frame` into its reply, or a part of one into that part of its reply. The ICMP
/// checksum is updated, not recomputed (RFC 1624): so a request damaged on its way stays recognisably damaged, and no part
/// needs the others. IP options stay as they came (RFC 1122 §3.2.2.6); a source route has ended here, else `parse` has refused it.
///
/// False, and nothing changed, when it is no echo request. Of a later part the caller knows that it belongs to one.
#[must_use]
pub fn echo_reply(frame: &mut [u8], parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let (source, destination, has_icmp_header) = match parsed.body {
        Body::Ipv4Icmp(Ipv4Icmp { source, destination, message: Icmp::EchoRequest }) => (source, destination, true),
        Body::Ipv4Fragment(part) if part.protocol == ICMP && (part.offset > 0 || part.is_echo_request) => {
            (part.source, part.destination, part.offset == 0)
        }
        _ => return false,
    };
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let Some((headers, rest)) = frame.split_at_mut_checked(l4) else { return false };
    let Some(ip) = headers.get_mut(l3..).and_then(|header| header.first_chunk_mut::<IPV4_HEADER>()) else {
        return false;
    };
    if has_icmp_header {
        let Some(icmp) = rest.first_chunk_mut::<HEADER>() else { return false };
        let old = u16::from_be_bytes([icmp[0], icmp[1]]);
        icmp[0] = ECHO_REPLY;
        let new = u16::from_be_bytes([icmp[0], icmp[1]]);
        let sum = u16::from_be_bytes([icmp[2], icmp[3]]);
        icmp[2..4].copy_from_slice(&nonzero(checksum::update(sum, old, new)).to_be_bytes());
    }
    // Swapping the addresses does not change the sum; the time to live does.
    let old = u16::from_be_bytes([ip[8], ip[9]]);
    ip[8] = TTL;
    let new = u16::from_be_bytes([ip[8], ip[9]]);
    let sum = u16::from_be_bytes([ip[10], ip[11]]);
    ip[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
    ip[12..16].copy_from_slice(&destination.to_be_bytes());
    ip[16..20].copy_from_slice(&source.to_be_bytes());
    ethernet::return_to_sender(frame, our_mac);
    true
}

/// An echo reply's checksum. 0 and 0xffff are the same number, and either is right for every message but one: a message that
/// is all zeros, which sums to 0, needs 0xffff. No other message that we send can be all zeros: every other type, and
/// every pseudo-header, has a bit set.
const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Longest error message we send (RFC 1812 §4.3.2.3).
const LONGEST_ERROR: usize = 576;
const IPV4_HEADER: usize = 20;

/// Turns a packet into an error message to its sender: fragmentation needed, nothing above `mtu` bytes passes (RFC 1191 §4). It
/// comes from the packet's destination, the end that the sender knows. False as in [`error`].
#[must_use]
pub fn too_big(packet: &mut impl PacketBuf, parsed: &Parsed, mtu: u16, our_mac: &MacAddress) -> bool {
    let Some((_, source)) = ends(&parsed.body) else { return false };
    let (kind, code, rest) = (UNREACHABLE, FRAGMENTATION_NEEDED, u32::from(mtu));
    error(packet, parsed, &ErrorMessage { kind, code, rest, source }, our_mac)
}

/// The same: the packet's time to live has ended here (RFC 1812 §5.3.1). It comes from `our_address`.
#[must_use]
pub fn time_exceeded(packet: &mut impl PacketBuf, parsed: &Parsed, our_address: u32, our_mac: &MacAddress) -> bool {
    let (kind, code, rest) = (TIME_EXCEEDED, IN_TRANSIT, 0);
    error(packet, parsed, &ErrorMessage { kind, code, rest, source: our_address }, our_mac)
}

/// The same: nobody has bound the datagram's port (RFC 1122 §3.2.2.1). It comes from the datagram's destination.
#[must_use]
pub fn port_unreachable(packet: &mut impl PacketBuf, parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let Some((_, source)) = ends(&parsed.body) else { return false };
    let (kind, code, rest) = (UNREACHABLE, PORT_UNREACHABLE, 0);
    error(packet, parsed, &ErrorMessage { kind, code, rest, source }, our_mac)
}

/// Source and destination of a packet that may be answered with an error message: no ICMP error, no later part and no packet
/// to a group (RFC 1122 §3.2.2).
fn ends(body: &Body) -> Option<(u32, u32)> {
    let (source, destination) = match *body {
        Body::Ipv4Tcp(segment) => (segment.source, segment.destination),
        Body::Ipv4Udp(datagram) => (datagram.source, datagram.destination),
        Body::Ipv4Fragment(part) if part.offset == 0 => (part.source, part.destination),
        Body::Ipv4Icmp(Ipv4Icmp { source, destination, message: Icmp::EchoRequest }) => (source, destination),
        _ => return None,
    };
    (destination >> 28 < 0xe).then_some((source, destination))
}

/// Turns a packet into an error message about it. False, and nothing changed, when it may not have one, or without headroom.
fn error(packet: &mut impl PacketBuf, parsed: &Parsed, message: &ErrorMessage<u32>, our_mac: &MacAddress) -> bool {
    let Some((sender, _)) = ends(&parsed.body) else { return false };
    const HEADERS: usize = IPV4_HEADER + HEADER;
    replace_by_error(packet, parsed, LONGEST_ERROR, our_mac, |headers: &mut [u8; HEADERS], quote| {
        let (ip, icmp) = headers.split_at_mut(IPV4_HEADER);
        // Network control, as RFC 1812 §4.3.2.5 wants errors to be.
        (ip[0], ip[1]) = (0x45, 0xc0);
        ip[2..4].copy_from_slice(&((HEADERS + quote.len()) as u16).to_be_bytes());
        (ip[8], ip[9]) = (TTL, ICMP);
        ip[12..16].copy_from_slice(&message.source.to_be_bytes());
        ip[16..20].copy_from_slice(&sender.to_be_bytes());
        let sum = checksum::of(ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        (icmp[0], icmp[1]) = (message.kind, message.code);
        icmp[4..8].copy_from_slice(&message.rest.to_be_bytes());
        let sum = Sum::default().bytes(icmp).bytes(quote).checksum();
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    })
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
