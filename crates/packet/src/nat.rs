//! Destination translation: a client's packet to the VIPA becomes one to the target itself, and the target's answer the VIPA's
//! again. Checksums are updated, not recomputed (RFC 1624), so what was damaged on its way stays recognisably damaged.

use crate::{
    Parsed, TCP, UDP,
    checksum::{self, Sum},
    ethernet, icmp, icmp6,
    parse::{Body, Fragment, FragmentHead, addresses6, walk_ipv6},
    tunnel::InnerPacket,
    view,
};

/// An address, numeric, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    V4(u32, u16),
    V6(u128, u16),
}

#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Makes `target` the destination of the TCP segment, UDP datagram or part of either that `parsed` found. In a later part
/// only the address changes. False, and nothing changed, for anything else, a first part without its whole transport header,
/// or the other family.
#[inline]
#[must_use]
pub fn to_target(frame: &mut [u8], parsed: &Parsed, target: Endpoint) -> bool {
    translate(frame, parsed, End::Destination, target).is_some()
}

/// Does what [`decrement_ttl`] and [`to_target`] do, to the packet that `inner` was seen in. False, and nothing changed, when
/// `target` is of the other family.
#[inline]
#[must_use]
pub fn plain_to_target(frame: &mut [u8], inner: &InnerPacket, target: Endpoint) -> bool {
    translate_plain(frame, inner, End::Destination, target).is_some()
}

/// Makes `vipa` the source; otherwise as [`to_target`].
#[inline]
#[must_use]
pub fn from_target(frame: &mut [u8], parsed: &Parsed, vipa: Endpoint) -> bool {
    translate(frame, parsed, End::Source, vipa).is_some()
}

/// Makes `vipa` the source; otherwise as [`plain_to_target`].
#[inline]
#[must_use]
pub fn plain_from_target(frame: &mut [u8], inner: &InnerPacket, vipa: Endpoint) -> bool {
    translate_plain(frame, inner, End::Source, vipa).is_some()
}

/// One sum for all that changes in the IP header, one for all that changes in what the transport's checksum covers.
#[inline(always)]
fn translate_plain(frame: &mut [u8], inner: &InnerPacket, end: End, new: Endpoint) -> Option<()> {
    let packet = frame.get_mut(ethernet::HEADER..)?;
    let (change, transport, port) = match (inner.is_ipv6, new) {
        (false, Endpoint::V4(address, port)) => {
            let (header, transport) = packet.split_first_chunk_mut()?;
            let change = replace_address4(header, end, address);
            header[8] -= 1;
            update_checksum4(header, change.and(Change::HOP));
            (change, transport, port)
        }
        (true, Endpoint::V6(address, port)) => {
            let (header, transport) = packet.split_first_chunk_mut()?;
            let change = replace_address6(header, end, address);
            header[7] -= 1;
            (change, transport, port)
        }
        _ => return None,
    };
    let change = replace_port(transport, 0, end, port).map_or(change, |ports| change.and(ports));
    update_transport_checksum(transport, 0, inner.protocol, change);
    Some(())
}

#[inline(always)]
fn translate(frame: &mut [u8], parsed: &Parsed, end: End, new: Endpoint) -> Option<()> {
    let transport = match parsed.body {
        Body::Ipv4Tcp(_) | Body::Ipv6Tcp(_) => Some(TCP),
        Body::Ipv4Udp(_) | Body::Ipv6Udp(_) => Some(UDP),
        Body::Ipv4Fragment(part) => of_part(&part)?,
        Body::Ipv6Fragment(part) => of_part(&part)?,
        _ => return None,
    };
    let is_ipv4 = matches!(parsed.body, Body::Ipv4Tcp(_) | Body::Ipv4Udp(_) | Body::Ipv4Fragment(_));
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let (change, port) = match (is_ipv4, new) {
        (true, Endpoint::V4(address, port)) => (replace4(frame, l3, end, address)?, port),
        (false, Endpoint::V6(address, port)) => (replace6(frame, l3, end, address)?, port),
        _ => return None,
    };
    if let Some(protocol) = transport {
        let change = replace_port(frame, l4, end, port).map_or(change, |ports| change.and(ports));
        update_transport_checksum(frame, l4, protocol, change);
    }
    Some(())
}

/// Whose header a part has: TCP's, UDP's or, in a later one, none. `None` for a first part that has not its whole header:
/// with a new address but the old port and sum it would be nobody's.
#[inline(always)]
fn of_part<A>(part: &Fragment<A>) -> Option<Option<u8>> {
    match part.head {
        Some(FragmentHead { flags: Some(_), .. }) => Some(Some(TCP)),
        Some(FragmentHead { flags: None, .. }) => Some(Some(UDP)),
        None => (part.offset != 0).then_some(None),
    }
}

/// What a rewrite adds to a ones' complement sum: the new words and the complements of the old.
#[derive(Clone, Copy)]
struct Change(Sum);

impl Change {
    /// What a hop less does to an IPv4 header.
    const HOP: Self = Self(checksum::HOP);

    fn word(old: u16, new: u16) -> Self {
        Self(Sum::default().word(!old).word(new))
    }

    fn and(self, other: Self) -> Self {
        Self(self.0.and(other.0))
    }

    /// `checksum` after this change of what it covers (RFC 1624 §3).
    fn apply(self, checksum: u16) -> u16 {
        self.0.word(!checksum).checksum()
    }
}

/// Replaces an address in the IPv4 header at `l3` and updates the header's checksum.
#[inline(always)]
fn replace4(frame: &mut [u8], l3: usize, end: End, new: u32) -> Option<Change> {
    let header = frame.get_mut(l3..)?.first_chunk_mut()?;
    let change = replace_address4(header, end, new);
    update_checksum4(header, change);
    Some(change)
}

/// Replaces an address in the IPv6 header at `l3`, which has no checksum of its own.
#[inline(always)]
fn replace6(frame: &mut [u8], l3: usize, end: End, new: u128) -> Option<Change> {
    Some(replace_address6(frame.get_mut(l3..)?.first_chunk_mut()?, end, new))
}

#[inline(always)]
fn replace_address4(header: &mut [u8; IPV4_HEADER], end: End, new: u32) -> Change {
    let place = match end {
        End::Source => &mut header[12..16],
        End::Destination => &mut header[16..20],
    };
    let old = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
    place.copy_from_slice(&new.to_be_bytes());
    Change(Sum::default().address(!old).address(new))
}

#[inline(always)]
fn update_checksum4(header: &mut [u8; IPV4_HEADER], change: Change) {
    let sum = u16::from_be_bytes([header[10], header[11]]);
    header[10..12].copy_from_slice(&change.apply(sum).to_be_bytes());
}

#[inline(always)]
fn replace_address6(header: &mut [u8; IPV6_HEADER], end: End, new: u128) -> Change {
    let (source, destination) = addresses6(header);
    let (old, at) = match end {
        End::Source => (source, 8),
        End::Destination => (destination, 24),
    };
    header[at..at + 16].copy_from_slice(&new.to_be_bytes());
    Change(Sum::default().address6(!old).address6(new))
}

#[inline(always)]
fn replace_port(frame: &mut [u8], l4: usize, end: End, new: u16) -> Option<Change> {
    let at = match end {
        End::Source => l4,
        End::Destination => l4 + 2,
    };
    let old = view::u16_at(frame, at)?;
    view::put(frame, at, &new.to_be_bytes()).then(|| Change::word(old, new))
}

/// In UDP zero means "no checksum" and stays; a sum never becomes it (RFC 768).
#[inline(always)]
fn update_transport_checksum(frame: &mut [u8], l4: usize, protocol: u8, change: Change) {
    let at = l4 + if protocol == TCP { 16 } else { 6 };
    let Some(place) = frame.get_mut(at..at + 2) else { return };
    let new = match (protocol, u16::from_be_bytes([place[0], place[1]])) {
        (UDP, 0) => return,
        (UDP, sum) => match change.apply(sum) {
            0 => 0xffff,
            updated => updated,
        },
        (_, sum) => change.apply(sum),
    };
    place.copy_from_slice(&new.to_be_bytes());
}

/// An ICMP error to the VIPA, about a packet from the VIPA to a client: makes `target` its destination and the source of what
/// it quotes, as the target sent it. False, and nothing changed, when `parsed` found no such error.
#[must_use]
pub fn error_to_target(frame: &mut [u8], parsed: &Parsed, target: Endpoint) -> bool {
    translate_error(frame, parsed, (End::Destination, target), End::Source, None)
}

/// An ICMP error to a client, about a packet that was sent on to a target: makes `vipa` the destination of what it quotes, as
/// the client sent it, and its source where the target itself complains.
#[must_use]
pub fn error_from_target(frame: &mut [u8], parsed: &Parsed, vipa: Endpoint) -> bool {
    // A router on the way stays the one who complains.
    let from_target = match parsed.body {
        Body::Ipv4Icmp(icmp) => match icmp.message {
            icmp::Icmp::Error { quoted, .. } => icmp.source == quoted.destination,
            _ => return false,
        },
        Body::Ipv6Icmp(icmp) => match icmp.message {
            icmp6::Icmp6::Error { quoted, .. } => icmp.source == quoted.destination,
            _ => return false,
        },
        _ => return false,
    };
    translate_error(frame, parsed, (End::Source, vipa), End::Destination, Some(from_target))
}

/// The checksum within the quoted transport header is left: it is mostly cut off, and nobody verifies it.
fn translate_error(
    frame: &mut [u8],
    parsed: &Parsed,
    (end, new): (End, Endpoint),
    quoted_end: End,
    outer_too: Option<bool>,
) -> bool {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let quote = l4 + icmp::HEADER;
    let outer_too = outer_too.unwrap_or(true);
    let is_error = match parsed.body {
        Body::Ipv4Icmp(icmp) => matches!(icmp.message, icmp::Icmp::Error { .. }) && matches!(new, Endpoint::V4(..)),
        Body::Ipv6Icmp(icmp) => matches!(icmp.message, icmp6::Icmp6::Error { .. }) && matches!(new, Endpoint::V6(..)),
        _ => false,
    };
    if !is_error {
        return false;
    }
    let change = match new {
        Endpoint::V4(address, port) => {
            let ports = quote + usize::from(frame[quote] & 0x0f) * 4;
            let Some(old_sum) = view::u16_at(frame, quote + 10) else { return false };
            let Some(change) = replace4(frame, quote, quoted_end, address) else { return false };
            let new_sum = view::u16_at(frame, quote + 10).unwrap_or(old_sum);
            let change = change.and(Change::word(old_sum, new_sum));
            let change = replace_port(frame, ports, quoted_end, port).map_or(change, |ports| change.and(ports));
            // The sum of an IPv4 message covers no addresses of its own packet.
            if outer_too && replace4(frame, l3, end, address).is_none() {
                return false;
            }
            change
        }
        Endpoint::V6(address, port) => {
            let Some(ports) = frame.get(quote..).and_then(|quote| Some(walk_ipv6(quote).ok()?.at)) else {
                return false;
            };
            let Some(mut change) = replace6(frame, quote, quoted_end, address) else { return false };
            if let Some(ports) = replace_port(frame, quote + ports, quoted_end, port) {
                change = change.and(ports);
            }
            if outer_too && let Some(outer) = replace6(frame, l3, end, address) {
                change = change.and(outer);
            }
            change
        }
    };
    let Some(sum) = view::u16_at(frame, l4 + 2) else { return false };
    view::put(frame, l4 + 2, &change.apply(sum).to_be_bytes())
}

/// Whether a frame holds an IP packet that has no hop left, so that [`decrement_ttl`] refuses it.
#[must_use]
pub fn has_last_hop(frame: &[u8]) -> bool {
    let Some((tagged, _)) = ethernet::ether_type(frame) else { return false };
    let l3 = ethernet::HEADER + if tagged { ethernet::VLAN_TAG } else { 0 };
    match view::chunk::<IPV4_HEADER>(frame, l3) {
        Some(header) if header[0] >> 4 == 4 => header[8] <= 1,
        Some(header) if header[0] >> 4 == 6 => header[7] <= 1,
        _ => false,
    }
}

/// Counts a hop (RFC 791 §3.2, RFC 8200 §3): what is translated or wrapped has been routed here, what only gets another MAC
/// has not. False, and nothing changed, when this was the last one.
#[inline]
#[must_use]
pub fn decrement_ttl(frame: &mut [u8], parsed: &Parsed) -> bool {
    let l3 = usize::from(parsed.l3);
    let Some(header) = frame.get_mut(l3..).and_then(|packet| packet.first_chunk_mut::<IPV4_HEADER>()) else {
        return false;
    };
    match header[0] >> 4 {
        4 if header[8] > 1 => {
            header[8] -= 1;
            let sum = u16::from_be_bytes([header[10], header[11]]);
            header[10..12].copy_from_slice(&checksum::after_hop(sum).to_be_bytes());
            true
        }
        6 if header[7] > 1 => {
            header[7] -= 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
