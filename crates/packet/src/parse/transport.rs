//! The transport header, of either family.

use super::{FragmentHead, Tcp, UDP_HEADER, Udp};
use crate::{Malformed, TCP, TcpFlags, UDP, tcp};

pub(super) fn read_tcp<A>(segment: &[u8], source: A, destination: A) -> Result<Tcp<A>, Malformed> {
    let header: &[u8; tcp::HEADER] = segment.first_chunk().ok_or(Malformed::TcpHeader)?;
    let data_offset = usize::from(header[12] >> 4) * 4;
    if !(tcp::HEADER..=segment.len()).contains(&data_offset) {
        return Err(Malformed::TcpHeader);
    }
    Ok(Tcp {
        source,
        destination,
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        flags: TcpFlags(header[13]),
    })
}

pub(super) fn read_udp<A>(datagram: &[u8], source: A, destination: A) -> Result<Udp<A>, Malformed> {
    let [s0, s1, d0, d1, l0, l1, ..] = *datagram else { return Err(Malformed::UdpLength) };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if !(UDP_HEADER..=datagram.len()).contains(&length) {
        return Err(Malformed::UdpLength);
    }
    Ok(Udp {
        source,
        destination,
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
    })
}

/// The header that the first part of a packet begins with. A length is the whole packet's, so none is checked; `None` when
/// the header goes on in the next part, as no honest sender's does (RFC 1858 §3, RFC 7112).
pub(super) fn read_head(payload: &[u8], protocol: u8) -> Option<FragmentHead> {
    let ports: &[u8; UDP_HEADER] = payload.first_chunk()?;
    let flags = match protocol {
        UDP => None,
        TCP => Some(read_tcp(payload, (), ()).ok()?.flags),
        _ => return None,
    };
    let source_port = u16::from_be_bytes([ports[0], ports[1]]);
    let destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    Some(FragmentHead { source_port, destination_port, flags })
}
