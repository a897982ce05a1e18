//! ICMP for IPv4 (RFC 792): answers pings, and reads whose packet an error message is about.

use crate::{
    Malformed, Parsed, TCP, UDP, checksum,
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
        quoted: Quoted,
    },
    /// Anything else: other types, and errors about a packet without ports (another protocol, a later fragment).
    /// Source quench and redirect are here too: nobody may act on the one (RFC 6633), and the other is
    /// a matter between a host and its first router.
    Other(u8),
}

/// What an error message quotes: the addresses and ports of a packet that the error's receiver had sent.
/// So for a VIPA's connection the *source* is the VIPA and the *destination* is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub source: u32,
    pub destination: u32,
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
    Ports(Quoted),
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

#[cfg(test)]
mod tests;
