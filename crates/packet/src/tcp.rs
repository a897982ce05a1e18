//! TCP: the flags a router decides by, and the reset that answers a segment nobody knows (RFC 9293 §3.10.7.1).

use std::fmt;

use crate::{
    PacketBuf, Parsed, TCP,
    checksum::{self, Sum},
    ethernet::{self, MacAddress},
    icmp::TTL,
    parse::{Body, Tcp},
    view,
};

/// Bytes of a TCP header without options.
pub const HEADER: usize = 20;

/// The control bits of a TCP header.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    pub const FIN: Self = Self(0x01);
    pub const SYN: Self = Self(0x02);
    pub const RST: Self = Self(0x04);
    pub const PSH: Self = Self(0x08);
    pub const ACK: Self = Self(0x10);
    pub const URG: Self = Self(0x20);

    /// Whether all of `flags` are set.
    #[inline]
    #[must_use]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether at least one of `flags` is set.
    #[inline]
    #[must_use]
    pub const fn has_any(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    #[inline]
    #[must_use]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// A client's first segment: SYN without ACK, and without FIN and RST, which no client sends with it.
    #[inline]
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::FIN.0 | Self::RST.0) == Self::SYN.0
    }

    /// A server's answer to a first segment: SYN and ACK, without FIN and RST.
    #[inline]
    #[must_use]
    pub const fn is_syn_ack(self) -> bool {
        let bits = Self::SYN.0 | Self::ACK.0;
        self.0 & (bits | Self::FIN.0 | Self::RST.0) == bits
    }

    /// Neither opens nor closes anything: none of SYN, FIN and RST.
    #[inline(always)]
    #[must_use]
    pub const fn is_mid_stream(self) -> bool {
        !self.has_any(Self(Self::SYN.0 | Self::FIN.0 | Self::RST.0))
    }

    /// FIN or RST: the connection's end has begun.
    #[inline]
    #[must_use]
    pub const fn closes(self) -> bool {
        self.has_any(Self(Self::FIN.0 | Self::RST.0))
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set: Vec<_> =
            names.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, n)| *n).collect();
        f.write_str(if set.is_empty() { "none" } else { "" })?;
        f.write_str(&set.join("+"))
    }
}

/// Turns the segment that `parsed` found in `packet` into the reset that answers it, as from a host where no such
/// connection exists (RFC 9293 §3.10.7.1): an IP header, 20 bytes of TCP, nothing else, the VLAN tag kept.
///
/// The segment's own checksum is not verified: a port without receive offload sees half-made sums from interfaces of its own
/// machine, and the receiver of a reset checks it against its window (RFC 5961 §3.2).
///
/// False, and nothing changed, when it is not TCP, or is itself a reset, which is never answered.
#[must_use]
pub fn reset(packet: &mut impl PacketBuf, parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let flags = match parsed.body {
        Body::Ipv4Tcp(segment) => segment.flags,
        Body::Ipv6Tcp(segment) => segment.flags,
        _ => return false,
    };
    if flags.has(TcpFlags::RST) {
        return false;
    }
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let Some(header) = view::chunk::<HEADER>(packet.bytes(), l4) else { return false };
    let Some(payload) = (parsed.end as usize).checked_sub(l4 + usize::from(header[12] >> 4) * 4) else { return false };

    let sequence = view::u32_at(header, 4).unwrap_or_default();
    let acknowledged = view::u32_at(header, 8).unwrap_or_default();
    let length = payload as u32 + u32::from(flags.has(TcpFlags::SYN)) + u32::from(flags.has(TcpFlags::FIN));
    let (sequence, acknowledge, set) = if flags.has(TcpFlags::ACK) {
        (acknowledged, 0, TcpFlags::RST)
    } else {
        (0, sequence.wrapping_add(length), TcpFlags::RST.with(TcpFlags::ACK))
    };

    // The answer's ends are the segment's, crossed.
    let mut room = [0; IPV6_HEADER + HEADER];
    let ip_header = if matches!(parsed.body, Body::Ipv6Tcp(_)) { IPV6_HEADER } else { IPV4_HEADER };
    let answer = &mut room[..ip_header + HEADER];
    let (ip, tcp) = answer.split_at_mut(ip_header);
    let (ports, pseudo) = match parsed.body {
        Body::Ipv4Tcp(Tcp { source, destination, source_port, destination_port, .. }) => {
            write_ipv4(ip, destination, source);
            ((destination_port, source_port), checksum::pseudo_header(destination, source, TCP, HEADER as u16))
        }
        Body::Ipv6Tcp(Tcp { source, destination, source_port, destination_port, .. }) => {
            write_ipv6(ip, destination, source);
            ((destination_port, source_port), checksum::pseudo_header6(destination, source, TCP, HEADER as u16))
        }
        _ => return false,
    };
    tcp[0..2].copy_from_slice(&ports.0.to_be_bytes());
    tcp[2..4].copy_from_slice(&ports.1.to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&acknowledge.to_be_bytes());
    tcp[12] = ((HEADER / 4) as u8) << 4;
    tcp[13] = set.0;
    let sum = pseudo.bytes(tcp);
    tcp[16..18].copy_from_slice(&sum.checksum().to_be_bytes());

    // A segment after IPv6 is never shorter than the answer; one after IPv4 neither.
    if !view::put(packet.bytes_mut(), l3, answer) {
        return false;
    }
    let end = l3 + answer.len();
    ethernet::return_to_sender(packet.bytes_mut(), our_mac);
    packet.truncate(end)
}

/// Lowers the maximum segment size that a SYN or SYN+ACK offers to `most` (RFC 9293 §3.7.1); the checksum is updated. False,
/// and nothing changed, when it offers none or no more than that, or is another packet: there the option says nothing
/// (RFC 9293 §3.2).
pub fn clamp_mss(frame: &mut [u8], parsed: &Parsed, most: u16) -> bool {
    let flags = match parsed.body {
        Body::Ipv4Tcp(segment) => segment.flags,
        Body::Ipv6Tcp(segment) => segment.flags,
        _ => return false,
    };
    if !flags.has(TcpFlags::SYN) {
        return false;
    }
    let l4 = usize::from(parsed.l4);
    let Some(data_offset) = frame.get(l4 + 12).map(|byte| usize::from(byte >> 4) * 4) else { return false };
    let Some(segment) = frame.get_mut(l4..l4 + data_offset) else { return false };
    let mut at = HEADER;
    while let Some(&kind) = segment.get(at) {
        match kind {
            END_OF_OPTIONS => return false,
            NO_OPERATION => at += 1,
            MAXIMUM_SEGMENT_SIZE if segment.get(at + 1) == Some(&4) => {
                let Some(offered) = view::u16_at(segment, at + 2).filter(|offered| *offered > most) else {
                    return false;
                };
                let _ = view::put(segment, at + 2, &most.to_be_bytes());
                let sum = u16::from_be_bytes([segment[16], segment[17]]);
                // At an odd place its bytes stand in two words, each in the other half (RFC 1071 §2B).
                let (old, new) =
                    if at.is_multiple_of(2) { (offered, most) } else { (offered.swap_bytes(), most.swap_bytes()) };
                segment[16..18].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
                return true;
            }
            _ => match segment.get(at + 1) {
                Some(&length) if length >= 2 => at += usize::from(length),
                _ => return false,
            },
        }
    }
    false
}

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// The IPv4 header of a reset: never fragmented, so its identification is free (RFC 6864 §4.1).
fn write_ipv4(header: &mut [u8], source: u32, destination: u32) {
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + HEADER as u16).to_be_bytes());
    header[6] = 0x40;
    header[8] = TTL;
    header[9] = TCP;
    header[12..16].copy_from_slice(&source.to_be_bytes());
    header[16..20].copy_from_slice(&destination.to_be_bytes());
    let sum = Sum::default().bytes(header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn write_ipv6(header: &mut [u8], source: u128, destination: u128) {
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(HEADER as u16).to_be_bytes());
    (header[6], header[7]) = (TCP, TTL);
    header[8..24].copy_from_slice(&source.to_be_bytes());
    header[24..40].copy_from_slice(&destination.to_be_bytes());
}

#[cfg(test)]
mod tests;
