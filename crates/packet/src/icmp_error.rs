//! What error messages of ICMP and ICMPv6 have in common: they take the place of the packet that they are about, and quote its beginning.

use crate::{
    PacketBuf, Parsed,
    ethernet::{self, MacAddress},
};

/// Type, code and second word of an error message, and the address that it comes from.
pub(crate) struct ErrorMessage<Address> {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) rest: u32,
    pub(crate) source: Address,
}

/// Turns a packet into an error message to its sender: `HEADERS` bytes of IP and ICMP header, and the packet's beginning, so that both
/// together take at most `longest` bytes. `write` gets the headers, which are zero, and what is quoted. False, and nothing changed,
/// without headroom.
pub(crate) fn replace_by_error<const HEADERS: usize>(
    packet: &mut impl PacketBuf,
    parsed: &Parsed,
    longest: usize,
    our_mac: &MacAddress,
    write: impl FnOnce(&mut [u8; HEADERS], &[u8]),
) -> bool {
    let l3 = usize::from(parsed.l3);
    let quoted = (parsed.end as usize - l3).min(longest - HEADERS);
    let mut link = [0; ethernet::HEADER + ethernet::VLAN_TAG];
    let Some(link) = link.get_mut(..l3) else { return false };
    link.copy_from_slice(&packet.bytes()[..l3]);
    if packet.headroom() < HEADERS || !packet.truncate(l3 + quoted) || packet.prepend(HEADERS).is_none() {
        return false;
    }
    let frame = packet.bytes_mut();
    frame[..l3].copy_from_slice(link);
    let Some((headers, quote)) = frame[l3..].split_first_chunk_mut() else { return false };
    *headers = [0; HEADERS];
    write(headers, quote);
    ethernet::return_to_sender(frame, our_mac);
    true
}
