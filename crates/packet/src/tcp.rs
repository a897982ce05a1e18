//! TCP: the flags a router decides by, and the reset that answers a segment nobody knows (RFC 9293 §3.10.7.1).

use std::fmt;

use crate::{
    PacketBuf, Parsed, TCP,
    checksum::{self, Sum},
    ethernet::{self, MacAddress},
    icmp::TTL,
    parse::Body,
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
/// connection exists (RFC 9293 §3.10.7.1): 20 bytes of IP, 20 of TCP, nothing else, the VLAN tag kept.
///
/// The segment's own checksum is not verified: a port without receive offload sees half-made sums from interfaces of its own
/// machine, and the receiver of a reset checks it against its window (RFC 5961 §3.2).
///
/// False, and nothing changed, when it is not TCP, or is itself a reset, which is never answered.
#[must_use]
pub fn reset(packet: &mut impl PacketBuf, parsed: &Parsed, our_mac: &MacAddress) -> bool {
    let Body::Ipv4Tcp(segment) = parsed.body else { return false };
    if segment.flags.has(TcpFlags::RST) {
        return false;
    }
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let Some(header) = view::chunk::<HEADER>(packet.bytes(), l4) else { return false };
    let Some(payload) = (parsed.end as usize).checked_sub(l4 + usize::from(header[12] >> 4) * 4) else { return false };

    let sequence = view::u32_at(header, 4).unwrap_or_default();
    let acknowledged = view::u32_at(header, 8).unwrap_or_default();
    let length =
        payload as u32 + u32::from(segment.flags.has(TcpFlags::SYN)) + u32::from(segment.flags.has(TcpFlags::FIN));
    let (sequence, acknowledge, flags) = if segment.flags.has(TcpFlags::ACK) {
        (acknowledged, 0, TcpFlags::RST)
    } else {
        (0, sequence.wrapping_add(length), TcpFlags::RST.with(TcpFlags::ACK))
    };

    // The answer's ends are the segment's, crossed.
    let (source, destination) = (segment.destination, segment.source);
    let mut answer = [0; 20 + HEADER];
    let (ip, tcp) = answer.split_at_mut(20);
    tcp[0..2].copy_from_slice(&segment.destination_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&segment.source_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&acknowledge.to_be_bytes());
    tcp[12] = ((HEADER / 4) as u8) << 4;
    tcp[13] = flags.0;
    let sum = checksum::pseudo_header(source, destination, TCP, HEADER as u16).bytes(tcp);
    tcp[16..18].copy_from_slice(&sum.checksum().to_be_bytes());
    write_ipv4(ip, source, destination);

    if !view::put(packet.bytes_mut(), l3, &answer) {
        return false;
    }
    ethernet::turn_round(packet.bytes_mut(), our_mac);
    packet.truncate(l3 + answer.len())
}

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

#[cfg(test)]
mod tests;
