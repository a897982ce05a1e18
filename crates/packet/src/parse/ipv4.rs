//! IPv4 (RFC 791) in all its forms.

use super::{Body, Fragment, LONGEST, transport};
use crate::{
    ICMP, Malformed, TCP, UDP, checksum,
    icmp::{self, Ipv4Icmp},
    view,
};

pub(super) const HEADER: usize = 20;
/// More fragments, or a fragment offset: the packet is not whole.
pub(crate) const FRAGMENT: u16 = 0x3fff;
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Where the transport header begins, where the packet ends, and what it is.
pub(super) fn read(frame: &[u8], l3: usize) -> Result<(usize, usize, Body), Malformed> {
    let ip: &[u8; HEADER] = view::chunk(frame, l3).ok_or(Malformed::TooShort)?;
    let header_length = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[0] >> 4 != 4 {
        return Err(Malformed::Ipv4Version);
    }
    if header_length < HEADER {
        return Err(Malformed::Ipv4HeaderLength);
    }
    let packet = frame.get(l3..l3 + total).ok_or(Malformed::Ipv4TotalLength)?;
    let Some((header, payload)) = packet.split_at_checked(header_length) else {
        return Err(if total < HEADER { Malformed::Ipv4TotalLength } else { Malformed::Ipv4HeaderLength });
    };
    if !checksum::is_valid(header) {
        return Err(Malformed::Ipv4Checksum);
    }
    if header_length > HEADER && routes_by_source(&header[HEADER..]) {
        return Err(Malformed::SourceRoute);
    }
    let source = u32::from_be_bytes([ip[12], ip[13], ip[14], ip[15]]);
    let destination = u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]]);
    if is_martian(source) {
        return Err(Malformed::Ipv4Source);
    }
    let protocol = ip[9];
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    let body = if fragment & FRAGMENT != 0 {
        Body::Ipv4Fragment(read_part(ip, payload, (source, destination))?)
    } else {
        match protocol {
            TCP => Body::Ipv4Tcp(transport::read_tcp(payload, source, destination)?),
            UDP => Body::Ipv4Udp(transport::read_udp(payload, source, destination)?),
            ICMP => Body::Ipv4Icmp(Ipv4Icmp { source, destination, message: icmp::read(payload)? }),
            _ => Body::Ipv4Other { source, destination, protocol },
        }
    };
    Ok((l3 + header_length, l3 + total, body))
}

/// A part of a packet.
#[cold]
#[inline(never)]
fn read_part(ip: &[u8; HEADER], payload: &[u8], (source, destination): (u32, u32)) -> Result<Fragment<u32>, Malformed> {
    let (protocol, fragment) = (ip[9], u16::from_be_bytes([ip[6], ip[7]]));
    let (offset, more) = ((fragment & OFFSET) * 8, fragment & MORE != 0);
    if usize::from(offset) + payload.len() > LONGEST || (more && !payload.len().is_multiple_of(8)) {
        return Err(Malformed::Ipv4Fragment);
    }
    let identification = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
    let head = if offset == 0 { transport::read_head(payload, protocol) } else { None };
    let is_echo_request = offset == 0 && protocol == ICMP && icmp::is_echo_request(payload);
    Ok(Fragment { source, destination, protocol, identification, offset, more, head, is_echo_request })
}

/// Whether IPv4 options hold a source route, loose or strict, that is not at its end: its pointer has not passed its length
/// (RFC 791 §3.1). One that is cut short counts as not at its end.
#[cold]
#[inline(never)]
fn routes_by_source(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        options = match *options {
            [] | [END, ..] => return false,
            [NO_OPERATION, ref rest @ ..] => rest,
            [LOOSE | STRICT, length, pointer, ..] if pointer <= length || usize::from(length) > options.len() => {
                return true;
            }
            [LOOSE | STRICT] | [LOOSE | STRICT, _] => return true,
            [_, length, ..] if length >= 2 => match options.get(usize::from(length)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

/// Whether no host can have this address: 0/8, 127/8, 224/4 or 255/8.
#[inline(always)]
pub(crate) const fn is_martian(address: u32) -> bool {
    is_martian_first((address >> 24) as u8)
}

/// The same by the address' first byte.
#[inline(always)]
pub(super) const fn is_martian_first(first: u8) -> bool {
    const MARTIAN: [bool; 256] = {
        let mut martian = [false; 256];
        let mut first = 0;
        while first < 256 {
            martian[first] = matches!(first, 0 | 127 | 224..=239 | 255);
            first += 1;
        }
        martian
    };
    MARTIAN[first as usize]
}

/// The same by calculation, for many addresses at once.
#[inline(always)]
pub(super) const fn is_martian_octet(first: u64) -> bool {
    ((first + 1) & 0x7f == 0) | (first == 0) | (first & 0xf0 == 224)
}
