//! ICMP errors about a tunnel's path: a router on it says that an outer packet of ours is too big for its next link (RFC 1191 §3,
//! RFC 4443 §3.2).

use std::net::IpAddr;

use crate::{
    Body, Icmp, Icmp6, Parsed, UDP, checksum,
    icmp::{self, FRAGMENTATION_NEEDED, UNREACHABLE},
    icmp6::{self, PACKET_TOO_BIG},
    parse::addresses6,
    tunnel::{GRE, IPV4_INSIDE, IPV6_INSIDE},
    view,
};

/// An ICMP error "packet too big" or "fragmentation needed" about one of our outer packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketTooBig {
    /// Source and destination of the outer packet that the error quotes.
    pub source: IpAddr,
    pub destination: IpAddr,
    /// MTU of the link, bytes of IP; less than the quoted packet's length.
    pub mtu: u16,
}

/// MTUs to assume where an old router does not say its link's (RFC 1191 §7.1).
const PLATEAUS: [u16; 7] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006];
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

impl PacketTooBig {
    /// Reads an ICMP error that `parsed` found in `frame`. `None`: the message is another one, it quotes a packet of no tunnel (IP in IP,
    /// GRE, or UDP to port `gue`), its checksum is wrong, or its MTU is not below the quoted packet's length.
    #[must_use]
    pub fn read(frame: &[u8], parsed: &Parsed, gue: u16) -> Option<Self> {
        let message = frame.get(usize::from(parsed.l4)..parsed.end as usize)?;
        let (header, quote) = message.split_first_chunk::<{ icmp::HEADER }>()?;
        match parsed.body {
            Body::Ipv4Icmp(about) => {
                let is_error = matches!(about.message, Icmp::Error { .. } | Icmp::Other(_))
                    && header[..2] == [UNREACHABLE, FRAGMENTATION_NEEDED];
                (is_error && checksum::is_valid(message)).then_some(())?;
                Self::of_ipv4(u16::from_be_bytes([header[6], header[7]]), quote, gue)
            }
            Body::Ipv6Icmp(about) => {
                let is_error = matches!(about.message, Icmp6::Error { .. } | Icmp6::Other(_))
                    && header[..2] == [PACKET_TOO_BIG, 0];
                let sum = icmp6::sum_of(about.source, about.destination, message.len() as u16).bytes(message);
                (is_error && sum.fold() == 0xffff).then_some(())?;
                let mtu = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                Self::of_ipv6(u16::try_from(mtu).ok()?, quote, gue)
            }
            _ => None,
        }
    }

    fn of_ipv4(mtu: u16, quote: &[u8], gue: u16) -> Option<Self> {
        let header: &[u8; IPV4_HEADER] = quote.first_chunk()?;
        let (length, protocol) = (u16::from_be_bytes([header[2], header[3]]), header[9]);
        // Our outer headers have no options.
        let is_ours = header[0] == 0x45 && is_tunnel(protocol, quote.get(IPV4_HEADER..)?, gue);
        let mtu = match mtu {
            0 => PLATEAUS.into_iter().find(|plateau| *plateau < length).unwrap_or(0),
            said => said,
        };
        let [source, destination] = [12, 16].map(|at| view::u32_at(header, at).unwrap_or_default());
        (is_ours && mtu < length).then_some(Self {
            source: IpAddr::V4(source.into()),
            destination: IpAddr::V4(destination.into()),
            mtu,
        })
    }

    fn of_ipv6(mtu: u16, quote: &[u8], gue: u16) -> Option<Self> {
        let header: &[u8; IPV6_HEADER] = quote.first_chunk()?;
        let length = u16::from_be_bytes([header[4], header[5]]).saturating_add(IPV6_HEADER as u16);
        let is_ours = header[0] >> 4 == 6 && is_tunnel(header[6], quote.get(IPV6_HEADER..)?, gue);
        let (source, destination) = addresses6(header);
        (is_ours && mtu < length).then_some(Self {
            source: IpAddr::V6(source.into()),
            destination: IpAddr::V6(destination.into()),
            mtu,
        })
    }
}

/// Whether a packet with this protocol, and these bytes after its IP header, may be a tunnel's.
fn is_tunnel(protocol: u8, after: &[u8], gue: u16) -> bool {
    match protocol {
        IPV4_INSIDE | IPV6_INSIDE | GRE => true,
        UDP => after.len() >= UDP_HEADER && view::u16_at(after, 2) == Some(gue),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
