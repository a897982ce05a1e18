//! IPv6 (RFC 8200) in all its forms: the fixed header and the extension headers after it.
//!
//! ```text
//! fixed 40 ─► (hop-by-hop) ─► (routing, at its end) ─► (destination options) ─► (fragment) ─┬─► transport
//!                                any number and order, at most HEADERS in all               └─► later part: no more headers
//! ```

use super::{Body, Fragment, LONGEST, transport};
use crate::{
    ICMP6, Malformed, TCP, UDP,
    icmp6::{self, Icmp6, Ipv6Icmp},
    view,
};

pub(crate) const HEADER: usize = 40;
/// Extension headers that a packet can have: each kind twice, which RFC 8200 §4.1 does not even recommend.
const HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Where the transport header begins, where the packet ends, and what it is.
pub(super) fn read(frame: &[u8], l3: usize) -> Result<(usize, usize, Body), Malformed> {
    let ip: &[u8; HEADER] = view::chunk(frame, l3).ok_or(Malformed::TooShort)?;
    if ip[0] >> 4 != 6 {
        return Err(Malformed::Ipv6Version);
    }
    let end = l3 + HEADER + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    let packet = frame.get(l3..end).ok_or(Malformed::Ipv6PayloadLength)?;
    let (source, destination) = addresses(ip);
    if is_martian(source) && source != 0 {
        return Err(Malformed::Ipv6Source);
    }
    let Chain { protocol, at, part } = walk(packet)?;
    let payload = &packet[at..];
    let body = match part {
        Some(Part { next, offset, more, identification }) if offset != 0 || more => {
            if usize::from(offset) + payload.len() > LONGEST || (more && !(packet.len() - HEADER).is_multiple_of(8)) {
                return Err(Malformed::Ipv6Fragment);
            }
            let head = if offset == 0 { transport::read_head(payload, protocol) } else { None };
            let is_echo_request = offset == 0 && protocol == ICMP6 && icmp6::is_echo_request(payload);
            Body::Ipv6Fragment(Fragment {
                source,
                destination,
                protocol: next,
                identification,
                offset,
                more,
                head,
                is_echo_request,
            })
        }
        // A packet in one part is whole (RFC 6946).
        _ => match protocol {
            TCP => Body::Ipv6Tcp(transport::read_tcp(payload, source, destination)?),
            UDP => Body::Ipv6Udp(transport::read_udp(payload, source, destination)?),
            ICMP6 => {
                let message = icmp6::read(payload, source, destination, ip[7])?;
                if part.is_some() && matches!(message, Icmp6::Solicitation(_) | Icmp6::Advertisement(_)) {
                    return Err(Malformed::NdMessage);
                }
                Body::Ipv6Icmp(Ipv6Icmp { source, destination, message })
            }
            _ => Body::Ipv6Other { source, destination, protocol },
        },
    };
    // Who has no address yet asks whether an address is free, and which groups are heard (RFC 4862 §5.4, RFC 3810 §5.2.13).
    let nameless = matches!(&body, Body::Ipv6Icmp(Ipv6Icmp { message: Icmp6::Solicitation(_) | Icmp6::Other(_), .. }));
    if source == 0 && !nameless {
        return Err(Malformed::Ipv6Source);
    }
    Ok((l3 + at, end, body))
}

/// Source and destination.
#[inline(always)]
pub(crate) fn addresses(header: &[u8; HEADER]) -> (u128, u128) {
    let [source, destination] = [8, 24].map(|at| view::u128_at(header, at).unwrap_or_default());
    (source, destination)
}

/// What extension headers lead to.
pub(crate) struct Chain {
    /// Of the transport header; of a later part, whatever its fragment header says comes next in the first one.
    pub(crate) protocol: u8,
    /// Where that begins, from the first byte of the fixed header. Not past the packet's end.
    pub(crate) at: usize,
    /// What the fragment header says, if there is one.
    pub(crate) part: Option<Part>,
}

#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Type of the first header after the fragment header in the whole packet: the same in all parts (RFC 8200 §4.5).
    pub(crate) next: u8,
    pub(crate) offset: u16,
    pub(crate) more: bool,
    pub(crate) identification: u32,
}

/// Walks from the fixed header of `packet`, which is at least that long, to the transport header.
pub(crate) fn walk(packet: &[u8]) -> Result<Chain, Malformed> {
    const CUT: Malformed = Malformed::Ipv6ExtensionHeader;
    let mut chain = Chain { protocol: *packet.get(6).ok_or(CUT)?, at: HEADER, part: None };
    for _ in 0..=HEADERS {
        if chain.protocol == FRAGMENT {
            let [next, _, o0, o1, identification @ ..] = *view::chunk::<8>(packet, chain.at).ok_or(CUT)?;
            if chain.part.is_some() {
                return Err(Malformed::Ipv6Fragment);
            }
            let word = u16::from_be_bytes([o0, o1]);
            let (offset, more) = (word & 0xfff8, word & 1 != 0);
            chain.part = Some(Part { next, offset, more, identification: u32::from_be_bytes(identification) });
            (chain.protocol, chain.at) = (next, chain.at + 8);
            if offset != 0 {
                return Ok(chain);
            }
            continue;
        }
        match chain.protocol {
            HOP_BY_HOP if chain.at == HEADER => {}
            HOP_BY_HOP => return Err(Malformed::Ipv6HopByHop),
            ROUTING if packet.get(chain.at + 3).is_some_and(|segments_left| *segments_left != 0) => {
                return Err(Malformed::SourceRoute);
            }
            ROUTING | DESTINATION => {}
            _ => return Ok(chain),
        }
        let [next, length] = *view::chunk::<2>(packet, chain.at).ok_or(CUT)?;
        (chain.protocol, chain.at) = (next, chain.at + 8 + usize::from(length) * 8);
        if chain.at > packet.len() {
            return Err(CUT);
        }
    }
    Err(Malformed::Ipv6TooManyHeaders)
}

/// Whether no host can have this address: multicast, loopback, unspecified or IPv4-mapped (RFC 4291 §2.5, §2.7).
#[inline(always)]
pub(crate) const fn is_martian(address: u128) -> bool {
    address >> 120 == 0xff || address <= 1 || address >> 32 == 0xffff
}
